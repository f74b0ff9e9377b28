"""Jobs and workers that behave badly: the right outcome, nothing left behind, siblings as the table says."""

from __future__ import annotations

import sys

import pytest

from executor_kit import PACKAGE, FakeAgent, Start, app_payload, living_in, wait_until

pytest_plugins = ["executor_kit.fixtures"]

WAIT = "shop.jobs:wait_for_kill"


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_an_error_in_a_finalizer_changes_no_outcome(agent: FakeAgent, start: Start, isolation: str) -> None:
    start()
    for task in ("t1", "t2"):
        agent.launch(task, jobClass="shop.jobs:BadFarewell", isolation=isolation)
        assert agent.end(task).state == "TASK_FINISHED"


@pytest.mark.parametrize("job", ["masks_signals", "deadlocks", "never_returns"])
def test_an_isolated_shard_that_hears_nothing_is_ended_all_the_same(agent: FakeAgent, start: Start, job: str) -> None:
    executor = start()
    agent.launch("sibling", jobClass=WAIT)
    agent.launch("t1", jobClass="shop.jobs:" + job, isolation="process")
    for task in ("sibling", "t1"):
        agent.state(task, "TASK_RUNNING")
    agent.kill("t1", grace_s=0.2)
    assert agent.end("t1").state == "TASK_KILLED"
    assert agent.states("sibling") == ["TASK_RUNNING"]
    assert len(living_in(executor.sandbox / "app")) == 1


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_many_forked_children_with_sessions_of_their_own_end_with_their_shard(
    agent: FakeAgent, start: Start, isolation: str
) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:forks_much", isolation=isolation)
    wait_until(lambda: len(living_in(executor.sandbox / "app")) == 61, "its children run")
    if isolation == "process":
        agent.kill("t1")
        assert agent.end("t1").state == "TASK_KILLED"
    else:
        agent.launch("t2", jobClass="shop.jobs:dies")
        assert agent.end("t1").cause == "worker_lost"
    assert not living_in(executor.sandbox / "app")


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os, sys; os.write(int(sys.argv[-1]), b'hello\\n')", "broke the protocol"),
        ("import os, sys; os.close(int(sys.argv[-1])); __import__('time').sleep(600)", "closed its pipe"),
    ],
)
def test_a_worker_that_never_answers_as_it_should_is_lost_with_the_reason(
    agent: FakeAgent, start: Start, worker: str, says: str
) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand=f'{sys.executable} -c "{worker}"')
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_FAILED", "worker_lost")
    assert says in end.message
    assert not living_in(executor.sandbox / "app")
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine="true")
    assert agent.end("s1").state == "TASK_FINISHED"


def test_a_worker_that_never_answers_at_all_is_ended_by_the_time_limit_of_a_kill(
    agent: FakeAgent, start: Start
) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand="sh -c 'sleep 600'")
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    wait_until(lambda: living_in(executor.sandbox / "app"), "the worker runs")
    agent.kill("t1", grace_s=0.2)
    assert agent.end("t1").state == "TASK_KILLED"
    assert not living_in(executor.sandbox / "app")
