"""One execution of user code: the daemon gives it to a Runner and gets its progress and its end back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Protocol

from jobcloud.executor.outcomes import Outcome
from jobcloud.executor.payload import TaskPayload

# The number of the execution that only loads a resident job. Firings count from 1.
LOADING = 0


@dataclass(eq=False)
class Execution:
    """A TRANSIENT task has one execution. A DAEMON task has one that loads the job, and then one for each firing.

    Executions of one task never overlap. `on_waiting` is called if the execution must wait for a place (maxParallel).
    `on_started` is called at most once, before `on_ended`. `on_ended` is called exactly once.
    """

    task_id: str
    number: int
    payload: TaskPayload
    facts: Dict[str, Any]
    on_started: Callable[[Execution], None]
    on_ended: Callable[[Execution, Outcome], None]
    on_waiting: Callable[[Execution], None]
    on_progress: Callable[[Execution, float, Optional[float]], None]
    cancelled: bool = False


class Runner(Protocol):
    """Carries out executions. All calls and callbacks happen in the loop."""

    def start(self, execution: Execution) -> None:
        """Start the execution. Its callbacks may be called before this method returns."""

    def kill(self, execution: Execution, grace_s: float) -> None:
        """Ask the execution to end. After the grace period, end it by force. A second call may shorten the period."""

    def forget(self, task_id: str) -> None:
        """The task has ended: drop everything that was kept for it."""
