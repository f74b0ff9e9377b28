"""Output of ended attempts, as the archive reads it from agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.archive_kit import ended
from tests.server.test_task_output import FakeAgent, agent_in

from jobcloud.errors import NotFound, Unavailable
from jobcloud.server.outputs import AgentOutputs

ONE = ended()._replace(task_id="t1", executor_id="shop@v1", agent_id="S1")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    with agent_in(tmp_path) as agent:
        yield agent


class Cluster:
    """Knows the address of one agent, if it is set."""

    def __init__(self) -> None:
        self.address = ""
        self.asked = 0
        self.now = 0.0
        self.error: Exception | None = None
        self.outputs = AgentOutputs(self.where, monotonic=lambda: self.now)

    def where(self) -> tuple[str, dict[str, str]]:
        self.asked += 1
        if self.error:
            raise self.error
        return "F1", {"S1": self.address} if self.address else {}

    def read(self, *, earlier: bool = False) -> bytes:
        return self.outputs.read(ONE, "stdout", 0, 100, earlier=earlier)[0]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.outputs.close()


def test_output_is_read_from_the_agent_of_the_attempt(agent: FakeAgent, cluster: Cluster) -> None:
    agent.log(agent.run("c1")).write(b"hello")
    cluster.address = agent.address
    assert cluster.read() == b"hello"
    assert cluster.read() == b"hello"
    assert cluster.asked == 1
    cluster.now = 30
    assert cluster.read() == b"hello"
    assert cluster.asked == 2


def test_earlier_sandboxes_are_read_on_request(agent: FakeAgent, cluster: Cluster) -> None:
    agent.log(agent.run("c1")).write(b"hello")
    agent.run("c2")
    cluster.address = agent.address
    with pytest.raises(NotFound):
        cluster.read()
    assert "/state" not in agent.asked
    assert cluster.read(earlier=True) == b"hello"


def test_unknown_agent_or_silent_scheduler_is_unavailable(cluster: Cluster) -> None:
    with pytest.raises(Unavailable, match="address"):
        cluster.read()
    for error in (TimeoutError("busy"), Unavailable("standby")):
        cluster.error = error
        with pytest.raises(Unavailable, match="scheduler does not answer"):
            cluster.read()
