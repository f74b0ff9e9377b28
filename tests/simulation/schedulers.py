"""Scheduler processes: the real leader, core and driver, in a simulated store and network, with crashes and pauses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcloud.adapters.memory import MemoryStore
from jobcloud.adapters.mesos.driver import MesosDriver, MesosSettings
from jobcloud.adapters.mesos.hardened import HardenedDriver
from jobcloud.adapters.mesos.link import Address, CallFailed, CallUnanswered
from jobcloud.errors import Fenced, RecordTooLarge, StoreError, StoreGone
from jobcloud.match import Matcher
from jobcloud.messages import (
    Accept,
    Acknowledge,
    AlertDue,
    Call,
    Command,
    Effect,
    Event,
    Notice,
    ReportDelivery,
    SendFailed,
    StatusReceived,
    Tick,
)
from jobcloud.model import Task
from jobcloud.ports import StoredRecords, StoredWrite
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.scheduler.launch import Artifacts
from jobcloud.scheduler.state import AlertChannel
from jobcloud.server.batch import Arrived, BatchProcessor, CoreFailed, Item, Order, refuse
from jobcloud.server.clock import Clock
from jobcloud.server.epochs import LastingEpochs
from jobcloud.server.records import Restored

from .etcd import SimEtcdStore
from .extremes import ACCEPT_BYTES, ACCEPT_TASKS, RECORD_BYTES
from .plan import MAX_ENDED_SHARDS
from .promise import Before
from .zookeeper import SimZooKeeperStore

if TYPE_CHECKING:
    from .world import World

AVOID_MS = 6_000  # so that a job waits less than the time that it has after the faults
POLICY = Policy(
    Artifacts("http://artifacts", "e" * 64, "executor.zip", "exec python3 executor.zip"),
    offer_hold_ms=2_000, decline_refuse_ms=2_000, max_waiting=8, history=20, max_ended_shards=MAX_ENDED_SHARDS,
    reconcile_interval_ms=30_000, reconcile_max_ms=8_000, launch_answer_ms=3_000, kill_again_ms=3_000,
    avoid_ms=AVOID_MS, sweep_ms=10_000, timeout_grace_ms=4_000, kill_timeout_ms=6_000, drain_lead_ms=6_000,
    drain_refuse_ms=3_000, gang_age_ms=1_500, gang_hold_ms=4_000,
)  # fmt: skip
_ALERTING: dict[str, Any] = {
    "alert_channels": (AlertChannel("ops"),), "alert_wait_ms": 200, "alert_interval_ms": 500,
}  # fmt: skip
_SENDING_MS = 20
EXTREME_POLICY = replace(POLICY, accept_bytes=ACCEPT_BYTES, accept_tasks=ACCEPT_TASKS)
_MESOS = MesosSettings("master:5050", user="sim", failover_timeout_s=604_800.0)
_ADDRESS = Address("master", 5050)
_PATIENCE_MS = 10_000  # two heartbeats and a half


class Crash(BaseException):
    """The process ends at this point."""


class WatchedMatcher:
    """The matcher, with a check that every release has a claim, once."""

    def __init__(self, dimensions: int) -> None:
        self._matcher = Matcher(dimensions)

    def release(self, release_ids: Any) -> Any:
        unknown = self._matcher.release(release_ids)
        assert not len(unknown), f"released twice, or never claimed: {unknown}"
        return unknown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matcher, name)


class SimStore(MemoryStore):
    """The store as one process sees it. It may be unreachable, fail, or succeed and report a failure."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(world.server)
        self._world, self._process = world, process

    def _reach(self, what: str) -> None:
        self._process.point(f"before {what}")
        if self._world.now < self._world.store_down_until:
            raise StoreError("the store is out of reach")
        if self._server is not self._world.server:
            raise StoreGone("the file was deleted or replaced")

    def acquire(self, floor: int = 0) -> int:
        self._reach("acquire")
        if self._world.extremes.exhausted:
            raise StoreError("the store cannot be opened: too many open files")
        epoch = super().acquire(floor)
        self._process.point("after acquire")
        return epoch

    def load(self) -> StoredRecords:
        self._reach("load")
        stored = super().load()
        self._process.point("after load")
        return stored

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        what = "write" if batch else "proof"
        self._reach(what)
        if batch and self._world.take("store_fails"):
            raise StoreError("not written")
        self._check_sizes(batch)
        before = dict(self._world.server.entries)
        super().write(epoch, batch)
        self._world.promise.written(epoch, before, batch)
        if batch and self._world.take("store_lies"):
            raise StoreError("written, yet reported as failed")
        for kind in dict.fromkeys(write.kind for write in batch):
            self._process.point(f"stored {kind}")
        self._process.point(f"after {what}")

    def snapshot(self) -> StoredRecords:
        raise AssertionError("no leader makes a backup")

    def _check_sizes(self, batch: Sequence[StoredWrite]) -> None:
        large: dict[tuple[str, str], str] = {
            (write.kind, write.key): f"{write.kind} {write.key!r} takes {len(write.value)} bytes"
            for write in (batch if self._world.plan.extreme else ())
            if write.value is not None and len(write.value) > RECORD_BYTES
        }
        if large:
            raise RecordTooLarge(large)


