"""Detection of the leading master in ZooKeeper (p18), with a fake of kazoo's client.

The fake has nodes and one-shot watches. The last test uses a real ZooKeeper.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "jobcloud.adapters.mesos.driver", reason="the extra [server] with compat/http-parser is not installed"
)

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NoNodeError
from tests.mesos_kit import FakeMaster, Running, until

from jobcloud.adapters.mesos import detector
from jobcloud.adapters.mesos.detector import MasterDetector, parse_zk_uri
from jobcloud.adapters.mesos.link import Address
from jobcloud.errors import ConfigError
from jobcloud.messages import Disconnected, Subscribed


class Answer:
    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def get(self, timeout: float) -> Any:
        assert timeout is not None, "a call to ZooKeeper without a time limit may block for ever"
        return self._act()


class ZooKeeper:
    """Nodes of the servers and watches of all clients. Tests change nodes while a detector reads them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.nodes: dict[str, bytes] = {}
        self.up = True
        self.clients: list[Client] = []
        self.watches: list[tuple[str, Callable[[object], None]]] = []

    def put(self, path: str, data: object = b"") -> None:
        with self.lock:
            self.nodes[path] = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.fire(path)

    def remove(self, path: str) -> None:
        with self.lock:
            del self.nodes[path]
        self.fire(path)

    def fire(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        with self.lock:
            due = [watch for watch in self.watches if watch[0] in (path, parent)]
            self.watches = [watch for watch in self.watches if watch not in due]
        for _, call in due:
            assert call(object()) is None

    def switch(self, up: bool) -> None:
        self.up = up
        for client in self.clients:
            for listener in client.listeners:
                assert listener("CONNECTED" if up else "SUSPENDED") is None


class Client:
    def __init__(self, world: ZooKeeper, **options: Any) -> None:
        self.world, self.options = world, options
        self.listeners: list[Callable[[object], None]] = []
        self.stopped = False
        world.clients.append(self)

    @property
    def connected(self) -> bool:
        return self.world.up

    def add_listener(self, listener: Callable[[object], None]) -> None:
        self.listeners.append(listener)

    def start_async(self) -> threading.Event:
        return threading.Event()

    def stop(self) -> None:
        self.stopped = True

    close = stop

    def get_children_async(self, path: str, watch: Callable[[object], None]) -> Answer:
        def act() -> list[str]:
            with self.world.lock:
                self._check(path)
                self.world.watches.append((path, watch))
                return [one[len(path) + 1 :] for one in self.world.nodes if one.startswith(path + "/")]

        return Answer(act)

    def exists_async(self, path: str, watch: Callable[[object], None]) -> Answer:
        def act() -> None:
            with self.world.lock:
                self.world.watches.append((path, watch))

        return Answer(act)

    def get_async(self, path: str, watch: Callable[[object], None]) -> Answer:
        def act() -> tuple[bytes, object]:
            with self.world.lock:
                self._check(path)
                self.world.watches.append((path, watch))
                return self.world.nodes[path], None

        return Answer(act)

    def _check(self, path: str) -> None:
        if not self.world.up:
            raise ConnectionLoss
        if path not in self.world.nodes:
            raise NoNodeError


@pytest.fixture
def zookeeper(monkeypatch: pytest.MonkeyPatch) -> ZooKeeper:
    world = ZooKeeper()
    monkeypatch.setattr(detector, "KazooClient", lambda **options: Client(world, **options))
    return world


Found = list[Address | None]


@pytest.fixture
def found(zookeeper: ZooKeeper) -> Iterator[Found]:
    """The masters that a detector at /mesos finds, in order."""
    seen: Found = []
    detector = MasterDetector(parse_zk_uri("zk://a:2181/mesos"), "", seen.append, by_name=False)
    detector.start()
    yield seen
    detector.stop()


def info(host: str, port: int = 5050, **more: object) -> dict[str, object]:
    return {"address": {"hostname": f"{host}.example", "ip": host, "port": port, **more}, "version": "1.11.0"}


def test_p18_lowest_sequence_leads_and_changes_are_followed(zookeeper: ZooKeeper, found: Found) -> None:
    zookeeper.put("/mesos")
    zookeeper.put("/mesos/json.info_0000000009", info("9.9.9.9"))
    zookeeper.put("/mesos/json.info_0000000010", info("10.0.0.10"))
    until(lambda: found[-1:] == [Address("9.9.9.9", 5050)])
    zookeeper.remove("/mesos/json.info_0000000009")
    until(lambda: found[-1:] == [Address("10.0.0.10", 5050)])


def test_p18_sequences_are_compared_as_numbers(zookeeper: ZooKeeper, found: Found) -> None:
    zookeeper.put("/mesos")
    zookeeper.put("/mesos/json.info_10000000000", info("1.1.1.1"))
    zookeeper.put("/mesos/json.info_9999999999", info("2.2.2.2"))
    until(lambda: found[-1:] == [Address("2.2.2.2", 5050)])


def test_p18_missing_path_is_waited_for(zookeeper: ZooKeeper, found: Found) -> None:
    until(lambda: found == [None])
    until(lambda: zookeeper.watches)
    zookeeper.put("/mesos")
    zookeeper.put("/mesos/json.info_0000000000", info("1.1.1.1"))
    until(lambda: found == [None, Address("1.1.1.1", 5050)])


def test_p18_foreign_children_are_ignored(zookeeper: ZooKeeper, found: Found) -> None:
    zookeeper.put("/mesos")
    for foreign in ("aaa", "info_0000000000", "json.info_", "json.info_x", "json.info_0000000000x", "log_replicas"):
        zookeeper.put(f"/mesos/{foreign}", b"garbage")
    zookeeper.put("/mesos/json.info_0000000003", info("1.1.1.1"))
    until(lambda: found[-1:] == [Address("1.1.1.1", 5050)])
    zookeeper.remove("/mesos/json.info_0000000003")
    until(lambda: found[-1:] == [None])


def test_p18_zookeeper_may_be_down_at_the_start_and_later(zookeeper: ZooKeeper) -> None:
    zookeeper.up = False
    zookeeper.nodes.update({"/mesos": b"", "/mesos/json.info_0000000000": json.dumps(info("1.1.1.1")).encode()})
    seen: Found = []
    detector = MasterDetector(parse_zk_uri("zk://a:2181/mesos"), "", seen.append, by_name=False)
    detector.start()
    assert seen == []
    zookeeper.switch(up=True)
    until(lambda: seen == [Address("1.1.1.1", 5050)])
    zookeeper.switch(up=False)
    zookeeper.nodes["/mesos/json.info_0000000000"] = json.dumps(info("2.2.2.2")).encode()
    zookeeper.watches.clear()
    zookeeper.switch(up=True)
    until(lambda: seen == [Address("1.1.1.1", 5050), Address("2.2.2.2", 5050)])
    detector.stop()
    detector.stop()
    assert zookeeper.clients[0].stopped


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        b'{"address":5}',
        b'{"address":{"port":1}}',
        b'{"address":{"ip":5,"port":1}}',
        b'{"address":{"ip":"a","port":"5050"}}',
        b'{"address":{"ip":"1.1.1.1","port":0}}',
    ],
)
def test_p18_damaged_node_is_reported_and_read_once_repaired(
    zookeeper: ZooKeeper, found: Found, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    zookeeper.put("/mesos")
    zookeeper.put("/mesos/json.info_0000000000", data)
    until(lambda: "/mesos/json.info_0000000000 in ZooKeeper is not a MasterInfo" in caplog.text)
    zookeeper.put("/mesos/json.info_0000000000", info("1.1.1.1"))
    until(lambda: found[-1:] == [Address("1.1.1.1", 5050)])


def test_p18_change_is_found_despite_a_lost_watch(
    zookeeper: ZooKeeper, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "_RECHECK_S", 0.02)
    zookeeper.put("/mesos")
    zookeeper.put("/mesos/json.info_0000000001", info("1.1.1.1"))
    until(lambda: found[-1:] == [Address("1.1.1.1", 5050)])
    zookeeper.watches.clear()
    zookeeper.nodes["/mesos/json.info_0000000000"] = json.dumps(info("2.2.2.2")).encode()
    until(lambda: found[-1:] == [Address("2.2.2.2", 5050)])


@pytest.mark.parametrize(("by_name", "host"), [(True, "1.1.1.1.example"), (False, "1.1.1.1")])
def test_p18_host_name_is_used_with_tls(zookeeper: ZooKeeper, by_name: bool, host: str) -> None:
    zookeeper.nodes.update({"/m/n": b"", "/m/n/json.info_0000000000": json.dumps(info("1.1.1.1")).encode()})
    seen: Found = []
    detector = MasterDetector(parse_zk_uri("zk://a:1,b:2/m/n/"), "me:secret", seen.append, by_name)
    detector.start()
    until(lambda: seen == [Address(host, 5050)])
    detector.stop()
    assert zookeeper.clients[0].options["hosts"] == "a:1,b:2"
    assert zookeeper.clients[0].options["auth_data"] == [("digest", "me:secret")]


def test_p18_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="contains credentials") as refused:
        parse_zk_uri("zk://me:topsecret@a:2181/mesos")
    assert "topsecret" not in str(refused.value)


