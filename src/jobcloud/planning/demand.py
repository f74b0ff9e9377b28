"""The load over a day, and its peak. The input is cron expressions and run times, or arrivals and departures.

The job's configuration (docs/job-configuration.md, "Overlap") governs a firing that comes due while the job runs. Such
a firing runs at the same time, waits, is skipped, or replaces the earlier run. All shards of a run begin and end
together, unless the job names pools (`pools`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from jobcloud.planning.problem import Floats, Int64s, TaskKind
from jobcloud.planning.tables import TaskRow
from jobcloud.triggers import Times

DAY_MS: Final = 86_400_000
#: A job with more simulated runs than this counts as always running.
_MAX_RUNS: Final = 20_000


class Span(NamedTuple):
    """All copies of a task kind run from `start_ms` until just before `end_ms`."""

    start_ms: int
    end_ms: int
    kind: TaskKind


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """The properties of a job that planning needs. `times`: None for a DAEMON job, which always runs.

    `at_once`: the maximum number of concurrent runs. Up to `waiting` further firings wait. All other firings are
    skipped. With `replaces`, a new firing ends the current run instead. `slots`: the slots that a shard takes from each
    pool.
    """

    kind: TaskKind
    times: Times | None
    run_ms: int
    at_once: int = 1
    waiting: int = 0
    replaces: bool = False
    slots: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """The load over time: `amounts`[i] (float64[N, D], thousandths) from `times`[i] (int64[N], ms) to the next time."""

    times: Int64s
    amounts: Floats
    spans: tuple[Span, ...]

    def peak(self, capacity: Sequence[int]) -> int:
        """The instant (ms) with the largest share of any dimension of `capacity`; the earliest if several."""
        shares = self.amounts / np.maximum(np.asarray(capacity, dtype=np.float64), 1.0)
        return int(self.times[int(shares.max(axis=1).argmax())]) if len(self.times) else 0

    def most(self, capacity: Sequence[int]) -> float:
        """The largest share of any dimension of `capacity`."""
        shares = self.amounts / np.maximum(np.asarray(capacity, dtype=np.float64), 1.0)
        return float(shares.max(initial=0.0))

    def at(self, instant_ms: int) -> list[TaskKind]:
        """The task kinds that run at an instant."""
        return [span.kind for span in self.spans if span.start_ms <= instant_ms < span.end_ms]


def runs(job: ScheduledJob, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """The runs of a job within [start, end), as ascending spans [from, until) in ms; they may overlap.

    Also simulates some time before `start`, because runs and waiting firings of that time may reach into the window.
    This time is as long as a full queue takes to run: at most a day, but at least one run.
    """
    if job.times is None:
        return [(start_ms, end_ms)]
    lasts = max(job.run_ms, 1)
    began: list[int] = []
    ended: list[int] = []
    under_way: list[int] = []  # a heap of end times
    waiting, peak = 0, 0

    def begin(at: int) -> None:
        began.append(at)
        ended.append(at + lasts)
        heapq.heappush(under_way, at + lasts)

    def end_until(instant: int) -> None:
        nonlocal waiting
        while under_way and under_way[0] <= instant:
            at = heapq.heappop(under_way)
            if waiting:
                waiting -= 1
                begin(at)

    fires = job.times.next_after(start_ms - max(lasts, min(lasts * (1 + job.waiting), DAY_MS)) - 1)
    while fires is not None and fires < end_ms:
        end_until(fires)
        if job.replaces and under_way:
            under_way.clear()
            ended[-1] = fires
        if len(under_way) < job.at_once:
            begin(fires)
        elif waiting < job.waiting:
            waiting += 1
        peak = max(peak, len(under_way))
        if len(began) > _MAX_RUNS:
            return [(start_ms, end_ms)] * peak
        # While no further run may start and no firing may wait, firings are skipped until a run ends.
        idle = len(under_way) < job.at_once or waiting < job.waiting or job.replaces
        fires = job.times.next_after(fires if idle else under_way[0] - 1)
    end_until(end_ms)
    seen = [pair for pair in zip(began, ended, strict=True) if pair[1] > start_ms and pair[0] < end_ms]
    return [(max(begins, start_ms), min(until, end_ms)) for begins, until in seen]


def spans(jobs: Iterable[ScheduledJob], start_ms: int, end_ms: int) -> list[Span]:
    """All runs of all jobs in [start, end)."""
    return [Span(begin, end, job.kind) for job in jobs for begin, end in runs(job, start_ms, end_ms)]


def row_spans(rows: Iterable[TaskRow], kinds: Iterable[TaskKind]) -> list[Span]:
    """The spans of a table's rows; `kinds`: the kind of each row. Tasks that never leave stay until the last event."""
    pairs = list(zip(rows, kinds, strict=True))
    instants = [0.0, *(row.arrive_s for row, _ in pairs), *(row.leave_s for row, _ in pairs if row.leave_s is not None)]
    end = round(max(instants) * 1_000) + 1
    return [
        Span(round(row.arrive_s * 1_000), end if row.leave_s is None else round(row.leave_s * 1_000), kind)
        for row, kind in pairs
    ]


def load(found: Sequence[Span], dimensions: int) -> Load:
    """The sum of the spans over time. Shared amounts are left out, because they depend on the placement."""
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
