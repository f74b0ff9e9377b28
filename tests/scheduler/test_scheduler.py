"""The scheduler by examples: earlier events, one event, and its effects."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from tests.core_world import ARTIFACTS, POLICY, START, Desk, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import CatchUp, Concurrency, JobKind, Resources, UpdateStrategy
from jobcloud.cron import Fold, Gap, Schedule
from jobcloud.errors import Conflict, NotFound, Refused
from jobcloud.messages import (
    Accept,
    Acknowledge,
    AgentLost,
    Decline,
    Disconnected,
    Event,
    ExecutorLost,
    FrameworkRemoved,
    Kill,
    KillTask,
    Kind,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    Reconcile,
    RemoveApp,
    RemoveJob,
    Resubscribe,
    Retry,
    Revive,
    Save,
    SendFailed,
    SetAppEnabled,
    SetJobEnabled,
    ShutdownExecutor,
    Subscribed,
    Suppress,
    Tick,
    Topic,
    Trigger,
)
from jobcloud.model import Cause, Execution, Firing, Shard, ShardState, TaskState
from jobcloud.scheduler import Policy

SECONDLY = "* * * * * ?"
MINUTELY = "0 * * * * ?"
WIDE = Resources(1000, 128_000)


def desk_with_task(**fields: Any) -> tuple[Desk, str]:
    """A desk on which one shard of `report` runs, and its task id."""
    desk = Desk(make_app(), make_job(**fields))
    if fields.get("kind") is not JobKind.DAEMON:
        desk.do(Trigger(desk.at, "report"))
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(launched.task_id, "TASK_RUNNING")
    return desk, launched.task_id


# ------------------------------------------------------------------------------------------------ the main path


def test_job_runs_from_registration_to_removal() -> None:
    desk = Desk(make_app(), make_job(cron=MINUTELY, shard_count=2, shard_parameters="0=a,1=b", parameter="p"))
    desk.do(OffersReceived(desk.at, (make_offer("o1"),)))
    desk.at = START + 60_000
    desk.do(OffersReceived(desk.at, (make_offer("o2", "a2"),)))
    effects = desk.tick()
    assert [notice.topic for notice in of(Publish, effects)] == [Topic.FIRED, Topic.LAUNCHED, Topic.LAUNCHED]
    launches = desk.launched()
    assert [payload_of(one)["shardingContext"]["shardingParameter"] for one in launches] == ["a", "b"]
    assert payload_of(launches[0])["fireTime"] == START + 60_000
    assert payload_of(launches[0])["runId"] == "report.20260101T000100Z@jobcloud"
    assert payload_of(launches[1])["fence"] > payload_of(launches[0])["fence"] > 0
    for one in launches:
        desk.status(one.task_id, "TASK_RUNNING")
    assert all(task.state is TaskState.RUNNING for task in desk.stored.tasks.values())
    for one in launches:
        desk.status(one.task_id, "TASK_FINISHED", message="done")
    assert [notice.topic for notice in of(Publish, desk.last)] == [Topic.ENDED, Topic.DONE]
    (firing,) = desk.stored.firings.values()
    assert {shard.state for shard in firing.shards} == {ShardState.FINISHED}
    assert firing.ended_ms == desk.at
    assert desk.stored.tasks == {}
    assert [notice.topic for notice in desk.scheduler.story(launches[0].task_id)] == ["launched", "running", "ended"]


def test_agent_gets_one_accept_with_all_its_offers() -> None:
    desk = Desk(make_app(), make_job(shard_count=9))
    desk.do(Trigger(desk.at, "report"))
    offers = [make_offer(f"{agent}-{n}", agent, cpus=3, mem=1024) for agent in ("a1", "a2") for n in range(2)]
    accepts = of(Accept, desk.offer(*offers))
    assert {(accept.agent_id, accept.offer_ids) for accept in accepts} == {
        ("a1", ("a1-0", "a1-1")), ("a2", ("a2-0", "a2-1"))}  # fmt: skip
    assert sum(len(accept.launches) for accept in accepts) == 9


def test_dry_run_predicts_the_next_cycle_and_claims_nothing() -> None:
    desk = Desk(make_app(), make_job(shard_count=3, resources=Resources(3000, 128_000)))
    desk.do(Trigger(desk.at, "report"))
    desk.do(OffersReceived(desk.at, (make_offer("o1", cpus=7),)))
    plan = desk.scheduler.plan(desk.at)
    assert [agent for _, _, agent in plan] == ["a1", "a1", None]
    assert desk.scheduler.cluster.claim_count() == (0, 0)
    desk.tick()
    assert [task.item for task in desk.scheduler.tasks.values()] == [item for _, item, agent in plan if agent]


def test_jobs_of_higher_priority_are_placed_first() -> None:
    desk = Desk(make_app(), make_job("low", priority=-1), make_job("mid"), make_job("high", priority=7))
    for name in ("low", "mid", "high"):
        desk.do(Trigger(desk.at, name))
    launched = desk.launched(desk.offer(make_offer("o1", cpus=3)))
    assert [one.task_id.partition("@")[0] for one in launched] == ["high", "mid"]


def test_unplaceable_shards_do_not_block_others() -> None:
    desk = Desk(make_app(), *(make_job(f"wide{n}", shard_count=50, resources=Resources(9_000, 1000)) for n in range(3)),
                make_job("small"), policy=replace(POLICY, cycle_limit=10))  # fmt: skip
    for name in ("wide0", "wide1", "wide2", "small"):
        desk.do(Trigger(desk.at, name))
    assert [one.task_id.partition("@")[0] for one in desk.launched(desk.offer(make_offer("o1")))] == ["small"]


def test_cycle_that_reaches_its_limit_continues_with_the_next_tick() -> None:
    policy = replace(POLICY, cycle_limit=20)
    desk = Desk(make_app(), make_job(shard_count=30, resources=Resources(100, 1000)), policy=policy)
    desk.do(Trigger(desk.at, "report"))
    desk.do(OffersReceived(desk.at, (make_offer("o1", "a1"), make_offer("o2", "a2", cpus=2))))
    assert len(desk.launched(desk.tick())) == 20
    desk.offer(make_offer("o3", "a3"))
    assert len(desk.running()) == 30


# ------------------------------------------------------------------------------------------------------- firing


def test_firing_is_skipped_while_the_previous_one_runs_without_misfire() -> None:
    desk = Desk(make_app(), make_job(cron=SECONDLY))
    for _ in range(4):
        desk.tick(1000)
    assert len(desk.firings()) == 1
    assert desk.stored.job_states["report"].skipped == 3
    assert of(Publish, desk.last)[-1].topic is Topic.SKIPPED


def test_firings_wait_for_each_other_up_to_a_limit_with_misfire() -> None:
    desk = Desk(make_app(), make_job(cron=SECONDLY, misfire=True), policy=Policy(ARTIFACTS, max_waiting=3))
    for _ in range(6):
        desk.tick(1000)
    assert len(desk.firings()) == 3
    assert "3 runs of the job have not ended" in desk.stored.job_states["report"].skipped_reason
    assert len(desk.launched(desk.offer())) == 1
    with pytest.raises(Conflict, match="have not ended"):
        desk.do(Trigger(desk.at, "report"))


@pytest.mark.parametrize("catch_up", CatchUp)
def test_long_absence_costs_little_and_is_caught_up_by_policy(
    catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(make_app(), make_job(cron=SECONDLY, catch_up=catch_up, misfire=True))
    desk.at += 3 * 365 * 86_400_000 + 500
    asked: list[int] = []
    next_after = Schedule.next_after

    def counted(self: Schedule, at: int) -> int | None:
        asked.append(at)
        return next_after(self, at)

    monkeypatch.setattr(Schedule, "next_after", counted)
    desk.restart()
    desk.tick()
    assert len(asked) < 100
    late = [firing for firing in desk.firings() if firing.cause is Cause.CATCH_UP]
    assert len(late) == {CatchUp.SKIP: 0, CatchUp.ONCE: 1, CatchUp.ALL: 10}[catch_up]
    on_time = [firing.fire_ms for firing in desk.firings() if firing.cause is Cause.CRON]
    assert on_time == [desk.at // 1000 * 1000 - 1000 * n for n in (4, 3, 2, 1, 0)]
    if late:
        assert late[-1].fire_ms == on_time[0] - 1000
    else:
        assert desk.stored.job_states["report"].skipped == 3 * 365 * 86_400 - 5
    known = len(desk.firings())
    desk.restart()
    desk.tick()
    assert len(desk.firings()) == known, "caught up twice"


def test_restart_fires_nothing_twice() -> None:
    desk = Desk(make_app(), make_job(cron=SECONDLY, misfire=True, catch_up=CatchUp.ONCE))
    for _ in range(3):
        desk.tick(1000)
        desk.restart()
        desk.tick()
    assert [firing.fire_ms for firing in desk.firings()] == [START + 1000, START + 2000, START + 3000]


def test_clock_set_back_fires_nothing_twice_and_delays_only_firings() -> None:
    desk = Desk(make_app(), make_job(cron=SECONDLY, misfire=True), make_job("other", failover=True))
    desk.tick(1000)
    desk.do(Trigger(desk.at, "other"))
    for one in desk.launched(desk.offer(make_offer("o1"))):
        desk.status(one.task_id, "TASK_RUNNING")
        desk.status(one.task_id, "TASK_LOST")
    assert len(desk.firings()) == 1
    desk.do(OffersReceived(desk.at, (make_offer("o2", "a2", cpus=1),)))
    fired = [firing.fire_ms for firing in desk.firings()]
    desk.at -= 3_600_000
    desk.run_until_idle(10_000)
    assert [firing.fire_ms for firing in desk.firings()] == fired
    assert desk.scheduler.cluster.held == 0, "the offer was declined in time"
    assert "other" in {one.task_id.partition("@")[0] for one in desk.launched(desk.offer(make_offer("o3")))}
    desk.at = START + 2000
    desk.tick()
    assert [firing.fire_ms for firing in desk.firings()] == [START + 1000, START + 2000]


def test_update_loses_no_firing_due_at_the_same_instant() -> None:
    desk = Desk(make_app(), make_job(cron=MINUTELY))
    desk.at = START + 60_000
    desk.do(PutJob(desk.at, make_job(cron=MINUTELY, description="new"), replace=True))
    assert [firing.fire_ms for firing in desk.firings()] == [START + 60_000]
    assert desk.scheduler.next_firing("report") == START + 120_000


def test_new_cron_does_not_fire_for_earlier_instants() -> None:
    desk = Desk(make_app(), make_job(catch_up=CatchUp.ONCE))
    desk.at += 86_400_000
    desk.do(PutJob(desk.at, make_job(cron=MINUTELY, catch_up=CatchUp.ONCE), replace=True))
    desk.restart()
    desk.tick()
    assert desk.firings() == []


def test_disabled_job_does_not_fire_and_misses_are_not_caught_up() -> None:
    desk = Desk(make_app(), make_job(cron=MINUTELY, catch_up=CatchUp.ONCE))
    desk.do(SetAppEnabled(desk.at, "shop", enabled=False))
    desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    desk.run_until_idle(3_600_000)
    desk.do(SetAppEnabled(desk.at, "shop", enabled=True))
    assert desk.scheduler.next_firing("report") is None
    desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    assert desk.scheduler.next_firing("report") == desk.at + 60_000
    desk.restart()
    desk.run_until_idle(30_000)
    assert desk.firings() == []


@pytest.mark.parametrize("kind", JobKind)
def test_job_registered_disabled_begins_when_it_is_enabled(kind: JobKind) -> None:
    desk = Desk(make_app())
    desk.do(PutJob(desk.at, make_job(kind=kind, cron=MINUTELY), enabled=False))
    desk.restart()
    desk.run_until_idle(3_600_000)
    assert desk.firings() == []
    desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    desk.run_until_idle(60_000)
    assert len(desk.firings()) == 1


# ---------------------------------------------------------------------------------------------- residents, failures


def test_resident_job_starts_at_once_and_restarts_with_growing_back_off() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON))
    starts = []
    for number in range(15):
        (one,) = desk.launched(desk.offer(make_offer(f"o{number}")))
        starts.append(desk.at)
        desk.status(one.task_id, ("TASK_FAILED", "TASK_FINISHED", "TASK_LOST", "TASK_KILLED", "TASK_ERROR")[number % 5])
        assert desk.launched(desk.offer(make_offer(f"p{number}"))) == []
        desk.at += 60_000 if number > 6 else 1000 << number
    assert [b - a for a, b in pairwise(starts)][:7] == [1000 << number for number in range(7)]


def test_executor_of_a_dropped_first_launch_was_never_started() -> None:
    """Mesos drops a launch whose offer it has rescinded. The next one starts the executor and pays for it."""
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON))
    (one,) = desk.launched(desk.offer(make_offer("o1")))
    assert len(desk.scheduler.executors) == 1
    desk.status(one.task_id, "TASK_DROPPED", reason="REASON_INVALID_OFFERS")
    assert not desk.scheduler.executors
    desk.at += 60_000
    (two,) = desk.launched(desk.offer(make_offer("o2")))
    desk.status(two.task_id, "TASK_RUNNING")
    desk.status(two.task_id, "TASK_FAILED", "v")
    desk.at += 60_000
    (three,) = desk.launched(desk.offer(make_offer("o3")))
    desk.status(three.task_id, "TASK_DROPPED", reason="REASON_INVALID_OFFERS")
    assert len(desk.scheduler.executors) == 1, "it lives since the launch before"


def test_failing_resident_does_not_restart_faster_than_its_back_off() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON))
    started = 0
    for number in range(600):
        for one in desk.launched(desk.offer(make_offer(f"o{number}"))):
            started += 1
            desk.status(one.task_id, "TASK_FAILED")
        desk.at += 1000
    assert started == 6 + (600 - 63) // 60 + 1  # at 0, 1, 3, 7, 15, 31 and 63 s, then each minute


def test_shard_starts_at_the_end_of_its_back_off_without_other_events() -> None:
    desk, task_id = desk_with_task(failover=True)
    desk.run_until_idle(60_000)  # idle, so offers are suppressed
    desk.status(task_id, "TASK_LOST")
    effects = desk.run_until_idle(999)
    assert of(Revive, effects) == []
    desk.run_until_idle(1)
    assert of(Revive, desk.last)
    (again,) = desk.launched(desk.offer())
    assert "@-@FAILOVER@-@" in again.task_id
    assert payload_of(again)["attempt"] == 2


def test_shard_of_a_firing_is_woken_by_its_own_back_off() -> None:
    desk = Desk(make_app(), make_job(shard_count=2, failover=True))
    desk.do(Trigger(desk.at, "report"))
    first, second = desk.launched(desk.offer(make_offer("o1")))
    desk.status(first.task_id, "TASK_DROPPED")
    desk.at += 500
    desk.status(second.task_id, "TASK_DROPPED")
    desk.do(OffersReceived(desk.at, (make_offer("o2", "a1"),)))
    assert len(desk.launched(desk.run_until_idle(600))) == 1
    desk.do(OffersReceived(desk.at, (make_offer("o3", "a2"),)))
    desk.run_until_idle(400)
    assert len(desk.running()) == 2


def test_attempt_that_ran_is_repeated_only_with_failover() -> None:
    for failover, running, again in ((False, False, True), (False, True, False), (True, True, True)):
        desk = Desk(make_app(), make_job(failover=failover))
        desk.do(Trigger(desk.at, "report"))
        (one,) = desk.launched(desk.offer(make_offer("o1")))
        if running:
            desk.status(one.task_id, "TASK_RUNNING")
        desk.status(one.task_id, "TASK_LOST")
        assert (desk.firings()[0].shards[0].state is ShardState.WAITING) == again
        expected = Execution.FAILOVER if running and again else Execution.READY
        assert desk.firings()[0].shards[0].execution is expected


def test_unreachable_task_keeps_its_shard_until_it_is_gone_or_back() -> None:
    desk, task_id = desk_with_task(failover=True)
    desk.do(AgentLost(desk.at, "a1"))
    desk.status(task_id, "TASK_UNREACHABLE")
    desk.at += 600_000
    assert desk.launched(desk.offer(make_offer("o2", "a2"))) == []
    desk.status(task_id, "TASK_RUNNING")
    assert desk.scheduler.tasks[task_id].state is TaskState.RUNNING
    desk.status(task_id, "TASK_GONE_BY_OPERATOR")
    desk.at += 1000
    assert len(desk.launched(desk.offer(make_offer("o3", "a2")))) == 1


# ------------------------------------------------------------------------------------------------- Mesos and calls


def test_unsent_launch_is_rolled_back_and_its_offers_are_declined() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    (accept,) = of(Accept, desk.offer(make_offer("o1")))
    desk.do(SendFailed(desk.at, accept, "400", certain=True))
    assert of(Decline, desk.last)[0].offer_ids == ("o1",)
    assert desk.running() == []
    desk.at += 1000
    assert len(desk.launched(desk.offer(make_offer("o2")))) == 1


def test_uncertain_launch_is_reconciled_and_not_repeated() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    (accept,) = of(Accept, desk.offer(make_offer("o1")))
    desk.do(SendFailed(desk.at, accept, "reset", certain=False))
    asked = of(Reconcile, desk.run_until_idle())
    assert asked == [Reconcile(((accept.launches[0].task_id, "a1"),))]
    assert desk.launched(desk.offer(make_offer("o2"))) == []
    desk.status(accept.launches[0].task_id, "TASK_GONE")
    desk.at += 1000
    assert len(desk.launched(desk.offer(make_offer("o3")))) == 1


def test_silent_launch_is_reconciled_repeatedly() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    (one,) = desk.launched(desk.offer(make_offer("o1")))
    effects = desk.run_until_idle(30_000)
    assert [ask.tasks for ask in of(Reconcile, effects)] == [((one.task_id, "a1"),)] * 3
    desk.status(one.task_id, "TASK_STAGING")
    assert of(Reconcile, desk.run_until_idle(30_000)) == []


@pytest.mark.parametrize("call", [Revive(), Suppress()])
def test_offers_are_revived_after_a_failed_revive_or_suppress(call: Revive | Suppress) -> None:
    desk = Desk(make_app(), make_job())
    desk.run_until_idle(10_000)
    assert of(Suppress, desk.all)
    desk.do(Trigger(desk.at, "report"))
    assert of(Revive, desk.run_until_idle())
    desk.do(SendFailed(desk.at, call, "lost", certain=True))
    found = of(Revive, desk.run_until_idle())
    assert len(found) == isinstance(call, Revive)


def test_new_leader_reconciles_every_task_until_it_is_answered() -> None:
    desk, task_id = desk_with_task()
    desk.restart()
    assert of(Reconcile, desk.last) == [Reconcile(((task_id, "a1"),))]
    started, asked = desk.at, []
    for _ in range(4):
        assert of(Reconcile, wait_for(desk, Reconcile)) == [Reconcile(((task_id, "a1"),))]
        asked.append(desk.at - started)
    assert asked == [1000, 3000, 7000, 15_000]
    desk.status(task_id, "TASK_RUNNING", uuid="")
    assert of(Acknowledge, desk.last) == []
    assert of(Reconcile, wait_for(desk, Reconcile)) == [Reconcile()], (
        "then implicitly, about tasks that it does not know"
    )
    assert desk.running() == [task_id]


@pytest.mark.parametrize("kind", JobKind)
def test_unconfirmed_task_blocks_only_its_own_shard(kind: JobKind) -> None:
    desk = Desk(make_app(), make_job(kind=kind, shard_count=2), make_job("other"))
    if kind is JobKind.TRANSIENT:
        desk.do(Trigger(desk.at, "report"))
    (known,) = desk.launched(desk.offer(make_offer("o1", cpus=2, mem=512)))  # there is room for one of the two
    desk.do(Trigger(desk.at, "other"))
    desk.restart()
    started = [one.name for one in desk.launched(desk.offer(make_offer("o2", "a2")))]
    assert sorted([known.name, *started]) == ["other@-@0", "report@-@0", "report@-@1"]
    assert desk.scheduler.indexes()["pending"] == {known.task_id: None}
    assert desk.launched(desk.offer(make_offer("o3", "a3"))) == []


def wait_for(desk: Desk, kind: type) -> list[Any]:
    for _ in range(1_000):
        wake = desk.scheduler.next_wake(desk.at)
        assert wake is not None
        desk.at = max(wake, desk.at)
        effects = desk.tick()
        if of(kind, effects):
            return effects
    raise AssertionError(f"no {kind.__name__}")


def test_kill_is_repeated_until_the_task_ends_also_by_the_next_leader() -> None:
    desk, task_id = desk_with_task()
    desk.do(KillTask(desk.at, task_id))
    assert of(Kill, desk.last) == [Kill(task_id, "a1")]
    assert of(Kill, desk.run_until_idle(25_000)) == [Kill(task_id, "a1")] * 2
    desk.restart()
    assert of(Kill, desk.run_until_idle()) == [Kill(task_id, "a1")]
    desk.status(task_id, "TASK_LOST")
    assert desk.firings()[0].shards[0].state is ShardState.FAILED
    assert of(Kill, desk.run_until_idle(60_000)) == []
    with pytest.raises(NotFound):
        desk.do(KillTask(desk.at, task_id))


def test_killed_task_stays_ended_even_with_failover() -> None:
    desk, task_id = desk_with_task(failover=True)
    desk.do(KillTask(desk.at, task_id))
    desk.status(task_id, "TASK_KILLED")
    assert desk.firings()[0].shards[0].state is ShardState.KILLED
    assert desk.firings()[0].ended_ms == desk.at


def test_disconnected_scheduler_holds_no_offers_and_wants_no_tick() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(OffersReceived(desk.at, (make_offer("o1"),)))
    desk.do(Disconnected(desk.at))
    desk.do(Trigger(desk.at, "report"))
    assert desk.scheduler.cluster.held == 0
    assert desk.run_until_idle(600_000) == of(Publish, desk.last)


@pytest.mark.parametrize("end", ["TASK_KILLED", "TASK_FAILED", "TASK_LOST"])
@pytest.mark.parametrize("restarted", [False, True])
def test_killed_resident_task_ends_under_any_leader_and_restarts(restarted: bool, end: str) -> None:
    desk, task_id = desk_with_task(kind=JobKind.DAEMON)
    desk.do(KillTask(desk.at, task_id))
    assert of(Kill, desk.last) == [Kill(task_id, "a1")]
    if restarted:
        desk.restart()
        assert of(Kill, desk.run_until_idle()) == [Kill(task_id, "a1")]
    desk.status(task_id, end)
    desk.at += 1000 if end == "TASK_LOST" else 0  # the lost shard waits as after any loss
    assert len(desk.launched(desk.offer(make_offer("o2")))) == 1


def test_orphan_task_is_killed_and_the_late_end_of_one_is_ignored() -> None:
    desk = Desk(make_app(), make_job())
    stranger = "ghost@-@0@-@READY@-@a1@-@9-9"
    assert of(Kill, desk.status(stranger, "TASK_RUNNING")) == [Kill(stranger, "a1")]
    assert of(Kill, desk.status(stranger, "TASK_FINISHED")) == []
    assert of(Acknowledge, desk.last)
    # A state of a later Mesos may be that of a live task.
    assert of(Kill, desk.status(stranger, "TASK_PAUSED")) == [Kill(stranger, "a1")]


@pytest.mark.parametrize("end", ["TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"])
def test_late_running_of_an_ended_task_is_acknowledged_without_error_or_kill(end: str) -> None:
    desk, task_id = desk_with_task()
    desk.status(task_id, end)
    effects = desk.status(task_id, "TASK_RUNNING")
    assert len(of(Acknowledge, effects)) == 1
    assert of(Kill, effects) == []
    assert [notice for notice in of(Publish, effects) if notice.topic is Topic.FAULT] == []


def test_late_running_of_a_lost_task_still_kills_it() -> None:
    desk, task_id = desk_with_task()
    desk.status(task_id, "TASK_LOST")
    assert of(Kill, desk.status(task_id, "TASK_RUNNING")) == [Kill(task_id, "a1")]


def test_ended_tasks_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.scheduler.tasks._MAX_ENDED", 2)
    desk = Desk(make_app(), make_job(shard_count=3))
    desk.do(Trigger(desk.at, "report"))
    ids = [launch.task_id for launch in desk.launched(desk.offer(make_offer("o1")))]
    for task_id in ids:
        desk.status(task_id, "TASK_FINISHED")
    killed = [kill.task_id for task_id in ids for kill in of(Kill, desk.status(task_id, "TASK_RUNNING"))]
    assert killed == ids[:1]


def test_duplicate_late_or_reordered_updates_change_nothing() -> None:
    desk, task_id = desk_with_task()
    before = copy.copy(desk.stored.tasks)
    for state in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"):
        desk.status(task_id, state)
    assert desk.stored.tasks == before
    desk.status(task_id, "TASK_FINISHED")
    firings = copy.copy(desk.stored.firings)
    for state in ("TASK_FINISHED", "TASK_FAILED", "TASK_LOST"):
        assert len(of(Acknowledge, desk.status(task_id, state))) == 1
    assert (desk.stored.firings, desk.stored.tasks) == (firings, {})


def test_removed_framework_starts_over_with_wanted_work() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON), make_job("once"))
    desk.do(Trigger(desk.at, "once"))
    assert len(desk.launched(desk.offer(make_offer("o1")))) == 2
    effects = desk.do(FrameworkRemoved(desk.at, "gone"))
    assert of(Resubscribe, effects)
    assert desk.stored.framework_id == ""
    desk.do(Subscribed(desk.at, "framework-2"))
    assert desk.stored.framework_id == "framework-2"
    desk.at += 1000
    assert len(desk.launched(desk.offer(make_offer("o2")))) == 2


def test_executor_is_forgotten_when_it_is_gone_and_empty() -> None:
    desk, task_id = desk_with_task()
    (executor,) = desk.scheduler.executors.values()
    desk.do(ExecutorLost(desk.at, "a1", executor.id))
    assert len(desk.scheduler.executors) == 1, "the update of its task is on the way"
    desk.status(task_id, "TASK_FAILED", reason="REASON_EXECUTOR_TERMINATED")
    assert desk.scheduler.executors == desk.stored.executors == {}
    desk.do(ExecutorLost(desk.at, "a1", executor.id))


def test_leader_at_another_address_joins_running_executors() -> None:
    """Mesos refuses a task whose ExecutorInfo differs from that of the live executor with its id."""
    desk, _ = desk_with_task(concurrency=Concurrency.ALLOW, concurrency_limit=9)
    (executor,) = desk.scheduler.executors.values()
    assert "http://leader-1/" in executor.spec
    for _ in range(2):
        desk.restart()
        desk.do(Trigger(desk.at, "report"))
        (joined,) = desk.launched(desk.offer(make_offer(f"o{desk.epoch}")))
        assert joined.executor == executor
    desk.do(Trigger(desk.at, "report"))
    (elsewhere,) = desk.launched(desk.offer(make_offer("o9", "a2")))
    assert elsewhere.executor.id != executor.id
    assert "http://leader-3/" in elsewhere.executor.spec
    assert "http://leader-1/" not in elsewhere.executor.spec


def test_gone_executor_is_replaced_by_one_from_the_current_leader() -> None:
    """The old leader may be gone. Its executor's record stays while some of its tasks may live."""
    desk, first = desk_with_task(concurrency=Concurrency.ALLOW, concurrency_limit=9)
    (executor,) = desk.scheduler.executors.values()
    desk.restart()
    desk.do(ExecutorLost(desk.at, "a1", executor.id))
    desk.do(Trigger(desk.at, "report"))
    (other,) = desk.launched(desk.offer(make_offer("o2")))
    assert other.executor.id != executor.id
    assert "http://leader-2/" in other.executor.spec
    desk.status(first, "TASK_FAILED", reason="REASON_EXECUTOR_TERMINATED")
    assert list(desk.stored.executors.values()) == [other.executor]
    desk.do(Trigger(desk.at, "report"))
    (joined,) = desk.launched(desk.offer(make_offer("o3", cpus=1, mem=128)))
    assert joined.executor == other.executor, "the executor is not paid for again"


