"""Loss of half the cluster: which shards restart, in which order, and with how few calls."""

from __future__ import annotations

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of

from jobcloud.config import JobKind, Resources
from jobcloud.messages import Accept, AgentLost, Kill, Reconcile, Revive, Save, Trigger
from jobcloud.model import ShardState

AGENTS, JOBS, SHARDS = 40, 20, 10


def loaded() -> tuple[Desk, dict[str, list[str]]]:
    """Forty agents with running shards of twenty jobs of different priority. Returns the tasks by agent."""
    jobs = [
        make_job(f"j{number:02}", shard_count=SHARDS, priority=number % 4, resources=Resources(500, 64_000),
                 kind=JobKind.DAEMON if number % 5 == 4 else JobKind.TRANSIENT, failover=number % 5 != 3)
        for number in range(JOBS)
    ]  # fmt: skip
    desk = Desk(make_app(resources=Resources(100, 32_000)), *jobs)
    for job in jobs:
        if job.kind is JobKind.TRANSIENT:
            desk.do(Trigger(desk.at, job.name))
    desk.offer(*(make_offer(f"o{number}", f"a{number:02}", cpus=3) for number in range(AGENTS)))
    tasks = list(desk.scheduler.tasks.values())
    assert len(tasks) == JOBS * SHARDS
    for task in tasks:
        desk.status(task.id, "TASK_RUNNING")
    desk.run_until_idle(30_000)
    return desk, {f"a{n:02}": [t.id for t in tasks if t.agent_id == f"a{n:02}"] for n in range(AGENTS)}


def lose_half(desk: Desk, there: dict[str, list[str]], state: str) -> tuple[list[str], int]:
    """Lose every second agent with tasks. Returns the lost tasks and the number of effects before."""
    used = [agent for agent, tasks in there.items() if tasks]
    lost = used[::2]
    began = len(desk.all)
    for agent in lost:
        desk.do(AgentLost(desk.at, agent))
        for task in there[agent]:
            desk.status(task, state, reason="REASON_AGENT_REMOVED")
    return [task for agent in lost for task in there[agent]], began


@pytest.mark.parametrize("restarted", [False, True])
def test_shards_lost_with_half_the_cluster_restart_in_queue_order_and_others_stay(
    restarted: bool,
) -> None:
    desk, there = loaded()
    lost, began = lose_half(desk, there, "TASK_LOST")
    assert len(lost) >= JOBS * SHARDS // 3
    again = {task for task in lost if int(task[1:3]) % 5 != 3}  # resident shards and those with failover
    assert set(desk.scheduler.tasks) == {task for tasks in there.values() for task in tasks} - set(lost)
    desk.do(Trigger(desk.at, "j00"))
    for name in ("j03", "j08"):
        failed = [shard for firing in desk.firings(name) for shard in firing.shards if shard.state is ShardState.FAILED]
        assert len(failed) == sum(task.startswith(name) for task in lost)
    if restarted:
        desk.restart()
        for task in list(desk.scheduler.tasks):
            desk.status(task, "TASK_RUNNING")
    desk.run_until_idle(5_000)

    # With room for a few at a time the shards start in the order of the queue.
    order: list[tuple[int, str]] = []
    for number in range(len(again)):
        for one in desk.launched(desk.offer(make_offer(f"n{number}", f"b{number}", cpus=3))):
            job = one.name.partition("@")[0]
            order.append((-desk.scheduler.jobs[job].priority, job))
    assert len(order) == len(again), "each of them once"
    assert order == sorted(order, key=lambda one: one[0])
    per_job = {job: [name for _, name in order].count(job) for _, job in order}
    assert per_job == {job: sum(task.startswith(job) for task in again) for job in per_job}

    # One call per launch and no others: no storm.
    said = desk.all[began:]
    assert of(Kill, said) == []
    assert len(of(Revive, said)) <= 2
    assert len(of(Reconcile, said)) <= 3
    assert len(of(Accept, said)) <= len(again)
    assert len(of(Save, said)) <= len(lost) * 2 + len(of(Accept, said)) + 20


def test_unreachable_half_of_the_cluster_starts_nothing() -> None:
    desk, there = loaded()
    lost, began = lose_half(desk, there, "TASK_UNREACHABLE")
    for number in range(10):
        desk.offer(make_offer(f"n{number}", f"b{number}", cpus=64))
        desk.run_until_idle(10_000)
    assert of(Accept, desk.all[began:]) == of(Kill, desk.all[began:]) == []
    for task in lost:
        desk.status(task, "TASK_RUNNING")
    assert len(desk.scheduler.tasks) == JOBS * SHARDS
