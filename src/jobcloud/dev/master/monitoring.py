"""JSON for monitoring and for the Mesos command line: /tasks, /frameworks, /state-summary, /roles, /flags, metrics.

The forms were recorded on a real Mesos 1.11. Fields of features that the dev cluster lacks are left out or are zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..protocol import Json
from ..resources import NOTHING, Resources
from .state import State
from .views import Views

_DEFAULT_LIMIT = 100
_ACTIVE = ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_UNREACHABLE")
_COUNTED = (*_ACTIVE[:4], "TASK_FINISHED", "TASK_KILLED", "TASK_FAILED", "TASK_LOST", "TASK_ERROR", "TASK_UNREACHABLE")
_ENDED = (*_COUNTED[4:9], "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR")
_OF_TASKS = ("tasks", "unreachable_tasks", "completed_tasks")
_SUMMARY_OF_SLAVE = (
    "id", "hostname", "port", "attributes", "pid", "registered_time", "resources", "used_resources",
    "offered_resources", "reserved_resources", "unreserved_resources", "active", "deactivated", "version",
    "capabilities",
)  # fmt: skip
_SUMMARY_OF_FRAMEWORK = (
    "id", "name", "used_resources", "offered_resources", "capabilities", "hostname", "webui_url", "active",
    "connected", "recovered",
)  # fmt: skip


class Monitoring:
    def __init__(self, state: State, views: Views) -> None:
        self._state = state
        self._views = views

    def tasks(self, query: Mapping[str, str]) -> Json:
        """The tasks of the query, newest first (`order` asc: oldest first). `offset` and `limit` cut the list."""
        state = self._views.state()
        found = [
            task
            for framework in (*state["frameworks"], *state["completed_frameworks"])
            for key in _OF_TASKS
            for task in framework[key]
            if query.get("framework_id", task["framework_id"]) == task["framework_id"]
            and query.get("task_id", task["id"]) == task["id"]
        ]
        found.sort(key=_first_seen, reverse=query.get("order") != "asc")
        begin, limit = _number(query, "offset", 0), _number(query, "limit", _DEFAULT_LIMIT)
        return {"tasks": found[begin : begin + limit]}

    def frameworks(self, query: Mapping[str, str]) -> Json:
        state, wanted = self._views.state(), query.get("framework_id")
        shown = {
            key: [one for one in state[key] if wanted in (None, one["id"])]
            for key in ("frameworks", "completed_frameworks")
        }
        return {**shown, "unregistered_frameworks": []}

    def state_summary(self) -> Json:
        state = self._views.state()
        tasks = [
            (framework["id"], task) for framework in state["frameworks"] for key in _OF_TASKS for task in framework[key]
        ]
        slaves, frameworks = [], []
        for slave in state["slaves"]:
            here = [(owner, task) for owner, task in tasks if task["slave_id"] == slave["id"]]
            shown = {key: slave[key] for key in _SUMMARY_OF_SLAVE}
            owners = list(dict.fromkeys(owner for owner, _ in here))
            slaves.append({**shown, **_counts(task for _, task in here), "framework_ids": owners})
        for framework in state["frameworks"]:
            own = [task for owner, task in tasks if owner == framework["id"]]
            shown = {key: framework[key] for key in _SUMMARY_OF_FRAMEWORK}
            places = list(dict.fromkeys(task["slave_id"] for task in own))
            frameworks.append({**shown, **_counts(own), "slave_ids": places})
        return {"hostname": state["hostname"], "slaves": slaves, "frameworks": frameworks}

    def roles(self) -> Json:
        """The roles of frameworks and of reservations."""
        state = self._state
        allocated, offered, reserved = self._allocated(), self._offered(), self._reserved()
        named = {role for framework in state.frameworks.values() for role in framework.roles}
        return {"roles": [self._role(role, allocated, offered, reserved) for role in sorted(named | reserved.keys())]}

    def _role(
        self, role: str, allocated: dict[str, Resources], offered: dict[str, Resources], reserved: dict[str, Resources]
    ) -> Json:
        used, own, free = allocated.get(role, NOTHING), reserved.get(role, NOTHING), offered.get(role, NOTHING)
        # Unused reservations count as consumed.
        consumed = Counter(_amounts(used)) + Counter(_amounts(own)) - Counter(_amounts(used.of(role)))
        return {
            "name": role,
            "weight": 1.0,
            "quota": {"role": role, "guarantee": {}, "limit": {}, "consumed": dict(consumed)},
            "resources": _amounts(used + free),
            "allocated": _amounts(used),
            "offered": _amounts(free),
            "reserved": _amounts(own),
            "frameworks": [one.id for one in self._state.frameworks.values() if role in one.roles],
        }

    def _allocated(self) -> dict[str, Resources]:
        """The resources of tasks and executors by role."""
        found: dict[str, Resources] = {}
        for framework in self._state.frameworks.values():
            for task in framework.tasks.values():
                if not task.terminal:
                    found[task.role] = found.get(task.role, NOTHING) + task.resources
        for agent in self._state.agents.values():
            for executor in agent.executors.values():
                found[executor.role] = found.get(executor.role, NOTHING) + executor.resources
        return found

    def _offered(self) -> dict[str, Resources]:
        found: dict[str, Resources] = {}
        for offer in self._state.offers.values():
            found[offer.role] = found.get(offer.role, NOTHING) + offer.resources
        return found

    def _reserved(self) -> dict[str, Resources]:
        total = NOTHING
        for agent in self._state.agents.values():
            total = total + agent.total
        return {role: total.of(role) for role in total.reserved_roles()}

    def flags(self) -> Json:
        settings = self._state.settings
        flags = {
            "agent_reregister_timeout": f"{settings.agent_reregister_timeout_ms // 1000}secs",
            "allocation_interval": f"{settings.allocation_interval_ms}ms",
            "allocator": "hierarchical",
            "authenticate_agents": "false",
            "authenticate_frameworks": "false",
            "authenticate_http_frameworks": "false",
            "authenticate_http_readonly": "false",
            "authenticate_http_readwrite": "false",
            "filter_gpu_resources": "true",
            "framework_sorter": "drf",
            "hostname": settings.hostname,
            "max_completed_frameworks": "50",
            "max_completed_tasks_per_framework": "1000",
            "min_allocatable_resources": "cpus:0.01|mem:32",
            "port": str(settings.port),
            "role_sorter": "drf",
            "version": "false",
        }
        if settings.offer_timeout_ms is not None:
            flags["offer_timeout"] = f"{settings.offer_timeout_ms}ms"
        return {"flags": flags}

    def redirect(self) -> str:
        """The leading master, as the target of a redirect."""
        return f"//{self._state.settings.hostname}:{self._state.settings.port}"

    def metrics(self) -> Json:
        state = self._state
        frameworks, agents = state.frameworks.values(), state.agents.values()
        connected = sum(framework.connected for framework in frameworks)
        linked = sum(agent.connected for agent in agents)
        active = sum(agent.connected and agent.agent_id not in state.deactivated for agent in agents)
        shown: dict[str, float] = {
            "elected": 1,
            "uptime_secs": max(0, state.now - state.started_at) / 1000,
            "frameworks_active": connected,
            "frameworks_connected": connected,
            "frameworks_disconnected": len(frameworks) - connected,
            "frameworks_inactive": len(frameworks) - connected,
            "slaves_active": active,
            "slaves_connected": linked,
            "slaves_disconnected": len(agents) - linked,
            "slaves_inactive": len(agents) - active,
            "slaves_unreachable": len(state.unreachable),
            "outstanding_offers": len(state.offers),
        }
        for name in ("cpus", "mem", "disk", "gpus"):
            total = sum(agent.total.amount(name) for agent in agents) / 1000
            used = sum(agent.used().amount(name) for agent in agents) / 1000
            shown |= {f"{name}_total": total, f"{name}_used": used, f"{name}_percent": used / total if total else 0}
        running = Counter(task.state for one in frameworks for task in (*one.tasks.values(), *one.unreachable.values()))
        shown |= {_metric(name): running[name] for name in _ACTIVE}
        shown |= {_metric(name): state.ended_tasks[name] for name in _ENDED}
        return {f"master/{name}": float(value) for name, value in shown.items()}


def _metric(state: str) -> str:
    return "tasks_" + state.removeprefix("TASK_").lower()


def _counts(tasks: Iterable[Json]) -> Json:
    counts = Counter(task["state"] for task in tasks)
    return {state: counts[state] for state in _COUNTED}


def _first_seen(task: Json) -> float:
    return min((one.get("timestamp", 0.0) for one in task["statuses"]), default=0.0)


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def _amounts(resources: Resources) -> dict[str, float]:
    """The amount of each resource over all reservations. The amount of a range is the number of its values."""
    found: dict[str, float] = {}
    for name, amount in _entries(resources):
        found[name] = round(found.get(name, 0.0) + amount, 3)
    return found


def _entries(resources: Resources) -> Iterator[tuple[str, float]]:
    for (name, _), amount in resources.scalars.items():
        yield name, amount / 1000
    for (name, _), spans in resources.ranges.items():
        yield name, float(sum(end - begin + 1 for begin, end in spans))
