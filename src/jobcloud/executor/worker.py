"""The app worker: the process that runs an app's SIMPLE and DATAFLOW shards, each in a thread of its own.

The worker reads orders and writes answers as lines (protocol.py). Output of a shard's thread is written to the shard's
log. All other output is written to the worker's log.
"""

from __future__ import annotations

import contextlib
import contextvars
import faulthandler
import functools
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, List, NamedTuple, Optional, Tuple

from jobcloud.executor import plugins, protocol
from jobcloud.executor.job_contexts import firing_context, sharding_context
from jobcloud.executor.loading import Contexts, LoadError, add_libraries, load_job
from jobcloud.executor.outcomes import Cause, cut, describe, small
from jobcloud.executor.output import RotatingLog, TaskFolders
from jobcloud.executor.plugins import ListenerError, Plugins
from jobcloud.job import Job, JobCancelled, perform, resolve

if TYPE_CHECKING:
    from jobcloud.executor.coroutines import EventLoop

_Logs = Tuple[RotatingLog, RotatingLog]
_logs: "contextvars.ContextVar[Optional[_Logs]]" = contextvars.ContextVar("jobcloud_logs", default=None)

PROGRESS_EVERY_S = 1.0


class _End(NamedTuple):
    """The end of a shard, as in the message `ended`. `state`: finished, failed or killed."""

    state: str
    cause: Optional[Cause] = None
    message: str = ""
    exit_code: Optional[int] = None
    result: Any = None


