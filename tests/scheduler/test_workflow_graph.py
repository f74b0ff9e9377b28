"""The graphs of workflows: checks, verdicts and outcomes."""

from __future__ import annotations

import itertools
import random

import pytest

from jobcloud.errors import ConfigError
from jobcloud.model import After, Join, Node, NodeRun, NodeState, On, WaitFor
from jobcloud.scheduler.workflow_graph import (
    MAX_AFTER,
    MAX_NODES,
    MAX_RESULT,
    Verdict,
    check,
    graph_of,
    outcome,
    result_text,
    verdict,
)
from jobcloud.sentences import Words

ENDED = (NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED)


def nodes(**after: str) -> list[Node]:
    """Nodes by name. Each value names the nodes that come before, such as `a b/failure`."""
    return [
        Node(name, "job", tuple(After(one.partition("/")[0], On(one.partition("/")[2] or "success"))
                                for one in text.split()))
        for name, text in after.items()
    ]  # fmt: skip


def refusal(given: list[Node], start: str = "") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check(given, start)
    return caught.value


def test_the_only_node_without_a_condition_is_the_start() -> None:
    assert check(nodes(a="", b="a", c="a b"), "") == "a"


def test_several_nodes_without_a_condition_need_a_named_start() -> None:
    given = nodes(a="", b="", c="a b")
    assert refusal(given).field == "start"
    assert check(given, "b") == "b"
    assert "a, b" in refusal(given, "c").fix


@pytest.mark.parametrize(
    ("given", "field", "text"),
    [
        ([], "nodes", "has no node"),
        (nodes(a="b"), "nodes.0.after.0", "there is no node b"),
        (nodes(a="", b="a a/failure"), "nodes.1.after.1", "a is given twice"),
        ([*nodes(a=""), *nodes(a="")], "nodes.1.name", "a is given twice"),
        (nodes(a="a"), "nodes", "is a cycle: a → a"),
        (nodes(a="", b="a d", c="b", d="c", e="d"), "nodes", "is a cycle: b → c → d → b"),
        ([Node(f"n{number}", "job") for number in range(MAX_NODES + 1)], "nodes", f"has {MAX_NODES + 1} nodes"),
        ([Node("a/b", "job")], "nodes.0.name", "'a/b' is not a valid name"),
    ],
)
def test_a_wrong_graph_is_refused_with_its_place(given: list[Node], field: str, text: str) -> None:
    found = refusal(given)
    assert (found.field, found.problem) == (field, text)
    assert found.fix


def test_a_long_cycle_is_refused_with_a_part_of_its_path() -> None:
    given = [Node(f"n{number}", "job", (After(f"n{(number - 1) % 150}"),)) for number in range(150)]
    found = refusal(given)
    assert found.problem.startswith("is a cycle: n")
    assert found.problem.count("→") == 20


def test_the_number_of_conditions_is_bounded() -> None:
    given = [Node(f"n{number}", "job", tuple(After(f"n{other}") for other in range(number))) for number in range(60)]
    assert sum(len(node.after) for node in given) > MAX_AFTER
    assert refusal(given).problem == "has 1770 conditions"


A, FAILED = After("a"), After("a", On.FAILURE, "x")


def _record(state: NodeState) -> NodeRun | None:
    return None if state is NodeState.WAITING else NodeRun(state, "run" if state is NodeState.RUNNING else "")


@pytest.mark.parametrize("join", Join)
@pytest.mark.parametrize("states", [*itertools.product((*ENDED, NodeState.WAITING, NodeState.RUNNING), repeat=2)])
@pytest.mark.parametrize("on", On)
def test_a_node_starts_when_its_conditions_hold(join: Join, on: On, states: tuple[NodeState, NodeState]) -> None:
    def holds(state: NodeState) -> bool | None:
        if state is NodeState.RUNNING and join is Join.SHARDS:
            return True
        if state not in ENDED:
            return None
        return on is On.EITHER or state is (NodeState.SUCCEEDED if on is On.SUCCESS else NodeState.FAILED)

    held = list(map(holds, states))
    if join is Join.ANY:
        wanted = Verdict.HOLDS if True in held else Verdict.OPEN if None in held else Verdict.NEVER
    else:
        wanted = Verdict.NEVER if False in held else Verdict.OPEN if None in held else Verdict.HOLDS
    records = dict(zip("ab", map(_record, states), strict=True))
    found, why = verdict(Node("c", "job", (After("a", on), After("b", on)), join), records.__getitem__)
    assert found is wanted
    assert (why is not None) == (found is Verdict.NEVER)


