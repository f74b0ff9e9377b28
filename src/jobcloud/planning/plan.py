"""`make_plan` answers the questions of capacity planning.

plan = make_plan(problem, Question(failures=(1, 2), more=("reports",)))
plan.fits, plan.needs[0].hosts, plan.needs[0].found.bound.hosts
"""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobcloud.errors import NotFound
from jobcloud.planning.given import fewer_hosts
from jobcloud.planning.mixes import cheapest
from jobcloud.planning.packing import UNFINISHED, UNPLACED, UNTRIED, Fewest, Packing, Progress, fewest, place
from jobcloud.planning.problem import HostKind, Int64s, Problem
from jobcloud.planning.verify import verify

_MAX_HOST_TYPES: Final = 6
_MAX_MORE: Final = 100_000
_FAIL_BY: Final = "zone"
_WHY_UNTRIED: Final = {
    UNTRIED: "no host was searched in time",
    UNFINISHED: "the search for a host did not end in time",
}


@dataclass(frozen=True, slots=True)
class Question:
    """The options of a plan. Every plan answers whether the tasks fit and how many hosts they need.

    `how_many`: the problem's hosts are types, and any number of each is available. Without it, these are the existing
    hosts. `failures`: numbers of failed hosts. `fail_by`: the attribute that defines a failure domain. `more`: jobs
    whose headroom is computed. `seconds`: the time to search for packings. Tasks not tried by then are untried.
    """

    how_many: bool = False
    failures: tuple[int, ...] = (1,)
    fail_by: str = _FAIL_BY
    more: tuple[str, ...] = ()
    seconds: float = 30.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class RefusedTasks:
    """The tasks of a job that have no host, and the reason."""

    job: str
    tasks: int
    reason: str
    could_ever_fit: bool


@dataclass(frozen=True, slots=True)
class UntriedTasks:
    """The tasks of a job for which the time was over before all searches ended. There may be room for them."""

    job: str
    tasks: int
    reason: str


@dataclass(frozen=True, slots=True)
class Need:
    """The hosts of one type for all tasks that can run on this type. `price`: the price of all these hosts.

    `unsuitable`: tasks that cannot run on this type. `untried`: tasks that have no host because the time was over.
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
    """The effect of failed hosts. `displaced`: the tasks that ran there.

    `homeless`: displaced tasks that find no other host if no other task moves, as in the scheduler. `after_moving`:
    displaced tasks that find no host even if others move. `untried`: displaced tasks that were not tried before the
    time was over. If there are untried tasks, moving was not tried, and `after_moving` equals `homeless`.
    """

    what: str
    hosts: int
    displaced: int
    homeless: int
    after_moving: int
    untried: int = 0


@dataclass(frozen=True, slots=True)
class More:
    """Headroom of a job: at least `at_least` and at most `at_most` more tasks fit.

    The lower number holds if no other task moves, the upper number for any arrangement.
    """

    job: str
    at_least: int
    at_most: int


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """Hosts of several types for all tasks. `hosts`: (type, number), `kinds`: the host kinds of these types.

    `price`: for all hosts, 0 if no type has a price. No mix costs less than `at_least`; `because` is the reason in
    words. `proven`: whether no mix is cheaper.
    """

    packing: Packing
    hosts: tuple[tuple[str, int], ...]
    kinds: tuple[int, ...]
    price: float
    at_least: float
    because: str
    proven: bool
    unsuitable: int
    untried: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The answers. `packing` uses the existing hosts or, with `how_many`, those of the mix or of the only type.

    `existing`: the number of existing hosts of each type, by the kind of its needs. The needs and the mix are for any
    number of hosts.
    """

    problem: Problem
    question: Question
    packing: Packing
    refused: tuple[RefusedTasks, ...]
    untried: tuple[UntriedTasks, ...]
    needs: tuple[Need, ...]
    mix: Mix | None
    failures: tuple[Failure, ...]
    more: tuple[More, ...]
    existing: Mapping[int, int]
    used: Int64s
    capacity: Int64s
    stranded: Int64s
    bound_broken: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def fits(self) -> bool:
        """Whether every task has a host."""
        return not self.refused and not self.untried

    @property
    def placed(self) -> int:
        return self.problem.tasks - self.packing.unplaced