def test_executor_without_record_is_not_joined_if_its_description_is_unknown() -> None:
    desk, _ = desk_with_task(concurrency=Concurrency.ALLOW, concurrency_limit=9)
    (executor,) = desk.scheduler.executors.values()
    desk.stored.executors.clear()
    desk.restart()
    desk.do(Trigger(desk.at, "report"))
    (beside,) = desk.launched(desk.offer(make_offer("o2")))
    assert beside.executor.id != executor.id


def test_shard_that_lost_its_worker_twice_gets_its_own_process() -> None:
    desk, task_id = desk_with_task(failover=True, failover_attempts=0)
    for isolation in ("shared", "process"):
        desk.status(task_id, "TASK_FAILED", data='{"cause":"worker_lost"}')
        desk.at += 10_000
        (again,) = desk.launched(desk.offer(make_offer(f"o{desk.at}")))
        assert payload_of(again)["job"]["isolation"] == isolation
        task_id = again.task_id
        desk.restart()
    desk.status(task_id, "TASK_FAILED", data='{"cause":"worker_lost"}')
    assert desk.firings()[0].shards[0].state is ShardState.DEAD
    desk.do(Retry(desk.at, desk.firings()[0].id))
    (reset,) = desk.launched(desk.offer(make_offer("o-afresh")))
    assert payload_of(reset)["job"]["isolation"] == "shared"


