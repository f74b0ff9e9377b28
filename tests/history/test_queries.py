"""Pages, their use of indexes, statistics against a plain computation, and retention, on each database."""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.history_kit import START, analyse, assert_no_sort, make_attempt, make_run, plan

from jobcloud.config import team_of
from jobcloud.errors import ConfigError, Unavailable
from jobcloud.history import queries, retention
from jobcloud.history.answers import Statistics, Wanted
from jobcloud.history.database import Database
from jobcloud.history.queries import QUANTILES, Reader
from jobcloud.history.retention import Limits, Retention
from jobcloud.history.rows import Batch, configuration_row, of_events
from jobcloud.history.tables import Row, attempts, configurations, executions, runs, traces
from jobcloud.messages import AttemptTraced
from jobcloud.model import ShardState


def fill(database: Database, count: int, seed: int = 1) -> list[AttemptTraced]:
    """Attempts of some jobs with random ends, one each second."""
    dice = random.Random(seed)
    made = [
        make_attempt(
            number, job=f"job{dice.randrange(5)}", app=f"app{dice.randrange(2)}",
            state=dice.choice(["SUCCEEDED", "SUCCEEDED", "FAILED", "LOST", "KILLED", "NOT_STARTED"]),
            started_ms=START + 1_000 * number - dice.choice([0, 1, 7, 7, 3_000, 90_000]) if dice.random() < 0.9 else 0,
            queued_ms=dice.choice([-1, 0, 5, 5, 800]), cpus=dice.randrange(1, 4_000),
            mem=dice.randrange(1_000, 900_000),
        )
        for number in range(count)
    ]  # fmt: skip
    for start in range(0, count, 500):
        database.write(of_events(made[start : start + 500]))
    return made


def ids(database: Database, table: Any) -> set[str]:
    with database.engine.connect() as connection:
        return set(connection.execute(select(table.c.id)).scalars())


# ------------------------------------------------------------------------------------------------ pages


def test_pages_hold_each_row_once_while_new_rows_arrive(database: Database, reader: Reader) -> None:
    made = fill(database, 57)
    found: list[str] = []
    cursor = "begin"
    while cursor:
        rows, cursor = reader.attempts(Wanted(), 10, "" if cursor == "begin" else cursor)
        found += [row["task_id"] for row in rows]
        database.write(of_events([make_attempt(1_000 + len(found))]))
    assert found == [event.task.id for event in reversed(made)]


def test_range_of_time_is_half_open(database: Database, reader: Reader) -> None:
    database.write(of_events([make_attempt(number) for number in range(5)]))
    rows, _ = reader.attempts(Wanted(since_ms=START + 2_000, until_ms=START + 4_000), 10)
    assert [row["ended_ms"] - START for row in rows] == [3_000, 2_000]


def test_cursor_of_another_list_is_refused(database: Database, reader: Reader) -> None:
    for cursor in ("1", "x" * 32, "' OR 1=1 --"):
        with pytest.raises(ConfigError, match="cursor"):
            reader.runs(Wanted(), 10, cursor)


def test_history_without_its_tables_is_unavailable(reader: Reader) -> None:
    with pytest.raises(Unavailable, match="not set up"):
        reader.runs(Wanted(), 10)


@pytest.mark.parametrize(
    ("table", "wanted", "index"),
    [
        ("runs", Wanted(job="job1", since_ms=START, until_ms=START + 10**9), "history_runs_job"),
        ("runs", Wanted(app="app1"), "history_runs_app"),
        ("attempts", Wanted(job="job1", since_ms=START, until_ms=START + 10**9), "history_attempts_job"),
        ("attempts", Wanted(run="job3.run@test"), "history_attempts_run"),
        ("attempts", Wanted(team="team2"), "history_attempts_team"),
        ("runs", Wanted(team="team2", since_ms=START), "history_runs_team"),
        ("configurations", Wanted(team="team2", since_ms=START), "history_configurations_team"),
    ],
)
def test_page_reads_an_index_and_does_not_sort(database: Database, table: str, wanted: Wanted, index: str) -> None:
    jobs = [(number, f"job{number % 100}" if number % 2 else f"team{number % 100}:job") for number in range(3_000)]
    database.write(of_events([make_attempt(number, job=job) for number, job in jobs]))
    database.write(of_events([make_run(number, job=job, app=f"app{number % 90}") for number, job in jobs]))
    database.write(Batch(configurations=[_configuration(number, job) for number, job in jobs]))
    analyse(database)
    of = {"runs": runs, "attempts": attempts, "configurations": configurations}[table]
    middle = f"{START + 900_000:012x}" + "0" * 20
    statement = queries.page_of(of, queries.conditions(of, wanted, middle), 51)
    found = plan(database, statement)
    assert index in found, found
    assert_no_sort(found)


