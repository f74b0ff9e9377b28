"""Kills: the killed shard ends, and others are left alone."""

from __future__ import annotations

import functools
import itertools
import sys
from typing import Any

from tests.executor_kit import FakeAgent, Start, living_in, wait_until

pytest_plugins = ["tests.executor_kit.fixtures"]

WAIT = "shop.jobs:wait_for_kill"


def test_cooperative_shard_is_killed_without_effect_on_its_siblings(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("good", jobClass=WAIT)
    agent.launch("sibling", jobClass=WAIT)
    wait_until(lambda: executor.output("good") and executor.output("sibling"), "both run")
    agent.kill("good")
    end = agent.end("good")
    assert (end.state, end.cause) == ("TASK_KILLED", "killed")
    agent.launch("next", jobClass="shop.jobs:plain")
    assert agent.end("next").state == "TASK_FINISHED"
    assert agent.states("sibling") == ["TASK_RUNNING"]


def test_killed_shard_whose_worker_dies_by_itself_says_so(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:dies_when_killed")
    wait_until(lambda: executor.output("t1"), "it runs")
    agent.kill("t1", grace_s=60)
    end = agent.end("t1")
    assert end.state == "TASK_KILLED"
    assert end.message == "the worker ended before the shard had stopped: it ended with exit code 9"


def test_streaming_job_stops_between_two_fetches(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobType="DATAFLOW", jobClass="shop.jobs:Endless", streamingProcess=True)
    wait_until(lambda: executor.output("t1"), "it runs")
    agent.kill("t1", grace_s=60)
    end = agent.end("t1")
    assert end.state == "TASK_KILLED"
    assert "asked to stop" in end.message


def test_shard_that_ignores_the_kill_costs_its_worker_but_not_siblings_that_finish(
    agent: FakeAgent, start: Start
) -> None:
    app = start().sandbox / "app"
    agent.launch("stubborn", jobClass="shop.jobs:never_returns")
    agent.launch("sibling", jobClass="shop.jobs:until_file", parameter="go")
    for task in ("stubborn", "sibling"):
        agent.state(task, "TASK_RUNNING")
    before = agent.end(agent.launch("before", jobClass="shop.jobs:Settle"))
    agent.kill("stubborn", grace_s=2)
    numbers = itertools.count(1)

    def task_of_another_worker() -> str:
        task = agent.launch(f"after{next(numbers)}", jobClass="shop.jobs:Settle")
        wait_until(lambda: len(living_in(app)) == 2 or agent.states(task)[1:], "a new worker, or the task's end")
        return task if len(living_in(app)) == 2 else ""

    after = wait_until(task_of_another_worker, "new shards go to a new worker")
    (app / "go").touch()
    assert agent.end("stubborn").state == "TASK_KILLED"
    assert agent.end("sibling").state == "TASK_FINISHED"
    assert agent.end(after).data["result"]["pid"] != before.data["result"]["pid"]
    assert agent.states("stubborn") == ["TASK_RUNNING", "TASK_KILLED"]


def test_siblings_that_do_not_finish_in_the_grace_time_are_lost_with_the_worker(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("stubborn", jobClass="shop.jobs:never_returns")
    agent.launch("sibling", jobClass="shop.jobs:never_returns")
    for task in ("stubborn", "sibling"):
        agent.state(task, "TASK_RUNNING")
    agent.kill("stubborn", grace_s=0.2)
    assert agent.end("stubborn").state == "TASK_KILLED"
    sibling = agent.end("sibling")
    assert (sibling.state, sibling.cause) == ("TASK_FAILED", "worker_lost")


def test_grace_time_comes_from_the_kill_or_else_from_the_job(agent: FakeAgent, start: Start) -> None:
    executor = start()
    script: dict[str, Any] = {"jobType": "SCRIPT", "scriptCommandLine": "bin/stubborn.sh", "parameter": "600"}
    agent.launch("hasty", killGraceSeconds=0.1, **script)
    agent.launch("patient", killGraceSeconds=600, **script)
    agent.launch("wrong", killGraceSeconds=-1, **script)
    assert "killGraceSeconds" in agent.end("wrong").message
    for task in ("hasty", "patient"):
        wait_until(functools.partial(executor.output, task), f"{task} ignores SIGTERM")
        agent.kill(task)
    assert agent.end("hasty").state == "TASK_KILLED"
    assert agent.states("patient") == ["TASK_RUNNING"]
    agent.kill("patient", grace_s=0)
    assert agent.end("patient").state == "TASK_KILLED"


def test_killed_script_gets_sigterm_first(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine="bin/polite.sh")
    wait_until(lambda: executor.output("s1"), "it is ready")
    agent.kill("s1", grace_s=600)
    end = agent.end("s1")
    assert (end.state, end.data["exitCode"]) == ("TASK_KILLED", 0)
    assert executor.output("s1") == "ready\nbye\n"


def test_script_that_ignores_sigterm_is_killed_with_its_children(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("s1", parameter="600", jobType="SCRIPT", scriptCommandLine="bin/stubborn.sh")
    wait_until(lambda: executor.output("s1") and len(living_in(executor.sandbox / "app")) >= 2, "it is ready")
    agent.kill("s1", grace_s=0.1)
    end = agent.end("s1")
    assert (end.state, end.data["exitCode"]) == ("TASK_KILLED", -9)
    assert not living_in(executor.sandbox / "app")


def test_processes_that_a_script_started_end_with_it(agent: FakeAgent, start: Start) -> None:
    executor = start()
    command = "sh -c 'sleep 600 & setsid sleep 600 & true'"
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine=command)
    assert agent.end("s1").state == "TASK_FINISHED"
    assert not living_in(executor.sandbox / "app")


def test_child_started_just_before_the_end_of_its_script_ends_with_it(agent: FakeAgent, start: Start) -> None:
    """The child is in the middle of exec when its parent dies, and then has no environment to know it by."""
    executor = start()
    app = executor.sandbox / "app"
    code = "import os, subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); os._exit(9)"
    for number in range(30):
        agent.launch(f"s{number}", jobType="SCRIPT", scriptCommandLine=f'{sys.executable} -S -E -c "{code}"')
        assert agent.end(f"s{number}").cause == "exit_code"
        assert not living_in(app)


def test_processes_that_a_worker_started_end_with_it(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", parameter="600", jobClass="shop.jobs:leaves_children")
    wait_until(lambda: len(living_in(executor.sandbox / "app")) == 2, "its child runs")
    agent.launch("t2", jobClass="shop.jobs:dies")
    assert agent.end("t1").cause == "worker_lost"
    assert not living_in(executor.sandbox / "app")


def test_task_killed_before_its_package_is_unpacked_never_starts(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:wait_for_kill")
    agent.kill("t1")
    assert agent.end("t1").state == "TASK_KILLED"
    assert len(agent.states("t1")) <= 2
    agent.launch("t2", jobClass="shop.jobs:works_on")
    assert agent.end("t2").state == "TASK_FINISHED"
    assert executor.process.poll() is None
