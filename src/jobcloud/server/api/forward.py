"""Requests that a standby passes on to the leader.

The guard of the standby has checked host, token, origin and size before. The standby connects only to the address that
the leader has published in the store. Bodies and answers are passed on piece by piece, so uploads and event streams
need no memory. No request is sent twice, because the standby cannot know whether the leader has carried it out.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.types import Message, Receive, Scope, Send

from jobcloud.server.api.problems import Problem
from jobcloud.server.api.streams import Places

if TYPE_CHECKING:
    import httpx

#: marks a request that a standby has passed on, so that no other standby passes it on again
HOP_HEADER = b"jobcloud-forwarded"
#: the header with the id of a request: in each answer, and from a standby to the leader
REQUEST_HEADER = b"jobcloud-request-id"
#: the key of the id in the scope of a request
REQUEST_ID = "jobcloud.request"
RETRY = {"Retry-After": "2"}
#: methods that change nothing
READS = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_FORWARDS = 200
_CONNECT_S = 3.0
# The leader may fetch a package for 10 minutes before it answers. A stream sends a sign of life every 15 s.
_SILENCE_S = 660.0
# How often the leader of a request under way is checked.
_CHECK_S = 0.25
_ADDRESS = re.compile(r"https?://[^\s/?#@]+")
# Headers for one connection (RFC 9110, section 7.6.1). Each connection gets its own.
_OF_CONNECTION = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
# The standby has checked the origin; the leader would compare it with the leader's own name. The other headers could
# tell the leader a false address of the client.
_OF_CLIENT = frozenset(
    {
        b"host", b"origin", b"expect", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip", HOP_HEADER,
        REQUEST_HEADER,
    }
)  # fmt: skip
# Headers that the standby's own server adds to each answer.
_OF_SERVER = frozenset({b"date", b"server", REQUEST_HEADER})


class Forwarder:
    """Passes requests on to the leader. For one event loop. `leader` is the URL of the leader's API, or "".

    `tls` is the context for an https URL.
    """

    def __init__(
        self, leader: Callable[[], str], tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    ) -> None:
        self._leader = leader
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._places = Places(_MAX_FORWARDS, "wait for answers of the leader")
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the leader's answer to the client. Raises Problem if there is none, or if it is cut short."""
        address = self._leader()
        if not _ADDRESS.fullmatch(address):
            detail = "This scheduler is on standby, and it knows no leader that it can reach"
            raise Problem("unavailable", f"{detail}: {address}." if address else f"{detail}.", headers=RETRY)
        self._places.take()
        exchange = _Exchange(scope, receive, send, address)
        try:
            await self._watched(exchange, exchange.run(self._open_client(address)))
        finally:
            self._places.free()

    async def _watched(self, exchange: _Exchange, work: Coroutine[Any, Any, None]) -> None:
        """Run an exchange until its end, or until the leader changes or the client leaves."""
        running, client_left = asyncio.create_task(work), asyncio.create_task(exchange.client_left())
        try:
            while not running.done():
                await asyncio.wait({running, client_left}, timeout=_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
                if client_left.done() and not running.done():
                    return
                if not running.done() and self._leader() != exchange.address:
                    raise exchange.failed("it no longer leads")
            running.result()
        finally:
            for task in (running, client_left):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def _open_client(self, address: str) -> httpx.AsyncClient:
        import httpx

        # A new client for a renewed certificate. Requests under way keep the old one.
        context = self._tls() if address.startswith("https:") else None
        if self._client is None or context is not self._context:
            # An idle connection may be closed by the leader while a request is sent. So each request has its own.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
            self._client = httpx.AsyncClient(trust_env=False, limits=limits, timeout=timeout, verify=context or True)
            self._context = context
        return self._client


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, address: str) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.address = address
        self._sent = False
        self._received = asyncio.Event()

    async def run(self, client: httpx.AsyncClient) -> None:
        """Raises Problem."""
        import httpx

        try:
            answer = await client.send(self._request(), stream=True)
            try:
                headers = _without(answer.headers.raw, _OF_SERVER)
                await self._send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
                async for piece in answer.aiter_raw():
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.failed(str(error) or type(error).__name__) from error

    async def client_left(self) -> None:
        """Returns when the client has closed the connection. The body must be received first."""
        await self._received.wait()
        while (await self._receive())["type"] != "http.disconnect":
            continue

    def failed(self, why: str) -> Problem:
        """The problem of an exchange that has no answer."""
        unsure = self._sent and self._scope["method"] not in READS
        outcome = "The request may still take effect: check before you repeat it." if unsure else "Nothing was changed."
        detail = f"The leader at {self.address} gave no answer: {why[:300]}. {outcome}"
        return Problem("unavailable", detail, headers=RETRY)

    def _request(self) -> httpx.Request:
        import httpx

        given = self._scope["headers"]
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in given
        )
        headers = _without(given, _OF_CLIENT)
        headers += [(b"host", urlsplit(self.address).netloc.encode()), (HOP_HEADER, b"1"), (b"via", b"1.1 jobcloud")]
        headers.append((REQUEST_HEADER, self._scope.get(REQUEST_ID, "").encode()))
        if not has_body:
            self._received.set()
        query = self._scope["query_string"]
        target = self._scope["raw_path"] + (b"?" + query if query else b"")
        return httpx.Request(
            self._scope["method"],
            self.address,
            headers=headers,
            content=self._body() if has_body else None,
            # The path and the query as the client sent them.
            extensions={"target": target, "trace": self._trace},
        )

    async def _body(self) -> AsyncIterator[bytes]:
        """Raises what `receive` raises, and Problem if the client has gone."""
        more = True
        while more:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Problem("unavailable", "The client has closed the connection.")
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
        self._received.set()

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        self._sent = self._sent or event == "http11.send_request_headers.started"


def _without(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers, in lower case, without `names` and without those for one connection."""
    found = [(name.lower(), value) for name, value in headers]
    listed = b",".join(value for name, value in found if name == b"connection").lower().split(b",")
    left_out = names | _OF_CONNECTION | {name.strip() for name in listed}
    return [(name, value) for name, value in found if name not in left_out]
