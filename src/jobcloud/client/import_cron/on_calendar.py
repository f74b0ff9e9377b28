"""Calendar expressions of systemd as expressions of the Quartz dialect.

Source: systemd.time(7) of systemd 252, and `systemd-analyze calendar` of it, with which the tests compare.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jobcloud import zones
from jobcloud.cron import FIRST_YEAR, LAST_YEAR

_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_QUARTZ_DAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_WORDS: Final = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "bi-annually": "*-01,07-01 00:00:00",
}
_PART: Final = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?(?:/(\d{1,4}))?")
_MAX_LENGTH: Final = 500


class CalendarError(ValueError):
    """An expression is wrong, or has no counterpart. The text names the part."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int


_YEAR, _MONTH, _DAY = _Field("year", FIRST_YEAR, LAST_YEAR), _Field("month", 1, 12), _Field("day", 1, 31)
_BACK = _Field("day from the end of the month", 1, 28)
_HOUR, _MINUTE, _SECOND = _Field("hour", 0, 23), _Field("minute", 0, 59), _Field("second", 0, 59)


class Converted(NamedTuple):
    """The expression in the Quartz dialect, and the zone that it names, or ""."""

    cron: str
    zone: str


def convert(text: str) -> Converted:
    """The counterpart of an expression of systemd. Raises CalendarError if there is none."""
    if len(text) > _MAX_LENGTH or not text.isascii() or not text.isprintable():
        raise CalendarError("it is too long, or holds characters outside ASCII")
    words = text.split()
    zone = ""
    if len(words) > 1 and _is_zone(words[-1]):
        zone = words.pop()
    if len(words) == 1 and words[0].lower() in _WORDS:
        words = _WORDS[words[0].lower()].split()
    weekdays: set[int] = set()
    if words and words[0][:1].isalpha():
        weekdays = _weekdays(words.pop(0))
    dates = [word for word in words if ":" not in word]
    times = [word for word in words if ":" in word]
    if len(dates) > 1 or len(times) > 1 or (dates and times and words[0] != dates[0]) or not (words or weekdays):
        raise CalendarError(f"{text[:80]!r} is not a calendar expression")
    hours, minutes, seconds = _time(times[0] if times else "00:00:00")
    years, months, days = _date(dates[0] if dates else "*-*-*")
    month_days, week = _days(days, weekdays)
    year = "" if years is None else f" {_text(years, _YEAR)}"
    clock = f"{_text(seconds, _SECOND)} {_text(minutes, _MINUTE)} {_text(hours, _HOUR)}"
    return Converted(f"{clock} {month_days} {_text(months, _MONTH)} {week}{year}", zone)


def _is_zone(word: str) -> bool:
    if (
        not word[:1].isalpha()
        or "," in word
        or word.lower() in _WORDS
        or word[:3].lower() in {day[:3] for day in _WEEKDAYS}
    ):
        return False
    try:
        zones.zone(word)
    except LookupError:
        raise CalendarError(f"{word[:80]!r} is not a known time zone") from None
    return True


def _weekdays(text: str) -> set[int]:
    """The weekdays of a list of names and ranges, from Monday = 0."""
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition(".." if ".." in part else "-")
        low = _weekday(first)
        high = _weekday(last) if dots else low
        if high < low:
            raise CalendarError(f"the weekdays {part[:40]!r} run backwards, which systemd refuses")
        found.update(range(low, high + 1))
    return found


def _weekday(text: str) -> int:
    name = text.lower()
    for number, day in enumerate(_WEEKDAYS):
        if name in (day, day[:3]):
            return number
    raise CalendarError(f"{text[:40]!r} is not a weekday")


def _time(text: str) -> tuple[list[int], list[int], list[int]]:
    parts = text.split(":")
    if len(parts) == 2:
        parts.append("00")
    if len(parts) != 3:
        raise CalendarError(f"{text[:40]!r} is not a time of day")
    if "." in parts[2].replace("..", ""):
        raise CalendarError(f"{text[:40]!r} has parts of seconds; firings are at whole seconds")
    return _values(_HOUR, parts[0]), _values(_MINUTE, parts[1]), _values(_SECOND, parts[2])


class _Days(NamedTuple):
    """Days of the month: counted from its end (1 is the last day) if `back`."""

    values: list[int]
    back: bool


def _date(text: str) -> tuple[list[int] | None, list[int], _Days]:
    left, tilde, from_end = text.partition("~")
    parts = left.split("-") if tilde else text.split("-")
    day = from_end if tilde else parts.pop() if parts else ""
    if len(parts) == 1:
        parts.insert(0, "*")
    if len(parts) != 2 or not day:
        raise CalendarError(f"{text[:40]!r} is not a date")
    years = None if parts[0] == "*" else _values(_YEAR, parts[0])
    days = _Days(_values(_BACK, day), back=True) if tilde else _Days(_values(_DAY, day), back=False)
    return years, _values(_MONTH, parts[1]), days


def _values(field: _Field, text: str) -> list[int]:
    """The values of a component, ascending. Days from the end count down to the last day."""
    if text == "*":
        return list(range(field.low, field.high + 1))
    found: set[int] = set()
    for part in text.split(","):
        parts = _PART.fullmatch(part)
        if not parts:
            raise CalendarError(f"{part[:40]!r} is not usable as {field.name}")
        first, last, step = int(parts[1]), int(parts[2] or parts[1]), int(parts[3] or 1)
        if parts[3] and not parts[2]:
            last = field.low if field is _BACK else field.high
        low, high = (last, first) if field is _BACK else (first, last)
        if field is _BACK and low > high:
            low, high = high, low
        if not field.low <= low <= high <= field.high or not step:
            raise CalendarError(f"{part[:40]!r} is out of range for the {field.name}, {field.low} to {field.high}")
        if field is _SECOND and parts[2] and low == high and not parts[3]:
            raise CalendarError(f"systemd refuses the range {part[:40]!r} of one second")
        if parts[3] and not parts[2] and step > high - low:
            raise CalendarError(f"the step of {part[:40]!r} is larger than its range, which systemd refuses")
        found.update(range(high, low - 1, -step) if field is _BACK else range(low, high + 1, step))
    return sorted(found)


def _days(days: _Days, weekdays: set[int]) -> tuple[str, str]:
    """The day fields of the Quartz dialect. Raises CalendarError if it has no such days."""
    if len(weekdays) in (0, 7):
        if not days.back:
            return _text(days.values, _DAY), "?"
        return ",".join("L" if value == 1 else f"L-{value - 1}" for value in days.values), "?"
    names = ",".join(_QUARTZ_DAYS[day] for day in sorted(weekdays))
    if not days.back and len(days.values) == _DAY.high:
        return "?", names
    first, last = days.values[0], days.values[-1]
    week = days.values == list(range(first, last + 1)) and last - first == 6 and len(weekdays) == 1
    if week and days.back and last == 7:
        return "?", f"{names}L"
    if week and not days.back and first % 7 == 1:
        return "?", f"{names}#{first // 7 + 1}"
    raise CalendarError("a weekday together with days of the month is possible only for one week, as in Mon *-*-01..07")


def _text(values: list[int], field: _Field) -> str:
    """The values as a field of cron."""
    if len(values) == field.high - field.low + 1:
        return "*"
    if len(values) > 2:
        step = values[1] - values[0]
        if values == list(range(values[0], values[-1] + 1, step)):
            return f"{values[0]}-{values[-1]}" + (f"/{step}" if step > 1 else "")
    return ",".join(map(str, values))
