"""PATCH of apps and jobs: JSON Merge Patch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from httpx import Client
from hypothesis import given
from hypothesis import strategies as st
from tests.api_kit import FakeLoop, app_body, issues, job_body

from jobcloud.messages import PutJob
from jobcloud.server.api.patch import _merged

MERGE = {"Content-Type": "application/merge-patch+json"}


def config(api: Client, path: str) -> Any:
    return api.get(path).json()["config"]


def test_patch_changes_the_given_fields_only(api: Client, hello: str) -> None:
    before = config(api, "jobs/hello")
    answer = api.patch("jobs/hello", json={"cpuCount": 0.25, "shardingTotalCount": 3}, headers=MERGE)
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == api.get("jobs/hello").headers["etag"]
    assert config(api, "jobs/hello") == before | {"cpuCount": 0.25, "shardingTotalCount": 3}
    assert api.patch("apps/demo", json={"memoryMB": 80.5}).status_code == 200
    assert config(api, "apps/demo")["memoryMB"] == 80.5


def test_null_restores_the_default_of_a_field(api: Client, hello: str) -> None:
    fields = {"priority": 7, "jobProperties": {"job_exception_handler": "fail"}, "shardingItemParameters": {"0": "a"}}
    before = config(api, "jobs/hello")
    assert api.patch("jobs/hello", json=fields).is_success
    assert config(api, "jobs/hello")["priority"] == 7
    assert api.patch("jobs/hello", json={"shardingItemParameters": {"0": None, "1": "b"}}).is_success
    assert config(api, "jobs/hello")["shardingItemParameters"] == {"1": "b"}
    nothing = {"priority": None, "jobProperties": {"job_exception_handler": None}, "shardingItemParameters": None}
    assert api.patch("jobs/hello", json=nothing).is_success
    assert config(api, "jobs/hello") == before


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"prioriti": 3}, "prioriti"),
        ({"prioriti": None}, "prioriti"),
        ({"jobProperties": {"nothing": "a"}}, "jobProperties.nothing"),
        ({"cron": None}, "cron"),
        ({"jobName": "other"}, "jobName"),
        ({"jobName": None}, "jobName"),
        ({"team": "other"}, "team"),
        ({"cpuCount": "1"}, "cpuCount"),
        ({"jobClass": "hello:Missing"}, "jobClass"),
    ],
)
def test_invalid_patch_of_a_job_changes_nothing(api: Client, hello: str, patch: dict[str, Any], field: str) -> None:
    before = config(api, "jobs/hello")
    assert field in issues(api.patch("jobs/hello", json=patch))
    assert config(api, "jobs/hello") == before


def test_invalid_patch_of_an_app_changes_nothing(api: Client, demo: str) -> None:
    before = config(api, "apps/demo")
    missing = {"appURL": "package:sha256:" + "0" * 64, "packageSha256": None}
    for patch, field in (({"appName": "b"}, "appName"), ({"team": "b"}, "team"), ({"x": 1}, "x"), (missing, "appURL")):
        assert field in issues(api.patch("apps/demo", json=patch))
    assert config(api, "apps/demo") == before
    assert api.patch("apps/nothing", json={}).status_code == 404


@pytest.mark.parametrize("kind", ["application/json-patch+json", "text/plain", ""])
def test_patch_of_another_media_type_is_refused(api: Client, hello: str, kind: str) -> None:
    answer = api.patch("jobs/hello", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert "application/merge-patch+json" in answer.headers["accept-patch"]
    assert api.patch("jobs/hello", content=b"[]", headers=MERGE).status_code == 400


def test_patch_for_another_revision_is_refused(api: Client, hello: str) -> None:
    old = api.get("jobs/hello").headers["etag"]
    assert api.patch("jobs/hello", json={"priority": 1}, headers={"If-Match": old}).is_success
    assert api.patch("jobs/hello", json={"priority": 2}, headers={"If-Match": old}).status_code == 412
    assert config(api, "jobs/hello")["priority"] == 1


def test_two_patches_at_once_are_both_kept(
    api: Client, loop: FakeLoop, hello: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another request changes the job after the patch has read it."""
    feed, others = loop.feed, ["first", "second"]

    def interrupted(event: Any) -> Any:
        if isinstance(event, PutJob) and others:
            job = replace(loop.scheduler.jobs["hello"], description=others.pop())
            feed(PutJob(event.at, job, replace=True))
        return feed(event)

    monkeypatch.setattr(loop, "feed", interrupted)
    assert api.patch("jobs/hello", json={"priority": 5}).is_success
    found = config(api, "jobs/hello")
    assert (found["description"], found["priority"], others) == ("first", 5, [])
    others[:] = [str(number) for number in range(9)]
    assert issues(api.patch("jobs/hello", json={"priority": 6}), "precondition-failed")
    assert config(api, "jobs/hello")["priority"] == 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_merge_obeys_its_specification(target: Any, patch: Any) -> None:
    merged = _merged(target, patch)
    if not isinstance(patch, dict):
        assert merged == patch
        return
    before = target if isinstance(target, dict) else {}
    assert merged.keys() == (before.keys() | patch.keys()) - {name for name, value in patch.items() if value is None}
    for name, value in merged.items():
        assert value == (_merged(before.get(name), patch[name]) if name in patch else before[name])
    assert _merged(merged, patch) == merged, "a repeated patch changes nothing"


def test_put_and_patch_agree(api: Client, hello: str, sha256: str) -> None:
    assert api.put("jobs/hello", json=job_body(priority=4)).json()["config"] == config(api, "jobs/hello")
    assert api.patch("jobs/hello", json=job_body(priority=4)).json()["config"] == config(api, "jobs/hello")
    assert api.patch("apps/demo", json=app_body(sha256)).json()["config"] == config(api, "apps/demo")


@pytest.mark.parametrize("path", ["jobs/hello", "apps/demo"])
def test_patch_adds_replaces_and_removes_files(api: Client, hello: str, path: str) -> None:
    assert config(api, path)["files"] == {}
    assert api.patch(path, json={"files": {"conf/a": "1", "b": "2"}}).is_success
    assert api.patch(path, json={"files": {"conf/a": "3", "b": None}}).is_success
    assert config(api, path)["files"] == {"conf/a": "3"}
    for bad in ({"../a": ""}, {"a": 1}, {"conf": "x"}, "text", ["a"]):
        answer = api.patch(path, json={"files": bad})
        assert (answer.status_code, "files" in answer.text) == (422, True), bad
    assert config(api, path)["files"] == {"conf/a": "3"}
    assert api.patch(path, json={"files": None}).is_success
    assert config(api, path)["files"] == {}
