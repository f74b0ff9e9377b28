"""Notices of the scheduler as server-sent events."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from jobcloud.messages import Publish
from jobcloud.server.api.schema import rfc3339
from jobcloud.server.api.streams import Places, opening

_MAX_RECEIVERS = 200
PING_S = 15.0
#: a sign of life for the client, and for the check of its rights
PING = ": nothing new\n\n"
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
        newest = self.newest()
        return self.id_of(newest) if newest else ""

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            self._closed = True
            self._wake()

    @property
    def closed(self) -> bool:
        return self._closed

    async def stream(
        self,
        last_id: str = "",
        recent: int = 0,
        chosen: Callable[[Publish], bool] = lambda notice: True,
        *,
        follow: bool = True,
    ) -> AsyncGenerator[str]:
        """The `chosen` events in text/event-stream format, until closed. Without `follow`, only those that are there.

        Without `last_id`, they begin with the newest `recent` ones. `chosen` is asked when an event is sent.
        """
        with self.listening() as wake:
            clock = asyncio.get_running_loop().time
            seen, said = self.start(last_id, recent, chosen), clock()
            yield opening(2_000, self.id_of(seen))
            while (fresh := self.take(seen, wake)) is not None:
                if fresh and seen:
                    self.missed += max(0, fresh[0][0] - seen - 1)
                for seen, notice in fresh:
                    if chosen(notice):
                        yield _event(self.id_of(seen), notice)
                        said = clock()
                if not follow:
                    return
                if not fresh:
                    await wait(wake, said + PING_S)
                if clock() >= said + PING_S:
                    yield PING
                    said = clock()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event for `take`, for as long as a receiver on the running event loop listens."""
        wake = asyncio.Event()
        with self._lock:
            self._receivers[wake] = asyncio.get_running_loop()
        try:
            yield wake
        finally:
            with self._lock:
                self._waiting.discard(wake)
                del self._receivers[wake]

    def take(self, seen: int, wake: asyncio.Event) -> list[tuple[int, Publish]] | None:
        """The kept notices behind the number `seen`, each with its number. None: the streams must end.

        If there are none, the next notice sets `wake`.
        """
        wake.clear()
        with self._lock:
            if self._closed:
                return None
            fresh = self._behind(seen)
            if not fresh:
                self._waiting.add(wake)
        return fresh

    def kept(self, seen: int) -> list[tuple[int, Publish]]:
        """The kept notices behind the number `seen`, each with its number."""
        with self._lock:
            return self._behind(seen)

    def _behind(self, seen: int) -> list[tuple[int, Publish]]:
        return [(number, notice) for number, notice in self._ring if number > seen]

    def newest(self) -> int:
        """The number of the newest notice; 0 if there is none."""
        ring = self._ring
        return ring[-1][0] if ring else 0

    def id_of(self, number: int) -> str:
        """The id of the event that has a notice."""
        return f"{self._boot}-{number}"

    def start(self, last_id: str, recent: int, chosen: Callable[[Publish], bool]) -> int:
        """The number of the notice behind which a stream starts. `last_id` and `recent` are those of `stream`."""
        boot, _, number = last_id.partition("-")
        if boot == self._boot and number.isascii() and number.isdigit():
            return int(number[:18])
        if not self._ring or last_id:
            return 0
        newest = (number for number, notice in reversed(self._ring) if chosen(notice))
        last = self._ring[-1][0]
        return next(itertools.islice(newest, recent - 1, None), 1) - 1 if recent else last

    def _wake(self) -> None:
        for event in self._waiting:
            if not (loop := self._receivers[event]).is_closed():
                loop.call_soon_threadsafe(event.set)
        self._waiting.clear()


async def wait(event: asyncio.Event, until: float) -> None:
    """Wait for the event, at most until an instant of the event loop's clock."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await event.wait()


def _event(identifier: str, notice: Publish) -> str:
    fields = {_camel(key): value for key, value in msgspec.structs.asdict(notice).items()}
    fields |= {"at": rfc3339(notice.at), "due": rfc3339(notice.due), "team": notice.team}
    return f"id: {identifier}\nevent: {notice.topic.value}\ndata: {json.dumps(fields)}\n\n"


def _camel(name: str) -> str:
    first, *rest = {"app": "app_name", "job": "job_name", "firing_id": "run_id"}.get(name, name).split("_")
    return first + "".join(part.capitalize() for part in rest)
