"""How tests break the dev cluster: `POST /dev/control` at the master's port, one JSON object with a `knob`.

docs/dev-cluster.md lists the knobs and their fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .protocol import Json, Operate, RescindOffer
from .resources import ResourceError, parse

if TYPE_CHECKING:
    from .shell import Host, Shell


class KnobError(ValueError):
    """A knob turned wrongly; the text names the field and what fits."""


@dataclass(slots=True)
class UpdateRule:
    """What happens to the next `count` status updates that fit on their way to the scheduler."""

    kind: str  # drop, double, delay, hold
    task_id: str
    state: str
    count: int
    delay_ms: int

    def fits(self, status: Json) -> bool:
        return self.task_id in ("", status["task_id"]["value"]) and self.state in ("", status["state"])


@dataclass(slots=True)
class Faults:
    """Faults on the way between the machines and the world."""

    rules: list[UpdateRule] = field(default_factory=list)
    held: list[Json] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # answers to the next calls

    def next_status(self) -> int:
        return self.statuses.pop(0) if self.statuses else 0

    def apply(self, event: Json) -> list[tuple[int, Json]]:
        """(delay in ms, event) for what is to be sent in place of an event to a scheduler."""
        if event["type"] != "UPDATE":
            return [(0, event)]
        rule = next((one for one in self.rules if one.fits(event["update"]["status"])), None)
        if rule is None:
            return [(0, event)]
        rule.count -= 1
        if rule.count == 0:
            self.rules.remove(rule)
        if rule.kind == "double":
            return [(0, event), (0, event)]
        if rule.kind == "delay":
            return [(rule.delay_ms, event)]
        if rule.kind == "hold":
            self.held.append(event)
        return []


class Knobs:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._knobs: dict[str, Callable[[Json], Json | None]] = {
            "drop_stream": self._drop_stream,
            "mute_stream": self._mute_stream,
            "garble_stream": self._garble_stream,
            "updates": self._updates,
            "release_updates": self._release_updates,
            "answer": self._answer,
            "rescind": self._rescind,
            "lose_agent": self._lose_agent,
            "return_agent": self._return_agent,
            "mark_gone": self._mark_gone,
            "restart_master": self._restart_master,
            "advance_clock": self._advance_clock,
            "kill_executor": self._kill_executor,
            "add_agents": self._add_agents,
        }

    def turn(self, body: bytes) -> tuple[int, Json]:
        """Status and JSON of the answer."""
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict) or asked.get("knob") not in self._knobs:
                raise KnobError(f"knob: one of {', '.join(sorted(self._knobs))}")
            return 200, self._knobs[asked["knob"]](asked) or {}
        except (ValueError, RecursionError) as refused:
            return 400, {"error": str(refused)}

    # ---- streams ---------------------------------------------------------------------------------------------

    def _streams(self, asked: Json) -> list[Any]:
        if "agent" in asked:
            found = self._shell.executor_streams(self._host(asked))
        else:
            found = self._shell.scheduler_streams(_text(asked, "framework_id", ""))
        return [connection for _, connection in found]

    def _drop_stream(self, asked: Json) -> Json:
        streams = self._streams(asked)
        for connection in streams:
            connection.abort()
        return {"streams": len(streams)}

    def _mute_stream(self, asked: Json) -> Json:
        streams = self._streams(asked)
        for connection in streams:
            connection.muted = True
        return {"streams": len(streams)}

    def _garble_stream(self, asked: Json) -> Json:
        streams = self._streams(asked)
        for connection in streams:
            connection.raw(_text(asked, "bytes", "garbage\n").encode("latin-1", "replace"))
        return {"streams": len(streams)}

    # ---- updates and answers ---------------------------------------------------------------------------------

    def _updates(self, asked: Json) -> None:
        kind = _text(asked, "kind", "")
        if kind not in ("drop", "double", "delay", "hold"):
            raise KnobError("kind: one of drop, double, delay, hold")
        count, delay_ms = _whole(asked, "count", 1, 1), _whole(asked, "delay_ms", 0, 0)
        rule = UpdateRule(kind, _text(asked, "task_id", ""), _text(asked, "state", ""), count, delay_ms)
        self._shell.faults.rules.append(rule)

    def _release_updates(self, asked: Json) -> Json:
        held, self._shell.faults.held = self._shell.faults.held, []
        self._shell.faults.rules = [one for one in self._shell.faults.rules if one.kind != "hold"]
        if asked.get("order", "reversed") == "reversed":
            held.reverse()
        for event in held:
            for _, connection in self._shell.scheduler_streams():
                connection.event(event)
        return {"updates": len(held)}

    def _answer(self, asked: Json) -> None:
        status = _whole(asked, "status", 503, 100)
        self._shell.faults.statuses += [status] * _whole(asked, "count", 1, 1)

    # ---- the cluster -----------------------------------------------------------------------------------------

    def _rescind(self, asked: Json) -> Json:
        wanted = _text(asked, "offer_id", "")
        offers = [one for one in self._shell.master.offers if wanted in ("", one)]
        for offer_id in offers:
            self._shell.post(None, RescindOffer(offer_id))
        return {"offers": len(offers)}

    def _lose_agent(self, asked: Json) -> Json:
        host = self._host(asked)
        self._shell.cut_link(host, timed_out=bool(asked.get("timed_out", True)))
        return {"agent_id": host.agent.agent_id}

    def _return_agent(self, asked: Json) -> Json:
        host = self._host(asked)
        self._shell.restore_link(host)
        return {"agent_id": host.agent.agent_id}

    def _mark_gone(self, asked: Json) -> Json:
        agent_id = self._host(asked).agent.agent_id
        gone = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}
        self._shell.post(None, Operate(gone))
        return {"agent_id": agent_id}

    def _restart_master(self, asked: Json) -> None:
        self._shell.restart_master(agents_back=bool(asked.get("agents_back", True)))

    def _advance_clock(self, asked: Json) -> None:
        self._shell.advance_clock(_whole(asked, "ms", 0, 0))

    def _kill_executor(self, asked: Json) -> Json:
        killed = self._shell.kill_executors(_text(asked, "framework_id", ""), _text(asked, "executor_id", ""))
        return {"executors": killed}

    def _add_agents(self, asked: Json) -> Json:
        try:
            resources = parse(_text(asked, "resources", "cpus:4;mem:4096;disk:10000;ports:[31000-31999]"))
        except ResourceError as refused:
            raise KnobError(str(refused)) from None
        count, run_ms = _whole(asked, "count", 1, 1), _whole(asked, "run_ms", 1000, 0)
        self._shell.add_virtual_agents(count, resources, run_ms)
        return {"agents": len(self._shell.hosts)}

    def _host(self, asked: Json) -> Host:
        """`agent` is an agent's id or its number, counted from 1."""
        wanted = asked.get("agent")
        for number, host in enumerate(self._shell.hosts.values(), 1):
            if wanted in (number, host.agent.agent_id):
                return host
        raise KnobError(f"agent: {wanted!r} is no agent's id and no number from 1 to {len(self._shell.hosts)}")


def _text(asked: Json, name: str, default: str) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str):
        raise KnobError(f"{name}: expecting a string")
    return value


def _whole(asked: Json, name: str, default: int, least: int) -> int:
    value = asked.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise KnobError(f"{name}: expecting a whole number of at least {least}")
    return value
