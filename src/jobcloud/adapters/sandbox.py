"""Task output, read from the agent that ran the task, through Mesos' files endpoint.

The HTTP client is imported with the first output that is asked for: the scheduler starts without it.

Source: Mesos documentation, "Sandbox" (virtual paths of executors' sandboxes) and the agent endpoint `/files/read`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import task_folder

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 5.0


def read_output(
    address: str, framework_id: str, executor_id: str, task_id: str, stream: str, offset: int, limit: int
) -> tuple[bytes, int, int]:
    """(data, its offset, size of the stream so far) of one task's `stdout` or `stderr`.

    `offset` < 0 counts from the end. Raises NotFound, Unavailable.
    """
    import httpx

    path = f"/frameworks/{framework_id}/executors/{executor_id}/runs/latest/tasks/{task_folder(task_id)}/{stream}"
    with httpx.Client(base_url=f"http://{address}", timeout=_TIMEOUT_S, trust_env=False) as agent:
        _, size = _read(agent, path, -1, -1)
        start = min(offset, size) if offset >= 0 else max(0, size + offset)
        data = b""
        while start + len(data) < size and len(data) < limit:
            piece, _ = _read(agent, path, start + len(data), limit - len(data))
            if not piece:
                break
            data += piece
        return data, start, size


def _read(agent: httpx.Client, path: str, offset: int, length: int) -> tuple[bytes, int]:
    """(data, offset) as the agent answers; for an offset of -1 no data and the size."""
    import httpx

    try:
        answer = agent.get("/files/read", params={"path": path, "offset": offset, "length": length})
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound("there is no such output: nothing was printed, or the agent has removed it", field="taskId")
        answer.raise_for_status()
        found = answer.json()
        return str(found["data"]).encode(), int(found["offset"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        problem = f"the agent at {agent.base_url} does not answer as it should: {error}"
        raise Unavailable(problem, fix="look at the agent, try again later") from error
