"""What the scheduler, the executor and the dev cluster share of Mesos' v1 HTTP API: RecordIO framing and base64 data,
and how much of a job's result that data may hold.

Runs on agents too: standard library only, CPython >= 3.9.

Source: Mesos documentation, "Scheduler HTTP API", section "RecordIO response format": each record is its length in
bytes as decimal text, a line feed, then that many bytes.
"""

from __future__ import annotations

import base64
import json
from typing import Any, List

# A length line longer than this is garbage, not a record; 2**63 has 19 digits.
_MAX_LENGTH_DIGITS = 10
# Mesos itself sends an OFFERS event of 5,000 agents in some 15 MiB.
MAX_RECORD_BYTES = 64 << 20
# What a job returns goes with the end of its task, as so much JSON at most.
RESULT_BYTES, RESULT_LEVELS = 4_000, 32


class FramingError(Exception):
    """The stream is not RecordIO (or holds a record over the limit); nothing after this point can be trusted."""


def frame(record: bytes) -> bytes:
    """One record as it goes over the wire."""
    return b"%d\n%s" % (len(record), record)


def frame_json(message: Any) -> bytes:
    """One JSON message as it goes over the wire."""
    return frame(json.dumps(message, separators=(",", ":")).encode())


class RecordReader:
    """Cuts a byte stream into records, whatever the sizes of the pieces it comes in."""

    def __init__(self, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max = max_record_bytes
        self._buffer = bytearray()
        self._wanted = -1  # length of the record being read, -1 while its length line is

    def feed(self, data: bytes) -> List[bytes]:
        """The records that `data` completes, in order.

        Raises FramingError where a length line is no decimal number or is over the limit.
        """
        if self._wanted < 0 and not self._buffer:
            # Most servers send each record as a piece of its own.
            end = data.find(b"\n", 0, _MAX_LENGTH_DIGITS + 1)
            if end > 0 and len(data) - end - 1 == self._length(data[:end]):
                return [data[end + 1 :]]
        self._buffer += data
        records = []
        start = 0
        while True:
            if self._wanted < 0:
                end = self._buffer.find(b"\n", start, start + _MAX_LENGTH_DIGITS + 1)
                if end < 0:
                    if len(self._buffer) - start > _MAX_LENGTH_DIGITS:
                        raise FramingError(f"no record length in {bytes(self._buffer[start : start + 16])!r}")
                    break
                self._wanted = self._length(bytes(self._buffer[start:end]))
                start = end + 1
            if len(self._buffer) - start < self._wanted:
                break
            records.append(bytes(self._buffer[start : start + self._wanted]))
            start += self._wanted
            self._wanted = -1
        del self._buffer[:start]
        return records

    def _length(self, line: bytes) -> int:
        if not line.isdigit():
            raise FramingError(f"a record length of {line!r} is no decimal number")
        length = int(line)
        if length > self._max:
            raise FramingError(f"a record of {length} bytes is over the limit of {self._max}")
        return length


def encode_data(data: bytes) -> str:
    """Bytes as the `data` and `uuid` fields carry them in JSON."""
    return base64.b64encode(data).decode("ascii")


def decode_data(text: str) -> bytes:
    """The inverse of `encode_data`. Raises ValueError where `text` is no base64."""
    return base64.b64decode(text, validate=True)


def is_flat(value: Any, levels: int = RESULT_LEVELS) -> bool:
    """Whether what JSON gave nests no deeper than so many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(is_flat(one, levels - 1) for one in inner)
