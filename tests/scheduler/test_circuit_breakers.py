"""Circuit breakers: if executors of an app version do not start, tasks fail with the reason and starts become rare."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer

from jobcloud.config import JobKind, Resources
from jobcloud.messages import AgentLost, PutApp, PutJob, PutPool, SetJobEnabled, Trigger
from jobcloud.model import Pool, ShardState

NO_PACKAGE: dict[str, Any] = {"data": json.dumps({"schema": 1, "cause": "package"}), "message": "no zip"}
NO_CONTAINER: dict[str, Any] = {"reason": "REASON_CONTAINER_LAUNCH_FAILED", "message": "404"}
DAY_MS = 86_400_000
AGENTS = tuple(f"a{number}" for number in range(5))


def launch(desk: Desk, ms: int = 0) -> list[str]:
    """The ids of the tasks launched after `ms`, with an offer of every agent."""
    effects = desk.run_until_idle(ms)
    effects = effects + desk.offer(*(make_offer(f"{agent}-{desk.at}", agent) for agent in AGENTS))
    return [one.task_id for one in desk.launched(effects)]


def play(desk: Desk, fails: dict[str, Any], seconds: int) -> list[int]:
    """Each second make offers and fail all launched tasks. Returns the number of launches of each second."""
    counts = []
    for _ in range(seconds):
        tasks = launch(desk, 1_000)
        for task in tasks:
            desk.status(task, "TASK_FAILED", **fails)
        counts.append(len(tasks))
    return counts


@pytest.mark.parametrize("fails", [NO_PACKAGE, NO_CONTAINER])
@pytest.mark.parametrize("executors", [0, 2])
def test_broken_package_is_tried_by_one_task_at_growing_intervals(fails: dict[str, Any], executors: int) -> None:
    jobs = [make_job(f"each-second-{n}", cron="* * * * * ?", shard_count=4, failover=n > 0) for n in range(2)]
    resident = make_job("resident", kind=JobKind.DAEMON, shard_count=4)
    desk = Desk(make_app(executors=executors), *jobs, resident)
    counts = play(desk, fails, 600)
    assert sum(counts[:3]) > 4, "these were launched before the first failure"
    assert max(counts[3:]) == 1
    assert 9 <= sum(counts[3:]) <= 600 / 60 + 6
    reasons = desk.scheduler.explain("resident", desk.at).reasons
    held = next(reason for reason in reasons if reason.code == "start_failed")
    assert fails["message"] in held.text
    assert all(fails["message"] in firing.shards[0].message for firing in desk.firings("each-second-0")[:-3])


def test_failed_fetch_names_the_artifact() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    for task in launch(desk):
        said = "Failed to launch container: Failed to fetch all URIs"
        desk.status(task, "TASK_FAILED", reason="REASON_CONTAINER_LAUNCH_FAILED", message=said)
    (shard,) = desk.firings()[0].shards
    assert f"http://leader-1/{1:064x}/package.zip" in shard.message


def test_first_running_task_closes_the_breaker_for_all_others() -> None:
    desk = Desk(make_app(), make_job(shard_count=4, failover=True))
    desk.do(Trigger(desk.at, "report"))
    for task in launch(desk):
        desk.status(task, "TASK_FAILED", **NO_CONTAINER)
    (trial,) = launch(desk, 2_000)
    assert not launch(desk, 1_000)
    desk.status(trial, "TASK_RUNNING")
    assert len(launch(desk)) == 3


def test_open_breaker_does_not_affect_a_new_version_or_other_apps() -> None:
    desk = Desk(make_app(), make_app("bank", 7), make_job(shard_count=4), make_job("other", app="bank"))
    desk.do(Trigger(desk.at, "report"))
    for task in launch(desk):
        desk.status(task, "TASK_FAILED", **NO_PACKAGE)
    assert desk.firings()[0].shards[0].state is ShardState.FAILED
    desk.do(Trigger(desk.at, "report"))
    desk.do(Trigger(desk.at, "other"))
    assert [task.partition("@")[0] for task in launch(desk)] == ["other"]
    desk.do(PutApp(desk.at, make_app(version=2), replace=True))
    assert len(launch(desk)) == 4


@pytest.mark.parametrize("how", ["lost", "unreachable", "silent"])
def test_inconclusive_trial_is_followed_by_another(how: str) -> None:
    desk = Desk(make_app(), make_job(shard_count=2, failover=True, failover_attempts=100))
    desk.do(Trigger(desk.at, "report"))
    for task in launch(desk):
        desk.status(task, "TASK_FAILED", **NO_CONTAINER)
    (trial,) = launch(desk, 2_000)
    if how == "unreachable":
        desk.do(AgentLost(desk.at, desk.scheduler.tasks[trial].agent_id))
        desk.status(trial, "TASK_UNREACHABLE")
    elif how == "lost":
        desk.status(trial, "TASK_LOST")
    assert len(launch(desk, 61_000 if how == "silent" else 2_000)) == 1


def test_end_of_a_started_executor_is_no_failed_start() -> None:
    desk = Desk(make_app(), make_job(shard_count=3, failover=True))
    desk.do(Trigger(desk.at, "report"))
    first, *others = launch(desk)
    desk.status(first, "TASK_RUNNING")
    agent = desk.scheduler.tasks[first].agent_id
    there = [task for task in others if desk.scheduler.tasks[task].agent_id == agent]
    for task in (first, *there):
        desk.at += 60_000
        desk.status(task, "TASK_FAILED", reason="REASON_EXECUTOR_TERMINATED")
    assert not desk.scheduler.indexes()["circuit_breakers"]
    assert len(launch(desk, 2_000)) == 1 + len(there)


def test_one_bad_agent_opens_no_breaker() -> None:
    desk = Desk(make_app(), make_job(cron="* * * * * ?", shard_count=5, failover=True))
    for _ in range(60):
        for task in launch(desk, 1_000):
            if desk.scheduler.tasks[task].agent_id == "a0":
                desk.status(task, "TASK_FAILED", **NO_CONTAINER)
            else:
                desk.status(task, "TASK_RUNNING")
                desk.status(task, "TASK_FINISHED")
    assert sum(bool(firing.ended_ms) for firing in desk.firings()) > 20


def test_trial_that_was_due_before_the_clock_was_set_back_is_made_at_once() -> None:
    desk = Desk(make_app(), make_job(failover=True))
    desk.do(Trigger(desk.at, "report"))
    right = desk.at
    desk.at += DAY_MS
    (task,) = desk.launched(desk.offer(make_offer("only")))
    desk.status(task.task_id, "TASK_FAILED", **NO_CONTAINER)
    desk.run_until_idle(2_000)  # the wait ends, and no agent makes an offer
    desk.at = right
    desk.tick(1_000)
    assert len(launch(desk, 1_000)) == 1


@pytest.mark.parametrize(
    "impossible", [{"constraints": ("zone == nowhere",)}, {"resources": Resources(1_000_000, 128_000)}]
)
def test_shard_without_room_does_not_use_up_the_trial(impossible: dict[str, Any]) -> None:
    desk = Desk(make_app(), make_job("never", priority=9, **impossible), make_job())
    for job in ("never", "report"):
        desk.do(Trigger(desk.at, job))
    for task in launch(desk):
        desk.status(task, "TASK_FAILED", **NO_PACKAGE)
    assert desk.scheduler.explain("report", desk.at).reasons[0].code == "start_failed"
    desk.do(Trigger(desk.at, "report"))
    assert len(launch(desk, 60_000)) == 1
    assert "never" in desk.scheduler.refusals


def test_shard_that_waited_for_a_slot_at_first_counts_as_the_trial_of_its_app() -> None:
    """The large shard of another app gets the slot and finds no agent. Then the shard on trial gets it."""
    large = make_job("large", app="other", resources=Resources(1_000_000, 128_000), priority=9, pools=("db",))
    desk = Desk(make_app(), make_app("other"), make_job())
    desk.do(PutPool(desk.at, "db", Pool(1)))
    for job in (large, make_job("first", priority=5, pools=("db",)), make_job("second", priority=4)):
        desk.do(PutJob(desk.at, job))
    desk.do(Trigger(desk.at, "report"))
    for task in launch(desk):
        desk.status(task, "TASK_FAILED", **NO_PACKAGE)
    desk.do(SetJobEnabled(desk.at, "report", False))
    for name in ("large", "first", "second"):
        desk.do(Trigger(desk.at, name))
    assert len(launch(desk, 60_000)) == 1
