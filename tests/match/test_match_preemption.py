"""Preemption proposals and custom fitness functions."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobcloud.match import (
    ENGINES,
    MAX_PENALTY,
    REFUSED,
    CompiledMatcher,
    MatchError,
    MatchStateError,
    PlainMatcher,
    Preemption,
    at_most,
)


@pytest.fixture(params=[*ENGINES, "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    """Makes a matcher with the given number of dimensions."""
    if request.param == "plain":
        return PlainMatcher
    return lambda dimensions, **options: CompiledMatcher(dimensions, engine=request.param, **options)


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


# ---- preemption


def test_preemption_proposes_the_cheapest_host_and_changes_nothing(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(3):
        matcher.add_host(ints(4_000))
    one, four = matcher.add_class(ints(1_000)), matcher.add_class(ints(3_000))
    running = ints(*(matcher.assign(one, slot) for slot in (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)))
    before = matcher.snapshot()
    assert matcher.preemption(four, running) == Preemption(1, tuple(running[5:7].tolist()), 2)
    costs = ints(1, 1, 1, 1, 9, 9, 9, 2, 1, 1)
    assert matcher.preemption(four, running, costs) == Preemption(2, tuple(running[8:].tolist()), 2)
    matcher.check()
    assert matcher.snapshot() == before
    matcher.release(running[5:7])
    assert matcher.match(ints(four))[0].tolist() == [1]


def test_no_proposal_if_all_candidates_are_not_enough(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(ints(4_000))
    one, huge = matcher.add_class(ints(2_000)), matcher.add_class(ints(4_001))
    all_of_it = matcher.add_class(ints(4_000))
    running = ints(matcher.assign(one, 0), matcher.assign(one, 0))
    assert matcher.preemption(huge, running) is None
    assert matcher.preemption(all_of_it, running[:1]) is None
    assert matcher.preemption(all_of_it, running) == Preemption(0, tuple(running.tolist()), 2)
    matcher.enable_host(0, False)
    assert matcher.preemption(all_of_it, running) is None


def test_proposal_is_empty_if_the_task_already_fits(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(2):
        matcher.add_host(ints(2_000))
    one = matcher.add_class(ints(1_000))
    assert matcher.preemption(one, ints(matcher.assign(one, 0), matcher.assign(one, 0))) == Preemption(1, (), 0)


def test_victims_free_a_shared_part_or_a_place_in_a_group(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(2):
        matcher.add_host(ints(4_000))
    matcher.set_attribute(0, ints(3, 3))
    app = matcher.add_class(ints(500), shared_key=1, shared=ints(3_000))
    running = [matcher.assign(app, 0), matcher.assign(app, 0)]
    three = matcher.add_class(ints(3_000), group=1, rules=[at_most(1, 1, per=0)])
    running.append(matcher.assign(three, 1))
    assert matcher.preemption(three, ints(*running)) == Preemption(1, (running[2],), 1)
    # the group's own claim stays, so its rule holds everywhere
    assert matcher.preemption(three, ints(*running[:2])) is None
    four = matcher.add_class(ints(4_000))
    # one of the two would keep the executor's part
    assert matcher.preemption(four, ints(*running), ints(1, 1, 3)) == Preemption(0, tuple(running[:2]), 2)
    matcher.check()


def test_proposal_respects_exclusive_tasks_and_group_limits(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(ints(9_000))
    one = matcher.add_class(ints(1_000), group=1, max_per_host=2)
    alone = matcher.add_class(ints(1_000), exclusive=True)
    running = ints(matcher.assign(one, 0), matcher.assign(one, 0))
    assert matcher.preemption(alone, running) == Preemption(0, tuple(running.tolist()), 2)
    assert matcher.preemption(one, running) == Preemption(0, (int(running[1]),), 1)
    matcher.set_group_limit(1, ints(1_500))
    assert matcher.preemption(one, running) == Preemption(0, tuple(running.tolist()), 2)


def test_no_victim_could_be_spared(impl: Any, seed: int) -> None:
    chance = random.Random(seed)
    proposed = 0
    for _ in range(60):
        matcher = impl(2)
        for _ in range(3):
            matcher.add_host(ints(8_000, 8_000))
        small = [matcher.add_class(ints(*chance.choices((500, 1_000, 3_000), k=2))) for _ in range(4)]
        large = matcher.add_class(ints(*chance.choices((4_000, 6_000, 8_000), k=2)))
        ids = [number for number in matcher.match(ints(*chance.choices(small, k=40)))[1].tolist() if number >= 0]
        costs = ints(*chance.choices(range(5), k=len(ids)))
        proposal = matcher.preemption(large, ints(*ids), costs)
        assert proposal is not None
        proposed += len(proposal.release_ids) > 1
        for spared in proposal.release_ids:
            dry = matcher.fork()
            dry.release(ints(*(number for number in proposal.release_ids if number != spared)))
            dry.set_allowed(large, np.arange(3) == proposal.slot)
            assert dry.match(ints(large))[0].tolist() == [REFUSED]
    assert proposed > 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"release_ids": ints(7)}, r"release_ids\[0\] is 7, not live"),
        ({"release_ids": ints(1 << 32, 1 << 32)}, r"release_ids\[1\] is 4294967296, given twice"),
        ({"release_ids": [1]}, "release_ids must be a one-dimensional"),
        ({"costs": ints()}, "costs must have one entry for each of the 1 release_ids, not 0"),
        ({"costs": ints(-1)}, r"costs\[0\] is -1"),
        ({"costs": np.array([0.5])}, "not float64"),
        ({"cls": 5}, "class 5 is unknown"),
    ],
)
def test_bad_argument_of_preemption_is_named(impl: Any, change: dict[str, Any], words: str) -> None:
    matcher = impl(1)
    matcher.add_host(ints(1_000))
    cls = matcher.add_class(ints(1_000))
    assert matcher.assign(cls, 0) == 1 << 32
    with pytest.raises(MatchError, match=words):
        matcher.preemption(**({"cls": cls, "release_ids": ints(1 << 32)} | change))


# ---- custom fitness


def newest_first(cls: int, slot: int, need: Any, free: Any, capacity: Any) -> int:
    return 100 - slot


def test_fitness_may_be_a_function(impl: Any) -> None:
    matcher = impl(1, fitness=newest_first)
    for _ in range(4):
        matcher.add_host(ints(2_000))
    one = matcher.add_class(ints(1_000), allowed=np.array([True, True, True]))
    sharing = matcher.add_class(ints(500), shared_key=1, shared=ints(500))
    matcher.assign(sharing, 0)
    slots, _ = matcher.match(ints(one, one, one, *[sharing] * 3))
    assert slots.tolist() == [2, 2, 1, 0, 0, 3]
    assert matcher.custom_fitness is newest_first
    assert matcher.fitness == {}
    matcher.check()


def test_custom_fitness_gets_the_need_and_the_free_amounts(impl: Any) -> None:
    seen = []

    def fitness(*about: Any) -> int:
        seen.append(about)
        return 0

    matcher = impl(2, fitness=fitness)
    matcher.add_host(ints(4_000, 100))
    matcher.match(ints(matcher.add_class(ints(1_000, 1), shared_key=1, shared=ints(500, 2))))
    assert seen == [(0, 0, (1_500, 3), (4_000, 100), (4_000, 100))]


def test_custom_fitness_is_called_once_per_class_and_changed_host() -> None:
    calls = []
    for engine in ENGINES:
        matcher = CompiledMatcher(1, engine=engine, fitness=newest_first)
        for _ in range(100):
            matcher.add_host(ints(10_000))
        classes = ints(*(matcher.add_class(ints(1_000)) for _ in range(3)))
        matcher.match(np.tile(classes, 50))
        # first all 100 hosts per class; then, per class, the host of the previous task while it has room
        assert matcher.fitness_calls <= 3 * 100 + 150 * 3
        calls.append(matcher.fitness_calls)
        matcher.match(np.repeat(classes, 3))
        assert matcher.fitness_calls - calls[-1] <= 3 * 3 + 2 * 3
    assert len(set(calls)) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda slot: 1 // slot, "fitness raised ZeroDivisionError for class 0 and slot 0: .*; nothing was placed"),
        (lambda slot: 0.5, r"fitness\(class 0, slot 0\) must be a whole number, not float"),
        (lambda slot: float("nan"), "must be a whole number, not float nan"),
        (lambda slot: None, "must be a whole number, not NoneType"),
        (lambda slot: -1, "must be between 0 and 268435456, not -1"),
        (lambda slot: MAX_PENALTY + 1, "must be between 0 and 268435456, not 268435457"),
    ],
)
def test_failing_custom_fitness_rolls_back_the_match(impl: Any, answer: Any, words: str) -> None:
    bad = False

    def fitness(cls: int, slot: int, need: Any, free: Any, capacity: Any) -> int:
        """Fails if less than 2 is free on a host, which happens in the middle of a batch."""
        return int(slot) if not bad or min(free) >= 2_000 else answer(slot)

    matcher = impl(1, fitness=fitness)
    for _ in range(2):
        matcher.add_host(ints(3_000))
    one = matcher.add_class(ints(1_000))
    matcher.release(matcher.match(ints(one, one))[1])
    before = matcher.snapshot()
    bad = True
    for method in (matcher.match, matcher.match_gang):
        with pytest.raises(MatchError, match=words):
            method(ints(one, one, one))
        matcher.check()
        assert matcher.snapshot() == before
    bad = False
    assert matcher.match(ints(*[one] * 7))[0].tolist() == [0, 0, 0, 1, 1, 1, REFUSED]


def test_custom_fitness_cannot_call_the_matcher() -> None:
    def fitness(*about: Any) -> int:
        return int(matcher.free(0)[0])

    matcher = CompiledMatcher(1, fitness=fitness)
    matcher.add_host(ints(1_000))
    with pytest.raises(MatchError, match="fitness raised MatchStateError") as failed:
        matcher.match(ints(matcher.add_class(ints(1))))
    assert isinstance(failed.value.__cause__, MatchStateError)
    assert matcher.free(0).tolist() == [1_000]


def test_custom_fitness_must_be_given_to_restore(impl: Any) -> None:
    matcher = impl(1, fitness=newest_first)
    for _ in range(2):
        matcher.add_host(ints(1_000))
    one = matcher.add_class(ints(1_000))
    restore = type(matcher).restore
    with pytest.raises(MatchError, match="pass it as fitness"):
        restore(matcher.snapshot())
    with pytest.raises(MatchError, match="leave fitness out"):
        restore(type(matcher)(1).snapshot(), fitness=newest_first)
    for copy in (matcher.fork(), restore(matcher.snapshot(), fitness=newest_first)):
        assert copy.match(ints(one))[0].tolist() == [1]
