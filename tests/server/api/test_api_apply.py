"""`POST /apply`: apps and jobs together, all or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.messages import Save
from jobcloud.server.api import apply as apply_module


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def api(tmp_path: Path, loop: FakeLoop) -> httpx.Client:
    return client_of(make_api(tmp_path, loop))


@pytest.fixture
def sha256(api: httpx.Client) -> str:
    return str(api.post("packages", content=package_bytes()).json()["sha256"])


def actions(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {f"{item['kind']} {item['key']}": item["action"] for item in answer.json()["items"]}


def test_apps_and_jobs_are_registered_in_one_write(api: httpx.Client, loop: FakeLoop, sha256: str) -> None:
    body = {"apps": [app_body(sha256)], "jobs": [job_body("a"), job_body("b")]}
    dry = api.post("apply", params={"dryRun": True}, json=body)
    assert actions(dry) == {"app demo": "added", "job a": "added", "job b": "added"}
    assert (loop.effects, loop.scheduler.apps) == ([], {})
    assert actions(api.post("apply", json=body)) == actions(dry)
    assert set(loop.scheduler.jobs) == {"a", "b"}
    saves = [effect for effect in loop.effects if isinstance(effect, Save)]
    assert len(saves) == 1
    loop.effects.clear()
    assert set(actions(api.post("apply", json=body)).values()) == {"unchanged"}
    assert loop.effects == []


def test_changes_name_each_field_with_both_values(api: httpx.Client, loop: FakeLoop, sha256: str) -> None:
    api.post("apply", json={"apps": [app_body(sha256)], "jobs": [job_body("a")]})
    changed = job_body("a", cpuCount=0.25, jobProperties={"job_exception_handler": "ignore"})
    answer = api.post("apply", json={"apps": [], "jobs": [changed]}).json()
    assert answer["items"] == [
        {
            "kind": "job",
            "key": "a",
            "action": "changed",
            "changes": [
                {"field": "cpuCount", "before": 0.1, "after": 0.25},
                {"field": "jobProperties.job_exception_handler", "before": "default", "after": "ignore"},
            ],
        }
    ]
    assert loop.scheduler.jobs["a"].resources.cpus == 250


def test_nothing_is_registered_if_one_job_is_wrong_and_all_errors_have_their_places(
    api: httpx.Client, loop: FakeLoop, sha256: str
) -> None:
    jobs = [job_body("a"), job_body("b", cron="never"), job_body("c", jobClass="hello:Missing"), job_body("a")]
    answer = api.post("apply", json={"apps": [app_body(sha256)], "jobs": jobs})
    found = issues(answer)
    assert set(found) == {"jobs.1.cron", "jobs.3.jobName"}
    assert "given twice, also as jobs.0" in found["jobs.3.jobName"]
    jobs = [job_body("a"), job_body("c", jobClass="hello:Missing"), job_body("d", app="other")]
    found = issues(api.post("apply", json={"apps": [app_body(sha256)], "jobs": jobs}))
    assert set(found) == {"jobs.1.jobClass", "jobs.2.appName"}
    assert not loop.scheduler.apps


def test_missing_package_is_refused_but_not_by_a_dry_run(api: httpx.Client, loop: FakeLoop) -> None:
    body = {"apps": [app_body("0" * 64)], "jobs": [job_body("a")]}
    assert actions(api.post("apply", params={"dryRun": True}, json=body))["app demo"] == "added"
    assert set(issues(api.post("apply", json=body))) == {"apps.0.appURL"}
    assert not loop.scheduler.apps


def test_jobs_that_are_not_named_are_left_or_pruned(api: httpx.Client, loop: FakeLoop, sha256: str) -> None:
    apps = [app_body(sha256), app_body(sha256, "other")]
    jobs = [job_body("a"), job_body("b"), job_body("c", app="other")]
    api.post("apply", json={"apps": apps, "jobs": jobs})
    body = {"apps": [app_body(sha256)], "jobs": [job_body("a")]}
    left = actions(api.post("apply", json=body))
    assert left == {"app demo": "unchanged", "job a": "unchanged", "job b": "left"}
    assert set(loop.scheduler.jobs) == {"a", "b", "c"}
    assert actions(api.post("apply", params={"prune": True, "dryRun": True}, json=body))["job b"] == "removed"
    assert set(loop.scheduler.jobs) == {"a", "b", "c"}
    assert actions(api.post("apply", params={"prune": True}, json=body))["job b"] == "removed"
    assert set(loop.scheduler.jobs) == {"a", "c"}, "jobs of apps that are not named are not touched"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"app": []}, "app"),
        ({"apps": {}}, "apps"),
        ({"jobs": [1]}, "jobs.0"),
        ({"jobs": [{}]}, "jobs.0.jobName"),
        ({"apps": [{"appNam": "x"}]}, "apps.0.appNam"),
    ],
)
def test_malformed_body_names_the_place(api: httpx.Client, body: Any, field: str) -> None:
    assert field in issues(api.post("apply", json=body))


def test_number_of_items_and_of_problems_is_limited(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found = issues(api.post("apply", json={"jobs": [{}] * 5_000}))
    assert len(found) <= 101
    monkeypatch.setattr(apply_module, "MAX_ITEMS", 3)
    assert "at most 3" in issues(api.post("apply", json={"jobs": [{}] * 4}))[""]
    assert api.post("apply", json=[]).status_code == 400


def test_apps_of_a_manifest_come_before_its_jobs_and_after_removed_ones(
    api: httpx.Client, loop: FakeLoop, sha256: str
) -> None:
    apps, jobs = [app_body(sha256), app_body(sha256, "other")], [job_body("a"), job_body("b")]
    api.post("apply", json={"apps": apps, "jobs": jobs})
    moved = {"apps": [app_body(sha256)], "jobs": [job_body("a", app="other")]}
    assert actions(api.post("apply", params={"prune": True}, json=moved)) == {
        "app demo": "unchanged",
        "job a": "changed",
        "job b": "removed",
    }
    assert loop.scheduler.jobs["a"].app_key == "other"
    loop.scheduler.validate()
