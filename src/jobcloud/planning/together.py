"""The nodes of a workflow that can run at the same time in one run, and the heaviest set of such nodes.

Sets of nodes are bits of an integer: bit i is node i. A node comes after all nodes that its conditions name.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import count
from operator import and_, or_
from typing import Final, NamedTuple

#: The most flows of a graph. One for 200 nodes takes about 10 ms.
_MAX_SEARCHES: Final = 1_000


class Condition(NamedTuple):
    """The end of another node: `on` is success, failure or either, `result` its result or "" for any."""

    node: int
    on: str = "success"
    result: str = ""


class Place(NamedTuple):
    """A node in the graph. `join`: all, any or shards. `job`: "" for a node that waits for an answer.

    `alone`: its job has at most one run at a time.
    """

    after: tuple[Condition, ...] = ()
    join: str = "all"
    job: str = ""
    shards: int = 0
    alone: bool = False


def bits(found: int) -> Iterator[int]:
    """The nodes of a set, ascending."""
    while found:
        low = found & -found
        yield low.bit_length() - 1
        found ^= low


def apart(places: Sequence[Place]) -> list[int]:
    """For each node, the set of nodes that never run at the same time as it in one run of the workflow.

    These are the nodes that have ended before it begins, the nodes of a branch that excludes its own branch, and nodes
    of the same job if this job has one run at a time. Each run lasts from its begin to its end: nothing is repeated.

    A skipped node ends early: at the first condition that does not hold. So the nodes before it may still run when a
    node begins that waits for any end of it.
    """
    everyone = (1 << len(places)) - 1
    needs = _needs(places)
    having = dict[tuple[int, str], int]()
    for node, facts in enumerate(needs):
        for fact in facts:
            having[fact] = having.get(fact, 0) | 1 << node
    values = dict[int, list[str]]()
    for node, value in having:
        values.setdefault(node, []).append(value)

    def excluded(facts: frozenset[tuple[int, str]]) -> int:
        """The nodes that never run if these facts hold."""
        rivals = ((n, other) for n, value in facts for other in values.get(n, ()) if _contradict(value, other))
        return reduce(or_, (having[fact] for fact in rivals), 0)

    # The nodes that have ended when a node begins; those of which this holds shard by shard; those when it is skipped.
    over, by_shard, skipped = list[int](), list[int](), list[int]()

    def ended(node: int) -> int:
        return 1 << node | (over[node] | by_shard[node]) & skipped[node]

    def held(condition: Condition, place: Place) -> tuple[int, int]:
        """The nodes that have ended if a condition holds, and those of which this holds shard by shard."""
        node, on, _ = condition
        if place.join == "shards":
            same = not place.job or not places[node].job or places[node].shards == place.shards
            found = over[node] if on != "either" else over[node] & skipped[node]
            return found, (1 << node | by_shard[node] & (everyone if on != "either" else skipped[node])) if same else 0
        if on == "either":
            return ended(node), 0
        return 1 << node | over[node] | by_shard[node] | excluded(needs[node] | _facts(condition)), 0

    for place in places:
        found = [held(condition, place) for condition in place.after]
        false = [ended(one.node) if one.on != "either" else everyone for one in place.after]
        first, second = (or_, and_) if place.join != "any" else (and_, or_)
        over.append(reduce(first, (whole for whole, _ in found)) if found else 0)
        by_shard.append(reduce(or_, (part for _, part in found), 0))
        skipped.append(reduce(second, false) if false else everyone)
    by_job = dict[str, int]()
    for node, place in enumerate(places):
        if place.alone:
            by_job[place.job] = by_job.get(place.job, 0) | 1 << node
    never = [0] * len(places)
    for node, place in enumerate(places):
        before = over[node] | by_shard[node] | excluded(needs[node]) | (by_job[place.job] if place.alone else 0)
        never[node] |= before & ~(1 << node)
        for other in bits(never[node]):
            never[other] |= 1 << node
    return never


def _needs(places: Sequence[Place]) -> list[frozenset[tuple[int, str]]]:
    """The ends of other nodes that are sure if a node has begun, as (node, end)."""
    found = list[frozenset[tuple[int, str]]]()
    for place in places:
        sets = []
        for condition in place.after:
            if condition.on == "either":
                sets.append(frozenset[tuple[int, str]]())
            elif place.join == "shards":  # single shards may end otherwise
                sets.append(found[condition.node])
            else:
                sets.append(found[condition.node] | _facts(condition))
        join = frozenset.intersection if place.join == "any" else frozenset.union
        found.append(join(*sets) if sets else frozenset())
    return found


def _facts(condition: Condition) -> frozenset[tuple[int, str]]:
    node, on, result = condition
    return frozenset({(node, on), (node, f"={result}")} if result else {(node, on)})


def _contradict(one: str, two: str) -> bool:
    return one != two and (one[0] == two[0] == "=" or {one, two} == {"success", "failure"})


class Heaviest(NamedTuple):
    """A set of nodes. If it is not `exact`, some of them may exclude each other, and no possible set is heavier."""

    nodes: int
    exact: bool


class Sets:
    """Searches for heaviest sets in a graph. After _MAX_SEARCHES flows, each set is only a bound, from one flow."""

    def __init__(self, never: Sequence[int]) -> None:
        """`never`: as `apart` returns it."""
        self._never = never
        # A part of the pairs in `never` that is a partial order: what is below a node is below all nodes above it.
        self._below: list[int] = []
        for node, mask in enumerate(never):
            lower = (n for n in bits(mask & ((1 << node) - 1)) if not self._below[n] & ~mask)
            self._below.append(sum(1 << n for n in lower))
        self._left = _MAX_SEARCHES
        self._known: dict[tuple[int, tuple[int, ...]], Heaviest] = {}

    def heaviest(self, among: int, weights: Sequence[int]) -> Heaviest:
        """The heaviest set in `among` of which all nodes can run at the same time. Weights are 0 or more.

        Nodes without weight are left out. The order alone is solved by a flow; branch and bound handles other pairs.
        """
        among = sum(1 << n for n in bits(among) if weights[n] > 0)
        if not any(self._never[n] & among for n in bits(among)):
            return Heaviest(among, True)
        key = among, tuple(weights)
        if key not in self._known:
            self._known[key] = self._search(among, weights)
        return self._known[key]

    def _search(self, among: int, weights: Sequence[int]) -> Heaviest:
        """The part with the heaviest bound comes first, so its set is the answer if all its nodes can run together."""
        numbers = count()

        def bounded(part: int) -> tuple[int, int, int, int]:
            self._left -= 1
            chosen = antichain(self._below, part, weights)
            return -sum(weights[n] for n in bits(chosen)), next(numbers), part, chosen

        open_ = [bounded(among)]
        while True:
            _, _, part, chosen = heapq.heappop(open_)
            clashes = {n: found for n in bits(chosen) if (found := self._never[n] & chosen)}
            if not clashes or self._left <= 0:
                return Heaviest(chosen, not clashes)
            node = max(clashes, key=lambda n: (clashes[n].bit_count(), weights[n]))
            heapq.heappush(open_, bounded(part & ~(1 << node)))
            heapq.heappush(open_, bounded(part & ~self._never[node]))


def antichain(below: Sequence[int], among: int, weights: Sequence[int]) -> int:
    """The heaviest set in `among` of which no node is below another. `below` is a partial order.

    By Dilworth's theorem with weights: a maximum flow from each node to those below it, by Dinic's algorithm (1970).
    """
    edges = {n: below[n] & among for n in bits(among)}
    supply = {n: weights[n] for n in edges}
    demand = dict(supply)
    flow: dict[int, dict[int, int]] = {n: {} for n in edges}  # [lower][upper]
    while True:
        # Layers alternate between upper ends (even) and lower ends (odd) of the pairs.
        layers = [sum(1 << n for n in edges if supply[n])]
        uppers, lowers, goal = layers[0], 0, 0
        while layers[-1] and not goal:
            layers.append(reduce(or_, (edges[n] for n in bits(layers[-1])), 0) & ~lowers)
            lowers |= layers[-1]
            goal = sum(1 << n for n in bits(layers[-1]) if demand[n])
            if not goal:
                back = reduce(or_, (sum(1 << n for n in flow[lower]) for lower in bits(layers[-1])), 0)
                layers.append(back & ~uppers)
                uppers |= layers[-1]
        if not goal:
            return uppers & ~lowers
        _block(edges, supply, demand, flow, layers)


def _block(
    edges: dict[int, int],
    supply: dict[int, int],
    demand: dict[int, int],
    flow: dict[int, dict[int, int]],
    layers: list[int],
) -> None:
    """Send flow along shortest paths until there is none any more."""
    for source in bits(layers[0]):
        path = [source]
        while supply[source]:
            depth = len(path)
            if depth == len(layers):
                if demand[path[-1]]:
                    _send(supply, demand, flow, path)
                    path = [source]
                    continue
                following = 0
            elif depth % 2:
                following = edges[path[-1]] & layers[depth]
            else:
                following = sum(1 << n for n in flow[path[-1]]) & layers[depth]
            if following:
                path.append(next(bits(following)))
                continue
            # Nothing leads on from here.
            layers[depth - 1] &= ~(1 << path.pop())
            if not path:
                break


def _send(supply: dict[int, int], demand: dict[int, int], flow: dict[int, dict[int, int]], path: list[int]) -> None:
    """Send as much as possible along a path of upper and lower ends in turn."""
    backward = list(zip(path[1:-1:2], path[2::2], strict=True))
    amount = min(supply[path[0]], demand[path[-1]], *(flow[lower][upper] for lower, upper in backward))
    supply[path[0]] -= amount
    demand[path[-1]] -= amount
    for lower, upper in zip(path[1::2], path[::2], strict=True):
        flow[lower][upper] = flow[lower].get(upper, 0) + amount
    for lower, upper in backward:
        flow[lower][upper] -= amount
        if not flow[lower][upper]:
            del flow[lower][upper]
