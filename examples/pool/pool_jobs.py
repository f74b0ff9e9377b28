"""An application context: expensive resources are opened once per worker and shared by all runs of all its jobs.

Here the resource is a pool of SQLite connections. For another database, only `connect` changes.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import sys
from collections.abc import Iterator

from jobcloud.job import ShardingContext, SimpleJob


class Pool:
    """Connections that threads borrow. A thread waits if all are in use."""

    def __init__(self, database: str, size: int) -> None:
        self._idle: queue.Queue[sqlite3.Connection] = queue.Queue()
        for _ in range(size):
            self._idle.put(sqlite3.connect(database, uri=True, check_same_thread=False, timeout=60))
        self._size = size

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        borrowed = self._idle.get()
        try:
            with borrowed:
                yield borrowed
        finally:
            self._idle.put(borrowed)

    def close(self) -> None:
        for _ in range(self._size):
            self._idle.get().close()


class Count(SimpleJob):
    """The bean: created once with the pool, and run by many shards at the same time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def execute(self, ctx: ShardingContext) -> dict[str, int]:
        with self._pool.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO visits (item) VALUES (?)", (ctx.sharding_item,))
            (visits,) = connection.execute("SELECT count(*) FROM visits").fetchone()
        return {"visits": visits}


@contextlib.contextmanager
def context() -> Iterator[dict[str, SimpleJob]]:
    """The applicationContext: entered before the first run, left when the executor exits."""
    pool = Pool("file:visits.db", size=4)
    print("pool opened", file=sys.__stderr__, flush=True)
    try:
        with pool.connection() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS visits (item INTEGER)")
        yield {"count": Count(pool)}
    finally:
        pool.close()
        print("pool closed", file=sys.__stderr__, flush=True)
