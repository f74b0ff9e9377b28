"""The etcd store: split batches, lost answers, late requests, damage, a full store, and access control."""

from __future__ import annotations

import random
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [server] is not installed")

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests import etcd_kit
from tests.mesos_kit import until

from jobcloud.adapters import journal
from jobcloud.adapters.etcd import store as stores
from jobcloud.adapters.etcd.client import (
    EtcdClient,
    EtcdSettings,
    Header,
    KeyValue,
    NoAnswer,
    Operation,
    Range,
    _Unclear,
    end_of,
    put,
)
from jobcloud.adapters.etcd.connection import Answer
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.dev.tcp_ports import free_port
from jobcloud.errors import ConfigError, Fenced, RecordTooLarge, StoreError, StoreFull, StoreGone, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import StoredRecords, StoredWrite, TlsFiles

pytestmark = pytest.mark.etcd


class Crash(BaseException):
    """The process ends at this point."""


class Keys:
    """One prefix, with stores and a client for the view of an operator."""

    def __init__(self, hosts: str) -> None:
        self.hosts = hosts
        self.prefix = f"test/{uuid.uuid4().hex}"
        self.client = etcd_kit.connect(hosts, self.prefix, 60.0)
        self._stores: list[EtcdStore] = []

    def open(self, **options: Any) -> EtcdStore:
        options = {"session_timeout_s": 60.0, **options}
        self._stores.append(EtcdStore(EtcdClient(EtcdSettings(self.hosts, self.prefix, **options))))
        return self._stores[-1]

    def lead(self) -> tuple[EtcdStore, int]:
        store = self.open()
        return store, store.acquire()

    def load(self) -> StoredRecords:
        return self.open().load()

    def path(self, name: str) -> str:
        return f"/{self.prefix}/{name}"

    def names(self) -> list[str]:
        found = self.client.range(self.client.root, end_of(self.client.root)).kvs
        return [each.key.decode().removeprefix(self.path("")) for each in found]

    def journal(self) -> list[str]:
        return [name.removeprefix("journal/") for name in self.names() if name.startswith("journal/")]

    def segments(self) -> list[str]:
        return [name for name in self.journal() if "-" not in name]

    def set(self, name: str, value: bytes) -> None:
        self.client.transact([], [put(self.client.key(name), value)])

    def delete(self, name: str) -> None:
        self.client.transact([], [{"request_delete_range": {"key": self.client.key(name)}}])

    def get(self, name: str) -> bytes:
        return self.client.range(self.client.key(name)).kvs[0].value

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.client.close()


@pytest.fixture
def keys(etcd_hosts: str) -> Iterator[Keys]:
    made = Keys(etcd_hosts)
    yield made
    made.close()


def noise(number: int, size: int) -> bytes:
    """Incompressible bytes, the same for the same number."""
    return random.Random(number).randbytes(size)


def write_of(kind: Kind, key: str, value: bytes | None = b"{}") -> StoredWrite:
    return StoredWrite(kind, key, value)


LARGE = [write_of(Kind.TASK, f"t{number}", noise(number, 1_000)) for number in range(2_000)]


def count(records: StoredRecords) -> int:
    return sum(map(len, records.records.values()))


def test_layout_is_as_documented(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.write(epoch, [write_of(kind, "a/b", kind.encode()) for kind in Kind])
    assert keys.names() == ["epoch", "head", "journal/0000000000000001", "journal/0000000000000001-marks"]
    assert keys.get("epoch").startswith(b'{"epoch": 1, "leader": "", "token": "')
    assert keys.get("head").startswith(b"1 ")


def test_prefixes_that_begin_alike_are_different_states(etcd_hosts: str) -> None:
    base = f"test/{uuid.uuid4().hex}"
    stores = [EtcdStore(etcd_kit.connect(etcd_hosts, prefix)) for prefix in (base, f"{base}x")]
    for store in stores:
        epoch = store.acquire()
        assert epoch == 1
        store.write(epoch, [write_of(Kind.TASK, str(id(store)))])
    assert [count(store.load()) for store in stores] == [1, 1]
    assert [store.load().faults for store in stores] == [[], []]
    for store in stores:
        store.close()


# --------------------------------------------------------------------------------------------------- batches in parts


def crash_after(store: EtcdStore, requests: int) -> Callable[[], bool]:
    """End the process before its request number `requests` + 1. The result tells whether that has happened."""
    transact = store._transact
    done: list[bool] = []
    crashed: list[bool] = []

    def counted(*arguments: Any) -> Any:
        if len(done) == requests:
            crashed.append(True)
            raise Crash
        done.append(True)
        return transact(*arguments)

    store._transact = counted  # type: ignore[method-assign,assignment]
    return lambda: bool(crashed)


def test_crash_between_the_parts_of_a_batch_leaves_all_of_it_or_none(keys: Keys) -> None:
    requests, crashed, seen = 0, True, []
    while crashed:
        store, epoch = keys.lead()
        store.write(epoch, [*(write_of(write.kind, write.key, None) for write in LARGE), write_of(Kind.JOB, "old")])
        assert count(keys.load()) == 1
        happened = crash_after(store, requests)
        try:
            store.write(epoch, LARGE)
        except Crash:
            assert happened()
        crashed = happened()
        found = keys.load()
        assert found.faults == []
        assert count(found) in (1, 1 + len(LARGE))
        seen.append(count(found))
        if count(found) > 1:
            assert found.records[Kind.TASK] == {write.key: write.value for write in LARGE}
        # The next leader loses nothing.
        heir, epoch = keys.lead()
        heir.write(epoch, [write_of(Kind.TASK, "t0", b"newer")])
        assert keys.load().records[Kind.TASK]["t0"] == b"newer"
        heir.write(epoch, [write_of(Kind.TASK, "t0", None)])
        requests += 1
    assert seen == [1] * (len(seen) - 1) + [1 + len(LARGE)]
    assert len(seen) > 4


def test_leftover_parts_of_a_crash_are_deleted(keys: Keys) -> None:
    store, epoch = keys.lead()
    crash_after(store, 3)
    with pytest.raises(Crash):
        store.write(epoch, LARGE)
    assert len(keys.journal()) == 3
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.TASK, "t")])
    assert keys.journal() == [keys.segments()[0], f"{keys.segments()[0]}-marks"]


