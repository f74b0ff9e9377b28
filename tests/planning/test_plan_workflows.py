"""Workflows in the planner: the nodes that can run at the same time, their times, and the load."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest

from jobcloud.cron import Schedule
from jobcloud.errors import ConfigError
from jobcloud.planning import together
from jobcloud.planning.demand import DAY_MS, ScheduledJob, Span, load
from jobcloud.planning.problem import TaskKind
from jobcloud.planning.together import Condition, Place, Sets, antichain, apart, bits
from jobcloud.planning.workflows import MAX_RUNS, Counted, Family, Flow, families, flow_of, heaviest_load

MINUTE = 60_000
START = 1_772_409_600_000  # 2026-03-02T00:00:00Z
_ENDS = (("success", ""), ("success", "a"), ("success", "b"), ("failure", ""), ("either", ""))


# ------------------------------------------------------------------------------------------------ sets of nodes


def after(*nodes: int, on: str = "success", result: str = "", **place: Any) -> Place:
    return Place(tuple(Condition(node, on, result) for node in nodes), **place)


def graph(dice: random.Random, size: int, joins: Sequence[str] = ("all", "any")) -> list[Place]:
    places = []
    for node in range(size):
        before = dice.sample(range(node), min(node, dice.choice((0, 1, 1, 2, 3)) or int(dice.random() < 0.7)))
        conditions = tuple(Condition(one, *dice.choice(_ENDS)) for one in before)
        places.append(Place(conditions, dice.choice(joins) if before else "all", f"job {node}", 2))
    return places


def holds(condition: Condition, end: str) -> bool | None:
    """Whether a condition holds after the end of a node, as docs/workflows.md says. The end "" is open."""
    if not end:
        return None
    return {
        "success": end.startswith("success") and condition.result in ("", end.partition(":")[2]),
        "failure": end == "failure",
        "either": True,
    }[condition.on]


def decided(join: str, held: Sequence[bool | None]) -> bool | None:
    if join == "any":
        return True if not held or True in held else None if None in held else False
    return False if False in held else None if None in held else True


def running_sets(places: Sequence[Place]) -> set[int]:
    """All sets of nodes that run at the same time in some run, by a walk through all states of runs."""
    ends = ("success:a", "success:b", "failure")
    found, seen = set[int](), set[tuple[str, ...]]()
    open_ = [("",) * len(places)]
    while open_:
        state = list(open_.pop())  # "": waits, "runs", or its end
        for node, place in enumerate(places):
            if not state[node]:
                held = [holds(one, "" if state[one.node] == "runs" else state[one.node]) for one in place.after]
                state[node] = {True: "runs", False: "skipped", None: ""}[decided(place.join, held)]
        if tuple(state) in seen:
            continue
        seen.add(tuple(state))
        run = [node for node, one in enumerate(state) if one == "runs"]
        found.add(sum(1 << node for node in run))
        open_ += [(*state[:node], end, *state[node + 1 :]) for node in run for end in ends]
    return found


def weight_of(found: int, weights: Sequence[int]) -> int:
    return sum(weights[node] for node in bits(found))


def by_hand(never: Sequence[int], weights: Sequence[int]) -> int:
    """The heaviest set of nodes that may run together, by trial of all sets."""
    sets = range(1 << len(never))
    return max(weight_of(one, weights) for one in sets if not any(never[node] & one for node in bits(one)))


def test_nodes_that_never_run_together_are_those_of_no_run() -> None:
    dice, loose = random.Random(7), 0
    for _ in range(250):
        places = graph(dice, dice.randint(1, 6))
        found = running_sets(places)
        never = apart(places)
        together_ = {pair for one in found for pair in combinations(bits(one), 2)}
        for pair in combinations(range(len(places)), 2):
            kept_apart = bool(never[pair[0]] >> pair[1] & 1)
            assert not (kept_apart and pair in together_), places
            reachable = all(any(one >> node & 1 for one in found) for node in pair)
            loose += not kept_apart and pair not in together_ and reachable
    assert loose <= 5  # of 1,400 pairs; the rest depend on several conditions at once


def test_shards_that_never_run_together_are_those_of_no_run() -> None:
    """Two shards a node, in all orders of their ends. A node joined by shards may run with the one before it."""
    dice = random.Random(3)
    for _ in range(120):
        places = graph(dice, dice.randint(2, 4), ("all", "any", "shards", "shards"))
        weights = [dice.randint(1, 9) for _ in places]
        heaviest = Sets(apart(places)).heaviest((1 << len(places)) - 1, weights)
        most = max(sum(weights[node] for node, _ in one) for one in running_shards(places))
        assert most <= 2 * weight_of(heaviest.nodes, weights), places


def running_shards(places: Sequence[Place]) -> Iterator[list[tuple[int, int]]]:
    """The shards (node, number) that run at the same time, in all states of runs of two shards a node."""
    seen = set[tuple[str, ...]]()
    open_ = [("",) * 2 * len(places)]
    while open_:
        state = list(open_.pop())

        def end(node: int, state: list[str] = state) -> str:
            ends = state[2 * node : 2 * node + 2]
            if "" in ends or "runs" in ends:
                return ""
            return "failure" if "failure" in ends else max(ends)

        for node, place in enumerate(places):
            for shard in (0, 1):
                if state[2 * node + shard]:
                    continue
                own = [state[2 * one.node + shard].replace("runs", "") for one in place.after]
                ends = own if place.join == "shards" else [end(one.node) for one in place.after]
                found = decided(place.join, [holds(one, ended) for one, ended in zip(place.after, ends, strict=True)])
                state[2 * node + shard] = {True: "runs", False: "skipped", None: ""}[found]
        if tuple(state) in seen:
            continue
        seen.add(tuple(state))
        run = [place for place, one in enumerate(state) if one == "runs"]
        yield [divmod(place, 2) for place in run]
        open_ += [(*state[:n], ended, *state[n + 1 :]) for n in run for ended in ("success:a", "failure")]


@pytest.mark.parametrize(
    ("places", "sets"),
    [
        ([after(), after(0), after(1)], {0b1, 0b10, 0b100}),  # a chain
        ([after(), after(0), after(0), after(1, 2)], {0b1, 0b110, 0b1000}),  # a diamond
        ([after(), after(0), after(0, on="failure")], {0b1, 0b10, 0b100}),  # branches
        ([after(), after(0, result="a"), after(0, result="b")], {0b1, 0b10, 0b100}),
        ([after(), after(0), after(0, on="failure"), after(1, 2, join="any")], {0b1, 0b10, 0b100, 0b1000}),
        (
            [after(), after(0), after(0), after(1, 2, join="any")],
            {0b1, 0b1110},
        ),  # each two of them may: a bound
        ([after(), after(), after(0, 1), after(2, on="either")], {0b100, 0b1011}),  # skipped early; a bound, too
        ([after(job="a", alone=True), after(job="a", alone=True)], {0b1, 0b10}),  # one run of the job at a time
        ([after(job="a", shards=2), after(0, join="shards", job="b", shards=2)], {0b1, 0b10}),
        ([after(job="a", shards=3), after(0, join="shards", job="b", shards=2)], {0b11}),  # of unequal numbers
    ],
)
def test_largest_sets_of_small_graphs(places: list[Place], sets: set[int]) -> None:
    never = apart(places)
    possible = [one for one in range(1, 1 << len(places)) if not any(never[node] & one for node in bits(one))]
    assert {one for one in possible if not any(one | other == other != one for other in possible)} == sets


def test_heaviest_set_equals_that_of_all_sets() -> None:
    dice = random.Random(1)
    for _ in range(400):
        places = graph(dice, dice.randint(1, 9), ("all", "any", "shards"))
        places = [one._replace(job=f"job {dice.randrange(6)}", alone=dice.random() < 0.3) for one in places]
        never, weights = apart(places), [dice.randint(0, 9) for _ in places]
        found, exact = Sets(never).heaviest((1 << len(places)) - 1, weights)
        assert exact
        assert not any(never[node] & found for node in bits(found))
        assert weight_of(found, weights) == by_hand(never, weights)


def test_heaviest_set_of_200_nodes_is_found_with_few_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    flows = 0

    def counted(*arguments: Any) -> int:
        nonlocal flows
        flows += 1
        return antichain(*arguments)

    monkeypatch.setattr(together, "antichain", counted)
    dice = random.Random(2)
    # Layers of ten nodes; every third node handles the failure of the node after which its neighbour runs.
    places = [after() for _ in range(10)]
    for node in range(10, 200):
        above = node // 10 * 10 - 10
        one = above + (node % 10 - (node % 3 == 0)) % 10
        places.append(after(one, on="failure" if node % 3 == 0 else "success"))
    weights = [dice.randint(1, 10**7) for _ in places]
    assert Sets(apart(places)).heaviest((1 << 200) - 1, weights).exact
    assert flows <= 100


def test_search_that_takes_too_long_gives_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_MAX_SEARCHES", 1)
    pairs = [0b10010, 0b00101, 0b01010, 0b10100, 0b01001]  # a ring of five nodes: at most two of them
    found = Sets(pairs).heaviest(0b11111, [1] * 5)
    assert not found.exact
    assert found.nodes.bit_count() >= 2
    monkeypatch.setattr(together, "_MAX_SEARCHES", 100)
    assert Sets(pairs).heaviest(0b11111, [1] * 5).nodes.bit_count() == 2


# ----------------------------------------------------------------------------------------------------- the load


def job(name: str, minutes: float, cron: str = "0 0 0 30 2 ?", shards: int = 1, **more: Any) -> ScheduledJob:
    request = more.pop("request", (1_000, 1_000))
    return ScheduledJob(TaskKind(name, request, shards), Schedule.parse(cron), round(minutes * MINUTE), **more)


def flow(key: str = "w", *nodes: dict[str, Any]) -> Flow:
    return flow_of(key, {"nodes": list(nodes)}, "default", "w.yaml")


def family(jobs: Sequence[ScheduledJob], *nodes: dict[str, Any], known: bool = True, **limits: int) -> Family:
    by_key = {one.kind.job: one for one in jobs}
    (found,) = families([flow("w", *nodes)], by_key, limits, set(by_key) if known else set())
    return found


def shards_at(spans: Sequence[Span], minute: float) -> dict[str, int]:
    """The shards of each job that run at a minute of the day."""
    found = dict[str, int]()
    for kind in load(spans, 2).at(round(START + minute * MINUTE)):
        found[kind.job] = found.get(kind.job, 0) + kind.copies
    return found


CHAIN = ({"job": "a"}, {"job": "b", "after": ["a"]}, {"job": "c", "after": ["b"]})
DAY = (START, START + DAY_MS, (100_000, 100_000), 0)


def test_nodes_begin_at_the_ends_of_those_before_them() -> None:
    jobs = [job("a", 10, "0 0 1 * * ?", 2), job("b", 20), job("c", 30)]
    spans, counted = family(jobs, *CHAIN).spans(*DAY)
    assert [((one.start_ms - START) / MINUTE, (one.end_ms - START) / MINUTE, one.kind.job) for one in spans] == [
        (60, 70, "a"),
        (70, 90, "b"),
        (90, 120, "c"),
    ]
    assert counted == Counted(("w",), ("a",), (jobs[0].kind,), 1, (), exact=True, dimension=0)


def test_join_begins_at_the_last_end_or_at_the_first_one() -> None:
    jobs = [job("a", 10, "0 0 1 * * ?"), job("b", 20), job("c", 30), job("d", 5)]
    for join, begin in (("all", 100), ("any", 90)):
        fork = ({"job": "a"}, {"job": "b", "after": ["a"]}, {"job": "c", "after": ["a"]})
        spans, _ = family(jobs, *fork, {"job": "d", "after": ["b", "c"], "join": join}).spans(*DAY)
        assert [(one.start_ms - START) // MINUTE for one in spans if one.kind.job == "d"] == [begin]
        assert shards_at(spans, 75) == {"b": 1, "c": 1}


def test_whole_run_counts_its_heaviest_set_if_times_are_unknown() -> None:
    jobs = [job("a", 10, "0 0 1 * * ?", 2), job("b", 20, shards=5), job("c", 30)]
    spans, counted = family(jobs, *CHAIN, known=False).spans(*DAY)
    assert [shards_at(spans, minute) for minute in (59, 61, 119, 121)] == [{}, {"b": 5}, {"b": 5}, {}]
    assert (counted.nodes, counted.runs, counted.unknown) == (("b",), 1, ("a", "b", "c"))


def test_only_the_heavier_branch_counts() -> None:
    jobs = [job("a", 10, "0 0 1 * * ?"), job("b", 20, shards=4), job("c", 20, shards=3), job("d", 30, shards=2)]
    nodes = (
        {"job": "a"},
        {"job": "b", "after": ["a"]},
        {"job": "c", "after": [{"node": "a", "on": "failure"}]},
        {"job": "d", "after": [{"node": "a", "on": "either"}]},
    )
    for known in (True, False):
        spans, counted = family(jobs, *nodes, known=known).spans(*DAY)
        assert shards_at(spans, 80) == {"b": 4, "d": 2}
        assert counted.nodes == ("b", "d")


def test_run_that_began_on_the_day_before_counts() -> None:
    jobs = [job("a", 10, "0 30 23 * * ?"), job("b", 60, shards=2), job("c", 30)]
    for known in (True, False):
        spans, _ = family(jobs, *CHAIN, known=known).spans(*DAY)
        assert shards_at(spans, 5) == {"b": 2}
        assert all(START <= one.start_ms < one.end_ms <= START + DAY_MS for one in spans)


def test_overlapping_runs_wait_for_jobs_with_one_run_at_a_time() -> None:
    jobs = [job("a", 1, "0 0,10,20 1 * * ?"), job("b", 15), job("c", 1)]
    spans, counted = family(jobs, *CHAIN).spans(*DAY)
    assert [(one.start_ms - START) // MINUTE for one in spans if one.kind.job == "b"] == [61, 76, 91]
    assert [one.end_ms - one.start_ms for one in spans if one.kind.job == "a"] == [MINUTE] * 3
    assert counted.runs == 2
    jobs[1] = job("b", 15, at_once=10)
    spans, _ = family(jobs, *CHAIN).spans(*DAY)
    assert shards_at(spans, 73) == {"b": 2}


def test_overlapping_runs_of_unknown_times_need_the_smaller_of_two_bounds() -> None:
    chain = [job("a", 10, "0 0,10 1 * * ?", 9), job("b", 10), job("c", 10)]
    spans, _ = family(chain, *CHAIN, known=False).spans(*DAY)
    assert shards_at(spans, 65) == {"a": 9}
    assert shards_at(spans, 75) == {"a": 9, "b": 1, "c": 1}  # each job has one run at a time
    chain = [job(one.kind.job, 10, "0 0,10 1 * * ?" if one is chain[0] else "0 0 0 30 2 ?") for one in chain]
    spans, counted = family(chain, *CHAIN, known=False).spans(*DAY)
    assert sum(shards_at(spans, 75).values()) == 2  # two runs, one node each
    assert counted.runs == 2


def test_unfinished_runs_are_bounded() -> None:
    jobs = [job("a", 0.5, "0 * * * * ?", at_once=1_000), job("b", 300, at_once=1_000), job("c", 1)]
    for known in (True, False):
        spans, counted = family(jobs, *CHAIN, known=known).spans(*DAY)
        assert counted.runs == MAX_RUNS
        assert max(load(spans, 2).amounts[:, 0]) <= 1_000 * (MAX_RUNS + 2)


def test_workflow_that_starts_all_the_time_counts_as_always_running(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job("a", 1, "0 * * * * ?", 3), job("b", 1, at_once=2), job("c", 1)]
    monkeypatch.setattr("jobcloud.planning.workflows._MAX_STARTS", 100)
    spans, _ = family(jobs, *CHAIN).spans(*DAY)
    assert shards_at(spans, 0) == shards_at(spans, 1_439) == {"a": 3, "b": 2, "c": 1}


def test_pool_bounds_the_shards_of_each_node() -> None:
    jobs = [
        job("a", 10, "0 0 1 * * ?", 9, slots=(("db", 2),)),
        job("b", 20, shards=9, slots=(("other", 1),)),
        job("c", 1),
    ]
    spans, _ = family(jobs, *CHAIN, db=5).spans(*DAY)
    assert (shards_at(spans, 65), shards_at(spans, 75)) == ({"a": 2}, {"b": 9})


def test_workflows_with_one_start_share_its_runs() -> None:
    jobs = {one.kind.job: one for one in (job("a", 10, "0 0 1 * * ?", 5), job("b", 20), job("c", 30))}
    flows = [
        flow("v", {"job": "a"}, {"job": "b", "after": ["a"]}),
        flow("w", {"job": "a"}, {"job": "c", "after": ["a"]}),
    ]
    (found,) = families(flows, jobs, {}, set(jobs))
    spans, counted = found.spans(*DAY)
    assert (shards_at(spans, 65), shards_at(spans, 75)) == ({"a": 5}, {"b": 1, "c": 1})
    assert counted.workflows == ("v", "w")


def test_nodes_that_wait_need_nothing_and_their_time_is_unknown() -> None:
    jobs = [job("a", 10, "0 0 1 * * ?"), job("b", 20, shards=3)]
    nodes = ({"job": "a"}, {"name": "ok", "waitFor": "approval", "after": ["a"], "deadlineSeconds": "1h"})
    spans, counted = family(jobs, *nodes, {"job": "b", "after": ["ok"]}).spans(*DAY)
    assert [shards_at(spans, minute) for minute in (60, 149, 150)] == [{"b": 3}, {"b": 3}, {}]
    assert counted.unknown == ("ok",)


def test_set_with_the_largest_share_of_any_resource_counts() -> None:
    """Memory is scarcer than cpus, so the memory decides, although the cpus of the other branch are more."""
    jobs = [job("a", 10, "0 0 1 * * ?"), job("b", 20, request=(9_000, 1_000)), job("c", 20, request=(1_000, 8_000))]
    nodes = ({"job": "a"}, {"job": "b", "after": ["a"]}, {"job": "c", "after": [{"node": "a", "on": "failure"}]})
    one = family(jobs, *nodes)
    for capacity, expected in (((100_000, 10_000), "c"), ((10_000, 100_000), "b")):
        found, (counted,) = heaviest_load([], capacity, [lambda has, d: one.spans(START, START + DAY_MS, has, d)])
        assert counted.nodes == (expected,)
        assert found.at(found.peak(capacity))[0].job == expected
    jobs[2] = job("c", 20, request=(5_000, 8_000))
    for d, expected in ((0, "b"), (1, "c")):
        assert family(jobs, *nodes).spans(START, START + DAY_MS, (100_000, 100_000), d)[1].nodes == (expected,)


def test_load_of_random_workflows_is_never_below_that_of_a_run() -> None:
    """With unknown times, the load covers that of each choice of durations up to the expected length."""
    dice = random.Random(5)
    for _ in range(40):
        size = dice.randint(2, 7)
        nodes = [{"job": "j0"}] + [
            {"job": f"j{n}", "after": [f"j{one}" for one in dice.sample(range(n), dice.randint(1, min(n, 2)))]}
            for n in range(1, size)
        ]
        shards = [dice.randint(1, 9) for _ in nodes]
        jobs = [job(f"j{n}", 20, "0 0 1 * * ?" if not n else "0 0 0 30 2 ?", count) for n, count in enumerate(shards)]
        bound, _ = family(jobs, *nodes, known=False).spans(*DAY)
        jobs = [ScheduledJob(one.kind, one.times, dice.randint(1, 20) * MINUTE) for one in jobs]
        spans, _ = family(jobs, *nodes).spans(*DAY)
        assert max(load(spans, 2).amounts[:, 0]) <= max(load(bound, 2).amounts[:, 0])


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "nodes: is not a list"),
        ({"nodes": []}, "nodes: has no node"),
        ({"nodes": [1]}, "nodes.0: is not an object"),
        ({"nodes": [{"name": "a"}]}, "nodes.0.job: is missing"),
        ({"nodes": [{"job": 5}]}, "nodes.0.job: 5 is not a text"),
        ({"nodes": [{"job": "a"}, {"job": "a"}]}, "nodes.1: the name 'a' is missing or given twice"),
        ({"nodes": [{"job": "a"}, {"job": "b", "after": "a"}]}, "nodes.1.after: is not a list"),
        ({"nodes": [{"job": "a"}, {"job": "b", "after": [1]}]}, "nodes.1.after.0: is not a condition"),
        ({"nodes": [{"job": "a"}, {"job": "b", "after": ["c"]}]}, "nodes.1.after: there is no node 'c'"),
        ({"nodes": [{"job": "a"}, {"job": "b", "after": [{"node": "a", "on": "x"}]}]}, "after.0.on: 'x' is unknown"),
        ({"nodes": [{"job": "a"}, {"job": "b"}]}, "start: names no node without a condition"),
        ({"nodes": [{"job": "a"}, {"job": "b", "after": ["a", "c"]}, {"job": "c", "after": ["b"]}]}, "in a cycle"),
        ({"nodes": [{"job": "a", "join": "x"}]}, "nodes.0.join: 'x' is unknown"),
        ({"nodes": [{"job": "a", "deadlineSeconds": True}]}, "deadlineSeconds: True is no number of seconds"),
        ({"nodes": [{"job": "a"}] + [{"job": f"b{n}", "after": ["a"] * 6} for n in range(199)]}, "1194 conditions"),
    ],
)
def test_wrong_workflow_is_named(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        flow_of("w", config, "default", "w.yaml")
    assert problem in str(error.value)
