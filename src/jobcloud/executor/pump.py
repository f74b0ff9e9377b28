"""The thread that copies the output of processes to their logs."""

from __future__ import annotations

import functools
import itertools
import os
import selectors
import threading
import traceback
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Tuple

from jobcloud.executor.loop import log
from jobcloud.executor.output import RotatingLog


class Pump:
    """A thread that copies the output of processes from pipes to their logs."""

    def __init__(self, post: Callable[..., None]) -> None:
        self._post = post
        self._selector = selectors.DefaultSelector()
        self._requests: Deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self._logs: Dict[int, RotatingLog] = {}
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        threading.Thread(target=self._run, name="pump", daemon=True).start()

    def attach(self, *files: RotatingLog) -> Tuple[List[int], Tuple[int, ...]]:
        """Make a pipe for each log. Returns (write ends, tickets for `finish`). Raises OSError."""
        pipes: List[Tuple[int, int]] = []
        try:
            pipes.extend(os.pipe() for _ in files)
        except OSError:
            for descriptor in itertools.chain(*pipes):
                os.close(descriptor)
            raise
        for (read, _), file in zip(pipes, files):  # noqa: B905 - `strict` is of 3.10
            os.set_blocking(read, False)
            self._request(functools.partial(self._open, read, file))
        return [write for _, write in pipes], tuple(read for read, _ in pipes)

    def finish(self, tickets: Tuple[int, ...], then: Callable[..., None], *args: Any) -> None:
        """Copy the rest of the output and close the pipes, then post `then`.

        The pipes are closed even if a process still has their write ends open.
        """
        self._request(lambda: self._finish(tickets, then, args))

    def _request(self, request: Callable[[], None]) -> None:
        self._requests.append(request)
        os.write(self._wake_write, b"!")

    def _run(self) -> None:
        while True:
            try:
                self._step()
            except Exception:
                # The thread must survive every error: without it, every script would block on its full pipe.
                log("an error in the copying of task output; the copying continues:\n" + traceback.format_exc())

    def _step(self) -> None:
        for key, _ in self._selector.select():
            if key.fd == self._wake_read:
                os.read(self._wake_read, 4096)
            else:
                self._copy(key.fd)
        while self._requests:
            self._requests.popleft()()

    def _open(self, read: int, file: RotatingLog) -> None:
        self._logs[read] = file
        self._selector.register(read, selectors.EVENT_READ)

    def _copy(self, read: int) -> bool:
        """Copy one piece of output. Returns whether there may be more output now."""
        try:
            data = os.read(read, 1 << 16)
        except BlockingIOError:
            return False
        if data:
            self._logs[read].write(data)
            return True
        if read in self._selector.get_map():
            self._selector.unregister(read)
        return False

    def _finish(self, tickets: Tuple[int, ...], then: Callable[..., None], args: Tuple[Any, ...]) -> None:
        for read in tickets:
            # A process that has escaped the kill may continue to write. So stop after 64 pieces.
            for _ in range(64):
                if not self._copy(read):
                    break
            if read in self._selector.get_map():
                self._selector.unregister(read)
            os.close(read)
            self._logs.pop(read).close()
        self._post(then, *args)
