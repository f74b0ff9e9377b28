"""Copy one stream of an attempt from its agent, within limits of bytes in total and per second."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from jobcloud.archive.form import Stream

#: (offset, limit) → (data, its offset, size of the stream), as OutputReader.read
Read: TypeAlias = Callable[[int, int], tuple[bytes, int, int]]
_STEP_BYTES = 1 << 20


class Throttle:
    """At most about `rate` bytes a second, over all threads that share it."""

    def __init__(self, rate: int, monotonic: Callable[[], float], wait: Callable[[float], object]) -> None:
        self._rate, self._monotonic, self._wait = rate, monotonic, wait
        self._lock = threading.Lock()
        self._free_at = 0.0

    def spend(self, count: int) -> None:
        """Count `count` bytes that were read. Waits until the bytes counted before fit the rate."""
        with self._lock:
            now = self._monotonic()
            delay = max(0.0, self._free_at - now)
            self._free_at = max(now, self._free_at) + count / self._rate
        if delay:
            self._wait(delay)


def copy_stream(read: Read, limit: int) -> Stream:
    """Copy at most `limit` bytes of a stream that no longer grows. Of a longer stream, beginning and end are copied."""
    head = limit // 2
    data, first, size = read(0, min(_STEP_BYTES, head))
    ranges = [(first, size)] if size - first <= limit else [(first, first + head), (size - limit + head, size)]
    pieces: list[tuple[int, bytes]] = []
    for start, end in ranges:
        kept = bytearray(data[: end - start])
        data = b""
        while start + len(kept) < end:
            place = start + len(kept)
            more, at, _ = read(place, min(_STEP_BYTES, end - place))
            if not more or at != place:
                break  # the agent has removed the file meanwhile
            kept += more[: end - place]
        if kept:
            pieces.append((start, bytes(kept)))
    return Stream(size, tuple(pieces))
