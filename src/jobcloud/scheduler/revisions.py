"""Which version of its job and app a shard is: what may go on as it is after a change, and what has to start anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any

from jobcloud.model import App, Firing, Job, JobKind, ShardState, Task, UpdateStrategy, parse_shard_parameters

_RUNNING_GOES_ON = {
    "description", "failover", "misfire", "catch_up", "priority", "retry_count", "retry_delay_ms", "retry_most_ms",
    "retry_jitter", "failover_attempts", "failover_delay_ms", "failover_most_ms", "partition", "replace_after_ms",
    "catch_up_limit", "misfire_limit", "concurrency", "concurrency_limit", "update_strategy", "max_unavailable",
    "independent_shards",
}  # fmt: skip
_ONLY_THE_TIMER = {"cron", "zone", "dialect", "gap", "fold"}
# How many there are is for the whole job; of the parameters each shard has its own.
_OF_ALL_SHARDS = {"shard_count", "shard_parameters"}
# Of an app: what its executors are not made from. Its package is known by the hash, wherever it came from.
_BESIDE = {"description", "executors", "url"}


def same_work(old: Job, new: Job) -> bool:
    """Whether running work of `old` may go on under `new`: only how it is scheduled or described has changed.

    Where fewer runs are allowed beside each other, some of those that run would be too many.
    """
    if new.runs_at_once < old.runs_at_once or _depend_now(old, new):
        return False
    neutral = _RUNNING_GOES_ON | (_ONLY_THE_TIMER if old.kind is JobKind.TRANSIENT else set())
    return all(getattr(old, f.name) == getattr(new, f.name) for f in fields(Job) if f.name not in neutral)


def may_roll(old: Job, new: Job) -> bool:
    """Whether shards of `old` may run beside shards of `new`, so that they can be replaced a few at a time."""
    if old.kind is not JobKind.DAEMON or new.kind is not JobKind.DAEMON:
        return False
    resharded = old.shard_count != new.shard_count and not new.independent_shards
    return new.update_strategy is UpdateStrategy.ROLLING and not resharded and not _depend_now(old, new)


def _depend_now(old: Job, new: Job) -> bool:
    """Whether shards of several totals may run that have just lost the right to."""
    return old.independent_shards and not new.independent_shards


@lru_cache(maxsize=1024)
def of_shards(job: Job, app: App) -> tuple[str, ...]:
    """The revision of each shard: 16 hex digits of the SHA-256 of what it is made from, as canonical JSON.

    What has its default is left out, so that a field that comes to the model later makes no new revision; and what
    agents fetch besides the app's package: a newer jobcloud replaces no residents.
    """
    made_from = [_given(job, _RUNNING_GOES_ON | _OF_ALL_SHARDS), _given(app, _BESIDE)]
    common = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    parameters = parse_shard_parameters(job.shard_parameters, job.shard_count)
    known = {text: hashlib.sha256(f"{common}\n{text}".encode()).hexdigest()[:16] for text in set(parameters)}
    return tuple(known[text] for text in parameters)


def stale(job: Job, app: App | None, firing: Firing, tasks: Mapping[str, Task]) -> Iterator[Task]:
    """The tasks of a resident's firing that are to be replaced, or to end as their item is no more; by item."""
    if app is None:
        return
    wanted = of_shards(job, app)
    for item, shard in enumerate(firing.shards):
        if shard.state is ShardState.ACTIVE:
            task = tasks[shard.task_id]
            if item >= job.shard_count or task.revision != wanted[item]:
                yield task


def _given(record: Any, neutral: set[str]) -> dict[str, Any]:
    """The fields that are not at their default, of records within records too."""
    named = ((f, getattr(record, f.name)) for f in fields(record) if f.name not in neutral)
    given = {f.name: value for f, value in named if f.default is MISSING or value != f.default}
    return {name: _given(value, neutral) if is_dataclass(value) else value for name, value in given.items()}
