"""The fire times of jobs: cron expressions in Quartz or Unix dialect, on the wall clock of a time zone.

The work has three parts. First, this module parses and checks the text. Numbers, names, ranges (also wrapping ones),
steps and lists become plain sets. Quartz weekdays (1 = SUN) become Sunday = 0. A day that no set can express (`L`,
`L-3`, `LW`, `15W`, `6L`, `FRI#2`) becomes a `SpecialDay`. Second, croniter finds the next wall time in these sets.
croniter applies the "either day" rule of Unix, but knows no zones and no special days. Third, this module maps wall
times to instants of the zone, with its gaps and folds. docs/cron.md describes the dialects and the policy for users.

Sources: org.quartz.CronExpression 2.3.2 and 2.5.2 (observed, see tests/data); crontab(5) and the daemon of Debian's
cron 3.0pl1-162 (observed, see tests/data).
"""

from __future__ import annotations

import bisect
import calendar
import copy
import datetime
import enum
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from jobcloud import zones
from jobcloud.sentences import Told

MAX_LENGTH: Final = 256
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2099

_DAY: Final = 86_400
_EPOCH_DAY: Final = datetime.date(1970, 1, 1)
#: The first second after the last year with fire times.
END: Final = calendar.timegm((LAST_YEAR + 1, 1, 1, 0, 0, 0))
_MONTHS: Final = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
# The last weekday of a month in the Quartz dialect, such as 5L or FRIL; L alone too.
_LAST_WEEKDAY: Final = re.compile(r"([A-Z]{3}|\d)?L")
_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronError(ValueError):
    """A cron expression or zone is invalid. The message names the field, the text and the fix."""


class Dialect(enum.Enum):
    """The syntax: Quartz starts with seconds and counts 1 = SUN; Unix has five fields and counts 0 = SUN."""

    QUARTZ = "quartz"
    UNIX = "unix"


class Gap(enum.Enum):
    """Policy for a fixed time that the clock skips: fire at the first instant after the gap, or not at all."""

    RUN_AFTER = "run_after"
    SKIP = "skip"


