"""The executor daemon as a process against a scripted agent: what it runs, what it reports, what it survives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executor_kit import ExecutorProcess, FakeAgent, app_payload, interpreters, wait_until, zip_of

FILES = {
    "shop/__init__.py": "",
    "shop/jobs.py": """\
import os, sys, time
from jobcloud.job import SimpleJob, DataflowJob

class Settle(SimpleJob):
    def execute(self, ctx):
        print("settling", ctx.sharding_item, ctx.sharding_parameter)
        print("to stderr", file=sys.stderr)
        ctx.logger.info("logged %s", ctx.run_id)
        return {"item": ctx.sharding_item, "run": ctx.run_id, "attempt": ctx.attempt, "fence": ctx.fence,
                "fire": ctx.fire_time_ms, "pid": os.getpid(), "cwd": os.getcwd()}

class Raises(SimpleJob):
    def execute(self, ctx):
        raise ValueError("no stock")

def plain(ctx):
    return ctx.job_parameter

def wait_for_kill(ctx):
    print("waiting")
    while not ctx.cancelled:
        time.sleep(0.01)

def never_returns(ctx):
    while True:
        time.sleep(0.01)

def dies(ctx):
    os._exit(9)
""",
    "bin/run.py": """\
#!/usr/bin/env python3
import json, os, sys
facts = {name: value for name, value in os.environ.items() if name.startswith("JOBCLOUD_")}
print(json.dumps({"argv": sys.argv[1:], "facts": facts, "cwd": os.getcwd(), "group": os.getpgrp() == os.getpid()}))
print("a word on stderr", file=sys.stderr)
sys.exit(int(json.loads(sys.argv[-1])["shardingItem"]))
""",
}
PACKAGE = zip_of(FILES)

Start = Callable[..., ExecutorProcess]


@pytest.fixture(params=interpreters(), ids=lambda path: "oldest" if "3.9" in path else "own", scope="session")
def python(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    agent = FakeAgent(app_payload(PACKAGE))
    yield agent
    agent.down()


@pytest.fixture
def start(agent: FakeAgent, tmp_path: Path) -> Iterator[Start]:
    started: list[ExecutorProcess] = []

    def begin(package: bytes | None = PACKAGE, python: str = interpreters()[0], **environment: str) -> ExecutorProcess:
        executor = ExecutorProcess(agent, tmp_path / f"sandbox{len(started)}", package, python, **environment)
        started.append(executor)
        return executor

    yield begin
    for executor in started:
        executor.stop()


def test_a_simple_job_runs_and_its_result_comes_back(agent: FakeAgent, start: Start, python: str) -> None:
    executor = start(python=python)
    agent.launch("t1", item=3, parameter="south", jobClass="shop.jobs:Settle")
    end = agent.end("t1")
    assert end.state == "TASK_FINISHED", end
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_FINISHED"]
    result = end.data["result"]
    assert result.pop("pid") != executor.process.pid
    assert result.pop("cwd") == str(executor.sandbox / "app")
    assert result == {"item": 3, "run": "run-t1", "attempt": 2, "fence": 7, "fire": 1_700_000_000_000}
    assert executor.output("t1") == "settling 3 south\n"
    assert "to stderr" in executor.output("t1", "stderr")
    assert "logged run-t1" in executor.output("t1", "stderr")


def test_a_script_gets_the_context_as_last_argument_and_the_facts_in_its_environment(
    agent: FakeAgent, start: Start, python: str
) -> None:
    executor = start(python=python)
    agent.launch("s1", parameter="a 'b' $HOME", jobType="SCRIPT", scriptCommandLine="bin/run.py --mode 'full run'")
    end = agent.end("s1")
    assert end.state == "TASK_FINISHED", end
    seen: dict[str, Any] = json.loads(executor.output("s1"))
    assert seen["argv"][:2] == ["--mode", "full run"]
    assert json.loads(seen["argv"][2]) == {
        "jobName": "settle",
        "taskId": "s1",
        "shardingTotalCount": 4,
        "jobParameter": "all",
        "shardingItem": 0,
        "shardingParameter": "a 'b' $HOME",
    }
    assert seen["facts"]["JOBCLOUD_FENCE"] == "7"
    assert seen["facts"]["JOBCLOUD_SHARDING_PARAMETER"] == "a 'b' $HOME"
    assert seen["cwd"] == str(executor.sandbox / "app")
    assert seen["group"]
    assert executor.output("s1", "stderr") == "a word on stderr\n"


def test_a_script_that_exits_with_another_code_than_zero_has_failed(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("s1", item=3, jobType="SCRIPT", scriptCommandLine="bin/run.py")
    end = agent.end("s1")
    assert (end.state, end.cause, end.data["exitCode"]) == ("TASK_FAILED", "exit_code", 3)
    assert end.message == "exit code 3\n\na word on stderr"


def test_an_exception_is_a_failure_and_its_last_line_comes_first(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs.Raises")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "exception")
    assert end.message.splitlines()[0] == "ValueError: no stock"
    assert "shop/jobs.py" in end.message
    assert "jobcloud/" not in end.message


def test_a_plain_function_is_a_job(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:plain")
    assert agent.end("t1").data["result"] == "all"


def test_a_dead_worker_fails_its_shards_and_the_next_task_gets_a_new_one(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("slow", jobClass="shop.jobs:never_returns")
    agent.state("slow", "TASK_RUNNING")
    agent.launch("dies", jobClass="shop.jobs:dies")
    for task in ("slow", "dies"):
        end = agent.end(task)
        assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
        assert "exit code 9" in end.message
    agent.launch("next", jobClass="shop.jobs:plain")
    assert agent.end("next").state == "TASK_FINISHED"


def test_an_idle_executor_leaves(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, idleTimeoutSeconds=0.3)
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:plain")
    assert agent.end("t1").state == "TASK_FINISHED"
    assert executor.wait() == 0


def test_a_cooperative_shard_is_killed_and_its_siblings_go_on(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("good", jobClass="shop.jobs:wait_for_kill")
    agent.launch("sibling", jobClass="shop.jobs:wait_for_kill")
    wait_until(lambda: executor.output("good") and executor.output("sibling"), "both run")
    agent.kill("good")
    assert agent.end("good").state == "TASK_KILLED"
    assert agent.states("sibling") == ["TASK_RUNNING"]
