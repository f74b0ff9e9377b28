"""State in memory, for tests, simulations and trial runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from jobcloud.errors import Fenced, StoreError
from jobcloud.messages import KINDS
from jobcloud.ports import StoredFault, StoredRecords, StoredWrite


@dataclass(slots=True)
class MemoryServer:
    """The state that several MemoryStores share, as several schedulers share one store.

    Kinds are text, so that a test can add a kind that no version knows.
    """

    epoch: int = 0
    entries: dict[tuple[str, str], bytes] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class MemoryStore:
    """A `Store` in the memory of this process."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self._server = server or MemoryServer()
        self._closed = False

    def acquire(self, floor: int = 0) -> int:
        with self._open().lock:
            self._server.epoch = max(self._server.epoch + 1, floor)
            return self._server.epoch

    def epoch(self) -> int:
        return self._open().epoch

    def snapshot(self) -> StoredRecords:
        return self.load()

    def load(self) -> StoredRecords:
        stored = StoredRecords()
        with self._open().lock:
            for (kind, key), value in self._server.entries.items():
                if kind in KINDS:
                    stored.records[KINDS[kind]][key] = value
                else:
                    stored.faults.append(StoredFault(f"{kind}/{key}", "is of a kind that this version does not know"))
        return stored

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        with self._open().lock:
            if epoch != self._server.epoch:
                raise Fenced(f"epoch {epoch} was superseded by {self._server.epoch}")
            for write in batch:
                if write.value is None:
                    self._server.entries.pop((write.kind, write.key), None)
                else:
                    self._server.entries[write.kind, write.key] = write.value

    def close(self) -> None:
        self._closed = True

    def _open(self) -> MemoryServer:
        if self._closed:
            raise StoreError("the store is closed")
        return self._server
