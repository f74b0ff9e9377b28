"""Tasks: attempts of shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Annotated, Any, NamedTuple

from fastapi import Query as Parameter
from pydantic import Field

from jobcloud.config import DELIMITER, abbreviates, team_of
from jobcloud.errors import NotFound
from jobcloud.messages import ForgetTask, KillTask, Publish
from jobcloud.model import Attempt, Firing, Shard, ShardState, Task, TaskName, TaskState
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.server.api.attempts import end_state
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.paging import MATCH, MAX_MATCH, Listing, PageQuery, PageView, shard_bytes
from jobcloud.server.api.problems import Issue, invalid
from jobcloud.server.api.runs import result_of
from jobcloud.server.api.schema import Amounts, Instant, KeyFilter, TaskId, TeamFilter, View, amounts
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.snapshot import Snapshot, Teams
from jobcloud.server.routes import Routes

router = Routes(tags=["tasks"])

_TASKS = Listing("tasks", (int, str, int))

_STATES = ("active", "ended", *dict.fromkeys(state.lower() for state in (*TaskState, *ShardState)))


class TaskView(View):
    id: str
    job_name: str = Field(description="the key of the job")
    team: str
    app_name: str = Field(description="the key of its app")
    run_id: str
    item: int
    step: str = Field(description='"before" or "after" for a call of the run\'s listener; empty for a shard')
    attempt: int
    execution: str
    state: str
    active: bool
    agent_id: str
    hostname: str
    executor_id: str
    fired_at: Instant
    created_at: Instant
    started_at: Instant
    ended_at: Instant
    next_attempt: Instant = Field(description="the time of the next attempt, if the shard waits for one (WAITING)")
    kill_asked_at: Instant
    message: str
    ports: list[int] = Field(description="the ports of the host that the task has, until its end")
    cause: str = Field(description="the cause of a failure, after the task's end; empty if unknown")
    result: Any = Field(description="the return value of the job, or null")


class TaskList(PageView):
    items: list[TaskView]


class StoryLine(View):
    at: Instant
    topic: str
    text: str


class TaskDetail(TaskView):
    resources: Amounts | None
    story: list[StoryLine]


class TaskQuery(PageQuery):
    job: KeyFilter = ""
    app: KeyFilter = ""
    team: TeamFilter = ""
    item: int | None = Field(None, ge=0)
    state: str = Field(
        "",
        description='a state such as RUNNING or FAILED, or "active" or "ended"',
        json_schema_extra={"enum": ["", *_STATES, *(state.upper() for state in _STATES)]},
    )
    prefix: str = Field("", max_length=500, description="the beginning of the task's id")
    match: str = Field("", max_length=MAX_MATCH, description=MATCH)


class Row(NamedTuple):
    """The last attempt of a shard, or an earlier one.

    `task` is None after the end of the attempt. `ended` is the record of an ended attempt that another one follows.
    """

    firing: Firing
    item: int
    shard: Shard
    task: Task | None
    app: str
    ended: Attempt | None = None

    @property
    def id(self) -> str:
        return self.ended.task_id if self.ended else self.shard.task_id

    @property
    def repeats(self) -> bool:
        """Whether the shard waits for the attempt after this one."""
        return self.shard.state is ShardState.WAITING and self.id == self.shard.task_id

    @property
    def state(self) -> str:
        if self.task:
            return self.task.state
        return end_state(self.ended.end) if self.ended and not self.repeats else self.shard.state

    @property
    def place(self) -> tuple[int, str, int]:
        return -self.firing.fire_ms, self.firing.id, self.item


@router.get("/tasks")
def list_tasks(services: ServicesDep, access: AccessDep, query: Annotated[TaskQuery, Parameter()]) -> TaskList:
    """The last attempt of each shard, newest run first."""
    if query.state and query.state.lower() not in _STATES:
        raise invalid([Issue("state", f"{query.state[:80]!r} is not a state of tasks", f"use {', '.join(_STATES)}")])
    teams = access.shown_teams(query.team or team_of(query.job or query.app))
    active = query.state.lower() == "active" or query.state.upper() in TaskState.__members__

    def chosen(snapshot: Snapshot) -> Iterator[Row]:
        return (row for row in _rows(snapshot, query.job, teams, active=active) if _matches(row, query))

    found = chosen(services.snapshot()) if query.cursor else services.first(query.limit + 1, chosen)
    items, cursor = _TASKS.page(found, lambda row: row.place, query, lambda row: shard_bytes(row.shard))
    return TaskList(items=[_task_view(row) for row in items], next_cursor=cursor)


@router.get("/tasks/{task_id}")
def show_task(services: ServicesDep, task_id: TaskId) -> TaskDetail:
    """A task: the last attempt of a shard, or an earlier one that is kept."""
    snapshot = services.snapshot_of_task(task_id)
    view = find_task(snapshot, task_id)
    story = services.loop.ask(lambda scheduler: scheduler.story(task_id))
    return _task_detail(view, snapshot.tasks.get(task_id), story)


@router.post("/tasks/{task_id}/kill", status_code=202)
def kill_task(services: ServicesDep, task_id: TaskId) -> TaskView:
    """Ask a task to end. A shard of a DAEMON job starts again. To stop the shard, disable the job.

    If the shard waits for its next attempt after this task (state WAITING), the shard ends.
    """
    view = find_task(services.snapshot_of_task(task_id), task_id)
    services.command(lambda at: KillTask(at, task_id))
    return view


@router.post("/tasks/{task_id}/forget")
def forget_task(services: ServicesDep, task_id: TaskId, force: bool = False) -> TaskView:
    """Declare a task lost, if you know that it no longer runs. If the task comes back, it is killed.

    The request is refused while Mesos reports the task as alive, unless `force` is true.
    """
    view = find_task(services.snapshot_of_task(task_id), task_id)
    services.command(lambda at: ForgetTask(at, task_id, force))
    return view


def find_task(snapshot: Snapshot, task_id: str) -> TaskView:
    """Raises NotFound."""
    return _task_view(_find_row(snapshot, task_id))


def state_of(snapshot: Snapshot, task_id: str) -> str:
    """The state of a task, or how it ended, even if its shard waits for another attempt. Raises NotFound."""
    row = _find_row(snapshot, task_id)
    return end_state(row.ended.end) if row.ended else row.state


def _find_row(snapshot: Snapshot, task_id: str) -> Row:
    job = task_id.partition(DELIMITER)[0]
    for row in chain(_rows(snapshot, job), _earlier_rows(snapshot, job, task_id)):
        if row.id == task_id:
            return row
    problem = Told(f"there is no task {task_id[:300]}", "no_task", task=task_id[:300])
    raise NotFound(problem, field="taskId", fix=shown_by("jobcloud tasks", "shows all tasks"))


def _rows(snapshot: Snapshot, job: str = "", teams: Teams = None, *, active: bool = False) -> Iterator[Row]:
    """The last attempt of every shard that had one, newest run first. `active`: only attempts that have not ended."""
    for firing in snapshot.newest_runs(job, teams):
        if active and firing.ended_ms:
            continue
        app = _app_of(snapshot, firing)
        for item, shard in enumerate(firing.shards):
            if task := snapshot.tasks.get(shard.task_id):
                yield Row(firing, item, shard, task, task.app)
            elif shard.task_id and not active:
                earlier = snapshot.earlier(firing, item) if shard.state is ShardState.WAITING else []
                last = earlier[-1] if earlier and earlier[-1].task_id == shard.task_id else None
                yield Row(firing, item, shard, None, app, last)


def _earlier_rows(snapshot: Snapshot, job: str, task_id: str) -> Iterator[Row]:
    """The earlier attempts of the shards to which a task may belong."""
    try:
        item = TaskName.parse(task_id).item
    except ValueError:
        return
    for firing in snapshot.runs(job):
        if 0 <= item < len(firing.shards):
            app = _app_of(snapshot, firing)
            for attempt in snapshot.earlier(firing, item):
                yield Row(firing, item, firing.shards[item], None, app, attempt)


def _app_of(snapshot: Snapshot, firing: Firing) -> str:
    known = snapshot.jobs.get(firing.job) or snapshot.ad_hoc.get(firing.job)
    return known.app_key if known else ""


def _matches(row: Row, query: TaskQuery) -> bool:
    group = "active" if row.task else "" if row.repeats else "ended"
    return (
        query.app in ("", row.app)
        and query.item in (None, row.item)
        and query.state.lower() in ("", row.state.lower(), group)
        and row.id.startswith(query.prefix)
        and abbreviates(query.match, row.id)
    )


def _task_view(row: Row) -> TaskView:
    firing, item, shard, task, app, ended = row
    place = task or ended or shard
    number = ended.number if ended else task.attempt if task else shard.attempt
    outcome = ended.outcome if ended else shard.outcome
    return TaskView(
        id=row.id,
        job_name=firing.job,
        team=team_of(firing.job),
        app_name=app,
        run_id=firing.id,
        item=item,
        step=firing.step(item) or "",
        attempt=number,
        execution=place.execution,
        state=row.state,
        active=task is not None,
        agent_id=place.agent_id,
        hostname=place.hostname,
        executor_id=place.executor_id,
        fired_at=firing.fire_ms,
        created_at=task.created_ms if task else 0,
        started_at=place.started_ms,
        ended_at=0 if task else ended.ended_ms if ended else shard.ended_ms,
        next_attempt=shard.not_before_ms if row.repeats else 0,
        kill_asked_at=task.kill_ms if task else 0,
        message=place.message,
        ports=list(task.ports) if task else [],
        cause=outcome.cause,
        result=result_of(outcome),
    )


def _task_detail(view: TaskView, task: Task | None, story: Iterable[Publish]) -> TaskDetail:
    resources = amounts(task.resources) if task else None
    lines = [StoryLine(at=notice.at, topic=notice.topic, text=notice.text) for notice in story]
    return TaskDetail(**dict(view), resources=resources, story=lines)