def test_leader_superseded_between_the_parts_of_a_batch_stores_nothing(keys: Keys) -> None:
    store, epoch = keys.lead()
    transact = store._transact
    done: list[object] = []

    def overtaken(*arguments: Any) -> Any:
        if len(done) == 3:
            keys.lead()
        done.append(None)
        return transact(*arguments)

    store._transact = overtaken  # type: ignore[method-assign,assignment]
    with pytest.raises(Fenced):
        store.write(epoch, LARGE)
    assert count(keys.load()) == 0


def test_requests_stay_far_below_the_limits_of_etcd(keys: Keys) -> None:
    store, epoch = keys.lead()
    sizes: list[tuple[int, int]] = []
    transact = store._transact

    def measured(compare: Sequence[Operation], success: Sequence[Operation], failure: Sequence[Operation]) -> Any:
        puts = [each["request_put"] for each in success if "request_put" in each]
        sizes.append((sum(len(each["key"]) + len(each["value"]) for each in puts), len(success)))
        return transact(compare, success, failure)

    store._transact = measured  # type: ignore[method-assign]
    store.write(epoch, [*LARGE, write_of(Kind.FIRING, "f", noise(1, 3_000_000))])
    many = [write_of(Kind.SHARD, f"f/{number}") for number in range(60_000)]
    store.write(epoch, many)
    # Many small segments, all of which become obsolete, are deleted some at a time.
    for number in range(300):
        store.write(epoch, [write_of(Kind.TASK, "t", noise(number, 20_000))])
    assert max(size for size, _ in sizes) < 1_100_000
    assert max(operations for _, operations in sizes) <= 100
    assert count(keys.load()) == len(LARGE) + 2 + len(many)


def test_record_over_the_limit_is_refused_and_the_store_continues(keys: Keys) -> None:
    store, epoch = keys.lead()
    size = 17 << 20
    with pytest.raises(RecordTooLarge, match=f"'big' takes {size} bytes") as caught:
        store.write(epoch, [write_of(Kind.TASK, "t"), write_of(Kind.JOB, "big", bytes(size))])
    assert set(caught.value.problems) == {("job", "big")}
    assert count(keys.load()) == 0
    store.write(epoch, [write_of(Kind.TASK, "t")])
    assert count(keys.load()) == 1


def test_record_of_the_largest_size_is_read_although_pages_are_small(keys: Keys) -> None:
    store, epoch = keys.lead()
    value = noise(1, 16 << 20)
    store.write(epoch, [write_of(Kind.FIRING, "f", value)])
    assert keys.load().records[Kind.FIRING]["f"] == value


# ------------------------------------------------------------------------------------------------------- lost answers


def losing(client: EtcdClient, arrives: bool) -> None:
    """Lose the answer of the next transaction. The client then repeats it, as it does after a lost answer."""
    exchange = client._exchange
    lost: list[bool] = []

    def lose(number: int, path: str, *arguments: Any) -> Any:
        if lost or path != "/v3/kv/txn":
            return exchange(number, path, *arguments)
        lost.append(True)
        if arrives:
            exchange(number, path, *arguments)
        from jobcloud.adapters.etcd.connection import Lost

        raise Lost("lost")

    client._exchange = lose  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("arrives", [True, False], ids=["done", "not-done"])
