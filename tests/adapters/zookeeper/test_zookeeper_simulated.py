"""The simulated ZooKeeper against a real one: the same random requests to both, and every answer compared."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from kazoo import exceptions as zk
from kazoo.client import KazooClient
from kazoo.protocol.states import ZnodeStat
from tests.simulation.zookeeper import SimClient, SimServer

pytestmark = pytest.mark.zookeeper

REQUESTS = 1_500
CLIENTS = 3
NAMES = ("a", "b", "c")


class RealSide:
    """Clients of a real server, below a node of their own."""

    def __init__(self, hosts: str) -> None:
        self.hosts, self.root = hosts, f"/same-{uuid.uuid4().hex}"
        self.clients = [KazooClient(hosts, timeout=10) for _ in range(CLIENTS)]
        for client in self.clients:
            client.start(10)
        self.clients[0].create(self.root)

    def expire(self, number: int) -> None:
        """End a session as a server does: whoever takes it over and closes it ends it for its owner."""
        client = self.clients[number]
        lost, taken = client.client_id, KazooClient(self.hosts, client_id=client.client_id)
        taken.start(10)
        taken.stop()
        taken.close()
        deadline = time.monotonic() + 20
        while client.client_id in (lost, None) or not client.connected:
            assert time.monotonic() < deadline, "no new session"
            time.sleep(0.01)

    def close(self) -> None:
        for client in self.clients:
            client.stop()
            client.close()


class SimulatedSide:
    def __init__(self) -> None:
        self.server, self.root = SimServer(), "/same"
        self.sessions = [self.server.open() for _ in range(CLIENTS)]
        self.clients = [
            SimClient(lambda request, number=number: self.server.handle(self.sessions[number], request))  # type: ignore[misc]
            for number in range(CLIENTS)
        ]
        self.clients[0].create(self.root)

    def expire(self, number: int) -> None:
        self.server.end(self.sessions[number])
        self.sessions[number] = self.server.open()


@pytest.fixture
def real(zookeeper_hosts: str) -> Iterator[RealSide]:
    made = RealSide(zookeeper_hosts)
    yield made
    made.close()


def plain(value: Any, root: str) -> Any:
    """An answer without what differs between two servers: times, transaction ids, session ids, where the tree lies."""
    match value:
        case ZnodeStat():
            owned = value.ephemeralOwner != 0
            return "stat", value.version, value.cversion, owned, value.dataLength, value.numChildren
        case Exception():
            return type(value).__name__
        case list() if all(isinstance(each, str) and "/" not in each for each in value):
            return sorted(value)
        case list() | tuple():
            return [plain(each, root) for each in value]
        case str():
            return value.replace(root, "")
    return value


class Dice:
    """One random request after the other, made for either side."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"zookeeper requests {seed}")

    def path(self) -> str:
        depth = self._dice.choice((1, 1, 2, 2, 3))
        return "".join(f"/{self._dice.choice(NAMES)}" for _ in range(depth))

    def version(self) -> int:
        return self._dice.choice((-1, -1, -1, 0, 1, 2))

    def data(self) -> bytes:
        return self._dice.randbytes(self._dice.choice((0, 1, 10)))

    def change(self) -> tuple[Any, ...]:
        kind = self._dice.choice(("create", "create", "set_data", "delete", "check"))
        if kind == "create":
            ephemeral, sequence = self._dice.random() < 0.3, self._dice.random() < 0.3
            return kind, self.path(), self.data(), ephemeral, sequence
        if kind == "set_data":
            return kind, self.path(), self.data(), self.version()
        return kind, self.path(), self.version()

    def request(self) -> tuple[Any, ...]:
        kind = self._dice.choices(("change", "multi", "read", "expire"), (50, 25, 24, 1))[0]
        if kind == "change":
            change = self.change()
            return change if change[0] != "check" else ("multi", (change,))
        if kind == "multi":
            return "multi", tuple(self.change() for _ in range(self._dice.randint(0, 4)))
        if kind == "read":
            return self._dice.choice(("get", "exists", "get_children", "sync")), self.path()
        return ("expire",)

    def client(self) -> int:
        return self._dice.randrange(CLIENTS)


def carry_out(client: Any, root: str, request: tuple[Any, ...]) -> Any:
    kind, *rest = request
    try:
        match kind:
            case "multi":
                transaction = client.transaction()
                for name, path, *more in rest[0]:
                    _add(transaction, name, root + path, more)
                return transaction.commit_async().get(timeout=10)
            case "create":
                path, data, ephemeral, sequence = rest
                return client.create_async(root + path, data, None, ephemeral, sequence).get(timeout=10)
            case "set_data":
                path, data, version = rest
                return client.set_async(root + path, data, version).get(timeout=10)
            case "delete":
                return client.delete_async(root + rest[0], rest[1]).get(timeout=10)
            case _:
                return getattr(client, f"{kind}_async")(root + rest[0]).get(timeout=10)
    except zk.ZookeeperError as error:
        return error


def _add(transaction: Any, name: str, path: str, more: list[Any]) -> None:
    if name == "create":
        data, ephemeral, sequence = more
        transaction.create(path, data, None, ephemeral, sequence)
    else:
        getattr(transaction, name)(path, *more)


def tree_of(client: Any, root: str, path: str = "") -> dict[str, Any]:
    """Every node with its data and stat."""
    found = {path: plain(client.get_async(root + path).get(timeout=10), root)}
    for name in sorted(client.get_children_async(root + path).get(timeout=10)):
        found |= tree_of(client, root, f"{path}/{name}")
    return found


def test_both_answer_the_same_to_the_same_requests(real: RealSide, seed: int) -> None:
    simulated, dice = SimulatedSide(), Dice(seed)
    seen: Counter[str] = Counter()
    for number in range(REQUESTS):
        request, client = dice.request(), dice.client()
        if request[0] == "expire":
            real.expire(client)
            simulated.expire(client)
            seen["expired"] += 1
        else:
            # Another client may be connected to a server that lags behind; the answers are compared, not the delays.
            answers = [carry_out(side.clients[client], side.root, request) for side in (real, simulated)]
            first, second = (plain(answer, side.root) for answer, side in zip(answers, (real, simulated), strict=True))
            assert first == second, f"request {number} of seed {seed}: {request}"
            seen.update([str(first)] if isinstance(first, str) and first.endswith("Error") else ["done"])
            parts = first if isinstance(first, list) else []
            seen.update(str(part) for part in parts if str(part).endswith(("Error", "Inconsistency")))
        if number % 100 == 99:
            assert tree_of(real.clients[0], real.root) == tree_of(simulated.clients[0], simulated.root)
    wanted = {
        "done",
        "expired",
        "NoNodeError",
        "NodeExistsError",
        "BadVersionError",
        "NotEmptyError",
        "NoChildrenForEphemeralsError",
        "RolledBackError",
        "RuntimeInconsistency",
    }
    assert wanted <= seen.keys(), f"never seen: {wanted - seen.keys()}"


def test_a_session_that_was_ended_gets_nothing_done() -> None:
    simulated = SimulatedSide()
    simulated.clients[1].create("/same/own", b"", None, True)
    simulated.server.end(simulated.sessions[1])
    with pytest.raises(zk.SessionExpiredError):
        simulated.clients[1].get_async("/same").get(timeout=1)
    assert simulated.clients[0].exists("/same/own") is None
