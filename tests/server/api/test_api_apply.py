"""`POST /apply`: apps and jobs together, all or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.messages import Apply, Save
from jobcloud.model import Calendar, Pool
from jobcloud.server.api import apply as apply_module
from jobcloud.server.api.changes import Seen, look
from jobcloud.triggers import parse_days


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


def test_body_without_apps_and_jobs_changes_nothing(api: httpx.Client) -> None:
    bodies: list[dict[str, list[Any]]] = [{}, {"apps": [], "jobs": []}]
    for body in bodies:
        answer = api.post("apply", params={"prune": True}, json=body)
        assert (answer.status_code, answer.json()["items"]) == (200, [])


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


def limits(**more: Any) -> dict[str, Any]:
    pool = {"poolName": "orders-db", "slots": 5}
    calendar = {"calendarName": "closed", "days": ["2023-11-16", "2023-11-18/2023-11-19"], "description": "holidays"}
    return {"pools": [pool | more.get("pool", {})], "calendars": [calendar | more.get("calendar", {})]}


def test_pools_and_calendars_are_set_in_the_same_write_before_the_jobs_that_name_them(
    api: httpx.Client, loop: FakeLoop, sha256: str
) -> None:
    job = job_body("a", cron="0 0 8 * * ?", skipOn=["closed"], pools=["2 of orders-db"])
    body = {"apps": [app_body(sha256)], "jobs": [job], **limits()}
    assert set(issues(api.post("apply", json={**body, "calendars": []}))) == {"skipOn"}
    assert set(issues(api.post("apply", json={**body, "pools": []}))) == {"pools"}
    dry = api.post("apply", params={"dryRun": True}, json=body)
    assert list(actions(dry)) == ["pool orders-db", "calendar closed", "app demo", "job a"]
    assert set(actions(dry).values()) == {"added"}
    assert (loop.effects, loop.scheduler.pools, loop.scheduler.calendars) == ([], {}, {})
    assert actions(api.post("apply", json=body)) == actions(dry)
    assert len([effect for effect in loop.effects if isinstance(effect, Save)]) == 1
    assert api.get("jobs/a").json()["nextFiring"] == "2023-11-15T08:00:00.000Z"
    loop.effects.clear()
    assert set(actions(api.post("apply", json=body)).values()) == {"unchanged"}
    assert loop.effects == []


def test_changes_of_pools_and_calendars_name_each_field_and_the_days(api: httpx.Client, loop: FakeLoop) -> None:
    api.post("apply", json=limits())
    changed = limits(pool={"slots": 3}, calendar={"days": ["2023-11-16/2023-11-17"], "description": "open"})
    for dry_run in (True, False):
        pool, calendar = api.post("apply", params={"dryRun": dry_run}, json=changed).json()["items"]
        assert (pool["action"], pool["changes"]) == ("changed", [{"field": "slots", "before": 5, "after": 3}])
        assert {change["field"]: (change["before"], change["after"]) for change in calendar["changes"]} == {
            "days": (["2023-11-16", "2023-11-18/2023-11-19"], ["2023-11-16/2023-11-17"]),
            "description": ("holidays", "open"),
            "foundDays": (["2023-11-16", "2023-11-18/2023-11-19"], ["2023-11-16/2023-11-17"]),
        }
    assert loop.scheduler.pools["orders-db"].slots == 3
    assert list(loop.scheduler.calendars["closed"].days) == ["2023-11-16/2023-11-17"]


def test_prune_removes_neither_pools_nor_calendars(api: httpx.Client, loop: FakeLoop, sha256: str) -> None:
    job = job_body("a", cron="0 0 8 * * ?", skipOn=["closed"], pools=["orders-db"])
    api.post("apply", json={"apps": [app_body(sha256)], "jobs": [job], **limits()})
    body = {"apps": [app_body(sha256)], "jobs": []}
    assert actions(api.post("apply", params={"prune": True}, json=body)) == {
        "app demo": "unchanged",
        "job a": "removed",
    }
    assert (set(loop.scheduler.pools), set(loop.scheduler.calendars)) == ({"orders-db"}, {"closed"})


def test_nothing_is_set_if_anything_is_wrong(api: httpx.Client, loop: FakeLoop) -> None:
    wrong = {
        "pools": [{"poolName": "a b", "slots": 1}, {"poolName": "x", "slots": -1}, {"poolName": "y", "slots": 1}] * 2,
        "calendars": [{"calendarName": "c"}, {"calendarName": "c", "team": "A b", "days": []}, 1],
    }
    found = issues(api.post("apply", json=wrong))
    assert {"pools.0.poolName", "pools.1.slots", "pools.5.poolName", "calendars.1.team", "calendars.2"} <= set(found)
    days = ["2023-11-16"]
    wrong = {
        "pools": [{"poolName": "x", "slots": 1}],
        "calendars": [{"calendarName": "c", "days": days}, {"calendarName": "d"}, {"calendarName": "e", "days": ["x"]}],
    }
    assert set(issues(api.post("apply", json=wrong))) == {"calendars.1.days", "calendars.2.days"}
    assert (loop.scheduler.pools, loop.scheduler.calendars) == ({}, {})


ICAL = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20230101T000000Z\r\n"
    "DTSTART;VALUE=DATE:20231224\r\nRRULE:FREQ=YEARLY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


def test_calendar_of_a_file_may_be_named_by_its_hash(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"calendarName": "closed", "ical": ICAL}
    assert actions(api.post("apply", json={"calendars": [given]})) == {"calendar closed": "added"}
    sha256 = api.get("calendars/closed").json()["source"]["icalSha256"]
    by_hash = {"calendarName": "closed", "icalSha256": sha256}
    assert actions(api.post("apply", json={"calendars": [by_hash]})) == {"calendar closed": "unchanged"}
    found = api.post("apply", json={"calendars": [by_hash | {"description": "x"}]}).json()["items"][0]
    assert [change["field"] for change in found["changes"]] == ["description"]
    for wrong in (by_hash | {"country": "DE"}, by_hash | {"calendarName": "other"}, given | {"icalSha256": "0" * 64}):
        assert set(issues(api.post("apply", json={"calendars": [wrong]}))) == {"calendars.0.icalSha256"}
    monkeypatch.setattr("jobcloud.server.api.apply_limits.MAX_READ", 0)
    assert "calendars.0" in issues(api.post("apply", json={"calendars": [given]}))


def test_numbers_of_pools_and_calendars_are_checked_before_anything_is_set(
    api: httpx.Client, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.post("apply", json=limits())
    monkeypatch.setattr("jobcloud.scheduler.pools.MAX_POOLS", 2)
    monkeypatch.setattr("jobcloud.scheduler.calendars.MAX_OF_TEAM", 2)
    pools = [{"poolName": name, "slots": 1} for name in ("orders-db", "b", "c")]
    calendars = [{"calendarName": name, "days": ["2023-11-16"]} for name in ("closed", "b", "c")]
    for body in ({"pools": pools}, {"calendars": calendars}, {"pools": pools, "calendars": calendars}):
        for dry_run in (True, False):
            assert api.post("apply", params={"dryRun": dry_run}, json=body).status_code == 409
    assert (set(loop.scheduler.pools), set(loop.scheduler.calendars)) == ({"orders-db"}, {"closed"})
    assert api.post("apply", json={"pools": pools[:2], "calendars": calendars[:2]}).status_code == 200


def test_audit_log_has_the_pools_and_calendars_that_change(api: httpx.Client, loop: FakeLoop) -> None:
    days = parse_days(["2023-11-16"])
    calendars = [Calendar(name, days.texts(), "2099-12-31") for name in ("closed", "open")]
    command = Apply(1, (), (), pools=(("db", Pool(2)), ("net", Pool(1))), calendars=tuple((c, days) for c in calendars))
    assert [seen.key for seen in look(command, loop.scheduler)] == ["db", "net", "closed", "open"]
    loop.feed(command)
    assert look(command, loop.scheduler) == []
    other = structs.replace(command, pools=(("db", Pool(3)),))
    assert look(other, loop.scheduler) == [Seen("Apply", "db", Pool(2), Pool(3))]


def workflow_body(name: str = "etl", **fields: Any) -> dict[str, Any]:
    return {"workflowName": name, "nodes": [{"job": "a"}, {"job": "b", "after": ["a"]}], **fields}


def test_workflows_are_applied_together_with_the_jobs_that_they_name(
    api: httpx.Client, loop: FakeLoop, sha256: str
) -> None:
    body = {
        "apps": [app_body(sha256)], "jobs": [job_body("a"), job_body("b")], "workflows": [workflow_body()],
    }  # fmt: skip
    dry = api.post("apply", params={"dryRun": True}, json=body)
    assert actions(dry)["workflow etl"] == "added"
    assert loop.scheduler.workflows == {}
    assert actions(api.post("apply", json=body)) == actions(dry)
    assert loop.scheduler.workflows["etl"].start == "a"
    assert actions(api.post("apply", json=body))["workflow etl"] == "unchanged"
    answer = api.post("apply", json={"workflows": [workflow_body(description="orders")]})
    [item] = answer.json()["items"]
    assert (item["action"], item["changes"]) == (
        "changed", [{"field": "description", "before": "", "after": "orders"}],
    )  # fmt: skip


def test_a_wrong_workflow_refuses_the_whole_request_and_names_its_place(
    api: httpx.Client, loop: FakeLoop, sha256: str
) -> None:
    wrong: dict[str, list[dict[str, Any]]] = {
        "workflows.0.nodes.1.job": [workflow_body(nodes=[{"job": "a"}, {"job": "missing", "after": ["a"]}])],
        "workflows.0.nodes": [workflow_body(nodes=[{"job": "a", "after": ["b"]}, {"job": "b", "after": ["a"]}])],
        "workflows.1.workflowName": [workflow_body(), workflow_body()],
        "workflows.0.workflowName": [workflow_body("a b")],
    }
    for field, workflows in wrong.items():
        body = {"apps": [app_body(sha256)], "jobs": [job_body("a"), job_body("b")], "workflows": workflows}
        answer = api.post("apply", json=body)
        assert answer.status_code in (409, 422), answer.text
        assert field in issues(answer), answer.text
        assert loop.scheduler.jobs == {}


def test_the_audit_of_an_apply_has_the_workflows_that_differ(api: httpx.Client, loop: FakeLoop, sha256: str) -> None:
    body = {"apps": [app_body(sha256)], "jobs": [job_body("a"), job_body("b")], "workflows": [workflow_body()]}
    api.post("apply", json=body)
    known = loop.scheduler.workflows["etl"]
    same = structs.replace(known, changed_ms=0)
    other = structs.replace(same, description="orders")
    assert look(Apply(0, (), (), workflows=(same,)), loop.scheduler) == []
    assert look(Apply(0, (), (), workflows=(other,)), loop.scheduler) == [
        Seen("Apply", "etl", known, structs.replace(known, description="orders"))
    ]
