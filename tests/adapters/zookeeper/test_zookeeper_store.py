"""The ZooKeeper store: split batches, lost answers, damage, cleaning, and access control."""

from __future__ import annotations

import gc
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl
from tests import zookeeper_kit

from jobcloud.adapters import journal
from jobcloud.adapters.zookeeper.session import NoAnswer, ZooKeeperSession, ZooKeeperSettings
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.dev.tcp_ports import free_port
from jobcloud.errors import ConfigError, Fenced, RecordTooLarge, StoreError, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import StoredRecords, StoredWrite, TlsFiles

pytestmark = pytest.mark.zookeeper


class Crash(BaseException):
    """The process ends at this point."""


class Tree:
    """One namespace, with stores and a client for the view of an operator."""

    def __init__(self, hosts: str) -> None:
        self.hosts = hosts
        self.namespace = f"test/{uuid.uuid4().hex}"
        self.client = KazooClient(hosts, timeout=60)
        self.client.start(60)
        self._stores: list[ZooKeeperStore] = []

    def open(self, **options: Any) -> ZooKeeperStore:
        session = ZooKeeperSession(ZooKeeperSettings(self.hosts, self.namespace, **options))
        self._stores.append(ZooKeeperStore(session))
        return self._stores[-1]

    def lead(self) -> tuple[ZooKeeperStore, int]:
        store = self.open()
        return store, store.acquire()

    def load(self) -> StoredRecords:
        return self.open().load()

    def path(self, name: str) -> str:
        return f"/{self.namespace}/{name}"

    def journal(self) -> list[str]:
        return sorted(self.client.get_children(self.path("state/journal")))

    def segments(self) -> list[str]:
        return [name for name in self.journal() if "-" not in name]

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.client.stop()
        self.client.close()


@pytest.fixture
def tree(zookeeper_hosts: str) -> Iterator[Tree]:
    made = Tree(zookeeper_hosts)
    yield made
    made.close()


def noise(number: int, size: int) -> bytes:
    """Incompressible bytes, the same for the same number."""
    return random.Random(number).randbytes(size)


def put(kind: Kind, key: str, value: bytes = b"{}") -> StoredWrite:
    return StoredWrite(kind, key, value)


LARGE = [put(Kind.TASK, f"t{number}", noise(number, 1_000)) for number in range(1_000)]
MANY_JOBS = [put(Kind.JOB, f"job-{number}", b"x" * 700) for number in range(500)]


def count(records: StoredRecords) -> int:
    return sum(map(len, records.records.values()))


def test_layout_is_as_documented(tree: Tree) -> None:
    store, epoch = tree.lead()
    kinds = (Kind.APP, Kind.JOB, Kind.DISABLED_APP, Kind.FRAMEWORK, Kind.TASK)
    store.write(epoch, [put(kind, "a/b", kind.encode()) for kind in kinds])
    for path, kind in {
        "config/app": Kind.APP,
        "config/job": Kind.JOB,
        "state/disable/app": Kind.DISABLED_APP,
        "ha/framework": Kind.FRAMEWORK,
    }.items():
        assert tree.client.get(tree.path(f"{path}/a%2Fb"))[0] == kind.encode()
    assert tree.journal() == ["0000000000000001", "0000000000000001-marks"]
    assert tree.client.exists(tree.path("epoch")).version == epoch


# --------------------------------------------------------------------------------------------------- batches in parts


def crash_after(store: ZooKeeperStore, requests: int) -> Callable[[], bool]:
    """End the process before its request number `requests` + 1. The result tells whether that has happened."""
    transact = store._transact
    done: list[bool] = []
    crashed: list[bool] = []

    def counted(*arguments: Any, **named: Any) -> None:
        if len(done) == requests:
            crashed.append(True)
            raise Crash
        done.append(True)
        transact(*arguments, **named)

    store._transact = counted  # type: ignore[method-assign]
    return lambda: bool(crashed)


