"""The route that tells how many further shards of a job would fit."""

from __future__ import annotations

from httpx import Client
from tests.api_kit import FakeLoop, issues, job_body


def test_fit_counts_shards_and_names_what_is_short(api: Client, loop: FakeLoop, demo: str) -> None:
    api.post("jobs", json=job_body(cpuCount=2))
    loop.offer(cpus=8000)
    found = api.get("jobs/hello/fit", params={"shards": 10}).json()
    assert (found["jobName"], found["team"], found["shards"]) == ("hello", "default", 10)
    assert 1 <= found["fits"] < 10
    assert (found["agentCount"], found["newExecutors"], found["complete"]) == (1, 1, True)
    (agent,) = found["agents"]
    assert agent == {"agentId": "agent-1", "hostname": "agent-1.test", "shards": found["fits"], "newExecutor": True}
    assert found["reasons"][0]["resource"] == "cpus"
    assert found["reasons"][0]["asked"] == 2
    assert found["waitingHelps"]
    assert loop.scheduler.cluster.claim_count() == (0, 0)


def test_fit_asks_about_a_run_by_default(api: Client, loop: FakeLoop, hello: str) -> None:
    loop.offer()
    found = api.get("jobs/hello/fit").json()
    assert found["shards"] == api.get("jobs/hello").json()["config"]["shardingTotalCount"] == found["fits"]
    assert found["reasons"] == []


def test_fit_refuses_what_it_does_not_know(api: Client, hello: str) -> None:
    assert api.get("jobs/nope/fit").status_code == 404
    for query in ({"shards": 10_001}, {"shards": -1}, {"shards": "x"}):
        assert "shards" in issues(api.get("jobs/hello/fit", params=query))
    assert api.get("jobs/hello/fit", params={"agents": 1}).status_code == 422
