"""What the API shows: views built outside the scheduler's thread, from the frozen values it hands over."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from jobcloud.errors import NotFound
from jobcloud.match import PlainMatcher
from jobcloud.messages import Publish
from jobcloud.model import (
    DELIMITER,
    App,
    Executor,
    Firing,
    Job,
    JobKind,
    JobState,
    Resources,
    Shard,
    ShardState,
    Step,
    Task,
    TaskState,
)
from jobcloud.scheduler import Scheduler, revisions
from jobcloud.scheduler.explain import AgentView, Explanation
from jobcloud.server.api.convert import app_config, job_config
from jobcloud.server.api.problems import Issue, invalid
from jobcloud.server.api.schema import (
    AgentOut,
    Amounts,
    AppView,
    DrainOut,
    ExecutorView,
    ExplanationView,
    JobRollout,
    JobView,
    MaintenanceOut,
    ReasonView,
    RolloutView,
    RunState,
    RunSummary,
    RunView,
    ShardView,
    StoryLine,
    TaskDetail,
    TaskView,
)

V = TypeVar("V")
# Where something stands in a list that shows the newest first: minus its instant, its id, its item.
Place: TypeAlias = tuple[int, str, int]


class Kept(NamedTuple):
    """How many of an app's kept executors are up, and why no more."""

    warm: int
    lacking: str


@dataclass(frozen=True)
class Snapshot:
    """The scheduler's values at one moment."""

    apps: Mapping[str, App]
    jobs: Mapping[str, Job]
    states: Mapping[str, JobState]
    disabled_apps: frozenset[str]
    firings: Mapping[str, Firing]
    tasks: Mapping[str, Task]
    executors: Sequence[Executor]
    next_firings: Mapping[str, int]
    matcher: Literal["compiled", "plain"]  # the twin in use
    kept: Mapping[str, Kept]  # of each app that keeps executors

    def runs(self, job: str = "") -> list[Firing]:
        """The firings of a job, or all, the newest first."""
        found = (firing for firing in self.firings.values() if job in ("", firing.job))
        return sorted(found, key=lambda firing: (-firing.fire_ms, firing.id))

    def runs_by_job(self) -> Mapping[str, list[Firing]]:
        """The firings of each job, the newest first."""
        found: dict[str, list[Firing]] = defaultdict(list)
        for firing in self.runs():
            found[firing.job].append(firing)
        return found

    def app(self, name: str) -> App:
        if name not in self.apps:
            raise no_app(name)
        return self.apps[name]

    def job(self, name: str) -> Job:
        if name not in self.jobs:
            raise NotFound(f"there is no job {name[:100]}", field="jobName", fix="`jobcloud job list` names them")
        return self.jobs[name]


def take(scheduler: Scheduler, at: int) -> Snapshot:
    """Run by the scheduler's thread: it copies references, nothing else."""
    due = {name: scheduler.next_firing(name) for name in scheduler.jobs}
    return Snapshot(
        dict(scheduler.apps),
        dict(scheduler.jobs),
        dict(scheduler.job_states),
        frozenset(scheduler.disabled_apps),
        dict(scheduler.firings),
        dict(scheduler.tasks),
        tuple(scheduler.executors.values()),
        {name: instant for name, instant in due.items() if instant is not None},
        "plain" if isinstance(scheduler.cluster.matcher, PlainMatcher) else "compiled",
        {app.name: _kept(scheduler, app.name, at) for app in scheduler.apps.values() if app.executors},
    )


def _kept(scheduler: Scheduler, app: str, at: int) -> Kept:
    lacking = scheduler.lacking_executors(app, at)
    return Kept(scheduler.warm_executors(app), lacking.text if lacking else "")


def app_view(snapshot: Snapshot, name: str) -> AppView:
    app = snapshot.app(name)
    jobs = sorted(job.name for job in snapshot.jobs.values() if job.app == name)
    kept = snapshot.kept.get(name, Kept(0, ""))
    return AppView(
        app_name=name,
        enabled=name not in snapshot.disabled_apps,
        jobs=jobs,
        warm_executors=kept.warm,
        executors_lacking=kept.lacking,
        config=app_config(app),
    )