def _configuration(number: int, job: str) -> Row:
    return configuration_row(START + 1_000 * number, number, "job", job, "0" * 16, "{}")


def _step(steps: Iterator[int]) -> int:
    """Count a step. 0 lets the statement go on."""
    return 0 * next(steps)


def test_page_in_the_middle_of_a_range_reads_no_row_before_it(tmp_path: Path) -> None:
    """Counted in steps of SQLite's virtual machine."""
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    database.upgrade()
    database.write(of_events([make_run(number, job="job1") for number in range(3_000)]))
    wanted = Wanted(job="job1", since_ms=START, until_ms=START + 10**9)
    found = []
    with database.engine.connect() as connection:
        for cursor in ("", f"{START + 900_000:012x}" + "0" * 20):
            statement = queries.page_of(runs, queries.conditions(runs, wanted, cursor), 51)
            steps = itertools.count()
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.set_progress_handler(partial(_step, steps), 1)
            assert len(connection.execute(statement).all()) == 51
            found.append(next(steps))
    database.close()
    first, middle = found
    assert middle < 2 * first


@pytest.mark.parametrize("state", ["", "FAILED"])
def test_page_of_some_teams_has_their_newest_rows_and_no_others(database: Database, reader: Reader, state: str) -> None:
    teams = ("alpha:", "beta:", "gamma:", "")
    made = [
        make_attempt(number, job=f"{teams[number * number % 3 if number < 60 else 2]}job", state=end)
        for number, end in enumerate(itertools.islice(itertools.cycle(["SUCCEEDED", "FAILED", "LOST"]), 90))
    ]
    database.write(of_events(made))
    for chosen in ({"alpha", "beta"}, {"beta", "gamma", "absent"}, {"default"}, set[str]()):
        wanted = Wanted(
            states=(state,) if state else (), teams=frozenset(chosen), since_ms=START + 5_000, until_ms=START + 80_000
        )
        expected = [
            event.task.id
            for event in reversed(made)
            if team_of(event.task.job) in chosen
            and state in ("", event.state)
            and START + 5_000 <= event.at < START + 80_000
        ]
        found: list[str] = []
        cursor = "begin"
        while cursor:
            rows, cursor = reader.attempts(wanted, 4, "" if cursor == "begin" else cursor)
            assert len(rows) == 4 or not cursor, "a short page with a cursor"
            found += [row["task_id"] for row in rows]
        assert found == expected
        names = {each.name for each in reader.statistics("team", replace(wanted, states=()))[0]}
        assert names == chosen & {team_of(event.task.job) for event in made}


def test_page_of_some_teams_reads_no_row_of_others(tmp_path: Path) -> None:
    """Counted in steps of SQLite's virtual machine."""
    found = []
    for others in (0, 5_000):
        database = Database(f"sqlite:///{tmp_path / f'history-{others}.db'}")
        database.upgrade()
        # The rows of the two teams are the oldest ones.
        jobs = [f"{('alpha', 'beta')[number % 2]}:job" for number in range(600)] + ["job"] * others
        database.write(of_events([make_run(number, job=job) for number, job in enumerate(jobs)]))
        with database.engine.connect() as connection:
            steps = itertools.count()
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.set_progress_handler(partial(_step, steps), 1)
            wanted = Wanted(teams=frozenset(("alpha", "beta")))
            assert len(queries._newest(connection, runs, wanted, [], 51, "")) == 51
            found.append(next(steps))
        database.close()
    alone, among_others = found
    assert among_others < 1.2 * alone


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(job="job"), Wanted(app="app"), Wanted(team="alpha")])
def test_page_of_some_states_reads_no_row_of_others(tmp_path: Path, wanted: Wanted) -> None:
    """Counted in steps of SQLite's virtual machine. Half of the rows in these states are the oldest ones."""
    found = []
    bad, good = (ShardState.FAILED, ShardState.DEAD), (ShardState.FINISHED,)
    job = "alpha:job" if wanted.team else "job"
    for others in (0, 5_000):
        database = Database(f"sqlite:///{tmp_path / f'history-{others}.db'}")
        database.upgrade()
        states = [bad[number % 2] for number in range(600)] + list(good) * others
        made = [make_run(number, state, job=job, app="app") for number, state in enumerate(states)]
        database.write(of_events(made))
        with database.engine.connect() as connection:
            steps = itertools.count()
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.set_progress_handler(partial(_step, steps), 1)
            asked = replace(wanted, states=("FAILED", "DEAD"), since_ms=START)
            rows = queries._newest(connection, runs, asked, [], 51, "")
            assert [row.state for row in rows] == [str(bad[number % 2]) for number in range(599, 548, -1)]
            found.append(next(steps))
        database.close()
    alone, among_others = found
    assert among_others < 1.2 * alone


