"""Lower bounds on the number of equal hosts, which certify a plan.

No packing uses fewer hosts than a bound, whatever rules the tasks have. Amounts are integers, so the proofs are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from jobcloud.planning.lp import Weights
from jobcloud.planning.problem import Int64s, Problem

_MAX_CLIQUE_JOBS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Bound:
    """The tasks need at least `hosts` hosts. `how`: the reason in words. `weights`: the proof, if the LP gave it."""

    hosts: int
    how: str
    weights: Weights | None = None


def lower_bound(problem: Problem, kind: int) -> Bound:
    """The best bound that needs no solver, for the tasks of a problem on hosts of one kind."""
    return max(bounds(problem, kind), key=lambda bound: bound.hosts)


def bounds(problem: Problem, kind: int) -> list[Bound]:
    """All bounds that need no solver. Of equal bounds, `lower_bound` takes the first one."""
    found = [
        Bound(_continuous(problem, kind, d), f"all tasks' {name} together") for d, name in enumerate(problem.dimensions)
    ]
    found += [
        Bound(_martello_toth(problem, kind, d), f"large tasks' {name}") for d, name in enumerate(problem.dimensions)
    ]
    found.append(Bound(_pairwise(problem, kind), "tasks of which no two share a host"))
    found.append(Bound(_per_host_limits(problem), "the maximum of tasks of one job on a host"))
    found.append(Bound(_clique(problem, kind), "jobs that keep apart"))
    found.append(Bound(int(problem.tasks > 0), "there is a task"))
    return found


def _continuous(problem: Problem, kind: int, d: int) -> int:
    """⌈Σ size / capacity⌉. Each shared amount counts once, because tasks take it on at least one host."""
    capacity = int(problem.capacity[kind, d])
    total = int(problem.demand[d])
    keys = np.unique(problem.kind_key[(problem.kind_key >= 0) & (problem.counts > 0)])
    total += int(problem.shared[keys, d].sum()) if len(keys) else 0
    return -(-total // capacity) if capacity else 0


def _martello_toth(problem: Problem, kind: int, d: int) -> int:
    """The bound L2 of Martello and Toth, Knapsack Problems (1990), in one dimension: the best over all thresholds a.

    Tasks smaller than a are ignored. A task above capacity - a shares its host with no other task. Of the tasks above
    half of the capacity, no two share a host. The smaller tasks that do not fit next to them need further hosts.
    """
    capacity = int(problem.capacity[kind, d])
    sizes, counts = problem.request[:, d], problem.counts
    if not capacity:
        return 0
    order = np.argsort(sizes, kind="stable")
    sizes, counts = sizes[order], counts[order]
    number = np.concatenate(([0], np.cumsum(counts)))
    total = np.concatenate(([0], np.cumsum(counts * sizes)))
    a = np.unique(np.concatenate(([0], sizes[2 * sizes <= capacity], capacity - sizes[2 * sizes > capacity])))
    a = a[(a >= 0) & (2 * a <= capacity)]
    # Sorted by size: [small[i], half) are small, [half, alone[i]) are large, and those from alone[i] on are alone.
    small, alone = np.searchsorted(sizes, a), np.searchsorted(sizes, capacity - a, side="right")
    half = np.searchsorted(2 * sizes, capacity, side="right")
    room = (number[alone] - number[half]) * capacity - (total[alone] - total[half])
    excess = total[half] - total[small] - room
    hosts = number[-1] - number[half] + np.maximum(0, -(-excess // capacity))
    return int(hosts.max(initial=0))


def _pairwise(problem: Problem, kind: int) -> int:
    """Tasks above half of the host in one dimension need a host each."""
    half = 2 * problem.request > problem.capacity[kind]
    return int((half * problem.counts[:, None]).sum(axis=0).max(initial=0))


def _per_host_limits(problem: Problem) -> int:
    tasks = np.diff(problem.job_first).astype(np.int64)
    limit = np.maximum(problem.max_per_host.astype(np.int64), 1)
    return int((-(-tasks // limit)).max(initial=0))


def _clique(problem: Problem, kind: int) -> int:
    """The hosts of a set of jobs of which no two can share a host. The set is found greedily.

    Two jobs cannot share a host if one of them allows no task of the other next to its own tasks.
    """
    start, other, limit = problem.rules
    tasks = np.diff(problem.job_first).astype(np.int64)
    pairs: dict[int, set[int]] = {}
    for job in range(len(problem.jobs)):
        for n in range(start[job], start[job + 1]):
            if limit[n] == 0:
                pairs.setdefault(job, set()).add(int(other[n]))
                pairs.setdefault(int(other[n]), set()).add(job)
    own = _own_hosts(problem, kind, tasks)
    best = 0
    ranked = sorted((job for job in pairs if tasks[job]), key=lambda job: (-int(own[job]) * len(pairs[job]), job))
    for first in ranked[:_MAX_CLIQUE_JOBS]:
        total, common = int(own[first]), {job for job in pairs[first] if tasks[job]}
        while common:
            job = max(common, key=lambda job: (int(own[job]), -job))
            total += int(own[job])
            common &= pairs[job]
        best = max(best, total)
    return best


def _own_hosts(problem: Problem, kind: int, tasks: Int64s) -> Int64s:
    """int64[J]: the number of hosts that each job needs by itself."""
    own = -(-tasks // np.maximum(problem.max_per_host.astype(np.int64), 1))
    for d in range(len(problem.dimensions)):
        total = np.zeros(len(problem.jobs), dtype=np.int64)
        np.add.at(total, problem.kind_job, problem.counts * problem.request[:, d])
        if problem.capacity[kind, d]:
            own = np.maximum(own, -(-total // problem.capacity[kind, d]))
    return np.asarray(own)
