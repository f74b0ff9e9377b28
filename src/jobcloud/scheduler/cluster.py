"""The cluster: agents, the offers held, the claims of tasks and the reservations of executors.

The capacity of an agent in the matcher is the sum of its offers and of our live claims there. So a claim stays with
its task for the task's whole life, and released resources can be used only after Mesos has offered them again.

Mesos launches a task only on offers that are allocated to one role. So if an agent has offers of several roles, the
matcher counts the offers of one role at a time.

Some teams may have a Mesos role of their own. These teams get only offers of their role, and other teams get none of
them. All other roles form a group, which is named "". The matcher counts the offers of one group at a time. If no team
has a role, all offers are of the one group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobcloud.config import DIMENSIONS, NOTHING, Resources
from jobcloud.match import BY_HOST, MAX_AMOUNT, REFUSED, UNTRIED, AnyMatcher, Refusal, Rule, at_most, balanced, near
from jobcloud.match.constraints import HOST
from jobcloud.model import MAX_ID_BYTES, Offer, Share, changed, content_of, cut
from jobcloud.scheduler.masks import Masks
from jobcloud.scheduler.places import MAX_ATTRIBUTES, Exclusive, Limit, Near, Where
from jobcloud.scheduler.places import Rule as PlaceRule

# Shares with a longer `origin` are not used, because the records of executors contain this text.
_ORIGIN_CHARS = 1_000


class Request(NamedTuple):
    """The resources of a task and of its executor. Those of the executor count once per agent.

    `executor_id` is the id of the executor's content. `avoid` is an agent that the task must not be placed on, or "".
    `where`: the conditions for the agent; None if there are none.
    """

    resources: Resources
    executor_id: str
    executor: Resources
    avoid: str = ""
    where: Where | None = None

    def anywhere(self) -> Request:
        """The same request without an agent to avoid."""
        return self._replace(avoid="") if self.avoid else self


@dataclass(slots=True)
class AgentEntry:
    """One agent. `offers`: the offers held from it, by id. The matcher counts at most those of `role`.

    `whole` is the sum of the agent's offers and our claims when the agent was last offered. The sum is stored because
    the offers of an idle agent are soon declined, and then nothing else shows the agent's size. While an offer is held,
    `whole` may be out of date; `Cluster.whole` updates it. `known`: the agent was offered, so its size is known.
    """

    id: str
    slot: int
    hostname: str = ""
    address: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    offers: dict[str, Offer] = field(default_factory=dict)
    role: str = ""
    offered: Resources = NOTHING
    whole: Resources = NOTHING
    seen_ms: int = 0
    lost: bool = False
    known: bool = False

    @property
    def named(self) -> dict[str, str]:
        """The attributes by name, with the host name as the attribute `host`. Of two equal names, the last counts."""
        return {**dict(self.attributes), HOST: self.hostname}


class Tenant(Enum):
    """The kind of a claim, for the rule of exclusive shards.

    NONE: the placeholder of a warm executor, which may run next to exclusive shards. EXCLUSIVE: a shard that
    has its agent to itself. SHARD: any other shard.
    """

    NONE = "none"
    SHARD = "shard"
    EXCLUSIVE = "exclusive"


# Global names, because an access to an enum member costs a function call in CPython 3.11.
_NONE, _SHARD, _EXCLUSIVE = Tenant.NONE, Tenant.SHARD, Tenant.EXCLUSIVE


class Placement(NamedTuple):
    """The agent on which a request was placed. The claim has been made; `release_id` releases it."""

    agent_id: str
    release_id: int
    tenant: Tenant = _SHARD


class Room(NamedTuple):
    """The resources of an agent for a request. Amounts are in thousandths.

    `free`: the free amounts by role, in the order in which a cycle counts the roles. `whole`: the size of the agent
    when it was last offered. `executor`: the agent runs the executor of the request already.
    """

    agent_id: str
    hostname: str
    free: tuple[Resources, ...]
    whole: Resources
    executor: bool


class Counted(NamedTuple):
    """The running shards of a job, counted for one of its rules.

    `counts`: the number of shards by value of the attribute; 0 for a value without shards, if the job may use an agent
    with this value. `value_of`: the value of each agent; None if it has none.
    """

    rule: PlaceRule
    counts: dict[str, int]
    value_of: Mapping[str, str | None]

    def add(self, value: str) -> None:
        """One more shard of the job runs on an agent with a value."""
        if not isinstance(self.rule, Near):
            self.counts[value] = self.counts.get(value, 0) + 1

    def admits(self, value: str) -> bool:
        """Whether one more shard may run on an agent with a value."""
        number = self.counts.get(value, 0)
        if isinstance(self.rule, Near):
            return number > 0
        if isinstance(self.rule, Exclusive):
            return not number
        if isinstance(self.rule, Limit):
            return number < self.rule.number
        return number <= min(self.counts.values(), default=0)


#: id, host name and size of an agent with offers; its offered resources, its offers of several roles, the counted role
_Offering: TypeAlias = tuple[str, str, Resources, Resources, tuple[Offer, ...], str]
#: id, host name and size of an agent without offers; its claims
_Silent: TypeAlias = tuple[str, str, Resources, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Rooms:
    """The data from which any thread computes the rooms of agents. It holds references, so it is cheap to make.

    `cordoned`: the number of agents that get no new tasks. `exclusive`: the number of other agents that do not take the
    request because of an exclusive shard. `complete`: whether no agent was left out.
    """

    cordoned: int
    exclusive: int
    complete: bool
    _offering: Sequence[_Offering]
    _silent: Sequence[_Silent]
    _executors_on: Mapping[tuple[str, str], int]
    _executor_id: str

    def offered(self) -> list[Room]:
        """The rooms of agents with offers."""
        return [
            self._room(agent_id, hostname, _free_by_role(offers, role) if offers else (free,), whole)
            for agent_id, hostname, whole, free, offers, role in self._offering
        ]

    def silent(self) -> list[Room]:
        """The rooms of agents without offers. Here, `free` is `whole` without the claims."""
        return [
            self._room(agent_id, hostname, (_rest(whole, claimed.tolist()),), whole)
            for agent_id, hostname, whole, claimed in self._silent
        ]

    def _room(self, agent_id: str, hostname: str, free: tuple[Resources, ...], whole: Resources) -> Room:
        executor = self._executors_on.get((agent_id, self._executor_id), 0) > 0
        return Room(agent_id, hostname, free, whole if any(whole) else free[0], executor)


def _rest(whole: Resources, claimed: Sequence[int]) -> Resources:
    return Resources(*(max(0, have - own) for have, own in zip(whole, claimed, strict=True)))


def _free_by_role(offers: Sequence[Offer], first: str) -> tuple[Resources, ...]:
    """The sums of offers by role, in the order of roles from `first` on."""
    roles = sorted({offer.role for offer in offers})
    start = roles.index(first)
    return tuple(
        amounts(share for offer in offers if offer.role == role for share in offer.shares)
        for role in (*roles[start:], *roles[:start])
    )


class Cluster:
    """The known agents, the offers held, and every claim on them.

    `team_roles`: team → its Mesos role, for the teams that have one.
    """

    def __init__(self, matcher: AnyMatcher, team_roles: Mapping[str, str] | None = None) -> None:
        self._matcher = matcher
        self.team_roles = team_roles or {}
        self._roles_of_teams = frozenset(self.team_roles.values())
        #: the group of roles whose offers the matcher counts
        self._group = ""
        #: group of roles → number of offers held, if some team has a role
        self._held_of: Counter[str] = Counter()
        #: release ids that the matcher gets together, before its next use
        self._released: list[int] = []
        self.agents: dict[str, AgentEntry] = {}
        self._by_slot: dict[int, AgentEntry] = {}
        #: slots whose capacity in the matcher is out of date
        self._stale: dict[int, AgentEntry] = {}
        #: slots of agents that have offers of several roles
        self._mixed: dict[int, AgentEntry] = {}
        self._agent_of_offer: dict[str, AgentEntry] = {}
        #: agents that get no new tasks
        self.cordoned: frozenset[str] = frozenset()
        #: offer id → instant received, in the order of receipt
        self._received: dict[str, int] = {}
        self._classes: dict[Request, int] = {}
        self._masks = Masks()
        #: class with conditions → the version of the masks from which its mask was made
        self._masked: dict[int, int] = {}
        #: job whose shards are counted → the matcher's group; groups are never reused
        self._groups: dict[str, int] = {}
        self._groups_made = 0
        #: attribute by which shards are counted → its number in the matcher
        self._counting: dict[str, int] = {}
        #: the version of the masks from which the matcher has the values of these attributes
        self._counting_version = -1
        #: the agents that may be used, by slot, and the version of the masks at that time
        self._usable: tuple[int, NDArray[np.bool_]] = (-1, np.zeros(0, dtype=np.bool_))
        #: (executor content, its resources) → the matcher's shared key; keys are never reused
        self._executor_keys: dict[tuple[str, Resources], int] = {}
        self._keys_made = 0
        self._claims: dict[str, Placement] = {}
        #: slot → number of claims of shards there
        self.shards_on: Counter[int] = Counter()
        #: slot → number of claims of exclusive shards there. The matcher places nothing on these slots.
        self._exclusive_on: Counter[int] = Counter()
        #: slots on which the matcher places nothing, because their room is held back for a gang
        self._kept: set[int] = set()
        #: slots that may differ from the matcher: they got or lost exclusive shards, or were kept or no longer kept
        self._unlocked: set[int] = set()
        #: (agent id, executor id) → the request that the executor reserves, and its release id
        self._reservations: dict[tuple[str, str], tuple[Request, int]] = {}
        #: (agent, executor content) → number of reservations
        self._executors_on: Counter[tuple[str, str]] = Counter()
        #: the number of agents of known size
        self._known = 0
        #: the sum of the agents' resources, and the number of agents of known size at that time
        self._total, self._summed = NOTHING, 0

    @property
    def matcher(self) -> AnyMatcher:
        """The matcher, up to date with all releases."""
        if self._released:
            self._matcher.release(np.array(self._released, dtype=np.int64))
            self._released.clear()
        return self._matcher

    # ------------------------------------------------------------------------------------------------- offers

    @property
    def held(self) -> int:
        """How many offers are held."""
        return len(self._received)

    def add_offer(self, offer: Offer, at: int) -> None:
        self.drop_offer(offer.id)
        if any(len(share.origin) > _ORIGIN_CHARS for share in offer.shares):
            short = tuple(share for share in offer.shares if len(share.origin) <= _ORIGIN_CHARS)
            offer = changed(offer, shares=short)
        entry = self._ensure(offer.agent_id)
        hostname = cut(offer.hostname, MAX_ID_BYTES)
        if hostname != entry.hostname or offer.attributes != entry.attributes:
            entry.hostname, entry.attributes = hostname, offer.attributes
            self._masks.put(entry.slot, entry.named)
        if entry.lost and self._counting:
            self._masks.touch()
        entry.address = offer.address
        entry.seen_ms, entry.lost = at, False
        if not entry.known:
            entry.known = True
            self._known += 1
        if not entry.offers:
            entry.role = offer.role
        elif offer.role != entry.role:
            self._mixed[entry.slot] = entry
            if self._is_for_others(entry):
                entry.role = offer.role
        entry.offers[offer.id] = offer
        if self._roles_of_teams:
            self._held_of[self.group_of(offer.role)] += 1
        self._agent_of_offer[offer.id] = entry
        self._received[offer.id] = at
        entry.offered = entry.offered.plus(amounts(offer.shares))
        self._stale[entry.slot] = entry

    def drop_offer(self, offer_id: str) -> bool:
        """Forget an offer that is no longer valid. Returns whether it was held."""
        entry = self._agent_of_offer.pop(offer_id, None)
        if entry is None:
            return False
        self._update_whole(entry)
        self._received.pop(offer_id)
        offer = entry.offers.pop(offer_id)
        if self._roles_of_teams:
            self._held_of[self.group_of(offer.role)] -= 1
        self._sum_offers(entry)
        return True

    def drop_all_offers(self) -> None:
        """Forget all offers, because the session with the master has ended."""
        for offer_id in list(self._received):
            self.drop_offer(offer_id)

    def take_offers(self, agent_id: str) -> tuple[Offer, ...]:
        """Remove the agent's offers that the matcher counts. The caller uses them up with one ACCEPT or DECLINE."""
        entry, taken = self.agents[agent_id], self.counted_offers(agent_id)
        for offer in taken:
            entry.offers.pop(offer.id)
            self._agent_of_offer.pop(offer.id)
            self._received.pop(offer.id)
        if self._roles_of_teams:
            self._held_of[self.group_of(entry.role)] -= len(taken)
        self._sum_offers(entry)
        return taken

    def counted_offers(self, agent_id: str) -> tuple[Offer, ...]:
        """The agent's offers that the matcher counts."""
        entry = self.agents[agent_id]
        return tuple(offer for offer in entry.offers.values() if offer.role == entry.role)

    def group_of(self, role: str) -> str:
        """The group of a role: the role itself if it belongs to teams, otherwise ""."""
        return role if role in self._roles_of_teams else ""

    def group_of_team(self, team: str) -> str:
        """The group of roles whose offers a team gets."""
        return self.team_roles.get(team, "")

    def held_of(self, group: str) -> int:
        """How many offers of a group of roles are held."""
        return self._held_of[group] if self._roles_of_teams else self.held

    @property
    def groups(self) -> list[str]:
        """All groups of roles: one if no team has a role."""
        return ["", *sorted(self._roles_of_teams)]

    def count_group(self, group: str) -> None:
        """Let the matcher count the offers of one group of roles."""
        if not self._roles_of_teams:
            return
        self._group = group
        for entry in self.agents.values():
            if entry.offers:
                roles = self._roles(entry)
                if roles and entry.role not in roles:
                    entry.role = roles[0]
                self._stale[entry.slot] = entry

    def offers_of_groups(self, groups: Iterable[str]) -> list[str]:
        """Ids of the offers held that are of these groups of roles."""
        wanted = frozenset(groups)
        return [
            offer_id
            for offer_id, entry in self._agent_of_offer.items()
            if self.group_of(entry.offers[offer_id].role) in wanted
        ]

    def most_roles(self) -> int:
        """The largest number of different roles of the counted group among the offers of one agent; at least 1."""
        return max((len(self._roles(entry)) for entry in self._mixed.values()), default=1) or 1

    def count_next_role(self) -> None:
        """On each agent that has offers of several roles, let the matcher count the offers of the next role."""
        for entry in self._mixed.values():
            if roles := self._roles(entry):
                entry.role = roles[(roles.index(entry.role) + 1) % len(roles)]
                self._stale[entry.slot] = entry

    def _offers_of_group(self, entry: AgentEntry) -> tuple[Offer, ...]:
        roles = self._roles(entry)
        return tuple(offer for offer in entry.offers.values() if offer.role in roles)

    def _roles(self, entry: AgentEntry) -> list[str]:
        """The roles of an agent's offers that are of the counted group, in a fixed order."""
        roles = _roles(entry)
        return [role for role in roles if self.group_of(role) == self._group] if self._roles_of_teams else roles

    def offers_received_before(self, instant: int) -> list[str]:
        """Ids of the offers received before `instant`, oldest first."""
        old = []
        for offer_id, received in self._received.items():
            if received >= instant:
                break
            old.append(offer_id)
        return old

    def oldest_offers(self, number: int) -> list[str]:
        return list(self._received)[: max(number, 0)]

    def age_offers_from(self, at: int) -> None:
        """The clock was set back to `at`: treat offers with a later instant as received at `at`."""
        self._received = {offer_id: min(received, at) for offer_id, received in self._received.items()}

    def oldest_received_ms(self) -> int | None:
        return next(iter(self._received.values()), None)

    def lose_agent(self, agent_id: str) -> None:
        """The agent is unreachable or gone: drop its offers. Its claims stay until its tasks have ended."""
        entry = self.agents.get(agent_id)
        if entry is None:
            return
        for offer_id in list(entry.offers):
            self.drop_offer(offer_id)
        entry.lost = True
        if self._counting:
            self._masks.touch()

    def learn(self, agent_id: str, hostname: str, attributes: tuple[tuple[str, str], ...]) -> None:
        """Store the host name and attributes of an agent from the record of a task. The next offer replaces them."""
        entry = self._ensure(agent_id)
        if not entry.seen_ms:
            known = {**dict(entry.attributes), **dict(attributes)}
            entry.hostname, entry.attributes = hostname, tuple(known.items())
            self._masks.put(entry.slot, entry.named)

    def cordon(self, agent_ids: Iterable[str]) -> bool:
        """Cordon these agents and uncordon all others. Returns whether an agent was uncordoned."""
        before, self.cordoned = self.cordoned, frozenset(agent_ids)
        if self._counting and before != self.cordoned:
            self._masks.touch()
        for agent_id in before ^ self.cordoned:
            if (entry := self.agents.get(agent_id)) is not None:
                self._stale[entry.slot] = entry
        return not before <= self.cordoned

    def offers_of_cordoned(self) -> list[str]:
        """Ids of the offers held from cordoned agents."""
        entries = (self.agents.get(agent_id) for agent_id in sorted(self.cordoned))
        return [offer_id for entry in entries if entry is not None for offer_id in entry.offers]

    def forget_idle_agents(self, unseen_since: int) -> None:
        """Drop agents that are unreachable or gone, or were last offered before `unseen_since`.

        An agent with offers, claims or reservations is kept.
        """
        busy = {claim.agent_id for claim in self._claims.values()} | {agent for agent, _ in self._reservations}
        for entry in list(self.agents.values()):
            if not entry.offers and entry.id not in busy and (entry.lost or entry.seen_ms < unseen_since):
                self._stale.pop(entry.slot, None)
                self.matcher.remove_host(entry.slot)
                self._masks.put(entry.slot, None)
                self._known -= entry.known
                del self.agents[entry.id], self._by_slot[entry.slot]

    # ------------------------------------------------------------------------------------------------- claims

    def place(self, requests: Sequence[Request], limit: int) -> list[Placement | None]:
        """Match requests, in order, to the offers held. None for a request without room.

        Each placement carries a claim; the caller must `bind` or `rollback` each. The result is shorter than
        `requests` if `limit` placements were made: the remaining requests were not tried.
        """
        classes = self._classes_of(requests)
        self._refresh()
        slots, release_ids = self._match(self.matcher, requests, classes, limit)
        self._drop_classes([request for request in self._classes if request.avoid])
        placements: list[Placement | None] = []
        for request, slot, release_id in zip(requests, slots.tolist(), release_ids.tolist(), strict=True):
            if slot >= 0:
                tenant = _EXCLUSIVE if _is_exclusive(request) else _SHARD
                self._enter(slot, tenant)
                placements.append(Placement(self._by_slot[slot].id, release_id, tenant))
            elif slot != UNTRIED:
                placements.append(None)
        return placements

    def _match(
        self, matcher: AnyMatcher, requests: Sequence[Request], classes: NDArray[np.int64], limit: int = -1
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """As `match` of the matcher, with exclusive requests: they get agents without shards, one after the other."""
        exclusive = [_is_exclusive(request) for request in requests]
        if not any(exclusive):
            return matcher.match(classes, limit=limit)
        number = len(requests)
        slots, release_ids = np.full(number, UNTRIED, dtype=np.int32), np.full(number, -1, dtype=np.int64)
        empty = self._empty()
        begin = 0
        while begin < number and limit:
            end = begin + 1
            while end < number and (requests[end] == requests[begin] if exclusive[begin] else not exclusive[end]):
                end += 1
            if exclusive[begin]:
                matcher.set_allowed(int(classes[begin]), self._allowed_empty(requests[begin], empty))
                self._match_exclusive(matcher, int(classes[begin]), slots[begin:end], release_ids[begin:end], limit)
            else:
                slots[begin:end], release_ids[begin:end] = matcher.match(classes[begin:end], limit=limit)
            taken = slots[begin:end][slots[begin:end] >= 0]
            empty[taken] = False
            limit -= len(taken) if limit > 0 else 0
            begin = end
        return slots, release_ids

    def avoidable(self, agent_id: str) -> bool:
        """Whether an agent has an offer and another agent is reachable."""
        entry = self.agents.get(agent_id)
        return (
            entry is not None
            and bool(entry.offers)
            and any(other is not entry and not other.lost for other in self.agents.values())
        )

    def rehearse(self, requests: Sequence[Request]) -> list[str | None]:
        """The agents on which `place` would put the requests, without any claim."""
        classes = self._classes_of(requests)
        self._refresh()
        slots, _ = self._match(self.matcher.fork(), requests, classes)
        return [self._by_slot[slot].id if slot >= 0 else None for slot in slots.tolist()]

    def rooms(self, request: Request, most: int, most_silent: int, team: str = "") -> Rooms:
        """The rooms on at most `most` agents with offers and `most_silent` agents without. Claims nothing.

        Agents that fail the conditions of the request are left out. Only offers that `team` may use count; "" stands
        for each team without a role. The matcher is asked about each agent without offers, which takes time.
        """
        self.count_group(self.group_of_team(team))
        self._refresh()
        mixed, cordoned, matcher = self._mixed, self.cordoned, self.matcher
        entries = list(self.agents.values())
        if cordoned:
            entries = [entry for entry in entries if entry.id not in cordoned]
        number = len(entries)
        if self._exclusive_on and not _is_exclusive(request):
            entries = [entry for entry in entries if entry.slot not in self._exclusive_on]
        exclusive = number - len(entries)
        if request.where is not None:
            allowed = self._masks.allowed(request.where)
            entries = [entry for entry in entries if allowed[entry.slot]]
        offering = [entry for entry in entries if entry.offers and not self._is_for_others(entry)]
        silent = [entry for entry in entries if not entry.lost and (not entry.offers or self._is_for_others(entry))]
        # If no offer counts, the capacity in the matcher is the sum of the claims.
        return Rooms(
            len(self.agents) - number,
            exclusive,
            len(offering) <= most and len(silent) <= most_silent,
            [
                (e.id, e.hostname, e.whole, e.offered, self._offers_of_group(e) if e.slot in mixed else (), e.role)
                for e in offering[:most]
            ],
            [(e.id, e.hostname, e.whole, matcher.capacity(e.slot)) for e in silent[:most_silent]],
            dict(self._executors_on),
            request.executor_id,
        )

    def keep_room(self, request: Request) -> None:
        """Place nothing more on the agents with offers that could take `request` if they were empty."""
        kept = {e.slot for e in self.agents.values() if e.offers and self._could_hold(e, request)}
        self._unlocked |= kept - self._kept
        self._kept |= kept

    def keep_no_room(self) -> None:
        """Let tasks be placed again on the agents that `keep_room` kept."""
        self._unlocked |= self._kept
        self._kept = set()

    def holds_at_most(self, request: Request, number: int) -> int:
        """How many requests, at most `number`, all agents of known size could hold together if they were empty.

        Rules between shards are ignored, except that an exclusive request has its agent to itself.
        """
        found, exclusive = 0, _is_exclusive(request)
        for entry in self.agents.values():
            if found >= number:
                return number
            if not self._could_hold(entry, request):
                continue
            rows = zip(entry.whole, request.executor, request.resources, strict=True)
            found += 1 if exclusive else min((have - own) // each for have, own, each in rows if each)
        return min(found, number)

    def _could_hold(self, entry: AgentEntry, request: Request) -> bool:
        """Whether a request fits an agent that is reachable, not cordoned and empty."""
        where, need = request.where, request.resources.plus(request.executor)
        if entry.lost or entry.id in self.cordoned:
            return False
        if where is not None and (entry.id in where.away or not self._masks.allows(entry.slot, where)):
            return False
        return all(have >= wanted for have, wanted in zip(self.whole(entry), need, strict=True))

    def bind(self, task_id: str, placement: Placement) -> None:
        """Give the claim of a placement to a task."""
        self._claims[task_id] = placement

    def rollback(self, placement: Placement) -> None:
        """Release the claim of a placement that has no task.

        The agent's offers have not changed. If the matcher counted them again, it would forget the other claims of this
        cycle that have no task yet.
        """
        entry = self.agents[placement.agent_id]
        self._leave(entry.slot, placement.tenant)
        self._released.append(placement.release_id)
        if not entry.offers:
            self._stale[entry.slot] = entry  # they were taken meanwhile

    def claim(self, task_id: str, agent_id: str, request: Request, tenant: Tenant = _SHARD) -> None:
        """Claim resources for a task that already runs."""
        entry = self._ensure(agent_id)
        self._claims[task_id] = Placement(agent_id, self.matcher.assign(self._class_of(request), entry.slot), tenant)
        self._enter(entry.slot, tenant)
        self._stale[entry.slot] = entry

    def count(self, task_id: str, request: Request) -> None:
        """Claim the same resources for a running task again. From now on, the task counts for its job's rules."""
        known = self._claims[task_id]
        self._release(known)
        self.claim(task_id, known.agent_id, request, known.tenant)

    def claim_if_free(self, entry: AgentEntry, request: Request) -> Placement | None:
        """Place the request of a placeholder on this agent, also next to an exclusive shard. None without room."""
        self._refresh()
        if request.where is not None and not self._masks.allows(entry.slot, request.where):
            return None
        need = request.resources
        if not self._executors_on[entry.id, request.executor_id]:
            need = need.plus(request.executor)
        if any(free < wanted for free, wanted in zip(self.matcher.free(entry.slot).tolist(), need, strict=True)):
            return None
        return Placement(entry.id, self.matcher.assign(self._class_of(request), entry.slot), _NONE)

    def release(self, task_id: str) -> bool:
        """Release a task's claim. Returns whether it had one."""
        claim = self._claims.pop(task_id, None)
        if claim is None:
            return False
        self._release(claim)
        return True

    def reserve(self, agent_id: str, executor_id: str, executor: Resources) -> None:
        """Reserve an executor's resources for as long as it lives, with or without tasks. Idempotent.

        If an agent has two executors with the same content, one of them is unreserved soon. Until then, the matcher
        counts their resources once, not twice.
        """
        if (agent_id, executor_id) in self._reservations:
            return
        entry = self._ensure(agent_id)
        request = Request(NOTHING, content_of(executor_id), executor)
        release_id = self.matcher.assign(self._class_of(request), entry.slot)
        self._reservations[agent_id, executor_id] = request, release_id
        self._executors_on[agent_id, request.executor_id] += 1
        self._stale[entry.slot] = entry

    def unreserve(self, agent_id: str, executor_id: str) -> bool:
        """End the reservation of an executor that is gone. Returns whether there was one."""
        reservation = self._reservations.pop((agent_id, executor_id), None)
        if reservation is None:
            return False
        request, release_id = reservation
        self._executors_on[agent_id, request.executor_id] -= 1
        if not self._executors_on[agent_id, request.executor_id]:
            del self._executors_on[agent_id, request.executor_id]
        self._release_in_matcher(agent_id, release_id)
        return True

    def refusal(self, request: Request) -> Refusal:
        """The reasons why `request` has no room now, and the number of agents to which each reason applies.

        `disabled`: the agents that do not take the request because of an exclusive shard. Agents that are too busy for
        an exclusive request count as disallowed.
        """
        cls = self._class_of(request)
        self._refresh()
        if not _is_exclusive(request):
            return self.matcher.refusal(cls)
        self.matcher.set_allowed(cls, self._allowed(request))
        later = self.matcher.refusal(cls).could_ever_fit
        self.matcher.set_allowed(cls, self._allowed_empty(request, self._empty()))
        return replace(self.matcher.refusal(cls), disabled=0, could_ever_fit=later)

    def occupied(self, where: Where) -> int:
        """The number of known agents that meet the conditions and have shards."""
        allowed = self._masks.allowed(where)
        return sum(bool(allowed[slot]) and self._by_slot[slot].seen_ms > 0 for slot in self.shards_on)

    @property
    def attributes(self) -> int:
        """A number that grows when an agent comes, goes or changes its attributes."""
        return self._masks.version

    def allows(self, agent_id: str, where: Where) -> bool:
        """Whether an agent may meet the conditions. True if its attributes are not known yet."""
        entry = self.agents.get(agent_id)
        return entry is None or not entry.seen_ms or self._masks.allows(entry.slot, where)

    def failing(self, where: Where) -> tuple[int, list[tuple[str, int]]]:
        """The number of known agents, and how many of them fail each condition.

        An agent counts for the first condition that it fails.
        """
        seen = [entry.slot for entry in self.agents.values() if entry.seen_ms]
        return len(seen), self._masks.failing(where, np.array(seen, dtype=np.int64))

    def usable_besides(self, agent_ids: Container[str], request: Request) -> bool:
        """Whether another reachable agent meets the conditions of a request and is large enough for it."""
        need = request.resources.plus(request.executor)
        return any(
            entry.seen_ms and not entry.lost and entry.id not in self.cordoned and entry.id not in agent_ids
            and (request.where is None or self._masks.allows(entry.slot, request.where))
            and all(have >= wanted for have, wanted in zip(self.whole(entry), need, strict=True))
            for entry in self.agents.values()
        )  # fmt: skip

    def values(self, agent_id: str, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """The named attributes that an agent has, with their values."""
        entry = self.agents.get(agent_id)
        known = entry.named if entry is not None else {}
        return tuple((name, known[name]) for name in names if name in known)

    def counts(self, where: Where, agents_of: Callable[[str], Iterable[str]]) -> list[Counted]:
        """For each rule that must hold: the shards by value. `agents_of`: the agents of a job's running shards."""
        found = []
        mask = self._masks.allowed(where) & self._usable_agents()
        for rule in where.must:
            value_of = {entry.id: self._value_of(entry, rule.attribute) for entry in self.agents.values()}
            if isinstance(rule, Exclusive):
                running: Iterable[str] = (self._by_slot[slot].id for slot in self.shards_on.elements())
            else:
                running = agents_of(rule.job if isinstance(rule, Near) else where.group)
            counts = Counter(value for agent_id in running if (value := value_of.get(agent_id)) is not None)
            for entry in self.agents.values():
                if mask[entry.slot] and (value := value_of[entry.id]) is not None:
                    counts.setdefault(value, 0)
            found.append(Counted(rule, dict(counts), value_of))
        return found

    def _value_of(self, entry: AgentEntry, attribute: str) -> str | None:
        return entry.id if attribute == HOST else entry.named.get(attribute)

    def prune_classes(self, wanted: Iterable[Request]) -> None:
        """Drop the matcher's classes of all requests but `wanted`."""
        keep = set(wanted)
        self._drop_classes([request for request in self._classes if request not in keep])
        used = {(request.executor_id, request.executor) for request in keep}
        used |= {(request.executor_id, request.executor) for request, _ in self._reservations.values()}
        self._executor_keys = {pair: key for pair, key in self._executor_keys.items() if pair in used}
        if self._groups:
            rules = [request.where for request in keep if request.where is not None and request.where.group]
            groups = {where.group for where in rules} | {job for where in rules for job, _ in where.neighbours}
            self._groups = {group: number for group, number in self._groups.items() if group in groups}
            attributes = {name for where in rules for name in (rule.attribute for rule, _ in where.rules)}
            for name in self._counting.keys() - attributes:
                self.matcher.set_attribute(self._counting.pop(name), None)

    def claimed(self, entry: AgentEntry) -> Resources:
        """The resources of our live claims and reservations on an agent."""
        return Resources(*(self.matcher.capacity(entry.slot) - self.matcher.free(entry.slot)).tolist())

    def claim_count(self) -> tuple[int, int]:
        """The number of claims and of reservations."""
        return len(self._claims), len(self._reservations)

    def validate(self, matcher: bool = True) -> None:
        """Check the offers and, if `matcher`, the matcher's own totals. Raises AssertionError."""
        self._refresh()
        if matcher:
            self.matcher.check()
        assert self._received.keys() == self._agent_of_offer.keys(), "an offer is held by no agent"
        if self._roles_of_teams:
            offers = [offer for entry in self.agents.values() for offer in entry.offers.values()]
            numbers = Counter(self.group_of(offer.role) for offer in offers)
            assert numbers == self._held_of, f"{numbers} offers are held by group, but {self._held_of} is counted"
        for entry in self.agents.values():
            held = amounts(share for offer in entry.offers.values() for share in offer.shares)
            assert entry.offered == held, f"agent {entry.id} offers {held}, not {entry.offered}"
            roles = _roles(entry)
            assert not roles or entry.role in roles, f"agent {entry.id} has no offer of role {entry.role}"
            assert not self._roles(entry) or not self._is_for_others(entry), f"agent {entry.id} counts {entry.role}"
            assert (len(roles) > 1) == (entry.slot in self._mixed), f"agent {entry.id} has offers of {roles}"
            assert min(self.matcher.free(entry.slot)) >= 0, f"agent {entry.id} is over-committed"
        shards = Counter(self.agents[each.agent_id].slot for each in self._claims.values() if each.tenant is not _NONE)
        assert shards <= self.shards_on, f"slots have {shards} shards, but {self.shards_on} is counted"
        known = sum(entry.known for entry in self.agents.values())
        assert known == self._known, f"the size of {known} agents is known, but {self._known} is counted"

    # ----------------------------------------------------------------------------------------------- internal

    def _ensure(self, agent_id: str) -> AgentEntry:
        entry = self.agents.get(agent_id)
        if entry is None:
            slot = self.matcher.add_host(np.zeros(len(DIMENSIONS), dtype=np.int64))
            entry = self.agents[agent_id] = self._by_slot[slot] = AgentEntry(agent_id, slot)
            self._masks.put(slot, {})
        return entry

    def _classes_of(self, requests: Sequence[Request]) -> NDArray[np.int64]:
        # Most requests are the same object as the one before. Looking a class up costs more than a placement.
        found: list[int] = []
        last: Request | None = None
        cls = -1
        for request in requests:
            if request is not last:
                last, cls = request, self._class_of(request)
            found.append(cls)
        return np.array(found, dtype=np.int64)

    def _class_of(self, request: Request) -> int:
        known = self._classes.get(request)
        if known is None:
            key = self._executor_keys.get((request.executor_id, request.executor))
            if key is None:
                key = self._executor_keys[request.executor_id, request.executor] = self._keys_made
                self._keys_made += 1
            known = self._classes[request] = self.matcher.add_class(
                np.array(request.resources, dtype=np.int64),
                shared_key=key,
                shared=np.array(request.executor, dtype=np.int64),
                allowed=self._allowed(request),
                penalty=self._penalty(request),
                **self._rules(request),
            )
            if request.where is not None:
                self._masked[known] = self._masks.version
        elif request.where is not None and self._masked[known] != self._masks.version:
            if request.where.hard or request.avoid or request.where.even or request.where.away:
                self.matcher.set_allowed(known, self._allowed(request))
            if request.where.soft:
                self.matcher.set_penalty(known, self._penalty(request))
            self._masked[known] = self._masks.version
        return known

    def _allowed(self, request: Request) -> NDArray[np.bool_] | None:
        """The mask of a class; None if all agents are allowed.

        The mask lacks agents that come later. A class that avoids an agent is used once. A class with conditions gets
        another mask before its next use, if agents have come or changed.
        """
        where = request.where
        limited = where is not None and (
            bool(where.hard or where.away) or where.even or where.exclusive or not self._countable(where)
        )
        if not limited and not request.avoid:
            return None
        if where is not None:
            mask = self._masks.allowed(where)
            if where.even:
                mask &= self._usable_agents()
            if not self._countable(where):
                mask[:] = False
            mask[[self.agents[agent_id].slot for agent_id in where.away if agent_id in self.agents]] = False
        else:
            mask = np.zeros(max(self._by_slot) + 1, dtype=np.bool_)
            mask[list(self._by_slot)] = True
        if (avoided := self.agents.get(request.avoid)) is not None:
            mask[avoided.slot] = False
        return mask

    def _match_exclusive(
        self,
        matcher: AnyMatcher,
        cls: int,
        slots: NDArray[np.int32],
        release_ids: NDArray[np.int64],
        limit: int,
    ) -> None:
        """Place exclusive shards of one class, at most `limit`. Their slots take no further task."""
        for at in range(len(slots) if limit < 0 else min(len(slots), limit)):
            slots[at : at + 1], release_ids[at : at + 1] = matcher.match(np.array([cls], dtype=np.int64))
            if slots[at] == REFUSED:
                slots[at:] = REFUSED
                return
            matcher.enable_host(int(slots[at]), False)

    def _empty(self) -> NDArray[np.bool_]:
        """The slots without shards."""
        empty = np.ones(self._masks.size, dtype=np.bool_)
        empty[np.fromiter(self.shards_on, dtype=np.int64, count=len(self.shards_on))] = False
        return empty

    def _allowed_empty(self, request: Request, empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The mask of an exclusive request."""
        mask = self._allowed(request)
        assert mask is not None
        return mask & empty

    def _enter(self, slot: int, tenant: Tenant) -> None:
        """A claim on a slot has begun."""
        if tenant is _NONE:
            return
        self.shards_on[slot] += 1
        if tenant is _EXCLUSIVE:
            self._exclusive_on[slot] += 1
            self._unlocked.add(slot)

    def _leave(self, slot: int, tenant: Tenant) -> None:
        """A claim on a slot has ended."""
        if tenant is _NONE:
            return
        for counted in (self.shards_on, self._exclusive_on) if tenant is _EXCLUSIVE else (self.shards_on,):
            counted[slot] -= 1
            if not counted[slot]:
                del counted[slot]
        if tenant is _EXCLUSIVE:
            self._unlocked.add(slot)

    def _usable_agents(self) -> NDArray[np.bool_]:
        """The slots of agents that are neither lost nor cordoned.

        The others may stay known for long. If they counted, their zones would have the fewest shards.
        """
        if self._usable[0] != self._masks.version:
            mask = np.zeros(self._masks.size, dtype=np.bool_)
            usable = (e.slot for e in self._by_slot.values() if not e.lost and e.id not in self.cordoned)
            mask[list(usable)] = True
            self._usable = self._masks.version, mask
        return self._usable[1]

    def _countable(self, where: Where) -> bool:
        """Whether the matcher can count by all attributes of the rules. A job with too many is refused earlier."""
        return all(self._number_of(rule.attribute) is not None for rule, _ in where.rules)

    def _number_of(self, attribute: str) -> int | None:
        number = self._counting.get(attribute)
        if number is None and len(self._counting) < MAX_ATTRIBUTES:
            number = min(set(range(MAX_ATTRIBUTES)) - set(self._counting.values()))
            self._counting[attribute] = number
            self._counting_version = -1
        return number

    def _rules(self, request: Request) -> dict[str, Any]:
        """The group and the rules of a class."""
        where = request.where
        if where is None or not where.group:
            return {}
        group = self._group_of(where.group)
        rules: list[Rule] = []
        for rule, weight in where.rules if self._countable(where) else ():
            number = self._counting[rule.attribute]
            per = BY_HOST if rule.attribute == HOST else number
            if isinstance(rule, Limit):
                rules.append(at_most(rule.number, group, per=per, weight=weight))
            elif isinstance(rule, Near):
                rules.append(near(self._group_of(rule.job), within=per, weight=weight))
            else:
                rules.append(balanced(group, number, weight=weight))
        return {"group": group, "rules": rules}

    def _group_of(self, job: str) -> int:
        group = self._groups.get(job)
        if group is None:
            group = self._groups[job] = self._groups_made
            self._groups_made += 1
        return group

    def _penalty(self, request: Request) -> NDArray[np.int64] | None:
        """The penalties of a class; None if it has no preferences."""
        if request.where is None or not request.where.soft:
            return None
        return self._masks.penalty(request.where)

    def _drop_classes(self, requests: Iterable[Request]) -> None:
        for request in requests:
            cls = self._classes.pop(request)
            self._masked.pop(cls, None)
            self.matcher.remove_class(cls)

    def _release(self, placement: Placement) -> None:
        self._leave(self.agents[placement.agent_id].slot, placement.tenant)
        self._release_in_matcher(placement.agent_id, placement.release_id)

    def _release_in_matcher(self, agent_id: str, release_id: int) -> None:
        self._released.append(release_id)
        entry = self.agents[agent_id]
        self._stale[entry.slot] = entry

    def whole(self, entry: AgentEntry) -> Resources:
        """The sum of an agent's offers and of our claims, now or when it was last offered."""
        self._update_whole(entry)
        return entry.whole

    def total(self) -> Resources:
        """The sum of the agents' resources, for comparisons. It may be out of date, because it is rarely computed.

        It is computed again by `sum_agents`, and when the number of agents of known size has changed by more than a
        tenth. A new leader knows agents by their tasks before it knows their sizes.
        """
        if abs(self._known - self._summed) * 10 > self._summed:
            self.sum_agents()
        return self._total

    def sum_agents(self) -> None:
        """Compute `total` again."""
        self._refresh()
        found = NOTHING
        for entry in self.agents.values():
            found = found.plus(entry.whole)
        self._total, self._summed = found, self._known

    def _update_whole(self, entry: AgentEntry) -> None:
        """Compute `whole` again if the agent has offers and has changed.

        Mesos may offer the resources of an ended task before it reports the end. Until the report, these resources are
        counted twice, as offered and as claimed. So `whole` is computed again when it is read, and before an offer is
        dropped.
        """
        if entry.offers and entry.slot in self._stale:
            entry.whole = entry.offered.plus(self.claimed(entry))

    def _sum_offers(self, entry: AgentEntry) -> None:
        entry.offered = amounts(share for offer in entry.offers.values() for share in offer.shares)
        self._stale[entry.slot] = entry
        if entry.slot in self._mixed:
            roles = _roles(entry)
            if entry.role not in roles:
                entry.role = next(iter(self._roles(entry) or roles), "")
            if len(roles) < 2:
                del self._mixed[entry.slot]

    def _counted(self, entry: AgentEntry) -> Resources:
        """The offered resources of an agent that tasks may take now."""
        if entry.id in self.cordoned or self._is_for_others(entry):
            return NOTHING
        if entry.slot not in self._mixed:
            return entry.offered
        return amounts(share for offer in entry.offers.values() if offer.role == entry.role for share in offer.shares)

    def _is_for_others(self, entry: AgentEntry) -> bool:
        """Whether no offer of an agent is of the counted group of roles."""
        return bool(self._roles_of_teams) and self.group_of(entry.role) != self._group

    def _refresh(self) -> None:
        """Bring the matcher up to date with the changes on agents."""
        if self._counting and self._counting_version != self._masks.version:
            for name, number in self._counting.items():
                self.matcher.set_attribute(number, self._masks.numbers(name))
            self._counting_version = self._masks.version
        for slot in self._unlocked & self._by_slot.keys():
            self.matcher.enable_host(slot, slot not in self._exclusive_on and slot not in self._kept)
        self._unlocked.clear()
        if self._stale:
            simple = not self._mixed and not self.cordoned and not self._roles_of_teams
            free = [entry.offered if simple else self._counted(entry) for entry in self._stale.values()]
            rows = np.minimum(np.array(free, dtype=np.int64), MAX_AMOUNT)
            slots = np.fromiter(self._stale, dtype=np.int64, count=len(free))
            capacities = self.matcher.set_free(slots, rows).tolist()
            for entry, counted, capacity in zip(self._stale.values(), free, capacities, strict=True):
                if entry.offers:
                    complete = counted is entry.offered
                    entry.whole = Resources(*capacity) if complete else entry.offered.plus(self.claimed(entry))
            self._stale.clear()


def _roles(entry: AgentEntry) -> list[str]:
    """The roles of an agent's offers, in a fixed order."""
    return sorted({offer.role for offer in entry.offers.values()})


def amounts(shares: Iterable[Share]) -> Resources:
    """The sum of shares by dimension. Other resources are ignored."""
    totals = dict.fromkeys(DIMENSIONS, 0)
    for share in shares:
        if share.name in totals:
            totals[share.name] += share.amount
    return Resources(**totals)


def _is_exclusive(request: Request) -> bool:
    """Whether a request needs an agent without any other shard."""
    return request.where is not None and request.where.exclusive


class InsufficientResources(Exception):
    """The agent's offers hold less than the matcher had counted, or divide the resources into too many parts."""


class Pool:
    """The shares in the offers of one ACCEPT. Tasks and executors get their shares from it, reserved ones first."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._shares: dict[str, list[Share]] = {name: [] for name in DIMENSIONS}
        for share in sorted((s for offer in offers for s in offer.shares), key=lambda s: not s.reserved):
            if share.name in self._shares:
                self._shares[share.name].append(share)
        self._left = {name: sum(share.amount for share in shares) for name, shares in self._shares.items()}

    def check(self, wanted: Resources) -> None:
        """Raises InsufficientResources if the pool holds less than `wanted`."""
        left = self._left
        for name, want in _needs(wanted):
            if left[name] < want:
                lacking = [name for name, want in _needs(wanted) if left[name] < want]
                raise InsufficientResources(f"the agent's offers hold too little of: {', '.join(lacking)}")

    def allocate(self, wanted: Resources) -> tuple[Share, ...]:
        """Take shares that add up to `wanted`. Raises InsufficientResources, with nothing taken."""
        self.check(wanted)
        allocated: list[Share] = []
        for name, amount in _needs(wanted):
            self._allocate_one(name, amount, allocated)
            self._left[name] -= amount
        return tuple(allocated)

    def take(self, shares: Iterable[Share]) -> None:
        """Take the amounts of `shares` from shares with the same role and reservation.

        Raises InsufficientResources, with nothing taken.
        """
        before = {name: list(held) for name, held in self._shares.items()}
        for share in shares:
            held = self._shares[share.name]
            others = [one for one in held if one.origin != share.origin]
            self._shares[share.name] = [one for one in held if one.origin == share.origin]
            if sum(one.amount for one in self._shares[share.name]) < share.amount:
                self._shares = before
                raise InsufficientResources(f"the agent's offers hold too little {share.name} with the same role")
            self._allocate_one(share.name, share.amount, [])
            self._shares[share.name] = sorted((*self._shares[share.name], *others), key=lambda one: not one.reserved)
        self._left = {name: sum(share.amount for share in held) for name, held in self._shares.items()}

    def _allocate_one(self, name: str, missing: int, allocated: list[Share]) -> None:
        shares = self._shares[name]
        while missing > 0:
            taken, rest = _split(shares[0], missing)
            allocated.append(taken)
            missing -= taken.amount
            if rest is None:
                del shares[0]
            else:
                shares[0] = rest


@lru_cache(maxsize=4096)
def _needs(wanted: Resources) -> tuple[tuple[str, int], ...]:
    """The dimensions with an amount above zero."""
    return tuple((name, want) for name, want in zip(DIMENSIONS, wanted, strict=True) if want)


def _split(share: Share, amount: int) -> tuple[Share, Share | None]:
    """Split a share into a part of at most `amount`, and the rest. Ports are taken from the lowest ranges first."""
    if share.amount <= amount:
        return share, None
    if not share.ranges:
        return _part(share, amount, ()), _part(share, share.amount - amount, ())
    left, taken, rest = amount // 1000, [], []
    for begin, end in share.ranges:
        here = min(left, end - begin + 1)
        if here:
            taken.append((begin, begin + here - 1))
        if here < end - begin + 1:
            rest.append((begin + here, end))
        left -= here
    return _part(share, amount, tuple(taken)), _part(share, share.amount - amount, tuple(rest))


def _part(share: Share, amount: int, ranges: tuple[tuple[int, int], ...]) -> Share:
    return Share(share.name, amount, share.origin, share.reserved, ranges)
