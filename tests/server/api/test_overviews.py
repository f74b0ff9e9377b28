"""The overview counts what the sender may view, and costs the scheduler's thread little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.alert_kit import make_channel
from tests.api_kit import ARTIFACTS, START, FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.errors import Unavailable
from jobcloud.messages import AgentLost, Publish, PutAccess, SetJobEnabled, Topic
from jobcloud.model import Quota, Team
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.api import ApiOptions, Notices
from jobcloud.server.api.authorization import Rights
from jobcloud.server.api.digests import Digests
from jobcloud.server.api.overviews import Overviews

NEVER = "0 0 0 1 1 ? 2099"
ALL = Rights(None, cluster=True)


def of_teams(*teams: str) -> Rights:
    return Rights(frozenset(teams), cluster=False)


class World:
    """A scheduler with two teams that have an app each. Each overview is computed anew."""

    def __init__(self, folder: Path) -> None:
        self.loop = FakeLoop()
        policy = replace(Policy(ARTIFACTS), alert_channels=(make_channel("ops").filter,))
        self.loop.scheduler = Scheduler(policy, Stored(), epoch=7, at=START)
        self.loop.subscribe()
        self.overviews = Overviews(
            self.loop, lambda: self.loop.now, tuple, "host7", keep_s=0.0, monotonic=lambda: 0.0, cpu=lambda: 0.0
        )
        self.api = client_of(make_api(folder, self.loop, overviews=self.overviews, clock=lambda: self.loop.now))
        sha256 = self.api.post("packages", content=package_bytes()).json()["sha256"]
        for team in ("default", "blue"):
            assert self.api.post("apps", json=app_body(sha256, team=team)).status_code == 201

    def job(self, name: str, team: str = "default", **changes: Any) -> str:
        made = self.api.post("jobs", json=job_body(name, team=team, **{"cron": NEVER} | changes))
        assert made.status_code == 201, made.text
        return str(made.json()["jobName"])

    def start(self, job: str) -> str:
        return str(self.api.post(f"jobs/{job}/trigger").json()["id"])

    def seen(self, rights: Rights = ALL) -> Any:
        return self.overviews.overview(rights).model_dump(mode="json", by_alias=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_jobs_are_counted_by_their_state(world: World) -> None:
    world.job("a")
    for name, action in (("off", "disable"), ("held", "pause")):
        world.api.post(f"jobs/{world.job(name)}/{action}")
    world.job("b", "blue")
    assert world.seen()["jobs"] == {"registered": 4, "enabled": 3, "disabled": 1, "paused": 1}
    assert world.seen(of_teams("blue"))["jobs"] == {"registered": 1, "enabled": 1, "disabled": 0, "paused": 0}
    world.api.post("apps/blue:demo/pause")
    world.api.post("apps/demo/disable")
    assert world.seen()["jobs"] == {"registered": 4, "enabled": 1, "disabled": 3, "paused": 2}
    world.api.post("cluster/pause")
    assert world.seen()["jobs"]["paused"] == 4
    world.api.delete("jobs/blue:b")
    assert world.seen()["jobs"]["registered"] == 3


def test_ad_hoc_run_is_no_registered_job(world: World) -> None:
    config = job_body("once")
    for name in ("jobExecutionType", "cron"):
        del config[name]
    assert world.api.post("runs", json=config).status_code == 202
    seen = world.seen()
    assert (seen["jobs"]["registered"], seen["runs"]["unfinished"], seen["shards"]["waiting"]) == (0, 1, 2)


def test_shards_are_counted_by_what_they_wait_for(world: World) -> None:
    def waiting_for(**given: int) -> dict[str, int]:
        return dict.fromkeys(("resources", "quota", "stopped", "backOff", "earlierRun"), 0) | given

    first, other = world.job("a", retryCount=3), world.job("b", "blue")
    world.start(first)
    world.start(first)
    world.start(other)
    shards = world.seen()["shards"]
    assert shards == {"running": 0, "waiting": 6, "waitingFor": waiting_for(resources=4, earlierRun=2)}
    assert world.seen(of_teams("blue"))["shards"]["waiting"] == 2
    world.api.post(f"jobs/{other}/pause")
    assert world.seen()["shards"]["waitingFor"] == waiting_for(resources=2, earlierRun=2, stopped=2)
    world.api.post(f"jobs/{other}/resume")
    world.loop.feed(PutAccess(world.loop.now, Team("blue", quota=Quota(shards=0))))
    assert world.seen()["shards"]["waitingFor"] == waiting_for(resources=2, earlierRun=2, quota=2)
    world.loop.offer()
    task, _ = world.loop.tick()
    assert world.seen()["shards"] == {"running": 2, "waiting": 4, "waitingFor": waiting_for(earlierRun=2, quota=2)}
    assert world.seen(of_teams("default"))["shards"]["running"] == 2
    world.loop.update(task, "TASK_FAILED")
    assert world.seen()["shards"] == {
        "running": 1, "waiting": 5, "waitingFor": waiting_for(earlierRun=2, quota=2, backOff=1)
    }  # fmt: skip


def test_dead_and_late_runs_are_counted_and_listed(world: World) -> None:
    job = world.job("a", shardingTotalCount=1, retryCount=1, retryDelaySeconds=0.5, retryJitter=0)
    slow = world.job("b", "blue", lateAfterSeconds=60)
    dead = world.start(job)
    for wait in (0, 500):
        world.loop.offer()
        (task,) = world.loop.tick(wait)
        world.loop.update(task, "TASK_FAILED")
    late = world.start(slow)
    assert world.seen()["runs"]["late"] == 0
    world.loop.tick(60_000)
    seen = world.seen()
    assert (seen["runs"]["late"], seen["alerts"].get("late")) == (1, 1)
    assert seen["late"] == [
        {"runId": late, "jobName": "blue:b", "team": "blue", "firedAt": "2023-11-14T22:13:20.500Z",
         "lateSince": "2023-11-14T22:14:20.500Z"}
    ]  # fmt: skip
    mine = world.seen(of_teams("default"))
    assert (mine["runs"]["late"], mine["late"], mine["alerts"].get("late")) == (0, [], None)
    assert (seen["runs"]["dead"], mine["runs"]["dead"]) == (1, 1)
    assert [run["id"] for run in world.api.get("runs", params={"state": "DEAD"}).json()["items"]] == [dead]
    assert world.seen(of_teams("blue"))["runs"]["dead"] == 0


def test_next_firings_are_the_first_ones_of_jobs_that_fire(world: World) -> None:
    for number in range(25):
        world.job(f"j{number:02}", cron=f"0 {number} 23 * * ?")
    world.job("soon", "blue", cron="0 59 23 * * ?", timeZone="Europe/Berlin")
    world.api.post("jobs/j00/disable")
    world.api.post("jobs/j01/pause")
    found = world.seen()["next"]
    assert len(found) == 20
    assert [one["jobName"] for one in found[:3]] == ["blue:soon", "j02", "j03"]
    assert found[0] == {
        "jobName": "blue:soon", "team": "blue", "at": "2023-11-14T22:59:00.000Z", "timeZone": "Europe/Berlin"
    }  # fmt: skip
    assert found[1]["timeZone"] == "UTC"
    assert [one["jobName"] for one in world.seen(of_teams("blue"))["next"]] == ["blue:soon"]


def test_cluster_is_for_those_who_may_view_it(world: World) -> None:
    world.start(world.job("a"))
    world.loop.offer("agent-1", cpus=8_000, mem=1_000_000)
    world.loop.tick()
    world.loop.offer("agent-2", cpus=4_000, mem=500_000)
    world.loop.feed(AgentLost(world.loop.now, "agent-3"))
    seen = world.seen()
    cluster = seen["cluster"]
    assert (cluster["agents"], cluster["closed"], cluster["lost"]) == (2, 0, 0)
    assert cluster["used"]["cpuCount"] == pytest.approx(0.7)
    assert (cluster["offered"]["cpuCount"], cluster["total"]["cpuCount"]) == (4, 12)
    assert seen["leader"] == {"epoch": 7, "since": "2023-11-14T22:13:20.000Z", "host": "host7"}
    assert (seen["health"]["status"], seen["health"]["problem"]) == ("ok", "")
    mine = world.seen(of_teams("default", "blue"))
    assert (mine["cluster"], mine["leader"], mine["health"]) == (None, None, None)


def test_alert_about_an_agent_is_for_those_who_may_view_the_cluster(world: World) -> None:
    world.loop.offer()
    world.loop.feed(AgentLost(world.loop.now, "agent-1"))
    assert world.seen()["alerts"] == {"agent_lost": 1}
    assert world.seen()["cluster"]["lost"] == 1
    assert world.seen(of_teams("default"))["alerts"] == {}


def test_numbers_are_computed_once_for_all_senders_and_kept_for_a_while(world: World) -> None:
    now, asked = [0.0], []
    real = world.loop.ask

    def ask(fn: Callable[[Scheduler], Any], timeout: float = 5) -> Any:
        asked.append(fn)
        return real(fn, timeout)

    world.loop.ask = ask  # type: ignore[method-assign]
    overviews = Overviews(world.loop, lambda: START, tuple, monotonic=lambda: now[0])
    assert overviews.overview(ALL) is overviews.overview(ALL)
    assert overviews.overview(of_teams("blue")) is not overviews.overview(ALL)
    now[0] = 0.49
    overviews.overview(of_teams("default"))
    assert len(asked) == 1
    now[0] = 0.5
    overviews.overview(ALL)
    assert len(asked) == 2


def test_numbers_that_take_long_are_kept_longer(world: World) -> None:
    times, cpu = iter([0.0, 0.75, 0.79]), iter([0.5, 0.515625, 0.6, 0.7])
    overviews = Overviews(world.loop, lambda: START, tuple, monotonic=lambda: next(times), cpu=lambda: next(cpu))
    first = overviews.numbers(ALL)
    assert overviews.numbers(ALL) is first
    assert overviews.numbers(ALL) is not first


def test_stream_of_changes_has_the_numbers_when_they_change(world: World) -> None:
    job, other = world.job("a"), world.job("b", "blue")

    async def watch() -> list[str]:
        notices = Notices()
        digests = Digests(notices, world.overviews, pause_s=0.0, gather_s=0.0, numbers_s=0.0)
        stream = digests.stream(lambda: of_teams("default"))
        found = [await anext(stream), await anext(stream)]
        notices.publish(Publish(START, Topic.CONFIG, "nothing that counts", job="blue:b"))
        for name in (other, job):
            world.loop.feed(SetJobEnabled(START, name, False))
        notices.publish(Publish(START, Topic.CONFIG, "disabled", job=job))
        while "state" not in found[-1] or len(found) == 2:
            found.append(await anext(stream))
        await stream.aclose()
        return found

    _, first, *later = asyncio.run(watch())
    disabled = [
        json.loads(line.removeprefix("data: "))["jobs"]["disabled"]
        for event in (first, *later)
        for line in event.splitlines()
        if line.startswith('data: {"jobs":{')
    ]
    assert disabled == [0, 1]
    assert '"next"' not in first


def test_stream_of_changes_goes_on_without_a_leader(world: World) -> None:
    def refuse(fn: object, timeout: float = 5) -> Any:
        raise Unavailable("no leader here")

    async def watch() -> list[str]:
        stream = Digests(Notices(), world.overviews).stream(lambda: ALL, follow=False)
        return [event async for event in stream]

    world.loop.ask = refuse  # type: ignore[method-assign]
    assert [event.startswith("retry:") for event in asyncio.run(watch())] == [True]
    assert world.api.get("overview").status_code == 503


def test_route_takes_no_parameter(api: Client) -> None:
    assert api.get("overview").json()["jobs"]["registered"] == 0
    assert "is not a known parameter" in issues(api.get("overview?team=blue"))["team"]


def test_overview_names_the_machine_of_its_scheduler(tmp_path: Path, loop: FakeLoop) -> None:
    api = client_of(make_api(tmp_path, loop, options=ApiOptions(machine="host7.test")))
    assert api.get("overview").json()["leader"]["host"] == "host7.test"
