"""Variables of apps and jobs in the processes of the real executor."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.executor_kit import (
    EVERY_SECOND,
    PACKAGE,
    FakeAgent,
    PostServer,
    Start,
    app_payload,
    task_payload,
    wait_until,
)

from jobcloud.executor.payload import PayloadError, read_app, read_task
from jobcloud.wire import encode_data

pytest_plugins = ["tests.executor_kit.fixtures"]

OF_APP = {"REGION": "eu", "LEVEL": "app"}
OF_JOB = {"LEVEL": "job", "OPTIONS": "-Da=b c"}
NAMES = ["LEVEL", "OPTIONS", "REGION"]
SCRIPT: dict[str, Any] = {"jobType": "SCRIPT", "scriptCommandLine": "sh -c env"}


def launch(agent: FakeAgent, task: str, environment: dict[str, str] | None = OF_JOB, **job: Any) -> None:
    given = task_payload(task, **job)
    if environment is not None:
        given = {**given, "schema": 3, "job": {**given["job"], "environment": environment}}
    agent.launch(task, given)


def with_app(agent: FakeAgent, **app: Any) -> None:
    agent.executor_data = app_payload(PACKAGE, schema=2, environment=OF_APP, **app)


def variables(output: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.splitlines() if line.split("=", 1)[0] in NAMES)


def test_script_gets_variables_of_its_app_and_in_place_of_them_its_own(
    agent: FakeAgent, start: Start, python: str
) -> None:
    with_app(agent)
    executor = start(python=python, LEVEL="agent", REGION="agent", JOBCLOUD_JOB_NAME="other")
    launch(agent, "with", **SCRIPT)
    launch(agent, "without", None, **SCRIPT)
    assert agent.end("with").state == agent.end("without").state == "TASK_FINISHED", executor.log()
    assert variables(executor.output("with")) == OF_APP | OF_JOB
    assert variables(executor.output("without")) == OF_APP


def test_shared_worker_starts_with_the_variables_of_the_app(agent: FakeAgent, start: Start) -> None:
    with_app(agent)
    start()
    launch(agent, "j1", None, jobClass="shop.jobs:variables")
    assert agent.end("j1").data["result"] == OF_APP


def test_shard_with_variables_has_a_process_of_its_own_for_each_execution(agent: FakeAgent, start: Start) -> None:
    with_app(agent)
    start()
    launch(agent, "own", jobClass="shop.jobs:variables", isolation="process")
    assert agent.end("own").data["result"] == OF_APP | OF_JOB
    launch(agent, "shared", None, jobClass="shop.jobs:variables")
    assert agent.end("shared").data["result"] == OF_APP, "the variables of one job are not seen by others"


def test_shard_of_a_resident_job_has_its_variables_in_each_execution(agent: FakeAgent, start: Start) -> None:
    with_app(agent)
    executor = start()
    resident: dict[str, Any] = {"jobExecutionType": "DAEMON", "timer": EVERY_SECOND, "isolation": "process"}
    launch(agent, "d1", jobClass="shop.jobs:prints_variables", **resident)
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) >= 2, "two executions")
    assert executor.output("d1").splitlines()[:2] == [json.dumps(OF_APP | OF_JOB)] * 2


def test_listener_of_the_runs_of_a_script_gets_the_variables_of_the_job(agent: FakeAgent, start: Start) -> None:
    with_app(agent)
    executor = start()
    given = task_payload("before", **SCRIPT, distributedListener="shop.jobs:PrintsVariables", environment=OF_JOB)
    agent.launch("before", {**given, "schema": 3, "step": "before", "firing": {}, "timeoutSeconds": 0})
    assert agent.end("before").state == "TASK_FINISHED", executor.log()
    assert json.loads(executor.output("before")) == OF_APP | OF_JOB


def test_request_of_an_http_job_is_made_without_the_variables_of_the_app(agent: FakeAgent, start: Start) -> None:
    server = PostServer()
    agent.executor_data = app_payload(PACKAGE, schema=2, environment={"PYTHONPATH": "/nowhere", "PYTHONVERBOSE": "1"})
    executor = start()
    launch(agent, "h1", None, jobType="HTTP", httpUri=server.url, httpMethod="POST")
    end = agent.end("h1")
    assert end.state == "TASK_FINISHED", end
    assert "import" not in executor.output("h1", "stderr")
    server.close()


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("value", [["A=b"], {"A": 1}, {"A=B": "c"}, {"": "c"}, {"A": "nul\0"}])
def test_data_with_invalid_variables_are_refused(schema: int, value: Any) -> None:
    app = {**app_payload(None), "schema": schema, "environment": value}
    with pytest.raises(PayloadError, match="environment"):
        read_app(encode_data(json.dumps(app).encode()))
    task = task_payload("t", jobClass="m:C", environment=value)
    with pytest.raises(PayloadError, match="environment"):
        read_task(encode_data(json.dumps(task).encode()))


@pytest.mark.parametrize("schema", [7, 0, "3", None])
def test_data_of_a_later_scheduler_are_refused(schema: Any) -> None:
    task = {**task_payload("t", jobClass="m:C"), "schema": schema}
    with pytest.raises(PayloadError, match="understands 1, 2, 3, 4, 5"):
        read_task(encode_data(json.dumps(task).encode()))
