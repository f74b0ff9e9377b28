"""Task output, read from the agent that ran the task, through Mesos' files endpoint.

Source: Mesos documentation, "Sandbox" (virtual paths of executors' sandboxes) and the agent endpoint `/files/read`.
"""

from __future__ import annotations

import httpx

from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import task_folder

_TIMEOUT_S = 5.0


def read_output(
    address: str, framework_id: str, executor_id: str, task_id: str, stream: str, offset: int, limit: int
) -> tuple[bytes, int, int]:
    """(data, its offset, size of the stream so far) of one task's `stdout` or `stderr`.

    `offset` < 0 counts from the end. Raises NotFound, Unavailable.
    """
    path = f"/frameworks/{framework_id}/executors/{executor_id}/runs/latest/tasks/{task_folder(task_id)}/{stream}"
    with httpx.Client(base_url=f"http://{address}", timeout=_TIMEOUT_S, trust_env=False) as agent:
        size = int(_read(agent, path, -1, -1)["offset"])
        start = min(offset, size) if offset >= 0 else max(0, size + offset)
        data = b""
        while start + len(data) < size and len(data) < limit:
            piece = str(_read(agent, path, start + len(data), limit - len(data))["data"]).encode()
            if not piece:
                break
            data += piece
        return data, start, size


def _read(agent: httpx.Client, path: str, offset: int, length: int) -> dict[str, object]:
    try:
        answer = agent.get("/files/read", params={"path": path, "offset": offset, "length": length})
    except httpx.HTTPError as error:
        raise Unavailable(f"the agent at {agent.base_url} does not answer: {error}", fix="try again later") from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise NotFound("there is no such output: nothing was printed, or the agent has removed it", field="taskId")
    if answer.status_code != httpx.codes.OK:
        raise Unavailable(f"the agent at {agent.base_url} answers {answer.status_code}", fix="look at the agent's log")
    found: dict[str, object] = answer.json()
    return found
