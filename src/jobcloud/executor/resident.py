"""The plan of a DAEMON task: its next fire time, and the executions that are reported.

This module is pure. It reads no clock: callers pass all instants, in milliseconds.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Protocol

from jobcloud.executor.firetimes import FireTimes

# A fire time that passed more than this long ago was missed, because the machine slept or was stopped.
LATE_MS = 5_000


class _Firings(Protocol):
    def next_after(self, after_ms: int) -> Optional[int]: ...


class Resident:
    """The executions of one DAEMON task.

    Executions never overlap, because the next fire time is computed at the end of an execution. Without `misfire`, fire
    times during an execution are skipped. With `misfire`, one more execution makes up for all of these fire times. It
    starts as soon as the running execution has ended. Each `sampling`-th execution is reported, as in Elastic-Job. If
    `sampling` is 0 or 1, each execution is reported.
    """

    def __init__(self, firings: _Firings, misfire: bool, sampling: int, now_ms: int) -> None:
        self._firings, self._misfire, self._sampling = firings, misfire, sampling
        self._considered = now_ms
        self._unreported = 0
        self.executions = 0
        self.due: Optional[int] = firings.next_after(now_ms)
        self.fire_time = now_ms
        self.reported = False

    def wait_ms(self, now_ms: int) -> int:
        """The time until the next fire time. `due` must not be None."""
        assert self.due is not None
        return max(0, self.due - now_ms)

    def begin(self, now_ms: int) -> bool:
        """Begin the due execution: set `executions`, `fire_time` and `reported`.

        If it is too late for this execution, skip it: set `due` to the next fire time and return False.
        """
        assert self.due is not None
        if now_ms - self.due > LATE_MS and not self._misfire:
            self._considered = now_ms
            self.due = self._firings.next_after(now_ms)
            return False
        self.fire_time = self.due
        # This execution makes up for all fire times up to now.
        self._considered = max(now_ms, self.due)
        self.due = None
        self.executions += 1
        self._unreported += 1
        self.reported = self._unreported >= self._sampling
        if self.reported:
            self._unreported = 0
        return True

    def end(self, now_ms: int) -> None:
        """The execution has ended: set `due` to the next fire time, or to None if there is none."""
        missed = self._firings.next_after(self._considered)
        self.due = missed if self._misfire or missed is None or missed > now_ms else self._firings.next_after(now_ms)


def resident(timer: Mapping[str, Any], misfire: bool, sampling: int, now_ms: int) -> Resident:
    """Raises ValueError, or another error of FireTimes, if the table is invalid."""
    return Resident(FireTimes(dict(timer)), misfire, sampling, now_ms)
