"""Calendars: the days on which jobs fire, and what a change of a calendar changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.core_world import POLICY, START, Desk, make_app, make_job

from jobcloud.config import CatchUp, ExcludedDay
from jobcloud.errors import ConfigError, Conflict, NotFound
from jobcloud.messages import Apply, PutCalendar, PutJob, RemoveCalendar, RemoveJob, SetPaused, Tick
from jobcloud.model import Calendar
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler import calendars as part
from jobcloud.triggers import parse_days

DAY = 86_400_000
TODAY = datetime.fromtimestamp(START / 1_000, UTC).date()


def day(number: int) -> str:
    """A day from the start of the test on."""
    return (TODAY + timedelta(number)).isoformat()


def put(desk: Desk, *numbers: int, name: str = "closed", known_until: str = "2099-12-31") -> None:
    days = tuple(map(day, numbers))
    desk.do(PutCalendar(desk.at, Calendar(name, days, known_until), parse_days(days)))


def make_desk(**fields: Any) -> Desk:
    """A job that fires at noon of each day, and the calendar `closed` with the days 2 and 3."""
    desk = Desk(make_app())
    put(desk, 2, 3)
    put(desk, 1, 3, 5, name="open")
    desk.do(PutJob(desk.at, daily(**fields)))
    return desk


def daily(**fields: Any) -> Any:
    given: dict[str, Any] = {"cron": "0 0 12 * * ?", "misfire": True, "misfire_limit": 100} | fields
    return make_job(**given)


def fired(desk: Desk, job: str = "report") -> list[int]:
    """The days on which a job has fired."""
    found = (datetime.fromtimestamp(firing.fire_ms / 1_000, UTC).date() for firing in desk.firings(job))
    return sorted((each - TODAY).days for each in found)


def pass_days(desk: Desk, number: int) -> None:
    for _ in range(number):
        desk.run_until_idle(DAY)


def skipped(desk: Desk) -> int:
    return desk.scheduler.job_states["report"].skipped


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"skip_on": ("closed",)}, [1, 4, 5, 6]), ({"only_on": ("closed",)}, [2, 3]),
     ({"skip_on": ("closed", "open")}, [4, 6]), ({"only_on": ("closed", "open")}, [1, 2, 3, 5]),
     ({"skip_on": ("closed",), "only_on": ("open",)}, [1, 5])],
)  # fmt: skip
def test_job_fires_on_the_days_that_its_calendars_allow(fields: dict[str, Any], expected: list[int]) -> None:
    desk = make_desk(**fields)
    pass_days(desk, 7)
    assert [number for number in fired(desk) if number] == expected
    assert not skipped(desk), "fire times on excluded days are none"


@pytest.mark.parametrize(
    ("where", "expected"), [(ExcludedDay.NEXT, [0, 1, 4, 5]), (ExcludedDay.PREVIOUS, [0, 1, 4, 5])]
)
def test_fire_times_of_excluded_days_move_to_an_open_day(where: ExcludedDay, expected: list[int]) -> None:
    desk = make_desk(skip_on=("closed",), on_excluded_day=where)
    pass_days(desk, 6)
    assert fired(desk) == expected, "those that meet make one run"
    moved = Desk(make_app())
    put(moved, 2, 3)
    moved.do(PutJob(moved.at, make_job(cron=f"0 0 12 {2 + TODAY.day} * ?", skip_on=("closed",), on_excluded_day=where)))
    pass_days(moved, 6)
    assert fired(moved) == [4 if where is ExcludedDay.NEXT else 1]
    assert not skipped(moved)


def test_moved_fire_time_is_not_made_up_for_on_an_excluded_day() -> None:
    desk = make_desk(skip_on=("closed",), on_excluded_day=ExcludedDay.NEXT, catch_up=CatchUp.ALL)
    desk.do(SetPaused(desk.at, True, job="report"))
    pass_days(desk, 2)
    desk.do(SetPaused(desk.at, False, job="report"))
    desk.run_until_idle(DAY)
    assert fired(desk) == []
    desk.run_until_idle(DAY)
    assert fired(desk) == [0, 1]


def test_shift_needs_a_calendar() -> None:
    with pytest.raises(ConfigError, match="is for jobs with calendars"):
        daily(on_excluded_day=ExcludedDay.NEXT)


def test_change_of_a_calendar_acts_at_once_on_its_jobs_alone() -> None:
    desk = make_desk(skip_on=("closed",))
    desk.do(PutJob(desk.at, daily(name="other")))
    pass_days(desk, 1)
    put(desk, 4)
    pass_days(desk, 5)
    assert fired(desk) == [0, 1, 2, 3, 5]
    assert fired(desk, "other") == [0, 1, 2, 3, 4, 5]


def test_fire_time_on_a_day_that_was_freed_afterwards_is_missed() -> None:
    for catch_up, expected in ((CatchUp.SKIP, [0, 1, 4]), (CatchUp.ONCE, [0, 1, 2, 4])):
        desk = make_desk(skip_on=("closed",), catch_up=catch_up)
        pass_days(desk, 2)
        desk.run_until_idle(DAY * 3 // 4)
        put(desk, 3)
        pass_days(desk, 2)
        assert fired(desk) == expected
        assert skipped(desk) == (catch_up is CatchUp.SKIP)


def test_timer_of_a_day_that_was_closed_a_moment_ago_does_not_fire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if more jobs name the calendar than one tick schedules again."""
    monkeypatch.setattr("jobcloud.scheduler.timetable._AT_ONCE", 0)
    desk = make_desk(skip_on=("closed",))
    due = desk.scheduler.due["report"]
    put(desk, 0, 1, 2)
    assert desk.scheduler.next_wake(desk.at) == desk.at
    desk.at = due
    desk.tick()
    assert fired(desk) == []
    assert desk.scheduler.due["report"] > due + DAY


