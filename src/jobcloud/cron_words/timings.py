"""All that determines the fire times of a job, in words."""

from __future__ import annotations

from collections.abc import Sequence

from jobcloud.cron import Schedule
from jobcloud.cron_words.sentence import Language, describe
from jobcloud.triggers import After, Every, Once, Timing

_WORDS = {
    Language.EN: (
        "every {}",
        "{} after the end of each run",
        "once, at {}",
        "from {}",
        "until {}",
        "not at {}",
        "not on days of {}",
        "only on days of {}",
        "; ",
    ),
    Language.ZH: (
        "每 {}",
        "每次运行结束后 {}",
        "一次，{}",
        "自 {} 起",
        "至 {} 止",
        "不含 {}",
        "不在日历 {} 的日期",
        "仅在日历 {} 的日期",
        "；",
    ),
}

_MOVED = {
    Language.EN: {
        "next": "moved from other days to the next open day",
        "previous": "moved from other days to the open day before",
    },
    Language.ZH: {"next": "其他日期顺延到下一个可用日", "previous": "其他日期提前到上一个可用日"},
}


def describe_timing(
    timing: Timing,
    start: str,
    end: str,
    blackouts: Sequence[str],
    language: Language = Language.EN,
    *,
    skip_on: Sequence[str] = (),
    only_on: Sequence[str] = (),
    moved: str = "",
) -> str:
    """The triggers one after the other, then the period, the blackouts and the names of calendars, as they are written.

    A day may be one of any of the calendars `only_on`. `moved`: where fire times on excluded days move, `next` or
    `previous`; "" if they do not.
    """
    every, after, once, since, until, excluded, skipped, only, separator = _WORDS[language]
    found = []
    for trigger in timing.triggers:
        if isinstance(trigger, Schedule):
            found.append(describe(trigger, language))
        elif isinstance(trigger, Every):
            found.append(every.format(trigger.text))
        elif isinstance(trigger, After):
            found.append(after.format(trigger.text))
        elif isinstance(trigger, Once):
            found.append(once.format(trigger.text))
    found += [since.format(start)] if start else []
    found += [until.format(end)] if end else []
    found += [excluded.format(", ".join(blackouts))] if blackouts else []
    found += [skipped.format(", ".join(skip_on))] if skip_on else []
    found += [only.format(", ".join(only_on))] if only_on else []
    found += [_MOVED[language][moved]] if moved else []
    return separator.join(found)
