"""State in ZooKeeper, for a group of schedulers of which one leads.

Nodes below the namespace (names are percent-encoded keys):

    epoch                 the leader's epoch: the version of this node plus the `base` in its data
    config/app/NAME       an app (docs/state.md)
    config/job/NAME       a job
    state/disable/app/NAME  the mark of a disabled app
    state/journal/…       records that change often (`journal`)
    state/unfold          the number of a segment whose apps and jobs are being copied to their nodes
    ha/framework/id       the framework id
    ha/election/…         the candidates, of which the oldest leads (`election`)

A batch is one transaction that checks the version of the epoch node, so a superseded leader writes nothing. The
transaction creates the next segment of the journal. Only one transaction can use the number of this segment. So if the
transaction gets no answer, it is sent again: if both requests arrive, the later one fails. A request of another kind
that gets no answer fails the write, unless it only checks the epoch.

A batch too large for one request is split into parts. Each part is a node of its own. The last request is the
transaction that creates the segment. Parts without a segment have no meaning, so a crash between the requests leaves
all of the batch or none of it. Such parts are deleted later.

If the apps and jobs of a batch do not fit into the transaction, they are *folded*: stored in the segment. The same
transaction creates state/unfold. Then they are *unfolded*: copied to their nodes. While state/unfold exists, a reader
takes the apps and jobs from the segment.

Sources: https://zookeeper.apache.org/doc/r3.8.0/zookeeperProgrammers.html (multi, versions, jute.maxbuffer).
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from kazoo import exceptions as zk
from kazoo.client import KazooClient

from jobcloud.adapters.journal import Files, Image, Place, Segment, Source, Spread, check_sizes, put
from jobcloud.adapters.zookeeper.session import NoAnswer, Request, ZooKeeperSession, failed
from jobcloud.errors import Fenced, StoreError, StoreUnusable
from jobcloud.messages import KIND_NAMES, Kind
from jobcloud.ports import StoredFault, StoredRecords, StoredWrite

_log = logging.getLogger("jobcloud.zookeeper")

# Kinds that have a node for each record. Records of other kinds are in the journal.
_FOLDERS = {
    Kind.APP: "config/app",
    Kind.JOB: "config/job",
    Kind.DISABLED_APP: "state/disable/app",
    Kind.FRAMEWORK: "ha/framework",
}
_ELECTION = "ha/election"
_JOURNAL = "state/journal"
_UNFOLD = "state/unfold"
_EPOCH = "epoch"
_PARENTS = {
    "": {_EPOCH, "config", "state", "ha"},
    "config": {"app", "job"},
    "state": {"disable", "journal", "unfold"},
    "state/disable": {"app"},
    "ha": {"framework", "election"},
}
# A server accepts requests of 1 MiB (jute.maxbuffer). Half of that leaves enough room for the framing.
_REQUEST_BYTES = 500_000
_PIECE_BYTES = 200_000
_REQUEST_OPERATIONS = 400
_MAX_NODE_BYTES = 400_000
_MAX_JOURNALED_BYTES = 16 << 20
_MAX_READS = 5
_MAX_SNAPSHOTS = 100
_SNAPSHOT_PAUSE_S = 0.05
_MAX_BASE = 2**31
_ADVICE = (
    "restore the state from a backup; or delete the segment and its list, if it is there: then the records that the "
    "segment changed go back to older versions"
)

Operation: TypeAlias = tuple[str, str, bytes | None]
"""("create", "set" or "delete"), the path, the data."""


@dataclass(slots=True)
class _Unfold:
    """Writes of a segment that must be copied to nodes.

    `version`: the version of the node state/unfold. Each step raises this version.
    """

    number: int
    version: int
    writes: dict[Place, bytes | None]


@dataclass(slots=True)
class _Image(Image):
    nodes: set[Place] = field(default_factory=set)
    unfold: _Unfold | None = None


class ZooKeeperStore:
    """A `Store` in the namespace of `session`. It owns `session`. Only one thread at a time may use it.

    `name` is stored with the epoch, for users. `candidate` returns the path of our election node. The epoch is raised
    only while that node exists, so a process that was suspended cannot supersede its successor. `heard` is called with
    the servers' time (ms) when the epoch is raised. `requests` counts the requests that raised the epoch or were part
    of a write.
    """

    def __init__(
        self,
        session: ZooKeeperSession,
        *,
        name: str = "",
        candidate: Callable[[], str] = str,
        heard: Callable[[int], object] = bool,
    ) -> None:
        self._session = session
        self._name = name
        self._candidate = candidate
        self._heard = heard
        self._image: _Image | None = None
        self._closed = False
        # The epoch is the version of its node plus this number. The version alone is not enough: ZooKeeper raises it by
        # one, so it cannot jump above the floor of `acquire`. It is 0 again if a client has re-created the tree.
        self._base = 0
        self.requests = 0

    def acquire(self, floor: int = 0) -> int:
        with self._translated():
            self._open()
            return self._raise_epoch(floor)

    def epoch(self) -> int:
        with self._translated():
            self._open()
            found, stat = self._session.ask(lambda client: client.get_async(self._session.path(_EPOCH)))
            return int(stat.version) + _base_of(found)

    def _raise_epoch(self, floor: int) -> int:
        token = uuid.uuid4().hex
        path, deadline = self._session.path(_EPOCH), self._session.monotonic() + self._session.timeout_s
        self._image = None
        while True:
            try:
                found, stat = self._session.ask(lambda client: client.get_async(path))
                base = _base_of(found)
                if token.encode() in found:
                    self._base = base
                    self._heard(stat.mtime)
                    return int(stat.version) + base
                # The write raises the version by one. So the epoch is above the stored one, and at least `floor`.
                base = max(base, floor - stat.version - 1)
                data = json.dumps({"leader": self._name, "token": token, **({"base": base} if base else {})}).encode()
                self._set_epoch(data, stat.version)
                self.requests += 1
            except (zk.BadVersionError, NoAnswer) as error:
                # Another process was faster, or our request may have taken effect. Read the node again.
                if self._session.monotonic() > deadline:
                    raise StoreError(f"the epoch could not be raised: {error}") from error

    def _set_epoch(self, data: bytes, version: int) -> None:
        """Raises BadVersionError, NoAnswer, or Fenced if our election node is gone."""
        candidate = self._candidate()

        def request(client: KazooClient) -> Any:
            transaction = client.transaction()
            transaction.set_data(self._session.path(_EPOCH), data, version)
            if candidate:
                transaction.check(candidate, -1)
            return transaction.commit_async()

        problem = failed(self._session.ask(request))
        if problem is not None and problem[0] == 1:
            raise Fenced(f"{candidate} in ZooKeeper is gone: another scheduler may lead")
        if problem is not None:
            raise problem[1]

    def load(self) -> StoredRecords:
        with self._translated():
            self._open()
            self._image, stored = self._read()
            return stored

    def snapshot(self) -> StoredRecords:
        # A segment never changes, so the journal is read as of the instant at which its segments were listed. If the
        # nodes of apps and jobs are the same before and after the read, all records are of one instant.
        with self._translated():
            self._open()
            for _ in range(_MAX_SNAPSHOTS):
                before = self._nodes()
                with suppress(zk.NoNodeError):
                    stored = self._read_once()[1]
                    if self._nodes() == before:
                        return stored
                self._session.pause(_SNAPSHOT_PAUSE_S)
        raise StoreError(f"{self._session.root} in ZooKeeper changes too fast to be read; try again")

    def _nodes(self) -> dict[str, int]:
        """Path → the last transaction that changed this node, for all nodes of records and all nodes in `state`."""
        folders = (*_FOLDERS.values(), "state")
        paths = [self._session.path(folder, name) for folder in folders for name in self._children(folder)]
        found = self._session.ask_many(_checking(path) for path in paths)
        return {path: stat.mzxid for path, stat in zip(paths, found, strict=True) if stat is not None}

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        with self._translated():
            self._open()
            if epoch - self._base < 1:
                # To ZooKeeper, -1 means any version.
                raise Fenced(f"epoch {epoch} was never acquired, or was superseded")
            self._write(epoch, {(KIND_NAMES[write.kind], write.key): write.value for write in batch})

    def _write(self, epoch: int, last: Mapping[Place, bytes | None]) -> None:
        check_sizes(last, _max_bytes, "ZooKeeper")
        # Until this write has succeeded, the image may differ from the stored state.
        image, self._image = self._image, None
        if last:
            image = image or self._read()[0]
            self._unfold(epoch, image)
            if not self._append(epoch, image, last):
                return
        else:
            self._transact(epoch, [])
        self._image = image

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError as error:
            raise StoreError(f"ZooKeeper cannot hold this record: {error}") from error
        except zk.KazooException as error:
            raise StoreError(f"{self._session.root} in ZooKeeper cannot be used: {error!r}") from error

    def close(self) -> None:
        self._closed = True
        self._session.close()

    def _open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
        folders = (*_FOLDERS.values(), _JOURNAL, _ELECTION, _EPOCH)
        self._session.prepare(self._session.path(folder) for folder in folders)

    # ---------------------------------------------------------------------------------------------------- writing

    def _append(self, epoch: int, image: _Image, last: Mapping[Place, bytes | None]) -> bool:
        """Store the batch as one segment. A few apps and jobs are written to their nodes, many are folded.

        Returns False if `image` is out of date afterwards.
        """
        journaled = {place: value for place, value in last.items() if place[0] not in _FOLDERS}
        placed = {place: value for place, value in last.items() if place[0] in _FOLDERS}
        plan = image.journal.plan(journaled)
        operations = self._node_operations(image, placed)
        folded = _weight(operations) > _REQUEST_BYTES - 2 * _PIECE_BYTES or len(operations) > _REQUEST_OPERATIONS // 4
        entries = [*plan.entries, *((*place, value) for place, value in placed.items())] if folded else plan.entries
        number = image.journal.last + 1
        spread = Spread(number, entries, _PIECE_BYTES)
        for name, data in spread.parts:
            self._transact(epoch, [("create", self._journal(name), data)])
        leftovers = image.leftovers[:100]
        ending: list[Operation] = [("create", self._journal(name), data) for name, data in spread.ends]
        ending.extend(("delete", self._journal(name), None) for segment in plan.cleaned for name in segment.nodes)
        ending.extend(("delete", self._journal(name), None) for name in leftovers)
        ending.extend([("create", self._session.path(_UNFOLD), str(number).encode())] if folded else operations)
        self._transact(epoch, ending, witness=(self._journal(spread.name), spread.token))
        image.journal.append(Segment(number, spread.names, spread.blob, spread.size), plan.entries)
        image.journal.drop(plan.cleaned)
        image.leftovers = image.leftovers[len(leftovers) :]
        if not folded:
            _track_nodes(image.nodes, placed)
            return True
        image.unfold = _Unfold(number, 0, placed)
        try:
            self._unfold(epoch, image)
        except StoreError as error:
            # The batch is durable. The next write, or the next leader, completes the copy.
            _log.warning("apps and jobs stay in the journal until the next write: %s", error)
            return False
        return True

    def _unfold(self, epoch: int, image: _Image) -> None:
        """Copy the apps and jobs of a large batch to their nodes. Idempotent."""
        unfold = image.unfold
        if unfold is None:
            return
        mark_path = self._session.path(_UNFOLD)
        for portion in _portions(unfold.writes):
            steps = [("set", mark_path, str(unfold.number).encode()), *self._node_operations(image, portion)]
            self._transact(epoch, steps, version=unfold.version)
            unfold.version += 1
            _track_nodes(image.nodes, portion)
        self._transact(epoch, [("delete", mark_path, None)], version=unfold.version)
        image.unfold = None

    def _node_operations(self, image: _Image, writes: Mapping[Place, bytes | None]) -> list[Operation]:
        operations: list[Operation] = []
        for place, value in writes.items():
            path = self._session.path(_FOLDERS[Kind(place[0])], _name_of(place[1]))
            exists = place in image.nodes
            if value is not None:
                operations.append(("set" if exists else "create", path, value))
            elif exists:
                operations.append(("delete", path, None))
        return operations

    def _journal(self, name: str) -> str:
        return self._session.path(_JOURNAL, name)

    def _transact(
        self,
        epoch: int,
        operations: Sequence[Operation],
        *,
        witness: tuple[str, bytes] | None = None,
        version: int = -1,
    ) -> None:
        """If `epoch` is current, perform all `operations` in one transaction. Otherwise perform none, and raise Fenced.

        `version`: the version that the node of the first operation must have; -1 for any. `witness` is (path, prefix):
        once the transaction has taken effect, the data of the node at this path starts with the prefix. With a witness,
        a request that got no answer is sent again.
        """
        deadline = self._session.monotonic() + self._session.timeout_s
        while True:
            try:
                results = self._session.ask(lambda client: self._transaction(client, epoch, operations, version))
            except NoAnswer:
                if witness is not None and self._took_effect(witness, deadline):
                    break
                if self._session.monotonic() > deadline or (operations and witness is None):
                    raise
                continue
            if (problem := failed(results)) is None:
                break
            if isinstance(problem[1], zk.NodeExistsError) and witness and self._took_effect(witness, deadline):
                # An earlier request of ours has taken effect late.
                break
            self._explain(epoch, operations, *problem)
        self.requests += 1

    def _transaction(self, client: KazooClient, epoch: int, operations: Sequence[Operation], version: int) -> Any:
        transaction = client.transaction()
        transaction.check(self._session.path(_EPOCH), epoch - self._base)
        for number, (verb, path, data) in enumerate(operations):
            expected = version if number == 0 else -1
            match verb:
                case "create":
                    transaction.create(path, data)
                case "set":
                    transaction.set_data(path, data, expected)
                case _:
                    transaction.delete(path, expected)
        return transaction.commit_async()

    def _explain(self, epoch: int, operations: Sequence[Operation], number: int, error: Exception) -> None:
        if number == 0 and isinstance(error, zk.BadVersionError):
            raise Fenced(f"epoch {epoch} was superseded: another scheduler leads below {self._session.root}")
        if number == 0:
            raise StoreUnusable(f"{self._session.path(_EPOCH)} in ZooKeeper cannot be checked ({error!r})")
        raise StoreError(f"{operations[number - 1][1]} in ZooKeeper was changed by another client ({error!r})")

    def _took_effect(self, witness: tuple[str, bytes], deadline: float) -> bool:
        """Whether a transaction without an answer has taken effect. Raises NoAnswer."""
        path, token = witness
        while True:
            try:
                self._session.ask(lambda client: client.sync_async(path))
                found, _ = self._session.ask(lambda client: client.get_async(path))
                return bool(found.startswith(token))
            except zk.NoNodeError:
                return False
            except NoAnswer:
                if self._session.monotonic() > deadline:
                    raise
                self._session.pause(0.05)

    # ---------------------------------------------------------------------------------------------------- reading

    def _read(self) -> tuple[_Image, StoredRecords]:
        """Read everything below the namespace. If a node vanishes during the read, the read is repeated."""
        for _ in range(_MAX_READS):
            try:
                self._session.ask(lambda client: client.sync_async(self._session.root))
                return self._read_once()
            except zk.NoNodeError:
                continue
        raise StoreError(f"{self._session.root} in ZooKeeper keeps changing: another scheduler leads there")

    def _read_once(self) -> tuple[_Image, StoredRecords]:
        image, stored = _Image(), StoredRecords()
        self._report_unknown(stored)
        for kind, folder in _FOLDERS.items():
            names = self._children(folder)
            self._report_misnamed(folder, names, stored)
            keys = [_key_of(name) for name in names if _is_name(name)]
            values = self._values(self._session.path(folder, _name_of(key)) for key in keys)
            stored.records[kind].update(zip(keys, values, strict=True))
            image.nodes.update((kind.value, key) for key in keys)
        unfold = self._unfold_mark()
        self._read_journal(image, stored, unfold)
        return image, stored

    def _read_journal(self, image: _Image, stored: StoredRecords, unfold: tuple[int, int] | None) -> None:
        files = Files(self._children(_JOURNAL))
        names = [*files.segments, *files.parts]
        data = dict(zip(names, self._values(map(self._journal, names)), strict=True))
        apart = image.read(files, Source("ZooKeeper", self._journal, data, self._marks, _ADVICE), stored, _FOLDERS)
        if unfold is not None and unfold[0] in image.journal.segments:
            placed = apart.get(unfold[0], {})
            image.unfold = _Unfold(*unfold, placed)
            for place, value in placed.items():
                put(stored, place, value)

    def _marks(self, name: str) -> bytes | None:
        try:
            found: tuple[bytes, Any] = self._session.ask(lambda client: client.get_async(self._journal(name)))
        except zk.NoNodeError:
            return None
        return found[0]

    def _unfold_mark(self) -> tuple[int, int] | None:
        try:
            data, stat = self._session.ask(lambda client: client.get_async(self._session.path(_UNFOLD)))
        except zk.NoNodeError:
            return None
        if not data.isdigit():
            raise StoreUnusable(f"{self._session.path(_UNFOLD)} in ZooKeeper is damaged; it was left unchanged")
        return int(data), stat.version

    def _report_unknown(self, stored: StoredRecords) -> None:
        for folder, known in _PARENTS.items():
            strange = sorted(set(self._children(folder)) - known)
            faults = (
                StoredFault(self._session.path(*filter(None, (folder, name))), "is of an unknown kind")
                for name in strange
            )
            stored.faults.extend(faults)

    def _report_misnamed(self, folder: str, names: Iterable[str], stored: StoredRecords) -> None:
        wrong = (name for name in names if not _is_name(name))
        stored.faults.extend(
            StoredFault(self._session.path(folder, name), "has a name in another encoding") for name in wrong
        )

    def _children(self, folder: str) -> list[str]:
        path = self._session.path(folder) if folder else self._session.root
        found: list[str] = self._session.ask(lambda client: client.get_children_async(path))
        return sorted(found)

    def _values(self, paths: Iterable[str]) -> Iterator[bytes]:
        for data, _ in self._session.ask_many(_reading(path) for path in paths):
            yield data


def _base_of(data: bytes) -> int:
    """The base in the data of the epoch node; 0 if there is none. Builds before 0.2 wrote none."""
    try:
        base = json.loads(data)["base"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return base if type(base) is int and 0 <= base <= _MAX_BASE else 0


def _portions(writes: Mapping[Place, bytes | None]) -> Iterator[dict[Place, bytes | None]]:
    """Split `writes` into portions that fit into one request each."""
    portion: dict[Place, bytes | None] = {}
    weight = 0
    for place, value in writes.items():
        added = 200 + 4 * len(place[1]) + len(value or b"")
        if portion and (weight + added > _REQUEST_BYTES or len(portion) >= _REQUEST_OPERATIONS // 2):
            yield portion
            portion, weight = {}, 0
        portion[place] = value
        weight += added
    if portion:
        yield portion


def _weight(operations: Iterable[Operation]) -> int:
    return sum(200 + len(each[1]) + len(each[2] or b"") for each in operations)


def _max_bytes(kind: str) -> int:
    return _MAX_NODE_BYTES if kind in _FOLDERS else _MAX_JOURNALED_BYTES


def _track_nodes(nodes: set[Place], writes: Mapping[Place, bytes | None]) -> None:
    for place, value in writes.items():
        if value is None:
            nodes.discard(place)
        else:
            nodes.add(place)


def _reading(path: str) -> Request:
    return lambda client: client.get_async(path)


def _checking(path: str) -> Request:
    return lambda client: client.exists_async(path)


def _name_of(key: str) -> str:
    """The node name of a key. ZooKeeper allows no "/", ".", "..", control characters or empty names."""
    name = quote(key, safe=" @:+,=")
    return {"": "%", ".": "%2E", "..": "%2E%2E"}.get(name, name)


def _key_of(name: str) -> str:
    return "" if name == "%" else unquote(name)


def _is_name(name: str) -> bool:
    return _name_of(_key_of(name)) == name