def test_p18_driver_follows_the_leader(zookeeper: ZooKeeper) -> None:
    with FakeMaster() as one, FakeMaster() as other, Running("zk://a:2181/mesos") as running:
        zookeeper.put("/mesos")
        zookeeper.put("/mesos/json.info_0000000000", info("127.0.0.1", one.port))
        assert running.wait(Subscribed).master == one.address
        zookeeper.put("/mesos/json.info_0000000001", info("127.0.0.1", other.port))
        zookeeper.remove("/mesos/json.info_0000000000")
        assert running.wait(Subscribed, 2).master == other.address
        assert "leading master" in running.wait(Disconnected).reason
        assert other.stream().call["framework_id"] == {"value": "framework-1"}
        zookeeper.remove("/mesos/json.info_0000000001")
        running.wait(Disconnected, 2)
        zookeeper.put("/mesos/json.info_0000000002", info("127.0.0.1", one.port))
        assert running.wait(Subscribed, 3).master == one.address
    until(lambda: zookeeper.clients[0].stopped)


# ----------------------------------------------------------------------------------------------- on a real ZooKeeper


@pytest.mark.zookeeper
def test_p18_driver_follows_the_leader_on_a_real_zookeeper(tmp_path: Path) -> None:
    from tests import zookeeper_kit

    @contextmanager
    def connected() -> Iterator[KazooClient]:
        client = KazooClient(server.address, timeout=60)
        client.start(60)
        yield client
        client.stop()
        client.close()

    def add(client: KazooClient, master: FakeMaster) -> str:
        # Not ephemeral as those of a master: no session has to survive the restart of the server.
        data = json.dumps(info("127.0.0.1", master.port)).encode()
        created: str = client.create("/mesos/json.info_", data, sequence=True, makepath=True)
        return created

    with (
        zookeeper_kit.running(tmp_path) as (server,),
        FakeMaster() as one,
        FakeMaster() as other,
        Running(f"zk://{server.address}/mesos") as running,
    ):
        with connected() as client:
            first = add(client, one)
            assert running.wait(Subscribed).master == one.address
            second = add(client, other)
            client.create("/mesos/log_replicas", b"")
            client.delete(first)
            assert running.wait(Subscribed, 2).master == other.address
        # While ZooKeeper is out of reach, the last master stays. Later changes are followed again.
        server.kill()
        server.start()
        server.wait()
        assert other.stream().call["framework_id"] == {"value": "framework-1"}
        assert len(running.receiver.all(Subscribed)) == 2
        with connected() as client:
            client.delete(second)
            add(client, one)
            assert running.wait(Subscribed, 3).master == one.address
