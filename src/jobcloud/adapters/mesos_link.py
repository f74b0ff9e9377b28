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
from typing import NamedTuple
from urllib.parse import urlsplit

from jobcloud.adapters.mesos_wire import bracketed
from jobcloud.errors import NotConnected
from jobcloud.wire import RecordReader

PATH = "/api/v1/scheduler"
DEFAULT_PORT = 5050
_PIECE = 1 << 18
# So much of one large record counts as a sign of life; less does not, or a stream out of step would never be noticed.
_LIVELY = 1 << 20
_MAX_BODY = 1 << 16
_MAX_REASON = 1000
# How long a call that is under way when the stream ends may still wait for its answer.
_LAST_ANSWER_S = 1.0


class CallFailed(Exception):
    """A call was refused or got lost; `certain` says that it had no effect."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certain = certain


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
    """The keep-alive connection that one session's calls go out on, one after the other."""

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._address = address
        self._dialer = dialer
        self._busy = threading.Lock()
        self._closed = False
        self._connection: http.client.HTTPConnection | None = None

    def post(self, call: bytes, stream_id: str) -> None:
        """Make one call. Raises CallFailed; no answer in time is one that is not `certain`."""
        with self._busy:
            try:
                self._exchange(call, stream_id)
            finally:
                if self._closed:
                    self._hang_up()

    def close(self) -> None:
        """No call goes out any more; one under way has a moment left to get its answer. From any thread."""
        self._closed = True
        if self._busy.acquire(timeout=_LAST_ANSWER_S):
            self._hang_up()
            self._busy.release()
        elif (connection := self._connection) is not None and connection.sock is not None:
            _shut(connection.sock)

    def _exchange(self, call: bytes, stream_id: str) -> None:
        try:
            connection = self._connect()
            connection.request("POST", PATH, call, {**self._dialer.headers(), "Mesos-Stream-Id": stream_id})
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            # The master acts on whole requests only, and this one was cut short.
            raise CallFailed(f"could not be sent to {self._address}: {error}", certain=True) from error
        try:
            response = connection.getresponse()
            body = response.read(_MAX_BODY)
        except TimeoutError as error:
            self._hang_up()
            raise CallFailed(f"not answered in {self._dialer.timeout_s:g} s", certain=False) from error
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            raise CallFailed(f"the connection was lost before the answer: {error!r}", certain=False) from error
        if response.will_close or not response.isclosed():
            self._hang_up()
        _check(response.status, body)

    def _connect(self) -> http.client.HTTPConnection:
        if self._closed:
            raise CallFailed("not connected", certain=True)
        if self._connection is not None and _readable(self._connection.sock):
            # Nothing is outstanding: the master has closed it. Noticed now, the next call is not in doubt.
            self._hang_up()
        if self._connection is None:
            connection = self._dialer.connection(self._address)
            connection.connect()
            self._connection = connection
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Session:
    """One attempt at a subscription and, if it succeeds, what lasts until its event stream ends.

    One thread opens it, reads `records` and closes it; one makes calls by `post`; `end` may come from any.
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
        silent_since = time.monotonic()
        received = 0
        while piece := self._read(silent_since + self.patience_s):
            records = reader.feed(piece)
            yield from records
            received += len(piece)
            if records or received >= _LIVELY:
                # Only now: what the receiver took for its own work is no silence of the master's.
                silent_since, received = time.monotonic(), 0

    def _read(self, deadline: float) -> bytes:
        assert self._socket is not None
        try:
            # A deadline that has passed still takes what is there, or a slow receiver would cost the session.
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            return self._response.read1(_PIECE)
        except TimeoutError:
            raise TimeoutError(f"no event and no heartbeat for {self.patience_s:g} s") from None

    def post(self, call: bytes) -> None:
        """Make one call. Raises CallFailed."""
        if self._ended:
            raise CallFailed(f"not connected: {self.end_reason}", certain=True)
        try:
            self._calls.post(call, self.stream_id)
        except CallFailed as error:
            if isinstance(error.__cause__, TimeoutError) and not error.certain:
                # A master that answers nothing would hold up every further call as long.
                self.end("a call was not answered in time")
            raise

    def close(self) -> None:
        """Give the descriptors back. By the thread that reads, after `end`."""
        self._calls.close()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if hasattr(self, "_response"):
            self._response.close()


def _check(status: int, body: bytes) -> None:
    if 200 <= status < 300:
        return
    # 307 and 503 come from a master that does not lead (any more) and has not looked at the call.
    certain = status < 500 or status == http.client.SERVICE_UNAVAILABLE
    raise CallFailed(f"HTTP {status}: {body.decode(errors='replace').strip()[:_MAX_REASON]}", certain=certain)


def _readable(one: socket.socket) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _shut(one: socket.socket) -> None:
    # The plain socket's: that of TLS would pull its state from under the thread that reads.
    with suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)
