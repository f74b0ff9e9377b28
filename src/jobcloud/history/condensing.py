"""Samples of a minute become samples of an hour after a day. After 90 days they are deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from jobcloud.history.database import Database
from jobcloud.history.samples import AMOUNTS, COUNTS, head
from jobcloud.history.steps import DAY_MS, HOUR_MS, MINUTE_MS
from jobcloud.history.tables import prefix, samples

#: how long samples are kept at a minute, and at an hour
MINUTES_KEPT_MS: Final = DAY_MS
HOURS_KEPT_MS: Final = 90 * DAY_MS
SUMS: Final = ("samples", *COUNTS, *AMOUNTS)


def condense(database: Database, now: int, pressed: Callable[[], bool]) -> bool:
    """Condense each hour that ended more than a day ago, and delete old hours. False if it stopped early."""
    end = prefix((now - MINUTES_KEPT_MS) // HOUR_MS * HOUR_MS)
    of_minutes = (samples.c.step_ms == MINUTE_MS, samples.c.id < end)
    while True:
        if pressed():
            return False
        # One transaction an hour, so a minute is never counted twice.
        with database.engine.begin() as connection:
            first = connection.execute(select(func.min(samples.c.id)).where(*of_minutes)).scalar()
            if first is None:
                break
            _condense_hour(connection, int(first[:12], 16) // HOUR_MS * HOUR_MS)
    with database.engine.begin() as connection:
        connection.execute(delete(samples).where(samples.c.id < prefix(now - HOURS_KEPT_MS)))
    return True


def _condense_hour(connection: Connection, hour: int) -> None:
    table = samples
    within = (table.c.step_ms == MINUTE_MS, table.c.id >= prefix(hour), table.c.id < prefix(hour + HOUR_MS))
    sums = select(table.c.team, *(func.sum(table.c[name]) for name in SUMS)).where(*within).group_by(table.c.team)
    found = [
        dict(zip(table.c.keys(), (*head(hour, HOUR_MS, row[0]), *map(int, row[1:])), strict=True))
        for row in connection.execute(sums)
    ]
    # Minutes that come after their hour was condensed, from the spool of an earlier leader, are left out.
    present = select(table.c.id).where(table.c.step_ms == HOUR_MS, table.c.at_ms == hour, table.c.id >= prefix(hour))
    if not connection.execute(present.limit(1)).scalar():
        connection.execute(insert(table), found)
    connection.execute(delete(table).where(*within))
