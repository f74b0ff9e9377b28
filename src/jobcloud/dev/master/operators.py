"""Calls of operators: agents marked gone, frameworks torn down, maintenance, drains.

Source: src/master/{http,master,maintenance}.cpp and src/master/allocator/mesos/hierarchical.cpp of Mesos 1.11.0. The
contract suite compares this module with a real Mesos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ..protocol import DrainAgent, Json, Operate, Reply, ShutdownAgent
from ..schema import OPERATOR_CALL, CallError
from .agents import Agents
from .frameworks import Frameworks
from .inverse_offers import InverseOffers
from .records import Drain, Machine, machine_key
from .state import State
from .views import Views


class _Refused(ValueError):
    """A call is invalid. It is answered with 400 and the text of this error."""


class OperatorCalls:
    def __init__(
        self, state: State, views: Views, frameworks: Frameworks, agents: Agents, inverse_offers: InverseOffers
    ) -> None:
        self._state = state
        self._views = views
        self._frameworks = frameworks
        self._agents = agents
        self._inverse_offers = inverse_offers
        self._handlers: dict[Any, Callable[[Json], None]] = {
            "MARK_AGENT_GONE": self._mark_agent_gone,
            "TEARDOWN": self._teardown,
            "UPDATE_MAINTENANCE_SCHEDULE": self._update_maintenance_schedule,
            "START_MAINTENANCE": self._start_maintenance,
            "STOP_MAINTENANCE": self._stop_maintenance,
            "DRAIN_AGENT": self._drain_agent,
            "DEACTIVATE_AGENT": self._deactivate_agent,
            "REACTIVATE_AGENT": self._reactivate_agent,
        }

    def on_call(self, event: Operate) -> None:
        try:
            self._perform(event.body)
        except CallError as refused:
            self._reply(400, f"Failed to convert JSON into Call protobuf: {refused}")
        except _Refused as refused:
            self._reply(400, str(refused))

    def _perform(self, call: Any) -> None:
        OPERATOR_CALL(call)
        kind = call.get("type")
        if kind not in self._handlers:
            answer = self._views.operator_answer(kind)
            if answer is None:
                raise _Refused(f"The dev cluster does not support the operator call {kind!r}")
            self._reply(200, answer)
            return
        part = call.get(kind.lower())
        if part is None:
            raise _Refused(f"Failed to validate master::Call: Expecting '{kind.lower()}' to be present")
        self._handlers[kind](part)

    def _reply(self, status: int, body: str | Json = "") -> None:
        self._state.effects.append(Reply(status, body))

    # ---- removal of agents and frameworks --------------------------------------------------------------------

    def _mark_agent_gone(self, call: Json) -> None:
        agent_id = call["agent_id"]["value"]
        if agent_id in self._state.gone:
            self._reply(200)
        elif self._is_known(agent_id):
            self._reply(200)
            self._agents.mark_gone(agent_id)
        else:
            self._reply(404, "Agent not found")

    def _is_known(self, agent_id: str) -> bool:
        state = self._state
        return agent_id in state.agents or agent_id in state.unreachable or agent_id in state.recovering

    def _teardown(self, call: Json) -> None:
        framework_id = call["framework_id"]["value"]
        if framework_id not in self._state.frameworks:
            raise _Refused(f"No framework found with ID {framework_id}")
        self._reply(200)
        self._frameworks.remove(self._state.frameworks[framework_id])

    # ---- maintenance -----------------------------------------------------------------------------------------

    def _update_maintenance_schedule(self, call: Json) -> None:
        state, windows = self._state, (call.get("schedule") or {}).get("windows") or []
        unavailability = _unavailability(windows)
        for machine_id in (machine_id for window in state.windows for machine_id in window["machine_ids"]):
            machine = machine_key(machine_id)
            if state.machine_modes[machine] == "DOWN" and machine not in unavailability:
                raise _Refused(
                    f"Machine '{_quoted(machine_id)}' is deactivated and cannot be removed from the schedule"
                )
        self._reply(200)
        state.machine_modes = {machine: state.machine_modes.get(machine, "DRAINING") for machine in unavailability}
        state.windows = windows
        state.unavailability = unavailability
        for agent in state.agents.values():  # Mesos resets every agent, even if its window did not change
            state.rescind_all(agent.offers.values())
            self._inverse_offers.reset_agent(agent)
        state.allocation_wanted = True

    def _start_maintenance(self, call: Json) -> None:
        state, text = self._state, "Operator initiated 'Machine DOWN'"
        for machine in self._machines(call, "DRAINING", "is not in DRAINING mode and cannot be brought down"):
            state.machine_modes[machine] = "DOWN"
            for agent in [agent for agent in state.agents.values() if agent.machine == machine]:
                state.send_to_agent(agent, ShutdownAgent(text))
                self._agents.remove(agent, f"Agent {agent.hostname} removed: {text}", "TASK_LOST")
        self._reply(200)

    def _stop_maintenance(self, call: Json) -> None:
        state = self._state
        for machine in self._machines(call, "DOWN", "is not in DOWN mode and cannot be brought up"):
            del state.machine_modes[machine], state.unavailability[machine]
        windows = []
        for window in state.windows:
            machine_ids = [one for one in window["machine_ids"] if machine_key(one) in state.machine_modes]
            if machine_ids:
                windows.append({**window, "machine_ids": machine_ids})
        state.windows = windows
        self._reply(200)

    def _machines(self, call: Json, mode: str, otherwise: str) -> list[Machine]:
        """The machines of a call. Raises _Refused with `otherwise` if one of them is not in this mode."""
        machine_ids = call.get("machines") or []
        if not machine_ids:
            raise _Refused("List of machines is empty")
        modes = self._state.machine_modes
        registered = {agent.machine for agent in self._state.agents.values()}
        for machine_id in machine_ids:
            machine = machine_key(machine_id)
            if machine not in modes and machine not in registered:
                raise _Refused(f"Machine '{_quoted(machine_id)}' is not part of a maintenance schedule")
            if modes.get(machine) != mode:
                raise _Refused(f"Machine '{_quoted(machine_id)}' {otherwise}")
        return [machine_key(machine_id) for machine_id in machine_ids]

    # ---- drains ----------------------------------------------------------------------------------------------

    def _drain_agent(self, call: Json) -> None:
        state, agent_id = self._state, self._known_agent(call)
        config: Json = {"mark_gone": call.get("mark_gone", False)}
        if "max_grace_period" in call:
            given = call["max_grace_period"]
            grace_ns = given.get("seconds", 0) * 10**9 + given.get("nanos", 0)
            config["max_grace_period"] = {"nanoseconds": max(grace_ns, 0)}
        self._reply(200)
        state.drains[agent_id] = Drain(config, state.now)
        self._deactivate(agent_id)
        if agent_id in state.agents:
            state.send_to_agent(state.agents[agent_id], DrainAgent(config))

    def _deactivate_agent(self, call: Json) -> None:
        agent_id = self._known_agent(call)
        self._reply(200)
        self._deactivate(agent_id)

    def _deactivate(self, agent_id: str) -> None:
        state = self._state
        state.deactivated.add(agent_id)
        agent = state.agents.get(agent_id)
        if agent is not None:
            state.allocator.set_active(agent_id, False)
            state.rescind_all(agent.offers.values())

    def _reactivate_agent(self, call: Json) -> None:
        state, agent_id = self._state, call["agent_id"]["value"]
        if agent_id not in state.deactivated:
            raise _Refused("Agent is not deactivated")
        if agent_id in state.drains and not state.drains[agent_id].done:
            raise _Refused("Agent is still in the DRAINING state")
        self._reply(200)
        state.deactivated.discard(agent_id)
        drain = state.drains.pop(agent_id, None)
        agent = state.agents.get(agent_id)
        if agent is not None:
            if drain is not None:
                state.send_to_agent(agent, DrainAgent(None))
            state.allocator.set_active(agent_id, agent.connected)
            state.allocation_wanted = True

    def _known_agent(self, call: Json) -> str:
        agent_id = str(call["agent_id"]["value"])
        if not self._is_known(agent_id):
            raise _Refused("Unknown agent")
        return agent_id

    def finish_drains(self) -> None:
        """Complete each drain whose agent has no tasks left: the terminal updates of all tasks were acknowledged."""
        state = self._state
        for agent_id, drain in list(state.drains.items()):
            agent = state.agents.get(agent_id)
            if not drain.done and agent is not None and not agent.tasks:
                drain.done = True
                if drain.config["mark_gone"]:
                    self._agents.mark_gone(agent_id)


def _quoted(machine_id: Json) -> str:
    return json.dumps(machine_id, separators=(",", ":"))


def _unavailability(windows: Iterable[Json]) -> dict[Machine, Json]:
    """The unavailability of each machine. Removes unknown fields from the machines in `windows`.

    Raises _Refused. The checks have Mesos' order, and the errors have Mesos' words.
    """
    found: dict[Machine, Json] = {}
    for window in windows:
        if not window.get("machine_ids"):
            raise _Refused("List of machines in the maintenance window is empty")
        machine_ids = window["machine_ids"]
        window["machine_ids"] = [{key: one[key] for key in ("hostname", "ip") if key in one} for one in machine_ids]
        if (window["unavailability"].get("duration") or {}).get("nanoseconds", 0) < 0:
            raise _Refused("Unavailability 'duration' is negative")
        for machine_id in window["machine_ids"]:
            if not machine_id.get("hostname") and not machine_id.get("ip"):
                raise _Refused("Both 'hostname' and 'ip' for a machine are empty")
            if machine_key(machine_id) in found:
                raise _Refused(f"Machine '{_quoted(machine_id)}' appears more than once in the schedule")
            found[machine_key(machine_id)] = window["unavailability"]
    return found
