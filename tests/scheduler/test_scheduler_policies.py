"""The policies of a job for retries, overlapping firings and limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core_world import POLICY, START, Desk, make_app, make_job, make_offer, of

from jobcloud.config import CatchUp, Concurrency, JobKind
from jobcloud.cron import Schedule
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import Kill, PutJob, RemoveJob, Retry, Revive, SetJobEnabled, Suppress, Trigger
from jobcloud.model import Cause, ShardState, TaskName
from jobcloud.scheduler.timetable import latest, latest_ones


def launch(desk: Desk, *agents: str, ms: int = 0) -> list[str]:
    """The ids of the tasks launched after `ms`, with an offer of each agent (a1 if none is given)."""
    effects = desk.run_until_idle(ms)
    for agent in agents or ("a1",):
        effects = effects + desk.offer(make_offer(f"{agent}-{desk.at}-{len(desk.all)}", agent))
    return [one.task_id for one in desk.launched(effects)]


def agent_of(task_id: str) -> str:
    return TaskName.parse(task_id).agent_id


def fired(desk: Desk, job: str = "report") -> list[str]:
    desk.do(Trigger(desk.at, job))
    return launch(desk)


def only(found: list[str]) -> str:
    (one,) = found
    return one


def shard_of(desk: Desk, item: int = 0, job: str = "report") -> Any:
    return desk.firings(job)[-1].shards[item]


# --------------------------------------------------------------------------------------------------- retry, dead


def test_failed_run_is_repeated_after_its_back_off_and_not_before() -> None:
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
    """A desk with a run of two shards, and its id. The first shard has finished, the second is DEAD."""
    desk = Desk(make_app(), make_job(shard_count=2, retry_count=1, retry_delay_ms=100, retry_jitter=0, **fields))
    first, second = fired(desk)
    desk.status(first, "TASK_FINISHED")
    desk.status(second, "TASK_FAILED")
    desk.status(only(launch(desk, ms=100)), "TASK_FAILED")
    (firing,) = desk.firings()
    assert [shard.state for shard in firing.shards] == [ShardState.FINISHED, ShardState.DEAD]
    return desk, firing.id


@pytest.mark.parametrize("restarted", [False, True])
def test_dead_run_is_reported_and_retry_puts_back_only_failed_shards(restarted: bool) -> None:
    desk, run_id = dead_desk()
    if restarted:
        desk.restart()
    (reason,) = [one for one in desk.scheduler.explain("report", desk.at).reasons if one.code == "dead"]
    assert run_id in reason.text
    desk.do(Retry(desk.at, run_id))
    if restarted:
        desk.restart()  # the answered command is stored
    (task_id,) = launch(desk)
    assert task_id.split("@-@")[1] == "1"
    assert (shard_of(desk, 1).attempt, shard_of(desk, 1).retries) == (3, 0)
    desk.status(task_id, "TASK_FINISHED")
    (firing,) = desk.firings()
    assert {shard.state for shard in firing.shards} == {ShardState.FINISHED}
    assert not [one for one in desk.scheduler.explain("report", desk.at).reasons if one.code == "dead"]


def test_put_back_shard_has_all_its_attempts_again() -> None:
    desk, run_id = dead_desk()
    desk.do(Retry(desk.at, run_id, 1))
    for wait in (0, 100):
        desk.status(only(launch(desk, ms=wait)), "TASK_FAILED")
    assert shard_of(desk, 1).state is ShardState.DEAD


def test_dead_runs_are_not_displaced_by_successful_ones() -> None:
    policy = replace(POLICY, history=3, max_dead=2)
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=100, retry_jitter=0), policy=policy)
    dead = []
    for _ in range(3):
        desk.status(only(fired(desk)), "TASK_FAILED")
        desk.status(only(launch(desk, ms=100)), "TASK_FAILED")
        dead.append(desk.firings()[-1].id)
        for _ in range(4):
            desk.at += 1
            desk.status(only(fired(desk)), "TASK_FINISHED")
    kept = [firing.id for firing in desk.firings() if firing.shards[0].state is ShardState.DEAD]
    assert kept == dead[1:]
    assert len(desk.firings()) == len(desk.stored.firings) == 5
    desk.restart()
    assert len(desk.firings()) == 5
    desk.do(RemoveJob(desk.at, "report"))
    assert desk.firings() == []
    assert desk.stored.firings == {}


def test_retry_is_refused_if_it_would_do_harm_or_nothing() -> None:
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
    refused(Conflict)  # it has other shards now
    desk.do(PutJob(desk.at, replace(desk.scheduler.jobs["report"], shard_count=2, parameter="new"), replace=True))
    desk.do(Retry(desk.at, run_id))  # with the current configuration
    assert len(launch(desk)) == 2  # the resident's shard too
    desk.status(desk.running()[0], "TASK_KILLED")
    refused(Conflict, item=0)
    desk.do(PutJob(desk.at, replace(desk.scheduler.jobs["report"], kind=JobKind.DAEMON), replace=True))
    refused(Conflict)


def test_shard_can_be_put_back_while_others_of_its_run_continue() -> None:
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
    desk.status(only(launch(desk)), "TASK_FINISHED")
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


def test_retry_starts_the_shards_that_a_failed_listener_had_stopped() -> None:
    desk = Desk(make_app(), make_job(shard_count=2, firing_listener="shop:Stage"))
    desk.status(only(fired(desk)), "TASK_FAILED")
    (firing,) = desk.firings()
    assert [shard.state for shard in firing.shards][:2] == [ShardState.CANCELLED] * 2
    desk.do(Retry(desk.at, firing.id))
    desk.status(only(launch(desk)), "TASK_FINISHED")
    assert len(launch(desk)) == 2


# ---------------------------------------------------------------------------------------------------------- fail-over


def test_b26_lost_shard_backs_off_avoids_the_agent_and_gives_up() -> None:
    """In Elastic-Job-Cloud fail-over is immediate, unlimited, without back-off, and may use the same agent."""
    desk = Desk(make_app(), make_job(failover=True, failover_attempts=3, failover_delay_ms=2_000))
    (task_id,) = fired(desk)
    for wait, agent in ((2_000, "a2"), (4_000, "a1"), (8_000, "a2")):
        desk.status(task_id, "TASK_RUNNING")
        desk.status(task_id, "TASK_LOST")
        assert launch(desk, "a1", "a2", ms=wait - 1) == []
        (task_id,) = launch(desk, "a1", "a2", ms=1)
        assert agent_of(task_id) == agent  # not on the agent that lost the previous attempt
    desk.status(task_id, "TASK_LOST")
    assert shard_of(desk).state is ShardState.DEAD


def test_agent_is_avoided_for_a_minute_if_there_is_another() -> None:
    desk = Desk(make_app(), make_job(failover=True))
    (task_id,) = fired(desk)
    desk.status(task_id, "TASK_RUNNING")
    desk.status(task_id, "TASK_LOST")
    (task_id,) = launch(desk, "a1", ms=1_000)  # there is no other agent
    desk.status(task_id, "TASK_RUNNING")
    desk.status(task_id, "TASK_LOST")
    desk.offer(make_offer("small", "a2", cpus=0))
    assert launch(desk, "a1", ms=2_000) == []
    codes = [one.code for one in desk.scheduler.explain("report", desk.at).reasons]
    assert "avoided" in codes
    assert launch(desk, "a1", ms=59_999) == []  # the other agent never has room
    assert [agent_of(one) for one in launch(desk, "a1", ms=1)] == ["a1"]
    desk.scheduler.cluster.validate()


def test_agent_whose_offer_was_rescinded_is_not_avoided() -> None:
    desk = Desk(make_app(), make_job(failover=True))
    desk.offer(make_offer("small", "a2", cpus=0))
    (task_id,) = fired(desk)
    desk.status(task_id, "TASK_DROPPED", reason="REASON_INVALID_OFFERS")
    assert [agent_of(one) for one in launch(desk, "a1", ms=1_000)] == ["a1"]


def test_clock_set_back_does_not_prolong_the_avoidance_of_an_agent() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON))
    (task_id,) = launch(desk)
    desk.status(task_id, "TASK_RUNNING")
    desk.status(task_id, "TASK_LOST")
    desk.do(
        PutJob(desk.at, replace(desk.scheduler.jobs["report"], parameter="new"), replace=True)
    )  # no further back-off
    desk.at -= 3_600_000
    desk.tick()
    desk.offer(make_offer("small", "a2", cpus=0))
    assert [agent_of(one) for one in launch(desk, "a1", ms=60_000)] == ["a1"]


def test_avoiding_agents_leaves_no_class_in_the_matcher() -> None:
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


# --------------------------------------------------------------------------------------------------- overlap, overload


def cron_desk(**fields: Any) -> Desk:
    """A job that fires each minute, first in a minute."""
    return Desk(make_app(), make_job(cron="0 * * * * ?", **fields))


def minute(desk: Desk, count: int = 1) -> list[str]:
    """The launches of the next minutes."""
    return [task_id for _ in range(count) for task_id in launch(desk, ms=60_000)]


def skipped(desk: Desk) -> int:
    return desk.scheduler.job_states["report"].skipped


def test_forbid_never_runs_two_firings_at_once() -> None:
    desk = cron_desk(misfire=True)
    (first,) = minute(desk)
    assert minute(desk, 3) == []
    assert len(desk.firings()) == 4
    desk.status(first, "TASK_FINISHED")
    assert len(launch(desk)) == 1


def test_allow_runs_firings_up_to_its_limit_and_queues_or_skips_the_rest() -> None:
    desk = cron_desk(concurrency=Concurrency.ALLOW, concurrency_limit=2)
    first, second = minute(desk, 4)
    assert {desk.scheduler.tasks[one].item for one in (first, second)} == {0}
    assert (len(desk.firings()), skipped(desk)) == (2, 2)
    desk.restart()
    assert launch(desk) == []
    desk.status(second, "TASK_FINISHED")
    (third,) = minute(desk)
    assert set(desk.running()) == {first, third}
    explained = desk.scheduler.explain("report", desk.at)
    assert (explained.active, explained.waiting, explained.behind) == (2, 0, 0)


def test_allow_with_misfire_queues_the_rest() -> None:
    desk = cron_desk(concurrency=Concurrency.ALLOW, concurrency_limit=2, misfire=True, misfire_limit=1)
    first, _ = minute(desk, 5)
    assert (len(desk.firings()), skipped(desk)) == (3, 2)
    assert desk.scheduler.explain("report", desk.at).behind == 1
    desk.status(first, "TASK_FINISHED")
    assert len(launch(desk)) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_replace_starts_the_new_run_after_the_old_one_has_ended(restarted: bool) -> None:
    desk = cron_desk(concurrency=Concurrency.REPLACE, shard_count=2)
    first, second = minute(desk)
    desk.status(first, "TASK_RUNNING")
    desk.run_until_idle(60_000)
    assert {kill.task_id for kill in of(Kill, desk.all)} == {first, second}
    old, new = desk.firings()
    if restarted:
        desk.restart()
    assert launch(desk) == []
    desk.status(first, "TASK_KILLED")
    assert launch(desk) == []  # the other shard has not ended yet
    desk.status(second, "TASK_FINISHED")  # it finished before its kill arrived
    assert len(launch(desk)) == 2
    old = desk.scheduler.firings[old.id]
    assert [shard.state for shard in old.shards] == [ShardState.KILLED, ShardState.FINISHED]
    assert {desk.scheduler.tasks[task_id].firing_id for task_id in desk.running()} == {new.id}


def test_replace_keeps_one_ending_and_one_waiting_run_for_any_number_of_firings() -> None:
    desk = cron_desk(concurrency=Concurrency.REPLACE)
    (first,) = minute(desk)
    desk.status(first, "TASK_UNREACHABLE")
    assert minute(desk, 10) == []
    assert len([firing for firing in desk.firings() if not firing.ended_ms]) == 2
    cancelled = [firing for firing in desk.firings() if firing.shards[0].state is ShardState.CANCELLED]
    assert len(cancelled) == 9
    assert "replaced by" in cancelled[0].shards[0].message
    desk.do(Trigger(desk.at, "report"))
    desk.status(first, "TASK_KILLED")
    (task_id,) = launch(desk)
    assert desk.scheduler.firings[desk.scheduler.tasks[task_id].firing_id].cause == "trigger"


def test_allow_never_runs_old_and_new_configuration_concurrently() -> None:
    desk = cron_desk(concurrency=Concurrency.ALLOW, concurrency_limit=3)
    first, second = minute(desk, 2)
    desk.do(PutJob(desk.at, replace(desk.scheduler.jobs["report"], parameter="new"), replace=True))
    assert minute(desk) == []
    desk.status(first, "TASK_KILLED")
    assert launch(desk) == []
    desk.status(second, "TASK_KILLED")
    assert len(launch(desk)) == 1


def test_raised_limit_starts_waiting_runs_and_lowered_limit_ends_running_ones() -> None:
    desk = cron_desk(misfire=True)
    job = desk.scheduler.jobs["report"]
    (first,) = minute(desk, 2)
    desk.do(PutJob(desk.at, replace(job, concurrency=Concurrency.ALLOW), replace=True))
    (second,) = launch(desk)
    desk.do(PutJob(desk.at, job, replace=True))
    assert {kill.task_id for kill in of(Kill, desk.last)} == {first, second}


def test_misfire_once_queues_one_firing_for_all_missed_ones() -> None:
    desk = cron_desk(misfire=True, misfire_limit=1)
    (first,) = minute(desk, 6)
    assert (len(desk.firings()), skipped(desk)) == (2, 4)
    assert "misfireLimit" in desk.scheduler.job_states["report"].skipped_reason
    desk.status(first, "TASK_FINISHED")
    desk.status(only(launch(desk)), "TASK_FINISHED")
    assert launch(desk) == []


# ------------------------------------------------------------------------------------------------------------ catch-up


def after_a_gap(ms: int, **fields: Any) -> Desk:
    """There was no leader for a while."""
    desk = cron_desk(**fields)
    desk.at += ms
    desk.restart()
    return desk


@pytest.mark.parametrize(
    ("catch_up", "limit", "made_up", "lost"),
    [(CatchUp.SKIP, 10, [], 10), (CatchUp.ONCE, 10, [10], 9), (CatchUp.ALL, 100, list(range(1, 11)), 0),
     (CatchUp.ALL, 3, [8, 9, 10], 7), (CatchUp.ALL, 1, [10], 9)],
)  # fmt: skip
def test_b35_firings_missed_without_a_leader_are_caught_up_by_policy(
    catch_up: CatchUp, limit: int, made_up: list[int], lost: int
) -> None:
    """In Elastic-Job-Cloud firings missed without a leader are lost silently."""
    desk = after_a_gap(630_000, catch_up=catch_up, catch_up_limit=limit)
    desk.tick()
    assert [(firing.fire_ms - START) // 60_000 for firing in desk.firings()] == made_up
    assert {firing.cause for firing in desk.firings()} <= {"catch_up"}
    assert skipped(desk) == lost
    desk.restart()
    desk.tick()
    assert len(desk.firings()) == len(made_up)  # and not again
    for _ in made_up:
        desk.status(only(launch(desk)), "TASK_FINISHED")
    assert launch(desk) == []
    assert len(minute(desk)) == 1


def accounted(desk: Desk) -> tuple[int, int]:
    """The fire times since the start that have a run or count as skipped, and the number that there were."""
    job = desk.scheduler.jobs["report"]
    runs = [firing for firing in desk.firings() if firing.cause in (Cause.CRON, Cause.CATCH_UP)]
    assert len({firing.fire_ms for firing in runs}) == len(runs)
    assert all(START < firing.fire_ms <= desk.at for firing in runs), "no run is of the future"
    return len(runs) + skipped(desk), job.schedule().count(START, desk.at)


@pytest.mark.parametrize("misfire", [True, False])
@pytest.mark.parametrize("catch_up", CatchUp)
def test_gap_of_nine_seconds_accounts_for_each_fire_time_of_a_job_of_every_two_seconds(
    catch_up: CatchUp, misfire: bool
) -> None:
    desk = Desk(make_app(), make_job(cron="0/2 * * * * ?", catch_up=catch_up, misfire=misfire))
    desk.at += 9_000
    desk.restart()
    desk.tick()
    assert accounted(desk) == (4, 4)


_cron = st.sampled_from(["* * * * * ?", "0/2 * * * * ?", "0/7 * 0-3 * * ?", "0 * * * * ?", "0 30 2 * * ?"])
# Steps: the number of ms that pass, and what happens then.
_gaps = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 12_000), st.integers(0, 400_000), st.integers(0, 200 * 86_400_000)),
        st.sampled_from(["tick", "tick", "restart", "update", "finish"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200)
@given(
    _cron, _gaps, st.sampled_from(CatchUp), st.integers(1, 100), st.sampled_from(Concurrency), st.booleans(),
    st.integers(1, 5),
)  # fmt: skip
def test_each_fire_time_of_any_gap_has_a_run_or_counts_as_skipped(
    cron: str, steps: list[tuple[int, str]], catch_up: CatchUp, limit: int, concurrency: Concurrency, misfire: bool,
    misfire_limit: int,
) -> None:  # fmt: skip
    fields: dict[str, Any] = {
        "cron": cron, "zone": "Europe/Berlin", "catch_up": catch_up, "catch_up_limit": limit, "misfire": misfire,
        "misfire_limit": misfire_limit, "concurrency": concurrency, "concurrency_limit": 2,
    }  # fmt: skip
    desk = Desk(make_app(), make_job(**fields), policy=replace(POLICY, history=10_000))
    for number, (ms, step) in enumerate(steps):
        desk.at += ms
        if step == "restart":
            desk.restart()
        elif step == "update":
            desk.do(PutJob(desk.at, make_job(**fields, description=f"changed {number}"), replace=True))
        elif step == "finish":
            for launched in desk.launched(desk.offer()):
                desk.status(launched.task_id, "TASK_FINISHED")
        desk.tick()
        run, due = accounted(desk)
        assert run == due


def test_caught_up_firings_run_one_after_the_other_unless_the_job_allows_more() -> None:
    desk = after_a_gap(630_000, catch_up=CatchUp.ALL)
    assert len(launch(desk)) == 1
    desk = after_a_gap(630_000, catch_up=CatchUp.ALL, concurrency=Concurrency.ALLOW, concurrency_limit=4)
    assert len(launch(desk)) == 4
    desk = after_a_gap(630_000, catch_up=CatchUp.ALL, concurrency=Concurrency.REPLACE)
    assert len(launch(desk)) == len(desk.firings()) == 1


@given(st.sampled_from(["0 * * * * ?", "* * * * * ?", "0/7 * 3,9 * * ?", "0 0 12 ? * MON", "0 30 2 * * ?"]),
       st.integers(0, 400_000), st.integers(1, 30), st.integers(1, 400_000))  # fmt: skip
@settings(max_examples=60)
def test_latest_firings_equal_the_end_of_a_full_listing(cron: str, start: int, most: int, length: int) -> None:
    schedule = Schedule.parse(cron, zone="Europe/Berlin")
    first = schedule.next_after(START + start * 1_000)
    assert first is not None
    until = first + length * 1_000
    last = latest(schedule, first, until)
    listed = [first, *schedule.between(first, until, 1_000_000)] if length < 20_000 else None
    found = latest_ones(schedule, first, last, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    if listed is not None:
        assert found == listed[-most:]
    for earlier, later in pairwise(found):
        assert schedule.next_after(earlier) == later
    assert found[-1] == last
    assert len(found) == most or found[0] == first


def test_back_off_that_had_ended_before_the_clock_was_set_back_ends_again() -> None:
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=30_000, failover=True))
    desk.do(Trigger(desk.at, "report"))
    (task,) = desk.launched(desk.offer(make_offer("only")))
    desk.status(task.task_id, "TASK_FAILED")
    end = desk.firings()[0].shards[0].not_before_ms
    desk.run_until_idle(end - desk.at + 1_000)  # the back-off ends, and no agent makes an offer
    desk.at = end - 20_000
    assert Suppress() in desk.tick()
    assert Revive() in desk.run_until_idle(21_000), "offers are requested as soon as the shard may start"
