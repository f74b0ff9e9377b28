"""Jobs with several triggers, blackouts, a jitter, or a deadline for the start of their runs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from tests.core_world import START, Desk, make_app, make_job, make_offer

from jobcloud.config import CatchUp, ExcludedDay, JobKind
from jobcloud.errors import ConfigError
from jobcloud.messages import BackfillJob, PutJob, Retry, Trigger
from jobcloud.model import Cause, ShardState, changed
from jobcloud.scheduler.timetable import start_ms, utc

MINUTE = 60_000
HOUR = 60 * MINUTE


def local(ms: int) -> str:
    return utc(START + ms).replace(" UTC", "").replace(" ", "T")


def fire_times(desk: Desk) -> list[int]:
    return [firing.fire_ms - START for firing in desk.firings()]


def skipped(desk: Desk) -> int:
    return desk.scheduler.job_states["report"].skipped


def timed(**fields: Any) -> Any:
    given: dict[str, Any] = {"cron": "", "misfire": True, "misfire_limit": 100} | fields
    return make_job(**given)


def test_each_trigger_of_a_job_makes_runs() -> None:
    job = timed(cron="0 0/10 * * * ?", triggers=("@every 15m", f"@at {local(7 * MINUTE)}"), start_time=local(0))
    desk = Desk(make_app(), job)
    for _ in range(16):
        desk.run_until_idle(MINUTE)
        for task_id in (one.task_id for one in desk.launched(desk.offer(make_offer(f"o{desk.at}", "a1")))):
            desk.status(task_id, "TASK_FINISHED")
    assert sorted({at // MINUTE for at in fire_times(desk)}) == [7, 10, 15]


def test_triggers_of_a_removed_period_end_with_an_update() -> None:
    desk = Desk(make_app(), timed(triggers=("@every 1m",)))
    desk.do(PutJob(desk.at, timed(triggers=("@every 1m",), end_time=local(150_000)), replace=True))
    desk.run_until_idle(HOUR)
    assert [at // MINUTE for at in fire_times(desk)] == [1, 2]
    assert "report" not in desk.scheduler._timetable.due


def test_job_does_not_fire_in_a_blackout() -> None:
    window = f"{local(5 * MINUTE)}/{local(10 * MINUTE)}"
    desk = Desk(make_app(), timed(cron="0 * * * * ?", blackouts=(window,)))
    desk.run_until_idle(12 * MINUTE)
    assert [at // MINUTE for at in fire_times(desk)] == [1, 2, 3, 4, 10, 11, 12]
    assert not skipped(desk), "fire times of a blackout are none"


def test_fire_times_missed_before_a_blackout_are_made_up_after_it() -> None:
    window = f"{local(5 * MINUTE)}/{local(30 * MINUTE)}"
    job = timed(cron="0 * * * * ?", blackouts=(window,), catch_up=CatchUp.ALL, catch_up_limit=100)
    desk = Desk(make_app(), job)
    desk.at += 10 * MINUTE  # nobody led
    desk.restart()
    desk.run_until_idle(19 * MINUTE)
    assert fire_times(desk) == []
    desk.run_until_idle(MINUTE)
    made_up = [firing for firing in desk.firings() if firing.cause is Cause.CATCH_UP]
    assert [(one.fire_ms - START) // MINUTE for one in made_up] == [1, 2, 3, 4]
    assert [at // MINUTE for at in fire_times(desk)] == [1, 2, 3, 4, 30]


def test_jitter_delays_each_fire_time_by_its_own_time_and_keeps_the_order() -> None:
    job = timed(cron="0 * * * * ?", jitter_ms=150_000)
    desk = Desk(make_app(), job)
    begun: dict[int, int] = {}
    for _ in range(60 * 20):
        desk.run_until_idle(1_000)
        for at in fire_times(desk):
            begun.setdefault(at, desk.at - START)
    delays = [start - at for at, start in begun.items()]
    assert list(begun) == sorted(begun)
    assert list(begun.values()) == sorted(begun.values())
    assert all(0 <= delay < 150_000 + MINUTE for delay in delays)
    assert len(set(delays)) > 5
    assert {firing.cause for firing in desk.firings()} == {Cause.CRON}
    assert not skipped(desk)
    assert desk.scheduler._timetable.due["report"] % MINUTE == START % MINUTE, "the fire time is shown"


def test_jitter_of_a_fire_time_is_the_same_for_each_leader_and_avoids_blackouts() -> None:
    job = timed(cron="0 * * * * ?", jitter_ms=150_000)
    starts = [start_ms(job, job.times(), START + n * MINUTE) for n in range(50)]
    assert starts == [start_ms(job, job.times(), START + n * MINUTE) for n in range(50)]
    other = make_job("other", cron="0 * * * * ?", jitter_ms=150_000)
    assert starts != [start_ms(other, other.times(), START + n * MINUTE) for n in range(50)]
    closed = timed(cron="0 * * * * ?", jitter_ms=150_000, blackouts=(f"{local(0)}/{local(3 * HOUR)}",))
    due = [START + n * MINUTE for n in range(50)]
    assert [start_ms(closed, closed.times(), at) for at in due] == due


def test_run_that_has_not_started_in_time_is_cancelled() -> None:
    job = timed(triggers=(f"@at {local(MINUTE)}",), start_deadline_ms=90_000, shard_count=3)
    desk = Desk(make_app(), job)
    desk.run_until_idle(MINUTE + 90_000)
    assert {shard.state for shard in desk.firings()[0].shards} == {ShardState.WAITING}
    desk.run_until_idle(1)
    (firing,) = desk.firings()
    assert {shard.state for shard in firing.shards} == {ShardState.CANCELLED}
    assert "within 90 s of the fire time (startDeadlineSeconds)" in firing.shards[0].message
    assert desk.launched(desk.offer(make_offer("o1", "a1"))) == []


def test_failed_run_that_is_retried_has_no_deadline() -> None:
    desk = Desk(make_app(), timed(triggers=(f"@at {local(MINUTE)}",), start_deadline_ms=90_000))
    desk.run_until_idle(MINUTE)
    (firing,) = desk.firings()
    # So a restored state has them if it is unknown whether they ran.
    failed = {n: changed(shard, state=ShardState.FAILED, ended_ms=desk.at) for n, shard in enumerate(firing.shards)}
    desk.scheduler._firings.put_shards(firing.id, failed, desk.at)
    desk.do(Retry(desk.at, firing.id))
    desk.restart()
    desk.run_until_idle(HOUR)
    assert len(desk.launched(desk.offer(make_offer("o1", "a1")))) == len(firing.shards)


@pytest.mark.parametrize("restart", [False, True])
def test_run_of_which_a_shard_has_started_has_no_deadline(restart: bool) -> None:
    job = timed(triggers=(f"@at {local(MINUTE)}",), start_deadline_ms=90_000, shard_count=3, resources=of_one_agent())
    desk = Desk(make_app(), job)
    desk.run_until_idle(MINUTE)
    (launched,) = desk.launched(desk.offer(make_offer("o1", "a1")))
    if restart:
        desk.restart()
    desk.run_until_idle(HOUR)
    desk.status(launched.task_id, "TASK_FINISHED")
    (firing,) = desk.firings()
    assert [shard.state for shard in firing.shards].count(ShardState.WAITING) == 2


def of_one_agent() -> Any:
    """Resources of which an agent has room for one shard."""
    return make_job().resources._replace(cpus=make_offer("o", "a").shares[0].amount // 2 + 1)


def test_deadline_counts_after_a_fail_over_and_for_changed_jobs() -> None:
    job = timed(triggers=(f"@at {local(MINUTE)}",), start_deadline_ms=90_000)
    desk = Desk(make_app(), job)
    desk.run_until_idle(MINUTE)
    desk.restart()
    desk.do(PutJob(desk.at, timed(triggers=(f"@at {local(MINUTE)}",), start_deadline_ms=10_000), replace=True))
    desk.run_until_idle(10_001)
    assert desk.firings()[0].shards[0].state is ShardState.CANCELLED


def test_fire_times_missed_by_more_than_the_deadline_are_skipped() -> None:
    job = timed(cron="0 * * * * ?", start_deadline_ms=150_000, catch_up=CatchUp.ALL, catch_up_limit=100)
    desk = Desk(make_app(), job)
    desk.at += 10 * MINUTE + 10_000
    desk.restart()
    desk.tick()
    assert [at // MINUTE for at in fire_times(desk)] == [8, 9, 10]
    assert skipped(desk) == 7
    assert "startDeadlineSeconds" in desk.scheduler.job_states["report"].skipped_reason


def test_runs_of_a_backfill_have_no_deadline() -> None:
    job = timed(cron="0 * * * * ?", start_deadline_ms=10_000)
    desk = Desk(make_app(), job)
    desk.do(BackfillJob(desk.at, "report", (START - HOUR,)))
    desk.run_until_idle(MINUTE // 2)
    assert [one.state for one in desk.firings()[0].shards] == [ShardState.WAITING] * job.shard_count


@pytest.mark.parametrize(
    ("field", "value"),
    [("triggers", ("@every 1m",)), ("start_time", "2026-12-01T00:00"), ("end_time", "2026-12-01T00:00"),
     ("blackouts", ("SAT",)), ("skip_on", ("closed",)), ("only_on", ("open",)),
     ("on_excluded_day", ExcludedDay.NEXT),
     ("jitter_ms", 1_000), ("start_deadline_ms", 1_000)],
)  # fmt: skip
def test_daemon_job_has_none_of_these_fields(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="for TRANSIENT jobs"):
        make_job(kind=JobKind.DAEMON, **{field: value})


def test_deadline_is_longer_than_the_jitter() -> None:
    with pytest.raises(ConfigError, match="lower jitterSeconds"):
        make_job(jitter_ms=60_000, start_deadline_ms=60_000)


def test_trigger_by_hand_counts_its_deadline_from_the_trigger() -> None:
    desk = Desk(make_app(), timed(triggers=("@every 30d",), start_deadline_ms=10_000))
    desk.do(Trigger(desk.at, "report"))
    desk.run_until_idle(10_000)
    assert desk.firings()[0].shards[0].state is ShardState.WAITING
    desk.run_until_idle(1)
    assert desk.firings()[0].shards[0].state is ShardState.CANCELLED


def test_order_of_starts_holds_with_a_jitter_longer_than_the_interval() -> None:
    job = timed(cron="0/10 * * * * ?", jitter_ms=HOUR)
    found = [start_ms(job, job.times(), START + n * 10_000) for n in range(100)]
    assert any(first > second for first, second in pairwise(found)), "the test needs a start before an earlier one"
    desk = Desk(make_app(), job)
    desk.run_until_idle(2 * HOUR)
    times = fire_times(desk)
    assert times == sorted(times)
