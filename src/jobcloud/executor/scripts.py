"""SCRIPT and HTTP jobs: each execution is a process, started without a shell.

Every user of a machine can read the arguments of a process, and the kernel limits the size of arguments and
environment. So parameters are never arguments. Instead, the process gets all data in a file that only its user can
read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import uuid as uuids
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from jobcloud.executor.execution import LOADING, Execution
from jobcloud.executor.files import variable_of
from jobcloud.executor.job_contexts import sharding_context
from jobcloud.executor.loop import Loop, Timer
from jobcloud.executor.outcomes import Cause, Outcome, State, failed, killed
from jobcloud.executor.output import RotatingLog, TaskFolders
from jobcloud.executor.processes import Child, Children, describe_exit, is_shortage, own_program
from jobcloud.executor.pump import Pump
from jobcloud.job import ShardingContext

CONTEXT_FILE = "JOBCLOUD_SHARDING_CONTEXT_FILE"
# The directory with the secrets that a script gets as files.
SECRET_FILES = "JOBCLOUD_SECRET_FILES"  # noqa: S105 - the name of a variable
# The secrets of an HTTP job, as a JSON object of headers. They are not in the file, because the file is on a disk.
HEADERS = "JOBCLOUD_REQUEST_HEADERS"
# The variables of a script whose values may be large. If the kernel would not accept such a variable, the script does
# not get the variable. The file always has the parameter.
_PARAMETERS = ("JOBCLOUD_JOB_PARAMETER", "JOBCLOUD_SHARDING_PARAMETER")
# Source: execve(2), "Limits on size of arguments and environment": at most 32 pages for each string, its NUL included.
# In total, the smaller of 6 MiB and a quarter of the stack's limit.
_MAX_STRING_BYTES = 32 * os.sysconf("SC_PAGE_SIZE")
_MAX_BYTES = min(os.sysconf("SC_ARG_MAX"), 6 << 20)
# The kernel itself uses a part of this total: a fixed number of bytes, and a pointer for each string.
_RESERVED_BYTES, _POINTER_BYTES = 8_192, 8


@dataclass(eq=False)
class _Script:
    child: Child
    tickets: Tuple[int, ...]
    errors: RotatingLog
    file: str
    timer: Optional[Timer] = None


class Scripts:
    """A Runner for SCRIPT and HTTP jobs.

    `env` is the environment of every process. Scripts also get the variables in `of_app`, and import Python's modules
    from the folders in `libraries`.
    """

    def __init__(
        self,
        loop: Loop,
        children: Children,
        pump: Pump,
        folders: TaskFolders,
        directory: str,
        env: Mapping[str, str],
        of_app: Mapping[str, str],
        libraries: Sequence[str],
    ) -> None:
        self._loop, self._children, self._pump, self._folders = loop, children, pump, folders
        self._directory, self._env, self._of_app, self._libraries = directory, env, of_app, libraries
        self._contexts = os.path.join(os.path.dirname(folders.root), "contexts")
        self._running: Dict[Execution, _Script] = {}

    def start(self, execution: Execution) -> None:
        if execution.number == LOADING:
            execution.on_ended(execution, Outcome(State.FINISHED))
            return
        context = sharding_context(execution.payload.context, execution.facts)
        if execution.payload.script is None:
            argv = own_program("jobcloud.executor.http_job")
        else:
            argv = [*execution.payload.script, argument(context)]
        folder = self._folders.path(execution.task_id)
        output, errors = (RotatingLog(os.path.join(folder, name)) for name in ("stdout", "stderr"))
        file = ""
        try:
            file = write_context(self._contexts, context, execution.payload.http)
            (stdout, stderr), tickets = self._pump.attach(output, errors)
        except OSError as error:
            _remove(file)
            execution.on_ended(execution, _not_started(argv, error))
            return
        env = {**self._env, CONTEXT_FILE: file}
        try:
            if execution.payload.script is not None:
                # Raises UnicodeEncodeError for text that the agent's locale cannot encode.
                variables = with_libraries({**env, **self._of_app, **execution.payload.environment}, self._libraries)
                own = variable_of(execution.files)
                env = fitting(argv, {**variables, **environment(context), **_secrets(execution), **own})
            elif execution.secrets:
                env[HEADERS] = json.dumps(dict(execution.secrets))
            child = self._children.spawn(
                argv,
                cwd=self._directory,
                env=env,
                stdout=stdout,
                stderr=stderr,
                limits=execution.payload.rlimits,
                on_exit=lambda code: self._on_exit(execution, code),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            refusal = (
                _not_started(argv, error)
                if is_shortage(error)
                else failed(Cause.COMMAND, self._start_problem(argv, error))
            )
            _remove(file)
            self._pump.finish(tickets, execution.on_ended, execution, refusal)
            return
        finally:
            os.close(stdout)
            os.close(stderr)
        self._running[execution] = _Script(child, tickets, errors, file)
        execution.on_started(execution)

    def kill(self, execution: Execution, grace_s: float) -> None:
        script = self._running.get(execution)
        if script is None:
            return
        if not execution.cancelled:
            execution.cancelled = True
            self._children.signal_group(script.child, signal.SIGTERM)
        if script.timer is not None:
            script.timer.cancel()
        script.timer = self._loop.later(grace_s, lambda: self._children.signal_group(script.child, signal.SIGKILL))

    def forget(self, task_id: str) -> None:
        """Nothing is kept for a script between executions."""

    def _on_exit(self, execution: Execution, code: int) -> None:
        script = self._running[execution]
        _remove(script.file)
        self._pump.finish(script.tickets, self._on_output_closed, execution, code)

    def _on_output_closed(self, execution: Execution, code: int) -> None:
        script = self._running.pop(execution)
        if script.timer is not None:
            script.timer.cancel()
        execution.on_ended(execution, _outcome(execution, script.child, code, script.errors.tail()))

    def _start_problem(self, argv: List[str], error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error)
        text = f"cannot start {argv[0]!r}: {reason}"
        if isinstance(error, PermissionError):
            return text + "; is it executable in the package?"
        if isinstance(error, FileNotFoundError) and "/" not in argv[0] and not shutil.which(argv[0]):
            inside = os.path.exists(os.path.join(self._directory, argv[0]))
            return text + (
                f"; it is in the package: write './{argv[0]}'"
                if inside
                else "; it is neither in PATH nor in the package"
            )
        return text


def with_libraries(env: Mapping[str, str], libraries: Sequence[str]) -> Dict[str, str]:
    """An environment in which scripts in Python import from these folders, before those that it names already."""
    paths = [*libraries, env.get("PYTHONPATH", "")]
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, paths))} if libraries else dict(env)


def _secrets(execution: Execution) -> Dict[str, str]:
    """The environment variables for the secrets of a script."""
    values = {use.key: execution.secrets[use.key] for use in execution.payload.secrets if not use.file}
    return {**values, SECRET_FILES: execution.secret_files} if execution.secret_files else values


def _not_started(argv: List[str], error: Exception) -> Outcome:
    """The outcome if the agent has no room for the process or its files now. This is not a failure of the job."""
    return failed(Cause.WORKER_LOST, f"cannot start {argv[0]!r}: {error}")


def argument(context: ShardingContext) -> str:
    """The last argument of a script: the context as JSON.

    Parameters are left out unless they are empty, because every user can read arguments.
    """
    fields = context.as_dict().items()
    kept = {name: value for name, value in fields if not name.endswith("Parameter") or not value}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def write_context(folder: str, context: ShardingContext, http: Optional[Mapping[str, Any]] = None) -> str:
    """Write everything about an execution to a new file that only this user can read. Returns its path.

    `http`: the request of an HTTP job. Raises OSError.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, uuids.uuid4().hex + ".json")
    known = {
        **context.as_dict(),
        "runId": context.run_id,
        "attempt": context.attempt,
        "fence": context.fence,
        "fireTime": context.fire_time_ms,
        "ports": list(context.ports),
        "team": context.team,
        **({"traceparent": context.traceparent} if context.traceparent else {}),
    }
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(json.dumps(known if http is None else {**known, "request": http}).encode())
    except OSError:
        _remove(path)
        raise
    return path


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def fitting(argv: Sequence[str], env: Mapping[str, str]) -> Dict[str, str]:
    """The environment without the parameters that the kernel would refuse.

    These are parameters that are too large, or all parameters if arguments and environment together are too large.
    """
    sizes = {name: len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in env.items()}
    total = sum(size + _POINTER_BYTES for size in (*sizes.values(), *(len(os.fsencode(word)) + 1 for word in argv)))
    whole = total <= _MAX_BYTES - _RESERVED_BYTES
    return {
        name: value
        for name, value in env.items()
        if name not in _PARAMETERS or (whole and sizes[name] <= _MAX_STRING_BYTES)
    }