def rollout_view(scheduler: Scheduler, name: str, at: int) -> RolloutView:
    """Raises NotFound. Run by the scheduler's thread."""
    if name not in scheduler.apps:
        raise no_app(name)
    jobs = [
        _job_rollout(scheduler, job, at)
        for job in sorted(scheduler.jobs.values(), key=lambda job: job.name)
        if job.app == name and job.kind is JobKind.DAEMON and scheduler.enabled(job.name)
    ]
    lacking = scheduler.lacking_executors(name, at)
    stopped = any(job.stopped for job in jobs) or (lacking is not None and lacking.at > at)
    done = lacking is None and all(job.running == job.shards and not job.outdated for job in jobs)
    return RolloutView(
        app_name=name,
        state="stopped" if stopped else "done" if done else "rolling",
        jobs=jobs,
        warm_executors=scheduler.warm_executors(name),
        executors_lacking=lacking.text if lacking else "",
    )


def _job_rollout(scheduler: Scheduler, job: Job, at: int) -> JobRollout:
    generation = scheduler.job_states[job.name].generation
    firings = [firing for firing in scheduler.queue.unfinished(job.name) if firing.generation == generation]
    stale = {
        task.id
        for firing in firings
        for task in revisions.stale(job, scheduler.apps[job.app], firing, scheduler.tasks)
        if task.item < job.shard_count
    }
    tasks = (scheduler.tasks.get(shard.task_id) for firing in firings for shard in firing.shards)
    running = sum(
        task is not None and task.state is TaskState.RUNNING and not task.kill_ms and task.id not in stale
        for task in tasks
    )
    reasons = () if running == job.shard_count else scheduler.explain(job.name, at).reasons
    stopped = next((reason.text for reason in reasons if reason.code in _STOPPED), "")
    waiting = next((reason.text for reason in reasons if reason.code != "running"), "")
    return JobRollout(
        job_name=job.name,
        shards=job.shard_count,
        running=running,
        outdated=len(stale),
        stopped=stopped,
        waiting=waiting,
    )


# Where all shards are new there is nothing left to roll, and the last one's back-off tells.
_STOPPED = ("rollout_stopped", "fault", "back_off")


def no_app(name: str) -> NotFound:
    return NotFound(f"there is no app {name[:100]}", field="appName", fix="`jobcloud app list` names them")


def job_view(snapshot: Snapshot, name: str, runs: Sequence[Firing] | None = None) -> JobView:
    """`runs` are the job's, the newest first, where they are known already."""
    job, state = snapshot.job(name), snapshot.states[name]
    runs = snapshot.runs(name) if runs is None else runs
    shards = [shard.state for run in runs if not run.ended_ms for shard in run.work]
    return JobView(
        job_name=name,
        app_name=job.app,
        enabled=not state.disabled and job.app not in snapshot.disabled_apps,
        disabled=state.disabled,
        next_firing=snapshot.next_firings.get(name, 0),
        waiting_shards=shards.count(ShardState.WAITING),
        active_shards=shards.count(ShardState.ACTIVE),
        outdated_shards=_outdated(snapshot, job, runs),
        last_run=run_summary(runs[0]) if runs else None,
        skipped_firings=state.skipped,
        skipped_reason=state.skipped_reason,
        dead_runs=sum(run_state(run) == "DEAD" for run in runs),
        config=job_config(job),
    )


def _outdated(snapshot: Snapshot, job: Job, runs: Sequence[Firing]) -> int:
    if job.kind is not JobKind.DAEMON:
        return 0
    generation, app = snapshot.states[job.name].generation, snapshot.apps.get(job.app)
    current = [run for run in runs if not run.ended_ms and run.generation == generation]
    return sum(
        task.item < job.shard_count for run in current for task in revisions.stale(job, app, run, snapshot.tasks)
    )


