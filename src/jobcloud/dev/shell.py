"""The dev cluster's shell: one event loop that carries calls, events, time and processes to and from the pure machines.

It decides nothing. The faults that tests ask for are made here, between the machines and the world.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from .agent import Agent, AgentSettings
from .files import browse, frameworks, operate, read
from .http import Connection, Listener, Request, serve
from .knobs import Faults, Knobs
from .master import Master, MasterSettings
from .protocol import (
    AgentTimedOut,
    Call,
    Close,
    EndAgent,
    ExecutorEnded,
    ExecutorStarted,
    FromAgent,
    FromMaster,
    Json,
    KillExecutor,
    LinkLost,
    LinkMade,
    Operate,
    Reply,
    Send,
    StartExecutor,
    StreamLost,
    Subscribed,
    Tick,
    ToAgent,
    ToMaster,
)
from .resources import Resources
from .sandbox import LaunchError, Machine, kill_all, prepare, start_process
from .views import VERSION
from .virtual import VirtualExecutors

JSON = "application/json"
_decode = msgspec.json.Decoder().decode
_FAILED_TO_START = 9  # what Mesos says of a container that it destroyed before the executor ran


@dataclass(slots=True)
class Alarm:
    """When a machine is to be told the time."""

    due: int | None = None
    timer: asyncio.TimerHandle | None = None

    def is_set_to(self, due: int | None, loop_time: float) -> bool:
        return due == self.due and (self.timer is None or self.timer.when() > loop_time)

    def cancel(self) -> None:
        self.due = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(slots=True, eq=False)
class Host:
    """An agent: its machine, its place on this computer, its link to the master."""

    agent: Agent
    machine: Machine
    link: str
    linked: bool = True
    alarm: Alarm = field(default_factory=Alarm)
    server: Listener | None = None
    virtual: VirtualExecutors | None = None


@dataclass(slots=True)
class Process:
    host: Host
    sandbox: Path
    popen: subprocess.Popen[bytes]
    pidfd: int


class Shell:
    """One master, its agents, their processes. Call its methods from the loop's thread, which must be the main one."""

    def __init__(self, settings: MasterSettings, work_dir: Path) -> None:
        self.settings = settings
        self.work_dir = work_dir
        self.clock_offset_ms = 0
        self.master = Master(settings, self.now())
        self.hosts: dict[str, Host] = {}  # by link
        self.faults = Faults()
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, tuple[Connection, Host | None]] = {}
        self._queue: deque[tuple[Host | None, Any, Connection | None]] = deque()
        self._busy = False
        self._to_rearm: set[Host | None] = set()
        self._due: dict[int, list[tuple[Host, Any]]] = {}  # by the event loop's clock, in milliseconds
        self._master_alarm = Alarm()
        self._master_server: Listener | None = None
        self._processes: dict[str, Process] = {}
        self._doomed: set[str] = set()  # containers to kill as soon as they have started
        self._tasks: set[asyncio.Task[None]] = set()
        self.knobs = Knobs(self)

    def now(self) -> int:
        return int(time.time() * 1000) + self.clock_offset_ms

    # ---- start and stop --------------------------------------------------------------------------------------

    async def start_master(self, port: int) -> int:
        """Listen; gives the port. Raises OSError."""
        self._master_server = await serve(self._serve_master, port)
        self.settings = replace(self.settings, port=self._master_server.port)
        self.master = Master(self.settings, self.now())
        return self.settings.port

    async def start_agent(self, settings: AgentSettings, name: str, port: int = 0) -> Host:
        """An agent with processes, at a port of its own; it registers at once. Raises OSError."""
        work_dir = self.work_dir / "agents" / name
        work_dir.mkdir(parents=True, exist_ok=True)
        holder: list[Host] = []

        server = await serve(lambda request, connection: self._serve_agent(holder[0], request, connection), port)
        agent = Agent(replace(settings, port=server.port))
        machine = Machine(work_dir, server.port, f"{settings.shutdown_grace_ms // 1000}secs")
        host = Host(agent, machine, name, server=server)
        holder.append(host)
        self._add_host(host)
        return host

    def start_virtual_agent(self, settings: AgentSettings, name: str, run_ms: int) -> Host:
        """An agent without processes or port: its tasks run for `run_ms` and finish."""
        host = Host(Agent(settings), Machine(self.work_dir, 0), name, virtual=VirtualExecutors(run_ms))
        self._add_host(host)
        return host

    def _add_host(self, host: Host) -> None:
        self.hosts[host.link] = host
        self.post(host, LinkMade())

    async def stop(self) -> None:
        """Nothing listens, nothing runs."""
        for server in [self._master_server, *(host.server for host in self.hosts.values())]:
            if server is not None:
                server.stop()
        for task in list(self._tasks):
            task.cancel()
        self._streams.clear()
        for process in list(self._processes.values()):
            self._loop.remove_reader(process.pidfd)
            os.close(process.pidfd)
            kill_all(process.sandbox, process.popen.pid)
            process.popen.wait()
        kill_all(self.work_dir / "agents")
        self._processes.clear()

    # ---- inputs and effects ----------------------------------------------------------------------------------

    def post(self, target: Host | None, event: Any, caller: Connection | None = None) -> None:
        """Give one input to an agent's machine (or to the master's, without a host) and perform what comes of it.

        A caller is answered before this returns, unless another input is being handled just now.
        """
        queue = self._queue
        queue.append((target, event, caller))
        if self._busy:
            return
        self._busy = True
        now = self.now()
        try:
            while queue:
                host, event, caller = queue.popleft()
                if host not in self._to_rearm:
                    self._moved(host)
                for effect in (self.master if host is None else host.agent).handle(event, now):
                    _PERFORM[type(effect)](self, host, effect, caller)
        finally:
            self._busy = False

    def _moved(self, host: Host | None) -> None:
        """A machine may want the time at another instant now: its alarm is set once in a turn of the event loop."""
        if not self._to_rearm:
            self._loop.call_soon(self._rearm)
        self._to_rearm.add(host)

    def _rearm(self) -> None:
        moved, self._to_rearm = self._to_rearm, set()
        loop_time, now = self._loop.time(), self.now()
        for host in moved:
            if host is not None and host.link not in self.hosts:
                continue  # it has ended
            due = (self.master if host is None else host.agent).next_at()
            alarm = self._master_alarm if host is None else host.alarm
            if alarm.is_set_to(due, loop_time):
                continue
            alarm.cancel()
            if due is not None:
                alarm.due = due
                alarm.timer = self._loop.call_later(max(0, due - now) / 1000, self.post, host, Tick())

    def _reply(self, host: Host | None, effect: Reply, caller: Connection | None) -> None:
        if caller is not None:
            caller.answer(effect.status, effect.body)

    def _to_agent(self, host: Host | None, effect: ToAgent, caller: Connection | None) -> None:
        target = self.hosts.get(effect.link)
        if target is not None and target.linked:
            self.post(target, FromMaster(effect.message))

    def _to_master(self, host: Host | None, effect: ToMaster, caller: Connection | None) -> None:
        if host is not None and host.linked:
            self.post(None, FromAgent(host.link, effect.message))

    def _on_host(
        self, host: Host | None, effect: StartExecutor | KillExecutor | Subscribed | Send, caller: Connection | None
    ) -> None:
        """What concerns executors, virtual ones above all."""
        assert host is not None, "a master has no executors"
        if host.virtual is not None:
            for delay_ms, event in host.virtual.take(effect):
                if delay_ms:
                    self._later(delay_ms, host, event)
                else:
                    self.post(host, event)
        elif isinstance(effect, StartExecutor):
            self._spawn(self._start_executor(host, effect))
        elif isinstance(effect, KillExecutor):
            self._kill_executor(effect.container_id)

    def _later(self, delay_ms: int, host: Host, event: Any) -> None:
        """Post in so many milliseconds: one timer for all that is due in the same one."""
        due = int(self._loop.time() * 1000) + 1 + delay_ms
        waiting = self._due.get(due)
        if waiting is None:
            waiting = self._due[due] = []
            self._loop.call_at(due / 1000, self._fall_due, due)
        waiting.append((host, event))

    def _fall_due(self, due: int) -> None:
        for host, event in self._due.pop(due):
            self.post(host, event)

    def advance_clock(self, ms: int) -> None:
        self.clock_offset_ms += ms
        for host in [None, *self.hosts.values()]:
            (self._master_alarm if host is None else host.alarm).cancel()
            self.post(host, Tick())

    # ---- streams ---------------------------------------------------------------------------------------------

    def _open(self, host: Host | None, effect: Subscribed, caller: Connection | None) -> None:
        if host is not None and host.virtual is not None:
            self._on_host(host, effect, caller)
            return
        assert caller is not None, "a SUBSCRIBE has a caller"
        stream_id = effect.stream_id
        caller.start_stream(stream_id if host is None else "", lambda: self._ended(stream_id, host))
        self._streams[stream_id] = (caller, host)

    def _close(self, host: Host | None, effect: Close, caller: Connection | None) -> None:
        connection, _ = self._streams.pop(effect.stream_id, (None, None))
        if connection is not None:
            connection.finish()

    def _ended(self, stream_id: str, host: Host | None) -> None:
        if self._streams.pop(stream_id, None) is not None:
            self.post(host, StreamLost(stream_id))

    def _send(self, host: Host | None, effect: Send, caller: Connection | None) -> None:
        if host is not None and host.virtual is not None:
            self._on_host(host, effect, caller)
            return
        connection, _ = self._streams.get(effect.stream_id, (None, None))
        if connection is None:
            return
        if host is not None or not self.faults.rules:
            connection.event(effect.event)
            return
        for delay_ms, event in self.faults.apply(effect.event):
            if delay_ms:
                self._loop.call_later(delay_ms / 1000, self._send_late, effect.stream_id, event)
            else:
                connection.event(event)

    def _send_late(self, stream_id: str, event: Json) -> None:
        if stream_id in self._streams:
            self._streams[stream_id][0].event(event)

    def scheduler_streams(self, framework_id: str = "") -> list[tuple[str, Connection]]:
        """The open streams of schedulers (of one framework, if it is named)."""
        wanted = {
            framework.stream_id
            for framework in self.master.frameworks.values()
            if framework_id in ("", framework.id) and framework.stream_id
        }
        return [(stream_id, self._streams[stream_id][0]) for stream_id in wanted if stream_id in self._streams]

    def executor_streams(self, host: Host) -> list[tuple[str, Connection]]:
        return [(stream_id, one[0]) for stream_id, one in self._streams.items() if one[1] is host]

    # ---- executors -------------------------------------------------------------------------------------------

    async def _start_executor(self, host: Host, start: StartExecutor) -> None:
        sandbox = host.machine.sandbox(start)
        try:
            await asyncio.to_thread(prepare, host.machine, start)
            if start.container_id in self._doomed:
                self._doomed.discard(start.container_id)
                self.post(host, ExecutorEnded(start.container_id, 9))
                return
            popen = start_process(host.machine, start, sandbox)
        except (LaunchError, OSError) as failure:
            self.post(host, ExecutorEnded(start.container_id, _FAILED_TO_START, str(failure)))
            return
        process = Process(host, sandbox, popen, os.pidfd_open(popen.pid))
        self._processes[start.container_id] = process
        self._loop.add_reader(process.pidfd, self._reap, start.container_id)
        self.post(host, ExecutorStarted(start.container_id, popen.pid))

    def _reap(self, container_id: str) -> None:
        process = self._processes.pop(container_id)
        self._loop.remove_reader(process.pidfd)
        os.close(process.pidfd)
        code = process.popen.wait()
        kill_all(process.sandbox, process.popen.pid)
        self.post(process.host, ExecutorEnded(container_id, -code if code < 0 else code << 8))

    def _kill_executor(self, container_id: str) -> None:
        process = self._processes.get(container_id)
        if process is None:
            self._doomed.add(container_id)
        else:
            kill_all(process.sandbox, process.popen.pid)

    def kill_executors(self, framework_id: str, executor_id: str) -> int:
        """SIGKILL to the leaders of these executors, as a crash would end them; how many there were."""
        killed = 0
        for process in self._processes.values():
            executor = process.host.agent.executor_of(process.sandbox.name)
            if executor is not None and framework_id in ("", executor[0]) and executor_id in ("", executor[1]):
                process.popen.kill()
                killed += 1
        return killed

    def add_virtual_agents(self, count: int, resources: Resources, run_ms: int) -> None:
        for _ in range(count):
            name = f"virtual{len(self.hosts) + 1}"
            settings = AgentSettings(f"{name}.localhost", 0, resources, salt=new_salt())
            self.start_virtual_agent(settings, name, run_ms)

    def _end_agent(self, host: Host | None, effect: EndAgent, caller: Connection | None) -> None:
        assert host is not None, "a master does not end"
        if host.server is not None:
            host.server.close()
        host.alarm.cancel()
        self.hosts.pop(host.link, None)

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- links and masters -----------------------------------------------------------------------------------

    def cut_link(self, host: Host, timed_out: bool) -> None:
        """Master and agent cannot reach each other; with `timed_out` the master has given it up already."""
        host.linked = False
        self.post(None, LinkLost(host.link))
        self.post(host, LinkLost(host.link))
        if timed_out:
            self.post(None, AgentTimedOut(host.agent.agent_id))

    def restore_link(self, host: Host) -> None:
        host.linked = True
        self.post(host, LinkMade())

    def restart_master(self, agents_back: bool) -> None:
        """A new master without any memory but the agents' ids; every stream and link breaks."""
        known = [host.agent.agent_id for host in self.hosts.values()]
        for stream_id, connection in self.scheduler_streams():
            del self._streams[stream_id]
            connection.abort()
        for host in self.hosts.values():
            self.post(host, LinkLost(host.link))
        self.settings = replace(self.settings, master_id=f"{self.settings.master_id.partition('.')[0]}.{self.now():x}")
        self.master = Master(self.settings, self.now())
        self.master.expect_agents(known, self.now())
        self._moved(None)
        for host in self.hosts.values():
            host.linked = agents_back
            if agents_back:
                self.post(host, LinkMade())

    # ---- HTTP ------------------------------------------------------------------------------------------------

    def _serve_master(self, request: Request, connection: Connection) -> None:
        path = request.head.path.removeprefix("/master") or "/"
        if path == "/api/v1/scheduler":
            self._api(None, request, connection, Call)
        elif path == "/api/v1":
            self._api(None, request, connection, Operate)
        elif path == "/state":
            connection.answer(200, self.master.view().state())
        elif path == "/slaves":
            connection.answer(200, {"slaves": self.master.view().state()["slaves"]})
        elif path == "/dev/control" and request.head.method == "POST":
            connection.answer(*self.knobs.turn(request.body))
        else:
            self._serve_any(path, connection)

    def _serve_agent(self, host: Host, request: Request, connection: Connection) -> Coroutine[Any, Any, None] | None:
        path = request.head.path.removeprefix("/slave(1)") or "/"
        if path == "/api/v1/executor":
            self._api(host, request, connection, Call)
        elif path in ("/files/read", "/files/browse", "/api/v1", "/state"):
            return self._serve_files(host, path, request, connection)
        else:
            self._serve_any(path, connection)
        return None

    async def _serve_files(self, host: Host, path: str, request: Request, connection: Connection) -> None:
        """What an agent reads from its disk."""
        if path == "/api/v1":
            connection.answer(*await asyncio.to_thread(self._operate, host, request), JSON)
        elif path == "/state":
            live = {one.container_id: one.executor_id for one in host.agent.executors.values()}
            shown = await asyncio.to_thread(frameworks, host.machine.work_dir / "slaves", live)
            connection.answer(200, {"id": host.agent.agent_id, "frameworks": shown, "completed_frameworks": []})
        else:
            connection.answer(*await asyncio.to_thread(self._files(host, path), request.head.query), JSON)

    def _operate(self, host: Host, request: Request) -> tuple[int, str]:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            call = json.loads(request.body)
        except (ValueError, RecursionError) as failure:
            return 400, f"Failed to parse body into JSON: {failure}"
        return operate(host.machine.work_dir / "slaves", call)

    @staticmethod
    def _serve_any(path: str, connection: Connection) -> None:
        """What master and agents answer alike."""
        if path == "/health":
            connection.answer(200)
        elif path == "/version":
            connection.answer(200, {"version": VERSION})
        else:
            connection.answer(404)

    def _files(self, host: Host, path: str) -> Callable[[Mapping[str, str]], tuple[int, str]]:
        root = host.machine.work_dir / "slaves"
        if path == "/files/read":
            return lambda query: read(root, query)
        return lambda query: browse(root, query)

    def _api(
        self, host: Host | None, request: Request, connection: Connection, kind: type[Call] | type[Operate]
    ) -> None:
        refusal = self._refusal(request)
        if refusal is not None:
            connection.answer(*refusal)
            return
        if host is None and (fault := self.faults.next_status()):
            connection.answer(fault, "A fault that a test asked for")
            return
        try:
            body = _decode(request.body)
        except (ValueError, RecursionError) as failure:
            connection.answer(400, f"Failed to parse body into JSON: {failure}")
            return
        if isinstance(body, dict) and body.get("type") == "SUBSCRIBE" and not _accepts_json(request):
            connection.answer(406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'")
        elif kind is Operate:
            self.post(host, Operate(body), connection)
        else:
            self.post(host, Call(body, request.head.headers.get("mesos-stream-id")), connection)

    @staticmethod
    def _refusal(request: Request) -> tuple[int, str] | None:
        if request.head.method != "POST":
            return 405, f"Expecting one of {{ 'POST' }}, but received '{request.head.method}'"
        content_type = request.head.headers.get("content-type")
        if content_type is None:
            return 400, "Expecting 'Content-Type' to be present"
        if content_type != JSON:
            return 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"
        return None


_PERFORM: dict[type, Callable[[Shell, Host | None, Any, Connection | None], None]] = {
    Reply: Shell._reply,
    Send: Shell._send,
    Close: Shell._close,
    Subscribed: Shell._open,
    ToAgent: Shell._to_agent,
    ToMaster: Shell._to_master,
    StartExecutor: Shell._on_host,
    KillExecutor: Shell._on_host,
    EndAgent: Shell._end_agent,
}


def _accepts_json(request: Request) -> bool:
    accept = request.head.headers.get("accept", "*/*")
    return any(one.split(";")[0].strip() in (JSON, "application/*", "*/*") for one in accept.split(","))


def new_salt() -> int:
    """A salt that no other agent of this machine has had."""
    return int.from_bytes(os.urandom(8), "big")
