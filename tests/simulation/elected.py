"""The common parts of the simulated ZooKeeper and etcd: time on a network, and the store of an elected process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobcloud.errors import Fenced, StoreError
from jobcloud.ports import LastingStore, StoredRecords, StoredWrite

from .plan import ZOOKEEPER_POINTS

if TYPE_CHECKING:
    from .schedulers import Process
    from .world import World

SESSION_MS = 4_000
_LABELS = frozenset(ZOOKEEPER_POINTS)


class SimClock:
    """The time of a client, in place of the clock of the machine. `_process` is None for a reader without faults."""

    _world: World
    _process: Process | None
    _ahead_ms = 0

    def monotonic(self) -> float:
        return (self._world.now + self._ahead_ms) / 1_000

    def pause(self, seconds: float) -> None:
        if self._world.may_wait():
            self._world.run_until(self._world.now + int(seconds * 1_000), nested=True)
        else:
            self._ahead_ms += int(seconds * 1_000)

    def _point(self, label: str) -> None:
        if self._process is not None and label in _LABELS:
            self._process.point(label)


@dataclass(slots=True)
class Writing:
    """A batch in the process of being written."""

    epoch: int
    batch: Sequence[StoredWrite]
    durable: bool = False


class ElectedStore:
    """A real store as one process uses it. The world records the instant at which each batch becomes durable."""

    #: errors after which a candidate waits
    _out_of_reach: tuple[type[Exception], ...] = (StoreError,)

    def __init__(self, world: World, process: Process, real: LastingStore, election: Any) -> None:
        self._world, self._process = world, process
        self._real, self.election = real, election
        self.writing: Writing | None = None

    def acquire(self, floor: int = 0) -> int:
        self._process.point("before acquire")
        epoch = self._real.acquire(floor)
        self._process.point("after acquire")
        return epoch

    def epoch(self) -> int:
        return self._real.epoch()

    def snapshot(self) -> StoredRecords:
        raise AssertionError("no leader makes a backup")

    def load(self) -> StoredRecords:
        self._process.point("before load")
        changes = self._world.durable
        stored = self._real.load()
        if changes == self._world.durable:
            self._world.promise.loaded(stored)
        self._process.point("after load")
        return stored

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        what = "write" if batch else "proof"
        self._process.point(f"before {what}")
        if batch and self._world.take("store_fails"):
            raise StoreError("not written")
        self.writing = writing = Writing(epoch, batch)
        self._real.write(epoch, batch)
        if batch and not writing.durable:
            self._world.violation(f"7: {self._process.name} was told that something is written, which is not")
        if not batch:
            self._world.promise.written(epoch, {}, batch)
        if batch and self._world.take("store_lies"):
            raise StoreError("written, yet reported as failed")
        for kind in dict.fromkeys(write.kind for write in batch):
            self._process.point(f"stored {kind}")
        self._process.point(f"after {what}")

    def durable(self, writing: Writing | None) -> None:
        """The transaction that makes a batch durable has taken effect."""
        if writing is None or writing.durable:
            self._world.violation(f"5: {self._process.name} writes the same batch twice")
            return
        writing.durable = True
        self._world.durable += 1
        before = dict(self._world.server.entries)
        for write in writing.batch:
            if write.value is None:
                self._world.server.entries.pop((write.kind, write.key), None)
            else:
                self._world.server.entries[write.kind, write.key] = write.value
        self._world.promise.written(writing.epoch, before, writing.batch)

    def close(self) -> None:
        self._real.close()

    # ---- election -------------------------------------------------------------------------------------------

    def leads(self) -> bool:
        """True if it is the turn of this process, which then looks after its leadership."""
        try:
            if self.election._campaign() is not None:
                return False
        except self._out_of_reach:
            return False
        self._look_after()
        return True

    def _look_after(self) -> None:
        if not self._process.dead and (self._process.stopped or self._beat()):
            self._world.later(SESSION_MS // 8, self._look_after)

    def _beat(self) -> bool:
        """Look after the leadership once. False if no further look is needed."""
        raise NotImplementedError

    def check(self) -> bool:
        """True if the process may act now. Raises Fenced if it never may again."""
        if lost := self.election.lost:
            raise Fenced(lost)
        return bool(self.election.holds())
