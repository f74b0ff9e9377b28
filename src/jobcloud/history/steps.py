"""A range of time in steps: minutes and hours, which are the same in all zones, or the days of a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from jobcloud import zones
from jobcloud.errors import ConfigError
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import not_valid, such_as

By: TypeAlias = Literal["minute", "hour", "day"]
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
_LENGTHS: Final[dict[By, int]] = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
#: the steps of a range: more than a day of minutes, two months of hours, or four years of days
MAX_STEPS: Final = 1_500


@dataclass(frozen=True, slots=True)
class Steps:
    """`bounds`: the first instant of each step, and the end of the last one. Empty without a step."""

    by: By
    bounds: tuple[int, ...]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The first instant and the end of each step."""
        return list(zip(self.bounds, self.bounds[1:], strict=False))


def steps_of(by: By, since: int, until: int, zone: str = "UTC") -> Steps:
    """The whole steps that have an instant from `since` until before `until`.

    `zone` decides when days begin. Raises ConfigError if there are more than MAX_STEPS, or no such zone.
    """
    if (until - since) // _LENGTHS[by] >= MAX_STEPS:
        text = f"has more than {MAX_STEPS:,} steps of a {by} before the end of the range"
        fix = Told("ask for a shorter range, or for longer steps", "longer_steps")
        raise ConfigError(Told(text, "many_steps", most=MAX_STEPS), field="since", fix=fix)
    try:
        days = zones.zone(zone)
    except LookupError:
        problem = not_valid(zone[:100], "is no time zone")
        raise ConfigError(problem, field="zone", fix=such_as("Europe/Berlin")) from None
    if since >= until:
        return Steps(by, ())
    if by == "day":
        return Steps(by, tuple(_midnights(since, until, days)))
    length = _LENGTHS[by]
    first = since - since % length
    return Steps(by, tuple(range(first, until + length, length)[: -(-(until - first) // length) + 1]))


def _midnights(since: int, until: int, zone: Any) -> Iterator[int]:
    """The beginnings of days, from the day of `since` on, and the end of the last day."""
    day = datetime.fromtimestamp(since / 1000, zone).date()
    last = -1
    while last < until:
        # A midnight that a zone skips is the instant at which the clocks change. A zone may skip a whole day.
        found = int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)
        if found > last:
            last = found
            yield found
        day += timedelta(days=1)
