"""The numbers that the history samples, from a scheduler with work of all kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.api_kit import FakeLoop, app_body, client_of, job_body, make_api, package_bytes

from jobcloud.config import Resources
from jobcloud.errors import Unavailable
from jobcloud.history.samples import TeamNumbers
from jobcloud.messages import AgentLost
from jobcloud.server.samples import sample_of


def test_sample_counts_jobs_attempts_runs_and_agents_by_team(tmp_path: Path) -> None:
    loop = FakeLoop()
    loop.subscribe()
    client = client_of(make_api(tmp_path, loop))
    sha256 = client.post("packages", content=package_bytes()).json()["sha256"]
    yearly = "0 0 0 1 1 ?"
    for body in (app_body(sha256), app_body(sha256, "off"), app_body(sha256, "till", team="billing", executors=1)):
        assert client.post("apps", json=body).status_code == 201
    for body in (
        job_body("hello", cron=yearly, shardingTotalCount=3),
        job_body("disabled", cron=yearly),
        job_body("of-disabled-app", "off", cron=yearly),
        job_body("wide", "till", team="billing", cron=yearly, shardingTotalCount=5, cpuCount=100),
    ):
        assert client.post("jobs", json=body).status_code == 201
    assert client.post("jobs/disabled/disable").status_code == 200
    assert client.post("apps/off/disable").status_code == 200
    for agent in ("agent-1", "agent-2", "agent-3"):
        loop.offer(agent)
    loop.tick()
    assert client.post("jobs/hello/trigger").status_code == 202
    assert client.post("jobs/billing:wide/trigger").status_code == 202
    once = job_body("once", shardingTotalCount=1)
    del once["jobExecutionType"], once["cron"]
    assert client.post("runs", json=once).status_code == 202
    launched = loop.tick()
    for agent in ("agent-1", "agent-2", "agent-3"):
        loop.offer(agent)
    launched += loop.tick()
    loop.feed(AgentLost(loop.now, "agent-3"))
    found = sample_of(loop.ask)
    assert found is not None
    hello = [task for task in launched if task.startswith("hello@")]
    assert len(hello) == 3
    default, billing = found.teams["default"], found.teams["billing"]
    assert default[:-1] == TeamNumbers(3, 2, 2, 4, 0, 2)[:-1], "an ad-hoc job runs, but is not registered"
    # A warm executor is no running job, but uses resources.
    assert billing[:-1] == TeamNumbers(1, 0, 0, 0, 5, 1)[:-1]
    assert billing.used.cpus > 0
    assert default.used.cpus >= 400
    assert (found.agents, found.total.cpus > 0) == (2, True)
    assert isinstance(found.total, Resources)


@pytest.mark.parametrize("error", [Unavailable("no leader here"), TimeoutError()])
def test_scheduler_that_does_not_lead_has_no_sample(error: Exception) -> None:
    def ask(_: object) -> object:
        raise error

    assert sample_of(ask) is None  # type: ignore[arg-type]
