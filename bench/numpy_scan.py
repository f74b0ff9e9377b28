"""A reference for comparison: a careful scan in numpy for the default fitness, `even`."""

from __future__ import annotations

import numpy as np
from bench import workloads
from numpy.typing import NDArray

from jobcloud.match import REFUSED

INFEASIBLE = 2**31 - 1


class NumpyScan:
    """Works on D x H int64 arrays: a mask of feasible hosts, the score of docs/matcher.md, the first lowest."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.free = np.ascontiguousarray(workload.hosts.T)
        self.capacity = self.free.copy()
        self.known = self.capacity > 0
        bits = np.maximum(_bits(self.capacity), 5)
        self.scale = np.where(self.known, (1 << (bits + 15)) // np.maximum(self.capacity, 1), 0)
        self.down = bits - 5
        self.had = np.zeros_like(self.free)
        self.relative = np.zeros_like(self.free)
        self.least = np.zeros(self.free.shape[1], dtype=np.int64)
        self.entry = np.zeros_like(self.least)  # the fixed cost of a host
        medians = [np.sort(row[row > 0]) for row in self.capacity]
        self.medians = _highest_bits(np.array([row[len(row) // 2] if len(row) else 0 for row in medians]))
        self.counted = self._counted(workload.requests)
        self.size = self._sizes()
        self.large = 2**12 * np.maximum(_bits(self.size) - 12, 0)
        self._refresh(slice(None))
        shifts = np.maximum(_bits(workload.requests) - 16, 0)
        self.needs = list(zip(workload.requests, workload.requests >> shifts, shifts, strict=True))

    def place(self, tasks: NDArray[np.int64]) -> NDArray[np.int32]:
        return np.array([self._place_one(*self.needs[cls]) for cls in tasks], dtype=np.int32)

    def _place_one(self, request: NDArray[np.int64], mantissa: NDArray[np.int64], shift: NDArray[np.int64]) -> int:
        fits = (self.free >= request[:, None]).all(axis=0)
        asked = np.where(self.known, (mantissa[:, None] * self.scale) >> np.maximum(self.down - shift[:, None], 0), 0)
        score = ((self.least - (self.had - asked).min(axis=0)) * self.size >> 11) + self.entry
        score += (((asked >> 6) * self.relative).sum(axis=0) < 0) * 2**14
        for d in np.flatnonzero(request == 0):
            score += (self.relative[d] > -7 * 128) * 2**16
        score[~fits] = INFEASIBLE
        slot = int(score.argmin())
        if score[slot] == INFEASIBLE:
            return REFUSED
        self.free[:, slot] -= request
        self._refresh(slice(slot, slot + 1))
        return slot

    def _refresh(self, at: slice) -> None:
        free = self.free[:, at]
        shift = np.maximum(_bits(free) - 16, 0)
        share = ((free >> shift) * self.scale[:, at]) >> np.maximum(self.down[:, at] - shift, 0)
        share = np.where((free == self.capacity[:, at]) & ~self.counted[:, None], 2**20, share)
        largest = share[self.counted].max(axis=0, initial=0)
        of_largest = np.where(largest > 0, 2**27 // np.maximum(largest, 1), 0)
        in_128ths = np.where(self.counted[:, None], share * of_largest >> 20, 56 * (share >= 2**13)) * self.known[:, at]
        self.had[:, at] = np.where(self.known[:, at], share, 2**20)
        self.relative[:, at] = 16 * in_128ths - 7 * 128
        untouched = (free == self.capacity[:, at]).all(axis=0)
        self.least[at] = self.had[:, at].min(axis=0)
        self.entry[at] = 2**13 * untouched + self.large[at]

    def _sizes(self) -> NDArray[np.int64]:
        """The size of each host: the mean of its capacities in units of 2**-11 of the medians, to 6 bits."""
        capacity, known = self.capacity[self.counted], self.known[self.counted].sum(axis=0)
        relative = np.minimum(capacity * 2**11 // self.medians[self.counted, None], 2**17 - 1)
        return _highest_bits(np.maximum(relative.sum(axis=0) // np.maximum(known, 1), 2**5))

    def _counted(self, requests: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each dimension counts: whether it has a sixteenth of the most votes of the classes."""
        shares = np.where(self.medians > 0, requests * 2**20 // np.maximum(self.medians, 1), 0)
        votes = (shares * 2**10 // np.maximum(shares.max(axis=1, keepdims=True), 1)).sum(axis=0)
        counted: NDArray[np.bool_] = 16 * votes >= max(1, int(votes.max()))
        return counted


def _highest_bits(amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    low = np.maximum(_bits(amounts) - 6, 0)
    return amounts >> low << low


def _bits(amounts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bit length of each amount; exact below 2**53."""
    return np.frexp(amounts.astype(np.float64))[1].astype(np.int64)
