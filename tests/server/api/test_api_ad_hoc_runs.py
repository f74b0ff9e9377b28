"""Ad-hoc runs in the API: a job that is not registered runs once."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, issues, job_body

_OF_FIRE_TIMES = ("cron", "jobExecutionType")


def body(**changes: Any) -> dict[str, Any]:
    given = job_body("once")
    return {name: value for name, value in given.items() if name not in _OF_FIRE_TIMES} | changes


def start(api: Client, **changes: Any) -> dict[str, Any]:
    answer = api.post("runs", json=body(**changes))
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_ad_hoc_run_is_started_shown_and_ends(api: Client, loop: FakeLoop, demo: str) -> None:
    run = start(api, jobParameter="p")
    assert (run["state"], run["cause"], run["existed"]) == ("WAITING", "ad_hoc", False)
    loop.offer()
    tasks = loop.tick()
    assert len(tasks) == 2
    for task_id in tasks:
        loop.update(task_id, "TASK_RUNNING")
    assert [task["appName"] for task in api.get("tasks").json()["items"]] == ["demo"] * 2
    for task_id in tasks:
        loop.update(task_id, "TASK_FINISHED")
    shown = api.get(f"runs/{run['id']}").json()
    assert (shown["state"], shown["jobName"]) == ("FINISHED", run["jobName"])
    assert shown["config"].items() >= body(jobParameter="p").items()
    assert "cron" not in shown["config"]
    assert [one["id"] for one in api.get("runs", params={"job": run["jobName"]}).json()["items"]] == [run["id"]]
    assert api.get(f"jobs/{run['jobName']}/explain").json()["headline"] == "the ad-hoc run has ended"


def test_ad_hoc_run_is_no_registered_job(api: Client, loop: FakeLoop, hello: str) -> None:
    run = start(api)
    key = run["jobName"]
    assert [job["jobName"] for job in api.get("jobs").json()["items"]] == [hello]
    assert api.get("apps/demo").json()["jobs"] == [hello]
    assert api.get("cluster").json()["jobs"] == 1
    for path in (f"jobs/{key}", f"jobs/{key}/trigger", f"jobs/{key}/disable", f"jobs/{key}/pause"):
        answer = api.get(path) if path == f"jobs/{key}" else api.post(path)
        assert answer.status_code == 404, path
    assert api.delete(f"jobs/{key}").status_code == 404
    applied = api.post("apply", json={"jobs": [job_body()]}, params={"prune": True}).json()["items"]
    assert [(one["key"], one["action"]) for one in applied] == [(hello, "unchanged")]
    assert api.get(f"runs/{run['id']}").json()["state"] == "WAITING"


def test_elastic_job_routes_do_not_show_ad_hoc_runs(api: Client, hello: str) -> None:
    key = start(api)["jobName"]
    elastic_job = "http://127.0.0.1/api/job"
    assert [job["jobName"] for job in api.get(f"{elastic_job}/jobs").json()] == [hello]
    assert api.get(f"{elastic_job}/jobs/{key}").status_code == 404
    assert api.get(f"{elastic_job}/{key}/disable").json() is True, "as for a job that does not exist"
    counts = {"transientJobCount": 1, "daemonJobCount": 0}
    assert api.get(f"{elastic_job}/statistics/jobs/executionType").json() == counts
    assert [one["jobName"] for one in api.get(f"{elastic_job}/tasks/ready").json()] == [key]


def test_configuration_of_an_ad_hoc_run_starts_an_equal_run(api: Client, loop: FakeLoop, demo: str) -> None:
    given = body(distributedListener={"class": "hello:Hello"}, timeoutSeconds=1.5, priority=4)
    first = api.get(f"runs/{start(api, **given)['id']}").json()["config"]
    second = api.get(f"runs/{api.post('runs', json=first).json()['id']}").json()["config"]
    assert first == second
    assert len(loop.scheduler.ad_hoc) == 2


def test_number_of_shards_is_one_by_default(api: Client, demo: str) -> None:
    given = body()
    del given["shardingTotalCount"]
    run = api.post("runs", json=given).json()
    assert api.get(f"runs/{run['id']}").json()["shardCount"] == 1


def test_second_request_with_a_key_answers_with_the_first_run(api: Client, loop: FakeLoop, demo: str) -> None:
    first = start(api, key="k")
    for wait in (0, 1_000):
        loop.now += wait
        again = api.post("runs", json=body(key="k"))
        assert again.status_code == 200
        assert again.json() == first | {"existed": True}
    assert "key" in issues(api.post("runs", json=body(key="k", jobParameter="q")), "conflict")
    assert len(api.get("runs").json()["items"]) == 1


def test_ad_hoc_run_keeps_the_span_of_its_caller(api: Client, loop: FakeLoop, demo: str) -> None:
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    first = api.post("runs", json=body(key="k"), headers={"traceparent": caller}).json()
    assert loop.scheduler.firings[first["id"]].terms.trace == caller
    assert api.post("runs", json=body(key="k")).json() == first | {"existed": True}


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"cron": "0 0 0 * * ?"}, "cron", "has no meaning for an ad-hoc run"),
        ({"jobExecutionType": "DAEMON"}, "jobExecutionType", "has no meaning"),
        ({"misfire": True}, "misfire", "has no meaning"),
        ({"noSuccessSeconds": 60}, "noSuccessSeconds", "has no meaning"),
        ({"expectedBy": "06:00"}, "expectedBy", "has no meaning"),
        ({"cpuCuont": 1}, "cpuCuont", "did you mean 'cpuCount'?"),
        ({"jobName": "a~1-1"}, "jobName", "not a valid name"),
        ({"jobClass": "hello:Absent"}, "jobClass", "has no Absent"),
        ({"key": "a\tb"}, "key", "cannot be printed"),
        ({"key": "x" * 101}, "key", "at most 100"),
        ({"shardingTotalCount": 0}, "shardingTotalCount", "1 to 10000"),
        ({"jobType": "HTTP", "httpUri": "http://evil.test/"}, "httpUri", "not allowed"),
        ({"ad_hoc": "1-1"}, "ad_hoc", "not a known field"),
    ],
)
def test_wrong_ad_hoc_run_is_refused(
    api: Client, loop: FakeLoop, demo: str, change: dict[str, Any], field: str, says: str
) -> None:
    if "jobType" in change:
        change = change | {"jobClass": ""}
    found = issues(api.post("runs", json=body(**change)))
    assert says in found[field]
    assert set(found) == {field}
    assert not loop.scheduler.ad_hoc


def test_all_problems_of_an_ad_hoc_run_are_reported_at_once(api: Client, demo: str) -> None:
    wrong = body(cron="x", cpuCount="y", jobName="a b", key="\t")
    assert set(issues(api.post("runs", json=wrong))) == {"cron", "cpuCount", "jobName", "key"}


def test_ad_hoc_run_of_an_unknown_app_is_refused(api: Client) -> None:
    answer = api.post("runs", json=body())
    assert answer.status_code == 404
    assert "appName" in issues(answer, "not-found")


def test_ad_hoc_run_belongs_to_a_team(api: Client, sha256: str) -> None:
    assert api.post("apps", json=app_body(sha256, team="billing")).status_code == 201
    run = start(api, team="billing")
    assert run["team"] == "billing"
    assert run["jobName"].startswith("billing:once~")
    assert [one["id"] for one in api.get("runs", params={"team": "billing"}).json()["items"]] == [run["id"]]
    assert api.get("runs", params={"team": "default"}).json()["items"] == []
