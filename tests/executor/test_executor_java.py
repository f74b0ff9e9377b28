"""An app whose worker is a JVM: JARs with unmodified classes for Elastic-Job 2.1.5 and 3.0."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import FakeAgent, Start, app_payload, needs_jdk, task_payload
from tests.executor_kit.workers import compile_java

from jobcloud.client.pack import pack
from jobcloud.server.api.rules import MAX_TEXT_BYTES

pytest_plugins = ["tests.executor_kit.fixtures"]
pytestmark = needs_jdk

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "java-worker"
LAUNCHER = "java -XX:TieredStopAtLevel=1 -jar worker.jar"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("java-app")
    subprocess.run(["sh", str(EXAMPLE / "build.sh"), str(out)], check=True)
    archive = tmp_path_factory.mktemp("package") / "package.zip"
    pack(out, archive)
    return archive.read_bytes()


def test_job_jars_run_in_one_jvm_that_keeps_its_context(agent: FakeAgent, start: Start, package: bytes) -> None:
    agent.executor_data = app_payload(package, workerCommand=LAUNCHER)
    executor = start(package)
    agent.launch("settle", item=1, parameter="Paris", jobClass="com.example.shop.SettleJob")
    assert agent.end("settle").state == "TASK_FINISHED", agent.end("settle")
    assert executor.output("settle") == "settling 1 of 4: Paris\n"
    agent.launch("ship", jobType="DATAFLOW", streamingProcess=True, jobClass="com.example.shop.ShipJob")
    assert agent.end("ship").state == "TASK_FINISHED"
    assert executor.output("ship") == "shipping [3]\nshipping [2]\nshipping [1]\n"
    for number in (1, 2, 3):
        task = f"bean{number}"
        agent.launch(task, applicationContext="com.example.shop.Shop", beanName="counting")
        assert agent.end(task).state == "TASK_FINISHED"
        assert executor.output(task) == f"context 1, run {number}\n"
    executor.stop()
    assert "the shop is closed" in (executor.sandbox / "worker" / "stderr").read_text()


def jobs_of(text: str) -> dict[str, dict[str, Any]]:
    return {job["jobName"]: job for job in tomllib.loads(text)["jobs"]}


def test_documented_jobs_are_those_of_the_examples() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "java.md").read_text(), re.DOTALL)
    written = [
        jobs_of((ROOT / "examples" / name / "jobcloud.toml").read_text()) for name in ("java-worker", "java-spring")
    ]
    known = written[0] | written[1]
    documented = jobs_of("\n".join(blocks))
    assert documented.keys() == {"interest", "returns"}
    for name, job in documented.items():
        assert job.items() <= known[name].items()
    source = (EXAMPLE / "app" / "com" / "example" / "shop" / "Returns.java").read_text()
    (code,) = re.findall(r"```java\n(.*?)\n\}\n```", (ROOT / "docs" / "java.md").read_text(), re.DOTALL)
    assert re.sub(r" +//.*", "", code) in source


def test_listeners_and_handlers_of_a_java_job_are_called(agent: FakeAgent, start: Start, package: bytes) -> None:
    job = jobs_of((EXAMPLE / "jobcloud.toml").read_text())["returns"]
    handlers = job["jobProperties"]
    described = {
        "jobClass": job["jobClass"],
        "listener": job["listener"],
        "distributedListener": job["distributedListener"]["class"],
        "errorHandler": handlers["job_exception_handler"],
        "executorService": handlers["executor_service_handler"],
    }
    agent.executor_data = app_payload(package, workerCommand=LAUNCHER)
    executor = start(package)
    before = task_payload("before", item=-1, **described)
    agent.launch("before", before | {"step": "before", "firing": {"parameters": {"0": "Berlin", "1": "Paris"}}})
    assert agent.end("before").state == "TASK_FINISHED", agent.end("before")
    assert executor.output("before") == "opening the ledger for {0=Berlin, 1=Paris}\n"
    agent.launch("good", item=1, parameter="Paris", **described)
    assert agent.end("good").state == "TASK_FINISHED", agent.end("good")
    assert executor.output("good") == "before {1=Paris}\nchecking returns of Paris\nafter {1=Paris}\n"
    agent.launch("bad", item=2, **described)
    assert (agent.end("bad").state, agent.end("bad").cause) == ("TASK_FAILED", "exception")
    assert executor.output("bad") == "before {2=}\nafter {2=}\npaging for settle: no city\n"
    agent.launch("refund", jobType="DATAFLOW", jobClass="com.example.shop.Returns$Refund")
    assert agent.end("refund").state == "TASK_FINISHED", agent.end("refund")
    assert executor.output("refund") == "refunding order 7\n"


@pytest.mark.parametrize("text", ["a", 'é😀"\\\n'], ids=["ascii", "escapes"])
def test_largest_parameters_reach_a_java_job(agent: FakeAgent, start: Start, package: bytes, text: str) -> None:
    largest = text * (MAX_TEXT_BYTES // (len(json.dumps(text)) - 2))
    agent.executor_data = app_payload(package, workerCommand=LAUNCHER)
    executor = start(package)
    payload = task_payload("t1", item=1, parameter=largest, jobClass="com.example.shop.SettleJob")
    payload["shardingContext"]["jobParameter"] = largest
    agent.launch("t1", payload)
    assert agent.end("t1").state == "TASK_FINISHED", agent.end("t1")
    assert executor.output("t1") == f"settling 1 of 4: {largest}\n"


def test_java_shard_can_have_its_own_jvm(agent: FakeAgent, start: Start, package: bytes) -> None:
    agent.executor_data = app_payload(package, workerCommand=LAUNCHER)
    executor = start(package)
    agent.launch("t1", jobClass="com.example.shop.SettleJob", isolation="process")
    assert agent.end("t1").state == "TASK_FINISHED", agent.end("t1")
    assert executor.output("t1") == "settling 0 of 4: \n"


def test_exit_in_a_java_job_is_a_lost_worker_or_the_exit_code_of_its_own_jvm(
    agent: FakeAgent, start: Start, package: bytes, tmp_path: Path
) -> None:
    classes = tmp_path / "classes"
    source = tmp_path / "Exits.java"
    source.write_text(
        "public class Exits implements com.dangdang.ddframe.job.api.simple.SimpleJob {"
        "  public void execute(com.dangdang.ddframe.job.api.ShardingContext context) { System.exit(3); } }"
    )
    (tmp_path / "worker.jar").write_bytes(zipfile.ZipFile(io.BytesIO(package)).read("worker.jar"))
    compile_java(classes, [source], tmp_path / "worker.jar")
    out = io.BytesIO(package)
    with zipfile.ZipFile(out, "a") as archive:
        archive.write(classes / "Exits.class", "Exits.class")
    agent.executor_data = app_payload(out.getvalue(), workerCommand=LAUNCHER)
    start(out.getvalue())
    agent.launch("shared", jobClass="Exits")
    assert (agent.end("shared").state, agent.end("shared").cause) == ("TASK_FAILED", "worker_lost")
    agent.launch("own", jobClass="Exits", isolation="process")
    end = agent.end("own")
    assert (end.state, end.cause, end.data["exitCode"]) == ("TASK_FAILED", "exit_code", 3)
    agent.launch("next", jobClass="com.example.shop.SettleJob")
    assert agent.end("next").state == "TASK_FINISHED"


def test_worker_command_that_cannot_be_started_fails_the_task_with_the_reason(
    agent: FakeAgent, start: Start, package: bytes
) -> None:
    agent.executor_data = app_payload(package, workerCommand="no-such-java -jar worker.jar")
    start(package)
    agent.launch("t1", jobClass="com.example.shop.SettleJob")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "command")
    assert "no-such-java" in end.message
