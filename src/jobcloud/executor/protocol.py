"""The line protocol between the executor daemon and an app worker. docs/executor.md describes it for other languages.

Each message is one JSON object in one line of UTF-8. The messages go over two pipes, one for each direction. The last
two arguments of the worker are the descriptors of these pipes. Each side checks the shape of each message that it gets.
An invalid message ends the worker, never the daemon.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, Mapping, Tuple

VERSION = 2
MAX_LINE_BYTES = 1 << 20
_TOO_LONG = f"a line is over the limit of {MAX_LINE_BYTES} bytes"

Message = Dict[str, Any]
Shape = Mapping[str, Tuple[type, ...]]

_TEXT, _NUMBER, _OBJECT = (str,), (int,), (dict,)
_ANY = (object,)
# The absolute value of a number in a message must be smaller than this, so that a double can hold the number.
_LARGEST = 10.0**308

# The fields of each message type. The receiver ignores other fields, so either side may be of a newer release.
TO_WORKER: Mapping[str, Shape] = {
    "hello": {"protocol": _NUMBER, "appName": _TEXT, "appVersion": _TEXT, "directory": _TEXT, "tasks": _TEXT},
    "load": {"task": _TEXT, "run": _NUMBER, "job": _OBJECT, "context": _OBJECT, "facts": _OBJECT},
    "run": {"task": _TEXT, "run": _NUMBER, "job": _OBJECT, "context": _OBJECT, "facts": _OBJECT},
    "listen": {
        "task": _TEXT,
        "run": _NUMBER,
        "step": _TEXT,
        "job": _OBJECT,
        "context": _OBJECT,
        "facts": _OBJECT,
        "firing": _OBJECT,
    },
    "warm": {"contexts": (list,)},
    "cancel": {"task": _TEXT},
    "forget": {"task": _TEXT},
    "stop": {},
}
FROM_WORKER: Mapping[str, Shape] = {
    "ready": {"protocol": _NUMBER},
    "started": {"task": _TEXT, "run": _NUMBER},
    "progress": {
        "task": _TEXT,
        "run": _NUMBER,
        "done": (int, float),
        "total": (int, float, type(None)),
    },
    "ended": {
        "task": _TEXT,
        "run": _NUMBER,
        "state": _TEXT,
        "cause": (str, type(None)),
        "message": _TEXT,
        "exitCode": (int, type(None)),
        "result": _ANY,
    },
}


class ProtocolError(Exception):
    """The other side sent a line that is not in the protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line. Raises ProtocolError if the line is too long."""
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(
            f"a {message.get('type')} message of {len(line)} bytes is over the limit of {MAX_LINE_BYTES}"
        )
    return line


def decode(line: bytes, shapes: Mapping[str, Shape]) -> Message:
    """The message in `line`. Raises ProtocolError if `shapes` lacks its type, or if its fields are wrong."""
    try:
        message: Any = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {_shown(line)}") from error
    kind = message.get("type") if isinstance(message, dict) else None
    shape = shapes.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise ProtocolError(f"unknown message: {_shown(line)}")
    for name, types in shape.items():
        value = message.get(name)
        if not isinstance(value, types) or not (types is _ANY or _is_plain(value)):
            raise ProtocolError(f"'{name}' is missing or wrong in {_shown(line)}")
    return message  # type: ignore[no-any-return]


class LineReader:
    """Splits a byte stream into messages."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes.

        Raises ProtocolError at an invalid line. The messages before this line are valid. Nothing after it can be
        trusted.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if len(line) >= MAX_LINE_BYTES:
                raise ProtocolError(_TOO_LONG)
            yield decode(line, self._shapes)
        if len(self._rest) > MAX_LINE_BYTES:
            raise ProtocolError(_TOO_LONG)


def _is_plain(value: Any) -> bool:
    """False for a boolean, and for a number that is too large for a double."""
    return not isinstance(value, bool) and (not isinstance(value, (int, float)) or abs(value) < _LARGEST)


def _shown(line: bytes) -> str:
    return repr(line[:80]) + ("…" if len(line) > 80 else "")
