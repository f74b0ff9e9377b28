"""One HTTP connection to a member of etcd: a time limit on the whole exchange, and a limit on the size of the answer.

Other HTTP clients limit the time between two pieces of data. With such a client, a member that sends a byte now and
then could block the leader without end.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpResponseParser

from jobcloud.adapters.etcd.names import Found, Names, Target

_RECEIVED_AT_ONCE = 256 << 10
_MAX_HEAD_BYTES = 64 << 10


class Lost(Exception):
    """There is no answer. A request that was sent may have taken effect."""


class TooLong(Exception):
    """The answer exceeds the limit."""


@dataclass(slots=True)
class Answer:
    """`date`: the header Date, which is the time of the member."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    date: str = ""
    #: whether the connection can be used again
    persistent: bool = False


class Connection:
    """An open connection. `deadline` counts seconds of time.monotonic. Raises Lost."""

    def __init__(self, target: Target, names: Names, deadline: float, context: ssl.SSLContext | None = None) -> None:
        host, port = target
        # A server that expects TLS closes a connection in plain text without an answer.
        self._hint = "" if context else "; if it expects TLS, set etcd.tls to true"
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._socket = _connect(names.find(target, deadline), deadline)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._socket.settimeout(_remaining(deadline))
                self._socket = context.wrap_socket(self._socket, server_hostname=host)
        except (OSError, UnicodeError) as error:
            if hasattr(self, "_socket"):
                self._socket.close()
            raise Lost(f"{self._name} cannot be reached: {_reason(error)}") from error

    def exchange(self, path: str, body: bytes, headers: str, deadline: float, limit: int) -> Answer:
        """POST `body`. Raises Lost, TooLong."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._name}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n"
        )
        receiver = _Receiver(limit)
        try:
            self._send(head.encode() + body, deadline)
            while not receiver.complete:
                self._socket.settimeout(_remaining(deadline))
                data = self._socket.recv(_RECEIVED_AT_ONCE)
                if not data:
                    raise Lost(f"{self._name} has closed the connection{self._hint}")
                self._hint = ""
                receiver.feed(data)
        except (OSError, HttpParserError) as error:
            raise Lost(f"{self._name} does not answer: {_reason(error)}") from error
        return receiver.answer

    def is_open(self) -> bool:
        """False if the member has closed the connection, or has sent something without being asked."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(_remaining(deadline))
            rest = rest[self._socket.send(rest) :]


class _Receiver:
    """Collects one answer. The methods named on_… are callbacks of the parser."""

    def __init__(self, limit: int) -> None:
        self.answer = Answer()
        self.complete = False
        self._left = limit + _MAX_HEAD_BYTES
        self._limit = limit
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise TooLong(f"an answer of etcd has more than {self._limit:,} bytes")
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"date":
            self.answer.date = value.decode("latin-1")

    def on_body(self, piece: bytes) -> None:
        self.answer.body += piece

    def on_message_complete(self) -> None:
        self.answer.status = self._parser.get_status_code()
        if self.answer.status >= 200:
            self.answer.persistent = self._parser.should_keep_alive()
            self.complete = True


def _connect(found: Found, deadline: float) -> socket.socket:
    """A connection to the first address that accepts one.

    `socket.create_connection` gives the whole time to each address, so an address that does not answer would hide the
    others.
    """
    for number, (family, kind, protocol, _, where) in enumerate(found, 1):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_remaining(deadline) / (len(found) - number + 1))
            connection.connect(where)
        except OSError:
            connection.close()
            if number == len(found):
                raise
        else:
            return connection
    raise OSError("the host has no address")


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
