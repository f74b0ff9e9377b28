"""Leader election in ZooKeeper: sessions and late answers. `test_store_election` tests the rest."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from tests import zookeeper_kit
from tests.election_kit import ZooKeeperCandidate, joining
from tests.mesos_kit import until

from jobcloud.adapters.zookeeper.election import ZooKeeperElection
from jobcloud.errors import StoreUnusable

pytestmark = pytest.mark.zookeeper

Join = Callable[[str], ZooKeeperCandidate]


@pytest.fixture
def namespace() -> str:
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def join(zookeeper_hosts: str, namespace: str) -> Iterator[Join]:
    with joining(ZooKeeperCandidate, zookeeper_hosts, namespace) as make:
        yield make


def test_lost_session_counts_at_once_even_if_a_new_one_has_begun(join: Join) -> None:
    first = join("a")
    until(first.leads)
    first.session._changed("LOST")
    first.session._changed("CONNECTED")
    assert not first.election.holds()
    assert "session" in first.election.lost


def test_server_that_accepts_a_connection_and_is_silent_does_not_cost_the_leadership(tmp_path: Path) -> None:
    with zookeeper_kit.running(tmp_path) as (server,):
        first = ZooKeeperCandidate(server.address, "test", "a", timeout_s=36.0)
        try:
            until(first.leads)
            server.kill()
            with socket.create_server(("127.0.0.1", server.port)) as silent:
                connection, _ = silent.accept()
            with connection:
                server.start()
                server.wait()
                until(lambda: first.leads() or first.election.lost)
                assert first.leads()
        finally:
            first.close()


def test_wait_raises_if_the_tree_cannot_be_used(zookeeper_hosts: str, join: Join, namespace: str) -> None:
    until(join("a").leads)
    session = zookeeper_kit.connect(zookeeper_hosts, namespace, auth="me:secret")
    with pytest.raises(StoreUnusable, match="everybody who reaches the server"):
        ZooKeeperElection(session, "b").wait(threading.Event(), lambda problem: None)
    session.close()


def test_granted_session_timeout_is_used_instead_of_the_requested_one(join: Join, zookeeper_hosts: str) -> None:
    candidate = ZooKeeperCandidate(zookeeper_hosts, f"test/{uuid.uuid4().hex}", "a", timeout_s=100.0)
    try:
        until(candidate.leads)
        assert candidate.session.timeout_s == 60.0
    finally:
        candidate.close()


class SlowSession:
    """A session of 4 s on a tree in memory. The answers to `slow` requests take a while, the others 1 ms."""

    def __init__(self, slow: dict[int, float]) -> None:
        self.now = 0.0
        self.timeout_s, self.connected, self.closed, self.losses = 4.0, True, False, 0
        self.names: list[str] = []
        self._slow, self._asked = slow, 0

    def listen(self, changed: Callable[[], None]) -> None: ...

    def prepare(self, paths: list[str]) -> None:
        self.now += 3.0

    def path(self, *names: str) -> str:
        return "/" + "/".join(names)

    def ask(self, request: Callable[[Any], Any], limit_s: float | None = None) -> Any:
        answer = request(self)
        self.now += self._slow.get(self._asked, 0.001)
        self._asked += 1
        return answer

    def get_children_async(self, path: str) -> list[str]:
        return list(self.names)

    def create_async(self, prefix: str, data: bytes, **flags: bool) -> str:
        self.names.append(f"{prefix.rpartition('/')[2]}{len(self.names):010d}")
        return self.names[-1]


@pytest.mark.parametrize("slow", [{}, {0: 3.0}, {1: 3.0}, {2: 3.0}, {2: 3.9, 3: 1.4}], ids=str)
def test_elected_leader_does_not_lead_on_an_old_answer(slow: dict[int, float]) -> None:
    """With a session of 4 s the trust in an answer lasts 2.7 s. A standby led for 0.04 s and stepped down."""
    session: Any = SlowSession(slow)
    election = ZooKeeperElection(session, "a", monotonic=lambda: session.now)
    found = [election._campaign() for _ in range(3)]
    assert found[-1] is None
    assert all("its last answer took" in text for text in found if text)
    assert election.holds(), election.lost
    session.now += 1.3  # until the first check of its own node
    assert election.holds(), election.lost
