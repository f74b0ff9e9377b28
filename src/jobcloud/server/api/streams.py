"""Answers that are streams of server-sent events. The listener drops a client that takes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from jobcloud.server.api.problems import Problem


class Places:
    """Allows at most `limit` open streams of one kind. Used by one event loop.

    `what` ends the text "N other clients …" of the Problem.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit, self._what = limit, what
        self._taken = 0

    def check(self) -> None:
        """Raises Problem if no place is free."""
        if self._taken >= self._limit:
            raise Problem("too-many", f"{self._limit} other clients {self._what}.", headers={"Retry-After": "30"})

    def take(self) -> None:
        """Raises Problem if no place is free."""
        self.check()
        self._taken += 1

    def free(self) -> None:
        self._taken -= 1


class EventStream(StreamingResponse):
    """A stream that takes a place until it ends. Raises Problem if no place is free."""

    def __init__(self, events: AsyncGenerator[str], places: Places) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        places.take()
        self._events, self._places = events, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.free()
            await self._events.aclose()
