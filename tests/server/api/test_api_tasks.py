"""Tasks and their output in the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.errors import NotFound
from jobcloud.server.api import LogChunk, LogRequest


def test_states_of_a_task_are_shown_until_its_end(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    first, second = launched
    loop.update(first, "TASK_RUNNING")
    assert {task["state"] for task in api.get("tasks").json()["items"]} == {"RUNNING", "STORED"}
    loop.update(first, "TASK_FINISHED")
    loop.update(second, "TASK_FAILED", "it broke")
    detail = api.get(f"tasks/{second}").json()
    assert (detail["state"], detail["active"]) == ("FAILED", False)
    assert "it broke" in detail["message"]
    assert detail["story"]
    run = api.get("runs").json()["items"][0]
    assert (run["state"], [shard["state"] for shard in run["shards"]]) == ("FAILED", ["FINISHED", "FAILED"])
    assert api.get("jobs/hello").json()["lastRun"]["state"] == "FAILED"


def test_ports_of_a_task_are_shown_until_its_end(api: Client, loop: FakeLoop, hello: str) -> None:
    loop.offer()
    api.post("jobs", json=job_body("serves", shardingTotalCount=1, portCount=2))
    api.post("jobs/serves/trigger")
    [task] = loop.tick()
    assert api.get(f"tasks/{task}").json()["ports"] == [31_000, 31_001]
    assert [one["ports"] for one in api.get("tasks", params={"job": "serves"}).json()["items"]] == [[31_000, 31_001]]
    loop.update(task, "TASK_FINISHED")
    assert api.get(f"tasks/{task}").json()["ports"] == []


def test_tasks_are_filtered(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.update(launched[0], "TASK_FINISHED")

    def ids(**query: Any) -> list[str]:
        return [task["id"] for task in api.get("tasks", params=query).json()["items"]]

    assert ids() == launched
    assert ids(state="FINISHED") == ids(state="ended") == ids(item=0) == launched[:1]
    assert ids(state="active") == ids(item=1) == ids(prefix=launched[1][:-1], state="stored") == launched[1:]
    assert ids(job="nope") == ids(prefix="x") == ids(app="y") == []


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "cursor=WzFd", "limit=0", "limit=1001", "limit=a", "stat=RUNNING", "item=-1", "cursor=" + "W1" * 400],
)
def test_invalid_query_is_refused(api: Client, query: str) -> None:
    issues(api.get(f"tasks?{query}"))


def test_task_is_killed(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.update(launched[0], "TASK_RUNNING")
    assert api.post(f"tasks/{launched[0]}/kill").status_code == 202
    assert api.get(f"tasks/{launched[0]}").json()["killAskedAt"] == "2023-11-14T22:13:26.000Z"
    loop.update(launched[0], "TASK_KILLED")
    assert api.get(f"tasks/{launched[0]}").json()["state"] == "KILLED"
    assert api.post(f"tasks/{launched[0]}/kill").status_code == 404
    assert api.post("tasks/nope/kill").status_code == 404


def test_task_known_to_be_dead_is_forgotten(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    loop.update(launched[0], "TASK_RUNNING")
    assert api.post(f"tasks/{launched[0]}/forget").status_code == 409
    loop.update(launched[0], "TASK_UNREACHABLE")
    assert api.post(f"tasks/{launched[0]}/forget").status_code == 200
    shown = api.get(f"tasks/{launched[0]}").json()
    assert (shown["state"], shown["message"]) == ("FAILED", "an operator declared it lost")
    assert api.post(f"tasks/{launched[0]}/forget").status_code == api.post("tasks/nope/forget").status_code == 404
    assert api.post(f"tasks/{launched[1]}/forget?force=true").status_code == 200


def test_output_is_read_from_the_agent_in_pieces(loop: FakeLoop, tmp_path: Path) -> None:
    text = "".join(f"line {number} ä\n" for number in range(100)).encode()
    asked: list[LogRequest] = []

    async def read(request: LogRequest) -> LogChunk:
        asked.append(request)
        offset = request.offset if request.offset >= 0 else max(0, len(text) + request.offset)
        return LogChunk(text[offset : offset + request.limit], offset, len(text))

    api = client_of(make_api(tmp_path, loop, read_log=read))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    api.post("apps", json=app_body(sha256))
    api.post("jobs", json=job_body())
    loop.tick(6000)
    loop.offer()
    task_id = loop.tick()[0]
    whole, offset = "", 0
    while offset < len(text):
        piece = api.get(f"tasks/{task_id}/logs", params={"offset": offset, "limit": 7}).json()
        assert piece["nextOffset"] > offset
        whole, offset = whole + piece["text"], piece["nextOffset"]
    assert whole.encode() == text, "no character is cut in two"
    tail = api.get(f"tasks/{task_id}/logs", params={"tail": 2, "stream": "stderr"}).json()
    assert tail["text"] == "line 98 ä\nline 99 ä\n"
    assert (asked[-1].stream, asked[-1].agent_id, asked[-1].address) == ("stderr", "agent-1", "agent-1.test:5051")
    assert asked[-1].executors == (loop.scheduler.tasks[task_id].executor_id,)
    executor = loop.scheduler.tasks[task_id].executor_id
    loop.update(task_id, "TASK_FINISHED")
    loop.scheduler.executors.clear()
    assert api.get(f"tasks/{task_id}/logs").status_code == 200
    assert asked[-1].executors == (executor,), "an executor that has left is still known by its app"
    assert issues(api.get(f"tasks/{task_id}/logs", params={"tail": 2, "offset": 1}))
    assert api.get("tasks/nope/logs").status_code == 404


def test_active_task_without_output_has_empty_logs(loop: FakeLoop, tmp_path: Path) -> None:
    async def read(request: LogRequest) -> LogChunk:
        raise NotFound("there is no such output", field="taskId")

    api = client_of(make_api(tmp_path, loop, read_log=read))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    api.post("apps", json=app_body(sha256))
    api.post("jobs", json=job_body())
    loop.tick(6000)
    loop.offer()
    task_id = loop.tick()[0]
    assert api.get(f"tasks/{task_id}/logs").json()["text"] == ""
    loop.update(task_id, "TASK_FINISHED")
    assert "no such output" in issues(api.get(f"tasks/{task_id}/logs"), "not-found")["taskId"]
