"""Cron expressions by example: meaning, refusals, and clock changes."""

from __future__ import annotations

import datetime
import itertools
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud import zones
from jobcloud.cron import CronError, Dialect, Fold, Gap, Schedule


def at(text: str, zone: str = "UTC") -> int:
    """The instant of an ISO date and time. `zone` applies if it has no offset."""
    moment = datetime.datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=zones.zone(zone))).timestamp() * 1000)


def local(instant: int, zone: str) -> str:
    return f"{datetime.datetime.fromtimestamp(instant / 1000, zones.zone(zone)):%Y-%m-%d %H:%M:%S%z}"


def firings(schedule: Schedule, start: str, count: int) -> list[str]:
    found = schedule.between(at(start, schedule.zone), at("2099-12-31"), count)
    return [local(instant, schedule.zone) for instant in found]


def days(text: str, start: str = "2026-03-28", count: int = 4, *, dialect: Dialect = Dialect.QUARTZ) -> list[str]:
    return [firing[:10] for firing in firings(Schedule.parse(text, dialect=dialect), start, count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 0 12 ? * 1", ["2026-03-29", "2026-04-05", "2026-04-12", "2026-04-19"]),  # Sunday
        ("0 0 12 ? * 2", ["2026-03-30", "2026-04-06", "2026-04-13", "2026-04-20"]),  # Monday
        ("0 0 12 ? * L", ["2026-03-28", "2026-04-04", "2026-04-11", "2026-04-18"]),  # Saturday
        ("0 0 12 ? * FRI-MON", ["2026-03-28", "2026-03-29", "2026-03-30", "2026-04-03"]),
        ("0 0 12 ? * 6L", ["2026-04-24", "2026-05-29", "2026-06-26", "2026-07-31"]),
        ("0 0 12 ? * fril", ["2026-04-24", "2026-05-29", "2026-06-26", "2026-07-31"]),
        ("0 0 12 ? * FRI#2", ["2026-04-10", "2026-05-08", "2026-06-12", "2026-07-10"]),
        ("0 0 12 ? * 6#5", ["2026-05-29", "2026-07-31", "2026-10-30", "2027-01-29"]),
        ("0 0 12 L * ?", ["2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30"]),
        ("0 0 12 L-3 * ?", ["2026-03-28", "2026-04-27", "2026-05-28", "2026-06-27"]),
        ("0 0 12 LW * ?", ["2026-03-31", "2026-04-30", "2026-05-29", "2026-06-30"]),
        ("0 0 12 L-3W * ?", ["2026-04-27", "2026-05-28", "2026-06-26", "2026-07-28"]),
        ("0 0 12 15W * ?", ["2026-04-15", "2026-05-15", "2026-06-15", "2026-07-15"]),
        ("0 0 12 1W * ?", ["2026-04-01", "2026-05-01", "2026-06-01", "2026-07-01"]),
        ("0 0 12 1W 8 ?", ["2026-08-03", "2027-08-02", "2028-08-01", "2029-08-01"]),
        ("0 0 12 31W * ?", ["2026-03-31", "2026-05-29", "2026-07-31", "2026-08-31"]),
        ("0 0 12 29W 2 ?", ["2028-02-29", "2032-02-27", "2036-02-29", "2040-02-29"]),
        ("0 0 12 30W 2 ?", []),
        ("0 0 12 L-30W * ?", ["2026-05-01", "2026-07-01", "2026-08-03", "2026-10-01"]),
        ("0 0 12 L-28W 2,3 ?", ["2027-03-03", "2028-02-01", "2028-03-03", "2029-03-02"]),
        ("0 0 12 28-2 * ?", ["2026-03-28", "2026-03-29", "2026-03-30", "2026-03-31"]),
        ("0 0 12 1 11-2/2 ?", ["2026-11-01", "2027-01-01", "2027-11-01", "2028-01-01"]),
        ("0 0 12 29 2 ?", ["2028-02-29", "2032-02-29", "2036-02-29", "2040-02-29"]),
        ("0 0 12 1 1 ? 2099", ["2099-01-01"]),
        ("0 0 12 1,L * ?", ["2026-03-31", "2026-04-01", "2026-04-30", "2026-05-01"]),
        ("0 0 12 L-1W,L-1 * ?", ["2026-03-30", "2026-04-29", "2026-05-29", "2026-05-30"]),
        ("0 0 12 15W,1W * ?", ["2026-04-01", "2026-04-15", "2026-05-01", "2026-05-15"]),
        ("0 0 12 31,L,31,L 4 ?", ["2026-04-30", "2027-04-30", "2028-04-30", "2029-04-30"]),
        ("0 0 12 30,31W 2 ?", []),
        ("0 0 12 1,L 12 ? 2030", ["2030-12-01", "2030-12-31"]),
        ("0 0 12 1 1 ? /4", ["2030-01-01", "2034-01-01", "2038-01-01", "2042-01-01"]),
        ("0 0 12 1 1 ? */4", ["2030-01-01", "2034-01-01", "2038-01-01", "2042-01-01"]),
        ("0 0 12 1 1 ? 2027/10", ["2027-01-01", "2037-01-01", "2047-01-01", "2057-01-01"]),
        ("0 0 12 30 2 ?", []),
        ("0 0 12 1 1 ? 2020", []),
    ],
)
def test_quartz_expression_fires_on_these_days(text: str, expected: list[str]) -> None:
    assert days(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5/15 * * * * ?", ["00:00:05", "00:00:20", "00:00:35", "00:00:50", "00:01:05"]),
        ("50-10/10 0 0 * * ?", ["00:00:10", "00:00:50", "00:00:00", "00:00:10", "00:00:50"]),
        ("0 59/15 * * * ?", ["00:59:00", "01:59:00", "02:59:00", "03:59:00", "04:59:00"]),
        ("0 5-5 * * * ?", ["00:05:00", "01:05:00", "02:05:00", "03:05:00", "04:05:00"]),
        ("0 0 22-2 * * ?", ["01:00:00", "02:00:00", "22:00:00", "23:00:00", "00:00:00"]),
        ("0 /20 * * * ?", ["00:20:00", "00:40:00", "01:00:00", "01:20:00", "01:40:00"]),
    ],
)
def test_quartz_expression_fires_at_these_times(text: str, expected: list[str]) -> None:
    assert [firing[11:19] for firing in firings(Schedule.parse(text), "2026-03-28", 5)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 12 13 * FRI", ["2026-04-03", "2026-04-10", "2026-04-13", "2026-04-17"]),  # either
        ("0 12 */2 * FRI", ["2026-04-03", "2026-04-17", "2026-05-01", "2026-05-15"]),  # both, for the star
        ("0 12 1-31 * FRI", ["2026-03-28", "2026-03-29", "2026-03-30", "2026-03-31"]),  # either, though all days
        ("0 12 * * 7", ["2026-03-29", "2026-04-05", "2026-04-12", "2026-04-19"]),
        ("0 12 * * 0", ["2026-03-29", "2026-04-05", "2026-04-12", "2026-04-19"]),
        ("@monthly", ["2026-04-01", "2026-05-01", "2026-06-01", "2026-07-01"]),
        ("@Weekly", ["2026-03-29", "2026-04-05", "2026-04-12", "2026-04-19"]),
    ],
)
def test_unix_expression_fires_on_these_days(text: str, expected: list[str]) -> None:
    assert days(text, dialect=Dialect.UNIX) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 fields; write 6 or 7"),
        ("* * * * *", "5 fields; write 6 or 7.* five fields of crontab, set cronDialect .* to unix"),
        ("@daily", "1 field; .* macros such as @daily, set cronDialect .* to unix"),
        ("CRON_TZ=Europe/Berlin 0 0 0 * * ?", "contains CRON_TZ=.* give it as timeZone"),
        ("0 0 0 * * ? tz=utc", "contains TZ=UTC; .* give it as timeZone"),
        ("? * * * * ?", "seconds: '[?]' .* only in day of month or day of week; [*] means"),
        ("0 0 0 5L * ?", "day of month: '5L' .* belongs in the day of week, the sixth field"),
        ("0 0 0 FRIL * ?", "day of month: 'FRIL' .* belongs in the day of week, the sixth field"),
        ("0 0 0 1#2 * ?", "day of month: '1#2' .* belongs in the day of week, the sixth field"),
        ("* * * * * ? * *", "8 fields; write 6 or 7"),
        ("* * * * * *", "day of month: .* must be ?"),
        ("* * * ? * ?", "day of month: .* must be ?"),
        ("0 0 0 13 * FRI", "day of month: .* must be ?"),
        ("60 * * * * ?", "seconds: '60' .* from 0 to 59"),
        ("* 0/0 * * * ?", "minutes: '0/0' .* from 1 to 59"),
        ("* * 24 * * ?", "hours: '24' .* from 0 to 23"),
        ("* * x * * ?", "hours: 'X' .* from 0 to 23"),
        ("* * ? * * ?", "hours: '[?]' .* only in day of month"),
        ("* * 1,,2 * * ?", "hours: '' .* from 0 to 23"),
        ("* * 1-2-3 * * ?", "hours: '1-2-3' .* from 0 to 23"),
        ("* * 1/2/3 * * ?", "hours: '1/2/3' .* a step"),
        ("* * x/2 * * ?", "hours: 'X/2' .* from 0 to 23"),
        ("* * -1 * * ?", "hours: '-1' .* from 0 to 23"),
        ("* * * 0 * ?", "day of month: '0' .* from 1 to 31"),
        ("* * * L-31 * ?", "day of month: 'L-31' .* 0 to 30 days"),
        ("* * * L3 * ?", "day of month: 'L3' .* write L, LW"),
        ("* * * 1,L15 * ?", "day of month: 'L15' .* write L, LW"),
        ("* * * 1,3L,2 * ?", "day of month: '3L' .* alone or as items of a list"),
        ("* * * L,,2 * ?", "day of month: '' .* from 1 to 31"),
        ("* * * L,40 * ?", "day of month: '40' .* from 1 to 31"),
        ("* * * L,? * ?", "day of month: '[?]' .* from 1 to 31"),
        ("* * * 32W * ?", "day of month: '32W' .* from 1 to 31"),
        ("* * * 1 13 ?", "month: '13' .* a name such as JAN"),
        ("* * * 1 JANUARY ?", "month: 'JANUARY' .* a name such as JAN"),
        ("* * * ? * 0", "day of week: '0' .* from 1 to 7 or a name such as SUN"),
        ("* * * ? * FRI#6", "day of week: 'FRI#6' .* from 1 to 5"),
        ("* * * ? * FRI#2,MON#1", "day of week: .* lists are not"),
        ("* * * ? * 2,6L", "day of week: '2,6L' .* from 1 to 7"),
        ("* * * ? * MON-FRI/2", "day of week: 'MON-FRI/2' .* write 2-6/2"),
        ("* * * 1 NOV-FEB/2 ?", "month: 'NOV-FEB/2' .* write 1-6/2 for JAN-JUN/2"),
        ("0 0 0 1 1 ? 1969", "year: '1969' .* from 1970 to 2099"),
        ("0 0 0 1 1 ? 2030-2020", "year: .* runs backwards"),
        ("* * * * * ?\n", "day of month: .* must be ?"),
        ("٣ * * * * ?", "outside ASCII"),
        ("0," * 200 + "0 * * * * ?", "more than 256"),
    ],
)
def test_invalid_expression_is_refused_with_field_text_and_fix(text: str, said: str) -> None:
    with pytest.raises(CronError, match=said):
        Schedule.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0 * * * ?", "6 fields; write 5.* with seconds, set cronDialect .* to quartz"),
        ("0 0 * * 5L", "day of week: '5L' .* quartz dialect"),
        ("0 0 * * L", "day of week: 'L' .* quartz dialect"),
        ("0 0 * * FRIL", "day of week: 'FRIL' .* quartz dialect"),
        ("0 0 * * 1#2", "day of week: '1#2' .* quartz dialect"),
        ("0 0 15W * *", "day of month: '15W' .* quartz dialect"),
        ("CRON_TZ=Europe/Berlin 0 2 * * *", "contains CRON_TZ=.* give it as timeZone"),
        ("*/0 * * * *", "minutes: '[*]/0' .* a step is"),
        ("* * * * mon-sun", "day of week: 'MON-SUN' .* backwards, and Debian's cron would never fire"),
        ("1-2-3 * * * *", "minutes: '1-2-3' .* from 0 to 59"),
        ("0 0 L * *", "day of month: 'L' .* quartz dialect"),
        ("0 0 ? * *", "day of month: '[?]' .* quartz dialect"),
        ("22-2 * * * *", "minutes: '22-2' .* runs backwards"),
        ("* * * * 8", "day of week: '8' .* from 0 to 7"),
        ("/5 * * * *", "minutes: '/5' .* from 0 to 59"),
        ("@reboot", "not a macro; write one of @yearly"),
    ],
)
def test_invalid_unix_expression_is_refused(text: str, said: str) -> None:
    with pytest.raises(CronError, match=said):
        Schedule.parse(text, dialect=Dialect.UNIX)


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Olympus",
        "../../etc/passwd",
        "/etc/passwd",
        "America",
        "UTC\0",
        "Ä",
        "x" * 300,
        "right/UTC",
        "localtime",
    ],
)
def test_unknown_zone_is_refused_with_its_name(zone: str) -> None:
    with pytest.raises(CronError, match=r"zone: .* use a name of the tz database"):
        Schedule.parse("* * * * * ?", zone=zone)