class SimCore(Scheduler):
    process: Any = None  # None while the core restores itself
    loaded: frozenset[str] = frozenset()  # the firings loaded at the start

    def handle(self, event: Event) -> list[Effect]:
        before = Before(self) if isinstance(event, Tick) else None
        task = self.tasks.get(event.status.task_id) if isinstance(event, StatusReceived) else None
        effects = super().handle(event)
        if isinstance(event, StatusReceived):
            self.process.world.truth.heard(event.status)
        elif isinstance(event, SendFailed) and event.too_large:
            self.process.world.promise.refusal_heard(event, self.epoch)
        self.process.world.note(f"{self.process.name} {event!r}"[:300])
        if before is not None and before.firings:
            self.process.world.promise.launched(self, before, effects, event.at)
        elif task is not None and task.id not in self.tasks:
            self.process.world.promise.task_ended(self, task, event.at)
        self.process.point(f"decided {type(event).__name__}")
        return effects


class SimSession:
    """One subscription at the master, in place of `mesos_link.Session`."""

    def __init__(self, driver: SimDriver) -> None:
        self.driver = driver
        self.process = driver.process
        self.address = _ADDRESS
        self.stream_id = ""
        self.subscribed = self.ended = self.full = False
        self.end_reason = ""
        self.silence_limit_s = 15.0
        self.heard = self.process.world.now
        self._world = self.process.world
        self._added: list[bytes] = []

    def receive(self, record: bytes) -> None:
        """A record arrives. A paused process sees it when it continues."""
        if self.ended or self.process.dead:
            return
        if self.process.partitioned:
            # A stream has no gaps: a lost record ends it.
            self._world.later(self.process.partition_until - self._world.now, self.end, "the connection was reset")
            return
        if self.process.stopped:
            self.process.missed.append((self, record))
            return
        self.heard = self._world.now
        self.driver.take(self, record)

    def add(self, body: bytes) -> None:
        if self.ended:
            raise CallFailed(f"not connected: {self.end_reason}", certain=True)
        self._added.append(body)

    def ask(self, body: bytes) -> tuple[int, str]:
        """One call by a connection of its own."""
        if self.ended or self.process.partitioned or self._world.extremes.exhausted:
            raise OSError("no connection")
        self._world.note(f"{self.process.name} asks {body.decode()}"[:200])
        reply = self._world.cluster.call(self, body)
        return reply.status, str(reply.body)

    def exchange(self) -> list[CallFailed | None]:
        """Calls in flight together. If the connection breaks, the master has seen the first ones."""
        if self.ended:
            lost: list[CallFailed | None] = [CallFailed(f"not connected: {self.end_reason}", certain=True)]
            lost *= len(self._added)
            self._added.clear()
            return lost
        number = self._world.dice.randint(1, len(self._added)) if len(self._added) > 1 else 1
        sent, self._added = self._added[:number], self._added[number:]
        if not self.process.partitioned and not self._world.take("call_lost"):
            return [self._call(body) for body in sent]
        answered = 0 if self.process.partitioned else self._world.dice.randint(0, number - 1)
        settled = [self._call(body) for body in sent[:answered]]
        for body in sent[answered : answered + self._world.dice.randint(0, number - answered)]:
            self._call(body)
        self.end("a call was not answered in time")
        return settled + [CallUnanswered("not answered", certain=False)] * (number - answered)

    def _call(self, body: bytes) -> CallFailed | None:
        self._world.note(f"{self.process.name} calls {body.decode()}"[:200])
        reply = self._world.cluster.call(self, body)
        if reply.status < 300:
            return None
        certain, too_large = reply.status < 500, reply.status == 413
        return CallFailed(f"HTTP {reply.status}: {reply.body}", certain=certain, too_large=too_large)

    def end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended, self.end_reason = True, reason
        self._world.later(self._world.dice.randint(0, 30), self._world.cluster.stream_lost, self.stream_id)
        self._world.later(0, self.driver.left, self)

    def watch(self) -> None:
        """End the stream after a long silence."""
        if not self.ended:
            if self._world.now - self.heard >= _PATIENCE_MS:
                self.end("no event and no heartbeat")
            else:
                self._world.later(_PATIENCE_MS, self.watch)


