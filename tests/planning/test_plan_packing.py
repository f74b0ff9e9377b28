"""Packing and bounds against brute force: bound ≤ optimum ≤ answer, and the checker accepts every answer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.match.constraints import parse
from jobcloud.planning import bounds as bounding
from jobcloud.planning import lp, packing
from jobcloud.planning._pack import RULES, Packer, Pricer
from jobcloud.planning.lp import ConfigurationLp
from jobcloud.planning.packing import UNPLACED, UNTRIED, Packing, fewest, place
from jobcloud.planning.problem import HostKind, Problem, TaskKind, build
from jobcloud.planning.rules import Rules
from jobcloud.planning.verify import BrokenPacking, verify

amount = st.integers(0, 12)


@st.composite
def problems(draw: st.DrawFn, kinds: int = 4, copies: int = 3) -> Problem:
    """Small problems with all features: limits, rules between jobs, attributes, shared amounts."""
    dimensions = draw(st.integers(1, 3))
    vector = st.tuples(*[amount] * dimensions)
    hosts = [
        HostKind(f"h{n}", draw(st.tuples(*[st.integers(6, 15)] * dimensions)), {"zone": zone}, draw(st.integers(1, 3)))
        for n, zone in enumerate(draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=2)))
    ]
    names = [f"j{n}" for n in range(draw(st.integers(1, kinds)))]
    tasks = []
    for name in names:
        neighbours = draw(st.dictionaries(st.sampled_from(names), st.integers(0, 2), max_size=2))
        most = draw(st.sampled_from([1, 2, 1_000_000]))
        zone = draw(st.sampled_from([(), (), (parse("zone == a"),)]))
        shared = draw(st.sampled_from(["", "", "executor"]))
        rules = Rules(most, neighbours, zone)
        tasks += [TaskKind(name, draw(vector), draw(st.integers(1, copies)), rules, shared)] * draw(st.integers(1, 2))
    return build([f"d{n}" for n in range(dimensions)], hosts, tasks, {"executor": draw(vector)})


def holds(problem: Problem, packing: Packing) -> bool:
    try:
        verify(problem, packing)
    except BrokenPacking:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(problems())
def test_placed_tasks_keep_every_rule(problem: Problem) -> None:
    verify(problem, place(problem, problem.host_list(), seconds=5))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_placement_is_never_worse_than_first_fit_or_best_fit(problem: Problem) -> None:
    hosts = problem.host_list()
    answer = place(problem, hosts, seconds=0)
    weight = packing._scarcity(problem, problem.capacity[hosts])
    for rule in ("first", "best"):
        packer = Packer(problem, problem.capacity[hosts], hosts, weight, 1)
        for kind in problem.arrival.tolist():
            packer.place(kind, RULES.index(rule))
        assert answer.unplaced <= (packer.placement() < 0).sum()


def test_kinds_keep_their_order_of_arrival() -> None:
    tasks = [TaskKind(name, (amount,), 1) for name, amount in (("c", 1), ("a", 2), ("b", 3), ("a", 4))]
    problem = build(["cpus"], [HostKind("h", (10,), {}, 1)], tasks)
    assert problem.request[problem.arrival][:, 0].tolist() == [1, 2, 3, 4]


def test_hosts_of_many_types_are_filled_in_any_time() -> None:
    hosts = [HostKind(f"h{n}", (64_000_000 + n,), {}, 1) for n in range(250)]
    amounts = np.random.default_rng(1).integers(100, 1_900_000, 15_000).tolist()
    problem = build(["cpus"], hosts, [TaskKind(f"j{n}", (amount,), 1) for n, amount in enumerate(amounts)])
    answer = place(problem, problem.host_list(), seconds=0)
    verify(problem, answer)
    assert answer.unplaced == 0


@settings(max_examples=150, deadline=None)
@given(problems())
def test_window_over_many_kinds_keeps_every_rule_and_every_task(problem: Problem) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobcloud.planning.packing._MAX_PAIRS", 0)
        verify(problem, place(problem, problem.host_list(), seconds=5))
        answer = fewest(problem, 0, seconds=5)
    verify(problem, answer.packing)
    assert not answer.packing.untried
    for task in np.flatnonzero(answer.packing.host_of < 0):
        assert not fits_somehow(problem, np.array([task]), [0])


def test_window_comes_near_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.planning.packing._MAX_PAIRS", 0)
    monkeypatch.setattr("jobcloud.planning.packing._WINDOWS", (64, 64))
    rng = np.random.default_rng(1)
    kinds = [TaskKind(f"j{n}", tuple(rng.integers(100, 8_000, 2).tolist()), 1) for n in range(3_000)]
    problem = build(["cpus", "mem"], [HostKind("h", (32_000, 32_000), {}, 1)], kinds)
    answer = fewest(problem, 0, seconds=0)
    verify(problem, answer.packing)
    assert answer.packing.unplaced == 0
    assert answer.hosts <= answer.bound.hosts * 1.05


def fits_somehow(problem: Problem, tasks: np.ndarray, hosts: list[int]) -> bool:
    """Whether all these tasks can be placed on these hosts, by brute force."""
    for places in itertools.product(range(len(hosts)), repeat=len(tasks)):
        host_of = np.full(problem.tasks, -1, dtype=np.int32)
        host_of[tasks] = places
        if holds(problem, Packing(np.array(hosts, dtype=np.int32), host_of)):
            return True
    return not len(tasks)


@settings(max_examples=100, deadline=None)
@given(problems(kinds=3, copies=2), st.integers(0, 1))
def test_bound_optimum_and_answer_are_ordered(problem: Problem, kind: int) -> None:
    kind %= len(problem.host_kinds)
    answer = fewest(problem, kind, seconds=5)
    verify(problem, answer.packing)
    assert answer.bound.hosts <= answer.hosts
    for task in np.flatnonzero(answer.packing.host_of < 0):
        assert not fits_somehow(problem, np.array([task]), [kind])
    placed = np.flatnonzero(answer.packing.host_of >= 0)
    if answer.bound.hosts > 1 and (answer.bound.hosts - 1) ** len(placed) <= 1_000:
        assert not fits_somehow(problem, placed, [kind] * (answer.bound.hosts - 1))


@pytest.mark.parametrize("seed", range(12))
def test_small_problems_are_packed_optimally(seed: int) -> None:
    """Six tasks with a rule between two jobs; the optimum is found by brute force."""
    rng = np.random.default_rng(seed)
    kinds = [TaskKind(f"j{n}", tuple(rng.integers(1, 7, 2).tolist()), 1 + n % 2) for n in range(4)]
    kinds[0] = replace(kinds[0], rules=Rules(neighbours={"j1": 0}))
    problem = build(["cpus", "mem"], [HostKind("h", (10, 10), {}, 99)], kinds)
    answer = fewest(problem, 0, seconds=20)
    verify(problem, answer.packing)
    everything = np.arange(problem.tasks)
    optimum = next(n for n in itertools.count(1) if fits_somehow(problem, everything, [0] * n))
    assert answer.bound.hosts <= optimum == answer.hosts


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_most_valuable_host_equals_brute_force(data: st.DataObject) -> None:
    dimensions, kinds = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    table = [data.draw(st.lists(st.integers(0, 14), min_size=dimensions, max_size=dimensions)) for _ in range(kinds)]
    size = np.array(table, dtype=np.int64)
    capacity = np.array(data.draw(st.lists(st.integers(0, 30), min_size=dimensions, max_size=dimensions)))
    value = np.array(data.draw(st.lists(st.integers(0, 100), min_size=kinds, max_size=kinds)))
    most = np.array(data.draw(st.lists(st.integers(0, 3), min_size=kinds, max_size=kinds)))
    patterns = (np.array(p) for p in itertools.product(*(range(m + 1) for m in most)))
    best = max(int(p @ value) for p in patterns if (p @ size <= capacity).all())
    bound, found = Pricer(capacity, size).price(value, most, 0, 10**6)
    assert bound == best
    if best:
        assert (found[-1] @ size <= capacity).all()
        assert found[-1] @ value == best
        assert (found <= most).all()
    # If the search stops early, the bound is no lower.
    for nodes in (1, 3, 10):
        assert Pricer(capacity, size).price(value, most, 0, nodes)[0] >= best


def few_shapes(seed: int, shapes: int, tasks: int, dimensions: int = 4) -> Problem:
    rng = np.random.default_rng(seed)
    cpus = rng.choice([250, 500, 1000, 2000, 4000, 8000], shapes)
    mem = rng.choice([512, 1024, 2048, 4096, 8192, 16384, 32768], shapes) * 1000
    others = rng.choice([0, 0, 10, 50, 100, 200], (shapes, dimensions - 2)) * 1000
    counts = rng.multinomial(tasks, rng.dirichlet(np.ones(shapes) * 0.5))
    kinds = [
        TaskKind(f"j{n}", (int(cpus[n]), int(mem[n]), *others[n].tolist()), int(counts[n]))
        for n in range(shapes)
        if counts[n]
    ]
    host = HostKind("host", (32_000, 131_072_000, *[1_000_000] * (dimensions - 2)), {}, 100_000)
    return build(["cpus", "mem_mb", "disk_mb", "net_mbps"][:dimensions], [host], kinds)


def test_problems_with_few_shapes_reach_the_bound() -> None:
    """At least nine of ten reach the bound, the others within one host; `make plan-soak` measures many."""
    over = []
    for seed in range(10):
        problem = few_shapes(seed, shapes=(7, 30)[seed % 2], tasks=(60, 400, 1500)[seed % 3])
        answer = fewest(problem, 0, seconds=60)
        verify(problem, answer.packing)
        assert answer.packing.unplaced == 0
        over.append(answer.hosts - answer.bound.hosts)
    assert max(over) <= 1
    assert over.count(0) >= 9


def test_packing_works_without_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.planning.lp.available", lambda: False)
    problem = few_shapes(3, 7, 400)
    answer = fewest(problem, 0, seconds=20)
    verify(problem, answer.packing)
    assert answer.bound.weights is None
    assert answer.hosts <= answer.bound.hosts * 1.03 + 1


def test_certificate_can_be_checked_by_hand() -> None:
    """Only two tasks of 400 fit into 1000, so 10 of them need 5 hosts. The sum says 4, the LP 5."""
    lp = ConfigurationLp(np.array([1000]), np.array([[400]]), np.array([10**6], dtype=np.int32))
    lp.solve(np.array([10]), deadline=float("inf"))
    proof = lp.weights
    assert proof.hosts == 5
    assert proof.total == proof.weights[0] * 10
    assert 2 * proof.weights[0] <= proof.max_value


def test_bounds_are_named() -> None:
    host = HostKind("h", (10, 10), {}, 100)
    far = build(
        ["cpus", "mem"],
        [host],
        [
            TaskKind("big", (6, 0), 5),
            TaskKind("few", (0, 1), 9, Rules(2)),
            TaskKind("a", (1, 1), 4, Rules(1, {"b": 0})),
            TaskKind("b", (1, 1), 3, Rules(1)),
        ],
    )
    found = {bound.how: bound.hosts for bound in bounding.bounds(far, 0)}
    assert found["all tasks' cpus together"] == 4
    assert found["tasks of which no two share a host"] == 5
    assert found["the maximum of tasks of one job on a host"] == 5
    assert found["jobs that keep apart"] == 7
    assert bounding.lower_bound(far, 0).hosts == 7
    answer = fewest(far, 0, seconds=5)
    assert (answer.hosts, answer.proven) == (7, True)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=8))
def test_bound_of_large_tasks_is_the_best_over_all_thresholds(sizes: list[tuple[int, int]]) -> None:
    """Compares with the definition of L2 over all thresholds."""
    kinds = [TaskKind(f"j{n}", (size,), copies, Rules(9)) for n, (size, copies) in enumerate(sizes)]
    problem = build(["cpus"], [HostKind("h", (30,), {}, 100)], kinds)
    tasks = [size for size, copies in sizes for _ in range(copies)]
    best = 0
    for a in range(16):
        alone = [size for size in tasks if size > 30 - a]
        large = [size for size in tasks if 15 < size <= 30 - a]
        small = [size for size in tasks if a <= size <= 15]
        room = 30 * len(large) - sum(large)
        best = max(best, len(alone) + len(large) + max(0, -(-(sum(small) - room) // 30)))
    assert {bound.how: bound.hosts for bound in bounding.bounds(problem, 0)}["large tasks' cpus"] == best


def test_packing_without_some_hosts_separates_refused_from_untried() -> None:
    packing = Packing(np.zeros(3, dtype=np.int32), np.array([0, 2, UNTRIED, UNPLACED, 1], dtype=np.int32))
    assert packing.without(np.array([1])).host_of.tolist() == [0, 1, UNTRIED, UNPLACED, UNPLACED]
    assert (packing.unplaced, packing.untried) == (2, 1)


BROKEN = {
    "there is no host": lambda p: replace(p, host_of=p.host_of + 9),
    "thousandths of cpus": lambda p: replace(p, host_of=np.zeros_like(p.host_of)),
    "entries for": lambda p: replace(p, host_of=p.host_of[:-1]),
}


@pytest.mark.parametrize("text", BROKEN)
def test_checker_refuses_a_broken_packing(text: str) -> None:
    problem = build(["cpus"], [HostKind("h", (10,), {}, 9)], [TaskKind("a", (6,), 3)])
    packing = fewest(problem, 0, seconds=5).packing
    with pytest.raises(BrokenPacking, match=text):
        verify(problem, BROKEN[text](packing))


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ([TaskKind("a", (1,), 2, Rules(1))], "2 of a, at most 1"),
        ([TaskKind("a", (1,), 3, Rules(neighbours={"a": 1}))], "2 of a with a, at most 1"),
        ([TaskKind("a", (1,), 1, Rules(neighbours={"b": 0})), TaskKind("b", (1,), 1)], "1 of b with a, at most 0"),
        ([TaskKind("a", (1,), 1, Rules(attributes=(parse("zone == b"),)))], "a may not run there"),
        ([TaskKind("a", (6,), 1, shared="x")], "11 of 10 thousandths of cpus"),
    ],
)
def test_checker_knows_every_rule(kinds: list[TaskKind], text: str) -> None:
    problem = build(["cpus"], [HostKind("h", (10,), {"zone": "a"}, 9)], kinds, {"x": (5,)})
    all_on_one = Packing(np.zeros(1, dtype=np.int32), np.zeros(problem.tasks, dtype=np.int32))
    with pytest.raises(BrokenPacking, match=text):
        verify(problem, all_on_one)
    verify(problem, place(problem, problem.host_list(), seconds=5))


def test_same_input_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    # So much time that the parts of it never end a search, also on a loaded machine.
    monkeypatch.setattr(lp, "_MAX_SECONDS", 3_600)
    problem = few_shapes(5, 40, 800)
    first, second = (fewest(problem, 0, seconds=3_600) for _ in range(2))
    assert first.packing.host_of.tolist() == second.packing.host_of.tolist()


def known_assignment(seed: int, hosts: int, tasks: int) -> Problem:
    """Each host is a type of its own and has `tasks` tasks, which leave 3 % of it free; jobs keep their tasks apart."""
    chance = np.random.default_rng(seed)
    capacity = np.round(chance.lognormal(10, 0.5, (hosts, 3))).astype(np.int64)
    shares = chance.dirichlet(np.full(tasks, 3.0), (hosts, 3)).transpose(2, 0, 1)
    requests = np.floor(shares * capacity * 0.97).astype(np.int64)
    kinds = [HostKind(f"h{n}", tuple(row), {}, 1) for n, row in enumerate(capacity.tolist())]
    alone = Rules(max_per_host=1)
    asked = [
        TaskKind(f"service-{n}-{host // 10}", tuple(request), 1, alone)
        for n, of_service in enumerate(requests.tolist())
        for host, request in enumerate(of_service)
    ]
    return build(["cpus", "mem", "disk"], kinds, asked)


def test_tight_fleets_get_a_longer_search() -> None:
    problem = known_assignment(2, 30, 5)
    short = place(problem, problem.host_list(), seconds=60)
    long = place(problem, problem.host_list(), seconds=60, thorough=True)
    verify(problem, long)
    assert (short.unplaced, long.unplaced) == (3, 0)


def test_known_assignment_with_more_tasks_a_host_is_found() -> None:
    problem = known_assignment(1, 60, 15)
    found = place(problem, problem.host_list(), seconds=60)
    verify(problem, found)
    assert found.unplaced <= problem.tasks // 1_000
