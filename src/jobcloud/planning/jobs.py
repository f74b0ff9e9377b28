"""Reads the parts of jobs that planning needs, from their registered configuration or from a manifest.

docs/job-configuration.md describes the fields. Only schedule, overlap and resources are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from jobcloud.config import (
    DEFAULT_EXECUTOR,
    MAX_EXECUTORS,
    MAX_SHARDS,
    MAX_WAITING,
    PLACEHOLDER,
    RESOURCE_FIELDS,
    Concurrency,
    JobKind,
    Resources,
    check_resources,
)
from jobcloud.cron import Dialect, Fold, Gap
from jobcloud.errors import ConfigError
from jobcloud.planning.demand import ScheduledJob
from jobcloud.planning.problem import TaskKind
from jobcloud.planning.rules import Rules
from jobcloud.planning.tables import BadTable, read_table

#: The dimensions of `Resources`.
DIMENSIONS: Final = ("cpus", "mem_mb", "disk_mb", "gpus", "ports")
MAX_RUN_S: Final = 30 * 86_400
ON_EACH: Final = "each"

T = TypeVar("T")


def scheduled_job(config: Mapping[str, Any], run_s: float) -> ScheduledJob:
    """The job of a configuration, with the given run time. Raises ConfigError, which names job and field."""
    name = config.get("jobName")
    if not isinstance(name, str) or not name:
        raise ConfigError("is missing", field="jobName", fix="name the job")
    try:
        return _scheduled_job(name, config, run_s)
    except ConfigError as error:
        raise ConfigError(error.problem, field=f"job {name[:100]}, {error.field}", fix=error.fix) from None


def executor(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The amounts of an app's executor on each host that runs a task of the app. Raises ConfigError if invalid."""
    amounts = [
        _amount(config, field, default) for field, default in zip(RESOURCE_FIELDS, DEFAULT_EXECUTOR, strict=True)
    ]
    check_resources(Resources(*amounts))
    return tuple(amounts)


def warm_executors(app: str, config: Mapping[str, Any]) -> TaskKind | None:
    """The app's warm executors as tasks, at most one per host; None if it has none.

    Also None if `one_on_each_host` holds. Raises ConfigError if the configuration is invalid.
    """
    if one_on_each_host(config):
        return None
    number = _count(config, "executors", 0, 0, MAX_EXECUTORS)
    if not number:
        return None
    return TaskKind(f"executor of {app}", tuple(PLACEHOLDER), number, Rules(max_per_host=1), shared=app)


def one_on_each_host(config: Mapping[str, Any]) -> bool:
    """Whether the app keeps a warm executor on every host with room for it."""
    return config.get("executors") == ON_EACH


def read_run_times(path: Path) -> dict[str, float]:
    """Run times in seconds by job, from a table with the columns job and seconds. Raises BadTable if it is invalid."""
    found: dict[str, float] = {}
    for line, cells in read_table(path, ("job", "seconds")):
        job, text = cells["job"], cells["seconds"]
        try:
            seconds = float(text)
        except ValueError:
            seconds = float("nan")
        if not 0 < seconds <= MAX_RUN_S:
            fix = f"seconds above 0, at most {MAX_RUN_S:,}"
            raise BadTable(f"{text!r:.60} is not a run time", field=f"{path}, line {line}, column seconds", fix=fix)
        if job in found:
            raise BadTable(
                f"{job!r:.60} is given twice", field=f"{path}, line {line}, column job", fix="one row per job"
            )
        found[job] = seconds
    return found


def run_times_of(runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The longest ended run of each job, in seconds, from the API's runs."""
    from datetime import datetime

    found: dict[str, float] = {}
    for run in runs:
        if run.get("firedAt") and run.get("endedAt"):
            seconds = (datetime.fromisoformat(run["endedAt"]) - datetime.fromisoformat(run["firedAt"])).total_seconds()
            found[run["jobName"]] = max(found.get(run["jobName"], 0.001), seconds)
    return found


def _scheduled_job(name: str, config: Mapping[str, Any], run_s: float) -> ScheduledJob:
    shards = _count(config, "shardingTotalCount", None, 1, MAX_SHARDS)
    request = Resources(*(_amount(config, field, None if n < 2 else 0) for n, field in enumerate(RESOURCE_FIELDS)))
    check_resources(request, least=Resources(cpus=1, mem=1000))
    app = _typed(config, "appName", str, "")
    kind = TaskKind(name, tuple(request), shards, shared=app)
    how = _one_of(JobKind, config, "jobExecutionType", None)
    schedule = None if how is JobKind.DAEMON else _schedule(config)
    timeout_s = _amount(config, "timeoutSeconds", 0) / 1_000
    overlap = _one_of(Concurrency, config, "concurrency", Concurrency.FORBID)
    at_once = _count(config, "concurrencyLimit", 10, 1, MAX_WAITING)
    waiting = _count(config, "misfireLimit", MAX_WAITING, 1, MAX_WAITING)
    replaces = overlap is Concurrency.REPLACE
    return ScheduledJob(
        kind,
        schedule,
        round(1_000 * (min(run_s, timeout_s) if timeout_s > 0 else run_s)),
        at_once=at_once if overlap is Concurrency.ALLOW else 1,
        waiting=waiting if _typed(config, "misfire", bool, False) and not replaces else 0,
        replaces=replaces,
    )


def _schedule(config: Mapping[str, Any]) -> Any:
    from jobcloud.cron import CronError, Schedule

    try:
        return Schedule.parse(
            _typed(config, "cron", str, None),
            zone=_typed(config, "timeZone", str, "UTC"),
            dialect=_one_of(Dialect, config, "cronDialect", Dialect.QUARTZ),
            gap=_one_of(Gap, config, "dstGap", Gap.RUN_AFTER),
            fold=_one_of(Fold, config, "dstFold", Fold.AUTO),
        )
    except CronError as error:
        raise ConfigError(str(error), field="cron") from error


def _amount(config: Mapping[str, Any], field: str, default: int | None) -> int:
    value = config.get(field)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise ConfigError(f"{value!r:.60} is not a number" if value is not None else "is missing", field=field)
    return round(value * 1_000)


def _count(config: Mapping[str, Any], field: str, default: int | None, low: int, high: int) -> int:
    number = _typed(config, field, int, default)
    if not low <= number <= high:
        raise ConfigError(f"{number} is out of range", field=field, fix=f"{low:,} to {high:,}")
    return number


def _typed(config: Mapping[str, Any], field: str, kind: type[T], default: T | None) -> T:
    value = config.get(field, default)
    if value is None:
        raise ConfigError("is missing", field=field)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{value!r:.60} is not of type {kind.__name__}", field=field)
    return value


def _one_of(choices: Any, config: Mapping[str, Any], field: str, default: Any) -> Any:
    value = config.get(field, default)
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        problem = "is missing" if value is None else f"{value!r:.60} is unknown"
        raise ConfigError(problem, field=field, fix=f"one of {known}") from None
