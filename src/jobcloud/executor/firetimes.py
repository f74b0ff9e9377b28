"""The fire times of a DAEMON job, computed on the agent from a table. The scheduler makes the table from the cron text.

This module needs only CPython 3.9 or newer and its standard library, because executors have neither croniter nor
`jobcloud.cron`. `jobcloud.cron.Schedule.table()` makes the table. docs/cron.md describes the rules. Tests compare the
two modules.

The table, in JSON types:

- `version`: 1, or 2 with `special_days`.
- `seconds`, `minutes`, `hours`, `months`, `month_days`, `weekdays` (0 = Sunday): rising lists of whole numbers.
- `years`: a list of the same form, or null for every year.
- `either_day`: true if it is enough that a day is in one of the lists `month_days` and `weekdays`. Otherwise it must be
  in both.
- `special_day`: null, or an object that replaces both lists of days. It has the fields `kind` (last, last_workday,
  nearest_workday, last_weekday, nth_weekday), `n` and `weekday`.
- `special_days`: with version 2 only, a list of such objects, while `special_day` is null. It is enough that a day is
  one of them, or in `month_days`. This list may then be empty, and `weekdays` does not count.
- `zone`: the name of a time zone.
- `run_after_gap`: if true, and the clock jumps over a wall time, this wall time fires at the first instant after the
  gap.
- `repeat_in_fold`: if true, a wall time that occurs twice fires twice.
"""

from __future__ import annotations

import calendar
from bisect import bisect_left
from datetime import date, datetime, timedelta, timezone
from typing import Any, Dict, Iterator, List, Optional, Tuple

from jobcloud import zones

FIRST_YEAR = 1970
LAST_YEAR = 2099

_MINUTE = 60
_DAY = 86_400
# The clock is steady near an instant if it does not change within this distance of the instant. A change moves the
# clock by at most a day, so a change that is farther away affects no wall time within a day of the instant.
_NEAR = 2 * _DAY
_END = calendar.timegm((LAST_YEAR + 1, 1, 1, 0, 0, 0))
_LISTS = {
    "seconds": (0, 59),
    "minutes": (0, 59),
    "hours": (0, 23),
    "months": (1, 12),
    "month_days": (1, 31),
    "weekdays": (0, 6),
    "years": (FIRST_YEAR, LAST_YEAR),
}
_KINDS = {
    "last": (0, 30),
    "last_workday": (0, 30),
    "nearest_workday": (1, 31),
    "last_weekday": (0, 0),
    "nth_weekday": (1, 5),
}


