"""Ports: the interfaces between the server and the world. Each adapter implements one.

One contract suite (tests/adapters/test_store_contract.py) tests all stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from jobcloud.messages import Acknowledge, Call, Event, Kind

# Every store accepts encoded records of this size, and batches of any size. A command whose record is larger is
# refused. Records that the scheduler writes on its own are smaller by construction.
MAX_RECORD_BYTES = 256 * 1024


class Flag(Protocol):
    """The part of threading.Event that is used here."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files for TLS to a server. The server's certificate must match its host name.

    The attributes are paths of PEM files. If `ca_file` is "", the CA certificates of the system are used. If
    `cert_file` is "", there is no client certificate.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class StoredWrite(msgspec.Struct, frozen=True, gc=False):
    """Put one encoded record, or delete it if `value` is None."""

    kind: Kind
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class StoredFault:
    """A record that cannot be read: its location and the problem. The record is reported and left unchanged."""

    path: str
    problem: str


@dataclass(slots=True)
class StoredRecords:
    """All records of a store, encoded, by kind and key."""

    records: dict[Kind, dict[str, bytes]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    faults: list[StoredFault] = field(default_factory=list)
    #: whether a missing record, by kind and key, was lost with a damaged part of the store
    lost: Callable[[Kind, str], bool] | None = None


class Store(Protocol):
    """Durable state, fenced by the epoch of the leader.

    Order of the calls: acquire → load → write* → close. Every method may raise StoreError or a subclass. In this case,
    the stored state stays intact. A store may accept records larger than MAX_RECORD_BYTES.
    """

    def acquire(self, floor: int = 0) -> int:
        """Raise the epoch durably, to `floor` or above, and return it.

        From then on, a write with an older epoch raises Fenced.
        """

    def load(self) -> StoredRecords:
        """All records. Unknown or damaged entries are reported as faults and left unchanged."""

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        """If `epoch` is the current one, make all of `batch` durable, or none of it.

        Raises Fenced if another epoch is current, StoreFull if no space is left, and RecordTooLarge, which names at
        least one record that is too large.
        """

    def close(self) -> None:
        """Release all resources. Idempotent."""


class LastingStore(Store, Protocol):
    """A store that outlives the process, and can therefore be saved to a backup."""

    def epoch(self) -> int:
        """The epoch of the last leader; 0 if no scheduler has ever led with this state."""

    def snapshot(self) -> StoredRecords:
        """All records as of one instant, even while a leader writes. Does not disturb the leader."""


class Leadership(Protocol):
    """The right to be the only scheduler that acts. Several schedulers may wait for it.

    Order of the calls: wait → holds* → resign. A lost leadership never comes back: the process ends and starts again as
    a candidate.
    """

    def wait(self, stop: Flag, report: Callable[[str], None]) -> bool:
        """Wait until this process leads (True) or `stop` is set (False). `report` gets texts about the wait.

        `report` is called when the text changes. The text names the leader, or tells why there is none yet.

        Raises StoreUnusable if waiting cannot help.
        """

    @property
    def leader(self) -> str:
        """The URL of the API of the scheduler that leads, as last heard during `wait`. "" if it is unknown or ours."""

    def holds(self) -> bool:
        """Whether this process may act now. False while the leadership is in doubt. Never waits."""

    @property
    def lost(self) -> str:
        """The reason why the leadership is lost for good; "" if it is not lost."""

    def resign(self) -> None:
        """Let the next candidate lead at once. Nothing may be stored or sent afterwards. Idempotent."""


class Driver(Protocol):
    """The framework's side of Mesos.

    Order of the calls: start → send* → stop. Events are delivered on threads of the driver. An exception of the
    receiver must not end these threads. Only `teardown` ends the framework: after `stop`, its tasks keep running.
    """

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        """Subscribe, with `framework_id` if it is not "". Until `stop`, subscribe again whenever the master is lost."""

    def send(self, call: Call | Acknowledge) -> None:
        """Queue a call. Calls reach the master in the order of `send`. Never blocks, never raises.

        A failed call is delivered as SendFailed. A failed acknowledgement is dropped, because Mesos sends the update
        again.
        """

    def stop(self) -> None:
        """Send the queued calls if possible, and disconnect, within 5 s. Idempotent."""

    def teardown(self) -> None:
        """Remove the framework from Mesos, which kills all its tasks. Raises NotConnected."""


class Sink(Protocol):
    """A receiver of notices. It may lose notices, but it must not block."""

    def publish(self, notice: object) -> None:
        """Take one notice."""
