"""Times in the form that Elastic-Job-Cloud writes them."""

from __future__ import annotations

from datetime import datetime, tzinfo

# The names do not depend on the locale of this process.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(instant: int, zone: tzinfo) -> str | None:
    """The text that Gson writes for an instant in milliseconds, such as "Jul 10, 2017 1:05:00 PM"; None for 0."""
    if not instant:
        return None
    moment = datetime.fromtimestamp(instant // 1000, zone)
    hour, half = moment.hour % 12 or 12, "AM" if moment.hour < 12 else "PM"
    return f"{_MONTHS[moment.month - 1]} {moment.day}, {moment.year} {hour}:{moment:%M:%S} {half}"
