"""Attempts of shards in the API: those of a shard that waits for its next one, and earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, client_of, issues, job_body, make_api

from jobcloud.server.api import LogChunk, LogRequest

ASKED: list[LogRequest] = []


async def read_log(request: LogRequest) -> LogChunk:
    ASKED.append(request)
    data = f"output of {request.task_id}\n".encode()
    offset = max(0, request.offset)
    return LogChunk(data[offset:], min(offset, len(data)), len(data))


@pytest.fixture
def api(loop: FakeLoop, tmp_path: Path) -> Client:
    ASKED.clear()
    return client_of(make_api(tmp_path, loop, read_log=read_log, clock=lambda: loop.now))


@pytest.fixture
def run(api: Client, demo: str) -> str:
    """A run with one shard of a job that repeats it three times."""
    body = job_body(retryCount=3, retryDelaySeconds=60, retryJitter=0, shardingTotalCount=1, failover=True)
    assert api.post("jobs", json=body).status_code == 201
    return str(api.post("jobs/hello/trigger").json()["id"])


def attempt(loop: FakeLoop, state: str = "TASK_FAILED", agent: str = "agent-1") -> str:
    """Launch the next attempt on an agent; let it run for a second and end."""
    loop.offer(agent)
    (task_id,) = loop.tick(600_000)
    loop.update(task_id, "TASK_RUNNING")
    loop.now += 1_000
    loop.update(task_id, state, f"{state} on {agent}")
    return task_id


def of_tasks(api: Client, **query: Any) -> list[tuple[str, str]]:
    return [(task["id"], task["state"]) for task in api.get("tasks", params=query).json()["items"]]


def test_attempts_of_a_shard_are_listed_with_the_present_one_first(api: Client, loop: FakeLoop, run: str) -> None:
    path = f"runs/{run}/shards/0"
    assert api.get(f"{path}/attempts").json()["items"] == []
    first, second = attempt(loop), attempt(loop, "TASK_LOST", "agent-2")
    loop.offer("agent-3")
    (third,) = loop.tick(600_000)
    found = api.get(f"{path}/attempts").json()["items"]
    assert [(one["number"], one["taskId"], one["state"], one["active"]) for one in found] == [
        (3, third, "STORED", True), (2, second, "LOST", False), (1, first, "FAILED", False),
    ]  # fmt: skip
    assert [one["hostname"] for one in found] == ["agent-3.test", "agent-2.test", "agent-1.test"]
    assert all(one["executorId"] and one["agentId"] for one in found)
    assert [bool(one["startedAt"] and one["endedAt"]) for one in found] == [False, True, True]
    assert found[1]["message"] == "TASK_LOST on agent-2"
    loop.update(third, "TASK_FINISHED")
    found = api.get(f"{path}/attempts").json()["items"]
    assert [(one["number"], one["state"]) for one in found] == [(3, "FINISHED"), (2, "LOST"), (1, "FAILED")]


def test_shard_that_waits_for_its_next_attempt_shows_when_and_why(api: Client, loop: FakeLoop, run: str) -> None:
    task_id = attempt(loop)
    shard = api.get(f"runs/{run}/shards/0").json()
    assert (shard["runId"], shard["item"], shard["state"], shard["attempt"]) == (run, 0, "WAITING", 1)
    assert shard["waitsBecause"] == "attempt 1 is FAILED: TASK_FAILED on agent-1"
    shown = api.get(f"runs/{run}").json()
    assert shard["notBefore"] == shown["nextAttempt"] == shown["shards"][0]["notBefore"] != None  # noqa: E711
    (task,) = api.get("tasks").json()["items"]
    assert (task["id"], task["state"], task["active"]) == (task_id, "WAITING", False)
    assert task["nextAttempt"] == shard["notBefore"]
    assert task["startedAt"] < task["endedAt"] < task["nextAttempt"]
    assert api.get(f"tasks/{task_id}").json()["state"] == "WAITING"
    assert of_tasks(api, state="waiting") == [(task_id, "WAITING")]
    assert of_tasks(api, state="active") == of_tasks(api, state="ended") == of_tasks(api, state="FAILED") == []
    loop.offer()
    loop.tick(600_000)
    assert api.get(f"runs/{run}/shards/0").json()["waitsBecause"] == ""
    assert api.get(f"runs/{run}").json()["nextAttempt"] is None


def test_task_of_an_earlier_attempt_is_found_by_its_id(api: Client, loop: FakeLoop, run: str) -> None:
    first, second = attempt(loop), attempt(loop, "TASK_LOST", "agent-2")
    shown = api.get(f"tasks/{first}").json()
    assert (shown["attempt"], shown["state"], shown["hostname"]) == (1, "FAILED", "agent-1.test")
    assert (shown["nextAttempt"], shown["message"]) == (None, "TASK_FAILED on agent-1")
    assert of_tasks(api) == [(second, "WAITING")]


@pytest.mark.parametrize("path", ["runs/nope/shards/0", "runs/{run}/shards/1", "runs/{run}/shards/-1"])
@pytest.mark.parametrize("rest", ["", "/attempts", "/attempts/1/logs", "/attempts/1/logs/stream"])
def test_unknown_run_or_shard_is_not_found(api: Client, run: str, path: str, rest: str) -> None:
    assert api.get(path.format(run=run) + rest).status_code == 404


def test_output_is_read_by_run_shard_and_attempt(api: Client, loop: FakeLoop, run: str) -> None:
    first, second = attempt(loop), attempt(loop, "TASK_LOST", "agent-2")
    path = f"runs/{run}/shards/0/attempts"
    for number, task_id, agent in ((1, first, "agent-1"), (2, second, "agent-2")):
        answer = api.get(f"{path}/{number}/logs", params={"stream": "stderr", "tail": 3}).json()
        assert (answer["taskId"], answer["text"]) == (task_id, f"output of {task_id}\n")
        asked = ASKED[-1]
        assert (asked.task_id, asked.agent_id, asked.stream, asked.ended) == (task_id, agent, "stderr", True)
        assert asked.executors[0]
        assert api.get(f"tasks/{task_id}/logs").json()["text"] == answer["text"]
        stream = api.get(f"{path}/{number}/logs/stream").text
        assert f"output of {task_id}" in stream
        assert f'event: end\ndata: {{"state": "{["", "FAILED", "LOST"][number]}"}}' in stream
    assert "1, 2" in issues(api.get(f"{path}/3/logs"), "not-found")["attempt"]
    issues(api.get(f"{path}/1/logs?tale=1"))
    issues(api.get(f"{path}/x/logs"))


def test_kill_of_a_waiting_shard_ends_it(api: Client, loop: FakeLoop, run: str) -> None:
    task_id = attempt(loop)
    answer = api.post(f"tasks/{task_id}/kill")
    assert (answer.status_code, answer.json()["state"]) == (202, "WAITING")
    assert api.get(f"runs/{run}").json()["state"] == "KILLED"
    assert of_tasks(api) == [(task_id, "KILLED")]
    (found,) = api.get(f"runs/{run}/shards/0/attempts").json()["items"]
    assert found["state"] == "FAILED"
    assert api.post(f"tasks/{task_id}/kill").status_code == 404


def test_run_is_cancelled(api: Client, loop: FakeLoop, demo: str) -> None:
    api.post("jobs", json=job_body(retryCount=3, retryDelaySeconds=60))
    run = api.post("jobs/hello/trigger").json()["id"]
    loop.offer()
    failed, running = loop.tick()
    loop.update(failed, "TASK_FAILED")
    answer = api.post(f"runs/{run}/cancel")
    assert answer.status_code == 202
    assert answer.json()["shardStates"] == {"CANCELLED": 1, "ACTIVE": 1}
    loop.update(running, "TASK_KILLED")
    assert api.get(f"runs/{run}").json()["state"] == "KILLED"
    assert "runId" in issues(api.post(f"runs/{run}/cancel"), "conflict")
    assert api.post("runs/nope/cancel").status_code == 404


def test_run_of_a_daemon_job_is_not_cancelled(api: Client, loop: FakeLoop, demo: str) -> None:
    api.post("jobs", json=job_body("resident", jobExecutionType="DAEMON"))
    run = api.get("runs").json()["items"][0]["id"]
    found = issues(api.post(f"runs/{run}/cancel"), "conflict")
    assert "jobcloud job disable resident" in found["runId"]
    assert api.get(f"runs/{run}").json()["state"] == "WAITING"


def test_explanation_says_why_the_shard_waits_and_why_the_last_run_failed(
    api: Client, loop: FakeLoop, run: str
) -> None:
    def reasons() -> dict[str, Any]:
        return {reason["code"]: reason for reason in api.get("jobs/hello/explain").json()["reasons"]}

    attempt(loop)
    waits = reasons()["back_off"]
    assert waits["text"] == "shard 0 waits for attempt 2: attempt 1 on agent-1.test failed: TASK_FAILED on agent-1"
    assert waits["until"] == api.get(f"runs/{run}").json()["nextAttempt"]
    assert "last_run" not in reasons()
    for _ in range(2):
        attempt(loop)
    attempt(loop, agent="agent-2")
    found = api.get("jobs/hello/explain").json()
    assert found["reasons"][-1]["text"] == (
        f"the last run, {run}: shard 0 is DEAD: attempt 4 on agent-2.test failed: TASK_FAILED on agent-2"
    )
    assert found["headline"] != found["reasons"][-1]["text"]
