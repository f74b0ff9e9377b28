"""Scheduling defects of Elastic-Job-Cloud 2.1.5 and 3.0.x, one test each, numbered as in our list of them.

Elsewhere: B-12 in test_loop_leadership, B-13 to B-15 in test_loop, B-26 and B-35 in test_scheduler_policies. B-33 (a
partial PUT of an app deletes the omitted fields) concerns the API: the scheduler receives whole apps only.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace

import pytest
from tests.core_world import NEVER, POLICY, START, Desk, make_app, make_job, make_offer, make_status, of

from jobcloud.config import JobKind, PartitionPolicy, Resources
from jobcloud.cron import Schedule
from jobcloud.errors import ConfigError, Conflict, NotFound
from jobcloud.messages import (
    Accept,
    Acknowledge,
    AgentLost,
    Decline,
    Disconnected,
    ForgetTask,
    FrameworkRemoved,
    Kill,
    KillTask,
    Kind,
    OfferRescinded,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    Resubscribe,
    Revive,
    Save,
    SetAppEnabled,
    SetJobEnabled,
    StatusReceived,
    Subscribed,
    Suppress,
    Topic,
    Trigger,
)
from jobcloud.model import Cause, Execution, Offer, ShardState, Share, changed


def trigger(desk: Desk, job: str = "report") -> None:
    desk.do(Trigger(desk.at, job))


def test_b01_bad_sharding_text_stops_no_other_job() -> None:
    bad = make_job("bad")
    object.__setattr__(bad, "shard_parameters", "no pair")  # bypasses validation
    desk = Desk(make_app(), bad, make_job("good"))
    trigger(desk, "bad")
    trigger(desk, "good")
    launched = desk.launched(desk.offer())
    assert [one.task_id.partition("@")[0] for one in launched] == ["good"]
    assert desk.scheduler.cluster.claim_count() == (1, 1)
    assert "no pair" in desk.scheduler.faults["bad"]
    assert desk.scheduler.explain("bad", desk.at).reasons[0].code == "fault"
    desk.do(PutJob(desk.at, make_job("bad"), replace=True))
    trigger(desk, "bad")
    assert [one.task_id.partition("@")[0] for one in desk.launched(desk.offer())] == ["bad"]


def test_b02_bad_cron_is_refused_and_one_without_a_future_is_harmless() -> None:
    with pytest.raises(ConfigError, match="cron"):
        make_job(cron="0 0 25 * * ?")
    desk = Desk(make_app(), make_job("past", cron="0 0 0 1 1 ? 2001"), make_job("good", cron="* * * * * ?"))
    assert desk.scheduler.next_firing("past") is None
    desk.tick(1000)
    desk.restart()
    desk.tick(1000)
    assert [firing.job for firing in desk.scheduler.firings.values()] == ["good"]
    assert "no firing is due, now or later" in desk.scheduler.explain("past", desk.at).headline


def test_b02_cron_that_fails_late_stops_no_other_job_and_no_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(make_app(), make_job("bad", cron="0/2 * * * * ?"), make_job("good", cron="* * * * * ?", misfire=True))
    next_after = Schedule.next_after

    def failing(self: Schedule, at: int) -> int | None:
        if self.text.startswith("0/2"):
            raise RuntimeError("no calendar")
        return next_after(self, at)

    monkeypatch.setattr(Schedule, "next_after", failing)
    desk.tick(2000)
    assert "no calendar" in desk.scheduler.faults["bad"]
    desk.restart()
    desk.tick(2000)
    assert [firing.fire_ms - START for firing in desk.firings("good")] == [1000, 2000, 3000, 4000]
    monkeypatch.undo()
    desk.do(PutJob(desk.at, make_job("bad", cron="0/2 * * * * ?", description="new"), replace=True))
    desk.tick(2000)
    assert len(desk.firings("bad")) >= 1


@pytest.mark.parametrize("state", ["TASK_STARTING", "TASK_KILLING", "TASK_UNREACHABLE", "TASK_OF_A_LATER_MESOS", ""])
def test_b03_no_task_state_stops_the_scheduler(state: str) -> None:
    desk = Desk(make_app(), make_job())
    trigger(desk)
    (launched,) = desk.launched(desk.offer())
    assert of(Acknowledge, desk.status(launched.task_id, state))
    desk.status(launched.task_id, "TASK_FINISHED")
    assert desk.firings()[0].shards[0].state is ShardState.FINISHED


@pytest.mark.parametrize("task_id", ["", "x", "a@-@b@-@c@-@d@-@e@-@f", "a@-@x@-@READY@-@s@-@u", "ü\n" * 500])
def test_b04_any_task_id_is_answered(task_id: str) -> None:
    desk = Desk(make_app(), make_job())
    effects = desk.do(StatusReceived(desk.at, changed(make_status("a@-@0@-@READY@-@s@-@1", "TASK_RUNNING", "u"),
                                                      task_id=task_id)))  # fmt: skip
    assert of(Acknowledge, effects)[0].task_id == task_id
    assert of(Kill, effects)[0].task_id == task_id


@pytest.mark.parametrize("known", ["stored", "running", "unreachable"])
def test_b05_new_leader_duplicates_no_task_that_may_run(known: str) -> None:
    desk = Desk(make_app(), make_job(failover=True, cron="0/10 * * * * ?", misfire=True))
    due = desk.scheduler.next_firing("report")
    assert due is not None
    desk.at = due
    (one,) = desk.launched(desk.offer())
    if known != "stored":
        desk.status(one.task_id, f"TASK_{known.upper()}")
    for _ in range(3):
        desk.restart()
        assert desk.launched(desk.offer()) == []
        assert desk.running() == [one.task_id]
        assert len(desk.firings()) == 1, "nor is it due again"
    desk.status(one.task_id, "TASK_FINISHED")
    assert desk.launched(desk.run_until_idle()) == []
    assert desk.firings()[0].shards[0].state is ShardState.FINISHED


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("way_out", ["policy", "operator", "gone", "unknown", "back"])
def test_b06_unreachable_agent_blocks_no_job_for_ever(kind: JobKind, way_out: str) -> None:
    policy = PartitionPolicy.REPLACE if way_out == "policy" else PartitionPolicy.WAIT
    desk = Desk(make_app(), make_job(kind=kind, failover=True, partition=policy, replace_after_ms=60_000))
    if kind is JobKind.TRANSIENT:
        trigger(desk)
    (one,) = desk.launched(desk.offer())
    for _ in range(5):  # each answer to a reconciliation repeats the update
        desk.status(one.task_id, "TASK_UNREACHABLE")
    assert desk.scheduler.explain("report", desk.at).reasons[0].code == "unreachable"
    if way_out == "policy":
        desk.run_until_idle(61_000)
    elif way_out == "operator":
        desk.do(ForgetTask(desk.at, one.task_id))
    elif way_out == "back":
        desk.status(one.task_id, "TASK_RUNNING")
        assert desk.running() == [one.task_id]
        return
    else:
        desk.status(one.task_id, "TASK_GONE_BY_OPERATOR" if way_out == "gone" else "TASK_UNKNOWN")
    assert desk.running() == []
    assert desk.firings()[0].shards[0].failures == 1, "a loss counts once, however often it is reported"
    desk.at += 5_000
    assert len(desk.launched(desk.offer(make_offer("o2", "a2")))) == 1


@pytest.mark.parametrize("how", ["operator", "TASK_KILLED", "TASK_LOST", "TASK_FAILED", "TASK_FINISHED"])
def test_b07_ended_resident_shard_restarts_while_the_others_run(how: str) -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, shard_count=3))
    launched = desk.launched(desk.offer())
    for one in launched:
        desk.status(one.task_id, "TASK_RUNNING")
    if how == "operator":
        desk.do(KillTask(desk.at, launched[1].task_id))
    desk.status(launched[1].task_id, "TASK_KILLED" if how == "operator" else how)
    desk.at += 2_000
    (again,) = desk.launched(desk.offer())
    assert again.name == "report@-@1"
    assert set(desk.running()) == {launched[0].task_id, again.task_id, launched[2].task_id}


@pytest.mark.parametrize("change", ["update", "disable", "remove"])
def test_b08_new_run_waits_for_the_end_of_the_old_one(change: str) -> None:
    desk = Desk(make_app(), make_job())
    trigger(desk)
    (old,) = desk.launched(desk.offer())
    desk.status(old.task_id, "TASK_RUNNING")
    if change == "update":
        desk.do(PutJob(desk.at, make_job(parameter="new"), replace=True))
    elif change == "disable":
        desk.do(SetJobEnabled(desk.at, "report", enabled=False))
        desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    else:
        desk.do(RemoveJob(desk.at, "report"))
        desk.do(PutJob(desk.at, make_job(parameter="new")))
    assert of(Kill, desk.all)[0].task_id == old.task_id
    trigger(desk)
    assert desk.launched(desk.offer()) == []
    desk.status(old.task_id, "TASK_KILLED")
    assert len(desk.launched(desk.offer())) == 1


def test_b09_disabled_job_leaves_no_backlog() -> None:
    desk = Desk(make_app(), make_job(cron="* * * * * ?", misfire=True))
    for _ in range(5):
        desk.tick(1000)
    assert len(desk.firings()) == 5
    desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    desk.tick(3_600_000)
    desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    assert desk.launched(desk.offer()) == []
    assert {shard.state for firing in desk.firings() for shard in firing.shards} == {ShardState.CANCELLED}


def test_b09_failover_entries_of_a_disabled_job_are_dropped() -> None:
    desk = Desk(make_app(), make_job(failover=True))
    trigger(desk)
    (one,) = desk.launched(desk.offer())
    desk.status(one.task_id, "TASK_RUNNING")
    desk.status(one.task_id, "TASK_LOST")
    assert desk.firings()[0].shards[0].execution is Execution.FAILOVER
    desk.do(SetAppEnabled(desk.at, "shop", enabled=False))
    desk.do(SetAppEnabled(desk.at, "shop", enabled=True))
    desk.at += 60_000
    assert desk.launched(desk.offer()) == []


def test_b10_trigger_is_refused_if_the_job_could_not_run() -> None:
    desk = Desk(make_app(), make_job(), make_job("daemon", kind=JobKind.DAEMON))
    with pytest.raises(NotFound):
        trigger(desk, "unknown")
    with pytest.raises(Conflict, match="resident"):
        trigger(desk, "daemon")
    for off, on in (
        (SetJobEnabled(desk.at, "report", False), SetJobEnabled(desk.at, "report", True)),
        (SetAppEnabled(desk.at, "shop", False), SetAppEnabled(desk.at, "shop", True)),
    ):
        desk.do(off)
        with pytest.raises(Conflict, match="disabled"):
            trigger(desk)
        desk.do(on)
    assert desk.firings() == []


def test_b11_removed_or_changed_cron_never_fires_again() -> None:
    desk = Desk(make_app(), make_job("a", cron="0 * * * * ?"), make_job("b", cron="0 * * * * ?"))
    desk.do(RemoveJob(desk.at, "a"))
    desk.do(PutJob(desk.at, make_job("b", cron=NEVER), replace=True))
    desk.run_until_idle(7_200_000)
    assert desk.scheduler.firings == {}


def test_b11_timers_do_not_pile_up() -> None:
    desk = Desk(make_app(), make_job())
    for number in range(300):
        desk.do(PutJob(desk.at, make_job(cron=NEVER, description=str(number)), replace=True))
    desk.tick(120_000)
    assert len(desk.scheduler.indexes()["timers"]) == 1


def test_b16_firing_counts_once() -> None:
    desk = Desk(make_app(), make_job(cron="* * * * * ?", misfire=True))
    ran = []
    for _ in range(30):
        desk.tick(1000)
        for launched in desk.launched(desk.offer()):
            ran.append(desk.scheduler.firings[desk.scheduler.tasks[launched.task_id].firing_id].fire_ms)
            desk.status(launched.task_id, "TASK_FINISHED")
    assert ran == sorted(set(ran))
    assert len(ran) >= 29


def test_b17_rescinded_offer_is_not_used() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(OffersReceived(desk.at, (make_offer("o1"),)))
    desk.do(OfferRescinded(desk.at, "o1"))
    trigger(desk)
    assert of(Accept, desk.run_until_idle()) == []


def test_b17_offers_of_an_earlier_session_are_not_used() -> None:
    desk = Desk(make_app(), make_job())
    trigger(desk)
    desk.do(OffersReceived(desk.at, (make_offer("o1"),)))
    desk.do(Disconnected(desk.at))
    desk.do(OffersReceived(desk.at, (make_offer("o2"),)))  # late, from the previous session
    desk.do(Subscribed(desk.at, "framework-1"))
    assert of(Accept, desk.run_until_idle()) == []
    assert len(desk.launched(desk.offer(make_offer("o3")))) == 1


def test_b17_offer_delivered_twice_counts_once() -> None:
    desk = Desk(make_app(), make_job(shard_count=2, resources=Resources(2000, 128_000)))
    trigger(desk)
    offer = make_offer("o1", cpus=3)
    desk.do(OffersReceived(desk.at, (offer, offer)))
    assert len(desk.launched(desk.run_until_idle())) == 1


def test_b18_launches_need_only_offers() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Subscribed(desk.at, "framework-1", master=""))
    trigger(desk)
    assert len(desk.launched(desk.offer())) == 1


def test_b19_app_pays_for_its_executor_once_per_agent() -> None:
    """The acceptance test of Elastic-Job-Cloud, played on this scheduler: two apps in turn, two agents."""
    for cpus, mem_units in ((13, 13), (11, 11), (13, 11), (11, 13)):
        apps = [make_app(name, number) for number, name in enumerate(("shop", "bank"), 1)]
        jobs = [make_job(f"job{number}", app=apps[number % 2].name) for number in range(20)]
        desk = Desk(*apps, *jobs)
        for job in jobs:
            trigger(desk, job.name)
        effects = desk.offer(*(make_offer(f"o-{a}", a, cpus=cpus, mem=128 * mem_units) for a in ("a1", "a2")))
        accepts = of(Accept, effects)
        assert len(desk.launched(effects)) == 20  # each agent gets the tasks of one app, and so one executor
        assert len(accepts) == 2
        for accept in accepts:
            executors = {one.executor.id: one.executor for one in accept.launches}
            shares = [share for one in accept.launches for share in one.shares]
            shares += [share for executor in executors.values() for share in executor.shares]
            assert sum(share.amount for share in shares if share.name == "cpus") <= cpus * 1000
            assert sum(share.amount for share in shares if share.name == "mem") <= mem_units * 128_000


def test_b19_living_executor_is_not_paid_for_again() -> None:
    desk = Desk(make_app(), make_job("first"), make_job("second", resources=Resources(2000, 128_000)))
    trigger(desk, "first")
    desk.launched(desk.offer(make_offer("o1", cpus=4)))
    trigger(desk, "second")
    assert len(desk.launched(desk.offer(make_offer("o2", cpus=2)))) == 1


def test_b20_offers_with_repeated_resources_are_used_and_never_exceeded() -> None:
    reserved = '{"reservations":[{"role":"jobs","type":"STATIC"}]}'
    parts = (Share("cpus", 1500, reserved, reserved=True), Share("cpus", 1000), Share("mem", 300_000))
    offers = (
        Offer("o1", "a1", "host", "h:1", parts),
        Offer("o2", "a1", "host", "h:1", (Share("cpus", 1500), Share("mem", 300_000, reserved, reserved=True))),
    )
    desk = Desk(make_app(), make_job(shard_count=4))
    trigger(desk)
    (accept,) = of(Accept, desk.offer(*offers))
    assert accept.offer_ids == ("o1", "o2")
    assert len(accept.launches) == 3  # 4 cpus, one of them for the executor
    used: dict[tuple[str, bool], int] = {}
    for share in [*accept.launches[0].executor.shares, *(s for one in accept.launches for s in one.shares)]:
        used[share.name, share.reserved] = used.get((share.name, share.reserved), 0) + share.amount
        assert share.origin == (reserved if share.reserved else "{}")
    assert used["cpus", True] == 1500
    assert used["cpus", False] == 2500
    assert used["mem", True] + used["mem", False] == 4 * 128_000
    assert used["mem", True] == 300_000


def test_b21_task_requests_exactly_its_jobs_resources() -> None:
    desk = Desk(make_app(), make_job())
    trigger(desk)
    (launched,) = desk.launched(desk.offer(make_offer("o1", cpus=2, mem=256)))
    assert {share.name for share in (*launched.shares, *launched.executor.shares)} == {"cpus", "mem"}


def test_b22_wide_job_uses_the_available_room_and_the_rest_waits() -> None:
    desk = Desk(make_app(), make_job("wide", shard_count=10), make_job("small"))
    trigger(desk, "wide")
    first = desk.launched(desk.offer(make_offer("o1", "a1", cpus=5)))
    assert [one.name for one in first] == [f"wide@-@{item}" for item in range(4)]
    trigger(desk, "small")
    for one in first:
        desk.status(one.task_id, "TASK_FINISHED")
    assert len(desk.launched(desk.offer(make_offer("o2", "a2", cpus=4)))) == 3
    rest = desk.launched(desk.offer(make_offer("o3", "a3", cpus=5)))
    assert [one.name for one in rest] == ["wide@-@7", "wide@-@8", "wide@-@9", "small@-@0"]
    assert desk.scheduler.explain("wide", desk.at).waiting == 0


def test_b23_start_order_follows_loss_priority_and_age_and_not_names() -> None:
    names = ["zz-lost", "m-urgent", "b-older", "a-newer"]
    jobs = [make_job(name, priority=5 if "urgent" in name else 0, failover=True) for name in names]
    desk = Desk(make_app(), *reversed(jobs))
    trigger(desk, "zz-lost")
    (lost,) = desk.launched(desk.offer(make_offer("o1", cpus=2)))
    desk.status(lost.task_id, "TASK_RUNNING")
    desk.status(lost.task_id, "TASK_LOST")
    for name in ("b-older", "a-newer", "m-urgent"):
        trigger(desk, name)
    desk.at += 2_000
    order = []
    for number in range(4):
        launched = desk.launched(desk.offer(make_offer(f"n{number}", f"n{number}", cpus=2)))
        order += [one.name.partition("@")[0] for one in launched]
    assert order == names


def test_b24_firing_skipped_by_a_full_queue_is_counted_and_reported() -> None:
    desk = Desk(make_app(), make_job(cron="* * * * * ?", misfire=True), policy=replace(POLICY, max_waiting=3))
    for _ in range(10):
        desk.tick(1_000)
    assert len(desk.firings()) == 3
    state = desk.stored.job_states["report"]
    assert (state.skipped, "3" in state.skipped_reason) == (7, True)
    assert sum(notice.topic is Topic.SKIPPED for notice in of(Publish, desk.all)) == 7
    with pytest.raises(Conflict, match="have not ended"):
        trigger(desk)


def test_b25_due_shard_is_launched_at_its_instant() -> None:
    desk = Desk(make_app(), make_job(cron="0 * * * * ?"))
    due = desk.scheduler.next_firing("report")
    assert due is not None
    desk.at = due - 1000
    desk.offer(make_offer("o1"))
    assert desk.scheduler.next_wake(desk.at) == due
    desk.at = due
    assert len(desk.launched(desk.tick())) == 1


def test_b25_expiring_offer_is_used_before_it_is_declined() -> None:
    desk = Desk(make_app(), make_job(cron="0/10 * * * * ?"))
    due = desk.scheduler.next_firing("report")
    assert due is not None
    desk.at = due - desk.policy.offer_hold_ms - 1
    desk.do(OffersReceived(desk.at, (make_offer("o1"),)))
    desk.at = due
    assert len(desk.launched(desk.tick())) == 1


def test_b25_consecutive_runs_need_no_extra_cycle() -> None:
    desk = Desk(make_app(), *(make_job(f"j{number}", cron="* * * * * ?") for number in range(20)))
    desk.do(OffersReceived(desk.at, (make_offer("o1", cpus=40),)))
    assert len(desk.launched(desk.tick(1000))) == 20


def test_b27_offers_without_work_are_declined_and_revived_with_new_work() -> None:
    desk = Desk(make_app(), make_job())
    desk.tick()
    desk.offer(make_offer("o1"))
    assert of(Decline, desk.tick(5_000)) == []
    effects = desk.tick(1)
    assert of(Decline, effects)[0].offer_ids == ("o1",)
    assert desk.scheduler.cluster.held == 0
    assert of(Suppress, desk.all)
    trigger(desk)
    assert desk.scheduler.next_wake(desk.at) == desk.at
    assert of(Revive, desk.tick())
    assert of(Revive, desk.run_until_idle()) == []


def test_b27_offers_over_the_limit_are_declined() -> None:
    desk = Desk(make_app(), make_job(), policy=replace(POLICY, max_offers=3))
    desk.offer(*(make_offer(f"o{number}", f"a{number}") for number in range(5)))
    assert of(Decline, desk.all)[0].offer_ids == ("o0", "o1")


def test_b30_updated_app_gets_a_new_executor() -> None:
    desk = Desk(make_app(), make_job("one"), make_job("two"))
    trigger(desk, "one")
    (before,) = desk.launched(desk.offer(make_offer("o1")))
    desk.do(PutApp(desk.at, make_app(version=2), replace=True))
    trigger(desk, "two")
    (after,) = desk.launched(desk.offer(make_offer("o2")))
    assert before.executor.id != after.executor.id
    assert [share.amount for share in after.executor.shares] == [1000, 128_000]
    assert json.loads(before.executor.spec) != json.loads(after.executor.spec)


def test_b29_idle_executor_releases_its_resources() -> None:
    desk = Desk(make_app(resources=Resources(2000, 128_000), idle_timeout_ms=30_000), make_job())
    trigger(desk)
    (one,) = desk.launched(desk.offer(make_offer("o1", cpus=3)))
    assert json.loads(base64.b64decode(json.loads(one.executor.spec)["data"]))["idleTimeoutSeconds"] == 30
    desk.status(one.task_id, "TASK_FINISHED")
    assert desk.scheduler.cluster.claim_count() == (0, 1)
    desk.tick(60_000)
    desk.tick(60_001)  # it ends by itself, which Mesos does not report reliably
    assert desk.scheduler.cluster.claim_count() == (0, 0)
    assert desk.stored.executors == {}


@pytest.mark.parametrize("restarted", [False, True])
def test_b30_resident_shards_move_to_the_new_version(restarted: bool) -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON))
    (before,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(before.task_id, "TASK_RUNNING")
    if restarted:
        desk.restart()
    desk.do(PutApp(desk.at, make_app(version=2), replace=True))
    assert of(Kill, desk.last)[0].task_id == before.task_id
    desk.status(before.task_id, "TASK_KILLED")
    (after,) = desk.launched(desk.offer(make_offer("o2")))
    assert after.executor.id != before.executor.id


@pytest.mark.parametrize("restarted", [False, True])
def test_b31_removed_framework_id_is_dropped_and_wanted_work_restarts(restarted: bool) -> None:
    desk = Desk(make_app(), make_job("pulse", kind=JobKind.DAEMON, shard_count=2), make_job("again", failover=True),
                make_job("once"))  # fmt: skip
    trigger(desk, "again")
    trigger(desk, "once")
    before = desk.launched(desk.offer(make_offer("o1", cpus=16)))
    for one in before:
        desk.status(one.task_id, "TASK_RUNNING")
    assert of(Resubscribe, desk.do(FrameworkRemoved(desk.at, "Framework has been removed")))
    assert (desk.stored.framework_id, desk.stored.tasks, desk.stored.executors) == ("", {}, {})
    if restarted:
        desk.epoch += 1
        desk.scheduler = desk._new()
    desk.do(Subscribed(desk.at, "framework-2"))
    assert desk.stored.framework_id == "framework-2"
    desk.at += 2_000
    after = desk.launched(desk.offer(make_offer("o2", cpus=16)))
    assert sorted(one.name for one in after) == ["again@-@0", "pulse@-@0", "pulse@-@1"]
    for one in before:  # late updates of the old framework change nothing
        desk.status(one.task_id, "TASK_KILLED")
    assert len(desk.running("pulse")) == 2


def sizes(desk: Desk) -> dict[str, int]:
    """The size of each container of the scheduler, nested ones included."""
    found = {}
    parts = [part for part in vars(desk.scheduler).values()
             if type(part).__module__.startswith("jobcloud.") and hasattr(part, "__dict__")]  # fmt: skip
    assert len(parts) > 8
    for owner in parts:
        for name, value in vars(owner).items():
            if isinstance(value, dict | list | set) or hasattr(value, "maxlen"):
                found[f"{type(owner).__name__}.{name}"] = len(value)
    found["claims"] = desk.scheduler.cluster.matcher.claims()
    found["snapshot"] = len(desk.scheduler.cluster.matcher.snapshot())
    return found


def test_b32_memory_does_not_grow_over_many_launches() -> None:
    """Cycles without placements, failed launches and ended runs leave every container at its size."""
    jobs = [make_job(f"j{number}", shard_count=10, failover=True) for number in range(4)]
    bad = make_job("bad")
    object.__setattr__(bad, "shard_parameters", "no pair")
    huge = make_job("huge", resources=Resources(4_000_000, 128_000))
    desk = Desk(make_app(), *jobs, bad, huge, policy=replace(POLICY, history=30))
    for name in ("bad", "huge"):
        trigger(desk, name)
    seen = []
    for number in range(60):
        for job in jobs:
            trigger(desk, job.name)
        for again in range(2):
            ends = ("TASK_LOST", "TASK_ERROR", "TASK_DROPPED") if not again else ("TASK_FINISHED", "TASK_FAILED")
            launched = desk.launched(desk.offer(make_offer(f"o{number}-{again}", f"a{number % 3}", cpus=50)))
            for which, one in enumerate(launched):
                desk.status(one.task_id, ends[which % len(ends)])
            desk.at += 62_000  # longer than an agent is avoided
        seen.append(sizes(desk))
    # These two are memories of a fixed length, which this test does not fill.
    remembered = {"State.notices": 0, "Tasks._ended": 0}
    assert seen[-1] | remembered == seen[-13] | remembered
    assert len(desk.stored.firings) <= 6 * 31
    assert seen[-1]["State.notices"] <= 20_000
    assert sys.getsizeof(desk.scheduler.queue._backoffs) < 10_000


def test_b34_command_has_one_effect() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON))
    (one,) = desk.launched(desk.offer())
    first = desk.do(SetJobEnabled(desk.at, "report", enabled=False))
    assert len(of(Kill, first)) == 1
    assert desk.do(SetJobEnabled(desk.at, "report", enabled=False)) == []
    assert desk.do(PutApp(desk.at, make_app(), replace=True)) == []
    assert desk.do(PutJob(desk.at, make_job(kind=JobKind.DAEMON), replace=True)) == []
    desk.status(one.task_id, "TASK_KILLED")
    assert len(of(Kill, desk.all)) == 1


def test_b36_placement_counts_the_executor_and_a_refused_one_counts_it_again() -> None:
    desk = Desk(make_app(), make_job(resources=Resources(2000, 128_000)))
    trigger(desk)
    assert desk.launched(desk.offer(make_offer("o1", cpus=2))) == []
    assert "cpus: asked 3, best available 2" in desk.scheduler.explain("report", desk.at).headline
    (one,) = desk.launched(desk.offer(make_offer("o2", cpus=3)))
    desk.status(one.task_id, "TASK_ERROR")  # its executor may be gone, so its record is dropped
    desk.at += 10_000
    assert desk.launched(desk.offer(make_offer("o3", cpus=2))) == []
    assert desk.scheduler.executors == {}


@pytest.mark.parametrize("kind", JobKind)
@pytest.mark.parametrize("launch", [False, True])
def test_b37_removed_job_stays_removed_after_late_updates(kind: JobKind, launch: bool) -> None:
    desk = Desk(make_app(), *(make_job(f"j{n}", kind=kind, failover=True, shard_count=2) for n in range(5)))
    if kind is JobKind.TRANSIENT:
        for number in range(5):
            trigger(desk, f"j{number}")
    launched = desk.launched(desk.offer(make_offer("o1", cpus=40))) if launch else []
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    assert len(of(Kill, desk.last)) == len(launched) == 10 * launch
    for one in launched:
        desk.status(one.task_id, "TASK_LOST")
    desk.do(AgentLost(desk.at, "a1"))
    desk.at += 120_000
    assert desk.launched(desk.offer(make_offer("o2", cpus=40))) == []
    assert (desk.scheduler.firings, desk.scheduler.tasks, desk.scheduler.executors) == ({}, {}, {})
    assert (desk.stored.firings, desk.stored.tasks, desk.stored.executors) == ({}, {}, {})


def test_save_comes_with_the_effects_that_it_covers() -> None:
    """Every launch is stored before it is sent: the preceding Save contains its intent."""
    desk = Desk(make_app(), make_job(shard_count=3))
    trigger(desk)
    effects = desk.offer()
    saved = {write.key for save in of(Save, effects) for write in save.writes if write.kind is Kind.TASK}
    assert {one.task_id for one in desk.launched(effects)} == saved
    assert desk.firings()[0].cause is Cause.TRIGGER
    assert desk.firings()[0].fire_ms >= START


def test_large_amounts_are_explained_digit_by_digit() -> None:
    desk = Desk(make_app(), make_job(resources=Resources(1000, 67_108_864_000)))
    trigger(desk)
    desk.offer()
    assert "mem: asked 67108992, best available 8192" in desk.scheduler.explain("report", desk.at).headline