@pytest.mark.parametrize("batch", [LARGE, MANY_JOBS, [*LARGE, *MANY_JOBS]], ids=["tasks", "jobs", "both"])
def test_crash_between_the_parts_of_a_batch_leaves_all_of_it_or_none(tree: Tree, batch: list[StoredWrite]) -> None:
    wanted = {(write.kind, write.key): write.value for write in [*batch, put(Kind.TASK, "old")]}
    requests = seen_none = seen_all = 0
    crashed = True
    while crashed:
        store, epoch = tree.lead()
        store.write(epoch, [*(StoredWrite(write.kind, write.key, None) for write in batch), put(Kind.TASK, "old")])
        assert count(tree.load()) == 1
        happened = crash_after(store, requests)
        try:
            store.write(epoch, batch)
        except Crash:
            assert happened()
        crashed = happened()
        found = tree.load()
        assert found.faults == []
        assert count(found) in (1, 1 + len(batch))
        seen_none += count(found) == 1
        seen_all += count(found) > 1
        if count(found) > 1:
            flat = {(kind, key): value for kind, entries in found.records.items() for key, value in entries.items()}
            assert flat == wanted
        # The next leader completes the batch or deletes its parts, and loses nothing.
        heir, epoch = tree.lead()
        heir.write(epoch, [put(Kind.JOB, "job-0", b"newer"), put(Kind.TASK, "t0", b"newer")])
        found = tree.load()
        assert (found.records[Kind.JOB]["job-0"], found.records[Kind.TASK]["t0"]) == (b"newer", b"newer")
        heir.write(epoch, [StoredWrite(Kind.JOB, "job-0", None), StoredWrite(Kind.TASK, "t0", None)])
        assert not tree.client.exists(tree.path("state/unfold"))
        requests += 1
    assert requests > 3
    assert seen_none >= 1
    assert seen_all >= 1


def test_leftover_parts_of_a_crash_are_deleted(tree: Tree) -> None:
    store, epoch = tree.lead()
    crash_after(store, 3)
    with pytest.raises(Crash):
        store.write(epoch, LARGE)
    assert len(tree.journal()) == 3
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.TASK, "t")])
    assert tree.segments() == tree.journal()[:1]
    assert len(tree.journal()) == 2


def test_leader_superseded_between_the_parts_of_a_batch_stores_nothing(tree: Tree) -> None:
    store, epoch = tree.lead()
    transact = store._transact
    done: list[object] = []

    def overtaken(*arguments: Any, **named: Any) -> None:
        if len(done) == 3:
            tree.lead()
        done.append(None)
        transact(*arguments, **named)

    store._transact = overtaken  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        store.write(epoch, LARGE)
    assert count(tree.load()) == 0


