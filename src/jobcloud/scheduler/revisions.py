"""Revisions: whether running shards may continue after a change of their job or app, or must start again."""

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
    """Whether running work of `old` may continue under `new`, because only its schedule or description has changed.

    False if `new` allows fewer concurrent runs: some of the running ones might be too many.
    """
    if new.runs_at_once < old.runs_at_once or _depend_now(old, new):
        return False
    neutral = _RUNNING_GOES_ON | (_ONLY_THE_TIMER if old.kind is JobKind.TRANSIENT else set())
    return all(getattr(old, f.name) == getattr(new, f.name) for f in fields(Job) if f.name not in neutral)


def may_roll(old: Job, new: Job) -> bool:
    """Whether shards of `old` and `new` may run at the same time, so that a roll-out can replace a few at a time."""
    if old.kind is not JobKind.DAEMON or new.kind is not JobKind.DAEMON:
        return False
    resharded = old.shard_count != new.shard_count and not new.independent_shards
    return new.update_strategy is UpdateStrategy.ROLLING and not resharded and not _depend_now(old, new)


def _depend_now(old: Job, new: Job) -> bool:
    """Whether running shards may have different totals, which `new` no longer allows."""
    return old.independent_shards and not new.independent_shards


@lru_cache(maxsize=1024)
def of_shards(job: Job, app: App) -> tuple[str, ...]:
    """The revision of each shard: 16 hex digits of the SHA-256 of its configuration as canonical JSON.

    Fields at their default are left out, so that a field added to the model later changes no revision. The executor
    program is not part of it: a newer jobcloud does not restart resident shards.
    """
    made_from = [_given(job, _RUNNING_GOES_ON | _OF_ALL_SHARDS), _given(app, _BESIDE)]
    common = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    parameters = parse_shard_parameters(job.shard_parameters, job.shard_count)
    known = {text: hashlib.sha256(f"{common}\n{text}".encode()).hexdigest()[:16] for text in set(parameters)}
    return tuple(known[text] for text in parameters)


def stale(job: Job, app: App | None, firing: Firing, tasks: Mapping[str, Task]) -> Iterator[Task]:
    """The tasks of a resident job's firing with an old revision or an item that the job no longer has, by item."""
    if app is None:
        return
    wanted = of_shards(job, app)
    for item, shard in enumerate(firing.shards):
        if shard.state is ShardState.ACTIVE:
            task = tasks[shard.task_id]
            if item >= job.shard_count or task.revision != wanted[item]:
                yield task


def _given(record: Any, neutral: set[str]) -> dict[str, Any]:
    """The fields that are not at their default, also in nested records."""
    named = ((f, getattr(record, f.name)) for f in fields(record) if f.name not in neutral)
    given = {f.name: value for f, value in named if f.default is MISSING or value != f.default}
    return {name: _given(value, neutral) if is_dataclass(value) else value for name, value in given.items()}