@pytest.mark.parametrize("may_have_run", [False, True])
@pytest.mark.parametrize("failover", [False, True])
def test_transient_shard_is_repeated_after_a_lost_worker_only_with_failover(may_have_run: bool, failover: bool) -> None:
    desk = Desk(make_app(), make_job(failover=failover, retry_count=3))
    desk.do(Trigger(desk.at, "report"))
    (one,) = desk.launched(desk.offer())
    desk.status(one.task_id, "TASK_RUNNING" if may_have_run else "TASK_STAGING")
    desk.status(one.task_id, "TASK_FAILED", data='{"cause":"worker_lost"}')
    again = failover or not may_have_run
    assert desk.firings()[0].shards[0].state is (ShardState.WAITING if again else ShardState.FAILED)


def test_executor_that_ended_unnoticed_is_forgotten_after_its_idle_time() -> None:
    desk, task_id = desk_with_task()
    desk.status(task_id, "TASK_FINISHED")
    desk.restart()
    assert len(desk.scheduler.executors) == 1, "it may live on"
    desk.tick(60_000)
    desk.tick(60_001)
    assert desk.scheduler.executors == desk.stored.executors == {}


def test_executors_of_a_removed_app_are_shut_down() -> None:
    desk, task_id = desk_with_task()
    desk.status(task_id, "TASK_FINISHED")
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    assert [call.agent_id for call in of(ShutdownExecutor, desk.last)] == ["a1"]


