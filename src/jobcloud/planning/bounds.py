"""Lower bounds on the number of equal hosts: the certificate beside a plan.

Each is a number of hosts that no packing goes below, whatever the rules. Amounts are integers, and so are the proofs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from jobcloud.planning.lp import Weights
from jobcloud.planning.problem import Int64s, Problem

_MOST_CLIQUE_JOBS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Bound:
    """At least so many hosts; `how` says why in words. `weights`: the proof where it is one of the LP."""

    hosts: int
    how: str
    weights: Weights | None = None


def lower_bound(problem: Problem, kind: int) -> Bound:
    """The best of the bounds that need no solver, for the tasks of a problem on hosts of one kind."""
    return max(bounds(problem, kind), key=lambda bound: bound.hosts)


def bounds(problem: Problem, kind: int) -> list[Bound]:
    """All of them, the simplest first."""
    found = [
        Bound(_continuous(problem, kind, d), f"all tasks' {name} together") for d, name in enumerate(problem.dimensions)
    ]
    found += [
        Bound(_martello_toth(problem, kind, d), f"large tasks' {name}") for d, name in enumerate(problem.dimensions)
    ]
    found.append(Bound(_pairwise(problem, kind), "tasks of which no two share a host"))
    found.append(Bound(_per_host_limits(problem), "the most tasks of one job on a host"))
    found.append(Bound(_clique(problem, kind), "jobs that keep apart"))
    found.append(Bound(int(problem.tasks > 0), "there is a task"))
    return found


def _continuous(problem: Problem, kind: int, d: int) -> int:
    """⌈Σ size / capacity⌉; a shared amount is paid on one host at least."""
    capacity = int(problem.capacity[kind, d])
    total = int(problem.demand[d])
    keys = np.unique(problem.kind_key[(problem.kind_key >= 0) & (problem.counts > 0)])
    total += int(problem.shared[keys, d].sum()) if len(keys) else 0
    return -(-total // capacity) if capacity else 0


def _martello_toth(problem: Problem, kind: int, d: int) -> int:
    """L2 of Martello and Toth, Knapsack Problems (1990), in one dimension, the best over the thresholds a.

    Tasks above capacity - a stand alone among those of at least a; those above half need a host each; what the
    smaller ones ask beyond the room beside them needs further hosts.
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
    # In order of size: [small[i], half) are small, [half, alone[i]) large, from alone[i] on each stands alone.
    small, alone = np.searchsorted(sizes, a), np.searchsorted(sizes, capacity - a, side="right")
    half = np.searchsorted(2 * sizes, capacity, side="right")
    beside = (number[alone] - number[half]) * capacity - (total[alone] - total[half])
    excess = total[half] - total[small] - beside
    hosts = number[-1] - number[half] + np.maximum(0, -(-excess // capacity))
    return int(hosts.max(initial=0))


def _pairwise(problem: Problem, kind: int) -> int:
    """Tasks above half of the host in some dimension each: those of one dimension need a host each."""
    half = 2 * problem.request > problem.capacity[kind]
    return int((half * problem.counts[:, None]).sum(axis=0).max(initial=0))


def _per_host_limits(problem: Problem) -> int:
    tasks = np.diff(problem.job_first).astype(np.int64)
    most = np.maximum(problem.most.astype(np.int64), 1)
    return int((-(-tasks // most)).max(initial=0))


def _clique(problem: Problem, kind: int) -> int:
    """Jobs of which no two ever share a host, found greedily: each needs its own hosts.

    Two keep apart where one bears none of the other beside it.
    """
    start, other, most = problem.rules
    tasks = np.diff(problem.job_first).astype(np.int64)
    pairs: dict[int, set[int]] = {}
    for job in range(len(problem.jobs)):
        for n in range(start[job], start[job + 1]):
            if most[n] == 0:
                pairs.setdefault(job, set()).add(int(other[n]))
                pairs.setdefault(int(other[n]), set()).add(job)
    own = _own_hosts(problem, kind, tasks)
    best = 0
    ranked = sorted((job for job in pairs if tasks[job]), key=lambda job: (-int(own[job]) * len(pairs[job]), job))
    for first in ranked[:_MOST_CLIQUE_JOBS]:
        total, common = int(own[first]), {job for job in pairs[first] if tasks[job]}
        while common:
            job = max(common, key=lambda job: (int(own[job]), -job))
            total += int(own[job])
            common &= pairs[job]
        best = max(best, total)
    return best


def _own_hosts(problem: Problem, kind: int, tasks: Int64s) -> Int64s:
    """int64[J]: hosts that each job needs for itself alone."""
    own = -(-tasks // np.maximum(problem.most.astype(np.int64), 1))
    for d in range(len(problem.dimensions)):
        total = np.zeros(len(problem.jobs), dtype=np.int64)
        np.add.at(total, problem.kind_job, problem.counts * problem.request[:, d])
        if problem.capacity[kind, d]:
            own = np.maximum(own, -(-total // problem.capacity[kind, d]))
    return np.asarray(own)
