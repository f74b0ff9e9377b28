"""Configurations of apps and jobs in the three databases: writes, pages, retention, and the comparison of a leader."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from tests.core_world import START, Desk, make_app, make_job, of
from tests.history_kit import DESCRIBE, TRACED, OpenDatabase, played

from jobcloud.config import App, Job
from jobcloud.history import registered, retention
from jobcloud.history.answers import Found, Wanted
from jobcloud.history.database import HEAD, VERSION_TABLE, Database
from jobcloud.history.queries import Reader
from jobcloud.history.registered import Registered
from jobcloud.history.retention import Limits, Retention
from jobcloud.history.rows import MAX_CONFIG_BYTES, Batch, configuration_row, of_events
from jobcloud.history.spool import Spool
from jobcloud.history.tables import configurations, notes, runs
from jobcloud.history.writer import Writer
from jobcloud.messages import ConfigTraced, PutJob, RemoveJob
from jobcloud.scheduler import revisions


def row(number: int, name: str = "report", config: str = "{}", *, at: int = START, **changes: Any) -> Any:
    return configuration_row(at + number, 1, changes.pop("kind", "job"), name, f"{number:016x}", config, **changes)


def put(database: Database, *rows: Any) -> None:
    database.write(Batch(configurations=list(rows)))


def all_of(reader: Reader, wanted: Wanted, limit: int = 100, **more: Any) -> list[Found]:
    found: list[Found] = []
    cursor = ""
    while True:
        rows, cursor = reader.configurations(wanted, limit, cursor, **more)
        assert rows or not cursor
        found += rows
        if not cursor:
            return found


def revisions_of(found: list[Found]) -> list[int]:
    return [int(one["revision"], 16) for one in found]


def test_events_are_kept_whole_and_newest_first(database: Database, reader: Reader) -> None:
    desk = Desk(make_app(), make_job(secrets=("PASSWORD=secret:db",)), policy=TRACED)
    desk.do(PutJob(desk.at, make_job(priority=5), replace=True, author="user:ann"))
    desk.do(RemoveJob(desk.at, "report", author="user:bob"))
    batch = of_events(of(ConfigTraced, desk.all), DESCRIBE)
    database.write(batch)
    database.write(batch)
    found = all_of(reader, Wanted(job="report"), 2)
    assert [(one["author"], one["removed"]) for one in found] == [("user:bob", 1), ("user:ann", 0), ("", 0)]
    assert [json.loads(one["config"])["priority"] for one in found] == [5, 5, 0]
    assert found[1]["revision"] == revisions.of_record(make_job(priority=5))
    assert json.loads(found[2]["config"])["secrets"] == ["PASSWORD=secret:db"]
    (app,) = all_of(reader, Wanted(app="shop"))
    assert (app["kind"], app["team"], json.loads(app["config"])["appName"]) == ("app", "default", "shop")
    assert len(all_of(reader, Wanted())) == 4


def test_changes_of_one_instant_keep_their_order(database: Database, reader: Reader) -> None:
    jobs = [make_job(priority=number) for number in range(20)]
    database.write(of_events([ConfigTraced(START, job, number + 1) for number, job in enumerate(jobs)], DESCRIBE))
    found = [json.loads(one["config"])["priority"] for one in all_of(reader, Wanted(job="report"), 7)]
    assert found == list(range(19, -1, -1))


def test_page_ends_once_its_texts_are_large(database: Database, reader: Reader) -> None:
    put(database, *(row(number, config=json.dumps("x" * 1_000)) for number in range(10)))
    rows, cursor = reader.configurations(Wanted(), 10, max_bytes=2_500)
    assert (len(rows), bool(cursor)) == (3, True)
    assert revisions_of(all_of(reader, Wanted(job="report"), max_bytes=1)) == list(range(9, -1, -1))


def test_large_configuration_is_kept_up_to_a_limit(database: Database, reader: Reader) -> None:
    """MariaDB's TEXT has 64 KB."""
    put(database, row(1, config="é" * 200_000), row(2, config="x" * (MAX_CONFIG_BYTES + 1)))
    assert [len(one["config"]) for one in all_of(reader, Wanted())] == [0, 200_000]


def test_teams_and_times_filter(database: Database, reader: Reader) -> None:
    put(
        database, *(row(number, f"team{number % 3}:job") for number in range(12)), row(99, kind="app", name="team1:job")
    )
    assert revisions_of(all_of(reader, Wanted(teams=frozenset(("team0", "team2"))), 3)) == [11, 9, 8, 6, 5, 3, 2, 0]
    assert revisions_of(all_of(reader, Wanted(team="team1", since_ms=START + 4, until_ms=START + 11))) == [10, 7, 4]
    assert revisions_of(all_of(reader, Wanted(job="team1:job"))) == [10, 7, 4, 1]
    assert revisions_of(all_of(reader, Wanted(app="team1:job"))) == [99]


