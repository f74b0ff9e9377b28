"""The HTTP API of the master and of agents: routes, content types, JSON. Calls are handled by the state machines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from .agent import Agent, AgentSettings
from .control import Control
from .files import browse, frameworks, operate, read
from .http import Connection, Request, serve
from .master import Master
from .protocol import VERSION, Call, Json, Operate
from .sandbox import Workspace
from .shell import Host, Shell

JSON = "application/json"
_decode = msgspec.json.Decoder().decode
Pending = Coroutine[Any, Any, None]


class HttpApi:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._control = Control(shell)

    async def start_master(self, port: int) -> int:
        """Start a master with a listener. `port` 0 takes a free port. Returns the port. Raises OSError."""
        listener = await serve(self._serve_master, port)
        self._shell.start_master(listener)
        return listener.port

    async def start_agent(self, settings: AgentSettings, name: str, port: int = 0) -> Host:
        """Start an agent with a listener of its own. The agent registers at once. Raises OSError."""
        work_dir = self._shell.work_dir / "agents" / name
        work_dir.mkdir(parents=True, exist_ok=True)

        def serve_agent(request: Request, connection: Connection) -> Pending | None:
            return self._serve_agent(host, request, connection)

        listener = await serve(serve_agent, port)
        agent = Agent(replace(settings, port=listener.port))
        workspace = Workspace(work_dir, listener.port, f"{settings.shutdown_grace_ms // 1000}secs")
        host = Host(agent, workspace, name, listener=listener)
        self._shell.add_host(host)
        return host

    # ---- routes ----------------------------------------------------------------------------------------------

    def _serve_master(self, request: Request, connection: Connection) -> None:
        path = request.head.path.removeprefix("/master") or "/"
        if _is_at(path, "/api/v1/scheduler"):
            self._call(None, request, connection, Call)
        elif _is_at(path, "/api/v1"):
            self._call(None, request, connection, Operate)
        elif _is_at(path, "/redirect"):
            connection.redirect(self._shell.master.monitoring.redirect())
        elif request.head.path == "/metrics/snapshot":  # metrics belong to the process: not below /master
            connection.answer(200, self._shell.master.monitoring.metrics())
        elif path == "/dev/control" and request.head.method == "POST":
            connection.answer(*self._control.handle(request.body))
        elif (read := next((read for route, read in _READS.items() if _is_at(path, route)), None)) is not None:
            connection.answer(200, read(self._shell.master, request.head.query))
        else:
            _serve_common(path, connection)

    def _serve_agent(self, host: Host, request: Request, connection: Connection) -> Pending | None:
        path = request.head.path.removeprefix("/slave(1)") or "/"
        if path == "/api/v1/executor":
            self._call(host, request, connection, Call)
        elif path in ("/files/read", "/files/browse", "/api/v1", "/state"):
            return _serve_files(host, path, request, connection)
        else:
            _serve_common(path, connection)
        return None

    def _call(
        self, host: Host | None, request: Request, connection: Connection, kind: type[Call] | type[Operate]
    ) -> None:
        """Pass a call to an agent, or to the master if `host` is None."""
        refusal = _refusal(request)
        if refusal is not None:
            connection.answer(*refusal)
            return
        if host is None and (status := self._shell.faults.next_call_status()):
            connection.answer(status, "Injected fault")
            return
        try:
            body = _decode(request.body)
        except (ValueError, RecursionError) as failure:
            connection.answer(400, f"Failed to parse body into JSON: {failure}")
            return
        if isinstance(body, dict) and body.get("type") == "SUBSCRIBE" and not _accepts_json(request):
            connection.answer(406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'")
        elif kind is Operate:
            self._shell.post(host, Operate(body), connection)
        else:
            self._shell.post(host, Call(body, request.head.headers.get("mesos-stream-id")), connection)


def _slaves(master: Master, query: Mapping[str, str]) -> Json:
    state = master.views.state()
    return {key: state[key] for key in ("slaves", "recovered_slaves")}


_READS: dict[str, Callable[[Master, Mapping[str, str]], Json]] = {
    "/state": lambda master, query: master.views.state(),
    "/slaves": _slaves,
    "/tasks": lambda master, query: master.monitoring.tasks(query),
    "/frameworks": lambda master, query: master.monitoring.frameworks(query),
    "/state-summary": lambda master, query: master.monitoring.state_summary(),
    "/roles": lambda master, query: master.monitoring.roles(),
    "/flags": lambda master, query: master.monitoring.flags(),
}


def _is_at(path: str, route: str) -> bool:
    """Whether a path is the route or lies below it. Mesos serves both alike."""
    return path == route or path.startswith(route + "/")


def _serve_common(path: str, connection: Connection) -> None:
    """Serve the routes that master and agents share."""
    if path == "/health":
        connection.answer(200)
    elif path == "/version":
        connection.answer(200, {"version": VERSION})
    else:
        connection.answer(404)


async def _serve_files(host: Host, path: str, request: Request, connection: Connection) -> None:
    """Serve the routes that read an agent's disk. The disk is read in a thread."""
    root = host.workspace.agents_dir
    if path == "/api/v1":
        connection.answer(*await asyncio.to_thread(_operate, host, request), JSON)
    elif path == "/state":
        shown = await asyncio.to_thread(frameworks, root, host.agent.live_executors())
        connection.answer(200, {"id": host.agent.agent_id, "frameworks": shown, "completed_frameworks": []})
    else:
        answer: Callable[..., tuple[int, str]] = read if path == "/files/read" else browse
        query: Mapping[str, str] = request.head.query
        connection.answer(*await asyncio.to_thread(answer, root, query), JSON)


def _operate(host: Host, request: Request) -> tuple[int, str]:
    """Answer an operator call to an agent."""
    refusal = _refusal(request)
    if refusal is not None:
        return refusal
    try:
        call = json.loads(request.body)
    except (ValueError, RecursionError) as failure:
        return 400, f"Failed to parse body into JSON: {failure}"
    return operate(host.workspace.agents_dir, call)


def _refusal(request: Request) -> tuple[int, str] | None:
    """The answer to a request that cannot be a call; None for any other request."""
    if request.head.method != "POST":
        return 405, f"Expecting one of {{ 'POST' }}, but received '{request.head.method}'"
    content_type = request.head.headers.get("content-type")
    if content_type is None:
        return 400, "Expecting 'Content-Type' to be present"
    if content_type != JSON:
        return 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"
    return None


def _accepts_json(request: Request) -> bool:
    accept = request.head.headers.get("accept", "*/*")
    return any(one.split(";")[0].strip() in (JSON, "application/*", "*/*") for one in accept.split(","))
