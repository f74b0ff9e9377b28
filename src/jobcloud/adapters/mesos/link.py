"""HTTP to one Mesos master: the event stream of a subscription, and the connection its calls go out on.

Blocking sockets with timeouts: CPython waits on those with poll(), so there is no limit on descriptor numbers.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
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
# So much of one large record counts as a sign of life; less does not, or a stream out of step would never be noticed.
_LIVELY = 1 << 20
_MAX_BODY = 1 << 16
_MAX_REASON = 1000
# How long calls that are under way when the stream ends may still wait for their answers.
_LAST_ANSWER_S = 1.0


class CallFailed(Exception):
    """A call was refused or got lost; `certain` says that it had no effect."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certain = certain


class CallUnanswered(CallFailed):
    """No answer came in time."""


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """`host`, `host:port`, `[v6]:port` or a URL of one. Raises ValueError."""
        netloc = urlsplit(text if "//" in text else "//" + text).netloc
        if not netloc or "@" in netloc or (netloc.count(":") > 1 and not netloc.startswith("[")):
            raise ValueError(f"{text[:200]!r} is no HOST:PORT (IPv6 addresses go in brackets)")
        parts = urlsplit("//" + netloc)
        if not parts.hostname or parts.port == 0:
            raise ValueError(f"{text[:200]!r} is no HOST:PORT")
        return cls(parts.hostname, parts.port or DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class Dialer:
    """How masters are reached: TLS where there is a context, whose host name check is on; `timeout_s` a step."""

    context: ssl.SSLContext | None = None
    authorization: str = ""
    timeout_s: float = 15.0

    def connection(self, address: Address) -> http.client.HTTPConnection:
        """Not connected yet."""
        if self.context is None:
            return http.client.HTTPConnection(address.host, address.port, timeout=self.timeout_s)
        return http.client.HTTPSConnection(address.host, address.port, timeout=self.timeout_s, context=self.context)

    def headers(self) -> dict[str, str]:
        """Those of every request; a new dict each time, as none may be shared between drivers."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        return headers


class CallLine:
    """The keep-alive connection that one session's calls go out on, in order, several of them under way at a time.

    HTTP/1.1 pipelining (RFC 9112, 9.3.2): answers come in the order of the calls. A connection that has not yet shown
    that it stays open after an answer carries one call at a time. `add` and `exchange` are for one thread.
    """

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._address = address
        self._dialer = dialer
        # Held while calls are under way.
        self._busy = threading.Lock()
        self._closed = False
        self._connection: http.client.HTTPConnection | None = None
        self._answers = _Answers()
        self._waiting: list[bytes] = []
        self._under_way = 0
        self._head = b""

    def add(self, call: bytes, stream_id: str) -> None:
        """Let a call go out with the next `exchange`. Raises CallFailed where none may any more."""
        if self._closed:
            raise CallFailed("not connected", certain=True)
        if not self._head:
            named = {"Host": str(self._address), "Mesos-Stream-Id": stream_id, **self._dialer.headers()}
            lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
            self._head = f"POST {PATH} HTTP/1.1\r\n{lines}Content-Length: ".encode("latin-1")
        self._waiting.append(b"%s%d\r\n\r\n%s" % (self._head, len(call), call))

    def exchange(self) -> list[CallFailed | None]:
        """Send what was added and wait for an answer: what became of the oldest calls, at least one, in order."""
        if not self._under_way:
            self._busy.acquire()
        try:
            settled: list[CallFailed | None] = []
            unsent = self._write()
            while self._under_way and (unsent or not settled):
                settled += self._read()
            assert settled or unsent, "nothing was added"
            return settled + unsent
        finally:
            if not self._under_way:
                if self._closed:
                    self._hang_up()
                self._busy.release()

    def stop_sending(self) -> None:
        """No call goes out any more. From any thread."""
        self._closed = True

    def close(self) -> None:
        """The same; calls under way have a moment left to get their answers. From any thread."""
        self._closed = True
        if self._busy.acquire(timeout=_LAST_ANSWER_S):
            self._hang_up()
            self._busy.release()
        elif (connection := self._connection) is not None and connection.sock is not None:
            _shut(connection.sock)

    def _write(self) -> list[CallFailed | None]:
        """Send what may be sent now; the failures of calls that could not be, which come after those under way."""
        if not self._waiting or (self._under_way and not self._answers.persistent and not self._closed):
            return []
        try:
            connection = self._connect()
        except (CallFailed, OSError, http.client.HTTPException) as error:
            failed = CallFailed(f"could not be sent to {self._address}: {error}", certain=True)
            unsent: list[CallFailed | None] = [failed] * len(self._waiting)
            self._waiting.clear()
            return unsent
        calls = self._waiting if self._answers.persistent else self._waiting[:1]
        whole, problem = _send(connection.sock, calls)
        self._under_way += whole
        # The master acts on whole requests only, and the one after those was cut short.
        del self._waiting[: whole + bool(problem)]
        return [CallFailed(f"could not be sent to {self._address}: {problem}", certain=True)] if problem else []

    def _read(self) -> list[CallFailed | None]:
        """Wait for an answer to a call under way; what became of one or more, of all if the connection is no more."""
        assert self._connection is not None
        settled: list[CallFailed | None] = []
        lost: CallFailed | None = None
        try:
            while not settled and not lost:
                data = self._connection.sock.recv(_PIECE)
                settled += self._answers.feed(data)
                if not data or self._answers.over or len(settled) > self._under_way:
                    lost = CallFailed("the connection was closed before the answer", certain=False)
        except TimeoutError:
            lost = CallUnanswered(f"not answered in {self._dialer.timeout_s:g} s", certain=False)
        except (OSError, HttpParserError, HttpParserUpgrade) as error:
            settled += self._answers.taken()
            lost = CallFailed(f"the connection was lost before the answer: {error!r}", certain=False)
        del settled[self._under_way :]
        self._under_way -= len(settled)
        if lost:
            settled += [lost] * self._under_way
            self._hang_up()
        return settled

    def _connect(self) -> http.client.HTTPConnection:
        if self._closed:
            raise CallFailed("not connected", certain=True)
        if self._connection is not None and not self._under_way and _readable(self._connection.sock):
            # Nothing is outstanding: the master has closed it. Noticed now, the next call is not in doubt.
            self._hang_up()
        if self._connection is None:
            connection = self._dialer.connection(self._address)
            connection.connect()
            self._connection = connection
        return self._connection

    def _hang_up(self) -> None:
        self._under_way = 0
        self._answers = _Answers()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Answers:
    """Those that come over one connection: failures of calls, or None for a call that was taken."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body = b""
        self._begun = False
        self._settled: list[CallFailed | None] = []
        # Whether the connection has outlived an answer; whether the last answer was the last of all.
        self.persistent = False
        self.over = False

    def feed(self, data: bytes) -> list[CallFailed | None]:
        """The answers that `data` completes; b"" is the end. Raises HttpParserError or HttpParserUpgrade."""
        if data:
            self._parser.feed_data(data)
        elif self._begun:
            # Its length is where the connection ends, or it lacks some of the words: the status stands.
            self.on_message_complete()
        return self.taken()

    def taken(self) -> list[CallFailed | None]:
        """What is complete and has not been given yet."""
        settled, self._settled = self._settled, []
        return settled

    # What httptools calls while it parses.

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_body(self, piece: bytes) -> None:
        if len(self._body) < _MAX_BODY:
            self._body += piece

    def on_message_complete(self) -> None:
        status, body = self._parser.get_status_code(), self._body
        self._body, self._begun = b"", False
        if status >= http.client.OK:
            self._settled.append(_failure(status, body))
            self.over = not self._parser.should_keep_alive()
            self.persistent = not self.over


def _send(sock: socket.socket, calls: list[bytes]) -> tuple[int, OSError | None]:
    """How many calls left as a whole, and what stopped the next one."""
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
    """One attempt at a subscription and, if it succeeds, what lasts until its event stream ends.

    One thread opens it, reads `records` and closes it; one makes calls by `add` and `exchange`; `end` comes from any.
    """

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self.address = address
        self.stream_id = ""
        self.location = ""
        self.subscribed = False
        self.end_reason = ""
        # How long the stream may be silent; raised once SUBSCRIBED tells the heartbeats' interval.
        self.patience_s = dialer.timeout_s
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
        """Whoever reads wakes up and finds it ended; no call goes out any more. The first reason stands."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self.end_reason = reason
                self._calls.stop_sending()
            if self._socket is not None:
                _shut(self._socket)

    def open(self, subscribe: bytes) -> int:
        """Send SUBSCRIBE; the status of the answer. Raises OSError, HTTPException or NotConnected."""
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
        return self._response.status

    def body(self) -> str:
        """Why the answer is not what it should be."""
        return self._response.read(_MAX_BODY).decode(errors="replace").strip()[:_MAX_REASON]

    def records(self) -> Iterator[bytes]:
        """The records of the stream until it ends.

        Raises OSError (TimeoutError after `patience_s` without a record), HTTPException or FramingError.
        """
        reader = RecordReader()
        chunks = _Chunks(self._response) if self._response.chunked else None
        silent_since = time.monotonic()
        received = 0
        while pieces := self._read(chunks, silent_since + self.patience_s):
            any_records = False
            for piece in pieces:
                records = reader.feed(piece)
                yield from records
                received += len(piece)
                any_records = any_records or bool(records)
            if any_records or received >= _LIVELY:
                # Only now: what the receiver took for its own work is no silence of the master's.
                silent_since, received = time.monotonic(), 0

    def _read(self, chunks: _Chunks | None, deadline: float) -> list[bytes]:
        assert self._socket is not None
        try:
            # A deadline that has passed still takes what is there, or a slow receiver would cost the session.
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            if chunks is not None:
                return chunks.read(_PIECE)
            piece = self._response.read1(_PIECE)
            return [piece] if piece else []
        except TimeoutError:
            raise TimeoutError(f"no event and no heartbeat for {self.patience_s:g} s") from None

    def add(self, call: bytes) -> None:
        """Let a call go out with the next `exchange`. Raises CallFailed."""
        if self._ended:
            raise CallFailed(f"not connected: {self.end_reason}", certain=True)
        self._calls.add(call, self.stream_id)

    def exchange(self) -> list[CallFailed | None]:
        """Send what was added and wait for an answer: what became of the oldest calls, at least one, in order."""
        settled = self._calls.exchange()
        if any(isinstance(one, CallUnanswered) for one in settled):
            # A master that answers nothing would hold up every further call as long.
            self.end("a call was not answered in time")
        return settled

    def close(self) -> None:
        """Give the descriptors back. By the thread that reads, after `end`."""
        self._calls.close()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if hasattr(self, "_response"):
            self._response.close()


class _Chunks:
    """The body of an answer in chunks (RFC 9112, 7.1): the content of as many of them at a time as have come.

    A master sends each event as a chunk of its own, and http.client takes one at a time, with several calls to the
    system for each.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._raw = response.fp
        self._over = False
        self._problem: http.client.HTTPException | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)
        # The real head was http.client's.
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_message_complete(self) -> None:
        self._over = True

    def read(self, size: int) -> list[bytes]:
        """What the next bytes hold, at most `size` of them, waiting for some; nothing at the end.

        Raises OSError, and HTTPException where they are no chunks, once what came before them was read.
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
            self._problem = http.client.HTTPException(f"the event stream is not in chunks: {error}")


def _failure(status: int, body: bytes) -> CallFailed | None:
    if http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        return None
    # 307 and 503 come from a master that does not lead (any more) and has not looked at the call.
    certain = status < http.client.INTERNAL_SERVER_ERROR or status == http.client.SERVICE_UNAVAILABLE
    words = body[:_MAX_BODY].decode(errors="replace").strip()[:_MAX_REASON]
    return CallFailed(f"HTTP {status}: {words}", certain=certain)


def _readable(one: socket.socket) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _shut(one: socket.socket) -> None:
    # The plain socket's: that of TLS would pull its state from under the thread that reads.
    with suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)
