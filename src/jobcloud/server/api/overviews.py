"""Overviews: the numbers of the first page of a console, for each set of rights.

The scheduler's thread only copies references and counters. Everything else is computed on the thread of the request,
once for all senders: the numbers of each team. The numbers of a sender are the sums over the teams that it may view.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import NamedTuple

from pydantic import Field

from jobcloud.config import NOTHING, Job, Resources, team_of
from jobcloud.model import OF_TEAMS, Alert, Condition, Firing, JobState, pause_key
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.queue import Standing, cached_team_of
from jobcloud.server.api.authorization import Rights
from jobcloud.server.api.health import Health, health_view
from jobcloud.server.api.ports import Loop
from jobcloud.server.api.schema import Amounts, Instant, View, amounts

#: the maximum length of each list of an overview
MAX_LISTED = 20
# An overview is kept at least this many times as long as its numbers took to compute, but not longer than _MAX_KEPT_S.
_KEPT_TIMES, _MAX_KEPT_S = 50, 5.0


class JobNumbers(View):
    registered: int
    enabled: int = Field(description="neither the job nor its app is disabled")
    disabled: int = Field(description="the job or its app is disabled")
    paused: int = Field(description="the job, its app or everything is paused")


class WaitingNumbers(View):
    """The waiting shards by what they wait for."""

    resources: int = Field(description="an agent with room for them")
    quota: int = Field(description="room in the quota of their team")
    stopped: int = Field(description="the job, its app or everything is paused or disabled")
    back_off: int = Field(description="the instant of their next attempt, or a call of the listener of the run")
    earlier_run: int = Field(description="the end of an earlier run of their job")


class ShardNumbers(View):
    running: int = Field(description="attempts that were launched and have not ended")
    waiting: int
    waiting_for: WaitingNumbers


class RunNumbers(View):
    unfinished: int
    dead: int = Field(description="runs with shards that have used up their attempts")
    late: int = Field(description="unfinished runs that exceed lateAfterSeconds of their job")


class ClusterNumbers(View):
    agents: int
    closed: int = Field(description="agents that get no new tasks, because of a drain or maintenance")
    lost: int = Field(description="agents that are unreachable or gone")
    used: Amounts = Field(description="by attempts and executors")
    offered: Amounts = Field(description="free, in offers that the scheduler holds")
    total: Amounts = Field(description="the agents as they were last offered")


class LeaderView(View):
    epoch: int
    since: Instant = Field(description="when this leader last read the stored state")
    host: str = Field(description="the host name of its machine")


class LateRun(View):
    run_id: str
    job_name: str = Field(description="the key of the job")
    team: str
    fired_at: Instant
    late_since: Instant


class NextFiring(View):
    job_name: str = Field(description="the key of the job")
    team: str
    at: Instant
    time_zone: str = Field(description="the time zone of the job's schedule")


class OverviewNumbers(View):
    """The numbers of the teams that the sender may view, and the state of the cluster."""

    jobs: JobNumbers
    shards: ShardNumbers
    runs: RunNumbers
    alerts: dict[Condition, int] = Field(description="the open alerts by condition")
    cluster: ClusterNumbers | None = Field(description="null for senders who may not view the cluster")
    leader: LeaderView | None = Field(description="null for senders who may not view the cluster")
    health: Health | None = Field(description="as GET /health; null for senders who may not view the cluster")


class Overview(OverviewNumbers):
    late: list[LateRun] = Field(description=f"at most {MAX_LISTED} late runs, the newest first")
    next: list[NextFiring] = Field(
        description=f"at most {MAX_LISTED} jobs that fire next, without disabled and paused jobs"
    )


class _Facts(NamedTuple):
    """References and counters of the core at one moment. `agents` has (offered, closed, lost) of each agent."""

    jobs: dict[str, Job]
    ad_hoc: frozenset[str]
    states: dict[str, JobState]
    disabled_apps: frozenset[str]
    pauses: frozenset[str]
    due: dict[str, int]
    unfinished: list[Firing]
    standing: list[Standing]
    waiting: dict[str, int]
    uses: dict[str, tuple[int, Resources]]
    dead: dict[str, int]
    alerts: list[Alert]
    agents: list[tuple[Resources, bool, bool]]
    total: Resources
    epoch: int
    restored_ms: int


def _look(scheduler: Scheduler) -> _Facts:
    """On the scheduler's thread."""
    cluster = scheduler.cluster
    return _Facts(
        dict(scheduler.jobs),
        frozenset(scheduler.ad_hoc),
        dict(scheduler.job_states),
        frozenset(scheduler.disabled_apps),
        frozenset(scheduler.pauses),
        dict(scheduler.due),
        scheduler.queue.unfinished_firings(),
        scheduler.standing(),
        dict(scheduler.queue.waiting),
        scheduler.uses(),
        scheduler.dead_by_job(),
        list(scheduler.alerts.values()),
        [(entry.offered, entry.id in cluster.cordoned, entry.lost) for entry in cluster.agents.values()],
        cluster.total(),
        scheduler.epoch,
        scheduler.restored_ms,
    )


