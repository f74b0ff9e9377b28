"""A small HTTP/1.1 server as an asyncio protocol, on loopback only.

Pages of other sites cannot use the server: the Host of a request must be a loopback name, and the Origin of a call must
be this server or absent. Fault injection needs the sockets under the event streams. A server framework would hide these
sockets. Pipelined requests are read and answered together, in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from httptools import HttpParserCallbackError, HttpParserError, HttpRequestParser

from ..wire import frame

MAX_BODY_BYTES = 32 << 20
_MAX_HEAD_BYTES = 64 << 10
_LONG_BODY, _LONG_HEAD = f"The body is over {MAX_BODY_BYTES} bytes", "The head of the request is too long"
_encode = msgspec.json.Encoder().encode
_MAX_BACKLOG_BYTES = 256 << 20  # a stream with more unread bytes (500,000 updates) is cut off


class BadRequestError(Exception):
    """An invalid request. It is answered with `status`, then the connection is closed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of a request. `waits`: the client sends the body only after the answer "100 Continue"."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    waits: bool


class Request(msgspec.Struct, frozen=True, gc=False):
    head: Head
    body: bytes
    last: bool  # the connection is to be closed after the answer


class RequestReader:
    """Parses requests from received data, which may be cut at any byte."""

    def __init__(self) -> None:
        self._target, self._body = b"", bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._head: Head
        self._idle = 0  # bytes received since a body grew or a request was complete
        self._client_waits = False
        self._found: deque[Request] = deque()
        self._refused: BadRequestError | None = None
        self.on_header = self._headers.__setitem__
        self._parser = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        if self._refused is not None:
            return
        self._idle += len(data)
        try:
            self._parser.feed_data(data)
            if self._idle > _MAX_HEAD_BYTES:
                self._refused = BadRequestError(431, _LONG_HEAD)
        except HttpParserCallbackError as error:
            if not isinstance(error.__context__, BadRequestError):
                raise
            self._refused = error.__context__
        except HttpParserError as error:
            self._refused = BadRequestError(400, str(error))

    def take_pause(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends a body. Returns True at most once a request."""
        waits, self._client_waits = self._client_waits, False
        return waits

    def next(self) -> Request | None:
        """The next complete request, or None. Raises BadRequestError if it is invalid; data after it is not read."""
        if self._found:
            return self._found.popleft()
        if self._refused is not None:
            raise self._refused
        return None

    # Callbacks of httptools.

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():  # httptools would skip the body
            raise BadRequestError(501, "Expecting HTTP/1.1 and no 'Upgrade'")
        version, headers = parser.get_http_version(), tuple(self._headers.items())
        self._head = _read_head(parser.get_method(), self._target, version, headers)
        self._client_waits = self._head.waits

    def on_body(self, piece: bytes) -> None:
        self._idle = 0
        if len(self._body) + len(piece) > MAX_BODY_BYTES:
            raise BadRequestError(413, _LONG_BODY)
        self._body += piece

    def on_message_complete(self) -> None:
        self._found.append(Request(self._head, bytes(self._body), not self._parser.should_keep_alive()))
        self._idle, self._target, self._client_waits = 0, b"", False
        self._headers.clear()
        self._body.clear()


class Connection(asyncio.Protocol):
    """One client connection: requests and answers, until a SUBSCRIBE turns it into an event stream."""

    def __init__(self, handler: Handler, others: set[Connection]) -> None:
        self._handler, self._others = handler, others
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._reader = RequestReader()
        self._pending: asyncio.Task[None] | None = None  # a request handled in a task; later requests wait
        self._ended = False  # no further request is read
        self._unwritten: list[bytes] = []
        self.streaming = False
        self.muted = False
        self._on_end: Callable[[], None] = lambda: None

    # ---- callbacks of asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._others.add(self)

    def data_received(self, data: bytes) -> None:
        if not (self.streaming or self._ended):
            self._reader.feed(data)
            self._handle_requests()

    def eof_received(self) -> bool:
        """Close the connection. If a request is being handled, it is answered first."""
        self._ended = True
        if self._pending is None:
            self.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        self._ended = True
        self._unwritten.clear()
        if self.streaming:
            self._on_end()

    # ---- requests --------------------------------------------------------------------------------------------

    def _handle_requests(self) -> None:
        while self._pending is None and not (self.streaming or self._ended):
            try:
                request = self._reader.next()
                if request is not None:
                    headers = request.head.headers
                    _check_source(request.head.method, headers.get("host", ""), headers.get("origin"))
            except BadRequestError as refused:
                self.answer(refused.status, str(refused))
                self.close()
                return
            if request is None:
                if self._reader.take_pause():
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            slow = self._handler(request, self)
            if slow is None:
                if request.last and not self.streaming:
                    self.close()
            else:
                self._transport.pause_reading()
                self._pending = self._loop.create_task(self._finish(slow, request))

    async def _finish(self, slow: Coroutine[Any, Any, None], request: Request) -> None:
        try:
            await slow
        except BaseException:
            self.abort()
            raise
        self._pending = None
        if self._ended or request.last:
            self.close()
            return
        self._transport.resume_reading()
        self._handle_requests()

    # ---- answers and events ----------------------------------------------------------------------------------

    def answer(self, status: int, body: str | dict[str, Any] | bytes = "", content_type: str = "") -> None:
        if body == "":
            self._write(_empty_answer_at(status, int(time.time())))
            return
        if isinstance(body, dict):
            body, content_type = _encode(body), "application/json"
        data = body.encode() if isinstance(body, str) else body
        head = f"Content-Length: {len(data)}\r\n"
        if content_type:
            head = f"Content-Type: {content_type}\r\n{head}"
        self._write(_status_line(status) + head.encode() + b"\r\n" + data)

    def redirect(self, location: str) -> None:
        self._write(_status_line(307) + f"Location: {location}\r\nContent-Length: 0\r\n\r\n".encode())

    def start_stream(self, stream_id: str, on_end: Callable[[], None]) -> None:
        """Answer 200 and begin a chunked body; `on_end` is called when the connection is lost."""
        self.streaming = True
        self._on_end = on_end
        named = f"Mesos-Stream-Id: {stream_id}\r\n" if stream_id else ""
        head = f"Transfer-Encoding: chunked\r\n{named}Content-Type: application/json\r\n\r\n"
        self._write(_status_line(200) + head.encode())

    def send_event(self, event: dict[str, Any]) -> None:
        self.send_chunk(frame(_encode(event)))

    def send_chunk(self, data: bytes) -> None:
        if not self.muted:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def finish(self) -> None:
        """Send the last chunk, then close the connection."""
        self._write(b"0\r\n\r\n")
        self.close()

    def abort(self) -> None:
        """Reset the connection; unsent data is lost."""
        self._unwritten.clear()
        self._transport.abort()

    def close(self) -> None:
        self._ended = True
        self._flush()
        self._transport.close()

    def _write(self, data: bytes) -> None:
        """Buffer data. Writes within one turn of the event loop are sent together."""
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(data)

    def _flush(self) -> None:
        data, self._unwritten = b"".join(self._unwritten), []
        if data and not self._transport.is_closing():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > _MAX_BACKLOG_BYTES:
                self.abort()


Handler = Callable[[Request, Connection], "Coroutine[Any, Any, None] | None"]
"""A function that answers a request before it returns, or returns a coroutine that answers the request."""


@lru_cache(maxsize=256)
def _read_head(method: bytes, target: bytes, version: str, headers: tuple[tuple[bytes, bytes], ...]) -> Head:
    """Parse a head. Raises BadRequestError.

    The results are cached, because the heads of one client differ only in the length of the body.
    """
    if not version.startswith("1."):
        raise BadRequestError(505, "Expecting HTTP/1.1")
    if len(target) + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers) > _MAX_HEAD_BYTES:
        raise BadRequestError(431, _LONG_HEAD)
    named = {name.decode().lower(): value.decode("latin-1").strip() for name, value in headers}
    if int(named.get("content-length", "0")) > MAX_BODY_BYTES:
        raise BadRequestError(413, _LONG_BODY)
    try:
        url = urlsplit(target.decode())
    except ValueError:
        raise BadRequestError(400, "The path is not a valid URL") from None
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    waits = named.get("expect", "").lower() == "100-continue"
    return Head(method.decode(), unquote(url.path), MappingProxyType(query), MappingProxyType(named), waits)


@lru_cache(maxsize=256)
def _check_source(method: str, host: str, origin: str | None) -> None:
    """Refuse host names of other sites, which may resolve to this server, and calls from pages of other sites.

    Raises BadRequestError.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() not in ("localhost", "127.0.0.1", "::1"):
        raise BadRequestError(421, "Expecting 'Host' to be a loopback address")
    if method not in ("GET", "HEAD") and origin is not None and origin.lower() != f"http://{host.lower()}":
        raise BadRequestError(403, "Calls from pages of other origins are refused")


def _status_line(status: int) -> bytes:
    return _status_line_at(status, int(time.time()))


@lru_cache(maxsize=16)
def _status_line_at(status: int, second: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\nDate: {formatdate(second, usegmt=True)}\r\n".encode()


@lru_cache(maxsize=16)
def _empty_answer_at(status: int, second: int) -> bytes:
    return _status_line_at(status, second) + b"Content-Length: 0\r\n\r\n"


class Listener:
    """A listening socket on loopback, and its connections."""

    def __init__(self, server: asyncio.Server, connections: set[Connection]) -> None:
        self._server, self._connections = server, connections

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Refuse new connections; open ones stay."""
        self._server.close()

    def stop(self) -> None:
        """Close the listener and reset all connections."""
        self.close()
        for connection in list(self._connections):
            connection.abort()


async def serve(handler: Handler, port: int) -> Listener:
    """Listen on loopback; `port` 0 takes a free port. Raises OSError."""
    connections: set[Connection] = set()
    made = asyncio.get_running_loop().create_server(
        lambda: Connection(handler, connections), "127.0.0.1", port, backlog=1024
    )
    return Listener(await made, connections)
