"""Pauses in the API and on the command line of its client."""

from __future__ import annotations

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, issues


@pytest.mark.parametrize(("path", "word"), [("jobs/hello", "job"), ("apps/demo", "app"), ("cluster", "cluster")])
def test_pause_shows_in_the_job_its_app_and_the_cluster(
    api: Client, loop: FakeLoop, hello: str, path: str, word: str
) -> None:
    assert api.get("jobs/hello").json()["nextFiring"]
    paused = api.post(f"{path}/pause")
    assert paused.status_code == 200
    assert paused.json() == api.get(path).json()
    job, app = api.get("jobs/hello").json(), api.get("apps/demo").json()
    assert (job["pausedBy"], job["enabled"], job["nextFiring"]) == ([word], True, None)
    assert app["pausedBy"] == [word] * (word != "job")
    assert api.get("cluster").json()["paused"] == (word == "cluster")
    (reason, *_) = api.get("jobs/hello/explain").json()["reasons"]
    assert reason["code"] == "paused"
    loop.tick(6_000)
    assert not api.get("runs").json()["items"]
    assert api.post(f"{path}/resume").json() == api.get(path).json()
    assert api.get("jobs/hello").json()["pausedBy"] == []


def test_reason_of_skipped_firings_has_a_code_with_parameters(api: Client, loop: FakeLoop, hello: str) -> None:
    job = api.get("jobs/hello").json()
    assert (job["skippedFirings"], job["skippedReason"], job["skippedWords"]) == (0, "", None)
    api.patch("jobs/hello", json={"cron": "* * * * * ?", "misfire": True, "misfireLimit": 2}).raise_for_status()
    for _ in range(4):
        loop.tick(1_000)
    job = api.get("jobs/hello").json()
    assert (job["skippedFirings"], job["skippedReason"]) == (1, "2 firings wait already (misfireLimit)")
    assert job["skippedWords"] == {"code": "misfire_limit", "parameters": {"waiting": 2}}


def test_pauses_of_a_job_are_listed_from_the_narrowest(api: Client, hello: str) -> None:
    for path in ("cluster", "apps/demo", "jobs/hello"):
        api.post(f"{path}/pause")
    assert [job["pausedBy"] for job in api.get("jobs").json()["items"]] == [["job", "app", "cluster"]]


def test_unknown_job_and_app_cannot_be_paused(api: Client, hello: str) -> None:
    for path in ("jobs/absent", "apps/absent"):
        for word in ("pause", "resume"):
            assert issues(api.post(f"{path}/{word}"), "not-found")
    assert api.post("jobs/hello/halt").status_code == 404
    assert api.get("jobs/hello/pause").status_code == 405
