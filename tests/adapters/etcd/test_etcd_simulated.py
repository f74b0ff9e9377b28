"""The simulated etcd against a real one: both get the same random requests, and every answer is compared."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import Any

import msgspec
import pytest

pytest.importorskip("httptools", reason="the extra [server] is not installed")

from tests import etcd_kit
from tests.simulation.etcd import MAX_OPERATIONS, Refused, SimEtcd

pytestmark = pytest.mark.etcd

# At least so many requests, and more until each answer of `WANTED` has been seen: some are rare.
REQUESTS, MOST_REQUESTS = 3_000, 30_000
WANTED = {
    "/v3/kv/txn", "/v3/kv/range", "/v3/lease/grant", "/v3/lease/keepalive", "/v3/lease/revoke", "succeeded",
    "failed", "more", "etcdserver: requested lease not found", "etcdserver: duplicate key given in txn request",
    "etcdserver: too many operations in txn request", "etcdserver: lease already exists",
    "etcdserver: mvcc: required revision is a future revision",
}  # fmt: skip
NAMES = (b"a", b"b", b"c", b"c/d", b"c/e", b"f")


class Dice:
    """Random requests for both sides, on keys below `root`."""

    def __init__(self, seed: int, root: bytes) -> None:
        self._dice = random.Random(f"etcd requests {seed}")
        self._root = root
        self._leases = [self._dice.getrandbits(62) + 1 for _ in range(6)]
        #: the latest revision of the simulated side
        self.revision = 1

    def key(self) -> bytes:
        return self._root + self._dice.choice(NAMES)

    def where(self) -> dict[str, Any]:
        key = self.key()
        end = self._dice.choice((b"", b"", key + b"\xff", self._root + b"d", self._root[:-1] + b"0"))
        return {"key": key, **({"range_end": end} if end else {})}

    def lease(self) -> str:
        return str(self._dice.choice(self._leases))

    def compare(self) -> dict[str, Any]:
        target = self._dice.choice(("VALUE", "CREATE", "MOD", "VERSION"))
        compare = {"key": self.key(), "target": target}
        compare["result"] = self._dice.choice(("EQUAL", "EQUAL", "NOT_EQUAL", "GREATER", "LESS"))
        if target == "VALUE":
            return {**compare, "value": self._dice.choice((b"0", b"1", b"2"))}
        if target == "VERSION":
            return {**compare, "version": self._dice.choice((0, 0, 1, 2))}
        field = {"CREATE": "create_revision", "MOD": "mod_revision"}[target]
        return {**compare, field: self._dice.choice((0, 0, self.revision, self.revision - 1, self.revision - 3))}

    def operation(self) -> dict[str, Any]:
        kind = self._dice.choices(("put", "delete", "range"), (5, 2, 3))[0]
        if kind == "put":
            lease = {"lease": self.lease()} if self._dice.random() < 0.3 else {}
            return {"request_put": {"key": self.key(), "value": self._dice.choice((b"0", b"1", b"2")), **lease}}
        if kind == "delete":
            return {"request_delete_range": self.where()}
        return {"request_range": {**self.where(), "limit": self._dice.choice((0, 0, 1, 2))}}

    def request(self) -> tuple[str, dict[str, Any]]:
        kind = self._dice.choices(("txn", "range", "grant", "keepalive", "revoke", "large"), (60, 20, 8, 6, 5, 1))[0]
        match kind:
            case "txn":
                lists = {name: self._dice.choice((0, 1, 1, 2, 4)) for name in ("success", "failure")}
                branches = {name: [self.operation() for _ in range(number)] for name, number in lists.items()}
                return "/v3/kv/txn", {
                    "compare": [self.compare() for _ in range(self._dice.choice((0, 1, 2)))],
                    **branches,
                }
            case "range":
                revision = self._dice.choice((0, 0, self.revision, self.revision - 1, self.revision + 1))
                return "/v3/kv/range", {
                    **self.where(),
                    "limit": self._dice.choice((0, 0, 1, 3)),
                    "revision": max(revision, 0),
                }
            case "large":
                number = MAX_OPERATIONS + self._dice.choice((0, 1))
                puts = [{"request_put": {"key": self._root + b"n%d" % each, "value": b"n"}} for each in range(number)]
                return "/v3/kv/txn", {self._dice.choice(("success", "failure")): puts}
            case "grant":
                return "/v3/lease/grant", {"ID": self.lease(), "TTL": self._dice.choice((1, 1_000, 1_000))}
        return f"/v3/lease/{kind}", {"ID": self.lease()}


class RealSide:
    """A real etcd, whose revisions begin at an offset."""

    def __init__(self, hosts: str, root: bytes) -> None:
        self.client = etcd_kit.connect(hosts, "unused", 60.0)
        self._offset = self.client.range(root).header.revision - 1

    def handle(self, path: str, request: dict[str, Any]) -> Any:
        body = msgspec.json.encode(shifted(request, self._offset))
        answer = self.client._exchange(0, path, body, "", self.client.monotonic() + 60)
        found = msgspec.json.decode(answer.body)
        if answer.status != 200:
            raise Refused(found["code"], found["message"].removeprefix("etcdserver: "))
        return plain(found, self._offset)


def shifted(request: Any, offset: int) -> Any:
    """A request with revisions of the real side."""
    match request:
        case dict():
            revisions = ("create_revision", "mod_revision", "revision")
            return {
                name: str(value + offset) if name in revisions and value > 0 else shifted(value, offset)
                for name, value in request.items()
            }
        case list():
            return [shifted(each, offset) for each in request]
        case int():
            return str(request)
    return request


_NUMBERS = ("create_revision", "mod_revision", "version", "lease", "count", "deleted", "ID", "TTL", "revision")


def plain(answer: Any, offset: int) -> Any:
    """An answer with numbers, without what differs between servers."""
    match answer:
        case dict():
            found = {}
            for name, value in answer.items():
                if name in ("cluster_id", "member_id", "raft_term"):
                    continue
                if name in _NUMBERS:
                    found[name] = int(value) - (offset if name.endswith("revision") else 0)
                else:
                    found[name] = plain(value, offset)
            return found
        case list():
            return [plain(each, offset) for each in answer]
    return answer


def without_headers(answer: Any) -> Any:
    """Answers inside a transaction have headers of their own, which nobody reads."""
    match answer:
        case dict():
            inner = {name: value for name, value in answer.items() if name not in ("header",)}
            return {name: without_headers(value) for name, value in inner.items()}
        case list():
            return [without_headers(each) for each in answer]
    return answer


def encoded(answer: Any) -> Any:
    """Bytes as the gateway writes them."""
    return msgspec.json.decode(msgspec.json.encode(answer))


def carry_out(side: Any, path: str, request: dict[str, Any]) -> Any:
    try:
        found = encoded(side.handle(path, request))
    except Refused as refused:
        return refused.code, refused.text
    header = found.get("header") or found["result"]["header"]
    return header["revision"], without_headers(found)


def test_simulated_and_real_server_give_the_same_answers(etcd_hosts: str, seed: int) -> None:
    root = f"/same-{uuid.uuid4().hex}/".encode()
    real, simulated, dice = RealSide(etcd_hosts, root), SimEtcd(), Dice(seed, root)
    seen: Counter[str] = Counter()
    for number in range(MOST_REQUESTS):
        if number >= REQUESTS and seen.keys() >= WANTED:
            break
        path, request = dice.request()
        if request.get("TTL") == 1:
            # Only a lease that does not end during the test gives the same answers.
            request["TTL"] = 500
        answers = [carry_out(side, path, request) for side in (real, simulated)]
        assert answers[0] == answers[1], f"request {number} of seed {seed}: {path} {request}"
        dice.revision = simulated.revision
        if isinstance(answers[0][1], str):
            seen[answers[0][1]] += 1
        else:
            seen[path] += 1
            if path.endswith("txn"):
                seen["succeeded" if answers[0][1].get("succeeded") else "failed"] += 1
            if "more" in str(answers[0][1]):
                seen["more"] += 1
    everything = {"key": root, "range_end": root[:-1] + b"0"}
    assert carry_out(real, "/v3/kv/range", everything) == carry_out(simulated, "/v3/kv/range", everything)
    real.client.close()
    assert seen.keys() >= WANTED, f"never seen: {WANTED - seen.keys()}"


def test_shortest_lease_is_that_of_a_real_server(etcd_hosts: str) -> None:
    lease = random.getrandbits(62) + 1
    client = etcd_kit.connect(etcd_hosts, "unused", 60.0)
    assert client.grant(lease, 1) == SimEtcd().handle("/v3/lease/grant", {"ID": lease, "TTL": 1})["TTL"]
    client.revoke(lease)
    client.close()


def test_expired_lease_deletes_its_keys_at_one_revision() -> None:
    now = [0]
    server = SimEtcd(lambda: now[0])
    server.handle("/v3/lease/grant", {"ID": 7, "TTL": 4})
    puts = [{"request_put": {"key": key, "value": b"1", "lease": 7}} for key in (b"a", b"b")]
    server.handle("/v3/kv/txn", {"success": puts})
    now[0] = 3_999
    assert server.handle("/v3/lease/keepalive", {"ID": 7})["result"]["TTL"] == 4
    now[0] = 7_998
    assert server.handle("/v3/kv/range", {"key": b"a"})["count"] == 1
    now[0] = 7_999
    assert server.handle("/v3/kv/range", {"key": b"a"}) == {"header": {"revision": 3}}
    assert "TTL" not in server.handle("/v3/lease/keepalive", {"ID": 7})["result"]
