"""Backfills: runs for past fire times that have none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer

from jobcloud.config import Concurrency, JobKind
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import BackfillJob, CancelBackfill, Kind, PutJob, RemoveJob, SetJobEnabled, SetPaused, Trigger
from jobcloud.model import Backfill, Cause, ShardState
from jobcloud.ports import MAX_RECORD_BYTES
from jobcloud.scheduler import backfills
from jobcloud.server.records import encode

EVERY_MINUTE = "0 * * * * ?"
MINUTE = 60_000


def make_desk(**fields: Any) -> Desk:
    return Desk(make_app(), make_job(cron=EVERY_MINUTE, **fields))


def missing(
    desk: Desk, minutes: int, limit: int = 1_000, *, newest_first: bool = False
) -> tuple[tuple[int, ...], bool]:
    """The fire times of the last minutes without a run, as the API determines them."""
    job, state = desk.scheduler.jobs["report"], desk.scheduler.job_states["report"]
    known = backfills.fire_times(desk.firings(), desk.scheduler.backfills.get("report"))
    until = min(desk.at, state.considered_ms)
    return backfills.missing(
        job.times(), known, desk.at - minutes * MINUTE + 1, until, limit, newest_first=newest_first
    )


def fill(desk: Desk, minutes: int = 5, at_once: int = 1, **options: Any) -> None:
    desk.do(BackfillJob(desk.at, "report", missing(desk, minutes, **options)[0], at_once))
    desk.run_until_idle()


def fire_times(desk: Desk) -> list[int]:
    """The minutes of the runs, in the order in which they were made; the first registration was at 0."""
    start = 1_767_225_600_000
    return [(run.fire_ms - start) // MINUTE for run in desk.firings()]


def finish(desk: Desk) -> None:
    desk.offer(make_offer(f"o{desk.at}-{len(desk.all)}", cpus=64))
    for task_id in desk.running():
        desk.status(task_id, "TASK_FINISHED")
    desk.run_until_idle()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [-4, -3, -2, -1, 0]),
        ({"newest_first": True}, [0, -1, -2, -3, -4]),
        ({"limit": 2}, [-4, -3]),
        ({"limit": 2, "newest_first": True}, [0, -1]),
    ],
)
def test_runs_of_a_backfill_follow_one_another(options: dict[str, Any], wanted: list[int]) -> None:
    desk = make_desk()
    fill(desk, **options)
    for number in range(1, len(wanted) + 1):
        assert fire_times(desk) == wanted[:number]
        desk.restart()
        desk.run_until_idle()
        assert fire_times(desk) == wanted[:number]
        finish(desk)
    assert [run.cause for run in desk.firings()] == [Cause.CATCH_UP] * len(wanted)
    assert all(run.terms.backfill and run.id.startswith("report.backfill-") for run in desk.firings())
    assert not desk.stored.backfills


def test_backfill_leaves_out_fire_times_that_have_a_run_or_wait_for_one() -> None:
    desk = make_desk(misfire=True)
    desk.run_until_idle(2 * MINUTE)  # runs of minutes 1 and 2
    fill(desk, minutes=4)  # -1 and 0 are missing
    assert list(desk.stored.backfills["report"].times) == [desk.at - 3 * MINUTE, desk.at - 2 * MINUTE]
    fill(desk, minutes=5)
    assert len(desk.stored.backfills["report"].times) == 3
    for _ in range(6):
        finish(desk)
    assert sorted(fire_times(desk)) == [-2, -1, 0, 1, 2]
    before = fire_times(desk)
    fill(desk, minutes=5)
    assert fire_times(desk) == before
    assert not desk.stored.backfills


def test_fire_time_that_the_timetable_has_not_handled_is_not_filled_in() -> None:
    desk = make_desk()
    desk.do(SetPaused(desk.at, True))
    desk.at += 3 * MINUTE
    last = desk.at - 3 * MINUTE  # the registration
    desk.do(BackfillJob(desk.at, "report", (last, last + MINUTE, last + 4 * MINUTE, last)))
    assert desk.stored.backfills["report"].times == (last,)


def test_limit_of_a_backfill_says_that_there_are_more() -> None:
    desk = make_desk()
    for newest_first in (False, True):
        for limit, more in ((4, True), (5, False)):
            assert missing(desk, 5, limit, newest_first=newest_first)[1] == more


def test_range_without_fire_times_has_nothing_to_fill_in() -> None:
    desk = Desk(make_app(), make_job())  # it fires in 2099
    assert missing(desk, 5) == ((), False)
    desk = make_desk()
    assert missing(desk, 0) == ((), False)


def test_regular_firing_waits_for_the_run_of_a_backfill_and_precedes_the_next() -> None:
    desk = make_desk(misfire=False)
    fill(desk)
    desk.run_until_idle(MINUTE)
    assert fire_times(desk) == [-4, 1]
    assert desk.scheduler.job_states["report"].skipped == 0
    finish(desk)
    assert fire_times(desk) == [-4, 1]
    finish(desk)
    assert fire_times(desk) == [-4, 1, -3]


def test_regular_firing_does_not_replace_the_run_of_a_backfill() -> None:
    desk = make_desk(concurrency=Concurrency.REPLACE)
    fill(desk)
    desk.run_until_idle(MINUTE)
    assert fire_times(desk) == [-4, 1]
    finish(desk)
    assert desk.firings()[0].shards[0].state is ShardState.FINISHED


def test_backfill_runs_as_many_at_once_as_its_job_and_the_operator_allow() -> None:
    for allowed, wanted, begun in ((3, 2, 2), (2, 5, 2), (1, 5, 1)):
        concurrency = Concurrency.ALLOW if allowed > 1 else Concurrency.FORBID
        desk = make_desk(concurrency=concurrency, concurrency_limit=allowed)
        fill(desk, at_once=wanted)
        assert len(desk.firings()) == begun
        desk.offer(make_offer("o1", cpus=64))
        assert len(desk.running()) == begun


@pytest.mark.parametrize("lowest", [-999, -1000])
def test_shards_of_other_jobs_precede_those_of_a_backfill(lowest: int) -> None:
    desk = Desk(make_app(), make_job(cron=EVERY_MINUTE, priority=9), make_job("other", priority=lowest))
    fill(desk)
    desk.do(Trigger(desk.at, "other"))
    desk.offer(make_offer("o1", cpus=2))  # room for one
    assert [task.job for task in desk.scheduler.tasks.values()] == ["other"]


def test_backfill_waits_while_its_job_is_paused_or_disabled() -> None:
    desk = make_desk()
    fill(desk)
    desk.do(SetPaused(desk.at, True))
    finish(desk)
    assert len(desk.firings()) == 1
    desk.do(SetPaused(desk.at, False))
    desk.do(SetJobEnabled(desk.at, "report", False))
    desk.run_until_idle()
    states = [run.shards[0].state for run in desk.firings()]
    assert states == [ShardState.CANCELLED]
    desk.do(SetJobEnabled(desk.at, "report", True))
    desk.run_until_idle()
    assert fire_times(desk) == [-4, -3]


def test_backfill_ends_with_its_cancellation_or_with_its_job() -> None:
    daemon = make_job(kind=JobKind.DAEMON)
    for end in (CancelBackfill(0, "report"), RemoveJob(0, "report"), PutJob(0, daemon, replace=True)):
        desk = make_desk()
        fill(desk)
        desk.do(type(end)(desk.at, *[getattr(end, name) for name in end.__struct_fields__[1:]]))
        assert not desk.stored.backfills
        assert not desk.scheduler.backfills
    desk = make_desk()
    desk.do(CancelBackfill(desk.at, "report"))
    assert not desk.last


def test_backfills_are_explained() -> None:
    desk = make_desk()
    fill(desk)
    reason = desk.scheduler.explain("report", desk.at).reasons[-1]
    assert (reason.code, reason.text) == ("backfill", "4 fire times wait for its backfill")


@pytest.mark.parametrize(("job", "error"), [("absent", NotFound), ("resident", Conflict), ("off", Conflict)])
def test_backfill_of_a_job_without_runs_is_refused(job: str, error: type[Exception]) -> None:
    desk = Desk(make_app(), make_job("resident", kind=JobKind.DAEMON), make_job("off"))
    desk.do(SetJobEnabled(desk.at, "off", False))
    with pytest.raises(error) as caught:
        desk.do(BackfillJob(desk.at, job, (desk.at - MINUTE,)))
    assert getattr(caught.value, "field", "") == "jobName"


def test_backfills_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk()
    fill(desk, minutes=900, limit=900)
    with pytest.raises(Conflict, match="wait for a backfill already"):
        fill(desk, minutes=2_000, limit=900)
    assert len(encode(Kind.BACKFILL, Backfill((2**53,) * backfills.MAX_TIMES, 100))) < MAX_RECORD_BYTES
    monkeypatch.setattr(backfills, "MAX_JOBS", 1)
    desk.do(PutJob(desk.at, make_job("other", cron=EVERY_MINUTE)))
    with pytest.raises(Conflict, match="jobs have a backfill"):
        desk.do(BackfillJob(desk.at, "other", (desk.at - MINUTE,)))
    fill(desk, minutes=950, limit=10)
