"""Finds the cheapest mix of hosts of several types, and a lower bound for its price.

The first mixes come from the answers for single types: the hosts of one type, and the hosts of other types for the
tasks that cannot run on it. So no answer is dearer than all of them together. Further fleets come from a relaxation:
the numbers of hosts are whole, the tasks are divided among the types, and only totals count. Its optimum is also the
bound. Then single hosts are left out or replaced by cheaper ones, as long as all tasks find room.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobcloud.planning.lp import available
from jobcloud.planning.packing import Fewest, Packing, Progress, fewest, place
from jobcloud.planning.problem import Floats, Int32s, Int64s, Problem

_MAX_PAIRS: Final = 30_000
_MAX_LIMITED_JOBS: Final = 200
_NODES: Final = 1_000
_TOLERANCE: Final = 1e-6
#: The shares of each host that fleets leave free, because tasks are not divisible.
_SLACKS: Final = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2)
_MAX_REPLACED: Final = 3
_CENTS: Final = 100


@dataclass(frozen=True, slots=True)
class PriceBound:
    """No mix costs less than `price`. `how`: the reason in words."""

    price: float
    how: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """The cheapest mix that was found, and the bound. If no type has a price, each host costs 1.

    `proven`: whether no mix is cheaper.
    """

    packing: Packing
    bound: PriceBound
    proven: bool


def costs_of(problem: Problem) -> Floats:
    """float64[T]: the price of a host of each kind; 1 for all if no kind has a price."""
    prices = np.array([kind.price for kind in problem.host_kinds], dtype=np.float64)
    return prices if prices.any() else np.ones(len(prices))


def cheapest(
    problem: Problem,
    types: Sequence[int],
    answers: Sequence[Fewest],
    *,
    seconds: float = 10.0,
    seed: int = 1,
    progress: Progress | None = None,
) -> Mixed:
    """The cheapest mix of host kinds (`types`) for all tasks that can run on any of them. `answers`: for each kind.

    Tasks without a host in the mix are untried, or can run on none of the types.
    """
    end, costs = time.monotonic() + seconds, costs_of(problem)
    pairs = _Pairs(problem, types)

    def left(share: float) -> float:
        return max(0.0, end - time.monotonic()) * share

    def worth(packing: Packing) -> tuple[int, float]:
        return packing.unplaced, float(costs[packing.hosts].sum())

    candidates = [*_unions(problem, types, answers, costs)]
    candidates.append(_each_on_its_cheapest(problem, types, pairs, costs, left(0.3), seed, progress))
    best = min(candidates, key=worth)
    bound = pairs.bound_of_shares(costs)
    unable = problem.tasks - int(problem.counts[pairs.able.any(axis=1)].sum())
    if pairs.solvable:
        for slack in _SLACKS:
            fleet, price = pairs.fleet(costs, slack, left(0.2))
            if not slack and price > bound.price:
                bound = PriceBound(price, "the totals of the tasks, in whole hosts")
            if fleet is None or (float(costs[fleet].sum()) >= worth(best)[1] and best.unplaced <= unable):
                break
            found = place(problem, fleet, seconds=left(0.2), seed=seed, progress=progress).compact()
            best = min(best, found, key=worth)
            if found.unplaced <= unable:
                break
    bound = PriceBound(_attainable(bound.price, costs[list(types)]), bound.how)
    if best.unplaced <= unable:
        best = _cheaper(problem, types, best, costs, bound.price, left, seed, progress)
    return Mixed(best, bound, not best.untried and worth(best)[1] <= bound.price)


def _unions(problem: Problem, types: Sequence[int], answers: Sequence[Fewest], costs: Floats) -> Iterator[Packing]:
    """The hosts of one type's answer, and those of the other answers that the other tasks need, cheaper types first."""
    for first in range(len(types)):
        order = sorted(range(len(types)), key=lambda n: (n != first, costs[types[n]], n))
        hosts, host_of = np.zeros(0, dtype=np.int32), np.full(problem.tasks, -1, dtype=np.int32)
        for n in order:
            answer = answers[n].packing
            rest = Packing(answer.hosts, np.where(host_of < 0, answer.host_of, np.int32(-1))).compact()
            host_of = np.where(rest.host_of >= 0, rest.host_of + np.int32(len(hosts)), host_of)
            hosts = np.concatenate((hosts, rest.hosts))
        yield Packing(hosts, host_of)


