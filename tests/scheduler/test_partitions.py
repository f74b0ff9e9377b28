"""Unreachable shards: which wait, which are replaced, and what happens to a replaced attempt that comes back."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import JobKind, PartitionPolicy
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import AgentLost, Disconnected, ForgetTask, Kill, Publish, PutJob, Subscribed, Trigger
from jobcloud.model import ShardState

REPLACE = {"partition": PartitionPolicy.REPLACE}


def desk_with_lost_task(**fields: Any) -> tuple[Desk, str]:
    """A desk whose one shard runs on the unreachable agent a1, and the task's id."""
    desk = Desk(make_app(), make_job(**fields))
    if fields.get("kind") is not JobKind.DAEMON:
        desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("first"))
    (task,) = desk.running()
    desk.status(task, "TASK_RUNNING")
    desk.do(AgentLost(desk.at, "a1"))
    desk.status(task, "TASK_UNREACHABLE", uuid="")
    return desk, task


def replacement(desk: Desk, ms: int) -> str:
    """The task that has replaced the shard's attempt after `ms`, or ""."""
    before = desk.running()
    desk.run_until_idle(ms)
    desk.offer(make_offer(f"o{desk.at}", "a2"))
    return next((task for task in desk.running() if task not in before), "")


@pytest.mark.parametrize("kind", [JobKind.TRANSIENT, JobKind.DAEMON])
def test_unreachable_shard_is_waited_for_by_default(kind: JobKind) -> None:
    desk, task = desk_with_lost_task(kind=kind, failover=True)
    assert not replacement(desk, 86_400_000)
    assert "1 of its shards are on unreachable agents" in desk.scheduler.explain("report", desk.at).reasons[0].text
    assert "jobcloud task forget" in desk.scheduler.explain("report", desk.at).reasons[0].text
    desk.status(task, "TASK_RUNNING")
    assert desk.running() == [task]


@pytest.mark.parametrize("failover", [False, True])  # failover is for attempts that are known to be lost
def test_unreachable_shard_is_replaced_after_the_time_its_job_gives(failover: bool) -> None:
    desk, task = desk_with_lost_task(**REPLACE, replace_after_ms=60_000, failover=failover)
    assert not replacement(desk, 59_000)
    twin = replacement(desk, 4_000)
    assert twin
    assert desk.running() == [twin]
    attempt = desk.scheduler.tasks[twin]
    assert (attempt.attempt, attempt.agent_id) == (2, "a2")
    assert task not in desk.stored.tasks


def test_unreachable_shard_is_replaced_with_a_later_fence() -> None:
    desk, _ = desk_with_lost_task(**REPLACE)
    (first,) = desk.launched(desk.all)
    assert replacement(desk, 1_000)
    (second,) = desk.launched(desk.all)[1:]
    assert payload_of(second)["fence"] > payload_of(first)["fence"]
    assert payload_of(second)["runId"] == payload_of(first)["runId"]


def test_unreachable_resident_shard_is_replaced_alone() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, shard_count=3, **REPLACE))
    desk.offer(make_offer("first"))
    tasks = desk.running()
    for task in tasks:
        desk.status(task, "TASK_RUNNING")
    desk.status(tasks[1], "TASK_UNREACHABLE", uuid="")
    twin = replacement(desk, 1_000)
    assert set(desk.running()) == {tasks[0], twin, tasks[2]}


def test_replaced_attempt_that_comes_back_is_killed_and_the_later_one_stays() -> None:
    desk, task = desk_with_lost_task(**REPLACE)
    twin = replacement(desk, 1_000)
    effects = desk.status(task, "TASK_RUNNING", uuid="")
    assert [kill.task_id for kill in of(Kill, effects)] == [task]
    assert any("a replaced attempt" in notice.text for notice in of(Publish, effects))
    assert desk.running() == [twin]
    assert of(Kill, desk.status(task, "TASK_RUNNING", uuid="")) == []  # it was killed already
    again = of(Kill, desk.run_until_idle(POLICY.kill_again_ms))
    assert [kill.task_id for kill in again] == [task]  # until its end is reported
    desk.status(task, "TASK_KILLED")
    assert of(Kill, desk.run_until_idle(10 * POLICY.kill_again_ms)) == []
    desk.status(twin, "TASK_FINISHED")
    (firing,) = desk.firings()
    assert firing.shards[0].state is ShardState.FINISHED


