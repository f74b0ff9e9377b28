"""The searches of Elastic-Job-Cloud's API in its two tables.

A search finds at most `MAX_FOUND` rows, so each answer costs a bounded amount of work: the first ones by time, from the
newest, or from the oldest if a client asks for that order. These rows are counted, sorted and divided into pages. Each
filter has an index that also has the order of time.

The ids of status traces have the order of their creation. The ids of executions have the order of their ends, so their
order by start is in indexes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from jobcloud.config import SEPARATOR
from jobcloud.history.elastic_job import Execution, Found, StatusTrace, TraceQuery
from jobcloud.history.queries import Reader
from jobcloud.history.tables import executions, instant_of, prefix, traces, utc

#: the number of rows that a search finds at most
MAX_FOUND: Final = 10_000
# The characters of a long text that its place in the order depends on.
_SORTED_TEXT = 100
# The times of a search are whole seconds. The last second belongs to its range.
_SECOND_MS = 1_000

RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Kind:
    """A table. `columns`: its columns by the names that a query uses. `time`: the name of the time of a search.

    `order`: the columns whose order is that of time. `bound`: the least value of the first of them at an instant.
    """

    table: Table
    columns: Mapping[str, ColumnElement[Any]]
    time: str
    order: tuple[ColumnElement[Any], ...]
    bound: Callable[[int], Any]


EXECUTIONS: Final = Kind(
    executions,
    {
        "id": executions.c.id,
        "job_name": executions.c.job_name,
        "task_id": executions.c.task_id,
        "hostname": executions.c.hostname,
        "ip": executions.c.ip,
        "item": executions.c.sharding_item,
        "source": executions.c.execution_source,
        "success": executions.c.is_success,
        "failure_cause": func.coalesce(func.substr(executions.c.failure_cause, 1, _SORTED_TEXT), ""),
        "start_ms": executions.c.start_time,
        "complete_ms": executions.c.complete_time,
    },
    "start_ms",
    (executions.c.start_time, executions.c.id),
    utc,
)
TRACES: Final = Kind(
    traces,
    {
        "id": traces.c.id,
        "job_name": traces.c.job_name,
        "original_task_id": traces.c.original_task_id,
        "task_id": traces.c.task_id,
        "slave_id": traces.c.slave_id,
        "source": traces.c.source,
        "execution_type": traces.c.execution_type,
        "items": traces.c.sharding_item,
        "state": traces.c.state,
        "message": func.coalesce(func.substr(traces.c.message, 1, _SORTED_TEXT), ""),
        "creation_ms": traces.c.creation_time,
    },
    "creation_ms",
    (traces.c.id,),
    prefix,
)


class ElasticJobSearch:
    """A TraceSearch on the history. Threads may share it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def executions(self, query: TraceQuery) -> Found[Execution]:
        return self._find(EXECUTIONS, query, _execution)

    def status_traces(self, query: TraceQuery) -> Found[StatusTrace]:
        return self._find(TRACES, query, _trace)

    def _find(self, kind: Kind, query: TraceQuery, read: Callable[[Any], RowT]) -> Found[RowT]:
        with self._reader.connect() as connection:
            total = int(connection.execute(counted(kind, query)).scalar_one())
            rows = _rows(connection, kind, query) if query.offset < total else []
        return Found(total, [read(row) for row in rows])


def counted(kind: Kind, query: TraceQuery) -> Select[Any]:
    """The number of rows that a search finds."""
    return select(func.count()).select_from(_matching(kind, query).limit(MAX_FOUND).subquery())


def page(kind: Kind, query: TraceQuery) -> Select[Any]:
    """The ids of the rows of a page, in order."""
    matching = _matching(kind, query)
    size = min(query.limit, MAX_FOUND - query.offset)
    if query.sort in ("", kind.time):
        return matching.limit(size).offset(query.offset)
    found = matching.limit(MAX_FOUND).subquery()
    order = (found.c.key, found.c.id)
    ordered = select(found.c.id).order_by(*(column.desc() if query.descending else column for column in order))
    return ordered.limit(size).offset(query.offset)


def _rows(connection: Connection, kind: Kind, query: TraceQuery) -> list[Any]:
    ids = [row.id for row in connection.execute(page(kind, query))]
    rows = {row.id: row for row in connection.execute(select(kind.table).where(kind.table.c.id.in_(ids)))}
    return [rows[id_] for id_ in ids if id_ in rows]


def _matching(kind: Kind, query: TraceQuery) -> Select[Any]:
    """The ids of the rows that match, and what they are sorted by: by time, the newest first unless the query asks."""
    oldest_first = query.sort == kind.time and not query.descending
    order = [column if oldest_first else column.desc() for column in kind.order]
    key = kind.columns[query.sort or kind.time].label("key")
    return select(kind.table.c.id, key).where(*_where(kind, query)).order_by(*order)


def _where(kind: Kind, query: TraceQuery) -> list[ColumnElement[bool]]:
    found = [
        kind.columns[name] == (int(value) if isinstance(value, bool) else value) for name, value in query.equal.items()
    ]
    if "job_name" not in query.equal:
        # The key of a job of another team has a colon.
        found.append(kind.table.c.job_name.not_like(f"%{SEPARATOR}%"))
    time = kind.order[0]
    if query.from_ms:
        found.append(time >= kind.bound(query.from_ms))
    if query.until_ms:
        found.append(time < kind.bound(query.until_ms + _SECOND_MS))
    return found


def _execution(row: Any) -> Execution:
    return Execution(
        row.id,
        row.job_name,
        row.task_id,
        row.hostname,
        row.ip,
        row.sharding_item,
        row.execution_source,
        bool(row.is_success),
        row.failure_cause or "",
        instant_of(row.start_time),
        instant_of(row.complete_time),
    )


def _trace(row: Any) -> StatusTrace:
    return StatusTrace(
        row.id,
        row.job_name,
        row.original_task_id,
        row.task_id,
        row.slave_id,
        row.source,
        row.execution_type,
        row.sharding_item,
        row.state,
        row.message or "",
        instant_of(row.creation_time),
    )