@dataclass(eq=False)
class _Shard:
    number: int
    cancel: threading.Event = field(default_factory=threading.Event)
    noticed: bool = False
    stop_coroutine: Optional[Callable[[], None]] = None
    progress_sent_at: float = -PROGRESS_EVERY_S

    def is_cancelled(self) -> bool:
        """The value of `ctx.cancelled`.

        If it is true, the job has noticed the kill (`noticed`). When the job then returns or raises, it is KILLED.
        """
        self.noticed = self.noticed or self.cancel.is_set()
        return self.noticed

    def ask_to_stop(self) -> None:
        self.cancel.set()
        self._interrupt()

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Let a kill call `stop`, which interrupts the coroutine. If the kill has come already, call `stop` now."""
        self.stop_coroutine = stop
        if self.cancel.is_set():
            self._interrupt()

    def _interrupt(self) -> None:
        stop, self.stop_coroutine = self.stop_coroutine, None
        if stop is not None:
            self.noticed = True
            stop()


class Worker:
    """`run` reads orders in the main thread. Shards answer from their own threads."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers = orders, answers
        self._pid = os.getpid()
        self._write_lock = threading.Lock()
        self._shards: Dict[str, _Shard] = {}
        self._kept: Dict[str, Job] = {}
        self._contexts = Contexts()
        self._plugins = Plugins()
        self._coroutines: Optional[EventLoop] = None
        self._folders: Optional[TaskFolders] = None

    def run(self) -> int:
        """Run until the daemon sends `stop` or closes the pipe. Returns the exit code."""
        reader = protocol.LineReader(protocol.TO_WORKER)
        while True:
            data = os.read(self._orders, 1 << 16)
            if not data:
                return 1
            for message in reader.feed(data):
                if message["type"] == "stop":
                    self._contexts.close()
                    return 0
                self._handle_order(message)

    def _handle_order(self, message: protocol.Message) -> None:
        kind = message["type"]
        if kind == "hello":
            self._set_up(message)
        elif kind in ("run", "load", "listen"):
            self._begin(message)
        elif kind == "warm":
            with contextlib.suppress(RuntimeError):  # no room for a thread: a shard will build the context
                threading.Thread(target=self._warm, args=(message["contexts"],), name="warm", daemon=True).start()
        elif kind == "cancel":
            if message["task"] in self._shards:
                self._shards[message["task"]].ask_to_stop()
        else:
            self._kept.pop(message["task"], None)

    def _begin(self, message: protocol.Message) -> None:
        task = message["task"]
        self._shards[task] = shard = _Shard(message["run"])
        try:
            threading.Thread(target=self._run_shard, args=(message, shard), name=task, daemon=True).start()
        except RuntimeError as error:
            # The machine has no room for another thread. The shard is not to blame, and other shards continue.
            del self._shards[task]
            self._end(task, shard, _End("failed", Cause.WORKER_LOST, f"the worker cannot run the shard: {error}"))

    def _set_up(self, hello: protocol.Message) -> None:
        if hello["protocol"] != protocol.VERSION:
            raise protocol.ProtocolError(f"the daemon speaks protocol {hello['protocol']}, not {protocol.VERSION}")
        # If `tasks` is empty, this process has only one shard. The output of the process is then the output of this
        # shard.
        self._folders = TaskFolders(hello["tasks"]) if hello["tasks"] else None
        os.chdir(hello["directory"])
        sys.path.insert(0, hello["directory"])
        add_libraries(hello.get("libraries", ()))
        self._send({"type": "ready", "protocol": protocol.VERSION, "secrets": True, "files": True})

    def _send(self, message: protocol.Message) -> None:
        line = protocol.encode(message)
        with self._write_lock:
            while line:
                line = line[os.write(self._answers, line) :]

    def _warm(self, contexts: List[str]) -> None:
        """Build contexts in advance. If a context cannot be built, the first shard that needs it tries again."""
        for context in contexts:
            try:
                self._contexts.warm(context)
            except LoadError as error:
                print(error, file=sys.stderr)

    def _run_shard(self, message: protocol.Message, shard: _Shard) -> None:
        task = message["task"]
        logs = self._shard_logs(task)
        _logs.set(logs)
        _restore_streams()
        self._send({"type": "started", "task": task, "run": shard.number})
        try:
            end = self._outcome(message, shard)
        except BaseException as error:  # `_outcome` reports errors, and this failed
            end = _End("failed", Cause.EXCEPTION, f"the job's error cannot be reported: {type(error).__name__}")
        if os.getpid() != self._pid:
            # The job has forked this process, and the job's code has returned here, too. The worker itself reports the
            # end of the shard. This copy of the worker must not report it again.
            os._exit(end.exit_code or int(end.state != "finished"))
        for file in logs or ():
            file.end()
        self._shards.pop(task, None)
        self._end(task, shard, end)

    def _end(self, task: str, shard: _Shard, end: _End) -> None:
        self._send(
            {
                "type": "ended",
                "task": task,
                "run": shard.number,
                "state": end.state,
                "cause": end.cause.value if end.cause else None,
                "message": end.message,
                "exitCode": end.exit_code,
                "result": end.result,
            }
        )

    def _shard_logs(self, task: str) -> Optional[_Logs]:
        if self._folders is None:
            return None
        folder = self._folders.path(task)
        return RotatingLog(os.path.join(folder, "stdout")), RotatingLog(os.path.join(folder, "stderr"))

    def _outcome(self, message: protocol.Message, shard: _Shard) -> _End:
        try:
            if message["type"] == "listen":
                return self._listen(message, shard)
            return self._perform(message, shard)
        except LoadError as error:
            return _End("failed", error.cause, cut(str(error)))
        except BaseException as error:
            if shard.noticed or plugins.logs_errors(message["job"]):
                _restore_streams()
                traceback.print_exc()
            if shard.noticed:
                return _End("killed", Cause.KILLED, describe(error))
            return _failure(error)

    def _perform(self, message: protocol.Message, shard: _Shard) -> _End:
        # Load everything before the job runs.
        description = message["job"]
        listeners = self._plugins.listeners(description)
        handler = self._plugins.error_handler(description)
        job = self._job(message)
        if message["type"] == "load":
            return _End("finished")
        complete = functools.partial(self._complete, shard)
        ctx = sharding_context(
            message["context"],
            message["facts"],
            logger=_logger(message),
            is_cancelled=shard.is_cancelled,
            on_progress=functools.partial(self._send_progress, message["task"], shard),
            secrets=message.get("secrets") or {},
            files=message.get("files") or "",
        )
        run = functools.partial(
            perform, job, ctx, streaming=bool(description.get("streamingProcess")), complete=complete
        )
        try:
            result, dropped = small(
                plugins.around(listeners, ctx, run, functools.partial(resolve, complete=complete))
                if listeners
                else run()
            )
        except BaseException as error:
            if handler is None or shard.noticed or _failure(error).state == "finished":
                raise
            if not plugins.handled(handler, ctx, error):
                raise
            return _End("finished", message=cut(f"the error handler handled {describe(error)}"))
        if shard.noticed:
            return _End("killed", Cause.KILLED, "the job returned after it was asked to stop")
        return _End("finished", message=dropped, result=result)

    def _listen(self, message: protocol.Message, shard: _Shard) -> _End:
        ctx = firing_context(
            message["context"],
            message["facts"],
            message["firing"],
            logger=_logger(message),
            is_cancelled=shard.is_cancelled,
            secrets=message.get("secrets") or {},
            files=message.get("files") or "",
        )
        complete = functools.partial(resolve, complete=functools.partial(self._complete, shard))
        plugins.call_firing_listener(self._plugins.firing_listener(message["job"]), message["step"], ctx, complete)
        if shard.noticed:
            return _End("killed", Cause.KILLED, "the listener returned after it was asked to stop")
        return _End("finished")

    def _complete(self, shard: _Shard, coroutine: Awaitable[Any]) -> Any:
        from jobcloud.executor.coroutines import EventLoop  # imports asyncio: only for async jobs

        with self._write_lock:
            self._coroutines = self._coroutines or EventLoop()
        try:
            return self._coroutines.run(coroutine, shard.on_stop)
        finally:
            shard.stop_coroutine = None

    def _send_progress(self, task: str, shard: _Shard, done: float, total: Optional[float]) -> None:
        now = time.monotonic()
        if now - shard.progress_sent_at >= PROGRESS_EVERY_S and os.getpid() == self._pid:
            shard.progress_sent_at = now
            self._send({"type": "progress", "task": task, "run": shard.number, "done": done, "total": total})

    def _job(self, message: protocol.Message) -> Job:
        task = message["task"]
        if task in self._kept:
            return self._kept[task]
        job = load_job(message["job"], self._contexts)
        if message.get("keep"):
            self._kept[task] = job
        return job


