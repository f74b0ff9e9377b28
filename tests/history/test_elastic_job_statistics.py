"""The statistics of Elastic-Job-Cloud's API against a plain computation in Python, on each database."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.history_kit import START, OpenDatabase, analyse, make_attempt, plan

from jobcloud.errors import Unavailable
from jobcloud.history import elastic_job_statistics
from jobcloud.history.database import Database
from jobcloud.history.elastic_job import Interval, Period
from jobcloud.history.elastic_job_statistics import ElasticJobStatistics
from jobcloud.history.queries import Reader
from jobcloud.history.registrations import Registrations
from jobcloud.history.retention import NO_LIMITS
from jobcloud.history.rows import FAILURES, of_events
from jobcloud.history.spool import Spool
from jobcloud.history.writer import Writer
from jobcloud.messages import AttemptTraced
from jobcloud.model import Task

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = START + 9 * DAY + 5 * HOUR + 1_234


class Clock:
    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def statistics(database: Database, reader: Reader, clock: Clock) -> ElasticJobStatistics:
    return ElasticJobStatistics(reader, clock)


def fill(database: Database, seed: int, count: int = 400) -> list[AttemptTraced]:
    """Attempts of nine days. Many ended in the last hour, and some ran for days. Some belong to another team."""
    dice = random.Random(seed)
    made = []
    for number in range(count):
        at = NOW - dice.choice([dice.randrange(2 * MINUTE), dice.randrange(2 * HOUR), dice.randrange(9 * DAY)])
        launched = at - dice.choice([dice.randrange(1, 1_000), dice.randrange(HOUR), dice.randrange(3 * DAY)])
        state = dice.choice(["SUCCEEDED", "SUCCEEDED", *FAILURES, "KILLED"])
        job = dice.choice(["a", "b", "c", "billing:a"])
        made.append(make_attempt(number, job=job, at=at, created_ms=launched, started_ms=launched + 5, state=state))
    database.write(of_events(made))
    return [event for event in made if ":" not in event.task.job]


def ended_within(made: list[AttemptTraced], since: int, until: int) -> tuple[int, int]:
    """The numbers of attempts that succeeded and failed."""
    states = [event.state for event in made if since <= event.at < until]
    return states.count("SUCCEEDED"), sum(state in FAILURES for state in states)


def test_results_of_each_minute_of_a_day(database: Database, statistics: ElasticJobStatistics, seed: int) -> None:
    made = fill(database, seed)
    found = statistics.results_of_day()
    last = NOW - NOW % MINUTE
    assert [(one.id, one.at_ms) for one in found] == list(enumerate(range(last - DAY, last, MINUTE), 1))
    for one in found:
        assert (one.succeeded, one.failed) == ended_within(made, one.at_ms, one.at_ms + MINUTE)
        assert one.interval is Interval.MINUTE


def test_results_of_periods(database: Database, statistics: ElasticJobStatistics, seed: int) -> None:
    made = fill(database, seed)
    minute, hour = NOW - NOW % MINUTE, NOW - NOW % HOUR
    for period, since, until, interval in [
        (Period.ONLINE, min(event.at for event in made), minute, Interval.DAY),
        (Period.LAST_WEEK, minute - 7 * DAY, minute, Interval.DAY),
        (Period.LAST_HOUR, hour - HOUR, hour, Interval.HOUR),
        (Period.LAST_MINUTE, minute - MINUTE, minute, Interval.MINUTE),
    ]:
        found = statistics.result(period)
        assert (found.succeeded, found.failed) == ended_within(made, since, until)
        assert (found.at_ms, found.interval) == (since, interval)


def alive(job: str, launched: int) -> Task:
    return make_attempt(job=job, created_ms=launched, started_ms=0).task


def test_running_tasks_and_jobs_of_a_week(database: Database, statistics: ElasticJobStatistics, seed: int) -> None:
    made = fill(database, seed)
    now = [alive("a", NOW - 3 * DAY), alive("c", NOW - 90 * MINUTE), alive("d", NOW - 10)]
    tasks, jobs = statistics.running_tasks_of_week(now), statistics.running_jobs_of_week(now)
    hours = [at for at in range(START, NOW, HOUR) if at >= NOW - 7 * DAY]
    assert [one.at_ms for one in tasks] == [one.at_ms for one in jobs] == [*hours, NOW]
    for number, at in enumerate(hours):
        ran = [event.task.job for event in made if event.task.created_ms <= at < event.at and event.at > NOW - 7 * DAY]
        ran += [task.job for task in now if task.created_ms <= at]
        assert (tasks[number].number, jobs[number].number) == (len(ran), len(set(ran))), number
    assert (tasks[-1].number, jobs[-1].number) == (3, 3)


def test_nothing_is_said_about_the_time_before_the_history(
    database: Database, statistics: ElasticJobStatistics, clock: Clock
) -> None:
    task = alive("a", NOW - DAY)
    assert statistics.results_of_day() == ()
    assert [one.number for one in statistics.running_tasks_of_week([task])] == [1]
    assert statistics.result(Period.ONLINE)[1:3] == (0, 0)
    database.write(of_events([make_attempt(at=NOW - 2 * HOUR, created_ms=NOW - 4 * HOUR)]))
    clock.now += MINUTE
    assert len(statistics.results_of_day()) == 121
    assert [one.number for one in statistics.running_tasks_of_week([task])] == [1, 1, 1]
    assert statistics.result(Period.ONLINE)[1:3] == (1, 0)


def test_attempt_that_a_new_leader_hands_over_counts_from_its_start(
    database: Database, statistics: ElasticJobStatistics
) -> None:
    """The state does not tell its launch. An attempt that never started did not run."""
    database.write(of_events([make_attempt(at=NOW - 9 * HOUR)]))
    for number, started in enumerate([NOW - 2 * HOUR, 0]):
        event = make_attempt(number, at=NOW - 1, created_ms=0, started_ms=started)
        database.write(of_events([event]))
    assert [one.number for one in statistics.running_tasks_of_week([])][-4:] == [0, 1, 1, 0]


def test_answer_is_computed_once_a_minute(database: Database, statistics: ElasticJobStatistics, clock: Clock) -> None:
    assert statistics.result(Period.LAST_WEEK).succeeded == 0
    database.write(of_events([make_attempt(at=NOW - HOUR)]))
    assert statistics.result(Period.LAST_WEEK).succeeded == 0
    clock.now += MINUTE
    assert statistics.result(Period.LAST_WEEK).succeeded == 1


def test_samples_of_too_many_attempts_are_refused(
    database: Database, statistics: ElasticJobStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic_job_statistics, "MAX_SPANS", 3)
    made = [make_attempt(n, job=f"job{n}", at=NOW - 1, created_ms=NOW - HOUR * (n + 1)) for n in range(4)]
    database.write(of_events(made[:3]))
    assert statistics.running_jobs_of_week([])[-1].number == 0
    database.write(of_events(made[3:]))
    with pytest.raises(Unavailable, match="more than 3"):
        statistics.running_tasks_of_week([])


def test_results_of_a_period_read_an_index_alone(database: Database) -> None:
    made = [make_attempt(n, state="FAILED" if n % 9 else "SUCCEEDED", job=f"job{n % 50}") for n in range(3_000)]
    database.write(of_events(made))
    analyse(database)
    found = plan(database, elastic_job_statistics.counted(START, START + 10 * MINUTE))
    assert "history_attempts_outcome" in found, found
    assert "covering" in found.lower() or "index only" in found.lower() or "Using index" in found, found


def test_statistics_of_a_range_read_only_its_rows(database: Database) -> None:
    begin = NOW - 3_000 * 10 * MINUTE
    made = [make_attempt(n, job=f"job{n % 50}", at=begin + n * 10 * MINUTE) for n in range(3_000)]
    database.write(of_events(made))
    analyse(database)
    week = NOW - 14 * DAY  # of the first rows
    for statement in (
        elastic_job_statistics.by_minute(week, week + HOUR),
        elastic_job_statistics.spans_of_tasks(week),
        elastic_job_statistics.spans_of_jobs(week),
    ):
        found = plan(database, statement)
        assert "Seq Scan" not in found, found
        assert "SCAN history_attempts" not in found, found
        assert "history_attempts_" in found or "PRIMARY" in found, found


# ------------------------------------------------------------------------------------------------ registered jobs


def test_number_of_registered_jobs_is_kept_once_a_day(
    database: Database, statistics: ElasticJobStatistics, clock: Clock
) -> None:
    numbers = iter([None, 5, 6, 7])
    clock.now = NOW - 3 * DAY
    kept = Registrations(lambda: next(numbers), clock)
    for later in (0, 0, HOUR, DAY, DAY):
        clock.now += later
        kept.run(database)
    # Another leader of the same day keeps the first number.
    Registrations(lambda: 99, clock).run(database)
    day = START + 6 * DAY
    assert [one[:3] for one in statistics.registered_jobs()] == [
        (1, 5, day), (2, 6, day + DAY), (3, 7, day + 2 * DAY),
    ]  # fmt: skip


@pytest.mark.parametrize("leads", [True, False])
def test_only_the_leader_keeps_the_number_of_registered_jobs(
    open_database: OpenDatabase, statistics: ElasticJobStatistics, tmp_path: Path, leads: bool
) -> None:
    writer = Writer(
        open_database, Spool(tmp_path / "spool", 1 << 20), NO_LIMITS, now_ms=lambda: NOW, registered=lambda: 4
    )
    writer.start()
    if leads:
        writer.fill([], {})
    assert writer.flush()
    writer.stop()
    assert [one.number for one in statistics.registered_jobs()] == [4] * leads
