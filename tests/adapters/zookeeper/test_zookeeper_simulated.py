"""The simulated ZooKeeper against a real one: both get the same random requests, and every answer is compared."""

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

# At least so many requests, and more until each answer of `WANTED` has been seen: some are rare.
REQUESTS, MOST_REQUESTS = 1_500, 30_000
WANTED = {
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
CLIENTS = 3
NAMES = ("a", "b", "c")


class RealSide:
    """Clients of a real server, below their own node."""

    def __init__(self, hosts: str) -> None:
        self.hosts, self.root = hosts, f"/same-{uuid.uuid4().hex}"
        self.clients = [KazooClient(hosts, timeout=60) for _ in range(CLIENTS)]
        for client in self.clients:
            client.start(60)
        self.clients[0].create(self.root)

    def expire(self, number: int) -> None:
        """Expire a session: another connection takes it over and closes it."""
        client = self.clients[number]
        lost, taken = client.client_id, KazooClient(self.hosts, client_id=client.client_id)
        taken.start(60)
        taken.stop()
        taken.close()
        deadline = time.monotonic() + 60
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
    """An answer without differences between servers: times, transaction ids, session ids, the root of the tree."""
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
    """Random requests for both sides."""

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


def test_simulated_and_real_server_give_the_same_answers(real: RealSide, seed: int) -> None:
    simulated, dice = SimulatedSide(), Dice(seed)
    seen: Counter[str] = Counter()
    for number in range(MOST_REQUESTS):
        if number >= REQUESTS and seen.keys() >= WANTED:
            break
        request, client = dice.request(), dice.client()
        if request[0] == "expire":
            real.expire(client)
            simulated.expire(client)
            seen["expired"] += 1
        else:
            # The answers are compared, not the delays between servers.
            answers = [carry_out(side.clients[client], side.root, request) for side in (real, simulated)]
            first, second = (
                plain(answer, root) for answer, root in zip(answers, (real.root, simulated.root), strict=True)
            )
            assert first == second, f"request {number} of seed {seed}: {request}"
            seen.update([str(first)] if isinstance(first, str) and first.endswith("Error") else ["done"])
            parts = first if isinstance(first, list) else []
            seen.update(str(part) for part in parts if str(part).endswith(("Error", "Inconsistency")))
        if number % 100 == 99:
            assert tree_of(real.clients[0], real.root) == tree_of(simulated.clients[0], simulated.root)
    assert seen.keys() >= WANTED, f"never seen: {WANTED - seen.keys()}"


def test_requests_of_an_ended_session_have_no_effect() -> None:
    simulated = SimulatedSide()
    simulated.clients[1].create("/same/own", b"", None, True)
    simulated.server.end(simulated.sessions[1])
    with pytest.raises(zk.SessionExpiredError):
        simulated.clients[1].get_async("/same").get(timeout=1)
    assert simulated.clients[0].exists("/same/own") is None