@pytest.mark.parametrize(
    ("text", "zone"), [(None, "UTC"), (5, "UTC"), ([], "UTC"), ("* * * * * ?", None), ("* * * * * ?", [])]
)
def test_expression_that_is_not_text_is_refused(text: Any, zone: Any) -> None:
    for dialect in Dialect:
        with pytest.raises(CronError):
            Schedule.parse(text, zone=zone, dialect=dialect)


FIELD = st.text(alphabet="0123456789*/-,?LW#FRI", min_size=1, max_size=6)


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(
    text=st.one_of(
        st.text(max_size=300),
        st.text(alphabet="0123456789*/-,?LW# \tMONFRIJAN@", max_size=60),
        st.lists(st.text(alphabet="0123456789*/-,?LW#FRI", min_size=1, max_size=6), min_size=5, max_size=7).map(
            " ".join
        ),
    ),
    zone=st.one_of(st.just("UTC"), st.just("America/Havana"), st.text(max_size=20)),
    dialect=st.sampled_from(Dialect),
)
def test_arbitrary_text_gives_a_schedule_or_a_cron_error(text: str, zone: str, dialect: Dialect) -> None:
    try:
        schedule = Schedule.parse(text, zone=zone, dialect=dialect)
    except CronError:
        return
    firing = schedule.next_after(at("2026-03-28"))
    assert firing is None or firing > at("2026-03-28")


