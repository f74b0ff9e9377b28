"""Roll-outs: the shards of a resident job that run an older version are replaced, a few at a time.

What is left to do is told by the stored records alone: a task whose revision is not the one its shard has now is to be
replaced, one whose item its job has no more is to end, and one that was asked to end says so. A shard that is replaced
is seen to end before it starts anew, as after any other end. The next is not touched before so many run that no more
than `max_unavailable` are down with it; so a version that does not run stops its roll-out by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from jobcloud.messages import Topic
from jobcloud.model import Job, JobKind, Shard, ShardState, Task, TaskState
from jobcloud.scheduler import revisions
from jobcloud.scheduler.explain import Reason
from jobcloud.scheduler.firings import FEWER, Firings
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.retry import PROVEN_MS
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks

# Nothing is lost with these: they have not been seen to run.
_NOT_YET = (TaskState.STORED, TaskState.STAGING, TaskState.STARTING)


class Rollouts:
    def __init__(self, state: State, firings: Firings, reconciliation: Reconciliation, tasks: Tasks) -> None:
        self._state = state
        self._firings = firings
        self._reconciliation = reconciliation
        self._tasks = tasks
        #: job with tasks to be replaced or ended → when it is looked at next, though nothing happens; 0: never
        self.jobs: dict[str, int] = {}
        self._due: set[str] = set()

    def begin(self) -> None:
        """A session with the master has begun."""
        self._due = set(self.jobs)

    def look(self, job: Job, at: int) -> None:
        """The job or its app has changed, or was taken up."""
        if job.kind is JobKind.DAEMON and any(self._stale(job)):
            self.jobs.setdefault(job.name, 0)
            if self._state.connected:
                self._roll(job.name, at)

    def clock_was_set_back(self) -> None:
        self._due = set(self.jobs)

    def next_wake(self) -> int | None:
        """When some shard is to be replaced, or may be."""
        if not self._state.connected or not self.jobs:
            return None
        if self._due or not self._tasks.moved.isdisjoint(self.jobs):
            return 0
        return min((instant for instant in self.jobs.values() if instant), default=None)

    def step(self, at: int) -> None:
        """Ask tasks to end that are to be replaced, as many as may be down."""
        moved, self._tasks.moved = self._tasks.moved | self._due, set()
        if not self._state.connected:
            return
        self._due = set()
        for name in [name for name, instant in self.jobs.items() if name in moved or 0 < instant <= at]:
            self._state.isolated(name, at, self._roll, name, at)

    def reasons(self, job: Job, at: int) -> Iterator[Reason]:
        """How far the job's roll-out is, and what it waits for, for people."""
        firing = self._firings.resident(job.name) if job.name in self.jobs else None
        left = sum(task.item < job.shard_count for task in self._stale(job)) if firing is not None else 0
        if firing is None or not left:
            return
        down = [item for item, shard in enumerate(firing.shards[: job.shard_count]) if not self._available(shard, at)]
        failing = [item for item in down if firing.shards[item].failures]
        go_on = f"{left} of its {job.shard_count} shards run as it was configured before"
        if failing and len(down) >= job.max_unavailable:
            message = firing.shards[failing[0]].message or "it has failed and not run for long since"
            text = f"the roll-out has stopped, as shard {failing[0]} does not run well: {message}; {go_on}"
            yield Reason("rollout_stopped", text)
        else:
            most = f"{len(down)} are down, and the roll-out takes at most {job.max_unavailable} down at once"
            yield Reason("rolling", f"{go_on}; {most}", waiting_helps=True)

    def validate(self) -> None:
        """Raises AssertionError where old shards are forgotten."""
        for job in self._state.jobs.values():
            forgotten = job.kind is JobKind.DAEMON and job.name not in self.jobs and any(self._stale(job))
            assert not forgotten, f"{job.name} runs old shards, and nobody minds"

    def _stale(self, job: Job) -> Iterator[Task]:
        firing = self._firings.resident(job.name)
        if firing is not None:
            yield from revisions.stale(job, self._state.apps.get(job.app), firing, self._state.tasks)

    def _roll(self, name: str, at: int) -> None:
        job, firing = self._state.jobs.get(name), self._firings.resident(name)
        stale = list(self._stale(job)) if job is not None else []
        if job is None or firing is None or not stale:
            del self.jobs[name]
            if firing is not None:
                self._state.publish(at, Topic.CONFIG, "every shard runs, or starts, as configured now", job=name)
            return
        shards = firing.shards[: job.shard_count]
        down = {item for item, shard in enumerate(shards) if not self._available(shard, at)}
        self.jobs[name] = self._next_look(shards, at)
        # What is down already costs nothing, so it comes first.
        for task in sorted(stale, key=lambda task: (task.item not in down, task.item)):
            if task.kill_ms or not self._may_end(task, job, down):
                continue
            down.add(task.item)
            self._tasks.kill(task, at)
            why = ", to be replaced by what is configured now" if task.item < job.shard_count else f": {FEWER}"
            self._state.publish_task(at, Topic.CONFIG, task, f"ends{why}")

    def _may_end(self, task: Task, job: Job, down: set[int]) -> bool:
        if task.item >= job.shard_count:
            return True
        if task.state is TaskState.UNREACHABLE:
            return False
        if task.state in _NOT_YET and task.id not in self._reconciliation.unconfirmed:
            return True
        return len(down | {task.item}) <= job.max_unavailable

    def _available(self, shard: Shard, at: int) -> bool:
        """Whether a shard is known to run, and to have run for a while where it failed before."""
        if shard.state is not ShardState.ACTIVE:
            return False
        task = self._state.tasks[shard.task_id]
        if task.state is not TaskState.RUNNING or task.kill_ms:
            return False
        if task.id in self._reconciliation.unconfirmed:  # it may have ended while no leader listened
            return False
        return not shard.failures or not 0 <= at - task.started_ms < PROVEN_MS

    def _next_look(self, shards: tuple[Shard, ...], at: int) -> int:
        """When the first of those that have failed before will have run for long enough."""
        running = [shard for shard in shards if shard.state is ShardState.ACTIVE and shard.failures]
        proven = (self._state.tasks[shard.task_id].started_ms + PROVEN_MS for shard in running)
        return min((instant for instant in proven if instant > at), default=0)
