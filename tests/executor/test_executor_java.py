"""An app whose worker is a JVM: JARs with unmodified classes for Elastic-Job 2.1.5."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.executor_kit import FakeAgent, Start, app_payload, needs_jdk, task_payload

from jobcloud.client.pack import pack
from jobcloud.server.api.rules import MAX_TEXT_BYTES

pytest_plugins = ["tests.executor_kit.fixtures"]
pytestmark = needs_jdk

EXAMPLE = Path(__file__).parents[2] / "examples" / "java-worker"
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


def test_worker_command_that_cannot_be_started_fails_the_task_with_the_reason(
    agent: FakeAgent, start: Start, package: bytes
) -> None:
    agent.executor_data = app_payload(package, workerCommand="no-such-java -jar worker.jar")
    start(package)
    agent.launch("t1", jobClass="com.example.shop.SettleJob")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "command")
    assert "no-such-java" in end.message
