"""Output of tasks, read from the archive or from their agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import Header, Response
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import TIMES_BYTES, TIMES_SUFFIX
from jobcloud.sentences.frequent import LEAVE_ONE_OUT
from jobcloud.server.api.attempts import find_attempt
from jobcloud.server.api.follow import Source, Time, decode, parse_times, times_of_lines
from jobcloud.server.api.ports import LogChunk, LogRequest
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import GivenInstant, Instant, Number, Query, RunId, TaskId, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.streams import EventStream
from jobcloud.server.api.tasks import find_task, state_of
from jobcloud.server.routes import Routes

router = Routes(tags=["tasks"])

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
    source: Literal["agent", "archive"]
    text: str
    missing: str = Field(
        description="why there is no output of a task that has ended: it printed nothing, or its output was removed; "
        "empty if there is output, or if the task may still print some"
    )
    times: list[TimeView] = Field(
        description="with `times`: when lines were written, in steps of about 0.1 s; a line without a time has that of "
        "the one before it. Empty if the executor is of a build without times, or if its agent has removed the output"
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """`archived`: the name of the archived log; "" if there is none, or if the attempt has not ended.

    `agent`: whether the agent may have the output, too.
    """

    request: LogRequest
    active: bool = False
    archived: str = ""
    agent: bool = True


class LogQuery(Query):
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(0, ge=0, lt=1 << 50)
    limit: int = Field(65_536, ge=1, le=_MAX_BYTES, description="bytes")
    tail: int | None = Field(None, ge=1, le=10_000, description="lines from the end, instead of an offset")
    times: bool = Field(False, description="also tell when the lines were written")
    since: GivenInstant | None = Field(
        None, description="begin with the first line at or after this instant, if times are known; not with a tail"
    )


@router.get("/tasks/{task_id}/logs")
async def read_log(services: ServicesDep, task_id: TaskId, query: Annotated[LogQuery, Parameter()]) -> LogView:
    """Output that the task has written so far: from the archive if it is there, or else from its agent."""
    wanted = await run_in_threadpool(_wanted, services, task_id, query)
    return await _view(services, wanted, query)


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
    wanted = await run_in_threadpool(_wanted, services, task_id, query)
    return await _stream(services, wanted, query, last_event_id)


@router.get("/runs/{run_id}/shards/{item}/attempts/{attempt}/logs")
async def read_log_of_attempt(
    services: ServicesDep, run_id: RunId, item: Number, attempt: Number, query: Annotated[LogQuery, Parameter()]
) -> LogView:
    """Output of one attempt of a shard: from the archive if it is there, or else from its agent."""
    wanted = await run_in_threadpool(_wanted_attempt, services, run_id, item, attempt, query)
    return await _view(services, wanted, query)


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
    services.followers.places.check()
    wanted = await run_in_threadpool(_wanted_attempt, services, run_id, item, attempt, query)
    return await _stream(services, wanted, query, last_event_id)


async def _view(services: Services, wanted: _Wanted, query: LogQuery) -> LogView:
    wanted, times = await _begun(services, wanted, query)
    chunk = await _read_existing(services, wanted)
    return await run_in_threadpool(_log_view, wanted.request, chunk, query, times)


async def _stream(services: Services, wanted: _Wanted, query: LogQuery, last_event_id: str) -> Response:
    wanted, _ = await _begun(services, wanted, query)
    request = wanted.request
    if last_event_id.isascii() and last_event_id.isdigit():
        request = replace(request, offset=int(last_event_id[:15]))
    # Read once before the stream begins: until then, the status of the answer can report a problem.
    first = replace(request, limit=_MAX_BYTES if request.offset < 0 else 1)
    chunk = await _read_existing(services, replace(wanted, request=first))
    if request.offset < 0:
        chunk = await run_in_threadpool(_last_lines, chunk, query.tail or 0)
        request = replace(request, offset=chunk.offset)

    async def read(offset: int, ended: bool) -> LogChunk:
        return await _read(services, replace(wanted, request=replace(request, offset=offset, ended=ended)))

    def is_active() -> bool:
        return services.loop.ask(lambda scheduler: request.task_id in scheduler.tasks)

    def state() -> str:
        try:
            return state_of(services.snapshot_of_task(request.task_id), request.task_id)
        except (NotFound, TimeoutError):
            return ""  # the task was forgotten, or the scheduler is too busy to answer

    async def read_times() -> Sequence[Time]:
        return await _times(services, wanted)

    followers = services.followers
    source = Source(read, is_active, state, read_times if query.times else None)
    return EventStream(followers.stream(source, request.offset), followers.places)


async def _begun(services: Services, wanted: _Wanted, query: LogQuery) -> tuple[_Wanted, Sequence[Time]]:
    """The request from `since` on, and the times of the stream if they are wanted. Raises NotFound, Unavailable."""
    times = await _times(services, wanted) if query.times or query.since is not None else []
    if query.since is not None and times:
        # If all lines are older, there is nothing yet to read: the offset is beyond every byte so far.
        size = (await _read_existing(services, _part(wanted, wanted.request.stream, 1))).size
        offset = next((time.offset for time in times if time.at_ms >= query.since), size)
        wanted = replace(wanted, request=replace(wanted.request, offset=offset))
    return wanted, times


async def _times(services: Services, wanted: _Wanted) -> list[Time]:
    """When lines of the stream were written, in their order. Empty if that is not known. Raises Unavailable.

    The archive has no times. The agent may still have them.
    """
    if not wanted.agent:
        return []
    part = replace(_part(wanted, wanted.request.stream + TIMES_SUFFIX, 2 * TIMES_BYTES), archived="")
    try:
        return parse_times((await _read_existing(services, part)).data)
    except Unavailable:
        if wanted.archived:
            return []
        raise


def _part(wanted: _Wanted, stream: str, limit: int) -> _Wanted:
    """The first bytes of a stream of the same task."""
    return replace(wanted, request=replace(wanted.request, stream=stream, offset=0, limit=limit))


def _log_view(request: LogRequest, chunk: LogChunk, query: LogQuery, times: Sequence[Time]) -> LogView:
    if query.tail:
        chunk = _last_lines(chunk, query.tail)
    text, length = decode(chunk.data)
    return LogView(
        task_id=request.task_id or chunk.archived_task,
        stream="stderr" if request.stream == "stderr" else "stdout",
        offset=chunk.offset,
        next_offset=chunk.offset + length,
        size=chunk.size,
        source="archive" if chunk.archived_task else "agent",
        text=text,
        missing=chunk.missing,
        times=[TimeView(line=line, at=at) for line, at in times_of_lines(times if query.times else (), chunk, length)],
    )


def _wanted(services: Services, task_id: str, query: LogQuery) -> _Wanted:
    """Raises NotFound and Problem."""
    offset, limit = _range(query)
    archive = services.archive
    try:
        task = find_task(services.snapshot_of_task(task_id), task_id)
    except NotFound:
        # The archive may keep a log for longer than the scheduler keeps the run.
        if archive is None or not (archived := archive.find_task(task_id)):
            raise
        return _archived_only(archived, query, task_id)
    addresses = {agent.id: agent.address for agent in services.agents()}
    request = LogRequest(
        task_id=task.id,
        agent_id=task.agent_id,
        hostname=task.hostname,
        address=addresses.get(task.agent_id, ""),
        framework_id=services.framework_id(),
        executors=(task.executor_id,),
        stream=query.stream,
        offset=offset,
        limit=limit,
        ended=not task.active,
        run_id=task.run_id,
        item=task.item,
        attempt=task.attempt,
    )
    archived = "" if task.active or archive is None else archive.find(task.run_id, task.item, task.attempt, task.id)
    return _Wanted(request, task.active, archived)


def _wanted_attempt(services: Services, run_id: str, item: int, attempt: int, query: LogQuery) -> _Wanted:
    """Raises NotFound and Problem."""
    try:
        task_id = find_attempt(services.snapshot_of_run(run_id), run_id, item, attempt)
    except NotFound:
        if services.archive is None or not (archived := services.archive.find(run_id, item, attempt)):
            raise
        return _archived_only(archived, query, "")
    return _wanted(services, task_id, query)


def _archived_only(archived: str, query: LogQuery, task_id: str) -> _Wanted:
    """A log of an attempt that the scheduler no longer knows. Raises Problem."""
    offset, limit = _range(query)
    request = LogRequest(task_id, "", "", "", "", (), query.stream, offset, limit, ended=True)
    return _Wanted(request, archived=archived, agent=False)


def _range(query: LogQuery) -> tuple[int, int]:
    """The offset and the limit in bytes. Raises Problem."""
    if query.tail and query.offset:
        raise invalid([Issue("tail", "cannot be combined with an offset", LEAVE_ONE_OUT)])
    if query.since is not None and (query.tail or query.offset):
        raise invalid([Issue("since", "cannot be combined with a tail or an offset", LEAVE_ONE_OUT)])
    return (-_MAX_BYTES, _MAX_BYTES) if query.tail else (query.offset, query.limit)


async def _read(services: Services, wanted: _Wanted) -> LogChunk:
    """A piece from the archive if the log is there, or else from the agent. Raises NotFound, Unavailable, Problem."""
    request, archive, why = wanted.request, services.archive, ""
    if archive is not None and wanted.archived:
        try:
            piece = await archive.read(wanted.archived, request.stream, request.offset, request.limit)
            return LogChunk(piece.data, piece.offset, piece.size, piece.task_id)
        except (NotFound, Unavailable) as error:
            if not wanted.agent:
                raise
            why = error.problem
    if services.read_log is None:
        raise Problem("unavailable", "This server cannot read output from agents.")
    try:
        return await services.read_log(request)
    except (NotFound, Unavailable) as error:
        if wanted.active or archive is None:
            raise
        why = (
            why or f"the archive does not have it: {archive.why_missing(request.run_id, request.item, request.attempt)}"
        )
        raise type(error)(f"{error.problem}; {why}", field=error.field, fix=error.fix) from error


async def _read_existing(services: Services, wanted: _Wanted) -> LogChunk:
    """Read a chunk. It is empty if there is no output: the first byte creates the file."""
    try:
        return await _read(services, wanted)
    except NotFound as error:
        if not wanted.agent:
            raise
        return LogChunk(b"", 0, 0, missing="" if wanted.active else error.problem)


def _last_lines(chunk: LogChunk, count: int) -> LogChunk:
    data = chunk.data
    lines = data.splitlines(keepends=True)
    kept = b"".join(lines[-count:])
    return replace(chunk, data=kept, offset=chunk.offset + len(data) - len(kept))
