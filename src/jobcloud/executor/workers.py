"""The workers, as the daemon sees them. The daemon is the main process of the executor (docs/executor.md).

It starts workers on demand, sends them orders, and replaces lost workers.

The shards of an app share one worker. To kill a shard, the daemon asks the shard to stop. If the shard does not stop
within the grace period, its worker is retired: the worker gets no new shards. The daemon kills a retired worker as soon
as only killed shards are left in it, or after a second grace period. With isolation "process", each shard has its own
worker, which ends with the shard.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from jobcloud.executor import protocol
from jobcloud.executor.execution import LOADING, Execution
from jobcloud.executor.files import FILES, variable_of
from jobcloud.executor.loop import Loop, Timer, log
from jobcloud.executor.outcomes import Cause, Outcome, State, cut, failed, killed, small
from jobcloud.executor.output import RotatingLog, TaskFolders
from jobcloud.executor.payload import AppPayload
from jobcloud.executor.processes import NO_LIMITS, Child, Children, Rlimits, describe_exit, is_shortage, own_program
from jobcloud.executor.pump import Pump

READY_WITHIN_S = 60.0
# A child process of a worker may keep the worker's pipe open for this long after the worker has ended. A worker may run
# for this long after it has closed its pipe.
_LAST_WORDS_S = 2.0
# A worker with a single shard may take this long to close its contexts after the shard has ended.
_LEAVE_WITHIN_S = 5.0
# The first and the longest back-off before a new worker replaces a lost warm worker.
_REWARM_FIRST_S, _REWARM_MAX_S = 1.0, 60.0
_STATES = {"finished": State.FINISHED, "failed": State.FAILED, "killed": State.KILLED}


def python_worker() -> List[str]:
    """The command of the executor's own worker."""
    return own_program("jobcloud.executor.worker")


@dataclass
class _Placeholder:
    """A placeholder task. After the call of `on_ready`, the field is None."""

    contexts: Tuple[str, ...]
    on_ready: Optional[Callable[[str], None]]


class _Worker:
    """One worker process and the executions in it.

    `owner` is the task that has the worker to itself, or "". If this task is not resident, its `outcome` is reported
    when the worker is gone. A worker is gone when `ending` contains all of "exit" (the process has ended), "silence"
    (the worker's pipe is closed) and "output" (all output is stored).
    """

    def __init__(self, output: RotatingLog, errors: RotatingLog, owner: str = "") -> None:
        self.owner = owner
        #: whether the worker gives secrets to jobs; known when it is ready
        self.takes_secrets = False
        #: whether the worker gives jobs the paths of their files; known when it is ready
        self.takes_files = False
        #: the orders with secrets or files that wait until the worker is ready
        self.held: Dict[Execution, bytes] = {}
        self.outcome: Optional[Outcome] = None
        self.executions: Dict[str, Execution] = {}
        self.ready = False
        self.started_at = time.monotonic()
        self.retired = False
        self.reason = ""
        self.broken = False
        self.exit_code = 0
        self.ending: Set[str] = set()
        self.output, self.errors = output, errors
        self.outbox: queue.SimpleQueue[Optional[bytes]] = queue.SimpleQueue()
        self.tickets: Tuple[int, ...] = ()
        self.child: Optional[Child] = None


