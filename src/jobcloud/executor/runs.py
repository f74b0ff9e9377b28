"""One run of user code: what the daemon hands to whatever carries it out, and hears back from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Protocol

from jobcloud.executor.outcomes import Outcome
from jobcloud.executor.payload import TaskPayload

# The number of the "run" that only loads a resident job; firings count from 1.
LOADING = 0


@dataclass(eq=False)
class Run:
    """A task has one run at a time. `on_ended` is called exactly once, `on_started` at most once and before it.

    `on_waiting` is called where the run has to wait for others to end before it can start.
    """

    task_id: str
    number: int
    payload: TaskPayload
    facts: Dict[str, Any]
    on_started: Callable[[Run], None]
    on_ended: Callable[[Run, Outcome], None]
    on_waiting: Callable[[Run], None]
    on_progress: Callable[[Run, float, Optional[float]], None]
    cancelled: bool = False


class Runner(Protocol):
    """Carries runs out. All calls and callbacks belong to the loop."""

    def start(self, run: Run) -> None:
        """Run it. May call back at once."""

    def kill(self, run: Run, grace_s: float) -> None:
        """Ask the run to end, make it end after the grace time. Asking again may shorten the time."""

    def forget(self, task_id: str) -> None:
        """The task has ended; nothing kept for it is needed any more."""
