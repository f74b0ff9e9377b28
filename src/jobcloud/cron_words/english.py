"""The sentence about a schedule in English."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from typing import Final

from jobcloud.cron import DayKind, SpecialDay
from jobcloud.cron_words.shapes import (
    Change,
    Days,
    Every,
    Shape,
    Time,
    Times,
    Unit,
    Values,
    Within,
    from_monday,
    listed,
    step_of,
    week_run,
)

_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS: Final = ("", "first", "second", "third", "fourth", "fifth")
_WORKDAY: Final = "workday (Monday to Friday)"
_CHANGES: Final = {
    Change.GAP_RUNS: "times that the clock skips fire after the gap",
    Change.GAP_SKIPS: "times that the clock skips do not fire",
    Change.FOLD_TWICE: "times that the clock repeats fire twice",
    Change.FOLD_ONCE: "times that the clock repeats fire once",
}


def sentence(shape: Shape) -> str:
    """When the schedule fires."""
    parts = [_clock(shape.clock) + _days(shape)]
    if shape.years is not None:
        parts.append(_during(listed(shape.years, str, _span)))
    notes = "; ".join((shape.zone, *(_CHANGES[change] for change in shape.changes)))
    never = "never before the year 2100: " if shape.never else ""
    return f"{never}{', '.join(parts)} ({notes})"


def _clock(clock: Every | Times | Within) -> str:
    if isinstance(clock, Times):
        seconds = any(second for *_, second in clock.times)
        return f"at {_join([_time(time, seconds) for time in clock.times])}"
    if isinstance(clock, Every):
        text = _every(clock.n, clock.unit)
        if clock.begin is None or clock.end is None:
            return text
        seconds = clock.unit is Unit.SECOND or clock.begin[2] > 0
        return f"{text} from {_time(clock.begin, seconds)} to {_time(clock.end, seconds)}"
    return _within(clock)


def _within(clock: Within) -> str:
    """The seconds, minutes and hours, each as a list. Second 0 is not named."""
    seconds, minutes, hours = clock.seconds, clock.minutes, clock.hours
    spaced = step_of(seconds, 60) if seconds[0] == 0 else 0
    parts = []
    if spaced:
        parts.append(_every(spaced, Unit.SECOND))
    elif seconds != (0,):
        parts.append(f"at {_of_unit(Unit.SECOND, seconds)}")
    if len(minutes) == 60 and parts:
        if not spaced:
            parts.append("of each minute")
    elif not parts and minutes[0] == 0 and (step := step_of(minutes, 60)):
        parts.append(_every(step, Unit.MINUTE))
    else:
        parts.append(f"{'of' if parts else 'at'} {_of_unit(Unit.MINUTE, minutes)}")
    if len(hours) < 24:
        parts.append(f"of {_of_unit(Unit.HOUR, hours)}")
    elif len(minutes) < 60:
        parts.append("of each hour")
    return " ".join(parts)


def _days(shape: Shape) -> str:
    names = listed(shape.months, calendar.month_name.__getitem__, _span) if shape.months else []
    months = _join(names) if names else ""
    in_months = f" {_during(names)}" if names else ""
    of_month = f" of {months or 'each month'}"
    if shape.some_months_lack_the_day:
        of_month += ", if the month has it"
    if shape.days is Days.ALL:
        return in_months if shape.all_day else f" every day{in_months}"
    if shape.days is Days.OF_WEEK:
        run = week_run(shape.weekdays)
        text = f", {_span(_WEEKDAYS[run[0]], _WEEKDAYS[run[1]])}" if run else f" on {_weekdays(shape.weekdays)}"
        return text + (f",{in_months}" if run and months else in_months)
    if shape.days is Days.SPECIAL:
        return _special(shape.specials[0]) + of_month
    if shape.days is Days.LISTED:
        plain = [_month_days(shape.month_days)] if shape.month_days else []
        each = [f"on {day}" for day in (*plain, *map(_listed_special, shape.specials))]
        return f" {_join(each)}{of_month}"
    if shape.days is Days.OF_MONTH:
        return f" on {_month_days(shape.month_days)}{of_month}"
    if shape.days is Days.EITHER:
        these = " of these months" if months else ""
        days = f" on {_month_days(shape.month_days)}{of_month}, and also on {_weekdays(shape.weekdays)}"
        return days + these
    return f" on {_weekdays(shape.weekdays)} that fall on {_month_days(shape.month_days)}{of_month}"


def _back(special: SpecialDay) -> str:
    return f"{special.n} day{'s' if special.n > 1 else ''} before the last day"


def _listed_special(special: SpecialDay) -> str:
    """The day, behind the word "on"."""
    if special.kind is DayKind.LAST and special.n:
        return f"the day {_back(special)}"
    return _special(special).removeprefix(" on ")


def _special(special: SpecialDay) -> str:
    back = _back(special)
    match special.kind:
        case DayKind.LAST:
            return f", {back}" if special.n else " on the last day"
        case DayKind.LAST_WORKDAY:
            near = f" on the {_WORKDAY} of the same month that is nearest to the day {back}"
            return near if special.n else f" on the last {_WORKDAY}"
        case DayKind.NEAREST_WORKDAY:
            return f" on the {_WORKDAY} of the same month that is nearest to day {special.n}"
        case DayKind.LAST_WEEKDAY:
            return f" on the last {_WEEKDAYS[special.weekday]}"
        case DayKind.NTH_WEEKDAY:
            return f" on the {_ORDINALS[special.n]} {_WEEKDAYS[special.weekday]}"


def _during(items: list[str]) -> str:
    """The months or years. A single span, such as "2027 to 2030", has "from" before it."""
    return f"{'from' if len(items) == 1 and ' to ' in items[0] else 'in'} {_join(items)}"


def _weekdays(weekdays: Values) -> str:
    return _join([f"{_WEEKDAYS[day]}s" for day in from_monday(weekdays)])


def _month_days(days: Values) -> str:
    return f"day{'s' if len(days) > 1 else ''} {_join(listed(days, str, _span))}"


def _of_unit(unit: Unit, values: Values) -> str:
    return f"{unit.value}{'s' if len(values) > 1 else ''} {_join(listed(values, str, _span))}"


def _every(n: int, unit: Unit) -> str:
    return f"every {unit.value}" if n == 1 else f"every {n} {unit.value}s"


def _time(time: Time, seconds: bool) -> str:
    hour, minute, second = time
    return f"{hour:02}:{minute:02}:{second:02}" if seconds else f"{hour:02}:{minute:02}"


def _span(first: str, last: str) -> str:
    return f"{first} to {last}"


def _join(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]