def run_state(firing: Firing) -> RunState:
    """The state of a firing as one word: that of its worst shard once it has ended."""
    states = {shard.state for shard in firing.shards}
    if not firing.ended_ms:
        return "WAITING" if states == {ShardState.WAITING} else "ACTIVE"
    for state, word in _WORST_FIRST:
        if state in states:
            return word
    return "FINISHED"


_WORST_FIRST: tuple[tuple[ShardState, RunState], ...] = (
    (ShardState.DEAD, "DEAD"),
    (ShardState.FAILED, "FAILED"),
    (ShardState.KILLED, "KILLED"),
    (ShardState.CANCELLED, "CANCELLED"),
)


def run_summary(firing: Firing) -> RunSummary:
    return RunSummary(
        id=firing.id,
        job_name=firing.job,
        cause=firing.cause,
        fired_at=firing.fire_ms,
        ended_at=firing.ended_ms,
        state=run_state(firing),
    )


def run_view(firing: Firing) -> RunView:
    shards = [_shard_view(item, shard, firing.step(item)) for item, shard in enumerate(firing.shards)]
    return RunView(
        id=firing.id,
        job_name=firing.job,
        cause=firing.cause,
        fired_at=firing.fire_ms,
        ended_at=firing.ended_ms,
        state=run_state(firing),
        shards=shards,
    )


def _shard_view(item: int, shard: Shard, step: Step | None) -> ShardView:
    return ShardView(
        item=item,
        step=step or "",
        state=shard.state,
        attempt=shard.attempt,
        execution=shard.execution,
        failures=shard.failures,
        retries=shard.retries,
        task_id=shard.task_id,
        agent_id=shard.agent_id,
        hostname=shard.hostname,
        not_before=shard.not_before_ms,
        started_at=shard.started_ms,
        ended_at=shard.ended_ms,
        message=shard.message,
        cause=shard.outcome.cause,
        result=_result(shard),
    )


def _result(shard: Shard) -> Any:
    return json.loads(shard.outcome.result) if shard.outcome.result else None


class Attempt(NamedTuple):
    """The last attempt of a shard; `task` is None once it has ended."""

    firing: Firing
    item: int
    shard: Shard
    task: Task | None
    app: str

    @property
    def id(self) -> str:
        return self.shard.task_id

    @property
    def state(self) -> str:
        return self.task.state if self.task else self.shard.state

    @property
    def place(self) -> Place:
        return -self.firing.fire_ms, self.firing.id, self.item


def attempts(snapshot: Snapshot, job: str = "", *, active: bool = False) -> Iterator[Attempt]:
    """The last attempt of every shard that had one, by firing, the newest firing first; `active`: those that run."""
    for firing in snapshot.runs(job):
        if active and firing.ended_ms:
            continue
        known = snapshot.jobs.get(firing.job)
        for item, shard in enumerate(firing.shards):
            task = snapshot.tasks.get(shard.task_id)
            if task or (shard.task_id and shard.state.ended and not active):
                yield Attempt(firing, item, shard, task, task.app if task else known.app if known else "")


def task_view(attempt: Attempt) -> TaskView:
    firing, item, shard, task, app = attempt
    return TaskView(
        id=shard.task_id,
        job_name=firing.job,
        app_name=app,
        run_id=firing.id,
        item=item,
        step=firing.step(item) or "",
        attempt=task.attempt if task else shard.attempt,
        execution=task.execution if task else shard.execution,
        state=attempt.state,
        active=task is not None,
        agent_id=task.agent_id if task else shard.agent_id,
        hostname=task.hostname if task else shard.hostname,
        executor_id=task.executor_id if task else shard.executor_id,
        fired_at=firing.fire_ms,
        created_at=task.created_ms if task else 0,
        started_at=task.started_ms if task else shard.started_ms,
        ended_at=0 if task else shard.ended_ms,
        kill_asked_at=task.kill_ms if task else 0,
        message=task.message if task else shard.message,
        cause=shard.outcome.cause,
        result=_result(shard),
    )


