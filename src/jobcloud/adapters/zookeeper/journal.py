"""The journal in which ZooKeeper keeps the records that change all the time: what it holds, and what to write next.

A journal is a series of numbered segments; each is one batch of writes, and the latest write of a record counts. A
node per record would cost a request for each, a node per group of records would be rewritten as a whole for each; a
segment costs one request for a batch of any kind. Room is won from the oldest segment on, a little with every write:
its records that still count move into the new segment, in whose transaction the old one is deleted. (Rosenblum and
Ousterhout, "The design and implementation of a log-structured file system", 1992; oldest first, so that the mark of a
deletion may go as soon as its segment does.)

No input or output in here. Format of a segment: zlib(msgpack([[kind, key, value or nil], …])).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

Place: TypeAlias = tuple[str, str]
"""(kind, key) of a record."""
Entry: TypeAlias = tuple[str, str, bytes | None]
"""(kind, key, value); without a value it marks a deletion."""

# Dead weight that is not worth a thought, and how many segments a start can read quickly.
_SPARE_BYTES = 1 << 20
_MOST_SEGMENTS = 2_000
_ENTRY_BYTES = 40
_DELETED_AT_ONCE = 150

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, str, bytes | None]])


class Damaged(Exception):
    """A segment that cannot be read."""


@dataclass(slots=True)
class Segment:
    """`nodes` are the names of those that hold it, `blob` its content as stored, `size` its bytes in memory."""

    number: int
    nodes: tuple[str, ...]
    blob: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next segment holds, and the segments that it makes superfluous."""

    entries: list[Entry]
    cleaned: list[Segment]


def encode(entries: Sequence[Entry]) -> bytes:
    """Raises UnicodeEncodeError for text that is none."""
    return zlib.compress(_encoder.encode(entries), 1)


def decode(blob: bytes) -> list[Entry]:
    """Raises Damaged."""
    try:
        return _decoder.decode(zlib.decompress(blob))
    except (zlib.error, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error


def marks(entries: Iterable[Entry]) -> bytes:
    """Eight bytes for each record of a segment: should the segment be damaged, they tell which records it changed."""
    return b"".join(sorted(mark(kind, key) for kind, key, _ in entries))


def mark(kind: str, key: str) -> bytes:
    return hashlib.blake2b(f"{kind}/{key}".encode(), digest_size=8).digest()


@dataclass(slots=True)
class Journal:
    """Where each record's latest write lies. `size` and `live` count bytes: all, and those that count."""

    segments: dict[int, Segment] = field(default_factory=dict)
    where: dict[Place, tuple[int, int]] = field(default_factory=dict)
    last: int = 0
    size: int = 0
    live: int = 0

    def append(self, segment: Segment, entries: Iterable[Entry]) -> None:
        """Take in a segment newer than all others."""
        self.segments[segment.number] = segment
        self.last = max(self.last, segment.number)
        self.size += segment.size
        for kind, key, value in entries:
            self.forget((kind, key))
            if value is not None:
                size = entry_size(kind, key, value)
                self.where[kind, key] = (segment.number, size)
                self.live += size

    def forget(self, place: Place) -> None:
        if (found := self.where.pop(place, None)) is not None:
            self.live -= found[1]

    def drop(self, segments: Iterable[Segment]) -> None:
        """Segments that were deleted after all that counts in them had moved."""
        for segment in segments:
            self.size -= self.segments.pop(segment.number).size

    def plan(self, writes: Mapping[Place, bytes | None]) -> Plan:
        """The segment that makes `writes` last; deleting what is not there takes no room."""
        entries: list[Entry] = [
            (*place, value) for place, value in writes.items() if value is not None or place in self.where
        ]
        moved, cleaned = self._clean(writes, sum(entry_size(*entry) for entry in entries))
        return Plan([*moved, *entries], cleaned)

    def _clean(self, writes: Mapping[Place, bytes | None], written: int) -> tuple[list[Entry], list[Segment]]:
        """Oldest first, while too much is dead; in proportion to what is written, so that no write stands out."""
        moved: list[Entry] = []
        cleaned: list[Segment] = []
        budget = 4 * written + (64 << 10)
        size, count, deleted = self.size + written, len(self.segments) + 1, 0
        for segment in self.segments.values():
            deleted += len(segment.nodes)
            if not self._too_much(size, count) or budget <= 0 or (cleaned and deleted > _DELETED_AT_ONCE):
                break
            kept = [
                entry
                for entry in decode(segment.blob)
                if entry[2] is not None
                and self.where.get(entry[:2], (0, 0))[0] == segment.number
                and entry[:2] not in writes
            ]
            moved.extend(kept)
            cleaned.append(segment)
            budget -= segment.size
            size += sum(entry_size(*entry) for entry in kept) - segment.size
            count -= 1
        return moved, cleaned

    def _too_much(self, size: int, count: int) -> bool:
        return size > 2 * self.live + _SPARE_BYTES or count > _MOST_SEGMENTS


def entry_size(kind: str, key: str, value: bytes | None) -> int:
    return _ENTRY_BYTES + len(kind) + len(key) + len(value or b"")
