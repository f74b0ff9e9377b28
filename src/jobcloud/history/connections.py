"""Connections to a database that nobody waits for without a limit.

The servers end statements that take too long. A server that hangs ends nothing, so the client has the same limit.
PyMySQL has one for each read from the socket, and psycopg's is in `patient_psycopg`. SQLite asks a function of ours
while it works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

_CONNECT_S = 5
# The instructions of SQLite's machine between two looks at the clock: about a millisecond.
_SQLITE_STEPS = 20_000


class Limit:
    """How long the use of a connection may take: `seconds` for each statement, or for all that a thread does `once`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._thread = threading.local()

    @contextmanager
    def once(self) -> Iterator[None]:
        """Within the block, all statements of this thread together have the time of one."""
        self._thread.until = time.monotonic() + self.seconds
        try:
            yield
        finally:
            del self._thread.until

    def until(self) -> float:
        """The instant (`time.monotonic`) at which a statement of this thread that begins now must have ended."""
        until: float = getattr(self._thread, "until", time.monotonic() + self.seconds)
        return until

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until()


def make_engine(url: URL, limit: Limit, *, reading: bool, durable: bool = False) -> Engine:
    kind = url.get_backend_name()
    options: dict[str, Any] = {}
    connect_s = min(_CONNECT_S, ceil(limit.seconds))
    if kind == "postgresql":
        settings = f"-c timezone=UTC -c statement_timeout={ceil(limit.seconds * 1000)}"
        options["connect_args"] = {"connect_timeout": connect_s, "options": settings}
    elif kind in ("mariadb", "mysql"):
        options["connect_args"] = {
            "connect_timeout": connect_s,
            "read_timeout": limit.seconds,
            "write_timeout": limit.seconds,
            "charset": "utf8mb4",
            "init_command": f"SET time_zone='+00:00', max_statement_time={limit.seconds}",
        }
    if kind != "sqlite":
        options |= {"pool_size": 4, "max_overflow": 0, "pool_timeout": limit.seconds, "pool_pre_ping": True}
    engine = create_engine(url, **options)
    if kind == "sqlite":
        event.listen(engine, "connect", lambda connection, record: _prepare_sqlite(connection, durable=durable))
        event.listen(engine, "begin", _begin_sqlite_read if reading else _begin_sqlite)
        if reading:
            event.listen(engine, "begin", lambda connection: _limit_sqlite(connection, limit))
    else:
        event.listen(engine, "do_connect", lambda dialect, record, args, more: _connect(dialect, args, more, limit))
    return engine


def _connect(dialect: Any, args: Any, more: dict[str, Any], limit: Limit) -> Any:
    """Connect, unless a connection that the server left has used up the time. Called by SQLAlchemy."""
    if limit.over:
        raise dialect.loaded_dbapi.OperationalError("the server has not answered in time")
    if dialect.driver == "psycopg":
        from jobcloud.history.patient_psycopg import PatientConnection

        connection = PatientConnection.connect(*args, **more)
        connection.limit = limit
        return connection
    return dialect.loaded_dbapi.connect(*args, **more)


def _prepare_sqlite(connection: Any, *, durable: bool) -> None:
    # Otherwise the driver would begin transactions by itself, and end them before DDL.
    connection.isolation_level = None
    synchronous = "FULL" if durable else "NORMAL"
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "busy_timeout=10000", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_sqlite_read(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _limit_sqlite(connection: Connection, limit: Limit) -> None:
    until = limit.until()
    raw: Any = connection.connection.driver_connection
    raw.set_progress_handler(lambda: time.monotonic() >= until, _SQLITE_STEPS)
