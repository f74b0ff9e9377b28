"""The slots that the shards of a job take from pools, as its configuration says."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from jobcloud.config import MAX_SHARDS, Job, key_of
from jobcloud.errors import ConfigError
from jobcloud.model import EVERY_TEAM, Slots
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import not_valid

_ENTRY: Final = re.compile(r"(?:([0-9]{1,9}) +of +)?((?:\*:)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})")
_FIX: Final = Told(
    "such as `orders-db`, a pool of the team; `*:orders-db`, one of all teams; or `2 of orders-db`", "pool_form"
)


def slots_of(job: Job) -> Slots:
    """The slots that a shard takes from each pool, sorted by the pool's key. Raises ConfigError."""
    return slots_in(job.pools, job.team) if job.pools else ()


@lru_cache(maxsize=65_536)
def slots_in(entries: tuple[str, ...], team: str) -> Slots:
    """The slots of the entries of `pools` in a job of a team. Raises ConfigError."""
    found: dict[str, int] = {}
    for text in entries:
        entry = _ENTRY.fullmatch(text.strip())
        if entry is None or not 1 <= (number := int(entry[1] or 1)) <= MAX_SHARDS:
            raise ConfigError(not_valid(text[:80], "names no pool"), field="pools", fix=_FIX)
        key = entry[2] if entry[2].startswith(EVERY_TEAM) else key_of(team, entry[2])
        if key in found:
            problem = Told(f"names {entry[2]} twice", "twice", name=entry[2])
            raise ConfigError(problem, field="pools", fix=Told("name each pool once", "pool_once"))
        found[key] = number
    return tuple(sorted(found.items()))
