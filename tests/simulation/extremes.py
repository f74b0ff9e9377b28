"""The additions of extreme histories to the others: limits of sizes, state that goes back, and clocks that were wrong.

A store refuses large records, and the master large calls. A wide job fails in all of its shards with messages of the
largest size. The state is restored from a backup. The limits are smaller than real ones, so that histories stay quick.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from jobcloud.adapters.memory import MemoryServer
from jobcloud.config import Job, JobKind, is_ad_hoc
from jobcloud.messages import Kind
from jobcloud.model import Firing, Restoration
from jobcloud.server import records
from jobcloud.wire import RESULT_BYTES, encode_data

from .plan import EXTREME_KINDS

if TYPE_CHECKING:
    from .operators import Expectations
    from .schedulers import Process
    from .world import World

# The largest record that the store takes, and the size at which the scheduler ends a call.
RECORD_BYTES = 60_000
ACCEPT_BYTES, ACCEPT_TASKS = 120_000, 12
# Shards of the wide job. Their parameters are so long that one call cannot launch all of them.
SHARDS = 30
PARAMETER_BYTES = 15_000
Limits: TypeAlias = tuple[tuple[ModuleType, dict[str, int]], ...]
"""(module, name of a constant → its value in a history)"""
LIMITS: Limits = ((records, {"MAX_RECORD_BYTES": RECORD_BYTES}),)
_DAY_MS = 86_400_000
_NOTICED_MS = 10_000
_MESSAGE_CHARS = 4_000  # an executor sends no longer message


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the state, and what its readers may expect of it."""

    taken_ms: int
    epoch: int
    entries: dict[tuple[str, str], bytes]
    firings: dict[str, Firing]
    expected: Expectations
    launched: frozenset[str]


def _failover(backup: Backup, firing: Firing) -> bool:
    kind = Kind.AD_HOC if is_ad_hoc(firing.job) else Kind.JOB
    value = backup.entries.get((kind, firing.job))
    found = records.decode(kind, firing.job, value) if value is not None else None
    return isinstance(found, Job) and (found.failover or found.kind is JobKind.DAEMON)


def _framework(backup: Backup) -> str:
    value = backup.entries.get((Kind.FRAMEWORK, records.FRAMEWORK_KEY))
    return str(records.decode(Kind.FRAMEWORK, records.FRAMEWORK_KEY, value)) if value is not None else ""


