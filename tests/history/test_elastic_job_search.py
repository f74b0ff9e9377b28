"""Searches in the tables of Elastic-Job: against a plain search in Python, and their use of indexes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from tests.history_kit import START, analyse, assert_no_sort, make_attempt, plan

from jobcloud.history import elastic_job_search
from jobcloud.history.database import Database
from jobcloud.history.elastic_job import TraceQuery
from jobcloud.history.elastic_job_search import EXECUTIONS, TRACES, ElasticJobSearch, Kind, counted, page
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.history.tables import executions, traces
from jobcloud.messages import AttemptTraced

_STATES = {"SUCCEEDED": "TASK_FINISHED", "FAILED": "TASK_FAILED", "LOST": "TASK_LOST"}


@pytest.fixture
def search(database: Database, reader: Reader) -> ElasticJobSearch:
    return ElasticJobSearch(reader)


def fill(database: Database, count: int, seed: int = 1) -> list[AttemptTraced]:
    """Ended attempts of jobs of two teams. Their starts have another order than their ends."""
    dice = random.Random(seed)
    made = [
        make_attempt(
            number, job=dice.choice(["report", "close", "sum", "billing:close"]), state=dice.choice([*_STATES]),
            started_ms=START + 1_000 * number - 1_000 * dice.randrange(50) + dice.randrange(1_000),
            hostname=f"host-{dice.randrange(3)}", item=dice.randrange(3), message=dice.choice(["", "broke"]),
        )
        for number in range(count)
    ]  # fmt: skip
    database.write(of_events(made))
    return made


def shown(instant: int) -> int:
    """The second of an instant: clients see and give whole seconds, and MariaDB stores no others."""
    return instant // 1_000


Row = dict[str, Any]


def execution(event: AttemptTraced) -> Row:
    done = event.state == "SUCCEEDED"
    return {
        "job_name": event.task.job, "task_id": event.task.id, "ip": event.task.hostname, "success": done,
        "hostname": event.task.hostname, "item": event.task.item, "start_ms": event.task.started_ms,
        "complete_ms": event.at, "failure_cause": "" if done else event.message or event.state,
    }  # fmt: skip


def status(event: AttemptTraced) -> Row:
    return {
        "job_name": event.task.job, "task_id": event.task.id, "slave_id": event.task.agent_id,
        "state": _STATES[event.state], "source": "CLOUD_EXECUTOR", "execution_type": "READY",
        "items": f"[{event.task.item}]", "message": event.message, "creation_ms": event.at,
    }  # fmt: skip


def plain(rows: list[Row], query: TraceQuery, time: str) -> list[Row]:
    """All rows that a query finds, in no particular order."""
    return [
        row
        for row in rows
        if ":" not in row["job_name"]
        and all(row[name] == value for name, value in query.equal.items())
        and (not query.from_ms or shown(row[time]) >= shown(query.from_ms))
        and (not query.until_ms or shown(row[time]) <= shown(query.until_ms))
    ]


_QUERIES: list[dict[str, Any]] = [
    {},
    {"equal": {"job_name": "report"}},
    {"from_ms": START + 60_000, "until_ms": START + 200_000},
    {"equal": {"job_name": "close"}, "from_ms": START + 60_000, "until_ms": START + 200_000},
    {"equal": {"job_name": "nobody"}},
]
_OF_EXECUTIONS: list[dict[str, Any]] = [
    {"equal": {"success": False}},
    {"equal": {"success": True, "job_name": "sum"}, "from_ms": START + 30_000},
    {"equal": {"ip": "host-1", "success": False}, "until_ms": START + 250_000},
    {"equal": {"task_id": "report@-@0@-@READY@-@agent-1@-@1-7"}},
]
_OF_TRACES: list[dict[str, Any]] = [
    {"equal": {"state": "TASK_LOST"}},
    {"equal": {"state": "TASK_FAILED", "job_name": "sum", "source": "CLOUD_EXECUTOR"}, "from_ms": START + 30_000},
    {"equal": {"slave_id": "agent-1", "execution_type": "READY"}, "until_ms": START + 250_000},
    {"equal": {"source": "CLOUD_SCHEDULER"}},
]


@pytest.mark.parametrize("asked", [*_QUERIES, *_OF_EXECUTIONS], ids=str)
def test_executions_are_those_of_a_plain_search(
    database: Database, search: ElasticJobSearch, asked: dict[str, Any], seed: int
) -> None:
    rows = [execution(event) for event in fill(database, 300, seed)]
    _check_pages(search.executions, rows, TraceQuery(**asked), ("start_ms", "complete_ms", "item", "failure_cause"))


@pytest.mark.parametrize("asked", [*_QUERIES, *_OF_TRACES], ids=str)
def test_status_traces_are_those_of_a_plain_search(
    database: Database, search: ElasticJobSearch, asked: dict[str, Any], seed: int
) -> None:
    rows = [status(event) for event in fill(database, 300, seed)]
    _check_pages(search.status_traces, rows, TraceQuery(**asked), ("creation_ms", "task_id", "state", "message"))


def _check_pages(find: Any, rows: list[Row], query: TraceQuery, sorts: tuple[str, ...]) -> None:
    time = sorts[0]
    expected = plain(rows, query, time)

    def key(row: Row, sort: str) -> Any:
        return shown(row[sort]) if sort.endswith("_ms") else row[sort]

    for sort, descending in [("", False), *((sort, down) for sort in sorts for down in (False, True))]:
        found: list[Row] = []
        for number in range(len(expected) // 70 + 2):
            asked = replace(query, sort=sort, descending=descending, limit=70, offset=70 * number)
            got = find(asked)
            assert got.total == len(expected)
            found += [row._asdict() for row in got.rows]
        assert sorted(row["task_id"] for row in found) == sorted(row["task_id"] for row in expected)
        order = [key(row, sort or time) for row in found]
        assert order == sorted(order, reverse=descending or not sort)
        by_task = {row["task_id"]: row for row in found}
        for row in expected:
            one = by_task[row["task_id"]]
            for name, value in row.items():
                assert key(one, name) == (shown(value) if name.endswith("_ms") else value)


def test_search_finds_a_bounded_number_of_rows_by_time(
    database: Database, search: ElasticJobSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic_job_search, "MAX_FOUND", 20)
    made = [make_attempt(number, started_ms=START + 1_000 * number, item=number % 7) for number in range(50)]
    database.write(of_events(made))
    newest = TraceQuery(limit=100)
    for query, numbers in [
        (newest, range(49, 29, -1)),
        (replace(newest, sort="start_ms", descending=True), range(49, 29, -1)),
        (replace(newest, sort="start_ms"), range(20)),
        (replace(newest, sort="start_ms", offset=15), range(15, 20)),
        (replace(newest, sort="start_ms", offset=20), range(0)),
        (replace(newest, sort="item"), sorted(range(30, 50), key=lambda number: (number % 7, number))),
    ]:
        found = search.executions(query)
        assert found.total == 20
        assert [row.start_ms for row in found.rows] == [START + 1_000 * number for number in numbers]


def test_last_second_of_a_range_belongs_to_it(database: Database, search: ElasticJobSearch) -> None:
    database.write(of_events([make_attempt(at=START + 1_999, started_ms=START + 999)]))
    for until, count in [(START, 1), (START - 1_000, 0)]:
        assert search.executions(TraceQuery(until_ms=until)).total == count
        assert search.status_traces(TraceQuery(until_ms=until + 1_000)).total == count
    last = 253_402_300_799_000  # 9999-12-31 23:59:59
    assert search.executions(TraceQuery(from_ms=1_000, until_ms=last)).total == 1
    assert search.status_traces(TraceQuery(from_ms=1_000, until_ms=last)).total == 1
    assert search.executions(TraceQuery(from_ms=last)).total == 0


def test_rows_of_other_programs_without_times_and_texts_are_shown(database: Database, search: ElasticJobSearch) -> None:
    with database.engine.begin() as connection:
        row = {"id": "uuid", "job_name": "old", "task_id": "t", "hostname": "h", "ip": "i", "sharding_item": 0}
        connection.execute(executions.insert(), row | {"execution_source": "FAILOVER", "is_success": 0})
        state = {"id": "uuid", "job_name": "old", "original_task_id": "", "task_id": "t", "slave_id": "s"}
        more = {"source": "LITE_EXECUTOR", "execution_type": "READY", "sharding_item": "[0]", "state": "TASK_LOST"}
        connection.execute(traces.insert(), state | more)
    (found,) = search.executions(TraceQuery(equal={"job_name": "old"})).rows
    assert (found.start_ms, found.complete_ms, found.failure_cause) == (0, 0, "")
    (trace,) = search.status_traces(TraceQuery(equal={"job_name": "old"})).rows
    assert (trace.creation_ms, trace.message) == (0, "")


KEY = "the key of the table"
_RANGE: dict[str, Any] = {"from_ms": START + 1_000_000, "until_ms": START + 2_000_000}


@pytest.mark.parametrize(
    ("kind", "equal", "index"),
    [
        (EXECUTIONS, {}, "history_executions_start"),
        (EXECUTIONS, {"job_name": "job1"}, "history_executions_job"),
        (EXECUTIONS, {"success": False}, "history_executions_success"),
        (EXECUTIONS, {"job_name": "job1", "success": False}, "history_executions_job_success"),
        (EXECUTIONS, {"ip": "host-1"}, "history_executions_ip"),
        (EXECUTIONS, {"task_id": "job7@-@0@-@READY@-@agent-1@-@1-7"}, "history_executions_task"),
        (TRACES, {"job_name": "job1"}, "history_traces_job"),
        (TRACES, {"state": "TASK_FAILED"}, "history_traces_state"),
        (TRACES, {"slave_id": "agent-1"}, "history_traces_agent"),
        (TRACES, {"task_id": "job7@-@0@-@READY@-@agent-1@-@1-7"}, "TASK_ID_STATE_INDEX"),
        (TRACES, {"source": "CLOUD_EXECUTOR", "execution_type": "READY"}, KEY),
        (TRACES, {}, KEY),
    ],
)
def test_search_reads_an_index(
    database: Database, kind: Kind, equal: dict[str, Any], index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A search that wants most rows of a table is right to read the whole table.
    monkeypatch.setattr(elastic_job_search, "MAX_FOUND", 50)
    made = [
        make_attempt(
            number, job=f"job{number % 100}", state="FAILED" if number // 100 % 10 == 1 else "SUCCEEDED",
            started_ms=START + 1_000 * number, hostname=f"host-{number % 90}", agent_id=f"agent-{number % 90}",
        )
        for number in range(3_000)
    ]  # fmt: skip
    database.write(of_events(made))
    analyse(database)
    for query in (TraceQuery(equal=equal), TraceQuery(equal=equal, **_RANGE), TraceQuery(equal=equal, sort=kind.time)):
        for statement in (page(kind, query), counted(kind, query)):
            found = plan(database, statement)
            if index != KEY:
                assert index.lower() in found.lower(), found
            elif database.kind != "sqlite":
                assert {"postgresql": "JOB_STATUS_TRACE_LOG_pkey", "mariadb": "PRIMARY"}[database.kind].lower() in (
                    found.lower()
                ), found
            if "task_id" not in equal:
                # SQLite reads a table in the order of its key without a sort.
                assert_no_sort(found.replace("SCAN JOB_STATUS_TRACE_LOG", ""))