def _each_on_its_cheapest(
    problem: Problem,
    types: Sequence[int],
    pairs: _Pairs,
    costs: Floats,
    seconds: float,
    seed: int,
    progress: Progress | None,
) -> Packing:
    """Each kind of tasks on the type on which its largest share of a host costs least, by as few hosts as possible."""
    shares = np.where(pairs.able, pairs.shares.max(axis=2, initial=0.0) * costs[list(types)], np.inf)
    chosen = np.where(pairs.able.any(axis=1), shares.argmin(axis=1), -1)
    hosts, host_of = np.zeros(0, dtype=np.int32), np.full(problem.tasks, -1, dtype=np.int32)
    for n, kind in enumerate(types):
        part = problem.with_counts(np.where(chosen == n, problem.counts, 0))
        if part.tasks:
            found = fewest(part, kind, seconds=seconds / len(types), seed=seed, progress=progress).packing
            moved = np.where(found.host_of >= 0, found.host_of + np.int32(len(hosts)), found.host_of)
            host_of[(chosen == n)[problem.kind_of_tasks()]] = moved
            hosts = np.concatenate((hosts, found.hosts))
    return Packing(hosts, host_of)


def _cheaper(
    problem: Problem,
    types: Sequence[int],
    best: Packing,
    costs: Floats,
    bound: float,
    left: Callable[[float], float],
    seed: int,
    progress: Progress | None,
) -> Packing:
    """Leave out hosts or replace them by cheaper ones, the largest saving first, until nothing is found."""
    used = [kind for kind in types if costs[kind] > 0]
    moves = [(one, 1, one, 0) for one in used]
    moves += [
        (one, out, other, into)
        for one, other in itertools.permutations(types, 2)
        for out in range(1, _MAX_REPLACED + 1)
        for into in range(1, _MAX_REPLACED + 1)
        if math.gcd(out, into) == 1 and into * costs[other] < out * costs[one]
    ]
    moves.sort(key=lambda move: move[3] * costs[move[2]] - move[1] * costs[move[0]])
    improved = True
    while improved:
        improved = False
        for one, out, other, into in moves:
            price = float(costs[best.hosts].sum())
            saving = out * costs[one] - into * costs[other]
            if price - saving < bound * (1 - _TOLERANCE) or int((best.hosts == one).sum()) < out:
                continue
            if not left(1.0):
                return best
            start = _replaced(problem, best, one, out, other, into)
            found = place(problem, start.hosts, start=start, seconds=left(0.2), seed=seed, progress=progress)
            if found.unplaced <= best.unplaced:
                best, improved = found.compact(), True
                break
    return best


def _replaced(problem: Problem, packing: Packing, one: int, out: int, other: int, into: int) -> Packing:
    """The packing without the emptiest `out` hosts of the kind `one`, with `into` new hosts of the kind `other`."""
    hosts = np.flatnonzero(packing.hosts == one)
    free = packing.free(problem)[hosts] / np.maximum(problem.capacity[one], 1)
    emptiest = hosts[np.argsort(-free.sum(axis=1), kind="stable")[:out]]
    rest = packing.without(emptiest)
    return Packing(np.concatenate((rest.hosts, np.full(into, other, dtype=np.int32))), rest.host_of)


def _attainable(price: float, costs: Floats) -> float:
    """The lowest price of whole hosts that is not below `price`, if all prices are multiples of a cent."""
    cents = np.round(costs * _CENTS)
    if not cents.any() or not np.allclose(cents, costs * _CENTS, rtol=0, atol=_TOLERANCE):
        return price
    unit = int(np.gcd.reduce(cents.astype(np.int64)))
    return math.ceil(price * _CENTS * (1 - _TOLERANCE) / unit) * unit / _CENTS


