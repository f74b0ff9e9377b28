"""Who is offered what: Mesos' hierarchical allocator with dominant resource fairness, without quota and weights.

All that is free on an agent goes to one (role, framework): the role with the lowest dominant share first, in it the
framework with the lowest. Source: src/master/allocator/mesos/hierarchical.cpp of Mesos 1.11.0. What changed is looked
at only: an agent is a candidate while something was freed there or a filter may have hidden it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .resources import Resources

# --min_allocatable_resources of a Mesos master: less than both is not worth an offer.
MIN_CPUS, MIN_MEM = 10, 32_000
DEFAULT_REFUSE_SECONDS = 5.0
_MAX_REFUSE_SECONDS = 365 * 24 * 3600.0


@dataclass(slots=True)
class Client:
    """A framework as the allocator sees it."""

    roles: tuple[str, ...]
    gpu_aware: bool
    active: bool = True
    suppressed: set[str] = field(default_factory=set)
    allocated: dict[str, dict[str, int]] = field(default_factory=dict)  # by role, then resource name; with offers
    filters: dict[tuple[str, str], list[tuple[int, Resources]]] = field(default_factory=dict)  # by role and agent


@dataclass(slots=True)
class Host:
    """An agent as the allocator sees it."""

    total: Resources
    free: Resources
    active: bool = True


class Allocator:
    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        self.clients: dict[str, Client] = {}
        self.hosts: dict[str, Host] = {}
        self._candidates: dict[str, None] = {}  # agents to look at, oldest first
        self._totals: dict[str, int] = {}

    @property
    def waiting(self) -> bool:
        """Whether a later look at the candidates could lead to an offer."""
        return bool(self._candidates) and any(client.active for client in self.clients.values())

    def add_client(self, framework_id: str, roles: Iterable[str], suppressed: Iterable[str], gpu_aware: bool) -> None:
        client = self.clients.get(framework_id)
        if client is None:
            client = self.clients[framework_id] = Client(tuple(roles), gpu_aware)
        client.roles, client.gpu_aware, client.active = tuple(roles), gpu_aware, True
        client.suppressed = set(suppressed)
        self._candidates.update(dict.fromkeys(self.hosts))

    def deactivate_client(self, framework_id: str) -> None:
        """No more offers; filters are forgotten, what it uses is not."""
        self.clients[framework_id].active = False
        self.clients[framework_id].filters.clear()

    def remove_client(self, framework_id: str) -> None:
        del self.clients[framework_id]
        self._candidates.update(dict.fromkeys(self.hosts))

    def add_host(self, agent_id: str, total: Resources, free: Resources) -> None:
        self.hosts[agent_id] = Host(total, free)
        self._count(total, 1)
        self._candidates[agent_id] = None

    def remove_host(self, agent_id: str) -> None:
        self._count(self.hosts.pop(agent_id).total, -1)
        self._candidates.pop(agent_id, None)
        for client in self.clients.values():
            for role in client.roles:
                client.filters.pop((role, agent_id), None)

    def activate_host(self, agent_id: str, active: bool) -> None:
        self.hosts[agent_id].active = active
        self._candidates[agent_id] = None

    def suppress(self, framework_id: str, roles: Iterable[str]) -> None:
        client = self.clients[framework_id]
        client.suppressed.update(roles or client.roles)

    def revive(self, framework_id: str, roles: Iterable[str]) -> None:
        """Wants offers again, and forgets what it declined (of `roles`; of all its roles if none are named)."""
        client = self.clients[framework_id]
        revived = set(roles or client.roles)
        client.suppressed -= revived
        client.filters = {key: found for key, found in client.filters.items() if key[0] not in revived}
        self._candidates.update(dict.fromkeys(self.hosts))

    def charge(self, framework_id: str, role: str, resources: Resources, sign: int = 1) -> None:
        """Count resources as allocated (offered or used) to a framework, or no more."""
        client = self.clients.get(framework_id)
        if client is not None:
            counts = client.allocated.setdefault(role, {})
            for (name, _), amount in resources.scalars.items():
                counts[name] = counts.get(name, 0) + sign * amount

    def take(self, agent_id: str, framework_id: str, role: str, resources: Resources) -> None:
        host = self.hosts[agent_id]
        host.free = host.free - resources
        self.charge(framework_id, role, resources)

    def recover(
        self, agent_id: str, framework_id: str, role: str, resources: Resources, refuse_ms: int = 0, at_ms: int = 0
    ) -> None:
        """Resources are free again; with `refuse_ms`, that framework does not want these before so long."""
        self.charge(framework_id, role, resources, -1)
        host = self.hosts.get(agent_id)
        if host is None or not resources:
            return
        host.free = host.free + resources
        self._candidates[agent_id] = None
        client = self.clients.get(framework_id)
        if refuse_ms > 0 and client is not None and client.active:
            until = at_ms + max(refuse_ms, self.interval_ms)
            client.filters.setdefault((role, agent_id), []).append((until, resources))

    def allocate(self, at_ms: int) -> Iterator[tuple[str, str, str, Resources]]:
        """(agent, framework, role, resources) to offer now; each is taken already when it is given."""
        candidates, self._candidates = self._candidates, {}
        wanting = self._wanting()
        for agent_id in candidates:
            host = self.hosts[agent_id]
            if not host.active:
                continue
            hidden = False
            for framework_id, role in self._in_turn(wanting):
                client = self.clients[framework_id]
                usable = host.free.usable_by(role)
                if usable.amount("cpus") < MIN_CPUS and usable.amount("mem") < MIN_MEM:
                    continue
                if host.total.amount("gpus") and not client.gpu_aware:
                    continue
                if self._refused(client, (role, agent_id), usable, at_ms):
                    hidden = True
                    continue
                self.take(agent_id, framework_id, role, usable)
                yield agent_id, framework_id, role, usable
            if hidden:
                self._candidates[agent_id] = None

    def _wanting(self) -> list[tuple[str, str]]:
        """(framework, role) of those who want offers."""
        return [
            (framework_id, role)
            for framework_id, client in self.clients.items()
            if client.active
            for role in client.roles
            if role not in client.suppressed
        ]

    def _in_turn(self, wanting: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The poorest first."""
        if len(wanting) < 2:
            return wanting
        shares: dict[str, float] = {}
        for role in {role for _, role in wanting}:
            counts: dict[str, int] = {}
            for client in self.clients.values():
                for name, amount in client.allocated.get(role, {}).items():
                    counts[name] = counts.get(name, 0) + amount
            shares[role] = self._share(counts)
        return sorted(wanting, key=lambda one: (shares[one[1]], one[1], self._client_share(*one)))

    def _client_share(self, framework_id: str, role: str) -> float:
        return self._share(self.clients[framework_id].allocated.get(role, {}))

    def _share(self, counts: dict[str, int]) -> float:
        return max(
            (amount / self._totals[name] for name, amount in counts.items() if self._totals.get(name)), default=0.0
        )

    @staticmethod
    def _refused(client: Client, key: tuple[str, str], resources: Resources, at_ms: int) -> bool:
        filters = client.filters.get(key)
        if not filters:
            return False
        client.filters[key] = alive = [one for one in filters if one[0] > at_ms]
        return any(refused.contains(resources) for _, refused in alive)

    def _count(self, total: Resources, sign: int) -> None:
        for (name, _), amount in total.scalars.items():
            self._totals[name] = self._totals.get(name, 0) + sign * amount


def refuse_ms(filters: dict[str, float] | None) -> int:
    """How long the `filters` of an ACCEPT or DECLINE hide what was refused; Mesos' own limits and default apply."""
    seconds = (filters or {}).get("refuse_seconds", DEFAULT_REFUSE_SECONDS)
    if seconds < 0:
        seconds = DEFAULT_REFUSE_SECONDS
    return int(min(seconds, _MAX_REFUSE_SECONDS) * 1000)
