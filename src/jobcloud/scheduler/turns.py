"""Turns: the order in which the waiting shards of several teams are placed.

The next turn belongs to the team whose share, divided by the weight of the team, is the smallest. Of each resource, a
team uses some fraction of the cluster's total. The largest of these fractions is the (dominant) share of the team. This
is dominant resource fairness (Ghodsi et al. 2011,
https://www.usenix.org/conference/nsdi11/dominant-resource-fairness-fair-allocation-multiple-resource-types). The shares
follow from the tasks and executors that live now. There is no history, so a new leader continues with the same shares,
and a team that was idle gets no credit for it. No task is killed to make room for another team.

Within a team, the order is that of the queue. So priorities, and the precedence of shards that replace lost attempts,
count within a team only. Otherwise a team could take the whole cluster by its priorities or by its failures.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice

from jobcloud.config import NOTHING, Resources
from jobcloud.model import Slots
from jobcloud.scheduler.cluster import Placement, Request
from jobcloud.scheduler.pools import Pools
from jobcloud.scheduler.queue import Entry, Gang, Group
from jobcloud.scheduler.quotas import Quotas

Wanted = tuple[Entry | Gang, Request]
Held = set[tuple[Request, Slots]]
"""requests that do not fit a quota or a pool, each with its slots"""


class Turns:
    """The shards to place in one pass of a cycle. They are taken in parts; each part is settled before the next one.

    A gang takes its turn as a whole, and is a part of its own. If its quota or a pool has too little room for all of
    its shards, `gang_lacks_limits` is called with the number of shards that were counted before the quota was full. The
    number is 0 if no place was tried. A true answer ends the turns of the team in this pass.

    `waiting`: team → its shards in their order, with their requests. `group_of` returns the group of a shard.
    `has_room` tells whether some agent has room for a request. It is called at most once for each request, and never
    with an agent to avoid. `has_executor` tells whether a shard of a group joins an executor on an agent. If a request
    does not fit the quota of its team or its pools, it is added to `held`. The iterators of `waiting` must leave out
    shards whose request has found no room or is in `held`.
    """

    def __init__(
        self,
        quotas: Quotas,
        pools: Pools,
        waiting: Mapping[str, Iterator[Wanted]],
        group_of: Callable[[Entry | Gang], Group],
        has_room: Callable[[Entry | Gang, Request], bool],
        has_executor: Callable[[str, Group], bool],
        held: Held,
        starting: Set[tuple[str, str]],
        may_start: Callable[[Entry, Request], bool] = lambda entry, request: True,
        gang_lacks_limits: Callable[[Gang, int], bool] | None = None,
    ) -> None:
        self._quotas = quotas
        self._pools = pools
        self._waiting = dict(waiting)
        self._group_of = group_of
        self._has_room = has_room
        self._has_executor = has_executor
        self._held = held
        self._may_start = may_start
        #: None if no gang waits
        self._gang_lacks_limits = gang_lacks_limits
        #: (agent, app) of the executors that this pass starts
        self._starting = set(starting)
        self._limited = {team for team in self._waiting if quotas.limits_starts(team)}
        #: whether the order matters: several teams wait, a team is limited, or there are pools or gangs
        self._shared = len(self._waiting) > 1 or bool(self._limited) or pools.exist or gang_lacks_limits is not None
        #: team → its next shard, if it was taken from `waiting` and put off until the next part
        self._next: dict[str, Wanted] = {}
        #: the shards that are put off until the next part, because shards of the present part may give slots back
        self._aside: list[Wanted] = []
        #: request → the answer of `has_room`
        self._rooms: dict[Request, bool] = {}

    def take(self, most: int) -> list[Wanted]:
        """The next shards, at most `most`, or one whole gang. Empty if no shard is left."""
        if not self._shared:
            return list(islice(chain.from_iterable(self._waiting.values()), most))
        self._look_again()
        part: list[Wanted] = []
        unsettled: set[str] = set()
        given: set[str] = set()
        order = [(self._quotas.share(team), team) for team in self._waiting]
        heapq.heapify(order)
        while order and len(part) < most:
            team = order[0][1]
            wanted = self._next.pop(team, None) or next(self._waiting[team], None)
            if wanted is None:
                del self._waiting[team]
                heapq.heappop(order)
            elif isinstance(wanted[0], Gang):
                if part:
                    self._waiting[team] = chain([wanted], self._waiting[team])
                    break
                if self._takes(wanted[0], wanted[1], team):
                    return [wanted]
                if team not in self._waiting:
                    heapq.heappop(order)
            elif not self._may_start(wanted[0], wanted[1]):
                continue  # the circuit breaker of the app allows one trial, and another shard has it
            elif self._finds_no_room(*wanted):
                # A shard without room does not use up the turn. If it did, the team's other shards would never start.
                continue
            elif self._has_limits_for(*wanted):
                part.append(wanted)
                unsettled.add(team)
                group = self._group_of(wanted[0])
                given.update(key for key, _ in group.slots)
                self._plan(group, wanted[1].resources)
                heapq.heapreplace(order, (self._quotas.share(team), team))
            elif team in unsettled and not self._has_quota_for(*wanted):
                # Some of the team's shards in this part may find no place. Then the quota may have room for this one.
                self._next[team] = wanted
                heapq.heappop(order)
            elif len(self._aside) < most and not given.isdisjoint(key for key, _ in self._group_of(wanted[0]).slots):
                # Some shards in this part may find no place. Then the pool may have room for this one.
                self._keep_slots(*wanted)
                self._aside.append(wanted)
            else:
                self._hold(*wanted)
        return part

    def _takes(self, gang: Gang, request: Request, team: str) -> bool:
        """Plan a gang and return True if the limits have room for all of it.

        Otherwise keep slots for it if slots are all that it lacks, and perhaps end the turns of its team.
        """
        group, shards = self._group_of(gang).times(len(gang.items)), len(gang.items)
        lacks_quota = self._quotas.lack_for(team, group.resources, shards) is not None
        if not lacks_quota and not self._pools.lack(group):
            self._quotas.plan(team, group.resources, shards)
            self._pools.plan(group)
            return True
        if not lacks_quota and self._pools.to_keep(group) and self._has_room(gang, request):
            self._pools.keep(group)
        self._end_turns(gang, 0)
        return False

    def _end_turns(self, gang: Gang, fits: int) -> None:
        """End the turns of the team of a gang, if the gang has the hold."""
        if self._gang_lacks_limits is not None and self._gang_lacks_limits(gang, fits):
            self._waiting.pop(self._group_of(gang).team, None)

    def settle_gang(self, gang: Gang, request: Request, placements: Sequence[Placement]) -> bool:
        """Plan the shards of a gang in their places.

        Returns False, and plans nothing, if a shard has no place or if the quota has no room for an executor.
        """
        whole = self._group_of(gang).times(len(gang.items))
        self._quotas.drop(whole.team, whole.resources, len(gang.items))
        self._pools.drop(whole)
        if len(placements) < len(gang.items):
            return False
        planned: list[tuple[Resources, set[tuple[str, str]]]] = []
        for placement in placements:
            if (begun := self._plan_in_place(gang, request, placement.agent_id)) is not None:
                planned.append(begun)
                continue
            self._end_turns(gang, len(planned))
            for resources, executors in planned:
                self._quotas.drop(whole.team, resources, 1)
                self._pools.drop(self._group_of(gang))
                self._starting -= executors
            return False
        return True

    def _look_again(self) -> None:
        """Put the shards that were put off for slots back at the front. The last part is settled now."""
        for entry, request in reversed(self._aside):
            group = self._group_of(entry)
            team = group.team
            self._pools.ask_again(group)
            self._waiting[team] = chain([(entry, request)], self._waiting.get(team, ()))
        self._aside.clear()

    def _has_limits_for(self, entry: Entry | Gang, request: Request) -> bool:
        """Whether the quota of the team and the pools have room for a shard."""
        group = self._group_of(entry)
        return self._has_quota_for(entry, request) and not (group.slots and self._pools.lack(group))

    def _has_quota_for(self, entry: Entry | Gang, request: Request) -> bool:
        team = self._group_of(entry).team
        return team not in self._limited or self._quotas.lack_for(team, request.resources, 1) is None

    def _hold(self, entry: Entry | Gang, request: Request) -> None:
        """Start no shard with this request and these slots in this pass, and keep the slots that it waits for."""
        self._keep_slots(entry, request)
        self._held.add((request.anywhere(), self._group_of(entry).slots))

    def _keep_slots(self, entry: Entry | Gang, request: Request) -> None:
        """Keep the free slots of pools for a shard that needs more of them and lacks nothing else."""
        group = self._group_of(entry)
        waits = bool(group.slots) and bool(self._pools.to_keep(group)) and self._has_quota_for(entry, request)
        if waits and self._has_room_for(entry, request):
            self._pools.keep(group)

    def _plan(self, group: Group, resources: Resources) -> None:
        self._quotas.plan(group.team, resources, 1)
        self._pools.plan(group)

    def _finds_no_room(self, entry: Entry | Gang, request: Request) -> bool:
        """Whether no agent, the one to avoid included, had room when this request was first seen.

        Always False if only one team waits: then no other team needs to know it.
        """
        return len(self._waiting) > 1 and not self._has_room_for(entry, request)

    def _has_room_for(self, entry: Entry | Gang, request: Request) -> bool:
        anywhere = request.anywhere()
        if anywhere not in self._rooms:
            self._rooms[anywhere] = self._has_room(entry, anywhere)
        return self._rooms[anywhere]

    def settle(
        self, part: Sequence[Wanted], placements: Sequence[Placement | None]
    ) -> Iterator[tuple[Wanted, Placement | None, bool]]:
        """The shards of a part with their places.

        The last value is False if the quota has no room for the shard and the executor that it starts in this place.
        """
        if not self._shared:
            return zip(part, placements, [True] * len(part), strict=True)
        return self._settle(part, placements)

    def _settle(
        self, part: Sequence[Wanted], placements: Sequence[Placement | None]
    ) -> Iterator[tuple[Wanted, Placement | None, bool]]:
        for entry, request in part:
            group = self._group_of(entry)
            self._quotas.drop(group.team, request.resources, 1)
            self._pools.drop(group)
        for wanted, placement in zip(part, placements, strict=True):
            yield wanted, placement, placement is None or self._fits(*wanted, placement.agent_id)

    def _fits(self, entry: Entry | Gang, request: Request, agent_id: str) -> bool:
        """Plan a shard in its place. Returns False if the quota has no room for it."""
        if self._plan_in_place(entry, request, agent_id) is not None:
            return True
        group = self._group_of(entry)
        if self._quotas.lack_for(group.team, request.resources, 1) is None:
            self._quotas.wait_for_executor(group)
        # Only this request is held, with the agent to avoid. The same request without it may join an executor there.
        self._held.add((request, group.slots))
        return False

    def _plan_in_place(
        self, entry: Entry | Gang, request: Request, agent_id: str
    ) -> tuple[Resources, set[tuple[str, str]]] | None:
        """Plan a shard in its place. Returns what it needs, and the executor that it starts, if any.

        Returns None if the quota has no room for them.
        """
        group, need = self._group_of(entry), request.resources
        place = agent_id, group.app
        joins = place in self._starting or self._has_executor(agent_id, group)
        executor = NOTHING if joins else request.executor
        if group.team in self._limited and self._quotas.lack_for(group.team, need, 1, executor) is not None:
            return None
        self._plan(group, need.plus(executor))
        self._starting.add(place)
        return need.plus(executor), set() if joins else {place}