class _Pairs:
    """The kinds of tasks (K with tasks or without), and the types (T) on which they can run."""

    def __init__(self, problem: Problem, types: Sequence[int]) -> None:
        self._problem, self._types = problem, list(types)
        capacity = problem.capacity[self._types]
        #: float64[K, T, D]: the share of a host that a task takes, without shared amounts
        self.shares: Floats = problem.request[:, None, :] / np.maximum(capacity, 1)[None, :, :]
        fits = (problem.needs()[:, None, :] <= capacity[None, :, :]).all(axis=2)
        #: bool[K, T]
        self.able: NDArray[np.bool_] = fits & (problem.allowed[:, self._types] > 0)
        self.able &= (problem.counts > 0)[:, None] & (problem.max_per_host[problem.kind_job] > 0)[:, None]

    @property
    def solvable(self) -> bool:
        """Whether a solver is installed and the relaxation is small enough for it."""
        return available() and 0 < int(self.able.sum()) <= _MAX_PAIRS

    def bound_of_shares(self, costs: Floats) -> PriceBound:
        """Each task costs at least its share of the cheapest host for it, in any one dimension."""
        if not self.able.any() or not len(self._problem.dimensions):
            return PriceBound(0.0, "there is no task")
        each = np.where(self.able[:, :, None], self.shares * costs[self._types][None, :, None], np.inf).min(axis=1)
        some = self.able.any(axis=1)
        totals = self._problem.counts[some] @ each[some]
        d = int(totals.argmax())
        return PriceBound(float(totals[d]) * (1 - _TOLERANCE), f"all tasks' {self._problem.dimensions[d]} together")

    def fleet(self, costs: Floats, slack: float, seconds: float) -> tuple[Int32s | None, float]:
        """The cheapest hosts (int32[H], kinds) for the totals of the tasks, and a lower bound for their price.

        Each host leaves the share `slack` free. None if the solver finds no fleet within its limits.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        problem, counts = self._problem, self._problem.counts
        at_kind, at_type = np.nonzero(self.able)
        divided, types = len(at_kind), len(self._types)
        number = np.full(len(counts), -1)
        some = np.flatnonzero(self.able.any(axis=1))
        number[some] = np.arange(len(some))
        each = _matrix(np.ones(divided), number[at_kind], np.arange(divided), (len(some), divided + types))
        rows: list[tuple[Floats, Int64s, Floats]] = []
        for d in range(len(problem.dimensions)):
            share = self.shares[at_kind, at_type, d]
            rows.append((share, at_type, np.full(types, 1.0 - slack)))
            # Of the tasks that take more than half of a host, each needs one of its own.
            rows.append(((share > 0.5).astype(np.float64), at_type, np.ones(types)))
        jobs = problem.kind_job[at_kind]
        tasks = np.diff(problem.job_first)
        for job in np.flatnonzero(problem.max_per_host < tasks)[:_MAX_LIMITED_JOBS].tolist():
            of_job = (jobs == job).astype(np.float64)
            rows.append((of_job, at_type, np.full(types, float(problem.max_per_host[job]))))
        limits = [self._row(*row, divided) for row in rows]
        upper = np.concatenate((counts[at_kind], np.full(types, float(counts.sum()))))
        result = milp(
            np.concatenate((np.zeros(divided), costs[self._types])),
            constraints=[
                LinearConstraint(each, counts[some], counts[some]),
                *(LinearConstraint(limit, ub=np.zeros(types)) for limit in limits),
            ],
            integrality=np.concatenate((np.zeros(divided), np.ones(types))),
            bounds=Bounds(0, upper),
            options={"node_limit": _NODES, "time_limit": max(0.1, seconds), "mip_rel_gap": 0.0},
        )
        known = result.mip_dual_bound is not None and np.isfinite(result.mip_dual_bound)
        bound = float(result.mip_dual_bound) * (1 - _TOLERANCE) if known else 0.0
        if result.x is None:
            return None, bound
        hosts = np.round(result.x[divided:]).astype(np.int64)
        return np.repeat(np.array(self._types, dtype=np.int32), hosts), bound

    def _row(self, share: Floats, at_type: Int64s, room: Floats, divided: int) -> Any:
        """The constraint of each type: its tasks take no more than its hosts have."""
        types = len(self._types)
        values = np.concatenate((share, -room))
        rows = np.concatenate((at_type, np.arange(types)))
        return _matrix(values, rows, np.arange(divided + types), (types, divided + types))


def _matrix(values: Floats, rows: Int64s, columns: Int64s, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csc_array

    return csc_array((values, (rows, columns)), shape=shape)
