"""SCRIPT and HTTP jobs: each execution is a process, started without a shell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from jobcloud.executor import http_job
from jobcloud.executor.execution import LOADING, Execution
from jobcloud.executor.loop import Loop, Timer
from jobcloud.executor.outcomes import Cause, Outcome, State, failed, killed
from jobcloud.executor.output import Pump, RotatingLog, TaskFolders
from jobcloud.executor.payload import sharding_context
from jobcloud.executor.processes import Child, Children, describe_exit, is_shortage, own_program
from jobcloud.job import ShardingContext


@dataclass(eq=False)
class _Script:
    child: Child
    tickets: Tuple[int, ...]
    errors: RotatingLog
    timer: Optional[Timer] = None


class Scripts:
    """A Runner for SCRIPT and HTTP jobs."""

    def __init__(
        self, loop: Loop, children: Children, pump: Pump, folders: TaskFolders, directory: str, env: Mapping[str, str]
    ) -> None:
        self._loop, self._children, self._pump, self._folders = loop, children, pump, folders
        self._directory, self._env = directory, env
        self._running: Dict[Execution, _Script] = {}

    def start(self, execution: Execution) -> None:
        if execution.number == LOADING:
            execution.on_ended(execution, Outcome(State.FINISHED))
            return
        context = sharding_context(execution.payload.context, execution.facts)
        argv = [*(execution.payload.script or own_program("jobcloud.executor.http_job")), context.to_json()]
        more = {} if execution.payload.http is None else {http_job.VARIABLE: json.dumps(execution.payload.http)}
        folder = self._folders.path(execution.task_id)
        output, errors = (RotatingLog(os.path.join(folder, name)) for name in ("stdout", "stderr"))
        try:
            (stdout, stderr), tickets = self._pump.attach(output, errors)
        except OSError as error:
            execution.on_ended(execution, _not_started(argv, error))
            return
        try:
            child = self._children.spawn(
                argv,
                cwd=self._directory,
                env={**self._env, **environment(context), **more},
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
            self._pump.finish(tickets, execution.on_ended, execution, refusal)
            return
        finally:
            os.close(stdout)
            os.close(stderr)
        self._running[execution] = _Script(child, tickets, errors)
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


def _not_started(argv: List[str], error: Exception) -> Outcome:
    """The agent has no room for the process now. This is not the job's failure."""
    return failed(Cause.WORKER_LOST, f"cannot start {argv[0]!r}: {error}")


def environment(context: ShardingContext) -> Dict[str, str]:
    """The environment variables of a script."""
    return {
        "JOBCLOUD_RUN_ID": context.run_id,
        "JOBCLOUD_ATTEMPT": str(context.attempt),
        "JOBCLOUD_FENCE": str(context.fence),
        "JOBCLOUD_FIRE_TIME": "" if context.fire_time_ms is None else str(context.fire_time_ms),
        "JOBCLOUD_JOB_NAME": context.job_name,
        "JOBCLOUD_JOB_PARAMETER": context.job_parameter,
        "JOBCLOUD_SHARDING_ITEM": str(context.sharding_item),
        "JOBCLOUD_SHARDING_TOTAL_COUNT": str(context.sharding_total_count),
        "JOBCLOUD_SHARDING_PARAMETER": context.sharding_parameter,
        "JOBCLOUD_TASK_ID": context.task_id,
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
