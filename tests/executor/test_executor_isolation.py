"""Isolated shards, maxParallel, and limits of time, memory, CPU and open files."""

from __future__ import annotations

from typing import Any

import pytest
from tests.executor_kit import EVERY_SECOND, PACKAGE, Ended, FakeAgent, Start, app_payload, living_in, wait_until

pytest_plugins = ["tests.executor_kit.fixtures"]

WAIT = "shop.jobs:wait_for_kill"


def run_alone(agent: FakeAgent, task: str, job_class: str, **more: Any) -> Ended:
    agent.launch(task, jobClass="shop.jobs:" + job_class, isolation="process", **more)
    return agent.end(task)


def test_each_shard_of_an_isolated_job_has_its_own_process(agent: FakeAgent, start: Start, python: str) -> None:
    executor = start(python=python)
    shared = agent.end(agent.launch("t0", jobClass="shop.jobs:Settle"))
    ends = [shared, *(run_alone(agent, task, "Settle") for task in ("t1", "t2"))]
    assert len({end.data["result"]["pid"] for end in ends}) == 3
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_FINISHED"]
    assert executor.output("t1") == "settling 0 \n"
    assert "logged run-t1" in executor.output("t1", "stderr")


@pytest.mark.parametrize(
    ("job", "cause", "exit_code"),
    [
        ("dies", "exit_code", 9),
        ("segfaults", "signal", -11),
        ("ends_well", "exit_code", 0),
        ("Raises", "exception", None),
    ],
)
def test_end_of_an_isolated_process_affects_its_shard_only(
    agent: FakeAgent, start: Start, job: str, cause: str, exit_code: int | None
) -> None:
    start()
    for sibling, isolation in (("a", "shared"), ("b", "process")):
        agent.launch(sibling, jobClass=WAIT, isolation=isolation)
        agent.state(sibling, "TASK_RUNNING")
    end = run_alone(agent, "t1", job)
    assert (end.state, end.cause, end.data.get("exitCode")) == ("TASK_FAILED", cause, exit_code), end
    for sibling in ("a", "b"):
        agent.kill(sibling)
        assert agent.end(sibling).state == "TASK_KILLED"
        assert agent.states(sibling) == ["TASK_RUNNING", "TASK_KILLED"]


@pytest.mark.parametrize("job", ["talks_nonsense", "answers_twice"])
def test_isolated_worker_that_breaks_the_protocol_ends_its_shard_only(agent: FakeAgent, start: Start, job: str) -> None:
    start()
    agent.launch("sibling", jobClass=WAIT)
    end = run_alone(agent, "t1", job)
    assert end.state == ("TASK_FAILED" if job == "talks_nonsense" else "TASK_FINISHED"), end
    agent.launch("next", jobClass="shop.jobs:works_on")
    assert agent.end("next").state == "TASK_FINISHED"
    assert agent.states("sibling") == ["TASK_RUNNING"]


def test_isolated_job_changes_only_its_own_directory_and_environment(agent: FakeAgent, start: Start) -> None:
    executor = start()
    pid = run_alone(agent, "t1", "changes_process").data["result"]
    agent.launch("t2", jobClass="shop.jobs:sees_process")
    for end in (agent.end("t2"), run_alone(agent, "t3", "sees_process")):
        assert end.data["result"][:3] == [str(executor.sandbox / "app"), None, None]
        assert end.data["result"][3] != pid


def test_output_of_an_isolated_jobs_children_is_in_its_log(agent: FakeAgent, start: Start) -> None:
    executor = start()
    run_alone(agent, "t1", "child_prints")
    assert sorted(executor.output("t1").splitlines()) == ["from a child", "from the job"]


def test_isolated_shard_leaves_no_process_when_its_end_is_reported(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:leaves_children", isolation="process", parameter="600")
    wait_until(lambda: len(living_in(executor.sandbox / "app")) == 2, "its child runs")
    agent.kill("t1")
    assert agent.end("t1").state == "TASK_KILLED"
    assert not living_in(executor.sandbox / "app")


def test_isolated_shard_that_ignores_the_kill_is_ended_without_harm_to_others(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("sibling", jobClass=WAIT)
    agent.launch("stubborn", jobClass="shop.jobs:never_returns", isolation="process")
    for task in ("sibling", "stubborn"):
        agent.state(task, "TASK_RUNNING")
    agent.kill("stubborn", grace_s=0.2)
    assert agent.end("stubborn").state == "TASK_KILLED"
    assert agent.states("sibling") == ["TASK_RUNNING"]
    assert len(living_in(executor.sandbox / "app")) == 1


def test_isolated_context_is_closed_before_the_end_is_reported(agent: FakeAgent, start: Start) -> None:
    executor = start()
    job: dict[str, Any] = {"beanName": "settle", "applicationContext": "shop.jobs:Pool", "isolation": "process"}
    agent.launch("t1", **job)
    assert agent.end("t1").state == "TASK_FINISHED"
    assert (executor.sandbox / "app" / "closed").exists()


def test_isolated_resident_job_keeps_its_process_between_executions(agent: FakeAgent, start: Start) -> None:
    executor = start()
    resident: dict[str, Any] = {"jobExecutionType": "DAEMON", "timer": EVERY_SECOND, "isolation": "process"}
    agent.launch("d1", jobClass="shop.jobs:Counts", **resident)
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) >= 3, "it runs")
    assert [line.split()[0] for line in executor.output("d1").splitlines()][:3] == ["1", "2", "3"]
    agent.kill("d1")
    assert agent.end("d1").state == "TASK_KILLED"
    wait_until(lambda: not living_in(executor.sandbox / "app"), "its process leaves")


