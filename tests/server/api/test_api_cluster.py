"""Agents, executors, the framework, events and health in the API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from httpx import Client
from tests.api_kit import ARTIFACTS, FakeLoop, client_of, issues, make_api

from jobcloud import zones
from jobcloud.match import CompiledMatcher, PlainMatcher
from jobcloud.messages import Publish, Topic
from jobcloud.ports import StoredFault
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.api import Notices, snapshot


def test_cluster_is_shown_in_the_units_of_the_configuration(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    cluster = api.get("cluster").json()
    assert (cluster["frameworkId"], cluster["connected"], cluster["activeTasks"]) == ("framework-1", True, 2)
    assert cluster["agents"][0]["claimed"] == {
        "cpuCount": 0.7, "memoryMB": 128, "diskMB": 0, "gpuCount": 0, "portCount": 0,
    }  # fmt: skip
    executors = api.get("executors").json()["items"]
    assert [(executor["appName"], executor["tasks"]) for executor in executors] == [("demo", 2)]


def test_cluster_names_the_mesos_roles_of_teams(tmp_path: Path) -> None:
    loop = FakeLoop()
    assert client_of(make_api(tmp_path / "none", loop)).get("cluster").json()["teamRoles"] == {}
    loop.scheduler = Scheduler(
        Policy(ARTIFACTS, team_roles={"web": "web", "billing": "finance"}), Stored(), 1, loop.now
    )
    found = client_of(make_api(tmp_path / "some", loop)).get("cluster").json()["teamRoles"]
    assert list(found.items()) == [("billing", "finance"), ("web", "web")]


def test_agent_is_drained_and_undrained(api: Client, loop: FakeLoop, launched: list[str]) -> None:
    (agent,) = api.get("cluster").json()["agents"]
    assert (agent["closed"], agent["drain"], agent["maintenance"], agent["tasks"]) == (False, None, None, 2)
    drained = api.post(f"agents/{agent['hostname']}/drain", params={"deadline": 120, "reason": "new disk"})
    assert drained.status_code == 200
    assert drained.json()["drain"] == {
        "since": "2023-11-14T22:13:26.000Z", "deadline": "2023-11-14T22:15:26.000Z", "reason": "new disk",
    }  # fmt: skip
    (agent,) = api.get("cluster").json()["agents"]
    assert agent["drain"]["reason"] == "new disk"
    assert api.post(f"agents/{agent['agentId']}/undrain").json()["drain"] is None
    assert api.post("agents/nope/drain").status_code == api.post("agents/nope/undrain").status_code == 404
    issues(api.post(f"agents/{agent['agentId']}/drain?deadline=-1"))
    issues(api.post(f"agents/{agent['agentId']}/drain?dead=1"))


def test_teardown_must_name_the_framework(loop: FakeLoop, tmp_path: Path) -> None:
    torn: list[str] = []
    api = client_of(make_api(tmp_path, loop, teardown=lambda: torn.append("down")))
    for wrong in ({}, {"confirm": ""}, {"confirm": "framework-2"}, {"confirm": "framework-1", "x": 1}):
        assert "framework-1" in issues(api.post("framework/teardown", json=wrong))["confirm"]
    assert torn == []
    assert api.post("framework/teardown", json={"confirm": "framework-1"}).status_code == 202
    assert torn == ["down"]


def test_health_follows_the_scheduler(api: Client, loop: FakeLoop) -> None:
    assert api.get("health").status_code == 200
    loop.well = False
    answer = api.get("health")
    assert (answer.status_code, answer.json()["status"]) == (503, "failing")


def test_health_of_a_scheduler_that_starts_over_says_why_and_since_when(api: Client, loop: FakeLoop) -> None:
    loop.problem, loop.since_ms, loop.recoveries = "the disk is full", loop.now, 3
    answer = api.get("health")
    assert answer.status_code == 503
    shown = {
        "status": "failing", "leading": True, "connected": True, "problem": "the disk is full",
        "code": "failing",
        "since": "2023-11-14T22:13:20.000Z", "recoveries": 3, "faults": 0,
    }  # fmt: skip
    assert {name: answer.json()[name] for name in shown} == shown


def test_records_that_cannot_be_read_are_counted_in_health_and_listed_in_the_cluster(
    api: Client, loop: FakeLoop
) -> None:
    loop.faults = tuple(StoredFault(f"job/{number}", "is damaged" * 100) for number in range(150))
    assert api.get("health").json()["faults"] == 150
    listed = api.get("cluster").json()["faults"]
    assert len(listed) == 100
    assert listed[0]["path"] == "job/0"
    assert listed[0]["problem"].startswith("is damaged")
    assert len(listed[0]["problem"]) == 500


def test_notices_are_numbered_events(loop: FakeLoop) -> None:

    async def collect(notices: Notices, last_id: str, count: int) -> list[str]:
        stream = notices.stream(last_id)
        found = [await anext(stream) for _ in range(count)]
        notices.close()
        assert [event async for event in stream] == []
        return found

    notices = Notices(size=2)
    for number in range(3):
        notices.publish(Publish(loop.now, Topic.FIRED, f"n{number}", job="hello", firing_id="run"))
    notices.publish("not a notice")
    _, first, second = asyncio.run(collect(notices, "elsewhere-1", 3))
    assert "event: fired" in first
    assert '"text": "n1"' in first
    assert '"jobName": "hello", "runId": "run"' in first
    again = Notices()
    again.publish(Publish(loop.now, Topic.FIRED, "old"))
    assert asyncio.run(collect(again, "", 1)) == [f"retry: 2000\nid: {again.last_id()}\n\n"]
    assert second.startswith("id: ")


def test_notices_that_a_slow_listener_has_missed_are_counted(loop: FakeLoop) -> None:
    notices = Notices(size=2)

    def publish(number: int) -> None:
        for _ in range(number):
            notices.publish(Publish(loop.now, Topic.FIRED, "n"))

    async def listen_slowly() -> None:
        stream = notices.stream(notices.last_id())
        await anext(stream)
        publish(5)
        assert (await anext(stream)).startswith(f"id: {notices.last_id()[:-1]}5")
        await stream.aclose()

    publish(1)
    asyncio.run(listen_slowly())
    assert notices.missed == 3


def test_snapshot_names_the_matcher_in_use() -> None:
    for matcher, name in ((CompiledMatcher, "compiled"), (PlainMatcher, "plain")):
        assert snapshot.take(Scheduler(Policy(ARTIFACTS), Stored(), epoch=1, at=0, matcher=matcher), 0).matcher == name


def test_cluster_names_its_time_zone_database(api: Client) -> None:
    assert api.get("cluster").json()["timeZones"] == zones.version()


@pytest.mark.parametrize("warning", ["", "the time zone database is 2026f, and that of this machine is 2099a"])
def test_health_warns_of_an_old_time_zone_database(api: Client, monkeypatch: pytest.MonkeyPatch, warning: str) -> None:
    monkeypatch.setattr(zones, "warning", lambda: warning)
    monkeypatch.setattr(zones, "newer_on_this_machine", lambda: "2099a")
    health = api.get("health").json()
    assert health["warnings"] == ([warning] if warning else [])
    parameters = {"version": zones.version(), "newer": "2099a"}
    detail = {"text": warning, "code": "time_zones", "parameters": parameters}
    assert health["warningDetails"] == ([detail] if warning else [])


def test_health_shows_warnings_without_failing(tmp_path: Path, loop: FakeLoop) -> None:
    told = ("the clock of this machine has jumped 180 d ahead",)
    answer = client_of(make_api(tmp_path, loop, warnings=lambda: told)).get("health")
    assert (answer.status_code, answer.json()["status"], answer.json()["warnings"]) == (200, "ok", list(told))
    assert answer.json()["warningDetails"] == [{"code": "", "parameters": {}, "text": told[0]}]
    assert client_of(make_api(tmp_path)).get("health").json()["warnings"] == []
