"""A real server that hangs, is stopped, killed and started again, while events arrive and clients ask.

Nothing waits for it: events go to the spool, and questions are answered with 503. Afterwards each event is in the
database exactly once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests import sql_kit
from tests.api_kit import make_api, serving
from tests.executor_kit import wait_until
from tests.history_kit import START, make_attempt

from jobcloud.errors import Unavailable
from jobcloud.history.answers import Wanted
from jobcloud.history.database import Database
from jobcloud.history.elastic_job_search import ElasticJobSearch
from jobcloud.history.elastic_job_statistics import ElasticJobStatistics
from jobcloud.history.queries import Reader
from jobcloud.history.retention import NO_LIMITS
from jobcloud.history.spool import Spool
from jobcloud.history.tables import attempts, executions, traces
from jobcloud.history.writer import Writer

pytestmark = pytest.mark.sql

_LIMIT_S = 2.0
_PATHS = [
    "/api/v1/history/runs?job=report",
    "/api/v1/history/attempts",
    "/api/v1/statistics?by=total&since=2026-01-01T00:00:00Z",
    "/api/job/events/executions?jobName=report",
    "/api/job/events/statusTraces",
    "/api/job/statistics/tasks/results/online",
]


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[sql_kit.SqlServer]:
    found: sql_kit.SqlServer = request.getfixturevalue(request.param)
    yield found
    if found.process is None:
        found.start()
        found.wait()


def _wait(condition: Callable[[], Any], what: str) -> None:
    """Servers on a busy machine take long to start and to write the spool."""
    wait_until(condition, what, deadline_s=180)


class Clock:
    """Each question comes a minute after the one before, so that no attempt waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 60
        return self.seconds


class Load:
    """Publishes 250 events a second until the end of the block: fewer than a server writes on a busy machine."""

    def __init__(self, writer: Writer) -> None:
        self.count = 0
        self._writer = writer
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(0.02):
            for _ in range(5):
                self._writer.publish(make_attempt(self.count))
                self.count += 1


def test_events_and_questions_survive_a_server_that_hangs_and_dies(server: sql_kit.SqlServer, tmp_path: Path) -> None:
    url = server.new_database()
    writer = Writer(
        lambda: Database(url, limit_s=_LIMIT_S),
        Spool(tmp_path / "spool", 64 << 20),
        NO_LIMITS,
        now_ms=lambda: START,
        monotonic=Clock(),
    )
    reader = Reader(lambda: Database(url, reading=True, limit_s=_LIMIT_S))
    # The statistics are computed anew for each question.
    minutes = iter(range(START + 10**9, START + 10**10, 60_000))
    statistics = ElasticJobStatistics(reader, lambda: next(minutes))
    app = make_api(tmp_path, history=reader, traces=ElasticJobSearch(reader), statistics=statistics)

    def start() -> None:
        server.start()
        server.wait()

    writer.start()
    with (
        serving(app) as api,
        httpx.Client(base_url=api, timeout=60) as client,
        ThreadPoolExecutor(len(_PATHS)) as pool,
        Load(writer) as load,
    ):
        _wait(lambda: writer.state().written, "the first events are written")
        for break_ in (server.pause, server.stop, server.kill, server.crash):
            _wait(lambda: client.get(_PATHS[0]).status_code == 200, "questions are answered")
            break_()
            _wait(lambda: writer.state().spooled_bytes and writer.state().problem, "events go to the spool")
            published = load.count
            asked = [pool.submit(client.get, path) for path in _PATHS]
            assert client.get("/api/v1/jobs").status_code == 200
            with pytest.raises(Unavailable):
                Reader(lambda: Database(url, reading=True, limit_s=_LIMIT_S)).runs(Wanted(), 1)
            for answer in (each.result() for each in asked):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
            _wait(lambda: load.count > published + 100, "events arrive")  # noqa: B023 - called at once
            (server.resume if break_ == server.pause else start)()
            _wait(lambda: not writer.state().spooled_bytes and not writer.state().problem, "the spool is empty")
        for path in _PATHS:
            _wait(lambda: client.get(path).status_code == 200, "questions are answered")  # noqa: B023
    assert writer.flush()
    writer.stop()
    reader.close()
    assert (writer.state().dropped, writer.state().spooled_bytes) == (0, 0)
    assert load.count == writer.state().written
    expected = sorted(make_attempt(number).task.id for number in range(load.count))
    with closing(Database(url)) as database, database.engine.connect() as connection:
        for table in (attempts, executions, traces):
            assert sorted(connection.execute(select(table.c.task_id)).scalars()) == expected


def test_connections_that_the_server_has_closed_are_not_used(server: sql_kit.SqlServer) -> None:
    database = Database(server.new_database())
    database.upgrade()
    assert database.newest_ms() == 0
    server.stop()
    server.start()
    server.wait()
    assert database.newest_ms() == 0
    database.close()
