"""The field `expectedBy`: an alert opens if no run of the day has succeeded by a time of the day."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import POLICY, START, Desk, make_app, make_job, make_offer

from jobcloud import zones
from jobcloud.config import JobKind
from jobcloud.errors import ConfigError
from jobcloud.messages import Kind, PutJob, RemoveJob, SetJobEnabled, SetPaused, Trigger
from jobcloud.model import Alert, Condition, alert_key
from jobcloud.scheduler import alerts
from jobcloud.scheduler.state import AlertChannel
from jobcloud.sentences import Words
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import read_job
from jobcloud.server.records import encode
from jobcloud.server.urls import UrlPolicy
from jobcloud.triggers import end_of_day, parse_expected

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
ALERTING = replace(POLICY, alert_channels=(AlertChannel("ops"),))


def make_desk(expected: str = "06:00", **fields: Any) -> Desk:
    """It begins at midnight in UTC, on a Thursday."""
    desk = Desk(make_app(), make_job(expected_by=expected, **fields), policy=ALERTING)
    desk.tick()
    return desk


def end_run(desk: Desk, state: str = "TASK_FINISHED") -> None:
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer(f"o{len(desk.all)}"))
    for task_id in desk.running():
        desk.status(task_id, state)


def is_open(desk: Desk) -> bool:
    alert = known(desk)
    return alert is not None and not alert.closed_ms


def known(desk: Desk) -> Alert | None:
    return desk.stored.alerts.get(alert_key(Condition.EXPECTED, "report"))


def test_alert_opens_at_the_time_and_ends_with_the_next_success() -> None:
    desk = make_desk()
    end_run(desk, "TASK_FAILED")
    desk.run_until_idle(6 * HOUR - 1)
    assert not is_open(desk)
    desk.run_until_idle(1)
    alert = known(desk)
    assert alert is not None
    assert alert.words == Words("expected", {"due": "2026-01-01T06:00:00Z"})
    end_run(desk)
    assert not is_open(desk)
    desk.run_until_idle(24 * HOUR - 1)
    assert not is_open(desk)
    desk.run_until_idle(1)
    assert is_open(desk), "the success of one day is none of the next"


def test_success_before_the_time_counts_for_its_day_alone() -> None:
    desk = make_desk()
    desk.run_until_idle(HOUR)
    end_run(desk)
    desk.run_until_idle(29 * HOUR - 1)
    assert not is_open(desk)
    desk.run_until_idle(1)
    assert is_open(desk)


def run_for(desk: Desk, ms: int, state: str = "TASK_FINISHED") -> None:
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer(f"o{len(desk.all)}"))
    (task_id,) = desk.running()
    desk.status(task_id, "TASK_RUNNING", "r")
    desk.at += ms
    desk.status(task_id, state)


def test_alert_opens_when_a_run_that_begins_now_would_end_too_late() -> None:
    desk = make_desk()
    run_for(desk, 40 * MINUTE)
    desk.restart()
    desk.run_until_idle(START + DAY + 5 * HOUR + 20 * MINUTE - 1 - desk.at)
    assert not is_open(desk)
    desk.run_until_idle(1)
    alert = known(desk)
    assert alert is not None
    assert alert.words == Words("expected_soon", {"seconds": 2_400, "due": "2026-01-02T06:00:00Z"})
    desk.restart()
    desk.run_until_idle(40 * MINUTE)
    alert = known(desk)
    assert alert is not None
    assert alert.words == Words("expected", {"due": "2026-01-02T06:00:00Z"})
    assert alert.count == 1, "it is the same alert"


def test_run_under_way_postpones_the_alert_to_the_time() -> None:
    desk = make_desk()
    run_for(desk, 40 * MINUTE)
    desk.run_until_idle(START + DAY + 5 * HOUR - desk.at)
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer(f"o{len(desk.all)}"))
    desk.run_until_idle(HOUR - 1)
    assert not is_open(desk)
    desk.run_until_idle(1)
    assert is_open(desk)


def test_length_of_runs_grows_at_once_and_is_forgotten_slowly() -> None:
    desk = make_desk()
    for took, lasts in ((40, 40), (20, 35), (60, 60), (20, 50)):
        run_for(desk, took * MINUTE)
        assert desk.scheduler.job_states["report"].lasts_ms == lasts * MINUTE
    run_for(desk, HOUR, "TASK_FAILED")
    assert desk.scheduler.job_states["report"].lasts_ms == 50 * MINUTE
    desk.do(PutJob(desk.at, make_job(), replace=True))
    desk.run_until_idle()
    assert b"lasts_ms" not in encode(Kind.JOB_STATE, desk.scheduler.job_states["report"])


def test_run_that_takes_longer_than_the_morning_warns_from_midnight_on() -> None:
    desk = make_desk()
    run_for(desk, 7 * HOUR)
    desk.run_until_idle(START + DAY - 1 - desk.at)
    assert not is_open(desk), "the success belongs to this day"
    desk.run_until_idle(1)
    assert is_open(desk)


def test_open_alert_counts_the_days() -> None:
    desk = make_desk()
    desk.run_until_idle(3 * DAY)
    alert = known(desk)
    assert alert is not None
    assert alert.count == 3


def test_only_the_given_weekdays_count() -> None:
    desk = make_desk("SAT,SUN 06:00")
    desk.run_until_idle(2 * DAY)
    assert not is_open(desk)
    desk.run_until_idle(6 * HOUR)
    assert is_open(desk)


def test_new_leader_opens_the_alert_once() -> None:
    desk = make_desk()
    desk.restart()
    desk.at += 7 * HOUR
    desk.restart()
    desk.tick()
    alert = known(desk)
    assert alert is not None
    desk.restart()
    desk.run_until_idle(HOUR)
    assert known(desk) is not None
    assert getattr(known(desk), "count", 0) == 1


def test_new_leader_knows_the_success_of_the_day() -> None:
    desk = make_desk()
    end_run(desk)
    desk.restart()
    desk.run_until_idle(7 * HOUR)
    assert not is_open(desk)


@pytest.mark.parametrize("off", [SetPaused(0, True), SetJobEnabled(0, "report", False)])
def test_time_in_a_pause_does_not_count(off: Any) -> None:
    desk = make_desk()
    fields = {name: getattr(off, name) for name in off.__struct_fields__}
    desk.do(type(off)(**fields | {"at": desk.at}))
    desk.run_until_idle(7 * HOUR)
    on = {"paused": False} if isinstance(off, SetPaused) else {"enabled": True}
    desk.do(type(off)(**fields | on | {"at": desk.at}))
    desk.restart()
    desk.run_until_idle(23 * HOUR - 1)
    assert not is_open(desk)
    desk.run_until_idle(1)
    assert is_open(desk)


def test_time_before_the_field_was_set_does_not_count() -> None:
    desk = make_desk("")
    assert b"expected_ms" not in encode(Kind.JOB_STATE, desk.scheduler.job_states["report"])
    desk.run_until_idle(7 * HOUR)
    desk.do(PutJob(desk.at, make_job(expected_by="06:00"), replace=True))
    desk.run_until_idle(HOUR)
    assert not is_open(desk)
    desk.do(PutJob(desk.at, make_job(expected_by="08:30"), replace=True))
    desk.run_until_idle(HOUR)
    assert is_open(desk)
    desk.do(PutJob(desk.at, make_job(), replace=True))
    desk.run_until_idle()
    assert not is_open(desk)
    assert b"expected_ms" not in encode(Kind.JOB_STATE, desk.scheduler.job_states["report"])


def test_job_that_is_registered_again_begins_anew() -> None:
    desk = make_desk()
    desk.run_until_idle(7 * HOUR)
    desk.do(RemoveJob(desk.at, "report"))
    desk.run_until_idle(HOUR)
    assert not is_open(desk)
    desk.do(PutJob(desk.at, make_job(expected_by="06:00")))
    desk.run_until_idle(22 * HOUR - 1)
    assert not is_open(desk)
    desk.run_until_idle(1)
    assert is_open(desk)


def test_success_while_the_clock_was_ahead_hides_one_day_at_most() -> None:
    desk = make_desk()
    desk.at += 30 * DAY
    end_run(desk)
    desk.at = START + HOUR
    desk.tick()
    desk.run_until_idle(6 * HOUR)
    desk.run_until_idle(DAY)
    assert is_open(desk)


def test_many_jobs_of_one_time_are_looked_at_in_several_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_AT_ONCE", 2)
    jobs = [make_job(f"j{number}", expected_by="06:00") for number in range(5)]
    desk = Desk(make_app(), *jobs, policy=ALERTING)
    desk.tick()
    desk.at += 6 * HOUR
    desk.tick()
    assert len(desk.stored.alerts) == 2
    desk.run_until_idle()
    assert len(desk.stored.alerts) == 5


def test_times_follow_the_clock_of_the_zone() -> None:
    zone = zones.zone("Europe/Berlin")
    expected = parse_expected("02:30")

    def next_after(text: str) -> str:
        at = int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1_000)
        found = expected.next_after(at, zone)
        assert found is not None
        return f"{datetime.fromtimestamp(found / 1_000, zone):%m-%d %H:%M %Z}"

    assert next_after("2026-03-29T00:00") == "03-29 03:00 CEST", "the clock skips this time"
    assert next_after("2026-10-25T00:00") == "10-25 02:30 CEST", "the first of the two"
    assert next_after("2026-10-25T04:00") == "10-26 02:30 CET"
    assert parse_expected("06:00").next_after(1 << 53, zone) is None
    assert end_of_day(START, zone) == START + 23 * HOUR - 1


@pytest.mark.parametrize(
    "text", ["6:00", "24:00", "06:60", "daily 06:00", "MON-FRI", "06:00 MON", "06:00:00", "x" * 41]
)
def test_wrong_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="write") as caught:
        make_job(expected_by=text)
    assert caught.value.field == "expectedBy"


def test_resident_job_has_no_expected_success() -> None:
    with pytest.raises(ConfigError, match="is for TRANSIENT jobs"):
        make_job(kind=JobKind.DAEMON, expected_by="06:00")


def test_job_of_the_example_is_accepted_and_expected_on_workdays() -> None:
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text().partition("### Success expected by")[2]
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found is not None
    job = read_job(parse(found[1].encode()), UrlPolicy())
    assert json.loads(found[1])["expectedBy"] == job.expected_by == "MON-FRI 06:00"
    desk = Desk(make_app("demo"), policy=ALERTING)
    desk.do(PutJob(desk.at, job))
    desk.run_until_idle(5 * HOUR)
    alert = desk.stored.alerts.get(alert_key(Condition.EXPECTED, "nightly-report"))
    assert alert is not None
    assert alert.words == Words("expected", {"due": "2026-01-01T05:00:00Z"})
