"""Stores of the archive: a directory, and a bucket of moto's server, which speaks S3 over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.archive_kit import Bench, FakeAgents, FaultyStore

from jobcloud.archive.s3 import S3LogStore, S3Options
from jobcloud.archive.service import ArchiveOptions
from jobcloud.archive.stores import DirectoryStore, LogStore


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server."""
    pytest.importorskip("obstore")
    server: Any = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> S3Options:
    """An empty bucket."""
    name = f"b{uuid.uuid4().hex}"
    with urlopen(Request(f"{s3_server}/{name}", method="PUT", headers={"Authorization": "AWS me:x"})) as answer:
        assert answer.status == 200
    return S3Options(name, "logs/of", s3_server, "us-east-1", "AKIDEXAMPLE", "a-very-secret-key")


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
