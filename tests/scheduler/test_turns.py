"""Turns of teams: shares by weight and resource, and the unchanged order within a team."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer

from jobcloud.config import Job, Resources
from jobcloud.messages import OffersReceived, PutAccess, PutJob, Trigger
from jobcloud.model import Quota, TaskName, Team

CPU = 1_000
SMALL = Resources(cpus=10, mem=1_000)


def desk_of(*teams: str, **weights: int) -> Desk:
    desk = Desk(*(make_app(team=team, resources=SMALL) for team in teams))
    for team, weight in weights.items():
        desk.do(PutAccess(desk.at, Team(team, (), Quota(), weight)))
    return desk


def add(desk: Desk, name: str, team: str, shards: int, **fields: object) -> Job:
    job = make_job(name, team=team, shard_count=shards, **{"resources": Resources(CPU, 1_000), **fields})
    desk.do(PutJob(desk.at, job))
    desk.do(Trigger(desk.at, job.key))
    return job


def offer(desk: Desk, cpus: int, mem: int = 64_000) -> list[TaskName]:
    return [
        TaskName.parse(one.task_id)
        for one in desk.launched(desk.offer(make_offer(f"o{len(desk.all)}", "a1", cpus, mem)))
    ]


def counts(tasks: list[TaskName]) -> Counter[str]:
    return Counter(task.job.partition(":")[0] for task in tasks)


def test_burst_of_one_team_leaves_the_next_turn_to_another() -> None:
    desk = desk_of("a", "b")
    add(desk, "burst", "a", 1_000, priority=100)
    assert counts(offer(desk, 8)) == {"a": 7}
    add(desk, "single", "b", 1)
    tasks = offer(desk, 2)
    assert [task.job for task in tasks] == ["b:single"]


def test_shares_are_in_proportion_to_the_weights() -> None:
    desk = desk_of("a", "b", "c", a=1, b=2, c=5)
    for team in "abc":
        add(desk, "burst", team, 100)
    found = counts(offer(desk, 41))
    assert found == {"a": 5, "b": 10, "c": 25}


def test_team_without_work_leaves_its_share_to_the_others() -> None:
    desk = desk_of("a", "b")
    add(desk, "burst", "a", 100)
    add(desk, "few", "b", 3)
    assert counts(offer(desk, 21)) == {"a": 17, "b": 3}


def test_share_is_that_of_the_scarcest_resource() -> None:
    desk = desk_of("a", "b")
    add(desk, "memory", "a", 100, resources=Resources(100, 8_000_000))
    add(desk, "cpus", "b", 100, resources=Resources(2 * CPU, 1_000))
    # Each shard of `a` takes an eighth of the memory, each shard of `b` a sixteenth of the cpus.
    found = counts(offer(desk, 32))
    assert found["a"] == 7
    assert 13 <= found["b"] <= 15


def test_running_work_counts_and_a_new_leader_continues_with_the_same_shares() -> None:
    desk = desk_of("a", "b")
    add(desk, "burst", "a", 100)
    assert counts(offer(desk, 11)) == {"a": 10}
    add(desk, "burst", "b", 100)
    desk.restart()
    assert counts(offer(desk, 9)) == {"b": 8}
    assert counts(offer(desk, 10)) == {"a": 4, "b": 6}


def test_shares_of_a_new_leader_hold_before_all_sizes_are_summed_again() -> None:
    """The leader knows the agents by their tasks before it knows their sizes. Somebody reads the shares then."""
    desk = desk_of("a", "b")
    add(desk, "large", "a", 2, resources=Resources(4 * CPU, 1_000))
    add(desk, "small", "b", 6)
    assert counts(offer(desk, 15)) == {"a": 2, "b": 6}
    for team in "ab":
        add(desk, "more", team, 9)
    desk.restart()
    assert desk.scheduler.team_usage("a").share == 0, "the size of the cluster is not known"
    desk.tick()
    assert counts(offer(desk, 2)) == {"b": 2}, "`a` has fewer attempts, and more of the cluster"


def test_room_of_a_shard_beyond_its_quota_is_for_the_others_at_once() -> None:
    desk = desk_of("a", "b")
    desk.do(PutAccess(desk.at, Team("a", (), Quota(cpus=CPU))))
    desk.run_until_idle()
    add(desk, "single", "a", 1)
    add(desk, "single", "b", 1)
    # The turn of `a` comes first. Its shard takes the only room, but its executor has no room in the quota.
    tasks = offer(desk, 2)
    assert [task.job for task in tasks] == ["b:single"]
    assert desk.scheduler.next_wake(desk.at) != desk.at, "no further cycle is due"


def test_priorities_and_lost_attempts_come_first_only_within_their_team() -> None:
    desk = desk_of("a", "b")
    lost = add(desk, "lost", "a", 1, failover=True)
    (task,) = offer(desk, 4)
    desk.status(str(task), "TASK_RUNNING")
    desk.status(str(task), "TASK_LOST")
    desk.run_until_idle(120_000)
    add(desk, "urgent", "a", 4, priority=100)
    add(desk, "plain", "b", 4)
    order = [task.job for task in offer(desk, 7)]
    assert order.index(lost.key) == min(order.index(job) for job in set(order) if job.startswith("a:"))
    assert Counter(order) == {"a:lost": 1, "a:urgent": 2, "b:plain": 3}


def test_shards_without_a_place_do_not_use_up_the_turns_of_their_team() -> None:
    desk = desk_of("a", "b")
    add(desk, "huge", "a", 300, resources=Resources(64 * CPU, 1_000), priority=5)
    add(desk, "small", "a", 4)
    add(desk, "burst", "b", 100)
    assert counts(offer(desk, 9)) == {"a": 4, "b": 4}


def test_lost_shards_without_a_place_do_not_use_up_the_turns_of_their_team() -> None:
    """They avoid the agent on which they were lost. No other agent has room either."""
    desk = desk_of("a", "b")
    desk.do(OffersReceived(desk.at, (make_offer("o0", "a0", 1),)))
    add(desk, "large", "a", 8, resources=Resources(16 * CPU, 1_000), failover=True, priority=5)
    lost = offer(desk, 16 * 8 + 1, 64_000)
    assert counts(lost) == {"a": 8}
    for task in lost:
        desk.status(str(task), "TASK_RUNNING")
        desk.status(str(task), "TASK_LOST")
    desk.run_until_idle(6_000)
    waiting = [shard for firing in desk.firings() for shard in firing.shards]
    assert all(shard.avoid_ms > desk.at >= shard.not_before_ms for shard in waiting)
    add(desk, "small", "a", 9)
    add(desk, "burst", "b", 100)
    desk.offer(make_offer("o1", "a2", 1))
    assert counts(offer(desk, 9)) == {"a": 4, "b": 4}


def test_dry_run_of_a_cycle_takes_turns_too() -> None:
    desk = desk_of("a", "b", b=3)
    add(desk, "burst", "a", 6)
    add(desk, "burst", "b", 6)
    teams = [firing.partition(":")[0] for firing, _, _ in desk.scheduler.plan(desk.at)]
    assert Counter(teams[:4]) == {"a": 1, "b": 3}
    assert len(teams) == 12


@pytest.mark.parametrize("others", [0, 3])
def test_order_within_a_team_is_that_of_the_queue(others: int) -> None:
    desk = desk_of("a", *(f"t{number}" for number in range(others)))
    for number in range(others):
        add(desk, "burst", f"t{number}", 3)
    add(desk, "old", "a", 2)
    add(desk, "young", "a", 2)
    add(desk, "urgent", "a", 2, priority=1)
    plan = [firing.partition(".")[0] for firing, _, _ in desk.scheduler.plan(desk.at)]
    mine = [name.partition("~")[0] for name in plan if name.startswith("a:")]
    assert mine == ["a:urgent"] * 2 + ["a:old"] * 2 + ["a:young"] * 2
