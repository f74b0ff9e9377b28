"""Cursors: all lists are read in pages that stay right while the lists change."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.history.database import Database
from jobcloud.history.queries import Reader
from jobcloud.server.api.paging import MAX_PAGE_BYTES

LISTS = [
    "alerts",
    "apps",
    "audit",
    "calendars",
    "executors",
    "history/attempts",
    "history/configurations",
    "history/events",
    "history/runs",
    "jobs",
    "packages",
    "pools",
    "queue",
    "roles",
    "runs",
    "services",
    "sessions",
    "silences",
    "statistics",
    "tasks",
    "teams",
    "tokens",
    "users",
    "workflows",
]


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def read(api: Client, path: str, key: str, limit: int = 2) -> list[list[str]]:
    """The keys of the items of each page."""
    pages, cursor = [], ""
    while True:
        answer = api.get(path, params={"limit": limit, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        pages.append([item[key] for item in answer.json()["items"]])
        if not (cursor := answer.json()["nextCursor"]):
            return pages


@pytest.fixture
def jobs(api: Client, demo: str) -> list[str]:
    names = [f"job-{number}" for number in range(5)]
    for name in names:
        assert api.post("jobs", json=job_body(name)).status_code == 201
    return names


def test_every_list_takes_a_cursor(api: Client) -> None:
    document = api.get("openapi.json").json()
    schemas, lists = document["components"]["schemas"], []
    for path, operations in document["paths"].items():
        if "get" not in operations:
            continue
        content = operations["get"]["responses"]["200"].get("content", {})
        name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
        if "items" in schemas.get(name, {}).get("properties", {}):
            taken = {parameter["name"] for parameter in operations["get"]["parameters"]}
            assert {"limit", "cursor"} <= taken, path
            assert "nextCursor" in schemas[name]["properties"], path
            lists.append(path.removeprefix("/api/v1/"))
    inner = ["apps/{app}/versions", "runs/{run_id}/shards/{item}/attempts", "runs/{run_id}/notes"]
    assert sorted(lists) == sorted([*LISTS, *inner, "workflows/{workflow}/runs"])


@pytest.mark.parametrize("path", LISTS)
def test_cursor_of_another_list_or_of_nobody_is_refused(path: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    api = client_of(make_api(tmp_path, history=reader))
    more = {"task": "a"} if path == "history/events" else {}
    foreign = [encoded(["other", "a"]), encoded(["other", 1, "a"]), encoded(["other", 1, "a", 0])]
    wrong = [encoded([path]), encoded([path, None]), encoded({}), encoded(7), encoded([path, ["a"], "b"])]
    for cursor in (*foreign, *wrong, "x", "é", "W1" * 200, encoded([path, "a", 1, True])):
        problems = issues(api.get(path, params={"cursor": cursor, **more}))
        assert problems["cursor"] == "is not a cursor of this list | pass nextCursor of the previous page"
    reader.close()


def test_pages_have_each_item_once(api: Client, jobs: list[str]) -> None:
    assert read(api, "jobs", "jobName") == [jobs[:2], jobs[2:4], jobs[4:]]
    assert read(api, "jobs", "jobName", limit=5) == [jobs]
    assert read(api, "apps", "appName") == [["demo"]]


def test_new_and_removed_items_neither_repeat_nor_hide_others(api: Client, jobs: list[str]) -> None:
    first = api.get("jobs", params={"limit": 2}).json()
    assert api.delete("jobs/job-1").is_success
    assert api.delete("jobs/job-0").is_success
    assert api.post("jobs", json=job_body("a-new-one")).is_success
    assert api.post("jobs", json=job_body("job-2b")).is_success
    rest = api.get("jobs", params={"limit": 10, "cursor": first["nextCursor"]}).json()
    assert [job["jobName"] for job in rest["items"]] == ["job-2", "job-2b", "job-3", "job-4"]
    assert rest["nextCursor"] == ""


def test_packages_and_executors_come_in_pages(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    for number in range(3):
        archive = package_bytes({"hello.py": f"class Hello: n = {number}\n"})
        sha256 = api.post("packages", content=archive).json()["sha256"]
        assert api.post("apps", json=app_body(sha256, f"app-{number}")).is_success
        assert api.post("jobs", json=job_body(f"job-{number}", f"app-{number}")).is_success
    loop.tick(6000)
    loop.offer("agent-2")
    loop.tick()
    packages = read(api, "packages", "sha256", limit=3)
    assert [len(page) for page in packages] == [3, 1]
    assert len({*packages[0], *packages[1]}) == 4
    executors = [app for page in read(api, "executors", "appName", limit=1) for app in page]
    assert executors == ["app-0", "app-1", "app-2", "demo"]


def test_page_of_large_jobs_ends_before_its_limit(api: Client, demo: str) -> None:
    for number in range(20):
        assert api.post("jobs", json=job_body(f"job-{number:02}", jobParameter="x" * 65_000)).is_success
    answer = api.get("jobs", params={"limit": 1000})
    assert len(answer.content) < MAX_PAGE_BYTES + 2 * 70_000
    assert len(answer.json()["items"]) < 20
    assert sum(map(len, read(api, "jobs", "jobName", limit=1000))) == 20
