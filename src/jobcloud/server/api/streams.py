"""Answers that are streams of server-sent events. The listener drops a client that takes nothing.

A browser's EventSource connects again after a stream has ended, but never after an answer other than 200. So a client
that accepts event streams gets a refusal that may end as a short stream: the time to wait and the problem.

Source: HTML Standard, section 9.2 "Server-sent events" (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from jobcloud.server.api.problems import Problem

MEDIA_TYPE = "text/event-stream"
# Problems that end by themselves.
_PASSING = frozenset({"too-many", "unavailable"})
_RETRY_S = 5
_ID = re.compile(r"[!-~]{1,100}")
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


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


def refused_stream(scope: Scope, problem: Problem) -> Response | None:
    """The refusal of a stream, for a client that accepts streams; None if the status has to tell the problem.

    The event `problem` has the problem document. `retry` is the time after which the client connects again.
    """
    if problem.slug not in _PASSING or MEDIA_TYPE not in _header(scope, b"accept"):
        return None
    last_id = _header(scope, b"last-event-id")
    wait_ms = int(problem.headers.get("Retry-After", _RETRY_S)) * 1_000
    start = opening(wait_ms, last_id if _ID.fullmatch(last_id) else "")
    refusal = f"event: problem\ndata: {json.dumps(problem.document())}\n\n"
    return Response(start + refusal, media_type=MEDIA_TYPE, headers=_HEADERS | problem.headers)


def opening(retry_ms: int, last_id: str) -> str:
    """The beginning of a stream: how long a client waits before it connects again, and the id that it then sends.

    Without the id, the empty line would make the client forget the id of the stream before.
    """
    return f"retry: {retry_ms}\n" + (f"id: {last_id}\n" if last_id else "") + "\n"


def _header(scope: Scope, wanted: bytes) -> str:
    return b",".join(value for name, value in scope["headers"] if name == wanted).decode("latin-1")


class EventStream(StreamingResponse):
    """A stream that takes a place until it ends. Raises Problem if no place is free."""

    def __init__(self, events: AsyncGenerator[str], places: Places) -> None:
        super().__init__(events, media_type=MEDIA_TYPE, headers=_HEADERS)
        places.take()
        self._events, self._places = events, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.free()
            await self._events.aclose()
