"""When a DAEMON task runs next, and which of its runs are reported. Pure: instants come in as milliseconds."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Protocol

from jobcloud.executor.firetimes import FireTimes

# A firing that comes later than this was missed: the machine slept or was stopped.
LATE_MS = 5_000


class _Firings(Protocol):
    def next_after(self, after_ms: int) -> Optional[int]: ...


class Resident:
    """The firings of one DAEMON task. Runs never overlap: the next is only looked for when one has ended.

    What fell due meanwhile is skipped, or with `misfire` made up for by one run at once. Of `sampling` runs one is
    reported, as Elastic-Job does it; 0 and 1 report each.
    """

    def __init__(self, firings: _Firings, misfire: bool, sampling: int, now_ms: int) -> None:
        self._firings, self._misfire, self._sampling = firings, misfire, sampling
        self._considered = now_ms
        self._unreported = 0
        self.runs = 0
        self.due: Optional[int] = firings.next_after(now_ms)
        self.fire_time = now_ms
        self.reported = False

    def wait_ms(self, now_ms: int) -> int:
        """How long until the next run is due; it must be."""
        assert self.due is not None
        return max(0, self.due - now_ms)

    def begin(self, now_ms: int) -> bool:
        """The due run begins: `runs`, `fire_time`, `reported` are about it. False where it is skipped for lateness."""
        assert self.due is not None
        if now_ms - self.due > LATE_MS and not self._misfire:
            self._considered = now_ms
            self.due = self._firings.next_after(now_ms)
            return False
        self.fire_time = self.due
        # Firings up to now are made up for by this run.
        self._considered = max(now_ms, self.due)
        self.due = None
        self.runs += 1
        self._unreported += 1
        self.reported = self._unreported >= self._sampling
        if self.reported:
            self._unreported = 0
        return True

    def end(self, now_ms: int) -> None:
        """The run ended; `due` is the next one, None where there is none any more."""
        missed = self._firings.next_after(self._considered)
        self.due = missed if self._misfire or missed is None or missed > now_ms else self._firings.next_after(now_ms)


def resident(timer: Mapping[str, Any], misfire: bool, sampling: int, now_ms: int) -> Resident:
    """Raises ValueError or another error of FireTimes where the table is none."""
    return Resident(FireTimes(dict(timer)), misfire, sampling, now_ms)