class Fold(enum.Enum):
    """Policy for a time that occurs twice. AUTO: fixed times fire once, interval-like expressions fire both times."""

    AUTO = "auto"
    ONCE = "once"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its inclusive range, its greatest step, the names of its values, and its dialect.

    Quartz has `/5` for `*/5`, and ranges that wrap around the end of the field, except in years.
    """

    name: str
    low: int
    high: int
    step: int
    names: dict[str, int]
    quartz: bool
    wraps: bool


_QUARTZ_DAYS: Final = {name: n + 1 for n, name in enumerate(_WEEKDAYS)}
_SECONDS: Final = _Field("seconds", 0, 59, 59, {}, True, True)
_MINUTES: Final = _Field("minutes", 0, 59, 59, {}, True, True)
_HOURS: Final = _Field("hours", 0, 23, 23, {}, True, True)
_MONTH_DAYS: Final = _Field("day of month", 1, 31, 31, {}, True, True)
_MONTH: Final = _Field("month", 1, 12, 12, _MONTHS, True, True)
_QUARTZ_WEEKDAYS: Final = _Field("day of week", 1, 7, 7, _QUARTZ_DAYS, True, True)
_YEARS: Final = _Field("year", FIRST_YEAR, LAST_YEAR, LAST_YEAR - FIRST_YEAR, {}, True, False)
# A step of the Unix dialect may be larger than its range. It then selects the lowest value only.
_LONGEST_STEP: Final = 9
_ANY: Final = 10**_LONGEST_STEP - 1
_UNIX: Final = (
    _Field("minutes", 0, 59, _ANY, {}, False, False),
    _Field("hours", 0, 23, _ANY, {}, False, False),
    _Field("day of month", 1, 31, _ANY, {}, False, False),
    _Field("month", 1, 12, _ANY, _MONTHS, False, False),
    _Field("day of week", 0, 7, _ANY, {name: n for n, name in enumerate(_WEEKDAYS)}, False, False),
)


class DayKind(enum.Enum):
    """The kinds of days that no set of numbers can express."""

    LAST = "last"  # n days before the last day
    LAST_WORKDAY = "last_workday"  # the workday nearest to n days before the last day
    NEAREST_WORKDAY = "nearest_workday"  # the workday nearest to day n, within the month
    LAST_WEEKDAY = "last_weekday"  # e.g. the last Friday
    NTH_WEEKDAY = "nth_weekday"  # e.g. the second Friday


@dataclass(frozen=True, slots=True)
class SpecialDay:
    """A rule with at most one day per month.

    The kind determines the meaning of `n`. `weekday` counts from Sunday = 0, and is 0 if the kind has no weekday.
    """

    kind: DayKind
    n: int = 0
    weekday: int = 0

    def day(self, year: int, month: int) -> int | None:
        """The day in that month; None if the month has none (no fifth Friday, no 31st)."""
        first, length = calendar.monthrange(year, month)
        if self.kind is DayKind.LAST_WEEKDAY:
            return length - (first + length - self.weekday) % 7
        if self.kind is DayKind.NTH_WEEKDAY:
            day = 1 + (self.weekday - 1 - first) % 7 + 7 * (self.n - 1)
            return day if day <= length else None
        day = self.n if self.kind is DayKind.NEAREST_WORKDAY else length - self.n
        if not 1 <= day <= length:
            return None
        return day if self.kind is DayKind.LAST else _nearest_workday(first, day, length)


def _nearest_workday(first: int, day: int, length: int) -> int:
    weekday = (first + day - 1) % 7
    if weekday == 5:
        return day - 1 if day > 1 else 3
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


@dataclass(frozen=True, slots=True)
class _Rules:
    """A parsed expression, as sorted sets. Weekdays count from Sunday = 0. If `years` is None, every year matches.

    With `specials`, a day matches if it is one of them or in `month_days`, which may then be empty.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    month_days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    years: tuple[int, ...] | None
    either_day: bool
    specials: tuple[SpecialDay, ...]
    interval: bool


def _values(field: _Field, text: str) -> tuple[int, ...]:
    """The values that a field's text selects, sorted."""
    found: set[int] = set()
    for item in text.split(","):
        found.update(_item(field, item))
    return tuple(sorted(found))


def _item(field: _Field, item: str) -> Iterator[int]:
    span, slash, step_text = item.partition("/")
    step = _step(field, item, step_text) if slash else 1
    if span == "*" or (not span and slash and field.quartz):
        return iter(range(field.low, field.high + 1, step))
    start_text, dash, stop_text = span.partition("-")
    if slash and field.quartz and not field.names.keys().isdisjoint((start_text, stop_text)):
        example = "2-6/2 for MON-FRI/2" if "MON" in field.names else "1-6/2 for JAN-JUN/2"
        raise _bad(field, item, _numbers_for(example))
    start = _number(field, item, start_text)
    if not dash:
        return iter(range(start, field.high + 1, step) if slash else (start,))
    stop = _number(field, item, stop_text)
    if stop >= start:
        return iter(range(start, stop + 1, step))
    if not field.wraps:
        why = "" if field.quartz else ", and Debian's cron would never fire at it"
        text = f"the range runs backwards{why}; put the smaller value first, or list both parts"
        raise _bad(field, item, Told(text, "cron_backwards"))
    size = field.high - field.low + 1
    return ((value - field.low) % size + field.low for value in range(start, stop + size + 1, step))


def _step(field: _Field, item: str, text: str) -> int:
    if not text.isdigit() or len(text) > _LONGEST_STEP or not 1 <= int(text) <= field.step:
        fix = Told(f"a step is a number from 1 to {field.step}, as in */2", "cron_step", most=field.step)
        raise _bad(field, item, fix)
    return int(text)


