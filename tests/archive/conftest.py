"""Stores of the archive: a directory, and a bucket of moto's server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.archive_kit import Bench, FakeAgents, FaultyStore, new_bucket, running_s3

from jobcloud.archive.s3 import S3LogStore, S3Options
from jobcloud.archive.service import ArchiveOptions
from jobcloud.archive.stores import DirectoryStore, LogStore


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server."""
    with running_s3() as url:
        yield url


@pytest.fixture
def bucket(s3_server: str) -> S3Options:
    """An empty bucket."""
    return S3Options(new_bucket(s3_server), "logs/of", s3_server, "us-east-1", "AKIDEXAMPLE", "a-very-secret-key")


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LogStore:
    """An empty store that is ready."""
    made: LogStore
    if request.param == "directory":
        made = DirectoryStore(tmp_path / "archive", "jobcloud-logs-1/test")
    else:
        made = S3LogStore(request.getfixturevalue("bucket"), "jobcloud-logs-1/test")
    made.prepare()
    return made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An archive in a directory, which leads."""
    folder = tmp_path / "archive"
    made = Bench(
        FaultyStore(DirectoryStore(folder, "jobcloud-logs-1/test")),
        FakeAgents(),
        ArchiveOptions(folder, "test", threads=0),
    )
    made.archive.fill([], {})
    made.run()
    return made
