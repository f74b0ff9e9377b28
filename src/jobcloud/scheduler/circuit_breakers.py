"""Circuit breakers: versions of apps whose executors do not come up, and when one more is tried.

Each start of an executor fetches the app's package, on each agent, and each firing of each job of the app may start
some: where the package is missing or broken that would never end. So after a start that failed no further executor of
that version is asked to run anything for a while, then for one task alone; the first task that runs ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobcloud.model import Task, content_of
from jobcloud.scheduler import retry
from jobcloud.scheduler.explain import Reason
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End

# One more is tried after so long, twice as long each time; one without an answer is given up after the longer time.
_FIRST_MS, _MOST_MS = 1_000, 60_000
# Where a task of the version ran within so long, the agent is at fault and not the version.
_GOOD_MS = 10_000
# How Mesos says that an executor did not come up; what came up and ended says some of it, too.
_NOT_STARTED = frozenset(
    {
        "REASON_CONTAINER_LAUNCH_FAILED",
        "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
        "REASON_EXECUTOR_TERMINATED",
        "REASON_EXECUTOR_UNREGISTERED",
    }
)
_PACKAGE = "package"
_SUCCEEDED = End.SUCCEEDED


@dataclass(slots=True)
class _Breaker:
    """`trial` is the task that is to show whether executors come up again."""

    app: str
    failures: int
    until_ms: int
    why: str
    trial: str = ""
    expired: bool = False


class CircuitBreakers:
    """Nothing of it is stored: a new leader begins with one more start of each."""

    def __init__(self, state: State) -> None:
        self._state = state
        #: executor id → its breaker
        self.open: dict[str, _Breaker] = {}
        #: keys of executors in which some task has run
        self.proven: set[str] = set()
        #: executor id → when a task was last seen to run
        self._ran_ms: dict[str, int] = {}

    def restore(self) -> None:
        for task in self._state.tasks.values():
            if task.started_ms:
                self.ran(task, task.started_ms)

    def holds(self, app: str, at: int) -> bool:
        """Whether nothing of the app may start now."""
        found = self._of(app)
        return found is not None and at < found.until_ms

    def on_trial(self, app: str) -> bool:
        """Whether one task of the app may start, and no more."""
        return self._of(app) is not None

    def launched(self, task: Task, at: int) -> None:
        if self.open and (found := self.open.get(content_of(task.executor_id))) is not None:
            found.trial, found.until_ms, found.expired = task.id, at + _MOST_MS, False

    def ran(self, task: Task, at: int) -> None:
        """A task is running: its executor has come up."""
        content = content_of(task.executor_id)
        self._ran_ms[content] = at
        self.proven.add(executor_key(task.agent_id, task.executor_id))
        if self.open.pop(content, None) is not None:
            self._state.request_cycle()

    def ended(self, task: Task, end: End, reason: str, cause: str, message: str, at: int) -> None:
        """`reason` is Mesos', `cause` the executor's own word."""
        if cause == _PACKAGE or (reason in _NOT_STARTED and not self._has_started(task)):
            self._failed(task, message, at)
        elif end is _SUCCEEDED or (cause and end is End.FAILED):
            self.ran(task, at)

    def _has_started(self, task: Task) -> bool:
        return bool(task.started_ms) or executor_key(task.agent_id, task.executor_id) in self.proven

    def lost_sight_of(self, task: Task, at: int) -> None:
        """The task tells nothing any more of whether executors come up: it is over, or out of reach."""
        found = self.open.get(content_of(task.executor_id)) if self.open else None
        if found is not None and found.trial == task.id:
            found.trial, found.until_ms = "", at

    def _failed(self, task: Task, why: str, at: int) -> None:
        content = content_of(task.executor_id)
        found = self.open.get(content)
        if found is None:
            if 0 <= at - self._ran_ms.get(content, at - _GOOD_MS) < _GOOD_MS:
                return
            self.open[content] = _Breaker(task.app, 1, at + _FIRST_MS, why)
        elif found.trial == task.id:
            found.failures, found.trial, found.expired, found.why = found.failures + 1, "", False, why
            found.until_ms = at + retry.backoff_ms(found.failures, _FIRST_MS, _MOST_MS)
        else:  # one of those that were started before the first had failed
            found.why = why

    def _of(self, app: str) -> _Breaker | None:
        if not self.open or app not in self._state.plans:
            return None
        return self.open.get(self._state.plans[app].id)

    def reason(self, app: str, at: int) -> Reason | None:
        """Why tasks of the app wait, for people."""
        found = self._of(app)
        if found is None:
            return None
        what = "one task is tried" if found.trial else "the next one is tried soon"
        text = f"executors of app {app} do not come up ({found.failures} in a row): {found.why}; {what}"
        return Reason("start_failed", text, waiting_helps=True, at=max(at, found.until_ms))

    def next_wake(self) -> int | None:
        return min((found.until_ms for found in self.open.values() if not found.expired), default=None)

    def expire_backoffs(self, at: int) -> bool:
        """Whether a wait has ended since this was last asked. Versions that are no more are forgotten."""
        if not self.open:
            return False
        current = {plan.id for plan in self._state.plans.values()}
        self.open = {executor_id: found for executor_id, found in self.open.items() if executor_id in current}
        ended = [found for found in self.open.values() if not found.expired and found.until_ms <= at]
        for found in ended:
            found.expired = True
        return bool(ended)

    def sweep(self) -> None:
        self.proven &= self._state.executors.keys()
        current = {plan.id for plan in self._state.plans.values()}
        self._ran_ms = {executor_id: at for executor_id, at in self._ran_ms.items() if executor_id in current}

    def clock_was_set_back(self, at: int) -> None:
        for found in self.open.values():
            found.until_ms = min(found.until_ms, at + _MOST_MS)