class Workers:
    """A Runner for SIMPLE and DATAFLOW jobs."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        pump: Pump,
        folders: TaskFolders,
        app: AppPayload,
        directory: str,
        libraries: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        self._loop, self._children, self._pump, self._folders = loop, children, pump, folders
        self._app, self._directory, self._libraries, self._env = app, directory, list(libraries), env
        self._command = list(app.worker or python_worker())
        self._output, self._errors = (
            RotatingLog(os.path.join(os.path.dirname(folders.root), "worker", name)) for name in ("stdout", "stderr")
        )
        self._current: Optional[_Worker] = None
        self._own: Dict[str, _Worker] = {}
        self._sharing = 0
        self._waiting: Deque[Execution] = deque()
        self._all: Set[_Worker] = set()
        self._worker_of: Dict[Execution, _Worker] = {}
        self._timers: Dict[Execution, Timer] = {}
        self._when_gone: Optional[Callable[[], None]] = None
        self._placeholders: Dict[str, _Placeholder] = {}
        self._rewarm_s = _REWARM_FIRST_S

    def keep_warm(self, task_id: str, contexts: Tuple[str, ...], on_ready: Callable[[str], None]) -> None:
        """Keep a shared worker running until `let_cool` is called. The worker builds these contexts in advance.

        If the worker is lost, a new one replaces it. `on_ready` is called once: with "" when the worker is ready, or
        with the reason why there is no worker.
        """
        self._placeholders[task_id] = _Placeholder(contexts, on_ready)
        if contexts and self._current is not None:
            self._send(self._current, {"type": "warm", "contexts": list(contexts)})
        self._warm()

    def let_cool(self, task_id: str) -> None:
        self._placeholders.pop(task_id, None)

    def _warm(self) -> None:
        if not self._placeholders or self._when_gone is not None:
            return
        if self._current is None:
            try:
                self._start_shared()
            except (OSError, subprocess.SubprocessError) as error:
                self._notify_placeholders(f"cannot start a worker: {error}")
        elif self._current.ready:
            self._notify_placeholders("")

    def _notify_placeholders(self, problem: str) -> None:
        for placeholder in list(self._placeholders.values()):
            on_ready, placeholder.on_ready = placeholder.on_ready, None
            if on_ready is not None:
                on_ready(problem)

    def _warm_again(self, worker: _Worker) -> None:
        """Start a new shared worker for the placeholder tasks after a back-off, because `worker` was lost."""
        if self._placeholders and self._current is None and self._when_gone is None:
            self._notify_placeholders(f"the worker was lost: {_reason_of(worker)}")
            if time.monotonic() - worker.started_at > _REWARM_MAX_S:
                self._rewarm_s = _REWARM_FIRST_S
            self._loop.later(self._rewarm_s, self._warm)
            self._rewarm_s = min(_REWARM_MAX_S, self._rewarm_s * 2)

    def start(self, execution: Execution) -> None:
        limit = self._app.max_parallel
        if execution.payload.own_process or not limit or self._sharing < limit:
            self._launch(execution)
        else:
            self._waiting.append(execution)
            execution.on_waiting(execution)

    def _launch(self, execution: Execution) -> None:
        payload = execution.payload
        try:
            line = protocol.encode(order(execution))
            worker = self._own_worker(execution) if payload.own_process else self._current or self._start_shared()
        except protocol.ProtocolError as error:
            execution.on_ended(execution, failed(Cause.PAYLOAD, f"the task's data is too large: {error}"))
            return
        except (OSError, subprocess.SubprocessError) as error:
            cause = Cause.COMMAND if self._app.worker and not is_shortage(error) else Cause.WORKER_LOST
            execution.on_ended(execution, failed(cause, f"cannot start a worker: {error}"))
            return
        worker.executions[execution.task_id] = execution
        self._worker_of[execution] = worker
        self._sharing += not worker.owner
        if (execution.secrets or execution.files) and not worker.ready:
            worker.held[execution] = line
        else:
            self._order(worker, execution, line)

    def _order(self, worker: _Worker, execution: Execution, line: bytes) -> None:
        """Send the order to carry out an execution, unless the worker would run the job without secrets or files."""
        why = "the app's own worker does not support them (docs/executor.md, 'The line protocol')"
        if execution.secrets and not worker.takes_secrets:
            self._finish(worker, execution, failed(Cause.SECRETS, f"no secrets: {why}"))
        elif execution.files and not worker.takes_files and not worker.owner:
            text = f'no files: {why}; with isolation "process" the job finds them by {FILES}'
            self._finish(worker, execution, failed(Cause.COMMAND, text))
        else:
            worker.outbox.put(line)

    def kill(self, execution: Execution, grace_s: float) -> None:
        worker = self._worker_of.get(execution)
        if worker is None:
            if execution in self._waiting:
                self._waiting.remove(execution)
                execution.on_ended(execution, killed(message="killed before it started: it waited for maxParallel"))
            return
        if worker.held.pop(execution, None) is not None:
            execution.cancelled = True
            self._finish(worker, execution, killed(message="killed before it started: its worker was not ready"))
            return
        if not execution.cancelled:
            execution.cancelled = True
            self._send(worker, {"type": "cancel", "task": execution.task_id})
        if execution in self._timers:
            self._timers.pop(execution).cancel()
        self._timers[execution] = self._loop.later(grace_s, lambda: self._end_stubborn(worker, grace_s))

    def forget(self, task_id: str) -> None:
        if task_id in self._own:
            self._ask_to_leave(self._own.pop(task_id), _LEAVE_WITHIN_S)
            return
        for worker in self._all:
            self._send(worker, {"type": "forget", "task": task_id})

    def stop(self, leave_within_s: float, when_gone: Callable[[], None]) -> None:
        """Ask the workers to close their contexts and exit. `when_gone` is called when no worker is left."""
        self._when_gone = when_gone
        self._current = None
        if not self._all:
            when_gone()
        for worker in list(self._all):
            self._ask_to_leave(worker, leave_within_s)

    def _ask_to_leave(self, worker: _Worker, leave_within_s: float) -> None:
        self._send(worker, {"type": "stop"})
        self._loop.later(leave_within_s, lambda: self._kill_worker(worker, "it did not exit in time"))

    def _start_shared(self) -> _Worker:
        self._current = self._start_worker(_Worker(self._output, self._errors), self._folders.root, NO_LIMITS, {})
        return self._current

    def _own_worker(self, execution: Execution) -> _Worker:
        """The worker of one task. A DAEMON task keeps its worker between executions.

        The output goes to the task's folder.
        """
        if execution.task_id not in self._own:
            folder = self._folders.path(execution.task_id)
            output, errors = (RotatingLog(os.path.join(folder, name)) for name in ("stdout", "stderr"))
            worker = _Worker(output, errors, execution.task_id)
            variables = {**execution.payload.environment, **variable_of(execution.files)}
            self._own[execution.task_id] = self._start_worker(worker, "", execution.payload.rlimits, variables)
        return self._own[execution.task_id]

    def _start_worker(self, worker: _Worker, folders: str, limits: Rlimits, environment: Mapping[str, str]) -> _Worker:
        """`environment`: variables in addition to those of all workers, or in place of them."""
        orders, answers = self._spawn(worker, limits, environment)
        self._all.add(worker)
        self._start_thread(worker, orders, _write_lines, orders, worker.outbox)
        self._start_thread(worker, answers, self._read_lines, worker, answers)
        app = self._app
        hello = {"type": "hello", "protocol": protocol.VERSION, "appName": app.app_name, "appVersion": app.app_version}
        self._send(worker, {**hello, "directory": self._directory, "libraries": self._libraries, "tasks": folders})
        contexts = sorted({context for placeholder in self._placeholders.values() for context in placeholder.contexts})
        if contexts and not worker.owner:
            self._send(worker, {"type": "warm", "contexts": contexts})
        self._loop.later(
            READY_WITHIN_S, lambda: None if worker.ready else self._kill_worker(worker, "it was not ready in time")
        )
        return worker

    def _start_thread(self, worker: _Worker, descriptor: int, target: Callable[..., None], *args: Any) -> None:
        """Raises OSError if no further thread can be started. The worker is then killed."""
        try:
            threading.Thread(target=target, args=args, name="worker-lines", daemon=True).start()
        except RuntimeError as error:
            os.close(descriptor)
            self._kill_worker(worker, str(error))
            raise OSError(errno.EAGAIN, str(error)) from error

    def _spawn(self, worker: _Worker, limits: Rlimits, environment: Mapping[str, str]) -> Tuple[int, int]:
        """Start the process. Returns our ends of the pipes: (orders, answers).

        Raises OSError or SubprocessError. After an exception, no pipe is left open.
        """
        with contextlib.ExitStack() as given_away, contextlib.ExitStack() as ours:
            (stdout, stderr), worker.tickets = self._pump.attach(worker.output, worker.errors)
            ours.callback(self._pump.finish, worker.tickets, lambda: None)
            for descriptor in (stdout, stderr):
                given_away.callback(os.close, descriptor)
            orders, answers = _pipe(given_away, ours), _pipe(ours, given_away)
            worker.child = self._children.spawn(
                [*self._command, str(orders[0]), str(answers[1])],
                cwd=self._directory,
                env={**self._env, **environment},
                stdout=stdout,
                stderr=stderr,
                pass_fds=(orders[0], answers[1]),
                limits=limits,
                on_exit=lambda code: self._on_exit(worker, code),
            )
            ours.pop_all()
        return orders[1], answers[0]

    def _send(self, worker: _Worker, message: protocol.Message) -> None:
        worker.outbox.put(protocol.encode(message))

    def _read_lines(self, worker: _Worker, descriptor: int) -> None:
        reader = protocol.LineReader(protocol.FROM_WORKER)
        try:
            while True:
                data = os.read(descriptor, 1 << 16)
                if not data:
                    break
                for message in reader.feed(data):
                    self._loop.post(self._on_message, worker, message)
        except protocol.ProtocolError as error:
            self._loop.post(self._end_faulty, worker, str(error))
        finally:
            os.close(descriptor)
            self._loop.post(self._on_ending, worker, "silence")

    def _on_message(self, worker: _Worker, message: protocol.Message) -> None:
        if worker.broken:
            return
        if message["type"] == "ready":
            if message["protocol"] != protocol.VERSION:
                self._end_faulty(worker, f"it speaks protocol {message['protocol']}, not {protocol.VERSION}")
            worker.ready, worker.takes_secrets = True, message.get("secrets") is True
            worker.takes_files = message.get("files") is True
            held, worker.held = worker.held, {}
            for one, line in held.items():
                self._order(worker, one, line)
            if worker is self._current:
                self._notify_placeholders("")
            return
        execution = worker.executions.get(message["task"])
        if execution is None or execution.number != message["run"]:
            self._end_faulty(worker, f"'{message['type']}' for an execution that this worker does not have")
        elif message["type"] == "started":
            execution.on_started(execution)
        elif message["type"] == "progress":
            execution.on_progress(execution, message["done"], message["total"])
        else:
            self._on_ended(worker, execution, message)

    def _on_ended(self, worker: _Worker, execution: Execution, message: protocol.Message) -> None:
        # An app's own worker may send invalid values.
        result, dropped = small(message["result"])
        try:
            cause = None if message["cause"] is None else Cause(message["cause"])
            text = cut(message["message"] or dropped)
            outcome = Outcome(_STATES[message["state"]], cause, text, message["exitCode"], result)
        except (KeyError, ValueError):
            self._end_faulty(worker, "an end with an unknown state or cause")
            return
        if outcome.state is State.KILLED and not execution.cancelled:
            self._end_faulty(worker, "a shard that was not cancelled ended as killed")
        elif worker.outcome is not None:
            self._end_faulty(worker, "a second end of its only shard")
        else:
            self._finish(worker, execution, outcome)

    def _finish(self, worker: _Worker, execution: Execution, outcome: Outcome) -> None:
        if worker.owner and not execution.payload.resident:
            # The outcome is reported when the process and its children are gone.
            worker.outcome = outcome
            self._ask_to_leave(worker, _LEAVE_WITHIN_S)
        else:
            self._complete(worker, execution, outcome)
            self._end_if_done(worker)

    def _complete(self, worker: _Worker, execution: Execution, outcome: Outcome) -> None:
        del worker.executions[execution.task_id]
        del self._worker_of[execution]
        self._sharing -= not worker.owner
        if execution in self._timers:
            self._timers.pop(execution).cancel()
        while self._waiting and self._sharing < self._app.max_parallel:
            self._launch(self._waiting.popleft())
        execution.on_ended(execution, outcome)

    def _end_stubborn(self, worker: _Worker, grace_s: float) -> None:
        if worker.owner:
            self._kill_worker(worker, "its shard did not end when it was killed")
        elif not worker.retired:
            worker.retired = True
            if self._current is worker:
                self._current = None
                self._loop.later(0, self._warm)
            self._loop.later(grace_s, lambda: self._kill_worker(worker, "a shard in it did not end when it was killed"))
            self._end_if_done(worker)

    def _end_if_done(self, worker: _Worker) -> None:
        if worker.retired and all(execution.cancelled for execution in worker.executions.values()):
            self._kill_worker(worker, "a shard in it did not end when it was killed")

    def _end_faulty(self, worker: _Worker, reason: str) -> None:
        worker.broken = True
        self._kill_worker(worker, f"it broke the protocol: {reason}")

    def _kill_worker(self, worker: _Worker, reason: str) -> None:
        if worker not in self._all or worker.reason:
            return
        worker.reason = reason
        if self._current is worker:
            self._current = None
        if worker.child is not None:
            self._children.signal_group(worker.child, signal.SIGKILL)

    def _on_exit(self, worker: _Worker, code: int) -> None:
        worker.exit_code = code
        if self._current is worker:
            self._current = None
        worker.outbox.put(None)
        self._pump.finish(worker.tickets, self._on_ending, worker, "output")
        self._loop.later(_LAST_WORDS_S, lambda: self._on_ending(worker, "silence"))
        self._on_ending(worker, "exit")

    def _on_ending(self, worker: _Worker, sign: str) -> None:
        """Record one of the three signs of a worker's end.

        The worker counts as gone only after all three signs. So its last lines are still handled.
        """
        worker.ending.add(sign)
        if sign == "silence" and "exit" not in worker.ending:
            # The worker closed its pipe but still runs, so its shards can no longer report.
            self._loop.later(_LAST_WORDS_S, lambda: self._kill_worker(worker, "it closed its pipe"))
        if len(worker.ending) == 3 and worker in self._all:
            self._all.discard(worker)
            self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        if self._own.get(worker.owner) is worker:
            del self._own[worker.owner]
        lost = worker.outcome or (_lost_alone if worker.owner else _lost)(worker)
        if not worker.retired and worker.executions and not worker.owner:
            log(f"lost a worker with {len(worker.executions)} shards: {_reason_of(worker)}")
        stopped = killed(
            message="the shard did not stop when asked; its worker was killed"
            if worker.reason
            else f"the worker ended before the shard had stopped: {_reason_of(worker)}"
        )
        for execution in list(worker.executions.values()):
            self._complete(worker, execution, stopped if execution.cancelled and worker.outcome is None else lost)
        if not worker.owner:
            self._warm_again(worker)
        if self._when_gone is not None and not self._all:
            self._when_gone()


def order(execution: Execution) -> protocol.Message:
    """The message that tells a worker to carry out an execution."""
    payload = execution.payload
    message: protocol.Message = {
        "task": execution.task_id,
        "run": execution.number,
        "job": payload.job,
        "context": payload.context,
        "facts": execution.facts,
        **({"secrets": dict(execution.secrets)} if execution.secrets else {}),
        **({"files": execution.files} if execution.files else {}),
    }
    if payload.step is not None:
        return {**message, "type": "listen", "step": payload.step, "firing": payload.firing}
    return {**message, "type": "load" if execution.number == LOADING else "run", "keep": payload.resident}


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> Tuple[int, int]:
    """Make a pipe: (read end, write end). `reader` will close the read end, `writer` the write end. Raises OSError."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _reason_of(worker: _Worker) -> str:
    if worker.child is not None and worker.child.out_of_memory:
        return "the kernel killed it because memory ran out"
    return worker.reason or f"it ended with {describe_exit(worker.exit_code)}"