def test_fixed_time_in_a_gap_fires_at_the_first_instant_after_it_or_is_skipped() -> None:
    texts = "0 30 2 * * ?", "0 0,15,30 2 * * ?", "0 30 2,3 * * ?", "0 0 2,3 * * ?"
    after = [Schedule.parse(text, zone="Europe/Berlin") for text in texts]
    skip = [Schedule.parse(text, zone="Europe/Berlin", gap=Gap.SKIP) for text in texts]
    assert [firings(schedule, "2026-03-29", 2)[0][11:16] for schedule in after] == ["03:00"] * 4
    assert [firings(schedule, "2026-03-29", 2)[1][5:16] for schedule in after] == [
        "03-30 02:30",
        "03-30 02:00",
        "03-29 03:30",
        "03-30 02:00",
    ]
    assert [firings(schedule, "2026-03-29", 1)[0][5:16] for schedule in skip] == [
        "03-30 02:30",
        "03-30 02:00",
        "03-29 03:30",
        "03-29 03:00",
    ]


def test_interval_follows_the_clock_through_a_gap() -> None:
    schedule = Schedule.parse("0 0/30 * * * ?", zone="Europe/Berlin")
    assert [firing[11:16] for firing in firings(schedule, "2026-03-29T01:15", 3)] == ["01:30", "03:00", "03:30"]
    assert firings(Schedule.parse("0 0/30 2 * * ?", zone="Europe/Berlin"), "2026-03-29", 1) == [
        "2026-03-30 02:00:00+0200"
    ]