# -------------------------------------------------------------------------------------- commands, leaders, repair


def test_leader_that_starts_again_in_its_epoch_makes_no_id_twice() -> None:
    desk = Desk(make_app(), make_job(misfire=True))
    seen: list[str] = []
    fences = []
    for number in range(6):
        desk.do(Trigger(desk.at, "report"))
        (one,) = desk.launched(desk.offer(make_offer(f"o{number}")))
        seen += [one.task_id, desk.scheduler.tasks[one.task_id].firing_id]
        fences.append(payload_of(one)["fence"])
        desk.status(one.task_id, "TASK_FINISHED")
        desk.restart(same_epoch=number % 2 == 0)
    assert len(set(seen)) == 12
    assert fences == sorted(set(fences))


REFUSED: list[tuple[Callable[[int], Event], type[Refused]]] = [
    (lambda at: PutApp(at, make_app()), Conflict),
    (lambda at: PutApp(at, make_app("new"), replace=True), NotFound),
    (lambda at: PutJob(at, make_job()), Conflict),
    (lambda at: PutJob(at, make_job("new"), replace=True), NotFound),
    (lambda at: PutJob(at, make_job("new", app="none")), NotFound),
    (lambda at: RemoveApp(at, "none"), NotFound),
    (lambda at: RemoveApp(at, "shop"), Conflict),
    (lambda at: RemoveJob(at, "none"), NotFound),
    (lambda at: SetAppEnabled(at, "none", enabled=True), NotFound),
    (lambda at: SetJobEnabled(at, "none", enabled=True), NotFound),
    (lambda at: Trigger(at, "none"), NotFound),
    (lambda at: KillTask(at, "none"), NotFound),
]


