"""The job API that authors import."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jobcloud
from jobcloud.job import DataflowJob, JobCancelled, ShardingContext, SimpleJob, job, perform

ROOT = Path(jobcloud.__file__).parent


class Flow(DataflowJob):
    def __init__(self, *rounds: Any) -> None:
        self.rounds = list(rounds)
        self.seen: list[Any] = []

    def fetch_data(self, ctx: ShardingContext) -> Any:
        return self.rounds.pop(0)

    def process_data(self, ctx: ShardingContext, data: Any) -> None:
        self.seen.append(data)


class Truthless(list[int]):
    """Like a numpy array of several elements: it has no truth value."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def test_context_has_the_six_fields_of_elastic_job() -> None:
    ctx = ShardingContext("settle", "t1", 4, "ä", 2, "south", run_id="r", attempt=3, fence=9)
    fields = {
        "jobName": "settle",
        "taskId": "t1",
        "shardingTotalCount": 4,
        "jobParameter": "ä",
        "shardingItem": 2,
        "shardingParameter": "south",
    }
    assert json.loads(ctx.to_json()) == fields
    assert ShardingContext.from_dict(fields, run_id="r", attempt=3, fence=9) == ctx
    with pytest.raises(dataclasses.FrozenInstanceError):
        ctx.sharding_item = 3  # type: ignore[misc]


def test_context_made_in_a_test_has_defaults_for_logging_and_cancellation() -> None:
    ctx = ShardingContext(job_name="settle")
    ctx.logger.info("hello %s", "you")
    assert not ctx.cancelled
    ctx.raise_if_cancelled()


def test_simple_job_and_function_return_their_result() -> None:
    class Simple(SimpleJob):
        def execute(self, ctx: ShardingContext) -> int:
            return ctx.sharding_item

    ctx = ShardingContext(sharding_item=5)
    assert perform(Simple(), ctx) == 5
    assert perform(lambda ctx: ctx.sharding_item + 1, ctx) == 6
    with pytest.raises(TypeError, match="is not a job"):
        perform("Simple", ctx)  # type: ignore[arg-type]


def test_dataflow_that_does_not_stream_fetches_and_processes_once() -> None:
    flow = Flow([1], [2])
    perform(flow, ShardingContext())
    assert (flow.seen, flow.rounds) == ([[1]], [[2]])


@pytest.mark.parametrize("nothing", [None, [], (), Truthless(), iter(())])
def test_streaming_dataflow_ends_when_it_fetches_nothing(nothing: Any) -> None:
    flow = Flow([1], Truthless([2, 3]), iter([4]), nothing)
    perform(flow, ShardingContext(), streaming=True)
    assert flow.seen == [[1], [2, 3], [4]]


def test_streaming_dataflow_stops_between_rounds_when_cancelled() -> None:
    flow = Flow([1], [2], [3])
    ctx = ShardingContext(is_cancelled=lambda: len(flow.seen) == 2)
    with pytest.raises(JobCancelled):
        perform(flow, ctx, streaming=True)
    assert flow.seen == [[1], [2]]


AGENT_SIDE = [ROOT / name for name in ("__init__.py", "wire.py", "job.py", "zones.py")]
AGENT_SIDE += sorted((ROOT / "executor").glob("*.py"))


@pytest.mark.parametrize("path", AGENT_SIDE, ids=lambda path: path.name)
def test_agent_code_is_python_3_9_and_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "jobcloud"}, f"{path.name} imports {name}"
            if name.startswith("jobcloud."):
                path_named = ROOT.joinpath(*name.split(".")[1:])
                assert {path_named.with_suffix(".py"), path_named / "__init__.py"} & set(AGENT_SIDE), name


def test_job_api_imports_little() -> None:
    script = "import sys; before = set(sys.modules); import jobcloud.job; print(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert not loaded & {"numpy", "httpx", "typer", "logging", "threading", "socket", "asyncio"}
    assert {name for name in result.stdout.split() if name.startswith("jobcloud")} == {"jobcloud", "jobcloud.job"}


def test_asynchronous_jobs_are_awaited() -> None:
    class Asynchronous(SimpleJob):
        async def execute(self, ctx: ShardingContext) -> int:
            return ctx.sharding_item

    @job
    async def function(ctx: ShardingContext) -> str:
        return ctx.job_name

    ctx = ShardingContext("settle", sharding_item=3)
    assert perform(Asynchronous(), ctx) == 3
    assert perform(function, ctx) == "settle"


@pytest.mark.parametrize("wrong", [lambda: None, lambda a, b: None, 7])
def test_function_that_cannot_be_a_job_is_refused_by_the_decorator(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be a job|callable"):
        job(wrong)


def test_job_that_yields_fails() -> None:
    def yields(ctx: ShardingContext) -> Any:
        yield ctx

    async def yields_asynchronously(ctx: ShardingContext) -> Any:
        yield ctx

    class Yields(SimpleJob):
        def execute(self, ctx: ShardingContext) -> Any:
            yield ctx

    class Flows(DataflowJob):
        def fetch_data(self, ctx: ShardingContext) -> Any:
            yield 1

        def process_data(self, ctx: ShardingContext, data: Any) -> Any:
            yield data

    for wrong in (yields, yields_asynchronously):
        with pytest.raises(TypeError, match="cannot be a job: it yields"):
            job(wrong)
    for generator in (yields, yields_asynchronously, Yields(), Flows()):
        with pytest.raises(TypeError, match="it yields"):
            perform(generator, ShardingContext())


def test_progress_is_checked_and_passed_to_its_listener() -> None:
    told: list[Any] = []
    ctx = ShardingContext(on_progress=lambda done, total: told.append((done, total)))
    ctx.progress(1)
    ctx.progress(1.5, 3)
    assert told == [(1, None), (1.5, 3)]
    for wrong in ((-1,), (float("nan"),), (1, float("inf")), ("1",)):
        with pytest.raises(ValueError, match="must not be negative"):
            ctx.progress(*wrong)
    ShardingContext().progress(1)