def _number(field: _Field, item: str, text: str) -> int:
    if text in field.names:
        return field.names[text]
    if text.isdigit() and len(text) <= 4 and field.low <= int(text) <= field.high:
        return int(text)
    low, high, name = field.low, field.high, next(iter(field.names), "")
    fix = Told(f"expected a number from {low} to {high}", "cron_number", low=str(low), high=str(high))
    if name:
        names = f"{fix} or a name such as {name}"
        fix = Told(names, "cron_number_or_name", low=str(low), high=str(high), example=name)
    raise _bad(field, item, fix)


def _numbers_for(example: str) -> Told:
    text = f"Quartz ignores a step after names, so use numbers; write {example}"
    return Told(text, "cron_step_of_names", example=example)


def _bad(field: _Field, text: str, fix: Told) -> CronError:
    problem = f"cron field {field.name}: {text!r} is not usable: {fix}"
    return CronError(
        Told(problem, "cron_field", part=field.name, value=text, why=fix.words.code, **fix.words.parameters)
    )


def _split(text: str, counts: tuple[int, ...], shape: Told) -> list[str]:
    """The fields in upper case. Raises CronError if their number is not one of `counts`; `shape` is the fix."""
    if not isinstance(text, str):
        raise CronError(f"cron expression: expected text, got {type(text).__name__}; write it in quotes")
    if len(text) > MAX_LENGTH:
        problem = f"cron expression: {len(text)} characters, more than {MAX_LENGTH}; split it into two jobs"
        raise CronError(Told(problem, "cron_long", characters=len(text), most=MAX_LENGTH))
    if not text.isascii():
        problem = f"cron expression: {text!r} contains characters outside ASCII; use plain digits, names and signs"
        raise CronError(Told(problem, "cron_ascii", value=text))
    fields = text.upper().replace("\t", " ").split(" ")
    fields = [field for field in fields if field]
    zone = next((one for one in fields if one.startswith(("CRON_TZ=", "TZ="))), "")
    if zone:
        fix = "a cron expression holds no time zone; give it as timeZone (--zone), and leave it out here"
        problem = f"cron expression: {text!r} contains {zone[:80]}; {fix}"
        raise CronError(Told(problem, "cron_zone", value=text, zone=zone[:80]))
    if len(fields) not in counts:
        count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        problem = f"cron expression: {text!r} has {count}; write {shape}"
        raise CronError(Told(problem, "cron_fields", value=text, fields=len(fields), why=shape.words.code))
    return fields


def _quartz_rules(text: str) -> _Rules:
    fields = _split(text, (6, 7), _quartz_shape(text))
    seconds, minutes, hours, days, months, weekdays = fields[:6]
    _check_places(fields)
    if (days == "?") == (weekdays == "?"):
        fix = Told("exactly one of day of month and day of week must be ?", "cron_one_day_field")
        raise _bad(_MONTH_DAYS, f"{days} … {weekdays}", fix)
    if weekdays == "?":
        month_days, specials = _quartz_days(days)
    else:
        special = _special_weekday(weekdays)
        month_days, specials = (() if special else _all(_MONTH_DAYS)), ((special,) if special else ())
    plain_weekdays = "7" if weekdays == "L" else "*" if weekdays == "?" or specials else weekdays
    return _Rules(
        seconds=_values(_SECONDS, seconds),
        minutes=_values(_MINUTES, minutes),
        hours=_values(_HOURS, hours),
        month_days=month_days,
        months=_values(_MONTH, months),
        weekdays=tuple(day - 1 for day in _values(_QUARTZ_WEEKDAYS, plain_weekdays)),
        years=_values(_YEARS, fields[6]) if len(fields) == 7 and fields[6] != "*" else None,
        either_day=False,
        specials=specials,
        interval=any(sign in field for sign in "*/" for field in (minutes, hours)),
    )