# ------------------------------------------------------------------------------------------------ statistics


def plain(events: list[AttemptTraced]) -> dict[str, Any]:
    """The statistics of some attempts, computed in the plainest way."""

    def quantiles(values: list[int]) -> tuple[int | None, ...]:
        ranked = sorted(values)
        return tuple(ranked[math.ceil(len(ranked) * p / 100) - 1] if ranked else None for p in QUANTILES)

    taken = [event.at - event.task.started_ms for event in events if event.task.started_ms]
    ends = [event.state for event in events]
    return {
        "attempts": len(events),
        "succeeded": ends.count("SUCCEEDED"),
        "failed": sum(end in ("FAILED", "LOST", "NOT_STARTED", "INVALID", "REPLACED") for end in ends),
        "killed": ends.count("KILLED"),
        "cpu_seconds": sum(e.task.resources.cpus * (e.at - e.task.started_ms) for e in events if e.task.started_ms)
        / 1e6,
        "memory_mb_seconds": sum(e.task.resources.mem * (e.at - e.task.started_ms) for e in events if e.task.started_ms)
        / 1e6,
    } | _by_percent(quantiles(taken), quantiles([event.queued_ms for event in events if event.queued_ms >= 0]))


def shown(found: Statistics) -> dict[str, Any]:
    def values(name: str) -> tuple[int | None, ...]:
        known = getattr(found, name)
        return (known.p50, known.p95, known.p99) if known else (None, None, None)

    names = ("attempts", "succeeded", "failed", "killed", "cpu_seconds", "memory_mb_seconds")
    return {name: getattr(found, name) for name in names} | _by_percent(values("duration"), values("queued"))


def _by_percent(duration: tuple[int | None, ...], queued: tuple[int | None, ...]) -> dict[str, int | None]:
    names = [f"{name} p{percent}" for name in ("duration", "queued") for percent in QUANTILES]
    return dict(zip(names, (*duration, *queued), strict=True))


@pytest.mark.parametrize("by", ["job", "app", "team", "total"])
def test_statistics_equal_a_plain_computation(database: Database, reader: Reader, by: Any, seed: int) -> None:
    made = fill(database, 700, seed)
    within = Wanted(since_ms=START + 100_000, until_ms=START + 650_000)
    chosen = [event for event in made if within.since_ms <= event.at < within.until_ms]
    names: dict[str, Callable[[AttemptTraced], str]] = {
        "job": lambda event: event.task.job,
        "app": lambda event: event.task.app,
        "team": lambda event: "default",
        "total": lambda event: "",
    }
    name_of = names[by]
    expected = {
        name: plain([event for event in chosen if name_of(event) == name]) for name in sorted(set(map(name_of, chosen)))
    }
    found: list[Statistics] = []
    cursor = ""
    while True:
        page, cursor = reader.statistics(by, within, 2, cursor)
        found += page
        if not cursor:
            break
    assert [each.name for each in found] == list(expected)
    for each in found:
        assert shown(each) == pytest.approx(expected[each.name])


@pytest.mark.parametrize("count", [1, 2, 19, 20, 100, 101])
def test_percentiles_of_few_values_are_nearest_ranks(database: Database, reader: Reader, count: int) -> None:
    database.write(of_events([make_attempt(n, started_ms=START + 1_000 * (n + 1) - n - 1) for n in range(count)]))
    ((found,), _) = reader.statistics("total", Wanted())
    assert found.duration is not None
    expected = [math.ceil(count * percent / 100) for percent in QUANTILES]
    assert [found.duration.p50, found.duration.p95, found.duration.p99] == expected


