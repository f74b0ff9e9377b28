"""Stored records as JSON: `{"v": 1, "r": …}`, the record's own fields under "r".

Within a version fields may be added with a default: an older program ignores what it does not know, a newer one
fills in what is missing. Of firings and tasks, which come and go all the time, what has its default is left out. Any
other change, of a default too, raises VERSION. What cannot be read becomes a fault that names the record
and is left where it is: one damaged record costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from jobcloud.errors import Refused
from jobcloud.messages import Kind, Record
from jobcloud.model import App, Cause, Drain, Executor, Firing, Job, JobState, Task
from jobcloud.ports import StoredFault, StoredRecords
from jobcloud.scheduler import Stored

VERSION = 1
FRAMEWORK_KEY = "id"
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
}
assert set(_TYPES) == set(Kind), "every kind of record needs a type"


class _Envelope(msgspec.Struct):
    v: int
    r: msgspec.Raw


@dataclass(slots=True)
class Restored(Stored):
    """What a leader starts from; `faults` names the records that could not be read."""

    faults: list[StoredFault] = field(default_factory=list)


class Unreadable(Exception):
    """A stored value is damaged, or of a newer version."""


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(_Envelope)
_decoders: dict[Kind, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(type_) for kind, type_ in _TYPES.items()}
_START = b'{"v":%d,"r":' % VERSION


def encode(kind: Kind, record: Record) -> bytes:
    """Raises TypeError where `record` is not what `kind` holds."""
    if not isinstance(record, _TYPES[kind]):
        raise TypeError(f"a record of kind {kind} cannot be a {type(record).__name__}")
    return _START + _encoder.encode(record) + b"}"


def decode(kind: Kind, key: str, value: bytes) -> Record:
    """The record that `encode` made `value` from. Raises Unreadable."""
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
        raise Unreadable("is damaged: it has not the shards of any firing")
    return record


def restore(stored: StoredRecords) -> Restored:
    """Decode everything; never raises for what a store may hold."""
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
    """The key that a record itself implies, where it does."""
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