def _quartz_shape(text: str) -> Told:
    shape = "6 or 7: seconds minutes hours day-of-month month day-of-week [year], such as 0 0/5 * * * ?"
    words = text.split() if isinstance(text, str) else []
    if len(words) == 5:
        other = f"{shape}; for the five fields of crontab, set cronDialect (--dialect) to unix"
        return Told(other, "quartz_or_crontab")
    if len(words) == 1 and words[0].lower() in _MACROS:
        return Told(f"{shape}; for macros such as @daily, set cronDialect (--dialect) to unix", "quartz_or_macro")
    return Told(shape, "quartz_shape")


def _unix_shape(text: str) -> Told:
    shape = "5: minutes hours day-of-month month day-of-week, such as */5 * * * *"
    if isinstance(text, str) and len(text.split()) in (6, 7):
        other = f"{shape}; for expressions with seconds, set cronDialect (--dialect) to quartz"
        return Told(other, "unix_or_quartz")
    return Told(shape, "unix_shape")


def _all(field: _Field) -> tuple[int, ...]:
    return tuple(range(field.low, field.high + 1))


def _check_places(fields: Sequence[str]) -> None:
    """Raises CronError with a hint if a sign of the day fields stands in another field of the Quartz dialect."""
    for part, text in zip((_SECONDS, _MINUTES, _HOURS), fields, strict=False):
        if "?" in text:
            fix = Told("? stands only in day of month or day of week; * means every value here", "cron_question_mark")
            raise _bad(part, text, fix)
    if "#" in fields[3] or (fields[3] != "L" and _LAST_WEEKDAY.fullmatch(fields[3])):
        text = "a weekday such as FRI#2 or 6L belongs in the day of week, the sixth field; write ? here"
        fix = Told(text, "cron_weekday_place")
        raise _bad(_MONTH_DAYS, fields[3], fix)


def _quartz_days(text: str) -> tuple[tuple[int, ...], tuple[SpecialDay, ...]]:
    """The plain days and the special days of the day-of-month field. Quartz 2.5 has lists of both, such as `1,L`."""
    plain: set[int] = set()
    specials: list[SpecialDay] = []
    for item in text.split(","):
        special = _special_day(item)
        if special is None:
            plain.update(_item(_MONTH_DAYS, item))
        elif special not in specials:
            specials.append(special)
    return tuple(sorted(plain)), tuple(specials)


def _special_day(text: str) -> SpecialDay | None:
    """`L`, `LW`, `L-3`, `L-3W`, `15W`, as one item of the day-of-month field."""
    if not ("L" in text or "W" in text):
        return None
    if text[:1] == "L":
        workday = text.endswith("W")
        offset = text[1:].removesuffix("W")
        number = offset.removeprefix("-")
        if offset and not (offset != number and number.isdigit() and len(number) <= 2 and int(number) <= 30):
            fix = Told("write L, LW, L-3 or L-3W, 0 to 30 days before the last", "cron_last_days")
            raise _bad(_MONTH_DAYS, text, fix)
        return SpecialDay(DayKind.LAST_WORKDAY if workday else DayKind.LAST, n=int(number or 0))
    if text.endswith("W"):
        return SpecialDay(DayKind.NEAREST_WORKDAY, n=_number(_MONTH_DAYS, text, text[:-1]))
    fix = Told("write L, LW, L-3, L-3W or 15W, alone or as items of a list", "cron_special_days")
    raise _bad(_MONTH_DAYS, text, fix)


def _special_weekday(text: str) -> SpecialDay | None:
    """`6L`, `FRIL`, `6#2`, `FRI#2` of the day-of-week field. `L` alone means Saturday and is no special day."""
    day, sign, nth = text.partition("#")
    if sign:
        if nth not in {"1", "2", "3", "4", "5"}:
            fix = Told(
                "# is followed by one number from 1 to 5, as in FRI#2; lists are not possible", "cron_nth_weekday"
            )
            raise _bad(_QUARTZ_WEEKDAYS, text, fix)
        return SpecialDay(DayKind.NTH_WEEKDAY, int(nth), _number(_QUARTZ_WEEKDAYS, text, day) - 1)
    if text.endswith("L") and text != "L":
        return SpecialDay(DayKind.LAST_WEEKDAY, weekday=_number(_QUARTZ_WEEKDAYS, text, text[:-1]) - 1)
    return None


