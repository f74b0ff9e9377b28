"""The examples in Java on a dev cluster: registered by the command line, fired by the scheduler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.executor_kit import needs_jdk, needs_spring
from tests.whole_kit import ROOT, Product, until

pytestmark = [pytest.mark.dev_cluster, needs_jdk, needs_spring]


def test_jobs_of_both_examples_run_with_their_listeners_and_spring(dev: Product, tmp_path: Path) -> None:
    for name in ("java-worker", "java-spring"):
        subprocess.run(["sh", str(ROOT / "examples" / name / "build.sh"), str(tmp_path / name)], check=True)
    dev.start("dev", "--agents", "1", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    said = dev.run("app", "add", str(tmp_path / "java-worker"), "--name", "java-shop")
    said += dev.run("app", "add", str(tmp_path / "java-spring"), "--name", "java-bank")
    assert "warning" not in said
    for job in ("settle", "ship", "counting", "returns", "refund", "interest", "statements"):
        until(lambda job=job: dev.runs(job), f"a finished run of {job}")  # type: ignore[misc]
    (run, *_) = dev.runs("returns")
    log = dev.get(f"runs/{run['id']}/shards/1/attempts/1/logs")["text"]
    assert log == "before {1=Paris}\nchecking returns of Paris\nafter {1=Paris}\n"
    assert "accounts 1, use " in dev.get(f"runs/{dev.runs('interest')[0]['id']}/shards/0/attempts/1/logs")["text"]
    change = dev.get("jobs/returns")["config"] | {"secrets": ["KEY=secret:key"]}
    status, answer = dev.call("jobs/returns", "PUT", change)
    assert (status, answer["errors"][0]["field"]) == (422, "secrets"), answer
    (tmp_path / "java-spring" / "lib" / "geronimo-annotation-1.3-spec.jar").unlink()
    said = dev.run("app", "update", str(tmp_path / "java-spring"), "--name", "java-bank")
    assert "warning: job " in said
    assert "no JAR has javax.annotation" in said
