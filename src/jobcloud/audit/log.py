"""The chain of entries in the files of a folder. Used by one thread.

A batch of entries is written and synced as a whole. If that fails, the file is cut back to the last good batch before
anything else is written. After a crash, the last line may be incomplete. No caller has been told that this entry was
written. The next process cuts such a line off, and its first entry says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from errno import EDQUOT, ENOSPC
from typing import Final, NamedTuple

from jobcloud.audit.entries import MAX_LINE, Entry, Head, Kind, parse, seal
from jobcloud.audit.folder import Folder, name_of
from jobcloud.errors import StoreError, StoreFull

_CHECK_MS: Final = 3_600_000
_RECENT: Final = 1 << 20
_FULL: Final = (ENOSPC, EDQUOT)


@dataclass(frozen=True, slots=True)
class Limits:
    """A file ends at about `file_bytes`. Files are kept for `keep_ms`, and all files take at most `keep_bytes`.

    `delete`: at the limit of `keep_bytes`, the oldest file is removed. Otherwise the log is full then.
    """

    file_bytes: int = 64 << 20
    keep_ms: int = 400 * 86_400_000
    keep_bytes: int = 10 << 30
    delete: bool = False


#: the defaults of the settings
DEFAULT_LIMITS: Final = Limits()


class Sealed(NamedTuple):
    """An entry, its line, and the head of the chain after this entry."""

    entry: Entry
    line: bytes
    head: Head


class Log:
    """The files of a folder. Continues the chain that is there, or begins a new one with the id `new_chain()`.

    Raises StoreError if the files cannot be read.
    """

    def __init__(
        self, folder: Folder, limits: Limits, *, now_ms: Callable[[], int], new_chain: Callable[[], str]
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._now_ms = now_ms
        #: what the first entry has to tell about the files that were there
        self.found: dict[str, object] = {}
        self._checked_ms = 0
        self._synced = True
        try:
            self._sizes = {number: folder.size(number) for number in folder.numbers()}
            self._begin(new_chain)
        except OSError as error:
            raise _failed("read", error) from error

    def _begin(self, new_chain: Callable[[], str]) -> None:
        for number in sorted(self._sizes, reverse=True):
            whole, torn = self._last(number)
            if torn:
                self._folder.truncate(number, self._sizes[number] - torn)
                self._sizes[number] -= torn
                self.found["torn_bytes"] = torn
            if not self._sizes[number]:
                continue
            line = parse(whole)
            if line is not None and line.found == line.head.hash:
                self.head, self._number = line.head, number
                return
            self.found["damaged"] = name_of(number)
            break
        self.head = Head(new_chain())
        self._number = max(self._sizes, default=0) + 1
        self._sizes[self._number] = 0

    def recent(self) -> list[bytes]:
        """The last complete lines of the present file, up to 1 MiB."""
        try:
            content = self._folder.tail(self._number, _RECENT) if self._sizes[self._number] else b""
        except OSError as error:
            raise _failed("read", error) from error
        lines = content.split(b"\n")[:-1]
        return lines if len(content) < _RECENT else lines[1:]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(self._sizes.values())

    @property
    def full(self) -> bool:
        """Whether no further changes may be recorded."""
        return not self._limits.delete and self.size >= self._limits.keep_bytes

    def append(self, entries: Sequence[Entry]) -> list[Sealed]:
        """Write entries durably. Returns the entry about removed files, if there is one, then these.

        Raises StoreError: none of these entries is written.
        """
        removal = self._make_room()
        found = [*([removal] if removal else []), *self._append(entries)]
        if removal:
            self._remove(removal.entry)
        return found

    def _append(self, entries: Sequence[Entry]) -> list[Sealed]:
        head, found = self.head, []
        for entry in entries:
            line, head = seal(entry, head)
            found.append(Sealed(entry, line, head))
        self._write(b"".join(each.line for each in found))
        self.head = head
        return found

    def close(self) -> None:
        self._folder.close()

    def _write(self, content: bytes) -> None:
        number, size = self._number, self._sizes[self._number]
        try:
            if not self._synced:
                self._folder.truncate(number, size)
            self._synced = False
            self._folder.append(number, content)
            self._folder.sync(number)
        except OSError as error:
            with suppress(OSError):
                self._folder.truncate(number, size)
                self._synced = True
            raise _failed("written", error) from error
        self._synced = True
        self._sizes[number] = size + len(content)

    def _make_room(self) -> Sealed | None:
        """Begin the next file if the present one is full. Write the entry about the files that are over the limits."""
        if self._sizes[self._number] >= self._limits.file_bytes and self._synced:
            self._number += 1
            self._sizes[self._number] = 0
        now = self._now_ms()
        over = self._limits.delete and self.size >= self._limits.keep_bytes
        if not over and 0 <= now - self._checked_ms < _CHECK_MS:
            return None
        self._checked_ms = now
        old: list[int] = []
        last = Head("")
        for number in sorted(number for number in self._sizes if number < self._number):
            line = self._last(number)[0]
            if (old and over) or (not over and _instant(line, now) >= now - self._limits.keep_ms):
                break
            parsed = parse(line)
            last = parsed.head if parsed is not None else last
            old.append(number)
        if not old:
            return None
        details = {"files": old, "through": last.seq, "hash": last.hash}
        # The entry is written before the files are removed. After a crash in between, the next check finds them again.
        return self._append([Entry(at=now, kind=Kind.REMOVED, details=details)])[0]

    def _remove(self, removal: Entry) -> None:
        for number in removal.details["files"]:
            with suppress(OSError):
                self._folder.remove(number)
                del self._sizes[number]

    def _last(self, number: int) -> tuple[bytes, int]:
        """The last complete line of a file, without its line break, and the number of bytes behind it."""
        content = self._folder.tail(number, 2 * MAX_LINE)
        whole, _, torn = content.rpartition(b"\n")
        return whole.rpartition(b"\n")[2], len(torn)


def _instant(line: bytes, default: int) -> int:
    """The instant (ms) of an entry. `default` if the line is damaged."""
    try:
        return int(datetime.fromisoformat(json.loads(line)["at"]).timestamp() * 1_000)
    except (ValueError, KeyError, TypeError):
        return default


def _failed(what: str, error: OSError) -> StoreError:
    kind = StoreFull if error.errno in _FULL else StoreError
    return kind(f"the audit log cannot be {what}: {error.strerror or error}")
