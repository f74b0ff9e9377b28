"""Revisions of configurations: short hashes.

The revision of a shard decides whether the shard may continue after a change. The revision of an app or a job tells a
client whether the configuration is still the one that it has read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from jobcloud.config import App, Job, JobKind, UpdateStrategy, parse_shard_parameters
from jobcloud.fields import Change, changing
from jobcloud.model import Firing, ShardState, Task

_NO_EFFECT = changing(Job, Change.NONE)
_NO_EFFECT_ON_RUNS = changing(Job, Change.NONE, Change.TIMES, Change.PLACE)
# The shard count and the shards' parameters are left out of the part of a revision that all shards have in common.
_NOT_IN_COMMON = changing(Job, Change.NONE, Change.SHARDS)
# Fields of an app that have no effect on running work, such as the URL of its package. The hash identifies the package.
_NO_EFFECT_OF_APP = changing(App, Change.NONE)


def same_work(old: Job, new: Job) -> bool:
    """Whether running work of `old` may continue under `new`.

    If `new` allows fewer runs at once than `old`, the work may not continue, because too many runs may be active.
    """
    if new.runs_at_once < old.runs_at_once or _lost_independence(old, new):
        return False
    neutral = _NO_EFFECT_ON_RUNS if old.kind is JobKind.TRANSIENT else _NO_EFFECT
    return all(getattr(old, f.name) == getattr(new, f.name) for f in fields(Job) if f.name not in neutral)


def may_roll(old: Job, new: Job) -> bool:
    """Whether shards of `old` and `new` may run at the same time, so that a few at a time can be replaced."""
    if old.kind is not JobKind.DAEMON or new.kind is not JobKind.DAEMON:
        return False
    resharded = old.shard_count != new.shard_count and not new.independent_shards
    return new.update_strategy is UpdateStrategy.ROLLING and not resharded and not _lost_independence(old, new)


def _lost_independence(old: Job, new: Job) -> bool:
    """Whether the running shards may have started with different shard counts, although `new` no longer allows this."""
    return old.independent_shards and not new.independent_shards


@lru_cache(maxsize=1024)
def of_shards(job: Job, app: App) -> tuple[str, ...]:
    """The revision of each shard: 16 hex digits of the SHA-256 of its configuration as canonical JSON.

    Fields at their default are left out, so that a new field changes no revision. The executor program is left out too,
    so that a new version of jobcloud replaces no resident shards.
    """
    common = _canonical([_given(job, _NOT_IN_COMMON), _given(app, _NO_EFFECT_OF_APP)])
    parameters = parse_shard_parameters(job.shard_parameters, job.shard_count)
    known = {text: _hash(f"{common}\n{text}") for text in set(parameters)}
    return tuple(known[text] for text in parameters)


def of_record(record: App | Job) -> str:
    """The revision of a whole configuration: 16 hex digits. Fields at their default are left out, as in `of_shards`."""
    return _hash(_canonical(_given(record, frozenset())))


def outdated(job: Job, app: App | None, firing: Firing, tasks: Mapping[str, Task]) -> Iterator[Task]:
    """The outdated active tasks of a resident job's firing, in the order of items (see rollouts.py)."""
    if app is None:
        return
    wanted = of_shards(job, app)
    for item, shard in enumerate(firing.shards):
        if shard.state is ShardState.ACTIVE:
            task = tasks[shard.task_id]
            if item >= job.shard_count or task.revision != wanted[item]:
                yield task


def _given(record: Any, neutral: Set[str]) -> dict[str, Any]:
    """The fields, nested ones included, that are not at their default."""
    values = ((f, getattr(record, f.name)) for f in fields(record) if f.name not in neutral)
    given = {f.name: value for f, value in values if f.default is MISSING or value != f.default}
    return {name: _given(value, neutral) if is_dataclass(value) else value for name, value in given.items()}


def _canonical(configuration: Any) -> str:
    return json.dumps(configuration, sort_keys=True, separators=(",", ":"), default=_value)


def _value(member: Enum) -> Any:
    return member.value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
