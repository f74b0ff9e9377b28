"""Listeners and error handlers: found by name, made once and kept, called around a job.

A name with a colon is `module:Class` of the app. Any other is an entry point of a package that the worker can import:
one in the app, which has its `*.dist-info` beside it, or one of the interpreter's own.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from jobcloud.executor.loading import LoadError, named
from jobcloud.executor.outcomes import Cause, cut, describe
from jobcloud.job import ErrorHandler, FiringContext, FiringListener, JobListener, ShardingContext

LISTENERS = "jobcloud.listeners"
ERROR_HANDLERS = "jobcloud.error_handlers"
# What the executor does without code of the app's. `ignore` and `webhook` are the daemon's, whatever the worker.
OWN_HANDLERS = ("log", "fail", "ignore", "webhook")
_SILENT = ("fail", "ignore")
# What Elastic-Job 2.1.5 and 3.0 call them.
_THEIR_NAMES = {
    "": "log",
    "default": "log",
    "LOG": "log",
    "com.dangdang.ddframe.job.executor.handler.impl.DefaultJobExceptionHandler": "log",
    "THROW": "fail",
    "IGNORE": "ignore",
}

T = TypeVar("T")
Complete = Callable[[Any], Any]


class ListenerError(Exception):
    """A listener raised; the text says which and what."""


def handler_name(name: str) -> str:
    """The error handler that a job's configuration means by `name`."""
    return _THEIR_NAMES.get(name, name)


class Plugins:
    """Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: Dict[Tuple[str, str], Any] = {}
        self._made: Dict[Tuple[str, str], Any] = {}

    def listeners(self, job: Mapping[str, Any]) -> List[JobListener]:
        """Raises LoadError."""
        return [self._get(LISTENERS, name, "listener", JobListener) for name in job.get("listener") or ()]

    def firing_listener(self, job: Mapping[str, Any]) -> FiringListener:
        """Raises LoadError."""
        return self._get(LISTENERS, job.get("distributedListener") or "", "distributedListener", FiringListener)

    def error_handler(self, job: Mapping[str, Any]) -> Optional[ErrorHandler]:
        """None for one of the executor's own. Raises LoadError."""
        name = job.get("errorHandler") or OWN_HANDLERS[0]
        if name in OWN_HANDLERS:
            return None
        return self._get(ERROR_HANDLERS, name, "job_exception_handler", ErrorHandler)

    def _get(self, group: str, name: str, field: str, kind: Type[T]) -> T:
        # A lock each: one that hangs while it is made must not hold up who needs another.
        with self._lock:
            lock = self._locks.setdefault((group, name), threading.Lock())
        with lock:
            if (group, name) not in self._made:
                self._made[group, name] = _make(group, name, field)
            made = self._made[group, name]
        if not isinstance(made, kind):
            raise LoadError(
                Cause.IMPORT, f"{field} {name!r} is a {type(made).__name__}, must be a jobcloud.job.{kind.__name__}"
            )
        return made


def _make(group: str, name: str, field: str) -> Any:
    found = named(name, field) if ":" in name else _entry_point(group, name, field)
    if not isinstance(found, type):
        return found
    try:
        return found()
    except BaseException as error:
        raise LoadError(Cause.IMPORT, f"{field} {name!r} cannot be made: {describe(error)}") from error


def _entry_point(group: str, name: str, field: str) -> Any:
    from importlib import metadata  # a dozen modules: only where a name needs it

    found: Any = metadata.entry_points()
    # Until 3.9 a mapping by group.
    points = found.select(group=group) if hasattr(found, "select") else found.get(group, ())
    by_name = {point.name: point for point in points}
    if name not in by_name:
        known = cut(", ".join(sorted(by_name)) or "none", 500)
        raise LoadError(
            Cause.IMPORT,
            f"{field} {name!r} is no entry point in the group {group}; there are: {known}; or module:Class",
        )
    try:
        return by_name[name].load()
    except BaseException as error:
        raise LoadError(Cause.IMPORT, f"{field} {name!r} cannot be imported: {describe(error)}") from error


def around(listeners: Sequence[JobListener], ctx: ShardingContext, run: Callable[[], T], complete: Complete) -> T:
    """The result of `run`, with each listener told before and, in reverse, after. Raises what `run` raises.

    Raises ListenerError where a listener raised and the job itself did not.
    """
    entered: List[JobListener] = []
    raised: List[BaseException] = []
    result: List[T] = []
    try:
        for listener in listeners:
            with _blamed(listener):
                complete(listener.before_job_executed(ctx))
            entered.append(listener)
        result.append(run())
    except BaseException as error:
        raised.append(error)
    for listener in reversed(entered):
        try:
            with _blamed(listener):
                complete(listener.after_job_executed(ctx, raised[0] if raised else None))
        except ListenerError as error:
            raised.append(error)
    for further in raised[1:]:
        print(further, file=sys.stderr)
    if raised:
        raise raised[0]
    return result[0]


def call_firing_listener(listener: FiringListener, step: str, ctx: FiringContext, complete: Complete) -> None:
    """`step` is "before" or "after". Raises ListenerError."""
    with _blamed(listener):
        complete(listener.before_firing(ctx) if step == "before" else listener.after_firing(ctx))


def handled(handler: ErrorHandler, ctx: ShardingContext, error: BaseException) -> bool:
    """Whether the handler says that the error is dealt with; one that raises has not."""
    try:
        return handler.handle(ctx, error) is True
    except BaseException:
        print(f"the error handler {type(handler).__name__} raised:", file=sys.stderr)
        traceback.print_exc()
        return False


def logs_errors(job: Mapping[str, Any]) -> bool:
    """Whether the job's exceptions go to the shard's log."""
    return job.get("errorHandler") not in _SILENT


@contextlib.contextmanager
def _blamed(listener: Any) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raise ListenerError(f"the listener {type(listener).__name__} raised {describe(error)}") from error
