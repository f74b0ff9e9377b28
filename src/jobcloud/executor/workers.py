"""The daemon's side of app workers: started when first needed, spoken to by lines, replaced when they die or must.

The shards of an app share one worker. A shard is killed by asking it; where it does not listen, its worker is retired:
it gets no new shards, and is ended when only such shards are left in it, at the latest after the grace time once more.
A job with isolation "process" has a worker for each shard, which leaves with it.
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
from jobcloud.executor.loop import Loop, Timer, log
from jobcloud.executor.outcomes import Cause, Outcome, State, cut, failed, killed, small
from jobcloud.executor.output import Pump, RotatingLog, TaskFolders
from jobcloud.executor.payload import AppPayload
from jobcloud.executor.processes import NO_LIMITS, Child, Children, Rlimits, describe_exit, is_scarce, own_program
from jobcloud.executor.runs import LOADING, Run

READY_WITHIN_S = 60.0
# How long a dead worker's pipe may stay open in the hands of a process that got away from it.
_LAST_WORDS_S = 2.0
# How long a worker of one shard may take to close its contexts when the shard has ended.
_LEAVE_WITHIN_S = 5.0
# A kept worker that is lost is started again after so long, twice as long each time.
_REWARM_FIRST_S, _REWARM_MOST_S = 1.0, 60.0
_STATES = {"finished": State.FINISHED, "failed": State.FAILED, "killed": State.KILLED}


def python_worker() -> List[str]:
    """The command of the worker that comes with the executor."""
    return own_program("jobcloud.executor.worker")


@dataclass
class _Placeholder:
    """A task for which a worker is kept; `told` until it has been told."""

    contexts: Tuple[str, ...]
    told: Optional[Callable[[str], None]]


class _Worker:
    """One worker process and the runs in it. `ending` fills up with "exit", "silence" and "output"; then it is gone.

    `owner` is the task that has it to itself, if any. Such a worker's last outcome is told when it is gone.
    """

    def __init__(self, output: RotatingLog, errors: RotatingLog, owner: str = "") -> None:
        self.owner = owner
        self.outcome: Optional[Outcome] = None
        self.runs: Dict[str, Run] = {}
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
        self._waiting: Deque[Run] = deque()
        self._all: Set[_Worker] = set()
        self._home: Dict[Run, _Worker] = {}
        self._timers: Dict[Run, Timer] = {}
        self._when_gone: Optional[Callable[[], None]] = None
        self._placeholders: Dict[str, _Placeholder] = {}
        self._rewarm_s = _REWARM_FIRST_S

    def keep_warm(self, task_id: str, contexts: Tuple[str, ...], told: Callable[[str], None]) -> None:
        """Have a shared worker up, those contexts built, until `let_cool`; one that is lost is replaced.

        `told` is called once: with "" when the first is ready, or with why none is to be had.
        """
        self._placeholders[task_id] = _Placeholder(contexts, told)
        if contexts and self._current is not None:
            self._say(self._current, {"type": "warm", "contexts": list(contexts)})
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

    def _notify_placeholders(self, why_not: str) -> None:
        for placeholder in list(self._placeholders.values()):
            told, placeholder.told = placeholder.told, None
            if told is not None:
                told(why_not)

    def _warm_again(self, worker: _Worker) -> None:
        """A shared worker is gone, or takes no new shards any more."""
        if self._placeholders and self._current is None and self._when_gone is None:
            self._notify_placeholders(f"the worker was lost: {_how(worker)}")
            if time.monotonic() - worker.started_at > _REWARM_MOST_S:
                self._rewarm_s = _REWARM_FIRST_S
            self._loop.later(self._rewarm_s, self._warm)
            self._rewarm_s = min(_REWARM_MOST_S, self._rewarm_s * 2)

    def start(self, run: Run) -> None:
        most = self._app.max_parallel
        if run.payload.own_process or not most or self._sharing < most:
            self._launch(run)
        else:
            self._waiting.append(run)
            run.on_waiting(run)

    def _launch(self, run: Run) -> None:
        payload = run.payload
        message = {
            "task": run.task_id,
            "run": run.number,
            "job": payload.job,
            "context": payload.context,
            "facts": run.facts,
        }
        if payload.step is not None:
            message.update(type="listen", step=payload.step, firing=payload.firing)
        else:
            message.update(type="load" if run.number == LOADING else "run", keep=payload.resident)
        try:
            line = protocol.encode(message)
            worker = self._own_worker(run) if payload.own_process else self._current or self._start_shared()
        except protocol.ProtocolError as error:
            run.on_ended(run, failed(Cause.PAYLOAD, f"the task's data is too large: {error}"))
            return
        except (OSError, subprocess.SubprocessError) as error:
            cause = Cause.COMMAND if self._app.worker and not is_scarce(error) else Cause.WORKER_LOST
            run.on_ended(run, failed(cause, f"cannot start a worker: {error}"))
            return
        worker.runs[run.task_id] = run
        self._home[run] = worker
        self._sharing += not worker.owner
        worker.outbox.put(line)

    def kill(self, run: Run, grace_s: float) -> None:
        worker = self._home.get(run)
        if worker is None:
            if run in self._waiting:
                self._waiting.remove(run)
                run.on_ended(run, killed(message="it was waiting for its turn"))
            return
        if not run.cancelled:
            run.cancelled = True
            self._say(worker, {"type": "cancel", "task": run.task_id})
        if run in self._timers:
            self._timers.pop(run).cancel()
        self._timers[run] = self._loop.later(grace_s, lambda: self._lose_patience(worker, grace_s))

    def forget(self, task_id: str) -> None:
        if task_id in self._own:
            self._let_go(self._own.pop(task_id), _LEAVE_WITHIN_S)
            return
        for worker in self._all:
            self._say(worker, {"type": "forget", "task": task_id})

    def stop(self, patience_s: float, when_gone: Callable[[], None]) -> None:
        """Let the workers close their contexts and leave; calls back once none is left."""
        self._when_gone = when_gone
        self._current = None
        if not self._all:
            when_gone()
        for worker in list(self._all):
            self._let_go(worker, patience_s)

    def _let_go(self, worker: _Worker, patience_s: float) -> None:
        self._say(worker, {"type": "stop"})
        self._loop.later(patience_s, lambda: self._kill_worker(worker, "it did not leave in time"))

    def _start_shared(self) -> _Worker:
        self._current = self._start_worker(_Worker(self._output, self._errors), self._folders.root, NO_LIMITS)
        return self._current

    def _own_worker(self, run: Run) -> _Worker:
        """A resident job's is kept from run to run. Its output has no other shard's to be told from."""
        if run.task_id not in self._own:
            folder = self._folders.path(run.task_id)
            output, errors = (RotatingLog(os.path.join(folder, name)) for name in ("stdout", "stderr"))
            self._own[run.task_id] = self._start_worker(_Worker(output, errors, run.task_id), "", run.payload.rlimits)
        return self._own[run.task_id]

    def _start_worker(self, worker: _Worker, folders: str, limits: Rlimits) -> _Worker:
        orders, answers = self._spawn(worker, limits)
        self._all.add(worker)
        self._start_thread(worker, orders, _write_lines, orders, worker.outbox)
        self._start_thread(worker, answers, self._read_lines, worker, answers)
        app = self._app
        hello = {"type": "hello", "protocol": protocol.VERSION, "appName": app.app_name, "appVersion": app.app_version}
        self._say(worker, {**hello, "directory": self._directory, "libraries": self._libraries, "tasks": folders})
        contexts = sorted({context for placeholder in self._placeholders.values() for context in placeholder.contexts})
        if contexts and not worker.owner:
            self._say(worker, {"type": "warm", "contexts": contexts})
        self._loop.later(
            READY_WITHIN_S, lambda: None if worker.ready else self._kill_worker(worker, "it was not ready in time")
        )
        return worker

    def _start_thread(self, worker: _Worker, descriptor: int, target: Callable[..., None], *args: Any) -> None:
        """Raises OSError where the machine gives no further thread; the worker is ended then."""
        try:
            threading.Thread(target=target, args=args, name="worker-lines", daemon=True).start()
        except RuntimeError as error:
            os.close(descriptor)
            self._kill_worker(worker, str(error))
            raise OSError(errno.EAGAIN, str(error)) from error

    def _spawn(self, worker: _Worker, limits: Rlimits) -> Tuple[int, int]:
        """Our ends of the pipes: (orders, answers). Raises OSError or SubprocessError, and then none is open."""
        with contextlib.ExitStack() as given_away, contextlib.ExitStack() as ours:
            (stdout, stderr), worker.tickets = self._pump.attach(worker.output, worker.errors)
            ours.callback(self._pump.finish, worker.tickets, lambda: None)
            for descriptor in (stdout, stderr):
                given_away.callback(os.close, descriptor)
            orders, answers = _pipe(given_away, ours), _pipe(ours, given_away)
            worker.child = self._children.spawn(
                [*self._command, str(orders[0]), str(answers[1])],
                cwd=self._directory,
                env=self._env,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(orders[0], answers[1]),
                limits=limits,
                on_exit=lambda code: self._on_exit(worker, code),
            )
            ours.pop_all()
        return orders[1], answers[0]

    def _say(self, worker: _Worker, message: protocol.Message) -> None:
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
            self._loop.post(self._break, worker, str(error))
        finally:
            os.close(descriptor)
            self._loop.post(self._on_ending, worker, "silence")

    def _on_message(self, worker: _Worker, message: protocol.Message) -> None:
        if worker.broken:
            return
        if message["type"] == "ready":
            if message["protocol"] != protocol.VERSION:
                self._break(worker, f"it speaks protocol {message['protocol']}, not {protocol.VERSION}")
            worker.ready = True
            if worker is self._current:
                self._notify_placeholders("")
            return
        run = worker.runs.get(message["task"])
        if run is None or run.number != message["run"]:
            self._break(worker, f"'{message['type']}' for what does not run in it")
        elif message["type"] == "started":
            run.on_started(run)
        elif message["type"] == "progress":
            run.on_progress(run, message["done"], message["total"])
        else:
            self._on_ended(worker, run, message)

    def _on_ended(self, worker: _Worker, run: Run, message: protocol.Message) -> None:
        # A worker of the app's own may send what ours never does.
        result, note = small(message["result"])
        try:
            cause = None if message["cause"] is None else Cause(message["cause"])
            text = cut(message["message"] or note)
            outcome = Outcome(_STATES[message["state"]], cause, text, message["exitCode"], result)
        except (KeyError, ValueError):
            self._break(worker, "an end with a state or cause that does not exist")
            return
        if outcome.state is State.KILLED and not run.cancelled:
            self._break(worker, "the end of a shard as killed that nobody has cancelled")
        elif worker.outcome is not None:
            self._break(worker, "a second end of its one shard")
        elif worker.owner and not run.payload.resident:
            # It is told once the process and its children are gone.
            worker.outcome = outcome
            self._let_go(worker, _LEAVE_WITHIN_S)
        else:
            self._take_out(worker, run, outcome)
            self._end_if_done(worker)

    def _take_out(self, worker: _Worker, run: Run, outcome: Outcome) -> None:
        del worker.runs[run.task_id]
        del self._home[run]
        self._sharing -= not worker.owner
        if run in self._timers:
            self._timers.pop(run).cancel()
        while self._waiting and self._sharing < self._app.max_parallel:
            self._launch(self._waiting.popleft())
        run.on_ended(run, outcome)

    def _lose_patience(self, worker: _Worker, grace_s: float) -> None:
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
        if worker.retired and all(run.cancelled for run in worker.runs.values()):
            self._kill_worker(worker, "a shard in it did not end when it was killed")

    def _break(self, worker: _Worker, reason: str) -> None:
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

    def _on_ending(self, worker: _Worker, what: str) -> None:
        """What it said before it died still counts: it is gone when all three have come."""
        worker.ending.add(what)
        if what == "silence" and "exit" not in worker.ending:
            # It closed its pipe and lives on: nobody will hear of its shards again.
            self._loop.later(_LAST_WORDS_S, lambda: self._kill_worker(worker, "it closed its pipe"))
        if len(worker.ending) == 3 and worker in self._all:
            self._all.discard(worker)
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        if self._own.get(worker.owner) is worker:
            del self._own[worker.owner]
        lost = worker.outcome or (_lost_alone if worker.owner else _lost)(worker)
        if not worker.retired and worker.runs and not worker.owner:
            log(f"lost a worker with {len(worker.runs)} shards: {_how(worker)}")
        stopped = killed(message="the shard did not stop by itself; its worker was ended")
        for run in list(worker.runs.values()):
            self._take_out(worker, run, stopped if run.cancelled and worker.outcome is None else lost)
        if not worker.owner:
            self._warm_again(worker)
        if self._when_gone is not None and not self._all:
            self._when_gone()


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> Tuple[int, int]:
    """(read, write), each closed with the stack of its side. Raises OSError."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _how(worker: _Worker) -> str:
    if worker.child is not None and worker.child.out_of_memory:
        return "the kernel killed it for want of memory"
    return worker.reason or f"it ended with {describe_exit(worker.exit_code)}"


