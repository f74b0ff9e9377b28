"""Ranges of numbers or dates, which the shards of a run divide among themselves.

The text of a range is `FIRST..LAST`. Both ends belong to the range. They are whole numbers, or dates such as
`2026-01-31`, or dates relative to the fire time of the run. docs/job-configuration.md describes the form for users.
Dates are days of the calendar without times, so clock changes do not matter.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

from jobcloud.sentences import Told

#: the most characters of the text of a range
MAX_TEXT = 100
#: the most days and months before or after the fire time
MAX_DAYS, MAX_MONTHS = 3_660, 60
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_RELATIVE = re.compile(r"\{fire_time(?P<form>:[^{}]*)?\}(?P<shifts>([+-][0-9]{1,4}[dm])*)")
_SHIFT = re.compile(r"([+-][0-9]+)([dm])")
# The two formats of `{fire_time}`: the day of the fire time, and the first day of its month.
_DAY, _MONTH = "%Y-%m-%d", "%Y-%m-01"
#: the most characters of the text of a part
MAX_PART = 2 * len("-999999999999999999") + len("..")
# 2100 is no leap year, so the years from 2097 to 2103 have no leap day. Ranges of months in these years are the
# shortest. The fire times of such ranges are in the years below.
_FEW_LEAP_YEARS = range(2088, 2106)


class Range(NamedTuple):
    """Whole numbers from `first` to `last`, or the days with these ordinals if `dates` is true."""

    first: int
    last: int
    dates: bool = False

    def __str__(self) -> str:
        if self.dates:
            return f"{date.fromordinal(self.first)}..{date.fromordinal(self.last)}"
        return f"{self.first}..{self.last}"

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def part(self, item: int, count: int) -> Range:
        """Part `item` of `count` parts, which follow each other. If sizes must differ, the first ones are larger by 1.

        A part is empty, with `last` below `first`, if there are more parts than numbers.
        """
        least, larger = divmod(self.size, count)
        first = self.first + item * least + min(item, larger)
        return self._replace(first=first, last=first + least - (item >= larger))


class _End(NamedTuple):
    """An end of a range. If `form` is "", the end is `value`: a number, or the ordinal of a day.

    Otherwise `form` is the format of `{fire_time}`, and the end is `months` and `days` after the day that it gives.
    """

    value: int = 0
    form: str = ""
    months: int = 0
    days: int = 0

    def at(self, day: date) -> int:
        if not self.form:
            return self.value
        if self.form == _DAY:
            return day.toordinal() + self.days
        years, month = divmod(day.year * 12 + day.month - 1 + self.months, 12)
        return date(years, month + 1, 1).toordinal() + self.days


class Ends(NamedTuple):
    """A range before the fire time of a run is known."""

    first: _End
    last: _End
    dates: bool

    def on(self, day: date) -> Range:
        """The range of a run with a fire time on this day.

        Raises ValueError or OverflowError if a day is outside of the years 1 to 9999.
        """
        return Range(self.first.at(day), self.last.at(day), self.dates)

    def at(self, fire_ms: int, zone: tzinfo) -> Range:
        """The range of a run with the fire time `fire_ms`, in ms since 1970, whose day is that in `zone`.

        Raises as `on` does.
        """
        return self.on(datetime.fromtimestamp(fire_ms // 1000, UTC).astimezone(zone).date())

    @property
    def least(self) -> int:
        """The size of the smallest range that these ends can give. Negative or 0 if a range may be empty."""
        months = range(1, 13) if self.first.form == _MONTH else (1,)
        years = _FEW_LEAP_YEARS if self.first.form == _MONTH else (2026,)
        return min(self.on(date(year, month, 1)).size for year in years for month in months)


@lru_cache(maxsize=4096)
def parse(text: str) -> Ends:
    """The ends in the text of a range. Raises ValueError, whose text completes "the range …"."""
    if len(text) > MAX_TEXT:
        raise ValueError(Told(f"has more than {MAX_TEXT} characters", "too_long", most=MAX_TEXT))
    first, dots, last = text.partition("..")
    if not dots:
        problem = f"{text[:40]!r} has no two ends; write FIRST..LAST, such as 1..1000"
        raise ValueError(Told(problem, "range_ends", value=text[:40]))
    ends = _end(first), _end(last)
    kinds = {_kind(end, given) for end, given in zip(ends, (first, last), strict=True)}
    if len(kinds) > 1:
        problem = (
            f"{text[:80]!r} has ends of two kinds, so that its size would vary; give two numbers, two dates, "
            "or two ends with the same {fire_time}"
        )
        raise ValueError(Told(problem, "range_kinds", value=text[:80]))
    found = Ends(*ends, dates=kinds != {"number"})
    if found.least < 1:
        raise ValueError(Told(f"{text[:80]!r} ends before it begins", "range_order", value=text[:80]))
    return found


@lru_cache(maxsize=4096)
def stored(text: str) -> Range:
    """The inverse of `str` for a range. Raises ValueError."""
    return parse(text).on(date(2026, 1, 1))


def _kind(end: _End, text: str) -> str:
    return end.form or ("number" if _NUMBER.fullmatch(text) else "date")


def _end(text: str) -> _End:
    if _NUMBER.fullmatch(text):
        return _End(int(text))
    if _DATE.fullmatch(text):
        try:
            return _End(date.fromisoformat(text).toordinal())
        except ValueError:
            raise ValueError(Told(f"{text!r} is no day of the calendar", "no_day", value=text)) from None
    found = _RELATIVE.fullmatch(text)
    if found is None:
        problem = (
            f"{text[:40]!r} is neither a whole number of at most 18 digits, nor a date such as 2026-01-31, "
            "nor a date such as {fire_time}-7d"
        )
        raise ValueError(Told(problem, "range_end", value=text[:40], example="{fire_time}-7d"))
    form = (found["form"] or f":{_DAY}")[1:]
    if form not in (_DAY, _MONTH):
        problem = f"{form[:40]!r} is no form of a date here; use {_DAY} or {_MONTH}"
        raise ValueError(Told(problem, "range_form", value=form[:40], day=_DAY, month=_MONTH))
    shifts = {"d": 0, "m": 0}
    for amount, unit in _SHIFT.findall(found["shifts"]):
        shifts[unit] += int(amount)
    if abs(shifts["d"]) > MAX_DAYS or abs(shifts["m"]) > MAX_MONTHS:
        problem = f"{text[:40]!r} is too far away; at most {MAX_DAYS}d and {MAX_MONTHS}m are allowed"
        raise ValueError(Told(problem, "range_shift", value=text[:40], days=MAX_DAYS, months=MAX_MONTHS))
    if shifts["m"] and form != _MONTH:
        example = f"{{fire_time:{_MONTH}}}"
        problem = f"{text[:40]!r} counts months from a day; write {example} for the first of a month"
        raise ValueError(Told(problem, "range_months", value=text[:40], example=example))
    return _End(form=form, months=shifts["m"], days=shifts["d"])