@pytest.mark.parametrize(("command", "error"), REFUSED)
def test_refused_command_changes_nothing_and_names_field_and_fix(
    command: Callable[[int], Event], error: type[Refused]
) -> None:
    desk, _ = desk_with_task(cron=MINUTELY)
    scheduler = desk.scheduler
    watched = ("apps", "jobs", "job_states", "firings", "tasks", "executors")

    def seen() -> dict[str, object]:
        return {name: copy.copy(getattr(scheduler, name)) for name in watched} | copy.deepcopy(scheduler.indexes())

    before = seen()
    with pytest.raises(error) as found:
        desk.do(command(desk.at))
    assert found.value.field
    assert found.value.fix
    assert seen() == before
    assert desk.tick() == []  # nothing is left to write or send


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("lost", ["firings", "tasks", "executors", "jobs", "apps", "job_states", "all but the task"])
def test_lost_record_stops_no_leader_and_duplicates_no_live_task(kind: JobKind, lost: str) -> None:
    desk, task_id = desk_with_task(kind=kind, failover=True)
    for name in ("firings", "executors", "jobs", "apps") if lost == "all but the task" else (lost,):
        getattr(desk.stored, name).clear()
    if lost == "apps":
        desk.stored.disabled_apps.add("shop")
    desk.restart()
    desk.run_until_idle(5_000)
    assert desk.launched(desk.offer(make_offer("o2"))) == []
    assert desk.running() == [task_id]
    desk.status(task_id, "TASK_FINISHED")
    desk.offer(make_offer("o3"))
    desk.do(PutApp(desk.at, make_app(version=2), replace="shop" in desk.scheduler.apps))
    desk.do(PutJob(desk.at, make_job(kind=kind, description="new"), replace="report" in desk.scheduler.jobs))
    if lost == "apps":
        desk.do(SetAppEnabled(desk.at, "shop", enabled=True))
    if kind is JobKind.TRANSIENT:
        desk.do(Trigger(desk.at, "report"))
    desk.at += 60_000
    desk.offer(make_offer("o4"))
    assert len(desk.running()) == 1
    desk.restart()
    assert len(desk.running()) == 1


