"""The fire times of a job that needs more than one cron expression.

A job can have several triggers, a period in which they count, and blackouts and days in which they do not. `Timing`
joins them. It has the methods of `cron.Schedule`, so the timetable, backfills and the planner use both in the same way.
docs/cron.md describes the texts for users.
"""

from jobcloud.triggers.days import MAX_DAYS, Days, parse_days
from jobcloud.triggers.expected import Expected, end_of_day, parse_expected
from jobcloud.triggers.shifts import MAX_SHIFT, Shifted
from jobcloud.triggers.timing import MAX_BLACKOUTS, MAX_TRIGGERS, After, Every, Once, Times, Timing, delay_ms, timing

__all__ = [
    "MAX_BLACKOUTS",
    "MAX_DAYS",
    "MAX_SHIFT",
    "MAX_TRIGGERS",
    "After",
    "Days",
    "Every",
    "Expected",
    "Once",
    "Shifted",
    "Times",
    "Timing",
    "delay_ms",
    "end_of_day",
    "parse_days",
    "parse_expected",
    "timing",
]