@dataclass(slots=True)
class _Numbers:
    """The numbers of one team, or sums of them. The names are those of the views."""

    registered: int = 0
    disabled: int = 0
    paused: int = 0
    running: int = 0
    waiting: int = 0
    resources: int = 0
    quota: int = 0
    stopped: int = 0
    back_off: int = 0
    unfinished: int = 0
    dead: int = 0
    late: int = 0

    def add(self, other: _Numbers) -> None:
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_NAMES = tuple(each.name for each in fields(_Numbers))


class _Table(dict[str, _Numbers]):
    """Team → its numbers."""

    def __missing__(self, team: str) -> _Numbers:
        self[team] = made = _Numbers()
        return made


class _Jobs:
    """Numbers that change only with the configuration, disabling and pauses. They are kept as long as these are equal.

    `stopped`: the jobs that start nothing, because they or their apps are disabled or paused, or everything is.
    `late_after`: the jobs with a limit for their runs, in milliseconds.
    """

    def __init__(self, facts: _Facts) -> None:
        self._jobs, self._disabled = facts.jobs, _disabled(facts)
        self._apps, self._pauses = facts.disabled_apps, facts.pauses
        self.teams = _Table()
        self.stopped: set[str] = set()
        self.late_after: dict[str, int] = {}
        everything = pause_key() in facts.pauses
        for key, job in facts.jobs.items():
            disabled = key in self._disabled or (bool(self._apps) and job.app_key in self._apps)
            paused = everything or (
                bool(self._pauses)
                and (pause_key(job=key) in self._pauses or pause_key(app=job.app_key) in self._pauses)
            )
            if disabled or paused:
                self.stopped.add(key)
            if job.late_after_ms:
                self.late_after[key] = job.late_after_ms
            if key not in facts.ad_hoc:
                numbers = self.teams[cached_team_of(key)]
                numbers.registered += 1
                numbers.disabled += disabled
                numbers.paused += paused

    def fits(self, facts: _Facts) -> bool:
        """Whether the numbers are those of these facts too. This is much faster than to count again."""
        return (
            self._apps == facts.disabled_apps
            and self._pauses == facts.pauses
            and self._disabled == _disabled(facts)
            and self._jobs == facts.jobs
        )


def _disabled(facts: _Facts) -> set[str]:
    return {key for key, state in facts.states.items() if state.disabled}


@dataclass(slots=True)
class _Known:
    """The numbers at one moment, and the views of them that were made. `alerts` is by team; "" is the cluster."""

    facts: _Facts
    jobs: _Jobs
    teams: _Table
    alerts: dict[str, Counter[Condition]]
    late: list[tuple[int, Firing]]
    health: Health
    views: dict[Rights, OverviewNumbers] = field(default_factory=dict)
    whole_views: dict[Rights, Overview] = field(default_factory=dict)


