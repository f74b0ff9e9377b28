"""Task output, read from the agent that ran the task, through Mesos' operator API.

The executor keeps a stream in two files, `stdout` and its predecessor `stdout.<bytes before it>`
(jobcloud.executor.output). Offsets count from the beginning of the whole stream, so a reader that comes back finds its
place again, or learns how much it has missed. The HTTP client is imported with the first output that is asked for: the
scheduler starts without it.

Source: Mesos documentation, "Operator HTTP API" (LIST_FILES and READ_FILE of agents; the data is base64, so it arrives
as it is), "Sandbox" (virtual paths of executors' sandboxes) and the agent endpoint `/state`.
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
_MOST_STATE_BYTES = 64 << 20
_MOST_SANDBOXES = 100
# A stream may be rotated while it is read. After this many times only its predecessor is read, which does not change.
_TRIES = 3
_MISSING = "there is no such output: nothing was printed, or the agent has removed it"


@dataclass(frozen=True, slots=True)
class Output:
    """Which stream of which task is meant. `earlier`: the executor may have been started anew since the task ended."""

    framework_id: str
    executor_id: str
    task_id: str
    stream: str
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a stream lies: bytes `first` to `before` in the predecessor, those to `end` in the file itself."""

    folder: str
    stream: str
    first: int = 0
    before: int = 0
    end: int = 0

    def pieces(self) -> Iterator[tuple[str, int, int]]:
        """(path, offset of its first byte, and of its end) in order."""
        path = f"{self.folder}/{self.stream}"
        yield f"{path}.{self.before}", self.first, self.before
        yield path, self.before, self.end


class OutputReader:
    """Reads output from any agent, over connections that are kept for a while. Any thread may call it."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()

    def read(self, address: str, wanted: Output, offset: int, limit: int) -> tuple[bytes, int, int]:
        """(data, its offset, size of the stream so far) of one task's `stdout` or `stderr`.

        `offset` < 0 counts from the end. The data begins behind `offset` where what stood there is kept no more. Raises
        NotFound, Unavailable.
        """
        agent = _Agent(self._connect(), f"http://{address}")
        layout = _find(agent, wanted)
        start = min(offset, layout.end) if offset >= 0 else layout.end + offset
        for _ in range(_TRIES):
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
    """Raises NotFound."""
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
    """What is asked of an agent. Every method raises Unavailable where it does not answer as it should."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client, self._url = client, url

    def files(self, folder: str) -> dict[str, int] | None:
        """Names and sizes; None where there is no such folder."""
        try:
            listed = self._call("LIST_FILES", {"path": folder})
            if listed is None:
                return None
            return {one["path"].rpartition("/")[2]: int(one.get("size", 0)) for one in listed.get("file_infos", ())}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unavailable(error) from error

    def read(self, path: str, offset: int, length: int) -> bytes:
        """As much as the agent gives in one answer; nothing where the file is gone."""
        try:
            found = self._call("READ_FILE", {"path": path, "offset": offset, "length": length})
            return base64.b64decode(found.get("data", ""), validate=True) if found is not None else b""
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._unavailable(error) from error

    def sandboxes(self, wanted: Output) -> list[str]:
        """Where the executor has run, the newest first; only where the task ran, if the agent remembers that."""
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
        return own or [directory for _, directory in reversed(found)][:_MOST_SANDBOXES]

    def _call(self, kind: str, body: dict[str, Any]) -> Any:
        """The answer's body; None where the path is not found."""
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
                    if len(content) > _MOST_STATE_BYTES:
                        raise ValueError(f"its /state is over {_MOST_STATE_BYTES} bytes")
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        return bytes(content)

    def _unavailable(self, error: Exception) -> Unavailable:
        problem = f"the agent at {self._url} does not answer as it should: {error}"
        return Unavailable(problem, fix="look at the agent, try again later")
