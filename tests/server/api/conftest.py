"""An API over a real scheduler with an app, a job and its first run."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, job_body, make_api, package_bytes


@pytest.fixture
def loop() -> FakeLoop:
    loop = FakeLoop()
    loop.subscribe()
    return loop


@pytest.fixture
def api(loop: FakeLoop, tmp_path: Path) -> Client:
    return client_of(make_api(tmp_path, loop))


@pytest.fixture
def sha256(api: Client) -> str:
    answer = api.post("packages", content=package_bytes())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["sha256"])


@pytest.fixture
def demo(api: Client, sha256: str) -> str:
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    return "demo"


@pytest.fixture
def hello(api: Client, demo: str) -> str:
    assert api.post("jobs", json=job_body()).status_code == 201
    return "hello"


@pytest.fixture
def launched(api: Client, loop: FakeLoop, hello: str) -> list[str]:
    """Ids of the two tasks of the first firing."""
    loop.tick(6000)
    loop.offer()
    tasks = loop.tick()
    assert len(tasks) == 2
    return tasks
