"""The cluster: agents, the offers held, the claims of tasks and the reservations of executors.

The capacity of an agent in the matcher is the sum of its offers and of our live claims there. So a claim stays with
its task for the task's whole life, and released resources can be used only after Mesos has offered them again.

Mesos launches a task only on offers that are allocated to one role. So if an agent has offers of several roles, the
matcher counts the offers of one role at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobcloud.config import DIMENSIONS, NOTHING, Resources
from jobcloud.match import MAX_AMOUNT, UNTRIED, AnyMatcher, Refusal
from jobcloud.model import MAX_ID_BYTES, Offer, Share, changed, content_of, cut

# Shares with a longer `origin` are not used, because the records of executors contain this text.
_ORIGIN_CHARS = 1_000


class Request(NamedTuple):
    """The resources of a task and of its executor. Those of the executor count once per agent.

    `executor_id` is the id of the executor's content. `avoid` is an agent that the task must not be placed on, or "".
    """

    resources: Resources
    executor_id: str
    executor: Resources
    avoid: str = ""


@dataclass(slots=True)
class AgentEntry:
    """One agent. `offers`: the offers held from it, by id. The matcher counts only those of `role`.

    `whole` is the sum of the agent's offers and our claims when the agent was last offered. The sum is stored because
    the offers of an idle agent are soon declined, and then nothing else shows the agent's size. While an offer is held,
    `whole` may be out of date; `Cluster.whole` updates it.
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


class Placement(NamedTuple):
    """The agent on which a request was placed. The claim has been made; `release_id` releases it."""

    agent_id: str
    release_id: int


