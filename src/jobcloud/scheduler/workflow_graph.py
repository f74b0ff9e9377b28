"""The graphs of workflows: checks, and the decision whether a node starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from jobcloud.config import check_name
from jobcloud.errors import ConfigError
from jobcloud.model import After, Join, Node, NodeState, On
from jobcloud.sentences import Told, Words
from jobcloud.sentences.frequent import REMOVE_ONE, at_most, choose, too_many, twice

MAX_NODES: Final = 200
#: conditions of all nodes together
MAX_AFTER: Final = 1_000
#: nodes of a cycle that a refusal names
_NAMED = 20
ENDED: Final = (NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED)


class Graph(NamedTuple):
    """The nodes by name, in the order of the workflow, and the names of the nodes that follow each of them."""

    nodes: Mapping[str, Node]
    followers: Mapping[str, tuple[str, ...]]

    def reachable(self, name: str) -> list[str]:
        """The nodes behind a node, without the node itself."""
        found: dict[str, None] = {}
        rest = list(self.followers[name])
        while rest:
            node = rest.pop()
            if node not in found:
                found[node] = None
                rest += self.followers[node]
        return list(found)


def graph_of(nodes: tuple[Node, ...]) -> Graph:
    """The graph of nodes that `check` has accepted."""
    followers: dict[str, dict[str, None]] = {node.name: {} for node in nodes}
    for node in nodes:
        for after in node.after:
            followers[after.node][node.name] = None
    return Graph({node.name: node for node in nodes}, {name: tuple(found) for name, found in followers.items()})


class Verdict(Enum):
    """HOLDS: the node starts. NEVER: its conditions can no longer hold. OPEN: neither is known yet."""

    HOLDS = "holds"
    NEVER = "never"
    OPEN = "open"


def verdict(node: Node, state_of: Callable[[str], NodeState]) -> tuple[Verdict, Words | None]:
    """Whether the conditions of a node hold, and why they never will."""
    wrong: After | None = None
    states = [(after, state_of(after.node)) for after in node.after]
    held = [_holds(after.on, state) for after, state in states]
    for (after, _), holds in zip(states, held, strict=True):
        if holds is False:
            wrong = wrong or after
    if node.join is Join.ALL:
        found = Verdict.NEVER if wrong is not None else Verdict.HOLDS if all(held) else Verdict.OPEN
    else:
        found = Verdict.HOLDS if any(held) or not held else Verdict.OPEN if None in held else Verdict.NEVER
    if found is not Verdict.NEVER or wrong is None:
        return found, None
    return found, Words("node_skipped", {"node": wrong.node, "state": state_of(wrong.node), "on": wrong.on})


def _holds(on: On, state: NodeState) -> bool | None:
    """Whether a condition holds. None: this is not known yet."""
    if state not in ENDED:
        return None
    return {
        On.SUCCESS: state is NodeState.SUCCEEDED,
        On.FAILURE: state is NodeState.FAILED,
        On.EITHER: True,
    }[on]


def outcome(states: Iterable[NodeState], *, cancelled: bool) -> NodeState:
    """The state of a run whose nodes have all ended. A failed node always counts, also if another node handled it."""
    found = set(states)
    if NodeState.FAILED in found:
        return NodeState.FAILED
    return NodeState.CANCELLED if cancelled or NodeState.CANCELLED in found else NodeState.SUCCEEDED


def check(nodes: Sequence[Node], start: str) -> str:
    """Returns the name of the node whose runs begin a run: `start`, or the only node without a condition.

    Raises ConfigError, which names the node, or the path of a cycle.
    """
    if not nodes:
        raise ConfigError(Told("has no node", "no_nodes"), field="nodes", fix=Told("add a node", "add_node"))
    if len(nodes) > MAX_NODES:
        raise ConfigError(too_many(len(nodes), "nodes"), field="nodes", fix=at_most(MAX_NODES))
    names: dict[str, None] = {}
    for number, node in enumerate(nodes):
        check_name(f"nodes.{number}.name", node.name)
        if node.name in names:
            raise ConfigError(twice(node.name), field=f"nodes.{number}.name", fix=REMOVE_ONE)
        names[node.name] = None
    if (count := sum(len(node.after) for node in nodes)) > MAX_AFTER:
        raise ConfigError(too_many(count, "conditions"), field="nodes", fix=at_most(MAX_AFTER, " in a workflow"))
    for number, node in enumerate(nodes):
        _check_after(node, number, names)
    _check_cycles(nodes)
    first = [node.name for node in nodes if not node.after]
    if not start and len(first) > 1:
        text = f"is missing, and {len(first)} nodes have no condition, for example {first[0]} and {first[1]}"
        problem = Told(text, "several_starts", nodes=len(first), first=first[0], second=first[1])
        fix = Told("name the node whose runs begin a run of the workflow", "name_start")
        raise ConfigError(problem, field="start", fix=fix)
    found = start or first[0]
    if found not in first:
        problem = Told(f"{found[:200]} is not a node without a condition", "not_a_start", node=found[:200])
        raise ConfigError(problem, field="start", fix=choose(", ".join(first[:_NAMED])))
    return found


def _check_after(node: Node, number: int, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for place, after in enumerate(node.after):
        field = f"nodes.{number}.after.{place}"
        if after.node not in names:
            problem = Told(f"there is no node {after.node[:200]}", "no_node", node=after.node[:200])
            raise ConfigError(problem, field=field, fix=Told("name a node of the workflow", "name_a_node"))
        if after.node in seen:
            raise ConfigError(twice(after.node), field=field, fix=REMOVE_ONE)
        seen.add(after.node)


def _check_cycles(nodes: Sequence[Node]) -> None:
    """Raises ConfigError with the path of a cycle. Kahn's algorithm (1962) finds the nodes of the cycles."""
    graph = graph_of(tuple(nodes))
    missing = {node.name: len(node.after) for node in nodes}
    free = [name for name, number in missing.items() if not number]
    while free:
        for follower in graph.followers[free.pop()]:
            missing[follower] -= 1
            if not missing[follower]:
                free.append(follower)
    stuck = {name: number for name, number in missing.items() if number}
    if not stuck:
        return
    # Each of these nodes comes after another one of them. So the way back meets a node twice.
    path: dict[str, None] = {}
    name = next(iter(stuck))
    while name not in path:
        path[name] = None
        name = next(after.node for after in graph.nodes[name].after if after.node in stuck)
    back = [*path][[*path].index(name) :]
    place = back.index(next(one for one in stuck if one in back)) + 1
    cycle = [*back[place:], *back[:place]][::-1]
    shown = [*cycle[:_NAMED], "…"] if len(cycle) > _NAMED else [*cycle, cycle[0]]
    text = " → ".join(shown)
    problem = Told(f"is a cycle: {text}", "workflow_cycle", path=text, nodes=len(cycle))
    raise ConfigError(problem, field="nodes", fix=Told("remove one of these conditions", "remove_condition"))
