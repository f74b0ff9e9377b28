"""Timeouts: attempts that exceed their time limit, and tasks that do not end after a kill.

The executor ends an attempt at its time limit. If the executor does not end the attempt, this part kills the task,
after a grace period. An attempt that ends by this kill counts as failed. If a task does not end after a kill, its
executor hangs, and the agent is asked to shut the executor down by force.

This part counts time as the sum of the intervals between ticks. An interval counts as at most two seconds. Each leader
begins to count at zero. So no attempt ends early because the clock jumps or the scheduler stands still.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sized

from jobcloud.config import MAX_KILL_GRACE_MS, Job
from jobcloud.fields import Unit
from jobcloud.messages import Kind, ShutdownExecutor, Topic
from jobcloud.model import Cause, Firing, Step, Task, TaskState, changed
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending

_MAX_STEP_MS = 2_000
# A task that is unreachable or unconfirmed is checked again after this time.
_CHECK_MS = 5_000
_MAX_OBSOLETE = 1_000
_UNREACHABLE = TaskState.UNREACHABLE


class Timeouts(Part):
    def __init__(self, state: State, reconciliation: Reconciliation) -> None:
        super().__init__(state)
        self._reconciliation = reconciliation
        #: task → when it is checked, in the time that this part counts
        self.due: dict[str, int] = {}
        #: the same as a heap; it may contain obsolete entries
        self._heap: list[tuple[int, str]] = []
        self._passed = 0
        self._ticked = 0

    def restore(self, at: int) -> None:
        for task in self._state.tasks.values():
            self._watch(task)

    def begin(self, at: int) -> None:
        """Restart the timeouts of kills, because no kill could be sent before the session began."""
        for task in self._state.tasks.values():
            self._restart_kill_timeout(task)

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if task.started_ms != before.started_ms:
            self._watch(task)
        elif task is not before and before.state is _UNREACHABLE:
            self._restart_kill_timeout(task)

    def task_killed(self, task: Task) -> None:
        self._watch(task)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        self.due.pop(task.id, None)

    def _watch(self, task: Task) -> None:
        policy = self._state.policy
        if self._is_asked_to_end(task):
            self._check_in(task.id, policy.kill_timeout_ms + self._grace(task))
        elif task.started_ms and (limit := self._limit(task)):
            self._check_in(task.id, limit + policy.timeout_grace_ms + self._grace(task))

    def _restart_kill_timeout(self, task: Task) -> None:
        """Restart the timeout of a kill that may not have reached the task before now."""
        if self._is_asked_to_end(task):
            self._watch(task)

    def _is_asked_to_end(self, task: Task) -> bool:
        """Whether the task was asked to end. The request of a drain is not stored in the task's record."""
        return bool(task.overdue_ms or task.kill_ms) or task.id in self._reconciliation.kills

    # ------------------------------------------------------------------------------------------------- time

    def next_wake(self, at: int) -> int | None:
        if not self.due or not self._state.connected:
            return None
        return self._ticked + max(0, min(self._heap[0][0] - self._passed, _MAX_STEP_MS))

    def on_tick(self, at: int) -> None:
        self._passed += min(max(at - self._ticked, 0), _MAX_STEP_MS) if self._ticked else 0
        self._ticked = at
        while self._heap and (self._heap[0][0] <= self._passed or self.due.get(self._heap[0][1]) != self._heap[0][0]):
            due, task_id = heapq.heappop(self._heap)
            if self.due.get(task_id) == due:
                del self.due[task_id]  # until it is watched again
                self._check(self._state.tasks[task_id], at)

    def _check(self, task: Task, at: int) -> None:
        """The task's time is up: kill it, or shut its executor down if it was killed before."""
        unconfirmed = task.id in self._reconciliation.unconfirmed
        if task.state is _UNREACHABLE or unconfirmed or not self._state.connected:
            self._check_in(task.id, _CHECK_MS)
        elif self._is_asked_to_end(task):
            self._state.emit(ShutdownExecutor(task.executor_id, task.agent_id))
            self._state.publish_task(at, Topic.FAULT, task, "did not end after a kill: its executor is shut down")
            self._watch(task)
        else:
            task = changed(task, overdue_ms=at)
            self._state.put(Kind.TASK, task.id, task)
            self._reconciliation.send_kill(task, at)
            text = f"exceeds its time limit of {Unit.MILLI.text(self._limit(task))} s, and its executor does not end it"
            self._state.publish_task(at, Topic.FAULT, task, text)
            self._watch(task)

    def _check_in(self, task_id: str, ms: int) -> None:
        due = self._passed + ms
        self.due[task_id] = due
        heapq.heappush(self._heap, (due, task_id))
        if len(self._heap) > 2 * len(self.due) + _MAX_OBSOLETE:
            self._heap = [(due, task_id) for task_id, due in self.due.items()]
            heapq.heapify(self._heap)

    def _grace(self, task: Task) -> int:
        """The time that the executor has to end the task.

        It is one grace period after the executor has asked the job to stop, and one more for the use of force.
        """
        job = self._state.jobs.get(task.job)
        return 2 * (job.kill_grace_ms if job is not None else MAX_KILL_GRACE_MS if not task.placeholder else 0)

    def _limit(self, task: Task) -> int:
        job = self._state.jobs.get(task.job)
        firing = self._state.firings.get(task.firing_id)
        return limit_ms(job, firing, task.item) if job is not None and firing is not None else 0

    # ------------------------------------------------------------------------------------------------- reading

    def indexes(self) -> Mapping[str, Sized]:
        return {"timeouts": self.due}

    def validate(self) -> None:
        assert self.due.keys() <= self._state.tasks.keys(), "a timeout is set for a task that has no record"


def limit_ms(job: Job, firing: Firing, item: int) -> int:
    """How long an attempt may run; 0 for no limit. A resident job's limit applies to each execution instead."""
    if not firing.stepped and not job.timeout_ms:
        return 0
    match firing.step(item):
        case Step.BEFORE:
            return job.before_timeout_ms
        case Step.AFTER:
            return job.after_timeout_ms
        case _:
            return 0 if firing.cause is Cause.DAEMON else job.timeout_ms
