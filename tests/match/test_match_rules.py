"""Fitness by name, gangs and limits per host, on small cases."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobcloud.match import ENGINES, FITNESS, REFUSED, UNTRIED, CompiledMatcher, MatchError, PlainMatcher


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    return request.param


def units(*whole: float) -> NDArray[np.int64]:
    return np.array([round(1_000 * amount) for amount in whole], dtype=np.int64)


def chosen(impl: Any, fitness: Any, hosts: list[tuple[int, ...]], task: tuple[int, ...], free: Any = None) -> int:
    """The slot that one task gets. ``free``: the free amounts of each host; by default all is free."""
    matcher = impl(len(task), fitness=fitness)
    for capacity, left in zip(hosts, free or hosts, strict=True):
        slot = matcher.add_host(units(*capacity))
        matcher.assign(matcher.add_class(units(*capacity) - units(*left)), slot)
    slots, _ = matcher.match(np.array([matcher.add_class(units(*task))]))
    matcher.check()
    return int(slots[0])


@pytest.mark.parametrize(
    ("fitness", "hosts", "free", "slot"),
    [
        ("even", [(10, 10), (10, 10)], [(10, 10), (9, 9)], 1),  # the host in use
        ("even", [(10, 20), (20, 40)], None, 0),  # for any size of the hosts
        ("pack", [(10, 10), (10, 10)], [(9, 9), (5, 5)], 1),
        ("spread", [(10, 10), (10, 10)], [(5, 5), (9, 9)], 1),
        ("first", [(10, 10), (10, 10)], [(9, 9), (5, 5)], 0),
        # pack sees equal leftovers, the others the large leftover in one dimension
        ("pack", [(10, 10), (10, 10)], [(9, 1), (5, 5)], 0),
        ("convex", [(10, 10), (10, 10)], [(9, 1), (5, 5)], 1),
        ("l2", [(10, 10), (10, 10)], [(9, 1), (5, 5)], 1),
        ("strand", [(10, 10), (10, 10)], [(9, 1), (8, 8)], 1),
        ("dot", [(10, 10), (10, 10)], [(5, 5), (8, 8)], 1),
        ("align", [(10, 10), (10, 10)], [(9, 2), (4, 4)], 1),
        ({"align": 1_000, "pack": 24}, [(10, 10), (10, 10)], [(9, 9), (4, 4)], 1),
    ],
)
def test_each_fitness_prefers_the_expected_host(impl: Any, fitness: Any, hosts: Any, free: Any, slot: int) -> None:
    assert chosen(impl, fitness, hosts, (1, 1), free) == slot


def share(amount: int, capacity: int) -> int:
    b = max(len(f"{capacity:b}"), 5)
    e = max(len(f"{amount:b}") - 16, 0) if amount else 0
    return ((amount >> e) * ((1 << (b + 15)) // capacity)) >> (b - 5 - e)


def six_bits(number: int) -> int:
    return int(f"{number:b}"[:6].ljust(len(f"{number:b}"), "0"), 2)


def counted(needs: list[list[int]], medians: list[int]) -> set[int]:
    """The dimensions that count, from the needs of all classes."""
    votes = [0] * len(medians)
    for need in needs:
        shares = [min(2**40, 2**20 * n // median) if median else 0 for n, median in zip(need, medians, strict=True)]
        for d, share in enumerate(shares):
            votes[d] += 2**10 * share // max(shares) if share else 0
    return {d for d, vote in enumerate(votes) if vote > 0 and vote >= max(votes) / 16}


def parts(
    capacity: list[int], free: list[int], need: list[int], every: list[list[int]], needs: list[list[int]], even: bool
) -> dict[str, int]:
    """The table under "Fitness" in docs/matcher.md, line by line, independent of the plain matcher.

    ``every``: the capacities of all hosts. ``needs``: those of all classes. ``even``: whether it has a weight.
    """
    n = [d for d, amount in enumerate(capacity) if amount > 0]
    present = [[other[d] for other in every if other[d] > 0] for d in range(len(capacity))]
    medians = [six_bits(statistics.median_high(amounts)) if amounts else 0 for amounts in present]
    count = (counted(needs, medians) if even else {*n}).intersection(n)
    had = {d: 2**20 if free[d] == capacity[d] and d not in count else share(free[d], capacity[d]) for d in n}
    asked = {d: share(need[d], capacity[d]) for d in n}
    left = {d: had[d] - asked[d] for d in n}
    whole = 2**20
    most = max((had[d] for d in count), default=0)
    relative = {d: (had[d] * (2**27 // most)) >> 20 if most else 0 for d in count}
    relative |= {d: 56 if had[d] >= 2**13 else 0 for d in n if d not in count}
    spent = min(had.values()) - min(left.values()) if n else 0
    sizes = [min(2**17 - 1, 2**11 * capacity[d] // medians[d]) for d in count]
    size = six_bits(max(sum(sizes) // max(len(sizes), 1), 2**5))
    opening = 2**13 if free == capacity else 0
    large = 2**12 * max(0, math.floor(math.log2(size / 2**11))) ** 2
    imbalance = 2**14 if sum((asked[d] >> 6) * (16 * relative[d] - 7 * 128) for d in n) < 0 else 0
    unasked = sum(2**16 for d in n if need[d] == 0 and relative[d] > 0)
    dotted = sum(had[d] * asked[d] for d in n)
    lengths = sum(had[d] ** 2 for d in n) * sum(asked[d] ** 2 for d in n)
    return {
        "even": (spent * size >> 11) + opening + large + imbalance + unasked,
        "pack": sum(left.values()),
        "convex": sum(f + (f**2 >> 20) + (f**3 >> 40) for f in left.values()) // 3,
        "l2": sum(f**2 >> 20 for f in left.values()),
        "spread": sum(whole - f for f in left.values()),
        "strand": sum(left.values()) - len(n) * min(left.values(), default=0),
        "dot": sum(whole - (had[d] * asked[d] >> 20) for d in n),
        "align": whole - dotted**2 * whole // lengths if lengths else whole,
        "first": 0,
    }


@pytest.mark.parametrize("fitness", [*FITNESS, "first", "several"])
def test_scores_equal_those_of_the_documentation(impl: Any, fitness: str, seed: int) -> None:
    """The matcher chooses the host that a third implementation scores best, the lowest slot among equals."""
    chance = random.Random(f"{seed}/{fitness}")
    for _ in range(20):
        weights = {fitness: 1_024}
        if fitness == "several":
            weights = {name: chance.randrange(1, 500) for name in chance.sample(FITNESS, 3)}
        scale, dimensions = chance.choice((1, 1_000, 10**6, 2**30, 2**42)), chance.randint(1, 4)
        matcher = impl(dimensions, fitness=weights, engine=chance.choice(ENGINES))
        capacity = [scale * chance.choice((0, 5, 33, 1_000)) for _ in range(dimensions)]
        hosts: list[tuple[list[int], list[int]]] = []
        needs: list[list[int]] = []
        rare = chance.randrange(dimensions) if chance.random() < 0.5 else -1
        for _ in range(40):
            if chance.random() < 0.3:
                capacity = [scale * chance.choice((0, 5, 33, 1_000)) for _ in range(dimensions)]
            used = [0 if chance.random() < 0.2 else chance.randint(0, amount) for amount in capacity]
            if rare >= 0 and chance.random() < 0.95:
                used[rare] = 0
            needs.append(used)
            matcher.assign(matcher.add_class(np.array(used)), matcher.add_host(np.array(capacity)))
            hosts.append((capacity, [has - takes for has, takes in zip(capacity, used, strict=True)]))
        every = [capacity for capacity, _ in hosts]
        for _ in range(10):
            need = [chance.choice((0, 1, chance.randint(0, scale))) for _ in range(dimensions)]
            needs.append(need)
            even = "even" in weights
            scores = []
            for slot, (capacity, free) in enumerate(hosts):
                if all(has >= takes for has, takes in zip(free, need, strict=True)):
                    part = parts(capacity, free, need, every, needs, even)
                    scores.append((sum(weight * part[name] for name, weight in weights.items()) >> 10, slot))
            slots, release_ids = matcher.match(np.array([matcher.add_class(np.array(need))]))
            assert slots[0] == (min(scores)[1] if scores else REFUSED), (weights, hosts, need, scores)
            matcher.release(release_ids)


@pytest.mark.parametrize(
    ("task", "free", "slot"),
    [
        ((1, 1, 0), [(16, 16, 4), (16, 16, 0)], 1),  # gpus are kept for tasks that request them
        ((1, 1, 1), [(16, 16, 0), (16, 16, 4)], 1),
        ((2, 1, 0), [(4, 16, 0), (16, 4, 0)], 1),  # cpus are not the scarcest resource of that host
        ((1, 2, 0), [(4, 16, 0), (16, 4, 0)], 0),
        ((2, 1, 0), [(1, 16, 0), (2, 16, 0), (16, 16, 0)], 2),  # prefers an unused host to an imbalanced one
    ],
)
def test_even_keeps_leftovers_in_balance(impl: Any, task: Any, free: Any, slot: int) -> None:
    assert chosen(impl, "even", [(16, 16, gpus) for *_, gpus in free], task, free) == slot


def test_even_leaves_large_hosts_to_large_tasks(impl: Any) -> None:
    """A task costs as much on a large host as on a small one, so small tasks do not collect on the largest."""
    matcher = impl(1)
    for cpus in (8, 8, 16, 32):
        matcher.add_host(units(cpus))
    small, large = matcher.add_class(units(2)), matcher.add_class(units(14))
    slots, _ = matcher.match(np.array([small] * 9 + [large] * 3))
    assert slots.tolist() == [0] * 4 + [1] * 4 + [2, 2, 3, 3]


def test_unused_giant_host_changes_nothing(impl: Any) -> None:
    plain, with_giant = impl(2), impl(2)
    for _ in range(9):
        plain.add_host(units(16, 64))
        with_giant.add_host(units(16, 64))
    with_giant.enable_host(with_giant.add_host(units(1_600, 6_400)), False)
    tasks = [units(1, 8), units(4, 4), units(0.5, 2)]
    answers = []
    for matcher in (plain, with_giant):
        classes = np.array([matcher.add_class(task) for task in tasks])
        answers.append(matcher.match(np.tile(classes, 20))[0].tolist())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_sizes_follow_changes_of_the_hosts(engine: str, seed: int) -> None:
    """After any changes of hosts, the choices equal those of a new matcher."""
    chance = random.Random(f"{seed}/{engine}")
    matcher = CompiledMatcher(2, engine=engine)
    amounts = (0, 4, 8, 8, 16, 64, 900)

    def capacity() -> NDArray[np.int64]:
        return units(chance.choice(amounts), chance.choice(amounts))

    slots = matcher.add_hosts(np.array([capacity() for _ in range(70)])).tolist()
    classes = [matcher.add_class(units(*task)) for task in ((1, 1), (2, 0), (0, 3), (1, 6), (6, 1))]
    for _ in range(150):
        step, slot = chance.random(), chance.choice(slots)
        if step < 0.5:
            matcher.set_host(slot, capacity())
        elif step < 0.65:
            slots.append(matcher.add_host(capacity()))
        elif step < 0.9 and len(slots) > 3:
            matcher.remove_host(slot)
            slots.remove(slot)
        elif step < 0.95:
            matcher.enable_host(slot, chance.random() < 0.5)
        else:
            data = matcher.snapshot()
            matcher = matcher.fork() if chance.random() < 0.5 else CompiledMatcher.restore(data, engine=engine)
        restored = PlainMatcher.restore(matcher.snapshot())
        tasks = np.array(chance.choices(classes, k=4))
        got, expected = matcher.match(tasks), restored.match(tasks)
        assert got[0].tolist() == expected[0].tolist()
        matcher.check()
        matcher.release(got[1][got[1] >= 0])


@pytest.mark.parametrize("engine", ["scan", "tables"])
@pytest.mark.parametrize("power", [24, 30, 31, 32, 40, 51])
def test_amounts_beyond_32_bits_are_exact(engine: str, power: int) -> None:
    matcher = CompiledMatcher(2, engine=engine)
    limit = 2**power
    for capacity in (limit - 1, limit, limit + 1):
        matcher.add_host(np.array([capacity, 1_000]))
    exact = [matcher.add_class(np.array([amount, 0])) for amount in (limit - 1, limit, limit + 1, limit + 2)]
    for cls, fitting in zip(exact, (3, 2, 1, 0), strict=True):
        slots, ids = matcher.match(np.array([cls] * 4))
        assert (slots >= 0).sum() == fitting
        matcher.release(ids[ids >= 0])
    matcher.check()


@pytest.mark.parametrize("fitness", [*FITNESS, "first"])
def test_no_fitness_refuses_a_task_that_fills_a_host_or_requests_nothing(impl: Any, fitness: str) -> None:
    assert chosen(impl, fitness, [(4, 0)], (4, 0)) == 0
    assert chosen(impl, fitness, [(4, 4)], (0, 0)) == 0
    assert chosen(impl, fitness, [(4, 4)], (5, 0)) == REFUSED


@pytest.mark.parametrize("fitness", [*FITNESS, dict.fromkeys(FITNESS, 512)])
def test_no_score_overflows_at_the_largest_amounts(impl: Any, fitness: Any) -> None:
    matcher = impl(64, fitness=fitness)
    for _ in range(2):
        matcher.add_host(np.full(64, 2**52))
    small, large = matcher.add_class(np.full(64, 1)), matcher.add_class(np.full(64, 2**52))
    slots, _ = matcher.match(np.array([small, large, large]))
    assert sorted(slots.tolist()) == [REFUSED, 0, 1]


@pytest.mark.parametrize(
    ("fitness", "words"),
    [
        ("best", "one of even, pack, convex"),
        (None, "a name, a mapping"),
        ({"pack": -1}, r"fitness\['pack'\] must be between"),
        ({"pack": 1.5}, "a whole number"),
        ({"pack": 4_000, "dot": 97}, "add up to 4097"),
    ],
)
def test_unknown_fitness_is_refused(impl: Any, fitness: Any, words: str) -> None:
    with pytest.raises(MatchError, match=words):
        impl(2, fitness=fitness)


def test_unknown_engine_is_refused(impl: Any) -> None:
    with pytest.raises(MatchError, match="engine must be one of index, scan"):
        impl(2, engine="magic")


def test_copy_keeps_the_fitness(impl: Any) -> None:
    matcher = impl(1, fitness={"align": 500, "first": 7, "pack": 12})
    assert matcher.fitness == matcher.fork().fitness == {"align": 500, "pack": 12}
    assert impl.restore(matcher.snapshot()).fitness == {"align": 500, "pack": 12}


def test_gang_is_placed_completely_or_leaves_no_trace(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(4))
    one, three = matcher.add_class(units(1)), matcher.add_class(units(3), shared_key=1, shared=units(0.5))
    _, before = matcher.match(np.array([one, one]))
    matcher.release(before[:1])
    snapshot = matcher.snapshot()
    slots, ids = matcher.match_gang(np.array([one, one, three]))
    assert slots.tolist() == [UNTRIED, UNTRIED, REFUSED]
    assert ids.tolist() == [-1, -1, -1]
    assert matcher.snapshot() == snapshot
    assert matcher.match_gang(np.array([one, one]))[0].tolist() == [0, 0]
    matcher.check()


def test_class_without_room_is_placed_after_the_gang_is_rolled_back(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(100):
        matcher.add_host(units(2))
    one = matcher.add_class(units(2))
    assert (matcher.match_gang(np.array([one] * 101))[0] < 0).all()
    assert (matcher.match_gang(np.array([one] * 100))[0] >= 0).all()


def test_gang_may_be_placed_in_part(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(2))
    one = matcher.add_class(units(1))
    assert matcher.match_gang(np.array([one] * 3), minimum=2)[0].tolist() == [0, 0, REFUSED]
    assert matcher.match_gang(np.array([one] * 3), minimum=1)[0].tolist() == [REFUSED] * 3
    with pytest.raises(MatchError, match="minimum must be between -1 and 1"):
        matcher.match_gang(np.array([one]), minimum=2)


def test_empty_gang_is_placed(impl: Any) -> None:
    assert impl(1).match_gang(np.array([], dtype=np.int64))[0].tolist() == []


def test_host_takes_at_most_max_per_host_tasks_of_a_group(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(2):
        matcher.add_host(units(10))
    single = matcher.add_class(units(1), group=3, max_per_host=1)
    pair = matcher.add_class(units(1), group=3, max_per_host=2)
    slots, ids = matcher.match(np.array([single, single, single, pair, pair, pair]))
    assert slots.tolist() == [0, 1, REFUSED, 0, 1, REFUSED]
    why = matcher.refusal(single)
    assert (why.hosts, why.crowded, why.considered, why.could_ever_fit) == (2, 2, 0, True)
    matcher.release(ids[[0, 3]])
    assert matcher.match(np.array([single]))[0].tolist() == [0]
    matcher.check()


def test_assigned_task_counts_for_its_group_despite_the_limit(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(10))
    single = matcher.add_class(units(1), group=0, max_per_host=1)
    ids = np.array([matcher.assign(single, 0) for _ in range(3)])
    matcher.release(ids[:2])
    assert matcher.match(np.array([single]))[0].tolist() == [REFUSED]
    matcher.release(ids[2:])
    assert matcher.match(np.array([single]))[0].tolist() == [0]


def test_max_per_host_needs_a_group(impl: Any) -> None:
    with pytest.raises(MatchError, match="name the group"):
        impl(1).add_class(units(1), max_per_host=1)


def test_many_groups_can_be_added_and_removed(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(1_000))
    for turn in range(3):
        classes = [matcher.add_class(units(1), group=turn * 100 + i, max_per_host=1) for i in range(20)]
        slots, ids = matcher.match(np.array(classes * 2))
        assert slots.tolist() == [0] * 20 + [REFUSED] * 20
        matcher.check()
        for cls in classes:
            matcher.remove_class(cls)
        matcher.release(ids[ids >= 0])
        matcher.check()


def test_group_stays_within_its_limit(impl: Any) -> None:
    matcher = impl(2)
    for _ in range(2):
        matcher.add_host(units(4, 4))
    matcher.set_group_limit(7, units(3, 4))
    one = matcher.add_class(units(1, 1), group=7, shared_key=1, shared=units(0.5, 0))
    two = matcher.add_class(units(2, 0), group=7)
    free = matcher.add_class(units(1, 1))
    slots, ids = matcher.match(np.array([one, one, two, one, one, free]))
    assert [slot >= 0 for slot in slots.tolist()] == [True, True, False, True, False, True]
    why = matcher.refusal(one)
    assert why.over_limit
    assert why.fitting > 0
    matcher.release(ids[:1])
    assert not matcher.refusal(one).over_limit
    assert matcher.match(np.array([one]))[0][0] >= 0
    matcher.check()


def test_group_limit_may_fall_below_its_claims_and_be_removed(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(10))
    one = matcher.add_class(units(1), group=0)
    matcher.match(np.array([one] * 3))
    matcher.set_group_limit(0, units(1))
    assert matcher.match(np.array([one]))[0].tolist() == [REFUSED]
    assert impl.restore(matcher.snapshot()).match(np.array([one]))[0].tolist() == [REFUSED]
    matcher.set_group_limit(0, None)
    matcher.set_group_limit(0, None)
    assert matcher.match(np.array([one]))[0].tolist() == [0]
    matcher.check()


def test_group_limit_outlives_the_classes_of_its_group(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(10))
    matcher.set_group_limit(0, units(1))
    matcher.remove_class(matcher.add_class(units(1), group=0))
    assert matcher.match(np.array([matcher.add_class(units(2), group=0)]))[0].tolist() == [REFUSED]
    matcher.check()


@pytest.mark.parametrize("arguments", [(-1, units(1)), (0.5, units(1)), (0, units(1, 1)), (0, -units(1)), (0, [1])])
def test_bad_group_limit_is_refused(impl: Any, arguments: Any) -> None:
    with pytest.raises(MatchError, match=r"group|limit"):
        impl(1).set_group_limit(*arguments)
