"""The first leader after a restore: what is repeated, what is ended, what is asked."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import START, Desk, copy_of, make_app, make_job, make_offer, of

from jobcloud.config import CatchUp, JobKind
from jobcloud.messages import Kill, Publish, PutJob, Reconcile, Retry, Save, Topic, Trigger
from jobcloud.model import Cause, Execution, Restoration, ShardState, TaskState
from jobcloud.scheduler import Stored

HOUR = 3_600_000


def backup_of(desk: Desk) -> tuple[Stored, int]:
    return copy_of(desk.stored), desk.at


def restored(desk: Desk, backup: tuple[Stored, int], after_ms: int = HOUR) -> Desk:
    """The next leader, with the state of a backup. Its epoch is above all others, as `jobcloud restore` ensures."""
    stored, taken = backup
    desk.at = taken + after_ms
    desk.stored = copy_of(stored)
    desk.stored.restoration = Restoration(taken, desk.at)
    desk.epoch += 1_000
    desk.restart()
    return desk


def states(desk: Desk, job: str = "report") -> list[ShardState]:
    return [shard.state for firing in desk.firings(job) for shard in firing.shards]


def told(desk: Desk) -> list[str]:
    return [notice.text for notice in of(Publish, desk.all) if notice.topic is Topic.FAULT]


def launched(desk: Desk, ms: int = 0) -> list[str]:
    effects = desk.tick(ms)
    effects = effects + desk.offer(make_offer(f"o{desk.at}-{len(desk.all)}"))
    return [one.task_id for one in desk.launched(effects)]


def triggered(**fields: Any) -> Desk:
    desk = Desk(make_app(), make_job(**fields))
    desk.do(Trigger(desk.at, "report"))
    return desk


def test_waiting_shard_that_may_have_ended_since_is_not_repeated_without_failover() -> None:
    desk = triggered()
    backup = backup_of(desk)
    (task,) = launched(desk)
    desk.status(task, "TASK_FINISHED")
    restored(desk, backup)
    assert launched(desk, 60_000) == []
    (shard,) = desk.firings()[0].shards
    assert shard.state is ShardState.FAILED
    assert shard.message == (
        "the state was restored from a backup of 2026-01-01 00:00:00 UTC, and it may have run since"
    )
    assert "1 have ended, because their jobs lack it" in told(desk)[0]


def test_waiting_shard_is_repeated_with_failover_after_other_tasks_were_reported() -> None:
    desk = triggered(failover=True)
    backup = backup_of(desk)
    (ended,) = launched(desk)
    restored(desk, backup)
    assert launched(desk, 29_000) == [], "tasks without a record are reported first"
    (again,) = launched(desk, 2_000)
    assert again != ended
    assert desk.scheduler.tasks[again].execution is Execution.FAILOVER
    assert "1 shards may have run since and are repeated" in told(desk)[0]


def test_task_without_a_record_is_killed_when_mesos_reports_it() -> None:
    desk = triggered(failover=True)
    backup = backup_of(desk)
    (later,) = launched(desk)
    restored(desk, backup)
    desk.status(later, "TASK_RUNNING")
    assert [kill.task_id for kill in of(Kill, desk.last)] == [later]


@pytest.mark.parametrize("state", ["TASK_RUNNING", ""], ids=["running", "unseen"])
@pytest.mark.parametrize(("failover", "expected"), [(True, ShardState.WAITING), (False, ShardState.FAILED)])
def test_task_that_mesos_no_longer_knows_may_have_run(failover: bool, expected: ShardState, state: str) -> None:
    """Without the restore, a task that was never seen to run is started again, whatever the job says."""
    desk = triggered(failover=failover)
    (task,) = launched(desk)
    if state:
        desk.status(task, state)
    backup = backup_of(desk)
    desk.status(task, "TASK_FINISHED")
    restored(desk, backup)
    assert {name for each in of(Reconcile, desk.last) for name, _ in each.tasks} == {task}
    desk.status(task, "TASK_GONE", uuid="", reason="REASON_RECONCILIATION")
    assert states(desk) == [expected]
    assert told(desk)[-1] == "of the restored tasks, 0 still run, and 1 have ended since the backup"


def test_task_that_still_runs_is_adopted() -> None:
    desk = triggered(failover=True)
    (task,) = launched(desk)
    backup = backup_of(desk)
    restored(desk, backup)
    desk.status(task, "TASK_RUNNING", uuid="")
    assert desk.running() == [task]
    assert told(desk)[-1] == "of the restored tasks, 1 still run, and 0 have ended since the backup"
    desk.status(task, "TASK_FINISHED")
    assert states(desk) == [ShardState.FINISHED]


@pytest.mark.parametrize(
    ("catch_up", "runs", "skipped"), [(CatchUp.SKIP, 0, 60), (CatchUp.ONCE, 1, 59), (CatchUp.ALL, 10, 50)]
)
def test_fire_times_since_the_backup_are_missed_ones(catch_up: CatchUp, runs: int, skipped: int) -> None:
    """Also those within the misfire threshold: the leader before the restore may have fired them."""
    desk = Desk(make_app(), make_job(cron="0 * * * * ?", catch_up=catch_up))
    restored(desk, backup_of(desk))
    desk.tick()
    found = desk.firings()
    assert [firing.cause for firing in found] == [Cause.CATCH_UP] * runs
    assert desk.scheduler.job_states["report"].skipped == skipped
    desk.tick(60_000)
    assert [firing.fire_ms for firing in desk.firings() if firing.cause is Cause.CRON] == (
        [START + HOUR + 60_000] if not runs else []
    )


def test_resident_shard_waits_and_then_runs() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, cron="0 * * * * ?"))
    restored(desk, backup_of(desk))
    assert launched(desk, 29_000) == []
    assert len(launched(desk, 2_000)) == 1


def test_restored_state_is_corrected_once() -> None:
    desk = triggered(failover=True)
    restored(desk, backup_of(desk))
    assert desk.stored.restoration is not None
    assert desk.stored.restoration.settled
    (shard,) = desk.firings()[0].shards
    desk.at += 31_000
    desk.restart()
    assert desk.firings()[0].shards == (shard,)
    assert len(launched(desk)) == 1
    assert len(told(desk)) == 1


def test_restore_is_a_warning_for_a_day() -> None:
    desk = triggered()
    restored(desk, backup_of(desk))
    (warning,) = desk.scheduler.warnings
    assert warning.startswith("the state was restored at 2026-01-01 01:00:00 UTC from a backup of 2026-01-01 00:00:00")
    desk.tick(24 * HOUR)
    assert list(desk.scheduler.warnings) == []


def test_correction_is_stored_with_its_mark_in_one_write() -> None:
    desk = triggered()
    restored(desk, backup_of(desk))
    (save,) = of(Save, desk.last)
    assert {write.key for write in save.writes} >= {"last", desk.firings()[0].id}


@pytest.mark.parametrize("before", ["waiting", "running", "finished"])
@pytest.mark.parametrize("failover", [True, False])
def test_run_with_a_listener_is_restored_in_any_step(before: str, failover: bool) -> None:
    desk = triggered(firing_listener="shop:Stage", shard_count=2, failover=failover)
    if before != "waiting":
        (task,) = launched(desk)
        desk.status(task, "TASK_RUNNING")
        if before == "finished":
            desk.status(task, "TASK_FINISHED")
    restored(desk, backup_of(desk))
    desk.scheduler.validate()
    work = {shard.state for shard in desk.firings()[0].work}
    if failover:
        assert work == {ShardState.WAITING}
    else:
        assert work == {ShardState.FAILED if before == "finished" else ShardState.CANCELLED}
    for _ in range(20):
        for name in desk.running():
            desk.status(name, "TASK_FINISHED")
        launched(desk, 31_000)
    assert desk.firings()[0].ended_ms


def test_shards_that_were_given_up_can_be_retried() -> None:
    desk = triggered()
    restored(desk, backup_of(desk))
    desk.do(Retry(desk.at, desk.firings()[0].id))
    assert len(launched(desk)) == 1


def test_ended_runs_and_disabled_jobs_are_left_alone() -> None:
    desk = triggered()
    (task,) = launched(desk)
    desk.status(task, "TASK_FINISHED")
    desk.do(PutJob(desk.at, make_job("idle"), enabled=False))
    before = dict(desk.stored.firings)
    restored(desk, backup_of(desk))
    assert desk.stored.firings == before
    assert desk.scheduler.job_states["idle"].disabled


def test_state_that_was_never_restored_is_left_alone() -> None:
    desk = triggered()
    (task,) = launched(desk)
    desk.restart()
    assert desk.scheduler.tasks[task].state is TaskState.STORED
    assert list(desk.scheduler.warnings) == []
    assert told(desk) == []
