"""What a job says of its repeats, overlaps and limits, held against a scheduler that plays by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core_world import POLICY, Desk, make_app, make_job, make_offer
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import PutJob, RemoveJob, Retry, SetJobEnabled, Trigger
from jobcloud.model import JobKind, ShardState, TaskName


def launch(desk: Desk, *agents: str, ms: int = 0) -> list[str]:
    """The ids of the tasks launched while `ms` pass and then some agents (a1) make offers."""
    effects = desk.settle(ms)
    for agent in agents or ("a1",):
        effects = effects + desk.offer(make_offer(f"{agent}-{desk.at}-{len(desk.all)}", agent))
    return [one.task_id for one in desk.launched(effects)]


def agent_of(task_id: str) -> str:
    return TaskName.parse(task_id).agent_id


def fired(desk: Desk, job: str = "report") -> list[str]:
    desk.do(Trigger(desk.at, job))
    return launch(desk)


def shard_of(desk: Desk, item: int = 0, job: str = "report") -> Any:
    return desk.firings(job)[-1].shards[item]


# --------------------------------------------------------------------------------------------------- retry, dead


def test_a_failed_run_is_repeated_after_its_back_off_and_not_before() -> None:
    job = make_job(retry_count=2, retry_delay_ms=10_000, retry_jitter=0)
    desk = Desk(make_app(), job)
    (task_id,) = fired(desk)
    for wait in (10_000, 20_000):
        desk.status(task_id, "TASK_FAILED")
        assert shard_of(desk).not_before_ms == desk.at + wait
        assert launch(desk, ms=wait - 1) == []
        (task_id,) = launch(desk, ms=1)
    desk.status(task_id, "TASK_FAILED", message="no luck")
    (firing,) = desk.firings()
    assert firing.ended_ms == desk.at
    assert (firing.shards[0].state, firing.shards[0].attempt) == (ShardState.DEAD, 3)
    assert firing.shards[0].message == "no luck"


def test_waits_and_counts_outlive_the_leader() -> None:
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=3_600_000, retry_jitter=0))
    (task_id,) = fired(desk)
    desk.status(task_id, "TASK_FAILED")
    desk.restart()
    assert launch(desk, ms=3_599_999) == []
    (task_id,) = launch(desk, ms=1)
    desk.status(task_id, "TASK_FAILED")
    assert shard_of(desk).state is ShardState.DEAD


def dead_desk(**fields: Any) -> tuple[Desk, str]:
    """A desk with a run of two shards: the first has finished, the second is DEAD."""
    desk = Desk(make_app(), make_job(shard_count=2, retry_count=1, retry_delay_ms=100, retry_jitter=0, **fields))
    first, second = fired(desk)
    desk.status(first, "TASK_FINISHED")
    desk.status(second, "TASK_FAILED")
    desk.status(*launch(desk, ms=100), "TASK_FAILED")
    (firing,) = desk.firings()
    assert [shard.state for shard in firing.shards] == [ShardState.FINISHED, ShardState.DEAD]
    return desk, firing.id


@pytest.mark.parametrize("restarted", [False, True])
def test_a_dead_run_is_told_of_and_retry_puts_back_what_failed_alone(restarted: bool) -> None:
    desk, run_id = dead_desk()
    if restarted:
        desk.restart()
    (reason,) = [one for one in desk.scheduler.explain("report", desk.at).reasons if one.code == "dead"]
    assert run_id in reason.text
    desk.do(Retry(desk.at, run_id))
    if restarted:
        desk.restart()  # what was answered is stored
    (task_id,) = launch(desk)
    assert task_id.split("@-@")[1] == "1"
    assert (shard_of(desk, 1).attempt, shard_of(desk, 1).retries) == (3, 0)
    desk.status(task_id, "TASK_FINISHED")
    (firing,) = desk.firings()
    assert {shard.state for shard in firing.shards} == {ShardState.FINISHED}
    assert not [one for one in desk.scheduler.explain("report", desk.at).reasons if one.code == "dead"]


def test_what_is_put_back_has_all_its_attempts_again() -> None:
    desk, run_id = dead_desk()
    desk.do(Retry(desk.at, run_id, 1))
    for wait in (0, 100):
        desk.status(*launch(desk, ms=wait), "TASK_FAILED")
    assert shard_of(desk, 1).state is ShardState.DEAD


def test_dead_runs_are_not_crowded_out_by_those_that_went_well() -> None:
    policy = replace(POLICY, history=3, most_dead=2)
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=100, retry_jitter=0), policy=policy)
    dead = []
    for _ in range(3):
        desk.status(*fired(desk), "TASK_FAILED")
        desk.status(*launch(desk, ms=100), "TASK_FAILED")
        dead.append(desk.firings()[-1].id)
        for _ in range(4):
            desk.at += 1
            desk.status(*fired(desk), "TASK_FINISHED")
    kept = [firing.id for firing in desk.firings() if firing.shards[0].state is ShardState.DEAD]
    assert kept == dead[1:]
    assert len(desk.firings()) == len(desk.stored.firings) == 5
    desk.restart()
    assert len(desk.firings()) == 5
    desk.do(RemoveJob(desk.at, "report"))
    assert desk.firings() == []
    assert desk.stored.firings == {}


def test_retry_is_refused_where_it_would_do_harm_or_nothing() -> None:
    desk, run_id = dead_desk()
    resident = make_job("pulse", kind=JobKind.DAEMON)
    desk.do(PutJob(desk.at, resident))

    def refused(error: type[Exception], run: str = run_id, item: int | None = None) -> None:
        stored = dict(desk.stored.firings)
        with pytest.raises(error):
            desk.do(Retry(desk.at, run, item))
        assert desk.stored.firings == stored

    refused(NotFound, "nothing")
    refused(NotFound, item=2)
    refused(Conflict, item=0)  # it has finished
    refused(Conflict, desk.firings("pulse")[0].id)
    desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    refused(Conflict)
    desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    desk.do(PutJob(desk.at, replace(desk.scheduler.jobs["report"], shard_count=3), replace=True))
    refused(Conflict)  # its shards are others now
    desk.do(PutJob(desk.at, replace(desk.scheduler.jobs["report"], shard_count=2, parameter="new"), replace=True))
    desk.do(Retry(desk.at, run_id))  # with the configuration of today
    assert len(launch(desk)) == 2  # the resident's shard, too
    desk.status(desk.running()[0], "TASK_KILLED")
    refused(Conflict, item=0)


def test_a_shard_can_be_put_back_while_others_of_its_run_go_on() -> None:
    desk = Desk(make_app(), make_job(shard_count=2))
    first, second = fired(desk)
    desk.status(first, "TASK_FAILED")
    desk.do(Retry(desk.at, desk.firings()[0].id))
    (again,) = launch(desk)
    assert shard_of(desk, 0).attempt == 2
    desk.status(second, "TASK_FINISHED")
    desk.status(again, "TASK_FINISHED")
    assert {shard.state for shard in desk.firings()[0].shards} == {ShardState.FINISHED}


def test_retry_calls_the_listener_of_the_firing_again() -> None:
    desk = Desk(make_app(), make_job(shard_count=2, firing_listener="shop:Stage"))
    (before,) = fired(desk)
    desk.status(before, "TASK_FINISHED")
    first, second = launch(desk)
    desk.status(first, "TASK_FINISHED")
    desk.status(second, "TASK_FAILED")
    desk.status(*launch(desk), "TASK_FINISHED")
    (firing,) = desk.firings()
    assert firing.ended_ms
    desk.do(Retry(desk.at, firing.id))
    (again,) = launch(desk)
    assert TaskName.parse(again).item == 1
    desk.status(again, "TASK_FINISHED")
    (after,) = launch(desk)
    assert TaskName.parse(after).item == 3
    desk.status(after, "TASK_FINISHED")
    assert {shard.state for shard in desk.firings()[0].shards} == {ShardState.FINISHED}


def test_retry_starts_what_a_failed_listener_had_kept_from_running() -> None:
    desk = Desk(make_app(), make_job(shard_count=2, firing_listener="shop:Stage"))
    desk.status(*fired(desk), "TASK_FAILED")
    (firing,) = desk.firings()
    assert [shard.state for shard in firing.shards][:2] == [ShardState.CANCELLED] * 2
    desk.do(Retry(desk.at, firing.id))
    desk.status(*launch(desk), "TASK_FINISHED")
    assert len(launch(desk)) == 2


# ---------------------------------------------------------------------------------------------------------- fail-over


def test_b26_a_lost_shard_waits_longer_each_time_keeps_away_from_the_agent_and_gives_up() -> None:
    """Fail-over was immediate, unlimited, without back-off, and could land on the same agent."""
    desk = Desk(make_app(), make_job(failover=True, failover_attempts=3, failover_delay_ms=2_000))
    (task_id,) = fired(desk)
    for wait, agent in ((2_000, "a2"), (4_000, "a1"), (8_000, "a2")):
        desk.status(task_id, "TASK_RUNNING")
        desk.status(task_id, "TASK_LOST")
        assert launch(desk, "a1", "a2", ms=wait - 1) == []
        (task_id,) = launch(desk, "a1", "a2", ms=1)
        assert agent_of(task_id) == agent  # not where the attempt before was lost
    desk.status(task_id, "TASK_LOST")
    assert shard_of(desk).state is ShardState.DEAD


def test_an_agent_is_avoided_only_as_long_as_there_is_another_and_for_a_minute() -> None:
    desk = Desk(make_app(), make_job(failover=True))
    (task_id,) = fired(desk)
    desk.status(task_id, "TASK_RUNNING")
    desk.status(task_id, "TASK_LOST")
    (task_id,) = launch(desk, "a1", ms=1_000)  # there is no other
    desk.status(task_id, "TASK_RUNNING")
    desk.status(task_id, "TASK_LOST")
    desk.offer(make_offer("small", "a2", cpus=0))
    assert launch(desk, "a1", ms=2_000) == []
    codes = [one.code for one in desk.scheduler.explain("report", desk.at).reasons]
    assert "avoided" in codes
    assert launch(desk, "a1", ms=59_999) == []  # the other one never has room
    assert [agent_of(one) for one in launch(desk, "a1", ms=1)] == ["a1"]
    desk.scheduler.cluster.validate()


def test_avoiding_costs_the_matcher_no_class_for_good() -> None:
    desk = Desk(make_app(), make_job(failover=True, shard_count=4, failover_attempts=1000))
    tasks = fired(desk)
    for _ in range(20):
        for task_id in tasks:
            desk.status(task_id, "TASK_LOST")
        tasks = launch(desk, "a1", "a2", ms=60_000)
        assert len(tasks) == 4
    for task_id in tasks:
        desk.status(task_id, "TASK_FINISHED")
    assert len(desk.scheduler.cluster.matcher.snapshot()) < 2_000