def make_plan(problem: Problem, question: Question | None = None, progress: Progress | None = None) -> Plan:
    """Answer the question. The checker has verified every packing in the answer. Raises NotFound for an unknown job.

    The question's `seconds` limit the search for packings. A running search step is not interrupted. The checker, the
    reasons of refusals, the failures and the headroom take further time.
    """
    question = question or Question()
    kinds_of_more = [_kind_of_job(problem, job) for job in question.more]
    members = _types(problem)
    types = list(members)
    searched = types[:_MAX_HOST_TYPES]
    say = _said_of(progress, question.seconds)
    # The hosts given and the mix of types may take as long as all single types together.
    several = len(searched) if len(searched) > 1 else 0
    given = 0 if question.how_many else several + 1
    time_ = _Time(question.seconds, len(searched) + several + given)
    packing = None
    if several and not question.how_many:
        packing = place(
            problem, problem.host_list(), seconds=time_.part(several), seed=question.seed, thorough=True, progress=say
        )
    needs = tuple(_need(problem, kind, time_.part(1), question.seed, say) for kind in searched)
    mix = _mix(problem, needs, time_.part(several), question.seed, say) if several else None
    if mix is not None and question.how_many:
        packing = mix.packing
    elif question.how_many:
        packing = needs[0].found.packing if needs else _nothing(problem)
    elif packing is None:
        packing = place(
            problem, problem.host_list(), seconds=time_.part(1), seed=question.seed, thorough=True, progress=say
        )
    if not question.how_many:
        others = [need.found.packing for need in needs] + ([mix.packing] if mix else [])
        seconds = time_.part(1)
        packing = fewer_hosts(problem, packing, others, members, seconds=seconds, seed=question.seed, progress=say)
    broken = _too_few(problem, needs, packing) if not question.how_many else ""
    if broken:
        packing = replace(packing, host_of=np.where(packing.host_of == UNFINISHED, UNPLACED, packing.host_of))
    share = question.seconds / (len(searched) + 1)
    verify(problem, packing)
    free = packing.free(problem)
    tried = _tried(problem, packing)
    capacity = _capacity(problem, packing)
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
        existing={} if question.how_many else {n: _copies(problem, kinds) for n, kinds in members.items()},
        used=capacity - free.sum(axis=0),
        capacity=capacity,
        stranded=_stranded(problem, packing, free),
        bound_broken=broken,
        notes=tuple(_notes(problem, question, packing, types)),
    )


class _Time:
    """Divides the time among searches by their weights. Time that a search does not use goes to the following ones."""

    def __init__(self, seconds: float, weight: int) -> None:
        self._end, self._weight = time.monotonic() + seconds, weight

    def part(self, weight: int) -> float:
        """The seconds of the next search."""
        share = weight / max(weight, self._weight)
        self._weight -= weight
        return max(0.0, self._end - time.monotonic()) * share


def _notes(problem: Problem, question: Question, packing: Packing, types: Sequence[int]) -> Iterator[str]:
    """Parts of the question that could not be answered."""
    if len(types) > _MAX_HOST_TYPES:
        yield f"{len(types)} types of hosts; only the {_MAX_HOST_TYPES} most frequent are used"
    for count in sorted({count for count in question.failures if count > len(packing.hosts) > 0}):
        yield f"{count:,} hosts cannot fail; there are only {len(packing.hosts):,}"
    known = any(question.fail_by in kind.attributes for kind in problem.host_kinds)
    if question.fail_by != _FAIL_BY and not known:
        yield f"no host has the attribute {question.fail_by}, so no failure domain was tried"


def host_names(problem: Problem, packing: Packing) -> list[str]:
    """The name of each host of a packing: the name of its table row, with a number if the row has several hosts."""
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