@pytest.mark.parametrize("batch", [LARGE[:5], LARGE, []], ids=["few", "many", "nothing"])
def test_lost_answer_is_resolved_by_the_repeated_transaction(
    keys: Keys, batch: list[StoredWrite], arrives: bool
) -> None:
    store, epoch = keys.lead()
    store.load()
    losing(store._client, arrives)
    store.write(epoch, batch)
    assert count(keys.load()) == len(batch)
    store.write(epoch, [write_of(Kind.TASK, "next")])
    assert count(keys.load()) == len(batch) + 1


@pytest.mark.parametrize("arrives", [True, False], ids=["done", "not-done"])
def test_raised_epoch_whose_answer_was_lost_belongs_to_this_leader(keys: Keys, arrives: bool) -> None:
    keys.lead()
    store = keys.open()
    losing(store._client, arrives)
    assert store.acquire(70_000) == 70_000
    store.write(70_000, [write_of(Kind.TASK, "t")])
    assert keys.open().epoch() == 70_000


def test_refusal_of_a_repeated_request_does_not_prove_that_nothing_was_written(keys: Keys) -> None:
    """The first attempt has used the last space, and its answer was lost."""
    store, epoch = keys.lead()
    losing(store._client, arrives=True)
    refuse = store._client._read

    def full(answer: Any, kind: Any) -> Any:
        raise StoreFull("no space")

    store._client._read = full  # type: ignore[method-assign]
    with pytest.raises(NoAnswer, match="unknown whether"):
        store.write(epoch, [])
    with pytest.raises(StoreFull):
        store.load()
    store._client._read = refuse  # type: ignore[method-assign]
    store.load()
    store.write(epoch, [])


def recorded(client: EtcdClient) -> list[tuple[Any, ...]]:
    """The transactions that a client sends from now on, as arguments of `transact`."""
    sent: list[tuple[Any, ...]] = []
    transact = client.transact

    def record(*arguments: Any) -> Any:
        sent.append(arguments)
        return transact(*arguments)

    client.transact = record  # type: ignore[method-assign,assignment]
    return sent


def test_late_request_changes_nothing_even_after_its_segment_was_deleted(keys: Keys) -> None:
    """A suspended member carries out a request minutes later. Meanwhile the leader has cleaned its journal."""
    store, epoch = keys.lead()
    store.load()
    sent = recorded(store._client)
    store.write(epoch, [write_of(Kind.TASK, "deleted", noise(1, 300_000))])
    late = sent[-1]
    for number in range(2, 30):
        store.write(epoch, [write_of(Kind.TASK, "deleted", None), write_of(Kind.FIRING, "f", noise(number, 300_000))])
    assert f"{1:016d}" not in keys.segments()
    assert not keys.client.transact(*late).succeeded
    assert keys.load().records[Kind.TASK] == {}


def test_request_given_up_cannot_take_effect_after_the_proof_that_follows(keys: Keys) -> None:
    """After a failed write the leader loads the state, and proves its epoch before it acts on it."""
    store, epoch = keys.lead()
    store.load()
    transact = store._client.transact
    given_up: list[tuple[Any, ...]] = []

    def give_up(*arguments: Any) -> Any:
        given_up.append(arguments)
        raise NoAnswer("lost")

    store._client.transact = give_up  # type: ignore[method-assign,assignment]
    with pytest.raises(NoAnswer):
        store.write(epoch, [write_of(Kind.TASK, "t")])
    store._client.transact = transact  # type: ignore[method-assign]
    assert count(store.load()) == 0
    store.write(epoch, [])
    assert not transact(*given_up[0]).succeeded
    assert count(keys.load()) == 0


def test_request_that_takes_effect_between_load_and_proof_is_noticed(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.load()
    transact = store._client.transact
    given_up: list[tuple[Any, ...]] = []

    def give_up(*arguments: Any) -> Any:
        given_up.append(arguments)
        raise NoAnswer("lost")

    store._client.transact = give_up  # type: ignore[method-assign,assignment]
    with pytest.raises(NoAnswer):
        store.write(epoch, [write_of(Kind.TASK, "t")])
    store._client.transact = transact  # type: ignore[method-assign]
    assert count(store.load()) == 0
    assert transact(*given_up[0]).succeeded
    with pytest.raises(StoreError, match="earlier request of ours"):
        store.write(epoch, [])
    assert count(store.load()) == 1
    store.write(epoch, [])


def test_leader_hears_the_time_of_the_member(keys: Keys) -> None:
    heard: list[int] = []
    store = EtcdStore(keys.client, heard=heard.append)
    store.acquire()
    assert len(heard) == 1
    assert heard[0] % 1_000 == 0
    assert heard[0] > 1_700_000_000_000


def test_snapshot_is_of_one_instant_while_a_leader_writes(keys: Keys) -> None:
    """Each batch writes three records with the same number. A mixture of two batches would show."""
    leader, epoch = keys.lead()
    leader.load()
    reader = keys.open()
    enough = threading.Event()

    def lead() -> None:
        for number in range(100_000):
            if enough.is_set():
                return
            value = b"%d" % number
            leader.write(epoch, [write_of(kind, "k", value) for kind in (Kind.JOB, Kind.TASK, Kind.APP)])

    writing = threading.Thread(target=lead)
    writing.start()
    try:
        for _ in range(20):
            found = reader.snapshot().records
            assert len({found[kind].get("k") for kind in (Kind.JOB, Kind.TASK, Kind.APP)}) == 1
    finally:
        enough.set()
        writing.join(60)


def test_state_is_read_again_if_etcd_is_compacted_meanwhile(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_FIRST_KEYS", 1)
    monkeypatch.setattr(stores, "_MAX_KEYS", 1)
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.TASK, "t")])
    reader = keys.open()
    ask = reader._client.range
    compacted: list[bool] = []

    def compacting(*arguments: Any, **named: Any) -> Any:
        if named.get("revision") and not compacted:
            compacted.append(True)
            store.write(epoch, [write_of(Kind.TASK, "u")])
            keys.client._call("/v3/kv/compaction", {"revision": str(named["revision"] + 1)}, dict)
        return ask(*arguments, **named)

    reader._client.range = compacting  # type: ignore[method-assign]
    keys.client._read = lambda answer, kind: None  # type: ignore[method-assign,assignment,return-value]
    assert count(reader.load()) == 2
    assert compacted


