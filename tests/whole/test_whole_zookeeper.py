"""Two schedulers on one ZooKeeper and one dev cluster: killed, stopped and frozen in turn, they lose no work."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from jobcloud.dev.cluster import DevCluster
from whole_kit import DEMO, Product, attempts, until

pytestmark = [pytest.mark.zookeeper, pytest.mark.dev_cluster]

SESSION_S = 2


class Pair:
    """Two schedulers that share state and packages; each has an API of its own."""

    def __init__(self, folder: Path, master: str, hosts: str) -> None:
        self.products = [Product(self._folder(folder, name)) for name in ("a", "b")]
        self.processes: list[subprocess.Popen[bytes] | None] = [None, None]
        for product in self.products:
            product.data = folder / "data"
            product.environ |= {
                "JOBCLOUD_ARTIFACTS_PORT": "0",
                "JOBCLOUD_ZOOKEEPER_SESSION_TIMEOUT": f"{SESSION_S}s",
                "JOBCLOUD_ZOOKEEPER_NAMESPACE": f"test/{folder.name.replace('.', '-')}",
                # The token lies beside the context, which only the leader writes.
                "JOBCLOUD_TOKEN": "t0ken-of-both",
                "JOBCLOUD_HTTP_TOKEN_FILE": str(self._token(folder)),
            }
        self._where = ("--mesos", master, "--zookeeper", hosts)

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

    def send(self, number: int, what: signal.Signals) -> subprocess.Popen[bytes]:
        process = self.processes[number]
        assert process is not None
        process.send_signal(what)
        return process

    def health(self, number: int) -> tuple[int, dict[str, Any]]:
        return self.get(number, "health")

    def get(self, number: int, what: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.products[number].port}/api/v1/{what}"
        request = urllib.request.Request(url, headers={"Authorization": "Bearer t0ken-of-both"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, {}

    def leads(self, number: int) -> bool:
        return self.health(number)[0] == 200

    def stands_by(self, number: int) -> bool:
        return " leads" in str(self.get(number, "jobs")[1].get("detail", ""))

    def finished(self, number: int) -> int:
        return len(self.products[number].runs("sales"))


@pytest.fixture
def pair(tmp_path: Path, zookeeper_hosts: str) -> Iterator[Pair]:
    with DevCluster(agents=2) as cluster:
        made = Pair(tmp_path, cluster.master, zookeeper_hosts)
        try:
            yield made
        finally:
            for product in made.products:
                product.end()


def add_demo(product: Product, output: Path) -> None:
    app = product.folder / "demo"
    subprocess.run(["cp", "-r", str(DEMO), str(app)], check=True)
    manifest = app / "jobcloud.toml"
    manifest.write_text(manifest.read_text().replace("/tmp/jobcloud-demo", str(output)))
    product.run("app", "add", str(app))


def goes_on(pair: Pair, number: int) -> None:
    """It leads, and a firing ends that had not before."""
    until(lambda: pair.leads(number), "the other to lead")
    before = pair.finished(number)
    until(lambda: pair.finished(number) > before, "a firing of the new leader")


def test_schedulers_take_over_from_each_other_without_loss(pair: Pair, tmp_path: Path) -> None:
    output = tmp_path / "output"
    pair.start(0)
    until(lambda: pair.leads(0), "a leader")
    pair.start(1)
    until(lambda: pair.stands_by(1), "a standby")
    add_demo(pair.products[0], output)
    goes_on(pair, 0)
    framework_id = pair.get(0, "cluster")[1]["frameworkId"]

    # A standby says so, and where the leader is, for reads and writes alike.
    status, health = pair.health(1)
    assert (status, health["leading"]) == (503, False)
    status, problem = pair.get(1, "jobs")
    assert status == 503
    assert f"http://127.0.0.1:{pair.products[0].port} leads" in problem["detail"]
    pair.products[1].run("job", "trigger", "sales", code=6)

    # Killed: the standby takes over once the session has ended.
    pair.send(0, signal.SIGKILL).wait()
    goes_on(pair, 1)
    assert pair.get(1, "cluster")[1]["frameworkId"] == framework_id

    # Stopped in order: at once.
    pair.start(0)
    until(lambda: pair.stands_by(0), "a standby")
    stopping = pair.send(1, signal.SIGTERM)
    goes_on(pair, 0)
    assert stopping.wait(15) == 0

    # Frozen for longer than the session: when it thaws it finds that it leads no more, and ends.
    pair.start(1)
    until(lambda: pair.stands_by(1), "a standby")
    frozen = pair.send(0, signal.SIGSTOP)
    goes_on(pair, 1)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(20) == 1
    assert "stepped down" in (pair.products[0].folder / "scheduler.log").read_text()
    goes_on(pair, 1)
    assert pair.get(1, "cluster")[1]["frameworkId"] == framework_id
    assert set(attempts(output).values()) == {1}, "no attempt was started twice"
