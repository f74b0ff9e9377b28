"""The questions of whoever buys hosts, and their answers: `make_plan`.

plan = make_plan(problem, Question(failures=(1, 2), more=("reports",)))
plan.fits, plan.needs[0].hosts, plan.needs[0].bound.hosts
"""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobcloud.errors import NotFound
from jobcloud.planning.packing import UNPLACED, UNTRIED, Fewest, Packing, Progress, fewest, place
from jobcloud.planning.problem import HostKind, Int64s, Problem
from jobcloud.planning.verify import verify

_MOST_HOST_TYPES: Final = 6
_MOST_MORE: Final = 100_000
_FAIL_BY: Final = "zone"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked besides whether it fits and how many hosts it takes.

    `how_many`: the hosts are types, and any number of each can be had; else they are the hosts there are. `failures`:
    after how many lost hosts; `fail_by`: the attribute whose values fail as a whole. `more`: jobs to have more of.
    `seconds`: for all searches together; what was not tried by then is said, and is not refused.
    """

    how_many: bool = False
    failures: tuple[int, ...] = (1,)
    fail_by: str = _FAIL_BY
    more: tuple[str, ...] = ()
    seconds: float = 30.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class RefusedTasks:
    """Tasks of a job without a host, and why."""

    job: str
    tasks: int
    reason: str
    could_ever_fit: bool


@dataclass(frozen=True, slots=True)
class UntriedTasks:
    """Tasks of a job for which the time was over before any room was looked for: there may be some, or none."""

    job: str
    tasks: int


@dataclass(frozen=True, slots=True)
class Need:
    """How many hosts of one type all tasks take that can run on it; `unsuitable` cannot. `price`: of all of them.

    `untried`: tasks that are not on them because the time was over.
    """

    name: str
    kind: int
    found: Fewest
    unsuitable: int
    price: float
    untried: int = 0

    @property
    def hosts(self) -> int:
        return self.found.hosts


@dataclass(frozen=True, slots=True)
class Failure:
    """What becomes of the tasks when hosts fail: `displaced` ran there, `homeless` of them find no other host.

    Nothing else is moved, as nothing is by a scheduler; `after_moving` find none though others make room. `untried`:
    those of them for which the time was over; then nothing was moved.
    """

    what: str
    hosts: int
    displaced: int
    homeless: int
    after_moving: int
    untried: int = 0


@dataclass(frozen=True, slots=True)
class More:
    """So many more tasks of a job fit beside all others as they stand, and no more than so many however they stood."""

    job: str
    at_least: int
    at_most: int


@dataclass(frozen=True, slots=True)
class Mix:
    """Hosts of several types, each for the tasks that it takes most cheaply: (type, hosts), and their price."""

    hosts: tuple[tuple[str, int], ...]
    price: float
    unsuitable: int
    untried: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The answers. `packing` is on the hosts there are, or on the fewest of the first type where any can be had."""

    problem: Problem
    question: Question
    packing: Packing
    refused: tuple[RefusedTasks, ...]
    untried: tuple[UntriedTasks, ...]
    needs: tuple[Need, ...]
    mix: Mix | None
    failures: tuple[Failure, ...]
    more: tuple[More, ...]
    used: Int64s
    capacity: Int64s
    stranded: Int64s
    bound_broken: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def fits(self) -> bool:
        """Whether every task has its host."""
        return not self.refused and not self.untried

    @property
    def placed(self) -> int:
        return self.problem.tasks - self.packing.unplaced


def make_plan(problem: Problem, question: Question | None = None, progress: Progress | None = None) -> Plan:
    """Answer the question. Every packing in it has passed the checker. Raises NotFound for a job that there is not.

    It ends soon after the question's `seconds`: the checker, and one step of a search, are not cut short.
    """
    question = question or Question()
    kinds_of_more = [_kind_of_job(problem, job) for job in question.more]
    types = _types(problem)
    share = question.seconds / (len(types) * (2 if len(types) > 1 else 1) + (0 if question.how_many else 1))
    say = _said_of(progress, question.seconds)
    needs = tuple(_need(problem, kind, share, question.seed, say) for kind in types[:_MOST_HOST_TYPES])
    mix = _mix(problem, types[:_MOST_HOST_TYPES], share, question.seed, say) if len(types) > 1 else None
    if question.how_many:
        packing = needs[0].found.packing if needs else _nothing(problem)
    else:
        packing = place(problem, problem.host_list(), seconds=share, seed=question.seed, progress=say)
    verify(problem, packing)
    free = packing.free(problem)
    tried = _tried(problem, packing)
    capacity = problem.capacity[packing.hosts].sum(axis=0)
    return Plan(
        problem,
        question,
        packing,
        _refusals(problem, packing, free, share),
        _untried(problem, packing),
        needs,
        mix,
        tuple(_failures(*tried, question, share)),
        tuple(_more(*tried, free, *pair) for pair in zip(question.more, kinds_of_more, strict=True)),
        used=capacity - free.sum(axis=0),
        capacity=capacity,
        stranded=_stranded(problem, packing, free),
        bound_broken=_too_few(problem, needs, packing) if not question.how_many else "",
        notes=tuple(_notes(problem, question, packing, types)),
    )