def find_task(snapshot: Snapshot, task_id: str) -> TaskView:
    """Raises NotFound."""
    for attempt in attempts(snapshot, task_id.partition(DELIMITER)[0]):
        if attempt.id == task_id:
            return task_view(attempt)
    raise NotFound(f"there is no task {task_id[:300]}", field="taskId", fix="`jobcloud tasks` lists those there are")


def task_detail(view: TaskView, task: Task | None, story: Iterable[Publish]) -> TaskDetail:
    resources = amounts(task.resources) if task else None
    lines = [StoryLine(at=notice.at, topic=notice.topic, text=notice.text) for notice in story]
    return TaskDetail(**dict(view), resources=resources, story=lines)


def amounts(resources: Resources) -> Amounts:
    return Amounts(
        cpu_count=resources.cpus,
        memory_mb=resources.mem,
        disk_mb=resources.disk,
        gpu_count=resources.gpus,
        port_count=resources.ports,
    )


def explanation_view(explanation: Explanation, next_firing: int | None) -> ExplanationView:
    reasons = [
        ReasonView(
            code=reason.code,
            text=reason.text,
            resource=reason.resource,
            asked=reason.asked,
            available=reason.available,
            hosts=reason.hosts,
            waiting_helps=reason.waiting_helps,
        )
        for reason in explanation.reasons
    ]
    return ExplanationView(
        job_name=explanation.job,
        headline=explanation.headline,
        waiting=explanation.waiting,
        active=explanation.active,
        behind=explanation.behind,
        next_firing=next_firing or 0,
        reasons=reasons,
    )


def agent_out(agent: AgentView) -> AgentOut:
    drain, window = agent.drain, agent.window
    return AgentOut(
        agent_id=agent.id,
        hostname=agent.hostname,
        address=agent.address,
        attributes=dict(agent.attributes),
        offered=amounts(agent.offered),
        claimed=amounts(agent.claimed),
        whole=amounts(agent.whole),
        offers=agent.offers,
        executors=list(agent.executors),
        lost=agent.lost,
        tasks=agent.tasks,
        closed=agent.cordoned,
        drain=DrainOut(since=drain.since_ms, deadline=drain.deadline_ms, reason=drain.reason) if drain else None,
        maintenance=MaintenanceOut(start=window.start_ms, end=window.end_ms) if window else None,
    )


def executor_views(snapshot: Snapshot) -> list[ExecutorView]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    kept: set[tuple[str, str]] = set()
    for task in snapshot.tasks.values():
        if task.placeholder:
            kept.add((task.agent_id, task.executor_id))
        else:
            counts[task.agent_id, task.executor_id] += 1
    return [
        ExecutorView(
            id=executor.id,
            agent_id=executor.agent_id,
            app_name=executor.app,
            tasks=counts[executor.agent_id, executor.id],
            kept=(executor.agent_id, executor.id) in kept,
            launched_at=executor.launched_ms,
        )
        for executor in sorted(snapshot.executors, key=lambda e: (e.app, e.agent_id, e.id))
    ]


# ------------------------------------------------------------------------------------------------------------ paging


def page(items: Iterable[V], place: Callable[[V], Place], cursor: str, limit: int) -> tuple[list[V], str]:
    """The items behind the cursor, at most `limit`, and the cursor behind those; `items` rise by `place`.

    A cursor names a place, not a number: items that come or go meanwhile neither repeat nor hide others.
    """
    behind = _decode(cursor) if cursor else None
    rest = (item for item in items if behind is None or place(item) > behind)
    found = list(islice(rest, limit + 1))
    return found[:limit], _encode(place(found[limit - 1])) if len(found) > limit else ""


def _encode(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _decode(cursor: str) -> Place:
    """Raises Problem."""
    try:
        instant, name, item = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if type(instant) is int and type(name) is str and type(item) is int:
            return instant, name, item
    except (TypeError, ValueError, RecursionError):
        pass
    raise invalid([Issue("cursor", "is none of ours", "pass nextCursor of the page before")])
