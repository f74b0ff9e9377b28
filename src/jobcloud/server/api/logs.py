"""Output of tasks, read from their agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Response
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, Field

from jobcloud.errors import NotFound
from jobcloud.executor.output import TIMES_BYTES, TIMES_SUFFIX
from jobcloud.server.api.attempts import find_attempt
from jobcloud.server.api.follow import Source, Time, decode, parse_times, times_of_lines
from jobcloud.server.api.ports import LogChunk, LogRequest
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import Instant, Query, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.streams import EventStream
from jobcloud.server.api.tasks import find_task, state_of

router = APIRouter(tags=["tasks"])

_MAX_BYTES = 1 << 20


class TimeView(View):
    """The line `line` of the text, from 0, was written at `at`, by the clock of the agent."""

    line: int
    at: Instant


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
    found: bool = Field(description="false: the task printed nothing, or the agent has removed its output")
    times: list[TimeView] = Field(
        description="with `times`: when lines were written, in steps of about 0.1 s; a line without a time has that of "
        "the one before it. Empty if the executor is of a build without times"
    )


class LogQuery(Query):
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(0, ge=0, lt=1 << 50)
    limit: int = Field(65_536, ge=1, le=_MAX_BYTES, description="bytes")
    tail: int | None = Field(None, ge=1, le=10_000, description="lines from the end, instead of an offset")
    times: bool = Field(False, description="also tell when the lines were written")
    since: AwareDatetime | None = Field(
        None, description="begin with the first line at or after this instant, if times are known; not with a tail"
    )


@router.get("/tasks/{task_id}/logs")
async def read_log(services: ServicesDep, task_id: str, query: Annotated[LogQuery, Parameter()]) -> LogView:
    """Output that the task has written so far, read from its agent."""
    request, times = await _begin(services, task_id, query)
    chunk = await _read_existing(services, request)
    return await run_in_threadpool(_log_view, request, chunk, query, times)


@router.get("/tasks/{task_id}/logs/stream", response_class=StreamingResponse)
async def follow_log(
    services: ServicesDep,
    task_id: str,
    query: Annotated[LogQuery, Parameter()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Output of the task as server-sent events until its end. Last-Event-ID continues a stream.

    `output` has `{offset, text, missed}`, `end` the task's state, `error` a problem document.
    """
    services.followers.places.check()
    request, _ = await _begin(services, task_id, query)
    if last_event_id.isascii() and last_event_id.isdigit():
        request = replace(request, offset=int(last_event_id[:15]))
    # Read once before the stream begins: until then, the status of the answer can report a problem.
    first = replace(request, limit=_MAX_BYTES if request.offset < 0 else 1)
    chunk = await _read_existing(services, first)
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

    async def read_times() -> Sequence[Time]:
        return await _times(services, request)

    source = Source(read, is_active, state, read_times if query.times else None)
    return EventStream(followers.stream(source, request.offset), followers.places)


@router.get("/runs/{run_id}/shards/{item}/attempts/{attempt}/logs")
async def read_log_of_attempt(
    services: ServicesDep, run_id: str, item: int, attempt: int, query: Annotated[LogQuery, Parameter()]
) -> LogView:
    """Output of one attempt of a shard, read from its agent."""
    task_id = await run_in_threadpool(_task_of, services, run_id, item, attempt)
    return await read_log(services, task_id, query)


@router.get("/runs/{run_id}/shards/{item}/attempts/{attempt}/logs/stream", response_class=StreamingResponse)
async def follow_log_of_attempt(
    services: ServicesDep,
    run_id: str,
    item: int,
    attempt: int,
    query: Annotated[LogQuery, Parameter()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Output of one attempt of a shard as server-sent events until its end, as for a task."""
    task_id = await run_in_threadpool(_task_of, services, run_id, item, attempt)
    return await follow_log(services, task_id, query, last_event_id)


def _task_of(services: Services, run_id: str, item: int, attempt: int) -> str:
    return find_attempt(services.snapshot(), run_id, item, attempt)


async def _begin(services: Services, task_id: str, query: LogQuery) -> tuple[LogRequest, Sequence[Time]]:
    """The request, and the times of the stream if they are wanted. Raises NotFound, Unavailable and Problem."""
    request = await run_in_threadpool(_log_request, services, task_id, query)
    times = await _times(services, request) if query.times or query.since else []
    if query.since is not None and times:
        since = query.since.timestamp() * 1000
        # If all lines are older, there is nothing yet to read: the offset is beyond every byte so far.
        size = (await _read_existing(services, replace(request, offset=0, limit=1))).size
        request = replace(request, offset=next((time.offset for time in times if time.at_ms >= since), size))
    return request, times


async def _times(services: Services, request: LogRequest) -> list[Time]:
    """When lines of the stream were written, in their order. Empty if that is not known. Raises Unavailable."""
    wanted = replace(request, stream=request.stream + TIMES_SUFFIX, offset=0, limit=2 * TIMES_BYTES)
    return parse_times((await _read_existing(services, wanted)).data)


def _log_view(request: LogRequest, chunk: LogChunk, query: LogQuery, times: Sequence[Time]) -> LogView:
    if query.tail:
        chunk = _last_lines(chunk, query.tail)
    text, length = decode(chunk.data)
    return LogView(
        task_id=request.task_id,
        stream="stderr" if request.stream == "stderr" else "stdout",
        offset=chunk.offset,
        next_offset=chunk.offset + length,
        size=chunk.size,
        text=text,
        found=chunk.found,
        times=[TimeView(line=line, at=at) for line, at in times_of_lines(times if query.times else (), chunk, length)],
    )


def _log_request(services: Services, task_id: str, query: LogQuery) -> LogRequest:
    """Raises NotFound and Problem."""
    if query.tail and query.offset:
        raise invalid([Issue("tail", "cannot be combined with an offset", "leave one of them out")])
    if query.since and (query.tail or query.offset):
        raise invalid([Issue("since", "cannot be combined with a tail or an offset", "leave one of them out")])
    offset, limit = (-_MAX_BYTES, _MAX_BYTES) if query.tail else (query.offset, query.limit)
    task = find_task(services.snapshot(), task_id)
    addresses = {agent.id: agent.address for agent in services.agents()}
    return LogRequest(
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


async def _read(services: Services, request: LogRequest) -> LogChunk:
    if services.read_log is None:
        raise Problem("unavailable", "This server cannot read output from agents.")
    return await services.read_log(request)


async def _read_existing(services: Services, request: LogRequest) -> LogChunk:
    """Read a chunk. It is empty if there is no output: the first byte creates the file."""
    try:
        return await _read(services, request)
    except NotFound:
        return LogChunk(b"", 0, 0, found=not request.ended)


def _last_lines(chunk: LogChunk, count: int) -> LogChunk:
    data = chunk.data
    lines = data.splitlines(keepends=True)
    kept = b"".join(lines[-count:])
    return replace(chunk, data=kept, offset=chunk.offset + len(data) - len(kept))
