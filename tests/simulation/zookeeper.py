"""A ZooKeeper in memory, below the real store, session and election, and below kazoo's client.

`SimServer` is the data tree with its sessions. It handles kazoo's requests as a server does, and is compared with a
real one (`test_zookeeper_simulated.py`). It has no ACLs and no watches. `SimSession` is the view of a scheduler's
process: requests may get lost or arrive late, answers may get lost, connections break, and sessions expire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kazoo import exceptions as zk
from kazoo.client import KazooClient, KazooState
from kazoo.protocol import serialization as ask
from kazoo.protocol.states import ZnodeStat

from jobcloud.adapters import journal
from jobcloud.adapters.zookeeper import store
from jobcloud.adapters.zookeeper.election import ZooKeeperElection
from jobcloud.adapters.zookeeper.session import ZooKeeperSession, ZooKeeperSettings
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.errors import StoreError
from jobcloud.ports import StoredRecords

from .elected import SESSION_MS, ElectedStore, SimClock, Writing
from .extremes import RECORD_BYTES, Limits

if TYPE_CHECKING:
    from .schedulers import Process
    from .world import World

_EPHEMERAL, _SEQUENCE = 1, 2
_WRITES = (ask.Create, ask.Delete, ask.SetData, ask.Transaction)
_NAMESPACE = "sim"
# Small, so that batches of a few records are split, and old segments are cleaned within a history.
SMALL: Limits = (
    (store, {"_REQUEST_BYTES": 4_000, "_PIECE_BYTES": 700, "_REQUEST_OPERATIONS": 12}),
    (journal, {"_SPARE_BYTES": 6_000, "_MAX_SEGMENTS": 25, "_DELETED_AT_ONCE": 20}),
)
# Extreme histories have larger records.
SMALL_EXTREME: Limits = (
    (store, {"_REQUEST_BYTES": 40_000, "_PIECE_BYTES": 7_000, "_REQUEST_OPERATIONS": 12,
             "_MAX_NODE_BYTES": RECORD_BYTES, "_MAX_JOURNALED_BYTES": RECORD_BYTES}),
    SMALL[1],
)  # fmt: skip


@dataclass(slots=True)
class _Node:
    data: bytes
    owner: int = 0
    version: int = 0
    created: int = 0  # children ever created
    children: set[str] = field(default_factory=set)

    def restore(self, data: bytes, version: int) -> None:
        self.data, self.version = data, version

    def stat(self) -> ZnodeStat:
        changes = 2 * self.created - len(self.children)
        return ZnodeStat(0, 0, 0, 0, self.version, changes, 0, self.owner, len(self.data), len(self.children), 0)


class SimServer:
    """The tree. Transactions are atomic. Ephemeral nodes end with their session."""

    def __init__(self) -> None:
        self.nodes: dict[str, _Node] = {"/": _Node(b"")}
        self._sessions: set[int] = set()
        self._last_session = 0

    def open(self) -> int:
        self._last_session += 1
        self._sessions.add(self._last_session)
        return self._last_session

    def alive(self, session: int) -> bool:
        return session in self._sessions

    def end(self, session: int) -> None:
        """Close or expire a session. Its further requests are refused."""
        self._sessions.discard(session)
        for path in [path for path, node in self.nodes.items() if node.owner == session]:
            self._delete(path, -1, [])

    def handle(self, session: int, request: Any) -> Any:
        """The server's answer as kazoo returns it. Raises kazoo's errors."""
        if session not in self._sessions:
            raise zk.SessionExpiredError
        match request:
            case ask.Transaction():
                return self._transaction(session, request.operations)
            case ask.GetData():
                node = self._node(request.path)
                return node.data, node.stat()
            case ask.Exists():
                found = self.nodes.get(request.path)
                return None if found is None else found.stat()
            case ask.GetChildren():
                return list(self._node(request.path).children)
            case ask.Sync():
                return request.path
            case _:
                return self._change(session, request, [])

    def _transaction(self, session: int, operations: Sequence[Any]) -> list[Any]:
        undo: list[Callable[[], Any]] = []
        results: list[Any] = []
        for number, operation in enumerate(operations):
            try:
                results.append(self._change(session, operation, undo))
            except zk.ZookeeperError as error:
                for step in reversed(undo):
                    step()
                after = len(operations) - number - 1
                return [zk.RolledBackError() for _ in range(number)] + [error] + [zk.RuntimeInconsistency()] * after
        return results

    def _change(self, session: int, request: Any, undo: list[Callable[[], Any]]) -> Any:
        match request:
            case ask.Create():
                return self._create(session, request, undo)
            case ask.Delete():
                return self._delete(request.path, request.version, undo)
            case ask.SetData():
                node = self._versioned(request.path, request.version)
                undo.append(partial(node.restore, node.data, node.version))
                node.data, node.version = request.data, node.version + 1
                return node.stat()
            case ask.CheckVersion():
                self._versioned(request.path, request.version)
                return True
        raise AssertionError(f"no such request: {request!r}")

    def _create(self, session: int, request: Any, undo: list[Callable[[], Any]]) -> str:
        parent = self._node(_parent(request.path))
        path: str = request.path + (f"{parent.created:010d}" if request.flags & _SEQUENCE else "")
        if path in self.nodes:
            raise zk.NodeExistsError
        if parent.owner:
            raise zk.NoChildrenForEphemeralsError
        self.nodes[path] = _Node(request.data, session if request.flags & _EPHEMERAL else 0)
        parent.children.add(_name(path))
        parent.created += 1
        undo.append(lambda: self._forget(path, created=1))
        return path

    def _delete(self, path: str, version: int, undo: list[Callable[[], Any]]) -> bool:
        node = self._versioned(path, version)
        if node.children:
            raise zk.NotEmptyError
        self._forget(path)
        undo.append(lambda: self._put_back(path, node))
        return True

    def _forget(self, path: str, created: int = 0) -> None:
        del self.nodes[path]
        parent = self.nodes[_parent(path)]
        parent.children.discard(_name(path))
        parent.created -= created

    def _put_back(self, path: str, node: _Node) -> None:
        self.nodes[path] = node
        self.nodes[_parent(path)].children.add(_name(path))

    def _node(self, path: str) -> _Node:
        if (found := self.nodes.get(path)) is None:
            raise zk.NoNodeError
        return found

    def _versioned(self, path: str, version: int) -> _Node:
        node = self._node(path)
        if version not in (-1, node.version):
            raise zk.BadVersionError
        return node


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


class SimClient(KazooClient):  # type: ignore[misc]
    """kazoo's client, whose requests go to `carry` instead of a socket."""

    def __init__(self, carry: Callable[[Any], Any]) -> None:
        super().__init__()
        self._carry = carry

    def _call(self, request: Any, async_object: Any) -> None:
        try:
            async_object.set(self._carry(request))
        except zk.KazooException as error:
            async_object.set_exception(error)


