"""Pages of rows, and statistics computed from rows.

A page lists rows from the newest to the oldest and continues behind an id. The statistics are computed when they are
asked for, from the rows of attempts that ended within a range of time. There are no counters that a change of leader, a
crash or a repeated batch could falsify.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, func, literal, or_, select

from jobcloud.errors import ConfigError
from jobcloud.history.answers import By, Found, Quantiles, Statistics, Wanted
from jobcloud.history.database import Database
from jobcloud.history.opened import Opened
from jobcloud.history.rows import FAILURES, SUCCEEDED
from jobcloud.history.tables import attempts, audit, configurations, prefix, runs, traces
from jobcloud.sentences import Told

QUANTILES: Final = (50, 95, 99)
_CURSOR = re.compile(r"[0-9a-f]{32}")
# The columns of a configuration without its text.
_HEAD: Final = tuple(column for column in configurations.c if column.name != "config")


class Reader:
    """Answers questions. Threads may share it. Raises Unavailable if the database does not answer."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._opened = Opened(open_database)

    def close(self) -> None:
        self._opened.close()

    def connect(self) -> AbstractContextManager[Connection]:
        """A connection for one question. Raises Unavailable for the errors of the database."""
        return self._opened.connect()

    def runs(self, wanted: Wanted, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        """Runs, the newest fire time first, and the next cursor ("" at the end). `wanted.states` are states of runs."""
        return self._page(runs, wanted, limit, cursor)

    def attempts(self, wanted: Wanted, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        """Attempts, the newest end first, and the next cursor ("" at the end). `wanted.states`: Ends of status.py."""
        return self._page(attempts, wanted, limit, cursor)

    def events(self, task_id: str, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        """The states of one attempt, oldest first, and the next cursor ("" at the end)."""
        with self.connect() as connection:
            statement = select(traces).where(traces.c.task_id == task_id, traces.c.id > cursor)
            found = connection.execute(statement.order_by(traces.c.id).limit(limit + 1)).all()
        rows: list[Found] = [row._asdict() for row in found[:limit]]
        return rows, str(rows[-1]["id"]) if len(found) > limit else ""

    def audit(
        self, wanted: Mapping[str, str], since_ms: int, until_ms: int, limit: int, cursor: str = ""
    ) -> tuple[list[Found], str]:
        """Entries of the audit log, the newest first, and the next cursor ("" at the end). `wanted`: column → value."""
        where = [*_bounds(audit, since_ms, until_ms, cursor), *_equal(audit, **wanted)]
        return self._rows(lambda found: found.execute(page_of(audit, where, limit + 1)).all(), limit, cursor)

    def configurations(
        self, wanted: Wanted, limit: int, cursor: str = "", max_bytes: int = 1 << 20
    ) -> tuple[list[Found], str]:
        """Configurations, the newest first, and the next cursor ("" at the end).

        `wanted.job` or `wanted.app` is the key of a job or an app. A page has at least one configuration, and ends
        before its limit once they take `max_bytes`.
        """
        table, name = configurations, wanted.job or wanted.app
        more = _equal(table, kind="job" if wanted.job else "app", name=name) if name else []
        _check_cursor(cursor)
        with self.connect() as connection:
            # The texts of a whole page could be large, so the first statement reads their sizes only.
            heads = _newest(connection, table, replace(wanted, job="", app=""), more, limit + 1, cursor, *_HEAD)
            kept = _within(heads[:limit], max_bytes)
            texts = select(table.c.id, table.c.config).where(table.c.id.in_([row.id for row in kept]))
            of = {row.id: row.config for row in connection.execute(texts)}
        # The retention may have deleted a row meanwhile.
        rows: list[Found] = [row._asdict() | {"config": of[row.id]} for row in kept if row.id in of]
        return rows, str(kept[-1].id) if len(heads) > len(kept) else ""

    def statistics(self, by: By, wanted: Wanted, limit: int = 100, cursor: str = "") -> tuple[list[Statistics], str]:
        """Statistics of the groups whose names follow `cursor`, sorted by name, and the next cursor."""
        group: ColumnElement[str] = literal("") if by == "total" else attempts.c[by]
        where = conditions(attempts, wanted)
        if wanted.teams is not None:
            where.append(attempts.c.team.in_(sorted(wanted.teams)))
        with self.connect() as connection:
            found: dict[str, Statistics] = {"": Statistics("")} if by == "total" else {}
            for row in connection.execute(sums(group, where)):
                add_row(found.setdefault(row.name, Statistics(row.name)), row)
            names = sorted(name for name in found if name > cursor or by == "total")
            page = names[:limit]
            if by != "total":
                where = [*where, group.in_(page)]
            durations = quantiles(connection, attempts.c.duration_ms, group, where) if page else {}
            queued = quantiles(connection, attempts.c.queued_ms, group, where) if page else {}
        for name in page:
            found[name].duration, found[name].queued = durations.get(name), queued.get(name)
        return [found[name] for name in page], page[-1] if len(names) > limit else ""

    def _page(self, table: Table, wanted: Wanted, limit: int, cursor: str) -> tuple[list[Found], str]:
        return self._rows(lambda found: _newest(found, table, wanted, [], limit + 1, cursor), limit, cursor)

    def _rows(
        self, read: Callable[[Connection], Sequence[Row[Any]]], limit: int, cursor: str
    ) -> tuple[list[Found], str]:
        """The rows that `read` finds, at most one more than `limit`, and the next cursor."""
        _check_cursor(cursor)
        with self.connect() as connection:
            found = read(connection)
        rows: list[Found] = [row._asdict() for row in found[:limit]]
        return rows, str(rows[-1]["id"]) if len(found) > limit else ""


def page_of(table: Table, where: list[ColumnElement[bool]], limit: int, *columns: ColumnElement[Any]) -> Select[Any]:
    """The newest rows. An index on the filtered columns and the id bounds the rows that are read."""
    return select(*(columns or table.c)).where(*where).order_by(table.c.id.desc()).limit(limit)


def _newest(
    connection: Connection,
    table: Table,
    wanted: Wanted,
    more: list[ColumnElement[bool]],
    limit: int,
    cursor: str,
    *columns: ColumnElement[Any],
) -> list[Row[Any]]:
    """The newest rows of some teams and states.

    Each pair of them is one range of an index: for several at once, a database would sort. Once a page is full, no row
    is read that is older than its last one.
    """
    found: list[Row[Any]] = []
    teams = [wanted.team] if wanted.teams is None else sorted(wanted.teams)
    state_column = "outcome" if table is attempts else "state"
    for team, state in product(teams, sorted(set(wanted.states)) or [""]):
        oldest = str(found[-1].id) if len(found) == limit else ""
        where = conditions(table, replace(wanted, team=team), cursor, oldest)
        statement = page_of(table, [*where, *_equal(table, **{state_column: state}), *more], limit, *columns)
        rows = connection.execute(statement).all()
        found = sorted((*found, *rows), key=lambda row: str(row.id), reverse=True)[:limit]
    return found


def _within(rows: Sequence[Row[Any]], max_bytes: int) -> list[Row[Any]]:
    """The first configurations, until they take `max_bytes`."""
    taken = 0
    for count, row in enumerate(rows):
        if taken >= max_bytes:
            return list(rows[:count])
        taken += row.bytes
    return list(rows)


def _check_cursor(cursor: str) -> None:
    if cursor and not _CURSOR.fullmatch(cursor):
        fix = Told("pass nextCursor of a page", "next_cursor")
        raise ConfigError(Told("is not a cursor of this server", "no_cursor"), field="cursor", fix=fix)


def _equal(table: Table, **values: str) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in values.items() if value]


def conditions(table: Table, wanted: Wanted, cursor: str = "", oldest: str = "") -> list[ColumnElement[bool]]:
    """The conditions. The rows are those before `cursor` and from `oldest` on, if these are given."""
    equal = _equal(table, run_id=wanted.run, job=wanted.job, app=wanted.app, team=wanted.team)
    return [*equal, *_bounds(table, wanted.since_ms, wanted.until_ms, cursor, oldest)]


def _bounds(table: Table, since_ms: int, until_ms: int, cursor: str, oldest: str = "") -> list[ColumnElement[bool]]:
    """The conditions for a range of time, and for the rows before `cursor` and from `oldest` on, if these are given.

    There is at most one bound on each side. Of two, SQLite 3.40 searches the index by the first one, and reads all rows
    between them.
    """
    found: list[ColumnElement[bool]] = []
    if lower := max(prefix(since_ms) if since_ms else "", oldest):
        found.append(table.c.id >= lower)
    bounds = [bound for bound in (prefix(until_ms) if until_ms else "", cursor) if bound]
    if bounds:
        found.append(table.c.id < min(bounds))
    return found


def sums(group: ColumnElement[Any], where: list[ColumnElement[bool]]) -> Select[Any]:
    """The numbers and resources of attempts by group (`name`) and outcome."""
    used_s = func.coalesce(attempts.c.duration_ms, 0) / 1000.0
    statement = select(
        group.label("name"),
        attempts.c.outcome,
        func.count().label("count"),
        func.sum(attempts.c.cpus * used_s / 1000.0).label("cpu_seconds"),
        func.sum(attempts.c.mem * used_s / 1000.0).label("memory_mb_seconds"),
    )
    return statement.where(*where).group_by("name", attempts.c.outcome)


def add_row(statistics: Statistics, row: Any) -> None:
    """Add a row of `sums` to statistics."""
    statistics.attempts += row.count
    if row.outcome == SUCCEEDED:
        statistics.succeeded += row.count
    elif row.outcome in FAILURES:
        statistics.failed += row.count
    else:
        statistics.killed += row.count
    statistics.cpu_seconds += float(row.cpu_seconds)
    statistics.memory_mb_seconds += float(row.memory_mb_seconds)


def quantiles(
    connection: Connection, column: ColumnElement[Any], group: ColumnElement[Any], where: list[ColumnElement[bool]]
) -> dict[Any, Quantiles]:
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
    values: dict[Any, dict[int, int]] = defaultdict(dict)
    sizes: dict[Any, int] = {}
    for name, value, rank, size in connection.execute(statement):
        values[name][rank], sizes[name] = value, size
    return {
        name: Quantiles(*(values[name][-(-size * percent // 100)] for percent in QUANTILES))
        for name, size in sizes.items()
    }
