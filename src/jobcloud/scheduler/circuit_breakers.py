"""Circuit breakers: they block versions of apps whose executors do not start.

Each start of an executor fetches the app's package, and each firing of each job of the app may start executors on
several agents. If the package is missing or broken, these starts would go on for ever. So a failed start opens the
breaker of its version, and no task of that version starts for a while. Then one task is tried. The first task that runs
closes the breaker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import lru_cache

from jobcloud.config import Job
from jobcloud.model import Firing, Task, TaskState, content_of
from jobcloud.scheduler import retry
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End, Ending

# The wait before the first trial, and the longest wait. The wait doubles with each failed trial. A trial that takes
# longer than the longest wait no longer prevents another trial.
_FIRST_MS, _MAX_MS = 1_000, 60_000
# If a task of the version was seen to run this recently, the agent is at fault, not the version.
_RECENT_MS = 10_000
# Mesos' reasons for an executor that did not start. Mesos also uses some of them for an executor that started and then
# ended.
_NOT_STARTED = frozenset(
    {
        "REASON_CONTAINER_LAUNCH_FAILED",
        "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
        "REASON_EXECUTOR_TERMINATED",
        "REASON_EXECUTOR_UNREGISTERED",
    }
)
_PACKAGE = "package"
_SUCCEEDED, _FAILED = End.SUCCEEDED, End.FAILED
_RUNNING, _UNREACHABLE = TaskState.RUNNING, TaskState.UNREACHABLE


# The function is cached, because it is called for every task, and there are few different executors.
_content_of = lru_cache(maxsize=4096)(content_of)


@dataclass(slots=True)
class _Breaker:
    """An open breaker. `trial`: the task that tests whether executors start, or "". `expired`: the wait has ended."""

    app: str
    failures: int
    until_ms: int
    why: str
    trial: str = ""
    expired: bool = False


class CircuitBreakers(Part):
    """Breakers are not stored: a new leader begins with all of them closed."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        #: executor content → its open breaker
        self.open: dict[str, _Breaker] = {}
        #: keys of executors in which some task has run
        self._proven: set[str] = set()
        #: executor content → when a task of it was last seen to run
        self._ran_ms: dict[str, int] = {}

    def restore(self, at: int) -> None:
        for task in self._state.tasks.values():
            if task.started_ms:
                self._close(task, task.started_ms)

    def blocks(self, app: str, at: int) -> bool:
        """Whether no task of the app may start now."""
        found = self._of(app)
        return found is not None and at < found.until_ms

    def on_trial(self, app: str) -> bool:
        """Whether only one task of the app may start."""
        return self._of(app) is not None

    def _of(self, app: str) -> _Breaker | None:
        if not self.open or app not in self._state.plans:
            return None
        return self.open.get(self._state.plans[app].id)

    # ------------------------------------------------------------------------------------------------- tasks

    def task_launched(self, task: Task, at: int) -> None:
        if self.open and (found := self.open.get(_content_of(task.executor_id))) is not None:
            found.trial, found.until_ms, found.expired = task.id, at + _MAX_MS, False

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if task.state is _RUNNING:
            if not before.started_ms:
                self._close(task, at)
        elif task.state is _UNREACHABLE:
            self._end_trial(task, at)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        cause = ending.outcome.cause
        if cause == _PACKAGE or (ending.reason in _NOT_STARTED and not self._has_started(task)):
            self._trip(task, ending.message, at)
        elif ending.end is _SUCCEEDED or (cause and ending.end is _FAILED):
            self._close(task, at)
        if self.open:
            self._end_trial(task, at)

    def _has_started(self, task: Task) -> bool:
        return bool(task.started_ms) or executor_key(task.agent_id, task.executor_id) in self._proven

    def _close(self, task: Task, at: int) -> None:
        """Close the breaker of the task's version: the task has run, so its executor has started."""
        content = _content_of(task.executor_id)
        self._ran_ms[content] = at
        self._proven.add(executor_key(task.agent_id, task.executor_id))
        if self.open.pop(content, None) is not None:
            self._state.request_cycle()

    def _trip(self, task: Task, why: str, at: int) -> None:
        """Open the breaker of the task's version, or lengthen its wait: the task's executor has not started."""
        content = _content_of(task.executor_id)
        found = self.open.get(content)
        if found is None:
            if 0 <= at - self._ran_ms.get(content, at - _RECENT_MS) < _RECENT_MS:
                return
            self.open[content] = _Breaker(task.app, 1, at + _FIRST_MS, why)
        elif found.trial == task.id:
            found.failures, found.trial, found.expired, found.why = found.failures + 1, "", False, why
            found.until_ms = at + retry.backoff_ms(found.failures, _FIRST_MS, _MAX_MS)
        else:  # this task was launched before the breaker opened
            found.why = why

    def _end_trial(self, task: Task, at: int) -> None:
        """End the trial of a task that has ended or is unreachable. Another task may be tried."""
        found = self.open.get(_content_of(task.executor_id))
        if found is not None and found.trial == task.id:
            found.trial, found.until_ms = "", at

    # ------------------------------------------------------------------------------------------------- time

    def next_wake(self, at: int) -> int | None:
        return min((found.until_ms for found in self.open.values() if not found.expired), default=None)

    def on_tick(self, at: int) -> None:
        """Drop the breakers of versions that no app has any longer, and allow a trial if a wait has ended."""
        if not self.open:
            return
        current = {plan.id for plan in self._state.plans.values()}
        self.open = {content: found for content, found in self.open.items() if content in current}
        ended = [found for found in self.open.values() if not found.expired and found.until_ms <= at]
        for found in ended:
            found.expired = True
        if ended:
            self._state.request_cycle()

    def clock_set_back(self, at: int) -> None:
        for found in self.open.values():
            # Once a wait has ended, nothing would notice its end a second time.
            found.until_ms = min(found.until_ms, at if found.expired else at + _MAX_MS)

    def sweep(self, at: int) -> None:
        self._proven &= self._state.executors.keys()
        current = {plan.id for plan in self._state.plans.values()}
        self._ran_ms = {content: ran for content, ran in self._ran_ms.items() if content in current}

    # ------------------------------------------------------------------------------------------------- reading

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        found = self._of(job.app_key)
        if found is not None:
            trial = "one task is being tried" if found.trial else "the next one is tried soon"
            text = f"executors of app {job.app_key} do not start ({found.failures} in a row): {found.why}; {trial}"
            yield Reason(
                "start_failed", text, waiting_helps=True, at=max(at, found.until_ms),
                case="trial" if found.trial else "",
                parameters={"app": job.app_key, "failures": found.failures, "message": found.why},
            )  # fmt: skip

    def indexes(self) -> Mapping[str, Sized]:
        return {"circuit_breakers": self.open}
