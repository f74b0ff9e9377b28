"""Tasks: attempts of shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter
from fastapi import Query as Parameter
from pydantic import Field

from jobcloud.config import DELIMITER, team_of
from jobcloud.errors import NotFound
from jobcloud.messages import ForgetTask, KillTask, Publish
from jobcloud.model import Firing, Shard, ShardState, Task, TaskState
from jobcloud.server.api.paging import PageQuery, Place, page, shard_bytes
from jobcloud.server.api.problems import Issue, invalid
from jobcloud.server.api.runs import result_of
from jobcloud.server.api.schema import Amounts, Instant, Key, View, amounts
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.snapshot import Snapshot, check_filter

router = APIRouter(tags=["tasks"])

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
    kill_asked_at: Instant
    message: str
    ports: list[int] = Field(description="the ports of the host that the task has, until its end")
    cause: str = Field(description="the cause of a failure, after the task's end; empty if unknown")
    result: Any = Field(description="the return value of the job, or null")


class TaskList(View):
    items: list[TaskView]
    next_cursor: str = Field("", description='pass as "cursor" for more; "" at the end')


class StoryLine(View):
    at: Instant
    topic: str
    text: str


class TaskDetail(TaskView):
    resources: Amounts | None
    story: list[StoryLine]


class TaskQuery(PageQuery):
    job: Key = ""
    app: Key = ""
    team: str = ""
    item: int | None = Field(None, ge=0)
    state: str = Field("", description='a state such as RUNNING or FAILED, or "active" or "ended"')
    prefix: str = Field("", description="the beginning of the task's id")


class Attempt(NamedTuple):
    """The last attempt of a shard. `task` is None after the end of the attempt."""

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


@router.get("/tasks")
def list_tasks(services: ServicesDep, query: Annotated[TaskQuery, Parameter()]) -> TaskList:
    """The last attempt of each shard, newest run first."""
    if query.state and query.state.lower() not in _STATES:
        raise invalid([Issue("state", f"{query.state[:80]!r} is not a state of tasks", f"use {', '.join(_STATES)}")])
    check_filter(query.team)
    active = query.state.lower() == "active" or query.state.upper() in TaskState.__members__
    attempts = _attempts(services.snapshot(), query.job, query.team, active=active)
    found = (attempt for attempt in attempts if _matches(attempt, query))
    items, cursor = page(found, lambda attempt: attempt.place, lambda attempt: shard_bytes(attempt.shard), query)
    return TaskList(items=[_task_view(attempt) for attempt in items], next_cursor=cursor)


@router.get("/tasks/{task_id}")
def show_task(services: ServicesDep, task_id: str) -> TaskDetail:
    snapshot = services.snapshot()
    view = find_task(snapshot, task_id)
    story = services.loop.ask(lambda scheduler: scheduler.story(task_id))
    return _task_detail(view, snapshot.tasks.get(task_id), story)


@router.post("/tasks/{task_id}/kill", status_code=202)
def kill_task(services: ServicesDep, task_id: str) -> TaskView:
    """Ask a task to end. A shard of a DAEMON job starts again. To stop the shard, disable the job."""
    view = find_task(services.snapshot(), task_id)
    services.command(lambda at: KillTask(at, task_id))
    return view


@router.post("/tasks/{task_id}/forget")
def forget_task(services: ServicesDep, task_id: str, force: bool = False) -> TaskView:
    """Declare a task lost, if you know that it is dead. If the task comes back, it is killed.

    The request is refused while Mesos reports the task as alive, unless `force` is true.
    """
    view = find_task(services.snapshot(), task_id)
    services.command(lambda at: ForgetTask(at, task_id, force))
    return view


def find_task(snapshot: Snapshot, task_id: str) -> TaskView:
    """Raises NotFound."""
    for attempt in _attempts(snapshot, task_id.partition(DELIMITER)[0]):
        if attempt.id == task_id:
            return _task_view(attempt)
    raise NotFound(f"there is no task {task_id[:300]}", field="taskId", fix="`jobcloud tasks` shows all tasks")


def _attempts(snapshot: Snapshot, job: str = "", team: str = "", *, active: bool = False) -> Iterator[Attempt]:
    """The last attempt of every shard that had one, newest run first. `active`: only attempts that have not ended."""
    for firing in snapshot.runs(job, team):
        if active and firing.ended_ms:
            continue
        known = snapshot.jobs.get(firing.job)
        for item, shard in enumerate(firing.shards):
            task = snapshot.tasks.get(shard.task_id)
            if task or (shard.task_id and shard.state.ended and not active):
                yield Attempt(firing, item, shard, task, task.app if task else known.app_key if known else "")


def _matches(attempt: Attempt, query: TaskQuery) -> bool:
    return (
        query.app in ("", attempt.app)
        and query.item in (None, attempt.item)
        and query.state.lower() in ("", attempt.state.lower(), "active" if attempt.task else "ended")
        and attempt.id.startswith(query.prefix)
    )


def _task_view(attempt: Attempt) -> TaskView:
    firing, item, shard, task, app = attempt
    return TaskView(
        id=shard.task_id,
        job_name=firing.job,
        team=team_of(firing.job),
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
        ports=list(task.ports) if task else [],
        cause=shard.outcome.cause,
        result=result_of(shard),
    )


def _task_detail(view: TaskView, task: Task | None, story: Iterable[Publish]) -> TaskDetail:
    resources = amounts(task.resources) if task else None
    lines = [StoryLine(at=notice.at, topic=notice.topic, text=notice.text) for notice in story]
    return TaskDetail(**dict(view), resources=resources, story=lines)
