"""Reads the parts of jobs that planning needs, from their registered configuration or from a manifest.

docs/job-configuration.md describes the fields. Only schedule, overlap, resources, pools and constraints are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from jobcloud.config import (
    DEFAULT_EXECUTOR,
    MAX_EXECUTORS,
    MAX_SHARDS,
    MAX_WAITING,
    PLACEHOLDER,
    RESOURCE_FIELDS,
    Concurrency,
    ExcludedDay,
    JobKind,
    Resources,
    check_resources,
    key_of,
    split_key,
)
from jobcloud.cron import Dialect, Fold, Gap
from jobcloud.errors import ConfigError
from jobcloud.match.constraints import Constraint, ConstraintError, parse
from jobcloud.planning.demand import ScheduledJob
from jobcloud.planning.problem import TaskKind
from jobcloud.planning.rules import MAX_PER_HOST, Rules
from jobcloud.planning.tables import BadTable, read_table
from jobcloud.scheduler.places import EXCLUSIVE
from jobcloud.scheduler.slots import slots_in
from jobcloud.triggers import Days, Times, delay_ms, timing

#: The dimensions of `Resources`.
DIMENSIONS: Final = ("cpus", "mem_mb", "disk_mb", "gpus", "ports")
MAX_RUN_S: Final = 30 * 86_400
_LONGEST_PERIOD_S: Final = 366 * 86_400
ON_EACH: Final = "each"
_PER_HOST: Final = re.compile(r"at\s+most\s+([0-9]{1,9})\s+per\s+host")
_COUNTS: Final = re.compile(
    r"(at\s+most\s+[0-9]{1,9}\s+per|evenly\s+over)\s+[^\s=!<>~]+|near\s+[\w.-]+(\s+per\s+[^\s=!<>~]+)?"
)
#: The most pairs of an exclusive job and another job.
_MAX_PAIRS: Final = 1_000_000
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

T = TypeVar("T")


def scheduled_job(
    config: Mapping[str, Any],
    run_s: float,
    app: Mapping[str, Any] = _NOTHING,
    calendars: Mapping[str, Days] = _NOTHING,
) -> ScheduledJob:
    """The job of a configuration, with the given run time. Raises ConfigError, which names job and field.

    `jobName` is the key of the job. `app`: the configuration of its app, whose constraints hold for the job, too.
    `calendars`: the days of calendars by key. One that is not known excludes no day.
    """
    name = config.get("jobName")
    if not isinstance(name, str) or not name:
        raise ConfigError("is missing", field="jobName", fix="name the job")
    try:
        return _scheduled_job(name, config, run_s, _rules(app, config), calendars)
    except ConfigError as error:
        raise ConfigError(error.problem, field=f"job {name[:100]}, {error.field}", fix=error.fix) from None


def with_exclusive(jobs: Sequence[ScheduledJob], configs: Iterable[Mapping[str, Any]]) -> list[ScheduledJob]:
    """The jobs of these configurations; none of them shares a host with a job that has `exclusive host`.

    Raises ConfigError if there are too many pairs of jobs.
    """
    exclusive = {
        str(config.get("jobName"))
        for config in configs
        if any(EXCLUSIVE.fullmatch(str(text).strip()) for text in _typed(config, "constraints", list, []))
    }
    names = {job.kind.job for job in jobs}
    if len(exclusive) * len(names) > _MAX_PAIRS:
        problem = f"{len(exclusive):,} of {len(names):,} jobs have `exclusive host`"
        raise ConfigError(problem, field="constraints", fix=f"at most {_MAX_PAIRS:,} pairs with another job")
    found = []
    for job in jobs:
        if job.kind.job in exclusive:
            others = dict.fromkeys(sorted(names - {job.kind.job}), 0)
            rules = replace(job.kind.rules, neighbours=others)
            found.append(replace(job, kind=replace(job.kind, rules=rules)))
        else:
            found.append(job)
    return found


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
    rules = Rules(max_per_host=1, attributes=_rules(config).attributes)
    return TaskKind(f"executor of {app}", tuple(PLACEHOLDER), number, rules, shared=app)


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


def calendars_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of the calendars that a job names, by name. Raises ConfigError. `jobName` is the key of the job."""
    team = split_key(str(config.get("jobName", "")))[0]
    return {name: key_of(team, name) for field in ("skipOn", "onlyOn") for name in _texts(config, field)}


