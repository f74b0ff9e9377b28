"""Rows of hosts and tasks → the arrays that packing, bounds and the checker work on.

What is alike is one *kind*: hosts of equal capacity and attributes, tasks of one job of equal needs. Jobs that no rule
speaks of are told apart by nobody, so their equal tasks are one kind as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobcloud.constraints import HOST, Constraint
from jobcloud.errors import ConfigError
from jobcloud.planning.rules import MOST_PER_HOST, Rules
from jobcloud.planning.tables import HostTable, TaskTable

Int32s: TypeAlias = NDArray[np.int32]
Int64s: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

NOTHING_SHARED: Final = ""


class Part(NamedTuple):
    """So many hosts of one row, or tasks of one job."""

    name: str
    copies: int


@dataclass(frozen=True, slots=True)
class HostKind:
    """Hosts that are alike. `capacity`: thousandths, in the order of the problem's dimensions."""

    name: str
    capacity: tuple[int, ...]
    attributes: Mapping[str, str]
    copies: int
    price: float = 0.0
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskKind:
    """Tasks that are alike.

    `shared` names what the tasks that carry the same name pay once a host (an app's executor); `parts` are the jobs.
    """

    job: str
    request: tuple[int, ...]
    copies: int
    rules: Rules = field(default_factory=Rules)
    shared: str = NOTHING_SHARED
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Demand as arrays. K kinds of tasks sorted by job, T kinds of hosts, D dimensions, J jobs, S shared amounts.

    request int64[K, D]; kind_job, kind_key int32[K] (key -1: none); shared int64[S, D]; first int32[K + 1]: kind k has
    the tasks first[k] … first[k + 1] - 1; job_first int32[J + 1]: likewise job j; most int32[J]: tasks of a job a host
    takes; allowed uint8[K, T]; rules: three int32 arrays (start[J + 1], job, most): a host with a task of j holds at
    most most[n] of job[n] for start[j] ≤ n < start[j + 1], sorted by job; back_rules: the same, seen from job[n].
    """

    dimensions: tuple[str, ...]
    host_kinds: tuple[HostKind, ...]
    task_kinds: tuple[TaskKind, ...]
    jobs: tuple[str, ...]
    capacity: Int64s
    request: Int64s
    kind_job: Int32s
    kind_key: Int32s
    shared: Int64s
    first: Int32s
    job_first: Int32s
    most: Int32s
    allowed: NDArray[np.uint8]
    rules: tuple[Int32s, Int32s, Int32s]
    back_rules: tuple[Int32s, Int32s, Int32s]

    @property
    def tasks(self) -> int:
        return int(self.first[-1])

    @property
    def counts(self) -> Int64s:
        """int64[K]: tasks of each kind."""
        return np.diff(self.first).astype(np.int64)

    @property
    def demand(self) -> Int64s:
        """int64[D]: what all tasks ask for, shared amounts left out."""
        return np.asarray(self.counts @ self.request)

    @property
    def has_rules(self) -> bool:
        """Whether any job says who may stand beside it."""
        return bool(len(self.rules[1]))

    def kind_of_tasks(self) -> Int32s:
        """int32[tasks]"""
        return np.repeat(np.arange(len(self.task_kinds), dtype=np.int32), self.counts)

    def host_list(self) -> Int32s:
        """int32[hosts]: the kind of every host there is, in order."""
        copies = [kind.copies for kind in self.host_kinds]
        return np.repeat(np.arange(len(self.host_kinds), dtype=np.int32), copies)


def build(
    dimensions: Sequence[str],
    hosts: Iterable[HostKind],
    tasks: Iterable[TaskKind],
    shared: Mapping[str, tuple[int, ...]] | None = None,
) -> Problem:
    """The problem of placing tasks on hosts. Amounts are in the order of `dimensions`; `shared`: by name."""
    merged, shared = _merge(tasks), shared or {}
    jobs = tuple(sorted({kind.job for kind in merged}))
    number = {name: n for n, name in enumerate(jobs)}
    kinds = sorted(merged, key=lambda kind: number[kind.job])
    by_name = any(c.attribute == HOST for kind in kinds for c in kind.rules.attributes)
    host_kinds = tuple(hosts) if by_name else _merge_hosts(hosts)
    names = sorted({kind.shared for kind in kinds if kind.shared})
    keys = {name: n for n, name in enumerate(names)}
    kind_job = np.array([number[kind.job] for kind in kinds], dtype=np.int32)
    first = np.concatenate(([0], np.cumsum([kind.copies for kind in kinds], dtype=np.int64))).astype(np.int32)
    job_kinds = np.searchsorted(kind_job, np.arange(len(jobs) + 1))
    most, pairs = _job_rules(kinds, number)
    return Problem(
        dimensions=tuple(dimensions),
        host_kinds=host_kinds,
        task_kinds=tuple(kinds),
        jobs=jobs,
        capacity=_table([kind.capacity for kind in host_kinds], len(dimensions)),
        request=_table([kind.request for kind in kinds], len(dimensions)),
        kind_job=kind_job,
        kind_key=np.array([keys.get(kind.shared, -1) for kind in kinds], dtype=np.int32),
        shared=_table([shared[name] for name in names], len(dimensions)),
        first=first,
        job_first=first[job_kinds].copy(),
        most=most,
        allowed=_allowed(kinds, host_kinds),
        rules=_rows(len(jobs), pairs),
        back_rules=_rows(len(jobs), {(other, job): limit for (job, other), limit in pairs.items()}),
    )


def from_tables(hosts: HostTable, tasks: TaskTable) -> Problem:
    """Raises ConfigError where tasks ask for what no host table speaks of."""
    dimensions = tasks.dimensions
    used = [d for d in range(len(dimensions)) if any(row.amounts[d] for row in tasks.rows)]
    unknown = [dimensions[d] for d in used if dimensions[d] not in hosts.dimensions]
    if unknown:
        fix = f"add a column {unknown[0]} to {hosts.source}, or drop it from {tasks.source}"
        raise ConfigError(
            f"{hosts.source} says nothing of {unknown[0]}, which tasks ask for", field=unknown[0], fix=fix
        )
    places = [hosts.dimensions.index(dimensions[d]) for d in used]
    return build(
        [dimensions[d] for d in used],
        (
            HostKind(row.id, tuple(row.amounts[at] for at in places), row.attributes, row.copies, row.price)
            for row in hosts.rows
        ),
        (TaskKind(row.job, tuple(row.amounts[d] for d in used), row.copies, row.rules) for row in tasks.rows),
    )


def _merge(tasks: Iterable[TaskKind]) -> list[TaskKind]:
    tasks = list(tasks)
    named = {other for kind in tasks for other in kind.rules.beside}
    ruled = named | {kind.job for kind in tasks if kind.rules.beside or kind.rules.max_per_host < MOST_PER_HOST}
    groups: dict[tuple[str, tuple[int, ...], tuple[Constraint, ...], str], list[TaskKind]] = {}
    for kind in tasks:
        job = kind.job if kind.job in ruled else ""
        groups.setdefault((job, kind.request, kind.rules.attributes, kind.shared), []).append(kind)
    return [_merged(members) if len(members) > 1 or not key[0] else members[0] for key, members in groups.items()]


def _merged(members: list[TaskKind]) -> TaskKind:
    first, copies = members[0], dict[str, int]()
    beside, most = dict[str, int](), MOST_PER_HOST
    for kind in members:
        copies[kind.job] = copies.get(kind.job, 0) + kind.copies
        most = min(most, kind.rules.max_per_host)
        for other, limit in kind.rules.beside.items():
            beside[other] = min(limit, beside.get(other, limit))
    parts = tuple(Part(*item) for item in copies.items())
    rules = Rules(most, beside, first.rules.attributes)
    return TaskKind(first.job, first.request, sum(copies.values()), rules, first.shared, parts)


def _merge_hosts(hosts: Iterable[HostKind]) -> tuple[HostKind, ...]:
    groups: dict[tuple[tuple[int, ...], tuple[tuple[str, str], ...], float], list[HostKind]] = {}
    for kind in hosts:
        attributes = tuple(sorted(item for item in kind.attributes.items() if item[0] != HOST))
        groups.setdefault((kind.capacity, attributes, kind.price), []).append(kind)
    return tuple(
        HostKind(
            members[0].name,
            capacity,
            members[0].attributes,
            sum(kind.copies for kind in members),
            price,
            tuple(Part(kind.name, kind.copies) for kind in members),
        )
        for (capacity, _, price), members in groups.items()
    )


def _job_rules(kinds: Sequence[TaskKind], number: Mapping[str, int]) -> tuple[Int32s, dict[tuple[int, int], int]]:
    """The limit of each job for itself, and (job, other) → the limit for another. Jobs without tasks do not matter."""
    most = np.full(len(number), MOST_PER_HOST, dtype=np.int32)
    pairs: dict[tuple[int, int], int] = {}
    for kind in kinds:
        job = number[kind.job]
        most[job] = min(int(most[job]), kind.rules.max_per_host)
        for name, limit in kind.rules.beside.items():
            other = number.get(name)
            if other == job:
                most[job] = min(int(most[job]), limit + 1)
            elif other is not None:
                pairs[job, other] = min(limit, pairs.get((job, other), limit))
    return most, pairs


def _rows(jobs: int, pairs: Mapping[tuple[int, int], int]) -> tuple[Int32s, Int32s, Int32s]:
    ordered = sorted(pairs)
    start = np.searchsorted(np.array([job for job, _ in ordered], dtype=np.int64), np.arange(jobs + 1))
    return (
        start.astype(np.int32),
        np.array([other for _, other in ordered], dtype=np.int32),
        np.array([pairs[pair] for pair in ordered], dtype=np.int32),
    )


def _allowed(kinds: Sequence[TaskKind], hosts: Sequence[HostKind]) -> NDArray[np.uint8]:
    known: dict[tuple[Constraint, ...], NDArray[np.uint8]] = {}
    for kind in kinds:
        wanted = kind.rules.attributes
        if wanted not in known:
            known[wanted] = np.array([all(c.holds(h.attributes) for c in wanted) for h in hosts], dtype=np.uint8)
    rows = [known[kind.rules.attributes] for kind in kinds]
    return np.ascontiguousarray(rows, dtype=np.uint8) if rows else np.zeros((0, len(hosts)), dtype=np.uint8)


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Int64s:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)
