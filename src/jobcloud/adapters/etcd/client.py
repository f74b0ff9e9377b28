"""A client of etcd's JSON gateway: several members, a time limit on every call, TLS, user and password.

A call that gets no answer is repeated at the next member until its time is over. So a call may take effect more than
once, and late: a suspended member handles the request when the member continues. Therefore every write of a key is a
transaction whose comparisons let it succeed only once. The caller reads the failure branch of the transaction
(store.py). Reads are linearizable.

Sources: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/ (paths, base64),
https://etcd.io/docs/v3.4/learning/api/ (fields), https://github.com/grpc/grpc/blob/master/doc/statuscodes.md (codes).
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import Any, TypeVar

import msgspec

from jobcloud.adapters.etcd.connection import Answer, Connection, Lost, TooLong
from jobcloud.adapters.etcd.names import Names
from jobcloud.errors import ConfigError, StoreError, StoreFull, StoreUnusable
from jobcloud.ports import TlsFiles

_log = logging.getLogger("jobcloud.etcd")

# An answer holds at most 32 MB of JSON, so that no member can fill the memory.
_MAX_ANSWER_BYTES = 32 << 20
_MAX_IDLE = 4
_ATTEMPTS = 4
# The pause after a round in which no member could carry out the call.
_ROUND_PAUSE_S = 0.05
_OK = range(200, 300)


class _Code(IntEnum):
    """Codes of gRPC after which nothing has changed. After any other code, the request may have taken effect."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNAUTHENTICATED = 16


class NoAnswer(StoreError):
    """etcd did not answer in time. The request may have taken effect, or may still take effect."""


class Rejected(StoreError):
    """etcd has refused a request, which has changed nothing. `code` is that of gRPC."""

    def __init__(self, problem: str, code: int) -> None:
        super().__init__(problem)
        self.code = code


class Denied(StoreUnusable):
    """The user in etcd has no right to make the request."""


class AnswerTooLong(StoreError):
    """The answer exceeds a limit. Ask for less."""


class Header(msgspec.Struct):
    cluster_id: int = 0
    revision: int = 0


class KeyValue(msgspec.Struct):
    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0


class Range(msgspec.Struct):
    """The answer to a range request, also inside a transaction."""

    header: Header = msgspec.field(default_factory=Header)
    kvs: list[KeyValue] = msgspec.field(default_factory=list)
    more: bool = False


class _Response(msgspec.Struct):
    response_range: Range | None = None


class Transaction(msgspec.Struct):
    """The answer to a transaction: whether its comparisons held, and the results of the branch taken."""

    header: Header = msgspec.field(default_factory=Header)
    succeeded: bool = False
    responses: list[_Response] = msgspec.field(default_factory=list)

    def ranges(self) -> list[list[KeyValue]]:
        return [each.response_range.kvs for each in self.responses if each.response_range is not None]


class Lease(msgspec.Struct):
    """`TTL` in seconds; 0 if the lease has ended."""

    header: Header = msgspec.field(default_factory=Header)
    TTL: int = 0


class _KeptAlive(msgspec.Struct):
    result: Lease


class _Token(msgspec.Struct):
    header: Header = msgspec.field(default_factory=Header)
    token: str = ""


class _Empty(msgspec.Struct):
    header: Header = msgspec.field(default_factory=Header)


class _Refusal(msgspec.Struct):
    error: Any = ""
    message: str = ""
    code: int = 2


_T = TypeVar("_T")
Operation = dict[str, Any]
"""A comparison or an operation of a transaction, as JSON. Keys and values are bytes."""


def put(key: bytes, value: bytes, **more: object) -> Operation:
    return {"request_put": {"key": key, "value": value, **more}}


def delete(key: bytes, range_end: bytes = b"") -> Operation:
    return {"request_delete_range": {"key": key, **({"range_end": range_end} if range_end else {})}}


def get(key: bytes, range_end: bytes = b"") -> Operation:
    return {"request_range": {"key": key, **({"range_end": range_end} if range_end else {})}}


