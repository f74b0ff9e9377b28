"""The days of calendars: lists, holidays of countries, and iCalendar files, also hostile ones."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from jobcloud.errors import ConfigError, Unavailable
from jobcloud.model import CalendarSource
from jobcloud.server.calendars import Found, read_days, source_of

YEAR = 2026
FILE = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{}END:VCALENDAR\r\n"


def event(*lines: str, uid: str = "u") -> str:
    return "\r\n".join(["BEGIN:VEVENT", f"UID:{uid}", "DTSTAMP:20260101T000000Z", *lines, "END:VEVENT", ""])


def read(ical: str = "", **source: Any) -> Found:
    return read_days(CalendarSource(**source), ical, YEAR)


def of_file(*events: str, until_year: int = 2027) -> list[str]:
    return list(read(FILE.format("".join(events)), until_year=until_year).days.texts())


def refused(field: str, ical: str = "", **source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(ical, **source)
    assert caught.value.field == field
    return str(caught.value)


def test_list_of_days_is_known_for_ever() -> None:
    found = read(days=("2026-12-24", "2026-12-28/2027-01-01"), without=("2026-12-30",))
    assert found.days.texts() == ("2026-12-24", "2026-12-28/2026-12-29", "2026-12-31/2027-01-01")
    assert (found.known_until, found.libraries) == ("2099-12-31", "")


def test_weekends_without_a_country_are_saturdays_and_sundays() -> None:
    found = read(weekends=True, until_year=2026)
    assert found.days.texts()[:2] == ("2025-01-04/2025-01-05", "2025-01-11/2025-01-12")
    assert len(found.days) == 208
    assert found.known_until == "2026-12-31"


def test_holidays_are_those_of_the_country_or_its_part() -> None:
    german, bavarian = read(country="DE", until_year=2027), read(country="DE", subdivision="BY", until_year=2027)
    assert "2026-11-01" not in german.days.texts()
    assert {"2026-01-06", "2026-11-01", "2026-12-25/2026-12-26"} <= set(bavarian.days.texts())
    assert german.libraries.startswith("holidays ")
    assert german.known_until == "2027-12-31"


def test_country_works_on_some_days_of_weekends_and_announces_them_each_year() -> None:
    found = read(country="CN", weekends=True)
    days = set(range_days(found))
    assert "2026-02-15" in days
    assert "2026-02-14" not in days, "a Saturday on which China works"
    assert found.known_until < "2031", "later years are not announced"


def range_days(found: Found) -> list[str]:
    from datetime import date

    pairs = zip(found.days.first, found.days.last, strict=True)
    return [date.fromordinal(day).isoformat() for first, last in pairs for day in range(first, last + 1)]


@pytest.mark.parametrize(
    ("field", "source", "problem"),
    [("country", {"country": "XX"}, "not known"), ("subdivision", {"country": "DE", "subdivision": "QQ"}, "one of DE"),
     ("categories", {"country": "DE", "categories": ("nope",)}, "not supported"), ("days", {}, "is missing"),
     ("days", {"days": ("tomorrow",)}, "no day"), ("untilYear", {"days": ("2026-12-24",), "until_year": 2037}, "2036"),
     ("untilYear", {"weekends": True, "until_year": 2025}, "out of range"),
     ("days", {"days": ("2026-12-24",), "without": ("2026-12-24",)}, "no day")],
)  # fmt: skip
def test_wrong_source_is_refused_by_its_field(field: str, source: dict[str, Any], problem: str) -> None:
    assert problem in refused(field, **source)


def test_event_counts_for_each_day_from_its_start_to_its_end() -> None:
    assert of_file(
        event("DTSTART;VALUE=DATE:20261224", "DTEND;VALUE=DATE:20261227"),
        event("DTSTART:20260301T220000", "DTEND:20260302T060000", uid="night"),
        event("DTSTART:20260401T220000", "DTEND:20260402T000000", uid="until midnight"),
        event("DTSTART;VALUE=DATE:20260501", uid="one day"),
        event("DTSTART;TZID=Europe/Berlin:20260601T003000", "DURATION:PT1H", uid="of Berlin"),
    ) == ["2026-03-01/2026-03-02", "2026-04-01", "2026-05-01", "2026-06-01", "2026-12-24/2026-12-26"]


def test_rules_exceptions_and_moved_events_are_followed() -> None:
    weekly = event("DTSTART;VALUE=DATE:20260105", "RRULE:FREQ=WEEKLY;COUNT=4", "EXDATE;VALUE=DATE:20260112")
    moved = event("RECURRENCE-ID;VALUE=DATE:20260119", "DTSTART;VALUE=DATE:20260120")
    cancelled = event("RECURRENCE-ID;VALUE=DATE:20260126", "DTSTART;VALUE=DATE:20260126", "STATUS:CANCELLED")
    transparent = event("DTSTART;VALUE=DATE:20260201", "TRANSP:TRANSPARENT", uid="t")
    assert of_file(weekly, moved, cancelled, transparent) == ["2026-01-05", "2026-01-20", "2026-02-01"]


def test_days_are_known_until_the_last_year_with_an_event() -> None:
    yearly = event("DTSTART;VALUE=DATE:20261224", "RRULE:FREQ=YEARLY")
    ending = event("DTSTART;VALUE=DATE:20261224", "RRULE:FREQ=YEARLY;COUNT=2")
    assert read(FILE.format(yearly)).known_until == "2031-12-31"
    found = read(FILE.format(ending))
    assert found.known_until == "2027-12-31"
    assert "icalendar " in found.libraries


def test_zones_of_one_file_do_not_count_in_the_next_one() -> None:
    zone = "BEGIN:VTIMEZONE\r\nTZID:Custom\r\nBEGIN:STANDARD\r\nDTSTART:19700101T000000\r\nTZOFFSETFROM:+0500\r\n"
    zone += "TZOFFSETTO:+0500\r\nEND:STANDARD\r\nEND:VTIMEZONE\r\n"
    uses = event("DTSTART;TZID=Custom:20261224T100000")
    assert of_file(zone, uses) == ["2026-12-24"]
    assert "'Custom' of DTSTART is not known" in refused("ical", FILE.format(uses))


@pytest.mark.parametrize(
    ("text", "problem"),
    [("hello", "is no iCalendar file"), ("", "is missing"), ("\0", "is no iCalendar file"),
     (FILE.format(event("DTSTART:20200101T100000")), "has no event in 2025 to 2031"),
     (FILE.format(event("DTSTART:20261224T100000Z", "RRULE:FREQ=SECONDLY")), "more than one event a day"),
     (FILE.format(event("DTSTART:20261224T100000Z", "RRULE:FREQ=DAILY;BYHOUR=1,2")), "more than one event a day"),
     (FILE.format(event("DTSTART;VALUE=DATE:20261224", "DURATION:P9999999D")), "cannot be read"),
     (FILE.format("".join(event("DTSTART:20261224T100000", uid=str(n)) for n in range(2_001))), "has 2001 events")],
    ids=["text", "empty", "control", "past", "secondly", "hours", "overflow", "many"],
)  # fmt: skip
def test_wrong_file_is_refused(text: str, problem: str) -> None:
    assert problem in refused("ical" if text else "days", text)


def test_child_that_computes_for_too_long_is_stopped() -> None:
    with pytest.raises(ConfigError, match=r"took longer than 0\.01 s"):
        read_days(CalendarSource(), FILE.format(event("DTSTART:20261224T100000")), YEAR, deadline_s=0.01)


@pytest.mark.parametrize(
    ("status", "output", "error", "problem"),
    [(-9, b"", ConfigError, "signal 9"), (1, b"", ConfigError, "boom"),
     (0, b'{"lacks": "icalendar"}', Unavailable, "has no library icalendar")],
)  # fmt: skip
def test_end_of_the_child_is_told(
    status: int, output: bytes, error: type[Exception], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: list[str], **given: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(argv, status, output, b"x\nboom\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(error, match=problem):
        read("x")


def test_source_has_the_hash_of_the_file() -> None:
    assert source_of(CalendarSource(), "").ical_sha256 == ""
    assert len(source_of(CalendarSource(), "x").ical_sha256) == 64
