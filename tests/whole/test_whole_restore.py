"""Backup and restore of a whole product, with work that goes on and ends after the backup."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("structlog", reason="the extra [server] is not installed")

from tests.whole_kit import Product, until

from jobcloud.dev.cluster import DevCluster

pytestmark = pytest.mark.dev_cluster

CODE = """
import json, os, time
from pathlib import Path
from jobcloud.job import ShardingContext, SimpleJob

class Work(SimpleJob):
    def execute(self, ctx: ShardingContext) -> None:
        out = Path(ctx.job_parameter)
        line = {"job": ctx.job_name, "run": ctx.run_id, "item": ctx.sharding_item, "attempt": ctx.attempt,
                "fence": ctx.fence, "task": ctx.task_id}
        with open(out / "begun.jsonl", "ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\\n")
        while not (out / f"go-{ctx.job_name}").exists():
            time.sleep(0.05)
"""
JOB = """
[[jobs]]
jobName = "{name}"
jobType = "SIMPLE"
jobClass = "work:Work"
jobExecutionType = "TRANSIENT"
cron = "0 0 0 1 1 ? 2099"
shardingTotalCount = 2
jobParameter = "{output}"
failover = {failover}
cpuCount = 0.1
memoryMB = 32
"""


class Restorable:
    """A scheduler whose state is saved and put back."""

    def __init__(self, product: Product, master: str, output: Path) -> None:
        self.product, self.output, self._master = product, output, master
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = self.product.start("scheduler", "--mesos", self._master, "--port", str(self.product.port))
        until(self.product.healthy, "a healthy server")

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0

    def add_jobs(self, **failover: bool) -> None:
        app = self.product.folder / "app"
        app.mkdir()
        (app / "work.py").write_text(CODE)
        jobs = (
            JOB.format(name=name, output=self.output, failover=str(wanted).lower()) for name, wanted in failover.items()
        )
        (app / "jobcloud.toml").write_text('[app]\nappName = "work"\ncpuCount = 0.1\nmemoryMB = 64\n' + "".join(jobs))
        self.product.run("app", "add", str(app))

    def trigger(self, *jobs: str) -> None:
        for job in jobs:
            self.product.run("job", "trigger", job)

    def let_go(self, *jobs: str) -> None:
        for job in jobs:
            (self.output / f"go-{job}").touch()

    def begun(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in (self.output / "begun.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def attempts(self, job: str) -> Counter[tuple[int, int]]:
        return Counter((line["item"], line["attempt"]) for line in self.begun() if line["job"] == job)

    def log(self) -> str:
        return (self.product.folder / "scheduler.log").read_text()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("zookeeper", marks=pytest.mark.zookeeper),
        pytest.param("etcd", marks=pytest.mark.etcd),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restorable]:
    product = Product(tmp_path)
    product.environ |= {"JOBCLOUD_DATA": str(product.data), "JOBCLOUD_ARTIFACTS_PORT": "0"}
    if request.param == "zookeeper":
        product.environ |= {
            "JOBCLOUD_ZOOKEEPER_HOSTS": request.getfixturevalue("zookeeper_hosts"),
            "JOBCLOUD_ZOOKEEPER_NAMESPACE": f"test/{tmp_path.name}",
        }
    if request.param == "etcd":
        product.environ |= {
            "JOBCLOUD_ETCD_HOSTS": request.getfixturevalue("etcd_hosts"),
            "JOBCLOUD_ETCD_PREFIX": f"test/{tmp_path.name}",
        }
    output = tmp_path / "output"
    output.mkdir()
    with DevCluster(agents=2) as cluster:
        try:
            yield Restorable(product, cluster.master, output)
        finally:
            product.end()


def test_deleted_state_stops_the_scheduler_until_it_is_restored(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.environ |= {"JOBCLOUD_DATA": str(product.data), "JOBCLOUD_ARTIFACTS_PORT": "0"}
    arguments = ("scheduler", "--mesos", "127.0.0.1:1", "--port", str(product.port))
    file = str(tmp_path / "state.backup")
    try:
        process = product.start(*arguments)
        until(lambda: product.call("health")[1].get("leading"), "a leader")
        product.run("backup", file)
        for path in product.data.glob("jobcloud.db*"):
            path.unlink()
        assert process.wait(60) == 1
        log = (tmp_path / "scheduler.log").read_text()
        assert "stepped down" in log
        assert "was deleted or replaced while this scheduler used it" in log
        assert "is empty, but" in product.run(*arguments, code=6)
        product.run("restore", file)
        product.start(*arguments)
        until(lambda: product.call("health")[1].get("leading"), "a leader of the restored state")
        assert "was restored" in product.call("health")[1]["warnings"][0]
    finally:
        product.end()


def test_work_that_ended_after_the_backup_is_repeated_only_with_failover(place: Restorable) -> None:
    product, file = place.product, place.product.folder / "state.backup"
    place.start()
    place.add_jobs(once=False, again=True, long=True)
    place.trigger("once", "again", "long")
    until(lambda: len(place.begun()) == 6, "all shards to run")
    assert product.json("backup", str(file))["tasks"] == 6

    place.let_go("once", "again")
    until(lambda: product.runs("once") and product.runs("again"), "the ends after the backup")
    place.trigger("once")
    until(lambda: len(product.runs("once")) == 2, "a run that the backup does not know")
    epoch_before = max(line["fence"] for line in place.begun()) // 1_000_000_000

    assert "scheduler" in product.run("restore", str(file), code=1) or "leads" in product.run(
        "restore", str(file), code=1
    )
    place.stop()
    done = product.json("restore", str(file))
    assert done["epoch"] > epoch_before
    assert len(done["before"]) == 1
    place.start()

    until(lambda: product.runs("again"), "the repeated run")
    until(lambda: product.runs("once", "FAILED"), "the run that may have ended")
    until(lambda: "have ended since the backup" in place.log(), "the summary")
    place.let_go("long")
    until(lambda: product.runs("long"), "the run that went on")

    assert place.attempts("long") == {(0, 1): 1, (1, 1): 1}, "adopted, not repeated"
    assert place.attempts("again") == {(0, 1): 1, (1, 1): 1, (0, 2): 1, (1, 2): 1}
    assert place.attempts("once") == {(0, 1): 2, (1, 1): 2}, "of two runs"
    fences = [line["fence"] for line in place.begun()]
    assert len(set(fences)) == len(fences), "no fence token was issued twice"
    assert "the state was restored at" in place.log()
    assert "of the restored tasks, 2 still run, and 4 have ended since the backup" in place.log()
