"""The sentence about a schedule in simplified Chinese.

A Chinese sentence goes from the larger to the smaller unit: year, month, day, time.
"""

from __future__ import annotations

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

_WEEKDAYS: Final = "日一二三四五六"
_ORDINALS: Final = "零一二三四五"
_UNITS: Final = {Unit.SECOND: "秒", Unit.MINUTE: "分钟", Unit.HOUR: "小时"}
#: Officially, Chinese workdays also depend on holidays. These do not.
_WORKDAY: Final = "工作日（周一至周五）"
_CHANGES: Final = {
    Change.GAP_RUNS: "时钟跳过的时间在跳过后触发",
    Change.GAP_SKIPS: "时钟跳过的时间不触发",
    Change.FOLD_TWICE: "时钟重复的时间触发两次",
    Change.FOLD_ONCE: "时钟重复的时间只触发一次",
}


def sentence(shape: Shape) -> str:
    """When the schedule fires."""
    years = f"{_list(shape.years)} 年" if shape.years is not None else ""
    parts = [part for part in (years, _days(shape), _clock(shape.clock)) if part]
    text = parts[0]
    for part in parts[1:]:
        text = _spaced(text, part)
    notes = "；".join((shape.zone, *(_CHANGES[change] for change in shape.changes)))
    never = "2100 年之前从不触发：" if shape.never else ""
    return f"{never}{text}（{notes}）"


def _clock(clock: Every | Times | Within) -> str:
    if isinstance(clock, Times):
        seconds = any(second for *_, second in clock.times)
        return "、".join(_time(time, seconds) for time in clock.times)
    if isinstance(clock, Every):
        text = _every(clock.n, clock.unit)
        if clock.begin is None or clock.end is None:
            return text
        seconds = clock.unit is Unit.SECOND or clock.begin[2] > 0
        return f"{_time(clock.begin, seconds)} 至 {_time(clock.end, seconds)} {text}"
    return _within(clock)


def _within(clock: Within) -> str:
    """The hours, minutes and seconds, each as a list. Second 0 is not named."""
    seconds, minutes, hours = clock.seconds, clock.minutes, clock.hours
    spaced = step_of(seconds, 60) if seconds[0] == 0 else 0
    parts = []
    if len(hours) < 24:
        parts.append(f"{_list(hours)} 时内")
    elif len(minutes) < 60:
        parts.append("每小时")
    if len(minutes) == 60 and seconds != (0,):
        if not spaced:
            parts.append("每分钟")
    elif seconds == (0,) and minutes[0] == 0 and (step := step_of(minutes, 60)):
        parts.append(_every(step, Unit.MINUTE))
    else:
        parts.append(f"第 {_list(minutes)} 分")
    if spaced:
        parts.append(_every(spaced, Unit.SECOND))
    elif seconds != (0,):
        parts.append(f"第 {_list(seconds)} 秒")
    return "".join(parts)


def _days(shape: Shape) -> str:
    months = f"{_list(shape.months)} 月" if shape.months else ""
    one_month = shape.months is not None and len(shape.months) == 1
    of_month = "每月" if not months else months if one_month else f"{months}的"
    lacking = "（没有该日的月份不触发）" if shape.some_months_lack_the_day else ""
    if shape.days is Days.ALL:
        return months if shape.all_day else f"{months}每天"
    if shape.days is Days.OF_WEEK:
        return months + _weekdays(shape.weekdays)
    if shape.days is Days.SPECIAL:
        return f"{_special(shape.specials[0], of_month)}{lacking}"
    if shape.days is Days.LISTED:
        plain = [f"{_list(shape.month_days)} 日"] if shape.month_days else []
        return _spaced(of_month, "；".join([*plain, *(_special(special, "") for special in shape.specials)])) + "，"
    days = f"{of_month} {_list(shape.month_days)} 日"
    if shape.days is Days.OF_MONTH:
        return f"{days}{lacking}"
    if shape.days is Days.EITHER:
        return f"{days}，以及{'这些月份的' if months else ''}{_weekdays(shape.weekdays)}，"
    return f"{days}中的{_weekdays(shape.weekdays, each='')}，"


def _special(special: SpecialDay, of_month: str) -> str:
    back = f"{of_month}最后一天的 {special.n} 天前"
    match special.kind:
        case DayKind.LAST:
            return back if special.n else f"{of_month}最后一天"
        case DayKind.LAST_WORKDAY:
            return f"{_spaced('距', back)}最近的同月{_WORKDAY}" if special.n else f"{of_month}最后一个{_WORKDAY}"
        case DayKind.NEAREST_WORKDAY:
            day = f"{of_month} {special.n} 日"
            return f"{_spaced('距', day) if of_month else f'距{day}'}最近的同月{_WORKDAY}"
        case DayKind.LAST_WEEKDAY:
            return f"{of_month}最后一个星期{_WEEKDAYS[special.weekday]}"
        case DayKind.NTH_WEEKDAY:
            return f"{of_month}第{_ORDINALS[special.n]}个星期{_WEEKDAYS[special.weekday]}"


def _weekdays(weekdays: Values, each: str = "每") -> str:
    """For example 周一至周五, 每周一、周三."""
    if run := week_run(weekdays):
        return f"{each}周{_WEEKDAYS[run[0]]}至周{_WEEKDAYS[run[1]]}"
    return each + "、".join(f"周{_WEEKDAYS[day]}" for day in from_monday(weekdays))


def _spaced(text: str, more: str) -> str:
    """Both texts, with a space between a Chinese character and a digit. A full-width sign needs none."""
    return f"{text} {more}" if more[0].isascii() and text[-1] not in "，）" else text + more


def _list(values: Values) -> str:
    return "、".join(listed(values, str, lambda first, last: f"{first} 至 {last}"))


def _every(n: int, unit: Unit) -> str:
    return f"每{_UNITS[unit]}" if n == 1 else f"每 {n} {_UNITS[unit]}"


def _time(time: Time, seconds: bool) -> str:
    hour, minute, second = time
    return f"{hour:02}:{minute:02}:{second:02}" if seconds else f"{hour:02}:{minute:02}"
