"""Parameters of SCRIPT and HTTP jobs: of any size, in a private file, and never among the arguments of a process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import FakeAgent, PostServer, Start, task_payload

from jobcloud.executor.scripts import fitting, write_context
from jobcloud.job import ShardingContext

pytest_plugins = ["tests.executor_kit.fixtures"]

# More bytes in UTF-8 than one environment string may have.
LARGE = 'é😀"\\\n' * 15_000


def run(agent: FakeAgent, task: str, job_parameter: str, parameter: str, **more: Any) -> Any:
    payload = task_payload(task, jobType="SCRIPT", scriptCommandLine="bin/context.py")
    payload["shardingContext"].update(jobParameter=job_parameter, shardingParameter=parameter)
    agent.launch(task, {**payload, **more})
    return agent.end(task)


def test_parameters_of_a_script_are_in_its_file_and_environment_and_not_in_its_arguments(
    agent: FakeAgent, start: Start, python: str
) -> None:
    executor = start(python=python)
    end = run(agent, "s1", "s3cret-of-all", "s3cret 'é", ports=[31_005, 31_006])
    assert end.state == "TASK_FINISHED", end
    seen = json.loads(executor.output("s1"))
    assert (seen["mode"], seen["folder"]) == (0o600, 0o700)
    assert seen["context"] == {
        "jobName": "settle", "taskId": "s1", "shardingTotalCount": 4, "jobParameter": "s3cret-of-all",
        "shardingItem": 0, "shardingParameter": "s3cret 'é", "runId": "run-s1", "attempt": 2, "fence": 7,
        "fireTime": 1_700_000_000_000, "ports": [31_005, 31_006], "team": "default",
    }  # fmt: skip
    assert "s3cret" not in str(seen["arguments"])
    assert seen["env"]["JOBCLOUD_JOB_PARAMETER"] == "s3cret-of-all"
    assert seen["env"]["JOBCLOUD_SHARDING_PARAMETER"] == "s3cret 'é"
    ports = {name: value for name, value in seen["env"].items() if "PORT" in name}
    assert ports == {"JOBCLOUD_PORTS": "31005,31006", "JOBCLOUD_PORT_0": "31005", "JOBCLOUD_PORT_1": "31006"}
    assert not Path(seen["path"]).exists(), "the file must be removed"


def test_script_without_parameters_gets_all_six_fields_as_its_last_argument(agent: FakeAgent, start: Start) -> None:
    executor = start()
    assert run(agent, "s1", "", "").state == "TASK_FINISHED"
    assert json.loads(json.loads(executor.output("s1"))["arguments"][-1]) == {
        "jobName": "settle", "taskId": "s1", "shardingTotalCount": 4, "jobParameter": "", "shardingItem": 0,
        "shardingParameter": "",
    }  # fmt: skip


def test_script_gets_parameters_that_are_too_large_for_the_kernel_in_its_file(
    agent: FakeAgent, start: Start, python: str
) -> None:
    executor = start(python=python)
    end = run(agent, "s1", LARGE + "1", LARGE + "2")
    assert end.state == "TASK_FINISHED", end
    seen = json.loads(executor.output("s1"))
    assert (seen["context"]["jobParameter"], seen["context"]["shardingParameter"]) == (LARGE + "1", LARGE + "2")
    assert "JOBCLOUD_JOB_PARAMETER" not in seen["env"]
    assert seen["env"]["JOBCLOUD_TASK_ID"] == "s1"


def test_file_of_a_script_that_cannot_start_is_removed(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("s1", jobType="SCRIPT", scriptCommandLine="./absent")
    assert agent.end("s1").cause == "command"
    assert list((executor.sandbox / "contexts").iterdir()) == []


def test_parameter_that_no_environment_can_hold_fails_the_shard_only(agent: FakeAgent, start: Start) -> None:
    executor = start()
    end = run(agent, "s1", "\ud800", "")
    assert (end.cause, "surrogates not allowed" in end.message) == ("command", True)
    assert run(agent, "s2", "", "").state == "TASK_FINISHED"
    assert list((executor.sandbox / "contexts").iterdir()) == []


def test_environment_leaves_out_large_parameters_only_if_the_kernel_refuses_them() -> None:
    limit = 32 * os.sysconf("SC_PAGE_SIZE")
    fits = {"JOBCLOUD_JOB_PARAMETER": "x" * (limit - len("JOBCLOUD_JOB_PARAMETER=") - 1), "PATH": "/bin"}
    assert fitting(["a"], fits) == fits
    assert fitting(["a"], {**fits, "JOBCLOUD_JOB_PARAMETER": fits["JOBCLOUD_JOB_PARAMETER"] + "x"}) == {"PATH": "/bin"}
    full = {f"V{number}": "x" * 100_000 for number in range(min(os.sysconf("SC_ARG_MAX"), 6 << 20) // 100_000)}
    assert fitting(["a"], {**full, "JOBCLOUD_SHARDING_PARAMETER": "x" * 100_000}) == full


def test_file_of_a_context_is_new_and_private(tmp_path: Path) -> None:
    context = ShardingContext(job_name="settle", sharding_parameter=LARGE)
    first, second = (write_context(str(tmp_path / "contexts"), context) for _ in range(2))
    assert first != second
    assert json.loads(Path(first).read_bytes())["shardingParameter"] == LARGE
    assert Path(first).stat().st_mode & 0o777 == 0o600


def command_lines() -> list[str]:
    """The command lines of all processes, as every user sees them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().decode("utf-8", "replace"))
            except OSError:
                continue
    return found