# ---------------------------------------------------------------------------------------------------- members, limits


def test_every_call_has_a_time_limit(tmp_path: Path) -> None:
    with etcd_kit.running(tmp_path) as (member,):
        client = etcd_kit.connect(member.address, "a", 60.0)
        store = EtcdStore(client)
        epoch = store.acquire()
        client.timeout_s = 1.0
        member.pause()
        try:
            for use in (store.acquire, store.load, lambda: store.write(epoch, [write_of(Kind.TASK, "t")])):
                with pytest.raises(NoAnswer):
                    use()
        finally:
            member.resume()
            store.close()


class Impostor:
    """A server that answers each request with `piece`, again and again, slowly or fast."""

    def __init__(self, begin: bytes, piece: bytes, pause_s: float) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._content = begin, piece, pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        begin, piece, pause_s = self._content
        while not self._over.is_set():
            connection, _ = self._listening.accept()
            with connection:
                try:
                    connection.recv(65_536)
                    connection.sendall(begin)
                    while not self._over.wait(pause_s):
                        connection.sendall(piece)
                except OSError:
                    continue

    def close(self) -> None:
        self._over.set()
        socket.create_connection(self._listening.getsockname()).close()
        self._thread.join(60)
        self._listening.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n"


def test_member_that_sends_a_byte_now_and_then_does_not_hold_a_call() -> None:
    impostor = Impostor(HEAD, b" ", 0.05)
    client = etcd_kit.connect(impostor.address, "a", 1.0)
    try:
        with pytest.raises(NoAnswer):
            client.range(b"k")
    finally:
        impostor.close()
        client.close()


def test_endless_answer_is_cut_off() -> None:
    impostor = Impostor(HEAD, b" " * 1_000_000, 0.0)
    client = etcd_kit.connect(impostor.address, "a", 60.0)
    try:
        with pytest.raises(StoreError, match="more than"):
            client.range(b"k")
    finally:
        impostor.close()
        client.close()


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


DEEP = b"[" * 10_000


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        http("200 OK", b"null"),
        # This must not look like an etcd without keys.
        http("200 OK", b"{}"),
        http("200 OK", b'{"x":' + DEEP),
        http("400 Bad Request", b'{"error":' + DEEP),
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"\x15\x03\x01",
    ],
)
def test_server_that_is_no_etcd_counts_as_no_answer(answer: bytes) -> None:
    impostor = Impostor(answer, b"", 0.2)
    client = etcd_kit.connect(impostor.address, "a", 0.5)
    try:
        with pytest.raises(NoAnswer):
            client.range(b"k")
    finally:
        impostor.close()
        client.close()


def test_answer_that_is_not_json_is_shown() -> None:
    # The answer of a server in Go that expects TLS.
    impostor = Impostor(http("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n"), b"", 0.2)
    client = etcd_kit.connect(impostor.address, "a", 60.0)
    try:
        answer = client._exchange(0, "/v3/kv/range", b"{}", "", monotonic() + 60)
        with pytest.raises(_Unclear, match="status 400 and 'Client sent an HTTP request to an HTTPS server"):
            client._read(answer, Range)
    finally:
        impostor.close()
        client.close()


@pytest.mark.parametrize("found", [[], [KeyValue(b"/")]])
def test_pages_that_make_no_progress_are_refused(keys: Keys, found: list[KeyValue]) -> None:
    store = keys.open()
    answers = [Range(Header(1, 1), found, more=True)] * 3
    store._client.range = lambda *_, **__: answers.pop()  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="not asked for"):
        store.load()


