"""Notices of the scheduler as server-sent events."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from jobcloud.messages import Publish
from jobcloud.server.api.schema import rfc3339
from jobcloud.server.api.streams import Places, opening

_MAX_RECEIVERS = 200
_PING_SECONDS = 15.0
REMEMBERED = 2000


class Notices:
    """A sink that keeps the newest notices in a ring and wakes the receivers. Publishing never blocks.

    A slow receiver misses the notices that the ring has dropped meanwhile. A receiver that returns with the id of its
    last event continues after that event, unless the server has restarted.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        # Notices are rendered when a receiver reads them. Most are never read, and rendering each would be costly.
        self._ring: deque[tuple[int, Publish]] = deque(maxlen=size)
        self._numbers = itertools.count(1)
        self._boot = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._receivers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        #: the receivers that have read all notices and wait for the next
        self._waiting: set[asyncio.Event] = set()
        self._closed = False
        #: how many notices slow receivers have missed
        self.missed = 0
        self.places = Places(_MAX_RECEIVERS, "listen to events")

    def publish(self, notice: object) -> None:
        """Keep a notice. Other effects than `Publish` are ignored."""
        if not isinstance(notice, Publish):
            return
        with self._lock:
            self._ring.append((next(self._numbers), notice))
            if self._waiting:
                self._wake()

    def last_id(self) -> str:
        """The id of the newest notice; "" if there is none."""
        ring = self._ring
        return f"{self._boot}-{ring[-1][0]}" if ring else ""

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            self._closed = True
            self._wake()

    @property
    def closed(self) -> bool:
        return self._closed

    async def stream(self, last_id: str = "", recent: int = 0, *, follow: bool = True) -> AsyncGenerator[str]:
        """Events in text/event-stream format, until closed. Without `follow`, only those that are there.

        Without `last_id`, they begin with the newest `recent` ones.
        """
        wake = asyncio.Event()
        with self._lock:
            self._receivers[wake] = asyncio.get_running_loop()
        try:
            seen = self._start(last_id, recent)
            yield opening(2_000, f"{self._boot}-{seen}")
            while True:
                wake.clear()
                with self._lock:
                    if self._closed:
                        return
                    fresh = [(number, notice) for number, notice in self._ring if number > seen]
                    if not fresh:
                        self._waiting.add(wake)
                if fresh and seen:
                    self.missed += max(0, fresh[0][0] - seen - 1)
                for seen, notice in fresh:
                    yield _event(f"{self._boot}-{seen}", notice)
                if not follow:
                    return
                if not fresh and not await _wait(wake):
                    yield ": nothing new\n\n"
        finally:
            with self._lock:
                self._waiting.discard(wake)
                del self._receivers[wake]

    def _start(self, last_id: str, recent: int) -> int:
        boot, _, number = last_id.partition("-")
        if boot == self._boot and number.isascii() and number.isdigit():
            return int(number[:18])
        return max(0, self._ring[-1][0] - recent) if self._ring and not last_id else 0

    def _wake(self) -> None:
        for event in self._waiting:
            if not (loop := self._receivers[event]).is_closed():
                loop.call_soon_threadsafe(event.set)
        self._waiting.clear()


async def _wait(event: asyncio.Event) -> bool:
    """Wait for the event. False if the next sign of life is due first."""
    try:
        async with asyncio.timeout(_PING_SECONDS):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _event(identifier: str, notice: Publish) -> str:
    fields = {_camel(key): value for key, value in msgspec.structs.asdict(notice).items()}
    fields |= {"at": rfc3339(notice.at), "due": rfc3339(notice.due), "team": notice.team}
    return f"id: {identifier}\nevent: {notice.topic.value}\ndata: {json.dumps(fields)}\n\n"


def _camel(name: str) -> str:
    first, *rest = {"app": "app_name", "job": "job_name", "firing_id": "run_id"}.get(name, name).split("_")
    return first + "".join(part.capitalize() for part in rest)