def _notes(problem: Problem, question: Question, packing: Packing, types: Sequence[int]) -> Iterator[str]:
    """What was asked and could not be answered."""
    if len(types) > _MOST_HOST_TYPES:
        yield f"{len(types)} types of hosts, the {_MOST_HOST_TYPES} most frequent asked"
    for count in sorted({count for count in question.failures if count > len(packing.hosts) > 0}):
        yield f"{count:,} hosts cannot fail, there are {len(packing.hosts):,}"
    known = any(question.fail_by in kind.attributes for kind in problem.host_kinds)
    if question.fail_by != _FAIL_BY and not known:
        yield f"no host has the attribute {question.fail_by}, so none fail by it"


def host_names(problem: Problem, packing: Packing) -> list[str]:
    """The name of each host of a packing: those of the rows in their order, numbered where a row has several."""
    names: list[str] = []
    queues = {n: _names(kind) for n, kind in enumerate(problem.host_kinds)}
    for number, kind in enumerate(packing.hosts.tolist()):
        names.append(next(queues[kind], f"{problem.host_kinds[kind].name}#{number}"))
    return names


def task_jobs(problem: Problem) -> list[str]:
    """The job of each task, in the order of `Packing.host_of`."""
    jobs: list[str] = []
    for kind in problem.task_kinds:
        parts = [part.name for part in kind.parts for _ in range(part.copies)] or [kind.job] * kind.copies
        jobs += (parts + [kind.job] * kind.copies)[: kind.copies]
    return jobs


# --------------------------------------------------------------------------------------------------------- how many


