"""A session with ZooKeeper, with a time limit on every call.

kazoo implements the protocol. This module decides three more things: which trees are too open to be used, how long an
answer may take, and how a lost answer is reported. If the answer is lost, the request may have taken effect. The caller
must check whether it has.
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
from jobcloud.ports import TlsFiles

_log = logging.getLogger("jobcloud.zookeeper")
# kazoo logs every attempt to connect, several a second. This module logs the changes of the connection instead.
_kazoo_log = logging.getLogger("jobcloud.zookeeper.kazoo")
_kazoo_log.setLevel(logging.ERROR)
# After these errors, the request may have taken effect, or may still take effect.
_UNKNOWN = (
    zk.ConnectionLoss,
    zk.ConnectionClosedError,
    zk.SessionExpiredError,
    zk.SessionMovedError,
    zk.OperationTimeoutError,
    zk.CancelledError,
    KazooTimeoutError,
)
_MAX_OUTSTANDING = 64
# To connect to all servers once may take this part of the session timeout, and at least 1 s for each. So a server that
# does not answer leaves time for the next attempt before the session ends. kazoo would wait the whole timeout.
_CONNECT_SHARE = 1 / 6
_MIN_CONNECT_S = 1.0
_CLOSE_S = 3.0

Request: TypeAlias = Callable[[KazooClient], Any]
"""Starts one request and returns the object whose `get` waits for the answer."""


class NoAnswer(StoreError):
    """ZooKeeper did not answer in time. The request may have taken effect."""


@dataclass(frozen=True, slots=True)
class ZooKeeperSettings:
    """`auth` is "user:password" for the digest scheme. `open_tree` allows state that everyone can change."""

    hosts: str
    namespace: str = "jobcloud"
    auth: str = field(default="", repr=False)
    session_timeout_s: float = 10.0
    open_tree: bool = False
    tls: TlsFiles | None = None


class ZooKeeperSession:
    """A connection that is opened and kept in the background. After a session is lost, a new one begins.

    Raises ConfigError for credentials in `hosts`, and for malformed credentials.
    """

    def __init__(self, settings: ZooKeeperSettings) -> None:
        self.root = "/" + settings.namespace.strip("/")
        self.hosts = check_hosts(settings.hosts)
        self._settings = settings
        self._acl = _acl(settings.auth)
        self._timeout_s = settings.session_timeout_s
        self._lost = 0
        self._closed = False
        self._connected = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._prepared: set[str] = set()
        self._client = KazooClient(
            hosts=self.hosts,
            timeout=settings.session_timeout_s,
            auth_data=[("digest", settings.auth)] if settings.auth else None,
            default_acl=self._acl,
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_delay=0.5),
            logger=_kazoo_log,
            **_tls_options(settings.tls),
        )
        self._limit_connecting()
        self._track_timeout()
        self._client.add_listener(self._changed)
        self._client.start_async()

    @property
    def timeout_s(self) -> float:
        """The session timeout that the servers have granted, which may differ from the one requested."""
        return self._timeout_s

    @property
    def connected(self) -> bool:
        """Whether the connection was up a moment ago. False as soon as kazoo reports SUSPENDED or LOST."""
        return self._connected.is_set()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def losses(self) -> int:
        """The number of sessions lost so far."""
        return self._lost

    def monotonic(self) -> float:
        """The clock for time limits, in seconds."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt."""
        time.sleep(seconds)

    def path(self, *names: str) -> str:
        return "/".join((self.root, *names))

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed`, on kazoo's thread, whenever the state of the connection changes."""
        self._callbacks.append(changed)

    def ask(self, request: Request, limit_s: float | None = None) -> Any:
        """The answer to one request. Waits at most `limit_s`, by default the session timeout.

        Raises NoAnswer; StoreUnusable if access is denied; errors of kazoo for answers such as NoNodeError.
        """
        limit_s = self._timeout_s if limit_s is None else max(0.001, limit_s)
        began = self.monotonic()
        # Without a connection kazoo would queue the request and send it later. But a request must be sent in time or
        # never.
        if self._closed or not self._connected.wait(limit_s):
            raise NoAnswer(f"ZooKeeper at {self.hosts} is out of reach")
        return self._answer(request(self._client), max(0.001, began + limit_s - self.monotonic()))

    def ask_many(self, requests: Iterable[Request]) -> Iterator[Any]:
        """The answers to many requests, in order. Several are in flight at a time. Raises the same errors as `ask`."""
        waiting: list[Any] = []
        self._connected.wait(self._timeout_s)
        for request in requests:
            waiting.append(request(self._client))
            if len(waiting) >= _MAX_OUTSTANDING:
                yield self._answer(waiting.pop(0), self._timeout_s)
        for each in waiting:
            yield self._answer(each, self._timeout_s)

    def prepare(self, paths: Iterable[str]) -> None:
        """Create the namespace and `paths` if missing.

        Raises StoreUnusable for nodes that are more open than allowed.
        """
        for path in (self.root, *paths):
            if path not in self._prepared:
                self._make(path)
                self._check_protected(path)
                self._prepared.add(path)

    def close(self) -> None:
        """End the session, which deletes its ephemeral nodes. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._connected.clear()
        # The client is closed in a thread, because kazoo waits too long for servers that do not answer.
        closing = threading.Thread(target=self._close_client, name="zookeeper-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _close_client(self) -> None:
        try:
            self._client.stop()
            self._client.close()
        except Exception:
            _log.info("could not close the session with ZooKeeper; it will expire", exc_info=True)

    def _answer(self, pending: Any, limit_s: float) -> Any:
        try:
            return pending.get(timeout=limit_s)
        except _UNKNOWN as error:
            raise NoAnswer(f"ZooKeeper at {self.hosts} does not answer ({type(error).__name__})") from error
        except (zk.NoAuthError, zk.AuthFailedError) as error:
            raise self._denied() from error

    def _denied(self) -> StoreUnusable:
        return StoreUnusable(
            f"ZooKeeper denies access to {self.root}: its nodes have another owner, "
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

    def _check_protected(self, path: str) -> None:
        """Raises StoreUnusable for an open node that the settings do not allow.

        Anyone who can change the state decides what runs on the agents.
        """
        if self._settings.open_tree or not self._settings.auth:
            return
        entries, _ = self.ask(lambda client: client.get_acls_async(path))
        if any(entry.id.scheme in ("world", "ip") and entry.perms & ~Permissions.READ for entry in entries):
            raise StoreUnusable(
                f"everybody who reaches the server can change {path} in ZooKeeper, and so decides which code runs on "
                "the agents. Restrict it (zkCli.sh: setAcl -R), choose another zookeeper.namespace, or set "
                "zookeeper.open_tree to true to allow this"
            )

    def _changed(self, state: str) -> None:
        # kazoo calls this method on its own thread. So the method must not block, and must return None.
        if not self._closed:
            _log.info("the connection to ZooKeeper at %s is %s", self.hosts, state)
        if state == KazooState.LOST:
            self._lost += 1
        if state == KazooState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        for callback in self._callbacks:
            callback()

    def _limit_connecting(self) -> None:
        """Limit the time for a connection to one server, and the time for its answer to the greeting."""
        client = self._client
        share = self._settings.session_timeout_s * _CONNECT_SHARE / len(client.hosts)
        limit_s = max(_MIN_CONNECT_S, share)
        open_socket, invoke = client.handler.create_connection, client._connection._invoke

        def open_in_time(*arguments: Any, timeout: float, **options: Any) -> Any:
            return open_socket(*arguments, timeout=min(timeout, limit_s), **options)

        def invoke_in_time(timeout: float, *arguments: Any, **options: Any) -> Any:
            return invoke(min(timeout, limit_s), *arguments, **options)

        client.handler.create_connection = open_in_time
        client._connection._invoke = invoke_in_time

    def _track_timeout(self) -> None:
        """Learn the granted session timeout. kazoo knows only its read timeout: two thirds of the session timeout."""
        connection = self._client._connection
        connect = connection._connect

        def tracked(*arguments: Any) -> Any:
            read_timeout_ms, connect_timeout_ms = connect(*arguments)
            self._timeout_s = read_timeout_ms * 1.5 / 1_000
            return read_timeout_ms, connect_timeout_ms

        connection._connect = tracked


def failed(results: Iterable[Any]) -> tuple[int, Exception] | None:
    """The operation that made a transaction fail, as (number, error); None after success. Raises StoreFull."""
    consequences = (zk.RolledBackError, zk.RuntimeInconsistency)
    for number, result in enumerate(results):
        if isinstance(result, Exception) and not isinstance(result, consequences):
            if isinstance(result, zk.QuotaExceededError):
                raise StoreFull(f"the quota of this tree in ZooKeeper is used up ({result!r})")
            return number, result
    return None


def check_hosts(hosts: str) -> str:
    """The hosts as `host:port,host:port`. Raises ConfigError."""
    if "@" in hosts:
        raise ConfigError(
            "credentials do not belong in the address: they would be ignored",
            field="zookeeper.hosts",
            fix="move user:password into the file of zookeeper.auth_file",
        )
    if "/" in hosts or not all(host.strip() for host in hosts.split(",")):
        problem = f"{hosts[:80]!r} is not a list of servers"
        raise ConfigError(problem, field="zookeeper.hosts", fix="HOST:PORT, several separated by commas")
    return ",".join(host.strip() for host in hosts.split(","))


def _acl(auth: str) -> list[Any]:
    if not auth:
        return list(OPEN_ACL_UNSAFE)
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise ConfigError("contains no user:password", field="zookeeper.auth_file", fix="one line, USER:PASSWORD")
    return [make_digest_acl(user, password, all=True)]


def _tls_options(tls: TlsFiles | None) -> dict[str, Any]:
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
