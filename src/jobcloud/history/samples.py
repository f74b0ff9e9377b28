"""Samples: what is registered, runs and waits, once a minute.

The rows of runs and attempts do not tell it, so the leader counts. A sample is a row for the cluster, whose team is "",
and a row for each team that has something. A sum over rows, divided by the number of samples, is a mean. So a row of an
hour holds the sums of its minutes, and the number of them (`condensing`). A minute without a row has no sample: nobody
led, or the sample got lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from jobcloud.config import DIMENSIONS, NOTHING, Resources
from jobcloud.history.steps import MINUTE_MS
from jobcloud.history.tables import Row, prefix, row_id

log = logging.getLogger(__name__)

#: the team of the row of the cluster
CLUSTER: Final = ""


class TeamNumbers(NamedTuple):
    """`disabled`: registered jobs that are disabled, or whose app is. `running_jobs`: jobs with a running attempt."""

    jobs: int = 0
    disabled: int = 0
    running_jobs: int = 0
    running: int = 0
    waiting: int = 0
    runs: int = 0
    used: Resources = NOTHING


class Sample(NamedTuple):
    """The numbers of one instant. `agents`: those that are neither unreachable nor gone. `total`: their resources."""

    agents: int
    total: Resources
    teams: dict[str, TeamNumbers]


class Sampled(NamedTuple):
    """A sample, for the minute that begins at `at`."""

    at: int
    sample: Sample


#: the columns of sums, in the order of the table
COUNTS: Final = ("agents", *TeamNumbers._fields[:-1])
AMOUNTS: Final = tuple(f"{kind}_{name}" for kind in ("used", "total") for name in DIMENSIONS)


def rows_of(event: Sampled) -> Iterator[Row]:
    """The rows of a sample. Two leaders of one minute write the same ids, so one of their samples counts."""
    at, sample = event
    yield (*head(at, MINUTE_MS, CLUSTER), 1, sample.agents, *TeamNumbers()[:-1], *NOTHING, *sample.total)
    for team, numbers in sample.teams.items():
        if any(numbers[:-1]) or any(numbers.used):
            yield (*head(at, MINUTE_MS, team), 1, 0, *numbers[:-1], *numbers.used, *NOTHING)


def head(at: int, step_ms: int, team: str) -> tuple[str, str, int, int]:
    """The first columns of a row: id, team, the beginning of the step, and its length."""
    return prefix(at) + row_id(0, f"{step_ms} {team}")[12:], team, at, step_ms


class Sampler:
    """Takes a sample in each minute. Used by one thread.

    `take` gives the present numbers; None: they are not known now. Then the sampler asks again later in the minute.
    """

    def __init__(self, take: Callable[[], Sample | None], now_ms: Callable[[], int]) -> None:
        self._take = take
        self._now_ms = now_ms
        self._last = -1

    def due(self) -> Sampled | None:
        """The sample of this minute, once."""
        now = self._now_ms()
        minute = now - now % MINUTE_MS
        if minute == self._last:
            return None
        try:
            sample = self._take()
        except Exception:
            log.exception("a sample of the history failed; the next one comes in a minute")
            self._last = minute
            return None
        if sample is None:
            return None
        self._last = minute
        return Sampled(minute, sample)
