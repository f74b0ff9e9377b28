"""Tasks, runs, executors and the cluster: what is going on."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

import jobcloud
from jobcloud.cron import CronError, Dialect, Fold, Gap, Schedule
from jobcloud.errors import ConfigError, NotFound
from jobcloud.messages import DrainAgent, ForgetTask, KillTask, Retry, UndrainAgent
from jobcloud.model import ShardState, TaskState
from jobcloud.server.api import views
from jobcloud.server.api.body import read_object
from jobcloud.server.api.follow import PatientResponse, Source, decode
from jobcloud.server.api.ports import LogChunk, LogRequest
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import (
    AgentOut,
    ClusterView,
    ExecutorList,
    FiringTimes,
    Health,
    LogView,
    RunList,
    RunState,
    RunView,
    TaskDetail,
    TaskList,
    TaskView,
    TeardownView,
)
from jobcloud.server.api.services import Services, Use

router = APIRouter()
Body = Annotated[dict[str, Any], Depends(read_object)]

_MOST_TAIL_BYTES = 1 << 20


_TASK_STATES = ("", "active", "ended", *dict.fromkeys(state.lower() for state in (*TaskState, *ShardState)))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Page(_Strict):
    limit: int = Field(100, ge=1, le=1000)
    cursor: str = Field("", max_length=1000)


class TaskQuery(_Page):
    job: str = ""
    app: str = ""
    item: int | None = Field(None, ge=0)
    state: str = Field("", description='a state such as RUNNING or FAILED, or "active" or "ended"')
    prefix: str = Field("", description="how the task's id begins")


class RunQuery(_Page):
    job: str = ""
    state: RunState | None = None


class LogQuery(_Strict):
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(0, ge=0, lt=1 << 50)
    limit: int = Field(65_536, ge=1, le=_MOST_TAIL_BYTES, description="bytes")
    tail: int | None = Field(None, ge=1, le=10_000, description="lines from the end, instead of an offset")


class DrainQuery(_Strict):
    deadline: int = Field(0, ge=0, le=30 * 86_400, description="in so many seconds; 600 where it is 0")
    reason: str = Field("", max_length=1000)


class CronQuery(_Strict):
    cron: str = Field(max_length=1000)
    zone: str = Field("UTC", max_length=100)
    dialect: Dialect = Dialect.QUARTZ
    gap: Gap = Gap.RUN_AFTER
    fold: Fold = Fold.AUTO
    after: int = Field(0, ge=0, lt=1 << 45, description="milliseconds since the Unix epoch; now where it is 0")
    count: int = Field(5, ge=1, le=100)


# ------------------------------------------------------------------------------------------------------------ tasks


@router.get("/tasks", tags=["tasks"])
def list_tasks(use: Use, query: Annotated[TaskQuery, Query()]) -> TaskList:
    """The last attempt of each shard, of the newest firing first."""
    if query.state.lower() not in _TASK_STATES:
        raise invalid(
            [Issue("state", f"{query.state!r} is no state of tasks", "there are: " + ", ".join(_TASK_STATES))]
        )
    snapshot = use.snapshot()
    active = query.state.lower() == "active" or query.state.upper() in TaskState.__members__
    found = (a for a in views.attempts(snapshot, query.job, active=active) if _wanted(a, query))
    items, cursor = views.page(found, lambda attempt: attempt.place, query.cursor, query.limit)
    return TaskList(items=[views.task_view(attempt) for attempt in items], next_cursor=cursor)


@router.get("/tasks/{task_id}", tags=["tasks"])
def show_task(use: Use, task_id: str) -> TaskDetail:
    snapshot = use.snapshot()
    view = views.find_task(snapshot, task_id)
    story = use.loop.ask(lambda scheduler: scheduler.story(task_id))
    return views.task_detail(view, snapshot.tasks.get(task_id), story)


@router.post("/tasks/{task_id}/kill", status_code=202, tags=["tasks"])
def kill_task(use: Use, task_id: str) -> TaskView:
    """Ask for its end. A shard of a DAEMON job starts again; disable the job to stop it."""
    view = views.find_task(use.snapshot(), task_id)
    use.command(lambda at: KillTask(at, task_id))
    return view


@router.post("/tasks/{task_id}/forget", tags=["tasks"])
def forget_task(use: Use, task_id: str, force: bool = False) -> TaskView:
    """Treat a task as lost that you know to be dead; if it comes back after all, it is ended.

    Refused while Mesos says that it is alive, unless `force`d.
    """
    view = views.find_task(use.snapshot(), task_id)
    use.command(lambda at: ForgetTask(at, task_id, force))
    return view


@router.get("/tasks/{task_id}/logs", tags=["tasks"])
def read_log(use: Use, task_id: str, query: Annotated[LogQuery, Query()]) -> LogView:
    """What the task has written so far, read from its agent."""
    request, active = _log_request(use, task_id, query)
    try:
        chunk = _read_chunk(use, request)
    except NotFound:
        if not active:
            raise
        # Files are made with the first byte: nothing has been written yet.
        chunk = LogChunk(b"", 0, 0)
    if query.tail:
        chunk = _last_lines(chunk, query.tail)
    text, length = decode(chunk.data)
    return LogView(
        task_id=task_id,
        stream=query.stream,
        offset=chunk.offset,
        next_offset=chunk.offset + length,
        size=chunk.size,
        text=text,
    )


@router.get("/tasks/{task_id}/logs/stream", tags=["tasks"], response_class=StreamingResponse)
def follow_log(
    use: Use,
    task_id: str,
    query: Annotated[LogQuery, Query()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """What the task writes, as server-sent events, until it has ended (or on from the event named in Last-Event-ID).

    `output` has `{offset, text, missed}`, `end` the task's state, `error` a problem document.
    """
    use.followers.check_room()
    request, active = _log_request(use, task_id, query)
    if last_event_id.isascii() and last_event_id.isdigit():
        request = replace(request, offset=int(last_event_id[:15]))
    try:
        # Here a problem can still be told by the status.
        chunk = _read_chunk(use, replace(request, limit=_MOST_TAIL_BYTES if request.offset < 0 else 1))
    except NotFound:
        if not active:
            raise
        chunk = LogChunk(b"", 0, 0)
    if request.offset < 0:
        request = replace(request, offset=_last_lines(chunk, query.tail or 0).offset)

    def read(offset: int, ended: bool) -> LogChunk:
        return _read_chunk(use, replace(request, offset=offset, ended=ended))

    def state() -> str:
        try:
            return views.find_task(use.snapshot(), task_id).state
        except (NotFound, TimeoutError):
            return ""  # forgotten, or nobody has the time to look

    source = Source(read, lambda: use.loop.ask(lambda scheduler: task_id in scheduler.tasks), state)
    return PatientResponse(use.followers.stream(source, request.offset))


def _wanted(attempt: views.Attempt, query: TaskQuery) -> bool:
    return (
        query.app in ("", attempt.app)
        and query.item in (None, attempt.item)
        and query.state.lower() in ("", attempt.state.lower(), "active" if attempt.task else "ended")
        and attempt.id.startswith(query.prefix)
    )


def _log_request(use: Services, task_id: str, query: LogQuery) -> tuple[LogRequest, bool]:
    """What to ask for, and whether the task still runs."""
    if query.tail and query.offset:
        raise invalid([Issue("tail", "cannot go with an offset", "drop one of the two")])
    offset, limit = (-_MOST_TAIL_BYTES, _MOST_TAIL_BYTES) if query.tail else (query.offset, query.limit)
    snapshot = use.snapshot()
    task = views.find_task(snapshot, task_id)
    agents = {agent.id: agent.address for agent in use.agents()}
    request = LogRequest(
        task_id=task_id,
        agent_id=task.agent_id,
        hostname=task.hostname,
        address=agents.get(task.agent_id, ""),
        framework_id=use.framework_id(),
        executors=(task.executor_id,),
        stream=query.stream,
        offset=offset,
        limit=limit,
        ended=not task.active,
    )
    return request, task.active


def _read_chunk(use: Services, request: LogRequest) -> LogChunk:
    if use.read_log is None:
        raise Problem("unavailable", "This server has no way to read output from agents.")
    return use.read_log(request)


def _last_lines(chunk: LogChunk, count: int) -> LogChunk:
    data = chunk.data
    lines = data.splitlines(keepends=True)
    kept = b"".join(lines[-count:])
    return LogChunk(kept, chunk.offset + len(data) - len(kept), chunk.size)


# ------------------------------------------------------------------------------------------------------------- runs


@router.get("/runs", tags=["runs"])
def list_runs(use: Use, query: Annotated[RunQuery, Query()]) -> RunList:
    """Firings with their shards, the newest first."""
    snapshot = use.snapshot()
    found = (run for run in snapshot.runs(query.job) if query.state in (None, views.run_state(run)))
    items, cursor = views.page(found, lambda run: (-run.fire_ms, run.id, 0), query.cursor, query.limit)
    return RunList(items=[views.run_view(run) for run in items], next_cursor=cursor)


@router.get("/runs/{run_id}", tags=["runs"])
def show_run(use: Use, run_id: str) -> RunView:
    run = use.snapshot().firings.get(run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id[:200]}", field="runId", fix="`jobcloud runs` lists those there are")
    return views.run_view(run)


@router.post("/runs/{run_id}/retry", status_code=202, tags=["runs"])
def retry_run(
    use: Use, run_id: str, item: Annotated[int | None, Query(ge=0, description="this shard alone")] = None
) -> RunView:
    """Put back what is DEAD, FAILED or KILLED of a run: it starts again as if it had never failed."""
    use.command(lambda at: Retry(at, run_id, item))
    return show_run(use, run_id)


@router.get("/cron/next", tags=["runs"])
def next_firings(use: Use, query: Annotated[CronQuery, Query()]) -> FiringTimes:
    """When an expression would fire."""
    try:
        schedule = Schedule.parse(query.cron, zone=query.zone, dialect=query.dialect, gap=query.gap, fold=query.fold)
    except CronError as error:
        raise ConfigError(str(error), field="cron") from None
    after = query.after or use.clock()
    times = schedule.between(after, 1 << 45, query.count)
    return FiringTimes(cron=query.cron, time_zone=query.zone, times=list(times))


# ---------------------------------------------------------------------------------------------------------- cluster


@router.get("/executors", tags=["cluster"])
def list_executors(use: Use) -> ExecutorList:
    return ExecutorList(items=views.executor_views(use.snapshot()))


@router.get("/cluster", tags=["cluster"])
def show_cluster(use: Use) -> ClusterView:
    snapshot, agents = use.snapshot(), use.agents()
    waiting = sum(
        shard.state is ShardState.WAITING for run in snapshot.firings.values() if not run.ended_ms for shard in run.work
    )
    return ClusterView(
        framework_id=use.framework_id(),
        connected=use.loop.health().connected,
        matcher=snapshot.matcher,
        version=jobcloud.__version__,
        agents=[views.agent_out(agent) for agent in sorted(agents, key=lambda agent: (agent.hostname, agent.id))],
        apps=len(snapshot.apps),
        jobs=len(snapshot.jobs),
        active_tasks=sum(not task.placeholder for task in snapshot.tasks.values()),
        waiting_shards=waiting,
    )


@router.post("/agents/{agent}/drain", tags=["cluster"])
def drain_agent(use: Use, agent: str, query: Annotated[DrainQuery, Query()]) -> AgentOut:
    """Give an agent (its id or host name) nothing new, and see to it that it is empty at the deadline.

    Resident shards move away; transient ones end, or at the deadline start again elsewhere if their job fails over.
    """
    seconds = query.deadline
    use.command(lambda at: DrainAgent(at, agent, at + seconds * 1000 if seconds else 0, query.reason))
    return _agent(use, agent)


@router.post("/agents/{agent}/undrain", tags=["cluster"])
def undrain_agent(use: Use, agent: str) -> AgentOut:
    """It gets tasks again. What Mesos itself drains, or has a window for, only Mesos gives back."""
    use.command(lambda at: UndrainAgent(at, agent))
    return _agent(use, agent)


def _agent(use: Services, name: str) -> AgentOut:
    found = next((agent for agent in use.agents() if name in (agent.id, agent.hostname)), None)
    if found is None:  # drained before it was ever offered to this leader
        raise NotFound(f"agent {name[:200]} has made no offer yet", field="agentId", fix="look again later")
    return views.agent_out(found)


@router.post("/framework/teardown", status_code=202, tags=["cluster"])
def tear_down(use: Use, body: Body) -> TeardownView:
    """Remove the framework from Mesos: every task of it is killed. Takes `{"confirm": "<framework id>"}`."""
    framework_id = use.framework_id()
    if use.teardown is None or not framework_id:
        raise Problem("unavailable", "There is no framework to tear down: the scheduler has not registered with Mesos.")
    if body != {"confirm": framework_id}:
        fix = f'send {{"confirm": "{framework_id}"}} if every task of it is to be killed'
        raise invalid([Issue("confirm", "does not name this framework", fix)])
    use.teardown()
    return TeardownView(framework_id=framework_id)


@router.get("/events", tags=["events"], response_class=StreamingResponse)
async def stream_events(use: Use, last_event_id: Annotated[str, Header(max_length=100)] = "") -> Response:
    """What happens, as server-sent events, from now on (or from the event named in Last-Event-ID)."""
    use.notices.check_room()
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(use.notices.stream(last_event_id), media_type="text/event-stream", headers=headers)


@router.get("/health", tags=["health"], responses={503: {"model": Health}})
async def show_health(use: Use, response: Response) -> Health:
    """Whether the scheduler runs. The one resource that needs no token."""
    health = use.loop.health()
    well = health.leading and health.connected
    response.status_code = 200 if well else 503
    return Health(
        status="ok" if well else "failing",
        leading=health.leading,
        connected=health.connected,
        version=jobcloud.__version__,
    )
