"""Backfills in the API."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, issues, job_body

from jobcloud.server.api.schema import rfc3339


def instant(at: int) -> str:
    return str(rfc3339(at))


def test_backfill_lists_and_makes_runs(api: Client, loop: FakeLoop, hello: str) -> None:
    start = loop.now // 5_000 * 5_000  # the job fires every five seconds
    body = {"from": instant(start - 20_000), "to": instant(start), "order": "newest", "limit": 3}
    wanted = [instant(start - 5_000 * number) for number in range(3)]
    dry = api.post("jobs/hello/backfill", json=body | {"dryRun": True}).json()
    assert dry == {"jobName": "hello", "team": "default", "dryRun": True, "times": wanted, "more": True, "waiting": 0}
    assert api.get("jobs/hello").json()["backfillWaiting"] == 0
    done = api.post("jobs/hello/backfill", json=body)
    assert (done.status_code, done.json()) == (200, dry | {"dryRun": False, "waiting": 3})
    assert api.get("jobs/hello").json()["backfillWaiting"] == 3
    for _ in range(4):
        loop.tick()
        loop.offer()
        for task_id in loop.tick():
            loop.update(task_id, "TASK_FINISHED")
    runs = [run for run in api.get("runs").json()["items"] if run["cause"] == "backfill"]
    assert [run["firedAt"] for run in runs] == wanted
    assert all(run["terms"] is None and run["state"] == "FINISHED" for run in runs)
    assert api.get("jobs/hello").json()["backfillWaiting"] == 0
    again = api.post("jobs/hello/backfill", json=body).json()
    assert again["times"] == [instant(start - 15_000), instant(start - 20_000)]


def test_backfill_is_cancelled(api: Client, loop: FakeLoop, hello: str) -> None:
    given = {"from": instant(loop.now - 60_000)}
    assert api.post("jobs/hello/backfill", json=given).json()["waiting"] == 13
    assert api.delete("jobs/hello/backfill").status_code == 204
    assert api.get("jobs/hello").json()["backfillWaiting"] == 0
    assert issues(api.delete("jobs/absent/backfill"), "not-found")


def test_backfill_of_a_resident_job_is_refused(api: Client, demo: str) -> None:
    api.post("jobs", json=job_body("always", jobExecutionType="DAEMON"))
    for dry in (True, False):
        body = {"from": "2023-01-31T08:00:00Z", "dryRun": dry}
        assert "jobName" in issues(api.post("jobs/always/backfill", json=body), "conflict")
        assert issues(api.post("jobs/absent/backfill", json=body), "not-found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "from"),
        ({"from": "2026-01-31T08:00:00"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": 7}, "from"),
        ({"from": None}, "from"),
        ({"from": "9999-12-31T23:59:59-23:00"}, "from"),
        ({"from": "2023-01-31T08:00:00Z", "to": "2022-01-31T08:00:00Z"}, "from"),
        ({"from": "2023-01-31T08:00:00Z", "to": "x"}, "to"),
        ({"from": "2023-01-31T08:00:00Z", "order": "random"}, "order"),
        ({"from": "2023-01-31T08:00:00Z", "limit": 1_001}, "limit"),
        ({"from": "2023-01-31T08:00:00Z", "atOnce": 0}, "atOnce"),
        ({"from": "2023-01-31T08:00:00Z", "dryRun": "yes"}, "dryRun"),
        ({"from": "2023-01-31T08:00:00Z", "since": "x"}, "since"),
    ],
)
def test_backfill_with_a_wrong_value_is_refused(api: Client, hello: str, body: dict[str, Any], field: str) -> None:
    assert field in issues(api.post("jobs/hello/backfill", json=body), "invalid")
    assert api.get("jobs/hello").json()["backfillWaiting"] == 0
