"""Special kinds of jobs: coroutines, progress, contexts that are opened once."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import PACKAGE, TERMINAL, FakeAgent, Start, app_payload, data_of, living_in, wait_until, zip_of

from jobcloud.executor.output import KEPT_FOLDERS

pytest_plugins = ["tests.executor_kit.fixtures"]

POOL = Path(__file__).parents[2] / "examples" / "pool"


def test_coroutines_share_one_event_loop_and_keep_their_output_apart(
    agent: FakeAgent, start: Start, python: str
) -> None:
    executor = start(python=python)
    for task in ("t1", "t2"):
        agent.launch(task, jobClass="shop.jobs:asynchronous")
    ends = [agent.end(task) for task in ("t1", "t2")]
    assert {end.state for end in ends} == {"TASK_FINISHED"}, ends
    assert ends[0].data["result"] == ends[1].data["result"]
    assert executor.output("t1") == executor.output("t2") == "before\nafter\n"


def test_coroutine_that_exits_ends_its_own_shard_only(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("other", jobClass="shop.jobs:waits_asynchronously")
    agent.launch("t1", jobClass="shop.jobs:asynchronous", parameter="3")
    assert (agent.end("t1").cause, agent.end("t1").data["exitCode"]) == ("exit_code", 3)
    agent.launch("t2", jobClass="shop.jobs:asynchronous")
    assert agent.end("t2").state == "TASK_FINISHED"
    assert agent.states("other") == ["TASK_RUNNING"]


def test_kill_cancels_a_coroutine_at_its_await(agent: FakeAgent, start: Start) -> None:
    executor = start()
    for task in ("t1", "sibling"):
        agent.launch(task, jobClass="shop.jobs:waits_asynchronously")
        wait_until(functools.partial(executor.output, task), "it awaits")
    agent.kill("t1", grace_s=600)
    assert (agent.end("t1").state, agent.end("t1").cause) == ("TASK_KILLED", "killed")
    assert agent.states("sibling") == ["TASK_RUNNING"]


def test_async_dataflow_streams(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobType="DATAFLOW", jobClass="shop.jobs:AsynchronousFlow", streamingProcess=True)
    assert agent.end("t1").state == "TASK_FINISHED"
    assert executor.output("t1") == "[1, 2]\n[3]\n"


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_progress_reports_are_sent_but_limited_in_rate(agent: FakeAgent, start: Start, isolation: str) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:progresses", isolation=isolation)

    def reports() -> list[dict[str, object]]:
        return [data_of(status) for status in agent.statuses("t1") if "PROGRESS" in status.get("message", "")]

    wait_until(lambda: len(reports()) >= 2, "a second report")
    assert reports()[:2] == [
        {"schema": 1, "run": 1, "done": 1, "total": 1000},
        {"schema": 1, "run": 1, "done": 1000, "total": None},
    ]
    assert agent.reports("t1", "PROGRESS 1 of 1000")
    agent.kill("t1")
    assert agent.end("t1").state == "TASK_KILLED"
    assert len(reports()) < 30


def test_progress_that_is_no_number_fails_the_job(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:wrong_progress")
    assert "ValueError: progress(-1, None)" in agent.end("t1").message


def test_pool_is_opened_once_for_a_thousand_executions_and_closed_at_the_end(agent: FakeAgent, start: Start) -> None:
    package = zip_of({path.name: path.read_text() for path in POOL.glob("*.py")})
    agent.executor_data = app_payload(package, maxParallel=8)
    executor = start(package)
    job: dict[str, Any] = {"applicationContext": "pool_jobs:context", "beanName": "count"}
    for number in range(1000):
        agent.launch(f"t{number}", item=number % 4, **job)
    ends = [agent.end(f"t{number}", 120) for number in range(1000)]
    assert {end.state for end in ends} == {"TASK_FINISHED"}
    assert sorted(end.data["result"]["visits"] for end in ends) == list(range(1, 1001))
    executor.stop()
    opened = (executor.sandbox / "worker" / "stderr").read_text()
    assert (opened.count("pool opened"), opened.count("pool closed")) == (1, 1)


def test_daemon_and_worker_do_not_grow_over_two_thousand_executions(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE, maxParallel=8)
    executor = start()
    worker = agent.end(agent.launch("first", jobClass="shop.jobs:Settle")).data["result"]["pid"]

    def taken() -> list[tuple[int, int]]:
        """(descriptors, threads) of daemon and worker."""
        folders = (Path(f"/proc/{pid}") for pid in (executor.process.pid, worker))
        return [tuple(len(list((folder / kind).iterdir())) for kind in ("fd", "task")) for folder in folders]  # type: ignore[misc]

    def run_many(name: str) -> None:
        agent.calls.clear()
        for number in range(500):
            kind: dict[str, Any] = {
                "jobClass": "shop.jobs:Settle",
                "isolation": "process" if number % 200 == 0 else "shared",
            }
            script: dict[str, Any] = {"jobType": "SCRIPT", "scriptCommandLine": "echo out"}
            agent.launch(f"{name}{number}", **(script if number % 50 == 1 else kind))

        def ended() -> list[str]:
            states = [call["update"]["status"]["state"] for call in list(agent.calls) if call["type"] == "UPDATE"]
            return [state for state in states if state in TERMINAL]

        wait_until(lambda: len(ended()) == 500, "all have ended", 120)
        assert set(ended()) == {"TASK_FINISHED"}

    wait_until(lambda: taken()[1][1] == 1, "the first shard's thread is gone")
    before = taken()
    for name in "abcd":
        run_many(name)
    wait_until(lambda: taken() == before, f"they are back to {before}")
    assert len(list((executor.sandbox / "tasks").iterdir())) <= KEPT_FOLDERS + 1
    assert living_in(executor.sandbox / "app") == [worker]
