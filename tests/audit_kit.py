"""An audit log in memory, whose disk can fail and crash, for tests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

from jobcloud.audit.entries import Entry, Kind
from jobcloud.audit.folder import Folder, name_of
from jobcloud.audit.log import DEFAULT_LIMITS, Limits, Log
from jobcloud.audit.service import Audit, Options

START = 1_700_000_000_000
CHAIN = "c0ffee00c0ffee00"


class Crash(BaseException):
    """The process is gone. Nothing in the product catches it."""


class FakeDisk:
    """A folder in memory. `durable` is what a crash leaves, `files` what the process sees.

    The operation number `crash_at` (from 0) does not return. A crash keeps `kept` bytes of those that are not synced.
    """

    def __init__(self, files: dict[int, bytes] | None = None, *, crash_at: int = -1, kept: int = 0) -> None:
        self.files = dict(files or {})
        self.durable = dict(self.files)
        self.crash_at, self.kept = crash_at, kept
        self.operations = itertools.count()
        self.failing: Callable[[str], OSError | None] = lambda operation: None
        self.room = 1 << 40
        self.closed = False

    def numbers(self) -> list[int]:
        return sorted(self.files)

    def size(self, number: int) -> int:
        return len(self.files[number])

    def tail(self, number: int, limit: int) -> bytes:
        return self.files[number][-limit:]

    def append(self, number: int, content: bytes) -> None:
        before = self.files.setdefault(number, b"")
        self.durable.setdefault(number, b"")
        free = self.room - sum(map(len, self.files.values()))
        self.files[number] = before + content[: max(0, free)]
        self._step("append")
        if len(content) > free:
            raise OSError(ENOSPC, "No space left on device")

    def sync(self, number: int) -> None:
        self._step("sync")
        self.durable[number] = self.files[number]

    def truncate(self, number: int, size: int) -> None:
        self._step("truncate")
        self.files[number] = self.files.get(number, b"")[:size]

    def remove(self, number: int) -> None:
        self._step("remove")
        self.files.pop(number, None)
        self.durable.pop(number, None)

    def close(self) -> None:
        self.closed = True

    def _step(self, operation: str) -> None:
        if next(self.operations) == self.crash_at:
            raise Crash
        if (error := self.failing(operation)) is not None:
            raise error

    def after_crash(self) -> FakeDisk:
        """The disk that the next process finds: after a loss of power, of which some unsynced bytes were written."""
        found = {}
        for number, synced in self.durable.items():
            seen = self.files.get(number, b"")
            found[number] = synced + seen[len(synced) : len(synced) + self.kept] if seen.startswith(synced) else synced
        return FakeDisk(found)

    def write_to(self, folder: Path) -> list[Path]:
        """The files as real ones, in their order."""
        paths = []
        for number, content in sorted(self.files.items()):
            path = folder / name_of(number)
            path.write_bytes(content)
            paths.append(path)
        return paths

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for _, content in sorted(self.files.items()) for line in content.splitlines()]


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def make_log(disk: Folder, limits: Limits = DEFAULT_LIMITS, clock: Callable[[], int] = lambda: START) -> Log:
    return Log(disk, limits, now_ms=clock, new_chain=lambda: CHAIN)


def make_entry(number: int = 0, **changes: Any) -> Entry:
    given: dict[str, Any] = {"at": START + number, "kind": Kind.REQUEST, "subject": f"user:u{number}"} | changes
    return Entry(**given)


@contextmanager
def auditing(disk: FakeDisk, options: Options | None = None, **more: Any) -> Iterator[Audit]:
    audit = Audit(disk, options or Options(), now_ms=lambda: START, new_chain=lambda: CHAIN, **more)
    try:
        yield audit
    finally:
        audit.stop()