def _unix_rules(text: str) -> _Rules:
    macro = text.strip().lower() if isinstance(text, str) else ""
    if macro.startswith("@") and macro not in _MACROS:
        known = ", ".join(_MACROS)
        problem = f"cron expression: {text[:40]!r} is not a macro; write one of {known}"
        raise CronError(Told(problem, "cron_macro", value=text[:40], values=known))
    minutes, hours, days, months, weekdays = fields = _split(_MACROS.get(macro, text), (5,), _unix_shape(text))
    for part, value in zip(_UNIX, fields, strict=True):
        foreign = any(sign in value for sign in ("?#" if part.names else "?#LW"))
        if foreign or (part is _UNIX[4] and _LAST_WEEKDAY.fullmatch(value)):
            fix = Told(
                "?, #, L and W belong to the quartz dialect, which has seconds first; set cronDialect (--dialect), or "
                "write plain numbers",
                "cron_quartz_signs",
            )
            raise _bad(part, value, fix)
    return _Rules(
        seconds=(0,),
        minutes=_values(_UNIX[0], minutes),
        hours=_values(_UNIX[1], hours),
        month_days=_values(_UNIX[2], days),
        months=_values(_UNIX[3], months),
        weekdays=tuple(sorted({day % 7 for day in _values(_UNIX[4], weekdays)})),
        years=None,
        either_day=not (days.startswith("*") or weekdays.startswith("*")),
        specials=(),
        interval=minutes.startswith("*") or hours.startswith("*"),
    )


def _engine(rules: _Rules) -> croniter:
    """A croniter over the sets. Its order of fields: minutes hours days months weekdays seconds [years]."""
    lists = [
        _text(rules.minutes, 60),
        _text(rules.hours, 24),
        _text(rules.month_days, 0 if rules.either_day else 31),
        _text(rules.months, 12),
        _text(rules.weekdays, 0 if rules.either_day else 7),
        _text(rules.seconds, 60),
    ]
    if rules.specials:
        lists[2:5] = "***"
    elif rules.years is not None:
        lists.append(_text(rules.years, 0))
    return croniter(
        " ".join(lists),
        start_time=0.0,
        day_or=rules.either_day,
        max_years_between_matches=LAST_YEAR - FIRST_YEAR + 1,
    )


def _text(values: tuple[int, ...], size_of_all: int) -> str:
    if len(values) == size_of_all:
        return "*"
    step = values[1] - values[0] if len(values) > 2 else 0
    if step and values == tuple(range(values[0], values[-1] + 1, step)):
        return f"{values[0]}-{values[-1]}/{step}"
    return ",".join(map(str, values))


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of a zone's offset (seconds east of UTC) at an instant (seconds)."""

    at: int
    before: int
    after: int


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = datetime.datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None, "a ZoneInfo always has an offset"
    return offset.days * _DAY + offset.seconds


@lru_cache(maxsize=8192)
def _changes(zone: ZoneInfo, year: int) -> tuple[_Change, ...]:
    """The changes from two days before the start of a year (UTC) to the end of the year."""
    start = calendar.timegm((year, 1, 1, 0, 0, 0)) - 2 * _DAY
    end = calendar.timegm((year + 1, 1, 1, 0, 0, 0))
    found = []
    before = _offset(zone, start)
    for day in range(start, end, _DAY):
        after = _offset(zone, day + _DAY)
        if after != before:
            at = bisect.bisect_left(range(day, day + _DAY), True, key=lambda t, old=before: _offset(zone, t) != old)  # type: ignore[misc]
            found.append(_Change(day + at, before, after))
            before = after
    return tuple(found)


def _year(second: int) -> int:
    return datetime.datetime.fromtimestamp(second, datetime.UTC).year


