"""Pages of rows, and statistics computed from rows.

A page lists rows from the newest to the oldest and continues behind an id. The statistics are computed when they are
asked for, from the rows of attempts that ended within a range of time. There are no counters that a change of leader, a
crash or a repeated batch could falsify.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, Table, func, literal, or_, select
from sqlalchemy.exc import SQLAlchemyError

from jobcloud.errors import ConfigError, Unavailable
from jobcloud.history.database import HEAD, Database, Unusable
from jobcloud.history.rows import FAILURES, SUCCEEDED
from jobcloud.history.tables import attempts, prefix, runs, traces

Found: TypeAlias = Mapping[str, Any]
By: TypeAlias = Literal["job", "app", "team", "total"]
QUANTILES: Final = (50, 95, 99)
_CURSOR = re.compile(r"[0-9a-f]{32}")
_LATER = "try again in a few seconds"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter. Empty fields match everything. At most one of team, app, job and run is set: each has its own index.

    `since_ms` ≤ instant < `until_ms`; 0: no limit. The instant is the fire time of a run, or the end of an attempt.
    """

    team: str = ""
    app: str = ""
    job: str = ""
    run: str = ""
    state: str = ""
    since_ms: int = 0
    until_ms: int = 0


@dataclass(slots=True)
class Quantiles:
    """The nearest-rank percentiles of durations in milliseconds. None if there are no values."""

    p50: int | None = None
    p95: int | None = None
    p99: int | None = None


@dataclass(slots=True)
class Statistics:
    """Statistics of the attempts of the job, app or team `name`, or of all attempts ("").

    The use of resources counts from the start of an attempt.
    """

    name: str
    attempts: int = 0
    succeeded: int = 0
    failed: int = 0
    killed: int = 0
    cpu_seconds: float = 0.0
    memory_mb_seconds: float = 0.0
    duration: Quantiles | None = None
    queued: Quantiles | None = None


class Reader:
    """Answers questions. Threads may share it. Raises Unavailable if the database does not answer."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._open_database = open_database
        self._database: Database | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def runs(self, wanted: Wanted, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        """Runs, the newest fire time first, and the next cursor ("" at the end). `wanted.state` is a state of runs."""
        return self._page(runs, wanted, _equal(runs, state=wanted.state), limit, cursor)

    def attempts(self, wanted: Wanted, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        """Attempts, the newest end first, and the next cursor ("" at the end). `wanted.state`: an End of status.py."""
        return self._page(attempts, wanted, _equal(attempts, outcome=wanted.state), limit, cursor)

    def events(self, task_id: str, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        """The states of one attempt, oldest first, and the next cursor ("" at the end)."""
        with self.connect() as connection:
            statement = select(traces).where(traces.c.task_id == task_id, traces.c.id > cursor)
            found = connection.execute(statement.order_by(traces.c.id).limit(limit + 1)).all()
        rows: list[Found] = [row._asdict() for row in found[:limit]]
        return rows, str(rows[-1]["id"]) if len(found) > limit else ""

    def statistics(self, by: By, wanted: Wanted, limit: int = 100, cursor: str = "") -> tuple[list[Statistics], str]:
        """Statistics of the groups whose names follow `cursor`, sorted by name, and the next cursor."""
        group: ColumnElement[str] = literal("") if by == "total" else attempts.c[by]
        where = _where(attempts, wanted)
        with self.connect() as connection:
            found: dict[str, Statistics] = {"": Statistics("")} if by == "total" else {}
            for row in connection.execute(_sums(group, where)):
                _add(found.setdefault(row.name, Statistics(row.name)), row)
            names = sorted(name for name in found if name > cursor or by == "total")
            page = names[:limit]
            if by != "total":
                where = [*where, group.in_(page)]
            durations = _quantiles(connection, attempts.c.duration_ms, group, where) if page else {}
            queued = _quantiles(connection, attempts.c.queued_ms, group, where) if page else {}
        for name in page:
            found[name].duration, found[name].queued = durations.get(name), queued.get(name)
        return [found[name] for name in page], page[-1] if len(names) > limit else ""

    def _page(
        self, table: Table, wanted: Wanted, more: list[ColumnElement[bool]], limit: int, cursor: str
    ) -> tuple[list[Found], str]:
        if cursor and not _CURSOR.fullmatch(cursor):
            raise ConfigError("is not a cursor of this server", field="cursor", fix="pass nextCursor of a page")
        with self.connect() as connection:
            found = connection.execute(page_of(table, [*_where(table, wanted, cursor), *more], limit + 1)).all()
        rows: list[Found] = [row._asdict() for row in found[:limit]]
        return rows, str(rows[-1]["id"]) if len(found) > limit else ""

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for one question. Raises Unavailable for the errors of the database."""
        try:
            with self._opened().question() as connection:
                yield connection
        except SQLAlchemyError as error:
            problem = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
            fix = f"{_LATER}, or ask for a shorter range of time"
            raise Unavailable(f"the database of the history does not answer: {problem}", fix=fix) from error
        except Unusable as error:
            raise Unavailable(str(error), fix=_LATER) from error

    def _opened(self) -> Database:
        if self._database is not None:
            return self._database
        # Not under the lock: several threads that wait for a server would wait for one another too.
        database = self._open_database()
        with ExitStack() as stack:
            stack.callback(database.close)
            if (version := database.version()) != HEAD:
                problem = "is of another version of jobcloud" if version else "is not set up yet"
                raise Unusable(f"the database of the history {problem}")
            with self._lock:
                if self._database is None:
                    self._database = database
                    stack.pop_all()
        return self._database


