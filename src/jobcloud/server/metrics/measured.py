"""Wrappers that measure what they wrap: the store, the driver, the core and the API.

Except for the core, each wrapper implements the port of what it wraps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from jobcloud.errors import Fenced, StoreFull
from jobcloud.match import Matcher
from jobcloud.messages import Acknowledge, Call, Decline, OffersReceived, Tick
from jobcloud.ports import Driver, Store, StoredRecords, StoredWrite
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.state import MakeMatcher
from jobcloud.server.metrics.tally import NO_ROUTE, Tally
from jobcloud.server.routes import ApiRoute, routes_of


class MeasuredStore:
    """A store whose writes are timed, and whose failures are counted by kind."""

    def __init__(self, store: Store, tally: Tally, clock: Callable[[], float] = time.perf_counter) -> None:
        self._store, self._tally, self._clock = store, tally, clock

    def acquire(self, floor: int = 0) -> int:
        try:
            return self._store.acquire(floor)
        except Exception as error:
            self._failed(error)
            raise

    def load(self) -> StoredRecords:
        try:
            return self._store.load()
        except Exception as error:
            self._failed(error)
            raise

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        began = self._clock()
        try:
            self._store.write(epoch, batch)
        except Exception as error:
            self._failed(error)
            raise
        finally:
            self._tally.store_writes.observe(self._clock() - began)

    def close(self) -> None:
        self._store.close()

    def _failed(self, error: Exception) -> None:
        kind = "fenced" if isinstance(error, Fenced) else "full" if isinstance(error, StoreFull) else "other"
        self._tally.store_failures[kind] += 1


class MeasuredDriver:
    """A driver whose declined offers are counted."""

    def __init__(self, driver: Driver, tally: Tally) -> None:
        self._driver, self._tally = driver, tally
        self.start, self.stop, self.teardown = driver.start, driver.stop, driver.teardown

    def send(self, call: Call | Acknowledge) -> None:
        if type(call) is Decline:
            self._tally.offers_declined += len(call.offer_ids)
        self._driver.send(call)


class MeasuredScheduler(Scheduler):
    """A core whose scheduling cycles are timed, and whose offers are counted. `tally` then counts for this core.

    This class replaces two handlers, because a wrapper around `handle` would cost time for each status update.
    """

    def __init__(
        self,
        tally: Tally,
        policy: Policy,
        stored: Stored,
        epoch: int,
        at: int,
        matcher: MakeMatcher = Matcher,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(policy, stored, epoch, at, matcher)
        self._tally, self._clock = tally, clock
        self._handle_tick, self._handle_offers = self._handlers[Tick], self._handlers[OffersReceived]
        self._handlers |= {Tick: self._time_cycle, OffersReceived: self._count_offers}
        tally.follow(self)

    def _time_cycle(self, event: Tick) -> None:
        before, began = self.cycles, self._clock()
        self._handle_tick(event)
        if self.cycles != before:
            self._tally.cycles.observe(self._clock() - began)

    def _count_offers(self, event: OffersReceived) -> None:
        self._tally.offers_received += len(event.offers)
        self._handle_offers(event)


class CountedApi:
    """An ASGI app whose answers are counted by the template of their route."""

    def __init__(self, app: FastAPI, tally: Tally) -> None:
        self.app = app
        self._tally = tally
        tally.expect_requests((route.method, route.path_format) for route in routes_of(app.routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                place = (scope["method"], route.path_format) if isinstance(route, ApiRoute) else NO_ROUTE
                self._tally.answered(place, message["status"])
            await send(message)

        await self.app(scope, receive, count)
