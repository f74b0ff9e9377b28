"""Jobs are found by text, labels, owner and state, and listed in the wanted order."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, issues, job_body

NEVER = "0 0 0 1 1 ? 2099"


@pytest.fixture
def jobs(api: Client, sha256: str, loop: FakeLoop) -> list[str]:
    """Jobs in various states. The name of each tells its state."""
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    assert api.post("apps", json=app_body(sha256, "other", team="blue")).status_code == 201
    made = [
        job_body("dead", labels="owner=Ann,tier=gold", cron=NEVER, retryCount=1, retryDelaySeconds=0.5, retryJitter=0),
        job_body("failed", labels="owner=bob,tier=silver", cron=NEVER),
        job_body("good", description="the report OF THE YEAR", cron="0 0 1 1 1 ? 2098"),
        job_body("off", cron=NEVER),
        job_body("paused", labels="tier=gold", cron="0 0 1 1 1 ? 2097"),
        job_body("running", cron="0 0 0 1 1 ? 2001"),
        job_body("waiting", "other", team="blue", cron="0 0 0 1 1 ? 2001"),
    ]
    for job in made:
        answer = api.post("jobs", json=job)
        assert answer.status_code == 201, answer.text
    _play(api, loop, "dead", "TASK_FAILED")
    _play(api, loop, "dead", "TASK_FAILED", trigger=False)
    _play(api, loop, "failed", "TASK_FINISHED")
    _play(api, loop, "failed", "TASK_FAILED")
    _play(api, loop, "good", "TASK_FAILED")
    _play(api, loop, "good", "TASK_FINISHED")
    _play(api, loop, "running", "TASK_RUNNING")
    api.post("jobs/off/disable")
    api.post("jobs/paused/pause")
    loop.now += 1_000
    assert api.post("jobs/blue:waiting/trigger").status_code == 202
    return sorted(job["jobName"] if job.get("team") is None else f"blue:{job['jobName']}" for job in made)


def _play(api: Client, loop: FakeLoop, job: str, end: str, *, trigger: bool = True) -> None:
    loop.now += 1_000
    if trigger:
        assert api.post(f"jobs/{job}/trigger").status_code == 202
    loop.offer()
    for task in loop.tick(1_000):
        loop.update(task, end)


def found(api: Client, **params: Any) -> list[str]:
    answer = api.get("jobs", params=params)
    assert answer.status_code == 200, answer.text
    names = [job["jobName"] for job in answer.json()["items"]]
    assert answer.json()["total"] == len(names)
    return names


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"q": "Report of"}, ["good"]),
        ({"q": "BLUE:w"}, ["blue:waiting"]),
        ({"q": "ann"}, ["dead"]),
        ({"q": "gold"}, []),
        ({"label": "tier"}, ["dead", "failed", "paused"]),
        ({"label": "tier=gold"}, ["dead", "paused"]),
        ({"label": ["tier=gold", "owner"]}, ["dead"]),
        ({"label": "tier="}, []),
        ({"owner": "bob"}, ["failed"]),
        ({"owner": "ann"}, []),
        ({"team": "blue"}, ["blue:waiting"]),
        ({"team": "blue", "q": "good"}, []),
        ({"app": "demo", "state": "waiting"}, []),
        ({"state": "disabled"}, ["off"]),
        ({"state": "paused"}, ["paused"]),
        ({"state": "running"}, ["running"]),
        ({"state": "waiting"}, ["blue:waiting"]),
        ({"state": "failed"}, ["dead", "failed"]),
        ({"state": "dead"}, ["dead"]),
        ({"state": "enabled", "label": "tier=gold"}, ["dead", "paused"]),
        ({"state": "enabled", "team": "blue"}, ["blue:waiting"]),
    ],
    ids=str,
)
def test_jobs_are_filtered(api: Client, jobs: list[str], params: dict[str, Any], names: list[str]) -> None:
    assert found(api, **params) == names


def test_state_of_an_app_and_of_everything_counts(api: Client, jobs: list[str]) -> None:
    api.post("apps/blue:other/disable")
    api.post("apps/demo/pause")
    assert found(api, state="disabled") == ["blue:waiting", "off"]
    assert found(api, state="paused") == [name for name in jobs if name != "blue:waiting"]
    api.post("cluster/pause")
    assert found(api, state="paused") == jobs


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("name", ["blue:waiting", "dead", "failed", "good", "off", "paused", "running"]),
        ("-name", ["running", "paused", "off", "good", "failed", "dead", "blue:waiting"]),
        ("next", ["good", "dead", "failed", "blue:waiting", "off", "paused", "running"]),
        ("-next", ["failed", "dead", "good", "running", "paused", "off", "blue:waiting"]),
        ("last", ["dead", "failed", "good", "running", "blue:waiting", "off", "paused"]),
        ("-last", ["blue:waiting", "running", "good", "failed", "dead", "paused", "off"]),
    ],
)
def test_jobs_are_sorted_and_paged_in_each_order(api: Client, jobs: list[str], sort: str, names: list[str]) -> None:
    assert found(api, sort=sort) == names
    for limit in (1, 2, 3):
        paged: list[str] = []
        cursor = ""
        while not paged or cursor:
            page = api.get("jobs", params={"sort": sort, "limit": limit, "cursor": cursor}).json()
            paged += [job["jobName"] for job in page["items"]]
            assert page["total"] == len(names)
            cursor = page["nextCursor"]
        assert paged == names


def test_cursor_of_another_order_is_refused(api: Client, jobs: list[str]) -> None:
    for mine in ("name", "-name", "next", "-next", "last"):
        cursor = api.get("jobs", params={"sort": mine, "limit": 1}).json()["nextCursor"]
        for other in ("name", "-name", "next", "-next", "-last"):
            answer = api.get("jobs", params={"sort": other, "limit": 1, "cursor": cursor})
            assert (answer.status_code == 200) == (mine == other), (mine, other)


def test_cursor_stays_right_when_jobs_come_and_go(api: Client, jobs: list[str]) -> None:
    page = api.get("jobs", params={"sort": "-name", "limit": 3}).json()
    assert [job["jobName"] for job in page["items"]] == ["running", "paused", "off"]
    api.delete("jobs/off")
    for name in ("zoo", "able"):
        assert api.post("jobs", json=job_body(name)).status_code == 201
    rest = api.get("jobs", params={"sort": "-name", "cursor": page["nextCursor"]}).json()
    assert [job["jobName"] for job in rest["items"]] == ["good", "failed", "dead", "blue:waiting", "able"]


def test_brief_row_has_what_a_table_needs(api: Client, jobs: list[str]) -> None:
    (whole,) = api.get("jobs", params={"q": "dead"}).json()["items"]
    (brief,) = api.get("jobs", params={"q": "dead", "brief": "true"}).json()["items"]
    assert whole["config"]["jobName"] == "dead"
    assert brief == whole | {"config": None}
    assert {name: brief[name] for name in ("kind", "cron", "owner", "labels", "description")} == {
        "kind": "TRANSIENT", "cron": NEVER, "owner": "Ann", "labels": {"owner": "Ann", "tier": "gold"},
        "description": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"q": "x" * 101}, "q"),
        ({"label": ["a"] * 6}, "label"),
        ({"label": "a" * 165}, "label.0"),
        ({"owner": "x" * 101}, "owner"),
        ({"state": "odd"}, "state"),
        ({"sort": "+name"}, "sort"),
        ({"brief": "perhaps"}, "brief"),
        ({"text": "x"}, "text"),
    ],
    ids=str,
)
def test_wrong_parameter_is_refused(api: Client, params: dict[str, Any], field: str) -> None:
    assert field in issues(api.get("jobs", params=params))
