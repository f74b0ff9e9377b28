"""Finds good packings, with more computing time than a scheduler may spend.

Each of the three stages improves the result of the stage before.

1. Constructive heuristics (Panigrahy and others, Heuristics for Vector Bin Packing, 2011). Either each task goes to the
   host that suits it best (first fit, best fit or dot product; in the order of arrival or by size), or each host gets
   the tasks that suit it best (dot product or L2, bin-centric). If there are too many kinds and hosts, a moving window
   limits the choice.
2. The whole hosts of the configuration LP, if a solver is installed.
3. Improvement: tasks without a host eject others that may find room elsewhere (`_pack.Packer.improve`).

Limits count work instead of time, so the same input gives the same answer, unless the time runs out or one search of
the solver takes longer than its own limit of a few seconds. A task is untried if the time ran out before a host was
searched for the task, and unfinished if the time ran out before stage 3 ended. There may be room for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobcloud.planning._pack import RULES, Packer
from jobcloud.planning.bounds import Bound, lower_bound
from jobcloud.planning.lp import ConfigurationLp
from jobcloud.planning.problem import Floats, Int32s, Int64s, Problem

#: (the current stage, the share of the time that has passed, 0 to 1)
Progress: TypeAlias = Callable[[str, float], None]

_FIRST, _BEST, _DOT, _L2 = (RULES.index(name) for name in ("first", "best", "dot", "l2"))
_BY_WINDOW: Final = -1
_CHUNK: Final = 250
_LOOKS_A_CHUNK: Final = 4_000_000
_STEPS: Final = 40_000
_STEPS_A_TASK: Final = 200
_LONGER: Final = 20
_SHUFFLES: Final = 20
_MANY_TASKS: Final = 20_000
_MAX_LP_KINDS: Final = 1_000
_MAX_LOOKS: Final = 2_000_000
#: With more (kind, host) pairs than this, each host considers only a window of the kinds.
_MAX_PAIRS: Final = 300_000_000
_WINDOWS: Final = (64, 1_024)
_WINDOWED_PAIRS: Final = 100_000_000
#: This many (kind, host) pairs are tried even if the time is over, so that small problems are never left untried.
_SURE_LOOKS: Final = 20_000_000

UNPLACED: Final = -1
UNTRIED: Final = -2
UNFINISHED: Final = -3


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """An answer.

    `hosts` int32[H]: the kind of each host. `host_of` int32[tasks]: the host of each task, UNPLACED if no search finds
    room, UNTRIED if the time was over before a host was searched, UNFINISHED if it was over during a search.
    """

    hosts: Int32s
    host_of: Int32s

    @property
    def unplaced(self) -> int:
        """The number of tasks without a host, tried or not."""
        return int((self.host_of < 0).sum())

    @property
    def untried(self) -> int:
        """The number of tasks for which the time was over before all searches ended."""
        return int((self.host_of < UNPLACED).sum())

    @property
    def used(self) -> int:
        """The number of hosts with tasks."""
        return len(np.unique(self.host_of[self.host_of >= 0]))

    def held(self, problem: Problem) -> Int32s:
        """int32[H, K]: the number of tasks of each kind on each host. Use it for few kinds only: the table is large."""
        table = np.zeros((len(self.hosts), len(problem.task_kinds)), dtype=np.int32)
        placed = self.host_of >= 0
        np.add.at(table, (self.host_of[placed], problem.kind_of_tasks()[placed]), 1)
        return table

    def free(self, problem: Problem) -> Int64s:
        """int64[H, D]: the free amounts of each host, with shared amounts taken."""
        left = problem.capacity[self.hosts].copy()
        placed = self.host_of >= 0
        places, kinds = self.host_of[placed], problem.kind_of_tasks()[placed]
        np.subtract.at(left, places, problem.request[kinds])
        keys = problem.kind_key[kinds]
        paid = np.unique(np.stack((places[keys >= 0], keys[keys >= 0])), axis=1)
        np.subtract.at(left, paid[0], problem.shared[paid[1]])
        return left

    def without(self, hosts: Int64s) -> Packing:
        """The same packing without some hosts. The tasks of these hosts become unplaced."""
        kept = np.setdiff1d(np.arange(len(self.hosts)), hosts)
        number = np.full(len(self.hosts) + 3, UNPLACED, dtype=np.int32)
        number[UNTRIED], number[UNFINISHED] = UNTRIED, UNFINISHED
        number[kept] = np.arange(len(kept), dtype=np.int32)
        return Packing(self.hosts[kept], number[self.host_of])

    def compact(self) -> Packing:
        """The same packing without empty hosts."""
        return self.without(np.setdiff1d(np.arange(len(self.hosts)), self.host_of))


@dataclass(frozen=True, slots=True)
class Fewest:
    """The fewest hosts found, and the lower bound.

    Tasks that were not tried in time have no host in the packing. The bound still counts them.
    """

    packing: Packing
    bound: Bound

    @property
    def hosts(self) -> int:
        return len(self.packing.hosts)

    @property
    def proven(self) -> bool:
        """Whether it is proven that no packing needs fewer hosts."""
        return self.hosts <= self.bound.hosts and not self.packing.untried


class _Clock:
    """Measures the remaining time and reports progress."""

    def __init__(self, seconds: float, progress: Progress | None) -> None:
        self.start, self.seconds, self._progress = time.monotonic(), seconds, progress

    @property
    def end(self) -> float:
        return self.start + self.seconds

    def over(self) -> bool:
        return time.monotonic() > self.end

    def cuts_off(self, looks: int) -> bool:
        """Whether to stop a packing that has tried this many (kind, host) pairs."""
        return looks > _SURE_LOOKS and self.over()

    def part(self, share: float) -> float:
        """The instant at which this share of the remaining time will have passed."""
        now = time.monotonic()
        return now + max(0.0, self.end - now) * share

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def say(self, what: str) -> None:
        if self._progress:
            self._progress(what, min(1.0, (time.monotonic() - self.start) / max(self.seconds, 1e-9)))


def place(
    problem: Problem,
    hosts: Int32s,
    *,
    start: Packing | None = None,
    seconds: float = 10.0,
    seed: int = 1,
    move: bool = True,
    thorough: bool = False,
    progress: Progress | None = None,
) -> Packing:
    """Place as much of the demand as possible on the given hosts (int32[H], the kind of each).

    `start`: a packing with hosts for some tasks. Without `move`, these tasks stay, and the others use the free room.
    `thorough`: if tasks have no host at the end of the search, although the total amounts suffice, half of the time
    that is left goes to a longer search. This search may be cut off: the tasks are not unfinished then.
    """
    clock = _Clock(seconds, progress)
    begun = _first_packing(problem, hosts, clock) if start is None else None
    found = begun or _filled(problem, hosts, clock, seed, start)
    if not move:
        return found
    found = _improved(problem, found, clock, clock.end, seed)
    if thorough and not found.untried and (problem.demand <= problem.capacity[hosts].sum(axis=0)).all():
        more = _improved(problem, found, clock, clock.part(0.5), seed + 1, longer=_LONGER)
        return Packing(hosts, np.maximum(more.host_of, np.int32(UNPLACED)))
    return found


def fewest(
    problem: Problem, kind: int, *, seconds: float = 30.0, seed: int = 1, progress: Progress | None = None
) -> Fewest:
    """The fewest hosts of one kind for all tasks that can run on such hosts, and a lower bound.

    Tasks that cannot run on such hosts stay unplaced and do not count.
    """
    clock = _Clock(seconds, progress)
    part = _suitable(problem, kind)
    bound = lower_bound(part, kind)
    clock.say("bounds")
    best = _constructed(part, kind, bound.hosts, clock)
    if best.untried:
        return Fewest(_widened(problem, part, best), bound)
    if best.used > bound.hosts:
        lp = _solved_lp(part, kind, best, clock) if _lp_applies(part, kind) else None
        if lp is not None:
            bound = max(bound, Bound(lp.weights.hosts, "configuration LP", lp.weights), key=lambda b: b.hosts)
            best = _from_lp(part, kind, lp, best, bound.hosts, clock, seed)
    best = _descend(part, kind, best, bound.hosts, clock, seed)
    return Fewest(_widened(problem, part, best.compact()), bound)


# ------------------------------------------------------------------------------------------------------ the hosts given


def _place(
    problem: Problem, hosts: Int32s, clock: _Clock, until: float, seed: int, start: Packing | None = None
) -> Packing:
    return _improved(problem, _filled(problem, hosts, clock, seed, start), clock, until, seed)


def _first_packing(problem: Problem, hosts: Int32s, clock: _Clock) -> Packing | None:
    """The best packing of the rules of the matcher, in the order of arrival and by size.

    The first one is complete, unless the time is over. None if there are too many kinds and hosts.
    """
    if not len(hosts) or int((problem.counts > 0).sum()) * len(hosts) > _MAX_PAIRS:
        return None
    orders = _orders(problem, problem.capacity[hosts])
    weight = _scarcity(problem, problem.capacity[hosts])
    kinds, able = problem.kind_of_tasks(), _able(problem, hosts)
    best, looks = None, 0
    for order in orders:
        for rule in (_FIRST, _BEST, _DOT):
            clock.say("first packings")
            packer = Packer(problem, problem.capacity[hosts], hosts, weight, 1)
            waiting = np.zeros(len(problem.task_kinds), dtype=np.bool_)
            for n, kind in enumerate(order.tolist()):
                if clock.cuts_off(looks):
                    waiting[order[n:]] = True
                    break
                packer.place(kind, rule)
                looks += len(hosts)
            host_of = packer.placement()
            untried = (waiting & able)[kinds] & (host_of < 0)
            found = Packing(hosts, np.where(untried, np.int32(UNTRIED), host_of))
            if best is None or (found.unplaced, found.used) < (best.unplaced, best.used):
                best = found
            if clock.cuts_off(looks):
                return best
    return best


def _orders(problem: Problem, capacity: Int64s) -> tuple[Int32s, Int32s]:
    """The kinds with tasks, in the order of arrival and by size, the largest first."""
    size = _sizes(problem, capacity, _scarcity(problem, capacity))
    some = problem.counts > 0
    arrival, by_size = problem.arrival, np.argsort(-size, kind="stable").astype(np.int32)
    return arrival[some[arrival]], by_size[some[by_size]]


def _filled(problem: Problem, hosts: Int32s, clock: _Clock, seed: int, start: Packing | None) -> Packing:
    """Put the tasks without a host on free hosts, the largest first, each on the host that suits it best."""
    if not len(hosts) or not problem.tasks:
        return start or Packing(hosts, np.full(problem.tasks, UNPLACED, dtype=np.int32))
    capacity = problem.capacity[hosts]
    weight = _scarcity(problem, capacity)
    order = np.argsort(-_sizes(problem, capacity, weight), kind="stable")
    packer = Packer(problem, capacity, hosts, weight, seed)
    if start is not None:
        packer.assign(np.ascontiguousarray(start.host_of, dtype=np.int32))
    kinds = problem.kind_of_tasks()
    waiting = np.bincount(kinds[packer.placement() < 0], minlength=len(problem.task_kinds)) > 0
    if int(waiting.sum()) * len(hosts) > _MAX_PAIRS:
        _fill_by_window(problem, packer, hosts, weight, clock)
        waiting = np.bincount(kinds[packer.placement() < 0], minlength=len(problem.task_kinds)) > 0
    for n, kind in enumerate(order[waiting[order]]):
        if clock.cuts_off(n * len(hosts)):
            break
        packer.place(int(kind), _DOT)
        waiting[kind] = False
    host_of = packer.placement()
    # A task that fits no empty host needs no search. It is not untried, but has no room.
    untried = (waiting & _able(problem, hosts))[kinds] & (host_of < 0)
    return Packing(hosts, np.where(untried, np.int32(UNTRIED), host_of))


def _fill_by_window(problem: Problem, packer: Packer, hosts: Int32s, weight: Floats, clock: _Clock) -> None:
    """Fill each host with the tasks that suit it best from a window of kinds.

    When all tasks of a kind are placed, a new kind takes its place in the window. The kinds are in random order, so the
    window always holds large and small ones. The width of the window is chosen so that a pass takes a few seconds.
    With 20,000 kinds in two dimensions, a window of 1,024 comes within 0.5 % of the bound, 256 within 1.2 %, 64 within
    1.9 %.
    """
    width = min(max(_WINDOWED_PAIRS // max(problem.tasks, 1), _WINDOWS[0]), _WINDOWS[1])
    for host_kind in np.unique(hosts):
        kinds = np.flatnonzero(_able(problem, np.array([host_kind])) & (problem.counts > 0)).astype(np.int32)
        queue = np.random.default_rng(1).permutation(kinds[packer.waiting(kinds)])
        window, following = queue[:width], width
        for n, host in enumerate(np.flatnonzero(hosts == host_kind).tolist()):
            if not len(window) or clock.cuts_off(n * width):
                break
            packer.fill(host, window, _DOT, weight)
            window = window[packer.waiting(window)]
            lacking = width - len(window)
            window = np.concatenate((window, queue[following : following + lacking]))
            following += lacking


def _able(problem: Problem, hosts: Int32s) -> NDArray[np.bool_]:
    """bool[K]: whether a task of the kind fits any of the hosts if that host is empty. Other kinds are not tried."""
    able = np.zeros(len(problem.task_kinds), dtype=np.bool_)
    for kind in np.unique(hosts):
        able |= (problem.needs() <= problem.capacity[kind]).all(axis=1) & (problem.allowed[:, kind] > 0)
    return able


def _improved(problem: Problem, found: Packing, clock: _Clock, until: float, seed: int, *, longer: int = 1) -> Packing:
    """The best packing that ejection finds: of those with the fewest tasks without a host, the one with the smallest.

    If the time is over before the search ends, tasks without a host are unfinished. `longer`: the factor of the steps.
    """
    hosts, kinds = found.hosts, problem.kind_of_tasks()
    able = _able(problem, hosts)[kinds]
    waiting = np.flatnonzero((found.host_of < 0) & able)
    if not len(waiting):
        return found
    capacity = problem.capacity[hosts]
    weight = _scarcity(problem, capacity)
    size = _sizes(problem, capacity, weight)
    packer = Packer(problem, capacity, hosts, weight, seed)
    packer.assign(np.ascontiguousarray(found.host_of, dtype=np.int32))
    pool: Int32s = waiting[np.argsort(size[kinds[waiting]], kind="stable")].astype(np.int32)
    best, least, ended = found.host_of, (len(pool), float(size[kinds[pool]].sum())), True
    shuffles = _SHUFFLES if problem.tasks < _MANY_TASKS else 0
    chunk = max(10, min(_CHUNK, _LOOKS_A_CHUNK // max(problem.tasks, 1)))
    steps = min(_STEPS, _STEPS_A_TASK * problem.tasks + _CHUNK)
    for _ in range(-(-steps * longer // chunk)):
        if not len(pool):
            break
        if time.monotonic() > until:
            ended = False
            break
        pool = packer.improve(pool, chunk, shuffles)
        left = len(pool), float(size[kinds[pool]].sum())
        clock.say("improving")
        if left < least:
            best, least = packer.placement(), left
    unfinished = (best == UNPLACED) & able & (not ended)
    return Packing(hosts, np.where(unfinished, np.int32(UNFINISHED), best))


def _scarcity(problem: Problem, capacity: Int64s) -> Floats:
    """float64[D]: the weight of each dimension, which is the share of the total capacity that the demand takes."""
    total = capacity.sum(axis=0).astype(np.float64)
    return np.asarray(problem.demand / np.maximum(total, 1.0)) + 1e-6


def _sizes(problem: Problem, capacity: Int64s, weight: Floats) -> Floats:
    """float64[K]: the share of a mean host that a task of each kind takes."""
    mean = np.maximum(capacity.mean(axis=0), 1.0)
    return np.asarray((problem.request / mean) @ weight) + 1e-9


# ------------------------------------------------------------------------------------------------- hosts of one kind


def _suitable(problem: Problem, kind: int) -> Problem:
    """The same demand, restricted to tasks that can run on the host kind."""
    able = (problem.needs() <= problem.capacity[kind]).all(axis=1) & (problem.allowed[:, kind] > 0)
    able &= problem.max_per_host[problem.kind_job] > 0
    return problem.with_counts(np.where(able, problem.counts, 0))


def _widened(problem: Problem, part: Problem, packing: Packing) -> Packing:
    """Convert a packing of the restricted demand to one of the whole demand."""
    host_of = np.full(problem.tasks, UNPLACED, dtype=np.int32)
    places = np.repeat(problem.first[:-1], part.counts) + (
        np.arange(part.tasks) - np.repeat(part.first[:-1], part.counts)
    )
    host_of[places] = packing.host_of
    return Packing(packing.hosts, host_of)


def _constructed(problem: Problem, kind: int, bound: int, clock: _Clock) -> Packing:
    """The best packing of all tasks by a constructive heuristic. It uses as many hosts as it needs.

    If the time is over before the first heuristic completes, its tasks without a host are untried.
    """
    counts, tasks, capacity = problem.counts, problem.tasks, problem.capacity[kind]
    weight = _scarcity(problem, np.tile(capacity, (max(bound, 1), 1)))
    arrival, by_size = _orders(problem, np.tile(capacity, (max(bound, 1), 1)))
    best: Packing | None = None
    host_limit = min(tasks, max(bound * 2, bound + 10))
    # With many kinds and many hosts, it takes too long to try every kind on every host.
    pairs = len(by_size) * max(bound, 1)
    by_host = ((_DOT, by_size, True), (_L2, by_size, True)) if pairs <= _MAX_LOOKS else ()
    by_task = [(rule, order, False) for rule in (_BEST, _FIRST) for order in (by_size, arrival)]
    for rule, order, centric in ((_BY_WINDOW, by_size, False),) if pairs > _MAX_PAIRS else (*by_host, *by_task):
        clock.say("first packings")
        packing = None
        limit = host_limit
        while packing is None:
            hosts = np.full(limit, kind, dtype=np.int32)
            packer = Packer(problem, problem.capacity[hosts], hosts, weight, 1)
            left, looks = tasks, 0
            steps = range(limit) if centric else order.tolist()
            if rule == _BY_WINDOW:
                _fill_by_window(problem, packer, hosts, weight, clock)
                left, looks, steps = int((packer.placement() < 0).sum()), limit * _WINDOWS[0], ()
            for step in steps:
                if not left or clock.cuts_off(looks):
                    break
                if centric:
                    left -= packer.fill(step, order, rule, weight)
                    looks += len(order)
                else:
                    # Both rules open hosts in their order, so the first ones are those with tasks.
                    tried = min(limit, int(np.count_nonzero(packer.used())) + int(counts[step]))
                    left -= int(counts[step]) - packer.place(step, rule, tried)
                    looks += tried
            if left == 0:
                packing = Packing(hosts, packer.placement()).compact()
            elif clock.cuts_off(looks):
                if best is None:
                    host_of = packer.placement()
                    best = Packing(hosts, np.where(host_of < 0, np.int32(UNTRIED), host_of)).compact()
                return best
            elif limit >= tasks:
                break
            limit = min(tasks, limit * 2)
        if packing is not None and (best is None or packing.used < best.used):
            best = packing
        if best is not None and (best.used <= bound or clock.over()):
            break
    if best is None:
        # One host per task is always an answer.
        best = Packing(np.full(tasks, kind, dtype=np.int32), np.arange(tasks, dtype=np.int32))
    return best


def _descend(problem: Problem, kind: int, best: Packing, bound: int, clock: _Clock, seed: int) -> Packing:
    """Reduce the number of hosts. Each try aims at the middle between the current number and the bound.

    Ends if the bound is reached, the time is over, or no packing with one host fewer is found.
    """
    low, failed = bound, bound - 1
    while best.used > low and not clock.over():
        target = (failed + best.used + 1) // 2 if failed >= low else (low + best.used) // 2
        target = min(max(target, low), best.used - 1)
        clock.say(f"{best.used} hosts suffice, trying {target}")
        hosts = np.full(target, kind, dtype=np.int32)
        found = _place(problem, hosts, clock, clock.part(0.4), seed)
        if found.unplaced:
            found = _place(problem, hosts, clock, clock.part(0.2), seed + 1, _dropped(best, target))
        if found.unplaced == 0:
            best = found.compact()
        elif target >= best.used - 1:
            break
        else:
            failed = max(failed, target)
            low = max(low, target + 1)
        seed += 2
    return best


def _dropped(packing: Packing, hosts: int) -> Packing:
    """The packing with only the `hosts` fullest hosts, by number of tasks. The other tasks become unplaced."""
    held = np.bincount(packing.host_of[packing.host_of >= 0], minlength=len(packing.hosts))
    return packing.without(np.argsort(-held, kind="stable")[hosts:])


# --------------------------------------------------------------------------------------------------- from the LP


def _lp_applies(problem: Problem, kind: int) -> bool:
    """Whether patterns depend on kinds only: no rules between jobs, no shared amounts, one kind in each limited job."""
    from jobcloud.planning.lp import available

    counts = problem.counts
    kinds_of_job = np.bincount(problem.kind_job[counts > 0], minlength=len(problem.jobs))
    limited = problem.max_per_host < np.bincount(problem.kind_job, weights=counts, minlength=len(problem.jobs))
    simple = not problem.has_rules and not (problem.kind_key >= 0).any() and not (limited & (kinds_of_job > 1)).any()
    return bool(simple and (counts > 0).sum() <= _MAX_LP_KINDS and available())


def _solved_lp(problem: Problem, kind: int, best: Packing, clock: _Clock) -> ConfigurationLp:
    used = np.flatnonzero(problem.counts)
    held = best.held(problem)[:, used]
    lp = ConfigurationLp(
        problem.capacity[kind],
        problem.request[used],
        np.minimum(problem.max_per_host[problem.kind_job[used]], 1 << 30).astype(np.int32),
        patterns=list(np.unique(held, axis=0)),
    )
    clock.say("configuration LP")
    lp.solve(problem.counts[used], clock.part(0.6))
    return lp


def _from_lp(
    problem: Problem, kind: int, lp: ConfigurationLp, best: Packing, bound: int, clock: _Clock, seed: int
) -> Packing:
    """Try up to two hosts more than the bound: keep whole hosts of the LP, and pack the other tasks on other hosts."""
    used = np.flatnonzero(problem.counts)
    counts = problem.counts[used]
    for target in range(bound, bound + 3):
        if target >= best.used or clock.over():
            break
        clock.say(f"{best.used} hosts suffice, trying {target}")
        for share in (1.0, 0.6, 0.3, 0.0, None):
            # None stands for the best integer solution over the same patterns, instead of the LP's whole hosts.
            if share is None:
                start = _laid_out(problem, used, kind, lp.integral(counts, 0.4 * clock.left()), 1.0, target)
            else:
                start = _laid_out(problem, used, kind, lp.whole(counts), share, target)
            found = _rest_placed(problem, start, clock, clock.part(0.15), seed)
            seed += 1
            if found.unplaced == 0:
                return found.compact()
    return best


def _laid_out(
    problem: Problem, used: Int64s, kind: int, whole: list[tuple[Int32s, int]], share: float, hosts: int
) -> Packing:
    """A packing with a share of the whole hosts of the LP. The other hosts are empty."""
    following = problem.first[:-1].astype(np.int64)
    host_of, host = np.full(problem.tasks, -1, dtype=np.int32), 0
    for pattern, copies in whole:
        for _ in range(int(copies * share)):
            if host >= hosts:
                break
            for at in np.flatnonzero(pattern):
                task = following[used[at]]
                host_of[task : task + pattern[at]] = host
                following[used[at]] += pattern[at]
            host += 1
    return Packing(np.full(hosts, kind, dtype=np.int32), host_of)


def _rest_placed(problem: Problem, start: Packing, clock: _Clock, until: float, seed: int) -> Packing:
    """Keep the hosts of the start that have tasks. Pack the other tasks on the empty hosts, as a smaller problem."""
    left = start.host_of < 0
    kinds = problem.kind_of_tasks()
    counts = np.bincount(kinds[left], minlength=len(problem.task_kinds))
    rest = problem.with_counts(counts)
    taken = int(start.host_of.max()) + 1
    found = _place(rest, start.hosts[taken:], clock, until, seed)
    host_of = start.host_of.copy()
    host_of[np.flatnonzero(left)] = np.where(found.host_of >= 0, found.host_of + taken, -1)
    return Packing(start.hosts, host_of)
