"""The form of an archived log: a zip file, so that other tools can read it, and a reader needs only a part of it.

Its last entry is `meta.json`: the number of the format, the attempt, and the size of each stream. The other entries are
`stdout/OFFSET` and `stderr/OFFSET`: at most CHUNK_BYTES of the stream from this offset on, compressed by themselves.
OFFSET has 15 digits. No entry has the middle of a stream if this was left out.

Source: the form of zip files is PKWARE's APPNOTE.TXT; the module zipfile implements it.
"""

from __future__ import annotations

import io
import json
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO, Final, NamedTuple

from jobcloud.archive.names import FORMAT, Ended
from jobcloud.errors import JobcloudError

CHUNK_BYTES: Final = 256 << 10
_META = "meta.json"
_MAX_META = 64 << 10
_CHUNK = re.compile(r"(stdout|stderr)/(\d{15})", re.ASCII)
# Everything that the module raises for content that is damaged, or in a form that it does not know.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, ValueError, TypeError, AttributeError,
    NotImplementedError, RuntimeError, OverflowError,
)  # fmt: skip


class Unreadable(JobcloudError):
    """An object of the archive is damaged, or of a newer version of jobcloud."""


class Stream(NamedTuple):
    """The kept pieces of a stream in order, each with its offset. `size`: the length of the whole stream."""

    size: int
    pieces: tuple[tuple[int, bytes], ...]


class Piece(NamedTuple):
    """A part of an archived stream: `data` at `offset`. `size`: the length of the whole stream."""

    data: bytes
    offset: int
    size: int
    task_id: str


def pack(ended: Ended, streams: Mapping[str, Stream]) -> bytes:
    """The object of an attempt. The same attempt always has the same bytes."""
    out = io.BytesIO()
    date = time.gmtime(max(ended.ended_ms // 1000, 315_532_800))[:6]  # a zip file knows no time before 1980
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:

        def add(name: str, content: bytes) -> None:
            info = zipfile.ZipInfo(name, date)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            file.writestr(info, content)

        for stream, kept in streams.items():
            for first, data in kept.pieces:
                for at in range(0, len(data), CHUNK_BYTES):
                    add(f"{stream}/{first + at:015d}", data[at : at + CHUNK_BYTES])
        meta = {
            "format": FORMAT,
            "taskId": ended.task_id,
            "runId": ended.run_id,
            "jobName": ended.job,
            "item": ended.item,
            "attempt": ended.attempt,
            "agentId": ended.agent_id,
            "hostname": ended.hostname,
            "outcome": ended.end,
            "endedMs": ended.ended_ms,
            "sizes": {stream: kept.size for stream, kept in streams.items()},
        }
        add(_META, json.dumps(meta, indent=1).encode())
    return out.getvalue()


def read(file: BinaryIO, stream: str, offset: int, limit: int) -> Piece:
    """At most `limit` bytes of a stream from `offset` on.

    `offset` < 0 counts from the end. If the bytes at `offset` were left out of the archive, the data begins after this
    gap, and the returned offset is larger. The data ends before the next gap. Raises Unreadable, and OSError of `file`.
    """
    try:
        with zipfile.ZipFile(file) as found:
            size, task_id = _meta(found, stream)
            chunks = sorted(
                (int(name[2]), info)
                for info in found.infolist()
                if (name := _CHUNK.fullmatch(info.filename)) and name[1] == stream
            )
            start = min(offset, size) if offset >= 0 else max(0, size + offset)
            data = b""
            for first, info in chunks:
                end = first + info.file_size
                if end <= start + len(data):
                    continue
                if not data:
                    start = max(start, first)
                if first > start + len(data) or len(data) >= limit:
                    break
                if info.file_size > CHUNK_BYTES:
                    raise Unreadable("a piece of the log is longer than any that jobcloud writes")
                data += found.read(info)[start + len(data) - first :]
            return Piece(data[:limit], start, size, task_id)
    except _DAMAGED as error:
        raise Unreadable(f"the archived log is damaged: {str(error)[:200]}") from error


def _meta(found: zipfile.ZipFile, stream: str) -> tuple[int, str]:
    """The size of the stream, and the id of the task. Raises Unreadable, and one of _DAMAGED."""
    info = found.getinfo(_META)
    if info.file_size > _MAX_META:
        raise Unreadable("the description of the archived log is too long")
    meta = json.loads(found.read(info))
    if meta["format"] != FORMAT:
        raise Unreadable(f"the archived log has the format {str(meta['format'])[:20]}, and this version reads {FORMAT}")
    size = int(meta["sizes"].get(stream, 0))
    if size < 0:
        raise ValueError(f"the size {size} is negative")
    return size, str(meta["taskId"])