class Cluster:
    """The known agents, the offers held, and every claim on them."""

    def __init__(self, matcher: AnyMatcher) -> None:
        self._matcher = matcher
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
        #: (executor content, its resources) → the matcher's shared key; keys are never reused
        self._executor_keys: dict[tuple[str, Resources], int] = {}
        self._keys_made = 0
        #: task id → (agent, release id)
        self._claims: dict[str, tuple[str, int]] = {}
        #: (agent id, executor id) → the request that the executor reserves, and its release id
        self._reservations: dict[tuple[str, str], tuple[Request, int]] = {}
        #: (agent, executor content) → number of reservations
        self._executors_on: Counter[tuple[str, str]] = Counter()

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
        entry.hostname = cut(offer.hostname, MAX_ID_BYTES)
        entry.address, entry.attributes = offer.address, offer.attributes
        entry.seen_ms, entry.lost = at, False
        if not entry.offers:
            entry.role = offer.role
        elif offer.role != entry.role:
            self._mixed[entry.slot] = entry
        entry.offers[offer.id] = offer
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
        entry.offers.pop(offer_id)
        self._sum_offers(entry)
        return True

    def drop_all_offers(self) -> None:
        """Forget all offers, because the session with the master has ended."""
        for offer_id in list(self._received):
            self.drop_offer(offer_id)

    def take_offers(self, agent_id: str) -> tuple[Offer, ...]:
        """Remove the agent's offers that the matcher counts. The caller uses them up with one ACCEPT or DECLINE."""
        entry = self.agents[agent_id]
        taken = tuple(offer for offer in entry.offers.values() if offer.role == entry.role)
        for offer in taken:
            entry.offers.pop(offer.id)
            self._agent_of_offer.pop(offer.id)
            self._received.pop(offer.id)
        self._sum_offers(entry)
        return taken

    def most_roles(self) -> int:
        """The largest number of different roles among the offers of one agent; at least 1."""
        return max((len(_roles(entry)) for entry in self._mixed.values()), default=1)

    def count_next_role(self) -> None:
        """On each agent that has offers of several roles, let the matcher count the offers of the next role."""
        for entry in self._mixed.values():
            roles = _roles(entry)
            entry.role = roles[(roles.index(entry.role) + 1) % len(roles)]
            self._stale[entry.slot] = entry

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

    def cordon(self, agent_ids: Iterable[str]) -> bool:
        """Cordon these agents and uncordon all others. Returns whether an agent was uncordoned."""
        before, self.cordoned = self.cordoned, frozenset(agent_ids)
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
        busy = {agent for agent, _ in self._claims.values()} | {agent for agent, _ in self._reservations}
        for entry in list(self.agents.values()):
            if not entry.offers and entry.id not in busy and (entry.lost or entry.seen_ms < unseen_since):
                self._stale.pop(entry.slot, None)
                self.matcher.remove_host(entry.slot)
                del self.agents[entry.id], self._by_slot[entry.slot]

    # ------------------------------------------------------------------------------------------------- claims

    def place(self, requests: Sequence[Request], limit: int) -> list[Placement | None]:
        """Match requests, in order, to the offers held. None for a request without room.

        Each placement carries a claim; the caller must `bind` or `rollback` each. The result is shorter than
        `requests` if `limit` placements were made: the remaining requests were not tried.
        """
        classes = self._classes_of(requests)
        self._refresh()
        slots, release_ids = self.matcher.match(classes, limit=limit)
        self._drop_classes([request for request in self._classes if request.avoid])
        return [
            Placement(self._by_slot[slot].id, release_id) if slot >= 0 else None
            for slot, release_id in zip(slots.tolist(), release_ids.tolist(), strict=True)
            if slot != UNTRIED
        ]

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
        slots, _ = self.matcher.fork().match(classes)
        return [self._by_slot[slot].id if slot >= 0 else None for slot in slots.tolist()]

    def bind(self, task_id: str, placement: Placement) -> None:
        """Give the claim of a placement to a task."""
        self._claims[task_id] = placement

    def rollback(self, placement: Placement) -> None:
        """Release the claim of a placement that has no task."""
        self._release(*placement)

    def claim(self, task_id: str, agent_id: str, request: Request) -> None:
        """Claim resources for a task that already runs."""
        entry = self._ensure(agent_id)
        self._claims[task_id] = (agent_id, self.matcher.assign(self._class_of(request), entry.slot))
        self._stale[entry.slot] = entry

    def claim_if_free(self, entry: AgentEntry, request: Request) -> Placement | None:
        """Place a request on this agent, as `place` does. None if the agent has no room."""
        self._refresh()
        need = request.resources
        if not self._executors_on[entry.id, request.executor_id]:
            need = need.plus(request.executor)
        if any(free < wanted for free, wanted in zip(self.matcher.free(entry.slot).tolist(), need, strict=True)):
            return None
        return Placement(entry.id, self.matcher.assign(self._class_of(request), entry.slot))

    def release(self, task_id: str) -> bool:
        """Release a task's claim. Returns whether it had one."""
        claim = self._claims.pop(task_id, None)
        if claim is None:
            return False
        self._release(*claim)
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
        self._release(agent_id, release_id)
        return True

    def refusal(self, request: Request) -> Refusal:
        """The reasons why `request` has no room now, and the number of agents to which each reason applies."""
        self._refresh()
        return self.matcher.refusal(self._class_of(request))

    def prune_classes(self, wanted: Iterable[Request]) -> None:
        """Drop the matcher's classes of all requests but `wanted`."""
        keep = set(wanted)
        self._drop_classes([request for request in self._classes if request not in keep])
        used = {(request.executor_id, request.executor) for request in keep}
        used |= {(request.executor_id, request.executor) for request, _ in self._reservations.values()}
        self._executor_keys = {pair: key for pair, key in self._executor_keys.items() if pair in used}

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
        for entry in self.agents.values():
            held = amounts(share for offer in entry.offers.values() for share in offer.shares)
            assert entry.offered == held, f"agent {entry.id} offers {held}, not {entry.offered}"
            roles = _roles(entry)
            assert not roles or entry.role in roles, f"agent {entry.id} has no offer of role {entry.role}"
            assert (len(roles) > 1) == (entry.slot in self._mixed), f"agent {entry.id} has offers of {roles}"
            assert min(self.matcher.free(entry.slot)) >= 0, f"agent {entry.id} is over-committed"

    # ----------------------------------------------------------------------------------------------- internal

    def _ensure(self, agent_id: str) -> AgentEntry:
        entry = self.agents.get(agent_id)
        if entry is None:
            slot = self.matcher.add_host(np.zeros(len(DIMENSIONS), dtype=np.int64))
            entry = self.agents[agent_id] = self._by_slot[slot] = AgentEntry(agent_id, slot)
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
                allowed=self._all_but(request.avoid) if request.avoid else None,
            )
        return known

    def _all_but(self, agent_id: str) -> NDArray[np.bool_]:
        """A mask of all current slots but the agent's. It lacks agents that come later, so its class is used once."""
        mask = np.zeros(max(self._by_slot) + 1, dtype=np.bool_)
        mask[[slot for slot, entry in self._by_slot.items() if entry.id != agent_id]] = True
        return mask

    def _drop_classes(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.matcher.remove_class(self._classes.pop(request))

    def _release(self, agent_id: str, release_id: int) -> None:
        self._released.append(release_id)
        entry = self.agents[agent_id]
        self._stale[entry.slot] = entry

    def whole(self, entry: AgentEntry) -> Resources:
        """The sum of an agent's offers and of our claims, now or when it was last offered."""
        self._update_whole(entry)
        return entry.whole

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
                entry.role = roles[0] if roles else ""
            if len(roles) < 2:
                del self._mixed[entry.slot]

    def _counted(self, entry: AgentEntry) -> Resources:
        """The offered resources of an agent that tasks may take now."""
        if entry.id in self.cordoned:
            return NOTHING
        if entry.slot not in self._mixed:
            return entry.offered
        return amounts(share for offer in entry.offers.values() if offer.role == entry.role for share in offer.shares)

    def _refresh(self) -> None:
        """Bring the matcher up to date with the changes on agents."""
        if self._stale:
            simple = not self._mixed and not self.cordoned
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
