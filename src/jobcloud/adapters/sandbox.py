"""Read task output from the agent that ran the task, through Mesos' operator API.

The executor keeps a stream in two files: `stdout`, and its predecessor `stdout.N`. N is the offset of the first byte of
`stdout` (jobcloud.executor.output). Offsets count from the beginning of the whole stream, so a reader can continue at
its offset, or see how much it has missed. The HTTP client is imported at the first read, so the scheduler starts
faster.

An agent may be slow, silent or hostile. Reads are bounded in number, in time and in bytes, and they need no thread.

Source: Mesos documentation, "Operator HTTP API" (LIST_FILES and READ_FILE of agents; the data is base64, so it
arrives unchanged), "Sandbox" (virtual paths of executors' sandboxes) and the agent endpoint `/state`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import task_folder

if TYPE_CHECKING:
    import httpx

# How long a read may take, including the wait for its turn.
_DEADLINE_S = 10.0
_MAX_READS = 64
# With this limit, a silent agent cannot take the turns of all other agents.
_MAX_READS_OF_AGENT = 4
_MAX_STATES = 2
_MAX_STATE_BYTES = 64 << 20
_MAX_LIST_BYTES = 4 << 20
_MAX_FRAME_BYTES = 64 << 10
_MAX_SANDBOXES = 100
# A stream may be rotated during a read. After this many attempts, only the predecessor is read, because it never
# changes.
_MAX_ATTEMPTS = 3
_MAX_REASON = 300
_MISSING = "the output does not exist: the task printed nothing, or the agent has removed it"


@dataclass(frozen=True, slots=True)
class Output:
    """One stream of one task. `earlier`: the executor may have been restarted since the task ended."""

    framework_id: str
    executor_id: str
    task_id: str
    stream: str
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class _Layout:
    """The place of a stream: bytes `first` to `before` are in the predecessor, `before` to `end` in the file itself."""

    folder: str
    stream: str
    first: int = 0
    before: int = 0
    end: int = 0

    def pieces(self) -> Iterator[tuple[str, int, int]]:
        """(path, offset of its first byte, offset of its end) of both files, in order."""
        path = f"{self.folder}/{self.stream}"
        yield f"{path}.{self.before}", self.first, self.before
        yield path, self.before, self.end


class OutputReader:
    """Reads output from any agent. For one event loop."""

    def __init__(self, deadline_s: float = _DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._turns = asyncio.Semaphore(_MAX_READS)
        self._turns_of_agents: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._states = asyncio.Semaphore(_MAX_STATES)

    async def read(self, address: str, wanted: Output, offset: int, limit: int) -> tuple[bytes, int, int]:
        """(data, its offset, size of the stream so far) of one task's `stdout` or `stderr`.

        `offset` < 0 counts from the end. The returned offset is larger than `offset` if older bytes were deleted.
        Raises NotFound, Unavailable.
        """
        import httpx

        turns = self._turns_of_agents.setdefault(address, asyncio.Semaphore(_MAX_READS_OF_AGENT))
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                turns,
                self._turns,
                httpx.AsyncClient(verify=False, trust_env=False, timeout=self._deadline_s) as client,  # noqa: S501 - http only
            ):
                return await _read_stream(_Agent(client, f"http://{address}", self._states), wanted, offset, limit)
        except TimeoutError:
            problem = f"the agent at http://{address} did not answer within {self._deadline_s:g} s"
            raise Unavailable(problem, fix="check the agent, and try again later") from None


async def _read_stream(agent: _Agent, wanted: Output, offset: int, limit: int) -> tuple[bytes, int, int]:
    layout = await _find(agent, wanted)
    start = min(offset, layout.end) if offset >= 0 else layout.end + offset
    for _ in range(_MAX_ATTEMPTS):
        start = max(start, layout.first)
        data = await _read(agent, layout, start, limit)
        now = _layout(layout.folder, wanted.stream, await agent.files(layout.folder) or {})
        if now.before == layout.before:
            return data, start, now.end
        layout = now
    start = max(start, layout.first)
    return await _read(agent, layout, start, min(limit, layout.before - start)), start, layout.end


async def _read(agent: _Agent, layout: _Layout, start: int, limit: int) -> bytes:
    data = b""
    for path, first, end in layout.pieces():
        while first <= start + len(data) < end and len(data) < limit:
            at = start + len(data)
            piece = await agent.read(path, at - first, min(end - at, limit - len(data)))
            if not piece:
                return data
            data += piece
    return data


async def _find(agent: _Agent, wanted: Output) -> _Layout:
    """The layout of the wanted stream. Raises NotFound."""
    name = task_folder(wanted.task_id)
    latest = f"/frameworks/{wanted.framework_id}/executors/{wanted.executor_id}/runs/latest"
    files = await agent.files(f"{latest}/tasks/{name}")
    if files is not None:
        return _layout(f"{latest}/tasks/{name}", wanted.stream, files)
    for sandbox in await agent.sandboxes(wanted) if wanted.earlier else ():
        files = await agent.files(f"{sandbox}/tasks/{name}")
        if files is not None:
            return _layout(f"{sandbox}/tasks/{name}", wanted.stream, files)
    raise NotFound(_MISSING, field="taskId")


def _layout(folder: str, stream: str, files: dict[str, int]) -> _Layout:
    ends = [name.removeprefix(stream + ".") for name in files if name.startswith(stream + ".")]
    before = max((int(end) for end in ends if end.isascii() and end.isdigit() and len(end) < 16), default=0)
    first = before - files.get(f"{stream}.{before}", 0)
    return _Layout(folder, stream, first, before, before + files.get(stream, 0))


class _Task(msgspec.Struct):
    id: str


class _Run(msgspec.Struct):
    id: str
    directory: str
    completed_tasks: list[_Task] = []


class _Framework(msgspec.Struct):
    id: str
    executors: list[_Run]
    completed_executors: list[_Run]


class _State(msgspec.Struct):
    """The used part of an agent's `/state`. The rest may be large."""

    frameworks: list[_Framework]
    completed_frameworks: list[_Framework]


