"""The event loop that makes the daemon's decisions, in one thread. An error in one step does not end it."""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import queue
import shutil
import stat
import sys
import threading
import time
import traceback
from typing import Any, Callable, List, Optional, Tuple

# Limit of the daemon's own log `stderr`, and of the older part in `stderr.old`.
LOG_BYTES = 10 << 20
_log_lock = threading.Lock()


def log(text: str) -> None:
    """Write one line to stderr, a bounded file in the sandbox. A full disk must not end the daemon."""
    with _log_lock:
        try:
            _make_room()
            sys.stderr.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + text[:_MAX_LINE_CHARS] + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def _make_room() -> None:
    """Move a full log to `.old`. The agent has the file open too, so the file is emptied and not replaced.

    Nothing happens if stderr is not a regular file.
    """
    descriptor = sys.stderr.fileno()
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_size >= LOG_BYTES:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        try:
            shutil.copyfile(path, path + ".old")
        finally:
            os.ftruncate(descriptor, 0)


# When there are this many timers, the cancelled ones are removed. Each update of a task leaves a cancelled timer.
_CROWDED = 1_000
_MAX_WAIT_S = 3_600.0
_MAX_LINE_CHARS = 20_000


class Timer:
    """A future call. cancel() is harmless at any time."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Optional[Callable[[], None]] = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """post() may be called from any thread, later() and stop() only from within the loop."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Tuple[Callable[..., Any], Tuple[Any, ...]]] = queue.SimpleQueue()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._crowded = _CROWDED
        self._numbers = itertools.count()
        self._exit_code: Optional[int] = None

    def post(self, step: Callable[..., Any], *args: Any) -> None:
        self._inbox.put((step, args))

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        if len(self._timers) >= self._crowded:
            self._timers = [entry for entry in self._timers if entry[2].call is not None]
            heapq.heapify(self._timers)
            self._crowded = max(_CROWDED, 2 * len(self._timers))
        heapq.heappush(self._timers, (time.monotonic() + max(0.0, seconds), next(self._numbers), timer))
        return timer

    def stop(self, exit_code: int) -> None:
        self._exit_code = exit_code

    def run(self) -> int:
        """Run until stop(). Returns its exit code."""
        while self._exit_code is None:
            try:
                step, args = self._inbox.get(timeout=self._time_to_wait())
            except queue.Empty:
                self._fire_timers()
                continue
            self._perform(step, *args)
            self._fire_timers()
        return self._exit_code

    def _time_to_wait(self) -> Optional[float]:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        # A queue cannot wait for arbitrarily long.
        return min(max(0.0, self._timers[0][0] - time.monotonic()), _MAX_WAIT_S) if self._timers else None

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                self._perform(call)

    def _perform(self, step: Callable[..., Any], *args: Any) -> None:
        try:
            step(*args)
        except Exception:
            log("an error in the executor itself, which continues:\n" + traceback.format_exc())
