"""The load of workflows: which of their nodes run at the same time.

If the durations of all nodes are known, each node begins when those before it end. Otherwise, the heaviest set of nodes
that can run at the same time counts for as long as a run of the workflow lasts.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from jobcloud.config import key_of
from jobcloud.durations import in_numbers
from jobcloud.errors import ConfigError
from jobcloud.model import Join, On, WaitFor
from jobcloud.planning.demand import DAY_MS, Load, ScheduledJob, Span, load, runs
from jobcloud.planning.problem import TaskKind
from jobcloud.planning.together import Condition, Place, Sets, apart, bits
from jobcloud.scheduler.workflow_graph import MAX_AFTER, MAX_NODES

#: The unfinished runs of a workflow: the scheduler begins no more.
MAX_RUNS: Final = 100
#: Workflows of which more nodes start count as always running.
_MAX_STARTS: Final = 100_000
# Runs that began earlier before the planned time are ignored.
_MAX_LEAD_MS: Final = 300 * DAY_MS
_NAME: Final = 100


class Step(NamedTuple):
    """A node. `job`: the key of its job, or "" if it waits for an answer. `waits_s`: how long it waits at most."""

    name: str
    job: str
    after: tuple[Condition, ...] = ()
    join: str = "all"
    waits_s: float = 0.0


class Flow(NamedTuple):
    """A workflow. Each step stands behind those that its conditions name; the first one is the start."""

    key: str
    steps: tuple[Step, ...]


# ------------------------------------------------------------------------------------------------------------- reading


def flow_of(key: str, config: Mapping[str, Any], team: str, field: str) -> Flow:
    """The workflow of a configuration (docs/workflows.md, "Fields"). Raises ConfigError, which begins with `field`."""
    nodes = _list(config.get("nodes"), f"{field}: nodes", MAX_NODES)
    if not nodes:
        raise ConfigError("has no node", field=f"{field}: nodes", fix="add a node")
    names, given = dict[str, int](), list[tuple[str, list[tuple[str, str, str]], Mapping[str, Any]]]()
    conditions = 0
    for number, node in enumerate(nodes):
        where = f"{field}: nodes.{number}"
        if not isinstance(node, Mapping):
            raise ConfigError("is not an object", field=where, fix="write job, and after")
        job = _text(node, "job", where)
        name = _text(node, "name", where) or job
        if not name or name in names:
            raise ConfigError(f"the name {name!r} is missing or given twice", field=where, fix="choose another name")
        names[name] = number
        after = [_condition(one, f"{where}.after.{n}") for n, one in enumerate(_after(node, where))]
        conditions += len(after)
        given.append((name, after, node))
    if conditions > MAX_AFTER:
        raise ConfigError(f"has {conditions} conditions", field=f"{field}: nodes", fix=f"at most {MAX_AFTER:,}")
    for number, (_, after, _) in enumerate(given):
        for other, _, _ in after:
            if other not in names:
                where = f"{field}: nodes.{number}.after"
                raise ConfigError(f"there is no node {other!r}", field=where, fix="name a node of the workflow")
    free = [name for name, after, _ in given if not after]
    start = _text(config, "start", field) or (free[0] if len(free) == 1 else "")
    if start not in free:
        problem = "names no node without a condition"
        raise ConfigError(problem, field=f"{field}: start", fix="name the node whose runs begin a run")
    order = _ordered(given, names, names[start], f"{field}: nodes")
    at = {number: place for place, number in enumerate(order)}
    steps = []
    for number in order:
        name, after, node = given[number]
        found = tuple(Condition(at[names[other]], on, result) for other, on, result in after)
        where = f"{field}: nodes.{number}"
        join = _choice(node, "join", where, tuple(Join), "all")
        job = _text(node, "job", where)
        if not job and not _choice(node, "waitFor", where, ("", *WaitFor), ""):
            raise ConfigError("is missing", field=f"{where}.job", fix="name a job, or write waitFor")
        deadline = in_numbers(node).get("deadlineSeconds") or 0
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 <= deadline < 1e10:
            problem = f"{deadline!r:.60} is no number of seconds"
            raise ConfigError(problem, field=f"{where}.deadlineSeconds", fix="such as 3600")
        steps.append(Step(name, key_of(team, job) if job else "", found, join, deadline))
    return Flow(key, tuple(steps))


def _after(node: Mapping[str, Any], where: str) -> list[Any]:
    return _list(node.get("after", []), f"{where}.after", MAX_NODES)


def _list(value: Any, field: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ConfigError(f"is not a list of at most {most} entries", field=field, fix='such as after = ["extract"]')
    return value


def _text(table: Mapping[str, Any], name: str, where: str) -> str:
    value = table.get(name) or ""
    if not isinstance(value, str) or len(value) > _NAME:
        problem = f"{value!r:.60} is not a text of at most {_NAME} characters"
        raise ConfigError(problem, field=f"{where}.{name}", fix="write a name")
    return value


def _choice(table: Mapping[str, Any], name: str, where: str, known: Sequence[str], default: str) -> str:
    value = str(table.get(name) or default).lower()
    if value not in known:
        raise ConfigError(f"{value!r:.60} is unknown", field=f"{where}.{name}", fix=f"one of {', '.join(known)}")
    return value


def _condition(given: Any, where: str) -> tuple[str, str, str]:
    """The node, the end and the result of a condition."""
    table = {"node": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping):
        raise ConfigError("is not a condition", field=where, fix="write the name of a node, or node and on")
    on = _choice(table, "on", where, tuple(On), "success")
    return _text(table, "node", where), on, str(table.get("result") or "")


def _ordered(
    given: Sequence[tuple[str, list[tuple[str, str, str]], Any]], names: Mapping[str, int], start: int, field: str
) -> list[int]:
    """The nodes, each behind those that it waits for; the start is the first. Raises ConfigError for a cycle."""
    followers: list[list[int]] = [[] for _ in given]
    missing = [len(after) for _, after, _ in given]
    for number, (_, after, _) in enumerate(given):
        for other, _, _ in after:
            followers[names[other]].append(number)
    order = [start, *(number for number, count in enumerate(missing) if not count and number != start)]
    for number in order:
        for follower in followers[number]:
            missing[follower] -= 1
            if not missing[follower]:
                order.append(follower)
    if len(order) < len(given):
        stuck = next(name for (name, _, _), count in zip(given, missing, strict=True) if count)
        raise ConfigError(f"node {stuck!r} is in a cycle, or behind one", field=field, fix="remove a condition")
    return order


# ---------------------------------------------------------------------------------------------------------- the load


class Counted(NamedTuple):
    """The set of nodes of workflows with one start that counts. `runs`: the most runs at the same time, 0 if none.

    `unknown`: jobs without a known duration, or nodes that wait for an answer. If there are any, the set counts for the
    whole run. `exact`: whether all these nodes can run at the same time; otherwise, no such nodes need more.
    `dimension`: the resource of which this set needs the most.
    """

    workflows: tuple[str, ...]
    nodes: tuple[str, ...]
    kinds: tuple[TaskKind, ...]
    runs: int
    unknown: tuple[str, ...]
    exact: bool
    dimension: int


@dataclass(frozen=True, slots=True)
class _Node:
    """A node with its job; None if it needs nothing. `most`: the most shards at the same time, as pools admit."""

    name: str
    step: Step
    job: ScheduledJob | None
    run_ms: int
    most: int


class Family:
    """The workflows that begin with the runs of one job: their runs begin together, and the start counts once."""

    def __init__(
        self, flows: Sequence[Flow], jobs: Mapping[str, ScheduledJob], limits: Mapping[str, int], known: set[str]
    ) -> None:
        """`jobs` by key, without jobs that never run. `limits`: the slots of pools. `known`: jobs of known duration."""
        self.workflows = tuple(flow.key for flow in flows)
        self._nodes: list[_Node] = []
        for flow in flows:
            at: dict[int, int] = {}
            for number, step in enumerate(flow.steps):
                if number == 0 and self._nodes:
                    at[0] = 0
                    continue
                at[number] = len(self._nodes)
                after = tuple(one._replace(node=at[one.node]) for one in step.after)
                name = step.name if len(flows) == 1 or not number else f"{flow.key}/{step.name}"
                self._nodes.append(_node(name, step._replace(after=after), jobs.get(step.job), limits))
        self._places = [
            Place(
                node.step.after,
                node.step.join,
                node.step.job,
                node.job.kind.copies if node.job else 0,
                node.job is not None and node.job.at_once == 1,
            )
            for node in self._nodes
        ]
        self._sets = Sets(apart(self._places))
        asked = (node.step.job or node.name for node in self._nodes if node.step.job not in known)
        self.unknown = tuple(dict.fromkeys(asked))
        self._all = (1 << len(self._nodes)) - 1

    @property
    def start(self) -> ScheduledJob | None:
        return self._nodes[0].job

    def at_once(self, instant: int, leave_out: Set[str], capacity: Sequence[int], d: int) -> tuple[list[Span], Counted]:
        """The heaviest set at an instant at which everything may run, without the nodes of the jobs `leave_out`."""
        among = sum(1 << n for n, node in enumerate(self._nodes) if node.step.job not in leave_out)
        found, exact = self._sets.heaviest(among, self._weights(capacity, d))
        spans = [self._span(n, instant, instant + 1, 1) for n in bits(found)]
        return spans, self._counted(found, 1, d, exact=exact)._replace(unknown=())

    def spans(self, start_ms: int, end_ms: int, capacity: Sequence[int], d: int) -> tuple[list[Span], Counted]:
        """Returns (the nodes that run in [start, end), what counts).

        Of nodes that exclude each other, those count that need most of dimension `d`. `capacity`: of all hosts, by
        dimension.
        """
        if self.start is None:
            return [], self._counted(0, 0, d, exact=True)
        weights = self._weights(capacity, d)
        length = self._length_ms()
        before = start_ms - min(length, _MAX_LEAD_MS)
        began = runs(self.start, before, end_ms)
        # `runs` gives whole spans if there are too many.
        if (before, end_ms) in began or len(began) * len(self._nodes) > _MAX_STARTS:
            began, length = [(start_ms, end_ms)] * MAX_RUNS, 0
        elif not self.unknown:
            return self._timed(began, (start_ms, end_ms), weights, d)
        lasting = [(begin, max(end, begin + length)) for begin, end in began]
        return self._whole_runs(lasting, (start_ms, end_ms), weights, d)

    def _length_ms(self) -> int:
        """The length of a run if no node waits for its job."""
        return max(end for _, end in self._times(0, max(self._nodes[0].run_ms, 1), None))

    def _weights(self, capacity: Sequence[int], d: int) -> list[int]:
        """The demand of each node for dimension d. The share of all dimensions decides between equal ones."""
        found = []
        for node in self._nodes:
            if node.job is None:
                found.append(0)
                continue
            amounts = [amount * min(node.job.kind.copies, node.most) for amount in node.job.kind.request]
            share = sum((amount << 20) // max(has, 1) for amount, has in zip(amounts, capacity, strict=True))
            found.append((amounts[d] << 100) + share)
        return found

    def _times(self, begin_ms: int, end_ms: int, ends: dict[str, list[int]] | None) -> list[tuple[int, int]]:
        """The begin and the end of each node of a run. `ends`: the ends of the latest runs of each job, in a heap."""
        found = [(begin_ms, end_ms)]
        for node in self._nodes[1:]:
            before = [found[one.node][1] for one in node.step.after]
            begin = (min(before) if node.step.join == "any" else max(before)) if before else begin_ms
            if ends is not None and node.job is not None:
                latest = ends.setdefault(node.step.job, [])
                if len(latest) >= node.job.at_once:
                    begin = max(begin, heapq.heappop(latest))
                heapq.heappush(latest, begin + node.run_ms)
            found.append((begin, begin + node.run_ms))
        return found

    def _timed(
        self, began: Sequence[tuple[int, int]], window: tuple[int, int], weights: Sequence[int], d: int
    ) -> tuple[list[Span], Counted]:
        """Each node runs at the times that follow from the durations."""
        start_ms, end_ms = window
        spans = list[Span]()
        ends: dict[str, list[int]] = {}
        under_way: list[int] = []
        best, heaviest, most, all_exact = -1, 0, 0, True
        for begin, end in began:
            while under_way and under_way[0] <= begin:
                heapq.heappop(under_way)
            if len(under_way) >= MAX_RUNS:
                times = [(begin, end)]
            else:
                times = self._times(begin, end, ends)
                heapq.heappush(under_way, max(until for _, until in times))
            most = max(most, len(under_way))
            running = dict[int, int]()
            for at, until, active in _segments(times):
                chosen, exact = self._sets.heaviest(active, weights)
                all_exact &= exact
                if until > start_ms and at < end_ms and (weight := sum(weights[n] for n in bits(chosen))) > best:
                    best, heaviest = weight, chosen
                for n in bits(chosen):
                    running.setdefault(n, at)
                for n in [n for n in running if not chosen >> n & 1]:
                    spans.append(self._span(n, running.pop(n), min(at, times[n][1]), 1))
            spans += (self._span(n, at, times[n][1], 1) for n, at in running.items())
        seen = [one for one in spans if one.end_ms > start_ms and one.start_ms < end_ms]
        clipped = [one._replace(start_ms=max(one.start_ms, start_ms), end_ms=min(one.end_ms, end_ms)) for one in seen]
        return clipped, self._counted(heaviest, most if clipped else 0, d, exact=all_exact)

    def _whole_runs(
        self, lasting: Sequence[tuple[int, int]], window: tuple[int, int], weights: Sequence[int], d: int
    ) -> tuple[list[Span], Counted]:
        """The heaviest set of nodes counts from the begin to the end of each run.

        If several runs overlap, each of them counts its heaviest set, or each job counts as often as it may run: the
        smaller one of the two.
        """
        start_ms, end_ms = window
        changes = Counter[int]()
        for begin, end in lasting:
            if end > start_ms and begin < end_ms:
                changes[max(begin, start_ms)] += 1
                changes[min(end, end_ms)] -= 1
        chosen, exact = self._sets.heaviest(self._all, weights)
        spans, unfinished, most = list[Span](), 0, 0
        counted, since = list[tuple[int, int]](), start_ms
        for at, change in sorted(changes.items()):
            unfinished += change
            number = min(unfinished, MAX_RUNS)
            most = max(most, number)
            if (copies := self._copies(chosen, number, weights)) != counted:
                spans += (self._span(n, since, at, times) for n, times in counted)
                counted, since = copies, at
        return spans, self._counted(chosen if most else 0, most, d, exact=exact)

    def _copies(self, chosen: int, number: int, weights: Sequence[int]) -> list[tuple[int, int]]:
        """The nodes that count while `number` runs of the workflow are unfinished, each with its number."""
        if not number:
            return []
        alone = [min(number, node.job.at_once) if node.job else 0 for node in self._nodes]
        by_set = number * sum(weights[n] for n in bits(chosen))
        by_job = sum(weight * copies for weight, copies in zip(weights, alone, strict=True))
        if by_job < by_set:
            return [(n, alone[n]) for n, weight in enumerate(weights) if weight]
        return [(n, number) for n in bits(chosen)]

    def _span(self, number: int, begin_ms: int, end_ms: int, copies: int) -> Span:
        node = self._nodes[number]
        assert node.job is not None  # a node without a job has no weight
        kind = node.job.kind
        return Span(begin_ms, end_ms, replace(kind, copies=min(kind.copies * copies, node.most)))

    def _counted(self, found: int, number: int, d: int, *, exact: bool) -> Counted:
        nodes = [self._nodes[n] for n in bits(found)]
        kinds = tuple(self._span(n, 0, 1, 1).kind for n in bits(found))
        return Counted(self.workflows, tuple(node.name for node in nodes), kinds, number, self.unknown, exact, d)


def _node(name: str, step: Step, job: ScheduledJob | None, limits: Mapping[str, int]) -> _Node:
    if job is None:
        return _Node(name, step, None, round(1_000 * step.waits_s) if not step.job else 0, 0)
    rooms = [limits[pool] // number for pool, number in job.slots if pool in limits]
    return _Node(name, step, job, max(job.run_ms, 1), min([*rooms, job.kind.copies * MAX_RUNS]))


def _segments(times: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """The nodes that run, as (from, until, nodes), for nodes that each run from a begin to an end."""
    changes = dict[int, int]()
    for number, (begin, end) in enumerate(times):
        if begin < end:
            changes[begin] = changes.get(begin, 0) ^ 1 << number
            changes[end] = changes.get(end, 0) ^ 1 << number
    active, since = 0, 0
    for at, change in sorted(changes.items()):
        if active:
            yield since, at, active
        active ^= change
        since = at


def families(
    flows: Sequence[Flow], jobs: Mapping[str, ScheduledJob], limits: Mapping[str, int], known: set[str]
) -> list[Family]:
    """The workflows by the job of their start. See `Family`."""
    groups = dict[str, list[Flow]]()
    for flow in flows:
        groups.setdefault(flow.steps[0].job, []).append(flow)
    return [Family(group, jobs, limits, known) for group in groups.values()]


def heaviest_load(
    found: Sequence[Span],
    capacity: Sequence[int],
    choices: Sequence[Callable[[Sequence[int], int], tuple[list[Span], Counted]]],
) -> tuple[Load, tuple[Counted, ...]]:
    """The load of spans and workflows, with what counts of each workflow.

    `choices`: for a capacity and a dimension, the spans of workflows with the highest demand for this dimension. Those
    are taken that make the largest share of any dimension the largest.
    """
    best: tuple[float, Load, tuple[Counted, ...]] | None = None
    for d in range(len(capacity) if choices else 1):
        chosen = [choice(capacity, d) for choice in choices]
        timeline = load([*found, *(span for spans, _ in chosen for span in spans)], len(capacity))
        share = timeline.most(capacity)
        if best is None or share > best[0]:
            best = share, timeline, tuple(counted for _, counted in chosen)
    assert best is not None
    return best[1], best[2]
