"""Pools, calendars, environment and placeholders in the whole product, over the kill of a scheduler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("structlog", reason="the extra [server] is not installed")

from tests.whole_kit import Product, until

from jobcloud.dev.cluster import DevCluster

pytestmark = pytest.mark.dev_cluster

SLOTS = 2
CODE = """
import json, os, time
from pathlib import Path
from jobcloud.job import ShardingContext, SimpleJob

class Work(SimpleJob):
    def execute(self, ctx: ShardingContext) -> None:
        out = Path(os.environ["OUT"])
        about = {"job": ctx.job_name, "run": ctx.run_id, "item": ctx.sharding_item, "region": os.environ["REGION"],
                 "parameter": ctx.job_parameter, "own": ctx.sharding_parameter}
        note(out, {"begins": True, **about})
        while not (out / "go").exists():
            time.sleep(0.05)
        note(out, {"begins": False, **about})

def note(out: Path, line: dict) -> None:
    with open(out / "notes.jsonl", "ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\\n")
"""
MANIFEST = """
[app]
appName = "shop"
cpuCount = 0.1
memoryMB = 64
environment = ["REGION=eu", "OUT={out}"]

[[pools]]
poolName = "orders-db"
slots = {slots}

[[calendars]]
calendarName = "now"
days = ["{yesterday}/{tomorrow}"]

[[jobs]]
jobName = "load"
onlyOn = ["now"]
shardingItemParameters = "0=a,1=b-{{item}},2=c,3=d"
placeholders = ["jobParameter", "shardingItemParameters"]
{common}

[[jobs]]
jobName = "pause"
skipOn = ["now"]
isolation = "process"
environment = ["REGION=us"]
placeholders = ["jobParameter"]
{common}
"""
COMMON = """
jobType = "SIMPLE"
jobClass = "work:Work"
jobExecutionType = "TRANSIENT"
cron = "* * * * * ?"
shardingTotalCount = 4
pools = ["orders-db"]
jobParameter = "{fire_time:%Y-%m-%d} {run_id} {shard_count}"
cpuCount = 0.1
memoryMB = 16
"""


class Limited:
    """A scheduler with jobs that share a pool. `out`: the folder in which they write."""

    def __init__(self, product: Product, master: str, out: Path) -> None:
        self.product, self.out, self._master = product, out, master

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.product.start("scheduler", "--mesos", self._master, "--port", str(self.product.port))
        until(self.product.healthy, "a healthy server")
        return process

    def apply(self) -> Any:
        app = self.product.folder / "shop"
        app.mkdir()
        (app / "work.py").write_text(CODE)
        today = datetime.now(UTC).date()
        days = {"yesterday": today - timedelta(1), "tomorrow": today + timedelta(1)}
        (app / "jobcloud.toml").write_text(MANIFEST.format(out=self.out, slots=SLOTS, common=COMMON, **days))
        return self.product.json("apply", "-f", str(app))["items"]

    def notes(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in (self.out / "notes.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Limited]:
    product = Product(tmp_path)
    product.environ |= {"JOBCLOUD_DATA": str(product.data), "JOBCLOUD_ARTIFACTS_PORT": "0"}
    out = tmp_path / "out"
    out.mkdir()
    with DevCluster(agents=2) as cluster:
        try:
            yield Limited(product, cluster.master, out)
        finally:
            product.end()


def test_pool_calendar_environment_and_placeholders_hold_over_a_killed_scheduler(limited: Limited) -> None:
    product, process = limited.product, limited.serve()
    added = [f"{item['kind']} {item['key']}" for item in limited.apply() if item["action"] == "added"]
    assert added == ["pool orders-db", "calendar now", "app shop", "job load", "job pause"]
    until(lambda: len(limited.notes()) == SLOTS, "the shards for which the pool has slots")
    assert product.get("pools/orders-db")["used"] == SLOTS
    reasons = product.get("jobs/load/explain")["reasons"]
    assert [reason["code"] for reason in reasons if "orders-db" in reason["text"]] == ["pool"]
    (run,) = product.get("runs", job="load")["items"]

    process.kill()
    process.wait()
    limited.serve()
    until(lambda: product.get("pools/orders-db")["used"] == SLOTS, "the slots of the shards that run on")
    # The new leader has looked at the queue, and starts no further shard.
    until(lambda: product.get("pools/orders-db")["waiting"] == 4 - SLOTS, "the shards that wait")
    assert len(limited.notes()) == SLOTS
    (limited.out / "go").touch()
    until(lambda: run["id"] in {one["id"] for one in product.runs("load")}, "the end of the run")

    # A day of a calendar that is gone makes the other job fire.
    assert product.runs("pause") == []
    product.run("calendar", "put", "now", "--day", "2098-01-01")
    until(lambda: product.runs("pause"), "a run of the job that was excluded")

    seen = limited.notes()
    of_run = [one for one in seen if one["run"] == run["id"] and one["begins"]]
    day = run["firedAt"][:10]
    assert sorted(one["item"] for one in of_run) == [0, 1, 2, 3]
    assert {one["parameter"] for one in of_run} == {f"{day} {run['id']} 4"}
    assert {one["item"]: one["own"] for one in of_run} == {0: "a", 1: "b-1", 2: "c", 3: "d"}
    assert {(one["job"], one["region"]) for one in seen} == {("load", "eu"), ("pause", "us")}
    running = 0
    for one in seen:
        running += 1 if one["begins"] else -1
        assert running <= SLOTS
