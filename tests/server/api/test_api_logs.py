"""Output of ended attempts in the API: from the archive if it is there, or else from the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, client_of, issues, job_body, make_api
from tests.archive_kit import Bench, FakeAgents, FaultyStore, ended

from jobcloud.archive.names import Ended
from jobcloud.archive.service import ArchiveOptions
from jobcloud.archive.stores import DirectoryStore
from jobcloud.errors import NotFound, Refused, Unavailable
from jobcloud.model import End
from jobcloud.server.api import LogChunk, LogRequest

AGENT = b"from the agent\n"


class Agent:
    """The agents as the API reads them. They fail with `error`, if it is set."""

    def __init__(self) -> None:
        self.error: Refused | None = None
        self.asked = 0

    async def read(self, request: LogRequest) -> LogChunk:
        self.asked += 1
        if self.error is not None:
            raise self.error
        offset = min(max(0, request.offset), len(AGENT))
        return LogChunk(AGENT[offset:], offset, len(AGENT))


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "archive"
    options = ArchiveOptions(folder, "test", threads=0)
    made = Bench(FaultyStore(DirectoryStore(folder, "jobcloud-logs-1/test")), FakeAgents(), options)
    made.archive.fill([], {})
    made.run()
    return made


@pytest.fixture
def api(loop: FakeLoop, tmp_path: Path, agent: Agent, bench: Bench) -> Client:
    return client_of(
        make_api(tmp_path, loop, read_log=agent.read, clock=lambda: loop.now, archive=bench.archive), strict=False
    )


@pytest.fixture
def task(api: Client, loop: FakeLoop, demo: str) -> Ended:
    """An attempt that has ended, and is not archived."""
    assert api.post("jobs", json=job_body(shardingTotalCount=1)).status_code == 201
    run = str(api.post("jobs/hello/trigger").json()["id"])
    loop.offer()
    (task_id,) = loop.tick()
    loop.update(task_id, "TASK_RUNNING")
    loop.update(task_id, "TASK_FINISHED")
    return ended()._replace(run_id=run, item=0, attempt=1, job="hello", task_id=task_id, end=End.SUCCEEDED)


def paths(one: Ended) -> list[str]:
    return [f"tasks/{one.task_id}/logs", f"runs/{one.run_id}/shards/{one.item}/attempts/{one.attempt}/logs"]


def test_archived_log_is_read_without_the_agent(api: Client, agent: Agent, bench: Bench, task: Ended) -> None:
    for path in paths(task):
        assert api.get(path).json()["source"] == "agent"
    asked = agent.asked
    bench.end(task, output=b"one\ntwo\nthree\n")
    bench.run()
    for path in paths(task):
        found = api.get(path).json()
        assert (found["source"], found["text"], found["size"], found["taskId"]) == (
            "archive", "one\ntwo\nthree\n", 14, task.task_id,
        )  # fmt: skip
        assert api.get(path, params={"tail": 1}).json()["text"] == "three\n"
        assert api.get(path, params={"tail": 1}).json()["source"] == "archive"
        assert api.get(path, params={"offset": 4, "limit": 3}).json()["nextOffset"] == 7
        assert api.get(path, params={"stream": "stderr"}).json()["text"] == "oops\n"
        assert api.get(path, params={"offset": 1_000}).json()["text"] == ""
    assert agent.asked == asked


def test_archived_log_is_read_after_the_scheduler_has_forgotten_the_run(
    api: Client, agent: Agent, bench: Bench, task: Ended
) -> None:
    gone = task._replace(run_id="hello.long-ago@test", task_id=task.task_id[:-1] + "999")
    assert [api.get(path).status_code for path in paths(gone)] == [404, 404]
    bench.end(gone)
    bench.run()
    for path in paths(gone):
        assert api.get(path).json()["text"] == "done\n"
        assert api.get(path).json()["taskId"] == gone.task_id
    bench.store.broken = {"open"}
    for path in paths(gone):
        assert "open failed" in issues(api.get(path), "unavailable")[""]
    assert agent.asked == 0
    assert api.get("tasks/nope/logs").status_code == 404


def test_archived_log_is_streamed_to_its_end(api: Client, agent: Agent, bench: Bench, task: Ended) -> None:
    bench.end(task, output=b"one\ntwo\n")
    bench.run()
    for path in paths(task):
        text = api.get(f"{path}/stream").text
        assert '"text": "one\\ntwo\\n"' in text
        assert "event: end" in text
    assert agent.asked == 0


def test_agent_is_asked_if_the_archive_is_away(api: Client, agent: Agent, bench: Bench, task: Ended) -> None:
    bench.end(task)
    bench.run()
    bench.store.broken = {"open"}
    for path in paths(task):
        found = api.get(path).json()
        assert (found["source"], found["text"]) == ("agent", AGENT.decode())
    agent.error = Unavailable("the agent does not answer")
    for path in paths(task):
        (text,) = issues(api.get(path), "unavailable").values()
        assert "the agent does not answer" in text
        assert "open failed" in text


def drop(bench: Bench, one: Ended) -> None:
    bench.archive._count(one, "queue_full")


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (lambda bench, one: bench.end(one), "it waits to be archived"),
        (drop, "too many logs waited"),
        (lambda bench, one: bench.archive._count(one, "agent_away"), "its agent did not answer"),
        (lambda bench, one: None, "it was never archived, or its archived log was deleted"),
    ],
)
@pytest.mark.parametrize("error", [NotFound("the output does not exist", field="taskId"), Unavailable("unknown agent")])
def test_missing_log_says_why_it_is_not_in_the_archive(
    api: Client, agent: Agent, bench: Bench, task: Ended, error: Refused, before: Any, why: str
) -> None:
    agent.error = error
    before(bench, task)
    for path in paths(task):
        answer = api.get(path)
        if isinstance(error, NotFound):
            text = answer.json()["missing"]
        else:
            (text,) = issues(answer, "unavailable").values()
        assert error.problem in text
        assert why in text


def test_running_attempt_is_read_from_its_agent_alone(api: Client, loop: FakeLoop, agent: Agent, demo: str) -> None:
    api.post("jobs", json=job_body(shardingTotalCount=1))
    api.post("jobs/hello/trigger")
    loop.offer()
    (task_id,) = loop.tick()
    assert api.get(f"tasks/{task_id}/logs").json()["source"] == "agent"
    agent.error = NotFound("nothing yet", field="taskId")
    assert api.get(f"tasks/{task_id}/logs").json()["text"] == ""
    agent.error = Unavailable("it does not answer")
    assert "archive" not in api.get(f"tasks/{task_id}/logs").text
