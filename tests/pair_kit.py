"""Schedulers that share a state in ZooKeeper or etcd, and a dev cluster."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.whole_kit import Product, until

from jobcloud.dev.cluster import DevCluster

SESSION_S = 6  # long enough that a busy machine does not expire the session of a live leader

# The setting of the place of the state in each store.
_PLACE = {"zookeeper": "NAMESPACE", "etcd": "PREFIX"}


class Pair:
    """Schedulers that share state and packages, two or three. Each has its own API."""

    def __init__(self, folder: Path, master: str, store: str, hosts: str) -> None:
        self.products = [Product(self._folder(folder, name)) for name in ("a", "b", "c")]
        self.processes: list[subprocess.Popen[bytes] | None] = [None, None, None]
        for product in self.products:
            product.data = folder / "data"
            product.environ |= {
                "JOBCLOUD_ARTIFACTS_PORT": "0",
                f"JOBCLOUD_{store.upper()}_SESSION_TIMEOUT": f"{SESSION_S}s",
                f"JOBCLOUD_{store.upper()}_{_PLACE[store]}": f"test/{folder.name.replace('.', '-')}",
                # Of the same user, so the last one that started has written the context file with the token.
                "JOBCLOUD_TOKEN": "t0ken-of-both",
                "JOBCLOUD_HTTP_TOKEN_FILE": str(self._token(folder)),
            }
        self._where = ("--mesos", master, f"--{store}", hosts)

    @staticmethod
    def _folder(folder: Path, name: str) -> Path:
        made = folder / name
        made.mkdir()
        return made

    @staticmethod
    def _token(folder: Path) -> Path:
        path = folder / "token"
        path.write_text("t0ken-of-both\n")
        path.chmod(0o600)
        return path

    def start(self, number: int) -> None:
        product = self.products[number]
        self.processes[number] = product.start(
            "scheduler", *self._where, "--data", str(product.data), "--port", str(product.port)
        )

    def send_signal(self, number: int, sent: signal.Signals) -> subprocess.Popen[bytes]:
        process = self.processes[number]
        assert process is not None
        process.send_signal(sent)
        return process

    def call(self, number: int, path: str) -> tuple[int, Any]:
        return self.products[number].call(path)

    def leads(self, number: int) -> bool:
        return self.products[number].leads()

    def is_standby(self, number: int) -> bool:
        return " leads" in str(self.call(number, "health")[1].get("problem", ""))

    def finished_runs(self, number: int) -> int:
        return len(self.products[number].runs("sales"))


@contextmanager
def paired(folder: Path, store: str, hosts: str) -> Iterator[Pair]:
    """Schedulers that a test starts, with their state in a store (`zookeeper` or `etcd`) and two agents."""
    with DevCluster(agents=2) as cluster:
        made = Pair(folder, cluster.master, store, hosts)
        try:
            yield made
        finally:
            for product in made.products:
                product.end()


def start_two(pair: Pair) -> None:
    """Start two schedulers. The first one leads."""
    pair.start(0)
    until(lambda: pair.leads(0), "scheduler 0 to lead")
    pair.start(1)
    until(lambda: pair.is_standby(1), "a standby")


def check_leader(pair: Pair, number: int) -> None:
    """Wait until a scheduler leads and a further run finishes."""
    until(lambda: pair.leads(number), f"scheduler {number} to lead")
    before = pair.finished_runs(number)
    until(lambda: pair.finished_runs(number) > before, "a run of the new leader")
