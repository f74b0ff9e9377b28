"""Versions of apps: which are kept, and the way back to one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import START, FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.executor.package import inspect
from jobcloud.messages import PutApp
from jobcloud.model import TaskState
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.packages import PackageStore


@pytest.fixture
def api(tmp_path: Path) -> Client:
    loop = FakeLoop()
    loop.subscribe()
    packages = PackageStore(tmp_path / "packages", check=inspect)
    return client_of(make_api(tmp_path, loop, packages=packages))


def loop_of(api: Client) -> FakeLoop:
    loop = api._transport._transport.app.state.services.loop  # type: ignore[attr-defined]
    assert isinstance(loop, FakeLoop)
    return loop


def upload(api: Client, name: str) -> str:
    content = package_bytes({"hello.py": f"class Hello: ...\nclass {name}: ...\n"})
    return str(api.post("packages", content=content).json()["sha256"])


def test_versions_are_listed_with_their_executors(api: Client) -> None:
    loop, (old, new) = loop_of(api), (upload(api, name) for name in ("Old", "New"))
    api.post("apps", json=app_body(old))
    daemon: dict[str, Any] = {"jobExecutionType": "DAEMON", "shardingTotalCount": 1}
    assert api.post("jobs", json=job_body(**daemon)).status_code == 201
    loop.offer()
    (task,) = loop.tick()
    loop.update(task, "TASK_RUNNING")
    loop.now += 5_000
    api.put("apps/demo", json=app_body(new))
    found = api.get("apps/demo/versions").json()["items"]
    assert [(one["number"], one["current"], one["packageSha256"], one["executors"]) for one in found] == [
        (2, True, new, 0),
        (1, False, old, 1),
    ]
    assert found[1]["registeredAt"] == "2023-11-14T22:13:20.000Z"
    assert found[0]["packageSize"] == len(package_bytes({"hello.py": "class Hello: ...\nclass New: ...\n"}))
    executor = api.get("executors").json()["items"][0]
    assert (executor["packageSha256"], executor["state"], executor["hostname"]) == (old, "outdated", "agent-1.test")


def test_way_back_is_an_ordinary_update_that_keeps_the_number(api: Client) -> None:
    loop, (old, new) = loop_of(api), (upload(api, name) for name in ("Old", "New"))
    api.post("apps", json=app_body(old, description="good"))
    daemon: dict[str, Any] = {"jobExecutionType": "DAEMON", "shardingTotalCount": 1}
    api.post("jobs", json=job_body(**daemon))
    loop.offer()
    (first,) = loop.tick()
    loop.update(first, "TASK_RUNNING")
    api.put("apps/demo", json=app_body(new, description="bad"))
    answer = api.post("apps/demo/rollback", params={"version": 1})
    assert (answer.status_code, answer.json()["config"]["description"]) == (200, "good")
    assert [one["current"] for one in api.get("apps/demo/versions").json()["items"]] == [False, True]
    assert loop.scheduler.tasks[first].state is TaskState.RUNNING, "its shard runs this version, and is not replaced"
    assert api.post("apps/demo/rollback", params={"version": 1}).status_code == 200, "it may be repeated"
    assert api.post("apps/demo/rollback").status_code == 404, "there is no version before the first"
    api.put("apps/demo", json=app_body(new, description="bad"))
    assert api.post("apps/demo/rollback").json()["config"]["description"] == "good"


def test_way_back_needs_a_version_its_package_and_the_code_of_all_jobs(api: Client, tmp_path: Path) -> None:
    old, new = (upload(api, name) for name in ("Old", "New"))
    api.post("apps", json=app_body(old))
    api.put("apps/demo", json=app_body(new))
    for version, field in ((7, 404), (-1, 422)):
        assert api.post("apps/demo/rollback", params={"version": version}).status_code == field
    assert api.post("apps/none/rollback", params={"version": 1}).status_code == 404
    assert api.get("apps/none/versions").status_code == 404
    assert api.post("jobs", json=job_body(jobClass="hello:New")).status_code == 201
    refused = issues(api.post("apps/demo/rollback", params={"version": 1}), "conflict")
    assert "does not fit job hello: jobClass" in refused["version"]
    api.delete("jobs/hello")
    (tmp_path / "packages" / old / "package.zip").unlink()
    refused = issues(api.post("apps/demo/rollback", params={"version": 1}), "conflict")
    assert "no longer has the package" in refused["version"]
    assert api.get("apps/demo/versions").json()["items"][1]["packageSize"] is None
    assert api.get("apps/demo").json()["config"]["packageSha256"] == new


def test_way_back_loses_no_change_that_comes_meanwhile(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another operator updates the app after the request has chosen the version."""
    loop, sha256 = loop_of(api), upload(api, "Old")
    api.post("apps", json=app_body(sha256, description="1"))
    api.put("apps/demo", json=app_body(sha256, description="2"))
    command_of_loop = loop.command
    others = [replace(loop.scheduler.apps["demo"], description="3")]

    def command(make: Any, timeout: float = 10.0) -> None:
        if others:
            loop.scheduler.handle(PutApp(loop.now, others.pop(), replace=True))
        command_of_loop(make, timeout)

    monkeypatch.setattr(loop, "command", command)
    assert api.post("apps/demo/rollback").json()["config"]["description"] == "2", "the version before 3"