class FireTimes:
    """The fire times of one table: instants in milliseconds since the epoch, strictly rising, until the end of 2099.

    Raises:
        ValueError: the table is damaged or of another version. The message names the field.
    """

    def __init__(self, table: Dict[str, Any]) -> None:
        if not isinstance(table, dict) or table.get("version") not in (1, 2):
            raise ValueError("fire table: version must be 1 or 2; executor and scheduler are of different releases")
        self._seconds = _numbers(table, "seconds")
        self._minutes = _numbers(table, "minutes")
        self._hours = _numbers(table, "hours")
        self._months = frozenset(_numbers(table, "months"))
        self._years = _years(table)
        self._specials = _special_days(table)
        none = self._specials and table.get("month_days") == []
        self._month_days = frozenset([] if none else _numbers(table, "month_days"))
        self._weekdays = frozenset(_numbers(table, "weekdays"))
        self._either_day = _flag(table, "either_day")
        self._combined = table["version"] == 2
        self._run_after_gap = _flag(table, "run_after_gap")
        self._repeat_in_fold = _flag(table, "repeat_in_fold")
        self._zone = _zone(table)

    def next_after(self, after_ms: int) -> Optional[int]:
        """The first fire time after an instant, or None if there is none until the end of 2099."""
        second = max(after_ms // 1000 + 1, 0)
        while second < _END:
            if self._clock_is_steady(second):
                fires, second = self._steady(second)
            else:
                fires, second = self._around_a_change(second)
            if fires is not None:
                return fires * 1000 if fires < _END else None
        return None

    def _offset(self, second: int) -> int:
        return _seconds(datetime.fromtimestamp(second, self._zone).utcoffset())

    def _clock_is_steady(self, second: int) -> bool:
        """Whether the clock does not change near `second`."""
        offset = self._offset(second)
        return all(self._offset(second + near) == offset for near in (-_NEAR, -_DAY, _DAY, _NEAR))

    def _steady(self, second: int) -> Tuple[Optional[int], int]:
        """Search for a fire time on the day of `second`, from `second` on.

        Returns (the fire time or None, the second from which to continue if it is None). The clock must be steady near
        `second`.
        """
        offset = self._offset(second)
        wall = datetime.fromtimestamp(second + offset, timezone.utc)
        if self._is_day(wall.date()):
            time = self._time_from(wall.hour, wall.minute, wall.second)
            if time is not None:
                return calendar.timegm(wall.date().timetuple()) + time - offset, second
        following = self._day_from(wall.date() + timedelta(days=1))
        if following is None:
            return None, _END
        midnight = calendar.timegm(following.timetuple()) - offset
        # If the next day with fire times is more than a day away, the clock may change before it. So continue before
        # that day.
        return None, midnight if midnight - second <= _DAY else max(midnight - _NEAR, second + _DAY)

    def _around_a_change(self, second: int) -> Tuple[Optional[int], int]:
        """Search for a fire time within a day from `second` on, and check each minute of the real clock.

        The real clock has gaps (wall times that it jumps over) and folds (wall times that occur twice). Returns the
        same as `_steady`.
        """
        start = second - second % _MINUTE
        for minute in range(start, start + _DAY, _MINUTE):
            wall = datetime.fromtimestamp(minute, self._zone)
            if self._gap_fires(minute, wall) and minute >= second:
                return minute, second
            if (wall.fold and not self._repeat_in_fold) or not self._is_minute(wall):
                continue
            for tick in self._seconds:
                if minute + tick >= second:
                    return minute + tick, second
        return None, start + _DAY

    def _gap_fires(self, minute: int, wall: datetime) -> bool:
        """Whether the clock has jumped to `wall` at this minute, over a wall time that fires after the gap."""
        before = datetime.fromtimestamp(minute - 1, self._zone)
        gap = _seconds(wall.utcoffset()) - _seconds(before.utcoffset())
        if gap <= 0 or not self._run_after_gap:
            return False
        naive = wall.replace(tzinfo=None)
        return any(self._is_minute(naive - timedelta(seconds=back)) for back in range(_MINUTE, gap + 1, _MINUTE))

    def _is_minute(self, wall: datetime) -> bool:
        return wall.minute in self._minutes and wall.hour in self._hours and self._is_day(wall.date())

    def _is_day(self, day: date) -> bool:
        if day.month not in self._months or (self._years is not None and day.year not in self._years):
            return False
        if self._specials and any(_is_special(day, *special) for special in self._specials):
            return True
        if self._specials:
            return self._combined and day.day in self._month_days
        of_month, of_week = day.day in self._month_days, day.isoweekday() % 7 in self._weekdays
        return of_month or of_week if self._either_day else of_month and of_week

    def _day_from(self, day: date) -> Optional[date]:
        """The first day with fire times, from `day` on; None if there is none until LAST_YEAR."""
        while day.year <= LAST_YEAR:
            if day.month not in self._months or (self._years is not None and day.year not in self._years):
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            elif self._is_day(day):
                return day
            else:
                day += timedelta(days=1)
        return None

    def _time_from(self, hour: int, minute: int, second: int) -> Optional[int]:
        """The first fire time of a day that is not before the given time of day; None if there is none.

        It is in seconds after midnight.
        """
        for at_hour in self._hours[bisect_left(self._hours, hour) :]:
            if at_hour > hour:
                return at_hour * 3600 + self._minutes[0] * 60 + self._seconds[0]
            for at_minute in self._minutes[bisect_left(self._minutes, minute) :]:
                if at_minute > minute:
                    return at_hour * 3600 + at_minute * 60 + self._seconds[0]
                for at_second in self._seconds[bisect_left(self._seconds, second) :]:
                    return at_hour * 3600 + at_minute * 60 + at_second
        return None


def _is_special(day: date, kind: str, n: int, weekday: int) -> bool:
    length = calendar.monthrange(day.year, day.month)[1]
    if kind == "last":
        return day.day == length - n
    if kind == "last_weekday":
        return day.isoweekday() % 7 == weekday and day.day + 7 > length
    if kind == "nth_weekday":
        return day.isoweekday() % 7 == weekday and (day.day - 1) // 7 == n - 1
    target = n if kind == "nearest_workday" else length - n
    return 1 <= target <= length and day == next(_workdays_near(day.replace(day=target)))


def _workdays_near(target: date) -> Iterator[date]:
    """The workdays within two days of `target` and in the same month, the nearest first."""
    for shift in (0, -1, 1, -2, 2):
        day = target + timedelta(days=shift)
        if day.month == target.month and day.isoweekday() <= 5:
            yield day


def _seconds(offset: Optional[timedelta]) -> int:
    if offset is None:
        raise ValueError("a zone without an offset")
    return offset.days * _DAY + offset.seconds


def _numbers(table: Dict[str, Any], name: str) -> List[int]:
    low, high = _LISTS[name]
    values = table.get(name)
    whole = isinstance(values, list) and all(type(value) is int and low <= value <= high for value in values)
    if not whole or not values or values != sorted(set(values)):
        raise ValueError(f"fire table: {name} must be a rising list of whole numbers from {low} to {high}")
    return list(values)


def _years(table: Dict[str, Any]) -> Optional[List[int]]:
    if "years" in table and table["years"] is None:
        return None
    return _numbers(table, "years")


def _flag(table: Dict[str, Any], name: str) -> bool:
    value = table.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"fire table: {name} must be true or false")
    return value


def _special_days(table: Dict[str, Any]) -> List[Tuple[str, int, int]]:
    special = table.get("special_day", {})
    if table["version"] == 1:
        return [] if special is None else [_special_day(special)]
    listed = table.get("special_days")
    if special is not None or not isinstance(listed, list) or not listed:
        raise ValueError("fire table: version 2 must have a list of special_days, and null as special_day")
    return [_special_day(one) for one in listed]


def _special_day(special: Any) -> Tuple[str, int, int]:
    if not isinstance(special, dict) or special.get("kind") not in list(_KINDS):
        raise ValueError(f"fire table: special_day must be null or have a kind of {', '.join(_KINDS)}")
    kind, n, weekday = special["kind"], special.get("n"), special.get("weekday")
    low, high = _KINDS[kind]
    if type(n) is not int or not low <= n <= high:
        raise ValueError(f"fire table: special_day.n must be a whole number from {low} to {high}")
    if type(weekday) is not int or not 0 <= weekday <= 6:
        raise ValueError("fire table: special_day.weekday must be a whole number from 0 to 6")
    return kind, n, weekday


def _zone(table: Dict[str, Any]) -> Any:
    name = table.get("zone")
    if name == "UTC":
        return timezone.utc
    try:
        return zones.zone(name)
    except (LookupError, TypeError):
        text = f"fire table: zone {name!r} is unknown in the time zone database {zones.version()} of this executor"
        raise ValueError(text) from None