def test_address_of_a_member_that_does_not_answer_leaves_time_for_its_others(
    etcd_hosts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A queue that is full: further attempts to connect get no answer.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, socket.create_connection(silent.getsockname()):
        host, _, port = etcd_hosts.partition(",")[0].rpartition(":")
        found = [socket.getaddrinfo(*each)[0] for each in (silent.getsockname(), (host, int(port)))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        client = etcd_kit.connect(f"etcd.example:{port}", "a", 8.0)
        assert client.range(b"k").kvs == []
        client.close()


def test_unreachable_members_are_skipped(etcd_hosts: str) -> None:
    store = EtcdStore(etcd_kit.connect(f"127.0.0.1:{free_port()},{etcd_hosts}", f"test/{uuid.uuid4().hex}"))
    store.write(store.acquire(), [write_of(Kind.TASK, "t")])
    store.close()


def test_suspended_member_is_skipped(tmp_path: Path) -> None:
    with etcd_kit.running(tmp_path, 3) as members:
        store = EtcdStore(etcd_kit.connect(etcd_kit.hosts(members), "a", 20.0))
        epoch = store.acquire()
        members[0].pause()
        for number in range(3):
            store.write(epoch, [write_of(Kind.TASK, f"t{number}")])
        members[0].resume()
        assert len(store.load().records[Kind.TASK]) == 3
        store.close()


def test_members_of_different_clusters_are_refused(etcd_hosts: str, tmp_path: Path) -> None:
    with etcd_kit.running(tmp_path, more=("--initial-cluster-token", "another")) as (member,):
        store = EtcdStore(etcd_kit.connect(f"{etcd_hosts},{member.address}", f"test/{uuid.uuid4().hex}"))
        store.acquire()
        store._client._turn(0)
        with pytest.raises(StoreUnusable, match="different clusters"):
            store.load()
        store.close()


def test_data_put_back_from_a_copy_under_a_leader_stops_it(tmp_path: Path) -> None:
    with etcd_kit.running(tmp_path / "members") as (member,):
        store = EtcdStore(etcd_kit.connect(member.address, "a", 60.0))
        epoch = store.acquire()
        store.write(epoch, [write_of(Kind.TASK, "t0")])
        member.stop()
        shutil.copytree(member.folder / "data", tmp_path / "copy")
        member.start()
        member.wait()
        for number in range(5):
            store.write(epoch, [write_of(Kind.TASK, f"t{number}")])
        member.stop()
        shutil.rmtree(member.folder / "data")
        shutil.copytree(tmp_path / "copy", member.folder / "data")
        member.start()
        member.wait()
        with pytest.raises(StoreGone, match="older copy"):
            store.write(epoch, [write_of(Kind.TASK, "t9")])
        store.close()


# ---------------------------------------------------------------------------------------------------------- no space


def test_full_etcd_loses_nothing_and_the_same_leader_continues_when_there_is_room(tmp_path: Path) -> None:
    from jobcloud.adapters.etcd.election import EtcdElection

    with etcd_kit.running(tmp_path, more=etcd_kit.SMALL) as (member,):
        client = etcd_kit.connect(member.address, "jobs", 60.0)
        election = EtcdElection(client, "a")
        assert election.wait(threading.Event(), print)
        store = EtcdStore(client, candidacy=lambda: election.candidacy)
        epoch = store.acquire()
        store.write(epoch, [write_of(Kind.TASK, "kept")])
        etcd_kit.fill(member)
        for batch in ([write_of(Kind.TASK, "kept", None)], []):
            with pytest.raises(StoreFull, match="compact it, defragment it and disarm"):
                store.write(epoch, batch)
        assert store.load().records[Kind.TASK] == {"kept": b"{}"}
        # Another candidate cannot enter, and says why. The leader's lease goes on.
        stop = threading.Event()
        heard: list[str] = []

        def report(text: str) -> None:
            heard.append(text)
            stop.set()

        second = etcd_kit.connect(member.address, "jobs", 60.0)
        assert not EtcdElection(second, "b").wait(stop, report)
        assert "no space left" in heard[0]
        assert election._beat()
        assert election.holds()

        etcd_kit.make_room(member)
        store.write(epoch, [write_of(Kind.TASK, "after")])
        assert store.load().records[Kind.TASK] == {"kept": b"{}", "after": b"{}"}
        election.resign()
        for each in (client, second):
            each.close()


# ------------------------------------------------------------------------------------------------------------- damage


def test_unknown_keys_are_reported_and_left_unchanged(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.JOB, "j")])
    strange = ["stranger", "config/queue", "journal/readme", "epoch2"]
    for name in strange:
        keys.set(name, b"?")
    found = keys.load()
    assert {fault.path for fault in found.faults} == {keys.path(name) for name in strange}
    assert found.records[Kind.JOB] == {"j": b"{}"}
    store.write(epoch, [write_of(Kind.JOB, "k")])
    assert set(strange) <= set(keys.names())


