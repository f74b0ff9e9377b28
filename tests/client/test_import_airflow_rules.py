"""Trigger rules of Airflow as conditions: for each end of each task, the same tasks run.

`end_in_airflow` is a plain twin of `ti_deps/deps/trigger_rule_dep.py` of Airflow 2.10.5 and 3.3.2, for tasks whose
upstream tasks have all ended.
"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.client.import_airflow.rules import Before, Conditions, RuleError, conditions
from jobcloud.model import After, Join, Node, NodeRun, NodeState, On
from jobcloud.scheduler.workflow_graph import Verdict, verdict

RULES = [
    "all_success", "all_failed", "all_done", "one_success", "one_failed", "one_done", "none_failed",
    "none_failed_min_one_success", "none_skipped", "always",
]  # fmt: skip
Graph = dict[str, Before]


def end_in_airflow(rule: str, upstream: list[str], own: str) -> str:
    """The state of a task after its upstream tasks. `own`: its end if it runs."""
    success, failed, skipped = (upstream.count(state) for state in ("success", "failed", "skipped"))
    inherited = upstream.count("upstream_failed")
    if not upstream or rule in ("always", "all_done"):
        return own
    if rule == "all_success":
        return "upstream_failed" if failed or inherited else "skipped" if skipped else own
    if rule == "all_failed":
        return "skipped" if success or skipped else own
    if rule == "one_success":
        return own if success else "skipped" if skipped == len(upstream) else "upstream_failed"
    if rule == "one_failed":
        return own if failed or inherited else "skipped"
    if rule == "one_done":
        return own if failed or success else "skipped"
    if rule == "none_failed":
        return "upstream_failed" if failed or inherited else own
    if rule == "none_failed_min_one_success":
        return "upstream_failed" if failed or inherited else "skipped" if skipped == len(upstream) else own
    assert rule == "none_skipped"
    return "skipped" if skipped else own


def runs_in_airflow(graph: Graph, ends: dict[str, str]) -> set[str]:
    states: dict[str, str] = {}
    for task, (rule, upstream) in graph.items():
        states[task] = end_in_airflow(rule, [states[one] for one in upstream], ends[task])
    return {task for task, state in states.items() if state in ("success", "failed")}


def runs_here(joins: dict[str, Conditions], ends: dict[str, str]) -> set[str]:
    records: dict[str, NodeRun] = {}
    for task, (upstream, on, join) in joins.items():
        node = Node(task, task, tuple(After(one, On(on)) for one in upstream), Join(join))
        found, _ = verdict(node, records.__getitem__)
        own = NodeState.SUCCEEDED if ends[task] == "success" else NodeState.FAILED
        records[task] = NodeRun(own if found is Verdict.HOLDS else NodeState.SKIPPED)
    return {task for task, record in records.items() if record.state is not NodeState.SKIPPED}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph: Graph = {}
    for number in range(draw(st.integers(1, 5))):
        upstream = draw(st.lists(st.sampled_from(sorted(graph)), unique=True)) if graph else []
        graph[f"t{number}"] = Before(draw(st.sampled_from(RULES)), tuple(upstream))
    return graph


@given(graphs())
def test_same_tasks_run_for_each_end_of_each_task(graph: Graph) -> None:
    try:
        joins = {task: conditions(task, graph, tuple(graph)) for task in graph}
    except RuleError:
        return
    for given_ends in product(("success", "failed"), repeat=len(graph)):
        ends = dict(zip(graph, given_ends, strict=True))
        assert runs_here(joins, ends) == runs_in_airflow(graph, ends), (joins, ends)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_converted_behind_first_tasks(rule: str) -> None:
    graph = {"a": Before("all_success", ()), "b": Before("all_success", ()), "c": Before(rule, ("a", "b"))}
    assert conditions("c", graph, tuple(graph)).upstream == (() if rule == "always" else ("a", "b"))


@pytest.mark.parametrize("inherited", ["all_success", "one_success", "none_failed", "none_failed_min_one_success"])
def test_failure_of_the_task_before_last_is_not_lost(inherited: str) -> None:
    graph = {"a": Before("all_success", ()), "b": Before(inherited, ("a",)), "c": Before("one_failed", ("b",))}
    with pytest.raises(RuleError, match="because b may be upstream_failed"):
        conditions("c", graph, tuple(graph))


def test_skip_of_the_task_before_last_is_not_lost() -> None:
    rules = {"a": "all_success", "b": "one_failed", "c": "all_success", "d": "none_failed"}
    graph = {task: Before(rule, tuple("abc"[number - 1 : number])) for number, (task, rule) in enumerate(rules.items())}
    with pytest.raises(RuleError, match="because c may be skipped"):
        conditions("d", graph, tuple(graph))


def test_old_names_of_rules_are_known() -> None:
    graph = {
        "a": Before("all_success", ()),
        "b": Before("dummy", ("a",)),
        "c": Before("none_failed_or_skipped", ("a",)),
    }
    assert conditions("b", graph, tuple(graph)) == Conditions((), "success", "all")
    assert conditions("c", graph, tuple(graph)) == Conditions(("a",), "success", "all")


@pytest.mark.parametrize(
    ("rule", "before", "said"),
    [
        (
            "all_failed",
            "all_success",
            "trigger_rule: all_failed has no equal conditions, because b may be upstream_failed",
        ),
        ("one_failed", "one_success", "because b may be upstream_failed"),
        ("none_failed", "one_failed", "because b may be skipped"),
        ("none_skipped", "all_failed", "because b may be skipped"),
        ("one_done", "one_failed", "because b may be skipped"),
        ("all_skipped", "all_success", "all_skipped has no equal conditions; write the node's `after`"),
        ("all_done_setup_success", "all_success", "all_done_setup_success has no equal"),
        ("x" * 500, "all_success", "x has no equal"),
    ],
)
def test_rule_without_equal_conditions_is_refused_by_name(rule: str, before: str, said: str) -> None:
    graph = {"a": Before("all_success", ()), "b": Before(before, ("a",)), "c": Before(rule, ("b",))}
    with pytest.raises(RuleError, match=said):
        conditions("c", graph, tuple(graph))
