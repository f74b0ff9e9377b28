"""Mesos: master and agents of the dev cluster, and a slow network between them that breaks on request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jobcloud.adapters.mesos.wire import dumps, loads
from jobcloud.dev.agent import Agent, AgentInput, AgentSettings
from jobcloud.dev.master import Master, MasterInput, MasterSettings
from jobcloud.dev.master.records import FrameworkRecord
from jobcloud.dev.protocol import (
    AgentTimedOut,
    Call,
    Close,
    Effect,
    EndAgent,
    FromAgent,
    FromMaster,
    KillExecutor,
    LinkLost,
    LinkMade,
    Operate,
    Reply,
    RescindOffer,
    Send,
    StartExecutor,
    StreamLost,
    Subscribed,
    Tick,
    ToAgent,
    ToMaster,
    UpdateStatus,
)
from jobcloud.dev.resources import parse

from .executors import Executor

if TYPE_CHECKING:
    from .schedulers import SimSession
    from .world import World


ZONES = ("a", "b", "c")


@dataclass(slots=True)
class Host:
    """A machine: the agent, its link to the master, and its executors."""

    cluster: Cluster
    agent: Agent
    link: str
    cpus: int
    zone: str
    linked: bool = True
    dead: bool = False
    executors: dict[str, Executor] = field(default_factory=dict)  # by container
    streams: dict[str, Executor] = field(default_factory=dict)
    armed: int = 0

    def post(self, event: AgentInput, caller: Executor | None = None) -> None:
        if self.dead:
            return
        world = self.cluster.world
        for effect in self.agent.handle(event, world.now):
            self._perform(effect, caller)
        due = self.agent.next_at()
        if due is not None and (self.armed <= world.now or due < self.armed):
            self.armed = max(due, world.now + 1)
            world.later(self.armed - world.now, self.post, Tick())

    def _perform(self, effect: Effect, caller: Executor | None) -> None:
        world = self.cluster.world
        match effect:
            case ToMaster():
                self.cluster.up(self, effect.message)
            case Send():
                if effect.stream_id in self.streams:
                    world.later(1, self._to_executor, effect.stream_id, effect.event)
            case Subscribed() if caller is not None:
                caller.stream_id = effect.stream_id
                self.streams[effect.stream_id] = caller
            case Close():
                executor = self.streams.get(effect.stream_id)
                if executor is not None and executor.stream_id == effect.stream_id:
                    executor.stream_id = ""
            case Reply() if caller is not None and effect.status == 400:
                caller.die(1)
            case StartExecutor():
                self.executors[effect.container_id] = executor = Executor(world, self, effect)
                world.later(world.dice.randint(20, 600), executor.begin)
            case KillExecutor():
                if effect.container_id in self.executors:
                    world.later(1, self.executors[effect.container_id].die, 9)
            case EndAgent():
                self.dead = True
                world.later(world.dice.randint(500, 5_000), self.cluster.replace_host, self)

    def _to_executor(self, stream_id: str, event: Any) -> None:
        executor = self.streams.get(stream_id)
        if executor is not None:
            executor.receive(event)


class Cluster:
    def __init__(self, world: World, sizes: tuple[int, ...]) -> None:
        self.world = world
        self.settings = MasterSettings(master_id="m", heartbeat_ms=4_000, agent_reregister_timeout_ms=15_000)
        self.master = Master(self.settings, world.now)
        self.hosts: list[Host] = []
        self.sessions: dict[str, SimSession] = {}
        self.masters = 0
        self.gone: dict[str, int] = {}
        #: the frameworks that earlier masters knew
        self._former: dict[str, FrameworkRecord] = {}
        self._armed = 0
        self._arrives: dict[str, int] = {}
        self._reply: Reply | None = None
        for cpus in sizes:
            self.add_host(cpus)

    def add_host(self, cpus: int, zone: str = "") -> None:
        """Add a machine, to the zone with the fewest if none is given."""
        number = self.world.number()
        zone = zone or min(ZONES, key=lambda one: sum(host.zone == one for host in self.hosts))
        attributes = ({"name": "zone", "type": "TEXT", "text": {"value": zone}},) if self.world.plan.places else ()
        settings = AgentSettings(
            f"host{number}", 5051, parse(self._resources(cpus)), attributes, salt=number,
            registration_timeout_ms=10_000, retry_ms=1_500, retry_max_ms=12_000, shutdown_grace_ms=2_000,
            heartbeat_ms=3_600_000,
        )  # fmt: skip
        host = Host(self, Agent(settings), f"link{number}", cpus, zone)
        self.hosts.append(host)
        host.post(LinkMade())

    def _resources(self, cpus: int) -> str:
        """Half of an agent is reserved to the second role, if there is one; of a small agent not to that of a team."""
        rest, roles = "disk:10000;ports:[31000-31009]", self.world.plan.subscribed
        if len(roles) == 1 or (len(self.world.plan.roles) == 1 and cpus < 4):
            return f"cpus:{cpus};mem:{cpus * 512};{rest}"
        half, mem, role = cpus // 2, cpus * 256, roles[1]
        return f"cpus:{cpus - half};mem:{mem};cpus({role}):{half};mem({role}):{mem};{rest}"

    def replace_host(self, host: Host) -> None:
        """Replace a dead machine by a new one. An operator marks the dead one as gone, since only they can know."""
        if host in self.hosts:
            if host.agent.agent_id:
                self.mark_gone(host)
            self.hosts.remove(host)
            self.add_host(host.cpus, host.zone)

    # ---- between agents and master ---------------------------------------------------------------------------

    def _travel(self, way: str) -> int:
        """The arrival of a message sent now. Messages on the same path stay in order."""
        at = max(self.world.now + self.world.dice.randint(0, 4), self._arrives.get(way, 0))
        self._arrives[way] = at
        return at - self.world.now

    def up(self, host: Host, message: Any) -> None:
        if not host.linked or (isinstance(message, UpdateStatus) and self.world.take("update_lost")):
            return
        self.world.later(self._travel(f"up {host.link}"), self._arrive_up, host, self.masters, message)

    def _arrive_up(self, host: Host, masters: int, message: Any) -> None:
        if host.linked and masters == self.masters:
            self.post(FromAgent(host.link, message))

    def _arrive_down(self, host: Host, masters: int, message: Any) -> None:
        if host.linked and masters == self.masters:
            host.post(FromMaster(message))

    def post(self, event: MasterInput, session: SimSession | None = None) -> None:
        for effect in self.master.handle(event, self.world.now):
            self._perform(effect, session)
        due = self.master.next_at()
        if due is not None and (self._armed <= self.world.now or due < self._armed):
            self._armed = max(due, self.world.now + 1)
            self.world.later(self._armed - self.world.now, self.post, Tick())

    def _perform(self, effect: Effect, session: SimSession | None) -> None:
        match effect:
            case Reply():
                self._reply = effect
            case Subscribed() if session is not None:
                session.stream_id = effect.stream_id
                self.sessions[effect.stream_id] = session
            case Send():
                self._to_scheduler(effect)
            case Close():
                closed = self.sessions.pop(effect.stream_id, None)
                if closed is not None:
                    wait = self._travel(f"stream {effect.stream_id}")
                    self.world.later(wait, closed.end, "the master closed the event stream")
            case ToAgent():
                for host in self.hosts:
                    if host.link == effect.link and host.linked:
                        wait = self._travel(f"down {host.link}")
                        self.world.later(wait, self._arrive_down, host, self.masters, effect.message)

    # ---- between schedulers and master -----------------------------------------------------------------------

    def _to_scheduler(self, effect: Send) -> None:
        session = self.sessions.get(effect.stream_id)
        if session is None:
            return
        wait, record = self._travel(f"stream {effect.stream_id}"), dumps(effect.event)
        if effect.event["type"] == "UPDATE":
            status = effect.event["update"]["status"]
            self.world.truth.told(status)
            if status.get("uuid") and self.world.take("update_doubled"):
                self.world.later(wait + self.world.dice.randint(0, 5_000), session.receive, record)
            if status.get("uuid") and self.world.take("update_late"):
                wait += self.world.dice.randint(10, 6_000)
        self.world.later(wait, session.receive, record)

    def subscribe(self, session: SimSession, body: bytes) -> None:
        self.post(Call(loads(body)), session)

    def call(self, session: SimSession, body: bytes) -> Reply:
        """Handle one call of a scheduler and answer it."""
        if len(body) > self.world.plan.call_bytes:
            self.world.promise.refused(body)
            return Reply(413, "the request is too large")
        call = loads(body)
        known = dict(self.master.state.offers)
        self.post(Call(call, session.stream_id))
        reply = self._take_reply()
        if reply.status < 300:
            self.world.truth.called(session.process, call, known)
        return reply

    def _take_reply(self) -> Reply:
        reply, self._reply = self._reply, None
        assert reply is not None, "every call is answered"
        return reply

    def stream_lost(self, stream_id: str) -> None:
        if self.sessions.pop(stream_id, None) is not None:
            self.post(StreamLost(stream_id))

    # ---- faults ----------------------------------------------------------------------------------------------

    def cut(self, host: Host, timed_out: bool) -> None:
        """Break the link. `timed_out`: the master has already given up the agent."""
        if not host.linked:
            return
        host.linked = False
        self.post(LinkLost(host.link))
        host.post(LinkLost(host.link))
        if timed_out:
            self.post(AgentTimedOut(host.agent.agent_id))

    def join(self, host: Host) -> None:
        if not host.linked and not host.dead:
            host.linked = True
            host.post(LinkMade())

    def kill_host(self, host: Host) -> None:
        """Power off. Others notice only the silence."""
        for executor in list(host.executors.values()):
            executor.die(9, report=False)
        host.dead, was_linked, host.linked = True, host.linked, False
        if was_linked:
            self.post(LinkLost(host.link))

    def mark_gone(self, host: Host) -> None:
        agent_id = host.agent.agent_id
        self.world.truth.gone.add(agent_id)
        self.gone[agent_id] = self.world.now
        self.post(Operate({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}))

    def announce(self, host: Host, in_ms: int, down_after_ms: int) -> None:
        """Schedule maintenance of one machine. `down_after_ms`: take it down then."""
        machine = {"hostname": host.agent.settings.hostname, "ip": "127.0.0.1"}
        self.world.truth.windows.add(host.agent.agent_id)
        start = {"nanoseconds": max(0, self.world.now + in_ms) * 1_000_000}
        self._schedule([{"machine_ids": [machine], "unavailability": {"start": start}}])
        if down_after_ms:
            self.world.later(down_after_ms, self._take_down, host, machine)

    def _take_down(self, host: Host, machine: dict[str, str]) -> None:
        before = self.master.state.agents.get(host.agent.agent_id)
        self._operate("START_MAINTENANCE", {"machines": [machine]})
        if before is not None and host.agent.agent_id not in self.master.state.agents:
            self.world.truth.gone.add(host.agent.agent_id)

    def end_maintenance(self) -> None:
        down = self.master.views.maintenance_status().get("down_machines")
        if down:
            self._operate("STOP_MAINTENANCE", {"machines": down})
        self._schedule([])

    def _schedule(self, windows: list[Any]) -> None:
        self._operate("UPDATE_MAINTENANCE_SCHEDULE", {"schedule": {"windows": windows}})

    def drain(self, host: Host, mark_gone: bool) -> None:
        """Mesos drains an agent."""
        self._operate("DRAIN_AGENT", {"agent_id": {"value": host.agent.agent_id}, "mark_gone": mark_gone})

    def reactivate(self, agent_id: str) -> None:
        self._operate("REACTIVATE_AGENT", {"agent_id": {"value": agent_id}})

    def _operate(self, kind: str, part: dict[str, Any]) -> None:
        self.post(Operate({"type": kind, kind.lower(): part}))

    def rescind(self, offer_id: str) -> None:
        self.post(RescindOffer(offer_id))

    def teardown(self) -> None:
        """An operator tears the framework down at the master."""
        for framework_id in [one.id for one in self.master.state.frameworks.values() if not one.recovered]:
            self._teardown(framework_id)

    def teardown_others(self, known: str) -> None:
        """An operator tears down all frameworks apart from one.

        A new master hears of a framework when its agents register. So the operator waits for them, and then tears down
        the framework before it can do harm: here, at once.
        """
        state = self.master.state
        for framework_id in [one for one in state.frameworks if one != known]:
            self._teardown(framework_id)
        for framework_id, framework in self._former.items():
            if framework_id not in (known, *state.frameworks):
                self.world.truth.removed.add(framework_id)
                state.removed_frameworks[framework_id] = framework

    def _teardown(self, framework_id: str) -> None:
        self.world.truth.removed.add(framework_id)
        self.post(Operate({"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework_id}}}))

    def restart(self, forgetful: bool) -> None:
        """Another master takes over. It knows the agents, unless it is `forgetful`."""
        for session in list(self.sessions.values()):
            session.end("the connection was reset")
        self.sessions.clear()
        before = self.master.state
        self._former |= before.frameworks
        known = [*before.agents, *before.unreachable, *before.recovering]
        self.masters += 1
        self._armed = 0
        self.settings = replace(self.settings, master_id=f"m{self.masters}")
        self.master = Master(self.settings, self.world.now)
        self.master.state.gone = {} if forgetful else dict(self.gone)
        if not forgetful:
            self.master.expect_agents(sorted(set(known) - self.gone.keys()), self.world.now)
            self.master.state.take_over(before)
        # Otherwise it would accept a framework that an operator has removed.
        self.master.state.removed_frameworks = before.removed_frameworks
        for host in self.hosts:
            if host.linked and not host.dead:
                host.post(LinkLost(host.link))
                self.world.later(self.world.dice.randint(5, 3_000), self._find_master, host, self.masters)

    def _find_master(self, host: Host, masters: int) -> None:
        if host.linked and masters == self.masters:
            host.post(LinkMade())
