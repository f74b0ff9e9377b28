"""The queue: which shards may start now, and in which order.

Of a job only its oldest unfinished firings may run, as many at once as it allows: one, unless it says otherwise; and
never firings of two generations. Of a firing with a listener first
its call before may start, then the shards, then its call after. Order: shards that replace a lost attempt before first
attempts, then priority, then age.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from jobcloud.model import Execution, Firing, Shard, ShardState
from jobcloud.scheduler.retry import AVOID_MS

# A member of an enumeration costs a function call each time it is named, in CPython 3.11.
_READY, _WAITING = Execution.READY, ShardState.WAITING


class Entry(NamedTuple):
    """One shard that may start now."""

    firing_id: str
    item: int


@dataclass(slots=True)
class _Open:
    """A firing that has not ended: its age rank, the shards of it that wait, and how many have not ended."""

    age: int
    firing: Firing
    waiting: dict[int, Shard]
    unended: int

    def startable(self) -> Iterable[tuple[int, Shard]]:
        """(item, shard) of what waits for nothing but room and its back-off."""
        if not self.firing.stepped:
            return self.waiting.items()
        after = len(self.firing.shards) - 1
        if not self.firing.shards[after - 1].state.ended:
            return self._only(after - 1)
        if self.unended > 1 or self.firing.shards[after].state.ended:
            return [(item, shard) for item, shard in self.waiting.items() if item != after]
        return self._only(after)

    def _only(self, item: int) -> Iterable[tuple[int, Shard]]:
        return [(item, self.waiting[item])] if item in self.waiting else ()


class Queue:
    """The firings that have not ended, by job and age. One change costs what it changes, however wide the firing."""

    def __init__(self, at_once: Callable[[str], int] = lambda job: 1) -> None:
        self._at_once = at_once
        self._open: dict[str, _Open] = {}
        #: job → ids of its unfinished firings, oldest first
        self._by_job: dict[str, list[str]] = {}
        #: ids of firings that are among the oldest of their job and have a waiting shard
        self._startable: dict[str, None] = {}
        #: the ends of back-offs, a heap; some may be of shards that no longer wait
        self._back_offs: list[int] = []
        self._added = 0

    def add(self, firing: Firing) -> None:
        """Take in a firing that has not ended."""
        waiting = {i: shard for i, shard in enumerate(firing.shards) if shard.state is ShardState.WAITING}
        unended = sum(not shard.state.ended for shard in firing.shards)
        self._added += 1
        self._by_job.setdefault(firing.job, []).append(firing.id)
        self._open[firing.id] = _Open(self._added, firing, waiting, unended)
        for shard in waiting.values():
            self._note_back_off(shard)
        self.reconsider(firing.job)

    def change(self, firing: Firing, shards: Mapping[int, Shard]) -> bool:
        """`firing` is its new version, in which `shards` are others than before or new; whether it has not ended.

        One that has ended leaves the queue.
        """
        entry = self._open[firing.id]
        before = entry.firing.shards
        for item, shard in shards.items():
            ended = item >= len(before) or before[item].state.ended
            entry.unended -= shard.state.ended - ended
            if shard.state is _WAITING:
                entry.waiting[item] = shard
                self._note_back_off(shard)
            else:
                entry.waiting.pop(item, None)
        entry.firing = firing
        if not entry.waiting:
            self._startable.pop(firing.id, None)
        if not entry.unended:
            self._drop(firing)
        if entry.waiting or not entry.unended:
            self.reconsider(firing.job)
        return entry.unended > 0

    def renew(self, firing: Firing) -> None:
        """`firing` is its new version, in which every shard is in the state that it was in."""
        self._open[firing.id].firing = firing

    def unfinished(self, job: str) -> list[Firing]:
        """The job's firings that have not ended, oldest first."""
        return [self._open[firing_id].firing for firing_id in self._by_job.get(job, ())]

    def eligible(
        self, at: int, allowed: Callable[[str], bool], priority: Callable[[str], int]
    ) -> list[tuple[str, list[int]]]:
        """The shards that may start at `at`, of jobs that are `allowed`, in the order they should: rows of a firing and
        items of it."""
        found: list[tuple[bool, int, int, str, list[int]]] = []
        for entry in self._allowed(allowed):
            again: list[int] = []
            first: list[int] = []
            for item, shard in entry.startable():
                if shard.not_before_ms <= at:
                    (first if shard.execution is _READY else again).append(item)
            rank = -priority(entry.firing.job), entry.age, entry.firing.id
            found += ((is_first, *rank, sorted(row)) for is_first, row in ((False, again), (True, first)) if row)
        found.sort()
        return [(name, items) for _, _, _, name, items in found]

    def any_eligible(self, at: int, allowed: Callable[[str], bool]) -> bool:
        """Whether some shard may start at `at`."""
        found = self._allowed(allowed)
        return any(shard.not_before_ms <= at for entry in found for _, shard in entry.startable())

    def startable(self, firing_id: str) -> list[Shard]:
        """The shards of an unfinished firing that wait for nothing but room and their back-off."""
        return [shard for _, shard in self._open[firing_id].startable()]

    def next_wake(self) -> int | None:
        """The instant at which the next back-off ends; it may be of a shard that no longer waits."""
        return self._back_offs[0] if self._back_offs else None

    def expire_backoffs(self, at: int) -> bool:
        """Whether a back-off has ended since this was last asked."""
        ended = False
        while self._back_offs and self._back_offs[0] <= at:
            heapq.heappop(self._back_offs)
            ended = True
        return ended

    def backing_off(self, at: int, longest: Callable[[str, Shard], int]) -> list[tuple[str, int, Shard]]:
        """(firing, item, shard) of what is to wait, or to stay away from an agent, longer from `at` on than it may be.

        `longest` tells how long a shard of a job may wait; it stays away for AVOID_MS more.
        """
        return [
            (firing_id, item, shard)
            for firing_id, entry in self._open.items()
            for item, shard in entry.waiting.items()
            if (last := max(shard.not_before_ms, shard.avoid_ms - AVOID_MS)) > at
            and last > at + longest(entry.firing.job, shard)
        ]

    def _note_back_off(self, shard: Shard) -> None:
        for until in (shard.not_before_ms, shard.avoid_ms):
            if until:
                heapq.heappush(self._back_offs, until)

    def running(self, job: str) -> list[Firing]:
        """The job's firings that may run now, oldest first."""
        ids = self._by_job.get(job, [])[: self._at_once(job)]
        oldest = self._open[ids[0]].firing.generation if ids else 0
        # What was made from an older configuration is seen to end before anything new starts.
        same = takewhile(lambda firing: firing.generation == oldest, (self._open[name].firing for name in ids))
        return list(same)

    def reconsider(self, job: str) -> None:
        """The job's firings that may run may start their shards, if any wait."""
        for firing in self.running(job):
            if self._open[firing.id].waiting:
                self._startable[firing.id] = None

    def _allowed(self, allowed: Callable[[str], bool]) -> Iterator[_Open]:
        for firing_id in self._startable:
            entry = self._open[firing_id]
            if allowed(entry.firing.job):
                yield entry

    def _drop(self, firing: Firing) -> None:
        del self._open[firing.id]
        ids = self._by_job[firing.job]
        ids.remove(firing.id)
        if not ids:
            del self._by_job[firing.job]

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, firing_id: str) -> bool:
        return firing_id in self._open
