"""The scheduler's clock: the wall clock, checked against a clock that nobody can set.

CLOCK_BOOTTIME counts since the start of the machine, also while it is suspended. The wall clock normally keeps a fixed
distance from it. If the wall clock is set back, the scheduler follows at once. If the wall clock jumps ahead, the
scheduler first continues with its own time. Otherwise the scheduler would handle fire times of the future, and jobs
would not fire until then.
The scheduler follows when the jump has lasted for a hundredth of its length, and at least 10 s. So a jump of an hour is
followed after 36 s, and a jump of 180 days that ends after some seconds has no effect. A jump to the time of another
machine is a correction, and is followed at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from jobcloud.sentences import Told

log = structlog.get_logger(__name__)

# Smaller steps are followed at once. They are within the default misfire threshold.
_STEP_MS = 5_000
_MIN_HOLD_MS = 10_000
_HOLD_PART = 100
# Another machine's clock may differ by this much without a warning.
_DIFFERENCE_MS = 60_000


class _Jump(NamedTuple):
    """A jump ahead that is not followed yet.

    `distance`: wall minus running clock after the jump. `seen`: the running clock when the jump was noticed.
    """

    distance: int
    seen: int


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def running_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Readings(NamedTuple):
    """`offset_ms`: the wall clock minus the scheduler's time. `jumps`: how often the wall clock was set or has jumped.

    `differences`: other machine → the wall clock minus the clock of that machine as last heard, in milliseconds.
    """

    offset_ms: int
    jumps: int
    differences: dict[str, int]


class Clock:
    """`now_ms` may be called from any thread. `wall` and `running` are the two clocks, in milliseconds."""

    def __init__(self, wall: Callable[[], int] = wall_ms, running: Callable[[], int] = running_ms) -> None:
        self._wall = wall
        self._running = running
        #: the scheduler's time minus the running clock; without a jump, the wall clock minus the running clock
        self._distance = wall() - running()
        #: earlier distances. If the wall clock returns to one of them, it is followed at once
        self._former: deque[int] = deque(maxlen=8)
        self._jump: _Jump | None = None
        #: other machine → the distance of its clock from the running clock of this machine
        self._heard: dict[str, int] = {}
        #: the distance of this machine's clock when another machine last agreed with it
        self._agreed: int | None = None
        #: other machine → a text for users, if its clock and that of this machine differ too much
        self._differences: dict[str, Told] = {}
        self._jumps = 0
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        with self._lock:
            running = self._running()
            distance = self._wall() - running
            ahead = distance - self._distance
            if ahead <= _STEP_MS or self._is_known(distance):
                if abs(ahead) > _STEP_MS:
                    self._jumps += self._jump is None
                    log.warning("the clock of this machine was set", by=_span(ahead))
                self._follow(distance)
            elif self._jump is None or abs(distance - self._jump.distance) > _STEP_MS:
                self._jump = _Jump(distance, running)
                self._jumps += 1
                log.error(str(self._describe(self._jump)))
            elif running - self._jump.seen >= _hold_ms(ahead):
                log.warning("the clock of this machine has jumped ahead and stayed there; followed", by=_span(ahead))
                self._follow(distance)
            return running + self._distance

    def compare(self, theirs_ms: int, whose: str) -> None:
        """Compare the clock of this machine with that of another machine, such as the Mesos master.

        A difference of more than a minute is reported. If the scheduler's time is ahead by more than a minute, the
        scheduler continues with the time of the other machine, as after a jump. There is one exception: if some machine
        has agreed with the scheduler's time before, the machine that differs counts as wrong.
        """
        with self._lock:
            running = self._running()
            wall, theirs = self._wall() - running, theirs_ms - running
            self._heard[whose] = theirs
            ahead = wall - theirs
            if abs(ahead) <= _DIFFERENCE_MS:
                self._agreed = wall
                self._differences.pop(whose, None)
                return
            seconds = abs(ahead) // 1_000
            difference = f"the clock of this machine is {_span(abs(ahead))}"
            self._differences[whose] = (
                Told(f"{difference} ahead of that of {whose}", "clock_ahead", seconds=seconds, whose=whose)
                if ahead > 0
                else Told(f"{difference} behind that of {whose}", "clock_behind", seconds=seconds, whose=whose)
            )
            log.error(str(self._differences[whose]))
            agreed = self._agreed is not None and abs(self._distance - self._agreed) <= _DIFFERENCE_MS
            if theirs < self._distance - _DIFFERENCE_MS and not agreed:
                self._jump = _Jump(wall, running)
                self._distance = theirs

    def warnings(self) -> tuple[Told, ...]:
        """The present problems with the clock, for users."""
        with self._lock:
            jump = self._jump
            return (*((self._describe(jump),) if jump else ()), *self._differences.values())

    def readings(self) -> Readings:
        """The present state of the clock, for metrics."""
        with self._lock:
            distance = self._wall() - self._running()
            differences = {whose: distance - theirs for whose, theirs in self._heard.items()}
            return Readings(distance - self._distance, self._jumps, differences)

    def _follow(self, distance: int) -> None:
        if abs(distance - self._distance) > _STEP_MS:
            self._former.append(self._distance)
            for whose, theirs in self._heard.items():
                if abs(distance - theirs) <= _DIFFERENCE_MS:
                    self._differences.pop(whose, None)
        self._distance, self._jump = distance, None

    def _describe(self, jump: _Jump) -> Told:
        ahead = jump.distance - self._distance
        left = max(0, _hold_ms(ahead) - (self._running() - jump.seen))
        own = datetime.fromtimestamp((self._running() + self._distance) / 1_000, UTC)
        return Told(
            f"the clock of this machine has jumped {_span(ahead)} ahead: the scheduler continues with its own time "
            f"({own:%Y-%m-%d %H:%M:%S} UTC), and follows if the jump lasts another {_span(left)}. If the new time is "
            "right, restart the scheduler to follow at once",
            "clock_jumped",
            seconds=ahead // 1_000,
            own=f"{own:%Y-%m-%dT%H:%M:%SZ}",
            left=left // 1_000,
        )

    def _is_known(self, distance: int) -> bool:
        return any(abs(distance - known) <= _STEP_MS for known in (*self._former, *self._heard.values()))


def _hold_ms(ahead_ms: int) -> int:
    return max(_MIN_HOLD_MS, ahead_ms // _HOLD_PART)


def _span(ms: int) -> str:
    """A length of time for people: the two greatest units."""
    seconds, sign = abs(ms) // 1_000, "-" if ms < 0 else ""
    days, rest = divmod(seconds, 86_400)
    hours, minutes, seconds = rest // 3_600, rest // 60 % 60, rest % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return sign + " ".join(f"{number} {unit}" for number, unit in parts[:2] if number or unit == "s") or f"{sign}0 s"
