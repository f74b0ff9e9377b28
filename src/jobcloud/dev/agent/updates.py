"""Status updates on their way to the scheduler.

The updates of a task are sent one after another. Each is sent again until it is acknowledged.
Source: src/slave/task_status_update_manager.cpp of Mesos 1.11.0.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import msgspec

from ..protocol import TERMINAL, Json
from .records import Key


class _Stream(msgspec.Struct):
    """The updates of one task.

    The first pending update has been sent. The others wait until the first one is acknowledged.
    """

    key: Key
    pending: list[Json] = msgspec.field(default_factory=list)
    received: set[str] = msgspec.field(default_factory=set)
    retry_at: int = 0
    interval: int = 0


class StatusUpdates:
    """`send(key, status, newest)` sends an update; `newest` is the state of the last pending update of the task."""

    def __init__(self, retry_ms: int, retry_max_ms: int, send: Callable[[Key, Json, str], None]) -> None:
        self._retry_ms, self._retry_max_ms = retry_ms, retry_max_ms
        self._send_update = send
        self._streams: dict[Key, _Stream] = {}
        self._retries: list[tuple[int, int, Key, str]] = []  # (due, sequence, key, uuid)
        self._sequence = 0

    def add(self, key: Key, status: Json, at_ms: int, apply: Callable[[Key, Json], None]) -> None:
        """Keep an update and call `apply(key, status)`. An update that was received before is ignored.

        The update is sent at once if no other update of the task is pending.
        """
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream(key)
        if status["uuid"] in stream.received:
            return
        stream.received.add(status["uuid"])
        apply(key, status)
        stream.pending.append(status)
        if len(stream.pending) == 1:
            self._send(stream, self._retry_ms, at_ms)

    def acknowledge(self, key: Key, uuid: str, at_ms: int) -> bool:
        """Drop the acknowledged update and send the next one. Returns whether the dropped update was terminal."""
        stream = self._streams.get(key)
        if stream is None or not stream.pending or stream.pending[0]["uuid"] != uuid:
            return False  # the acknowledgement is late or repeated, or an earlier task had the same id
        first = stream.pending.pop(0)
        if first["state"] in TERMINAL:
            del self._streams[key]
            return True
        if stream.pending:
            self._send(stream, self._retry_ms, at_ms)
        return False

    def send_all(self, at_ms: int) -> None:
        """Send the first pending update of each task again: the master or the scheduler may have missed it."""
        for stream in self._streams.values():
            if stream.pending:
                self._send(stream, self._retry_ms, at_ms)

    def first_pending(self, key: Key) -> Json | None:
        stream = self._streams.get(key)
        return stream.pending[0] if stream and stream.pending else None

    def drop_framework(self, framework_id: str) -> None:
        for key in [key for key in self._streams if key[0] == framework_id]:
            del self._streams[key]

    def has_framework(self, framework_id: str) -> bool:
        return any(key[0] == framework_id for key in self._streams)

    def next_retry(self) -> int | None:
        """The time of the next retry; None if no sent update waits for its acknowledgement."""
        retries = self._retries
        # Drop the retries of acknowledged updates. Most updates are acknowledged long before their retry.
        while retries and not self._is_sent(retries[0][2], retries[0][3]):
            heapq.heappop(retries)
        return retries[0][0] if retries else None

    def retry_first(self, at_ms: int, connected: bool) -> None:
        """Take the first retry. If its update is still not acknowledged, send the update and double the interval.

        Without a connection, the update waits for `send_all`.
        """
        _due, _sequence, key, uuid = heapq.heappop(self._retries)
        if connected and self._is_sent(key, uuid) and self._streams[key].retry_at <= at_ms:
            stream = self._streams[key]
            self._send(stream, min(stream.interval * 2, self._retry_max_ms), at_ms)

    def _send(self, stream: _Stream, interval: int, at_ms: int) -> None:
        first = stream.pending[0]
        self._send_update(stream.key, first, stream.pending[-1]["state"])
        stream.retry_at, stream.interval = at_ms + interval, interval
        self._sequence += 1
        heapq.heappush(self._retries, (stream.retry_at, self._sequence, stream.key, first["uuid"]))

    def _is_sent(self, key: Key, uuid: str) -> bool:
        """Whether an update has been sent and waits for its acknowledgement."""
        stream = self._streams.get(key)
        return stream is not None and bool(stream.pending) and stream.pending[0]["uuid"] == uuid
