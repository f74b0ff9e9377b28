"""The journal of records that change often. The module does no I/O.

`Journal` maps records to segments and plans the next segment.

A journal is a series of numbered segments. Each segment holds one batch of writes. The latest write of a record is
valid. A segment costs one request, unless the batch is too large for one request. Other designs cost more: with a node
for each record, each record costs a request; with a node for a group of records, a change of one record rewrites the
group.

If necessary, a write reclaims some space by *cleaning* old segments. The write copies the valid records of the oldest
segments to the new segment. The transaction that creates the new segment deletes these old segments. The oldest
segments go first. So an entry that marks a deletion need not be copied: no older segment is left that could contain the
deleted record. (Rosenblum and Ousterhout, "The design and implementation of a log-structured file system", 1992.)

Format of a segment: zlib(msgpack([[kind, key, value or nil], …])). `Spread` splits a large segment. A store keeps each
piece in a node (in etcd: a key).
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from jobcloud.errors import RecordTooLarge, StoreUnusable
from jobcloud.messages import KIND_NAMES, KINDS
from jobcloud.ports import StoredFault, StoredRecords

Place: TypeAlias = tuple[str, str]
"""(kind, key) of a record."""
Entry: TypeAlias = tuple[str, str, bytes | None]
"""(kind, key, value). The value None marks a deletion."""

# Old segments are cleaned if the obsolete bytes exceed the valid ones by more than this.
_SPARE_BYTES = 1 << 20
# Old segments are also cleaned if there are more segments than this. A start reads this number of segments quickly.
_MAX_SEGMENTS = 2_000
# With many valid records, more segments are allowed: the number of valid bytes divided by this. Otherwise each write
# would copy much to keep the number of segments low.
_SEGMENT_BYTES = 32 << 10
_ENTRY_BYTES = 40
_DELETED_AT_ONCE = 150
_MARK_BYTES = 8

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, str, bytes | None]])


class Damaged(Exception):
    """A segment cannot be read."""


@dataclass(slots=True)
class Segment:
    """`nodes`: the names of its nodes. `blob`: its content as stored. `size`: the `entry_size` of all its entries."""

    number: int
    nodes: tuple[str, ...]
    blob: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The entries of the next segment, and the old segments to delete with it."""

    entries: list[Entry]
    cleaned: list[Segment]


def encode(entries: Sequence[Entry]) -> bytes:
    """Raises UnicodeEncodeError for text that UTF-8 cannot encode."""
    return zlib.compress(_encoder.encode(entries), 1)


