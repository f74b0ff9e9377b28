"""HTTP/1.1 for the dev cluster on asyncio streams: small, loopback only, with every connection at hand to be broken.

A server framework would hide what the fault knobs need: the sockets under the event streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ..wire import frame

MAX_BODY_BYTES = 32 << 20
_MAX_HEAD_BYTES = 64 << 10
_MAX_BACKLOG_BYTES = 256 << 20  # a stream whose reader is further behind than this is cut off: 500,000 updates


class BadRequestError(Exception):
    """A request that is none; answered with `status` and the connection closed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request(msgspec.Struct, frozen=True, gc=False):
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Connection:
    """One client: answers go out through it, and it can become an event stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._unwritten: list[bytes] = []
        self.streaming = False
        self.muted = False
        self._on_end: Callable[[], None] = lambda: None

    def answer(self, status: int, body: str | dict[str, Any] | bytes = "", content_type: str = "") -> None:
        if isinstance(body, dict):
            body, content_type = msgspec.json.encode(body), "application/json"
        data = body.encode() if isinstance(body, str) else body
        head = f"Content-Length: {len(data)}\r\n"
        if content_type:
            head = f"Content-Type: {content_type}\r\n{head}"
        self._write(_status_line(status) + head.encode() + b"\r\n" + data)

    def start_stream(self, stream_id: str, on_end: Callable[[], None]) -> None:
        """200 and chunks from now on (schedulers are told the stream's id); `on_end` is called when it is over."""
        self.streaming = True
        self._on_end = on_end
        named = f"Mesos-Stream-Id: {stream_id}\r\n" if stream_id else ""
        head = f"Transfer-Encoding: chunked\r\n{named}Content-Type: application/json\r\n\r\n"
        self._write(_status_line(200) + head.encode())

    def event(self, event: dict[str, Any]) -> None:
        self.raw(frame(msgspec.json.encode(event)))

    def raw(self, data: bytes) -> None:
        if not self.muted:
            self._write(b"%x\r\n%s\r\n" % (len(data), data))
            if self._writer.transport.get_write_buffer_size() > _MAX_BACKLOG_BYTES:
                self.abort()

    def finish(self) -> None:
        """End a stream as a server does: its last chunk, then the connection."""
        self._write(b"0\r\n\r\n")
        self.close()

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._unwritten.clear()
        self._writer.transport.abort()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    async def drain(self) -> None:
        self._flush()
        await self._writer.drain()

    def _write(self, data: bytes) -> None:
        """What is written in one turn of the event loop goes out together."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unwritten.append(data)

    def _flush(self) -> None:
        data, self._unwritten = b"".join(self._unwritten), []
        if data and not self._writer.is_closing():
            self._writer.write(data)

    async def next_request(self) -> Request | None:
        """The next request; None when the client has gone. Raises BadRequestError."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise BadRequestError(431, "The head of the request is too long") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        method, path, query, headers = _read_head(head)
        if headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = await self._body(headers)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return None
        return Request(method, path, query, headers, body)

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return await self._chunks()
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(400, "'Content-Length' is no number")
        if int(length) > MAX_BODY_BYTES:
            raise BadRequestError(413, f"The body is over {MAX_BODY_BYTES} bytes")
        return await self._reader.readexactly(int(length))

    async def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            line = (await self._reader.readuntil(b"\r\n")).split(b";")[0].strip()
            try:
                length = int(line, 16)
            except ValueError:
                raise BadRequestError(400, "A chunk's length is no number") from None
            if length < 0 or len(body) + length > MAX_BODY_BYTES:
                raise BadRequestError(413, f"The body is over {MAX_BODY_BYTES} bytes")
            if not length:
                while (await self._reader.readuntil(b"\r\n")) != b"\r\n":
                    pass
                return bytes(body)
            body += await self._reader.readexactly(length)
            await self._reader.readexactly(2)

    async def stream_to_its_end(self) -> None:
        """A stream's client sends nothing more: what can be read is the end."""
        try:
            with suppress(ConnectionError):
                while await self._reader.read(4096):
                    pass
        finally:
            self._on_end()


@lru_cache(maxsize=256)
def _read_head(head: bytes) -> tuple[str, str, Mapping[str, str], Mapping[str, str]]:
    """Method, path, query and headers, names in lower case. Raises BadRequestError.

    A client's heads differ in little but the length of the body, so that most have been read before.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise BadRequestError(400, "Expecting `METHOD PATH HTTP/1.1`") from None
    if not version.startswith("HTTP/1."):
        raise BadRequestError(505, "Expecting HTTP/1.1")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
    }
    try:
        url = urlsplit(target)
    except ValueError:
        raise BadRequestError(400, "The path is no URL") from None
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return method, unquote(url.path), MappingProxyType(query), MappingProxyType(headers)


Handler = Callable[[Request, Connection], Awaitable[None]]


def _status_line(status: int) -> bytes:
    return _status_line_at(status, int(time.time()))


@lru_cache(maxsize=16)
def _status_line_at(status: int, second: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\nDate: {formatdate(second, usegmt=True)}\r\n".encode()


async def _talk(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = Connection(reader, writer)
    try:
        while not connection.streaming:
            try:
                request = await connection.next_request()
            except BadRequestError as refused:
                connection.answer(refused.status, str(refused))
                break
            if request is None:
                break
            await handler(request, connection)
            if not connection.streaming and request.headers.get("connection", "").lower() == "close":
                break
        if connection.streaming:
            await connection.stream_to_its_end()
        else:
            with suppress(ConnectionError):
                await connection.drain()
    finally:
        connection.close()


async def serve(handler: Handler, port: int) -> tuple[asyncio.Server, int]:
    """A server on loopback and its port (`port` 0: a free one). Raises OSError."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # the cluster ends; asyncio would log it for each connection
            await _talk(handler, reader, writer)

    server = await asyncio.start_server(talk, "127.0.0.1", port, limit=_MAX_HEAD_BYTES, backlog=1024)
    return server, int(server.sockets[0].getsockname()[1])
