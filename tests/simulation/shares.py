"""Promise 22: fair shares between teams, checked after each scheduling cycle.

The check reads the records of tasks, executors, runs and teams, and the offers that were held. It asks neither the part
of the scheduler that counts what teams use nor the one that takes turns.

T stands for a team with a shard s that could have started in the cycle and still waits, although the quota of T has
room for s and an executor. Two things are promised:

- *No room is left.* No agent keeps room for s.
- *No room went to others first.* In a turn of s, all shards of T ahead of s have had their turns. So other teams got
  room before s only while their shares were at most that of T. Resources that they got beyond that are no room for s.

The share of T is counted with all that T got in the cycle, and with all shards that may have been ahead of s and found
no place. The share of another team is counted without all that it got in the cycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobcloud.config import MAX_PRIORITY, NOTHING, Job, Resources, team_of
from jobcloud.messages import Accept
from jobcloud.model import Execution, Executor, Firing, Shard, ShardState, Task, Team
from jobcloud.scheduler.cluster import amounts
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.slots import slots_of

if TYPE_CHECKING:
    from .schedulers import SimCore
    from .world import World

Place = tuple[str, str]
"""an agent, and a role of its offers"""
# A shard whose offers hold too little of one reservation waits for this time. It has had its turn.
_NO_FIT_MS = 5_000
# Sums of fractions in another order differ by less.
_EQUAL = 1e-9


def team_of_task(task: Task) -> str:
    return team_of(task.app if task.placeholder else task.job)


def used_by(tasks: Iterable[Task], executors: Iterable[Executor], team: str) -> Resources:
    """The resources of a team's tasks and executors."""
    found = NOTHING
    for task in tasks:
        if team_of_task(task) == team:
            found = found.plus(task.resources)
    for executor in executors:
        if team_of(executor.app) == team:
            found = found.plus(amounts(executor.shares))
    return found


def attempts_of(tasks: Iterable[Task], team: str) -> int:
    return sum(not task.placeholder and team_of_task(task) == team for task in tasks)


def rank(core: SimCore, firing: Firing, execution: Execution) -> tuple[bool, int]:
    """The place of a shard in the order of its team, apart from the age: the least comes first."""
    if firing.terms.backfill:
        return execution is Execution.READY, MAX_PRIORITY + 1
    given = firing.terms.priority
    return execution is Execution.READY, -(core.jobs[firing.job].priority if given is None else given)


class Held:
    """The offers that a scheduler holds: what they have by agent and role, and the role of each."""

    def __init__(self, core: SimCore) -> None:
        self.rooms: dict[Place, Resources] = {}
        self.roles: dict[str, str] = {}
        for agent_id, entry in core.cluster.agents.items():
            for offer in entry.offers.values():
                place = agent_id, offer.role
                self.rooms[place] = self.rooms.get(place, NOTHING).plus(amounts(offer.shares))
                self.roles[offer.id] = offer.role


