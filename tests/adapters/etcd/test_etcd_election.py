"""Leader election on real etcd members, with members that are stopped, killed and suspended.

A leadership ends for good after two thirds of the TTL without an answer. So TTLs are long, except in tests that wait
for this end: on a loaded machine an answer may take seconds.
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

pytest.importorskip("httptools", reason="the extra [server] is not installed")

from tests import etcd_kit
from tests.mesos_kit import until

from jobcloud.adapters.etcd.client import NoAnswer, put
from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.errors import Fenced, StoreError, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

pytestmark = pytest.mark.etcd

WRITE = [StoredWrite(Kind.TASK, "t", b"{}")]


class Candidate:
    """A scheduler as seen by etcd: it waits on its own thread and then leads."""

    def __init__(self, hosts: str, prefix: str, name: str, timeout_s: float = 60.0) -> None:
        self.client = etcd_kit.connect(hosts, prefix, timeout_s)
        self.election = EtcdElection(self.client, name)
        self.store = EtcdStore(
            self.client, name=name, candidacy=lambda: self.election.candidacy, resign=self.election.resign
        )
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
def prefix() -> str:
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def join(etcd_hosts: str, prefix: str) -> Iterator[Join]:
    with ExitStack() as stack:

        def make(name: str) -> Candidate:
            candidate = Candidate(etcd_hosts, prefix, name)
            stack.callback(candidate.close)
            return candidate

        yield make


def expire(candidate: Candidate) -> None:
    """End the lease of a candidate, as etcd does when it expires."""
    candidate.client.revoke(candidate.election._lease)


def test_first_candidate_leads_and_the_others_learn_its_address(join: Join) -> None:
    first = join("http://first:1")
    until(first.leads)
    second = join("http://second:1")
    until(second.waits)
    assert second.heard[-1] == "http://first:1 leads"
    assert not second.leads()


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


def test_ended_lease_ends_the_leadership_for_good_and_its_writes_are_fenced(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    first.store.write(first.epoch, WRITE)
    expire(first)
    with pytest.raises(Fenced):
        first.store.write(first.epoch, [StoredWrite(Kind.TASK, "t", None)])
    until(second.leads)
    until(lambda: first.election.lost)
    assert "lease in etcd has ended" in first.election.lost
    assert not first.election.holds()
    with pytest.raises(Fenced, match="superseded"):
        first.store.write(first.epoch, [StoredWrite(Kind.TASK, "t", None)])
    assert second.store.load().records[Kind.TASK] == {"t": b"{}"}


def test_process_suspended_after_its_election_does_not_supersede_its_successor(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    expire(first)
    until(second.leads)
    with pytest.raises(Fenced, match="is gone"):
        first.store.acquire()
    second.store.write(second.epoch, WRITE)


def test_removal_of_the_key_ends_the_leadership_and_a_new_key_of_the_same_name_does_not_help(join: Join) -> None:
    first = join("a")
    until(first.leads)
    own = first.election.candidacy
    assert own is not None
    first.client.transact([], [{"request_delete_range": {"key": own.key}}])
    first.client.transact([], [put(own.key, b"{}")])
    with pytest.raises(Fenced, match="is gone"):
        first.store.write(first.epoch, WRITE)
    until(lambda: "removed" in first.election.lost)


def test_candidate_that_did_not_see_an_older_one_at_first_does_not_lead(
    etcd_hosts: str, join: Join, prefix: str
) -> None:
    """Both have asked who is a candidate before either has entered."""
    first = join("a")
    until(first.leads)
    client = etcd_kit.connect(etcd_hosts, prefix)
    election = EtcdElection(client, "b")
    ask = election._candidates
    asked: list[bool] = []

    def late() -> Any:
        asked.append(True)
        return [] if len(asked) == 1 else ask()

    election._candidates = late  # type: ignore[method-assign]
    assert election._campaign() == "a leads"
    election.resign()
    client.close()


def test_candidate_whose_lease_ends_waits_again(join: Join) -> None:
    first = join("a")
    until(first.leads)
    second = join("b")
    until(second.waits)
    lost = second.election._lease
    expire(second)
    until(lambda: second.election._lease not in (0, lost))
    first.close()
    until(second.leads)


def test_ttl_that_etcd_has_raised_is_used(etcd_hosts: str, prefix: str) -> None:
    candidate = Candidate(etcd_hosts, prefix, "a", timeout_s=1.0)
    try:
        until(lambda: candidate.election.candidacy)
        assert candidate.election.ttl_s == 2.0
    finally:
        candidate.close()


def test_leadership_ends_by_our_own_clock_before_etcd_ends_the_lease(tmp_path: Path, prefix: str) -> None:
    with etcd_kit.running(tmp_path) as (member,):
        first = Candidate(member.address, prefix, "a", timeout_s=3.0)
        try:
            until(first.leads)
            member.pause()
            # The suspended member can neither answer nor end the lease.
            until(lambda: "not answered for 2.0 s" in first.election.lost)
            with pytest.raises(NoAnswer):
                first.store.write(first.epoch, WRITE)
        finally:
            member.resume()
            first.close()


def test_short_interruption_suspends_the_leadership_which_then_continues(tmp_path: Path, prefix: str) -> None:
    with etcd_kit.running(tmp_path) as (member,):
        first = Candidate(member.address, prefix, "a", timeout_s=30.0)
        try:
            until(first.leads)
            member.kill()
            until(lambda: not first.election.holds())
            member.start()
            member.wait()
            until(first.leads)
            first.store.write(first.epoch, WRITE)
        finally:
            first.close()


def test_leader_exists_only_with_a_quorum(tmp_path: Path, prefix: str) -> None:
    with etcd_kit.running(tmp_path, 3) as members, ExitStack() as stack:
        candidates = []
        for name in ("a", "b"):
            candidates.append(Candidate(etcd_kit.hosts(members), prefix, name, timeout_s=6.0))
            stack.callback(candidates[-1].close)
            until(lambda: candidates[-1].epoch or candidates[-1].waits())
        first, second = candidates
        first.store.write(first.epoch, WRITE)
        for member in members[:2]:
            member.kill()
        until(lambda: first.election.lost)
        assert not second.leads()
        # Its process ends. etcd learns of it after the members have come back.
        first.close()
        for member in members[:2]:
            member.start()
        until(second.leads)
        assert second.store.load().records[Kind.TASK] == {"t": b"{}"}


@pytest.mark.parametrize("fault", ["killed", "stopped", "suspended"])
def test_loss_of_the_leading_member_loses_no_write(tmp_path: Path, prefix: str, fault: str) -> None:
    with etcd_kit.running(tmp_path, 3) as members:
        first = Candidate(etcd_kit.hosts(members), prefix, "a", timeout_s=30.0)
        try:
            until(first.leads)
            first.store.write(first.epoch, WRITE)
            until(lambda: any(member.leads() for member in members))
            leading = next(member for member in members if member.leads())
            {"killed": leading.kill, "stopped": leading.stop, "suspended": leading.pause}[fault]()
            for number in range(30):
                first.store.write(first.epoch, [StoredWrite(Kind.TASK, f"t{number}", b"{}")])
            assert first.election.lost == ""
            if fault == "suspended":
                # It carries out the requests that it has received meanwhile.
                leading.resume()
            first.store.write(first.epoch, [StoredWrite(Kind.TASK, "t", None)])
            assert len(first.store.load().records[Kind.TASK]) == 30
        finally:
            first.close()


def test_old_leader_does_not_trust_a_lease_that_a_change_of_the_leading_member_has_renewed(
    tmp_path: Path, prefix: str
) -> None:
    """Each such change renews all leases. The key of a leader that no longer hears from etcd outlives its TTL."""
    with etcd_kit.running(tmp_path, 3) as members, ExitStack() as stack:
        old = Candidate(etcd_kit.hosts(members), prefix, "old", timeout_s=6.0)
        stack.callback(old.close)
        until(lambda: old.epoch)
        new = Candidate(etcd_kit.hosts(members), prefix, "new", timeout_s=6.0)
        stack.callback(new.close)
        until(new.waits)
        cut_off(old)
        until(lambda: any(member.leads() for member in members))
        next(member for member in members if member.leads()).kill()
        until(lambda: old.election.lost)
        assert "not answered" in old.election.lost
        until(new.leads)
        assert not old.election.holds()


def cut_off(candidate: Candidate) -> None:
    """Let every request of a candidate fail, as in a partition."""

    def fail(*arguments: Any, **named: Any) -> Any:
        raise NoAnswer("cut off")

    candidate.client._call = fail  # type: ignore[method-assign]


# The suspended process: it writes as fast as it can until a write fails, and prints the error.
WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from tests.adapters.etcd.test_etcd_election import Candidate
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


def test_process_suspended_for_longer_than_its_lease_writes_nothing_afterwards(
    join: Join, etcd_hosts: str, prefix: str
) -> None:
    argv = [sys.executable, "-c", WRITER, etcd_hosts, prefix, str(Path(__file__).parents[3])]
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


class SlowClient:
    """A client on an etcd in memory with one candidate. The answers to `slow` requests take a while."""

    def __init__(self, slow: dict[int, float]) -> None:
        self.now, self.timeout_s, self.key_found = 0.0, 4.0, b""
        self._slow, self._asked = slow, 0

    def _pass(self) -> None:
        self.now += self._slow.get(self._asked, 0.001)
        self._asked += 1

    def key(self, name: str) -> bytes:
        return b"/" + name.encode()

    def range(self, key: bytes, range_end: bytes = b"") -> Any:
        self._pass()
        return _Found(self.key_found)

    def grant(self, lease: int, seconds: int) -> int:
        self._pass()
        return seconds

    def keep_alive(self, lease: int, limit_s: float | None = None) -> int:
        self._pass()
        return 4

    def transact(self, compare: Any, success: Any) -> None:
        self._pass()
        self.key_found = compare[0]["key"]


class _Found:
    def __init__(self, key: bytes) -> None:
        from jobcloud.adapters.etcd.client import KeyValue

        self.kvs = [KeyValue(key, b"{}", 5, 5)] if key else []


@pytest.mark.parametrize("slow", [{}, {0: 3.0}, {2: 3.0}, {3: 3.0}, {4: 3.0}, {4: 3.9, 6: 1.4}], ids=str)
def test_elected_leader_does_not_lead_on_an_old_answer(slow: dict[int, float]) -> None:
    """With a TTL of 4 s the trust in an answer lasts 2.7 s."""
    client: Any = SlowClient(slow)
    election = EtcdElection(client, "a", monotonic=lambda: client.now)
    found = [election._campaign() for _ in range(3)]
    assert found[-1] is None
    assert all("its last answer took" in text for text in found if text)
    assert election.holds(), election.lost
    client.now += 1.3  # until the first heartbeat
    assert election.holds(), election.lost


class ReadOnlyClient(SlowClient):
    """A client whose user may read, and not write."""

    def __init__(self) -> None:
        super().__init__({})
        self.leases: set[int] = set()

    def grant(self, lease: int, seconds: int) -> int:
        self.leases.add(lease)
        return seconds

    def transact(self, compare: Any, success: Any) -> None:
        raise StoreUnusable("etcd denies access to /a/")

    def revoke(self, lease: int, limit_s: float) -> None:
        self.leases.remove(lease)


def test_candidate_that_must_not_write_ends_its_lease() -> None:
    client: Any = ReadOnlyClient()
    with pytest.raises(StoreUnusable, match="denies access"):
        EtcdElection(client, "a").wait(threading.Event(), print)
    assert client.leases == set()


def test_election_reports_an_etcd_out_of_reach(prefix: str) -> None:
    from jobcloud.dev.tcp_ports import free_port

    client = etcd_kit.connect(f"127.0.0.1:{free_port()}", prefix, 0.5)
    stop = threading.Event()
    heard: list[str] = []

    def report(text: str) -> None:
        heard.append(text)
        stop.set()

    assert not EtcdElection(client, "a").wait(stop, report)
    assert "cannot be reached" in heard[0]
    with pytest.raises(StoreError):
        EtcdStore(client).load()
    client.close()
