"""A real server that is stopped, killed and started again while events arrive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests import sql_kit
from tests.history_kit import START, make_attempt

from jobcloud.history.database import Database
from jobcloud.history.retention import NO_LIMITS
from jobcloud.history.spool import Spool
from jobcloud.history.tables import attempts
from jobcloud.history.writer import Writer

pytestmark = pytest.mark.sql


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[sql_kit.SqlServer]:
    found: sql_kit.SqlServer = request.getfixturevalue(request.param)
    yield found
    if found.process is None:
        found.start()
        found.wait()


class Clock:
    """Each question comes a minute after the one before, so that no attempt waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 60
        return self.seconds


def test_no_event_is_lost_while_the_server_is_stopped_and_killed(server: sql_kit.SqlServer, tmp_path: Path) -> None:
    url = server.new_database()
    spool = Spool(tmp_path / "spool", 1 << 20)
    writer = Writer(lambda: Database(url), spool, NO_LIMITS, now_ms=lambda: START, monotonic=Clock())
    writer.start()
    numbers = iter(range(1_000))

    def publish(count: int) -> None:
        for _ in range(count):
            writer.publish(make_attempt(next(numbers)))
        assert writer.flush()

    publish(20)
    assert writer.state().problem == ""
    for end in (server.stop, server.kill):
        end()
        publish(20)
        assert writer.state().problem
        assert writer.state().spooled_bytes > 0
        publish(20)
        server.start()
        server.wait()
        publish(20)
        assert writer.flush()
        assert (writer.state().problem, writer.state().spooled_bytes, writer.state().dropped) == ("", 0, 0)
    writer.stop()
    database = Database(url)
    with database.engine.connect() as connection:
        found = set(connection.execute(select(attempts.c.task_id)).scalars())
    database.close()
    assert found == {make_attempt(number).task.id for number in range(next(numbers))}


def test_connections_that_the_server_has_closed_are_not_used(server: sql_kit.SqlServer) -> None:
    database = Database(server.new_database())
    database.upgrade()
    assert database.newest_ms() == 0
    server.stop()
    server.start()
    server.wait()
    assert database.newest_ms() == 0
    database.close()
