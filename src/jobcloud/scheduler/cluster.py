"""What the agents have free and what is claimed of it: offers held, the matcher's hosts, claims and executors' holds.

An agent's capacity, as the matcher sees it, is what its offers hold now plus what our own live claims use there.
So a claim stays with its task for the task's whole life, and what a release frees can be used only once Mesos has
offered it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobcloud.match import MAX_AMOUNT, UNTRIED, AnyMatcher, Refusal
from jobcloud.model import DIMENSIONS, NOTHING, Offer, Resources, Share, content_of


class Request(NamedTuple):
    """What a task asks for: its own resources and, once an agent, those of the executor it shares.

    `executor_id` is that of its content. `avoid` names an agent that it must not be placed on, or none.
    """

    resources: Resources
    executor_id: str
    executor: Resources
    avoid: str = ""


@dataclass(slots=True)
class AgentEntry:
    """One agent: where it is and which offers of it are held (id → offer, id → instant received).

    `whole` is what it offered and our claims used when it was last offered: mostly no offer of an idle agent is held.
    It is out of date while an offer is held and anything has changed: ask the cluster for it.
    """

    id: str
    slot: int
    hostname: str = ""
    address: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    offers: dict[str, Offer] = field(default_factory=dict)
    offered: Resources = NOTHING
    whole: Resources = NOTHING
    seen_ms: int = 0
    lost: bool = False


class Placement(NamedTuple):
    """A request got room on an agent; the claim is made and has this release id."""

    agent_id: str
    release_id: int


class Cluster:
    """The agents known, the offers held, and every claim on them."""

    def __init__(self, matcher: AnyMatcher) -> None:
        self._matcher = matcher
        #: release ids that the matcher has not been told of: it is told once, before it is asked next
        self._released: list[int] = []
        self.agents: dict[str, AgentEntry] = {}
        self._by_slot: dict[int, AgentEntry] = {}
        #: slots whose capacity in the matcher is out of date
        self._stale: dict[int, AgentEntry] = {}
        self._agent_of_offer: dict[str, AgentEntry] = {}
        #: agents that get nothing new
        self.closed: frozenset[str] = frozenset()
        #: offer id → instant received, in the order of receipt
        self._received: dict[str, int] = {}
        self._classes: dict[Request, int] = {}
        #: what tells executors apart for the matcher → its shared key; numbers are never used again
        self._executor_keys: dict[tuple[str, Resources], int] = {}
        self._keys_made = 0
        #: task id → (agent, release id)
        self._claims: dict[str, tuple[str, int]] = {}
        #: (agent id, executor id) → what it holds and its release id
        self._holds: dict[tuple[str, str], tuple[Request, int]] = {}
        #: (agent, content) → how many executors of it are held there
        self._living: Counter[tuple[str, str]] = Counter()

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
        entry = self._ensure(offer.agent_id)
        entry.hostname, entry.address, entry.attributes = offer.hostname, offer.address, offer.attributes
        entry.seen_ms, entry.lost = at, False
        entry.offers[offer.id] = offer
        self._agent_of_offer[offer.id] = entry
        self._received[offer.id] = at
        entry.offered = entry.offered.plus(amounts(offer.shares))
        self._stale[entry.slot] = entry

    def drop_offer(self, offer_id: str) -> bool:
        """Forget an offer that is no longer ours; whether it was held."""
        entry = self._agent_of_offer.pop(offer_id, None)
        if entry is None:
            return False
        self._size_up(entry)
        self._received.pop(offer_id)
        entry.offers.pop(offer_id)
        self._recount(entry)
        return True

    def drop_all_offers(self) -> None:
        """The master has changed or gone: no offer of before is valid."""
        for offer_id in list(self._received):
            self.drop_offer(offer_id)

    def take_offers(self, agent_id: str) -> tuple[Offer, ...]:
        """All offers of an agent, out of the book, to be used up by one ACCEPT."""
        entry = self.agents[agent_id]
        taken = tuple(entry.offers.values())
        entry.offers.clear()
        for offer in taken:
            self._agent_of_offer.pop(offer.id)
            self._received.pop(offer.id)
        self._recount(entry)
        return taken

    def offers_received_before(self, instant: int) -> list[str]:
        """Ids of offers held since before `instant`, oldest first."""
        old = []
        for offer_id, received in self._received.items():
            if received >= instant:
                break
            old.append(offer_id)
        return old

    def oldest_offers(self, number: int) -> list[str]:
        return list(self._received)[: max(number, 0)]

    def age_offers_from(self, at: int) -> None:
        """The clock was set back: no offer can have been received later than now."""
        self._received = {offer_id: min(received, at) for offer_id, received in self._received.items()}

    def oldest_received_ms(self) -> int | None:
        return next(iter(self._received.values()), None)

    def lose_agent(self, agent_id: str) -> None:
        """The agent is out of reach: its offers are void; what is claimed there stays until its tasks are told of."""
        entry = self.agents.get(agent_id)
        if entry is None:
            return
        for offer_id in list(entry.offers):
            self.drop_offer(offer_id)
        entry.lost = True

    def close_agents(self, agent_ids: Iterable[str]) -> bool:
        """These agents, and no others, get nothing new; whether one of before gets something again."""
        before, self.closed = self.closed, frozenset(agent_ids)
        for agent_id in before ^ self.closed:
            if (entry := self.agents.get(agent_id)) is not None:
                self._stale[entry.slot] = entry
        return not before <= self.closed

    def offers_of_closed(self) -> list[str]:
        """Ids of the offers held of agents that get nothing new."""
        entries = (self.agents.get(agent_id) for agent_id in sorted(self.closed))
        return [offer_id for entry in entries if entry is not None for offer_id in entry.offers]

    def forget_idle_agents(self, unseen_since: int) -> None:
        """Drop agents without offers and claims that are lost or have not been offered since `unseen_since`."""
        busy = {agent for agent, _ in self._claims.values()} | {agent for agent, _ in self._holds}
        for entry in list(self.agents.values()):
            if not entry.offers and entry.id not in busy and (entry.lost or entry.seen_ms < unseen_since):
                self._stale.pop(entry.slot, None)
                self.matcher.remove_host(entry.slot)
                del self.agents[entry.id], self._by_slot[entry.slot]

    # ------------------------------------------------------------------------------------------------- claims

    def place(self, requests: Sequence[Request], limit: int) -> list[Placement | None]:
        """Match requests, in order, to what is held. Each placement carries a claim that `settle` or `undo` ends.

        The answer ends early where `limit` placements were made: the requests beyond it were not tried.
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
        """Whether an agent offers something now and is not the only one that is there."""
        entry = self.agents.get(agent_id)
        return (
            entry is not None
            and bool(entry.offers)
            and any(other is not entry and not other.lost for other in self.agents.values())
        )

    def rehearse(self, requests: Sequence[Request]) -> list[str | None]:
        """Where `place` would put the requests, as agent ids; nothing is claimed."""
        classes = self._classes_of(requests)
        self._refresh()
        slots, _ = self.matcher.fork().match(classes)
        return [self._by_slot[slot].id if slot >= 0 else None for slot in slots.tolist()]

    def bind(self, task_id: str, placement: Placement) -> None:
        """The placement is task `task_id`'s from now on."""
        self._claims[task_id] = placement

    def rollback(self, placement: Placement) -> None:
        """Give a placement up that no task was made of."""
        self._release(*placement)

    def claim(self, task_id: str, agent_id: str, request: Request) -> None:
        """Account for a task that already runs."""
        entry = self._ensure(agent_id)
        self._claims[task_id] = (agent_id, self.matcher.assign(self._class_of(request), entry.slot))
        self._stale[entry.slot] = entry

    def claim_if_free(self, entry: AgentEntry, request: Request) -> Placement | None:
        """A placement on that very agent, as `place` gives, or None where it has no room."""
        self._refresh()
        need = request.resources
        if not self._living[entry.id, request.executor_id]:
            need = need.plus(request.executor)
        if any(free < wanted for free, wanted in zip(self.matcher.free(entry.slot).tolist(), need, strict=True)):
            return None
        return Placement(entry.id, self.matcher.assign(self._class_of(request), entry.slot))

    def release(self, task_id: str) -> bool:
        """End a task's claim, once; whether it had one."""
        claim = self._claims.pop(task_id, None)
        if claim is None:
            return False
        self._release(*claim)
        return True

    def reserve(self, agent_id: str, executor_id: str, executor: Resources) -> None:
        """Count an executor's resources for as long as it lives, whether or not it has tasks. Idempotent.

        Two of the same content on an agent, where one is about to be forgotten, count once.
        """
        if (agent_id, executor_id) in self._holds:
            return
        entry = self._ensure(agent_id)
        request = Request(NOTHING, content_of(executor_id), executor)
        self._holds[agent_id, executor_id] = request, self.matcher.assign(self._class_of(request), entry.slot)
        self._living[agent_id, request.executor_id] += 1
        self._stale[entry.slot] = entry

    def unreserve(self, agent_id: str, executor_id: str) -> bool:
        """The executor is gone; whether it was held."""
        held = self._holds.pop((agent_id, executor_id), None)
        if held is None:
            return False
        request, claim = held
        self._living[agent_id, request.executor_id] -= 1
        if not self._living[agent_id, request.executor_id]:
            del self._living[agent_id, request.executor_id]
        self._release(agent_id, claim)
        return True

    def refusal(self, request: Request) -> Refusal:
        """Why `request` finds no room now, in numbers over all agents."""
        self._refresh()
        return self.matcher.refusal(self._class_of(request))

    def prune_classes(self, wanted: Iterable[Request]) -> None:
        """Drop the matcher's classes of requests that no job makes any more."""
        keep = set(wanted)
        self._drop_classes([request for request in self._classes if request not in keep])
        used = {(request.executor_id, request.executor) for request in keep}
        used |= {(request.executor_id, request.executor) for request, _ in self._holds.values()}
        self._executor_keys = {pair: key for pair, key in self._executor_keys.items() if pair in used}

    def claimed(self, entry: AgentEntry) -> Resources:
        """What our live claims, executors included, use on an agent."""
        return Resources(*(self.matcher.capacity(entry.slot) - self.matcher.free(entry.slot)).tolist())

    def claim_count(self) -> tuple[int, int]:
        """How many tasks and how many executors are accounted for."""
        return len(self._claims), len(self._holds)

    def validate(self) -> None:
        """Check the books. Raises AssertionError."""
        self._refresh()
        self.matcher.check()
        assert self._received.keys() == self._agent_of_offer.keys(), "an offer is held by no agent"
        for entry in self.agents.values():
            held = amounts(share for offer in entry.offers.values() for share in offer.shares)
            assert entry.offered == held, f"agent {entry.id} offers {held}, not {entry.offered}"
            assert min(self.matcher.free(entry.slot)) >= 0, f"agent {entry.id} is over-committed"

    # ----------------------------------------------------------------------------------------------- internal

    def _ensure(self, agent_id: str) -> AgentEntry:
        entry = self.agents.get(agent_id)
        if entry is None:
            slot = self.matcher.add_host(np.zeros(len(DIMENSIONS), dtype=np.int64))
            entry = self.agents[agent_id] = self._by_slot[slot] = AgentEntry(agent_id, slot)
        return entry

    def _classes_of(self, requests: Sequence[Request]) -> NDArray[np.int64]:
        # Most requests are the one before, the same object: to look each up costs more than to place it.
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
        """The slots there are now, without the agent's; so a class made from it is good for one matching only."""
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
        """What an agent offers, or last offered, and what our claims used beside it."""
        self._size_up(entry)
        return entry.whole

    def _size_up(self, entry: AgentEntry) -> None:
        """An offer may come before the news of the task whose share it holds; so a release counts, too."""
        if entry.offers and entry.slot in self._stale:
            entry.whole = entry.offered.plus(self.claimed(entry))

    def _recount(self, entry: AgentEntry) -> None:
        entry.offered = amounts(share for offer in entry.offers.values() for share in offer.shares)
        self._stale[entry.slot] = entry

    def _refresh(self) -> None:
        """Tell the matcher what has changed on agents since it last was asked."""
        if self._stale:
            spare = [NOTHING if entry.id in self.closed else entry.offered for entry in self._stale.values()]
            rows = np.minimum(np.array(spare, dtype=np.int64), MAX_AMOUNT)
            slots = np.fromiter(self._stale, dtype=np.int64, count=len(spare))
            capacities = self.matcher.set_free(slots, rows).tolist()
            for entry, capacity in zip(self._stale.values(), capacities, strict=True):
                if entry.offers:
                    whole = Resources(*capacity)
                    entry.whole = whole if entry.id not in self.closed else whole.plus(entry.offered)
            self._stale.clear()


