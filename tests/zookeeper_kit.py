"""Real ZooKeeper servers for tests: Debian's package, in own processes on free loopback ports."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.process_kit import ServerProcess, started

from jobcloud.adapters.zookeeper.session import ZooKeeperSession, ZooKeeperSettings
from jobcloud.dev.tcp_ports import free_ports

_JARS = Path("/usr/share/java")
# The package does not depend on a part of netty that TLS needs.
_CLASS_PATH = ":".join(
    str(_JARS / jar) for jar in ("zookeeper.jar", "slf4j-simple.jar", "netty-codec.jar", "netty-resolver.jar")
)
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
# Short, so that short sessions are granted.
_TICK_MS = 200


def missing() -> str:
    """Why no ZooKeeper is available for tests, or ""."""
    if not shutil.which("java"):
        return "needs Java: apt-get install zookeeper"
    return "" if (_JARS / "zookeeper.jar").exists() else "needs ZooKeeper: apt-get install zookeeper"


def need() -> None:
    if problem := missing():
        pytest.skip(problem)


class Server(ServerProcess):
    """One server. `peers` are the lines of configuration that name the servers of its ensemble."""

    def __init__(
        self, folder: Path, port: int, number: int = 1, peers: tuple[str, ...] = (), more: tuple[str, ...] = ()
    ) -> None:
        super().__init__(folder)
        self.port = port
        (folder / "data").mkdir()
        (folder / "data" / "myid").write_text(f"{number}\n")
        lines = (
            f"tickTime={_TICK_MS}",
            "initLimit=50",
            "syncLimit=25",
            f"dataDir={folder / 'data'}",
            f"clientPort={port}",
            "clientPortAddress=127.0.0.1",
            "admin.enableServer=false",
            f"minSessionTimeout={2 * _TICK_MS}",
            "maxSessionTimeout=60000",
            "maxClientCnxns=0",
            "4lw.commands.whitelist=srvr,mntr",
            *peers,
            *more,
        )
        (folder / "zoo.cfg").write_text("\n".join(lines) + "\n")
        java = ("java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", _CLASS_PATH)
        self.argv = (*java, _MAIN, str(folder / "zoo.cfg"))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def mode(self) -> str:
        """ "standalone", "leader" or "follower"; "" while it does not serve."""
        return self._told("Mode")

    def leads(self) -> bool:
        return self.mode() == "leader"

    def transactions(self) -> int:
        """The number of transactions since the ensemble last elected a leader; 0 while it does not serve."""
        return int(self._told("Zxid") or "0", 16) & 0xFFFF_FFFF

    def _told(self, name: str) -> str:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"srvr")
            answer = b""
            while piece := connection.recv(4_096):
                answer += piece
            for line in answer.decode().splitlines():
                if line.startswith(f"{name}: "):
                    return line.removeprefix(f"{name}: ")
        return ""

    def serves(self) -> bool:
        return bool(self.mode())


@contextmanager
def running(folder: Path, count: int = 1, more: tuple[str, ...] = ()) -> Iterator[list[Server]]:
    """A server, or an ensemble of `count`, with `more` lines of configuration. Killed at the end of the block."""
    need()
    ports = free_ports(3 * count)
    peers = tuple(
        f"server.{number + 1}=127.0.0.1:{ports[count + 2 * number]}:{ports[count + 2 * number + 1]}"
        for number in range(count)
    )
    servers = [
        Server(folder / f"server{number + 1}", ports[number], number + 1, peers if count > 1 else (), more)
        for number in range(count)
    ]
    with started(servers):
        yield servers


def hosts(servers: list[Server]) -> str:
    return ",".join(server.address for server in servers)


def connect(where: str, namespace: str, timeout_s: float = 10.0, auth: str = "") -> ZooKeeperSession:
    return ZooKeeperSession(ZooKeeperSettings(where, namespace, auth=auth, session_timeout_s=timeout_s))
