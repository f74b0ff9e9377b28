"""The queue decides which shards may start now, and in which order.

Of a job's unfinished firings, only the oldest ones may run, as many as the job allows at the same time. Firings of two
generations never run at the same time. A firing with a listener has three steps: the listener's call before the firing,
the job's own shards, and the listener's call after the firing. A step begins when the one before it has ended.

Of all shards that may start, those that replace a lost attempt come first. In second place, the priority of the firing
decides, and in third place its age. A firing has the priority of its job if its terms set no other one.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from operator import itemgetter
from typing import NamedTuple

from jobcloud.config import MAX_SHARDS
from jobcloud.model import Cause, Execution, Firing, Shard, ShardState
from jobcloud.scheduler.retry import AVOID_MS

# Global names, because an access to an enum member costs a function call in CPython 3.11.
_READY, _WAITING = Execution.READY, ShardState.WAITING
_ALL = range(MAX_SHARDS + 2)


class Entry(NamedTuple):
    """One shard that may start now."""

    firing_id: str
    item: int


class Depth(NamedTuple):
    """The number of shards that wait, and the longest wait.

    `waiting` counts all waiting shards, and `ready` those that wait only for resources. `oldest_ms`: the earliest
    instant since which a ready shard waits; None if none is known. Of each firing, only the lowest ready items are
    looked at.
    """

    waiting: int
    ready: int
    oldest_ms: int | None


class _Open:
    """An unfinished firing.

    `age`: its rank by age; the oldest firing has the lowest. `waiting`: its waiting shards by item. `unended`: the
    number of its shards that have not ended. The items that may start are kept sorted, so that a cycle looks only at
    those that it places.
    """

    __slots__ = ("_backoffs", "_gate", "_latest", "_ready", "age", "firing", "unended", "waiting")

    def __init__(self, age: int, firing: Firing) -> None:
        self.age = age
        self.firing = firing
        self.waiting: dict[int, Shard] = {}
        self.unended = 0
        for item, shard in enumerate(firing.shards):
            if shard.state is _WAITING:
                self.waiting[item] = shard
            self.unended += not shard.state.ended
        #: the items of the current step; without a listener, all items
        self._gate = self._items_of_step() if firing.stepped else _ALL
        #: the items that may start now, sorted: those that replace lost attempts, and the others
        self._ready: tuple[list[int], list[int]] = ([], [])
        #: (end, item) of back-offs as a heap; some may belong to shards that no longer wait
        self._backoffs: list[tuple[int, int]] = []
        #: the latest end of the back-offs that are over
        self._latest = 0
        self._sort()

    def change(self, firing: Firing, shards: Mapping[int, Shard]) -> None:
        """Take over the firing's new version, in which `shards` have changed or are new."""
        before = self.firing.shards
        self.firing = firing
        for item, shard in shards.items():
            ended = item >= len(before) or before[item].state.ended
            self.unended -= shard.state.ended - ended
            if (old := self.waiting.pop(item, None)) is not None:
                self._withdraw(item, old)
            if shard.state is _WAITING:
                self.waiting[item] = shard
                self._file(item, shard)
        if firing.stepped and self._gate != (gate := self._items_of_step()):
            self._gate = gate
            self._sort()

    def startable(self) -> list[Shard]:
        """The shards that wait for nothing but resources and the end of their back-off."""
        return [shard for item, shard in self.waiting.items() if item in self._gate]

    def waiting_since(self, item: int) -> int | None:
        """The instant since which a shard may start. None if this instant is unknown."""
        shard = self.waiting[item]
        if shard.not_before_ms:
            return max(shard.not_before_ms, self.firing.fire_ms)
        return None if shard.attempt and self.firing.cause is Cause.DAEMON else self.firing.fire_ms

    def eligible(self, at: int) -> tuple[Sequence[int], Sequence[int]]:
        """The items that may start at `at`, in two sorted rows: those that replace lost attempts, and the others."""
        while self._backoffs and self._backoffs[0][0] <= at:
            self._latest, item = heapq.heappop(self._backoffs)
            shard = self.waiting.get(item)
            if shard is not None and shard.not_before_ms == self._latest:
                self._withdraw(item, shard)  # the heap may contain an entry twice; then the item is in the row already
                insort(self._ready[shard.execution is _READY], item)
        if at >= self._latest:
            return self._ready
        # The clock was set back after a back-off had ended.
        again, first = ([item for item in row if self.waiting[item].not_before_ms <= at] for row in self._ready)
        return again, first

    def _items_of_step(self) -> range:
        """The items of the current step of a firing with a listener.

        The last item but one is the call before the firing. The last item is the call after it.
        """
        width = len(self.firing.shards)
        if not self.firing.shards[-2].state.ended:
            return range(width - 2, width - 1)
        if self.unended > 1 or self.firing.shards[-1].state.ended:
            return range(width - 1)
        return range(width - 1, width)

    def _sort(self) -> None:
        """Sort all waiting shards into `_ready` and `_backoffs` again."""
        again, first = self._ready = [], []
        self._backoffs, self._latest = [], 0
        for item, shard in self.waiting.items():
            if item not in self._gate:
                continue
            if shard.not_before_ms:
                self._backoffs.append((shard.not_before_ms, item))
            else:
                (first if shard.execution is _READY else again).append(item)
        if self._backoffs or again:
            heapq.heapify(self._backoffs)
            again.sort()
        first.sort()

    def _file(self, item: int, shard: Shard) -> None:
        if item not in self._gate:
            return
        if shard.not_before_ms:
            heapq.heappush(self._backoffs, (shard.not_before_ms, item))
        else:
            insort(self._ready[shard.execution is _READY], item)

    def _withdraw(self, item: int, shard: Shard) -> None:
        row = self._ready[shard.execution is _READY]
        place = bisect_left(row, item)
        if place < len(row) and row[place] == item:
            del row[place]