def test_shards_above_max_parallel_wait_in_order(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, maxParallel=2)
    start()
    tasks = ["a", "b", "c", "d"]
    for task in tasks:
        agent.launch(task, jobClass=WAIT)
    for task in tasks[2:]:
        agent.state(task, "TASK_STARTING")
    agent.launch("own", jobClass="shop.jobs:works_on", isolation="process")
    assert agent.end("own").state == "TASK_FINISHED"
    agent.kill("d")
    assert agent.end("d").state == "TASK_KILLED"
    assert agent.states("d") == ["TASK_STARTING", "TASK_KILLED"]
    assert agent.states("c") == ["TASK_STARTING"]
    agent.kill("a")
    agent.state("c", "TASK_RUNNING")
    assert agent.states("b") == ["TASK_RUNNING"]


def test_waiting_shards_start_in_a_new_worker_after_a_loss(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, maxParallel=1)
    start()
    agent.launch("first", jobClass="shop.jobs:dies")
    agent.launch("second", jobClass="shop.jobs:dies")
    agent.launch("third", jobClass="shop.jobs:works_on")
    assert [agent.end(task).cause for task in ("first", "second", "third")] == ["worker_lost", "worker_lost", None]


@pytest.mark.parametrize(
    "job",
    [
        {"jobClass": WAIT},
        {"jobClass": "shop.jobs:never_returns", "isolation": "process"},
        {"jobClass": WAIT, "isolation": "process"},
        {"jobType": "SCRIPT", "scriptCommandLine": "sh -c 'sleep 600'"},
    ],
)
def test_execution_over_its_time_limit_fails_with_cause_timeout(
    agent: FakeAgent, start: Start, job: dict[str, Any]
) -> None:
    executor = start()
    grace = {"kill_policy": {"grace_period": {"nanoseconds": 200_000_000}}}
    agent.launch("t1", timeoutSeconds=0.3, info=grace, **job)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "timeout"), end
    assert "timeoutSeconds (0.3)" in end.message
    wait_until(lambda: len(living_in(executor.sandbox / "app")) <= ("isolation" not in job), "nothing is left of it")


def test_execution_within_its_time_limit_is_left_alone_and_a_kill_is_no_timeout(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("quick", jobClass="shop.jobs:works_on", timeoutSeconds=60)
    assert agent.end("quick").state == "TASK_FINISHED"
    agent.launch("killed", jobClass=WAIT, timeoutSeconds=60)
    agent.state("killed", "TASK_RUNNING")
    agent.kill("killed")
    assert (agent.end("killed").state, agent.end("killed").cause) == ("TASK_KILLED", "killed")


def test_resident_execution_over_its_time_limit_fails_and_the_task_continues(agent: FakeAgent, start: Start) -> None:
    start()
    resident: dict[str, Any] = {"jobExecutionType": "DAEMON", "timer": EVERY_SECOND, "timeoutSeconds": 0.2}
    agent.launch("d1", jobClass=WAIT, **resident)
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) >= 2, "it runs again")
    assert {report["cause"] for report in agent.reports("d1", "COMPLETE")} == {"timeout"}
    assert "TASK_FAILED" not in agent.states("d1")


@pytest.mark.parametrize(
    ("limit", "job", "said"),
    [
        ({"memoryLimitMB": 512}, {"jobClass": "shop.jobs:takes_memory", "parameter": "600"}, "MemoryError"),
        ({"openFilesLimit": 64}, {"jobClass": "shop.jobs:opens_files"}, "Too many open files"),
        ({"cpuLimitSeconds": 1}, {"jobClass": "shop.jobs:burns_cpu"}, "SIGXCPU"),
    ],
)
def test_isolated_process_is_held_to_its_limits(
    agent: FakeAgent, start: Start, limit: dict[str, Any], job: dict[str, Any], said: str
) -> None:
    start()
    agent.launch("t1", isolation="process", **limit, **job)
    end = agent.end("t1")
    assert end.state == "TASK_FAILED"
    assert said in end.message, end
    agent.launch("t2", isolation="process", jobClass="shop.jobs:takes_memory", parameter="600")
    assert agent.end("t2").state == "TASK_FINISHED"


def test_script_is_held_to_its_limits(agent: FakeAgent, start: Start) -> None:
    executor = start()
    command = "sh -c 'ulimit -n; ulimit -t; ulimit -v'"
    limits: dict[str, Any] = {"openFilesLimit": 50, "cpuLimitSeconds": 7, "memoryLimitMB": 300}
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine=command, **limits)
    assert agent.end("s1").state == "TASK_FINISHED"
    assert executor.output("s1").split() == ["50", "7", str(300 * 1024)]


@pytest.mark.parametrize("field", ["timeoutSeconds", "memoryLimitMB", "cpuLimitSeconds", "openFilesLimit"])
def test_invalid_limit_is_refused_by_name(agent: FakeAgent, start: Start, field: str) -> None:
    start()
    limit: dict[str, Any] = {field: -1}
    agent.launch("t1", jobClass="shop.jobs:works_on", **limit)
    assert agent.end("t1").state == "TASK_ERROR"
    assert field in agent.end("t1").message