@pytest.mark.parametrize("damage", ["garbage", "emptied", "deleted", "newer"])
@pytest.mark.parametrize("number", [1, 2], ids=["middle", "last"])
def test_damaged_segment_is_reported_and_older_versions_of_its_records_stay_lost(
    keys: Keys, damage: str, number: int
) -> None:
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.TASK, "kept"), write_of(Kind.TASK, "changed", b"1")])
    for _ in range(number - 1):
        store.write(epoch, [write_of(Kind.TASK, "before")])
    store.write(epoch, [write_of(Kind.TASK, "changed", b"2"), write_of(Kind.SHARD, "f/1")])
    name = f"journal/{keys.segments()[number]}"
    if number == 1:
        store.write(epoch, [write_of(Kind.TASK, "after")])
    if damage == "deleted":
        keys.delete(name)
    else:
        keys.set(name, {"garbage": b"\xff" * 50, "emptied": b"", "newer": b"2 x 0\nwhat"}[damage])
    heir, epoch = keys.lead()
    found = heir.load()
    assert [fault.path for fault in found.faults] == [keys.path(name)]
    assert set(found.records[Kind.TASK]) == {"kept", "after" if number == 1 else "before"}
    assert found.lost is not None
    assert [key for key in ("f/0", "f/1") if found.lost(Kind.SHARD, key)] == ["f/1"]
    heir.write(epoch, [write_of(Kind.TASK, "changed", b"3")])
    found = keys.load()
    assert [fault.path for fault in found.faults] == [keys.path(name)]
    assert found.records[Kind.TASK]["changed"] == b"3"


def test_last_segment_that_is_gone_with_its_marks_is_noticed(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.TASK, "t")])
    for name in keys.journal():
        keys.delete(f"journal/{name}")
    problem = rf"journal/0{{15}}1 in etcd is damaged .* delete all keys below {keys.path('')}"
    with pytest.raises(StoreUnusable, match=problem):
        keys.load()
    # The advice of the message. A restore reads the present state first.
    for name in keys.names():
        keys.delete(name)
    successor = keys.open()
    successor.write(successor.acquire(epoch + 1), [write_of(Kind.TASK, "u")])
    assert count(successor.snapshot()) == 1


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"epoch": -4}', b'{"epoch": "9"}', b'{"epoch": 1e99}', b"\xff"])
def test_damaged_epoch_is_refused_and_left_unchanged(keys: Keys, value: bytes) -> None:
    store, epoch = keys.lead()
    keys.set("epoch", value)
    with pytest.raises(StoreUnusable, match=rf"{keys.path('epoch')} .* delete the key"):
        keys.open().acquire()
    with pytest.raises(Fenced):
        store.write(epoch, [write_of(Kind.TASK, "t")])
    assert keys.get("epoch") == value
    # The advice of the message.
    keys.delete("epoch")
    assert keys.open().acquire(epoch + 1) == epoch + 1


def test_damaged_head_is_refused_and_left_unchanged(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.TASK, "t")])
    keys.set("head", b"-1 x")
    with pytest.raises(StoreUnusable, match=rf"{keys.path('head')} .* delete the key"):
        keys.load()
    with pytest.raises(StoreError, match="changed by another client"):
        store.write(epoch, [])
    # The advice of the message.
    keys.delete("head")
    successor = keys.open()
    successor.write(successor.acquire(), [write_of(Kind.TASK, "u")])
    assert count(keys.load()) == 2