def test_new_leader_with_intact_records_writes_nothing_and_knows_task_starts() -> None:
    desk, _ = desk_with_task(shard_count=1)
    desk.at += 5_000
    before = desk.firings()
    assert before[0].shards[0].started_ms == START
    desk.restart()
    assert desk.firings() == before
    assert of(Save, desk.last) == []


def test_job_without_its_app_is_at_fault_alone_until_the_app_returns() -> None:
    desk = Desk(make_app(), make_app("bank", 2), make_job(), make_job("other", app="bank"))
    for name in ("report", "other"):
        desk.do(Trigger(desk.at, name))
    del desk.stored.apps["shop"]
    desk.restart()
    assert [firing for firing, _, _ in desk.scheduler.plan(desk.at)] == [desk.firings("other")[0].id]
    assert len(desk.launched(desk.offer(make_offer("o1")))) == 1
    assert "there is no app shop" in desk.scheduler.explain("report", desk.at).headline
    desk.do(PutApp(desk.at, make_app()))
    assert len(desk.launched(desk.offer(make_offer("o2")))) == 1


@pytest.mark.parametrize("strategy", UpdateStrategy)
def test_lost_app_registered_in_another_version_replaces_running_tasks(strategy: UpdateStrategy) -> None:
    desk, task_id = desk_with_task(kind=JobKind.DAEMON, update_strategy=strategy)
    desk.status(task_id, "TASK_RUNNING")
    desk.stored.apps.clear()
    desk.restart()
    desk.status(task_id, "TASK_RUNNING")
    assert of(Kill, desk.do(PutApp(desk.at, make_app(version=2)))) == [Kill(task_id, "a1")]
    desk.status(task_id, "TASK_KILLED")
    assert len(desk.launched(desk.offer(make_offer("o2")))) == 1


def test_firing_of_a_former_resident_job_is_not_continued_after_its_job_state_is_lost() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, shard_count=2))
    first, second = (one.task_id for one in desk.launched(desk.offer(make_offer("o1"))))
    desk.do(PutJob(desk.at, make_job(shard_count=2), replace=True))
    desk.status(first, "TASK_KILLED")
    del desk.stored.job_states["report"]
    desk.restart()
    desk.scheduler.validate()
    desk.status(second, "TASK_KILLED")
    desk.run_until_idle(60_000)
    assert desk.launched(desk.offer(make_offer("o2"))) == []


@pytest.mark.parametrize("kind", JobKind)
def test_job_moved_to_a_disabled_app_ends_and_waits_for_it(kind: JobKind) -> None:
    desk, task_id = desk_with_task(kind=kind, cron=MINUTELY)
    desk.do(PutApp(desk.at, make_app("bank")))
    desk.do(SetAppEnabled(desk.at, "bank", enabled=False))
    moved = replace(desk.scheduler.jobs["report"], app="bank")
    assert of(Kill, desk.do(PutJob(desk.at, moved, replace=True))) == [Kill(task_id, "a1")]
    desk.status(task_id, "TASK_KILLED")
    desk.run_until_idle(120_000)
    assert desk.launched(desk.offer(make_offer("o2"))) == []
    assert desk.running() == []
    desk.do(SetAppEnabled(desk.at, "bank", enabled=True))
    desk.run_until_idle(60_000)
    desk.offer(make_offer("o3"))
    assert len(desk.running()) == 1


