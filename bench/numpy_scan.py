"""The yardstick: the scan that a careful numpy user would write for the default fitness."""

from __future__ import annotations

import numpy as np
from bench import workloads
from numpy.typing import NDArray

from jobcloud.match import REFUSED


class NumpyScan:
    """Best fit over D x H int64 arrays: a mask of what fits, the same integer score, the first lowest."""

    def __init__(self, workload: workloads.Workload) -> None:
        self.free = np.ascontiguousarray(workload.hosts.T)
        self.weight = np.where(self.free > 0, 2**52 // np.maximum(self.free, 1), 0)
        self.requests = workload.requests

    def place(self, tasks: NDArray[np.int64]) -> NDArray[np.int32]:
        return np.array([self._place_one(self.requests[cls]) for cls in tasks], dtype=np.int32)

    def _place_one(self, request: NDArray[np.int64]) -> int:
        left = self.free - request[:, None]
        score = ((left * self.weight) >> 32).sum(axis=0)
        score[(left < 0).any(axis=0)] = 2**31 - 1
        slot = int(score.argmin())
        if score[slot] == 2**31 - 1:
            return REFUSED
        self.free[:, slot] -= request
        return slot
