"""Deletes the oldest rows: by age, by number in total and per job, and by the size of the database.

Entries of the audit log have an age limit of their own. Configurations have the common age limit, and a limit by number
for each app and each job. The configuration in force stays, whatever its age. Rows are deleted a few hundred at a time,
each time in a transaction of its own, so that nobody waits for long. Limits by number count attempts. Runs, traces and
notes that are older than the oldest remaining attempt are deleted too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, func, insert, or_, select, text, update

from jobcloud.history.condensing import condense
from jobcloud.history.database import Database
from jobcloud.history.tables import (
    SIZED,
    attempts,
    audit,
    configurations,
    executions,
    marks,
    notes,
    prefix,
    runs,
    traces,
)

#: rows of one transaction
STEP = 500
_INTERVAL_MS = 600_000
# The part of the limit that is in use after a deletion for size.
_FILL = 0.9
_SIZE_MARK = "size"
#: configurations of each app and job that are kept
MAX_CONFIGURATIONS = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit. Only `audit_age_ms` concerns the entries of the audit log."""

    age_ms: int = 0
    attempts: int = 0
    attempts_per_job: int = 0
    bytes: int = 0
    audit_age_ms: int = 0


NO_LIMITS = Limits()


class Retention:
    """Used by one thread."""

    def __init__(self, limits: Limits, now_ms: Callable[[], int]) -> None:
        self._limits = limits
        self._now_ms = now_ms
        self._next_ms = 0

    def run(self, database: Database, pressed: Callable[[], bool]) -> None:
        """Delete what is over the limits, at most every ten minutes.

        `pressed()`: many new rows wait to be written. Then the deletion stops early, and the next call continues it.
        """
        now = self._now_ms()
        if self._next_ms - _INTERVAL_MS <= now < self._next_ms:
            return
        if self.enforce(database, pressed):
            self._next_ms = now + _INTERVAL_MS

    def enforce(self, database: Database, pressed: Callable[[], bool] = lambda: False) -> bool:
        """Delete what is over the limits. False if it stopped early."""
        limits = self._limits
        done = condense(database, self._now_ms(), pressed)
        if done and limits.age_ms:
            oldest = self._now_ms() - limits.age_ms
            done = _delete_before(database, oldest, oldest, pressed)
            done = done and _delete_configurations(database, prefix(oldest), pressed)
        if done:
            done = _keep_newest_configurations(database, pressed)
        if done and limits.audit_age_ms:
            done = _delete_rows(database, audit, prefix(self._now_ms() - limits.audit_age_ms), pressed)
        if done and limits.attempts:
            done = _keep_newest(database, limits.attempts, pressed)
        if done and limits.attempts_per_job:
            done = _keep_newest_of_each_job(database, limits.attempts_per_job, pressed)
        if done and limits.bytes:
            done = _keep_size(database, limits.bytes, pressed)
        return done


def _delete_before(database: Database, instant: int, fired: int, pressed: Callable[[], bool]) -> bool:
    """Delete runs that fired before `fired`, and other rows from before `instant`. False if it stopped early.

    Entries of the audit log and configurations stay.
    """
    return all(
        _delete_rows(database, table, prefix(fired if table is runs else instant), pressed)
        for table in (runs, attempts, executions, traces, notes)
    )


def _delete_configurations(database: Database, bound: str, pressed: Callable[[], bool]) -> bool:
    """Delete configurations before the id `bound`, unless they are in force. False if it stopped early."""
    later = configurations.alias()
    replaced = select(later.c.id).where(
        later.c.kind == configurations.c.kind, later.c.name == configurations.c.name, later.c.id > configurations.c.id
    )
    over = or_(configurations.c.removed == 1, replaced.exists())
    seen = ""
    while True:
        if pressed():
            return False
        with database.engine.begin() as connection:
            # Configurations in force stay, so each step begins behind the last id of the step before it.
            old = select(configurations.c.id).where(configurations.c.id > seen, configurations.c.id < bound, over)
            ids = connection.execute(old.order_by(configurations.c.id).limit(STEP)).scalars().all()
            if ids:
                connection.execute(delete(configurations).where(configurations.c.id.in_(ids)))
            if len(ids) < STEP:
                return True
            seen = ids[-1]


def _keep_newest_configurations(database: Database, pressed: Callable[[], bool]) -> bool:
    """Delete the oldest configurations of the apps and jobs that have too many. False if it stopped early."""
    key = (configurations.c.kind, configurations.c.name)
    with database.engine.connect() as connection:
        many = select(*key).group_by(*key).having(func.count() > MAX_CONFIGURATIONS)
        found = connection.execute(many).all()
    for kind, name in found:
        own = (configurations.c.kind == kind, configurations.c.name == name)
        newest = select(configurations.c.id).where(*own).order_by(configurations.c.id.desc())
        while True:
            if pressed():
                return False
            with database.engine.begin() as connection:
                ids = connection.execute(newest.limit(STEP).offset(MAX_CONFIGURATIONS)).scalars().all()
                if ids:
                    connection.execute(delete(configurations).where(configurations.c.id.in_(ids)))
                if len(ids) < STEP:
                    break
    return True


def _delete_rows(database: Database, table: Table, bound: str, pressed: Callable[[], bool]) -> bool:
    """Delete the rows before the id `bound`. False if it stopped early."""
    while True:
        if pressed():
            return False
        with database.engine.begin() as connection:
            # The id of the last row of a step bounds the deletion: MariaDB has no LIMIT in a subquery.
            below = select(table.c.id).where(table.c.id < bound).order_by(table.c.id)
            ids = connection.execute(below.limit(STEP)).scalars().all()
            if not ids:
                return True
            connection.execute(delete(table).where(table.c.id <= ids[-1]))
            if len(ids) < STEP:
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
                    oldest = prefix(oldest_kept.fired_ms)
                    connection.execute(delete(runs).where(runs.c.job == job, runs.c.id < oldest))
                    connection.execute(delete(notes).where(notes.c.job == job, notes.c.id < oldest))
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


# The bytes of a table, of its indexes and of its long values. The maps that a vacuum adds are left out: with them, the
# tables would seem to grow when a vacuum runs.
_POSTGRESQL_SIZE = text(
    "WITH parts AS (SELECT oid FROM pg_class WHERE oid = to_regclass(:name)"
    " UNION SELECT reltoastrelid FROM pg_class WHERE oid = to_regclass(:name))"
    " SELECT sum(pg_relation_size(oid)) FROM"
    " (SELECT oid FROM parts UNION SELECT indexrelid FROM pg_index WHERE indrelid IN (SELECT oid FROM parts)) AS every"
)


def size_of(database: Database) -> int:
    """The bytes that the tables take, with their indexes."""
    with database.engine.connect() as connection:
        if database.kind == "sqlite":
            pages, free, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0
                for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * size)
        names = [_stored_name(table, database.kind) for table in SIZED]
        if database.kind == "postgresql":
            return sum(int(connection.execute(_POSTGRESQL_SIZE, {"name": name}).scalar() or 0) for name in names)
        # MariaDB reports the sizes as of the last analysis.
        connection.exec_driver_sql(f"ANALYZE TABLE {', '.join(names)}").all()
        statement = text(
            "SELECT sum(data_length + index_length) FROM information_schema.tables "
            "WHERE table_schema = database() AND table_name = :name"
        )
        return sum(int(connection.execute(statement, {"name": name}).scalar() or 0) for name in names)


def _stored_name(table: Table, kind: str) -> str:
    return table.name.lower() if kind == "postgresql" else table.name
