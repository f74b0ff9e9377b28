"""Steps of time, samples, their condensing, and series, on each database."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from tests.history_kit import START, OpenDatabase, make_attempt, make_run

from jobcloud.config import Resources
from jobcloud.errors import ConfigError, Unavailable
from jobcloud.history.answers import Step, Wanted
from jobcloud.history.condensing import HOURS_KEPT_MS, MINUTES_KEPT_MS, condense
from jobcloud.history.database import Database
from jobcloud.history.queries import Reader
from jobcloud.history.retention import Limits, Retention
from jobcloud.history.rows import of_events
from jobcloud.history.samples import AMOUNTS, COUNTS, Sample, Sampled, Sampler, TeamNumbers
from jobcloud.history.series import first_of, series
from jobcloud.history.spool import Spool
from jobcloud.history.steps import DAY_MS, HOUR_MS, MAX_STEPS, MINUTE_MS, By, steps_of
from jobcloud.history.tables import samples
from jobcloud.history.writer import Writer
from jobcloud.model import ShardState


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def sample(running: int = 1, *, agents: int = 2, **teams: TeamNumbers) -> Sample:
    numbers = {"default": TeamNumbers(4, 1, min(running, 1), running, 3, 2, Resources(500 * running, 64_000))}
    return Sample(agents, Resources(8_000, 1_000_000), numbers | teams)


def write(database: Database, *events: Any) -> None:
    database.write(of_events(events))


def never() -> bool:
    return False


# ------------------------------------------------------------------------------------------------ steps


def test_minutes_and_hours_are_whole_and_the_range_is_extended_to_them() -> None:
    assert steps_of("minute", START + 30_000, START + 61_000).ranges == [
        (START, START + MINUTE_MS), (START + MINUTE_MS, START + 2 * MINUTE_MS)]  # fmt: skip
    assert steps_of("hour", START, START + HOUR_MS).ranges == [(START, START + HOUR_MS)]
    assert steps_of("hour", START, START).ranges == []


@pytest.mark.parametrize(
    ("zone", "since", "hours"),
    [
        ("UTC", "2026-03-28T12:00:00Z", [24, 24, 24]),
        ("Europe/Berlin", "2026-03-28T12:00:00Z", [24, 23, 24]),
        ("Europe/Berlin", "2026-10-24T12:00:00Z", [24, 25, 24]),
        ("Asia/Beirut", "2026-03-28T12:00:00Z", [24, 23, 24]),  # its clocks skip midnight
        ("Pacific/Apia", "2011-12-29T12:00:00-10:00", [24, 24, 24]),  # it had no 30 December
    ],
)
def test_days_begin_at_midnight_of_their_zone(zone: str, since: str, hours: list[int]) -> None:
    first = instant(since)
    found = steps_of("day", first, first + 49 * HOUR_MS + 1, zone)
    assert [(end - at) // HOUR_MS for at, end in found.ranges] == hours
    local = [datetime.fromtimestamp(at / 1000, ZoneInfo(zone)) for at in found.bounds]
    assert all(one.minute == 0 and one.hour in (0, 1) for one in local)
    assert found.bounds[0] <= first < found.bounds[1]


def test_range_with_too_many_steps_and_unknown_zone_are_refused() -> None:
    assert len(steps_of("minute", START, START + MAX_STEPS * MINUTE_MS - 1).ranges) == MAX_STEPS
    with pytest.raises(ConfigError, match="more than 1,500 steps") as refused:
        steps_of("minute", START, START + MAX_STEPS * MINUTE_MS)
    assert refused.value.field == "since"
    with pytest.raises(ConfigError, match="no time zone"):
        steps_of("day", START, START + DAY_MS, "Mars/Olympus")


@pytest.mark.parametrize(("by", "zone"), [("minute", "UTC"), ("hour", "UTC"), ("day", "UTC"), ("day", "Europe/Berlin")])
def test_database_finds_the_step_of_an_instant(database: Database, by: By, zone: str, seed: int) -> None:
    dice = random.Random(seed)
    since = instant("2026-10-24T12:00:00Z")
    steps = steps_of(by, since, since + {"minute": 90 * MINUTE_MS, "hour": 30 * HOUR_MS, "day": 5 * DAY_MS}[by], zone)
    edges = [at + more for at in steps.bounds[:-1] for more in (0, 1)] + [at - 1 for at in steps.bounds[1:]]
    given = {*edges, *(dice.randrange(steps.bounds[0], steps.bounds[-1]) for _ in range(50))}
    write(database, *(Sampled(at, sample()) for at in given))
    with database.engine.connect() as connection:
        found = connection.execute(select(samples.c.at_ms, first_of(steps, samples.c.at_ms)).distinct())
        assert {at: int(first) for at, first in found} == {at: max(b for b in steps.bounds if b <= at) for at in given}


# ------------------------------------------------------------------------------------------------ samples


def test_sampler_takes_one_sample_a_minute_and_asks_again_while_none_is_known() -> None:
    now = [START + 10_000]
    known: list[Sample | None] = [None, sample(7)]
    sampler = Sampler(lambda: known.pop(0), lambda: now[0])
    assert sampler.due() is None
    now[0] += 1_000
    assert sampler.due() == Sampled(START, sample(7))
    now[0] += 40_000
    assert sampler.due() is None
    now[0] += 20_000
    assert sampler.due() is None, "an error is a gap"
    known.append(sample())
    assert sampler.due() is None, "of a whole minute"
    now[0] += 60_000
    assert sampler.due() == Sampled(START + 2 * MINUTE_MS, sample())


def test_columns_of_samples_are_those_of_the_table() -> None:
    assert samples.c.keys() == ["id", "team", "at_ms", "step_ms", "samples", *COUNTS, *AMOUNTS]


def sampled(database: Database) -> list[tuple[int, str, int, int]]:
    with database.engine.connect() as connection:
        columns = (samples.c.at_ms, samples.c.team, samples.c.samples, samples.c.running)
        return [tuple(row) for row in connection.execute(select(*columns).order_by(samples.c.at_ms, samples.c.team))]


def test_two_leaders_in_one_minute_make_one_sample(database: Database, open_database: OpenDatabase) -> None:
    write(database, Sampled(START, sample(5)))
    write(open_database(), Sampled(START, sample(9)))
    assert sampled(database) == [(START, "", 1, 0), (START, "default", 1, 5)]


def test_team_without_anything_has_no_row(database: Database) -> None:
    write(database, Sampled(START, sample(5, idle=TeamNumbers())))
    assert [team for _, team, _, _ in sampled(database)] == ["", "default"]


@pytest.mark.parametrize("leads", [True, False])
def test_only_a_leader_takes_samples(tmp_path: Path, leads: bool) -> None:
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    database.upgrade()
    writer = Writer(
        lambda: database, Spool(tmp_path / "spool", 1 << 20), Limits(), now_ms=lambda: START + 5_000, sample=sample
    )
    if leads:
        writer.fill([], {})
    writer.start()
    assert writer.flush()
    assert writer.flush()
    assert sampled(database) == ([(START, "", 1, 0), (START, "default", 1, 1)] if leads else [])
    writer.stop()


def test_samples_wait_on_disk_while_the_database_is_away(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    away, now, clock = [True], [START], [0.0]

    def open_database() -> Database:
        if away[0]:
            raise OperationalError("connect", {}, Exception("no route to host"))
        return database

    writer = Writer(
        open_database,
        Spool(tmp_path / "spool", 1 << 20),
        Limits(),
        now_ms=lambda: now[0],
        monotonic=lambda: clock[0],
        sample=sample,
    )
    writer.fill([], {})
    writer.start()
    for _ in range(3):
        assert writer.flush()
        now[0] += MINUTE_MS
    away[0] = False
    clock[0] += 60
    assert writer.flush()
    assert [at for at, team, _, _ in sampled(database) if not team] == [START + n * MINUTE_MS for n in range(4)]
    writer.stop()


# ------------------------------------------------------------------------------------------------ condensing


def test_hours_of_more_than_a_day_ago_become_one_row_and_keep_their_means(database: Database, reader: Reader) -> None:
    for number in range(0, 120, 2):
        write(database, Sampled(START + number * MINUTE_MS, sample(number)))
    write(database, Sampled(START + 2 * HOUR_MS, sample(6, other=TeamNumbers(1))))
    steps = steps_of("hour", START, START + 4 * HOUR_MS)
    before = series(reader, steps, Wanted())
    assert [step.means.running if step.means else None for step in before] == [29.0, 89.0, 6.0, None]
    # The second hour ends exactly a day ago, the third one later.
    assert condense(database, START + 2 * HOUR_MS + MINUTES_KEPT_MS, never)
    assert sampled(database) == [
        (START, "", 30, 0), (START, "default", 30, sum(range(0, 60, 2))),
        (START + HOUR_MS, "", 30, 0), (START + HOUR_MS, "default", 30, sum(range(60, 120, 2))),
        (START + 2 * HOUR_MS, "", 1, 0), (START + 2 * HOUR_MS, "default", 1, 6), (START + 2 * HOUR_MS, "other", 1, 0),
    ]  # fmt: skip
    assert series(reader, steps, Wanted()) == before
    assert condense(database, START + 2 * HOUR_MS + MINUTES_KEPT_MS, never)
    assert series(reader, steps, Wanted()) == before


def test_late_minute_of_an_hour_that_is_condensed_is_left_out(database: Database) -> None:
    write(database, Sampled(START, sample(4)))
    now = START + HOUR_MS + MINUTES_KEPT_MS
    assert condense(database, now, never)
    write(database, Sampled(START, sample(4)), Sampled(START + MINUTE_MS, sample(8)))
    assert condense(database, now, never)
    assert sampled(database) == [(START, "", 1, 0), (START, "default", 1, 4)]


def test_old_hours_are_deleted(database: Database) -> None:
    write(database, Sampled(START, sample()), Sampled(START + HOUR_MS, sample()))
    assert condense(database, START + HOURS_KEPT_MS + 1, never)
    assert {at for at, *_ in sampled(database)} == {START + HOUR_MS}


def test_condensing_stops_while_events_wait_and_runs_with_the_retention(database: Database) -> None:
    write(database, Sampled(START, sample()))
    assert not condense(database, START + 2 * DAY_MS, lambda: True)
    assert not Retention(Limits(), lambda: START + 2 * DAY_MS).enforce(database, lambda: True)
    assert len(sampled(database)) == 2
    assert Retention(Limits(), lambda: START + 100 * DAY_MS).enforce(database)
    assert sampled(database) == []


def test_half_a_condensing_leaves_all_minutes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    write(database, *(Sampled(START + number * MINUTE_MS, sample()) for number in range(3)))
    before = sampled(database)

    def fail(*_: object) -> None:
        raise RuntimeError("the power is gone")

    monkeypatch.setattr("jobcloud.history.condensing.delete", fail)
    with pytest.raises(RuntimeError, match="power"):
        condense(database, START + 2 * DAY_MS, never)
    assert sampled(database) == before


# ------------------------------------------------------------------------------------------------ series


def by_time(found: list[Step], name: str) -> list[Any]:
    return [getattr(step, name) for step in found]


def test_attempts_count_where_they_end_and_runs_where_they_fire(database: Database, reader: Reader) -> None:
    minute = MINUTE_MS // 1000
    write(
        database,
        make_attempt(1), make_attempt(2, state="LOST"), make_attempt(minute, state="KILLED", started_ms=0),
        make_run(1), make_run(2, ShardState.DEAD), make_run(3 * minute, ShardState.FAILED),
    )  # fmt: skip
    found = series(reader, steps_of("minute", START, START + 4 * MINUTE_MS), Wanted())
    assert by_time(found, "outcomes") == [{"SUCCEEDED": 1, "LOST": 1}, {"KILLED": 1}, {}, {}]
    first, second, third, _ = by_time(found, "attempts")
    assert (first.succeeded, first.failed, first.killed, first.duration.p50) == (1, 1, 0, 2_000)
    assert (second.killed, second.duration, third.attempts) == (1, None, 0)
    assert by_time(found, "runs") == [{"FINISHED": 1, "DEAD": 1}, {}, {}, {"FAILED": 1}]
    assert by_time(found, "shards") == [{"FINISHED": 3, "DEAD": 1}, {}, {}, {"FINISHED": 1, "FAILED": 1}]


def test_nothing_is_said_about_the_time_before_the_history(database: Database, reader: Reader) -> None:
    steps = steps_of("minute", START, START + 3 * MINUTE_MS)
    assert by_time(series(reader, steps, Wanted()), "attempts") == [None, None, None]
    write(database, make_attempt(90), make_run(90))
    found = series(reader, steps, Wanted())
    assert [step.attempts.attempts if step.attempts else None for step in found] == [None, 1, 0]
    assert by_time(found, "runs") == [None, {"FINISHED": 1}, {}]
    assert by_time(found, "shards") == [None, {"FINISHED": 2}, {}]


def test_minute_without_a_sample_is_a_gap_and_not_zero(database: Database, reader: Reader) -> None:
    write(database, Sampled(START, sample(2)), Sampled(START + 2 * MINUTE_MS, sample(0)))
    found = series(reader, steps_of("minute", START, START + 3 * MINUTE_MS), Wanted())
    first, gap, last = by_time(found, "means")
    assert gap is None
    assert (first.running, last.running, last.jobs, last.disabled, last.agents) == (2, 0, 4, 1, 2)
    assert (first.used, first.total) == (Resources(1_000, 64_000), Resources(8_000, 1_000_000))
    (hour,) = series(reader, steps_of("hour", START, START + HOUR_MS), Wanted())
    assert hour.means is not None
    assert (hour.means.samples, hour.means.running, hour.means.jobs) == (2, 1.0, 4.0), "the gap is not counted"


def test_samples_of_hours_are_not_shown_as_minutes(database: Database, reader: Reader) -> None:
    write(database, Sampled(START, sample()))
    assert condense(database, START + 2 * DAY_MS, never)
    assert by_time(series(reader, steps_of("minute", START, START + 2 * MINUTE_MS), Wanted()), "means") == [None, None]


def test_samples_are_of_the_teams_that_are_asked_for(database: Database, reader: Reader) -> None:
    other = TeamNumbers(7, 0, 2, 10, 0, 5, Resources(2_000))
    write(database, Sampled(START, sample(1, other=other)), Sampled(START + MINUTE_MS, sample(1)))
    steps = steps_of("hour", START, START + HOUR_MS)

    def means(**wanted: Any) -> tuple[float, ...] | None:
        (found,) = series(reader, steps, Wanted(**wanted))
        return (found.means.jobs, found.means.running, found.means.agents) if found.means else None

    assert means() == (7.5, 6.0, 2.0)
    assert means(team="other") == (3.5, 5.0, 2.0), "the second sample has none of it"
    assert means(teams=frozenset(["default"])) == (4.0, 1.0, 2.0)
    assert means(teams=frozenset(["absent"])) == means(team="absent") == (0.0, 0.0, 2.0)
    assert means(job="report") is None


def test_series_equals_a_plain_computation(database: Database, reader: Reader, seed: int) -> None:
    dice = random.Random(seed)
    since = instant("2026-10-24T22:00:00Z")
    made = [
        make_attempt(
            number, at=since + dice.randrange(3 * DAY_MS), job=f"job{dice.randrange(3)}", app=f"app{dice.randrange(2)}",
            state=dice.choice(["SUCCEEDED", "FAILED", "LOST", "KILLED"]),
        )
        for number in range(300)
    ]  # fmt: skip
    write(database, *made)
    for wanted in (Wanted(), Wanted(job="job1"), Wanted(app="app0"), Wanted(teams=frozenset(["default"]))):
        chosen = [event for event in made if wanted.job in ("", event.task.job) and wanted.app in ("", event.task.app)]
        steps = steps_of("day", since, since + 3 * DAY_MS, "Europe/Berlin")
        for step in series(reader, steps, wanted):
            within = [event for event in chosen if step.at <= event.at < step.until]
            assert step.outcomes == Counter(event.state for event in within)


def test_database_that_is_not_set_up_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable):
        series(Reader(lambda: Database(url, reading=True)), steps_of("hour", START, START + 1), Wanted())


def test_ninety_days_of_twenty_teams_take_few_rows(database: Database, reader: Reader) -> None:
    """The number of rows does not grow with time."""
    teams = {f"team{number}": TeamNumbers(1) for number in range(20)}
    now = START + 3 * DAY_MS
    made = [Sampled(START + 10 * MINUTE_MS * number, Sample(1, Resources(1), teams)) for number in range(3 * 144)]
    write(database, *made)
    assert condense(database, now, never)
    with database.engine.connect() as connection:
        rows = connection.execute(select(samples.c.step_ms, func.count()).group_by(samples.c.step_ms)).all()
    assert {int(step): count for step, count in rows} == {HOUR_MS: 48 * 21, MINUTE_MS: 144 * 21}
    found = series(reader, steps_of("day", START, now), Wanted())
    assert [step.means and (step.means.samples, step.means.jobs) for step in found] == [(144, 20.0)] * 3