def _types(problem: Problem) -> list[int]:
    """One host kind for each that differ in what they hold, take or cost; the most frequent first."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for n, kind in enumerate(problem.host_kinds):
        groups.setdefault((kind.capacity, kind.price, problem.allowed[:, n].tobytes()), []).append(n)
    copies = {members[0]: sum(problem.host_kinds[n].copies for n in members) for members in groups.values()}
    return sorted(copies, key=lambda n: (-copies[n], n))


def _need(problem: Problem, kind: int, seconds: float, seed: int, say: Progress | None) -> Need:
    found = fewest(problem, kind, seconds=seconds, seed=seed, progress=say)
    verify(problem, found.packing)
    place_ = problem.host_kinds[kind]
    untried = found.packing.untried
    return Need(place_.name, kind, found, found.packing.unplaced - untried, place_.price * found.hosts, untried)


def _mix(problem: Problem, types: Sequence[int], seconds: float, seed: int, say: Progress | None) -> Mix:
    """Each task kind on the type that is cheapest for it, by the largest share that it takes of a host."""
    needs, counts = problem.needs(), problem.counts
    costs = np.full((len(counts), len(types)), np.inf)
    for n, kind in enumerate(types):
        capacity = problem.capacity[kind]
        fits = (needs <= capacity).all(axis=1) & (problem.allowed[:, kind] > 0)
        shares = (problem.request / np.maximum(capacity, 1)).max(axis=1)
        costs[fits, n] = (problem.host_kinds[kind].price or 1.0) * shares[fits]
    chosen, able = costs.argmin(axis=1), np.isfinite(costs.min(axis=1))
    hosts, price, untried = [], 0.0, 0
    for n, kind in enumerate(types):
        part = problem.with_counts(np.where(able & (chosen == n), counts, 0))
        if part.tasks:
            found = fewest(part, kind, seconds=seconds, seed=seed, progress=say)
            verify(part, found.packing)
            hosts.append((problem.host_kinds[kind].name, found.hosts))
            price += found.hosts * problem.host_kinds[kind].price
            untried += found.packing.untried
    return Mix(tuple(hosts), price, int(counts[~able].sum()), untried)


def _too_few(problem: Problem, needs: Sequence[Need], packing: Packing) -> str:
    """Where all hosts are of one type and the bound says that there are too few, that is said."""
    if len(needs) != 1 or needs[0].unsuitable or not packing.unplaced:
        return ""
    bound, hosts = needs[0].found.bound, len(packing.hosts)
    return (
        f"no placement can fit: it takes {bound.hosts} hosts at least ({bound.how}), there are {hosts}"
        if bound.hosts > hosts
        else ""
    )


def _nothing(problem: Problem) -> Packing:
    return Packing(np.zeros(0, dtype=np.int32), np.full(problem.tasks, -1, dtype=np.int32))


# ------------------------------------------------------------------------------------------------------------- refused


def _refusals(problem: Problem, packing: Packing, free: Int64s, seconds: float) -> tuple[RefusedTasks, ...]:
    """By job and reason, the most tasks first. Where the time is over, reasons name no numbers."""
    end = time.monotonic() + seconds
    found: Counter[tuple[str, str, bool]] = Counter()
    for kind, parts in _without_host(problem, packing, UNPLACED):
        reason, ever = _reason(problem, packing, free, kind, exact=time.monotonic() < end)
        for job, tasks in parts:
            found[job, reason, ever] += tasks
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(RefusedTasks(job, tasks, reason, ever) for (job, reason, ever), tasks in ranked)


def _untried(problem: Problem, packing: Packing) -> tuple[UntriedTasks, ...]:
    """By job, the most tasks first."""
    found: Counter[str] = Counter()
    for _, parts in _without_host(problem, packing, UNTRIED):
        for job, tasks in parts:
            found[job] += tasks
    return tuple(UntriedTasks(*item) for item in sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _without_host(problem: Problem, packing: Packing, why: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The kinds of which tasks have no host for this reason, and how many of which jobs they are."""
    waiting = np.bincount(problem.kind_of_tasks()[packing.host_of == why], minlength=len(problem.task_kinds))
    for kind in np.flatnonzero(waiting).tolist():
        left, parts = int(waiting[kind]), []
        # Equal tasks of several jobs: those of the last rows are the ones that go without.
        for part in reversed(problem.task_kinds[kind].parts or ()):
            taken = min(left, part.copies)
            left -= taken
            if taken:
                parts.append((part.name, taken))
        if left:
            parts.append((problem.task_kinds[kind].job, left))
        yield kind, parts


def _reason(problem: Problem, packing: Packing, free: Int64s, kind: int, *, exact: bool) -> tuple[str, bool]:
    need, wanted = problem.needs()[kind], problem.task_kinds[kind].rules.attributes
    allowed = np.flatnonzero(problem.allowed[kind])
    if not len(allowed):
        names = ", ".join(sorted({c.attribute for c in wanted}))
        return f"no host has the {names} that it asks for", False
    largest = problem.capacity[allowed]
    if not (need <= largest).all(axis=1).any():
        lacking = [
            f"{need[d] / 1_000:g} {name} of {largest[:, d].max() / 1_000:g} at most"
            for d, name in enumerate(problem.dimensions)
            if need[d] > largest[:, d].max()
        ]
        return "larger than any host: " + (", ".join(lacking) or "no host has enough of all at once"), False
    hosts = np.flatnonzero(problem.allowed[kind][packing.hosts])
    if not len(hosts):
        return "there is no host left that it may run on", True
    if not exact:
        return "no room", True
    short = need > free[hosts]
    parts = [f"{name} on {int(short[:, d].sum())}" for d, name in enumerate(problem.dimensions) if short[:, d].any()]
    ruled = int((~short.any(axis=1)).sum())
    if ruled:
        parts.append(f"rules about other tasks on {ruled}")
    return f"no room: of {len(hosts)} hosts, short of {', '.join(parts)}", True


def _stranded(problem: Problem, packing: Packing, free: Int64s) -> Int64s:
    """int64[D]: what is free on hosts that hold something and where not one more task of the demand fits."""
    used = np.unique(packing.host_of[packing.host_of >= 0])
    open_ = np.zeros(len(used), dtype=bool)
    for need in _smallest(problem.request[problem.counts > 0]):
        open_ |= (need <= free[used]).all(axis=1)
        if open_.all():
            break
    return np.asarray(free[used][~open_].sum(axis=0))


