"""Output of tasks, read from their agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Response
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from jobcloud.errors import NotFound
from jobcloud.server.api.attempts import find_attempt
from jobcloud.server.api.follow import Source, decode
from jobcloud.server.api.ports import LogChunk, LogRequest
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import Number, Query, RunId, TaskId, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.streams import EventStream
from jobcloud.server.api.tasks import find_task, state_of

router = APIRouter(tags=["tasks"])

_MAX_BYTES = 1 << 20


class LogView(View):
    """A piece of a task's output. `nextOffset` is the offset of the next piece.

    `text` is UTF-8; a replacement character stands for bytes that are not UTF-8.
    """

    task_id: str
    stream: Literal["stdout", "stderr"]
    offset: int
    next_offset: int
    size: int
    text: str


class LogQuery(Query):
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(0, ge=0, lt=1 << 50)
    limit: int = Field(65_536, ge=1, le=_MAX_BYTES, description="bytes")
    tail: int | None = Field(None, ge=1, le=10_000, description="lines from the end, instead of an offset")


@router.get("/tasks/{task_id}/logs")
async def read_log(services: ServicesDep, task_id: TaskId, query: Annotated[LogQuery, Parameter()]) -> LogView:
    """Output that the task has written so far, read from its agent."""
    request, active = await run_in_threadpool(_log_request, services, task_id, query)
    chunk = await _read_existing(services, request, active)
    return await run_in_threadpool(_log_view, request, chunk, query.tail)


@router.get("/tasks/{task_id}/logs/stream", response_class=StreamingResponse)
async def follow_log(
    services: ServicesDep,
    task_id: TaskId,
    query: Annotated[LogQuery, Parameter()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Output of the task as server-sent events until its end. Last-Event-ID continues a stream.

    `output` has `{offset, text, missed}`, `end` the task's state, `error` a problem document.
    """
    services.followers.places.check()
    request, active = await run_in_threadpool(_log_request, services, task_id, query)
    if last_event_id.isascii() and last_event_id.isdigit():
        request = replace(request, offset=int(last_event_id[:15]))
    # Read once before the stream begins: until then, the status of the answer can report a problem.
    first = replace(request, limit=_MAX_BYTES if request.offset < 0 else 1)
    chunk = await _read_existing(services, first, active)
    if request.offset < 0:
        chunk = await run_in_threadpool(_last_lines, chunk, query.tail or 0)
        request = replace(request, offset=chunk.offset)

    async def read(offset: int, ended: bool) -> LogChunk:
        return await _read(services, replace(request, offset=offset, ended=ended))

    def is_active() -> bool:
        return services.loop.ask(lambda scheduler: task_id in scheduler.tasks)

    def state() -> str:
        try:
            return state_of(services.snapshot(), task_id)
        except (NotFound, TimeoutError):
            return ""  # the task was forgotten, or the scheduler is too busy to answer

    followers = services.followers
    return EventStream(followers.stream(Source(read, is_active, state), request.offset), followers.places)


@router.get("/runs/{run_id}/shards/{item}/attempts/{attempt}/logs")
async def read_log_of_attempt(
    services: ServicesDep, run_id: RunId, item: Number, attempt: Number, query: Annotated[LogQuery, Parameter()]
) -> LogView:
    """Output of one attempt of a shard, read from its agent."""
    task_id = await run_in_threadpool(_task_of, services, run_id, item, attempt)
    return await read_log(services, task_id, query)


@router.get("/runs/{run_id}/shards/{item}/attempts/{attempt}/logs/stream", response_class=StreamingResponse)
async def follow_log_of_attempt(
    services: ServicesDep,
    run_id: RunId,
    item: Number,
    attempt: Number,
    query: Annotated[LogQuery, Parameter()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Output of one attempt of a shard as server-sent events until its end, as for a task."""
    task_id = await run_in_threadpool(_task_of, services, run_id, item, attempt)
    return await follow_log(services, task_id, query, last_event_id)


def _task_of(services: Services, run_id: str, item: int, attempt: int) -> str:
    return find_attempt(services.snapshot(), run_id, item, attempt)


def _log_view(request: LogRequest, chunk: LogChunk, tail: int | None) -> LogView:
    if tail:
        chunk = _last_lines(chunk, tail)
    text, length = decode(chunk.data)
    return LogView(
        task_id=request.task_id,
        stream="stderr" if request.stream == "stderr" else "stdout",
        offset=chunk.offset,
        next_offset=chunk.offset + length,
        size=chunk.size,
        text=text,
    )


def _log_request(services: Services, task_id: str, query: LogQuery) -> tuple[LogRequest, bool]:
    """The request, and whether the task is active. Raises NotFound and Problem."""
    if query.tail and query.offset:
        raise invalid([Issue("tail", "cannot be combined with an offset", "leave one of them out")])
    offset, limit = (-_MAX_BYTES, _MAX_BYTES) if query.tail else (query.offset, query.limit)
    task = find_task(services.snapshot(), task_id)
    addresses = {agent.id: agent.address for agent in services.agents()}
    request = LogRequest(
        task_id=task_id,
        agent_id=task.agent_id,
        hostname=task.hostname,
        address=addresses.get(task.agent_id, ""),
        framework_id=services.framework_id(),
        executors=(task.executor_id,),
        stream=query.stream,
        offset=offset,
        limit=limit,
        ended=not task.active,
    )
    return request, task.active


async def _read(services: Services, request: LogRequest) -> LogChunk:
    if services.read_log is None:
        raise Problem("unavailable", "This server cannot read output from agents.")
    return await services.read_log(request)


async def _read_existing(services: Services, request: LogRequest, active: bool) -> LogChunk:
    """Read a chunk. It is empty if an active task has written nothing yet: the first byte creates the file."""
    try:
        return await _read(services, request)
    except NotFound:
        if not active:
            raise
        return LogChunk(b"", 0, 0)


def _last_lines(chunk: LogChunk, count: int) -> LogChunk:
    data = chunk.data
    lines = data.splitlines(keepends=True)
    kept = b"".join(lines[-count:])
    return LogChunk(kept, chunk.offset + len(data) - len(kept), chunk.size)