def environment(context: ShardingContext) -> Dict[str, str]:
    """The environment variables of a script."""
    ports = {f"JOBCLOUD_PORT_{number}": str(port) for number, port in enumerate(context.ports)}
    return {
        "JOBCLOUD_RUN_ID": context.run_id,
        "JOBCLOUD_ATTEMPT": str(context.attempt),
        "JOBCLOUD_FENCE": str(context.fence),
        "JOBCLOUD_FIRE_TIME": "" if context.fire_time_ms is None else str(context.fire_time_ms),
        "JOBCLOUD_TEAM": context.team,
        "JOBCLOUD_JOB_NAME": context.job_name,
        "JOBCLOUD_JOB_PARAMETER": context.job_parameter,
        "JOBCLOUD_SHARDING_ITEM": str(context.sharding_item),
        "JOBCLOUD_SHARDING_TOTAL_COUNT": str(context.sharding_total_count),
        "JOBCLOUD_SHARDING_PARAMETER": context.sharding_parameter,
        "JOBCLOUD_TASK_ID": context.task_id,
        "JOBCLOUD_PORTS": ",".join(map(str, context.ports)),
        **ports,
        # TRACEPARENT has no prefix, because tools of OpenTelemetry read this name.
        **({"TRACEPARENT": context.traceparent} if context.traceparent else {}),
    }


def _outcome(execution: Execution, child: Child, code: int, errors: str) -> Outcome:
    if execution.cancelled:
        return killed(message=f"the script ended with {describe_exit(code)} after it was asked to stop", exit_code=code)
    if code == 0:
        return Outcome(State.FINISHED, exit_code=0)
    tail = f"\n\n{errors.strip()}" if errors.strip() else ""
    if child.out_of_memory:
        return failed(Cause.OUT_OF_MEMORY, f"the kernel killed the script because memory ran out{tail}", code)
    return failed(Cause.EXIT_CODE if code > 0 else Cause.SIGNAL, describe_exit(code) + tail, code)
