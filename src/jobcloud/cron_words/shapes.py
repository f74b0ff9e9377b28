"""The sets of a schedule, as the parts of a sentence that all languages share."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jobcloud.cron import FIRST_YEAR, LAST_YEAR, DayKind, SpecialDay

#: Up to this number, times of a day are always listed.
_FEW_TIMES: Final = 3
_MOST_TIMES: Final = 8
#: A range of hours with at least this number of values is "every hour from … to …".
_HOURS_OF_A_RANGE: Final = 4
#: An even list with more values has an ellipsis.
_LISTED: Final = 6
_ALL_YEARS: Final = LAST_YEAR - FIRST_YEAR + 1
#: From this day on, some months lack the day.
_RARE_DAY: Final = 29

Values: TypeAlias = tuple[int, ...]
#: hour, minute, second
Time: TypeAlias = tuple[int, int, int]


class Unit(enum.Enum):
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Every:
    """Every `n` units, where `n` divides the next larger unit.

    With `begin` and `end`: from one to the other, on each day. Without: the whole day, counted from 00:00.
    """

    n: int
    unit: Unit
    begin: Time | None = None
    end: Time | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """These times of a day."""

    times: tuple[Time, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """The times whose second, minute and hour are in these sets."""

    seconds: Values
    minutes: Values
    hours: Values


class Days(enum.Enum):
    """Which days of the months a schedule has."""

    ALL = "all"
    OF_MONTH = "of_month"
    OF_WEEK = "of_week"
    EITHER = "either"
    BOTH = "both"
    SPECIAL = "special"
    LISTED = "listed"


class Change(enum.Enum):
    """A fact about times that a change of the clock skips or repeats, if the form of the times does not tell it."""

    GAP_RUNS = "gap_runs"
    GAP_SKIPS = "gap_skips"
    FOLD_TWICE = "fold_twice"
    FOLD_ONCE = "fold_once"


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of the sentence about a schedule. Weekdays count from Sunday = 0.

    `months` is None if all months have firings, and `years` if all years have. `specials` has one day if `days` is
    SPECIAL. If `days` is LISTED, it has one or more, and the days are these and `month_days`, which may be empty.
    `never`: the schedule has no firing.
    """

    clock: Every | Times | Within
    days: Days
    month_days: Values
    weekdays: Values
    specials: tuple[SpecialDay, ...]
    months: Values | None
    years: Values | None
    zone: str
    changes: tuple[Change, ...]
    never: bool

    @classmethod
    def of(cls, table: Mapping[str, Any], *, never: bool) -> Shape:
        """The shape of a table as `cron.Schedule.table` makes it."""
        seconds, minutes, hours, months, month_days, weekdays = (
            tuple(table[name]) for name in ("seconds", "minutes", "hours", "months", "month_days", "weekdays")
        )
        combined = table.get("special_days", [])
        given = combined or ([table["special_day"]] if table["special_day"] else [])
        specials = tuple([SpecialDay(DayKind(one["kind"]), one["n"], one["weekday"]) for one in given])
        special = Days.LISTED if combined else Days.SPECIAL
        years = None if table["years"] is None or len(table["years"]) == _ALL_YEARS else tuple(table["years"])
        clock = _clock(seconds, minutes, hours)
        return cls(
            clock=clock,
            days=special if specials else _days(month_days, weekdays, table["either_day"]),
            month_days=month_days,
            weekdays=weekdays,
            specials=specials,
            months=None if len(months) == 12 else months,
            years=years,
            zone=table["zone"],
            changes=tuple(_changes(clock, table)) if table["zone"] != "UTC" else (),
            never=never,
        )

    @property
    def some_months_lack_the_day(self) -> bool:
        """Whether the schedule has one day a month that some months do not have."""
        if self.days is not Days.SPECIAL:
            return self.days is Days.OF_MONTH and len(self.month_days) == 1 and self.month_days[0] >= _RARE_DAY
        special = self.specials[0]
        if special.kind is DayKind.LAST_WEEKDAY:
            return False
        if special.kind is DayKind.NTH_WEEKDAY:
            return special.n == 5
        return special.n >= _RARE_DAY - (special.kind is not DayKind.NEAREST_WORKDAY)

    @property
    def all_day(self) -> bool:
        """Whether the times are spread over all hours, so that "every day" would add nothing."""
        clock = self.clock
        return (isinstance(clock, Every) and clock.begin is None) or (
            isinstance(clock, Within) and len(clock.hours) == 24
        )


