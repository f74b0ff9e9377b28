"""The addresses of hosts, found within a time limit.

A name service that hangs blocks `socket.getaddrinfo` without end, because the C library has no setting for a limit. So
a separate thread waits for the answer. There is at most one such thread for each host and port.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

Target: TypeAlias = tuple[str, int]
"""(host, port)."""
Found: TypeAlias = list[tuple[Any, ...]]
"""The result of `socket.getaddrinfo`."""


def _ask(target: Target) -> Found:
    return socket.getaddrinfo(*target, type=socket.SOCK_STREAM)


class Names:
    """Thread-safe. `ask` looks a target up, and may hang.

    The last addresses of a target stay known. They are used if the name service fails, or does not answer in time.
    """

    def __init__(self, ask: Callable[[Target], Found] = _ask) -> None:
        self._ask = ask
        self._known: dict[Target, Found] = {}
        self._running: dict[Target, Future[Found]] = {}
        self._lock = threading.Lock()

    def find(self, target: Target, deadline: float) -> Found:
        """The addresses of a target. Raises OSError, UnicodeError. `deadline` counts seconds of time.monotonic."""
        try:
            return socket.getaddrinfo(*target, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # it is a name
        with self._lock:
            known, running = self._known.get(target), self._running.get(target)
            late = running is not None
            if running is None:
                running = self._start(target)
        # If addresses are known, half of the time is left for a connection to one of them. While an earlier look-up
        # hangs, the known addresses are used at once.
        limit = max(0.0, deadline - time.monotonic()) / (2 if known else 1)
        try:
            return running.result(0 if known and late else limit)
        except TimeoutError as error:
            if known is None:
                raise TimeoutError("the name service does not answer") from error
        except (OSError, UnicodeError):
            if known is None:
                raise
        return known

    def _start(self, target: Target) -> Future[Found]:
        running: Future[Found] = Future()
        try:
            threading.Thread(target=self._look_up, args=(target, running), name="names", daemon=True).start()
        except RuntimeError as error:
            raise OSError(f"no thread can be started for the name service: {error}") from error
        self._running[target] = running
        return running

    def _look_up(self, target: Target, running: Future[Found]) -> None:
        try:
            found = self._ask(target)
        except Exception as error:
            self._finish(target)
            running.set_exception(error)
        else:
            self._finish(target, found)
            running.set_result(found)

    def _finish(self, target: Target, found: Found | None = None) -> None:
        with self._lock:
            # The look-up is deleted before its result is reported, so that the next call of `find` asks again. `find`
            # holds the lock until it has registered the look-up, so there is an entry to delete.
            del self._running[target]
            if found:
                self._known[target] = found
