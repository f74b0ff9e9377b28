"""The number of registered jobs on each day. The rows of runs do not tell it, so the leader keeps it once a day.

It counts the jobs of the team `default`, for the statistics of Elastic-Job-Cloud's API. A day is one of UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, insert, select

from jobcloud.history.database import Database
from jobcloud.history.tables import marks

_DAY_MS = 86_400_000
_NAME = "jobs "
#: the days that are read at most
MAX_DAYS: Final = 3_650


class Registrations:
    """Used by one thread. `count` gives the number of registered jobs; None: it is unknown now."""

    def __init__(self, count: Callable[[], int | None], now_ms: Callable[[], int]) -> None:
        self._count = count
        self._now_ms = now_ms
        self._kept = -1

    def run(self, database: Database) -> None:
        """Keep the number of this day, if the database does not have it yet."""
        now = self._now_ms()
        day = now - now % _DAY_MS
        if day == self._kept or (count := self._count()) is None:
            return
        name = f"{_NAME}{day:015d}"
        with database.engine.begin() as connection:
            if connection.execute(select(marks.c.value).where(marks.c.name == name)).scalar() is None:
                connection.execute(insert(marks).values(name=name, value=count))
        self._kept = day


def registered(connection: Connection) -> list[tuple[int, int]]:
    """The days (their first instant) whose number is known, oldest first, each with the number."""
    names = select(marks).where(marks.c.name.like(f"{_NAME}%")).order_by(marks.c.name.desc()).limit(MAX_DAYS)
    found = [(int(row.name.removeprefix(_NAME)), row.value) for row in connection.execute(names)]
    return found[::-1]
