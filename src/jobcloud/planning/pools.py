"""The runs of jobs that name pools. Their shards wait until the pools have free slots.

All jobs that share pools are simulated together, from a day before the planned time. Shards start in the order in
which their runs began to wait. As in the scheduler, the free slots of a pool are kept for a shard that needs more of
them. A run ends with its last shard; the overlap of the job's configuration counts from then on.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, TypeAlias

from jobcloud.planning.demand import DAY_MS, ScheduledJob, Span

Limits: TypeAlias = Mapping[str, int]
"""The slots of each pool."""

#: Jobs of which more groups of shards start are counted as always running.
_MAX_STARTS: Final = 100_000
# The simulation begins at least this long before the planned time, so that what waits then is known.
_LEAD_MS: Final = DAY_MS
_END, _FIRE = 0, 1


@dataclass(slots=True, eq=False)
class _Run:
    """A run with shards that wait (`left`) or run in groups. `number`: its place in the order."""

    job: _Job
    number: int
    left: int
    groups: dict[_Group, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Group:
    """Shards of a run that have started together."""

    run: _Run
    copies: int
    begin_ms: int
    end_ms: int


@dataclass(slots=True, eq=False)
class _Job:
    """A job. `place`: its place among the jobs, which decides about equal instants."""

    config: ScheduledJob
    place: int
    runs: list[_Run] = field(default_factory=list)
    waiting: int = 0
    sleeps: bool = False


class TooManyStarts(Exception):
    """The simulation would take too long."""


def known_slots(job: ScheduledJob, limits: Limits) -> ScheduledJob:
    """The job without the pools whose slots are not known."""
    return replace(job, slots=tuple(entry for entry in job.slots if entry[0] in limits))


def never_starts(job: ScheduledJob, limits: Limits) -> bool:
    """Whether a shard of the job needs more slots than a pool has."""
    return any(number > limits[pool] for pool, number in job.slots)


def groups(jobs: Sequence[ScheduledJob]) -> list[list[ScheduledJob]]:
    """The jobs in groups that share no pool. A job without pools is a group of its own."""
    leaders: dict[str, str] = {}

    def leader(pool: str) -> str:
        while (above := leaders.setdefault(pool, pool)) != pool:
            leaders[pool] = leaders[above]
            pool = above
        return pool

    for job in jobs:
        for pool, _ in job.slots:
            leaders[leader(pool)] = leader(job.slots[0][0])
    found: dict[str | int, list[ScheduledJob]] = {}
    for number, job in enumerate(jobs):
        found.setdefault(leader(job.slots[0][0]) if job.slots else number, []).append(job)
    return list(found.values())


def pooled_spans(jobs: Sequence[ScheduledJob], limits: Limits, start_ms: int, end_ms: int) -> list[Span]:
    """The runs of jobs in [start, end), of which each shard takes its slots of pools. The slots must suffice for one.

    With too many runs, each job counts as always running, with as many shards as the pools admit.
    """
    begin = start_ms - max(_LEAD_MS, *(job.run_ms for job in jobs))
    try:
        found = _Simulation(jobs, limits, end_ms).spans(begin)
    except TooManyStarts:
        always = [
            replace(
                job, kind=replace(job.kind, copies=job.kind.copies * job.at_once), times=None, run_ms=end_ms - begin
            )
            for job in jobs
        ]
        found = _Simulation(always, limits, end_ms).spans(begin)
    seen = [span for span in found if span.end_ms > start_ms and span.start_ms < end_ms]
    return [Span(max(begins, start_ms), min(until, end_ms), kind) for begins, until, kind in seen]


class _Simulation:
    def __init__(self, jobs: Sequence[ScheduledJob], limits: Limits, end_ms: int) -> None:
        self._jobs = [_Job(job, place) for place, job in enumerate(jobs)]
        self._end_ms = end_ms
        self._free = {pool: limits[pool] for job in jobs for pool, _ in job.slots}
        #: the runs with shards that wait, by the slots of a shard
        self._waiting: dict[tuple[tuple[str, int], ...], deque[_Run]] = {}
        self._events: list[tuple[int, int, int, int, _Group | _Job]] = []
        self._numbers = count()
        self._groups: list[_Group] = []

    def spans(self, begin_ms: int) -> list[Span]:
        """All groups of shards. Raises TooManyStarts."""
        for job in self._jobs:
            if job.config.times is None:
                self._begin(job)
            else:
                self._await_firing(job, begin_ms - 1)
        self._start(begin_ms)
        while self._events and (now := self._events[0][0]) < self._end_ms:
            while self._events and self._events[0][0] == now:
                what = heapq.heappop(self._events)[4]
                if isinstance(what, _Group):
                    self._ended(what, now)
                else:
                    self._fires(what, now)
            self._start(now)
        return [
            Span(group.begin_ms, group.end_ms, replace(group.run.job.config.kind, copies=group.copies))
            for group in self._groups
            if group.end_ms > group.begin_ms
        ]

    def _await_firing(self, job: _Job, after_ms: int) -> None:
        fires = job.config.times.next_after(after_ms) if job.config.times else None
        if fires is not None and fires < self._end_ms:
            heapq.heappush(self._events, (fires, _FIRE, job.place, next(self._numbers), job))

    def _fires(self, job: _Job, now: int) -> None:
        config = job.config
        if config.replaces and job.runs:
            self._cut(job.runs[-1], now)
        if len(job.runs) < config.at_once:
            self._begin(job)
        elif job.waiting < config.waiting:
            job.waiting += 1
        # While no further run may start and no firing may wait, firings are skipped until a run ends.
        job.sleeps = len(job.runs) >= config.at_once and job.waiting >= config.waiting and not config.replaces
        if not job.sleeps:
            self._await_firing(job, now)

    def _begin(self, job: _Job) -> None:
        run = _Run(job, next(self._numbers), job.config.kind.copies)
        job.runs.append(run)
        self._waiting.setdefault(job.config.slots, deque()).append(run)

    def _start(self, now: int) -> None:
        """Start the shards for which the pools have room, in the order of their runs."""
        heads = [(queue[0].number, slots) for slots, queue in self._waiting.items()]
        heapq.heapify(heads)
        kept: set[str] = set()
        while heads:
            _, slots = heapq.heappop(heads)
            queue = self._waiting[slots]
            run = queue[0]
            if not any(pool in kept for pool, _ in slots):
                self._launch(run, min(run.left, *(self._free[pool] // number for pool, number in slots)), now)
            if run.left:
                kept.update(pool for pool, number in slots if self._free[pool] < number)
                continue
            queue.popleft()
            if queue:
                heapq.heappush(heads, (queue[0].number, slots))
            else:
                del self._waiting[slots]

    def _launch(self, run: _Run, copies: int, now: int) -> None:
        if not copies:
            return
        if len(self._groups) >= _MAX_STARTS:
            raise TooManyStarts
        config = run.job.config
        until = self._end_ms if config.times is None else now + max(config.run_ms, 1)
        group = _Group(run, copies, now, until)
        run.left -= copies
        run.groups[group] = None
        self._groups.append(group)
        self._take(group, 1)
        heapq.heappush(self._events, (until, _END, run.job.place, next(self._numbers), group))

    def _take(self, group: _Group, sign: int) -> None:
        for pool, number in group.run.job.config.slots:
            self._free[pool] -= sign * number * group.copies

    def _ended(self, group: _Group, now: int) -> None:
        run = group.run
        if group not in run.groups:  # another run has replaced its run
            return
        del run.groups[group]
        self._take(group, -1)
        if not run.groups and not run.left:
            self._run_ended(run, now)

    def _run_ended(self, run: _Run, now: int) -> None:
        job = run.job
        job.runs.remove(run)
        if job.waiting:
            job.waiting -= 1
            self._begin(job)
        if job.sleeps:
            job.sleeps = False
            self._await_firing(job, now - 1)

    def _cut(self, run: _Run, now: int) -> None:
        """End a run that another one replaces."""
        for group in run.groups:
            group.end_ms = now
            self._take(group, -1)
        run.groups.clear()
        if run.left:
            queue = self._waiting[run.job.config.slots]
            queue.remove(run)
            if not queue:
                del self._waiting[run.job.config.slots]
        run.job.runs.remove(run)