def _logger(message: protocol.Message) -> logging.Logger:
    return logging.getLogger("jobcloud.job." + message["context"]["jobName"])


def _failure(error: BaseException) -> _End:
    if isinstance(error, ListenerError):
        return _End("failed", Cause.LISTENER, cut(str(error)))
    if isinstance(error, SystemExit):
        code = _exit_code(error.code)
        if code == 0:
            return _End("finished")
        return _End("failed", Cause.EXIT_CODE, describe(error), code)
    if isinstance(error, JobCancelled):
        text = "the job raised JobCancelled, but it was not cancelled: " + describe(error)
        return _End("failed", Cause.EXCEPTION, text)
    cause = Cause.OUT_OF_MEMORY if isinstance(error, MemoryError) else Cause.EXCEPTION
    return _End("failed", cause, describe(error))


def _exit_code(value: object) -> int:
    """The exit code of a process that ends with sys.exit(value)."""
    if not isinstance(value, int):
        return int(value is not None)
    # The kernel keeps the lowest eight bits of a C int. A number outside the range of a C int must not count as
    # success.
    return value & 0xFF if -(2**31) < value < 2**31 else 255


class _ShardBytes(io.BufferedIOBase):
    """A binary stream. It writes to the log of the shard whose code calls it.

    If the code belongs to no shard, or the shard has ended, it writes to the worker's descriptor.
    """

    def __init__(self, descriptor: int, which: int) -> None:
        self._descriptor, self._which = descriptor, which

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        logs = _logs.get()
        # A coroutine or thread with the context variables of a shard may print after the end of this shard.
        if logs is None or not logs[self._which].write(raw):
            self._write_own(raw)
        return len(raw)

    def _write_own(self, raw: bytes) -> None:
        try:
            while raw:
                raw = raw[os.write(self._descriptor, raw) :]
        except OSError:
            return

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Ignored: all shards share the stream."""


class _ShardText(io.TextIOBase):
    """sys.stdout and sys.stderr of the worker."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int, which: int) -> None:
        self.buffer = _ShardBytes(descriptor, which)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.buffer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def fileno(self) -> int:
        return self.buffer.fileno()

    def reconfigure(self, **_: Any) -> None:
        """Ignored: the stream is UTF-8 and unbuffered already."""

    def close(self) -> None:
        """Ignored: all shards share the stream."""


class _NoInput(io.StringIO):
    """sys.stdin of the worker, which is empty."""

    @property
    def buffer(self) -> io.BytesIO:
        return io.BytesIO()

    def fileno(self) -> int:
        return 0

    def close(self) -> None:
        """Ignored: all shards share the stream, and the function exit() would close it."""


_STREAMS = {"stdin": _NoInput(), "stdout": _ShardText(1, 0), "stderr": _ShardText(2, 1)}


def _restore_streams() -> None:
    """Restore a stream that a shard has replaced by a closed one: otherwise print() would fail in every other shard."""
    for name, stream in _STREAMS.items():
        if getattr(getattr(sys, name), "closed", True):
            setattr(sys, name, stream)


def _take_over_streams() -> None:
    faulthandler.enable()
    for name, stream in _STREAMS.items():
        setattr(sys, name, stream)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def main(argv: Optional[List[str]] = None) -> None:
    """The last two arguments are file descriptors: one to read orders from, one to write answers to."""
    orders, answers = (int(text) for text in (sys.argv if argv is None else argv)[-2:])
    for descriptor in (orders, answers):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _take_over_streams()
    sys.exit(Worker(orders, answers).run())
