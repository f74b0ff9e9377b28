"""Turns rows of hosts and tasks into the arrays for packing, bounds and the checker.

Equal rows form one *kind*. A host kind has hosts with equal capacity, attributes and price. A task kind has tasks of
one job with equal needs. Equal tasks of several jobs form one kind if no rule limits the tasks or names their jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST, Constraint
from jobcloud.planning.rules import MAX_PER_HOST, Rules

Int32s: TypeAlias = NDArray[np.int32]
Int64s: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

NOTHING_SHARED: Final = ""


class Part(NamedTuple):
    """A number of hosts of one row, or of tasks of one job."""

    name: str
    copies: int


class Source(NamedTuple):
    """The source of amounts, and the order of their dimensions."""

    name: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostKind:
    """Equal hosts. `capacity`: thousandths, in the order of the problem's dimensions."""

    name: str
    capacity: tuple[int, ...]
    attributes: Mapping[str, str]
    copies: int
    price: float = 0.0
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskKind:
    """Equal tasks.

    `shared` names an amount (an app's executor). All tasks on a host that name this amount take it once, together.
    `parts`: the numbers of tasks by job. `name`: of the row in a table, "" if there is none.
    """

    job: str
    request: tuple[int, ...]
    copies: int
    rules: Rules = field(default_factory=Rules)
    shared: str = NOTHING_SHARED
    parts: tuple[Part, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """The demand as arrays: K kinds of tasks sorted by job, T kinds of hosts, D dimensions, J jobs, S shared amounts.

    arrival int32[K]: the kinds in the order of the input. request int64[K, D]. kind_job, kind_key int32[K] (key -1:
    none). shared int64[S, D]. first int32[K + 1]: kind k has the tasks first[k] … first[k + 1] - 1. job_first
    int32[J + 1]: the same for jobs. max_per_host int32[J]: the maximum for tasks of a job on one host. allowed
    uint8[K, T]. rules: three int32 arrays (start[J + 1], job, limit). A host with a task of job j holds at most
    limit[n] tasks of job[n] for start[j] ≤ n < start[j + 1]. The entries of job j are sorted by job[n]. back_rules:
    the same rules, indexed by the other job.
    """

    dimensions: tuple[str, ...]
    host_kinds: tuple[HostKind, ...]
    task_kinds: tuple[TaskKind, ...]
    arrival: Int32s
    jobs: tuple[str, ...]
    capacity: Int64s
    request: Int64s
    kind_job: Int32s
    kind_key: Int32s
    shared: Int64s
    first: Int32s
    job_first: Int32s
    max_per_host: Int32s
    allowed: NDArray[np.uint8]
    rules: tuple[Int32s, Int32s, Int32s]
    back_rules: tuple[Int32s, Int32s, Int32s]

    @property
    def tasks(self) -> int:
        return int(self.first[-1])

    @property
    def counts(self) -> Int64s:
        """int64[K]: the number of tasks of each kind."""
        return np.diff(self.first).astype(np.int64)

    @property
    def demand(self) -> Int64s:
        """int64[D]: the requests of all tasks, without shared amounts."""
        return np.asarray(self.counts @ self.request)

    @property
    def has_rules(self) -> bool:
        """Whether any job limits the tasks of another job on its hosts."""
        return bool(len(self.rules[1]))

    def with_counts(self, counts: Int64s) -> Problem:
        """The same kinds with other numbers of tasks, int64[K]."""
        first = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        starts = np.searchsorted(self.kind_job, np.arange(len(self.jobs) + 1))
        kinds = tuple(
            kind if kind.copies == copies else replace(kind, copies=int(copies))
            for kind, copies in zip(self.task_kinds, counts.tolist(), strict=True)
        )
        return replace(self, first=first, job_first=first[starts].copy(), task_kinds=kinds)

    def needs(self) -> Int64s:
        """int64[K, D]: the amounts that a task of each kind takes on an empty host, its shared amount included."""
        if not len(self.shared):
            return self.request
        paid = np.where(self.kind_key[:, None] >= 0, self.shared[self.kind_key], 0)
        return np.asarray(self.request + paid)

    def kind_of_tasks(self) -> Int32s:
        """int32[tasks]: the kind of each task."""
        return np.repeat(np.arange(len(self.task_kinds), dtype=np.int32), self.counts)

    def host_list(self) -> Int32s:
        """int32[hosts]: the kind of each existing host, in order."""
        copies = [kind.copies for kind in self.host_kinds]
        return np.repeat(np.arange(len(self.host_kinds), dtype=np.int32), copies)


def build(
    dimensions: Sequence[str],
    hosts: Iterable[HostKind],
    tasks: Iterable[TaskKind],
    shared: Mapping[str, tuple[int, ...]] | None = None,
) -> Problem:
    """The problem of placing tasks on hosts. Amounts are in the order of `dimensions`. `shared`: amounts by name."""
    merged, shared = _merge(tasks), shared or {}
    jobs = tuple(sorted({kind.job for kind in merged}))
    number = {name: n for n, name in enumerate(jobs)}
    order = sorted(range(len(merged)), key=lambda n: number[merged[n].job])
    kinds = [merged[n] for n in order]
    by_name = any(c.attribute == HOST for kind in kinds for c in kind.rules.attributes)
    host_kinds = tuple(hosts) if by_name else _merge_hosts(hosts)
    names = sorted({kind.shared for kind in kinds if kind.shared})
    keys = {name: n for n, name in enumerate(names)}
    kind_job = np.array([number[kind.job] for kind in kinds], dtype=np.int32)
    first = np.concatenate(([0], np.cumsum([kind.copies for kind in kinds], dtype=np.int64))).astype(np.int32)
    job_kinds = np.searchsorted(kind_job, np.arange(len(jobs) + 1))
    max_per_host, pairs = _job_rules(kinds, number)
    return Problem(
        dimensions=tuple(dimensions),
        host_kinds=host_kinds,
        task_kinds=tuple(kinds),
        arrival=np.argsort(order).astype(np.int32),
        jobs=jobs,
        capacity=_table([kind.capacity for kind in host_kinds], len(dimensions)),
        request=_table([kind.request for kind in kinds], len(dimensions)),
        kind_job=kind_job,
        kind_key=np.array([keys.get(kind.shared, -1) for kind in kinds], dtype=np.int32),
        shared=_table([shared[name] for name in names], len(dimensions)),
        first=first,
        job_first=first[job_kinds].copy(),
        max_per_host=max_per_host,
        allowed=_allowed(kinds, host_kinds),
        rules=_rows(len(jobs), pairs),
        back_rules=_rows(len(jobs), {(other, job): limit for (job, other), limit in pairs.items()}),
    )


def join(
    there: Source,
    hosts: Iterable[HostKind],
    asked: Source,
    tasks: Sequence[TaskKind],
    shared: Mapping[str, tuple[int, ...]] | None = None,
) -> Problem:
    """The problem of two sources, in the dimensions that any task requests.

    Raises ConfigError if tasks request a dimension that the hosts do not specify.
    """
    rows = [kind.request for kind in tasks] + list((shared or {}).values())
    used = [d for d in range(len(asked.dimensions)) if any(row[d] for row in rows)]
    names = [asked.dimensions[d] for d in used]
    unknown = [name for name in names if name not in there.dimensions]
    if unknown:
        problem = f"{there.name} does not specify {unknown[0]}, which {asked.name} requests"
        raise ConfigError(problem, field=unknown[0], fix=f"specify {unknown[0]} for the hosts")
    at = [there.dimensions.index(name) for name in names]
    return build(
        names,
        [replace(kind, capacity=tuple(kind.capacity[d] for d in at)) for kind in hosts],
        [replace(kind, request=tuple(kind.request[d] for d in used)) for kind in tasks],
        {name: tuple(amounts[d] for d in used) for name, amounts in (shared or {}).items()},
    )


def _merge(tasks: Iterable[TaskKind]) -> list[TaskKind]:
    tasks = list(tasks)
    named = {other for kind in tasks for other in kind.rules.neighbours}
    ruled = named | {kind.job for kind in tasks if kind.rules.neighbours or kind.rules.max_per_host < MAX_PER_HOST}
    groups: dict[tuple[str, tuple[int, ...], tuple[Constraint, ...], str], list[TaskKind]] = {}
    for kind in tasks:
        job = kind.job if kind.job in ruled else ""
        groups.setdefault((job, kind.request, kind.rules.attributes, kind.shared), []).append(kind)
    return [_merged(members) if len(members) > 1 or not key[0] else members[0] for key, members in groups.items()]


def _merged(members: list[TaskKind]) -> TaskKind:
    first, copies = members[0], dict[str, int]()
    neighbours, max_per_host = dict[str, int](), MAX_PER_HOST
    for kind in members:
        copies[kind.job] = copies.get(kind.job, 0) + kind.copies
        max_per_host = min(max_per_host, kind.rules.max_per_host)
        for other, limit in kind.rules.neighbours.items():
            neighbours[other] = min(limit, neighbours.get(other, limit))
    parts = tuple(Part(*item) for item in copies.items())
    rules = Rules(max_per_host, neighbours, first.rules.attributes)
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
    """The limit of each job for its own tasks, and the limits by (job, other job). Ignores limits for unknown jobs."""
    max_per_host = np.full(len(number), MAX_PER_HOST, dtype=np.int32)
    pairs: dict[tuple[int, int], int] = {}
    for kind in kinds:
        job = number[kind.job]
        max_per_host[job] = min(int(max_per_host[job]), kind.rules.max_per_host)
        for name, limit in kind.rules.neighbours.items():
            other = number.get(name)
            if other == job:
                max_per_host[job] = min(int(max_per_host[job]), limit + 1)
            elif other is not None:
                pairs[job, other] = min(limit, pairs.get((job, other), limit))
    return max_per_host, pairs


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
