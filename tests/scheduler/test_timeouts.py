"""Timeouts: runs beyond their time limit that their executor does not end, and executors that ignore kills."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_app, make_job, make_offer, of

from jobcloud.config import JobKind
from jobcloud.messages import Disconnected, Kill, SetJobEnabled, ShutdownExecutor, Subscribed, Trigger
from jobcloud.model import ShardState

KILL_GRACE = 7_000
LIMIT, GRACE, HUNG = 60_000, POLICY.timeout_grace_ms + 2 * KILL_GRACE, POLICY.kill_timeout_ms + 2 * KILL_GRACE


def running(**fields: Any) -> tuple[Desk, str]:
    """A desk on which one shard of a job with a time limit runs."""
    desk = Desk(make_app(), make_job(**{"timeout_ms": LIMIT, "kill_grace_ms": KILL_GRACE} | fields))
    if fields.get("kind") is not JobKind.DAEMON:
        desk.do(Trigger(desk.at, "report"))
    (one,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(one.task_id, "TASK_RUNNING")
    return desk, one.task_id


def asked(desk: Desk, ms: int) -> tuple[int, int]:
    """The number of kills and of shutdowns in the next `ms`, with a Tick each second."""
    began, end = len(desk.all), desk.at + ms
    while desk.at < end:
        desk.tick(min(1_000, end - desk.at))
    said = desk.all[began:]
    return len(of(Kill, said)), len(of(ShutdownExecutor, said))


def shard(desk: Desk) -> Any:
    return desk.firings()[0].shards[0]


@pytest.mark.parametrize("end", ["TASK_KILLED", "TASK_LOST", "TASK_FAILED"])
@pytest.mark.parametrize("restarted", [False, True])
def test_run_beyond_its_time_limit_is_killed_and_has_failed(end: str, restarted: bool) -> None:
    desk, task = running()
    assert asked(desk, LIMIT + GRACE - 1) == (0, 0), "its executor has time to end it"
    assert asked(desk, 1_000) == (1, 0)
    assert desk.stored.tasks[task].overdue_ms
    if restarted:
        desk.restart()
        desk.status(task, "TASK_RUNNING")
        assert asked(desk, 1_000) == (1, 0), "the next leader repeats the kill"
    desk.status(task, end, reason="REASON_EXECUTOR_TERMINATED")
    assert shard(desk).state is ShardState.FAILED
    assert (shard(desk).outcome.cause, "exceeded its time limit" in shard(desk).message) == ("timeout", True)
    assert asked(desk, LIMIT + HUNG) == (0, 0)
    assert desk.scheduler.indexes()["timeouts"] == {}


def test_next_leader_watches_the_time_limit_of_running_tasks() -> None:
    desk, task = running()
    assert asked(desk, LIMIT // 2) == (0, 0)
    desk.restart()
    desk.status(task, "TASK_RUNNING")
    assert asked(desk, LIMIT + GRACE - 1) == (0, 0)
    assert asked(desk, 2_000) == (1, 0)


def test_run_beyond_its_time_limit_is_repeated_as_a_failure_of_the_job() -> None:
    desk, task = running(retry_count=1, retry_delay_ms=1_000, failover=True)
    asked(desk, LIMIT + GRACE)
    desk.status(task, "TASK_KILLED")
    assert (shard(desk).retries, shard(desk).failures) == (1, 0)
    desk.at += 5_000
    (again,) = desk.launched(desk.offer(make_offer("o2")))
    desk.status(again.task_id, "TASK_RUNNING")
    asked(desk, LIMIT + GRACE)
    desk.status(again.task_id, "TASK_KILLED")
    assert shard(desk).state is ShardState.DEAD


def test_run_that_finishes_despite_the_kill_has_finished() -> None:
    desk, task = running()
    asked(desk, LIMIT + GRACE)
    desk.status(task, "TASK_FINISHED")
    assert shard(desk).state is ShardState.FINISHED


def test_executor_that_ignores_kills_is_shut_down_repeatedly() -> None:
    desk, task = running()
    asked(desk, LIMIT + GRACE)
    assert asked(desk, HUNG - 1_000)[1] == 0
    assert asked(desk, 1_000)[1] == 1
    assert asked(desk, HUNG)[1] == 1
    desk.status(task, "TASK_FAILED", reason="REASON_EXECUTOR_TERMINATED")
    assert (shard(desk).state, shard(desk).outcome.cause) == (ShardState.FAILED, "timeout")


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("kind", JobKind)
def test_hung_executor_is_shut_down_after_operator_disable(kind: JobKind, restarted: bool) -> None:
    desk, task = running(timeout_ms=0, kind=kind)
    desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    assert asked(desk, HUNG - 1_000)[1] == 0
    if restarted:
        desk.restart()
        desk.status(task, "TASK_RUNNING")
        assert asked(desk, HUNG - 1_000)[1] == 0, "the time begins again for the next leader"
    assert asked(desk, 2_000)[1] == 1
    desk.status(task, "TASK_FAILED", reason="REASON_EXECUTOR_TERMINATED")
    assert all(firing.ended_ms for firing in desk.firings())


@pytest.mark.parametrize("away", ["its agent", "the master"])
def test_kill_timeout_begins_when_the_kill_can_be_sent(away: str) -> None:
    """Otherwise the executor and its other tasks would end as soon as the connection is back."""
    desk, task = running(timeout_ms=0)
    if away == "its agent":
        desk.status(task, "TASK_UNREACHABLE")
    else:
        desk.do(Disconnected(desk.at))
    desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    assert asked(desk, 3 * HUNG)[1] == 0
    if away == "the master":
        desk.do(Subscribed(desk.at, "framework-1"))
    desk.status(task, "TASK_RUNNING")
    kills, shutdowns = asked(desk, HUNG - 1_000)
    assert (kills >= 1, shutdowns) == (True, 0)
    assert asked(desk, 1_000)[1] == 1


@pytest.mark.parametrize("fields", [{"timeout_ms": 0}, {"kind": JobKind.DAEMON}])
def test_resident_without_a_task_limit_is_not_killed(fields: dict[str, Any]) -> None:
    desk, _ = running(**fields)
    assert asked(desk, 5 * (LIMIT + GRACE)) == (0, 0)


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_clock_jump_does_not_change_time_limits(jump_ms: int) -> None:
    desk, _ = running()
    assert asked(desk, LIMIT // 2) == (0, 0)
    desk.at += jump_ms
    assert asked(desk, LIMIT // 2 + GRACE - 3_000) == (0, 0)
    assert asked(desk, 4_000)[0] >= 1


def test_unreachable_or_unconfirmed_task_is_not_timed_out() -> None:
    desk, task = running()
    asked(desk, LIMIT)
    desk.status(task, "TASK_UNREACHABLE")
    assert asked(desk, GRACE + HUNG) == (0, 0)
    desk.do(Disconnected(desk.at))
    assert asked(desk, HUNG) == (0, 0)
    desk.do(Subscribed(desk.at, "framework-1"))
    assert asked(desk, 20_000) == (0, 0)
    desk.status(task, "TASK_RUNNING")
    assert asked(desk, 10_000)[0] >= 1


def test_listener_calls_have_their_own_time_limits() -> None:
    desk = Desk(make_app(), make_job(firing_listener="shop:Stage", before_timeout_ms=5_000, kill_grace_ms=KILL_GRACE))
    desk.do(Trigger(desk.at, "report"))
    (before,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(before.task_id, "TASK_RUNNING")
    assert asked(desk, 5_000 + GRACE - 1) == (0, 0)
    assert asked(desk, 1_000) == (1, 0)
    desk.status(before.task_id, "TASK_KILLED")
    assert desk.firings()[0].ended_ms
