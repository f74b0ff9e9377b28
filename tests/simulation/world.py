"""One history: virtual time, the faults of the plan, and the phases from the first start to rest."""

from __future__ import annotations

import hashlib
import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from jobcloud import model
from jobcloud.adapters.memory import MemoryServer
from jobcloud.model import EVERY_TEAM
from jobcloud.server import epochs

from . import etcd, zookeeper
from .cluster import ZONES, Cluster, Host
from .extremes import LIMITS, Extremes, Limits
from .operators import BEFORE_EXPECTED_MS, ROOMY, Operators
from .plan import ALL_POINTS, EXTREME_KINDS, START, Fault, Plan
from .promise import Promise, Truth
from .schedulers import Process

# Limits in virtual time: from the last fault until all is well, and from the last removal until all is at rest. A job
# of several nodes has many runs, which end one after the other: one history took 179 s.
SETTLE_MS = 300_000
REST_MS = 60_000
_MAX_STEPS = 60_000
FEWEST_STEPS = 500
# In a smaller cluster, residents and executors may leave no agent with room for a run. So an agent is added at the end.
ENOUGH_CPUS = 6
_DAY_MS = 25 * 3_600_000
# Faults that take effect once, at the next opportunity.
_OCCASIONS = frozenset(
    {"store_fails", "store_lies", "update_lost", "update_doubled", "update_late", "call_lost", "finish_twice",
     "start_fails", "request_lost", "request_late", "answer_lost"}
)  # fmt: skip
_OPERATORS = frozenset({"put_app", "put_job", "remove_job", "remove_app", "app_mark", "job_mark", "trigger", "update",
                                                "kill_task", "drain", "forget", "retry", "cancel",
                        "pause_mark", "backfill", "ad_hoc", "silence", "quota", "burst", "access", "pool", "workflow",
                        "contest"})  # fmt: skip


class Stuck(Exception):
    """A promise was broken: the history ends here."""


