"""What operators do to the dev master: agents marked gone, frameworks torn down, maintenance, agents drained.

Source: src/master/{http,master,maintenance}.cpp and src/master/allocator/mesos/hierarchical.cpp of Mesos 1.11.0, judged
by the contract suite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .allocator import refuse_ms
from .protocol import DrainAgent, Json, Operate, Reply, ShutdownAgent
from .registry import Agent, Framework, InverseOffer
from .schema import OPERATOR_CALL, CallError

if TYPE_CHECKING:
    from .master import Master

# Host name in lower case and IP address: both have to be those of the agent, or it is another machine.
Machine = tuple[str, str]
# The part without which a call is none.
_PARTS = (
    "MARK_AGENT_GONE",
    "TEARDOWN",
    "UPDATE_MAINTENANCE_SCHEDULE",
    "START_MAINTENANCE",
    "STOP_MAINTENANCE",
    "DRAIN_AGENT",
    "DEACTIVATE_AGENT",
    "REACTIVATE_AGENT",
)


class _Refused(ValueError):
    """A call that is answered with 400 and this text."""


@dataclass(slots=True)
class Drain:
    config: Json
    since: int
    done: bool = False

    def shown(self) -> Json:
        return {"state": "DRAINED" if self.done else "DRAINING", "config": self.config}


class Operators:
    def __init__(self, master: Master) -> None:
        self._master = master
        self.windows: list[Json] = []
        #: mode of each machine in the schedule: DRAINING or DOWN
        self.modes: dict[Machine, str] = {}
        self.drains: dict[str, Drain] = {}
        self.deactivated: set[str] = set()
        self.inverse_offers: dict[str, InverseOffer] = {}
        self._unavailable: dict[Machine, Json] = {}
        #: what frameworks have last said about an agent's window, and until when they are not asked again
        self._answers: dict[str, dict[str, Json]] = {}
        self._quiet_until: dict[tuple[str, str], int] = {}

    def take_over(self, before: Operators) -> None:
        """What a master that follows another finds in the registry."""
        self.windows, self.modes, self._unavailable = list(before.windows), dict(before.modes), before._unavailable
        self.drains, self.deactivated = dict(before.drains), set(before.deactivated)

    def handle(self, event: Operate) -> None:
        try:
            self._operate(event.body)
        except CallError as refused:
            self._reply(400, f"Failed to convert JSON into Call protobuf: {refused}")
        except _Refused as refused:
            self._reply(400, str(refused))

    def _operate(self, call: Any) -> None:
        OPERATOR_CALL(call)
        kind = call.get("type")
        if kind not in _PARTS:
            answer = self._master.view().answer(kind)
            if answer is None:
                raise _Refused(f"The dev cluster does not know the operator call {kind!r}")
            self._reply(200, answer)
            return
        part = call.get(kind.lower())
        if part is None:
            raise _Refused(f"Failed to validate master::Call: Expecting '{kind.lower()}' to be present")
        _CALLS[kind](self, part)

    def _reply(self, status: int, body: str | Json = "") -> None:
        self._master.effect(Reply(status, body))

    # ---- agents and frameworks that go -----------------------------------------------------------------------

    def _mark_agent_gone(self, call: Json) -> None:
        agent_id, master = call["agent_id"]["value"], self._master
        if agent_id in master.gone:
            self._reply(200)
        elif self._known(agent_id):
            self._reply(200)
            master.mark_gone(agent_id)
        else:
            self._reply(404, "Agent not found")

    def _known(self, agent_id: str) -> bool:
        master = self._master
        return agent_id in master.agents or agent_id in master.unreachable or agent_id in master.recovering

    def _teardown(self, call: Json) -> None:
        framework_id = call["framework_id"]["value"]
        if framework_id not in self._master.frameworks:
            raise _Refused(f"No framework found with ID {framework_id}")
        self._reply(200)
        self._master.remove_framework(self._master.frameworks[framework_id])

    # ---- maintenance: a schedule of machines -----------------------------------------------------------------

    def unavailability(self, agent: Agent) -> Json | None:
        """The window that is announced for an agent's machine."""
        return self._unavailable.get(agent.machine) if self._unavailable else None

    def is_down(self, machine: Machine) -> bool:
        return self.modes.get(machine) == "DOWN"

    def status(self) -> Json:
        """The answer to GET_MAINTENANCE_STATUS."""
        draining, down = [], []
        for given in (given for window in self.windows for given in window["machine_ids"]):
            machine = _machine(given)
            if self.modes[machine] == "DOWN":
                down.append(given)
                continue
            agents = [agent for agent in self._master.agents.values() if agent.machine == machine]
            said = [answer for agent in agents for answer in self._answers.get(agent.agent_id, {}).values()]
            draining.append({"id": given, "statuses": said} if said else {"id": given})
        lists = (("draining_machines", draining), ("down_machines", down))
        return {name: machines for name, machines in lists if machines}

    def _update_maintenance_schedule(self, call: Json) -> None:
        windows = (call.get("schedule") or {}).get("windows") or []
        scheduled = _scheduled(windows)
        for given in (given for window in self.windows for given in window["machine_ids"]):
            if self.is_down(_machine(given)) and _machine(given) not in scheduled:
                raise _Refused(f"Machine '{_shown(given)}' is deactivated and cannot be removed from the schedule")
        self._reply(200)
        self.modes = {machine: self.modes.get(machine, "DRAINING") for machine in scheduled}
        self.windows = windows
        self._unavailable = scheduled
        for agent in self._master.agents.values():
            self._forget_answers(agent)  # of all agents, whatever has changed
        self._master.allocate_soon()

    def _forget_answers(self, agent: Agent) -> None:
        """Everything offered of an agent, or asked about it, is void: frameworks hear of its new window at once."""
        for offer in list(agent.offers.values()):
            self._master.rescind(offer)
        self.withdraw(agent=agent)
        self._answers.pop(agent.agent_id, None)
        for key in [key for key in self._quiet_until if key[0] == agent.agent_id]:
            del self._quiet_until[key]

    def _start_maintenance(self, call: Json) -> None:
        for machine in self._machines(call, "DRAINING", "is not in DRAINING mode and cannot be brought down"):
            self.modes[machine] = "DOWN"
            text = "Operator initiated 'Machine DOWN'"
            for agent in [agent for agent in self._master.agents.values() if agent.machine == machine]:
                self._master.tell(agent, ShutdownAgent(text))
                self._master.remove_agent(agent, f"Agent {agent.hostname} removed: {text}", "TASK_LOST")
        self._reply(200)

    def _stop_maintenance(self, call: Json) -> None:
        for machine in self._machines(call, "DOWN", "is not in DOWN mode and cannot be brought up"):
            del self.modes[machine], self._unavailable[machine]
        kept = ({**w, "machine_ids": [m for m in w["machine_ids"] if _machine(m) in self.modes]} for w in self.windows)
        self.windows = [window for window in kept if window["machine_ids"]]
        self._reply(200)

    def _machines(self, call: Json, mode: str, otherwise: str) -> list[Machine]:
        given = call.get("machines") or []
        if not given:
            raise _Refused("List of machines is empty")
        here = {agent.machine for agent in self._master.agents.values()}
        for one in given:
            machine = _machine(one)
            if machine not in self.modes and machine not in here:
                raise _Refused(f"Machine '{_shown(one)}' is not part of a maintenance schedule")
            if self.modes.get(machine) != mode:
                raise _Refused(f"Machine '{_shown(one)}' {otherwise}")
        return [_machine(one) for one in given]

    # ---- inverse offers --------------------------------------------------------------------------------------

    def ask_for_agents(self) -> None:
        """Inverse offers to whoever uses, or is offered, something of an agent with a window and is not asked yet."""
        if not self._unavailable:
            return
        asked: dict[str, list[Json]] = {}
        for agent in self._master.agents.values():
            window = self.unavailability(agent)
            for framework in self._users(agent) if window is not None and agent.connected else ():
                made = InverseOffer(self._master.new_offer_id(), framework.id, agent.agent_id)
                self.inverse_offers[made.offer_id] = made
                shown = self._master.view().inverse_offer(made, window or {})
                asked.setdefault(framework.id, []).append(shown)
        for framework_id, shown_all in asked.items():
            event = {"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": shown_all}}
            self._master.send(self._master.frameworks[framework_id], event)

    def _users(self, agent: Agent) -> Iterator[Framework]:
        """Connected frameworks with something on an agent, that have no inverse offer of it and may be asked."""
        users = {key[0] for key, task in agent.tasks.items() if not task.terminal}
        users |= {key[0] for key in agent.executors}
        users |= {offer.framework_id for offer in agent.offers.values()}
        users -= {made.framework_id for made in self.inverse_offers.values() if made.agent_id == agent.agent_id}
        for framework_id in sorted(users):
            framework = self._master.frameworks.get(framework_id)
            quiet = self._quiet_until.get((agent.agent_id, framework_id), 0) > self._master.at
            if framework is not None and framework.connected and not quiet:
                yield framework

    def answered(self, framework: Framework, call: Json, status: str) -> None:
        """ACCEPT_INVERSE_OFFERS or DECLINE_INVERSE_OFFERS: noted for the operator; asked again after the filter."""
        at = self._master.at
        for one in call.get("inverse_offer_ids") or []:
            made = self.inverse_offers.get(one["value"])
            if made is None or made.framework_id != framework.id:
                continue
            del self.inverse_offers[made.offer_id]
            answer = {
                "status": status,
                "framework_id": {"value": framework.id},
                "timestamp": {"nanoseconds": at * 1_000_000},
            }
            self._answers.setdefault(made.agent_id, {})[framework.id] = answer
            until = at + refuse_ms(call.get("filters"))
            self._quiet_until[made.agent_id, framework.id] = until
            self._master.timer(until, "inverse", made.agent_id)

    def withdraw(self, *, agent: Agent | None = None, framework: Framework | None = None) -> None:
        """Inverse offers of an agent are rescinded; those of a framework that has gone are forgotten."""
        for made in list(self.inverse_offers.values()):
            if agent is not None and made.agent_id == agent.agent_id:
                del self.inverse_offers[made.offer_id]
                event = {"inverse_offer_id": {"value": made.offer_id}}
                owner = self._master.frameworks[made.framework_id]
                self._master.send(owner, {"type": "RESCIND_INVERSE_OFFER", "rescind_inverse_offer": event})
            elif framework is not None and made.framework_id == framework.id:
                del self.inverse_offers[made.offer_id]
        if framework is not None:
            for key in [key for key in self._quiet_until if key[1] == framework.id]:
                del self._quiet_until[key]

    # ---- agents drained --------------------------------------------------------------------------------------

    def _drain_agent(self, call: Json) -> None:
        agent_id = self._registered(call)
        config: Json = {"mark_gone": call.get("mark_gone", False)}
        if "max_grace_period" in call:
            given = call["max_grace_period"]
            grace_ns = given.get("seconds", 0) * 10**9 + given.get("nanos", 0)
            config["max_grace_period"] = {"nanoseconds": max(grace_ns, 0)}
        self._reply(200)
        self.drains[agent_id] = Drain(config, self._master.at)
        self._deactivate(agent_id)
        if agent_id in self._master.agents:
            self.remind(self._master.agents[agent_id])

    def remind(self, agent: Agent) -> None:
        """An agent has come (back): it has to know that it is drained."""
        if agent.agent_id in self.drains:
            self._master.tell(agent, DrainAgent(self.drains[agent.agent_id].config))

    def _deactivate_agent(self, call: Json) -> None:
        agent_id = self._registered(call)
        self._reply(200)
        self._deactivate(agent_id)

    def _deactivate(self, agent_id: str) -> None:
        self.deactivated.add(agent_id)
        agent = self._master.agents.get(agent_id)
        if agent is not None:
            self._master.allocator.activate_host(agent_id, False)
            for offer in list(agent.offers.values()):
                self._master.rescind(offer)

    def _reactivate_agent(self, call: Json) -> None:
        agent_id = call["agent_id"]["value"]
        if agent_id not in self.deactivated:
            raise _Refused("Agent is not deactivated")
        if agent_id in self.drains and not self.drains[agent_id].done:
            raise _Refused("Agent is still in the DRAINING state")
        self._reply(200)
        self.deactivated.discard(agent_id)
        drained = self.drains.pop(agent_id, None)
        agent = self._master.agents.get(agent_id)
        if agent is not None:
            if drained is not None:
                self._master.tell(agent, DrainAgent(None))
            self._master.allocator.activate_host(agent_id, agent.connected)
            self._master.allocate_soon()

    def _registered(self, call: Json) -> str:
        agent_id = str(call["agent_id"]["value"])
        if not self._known(agent_id):
            raise _Refused("Unknown agent")
        return agent_id

    def finish_drains(self) -> None:
        """Agents to be drained whose last task has ended, and is acknowledged, are."""
        for agent_id, drain in list(self.drains.items()):
            agent = self._master.agents.get(agent_id)
            if not drain.done and agent is not None and not agent.tasks:
                drain.done = True
                if drain.config["mark_gone"]:
                    self.forget(agent_id)
                    self._master.mark_gone(agent_id)

    def forget(self, agent_id: str) -> None:
        """An agent is gone for good."""
        self.drains.pop(agent_id, None)
        self.deactivated.discard(agent_id)


