"""Workflows as Python code: the fields that each form gives, and errors of obvious mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jobcloud.workflow import Approval, Callback, Event, Node, Step, Workflow, workflows


def nodes(build: Callable[[], object]) -> list[dict[str, Any]]:
    """The nodes of a workflow that a function builds."""
    with Workflow("flow") as flow:
        build()
    return list(flow.config()["nodes"])


def _any(value: object) -> Any:
    return value


def after(given: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["job"]: one.get("after") for one in given}


def test_chain_gives_the_fields_of_the_file() -> None:
    with Workflow(
        "sales", team="shop", description="of each hour", start="extract", deadline=timedelta(hours=2)
    ) as flow:
        Node("extract") >> Node("transform") >> Node("load", "store", join="any", deadline=90.5)
    assert flow.config() == {
        "workflowName": "sales",
        "team": "shop",
        "description": "of each hour",
        "start": "extract",
        "deadlineSeconds": 7200,
        "nodes": [
            {"job": "extract"},
            {"job": "transform", "after": ["extract"]},
            {"name": "store", "job": "load", "join": "any", "deadlineSeconds": 90.5, "after": ["transform"]},
        ],
    }
    assert json.loads(str(flow)) == flow.config()
    assert workflows()[-1] is flow


def test_fields_with_default_values_are_left_out() -> None:
    with Workflow("flow") as flow:
        Node("a", "a", join="all")
    assert flow.config() == {"workflowName": "flow", "nodes": [{"job": "a"}]}


def test_lists_may_stand_on_either_side() -> None:
    def build() -> None:
        a, b, c, d, e = map(Node, "abcde")
        a >> [b, c] >> d
        (b, c) >> e

    assert after(nodes(build)) == {"a": None, "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["b", "c"]}


def test_conditions_have_an_end_and_a_result() -> None:
    def build() -> None:
        a, b, c = map(Node, "abc")
        c.after(a, on="failure").after([b], result="big")
        b.after(a, on="either")

    assert after(nodes(build)) == {
        "a": None,
        "b": [{"node": "a", "on": "either"}],
        "c": [{"node": "a", "on": "failure"}, {"node": "b", "result": "big"}],
    }


def test_waits_have_no_job() -> None:
    def build() -> None:
        Approval("ok", deadline=60) >> Event("orders.arrived") >> Event("paid", "money") >> Callback("scan", join="any")

    assert nodes(build) == [
        {"name": "ok", "waitFor": "approval", "deadlineSeconds": 60},
        {"name": "orders.arrived", "waitFor": "event", "event": "orders.arrived", "after": ["ok"]},
        {"name": "money", "waitFor": "event", "event": "paid", "after": ["orders.arrived"]},
        {"name": "scan", "waitFor": "callback", "join": "any", "after": ["money"]},
    ]


def test_places_are_lines_of_the_file() -> None:
    with Workflow("flow") as flow:
        a = Node("a")
        b = Node("b")
        a >> b
    places = flow.places()
    assert {file for file, _ in places.values()} == {__file__}
    first = places[()][1]
    lines = {place: line - first for place, (_, line) in places.items()}
    assert lines == {(): 0, ("nodes", 0): 1, ("nodes", 1): 2, ("nodes", 1, "after", 0): 3}


def test_node_outside_of_a_workflow_is_an_error() -> None:
    with Workflow("flow"):
        pass
    with pytest.raises(RuntimeError, match="node a stands outside of a workflow; write it into a block"):
        Node("a")


def test_workflow_inside_a_workflow_is_an_error_and_neither_is_made() -> None:
    before = workflows()
    with pytest.raises(RuntimeError, match="workflow in stands inside workflow out"), Workflow("out"), Workflow("in"):
        pass
    assert workflows() == before
    with pytest.raises(RuntimeError, match="outside"):
        Node("a")


def test_node_of_another_workflow_is_an_error() -> None:
    with Workflow("one"):
        a = Node("a")
    with Workflow("two"), pytest.raises(ValueError, match="node a belongs to another workflow: one"):
        a >> Node("b")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda a: a >> "b", "unsupported operand"),
        (lambda a: "b" >> a, "unsupported operand"),
        (lambda a: a >> ["b"], "'b' is no node"),
        (lambda a: a.after("b"), "'b' is no node"),
        (lambda a: a.after(3), "3 is no node"),
        (lambda a: a.after(a, result=3), "result is a text, and not 3"),
        (lambda a: Node(_any(3)), "job is a text, and not 3"),
        (lambda a: Node("b", join=_any(None)), "join is a text"),
        (lambda a: Node("b", deadline=_any("1h")), "a deadline is a number of seconds or a timedelta, and not '1h'"),
        (lambda a: Node("b", deadline=True), "a deadline is"),
        (lambda a: Workflow(_any(None)), "name is a text"),
    ],
)
def test_wrong_value_is_an_error_at_its_line(build: Callable[[Any], object], said: str) -> None:
    with Workflow("flow"), pytest.raises(TypeError, match=said):
        build(Node("a"))


def test_nodes_without_end_are_an_error() -> None:
    def build() -> None:
        a: Step = Node("a")
        while True:
            a = a.after(a)

    with pytest.raises(ValueError, match="more than 10,000 nodes and conditions"):
        nodes(build)