class Extremes:
    def __init__(self, world: World) -> None:
        self._world = world
        self.no_descriptors_until = 0
        self._ahead = 0  # by how much the clock is ahead
        self.misled = False  # a scheduler has started while the clock was ahead, so it could not know
        self._over = False
        self._awaiting: Backup | None = None  # the backup of a state that was deleted
        self.lost: set[str] = set()  # tasks launched after the backup that was restored
        self.epoch = 0  # of the last leader that Mesos has heard before the last restore
        self.given_up: set[str] = set()  # unfinished runs of the backup whose jobs have no failover
        self.once: set[tuple[str, int]] = set()  # shards that may have run since the backup, and have no failover

    def strike(self, kind: str, a: int, b: int) -> None:
        assert kind in EXTREME_KINDS
        getattr(self, f"_{kind}")(a, b)

    # ---- faults ----------------------------------------------------------------------------------------------

    def _clock_far(self, a: int, b: int) -> None:
        """The clock jumps months ahead, and back after some seconds."""
        ahead = (20 + a % 180) * _DAY_MS
        self._world.wall += ahead
        self._ahead += ahead
        self._world.later(500 + b % 8_000, self._clock_back)

    def process_starts(self) -> None:
        self.misled |= self._ahead > 0

    def _clock_back(self) -> None:
        if self._ahead:
            self._world.note("the clock is right again")
            self._world.wall -= self._ahead
            self._ahead = 0

    def _all_again(self, a: int, b: int) -> None:
        """All agents and executors reconnect, and send every update that was not acknowledged."""
        cluster = self._world.cluster
        for host in [host for host in cluster.hosts if not host.dead]:
            cluster.cut(host, timed_out=False)
            self._world.later(10 + b % 3_000, cluster.join, host)
            for executor in list(host.executors.values()):
                executor.cut()

    def _wide(self, a: int, b: int) -> None:
        self._world.operators.trigger_wide()

    def _too_large(self, a: int, b: int) -> None:
        """An operator registers a job that no store takes, while others send commands of their own."""
        operators = self._world.operators
        operators.act("trigger", a, b)
        operators.put_too_large()
        operators.act("job_mark", a + 1, b)
        operators.act("put_job", a + 2, b)

    def _gap(self, a: int, b: int) -> None:
        """No scheduler leads for a while."""
        self._stop_all()
        self._world.later(3_000 + b % 25_000, self._world.start_if_none)

    def _stop_all(self) -> None:
        for process in self._world.living():
            process.die()

    def _descriptors(self, a: int, b: int) -> None:
        """No process can open a file or a connection for a while."""
        self.no_descriptors_until = self._world.now + 500 + b % 8_000

    @property
    def exhausted(self) -> bool:
        return self._world.now < self.no_descriptors_until

    # ---- a state that goes back ------------------------------------------------------------------------------

    def _state_back(self, a: int, b: int) -> None:
        """Make a backup. Some seconds later the state is lost under a leader or without one, and the backup returns."""
        if not self._world.plan.elects and self._awaiting is None and self._world.server.epoch:
            self._world.later(1_000 + a % 12_000, self._lose_state if b % 2 else self._restore, self._backup())

    def _backup(self) -> Backup:
        world = self._world
        return Backup(
            world.clock(), world.server.epoch, dict(world.server.entries), dict(world.promise.firings),
            world.operators.expectations(), frozenset(world.truth.launched),
        )  # fmt: skip

    def _lose_state(self, backup: Backup) -> None:
        """Delete the state under a leader. Each scheduler that starts then finds an empty one."""
        if self._over or self._awaiting is not None:
            return
        self._world.note("the state is deleted")
        self._world.server = MemoryServer()
        self._awaiting = backup
        self._world.later(_NOTICED_MS, self._check_noticed, self._world.server)
        self._world.later(_NOTICED_MS + 2_000, self._put_back)

    def deleted(self, process: Process) -> bool:
        """True if the state was deleted under this process."""
        return self._awaiting is not None and not process.dead and process.leader.epoch > self._world.server.epoch

    def _check_noticed(self, deleted: MemoryServer) -> None:
        for process in self._world.living():
            if self._world.server is deleted and process.ready and not process.stopped:
                self._world.violation(f"15: {process.name} leads with a state that was deleted")

    def _put_back(self) -> None:
        backup, self._awaiting = self._awaiting, None
        if backup is not None:
            self._restore(backup)

    def _restore(self, backup: Backup) -> None:
        world = self._world
        if self._over or self._awaiting is not None:
            return
        self._stop_all()
        world.note(f"the state of epoch {backup.epoch} is restored")
        world.promise.older_state()
        record = records.encode(Kind.RESTORATION, Restoration(backup.taken_ms, world.clock()))
        entries = {**backup.entries, (Kind.RESTORATION, records.RESTORATION_KEY): record}
        world.server = MemoryServer(backup.epoch, entries)
        world.promise.firings = dict(backup.firings)
        world.promise.forgotten -= backup.firings.keys()
        world.operators.expect(backup.expected)
        # The intent of a launch may be in the backup although the launch came later.
        known = {key for kind, key in backup.entries if kind == Kind.TASK}
        lost = world.truth.launched - backup.launched - known
        self.lost |= lost
        self.epoch = world.truth.epoch
        once = {name for name, firing in backup.firings.items() if not _failover(backup, firing)}
        self.once |= {
            (name, item)
            for name, item in world.truth.forget_attempts(lost)
            if name in once and not backup.firings[name].stepped
        }
        self.given_up |= {name for name in once if not backup.firings[name].ended_ms}
        # An operator removes the frameworks that the backup does not know. Their tasks would run on.
        world.cluster.teardown_others(_framework(backup))
        world.later(500, world.start_if_none)

    def heal(self) -> None:
        self._put_back()
        self._over = True
        self.no_descriptors_until = 0
        self._clock_back()


def last_words(number: int) -> dict[str, str]:
    """The message and data of an update that reports a failure, at their largest."""
    character = ("m", "€", "\x01", '"')[number % 4]
    return {"message": character * _MESSAGE_CHARS, "data": _data(cause="exception")}


def last_result() -> dict[str, str]:
    """The data of an update that reports a success, with a result of the largest size."""
    return {"data": _data(result="r" * (RESULT_BYTES - 2))}


def _data(**fields: str) -> str:
    return encode_data(json.dumps({"schema": 1, **fields}).encode())