def test_way_back_takes_if_match(api: Client) -> None:
    sha256 = upload(api, "Old")
    api.post("apps", json=app_body(sha256, description="1"))
    for number in ("2", "3"):
        tag = api.put("apps/demo", json=app_body(sha256, description=number)).headers["ETag"]
    answer = api.post("apps/demo/rollback", headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["config"]["description"]) == (200, "2")
    assert answer.headers["ETag"] == api.get("apps/demo").headers["ETag"]
    assert api.post("apps/demo/rollback", headers={"If-Match": tag}).status_code == 412, "it is not carried out twice"


def test_versions_are_bounded_and_the_present_one_stays(api: Client) -> None:
    loop = loop_of(api)
    loop.scheduler._state.policy = Policy(loop.scheduler._state.policy.artifacts, app_versions=3)
    sha256 = upload(api, "Old")
    api.post("apps", json=app_body(sha256, description="1"))
    for number in (2, 3):
        api.put("apps/demo", json=app_body(sha256, description=str(number)))
    api.post("apps/demo/rollback", params={"version": 1})
    api.put("apps/demo", json=app_body(sha256, description="4"))
    assert [one["number"] for one in api.get("apps/demo/versions").json()["items"]] == [4, 3, 2]
    api.delete("apps/demo")
    assert not loop.scheduler.app_versions


def test_versions_survive_a_change_of_leader_and_older_states_have_none(api: Client) -> None:
    loop, sha256 = loop_of(api), upload(api, "Old")
    api.post("apps", json=app_body(sha256))
    api.put("apps/demo", json=app_body(sha256, description="2"))
    before = loop.scheduler
    stored = Stored(apps=dict(before.apps))
    loop.scheduler = Scheduler(Policy(before._state.policy.artifacts), stored, epoch=2, at=loop.now)
    (present,) = api.get("apps/demo/versions").json()["items"]
    assert (present["number"], present["registeredAt"], present["current"]) == (1, None, True)
    assert present["registeredBy"] == ""
    api.put("apps/demo", json=app_body(sha256, description="3"))
    assert [one["config"]["description"] for one in api.get("apps/demo/versions").json()["items"]] == ["3", "2"]
    again = Stored(apps=dict(loop.scheduler.apps), app_versions=dict(loop.scheduler.app_versions))
    loop.scheduler = Scheduler(Policy(before._state.policy.artifacts), again, epoch=3, at=START)
    api.put("apps/demo", json=app_body(sha256, description="4"))
    assert [one["number"] for one in api.get("apps/demo/versions").json()["items"]] == [3, 2, 1]