class SimDriver:
    """The real driver without threads and sockets: connecting, events and calls are events of the world."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.world = process.world
        self.real = MesosDriver(replace(_MESOS, roles=process.world.plan.subscribed), now_ms=process.clock.now_ms)
        self.hardened: HardenedDriver = self.real._driver
        self.stopped = False
        self._attempting = self._calling = False
        self._proven: set[tuple[str, str]] = set()

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        self.process.point("before start")
        self.real._deliver = deliver
        self.hardened._started = True
        if framework_id:
            self.hardened.framework_id = framework_id
        self._attempt_in(self.world.dice.randint(1, 40))
        self.process.point("after start")

    def _attempt_in(self, wait_ms: int) -> None:
        if not self._attempting and not self.stopped:
            self._attempting = True
            self.world.later(wait_ms, self._attempt)

    def _attempt(self) -> None:
        self._attempting = False
        if self.stopped or self.process.dead or self.hardened._barred or self.hardened._attempt is not None:
            return
        if self.process.partitioned or self.process.stopped or self.world.extremes.exhausted:
            self._attempt_in(500)
            return
        session: Any = SimSession(self)
        self.hardened._attempt, self.hardened._replaced = session, False
        self.world.note(f"{self.process.name} subscribes as {self.hardened.framework_id}")
        self.world.cluster.subscribe(session, self.hardened.gen_request())
        self.world.truth.subscribed(self.process.leader.epoch)
        session.watch()

    def take(self, session: Any, record: bytes) -> None:
        if not self.stopped:
            self.hardened._take(session, record)

    def left(self, session: Any) -> None:
        """A subscription has ended. The driver reports it and reconnects, later if another scheduler replaced it."""
        if self.stopped or self.process.dead or self.hardened._attempt is not session:
            return
        if self.process.stopped:
            self.world.later(200, self.left, session)
            return
        self.hardened._leave(session)  # type: ignore[arg-type]  # a SimSession
        replaced = self.hardened._replaced
        self._attempt_in(self.world.dice.randint(4_000, 8_000) if replaced else self.world.dice.randint(100, 400))

    def send(self, call: Call | Acknowledge) -> None:
        name = type(call).__name__
        self.process.point(f"before {name}")
        self.world.promise.sent(self.process, call)
        if isinstance(call, Accept) and self.world.take("rescind_accepted"):
            self.world.cluster.rescind(call.offer_ids[0])
        self.real.send(call)
        self._call_in(self.world.dice.randint(0, 3))
        self.process.point(f"after {name}")

    def _call_in(self, wait_ms: int) -> None:
        if not self._calling:
            self._calling = True
            self.world.later(wait_ms, self._make_calls)

    def _make_calls(self) -> None:
        self._calling = False
        if self.process.stopped and not self.process.dead:
            self._call_in(50)
            return
        if self.stopped or not self._calls_wait():
            return
        self.real._run_some()
        if self.hardened._attempt is None:
            self._attempt_in(1)
        if self.process.dead:
            self.stopped = True  # these calls were in flight when the process died; the others were never sent
        elif self._calls_wait():
            self._call_in(self.world.dice.randint(0, 3))

    def _calls_wait(self) -> bool:
        return not self.real._requests.empty() or bool(self.real._in_flight)

    def stop(self) -> None:
        """Send the calls decided before."""
        self.process.point("before stop")
        while not self.stopped and not self.process.partitioned and self._calls_wait():
            self.real._run_some()
        self.stopped = True
        self.real._stopping = True
        session = self.hardened._attempt
        if session is not None:
            session.end("stopped")
        self.process.point("after stop")

    def teardown(self) -> None:
        raise AssertionError("nobody asked for it")

    def vanish(self) -> None:
        """The process died: one call may be in flight, and the connection breaks."""
        session = self.hardened._attempt
        self.real._deliver = lambda event: None
        if self.world.dice.random() < 0.5:
            self.stopped = True
        else:
            self._call_in(1)
        if session is not None:
            self.world.later(self.world.dice.randint(3, 400), session.end, "the process died")


class Process:
    """A scheduler process: the turns of `server.loop` without its thread."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"s{number}"
        self.dead = self.stopped = self._busy = self._ready = False
        self.partition_until = 0
        self.inbox: deque[Item] = deque()
        self.missed: deque[tuple[SimSession, bytes]] = deque()
        self._turn_at = -1
        self._told: set[str] = set()
        self.driver: SimDriver | None = None
        kind = SimZooKeeperStore if world.plan.zookeeper else SimEtcdStore if world.plan.etcd else SimStore
        self.store: Any = kind(world, self)
        self.clock = Clock(world.clock, world.running)
        epochs = LastingEpochs(self.store, Path("epoch"), state="state", now_ms=self.clock.now_ms)
        self.leader: BatchProcessor[SimCore] = BatchProcessor(
            epochs, self._make_driver, self._restore, self._publish, now_ms=self.clock.now_ms, may_send=self._may_act
        )

    @property
    def partitioned(self) -> bool:
        return self.world.now < self.partition_until

    @property
    def ready(self) -> bool:
        return self._ready and not self.dead

    @property
    def core(self) -> SimCore:
        return self.leader.core

    # ---- crash and pause ------------------------------------------------------------------------------------

    def point(self, label: str) -> None:
        """A point at which the process may crash, or pause as after SIGSTOP."""
        fault = self.world.at_point(label)
        if fault is None:
            return
        self.world.note(f"{self.name} {fault.kind} {label}")
        if fault.kind == "crash":
            raise Crash
        self._sleep(fault.b)

    def _sleep(self, number: int) -> None:
        """Pause while the world goes on, sometimes with another leader."""
        if self.stopped:
            return
        self.stopped = True
        if number % 3:
            self.world.later(number % 97, self.world.start_process)
        self.world.run_until(self.world.now + 100 + number % 9_000, nested=True)
        if self.dead:
            raise Crash  # it was killed meanwhile
        self.stopped = False
        self.world.later(0, self._wake_up)

    def _wake_up(self) -> None:
        missed, self.missed = self.missed, deque()
        for session, record in missed:
            session.receive(record)

    def die(self) -> None:
        self.dead = True
        self.world.note(f"{self.name} is dead")
        if self.driver is not None:
            self.driver.vanish()
        self.world.promise.process_ended(self)
        self.inbox.clear()

    # ---- the loop --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if self.world.plan.elects:
            self._guarded(self._stand_by)
        else:
            self._guarded(self._begin)

    def _stand_by(self) -> None:
        """Wait until this is the oldest candidate in ZooKeeper or etcd."""
        if self.dead:
            return
        if not self.stopped and self.store.leads():
            self.world.note(f"{self.name} is elected")
            self._begin()
        else:
            self.world.later(self.world.dice.randint(50, 500), self._guarded, self._stand_by)

    def _may_act(self) -> bool:
        return not self.world.plan.elects or self.store.election.holds()

    def _begin(self) -> None:
        self.leader.acquire()
        self._lead()

    def _lead(self) -> None:
        self.leader.reload()
        self.point("after restore")
        self.world.promise.restored(self)
        self.leader.connect(lambda session, event: self.put(Arrived(event, session)))
        self._ready = True
        self._turn_in(0)

    def put(self, item: Item) -> None:
        self.inbox.append(item)
        self._turn_in(self.world.dice.randint(0, 3))

    def order(self, make: Callable[[int], Command]) -> Future[None]:
        reply: Future[None] = Future()
        self.put(Order(make, reply))
        return reply

    def _turn_in(self, wait_ms: int) -> None:
        at = self.world.now + wait_ms
        if not self.world.now <= self._turn_at <= at:
            self._turn_at = at
            self.world.later(wait_ms, self._turn, at)

    def _turn(self, planned: int) -> None:
        if planned != self._turn_at or self.dead or self._busy or not self._ready:
            return
        self._turn_at = -1
        if self.world.plan.elects and not self._may_act():
            self._guarded(self._stand_still)
            return
        taken = list(self.inbox)
        self.inbox.clear()
        self._guarded(lambda: self._process(taken))
        if self.ready:
            self._turn_in(0 if self.inbox else max(1, self.leader.wake_ms()))

    def _stand_still(self) -> None:
        """Decide nothing while the leadership is in doubt. Events wait."""
        self.store.check()
        self._turn_in(100)

    def _process(self, items: list[Item]) -> None:
        try:
            self.leader.process(items)
        except CoreFailed as error:
            self.world.violation(f"the core failed: {error!r} {error.__cause__!r}")
            raise
        self.world.promise.turned(self)

    def _guarded(self, do: Callable[[], None]) -> None:
        self._busy = True
        try:
            do()
        except Crash:
            self.die()
        except Fenced:
            self._end()
        except RecordTooLarge as error:
            self.world.violation(f"14: a record that is too large ends the session of {self.name}: {error}")
            self._recover(str(error))
        except StoreError as error:
            self._recover(str(error))
        except CoreFailed as error:
            self._recover(str(error))
        finally:
            self._busy = False
        if self.dead and not self.world.living():
            self.world.later(self.world.dice.randint(50, 2_500), self.world.start_process)

    def _end(self) -> None:
        """Another scheduler leads: answer everybody, and write and send nothing more."""
        self.world.note(f"{self.name} steps down")
        self._ready = False
        refuse(self.inbox, "no leader here")
        self.inbox.clear()
        with suppress(Crash):
            self.leader.disconnect()
        self.dead = True
        self.store.close()
        self.world.promise.process_ended(self)

    def _recover(self, problem: str) -> None:
        self.world.note(f"{self.name} starts over: {problem}")
        was_ready, self._ready = self._ready, False
        refuse(self.inbox, "starting over")
        self.inbox.clear()
        if not was_ready and not hasattr(self.leader, "core"):
            self.die()  # it never led: the process ends, and another starts
            return
        try:
            self.leader.disconnect()
        except Crash:
            self.die()
            return
        self.world.later(self.world.dice.randint(100, 1_000), self._again)

    def _again(self) -> None:
        if not self.dead:
            self._guarded(self._lead_again)

    def _lead_again(self) -> None:
        if self.world.plan.elects:
            self.store.check()
        self._lead()

    # ---- dependencies of the leader -------------------------------------------------------------------------

    def _make_driver(self) -> SimDriver:
        self.driver = SimDriver(self)
        return self.driver

    def _restore(self, restored: Restored, epoch: int, at: int) -> SimCore:
        matcher: Any = WatchedMatcher
        alerting = _ALERTING if self.world.promise.alerting else {}
        policy = EXTREME_POLICY if self.world.plan.extreme else POLICY
        artifacts, roles = (
            replace(POLICY.artifacts, base_url=f"http://leader-{epoch}"),
            dict(self.world.plan.team_roles),
        )
        policy = replace(policy, artifacts=artifacts, roles=self.world.plan.roles, team_roles=roles, **alerting)
        try:
            core = SimCore(policy, restored, epoch, at, matcher)
        except Exception as error:
            self.world.violation(f"2: a leader cannot take up what is stored: {error!r}")
            raise StoreError("nobody can lead") from error
        core.process, core.loaded = self, frozenset(core.firings)
        killed, kill = self.world.operators.killed, core._tasks.kill
        killed.update(task.id for task in core.tasks.values() if task.kill_ms)

        def noted(task: Task, at: int) -> None:
            killed.add(task.id)
            kill(task, at)

        core._tasks.kill = noted  # type: ignore[method-assign]
        return core

    def _publish(self, notice: Notice) -> None:
        self.point("before Publish")
        if isinstance(notice, AlertDue):
            self.world.later(_SENDING_MS, self._send_alert, notice)
        self.point("after Publish")

    def _send_alert(self, due: AlertDue) -> None:
        """The channel takes the message. As in AlertService, a message that it has taken is only reported again."""
        if self.stopped and not self.dead:
            self.world.later(_SENDING_MS, self._send_alert, due)
        elif self.ready and self._may_act():
            if due.id not in self._told:
                self._told.add(due.id)
                self.world.promise.alert_sent(self, due)
            self.world.later(_SENDING_MS, self._report_alert, due)

    def _report_alert(self, due: AlertDue) -> None:
        if self.ready:
            self.order(lambda at: ReportDelivery(at, due.id))
