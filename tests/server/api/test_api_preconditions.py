"""ETag, If-None-Match and If-Match of apps and jobs."""

from __future__ import annotations

from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, issues, job_body

KINDS = ["app", "job"]


@pytest.fixture
def bodies(sha256: str) -> dict[str, dict[str, Any]]:
    """A changed configuration of each kind."""
    return {"app": app_body(sha256, memoryMB=65), "job": job_body(description="changed")}


def path(kind: str) -> str:
    return {"app": "apps/demo", "job": "jobs/hello"}[kind]


def tag(api: Client, kind: str) -> str:
    answer = api.get(path(kind))
    assert answer.headers["etag"].startswith(f'"{answer.json()["revision"]}.')
    return str(answer.headers["etag"])


def config(api: Client, kind: str) -> Any:
    return api.get(path(kind)).json()["config"]


@pytest.mark.parametrize("kind", KINDS)
def test_known_answer_is_not_sent_again(api: Client, hello: str, kind: str) -> None:
    known = tag(api, kind)
    for header in (known, f"W/{known}", f'"other", {known}', "*", f'"a,b" ,, {known},'):
        answer = api.get(path(kind), headers={"If-None-Match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", known), header
    assert api.get(path(kind), headers={"If-None-Match": f'"{known[1:-2]}"'}).status_code == 200


def test_client_that_waits_for_a_run_gets_the_new_state(api: Client, loop: FakeLoop, hello: str) -> None:
    known = tag(api, "job")
    loop.tick(6000)
    answer = api.get("jobs/hello", headers={"If-None-Match": known})
    assert answer.status_code == 200
    assert answer.json()["waitingShards"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_change_for_another_revision_is_refused(
    api: Client, loop: FakeLoop, hello: str, kind: str, bodies: dict[str, dict[str, Any]]
) -> None:
    old, before = tag(api, kind), config(api, kind)
    answer = api.put(path(kind), json=bodies[kind], headers={"If-Match": old})
    assert answer.status_code == 200
    assert answer.headers["etag"] == tag(api, kind) != old
    after = config(api, kind)
    effects = len(loop.effects)
    for method in ("PUT", "DELETE"):
        body = {"json": before} if method == "PUT" else {}
        answer = api.request(method, path(kind), headers={"If-Match": old}, **body)
        assert issues(answer, "precondition-failed")[f"{kind}Name"].startswith(f"{kind} ")
        assert answer.status_code == 412
    assert config(api, kind) == after
    assert len(loop.effects) == effects, "a refused request stores and publishes nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_one_tag_of_a_list_is_enough(api: Client, hello: str, kind: str, bodies: dict[str, dict[str, Any]]) -> None:
    known = tag(api, kind)
    assert api.put(path(kind), json=bodies[kind], headers=[("If-Match", '"x"'), ("If-Match", known)]).is_success
    revision = api.get(path(kind)).json()["revision"]
    headers = {"If-Match": f'"x,y" , "{revision}"'}
    assert api.delete(path(kind), headers=headers, params={"jobs": "true"} if kind == "app" else {}).status_code == 204


def test_runs_of_a_job_do_not_refuse_its_edit(api: Client, loop: FakeLoop, hello: str) -> None:
    known = tag(api, "job")
    loop.tick(6000)
    assert tag(api, "job") != known
    assert api.put("jobs/hello", json=job_body(description="new"), headers={"If-Match": known}).is_success


@pytest.mark.parametrize("kind", KINDS)
def test_any_revision_will_do_for_a_star(api: Client, hello: str, kind: str, bodies: dict[str, dict[str, Any]]) -> None:
    assert api.put(path(kind), json=bodies[kind], headers={"If-Match": " * "}).is_success


@pytest.mark.parametrize("kind", KINDS)
def test_weak_tag_never_matches(api: Client, hello: str, kind: str, bodies: dict[str, dict[str, Any]]) -> None:
    answer = api.put(path(kind), json=bodies[kind], headers={"If-Match": f"W/{tag(api, kind)}"})
    assert answer.status_code == 412


@pytest.mark.parametrize(
    "header", ["", "x", '"a" "b"', '"a', 'w/"a"', '"a";"b"', '* , "a"', '"a b"', ", ,", ", ".join(['"a"'] * 401)]
)
def test_malformed_condition_is_refused(api: Client, hello: str, header: str) -> None:
    answers = [
        api.get("jobs/hello", headers={"If-None-Match": header}),
        api.put("jobs/hello", json=job_body(), headers={"If-Match": header}),
        api.delete("jobs/hello", headers={"If-Match": header}),
    ]
    for answer, name in zip(answers, ("If-None-Match", "If-Match", "If-Match"), strict=True):
        assert name in issues(answer, "bad-request")
    assert api.get("jobs/hello").is_success


def test_missing_job_is_not_found_whatever_the_condition(api: Client, demo: str) -> None:
    for header in ("*", '"a"'):
        assert api.delete("jobs/nothing", headers={"If-Match": header}).status_code == 404
        assert api.put("jobs/hello", json=job_body(), headers={"If-Match": header}).status_code == 404


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_condition_of_a_request_without_conditions_is_refused(api: Client, hello: str, name: str) -> None:
    for target in ("jobs/hello/disable", "jobs/hello/trigger", "apps/demo/pause"):
        assert name.lower() in issues(api.post(target, headers={name: '"a"'}))
    assert "if-none-match" in issues(api.put("jobs/hello", json=job_body(), headers={"If-None-Match": "*"}))
    job = api.get("jobs/hello").json()
    assert (job["disabled"], job["pausedBy"], job["lastRun"]) == (False, [], None)


def test_undone_change_restores_the_revision(api: Client, hello: str) -> None:
    known = tag(api, "job")
    before = config(api, "job")
    assert api.put("jobs/hello", json=before | {"priority": 3}).is_success
    assert api.put("jobs/hello", json=before, headers={"If-Match": known}).status_code == 412
    assert api.put("jobs/hello", json=before).is_success
    assert api.get("jobs/hello", headers={"If-None-Match": known}).status_code == 304


@pytest.mark.parametrize(("where", "body"), [("teams/A", {"weight": 1, "quota": {}}), ("roles/A", {"verbs": ["view"]})])
def test_invalid_name_is_refused_whatever_the_condition(api: Client, demo: str, where: str, body: Any) -> None:
    assert api.put(where, json=body, headers={"If-Match": '"x"'}).status_code == 422
