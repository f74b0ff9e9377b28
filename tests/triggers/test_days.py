"""Sets of days, and fire times on the days that they allow, compared with a look at each day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.cron import Dialect, Fold, Gap
from jobcloud.triggers import MAX_DAYS, Timing, parse_days, timing
from jobcloud.triggers.days import MAX_ENTRIES, Inside, Outside, days_of

FIRST = date(2026, 3, 1)


def make(cron: str, zone: str = "UTC") -> Timing:
    return timing(cron, (), "", "", (), zone=zone, dialect=Dialect.QUARTZ, gap=Gap.RUN_AFTER, fold=Fold.AUTO)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000)


def test_entries_are_joined_to_ranges() -> None:
    days = parse_days(["2026-12-26", "2026-12-24/2026-12-25", "2026-12-25", "2027-01-01"])
    assert days.texts() == ("2026-12-24/2026-12-26", "2027-01-01")
    assert len(days) == 4
    assert parse_days(days.texts()) == days
    assert parse_days([]).texts() == ()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [("2026-02-30", "is no day"), ("2026-12-24/", "is no day"), ("1969-12-31", "in the years 1970 to 2099"),
     ("2026-12-25/2026-12-24", "put the earlier day first"), ("1970-01-01/2099-12-31", f"more than {MAX_DAYS} days"),
     ("24.12.2026", "is no day"), ("", "is no day")],
)  # fmt: skip
def test_wrong_entry_is_refused(entry: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_days([entry])


def test_number_of_entries_and_of_days_is_limited() -> None:
    with pytest.raises(ValueError, match="entries"):
        parse_days(["2026-12-24"] * (MAX_ENTRIES + 1))
    many = [f"{year}-01-01/{year}-12-31" for year in range(1990, 2010)]
    with pytest.raises(ValueError, match=f"more than {MAX_DAYS} days"):
        parse_days(many)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.sampled_from(["UTC", "Europe/Berlin"]))
def test_fire_times_are_those_of_the_allowed_days(skipped: set[int], only: set[int], zone: str) -> None:
    """From March on, so that the clock changes on day 28."""
    times = make("0 30 2 * * ?", zone)
    begin = FIRST.toordinal()
    found = times.on_days([days_of(begin + n for n in skipped)], [days_of(begin + n for n in only)])
    clock = ZoneInfo(zone)
    after = int(datetime.combine(FIRST, datetime.min.time(), clock).timestamp() * 1_000) - 1
    days = [
        datetime.fromtimestamp(at / 1_000, clock).date() for at in found.between(after, after + 41 * 86_400_000, 99)
    ]
    assert days == [FIRST + timedelta(n) for n in range(41) if n in only and n not in skipped]


def test_day_begins_and_ends_at_midnight_of_the_zone() -> None:
    times = make("0 0 * * * ?", "Asia/Tokyo").on_days([parse_days(["2026-12-24"])], None)
    first = times.next_after(ms("2026-12-23T14:00:00+00:00"))
    assert first == ms("2026-12-24T15:00:00+00:00")
    assert times.free_from(ms("2026-12-24T00:00:00+00:00")) == first
    assert times.free_from(ms("2026-12-23T14:59:59+00:00")) == ms("2026-12-23T14:59:59+00:00")


def test_nothing_fires_after_the_last_of_the_only_days() -> None:
    times = make("0 0 8 * * ?").on_days((), [parse_days(["2026-12-24"])])
    assert times.next_after(ms("2026-12-23T00:00:00+00:00")) == ms("2026-12-24T08:00:00+00:00")
    assert times.next_after(ms("2026-12-24T08:00:00+00:00")) is None
    assert make("0 0 8 * * ?").on_days((), ()).next_after(0) is None


def test_blackout_ends_later_than_now_if_the_clock_went_back_over_midnight() -> None:
    """In Havana, the clock goes back from 01:00 to 00:00; in Toronto of 1950, from 00:00 to 23:00 of the day before."""
    for zone, day in (("America/Havana", date(2026, 11, 1)), ("America/Toronto", date(1973, 10, 28))):
        clock, blackout = ZoneInfo(zone), Inside(days_of([day.toordinal(), day.toordinal() + 1]))
        begin = int(datetime.combine(day, datetime.min.time(), clock).timestamp())
        for second in range(begin, begin + 2 * 86_400, 900):
            end = blackout.until(second, clock)
            inside = datetime.fromtimestamp(second, clock).date() in (day, day + timedelta(1))
            assert (end > second) if inside else end == 0


def test_search_beyond_the_last_year_ends() -> None:
    end = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
    assert Outside(()).until(end - 1, ZoneInfo("UTC")) == end
    assert Outside(()).until(end, ZoneInfo("UTC")) == 0