def _types(problem: Problem) -> dict[int, list[int]]:
    """The host kinds of each combination of capacity, allowed tasks and price, by the first one; most hosts first."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for n, kind in enumerate(problem.host_kinds):
        groups.setdefault((kind.capacity, kind.price, problem.allowed[:, n].tobytes()), []).append(n)
    ranked = sorted(groups.values(), key=lambda kinds: (-_copies(problem, kinds), kinds[0]))
    return {kinds[0]: kinds for kinds in ranked}


def _copies(problem: Problem, kinds: Sequence[int]) -> int:
    return sum(problem.host_kinds[n].copies for n in kinds)


def _need(problem: Problem, kind: int, seconds: float, seed: int, say: Progress | None) -> Need:
    found = fewest(problem, kind, seconds=seconds, seed=seed, progress=say)
    verify(problem, found.packing)
    place_ = problem.host_kinds[kind]
    untried = found.packing.untried
    return Need(place_.name, kind, found, found.packing.unplaced - untried, place_.price * found.hosts, untried)


def _mix(problem: Problem, needs: Sequence[Need], seconds: float, seed: int, say: Progress | None) -> Mix:
    types = [need.kind for need in needs]
    found = cheapest(problem, types, [need.found for need in needs], seconds=seconds, seed=seed, progress=say)
    packing = found.packing
    verify(problem, packing)
    counts = {kind: count for kind in types if (count := int((packing.hosts == kind).sum()))}
    hosts = tuple((problem.host_kinds[kind].name, count) for kind, count in counts.items())
    price = float(sum(problem.host_kinds[kind].price for kind in packing.hosts.tolist()))
    at_least = found.bound.price if price else 0.0
    untried = packing.untried
    return Mix(
        packing,
        hosts,
        tuple(counts),
        price,
        at_least,
        found.bound.how,
        found.proven,
        packing.unplaced - untried,
        untried,
    )


def _too_few(problem: Problem, needs: Sequence[Need], packing: Packing) -> str:
    """The proof that there are too few hosts, or "": their total amounts, or the bound for hosts of only one type."""
    if not packing.unplaced or not len(packing.hosts):
        return ""
    for name, demand, capacity in zip(problem.dimensions, problem.demand, _capacity(problem, packing), strict=True):
        if demand > capacity and (len(needs) != 1 or needs[0].unsuitable):
            return f"no placement can fit: the tasks need {_digits(demand)} {name}, all hosts have {_digits(capacity)}"
    if len(needs) != 1 or needs[0].unsuitable:
        return ""
    bound, hosts = needs[0].found.bound, len(packing.hosts)
    return (
        f"no placement can fit: at least {bound.hosts:,} hosts are needed ({bound.how}), there are {hosts:,}"
        if bound.hosts > hosts
        else ""
    )


def _capacity(problem: Problem, packing: Packing) -> Int64s:
    """int64[D]: the total amounts of all hosts of a packing."""
    return np.asarray(problem.capacity[packing.hosts].sum(axis=0))


def _nothing(problem: Problem) -> Packing:
    return Packing(np.zeros(0, dtype=np.int32), np.full(problem.tasks, -1, dtype=np.int32))


# ------------------------------------------------------------------------------------------------------------- refused


def _refusals(problem: Problem, packing: Packing, free: Int64s, seconds: float) -> tuple[RefusedTasks, ...]:
    """The refused tasks by job and reason, most tasks first. If the time is over, reasons contain no numbers."""
    end = time.monotonic() + seconds
    found: Counter[tuple[str, str, bool]] = Counter()
    for kind, parts in _without_host(problem, packing, UNPLACED):
        reason, ever = _reason(problem, packing, free, kind, exact=time.monotonic() < end)
        for job, tasks in parts:
            found[job, reason, ever] += tasks
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(RefusedTasks(job, tasks, reason, ever) for (job, reason, ever), tasks in ranked)


def _untried(problem: Problem, packing: Packing) -> tuple[UntriedTasks, ...]:
    """The untried tasks by job and reason, most tasks first."""
    found: Counter[tuple[str, str]] = Counter()
    for why, reason in _WHY_UNTRIED.items():
        for _, parts in _without_host(problem, packing, why):
            for job, tasks in parts:
                found[job, reason] += tasks
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(UntriedTasks(job, tasks, reason) for (job, reason), tasks in ranked)


def _without_host(problem: Problem, packing: Packing, why: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """The kinds with tasks that are `why` (such as UNPLACED), and the number of such tasks by job."""
    waiting = np.bincount(problem.kind_of_tasks()[packing.host_of == why], minlength=len(problem.task_kinds))
    for kind in np.flatnonzero(waiting).tolist():
        left, parts = int(waiting[kind]), []
        # If equal tasks of several jobs form the kind, the tasks of the last jobs count as those without a host.
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
        return f"no host has the required {names}", False
    largest = problem.capacity[allowed]
    if not (need <= largest).all(axis=1).any():
        lacking = [
            f"{_digits(need[d])} {name} of at most {_digits(largest[:, d].max())}"
            for d, name in enumerate(problem.dimensions)
            if need[d] > largest[:, d].max()
        ]
        return "larger than any host: " + (", ".join(lacking) or "no host has enough of all at once"), False
    hosts = np.flatnonzero(problem.allowed[kind][packing.hosts])
    if not len(hosts):
        return "no host is left on which it may run", True
    if not exact:
        return "no room", True
    short = need > free[hosts]
    parts = [f"{int(short[:, d].sum())} lack {name}" for d, name in enumerate(problem.dimensions) if short[:, d].any()]
    ruled = int((~short.any(axis=1)).sum())
    if ruled:
        parts.append(f"rules about other tasks exclude {ruled}")
    return f"no room on any of {len(hosts)} hosts: {', '.join(parts)}", True


def _digits(thousandths: int | np.int64) -> str:
    whole, rest = divmod(int(thousandths), 1_000)
    return f"{whole:,}" + (f".{rest:03}".rstrip("0") if rest else "")


def _stranded(problem: Problem, packing: Packing, free: Int64s) -> Int64s:
    """int64[D]: the free amounts on used hosts without room for any further task of the demand."""
    used = np.unique(packing.host_of[packing.host_of >= 0])
    open_ = np.zeros(len(used), dtype=bool)
    for need in _smallest(problem.request[problem.counts > 0]):
        open_ |= (need <= free[used]).all(axis=1)
        if open_.all():
            break
    return np.asarray(free[used][~open_].sum(axis=0))


def _smallest(requests: Int64s) -> Iterator[Int64s]:
    """The minimal requests. A host without room for any of these has no room for any other request."""
    left = requests[np.argsort(requests.astype(np.float64).sum(axis=1), kind="stable")]
    while len(left):
        yield left[0]
        left = left[(left < left[0]).any(axis=1)]


# ------------------------------------------------------------------------------------------------- failures, and more


def _tried(problem: Problem, packing: Packing) -> tuple[Problem, Packing]:
    """The problem and its packing without untried tasks, which would take room that displaced tasks need."""
    if not packing.untried:
        return problem, packing
    kept = packing.host_of >= UNPLACED
    return _of_tasks(problem, kept), Packing(packing.hosts, packing.host_of[kept])


def _of_tasks(problem: Problem, kept: NDArray[np.bool_]) -> Problem:
    """The problem restricted to some tasks, bool[tasks]."""
    return problem.with_counts(np.bincount(problem.kind_of_tasks()[kept], minlength=len(problem.task_kinds)))


def _failures(problem: Problem, packing: Packing, question: Question, seconds: float) -> list[Failure]:
    if not len(packing.hosts):
        return []
    shares = 1 - packing.free(problem) / np.maximum(problem.capacity[packing.hosts], 1)
    fullest = np.argsort(-shares.max(axis=1, initial=0.0), kind="stable")
    groups: list[tuple[str, Int64s]] = [
        ("the fullest host" if count == 1 else f"the {count:,} fullest hosts", fullest[:count])
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
    homeless = max(0, found.unplaced - found.untried - before)
    after = max(0, moved.unplaced - found.untried - before)
    return Failure(what, len(hosts), displaced, homeless, min(after, homeless), found.untried)


def _kind_of_job(problem: Problem, job: str) -> int:
    """The kind that has the most tasks of the job."""
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
    limit = int(problem.max_per_host[problem.kind_job[kind]])
    each = np.full(len(capacity), min(limit, _MAX_MORE), dtype=np.int64)
    for d in np.flatnonzero(need):
        each = np.minimum(each, capacity[:, d] // need[d])
    running = int((problem.kind_of_tasks()[packing.host_of >= 0] == kind).sum())
    at_most = max(0, int(each.sum()) - running)
    for d in np.flatnonzero(need):
        # No arrangement of the other tasks changes the total of the free amounts.
        at_most = min(at_most, int(free[:, d].sum() // need[d]))
    tries = min(at_most, _MAX_MORE)
    counts = problem.counts
    counts[kind] += tries
    larger = problem.with_counts(counts)
    host_of = np.full(larger.tasks, -1, dtype=np.int32)
    after = int(problem.first[kind + 1])
    host_of[:after], host_of[after + tries :] = packing.host_of[:after], packing.host_of[after:]
    # Refused tasks of other jobs are left out, because headroom is the room next to the placed tasks.
    kept = (host_of >= 0) | (larger.kind_of_tasks() == kind)
    only = _of_tasks(larger, kept)
    found = place(only, packing.hosts, start=Packing(packing.hosts, host_of[kept]), move=False)
    verify(only, found)
    placed = int((only.kind_of_tasks()[found.host_of >= 0] == kind).sum()) - running
    return More(job, placed, max(at_most, placed))


def _said_of(progress: Progress | None, seconds: float) -> Progress | None:
    """Report the share of the total time instead of the progress of single steps."""
    if progress is None:
        return None
    start, tell = time.monotonic(), progress

    def say(what: str, _: float) -> None:
        tell(what, min(1.0, (time.monotonic() - start) / max(seconds, 1e-9)))

    return say


# ----------------------------------------------------------------------------------------------------------- as JSON


def document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON types; amounts in the units of the tables."""
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
        "untried": [{"jobName": u.job, "tasks": u.tasks, "reason": u.reason} for u in plan.untried],
        "cannot": plan.bound_broken,
        "hosts": len(plan.packing.hosts),
        "hostsUsed": plan.packing.used,
        "demand": amounts(plan.problem.demand),
        "capacity": amounts(plan.capacity),
        "used": amounts(plan.used),
        "stranded": amounts(plan.stranded),
        "needs": [_need_document(plan.problem, need) | _existing(plan, need.kind) for need in plan.needs],
        "mix": None
        if plan.mix is None
        else {
            "hosts": [
                {"hostType": name, "hosts": hosts} | _existing(plan, kind)
                for kind, (name, hosts) in zip(plan.mix.kinds, plan.mix.hosts, strict=True)
            ],
            "price": plan.mix.price,
            "priceAtLeast": plan.mix.at_least,
            "proven": plan.mix.proven,
            "because": plan.mix.because,
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


def _existing(plan: Plan, kind: int) -> dict[str, int]:
    return {"existing": plan.existing[kind]} if plan.existing else {}


def _need_document(problem: Problem, need: Need) -> dict[str, Any]:
    bound = need.found.bound
    proof = None
    if bound.weights is not None:
        worth = zip(_positive_kinds(problem, need), bound.weights.weights, strict=True)
        proof = {
            "most": bound.weights.max_value,
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
    """The jobs of the weights in the proof, in their order: one for each task kind that has a task in the packing."""
    kinds = problem.kind_of_tasks()[need.found.packing.host_of >= 0]
    return [problem.task_kinds[kind].job for kind in np.unique(kinds).tolist()]


def _names(kind: HostKind) -> Iterator[str]:
    for part, copies in kind.parts or ((kind.name, kind.copies),):
        yield from (part if copies == 1 else f"{part}#{i}" for i in range(copies))
