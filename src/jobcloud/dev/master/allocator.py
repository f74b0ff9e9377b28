"""Mesos' hierarchical allocator: dominant resource fairness between roles and frameworks, no quota and no weights.

First comes the role with the lowest dominant share, and in this role the framework with the lowest share. This
framework is offered all free resources of an agent that the role may use. The rest goes to the next framework in this
order. An agent is considered again after its resources or the frameworks have changed, and as long as a filter hides
some of its resources. Source: src/master/allocator/mesos/hierarchical.cpp of Mesos 1.11.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..resources import Resources

# --min_allocatable_resources of a Mesos master, in thousandths. An agent is not offered if both its free cpus
# and its free memory are below these amounts.
MIN_CPUS, MIN_MEM = 10, 32_000
DEFAULT_REFUSE_SECONDS = 5.0
_MAX_REFUSE_SECONDS = 365 * 24 * 3600.0


@dataclass(slots=True)
class Client:
    """The allocator's record of a framework."""

    roles: tuple[str, ...]
    gpu_aware: bool
    active: bool = True
    suppressed: set[str] = field(default_factory=set)
    allocated: dict[str, dict[str, int]] = field(default_factory=dict)  # by role and resource name; includes offers
    filters: dict[tuple[str, str], list[tuple[int, Resources]]] = field(default_factory=dict)  # by role and agent


@dataclass(slots=True)
class Capacity:
    """The allocator's record of an agent."""

    total: Resources
    free: Resources
    active: bool = True


