"""Finds out what the worker of an app can do for a job.

A worker of the app's own declares it in the file `jobcloud-worker.json` of the package. docs/executor.md describes the
file. A worker without this file may be able to do anything. Only packages in zip format are read.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobcloud.config import OWN_ERROR_HANDLERS, App, Isolation, Job, JobKind, JobType, is_spring_xml
from jobcloud.errors import ConfigError
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import such_as
from jobcloud.server.modules import UNREADABLE

FILE_NAME = "jobcloud-worker.json"
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that is known. `language`: in lower case. `features`: keys of FEATURES; others have no meaning."""

    language: str
    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Feature:
    field: str
    what: str
    used_by: Callable[[Job], bool]


#: The features that a worker may have, by their names in the declaration.
FEATURES = {
    "DATAFLOW": _Feature("jobType", "DATAFLOW jobs", lambda job: job.type is JobType.DATAFLOW),
    "DAEMON": _Feature("jobExecutionType", "DAEMON jobs", lambda job: job.kind is JobKind.DAEMON),
    "process": _Feature("isolation", "a process for each shard", lambda job: job.isolation is Isolation.PROCESS),
    "applicationContext": _Feature("applicationContext", "contexts of beans", lambda job: bool(job.bean)),
    "springXml": _Feature(
        "applicationContext", "Spring's XML", lambda job: bool(job.bean) and is_spring_xml(job.context)
    ),
    "listener": _Feature("listener", "listeners of shards", lambda job: bool(job.listeners)),
    "distributedListener": _Feature(
        "distributedListener.class", "listeners of runs", lambda job: bool(job.firing_listener)
    ),
    "errorHandler": _Feature(
        "jobProperties.job_exception_handler",
        "error handlers of the app",
        lambda job: job.error_handler not in OWN_ERROR_HANDLERS,
    ),
    "executorService": _Feature(
        "jobProperties.executor_service_handler", "thread pools of the app", lambda job: bool(job.thread_pool)
    ),
    "secrets": _Feature("secrets", "secrets", lambda job: bool(job.secrets)),
    "files": _Feature("files", "files of shards that share it", lambda job: bool(job.files) and job.shares_worker),
}
PYTHON = Worker("python", frozenset(FEATURES) - {"springXml", "executorService"})


def worker_of(app: App, package: Path | None) -> Worker | None:
    """The worker of an app; None if it is not known. `package`: the app's package, if it is here.

    Raises ConfigError if the declaration in the package is not valid.
    """
    if not app.bootstrap_script:
        return PYTHON
    text = None if package is None else _declaration(package)
    return None if text is None else _parsed(text)


def check_features(job: Job, worker: Worker) -> None:
    """Raises ConfigError if the job needs something that the worker cannot do."""
    # The daemon itself carries out the shards of other jobs. A worker only calls the listener of their runs.
    in_worker = job.type in (JobType.SIMPLE, JobType.DATAFLOW)
    for name, feature in FEATURES.items() if in_worker else [("distributedListener", FEATURES["distributedListener"])]:
        if name not in worker.features and feature.used_by(job):
            raise ConfigError(
                Told(
                    f"the app's worker, for {worker.language}, does not support {feature.what}",
                    "worker_lacks",
                    language=worker.language,
                ),
                field=feature.field,
                fix=Told("leave it out, or use another worker: docs/executor.md#a-worker-of-your-own", "other_worker"),
            )


def _declaration(package: Path) -> bytes | None:
    try:
        with zipfile.ZipFile(package) as archive, archive.open(FILE_NAME) as opened:
            return opened.read(_MAX_BYTES + 1)
    except (KeyError, *UNREADABLE):
        return None


def _parsed(text: bytes) -> Worker:
    try:
        given = json.loads(text) if len(text) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        given = None
    language, features = (given.get("language"), given.get("features")) if isinstance(given, dict) else (None, None)
    if isinstance(language, str) and 0 < len(language) <= 40 and language.isprintable() and isinstance(features, list):
        return Worker(language.lower(), frozenset(name for name in features if isinstance(name, str)))
    raise ConfigError(
        Told(f"{FILE_NAME} in the package of the app is not valid", "worker_file", file=FILE_NAME),
        field="appName",
        fix=such_as('{"language": "java", "features": ["DATAFLOW"]}: docs/executor.md#a-worker-of-your-own'),
    )
