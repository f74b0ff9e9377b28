"""An etcd in memory, below the real store, client and election.

`SimEtcd` carries out requests of the JSON gateway as etcd does, and is compared with a real one
(`test_etcd_simulated.py`). It has one linearizable history, and no authentication, quota or compaction. `SimEtcdClient`
is the view of a scheduler's process: requests may get lost or arrive late, answers may get lost, and leases expire.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from jobcloud.adapters import journal
from jobcloud.adapters.etcd import store
from jobcloud.adapters.etcd.client import EtcdClient, NoAnswer, Rejected
from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.ports import StoredRecords

from .elected import SESSION_MS, ElectedStore, SimClock, Writing
from .extremes import RECORD_BYTES, Limits

if TYPE_CHECKING:
    from .schedulers import Process
    from .world import World

MAX_OPERATIONS = 128
_HISTORY = 200  # revisions that can be read
_SUCCESS, _FAILURE = "success", "failure"


@dataclass(frozen=True, slots=True)
class _Key:
    value: bytes
    created: int
    changed: int
    version: int
    lease: int = 0

    def answer(self, key: bytes) -> dict[str, Any]:
        found = {
            "key": key,
            "value": self.value,
            "create_revision": self.created,
            "mod_revision": self.changed,
            "version": self.version,
            "lease": self.lease,
        }
        # The gateway leaves out zeros and empty values.
        return {name: value for name, value in found.items() if value not in (0, b"")}


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    ends_ms: int


class Refused(Exception):
    """The answer is an error: its code of gRPC and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = f"etcdserver: {text}"


