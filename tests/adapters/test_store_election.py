"""The contract of leader elections, on real servers that are stopped, killed and suspended.

A leadership ends for good after two thirds of the session timeout (the TTL of a lease) without an answer. So timeouts
are long, except in tests that wait for this end: on a loaded machine an answer may take seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from tests.election_kit import Candidate, EtcdCandidate, ZooKeeperCandidate, joining
from tests.mesos_kit import until

from jobcloud.errors import Fenced, StoreError
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

WRITE = [StoredWrite(Kind.TASK, "t", b"{}")]
DELETION = [StoredWrite(Kind.TASK, "t", None)]
Type = type[Candidate]
Join = Callable[[str], Candidate]


@pytest.fixture(
    params=[
        pytest.param(ZooKeeperCandidate, marks=pytest.mark.zookeeper, id="zookeeper"),
        pytest.param(EtcdCandidate, marks=pytest.mark.etcd, id="etcd"),
    ]
)
def kind(request: pytest.FixtureRequest) -> Type:
    found: Type = request.param
    return found


@pytest.fixture
def hosts(request: pytest.FixtureRequest, kind: Type) -> str:
    found: str = request.getfixturevalue("etcd_hosts" if kind is EtcdCandidate else "zookeeper_hosts")
    return found


@pytest.fixture
def place() -> str:
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def join(kind: Type, hosts: str, place: str) -> Iterator[Join]:
    with joining(kind, hosts, place) as make:
        yield make


def test_first_candidate_leads_and_the_others_learn_its_address(join: Join) -> None:
    first = join("http://first:1")
    until(first.leads)
    second = join("http://second:1")
    until(second.waits)
    assert second.heard[-1] == "http://first:1 leads"
    assert not second.leads()
    assert (first.election.leader, second.election.leader) == ("", "http://first:1")
    first.election.resign()
    until(second.leads)
    assert second.election.leader == ""


def test_next_candidate_leads_at_once_after_an_orderly_stop(join: Join) -> None:
    candidates = []
    for name in ("a", "b", "c"):
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


def test_candidate_that_stops_waiting_leaves_the_election(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    third = join("c")
    until(third.waits)
    second.close()
    first.close()
    until(third.leads)


def test_expired_candidacy_ends_the_leadership_for_good_and_its_writes_are_fenced(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    first.store.write(first.epoch, WRITE)
    first.expire()
    until(second.leads)
    until(lambda: first.election.lost)
    assert not first.election.holds()
    until(first.connected)
    assert not first.election.holds(), "a new session does not bring the leadership back"
    with pytest.raises(Fenced, match="superseded"):
        first.store.write(first.epoch, DELETION)
    assert second.store.load().records[Kind.TASK] == {"t": b"{}"}


def test_process_suspended_after_its_election_does_not_supersede_its_successor(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    first.expire()
    until(second.leads)
    until(first.connected)
    with pytest.raises(Fenced, match="is gone"):
        first.store.acquire()
    second.store.write(second.epoch, WRITE)


def test_removal_from_the_election_ends_the_leadership(kind: Type, hosts: str, place: str) -> None:
    first = kind(hosts, place, "a", timeout_s=20.0)
    try:
        until(first.leads)
        first.remove()
        until(lambda: "removed" in first.election.lost)
    finally:
        first.close()


def test_candidate_whose_candidacy_expires_waits_again(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    before = second.entry()
    second.expire()
    until(lambda: second.entry() not in (False, before))
    first.close()
    until(second.leads)


def test_leadership_ends_by_our_own_clock_before_the_servers_end_it(kind: Type, tmp_path: Path, place: str) -> None:
    with kind.kit.running(tmp_path) as (server,):
        first = kind(server.address, place, "a", timeout_s=3.0)
        try:
            until(first.leads)
            server.pause()
            # The suspended server can neither answer nor end the session.
            until(lambda: "not answered for 2.0 s" in first.election.lost)
            with pytest.raises(StoreError):
                first.store.write(first.epoch, WRITE)
        finally:
            server.resume()
            first.close()


def test_short_interruption_suspends_the_leadership_which_then_continues(
    kind: Type, tmp_path: Path, place: str
) -> None:
    with kind.kit.running(tmp_path) as (server,):
        first = kind(server.address, place, "a", timeout_s=kind.patient_s)
        try:
            until(first.leads)
            before = first.entry()
            server.kill()
            until(lambda: not first.election.holds())
            server.start()
            server.wait()
            until(first.leads)
            assert first.entry() == before
            first.store.write(first.epoch, WRITE)
        finally:
            first.close()


def test_leader_exists_only_with_a_quorum(kind: Type, tmp_path: Path, place: str) -> None:
    with kind.kit.running(tmp_path, 3) as servers, ExitStack() as stack:
        candidates = []
        for name in ("a", "b"):
            candidates.append(kind(kind.kit.hosts(servers), place, name, timeout_s=6.0))
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


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_loss_of_the_leading_server_loses_no_write(kind: Type, tmp_path: Path, place: str, fault: str) -> None:
    with kind.kit.running(tmp_path, 3) as servers:
        first = kind(kind.kit.hosts(servers), place, "a", timeout_s=kind.patient_s)
        try:
            until(first.leads)
            first.store.write(first.epoch, WRITE)
            until(lambda: any(server.leads() for server in servers))
            leading = next(server for server in servers if server.leads())
            {"killed": leading.kill, "stopped": leading.stop}[fault]()
            for number in range(30):
                first.store.write(first.epoch, [StoredWrite(Kind.TASK, f"t{number}", b"{}")])
            assert first.election.lost == ""
            first.store.write(first.epoch, DELETION)
            assert len(first.store.load().records[Kind.TASK]) == 30
        finally:
            first.close()


# The suspended process: it writes as fast as it can until a write fails, and prints the error.
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests import election_kit
from tests.mesos_kit import until
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite
one = getattr(election_kit, sys.argv[2])(sys.argv[3], sys.argv[4], "paused", timeout_s=6.0)
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


def test_process_suspended_for_longer_than_its_candidacy_writes_nothing_afterwards(
    join: Join, kind: Type, hosts: str, place: str
) -> None:
    argv = [sys.executable, "-c", WRITER, str(Path(__file__).parents[2]), kind.__name__, hosts, place]
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
