"""Wall-clock times of a zone and the instants to which they belong."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from jobcloud.cron import FIRST_YEAR, LAST_YEAR, change_after
from jobcloud.sentences import Told

_LOCAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)


def parse_local(text: str) -> datetime:
    """The time `2026-12-24T18:00` or `2026-12-24T18:00:30`, without a zone. Raises ValueError with the fix."""
    try:
        if _LOCAL.fullmatch(text) and FIRST_YEAR <= (found := datetime.fromisoformat(text)).year <= LAST_YEAR:
            return found
    except ValueError:
        pass
    problem = f"{text[:40]!r} is not a time of the years {FIRST_YEAR} to {LAST_YEAR}; write 2026-12-24T18:00"
    raise ValueError(Told(problem, "no_local_time", value=text[:40], first=str(FIRST_YEAR), last=str(LAST_YEAR)))


def instant_ms(local: datetime, zone: ZoneInfo) -> int:
    """The instant of a wall time: the first one if the wall clock shows the time twice.

    If the wall clock skips the time, this is the first instant after the gap.
    """
    early, late = (int(local.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if early <= late:
        return early * 1_000
    # In a gap, the rules before the gap give the later instant, and those after it the earlier one.
    change = change_after(zone, late, early)
    assert change is not None, "a gap is a change of the wall clock"
    return change.at * 1_000


def local_time(second: int, zone: tzinfo) -> datetime:
    """The time that the wall clock shows at an instant (s)."""
    return datetime.fromtimestamp(second, zone)


def later(zone: ZoneInfo, second: int, seconds: int) -> int:
    """The instant (s) at which the wall clock has advanced by `seconds`, or an earlier change of the wall clock."""
    end = second + seconds
    change = change_after(zone, second, end - 1)
    return change.at if change is not None else end
