"""The graphs of workflows: checks, and the decision whether a node starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Final, NamedTuple

from jobcloud.config import check_name
from jobcloud.errors import ConfigError
from jobcloud.model import After, Join, Node, NodeRun, NodeState, On, ShardState, WaitFor
from jobcloud.sentences import Told, Words
from jobcloud.sentences.frequent import LEAVE_OUT, MISSING, REMOVE_ONE, at_most, choose, too_many, twice

MAX_NODES: Final = 200
#: conditions of all nodes together
MAX_AFTER: Final = 1_000
#: characters of a result for which a condition asks
MAX_RESULT: Final = 200
#: nodes of a cycle that a refusal names
_NAMED = 20
ENDED: Final = (NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED)
_ENDS: Final = {
    ShardState.FINISHED: NodeState.SUCCEEDED,
    ShardState.KILLED: NodeState.CANCELLED,
    ShardState.CANCELLED: NodeState.CANCELLED,
}


class Graph(NamedTuple):
    """The nodes by name, in the order of the workflow, and the names of the nodes that follow each of them.

    `joined`: those of the followers that are joined per shard. `asked`: the nodes of whose results a condition asks.
    """

    nodes: Mapping[str, Node]
    followers: Mapping[str, tuple[str, ...]]
    joined: Mapping[str, tuple[str, ...]]
    asked: AbstractSet[str]

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
    joined: dict[str, dict[str, None]] = {}
    for node in nodes:
        for after in node.after:
            followers[after.node][node.name] = None
            if node.join is Join.SHARDS:
                joined.setdefault(after.node, {})[node.name] = None
    return Graph(
        {node.name: node for node in nodes},
        {name: tuple(found) for name, found in followers.items()},
        {name: tuple(found) for name, found in joined.items()},
        frozenset(after.node for node in nodes for after in node.after if after.result),
    )


class Verdict(Enum):
    """HOLDS: the node starts. NEVER: its conditions can no longer hold. OPEN: neither is known yet."""

    HOLDS = "holds"
    NEVER = "never"
    OPEN = "open"


def verdict(node: Node, record_of: Callable[[str], NodeRun | None]) -> tuple[Verdict, Words | None]:
    """Whether the conditions of a node hold, and why they never will. `record_of` returns the record of another node.

    A node that is joined per shard starts as soon as each of the others has a run: then each of its shards waits for
    the same shard of these runs.
    """
    held = [(after, _holds(after, record := record_of(after.node)), record) for after in node.after]
    if node.join is Join.SHARDS:
        held = [(after, True if record is not None and record.run else holds, record) for after, holds, record in held]
    wrong = next(((after, record) for after, holds, record in held if holds is False), None)
    known = [holds for _, holds, _ in held]
    if node.join is Join.ANY:
        found = Verdict.HOLDS if any(known) or not known else Verdict.OPEN if None in known else Verdict.NEVER
    else:
        found = Verdict.NEVER if wrong is not None else Verdict.HOLDS if all(known) else Verdict.OPEN
    if found is not Verdict.NEVER or wrong is None:
        return found, None
    after, record = wrong
    return found, _never(after, record)


def _never(after: After, record: NodeRun | None) -> Words:
    """Why a condition no longer holds."""
    state = record.state if record is not None else NodeState.WAITING
    if after.result and state is NodeState.SUCCEEDED:
        return Words("node_other_result", {"node": after.node, "result": after.result})
    return Words("node_skipped", {"node": after.node, "state": state, "on": after.on})


def _holds(after: After, record: NodeRun | None) -> bool | None:
    """Whether a condition holds. None: this is not known yet."""
    if record is None or record.state not in ENDED:
        return None
    return meets(after, record.state, record.result)


def meets(after: After, state: NodeState, result: str) -> bool:
    """Whether a condition holds after an end in `state` with `result`, which is as `result_text` returns it."""
    return {
        On.SUCCESS: state is NodeState.SUCCEEDED and after.result in ("", result),
        On.FAILURE: state is NodeState.FAILED,
        On.EITHER: True,
    }[after.on]


def end_of(state: ShardState) -> NodeState:
    """How a node ends if `state` is the end of its only shard, or of the worst of its shards."""
    return _ENDS.get(state, NodeState.FAILED)


def plain(result: str) -> str:
    """The JSON text of a result as people read it: a JSON string as its text, another value as its JSON text."""
    return str(json.loads(result)) if result.startswith('"') else result


def result_text(result: str) -> str:
    """The JSON text of a result as conditions name it. "" if it is too long."""
    text = plain(result)
    return text if len(text) <= MAX_RESULT else ""


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
        _check_wait(node, number)
        _check_after(node, number, names)
    _check_cycles(nodes)
    first = [node.name for node in nodes if not node.after and node.wait is None]
    if not first:
        problem = Told("has no node of a job without a condition", "no_start")
        raise ConfigError(problem, field="nodes", fix=Told("add the job that begins the runs", "add_start"))
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


def _check_wait(node: Node, number: int) -> None:
    field = f"nodes.{number}"
    if node.wait is None and not node.job:
        fix = Told("name a job, or say in waitFor what the node waits for", "job_or_wait")
        raise ConfigError(MISSING, field=f"{field}.job", fix=fix)
    if node.wait is not None and node.job:
        problem = Told("a node that waits for an answer has no job", "wait_has_job")
        raise ConfigError(problem, field=f"{field}.job", fix=LEAVE_OUT)
    if node.wait is not None and node.join is Join.SHARDS:
        problem = Told("a node without a job has no shards", "wait_no_shards")
        raise ConfigError(problem, field=f"{field}.join", fix=choose("all, any"))
    if node.wait is WaitFor.EVENT:
        check_name(f"{field}.event", node.event)
    elif node.event:
        problem = Told("is for nodes that wait for an event", "not_for_events")
        raise ConfigError(problem, field=f"{field}.event", fix=LEAVE_OUT)
    if node.join is Join.SHARDS and not node.after:
        problem = Told("has no condition, so there are no shards to wait for", "join_nothing")
        raise ConfigError(problem, field=f"{field}.join", fix=Told("add a condition in after", "add_condition"))


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
        if after.result and after.on is not On.SUCCESS:
            problem = Told("only a node that succeeds has a result", "result_of_success")
            raise ConfigError(problem, field=f"{field}.result", fix=Told("use on: success", "use_success"))


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
