"""Pages of lists that change while they are read. All lists have the same parameters and the same cursors."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import msgspec
from pydantic import Field

from jobcloud.config import App, Job
from jobcloud.fields import values_of
from jobcloud.model import Shard
from jobcloud.sentences import Told
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import Query, View

V = TypeVar("V")
#: The position of an item in a list. Items are sorted by it.
Place: TypeAlias = tuple[int | str, ...]


# A page ends before its limit once its items take this many bytes.
MAX_PAGE_BYTES = 1 << 20
# Bytes of the JSON of a shard or a task, and of an app or a job, apart from its own texts: names, numbers, ids.
_FRAME_BYTES = 800
_CONFIG_BYTES = 3_000


MAX_MATCH = 400
MATCH = "the beginning or the end of the id, or both with … between them; the end may lack @CLUSTER"


class PageQuery(Query):
    limit: int = Field(100, ge=1, le=1000, description="maximum number of items")
    cursor: str = Field("", max_length=1000, description="nextCursor of a page", json_schema_extra={"format": "cursor"})


class PageView(View):
    next_cursor: str = Field("", description='pass as "cursor" for more; "" at the end')


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of the API. `types` are those of the places of its items."""

    name: str
    types: tuple[type[int] | type[str], ...]

    def page(
        self,
        items: Iterable[V],
        place: Callable[[V], Place],
        query: PageQuery,
        size: Callable[[V], int] = lambda item: _FRAME_BYTES,
        *,
        falling: bool = False,
    ) -> tuple[list[V], str]:
        """The items behind the cursor, and the next cursor, or "" at the end. `items` must be sorted by `place`.

        `falling`: they are sorted from the last place to the first.

        A page has at least one item, and at most `query.limit`. It ends once its items take MAX_PAGE_BYTES, as `size`
        counts them. A cursor names a place, not a number, so new and removed items neither repeat nor hide others.
        Raises Problem.
        """
        behind = self.decoded(query.cursor)
        found: list[V] = []
        taken = 0
        for item in items:
            if behind is not None and (place(item) >= behind if falling else place(item) <= behind):
                continue
            if len(found) == query.limit or taken >= MAX_PAGE_BYTES:
                return found, self.encoded(place(found[-1]))
            found.append(item)
            taken += size(item)
        return found, ""

    def encoded(self, place: Place) -> str:
        """The cursor behind a place."""
        text = json.dumps([self.name, *place], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode()

    def decoded(self, cursor: str) -> Place | None:
        """The place of a cursor; None for "". Raises Problem for a cursor of another list."""
        if not cursor:
            return None
        try:
            name, *place = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        except (TypeError, ValueError, RecursionError):
            raise _no_cursor() from None
        if name != self.name or tuple(map(type, place)) != self.types:
            raise _no_cursor()
        return tuple(place)


def shard_bytes(shard: Shard) -> int:
    """The approximate size of a shard's JSON in bytes."""
    return _FRAME_BYTES + len(msgspec.json.encode(shard.message)) + len(shard.outcome.result)


def config_bytes(record: App | Job) -> int:
    """The approximate size of the JSON of an app or a job in bytes."""
    kind: type = type(record)
    values = values_of(kind)(record)
    return _CONFIG_BYTES + sum(len(value) for value in values if isinstance(value, str))


def _no_cursor() -> Problem:
    return invalid(
        [Issue("cursor", "is not a cursor of this list", Told("pass nextCursor of the previous page", "next_cursor"))]
    )
