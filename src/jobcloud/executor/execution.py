"""One execution of user code. The daemon gives each execution to a Runner.

The Runner reports the progress and the end of the execution through callbacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Protocol

from jobcloud.executor.outcomes import Outcome
from jobcloud.executor.payload import TaskPayload

# The number of the execution that only loads a resident job. The executions at its fire times have numbers from 1 on.
LOADING = 0


@dataclass(eq=False)
class Execution:
    """One execution of a task.

    A TRANSIENT task has one execution. A DAEMON task has one that loads the job, and then one for each fire time that
    is not skipped. Executions of one task never overlap. `on_waiting` is called if the execution must wait because of
    maxParallel. `on_started` is called at most once, before `on_ended`. `on_ended` is called exactly once. `secrets`
    has the job's secrets by key: values, or paths of files. `secret_files` is the directory of these files, or "".
    `files` is the folder with the files of the app and the job, or "".
    """

    task_id: str
    number: int
    payload: TaskPayload
    facts: Dict[str, Any]
    on_started: Callable[[Execution], None]
    on_ended: Callable[[Execution, Outcome], None]
    on_waiting: Callable[[Execution], None]
    on_progress: Callable[[Execution, float, Optional[float]], None]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_files: str = ""
    files: str = ""
    cancelled: bool = False


class Runner(Protocol):
    """Carries out executions. All calls and callbacks happen in the loop."""

    def start(self, execution: Execution) -> None:
        """Start the execution. Its callbacks may be called before this method returns."""

    def kill(self, execution: Execution, grace_s: float) -> None:
        """Ask the execution to end. After the grace period, end it by force.

        A second call replaces the grace period: the new one begins at this call.
        """

    def forget(self, task_id: str) -> None:
        """Drop everything that was kept for a task, because the task has ended."""