def _smallest(requests: Int64s) -> Iterator[Int64s]:
    """Those that fit wherever any of the rows fits: of the others, each is in no dimension less than one of them."""
    left = requests[np.argsort(requests.astype(np.float64).sum(axis=1), kind="stable")]
    while len(left):
        yield left[0]
        left = left[(left < left[0]).any(axis=1)]


# ------------------------------------------------------------------------------------------------- failures, and more


def _tried(problem: Problem, packing: Packing) -> tuple[Problem, Packing]:
    """Without the tasks that were not tried: they would take room from others that did run."""
    if not packing.untried:
        return problem, packing
    kept = packing.host_of != UNTRIED
    return _of_tasks(problem, kept), Packing(packing.hosts, packing.host_of[kept])


def _of_tasks(problem: Problem, kept: NDArray[np.bool_]) -> Problem:
    """bool[tasks] → the problem of those alone."""
    return problem.with_counts(np.bincount(problem.kind_of_tasks()[kept], minlength=len(problem.task_kinds)))


def _failures(problem: Problem, packing: Packing, question: Question, seconds: float) -> list[Failure]:
    if not len(packing.hosts):
        return []
    shares = 1 - packing.free(problem) / np.maximum(problem.capacity[packing.hosts], 1)
    fullest = np.argsort(-shares.max(axis=1, initial=0.0), kind="stable")
    groups: list[tuple[str, Int64s]] = [
        ("the fullest host" if count == 1 else f"the {count} fullest hosts", fullest[:count])
        for count in sorted(set(question.failures))
        if 0 < count <= len(fullest)
    ]
    values = [problem.host_kinds[kind].attributes.get(question.fail_by) for kind in packing.hosts.tolist()]
    named = sorted({value for value in values if value is not None})
    groups += [
        (f"{question.fail_by} {value}", np.flatnonzero([v == value for v in values]))
        for value in named
        if question.fail_by and len(named) > 1
    ]
    return [_failure(problem, packing, what, hosts, question, seconds / max(1, len(groups))) for what, hosts in groups]


def _failure(
    problem: Problem, packing: Packing, what: str, hosts: Int64s, question: Question, seconds: float
) -> Failure:
    left = packing.without(hosts)
    before, displaced = packing.unplaced, left.unplaced - packing.unplaced
    found = place(problem, left.hosts, start=left, seconds=seconds, move=False, seed=question.seed)
    verify(problem, found)
    moved = found
    if found.unplaced > before and not found.untried:
        moved = place(problem, left.hosts, start=found, seconds=min(seconds, 5.0), seed=question.seed)
        verify(problem, moved)
    homeless, after = (max(0, answer.unplaced - answer.untried - before) for answer in (found, moved))
    return Failure(what, len(hosts), displaced, homeless, min(after, homeless), found.untried)


def _kind_of_job(problem: Problem, job: str) -> int:
    """Of a job of several kinds of tasks, the one with the most."""
    kinds = [
        (part.copies if part else kind.copies, n)
        for n, kind in enumerate(problem.task_kinds)
        for part in (kind.parts or (None,))
        if (part.name if part else kind.job) == job
    ]
    if not kinds:
        names = sorted(set(task_jobs(problem)))
        close = difflib.get_close_matches(job, names, 1)
        raise NotFound(
            f"there is no job {job!r:.80}", field="--more", fix=f"did you mean {close[0]!r}?" if close else ""
        )
    return max(kinds)[1]


