"""Listeners and error handlers: loaded by name, created once, called around a job.

A name with a colon is `module:Class`. Any other name is an entry point of a package that the worker can import. This
package is either in the app, together with its `*.dist-info`, or installed for the interpreter.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

from jobcloud.executor.loading import LoadError, find_object
from jobcloud.executor.outcomes import Cause, cut, describe
from jobcloud.job import ErrorHandler, FiringContext, FiringListener, JobListener, ShardingContext

LISTENERS = "jobcloud.listeners"
ERROR_HANDLERS = "jobcloud.error_handlers"
# Error handlers of the executor itself. The daemon implements `ignore` and `webhook`, so they work with every worker.
OWN_HANDLERS = ("log", "fail", "ignore", "webhook")
_SILENT = ("fail", "ignore")
# Names of handlers in Elastic-Job 2.1.5 and 3.0, and the names of the same handlers here.
_ELASTIC_JOB_NAMES = {
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
    """A listener raised an exception. The text names the listener and the exception."""


def handler_name(name: str) -> str:
    """The executor's name for the error handler `name` of a job's configuration.

    `name` may be one of Elastic-Job's names.
    """
    return _ELASTIC_JOB_NAMES.get(name, name)


class Plugins:
    """The listeners and error handlers of a worker. Thread-safe."""

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
        """The app's error handler, or None if the job uses a handler of the executor. Raises LoadError."""
        name = job.get("errorHandler") or OWN_HANDLERS[0]
        if name in OWN_HANDLERS:
            return None
        return self._get(ERROR_HANDLERS, name, "job_exception_handler", ErrorHandler)

    def _get(self, group: str, name: str, field: str, kind: Type[T]) -> T:
        # Each plug-in has a lock of its own: a constructor that hangs must not block other plug-ins.
        with self._lock:
            lock = self._locks.setdefault((group, name), threading.Lock())
        with lock:
            if (group, name) not in self._made:
                self._made[group, name] = _create(group, name, field)
            made = self._made[group, name]
        if not isinstance(made, kind):
            raise LoadError(
                Cause.IMPORT, f"{field} {name!r} is a {type(made).__name__}, must be a jobcloud.job.{kind.__name__}"
            )
        return made


def _create(group: str, name: str, field: str) -> Any:
    found = find_object(name, field) if ":" in name else _entry_point(group, name, field)
    if not isinstance(found, type):
        return found
    try:
        return found()
    except BaseException as error:
        raise LoadError(Cause.IMPORT, f"{field} {name!r} cannot be created: {describe(error)}") from error


def _entry_point(group: str, name: str, field: str) -> Any:
    from importlib import metadata  # imported only if needed: it imports a dozen modules

    found: Any = metadata.entry_points()
    # In CPython 3.9, entry_points() returns a mapping from groups to entry points.
    points = found.select(group=group) if hasattr(found, "select") else found.get(group, ())
    by_name = {point.name: point for point in points}
    if name not in by_name:
        known = cut(", ".join(sorted(by_name)) or "none", 500)
        raise LoadError(
            Cause.IMPORT,
            f"{field} {name!r} is not an entry point of the group {group}; known: {known}; or use module:Class",
        )
    try:
        return by_name[name].load()
    except BaseException as error:
        raise LoadError(Cause.IMPORT, f"{field} {name!r} cannot be imported: {describe(error)}") from error


def around(listeners: Sequence[JobListener], ctx: ShardingContext, run: Callable[[], T], complete: Complete) -> T:
    """Call `run` between the listeners' `before` and `after` methods. Returns the result of `run`.

    The `after` methods are called in reverse order. Raises the error of `run`, or ListenerError if only a listener
    failed.
    """
    entered: List[JobListener] = []
    raised: List[BaseException] = []
    result: List[T] = []
    try:
        for listener in listeners:
            with _as_listener_error(listener):
                complete(listener.before_job_executed(ctx))
            entered.append(listener)
        result.append(run())
    except BaseException as error:
        raised.append(error)
    for listener in reversed(entered):
        try:
            with _as_listener_error(listener):
                complete(listener.after_job_executed(ctx, raised[0] if raised else None))
        except ListenerError as error:
            raised.append(error)
    for further in raised[1:]:
        print(further, file=sys.stderr)
    if raised:
        raise raised[0]
    return result[0]


def call_firing_listener(listener: FiringListener, step: str, ctx: FiringContext, complete: Complete) -> None:
    """Call `before_firing` if `step` is "before", or `after_firing` if it is "after". Raises ListenerError."""
    with _as_listener_error(listener):
        complete(listener.before_firing(ctx) if step == "before" else listener.after_firing(ctx))


def handled(handler: ErrorHandler, ctx: ShardingContext, error: BaseException) -> bool:
    """Whether the handler says that it has handled the error. False if the handler raises an exception."""
    try:
        return handler.handle(ctx, error) is True
    except BaseException:
        print(f"the error handler {type(handler).__name__} raised:", file=sys.stderr)
        traceback.print_exc()
        return False


def logs_errors(job: Mapping[str, Any]) -> bool:
    """Whether the job's exceptions are written to the shard's log."""
    return job.get("errorHandler") not in _SILENT


@contextlib.contextmanager
def _as_listener_error(listener: Any) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raise ListenerError(f"the listener {type(listener).__name__} raised {describe(error)}") from error
