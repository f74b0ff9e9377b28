"""The ended attempts whose logs wait to be archived. Any thread may use it."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from jobcloud.archive.names import Ended


@dataclass(slots=True, eq=False)
class Waiting:
    """An attempt that waits. `since` is on the clock of the backlog. `restored`: it ended under an earlier leader."""

    ended: Ended
    since: float
    restored: bool = False


@dataclass(order=True, slots=True)
class _Deferred:
    due: float
    number: int
    waiting: Waiting = field(compare=False)


class Backlog:
    """At most `limit` attempts, in the order of their arrival. An attempt that is being copied still counts."""

    def __init__(self, limit: int, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._known: dict[str, Waiting] = {}
        self._ready: deque[Waiting] = deque()
        self._deferred: list[_Deferred] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, place: str) -> bool:
        return place in self._known

    def offer(self, ended: Ended, *, restored: bool = False) -> bool:
        """Add an attempt, unless it is there already. False if there is no room for it."""
        place = ended.place
        with self._changed:
            if place in self._known:
                return True
            if len(self._known) >= self._limit:
                return False
            waiting = self._known[place] = Waiting(ended, self._monotonic(), restored)
            self._ready.append(waiting)
            self._changed.notify()
            return True

    def take(self, timeout: float) -> Waiting | None:
        """The next attempt, or None after `timeout` seconds. The caller then calls `defer` or `done`."""
        with self._changed:
            if not self._ready and not self._due():
                self._changed.wait(timeout)
                self._due()
            return self._ready.popleft() if self._ready else None

    def defer(self, waiting: Waiting, seconds: float) -> None:
        """Put an attempt back, to be taken again after some time."""
        with self._changed:
            self._number += 1
            heapq.heappush(self._deferred, _Deferred(self._monotonic() + seconds, self._number, waiting))

    def done(self, waiting: Waiting) -> None:
        with self._changed:
            self._known.pop(waiting.ended.place, None)

    def oldest_ms(self) -> int | None:
        """The earliest end of an attempt that waits; None if none waits."""
        with self._changed:
            return min((waiting.ended.ended_ms for waiting in self._known.values()), default=None)

    def wake(self) -> None:
        """Let all threads return from `take`."""
        with self._changed:
            self._changed.notify_all()

    def _due(self) -> bool:
        now = self._monotonic()
        while self._deferred and self._deferred[0].due <= now:
            self._ready.append(heapq.heappop(self._deferred).waiting)
        return bool(self._ready)