def test_concurrent_runs_end_before_their_job_becomes_resident_in_a_disabled_app() -> None:
    desk, _ = desk_with_task(concurrency=Concurrency.ALLOW, concurrency_limit=2)
    desk.do(Trigger(desk.at, "report"))
    assert len(desk.launched(desk.offer(make_offer("o2")))) == 1
    desk.do(PutApp(desk.at, make_app("bank")))
    desk.do(SetAppEnabled(desk.at, "bank", enabled=False))
    desk.do(PutJob(desk.at, make_job(app="bank", kind=JobKind.DAEMON), replace=True))
    desk.scheduler.validate()
    assert {kill.task_id for kill in of(Kill, desk.last)} == set(desk.running())


def test_concurrent_runs_continue_when_the_record_of_one_is_lost() -> None:
    desk, first = desk_with_task(concurrency=Concurrency.ALLOW, concurrency_limit=2)
    desk.do(Trigger(desk.at, "report"))
    (second,) = desk.launched(desk.offer(make_offer("o2")))
    del desk.stored.firings[desk.scheduler.tasks[first].firing_id]
    desk.restart()
    assert desk.running() == sorted([first, second.task_id])


def test_running_firing_stays_ahead_of_later_ones_across_leaders_and_clocks() -> None:
    desk, task_id = desk_with_task(misfire=True)
    desk.at -= 7_200_000
    desk.do(Trigger(desk.at, "report"))
    desk.restart()
    assert desk.launched(desk.offer(make_offer("o2"))) == []
    desk.status(task_id, "TASK_FINISHED")
    assert len(desk.launched(desk.offer(make_offer("o3")))) == 1


def test_ended_firings_are_kept_up_to_a_limit() -> None:
    desk = Desk(make_app(), make_job(), policy=Policy(ARTIFACTS, history=3))
    for number in range(6):
        desk.do(Trigger(desk.at, "report"))
        (one,) = desk.launched(desk.offer(make_offer(f"o{number}")))
        desk.status(one.task_id, "TASK_FINISHED")
    assert len(desk.firings()) == len(desk.stored.firings) == 3


# ------------------------------------------------------------------------------------------------------ rest, wakes


def test_scheduler_comes_to_rest_in_every_state() -> None:
    """`run_until_idle` fails if the scheduler asks again for a tick that it has just had."""
    desk = Desk(make_app(), make_job(cron=MINUTELY, shard_count=3, failover=True), make_job("d", kind=JobKind.DAEMON))
    events: list[Callable[[], object]] = [
        lambda: desk.do(Trigger(desk.at, "report")),
        lambda: desk.do(OffersReceived(desk.at, (make_offer(f"x{desk.at}", cpus=1),))),
        lambda: desk.do(Disconnected(desk.at)),
        lambda: desk.do(Trigger(desk.at, "report")),
        lambda: desk.do(OffersReceived(desk.at, (make_offer(f"y{desk.at}"),))),
        lambda: desk.do(Subscribed(desk.at, "framework-1")),
        lambda: desk.do(SetJobEnabled(desk.at, "report", enabled=False)),
        lambda: desk.do(OffersReceived(desk.at, (make_offer(f"z{desk.at}"),))),
        lambda: desk.do(SendFailed(desk.at, Revive(), "x", certain=True)),
        lambda: desk.do(AgentLost(desk.at, "a1")),
        lambda: desk.do(FrameworkRemoved(desk.at, "x")),
        lambda: desk.do(Subscribed(desk.at, "framework-2")),
        lambda: desk.do(RemoveApp(desk.at, "shop", jobs=True)),
    ]
    for event in events:
        event()
        desk.run_until_idle(130_000)


def test_idle_scheduler_wants_ticks_only_for_reconciliation() -> None:
    desk = Desk(make_app(), make_job())
    desk.run_until_idle(60_000)
    wake = desk.scheduler.next_wake(desk.at)
    assert wake is not None
    assert wake - START == POLICY_INTERVAL
    desk.do(Disconnected(desk.at))
    assert desk.scheduler.next_wake(desk.at) == desk.scheduler.next_firing("report")


POLICY_INTERVAL = Policy(ARTIFACTS).reconcile_interval_ms


def test_wide_cycle_changes_its_firing_once_and_writes_each_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replace(POLICY, accept_tasks=5_000, accept_bytes=1 << 30)
    desk = Desk(make_app(), make_job(shard_count=5_000, resources=Resources(1, 1000)), policy=policy)
    desk.do(Trigger(desk.at, "report"))
    changed: list[str] = []
    change = desk.scheduler.queue.change

    def counted(firing: Firing, shards: dict[int, Shard]) -> bool:
        changed.append(firing.id)
        return change(firing, shards)

    monkeypatch.setattr(desk.scheduler.queue, "change", counted)
    effects = desk.scheduler.handle(OffersReceived(desk.at, (make_offer("o1", cpus=64, mem=100_000),)))
    effects += desk.scheduler.handle(Tick(desk.at))
    assert len(desk.launched(effects)) == 5_000
    assert len(changed) == 1
    (save,) = of(Save, effects)
    kinds = Counter(write.kind for write in save.writes)
    assert (kinds[Kind.FIRING], kinds[Kind.SHARD]) == (0, 5_000)
    desk.scheduler.handle(RemoveJob(desk.at, "report"))
    assert len(changed) == 1, "no shard waits, so only tasks are killed"


# -------------------------------------------------------------------------------------------------------- reading


def test_explanation_names_the_missing_resources() -> None:
    desk = Desk(make_app(), make_job(resources=Resources(4000, 128_000)), subscribed=False)

    def codes() -> list[str]:
        return [reason.code for reason in desk.scheduler.explain("report", desk.at).reasons]

    assert codes() == ["not_due"]
    desk.do(Trigger(desk.at, "report"))
    assert codes() == ["disconnected"]
    desk.do(Subscribed(desk.at, "framework-1"))
    assert codes() == ["no_offers"]
    desk.offer(make_offer("o1", cpus=3))
    assert codes() == ["short", "never"]
    (short, _) = desk.scheduler.explain("report", desk.at).reasons
    assert (short.resource, short.asked, short.available, short.hosts) == ("cpus", 5000, 3000, 1)
    (one,) = desk.launched(desk.offer(make_offer("o2", "a2")))
    assert codes() == ["running"]
    desk.status(one.task_id, "TASK_DROPPED", message="no room")
    assert "back_off" in codes()
    desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    desk.do(SetAppEnabled(desk.at, "shop", enabled=False))
    assert codes()[:2] == ["app_disabled", "job_disabled"]
    with pytest.raises(NotFound):
        desk.scheduler.explain("none", desk.at)