def test_state_deleted_under_a_leader_stops_it(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.load()
    for name in keys.names():
        keys.delete(name)
    with pytest.raises(Fenced):
        store.write(epoch, [write_of(Kind.TASK, "t")])


def test_record_of_a_newer_kind_is_kept(keys: Keys) -> None:
    store, epoch = keys.lead()
    store.write(epoch, [write_of(Kind.TASK, "t")])
    keys.set(f"journal/{2:016d}", b"1 abc 0\n" + journal.encode([("future", "f", b"{}")]))
    heir, epoch = keys.lead()
    assert [fault.path.rpartition(" ")[2] for fault in heir.load().faults] == ["future/f"]
    for number in range(20):
        heir.write(epoch, [write_of(Kind.TASK, "t", noise(number, 300_000))])
    assert f"{1:016d}" not in keys.segments()
    assert len(keys.load().faults) == 1


def test_journal_stays_small_and_cleaning_loses_nothing(keys: Keys) -> None:
    store, epoch = keys.lead()
    lasting = [write_of(Kind.JOB, f"lasting-{number}", noise(number, 100)) for number in range(100)]
    store.write(epoch, lasting)
    for number in range(100):
        store.write(epoch, [write_of(Kind.FIRING, "f", noise(number, 50_000)), write_of(Kind.TASK, f"t{number % 7}")])
    found = keys.client.range(keys.client.key("journal/"), end_of(keys.client.key("journal/"))).kvs
    assert sum(len(each.value) for each in found) < 3_000_000
    records = keys.load().records
    assert records[Kind.JOB] == {write.key: write.value for write in lasting}
    assert records[Kind.FIRING] == {"f": noise(99, 50_000)}


@pytest.mark.parametrize(("first", "second", "how"), [("", "/b/c", "lies inside"), ("/b/c", "", "contains")])
def test_prefix_that_overlaps_that_of_another_cluster_is_refused(keys: Keys, first: str, second: str, how: str) -> None:
    old = EtcdStore(etcd_kit.connect(keys.hosts, keys.prefix + first, 60.0))
    epoch = old.acquire()
    old.write(epoch, LARGE[:3])
    new = EtcdStore(etcd_kit.connect(keys.hosts, keys.prefix + second, 60.0))
    with pytest.raises(StoreUnusable, match=f"{how} that of another cluster, /{keys.prefix}{first}/: choose"):
        new.acquire()
    # The first one goes on.
    old.write(epoch, LARGE[3:5])
    assert old.acquire() == epoch + 1
    assert count(old.load()) == 5
    new.close()
    old.close()


# ------------------------------------------------------------------------------------------------------- access control


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[etcd_kit.Member]:
    """A member with users: root, and jc, who may use the prefixes /jobs/ and /team/jobs/ only.

    Tokens end after 3 s without use.
    """
    with etcd_kit.running(tmp_path, more=("--auth-token-ttl", "3")) as (member,):
        member.ask("/v3/auth/user/add", {"name": "root", "password": "r00t"})
        member.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
        member.ask("/v3/auth/user/add", {"name": "jc", "password": "s3cret"})
        member.ask("/v3/auth/role/add", {"name": "jobs"})
        for key, end in (("L2pvYnMv", "L2pvYnMw"), ("L3RlYW0vam9icy8=", "L3RlYW0vam9iczA=")):
            granted = {"permType": "READWRITE", "key": key, "range_end": end}
            member.ask("/v3/auth/role/grant", {"name": "jobs", "perm": granted})
        member.ask("/v3/auth/user/grant", {"user": "jc", "role": "jobs"})
        member.ask("/v3/auth/enable")
        yield member


def test_user_with_rights_on_a_nested_prefix_alone_can_lead(guarded: etcd_kit.Member) -> None:
    store = EtcdStore(etcd_kit.connect(guarded.address, "team/jobs", 60.0, "jc:s3cret"))
    assert store.acquire() == 1
    store.close()


def test_user_with_rights_on_the_prefix_alone_can_lead(guarded: etcd_kit.Member) -> None:
    from jobcloud.adapters.etcd.election import EtcdElection

    client = etcd_kit.connect(guarded.address, "jobs", 60.0, "jc:s3cret")
    election = EtcdElection(client, "a")
    assert election.wait(threading.Event(), print)
    store = EtcdStore(client, candidacy=lambda: election.candidacy)
    epoch = store.acquire()
    store.write(epoch, LARGE[:10])
    assert count(store.load()) == 10
    assert election._beat()
    election.resign()
    assert client.range(client.key("election/"), client.key("election0")).kvs == []
    store.close()


def test_expired_token_is_renewed(guarded: etcd_kit.Member) -> None:
    client = etcd_kit.connect(guarded.address, "jobs", 60.0, "jc:s3cret")
    store = EtcdStore(client)
    epoch = store.acquire()
    client._token = "garbage.1"
    store.write(epoch, [write_of(Kind.TASK, "t")])
    first, used = client._token, monotonic()
    unused = etcd_kit.connect(guarded.address, "jobs", 60.0, "jc:s3cret")

    def is_stale() -> bool:
        # A use would prolong the life of the token.
        header = f"Authorization: {first}\r\n"
        answer = unused._exchange(0, "/v3/kv/range", b'{"key": "L2pvYnMv"}', header, monotonic() + 60)
        return answer.status == 401

    until(lambda: monotonic() > used + 5)
    assert is_stale()
    store.write(epoch, [write_of(Kind.TASK, "u")])
    assert client._token != first
    assert count(store.load()) == 2
    unused.close()
    store.close()


class Tokens(EtcdClient):
    """A client of a server that issues the tokens t1, t2, … and accepts those in `valid`."""

    def __init__(self, valid: str) -> None:
        super().__init__(EtcdSettings("127.0.0.1:1", auth="jc:s3cret"))
        self.valid = valid
        self.issued = 0
        self.used: list[str] = []

    def _exchange(self, number: int, path: str, body: bytes, headers: str, deadline: float) -> Answer:
        if path == "/v3/auth/authenticate":
            self.issued += 1
            return Answer(200, bytearray(b'{"header":{"cluster_id":"1"},"token":"t%d"}' % self.issued))
        self.used.append(headers.strip())
        if headers.strip().endswith(self.valid):
            return Answer(200, bytearray(b'{"header":{"cluster_id":"1"}}'))
        return Answer(401, bytearray(b'{"error":"etcdserver: invalid auth token","code":16}'))


def test_token_that_becomes_invalid_twice_during_a_call_is_renewed_twice() -> None:
    client = Tokens("t3")
    assert client.range(b"k").kvs == []
    assert client.used == [f"Authorization: t{number}" for number in (1, 2, 3)]


def test_request_is_not_sent_without_a_token_if_another_thread_discards_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Tokens("t1")
    # The other thread discards it after each look.
    looks = iter(["t1", ""])
    monkeypatch.setattr(Tokens, "_token", property(lambda _: next(looks), lambda *_: None), raising=False)
    client.range(b"k")
    assert client.used == ["Authorization: t1"]


def test_refused_token_is_kept_if_another_thread_has_replaced_it_already() -> None:
    client = Tokens("t2")
    client._token = "t2"
    client._discard("t1")
    client.range(b"k")
    assert client.issued == 0


@pytest.mark.parametrize(
    ("auth", "prefix", "problem"),
    [
        ("", "jobs", "requires a user"),
        ("jc:wrong", "jobs", "refuses the credentials"),
        ("nobody:s3cret", "jobs", "refuses the credentials"),
        ("jc:s3cret", "others", "denies access to /others/"),
    ],
)
def test_wrong_credentials_and_rights_are_told(guarded: etcd_kit.Member, auth: str, prefix: str, problem: str) -> None:
    store = EtcdStore(etcd_kit.connect(guarded.address, prefix, 60.0, auth))
    with pytest.raises(StoreUnusable, match=problem) as caught:
        store.acquire()
    assert "s3cret" not in str(caught.value)
    store.close()


def test_etcd_without_authentication_is_refused_unless_configured(keys: Keys) -> None:
    with pytest.raises(StoreUnusable, match="authentication is not enabled"):
        keys.open(auth="me:secret").acquire()
    assert keys.open(auth="me:secret", open_keys=True).acquire() == 1


def test_tls_checks_both_sides(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, certificate in {
        "server": authority.issue_cert("127.0.0.1"),
        "client": authority.issue_cert("client@example.org"),
    }.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    server = str(tmp_path / "server.pem")
    options = (
        "--cert-file",
        server,
        "--key-file",
        server,
        "--client-cert-auth",
        "--trusted-ca-file",
        str(tmp_path / "ca.pem"),
    )

    def attempt(hosts: str, files: dict[str, str], limit_s: float = 2.0) -> int:
        tls = TlsFiles(**{name: str(tmp_path / file) for name, file in files.items()})
        store = EtcdStore(EtcdClient(EtcdSettings(hosts, session_timeout_s=limit_s, tls=tls)))
        try:
            return store.acquire()
        finally:
            store.close()

    mine = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.pem"}
    with etcd_kit.running(tmp_path / "etcd", more=options) as (member,):
        assert attempt(member.address, mine, 60.0) == 1
        for wrong in ({**mine, "ca_file": "stranger.pem"}, {"ca_file": "ca.pem"}):
            with pytest.raises(NoAnswer):
                attempt(member.address, wrong)
        with pytest.raises(NoAnswer, match="Hostname mismatch"):
            attempt(f"localhost:{member.port}", mine, 10.0)
        plain = etcd_kit.connect(member.address, "a", 2.0)
        with pytest.raises(NoAnswer, match=r"set etcd\.tls to true"):
            plain.range(b"k")
        plain.close()


def test_certificates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="certificates") as caught:
        EtcdClient(EtcdSettings("127.0.0.1:1", tls=TlsFiles(str(tmp_path / "x.pem"))))
    assert caught.value.field == "etcd.tls_ca_file"


def test_key_with_a_password_is_refused_without_a_question_on_the_terminal(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("client@example.org")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*form))
    tls = TlsFiles(cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"))
    with pytest.raises(ConfigError, match="without a password") as caught:
        EtcdClient(EtcdSettings("127.0.0.1:1", tls=tls))
    assert caught.value.field == "etcd.tls_cert_file"


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="auth_file") as refused:
        EtcdClient(EtcdSettings("me:topsecret@127.0.0.1:2379"))
    assert "topsecret" not in str(refused.value)
    assert "topsecret" not in repr(EtcdSettings("a:1", auth="me:topsecret"))


@pytest.mark.parametrize("hosts", ["", "a", "a:1,", "a:1/x", " ", "a:0", "a:99999"])
def test_invalid_hosts_are_refused(hosts: str) -> None:
    with pytest.raises(ConfigError):
        EtcdClient(EtcdSettings(hosts))


@pytest.mark.parametrize("auth", ["me", ":secret", "me:"])
def test_malformed_credentials_are_refused(auth: str) -> None:
    with pytest.raises(ConfigError, match="user:password"):
        EtcdClient(EtcdSettings("127.0.0.1:1", auth=auth))
