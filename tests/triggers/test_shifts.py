"""Fire times that move from excluded days, compared with a look at each day."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.cron import Dialect, Fold, Gap
from jobcloud.triggers import MAX_SHIFT, Days, Shifted, Timing, timing
from jobcloud.triggers.days import days_of

FIRST = date(2026, 3, 1)
BERLIN = ZoneInfo("Europe/Berlin")


def make(*crons: str, zone: str = "Europe/Berlin", blackouts: tuple[str, ...] = ()) -> Timing:
    return timing("", crons, "", "", blackouts, zone=zone, dialect=Dialect.QUARTZ, gap=Gap.RUN_AFTER, fold=Fold.AUTO)


def shown(times: Shifted, begin: date, limit: int) -> list[str]:
    after = int(datetime.combine(begin, time(), BERLIN).timestamp() * 1_000) - 1
    found = times.between(after, 1 << 45, limit)
    return [f"{datetime.fromtimestamp(at / 1_000, BERLIN):%m-%d %H:%M}" for at in found]


def excluded(*days: int) -> list[Days]:
    return [days_of(FIRST.toordinal() + day for day in days)]


@pytest.mark.parametrize(
    ("forward", "expected"),
    [(True, ["03-01 09:00", "03-04 08:00", "03-04 09:00", "03-04 10:00", "03-05 09:00"]),
     (False, ["03-01 08:00", "03-01 09:00", "03-01 10:00", "03-04 09:00", "03-05 09:00"])],
)  # fmt: skip
def test_fire_times_of_excluded_days_move_and_meet(forward: bool, expected: list[str]) -> None:
    """Days 1 and 2 are excluded. The daily one of these days meets that of the open day."""
    times = make("0 0 9 * * ?", "0 0 8 2 3 ?", "0 0 10 3 3 ?")
    assert shown(times.shifted(excluded(1, 2), None, forward=forward), FIRST, 5) == expected


def test_first_working_day_of_a_month_is_found() -> None:
    weekends = [days_of(day for day in range(date(2026, 1, 1).toordinal(), date(2026, 12, 31).toordinal())
                        if date.fromordinal(day).weekday() > 4)]  # fmt: skip
    first = make("0 0 8 1 * ?").shifted(weekends, None, forward=True)
    assert shown(first, date(2026, 1, 1), 6) == [
        "01-01 08:00", "02-02 08:00", "03-02 08:00", "04-01 08:00", "05-01 08:00", "06-01 08:00",
    ]  # fmt: skip
    last = make("0 0 8 L * ?").shifted(weekends, None, forward=False)
    assert shown(last, date(2026, 1, 1), 5) == [
        "01-30 08:00",
        "02-27 08:00",
        "03-31 08:00",
        "04-30 08:00",
        "05-29 08:00",
    ]


@settings(deadline=None)
@given(
    skipped=st.sets(st.integers(0, 40)),
    only=st.none() | st.sets(st.integers(0, 40)),
    crons=st.lists(
        st.sampled_from(["0 0 9 * * ?", "0 30 2 * * ?", "0 0 10 ? * MON", "0 15 2 1/3 * ?", "0 0 0/5 * * ?"]),
        min_size=1, max_size=3, unique=True,
    ),
    forward=st.booleans(),
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)  # fmt: skip
def test_each_fire_time_moves_to_its_open_day(
    skipped: set[int], only: set[int] | None, crons: list[str], forward: bool, zone: str
) -> None:
    """The days are those around the start of daylight saving, day 28 of March."""
    clock, raw = ZoneInfo(zone), make(*crons, zone=zone)
    begin = int(datetime.combine(FIRST, time(), clock).timestamp() * 1_000)
    end = begin + 60 * 86_400_000

    def is_open(day: date) -> bool:
        number = (day - FIRST).days
        return number not in skipped and (only is None or number in only)

    expected = set()
    for at in raw.between(begin - 1 - 40 * 86_400_000, end + 40 * 86_400_000, 10_000):
        local = datetime.fromtimestamp(at / 1_000, clock)
        days = (local.date() + timedelta(step if forward else -step) for step in range(MAX_SHIFT + 1))
        day = next((day for day in days if is_open(day)), None)
        if day is None:
            continue
        moved = datetime.combine(day, local.time(), clock)
        instant = at if day == local.date() else int(moved.timestamp()) * 1_000
        if day != local.date() and datetime.fromtimestamp(instant / 1_000, clock).time() != local.time():
            instant = int(datetime.combine(day, time(3), clock).timestamp()) * 1_000  # the clock skips this time
        if begin <= instant <= end:
            expected.add(instant)
    start = FIRST.toordinal()
    sets = None if only is None else [days_of(start + day for day in only)]
    found = raw.shifted([days_of(start + day for day in skipped)], sets, forward=forward).between(
        begin - 1, end, 10_000
    )
    assert list(found) == sorted(expected)


def test_fire_time_moves_over_a_limited_number_of_days() -> None:
    for number, expected in ((MAX_SHIFT, 1), (MAX_SHIFT + 1, 0)):
        times = make("0 0 8 2 3 ? 2026").shifted(excluded(*range(1, number + 1)), None, forward=True)
        assert len(shown(times, FIRST, 9)) == expected


def test_moved_fire_time_in_a_blackout_is_none() -> None:
    times = make("0 0 0/6 3 3 ? 2026", blackouts=("2026-03-04T05:00/2026-03-04T13:00",))
    assert shown(times.shifted(excluded(2), None, forward=True), FIRST, 9) == ["03-04 00:00", "03-04 18:00"]
    whole = make("0 0 0/6 3 3 ? 2026", blackouts=("2026-03-04",))
    assert shown(whole.shifted(excluded(2), None, forward=True), FIRST, 9) == []


def test_nothing_is_excluded_or_everything() -> None:
    times = make("0 0 8 * * ?")
    assert shown(times.shifted([], None, forward=True), FIRST, 3) == ["03-01 08:00", "03-02 08:00", "03-03 08:00"]
    assert shown(times.shifted([], [], forward=True), FIRST, 3) == []
    rare = make("0 0 8 29 2 ?").shifted(excluded(1), None, forward=False)
    assert rare.count(0, 1 << 45) == 32


def test_count_goes_on_beyond_those_counted_one_by_one() -> None:
    times = make("0 0/10 * * * ?").shifted([], None, forward=True)
    day = 86_400_000
    assert times.count(0, 20 * day) == 20 * 144


def test_search_that_finds_only_blackouts_ends_after_a_bounded_number_of_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fire times move to Mondays, on which all of their wall times are blacked out."""
    first = FIRST.toordinal()
    mondays = days_of(day for day in range(first, first + 9_000) if date.fromordinal(day).weekday() == 0)
    half_hours = tuple(f"MON {hour:02}:{m:02}-{hour:02}:{m + 1:02}" for hour in range(24) for m in (0, 30))
    times = make("0 0/30 * ? * TUE-SUN", blackouts=half_hours).shifted([], [mondays], forward=True)
    looks, look = 0, Timing._blacked_out_until

    def counted(self: Timing, at_ms: int) -> int:
        nonlocal looks
        looks += 1
        return look(self, at_ms)

    monkeypatch.setattr(Timing, "_blacked_out_until", counted)
    assert times.next_after(0) is None
    assert 100 < looks < 10_000