def has_value(key: bytes, value: bytes) -> Operation:
    """A comparison of the key's value. False for a missing key."""
    return {"key": key, "target": "VALUE", "result": "EQUAL", "value": value}


def was_created_at(key: bytes, revision: int) -> Operation:
    """A comparison of the key's create revision. 0 stands for a missing key."""
    return {"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": str(revision)}


def was_changed_at(key: bytes, revision: int) -> Operation:
    """A comparison of the revision of the key's last change. 0 stands for a missing key."""
    return {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def end_of(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`. The last byte of `prefix` must not be 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """`auth` is "user:password". `session_timeout_s`: the TTL of the leader's lease, and the time limit of a call.

    `open_keys` allows state that everyone who reaches etcd can change.
    """

    hosts: str
    prefix: str = "jobcloud"
    auth: str = field(default="", repr=False)
    session_timeout_s: float = 10.0
    open_keys: bool = False
    tls: TlsFiles | None = None


class EtcdClient:
    """Thread-safe. `root` is the prefix of all keys.

    Raises ConfigError for malformed hosts, credentials and certificates.
    """

    def __init__(self, settings: EtcdSettings, names: Names | None = None) -> None:
        self._names = names or Names()
        self.root = b"/" + settings.prefix.strip("/").encode() + b"/"
        self.timeout_s = settings.session_timeout_s
        self._settings = settings
        self.members = addresses(settings.hosts)
        self._context = _tls_context(settings.tls)
        self._user = _credentials(settings.auth)
        self._token = ""
        self._cluster = 0
        self._current = 0
        self._idle: list[tuple[int, Connection]] = []
        self._closed = False
        self._lock = threading.Lock()
        #: the time of the member that has answered last, in ms; None if the answer had no time
        self.time_ms: int | None = None

    def key(self, name: str) -> bytes:
        return self.root + name.encode()

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    # ---------------------------------------------------------------------------------------------------- requests

    def transact(
        self,
        compare: Sequence[Operation],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
        limit_s: float | None = None,
    ) -> Transaction:
        """Raises NoAnswer, Rejected, StoreFull, StoreUnusable, AnswerTooLong."""
        request = {"compare": compare, "success": success, "failure": failure}
        return self._call("/v3/kv/txn", request, Transaction, limit_s)

    def range(self, key: bytes, range_end: bytes = b"", *, limit: int = 0, revision: int = 0) -> Range:
        """The keys from `key` to `range_end`, read linearizably. Raises the same errors as `transact`."""
        request = {"key": key, "range_end": range_end, "limit": str(limit), "revision": str(revision)}
        return self._call("/v3/kv/range", request, Range)

    def grant(self, lease: int, seconds: int, limit_s: float | None = None) -> int:
        """Create a lease with an id of our own. Returns its TTL, which etcd may have raised."""
        return self._call("/v3/lease/grant", {"ID": str(lease), "TTL": str(seconds)}, Lease, limit_s).TTL

    def keep_alive(self, lease: int, limit_s: float | None = None) -> int:
        """Begin the TTL of a lease anew, and return the TTL. 0 if the lease has ended, which is no error for etcd."""
        return self._call("/v3/lease/keepalive", {"ID": str(lease)}, _KeptAlive, limit_s).result.TTL

    def revoke(self, lease: int, limit_s: float | None = None) -> None:
        """End a lease, which deletes its keys. Raises Rejected if it has ended already."""
        self._call("/v3/lease/revoke", {"ID": str(lease)}, _Empty, limit_s)

    def close(self) -> None:
        """Further calls raise NoAnswer. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    # ---------------------------------------------------------------------------------------------------- one call

    def _call(self, path: str, request: object, kind: type[_T], limit_s: float | None = None) -> _T:
        """Ask one member after another until one answers. Raises NoAnswer after `limit_s`."""
        limit_s = self.timeout_s if limit_s is None else max(0.001, limit_s)
        deadline = self.monotonic() + limit_s
        body = msgspec.json.encode(request)
        # A member that does not answer must leave time for the others, and for another attempt at the same member: a
        # member that had just started left a request without an answer for 40 s.
        patience = limit_s / max(_ATTEMPTS, len(self.members) + 1)
        problem, tries, renewed, token = "the time is over", 0, False, ""
        while not self._closed and (now := self.monotonic()) < deadline:
            number = self._current
            limit = min(deadline, now + patience)
            try:
                token = self._valid_token(number, limit)
                # The token has no scheme such as Bearer before it, because etcd knows none.
                headers = f"Authorization: {token}\r\n" if token else ""
                return self._read(self._exchange(number, path, body, headers, limit), kind)
            except TooLong as error:
                raise AnswerTooLong(str(error)) from error
            except _StaleToken as error:
                self._discard(token)
                if not renewed:
                    renewed = True
                    continue
                # The rights have changed meanwhile, or this member does not know the token yet.
                problem = f"a member refuses the token that it has just issued: {error}"
            except StoreFull as error:
                if not tries:
                    raise
                # An earlier attempt of this call may have taken effect, and may have used the last space.
                raise NoAnswer(f"it is unknown whether an earlier attempt has taken effect: {error}") from error
            except (Lost, _Unclear) as error:
                problem = str(error)
            self._turn(number)
            tries += 1
            if tries % len(self.members) == 0:
                self.pause(min(_ROUND_PAUSE_S, max(0.0, deadline - self.monotonic())))
        raise NoAnswer(
            "the connection to etcd is closed" if self._closed else f"etcd has not done the request in time: {problem}"
        )

    def _valid_token(self, number: int, deadline: float) -> str:
        """The token that all threads share; a new one if there is none; "" without a user."""
        if self._user is None:
            return ""
        # Another thread may discard the shared token at any time. A request without a token would be refused for good.
        if not (token := self._token):
            token = self._token = self._authenticate(number, deadline)
        return token

    def _discard(self, token: str) -> None:
        """Forget a token that etcd has refused, unless another thread has replaced it already."""
        with self._lock:
            if self._token == token:
                self._token = ""

    def _authenticate(self, number: int, deadline: float) -> str:
        assert self._user is not None
        name, password = self._user
        body = msgspec.json.encode({"name": name, "password": password})
        try:
            return self._read(self._exchange(number, "/v3/auth/authenticate", body, "", deadline), _Token).token
        except Rejected as error:
            if error.code == _Code.FAILED_PRECONDITION and self._settings.open_keys:
                self._user = None
                return ""
            if error.code == _Code.FAILED_PRECONDITION:
                raise StoreUnusable(
                    "authentication is not enabled in etcd: anyone who reaches it can change the state, and so decide "
                    "which code runs on the agents. Enable it (etcdctl auth enable), or set etcd.open_keys to true to "
                    "allow this"
                ) from error
            raise StoreUnusable(f"etcd refuses the credentials in etcd.auth_file: {error}") from error

    def _exchange(self, number: int, path: str, body: bytes, headers: str, deadline: float) -> Answer:
        """One request to one member. Raises Lost, TooLong."""
        connection = self._take(number) or Connection(self.members[number], self._names, deadline, self._context)
        try:
            answer = connection.exchange(path, body, headers, deadline, _MAX_ANSWER_BYTES)
        except BaseException:
            connection.close()
            raise
        self._give_back(number, connection, answer)
        self.time_ms = _milliseconds(answer.date)
        return answer

    def _take(self, number: int) -> Connection | None:
        """An idle connection to a member."""
        with self._lock:
            found = [each for each in self._idle if each[0] == number]
            if not found:
                return None
            self._idle.remove(found[-1])
        connection = found[-1][1]
        if connection.is_open():
            return connection
        connection.close()
        return None

    def _give_back(self, number: int, connection: Connection, answer: Answer) -> None:
        with self._lock:
            if answer.persistent and not self._closed and len(self._idle) < _MAX_IDLE:
                self._idle.append((number, connection))
                return
        connection.close()

    def _turn(self, number: int) -> None:
        """Let the next calls begin at another member."""
        with self._lock:
            if self._current == number:
                self._current = (number + 1) % len(self.members)
            stale = [each for each in self._idle if each[0] == number]
            self._idle = [each for each in self._idle if each[0] != number]
        for _, connection in stale:
            connection.close()

    def _read(self, answer: Answer, kind: type[_T]) -> _T:
        """The content of an answer. Raises Rejected and others for a refusal, _Unclear for anything unreadable."""
        if answer.status not in _OK:
            self._refuse(answer)
        try:
            found = msgspec.json.decode(answer.body, type=kind, strict=False)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _Unclear(f"an answer of etcd cannot be read: {error}") from error
        header: Header = getattr(found, "header", None) or found.result.header  # type: ignore[attr-defined]
        if not header.cluster_id:
            # For example, a proxy may answer {}. Such an answer must not count as one of an etcd without keys.
            raise _Unclear("an answer names no cluster, so it is not from etcd")
        if self._cluster and header.cluster_id != self._cluster:
            raise StoreUnusable("the servers in etcd.hosts belong to different clusters of etcd")
        self._cluster = header.cluster_id
        return found

    def _refuse(self, answer: Answer) -> None:
        try:
            found = msgspec.json.decode(answer.body, type=_Refusal, strict=False)
        except (msgspec.MsgspecError, RecursionError):
            begin = ascii(bytes(answer.body[:100]).decode("latin-1").strip())
            raise _Unclear(f"a member answers with status {answer.status} and {begin}") from None
        text = str(found.message or found.error)[:300]
        if "database space exceeded" in text:
            raise StoreFull(
                f"etcd has no space left ({text}): compact it, defragment it and disarm the alarm, as in "
                "docs/operations.md. The scheduler continues by itself"
            )
        if "received message larger than max" in text:
            raise AnswerTooLong(text)
        match found.code:
            case _Code.UNAUTHENTICATED:
                raise _StaleToken(text)
            case _Code.INVALID_ARGUMENT if "auth store is old" in text:
                raise _StaleToken(text)
            case _Code.INVALID_ARGUMENT if "user name is empty" in text:
                raise StoreUnusable(f"etcd requires a user: name a file with user:password in etcd.auth_file ({text})")
            case _Code.PERMISSION_DENIED:
                raise Denied(f"etcd denies access to {self.root.decode()}: {text}")
            case code if code in list(_Code):
                raise Rejected(text, code)
        raise _Unclear(f"{text} (status {answer.status})")


class _Unclear(Exception):
    """A member could not say whether the request has taken effect."""


class _StaleToken(Exception):
    """The token is no longer valid."""


def addresses(hosts: str) -> list[tuple[str, int]]:
    """HOST:PORT,HOST:PORT as (host, port). Raises ConfigError."""
    found = []
    for host in hosts.split(","):
        name, _, port = host.strip().rpartition(":")
        if not name or "/" in name or "@" in name or not port.isdecimal() or not 0 < int(port) <= 65_535:
            problem = "is not a list of servers" if "@" not in hosts else "contains a password or user"
            fix = "HOST:PORT, several separated by commas; user:password belongs in the file of etcd.auth_file"
            raise ConfigError(problem, field="etcd.hosts", fix=fix)
        found.append((name.strip("[]"), int(port)))
    return found


def _credentials(auth: str) -> tuple[str, str] | None:
    if not auth:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise ConfigError("contains no user:password", field="etcd.auth_file", fix="one line, USER:PASSWORD")
    return user, password


def _tls_context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except OSError as error:
        problem = f"the certificates cannot be used: {error}"
        raise ConfigError(problem, field="etcd.tls_ca_file", fix="a PEM file with certificates") from error
    if tls.cert_file:
        try:
            # If no password were given, OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(tls.cert_file, tls.key_file or None, password="")
        except (OSError, ValueError) as error:
            problem = f"the certificate cannot be used with its key: {error}"
            fix = "PEM files that belong together, the key without a password"
            raise ConfigError(problem, field="etcd.tls_cert_file", fix=fix) from error
    return context


def _milliseconds(date: str) -> int | None:
    """The time in a Date header, in whole seconds, as ms. None if there is no such header."""
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1_000)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