@dataclass(slots=True)
class Cycle:
    """One scheduling cycle, seen from outside.

    `tasks`, `executors`, `held`: those before the cycle. `waiting`: the shards that certainly could have started and
    did not.
    """

    world: World
    core: SimCore
    tasks: dict[str, Task]
    executors: dict[str, Executor]
    held: Held
    accepts: Sequence[Accept]
    waiting: Sequence[tuple[Firing, int]]
    at: int
    #: what is left of each place
    left: dict[Place, Resources] = field(default_factory=dict)
    #: place → team → what its new attempts got there
    got: dict[Place, dict[str, list[Resources]]] = field(default_factory=dict)
    #: team → what it used at least and at most when its shards were placed
    _least: dict[str, Resources] = field(default_factory=dict)
    _most: dict[str, Resources] = field(default_factory=dict)

    def check(self) -> None:
        if self.core._state.cycle_due or self._lacks_a_reservation():
            return  # the next cycle follows at once, or as soon as Mesos has offered the same again
        self._count()
        decided = False
        seen = set()
        for firing, item in self.waiting:
            kind = firing.job, rank(self.core, firing, firing.shards[item].execution)
            if kind not in seen:
                seen.add(kind)
                decided |= self._check(firing, item)
        self.world.history.happened["cycle in which shares decided"] += decided

    def _lacks_a_reservation(self) -> bool:
        """Whether a shard was placed where the offers hold too little of one role. They were returned."""
        shards = (shard for firing in self.core.firings.values() for shard in firing.shards)
        return any(shard.not_before_ms == self.at + _NO_FIT_MS for shard in shards)

    def _count(self) -> None:
        exclusive = self.world.promise.exclusive
        away = {task.agent_id for task in self.core.tasks.values() if task.id in exclusive} | self.core.cluster.cordoned
        self.left = {place: room for place, room in self.held.rooms.items() if place[0] not in away}
        for accept in self.accepts:
            place = accept.agent_id, self.held.roles[accept.offer_ids[0]]
            # Executors count in any case, as if each of them was a new one.
            spent = [amounts(launch.shares) for launch in accept.launches]
            spent += [amounts(one.shares) for one in {launch.executor for launch in accept.launches}]
            for amount in spent:
                self.left[place] = _minus(self.left.get(place, NOTHING), amount)
            for task in (self.core.tasks[launch.task_id] for launch in accept.launches):
                if not task.placeholder:
                    self.got.setdefault(place, {}).setdefault(team_of_task(task), []).append(task.resources)

    def _check(self, firing: Firing, item: int) -> bool:
        """Check one shard that waits. Returns whether a team with a smaller share got the room that it needs."""
        core, team = self.core, team_of(firing.job)
        job = core.jobs[firing.job]
        if job.app_key not in core.apps or job.key in core.faults:
            return False
        if slots_of(job):
            return False  # it may wait for slots; promise 28 is about these
        if self._excludes_agents(job):
            return False  # promises 24 to 27 are about these
        ahead = list(self._perhaps_ahead(firing, item))
        needed = job.resources.plus(core.apps[job.app_key].resources)
        if not self._within_quota(team, needed, ahead):
            return False
        for place, room in self.left.items():
            if self._may_use(team, place) and _holds(room, self._need(firing, place)):
                self._broken(firing, item, f"{place} keeps {room}, and it needs {self._need(firing, place)}")
        return self._in_turn(firing, item, ahead)

    def _in_turn(self, firing: Firing, item: int, ahead: Sequence[Resources]) -> bool:
        team, decided = team_of(firing.job), False
        most = self._most_of(team)
        own = self._share(team, _sum([most, *ahead]))
        for place, teams in self.got.items():
            others = {other: got for other, got in teams.items() if other != team}
            need = self._need(firing, place)
            if not self._may_use(team, place) or not _holds(_sum(_flat(others)), need):
                continue
            late = _sum([self._got_late(other, got, own) for other, got in others.items()])
            if _holds(late, need):
                self._broken(firing, item, f"other teams got {others} on {place}, its share was at most {own:.3f}")
            smaller = [got for other, got in others.items() if self._least_share(other) < self._least_share(team)]
            decided |= _holds(_sum([one for got in smaller for one in got]), need)
        return decided

    def _got_late(self, other: str, got: Sequence[Resources], share: float) -> Resources:
        """The resources that a team certainly got on an agent after its share was larger than `share`."""
        least = self._least_of(other)
        total, all_of_it = self.core.cluster._total, _sum(got)
        if self._share(other, least) > share + _EQUAL:
            return all_of_it
        limit = share * self._weight(other)
        largest = Resources(*(max(each) for each in zip(*self._launched_by(other), strict=True)))
        rows = zip(all_of_it, least, total, largest, strict=True)
        # All shards but the last one that came before kept the share of the team within the limit.
        return Resources(
            *(max(0, int(have - max(0.0, limit * whole - used) - last - 1)) for have, used, whole, last in rows)
        )

    def _launched_by(self, team: str) -> list[Resources]:
        return [one for teams in self.got.values() for one in teams.get(team, ())]

    def _perhaps_ahead(self, firing: Firing, item: int) -> Iterator[Resources]:
        """The needs of shards of the same team that may have had turns before this shard and found no place.

        A shard with the same need would have found a place in the room of this one, unless its job excludes agents. A
        shard that had no room anywhere before the cycle takes no turn.
        """
        core, team = self.core, team_of(firing.job)
        job, own = core.jobs[firing.job], rank(core, firing, firing.shards[item].execution)
        for each in core.firings.values():
            other = core.jobs.get(each.job)
            if each.ended_ms or other is None or team_of(each.job) != team:
                continue
            if not any(_holds(room, other.resources) for room in self.held.rooms.values()):
                continue
            same = (other.resources, other.app_key) == (job.resources, job.app_key) and not self._excludes_agents(other)
            for shard in each.shards:
                if not _had_a_turn(shard, self.at) or rank(core, each, shard.execution) > own:
                    continue
                if not same or shard.avoid_ms > self.at:
                    yield other.resources

    def _excludes_agents(self, job: Job) -> bool:
        """Whether the conditions of a job, or its failures, exclude agents."""
        return self.core._cycle._failing_agents.request(job, self.core._state.request(job)).where is not None

    def _within_quota(self, team: str, needed: Resources, ahead: Sequence[Resources]) -> bool:
        found = self.core._state.teams.get(team)
        if found is None:
            return True
        used = _sum([self._most_of(team), needed, *ahead])
        attempts = attempts_of((self.tasks | self.core.tasks).values(), team) + len(ahead) + 1
        rows = ((found.quota.cpus, used.cpus), (found.quota.mem, used.mem), (found.quota.gpus, used.gpus))
        return all(limit is None or amount <= limit for limit, amount in (*rows, (found.quota.shards, attempts)))

    def _need(self, firing: Firing, place: Place) -> Resources:
        """The resources that a shard needs on an agent: also for an executor, unless one of its app runs there."""
        job = self.core.jobs[firing.job]
        known = self.core._executors.on(place[0], self.core._state.plan_of(job.app_key))
        key = executor_key(place[0], known.id) if known is not None else ""
        if key in self.executors and key not in self.core._executors.gone:
            return job.resources
        return job.resources.plus(self.core.apps[job.app_key].resources)

    def _may_use(self, team: str, place: Place) -> bool:
        return self.world.plan.may_use(team, place[1])

    def _least_of(self, team: str) -> Resources:
        if team not in self._least:
            tasks = [task for key, task in self.tasks.items() if key in self.core.tasks]
            executors = [one for key, one in self.executors.items() if key in self.core.executors]
            self._least[team] = used_by(tasks, executors, team)
        return self._least[team]

    def _most_of(self, team: str) -> Resources:
        if team not in self._most:
            executors = self.executors | self.core.executors
            self._most[team] = used_by((self.tasks | self.core.tasks).values(), executors.values(), team)
        return self._most[team]

    def _least_share(self, team: str) -> float:
        return self._share(team, self._least_of(team))

    def _share(self, team: str, used: Resources) -> float:
        """The dominant share of a team by its weight."""
        parts = zip(used, self.core.cluster._total, strict=True)
        return max((have / whole for have, whole in parts if whole), default=0.0) / self._weight(team)

    def _weight(self, team: str) -> int:
        return self.core._state.teams.get(team, Team(team)).weight

    def _broken(self, firing: Firing, item: int, why: str) -> None:
        self.world.violation(f"22: shard {item} of {firing.id} waits, although {why}")


def _had_a_turn(shard: Shard, at: int) -> bool:
    waits = shard.state is ShardState.WAITING
    return waits and (shard.not_before_ms <= at or shard.not_before_ms == at + _NO_FIT_MS)


def _flat(teams: Mapping[str, Sequence[Resources]]) -> list[Resources]:
    return [one for got in teams.values() for one in got]


def _sum(each: Iterable[Resources]) -> Resources:
    found = NOTHING
    for one in each:
        found = found.plus(one)
    return found


def _minus(have: Resources, less: Resources) -> Resources:
    return Resources(*(one - other for one, other in zip(have, less, strict=True)))


def _holds(room: Resources, need: Resources) -> bool:
    return all(have >= want for have, want in zip(room, need, strict=True))
