"""The trigger `@after`: a run fires some time after the end of the previous one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core_world import START, Desk, make_app, make_job

from jobcloud.config import CatchUp, Concurrency, ExcludedDay, JobKind
from jobcloud.errors import ConfigError, Conflict
from jobcloud.messages import (
    BackfillJob,
    CancelRun,
    Kind,
    PutCalendar,
    PutJob,
    Retry,
    SetJobEnabled,
    SetPaused,
    Tick,
    Trigger,
)
from jobcloud.model import Calendar, Cause, ShardState, changed
from jobcloud.scheduler.recovery import shard_key
from jobcloud.server.records import decode, encode
from jobcloud.triggers import parse_days

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def after(delay: str = "10m", **fields: Any) -> Any:
    return make_job(**{"cron": "", "triggers": (f"@after {delay}",)} | fields)


def make_desk(delay: str = "10m", **fields: Any) -> Desk:
    return Desk(make_app(), after(delay, **fields))


def fire_times(desk: Desk) -> list[int]:
    """The fire times from the start of the test on (ms)."""
    return sorted(firing.fire_ms - START for firing in desk.firings())


def due(desk: Desk) -> int | None:
    found = desk.scheduler.due.get("report")
    return None if found is None else found - START


def run_for(desk: Desk, ms: int, end: str = "TASK_FINISHED") -> None:
    """Let a run that has fired start at once, and end after some time."""
    desk.offer()
    desk.at += ms
    for task_id in desk.running():
        desk.status(task_id, end)


def test_first_run_fires_at_registration_and_the_next_ones_after_the_end() -> None:
    desk = make_desk()
    desk.run_until_idle()
    assert fire_times(desk) == [0]
    run_for(desk, 3 * MINUTE)
    assert due(desk) == 13 * MINUTE
    desk.run_until_idle(10 * MINUTE - 1)
    assert fire_times(desk) == [0]
    desk.run_until_idle(1)
    assert fire_times(desk) == [0, 13 * MINUTE]
    run_for(desk, HOUR)
    assert due(desk) == 83 * MINUTE


def test_nothing_is_due_while_a_run_waits_or_runs() -> None:
    desk = make_desk()
    desk.run_until_idle(HOUR)
    assert (fire_times(desk), due(desk)) == ([0], None)
    desk.offer()
    desk.run_until_idle(HOUR)
    assert (fire_times(desk), due(desk)) == ([0], None)
    reasons = {reason.code: reason for reason in desk.scheduler.explain("report", desk.at).reasons}
    assert reasons["after_end"].parameters == {"run": desk.firings()[0].id, "seconds": 600}


def test_fire_time_is_the_first_whole_second_after_the_delay() -> None:
    desk = make_desk("1s")
    desk.run_until_idle()
    run_for(desk, 1)
    assert due(desk) == 2_000


@pytest.mark.parametrize("end", ["TASK_FINISHED", "TASK_FAILED", "TASK_KILLED"])
def test_outcome_of_the_run_does_not_matter(end: str) -> None:
    desk = make_desk()
    desk.run_until_idle()
    run_for(desk, MINUTE, end)
    assert due(desk) == 11 * MINUTE


def test_run_ends_when_its_last_attempt_ends() -> None:
    desk = make_desk(retry_count=1, retry_delay_ms=MINUTE, retry_jitter=0)
    desk.run_until_idle()
    run_for(desk, MINUTE, "TASK_FAILED")
    assert due(desk) is None
    desk.run_until_idle(MINUTE)
    run_for(desk, MINUTE, "TASK_FAILED")
    assert due(desk) == 13 * MINUTE


def test_delay_counts_from_the_end_of_a_cancelled_run() -> None:
    desk = make_desk()
    desk.run_until_idle(MINUTE)
    desk.do(CancelRun(desk.at, desk.firings()[0].id))
    assert due(desk) == 11 * MINUTE


def test_run_by_hand_counts_as_the_previous_run() -> None:
    desk = make_desk()
    desk.run_until_idle()
    run_for(desk, 0)
    desk.run_until_idle(9 * MINUTE)
    desk.do(Trigger(desk.at, "report"))
    assert due(desk) is None
    run_for(desk, 5 * MINUTE)
    assert due(desk) == 24 * MINUTE


def test_retried_run_postpones_the_next_one() -> None:
    desk = make_desk()
    desk.run_until_idle()
    run_for(desk, 0, "TASK_FAILED")
    assert due(desk) == 10 * MINUTE
    desk.do(Retry(desk.at, desk.firings()[0].id))
    assert due(desk) is None
    desk.run_until_idle(HOUR)
    assert fire_times(desk) == [0]
    run_for(desk, 0)
    assert due(desk) == 70 * MINUTE


def test_run_skipped_by_its_deadline_begins_the_delay_anew() -> None:
    desk = make_desk(start_deadline_ms=30_000, catch_up=CatchUp.ONCE)
    desk.run_until_idle(MINUTE)
    assert desk.firings()[0].shards[0].state is ShardState.CANCELLED
    assert due(desk) == 10 * MINUTE + 31_000
    desk.at += HOUR
    desk.run_until_idle()
    assert len(desk.firings()) == 1
    assert desk.scheduler.job_states["report"].skipped == 1
    assert due(desk) == 71 * MINUTE


# ----------------------------------------------------------------------------------------------------- leaders


def test_every_new_leader_continues_with_the_same_fire_time() -> None:
    """A leader that dies has stored all or nothing of an event."""
    desk = make_desk()
    desk.restart()
    desk.run_until_idle()
    desk.restart()
    desk.run_until_idle(MINUTE)
    assert fire_times(desk) == [0]
    desk.offer()
    desk.restart()
    desk.at += MINUTE
    (task_id,) = desk.running()
    desk.scheduler.handle(Tick(desk.at))
    desk.status(task_id, "TASK_FINISHED")
    assert due(desk) == 12 * MINUTE
    desk.restart()
    assert due(desk) == 12 * MINUTE
    desk.run_until_idle(10 * MINUTE)
    assert fire_times(desk) == [0, 12 * MINUTE]
    desk.restart()
    desk.run_until_idle(HOUR)
    assert fire_times(desk) == [0, 12 * MINUTE]


@pytest.mark.parametrize(
    ("catch_up", "fired", "then"),
    [(CatchUp.SKIP, [0], 70), (CatchUp.ONCE, [0, 10], None), (CatchUp.ALL, [0, 10], None)],
)
def test_run_that_was_missed_without_a_leader_is_made_up_for_once(
    catch_up: CatchUp, fired: list[int], then: int | None
) -> None:
    desk = make_desk(catch_up=catch_up)
    desk.run_until_idle()
    run_for(desk, 0)
    desk.at += HOUR
    desk.restart()
    desk.run_until_idle()
    assert fire_times(desk) == [minute * MINUTE for minute in fired]
    assert due(desk) == (then if then is None else then * MINUTE)
    assert desk.scheduler.job_states["report"].skipped == (catch_up is CatchUp.SKIP)


def test_lost_state_of_a_job_does_not_shorten_the_delay() -> None:
    desk = make_desk()
    desk.run_until_idle()
    run_for(desk, MINUTE)
    del desk.stored.job_states["report"]
    desk.restart()
    assert due(desk) == 11 * MINUTE


def test_run_that_the_recovery_ends_counts() -> None:
    desk = make_desk(shard_count=20)
    desk.run_until_idle()
    run = desk.firings()[0]
    for item in range(20):
        desk.stored.shards[shard_key(run.id, item)] = None
    desk.at += HOUR
    desk.restart()
    assert desk.firings()[0].ended_ms
    assert due(desk) == 70 * MINUTE


# ----------------------------------------------------------------------------------------------------- the clock


def test_clock_that_was_ahead_leaves_a_wait_of_one_delay_at_most() -> None:
    desk = make_desk()
    desk.run_until_idle()
    desk.at += DAY
    run_for(desk, 0)
    assert due(desk) == DAY + 10 * MINUTE
    desk.at = START + MINUTE
    desk.tick()
    assert due(desk) == 11 * MINUTE
    assert not desk.scheduler.warnings
    desk.run_until_idle(10 * MINUTE)
    assert fire_times(desk) == [0, 11 * MINUTE]


def test_new_leader_with_a_right_clock_shortens_the_wait_too() -> None:
    desk = make_desk()
    desk.run_until_idle()
    desk.at += DAY
    run_for(desk, 0)
    desk.at = START + MINUTE
    desk.restart()
    assert due(desk) == 11 * MINUTE


def test_fire_time_that_was_used_before_the_clock_was_set_back_is_not_used_again() -> None:
    desk = make_desk("10s")
    desk.run_until_idle()
    run_for(desk, 0)
    desk.run_until_idle(10_000)
    run_for(desk, 0)
    assert fire_times(desk) == [0, 10_000]
    desk.at = START
    desk.tick()
    desk.run_until_idle(10_000)
    assert fire_times(desk) == [0, 10_000], "this run exists"
    assert due(desk) == 20_000
    desk.run_until_idle(10_000)
    assert fire_times(desk) == [0, 10_000, 20_000]


# ----------------------------------------------------------------------------------------------------- operators


def test_disabled_job_fires_when_it_is_enabled_if_the_delay_has_passed() -> None:
    desk = make_desk()
    desk.run_until_idle()
    run_for(desk, 0)
    desk.do(SetJobEnabled(desk.at, "report", False))
    desk.run_until_idle(MINUTE)
    desk.do(SetJobEnabled(desk.at, "report", True))
    assert due(desk) == 10 * MINUTE
    desk.do(SetJobEnabled(desk.at, "report", False))
    desk.run_until_idle(HOUR)
    assert (due(desk), fire_times(desk)) == (None, [0])
    desk.do(SetJobEnabled(desk.at, "report", True))
    desk.run_until_idle()
    assert fire_times(desk) == [0, 61 * MINUTE]


def test_run_that_disabling_ends_begins_the_delay() -> None:
    desk = make_desk()
    desk.run_until_idle(MINUTE)
    desk.do(SetJobEnabled(desk.at, "report", False))
    assert desk.firings()[0].ended_ms
    desk.do(SetJobEnabled(desk.at, "report", True))
    assert due(desk) == 11 * MINUTE


@pytest.mark.parametrize("catch_up", [CatchUp.SKIP, CatchUp.ONCE])
def test_run_that_was_due_in_a_pause_follows_the_catch_up_policy(catch_up: CatchUp) -> None:
    desk = make_desk(catch_up=catch_up)
    desk.run_until_idle()
    run_for(desk, 0)
    desk.do(SetPaused(desk.at, True, job="report"))
    desk.run_until_idle(HOUR)
    assert (due(desk), fire_times(desk)) == (None, [0])
    desk.do(SetPaused(desk.at, False, job="report"))
    desk.run_until_idle()
    assert fire_times(desk) == ([0] if catch_up is CatchUp.SKIP else [0, 10 * MINUTE])


def test_run_that_ends_in_a_pause_begins_the_delay() -> None:
    desk = make_desk()
    desk.run_until_idle()
    desk.offer()
    desk.do(SetPaused(desk.at, True, job="report"))
    desk.at += MINUTE
    desk.status(desk.running()[0], "TASK_FINISHED")
    desk.do(SetPaused(desk.at, False, job="report"))
    assert due(desk) == 11 * MINUTE


def test_update_counts_a_new_delay_from_the_end_of_the_last_run() -> None:
    desk = make_desk()
    desk.run_until_idle()
    run_for(desk, 0)
    desk.run_until_idle(MINUTE)
    desk.do(PutJob(desk.at, after("30m"), replace=True))
    assert due(desk) == 30 * MINUTE
    desk.do(PutJob(desk.at, after("30s"), replace=True))
    assert due(desk) == MINUTE, "it has passed: the job fires at once"
    desk.do(PutJob(desk.at, make_job(), replace=True))
    run_for(desk, 0)
    assert b"after_ms" not in encode(Kind.JOB_STATE, desk.scheduler.job_states["report"])
    desk.do(PutJob(desk.at, after(), replace=True))
    assert due(desk) == 11 * MINUTE


def test_update_that_restarts_the_job_begins_the_delay() -> None:
    desk = make_desk()
    desk.run_until_idle(MINUTE)
    desk.do(PutJob(desk.at, after(job_class="shop.jobs:Other"), replace=True))
    assert desk.firings()[0].ended_ms
    assert due(desk) == 11 * MINUTE


def test_backfill_is_refused_without_other_triggers() -> None:
    desk = make_desk()
    with pytest.raises(Conflict, match="no fire times to make up for"):
        desk.do(BackfillJob(desk.at, "report", (START - 1_000,), 1))
    mixed = make_desk(cron="0 0 * * * ?")
    mixed.do(BackfillJob(mixed.at, "report", (START - HOUR,), 1))
    mixed.run_until_idle()
    run_for(mixed, 0)
    mixed.run_until_idle()
    assert -HOUR in fire_times(mixed)
    run_for(mixed, MINUTE)
    assert due(mixed) == 11 * MINUTE, "its run counts, too"


# ----------------------------------------------------------------------------------------------------- combinations


def test_other_triggers_fire_at_their_times_and_their_runs_count() -> None:
    desk = make_desk("40m", cron="0 0 * * * ?")
    desk.run_until_idle()
    assert fire_times(desk) == [0]
    run_for(desk, 0)
    assert due(desk) == 40 * MINUTE
    desk.run_until_idle(40 * MINUTE)
    run_for(desk, 0)
    assert due(desk) == 60 * MINUTE
    desk.run_until_idle(20 * MINUTE)
    run_for(desk, 15 * MINUTE)
    assert fire_times(desk) == [0, 40 * MINUTE, 60 * MINUTE]
    assert due(desk) == 115 * MINUTE


def test_two_triggers_at_one_instant_make_one_run() -> None:
    desk = make_desk("30m", triggers=("@after 30m", "@every 30m"))
    desk.run_until_idle()
    run_for(desk, 0)
    desk.run_until_idle(30 * MINUTE)
    assert fire_times(desk) == [0, 30 * MINUTE]
    assert not desk.scheduler.job_states["report"].skipped


def test_runs_at_once_must_all_end() -> None:
    desk = make_desk(concurrency=Concurrency.ALLOW, concurrency_limit=5)
    desk.run_until_idle()
    desk.do(Trigger(desk.at, "report"))
    desk.offer()
    first, second = desk.running()
    desk.status(first, "TASK_FINISHED")
    assert due(desk) is None
    desk.at += MINUTE
    desk.status(second, "TASK_FINISHED")
    assert due(desk) == 11 * MINUTE


def test_run_of_a_blackout_waits_for_its_end() -> None:
    desk = make_desk(blackouts=("00:05-02:00",))
    desk.run_until_idle()
    run_for(desk, 0)
    assert due(desk) == 2 * HOUR
    desk.run_until_idle(2 * HOUR)
    assert fire_times(desk) == [0, 2 * HOUR]
    assert not desk.scheduler.job_states["report"].skipped


def test_run_on_an_excluded_day_waits_for_an_open_one() -> None:
    desk = Desk(make_app())
    days = ("2026-01-02/2026-01-03",)
    desk.do(PutCalendar(desk.at, Calendar("closed", days, "2099-12-31"), parse_days(days)))
    desk.do(PutJob(desk.at, after("1d", skip_on=("closed",))))
    desk.run_until_idle()
    run_for(desk, 0)
    assert due(desk) == 3 * DAY
    days = ("2026-01-03",)
    desk.do(PutCalendar(desk.at, Calendar("closed", days, "2099-12-31"), parse_days(days)))
    desk.tick()
    assert due(desk) == DAY


def test_period_bounds_the_runs() -> None:
    desk = make_desk(start_time="2026-01-01T01:00", end_time="2026-01-01T01:15")
    assert due(desk) == HOUR
    desk.run_until_idle(HOUR)
    run_for(desk, MINUTE)
    assert due(desk) == 71 * MINUTE
    desk.run_until_idle(10 * MINUTE)
    run_for(desk, 0)
    assert (fire_times(desk), due(desk)) == ([HOUR, 71 * MINUTE], None)


def test_jitter_comes_after_the_delay() -> None:
    desk = make_desk("60s", jitter_ms=30_000)
    desk.run_until_idle(30_000)
    run_for(desk, 0)
    ended, fire = desk.firings()[0].ended_ms, desk.scheduler.due["report"]
    desk.run_until_idle(fire - desk.at - 1)
    assert len(desk.firings()) == 1
    desk.run_until_idle(30_001)
    assert len(desk.firings()) == 2
    assert ended + 60_000 <= fire < ended + 61_000


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": JobKind.DAEMON, "cron": "0 0 * * * ?"}, "is for TRANSIENT jobs"),
        ({"skip_on": ("closed",), "on_excluded_day": ExcludedDay.NEXT}, "does not fit @after"),
        ({"triggers": ("@after 10m", "@after 1h")}, "has @after twice"),
        ({"triggers": ("@after 0s",)}, "is not the delay"),
        ({"triggers": ("@after 1500ms",)}, "is not the delay"),
        ({"triggers": ("@after soon",)}, "is not a duration"),
        ({"triggers": ("@after",)}, "@after"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        after(**fields)


# ----------------------------------------------------------------------------------------------------- records


def test_job_has_a_format_that_older_builds_do_not_read() -> None:
    assert json.loads(encode(Kind.JOB, after()))["v"] == 2
    assert json.loads(encode(Kind.JOB, make_job(triggers=("@every 10m",))))["v"] == 1


def test_state_without_a_delay_has_the_form_of_older_builds() -> None:
    desk = make_desk()
    state = desk.scheduler.job_states["report"]
    assert b"after_ms" not in encode(Kind.JOB_STATE, state)
    later = changed(state, after_ms=START)
    assert decode(Kind.JOB_STATE, "report", encode(Kind.JOB_STATE, later)) == later


def test_firing_has_a_cause_that_older_builds_know() -> None:
    desk = make_desk()
    desk.run_until_idle()
    assert desk.firings()[0].cause is Cause.CRON