def test_requests_stay_far_below_the_limit_of_the_server(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    store, epoch = tree.lead()
    sizes: list[tuple[int, int]] = []
    build = store._transaction

    def measured(client: KazooClient, epoch: int, operations: Any, version: int) -> Any:
        sizes.append((sum(len(each[1]) + len(each[2] or b"") for each in operations), len(operations)))
        return build(client, epoch, operations, version)

    monkeypatch.setattr(store, "_transaction", measured)
    huge = [put(Kind.JOB, f"huge-{number}", noise(number, 390_000)) for number in range(3)]
    store.write(epoch, [*LARGE, *MANY_JOBS, *huge, put(Kind.FIRING, "f", noise(1, 3_000_000))])
    assert max(size for size, _ in sizes) < 500 * 1024
    assert max(operations for _, operations in sizes) < 500
    assert count(tree.load()) == len(LARGE) + len(MANY_JOBS) + 4


@pytest.mark.parametrize(("kind", "size"), [(Kind.JOB, 400_001), (Kind.APP, 2_000_000), (Kind.TASK, 17 << 20)])
def test_record_over_the_limit_is_refused_and_the_store_continues(tree: Tree, kind: Kind, size: int) -> None:
    store, epoch = tree.lead()
    with pytest.raises(RecordTooLarge, match=f"'big' takes {size} bytes") as caught:
        store.write(epoch, [put(Kind.TASK, "t"), put(kind, "big", bytes(size)), put(kind, "huge", bytes(size))])
    assert set(caught.value.problems) == {(kind, "big"), (kind, "huge")}
    assert count(tree.load()) == 0
    store.write(epoch, [put(Kind.TASK, "t")])
    assert count(tree.load()) == 1


# ------------------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("arrives", [True, False], ids=["done", "not-done"])
@pytest.mark.parametrize("batch", [LARGE[:5], MANY_JOBS[:3], []], ids=["tasks", "jobs", "nothing"])
def test_lost_answer_is_resolved_by_reading(tree: Tree, batch: list[StoredWrite], arrives: bool) -> None:
    store, epoch = tree.lead()
    store.load()
    ask = store._session.ask
    lost: list[bool] = []

    def losing(request: Any, limit_s: float | None = None) -> Any:
        if lost:
            return ask(request, limit_s)
        lost.append(True)
        if arrives:
            ask(request, limit_s)
        raise NoAnswer("lost")

    store._session.ask = losing  # type: ignore[method-assign]
    store.write(epoch, batch)
    assert count(tree.load()) == len(batch)
    store.write(epoch, [put(Kind.TASK, "next")])
    assert count(tree.load()) == len(batch) + 1


def test_epoch_raised_without_an_answer_is_ours(tree: Tree) -> None:
    tree.lead()
    store = tree.open()
    store.load()
    ask, asked = store._session.ask, []

    def losing(request: Any, limit_s: float | None = None) -> Any:
        answer = ask(request, limit_s)
        asked.append(True)
        if len(asked) == 2:
            raise NoAnswer("lost")
        return answer

    store._session.ask = losing  # type: ignore[method-assign]
    assert store.acquire() == 2
    store.write(2, [put(Kind.TASK, "t")])


def test_raised_epoch_whose_answer_was_lost_belongs_to_this_leader(tree: Tree) -> None:
    tree.lead()
    store = tree.open()
    ask, asked = store._session.ask, []

    def losing(request: Any, limit_s: float | None = None) -> Any:
        answer = ask(request, limit_s)
        asked.append(request)
        if len(asked) == 2:
            raise NoAnswer("lost")
        return answer

    store.load()
    store._session.ask = losing  # type: ignore[method-assign]
    assert store.acquire(70_000) == 70_000
    store.write(70_000, [put(Kind.TASK, "t")])
    assert tree.open().epoch() == 70_000


def test_leader_hears_the_time_of_the_servers(tree: Tree) -> None:
    heard: list[int] = []
    session = zookeeper_kit.connect(tree.hosts, tree.namespace)
    store = ZooKeeperStore(session, heard=heard.append)
    store.acquire()
    _, stat = tree.client.get(tree.path("epoch"))
    store.close()
    assert heard == [stat.mtime]


def test_tree_that_was_copied_back_gets_an_epoch_above_the_floor(tree: Tree) -> None:
    """A client cannot set the version of a node, so a copy starts again with version 0."""
    store, _ = tree.lead()
    used = store.acquire(70_000)
    data, _ = tree.client.get(tree.path("epoch"))
    tree.client.delete(tree.path("epoch"))
    tree.client.create(tree.path("epoch"), data)
    assert tree.open().acquire(used + 1) == used + 1


def test_base_survives_leaders_and_an_older_build_that_dropped_it_is_superseded(tree: Tree) -> None:
    old, new = tree.open(), tree.open()
    assert [old.acquire(70_000), old.acquire(), new.acquire()] == [70_000, 70_001, 70_002]
    tree.client.set(tree.path("epoch"), b'{"leader": "http://old-build", "token": "x"}')
    with pytest.raises(Fenced):
        new.write(70_002, [])
    assert new.acquire(70_003) == 70_003
    new.write(70_003, [put(Kind.TASK, "t")])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"base": -4}', b'{"base": "9"}', b'{"base": 1e99}', b"\xff"])
def test_odd_data_of_the_epoch_node_counts_as_no_base(tree: Tree, data: bytes) -> None:
    tree.lead()
    tree.client.set(tree.path("epoch"), data)
    assert tree.open().acquire() == 3