def test_end_of_a_replaced_attempt_changes_nothing() -> None:
    desk, task = desk_with_lost_task(**REPLACE)
    twin = replacement(desk, 1_000)
    desk.status(task, "TASK_FINISHED")
    assert desk.running() == [twin]


def test_shard_that_is_reachable_again_in_time_stays() -> None:
    desk, task = desk_with_lost_task(**REPLACE, replace_after_ms=60_000)
    desk.run_until_idle(59_000)
    desk.status(task, "TASK_RUNNING")
    assert not replacement(desk, 600_000)
    desk.status(task, "TASK_UNREACHABLE")  # the time begins again
    assert not replacement(desk, 59_000)
    assert replacement(desk, 4_000)


def test_unreachable_shard_is_not_replaced_without_a_master() -> None:
    desk, task = desk_with_lost_task(**REPLACE, replace_after_ms=60_000)
    desk.do(Disconnected(desk.at, "gone"))
    assert not replacement(desk, 600_000)
    desk.do(Subscribed(desk.at, "framework-1"))
    assert not replacement(desk, 10_000)  # reconciliation is pending
    desk.status(task, "TASK_UNREACHABLE", uuid="")
    assert replacement(desk, 2_000)


def test_next_leader_counts_unreachable_time_from_its_beginning() -> None:
    desk, task = desk_with_lost_task(**REPLACE, replace_after_ms=60_000)
    desk.run_until_idle(40_000)
    desk.restart()
    desk.status(task, "TASK_UNREACHABLE", uuid="")
    assert not replacement(desk, 18_000)
    assert replacement(desk, 5_000)


def test_changed_partition_policy_applies_to_unreachable_shards() -> None:
    desk, task = desk_with_lost_task()
    assert not replacement(desk, 600_000)
    desk.do(PutJob(desk.at, make_job(**REPLACE), replace=True))
    assert desk.running() == [task]  # its work continues
    assert replacement(desk, 2_000)


# ---------------------------------------------------------------------------------------------------- operators


@pytest.mark.parametrize(("failover", "state"), [(False, ShardState.FAILED), (True, ShardState.WAITING)])
def test_task_that_an_operator_declares_dead_is_lost(failover: bool, state: ShardState) -> None:
    desk, task = desk_with_lost_task(failover=failover)
    desk.do(ForgetTask(desk.at, task))
    (firing,) = desk.firings()
    assert (firing.shards[0].state, firing.shards[0].message) == (state, "an operator declared it lost")
    assert of(Kill, desk.status(task, "TASK_RUNNING"))  # the operator was mistaken


def test_task_that_mesos_reports_alive_is_forgotten_only_by_force() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("first"))
    (task,) = desk.running()
    desk.status(task, "TASK_RUNNING")
    with pytest.raises(Conflict, match="is RUNNING"):
        desk.do(ForgetTask(desk.at, task))
    assert desk.running() == [task]
    desk.do(ForgetTask(desk.at, task, force=True))
    assert desk.running() == []
    with pytest.raises(NotFound):
        desk.do(ForgetTask(desk.at, task))


def test_unconfirmed_task_can_be_forgotten() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("first"))
    (task,) = desk.running()
    desk.status(task, "TASK_RUNNING")
    desk.restart()
    desk.do(ForgetTask(desk.at, task))
    assert desk.running() == []


def test_orphan_on_a_lost_agent_is_waited_for() -> None:
    desk, task = desk_with_lost_task(**REPLACE)
    replacement(desk, 1_000)
    desk.status(task, "TASK_RUNNING", uuid="")
    desk.do(AgentLost(desk.at, "a1"))
    assert of(Kill, desk.run_until_idle(10 * POLICY.kill_again_ms)) == []
    assert of(Kill, desk.status(task, "TASK_RUNNING", uuid=""))
