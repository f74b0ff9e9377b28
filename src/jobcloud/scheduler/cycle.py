"""The scheduling cycle: holds offers for a while, launches shards on them, and declines the unused offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from typing import TypeAlias

from jobcloud.config import DELIMITER, MAX_PRIORITY, PLACEHOLDER, Job
from jobcloud.errors import Refused
from jobcloud.match.constraints import HOST
from jobcloud.messages import (
    Accept,
    Decline,
    Kind,
    Launch,
    OfferRescinded,
    OffersReceived,
    Revive,
    SendFailed,
    Suppress,
    Topic,
)
from jobcloud.model import MAX_ID_BYTES, NO_OUTCOME, Cause, Executor, Firing, Shard, ShardState, Task, changed
from jobcloud.scheduler import launch, queue, revisions, sharding, trace_context
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import InsufficientResources, Placement, Pool, Request, Tenant
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.failing_agents import FailingAgents
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.gangs import Gangs
from jobcloud.scheduler.node_results import NodeResults
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.places import Exclusive
from jobcloud.scheduler.pools import Pools
from jobcloud.scheduler.queue import cached_team_of
from jobcloud.scheduler.quotas import Quotas
from jobcloud.scheduler.reason import Reason, condition_reasons, refusal_reasons
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.sharding import Payload
from jobcloud.scheduler.slots import slots_of
from jobcloud.scheduler.state import State
from jobcloud.scheduler.turns import Held, Turns, Wanted
from jobcloud.scheduler.warm_executors import Place, WarmExecutors

_MAX_AVOIDED = 100
# The matcher adds up the offers of an agent. But offers are divided by role and reservation, so their parts may not fit
# a shard that the matcher has placed. Such a shard waits for this time. This is no failure, and its next place may fit.
_NO_FIT_MS = 5_000
# A cycle places the waiting shards in parts (see `_match`). This is the number of shards in the first part.
_FIRST_PART = 100
# A reason with conditions takes some 50 microseconds with 1,000 agents.
_MAX_EXPLAINED = 50
_UNEXPLAINED = (Reason("constraints", "no agent that meets its constraints has room", waiting_helps=True, case="full"),)
# Global names, because an access to an enum member costs a function call in CPython 3.11.
_ACTIVE, _DAEMON, _TASK, _LAUNCHED = ShardState.ACTIVE, Cause.DAEMON, Kind.TASK, Topic.LAUNCHED
_EXCLUSIVE = Tenant.EXCLUSIVE

Placed: TypeAlias = dict[str, list[tuple[queue.Entry, Placement]]]
"""agent → the shards that start there"""


class Cycle(Part):
    def __init__(
        self,
        state: State,
        hooks: Hooks,
        quotas: Quotas,
        pools: Pools,
        firings: Firings,
        executors: Executors,
        circuit_breakers: CircuitBreakers,
        warm_executors: WarmExecutors,
        failing_agents: FailingAgents,
        gangs: Gangs,
        results: NodeResults,
    ) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._quotas = quotas
        self._pools = pools
        self._firings = firings
        self._executors = executors
        self._circuit_breakers = circuit_breakers
        self._warm_executors = warm_executors
        self._failing_agents = failing_agents
        self._gangs = gangs
        self._results = results
        #: job → the resources that the last cycle lacked for it
        self.refusals: dict[str, tuple[Reason, ...]] = {}
        #: how many cycles have run
        self.cycles = 0
        self._suppressed = False
        #: the shards that have not used up a trial, because they waited for slots when they were looked at
        self._untried: set[queue.Entry] = set()
        #: the instant until which the master may withhold offers because of our filters
        self._filtered_until = 0
        #: the groups of Mesos roles for which offers are suppressed, because their teams have no work and others have
        self._quiet: frozenset[str] = frozenset()
        #: the maximum number of tasks in one call; it is lower than the policy's after the master has refused a call
        #: for its size
        self._accept_tasks = state.policy.accept_tasks

    def begin(self, at: int) -> None:
        """The filters and the suppression of offers have ended with the last session."""
        self._suppressed, self._filtered_until, self._state.new_work = False, 0, True
        self._quiet = frozenset()
        self._accept_tasks = self._state.policy.accept_tasks

    # ------------------------------------------------------------------------------------------------- offers

    def on_offers(self, event: OffersReceived) -> None:
        for offer in event.offers:
            if len(offer.agent_id) > MAX_ID_BYTES:
                self._state.emit(Decline((offer.id,), self._state.policy.drain_refuse_ms))
            else:
                self._state.cluster.add_offer(offer, event.at)
        agents = {offer.agent_id for offer in event.offers}
        self._quotas.room_offered(lambda group: any(self._has_executor(agent_id, group) for agent_id in agents))
        self._state.cycle_due = True

    def on_rescind(self, event: OfferRescinded) -> None:
        self._state.cluster.drop_offer(event.offer_id)

    def agents_uncordoned(self, at: int) -> None:
        """Some agents get tasks again. Their offers were declined with filters, which may last for long."""
        self._filtered_until = at + self._state.policy.drain_refuse_ms
        self._state.request_cycle()

    def send_failed(self, event: SendFailed) -> None:
        if isinstance(event.call, Accept) and self._state.connected:
            # The launch failed or may not have arrived. If its offers are still valid, only this DECLINE returns them.
            self._state.emit(Decline(event.call.offer_ids, 0))
            if event.too_large:
                # Halve the limit until the master accepts a call. If the master refuses a call with one task, `Tasks`
                # records a fault of the task's job, and the usual limit applies again.
                half = len(event.call.launches) // 2
                self._accept_tasks = min(self._accept_tasks, half) or self._state.policy.accept_tasks
        elif isinstance(event.call, Suppress | Revive) and event.call.roles:
            groups, quiet = {self._state.cluster.group_of(role) for role in event.call.roles}, self._quiet
            self._quiet = quiet | groups if isinstance(event.call, Revive) else quiet - groups
            self._state.new_work = True
        elif isinstance(event.call, Suppress | Revive):
            self._suppressed, self._state.new_work = isinstance(event.call, Revive), True

    def _decline_offers(self, at: int) -> None:
        """Decline offers from cordoned agents, offers held for too long, and offers beyond the limit."""
        cluster, policy = self._state.cluster, self._state.policy
        if cordoned := cluster.offers_of_cordoned():
            for offer_id in cordoned:
                cluster.drop_offer(offer_id)
            self._state.emit(Decline(tuple(cordoned), policy.drain_refuse_ms))
        old = cluster.offers_received_before(at - policy.offer_hold_ms) if self._gangs.hold is None else []
        unused = old or cluster.oldest_offers(cluster.held - policy.max_offers)
        if not unused:
            return
        for offer_id in unused:
            cluster.drop_offer(offer_id)
        roaming = self._warm_executors.wants_every_agent() and not self._work_waits(at)
        refuse_ms = policy.roaming_refuse_ms if roaming else policy.decline_refuse_ms
        self._state.emit(Decline(tuple(unused), refuse_ms))
        self._filtered_until = at + refuse_ms

    def _quiet_idle_roles(self, at: int) -> None:
        """Ask for no offers for teams without work while others have work, so that Mesos offers the resources to these.

        Otherwise, the role of an idle team would get offers in vain again and again, because its share is the smallest.
        """
        cluster, busy = self._state.cluster, self._busy_groups(at)
        if woken := self._quiet & busy:
            self._quiet -= woken
            self._state.emit(Revive(self._roles_of(woken)))
        idle = frozenset(cluster.groups) - busy - self._quiet if busy else frozenset()
        if not idle:
            return
        self._quiet |= idle
        self._state.emit(Suppress(self._roles_of(idle)))
        if unused := cluster.offers_of_groups(idle):
            for offer_id in unused:
                cluster.drop_offer(offer_id)
            self._state.emit(Decline(tuple(unused), 0))

    def _roles_of(self, groups: Iterable[str]) -> tuple[str, ...]:
        """The Mesos roles of some groups."""
        found = ((group,) if group else self._state.policy.roles for group in sorted(groups))
        return tuple(role for roles in found for role in roles)

    def _busy_groups(self, at: int) -> set[str]:
        """The groups of roles on whose offers something may start now."""
        launchable = self._may_launch(at)
        return {
            group
            for group in self._state.cluster.groups
            if self._state.queue.any_eligible(at, launchable, self._held(group))
            or self._warm_executors.uses_offers_of(group, at)
        }

    def _suppress_or_revive(self, at: int) -> None:
        """Suppress offers if there is no work and no offer is held. Revive them as soon as there is work."""
        if not self._state.connected:
            return
        waiting, roaming = self._work_waits(at), self._warm_executors.wants_every_agent()
        if (waiting and self._can_revive(at)) or (roaming and self._suppressed):
            self._suppressed, self._filtered_until, self._quiet = False, 0, frozenset()
            self._state.emit(Revive())
        elif not waiting and not roaming and not self._state.cluster.held and not self._suppressed:
            self._suppressed = True
            self._state.emit(Suppress())
        self._state.new_work = False

    # ------------------------------------------------------------------------------------------------- time

    def on_tick(self, at: int) -> None:
        if self._state.connected and self._can_run():
            self._run(at)  # before offers are declined, because the cycle may use them
        self._decline_offers(at)
        self._suppress_or_revive(at)
        if self._state.cluster.team_roles and self._state.connected and not self._suppressed:
            self._quiet_idle_roles(at)

    def next_wake(self, at: int) -> int | None:
        if self._state.connected and self._has_work(at):
            return at
        oldest = self._state.cluster.oldest_received_ms() if self._gangs.hold is None else None
        return oldest + self._state.policy.offer_hold_ms + 1 if oldest is not None else None

    def _has_work(self, at: int) -> bool:
        """Whether a tick may find something to place, or a reason to revive offers."""
        if self._warm_executors.wants_every_agent() and (self._can_run() or self._suppressed):
            return True
        return bool(len(self._state.queue) or self._warm_executors.needs_offers(at)) and (
            self._can_run() or self._can_revive(at) or bool(self._quiet and self._state.new_work)
        )

    def _work_waits(self, at: int) -> bool:
        """Whether a shard or a placeholder waits and may start now."""
        return self._state.queue.any_eligible(
            at, lambda job: self._launchable(job, at), self._limit(self._pools.short)
        ) or self._warm_executors.needs_offers(at)

    def _can_run(self) -> bool:
        return self._state.cycle_due and self._state.cluster.held > 0

    def _can_revive(self, at: int) -> bool:
        return self._state.new_work and (self._suppressed or self._filtered_until > at)

    def clock_set_back(self, at: int) -> None:
        self._filtered_until = min(self._filtered_until, at + self._state.policy.drain_refuse_ms)
        self._state.cluster.age_offers_from(at)

    def sweep(self, at: int) -> None:
        self._state.cluster.forget_idle_agents(at - self._state.policy.agent_memory_ms)
        self._state.cluster.prune_classes(self._state.requests() | self._warm_executors.requests())
        self._state.cluster.sum_agents()

    # ------------------------------------------------------------------------------------------------- the cycle

    def _run(self, at: int) -> None:
        """Launch the tasks that may start. If an agent has offers of several roles, there is a pass for each role.

        If some teams have Mesos roles, there are passes for each group of roles.
        """
        self._state.cycle_due = False
        self.cycles += 1
        self._pools.begin_cycle()
        self._gangs.begin_cycle()
        before, cluster = self.refusals, self._state.cluster
        for group in cluster.groups:
            if not cluster.held_of(group):
                continue
            cluster.count_group(group)
            for _ in range(cluster.most_roles()):
                self._run_pass(at, group)
                cluster.count_next_role()
        if self._pools.end_cycle():
            self._state.cycle_due = True
        for job, reasons in self.refusals.items():
            if job not in before and reasons:
                lacking = reasons[0].resource or reasons[0].code
                self._state.publish(at, Topic.REFUSED, reasons[0].text, job=job, reason=lacking)

    def _run_pass(self, at: int, role_group: str) -> None:
        """Launch the missing placeholders, then the shards that may start, on the offers of one role per agent.

        `role_group`: the group of roles whose offers the matcher counts.
        """
        warm: dict[str, list[Place]] = {}
        for place in self._warm_executors.place(at, role_group):
            warm.setdefault(place.placement.agent_id, []).append(place)
        placed, gangs = self._match([place for places in warm.values() for place in places], role_group, at)
        self._end_plan()
        changes: dict[str, dict[int, Shard]] = {}
        for agent_id in list(placed) if gangs else ():
            self._check_gangs_on(agent_id, warm.get(agent_id, []), placed, gangs, changes, at)
        for agent_id in dict.fromkeys((*warm, *placed)):
            self._launch_on(agent_id, warm.get(agent_id, []), placed.get(agent_id, []), gangs, changes, at)
        for firing_id in gangs:
            self._gangs.forget(firing_id, at)
        if warm:
            self._warm_executors.recount()
        for firing_id, shards in changes.items():
            self._firings.put_shards(firing_id, shards, at)

    def _end_plan(self) -> None:
        self._quotas.end_plan()
        self._pools.end_plan()

    def _held(self, role_group: str) -> Callable[[queue.Group], bool] | None:
        """Tells whether no shard of a group may start on offers of a group of roles. None: no shard is held."""
        # A shard that needs more slots than are free is not held here, so that its turn keeps these slots for it.
        held, cluster = self._limit(self._pools.full), self._state.cluster
        if not cluster.team_roles:
            return held
        return lambda group: cluster.group_of_team(group.team) != role_group or (held is not None and held(group))

    @property
    def held(self) -> Callable[[queue.Group], bool] | None:
        """Tells whether no shard of a group may start, because its team's quota or a pool has no room.

        None if there is neither a team's record nor a pool.
        """
        return self._limit(self._pools.lack)

    def _limit(self, lack: Callable[[queue.Group], bool]) -> Callable[[queue.Group], bool] | None:
        """Tells whether the quota of its team, or `lack` of its pools, holds a group."""
        held = self._quotas.held
        if not self._pools.exist:
            return held
        return lambda group: (bool(group.slots) and lack(group)) or (held is not None and held(group))

    def _eligible(self, role_group: str, at: int) -> dict[str, list[tuple[str, Sequence[int]]]]:
        """The shards that may start, by team and in their order. Each row is the id of a firing and items of it."""
        jobs = self._state.jobs

        def priority(firing: Firing) -> int:
            if firing.terms.backfill:
                return -MAX_PRIORITY - 1  # below each job
            given = firing.terms.priority
            return jobs[firing.job].priority if given is None else given

        return self._state.queue.eligible(at, self._may_launch(at), priority, self._held(role_group))

    def _may_launch(self, at: int) -> Callable[[str], bool]:
        return lambda job: self._launchable(job, at)

    def _launchable(self, job: str, at: int) -> bool:
        may_start = self._state.enabled(job) and job not in self._state.faults
        if self._state.pauses and self._state.paused(job):
            return False
        return may_start and not (
            self._circuit_breakers.open and self._circuit_breakers.blocks(self._state.jobs[job].app_key, at)
        )

    def rehearse(self, at: int) -> list[tuple[str, int, str | None]]:
        """A dry run of the next cycle, without claims.

        Each row is (firing, item, agent or None) of a shard that may start. With a quota, there may be fewer rows than
        launches in the cycle.
        """
        found: list[tuple[str, int, str | None]] = []
        with self._pools.rehearsal():
            for group in self._state.cluster.groups:
                self._state.cluster.count_group(group)
                found += self._rehearse(group, at)
        return found

    def _rehearse(self, role_group: str, at: int) -> list[tuple[str, int, str | None]]:
        state, rows = self._state, self._eligible(role_group, at)

        def requested(rows: Sequence[tuple[str, Sequence[int]]]) -> Iterator[Wanted]:
            for name, items in rows:
                with suppress(Refused):  # the cycle records a fault of such a job
                    job = state.jobs[state.firings[name].job]
                    request = self._failing_agents.request(job, state.request(job))
                    yield from ((queue.Entry(name, item), request) for item in items)

        wanted_by_team = {team: requested(each) for team, each in rows.items()}
        turns = self._turns(wanted_by_team, lambda entry, request: True, [], set())
        wanted = turns.take(sum(len(items) for each in rows.values() for _, items in each))
        self._end_plan()
        agents = state.cluster.rehearse([request for _, request in wanted])
        found = [
            (entry, agent) for (entry, _), agent in zip(wanted, agents, strict=True) if isinstance(entry, queue.Entry)
        ]
        if not self._gangs.exist:
            return [(*entry, agent) for entry, agent in found]
        fitting = Counter(entry.firing_id for entry, agent in found if agent is not None)
        partial = {
            name
            for name, item in (entry for entry, _ in found)
            if state.firings[name].step(item) is None and fitting[name] < self._gangs.together(state.firings[name])
        }
        return [(*entry, None if entry.firing_id in partial else agent) for entry, agent in found]

    def _turns(
        self,
        wanted: Mapping[str, Iterator[Wanted]],
        has_room: Callable[[queue.Entry | queue.Gang, Request], bool],
        warm: Sequence[Place],
        held: Held,
        may_start: Callable[[queue.Entry, Request], bool] = lambda entry, request: True,
        gang_lacks_limits: Callable[[queue.Gang, int], bool] | None = None,
    ) -> Turns:
        """The turns of the teams. `wanted`: team → its shards. `warm`: the placeholders that start. See also Turns."""
        executors = {(place.placement.agent_id, place.app.key) for place in warm}

        def group_of(entry: queue.Entry | queue.Gang) -> queue.Group:
            return self._group_of(entry.firing_id)

        return Turns(
            self._quotas, self._pools, wanted, group_of, has_room, self._has_executor, held, executors, may_start,
            gang_lacks_limits,
        )  # fmt: skip

    def _group_of(self, firing_id: str) -> queue.Group:
        group = self._state.queue.group_of(firing_id)
        assert group is not None, f"{firing_id} has nothing to start"
        return group

    def _has_executor(self, agent_id: str, group: queue.Group) -> bool:
        """Whether a shard of a group joins an executor on an agent."""
        known = group.app in self._state.apps
        return known and self._executors.on(agent_id, self._state.plan_of(group.app)) is not None

    def _match(self, warm: Sequence[Place], role_group: str, at: int) -> tuple[Placed, set[str]]:
        """Place the shards that may start. Returns placements by agent, and the firings whose gangs are among them.

        `warm`: the placeholders that start.
        """
        placed: Placed = {}
        gangs: set[str] = set()
        refused: dict[str, Request] = {}
        hopeless: set[Request] = set()
        held: Held = set()
        avoiding: set[Request] = set()
        starting = {place.app.key for place in warm}
        eligible = self._eligible(role_group, at)
        wanted = {
            team: self._requested(rows, starting, refused, hopeless, held, avoiding, at)
            for team, rows in eligible.items()
        }
        #: request of a gang that found too little room → how many of its shards found some. A later gang with the same
        #: request does not find more
        most: dict[Request, int] = {}

        def has_room(entry: queue.Entry | queue.Gang, request: Request) -> bool:
            if isinstance(entry, queue.Gang):
                return self._fitting(entry, request) == len(entry.items)
            (placement,) = self._state.cluster.place([request], 1)
            if placement is None:
                hopeless.add(request)
                refused[self._state.firings[entry.firing_id].job] = request
                return False
            self._state.cluster.rollback(placement)
            return True

        def may_start(entry: queue.Entry, request: Request) -> bool:
            """Whether the trial of its app admits a shard that lacked slots when `_requested` returned it."""
            if entry not in self._untried:
                return True
            self._untried.discard(entry)
            return not self._exceeds_trial(entry, request.anywhere(), starting, hopeless)

        self._untried.clear()
        waits = self._gangs.exist and any(
            self._gangs.together(self._state.firings[name]) for rows in eligible.values() for name, _ in rows
        )
        gang_lacks_limits = (lambda gang, fits: self._gangs.lacks_limits(gang, fits, at)) if waits else None
        turns = self._turns(wanted, has_room, warm, held, may_start, gang_lacks_limits)
        left, size = self._state.policy.cycle_limit, _FIRST_PART
        #: the jobs that found no room before room was held back for a gang; None: no room is held back
        before: set[str] | None = None
        # Far more shards may wait than there is room for, so they are placed in parts. If a part finds no room for a
        # request, later parts skip the shards with the same request.
        while part := turns.take(max(min(left, size), 1)):
            if not left:
                self._state.cycle_due = True
                break
            first, request = part[0]
            if isinstance(first, queue.Gang):
                if found := self._place_gang(turns, first, request, most):
                    for item, place in zip(first.items, found, strict=True):
                        placed.setdefault(place.agent_id, []).append((queue.Entry(first.firing_id, item), place))
                    gangs.add(first.firing_id)
                    starting.add(self._group_of(first.firing_id).app)
                    left = max(0, left - len(first.items))
                else:
                    refused[self._state.firings[first.firing_id].job] = request
                    fits = most.get(request, 0)
                    if fits < len(first.items) and self._gangs.finds_no_room(first, fits, at):
                        self._state.cluster.keep_room(request)
                        before = set(refused)
                continue
            size *= 10
            placements = self._state.cluster.place([request for _, request in part], left)
            given_back = False
            for (entry, request), placement, fits in turns.settle(part, placements):
                if placement is None:
                    hopeless.add(request)
                    refused[self._state.firings[entry.firing_id].job] = request.anywhere()
                elif not fits:
                    given_back = True
                    self._state.cluster.rollback(placement)
                elif isinstance(entry, queue.Entry):
                    placed.setdefault(placement.agent_id, []).append((entry, placement))
                    left -= 1
            if given_back and None in placements:
                # Those without a place may have room now. The next cycle gives them their turns before all others.
                self._state.cycle_due = True
                break
        if before is not None:
            self._state.cluster.keep_no_room()
            self._gangs.note_behind(refused.keys() - before)
        if placed or refused:
            self._record_refusals(refused, role_group)
        return placed, gangs

    def _place_gang(
        self, turns: Turns, gang: queue.Gang, request: Request, most: dict[Request, int]
    ) -> list[Placement]:
        """Place all shards of a gang. Returns [] if a shard has no place, or if the quota has no room for an executor.

        The limit of a cycle does not apply, because it could exclude a gang for ever.
        """
        cluster, shards = self._state.cluster, len(gang.items)
        tried = most.get(request, shards) >= shards or (request.where is not None and bool(request.where.neighbours))
        placements = cluster.place([request] * shards, -1) if tried else []
        found = [placement for placement in placements if placement is not None]
        if turns.settle_gang(gang, request, found):
            return found
        for placement in found:
            cluster.rollback(placement)
        if placements:
            most[request] = len(found)
        return []

    def _fitting(self, gang: queue.Gang, request: Request) -> int:
        """The number of shards of a gang that have room now."""
        found = [one for one in self._state.cluster.place([request] * len(gang.items), -1) if one is not None]
        for placement in found:
            self._state.cluster.rollback(placement)
        return len(found)

    def _record_refusals(self, refused: dict[str, Request], role_group: str) -> None:
        """Record for users what each job lacked. Other groups of roles keep their refusals.

        Thousands of jobs may have different conditions, and each reason costs a look at all agents. So at most
        _MAX_EXPLAINED reasons with conditions are found in a cycle.
        """
        cluster, before = self._state.cluster, self.refusals if self._state.cluster.team_roles else {}
        reasons: dict[Request, tuple[Reason, ...]] = {}
        explained = 0
        self.refusals = {
            job: found for job, found in before.items() if cluster.group_of_team(cached_team_of(job)) != role_group
        }
        for job, request in refused.items():
            if request not in reasons:
                explained += request.where is not None
                if request.where is not None and explained > _MAX_EXPLAINED:
                    reasons[request] = _UNEXPLAINED
                else:
                    reasons[request] = self._lacks(request)
            self.refusals[job] = reasons[request]

    def lacks(self, job: Job) -> tuple[Reason, ...]:
        """The reasons why the last cycle had no room for shards of a job."""
        found = self.refusals.get(job.key, ())
        if found is _UNEXPLAINED and job.app_key in self._state.apps:
            return self._lacks(self._state.request(job))
        return found

    def _lacks(self, request: Request) -> tuple[Reason, ...]:
        cluster, refusal = self._state.cluster, self._state.cluster.refusal(request)
        if request.where is None:
            return tuple(refusal_reasons(refusal))
        broken = [
            (str(rule), number)
            for (rule, weight), number in zip(request.where.rules, refusal.breaking, strict=False)
            if not weight
        ]
        if request.where.exclusive:
            broken.append((str(Exclusive()), cluster.occupied(request.where)))
        return (*condition_reasons(*cluster.failing(request.where), broken, refusal), *refusal_reasons(refusal))

    def _requested(
        self,
        rows: Sequence[tuple[str, Sequence[int]]],
        starting: set[str],
        refused: dict[str, Request],
        hopeless: set[Request],
        held: Held,
        avoiding: set[Request],
        at: int,
    ) -> Iterator[Wanted]:
        """The shards of a team that may start, with their requests. If a request cannot be made, its job gets a fault.

        Once the request of a job is `hopeless`, the job is added to `refused`, and its other shards are left out. So
        are those of a request that is `held` by the quota or by pools. `starting`: the apps of which a task starts
        already. `avoiding`: the requests so far that avoid an agent.
        """
        gangs = self._gangs.exist
        for firing_id, items in rows:
            job = self._state.firings[firing_id].job
            if job in self._state.faults:
                continue
            request = self._state.isolated(job, at, self._state.request, self._state.jobs[job])
            if request is None:
                continue
            request = self._failing_agents.request(self._state.jobs[job], request)
            firing = self._state.firings[firing_id]
            if gangs and firing.step(items[0]) is None and (shards := self._gangs.together(firing)):
                if (gang := self._gang(firing_id, items, shards, starting)) is not None:
                    yield gang, request
                continue
            for item in items:
                if hopeless and request in hopeless:
                    refused[job] = request
                    break
                if held and (request, self._group_of(firing_id).slots) in held:
                    break
                entry = queue.Entry(firing_id, item)
                if self._circuit_breakers.open and self._exceeds_trial(entry, request, starting, hopeless):
                    if request in hopeless:
                        refused[job] = request
                    continue
                own = self._avoiding(entry, request, avoiding, at)
                if own is request or (own, self._group_of(firing_id).slots) not in held:
                    yield entry, own

    def _gang(self, firing_id: str, items: Sequence[int], shards: int, starting: set[str]) -> queue.Gang | None:
        """The gang of a firing. None: some of its shards may not start yet, or another trial of its app starts.

        If the circuit breaker of the app allows one task to start, one gang may start instead.
        """
        app = self._group_of(firing_id).app
        if len(items) < shards or (self._circuit_breakers.on_trial(app) and app in starting):
            return None
        return queue.Gang(firing_id, tuple(items))

    def _exceeds_trial(self, entry: queue.Entry, request: Request, starting: set[str], hopeless: set[Request]) -> bool:
        """Whether the app's circuit breaker allows only one task to start, and this cycle starts one already.

        A shard without room does not use up the trial, nor does one that waits for slots. If they did, no other shard
        of the app would ever start.
        """
        group = self._group_of(entry.firing_id)
        app = group.app
        if not self._circuit_breakers.on_trial(app):
            return False
        if app in starting:
            return True
        if group.slots and self._pools.lack(group):
            self._untried.add(entry)
            return False
        (placement,) = self._state.cluster.place([request], 1)
        if placement is None:
            hopeless.add(request)
            return True
        self._state.cluster.rollback(placement)
        starting.add(app)
        return False

    def _avoiding(self, entry: queue.Entry, request: Request, known: set[Request], at: int) -> Request:
        """The request of a shard. It avoids the agent on which the last attempt was lost, if there is another agent.

        Each request that avoids an agent is a class of its own in the matcher. If very many agents lose attempts, the
        agents are not the cause. So at most _MAX_AVOIDED requests avoid an agent.
        """
        shard = self._state.firings[entry.firing_id].shards[entry.item]
        if shard.avoid_ms <= at or not self._state.cluster.avoidable(shard.agent_id):
            return request
        away = request._replace(avoid=shard.agent_id)
        if away not in known and len(known) >= _MAX_AVOIDED:
            return request
        known.add(away)
        return away

    # ------------------------------------------------------------------------------------------------- launches

    def _check_gangs_on(
        self,
        agent_id: str,
        warm: list[Place],
        placed: Placed,
        gangs: set[str],
        changes: dict[str, dict[int, Shard]],
        at: int,
    ) -> None:
        """Put back each gang with a shard for which the offers of an agent hold less than the matcher had counted.

        The shards of gangs come first on their agents, so that no other shard takes what they need.
        """
        placed[agent_id].sort(key=lambda choice: choice[0].firing_id not in gangs)
        while (broken := self._lacking_gang(agent_id, warm, placed[agent_id], gangs)) is not None:
            firing_id, why = broken
            gangs.remove(firing_id)
            for agent, choices in placed.items():
                for entry, placement in (choice for choice in choices if choice[0].firing_id == firing_id):
                    self._state.cluster.rollback(placement)
                    shard = self._state.firings[firing_id].shards[entry.item]
                    put_off = changed(shard, not_before_ms=at + _NO_FIT_MS, message=why)
                    changes.setdefault(firing_id, {})[entry.item] = put_off
                placed[agent] = [choice for choice in choices if choice[0].firing_id != firing_id]

    def _lacking_gang(
        self,
        agent_id: str,
        warm: list[Place],
        choices: Sequence[tuple[queue.Entry, Placement]],
        gangs: Collection[str],
    ) -> tuple[str, str] | None:
        """The first firing whose gang has a shard that an agent cannot take, and why. Nothing is taken."""
        pool, executors = Pool(self._state.cluster.counted_offers(agent_id)), dict[str, Executor]()
        wanted = [(place.app.key, PLACEHOLDER, "") for place in warm]
        for entry, _ in choices:
            if entry.firing_id in gangs:
                job = self._state.jobs[self._state.firings[entry.firing_id].job]
                wanted.append((job.app_key, job.resources, entry.firing_id))
        for app, resources, firing_id in wanted:
            plan, gone = self._state.plan_of(app), False
            if (known := executors.get(app)) is None and (known := self._executors.on(agent_id, plan)) is not None:
                gone = executor_key(known.agent_id, known.id) in self._executors.gone
            try:
                _, executors[app] = launch.task_shares(pool, resources, agent_id, known, plan, 0, gone=gone)
            except InsufficientResources as error:
                if firing_id:
                    return firing_id, str(error)
        return None

    def _launch_on(
        self,
        agent_id: str,
        warm: list[Place],
        choices: list[tuple[queue.Entry, Placement]],
        gangs: Collection[str],
        changes: dict[str, dict[int, Shard]],
        at: int,
    ) -> None:
        """Emit one ACCEPT for an agent, or a DECLINE. Adds the changed shards of each firing to `changes`.

        An ACCEPT uses up the agent's offers. Shards beyond the limits of one call stay in the queue for the next offer.
        Gangs stay together beyond these limits.
        """
        entry = self._state.cluster.agents[agent_id]
        offers = self._state.cluster.take_offers(agent_id)
        pool = Pool(offers)
        placeholders = (self._launch_placeholder(place, pool, entry.hostname, at) for place in warm)
        launches = [launched for launched in placeholders if launched is not None]
        size = sum(launched.size for launched in launches)
        for choice, placement in choices:
            full = len(launches) >= self._accept_tasks or size >= self._state.policy.accept_bytes
            if launches and full and choice.firing_id not in gangs:
                self._state.cluster.rollback(placement)
                self._state.request_cycle()
                continue
            firing = self._state.firings[choice.firing_id]
            made = self._state.isolated(
                firing.job, at, self._launch, firing, choice.item, placement, pool, entry.hostname, at
            )
            if made is None or made[0] is None:
                self._state.cluster.rollback(placement)
            else:
                launches.append(made[0])
                size += made[0].size
            if made is not None:
                changes.setdefault(firing.id, {})[choice.item] = made[1]
        offer_ids = tuple(offer.id for offer in offers)
        self._state.emit(Accept(agent_id, offer_ids, tuple(launches)) if launches else Decline(offer_ids, 0))

    def _launch(
        self, firing: Firing, item: int, placement: Placement, pool: Pool, hostname: str, at: int
    ) -> tuple[Launch | None, Shard]:
        """Make the task of a placed shard. Returns the launch and the shard's next state.

        The launch is None if the offers hold less than the matcher had counted.
        """
        job, shard = self._state.jobs[firing.job], firing.shards[item]
        if job.placeholders:
            firing = self._firings.with_previous_success(firing, job)
        resident = firing.cause is _DAEMON
        revision = revisions.of_shards(job, self._state.apps[job.app_key])[item] if resident else ""
        task = Task(
            id=DELIMITER.join(
                (job.key, str(item), shard.execution, placement.agent_id, self._state.unique())
            ),
            firing_id=firing.id, job=job.key, item=item, attempt=shard.attempt + 1, execution=shard.execution,
            agent_id=placement.agent_id, hostname=hostname, app=job.app_key, executor_id="",
            resources=job.resources, created_ms=at, revision=revision, attributes=self._counted_by(job, placement),
            slots=slots_of(job), exclusive=placement.tenant is _EXCLUSIVE,
        )  # fmt: skip

        def describe(task: Task) -> Payload:
            traceparent = trace_context.traceparent_of(firing, task, self._state.policy.trace_ratio)
            results = self._results.of(firing, job, item) if job.placeholders else {}
            return sharding.payload(job, firing, task, self._state.fence(), traceparent, results)

        try:
            launched = self._start(task, placement, pool, describe, at)
        except InsufficientResources as error:
            return None, changed(shard, not_before_ms=at + _NO_FIT_MS, message=str(error))
        if self._state.near and job.key in self._state.near:
            self._state.request_cycle()  # other jobs may run near it now
        return launched, changed(
            shard, state=_ACTIVE, attempt=task.attempt, task_id=task.id, agent_id=task.agent_id,
            hostname=hostname, executor_id=launched.executor.id, not_before_ms=0, avoid_ms=0, message="",
            outcome=NO_OUTCOME, end=None,
        )  # fmt: skip

    def _counted_by(self, job: Job, placement: Placement) -> tuple[tuple[str, str], ...]:
        """The attributes of the agent by which the job's rules count shards."""
        near = self._state.near.get(job.key, {}) if self._state.near else {}
        if not (job.constraints or job.preferences or near):
            return ()
        where = self._state.request(job).where
        names = dict.fromkeys(where.attributes if where is not None else ())
        names |= dict.fromkeys(name for others in near.values() for name in others if name != HOST)
        return self._state.cluster.values(placement.agent_id, names)

    def _launch_placeholder(self, place: Place, pool: Pool, hostname: str, at: int) -> Launch | None:
        """Make a placeholder task. None if the offers hold less than the matcher had counted."""
        task = self._warm_executors.task(place, hostname, at)

        def describe(task: Task) -> Payload:
            return sharding.placeholder_payload(task, self._state.fence())

        try:
            return self._start(task, place.placement, pool, describe, at)
        except InsufficientResources as error:
            self._state.cluster.rollback(place.placement)
            self._warm_executors.could_not_start(place.app.key, str(error), at)
            return None

    def _start(
        self, task: Task, placement: Placement, pool: Pool, describe: Callable[[Task], Payload], at: int
    ) -> Launch:
        """Choose the executor of a task, store task and executor, and bind the task's claim.

        If it raises InsufficientResources, nothing has changed.
        """
        plan = self._state.plan_of(task.app)
        known = self._executors.on(task.agent_id, plan)
        gone = known is not None and executor_key(known.agent_id, known.id) in self._executors.gone
        shares, executor = launch.task_shares(pool, task.resources, task.agent_id, known, plan, at, gone=gone)
        ports = launch.ports_of(shares) if task.resources.ports else ()
        task = changed(task, executor_id=executor.id, ports=ports)
        payload = describe(task)
        if executor is not known:
            self._executors.add(executor)
        self._state.cluster.bind(task.id, placement)
        self._state.put(_TASK, task.id, task)
        for hook in self._hooks.task_launched:
            hook(task, at)
        first = task.attempt == 1 and not task.placeholder
        due = self._state.firings[task.firing_id].fire_ms if first else 0
        self._state.publish_task(at, _LAUNCHED, task, f"placed on {task.hostname}", due=due)
        address = self._state.cluster.agents[task.agent_id].address if payload.secrets else ""
        return Launch(task.id, f"{task.job}{DELIMITER}{task.item}", shares, executor, *payload, address)

    # ------------------------------------------------------------------------------------------------- reading

    def job_removed(self, name: str) -> None:
        self.refusals.pop(name, None)

    def indexes(self) -> Mapping[str, Sized]:
        return {"refusals": self.refusals, "agents with shards": self._state.cluster.shards_on}

    def validate(self) -> None:
        self._state.cluster.validate(matcher=False)