class SimEtcd:
    """The keys and leases. `now` is the clock of the servers in ms."""

    def __init__(self, now: Callable[[], int] = int, shortest_ttl_s: int = 2) -> None:
        self.keys: dict[bytes, _Key] = {}
        self.revision = 1
        self.leases: dict[int, _Lease] = {}
        self._past: dict[int, dict[bytes, _Key]] = {1: {}}
        self._now = now
        self._shortest_ttl_s = shortest_ttl_s

    def handle(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of the gateway, with bytes and numbers instead of text. Raises Refused."""
        self._expire()
        match path.removeprefix("/v3/"):
            case "kv/range":
                return {**self._range(self.keys, request), "header": self._header()}
            case "kv/txn":
                return self._transaction(request)
            case "lease/grant":
                return self._grant(int(request["ID"]), int(request["TTL"]))
            case "lease/keepalive":
                return {"result": {"header": self._header(), **self._keep_alive(int(request["ID"]))}}
            case "lease/revoke":
                return self._revoke(int(request["ID"]))
        raise AssertionError(f"no such request: {path}")

    def _header(self) -> dict[str, int]:
        return {"revision": self.revision}

    # ---- keys ------------------------------------------------------------------------------------------------

    def _range(self, keys: dict[bytes, _Key], request: dict[str, Any]) -> dict[str, Any]:
        if revision := int(request.get("revision", 0)):
            if revision > self.revision:
                raise Refused(11, "mvcc: required revision is a future revision")
            keys = self._past[revision]
        found = [key for key in sorted(keys) if _within(key, request)]
        limit = int(request.get("limit", 0))
        shown = found[:limit] if limit else found
        answer: dict[str, Any] = {"kvs": [keys[key].answer(key) for key in shown]} if shown else {}
        if found:
            answer["count"] = len(found)
        if len(shown) < len(found):
            answer["more"] = True
        return answer

    def _transaction(self, request: dict[str, Any]) -> dict[str, Any]:
        for branch in ("compare", _SUCCESS, _FAILURE):
            if len(request.get(branch, ())) > MAX_OPERATIONS:
                raise Refused(3, "too many operations in txn request")
        for branch in (_SUCCESS, _FAILURE):
            _check_keys(request.get(branch, ()))
        # All comparisons come first. Then the branch is checked, and only then carried out.
        holds = all(self._compares(each) for each in request.get("compare", ()))
        branch = request.get(_SUCCESS if holds else _FAILURE, ())
        for each in branch:
            lease = int(each.get("request_put", {}).get("lease", 0))
            if lease and lease not in self.leases:
                raise Refused(5, "requested lease not found")
        keys, revision = dict(self.keys), self.revision + 1
        responses = [self._apply(keys, each, revision) for each in branch]
        if any(keys.get(key) != self.keys.get(key) for key in {*keys, *self.keys}):
            self._commit(keys)
        answer = {"header": self._header(), "succeeded": holds, "responses": responses}
        return {name: value for name, value in answer.items() if value or name == "header"}

    def _apply(self, keys: dict[bytes, _Key], operation: dict[str, Any], revision: int) -> dict[str, Any]:
        ((kind, request),) = operation.items()
        match kind:
            case "request_put":
                before = keys.get(request["key"])
                created, version = (before.created, before.version + 1) if before else (revision, 1)
                keys[request["key"]] = _Key(request["value"], created, revision, version, int(request.get("lease", 0)))
                return {"response_put": {}}
            case "request_delete_range":
                gone = [key for key in keys if _within(key, request)]
                for key in gone:
                    del keys[key]
                return {"response_delete_range": {"deleted": len(gone)} if gone else {}}
            case _:
                return {"response_range": self._range(keys, request)}

    def _compares(self, compare: dict[str, Any]) -> bool:
        found = self.keys.get(compare["key"])
        if compare["target"] == "VALUE":
            # False for a missing key, whatever the result should be.
            return found is not None and _related(found.value, compare["result"], compare["value"])
        names = {"CREATE": "created", "MOD": "changed", "VERSION": "version"}
        fields = {"CREATE": "create_revision", "MOD": "mod_revision", "VERSION": "version"}
        own = getattr(found, names[compare["target"]]) if found else 0
        return _related(own, compare["result"], int(compare[fields[compare["target"]]]))

    def _commit(self, keys: dict[bytes, _Key]) -> None:
        self.revision += 1
        self.keys = keys
        self._past[self.revision] = keys
        self._past.pop(self.revision - _HISTORY, None)

    # ---- leases ----------------------------------------------------------------------------------------------

    def _grant(self, number: int, ttl_s: int) -> dict[str, Any]:
        if number in self.leases:
            raise Refused(9, "lease already exists")
        ttl_s = max(ttl_s, self._shortest_ttl_s)
        self.leases[number] = _Lease(ttl_s, self._now() + ttl_s * 1_000)
        return {"header": self._header(), "ID": number, "TTL": ttl_s}

    def _keep_alive(self, number: int) -> dict[str, Any]:
        lease = self.leases.get(number)
        if lease is None:
            return {"ID": number}
        lease.ends_ms = self._now() + lease.ttl_s * 1_000
        return {"ID": number, "TTL": lease.ttl_s}

    def _revoke(self, number: int) -> dict[str, Any]:
        if number not in self.leases:
            raise Refused(5, "requested lease not found")
        self.end(number)
        return {"header": self._header()}

    def end(self, number: int) -> None:
        """End a lease, and delete its keys."""
        del self.leases[number]
        left = {key: found for key, found in self.keys.items() if found.lease != number}
        if len(left) < len(self.keys):
            self._commit(left)

    def renew_all(self) -> None:
        """The leading member changes: all leases get their whole TTL again."""
        for lease in self.leases.values():
            lease.ends_ms = self._now() + lease.ttl_s * 1_000

    def _expire(self) -> None:
        for number in [number for number, lease in self.leases.items() if lease.ends_ms <= self._now()]:
            self.end(number)


def _within(key: bytes, request: dict[str, Any]) -> bool:
    end = request.get("range_end", b"")
    return bool(request["key"] <= key < end) if end else bool(key == request["key"])


def _related(own: Any, result: str, other: Any) -> bool:
    match result:
        case "EQUAL":
            return bool(own == other)
        case "NOT_EQUAL":
            return bool(own != other)
        case "GREATER":
            return bool(own > other)
        case _:
            return bool(own < other)


def _check_keys(operations: Sequence[dict[str, Any]]) -> None:
    """A key may be put once in a branch, and not also be deleted there."""
    puts = [each["request_put"]["key"] for each in operations if "request_put" in each]
    deletions = [each["request_delete_range"] for each in operations if "request_delete_range" in each]
    if len(set(puts)) < len(puts) or any(_within(key, deletion) for key in puts for deletion in deletions):
        raise Refused(3, "duplicate key given in txn request")


_PREFIX = "sim"
# Small, so that batches of a few records are split, and old segments are cleaned within a history.
SMALL: Limits = (
    (store, {"_PIECE_BYTES": 700, "_MAX_LEFTOVERS": 3, "_FIRST_KEYS": 2, "_MAX_KEYS": 40}),
    (journal, {"_SPARE_BYTES": 6_000, "_MAX_SEGMENTS": 25, "_DELETED_AT_ONCE": 20}),
)
# Extreme histories have larger records.
SMALL_EXTREME: Limits = (
    (store, {"_PIECE_BYTES": 7_000, "_MAX_LEFTOVERS": 3, "_MAX_RECORD_BYTES": RECORD_BYTES}),
    SMALL[1],
)


class SimEtcdClient(SimClock, EtcdClient):
    """The real client on a network that fails on request. A lost request is repeated, as in the product."""

    def __init__(self, world: World, process: Process | None = None) -> None:
        self.root = f"/{_PREFIX}/".encode()
        self.timeout_s = SESSION_MS / 1_000
        self.time_ms = None
        self._world, self._process = world, process
        self._server = world.etcd
        self._closed = False
        self._cut_until = 0

    # ---- the network -----------------------------------------------------------------------------------------

    def cut(self, ms: int) -> None:
        """Cut the network for a while."""
        self._cut_until = max(self._cut_until, self._world.now + ms)

    def mend(self) -> None:
        self._cut_until = 0

    def close(self) -> None:
        self._closed = True

    def _call(self, path: str, request: Any, kind: type[Any], limit_s: float | None = None) -> Any:
        limit_s = self.timeout_s if limit_s is None else limit_s
        deadline = self.monotonic() + limit_s
        while not self._closed and self.monotonic() < deadline:
            answer = self._carry(path, request)
            if answer is not None:
                return msgspec.convert(answer, kind, builtin_types=(bytes,))
            # An attempt takes a quarter of the time, see `client._ATTEMPTS`.
            self.pause(min(limit_s / 4, max(0.001, deadline - self.monotonic())))
        raise NoAnswer("etcd does not answer")

    def _carry(self, path: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """Carry a request to the servers and the answer back. None if one of them is lost. Raises Rejected."""
        if self._process is None:
            return self._arrive(path, request, None)
        world, stage, writing = self._world, _stage(path, request), self._process.store.writing
        self._point(f"before {stage}")
        if world.now < self._cut_until:
            return None
        late = stage and world.take("request_late")
        if late or (stage and world.take("request_lost")):
            if late:
                # A suspended member carries out a request seconds later.
                world.later(world.dice.randint(1, 12_000), self._arrive_late, path, request, writing)
            return None
        answer = self._arrive(path, request, writing)
        if stage and world.take("answer_lost"):
            self.cut(world.dice.randint(0, 3_000))
            return None
        self._point(f"after {stage}")
        return answer

    def _arrive_late(self, path: str, request: dict[str, Any], writing: Writing | None) -> None:
        self._world.note("a request arrives late")
        try:
            self._arrive(path, request, writing)
        except Rejected:
            return

    def _arrive(self, path: str, request: dict[str, Any], writing: Writing | None) -> dict[str, Any]:
        try:
            answer = self._server.handle(path, request)
        except Refused as refused:
            raise Rejected(refused.text, refused.code) from None
        stage = _stage(path, request)
        if answer.get("succeeded") and stage == "epoch":
            self._world.server.epoch = json.loads(self._server.keys[self.root + b"epoch"].value)["epoch"]
        elif answer.get("succeeded") and stage == "segment" and self._process is not None:
            self._process.store.durable(writing)
        return answer


def _stage(path: str, request: dict[str, Any]) -> str:
    """The step of the store or the election to which a request belongs, or "". The names are those of ZooKeeper."""
    puts = [each["request_put"]["key"] for each in request.get(_SUCCESS, ()) if "request_put" in each]
    names = [key.removeprefix(f"/{_PREFIX}/".encode()) for key in puts]
    if b"epoch" in names:
        return "epoch"
    if any(name.startswith(b"election/") for name in names):
        return "candidate"
    if b"head" in names:
        return "segment" if len(names) > 1 else ""
    return "part" if names else ""


class SimEtcdStore(ElectedStore):
    def __init__(self, world: World, process: Process) -> None:
        self.session = client = SimEtcdClient(world, process)
        election = EtcdElection(client, process.name, monotonic=client.monotonic)
        real = EtcdStore(client, name=process.name, candidacy=lambda: election.candidacy, resign=election.resign)
        super().__init__(world, process, real, election)

    def _beat(self) -> bool:
        return bool(self.election._beat())


def read_as_it_is(world: World) -> StoredRecords:
    """The state as the real reader loads it over a network without faults."""
    store = EtcdStore(SimEtcdClient(world))
    stored = store.load()
    store.close()
    return stored
