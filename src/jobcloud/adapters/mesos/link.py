"""HTTP to one Mesos master: the event stream of a subscription, and the connection for its calls.

The module uses blocking sockets with timeouts. CPython waits on them with poll(), which has no limit on descriptor
numbers.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import NamedTuple
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from jobcloud.adapters.mesos.wire import bracketed
from jobcloud.errors import NotConnected
from jobcloud.wire import RecordReader

PATH = "/api/v1/scheduler"
DEFAULT_PORT = 5050
_PIECE = 1 << 18
# If this many bytes of an incomplete record have come, the stream counts as alive. Fewer bytes do not count: if a
# record length is wrong, heartbeats look like parts of one long record, and the stream would never time out.
_ALIVE_BYTES = 1 << 20
_MAX_BODY = 1 << 16
_MAX_REASON = 1000
# If calls with this many bytes wait, no further call is encoded before some of them are sent.
_MAX_WAITING_BYTES = 8 << 20
# How long calls in flight may wait for their answers after the stream has ended.
_LAST_ANSWER_S = 1.0


class CallFailed(Exception):
    """A call was refused or lost. `certain`: it had no effect. `too_large`: it was refused for its size."""

    def __init__(self, reason: str, *, certain: bool, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certain = certain
        self.too_large = too_large


class CallUnanswered(CallFailed):
    """A call was not answered in time."""


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `host`, `host:port`, `[v6]:port` or a URL with one of them. Raises ValueError."""
        netloc = urlsplit(text if "//" in text else "//" + text).netloc
        if not netloc or "@" in netloc or (netloc.count(":") > 1 and not netloc.startswith("[")):
            raise ValueError(f"{text[:200]!r} is not HOST:PORT (IPv6 addresses need brackets)")
        parts = urlsplit("//" + netloc)
        if not parts.hostname or parts.port == 0:
            raise ValueError(f"{text[:200]!r} is not HOST:PORT")
        return cls(parts.hostname, parts.port or DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class Dialer:
    """How to connect to masters. `context`: for TLS; it must check host names. `timeout_s` limits each step.

    `heard` gets the time of a master (ms) with the answer to each SUBSCRIBE.
    """

    context: ssl.SSLContext | None = None
    authorization: str = ""
    timeout_s: float = 15.0
    heard: Callable[[int], object] = bool

    def connection(self, address: Address) -> http.client.HTTPConnection:
        """A new connection, not yet open."""
        if self.context is None:
            return http.client.HTTPConnection(address.host, address.port, timeout=self.timeout_s)
        return http.client.HTTPSConnection(address.host, address.port, timeout=self.timeout_s, context=self.context)

    def headers(self) -> dict[str, str]:
        """The headers of every request, as a new dict each time: drivers must not share one."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        return headers


class CallLine:
    """The keep-alive connection for the calls of one session. Calls are sent in order, several in flight at a time.

    HTTP/1.1 pipelining (RFC 9112, 9.3.2): answers arrive in the order of the calls. Until a connection has stayed open
    after an answer, it carries one call at a time. `add` and `exchange` must be called by one thread.
    """

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._address = address
        self._dialer = dialer
        # Held while calls are in flight.
        self._busy = threading.Lock()
        self._closed = False
        self._connection: http.client.HTTPConnection | None = None
        self._answers = _Answers()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._in_flight = 0
        self._head = b""

    def add(self, call: bytes, stream_id: str) -> None:
        """Add a call for the next `exchange`. Raises CallFailed if the connection is closed."""
        if self._closed:
            raise CallFailed("not connected", certain=True)
        if not self._head:
            named = {"Host": str(self._address), "Mesos-Stream-Id": stream_id, **self._dialer.headers()}
            lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
            self._head = f"POST {PATH} HTTP/1.1\r\n{lines}Content-Length: ".encode("latin-1")
        self._waiting.append(b"%s%d\r\n\r\n%s" % (self._head, len(call), call))
        self._waiting_bytes += len(self._waiting[-1])

    @property
    def full(self) -> bool:
        """Whether the calls that were added and not sent take _MAX_WAITING_BYTES or more."""
        return self._waiting_bytes >= _MAX_WAITING_BYTES

    def exchange(self) -> list[CallFailed | None]:
        """Send the added calls and wait for an answer. Returns outcomes of the oldest calls, at least one, in order.

        An outcome is None for an accepted call.
        """
        if not self._in_flight:
            self._busy.acquire()
        try:
            outcomes: list[CallFailed | None] = []
            unsent = self._write()
            while self._in_flight and (unsent or not outcomes):
                outcomes += self._read()
            assert outcomes or unsent, "nothing was added"
            return outcomes + unsent
        finally:
            if not self._in_flight:
                if self._closed:
                    self._hang_up()
                self._busy.release()

    def stop_sending(self) -> None:
        """Send no further calls. Thread-safe."""
        self._closed = True

    def close(self) -> None:
        """Close the connection. Calls in flight may wait a moment for their answers. Thread-safe."""
        self._closed = True
        if self._busy.acquire(timeout=_LAST_ANSWER_S):
            self._hang_up()
            self._busy.release()
        elif (connection := self._connection) is not None and connection.sock is not None:
            _shut(connection.sock)

    def _write(self) -> list[CallFailed | None]:
        """Send the calls that may be sent now.

        Returns the failures of calls that could not be sent. Their outcomes follow those of all calls in flight.
        """
        if not self._waiting or (self._in_flight and not self._answers.persistent and not self._closed):
            return []
        try:
            connection = self._connect()
        except (CallFailed, OSError, http.client.HTTPException) as error:
            failed = CallFailed(f"could not be sent to {self._address}: {error}", certain=True)
            unsent: list[CallFailed | None] = [failed] * len(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            return unsent
        calls = self._waiting if self._answers.persistent else self._waiting[:1]
        whole, problem = _send(connection.sock, calls)
        self._in_flight += whole
        # The master acts only on complete requests. The first incomplete one has failed.
        del self._waiting[: whole + bool(problem)]
        self._waiting_bytes = sum(map(len, self._waiting))
        return [CallFailed(f"could not be sent to {self._address}: {problem}", certain=True)] if problem else []

    def _read(self) -> list[CallFailed | None]:
        """Wait for an answer. Returns one or more outcomes. If the connection is lost, every call in flight has one."""
        assert self._connection is not None
        outcomes: list[CallFailed | None] = []
        lost: CallFailed | None = None
        try:
            while not outcomes and not lost:
                data = self._connection.sock.recv(_PIECE)
                outcomes += self._answers.feed(data)
                if not data or self._answers.over or len(outcomes) > self._in_flight:
                    lost = CallFailed("the connection was closed before the answer", certain=False)
        except TimeoutError:
            lost = CallUnanswered(f"not answered in {self._dialer.timeout_s:g} s", certain=False)
        except (OSError, HttpParserError, HttpParserUpgrade) as error:
            outcomes += self._answers.take()
            lost = CallFailed(f"the connection was lost before the answer: {error!r}", certain=False)
        del outcomes[self._in_flight :]
        self._in_flight -= len(outcomes)
        if lost:
            outcomes += [lost] * self._in_flight
            self._hang_up()
        return outcomes

    def _connect(self) -> http.client.HTTPConnection:
        if self._closed:
            raise CallFailed("not connected", certain=True)
        if self._connection is not None and not self._in_flight and _readable(self._connection.sock):
            # If no call is in flight and the socket is readable, the master has closed the connection. If this is
            # noticed before the next call, that call does not fail with an uncertain outcome.
            self._hang_up()
        if self._connection is None:
            connection = self._dialer.connection(self._address)
            connection.connect()
            self._connection = connection
        return self._connection

    def _hang_up(self) -> None:
        self._in_flight = 0
        self._answers = _Answers()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Answers:
    """The outcomes parsed from one connection: a failure, or None for an accepted call."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body = b""
        self._begun = False
        self._outcomes: list[CallFailed | None] = []
        # `persistent`: the connection has stayed open after an answer. `over`: no further answers will come.
        self.persistent = False
        self.over = False

    def feed(self, data: bytes) -> list[CallFailed | None]:
        """The outcomes that `data` completes; b"" ends the connection. Raises HttpParserError or HttpParserUpgrade."""
        if data:
            self._parser.feed_data(data)
        elif self._begun:
            # The end of the connection is also the end of this answer. Its status counts even if the body is cut off.
            self.on_message_complete()
        return self.take()

    def take(self) -> list[CallFailed | None]:
        """The complete outcomes not yet returned."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    # Callbacks of httptools.

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_body(self, piece: bytes) -> None:
        if len(self._body) < _MAX_BODY:
            self._body += piece

    def on_message_complete(self) -> None:
        status, body = self._parser.get_status_code(), self._body
        self._body, self._begun = b"", False
        if status >= http.client.OK:
            self._outcomes.append(_failure(status, body))
            self.over = not self._parser.should_keep_alive()
            self.persistent = not self.over


def _send(sock: socket.socket, calls: list[bytes]) -> tuple[int, OSError | None]:
    """The number of calls sent completely, and the error that stopped the next one."""
    data, sent = memoryview(b"".join(calls)), 0
    problem: OSError | None = None
    try:
        while sent < len(data):
            sent += sock.send(data[sent:])
    except OSError as error:
        problem = error
    whole = sum(end <= sent for end in accumulate(map(len, calls)))
    return whole, problem


class Session:
    """One attempt to subscribe and, if it succeeds, the subscription until its event stream ends.

    One thread opens the session, reads `records` and closes the session. Another thread makes calls by `add` and
    `exchange`. `end` is thread-safe.
    """

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self.address = address
        self.stream_id = ""
        self.location = ""
        self.subscribed = False
        self.end_reason = ""
        # How long the stream may be silent. Set again when SUBSCRIBED announces the interval of heartbeats.
        self.silence_limit_s = dialer.timeout_s
        self._dialer = dialer
        self._calls = CallLine(address, dialer)
        self._lock = threading.Lock()
        self._ended = False
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse

    @property
    def ended(self) -> bool:
        return self._ended

    def end(self, reason: str) -> None:
        """End the session: wakes the thread that reads, and sends no further calls. The first reason is kept."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self.end_reason = reason
                self._calls.stop_sending()
            if self._socket is not None:
                _shut(self._socket)

    def open(self, subscribe: bytes) -> int:
        """Send SUBSCRIBE and return the HTTP status. Raises OSError, HTTPException or NotConnected."""
        connection = self._dialer.connection(self.address)
        connection.connect()
        with self._lock:
            self._socket = connection.sock
            if self._ended:
                raise NotConnected(self.end_reason)
        connection.request("POST", PATH, subscribe, self._dialer.headers())
        self._response = connection.getresponse()
        self.stream_id = self._response.getheader("Mesos-Stream-Id", "")
        self.location = self._response.getheader("Location", "")
        if (sent_ms := date_of(self._response)) is not None:
            self._dialer.heard(sent_ms)
        return self._response.status

    def ask(self, call: bytes) -> tuple[int, str]:
        """Send one call by a connection of its own. Returns HTTP status and body. Raises OSError or HTTPException."""
        connection = self._dialer.connection(self.address)
        try:
            connection.request("POST", PATH, call, {"Mesos-Stream-Id": self.stream_id, **self._dialer.headers()})
            answer = connection.getresponse()
            return answer.status, answer.read(_MAX_BODY).decode(errors="replace").strip()[:_MAX_REASON]
        finally:
            connection.close()

    def body(self) -> str:
        """The body of an error answer."""
        return self._response.read(_MAX_BODY).decode(errors="replace").strip()[:_MAX_REASON]

    def records(self) -> Iterator[bytes]:
        """The records of the stream until it ends.

        Raises OSError (TimeoutError after `silence_limit_s` without a record), HTTPException or FramingError.
        """
        reader = RecordReader()
        chunks = _Chunks(self._response) if self._response.chunked else None
        silent_since = time.monotonic()
        received = 0
        while pieces := self._read(chunks, silent_since + self.silence_limit_s):
            any_records = False
            for piece in pieces:
                records = reader.feed(piece)
                yield from records
                received += len(piece)
                any_records = any_records or bool(records)
            if any_records or received >= _ALIVE_BYTES:
                # The time starts after the loop: while the receiver works, the stream is not read, and this does not
                # count as silence.
                silent_since, received = time.monotonic(), 0

    def _read(self, chunks: _Chunks | None, deadline: float) -> list[bytes]:
        assert self._socket is not None
        try:
            # Even after the deadline, available data is read. Otherwise a slow receiver would lose the session.
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            if chunks is not None:
                return chunks.read(_PIECE)
            piece = self._response.read1(_PIECE)
            return [piece] if piece else []
        except TimeoutError:
            raise TimeoutError(f"no event and no heartbeat for {self.silence_limit_s:g} s") from None

    def add(self, call: bytes) -> None:
        """Add a call for the next `exchange`. Raises CallFailed."""
        if self._ended:
            raise CallFailed(f"not connected: {self.end_reason}", certain=True)
        self._calls.add(call, self.stream_id)

    @property
    def full(self) -> bool:
        """As `CallLine.full`."""
        return self._calls.full

    def exchange(self) -> list[CallFailed | None]:
        """As `CallLine.exchange`. Ends the session if a call is not answered in time."""
        outcomes = self._calls.exchange()
        if any(isinstance(one, CallUnanswered) for one in outcomes):
            # Every further call would wait for the timeout as well.
            self.end("a call was not answered in time")
        return outcomes

    def close(self) -> None:
        """Close all sockets. Called by the reading thread, after `end`."""
        self._calls.close()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if hasattr(self, "_response"):
            self._response.close()


class _Chunks:
    """The body of a chunked answer (RFC 9112, 7.1). Reads all available chunks at a time.

    A master sends each event as a chunk, and http.client reads one chunk at a time, with several system calls each.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._raw = response.fp
        self._over = False
        self._problem: http.client.HTTPException | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)
        # http.client has already read the real head.
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_message_complete(self) -> None:
        self._over = True

    def read(self, size: int) -> list[bytes]:
        """The content of the next chunks, from at most `size` bytes. Waits for content; empty at the end.

        Raises OSError. Raises HTTPException for a malformed chunk, after the content before it was returned.
        """
        while not self._pieces and not self._over:
            if self._problem is not None:
                raise self._problem
            self._take(self._raw.read1(size))
        pieces = self._pieces.copy()
        self._pieces.clear()
        return pieces

    def _take(self, data: bytes) -> None:
        if not data:
            raise http.client.IncompleteRead(b"")
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._problem = http.client.HTTPException(f"the event stream is malformed: {error}")


def date_of(response: http.client.HTTPResponse) -> int | None:
    """The time at which a server sent its answer (ms), from the header Date; None if there is none."""
    try:
        sent = parsedate_to_datetime(response.getheader("Date", ""))
        return int(sent.timestamp() * 1_000)
    except (ValueError, TypeError, OverflowError):
        return None


def ask_date(address: Address, dialer: Dialer) -> int | None:
    """The present time of a server (ms); None if it does not answer, or its answer has no date."""
    connection = dialer.connection(address)
    try:
        connection.request("GET", "/version", headers=dialer.headers())
        return date_of(connection.getresponse())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _failure(status: int, body: bytes) -> CallFailed | None:
    if http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        return None
    # A master that does not lead, or no longer leads, answers with 307 or 503 and ignores the call.
    certain = status < http.client.INTERNAL_SERVER_ERROR or status == http.client.SERVICE_UNAVAILABLE
    words = body[:_MAX_BODY].decode(errors="replace").strip()[:_MAX_REASON]
    too_large = status == http.client.REQUEST_ENTITY_TOO_LARGE
    return CallFailed(f"HTTP {status}: {words}", certain=certain, too_large=too_large)


def _readable(one: socket.socket) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _shut(one: socket.socket) -> None:
    # This calls the method of the plain socket, because shutdown() of a TLS socket discards the TLS state that the
    # other thread uses.
    with suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)