@pytest.mark.parametrize("join", Join)
def test_a_node_without_conditions_starts_at_once(join: Join) -> None:
    assert verdict(Node("a", "job", (), join), lambda name: None) == (Verdict.HOLDS, None)


def test_a_condition_may_ask_for_a_result() -> None:
    node = Node("b", "job", (After("a", On.SUCCESS, "big"),))
    big, small = (NodeRun(NodeState.SUCCEEDED, result=result) for result in ("big", "small"))
    assert verdict(node, lambda _: big) == (Verdict.HOLDS, None)
    other = verdict(node, lambda _: small)
    assert other == (Verdict.NEVER, Words("node_other_result", {"node": "a", "result": "big"}))
    failed = verdict(node, lambda _: NodeRun(NodeState.FAILED, result="big"))
    assert failed == (Verdict.NEVER, Words("node_skipped", {"node": "a", "state": "FAILED", "on": "success"}))


def test_a_result_is_named_by_its_text() -> None:
    assert result_text('"big"') == "big"
    assert result_text("3") == "3"
    assert result_text("") == ""
    assert result_text('"' + "x" * MAX_RESULT + '"') == "x" * MAX_RESULT
    assert result_text('"' + "x" * (MAX_RESULT + 1) + '"') == ""


@pytest.mark.parametrize(
    ("node", "field", "problem"),
    [
        (Node("b"), "nodes.1.job", "is missing"),
        (Node("b", "job", wait=WaitFor.APPROVAL), "nodes.1.job", "a node that waits for an answer has no job"),
        (Node("b", "", (A,), Join.SHARDS, WaitFor.EVENT, "e"), "nodes.1.join", "a node without a job has no shards"),
        (Node("b", "job", join=Join.SHARDS), "nodes.1.join", "has no condition, so there are no shards to wait for"),
        (Node("b", "job", event="e"), "nodes.1.event", "is for nodes that wait for an event"),
        (Node("b", wait=WaitFor.EVENT, event="a b"), "nodes.1.event", "'a b' is not a valid name"),
        (Node("b", "job", (FAILED,)), "nodes.1.after.0.result", "only a node that succeeds has a result"),
    ],
)  # fmt: skip
def test_a_node_that_makes_no_sense_is_refused(node: Node, field: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        check([Node("a", "job"), node], "a")
    assert (error.value.field, problem in str(error.value.problem)) == (field, True)


def test_a_workflow_needs_the_node_of_a_job_as_its_start() -> None:
    with pytest.raises(ConfigError, match="has no node of a job without a condition"):
        check([Node("a", wait=WaitFor.APPROVAL), Node("b", "job", (After("a"),))], "")


def test_a_failed_node_makes_the_run_fail_also_if_another_node_handled_it() -> None:
    assert outcome([NodeState.FAILED, NodeState.SUCCEEDED], cancelled=False) is NodeState.FAILED
    assert outcome([NodeState.FAILED, NodeState.CANCELLED], cancelled=True) is NodeState.FAILED
    assert outcome([NodeState.CANCELLED, NodeState.SUCCEEDED], cancelled=False) is NodeState.CANCELLED
    assert outcome([NodeState.SKIPPED, NodeState.SUCCEEDED], cancelled=False) is NodeState.SUCCEEDED
    assert outcome([NodeState.SUCCEEDED], cancelled=True) is NodeState.CANCELLED


def test_random_graphs_have_a_cycle_if_and_only_if_a_search_finds_one() -> None:
    dice = random.Random(5)
    cycles = 0
    for _ in range(300):
        names = [f"n{number}" for number in range(dice.randint(1, 7))]
        given = [
            Node(name, "job", tuple(After(other) for other in names if dice.random() < 0.25)) for name in names
        ]  # fmt: skip
        graph = graph_of(tuple(given))
        cyclic = any(name in graph.reachable(name) for name in names)
        cycles += cyclic
        first = [node.name for node in given if not node.after]
        if cyclic:
            path = refusal(given, first[0] if first else "").problem.removeprefix("is a cycle: ").split(" → ")
            assert path[0] == path[-1]
            for before, after in itertools.pairwise(path):
                assert before in [one.node for one in graph.nodes[after].after]
        else:
            assert check(given, first[0]) == first[0]
    assert 50 < cycles < 250
