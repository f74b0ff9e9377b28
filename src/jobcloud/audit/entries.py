"""The entries of the audit log, and their form in a file: one line of JSON each, chained by hashes.

A line begins with the hash of its own rest, and the rest begins with the hash of the line before. So nobody can change,
remove, insert or reorder a line without a change of all later hashes. All text is ASCII: other characters are escaped,
so an entry has no line breaks and no control characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

#: The number rises with each change of the form. Later builds must still verify the older forms.
FORMAT: Final = 1
#: in place of the hash of the line before the first one
GENESIS: Final = "0" * 64
#: the length of a line, with its line break
MAX_LINE: Final = 60_000
#: changes whose names a line has if it is too long for their content
_NAMED: Final = 200
_MAX_KEY: Final = 170
_LINE = re.compile(
    rb'\{"hash":"([0-9a-f]{64})",("prev":"([0-9a-f]{64})","seq":([1-9]\d{0,14}),"chain":"([0-9a-f]{16})",.*\})'
)


class Kind(StrEnum):
    START = "start"  # a process has begun to write
    INTENT = "intent"  # a change is allowed and will now be carried out
    OUTCOME = "outcome"  # the end of the change with the intent `of`
    REQUEST = "request"  # a refused request, a read, or a request that a standby has passed on
    COUNTED = "counted"  # requests that have no entries of their own
    REMOVED = "removed"  # files that were older than the limit


class Outcome(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of one record. `before` and `after` have the fields that differ; None: there is no such record.

    `uncertain`: nobody knows whether the change was carried out.
    """

    command: str
    key: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    uncertain: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event of the audit log. docs/audit.md describes the fields."""

    at: int
    kind: Kind
    request: str = ""
    subject: str = ""
    via: str = ""
    groups: tuple[str, ...] = ()
    client: str = ""
    claimed: str = ""
    forwarded: bool = False
    method: str = ""
    route: str = ""
    query: str = ""
    verb: str = ""
    team: str = ""
    target: str = ""
    outcome: Outcome | None = None
    status: int = 0
    reason: str = ""
    of: int = 0
    changes: tuple[Change, ...] = ()
    details: Mapping[str, Any] = {}


class Head(NamedTuple):
    """The end of a chain: the number and the hash of its last line."""

    chain: str
    seq: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"chain={self.chain} seq={self.seq} hash={self.hash}"


class Line(NamedTuple):
    """A line of a file. `hash` is the one that the line gives, `found` the one of its content."""

    head: Head
    prev: str
    found: str


def seal(entry: Entry, last: Head) -> tuple[bytes, Head]:
    """The line of an entry behind `last`, and the new head."""
    content = _content(entry)
    rest = f'"prev":"{last.hash}","seq":{last.seq + 1},"chain":"{last.chain}",{content[1:]}'.encode()
    found = hashlib.sha256(rest).hexdigest()
    return b'{"hash":"' + found.encode() + b'",' + rest + b"\n", Head(last.chain, last.seq + 1, found)


def parse(line: bytes) -> Line | None:
    """The parts of a line without its line break. None if it has another form."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    given, rest, prev, seq, chain = found.groups()
    head = Head(chain.decode(), int(seq), given.decode())
    return Line(head, prev.decode(), hashlib.sha256(rest).hexdigest())


def iso(instant: int) -> str:
    """An instant (ms) in UTC, as in ISO 8601."""
    moment = datetime.fromtimestamp(instant // 1_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % 1_000:03d}Z"


def _content(entry: Entry) -> str:
    """The entry as JSON. Changes that make the line too long lose their content, and the last of many are counted."""
    fields = {"format": FORMAT} | msgspec.to_builtins(entry)
    fields["at"] = iso(entry.at)
    text = _json(fields)
    if len(text) <= MAX_LINE - 300:
        return text
    named = [{"command": each.command, "key": each.key[:_MAX_KEY], "cut": True} for each in entry.changes[:_NAMED]]
    fields["changes"] = named
    if len(entry.changes) > _NAMED:
        fields["more_changes"] = len(entry.changes) - _NAMED
    return _json(fields)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
