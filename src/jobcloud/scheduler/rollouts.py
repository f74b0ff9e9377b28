"""Roll-outs: shards that run an older version of a resident job are replaced, a few at a time.

The progress of a roll-out is derived from stored records only. A task is outdated if its revision differs from the
current revision of its shard, or if the job no longer has its item. Outdated tasks are killed, and each kill is
stored in the task's record. When the end of the task is reported, its shard starts again, as after any other end. At
most `max_unavailable` shards are down at a time. So a version that does not run stops its own roll-out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized

from jobcloud.config import Job, JobKind
from jobcloud.messages import Topic
from jobcloud.model import Firing, Shard, ShardState, Task, TaskState
from jobcloud.scheduler import revisions
from jobcloud.scheduler.firings import FEWER, Firings
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.retry import PROVEN_MS
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.scheduler.tasks import Tasks
from jobcloud.sentences import Parameter, Told

# A task in these states was not seen to run, so its end makes no further shard unavailable.
_NOT_YET = (TaskState.STORED, TaskState.STAGING, TaskState.STARTING)


class Rollouts(Part):
    def __init__(
        self, state: State, hooks: Hooks, firings: Firings, reconciliation: Reconciliation, tasks: Tasks
    ) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._firings = firings
        self._reconciliation = reconciliation
        self._tasks = tasks
        #: job with outdated tasks → the instant of its next check; 0 if it follows a status update of a task
        self._jobs: dict[str, int] = {}
        #: the jobs of `_jobs` that the next tick checks
        self._due: set[str] = set()

    def roll_out(self, job: Job, at: int) -> None:
        """Begin or continue the job's roll-out, after a change of the job or its app."""
        if job.kind is JobKind.DAEMON and any(self._outdated(job)):
            self._jobs.setdefault(job.key, 0)
            if self._state.connected:
                self._roll(job.key, at)

    def begin(self, at: int) -> None:
        self._due = set(self._jobs)

    def clock_set_back(self, at: int) -> None:
        self._due = set(self._jobs)

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if task.job in self._jobs:
            self._due.add(task.job)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        if task.job in self._jobs:
            self._due.add(task.job)

    def next_wake(self, at: int) -> int | None:
        if not self._state.connected or not self._jobs:
            return None
        if self._due:
            return at
        return min((instant for instant in self._jobs.values() if instant), default=None)

    def on_tick(self, at: int) -> None:
        if not self._state.connected:
            return
        due, self._due = self._due, set()
        for name in [name for name, instant in self._jobs.items() if name in due or 0 < instant <= at]:
            self._state.isolated(name, at, self._roll, name, at)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        """The progress of the job's roll-out, and the reason why it waits."""
        firing = self._firings.resident(job.key) if job.key in self._jobs else None
        left = sum(task.item < job.shard_count for task in self._outdated(job)) if firing is not None else 0
        if firing is None or not left:
            return
        down = self._down(job, firing, at)
        progress = f"{left} of the job's {job.shard_count} shards run with an earlier configuration"
        given: dict[str, Parameter] = {"outdated": left, "shards": job.shard_count}
        if (failing := _failing(job, firing, down)) is not None:
            given |= {"item": failing, "message": firing.shards[failing].message}
            yield Reason("rollout_stopped", f"{_stopped(job, firing, down)}; {progress}", parameters=given)
        else:
            limit = f"{len(down)} are down, and the roll-out takes at most {job.max_unavailable} down at once"
            given |= {"down": len(down), "most": job.max_unavailable}
            yield Reason("rolling", f"{progress}; {limit}", waiting_helps=True, parameters=given)

    def indexes(self) -> Mapping[str, Sized]:
        return {"rollouts": self._jobs}

    def validate(self) -> None:
        for job in self._state.jobs.values():
            forgotten = job.kind is JobKind.DAEMON and job.key not in self._jobs and any(self._outdated(job))
            assert not forgotten, f"{job.key} runs outdated shards and is not being rolled out"

    def _outdated(self, job: Job) -> Iterator[Task]:
        firing = self._firings.resident(job.key)
        if firing is not None:
            yield from revisions.outdated(job, self._state.apps.get(job.app_key), firing, self._state.tasks)

    def _roll(self, name: str, at: int) -> None:
        job, firing = self._state.jobs.get(name), self._firings.resident(name)
        outdated = list(self._outdated(job)) if job is not None else []
        if job is None or firing is None or not outdated:
            del self._jobs[name]
            if firing is not None:
                text = "the roll-out has ended: no shard runs with an earlier configuration"
                self._state.publish(at, Topic.CONFIG, text, job=name)
            self._checked(name, None, at)
            return
        if self._state.paused(name):  # a shard that ends in a pause does not start again
            self._jobs[name] = 0
            return
        shards = firing.shards[: job.shard_count]
        down = set(self._down(job, firing, at))
        self._jobs[name] = self._next_check(shards, at)
        self._checked(name, _stopped(job, firing, sorted(down)), at)
        # Shards that are already down come first, because replacing them makes no further shard unavailable.
        for task in sorted(outdated, key=lambda task: (task.item not in down, task.item)):
            if task.kill_ms or not self._may_end(task, job, down):
                continue
            down.add(task.item)
            self._tasks.kill(task, at)
            why = ": its job or app has a newer configuration" if task.item < job.shard_count else f": {FEWER}"
            self._state.publish_task(at, Topic.CONFIG, task, f"ends{why}")

    def _checked(self, name: str, stopped: Told | None, at: int) -> None:
        for hook in self._hooks.rollout_checked:
            hook(name, stopped, at)

    def _down(self, job: Job, firing: Firing, at: int) -> list[int]:
        """The items of the job's shards that are not available."""
        shards = firing.shards[: job.shard_count]
        return [item for item, shard in enumerate(shards) if not self._available(shard, at)]

    def _may_end(self, task: Task, job: Job, down: set[int]) -> bool:
        """Whether an outdated task may be killed now, while the shards in `down` are not available."""
        if task.item >= job.shard_count:
            return True
        if task.state is TaskState.UNREACHABLE:
            return False
        if task.state in _NOT_YET and task.id not in self._reconciliation.unconfirmed:
            return True
        return len(down | {task.item}) <= job.max_unavailable

    def _available(self, shard: Shard, at: int) -> bool:
        """Whether a shard is known to run. If it failed before, it must have run for PROVEN_MS."""
        if shard.state is not ShardState.ACTIVE:
            return False
        task = self._state.tasks[shard.task_id]
        if task.state is not TaskState.RUNNING or task.kill_ms:
            return False
        if task.id in self._reconciliation.unconfirmed:  # it may have ended while there was no leader
            return False
        return not shard.failures or not 0 <= at - task.started_ms < PROVEN_MS

    def _next_check(self, shards: tuple[Shard, ...], at: int) -> int:
        """The instant at which the next shard with earlier failures has run for PROVEN_MS; 0 if there is none."""
        running = [shard for shard in shards if shard.state is ShardState.ACTIVE and shard.failures]
        proven = (self._state.tasks[shard.task_id].started_ms + PROVEN_MS for shard in running)
        return min((instant for instant in proven if instant > at), default=0)


def _stopped(job: Job, firing: Firing, down: Sequence[int]) -> Told | None:
    """Why the roll-out has stopped while the shards `down` are not available; None if it continues."""
    if (item := _failing(job, firing, down)) is None:
        return None
    message = firing.shards[item].message
    why = message or "it has failed, and has not yet run for a minute since then"
    text = f"the roll-out has stopped because shard {item} does not run well: {why}"
    return Told(text, "rollout_stopped", item=item, message=message)


def _failing(job: Job, firing: Firing, down: Sequence[int]) -> int | None:
    """The shard that stops the roll-out while the shards `down` are not available, if any does."""
    failing = (item for item in down if firing.shards[item].failures)
    return next(failing, None) if len(down) >= job.max_unavailable else None
