"""Batches on disk, while the database is away.

A folder of segments. A segment is a file: a line with the format, then records of length, checksum and batch. Each
batch is synced to the disk. A crash may tear the last record, which is then left out. Several processes may share the
folder: the writer of a segment locks the segment, and other processes leave it alone.

A batch stays in its segment until the database has all batches of the segment. So some batches may be written again
after a crash. This is harmless (`Database.write`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from jobcloud.history.rows import Batch

log = logging.getLogger(__name__)

#: The number rises with each change of the columns of a batch. Later builds must still read the older formats.
FORMAT = b"jobcloud history 3\n"
#: the formats that can be read: 1 has no entries of the audit log, 1 and 2 have no configurations
_FORMATS = (b"jobcloud history 1\n", b"jobcloud history 2\n", FORMAT)
_HEAD = struct.Struct(">II")
_SEGMENT_BYTES = 1 << 20
_SUFFIX = ".spool"


class Spool:
    """At most about `limit` bytes of batches below `folder`. One thread uses it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._file: BinaryIO | None = None
        self._bytes = sum(_size(path) for path in self._segments())

    @property
    def size(self) -> int:
        """The bytes on disk. Any thread may ask."""
        return self._bytes

    def append(self, batch: Batch) -> bool:
        """Keep a batch. False if there is no room for it, on the disk or within the limit."""
        content = msgspec.msgpack.encode(batch)
        record = _HEAD.pack(len(content), zlib.crc32(content)) + content
        if self._bytes + len(record) > self._limit:
            return False
        try:
            file = self._file or self._begin()
            file.write(record)
            os.fsync(file.fileno())
        except OSError as error:
            log.warning("the history's spool cannot be written: %s", error)
            self._end()
            return False
        self._bytes += len(record)
        if file.tell() >= _SEGMENT_BYTES:
            self._end()
        return True

    def replay(self, write: Callable[[Batch], None]) -> bool:
        """Hand the batches of the oldest segment to `write`, then delete the segment. False if there is none.

        If `write` raises an exception, the segment stays.
        """
        self._end()
        for path in self._segments():
            try:
                file = path.open("rb")
            except OSError:
                continue  # another process has replayed it
            with file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # another process writes it
                content = file.read()
                batches = _read(content)
                if batches is None:
                    log.error("the history's spool has a file of another format; it is kept: %s", path)
                    with suppress(OSError):
                        path.rename(path.with_suffix(".unreadable"))
                    self._bytes -= len(content)
                    continue
                for batch in batches:
                    write(batch)
                with suppress(FileNotFoundError):
                    path.unlink()
                self._bytes = max(0, self._bytes - len(content))
            return True
        self._bytes = sum(_size(path) for path in self._segments())
        return False

    def close(self) -> None:
        self._end()

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def _begin(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        # Unbuffered: a failed write leaves nothing that a later flush would repeat.
        file = path.open("xb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(FORMAT)
        self._bytes += len(FORMAT)
        self._file = file
        return file

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(content: bytes) -> list[Batch] | None:
    """The batches of a segment before the first damaged one. None if the segment has another format."""
    if not content.startswith(_FORMATS):
        # A crash may tear the first line too.
        return [] if any(known.startswith(content) for known in _FORMATS) else None
    found: list[Batch] = []
    place = len(FORMAT)
    while place + _HEAD.size <= len(content):
        length, checksum = _HEAD.unpack_from(content, place)
        place += _HEAD.size
        record = content[place : place + length]
        if len(record) < length or zlib.crc32(record) != checksum:
            log.warning("the history's spool ends in a damaged batch; %d batches before it are whole", len(found))
            break
        found.append(msgspec.msgpack.decode(record, type=Batch))
        place += length
    return found