def _change_before(zone: ZoneInfo, second: int) -> _Change | None:
    """The last change in the two days up to an instant; None if there was none. No fold is longer than two days."""
    recent = [change for change in _changes(zone, _year(second)) if second - 2 * _DAY < change.at <= second]
    return recent[-1] if recent else None


def change_after(zone: ZoneInfo, second: int, until: int) -> _Change | None:
    """The first change with second < at ≤ until."""
    for year in range(_year(second), _year(until) + 1):
        for change in _changes(zone, year):
            if second < change.at <= until:
                return change
    return None


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo:
    """The time zone of a name. Raises CronError."""
    fix = "use a name of the tz database, such as UTC or Europe/Berlin"
    if not isinstance(name, str) or not name.isascii() or len(name) > 64:
        raise CronError(_unknown_zone(str(name)[:64], fix))
    if name.startswith(("right/", "posix/")) or name in {"localtime", "posixrules", "Factory"}:
        problem = f"zone: {name!r} differs between machines, or counts leap seconds; {fix}"
        raise CronError(Told(problem, "unsafe_zone", zone=name))
    try:
        return zones.zone(name)
    except LookupError:
        raise CronError(_unknown_zone(name, fix)) from None


def _unknown_zone(name: str, fix: str) -> Told:
    return Told(f"zone: {name!r} is unknown; {fix}", "unknown_zone", zone=name)