def test_statistics_of_nothing_are_zero(database: Database, reader: Reader) -> None:
    assert reader.statistics("total", Wanted()) == ([Statistics("")], "")
    assert reader.statistics("job", Wanted()) == ([], "")


# ------------------------------------------------------------------------------------------------ retention


def enforce(database: Database, now: int = START, **limits: int) -> None:
    assert Retention(Limits(**limits), lambda: now).enforce(database)


def test_old_rows_are_deleted_in_steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 7)
    database.write(of_events([make_attempt(number) for number in range(50)]))
    database.write(of_events([make_run(number) for number in range(50)]))
    enforce(database, START + 40_000, age_ms=10_000)
    kept = {f"{START + 1_000 * number:012x}" for number in range(30, 51)}
    for table in (attempts, executions, traces):
        assert {id_[:12] for id_ in ids(database, table)} == kept
    assert len(ids(database, runs)) == 20
    enforce(database, START + 10**9, age_ms=10_000)
    assert ids(database, attempts) == ids(database, traces) == ids(database, runs) == set()


def test_newest_attempts_are_kept_by_number(database: Database) -> None:
    database.write(of_events([make_attempt(number) for number in range(50)]))
    enforce(database, attempts=50)
    assert len(ids(database, attempts)) == 50
    enforce(database, attempts=12)
    for table in (attempts, executions, traces):
        assert min(ids(database, table))[:12] == f"{START + 39_000:012x}"
        assert len(ids(database, table)) == 12


def test_newest_attempts_of_each_job_are_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 4)
    database.write(of_events([make_attempt(number, job="busy") for number in range(30)]))
    database.write(of_events([make_attempt(number, job="calm") for number in range(3)]))
    old = [make_run(-1_000, job="busy"), make_run(-1_000, job="calm"), make_run(50, job="busy", state=ShardState.DEAD)]
    database.write(of_events(old))
    enforce(database, attempts_per_job=5)
    with database.engine.connect() as connection:
        for table, name in ((attempts, "job"), (executions, "job_name"), (traces, "job_name")):
            jobs = list(connection.execute(select(table.c[name])).scalars())
            assert (jobs.count("busy"), jobs.count("calm")) == (5, 3), table.name
        newest = connection.execute(select(attempts.c.ended_ms).where(attempts.c.job == "busy")).scalars()
        assert min(newest) == START + 26_000
        assert sorted(connection.execute(select(runs.c.job)).scalars()) == ["busy", "calm"]


def test_size_is_limited_by_deleting_the_oldest(database: Database) -> None:
    fill(database, 3_000)
    size = retention.size_of(database)
    assert size > 500_000
    enforce(database, bytes=size * 2)
    assert len(ids(database, attempts)) == 3_000
    enforce(database, bytes=size // 2)
    kept = ids(database, attempts)
    assert 1_000 < len(kept) < 1_600
    assert max(kept)[:12] == f"{START + 3_000_000:012x}"
    # A server does not give the space back, so the same size must not be acted upon again, not even after a vacuum.
    if database.kind == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")
    enforce(database, bytes=size // 2)
    assert ids(database, attempts) == kept or database.kind == "sqlite"


def test_deletion_stops_while_events_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 10)
    database.write(of_events([make_attempt(number) for number in range(50)]))
    asked: list[int] = []

    def pressed() -> bool:
        asked.append(1)
        return len(asked) > 3

    assert not Retention(Limits(age_ms=1), lambda: START + 10**9).enforce(database, pressed)
    assert 0 < len(ids(database, attempts)) + len(ids(database, traces)) < 100


def test_retention_runs_every_ten_minutes(database: Database) -> None:
    now = [START + 10**9]
    kept = Retention(Limits(age_ms=1_000), lambda: now[0])
    kept.run(database, lambda: False)
    database.write(of_events([make_attempt()]))
    kept.run(database, lambda: False)
    assert len(ids(database, attempts)) == 1
    now[0] += 600_000
    kept.run(database, lambda: False)
    assert ids(database, attempts) == set()
