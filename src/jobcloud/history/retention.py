"""Deletes the oldest rows: by age, by number in total and per job, and by the size of the database.

Rows are deleted a few hundred at a time, each time in a transaction of its own, so that nobody waits for long. Limits
by number count attempts. Rows that are older than the oldest remaining attempt are deleted too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, func, insert, select, text, update

from jobcloud.history.database import Database
from jobcloud.history.tables import WRITTEN, attempts, executions, marks, prefix, runs, traces

#: rows of one transaction
STEP = 500
_INTERVAL_MS = 600_000
# The part of the limit that is in use after a deletion for size.
_FILL = 0.9
_SIZE_MARK = "size"


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit."""

    age_ms: int = 0
    attempts: int = 0
    attempts_per_job: int = 0
    bytes: int = 0


NO_LIMITS = Limits()


class Retention:
    """Used by one thread."""

    def __init__(self, limits: Limits, now_ms: Callable[[], int]) -> None:
        self._limits = limits
        self._now_ms = now_ms
        self._next_ms = 0

    def run(self, database: Database, pressed: Callable[[], bool]) -> None:
        """Delete what is over the limits, at most every ten minutes.

        `pressed()`: many new rows wait to be written. Then it stops early, and goes on at the next call.
        """
        now = self._now_ms()
        if self._next_ms - _INTERVAL_MS <= now < self._next_ms:
            return
        if self.enforce(database, pressed):
            self._next_ms = now + _INTERVAL_MS

    def enforce(self, database: Database, pressed: Callable[[], bool] = lambda: False) -> bool:
        """Delete what is over the limits. False if it stopped early."""
        limits = self._limits
        done = True
        if limits.age_ms:
            oldest = self._now_ms() - limits.age_ms
            done = _delete_before(database, oldest, oldest, pressed)
        if done and limits.attempts:
            done = _keep_newest(database, limits.attempts, pressed)
        if done and limits.attempts_per_job:
            done = _keep_newest_of_each_job(database, limits.attempts_per_job, pressed)
        if done and limits.bytes:
            done = _keep_size(database, limits.bytes, pressed)
        return done


def _delete_before(database: Database, instant: int, fired: int, pressed: Callable[[], bool]) -> bool:
    """Delete runs that fired before `fired`, and other rows from before `instant`. False if it stopped early."""
    for table in WRITTEN.values():
        bound = prefix(fired if table is runs else instant)
        while True:
            if pressed():
                return False
            with database.engine.begin() as connection:
                # The id of the last row of a step bounds the deletion: MariaDB has no LIMIT in a subquery.
                below = select(table.c.id).where(table.c.id < bound).order_by(table.c.id)
                ids = connection.execute(below.limit(STEP)).scalars().all()
                if not ids:
                    break
                connection.execute(delete(table).where(table.c.id <= ids[-1]))
                if len(ids) < STEP:
                    break
    return True


def _keep_newest(database: Database, count: int, pressed: Callable[[], bool]) -> bool:
    with database.engine.connect() as connection:
        kept = select(attempts.c.ended_ms, attempts.c.fired_ms).order_by(attempts.c.id.desc())
        newest = connection.execute(kept.limit(2).offset(count - 1)).all()
    if len(newest) < 2:
        return True
    return _delete_before(database, newest[0].ended_ms, newest[0].fired_ms, pressed)


def _keep_newest_of_each_job(database: Database, count: int, pressed: Callable[[], bool]) -> bool:
    job = ""
    while True:
        with database.engine.connect() as connection:
            # One step along the index to the next job.
            job = connection.execute(select(func.min(attempts.c.job)).where(attempts.c.job > job)).scalar() or ""
            if not job:
                return True
            own = select(attempts.c.id, attempts.c.fired_ms).where(attempts.c.job == job)
            newest = connection.execute(own.order_by(attempts.c.id.desc()).limit(2).offset(count - 1)).all()
        if len(newest) < 2:
            continue
        oldest_kept, newest_deleted = newest
        while True:
            if pressed():
                return False
            with database.engine.begin() as connection:
                if not _delete_some(connection, job, newest_deleted.id):
                    connection.execute(delete(runs).where(runs.c.job == job, runs.c.id < prefix(oldest_kept.fired_ms)))
                    break


def _delete_some(connection: Connection, job: str, last: str) -> bool:
    """Delete some attempts of a job up to the id `last`, with their executions and traces. False if none are left."""
    own = select(attempts.c.id, attempts.c.task_id).where(attempts.c.job == job, attempts.c.id <= last)
    found = connection.execute(own.order_by(attempts.c.id).limit(STEP)).all()
    ids = [row.id for row in found]
    if ids:
        connection.execute(delete(executions).where(executions.c.id.in_(ids)))
        connection.execute(delete(traces).where(traces.c.task_id.in_([row.task_id for row in found])))
        connection.execute(delete(attempts).where(attempts.c.id.in_(ids)))
    return bool(ids)


def _keep_size(database: Database, limit: int, pressed: Callable[[], bool]) -> bool:
    """Delete the oldest attempts if the tables take more than `limit` bytes.

    SQLite tells how much of its file is in use. The other two databases keep the space of deleted rows for new rows,
    and do not tell how large this space is. So there the next deletion waits until the tables have outgrown the size
    that they had before the last deletion.
    """
    size = size_of(database)
    with database.engine.connect() as connection:
        before = connection.execute(select(marks.c.value).where(marks.c.name == _SIZE_MARK)).scalar() or 0
        if size <= limit or (database.kind != "sqlite" and size <= before):
            return True
        count = connection.execute(select(func.count()).select_from(attempts)).scalar() or 0
    if not _keep_newest(database, max(1, int(count * _FILL * limit / size)), pressed):
        return False
    with database.engine.begin() as connection:
        if not connection.execute(update(marks).where(marks.c.name == _SIZE_MARK).values(value=size)).rowcount:
            connection.execute(insert(marks).values(name=_SIZE_MARK, value=size))
    return True


def size_of(database: Database) -> int:
    """The bytes that the tables take, with their indexes."""
    with database.engine.connect() as connection:
        if database.kind == "sqlite":
            pages, free, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0
                for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * size)
        names = [_stored_name(table, database.kind) for table in WRITTEN.values()]
        if database.kind == "postgresql":
            return sum(
                int(connection.execute(text("SELECT pg_total_relation_size(:name)"), {"name": name}).scalar() or 0)
                for name in names
            )
        # MariaDB reports the sizes as of the last analysis.
        connection.exec_driver_sql(f"ANALYZE TABLE {', '.join(names)}").all()
        statement = text(
            "SELECT sum(data_length + index_length) FROM information_schema.tables "
            "WHERE table_schema = database() AND table_name = :name"
        )
        return sum(int(connection.execute(statement, {"name": name}).scalar() or 0) for name in names)


def _stored_name(table: Table, kind: str) -> str:
    return table.name.lower() if kind == "postgresql" else table.name