def page_of(table: Table, where: list[ColumnElement[bool]], limit: int) -> Select[Any]:
    """The newest rows. An index on the filtered column and the id bounds the rows that are read."""
    return select(table).where(*where).order_by(table.c.id.desc()).limit(limit)


def _equal(table: Table, **values: str) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in values.items() if value]


def _where(table: Table, wanted: Wanted, cursor: str = "") -> list[ColumnElement[bool]]:
    """The conditions. The rows are those before `cursor`, if it is given.

    There is at most one upper bound. Of two, SQLite 3.40 searches the index by the first one, and reads all rows
    between them.
    """
    found = _equal(table, run_id=wanted.run, job=wanted.job, app=wanted.app, team=wanted.team)
    if wanted.since_ms:
        found.append(table.c.id >= prefix(wanted.since_ms))
    bounds = [bound for bound in (prefix(wanted.until_ms) if wanted.until_ms else "", cursor) if bound]
    if bounds:
        found.append(table.c.id < min(bounds))
    return found


def _sums(group: ColumnElement[str], where: list[ColumnElement[bool]]) -> Select[Any]:
    used_s = func.coalesce(attempts.c.duration_ms, 0) / 1000.0
    statement = select(
        group.label("name"),
        attempts.c.outcome,
        func.count().label("count"),
        func.sum(attempts.c.cpus * used_s / 1000.0).label("cpu_seconds"),
        func.sum(attempts.c.mem * used_s / 1000.0).label("memory_mb_seconds"),
    )
    return statement.where(*where).group_by("name", attempts.c.outcome)


def _add(statistics: Statistics, row: Any) -> None:
    statistics.attempts += row.count
    if row.outcome == SUCCEEDED:
        statistics.succeeded += row.count
    elif row.outcome in FAILURES:
        statistics.failed += row.count
    else:
        statistics.killed += row.count
    statistics.cpu_seconds += float(row.cpu_seconds)
    statistics.memory_mb_seconds += float(row.memory_mb_seconds)


def _quantiles(
    connection: Connection, column: ColumnElement[Any], group: ColumnElement[str], where: list[ColumnElement[bool]]
) -> dict[str, Quantiles]:
    """The percentiles of a column by group. Not every database has functions for them, so the query ranks the rows.

    The p-th percentile of n values is the one with the rank ⌈pn/100⌉.
    """
    ranked = (
        select(
            group.label("name"),
            column.label("value"),
            func.row_number().over(partition_by=group, order_by=column).label("place"),
            func.count().over(partition_by=group).label("size"),
        )
        .where(*where, column.is_not(None))
        .subquery()
    )
    ranks = [((ranked.c.size * percent + 99) // 100) for percent in QUANTILES]
    statement = select(ranked).where(or_(*(ranked.c.place == rank for rank in ranks)))
    values: dict[str, dict[int, int]] = defaultdict(dict)
    sizes: dict[str, int] = {}
    for name, value, rank, size in connection.execute(statement):
        values[name][rank], sizes[name] = value, size
    return {
        name: Quantiles(*(values[name][-(-size * percent // 100)] for percent in QUANTILES))
        for name, size in sizes.items()
    }
