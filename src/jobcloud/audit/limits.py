"""Which requests get entries of their own, so that a flood of them cannot fill the disk or hide others.

Of refused requests, each sender has a few entries in each window. All senders without an identity together have a
bounded number. Of reads, the same read of the same sender has one entry in each window. All others are counted, and the
counts get an entry at the end of the window.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

WINDOW_MS: Final = 60_000
#: entries of one sender about refused requests in a window
REFUSED_EACH: Final = 20
#: entries of all senders without an identity together
UNKNOWN: Final = 100
#: senders that are named in the entry with the counts
NAMED: Final = 20
_MAX_KEYS: Final = 10_000
_OTHERS: Final = "others"


class Windows:
    """Any thread may use it. Instants are in milliseconds, by a clock that is never set back."""

    def __init__(self, now: int) -> None:
        self._lock = threading.Lock()
        self._ends = now + WINDOW_MS
        self._refused: dict[str, int] = {}
        self._unknown = 0
        self._reads: set[tuple[str, str]] = set()
        self._counted: dict[str, dict[str, int]] = {}

    def admits_refusal(self, sender: str, *, known: bool) -> bool:
        """Whether a refused request gets an entry of its own. `known`: the sender has proved an identity."""
        with self._lock:
            key = sender if sender in self._refused or len(self._refused) < _MAX_KEYS else _OTHERS
            count = self._refused[key] = self._refused.get(key, 0) + 1
            self._unknown += not known
            if count <= REFUSED_EACH and (known or self._unknown <= UNKNOWN):
                return True
            self._count("refused", sender)
            return False

    def exhausted(self, sender: str) -> bool:
        """Whether a sender was refused so often in this window that its next change is not even tried."""
        return self._refused.get(sender, 0) >= REFUSED_EACH

    def admits_read(self, sender: str, what: str) -> bool:
        """Whether a read gets an entry of its own."""
        with self._lock:
            if (sender, what) in self._reads:
                self._count("repeated_reads", sender)
                return False
            if len(self._reads) < _MAX_KEYS:
                self._reads.add((sender, what))
            return True

    def end(self, now: int) -> Mapping[str, Mapping[str, int]]:
        """If the window is over, begin the next one. Returns what was counted: reason → sender → number."""
        if now < self._ends:
            return {}
        with self._lock:
            counted = self._counted
            self._ends = now + WINDOW_MS
            self._refused, self._unknown, self._reads, self._counted = {}, 0, set(), {}
            return counted

    def _count(self, why: str, sender: str) -> None:
        by_sender = self._counted.setdefault(why, {})
        name = sender if sender in by_sender or len(by_sender) < NAMED else _OTHERS
        by_sender[name] = by_sender.get(name, 0) + 1