class Allocator:
    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        self.clients: dict[str, Client] = {}  # by framework id
        self.agents: dict[str, Capacity] = {}
        self._candidates: dict[str, None] = {}  # agents to consider, oldest first
        self._totals: dict[str, int] = {}

    @property
    def has_work(self) -> bool:
        """Whether a later call of `allocate` could yield an offer."""
        return bool(self._candidates) and any(client.active for client in self.clients.values())

    def add_client(self, framework_id: str, roles: Iterable[str], suppressed: Iterable[str], gpu_aware: bool) -> None:
        """Add a framework, or update and activate a known one."""
        client = self.clients.get(framework_id)
        if client is None:
            client = self.clients[framework_id] = Client(tuple(roles), gpu_aware)
        client.roles, client.gpu_aware, client.active = tuple(roles), gpu_aware, True
        client.suppressed = set(suppressed)
        self._candidates.update(dict.fromkeys(self.agents))

    def deactivate_client(self, framework_id: str) -> None:
        """Stop offers to a framework and drop its filters. Its allocations stay counted."""
        self.clients[framework_id].active = False
        self.clients[framework_id].filters.clear()

    def remove_client(self, framework_id: str) -> None:
        del self.clients[framework_id]
        self._candidates.update(dict.fromkeys(self.agents))

    def add_agent(self, agent_id: str, total: Resources, free: Resources) -> None:
        self.agents[agent_id] = Capacity(total, free)
        self._count_total(total, 1)
        self._candidates[agent_id] = None

    def remove_agent(self, agent_id: str) -> None:
        self._count_total(self.agents.pop(agent_id).total, -1)
        self._candidates.pop(agent_id, None)
        for client in self.clients.values():
            for role in client.roles:
                client.filters.pop((role, agent_id), None)

    def set_active(self, agent_id: str, active: bool) -> None:
        """Start or stop offers of an agent."""
        self.agents[agent_id].active = active
        self._candidates[agent_id] = None

    def suppress(self, framework_id: str, roles: Iterable[str]) -> None:
        """Stop offers to a framework for `roles`, or for all its roles if none are given."""
        client = self.clients[framework_id]
        client.suppressed.update(roles or client.roles)

    def revive(self, framework_id: str, roles: Iterable[str]) -> None:
        """Resume offers to a framework and drop its filters, for `roles` or for all its roles if none are given."""
        client = self.clients[framework_id]
        revived = set(roles or client.roles)
        client.suppressed -= revived
        client.filters = {key: found for key, found in client.filters.items() if key[0] not in revived}
        self._candidates.update(dict.fromkeys(self.agents))

    def charge(self, framework_id: str, role: str, resources: Resources, sign: int = 1) -> None:
        """Add resources to a framework's allocation, which counts both offers and usage; `sign` -1 subtracts them."""
        client = self.clients.get(framework_id)
        if client is not None:
            counts = client.allocated.setdefault(role, {})
            for (name, _), amount in resources.scalars.items():
                counts[name] = counts.get(name, 0) + sign * amount

    def recover(
        self, agent_id: str, framework_id: str, role: str, resources: Resources, refuse_ms: int = 0, at_ms: int = 0
    ) -> None:
        """Free resources, and do not offer them to the same role of the framework for a while.

        The time is `refuse_ms`, at least `interval_ms`. It ends earlier if more of the agent becomes free.
        """
        self.charge(framework_id, role, resources, -1)
        agent = self.agents.get(agent_id)
        if agent is None or not resources:
            return
        agent.free = agent.free + resources
        self._candidates[agent_id] = None
        client = self.clients.get(framework_id)
        if refuse_ms > 0 and client is not None and client.active:
            until = at_ms + max(refuse_ms, self.interval_ms)
            client.filters.setdefault((role, agent_id), []).append((until, resources))

    def allocate(self, at_ms: int) -> Iterator[tuple[str, str, str, Resources]]:
        """Yield (agent id, framework id, role, resources) to offer now. It charges resources before it yields them."""
        candidates, self._candidates = self._candidates, {}
        eligible = self._eligible()
        for agent_id in candidates:
            agent = self.agents[agent_id]
            if not agent.active:
                continue
            hidden = False
            for framework_id, role in self._by_share(eligible):
                client = self.clients[framework_id]
                usable = agent.free.usable_by(role)
                if usable.amount("cpus") < MIN_CPUS and usable.amount("mem") < MIN_MEM:
                    continue
                if agent.total.amount("gpus") and not client.gpu_aware:
                    continue
                if self._is_filtered(client, (role, agent_id), usable, at_ms):
                    hidden = True
                    continue
                agent.free = agent.free - usable
                self.charge(framework_id, role, usable)
                yield agent_id, framework_id, role, usable
            if hidden:
                self._candidates[agent_id] = None

    def _eligible(self) -> list[tuple[str, str]]:
        """(framework id, role) pairs that want offers."""
        return [
            (framework_id, role)
            for framework_id, client in self.clients.items()
            if client.active
            for role in client.roles
            if role not in client.suppressed
        ]

    def _by_share(self, eligible: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The same pairs, sorted by the dominant share of the role, then of the framework in the role."""
        if len(eligible) < 2:
            return eligible
        shares: dict[str, float] = {}
        for role in {role for _, role in eligible}:
            counts: dict[str, int] = {}
            for client in self.clients.values():
                for name, amount in client.allocated.get(role, {}).items():
                    counts[name] = counts.get(name, 0) + amount
            shares[role] = self._share(counts)
        return sorted(eligible, key=lambda one: (shares[one[1]], one[1], self._client_share(*one)))

    def _client_share(self, framework_id: str, role: str) -> float:
        return self._share(self.clients[framework_id].allocated.get(role, {}))

    def _share(self, counts: dict[str, int]) -> float:
        return max(
            (amount / self._totals[name] for name, amount in counts.items() if self._totals.get(name)), default=0.0
        )

    @staticmethod
    def _is_filtered(client: Client, key: tuple[str, str], resources: Resources, at_ms: int) -> bool:
        """Whether a live filter covers the resources. Drops expired filters."""
        filters = client.filters.get(key)
        if not filters:
            return False
        client.filters[key] = alive = [one for one in filters if one[0] > at_ms]
        return any(refused.contains(resources) for _, refused in alive)

    def _count_total(self, total: Resources, sign: int) -> None:
        for (name, _), amount in total.scalars.items():
            self._totals[name] = self._totals.get(name, 0) + sign * amount


def refuse_ms(filters: dict[str, float] | None) -> int:
    """The milliseconds that the `filters` of an ACCEPT or DECLINE ask for, within Mesos' limits."""
    seconds = (filters or {}).get("refuse_seconds", DEFAULT_REFUSE_SECONDS)
    if seconds < 0:
        seconds = DEFAULT_REFUSE_SECONDS
    return int(min(seconds, _MAX_REFUSE_SECONDS) * 1000)
