"""Checks the chain of an audit log, without a server.

Files are read line by line. The first wrong line is named with the reason, as far as the numbers and hashes of the
lines around it tell. Lines behind it are not checked: all that follows a changed line is in doubt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobcloud.audit.entries import GENESIS, Head, Kind, Line, parse

#: how a head is written, in files of heads and in messages of syslog
_HEAD = re.compile(rb"chain=([0-9a-f]{16}) seq=(\d{1,15}) hash=([0-9a-f]{64})")
_REMOVED = b'"kind":"' + Kind.REMOVED.encode() + b'"'
_MAX_BYTES = 1 << 20
#: where the part of a line begins that its hash covers
_REST = len('{"hash":"",') + 64


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the log is not what was written. `file` and `line` (from 1) name the place; "" and 0: no place."""

    problem: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}" if self.file else self.problem


@dataclass(slots=True)
class Report:
    """`heads`: the last head of each chain. `compared`: the number of exported heads that fit. `torn`: an unfinished
    line at the end of the last file, which a crash leaves and the next start removes."""

    lines: int = 0
    heads: list[Head] = field(default_factory=list)
    compared: int = 0
    torn: bool = False
    fault: Fault | None = None


def read_heads(paths: Iterable[Path]) -> Iterator[Head]:
    """The exported heads in files: those that the scheduler wrote, or the log of a syslog server. Raises OSError."""
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                for chain, seq, found in _HEAD.findall(line):
                    yield Head(chain.decode(), int(seq), found.decode())


def verify(paths: Iterable[Path], exported: Iterable[Head] = ()) -> Report:
    """Check files in the order in which they were written. Raises OSError."""
    report = Report()
    checker = _Checker(report, exported)
    for path in paths:
        if report.torn:
            report.fault = Fault("the last line is not complete, and another file follows", str(path), 1)
        with path.open("rb") as file:
            number = 0
            while report.fault is None and (line := file.readline(_MAX_BYTES)):
                number += 1
                if not line.endswith(b"\n"):
                    report.torn = True
                    break
                problem = checker.add(line, begins=number == 1)
                if problem:
                    report.fault = Fault(problem, str(path), number)
        if report.fault is not None:
            return report
    checker.end()
    return report


class _Checker:
    """The state of a check between two lines."""

    def __init__(self, report: Report, exported: Iterable[Head]) -> None:
        self._report = report
        self._exported: dict[str, dict[int, str]] = {}
        for head in exported:
            known = self._exported.setdefault(head.chain, {})
            if known.setdefault(head.seq, head.hash) != head.hash:
                report.fault = Fault(
                    f"two exported heads of the chain {head.chain} contradict each other at {head.seq}"
                )
        self._last: Head | None = None
        #: where each chain begins, and the places up to which entries say that files were removed
        self._first: dict[str, Line] = {}
        self._removed: set[tuple[int, str]] = set()

    def add(self, raw: bytes, *, begins: bool) -> str:
        """The problem of the next line, or "". `begins`: it is the first line of a file."""
        head = self._next(raw)
        if head is None:
            return self._add_slowly(raw, begins=begins)
        return self._accept(head, raw)

    def _next(self, raw: bytes) -> Head | None:
        """The head behind a line that follows the line before, as almost all do. None: a closer look is needed."""
        last = self._last
        if last is None:
            return None
        start = b'"prev":"%b","seq":%d,"chain":"%b",' % (last.hash.encode(), last.seq + 1, last.chain.encode())
        if not raw.startswith(start, _REST) or not raw.endswith(b"}\n"):
            return None
        found = hashlib.sha256(memoryview(raw)[_REST:-1]).hexdigest()
        return Head(last.chain, last.seq + 1, found) if raw.startswith(b'{"hash":"%b",' % found.encode()) else None

    def _add_slowly(self, raw: bytes, *, begins: bool) -> str:
        """As `add`, for the first line of a chain, and to find out what is wrong with a line."""
        line = parse(raw[:-1])
        if line is None:
            return "the line was changed: it has not the form of an entry"
        if line.found != line.head.hash:
            return f"the line was changed: its hash does not fit its content (entry {line.head.seq})"
        return self._place(line, begins=begins) or self._accept(line.head, raw)

    def _accept(self, head: Head, raw: bytes) -> str:
        """Take a line that is whole and at its place. The problem if it contradicts an exported head, or ""."""
        if _REMOVED in raw:
            self._note_removal(raw)
        exported = self._exported.get(head.chain)
        if exported and (given := exported.get(head.seq)) is not None:
            if given != head.hash:
                return f"the entry {head.seq} is not the one of the exported head: it or one before it was changed"
            self._report.compared += 1
        self._last = head
        self._report.lines += 1
        return ""

    def end(self) -> None:
        """Check what no single line shows. The problem goes to the report."""
        report = self._report
        if self._last is not None:
            report.heads.append(self._last)
        for first in self._first.values():
            begin = first.head.seq
            if report.fault is None and begin > 1 and (begin - 1, first.prev) not in self._removed:
                problem = f"the entries before {begin} are missing, and no entry says that they were removed"
                report.fault = Fault(problem)
        for chain, places in self._exported.items():
            known = next((head.seq for head in report.heads if head.chain == chain), 0)
            newest = max(places)
            if report.fault is None and newest > known:
                where = f"the chain {chain} ends at entry {known}" if known else f"the chain {chain} is missing"
                report.fault = Fault(f"truncated: {where}, and a head of entry {newest} was exported")

    def _place(self, line: Line, *, begins: bool) -> str:
        """Why a line does not follow the line before, or ""."""
        head, last = line.head, self._last
        if last is None or (begins and head.chain != last.chain and head.chain not in self._first):
            if last is not None:
                self._report.heads.append(last)
            self._first[head.chain] = line
            return "" if (head.seq == 1) == (line.prev == GENESIS) else "the first entry of a chain was changed"
        if head.chain != last.chain:
            return f"inserted: the line belongs to another chain, {head.chain}"
        if line.prev == last.hash and head.seq == last.seq + 1:
            return ""
        if head.seq == last.seq + 1:
            return f"the entry {last.seq} before this line was changed, with a new hash"
        if head.seq > last.seq + 1:
            return f"removed or reordered: the entry {last.seq + 1} is missing before the entry {head.seq}"
        return f"inserted or reordered: the entry {head.seq} follows the entry {last.seq}"

    def _note_removal(self, raw: bytes) -> None:
        entry = json.loads(raw)
        if entry["kind"] == Kind.REMOVED:
            self._removed.add((entry["details"]["through"], entry["details"]["hash"]))
