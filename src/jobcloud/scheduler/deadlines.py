"""Deadlines for the start: a run is cancelled if none of its shards has started in time (`startDeadlineSeconds`)."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sized

from jobcloud.config import Job
from jobcloud.fields import Unit
from jobcloud.messages import Topic
from jobcloud.model import Firing, ShardState
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks

_WAITING = ShardState.WAITING


class Deadlines(Part):
    """The deadlines of runs that have not started. They are derived from the runs, so no record contains them."""

    def __init__(self, state: State, tasks: Tasks) -> None:
        super().__init__(state)
        self._tasks = tasks
        #: a heap of (deadline, run); the run may have started or ended since
        self._heap: list[tuple[int, str]] = []

    def restore(self, at: int) -> None:
        for firing in self._state.firings.values():
            self._watch(firing)

    def run_added(self, firing: Firing, at: int) -> None:
        self._watch(firing)

    def job_changed(self, job: Job) -> None:
        for firing in self._state.queue.unfinished(job.key):
            self._watch(firing)

    def sweep(self, at: int) -> None:
        """Drop the deadlines of runs that have started or ended."""
        names = {name for _, name in self._heap}
        self._heap = []
        for name in names & self._state.firings.keys():
            self._watch(self._state.firings[name])

    def next_wake(self, at: int) -> int | None:
        return self._heap[0][0] if self._heap else None

    def on_tick(self, at: int) -> None:
        while self._heap and self._heap[0][0] <= at:
            _, name = heapq.heappop(self._heap)
            firing = self._state.firings.get(name)
            if firing is not None and (due := self._deadline(firing)):
                if due <= at:
                    self._state.isolated(firing.job, at, self._cancel, firing, at)
                else:
                    heapq.heappush(self._heap, (due, name))

    def _watch(self, firing: Firing) -> None:
        if due := self._deadline(firing):
            heapq.heappush(self._heap, (due, firing.id))

    def _deadline(self, firing: Firing) -> int:
        """The instant at which the run is cancelled if it has not started by then; 0 if there is none.

        Runs that have started, runs of a backfill and retried runs have no deadline.
        """
        job = self._state.jobs.get(firing.job)
        if job is None or not job.start_deadline_ms or firing.terms.backfill or firing.terms.retried:
            return 0
        begun = any(shard.attempt or shard.state is not _WAITING for shard in firing.chosen)
        return 0 if begun else firing.fire_ms + job.start_deadline_ms + 1

    def _cancel(self, firing: Firing, at: int) -> None:
        limit = Unit.MILLI.text(self._state.jobs[firing.job].start_deadline_ms)
        why = f"no shard has started within {limit} s of the fire time (startDeadlineSeconds)"
        self._state.publish(at, Topic.SKIPPED, f"{firing.id} is cancelled: {why}", job=firing.job, firing_id=firing.id)
        self._tasks.cancel_firing(firing, at, why)

    def indexes(self) -> Mapping[str, Sized]:
        return {"start_deadlines": self._heap}
