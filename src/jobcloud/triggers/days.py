"""Sets of days. Calendars use them to exclude days, or to allow only these days.

A set is written as dates and as ranges of dates, such as `2026-12-24` and `2026-12-28/2027-01-01`. Both ends of a range
belong to it. A day is that of the job's zone, from midnight to midnight.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from jobcloud.cron import END, FIRST_YEAR, LAST_YEAR
from jobcloud.triggers import wall

#: the most days of one set
MAX_DAYS = 5_000
#: the most entries of one list of days
MAX_ENTRIES = 5_000
_ENTRY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:/([0-9]{4}-[0-9]{2}-[0-9]{2}))?", re.ASCII)
_FIX = f"write 2026-12-24 or 2026-12-24/2027-01-01, in the years {FIRST_YEAR} to {LAST_YEAR}"


@dataclass(frozen=True, slots=True)
class Days:
    """A set of days. `first` and `last` are the ends of its ranges as proleptic ordinals, sorted and disjoint."""

    first: tuple[int, ...]
    last: tuple[int, ...]

    def range_of(self, day: int) -> int:
        """The last day of the range that contains a day; 0 if the set does not contain the day."""
        place = bisect_right(self.first, day) - 1
        return self.last[place] if place >= 0 and day <= self.last[place] else 0

    def next_from(self, day: int) -> int:
        """The first day of the set at or after a day; 0 if there is none."""
        if self.range_of(day):
            return day
        place = bisect_right(self.first, day)
        return self.first[place] if place < len(self.first) else 0

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self.first, self.last, strict=True))

    def texts(self) -> tuple[str, ...]:
        """The ranges as people write them."""
        return tuple(_text(*ends) for ends in zip(self.first, self.last, strict=True))


@dataclass(frozen=True, slots=True)
class Inside:
    """A blackout on each day of a set."""

    days: Days = field(repr=False)

    def until(self, second: int, zone: ZoneInfo) -> int:
        """The instant (s) up to which an instant (s) is in the blackout; 0 if it is not in it."""
        last = self.days.range_of(wall.local_time(second, zone).toordinal())
        return _midnight(last + 1, second, zone) if last else 0


@dataclass(frozen=True, slots=True)
class Outside:
    """A blackout on each day that none of some sets contains."""

    sets: tuple[Days, ...] = field(repr=False)

    def until(self, second: int, zone: ZoneInfo) -> int:
        """The instant (s) up to which an instant (s) is in the blackout; 0 if it is not in it."""
        day = wall.local_time(second, zone).toordinal()
        following = min((found for days in self.sets if (found := days.next_from(day))), default=0)
        if following == day or second >= END:
            return 0
        return _midnight(following, second, zone) if following else END


def parse_days(entries: Iterable[str]) -> Days:
    """The set of a list of entries, which may overlap. Raises ValueError, which names the fix."""
    listed = list(islice(entries, MAX_ENTRIES + 1))
    if len(listed) > MAX_ENTRIES:
        raise ValueError(f"has more than {MAX_ENTRIES} entries; at most {MAX_ENTRIES} are allowed")
    ends = [_ends(entry) for entry in listed]
    # Stored days are such a list. A leader reads many of them.
    sorted_already = all(after[0] > before[1] + 1 for before, after in pairwise(ends))
    if sorted_already and sum(last - first + 1 for first, last in ends) <= MAX_DAYS:
        return Days(tuple(first for first, _ in ends), tuple(last for _, last in ends))
    found: set[int] = set()
    for entry, (first, last) in zip(listed, ends, strict=True):
        if last - first >= MAX_DAYS:
            raise ValueError(f"{entry[:40]!r} has more than {MAX_DAYS} days; at most {MAX_DAYS} are allowed")
        found.update(range(first, last + 1))
        if len(found) > MAX_DAYS:
            raise ValueError(f"has more than {MAX_DAYS} days; at most {MAX_DAYS} are allowed")
    return days_of(found)


def days_of(ordinals: Iterable[int]) -> Days:
    """The set of some days."""
    ranges = list(_ranges(sorted(set(ordinals))))
    return Days(tuple(first for first, _ in ranges), tuple(last for _, last in ranges))


def _ends(entry: str) -> tuple[int, int]:
    parts = _ENTRY.fullmatch(entry)
    try:
        days = [date.fromisoformat(part) for part in parts.groups() if part] if parts else []
    except ValueError:
        days = []
    if not days or not all(FIRST_YEAR <= day.year <= LAST_YEAR for day in days):
        raise ValueError(f"{entry[:40]!r} is no day and no range of days; {_FIX}")
    if days[-1] < days[0]:
        raise ValueError(f"{entry[:40]!r} ends before it begins; put the earlier day first")
    return days[0].toordinal(), days[-1].toordinal()


def _ranges(ordinals: list[int]) -> Iterator[tuple[int, int]]:
    first = before = 0
    for day in ordinals:
        if first and day != before + 1:
            yield first, before
        if not first or day != before + 1:
            first = day
        before = day
    if first:
        yield first, before


def _text(first: int, last: int) -> str:
    begin, end = date.fromordinal(first), date.fromordinal(last)
    return begin.isoformat() if first == last else f"{begin.isoformat()}/{end.isoformat()}"


def _midnight(day: int, second: int, zone: ZoneInfo) -> int:
    """The first instant (s) after `second` at which a day begins. In some zones, the clock went back over midnight."""
    begin = datetime.combine(date.fromordinal(day), time())
    first = wall.instant_ms(begin, zone) // 1_000
    return first if first > second else int(begin.replace(tzinfo=zone, fold=1).timestamp())
