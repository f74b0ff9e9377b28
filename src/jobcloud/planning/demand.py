"""From crons and run times, or from arrivals and departures, to what runs at once: the day's load and its peak.

A job never runs beside itself: what is due meanwhile waits or is skipped, so a run is all its shards or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from jobcloud.cron import Schedule
from jobcloud.planning.problem import Floats, Int64s, TaskKind
from jobcloud.planning.tables import TaskRow

DAY_MS: Final = 86_400_000
#: A job with more runs than this in the time looked at is taken to run always.
_MOST_RUNS: Final = 20_000


class Span(NamedTuple):
    """A task kind runs from `start_ms` until before `end_ms` with all its copies."""

    start_ms: int
    end_ms: int
    kind: TaskKind


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job as far as planning goes. `schedule` None: it runs always (a resident one).

    `waits`: what is due while a run lasts starts right after it; else it is skipped.
    """

    kind: TaskKind
    schedule: Schedule | None
    run_ms: int
    waits: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What runs over time: from `times`[i] (ms, int64[N]) to the next `amounts`[i] (float64[N, D], thousandths)."""

    times: Int64s
    amounts: Floats
    spans: tuple[Span, ...]

    def peak(self, capacity: Sequence[int]) -> int:
        """The instant (ms) whose load takes the most of any one dimension of `capacity`; the first of several."""
        shares = self.amounts / np.maximum(np.asarray(capacity, dtype=np.float64), 1.0)
        return int(self.times[int(shares.max(axis=1).argmax())]) if len(self.times) else 0

    def at(self, instant_ms: int) -> list[TaskKind]:
        """What runs at an instant."""
        return [span.kind for span in self.spans if span.start_ms <= instant_ms < span.end_ms]


def runs(job: ScheduledJob, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """When a job runs, as [from, until) in ms, of what lies in [start, end); runs that began before are seen."""
    if job.schedule is None:
        return [(start_ms, end_ms)]
    found: list[tuple[int, int]] = []
    fires = job.schedule.next_after(start_ms - job.run_ms - 1)
    while fires is not None and fires < end_ms:
        begins = fires
        until = begins + max(job.run_ms, 1)
        if until > start_ms:
            found.append((max(begins, start_ms), min(until, end_ms)))
        if len(found) > _MOST_RUNS:
            return [(start_ms, end_ms)]
        fires = job.schedule.next_after(until - 1)
        if job.waits:
            missed = job.schedule.next_after(begins)
            fires = until if missed is not None and missed < until else fires
    return found


def spans(jobs: Iterable[ScheduledJob], start_ms: int, end_ms: int) -> list[Span]:
    """All runs of all jobs in [start, end)."""
    return [Span(begin, end, job.kind) for job in jobs for begin, end in runs(job, start_ms, end_ms)]


def row_spans(rows: Iterable[TaskRow], kinds: Iterable[TaskKind]) -> list[Span]:
    """The spans of a table's rows, each with its kind; what never leaves stays until the last event."""
    pairs = list(zip(rows, kinds, strict=True))
    instants = [0.0, *(row.arrive_s for row, _ in pairs), *(row.leave_s for row, _ in pairs if row.leave_s is not None)]
    end = round(max(instants) * 1_000) + 1
    return [
        Span(round(row.arrive_s * 1_000), end if row.leave_s is None else round(row.leave_s * 1_000), kind)
        for row, kind in pairs
    ]


def load(found: Sequence[Span], dimensions: int) -> Load:
    """The sum over time; shared amounts are left out, as they depend on the hosts."""
    changes = np.array([instant for span in found for instant in (span.start_ms, span.end_ms)], dtype=np.int64)
    signed = np.zeros((len(changes), dimensions))
    for n, span in enumerate(found):
        signed[2 * n] = np.multiply(span.kind.request, span.kind.copies)
        signed[2 * n + 1] = -signed[2 * n]
    times, at = np.unique(changes, return_inverse=True)
    steps = np.zeros((len(times), dimensions))
    np.add.at(steps, at, signed)
    amounts: Floats = np.cumsum(steps, axis=0)
    return Load(times, amounts, tuple(found))
