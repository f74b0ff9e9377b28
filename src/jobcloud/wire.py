"""Parts of Mesos' v1 HTTP API shared by scheduler, executor and dev cluster: RecordIO framing, base64 data, and the
limits of a job's result inside that data.

The module also runs on agents, so it uses the standard library only, and runs on CPython 3.9 or newer.

Source: Mesos documentation, "Scheduler HTTP API", section "RecordIO response format": each record is its length in
bytes as decimal text, a line feed, then that many bytes.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any, List, Tuple

# A line with more digits cannot be a valid length: MAX_RECORD_BYTES has 8 digits.
_MAX_LENGTH_DIGITS = 10
# An OFFERS event with 5,000 agents has about 15 MiB.
MAX_RECORD_BYTES = 64 << 20
# The result of a job is sent as JSON in the update that ends the task. It has at most this many bytes and levels.
RESULT_BYTES, RESULT_LEVELS = 4_000, 32


class FramingError(Exception):
    """The stream is not RecordIO, or a record exceeds the limit. The rest of the stream cannot be read."""


def frame(record: bytes) -> bytes:
    """One record in RecordIO framing."""
    return b"%d\n%s" % (len(record), record)


def frame_json(message: Any) -> bytes:
    """One JSON message in RecordIO framing."""
    return frame(json.dumps(message, separators=(",", ":")).encode())


class RecordReader:
    """Splits a byte stream into records. The stream may arrive in pieces of any size."""

    def __init__(self, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max = max_record_bytes
        self._buffer = bytearray()
        self._wanted = -1  # length of the record being read; -1 before its length line is complete

    def feed(self, data: bytes) -> List[bytes]:
        """The records that `data` completes, in order.

        Raises FramingError if a length is not a decimal number, or exceeds the limit.
        """
        if self._wanted < 0 and not self._buffer:
            # Fast path: most servers send each record as one piece.
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
            raise FramingError(f"the record length {line!r} is not a decimal number")
        length = int(line)
        if length > self._max:
            raise FramingError(f"a record of {length} bytes is over the limit of {self._max}")
        return length


def encode_data(data: bytes) -> str:
    """Bytes as text, as in the `data` and `uuid` fields of JSON messages."""
    return base64.b64encode(data).decode("ascii")


def decode_data(text: str) -> bytes:
    """The inverse of `encode_data`. Raises ValueError if `text` is not base64."""
    return base64.b64decode(text, validate=True)


def is_flat(value: Any, levels: int = RESULT_LEVELS) -> bool:
    """Whether a JSON value is nested at most `levels` deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(is_flat(one, levels - 1) for one in inner)


#: the maximum size of the results of nodes that one task gets, and of those in one text: bytes in JSON
MAX_RESULTS_BYTES = 32_768
#: the name of a node in the placeholder `{result:NODE}`
NODE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_NODES = re.compile(r"\{result:(" + NODE.pattern + r")\}")


def nodes_of(*texts: str) -> Tuple[str, ...]:
    """The nodes whose results texts name, each once. The texts may be valid only in parts, such as a JSON object."""
    return tuple(dict.fromkeys(node for text in texts for node in _NODES.findall(text)))
