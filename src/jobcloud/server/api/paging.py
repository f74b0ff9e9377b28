"""Pages of a list that changes while it is read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeAlias, TypeVar

from pydantic import Field

from jobcloud.server.api.problems import Issue, invalid
from jobcloud.server.api.schema import Query

V = TypeVar("V")
#: The position of an item in a list, newest first: minus its instant, its id, its shard.
Place: TypeAlias = tuple[int, str, int]


class PageQuery(Query):
    limit: int = Field(100, ge=1, le=1000)
    cursor: str = Field("", max_length=1000)


def page(items: Iterable[V], place: Callable[[V], Place], query: PageQuery) -> tuple[list[V], str]:
    """The items behind the cursor, up to the limit, and the next cursor, "" at the end. `items` rise by `place`.

    A cursor names a place, not a number, so new and removed items neither repeat nor hide others. Raises Problem.
    """
    behind = _decode(query.cursor) if query.cursor else None
    rest = (item for item in items if behind is None or place(item) > behind)
    found = list(islice(rest, query.limit + 1))
    return found[: query.limit], _encode(place(found[query.limit - 1])) if len(found) > query.limit else ""


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
