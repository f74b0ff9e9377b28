"""Load the object of a job: a class or function that is imported by name, or a bean of a context.

A context (`applicationContext`) maps the names of beans to objects. A worker builds each context once.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import threading
from typing import Any, Dict, Mapping, Sequence, Tuple

from jobcloud.executor.outcomes import Cause, cut, describe
from jobcloud.job import DataflowJob, Job, SimpleJob


class LoadError(Exception):
    """The job cannot be loaded. `cause`: the part that failed. The text names the object and the fix."""

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def add_libraries(folders: Sequence[str]) -> None:
    """Add folders to the import path, after the standard library and before the interpreter's installed packages."""
    installed = (at for at, path in enumerate(sys.path) if os.path.basename(path) in ("site-packages", "dist-packages"))
    at = next(installed, len(sys.path))
    sys.path[at:at] = folders


class Contexts:
    """The app's contexts.

    `warm`, or else the first shard that needs a context, builds it. A context then exists until the worker ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: Dict[str, Any] = {}
        self._built: Dict[str, Mapping[str, Any]] = {}
        self._exits = contextlib.ExitStack()

    def bean(self, context: str, name: str) -> Any:
        """A bean of a context. Raises LoadError. If the context cannot be built, the next call tries again."""
        beans = self._beans(context)
        try:
            return beans[name]
        except KeyError:
            known = cut(", ".join(sorted(map(str, beans))), 500)
            raise LoadError(
                Cause.CONTEXT, f"beanName {name!r}: applicationContext {context!r} has only {known or 'nothing'}"
            ) from None

    def warm(self, context: str) -> None:
        """Build a context before a shard needs it. Raises LoadError."""
        self._beans(context)

    def close(self) -> None:
        self._exits.close()

    def _beans(self, context: str) -> Mapping[str, Any]:
        with self._lock:
            lock = self._locks.setdefault(context, threading.Lock())
        with lock:
            if context not in self._built:
                self._built[context] = self._build(context)
            return self._built[context]

    def _build(self, context: str) -> Mapping[str, Any]:
        factory = find_object(context, "applicationContext")
        try:
            built = factory()
            if hasattr(built, "__enter__") and hasattr(built, "__exit__"):
                built = self._exits.enter_context(built)
        except BaseException as error:
            raise LoadError(
                Cause.CONTEXT, f"applicationContext {context!r} cannot be built: {describe(error)}"
            ) from error
        if not isinstance(built, Mapping):
            raise LoadError(
                Cause.CONTEXT,
                f"applicationContext {context!r} returned {type(built).__name__}, must return a mapping of beans",
            )
        return built


def load_job(job: Mapping[str, Any], contexts: Contexts) -> Job:
    """The object of a job.

    If beanName and applicationContext are both given, the object is this bean, as in Elastic-Job. Otherwise it is an
    instance of jobClass, or the function that jobClass names. Raises LoadError.
    """
    context, bean = job.get("applicationContext") or "", job.get("beanName") or ""
    if context and bean:
        return _check_type(_instantiate(contexts.bean(context, bean), f"beanName {bean!r}"), job, f"beanName {bean!r}")
    label = f"jobClass {job['jobClass']!r}"
    return _check_type(_instantiate(find_object(job["jobClass"], "jobClass"), label), job, label)


def find_object(path: str, field: str) -> Any:
    """The object named by `package.module:Name` or `package.module.Name`. Raises LoadError."""
    label = f"{field} {path!r}"
    module, name = _split(path, label)
    try:
        found = importlib.import_module(module)
    except BaseException as error:
        raise LoadError(Cause.IMPORT, f"{label} cannot be imported: {describe(error)}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadError(
                Cause.IMPORT, f"{label}: there is no {part!r} in {getattr(found, '__name__', module)!r}"
            ) from None
    return found


def _split(path: str, label: str) -> Tuple[str, str]:
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module or not name or not all(part.isidentifier() for part in (module + "." + name).split(".")):
        raise LoadError(Cause.IMPORT, f"{label} names nothing in a module; write package.module:Name")
    return module, name


def _instantiate(found: Any, label: str) -> Any:
    if not inspect.isclass(found):
        return found
    try:
        return found()
    except BaseException as error:
        raise LoadError(Cause.IMPORT, f"{label} cannot be created: {describe(error)}") from error


def _check_type(made: Any, job: Mapping[str, Any], label: str) -> Job:
    wanted = DataflowJob if job["jobType"] == "DATAFLOW" else SimpleJob
    function = inspect.isroutine(made) and wanted is SimpleJob
    if not isinstance(made, wanted) and not function:
        raise LoadError(
            Cause.IMPORT,
            f"{label} is a {type(made).__name__}, a {job['jobType']} job must be a jobcloud.job.{wanted.__name__}",
        )
    return made  # type: ignore[no-any-return]
