"""Backfills: runs for past fire times of a job that have no run.

The fire times are determined when an operator asks for them. They wait in a record of the job. One by one, they become
firings when the job has room for a further run. So a regular firing waits only for runs that have begun. A new leader
continues the backfill, because the record is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from jobcloud.config import MAX_PRIORITY, Job, JobKind
from jobcloud.errors import Conflict
from jobcloud.messages import BackfillJob, CancelBackfill, Kind, Topic
from jobcloud.model import Backfill, Cause, Firing, Terms, changed
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.quotas import Quotas, shards_of_run
from jobcloud.scheduler.refusals import job_off
from jobcloud.scheduler.state import State
from jobcloud.scheduler.timetable import latest, latest_ones, utc
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import ENABLE, at_most, done_by
from jobcloud.triggers import Times

#: the maximum number of fire times that wait for one job, and of jobs for which fire times wait
MAX_TIMES = 1_000
MAX_JOBS = 100
_TERMS = Terms(priority=-MAX_PRIORITY, backfill=True)
_OF_FIRE_TIMES = (Cause.CRON, Cause.CATCH_UP)


def missing(
    schedule: Times, known: Set[int], from_ms: int, until_ms: int, limit: int, *, newest_first: bool
) -> tuple[tuple[int, ...], bool]:
    """The fire times of `schedule` in a range that are not `known`, and whether there are more.

    Both ends belong to the range. At most `limit` fire times are returned, in the order in which their runs should
    begin. The function takes up to a millisecond for each fire time, so it is not called on the scheduler's thread.
    """
    after, most = max(from_ms - 1, 0), limit + 1 + len(known)
    first = schedule.next_after(after)
    if first is None or first > until_ms:
        return (), False
    if newest_first:
        found = latest_ones(schedule, first, latest(schedule, first, until_ms), most)[::-1]
    else:
        found = list(schedule.between(after, until_ms, most))
    times = [instant for instant in found if instant not in known]
    return tuple(times[:limit]), len(times) > limit


def fire_times(firings: Iterable[Firing], waiting: Backfill | None) -> set[int]:
    """The fire times of a job that have a run among `firings`, or wait for a run."""
    found = {firing.fire_ms for firing in firings if firing.cause in _OF_FIRE_TIMES}
    return found.union(waiting.times if waiting is not None else ())


def check(job: Job) -> None:
    """Raises Conflict for a job without fire times of its own: a resident job, or one with `@after` alone."""
    if job.kind is JobKind.DAEMON:
        text = f"job {job.key} is resident: it has no runs to make up for"
        raise Conflict(Told(text, "resident_backfill", job=job.key), field="jobName")
    if job.fires_after_runs_only:
        text = f"job {job.key} fires after the ends of its runs alone (@after): it has no fire times to make up for"
        problem = Told(text, "after_backfill", job=job.key)
        raise Conflict(problem, field="jobName", fix=done_by(f"jobcloud job trigger {job.key}", "makes a run"))


class Backfills(Part):
    def __init__(self, state: State, quotas: Quotas, firings: Firings) -> None:
        super().__init__(state)
        self._quotas = quotas
        self._firings = firings

    def backfill(self, event: BackfillJob) -> None:
        """Append fire times that have no run to those that wait already.

        Fire times that the timetable has not handled yet are left to the timetable. Raises Conflict or NotFound.
        """
        job = self._state.job(event.job)
        check(job)
        if not self._state.enabled(job.key):
            raise Conflict(job_off(job.key), field="jobName", fix=ENABLE)
        before = self._state.backfills.get(job.key, Backfill(()))
        known = fire_times(self._firings.known(job.key), before)
        until = min(event.at, self._state.job_states[job.key].considered_ms)
        times = tuple(instant for instant in dict.fromkeys(event.times) if instant not in known and instant <= until)
        if not times:
            return
        if len(before.times) + len(times) > MAX_TIMES:
            text = f"{len(before.times)} fire times of job {job.key} wait for a backfill already"
            problem = Told(text, "backfill_waits", times=len(before.times), job=job.key)
            raise Conflict(problem, field="limit", fix=at_most(MAX_TIMES, " may wait; let them run first"))
        if not before.times and len(self._state.backfills) >= MAX_JOBS:
            problem = Told(f"{MAX_JOBS} jobs have a backfill", "many_backfills", jobs=MAX_JOBS)
            raise Conflict(problem, field="jobName", fix=Told("let one of them end first", "let_one_end"))
        self._state.put(Kind.BACKFILL, job.key, Backfill((*before.times, *times), event.at_once))
        text = f"backfill: {len(times)} fire times from {utc(min(times))} to {utc(max(times))} wait for their runs"
        self._state.publish(event.at, Topic.CONFIG, text, job=job.key)

    def cancel(self, event: CancelBackfill) -> None:
        """Forget the fire times that wait. Runs that have begun continue. Raises NotFound for an unknown job."""
        self._state.job(event.job)
        if (found := self._state.backfills.get(event.job)) is not None:
            self._state.delete(Kind.BACKFILL, event.job)
            text = f"the backfill is cancelled: {len(found.times)} fire times get no run"
            self._state.publish(event.at, Topic.CONFIG, text, job=event.job)

    def on_tick(self, at: int) -> None:
        for name in list(self._state.backfills):
            self._state.isolated(name, at, self._begin, name, at)

    def next_wake(self, at: int) -> int | None:
        return at if any(map(self._may_start, self._state.backfills)) else None

    def job_changed(self, job: Job) -> None:
        if job.kind is JobKind.DAEMON:
            self.job_removed(job.key)

    def job_removed(self, name: str) -> None:
        if name in self._state.backfills:
            self._state.delete(Kind.BACKFILL, name)

    def _begin(self, name: str, at: int) -> None:
        job = self._state.jobs[name]
        while self._may_start(name):
            found = self._state.backfills[name]
            fire_ms, *rest = found.times
            if rest:
                self._state.put(Kind.BACKFILL, name, changed(found, times=tuple(rest)))
            else:
                self._state.delete(Kind.BACKFILL, name)
            firing = self._state.new_firing(job, Cause.CATCH_UP, fire_ms, _TERMS)
            self._firings.add(firing, at)
            text = f"{len(firing.work)} shards are due, a backfill of {utc(fire_ms)}"
            self._state.publish(at, Topic.FIRED, text, job=name, firing_id=firing.id)

    def _may_start(self, name: str) -> bool:
        """Whether the next run of a job's backfill may begin now.

        The job must have room for another unfinished run, and the queue of its team for the shards of this run.
        """
        found, job = self._state.backfills.get(name), self._state.jobs.get(name)
        if found is None or job is None or name in self._state.faults:
            return False
        if not self._state.enabled(name) or self._state.paused(name):
            return False
        if self._quotas.queue_lack(job.team, shards_of_run(job, _TERMS)):
            return False
        unfinished = self._state.queue.unfinished(name)
        begun = sum(firing.terms.backfill for firing in unfinished)
        return len(unfinished) < job.runs_at_once and begun < found.at_once
