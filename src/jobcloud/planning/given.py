"""Uses as few of the given hosts as a search finds.

The first packings are answers for single types and for their mix, if as many hosts of these types exist. Then all tasks
are packed on the largest hosts, and the emptiest hosts are emptied, as long as no further task loses its host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from jobcloud.planning.packing import Packing, Progress, place
from jobcloud.planning.problem import Int64s, Problem

_SHARE: Final = 0.15


def fewer_hosts(
    problem: Problem,
    packing: Packing,
    others: Sequence[Packing],
    members: Mapping[int, Sequence[int]],
    *,
    seconds: float,
    seed: int = 1,
    progress: Progress | None = None,
) -> Packing:
    """A packing on the same hosts that places as many tasks and uses as few hosts as the search finds.

    `others`: packings on any number of hosts of some kinds. `members`: the equal host kinds for each of these kinds.
    A packing with untried tasks stays as it is.
    """
    if packing.untried:
        return packing
    end, best = time.monotonic() + seconds, packing
    for other in others:
        found = _on_given(packing, other, members)
        if found is not None and found.unplaced <= best.unplaced and found.used < best.used:
            best = found
    low = _least(problem, best)
    best = _on_largest(problem, best, low, end, seed, progress)
    return _emptied(problem, best, low, end, seed, progress)


def _on_given(packing: Packing, other: Packing, members: Mapping[int, Sequence[int]]) -> Packing | None:
    """The other packing on hosts of `packing`. None if too few of a kind exist."""
    other = other.compact()
    chosen = np.zeros(len(other.hosts), dtype=np.int64)
    for kind in np.unique(other.hosts).tolist():
        wanted, there = np.flatnonzero(other.hosts == kind), np.flatnonzero(np.isin(packing.hosts, members[kind]))
        if len(there) < len(wanted):
            return None
        chosen[wanted] = there[: len(wanted)]
    return _renamed(packing, other, chosen)


def _on_largest(problem: Problem, best: Packing, low: int, end: float, seed: int, progress: Progress | None) -> Packing:
    """Halve the distance between `low` and the number of hosts in use, each time with the largest hosts."""
    capacity = problem.capacity[best.hosts].astype(np.float64)
    weight = problem.demand / np.maximum(capacity.sum(axis=0), 1.0) ** 2
    largest = np.argsort(-(capacity @ weight), kind="stable")
    while low < best.used and time.monotonic() < end:
        target = (low + best.used) // 2
        hosts = largest[:target]
        seconds = (end - time.monotonic()) * _SHARE
        found = place(problem, best.hosts[hosts], seconds=seconds, seed=seed, progress=progress)
        if found.unplaced <= best.unplaced:
            best = _renamed(best, found, hosts)
        else:
            low = target + 1
    return best


def _emptied(problem: Problem, best: Packing, low: int, end: float, seed: int, progress: Progress | None) -> Packing:
    """Pack the tasks of the emptiest hosts on the other hosts in use; at first of many hosts, at last of one."""
    many = max(1, (best.used - low) // 2)
    while many and best.used > low and time.monotonic() < end:
        used = np.unique(best.host_of[best.host_of >= 0]).astype(np.int64)
        shares = 1 - best.free(problem)[used] / np.maximum(problem.capacity[best.hosts[used]], 1)
        kept = np.sort(used[np.argsort(shares.max(axis=1), kind="stable")[many:]])
        start = best.without(np.setdiff1d(np.arange(len(best.hosts)), kept))
        seconds = (end - time.monotonic()) * _SHARE
        found = place(problem, start.hosts, start=start, seconds=seconds, seed=seed, progress=progress)
        if found.unplaced <= best.unplaced:
            best = _renamed(best, found, kept)
            many = min(many, best.used - low)
        else:
            many //= 2
    return best


def _renamed(packing: Packing, found: Packing, hosts: Int64s) -> Packing:
    """A packing on `hosts` (int64, indices of the given hosts) as one on all given hosts."""
    host_of = (
        np.where(found.host_of >= 0, hosts[np.maximum(found.host_of, 0)], found.host_of)
        if len(hosts)
        else found.host_of
    )
    # A search on fewer hosts that did not end says nothing about all hosts.
    return Packing(packing.hosts, np.maximum(host_of, -1).astype(np.int32))


def _least(problem: Problem, packing: Packing) -> int:
    """No packing uses fewer hosts. If all tasks are placed, the largest amounts of so many hosts must hold them."""
    if packing.unplaced:
        return 1
    capacity = -np.sort(-problem.capacity[packing.hosts], axis=0)
    enough = np.cumsum(capacity, axis=0) >= problem.demand
    return max(1, int(enough.argmax(axis=0).max(initial=0)) + 1) if len(capacity) else 0