def test_snapshot_is_of_one_instant_while_a_leader_writes(tree: Tree) -> None:
    """Each batch writes a job and a task with the same number. A mixture of two batches would show."""
    leader, epoch = tree.lead()
    leader.load()
    reader = tree.open()
    enough = threading.Event()

    def lead() -> None:
        for number in range(10_000):
            if enough.is_set():
                return
            value = b"%d" % number
            leader.write(epoch, [put(Kind.JOB, "j", value), put(Kind.TASK, "t", value), put(Kind.APP, "a", value)])
            enough.wait(0.2)

    writing = threading.Thread(target=lead)
    writing.start()
    try:
        for _ in range(20):
            found = reader.snapshot().records
            values = {found[kind].get(key) for kind, key in ((Kind.JOB, "j"), (Kind.TASK, "t"), (Kind.APP, "a"))}
            assert len(values) == 1
    finally:
        enough.set()
        writing.join(60)


def test_late_request_changes_nothing(tree: Tree) -> None:
    """The request seemed lost; the leader has checked, continued, and written something else."""
    store, epoch = tree.lead()
    store.load()
    late: list[Any] = []
    build = store._transaction
    store._transaction = lambda *arguments: late.append(arguments) or build(*arguments)  # type: ignore[method-assign,func-returns-value]
    store.write(epoch, [put(Kind.TASK, "t", b"old"), put(Kind.JOB, "j", b"old")])
    store._transaction = build  # type: ignore[method-assign]
    store.write(epoch, [put(Kind.TASK, "t", b"new"), put(Kind.JOB, "j", b"new")])
    results = build(*late[0]).get(timeout=60)
    assert any(isinstance(result, Exception) for result in results)
    found = tree.load().records
    assert (found[Kind.TASK], found[Kind.JOB]) == ({"t": b"new"}, {"j": b"new"})


def test_every_call_has_a_time_limit(tmp_path: Path) -> None:
    with zookeeper_kit.running(tmp_path) as (server,):
        session = zookeeper_kit.connect(server.address, "a", 60.0)
        store = ZooKeeperStore(session)
        epoch = store.acquire()
        session._timeout_s = 1.0
        server.pause()
        try:
            for use in (store.acquire, store.load, lambda: store.write(epoch, [put(Kind.TASK, "t")])):
                with pytest.raises(StoreError):
                    use()
        finally:
            server.resume()
            store.close()


def test_unreachable_servers_raise_no_answer() -> None:
    port = free_port()
    store = ZooKeeperStore(zookeeper_kit.connect(f"127.0.0.1:{port}", "a", 0.5))
    with pytest.raises(NoAnswer, match="out of reach"):
        store.acquire()
    store.close()


# ------------------------------------------------------------------------------------------------------------- damage


def test_unknown_nodes_are_reported_by_path_and_left_unchanged(tree: Tree) -> None:
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.JOB, "j")])
    strange = ["stranger", "config/queue", "state/ready", "ha/x", "state/journal/readme", "config/job/a b!"]
    for name in strange:
        tree.client.create(tree.path(name), b"?")
    found = tree.load()
    assert {fault.path for fault in found.faults} == {tree.path(name) for name in strange}
    assert found.records[Kind.JOB] == {"j": b"{}"}
    store.write(epoch, [put(Kind.JOB, "k")])
    assert all(tree.client.exists(tree.path(name)) for name in strange)


@pytest.mark.parametrize("damage", ["garbage", "emptied", "deleted", "newer"])
def test_damaged_segment_is_reported_and_older_versions_of_its_records_stay_lost(tree: Tree, damage: str) -> None:
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.TASK, "kept"), put(Kind.TASK, "changed", b"1"), put(Kind.TASK, "gone")])
    store.write(epoch, [put(Kind.TASK, "changed", b"2"), StoredWrite(Kind.TASK, "gone", None), put(Kind.TASK, "lost")])
    store.write(epoch, [put(Kind.TASK, "after")])
    path = tree.path(f"state/journal/{tree.segments()[1]}")
    if damage == "deleted":
        tree.client.delete(path)
    else:
        data = {"garbage": b"\xff" * 50, "emptied": b"", "newer": b"2 x 0\nwhat"}[damage]
        tree.client.set(path, data)
    heir, epoch = tree.lead()
    found = heir.load()
    assert [fault.path for fault in found.faults] == [path]
    assert set(found.records[Kind.TASK]) == {"kept", "after"}
    heir.write(epoch, [put(Kind.TASK, "changed", b"3")])
    found = tree.load()
    assert [fault.path for fault in found.faults] == [path]
    assert found.records[Kind.TASK]["changed"] == b"3"
    if damage != "deleted":
        assert tree.client.get(path)[0] == data


