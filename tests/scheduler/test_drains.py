"""Drains of agents: for maintenance windows of Mesos, and for operators."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_app, make_job, make_offer, of

from jobcloud.config import JobKind
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import (
    AcceptInverseOffers,
    AgentLost,
    Decline,
    DeclineInverseOffers,
    Disconnected,
    DrainAgent,
    InverseOffersReceived,
    Kill,
    Publish,
    SendFailed,
    SetJobEnabled,
    ShutdownExecutor,
    Subscribed,
    Trigger,
    UndrainAgent,
)
from jobcloud.model import InverseOffer, ShardState, Window, changed

MINUTE = 60_000
LEAD = POLICY.drain_lead_ms


def desk_with(running: int = 1, **fields: Any) -> tuple[Desk, list[str]]:
    """A desk with a job whose shards all run on agent a1, and their task ids."""
    desk = Desk(make_app(), make_job(shard_count=running, **fields))
    if fields.get("kind") is not JobKind.DAEMON:
        desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("first", cpus=64, mem=65_536))
    tasks = desk.running()
    assert len(tasks) == running
    for task in tasks:
        desk.status(task, "TASK_RUNNING")
    desk.run_until_idle()
    return desk, tasks


def kills(desk: Desk, ms: int) -> list[str]:
    """The tasks that are killed within `ms`."""
    return [kill.task_id for kill in of(Kill, desk.run_until_idle(ms))]


def ask(desk: Desk, in_ms: int, agent: str = "a1", for_ms: int = 0) -> list[Any]:
    start = desk.at + in_ms
    window = Window(start, start + for_ms if for_ms else 0)
    return desk.do(InverseOffersReceived(desk.at, (InverseOffer(f"i{desk.at}", agent, window),)))


# ------------------------------------------------------------------------------------------------- nothing new


@pytest.mark.parametrize(("in_ms", "placed"), [(LEAD - 1_000, False), (LEAD + MINUTE, True), (-MINUTE, False)])
def test_agent_gets_no_new_tasks_within_the_lead_of_its_window(in_ms: int, placed: bool) -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    effects = desk.offer(changed(make_offer("o"), unavailable=Window(desk.at + in_ms)))
    assert bool(desk.launched(effects)) is placed
    declined = [offer_id for one in of(Decline, effects) for offer_id in one.offer_ids]
    assert (declined == ["o"]) is not placed  # other frameworks may use it
    if not placed:
        assert "1 agents are being drained" in desk.scheduler.explain("report", desk.at).reasons[-1].text


def test_agent_is_cordoned_from_its_lead_to_the_end_of_its_window() -> None:
    desk = Desk(make_app(), make_job())
    window = Window(desk.at + LEAD + MINUTE, desk.at + LEAD + 3 * MINUTE)
    desk.offer(changed(make_offer("o"), unavailable=window))
    desk.run_until_idle(2 * MINUTE)
    assert desk.scheduler.cluster.cordoned == {"a1"}
    desk.run_until_idle(LEAD + 2 * MINUTE)
    assert desk.scheduler.cluster.cordoned == set()
    desk.do(Trigger(desk.at, "report"))
    assert desk.launched(desk.offer(make_offer("p")))


def test_offer_without_a_window_ends_the_maintenance() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    assert not desk.launched(desk.offer(changed(make_offer("o"), unavailable=Window(desk.at))))
    assert desk.launched(desk.offer(make_offer("p")))


def test_new_session_knows_only_the_windows_announced_in_it() -> None:
    desk = Desk(make_app(), make_job())
    desk.offer(changed(make_offer("o"), unavailable=Window(desk.at)))
    desk.do(Subscribed(desk.at, "framework-1"))
    desk.do(Trigger(desk.at, "report"))
    assert desk.launched(desk.offer(make_offer("p")))


def test_cordoned_agent_does_not_get_the_second_of_two_shards() -> None:
    desk = Desk(make_app(), make_job(shard_count=2))
    desk.do(Trigger(desk.at, "report"))
    closing = changed(make_offer("o", "a1"), unavailable=Window(desk.at))
    effects = desk.offer(closing, make_offer("p", "a2"))
    assert [task.agent_id for task in desk.scheduler.tasks.values()] == ["a2", "a2"]
    assert len(desk.launched(effects)) == 2


# ------------------------------------------------------------------------------------------------ residents move


def test_resident_shards_leave_a_drained_agent_a_few_at_a_time() -> None:
    desk, tasks = desk_with(20, kind=JobKind.DAEMON)
    ask(desk, LEAD + MINUTE)
    assert kills(desk, MINUTE - 1) == []
    first = kills(desk, 1_000)
    assert len(first) == 2  # a tenth of them
    assert kills(desk, 5_000) == []  # the next ones wait until those run again
    for task in first:
        desk.status(task, "TASK_KILLED")
    desk.run_until_idle(2_000)
    desk.offer(make_offer("second", "a2", cpus=64, mem=65_536))
    moved = [task for task in desk.running() if task not in tasks]
    assert {desk.scheduler.tasks[task].agent_id for task in moved} == {"a2"}
    assert kills(desk, 5_000) == []
    for task in moved:
        desk.status(task, "TASK_RUNNING")
    second = kills(desk, 1_000)
    assert len(second) == 2
    assert not set(second) & set(first)


def test_all_resident_shards_leave_after_half_of_the_drain_time() -> None:
    desk, tasks = desk_with(20, kind=JobKind.DAEMON)
    ask(desk, LEAD // 2 - 1)
    assert sorted(kills(desk, 1)) == sorted(tasks)
    (firing,) = desk.firings()
    for task in tasks:
        desk.status(task, "TASK_KILLED")
    (firing,) = desk.firings()
    assert {shard.state for shard in firing.shards} == {ShardState.WAITING}


def test_lost_kill_of_a_drain_is_repeated_also_by_the_next_leader() -> None:
    desk, tasks = desk_with(1, kind=JobKind.DAEMON)
    ask(desk, MINUTE)
    assert kills(desk, 1) == tasks
    assert kills(desk, POLICY.kill_again_ms) == tasks
    desk.restart()
    assert kills(desk, 1_000) == tasks  # even if Mesos announces the window again
    desk.status(tasks[0], "TASK_KILLED")
    (again,) = desk.launched(desk.offer(make_offer("second", "a2")))
    assert again.name == "report@-@0"


def test_fail_over_does_not_increase_the_number_of_leaving_shards() -> None:
    desk, tasks = desk_with(20, kind=JobKind.DAEMON)
    desk.do(DrainAgent(desk.at, "a1", desk.at + LEAD))
    asked = kills(desk, 1_000)
    assert len(asked) == 2  # a tenth of them
    desk.restart()
    assert sorted(kills(desk, 3_000)) == sorted(asked)  # the same ones again, and no others
    for task in asked:
        desk.status(task, "TASK_KILLED")
    desk.run_until_idle(3_000)
    desk.offer(make_offer("second", "a2", cpus=64, mem=65_536))
    for task in set(desk.running()) - set(tasks):
        desk.status(task, "TASK_RUNNING")
    assert kills(desk, 3_000) == []  # the other tasks are not confirmed for the new leader yet
    for task in set(tasks) - set(asked):
        desk.status(task, "TASK_RUNNING")
    assert len(kills(desk, 1_000)) == 2


@pytest.mark.parametrize("window", [False, True])
def test_transient_shard_is_moved_by_the_next_leader_too(window: bool) -> None:
    """Its kill is not stored, because it would then not start again. The next leader decides it again."""
    desk, tasks = desk_with(1, failover=True)
    if window:
        ask(desk, 1_000)
    else:
        desk.do(DrainAgent(desk.at, "a1", desk.at + 1_000))
    assert kills(desk, 2_000) == tasks
    desk.restart()
    if window:
        ask(desk, -2_000)
    assert kills(desk, 2_000) == tasks
    desk.restart()
    desk.status(tasks[0], "TASK_KILLED")  # before that leader knows of a drain
    (firing,) = desk.firings()
    assert firing.shards[0].state is ShardState.WAITING


# ----------------------------------------------------------------------------------------- transient shards


def test_transient_shards_with_failover_move_at_the_deadline() -> None:
    desk, tasks = desk_with(1, failover=True)
    ask(desk, LEAD)
    assert kills(desk, LEAD - 1_000) == []
    assert kills(desk, 2_000) == tasks
    desk.status(tasks[0], "TASK_KILLED")
    (firing,) = desk.firings()
    assert firing.shards[0].state is ShardState.WAITING
    desk.run_until_idle(2_000)
    desk.offer(make_offer("second", "a2"))
    (again,) = desk.running()
    assert desk.scheduler.tasks[again].agent_id == "a2"


@pytest.mark.parametrize("reconnected", [False, True])
def test_executor_that_does_not_let_a_moved_shard_go_is_shut_down(reconnected: bool) -> None:
    desk, tasks = desk_with(1, failover=True)
    desk.do(DrainAgent(desk.at, "a1", desk.at + 1_000))
    assert kills(desk, 2_000) == tasks
    if reconnected:
        desk.do(Disconnected(desk.at))
        desk.do(Subscribed(desk.at, "framework-1"))
        desk.status(tasks[0], "TASK_RUNNING")
    began = len(desk.all)
    kills(desk, POLICY.kill_timeout_ms + 2 * make_job().kill_grace_ms + 5_000)
    (shutdown,) = of(ShutdownExecutor, desk.all[began:])
    assert shutdown.agent_id == "a1"
    desk.status(tasks[0], "TASK_LOST", reason="REASON_EXECUTOR_TERMINATED")
    (firing,) = desk.firings()
    assert firing.shards[0].state is ShardState.WAITING


def test_transient_shards_without_failover_stay_on_a_drained_agent() -> None:
    desk, _ = desk_with(1)
    ask(desk, MINUTE)
    assert kills(desk, 2 * LEAD) == []


# ------------------------------------------------------------------------------------------------ inverse offers


@pytest.mark.parametrize(
    ("fields", "agreed"),
    [
        ({}, False),
        ({"failover": True}, True),
        ({"kind": JobKind.DAEMON}, True),
        ({"timeout_ms": 30_000}, True),  # it ends before the window
        ({"timeout_ms": 600_000}, False),
    ],
)
def test_maintenance_is_accepted_unless_a_shard_would_be_lost(fields: dict[str, Any], agreed: bool) -> None:
    desk, _ = desk_with(1, **fields)
    effects = ask(desk, 5 * MINUTE)
    yes, no = of(AcceptInverseOffers, effects), of(DeclineInverseOffers, effects)
    assert (len(yes), len(no)) == ((1, 0) if agreed else (0, 1))
    assert (yes or no)[0].inverse_offer_ids == (f"i{desk.at}",)


def test_inverse_offer_is_accepted_after_the_shard_has_ended() -> None:
    desk, tasks = desk_with(1)
    assert (
        of(DeclineInverseOffers, ask(desk, 5 * MINUTE))[0].refuse_ms <= 5_000
    )  # the short filter lets Mesos ask again soon
    desk.status(tasks[0], "TASK_FINISHED")
    assert of(AcceptInverseOffers, ask(desk, 5 * MINUTE))


def test_uncertain_answer_to_an_inverse_offer_is_repeated() -> None:
    desk, _ = desk_with(1)
    (answer,) = of(DeclineInverseOffers, ask(desk, 5 * MINUTE))
    assert of(DeclineInverseOffers, desk.do(SendFailed(desk.at, answer, "lost", certain=False))) == [answer]
    assert not of(DeclineInverseOffers, desk.do(SendFailed(desk.at, answer, "HTTP 400", certain=True)))


# ---------------------------------------------------------------------------------------------------- operators


def test_operator_drains_and_undrains_an_agent_by_host_name() -> None:
    desk, tasks = desk_with(1, kind=JobKind.DAEMON)
    desk.do(DrainAgent(desk.at, "host-a1", reason="new disk"))
    assert kills(desk, 1) == tasks
    desk.status(tasks[0], "TASK_KILLED")
    desk.run_until_idle(2_000)
    assert not desk.launched(desk.offer(make_offer("o")))
    (view,) = desk.scheduler.agents()
    assert view.cordoned
    assert view.drain is not None
    assert view.drain.reason == "new disk"
    assert view.drain.deadline_ms > desk.at
    desk.do(UndrainAgent(desk.at, "a1"))
    assert desk.launched(desk.offer(make_offer("p")))
    assert not desk.stored.drains


def test_notice_of_a_drain_names_its_reason_if_there_is_one() -> None:
    for reason, text in (("", "agent a1 is being drained"), ("disk", "agent a1 is being drained: disk")):
        desk, _ = desk_with()
        desk.do(DrainAgent(desk.at, "a1", reason=reason))
        assert text in [notice.text for notice in of(Publish, desk.last)]


def test_drain_outlives_its_leader() -> None:
    desk, tasks = desk_with(1, failover=True)
    desk.do(DrainAgent(desk.at, "a1", desk.at + MINUTE))
    desk.restart()
    desk.status(tasks[0], "TASK_RUNNING")
    assert kills(desk, MINUTE - 1_000) == []
    assert kills(desk, 2_000) == tasks


def test_offers_of_an_uncordoned_agent_are_revived_at_once_if_work_waits() -> None:
    desk = Desk(make_app(), make_job())
    desk.offer(make_offer("o"))
    desk.do(DrainAgent(desk.at, "a1"))
    desk.run_until_idle()
    desk.do(Trigger(desk.at, "report"))
    desk.run_until_idle(1_000)
    desk.do(UndrainAgent(desk.at, "a1"))
    assert [type(one).__name__ for one in desk.run_until_idle() if type(one).__name__ == "Revive"] == ["Revive"]


def test_drain_of_an_unknown_or_ambiguous_agent_is_refused() -> None:
    desk = Desk(make_app(), make_job())
    same = changed(make_offer("p", "a2"), hostname="host-a1")
    desk.offer(make_offer("o", "a1"), same)
    with pytest.raises(NotFound, match="no agent nowhere"):
        desk.do(DrainAgent(desk.at, "nowhere"))
    with pytest.raises(Conflict, match="2 agents are on host-a1"):
        desk.do(DrainAgent(desk.at, "host-a1"))
    desk.do(AgentLost(desk.at, "a2"))
    desk.do(DrainAgent(desk.at, "host-a1"))
    assert list(desk.stored.drains) == ["a1"]


def test_old_drain_of_an_unknown_agent_is_deleted() -> None:
    desk = Desk(make_app())
    desk.offer(make_offer("o"))
    desk.do(DrainAgent(desk.at, "a1"))
    desk.do(AgentLost(desk.at, "a1"))
    desk.tick(MINUTE)
    assert desk.stored.drains
    desk.tick(31 * 86_400_000)
    assert not desk.stored.drains
    assert desk.scheduler.next_wake(desk.at) != desk.at


def test_cancelled_shards_on_a_drained_agent_are_killed_once() -> None:
    desk, tasks = desk_with(1, failover=True)
    assert [kill.task_id for kill in of(Kill, desk.do(SetJobEnabled(desk.at, "report", enabled=False)))] == tasks
    desk.do(DrainAgent(desk.at, "a1", desk.at))
    assert kills(desk, 1_000) == []
