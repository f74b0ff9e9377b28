"""Operators' commands on waiting and running work (docs/operations.md, "Commands on running work")."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of

from jobcloud.config import JobKind
from jobcloud.errors import Conflict, NotFound, Unavailable
from jobcloud.messages import (
    AgentLost,
    Command,
    Disconnected,
    Kill,
    PutApp,
    PutJob,
    Reconcile,
    ReconcileTasks,
    RemoveApp,
    RemoveJob,
    Retry,
    SetAppEnabled,
    SetJobEnabled,
    ShutdownExecutor,
    Tick,
    Trigger,
)
from jobcloud.model import ShardState

CALLS: dict[str, Callable[[int], Command]] = {
    "disable job": lambda at: SetJobEnabled(at, "report", False),
    "disable app": lambda at: SetAppEnabled(at, "shop", False),
    "remove job": lambda at: RemoveJob(at, "report"),
    "remove app": lambda at: RemoveApp(at, "shop", jobs=True),
}
BACK: dict[str, Callable[[int], Command]] = {
    "disable job": lambda at: SetJobEnabled(at, "report", True),
    "disable app": lambda at: SetAppEnabled(at, "shop", True),
}
# The situation of a shard when the call comes.
SITUATIONS = ("waits", "backs off", "is launched", "runs", "is out of reach")
LATE = ("TASK_KILLED", "TASK_FINISHED", "TASK_FAILED", "TASK_LOST", "TASK_GONE_BY_OPERATOR")
EACH = [*product(JobKind, SITUATIONS)]


def prepared(kind: JobKind, situation: str) -> tuple[Desk, list[str]]:
    """A desk with a job of two shards in a situation, and their live tasks."""
    desk = Desk(make_app(), make_job(kind=kind, shard_count=2, failover=True, retry_count=5))
    if kind is JobKind.TRANSIENT:
        desk.do(Trigger(desk.at, "report"))
    if situation == "waits":
        return desk, []
    tasks = [one.task_id for one in desk.launched(desk.offer(make_offer("first", cpus=20)))]
    if situation != "is launched":
        for task in tasks:
            desk.status(task, "TASK_RUNNING")
    if situation == "backs off":
        for task in tasks:
            desk.status(task, "TASK_LOST")
        tasks = []
    if situation == "is out of reach":
        for task in tasks:
            desk.status(task, "TASK_UNREACHABLE")
    return desk, tasks


def later(desk: Desk, restarted: bool) -> list[str]:
    """Lose and return agents, let time pass and make offers. Returns the launches."""
    desk.do(AgentLost(desk.at, "a1"))
    if restarted:
        desk.restart()
    desk.at += 3_600_000
    return [one.task_id for one in desk.launched(desk.offer(make_offer(f"o{len(desk.all)}", "a2", cpus=64)))]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("kind", "situation"), EACH)
def test_disabled_or_removed_work_ends_and_does_not_restart(
    kind: JobKind, situation: str, call: str, restarted: bool
) -> None:
    for late in LATE:
        desk, tasks = prepared(kind, situation)
        desk.do(CALLS[call](desk.at))
        assert {kill.task_id for kill in of(Kill, desk.last)} == set(tasks), "running tasks are killed at once"
        assert later(desk, restarted) == [], "waiting shards no longer start"
        for task in tasks:
            desk.status(task, late)
        assert later(desk, restarted) == [], f"nor after {late}"
        assert desk.stored.tasks == {}
        assert all(firing.ended_ms for firing in desk.scheduler.firings.values())
        if "remove" in call:
            assert (desk.scheduler.firings, desk.stored.firings, desk.stored.job_states) == ({}, {}, {})


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("call", BACK)
@pytest.mark.parametrize(("kind", "situation"), EACH)
def test_enabled_work_fires_from_then_on_and_never_twice(
    kind: JobKind, situation: str, call: str, restarted: bool
) -> None:
    desk, tasks = prepared(kind, situation)
    desk.do(CALLS[call](desk.at))
    desk.do(BACK[call](desk.at))
    early = later(desk, restarted)
    assert len(early) == (2 - len(tasks) if kind is JobKind.DAEMON else 0), "the running tasks must end first"
    for task in tasks:
        desk.status(task, "TASK_KILLED")
    started = early + later(desk, restarted)
    assert len(started) == (2 if kind is JobKind.DAEMON else 0)
    assert desk.running() == started


@pytest.mark.parametrize("call", ["remove job", "remove app"])
@pytest.mark.parametrize("kind", JobKind)
def test_re_registered_job_waits_for_the_end_of_the_removed_one(kind: JobKind, call: str) -> None:
    desk, tasks = prepared(kind, "runs")
    desk.do(CALLS[call](desk.at))
    if call == "remove app":
        desk.do(PutApp(desk.at, make_app()))
    desk.do(PutJob(desk.at, make_job(kind=kind, shard_count=2)))
    if kind is JobKind.TRANSIENT:
        desk.do(Trigger(desk.at, "report"))
    assert later(desk, False) == []
    desk.status(tasks[0], "TASK_KILLED")
    assert later(desk, True) == []
    desk.status(tasks[1], "TASK_LOST")
    assert len(later(desk, False)) == 2


def test_app_with_jobs_is_removed_only_together_with_them_and_its_executors_end() -> None:
    desk, tasks = prepared(JobKind.TRANSIENT, "runs")
    with pytest.raises(Conflict, match="has 1 jobs"):
        desk.do(RemoveApp(desk.at, "shop"))
    assert of(Kill, desk.last) == []
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    for task in tasks:
        assert of(ShutdownExecutor, desk.all) == []
        desk.status(task, "TASK_KILLED")
    assert len(of(ShutdownExecutor, desk.all)) == 1


@pytest.mark.parametrize("disabled", [False, True])
def test_removed_app_leaves_nothing_in_the_store(disabled: bool) -> None:
    desk, tasks = prepared(JobKind.DAEMON, "runs")
    if disabled:
        desk.do(SetAppEnabled(desk.at, "shop", False))
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    stored = desk.stored
    assert (stored.apps, stored.jobs, stored.job_states, stored.disabled_apps) == ({}, {}, {}, set())
    for task in tasks:
        desk.status(task, "TASK_KILLED")
    assert (desk.stored.tasks, desk.stored.firings) == ({}, {})
    desk.restart()
    desk.do(PutApp(desk.at, make_app()))
    desk.do(PutJob(desk.at, make_job(kind=JobKind.DAEMON)))
    assert len(desk.launched(desk.offer(make_offer("again")))) == 1  # and it is not disabled


@pytest.mark.parametrize("call", CALLS)
def test_trigger_is_refused_if_the_job_could_not_run(call: str) -> None:
    desk, _ = prepared(JobKind.TRANSIENT, "runs")
    desk.do(CALLS[call](desk.at))
    with pytest.raises(NotFound if "remove" in call else Conflict):
        desk.do(Trigger(desk.at, "report"))
    desk, _ = prepared(JobKind.DAEMON, "runs")
    with pytest.raises(Conflict, match="resident"):
        desk.do(Trigger(desk.at, "report"))


def test_refused_retry_of_a_resident_or_removed_job_names_a_fix() -> None:
    desk = Desk(make_app(), make_job(shard_count=2))
    desk.do(Trigger(desk.at, "report"))
    tasks = [launch.task_id for launch in desk.launched(desk.offer())]
    desk.status(tasks[0], "TASK_FAILED")
    run = desk.firings()[0].id
    desk.do(PutJob(desk.at, make_job(shard_count=2, kind=JobKind.DAEMON), replace=True))
    with pytest.raises(Conflict, match=r"start again by themselves \(`jobcloud explain report` shows"):
        desk.do(Retry(desk.at, run))
    desk.do(RemoveJob(desk.at, "report"))
    with pytest.raises(Conflict, match=r"job report was removed \(register it again"):
        desk.do(Retry(desk.at, run))


def test_retry_of_a_run_from_the_time_when_its_job_was_resident_is_refused() -> None:
    desk, tasks = prepared(JobKind.DAEMON, "runs")
    run = desk.firings()[0].id
    desk.do(PutJob(desk.at, make_job(), replace=True))
    for task in tasks:
        desk.status(task, "TASK_KILLED")
    with pytest.raises(Conflict, match=r"was resident in .* \(`jobcloud job trigger report` makes a new run"):
        desk.do(Retry(desk.at, run))


def test_triggered_firing_waits_behind_the_running_one() -> None:
    desk, _ = prepared(JobKind.TRANSIENT, "runs")
    desk.do(Trigger(desk.at, "report"))
    desk.do(Trigger(desk.at, "report"))
    for _ in range(3):
        assert len(desk.running()) == 2
        for task in desk.running():
            desk.status(task, "TASK_FINISHED")
        desk.offer(make_offer(f"o{len(desk.all)}", "a2", cpus=64))
    assert [firing.shards[0].state for firing in desk.firings()] == [ShardState.FINISHED] * 3
    assert desk.running() == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_updated_transient_job_starts_nothing_of_its_old_configuration(situation: str, restarted: bool) -> None:
    desk, tasks = prepared(JobKind.TRANSIENT, situation)
    desk.do(PutJob(desk.at, make_job(shard_count=2, failover=True, parameter="new"), replace=True))
    assert {kill.task_id for kill in of(Kill, desk.last)} == set(tasks)
    assert later(desk, restarted) == []
    for task in tasks:
        desk.status(task, "TASK_LOST")
    assert later(desk, restarted) == []
    assert all(firing.ended_ms for firing in desk.firings())


@pytest.mark.parametrize("explicit", [True, False])
def test_reconciliation_on_request_asks_about_known_tasks_or_about_all(explicit: bool) -> None:
    desk, tasks = prepared(JobKind.TRANSIENT, "runs")
    desk.do(Tick(desk.at))  # the reconciliation at the begin of the session
    effects = desk.do(ReconcileTasks(desk.at, explicit))
    asked = [[task for task, _ in effect.tasks] for effect in of(Reconcile, effects)]
    assert asked == [tasks if explicit else []]
    again = desk.do(Tick(desk.at + desk.policy.reconcile_first_ms))
    repeated = [tuple(task for task, _ in effect.tasks) for effect in of(Reconcile, again)]
    assert repeated == ([tuple(tasks)] if explicit else []), "a question about known tasks is repeated until an answer"


def test_reconciliation_on_request_is_refused_without_a_master() -> None:
    desk, _ = prepared(JobKind.TRANSIENT, "runs")
    desk.do(Disconnected(desk.at))
    with pytest.raises(Unavailable, match="no Mesos master"):
        desk.do(ReconcileTasks(desk.at))
