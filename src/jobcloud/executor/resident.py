"""When a DAEMON task executes next, and which executions are reported. Pure: instants are given in milliseconds."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Protocol

from jobcloud.executor.firetimes import FireTimes

# A firing that is late by more than this was missed: the machine slept or was stopped.
LATE_MS = 5_000


class _Firings(Protocol):
    def next_after(self, after_ms: int) -> Optional[int]: ...


class Resident:
    """The executions of one DAEMON task. Executions never overlap: the next fire time is computed after an execution.

    Without `misfire`, firings that fall due during an execution are skipped. With `misfire`, one execution, which
    starts right after, makes up for all of them. Each `sampling`-th execution is reported, as in Elastic-Job. With
    `sampling` 0 or 1, each execution is reported.
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
        """How long until the next fire time. `due` must not be None."""
        assert self.due is not None
        return max(0, self.due - now_ms)

    def begin(self, now_ms: int) -> bool:
        """Begin the due execution: set `executions`, `fire_time` and `reported`.

        Returns False if the firing is skipped, because it is too late.
        """
        assert self.due is not None
        if now_ms - self.due > LATE_MS and not self._misfire:
            self._considered = now_ms
            self.due = self._firings.next_after(now_ms)
            return False
        self.fire_time = self.due
        # This execution makes up for all firings up to now.
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