def between(next_after: Callable[[int], int | None], after_ms: int, until_ms: int, limit: int) -> tuple[int, ...]:
    """The first `limit` instants with after < instant ≤ until (ms) of a sequence, ascending."""
    found: list[int] = []
    fires = next_after(after_ms)
    while fires is not None and fires <= until_ms and len(found) < limit:
        found.append(fires)
        fires = next_after(fires)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression in a zone: a finite or infinite sequence of instants in strictly ascending order.

    Instants are milliseconds since the Unix epoch, always whole seconds, in the years 1970 to 2099 (UTC). An expression
    without an instant in these years is valid and never fires.

    A wall time in a gap fires at the first instant after the gap (`Gap.RUN_AFTER`; together, all times of one gap fire
    once), or never (`Gap.SKIP`). A wall time that occurs twice in a fold fires the first time (`Fold.ONCE`) or both
    times (`Fold.BOTH`). Interval-like expressions follow the clock: they do not fire for a gap, and with `Fold.AUTO`
    they fire both times in a fold. A Quartz expression is interval-like if its minutes or hours contain `*` or `/`. A
    Unix expression is interval-like if its minutes or hours start with `*`, as in Vixie cron.
    """

    text: str
    zone: str
    dialect: Dialect
    gap: Gap
    fold: Fold
    _rules: _Rules = field(repr=False)
    _stepper: croniter = field(repr=False, compare=False)
    _clock: ZoneInfo | None = field(repr=False, compare=False)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        zone: str = "UTC",
        dialect: Dialect = Dialect.QUARTZ,
        gap: Gap = Gap.RUN_AFTER,
        fold: Fold = Fold.AUTO,
    ) -> Schedule:
        """The schedule of an expression. Raises CronError if the expression or the zone is invalid."""
        try:
            return _parse(text, zone, dialect, gap, fold)
        except TypeError:
            raise CronError(
                f"cron expression: expected text and a zone name, got {text!r:.40} and {zone!r:.40}"
            ) from None

    def next_after(self, after_ms: int) -> int | None:
        """The first firing (ms) strictly after an instant (ms); None if there is none until the end of 2099."""
        return _first_from(self, max(after_ms // 1000 + 1, 0))

    def between(self, after_ms: int, until_ms: int, limit: int) -> tuple[int, ...]:
        """The first `limit` firings with after < firing ≤ until (ms), ascending."""
        return between(self.next_after, after_ms, until_ms, limit)

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of firings with after < firing ≤ until (ms). Takes some microseconds for each day."""
        first, last = max(after_ms // 1000 + 1, 0), min(until_ms // 1000, END - 1)
        if self._clock is None:
            return self._count_walls(first, last)
        offset, opened = _offset(self._clock, first), first
        change = _change_before(self._clock, first)
        opening = self._opening(change) if change else first + offset
        at_change = change is not None and change.at == first
        found = 0
        while opened <= last:
            change = change_after(self._clock, opened, last)
            end = change.at - 1 if change else last
            found += self._count_walls(max(opening, opened + offset), end + offset)
            # Together, all wall times of a gap fire once, at the first instant after the gap.
            found += at_change and opening < opened + offset and self._gap_fires_alone(opening, opened + offset)
            if change is None:
                break
            offset, opened, opening, at_change = change.after, change.at, self._opening(change), True
        return found

    def _gap_fires_alone(self, begin: int, end: int) -> bool:
        """Whether a gap of the wall clock contains a matching time, and the first wall time after it does not match."""
        return self._count_walls(begin, end - 1) > 0 and not self._count_walls(end, end)

    def _count_walls(self, first: int, last: int) -> int:
        """The number of matching wall times from `first` to `last`, in seconds as if in UTC."""
        if last < first:
            return 0
        rules = self._rules
        a_day = len(rules.hours) * len(rules.minutes) * len(rules.seconds)
        days = sum(map(self._is_day, range(first // _DAY, last // _DAY + 1)))
        before = self._count_of_day(first % _DAY) if self._is_day(first // _DAY) else 0
        behind = a_day - self._count_of_day(last % _DAY + 1) if self._is_day(last // _DAY) else 0
        return days * a_day - before - behind

    def _count_of_day(self, second: int) -> int:
        """The number of matching times of a day before its `second`."""
        rules, hour, minute = self._rules, second // 3600, second // 60 % 60
        found = bisect.bisect_left(rules.hours, hour) * len(rules.minutes) * len(rules.seconds)
        if hour in rules.hours:
            found += bisect.bisect_left(rules.minutes, minute) * len(rules.seconds)
            if minute in rules.minutes:
                found += bisect.bisect_left(rules.seconds, second % 60)
        return found

    def _is_day(self, number: int) -> bool:
        """Whether a day, counted from 1970-01-01, has firings."""
        rules, day = self._rules, _EPOCH_DAY + datetime.timedelta(number)
        if day.month not in rules.months or (rules.years is not None and day.year not in rules.years):
            return False
        if rules.specials:
            return day.day in _days_of(rules, day.year, day.month)
        of_month, of_week = day.day in rules.month_days, day.isoweekday() % 7 in rules.weekdays
        return of_month or of_week if rules.either_day else of_month and of_week

    def table(self) -> dict[str, Any]:
        """The parsed form in JSON types, for `executor.firetimes.FireTimes`. Weekdays count from Sunday = 0.

        The form has version 1, which all executors know, unless several kinds of days are in one list (`1,L`).
        """
        rules, specials = self._rules, [_in_json(special) for special in self._rules.specials]
        alone = len(specials) == 1 and not rules.month_days
        combined = {"special_days": specials} if specials and not alone else {}
        return {
            "version": 2 if combined else 1,
            "seconds": list(rules.seconds),
            "minutes": list(rules.minutes),
            "hours": list(rules.hours),
            "months": list(rules.months),
            "years": None if rules.years is None else list(rules.years),
            "month_days": list(_all(_MONTH_DAYS) if alone else rules.month_days),
            "weekdays": list(rules.weekdays),
            "either_day": rules.either_day,
            "special_day": specials[0] if alone else None,
            **combined,
            "zone": self.zone,
            "run_after_gap": self._run_after_gap,
            "repeat_in_fold": self._repeat_in_fold,
        }

    @property
    def _run_after_gap(self) -> bool:
        return self.gap is Gap.RUN_AFTER and not self._rules.interval

    @property
    def _repeat_in_fold(self) -> bool:
        return self.fold is Fold.BOTH or (self.fold is Fold.AUTO and self._rules.interval)

    def _first_from(self, first: int) -> int | None:
        """The first firing (ms) at or after an instant (s)."""
        if first >= END:
            return None
        fires = self._next_wall(first) if self._clock is None else self._next_in_zone(self._clock, first)
        return None if fires is None or fires >= END else fires * 1000

    def _next_in_zone(self, zone: ZoneInfo, first: int) -> int | None:
        """The first firing (s) at or after an instant (s).

        Between two changes of offset, instants and wall times differ by a constant. So each such period needs one
        search in wall time, from the first wall time that the policy allows (`_opening`). No wall time between
        `searched` and `wall` matches. So a period whose opening lies between them needs no new search.
        """
        offset, opened = _offset(zone, first), first
        change = _change_before(zone, first)
        searched = first + offset
        if change:
            opening = self._opening(change)
            searched = opening if change.at == first else max(searched, opening)
        wall = self._next_wall(searched)
        while True:
            fires = None if wall is None else max(wall - offset, opened)
            change = change_after(zone, opened, min(END, searched - offset + 2 * _DAY if fires is None else fires))
            if change is None:
                return fires
            offset, opened = change.after, change.at
            opening = self._opening(change)
            if opening < searched or (wall is not None and opening > wall):
                searched, wall = opening, self._next_wall(opening)

    def _opening(self, change: _Change) -> int:
        """The first wall time that may fire after a change of offset."""
        gap = change.after > change.before
        keep = self._run_after_gap if gap else not self._repeat_in_fold
        return change.at + (change.before if keep else change.after)

    def _next_wall(self, wall: int) -> int | None:
        """The first matching wall time ≥ wall, both in seconds as if in UTC."""
        if not self._rules.specials:
            return self._step(wall)
        for midnight in self._special_midnights(wall):
            found = self._step(max(wall, midnight))
            if found is not None and found < midnight + _DAY:
                return found
        return None

    def _special_midnights(self, wall: int) -> Iterator[int]:
        """The midnights of the days of an expression with special days, from the day of `wall` on."""
        months, years = self._rules.months, self._rules.years
        start = datetime.datetime.fromtimestamp(wall, datetime.UTC)
        for year in range(start.year, LAST_YEAR + 1) if years is None else years:
            for month in months:
                for day in _days_of(self._rules, year, month) if (year, month) >= (start.year, start.month) else ():
                    if (year, month, day) >= (start.year, start.month, start.day):
                        yield calendar.timegm((year, month, day, 0, 0, 0))

    def _step(self, wall: int) -> int | None:
        # A copy: croniter stores its position in the object, and schedules are shared between threads.
        try:
            found = int(copy.copy(self._stepper).get_next(float, start_time=float(wall - 1)))
        except CroniterBadDateError:
            return None
        return found if found < END + 2 * _DAY else None


def _days_of(rules: _Rules, year: int, month: int) -> list[int]:
    """The days of a month of an expression with special days, ascending."""
    length = calendar.monthrange(year, month)[1]
    days = {day for day in rules.month_days if day <= length}
    return sorted(days | {day for special in rules.specials if (day := special.day(year, month)) is not None})


def _in_json(special: SpecialDay) -> dict[str, Any]:
    return {"kind": special.kind.value, "n": special.n, "weekday": special.weekday}


@lru_cache(maxsize=16384)
def _first_from(schedule: Schedule, first: int) -> int | None:
    """The results are cached: jobs with the same expression are due together and share one search."""
    return schedule._first_from(first)


@lru_cache(maxsize=16384)
def _parse(text: str, zone: str, dialect: Dialect, gap: Gap, fold: Fold) -> Schedule:
    rules = _quartz_rules(text) if dialect is Dialect.QUARTZ else _unix_rules(text)
    clock = None if zone == "UTC" else find_zone(zone)
    return Schedule(text, zone, dialect, gap, fold, rules, _engine(rules), clock)
