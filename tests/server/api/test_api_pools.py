"""Pools in the API: changes, lists, conditional requests, refused values, and the reason of a job that waits."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, issues, job_body


def test_pool_is_made_changed_listed_and_removed(api: Client) -> None:
    made = api.put("pools/orders-db", json={"slots": 5, "description": "at most 5 shards on the database"})
    assert made.status_code == 201
    assert made.json() | {"revision": ""} == {
        "name": "orders-db", "team": "default", "slots": 5, "description": "at most 5 shards on the database",
        "used": 0, "waiting": 0, "jobs": 0, "revision": "",
    }  # fmt: skip
    changed = api.put("pools/orders-db", json={"slots": 3})
    assert (changed.status_code, changed.json()["slots"], changed.json()["description"]) == (200, 3, "")
    assert api.put("pools/*:hosts", json={"slots": 0}).json()["team"] == "*"
    assert [one["name"] for one in api.get("pools").json()["items"]] == ["*:hosts", "orders-db"]
    shown = api.get("pools/default:orders-db")
    assert shown.json() == changed.json()
    assert api.get("pools/orders-db", headers={"If-None-Match": shown.headers["ETag"]}).status_code == 304
    assert api.delete("pools/orders-db").status_code == 204
    assert issues(api.get("pools/orders-db"), "not-found")["pool"].startswith("there is no pool orders-db")


def test_slots_are_taken_by_shards_and_named_in_the_reason(api: Client, loop: FakeLoop, demo: str) -> None:
    assert api.put("pools/db", json={"slots": 2}).status_code == 201
    body = job_body("report", shardingTotalCount=3, cron="0 0 0 1 1 ? 2099", pools=["db"])
    assert api.post("jobs", json=body).status_code == 201
    assert api.post("jobs/report/trigger").status_code == 202
    loop.subscribe()
    loop.offer()
    tasks = loop.tick()
    assert len(tasks) == 2
    (pool,) = api.get("pools").json()["items"]
    assert (pool["used"], pool["waiting"], pool["jobs"]) == (2, 1, 1)
    (reason,) = [one for one in api.get("jobs/report/explain").json()["reasons"] if one["code"] == "pool"]
    assert reason["text"] == "pool db: 2 of 2 slots are used"
    assert reason["parameters"] == {"pool": "db", "used": 2, "most": 2}
    assert api.get("jobs/report/fit").json()["fits"] == 0
    assert issues(api.delete("pools/db"), "conflict")["pool"].startswith(
        "pool db is named by 1 jobs, for example report"
    )


def test_change_of_another_revision_is_refused(api: Client) -> None:
    first = api.put("pools/db", json={"slots": 1})
    second = api.put("pools/db", json={"slots": 2}, headers={"If-Match": first.headers["ETag"]})
    assert second.status_code == 200
    for method, json in (("PUT", {"slots": 9}), ("DELETE", None)):
        answer = api.request(method, "pools/db", json=json, headers={"If-Match": first.headers["ETag"]})
        assert answer.status_code == 412
    assert api.get("pools/db").json()["slots"] == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "slots"), ({"slots": -1}, "slots"), ({"slots": 1_000_001}, "slots"), ({"slots": "many"}, "slots"),
        ({"slots": 1.5}, "slots"), ({"slots": 1, "description": "a\x07"}, "description"),
        ({"slots": 1, "description": "x" * 301}, "description"), ({"slots": 1, "team": "ops"}, "team"),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused_with_the_field(api: Client, body: dict[str, Any], field: str) -> None:
    assert field in issues(api.put("pools/db", json=body))
    assert api.get("pools").json()["items"] == []


@pytest.mark.parametrize("name", ["a b", "*", "*:", "a:b:c", "x" * 101, "a@-@b", "%00"])
def test_invalid_name_is_refused(api: Client, name: str) -> None:
    assert api.put(f"pools/{name}", json={"slots": 1}).status_code == 422
    assert api.get("pools").json()["items"] == []


@pytest.mark.parametrize(
    ("pools", "problem"),
    [
        (["db"], "there is no pool db for job report"),
        (["0 of db"], "names no pool"),
        (["ops:db"], "names no pool"),
        (["*:db", "2 of *:db"], "names *:db twice"),
    ],
)
def test_job_with_an_invalid_or_unknown_pool_is_refused(api: Client, demo: str, pools: list[str], problem: str) -> None:
    answer = api.post("jobs", json=job_body("report", pools=pools))
    assert problem in issues(answer)["pools"]
    assert api.get("jobs").json()["items"] == []
