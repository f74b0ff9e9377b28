"""Teams in the API: keys in paths and answers, filters of lists, refused names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, issues, job_body

from jobcloud.messages import Publish
from jobcloud.server.api.events import _event


@pytest.fixture
def teams(api: Client, loop: FakeLoop, sha256: str) -> Client:
    """An app and a job of the same names in the teams `default` and `billing`; a shard of each job runs."""
    for team in ({}, {"team": "billing"}):
        assert api.post("apps", json=app_body(sha256, **team)).status_code == 201
        answer = api.post("jobs", json=job_body(shardingTotalCount=1, cron="0 0 0 1 1 ? 2099", **team))
        assert answer.status_code == 201, answer.text
    for key in ("hello", "billing:hello"):
        assert api.post(f"jobs/{key}/trigger").status_code == 202
    loop.subscribe()
    loop.offer()
    for task_id in loop.tick():
        loop.update(task_id, "TASK_RUNNING")
    return api


def names(items: list[dict[str, Any]], field: str) -> list[tuple[str, str]]:
    return sorted((item["team"], item[field]) for item in items)


def test_key_is_the_path_and_the_identifier_of_answers_and_the_name_is_in_the_configuration(teams: Client) -> None:
    app, job = teams.get("apps/billing:demo").json(), teams.get("jobs/billing:hello").json()
    assert (app["appName"], app["team"], app["jobs"]) == ("billing:demo", "billing", ["billing:hello"])
    assert (app["config"]["appName"], app["config"]["team"]) == ("demo", "billing")
    assert (job["jobName"], job["team"], job["appName"]) == ("billing:hello", "billing", "billing:demo")
    assert [job["config"][field] for field in ("jobName", "team", "appName")] == ["hello", "billing", "demo"]
    assert teams.put("jobs/billing:hello", json=job["config"]).json()["jobName"] == "billing:hello"
    assert teams.get("jobs/hello").json()["config"]["team"] == "default"


def test_key_of_the_default_team_may_name_it(teams: Client) -> None:
    assert teams.get("jobs/default:hello").json()["jobName"] == "hello"
    assert teams.post("apps/default:demo/disable").json()["appName"] == "demo"
    assert names(teams.get("jobs", params={"app": "default:demo"}).json()["items"], "jobName") == [("default", "hello")]


def test_location_of_a_new_app_and_job_is_its_key(api: Client, sha256: str) -> None:
    assert api.post("apps", json=app_body(sha256, team="ops")).headers["Location"] == "/api/v1/apps/ops:demo"
    assert api.post("jobs", json=job_body(team="ops")).headers["Location"] == "/api/v1/jobs/ops:hello"


@pytest.mark.parametrize(
    ("path", "field", "name"),
    [
        ("apps", "appName", "demo"),
        ("jobs", "jobName", "hello"),
        ("tasks", "jobName", "hello"),
        ("runs", "jobName", "hello"),
        ("executors", "appName", "demo"),
    ],
)
def test_lists_show_all_teams_or_one(teams: Client, path: str, field: str, name: str) -> None:
    billing, default = ("billing", f"billing:{name}"), ("default", name)
    assert names(teams.get(path).json()["items"], field) == [billing, default]
    assert names(teams.get(path, params={"team": "billing"}).json()["items"], field) == [billing]
    assert names(teams.get(path, params={"team": "default"}).json()["items"], field) == [default]
    assert teams.get(path, params={"team": "nobody"}).json()["items"] == []
    assert "lower-case letters" in issues(teams.get(path, params={"team": "No/body"}))["team"]


def test_runs_and_tasks_of_a_team_are_found_by_id(teams: Client) -> None:
    (run,) = teams.get("runs", params={"job": "billing:hello"}).json()["items"]
    assert run["id"].startswith("billing:hello.trigger-")
    assert run["id"].endswith("@jobcloud")
    assert teams.get(f"runs/{run['id']}").json()["team"] == "billing"
    (task,) = teams.get("tasks", params={"job": "billing:hello"}).json()["items"]
    assert (task["appName"], task["runId"]) == ("billing:demo", run["id"])
    assert teams.get(f"tasks/{task['id']}").json()["team"] == "billing"
    assert teams.post(f"tasks/{task['id']}/kill").status_code == 202


def test_requests_for_a_team_change_nothing_of_the_others(teams: Client) -> None:
    assert teams.post("jobs/billing:hello/disable").json()["disabled"]
    assert teams.post("apps/billing:demo/disable").json()["enabled"] is False
    assert teams.get("jobs/hello").json()["enabled"]
    assert teams.delete("apps/billing:demo", params={"jobs": "true"}).status_code == 204
    assert [teams.get(path).status_code for path in ("apps/billing:demo", "jobs/billing:hello", "jobs/hello")] == [
        404, 404, 200,
    ]  # fmt: skip


def test_roll_out_explanation_and_package_name_keys(teams: Client, sha256: str) -> None:
    rollout = teams.get("apps/billing:demo/rollout").json()
    assert (rollout["appName"], rollout["team"]) == ("billing:demo", "billing")
    explained = teams.get("jobs/billing:hello/explain").json()
    assert (explained["jobName"], explained["team"]) == ("billing:hello", "billing")
    assert teams.get(f"packages/{sha256}").json()["apps"] == ["billing:demo", "demo"]


@pytest.mark.parametrize("team", ["Billing", "a:b", "", "a/b", "a" * 33, "-a", "ä", "../x", "a\n"])
def test_hostile_team_is_refused_with_the_other_errors(api: Client, demo: str, sha256: str, team: str) -> None:
    app = issues(api.post("apps", json=app_body(sha256, team=team, cpuCount=-1)))
    assert app["team"].endswith("use 1 to 32 lower-case letters, digits or '-', the first a letter")
    assert "cpuCount" in app
    job = issues(api.post("jobs", json=job_body(team=team, cron="x")))
    assert {"team", "cron"} <= job.keys()


def test_name_with_a_team_in_it_is_refused(api: Client, demo: str, sha256: str) -> None:
    assert "not a valid name" in issues(api.post("apps", json=app_body(sha256, name="billing:demo")))["appName"]
    assert "not a valid name" in issues(api.post("jobs", json=job_body("billing:hello")))["jobName"]


def test_team_and_name_of_a_registered_job_are_fixed(teams: Client, sha256: str) -> None:
    found = issues(teams.put("jobs/billing:hello", json=job_body()))
    assert (
        found["team"]
        == "is 'default', but the path has 'billing' | a team cannot change; register a new app or job instead"
    )
    assert "jobName" in issues(teams.put("jobs/billing:hello", json=job_body("other", team="billing")))
    assert "team" in issues(teams.put("apps/demo", json=app_body(sha256, team="billing")))


def test_job_cannot_use_an_app_of_another_team(api: Client, demo: str) -> None:
    answer = api.post("jobs", json=job_body(team="billing"))
    assert answer.status_code == 404
    assert issues(answer, "not-found")["appName"].startswith("there is no app billing:demo")


def test_events_have_the_team_and_the_key(teams: Client, loop: FakeLoop) -> None:
    notices = [effect for effect in loop.effects if isinstance(effect, Publish)]
    shown = [json.loads(_event("1", notice).split("data: ")[1]) for notice in notices]
    assert {(event["team"], event["jobName"]) for event in shown if event["jobName"]} == {
        ("default", "hello"), ("billing", "billing:hello"),
    }  # fmt: skip
    assert {(event["team"], event["appName"]) for event in shown if event["appName"]} == {
        ("default", "demo"), ("billing", "billing:demo"),
    }  # fmt: skip
    assert {event["team"] for event in shown if event["topic"] == "cluster"} == {""}