class Queue:
    """The unfinished firings by job and age. The cost of a change does not grow with the number of shards.

    `at_once` returns how many firings of a job may run at the same time.
    """

    def __init__(self, at_once: Callable[[str], int] = lambda job: 1) -> None:
        self._at_once = at_once
        self._open: dict[str, _Open] = {}
        #: job → ids of its unfinished firings, oldest first
        self._by_job: dict[str, list[str]] = {}
        #: ids of firings that may run and have a waiting shard
        self._startable: dict[str, None] = {}
        #: a heap of the instants at which the back-off of a shard ends, or a shard no longer avoids an agent; it may
        #: contain instants of shards that no longer wait
        self._backoffs: list[int] = []
        self._added = 0

    def add(self, firing: Firing) -> None:
        """Add an unfinished firing."""
        self._added += 1
        self._by_job.setdefault(firing.job, []).append(firing.id)
        self._open[firing.id] = entry = _Open(self._added, firing)
        for shard in entry.waiting.values():
            self._add_backoff(shard)
        self.reconsider(firing.job)

    def change(self, firing: Firing, shards: Mapping[int, Shard]) -> bool:
        """Replace a firing by its new version, in which `shards` have changed or are new.

        Returns whether the firing is unfinished. An ended one leaves the queue.
        """
        entry = self._open[firing.id]
        entry.change(firing, shards)
        for shard in shards.values():
            if shard.state is _WAITING:
                self._add_backoff(shard)
        if not entry.waiting:
            self._startable.pop(firing.id, None)
        if not entry.unended:
            self._drop(firing)
        if entry.waiting or not entry.unended:
            self.reconsider(firing.job)
        return entry.unended > 0

    def renew(self, firing: Firing) -> None:
        """Replace a firing by its new version, in which no shard has changed its state."""
        self._open[firing.id].firing = firing

    def unfinished(self, job: str) -> list[Firing]:
        """The job's unfinished firings, oldest first."""
        return [self._open[firing_id].firing for firing_id in self._by_job.get(job, ())]

    def eligible(
        self, at: int, allowed: Callable[[str], bool], priority: Callable[[Firing], int]
    ) -> list[tuple[str, Sequence[int]]]:
        """The shards of `allowed` jobs that may start at `at`, in the order in which they should start.

        Each row is the id of a firing, and the items to start. A firing may have two rows: one of the shards that
        replace lost attempts, and one of the others. The rows are valid until the queue changes.
        """
        found = [
            (is_first, -priority(entry.firing), entry.age, entry.firing.id, items)
            for entry in self._allowed(allowed)
            for is_first, items in enumerate(entry.eligible(at))
            if items
        ]
        found.sort(key=itemgetter(0, 1, 2))
        return [(name, items) for _, _, _, name, items in found]

    def any_eligible(self, at: int, allowed: Callable[[str], bool]) -> bool:
        """Whether some shard of an allowed job may start at `at`."""
        return any(any(entry.eligible(at)) for entry in self._allowed(allowed))

    def depth(self, at: int, allowed: Callable[[str], bool]) -> Depth:
        """The number of shards that wait at `at`, and of those that are ready.

        A ready shard may start, and its job is `allowed`. The method looks at each firing, but not at each shard.
        """
        rows = [(entry, row) for entry in self._allowed(allowed) for row in entry.eligible(at) if row]
        since = (entry.waiting_since(row[0]) for entry, row in rows)
        return Depth(
            sum(len(entry.waiting) for entry in self._open.values()),
            sum(len(row) for _, row in rows),
            min((instant for instant in since if instant is not None), default=None),
        )

    def startable(self, firing_id: str) -> list[Shard]:
        """The shards of an unfinished firing that wait for nothing but resources and the end of their back-off."""
        return self._open[firing_id].startable()

    def next_wake(self) -> int | None:
        """The next instant at which the back-off of a shard ends, or a shard no longer avoids an agent.

        It may be an instant of a shard that no longer waits.
        """
        return self._backoffs[0] if self._backoffs else None

    def expire_backoffs(self, at: int) -> bool:
        """Drop the instants of `next_wake` that have passed. Returns whether there were any."""
        ended = False
        while self._backoffs and self._backoffs[0] <= at:
            heapq.heappop(self._backoffs)
            ended = True
        return ended

    def backing_off(self, at: int, longest: Callable[[str, Shard], int]) -> list[tuple[str, int, Shard]]:
        """The shards with a back-off that is too long, as (firing, item, shard).

        A back-off is too long if it ends later than one of the maximum length that begins at `at`. `longest` returns
        the maximum length for a job and a shard. A shard avoids an agent until AVOID_MS after its back-off, so its
        `avoid_ms` also shows when the back-off ends.
        """
        return [
            (firing_id, item, shard)
            for firing_id, entry in self._open.items()
            for item, shard in entry.waiting.items()
            if (last := max(shard.not_before_ms, shard.avoid_ms - AVOID_MS)) > at
            and last > at + longest(entry.firing.job, shard)
        ]

    def _add_backoff(self, shard: Shard) -> None:
        for until in (shard.not_before_ms, shard.avoid_ms):
            if until:
                heapq.heappush(self._backoffs, until)

    def running(self, job: str) -> list[Firing]:
        """The job's firings that may run now, oldest first."""
        firings = [self._open[name].firing for name in self._by_job.get(job, ())[: self._at_once(job)]]
        if len(firings) < 2:
            return firings
        # Firings of an older configuration end before newer ones start.
        oldest = firings[0].generation
        return list(takewhile(lambda firing: firing.generation == oldest, firings))

    def reconsider(self, job: str) -> None:
        """Determine again which of the job's firings have shards to start."""
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