def test_agent_views_show_offers_and_our_use() -> None:
    desk, _ = desk_with_task()
    desk.offer(make_offer("o2", "a1", cpus=6), make_offer("o3", "a2"))
    first, second = desk.scheduler.agents()
    assert (first.id, first.offered.cpus, first.claimed.cpus, len(first.executors)) == ("a1", 6000, 2000, 1)
    assert (second.id, second.claimed.cpus, second.executors, second.lost) == ("a2", 0, (), False)
    desk.do(AgentLost(desk.at, "a1"))
    assert desk.scheduler.agents()[0].lost


# ------------------------------------------------------------------------------------------------- clocks and zones


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("day", "cron", "fields", "hours"),
    [
        # 2026-03-29: at 01:00 UTC the clocks in Berlin go from 02:00 to 03:00.
        (29 + 31 + 28, "0 30 2 * * ?", {}, [1.0]),
        (29 + 31 + 28, "0 30 2 * * ?", {"gap": Gap.SKIP}, []),
        (29 + 31 + 28, "0 30 * * * ?", {}, [-0.5, 0.5, 1.5, 2.5]),
        # 2026-10-25: at 01:00 UTC they go from 03:00 back to 02:00.
        (297 + 1, "0 30 2 * * ?", {}, [0.5]),
        (297 + 1, "0 30 2 * * ?", {"fold": Fold.BOTH}, [0.5, 1.5]),
        (297 + 1, "0 30 * * * ?", {}, [-0.5, 0.5, 1.5, 2.5]),
    ],
)
def test_time_zone_change_loses_and_doubles_no_firing(
    day: int, cron: str, fields: dict[str, Any], hours: list[float], restarted: bool
) -> None:
    midnight = START + (day - 1) * 86_400_000
    desk = Desk(make_app())
    desk.at = midnight - 3_600_000
    desk.do(PutJob(desk.at, make_job(cron=cron, zone="Europe/Berlin", misfire=True, catch_up=CatchUp.ALL, **fields)))
    while desk.at < midnight + 3 * 3_600_000 - 60_000:
        desk.tick(60_000)
        if restarted and desk.at % 1_800_000 == 0:
            desk.restart()  # also at exactly the instant at which a job is due
    fired = [(firing.fire_ms - midnight) / 3_600_000 for firing in desk.firings()]
    assert [hour for hour in fired if hour > -1] == hours


# ----------------------------------------------------------------------------------- resident jobs whose cron is over

UNTIL_NOON = "0 0 12 1 1 ? 2026"
NOON = 12 * 3_600_000


def resident_after_its_last_fire_time(shards: int = 2) -> tuple[Desk, list[str]]:
    """A desk at one hour after the only fire time of a resident job, and the job's running tasks."""
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, cron=UNTIL_NOON, shard_count=shards))
    tasks = [launch.task_id for launch in desk.launched(desk.offer())]
    for task in tasks:
        desk.status(task, "TASK_RUNNING")
    desk.tick(NOON + 3_600_000)
    return desk, tasks


def shard_states(desk: Desk) -> list[list[ShardState]]:
    return [[shard.state for shard in firing.shards] for firing in desk.firings()]


def test_resident_shards_end_for_good_when_their_cron_has_no_further_fire_time() -> None:
    desk, tasks = resident_after_its_last_fire_time()
    desk.status(tasks[0], "TASK_FINISHED", message="the job's cron has no further fire time")
    assert shard_states(desk) == [[ShardState.FINISHED, ShardState.ACTIVE]]
    desk.restart()
    desk.do(Subscribed(desk.at, "framework-1", "master"))
    desk.status(tasks[1], "TASK_FINISHED")
    assert shard_states(desk) == [[ShardState.FINISHED] * 2]
    assert desk.firings()[0].ended_ms
    assert not desk.launched(desk.offer())
    desk.restart()
    desk.do(Subscribed(desk.at, "framework-1", "master"))
    desk.do(PutApp(desk.at, make_app(description="new"), replace=True))
    for enabled in (False, True):
        desk.do(SetJobEnabled(desk.at, "report", enabled=enabled))
    assert not desk.launched(desk.offer())
    assert desk.scheduler.explain("report", desk.at).headline == "no firing is due, now or later"


def test_resident_shard_that_ends_before_its_last_fire_time_starts_again() -> None:
    desk, tasks = resident_after_its_last_fire_time(shards=1)
    desk.at -= 2 * 3_600_000
    desk.status(tasks[0], "TASK_FINISHED")
    assert shard_states(desk) == [[ShardState.WAITING]]


@pytest.mark.parametrize("state", ["TASK_FAILED", "TASK_LOST", "TASK_KILLED"])
def test_resident_shard_that_is_lost_after_its_last_fire_time_starts_again_to_end_by_itself(state: str) -> None:
    desk, tasks = resident_after_its_last_fire_time(shards=1)
    desk.status(tasks[0], state)
    assert shard_states(desk) == [[ShardState.WAITING]]


def test_new_cron_revives_a_resident_job_whose_cron_was_over() -> None:
    desk, tasks = resident_after_its_last_fire_time()
    for task in tasks:
        desk.status(task, "TASK_FINISHED")
    desk.do(PutJob(desk.at, make_job(kind=JobKind.DAEMON, shard_count=2), replace=True))
    assert len(desk.launched(desk.offer())) == 2


def test_resident_job_whose_cron_was_over_already_never_starts() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, cron="0 0 12 1 1 ? 2025"))
    assert not desk.launched(desk.offer())
    assert not desk.firings()


def test_resident_job_that_ended_while_the_clock_was_ahead_starts_again() -> None:
    desk, tasks = resident_after_its_last_fire_time()
    for task in tasks:
        desk.status(task, "TASK_FINISHED")
    desk.tick(-2 * 3_600_000)
    desk.offer()
    assert shard_states(desk)[-1] == [ShardState.ACTIVE] * 2