def _clock(seconds: Values, minutes: Values, hours: Values) -> Every | Times | Within:
    """The times of a day."""
    count = len(seconds) * len(minutes) * len(hours)
    if count <= _FEW_TIMES:
        return _times(seconds, minutes, hours)
    begin, end = (hours[0], minutes[0], seconds[0]), (hours[-1], minutes[-1], seconds[-1])
    if len(minutes) == len(seconds) == 1:
        if len(hours) == 24:
            at_zero = not (minutes[0] or seconds[0])
            return Every(1, Unit.HOUR) if at_zero else Within(seconds, minutes, hours)
        if is_run(hours) and len(hours) >= _HOURS_OF_A_RANGE:
            return Every(1, Unit.HOUR, begin, end)
        if step := step_of(hours, 24):
            return Every(step, Unit.HOUR, begin, end)
    for unit, own, larger in ((Unit.MINUTE, minutes, (0,)), (Unit.SECOND, seconds, range(60))):
        # `own` divides the larger unit evenly, and the units below and between do not interrupt the spacing.
        step = step_of(own, 60)
        spaced = len(seconds) == 1 if unit is Unit.MINUTE else tuple(larger) == minutes
        if step and spaced:
            if len(hours) == 24 and begin == (0, 0, 0):
                return Every(step, unit)
            if len(hours) < 24 and is_run(hours):
                return Every(step, unit, begin, end)
    if count <= _MOST_TIMES:
        return _times(seconds, minutes, hours)
    return Within(seconds, minutes, hours)


def _times(seconds: Values, minutes: Values, hours: Values) -> Times:
    return Times(tuple(itertools.product(hours, minutes, seconds)))


def _days(month_days: Values, weekdays: Values, either: bool) -> Days:
    all_month_days, all_weekdays = len(month_days) == 31, len(weekdays) == 7
    if either:
        return Days.ALL if all_month_days or all_weekdays else Days.EITHER
    if all_month_days:
        return Days.ALL if all_weekdays else Days.OF_WEEK
    return Days.OF_MONTH if all_weekdays else Days.BOTH


def _changes(clock: Every | Times | Within, table: Mapping[str, Any]) -> list[Change]:
    """The facts about changes of the clock that the form of the times does not tell.

    A reader expects that repeated work (`_is_repeated`) follows the clock, and that fixed times fire once.
    """
    repeated = _is_repeated(clock)
    found = []
    if table["run_after_gap"] is repeated:
        found.append(Change.GAP_RUNS if repeated else Change.GAP_SKIPS)
    if table["repeat_in_fold"] is not repeated:
        found.append(Change.FOLD_ONCE if repeated else Change.FOLD_TWICE)
    return found


def _is_repeated(clock: Every | Times | Within) -> bool:
    if isinstance(clock, Every):
        return clock.begin is None or clock.unit is not Unit.HOUR or clock.n > 1
    return isinstance(clock, Within) and (len(clock.hours) == 24 or step_of(clock.minutes, 60) > 0)


def is_run(values: Sequence[int]) -> bool:
    """Whether sorted values follow one another without a gap."""
    return values[-1] - values[0] == len(values) - 1


def step_of(values: Values, size: int) -> int:
    """The step of values that are evenly spaced around a field of `size` values from 0; 0 if they are not."""
    if len(values) < 2 or size % len(values):
        return 0
    step = size // len(values)
    return step if values == tuple(range(values[0], size, step)) else 0


def listed(values: Sequence[int], name: Callable[[int], str], span: Callable[[str, str], str]) -> list[str]:
    """The items of a list that names all sorted values. Three or more neighbours become one item, made by `span`.

    A long list with one step larger than 1 keeps its first three values and its last, with "…" between them.
    """
    step = values[1] - values[0] if len(values) > _LISTED else 0
    if step > 1 and tuple(values) == tuple(range(values[0], values[-1] + 1, step)):
        return [*map(name, values[:3]), "…", name(values[-1])]
    items: list[str] = []
    for _, group in itertools.groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        run = [value for _, value in group]
        items += [span(name(run[0]), name(run[-1]))] if len(run) > 2 else map(name, run)
    return items


def week_run(weekdays: Values) -> tuple[int, int] | None:
    """The first and the last of three to six neighbouring weekdays, around the end of the week too; None for others."""
    firsts = [day for day in weekdays if (day - 1) % 7 not in weekdays]
    if len(firsts) != 1 or not 3 <= len(weekdays) <= 6:
        return None
    return firsts[0], (firsts[0] + len(weekdays) - 1) % 7


def from_monday(weekdays: Values) -> list[int]:
    """The weekdays in the order of ISO 8601, in which Monday is the first day."""
    return sorted(weekdays, key=lambda day: (day - 1) % 7)
