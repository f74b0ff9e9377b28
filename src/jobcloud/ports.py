"""What the core's shell asks of the world. Each adapter implements one of these; one contract suite tests them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from jobcloud.messages import Acknowledge, Call, Event, Kind


class Flag(Protocol):
    """What of threading.Event is asked here."""

    def is_set(self) -> bool: ...


class StoredWrite(msgspec.Struct, frozen=True, gc=False):
    """Put (or with `value` None delete) one record, encoded."""

    kind: Kind
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class StoredFault:
    """A record that could not be read: where it lies and what is wrong. It is reported and left as it is."""

    path: str
    problem: str


@dataclass(slots=True)
class StoredRecords:
    """Everything a store holds, encoded, by kind and key."""

    records: dict[Kind, dict[str, bytes]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    faults: list[StoredFault] = field(default_factory=list)


class Store(Protocol):
    """Durable state with a leader's epoch as its fence.

    acquire → load → write* → close. Every method raises StoreError (or one of its subclasses) and leaves what was
    stored intact.
    """

    def acquire(self) -> int:
        """Raise the epoch durably and return it. From here on a write with an older epoch raises Fenced."""

    def load(self) -> StoredRecords:
        """Everything stored. Unknown or damaged entries come as faults and stay where they are."""

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        """Make all of `batch` durable, or none of it, provided that `epoch` is the current one.

        Raises Fenced where it is not, StoreFull where there is no room.
        """

    def close(self) -> None:
        """Release what is held. Idempotent."""


class Leadership(Protocol):
    """The right to be the one scheduler that acts; several may wait for it.

    wait → holds* → resign. Once lost it does not come back: the process ends, and starts again as a candidate.
    """

    def wait(self, stop: Flag, tell: Callable[[str], None]) -> bool:
        """Until we lead: True; or `stop` is set: False. `tell` hears who leads meanwhile, at every change.

        Raises StoreUnusable where waiting would not help.
        """

    def holds(self) -> bool:
        """Whether we may act at this instant. False also while that is in doubt; never waits."""

    @property
    def lost(self) -> str:
        """Why the leadership is gone for good; "" while it is not."""

    def resign(self) -> None:
        """Let the next one lead at once. Nothing may be stored or sent afterwards. Idempotent."""


class Driver(Protocol):
    """The framework's side of Mesos.

    start → send* → stop. Events are delivered from threads of the driver's own; no exception of the receiver may
    end it. Nothing but `teardown` ever ends the framework: `stop` leaves its tasks running.
    """

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        """Subscribe (with `framework_id` unless that is ""), and again whenever the master is lost, until stopped."""

    def send(self, call: Call | Acknowledge) -> None:
        """Queue a call; calls reach the master in the order of `send`. Never blocks, never raises.

        A call that fails comes back as SendFailed; an acknowledgement that fails is dropped, as Mesos sends the
        update again.
        """

    def stop(self) -> None:
        """Disconnect within 5 s, the queued calls sent where possible. Idempotent."""

    def teardown(self) -> None:
        """Remove the framework from Mesos: every task of it is killed. Raises NotConnected."""


class Sink(Protocol):
    """A place that notices go to. Losing some is allowed; blocking is not."""

    def publish(self, notice: object) -> None:
        """Take one notice."""
