"""Hostile clients against a whole scheduler, on loopback. A bystander job of every second loses nothing.

The scheduler may open 600 descriptors only, so that few connections exhaust them.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.attack_kit import HEALTH, dial, dictionary_bomb, first_status, rest_of, status_of
from tests.whole_kit import Product, processes_with, until

from jobcloud.client.apps import add_app
from jobcloud.client.http import Client
from jobcloud.dev.cluster import DevCluster
from jobcloud.dev.tcp_ports import free_port

pytestmark = pytest.mark.dev_cluster

DESCRIPTORS = 600
MANIFEST = """
[app]
appName = "bystander"
cpuCount = 0.1
memoryMB = 32

[[jobs]]
jobName = "bystander"
jobType = "SCRIPT"
jobExecutionType = "TRANSIENT"
scriptCommandLine = "true"
cron = "* * * * * ?"
misfire = true
misfireLimit = 100
shardingTotalCount = 1
cpuCount = 0.1
memoryMB = 32
"""
ADDRESSES = tuple(f"127.0.0.{number}" for number in range(2, 8))


class Site:
    """A scheduler with the bystander job."""

    def __init__(self, product: Product, artifact_port: int) -> None:
        self.product = product
        self.api, self.artifacts = (f"http://127.0.0.1:{port}" for port in (product.port, artifact_port))
        self.headers = f"Host: localhost\r\nAuthorization: Bearer {product.token()}\r\n".encode()

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.product.get("runs", job="bystander", state="FINISHED", limit="1000")["items"]
        return found

    def request(self, path: str) -> bytes:
        return b"GET /api/v1/%s HTTP/1.1\r\n%s\r\n" % (path.encode(), self.headers)

    @contextlib.contextmanager
    def bystander_loses_nothing(self) -> Iterator[None]:
        """Before, during and after the attack every due run has started and finished."""
        before = len(self.runs())
        yield
        during = len(self.runs())
        until(lambda: len(self.runs()) >= during + 2, "two more runs after the attack")
        runs = self.runs()
        assert len(runs) >= before + 2
        fired = [datetime.fromisoformat(run["firedAt"]) for run in runs][::-1]
        assert {later - earlier for earlier, later in itertools.pairwise(fired)} == {timedelta(seconds=1)}
        job = self.product.get("jobs/bystander")
        assert (job["skippedFirings"], job["deadRuns"]) == (0, 0)

    def check_health(self) -> None:
        """The scheduler leads, is connected, and answers a new client on each listener."""
        health = dial(self.api, HEALTH)
        assert first_status(health) == 200
        health.close()
        missing = dial(self.artifacts, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first_status(missing) == 404
        missing.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("attack").resolve()
    cluster = DevCluster(data=folder / "cluster", allocation_interval_ms=50)
    product = Product(folder)
    artifact_port = free_port()
    product.environ |= {"JOBCLOUD_SCHEDULING_HISTORY": "10000", "JOBCLOUD_ARTIFACTS_PORT": str(artifact_port)}
    try:
        cluster.start()
        scheduler = ("scheduler", "--mesos", cluster.master, "--data", str(product.data), "--port", str(product.port))
        product.start(*scheduler, descriptors=DESCRIPTORS)
        until(product.healthy, "a healthy server")
        app = folder / "bystander"
        app.mkdir()
        (app / "jobcloud.toml").write_text(MANIFEST)
        (app / "empty.txt").touch()
        with Client(f"http://127.0.0.1:{product.port}", product.token()) as client:
            add_app(client, app)
            found = Site(product, artifact_port)
            until(lambda: len(found.runs()) >= 2, "two runs of the bystander")
            yield found
    finally:
        product.end()
        cluster.stop()
    until(lambda: not processes_with(str(folder)), f"the process tree to end: {processes_with(str(folder))}")
    log = (folder / "scheduler.log").read_text()
    assert "Too many open files" not in log
    assert "Traceback" not in log
    assert log.count("\n") < 20_000, "lines are limited"


@contextlib.contextmanager
def held(connections: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield connections
    finally:
        for one in connections:
            one.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "slow heads"])
def test_many_connections_exhaust_no_descriptors(site: Site, sent: bytes) -> None:
    with site.bystander_loses_nothing():
        flood = [
            dial(url, sent, address)
            for _ in range(120)
            for address in ADDRESSES
            for url in (site.api, site.artifacts)
        ]  # fmt: skip
        with held(flood):
            site.check_health()
            assert site.product.get("jobs")["items"]
            used = len(list(Path(f"/proc/{site.product.pid}/fd").iterdir()))
            assert used < DESCRIPTORS - 100
    site.check_health()


def test_huge_heads_are_refused(site: Site) -> None:
    with site.bystander_loses_nothing():
        for number in range(60):
            line = b"X: " + b"a" * (1 << 20) if number % 2 else b"a: b\r\n" * (1 << 17)
            answer = rest_of(dial(site.api, b"GET /api/v1/jobs HTTP/1.1\r\n" + line, ADDRESSES[number % 6]))
            assert status_of(answer) in (0, 431)
        site.check_health()


def test_readers_of_events_that_take_nothing_leave_room_for_others(site: Site) -> None:
    with site.bystander_loses_nothing():
        readers = [dial(site.api, site.request("events"), address) for _ in range(15) for address in ADDRESSES]
        with held(readers):
            assert {first_status(reader) for reader in readers} <= {200, 429}
            site.check_health()
            assert site.product.get("jobs")["items"]


def test_large_answers_that_nobody_takes_stop_nothing(site: Site) -> None:
    with site.bystander_loses_nothing():
        ask = site.request("openapi.json") * 10
        with held([dial(site.api, ask, address) for _ in range(15) for address in ADDRESSES]):
            site.check_health()


def test_archive_bombs_are_refused_outside_the_scheduler(site: Site) -> None:
    bomb = dictionary_bomb()
    head = b"POST /api/v1/packages HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (site.headers, len(bomb))
    with site.bystander_loses_nothing():
        uploads = [dial(site.api, head + bomb) for _ in range(4)]
        site.check_health()
        assert [first_status(upload) for upload in uploads] == [422] * 4
        for upload in uploads:
            upload.close()
