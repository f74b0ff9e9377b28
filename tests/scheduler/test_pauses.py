"""Pauses of jobs, of apps and of everything: nothing starts, and running shards continue."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of

from jobcloud.config import CatchUp, JobKind
from jobcloud.errors import NotFound
from jobcloud.messages import (
    Kill,
    Publish,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    Revive,
    SetJobEnabled,
    SetPaused,
    Tick,
    Topic,
    Trigger,
)
from jobcloud.model import Cause, Pause, ShardState

EVERY_MINUTE = "0 * * * * ?"
SCOPES: tuple[dict[str, str], ...] = ({"job": "report"}, {"app": "shop"}, {})


def pause(desk: Desk, scope: dict[str, str]) -> None:
    desk.do(SetPaused(desk.at, True, **scope))


def resume(desk: Desk, scope: dict[str, str]) -> None:
    desk.do(SetPaused(desk.at, False, **scope))


def states(desk: Desk, job: str = "report") -> list[list[ShardState]]:
    return [[shard.state for shard in run.shards] for run in desk.firings(job)]


def codes(desk: Desk) -> list[str]:
    return [reason.code for reason in desk.scheduler.explain("report", desk.at).reasons]


@pytest.mark.parametrize("scope", SCOPES)
def test_paused_job_neither_fires_nor_starts_shards(scope: dict[str, str]) -> None:
    desk = Desk(make_app(), make_app("bank"), make_job(cron=EVERY_MINUTE, shard_count=2, misfire=True),
                make_job("other", app="bank", cron=EVERY_MINUTE, misfire=True))  # fmt: skip
    desk.tick(60_000)
    pause(desk, scope)
    desk.offer()
    desk.run_until_idle(180_000)
    assert states(desk) == [[ShardState.WAITING] * 2]
    assert not desk.running()
    assert desk.scheduler.next_firing("report") is None
    assert len(desk.firings("other")) == (4 if scope else 1)
    desk.restart()
    desk.offer()
    desk.run_until_idle(60_000)
    assert states(desk) == [[ShardState.WAITING] * 2]
    resume(desk, scope)
    desk.offer()
    assert len(desk.running()) == 2
    assert desk.scheduler.next_firing("report") is not None


@pytest.mark.parametrize("scope", SCOPES)
def test_running_shards_of_a_paused_job_continue(scope: dict[str, str]) -> None:
    desk = Desk(make_app(), make_job(shard_count=2), make_job("resident", kind=JobKind.DAEMON))
    desk.do(Trigger(desk.at, "report"))
    desk.offer()
    pause(desk, scope)
    if scope.get("job"):
        pause(desk, {"job": "resident"})
    assert not of(Kill, desk.run_until_idle(120_000))
    for task_id in [*desk.running(), *desk.running("resident")]:
        desk.status(task_id, "TASK_FINISHED")
    assert states(desk) == [[ShardState.FINISHED] * 2]
    desk.run_until_idle(120_000)
    desk.offer()
    assert states(desk, "resident") == [[ShardState.WAITING]]
    resume(desk, scope)
    if scope.get("job"):
        resume(desk, {"job": "resident"})
    desk.offer()
    assert states(desk, "resident") == [[ShardState.ACTIVE]]


def test_paused_job_requests_no_offers() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    pause(desk, {})
    assert not of(Revive, desk.run_until_idle(600_000))
    resume(desk, {})
    assert of(Revive, desk.run_until_idle())


@pytest.mark.parametrize(
    ("catch_up", "wanted", "skipped"),
    [
        (CatchUp.SKIP, [], 10),
        (CatchUp.ONCE, [(Cause.CATCH_UP, 10)], 9),
        (CatchUp.ALL, [(Cause.CATCH_UP, 8), (Cause.CATCH_UP, 9), (Cause.CATCH_UP, 10)], 7),
    ],
)
def test_catch_up_decides_about_firings_missed_in_a_pause(
    catch_up: CatchUp, wanted: list[tuple[Cause, int]], skipped: int
) -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE, catch_up=catch_up, catch_up_limit=3, misfire=True))
    start = desk.at
    pause(desk, {"job": "report"})
    desk.run_until_idle(630_000)
    desk.restart()
    resume(desk, {"job": "report"})
    desk.run_until_idle()
    assert [(run.cause, (run.fire_ms - start) // 60_000) for run in desk.firings()] == wanted
    assert desk.scheduler.job_states["report"].skipped == skipped
    desk.run_until_idle(30_000)
    assert desk.firings()[-1].cause is Cause.CRON


def test_firing_that_was_due_before_the_pause_is_queued() -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE))
    desk.at += 60_000
    pause(desk, {})
    assert [run.cause for run in desk.firings()] == [Cause.CRON]


def test_job_is_held_until_the_last_of_its_pauses_ends() -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE))
    for scope in SCOPES:
        pause(desk, scope)
    assert codes(desk)[:3] == ["paused"] * 3
    texts = [reason.text for reason in desk.scheduler.explain("report", desk.at).reasons[:3]]
    since = "is paused since 2026-01-01 00:00:00 UTC: it starts nothing until it is resumed"
    assert texts == [f"the job {since}", f"app shop {since}", f"everything {since}"]
    for number, scope in enumerate(SCOPES):
        assert desk.scheduler.paused("report"), number
        assert desk.scheduler.next_firing("report") is None
        resume(desk, scope)
    assert not desk.scheduler.paused("report")
    assert "paused" not in codes(desk)
    assert desk.scheduler.next_firing("report") is not None
    assert not desk.stored.pauses


def test_pause_is_told_and_stored_once() -> None:
    desk = Desk(make_app(), make_job())
    pause(desk, {"app": "shop"})
    assert [(notice.topic, notice.text) for notice in of(Publish, desk.last)] == [(Topic.CONFIG, "app shop is paused")]
    assert desk.stored.pauses == {"app/shop": Pause(desk.at)}
    desk.at += 1_000
    pause(desk, {"app": "shop"})
    assert not desk.last
    resume(desk, {})
    assert not desk.last


def test_unknown_job_and_app_cannot_be_paused() -> None:
    desk = Desk(make_app())
    for scope in ({"job": "absent"}, {"app": "absent"}):
        with pytest.raises(NotFound):
            pause(desk, scope)


def test_removal_ends_a_pause() -> None:
    desk = Desk(make_app(), make_job())
    pause(desk, {"job": "report"})
    pause(desk, {"app": "shop"})
    desk.do(RemoveJob(desk.at, "report"))
    assert list(desk.stored.pauses) == ["app/shop"]
    desk.do(RemoveApp(desk.at, "shop"))
    assert not desk.stored.pauses


def test_triggered_run_of_a_paused_job_waits_for_the_end_of_the_pause() -> None:
    desk = Desk(make_app(), make_job())
    pause(desk, {"job": "report"})
    desk.do(Trigger(desk.at, "report"))
    desk.offer()
    assert not desk.running()
    resume(desk, {"job": "report"})
    desk.offer()
    assert len(desk.running()) == 1


def test_roll_out_waits_for_the_end_of_a_pause() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, parameter="v1"))
    desk.offer()
    (task_id,) = desk.running()
    desk.status(task_id, "TASK_RUNNING")
    pause(desk, {"job": "report"})
    desk.do(PutJob(desk.at, make_job(kind=JobKind.DAEMON, parameter="v2"), replace=True))
    desk.do(PutApp(desk.at, make_app(version=2), replace=True))
    assert not of(Kill, desk.run_until_idle(600_000))
    desk.restart()
    desk.status(task_id, "TASK_RUNNING")
    assert not of(Kill, desk.run_until_idle(30_000))
    resume(desk, {"job": "report"})
    assert [kill.task_id for kill in of(Kill, [*desk.last, *desk.run_until_idle()])] == [task_id]


def test_change_of_a_paused_job_keeps_the_firings_that_it_missed() -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE, catch_up=CatchUp.ONCE))
    pause(desk, {"job": "report"})
    desk.run_until_idle(150_000)
    desk.do(PutJob(desk.at, make_job(cron=EVERY_MINUTE, catch_up=CatchUp.ONCE, description="new"), replace=True))
    desk.run_until_idle(30_000)
    resume(desk, {"job": "report"})
    desk.run_until_idle()
    assert desk.scheduler.job_states["report"].skipped == 2
    assert len(desk.firings()) == 1


def test_change_of_the_times_of_a_paused_job_counts_the_missed_firings_as_skipped() -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE, catch_up=CatchUp.ALL))
    pause(desk, {"job": "report"})
    desk.run_until_idle(150_000)
    desk.do(PutJob(desk.at, make_job(cron="0/10 * * * * ?", catch_up=CatchUp.ALL), replace=True))
    state = desk.scheduler.job_states["report"]
    assert (state.skipped, "missed in a pause" in state.skipped_reason) == (2, True)
    resume(desk, {"job": "report"})
    desk.run_until_idle()
    assert not desk.firings()


def test_job_that_leaves_a_paused_app_goes_on() -> None:
    desk = Desk(make_app(), make_app("bank"), make_job(cron=EVERY_MINUTE))
    pause(desk, {"app": "shop"})
    desk.do(PutJob(desk.at, make_job(cron=EVERY_MINUTE, app="bank"), replace=True))
    assert desk.scheduler.next_firing("report") == desk.at + 60_000
    desk.do(PutJob(desk.at, make_job(cron=EVERY_MINUTE), replace=True))
    assert desk.scheduler.next_firing("report") is None


def test_job_that_was_disabled_in_a_pause_has_no_catch_up() -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE, catch_up=CatchUp.ALL))
    pause(desk, {"job": "report"})
    desk.do(SetJobEnabled(desk.at, "report", False))
    desk.run_until_idle(150_000)
    desk.do(SetJobEnabled(desk.at, "report", True))
    assert desk.scheduler.next_firing("report") is None
    resume(desk, {"job": "report"})
    desk.run_until_idle()
    assert not desk.firings()


def test_resident_registered_in_a_pause_starts_after_it() -> None:
    desk = Desk(make_app())
    pause(desk, {})
    desk.do(PutJob(desk.at, make_job(kind=JobKind.DAEMON)))
    desk.offer()
    assert not desk.running()
    resume(desk, {})
    desk.offer(make_offer("o2"))
    assert len(desk.running()) == 1


def test_retry_of_a_shard_waits_for_the_end_of_a_pause() -> None:
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=1_000, retry_jitter=0))
    desk.do(Trigger(desk.at, "report"))
    desk.offer()
    desk.status(desk.running()[0], "TASK_FAILED")
    pause(desk, {})
    desk.run_until_idle(10_000)
    desk.offer()
    assert not desk.running()
    desk.do(Tick(desk.at))
    resume(desk, {})
    desk.offer()
    assert len(desk.running()) == 1


def test_stored_pause_of_a_lost_job_is_no_fault() -> None:
    desk = Desk(make_app(), make_job())
    pause(desk, {"job": "report"})
    stored: Any = desk.stored
    del stored.jobs["report"]
    del stored.job_states["report"]
    desk.restart()
    assert desk.scheduler.pauses
