"""The queue names the jobs with waiting shards, the longest wait first, and why they wait."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, issues, job_body

NEVER = "0 0 0 1 1 ? 2099"


@pytest.fixture
def jobs(api: Client, sha256: str, loop: FakeLoop) -> None:
    """The jobs a, blue:b and c, which have waited since one second after each other."""
    for team in ("default", "blue"):
        assert api.post("apps", json=app_body(sha256, team=team)).status_code == 201
    for name, team, priority in (("a", "default", 7), ("b", "blue", 0), ("c", "default", 0)):
        body = job_body(name, team=team, priority=priority, cron=NEVER, cpuCount=100, concurrency="forbid")
        assert api.post("jobs", json=body).status_code == 201
        start(api, name if team == "default" else f"{team}:{name}")
        loop.now += 1_000


def start(api: Client, job: str, **terms: Any) -> None:
    assert api.post(f"jobs/{job}/trigger", json=terms).status_code == 202


def queue(api: Client, **params: Any) -> list[Any]:
    answer = api.get("queue", params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_queue_is_empty_without_waiting_shards(api: Client, launched: list[str]) -> None:
    assert api.get("queue").json() == {"items": [], "nextCursor": "", "total": 0}


def test_jobs_are_listed_by_their_wait_with_a_reason_in_numbers(api: Client, loop: FakeLoop, jobs: None) -> None:
    assert [job["code"] for job in queue(api)] == ["no_offers"] * 3
    loop.offer()
    loop.tick()
    found = queue(api)
    assert [(job["jobName"], job["team"]) for job in found] == [("a", "default"), ("blue:b", "blue"), ("c", "default")]
    assert [job["oldestWait"] for job in found] == [f"2023-11-14T22:13:2{second}.000Z" for second in range(3)]
    assert (found[0]["priority"], found[0]["waiting"], found[0]["ready"], found[0]["code"]) == (7, 2, 2, "short")
    assert "asked 100.5, best available 8" in found[0]["reason"]
    assert found[0]["reason"] == api.get("jobs/a/explain").json()["headline"]


def test_runs_of_a_job_are_one_row(api: Client, jobs: None) -> None:
    start(api, "a", priority=3)
    (first, *_) = queue(api)
    assert (first["jobName"], first["waiting"], first["ready"], first["priority"]) == ("a", 4, 2, 7)


@pytest.mark.parametrize(
    ("path", "code"), [("jobs/a/pause", "paused"), ("apps/demo/pause", "paused"), ("cluster/pause", "paused")]
)
def test_paused_job_waits_with_nothing_ready(api: Client, jobs: None, path: str, code: str) -> None:
    api.post(path)
    (first, *_) = queue(api)
    assert (first["jobName"], first["ready"], first["code"]) == ("a", 0, code)


def test_queue_comes_in_pages(api: Client, jobs: None) -> None:
    first = api.get("queue", params={"limit": 2}).json()
    assert ([job["jobName"] for job in first["items"]], first["total"]) == (["a", "blue:b"], 3)
    assert [job["jobName"] for job in queue(api, cursor=first["nextCursor"])] == ["c"]
    assert [job["jobName"] for job in queue(api, team="blue")] == ["blue:b"]


@pytest.mark.parametrize("params", [{"limit": 51}, {"limit": 0}, {"team": "?"}, {"state": "x"}, {"cursor": "x"}])
def test_wrong_parameter_is_refused(api: Client, params: dict[str, Any]) -> None:
    assert list(issues(api.get("queue", params=params))) == list(params)
