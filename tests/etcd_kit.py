"""Real etcd members for tests: Debian's package etcd-server, in own processes on free loopback ports."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.process_kit import ServerProcess, started
from tests.soak.partition import Namespace

from jobcloud.adapters.etcd.client import EtcdClient, EtcdSettings, put
from jobcloud.dev.tcp_ports import free_ports
from jobcloud.errors import StoreFull


def missing() -> str:
    """Why no etcd is available for tests, or ""."""
    return "" if shutil.which("etcd") else "needs etcd: apt-get install etcd-server"


def need() -> None:
    if problem := missing():
        pytest.skip(problem)


class Member(ServerProcess):
    """One member. `peers` names all members with the URLs at which they reach each other."""

    def __init__(
        self, folder: Path, name: str, port: int, peers: dict[str, str], more: tuple[str, ...] = (),
        host: str = "127.0.0.1", wrapper: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(folder)
        self.name, self.port, self.host = name, port, host
        scheme = "https" if "--cert-file" in " ".join(more) else "http"
        url = f"{scheme}://{host}:{port}"
        self.argv = [
            *wrapper, "etcd", "--name", name, "--data-dir", str(folder / "data"),
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name],
            "--initial-cluster", ",".join(f"{each}={where}" for each, where in peers.items()),
            "--log-level", "error", *more,
        ]  # fmt: skip

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def ask(self, path: str, request: object = None, limit_s: float = 30.0) -> Any:
        """The answer to a request of the gateway, decoded. Raises OSError."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=limit_s)
        try:
            connection.request("POST", path, json.dumps(request or {}))
            return json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def transactions(self) -> int:
        """The number of changes so far; 0 while the member does not serve."""
        with suppress(OSError):
            return int(self.ask("/v3/maintenance/status", limit_s=2)["header"]["revision"])
        return 0

    def leads(self) -> bool:
        with suppress(OSError):
            status = self.ask("/v3/maintenance/status", limit_s=2)
            return bool(status["header"]["member_id"] == status.get("leader"))
        return False

    def give_leadership_to(self, other: Member) -> None:
        """Let another member lead the members. This one leads them."""
        member_id = other.ask("/v3/maintenance/status")["header"]["member_id"]
        self.ask("/v3/maintenance/transfer-leadership", {"targetID": member_id})

    def serves(self) -> bool:
        """Whether it answers with a quorum. With TLS: whether it accepts connections."""
        with suppress(OSError):
            if any("https://" in each for each in self.argv):
                socket.create_connection((self.host, self.port), 2).close()
                return True
            return "header" in self.ask("/v3/kv/range", {"key": "AA=="}, limit_s=10)
        return False


@contextmanager
def running(
    folder: Path,
    count: int = 1,
    more: tuple[str, ...] = (),
    *,
    durable: bool = False,
    apart: Namespace | None = None,
) -> Iterator[list[Member]]:
    """A cluster of `count` members, with `more` options. Killed at the end of the block.

    The data survives a crash of the members. With `durable` it would survive a crash of the machine. The last member
    runs in the network namespace `apart`, if there is one.
    """
    need()
    more = more if durable else (*more, "--unsafe-no-fsync")
    ports = free_ports(2 * count)
    places: list[tuple[str, tuple[str, ...]]] = [(apart.outside if apart else "127.0.0.1", ())] * count
    if apart:
        places[-1] = apart.inside, apart.wrapper
    peers = {f"m{number}": f"http://{host}:{ports[count + number]}" for number, (host, _) in enumerate(places)}
    members = [
        Member(folder / name, name, ports[number], peers, more, *places[number]) for number, name in enumerate(peers)
    ]
    with started(members):
        yield members


def hosts(members: list[Member]) -> str:
    return ",".join(member.address for member in members)


def connect(where: str, prefix: str, timeout_s: float = 10.0, auth: str = "") -> EtcdClient:
    return EtcdClient(EtcdSettings(where, prefix, auth=auth, session_timeout_s=timeout_s))


#: an option for a member that is full soon
SMALL = ("--quota-backend-bytes", str(16 << 20))


def fill(member: Member) -> None:
    """Put keys of another user until no space is left."""
    client = connect(member.address, "others", 60.0)
    try:
        for number in range(1_000):
            client.transact([], [put(client.key("x"), random.Random(number).randbytes(400_000))])
    except StoreFull:
        return
    finally:
        client.close()
    raise AssertionError("etcd is never full")


def make_room(member: Member) -> None:
    """Compact, defragment, and disarm the alarm."""
    revision = member.ask("/v3/kv/range", {"key": "eA=="})["header"]["revision"]
    member.ask("/v3/kv/compaction", {"revision": revision, "physical": True})
    member.ask("/v3/maintenance/defragment")
    number = member.ask("/v3/maintenance/status")["header"]["member_id"]
    member.ask("/v3/maintenance/alarm", {"action": "DEACTIVATE", "memberID": number, "alarm": "NOSPACE"})
