"""Fault injection over HTTP. `POST /dev/control` at the master's port takes one JSON object with a `knob`.

docs/dev-cluster.md lists the knobs and their fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from .fault_injection import UPDATE_FAULTS, UpdateFault
from .http import Connection
from .protocol import Json, Operate, RescindOffer
from .resources import ResourceError, parse
from .shell import Host, Shell
from .virtual import VirtualExecutors


class ControlError(ValueError):
    """An invalid request; the text names the field and the values that the field accepts."""


class Control:
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

    def handle(self, body: bytes) -> tuple[int, Json]:
        """Handle the body of a request. Returns the HTTP status and the JSON of the answer."""
        try:
            request = json.loads(body)
            if not isinstance(request, dict) or request.get("knob") not in self._knobs:
                raise ControlError(f"knob: one of {', '.join(sorted(self._knobs))}")
            return 200, self._knobs[request["knob"]](request) or {}
        except (ValueError, RecursionError) as refused:
            return 400, {"error": str(refused)}

    # ---- streams ---------------------------------------------------------------------------------------------

    def _streams(self, request: Json) -> list[Connection]:
        if "agent" in request:
            return self._shell.executor_streams(self._host(request))
        return [connection for _, connection in self._shell.scheduler_streams(_text(request, "framework_id", ""))]

    def _drop_stream(self, request: Json) -> Json:
        streams = self._streams(request)
        for connection in streams:
            connection.abort()
        return {"streams": len(streams)}

    def _mute_stream(self, request: Json) -> Json:
        streams = self._streams(request)
        for connection in streams:
            connection.muted = True
        return {"streams": len(streams)}

    def _garble_stream(self, request: Json) -> Json:
        streams = self._streams(request)
        for connection in streams:
            connection.send_chunk(_text(request, "bytes", "garbage\n").encode("latin-1", "replace"))
        return {"streams": len(streams)}

    # ---- updates and answers ---------------------------------------------------------------------------------

    def _updates(self, request: Json) -> None:
        kind = _text(request, "kind", "")
        if kind not in UPDATE_FAULTS:
            raise ControlError(f"kind: one of {', '.join(UPDATE_FAULTS)}")
        count, delay_ms = _whole(request, "count", 1, 1), _whole(request, "delay_ms", 0, 0)
        fault = UpdateFault(kind, _text(request, "task_id", ""), _text(request, "state", ""), count, delay_ms)
        self._shell.faults.update_faults.append(fault)

    def _release_updates(self, request: Json) -> Json:
        held = self._shell.faults.release_updates(reverse=request.get("order", "reversed") == "reversed")
        for event in held:
            for _, connection in self._shell.scheduler_streams():
                connection.send_event(event)
        return {"updates": len(held)}

    def _answer(self, request: Json) -> None:
        status = _whole(request, "status", 503, 100)
        self._shell.faults.call_statuses += [status] * _whole(request, "count", 1, 1)

    # ---- the cluster -----------------------------------------------------------------------------------------

    def _rescind(self, request: Json) -> Json:
        wanted = _text(request, "offer_id", "")
        offers = [one for one in self._shell.master.state.offers if wanted in ("", one)]
        for offer_id in offers:
            self._shell.post(None, RescindOffer(offer_id))
        return {"offers": len(offers)}

    def _lose_agent(self, request: Json) -> Json:
        host = self._host(request)
        self._shell.cut_link(host, timed_out=bool(request.get("timed_out", True)))
        return {"agent_id": host.agent.agent_id}

    def _return_agent(self, request: Json) -> Json:
        host = self._host(request)
        self._shell.restore_link(host)
        return {"agent_id": host.agent.agent_id}

    def _mark_gone(self, request: Json) -> Json:
        agent_id = self._host(request).agent.agent_id
        call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}
        self._shell.post(None, Operate(call))
        return {"agent_id": agent_id}

    def _restart_master(self, request: Json) -> None:
        self._shell.restart_master(agents_back=bool(request.get("agents_back", True)))

    def _advance_clock(self, request: Json) -> None:
        self._shell.advance_clock(_whole(request, "ms", 0, 0))

    def _kill_executor(self, request: Json) -> Json:
        framework_id, executor_id = _text(request, "framework_id", ""), _text(request, "executor_id", "")
        return {"executors": self._shell.kill_executors(framework_id, executor_id)}

    def _add_agents(self, request: Json) -> Json:
        try:
            resources = parse(_text(request, "resources", "cpus:4;mem:4096;disk:10000;ports:[31000-31999]"))
        except ResourceError as refused:
            raise ControlError(str(refused)) from None
        executors = partial(
            VirtualExecutors,
            _whole(request, "run_ms", 1000, 0),
            _text(request, "failing", ""),
            _text(request, "message", ""),
        )
        self._shell.add_virtual_agents(_whole(request, "count", 1, 1), resources, executors)
        return {"agents": len(self._shell.hosts)}

    def _host(self, request: Json) -> Host:
        """The host named by `agent`: an agent's id, or its number counted from 1."""
        wanted = request.get("agent")
        for number, host in enumerate(self._shell.hosts.values(), 1):
            if wanted in (number, host.agent.agent_id):
                return host
        raise ControlError(
            f"agent: {wanted!r} is neither an agent's id nor a number from 1 to {len(self._shell.hosts)}"
        )


def _text(request: Json, name: str, default: str) -> str:
    value: Any = request.get(name, default)
    if not isinstance(value, str):
        raise ControlError(f"{name}: expecting a string")
    return value


def _whole(request: Json, name: str, default: int, minimum: int) -> int:
    value: Any = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ControlError(f"{name}: expecting a whole number of at least {minimum}")
    return value
