"""Runs and fire times in the API."""

from __future__ import annotations

from httpx import Client
from tests.api_kit import FakeLoop, issues, job_body


def test_dead_run_is_listed_and_can_be_retried(api: Client, loop: FakeLoop, demo: str) -> None:
    body = job_body(retryCount=1, retryDelaySeconds=0.5, retryJitter=0, shardingTotalCount=1)
    assert api.post("jobs", json=body).status_code == 201
    run = api.post("jobs/hello/trigger").json()["id"]
    loop.subscribe()
    for wait in (0, 500):
        loop.offer()
        (task_id,) = loop.tick(wait)
        loop.update(task_id, "TASK_FAILED", "it broke")
    (found,) = api.get("runs", params={"state": "DEAD"}).json()["items"]
    (shard,) = found["shards"]
    assert (found["id"], found["state"], shard["state"], shard["retries"]) == (run, "DEAD", "DEAD", 1)
    assert api.get("jobs/hello").json()["deadRuns"] == 1
    assert [task["id"] for task in api.get("tasks", params={"state": "dead"}).json()["items"]] == [task_id]
    reasons = api.get("jobs/hello/explain").json()["reasons"]
    assert next(reason["code"] for reason in reasons) == "dead"
    answer = api.post(f"runs/{run}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "WAITING")
    assert api.get("jobs/hello").json()["deadRuns"] == 0
    assert "runId" in issues(api.post(f"runs/{run}/retry"), "conflict")
    assert "item" in issues(api.post(f"runs/{run}/retry", params={"item": 9}), "not-found")
    assert api.post(f"runs/{run}/retry", params={"item": "x"}).status_code == 422
    assert api.post("runs/nope/retry").status_code == 404


def test_pages_neither_repeat_nor_hide_runs_when_new_ones_come(
    api: Client, loop: FakeLoop, launched: list[str]
) -> None:
    for _ in range(4):
        api.post("jobs/hello/trigger")
        loop.now += 1
    known = [run["id"] for run in api.get("runs").json()["items"]]
    assert len(known) == 5
    seen: list[str] = []
    cursor = ""
    while True:
        page = api.get("runs", params={"limit": 2, "cursor": cursor}).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["nextCursor"]
        if not cursor:
            break
        api.post("jobs/hello/trigger")
        loop.now += 1
    assert seen == known


def test_next_firings_are_computed_in_the_requested_zone(api: Client) -> None:
    query: dict[str, str | int] = {
        "cron": "0 30 2 * * ?",
        "zone": "Europe/Berlin",
        "after": 1_774_645_200_000,
        "count": 2,
    }
    times = api.get("cron/next", params=query).json()["times"]
    assert times == ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"]
    assert "cron" in issues(api.get("cron/next", params={"cron": "nope"}))
    assert "count" in issues(api.get("cron/next", params={"cron": "0 0 0 * * ?", "count": 101}))
