"""The queue: which shards may start now, and in which order.

Of a job only its oldest unfinished firing may run, so runs of a job never overlap. Order: shards that replace a lost
attempt before first attempts, then priority, then age.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jobcloud.model import Execution, Firing, ShardState


class Entry(NamedTuple):
    """One shard that may start now."""

    firing_id: str
    item: int


class Queue:
    """The firings that have not ended, by job and age."""

    def __init__(self) -> None:
        #: firing id → its age rank and itself
        self._firings: dict[str, tuple[int, Firing]] = {}
        #: job → ids of its unfinished firings, oldest first
        self._by_job: dict[str, list[str]] = {}
        #: firings with a waiting shard → the first instant at which one of them may start
        self._waiting: dict[str, int] = {}
        self._added = 0

    def put(self, firing: Firing) -> None:
        """Add a firing, replace its former version, or drop it where it has ended."""
        if firing.ended_ms:
            self._drop(firing)
            return
        if firing.id in self._firings:
            age = self._firings[firing.id][0]
        else:
            age = self._added = self._added + 1
            self._by_job.setdefault(firing.job, []).append(firing.id)
        self._firings[firing.id] = age, firing
        starts = [shard.not_before_ms for shard in firing.shards if shard.state is ShardState.WAITING]
        if starts:
            self._waiting[firing.id] = min(starts)
        else:
            self._waiting.pop(firing.id, None)

    def unfinished(self, job: str) -> list[Firing]:
        """The job's firings that have not ended, oldest first."""
        return [self._firings[firing_id][1] for firing_id in self._by_job.get(job, ())]

    def eligible(self, at: int, allowed: Callable[[str], bool], priority: Callable[[str], int]) -> list[Entry]:
        """The shards that may start at `at`, of jobs that are `allowed`, in the order they should."""
        found: list[tuple[bool, int, int, Entry]] = []
        for age, firing in self._startable(at, allowed):
            weight = -priority(firing.job)
            for item, shard in enumerate(firing.shards):
                if shard.state is ShardState.WAITING and shard.not_before_ms <= at:
                    found.append((shard.execution is Execution.READY, weight, age, Entry(firing.id, item)))
        found.sort()
        return [entry for _, _, _, entry in found]

    def any_eligible(self, at: int, allowed: Callable[[str], bool]) -> bool:
        """Whether some shard may start at `at`."""
        return next(self._startable(at, allowed), None) is not None

    def next_wake(self, at: int) -> int | None:
        """The first instant after `at` at which a back-off ends."""
        return min((start for start in self._waiting.values() if start > at), default=None)

    def _startable(self, at: int, allowed: Callable[[str], bool]) -> Iterator[tuple[int, Firing]]:
        for firing_id, start in self._waiting.items():
            age, firing = self._firings[firing_id]
            if start <= at and self._by_job[firing.job][0] == firing_id and allowed(firing.job):
                yield age, firing

    def _drop(self, firing: Firing) -> None:
        if self._firings.pop(firing.id, None) is None:
            return
        self._waiting.pop(firing.id, None)
        ids = self._by_job[firing.job]
        ids.remove(firing.id)
        if not ids:
            del self._by_job[firing.job]

    def __len__(self) -> int:
        return len(self._firings)

    def __contains__(self, firing_id: str) -> bool:
        return firing_id in self._firings
