"""The checker: verifies a packing from the problem's kinds and rules alone.

It shares no code with the packer. Every answer of the planner has passed it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from jobcloud.planning.packing import Packing
from jobcloud.planning.problem import Problem


class BrokenPacking(AssertionError):
    """A packing is invalid, because the planner has a defect. The text gives the reason."""


def verify(problem: Problem, packing: Packing) -> None:
    """Raises BrokenPacking if a host exceeds its capacity, holds a task that may not run there, or breaks a rule."""
    if len(packing.host_of) != problem.tasks:
        raise BrokenPacking(f"{len(packing.host_of)} entries for {problem.tasks} tasks")
    if packing.host_of.max(initial=-1) >= len(packing.hosts):
        raise BrokenPacking(f"there is no host {packing.host_of.max()}")
    kinds = len(problem.task_kinds)
    copies = np.array([kind.copies for kind in problem.task_kinds], dtype=np.int64)
    task_kind = np.repeat(np.arange(kinds), copies)
    placed = packing.host_of >= 0
    pairs, counts = np.unique(packing.host_of[placed] * np.int64(kinds) + task_kind[placed], return_counts=True)
    content = np.stack((pairs % max(kinds, 1), counts), axis=1)
    hosts, starts = np.unique(pairs // max(kinds, 1), return_index=True)
    ends = [*starts[1:].tolist(), len(pairs)][: len(hosts)]
    # Equal hosts with equal content are checked once.
    seen: set[tuple[int, bytes]] = set()
    for host, start, end in zip(hosts.tolist(), starts.tolist(), ends, strict=True):
        held, host_kind = content[start:end], int(packing.hosts[host])
        if (host_kind, held.tobytes()) not in seen:
            seen.add((host_kind, held.tobytes()))
            _check_host(problem, host_kind, host, Counter(dict(held.tolist())))


def _check_host(problem: Problem, host_kind: int, host: int, kinds: Counter[int]) -> None:
    place = problem.host_kinds[host_kind]
    jobs: Counter[str] = Counter()
    asked = [0] * len(problem.dimensions)
    keys = set()
    for number, copies in kinds.items():
        kind = problem.task_kinds[number]
        jobs[kind.job] += copies
        asked = [total + copies * amount for total, amount in zip(asked, kind.request, strict=True)]
        if problem.kind_key[number] >= 0:
            keys.add(int(problem.kind_key[number]))
        if not all(constraint.holds(place.attributes) for constraint in kind.rules.attributes):
            raise BrokenPacking(f"host {host} ({place.name}): {kind.job} may not run there")
    for key in keys:
        asked = [total + int(amount) for total, amount in zip(asked, problem.shared[key], strict=True)]
    for name, total, capacity in zip(problem.dimensions, asked, place.capacity, strict=True):
        if total > capacity:
            raise BrokenPacking(f"host {host} ({place.name}): {total} of {capacity} thousandths of {name}")
    for number in kinds:
        kind = problem.task_kinds[number]
        if jobs[kind.job] > kind.rules.max_per_host:
            raise BrokenPacking(f"host {host}: {jobs[kind.job]} of {kind.job}, at most {kind.rules.max_per_host}")
        for other, limit in kind.rules.neighbours.items():
            neighbours = jobs[other] - (other == kind.job)
            if neighbours > limit:
                raise BrokenPacking(f"host {host}: {neighbours} of {other} with {kind.job}, at most {limit}")
