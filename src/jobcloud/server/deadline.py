"""A time limit for a whole exchange with a server.

Socket timeouts alone do not stop a server that sends slowly.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Deadline:
    """Shuts the watched sockets down after `seconds`. A context manager; `watch` is called inside it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until

    def left(self, limit: float) -> float:
        """Seconds left, at most `limit`. Raises TimeoutError if no time is left."""
        self.check()
        return min(limit, max(0.001, self._until - time.monotonic()))

    def check(self) -> None:
        """Raises TimeoutError if the time is over."""
        if self.over:
            raise TimeoutError

    def watch(self, sock: socket.socket) -> None:
        with self._lock:
            self._watched.append(sock)
        self.check()

    def _end(self) -> None:
        with self._lock:
            for sock in self._watched:
                with contextlib.suppress(OSError):
                    # The plain socket, because objects of TLS are not safe for two threads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