def _lost(worker: _Worker) -> Outcome:
    others = len(worker.executions) - 1
    text = f"the worker process that ran this shard{f' and {others} others' if others > 0 else ''} was lost: "
    tail = worker.errors.tail().strip() if worker.exit_code < 0 and not worker.reason else ""
    return failed(Cause.WORKER_LOST, text + _reason_of(worker) + (f"\n\n{tail}" if tail else ""))


def _lost_alone(worker: _Worker) -> Outcome:
    """The outcome of a shard whose own worker was lost. Only the shard itself can be the cause."""
    tail = worker.errors.tail().strip()
    text = f"the shard's process ended before it reported the shard's end: {_reason_of(worker)}"
    cause = Cause.SIGNAL if worker.exit_code < 0 else Cause.EXIT_CODE
    if worker.child is not None and worker.child.out_of_memory:
        cause = Cause.OUT_OF_MEMORY
    return failed(cause, text + (f"\n\n{tail}" if tail else ""), worker.exit_code)


def _write_lines(descriptor: int, outbox: "queue.SimpleQueue[Any]") -> None:
    """Write the lines of `outbox`, in a thread of its own. A worker that does not read must not block the daemon."""
    try:
        while True:
            line = outbox.get()
            if line is None:
                return
            while line:
                line = line[os.write(descriptor, line) :]
    except OSError:
        return  # the worker is ending; its exit is handled elsewhere
    finally:
        os.close(descriptor)