class _Connected:
    """Replaces the event that a session waits for."""

    def __init__(self, session: SimSession) -> None:
        self._session = session
        self._is_set = True

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            self._session.wait_connected(timeout)
        return self._is_set


class SimSession(SimClock, ZooKeeperSession):
    """The real session on a connection that breaks on request. It starts again if the server has ended it."""

    def __init__(self, world: World, process: Process | None = None) -> None:
        self.root = f"/{_NAMESPACE}"
        self.hosts = "zookeeper"
        self._settings = ZooKeeperSettings(self.hosts, _NAMESPACE, open_tree=True)
        self._acl = []
        self._timeout_s = SESSION_MS / 1_000
        self._lost = 0
        self._closed = False
        self._callbacks = []
        self._prepared = set()
        self._world, self._process = world, process
        self._server = world.zookeeper
        self._connected: Any = _Connected(self)
        self._client: Any = SimClient(self._carry)
        self._id = self._server.open()
        self._heard = world.now
        self._cut_until = 0
        if process is not None:
            self._beat()

    # ---- the connection --------------------------------------------------------------------------------------

    def wait_connected(self, seconds: float) -> None:
        self.pause(max(0.001, min(seconds, (self._cut_until - self._world.now) / 1_000)))
        self._reconnect()

    def cut(self, ms: int) -> None:
        """Cut the connection for a while."""
        if not self._closed:
            self._cut_until = max(self._cut_until, self._world.now + ms)
            if self._connected.is_set():
                self._changed(KazooState.SUSPENDED)
            self._world.later(ms, self._reconnect)

    def mend(self) -> None:
        self._cut_until = 0
        self._reconnect()

    def _reconnect(self) -> None:
        if self._closed or self._connected.is_set() or self._world.now < self._cut_until or self._still:
            return
        if not self._server.alive(self._id):
            self._world.note(f"{self._process and self._process.name} has lost its session")
            self._changed(KazooState.LOST)
            self._id = self._server.open()
        self._heard = self._world.now
        self._changed(KazooState.CONNECTED)

    @property
    def _still(self) -> bool:
        """True if the process is dead or paused."""
        return self._process is not None and (self._process.dead or self._process.stopped)

    def _beat(self) -> None:
        """Ping as a living client does. The server ends the session after a silence."""
        now = self._world.now
        if self._closed or (self._process is not None and self._process.dead and not self._server.alive(self._id)):
            return
        if not self._still:
            if now >= self._cut_until and self._server.alive(self._id):
                self._heard = now
            elif now >= self._cut_until and self._connected.is_set():
                # The process was paused for too long, and learns it now.
                self._changed(KazooState.SUSPENDED)
            self._reconnect()
        if now - self._heard >= SESSION_MS and self._server.alive(self._id):
            self._world.note(f"the session of {self._process and self._process.name} expires")
            self._server.end(self._id)
        self._world.later(SESSION_MS // 4, self._beat)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._connected.clear()
            self._server.end(self._id)

    # ---- requests --------------------------------------------------------------------------------------------

    def _carry(self, request: Any) -> Any:
        """Carry a request to the server and the answer back."""
        if self._process is None:
            return self._server.handle(self._id, request)
        world, stage, writing = self._world, _stage(request), self._process.store.writing
        self._point(f"before {stage}")
        if not self._connected.is_set() or world.now < self._cut_until or not self._server.alive(self._id):
            self.cut(50)
            raise zk.ConnectionLoss
        late = stage and world.take("request_late")
        if late or (stage and world.take("request_lost")):
            wait = world.dice.randint(200, 6_000)
            if late:
                world.later(world.dice.randint(1, wait), self._arrive_late, request, self._id, writing)
            self.cut(wait)
            raise zk.ConnectionLoss
        result = self._arrive(request, self._id, writing)
        if stage and world.take("answer_lost"):
            self.cut(world.dice.randint(10, 6_000))
            raise zk.ConnectionLoss
        self._point(f"after {stage}")
        return result

    def _arrive_late(self, request: Any, session: int, writing: Writing | None) -> None:
        if self._server.alive(session):
            self._world.note("a request arrives late")
            self._arrive(request, session, writing)

    def _arrive(self, request: Any, session: int, writing: Writing | None) -> Any:
        result = self._server.handle(session, request)
        if session == self._id:
            self._heard = self._world.now
        if isinstance(request, ask.Transaction) and not any(isinstance(one, Exception) for one in result):
            stage = _stage(request)
            if stage == "epoch":
                version = next(one for one in result if isinstance(one, ZnodeStat)).version
                self._world.server.epoch = version + store._base_of(self._server.nodes[f"{self.root}/epoch"].data)
            elif stage == "segment" and self._process is not None:
                self._process.store.durable(writing)
        return result


def _stage(request: Any) -> str:
    """The step of the store or the election to which a request belongs, or ""."""
    if isinstance(request, ask.Create):
        return "candidate" if request.flags & _EPHEMERAL else ""
    if not isinstance(request, ask.Transaction):
        return ""
    for operation in request.operations:
        name = _name(operation.path)
        if isinstance(operation, ask.SetData) and name == "epoch":
            return "epoch"
        if isinstance(operation, ask.Create) and "/state/journal/" in operation.path:
            return "part" if "-" in name else "segment"
        if name == "unfold":
            return "unfold"
    return ""


class SimZooKeeperStore(ElectedStore):
    _out_of_reach = (StoreError, zk.KazooException)

    def __init__(self, world: World, process: Process) -> None:
        self.session = session = SimSession(world, process)
        election = ZooKeeperElection(session, process.name, monotonic=session.monotonic)
        real = ZooKeeperStore(session, name=process.name, candidate=lambda: election.node)
        super().__init__(world, process, real, election)

    def _beat(self) -> bool:
        return not self.session.connected or bool(self.election._check_own_node())


def read_as_it_is(world: World) -> StoredRecords:
    """The state as the real reader loads it over a connection without faults."""
    store = ZooKeeperStore(SimSession(world))
    stored = store.load()
    store.close()
    return stored
