"""Traces for the history: launches, changes and ends of attempts. The core itself never reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import NamedTuple

from jobcloud.messages import AttemptTraced
from jobcloud.model import Cause, Firing, Task, TaskState
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending

# For these causes, the first attempts could start at the fire time of the run. A run for a missed firing starts later
# than its fire time.
_STARTS_WHEN_DUE = frozenset({Cause.CRON, Cause.TRIGGER, Cause.DAEMON})
# An update to one of these states adds nothing to the trace of the launch.
_LAUNCHED = frozenset({TaskState.STORED, TaskState.STAGING})


class _Run(NamedTuple):
    """The part of a trace that comes from the run of the attempt, see AttemptTraced."""

    cause: str
    fire_ms: int
    step: str
    queued_ms: int
    previous: str
    trace: str


class Traces(Part):
    """Installed only if the policy wants traces."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        #: live task, except placeholders → its run, which is kept here because the run's record may be gone when the
        #: task ends
        self._runs: dict[str, _Run] = {}

    def restore(self, at: int) -> None:
        """If an earlier leader launched a task, the time before the launch is known for first attempts only."""
        for task in self._state.tasks.values():
            if not task.placeholder:
                firing = self._state.firings[task.firing_id]
                due = firing.fire_ms if task.attempt == 1 and firing.cause in _STARTS_WHEN_DUE else 0
                self._runs[task.id] = _run(firing, task, due, "")

    def task_launched(self, task: Task, at: int) -> None:
        if task.placeholder:
            return
        firing = self._state.firings[task.firing_id]
        shard = firing.shards[task.item]
        due = shard.not_before_ms
        if not shard.attempt:
            due = firing.fire_ms if firing.cause in _STARTS_WHEN_DUE else 0
        run = self._runs[task.id] = _run(firing, task, due, shard.task_id)
        self._state.emit(AttemptTraced(at, task, task.state, *run))

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if task.state is before.state or task.state in _LAUNCHED or task.placeholder:
            return
        self._state.emit(AttemptTraced(at, task, task.state, *self._runs[task.id], message=task.message))

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        if task.placeholder:
            return
        run = self._runs.pop(task.id)
        traced = AttemptTraced(at, task, ending.end, *run, True, ending.message, ending.outcome)
        self._state.emit(traced)

    def indexes(self) -> Mapping[str, Sized]:
        return {"traced runs": self._runs}

    def validate(self) -> None:
        live = {task.id for task in self._state.tasks.values() if not task.placeholder}
        assert self._runs.keys() == live, f"the traces know the live tasks {set(self._runs)}, not {live}"


def _run(firing: Firing, task: Task, due_ms: int, previous: str) -> _Run:
    queued_ms = max(0, task.created_ms - due_ms) if due_ms else -1
    return _Run(firing.cause, firing.fire_ms, firing.step(task.item) or "", queued_ms, previous, firing.terms.trace)