@dataclass(slots=True)
class History:
    """The result of a plan."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    steps: int = 0
    hash: str = ""
    trace: list[str] = field(default_factory=list)
    hit: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    overlaps: list[str] = field(default_factory=list)
    settled_ms: int = 0


class World:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = START
        self.wall = BEFORE_EXPECTED_MS if plan.expected else 0  # offset of the schedulers' clocks in ms
        self.suspended = 0  # for how long their machines were suspended
        self.dice = random.Random(f"world {plan.seed}")
        self.server = MemoryServer()  # the durable state, also the expected one if ZooKeeper or etcd holds it
        self.zookeeper = zookeeper.SimServer()
        self.etcd = etcd.SimEtcd(lambda: self.now)
        self.durable = 0
        self.recorded = epochs.Recorded()  # the content of the file of the epoch
        self.store_down_until = 0
        self.processes: list[Process] = []
        self.history = History(plan)
        self._queue: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._sequence = self._numbers = 0
        self._armed: dict[str, Fault] = {}
        self._occasions: Counter[str] = Counter()
        self._depth = 0
        self._started = 0
        self.truth = Truth(self)
        self.promise = Promise(self)
        self.operators = Operators(self)
        self.extremes = Extremes(self)
        self.cluster = Cluster(self, plan.agents)

    # ---- time ------------------------------------------------------------------------------------------------

    def clock(self) -> int:
        """The time on the schedulers' machines."""
        return self.now + self.wall

    def running(self) -> int:
        """The time since the schedulers' machines have started, also while they were suspended."""
        return self.now - START + self.suspended

    @property
    def jumps(self) -> int:
        """How often the clock has jumped."""
        return self.history.happened["clock"] + 2 * self.history.happened["clock_far"]

    def later(self, ms: int, do: Callable[..., Any], *args: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + max(ms, 0), self._sequence, do, args))

    def run_until(self, instant: int, nested: bool = False) -> None:
        """Run all events up to `instant`. `nested`: called from inside an event that waits."""
        self._depth += nested
        while self._queue and self._queue[0][0] <= instant:
            at, _, do, args = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            do(*args)
            self.history.steps += 1
            if self.history.steps > _MAX_STEPS:
                self.violation("6: it never comes to rest: too many steps")
            if self.history.violations:
                raise Stuck
        self.now = max(self.now, instant)
        self._depth -= nested

    def may_wait(self) -> bool:
        """True if an event may wait while the world goes on. At most a few may be nested."""
        return self._depth < 3

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    # ---- reports -------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.history.trace.append(f"{(self.now - START) / 1000:8.3f}s {text}")

    def violation(self, text: str) -> None:
        self.note(f"VIOLATION {text}")
        self.history.violations.append(text)

    # ---- faults ----------------------------------------------------------------------------------------------

    def take(self, kind: str) -> bool:
        """True if a fault of this kind waits; it is used up."""
        if not self._occasions[kind]:
            return False
        self._occasions[kind] -= 1
        self.history.happened[kind] += 1
        self.note(f"fault {kind}")
        return True

    def at_point(self, label: str) -> Fault | None:
        fault = self._armed.get(label)
        if fault is None or (fault.kind == "pause" and self._depth >= 2):
            return None
        del self._armed[label]
        self.history.hit[label] += 1
        self.history.happened[fault.kind] += 1
        return fault

    def strike(self, fault: Fault) -> None:
        """Apply a fault of the plan."""
        kind, a, b = fault.kind, fault.a, fault.b
        if kind in ("crash", "pause"):
            self._armed[ALL_POINTS[a]] = fault
        elif kind in _OCCASIONS:
            self._occasions[kind] += 1 + b % 3
        else:
            self.note(f"fault {kind} {a} {b}")
            self.history.happened[kind] += 1
            if kind in _OPERATORS:
                self.operators.act(kind, a, b)
            elif kind in EXTREME_KINDS:
                self.extremes.strike(kind, a, b)
            else:
                getattr(self, f"_{kind}")(a, b)

    def _host(self, number: int) -> Host | None:
        hosts = [host for host in self.cluster.hosts if not host.dead]
        return hosts[number % len(hosts)] if hosts else None

    def _second_leader(self, a: int, b: int) -> None:
        self.start_process()

    def _store_down(self, a: int, b: int) -> None:
        self.store_down_until = self.now + a % 6_000

    def _session_cut(self, a: int, b: int) -> None:
        """Cut a process off from ZooKeeper or etcd, for less or more than a session timeout."""
        if living := self.living():
            living[a % len(living)].store.session.cut(200 + b % 9_000)

    def _stream_cut(self, a: int, b: int) -> None:
        for session in list(self.cluster.sessions.values()):
            session.end("the connection was reset")

    def _partition(self, a: int, b: int) -> None:
        living = self.living()
        if living:
            living[a % len(living)].partition_until = self.now + 500 + b % 25_000

    def _rescind(self, a: int, b: int) -> None:
        offers = list(self.cluster.master.state.offers)
        if offers:
            self.cluster.rescind(offers[a % len(offers)])
        self._occasions["rescind_accepted"] += not offers

    def _rescind_accepted(self, a: int, b: int) -> None:
        self._occasions["rescind_accepted"] += 1

    def _agent_cut(self, a: int, b: int) -> None:
        if (host := self._host(a)) is not None:
            self.cluster.cut(host, timed_out=b % 3 == 0)
            self.later(200 + b % 25_000, self.cluster.join, host)

    def _agent_dies(self, a: int, b: int) -> None:
        if (host := self._host(a)) is not None:
            self.cluster.kill_host(host)
            self.later(1_000 + b % 20_000, self.cluster.replace_host, host)

    def _mass_loss(self, a: int, b: int) -> None:
        """Lose half of the cluster at one instant: it dies, or is unreachable for a while.

        Operators trigger everything at the same time, so that demand exceeds the remaining room.
        """
        living = [host for host in self.cluster.hosts if not host.dead]
        for number, host in enumerate(living[a % 2 :: 2]):
            if b % 2:
                self.cluster.kill_host(host)
                if b % 3 and host.agent.agent_id:
                    self.cluster.mark_gone(host)
                self.later(1_000 + b % 20_000 + number, self.cluster.replace_host, host)
            else:
                self.cluster.cut(host, timed_out=b % 4 == 0)
                self.later(200 + b % 25_000 + number, self.cluster.join, host)
        for again in range(8):
            for number in range(6):
                self.later(again * 400 + number, self.operators.act, "trigger", number, b)

    def _agent_gone(self, a: int, b: int) -> None:
        if (host := self._host(a)) is not None and host.agent.agent_id:
            if b % 3 == 0:
                self.cluster.cut(host, timed_out=b % 2 == 0)
                self.later(3_000 + b % 15_000, self.cluster.join, host)
            self.cluster.mark_gone(host)

    def _master_restart(self, a: int, b: int) -> None:
        self.cluster.restart(forgetful=False)

    def _master_forgets(self, a: int, b: int) -> None:
        self.cluster.restart(forgetful=True)

    def _teardown(self, a: int, b: int) -> None:
        self.cluster.teardown()

    def _maintenance(self, a: int, b: int) -> None:
        if (host := self._host(a)) is not None:
            self.cluster.announce(host, (b % 18 - 2) * 1_000, down_after_ms=b % 9_000 if b % 4 == 0 else 0)
            self.later(2_000 + b % 15_000, self.cluster.end_maintenance)

    def _mesos_drains(self, a: int, b: int) -> None:
        if (host := self._host(a)) is not None and host.agent.agent_id:
            self.cluster.drain(host, mark_gone=b % 3 == 0)
            self.later(2_000 + b % 15_000, self.cluster.reactivate, host.agent.agent_id)

    def _executors(self) -> list[Any]:
        return [executor for host in self.cluster.hosts for executor in host.executors.values() if executor.alive]

    def _executor_dies(self, a: int, b: int) -> None:
        if found := self._executors():
            found[a % len(found)].die(9)

    def _executor_hangs(self, a: int, b: int) -> None:
        if found := self._executors():
            executor = found[a % len(found)]
            executor.hung = True
            self.later(2_000 + b % 20_000, executor.die, 9)

    def _executor_cut(self, a: int, b: int) -> None:
        if found := self._executors():
            found[a % len(found)].cut()

    def _clock(self, a: int, b: int) -> None:
        self.wall += (-7_000, 8_000, -3_600_000, 3_600_000, -90_000, 600_000, 900, -900)[a % 8]

    # ---- schedulers ------------------------------------------------------------------------------------------

    def start_process(self) -> None:
        self._started += 1
        self.extremes.process_starts()
        process = Process(self, self._started)
        self.processes = [*self.living(), process]
        self.note(f"{process.name} starts")
        process.begin()

    def start_if_none(self) -> None:
        if not self.living():
            self.start_process()

    def read_epoch(self, path: Path) -> epochs.Recorded:
        return self.recorded

    def record_epoch(self, path: Path, recorded: epochs.Recorded) -> None:
        self.recorded = max(self.recorded, recorded)

    def living(self) -> list[Process]:
        return [process for process in self.processes if not process.dead]

    def someone(self) -> Process | None:
        """A scheduler that takes commands: the newest, or sometimes an older one that believes it leads."""
        ready = [process for process in self.living() if process.ready]
        if not ready:
            return None
        return ready[0] if self.dice.random() < 0.2 else ready[-1]

    def leader(self) -> Process | None:
        return next((p for p in self.living() if p.ready and p.leader.epoch == self.server.epoch), None)

    # ---- the phases ------------------------------------------------------------------------------------------

    def play(self) -> None:
        for fault in self.plan.faults:
            self.later(fault.at, self.strike, fault)
        self.start_process()
        self.operators.set_up(self.plan.jobs, wide=self.plan.extreme)
        # A fault that leads to the point of a crash may come a little later than the end of the plan.
        last_ms = max((fault.at for fault in self.plan.faults), default=0)
        self.run_until(START + max(self.plan.length_ms, last_ms))
        while self.history.steps < FEWEST_STEPS:
            self.run_until(self.now + 500)
        self._heal()
        self._give_back()
        self._revive()
        self._clear("workflows", lambda leader: leader.core.workflows, self.promise.flows.remove)
        due_until = self.clock()
        self.history.settled_ms = self._until(
            lambda p: self.promise.flows.unsettled(p) or self.promise.unsettled(p, due_until), SETTLE_MS, "6: "
        )
        for app in self.operators.apps:
            self._remove(app)
        self._remove_calendars()
        self._end_silences()
        self._until(self.promise.unrest, REST_MS, "3: at rest ")
        self._remove_teams()
        self._rest_a_day()
        if self.plan.zookeeper:
            self.promise.loaded(zookeeper.read_as_it_is(self))
        elif self.plan.etcd:
            self.promise.loaded(etcd.read_as_it_is(self))

    def _heal(self) -> None:
        """End all faults and repair the world."""
        self.note("faults are over")
        self._armed.clear()
        self._occasions.clear()
        self.store_down_until = 0
        self.extremes.heal()
        self.promise.flows.over = True
        for process in self.living():
            process.partition_until = 0
            if self.plan.elects:
                process.store.session.mend()
        for host in list(self.cluster.hosts):
            if host.dead:
                self.cluster.replace_host(host)
            else:
                self.cluster.join(host)
        if sum(host.cpus for host in self.cluster.hosts) < ENOUGH_CPUS:
            self.cluster.add_host(2)
        for zone in ZONES if self.plan.places else ():
            if sum(host.cpus for host in self.cluster.hosts if host.zone == zone) < ENOUGH_CPUS:
                self.cluster.add_host(ENOUGH_CPUS, zone)
        for executor in self._executors():
            if executor.hung:
                executor.die(9)
        self.cluster.end_maintenance()
        self.start_if_none()

    def _remove_calendars(self) -> None:
        """Remove the calendars, which no job names now."""
        self.operators.calendars_removed = True
        self._clear("calendars", lambda leader: leader.core.calendars, self.operators.remove_calendar)

    def _end_silences(self) -> None:
        """End the silences that were made while the clock was ahead. The others end by themselves."""

        def long(leader: Process) -> list[str]:
            silences = leader.core.silences
            return [key for key, silence in silences.items() if silence.until_ms > self.clock() + _DAY_MS]

        self._clear("silences", long, self.operators.end_silence)

    def _remove_teams(self) -> None:
        """Remove the teams, which have no apps now."""

        def teams(leader: Process) -> list[str]:
            return sorted(leader.core.directory.teams.keys() - {EVERY_TEAM})

        self._clear("teams", teams, self.operators.remove_team)

    def _clear(self, what: str, left: Callable[[Process], Iterable[str]], remove: Callable[[str], None]) -> None:
        """Remove what is `left` until a leader has none of it and all operators have their answers."""
        for _ in range(60):
            leader = self.leader()
            keys = list(left(leader)) if leader is not None else []
            if leader is not None and not (keys or self.operators.waiting):
                return
            for key in keys:
                remove(key)
            self.run_until(self.now + 500)
        self.violation(f"6: {what} cannot be removed")

    def _give_back(self) -> None:
        """End all drains, pauses and quotas. A dead agent stays drained, as on Mesos, without effect."""
        master = self.cluster.master
        for turn in range(60):
            leader = self.leader()
            drained = [host for host in self.cluster.hosts if host.agent.agent_id in master.state.drains]
            for host in drained:
                self.cluster.reactivate(host.agent.agent_id)
                if turn == 30:
                    # Mesos kills the tasks of a drained agent only once. If that message was lost, remove the machine.
                    self.cluster.replace_host(host)
            pauses = list(leader.core.pauses) if leader is not None else []
            rights = self.operators.rights(leader) if leader is not None else []
            pools = self.operators.narrow_pools(leader) if leader is not None else []
            left = [*rights, *pools, *pauses, *drained]
            if leader is not None and not (leader.core.drains or left or self.operators.waiting):
                return
            for key in pools:
                self.operators.put_pool(key, ROOMY)
            for kind, key in rights:
                self.operators.remove_right(kind, key)
            for key in pauses:
                self.operators.resume(key)
            for agent_id in leader.core.drains if leader is not None else ():
                self.operators.undrain(agent_id)
            self.run_until(self.now + 500)
        self.violation("6: agents cannot be given back")
        raise Stuck

    def _revive(self) -> None:
        """Let the jobs fire that are silent because a scheduler started while the clock was far ahead."""
        if self.plan.extreme:
            self.run_until(self.now + 2_000)  # the leader notices that the clock is right again
        for _ in range(60):
            leader = self.leader()
            silent = self.promise.silent(leader) if leader is not None else ["a job of no leader"]
            if not silent:
                return
            for job in silent if leader is not None else ():
                self.operators.enable(job)
            self.run_until(self.now + 500)
        self.violation(f"6: {silent} cannot be revived")
        raise Stuck

    def _rest_a_day(self) -> None:
        """Wait until idle executors have left. A new leader counts their idle time from its own start."""
        leader = None
        while leader is not self.leader():
            leader = self.leader()
            self.wall += _DAY_MS
            self.suspended += _DAY_MS
            self._until(
                lambda p, same=leader: self.promise.leftovers(p) if p is same else "",  # type: ignore[misc]
                12_000,
                "3: at rest there is left ",
            )

    def _until(self, left: Callable[[Process], str], most_ms: int, what: str) -> int:
        began = self.now
        while True:
            leader = self.leader()
            problem = left(leader) if leader is not None else "there is no leader"
            if not problem:
                return self.now - began
            if self.now - began >= most_ms:
                self.violation(f"{what}after {most_ms / 1000:g} s: {problem}")
                raise Stuck
            self.run_until(self.now + 500)

    def _remove(self, app: str) -> None:
        for _ in range(40):
            leader = self.leader()
            if leader is not None and app not in leader.core.apps:
                return
            self.operators.remove_app(app)
            self.run_until(self.now + 500)
        self.violation(f"6: app {app} cannot be removed")
        raise Stuck


