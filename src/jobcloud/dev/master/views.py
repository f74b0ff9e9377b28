"""JSON views of the master: /state, read-only operator calls, and offers as frameworks receive them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from ..protocol import VERSION, Json
from ..resources import NOTHING, UNRESERVED, Resources
from .records import (
    AgentRecord,
    ExecutorRecord,
    FrameworkRecord,
    InverseOfferRecord,
    OfferRecord,
    TaskRecord,
    machine_key,
)
from .state import State

_AGENT_CAPABILITIES = ("MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "AGENT_DRAINING")
_LOOPBACK = 0x0100007F  # 127.0.0.1 as MasterInfo encodes it: network byte order, read as a little-endian number


class Views:
    def __init__(self, state: State) -> None:
        self._state = state
        self._operator_calls: dict[str, Callable[[], Json]] = {
            "GET_HEALTH": lambda: {"healthy": True},
            "GET_VERSION": lambda: {"version_info": {"version": VERSION}},
            "GET_MASTER": lambda: {"master_info": self.master_info()},
            "GET_AGENTS": self._get_agents,
            "GET_FRAMEWORKS": self._get_frameworks,
            "GET_TASKS": self._get_tasks,
            "GET_EXECUTORS": self._get_executors,
            "GET_STATE": self._get_state,
            "GET_MAINTENANCE_SCHEDULE": lambda: {"schedule": self.maintenance_schedule()},
            "GET_MAINTENANCE_STATUS": lambda: {"status": self.maintenance_status()},
        }

    # ---- v1 API --------------------------------------------------------------------------------------------

    def master_info(self) -> Json:
        settings = self._state.settings
        return {
            "id": settings.master_id,
            "ip": _LOOPBACK,
            "port": settings.port,
            "pid": f"master@127.0.0.1:{settings.port}",
            "hostname": settings.hostname,
            "version": VERSION,
            "address": {"hostname": settings.hostname, "ip": "127.0.0.1", "port": settings.port},
            "capabilities": [{"type": "AGENT_UPDATE"}, {"type": "AGENT_DRAINING"}],
        }

    def offers(self, offers: Iterable[OfferRecord], framework: FrameworkRecord) -> list[Json]:
        """Offers in the form of an OFFERS event."""
        with_role = not framework.can("RESERVATION_REFINEMENT")
        return [self._offer(offer, framework, with_role) for offer in offers]

    def _offer(self, offer: OfferRecord, framework: FrameworkRecord, with_role: bool) -> Json:
        agent = self._state.agents[offer.agent_id]
        shown: Json = {
            "id": {"value": offer.offer_id},
            "framework_id": {"value": offer.framework_id},
            "agent_id": {"value": offer.agent_id},
            "hostname": agent.hostname,
            "url": _url(agent.hostname, agent.port),
            "resources": offer.resources.to_wire(offer.role, with_role),
            "allocation_info": {"role": offer.role},
        }
        if agent.attributes:
            shown["attributes"] = list(agent.attributes)
        unavailability = self._state.unavailability
        if unavailability and agent.machine in unavailability:
            shown["unavailability"] = unavailability[agent.machine]
        executors = [executor_id for framework_id, executor_id in agent.executors if framework_id == framework.id]
        if executors:
            shown["executor_ids"] = [{"value": executor_id} for executor_id in executors]
        return shown

    def inverse_offer(self, inverse: InverseOfferRecord, window: Json) -> Json:
        agent = self._state.agents[inverse.agent_id]
        return {
            "id": {"value": inverse.offer_id},
            "url": _url(agent.hostname, agent.port),
            "framework_id": {"value": inverse.framework_id},
            "agent_id": {"value": inverse.agent_id},
            "unavailability": window,
        }

    def operator_answer(self, kind: Any) -> Json | None:
        """The response to a read-only operator call; None if the dev cluster does not support that call."""
        make = self._operator_calls.get(kind) if isinstance(kind, str) else None
        return None if make is None else {"type": kind, kind.lower(): make()}

    def maintenance_schedule(self) -> Json:
        return {"windows": self._state.windows} if self._state.windows else {}

    def maintenance_status(self) -> Json:
        """The scheduled machines by mode. Draining machines come with the answers of frameworks to inverse offers."""
        state, draining, down = self._state, [], []
        for machine_id in (machine_id for window in state.windows for machine_id in window["machine_ids"]):
            machine = machine_key(machine_id)
            if state.machine_modes[machine] == "DOWN":
                down.append(machine_id)
                continue
            agents = [agent for agent in state.agents.values() if agent.machine == machine]
            answers = [one for agent in agents for one in state.inverse_answers.get(agent.agent_id, {}).values()]
            draining.append({"id": machine_id, "statuses": answers} if answers else {"id": machine_id})
        lists = (("draining_machines", draining), ("down_machines", down))
        return {name: machines for name, machines in lists if machines}

    def _get_state(self) -> Json:
        return {
            "get_tasks": self._get_tasks(),
            "get_executors": self._get_executors(),
            "get_frameworks": self._get_frameworks(),
            "get_agents": self._get_agents(),
        }

    def _get_agents(self) -> Json:
        return {"agents": [self._agent(agent) for agent in self._state.agents.values()]}

    def _agent(self, agent: AgentRecord) -> Json:
        offered = _sum(offer.resources for offer in agent.offers.values())
        drain = self._state.drains.get(agent.agent_id)
        more: Json = {}
        if drain is not None:
            more["drain_info"] = drain.to_wire()
            more["estimated_drain_start_time"] = {"nanoseconds": drain.since // 1000 * 1_000_000_000}
        return {
            "agent_info": {
                "hostname": agent.hostname,
                "port": agent.port,
                "resources": agent.total.to_wire(),
                "attributes": list(agent.attributes),
                "id": {"value": agent.agent_id},
            },
            **self._activity(agent),
            "version": VERSION,
            "pid": f"slave(1)@127.0.0.1:{agent.port}",
            "registered_time": {"nanoseconds": agent.registered_at * 1_000_000},
            "total_resources": agent.total.to_wire(),
            "allocated_resources": agent.used().to_wire(),
            "offered_resources": offered.to_wire(),
            **more,
        }

    def _activity(self, agent: AgentRecord) -> Json:
        deactivated = agent.agent_id in self._state.deactivated
        return {"active": agent.connected and not deactivated, "deactivated": deactivated}

    def _get_frameworks(self) -> Json:
        state = self._state
        return {
            "frameworks": [self._framework(one) for one in state.frameworks.values()],
            "completed_frameworks": [self._framework(one) for one in state.removed_frameworks.values()],
        }

    def _framework(self, framework: FrameworkRecord) -> Json:
        shown: Json = {
            "framework_info": framework.info,
            "active": framework.connected,
            "connected": framework.connected,
            "recovered": framework.recovered,
            "registered_time": {"nanoseconds": framework.registered_at * 1_000_000},
            "reregistered_time": {"nanoseconds": framework.reregistered_at * 1_000_000},
        }
        if framework.offers:
            shown["offers"] = self.offers(framework.offers.values(), framework)
        return shown

    def _get_tasks(self) -> Json:
        shown: dict[str, list[Json]] = {"tasks": [], "unreachable_tasks": [], "completed_tasks": []}
        for framework in self._state.frameworks.values():
            shown["tasks"] += [_task(one) for one in framework.tasks.values()]
            shown["unreachable_tasks"] += [_task(one) for one in framework.unreachable.values()]
            shown["completed_tasks"] += [_task(one) for one in framework.completed]
        for framework in self._state.removed_frameworks.values():
            shown["completed_tasks"] += [_task(one) for one in framework.completed]
        return shown

    def _get_executors(self) -> Json:
        return {
            "executors": [
                {"executor_info": executor.info, "agent_id": {"value": agent.agent_id}}
                for agent in self._state.agents.values()
                for executor in agent.executors.values()
            ]
        }

    # ---- /state ----------------------------------------------------------------------------------------------

    def state(self) -> Json:
        state, settings = self._state, self._state.settings
        pid = f"master@127.0.0.1:{settings.port}"
        return {
            "version": VERSION,
            "id": settings.master_id,
            "pid": pid,
            "hostname": settings.hostname,
            "start_time": state.started_at / 1000,
            "elected_time": state.started_at / 1000,
            "leader": pid,
            "leader_info": {"id": settings.master_id, "pid": pid, "port": settings.port, "hostname": settings.hostname},
            "activated_slaves": float(sum(agent.connected for agent in state.agents.values())),
            "deactivated_slaves": float(sum(not agent.connected for agent in state.agents.values())),
            "unreachable_slaves": float(len(state.unreachable)),
            "slaves": [self._slave(agent) for agent in state.agents.values()],
            "recovered_slaves": [{"id": agent_id} for agent_id in sorted(state.recovering)],
            "frameworks": [self._state_framework(one) for one in state.frameworks.values()],
            "completed_frameworks": [self._state_framework(one) for one in state.removed_frameworks.values()],
            "orphan_tasks": [],
            "unregistered_frameworks": [],
        }

    def _slave(self, agent: AgentRecord) -> Json:
        drain = self._state.drains.get(agent.agent_id)
        more: Json = {}
        if drain is not None:
            more = {"drain_info": drain.to_wire(), "estimated_drain_start_time_seconds": drain.since / 1000}
        return {
            "id": agent.agent_id,
            "hostname": agent.hostname,
            "port": agent.port,
            "pid": f"slave(1)@127.0.0.1:{agent.port}",
            "attributes": {one["name"]: _attribute(one) for one in agent.attributes},
            "registered_time": agent.registered_at / 1000,
            "resources": _summary(agent.total),
            "used_resources": _summary(agent.used()),
            "offered_resources": _summary(_sum(offer.resources for offer in agent.offers.values())),
            "reserved_resources": {role: _summary(agent.total.of(role)) for role in agent.total.reserved_roles()},
            "unreserved_resources": _summary(agent.total.of(UNRESERVED)),
            **self._activity(agent),
            "version": VERSION,
            "capabilities": list(_AGENT_CAPABILITIES),
            **more,
        }

    def _state_framework(self, framework: FrameworkRecord) -> Json:
        info = framework.info
        used = _sum(task.resources for task in framework.tasks.values() if not task.terminal)
        offered = _sum(offer.resources for offer in framework.offers.values())
        executors = [
            (agent, executor)
            for agent in self._state.agents.values()
            for key, executor in agent.executors.items()
            if key[0] == framework.id
        ]
        used = used + _sum(executor.resources for _, executor in executors)
        return {
            "id": framework.id,
            "name": info["name"],
            "user": info["user"],
            "failover_timeout": info.get("failover_timeout", 0.0),
            "checkpoint": info.get("checkpoint", False),
            "hostname": info.get("hostname", ""),
            "webui_url": info.get("webui_url", ""),
            "roles": list(framework.roles),
            "capabilities": [one["type"] for one in info.get("capabilities", ()) if "type" in one],
            "active": framework.connected,
            "connected": framework.connected,
            "recovered": framework.recovered,
            "registered_time": framework.registered_at / 1000,
            "unregistered_time": 0.0,
            **({"principal": info["principal"]} if "principal" in info else {}),
            "offer_constraints": {},
            "used_resources": _summary(used),
            "offered_resources": _summary(offered),
            "resources": _summary(used + offered),
            "tasks": [_state_task(one) for one in framework.tasks.values()],
            "unreachable_tasks": [_state_task(one) for one in framework.unreachable.values()],
            "completed_tasks": [_state_task(one) for one in framework.completed],
            "executors": [_state_executor(framework, agent, executor) for agent, executor in executors],
            "offers": [
                {
                    "id": one.offer_id,
                    "framework_id": framework.id,
                    "slave_id": one.agent_id,
                    "allocation_info": {"role": one.role},
                    "resources": _summary(one.resources),
                }
                for one in framework.offers.values()
            ],
        }


@lru_cache(maxsize=16_384)
def _url(hostname: str, port: int) -> Json:
    return {
        "scheme": "http",
        "address": {"hostname": hostname, "ip": "127.0.0.1", "port": port},
        "path": "/slave(1)",
    }


def _sum(many: Iterable[Resources]) -> Resources:
    total = NOTHING
    for one in many:
        total = total + one
    return total


def _summary(resources: Resources) -> Json:
    shown: Json = {"disk": 0.0, "mem": 0.0, "gpus": 0.0, "cpus": 0.0}
    for (name, _), amount in resources.scalars.items():
        shown[name] = shown.get(name, 0.0) + amount / 1000
    for (name, _), spans in resources.ranges.items():
        shown[name] = f"[{', '.join(f'{begin}-{end}' for begin, end in spans)}]"
    return shown


def _attribute(attribute: Json) -> Any:
    return attribute["scalar"]["value"] if "scalar" in attribute else attribute["text"]["value"]


def _task(task: TaskRecord) -> Json:
    shown: Json = {
        "name": task.info.get("name", ""),
        "task_id": {"value": task.task_id},
        "framework_id": {"value": task.framework_id},
        "executor_id": {"value": task.executor_id},
        "agent_id": {"value": task.agent_id},
        "state": task.state,
        "resources": task.resources.to_wire(task.role),
        "statuses": [{k: v for k, v in one.items() if k not in ("timestamp", "message")} for one in task.statuses],
    }
    if task.update_state:
        shown["status_update_state"], shown["status_update_uuid"] = task.update_state, task.update_uuid
    if "labels" in task.info:
        shown["labels"] = task.info["labels"]
    return shown


def _state_task(task: TaskRecord) -> Json:
    return {
        "id": task.task_id,
        "name": task.info.get("name", ""),
        "framework_id": task.framework_id,
        "executor_id": task.executor_id,
        "slave_id": task.agent_id,
        "state": task.state,
        "role": task.role,
        "resources": _summary(task.resources),
        "labels": (task.info.get("labels") or {}).get("labels", []),
        "statuses": [
            {k: one[k] for k in ("state", "timestamp", "container_status", "healthy") if k in one}
            for one in task.statuses
        ],
    }


def _state_executor(framework: FrameworkRecord, agent: AgentRecord, executor: ExecutorRecord) -> Json:
    info = executor.info
    command = info.get("command") or {}
    return {
        "executor_id": info["executor_id"]["value"],
        "name": info.get("name", ""),
        "framework_id": framework.id,
        "slave_id": agent.agent_id,
        "type": info.get("type", "CUSTOM"),
        "role": executor.role,
        "resources": _summary(executor.resources),
        "command": {
            "value": command.get("value", ""),
            "argv": command.get("arguments", []),
            "uris": command.get("uris", []),
        },
    }
