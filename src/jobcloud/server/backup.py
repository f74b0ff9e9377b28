"""Backups of the stored state: one file for every store.

The first line is a JSON header; the body is zlib(msgpack([[kind, key, value], …])). The header has the format number,
the length and the SHA-256 of the body. The records are those of the store, unchanged. So a backup of one kind of store
can be restored into another.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import jobcloud
from jobcloud.errors import ConfigError, StoreError
from jobcloud.messages import KIND_NAMES, KINDS, Kind
from jobcloud.model import Restoration
from jobcloud.ports import LastingStore, StoredRecords, StoredWrite
from jobcloud.server import records
from jobcloud.server.durable import replace_file

FORMAT = 1
_MAX_HEADER_BYTES = 10_000
# A damaged or foreign file must not fill the memory.
_MAX_BODY_BYTES = 8 << 30
# Leaders after the backup have used higher epochs. A new epoch is above the epoch in the file DATA/epoch, and not below
# a number made from the clock (epochs.py). If the file is lost and the clock is behind, this distance keeps the new
# epoch above those of these leaders.
_EPOCHS_SINCE = 1_000
_Entries = list[tuple[str, str, bytes]]
_decoder: msgspec.msgpack.Decoder[_Entries] = msgspec.msgpack.Decoder(_Entries)


@dataclass(frozen=True, slots=True)
class Backup:
    """The state as of `taken_ms`. `epoch` is that of the last leader before this instant."""

    taken_ms: int
    epoch: int
    entries: _Entries

    @classmethod
    def of(cls, stored: StoredRecords, epoch: int, taken_ms: int) -> Backup:
        names = ((KIND_NAMES[kind], entries) for kind, entries in stored.records.items())
        return cls(taken_ms, epoch, [(name, *entry) for name, entries in names for entry in entries.items()])

    def count(self, kind: Kind) -> int:
        return sum(entry[0] == kind for entry in self.entries)

    def encoded(self) -> bytes:
        body = zlib.compress(msgspec.msgpack.encode(self.entries), 6)
        header = {
            "jobcloudBackup": FORMAT,
            "recordFormat": records.VERSION,
            "version": jobcloud.__version__,
            "takenMs": self.taken_ms,
            "epoch": self.epoch,
            "records": len(self.entries),
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        return json.dumps(header).encode() + b"\n" + body


def write(path: Path, backup: Backup) -> int:
    """Write a backup, readable by its owner only. An existing file is replaced as a whole. Returns the size.

    Raises StoreError.
    """
    content = backup.encoded()
    try:
        replace_file(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    return len(content)


def read(path: Path) -> Backup:
    """Read a backup. Raises ConfigError if the file is damaged, incomplete, newer, or no backup."""
    try:
        with path.open("rb") as file:
            header = _header(path, file.readline(_MAX_HEADER_BYTES))
            body = file.read(header["bytes"] + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror or error}", "check the path") from error
    if len(body) != header["bytes"] or hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise _unusable(path, "is damaged or incomplete: its checksum is wrong", "use another backup")
    try:
        entries = _decoder.decode(zlib.decompress(body))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise _unusable(path, f"is damaged: {error}", "use another backup") from error
    if len(entries) != header["records"]:
        raise _unusable(path, "is damaged: the number of records is wrong", "use another backup")
    if unknown := sorted({kind for kind, _, _ in entries} - KINDS.keys()):
        raise _newer(path, f"it has records of the kind {unknown[0][:40]!r}")
    return Backup(header["takenMs"], header["epoch"], entries)


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        version = header["jobcloudBackup"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unusable(path, "is no backup of jobcloud", "`jobcloud backup FILE` makes one") from None
    if type(version) is not int or version > FORMAT:
        raise _newer(path, f"its format is {str(version)[:20]}, this program reads {FORMAT}")
    numbers = [header.get(name) for name in ("recordFormat", "takenMs", "epoch", "records", "bytes")]
    if any(type(number) is not int or not 0 <= number < 2**53 for number in numbers):
        raise _unusable(path, "is damaged: its header is wrong", "use another backup")
    if header["recordFormat"] > records.VERSION:
        raise _newer(path, f"its records have format {header['recordFormat']}, this program reads {records.VERSION}")
    if header["bytes"] > _MAX_BODY_BYTES:
        raise _unusable(path, f"is larger than {_MAX_BODY_BYTES} bytes", "use another backup")
    found: dict[str, Any] = header
    return found


def _unusable(path: Path, problem: str, fix: str) -> ConfigError:
    return ConfigError(f"{path} {problem}", field="FILE", fix=fix)


def _newer(path: Path, why: str) -> ConfigError:
    return _unusable(path, f"was made by a newer jobcloud: {why}", "run the newer version")


def take(store: LastingStore, taken_ms: int) -> tuple[Backup, StoredRecords]:
    """A backup of the state, and the records from which it was made. A leader is not disturbed. Raises StoreError."""
    stored = store.snapshot()
    return Backup.of(stored, store.epoch(), taken_ms), stored


def put_back(store: LastingStore, backup: Backup, aside: Path, *, floor: int, now_ms: int) -> int:
    """Replace the stored state by a backup in one write. Returns the new epoch, which supersedes a running leader.

    The previous state is saved to `aside` first, unless it is empty. After a StoreError, all records are as before.
    """
    epoch = store.acquire(max(floor, backup.epoch + _EPOCHS_SINCE))
    before, stored = take(store, now_ms)
    if before.entries:
        write(aside, before)
    store.write(epoch, list(_writes(stored, backup, now_ms)))
    return epoch


def _writes(before: StoredRecords, backup: Backup, now_ms: int) -> Iterator[StoredWrite]:
    kept = {(kind, key) for kind, key, _ in backup.entries}
    for kind, entries in before.records.items():
        yield from (StoredWrite(kind, key, None) for key in entries if (kind.value, key) not in kept)
    yield from (StoredWrite(KINDS[kind], key, value) for kind, key, value in backup.entries)
    # This record tells the next leader that the state is older than the work in the cluster.
    mark = records.encode(Kind.RESTORATION, Restoration(backup.taken_ms, now_ms))
    yield StoredWrite(Kind.RESTORATION, records.RESTORATION_KEY, mark)


def unreadable(stored: StoredRecords) -> list[str]:
    """The entries that cannot be read as records, each as "PATH PROBLEM". A backup lacks these entries."""
    return [f"{fault.path} {fault.problem}" for fault in stored.faults]
