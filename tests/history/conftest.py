"""Databases of the history: SQLite always, the servers if they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import sql_kit
from tests.history_kit import OpenDatabase

from jobcloud.history.database import Database
from jobcloud.history.queries import Reader


@pytest.fixture(scope="session")
def postgresql() -> Iterator[sql_kit.SqlServer]:
    with sql_kit.running("postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[sql_kit.SqlServer]:
    with sql_kit.running("mariadb") as server:
        yield server


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.sql),
        pytest.param("mariadb", marks=pytest.mark.sql),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.db'}"
    server: sql_kit.SqlServer = request.getfixturevalue(request.param)
    return server.new_database()


@pytest.fixture
def open_database(url: str) -> Iterator[OpenDatabase]:
    """A function that opens the database of one test. Each further call opens it again, as another process."""
    opened: list[Database] = []

    def open_one(*, reading: bool = False) -> Database:
        opened.append(Database(url, reading=reading))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: OpenDatabase) -> Database:
    """A database with its tables."""
    found: Database = open_database()
    found.upgrade()
    return found


@pytest.fixture
def reader(open_database: OpenDatabase) -> Iterator[Reader]:
    made = Reader(lambda: open_database(reading=True))
    yield made
    made.close()
