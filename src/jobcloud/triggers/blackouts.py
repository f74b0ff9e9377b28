"""Blackouts: times in which no trigger of a job counts.

A blackout is written as weekdays, a span of the day, or both (`SAT,SUN`, `08:00-18:00`, `MON-FRI 22:00-06:00`), or as
dates or times (`2026-12-24`, `2026-12-24/2027-01-01`, `2026-12-24T18:00/2026-12-27T06:00`). Dates include their end,
and times do not. A span that ends before it begins ends on the next day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

from jobcloud.sentences import Told
from jobcloud.triggers import wall

_DAY = 86_400
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_SPAN = re.compile(r"([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_FIX = "write SAT,SUN, 22:00-06:00, MON-FRI 08:00-18:00, 2026-12-24, or 2026-12-24T18:00/2026-12-27T06:00"


@dataclass(frozen=True, slots=True)
class Weekly:
    """A span of the wall clock that begins on each of the `days` (Monday = 0). `start` and `end` are seconds.

    `end` is after `start`, and at most a day after it.
    """

    days: tuple[int, ...]
    start: int
    end: int

    def until(self, second: int, zone: ZoneInfo) -> int:
        """The instant (s) up to which an instant (s) is certainly in the blackout; 0 if it is not in it."""
        local = wall.local_time(second, zone)
        of_day = local.hour * 3_600 + local.minute * 60 + local.second
        for day, since in ((local.weekday(), of_day), ((local.weekday() - 1) % 7, of_day + _DAY)):
            if day in self.days and self.start <= since < self.end:
                return wall.later(zone, second, self.end - since)
        return 0


@dataclass(frozen=True, slots=True)
class Period:
    """From an instant (s) up to another one, which is not included."""

    first: int
    end: int

    def until(self, second: int, zone: ZoneInfo) -> int:
        """The instant (s) up to which an instant (s) is in the blackout; 0 if it is not in it."""
        return self.end if self.first <= second < self.end else 0


Blackout: TypeAlias = Weekly | Period


def parse(text: str, zone: ZoneInfo) -> Blackout:
    """The blackout of a text. Raises ValueError, which names the fix."""
    if text[:1].isdigit() and "-" in text[:5]:
        return _period(text, zone)
    parts = text.upper().split()
    span = _SPAN.fullmatch(parts[-1]) if parts else None
    if not 1 <= len(parts) <= 2 or (len(parts) == 2 and span is None):
        raise ValueError(Told(f"{text[:60]!r} is not a blackout; {_FIX}", "no_blackout", value=text[:60]))
    start, end = (second_of_day(span[1]), second_of_day(span[2])) if span else (0, _DAY)
    if start in (_DAY, end):
        problem = f"{text[:60]!r} has no time between its ends; {_FIX}"
        raise ValueError(Told(problem, "empty_blackout", value=text[:60]))
    days = weekdays("MON-SUN" if span and len(parts) == 1 else parts[0])
    return Weekly(days, start, end if end > start else end + _DAY)


def _period(text: str, zone: ZoneInfo) -> Period:
    first, slash, last = text.strip().partition("/")
    if _DATE.fullmatch(first) and (not slash or _DATE.fullmatch(last)):
        begins = wall.parse_local(f"{first}T00:00")
        ends = wall.parse_local(f"{last or first}T00:00") + timedelta(1)
    elif slash:
        begins, ends = wall.parse_local(first), wall.parse_local(last)
    else:
        raise ValueError(Told(f"{text[:60]!r} has no end; {_FIX}", "no_end", value=text[:60]))
    if ends <= begins:
        problem = f"{text[:60]!r} ends before it begins; put the earlier time first"
        raise ValueError(Told(problem, "ends_early", value=text[:60]))
    return Period(wall.instant_ms(begins, zone) // 1_000, wall.instant_ms(ends, zone) // 1_000)


def second_of_day(text: str) -> int:
    """The second of a time such as `06:00`. Raises ValueError."""
    hour, minute = map(int, text.split(":"))
    if hour > 24 or minute > 59 or (hour == 24 and minute):
        problem = f"{text!r} is not a time of the day; write 00:00 to 24:00"
        raise ValueError(Told(problem, "no_time_of_day", value=text))
    return hour * 3_600 + minute * 60


def weekdays(text: str) -> tuple[int, ...]:
    """The days of a text such as `MON-FRI` or `SAT,SUN`, sorted, with Monday = 0. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, *rest = part.split("-")
        if len(rest) > 1 or not {first, *rest} <= set(_WEEKDAYS):
            problem = f"{part[:40]!r} is not a weekday or a range of weekdays; {_FIX}"
            raise ValueError(Told(problem, "no_weekday", value=part[:40]))
        begin = _WEEKDAYS.index(first)
        found.update((begin + n) % 7 for n in range((_WEEKDAYS.index(rest[-1] if rest else first) - begin) % 7 + 1))
    return tuple(sorted(found))
