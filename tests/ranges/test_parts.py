"""Ranges of numbers and dates, and their parts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.ranges import MAX_PART, MAX_TEXT, Range, parse, stored
from jobcloud.zones import zone

DAY = date(2026, 12, 2)


def parts(text: str, count: int) -> list[str]:
    return [str(stored(text).part(item, count)) for item in range(count)]


def test_parts_follow_each_other_and_the_larger_ones_come_first() -> None:
    assert parts("1..10", 3) == ["1..4", "5..7", "8..10"]
    assert parts("-2..1", 4) == ["-2..-2", "-1..-1", "0..0", "1..1"]
    assert parts("2024-02-28..2024-03-01", 2) == ["2024-02-28..2024-02-29", "2024-03-01..2024-03-01"]


@given(st.integers(-(10**18) + 1, 10**18 - 1), st.integers(1, 10**9), st.integers(1, 300), st.booleans())
def test_parts_cover_a_range_without_a_gap_and_an_overlap(first: int, more: int, count: int, dates: bool) -> None:
    if dates:
        first, more = first % 700_000 + 1, more % 4_000 + 300
    whole = Range(first, min(first + more + count, 10**18 - 1), dates)
    count = min(count, whole.size)
    found = [whole.part(item, count) for item in range(count)]
    assert (found[0].first, found[-1].last) == (whole.first, whole.last)
    assert all(left.last + 1 == right.first for left, right in pairwise(found))
    sizes = {part.size for part in found}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert all(len(str(part)) <= MAX_PART for part in found)
    assert stored(str(whole)) == whole, "a leader reads what another one has stored"


def at(text: str, instant: str, name: str = "UTC") -> str:
    moment = datetime.fromisoformat(instant).replace(tzinfo=UTC)
    return str(parse(text).at(int(moment.timestamp() * 1000), zone(name)))


def test_dates_count_from_the_day_of_the_fire_time_in_the_zone_of_the_job() -> None:
    week = "{fire_time}-7d..{fire_time}-1d"
    assert at(week, "2026-12-02T23:30") == "2026-11-25..2026-12-01"
    assert at(week, "2026-12-02T23:30", "Europe/Berlin") == "2026-11-26..2026-12-02"
    assert at(week, "2026-12-02T03:30", "America/New_York") == "2026-11-24..2026-11-30"
    assert at("{fire_time:%Y-%m-%d}..{fire_time}+1d", "2026-12-31T00:00") == "2026-12-31..2027-01-01"


@pytest.mark.parametrize("instant", ["2026-03-29T00:59", "2026-03-29T01:00", "2026-10-25T00:30", "2026-10-25T01:30"])
def test_clock_changes_move_no_day(instant: str) -> None:
    day = instant[:10]
    assert at("{fire_time}-1d..{fire_time}+1d", instant, "Europe/Berlin").split("..") == [
        str(date.fromisoformat(day) + timedelta(days=shift)) for shift in (-1, 1)
    ]


def test_months_count_from_the_first_day_of_the_month() -> None:
    last_month = "{fire_time:%Y-%m-01}-1m..{fire_time:%Y-%m-01}-1d"
    assert at(last_month, "2024-03-31T12:00") == "2024-02-01..2024-02-29"
    assert at(last_month, "2026-01-15T12:00") == "2025-12-01..2025-12-31"
    assert at("{fire_time:%Y-%m-01}-12m+1d..{fire_time:%Y-%m-01}+2m-1d", "2026-11-01T00:00") == "2025-11-02..2026-12-31"


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("1..10", 10), ("5..5", 1), ("2026-01-01..2026-12-31", 365), ("{fire_time}-7d..{fire_time}-1d", 7),
        ("{fire_time:%Y-%m-01}-1m..{fire_time:%Y-%m-01}-1d", 28),
        ("{fire_time:%Y-%m-01}-2m..{fire_time:%Y-%m-01}-1d", 59),
        ("{fire_time:%Y-%m-01}-60m..{fire_time:%Y-%m-01}+60m-1d", 3_651),
    ],
)  # fmt: skip
def test_least_size_holds_for_all_fire_times(text: str, least: int) -> None:
    assert parse(text).least == least


@given(st.integers(-60, 60), st.integers(-60, 60), st.integers(-40, 40), st.dates(date(1980, 1, 1), date(2300, 1, 1)))
def test_no_range_of_months_is_smaller_than_the_least_one(first: int, last: int, days: int, day: date) -> None:
    month = "{fire_time:%Y-%m-01}"
    try:
        ends = parse(f"{month}{first:+}m..{month}{last:+}m{days:+}d")
    except ValueError:
        return  # it may be empty
    assert ends.on(day).size >= ends.least >= 1


WRONG = [
    ("", "no two ends"),
    ("1-10", "no two ends"),
    ("..", "neither a whole number"),
    ("1..10..20", "neither a whole number"),
    ("1..", "neither a whole number"),
    ("01..10", "neither a whole number"),
    ("1.5..3", "neither a whole number"),
    ("٣..9", "neither a whole number"),
    ("0..1000000000000000000", "at most 18 digits"),
    ("10..1", "ends before it begins"),
    ("2026-02-29..2026-03-01", "no day of the calendar"),
    ("0000-01-01..2026-03-01", "no day of the calendar"),
    ("2026-01-01..5", "two kinds"),
    ("2026-01-01..{fire_time}", "two kinds"),
    ("{fire_time:%Y-%m-01}..{fire_time}", "two kinds"),
    ("{fire_time}..{fire_time}-1d", "ends before it begins"),
    ("{fire_time:%Y-%m-01}..{fire_time:%Y-%m-01}+1m-32d", "ends before it begins"),
    ("{fire_time:%Y-%m-01}..{fire_time:%Y-%m-01}+1m-29d", "ends before it begins"),
    ("{fire_time:%d.%m.%Y}..{fire_time}", "no form of a date"),
    ("{fire_time}-1m..{fire_time}", "counts months from a day"),
    ("{fire_time}-3661d..{fire_time}", "too far away"),
    ("{fire_time:%Y-%m-01}-61m..{fire_time:%Y-%m-01}", "too far away"),
    ("{previous_success}..{fire_time}", "neither a whole number"),
    ("1" * MAX_TEXT + "..2", "more than 100 characters"),
]


@pytest.mark.parametrize(("text", "problem"), WRONG)
def test_wrong_text_is_refused_with_its_reason(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


@given(st.text(alphabet="{}fire_tm:%Y-d0123456789.+ \0ä", max_size=120))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    found: Any = None
    try:
        found = parse(text)
    except ValueError:
        return
    assert found.on(DAY).size >= found.least >= 1
