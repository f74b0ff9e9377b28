"""The largest configurations that registration accepts run in the real executor, for each type of job and worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.api_kit import job_body
from tests.executor_kit import PACKAGE, FakeAgent, PostServer, Start, app_payload, wait_until

from jobcloud.config import MAX_FILES_BYTES, Job
from jobcloud.model import Cause, Execution, JobState, Task
from jobcloud.scheduler import sharding
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import read_job
from jobcloud.server.api.rules import MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES
from jobcloud.server.urls import UrlPolicy
from jobcloud.wire import encode_data

pytest_plugins = ["tests.executor_kit.fixtures"]

ITEM = 1


def filled(size: int) -> str:
    """A text of `size` bytes in JSON, with escapes and characters of each length."""
    unit = 'é😀€"\\\n\x01 a'
    text = unit * (size // (len(json.dumps(unit)) - 2))
    return text + "a" * (size - (len(json.dumps(text)) - 2))


def plain(size: int) -> str:
    """A text with as many bytes in UTF-8 as in JSON."""
    return "a" * size


TEXTS = [pytest.param(filled, id="escapes"), pytest.param(plain, id="ascii")]
EMPTY_ITEMS = len(json.dumps({"1": ""}))


def registered(text: Any, **fields: Any) -> Job:
    """A job with parameters of the largest size, as registration makes it."""
    given = {
        "jobParameter": text(MAX_TEXT_BYTES),
        "shardingItemParameters": {"1": text(MAX_TEXT_BYTES - EMPTY_ITEMS)},
        "description": "d" * 65_536,
    }
    return read_job(parse(json.dumps(job_body() | given | fields).encode()), UrlPolicy(hosts=("127.0.0.1",)))


def launch(agent: FakeAgent, job: Job, task: str, item: int = ITEM) -> None:
    """Launch a shard with the payload that the scheduler makes."""
    firing = sharding.make_firing(job, JobState(0), Cause.CRON, 1_700_000_000_000, "u", "prod")
    made = Task(task, firing.id, job.name, item, 1, Execution.READY, "S0", "h", job.app, "e", job.resources, 0)
    agent.launch(task, encode_data(sharding.payload(job, firing, made, 7).data))


def digests(job: Job) -> list[str]:
    one = sharding._parameters(job)[ITEM]
    return [hashlib.sha256(text.encode()).hexdigest() for text in (job.parameter, one)]


def check(agent: FakeAgent, start: Start, job: Job, lines: int = 1, item: int = ITEM) -> None:
    executor = start()
    launch(agent, job, "t1", item)
    end = agent.end("t1")
    assert end.state == "TASK_FINISHED", end
    assert executor.output("t1").split() == digests(job) * lines


@pytest.mark.parametrize("text", TEXTS)
def test_largest_simple_job_runs_with_its_listeners(agent: FakeAgent, start: Start, text: Any) -> None:
    check(agent, start, registered(text, jobClass="shop.echo:simple", listener=["shop.echo:Around"] * 20), lines=21)


@pytest.mark.parametrize("text", TEXTS)
def test_largest_job_with_a_process_of_its_own_runs(agent: FakeAgent, start: Start, text: Any) -> None:
    variables = [f"V{number}={'é' * 20}" for number in range(100)]
    more = {"environment": variables, "files": {"a": text(MAX_FILES_BYTES - len('{"a": ""}'))}}
    check(agent, start, registered(text, jobClass="shop.echo:simple", isolation="process", **more))


@pytest.mark.parametrize("text", TEXTS)
def test_largest_dataflow_job_runs(agent: FakeAgent, start: Start, text: Any) -> None:
    check(agent, start, registered(text, jobType="DATAFLOW", jobClass="shop.echo:Flow"))


def test_largest_bean_runs(agent: FakeAgent, start: Start) -> None:
    bean = filled(MAX_NAME_BYTES)
    check(agent, start, registered(filled, jobClass="", beanName=bean, applicationContext="shop.echo:context"))


@pytest.mark.parametrize("text", TEXTS)
def test_largest_script_runs(agent: FakeAgent, start: Start, text: Any) -> None:
    command = "bin/digest.py '" + text(MAX_TEXT_BYTES - 16).replace("'", "a") + "'"
    check(agent, start, registered(text, jobType="SCRIPT", jobClass="", scriptCommandLine=command))


def test_script_with_as_many_words_as_possible_runs(agent: FakeAgent, start: Start) -> None:
    command = "bin/digest.py" + " a" * ((MAX_TEXT_BYTES - 13) // 2)
    check(agent, start, registered(plain, jobType="SCRIPT", jobClass="", scriptCommandLine=command))


@pytest.mark.parametrize("job_type", ["SIMPLE", "SCRIPT"])
def test_largest_resident_job_runs(agent: FakeAgent, start: Start, job_type: str) -> None:
    kinds = {"SIMPLE": {"jobClass": "shop.echo:simple"},
             "SCRIPT": {"jobClass": "", "scriptCommandLine": "bin/digest.py"}}  # fmt: skip
    fields = {"jobType": job_type, "jobExecutionType": "DAEMON", "cron": "* * * * * ?", **kinds[job_type]}
    job = registered(filled, **fields)
    executor = start()
    launch(agent, job, "t1")
    agent.state("t1", "TASK_RUNNING")
    wait_until(lambda: agent.reports("t1", "COMPLETE"), "an execution")
    assert agent.reports("t1", "COMPLETE")[0]["success"]
    assert executor.output("t1").split()[:2] == digests(job)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("job_type", ["SIMPLE", "SCRIPT"])
def test_largest_call_of_a_firing_listener_runs(agent: FakeAgent, start: Start, text: Any, job_type: str) -> None:
    command = text(MAX_TEXT_BYTES - 2).replace("'", "a").join("''")
    kinds = {"SIMPLE": {"jobClass": "shop.echo:simple"}, "SCRIPT": {"jobClass": "", "scriptCommandLine": command}}
    fields = {"jobType": job_type, "distributedListener": {"class": "shop.echo:Whole"}, **kinds[job_type]}
    job = registered(text, **fields)
    check(agent, start, job, item=job.shard_count)


@pytest.mark.parametrize("text", TEXTS)
def test_largest_job_runs_in_a_worker_that_is_not_ours(start: Start, agent: FakeAgent, text: Any) -> None:
    agent.executor_data = app_payload(PACKAGE, workerCommand="bin/worker.py")
    start()
    job = registered(text, jobClass="com.example.Settle", distributedListener={"class": "com.example:Ledger"})
    launch(agent, job, "t1")
    assert agent.end("t1").data["result"] == digests(job)
    launch(agent, job, "t2", item=job.shard_count)
    assert agent.end("t2").state == "TASK_FINISHED"


@pytest.fixture
def server() -> Iterator[PostServer]:
    one = PostServer()
    yield one
    one.close()


@pytest.mark.parametrize("text", TEXTS)
def test_largest_http_job_runs_and_its_header_fits_the_usual_servers(
    agent: FakeAgent, start: Start, server: PostServer, text: Any
) -> None:
    half = text(MAX_HEADER_BYTES // 2)
    uri = server.url + "a" * (2_040 - len(server.url))
    job = registered(
        text, jobName="j" * 100, jobType="HTTP", jobClass="", httpUri=uri, httpMethod="POST",
        httpData=text(MAX_TEXT_BYTES), jobParameter=half, shardingItemParameters={"1": half},
    )  # fmt: skip
    start()
    task = "@-@".join(("j" * 100, "9999", "FAILOVER", "a" * 100, "999999-999999999"))
    launch(agent, job, task)
    assert agent.end(task).state == "TASK_FINISHED"
    headers, body = server.asked[0]
    assert body == job.http_data
    context = json.loads(headers["shardingContext"])
    assert (context["jobParameter"], context["shardingParameter"]) == (half, half)
    assert len("shardingContext: " + headers["shardingContext"]) < 8_190
