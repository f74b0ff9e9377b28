"""The daemon's event loop. It performs all steps in one thread. An error in a step does not end the loop."""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import queue
import stat
import sys
import threading
import time
import traceback
from typing import Any, Callable, List, Optional, Tuple

# The maximum size of `stderr`, which is the daemon's own log, and of its older part `stderr.old`.
LOG_BYTES = 10 << 20
_log_lock = threading.Lock()


def log(text: str) -> None:
    """Write an entry to stderr, which is a file of limited size in the sandbox.

    Errors are ignored, because a full disk must not end the daemon.
    """
    with _log_lock:
        try:
            _make_room()
            sys.stderr.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + text[:_MAX_LINE_CHARS] + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def _make_room() -> None:
    """If the log is full, copy it to `.old` and empty it. If stderr is not a regular file, do nothing.

    The file is emptied and not replaced, because the agent has it open, too.
    """
    descriptor = sys.stderr.fileno()
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_size >= LOG_BYTES:
        import shutil  # only the daemon's log becomes full, and workers import this module, too

        path = os.readlink(f"/proc/self/fd/{descriptor}")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        try:
            shutil.copyfile(path, path + ".old")
        finally:
            os.ftruncate(descriptor, 0)


# All cancelled timers are removed when there are at least this many timers, and twice as many as the last removal left.
# Each acknowledged update leaves a cancelled timer.
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
    """Any thread may call post(). Only the thread that calls run() may call later() and stop()."""

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
        """Run until stop() is called. Returns the exit code that was given to stop()."""
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
        # The timeout of a queue has an upper limit.
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
            log("an error in the executor itself; the executor continues:\n" + traceback.format_exc())
