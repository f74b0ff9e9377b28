"""The queue decides which shards may start now, and in which order.

Of a job's unfinished firings, only the oldest ones may run, as many as the job allows at the same time. Firings of two
generations never run at the same time. A firing with a listener has three steps: the listener's call before the firing,
the job's own shards, and the listener's call after the firing. A step begins when the one before it has ended.

Of all shards of a team that may start, those that replace a lost attempt come first. In second place, the priority of
the firing decides, and in third place its age. A firing has the priority of its job if its terms set no other one. The
teams take turns (see turns.py).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter, itemgetter
from typing import NamedTuple

from jobcloud.config import MAX_SHARDS, NOTHING, Resources, team_of
from jobcloud.model import Cause, Execution, Firing, Shard, ShardState, Slots
from jobcloud.scheduler.retry import AVOID_MS

# Global names, because an access to an enum member costs a function call in CPython 3.11.
_READY, _WAITING = Execution.READY, ShardState.WAITING
_ALL = range(MAX_SHARDS + 2)
# It is called for each firing and each attempt, and there are few different keys.
cached_team_of = lru_cache(maxsize=65_536)(team_of)


class Entry(NamedTuple):
    """One shard that may start now."""

    firing_id: str
    item: int


class Gang(NamedTuple):
    """The shards of a firing that start together (see gangs.py)."""

    firing_id: str
    items: tuple[int, ...]


class Group(NamedTuple):
    """The firings of an app whose shards need the same resources and the same slots of pools.

    So all of them or none have room in a quota and in the pools.
    """

    team: str
    app: str
    resources: Resources
    slots: Slots = ()

    def times(self, number: int) -> Group:
        """A group whose single shard needs as much as `number` shards of this group together."""
        slots = tuple((key, each * number) for key, each in self.slots)
        return Group(self.team, self.app, self.resources.times(number), slots)


class Standing(NamedTuple):
    """The firings of one group that may run and have a waiting shard.

    `held`: nothing of the group may start. Each row is a job, the number of the firing's waiting shards, and the number
    of those that waited neither for a back-off nor for a step when the firing was last looked at.
    """

    team: str
    held: bool
    rows: list[tuple[str, int, int]]


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

    `age`: its rank by age; the oldest firing has the lowest. `waiting`: its waiting shards by item. `held`: items that
    may not start until they are released. `unended`: the number of its shards that have not ended. `group`: its group
    while it has shards to start, otherwise None. The items that may start are kept sorted, so that a cycle looks only
    at those that it places.
    """

    __slots__ = (
        "_backoffs", "_gate", "_latest", "_ready", "age", "firing", "group", "held", "team", "unended", "waiting",
    )  # fmt: skip

    def __init__(self, age: int, firing: Firing) -> None:
        self.age = age
        self.firing = firing
        self.team = cached_team_of(firing.job)
        self.group: Group | None = None
        self.waiting: dict[int, Shard] = {}
        self.held: set[int] = set()
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
            if shard.state is not _WAITING:
                self.held.discard(item)
            else:
                self.waiting[item] = shard
                self._file(item, shard)
        if firing.stepped and self._gate != (gate := self._items_of_step()):
            self._gate = gate
            self._sort()

    def startable(self) -> list[Shard]:
        """The shards that wait for nothing but resources and the end of their back-off."""
        return [shard for item, shard in self.waiting.items() if item in self._gate and item not in self.held]

    @property
    def active(self) -> bool:
        """Whether a shard runs."""
        return self.unended > len(self.waiting)

    @property
    def blocked(self) -> bool:
        """Whether all shards that could be next are held, and none runs."""
        if not self.held or self.active:
            return False
        # The listener's call after the firing is not next, either.
        after = self.firing.stepped and len(self.firing.shards) - 1 not in self._gate
        return len(self.waiting) - len(self.held) == after

    def hold(self, items: Iterable[int]) -> None:
        """Let items not start until they are released."""
        for item in items:
            if item not in self.held:
                self.held.add(item)
                if (shard := self.waiting.get(item)) is not None:
                    self._withdraw(item, shard)

    def release(self, items: Iterable[int]) -> None:
        """Let held items start."""
        for item in items:
            if item in self.held:
                self.held.remove(item)
                if (shard := self.waiting.get(item)) is not None:
                    self._file(item, shard)

    def waiting_since(self, item: int) -> int | None:
        """The instant since which a shard may start. None if this instant is unknown."""
        return waiting_since(self.firing, item)

    def eligible(self, at: int) -> tuple[Sequence[int], Sequence[int]]:
        """The items that may start at `at`, in two sorted rows: those that replace lost attempts, and the others."""
        while self._backoffs and self._backoffs[0][0] <= at:
            self._latest, item = heapq.heappop(self._backoffs)
            shard = self.waiting.get(item)
            if shard is not None and shard.not_before_ms == self._latest and item not in self.held:
                self._withdraw(item, shard)  # the heap may contain an entry twice; then the item is in the row already
                insort(self._ready[shard.execution is _READY], item)
        if at >= self._latest:
            return self._ready
        # The clock was set back after a back-off had ended.
        again, first = ([item for item in row if self.waiting[item].not_before_ms <= at] for row in self._ready)
        return again, first

    @property
    def ready(self) -> int:
        """The number of items that `eligible` returned last, and of those that were added since."""
        again, first = self._ready
        return len(again) + len(first)

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
            if item not in self._gate or item in self.held:
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
        if item not in self._gate or item in self.held:
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