class _Alarm(logging.Handler):
    """Every exception that the driver logs and swallows is a defect."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._world.violation(f"swallowed: {record.getMessage()}: {record.exc_info[1]!r}")


def _limits(plan: Plan) -> Limits:
    """The limits that are smaller in a history than in production."""
    store = zookeeper if plan.zookeeper else etcd
    of_store = store.SMALL_EXTREME if plan.extreme else store.SMALL
    wide_are_common: Limits = ((model, {"MAX_NARROW": 2}),)
    return (*wide_are_common, *(LIMITS if plan.extreme else ()), *(of_store if plan.elects else ()))


def _change_limits(limits: Limits) -> Limits:
    """Set constants. Returns the former ones."""
    before = tuple((module, {name: getattr(module, name) for name in values}) for module, values in limits)
    for module, values in limits:
        for name, value in values.items():
            setattr(module, name, value)
    return before


def play(plan: Plan) -> History:
    """Run a plan. Raises nothing, apart from KeyboardInterrupt and defects of the simulator itself."""
    world = World(plan)
    limits = _change_limits(_limits(plan))
    real_files = epochs.read, epochs.record
    epochs.read, epochs.record = world.read_epoch, world.record_epoch
    logger, alarm = logging.getLogger("jobcloud.mesos"), _Alarm(world)
    quiet = [logging.getLogger(f"jobcloud.{name}") for name in ("zookeeper", "etcd")]
    quiet_before = [each.disabled for each in quiet]
    for each in quiet:
        each.disabled = True
    level, propagates = logger.level, logger.propagate
    logger.addHandler(alarm)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    structlog_before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        world.play()
    except Stuck:
        pass
    finally:
        _change_limits(limits)
        epochs.read, epochs.record = real_files
        for each, disabled in zip(quiet, quiet_before, strict=True):
            each.disabled = disabled
        logger.removeHandler(alarm)
        logger.setLevel(level)
        logger.propagate = propagates
        structlog.configure(**structlog_before)
    history = world.history
    history.hash = hashlib.sha256("\n".join(history.trace).encode()).hexdigest()[:16]
    history.overlaps = world.truth.overlaps
    return history
