"""One session with ZooKeeper in which no call waits without a time limit.

kazoo does the talking. What it leaves open is decided here: which trees are too open to be used, how long an answer
may take, and what a lost answer means (nobody knows whether the request took effect; the caller has to look).
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kazoo import exceptions as zk
from kazoo.client import KazooClient, KazooState
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, Permissions, make_digest_acl

from jobcloud.errors import ConfigError, StoreError, StoreFull, StoreUnusable

_log = logging.getLogger("jobcloud.zookeeper")
# It reports each of its attempts to connect, some a second; what comes of them is said here.
_kazoo_log = logging.getLogger("jobcloud.zookeeper.kazoo")
_kazoo_log.setLevel(logging.ERROR)
# Requests that lost their way: they may have taken effect, or may yet.
_UNKNOWN = (
    zk.ConnectionLoss,
    zk.ConnectionClosedError,
    zk.SessionExpiredError,
    zk.SessionMovedError,
    zk.OperationTimeoutError,
    zk.CancelledError,
    KazooTimeoutError,
)
_OUTSTANDING = 64
_CLOSE_S = 3.0

Request: TypeAlias = Callable[[KazooClient], Any]
"""Starts one request and gives the object whose `get` waits for the answer."""


class NoAnswer(StoreError):
    """ZooKeeper did not answer in time: nobody knows whether the request has taken effect."""


@dataclass(frozen=True, slots=True)
class ZooKeeperTls:
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class ZooKeeperSettings:
    """`auth` is "user:password" for the digest scheme; `open_tree` allows state that everyone may change."""

    hosts: str
    namespace: str = "jobcloud"
    auth: str = field(default="", repr=False)
    session_timeout_s: float = 10.0
    open_tree: bool = False
    tls: ZooKeeperTls | None = None


class ZooKeeperSession:
    """A connection that is opened in the background and kept; after the loss of the session a new one begins.

    Raises ConfigError for credentials among the hosts, and for credentials that are none.
    """

    def __init__(self, wanted: ZooKeeperSettings) -> None:
        self.root = "/" + wanted.namespace.strip("/")
        self.hosts = check_hosts(wanted.hosts)
        self._wanted = wanted
        self._acl = _acl(wanted.auth)
        self._timeout_s = wanted.session_timeout_s
        self._lost = 0
        self._closed = False
        self._connected = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._prepared: set[str] = set()
        self._client = KazooClient(
            hosts=self.hosts,
            timeout=wanted.session_timeout_s,
            auth_data=[("digest", wanted.auth)] if wanted.auth else None,
            default_acl=self._acl,
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_delay=0.5),
            logger=_kazoo_log,
            **_tls_options(wanted.tls),
        )
        self._note_timeout()
        self._client.add_listener(self._changed)
        self._client.start_async()

    @property
    def timeout_s(self) -> float:
        """After this long without a sign of us the servers end the session: what they have granted, not our wish."""
        return self._timeout_s

    @property
    def connected(self) -> bool:
        """Whether the servers were in reach a moment ago; False from the first doubt on."""
        return self._connected.is_set()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def losses(self) -> int:
        """How many sessions have been lost so far."""
        return self._lost

    def monotonic(self) -> float:
        """Seconds, of the clock that time limits are measured by."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait before asking again."""
        time.sleep(seconds)

    def path(self, *names: str) -> str:
        return "/".join((self.root, *names))

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, on kazoo's thread, whenever the state of the connection changes."""
        self._listeners.append(changed)

    def ask(self, request: Request, limit_s: float | None = None) -> Any:
        """The answer to one request, waited for no longer than the session lasts.

        Raises NoAnswer; kazoo's own errors for answers such as NoNodeError; StoreUnusable where access is denied.
        """
        limit_s = self._timeout_s if limit_s is None else max(0.001, limit_s)
        # kazoo would keep the request for later; what did not go out in time should not go out at all.
        if self._closed or not self._connected.wait(limit_s):
            raise NoAnswer(f"ZooKeeper at {self.hosts} is out of reach")
        return self._answer(request(self._client), limit_s)

    def ask_many(self, requests: Iterable[Request]) -> Iterator[Any]:
        """The answers to many requests, in their order; some are always on their way. Raises as `ask`."""
        waiting: list[Any] = []
        self._connected.wait(self._timeout_s)
        for request in requests:
            waiting.append(request(self._client))
            if len(waiting) >= _OUTSTANDING:
                yield self._answer(waiting.pop(0), self._timeout_s)
        for each in waiting:
            yield self._answer(each, self._timeout_s)

    def prepare(self, paths: Iterable[str]) -> None:
        """Create the namespace and `paths` below it where missing. Raises StoreUnusable for nodes open to everyone."""
        for path in (self.root, *paths):
            if path not in self._prepared:
                self._make(path)
                self._check_closed(path)
                self._prepared.add(path)

    def close(self) -> None:
        """End the session: its ephemeral nodes vanish at once. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._connected.clear()
        # kazoo waits for servers that do not answer, longer than we should.
        closing = threading.Thread(target=self._close_client, name="zookeeper-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _close_client(self) -> None:
        try:
            self._client.stop()
            self._client.close()
        except Exception:
            _log.info("the session with ZooKeeper ends by its time limit", exc_info=True)

    def _answer(self, pending: Any, limit_s: float) -> Any:
        try:
            return pending.get(timeout=limit_s)
        except _UNKNOWN as error:
            raise NoAnswer(f"ZooKeeper at {self.hosts} does not answer ({type(error).__name__})") from error
        except (zk.NoAuthError, zk.AuthFailedError) as error:
            raise self._denied() from error

    def _denied(self) -> StoreUnusable:
        return StoreUnusable(
            f"ZooKeeper denies access to {self.root}: its nodes belong to somebody else, "
            "or the credentials in zookeeper.auth_file are wrong"
        )

    def _make(self, path: str) -> None:
        names = path.strip("/").split("/")
        for depth in range(1, len(names) + 1):
            self._make_one("/" + "/".join(names[:depth]))

    def _make_one(self, path: str) -> None:
        if path in self._prepared or self.ask(lambda client: client.exists_async(path)):
            return
        with suppress(zk.NodeExistsError):
            self.ask(lambda client: client.create_async(path, b"", self._acl))

    def _check_closed(self, path: str) -> None:
        """Whoever can write here decides which code runs on the agents."""
        if self._wanted.open_tree or not self._wanted.auth:
            return
        entries, _ = self.ask(lambda client: client.get_acls_async(path))
        if any(entry.id.scheme in ("world", "ip") and entry.perms & ~Permissions.READ for entry in entries):
            raise StoreUnusable(
                f"{path} in ZooKeeper can be changed by anyone who reaches the server, and with it what runs on the "
                "agents. Restrict it (zkCli.sh: setAcl -R), choose another zookeeper.namespace, or set "
                "zookeeper.open_tree to true if that is meant"
            )

    def _changed(self, state: str) -> None:
        # On kazoo's thread, which must not be kept; it must get None back.
        if not self._closed:
            _log.info("the connection to ZooKeeper at %s is %s", self.hosts, state)
        if state == KazooState.LOST:
            self._lost += 1
        if state == KazooState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        for listener in self._listeners:
            listener()

    def _note_timeout(self) -> None:
        """Servers grant what lies within their limits; kazoo learns it and keeps it to itself (read_timeout is ⅔)."""
        connection = self._client._connection
        connect = connection._connect

        def noted(*arguments: Any) -> Any:
            read_timeout_ms, connect_timeout_ms = connect(*arguments)
            self._timeout_s = read_timeout_ms * 1.5 / 1_000
            return read_timeout_ms, connect_timeout_ms

        connection._connect = noted


def failed(results: Iterable[Any]) -> tuple[int, Exception] | None:
    """The operation of a transaction that made it fail: its number and what was wrong."""
    consequences = (zk.RolledBackError, zk.RuntimeInconsistency)
    for number, result in enumerate(results):
        if isinstance(result, Exception) and not isinstance(result, consequences):
            if isinstance(result, zk.QuotaExceededError):
                raise StoreFull(f"the quota of this tree in ZooKeeper is used up ({result!r})")
            return number, result
    return None


def check_hosts(hosts: str) -> str:
    """`host:port,host:port`. Raises ConfigError."""
    if "@" in hosts:
        raise ConfigError(
            "credentials do not belong into the address: they would be ignored",
            field="zookeeper.hosts",
            fix="move user:password into the file of zookeeper.auth_file",
        )
    if "/" in hosts or not all(host.strip() for host in hosts.split(",")):
        problem = f"{hosts[:80]!r} names no servers"
        raise ConfigError(problem, field="zookeeper.hosts", fix="HOST:PORT, several with commas between them")
    return ",".join(host.strip() for host in hosts.split(","))


def _acl(auth: str) -> list[Any]:
    if not auth:
        return list(OPEN_ACL_UNSAFE)
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise ConfigError("holds no user:password", field="zookeeper.auth_file", fix="one line, USER:PASSWORD")
    return [make_digest_acl(user, password, all=True)]


def _tls_options(tls: ZooKeeperTls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    authorities = tls.ca_file or ssl.get_default_verify_paths().cafile
    return {
        "use_ssl": True,
        "verify_certs": True,
        "check_hostname": True,
        "ca": authorities,
        "certfile": tls.cert_file or None,
        "keyfile": tls.key_file or None,
    }