def _more(problem: Problem, packing: Packing, free: Int64s, job: str, kind: int) -> More:
    need = problem.request[kind]
    allowed = problem.allowed[kind][packing.hosts] > 0
    capacity = problem.capacity[packing.hosts][allowed]
    limit = int(problem.most[problem.kind_job[kind]])
    each = np.full(len(capacity), min(limit, _MOST_MORE), dtype=np.int64)
    for d in np.flatnonzero(need):
        each = np.minimum(each, capacity[:, d] // need[d])
    running = int((problem.kind_of_tasks()[packing.host_of >= 0] == kind).sum())
    at_most = max(0, int(each.sum()) - running)
    for d in np.flatnonzero(need):
        # Wherever the others stand, what all hosts have left is what there is.
        at_most = min(at_most, int(free[:, d].sum() // need[d]))
    tries = min(at_most, _MOST_MORE)
    counts = problem.counts
    counts[kind] += tries
    larger = problem.with_counts(counts)
    host_of = np.full(larger.tasks, -1, dtype=np.int32)
    after = int(problem.first[kind + 1])
    host_of[:after], host_of[after + tries :] = packing.host_of[:after], packing.host_of[after:]
    # Refused tasks of others stay out: the question is what fits beside what runs.
    kept = (host_of >= 0) | (larger.kind_of_tasks() == kind)
    only = _of_tasks(larger, kept)
    found = place(only, packing.hosts, start=Packing(packing.hosts, host_of[kept]), move=False)
    verify(only, found)
    placed = int((only.kind_of_tasks()[found.host_of >= 0] == kind).sum()) - running
    return More(job, placed, max(at_most, placed))


def _said_of(progress: Progress | None, seconds: float) -> Progress | None:
    """Each step reports its own part done; what is told is the part of all the time."""
    if progress is None:
        return None
    start, tell = time.monotonic(), progress

    def say(what: str, _: float) -> None:
        tell(what, min(1.0, (time.monotonic() - start) / max(seconds, 1e-9)))

    return say


# ----------------------------------------------------------------------------------------------------------- as JSON


def document(plan: Plan) -> dict[str, Any]:
    """The plan in JSON types; amounts in the units of the tables."""
    names = plan.problem.dimensions

    def amounts(values: Int64s) -> dict[str, float]:
        return {name: round(int(value) / 1_000, 3) for name, value in zip(names, values, strict=True)}

    return {
        "fits": plan.fits,
        "tasks": plan.problem.tasks,
        "placed": plan.placed,
        "refused": [
            {"jobName": r.job, "tasks": r.tasks, "reason": r.reason, "couldEverFit": r.could_ever_fit}
            for r in plan.refused
        ],
        "untried": [{"jobName": u.job, "tasks": u.tasks} for u in plan.untried],
        "cannot": plan.bound_broken,
        "hosts": len(plan.packing.hosts),
        "hostsUsed": plan.packing.used,
        "demand": amounts(plan.problem.demand),
        "capacity": amounts(plan.capacity),
        "used": amounts(plan.used),
        "stranded": amounts(plan.stranded),
        "needs": [_need_document(plan.problem, need) for need in plan.needs],
        "mix": None
        if plan.mix is None
        else {
            "hosts": [{"hostType": name, "hosts": hosts} for name, hosts in plan.mix.hosts],
            "price": plan.mix.price,
            "unsuitableTasks": plan.mix.unsuitable,
            "untriedTasks": plan.mix.untried,
        },
        "failures": [
            {
                "what": f.what,
                "hosts": f.hosts,
                "displaced": f.displaced,
                "homeless": f.homeless,
                "homelessAfterMoving": f.after_moving,
                "untried": f.untried,
            }
            for f in plan.failures
        ],
        "more": [{"jobName": m.job, "atLeast": m.at_least, "atMost": m.at_most} for m in plan.more],
        "notes": list(plan.notes),
    }


def _need_document(problem: Problem, need: Need) -> dict[str, Any]:
    bound = need.found.bound
    proof = None
    if bound.weights is not None:
        worth = zip(_positive_kinds(problem, need), bound.weights.weights, strict=True)
        proof = {
            "most": bound.weights.most,
            "total": bound.weights.total,
            "weights": [{"jobName": job, "weight": weight} for job, weight in worth],
        }
    return {
        "hostType": need.name,
        "hosts": need.hosts,
        "atLeast": bound.hosts,
        "proven": need.found.proven,
        "because": bound.how,
        "unsuitableTasks": need.unsuitable,
        "untriedTasks": need.untried,
        "price": need.price,
        "proof": proof,
    }


def _positive_kinds(problem: Problem, need: Need) -> list[str]:
    """The jobs of the kinds that the LP speaks of: those with tasks on the packing's hosts, in order."""
    kinds = problem.kind_of_tasks()[need.found.packing.host_of >= 0]
    return [problem.task_kinds[kind].job for kind in np.unique(kinds).tolist()]


def _names(kind: HostKind) -> Iterator[str]:
    for part, copies in kind.parts or ((kind.name, kind.copies),):
        yield from (part if copies == 1 else f"{part}#{i}" for i in range(copies))