def waiting_since(firing: Firing, item: int) -> int | None:
    """The instant since which a waiting shard may start. None if this instant is unknown."""
    shard = firing.shards[item]
    if shard.not_before_ms:
        return max(shard.not_before_ms, firing.fire_ms)
    return None if shard.attempt and firing.cause is Cause.DAEMON else firing.fire_ms


def _one_group(job: str) -> Group:
    return Group(team_of(job), "", NOTHING)


class Queue:
    """The unfinished firings by job and age. The cost of a change does not grow with the number of shards.

    `at_once` returns how many firings of a job may run at the same time, `group` the group of a job's firings. The
    reading methods take a function `held`, which tells whether nothing of a group may start. The firings of such a
    group are not looked at. If `held` is None, no group is held.
    """

    def __init__(
        self, at_once: Callable[[str], int] = lambda job: 1, group: Callable[[str], Group] = _one_group
    ) -> None:
        self._at_once = at_once
        self._group = group
        self._open: dict[str, _Open] = {}
        #: team → number of its waiting shards
        self.waiting: dict[str, int] = {}
        #: job → ids of its unfinished firings, oldest first
        self._by_job: dict[str, list[str]] = {}
        #: group → its firings that may run and have a waiting shard, by id
        self._startable: dict[Group, dict[str, _Open]] = {}
        #: a heap of the instants at which the back-off of a shard ends, or a shard no longer avoids an agent; it may
        #: contain instants of shards that no longer wait
        self._backoffs: list[int] = []
        #: the jobs of unfinished firings with held items, now or before
        self._holding: set[str] = set()
        self._added = 0

    def add(self, firing: Firing) -> None:
        """Add an unfinished firing."""
        self._added += 1
        self._by_job.setdefault(firing.job, []).append(firing.id)
        self._open[firing.id] = entry = _Open(self._added, firing)
        self._count_waiting(entry.team, len(entry.waiting))
        for shard in entry.waiting.values():
            self._add_backoff(shard)
        self.reconsider(firing.job)

    def change(self, firing: Firing, shards: Mapping[int, Shard]) -> bool:
        """Replace a firing by its new version, in which `shards` have changed or are new.

        Returns whether the firing is unfinished. An ended one leaves the queue.
        """
        entry = self._open[firing.id]
        waited = len(entry.waiting)
        entry.change(firing, shards)
        if more := len(entry.waiting) - waited:
            self._count_waiting(entry.team, more)
        for shard in shards.values():
            if shard.state is _WAITING:
                self._add_backoff(shard)
        if not entry.waiting and entry.group is not None:
            self._file(entry, None)
        if not entry.unended:
            self._drop(firing)
        if entry.waiting or not entry.unended or firing.job in self._holding:
            self.reconsider(firing.job)
        return entry.unended > 0

    def hold(self, firing_id: str, items: Iterable[int]) -> None:
        """Let items of an unfinished firing not start until they are released."""
        entry = self._open[firing_id]
        entry.hold(items)
        if entry.held:
            self._holding.add(entry.firing.job)
            self.reconsider(entry.firing.job)

    def release(self, firing_id: str, items: Iterable[int]) -> None:
        """Let held items of an unfinished firing start."""
        entry = self._open[firing_id]
        if entry.held:
            entry.release(items)
            self.reconsider(entry.firing.job)

    def held(self, firing_id: str) -> Collection[int]:
        """The items of an unfinished firing that are held. All of them wait."""
        return self._open[firing_id].held

    def renew(self, firing: Firing) -> None:
        """Replace a firing by its new version, in which no shard has changed its state."""
        self._open[firing.id].firing = firing

    def unfinished(self, job: str) -> list[Firing]:
        """The job's unfinished firings, oldest first."""
        return [self._open[firing_id].firing for firing_id in self._by_job.get(job, ())]

    def eligible(
        self,
        at: int,
        allowed: Callable[[str], bool],
        priority: Callable[[Firing], int],
        held: Callable[[Group], bool] | None = None,
    ) -> dict[str, list[tuple[str, Sequence[int]]]]:
        """The shards of `allowed` jobs that may start at `at`, by team, in the order in which they should start.

        Each row is the id of a firing, and the items to start. A firing may have two rows: one of the shards that
        replace lost attempts, and one of the others. The rows are valid until the queue changes.
        """
        found: dict[str, list[tuple[int, int, int, str, Sequence[int]]]] = {}
        for team, entries in self._unheld(held):
            rows = [
                (is_first, -priority(entry.firing), entry.age, entry.firing.id, items)
                for entry in entries
                if allowed(entry.firing.job)
                for is_first, items in enumerate(entry.eligible(at))
                if items
            ]
            if rows:
                found.setdefault(team, []).extend(rows)
        for rows in found.values():
            rows.sort(key=itemgetter(0, 1, 2))
        return {team: [(name, items) for _, _, _, name, items in rows] for team, rows in found.items()}

    def any_eligible(
        self, at: int, allowed: Callable[[str], bool], held: Callable[[Group], bool] | None = None
    ) -> bool:
        """Whether some shard of an allowed job may start at `at`."""
        return any(
            allowed(entry.firing.job) and any(entry.eligible(at))
            for _, entries in self._unheld(held)
            for entry in entries
        )

    def depth(self, at: int, allowed: Callable[[str], bool], held: Callable[[Group], bool] | None = None) -> Depth:
        """The number of shards that wait at `at`, and of those that are ready.

        A ready shard may start, and its job is `allowed`. The method looks at each firing, but not at each shard.
        """
        rows = [
            (entry, row)
            for _, entries in self._unheld(held)
            for entry in entries
            if allowed(entry.firing.job)
            for row in entry.eligible(at)
            if row
        ]
        since = (entry.waiting_since(row[0]) for entry, row in rows)
        return Depth(
            sum(self.waiting.values()),
            sum(len(row) for _, row in rows),
            min((instant for instant in since if instant is not None), default=None),
        )

    def groups(self, team: str) -> list[tuple[Group, int]]:
        """The groups of a team, each with the number of its firings that may run and have a waiting shard."""
        return [(group, len(entries)) for group, entries in self._startable.items() if group.team == team]

    def waiting_for_slots(self) -> Iterator[tuple[Slots, int]]:
        """The slots of each group with slots, and how many of its shards waited for neither a back-off nor a step."""
        for group, entries in self._startable.items():
            if group.slots:
                yield group.slots, sum(entry.ready for entry in entries.values())

    def standing(self, held: Callable[[Group], bool] | None = None) -> list[Standing]:
        """The firings that may run and have a waiting shard, by group. The method looks at each firing once."""
        return [
            Standing(
                group.team,
                held is not None and held(group),
                [(entry.firing.job, len(entry.waiting), entry.ready) for entry in entries.values()],
            )
            for group, entries in self._startable.items()
        ]

    def waiting_firings(self) -> list[tuple[Firing, int, int]]:
        """The unfinished firings with waiting shards, their number, and the item that has waited longest."""
        return [
            (entry.firing, len(entry.waiting), next(iter(entry.waiting)))
            for entry in self._open.values()
            if entry.waiting
        ]

    def ready(self, job: str, at: int, held: Callable[[Group], bool] | None = None) -> int:
        """The number of a job's shards that may start at `at`, as far as the queue and the quota decide."""
        entries = (self._open[firing.id] for firing in self.running(job))
        return sum(
            len(row)
            for entry in entries
            if entry.group is not None and (held is None or not held(entry.group))
            for row in entry.eligible(at)
        )

    def unfinished_firings(self) -> list[Firing]:
        """The unfinished firings of all jobs."""
        return [entry.firing for entry in self._open.values()]

    def group_of(self, firing_id: str) -> Group | None:
        """The group of an unfinished firing that may run and has a waiting shard, otherwise None."""
        return self._open[firing_id].group

    def waits(self, firing_id: str) -> int:
        """How many shards of an unfinished firing wait."""
        return len(self._open[firing_id].waiting)

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

    def clock_set_back(self, at: int) -> None:
        """Expect each instant of `next_wake` again that the clock had passed before it was set back to `at`."""
        waiting = (shard for entry in self._open.values() for shard in entry.waiting.values())
        self._backoffs = [until for shard in waiting for until in (shard.not_before_ms, shard.avoid_ms) if until > at]
        heapq.heapify(self._backoffs)

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
        """The job's firings that may run now, oldest first.

        A firing whose shards are all held counts as soon as one of them is released, behind those that run. So the
        shards for which it waits may run before it, also if they belong to a younger firing of the same job.
        """
        names = self._by_job.get(job, ())
        if job in self._holding:
            entries = [entry for name in names if not (entry := self._open[name]).blocked]
            entries.sort(key=lambda entry: not entry.active)
            entries = sorted(entries[: self._at_once(job)], key=attrgetter("age"))
            firings = [entry.firing for entry in entries]
        else:
            firings = [self._open[name].firing for name in names[: self._at_once(job)]]
        if len(firings) < 2:
            return firings
        # Firings of an older configuration end before newer ones start.
        oldest = firings[0].generation
        return list(takewhile(lambda firing: firing.generation == oldest, firings))

    def reconsider(self, job: str) -> None:
        """Determine again which of the job's firings have shards to start, and in which group they are."""
        running = self.running(job)
        for firing in running:
            entry = self._open[firing.id]
            if entry.waiting:
                self._file(entry, self._group(job))
        if job in self._holding:
            for name in set(self._by_job.get(job, ())) - {firing.id for firing in running}:
                self._file(self._open[name], None)

    def _file(self, entry: _Open, group: Group | None) -> None:
        """Put a firing into its group. None: it has nothing to start."""
        if entry.group == group:
            return
        if entry.group is not None:
            entries = self._startable[entry.group]
            del entries[entry.firing.id]
            if not entries:
                del self._startable[entry.group]
        if group is not None:
            self._startable.setdefault(group, {})[entry.firing.id] = entry
        entry.group = group

    def _count_waiting(self, team: str, more: int) -> None:
        self.waiting[team] = number = self.waiting.get(team, 0) + more
        if not number:
            del self.waiting[team]

    def _unheld(self, held: Callable[[Group], bool] | None) -> Iterator[tuple[str, Iterable[_Open]]]:
        """The groups that are not held, each as its team and its firings."""
        for group, entries in self._startable.items():
            if held is None or not held(group):
                yield group.team, entries.values()

    def _drop(self, firing: Firing) -> None:
        del self._open[firing.id]
        ids = self._by_job[firing.job]
        ids.remove(firing.id)
        if not ids:
            del self._by_job[firing.job]
            self._holding.discard(firing.job)

    def validate(self) -> None:
        """Compare the counts and groups with the firings. Raises AssertionError."""
        waiting: dict[str, int] = {}
        for entry in self._open.values():
            if entry.waiting:
                waiting[entry.team] = waiting.get(entry.team, 0) + len(entry.waiting)
        assert self.waiting == waiting, f"the waiting shards are {waiting}, not {self.waiting}"
        running = {firing.id for job in self._by_job for firing in self.running(job)}
        for firing_id, entry in self._open.items():
            group = self._group(entry.firing.job) if entry.waiting and firing_id in running else None
            assert entry.held <= entry.waiting.keys(), f"{firing_id} holds shards that do not wait"
            assert entry.group == group, f"{firing_id} is in the group {entry.group}, not {group}"
        filed = {(group, name) for group, entries in self._startable.items() for name in entries}
        grouped = {(entry.group, name) for name, entry in self._open.items() if entry.group is not None}
        assert filed == grouped, f"the groups of firings differ: {filed ^ grouped}"

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, firing_id: str) -> bool:
        return firing_id in self._open
