"""Read task output from the agent that ran the task, through Mesos' operator API.

The executor keeps a stream in two files: `stdout` and its predecessor `stdout.<bytes before it>`
(jobcloud.executor.output). Offsets count from the beginning of the whole stream, so a reader can continue at its
offset, or see how much it has missed. The HTTP client is imported at the first read, so the scheduler starts faster.

Source: Mesos documentation, "Operator HTTP API" (LIST_FILES and READ_FILE of agents; the data is base64, so it
arrives unchanged), "Sandbox" (virtual paths of executors' sandboxes) and the agent endpoint `/state`.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import task_folder

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 5.0
_MAX_STATE_BYTES = 64 << 20
_MAX_SANDBOXES = 100
# A stream may be rotated during a read. After this many attempts only its predecessor is read, which never changes.
_MAX_ATTEMPTS = 3
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
    """Reads output from any agent over pooled connections. Thread-safe."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()

    def read(self, address: str, wanted: Output, offset: int, limit: int) -> tuple[bytes, int, int]:
        """(data, its offset, size of the stream so far) of one task's `stdout` or `stderr`.

        `offset` < 0 counts from the end. The returned offset is larger than `offset` if older bytes were deleted.
        Raises NotFound, Unavailable.
        """
        agent = _Agent(self._connect(), f"http://{address}")
        layout = _find(agent, wanted)
        start = min(offset, layout.end) if offset >= 0 else layout.end + offset
        for _ in range(_MAX_ATTEMPTS):
            start = max(start, layout.first)
            data = _read(agent, layout, start, limit)
            now = _layout(layout.folder, wanted.stream, agent.files(layout.folder) or {})
            if now.before == layout.before:
                return data, start, now.end
            layout = now
        start = max(start, layout.first)
        return _read(agent, layout, start, min(limit, layout.before - start)), start, layout.end

    def _connect(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False)
            return self._client


def _read(agent: _Agent, layout: _Layout, start: int, limit: int) -> bytes:
    data = b""
    for path, first, end in layout.pieces():
        while first <= start + len(data) < end and len(data) < limit:
            at = start + len(data)
            piece = agent.read(path, at - first, min(end - at, limit - len(data)))
            if not piece:
                return data
            data += piece
    return data


def _find(agent: _Agent, wanted: Output) -> _Layout:
    """The layout of the wanted stream. Raises NotFound."""
    name = task_folder(wanted.task_id)
    latest = f"/frameworks/{wanted.framework_id}/executors/{wanted.executor_id}/runs/latest"
    files = agent.files(f"{latest}/tasks/{name}")
    if files is not None:
        return _layout(f"{latest}/tasks/{name}", wanted.stream, files)
    for sandbox in agent.sandboxes(wanted) if wanted.earlier else ():
        files = agent.files(f"{sandbox}/tasks/{name}")
        if files is not None:
            return _layout(f"{sandbox}/tasks/{name}", wanted.stream, files)
    raise NotFound(_MISSING, field="taskId")


def _layout(folder: str, stream: str, files: dict[str, int]) -> _Layout:
    ends = [name.removeprefix(stream + ".") for name in files if name.startswith(stream + ".")]
    before = max((int(end) for end in ends if end.isascii() and end.isdigit()), default=0)
    first = before - files.get(f"{stream}.{before}", 0)
    return _Layout(folder, stream, first, before, before + files.get(stream, 0))


class _Agent:
    """HTTP client of one agent. Every method raises Unavailable if the agent does not answer as expected."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client, self._url = client, url

    def files(self, folder: str) -> dict[str, int] | None:
        """Names and sizes of files; None if the folder does not exist."""
        try:
            listed = self._call("LIST_FILES", {"path": folder})
            if listed is None:
                return None
            return {one["path"].rpartition("/")[2]: int(one.get("size", 0)) for one in listed.get("file_infos", ())}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unavailable(error) from error

    def read(self, path: str, offset: int, length: int) -> bytes:
        """The bytes of one answer, at most `length`; empty if the file is gone."""
        try:
            found = self._call("READ_FILE", {"path": path, "offset": offset, "length": length})
            return base64.b64decode(found.get("data", ""), validate=True) if found is not None else b""
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unavailable(error) from error

    def sandboxes(self, wanted: Output) -> list[str]:
        """Sandboxes of the executor, the newest first. Only those of the task, if the agent remembers them."""
        try:
            state = json.loads(self._state())
            found = [
                (wanted.task_id in (task["id"] for task in run.get("completed_tasks", ())), run["directory"])
                for framework in (*state["frameworks"], *state["completed_frameworks"])
                if framework["id"] == wanted.framework_id
                for run in (*framework["completed_executors"], *framework["executors"])
                if run["id"] == wanted.executor_id
            ]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unavailable(error) from error
        own = [directory for mine, directory in found if mine]
        return own or [directory for _, directory in reversed(found)][:_MAX_SANDBOXES]

    def _call(self, kind: str, body: dict[str, Any]) -> Any:
        """The body of the answer; None if the path is not found."""
        import httpx

        call = {"type": kind, kind.lower(): body}
        try:
            answer = self._client.post(f"{self._url}/api/v1", json=call, headers={"Accept": "application/json"})
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
            return answer.json()[kind.lower()]
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def _state(self) -> bytes:
        import httpx

        content = bytearray()
        try:
            with self._client.stream("GET", f"{self._url}/state") as answer:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _MAX_STATE_BYTES:
                        raise ValueError(f"its /state is larger than {_MAX_STATE_BYTES} bytes")
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        return bytes(content)

    def _unavailable(self, error: Exception) -> Unavailable:
        problem = f"the agent at {self._url} does not answer as expected: {error}"
        return Unavailable(problem, fix="check the agent, and try again later")