def test_store_tells_which_records_a_damaged_segment_may_have_contained(tree: Tree) -> None:
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.FIRING, "f")])
    assert tree.load().lost is None
    store.write(epoch, [put(Kind.SHARD, "f/1"), put(Kind.TASK, "t")])
    tree.client.set(tree.path(f"state/journal/{tree.segments()[1]}"), b"?")
    found = tree.load()
    assert found.lost is not None
    assert [key for key in ("f/0", "f/1", "f/2") if found.lost(Kind.SHARD, key)] == ["f/1"]
    assert not found.lost(Kind.TASK, "f/1")


def test_segment_damaged_together_with_its_marks_is_refused_and_left_unchanged(tree: Tree) -> None:
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.TASK, "t")])
    name = tree.segments()[0]
    for each in (name, f"{name}-marks"):
        tree.client.set(tree.path(f"state/journal/{each}"), b"?")
    with pytest.raises(StoreUnusable, match=name):
        tree.load()
    assert tree.client.get(tree.path(f"state/journal/{name}"))[0] == b"?"


def test_record_of_a_newer_kind_is_kept(tree: Tree) -> None:
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.TASK, "t")])
    entries = journal.encode([("future", "f", b"{}")])
    tree.client.create(tree.path(f"state/journal/{2:016d}"), b"1 abc 0\n" + entries)
    heir, epoch = tree.lead()
    assert [fault.path.rpartition(" ")[2] for fault in heir.load().faults] == ["future/f"]
    for number in range(20):
        heir.write(epoch, [put(Kind.TASK, "t", noise(number, 300_000))])
    assert f"{1:016d}" not in tree.segments()
    assert len(tree.load().faults) == 1


def test_node_deleted_by_another_client_fails_the_write_and_a_new_load_works(tree: Tree) -> None:
    store, epoch = tree.lead()
    store.write(epoch, [put(Kind.JOB, "j", b"1")])
    tree.client.delete(tree.path("config/job/j"))
    with pytest.raises(StoreError, match="config/job/j"):
        store.write(epoch, [put(Kind.JOB, "j", b"2"), put(Kind.TASK, "t")])
    assert count(tree.load()) == 0
    store.load()
    store.write(epoch, [put(Kind.JOB, "j", b"2")])
    assert tree.load().records[Kind.JOB] == {"j": b"2"}


# --------------------------------------------------------------------------------------------------------------- cost


def test_burst_of_4000_tasks_needs_less_than_a_tenth_of_a_request_each(tree: Tree) -> None:
    store, epoch = tree.lead()
    tasks = [put(Kind.TASK, f"job-{number}@-@{uuid.UUID(int=number)}", noise(number, 400)) for number in range(4_000)]
    before = store.requests
    for start in range(0, 4_000, 1_000):
        store.write(epoch, tasks[start : start + 1_000])
    # Updates arrive a few dozen at a time.
    for change in (False, True):
        for start in range(0, 4_000, 40):
            share = tasks[start : start + 40]
            store.write(epoch, [StoredWrite(w.kind, w.key, None if change else w.value) for w in share])
    assert store.requests - before <= 400
    assert tree.load().records[Kind.TASK] == {}


def test_journal_stays_small_and_cleaning_loses_nothing(tree: Tree) -> None:
    store, epoch = tree.lead()
    lasting = [put(Kind.TASK, f"lasting-{number}", noise(number, 100)) for number in range(100)]
    store.write(epoch, lasting)
    for number in range(100):
        store.write(
            epoch, [put(Kind.FIRING, "f", noise(number, 50_000)), put(Kind.TASK, f"t{number % 7}", b"%d" % number)]
        )
        if number % 10 == 0:
            store.write(epoch, [StoredWrite(Kind.TASK, f"t{number % 7}", None)])
    nodes = [tree.client.exists(tree.path(f"state/journal/{name}")).dataLength for name in tree.journal()]
    assert sum(nodes) < 3_000_000
    found = tree.load().records
    assert {key: value for key, value in found[Kind.TASK].items() if key.startswith("lasting")} == {
        write.key: write.value for write in lasting
    }
    assert found[Kind.FIRING] == {"f": noise(99, 50_000)}


