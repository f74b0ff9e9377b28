"""Detect the leading Mesos master in ZooKeeper.

Format: each candidate for the leading master keeps a sequential node `json.info_<number>` in one directory. The node
contains the candidate's MasterInfo as JSON. The candidate with the lowest number leads (Mesos 1.11,
`src/master/contender`, `detector/zookeeper.cpp`).
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from jobcloud.adapters.mesos.link import Address
from jobcloud.adapters.mesos.wire import loads
from jobcloud.errors import ConfigError

_log = logging.getLogger("jobcloud.mesos")
_NODE = re.compile(r"json\.info_(\d{1,19})")
_FIELD = "mesos.master"
# Watches report changes. This interval limits the delay if a watch is lost.
_RECHECK_S = 10.0
_ANSWER_S = 5.0


class ZooKeeperPath(NamedTuple):
    hosts: str
    path: str


def parse_zk_uri(uri: str) -> ZooKeeperPath:
    """The parts of `zk://host1:port1,host2/path`. Raises ConfigError."""
    hosts, slash, path = uri.removeprefix("zk://").partition("/")
    if "@" in hosts:
        raise ConfigError(
            "contains credentials",
            field=_FIELD,
            fix="use zk://HOST:PORT,.../PATH, and move the credentials to the file of mesos.zookeeper_auth_file",
        )
    if not slash or not path.strip("/") or not all(hosts.split(",")):
        raise ConfigError(f"{uri[:200]!r} is incomplete", field=_FIELD, fix="use zk://HOST:PORT,HOST:PORT/PATH")
    return ZooKeeperPath(hosts, "/" + path.strip("/"))


class MasterDetector:
    """Calls `found` at every change, with the leading master or None.

    Errors of ZooKeeper never end the detector; while ZooKeeper is out of reach, the last known master stays valid.
    `auth` is "user:password" for the digest scheme, "" for none. `by_name` prefers the master's host name to its IP
    address, because certificates name hosts.
    """

    def __init__(self, node: ZooKeeperPath, auth: str, found: Callable[[Address | None], None], by_name: bool) -> None:
        self._path = node.path
        self._found = found
        self._by_name = by_name
        self._client = KazooClient(
            hosts=node.hosts,
            timeout=10.0,
            auth_data=[("digest", auth)] if auth else None,
            connection_retry={"max_tries": -1, "max_delay": 15.0},
            logger=logging.getLogger("jobcloud.mesos.zookeeper"),
        )
        self._client.add_listener(self._changed)
        self._wake = threading.Event()
        self._stopping = False
        self._leader: Address | None = None
        self._reported = False
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="mesos-detector", daemon=True)

    def start(self) -> None:
        self._client.start_async()
        self._thread.start()

    def stop(self) -> None:
        """Idempotent."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2)
        self._client.stop()
        self._client.close()

    def _changed(self, *_: object) -> None:
        # kazoo calls this method on its own thread. So the method must not block, and must return None.
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            if self._client.connected:
                self._check()
            self._wake.wait(_RECHECK_S)
            self._wake.clear()

    def _check(self) -> None:
        try:
            leader = self._read()
        except Exception as error:  # kazoo raises a dozen kinds of errors; each is retried
            self._warn_once(f"cannot read {self._path} in ZooKeeper: {error!r}")
            return
        if leader != self._leader or not self._reported:
            self._leader, self._reported = leader, True
            _log.info("the leading Mesos master is %s", leader or "unknown")
            self._found(leader)

    def _read(self) -> Address | None:
        try:
            children = self._client.get_children_async(self._path, watch=self._changed).get(timeout=_ANSWER_S)
        except NoNodeError:
            # This watch fires when the first master creates the node.
            self._client.exists_async(self._path, watch=self._changed).get(timeout=_ANSWER_S)
            self._warn_once(f"{self._path} does not exist in ZooKeeper: no master has registered there yet")
            return None
        nodes = [match for child in children if (match := _NODE.fullmatch(child))]
        if not nodes:
            return None
        path = f"{self._path}/{min(nodes, key=lambda match: int(match[1]))[0]}"
        data, _ = self._client.get_async(path, watch=self._changed).get(timeout=_ANSWER_S)
        try:
            leader = _address(data, self._by_name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._warn_once(f"{path} in ZooKeeper is not a MasterInfo: {error!r}")
            return None
        self._problem = ""
        return leader

    def _warn_once(self, problem: str) -> None:
        """Log a problem once, not at every check."""
        if problem != self._problem:
            self._problem = problem
            _log.warning("%s", problem)


def _address(data: bytes, by_name: bool) -> Address:
    address = loads(data)["address"]
    names = [address.get("hostname"), address.get("ip")]
    host = next((name for name in (names if by_name else names[::-1]) if name), None)
    port = address["port"]
    if not isinstance(host, str) or not isinstance(port, int) or not 0 < port < 65_536:
        raise ValueError(f"{host!r}:{port!r} is not an address")
    return Address(host, port)
