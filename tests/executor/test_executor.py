"""The executor daemon as a process with a scripted agent: what it runs and reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.executor_kit import EVERY_SECOND, PACKAGE, FakeAgent, Start, app_payload, wait_until

pytest_plugins = ["tests.executor_kit.fixtures"]


def test_simple_job_runs_and_its_result_is_reported(agent: FakeAgent, start: Start, python: str) -> None:
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


def test_script_gets_the_shard_as_last_argument_and_everything_in_its_environment(
    agent: FakeAgent, start: Start, python: str
) -> None:
    executor = start(python=python)
    agent.launch("s1", parameter="a 'b' $HOME", jobType="SCRIPT", team="billing",
                 scriptCommandLine="bin/run.py --mode 'full run'")  # fmt: skip
    end = agent.end("s1")
    assert end.state == "TASK_FINISHED", end
    seen: dict[str, Any] = json.loads(executor.output("s1"))
    assert seen["argv"][:2] == ["--mode", "full run"]
    assert json.loads(seen["argv"][2]) == {
        "jobName": "settle",
        "taskId": "s1",
        "shardingTotalCount": 4,
        "shardingItem": 0,
    }
    assert seen["facts"]["JOBCLOUD_FENCE"] == "7"
    assert (seen["facts"]["JOBCLOUD_TEAM"], seen["facts"]["JOBCLOUD_JOB_NAME"]) == ("billing", "settle")
    assert seen["facts"]["JOBCLOUD_JOB_PARAMETER"] == "all"
    assert seen["facts"]["JOBCLOUD_SHARDING_PARAMETER"] == "a 'b' $HOME"
    assert seen["cwd"] == str(executor.sandbox / "app")
    assert seen["group"]
    assert executor.output("s1", "stderr") == "a word on stderr\n"


def test_script_with_a_nonzero_exit_code_fails(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("s1", item=3, jobType="SCRIPT", scriptCommandLine="bin/run.py")
    end = agent.end("s1")
    assert (end.state, end.cause, end.data["exitCode"]) == ("TASK_FAILED", "exit_code", 3)
    assert end.message == "exit code 3\n\na word on stderr"


def test_exception_is_a_failure_with_its_last_line_first(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs.Raises")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "exception")
    assert end.message.splitlines()[0] == "ValueError: no stock"
    assert "shop/jobs.py" in end.message
    assert "jobcloud/" not in end.message


def test_plain_function_is_a_job(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:plain")
    assert agent.end("t1").data["result"] == "all"


def test_dead_worker_fails_its_shards_and_the_next_task_gets_a_new_one(agent: FakeAgent, start: Start) -> None:
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


def test_idle_executor_exits(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, idleTimeoutSeconds=0.3)
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:plain")
    assert agent.end("t1").state == "TASK_FINISHED"
    assert executor.wait() == 0


def test_cooperative_shard_is_killed_and_its_siblings_continue(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("good", jobClass="shop.jobs:wait_for_kill")
    agent.launch("sibling", jobClass="shop.jobs:wait_for_kill")
    wait_until(lambda: executor.output("good") and executor.output("sibling"), "both run")
    agent.kill("good")
    assert agent.end("good").state == "TASK_KILLED"
    assert agent.states("sibling") == ["TASK_RUNNING"]


@pytest.mark.parametrize(
    ("job_class", "says"),
    [
        ("nowhere.jobs:Settle", "No module named 'nowhere'"),
        ("broken:Anything", "No module named 'no_such_module'"),
        ("shop.jobs:Missing", "there is no 'Missing' in 'shop.jobs'"),
        ("shop.jobs:NotAJob", "must be a jobcloud.job.SimpleJob"),
        ("shop.jobs:Unmakeable", "RuntimeError: no connection"),
        ("nodots", "write package.module:Name"),
        ("", "write package.module:Name"),
    ],
)
def test_invalid_job_class_is_named_with_the_reason(agent: FakeAgent, start: Start, job_class: str, says: str) -> None:
    start()
    agent.launch("t1", jobClass=job_class)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "import")
    assert repr(job_class) in end.message
    assert says in end.message


def test_exit_code_in_a_job_is_its_outcome(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("zero", item=0, jobClass="shop.jobs:exits")
    agent.launch("three", item=3, jobClass="shop.jobs:exits")
    assert agent.end("zero").state == "TASK_FINISHED"
    three = agent.end("three")
    assert (three.state, three.cause, three.data["exitCode"]) == ("TASK_FAILED", "exit_code", 3)


def test_context_is_built_once_and_its_beans_are_reused(agent: FakeAgent, start: Start) -> None:
    start()
    bean: dict[str, Any] = {
        "applicationContext": "shop.jobs:context",
        "beanName": "settle",
        "jobClass": "shop.jobs:Bean",
    }
    for number in (1, 2, 3):
        agent.launch(f"t{number}", **bean)
        assert agent.end(f"t{number}").data["result"] == [1, number]


def test_context_manager_is_closed_when_the_executor_exits(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, idleTimeoutSeconds=0.1)
    executor = start()
    agent.launch("t1", applicationContext="shop.jobs:Pool", beanName="settle")
    assert agent.end("t1").state == "TASK_FINISHED"
    assert executor.wait() == 0
    assert (executor.sandbox / "app" / "closed").exists()


@pytest.mark.parametrize(
    ("context", "bean", "says"),
    [
        ("shop.jobs:broken_context", "settle", "RuntimeError: no database"),
        ("shop.jobs:context", "other", "has only settle"),
        ("shop.jobs:works_on", "settle", "cannot be built"),
    ],
)
def test_context_that_cannot_be_built_is_named_with_the_reason(
    agent: FakeAgent, start: Start, context: str, bean: str, says: str
) -> None:
    start()
    agent.launch("t1", applicationContext=context, beanName=bean)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "context")
    assert says in end.message


def test_dataflow_job_runs_once_or_until_nothing_is_fetched(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("once", jobType="DATAFLOW", jobClass="shop.jobs:Flow")
    agent.launch("stream", jobType="DATAFLOW", jobClass="shop.jobs:Flow", streamingProcess=True)
    assert agent.end("once").state == agent.end("stream").state == "TASK_FINISHED"
    assert executor.output("once") == "[1, 2]\n"
    assert executor.output("stream") == "[1, 2]\n[3]\n"


def test_output_of_a_job_is_bounded(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("much", jobClass="shop.jobs:prints_much")
    assert agent.end("much").state == "TASK_FINISHED"
    sizes = [file.stat().st_size for file in (executor.sandbox / "tasks" / "much").iterdir()]
    assert max(sizes) <= 10 << 20
    assert sum(sizes) < 25 << 20


def test_job_that_closes_its_output_does_not_close_the_others(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:closes_output")
    assert agent.end("t1").state == "TASK_FINISHED"
    assert executor.output("t1") == "still here\n"
    agent.launch("t2", item=1, jobClass="shop.jobs:Settle")
    assert agent.end("t2").state == "TASK_FINISHED"
    assert executor.output("t2") == "settling 1 \n"


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("talks_nonsense", "broke the protocol: not JSON"),
        ("segfaults", "SIGSEGV"),
    ],
)
def test_faulty_worker_is_lost_and_replaced(agent: FakeAgent, start: Start, job: str, says: str) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:" + job)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
    assert says in end.message
    agent.launch("t2", jobClass="shop.jobs:works_on")
    assert agent.end("t2").state == "TASK_FINISHED"


def test_worker_that_answers_twice_ends_its_task_once(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:answers_twice")
    assert agent.end("t1").data["result"] == 1
    agent.launch("t2", jobClass="shop.jobs:works_on")
    agent.end("t2")
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_FINISHED"]


def test_child_forked_by_a_job_does_not_report_its_end(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:forks")
    assert agent.end("t1").data["result"] == "parent"


@pytest.mark.parametrize("job", ["big_result", "odd_result"])
def test_result_that_is_no_small_json_is_dropped_with_a_message(agent: FakeAgent, start: Start, job: str) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:" + job)
    end = agent.end("t1")
    assert end.state == "TASK_FINISHED"
    assert "result" not in end.data
    assert "the result was dropped" in end.message


@pytest.mark.parametrize("job", ["not_utf8", "huge_error"])
def test_any_error_text_fits_into_an_update(agent: FakeAgent, start: Start, job: str) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:" + job)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "exception")
    assert end.message.startswith("ValueError")
    assert len(end.message) <= 4000


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run.py", "neither in PATH nor in the package"),
        ("bin/run.py", "No such file"),
        ("./shop/jobs.py", "is it executable in the package?"),
    ],
)
def test_script_that_cannot_be_started_fails_with_the_reason(
    agent: FakeAgent, start: Start, command: str, says: str
) -> None:
    executor = start()
    agent.launch("first", jobType="SCRIPT", scriptCommandLine="true")
    assert agent.end("first").state == "TASK_FINISHED"
    (executor.sandbox / "app" / "bin" / "run.py").unlink()
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine=command)
    end = agent.end("s1")
    assert (end.state, end.cause) == ("TASK_FAILED", "command")
    assert says in end.message


def test_scripts_that_cannot_be_started_do_not_affect_later_ones(agent: FakeAgent, start: Start) -> None:
    start()
    for number in range(30):
        agent.launch(f"bad{number}", jobType="SCRIPT", scriptCommandLine="./no/such/program")
        agent.launch(f"good{number}", jobType="SCRIPT", scriptCommandLine="true")
    for number in range(30):
        assert agent.end(f"bad{number}").cause == "command"
        assert agent.end(f"good{number}").state == "TASK_FINISHED"


@pytest.mark.parametrize("command", ["", "'unbalanced"])
def test_invalid_command_line_is_refused(agent: FakeAgent, start: Start, command: str) -> None:
    start()
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine=command)
    end = agent.end("s1")
    assert (end.state, end.cause) == ("TASK_ERROR", "payload")
    assert "scriptCommandLine" in end.message


@pytest.mark.parametrize("payload", ["", "%%%", "bm8ganNvbg==", "eyJzY2hlbWEiOjk5fQ=="])
def test_task_data_that_is_invalid_or_of_another_schema_is_refused(
    agent: FakeAgent, start: Start, payload: str
) -> None:
    start()
    agent.launch("t1", payload)
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_ERROR", "payload")
    assert "TaskInfo.data" in end.message


def test_executor_data_of_another_schema_fails_each_task_with_a_message(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, schema=99)
    start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_ERROR", "payload")
    assert "schema 99" in end.message


def test_altered_package_fails_each_task_before_anything_is_unpacked(agent: FakeAgent, start: Start) -> None:
    executor = start(package=PACKAGE + b"x")
    for task in ("t1", "t2"):
        agent.launch(task, jobClass="shop.jobs:works_on")
        end = agent.end(task)
        assert (end.state, end.cause) == ("TASK_FAILED", "package")
        assert "sha256" in end.message
    assert not (executor.sandbox / "app").exists()


def test_resident_job_fires_by_itself_keeps_its_object_and_survives_a_failure(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("d", jobExecutionType="DAEMON", jobClass="shop.jobs:Counts", timer=EVERY_SECOND)
    reports = wait_until(
        lambda: agent.reports("d", "COMPLETE")[2:] and agent.reports("d", "COMPLETE"), "three executions"
    )
    assert [(report["run"], report["success"]) for report in reports[:3]] == [(1, True), (2, False), (3, True)]
    assert reports[1]["error"].startswith("ValueError: the second fails")
    assert [report["run"] for report in agent.reports("d", "BEGIN")][:3] == [1, 2, 3]
    lines = executor.output("d").splitlines()
    assert [line.split()[0] for line in lines][:3] == ["1", "2", "3"]
    assert len({line.split()[1] for line in lines}) == len(lines)
    agent.kill("d")
    assert agent.end("d").state == "TASK_KILLED"


def test_resident_script_reports_are_sampled_and_failures_always_reported(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, eventTraceSamplingCount=1000)
    start()
    script: dict[str, Any] = {"jobType": "SCRIPT", "jobExecutionType": "DAEMON", "timer": EVERY_SECOND}
    agent.launch("good", scriptCommandLine="true", **script)
    agent.launch("bad", scriptCommandLine="false", **script)
    report = wait_until(lambda: agent.reports("bad", "COMPLETE"), "the failure is reported")[0]
    assert (report["success"], report["error"]) == (False, "exit code 1")
    assert agent.reports("good", "COMPLETE") == []


def test_resident_job_continues_in_a_new_worker_if_its_own_dies_between_two_executions(
    agent: FakeAgent, start: Start
) -> None:
    executor = start()
    agent.launch("d1", jobClass="shop.jobs:Settle", jobExecutionType="DAEMON", timer=EVERY_SECOND)

    def completed() -> list[dict[str, Any]]:
        return agent.reports("d1", "COMPLETE")

    wait_until(completed, "its first execution ends")
    agent.launch("t1", jobClass="shop.jobs:dies")
    assert agent.end("t1").cause == "worker_lost"
    known = len(completed())
    wait_until(lambda: len(completed()) > known, "it runs again")
    assert all(report["success"] for report in completed())
    assert agent.states("d1")[-1] == "TASK_RUNNING"
    assert executor.process.poll() is None


def test_resident_job_that_cannot_be_loaded_fails_at_once(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("d", jobExecutionType="DAEMON", jobClass="shop.jobs:Missing", timer=EVERY_SECOND)
    end = agent.end("d")
    assert (end.state, end.cause) == ("TASK_FAILED", "import")


@pytest.mark.parametrize("timer", [None, {"version": 1}, {"version": 2}])
def test_resident_job_without_a_table_of_firings_is_refused(agent: FakeAgent, start: Start, timer: Any) -> None:
    start()
    agent.launch("d", jobExecutionType="DAEMON", jobClass="shop.jobs:Counts", timer=timer)
    end = agent.end("d")
    assert (end.state, end.cause) == ("TASK_ERROR", "payload")
    assert "'timer'" in end.message