@pytest.mark.parametrize(
    ("text", "fold", "expected"),
    [
        ("0 30 2 * * ?", Fold.AUTO, ["02:30+0200"]),
        ("0 30 2 * * ?", Fold.ONCE, ["02:30+0200"]),
        ("0 30 2 * * ?", Fold.BOTH, ["02:30+0200", "02:30+0100"]),
        ("0 0/30 2 * * ?", Fold.AUTO, ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
        ("0 0/30 2 * * ?", Fold.ONCE, ["02:00+0200", "02:30+0200"]),
        ("0 0 * * * ?", Fold.ONCE, ["02:00+0200"]),
    ],
)
def test_time_shown_twice_fires_once_or_both_times(text: str, fold: Fold, expected: list[str]) -> None:
    schedule = Schedule.parse(text, zone="Europe/Berlin", fold=fold)
    found = schedule.between(at("2026-10-25T01:59:59+02:00"), at("2026-10-25T02:59:59+01:00"), 100)
    assert [
        local(instant, "Europe/Berlin")[11:16] + local(instant, "Europe/Berlin")[19:] for instant in found
    ] == expected


@pytest.mark.parametrize(
    ("text", "zone", "start", "expected"),
    [
        ("0 15 2 * * ?", "Australia/Lord_Howe", "2021-10-02T12:00", "2021-10-03 02:30:00+1100"),  # half an hour
        ("0 45 1 * * ?", "Australia/Lord_Howe", "2021-04-03T12:00", "2021-04-04 01:45:00+1100"),
        ("0 0 12 * * ?", "Pacific/Apia", "2011-12-29T13:00", "2011-12-31 00:00:00+1400"),  # a whole day left out
        ("0 0 0 * * ?", "America/Sao_Paulo", "2018-11-03T12:00", "2018-11-04 01:00:00-0200"),  # no midnight
        ("0 30 23 * * ?", "America/Sao_Paulo", "2018-02-17T12:00", "2018-02-17 23:30:00-0200"),
        ("0 30 2 * * ?", "America/New_York", "2022-03-12T12:00", "2022-03-13 03:00:00-0400"),
        ("0 30 0 * * ?", "America/St_Johns", "2006-04-01T12:00", "2006-04-02 01:01:00-0230"),
        ("0 0 9 * * ?", "Asia/Kolkata", "2026-03-28", "2026-03-28 09:00:00+0530"),
    ],
)
def test_clock_changes_of_unusual_zones(text: str, zone: str, start: str, expected: str) -> None:
    assert firings(Schedule.parse(text, zone=zone), start, 1) == [expected]


def test_instant_after_a_gap_is_found_from_the_last_one_before_it() -> None:
    schedule = Schedule.parse("0 30 2 * * ?", zone="Europe/Berlin")
    after = at("2026-03-29T03:00", "Europe/Berlin")
    assert [schedule.next_after(after - back) for back in (1, 1000, 1001)] == [after] * 3
    assert schedule.next_after(after) == at("2026-03-30T02:30", "Europe/Berlin")


def test_last_firing_of_a_schedule_repeats_in_a_fold() -> None:
    schedule = Schedule.parse("0 30 2 25 10 ? 2026", zone="Europe/Berlin", fold=Fold.BOTH)
    first, second = at("2026-10-25T02:30+02:00"), at("2026-10-25T02:30+01:00")
    assert schedule.between(at("2026-01-01"), at("2099-12-31"), 9) == (first, second)


def test_firing_after_a_gap_happens_only_on_due_days() -> None:
    sundays = Schedule.parse("0 30 2 ? * SUN", zone="Europe/Berlin")
    mondays = Schedule.parse("0 30 2 ? * MON", zone="Europe/Berlin")
    assert firings(sundays, "2026-03-28", 1) == ["2026-03-29 03:00:00+0200"]
    assert firings(mondays, "2026-03-28", 1) == ["2026-03-30 02:30:00+0200"]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    text=st.sampled_from(["0 0/20 * * * ?", "0 30 1,2 * * ?", "0 15 2 L * ?", "*/30 59 1 * * ?", "0 0 0 ? 3,10 1L"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe"]),
    gap=st.sampled_from(Gap),
    fold=st.sampled_from(Fold),
    start=st.one_of(
        st.integers(at("2026-03-28"), at("2026-03-30")),
        st.integers(at("2026-10-24"), at("2026-10-26")),
        st.integers(0, 10**12),
    ),
)
def test_firings_ascend_strictly_and_between_repeats_next_after(
    text: str, zone: str, gap: Gap, fold: Fold, start: int
) -> None:
    schedule = Schedule.parse(text, zone=zone, gap=gap, fold=fold)
    one_by_one = [start]
    while len(one_by_one) < 13:
        following = schedule.next_after(one_by_one[-1])
        assert following is not None
        one_by_one.append(following)
    assert all(earlier < later for earlier, later in itertools.pairwise(one_by_one))
    assert list(schedule.between(start, one_by_one[-1], 100)) == one_by_one[1:]
    assert schedule.between(start, one_by_one[-1] - 1, 100) == tuple(one_by_one[1:-1])
    assert schedule.between(start, one_by_one[-1], 3) == tuple(one_by_one[1:4])
    assert schedule.between(start, start, 5) == ()


# (zone, an instant near a change of its clock)
CHANGES = [
    ("UTC", "2026-03-29 01:00"), ("Europe/Berlin", "2026-03-29 01:00"), ("Europe/Berlin", "2026-10-25 01:00"),
    ("Australia/Lord_Howe", "2026-10-03 15:30"), ("Australia/Lord_Howe", "2027-04-03 15:00"),
    ("Africa/Cairo", "2026-04-23 22:00"), ("Pacific/Apia", "2011-12-30 10:00"),
    ("America/Sao_Paulo", "2018-11-04 03:00"), ("Africa/Casablanca", "2026-02-15 02:00"),
    ("America/Havana", "2026-03-08 05:00"),
]  # fmt: skip
EXPRESSIONS = [
    "* * * * * ?", "0/7 * 1-3 * * ?", "0 0/30 * * * ?", "0 30 2 * * ?", "0 15,45 1,2,3 * * ?", "0 0,30 2,3 * * ?",
    "0 0 0 * * ?", "30 0 0/3 LW * ?", "0 0 9 ? * FRI#2", "0 59 23 ? * 6L", "5 5 5 29 2 ?", "0 0 2 * * ? 2026-2027",
    "0 0 12 31 * ?",
]  # fmt: skip


@settings(max_examples=300)
@given(
    st.sampled_from(EXPRESSIONS), st.sampled_from(CHANGES), st.sampled_from(Gap), st.sampled_from(Fold),
    st.integers(-200_000_000, 20_000_000), st.one_of(st.integers(0, 20_000_000), st.integers(0, 90 * 86_400_000)),
)  # fmt: skip
def test_count_equals_the_number_of_listed_firings(
    text: str, change: tuple[str, str], gap: Gap, fold: Fold, start: int, length: int
) -> None:
    schedule = Schedule.parse(text, zone=change[0], gap=gap, fold=fold)
    if text.startswith(("*", "0/7")):
        length %= 20_000_000  # listing takes long
    after = at(change[1]) + start
    listed = schedule.between(after, after + length, 100_000)
    assert schedule.count(after, after + length) == len(listed)
    if listed:
        assert schedule.count(listed[0] - 1, listed[-1]) == len(listed)
        assert schedule.count(listed[0], listed[-1]) == len(listed) - 1


@given(st.sampled_from(["30 2 13 * 5", "*/7 2,3 * * 1-5", "0 0 1,15 * *", "@daily"]), st.integers(0, 400 * 86_400_000))
def test_count_of_unix_expressions_follows_the_either_day_rule(text: str, length: int) -> None:
    schedule = Schedule.parse(text, zone="Europe/Berlin", dialect=Dialect.UNIX)
    start = at("2026-01-01 00:00")
    assert schedule.count(start, start + length) == len(schedule.between(start, start + length, 100_000))


def test_count_over_all_years_is_quick_and_empty_spans_have_none() -> None:
    schedule = Schedule.parse("* * * * * ?", zone="Europe/Berlin")
    assert schedule.count(-(10**15), 10**16) > 4_000_000_000
    assert schedule.count(5_000, 5_000) == schedule.count(5_000, 4_000) == schedule.count(5_000, 5_999) == 0


def test_firing_is_strictly_after_to_the_millisecond() -> None:
    schedule = Schedule.parse("0 0 * * * ?")
    noon = at("2026-03-28T12:00")
    one = noon + 3_600_000
    assert [schedule.next_after(noon + shift) for shift in (-1001, -1, 0, 1)] == [noon, noon, one, one]


def test_instants_outside_the_supported_years_are_accepted() -> None:
    daily = Schedule.parse("0 0 0 * * ?", zone="Asia/Tokyo")
    assert daily.next_after(-(10**18)) == at("1970-01-02T00:00", "Asia/Tokyo")
    assert daily.next_after(at("2100-01-01")) is None
    assert daily.next_after(10**18) is None
    assert Schedule.parse("59 59 23 31 12 ? 2099", zone="America/New_York").next_after(at("2099-12-31T12:00")) is None
    assert Schedule.parse("59 59 23 31 12 ? 2099").next_after(at("2099-12-31T12:00")) == at("2099-12-31T23:59:59")


def test_equal_expressions_share_one_parsed_schedule() -> None:
    assert Schedule.parse("0 0 12 * * ?") is Schedule.parse("0 0 12 * * ?")
    assert Schedule.parse("0 0 12 * * ?") != Schedule.parse("0 0 12 * * ?", zone="Asia/Tokyo")


def test_clock_of_the_machine_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> float:
        raise AssertionError("read the clock")

    monkeypatch.setattr(time, "time", refuse)
    monkeypatch.setattr(sys.modules["croniter.croniter"], "time", refuse)
    assert Schedule.parse("0 7 12 * * ?", zone="Europe/Berlin").next_after(at("2026-03-28"))
