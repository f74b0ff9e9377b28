"""A listening socket and the HTTP server behind it, with limits that hold before a request reaches any route.

uvicorn limits neither connections, heads, nor the time that a client takes. `Listener` does. Other parts of the process
need descriptors too: accepting stops before the process runs out of them. With TLS, all limits hold during handshakes
too: such a connection has a place, and counts as one that waits for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import sys
import threading
import time
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio.to_thread
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jobcloud.errors import ConfigError
from jobcloud.server.api.headers import SECURITY_HEADERS, Https, SecurityHeaders
from jobcloud.server.api.problems import Problem
from jobcloud.server.networks import network_of
from jobcloud.server.tls import CERTIFICATE, ServerTls

log = structlog.get_logger(__name__)

_STOP_S = 8.0
_BACKLOG = 512
# Requests that may wait on one connection while an earlier one is answered.
_MAX_PIPELINED = 16
# A parser gets this many bytes at a time, so that a head is measured before all of it is parsed.
_PIECE = 1 << 14
# Slow clients are dropped if the unsent bytes of all answers together exceed this.
_MAX_UNSENT = 256 << 20
# If a connection has fewer unsent bytes than this, they do not count: a thousand such connections stay below the limit.
_LARGE = 1 << 18
# Descriptors kept for Mesos, ZooKeeper, SQLite, reads from agents, uploads and the check of packages.
_RESERVED = 256
_RETRY_S = 0.5
# The type of the first record of TLS (RFC 8446, section 5.1). No request in plain HTTP begins with this byte.
_HANDSHAKE = 22
# The time between two handshakes. One takes about 1 ms of the thread that also answers requests, so many at once must
# not delay these requests.
_PACE_S = 0.002
_HTTPS = Https()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one listener.

    `head_seconds` limits a handshake of TLS, the arrival of a head, and of a body that nobody reads. `stall_seconds`:
    a client that accepts no data of an answer for this long is dropped. `descriptors`: a connection with a descriptor
    of this number or above is refused, unless it can replace a connection that waits for a request. `threads`: the
    number of threads that run the blocking code of the app.
    """

    connections: int = 1_000
    per_address: int = 400
    head_bytes: int = 32 << 10
    head_seconds: float = 10.0
    stall_seconds: float = 30.0
    descriptors: int = 1 << 20
    threads: int = 4


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE to the hard limit. Returns the number of descriptors that connections may use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    soft = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    return soft - min(_RESERVED, soft // 2)


def _nobody(_: socket.socket) -> None:
    pass


def listen(host: str, port: int, key: str, announce: Callable[[socket.socket], None] = _nobody) -> socket.socket:
    """A socket that listens on an address. `announce` is called with the bound socket before it listens.

    Raises ConfigError, for the setting `key`, if this is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host.strip("[]"), port))
        announce(bound)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        problem = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise ConfigError(
            problem, field=key, fix="stop the process that listens there, or choose another port"
        ) from error
    # Connections inherit this. Otherwise the body of an answer would wait 40 ms until the client acknowledges the head.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


class Listener:
    """Serves an ASGI app on a listening socket, in a thread of its own. At the end, it closes the socket.

    With `tls`, all requests must be https.
    """

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        limits: Limits = Limits(),
        tls: ServerTls | None = None,
        https: Https = _HTTPS,
    ) -> None:
        config = uvicorn.Config(
            SecurityHeaders(app, https), ws="none", log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=2, server_header=False,
        )  # fmt: skip
        self._server = _Server(config, limits, tls)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_S)


class _Server(uvicorn.Server):
    """Accepts connections itself, one at a time, so that it can stop accepting.

    While there is no room, a new connection takes the place of the one that has waited longest without a request. If
    every connection has a request, the new one waits for room.
    """

    def __init__(self, config: uvicorn.Config, limits: Limits, tls: ServerTls | None) -> None:
        super().__init__(config)
        self._limits = limits
        self._tls = tls
        self._room = _Room(limits)
        self._accepting: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        await self.lifespan.startup()
        anyio.to_thread.current_default_thread_limiter().total_tokens = self._limits.threads
        self.servers = []
        self._accepting = asyncio.create_task(self._accept(sockets[0]))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        assert self._accepting is not None
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._room.end_handshakes()
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
                await self._admit(loop, sock, address[0])
            except Exception as error:
                # The client has gone, or descriptors have run out. Accepting must continue.
                log.warning("cannot accept a connection", problem=str(error), exc_info=not isinstance(error, OSError))
                await asyncio.sleep(_RETRY_S)

    async def _admit(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: str) -> None:
        if self._room.crowded(address):
            log.warning("connection refused: too many from one address", client=address)
            self._refuse(sock, "too-many")
            await asyncio.sleep(0)
        # A new descriptor has the lowest free number, so all numbers below it are in use.
        elif sock.fileno() >= self._limits.descriptors and not self._room.drop_idle():
            log.warning("connection refused: too few descriptors are left", client=address)
            self._refuse(sock, "unavailable")
            await asyncio.sleep(_RETRY_S)
        else:
            try:
                await self._room.wait()
            except asyncio.CancelledError:
                sock.close()
                raise
            await loop.connect_accepted_socket(lambda: self._protocol(loop, address), sock)
            if self._tls is not None:
                await asyncio.sleep(_PACE_S)

    def _protocol(self, loop: asyncio.AbstractEventLoop, address: str) -> _Protocol | _Tls:
        state = self.lifespan.state
        connection = _Protocol(self.config, self.server_state, state, loop, self._limits, self._room, address)
        if self._tls is None:
            return connection
        return _Tls(connection, self._tls.context(), loop, self._limits, self._room, address)

    def _refuse(self, sock: socket.socket, slug: str) -> None:
        """Answer before any request, without waiting, and close the connection. With TLS, there can be no answer."""
        if self._tls is None:
            with contextlib.suppress(OSError):
                sock.setblocking(False)
                problem = Problem(slug, "This server has too many connections.", headers={"Retry-After": "5"})
                sock.send(_answer(problem))
                sock.shutdown(socket.SHUT_WR)
        sock.close()


class _Room:
    """The open connections of a listener, and which of them wait for a request."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[_Protocol | _Tls, str] = {}
        self._by_network: Counter[str] = Counter()
        # Connections that wait for a request or for the end of a handshake, the longest waiting first.
        self._idle: dict[_Protocol | _Tls, None] = {}
        # Connections whose clients do not take their answers, the longest stalled first.
        self._stalled: dict[_Protocol, None] = {}
        self._changed = asyncio.Event()

    async def wait(self) -> None:
        """Wait until there is room. To make room, drop the connection that has waited longest without a request."""
        while len(self._open) >= self._limits.connections:
            self._changed.clear()
            self.drop_idle()
            await self._changed.wait()

    def drop_idle(self) -> bool:
        """Drop the connection that has waited longest without a request. False if none waits."""
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        del self._idle[oldest]
        oldest.abort()
        return True

    def end_handshakes(self) -> None:
        """Drop all connections whose handshake is under way."""
        for connection in list(self._open):
            if isinstance(connection, _Tls):
                connection.abort()

    def crowded(self, address: str) -> bool:
        return self._by_network[network_of(address)] >= self._limits.per_address

    def has(self, connection: _Protocol | _Tls) -> bool:
        return connection in self._open

    def enter(self, connection: _Protocol | _Tls, address: str) -> None:
        network = network_of(address)
        self._open[connection] = network
        self._by_network[network] += 1
        self._idle[connection] = None

    def leave(self, connection: _Protocol | _Tls) -> None:
        network = self._open.pop(connection)
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
        self._idle.pop(connection, None)
        if isinstance(connection, _Protocol):
            self._stalled.pop(connection, None)
        self._changed.set()

    def set_idle(self, connection: _Protocol, idle: bool) -> None:
        self._idle.pop(connection, None)
        if idle and connection in self._open:
            self._idle[connection] = None
            self._changed.set()

    def set_stalled(self, connection: _Protocol, stalled: bool) -> None:
        """Note whether a connection has stalled. If too many bytes are unsent, drop the longest stalled connections."""
        self._stalled.pop(connection, None)
        if not stalled or connection.unsent() < _LARGE:
            return
        self._stalled[connection] = None
        unsent = {one: one.unsent() for one in self._stalled}
        total = sum(unsent.values())
        for oldest, size in unsent.items():
            if total <= _MAX_UNSENT:
                return
            total -= size
            oldest.drop("too many unsent bytes")


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits for the size of heads and for the time that a client takes."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: Any,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        room: _Room,
        address: str,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._limits, self._room, self._address = limits, room, address
        #: the layer below, if the connection has TLS
        self.tls: _Tls | None = None
        self._certificate: bytes | None = None
        # Counts bytes of heads, trailers and chunk extensions. Reset when a body grows and when a request is complete.
        self._idle_bytes = 0
        self._in_head = True
        # Limits the arrival of a head, or of the rest of a body whose answer is already sent.
        self._arrival: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # Callbacks of asyncio.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.tls is not None:
            self._room.leave(self.tls)
            self._certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            # The app waits for the connection below TLS, whose buffer has all encrypted bytes.
            transport.set_write_buffer_limits(sys.maxsize)
        self._room.enter(self, self._address)
        self._expect_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel(self._arrival, self._stall)
        self._room.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._arrival is None and self._in_head and not self.pipeline:
            self._expect_arrival()
        for start in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE]
            self._idle_bytes += len(piece)
            super().data_received(piece)
            if self._idle_bytes > self._limits.head_bytes:
                self._give_up("head-too-large", f"The head is longer than {self._limits.head_bytes} bytes.")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._room.set_stalled(self, True)
        self._watch_progress(self.unsent())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._room.set_stalled(self, False)
        self._cancel(self._stall)
        self._stall = None

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._certificate is not None:
            self.scope[CERTIFICATE] = self._certificate  # type: ignore[literal-required]
        self._in_head = True
        # `data_received` counts a piece before the parser gets it. If the piece also contains the end of the previous
        # request, this end has reset the count. The count must be above 0, because a head has begun.
        self._idle_bytes = max(self._idle_bytes, 1)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self._arrived()
        self._room.set_idle(self, False)
        if len(self.pipeline) > _MAX_PIPELINED:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._idle_bytes, self._in_head = 0, True
        self._arrived()

    # Callbacks of uvicorn.

    def on_response_complete(self) -> None:
        more = bool(self.pipeline)
        super().on_response_complete()
        if more:
            return
        self._room.set_idle(self, True)
        if not self._in_head:
            # The client still sends a body that nobody reads.
            self._unset_keepalive_if_required()
        if not self._in_head or self._idle_bytes:
            self._expect_arrival()

    def send_400_response(self, msg: str) -> None:
        self._give_up("bad-request", "The request is not valid HTTP.")

    # Limits.

    def abort(self) -> None:
        self.transport.abort()

    def unsent(self) -> int:
        """The bytes of answers that the client has not taken yet."""
        below = self.tls.wire.get_write_buffer_size() if self.tls is not None else 0
        return self.transport.get_write_buffer_size() + below

    def drop(self, reason: str) -> None:
        log.warning("client dropped", client=self._address, problem=reason)
        self.transport.abort()

    def _expect_arrival(self) -> None:
        self._arrived()
        self._arrival = self.loop.call_later(self._limits.head_seconds, self._late)

    def _arrived(self) -> None:
        self._cancel(self._arrival)
        self._arrival = None

    def _late(self) -> None:
        self._arrival = None
        if self._answering():
            return  # the time of the next head begins after this answer
        if self._in_head and self._idle_bytes:
            self._give_up("timeout", f"The head took longer than {self._limits.head_seconds:g} s.")
        else:
            self.transport.close()

    def _give_up(self, slug: str, detail: str) -> None:
        """Answer with a problem, if no other answer is under way, and close the connection."""
        if not self._answering():
            self.transport.write(_answer(Problem(slug, detail)))
        self.transport.close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_progress(self, unsent: int) -> None:
        self._cancel(self._stall)
        self._stall = self.loop.call_later(self._limits.stall_seconds, self._check_progress, unsent)

    def _check_progress(self, before: int) -> None:
        unsent = self.unsent()
        if unsent < before:
            self._watch_progress(unsent)
        else:
            self.drop(f"took no data for {self._limits.stall_seconds:g} s")

    def _cancel(self, *timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


class _Tls(SSLProtocol):
    """The TLS of a connection, below its `_Protocol`. It holds the place of the connection until the handshake ends."""

    # asyncio allocates a buffer of this size for each connection, by default 256 KiB. Records have at most 16 KiB.
    max_size = 1 << 15

    def __init__(
        self,
        connection: _Protocol,
        context: ssl.SSLContext,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        room: _Room,
        address: str,
    ) -> None:
        super().__init__(
            loop,
            connection,
            context,
            None,  # type: ignore[arg-type] # nobody waits for the end of the handshake
            server_side=True,
            ssl_handshake_timeout=limits.head_seconds,  # type: ignore[arg-type] # need not be whole
            # How long the client may take the rest of its last answer, and then end TLS.
            ssl_shutdown_timeout=limits.stall_seconds,
        )
        connection.tls = self
        self._connection, self._room, self._address = connection, room, address
        self._buffer = memoryview(b"")
        self._begun = self._full = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        #: the connection that carries the records
        self.wire = transport
        self._room.enter(self, self._address)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._room.has(self):
            self._room.leave(self)
            if exc is not None:
                log.info("TLS handshake failed", client=self._address, problem=str(exc)[:200])
        super().connection_lost(exc)

    def get_buffer(self, n: int) -> memoryview:
        self._buffer = super().get_buffer(n)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._begun and self._buffer[0] != _HANDSHAKE:
            self.wire.write(_answer(Problem("bad-request", "This port needs TLS: the URL must begin with https://.")))
            self.wire.close()
            return
        self._begun = True
        super().buffer_updated(nbytes)

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        # asyncio would close the connection without the alert that tells the client the reason.
        if handshake_exc is not None:
            self._process_outgoing()  # type: ignore[attr-defined] # missing in typeshed
        super()._on_handshake_complete(handshake_exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = True
        if not self._room.has(self):
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        super().resume_writing()  # sends what waits, and may pause again
        if not self._full and not self._room.has(self):
            self._connection.resume_writing()

    def abort(self) -> None:
        self.wire.abort()


def _answer(problem: Problem) -> bytes:
    response = problem.response()
    response.headers["Connection"] = "close"
    response.headers["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    headers = (*response.raw_headers, *SECURITY_HEADERS)
    head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    status = HTTPStatus(problem.status)
    return f"HTTP/1.1 {status} {status.phrase}\r\n".encode() + head + b"\r\n" + bytes(response.body)
