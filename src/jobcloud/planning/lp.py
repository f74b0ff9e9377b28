"""The configuration LP (Gilmore and Gomory, 1961): the strongest bound, and a start for the best packings.

A pattern is the content of one host. The LP covers the demand with fractions of patterns, on the fewest hosts. There
are too many patterns to list, so useful ones are generated step by step (column generation). scipy's HiGHS solves the
LP over the known patterns. The duals of the solution give the value of a task of each kind. `_pack.Pricer` then
searches for patterns that are worth more than one host. The bound is exact: the duals are rounded to integers, no host
holds tasks worth more than a proven maximum, and the bound is the value of the whole demand divided by this maximum
(Farley, 1990).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from jobcloud.planning._pack import Pricer
from jobcloud.planning.problem import Floats, Int32s, Int64s

_SCALE: Final = 10**9
_SMOOTHING: Final = 0.6
_QUICK_NODES: Final = 20_000
_ALL_NODES: Final = 400_000
_MAX_ROUNDS: Final = 2_000
_MORE: Final = 1e-7
_TOLERANCE: Final = 1e-6
_MAX_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A certificate: the value of a task of each kind, chosen so that no host holds tasks worth more than `max_value`.

    To check the certificate, fill one host for the greatest value. The demand is worth `total`, so the tasks need at
    least total / max_value hosts. All numbers are integers.
    """

    weights: tuple[int, ...]
    max_value: int
    total: int

    @property
    def hosts(self) -> int:
        return -(-self.total // self.max_value) if self.max_value else 0


def available() -> bool:
    """Whether scipy is installed."""
    from importlib.util import find_spec

    return find_spec("scipy") is not None


@dataclass(slots=True)
class ConfigurationLp:
    """The LP over patterns of one host kind. `solve` adds patterns until no further pattern improves the LP.

    `limit` int32[K]: the maximum of each kind on a host. `patterns`: initial patterns, if known.
    """

    capacity: Int64s
    request: Int64s
    limit: Int32s
    patterns: list[Int32s] = field(default_factory=list)
    value: float = 0.0
    shares: Floats = field(default_factory=lambda: np.zeros(0))
    weights: Weights = field(default_factory=lambda: Weights((), 1, 0))
    complete: bool = False
    rounds: int = 0
    _pricer: Pricer = field(init=False)
    _known: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._pricer = Pricer(self.capacity, self.request)
        given, self.patterns = self.patterns, []
        for pattern in given:
            self._add(pattern)
        fits = np.where(self.request > 0, self.capacity // np.maximum(self.request, 1), 1 << 30).min(axis=1)
        for kind, count in enumerate(np.minimum(fits, self.limit)):
            pattern = np.zeros(len(self.request), dtype=np.int32)
            pattern[kind] = count
            self._add(pattern)

    def _add(self, pattern: Int32s) -> bool:
        pattern = np.ascontiguousarray(pattern, dtype=np.int32)
        key = pattern.tobytes()
        if key in self._known or not pattern.any():
            return False
        self._known.add(key)
        self.patterns.append(pattern)
        return True

    def solve(self, counts: Int64s, deadline: float, *, exact: bool = True, rounds: int = _MAX_ROUNDS) -> None:
        """Extend and solve the LP for a demand int64[K]. Sets `value`, `shares` (of `patterns`) and `weights`.

        Without `exact`, the search for patterns is short, and `weights` stays as it is.
        """
        limit = np.minimum(self.limit, counts).astype(np.int32)
        centre: Floats | None = None
        best_bound = 0.0
        for _ in range(rounds):
            self.rounds += 1
            self.value, self.shares, duals = self._master(counts)
            if time.monotonic() > deadline:
                break
            smooth = duals if centre is None else _SMOOTHING * centre + (1 - _SMOOTHING) * duals
            helped, bound, weights = self._price(smooth, duals, limit, counts, deadline, exact=False)
            if bound > best_bound:
                best_bound, centre = bound, smooth
                self.weights = weights if exact else self.weights
            if not helped and smooth is not duals:
                helped, bound, weights = self._price(duals, duals, limit, counts, deadline, exact=False)
                if bound > best_bound:
                    best_bound, centre = bound, duals
                    self.weights = weights if exact else self.weights
            if not helped and exact:
                helped, bound, weights = self._price(duals, duals, limit, counts, deadline, exact=True)
                if bound > best_bound:
                    best_bound, centre, self.weights = bound, duals, weights
            if not helped or (exact and self.weights.hosts >= self.value - _MORE):
                self.complete = exact and not helped
                break

    def _price(
        self, weights: Floats, duals: Floats, limit: Int32s, counts: Int64s, deadline: float, *, exact: bool
    ) -> tuple[bool, float, Weights]:
        """Search for patterns with `weights`. Add those that improve the LP with `duals`.

        Returns whether a pattern was added, the bound, and its certificate.
        """
        whole = np.floor(np.maximum(weights, 0) * _SCALE).astype(np.int64)
        threshold = _SCALE if weights is duals else int(_SCALE * 0.5)
        nodes = _ALL_NODES if exact else _QUICK_NODES
        max_value, patterns = self._pricer.price(whole, limit, threshold, nodes)
        if exact and self._pricer.nodes > nodes:
            lower, better = self._dearest(whole, limit, deadline)
            max_value, patterns = min(max_value, max(lower, threshold)), np.concatenate((patterns, better))
        helped = False
        for pattern in patterns:
            if float(duals @ pattern) > 1 + _MORE and self._add(pattern):
                helped = True
        total = int(sum(int(w) * int(n) for w, n in zip(whole, counts, strict=True)))
        return helped, total / max_value, Weights(tuple(int(w) for w in whole), max_value, total)

    def _dearest(self, worth: Int64s, limit: Int32s, deadline: float) -> tuple[int, Int32s]:
        """Like `Pricer.price`, by HiGHS' branch and cut, for hosts with too many tasks for plain branch and bound."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        used = self.capacity > 0
        sizes = (self.request[:, used] / self.capacity[used]).T
        allowed = np.where((self.request[:, ~used] > 0).any(axis=1), 0, limit)
        result = milp(
            -worth / _SCALE,
            constraints=LinearConstraint(sizes, ub=np.ones(len(sizes))),
            integrality=np.ones(len(worth)),
            bounds=Bounds(0, allowed),
            options={"time_limit": max(0.1, min(_MAX_SECONDS, deadline - time.monotonic())), "mip_rel_gap": 0.0},
        )
        # The margin exceeds HiGHS' tolerances. A bound that is too high is still valid; a bound that is too low is not.
        known = result.mip_dual_bound is not None and np.isfinite(result.mip_dual_bound)
        bound = int(-result.mip_dual_bound * _SCALE * (1 + _TOLERANCE)) + 1 if known else 1 << 62
        if result.x is None:
            return bound, np.zeros((0, len(worth)), dtype=np.int32)
        pattern = np.round(result.x).astype(np.int32)
        fits = bool((pattern @ self.request <= self.capacity).all() and (pattern <= limit).all())
        return bound, pattern[None, :][: int(fits)]

    def _master(self, counts: Int64s) -> tuple[float, Floats, Floats]:
        from scipy.optimize import linprog
        from scipy.sparse import csc_array

        matrix = csc_array(np.array(self.patterns, dtype=np.float64).T)
        result = linprog(np.ones(len(self.patterns)), A_ub=-matrix, b_ub=-counts.astype(np.float64), method="highs-ds")
        if result.x is None:
            raise ArithmeticError(f"the LP was not solved: {result.message}")
        return float(result.fun), result.x, -result.ineqlin.marginals

    def integral(self, counts: Int64s, seconds: float) -> list[tuple[Int32s, int]]:
        """The best integer solution over the known patterns that branch and cut finds in time; [] if it finds none."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csc_array

        result = milp(
            np.ones(len(self.patterns)),
            constraints=LinearConstraint(csc_array(np.array(self.patterns, dtype=np.float64).T), lb=counts),
            integrality=np.ones(len(self.patterns)),
            bounds=Bounds(0, np.inf),
            options={"time_limit": max(0.1, seconds)},
        )
        return [] if result.x is None else self._cut_to(counts, np.round(result.x))

    def whole(self, counts: Int64s) -> list[tuple[Int32s, int]]:
        """The whole hosts in the LP's solution, within the demand int64[K]: patterns int32[K] with numbers of hosts."""
        return self._cut_to(counts, np.floor(self.shares + _MORE))

    def _cut_to(self, counts: Int64s, times_each: Floats) -> list[tuple[Int32s, int]]:
        rest, chosen = counts.copy(), list[tuple[Int32s, int]]()
        for at in np.argsort(-times_each, kind="stable"):
            pattern, copies = self.patterns[at], int(times_each[at])
            held = pattern > 0
            # If the LP covers more than the demand, the last hosts hold less than their pattern.
            full = min(copies, int((rest[held] // pattern[held]).min()))
            for part, times in ((pattern, full), (np.minimum(pattern, rest - full * pattern), int(copies > full))):
                if times and part.any():
                    chosen.append((part.astype(np.int32), times))
                    rest -= times * part.astype(np.int64)
        return chosen
