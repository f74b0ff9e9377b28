"""The default fitness on hosts as Mesos agents describe them: with equal ports and disk, and with shared executors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from bench import quality
from numpy.typing import NDArray

from jobcloud.match import ENGINES, REFUSED, CompiledMatcher, PlainMatcher

Amounts = tuple[int, ...]


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    return request.param


def units(*whole: float) -> NDArray[np.int64]:
    return np.array([round(1_000 * amount) for amount in whole], dtype=np.int64)


def test_equal_disk_leaves_the_large_host_to_the_large_task(impl: Any) -> None:
    """The smallest case: with the disk in its size, the large host seems hardly larger than the others."""
    for disk in ((), (100_000,)):
        matcher = impl(2 + len(disk))
        for cpus in (16, 8, 8, 8):
            matcher.add_host(units(cpus, 4 * cpus, *disk))
        nothing = [0] * len(disk)
        small, large = (matcher.add_class(units(cpus, cpus, *nothing)) for cpus in (1, 16))
        slots, _ = matcher.match(np.array([small] * 8 + [large]))
        assert slots[-1] == 0


class Widened:
    """One matcher, and a second one with one more dimension: equal on all hosts, and requested by no class."""

    def __init__(self, impl: Any, dimensions: int, at: int, amount: int, engine: str) -> None:
        self.at, self.amount = at, amount
        self.matchers = [impl(dimensions + more, engine=engine) for more in (0, 1)]

    def wider(self, amounts: Amounts, more: int) -> list[NDArray[np.int64]]:
        return [np.array(amounts), np.array([*amounts[: self.at], more, *amounts[self.at :]])]

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        answers = [getattr(matcher, name)(*arguments, **named) for matcher in self.matchers]
        if isinstance(answers[0], tuple):
            assert [part.tolist() for part in answers[0]] == [part.tolist() for part in answers[1]]
        return answers[0]

    def add_host(self, capacity: Amounts) -> int:
        wider = self.wider(capacity, self.amount)
        slot, _ = (matcher.add_host(row) for matcher, row in zip(self.matchers, wider, strict=True))
        return int(slot)

    def set_host(self, slot: int, capacity: Amounts) -> None:
        for matcher, row in zip(self.matchers, self.wider(capacity, self.amount), strict=True):
            matcher.set_host(slot, row)

    def add_class(self, request: Amounts, key: int, shared: Amounts | None) -> int:
        rows, parts = self.wider(request, 0), self.wider(shared or (), 0) if shared else [None, None]
        number, _ = (
            matcher.add_class(row, shared_key=key, shared=part)
            for matcher, row, part in zip(self.matchers, rows, parts, strict=True)
        )
        return int(number)


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_dimension_that_nobody_requests_changes_no_placement(impl: Any, engine: str, seed: int) -> None:
    chance = random.Random(f"{seed}/{engine}")
    for _ in range(30 if impl is CompiledMatcher else 8):
        dimensions = chance.choice((1, 2, 3))
        pair = Widened(impl, dimensions, chance.randint(0, dimensions), chance.choice((1, 1_000_000, 2**50)), engine)
        scale = chance.choice((1, 1, 2**30))

        def amounts(*of: int, dimensions: int = dimensions, scale: int = scale) -> Amounts:
            return tuple(scale * chance.choice(of) for _ in range(dimensions))

        for _ in range(chance.choice((3, 10, 60))):
            pair.add_host(amounts(0, 4_000, 8_000, 16_000, 128_000))
        shared = [amounts(0, 100, 1_000) for _ in range(2)]
        classes = []
        for _ in range(6):
            key = chance.choice((-1, 0, 1))
            classes.append(pair.add_class(amounts(0, 10, 250, 1_000, 12_000), key, shared[key] if key >= 0 else None))
        live: list[int] = []
        for _ in range(12):
            slots, ids = pair.call("match", np.array(chance.choices(classes, k=chance.choice((1, 30)))))
            live += ids[slots != REFUSED].tolist()
            ended = [live.pop(chance.randrange(len(live))) for _ in range(len(live) // chance.choice((2, 5)))]
            pair.call("release", np.array(ended, dtype=np.int64))
            pair.set_host(chance.randrange(3), amounts(0, 4_000, 8_000, 16_000, 128_000))
            cls = chance.randrange(6)
            pair.call("remove_class", classes[cls])
            classes[cls] = pair.add_class(amounts(0, 10, 250, 1_000, 12_000), -1, None)
        for matcher in pair.matchers:
            matcher.check()


def test_dimension_that_is_hardly_requested_does_not_count(impl: Any) -> None:
    """One port of a thousand and a little disk do not hide that the cpus of the first host are nearly taken."""
    hosts = [units(16, 64, 1_000, 400_000)] * 2
    matcher = impl(4)
    matcher.add_hosts(np.array(hosts))
    matcher.assign(matcher.add_class(units(12, 40, 1, 100)), 0)
    slots, _ = matcher.match(np.array([matcher.add_class(units(1, 2, 1, 100))]))
    assert slots.tolist() == [0]


def test_dimension_that_one_class_in_many_requests_does_not_count(impl: Any) -> None:
    matcher = impl(2)
    for cpus in (8, 8, 8, 16):
        matcher.add_host(units(cpus, 1_000))
    for cpus in range(1, 21):
        matcher.add_class(units(cpus / 10, 0))
    matcher.add_class(units(0.5, 50))
    small, large = matcher.add_class(units(1, 0)), matcher.add_class(units(16, 0))
    slots, _ = matcher.match(np.array([small] * 8 + [large]))
    assert slots.tolist() == [0] * 8 + [3]


def test_task_prefers_the_executor_that_runs(impl: Any) -> None:
    matcher = impl(2)
    matcher.add_hosts(np.array([units(16, 64)] * 3))
    cls = matcher.add_class(units(1, 1), shared_key=0, shared=units(0.1, 0.1))
    matcher.assign(cls, 1)
    slots, _ = matcher.match(np.array([cls] * 14))
    assert slots.tolist() == [1] * 14


def test_executor_starts_where_it_has_room_to_grow(impl: Any) -> None:
    matcher = impl(2)
    matcher.add_hosts(np.array([units(16, 64)] * 2))
    for slot, used in enumerate((13, 5)):
        matcher.assign(matcher.add_class(units(used, 4 * used)), slot)
    request = units(1, 4)
    keyed = matcher.add_class(request, shared_key=0, shared=units(0.1, 0.1))
    slots, _ = matcher.match(np.array([keyed, matcher.add_class(request)]))
    assert slots.tolist() == [1, 0]


def test_executor_starts_on_another_host_rather_than_unbalance_its_own(impl: Any) -> None:
    """The first host has memory only; a task that needs cpus most does not take the last of them."""
    matcher = impl(2)
    matcher.add_hosts(np.array([units(16, 16)] * 2))
    matcher.assign(matcher.add_class(units(14, 2)), 0)
    cls = matcher.add_class(units(2, 0.5), shared_key=0, shared=units(0.001, 0.001))
    matcher.assign(cls, 1)
    matcher.assign(matcher.add_class(units(0, 0), shared_key=0, shared=units(0.001, 0.001)), 0)
    slots, _ = matcher.match(np.array([cls]))
    assert slots.tolist() == [1]


@pytest.mark.parametrize("name", ["P100", "P500"])
@pytest.mark.parametrize("apps", [1, 20, 200])
def test_shared_executors_leave_nothing_unplaced(name: str, apps: int) -> None:
    """At a demand of 97 %, executors not counted. With 200 apps, executors take most of the rest."""
    for seed in range(1, 6):
        mix = quality.MIXES[name](random.Random(f"{name}/{seed}"))
        slots = quality.placed(mix, "even", quality.Sharing(apps, random.Random(seed)))
        assert quality.figures(name, mix, slots)[0] == 0


def test_ports_and_disk_of_agents_change_no_placement(seed: int) -> None:
    """Ports and disk as agents offer them, in the matcher: not one task is placed elsewhere."""
    for name in ("giants", "kinds", "lumps", "leftovers", "P100"):
        mix = quality.MIXES[name](random.Random(f"{name}/{seed}"))
        without = quality.placed(mix, "even")
        assert quality.placed(quality.with_ports_and_disk(mix), "even").tolist() == without.tolist()
