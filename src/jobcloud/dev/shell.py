"""The shell around the pure state machines: one event loop that performs their effects and gives them inputs.

The state machines make all decisions of masters and agents. Injected faults take effect between the state machines and
the outside, most of them here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .agent import Agent, AgentSettings
from .fault_injection import Faults
from .http import Connection, Listener
from .master import Master, MasterSettings
from .protocol import (
    AgentTimedOut,
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
from .sandbox import LaunchError, Workspace, kill_all, prepare, start_process
from .virtual import VirtualExecutors

_FAILED_TO_START = 9  # Mesos reports this status for a container that was destroyed before its executor ran


@dataclass(slots=True)
class Alarm:
    """The timer for the next Tick of one state machine."""

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
    """An agent: its state machine, its directory, its listener, its link to the master."""

    agent: Agent
    workspace: Workspace
    link: str
    linked: bool = True
    alarm: Alarm = field(default_factory=Alarm)
    listener: Listener | None = None
    virtual: VirtualExecutors | None = None


@dataclass(slots=True)
class Process:
    host: Host
    sandbox: Path
    popen: subprocess.Popen[bytes]
    pidfd: int


class Shell:
    """One master, its agents, their processes. Call the methods in the main thread, which runs the event loop."""

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
        self._handling = False
        self._to_rearm: set[Host | None] = set()
        self._delayed: dict[int, list[tuple[Host, Any]]] = {}  # by due time on the event loop's clock (ms)
        self._master_alarm = Alarm()
        self._master_listener: Listener | None = None
        self._processes: dict[str, Process] = {}
        self._killed_early: set[str] = set()  # containers that were killed before their executors started
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> int:
        return int(time.time() * 1000) + self.clock_offset_ms

    # ---- start and stop --------------------------------------------------------------------------------------

    def start_master(self, listener: Listener) -> None:
        """Replace the master by one that clients reach through `listener`."""
        self._master_listener = listener
        self.settings = replace(self.settings, port=listener.port)
        self.master = Master(self.settings, self.now())

    def add_host(self, host: Host) -> None:
        """Add an agent, which registers at once."""
        self.hosts[host.link] = host
        self.post(host, LinkMade())

    def add_virtual_agents(self, count: int, resources: Resources, executors: Callable[[], VirtualExecutors]) -> None:
        """Add agents without processes and ports."""
        for _ in range(count):
            name = f"virtual{len(self.hosts) + 1}"
            settings = AgentSettings(f"{name}.localhost", 0, resources, salt=new_salt())
            workspace = Workspace(self.work_dir, 0)
            self.add_host(Host(Agent(settings), workspace, name, virtual=executors()))

    def stop(self) -> None:
        """Close all listeners and kill all executors."""
        for listener in [self._master_listener, *(host.listener for host in self.hosts.values())]:
            if listener is not None:
                listener.stop()
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
        """Give one input to an agent, or to the master if `target` is None, and perform the effects.

        `caller` is answered before `post` returns. While another input is being handled, `post` only queues the event.
        """
        queue = self._queue
        queue.append((target, event, caller))
        if self._handling:
            return
        self._handling = True
        now = self.now()
        try:
            while queue:
                host, event, caller = queue.popleft()
                if host not in self._to_rearm:
                    self._rearm_later(host)
                for effect in (self.master if host is None else host.agent).handle(event, now):
                    _PERFORM[type(effect)](self, host, effect, caller)
        finally:
            self._handling = False

    def _rearm_later(self, host: Host | None) -> None:
        """Set the alarm of a state machine in the next turn of the event loop, once for any number of inputs."""
        if not self._to_rearm:
            self._loop.call_soon(self._rearm)
        self._to_rearm.add(host)

    def _rearm(self) -> None:
        to_rearm, self._to_rearm = self._to_rearm, set()
        loop_time, now = self._loop.time(), self.now()
        for host in to_rearm:
            if host is not None and host.link not in self.hosts:
                continue  # the agent has ended
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
        """Perform an effect on an executor, which is virtual or a process."""
        assert host is not None, "a master has no executors"
        if host.virtual is not None:
            for delay_ms, event in host.virtual.react(effect):
                if delay_ms:
                    self._post_later(delay_ms, host, event)
                else:
                    self.post(host, event)
        elif isinstance(effect, StartExecutor):
            self._spawn(self._start_executor(host, effect))
        elif isinstance(effect, KillExecutor):
            self._kill_executor(effect.container_id)

    def _post_later(self, delay_ms: int, host: Host, event: Any) -> None:
        """Post an input after `delay_ms`. Inputs that are due in the same millisecond share one timer."""
        due = int(self._loop.time() * 1000) + 1 + delay_ms
        waiting = self._delayed.get(due)
        if waiting is None:
            waiting = self._delayed[due] = []
            self._loop.call_at(due / 1000, self._post_delayed, due)
        waiting.append((host, event))

    def _post_delayed(self, due: int) -> None:
        for host, event in self._delayed.pop(due):
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
        caller.start_stream(stream_id if host is None else "", lambda: self._stream_ended(stream_id, host))
        self._streams[stream_id] = (caller, host)

    def _close(self, host: Host | None, effect: Close, caller: Connection | None) -> None:
        connection, _ = self._streams.pop(effect.stream_id, (None, None))
        if connection is not None:
            connection.finish()

    def _stream_ended(self, stream_id: str, host: Host | None) -> None:
        if self._streams.pop(stream_id, None) is not None:
            self.post(host, StreamLost(stream_id))

    def _send(self, host: Host | None, effect: Send, caller: Connection | None) -> None:
        if host is not None and host.virtual is not None:
            self._on_host(host, effect, caller)
            return
        connection, _ = self._streams.get(effect.stream_id, (None, None))
        if connection is None:
            return
        if host is not None or not self.faults.update_faults:
            connection.send_event(effect.event)
            return
        for delay_ms, event in self.faults.apply(effect.event):
            if delay_ms:
                self._loop.call_later(delay_ms / 1000, self._send_delayed, effect.stream_id, event)
            else:
                connection.send_event(event)

    def _send_delayed(self, stream_id: str, event: Json) -> None:
        if stream_id in self._streams:
            self._streams[stream_id][0].send_event(event)

    def scheduler_streams(self, framework_id: str = "") -> list[tuple[str, Connection]]:
        """The open streams of schedulers as (stream id, connection), of one framework or of all."""
        wanted = {
            framework.stream_id
            for framework in self.master.state.frameworks.values()
            if framework_id in ("", framework.id) and framework.stream_id
        }
        return [(stream_id, self._streams[stream_id][0]) for stream_id in wanted if stream_id in self._streams]

    def executor_streams(self, host: Host) -> list[Connection]:
        return [connection for connection, owner in self._streams.values() if owner is host]

    # ---- executors -------------------------------------------------------------------------------------------

    async def _start_executor(self, host: Host, start: StartExecutor) -> None:
        sandbox = host.workspace.sandbox(start)
        try:
            await asyncio.to_thread(prepare, host.workspace, start)
            if start.container_id in self._killed_early:
                self._killed_early.discard(start.container_id)
                self.post(host, ExecutorEnded(start.container_id, 9))
                return
            popen = start_process(host.workspace, start, sandbox)
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
            self._killed_early.add(container_id)
        else:
            kill_all(process.sandbox, process.popen.pid)

    def kill_executors(self, framework_id: str, executor_id: str) -> int:
        """Crash each matching executor: send SIGKILL to its main process. Returns the number of these executors."""
        killed = 0
        for process in self._processes.values():
            executor = process.host.agent.executor_of(process.sandbox.name)
            if executor is not None and framework_id in ("", executor[0]) and executor_id in ("", executor[1]):
                process.popen.kill()
                killed += 1
        return killed

    def _end_agent(self, host: Host | None, effect: EndAgent, caller: Connection | None) -> None:
        assert host is not None, "a master does not end"
        if host.listener is not None:
            host.listener.close()
        host.alarm.cancel()
        self.hosts.pop(host.link, None)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- links and masters -----------------------------------------------------------------------------------

    def cut_link(self, host: Host, timed_out: bool) -> None:
        """Disconnect master and agent. With `timed_out`, the master also marks the agent as unreachable."""
        host.linked = False
        self.post(None, LinkLost(host.link))
        self.post(host, LinkLost(host.link))
        if timed_out:
            self.post(None, AgentTimedOut(host.agent.agent_id))

    def restore_link(self, host: Host) -> None:
        host.linked = True
        self.post(host, LinkMade())

    def restart_master(self, agents_back: bool) -> None:
        """Replace the master by one that knows only the agents' ids. All scheduler streams and links break."""
        known = [host.agent.agent_id for host in self.hosts.values()]
        for stream_id, connection in self.scheduler_streams():
            del self._streams[stream_id]
            connection.abort()
        for host in self.hosts.values():
            self.post(host, LinkLost(host.link))
        self.settings = replace(self.settings, master_id=f"{self.settings.master_id.partition('.')[0]}.{self.now():x}")
        self.master = Master(self.settings, self.now())
        self.master.expect_agents(known, self.now())
        self._rearm_later(None)
        for host in self.hosts.values():
            host.linked = agents_back
            if agents_back:
                self.post(host, LinkMade())


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


def new_salt() -> int:
    """A random `AgentSettings.salt`."""
    return int.from_bytes(os.urandom(8), "big")
