"""Lower bounds on what a packing leaves unplaced: no placement of all tasks at once, however it is found, does better.

The bound is that of the configuration LP (Gilmore and Gomory, 1961), with hosts of several kinds and tasks that may
stay unplaced. A pattern is the content of one host. If tasks share executors, each pattern has room for one executor,
because a host with tasks runs at least one. The LP is solved by column generation. The bound does not depend on the
precision of the solver: its duals are rounded to integers, and the value of the best pattern for them is bounded from
above with integers (Lasdon, *Optimization Theory for Large Systems*, 1970, chapter 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from jobcloud.planning._pack import Pricer

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SCALE = 10**9
NODES = 20_000
ROUNDS = 300
SMALL = 1e-7


class _Hosts:
    """Equal hosts and the patterns known for them."""

    def __init__(self, capacity: Ints, count: int, sizes: Ints, executor: Ints, tasks: Ints) -> None:
        room = capacity - executor
        self.count = count
        self.limit = np.zeros(len(sizes), dtype=np.int32)
        if room.min() >= 0:
            fits = np.where(sizes > 0, room // np.maximum(sizes, 1), 1 << 30).min(axis=1)
            self.limit = np.minimum(fits, tasks).astype(np.int32)
        self.pricer = Pricer(np.maximum(room, 0), sizes)
        self.patterns: dict[bytes, NDArray[np.int32]] = {}
        for kind in np.flatnonzero(self.limit):
            self.add(np.where(np.arange(len(sizes)) == kind, self.limit, 0))

    def add(self, pattern: NDArray[np.int32]) -> None:
        self.patterns.setdefault(pattern.tobytes(), pattern)

    def best(self, values: Ints, at_least: int) -> int:
        """An upper bound on the value of a pattern, or ``at_least`` if this is higher. Keeps the patterns found."""
        bound, patterns = self.pricer.price(values, self.limit, at_least, NODES)
        for pattern in patterns:
            self.add(pattern)
        return int(bound)


def unplaced(hosts: Ints, tasks: Ints, executor: Sequence[int] | None = None) -> float:
    """A lower bound on the part of the demand that is not placed, 0 to 1, in the dimension in which it is largest.

    ``hosts`` int64[H, D], ``tasks`` int64[T, D]; ``executor``: amounts of one executor on each host with tasks.
    """
    total = tasks.sum(axis=0)
    if not total.any():
        return 0.0
    sizes, counts = np.unique(tasks, axis=0, return_counts=True)
    shares = np.where(total > 0, sizes / np.maximum(total, 1), 0.0)
    once = np.zeros(hosts.shape[1], dtype=np.int64) if executor is None else np.array(executor, dtype=np.int64)
    equal = zip(*np.unique(hosts, axis=0, return_counts=True), strict=True)
    kinds = [_Hosts(row, int(number), sizes, once, counts) for row, number in equal]
    best = 0.0
    for _ in range(ROUNDS):
        value, prices, values, weights = _solved(kinds, counts, shares)
        known = sum(len(kind.patterns) for kind in kinds)
        best = max(best, _certified(kinds, prices, values, weights, sizes, counts, total))
        if value - best < SMALL or known == sum(len(kind.patterns) for kind in kinds):
            break
    return best


def _solved(kinds: list[_Hosts], counts: Ints, shares: Floats) -> tuple[float, Floats, Floats, Floats]:
    """The LP over the known patterns: the unplaced part, and the duals of hosts, tasks and dimensions."""
    from scipy.optimize import linprog
    from scipy.sparse import bmat, csc_array, eye_array

    columns: list[NDArray[np.int32]] = []
    of: list[int] = []
    for at, kind in enumerate(kinds):
        columns += kind.patterns.values()
        of += [at] * len(kind.patterns)
    n, t, h, d = len(columns), len(counts), len(kinds), shares.shape[1]
    patterns = csc_array(np.array(columns, dtype=np.float64).reshape(n, t).T)
    which = csc_array((np.ones(n), (of, np.arange(n))), shape=(h, n))
    matrix = bmat(
        [
            [which, None, csc_array((h, 1))],
            [-patterns, -eye_array(t), None],
            [None, csc_array(shares.T), csc_array(-np.ones((d, 1)))],
        ],
        format="csc",
    )
    limits = np.concatenate(([kind.count for kind in kinds], -counts, np.zeros(d)))
    cost = np.zeros(n + t + 1)
    cost[-1] = 1
    result = linprog(cost, A_ub=matrix, b_ub=limits, method="highs-ds")
    if result.x is None:
        raise ArithmeticError(f"the LP was not solved: {result.message}")
    duals = np.maximum(-result.ineqlin.marginals, 0)
    return float(result.fun), duals[:h], duals[h : h + t], duals[h + t :]


def _certified(
    kinds: list[_Hosts], prices: Floats, values: Floats, weights: Floats, sizes: Ints, counts: Ints, total: Ints
) -> float:
    """The bound of these duals, rounded to integers. Adds patterns that are worth more than their hosts cost.

    The weights of the dimensions add up to 1, and a task is worth at most its weighted shares of the demand. So the
    unplaced tasks are worth at most the largest share that is not placed.
    """
    given = [Fraction(round(float(weight) * SCALE), SCALE) for weight in weights]
    if sum(given) == 0:
        given = [Fraction(int(amount > 0)) for amount in total]
    of_all = [weight / sum(given) / max(int(amount), 1) for weight, amount in zip(given, total, strict=True)]
    most = [sum(part * amount for part, amount in zip(of_all, row, strict=True)) for row in sizes.tolist()]
    worth = [int(min(Fraction(float(value)), limit) * SCALE) for value, limit in zip(values, most, strict=True)]
    demand = sum(value * int(count) for value, count in zip(worth, counts, strict=True))
    rounded = np.array(worth, dtype=np.int64)
    held = [
        kind.count * kind.best(rounded, int(float(price) * SCALE)) for kind, price in zip(kinds, prices, strict=True)
    ]
    return max(0.0, (demand - sum(held)) / SCALE)