def _scheduled_job(
    name: str, config: Mapping[str, Any], run_s: float, rules: Rules, calendars: Mapping[str, Days]
) -> ScheduledJob:
    shards = _count(config, "shardingTotalCount", None, 1, MAX_SHARDS)
    request = Resources(*(_amount(config, field, None if n < 2 else 0) for n, field in enumerate(RESOURCE_FIELDS)))
    check_resources(request, least=Resources(cpus=1, mem=1000))
    app = _typed(config, "appName", str, "")
    kind = TaskKind(name, tuple(request), shards, rules, shared=app)
    how = _one_of(JobKind, config, "jobExecutionType", None)
    timeout_s = _amount(config, "timeoutSeconds", 0) / 1_000
    run_s = min(run_s, timeout_s) if timeout_s > 0 else run_s
    times = None if how is JobKind.DAEMON else times_of(config, calendars, run_s)
    overlap = _one_of(Concurrency, config, "concurrency", Concurrency.FORBID)
    at_once = _count(config, "concurrencyLimit", 10, 1, MAX_WAITING)
    waiting = _count(config, "misfireLimit", MAX_WAITING, 1, MAX_WAITING)
    replaces = overlap is Concurrency.REPLACE
    return ScheduledJob(
        kind,
        times,
        round(1_000 * run_s),
        at_once=at_once if overlap is Concurrency.ALLOW else 1,
        waiting=waiting if _typed(config, "misfire", bool, False) and not replaces else 0,
        replaces=replaces,
        slots=slots_in(tuple(_texts(config, "pools")), split_key(name)[0]),
    )


def times_of(config: Mapping[str, Any], calendars: Mapping[str, Days], run_s: float) -> Times:
    """The fire times of a job whose runs take `run_s` seconds. Raises ConfigError.

    `jobName` is the key of the job. A calendar whose days are not in `calendars` excludes no day. A trigger `@after` is
    planned as the period of a run and the delay after it.
    """
    triggers = _texts(config, "triggers")
    if delay := delay_ms(tuple(triggers)):
        period = f"@every {min(math.ceil(delay / 1_000 + run_s), _LONGEST_PERIOD_S)}s"
        triggers = [period if text.startswith("@after ") else text for text in triggers]
    found = timing(
        _typed(config, "cron", str, ""),
        triggers,
        _typed(config, "startTime", str, ""),
        _typed(config, "endTime", str, ""),
        _texts(config, "blackouts"),
        zone=_typed(config, "timeZone", str, "UTC"),
        dialect=_one_of(Dialect, config, "cronDialect", Dialect.QUARTZ),
        gap=_one_of(Gap, config, "dstGap", Gap.RUN_AFTER),
        fold=_one_of(Fold, config, "dstFold", Fold.AUTO),
    )
    keys = calendars_of(config)
    skipped, allowed = ([keys[name] for name in _texts(config, field)] for field in ("skipOn", "onlyOn"))
    only = [calendars[key] for key in allowed] if allowed and all(key in calendars for key in allowed) else None
    known = [calendars[key] for key in skipped if key in calendars]
    if not known and only is None:
        return found
    return found.by_calendars(known, only, _one_of(ExcludedDay, config, "onExcludedDay", ExcludedDay.SKIP))


def _rules(*configs: Mapping[str, Any]) -> Rules:
    """The constraints of a job and its app. The planner counts shards by host only, and ignores other such rules."""
    max_per_host, attributes = MAX_PER_HOST, list[Constraint]()
    for text in (str(text).strip() for config in configs for text in _typed(config, "constraints", list, [])):
        if limit := _PER_HOST.fullmatch(text):
            max_per_host = min(max_per_host, int(limit[1]))
        elif EXCLUSIVE.fullmatch(text):
            max_per_host = 1  # `with_exclusive` keeps the other jobs away
        elif not _COUNTS.fullmatch(text):
            try:
                attributes.append(parse(text))
            except ConstraintError as error:
                raise ConfigError(str(error), field="constraints") from error
    return Rules(max_per_host, attributes=tuple(attributes))


def _texts(config: Mapping[str, Any], field: str) -> list[str]:
    texts = _typed(config, field, list, [])
    if not all(isinstance(text, str) for text in texts):
        raise ConfigError("must be a list of texts", field=field)
    return texts


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