# ------------------------------------------------------------------------------------------------ retention


def test_number_of_each_app_and_job_is_limited(
    database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP", 7)
    put(database, *(row(number) for number in range(75)), *(row(number, kind="app") for number in range(3)))
    assert Retention(Limits(), lambda: START).enforce(database)
    assert revisions_of(all_of(reader, Wanted(job="report"))) == list(range(74, 24, -1))
    assert len(all_of(reader, Wanted(app="report"))) == 3


def test_old_configurations_go_unless_they_are_in_force(
    database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    kept = [row(number, "kept") for number in range(6)]
    gone = [row(1, "gone"), row(2, "gone", removed=True), row(1, "back", removed=True), row(900, "back")]
    put(database, *kept, *gone)
    assert Retention(Limits(age_ms=100), lambda: START + 500).enforce(database)
    assert [(one["name"], one["at_ms"] - START) for one in all_of(reader, Wanted())] == [("back", 900), ("kept", 5)]
    # Other limits concern attempts.
    assert Retention(Limits(attempts=1, attempts_per_job=1), lambda: START + 500).enforce(database)
    assert len(all_of(reader, Wanted())) == 2


# ------------------------------------------------------------------------------------------------ a new leader


def compare(database: Database, at: int, *records: App | Job) -> None:
    known = Registered(records, at, DESCRIBE)
    while not known.done:
        known.write_next(database, database.write)


def test_new_leader_adds_what_the_history_lacks(
    database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_STEP", 2)
    jobs = [make_job(f"job{number}") for number in range(5)]
    compare(database, START, make_app(), *jobs)
    assert len(all_of(reader, Wanted())) == 6
    compare(database, START + 10, make_app(), *jobs)
    assert len(all_of(reader, Wanted())) == 6, "the same configurations are not written again"
    # A change after the take-over is in the database before the comparison.
    database.write(of_events([ConfigTraced(START + 21, make_job("job4", priority=7), 1, "user:ann")], DESCRIBE))
    compare(database, START + 20, make_app(), make_job("job0", priority=3), make_job("job4"))
    found = {(one["name"], one["at_ms"] - START): one["removed"] for one in all_of(reader, Wanted(since_ms=START + 1))}
    assert found == {("job0", 20): 0, ("job1", 20): 1, ("job2", 20): 1, ("job3", 20): 1, ("job4", 21): 0}
    compare(database, START + 30, make_app(), make_job("job0", priority=3), make_job("job4", priority=7))
    assert all_of(reader, Wanted(since_ms=START + 30)) == []


def test_comparison_that_fails_is_repeated(database: Database, reader: Reader) -> None:
    known = Registered([make_app(), make_job()], START, DESCRIBE)

    def fail(batch: Batch) -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        known.write_next(database, fail)
    while not known.done:
        known.write_next(database, database.write)
    assert len(all_of(reader, Wanted())) == 2


def test_thread_writes_traces_and_compares(
    database: Database, reader: Reader, open_database: OpenDatabase, tmp_path: Path
) -> None:
    writer = Writer(open_database, Spool(tmp_path, 1 << 20), Limits(), now_ms=lambda: START, describe=DESCRIBE)
    writer.start()
    writer.compare([make_app(), make_job()], START)
    assert writer.flush()
    writer.publish(ConfigTraced(START + 5, make_job(priority=1), 1, "user:ann"))
    assert writer.flush()
    writer.stop()
    assert [one["author"] for one in all_of(reader, Wanted(job="report"))] == ["user:ann", ""]
    assert len(all_of(reader, Wanted(app="shop"))) == 1


# ------------------------------------------------------------------------------------------------ the migration


def _before(database: Database, drop: Callable[[str], object]) -> None:
    """Take the database back to the third version. Some steps of the fourth are done: an upgrade was interrupted."""
    for index in ("history_runs_run", "history_runs_app_state"):
        drop(f"DROP INDEX {index}" + f" ON {runs.name}" * (database.kind == "mariadb"))
    drop("DROP INDEX history_configurations_team" + f" ON {configurations.name}" * (database.kind == "mariadb"))
    drop(f"DROP TABLE {notes.name}")
    drop(f"UPDATE {VERSION_TABLE} SET version_num = '0003'")


def test_rows_of_the_third_version_stay_while_several_processes_upgrade(
    database: Database, open_database: OpenDatabase
) -> None:
    database.write(of_events(played()))
    with database.engine.begin() as connection:
        _before(database, lambda statement: connection.execute(text(statement)))
    assert database.version() == "0003"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.upgrade, [open_database() for _ in range(4)]))
    assert database.version() == HEAD
    with database.engine.connect() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM {runs.name}")).scalar() == 1
        there = {
            str(index["name"])
            for table in (runs, configurations, notes)
            for index in inspect(connection).get_indexes(table.name)
        }
    assert {str(index.name) for table in (runs, configurations, notes) for index in table.indexes} <= there
