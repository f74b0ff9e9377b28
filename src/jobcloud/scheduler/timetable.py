"""The timetable: when each job is due, and whether a due firing is queued or skipped."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sized
from datetime import UTC, datetime

from jobcloud.config import CatchUp, Concurrency, Job, JobKind
from jobcloud.cron import Schedule
from jobcloud.messages import Topic
from jobcloud.model import NO_TERMS, Cause, Firing, Terms
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks

# If the last handled fire time of a job is later than now by more than this, users are warned, and `jobcloud job
# enable` lets the job fire again.
AHEAD_MS = 60_000
# If the last handled fire time of a job is later than now by more than this, two things let the job fire again: an
# update, and enabling it after it was disabled.
REVIVED_MS = 86_400_000
# The last second of the year 9999.
_LAST_MS = 253_402_300_799_000


class Timetable(Part):
    def __init__(self, state: State, hooks: Hooks, firings: Firings, tasks: Tasks) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._firings = firings
        self._tasks = tasks
        #: job → when it is due next
        self.due: dict[str, int] = {}
        #: a heap of (due instant, job); an entry that differs from `due` is obsolete
        self._timers: list[tuple[int, str]] = []
        #: job → the latest fire time of its firings by cron
        self._latest: dict[str, int] = {}
        #: a text about the jobs that do not fire because a clock was ahead; empty without such jobs
        self.warnings: tuple[str, ...] = ()

    def restore(self, at: int) -> None:
        for firing in self._state.firings.values():
            if firing.cause is Cause.CRON and firing.job in self._state.jobs:
                self._latest[firing.job] = max(firing.fire_ms, self._latest.get(firing.job, -1))
        self.review(at)

    def clock_set_back(self, at: int) -> None:
        self.review(at)

    def next_wake(self, at: int) -> int | None:
        return self._timers[0][0] if self._timers else None

    def sweep(self, at: int) -> None:
        """Drop obsolete timers."""
        self._timers = [(due, job) for job, due in self.due.items()]
        heapq.heapify(self._timers)
        self.review(at)

    def review(self, at: int) -> None:
        """Look for silent jobs, whose fire times count as handled until far in the future: a clock was ahead."""
        ahead = [
            self._state.job_states[name].considered_ms
            for name, job in self._state.jobs.items()
            if job.kind is not JobKind.DAEMON and self._state.enabled(name) and self.silent_until(name, at)
        ]
        before, self.warnings = self.warnings, ()
        if ahead:
            text = (
                f"{len(ahead)} jobs do not fire now, the last of them not before {utc(max(ahead))}: the clock was "
                "ahead when their fire times were handled. `jobcloud explain JOB` shows until when a job is silent. "
                "`jobcloud job enable JOB` lets it fire from now on"
            )
            self.warnings = (text,)
        if self.warnings and not before:
            self._state.publish(at, Topic.FAULT, self.warnings[0])

    def silent_until(self, job: str, at: int) -> int:
        """The instant up to which the fire times of a job count as handled, if it is far ahead; otherwise 0."""
        considered = self._state.job_states[job].considered_ms
        return considered if considered > at + AHEAD_MS else 0

    def go_on(self, job: Job, at: int, *, ahead_ms: int) -> None:
        """Schedule a job from now on. Fire times that have passed are not due.

        Fire times up to a future instant may count as handled. If this instant is at most `ahead_ms` in the future,
        these fire times are not due again. If it is further away, they are due again. The result is stored, so that a
        later leader schedules the job in the same way.
        """
        considered = self._state.job_states[job.key].considered_ms
        considered = at if considered > at + ahead_ms else max(at, considered)
        self._state.change_job_state(job.key, considered_ms=considered)
        self.schedule(job, considered)
        if self.warnings:
            self.review(at)

    def changed(self, known: Job, job: Job, at: int, *, paused: bool) -> None:
        """Schedule a job after a change. `paused`: it was paused before.

        If the job was paused and its fire times stay the same, the fire times that it missed are handled when it is
        resumed.
        """
        considered = self._state.job_states[job.key].considered_ms
        if paused and job.kind is known.kind and job.schedule() == known.schedule():
            self.schedule(job, considered)
            return
        if paused and known.kind is not JobKind.DAEMON and self._state.enabled(job.key):
            schedule = known.schedule()
            first = schedule.next_after(considered)
            if first is not None and first <= at:
                why = "missed in a pause, and the times of the job were changed before its end"
                self._skip(job, first, at, why, schedule.count(considered, at), missed=True)
        self.go_on(job, at, ahead_ms=REVIVED_MS)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        if job.kind is not JobKind.DAEMON and (until := self.silent_until(job.key, at)):
            text = (
                f"it does not fire before {utc(until)}: the clock was ahead when its fire times were handled. "
                f"`jobcloud job enable {job.key}` lets it fire from now on"
            )
            yield Reason("clock", text, at=until)

    def on_tick(self, at: int) -> None:
        while self._timers and self._timers[0][0] <= at:
            due, name = heapq.heappop(self._timers)
            if self.due.get(name) == due:
                self._state.isolated(name, at, self._fire, self._state.jobs[name], due, at)

    def fire_overdue(self, job: Job, at: int) -> None:
        """Queue the firings that are due up to `at`, before the job's configuration changes."""
        due = self.due.get(job.key)
        if due is not None and due <= at:
            self._state.isolated(job.key, at, self._fire, job, due, at)

    def _fire(self, job: Job, due: int, at: int) -> None:
        """Queue the firings of `job` that are due from `due` to `at`. The catch-up policy decides about missed ones."""
        schedule = job.schedule()
        on_time_from = at - self._state.policy.misfire_threshold_ms
        if self._state.restoration is not None:
            # Firings that were due before the restore count as missed: nobody knows whether they were queued.
            on_time_from = max(on_time_from, min(self._state.restoration.restored_ms, at) + 1)
        considered: int = due
        following: int | None = due
        if due < on_time_from:
            considered = latest(schedule, due, on_time_from - 1)
            self._missed(job, schedule, due, considered, at)
            following = schedule.next_after(considered)
        while following is not None and following <= at:
            considered = following
            self.enqueue(job, Cause.CRON, considered, at)
            following = schedule.next_after(considered)
        self._state.change_job_state(job.key, considered_ms=considered)
        self._set_timer(job.key, following)

    def _missed(self, job: Job, schedule: Schedule, first: int, last: int, at: int) -> None:
        """Apply the catch-up policy to the firings from `first` to `last`, which were not handled in time.

        Each of them is queued or counted as skipped.
        """
        if job.catch_up is CatchUp.SKIP:
            self._skip(job, first, at, "missed, and catchUp is skip", schedule.count(first - 1, last), missed=True)
            return
        # With REPLACE, each firing replaces the one before it, so only the last one would run.
        once = job.catch_up is CatchUp.ONCE or job.concurrency is Concurrency.REPLACE
        instants = latest_ones(schedule, first, last, 1 if once else job.catch_up_limit)
        if others := schedule.count(first - 1, instants[0] - 1):
            why = (
                "one run stands for all that were missed"
                if once
                else "missed, and older than the last of them (catchUpLimit)"
            )
            self._skip(job, first, at, why, others, missed=True)
        for fire_ms in instants:
            self.enqueue(job, Cause.CATCH_UP, fire_ms, at)

    def enqueue(self, job: Job, cause: Cause, fire_ms: int, at: int, terms: Terms = NO_TERMS) -> None:
        """Queue a firing, replace earlier ones with it, or skip it, as the job's concurrency policy says."""
        # The runs of a backfill do not count here, and are not replaced.
        unfinished = [firing for firing in self._state.queue.unfinished(job.key) if not firing.terms.backfill]
        behind = len(unfinished) - job.runs_at_once
        replacing = job.concurrency is Concurrency.REPLACE
        if not replacing and behind >= 0 and (why := self._skip_reason(job, cause, behind)):
            self._skip(job, fire_ms, at, why)
            return
        firing = self._state.new_firing(job, cause, fire_ms, terms)
        if firing.id in self._state.firings:
            return  # an instant fires once, also after a crash or a change of the job
        if cause is Cause.CRON:
            if fire_ms <= self._latest.get(job.key, -1) and self._firings.has_fired(job.key, fire_ms):
                return  # ids contain the name of the cluster: if this has changed, the firing exists under another id
            self._latest[job.key] = max(fire_ms, self._latest.get(job.key, -1))
        for older in unfinished if replacing else ():
            self._tasks.cancel_firing(older, at, f"replaced by {firing.id}")
        self._firings.add(firing, at)
        due = len(terms.items) or len(firing.work)
        self._state.publish(at, Topic.FIRED, f"{due} shards are due", job=job.key, firing_id=firing.id)

    def _skip_reason(self, job: Job, cause: Cause, behind: int) -> str:
        """Why a firing may not wait; "" if it may. `behind`: the number of firings that wait already."""
        if len(self._state.queue.unfinished(job.key)) >= self._state.policy.max_waiting:
            return f"{self._state.policy.max_waiting} runs of the job have not ended, which is the maximum"
        if cause is Cause.TRIGGER or (cause is Cause.CATCH_UP and job.catch_up is CatchUp.ALL):
            return ""
        if not job.misfire:
            return "the firing before it has not ended, and misfire is false"
        return f"{behind} firings wait already (misfireLimit)" if behind >= job.misfire_limit else ""

    def _skip(self, job: Job, fire_ms: int, at: int, why: str, number: int = 1, *, missed: bool = False) -> None:
        """Count skipped firings; `fire_ms` is the first of them. `missed`: they were not handled in time."""
        state = self._state.job_states[job.key]
        self._state.change_job_state(job.key, skipped=state.skipped + number, skipped_reason=why)
        due = utc(fire_ms)
        what = f"the firing of {due} is" if number == 1 else f"{number} firings from {due} on are"
        text = f"{what} skipped: {why}"
        self._state.publish(at, Topic.SKIPPED, text, job=job.key)
        for hook in self._hooks.firings_skipped:
            hook(job, text, number, missed, at)

    def schedule(self, job: Job, after: int) -> None:
        """Set the job's timer to its first fire time after an instant. Resident, ad-hoc and paused jobs have none.

        When a job is resumed, the fire times of its pause are due at once, and most of them count as missed.
        """
        without_times = job.kind is JobKind.DAEMON or job.ad_hoc
        if without_times or not self._state.enabled(job.key) or self._state.paused(job.key):
            self.unschedule(job.key)
            return
        self._set_timer(job.key, job.schedule().next_after(after))

    def unschedule(self, job: str) -> None:
        self.due.pop(job, None)

    def job_removed(self, name: str) -> None:
        self.unschedule(name)
        self._latest.pop(name, None)

    def _set_timer(self, job: str, due: int | None) -> None:
        self.due.pop(job, None)
        if due is not None:
            self.due[job] = due
            heapq.heappush(self._timers, (due, job))

    def indexes(self) -> Mapping[str, Sized]:
        return {"due": self.due, "timers": self._timers, "latest": self._latest}

    def validate(self) -> None:
        for name in self.due:
            assert self._state.enabled(name), f"{name} is due, and disabled"
            assert not self._state.paused(name), f"{name} is due, and paused"


def utc(instant: int) -> str:
    instant = min(instant, _LAST_MS)  # a damaged record may contain a later instant
    return f"{datetime.fromtimestamp(instant / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def latest(schedule: Schedule, first: int, until: int) -> int:
    """The last fire time at or before `until`. `first` must be a fire time. Bisection takes about 40 steps."""
    low, high = first, until
    while low < high:
        middle = (low + high) // 2
        following = schedule.next_after(middle)
        if following is not None and following <= until:
            low = following
        else:
            high = middle
    return low


def latest_ones(schedule: Schedule, first: int, last: int, limit: int) -> list[int]:
    """The latest fire times from `first` to `last`, at most `limit`, oldest first. Both ends must be fire times."""
    span = 1_000
    while limit > 1:
        found = schedule.between(max(first - 1, last - span), last, 4 * limit + 1)
        if len(found) > 4 * limit:
            break  # many fire times in a short span: find them one by one
        if len(found) >= limit or last - span < first:
            return list(found[-limit:])
        span *= 2
    ones = [last]
    while len(ones) < limit and ones[0] > first:
        ones.insert(0, latest(schedule, first, ones[0] - 1))
    return ones
