"""Apps in the API."""

from __future__ import annotations

from httpx import Client
from tests.api_kit import FakeLoop, app_body, issues, job_body


def test_incomplete_replacement_of_an_app_changes_nothing(api: Client, demo: str, hello: str) -> None:
    before = api.get(f"apps/{demo}").json()
    answer = api.put(f"apps/{demo}", json={"appName": demo, "cpuCount": 2})
    assert answer.status_code == 422
    assert set(issues(answer)) == {"appURL"}
    assert api.put("apps/other", json={"appName": "other", "cpuCount": 2}).status_code in (404, 422)
    assert api.get(f"apps/{demo}").json() == before


def test_app_of_an_uploaded_package_is_shown_with_all_its_fields(api: Client, sha256: str) -> None:
    answer = api.post("apps", json=app_body(sha256, cpuCount=0.125, idleTimeoutSeconds=1.5))
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v1/apps/demo"
    assert answer.json() == api.get("apps/demo").json()
    assert answer.json()["config"] == {
        "appName": "demo",
        "team": "default",
        "appURL": f"package:sha256:{sha256}",
        "packageSha256": sha256,
        "bootstrapScript": "",
        "cpuCount": 0.125,
        "memoryMB": 64,
        "diskMB": 0,
        "gpuCount": 0,
        "portCount": 0,
        "appCacheEnable": True,
        "eventTraceSamplingCount": 0,
        "idleTimeoutSeconds": 1.5,
        "maxParallel": 0,
        "executors": 0,
        "constraints": [],
        "environment": [],
        "files": {},
        "description": "",
    }


def test_configuration_shown_for_an_app_can_be_sent_back(api: Client, loop: FakeLoop, demo: str) -> None:
    config = api.get("apps/demo").json()["config"]
    loop.effects.clear()
    assert api.put("apps/demo", json=config).json()["config"] == config
    assert loop.effects == [], "nothing has changed, so nothing is done"


def test_executors_are_a_number_or_one_on_each_agent(api: Client, sha256: str) -> None:
    assert api.post("apps", json=app_body(sha256, executors="each")).json()["config"]["executors"] == "each"
    assert api.put("apps/demo", json=app_body(sha256, executors=3)).json()["config"]["executors"] == 3
    shown = api.get("apps/demo").json()
    assert (shown["warmExecutors"], shown["executorsLacking"]) == (0, "app demo has 0 of 3 warm executors")
    for given in ("every", True, 1.5, -1, 10**9, None, [2]):
        assert "executors" in issues(api.put("apps/demo", json=app_body(sha256, executors=given)))


def test_second_app_of_the_same_name_is_a_conflict(api: Client, sha256: str, demo: str) -> None:
    answer = api.post("apps", json=app_body(sha256))
    assert answer.status_code == 409
    assert "update it" in issues(answer, "conflict")["appName"]


def test_replacement_of_an_unknown_app_is_refused(api: Client, sha256: str) -> None:
    answer = api.put("apps/demo", json=app_body(sha256))
    assert answer.status_code == 404
    issues(answer, "not-found")


def test_name_in_the_path_must_match_the_name_in_the_body(api: Client, sha256: str, hello: str) -> None:
    assert "appName" in issues(api.put("apps/demo", json=app_body(sha256, name="other")))
    assert "jobName" in issues(api.put("jobs/hello", json=job_body(name="other")))


def test_app_without_its_uploaded_package_is_refused(api: Client) -> None:
    assert "upload it first" in issues(api.post("apps", json=app_body("0" * 64)))["appURL"]
    assert api.get("apps").json() == {"items": [], "nextCursor": ""}


def test_app_is_removed_with_its_jobs_only_on_request(api: Client, hello: str) -> None:
    assert api.delete("apps/demo").status_code == 409
    assert api.get("apps/demo").json()["jobs"] == ["hello"]
    assert api.delete("apps/demo", params={"jobs": "true"}).status_code == 204
    assert api.get("apps/demo").status_code == 404
    assert api.get("jobs/hello").status_code == 404


def test_disabled_app_disables_its_jobs(api: Client, hello: str) -> None:
    assert api.post("apps/demo/disable").json()["enabled"] is False
    job = api.get("jobs/hello").json()
    assert (job["enabled"], job["disabled"], job["nextFiring"]) == (False, False, None)
    assert api.post("apps/demo/enable").json()["enabled"] is True
    assert api.get("jobs/hello").json()["nextFiring"] is not None