@pytest.fixture
def server() -> Iterator[PostServer]:
    one = PostServer(command_lines)
    yield one
    one.close()


def test_parameters_and_data_of_an_http_job_are_not_visible_in_command_lines(
    agent: FakeAgent, start: Start, server: PostServer, python: str
) -> None:
    executor = start(python=python)
    payload = task_payload("h1", jobType="HTTP", httpUri=server.url, httpMethod="POST", httpData="s3cret-data")
    payload["shardingContext"].update(jobParameter="s3cret-of-all", shardingParameter="s3cret")
    agent.launch("h1", payload)
    assert agent.end("h1").state == "TASK_FINISHED"
    assert server.asked[0][1] == "s3cret-data"
    assert json.loads(server.asked[0][0]["shardingContext"]) == payload["shardingContext"]
    assert any("http_job" in line for line in server.seen[-1])
    assert not [line for line in server.seen[-1] if "s3cret" in line]
    assert list((executor.sandbox / "contexts").iterdir()) == []


def test_http_job_sends_data_that_no_environment_could_hold(agent: FakeAgent, start: Start, server: PostServer) -> None:
    start()
    agent.launch("h1", jobType="HTTP", httpUri=server.url, httpMethod="POST", httpData=LARGE)
    end = agent.end("h1")
    assert end.state == "TASK_FINISHED", end
    assert server.asked[0][1] == LARGE


def test_ports_of_a_shard_reach_its_context_in_the_worker(agent: FakeAgent, start: Start, python: str) -> None:
    start(python=python)
    agent.launch("t1", {**task_payload("t1", jobClass="shop.jobs:ports"), "ports": [31_000, 31_001]})
    assert agent.end("t1").data["result"] == [31_000, 31_001]
    agent.launch("t2", jobClass="shop.jobs:ports")
    assert agent.end("t2").data["result"] == []


def test_ports_that_are_no_numbers_are_an_error_of_the_payload(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", {**task_payload("t1", jobClass="shop.jobs:ports"), "ports": ["31000"]})
    end = agent.end("t1")
    assert (end.state, end.cause) == ("TASK_ERROR", "payload")
    assert "'ports'" in end.message