def test_many_jobs_of_a_calendar_are_scheduled_in_several_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.scheduler.timetable._AT_ONCE", 2)
    desk = make_desk(skip_on=("closed",))
    for number in range(4):
        desk.do(PutJob(desk.at, daily(name=f"job-{number}", skip_on=("closed",))))
    due = desk.scheduler.due["report"]
    put(desk, 0, 1)
    for left in (3, 1, 0):
        desk.tick()
        assert sum(each == due for each in desk.scheduler.due.values()) == left


def test_new_leader_knows_calendars_and_their_jobs() -> None:
    desk = make_desk(skip_on=("closed",))
    later = Scheduler(POLICY, desk.stored, epoch=2, at=desk.at)
    later.validate()
    assert later.users("closed") == ("report",)
    assert later.due == desk.scheduler.due


def test_job_names_only_calendars_that_exist() -> None:
    desk = make_desk()
    for command in (
        PutJob(desk.at, daily(name="new", skip_on=("closed", "none"))),
        Apply(desk.at, (), (daily(name="new", skip_on=("none",)),)),
        PutJob(desk.at, daily(only_on=("none",)), replace=True),
    ):
        with pytest.raises(ConfigError, match="there is no calendar none") as caught:
            desk.do(command)
        assert caught.value.field in ("skipOn", "onlyOn")


def test_calendar_of_another_team_is_none_of_the_job() -> None:
    desk = make_desk()
    put(desk, 1, name="billing:holidays")
    with pytest.raises(ConfigError, match="there is no calendar holidays"):
        desk.do(PutJob(desk.at, daily(name="new", skip_on=("holidays",))))


def test_calendar_in_use_is_not_removed() -> None:
    desk = make_desk(skip_on=("closed",))
    with pytest.raises(Conflict, match="closed is in use by job report"):
        desk.do(RemoveCalendar(desk.at, "closed"))
    with pytest.raises(NotFound, match="there is no calendar none"):
        desk.do(RemoveCalendar(desk.at, "none"))
    desk.do(PutJob(desk.at, daily(only_on=("open",)), replace=True))
    desk.do(RemoveCalendar(desk.at, "closed"))
    assert list(desk.stored.calendars) == ["open"]
    desk.do(RemoveJob(desk.at, "report"))
    desk.do(RemoveCalendar(desk.at, "open"))
    assert not desk.stored.calendars


def test_number_of_calendars_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "MAX_OF_TEAM", 3)
    monkeypatch.setattr(part, "MAX_CALENDARS", 4)
    desk = make_desk()
    put(desk, 1, name="third")
    with pytest.raises(Conflict, match="3 calendars of team default"):
        put(desk, 1, name="fourth")
    put(desk, 2, name="third")
    put(desk, 1, name="web:one")
    with pytest.raises(Conflict, match="4 of all teams"):
        put(desk, 1, name="web:two")


def test_job_whose_calendar_was_lost_does_not_fire_until_it_is_back() -> None:
    desk = make_desk(skip_on=("closed",))
    del desk.stored.calendars["closed"]
    heir = Scheduler(POLICY, desk.stored, epoch=2, at=desk.at)
    assert "report" not in heir.due
    reason = heir.explain("report", desk.at).reasons[0]
    assert (reason.code, reason.case) == ("calendar", "missing")
    assert any("calendar closed is missing" in text for text in heir.warnings)
    days = parse_days([day(0)])
    heir.handle(PutCalendar(desk.at, Calendar("closed", days.texts(), "2099-12-31"), days))
    assert heir.next_wake(desk.at) == desk.at
    heir.handle(Tick(desk.at))
    assert "report" in heir.due
    assert heir.warnings == ()


def test_end_of_the_known_days_is_told_a_month_before() -> None:
    desk = make_desk(skip_on=("closed",))
    put(desk, 2, 3, known_until=day(40))
    assert desk.scheduler.warnings == ()
    assert {one.code for one in desk.scheduler.explain("report", desk.at).reasons} == {"not_due"}
    pass_days(desk, 11)
    told: list[str] = list(desk.scheduler.warnings)
    assert len(told) == 1
    assert told[0].startswith(f"calendar closed, which 1 jobs use, is known until {day(40)} only")
    reason = desk.scheduler.explain("report", desk.at).reasons[0]
    assert (reason.code, reason.parameters) == ("calendar", {"calendar": "closed", "day": day(40)})
    put(desk, 2, 3, known_until=day(400))
    assert desk.scheduler.warnings == ()


def test_fire_times_of_a_pause_are_those_of_the_present_calendar() -> None:
    desk = make_desk(skip_on=("closed",), catch_up=CatchUp.ALL)
    desk.do(SetPaused(desk.at, True, job="report"))
    pass_days(desk, 4)
    put(desk, 1)
    desk.tick()
    assert "report" not in desk.scheduler.due
    desk.do(SetPaused(desk.at, False, job="report"))
    desk.run_until_idle()
    assert fired(desk) == [0, 2, 3]