# ------------------------------------------------------------------------------------------------------- access control


def test_tree_with_credentials_is_closed_to_others(tree: Tree) -> None:
    store = tree.open(auth="me:secret")
    epoch = store.acquire()
    store.write(epoch, [*LARGE, put(Kind.APP, "a"), put(Kind.JOB, "j")])

    def acls(path: str) -> Iterator[Any]:
        yield tree_client.get_acls(path)[0]
        for child in tree_client.get_children(path):
            yield from acls(f"{path}/{child}")

    tree_client = KazooClient(tree.hosts, auth_data=[("digest", "me:secret")])
    tree_client.start(60)
    wanted = [make_digest_acl("me", "secret", all=True)]
    assert all(acl == wanted for acl in acls(f"/{tree.namespace}"))
    tree_client.stop()
    tree_client.close()
    for auth in ("", "me:wrong"):
        with pytest.raises(StoreUnusable, match=r"denies access|credentials"):
            tree.open(auth=auth).load()


def test_tree_that_everyone_can_change_is_refused_unless_configured(tree: Tree) -> None:
    tree.lead()
    with pytest.raises(StoreUnusable, match="everybody who reaches the server"):
        tree.open(auth="me:secret").acquire()
    assert tree.open(auth="me:secret", open_tree=True).acquire() == 2


# kazoo does not close sockets whose handshake failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_tls_checks_both_sides(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    files = {"server": authority.issue_cert("127.0.0.1"), "client": authority.issue_cert("client@example.org")}
    for name, certificate in files.items():
        # Java only reads keys in PKCS #8.
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (tmp_path / f"{name}.pem").write_bytes(pem + chain)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    port = free_port()
    lines = (
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"secureClientPort={port}",
        "secureClientPortAddress=127.0.0.1",
        "ssl.keyStore.type=PEM",
        "ssl.trustStore.type=PEM",
        f"ssl.keyStore.location={tmp_path / 'server.pem'}",
        f"ssl.trustStore.location={tmp_path / 'ca.pem'}",
        "ssl.clientAuth=need",
    )

    def attempt(hosts: str, files: dict[str, str], limit_s: float = 5.0) -> int:
        tls = TlsFiles(**{name: str(tmp_path / file) for name, file in files.items()})
        store = ZooKeeperStore(ZooKeeperSession(ZooKeeperSettings(hosts, session_timeout_s=limit_s, tls=tls)))
        try:
            return store.acquire()
        finally:
            store.close()

    mine = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.pem"}
    with zookeeper_kit.running(tmp_path / "zookeeper", more=lines):
        assert attempt(f"127.0.0.1:{port}", mine, 60.0) == 1
        for wrong in ({**mine, "ca_file": "stranger.pem"}, {"ca_file": "ca.pem"}):
            with pytest.raises(NoAnswer):
                attempt(f"127.0.0.1:{port}", wrong)
        with pytest.raises(NoAnswer):
            attempt(f"localhost:{port}", mine)
    gc.collect()


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="auth_file") as refused:
        ZooKeeperSession(ZooKeeperSettings("me:topsecret@127.0.0.1:2181"))
    assert "topsecret" not in str(refused.value)
    assert "topsecret" not in repr(ZooKeeperSettings("a:1", auth="me:topsecret"))


@pytest.mark.parametrize("hosts", ["", "a:1,", "a:1/chroot", " "])
def test_invalid_hosts_are_refused(hosts: str) -> None:
    with pytest.raises(ConfigError):
        ZooKeeperSession(ZooKeeperSettings(hosts))


@pytest.mark.parametrize("auth", ["me", ":secret", "me:"])
def test_malformed_credentials_are_refused(auth: str) -> None:
    with pytest.raises(ConfigError, match="user:password"):
        ZooKeeperSession(ZooKeeperSettings("127.0.0.1:1", auth=auth))
