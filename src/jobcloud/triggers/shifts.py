"""Fire times that move from an excluded day to the next or the previous open one, at the same wall time."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from jobcloud.cron import LAST_YEAR, between
from jobcloud.triggers import wall
from jobcloud.triggers.days import Days

#: a fire time moves over at most this number of excluded days
MAX_SHIFT: Final = 31
# After this number of open days without a fire time, one after the other, the search for the next one ends.
_MAX_DAYS: Final = 1_000
# Steps of the search for an open day.
_MAX_STEPS: Final = 5_000
# Fire times and blackouts that one search for the next fire time looks at. It runs on the scheduler's thread.
_MAX_EXCLUDED: Final = 2_000
_LAST_DAY: Final = date(LAST_YEAR, 12, 31).toordinal()


class _Timing(Protocol):
    def next_after(self, after_ms: int, steps: Iterator[int] | None = None) -> int | None: ...

    def count(self, after_ms: int, until_ms: int) -> int: ...

    def free_from(self, at_ms: int, steps: Iterator[int] | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class Shifted:
    """The fire times of `times`, each moved to an open day if its day is excluded.

    A day is open if no set of `skipped` has it and, unless `only` is None, one set of `only` has it. `plain` are the
    fire times without those on excluded days. `forward`: to the next open day, otherwise to the previous one. Two that
    move to one instant are one fire time. A moved fire time in a blackout is none, and so is one that would move over
    more than `MAX_SHIFT` days.
    """

    times: _Timing
    plain: _Timing
    skipped: tuple[Days, ...] = field(repr=False)
    only: tuple[Days, ...] | None = field(repr=False)
    forward: bool
    zone: ZoneInfo = field(repr=False)

    def next_after(self, after_ms: int) -> int | None:
        """The first fire time after an instant (ms); None if there is none."""
        day = self._open_from(wall.local_time(max(after_ms, 0) // 1_000, self.zone).toordinal())
        steps = iter(range(_MAX_EXCLUDED))
        for _ in range(_MAX_DAYS):
            if not day or not operator.length_hint(steps):
                return None
            sources = self._sources(day)
            found = [at for source in sources if (at := self._moved(source, day, after_ms, steps)) is not None]
            if found:
                return min(found)
            day = self._following(day, steps)
        return None

    def between(self, after_ms: int, until_ms: int, limit: int) -> tuple[int, ...]:
        """The first `limit` fire times with after < fire time ≤ until (ms), ascending."""
        return between(self.next_after, after_ms, until_ms, limit)

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of fire times with after < fire time ≤ until (ms). Beyond 1,000, each counts on its own day."""
        first = self.between(after_ms, until_ms, 1_000)
        return len(first) if len(first) < 1_000 else len(first) + self.times.count(first[-1], until_ms)

    def free_from(self, at_ms: int) -> int:
        """The first instant at or after `at_ms` that is in no blackout and on an open day (ms)."""
        return self.plain.free_from(at_ms)

    def _open_from(self, day: int) -> int:
        """The first open day at or after a day; 0 if there is none."""
        for _ in range(_MAX_STEPS):
            if self.only is not None:
                day = min((found for days in self.only if (found := days.next_from(day))), default=0)
            if not 0 < day <= _LAST_DAY:
                return 0
            last = max((days.range_of(day) for days in self.skipped), default=0)
            if not last:
                return day
            day = last + 1
        return 0

    def _is_open(self, day: int) -> bool:
        return not any(days.range_of(day) for days in self.skipped) and (
            self.only is None or any(days.range_of(day) for days in self.only)
        )

    def _sources(self, day: int) -> Iterator[int]:
        """The days whose fire times an open day has: itself, and the excluded days directly before or after it."""
        yield day
        step = -1 if self.forward else 1
        for number in range(1, MAX_SHIFT + 1):
            source = day + step * number
            if not 0 < source <= _LAST_DAY or self._is_open(source):
                return
            yield source

    def _moved(self, source: int, day: int, after_ms: int, steps: Iterator[int]) -> int | None:
        """The first fire time of the day `source`, moved to `day`, that is after an instant and in no blackout."""
        at_ms = self._start(source) - 1
        local = wall.local_time(max(after_ms, 0) // 1_000, self.zone)
        if local.toordinal() == day:
            at_ms = after_ms if source == day else self._at(source, local) - 1
        for _ in steps:
            following = self.times.next_after(at_ms, steps)
            local = wall.local_time((following or 0) // 1_000, self.zone)
            if following is None or local.toordinal() != source:
                return None
            moved = following if source == day else self._at(day, local)
            free = self.plain.free_from(moved, steps)
            if moved > after_ms and free == moved and operator.length_hint(steps):  # otherwise it was not looked at
                return moved
            at_ms = following
            if free > moved:
                local = wall.local_time(free // 1_000, self.zone)
                if local.toordinal() != day:
                    return None
                at_ms = max(at_ms, self._at(source, local) - 1)
        return None

    def _at(self, day: int, local: datetime) -> int:
        return wall.instant_ms(datetime.combine(date.fromordinal(day), local.time()), self.zone)

    def _start(self, day: int) -> int:
        return wall.instant_ms(datetime.combine(date.fromordinal(day), time()), self.zone)

    def _following(self, day: int, steps: Iterator[int]) -> int:
        """The next open day after a day that may have fire times; 0 if there is none."""
        following = self.times.next_after(self._start(day + 1) - 1, steps)
        if following is None:
            return 0
        source = wall.local_time(following // 1_000, self.zone).toordinal()
        if not self.forward:
            # Its fire times move back to an open day, which is after `day`, or to `day` itself.
            while source > day + 1 and not self._is_open(source):
                source -= 1
        return self._open_from(max(source, day + 1))