class Overviews:
    """Overviews of the scheduler that `loop` owns. Any thread may ask.

    The numbers are kept for `keep_s`, or longer if they take long. `cpu` is the CPU time of this thread. `host`
    is the name of this machine, `warnings` those of `GET /health`.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Callable[[], int],
        warnings: Callable[[], Sequence[str]],
        host: str = "",
        *,
        keep_s: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._loop, self._clock, self._warnings, self._host = loop, clock, warnings, host
        self._keep_s, self._monotonic, self._cpu = keep_s, monotonic, cpu
        self._lock = threading.Lock()
        self._jobs: _Jobs | None = None
        self._known: _Known | None = None
        self._until = float("-inf")

    def numbers(self, rights: Rights) -> OverviewNumbers:
        """The numbers for senders with these rights. Raises the errors of `Loop.ask`."""
        known = self._present()
        found = known.views.get(rights)
        if found is None:
            found = known.views[rights] = self._numbers(known, rights)
        return found

    def overview(self, rights: Rights) -> Overview:
        """The overview for senders with these rights. Raises the errors of `Loop.ask`."""
        numbers, known = self.numbers(rights), self._present()
        found = known.whole_views.get(rights)
        if found is None:
            late = (one for one in known.late if rights.sees(team_of(one[1].job)))
            found = Overview(**dict(numbers), late=_late_runs(late), next=_next_firings(known, rights))
            known.whole_views[rights] = found
        return found

    def _present(self) -> _Known:
        with self._lock:
            begun = self._monotonic()
            if self._known is None or begun >= self._until:
                cpu = self._cpu()
                self._known = self._compute()
                spent = self._cpu() - cpu
                self._until = begun + max(self._keep_s, min(_KEPT_TIMES * spent, _MAX_KEPT_S))
            return self._known

    def _compute(self) -> _Known:
        facts, now = self._loop.ask(_look), self._clock()
        if self._jobs is None or not self._jobs.fits(facts):
            self._jobs = _Jobs(facts)
        jobs, teams = self._jobs, _Table()
        for team, numbers in jobs.teams.items():
            teams[team].add(numbers)
        for team, waiting in facts.waiting.items():
            teams[team].waiting = waiting
        for team, (shards, _) in facts.uses.items():
            teams[team].running = shards
        for job, dead in facts.dead.items():
            teams[cached_team_of(job)].dead += dead
        for group in facts.standing:
            _count_waiting(teams[group.team], group, jobs.stopped)
        late: list[tuple[int, Firing]] = []
        for firing in facts.unfinished:
            numbers = teams[cached_team_of(firing.job)]
            numbers.unfinished += 1
            limit = jobs.late_after.get(firing.job, 0)
            if limit and firing.fire_ms + limit <= now and not firing.terms.backfill:
                numbers.late += 1
                late.append((firing.fire_ms + limit, firing))
        late.sort(key=lambda one: (-one[0], one[1].id))
        health = health_view(self._loop.health(), self._warnings(), detailed=True)
        return _Known(facts, jobs, teams, _open_alerts(facts.alerts), late, health)

    def _numbers(self, known: _Known, rights: Rights) -> OverviewNumbers:
        found, alerts = _Numbers(), Counter[Condition]()
        for team, numbers in known.teams.items():
            if rights.sees(team):
                found.add(numbers)
        for team, counts in known.alerts.items():
            if rights.sees(team):
                alerts += counts
        facts = known.facts
        started = found.resources + found.quota + found.stopped + found.back_off
        return OverviewNumbers(
            jobs=JobNumbers(
                registered=found.registered,
                enabled=found.registered - found.disabled,
                disabled=found.disabled,
                paused=found.paused,
            ),
            shards=ShardNumbers(
                running=found.running,
                waiting=found.waiting,
                waiting_for=WaitingNumbers(
                    resources=found.resources,
                    quota=found.quota,
                    stopped=found.stopped,
                    back_off=found.back_off,
                    earlier_run=found.waiting - started,
                ),
            ),
            runs=RunNumbers(unfinished=found.unfinished, dead=found.dead, late=found.late),
            alerts=dict(alerts),
            cluster=_cluster_numbers(facts) if rights.cluster else None,
            leader=LeaderView(epoch=facts.epoch, since=facts.restored_ms, host=self._host) if rights.cluster else None,
            health=known.health if rights.cluster else None,
        )


def _count_waiting(numbers: _Numbers, group: Standing, stopped: set[str]) -> None:
    for job, waiting, ready in group.rows:
        if job in stopped:
            numbers.stopped += waiting
        elif group.held:
            numbers.quota += waiting
        else:
            numbers.resources += ready
            numbers.back_off += waiting - ready


def _open_alerts(alerts: Iterable[Alert]) -> dict[str, Counter[Condition]]:
    found: dict[str, Counter[Condition]] = {}
    for alert in alerts:
        if not alert.closed_ms:
            team = team_of(alert.subject) if alert.condition in OF_TEAMS and alert.subject else ""
            found.setdefault(team, Counter())[alert.condition] += 1
    return found


def _cluster_numbers(facts: _Facts) -> ClusterNumbers:
    return ClusterNumbers(
        agents=len(facts.agents),
        closed=sum(closed and not lost for _, closed, lost in facts.agents),
        lost=sum(lost for _, _, lost in facts.agents),
        used=amounts(_sum(used for _, used in facts.uses.values())),
        offered=amounts(_sum(offered for offered, _, _ in facts.agents)),
        total=amounts(facts.total),
    )


def _sum(parts: Iterable[Resources]) -> Resources:
    return Resources(*map(sum, zip(*parts, strict=True))) if (parts := list(parts)) else NOTHING


def _late_runs(late: Iterable[tuple[int, Firing]]) -> list[LateRun]:
    return [
        LateRun(
            run_id=firing.id, job_name=firing.job, team=team_of(firing.job), fired_at=firing.fire_ms, late_since=since
        )
        for since, firing in islice(late, MAX_LISTED)
    ]


def _next_firings(known: _Known, rights: Rights) -> list[NextFiring]:
    stopped, every = known.jobs.stopped, rights.teams is None
    wanted = (
        (due, job)
        for job, due in known.facts.due.items()
        if job not in stopped and (every or rights.sees(cached_team_of(job)))
    )
    first = heapq.nsmallest(MAX_LISTED, wanted)
    jobs = known.facts.jobs
    return [NextFiring(job_name=job, team=team_of(job), at=due, time_zone=jobs[job].zone) for due, job in first]