def amounts(shares: Iterable[Share]) -> Resources:
    """The sum of shares by dimension; names we do not schedule by are left out."""
    totals = dict.fromkeys(DIMENSIONS, 0)
    for share in shares:
        if share.name in totals:
            totals[share.name] += share.amount
    return Resources(**totals)


class InsufficientResources(Exception):
    """The offers at hand hold less than the books said."""


class Pool:
    """The shares of all offers of one agent, to be cut into those of tasks and executors. Reserved ones go first."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._shares: dict[str, list[Share]] = {name: [] for name in DIMENSIONS}
        for share in sorted((s for offer in offers for s in offer.shares), key=lambda s: not s.reserved):
            if share.name in self._shares:
                self._shares[share.name].append(share)
        self._left = {name: sum(share.amount for share in shares) for name, shares in self._shares.items()}

    def check(self, wanted: Resources) -> None:
        """Raises Short where the pool holds less than `wanted`."""
        left = self._left
        for name, want in _needs(wanted):
            if left[name] < want:
                short = [name for name, want in _needs(wanted) if left[name] < want]
                raise InsufficientResources(f"the agent's offers are short of {', '.join(short)}")

    def cut(self, wanted: Resources) -> tuple[Share, ...]:
        """Shares that add up to `wanted`. Raises Short, nothing cut, where the pool holds less."""
        self.check(wanted)
        cut: list[Share] = []
        for name, amount in _needs(wanted):
            self._cut_one(name, amount, cut)
            self._left[name] -= amount
        return tuple(cut)

    def _cut_one(self, name: str, missing: int, cut: list[Share]) -> None:
        shares = self._shares[name]
        while missing > 0:
            taken, rest = _split(shares[0], missing)
            cut.append(taken)
            missing -= taken.amount
            if rest is None:
                del shares[0]
            else:
                shares[0] = rest


@lru_cache(maxsize=4096)
def _needs(wanted: Resources) -> tuple[tuple[str, int], ...]:
    """The dimensions of which anything is wanted."""
    return tuple((name, want) for name, want in zip(DIMENSIONS, wanted, strict=True) if want)


def _split(share: Share, amount: int) -> tuple[Share, Share | None]:
    """`share` cut into at most `amount` and the rest; ports by their concrete ranges, lowest first."""
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
