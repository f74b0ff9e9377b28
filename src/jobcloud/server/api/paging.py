"""Pages of a list that changes while it is read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

import msgspec
from pydantic import Field

from jobcloud.model import Shard
from jobcloud.server.api.problems import Issue, invalid
from jobcloud.server.api.schema import Query

V = TypeVar("V")
#: The position of an item in a list, newest first: (minus its instant, its id, its shard).
Place: TypeAlias = tuple[int, str, int]


# A page ends before its limit once its items take this many bytes.
MAX_PAGE_BYTES = 1 << 20
# Bytes of a shard's or a task's JSON apart from its own texts: the names of its fields, instants and ids.
_FRAME_BYTES = 800


MAX_MATCH = 400
MATCH = "the beginning or the end of the id, or both with … between them; the end may lack @CLUSTER"


class PageQuery(Query):
    limit: int = Field(100, ge=1, le=1000)
    cursor: str = Field("", max_length=1000)


def page(
    items: Iterable[V], place: Callable[[V], Place], size: Callable[[V], int], query: PageQuery
) -> tuple[list[V], str]:
    """The items behind the cursor, and the next cursor, or "" at the end. `items` must be sorted by `place`.

    A page has at least one item, and at most `query.limit`. It ends once its items take MAX_PAGE_BYTES, as `size`
    counts them. A cursor names a place, not a number, so new and removed items neither repeat nor hide others. Raises
    Problem.
    """
    behind = _decode(query.cursor) if query.cursor else None
    found: list[V] = []
    taken = 0
    for item in items:
        if behind is not None and place(item) <= behind:
            continue
        if len(found) == query.limit or taken >= MAX_PAGE_BYTES:
            return found, _encode(place(found[-1]))
        found.append(item)
        taken += size(item)
    return found, ""


def shard_bytes(shard: Shard) -> int:
    """The approximate size of a shard's JSON in bytes."""
    return _FRAME_BYTES + len(msgspec.json.encode(shard.message)) + len(shard.outcome.result)


def _encode(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decode(cursor: str) -> Place:
    try:
        instant, name, item = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if type(instant) is int and type(name) is str and type(item) is int:
            return instant, name, item
    except (TypeError, ValueError, RecursionError):
        pass
    raise invalid([Issue("cursor", "is not a cursor of this server", "pass nextCursor of the previous page")])
