"""The bound on what a packing leaves unplaced is never above what the best of all placements leaves unplaced."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from bench import bound, quality
from numpy.typing import NDArray

pytest.importorskip("scipy")

Ints = NDArray[np.int64]


def least_unplaced(hosts: Ints, tasks: Ints, executor: Ints) -> float:
    """By trying every placement."""
    least = 1.0
    for where in itertools.product(range(-1, len(hosts)), repeat=len(tasks)):
        slots = np.array(where)
        used = [tasks[slots == host].sum(axis=0) + executor * (slots == host).any() for host in range(len(hosts))]
        if (np.array(used) <= hosts).all():
            shares = tasks[slots < 0].sum(axis=0) / np.maximum(tasks.sum(axis=0), 1)
            least = min(least, float(shares.max()))
    return least


def test_bound_is_never_above_the_best_placement(seed: int) -> None:
    chance = random.Random(seed)
    positive = 0
    for _ in range(40):
        hosts = np.array([[chance.randrange(1, 9), chance.randrange(1, 9)] for _ in range(chance.randrange(1, 4))])
        tasks = np.array([[chance.randrange(5), chance.randrange(5)] for _ in range(chance.randrange(1, 6))])
        executor = (chance.randrange(2), chance.randrange(2))
        found, best = bound.unplaced(hosts, tasks, executor), least_unplaced(hosts, tasks, np.array(executor))
        assert found <= best + 1e-6
        positive += found > 0.01
    assert positive > 3


def test_tasks_that_fill_their_hosts_have_no_room_for_an_executor() -> None:
    hosts, tasks = np.array([[8_000]] * 3), np.array([[8_000]] * 2 + [[4_000]] * 2)
    assert bound.unplaced(hosts, tasks) == 0
    assert bound.unplaced(hosts, tasks, (100,)) == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize("name", ["lumps", "leftovers"])
def test_bound_of_a_mix_is_not_above_what_is_placed(name: str) -> None:
    mix = quality.MIXES[name](random.Random(name))
    slots = quality.placed(mix, "even", quality.Sharing(20, random.Random(1)))
    executor = quality.EXECUTOR[: mix[0].shape[1]]
    assert quality.best_figures(name, mix, executor)[0] <= quality.figures(name, mix, slots)[0] + 1e-6
