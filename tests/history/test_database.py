"""The contract of the three databases: migrations, writes, pages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, event, func, inspect, select, text
from sqlalchemy.exc import DataError, OperationalError
from tests.history_kit import START, OpenDatabase, make_attempt, make_run, played

from jobcloud.history import migrations
from jobcloud.history.database import HEAD, VERSION_TABLE, Database, Unusable
from jobcloud.history.rows import Batch, of_events
from jobcloud.history.tables import WRITTEN, attempts, executions, metadata, runs, traces
from jobcloud.messages import AttemptTraced
from jobcloud.model import ShardState, TaskState
from jobcloud.scheduler.status import End


def count(database: Database) -> list[int]:
    with database.engine.connect() as connection:
        tables = (runs, attempts, executions, traces)
        return [connection.execute(select(func.count()).select_from(table)).scalar() or 0 for table in tables]


# ------------------------------------------------------------------------------------------------ migrations


def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    assert database.version() == HEAD
    elastic = {executions.name, traces.name}
    indexes = {str(index.name).upper() for table in (executions, traces) for index in table.indexes}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "history_version"})
        different = [
            found
            for found in compare_metadata(context, metadata)
            # PostgreSQL folds the names of Elastic-Job's tables.
            if database.kind != "postgresql" or _named(found).upper() not in elastic | indexes
        ]
        assert different == []
        names = {name.upper() for name in inspect(connection).get_table_names()}
    assert elastic <= names


def _named(found: object) -> str:
    return str(found[1].name) if isinstance(found, tuple) else ""


def test_elastic_job_reads_its_tables_under_their_names(database: Database) -> None:
    """Its tools write the names without quotes and in capitals."""
    database.write(of_events(played()))
    with database.engine.connect() as connection:
        statement = "SELECT job_name, sharding_item, execution_source, is_success FROM JOB_EXECUTION_LOG ORDER BY id"
        assert [tuple(row) for row in connection.execute(text(statement))] == [
            ("report", 0, "NORMAL_TRIGGER", 0), ("report", 0, "NORMAL_TRIGGER", 1)]  # fmt: skip
        statement = "SELECT state, source, sharding_item FROM JOB_STATUS_TRACE_LOG ORDER BY creation_time, id"
        assert {tuple(row) for row in connection.execute(text(statement))} == {
            ("TASK_STAGING", "CLOUD_SCHEDULER", "[0]"), ("TASK_RUNNING", "CLOUD_EXECUTOR", "[0]"),
            ("TASK_FAILED", "CLOUD_EXECUTOR", "[0]"), ("TASK_FINISHED", "CLOUD_EXECUTOR", "[0]")}  # fmt: skip
        name = "job_status_trace_log" if database.kind == "postgresql" else "JOB_STATUS_TRACE_LOG"
        found = inspect(connection).get_indexes(name)
    indexes = {str(index["name"]).upper(): index["column_names"] for index in found}
    assert indexes["TASK_ID_STATE_INDEX"] == ["task_id", "state"]


def test_two_upgrades_at_once_both_succeed(open_database: OpenDatabase) -> None:
    databases: list[Database] = [open_database() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.upgrade, databases))
    assert {database.version() for database in databases} == {HEAD}


@pytest.mark.parametrize(
    ("last", "version"),
    [
        ("history_attempts_app", ""),
        ("history_executions_ip", "0001"),
        ("UPDATE history_version", "0001"),
        ("history_notes_run", "0003"),
    ],
)
def test_upgrade_continues_after_one_that_failed_half_way(open_database: OpenDatabase, last: str, version: str) -> None:
    database: Database = open_database()
    made: list[str] = []

    def fail(connection: object, cursor: object, statement: str, *more: object) -> None:
        made.append(statement)
        if last in statement:
            raise RuntimeError("the power is gone")

    event.listen(Engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError, match="power"):
        database.upgrade()
    event.remove(Engine, "before_cursor_execute", fail)
    assert any("history_runs" in statement for statement in made)
    assert database.version() == version
    again: Database = open_database()
    again.upgrade()
    again.write(of_events(played()))
    assert count(again) == [1, 2, 2, 6]


def test_rows_of_the_first_version_stay_while_several_processes_upgrade(
    database: Database, open_database: OpenDatabase
) -> None:
    """Some indexes of the second version are there already: an upgrade was interrupted."""
    database.write(of_events(played()))
    with database.engine.begin() as connection:
        for table, names in {
            attempts: ["history_attempts_outcome"],
            executions: ["history_executions_ip", "history_executions_task"],
            traces: ["history_traces_job", "history_traces_agent"],
        }.items():
            for name in names:
                connection.execute(text(f"DROP INDEX {name}" + f" ON {table.name}" * (database.kind == "mariadb")))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(Database.upgrade, [open_database() for _ in range(3)]))
    assert (database.version(), count(database)) == (HEAD, [1, 2, 2, 6])
    with database.engine.connect() as connection:
        there = {
            str(index["name"]).lower()
            for name in inspect(connection).get_table_names()
            for index in inspect(connection).get_indexes(name)
        }
    assert {str(index.name).lower() for table in WRITTEN.values() for index in table.indexes} <= there


def test_database_of_a_newer_build_is_left_alone(database: Database, open_database: OpenDatabase) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE history_version SET version_num = '9999'"))
    later: Database = open_database()
    with pytest.raises(Unusable, match="newer version"):
        later.upgrade()
    assert later.version() == "9999"


def test_migrations_are_part_of_the_package() -> None:
    assert migrations.__file__


# ------------------------------------------------------------------------------------------------ writes


def test_repeated_batch_changes_nothing(database: Database, open_database: OpenDatabase) -> None:
    batch = of_events(played())
    database.write(batch)
    with database.engine.connect() as connection:
        before = [connection.execute(select(table).order_by(table.c.id)).all() for table in (attempts, traces)]
    again: Database = open_database()
    again.write(batch)
    again.write(batch)
    assert count(database) == [1, 2, 2, 6]
    with database.engine.connect() as connection:
        after = [connection.execute(select(table).order_by(table.c.id)).all() for table in (attempts, traces)]
    assert after == before


def test_run_that_was_retried_gets_its_last_state(database: Database) -> None:
    database.write(of_events([make_run(state=ShardState.DEAD), make_run(1)]))
    database.write(of_events([make_run(state=ShardState.FINISHED)]))
    with database.engine.connect() as connection:
        found = connection.execute(select(runs.c.state, runs.c.dead, runs.c.finished).order_by(runs.c.id)).all()
    assert [tuple(row) for row in found] == [("FINISHED", 0, 2), ("FINISHED", 0, 2)]


def test_attempt_is_stored_with_all_that_the_core_tells(database: Database) -> None:
    events = played()
    database.write(of_events(events))
    with database.engine.connect() as connection:
        failed, done = connection.execute(select(attempts).order_by(attempts.c.id)).all()
    assert (failed.outcome, failed.cause, failed.message, failed.attempt) == ("FAILED", "exception", "broke� ☃", 1)
    assert (failed.duration_ms, failed.queued_ms, failed.result_bytes) == (1_234, 0, 0)
    assert (done.outcome, done.attempt, done.result_bytes, done.execution) == ("SUCCEEDED", 2, 4, "READY")
    assert (done.team, done.app, done.job, done.item, done.step) == ("default", "shop", "report", 0, "")
    assert (done.agent_id, done.hostname, done.cpus, done.mem) == ("a1", "host-a1", 1_000, 128_000)
    (end,) = [event for event in events if isinstance(event, AttemptTraced) and event.state == "SUCCEEDED"]
    assert (done.ended_ms, done.started_ms, done.created_ms) == (end.at, end.task.started_ms, end.task.created_ms)
    assert done.id.startswith(f"{end.at:012x}")


def test_times_of_elastic_job_are_utc(database: Database) -> None:
    """The servers of the tests have other zones."""
    database.write(of_events([make_attempt(at=1_792_888_200_789, started_ms=1_774_747_800_123)]))
    with database.engine.connect() as connection:
        start, end = connection.execute(select(executions.c.start_time, executions.c.complete_time)).one()
    exact = [datetime(2026, 3, 29, 1, 30, 0, 123_000), datetime(2026, 10, 25, 0, 30, 0, 789_000)]
    if database.kind == "mariadb":  # its TIMESTAMP has whole seconds
        exact = [moment.replace(microsecond=0) for moment in exact]
    assert [start, end] == exact


def test_texts_too_long_for_a_column_are_cut(database: Database) -> None:
    database.write(of_events([make_attempt(hostname="h" * 900, message="é" * 4_000, state="FAILED", run="r" * 700)]))
    assert count(database) == [0, 1, 1, 1]


def test_batch_is_written_whole_or_not_at_all(database: Database) -> None:
    good = of_events([make_run(), make_attempt(), make_attempt(1)])
    bad = Batch(good.runs, [(*good.attempts[0][:-1], 1 << 80)], good.executions, good.traces)
    with pytest.raises((DataError, OverflowError)):
        database.write(bad)
    assert count(database) == [0, 0, 0, 0]


def test_newest_end_is_found(database: Database) -> None:
    assert database.newest_ms() == 0
    database.write(of_events([make_attempt(5), make_attempt(3)]))
    assert database.newest_ms() == START + 6_000


def test_statement_that_takes_too_long_ends(database: Database, url: str) -> None:
    """Except for writes to SQLite, which wait for no server."""
    endless = {
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "postgresql": "SELECT pg_sleep(10000)",
        "mariadb": "SELECT sum(a.seq * b.seq) FROM seq_1_to_1000000 AS a, seq_1_to_1000000 AS b",
    }
    for reading in {True, database.kind == "sqlite"}:
        brief = Database(url, reading=reading, limit_s=1)
        for use in (brief.question, brief.engine.connect):
            with pytest.raises(OperationalError), use() as connection:
                connection.execute(text(endless[brief.kind])).all()
        with brief.question() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        brief.close()


def test_password_is_not_shown() -> None:
    database = Database("postgresql://me@127.0.0.1/history", "geheim")
    assert "geheim" not in str(database)
    assert database.url.password == "geheim"


def test_every_state_of_an_attempt_has_a_row() -> None:
    for state in (*TaskState, *End):
        batch = of_events([make_attempt(state=state, ended=isinstance(state, End))])
        assert batch.traces[0][8].startswith("TASK_")
