"""Jobs whose fire times were handled in the future, because the clock was ahead."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import START, Desk, make_app, make_job, of

from jobcloud.config import CatchUp, JobKind
from jobcloud.messages import Publish, PutJob, SetAppEnabled, SetJobEnabled, Topic
from jobcloud.model import Cause, ShardState

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
UNTIL = "2026-06-30 00:00:00 UTC"


def after_a_jump(ahead: int, **fields: Any) -> Desk:
    """A job of every minute, whose leader believed for a moment that it is `ahead` later."""
    desk = Desk(make_app(), make_job(cron="0 * * * * ?", **fields))
    desk.at += ahead
    desk.tick()
    desk.at = START + MINUTE
    desk.tick()
    return desk


def codes(desk: Desk) -> list[str]:
    return [reason.code for reason in desk.scheduler.explain("report", desk.at).reasons]


def fired_next(desk: Desk) -> int:
    """When the job is due next, in ms from the start."""
    due = desk.scheduler.next_firing("report")
    assert due is not None
    return due - START


@pytest.mark.parametrize("restart", [False, True])
def test_silent_job_is_reported_by_warning_explanation_and_notice(restart: bool) -> None:
    desk = after_a_jump(180 * DAY)
    if restart:
        desk.restart()
    (warning,) = desk.scheduler.warnings
    assert f"1 jobs do not fire now, the last of them not before {UNTIL}" in warning
    explanation = desk.scheduler.explain("report", desk.at)
    assert explanation.headline.startswith(f"it does not fire before {UNTIL}: the clock was ahead")
    assert explanation.reasons[0].code == "clock"
    assert warning in [notice.text for notice in of(Publish, desk.all) if notice.topic is Topic.FAULT]


def test_notice_is_not_repeated_while_jobs_are_silent() -> None:
    desk = after_a_jump(180 * DAY)
    before = len(of(Publish, desk.all))
    for _ in range(5):
        desk.tick(70_000)
    assert len(of(Publish, desk.all)) == before


@pytest.mark.parametrize("ahead", [2 * HOUR, 180 * DAY])
def test_enable_revives_a_silent_job_with_its_history(ahead: int) -> None:
    desk = after_a_jump(ahead, catch_up=CatchUp.ONCE, misfire=True)
    runs, state = desk.firings(), desk.scheduler.job_states["report"]
    desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    assert fired_next(desk) == 2 * MINUTE
    assert desk.scheduler.warnings == ()
    assert "clock" not in codes(desk)
    assert desk.firings() == runs
    assert desk.scheduler.job_states["report"].skipped == state.skipped
    desk.restart()
    assert fired_next(desk) == 2 * MINUTE
    desk.tick(MINUTE)
    assert START + 2 * MINUTE in {firing.fire_ms for firing in desk.firings()}


def test_update_and_a_new_enabling_revive_a_job_that_is_silent_for_more_than_a_day() -> None:
    for change in ("update", "job", "app"):
        desk = after_a_jump(180 * DAY)
        if change == "update":
            desk.do(PutJob(desk.at, make_job(cron="0 * * * * ?", description="new"), replace=True))
        elif change == "job":
            desk.do(SetJobEnabled(desk.at, "report", enabled=False))
            assert desk.scheduler.explain("report", desk.at).reasons[0].code == "job_disabled"
            desk.do(SetJobEnabled(desk.at, "report", enabled=True))
        else:
            desk.do(SetAppEnabled(desk.at, "shop", enabled=False))
            desk.do(SetAppEnabled(desk.at, "shop", enabled=True))
        assert fired_next(desk) == 2 * MINUTE
        assert desk.scheduler.warnings == ()


def test_update_after_the_clock_was_set_back_by_an_hour_repeats_nothing() -> None:
    desk = after_a_jump(HOUR)
    desk.do(PutJob(desk.at, make_job(cron="0 * * * * ?", description="new"), replace=True))
    assert fired_next(desk) == HOUR + MINUTE


def test_enable_of_a_job_that_is_on_time_changes_nothing() -> None:
    desk = after_a_jump(0)
    before = desk.scheduler.job_states["report"]
    desk.do(SetJobEnabled(desk.at, "report", enabled=True))
    assert desk.scheduler.job_states["report"] == before


def test_clock_that_is_set_back_a_little_is_not_reported() -> None:
    desk = after_a_jump(2 * MINUTE)
    assert desk.scheduler.warnings == ()
    assert "clock" not in codes(desk)


def test_resident_job_is_not_silent() -> None:
    desk = after_a_jump(180 * DAY, kind=JobKind.DAEMON)
    assert desk.scheduler.warnings == ()
    assert "clock" not in codes(desk)


def test_warning_ends_when_the_time_has_come() -> None:
    desk = after_a_jump(2 * HOUR)
    assert desk.scheduler.warnings
    desk.tick(2 * HOUR)
    assert desk.scheduler.warnings == ()
    assert desk.firings()[-1].cause is Cause.CRON
    assert desk.firings()[-1].shards[0].state is ShardState.WAITING
