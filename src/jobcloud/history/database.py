"""The database of the history: connections, migrations, and writes that may be repeated.

SQLite, PostgreSQL (psycopg 3) and MariaDB (PyMySQL). All methods raise SQLAlchemyError, and `Unusable` if a person has
to do something.
"""

from __future__ import annotations

import fcntl
import importlib.resources
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    Table,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.sql import Insert

from jobcloud.errors import JobcloudError
from jobcloud.history.connections import Limit, make_engine
from jobcloud.history.rows import Batch
from jobcloud.history.tables import REPLACED, TIMES, WRITTEN, Row, attempts, utc

#: the newest migration
HEAD: Final = "0005"
VERSION_TABLE: Final = "history_version"
# MariaDB uses SQLAlchemy's dialect for MySQL, because the options of the tables begin with `mysql_`.
_DRIVERS = {"postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
_EXTRAS = {"postgresql": ("psycopg", "postgresql"), "mariadb": ("pymysql", "mariadb")}
#: the seconds that a statement may take: of a question, of a batch or a deletion, and of a migration
READ_S, WRITE_S, MIGRATE_S = 10.0, 30.0, 3_600.0
_LOCK_S = 60
# The lock of migrations: an arbitrary number that no other program locks.
_LOCK = 7_203_115_808_122
_Convert: TypeAlias = Callable[[int], object]


class Unusable(JobcloudError):
    """The database cannot be used until somebody does something, such as install a driver."""


class Database:
    """One database. Threads may share it. `reading`: connections for queries only. `durable`: a write of SQLite
    survives a loss of power, as one of the servers does.

    After `limit_s` seconds, a statement ends with an error, even if the server hangs. The default is READ_S for
    reading, and WRITE_S otherwise. Migrations may take MIGRATE_S.
    """

    def __init__(
        self, url: str, password: str = "", *, reading: bool = False, limit_s: float = 0, durable: bool = False
    ) -> None:
        found = make_url(url)
        kind = found.get_backend_name()
        module, extra = _EXTRAS.get(kind, ("sqlite3", ""))
        if importlib.util.find_spec(module) is None:
            raise Unusable(f"the driver {module} is not installed: pip install 'jobcloud[{extra}]'")
        if kind in _DRIVERS:
            found = found.set(drivername=_DRIVERS[kind])
        if password:
            found = found.set(password=password)
        self.url: URL = found
        self.kind = kind
        self._file = Path(found.database or "") if self.kind == "sqlite" else None
        self._limit = Limit(limit_s or (READ_S if reading else WRITE_S))
        self.engine = make_engine(found, self._limit, reading=reading, durable=durable)
        self._inserts = [
            (name, _insert(table, self.engine.dialect, replace=name in REPLACED), _times(table))
            for name, table in WRITTEN.items()
        ]
        self._convert: _Convert = _TIMES[self.kind]

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def question(self) -> Iterator[Connection]:
        """A connection for one question. All that happens on it, and the connecting, has the time of one statement."""
        with self._limit.once(), self.engine.connect() as connection:
            yield connection

    # ------------------------------------------------------------------------------------------------- migrations

    def version(self) -> str:
        """The last migration that the database has had; "" if it has no tables of the history."""
        with self.question() as connection:
            if not inspect(connection).has_table(VERSION_TABLE):
                return ""
            found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608
            return str(found[0]) if found else ""

    def upgrade(self) -> None:
        """Run the missing migrations, if there are any. Several processes may call this at once."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
        if self.version() == HEAD:
            return
        with self._alone() as connection:
            _migrate(connection)

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A connection. While it is in use, no other process can run migrations."""
        if self._file is not None:
            with self._file.open("rb") as lock, self.engine.connect() as connection:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield connection
                return
        take, give = _LOCKS[self.kind]
        engine = make_engine(self.url, Limit(MIGRATE_S), reading=False)
        with _disposed(engine), engine.connect() as guard, engine.connect() as connection:
            taken = guard.execute(text(take), {"lock": _LOCK, "name": f"jobcloud {_LOCK}", "wait": _LOCK_S}).scalar()
            if taken == 0:
                raise Unusable(f"another process migrates {self} for more than {_LOCK_S} s")
            try:
                yield connection
            finally:
                with suppress(Exception):  # a lost connection gives the lock back by itself
                    guard.execute(text(give), {"lock": _LOCK, "name": f"jobcloud {_LOCK}"})

    # ------------------------------------------------------------------------------------------------- writes

    def write(self, batch: Batch) -> None:
        """Write all rows in one transaction. Repeating is harmless: a present row stays or is replaced (`REPLACED`)."""
        with self.engine.begin() as connection:
            for name, statement, times in self._inserts:
                rows: list[Row] = getattr(batch, name)
                if rows:
                    connection.exec_driver_sql(statement, self._with_times(rows, times) if times else rows)

    def newest_ms(self) -> int:
        """The last instant at which an attempt in the database ended; 0 if the database has no attempts."""
        with self.engine.connect() as connection:
            newest = connection.execute(select(func.max(attempts.c.id))).scalar()
            return int(newest[:12], 16) if newest else 0

    def _with_times(self, rows: list[Row], times: tuple[int, ...]) -> list[Row]:
        # The times are the last columns of their tables.
        convert, first = self._convert, times[0]
        return [(*row[:first], *map(convert, row[first:])) for row in rows]


@contextmanager
def _disposed(engine: Engine) -> Iterator[None]:
    try:
        yield
    finally:
        engine.dispose()


def _insert(table: Table, dialect: Dialect, *, replace: bool) -> str:
    """The SQL of an insert for the driver. An existing row gets the new values if `replace` is true, or else stays."""
    statement: Insert
    if dialect.name == "mysql":
        made = mysql.insert(table)
        columns = [column.name for column in table.columns] if replace else ["id"]
        statement = made.on_duplicate_key_update(**{name: made.inserted[name] for name in columns})
    else:
        upsert = _postgresql_insert(table) if dialect.name == "postgresql" else sqlite.insert(table)
        changes = {column.name: upsert.excluded[column.name] for column in table.columns if column.name != "id"}
        statement = (
            upsert.on_conflict_do_update(index_elements=["id"], set_=changes)
            if replace
            else upsert.on_conflict_do_nothing(index_elements=["id"])
        )
    # exec_driver_sql takes tuples, which is twice as fast as a statement with named values.
    marks = "qmark" if dialect.name == "sqlite" else "format"
    return str(statement.compile(dialect=type(dialect)(paramstyle=marks)))  # type: ignore[call-arg]


def _postgresql_insert(table: Table) -> Any:
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def _times(table: Table) -> tuple[int, ...]:
    return tuple(place for place, column in enumerate(table.columns) if column.name in TIMES)


def _iso(instant: int) -> str:
    return f"{_iso_second(instant // 1000)}.{instant % 1000:03d}000"


@lru_cache(maxsize=64)
def _iso_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"


def _seconds(instant: int) -> datetime:
    """MariaDB's TIMESTAMP has whole seconds, and begins one second after the epoch."""
    return utc(max(1, instant // 1000) * 1000)


_TIMES: dict[str, _Convert] = {"sqlite": _iso, "postgresql": utc, "mariadb": _seconds}
#: the statements that take and give back the lock of migrations
_LOCKS = {
    "postgresql": ("SELECT pg_advisory_lock(:lock)", "SELECT pg_advisory_unlock(:lock)"),
    "mariadb": ("SELECT GET_LOCK(:name, :wait)", "SELECT RELEASE_LOCK(:name)"),
}


def _migrate(connection: Connection) -> None:
    # Alembic takes half a second to load, and is needed only for a new database.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(importlib.resources.files("jobcloud.history") / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
        connection.commit()
    except CommandError as error:
        raise Unusable(f"the database is of a newer version of jobcloud, or damaged: {error}") from error