def decode(blob: bytes) -> list[Entry]:
    """The inverse of `encode`. Raises Damaged."""
    try:
        return _decoder.decode(zlib.decompress(blob))
    except (zlib.error, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error


def marks(entries: Iterable[Entry]) -> bytes:
    """Eight bytes for each record of a segment.

    If the segment is damaged, the marks show which records were changed.
    """
    return b"".join(sorted(mark(kind, key) for kind, key, _ in entries))


def mark(kind: str, key: str) -> bytes:
    return hashlib.blake2b(f"{kind}/{key}".encode(), digest_size=_MARK_BYTES).digest()


@dataclass(slots=True)
class Journal:
    """All segments. `latest`: record → the number of the segment with its latest write, and the bytes of that write.

    `size` counts the bytes of all segments, and `live` the bytes of valid records.
    """

    segments: dict[int, Segment] = field(default_factory=dict)
    latest: dict[Place, tuple[int, int]] = field(default_factory=dict)
    last: int = 0
    size: int = 0
    live: int = 0

    def append(self, segment: Segment, entries: Iterable[Entry]) -> None:
        """Add a segment that is newer than all others."""
        self.segments[segment.number] = segment
        self.last = max(self.last, segment.number)
        self.size += segment.size
        for kind, key, value in entries:
            self.forget((kind, key))
            if value is not None:
                size = entry_size(kind, key, value)
                self.latest[kind, key] = (segment.number, size)
                self.live += size

    def forget(self, place: Place) -> None:
        if (found := self.latest.pop(place, None)) is not None:
            self.live -= found[1]

    def drop(self, segments: Iterable[Segment]) -> None:
        """Remove segments that were deleted after their valid records had been copied."""
        for segment in segments:
            self.size -= self.segments.pop(segment.number).size

    def plan(self, writes: Mapping[Place, bytes | None]) -> Plan:
        """The next segment for `writes`. The deletion of a record that does not exist needs no entry."""
        entries: list[Entry] = [
            (*place, value) for place, value in writes.items() if value is not None or place in self.latest
        ]
        moved, cleaned = self._clean(writes, sum(entry_size(*entry) for entry in entries))
        return Plan([*moved, *entries], cleaned)

    def _clean(self, writes: Mapping[Place, bytes | None], written: int) -> tuple[list[Entry], list[Segment]]:
        """Choose the oldest segments for deletion, while there are too many obsolete bytes or too many segments.

        Returns the entries to copy, and the segments to delete. The effort is proportional to the size of the write, so
        that no write takes much longer than others.
        """
        moved: list[Entry] = []
        cleaned: list[Segment] = []
        budget = 4 * written + (64 << 10)
        size, count, deleted = self.size + written, len(self.segments) + 1, 0
        for segment in self.segments.values():
            deleted += len(segment.nodes)
            if not self._needs_cleaning(size, count) or budget <= 0 or (cleaned and deleted > _DELETED_AT_ONCE):
                break
            kept = [
                entry
                for entry in decode(segment.blob)
                if entry[2] is not None
                and self.latest.get(entry[:2], (0, 0))[0] == segment.number
                and entry[:2] not in writes
            ]
            moved.extend(kept)
            cleaned.append(segment)
            budget -= segment.size
            size += sum(entry_size(*entry) for entry in kept) - segment.size
            count -= 1
        return moved, cleaned

    def _needs_cleaning(self, size: int, count: int) -> bool:
        return size > 2 * self.live + _SPARE_BYTES or count > max(_MAX_SEGMENTS, self.live // _SEGMENT_BYTES)


def entry_size(kind: str, key: str, value: bytes | None) -> int:
    return _ENTRY_BYTES + len(kind) + len(key) + len(value or b"")


def check_sizes(writes: Mapping[Place, bytes | None], limit_of: Callable[[str], int], store: str) -> None:
    """Raises RecordTooLarge if a value has more bytes than `limit_of` its kind allows. `store` is the store's name."""
    problems: dict[tuple[str, str], str] = {}
    for (kind, key), value in writes.items():
        if value is not None and len(value) > (limit := limit_of(kind)):
            problems[kind, key] = f"{kind} {key[:80]!r} takes {len(value)} bytes; {store} holds at most {limit}"
    if problems:
        raise RecordTooLarge(problems)


def put(stored: StoredRecords, place: Place, value: bytes | None) -> None:
    """Add one write to the records that were read. Kinds that this version does not know are left out."""
    kind, key = place
    if kind not in KINDS:
        return
    if value is None:
        stored.records[KINDS[kind]].pop(key, None)
    else:
        stored.records[KINDS[kind]][key] = value


# ----------------------------------------------------------------------------------------------------- nodes and names

_DIGITS = 16
_MARKS = "marks"


def segment_name(number: int) -> str:
    return f"{number:0{_DIGITS}d}"


def marks_name(segment: str) -> str:
    return f"{segment}-{_MARKS}"


class Spread:
    """A segment split into nodes (name, data). The `parts` are stored first. Then the transaction stores the `ends`.

    The node of the segment contains a header, `1 TOKEN PARTS\\n`, and the last piece of the content. The other pieces
    are the parts. A part is named SEGMENT-TOKEN-NUMBER. The token is new for each write, so a part cannot collide with
    a leftover of an earlier write. The marks (see `marks`) have a node of their own.
    """

    def __init__(self, number: int, entries: Sequence[Entry], piece_bytes: int) -> None:
        self.blob = encode(entries)
        self.size = sum(entry_size(*entry) for entry in entries)
        self.name, token = segment_name(number), uuid.uuid4().hex[:12]
        pieces = _pieces(self.blob, piece_bytes)
        names = [f"{self.name}-{token}-{index:04d}" for index in range(len(pieces) - 1)]
        self.token = f"1 {token} ".encode()
        header = self.token + b"%d\n" % len(names)
        marked = marks(entries)
        # A huge batch has no marks. If its segment is damaged, the store refuses to start.
        marks_node = [(marks_name(self.name), marked)] if len(marked) <= piece_bytes else []
        self.names = (self.name, *names, *(name for name, _ in marks_node))
        self.parts = list(zip(names, pieces[:-1], strict=True))
        self.ends = [(self.name, header + pieces[-1]), *marks_node]


class Files:
    """The names in the folder of the journal, by type. `numbers`: the numbers of all segments, lost ones included."""

    def __init__(self, names: Iterable[str]) -> None:
        self.segments: list[str] = []
        self.parts: list[str] = []
        self.marks: list[str] = []
        self.strange: list[str] = []
        self.numbers: set[int] = set()
        for name in names:
            base, _, rest = name.partition("-")
            if len(base) != _DIGITS or not base.isdecimal() or not base.isascii():
                self.strange.append(name)
            elif not rest:
                self.segments.append(name)
                self.numbers.add(int(base))
            elif rest == _MARKS:
                self.marks.append(name)
                # Marks are created and deleted with their segment. If only the marks exist, the segment was lost.
                self.numbers.add(int(base))
            else:
                self.parts.append(name)


def assemble(name: str, data: bytes | None, parts: Mapping[str, bytes]) -> tuple[bytes, tuple[str, ...]]:
    """The content of a segment, and the names of its nodes except the node of the marks. Raises Damaged."""
    if data is None:
        raise Damaged("it is missing")
    header, newline, rest = data.partition(b"\n")
    try:
        version, token, digits = header.decode("ascii").split(" ")
        count = int(digits)
    except ValueError as error:
        raise Damaged("it has no header") from error
    if not newline:
        raise Damaged("it has no header")
    if version != "1":
        raise Damaged(f"it was written in format {version[:10]}")
    if count > len(parts):
        # A damaged number must not fill the memory with names.
        raise Damaged("its header counts more parts than there are nodes")
    try:
        names = [f"{name}-{token}-{index:04d}" for index in range(count)]
        return b"".join([*(parts[part] for part in names), rest]), (name, *names)
    except KeyError as error:
        raise Damaged(f"its part {error} is missing") from error


def _pieces(blob: bytes, size: int) -> list[bytes]:
    return [blob[start : start + size] for start in range(0, max(1, len(blob)), size)]


# --------------------------------------------------------------------------------------------------------------- image


@dataclass(frozen=True, slots=True)
class Source:
    """The place of a journal, and the content of its nodes by name.

    `server` and `path` name the journal for users. `marks` reads a node of marks; None if there is none. `advice` tells
    what to do if it is unknown which records are lost.
    """

    server: str
    path: Callable[[str], str]
    data: Mapping[str, bytes]
    marks: Callable[[str], bytes | None]
    advice: str


@dataclass(slots=True)
class Image:
    """The part of the stored state that the next write needs to know."""

    journal: Journal = field(default_factory=Journal)
    leftovers: list[str] = field(default_factory=list)
    #: the marks of damaged segments
    lost: set[bytes] = field(default_factory=set)

    def read(
        self, files: Files, source: Source, stored: StoredRecords, elsewhere: Container[str] = ()
    ) -> dict[int, dict[Place, bytes | None]]:
        """Read the journal into this image, and its records into `stored`.

        The store normally keeps the records of kinds in `elsewhere` in other places. Writes of such records are not put
        into `stored`, but returned, by the number of their segment. Raises StoreUnusable.
        """
        apart: dict[int, dict[Place, bytes | None]] = {}
        used: set[str] = set()
        stored.faults.extend(StoredFault(source.path(name), "is of an unknown kind") for name in sorted(files.strange))
        for number in sorted(files.numbers):
            name = segment_name(number)
            try:
                blob, names = assemble(name, source.data.get(name), source.data)
                entries = decode(blob)
            except Damaged as error:
                self._quarantine(name, error, source, stored)
                self.journal.last = max(self.journal.last, number)
                used.update(each for each in (*files.parts, *files.marks) if each.startswith(name))
                continue
            names = (*names, *(each for each in (marks_name(name),) if each in files.marks))
            used.update(names)
            size = sum(entry_size(*entry) for entry in entries)
            mine = [entry for entry in entries if entry[0] not in elsewhere]
            self.journal.append(Segment(number, names, blob, size), mine)
            for kind, key, value in mine:
                put(stored, (kind, key), value)
            if len(mine) < len(entries):
                apart[number] = {(kind, key): value for kind, key, value in entries if kind in elsewhere}
        self.leftovers = [name for name in (*files.parts, *files.marks) if name not in used]
        unknown = sorted(place for place in self.journal.latest if place[0] not in KINDS)
        problem = "is of a kind that this version does not know"
        stored.faults.extend(StoredFault(f"{source.path('*')}: {kind}/{key}", problem) for kind, key in unknown)
        return apart

    def _quarantine(self, name: str, error: Damaged, source: Source, stored: StoredRecords) -> None:
        """Drop the records that a damaged segment changed, because older segments have outdated versions of them."""
        path, found = source.path(name), source.marks(marks_name(name))
        if found is None or len(found) % _MARK_BYTES:
            raise StoreUnusable(
                f"{path} in {source.server} is damaged ({error}), and the list of the records that it changed is "
                f"missing or damaged. Nothing was changed: {source.advice}"
            )
        changed = {found[start : start + _MARK_BYTES] for start in range(0, len(found), _MARK_BYTES)}
        self.lost |= changed
        stored.lost = lambda kind, key: mark(KIND_NAMES[kind], key) in self.lost
        for place in [place for place in self.journal.latest if mark(*place) in changed]:
            self.journal.forget(place)
            put(stored, place, None)
        stored.faults.append(
            StoredFault(path, f"is damaged ({error}): {len(changed)} records that it changed are lost")
        )
