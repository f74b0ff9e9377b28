"""Leader election in etcd: leases, keys and late answers. `test_store_election` tests the rest."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [server] is not installed")

from tests import etcd_kit
from tests.election_kit import EtcdCandidate, joining
from tests.mesos_kit import until

from jobcloud.adapters.etcd.client import NoAnswer, put
from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.errors import Fenced, StoreError, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

pytestmark = pytest.mark.etcd

WRITE = [StoredWrite(Kind.TASK, "t", b"{}")]
Join = Callable[[str], EtcdCandidate]


@pytest.fixture
def prefix() -> str:
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def join(etcd_hosts: str, prefix: str) -> Iterator[Join]:
    with joining(EtcdCandidate, etcd_hosts, prefix) as make:
        yield make


def test_write_is_fenced_as_soon_as_the_lease_has_ended(join: Join) -> None:
    first = join("a")
    until(first.leads)
    first.expire()
    with pytest.raises(Fenced):
        first.store.write(first.epoch, WRITE)
    until(lambda: "lease in etcd has ended" in first.election.lost)


def test_removal_of_the_key_ends_the_leadership_and_a_new_key_of_the_same_name_does_not_help(join: Join) -> None:
    first = join("a")
    until(first.leads)
    own = first.election.candidacy
    assert own is not None
    first.remove()
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


def test_ttl_that_etcd_has_raised_is_used(etcd_hosts: str, prefix: str) -> None:
    candidate = EtcdCandidate(etcd_hosts, prefix, "a", timeout_s=1.0)
    try:
        until(lambda: candidate.election.candidacy)
        assert candidate.election.ttl_s == 2.0
    finally:
        candidate.close()


def test_suspended_member_that_led_the_members_loses_no_write(tmp_path: Path, prefix: str) -> None:
    with etcd_kit.running(tmp_path, 3) as members, ExitStack() as stack:
        first = EtcdCandidate(etcd_kit.hosts(members), prefix, "a", timeout_s=30.0)
        stack.callback(first.close)
        until(first.leads)
        first.store.write(first.epoch, WRITE)
        until(lambda: any(member.leads() for member in members))
        leading = next(member for member in members if member.leads())
        leading.pause()
        for number in range(30):
            first.store.write(first.epoch, [StoredWrite(Kind.TASK, f"t{number}", b"{}")])
        assert first.election.lost == ""
        # It carries out the requests that it has received meanwhile.
        leading.resume()
        first.store.write(first.epoch, [StoredWrite(Kind.TASK, "t", None)])
        assert len(first.store.load().records[Kind.TASK]) == 30


def test_old_leader_does_not_trust_a_lease_that_a_change_of_the_leading_member_has_renewed(
    tmp_path: Path, prefix: str
) -> None:
    """Each such change renews all leases. The key of a leader that no longer hears from etcd outlives its TTL."""
    with etcd_kit.running(tmp_path, 3) as members, ExitStack() as stack:
        old = EtcdCandidate(etcd_kit.hosts(members), prefix, "old", timeout_s=6.0)
        stack.callback(old.close)
        until(lambda: old.epoch)
        new = EtcdCandidate(etcd_kit.hosts(members), prefix, "new", timeout_s=6.0)
        stack.callback(new.close)
        until(new.waits)
        cut_off(old)
        until(lambda: any(member.leads() for member in members))
        next(member for member in members if member.leads()).kill()
        until(lambda: old.election.lost)
        assert "not answered" in old.election.lost
        until(new.leads)
        assert not old.election.holds()


def cut_off(candidate: EtcdCandidate) -> None:
    """Let every request of a candidate fail, as in a partition."""

    def fail(*arguments: Any, **named: Any) -> Any:
        raise NoAnswer("cut off")

    candidate.client._call = fail  # type: ignore[method-assign]


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
