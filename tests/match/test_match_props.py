"""Random histories: the compiled matcher and its twin always agree, and neither violates an invariant."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from bench import workloads
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from jobcloud.match import (
    BY_HOST,
    ENGINES,
    FITNESS,
    MAX_PENALTY,
    REFUSED,
    CompiledMatcher,
    MatchError,
    PlainMatcher,
    Rule,
    at_most,
    balanced,
    near,
)

PLACEMENTS_WANTED = int(os.environ.get("JOBCLOUD_MATCH_PLACEMENTS", "100000"))


def array(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


class Pair:
    """Makes the same calls on both matchers, compares all answers and checks each match against the invariants.

    The compiled matcher takes part with each engine.
    """

    def __init__(self, dimensions: int, fitness: Any = "pack") -> None:
        self.dimensions = dimensions
        self.fitness = fitness if callable(fitness) else None
        self.compiled: Any = CompiledMatcher(dimensions, engine="tables", fitness=fitness)
        self.scanning: Any = CompiledMatcher(dimensions, engine="scan", fitness=fitness)
        self.plain: Any = PlainMatcher(dimensions, fitness=fitness)
        self.slots: set[int] = set()
        self.classes: set[int] = set()
        self.helped: set[int] = set()  # classes for which a claim of another class may make room
        self.live: dict[int, int] = {}  # release id -> slot
        self.ended: list[int] = []
        self.placed = 0

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        matchers = (self.compiled, self.scanning, self.plain)
        answers = [self._answer(getattr(matcher, name), arguments, named) for matcher in matchers]
        assert _plain(answers[0]) == _plain(answers[1]) == _plain(answers[2]), (name, arguments, named)
        return answers[0]

    def _answer(self, method: Callable[..., Any], arguments: Any, named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except MatchError as error:
            return error

    def add_host(self, capacity: NDArray[np.int64]) -> None:
        self.slots.add(self.call("add_host", capacity))

    def add_hosts(self, rows: list[NDArray[np.int64]]) -> None:
        capacities = np.array(rows, dtype=np.int64).reshape(len(rows), self.dimensions)
        self.slots |= set(self.call("add_hosts", capacities).tolist())

    def remove_host(self, slot: int) -> None:
        gone = self.call("remove_host", slot).tolist()
        assert gone == sorted(number for number, at in self.live.items() if at == slot)
        self.slots.remove(slot)
        self._end(gone)

    def add_class(self, request: NDArray[np.int64], **named: Any) -> None:
        number = self.call("add_class", request, **named)
        if not isinstance(number, MatchError):
            self.classes.add(number)
            self.helped.discard(number)
            if any(rule.kind != "at_most" for rule in named.get("rules", ())):
                self.helped.add(number)

    def remove_class(self, cls: int) -> None:
        self.call("remove_class", cls)
        self.classes.remove(cls)

    def match(self, classes: list[int], limit: int) -> None:
        slots, ids = (answer.tolist() for answer in self.call("match", array(*classes), limit=limit))
        placed = [(slot, number) for slot, number in zip(slots, ids, strict=True) if slot >= 0]
        assert limit < 0 or len(placed) <= limit
        for slot, number in placed:
            assert number not in self.live
            assert number not in self.ended[-100:]
            self.live[number] = slot
        for slot in {slot for slot, _ in placed}:
            assert self.compiled.free(slot).min() >= 0
        for cls in {cls for cls, slot in zip(classes, slots, strict=True) if slot == REFUSED}:
            why = self.call("refusal", cls)
            assert why.fitting == 0 or why.over_limit or cls in self.helped
        self.placed += len(placed)

    def match_gang(self, classes: list[int], minimum: int) -> None:
        before = self.compiled.snapshot()
        slots, ids = (answer.tolist() for answer in self.call("match_gang", array(*classes), minimum=minimum))
        placed = {number: slot for slot, number in zip(slots, ids, strict=True) if slot >= 0}
        assert not placed or len(placed) >= (minimum if minimum >= 0 else len(classes))
        if not placed:
            assert self.compiled.snapshot() == self.plain.snapshot() == before
        self.live |= placed
        self.placed += len(placed)

    def assign(self, cls: int, slot: int) -> None:
        number = self.call("assign", cls, slot)
        if not isinstance(number, MatchError):
            self.live[number] = slot

    def release(self, numbers: list[int]) -> None:
        unknown = self.call("release", array(*numbers)).tolist()
        repeated = [number for number, times in Counter(numbers).items() for _ in range(times - 1)]
        assert Counter(unknown) == Counter(n for n in set(numbers) if n not in self.live) + Counter(repeated)
        self._end([number for number in set(numbers) if number in self.live])

    def preemption(self, cls: int, numbers: list[int], costs: list[int]) -> None:
        """The call changes nothing, and releasing the proposed claims makes room for the task."""
        before = self.compiled.snapshot()
        proposal = self.call("preemption", cls, array(*numbers), array(*costs))
        assert self.compiled.snapshot() == self.plain.snapshot() == before
        if proposal is None or isinstance(proposal, MatchError):
            return
        assert {self.live[number] for number in proposal.release_ids} <= {proposal.slot}
        assert sum(costs[numbers.index(number)] for number in proposal.release_ids) == proposal.cost
        dry = self.compiled.fork()
        dry.release(array(*proposal.release_ids))
        assert dry.match(array(cls))[0][0] >= 0

    def _end(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.live[number]
        self.ended.extend(numbers)

    def compare(self) -> None:
        self.compiled.check()
        self.plain.check()
        assert self.compiled.snapshot() == self.scanning.snapshot() == self.plain.snapshot()
        assert self.call("claims") == len(self.live)
        ids = [*self.live, *self.ended[-20:], -1, 0]
        assert self.call("slots", array(*ids)).tolist() == [self.live.get(number, -1) for number in ids]
        for slot in self.slots:
            self.call("free", slot)
            self.call("capacity", slot)
            self.call("claims_on", slot)
        for cls in self.classes:
            self.call("claims", cls)

    def reopen(self) -> None:
        """Each twin continues from the snapshot of the other."""
        data = self.compiled.snapshot()
        self.compiled = CompiledMatcher.restore(self.plain.snapshot(), engine="tables", fitness=self.fitness)
        self.scanning = CompiledMatcher.restore(data, engine="scan", fitness=self.fitness)
        self.plain = PlainMatcher.restore(data, fitness=self.fitness)
        self.compare()

    def fork(self) -> None:
        self.compiled, self.scanning, self.plain = self.compiled.fork(), self.scanning.fork(), self.plain.fork()


def _plain(answer: Any) -> Any:
    if isinstance(answer, tuple):
        return tuple(_plain(part) for part in answer)
    if isinstance(answer, np.ndarray):
        return answer.dtype, answer.tolist()
    return str(answer) if isinstance(answer, MatchError) else answer


def arbitrary_fitness(cls: int, slot: int, need: Sequence[int], free: Sequence[int], capacity: Sequence[int]) -> int:
    """A custom fitness: pure, otherwise arbitrary."""
    return (sum(free) + 3 * sum(need) + sum(capacity)) // 100 % 5 * (1 << 19) + (cls + slot) % 3


#: Parts that oppose each other, so that their values must be right and not only their order.
MIXTURES: list[dict[str, int]] = [
    {"align": 700, "pack": 300, "strand": 24},
    {"dot": 4_096},
    {"convex": 1_000, "spread": 900},
    {"convex": 700, "l2": 300, "spread": 800, "strand": 200},
    {"even": 300, "convex": 1_200, "spread": 1_100, "dot": 400},
]
#: These name the first dimension, which every matcher has. The two parts of the second one oppose each other.
PACKERS: list[Any] = ["pack_0", {"pack_0": 900, "spread": 700}]
RULES: list[Any] = ["pack", *FITNESS, "first", *MIXTURES, *PACKERS, arbitrary_fitness]
WEIGHTS = st.sampled_from([0, 0, 1 << 19, 1 << 21, MAX_PENALTY])
GROUPS = st.sampled_from([2, 5, 8])
PLACES = st.sampled_from([BY_HOST, 0, 3])
PLACE_RULES = st.one_of(
    st.builds(at_most, st.integers(1, 3), GROUPS, per=PLACES, weight=WEIGHTS),
    st.builds(near, GROUPS, within=PLACES, minimum=st.integers(1, 2), weight=WEIGHTS),
    st.builds(balanced, GROUPS, st.sampled_from([0, 3]), skew=st.integers(1, 2), weight=WEIGHTS),
)
PENALTIES = st.sampled_from([0, 0, 1 << 18, 1 << 21, MAX_PENALTY])
AMOUNTS = st.sampled_from([0, 1, 300, 500, 1_000, 1_500, 4_000])
CAPACITIES = st.sampled_from([0, 500, 1_000, 4_000, 7_001, 16_000])


class Histories(RuleBasedStateMachine):
    """Both twins give the same answers for any order of calls."""

    @initialize(dimensions=st.integers(1, 3), fitness=st.sampled_from(RULES))
    def start(self, dimensions: int, fitness: Any) -> None:
        self.pair = Pair(dimensions, fitness)
        self.shared: dict[int, NDArray[np.int64]] = {}

    def vector(self, data: st.DataObject, of: st.SearchStrategy[int]) -> NDArray[np.int64]:
        return array(*data.draw(st.lists(of, min_size=self.pair.dimensions, max_size=self.pair.dimensions)))

    def some(self, data: st.DataObject, numbers: set[int]) -> int:
        return data.draw(st.sampled_from(sorted(numbers)))

    @rule(data=st.data())
    def add_host(self, data: st.DataObject) -> None:
        self.pair.add_host(self.vector(data, CAPACITIES))

    @rule(data=st.data(), number=st.integers(0, 3))
    def add_hosts(self, data: st.DataObject, number: int) -> None:
        self.pair.add_hosts([self.vector(data, CAPACITIES) for _ in range(number)])

    @precondition(lambda self: self.pair.slots)
    @rule(data=st.data())
    def set_host(self, data: st.DataObject) -> None:
        self.pair.call("set_host", self.some(data, self.pair.slots), self.vector(data, CAPACITIES))

    @precondition(lambda self: self.pair.slots)
    @rule(data=st.data())
    def set_free(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.pair.slots)), max_size=3))
        rows = [self.vector(data, CAPACITIES) for _ in slots]
        self.pair.call(
            "set_free", array(*slots), np.array(rows, dtype=np.int64).reshape(len(slots), self.pair.dimensions)
        )

    @precondition(lambda self: len(self.pair.slots) > 2)
    @rule(data=st.data())
    def remove_host(self, data: st.DataObject) -> None:
        self.pair.remove_host(self.some(data, self.pair.slots))

    @precondition(lambda self: self.pair.slots)
    @rule(data=st.data(), on=st.booleans())
    def enable_host(self, data: st.DataObject, on: bool) -> None:
        self.pair.call("enable_host", self.some(data, self.pair.slots), on)

    @rule(data=st.data(), key=st.sampled_from([-1, 0, 7]), masked=st.booleans(), odd=st.booleans())
    def add_class(self, data: st.DataObject, key: int, masked: bool, odd: bool) -> None:
        named: dict[str, Any] = {"shared_key": key, "group": data.draw(st.sampled_from([-1, 2, 5]))}
        named["max_per_host"] = data.draw(st.sampled_from([0, 0, 1, 2]))
        if key >= 0:
            usual = self.shared.setdefault(key, self.vector(data, AMOUNTS))
            named["shared"] = usual + 1 if odd else usual
        if masked:
            named["allowed"] = self.mask(data)
        named["rules"] = data.draw(st.lists(PLACE_RULES, max_size=3))
        named["exclusive"] = data.draw(st.sampled_from([False, False, False, True]))
        if data.draw(st.booleans()):
            named["penalty"] = self.by_slot(data, PENALTIES)
        self.pair.add_class(self.vector(data, AMOUNTS), **named)

    def by_slot(self, data: st.DataObject, of: st.SearchStrategy[int]) -> NDArray[np.int64]:
        return array(*data.draw(st.lists(of, max_size=max(self.pair.slots, default=-1) + 1)))

    @rule(data=st.data(), attribute=st.sampled_from([0, 3]), known=st.sampled_from([True, True, False]))
    def set_attribute(self, data: st.DataObject, attribute: int, known: bool) -> None:
        values = self.by_slot(data, st.sampled_from([0, 1, 2, 5, -1])) if known else None
        self.pair.call("set_attribute", attribute, values)

    @precondition(lambda self: self.pair.classes)
    @rule(data=st.data(), free=st.booleans())
    def set_penalty(self, data: st.DataObject, free: bool) -> None:
        penalty = None if free else self.by_slot(data, PENALTIES)
        self.pair.call("set_penalty", self.some(data, self.pair.classes), penalty)

    def mask(self, data: st.DataObject) -> NDArray[np.bool_]:
        return np.array(data.draw(st.lists(st.booleans(), max_size=max(self.pair.slots, default=-1) + 1)), dtype=bool)

    @precondition(lambda self: self.pair.classes)
    @rule(data=st.data(), masked=st.booleans())
    def set_allowed(self, data: st.DataObject, masked: bool) -> None:
        self.pair.call("set_allowed", self.some(data, self.pair.classes), self.mask(data) if masked else None)

    @precondition(lambda self: self.pair.classes and self.pair.slots)
    @rule(data=st.data())
    def set_host_masks(self, data: st.DataObject) -> None:
        classes = data.draw(st.lists(st.sampled_from(sorted(self.pair.classes)), max_size=4))
        allowed = np.array([data.draw(st.booleans()) for _ in classes], dtype=bool)
        penalty = array(*(data.draw(PENALTIES) for _ in classes))
        self.pair.call("set_host_masks", self.some(data, self.pair.slots), array(*classes), allowed, penalty)

    @rule(data=st.data(), group=st.sampled_from([2, 5, 8]), lifted=st.booleans())
    def set_group_limit(self, data: st.DataObject, group: int, lifted: bool) -> None:
        self.pair.call("set_group_limit", group, None if lifted else self.vector(data, CAPACITIES))

    @precondition(lambda self: len(self.pair.classes) > 2)
    @rule(data=st.data())
    def remove_class(self, data: st.DataObject) -> None:
        self.pair.remove_class(self.some(data, self.pair.classes))

    @precondition(lambda self: self.pair.classes)
    @rule(data=st.data(), limit=st.sampled_from([-1, -1, 0, 2]))
    def match(self, data: st.DataObject, limit: int) -> None:
        self.pair.match(data.draw(st.lists(st.sampled_from(sorted(self.pair.classes)), max_size=12)), limit)

    @precondition(lambda self: self.pair.classes)
    @rule(data=st.data(), minimum=st.sampled_from([-1, -1, 0, 1]))
    def match_gang(self, data: st.DataObject, minimum: int) -> None:
        gang = data.draw(st.lists(st.sampled_from(sorted(self.pair.classes)), min_size=1, max_size=8))
        self.pair.match_gang(gang, minimum)

    @precondition(lambda self: self.pair.classes and self.pair.slots)
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        self.pair.assign(self.some(data, self.pair.classes), self.some(data, self.pair.slots))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        known = sorted(self.pair.live) + self.pair.ended[-5:] + [0, -1, 1 << 32, 2**63 - 1]
        self.pair.release(data.draw(st.lists(st.sampled_from(known), max_size=6)))

    @precondition(lambda self: self.pair.classes)
    @rule(data=st.data())
    def preemption(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.sampled_from([*sorted(self.pair.live), 0]), max_size=6))
        costs = data.draw(st.lists(st.integers(0, 3), min_size=len(numbers), max_size=len(numbers)))
        self.pair.preemption(self.some(data, self.pair.classes), numbers, costs)

    @precondition(lambda self: self.pair.classes)
    @rule(data=st.data())
    def refusal(self, data: st.DataObject) -> None:
        self.pair.call("refusal", self.some(data, self.pair.classes))

    @rule()
    def reopen(self) -> None:
        self.pair.reopen()

    @rule()
    def fork(self) -> None:
        self.pair.fork()

    @invariant()
    def they_agree(self) -> None:
        self.pair.compare()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, derandomize=True, deadline=None)


@pytest.mark.timeout(1_200)  # a busy machine needs more than the usual limit
def test_twins_agree_on_random_placements(seed: int) -> None:
    chance, placed, history = random.Random(seed), 0, 0
    while placed < PLACEMENTS_WANTED:
        history += 1
        pair = random_cluster(chance)
        for step in range(120):
            random_step(pair, chance)
            if step % 20 == 0:
                pair.compare()
            if step % 50 == 49:
                pair.reopen()
        pair.compare()
        placed += pair.placed
    assert history > 20


def random_cluster(chance: random.Random) -> Pair:
    # These two more often: some bugs in them seldom change an answer. Imbalance needs several dimensions.
    often = chance.random() < 0.4
    fitness = chance.choice(["even", "even", "even", arbitrary_fitness] if often else RULES)
    pair = Pair(chance.choice((2, 4) if often else (1, 2, 4)), fitness)
    sizes = chance.sample((800, 1_000, 4_000, 16_000, 30_000, 32_000), 3)
    if chance.random() < 0.1:
        sizes = [
            size << chance.choice((0, 10, 22, 32)) for size in sizes
        ]  # small requests round to no share of the largest hosts
    for _ in range(chance.choice((1, 5, 12))):
        pair.add_host(array(*(chance.choice(sizes) for _ in range(pair.dimensions))))
    values = [[chance.randrange(-1, 4) for _ in pair.slots] for _ in range(2)]
    for attribute in range(2):
        pair.call("set_attribute", attribute, array(*values[attribute]))
    shared = {key: array(*(chance.choice((0, 100, 1_000)) for _ in range(pair.dimensions))) for key in range(3)}
    rare = chance.randrange(pair.dimensions) if chance.random() < 0.3 else -1  # a dimension that does not count
    for _ in range(chance.choice((2, 8))):
        key = chance.choice((-1, 0, 1, 2))
        request = array(*(chance.choice((0, 1, 100, 250, 700)) for _ in range(pair.dimensions)))
        if rare >= 0:
            request[rare] = chance.choice((0, 0, 1))
        allowed = [chance.random() < 0.7 for _ in pair.slots] if chance.random() < 0.3 else None
        mask = None if allowed is None else np.array(allowed)
        limited = {"group": chance.randrange(3), "max_per_host": chance.choice((0, 3, 6))}
        named: dict[str, Any] = limited if chance.random() < 0.5 else {}
        if chance.random() < 0.4:
            named["rules"] = [random_rule(chance) for _ in range(chance.choice((1, 1, 2)))]
        if chance.random() < 0.2:  # balanced over the values that the mask allows
            place, closed = chance.randrange(2), chance.randrange(4)
            mask = np.array([value != closed for value in values[place]])
            named |= {"group": 0, "rules": [balanced(0, place, skew=chance.choice((1, 3)))]}
        if chance.random() < 0.1:
            named["penalty"] = array(*(chance.choice((0, 1 << 19, 1 << 21, MAX_PENALTY)) for _ in pair.slots))
        named["exclusive"] = chance.random() < 0.05
        pair.add_class(request, shared_key=key, shared=shared.get(key), allowed=mask, **named)
    return pair


def random_rule(chance: random.Random) -> Rule:
    group, place = chance.randrange(3), chance.randrange(-1, 2)
    weight = chance.choice((0, 1 << 19, 1 << 21, MAX_PENALTY))
    kind = chance.random()
    if kind < 0.5:
        return at_most(chance.choice((1, 3, 10, 40)), group, per=place, weight=weight)
    if kind < 0.7:
        return near(group, within=place, minimum=chance.choice((1, 4)), weight=weight)
    return balanced(group, abs(place), skew=chance.choice((1, 3)), weight=weight)


def random_step(pair: Pair, chance: random.Random) -> None:
    step = chance.random()
    slot = chance.choice(sorted(pair.slots))
    cls = chance.choice(sorted(pair.classes))
    if step < 0.4:
        pair.match(chance.choices(sorted(pair.classes), k=chance.choice((1, 5, 40))), chance.choice((-1, -1, 10)))
    elif step < 0.42:
        pair.match_gang(chance.choices(sorted(pair.classes), k=chance.choice((2, 9))), chance.choice((-1, -1, 2)))
    elif step < 0.65:
        numbers = chance.sample(sorted(pair.live), len(pair.live) // chance.choice((1, 2, 4)))
        pair.release(numbers + chance.choices([0, *pair.ended[-9:]], k=2))
    elif step < 0.75:
        pair.call("set_host", slot, pair.compiled.capacity(slot) * chance.randrange(5) // 2)
    elif step < 0.8:
        pair.call("enable_host", slot, chance.random() < 0.7)
    elif step < 0.82:
        limit = array(*chance.choices((2_000, 9_000, 40_000), k=pair.dimensions))
        pair.call("set_group_limit", chance.randrange(3), limit if chance.random() < 0.5 else None)
    elif step < 0.825:
        every = array(*sorted(pair.classes))
        allowed = np.array([chance.random() < 0.7 for _ in every])
        pair.call("set_host_masks", slot, every, allowed, array(*(chance.choice((0, 1 << 21)) for _ in every)))
    elif step < 0.84 and step >= 0.83:
        if chance.random() < 0.7:  # a full group, so that victims must make room in its limit
            limit = array(*[chance.choice((500, 2_000, 9_000))] * pair.dimensions)
            pair.release(sorted(pair.live))
            pair.call("set_group_limit", chance.randrange(3), limit)
            pair.match(chance.choices(sorted(pair.classes), k=60), -1)
        may_go = chance.sample(sorted(pair.live), min(len(pair.live), chance.choice((3, 60))))
        for each in sorted(pair.classes):
            pair.preemption(each, may_go, [chance.randrange(4) for _ in may_go])
    elif step < 0.83:
        pair.call("set_attribute", chance.randrange(2), array(*(chance.randrange(-1, 4) for _ in range(slot + 1))))
    elif step < 0.87:
        pair.assign(cls, slot)
    elif step < 0.9:
        pair.remove_host(slot)
        pair.add_host(array(*(chance.choice((1_000, 16_000)) for _ in range(pair.dimensions))))
    else:
        pair.call("refusal", cls)


def test_twins_agree_on_executors_that_start_on_hosts_of_every_size_and_fullness(seed: int) -> None:
    """Few claims have the executor that they need, and the classes that vote for dimensions change all the time."""
    chance = random.Random(seed)
    for _ in range(4):
        pair = Pair(chance.choice((1, 2, 3)), "even")
        sizes = (2_000, 8_000, 16_000, 64_000)
        pair.add_hosts([array(*chance.choices(sizes, k=pair.dimensions)) for _ in range(12)])
        shared = [array(*chance.choices((0, 100, 600), k=pair.dimensions)) for _ in range(30)]
        for _ in range(15):
            lopsided = chance.choice(((0, 0, 1), (100, 700, 1_500)))  # a dimension that counts little or much
            for key in chance.sample(range(30), 4):
                request = array(*chance.choices((100, 300, 900), k=pair.dimensions))
                request[-1] = chance.choice(lopsided)
                pair.add_class(request, shared_key=key, shared=shared[key])
            pair.match(chance.choices(sorted(pair.classes), k=20), -1)
            pair.release(chance.sample(sorted(pair.live), len(pair.live) // chance.choice((3, 9, 30))))
            for cls in chance.sample(sorted(pair.classes), max(0, len(pair.classes) - 12)):
                pair.remove_class(cls)
        pair.compare()
        assert pair.placed > 100


def test_twins_agree_on_the_named_workloads() -> None:
    for workload in (workloads.mixed(10, 8), workloads.mixed(100, 151, apps=20)):
        tasks = workload.tasks[:1_500]
        compiled, plain = (workloads.load(kind, workload) for kind in (CompiledMatcher, PlainMatcher))
        assert _plain(compiled.match(tasks)) == _plain(plain.match(tasks))
        assert compiled.snapshot() == plain.snapshot()


def test_engines_agree_on_clusters_with_all_three_levels_of_minima(seed: int) -> None:
    chance = random.Random(seed)
    workload = workloads.mixed(9_000, 40, apps=7, seed=seed)
    engines = [workloads.load(CompiledMatcher, workload, engine=engine) for engine in ENGINES]
    live: list[int] = []
    for _ in range(60):
        slot, on = chance.randrange(9_000), chance.random() < 0.5
        tasks = np.array(chance.choices(range(40), k=chance.choice((1, 300, 3_000))))
        ended = array(*chance.sample(live, len(live) // 3))
        answers = []
        for matcher in engines:
            matcher.enable_host(slot, on)
            matcher.set_host(chance_slot := (slot * 7) % 9_000, matcher.capacity(chance_slot) // 2)
            answers.append((*(part.tolist() for part in matcher.match(tasks)), matcher.release(ended).tolist()))
        assert answers[0] == answers[1] == answers[2]
        live = [number for number in {*live, *answers[0][1]} - set(ended.tolist()) if number >= 0]
    for matcher in engines:
        matcher.check()
    assert len({matcher.snapshot() for matcher in engines}) == 1
    assert engines[0].evaluations < engines[1].evaluations


def test_gathered_scores_equal_single_scores(seed: int) -> None:
    """With keys, masks and groups, in each number of dimensions that may be gathered and one more."""
    chance = random.Random(seed)
    for dimensions in range(1, 8):
        engines = [CompiledMatcher(dimensions, engine=engine) for engine in ("tables", "scan")]
        amounts = chance.choices((0, 8_000, 16_000, 30_000), (1, 3, 3, 3), k=1_200 * dimensions)
        shared = {key: array(*chance.choices((0, 100, 1_000), k=dimensions)) for key in range(2)}
        for matcher in engines:
            matcher.add_hosts(np.array(amounts).reshape(1_200, dimensions))
        for cls in range(8):
            request = array(*chance.choices((0, 1, 100, 700, 2_500), k=dimensions))
            named: dict[str, Any] = {"shared_key": cls % 3, "shared": shared[cls % 3]} if cls % 3 < 2 else {}
            named |= {"group": cls % 2, "max_per_host": 3} if cls in (1, 2, 3) else {}
            if cls in (3, 4, 5):
                named["allowed"] = np.array([chance.random() < 0.7 for _ in range(1_200)])
            for matcher in engines:
                matcher.add_class(request, **named)
        live: list[int] = []
        for _ in range(30):
            tasks = array(*chance.choices(range(8), k=chance.choice((8, 60, 400))))
            ended = array(*chance.sample(live, min(len(live), chance.choice((0, 17, 50, 130)))))
            answers = []
            for matcher in engines:
                matcher.release(ended)
                answers.append(_plain(matcher.match(tasks)))
            assert answers[0] == answers[1]
            live = sorted({*live, *answers[0][1][1]} - {-1, *ended.tolist()})
            engines[0].check()
        assert engines[0].evaluations < engines[1].evaluations


def test_twins_agree_on_thousands_of_tasks_on_150_hosts(seed: int) -> None:
    workload = workloads.mixed(150, 12, apps=3, seed=seed)
    compiled, plain = (workloads.load(kind, workload) for kind in (CompiledMatcher, PlainMatcher))
    for start in range(0, 3_000, 500):
        answers = [matcher.match(workload.tasks[start : start + 500]) for matcher in (compiled, plain)]
        assert _plain(answers[0]) == _plain(answers[1])
        ended = answers[0][1][::3].copy()
        assert _plain(compiled.release(ended)) == _plain(plain.release(ended))
    compiled.check()
    assert compiled.memory()["index"] > 0
    assert compiled.snapshot() == plain.snapshot()