class _Agent:
    """HTTP client of one agent. Every method raises Unavailable if the agent does not answer as expected."""

    def __init__(self, client: httpx.AsyncClient, url: str, states: asyncio.Semaphore) -> None:
        self._client, self._url, self._states = client, url, states

    async def files(self, folder: str) -> dict[str, int] | None:
        """Names and sizes of files; None if the folder does not exist."""
        try:
            listed = await self._call("LIST_FILES", {"path": folder}, _MAX_LIST_BYTES)
            if listed is None:
                return None
            return {one["path"].rpartition("/")[2]: int(one.get("size", 0)) for one in listed.get("file_infos", ())}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise self._unavailable(error) from error

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """The bytes of one answer, at most `length`; empty if the file is gone."""
        try:
            wanted = {"path": path, "offset": offset, "length": length}
            found = await self._call("READ_FILE", wanted, length * 4 // 3 + _MAX_FRAME_BYTES)
            return base64.b64decode(found.get("data", ""), validate=True)[:length] if found is not None else b""
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise self._unavailable(error) from error

    async def sandboxes(self, wanted: Output) -> list[str]:
        """The sandboxes of the executor that may contain the task's output.

        If the agent remembers which sandboxes had the task, only these are returned. Otherwise, the newest
        _MAX_SANDBOXES are returned, the newest first.
        """
        async with self._states:
            content = await self._fetch("GET", "/state", _MAX_STATE_BYTES)
            try:
                state = await asyncio.to_thread(msgspec.json.decode, content or b"", type=_State)
            except msgspec.MsgspecError as error:
                raise self._unavailable(error) from error
        found = [
            (any(wanted.task_id == task.id for task in run.completed_tasks), run.directory)
            for framework in (*state.frameworks, *state.completed_frameworks)
            if framework.id == wanted.framework_id
            for run in (*framework.completed_executors, *framework.executors)
            if run.id == wanted.executor_id
        ]
        own = [directory for mine, directory in found if mine]
        return own or [directory for _, directory in reversed(found)][:_MAX_SANDBOXES]

    async def _call(self, kind: str, body: dict[str, Any], max_bytes: int) -> Any:
        """The body of the answer; None if the path is not found."""
        content = await self._fetch("POST", "/api/v1", max_bytes, {"type": kind, kind.lower(): body})
        return None if content is None else json.loads(content)[kind.lower()]

    async def _fetch(self, method: str, path: str, max_bytes: int, body: Any = None) -> bytes | None:
        """The content of an answer of at most `max_bytes`; None if the path is not found."""
        import httpx

        # A compressed answer could grow beyond every limit. So the reader neither asks for one nor expands one.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        content = bytearray()
        try:
            async with self._client.stream(method, self._url + path, json=body, headers=headers) as answer:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return None
                answer.raise_for_status()
                async for chunk in answer.aiter_raw():
                    content += chunk
                    if len(content) > max_bytes:
                        raise self._unavailable(ValueError(f"its answer is longer than {max_bytes} bytes"))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(error) from error
        return bytes(content)

    def _unavailable(self, error: Exception) -> Unavailable:
        problem = f"the agent at {self._url} does not answer as expected: {str(error)[:_MAX_REASON]}"
        return Unavailable(problem, fix="check the agent, and try again later")
