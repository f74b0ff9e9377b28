"""The results of nodes for the placeholder `{result:NODE}` in the jobs of other nodes."""

from __future__ import annotations

import cProfile
import json
from typing import Any

import pytest
from tests.core_world import Desk, make_job, make_offer, make_status, payload_of
from tests.scheduler.test_workflow_answers import answer, wait
from tests.scheduler.test_workflows import begin, make_desk, node, states

from jobcloud.executor.payload import PayloadError, read_task
from jobcloud.messages import PutJob, PutWorkflow, StatusReceived, Trigger
from jobcloud.model import Join, Node, Workflow
from jobcloud.wire import encode_data

ASKS: dict[str, Any] = {"placeholders": ("jobParameter",), "parameter": "rows={result:extract}"}
BEHIND = node("load", "extract")


def pair(behind: Node = BEHIND, width: int = 1, own: int = 1, **asks: Any) -> Desk:
    """A workflow of `extract`, and of `load`, which names its result."""
    desk = make_desk(node("extract"), behind)
    desk.do(PutJob(desk.at, make_job("extract", shard_count=width), replace=True))
    desk.do(PutJob(desk.at, make_job("load", shard_count=own, **(asks or ASKS)), replace=True))
    begin(desk)
    offer(desk)
    return desk


def offer(desk: Desk) -> list[dict[str, Any]]:
    """Offer enough for all. The payloads of the launched shards, in the order of their numbers."""
    offered = make_offer(f"o{desk.at}-{len(desk.all)}", cpus=20_000, memory=9_999_999)
    found = [payload_of(launch) for launch in desk.launched(desk.offer(offered))]
    return sorted(found, key=lambda one: one["shardingContext"]["shardingItem"])


def end(desk: Desk, results: dict[int, Any], job: str = "extract") -> None:
    """End tasks of a job with these results, by item."""
    tasks = {task.item: task.id for task in desk.scheduler.tasks.values() if task.job == job}
    for item, result in results.items():
        data = json.dumps({"schema": 1, "cause": None, "result": result}, ensure_ascii=False)
        desk.status(tasks[item], "TASK_FINISHED", data=data)
    desk.run_until_idle()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("result", "text"), [('a "b" ü', 'a "b" ü'), (17, "17"), ({"n": [1, "x"]}, '{"n":[1,"x"]}')])
def test_shard_gets_the_result_of_the_node(result: Any, text: str, restart: bool) -> None:
    desk = pair()
    end(desk, {0: result})
    if restart:
        desk.restart()
    [launched] = offer(desk)
    assert launched["results"] == {"extract": text}
    assert launched["schema"] == 6
    read = read_task(encode_data(json.dumps(launched).encode()))
    assert read.for_execution(read.facts()).context["jobParameter"] == f"rows={text}"


def test_several_shards_become_a_list() -> None:
    desk = pair(width=3)
    end(desk, {2: "c", 0: 1, 1: None})
    assert [one["results"] for one in offer(desk)] == [{"extract": '[1,null,"c"]'}]


def test_joined_shard_gets_the_result_of_the_same_shard() -> None:
    desk = pair(node("load", "extract", join=Join.SHARDS), width=3, own=3)
    end(desk, {1: "b"})
    assert [one["results"] for one in offer(desk)] == [{"extract": "b"}]
    end(desk, {0: "a", 2: None})
    assert [one.get("results") for one in offer(desk)] == [{"extract": "a"}, None]


def test_listener_of_a_joined_run_gets_the_list_once_the_node_has_ended() -> None:
    desk = pair(node("load", "extract", join=Join.SHARDS), width=2, own=2, firing_listener="shop.jobs:L", **ASKS)
    end(desk, {0: "a", 1: "b"})
    for _ in ("the call before", "the shards"):
        end(desk, {task.item: None for task in desk.scheduler.tasks.values()}, "load")
        launched = offer(desk)
    assert [(one["step"], one["results"]) for one in launched] == [("after", {"extract": '["a","b"]'})]


def test_answer_is_the_result_of_its_node() -> None:
    nodes = node("extract"), wait("approve"), node("load", "extract", "approve")
    desk = make_desk(nodes[0], node("load"))
    asks = {**ASKS, "parameter": "{result:approve}{result:extract}{result:unknown}"}
    desk.do(PutJob(desk.at, make_job("load", **asks), replace=True))
    desk.do(PutWorkflow(desk.at, Workflow("etl", nodes, "extract")))
    begin(desk)
    offer(desk)
    answer(desk)
    end(desk, {0: None})
    assert [one["results"] for one in offer(desk)] == [{"approve": "go"}]


def test_run_outside_of_a_workflow_gets_no_results() -> None:
    desk = pair()
    end(desk, {0: 1})
    offer(desk)
    end(desk, {0: None}, "load")
    desk.do(Trigger(desk.at, "load"))
    desk.run_until_idle()
    [launched] = offer(desk)
    assert "results" not in launched
    read = read_task(encode_data(json.dumps(launched).encode()))
    assert read.for_execution(read.facts()).context["jobParameter"] == "rows="


def test_node_that_has_not_ended_has_no_result() -> None:
    desk = make_desk(node("extract"), node("slow", "extract"), node("load", "extract"))
    desk.do(PutJob(desk.at, make_job("slow", shard_count=2), replace=True))
    desk.do(PutJob(desk.at, make_job("load", **{**ASKS, "parameter": "{result:slow}"}), replace=True))
    begin(desk)
    offer(desk)
    end(desk, {0: 1})
    assert ["results" in one for one in offer(desk)] == [False] * 3


def test_jobs_without_results_keep_their_schema() -> None:
    desk = pair(placeholders=("jobParameter",), parameter="{run_id}")
    end(desk, {0: "a"})
    [launched] = offer(desk)
    assert launched["schema"] == 4
    assert "results" not in launched


@pytest.mark.parametrize(("width", "fits"), [(30, True), (40, False)])
def test_results_that_are_too_large_end_the_shard_with_the_name_of_the_node(width: int, fits: bool) -> None:
    desk = pair(width=width)
    end(desk, dict.fromkeys(range(width), "x" * 1_000))
    [launched] = offer(desk)
    assert (launched["results"]["extract"] is not None) is fits
    if not fits:
        with pytest.raises(PayloadError, match="the result of node extract takes more than 32,768 bytes"):
            read_task(encode_data(json.dumps(launched).encode()))
    assert states(desk)["load"] == "RUNNING"


def calls_of_launches(width: int, join: Join) -> int:
    """The function calls for one offer's shards of `load`, when as many shards of `extract` have ended."""
    desk = pair(node("load", "extract", join=join), width=width, own=width)
    while started := {task for task in desk.scheduler.tasks.values() if task.job == "extract"}:
        for task in started:
            desk.do(StatusReceived(desk.at, make_status(task.id, "TASK_FINISHED", data='{"result":1}')))
        offer(desk)
    profile = cProfile.Profile()
    profile.enable()
    launched = offer(desk)
    profile.disable()
    assert len(launched) == 64
    assert all(one["results"] for one in launched)
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.parametrize("join", [Join.SHARDS, Join.ALL])
def test_launch_costs_the_same_for_each_shard_of_a_wide_node(join: Join) -> None:
    assert calls_of_launches(800, join) < 1.5 * calls_of_launches(200, join)
