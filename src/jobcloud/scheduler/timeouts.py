"""Runs that go on beyond their time limit, and tasks that do not end though they were asked to: a hung executor.

The executor itself ends a run in time; here is who notices that it has not. What is over its limit and a grace is
killed, and has failed however it then ends. What has been asked to end for long has an executor that heeds nothing: the
agent is told to shut that down, which it does by force.

Time counts as the ticks that come, each for two seconds at most, and for the next leader anew: no clock that jumps or
differs, and no scheduler that stood still, ends a run early.
"""

from __future__ import annotations

import heapq

from jobcloud.messages import Kind, ShutdownExecutor, Topic
from jobcloud.model import MAX_KILL_GRACE_MS, Cause, Firing, Job, Step, Task, TaskState, changed
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.state import State

_MOST_MS = 2_000
# What is out of reach, or not heard of yet, is looked at again after this.
_LOOK_MS = 5_000
_STALE = 1_000


class Timeouts:
    def __init__(self, state: State, reconciliation: Reconciliation) -> None:
        self._state = state
        self._reconciliation = reconciliation
        #: task → when it is looked at, in the time that passes here; and the same as a heap, with stale entries
        self.due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._passed = 0
        self._ticked = 0

    def watch(self, task: Task) -> None:
        """The task has started, was asked to end, or was taken up."""
        policy = self._state.policy
        if task.overdue_ms or task.kill_ms:
            self._look_in(task.id, policy.hung_ms + self._grace(task))
        elif task.started_ms and (limit := self._limit(task)):
            self._look_in(task.id, limit + policy.overdue_ms + self._grace(task))

    def begin(self) -> None:
        """A session with the master has begun: before it nothing that was to end could be asked to."""
        for task in self._state.tasks.values():
            self.in_reach(task)

    def in_reach(self, task: Task) -> None:
        """The task may not have heard before now that it is to end: its time to do so begins."""
        if task.overdue_ms or task.kill_ms:
            self.watch(task)

    def forget(self, task_id: str) -> None:
        self.due.pop(task_id, None)

    def next_wake(self) -> int | None:
        if not self.due or not self._state.connected:
            return None
        return self._ticked + max(0, min(self._heap[0][0] - self._passed, _MOST_MS))

    def step(self, at: int) -> None:
        """Time has passed: end what is over its limit, and the executors of what does not end."""
        self._passed += min(max(at - self._ticked, 0), _MOST_MS) if self._ticked else 0
        self._ticked = at
        while self._heap and (self._heap[0][0] <= self._passed or self.due.get(self._heap[0][1]) != self._heap[0][0]):
            due, task_id = heapq.heappop(self._heap)
            if self.due.get(task_id) == due:
                del self.due[task_id]  # until it is watched again
                self._look(self._state.tasks[task_id], at)

    def _look(self, task: Task, at: int) -> None:
        if (
            task.state is TaskState.UNREACHABLE
            or task.id in self._reconciliation.unconfirmed
            or not self._state.connected
        ):
            self._look_in(task.id, _LOOK_MS)
        elif task.overdue_ms or task.kill_ms:
            self._state.emit(ShutdownExecutor(task.executor_id, task.agent_id))
            self._state.publish_task(
                at, Topic.FAULT, task, "does not end though it was asked to: its executor is shut down"
            )
            self.watch(task)
        else:
            self._state.put(Kind.TASK, task.id, changed(task, overdue_ms=at))
            self._reconciliation.send_kill(task, at)
            text = f"runs for longer than its limit, {self._limit(task) / 1000:g} s, and its executor does not end it"
            self._state.publish_task(at, Topic.FAULT, task, text)
            self.watch(self._state.tasks[task.id])

    def _look_in(self, task_id: str, ms: int) -> None:
        due = self._passed + ms
        self.due[task_id] = due
        heapq.heappush(self._heap, (due, task_id))
        if len(self._heap) > 2 * len(self.due) + _STALE:
            self._heap = [(due, task_id) for task_id, due in self.due.items()]
            heapq.heapify(self._heap)

    def _grace(self, task: Task) -> int:
        """How long the executor may take to end it: its own time once by asking and once by force."""
        job = self._state.jobs.get(task.job)
        return 2 * (job.kill_grace_ms if job is not None else MAX_KILL_GRACE_MS if not task.placeholder else 0)

    def _limit(self, task: Task) -> int:
        job = self._state.jobs.get(task.job)
        firing = self._state.firings.get(task.firing_id)
        return limit_ms(job, firing, task.item) if job is not None and firing is not None else 0


def limit_ms(job: Job, firing: Firing, item: int) -> int:
    """How long an attempt may run; 0: for ever. Of a resident each run has the limit, and not the task."""
    if not firing.stepped and not job.timeout_ms:
        return 0
    match firing.step(item):
        case Step.BEFORE:
            return job.before_timeout_ms
        case Step.AFTER:
            return job.after_timeout_ms
        case _:
            return 0 if firing.cause is Cause.DAEMON else job.timeout_ms