def _lost(worker: _Worker) -> Outcome:
    others = len(worker.runs) - 1
    text = f"the worker process that ran this shard{f' and {others} others' if others > 0 else ''} was lost: "
    tail = worker.errors.tail().strip() if worker.exit_code < 0 and not worker.reason else ""
    return failed(Cause.WORKER_LOST, text + _how(worker) + (f"\n\n{tail}" if tail else ""))


def _lost_alone(worker: _Worker) -> Outcome:
    """Nobody else was in it: the end of the process is the shard's own doing."""
    tail = worker.errors.tail().strip()
    text = f"the shard's process did not live to tell how the shard ended: {_how(worker)}"
    cause = Cause.SIGNAL if worker.exit_code < 0 else Cause.EXIT_CODE
    if worker.child is not None and worker.child.out_of_memory:
        cause = Cause.OUT_OF_MEMORY
    return failed(cause, text + (f"\n\n{tail}" if tail else ""), worker.exit_code)


def _write_lines(descriptor: int, outbox: "queue.SimpleQueue[Any]") -> None:
    """Blocking in a thread of its own: a worker that does not read must not hold up the daemon."""
    try:
        while True:
            line = outbox.get()
            if line is None:
                return
            while line:
                line = line[os.write(descriptor, line) :]
    except OSError:
        return  # it is dying; its exit tells the rest
    finally:
        os.close(descriptor)
