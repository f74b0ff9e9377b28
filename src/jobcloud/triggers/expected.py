"""The time of the day by which a run of a job is expected to have succeeded: `06:00`, or `MON-FRI 06:00`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from jobcloud.cron import END, LAST_YEAR
from jobcloud.sentences import Told
from jobcloud.triggers import blackouts, wall

_DAY_S = 86_400
_FIX = "write 06:00, or weekdays and a time, such as MON-FRI 06:00"


@dataclass(frozen=True, slots=True)
class Expected:
    """A `second` of the wall clock on each of the `days` (Monday = 0)."""

    days: tuple[int, ...]
    second: int

    def next_after(self, after_ms: int, zone: ZoneInfo) -> int | None:
        """The first of these times after an instant (ms); None if there is none until the end of 2099."""
        if after_ms >= END * 1_000:
            return None
        midnight = _midnight(after_ms, zone)
        for number in range(9):
            day = midnight + timedelta(number)
            if day.weekday() in self.days and day.year <= LAST_YEAR:
                found = wall.instant_ms(day + timedelta(seconds=self.second), zone)
                if found > after_ms:
                    return found
        return None


def end_of_day(at_ms: int, zone: ZoneInfo) -> int:
    """The last millisecond of the day to which an instant (ms) belongs."""
    return wall.instant_ms(_midnight(at_ms, zone) + timedelta(1), zone) - 1


@lru_cache(maxsize=4_096)
def parse_expected(text: str) -> Expected:
    """Parse the text of `expectedBy`. Raises ValueError, which names the fix."""
    parts = text.upper().split()
    try:
        if not 1 <= len(parts) <= 2 or len(parts[-1]) != len("06:00"):
            raise ValueError
        second = blackouts.second_of_day(parts[-1])
        days = blackouts.weekdays(parts[0] if len(parts) == 2 else "MON-SUN")
        if second == _DAY_S:
            raise ValueError
    except ValueError:
        problem = f"{text[:60]!r} is not a time of the day; {_FIX}"
        raise ValueError(Told(problem, "expected_form", value=text[:60])) from None
    return Expected(days, second)


def _midnight(at_ms: int, zone: ZoneInfo) -> datetime:
    return wall.local_time(max(at_ms, 0) // 1_000, zone).replace(hour=0, minute=0, second=0, tzinfo=None, fold=0)
