"""Fixtures: a scripted agent, and executors that connect to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import PACKAGE, ExecutorProcess, FakeAgent, Start, app_payload, interpreters


@pytest.fixture(params=interpreters(), ids=lambda path: "oldest" if "3.9" in path else "own", scope="session")
def python(request: pytest.FixtureRequest) -> str:
    path: str = request.param
    return path


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    agent = FakeAgent(app_payload(PACKAGE))
    yield agent
    agent.close()


@pytest.fixture
def start(agent: FakeAgent, tmp_path: Path) -> Iterator[Start]:
    started: list[ExecutorProcess] = []

    def begin(package: bytes | None = PACKAGE, python: str = interpreters()[0], **environment: Any) -> ExecutorProcess:
        executor = ExecutorProcess(agent, tmp_path / f"sandbox{len(started)}", package, python, **environment)
        started.append(executor)
        return executor

    yield begin
    for executor in started:
        executor.kill()
