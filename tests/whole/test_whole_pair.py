"""Schedulers on one ZooKeeper or etcd and one dev cluster, killed, stopped and frozen in turn: no work is lost."""

from __future__ import annotations

import itertools
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from tests.whole_kit import DEMO, Product, attempts, until

from jobcloud.dev.cluster import DevCluster

pytestmark = pytest.mark.dev_cluster

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


@pytest.fixture(
    params=[
        pytest.param("zookeeper", marks=pytest.mark.zookeeper),
        pytest.param("etcd", marks=pytest.mark.etcd),
    ]
)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    hosts = request.getfixturevalue(f"{request.param}_hosts")
    with DevCluster(agents=2) as cluster:
        made = Pair(tmp_path, cluster.master, request.param, hosts)
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


def check_leader(pair: Pair, number: int) -> None:
    """Wait until a scheduler leads and a further run finishes."""
    until(lambda: pair.leads(number), f"scheduler {number} to lead")
    before = pair.finished_runs(number)
    until(lambda: pair.finished_runs(number) > before, "a run of the new leader")


def test_schedulers_take_over_from_each_other_without_loss(pair: Pair, tmp_path: Path) -> None:
    output = tmp_path / "output"
    pair.start(0)
    until(lambda: pair.leads(0), "a leader")
    pair.start(1)
    until(lambda: pair.is_standby(1), "a standby")
    add_demo(pair.products[0], output)
    check_leader(pair, 0)
    framework_id = pair.call(0, "cluster")[1]["frameworkId"]

    # A standby answers reads, and passes writes on to the leader. Its health names the leader.
    status, health = pair.call(1, "health")
    assert (status, health["leading"]) == (503, False)
    assert health["problem"] == f"http://127.0.0.1:{pair.products[0].port} leads"
    assert {job["jobName"] for job in pair.products[1].get("jobs")["items"]} >= {"sales"}
    assert pair.products[1].get("cluster")["frameworkId"] == framework_id
    pair.products[1].run("job", "trigger", "sales", "--wait")

    # After a kill the standby takes over when the session expires.
    pair.send_signal(0, signal.SIGKILL).wait()
    check_leader(pair, 1)
    assert pair.call(1, "cluster")[1]["frameworkId"] == framework_id

    # After an orderly stop it takes over at once.
    pair.start(0)
    until(lambda: pair.is_standby(0), "a standby")
    stopping = pair.send_signal(1, signal.SIGTERM)
    check_leader(pair, 0)
    assert stopping.wait(60) == 0

    # A leader that was frozen for longer than its session finds that it no longer leads, and ends.
    pair.start(1)
    until(lambda: pair.is_standby(1), "a standby")
    frozen = pair.send_signal(0, signal.SIGSTOP)
    check_leader(pair, 1)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(60) == 1
    assert "stepped down" in (pair.products[0].folder / "scheduler.log").read_text()
    check_leader(pair, 1)
    assert pair.call(1, "cluster")[1]["frameworkId"] == framework_id
    assert set(attempts(output).values()) == {1}, "no attempt was started twice"


def test_writes_through_a_standby_are_neither_lost_nor_repeated_when_the_leader_is_killed(
    pair: Pair, tmp_path: Path
) -> None:
    for number in range(3):
        pair.start(number)
        until(lambda: pair.leads(0) if not number else pair.is_standby(number), f"scheduler {number}")  # noqa: B023
    standby = pair.products[2]
    add_demo(standby, tmp_path / "output")
    config = standby.get("jobs/sales")["config"] | {"cron": "0 0 0 1 1 ? 2099"}
    names = (f"job-{number}" for number in itertools.count())
    answered: list[str] = []
    wrong: list[int] = []
    stop = threading.Event()

    def write() -> None:
        """Register and trigger jobs, one after another."""
        while not stop.is_set():
            name = next(names)
            for path, expected, body in (("jobs", 201, config | {"jobName": name}), (f"jobs/{name}/trigger", 202, {})):
                status, found = standby.call(path, "POST", body)
                if status == expected:
                    answered.append(found.get("id") or name)
                elif status not in (503, 404):  # without an answer, the job may be missing
                    wrong.append(status)

    def go_on() -> None:
        before = len(answered)
        until(lambda: len(answered) > before + 20, "further writes through the standby")

    writer = threading.Thread(target=write)
    writer.start()
    go_on()
    pair.send_signal(0, signal.SIGKILL).wait()
    until(lambda: pair.leads(1), "the next leader")
    go_on()
    stop.set()
    writer.join()
    assert not wrong
    runs = [run["id"] for run in standby.get("runs", limit="1000")["items"] if run["id"].startswith("job-")]
    jobs = [job["jobName"] for job in standby.get("jobs")["items"]]
    assert set(answered) <= {*runs, *jobs}, "a write that was answered is lost"
    assert set(Counter(run.partition(".")[0] for run in runs).values()) == {1}, "a write was repeated"
    # The command line works with any of the schedulers.
    assert standby.json("job", "show", "job-1")["jobName"] == "job-1"
    standby.run("job", "trigger", "job-1", "--wait")
    assert "job-1" in standby.run("runs", "job-1")
