"""The checker: whether a packing keeps every promise, computed from the problem's kinds and rules alone.

It shares no code with what packs. Every answer that is given has passed it.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from jobcloud.planning.packing import Packing
from jobcloud.planning.problem import Problem


class BrokenPacking(AssertionError):
    """A packing breaks a promise: a defect of the planner. The text says which."""


def verify(problem: Problem, packing: Packing) -> None:
    """Raises BrokenPacking unless every host holds what it has room for, what it may, and breaks no rule."""
    if len(packing.host_of) != problem.tasks:
        raise BrokenPacking(f"{len(packing.host_of)} places for {problem.tasks} tasks")
    held: dict[int, Counter[int]] = defaultdict(Counter)
    task = 0
    for number, kind in enumerate(problem.task_kinds):
        for host in packing.host_of[task : task + kind.copies].tolist():
            if host >= len(packing.hosts):
                raise BrokenPacking(f"there is no host {host}")
            if host >= 0:
                held[host][number] += 1
        task += kind.copies
    for host, kinds in held.items():
        _check_host(problem, int(packing.hosts[host]), host, kinds)


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
        for other, limit in kind.rules.beside.items():
            beside = jobs[other] - (other == kind.job)
            if beside > limit:
                raise BrokenPacking(f"host {host}: {beside} of {other} beside {kind.job}, at most {limit}")
