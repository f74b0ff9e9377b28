"""The export of heads to another place, so that a cut end of the log is found there.

Sources: RFC 5424 (messages of syslog), RFC 5426 (over UDP), RFC 6587 section 3.4.1 (over TCP), RFC 5425 (over TLS).
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from jobcloud.audit.entries import Head, iso

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 5.0
_PORTS: Final = {"udp": 514, "tcp": 601, "tls": 6514}
#: facility 13 (log audit), severity 5 (notice)
_PRIORITY: Final = 13 * 8 + 5
#: a file of heads goes on in a new file behind this size; one earlier file is kept
_FILE_BYTES: Final = 64 << 20


class Receiver(Protocol):
    def send(self, at: int, head: Head) -> None:
        """Raises OSError."""

    def close(self) -> None: ...


class HeadFile:
    """A file, best on another disk or machine, with one line for each head."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, at: int, head: Head) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{iso(at)} jobcloud {head}\n".encode())
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size >= _FILE_BYTES:
            with suppress(OSError):  # a folder in which files can only grow
                self._path.replace(self._path.with_name(self._path.name + ".1"))

    def close(self) -> None:
        pass


class Syslog:
    """A syslog server. `url` is udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT."""

    def __init__(self, url: str, ca_file: Path | None = None, hostname: str = "") -> None:
        found = urlsplit(url)
        self._kind = found.scheme
        self._address = found.hostname or "", found.port or _PORTS[found.scheme]
        self._ca_file = ca_file
        self._hostname = (hostname or socket.gethostname()).encode("ascii", "replace").decode()[:255] or "-"
        self._socket: socket.socket | None = None

    def send(self, at: int, head: Head) -> None:
        message = f"<{_PRIORITY}>1 {iso(at)} {self._hostname} jobcloud {os.getpid()} audit-head - {head}".encode()
        if self._kind != "udp":
            message = b"%d %s" % (len(message), message)
        try:
            if self._socket is None:
                self._socket = self._connect()
            elif self._kind != "udp":
                self._check()
            self._socket.sendall(message)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        connected, self._socket = self._socket, None
        if connected is not None:
            with suppress(OSError):
                connected.close()

    def _connect(self) -> socket.socket:
        if self._kind == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            plain = socket.socket(family, kind, protocol)
            plain.connect(address)
            return plain
        plain = socket.create_connection(self._address, _TIMEOUT_S)
        if self._kind == "tcp":
            return plain
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
            return context.wrap_socket(plain, server_hostname=self._address[0])
        except OSError:
            plain.close()
            raise

    def _check(self) -> None:
        """A syslog server sends nothing. Raises ConnectionError if it has closed: a write would still succeed once."""
        assert self._socket is not None
        self._socket.settimeout(0)
        try:
            if not self._socket.recv(1_024):
                raise ConnectionError("the server has closed the connection")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            self._socket.settimeout(_TIMEOUT_S)


class Exporter:
    """Sends the newest head to a receiver, on a thread of its own. After a failure it tries again until it succeeds.

    A later head proves all entries before it, so heads that wait are replaced by the newest one.
    """

    def __init__(self, receiver: Receiver, now_ms: Callable[[], int]) -> None:
        self._receiver = receiver
        self._now_ms = now_ms
        self._newest: Head | None = None
        self._sent: Head | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="jobcloud-audit-heads", daemon=True)
        self._thread.start()

    def publish(self, head: Head) -> None:
        """Never waits."""
        self._newest = head
        self._wake.set()

    def stop(self, timeout: float = _TIMEOUT_S) -> None:
        """Try once more to send the newest head."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            last = self._stopping.is_set()
            if not self._attempt() and not last:
                self._stopping.wait(_RETRY_S)
                self._wake.set()
            if last:
                self._receiver.close()
                return

    def _attempt(self) -> bool:
        head = self._newest
        if head is None or head == self._sent:
            return True
        try:
            self._receiver.send(self._now_ms(), head)
        except OSError as error:
            if not self.problem:
                log.warning("the head of the audit log cannot be exported: %s", error)
            self.problem = str(error)[:200] or type(error).__name__
            return False
        self._sent, self.problem = head, ""
        return True
