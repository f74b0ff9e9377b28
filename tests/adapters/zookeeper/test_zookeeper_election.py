"""Leader election on real ZooKeeper servers, with outages and expired sessions.

A leadership ends for good after two thirds of the session timeout without an answer. So sessions are long, except in
tests that wait for this end: on a loaded machine an answer may take seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from tests import zookeeper_kit
from tests.mesos_kit import until

from jobcloud.adapters.zookeeper.election import ZooKeeperElection
from jobcloud.adapters.zookeeper.session import NoAnswer
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.errors import Fenced, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

pytestmark = pytest.mark.zookeeper

WRITE = [StoredWrite(Kind.TASK, "t", b"{}")]


class Candidate:
    """A scheduler as seen by ZooKeeper: it waits on its own thread and then leads."""

    def __init__(self, hosts: str, namespace: str, name: str, timeout_s: float = 60.0) -> None:
        self.session = zookeeper_kit.connect(hosts, namespace, timeout_s)
        self.election = ZooKeeperElection(self.session, name)
        self.store = ZooKeeperStore(self.session, name=name, candidate=lambda: self.election.node)
        self.heard: list[str] = []
        self.stop = threading.Event()
        self.epoch = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self.election.wait(self.stop, self.heard.append):
            self.epoch = self.store.acquire()

    def waits(self) -> bool:
        return self.heard[-1:] != [] and self.heard[-1].endswith(" leads")

    def leads(self) -> bool:
        return self.epoch > 0 and self.election.holds()

    def close(self) -> None:
        self.stop.set()
        self._thread.join(60)
        self.store.close()


Join = Callable[[str], Candidate]


@pytest.fixture
def namespace() -> str:
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def join(zookeeper_hosts: str, namespace: str) -> Iterator[Join]:
    with ExitStack() as stack:

        def make(name: str) -> Candidate:
            candidate = Candidate(zookeeper_hosts, namespace, name)
            stack.callback(candidate.close)
            return candidate

        yield make


def expire(candidate: Candidate) -> None:
    """Expire the session on the server: another connection takes it over and closes it.

    https://cwiki.apache.org/confluence/display/HADOOP2/ZooKeeper+FAQ, "Is there an easy way to expire a session".
    """
    from kazoo.client import KazooClient

    thief = KazooClient(candidate.session.hosts, client_id=candidate.session._client.client_id)
    thief.start(60)
    thief.stop()
    thief.close()


def test_first_candidate_leads_and_the_others_learn_its_address(join: Join) -> None:
    first = join("http://first:1")
    until(first.leads)
    second = join("http://second:1")
    until(second.waits)
    assert second.heard[-1] == "http://first:1 leads"
    assert not second.leads()


def test_next_candidate_leads_at_once_after_an_orderly_stop(join: Join) -> None:
    names = ["a", "b", "c"]
    candidates = []
    for name in names:
        candidates.append(join(name))
        until(lambda: candidates[-1].epoch or candidates[-1].waits())
    for number, candidate in enumerate(candidates):
        until(candidate.leads)
        assert candidate.epoch == number + 1
        assert not any(other.leads() for other in candidates if other is not candidate)
        candidate.close()


def test_next_candidate_leads_after_a_resignation(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    first.election.resign()
    first.election.resign()
    until(second.leads)
    assert not first.leads()


def test_expired_session_ends_the_leadership_for_good_and_its_writes_are_fenced(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    first.store.write(first.epoch, WRITE)
    expire(first)
    until(second.leads)
    until(lambda: first.election.lost)
    assert not first.election.holds()
    until(lambda: first.session.connected)
    assert not first.election.holds(), "a new session does not bring the leadership back"
    with pytest.raises(Fenced):
        first.store.write(first.epoch, [StoredWrite(Kind.TASK, "t", None)])
    assert second.store.load().records[Kind.TASK] == {"t": b"{}"}


def test_lost_session_counts_at_once_even_if_a_new_one_has_begun(join: Join) -> None:
    first = join("a")
    until(first.leads)
    first.session._changed("LOST")
    first.session._changed("CONNECTED")
    assert not first.election.holds()
    assert "session" in first.election.lost


def test_process_suspended_after_its_election_does_not_supersede_its_successor(join: Join, namespace: str) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    expire(first)
    until(second.leads)
    until(lambda: first.session.connected)
    with pytest.raises(Fenced, match="is gone"):
        first.store.acquire()
    second.store.write(second.epoch, WRITE)


def test_wait_raises_if_the_tree_cannot_be_used(zookeeper_hosts: str, join: Join, namespace: str) -> None:
    until(join("a").leads)
    session = zookeeper_kit.connect(zookeeper_hosts, namespace, auth="me:secret")
    with pytest.raises(StoreUnusable, match="can be changed by anyone"):
        ZooKeeperElection(session, "b").wait(threading.Event(), lambda problem: None)
    session.close()


def test_removal_of_the_election_node_ends_the_leadership(zookeeper_hosts: str, namespace: str) -> None:
    first = Candidate(zookeeper_hosts, namespace, "a", timeout_s=20.0)
    try:
        until(first.leads)
        first.session.ask(lambda client: client.delete_async(first.election._own))
        until(lambda: "removed" in first.election.lost)
    finally:
        first.close()


def test_candidate_whose_session_expires_waits_again(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    expire(second)
    until(lambda: second.session.losses == 1)
    first.close()
    until(second.leads)


def test_leadership_ends_by_our_own_clock_before_the_servers_end_the_session(tmp_path: Path, namespace: str) -> None:
    with zookeeper_kit.running(tmp_path) as (server,):
        first = Candidate(server.address, namespace, "a", timeout_s=3.0)
        try:
            until(first.leads)
            assert first.session.timeout_s == 3.0
            server.pause()
            # The paused server can neither answer nor end the session.
            until(lambda: "not answered for 2.0 s" in first.election.lost)
            with pytest.raises((NoAnswer, Fenced)):
                first.store.write(first.epoch, WRITE)
        finally:
            server.resume()
            first.close()


def test_short_interruption_suspends_the_leadership_which_then_continues(tmp_path: Path, namespace: str) -> None:
    with zookeeper_kit.running(tmp_path) as (server,):
        first = Candidate(server.address, namespace, "a")
        try:
            until(first.leads)
            server.kill()
            until(lambda: not first.election.holds())
            server.start()
            server.wait()
            until(first.leads)
            first.store.write(first.epoch, WRITE)
            assert first.session.losses == 0
        finally:
            first.close()


def test_granted_session_timeout_is_used_instead_of_the_requested_one(join: Join, zookeeper_hosts: str) -> None:
    candidate = Candidate(zookeeper_hosts, f"test/{uuid.uuid4().hex}", "a", timeout_s=100.0)
    try:
        until(candidate.leads)
        assert candidate.session.timeout_s == 60.0
    finally:
        candidate.close()


def test_leader_exists_only_with_a_quorum(tmp_path: Path, namespace: str) -> None:
    with zookeeper_kit.running(tmp_path, 3) as servers, ExitStack() as stack:
        candidates = []
        for name in ("a", "b"):
            candidates.append(Candidate(zookeeper_kit.hosts(servers), namespace, name, timeout_s=6.0))
            stack.callback(candidates[-1].close)
            until(lambda: candidates[-1].epoch or candidates[-1].waits())
        first, second = candidates
        first.store.write(first.epoch, WRITE)
        for server in servers[:2]:
            server.kill()
        until(lambda: first.election.lost)
        assert not second.leads()
        # Its process ends. The servers learn of it after they have come back.
        first.close()
        for server in servers[:2]:
            server.start()
        until(second.leads)
        assert second.store.load().records[Kind.TASK] == {"t": b"{}"}


def test_loss_of_the_leading_server_loses_no_write(tmp_path: Path, namespace: str) -> None:
    with zookeeper_kit.running(tmp_path, 3) as servers:
        first = Candidate(zookeeper_kit.hosts(servers), namespace, "a")
        try:
            until(first.leads)
            first.store.write(first.epoch, WRITE)
            next(server for server in servers if server.mode() == "leader").kill()
            for number in range(50):
                first.store.write(first.epoch, [StoredWrite(Kind.TASK, f"t{number}", b"{}")])
            assert first.election.lost == ""
            assert len(first.store.load().records[Kind.TASK]) == 51
        finally:
            first.close()


# The suspended process: it writes as fast as it can until a write fails, and prints the error.
WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from tests.adapters.zookeeper.test_zookeeper_election import Candidate
from tests.mesos_kit import until
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite
one = Candidate(sys.argv[1], sys.argv[2], "paused", timeout_s=6.0)
until(one.leads)
print("leads", flush=True)
number = 0
while True:
    held = one.election.holds()
    try:
        one.store.write(one.epoch, [StoredWrite(Kind.TASK, "paused", str(number).encode())])
    except Exception as error:
        print(type(error).__name__, held, one.election.holds(), flush=True)
        break
    number += 1
"""


def test_process_suspended_for_longer_than_its_session_writes_nothing_afterwards(
    join: Join, zookeeper_hosts: str, namespace: str
) -> None:
    argv = [sys.executable, "-c", WRITER, zookeeper_hosts, namespace, str(Path(__file__).parents[3])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "leads\n"
            process.send_signal(signal.SIGSTOP)
            second = join("second")
            until(second.leads)
            stored = second.store.load().records[Kind.TASK]
            second.store.write(second.epoch, [StoredWrite(Kind.TASK, "second", b"1")])
            process.send_signal(signal.SIGCONT)
            error, _, held = process.stdout.readline().split()
            assert error in ("Fenced", "NoAnswer")
            assert held == "False"
            assert second.store.load().records[Kind.TASK] == {**stored, "second": b"1"}
        finally:
            process.kill()


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
