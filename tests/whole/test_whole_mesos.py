"""The demo on a real Apache Mesos with three agents, with the scheduler and executor of production."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.whole_kit import ROOT, Product, add_demo, attempts, until

from jobcloud.dev.tcp_ports import free_port

pytestmark = pytest.mark.mesos


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = os.environ.get("JOBCLOUD_TEST_MESOS")
    if not command:
        pytest.skip("needs a real Mesos: set JOBCLOUD_TEST_MESOS to the command that starts one")
    work = tmp_path_factory.mktemp("mesos")
    argv = [command, "up", "--port", "0", "--agents", "3", "--with-parent", "--work-dir", str(work)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), line
        yield line.split()[1].removeprefix("master=")
        process.terminate()
        process.wait(30)


@pytest.fixture
def product(tmp_path: Path, master: str) -> Iterator[Product]:
    made = Product(tmp_path)
    yield made
    try:
        if made.healthy():
            made.run("framework", "teardown", "--confirm", made.json("cluster")["frameworkId"])
    finally:
        made.end()


def state(master: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{master}/state", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def framework(master: str, framework_id: str) -> dict[str, Any]:
    seen = state(master)
    return next(f for f in seen["frameworks"] + seen["completed_frameworks"] if f["id"] == framework_id)


def serve(product: Product, master: str) -> subprocess.Popen[bytes]:
    product.environ["JOBCLOUD_ARTIFACTS_PORT"] = product.environ.get("JOBCLOUD_ARTIFACTS_PORT", "0")
    process = product.start("scheduler", "--mesos", master, "--data", str(product.data), "--port", str(product.port))
    until(product.healthy, "a healthy server")
    return process


def test_demo_survives_kill_stop_and_teardown_on_mesos(product: Product, master: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = serve(product, master)
    add_demo(product, output)
    until(lambda: product.runs("sales"), "a finished run")
    # The newest task of the shard may not have written yet.
    until(lambda: "north" in product.run("logs", "sales/0"), "the log of the shard")
    framework_id = product.json("cluster")["frameworkId"]

    # Mesos and jobcloud agree about every task that ended.
    ended = {run["id"] for run in product.runs("sales")}
    tasks = {task["id"] for task in product.json("tasks") if task["runId"] in ended}
    completed = {task["id"]: task["state"] for task in framework(master, framework_id)["completed_tasks"]}
    assert tasks
    assert {completed[task] for task in tasks} == {"TASK_FINISHED"}

    process.kill()
    process.wait()
    process = serve(product, master)
    assert product.json("cluster")["frameworkId"] == framework_id
    before = len(product.runs("sales"))
    until(lambda: len(product.runs("sales")) > before, "a run after the kill")

    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert [t["name"] for t in framework(master, framework_id)["tasks"] if t["state"] == "TASK_RUNNING"] == [
        "pulse@-@0"
    ]
    process = serve(product, master)
    before = len(product.runs("sales"))
    until(lambda: len(product.runs("sales")) > before, "a run after the stop")
    pulse = [t["id"] for t in framework(master, framework_id)["tasks"] if t["name"] == "pulse@-@0"]
    assert len(pulse) == 1, "the resident task was adopted, not restarted"

    product.run("framework", "teardown", "--confirm", "another-framework", code=1)
    product.run("framework", "teardown", "--confirm", framework_id)
    assert process.wait(60) == 0
    until(lambda: framework_id in {f["id"] for f in state(master)["completed_frameworks"]}, "the framework to be gone")
    assert set(attempts(output).values()) == {1}


def test_second_framework_gets_offers_while_first_one_is_idle_or_waits(
    product: Product, master: str, tmp_path: Path
) -> None:
    serve(product, master)
    add_demo(product, tmp_path / "output")
    until(lambda: product.runs("sales"), "a finished run")
    # A shard that fits on no agent waits for ever. The scheduler must not keep offers for it.
    job = product.json("job", "show", "sales")
    config = {key: value for key, value in job.get("config", job).items() if key in WANTED}
    config |= {"jobName": "giant", "cpuCount": 500, "shardingTotalCount": 1, "shardingItemParameters": ""}
    file = tmp_path / "giant.json"
    file.write_text(json.dumps(config))
    product.run("job", "add", str(file))
    product.run("job", "trigger", "giant")
    until(lambda: "cpus" in product.run("explain", "giant"), "an explanation that names the resource")

    other = Product(tmp_path / "other")
    other.folder.mkdir()
    try:
        serve(other, master)
        add_demo(other, tmp_path / "other-output")
        until(lambda: other.runs("sales"), "a run of the second framework")
        before = len(product.runs("sales"))
        until(lambda: len(product.runs("sales")) > before, "a further run of the first framework")
        other.run("framework", "teardown", "--confirm", other.json("cluster")["frameworkId"])
    finally:
        other.end()


WANTED = {
    "jobName", "appName", "jobClass", "jobType", "cron", "shardingTotalCount", "shardingItemParameters",
    "jobExecutionType", "cpuCount", "memoryMB", "jobParameter",
}  # fmt: skip


def test_warm_executors_on_each_agent_survive_scheduler_and_end_when_disabled(
    product: Product, master: str, tmp_path: Path
) -> None:
    process = serve(product, master)
    add_demo(product, tmp_path / "output")
    framework_id = product.json("cluster")["frameworkId"]

    def placeholders() -> set[str]:
        tasks = framework(master, framework_id)["tasks"]
        return {task["id"] for task in tasks if task["name"].startswith("keeper=") and task["state"] == "TASK_RUNNING"}

    manifest = product.folder / "demo" / "jobcloud.toml"
    manifest.write_text(manifest.read_text().replace("[app]", '[app]\nexecutors = "each"', 1))
    product.run("app", "add", str(manifest.parent))
    kept = until(lambda: len(found := placeholders()) == 3 and found, "a warm executor on each agent")
    process.kill()
    process.wait()
    # The next scheduler serves its artifacts at another address. The running executors must still match.
    product.environ["JOBCLOUD_ARTIFACTS_PORT"] = str(free_port())
    serve(product, master)
    before = len(product.runs("sales"))
    until(lambda: len(product.runs("sales")) > before, "a run after the kill")
    assert placeholders() == kept
    product.run("app", "disable", "demo")
    until(lambda: not placeholders(), "the end of the warm executors")


def test_jobs_get_their_secrets_and_mesos_shows_neither_values_nor_tokens(
    product: Product, master: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path / "secrets"
    (source / "default").mkdir(parents=True)
    for name in ("signing-key", "db-password", "client-key"):
        (file := source / "default" / name).write_text(f"c4n4ry-{name}\n")
        file.chmod(0o600)
    product.environ["JOBCLOUD_SECRETS_DIRECTORY"] = str(source)
    serve(product, master)
    product.run("app", "add", str(ROOT / "examples" / "secrets"))
    for job in ("sign", "connect"):
        product.run("job", "trigger", job)
        run = until(lambda job=job: product.runs(job), f"a finished run of {job}")[0]  # type: ignore[misc]
        attempt = product.get(f"runs/{run['id']}/shards/0/attempts")["items"][0]
        if job == "sign":
            signed = hmac.new(b"c4n4ry-signing-key", b"hello", hashlib.sha256).hexdigest()
            assert attempt["result"] == {"signature": signed}
        else:
            assert "key of 18 bytes with mode 600" in product.run("logs", attempt["taskId"])
    seen = json.dumps(state(master))
    files = (path for folder in tmp_path_factory.getbasetemp().glob("mesos*") for path in folder.rglob("*"))
    contents = ((str(path), path.read_bytes()) for path in files if path.is_file() and not path.is_symlink())
    found = [name for name, content in contents if b"c4n4ry" in content or b"jcx1." in content]
    assert found == []
    assert "c4n4ry" not in seen
    assert "jcx1." not in seen
