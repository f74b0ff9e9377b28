"""Fire times from several triggers, a period and blackouts, compared with a look at each minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud import zones
from jobcloud.cron import Dialect, Fold, Gap, Schedule
from jobcloud.errors import ConfigError
from jobcloud.triggers import Timing, timing
from jobcloud.triggers.timing import MAX_COUNTED

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana")
MINUTE = 60_000
DAY = 1_440 * MINUTE


def make(
    cron: str = "", *triggers: str, start: str = "", end: str = "", blackouts: tuple[str, ...] = (), zone: str = "UTC"
) -> Timing:
    return timing(
        cron, triggers, start, end, blackouts, zone=zone, dialect=Dialect.QUARTZ, gap=Gap.RUN_AFTER, fold=Fold.AUTO
    )


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zones.zone(zone)).timestamp() * 1_000)


def shown(found: Timing, zone: str, after: str, limit: int) -> list[str]:
    clock = zones.zone(zone)
    instants = found.between(ms(after, zone), 1 << 45, limit)
    return [f"{datetime.fromtimestamp(instant / 1_000, clock):%m-%d %H:%M}" for instant in instants]


def test_several_triggers_make_one_sequence_without_repeats() -> None:
    found = make("0 0 8 ? * MON-FRI", "0 0 8 * * ?", "0 30 12 ? * SUN", "@at 2026-12-05T09:15")
    assert shown(found, "UTC", "2026-12-04T00:00", 5) == [
        "12-04 08:00", "12-05 08:00", "12-05 09:15", "12-06 08:00", "12-06 12:30",
    ]  # fmt: skip


def test_period_is_counted_from_the_start_time() -> None:
    found = make("", "@every 90m", start="2026-12-01T06:10", end="2026-12-01T10:40")
    assert shown(found, "UTC", "1970-01-01T00:00", 9) == ["12-01 06:10", "12-01 07:40", "12-01 09:10", "12-01 10:40"]


def test_time_in_a_gap_fires_at_its_end_and_a_repeated_time_fires_first() -> None:
    zone = "Europe/Berlin"
    found = make("", "@at 2026-03-29T02:30", "@at 2026-10-25T02:30", zone=zone)
    instants = [datetime.fromtimestamp(at / 1_000, UTC) for at in found.between(0, 1 << 45, 3)]
    assert instants == [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("blackout", "expected"),
    [
        ("SAT,SUN", ["12-04 12:00", "12-05 00:00 no", "12-07 00:00"]),
        ("12:00-24:00", ["12-04 12:00 no", "12-05 00:00", "12-05 12:00 no"]),
        ("FRI 22:00-02:00", ["12-04 12:00", "12-05 00:00 no", "12-05 12:00", "12-06 00:00"]),
        ("SAT-MON", ["12-05 00:00 no", "12-07 12:00 no", "12-08 00:00"]),
        ("2026-12-05", ["12-05 00:00 no", "12-05 12:00 no", "12-06 00:00"]),
        ("2026-12-05/2026-12-06", ["12-06 12:00 no", "12-07 00:00"]),
        ("2026-12-05T00:00/2026-12-05T12:00", ["12-05 00:00 no", "12-05 12:00"]),
    ],
)
def test_blackouts_remove_their_fire_times(blackout: str, expected: list[str]) -> None:
    found = shown(make("0 0 0/12 * * ?", blackouts=(blackout,)), "UTC", "2026-12-04T00:00", 30)
    for line in expected:
        at, _, no = line.partition(" no")
        assert (at not in found) is bool(line.endswith("no")), (line, no)


_TIME = st.tuples(st.integers(0, 23), st.sampled_from((0, 10, 30, 45))).map(lambda at: f"{at[0]:02}:{at[1]:02}")
_DAYS = st.sampled_from(("", "SAT,SUN", "MON-FRI", "FRI-MON", "WED"))


@st.composite
def _blackouts(draw: Any) -> str:
    days, first, last = draw(_DAYS), draw(_TIME), draw(_TIME)
    return f"{days} {first}-{last}".strip() if first != last else days or "TUE"


def _is_blacked_out(text: str, local: datetime) -> bool:
    """The definition, by the wall clock alone."""
    names = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
    parts = text.split()
    span = parts[-1] if ":" in parts[-1] else "00:00-24:00"
    days = set(range(7)) if ":" in parts[0] else set()
    for part in () if days else parts[0].split(","):
        first, _, last = part.partition("-")
        day = names.index(first)
        days.add(day)
        while last and names[day] != last:
            day = (day + 1) % 7
            days.add(day)
    start, end = span.split("-")
    time, today = f"{local:%H:%M}", local.weekday()
    if start < end:
        return today in days and start <= time < end
    return (today in days and time >= start) or ((today - 1) % 7 in days and time < end)


@settings(max_examples=25, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    day=st.dates(datetime(2024, 1, 1).date(), datetime(2027, 12, 31).date()),
    change=st.sampled_from((0, 1, 2)),
    crons=st.lists(
        st.sampled_from(("0 0/20 * * * ?", "0 15 2 * * ?", "0 0 1/2 ? * SAT,SUN", "0 7 0/3 * * ?")), max_size=2
    ),
    period=st.sampled_from(("", "@every 50m", "@every 7h")),
    blackouts=st.lists(_blackouts(), max_size=3),
)
def test_fire_times_agree_with_a_look_at_each_minute(
    zone: str, day: Any, change: int, crons: list[str], period: str, blackouts: list[str]
) -> None:
    clock = zones.zone(zone)
    if change:  # a day of a change of the clock in most of the zones
        day = datetime(day.year, 3, 31).date() if change == 1 else datetime(day.year, 10, 27).date()
        day -= timedelta(days=(day.weekday() + 1) % 7)
    triggers = [*crons, *([period] if period else [])] or ["0 0 5 * * ?"]
    found = make("", *triggers, blackouts=tuple(blackouts), zone=zone)
    first = ms(f"{day}T00:00", zone) - 12 * 60 * MINUTE
    expected = []
    for at in range(first, first + 2 * DAY, MINUTE):
        due = any(
            at % (50 * MINUTE) == 0 if text == "@every 50m" else at % (420 * MINUTE) == 0
            if text == "@every 7h" else Schedule.parse(text, zone=zone).next_after(at - 1) == at
            for text in triggers
        )  # fmt: skip
        if due and not _is_out(at, blackouts, clock):
            expected.append(at)
    assert list(found.between(first - 1, first + 2 * DAY - 1, 5_000)) == expected
    assert found.count(first - 1, first + 2 * DAY - 1) == len(expected)
    free = found.free_from(first)
    minutes = range(first, min(free, first + 9 * DAY), MINUTE)
    assert all(_is_out(at, blackouts, clock) for at in minutes)
    assert free > first + 9 * DAY or not _is_out(free, blackouts, clock)


def _is_out(at: int, blackouts: list[str], clock: Any) -> bool:
    local = datetime.fromtimestamp(at / 1_000, clock)
    return any(_is_blacked_out(text, local) for text in blackouts)


def test_many_fire_times_are_counted_without_a_look_at_each() -> None:
    found = make("* * * * * ?", "@every 1m")
    assert found.count(0, 100 * DAY) > 100 * DAY // 1_000
    assert found.count(0, (MAX_COUNTED - 2) * 1_000) == MAX_COUNTED - 2


def test_search_ends_if_blackouts_leave_nothing() -> None:
    found = make("0 0 9 * * ?", blackouts=("08:00-18:00",))
    assert found.next_after(0) is None


@pytest.mark.parametrize(
    ("field", "given_", "problem"),
    [
        ("cron", {}, "is missing"),
        ("cron", {"cron": "@after 10s"}, "write it in `triggers`"),
        ("triggers", {"triggers": ["@every 1"]}, "is not a duration"),
        ("triggers", {"triggers": ["@every 500ms"]}, "whole seconds, from 1s to 366d"),
        ("triggers", {"triggers": ["@every 400d"]}, "whole seconds, from 1s to 366d"),
        ("triggers", {"triggers": ["@at tomorrow"]}, "write 2026-12-24T18:00"),
        ("triggers", {"triggers": ["@at 2026-13-01T00:00"]}, "write 2026-12-24T18:00"),
        ("triggers", {"triggers": ["0 0 25 * * ?"]}, "cron field hours"),
        ("triggers", {"triggers": ["@at 2026-12-24T18:00"] * 21}, "at most 20"),
        ("startTime", {"start": "2026-12-24"}, "write 2026-12-24T18:00"),
        ("endTime", {"start": "2026-12-24T00:00", "end": "2026-12-23T00:00"}, "is before startTime"),
        ("blackouts", {"blackouts": ["SAT SUN"]}, "is not a blackout"),
        ("blackouts", {"blackouts": ["SUNDAY"]}, "is not a weekday"),
        ("blackouts", {"blackouts": ["25:00-26:00"]}, "is not a time of the day"),
        ("blackouts", {"blackouts": ["08:00-08:00"]}, "no time between its ends"),
        ("blackouts", {"blackouts": ["2026-12-24T18:00"]}, "has no end"),
        ("blackouts", {"blackouts": ["2026-12-24/2026-12-23"]}, "ends before it begins"),
        ("blackouts", {"blackouts": [""]}, "is not a blackout"),
        ("blackouts", {"blackouts": ["SAT"] * 51}, "at most 50"),
        ("blackouts", {"blackouts": ["SAT" * 200]}, "at most 300 characters"),
        ("timeZone", {"zone": "Europe/Atlantis"}, "zone"),
    ],
)
def test_invalid_texts_name_field_and_fix(field: str, given_: dict[str, Any], problem: str) -> None:
    cron = "" if field == "cron" else "0 0 8 * * ?"
    options = {"cron": cron, "triggers": (), "start": "", "end": "", "blackouts": (), "zone": "UTC"} | given_
    with pytest.raises(ConfigError) as caught:
        timing(
            options["cron"], options["triggers"], options["start"], options["end"], options["blackouts"],
            zone=options["zone"], dialect=Dialect.QUARTZ, gap=Gap.RUN_AFTER, fold=Fold.AUTO,
        )  # fmt: skip
    assert caught.value.field == field
    assert problem in str(caught.value)


def test_trigger_after_runs_adds_no_known_fire_times() -> None:
    found = make("0 0 8 * * ?", "@after 10m")
    assert shown(found, "UTC", "2026-12-04T00:00", 2) == ["12-04 08:00", "12-05 08:00"]
    alone = make("", "@after 10m")
    assert (alone.next_after(0), alone.count(0, 1 << 45), alone.after_run) == (None, 0, True)
    assert not make("0 0 8 * * ?").after_run


@pytest.mark.parametrize(
    ("given_ms", "expected"),
    [("12-04T06:00", "12-05T09:00"), ("12-05T11:59", "12-05T11:59"), ("12-05T12:00", "12-05T18:00"),
     ("12-05T23:59", "12-05T23:59"), ("12-06T00:01", "")],
)  # fmt: skip
def test_first_free_instant_is_in_the_period_and_in_no_blackout(given_ms: str, expected: str) -> None:
    found = make("", "@after 1h", start="2026-12-05T09:00", end="2026-12-06T00:00", blackouts=("12:00-18:00",))
    assert found.first_free(ms(f"2026-{given_ms}")) == (ms(f"2026-{expected}") if expected else None)


def test_no_instant_is_free_if_no_day_is_open() -> None:
    assert make("", "@after 1h").on_days((), ()).first_free(ms("2026-12-05T09:00")) is None
