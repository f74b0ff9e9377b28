"""Stored records as JSON: `{"v": 1, "r": …}`, with the record's fields under "r".

Within a version, fields with a default may be added: an older program ignores unknown fields, a newer one fills in
missing fields. Firings and tasks are written often, so their fields with default values are left out. Any other change,
also of a default, needs a new VERSION. A record that cannot be read is reported as a fault and left unchanged; it does
not affect other records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from jobcloud.errors import Refused
from jobcloud.messages import Kind, Record
from jobcloud.model import App, Cause, Drain, Executor, Firing, Job, JobState, Restoration, Task
from jobcloud.ports import StoredFault, StoredRecords
from jobcloud.scheduler import Stored

VERSION = 1
FRAMEWORK_KEY = "id"
RESTORATION_KEY = "last"
_TYPES: dict[Kind, type] = {
    Kind.APP: App,
    Kind.JOB: Job,
    Kind.JOB_STATE: JobState,
    Kind.DISABLED_APP: bool,
    Kind.FIRING: Firing,
    Kind.TASK: Task,
    Kind.EXECUTOR: Executor,
    Kind.FRAMEWORK: str,
    Kind.DRAIN: Drain,
    Kind.RESTORATION: Restoration,
}
assert set(_TYPES) == set(Kind), "every kind of record needs a type"


class _Envelope(msgspec.Struct):
    v: int
    r: msgspec.Raw


@dataclass(slots=True)
class Restored(Stored):
    """The state a leader starts from. `faults` names the records that cannot be read."""

    faults: list[StoredFault] = field(default_factory=list)


class Unreadable(Exception):
    """A stored value is damaged or of a newer version."""


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(_Envelope)
_decoders: dict[Kind, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(type_) for kind, type_ in _TYPES.items()}
_START = b'{"v":%d,"r":' % VERSION


def encode(kind: Kind, record: Record) -> bytes:
    """Raises TypeError if `record` is not of the type of `kind`."""
    if not isinstance(record, _TYPES[kind]):
        raise TypeError(f"a record of kind {kind} cannot be a {type(record).__name__}")
    return _START + _encoder.encode(record) + b"}"


def decode(kind: Kind, key: str, value: bytes) -> Record:
    """The inverse of `encode`. Raises Unreadable, also if the record belongs to another key."""
    try:
        envelope = _envelope.decode(value)
        if envelope.v != VERSION:
            raise Unreadable(f"was written in format {envelope.v}; this version reads format {VERSION}")
        record: Record = _decoders[kind].decode(envelope.r)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, Refused) as error:
        raise Unreadable(f"is damaged: {error}") from error
    if (own := _own_key(record)) not in (None, key):
        raise Unreadable(f"is damaged: it holds the record of {own!r}")
    if isinstance(record, Firing) and (not record.work or (record.stepped and record.cause is Cause.DAEMON)):
        raise Unreadable("is damaged: its shards do not fit any firing")
    return record


def restore(stored: StoredRecords) -> Restored:
    """Decode everything. Never raises, whatever the store holds."""
    faults = list(stored.faults)
    readable = {kind: dict(_readable(kind, entries.items(), faults)) for kind, entries in stored.records.items()}
    return Restored(
        apps=_only(App, readable[Kind.APP]),
        jobs=_only(Job, readable[Kind.JOB]),
        job_states=_only(JobState, readable[Kind.JOB_STATE]),
        disabled_apps={name for name, disabled in readable[Kind.DISABLED_APP].items() if disabled},
        firings=_only(Firing, readable[Kind.FIRING]),
        tasks=_only(Task, readable[Kind.TASK]),
        executors=_only(Executor, readable[Kind.EXECUTOR]),
        framework_id=_only(str, readable[Kind.FRAMEWORK]).get(FRAMEWORK_KEY, ""),
        drains=_only(Drain, readable[Kind.DRAIN]),
        restoration=_only(Restoration, readable[Kind.RESTORATION]).get(RESTORATION_KEY),
        faults=faults,
    )


def _readable(
    kind: Kind, entries: Iterable[tuple[str, bytes]], faults: list[StoredFault]
) -> Iterable[tuple[str, Record]]:
    for key, value in entries:
        try:
            yield key, decode(kind, key, value)
        except Unreadable as error:
            faults.append(StoredFault(f"{kind}/{key}", str(error)))


def _own_key(record: Record) -> str | None:
    """The key implied by the record's fields; None if there is none."""
    match record:
        case App() | Job():
            return record.name
        case Firing() | Task():
            return record.id
        case Drain():
            return record.agent_id
        case Executor():
            return f"{record.agent_id}/{record.id}"
        case _:
            return None


_T = TypeVar("_T")


def _only(type_: type[_T], entries: dict[str, Record]) -> dict[str, _T]:
    return {key: record for key, record in entries.items() if isinstance(record, type_)}