def _machine(given: Json) -> Machine:
    return given.get("hostname", "").lower(), given.get("ip", "")


def _shown(given: Json) -> str:
    return json.dumps(given, separators=(",", ":"))


def _scheduled(windows: Iterable[Json]) -> dict[Machine, Json]:
    """The unavailability of each machine. Raises _Refused in Mesos' words and order."""
    found: dict[Machine, Json] = {}
    for window in windows:
        if not window.get("machine_ids"):
            raise _Refused("List of machines in the maintenance window is empty")
        window["machine_ids"] = [{key: one[key] for key in ("hostname", "ip") if key in one} for one in
                                 window["machine_ids"]]  # fmt: skip
        if (window["unavailability"].get("duration") or {}).get("nanoseconds", 0) < 0:
            raise _Refused("Unavailability 'duration' is negative")
        for given in window["machine_ids"]:
            if not given.get("hostname") and not given.get("ip"):
                raise _Refused("Both 'hostname' and 'ip' for a machine are empty")
            if _machine(given) in found:
                raise _Refused(f"Machine '{_shown(given)}' appears more than once in the schedule")
            found[_machine(given)] = window["unavailability"]
    return found


_CALLS: dict[str, Callable[[Operators, Json], None]] = {
    "MARK_AGENT_GONE": Operators._mark_agent_gone,
    "TEARDOWN": Operators._teardown,
    "UPDATE_MAINTENANCE_SCHEDULE": Operators._update_maintenance_schedule,
    "START_MAINTENANCE": Operators._start_maintenance,
    "STOP_MAINTENANCE": Operators._stop_maintenance,
    "DRAIN_AGENT": Operators._drain_agent,
    "DEACTIVATE_AGENT": Operators._deactivate_agent,
    "REACTIVATE_AGENT": Operators._reactivate_agent,
}
