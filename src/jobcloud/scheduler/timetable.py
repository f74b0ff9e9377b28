"""The timetable: when each job is due, and whether a due firing is queued or skipped."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sized
from datetime import UTC, datetime
from itertools import islice

from jobcloud.config import CatchUp, Concurrency, Job, JobKind
from jobcloud.fields import Unit
from jobcloud.messages import Topic
from jobcloud.model import ABSENT, NO_TERMS, Cause, Firing, Terms
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.quotas import Quotas, shards_of_run
from jobcloud.scheduler.reason import Reason, amount
from jobcloud.scheduler.retry import dice
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks
from jobcloud.sentences import Told
from jobcloud.triggers import Shifted, Times, Timing

# If the last handled fire time of a job is later than now by more than this, users are warned, and `jobcloud job
# enable` lets the job fire again.
AHEAD_MS = 60_000
# If the last handled fire time of a job is later than now by more than this, two things let the job fire again: an
# update, and enabling it after it was disabled.
REVIVED_MS = 86_400_000
# After a change of a calendar, one tick schedules at most this number of the jobs that name it.
_AT_ONCE = 100
# The last second of the year 9999.
_LAST_MS = 253_402_300_799_000


class Timetable(Part):
    def __init__(self, state: State, hooks: Hooks, quotas: Quotas, firings: Firings, tasks: Tasks) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._quotas = quotas
        self._firings = firings
        self._tasks = tasks
        #: job → its next fire time
        self.due: dict[str, int] = {}
        #: job → when its next fire time is handled: at that time, or later because of the jitter or a blackout
        self._starts: dict[str, int] = {}
        #: a heap of (start, job); an entry that differs from `_starts` is obsolete
        self._timers: list[tuple[int, str]] = []
        #: job → the latest fire time of its firings by cron
        self._latest: dict[str, int] = {}
        #: jobs whose fire times have changed with a calendar, and that are still scheduled by the earlier ones
        self._outdated: dict[str, None] = {}
        #: a text about the jobs that do not fire because a clock was ahead; empty without such jobs
        self.warnings: tuple[Told, ...] = ()

    def restore(self, at: int) -> None:
        ends: dict[str, int] = {}
        for firing in self._state.firings.values():
            if firing.cause is Cause.CRON and firing.job in self._state.jobs:
                self._latest[firing.job] = max(firing.fire_ms, self._latest.get(firing.job, -1))
            ends[firing.job] = max(firing.ended_ms, ends.get(firing.job, 0))
        for name, ended in ends.items():
            # The state of the job may be lost, or the recovery has ended the run.
            job = self._state.jobs.get(name)
            if job is not None and ended and self._after_ms(job) < ended + job.delay_ms:
                self._wait_until(job, ended + job.delay_ms)
        self._shorten_delays(at)
        self.review(at)

    def clock_set_back(self, at: int) -> None:
        for job in self._shorten_delays(at):
            self.schedule(job, self._state.job_states[job.key].considered_ms)
        self.review(at)

    def run_added(self, firing: Firing, at: int) -> None:
        self.await_end(firing.job)

    def run_ended(self, firing: Firing, at: int) -> None:
        """After the end of the last unfinished run, the delay of `@after` begins."""
        job = self._state.jobs.get(firing.job)
        if job is not None and job.delay_ms and not self._state.queue.unfinished(job.key):
            self._wait_until(job, at + job.delay_ms)
            self.schedule(job, self._state.job_states[job.key].considered_ms)

    def await_end(self, name: str) -> None:
        """A run of a job was added or reopened: `@after` is not due before its end."""
        job = self._state.jobs.get(name)
        if job is not None and job.delay_ms:
            self.schedule(job, self._state.job_states[name].considered_ms)

    def next_wake(self, at: int) -> int | None:
        if self._outdated:
            return at
        return self._timers[0][0] if self._timers else None

    def sweep(self, at: int) -> None:
        """Drop obsolete timers."""
        self._timers = [(start, job) for job, start in self._starts.items()]
        heapq.heapify(self._timers)
        self.review(at)

    def review(self, at: int) -> None:
        """Look for jobs that do not fire because a clock was ahead: future fire times count as handled."""
        ahead = [
            self._state.job_states[name].considered_ms
            for name, job in self._state.jobs.items()
            if job.kind is not JobKind.DAEMON and self._state.enabled(name) and self.silent_until(name, at)
        ]
        before, self.warnings = self.warnings, ()
        if ahead:
            text = (
                f"{len(ahead)} jobs do not fire now, the last of them not before {utc(max(ahead))}: the clock was "
                "ahead when their fire times were handled. `jobcloud explain JOB` shows when a job fires again. "
                "`jobcloud job enable JOB` lets it fire from now on"
            )
            self.warnings = (Told(text, "silent_jobs", jobs=len(ahead), until=rfc3339(max(ahead))),)
        if self.warnings and not before:
            self._state.publish(at, Topic.FAULT, str(self.warnings[0]))

    def silent_until(self, job: str, at: int) -> int:
        """The instant up to which the fire times of a job count as handled, if it is far ahead; otherwise 0."""
        considered = self._state.job_states[job].considered_ms
        if considered <= at + AHEAD_MS:
            return 0
        known = self._state.jobs[job]
        return 0 if known.fires_after_runs_only and self._after_ms(known) else considered

    def go_on(self, job: Job, at: int, *, ahead_ms: int) -> None:
        """Schedule a job from now on. Fire times that have passed are not due.

        Fire times up to a future instant may count as handled. If this instant is at most `ahead_ms` in the future,
        these fire times are not due again. If it is further away, they are due again. The result is stored, so that a
        later leader schedules the job in the same way.
        """
        considered = self._state.job_states[job.key].considered_ms
        considered = at if considered > at + ahead_ms else max(at, considered)
        self._state.change_job_state(job.key, considered_ms=considered)
        if after := self._after_ms(job):
            self._wait_until(job, min(max(after, at), at + job.delay_ms))
        self.schedule(job, considered)
        if self.warnings:
            self.review(at)

    def changed(self, known: Job, job: Job, at: int, *, paused: bool) -> None:
        """Schedule a job after a change. `paused`: it was paused before.

        If the job was paused and its fire times stay the same, the fire times that it missed are handled when it is
        resumed.
        """
        considered = self._state.job_states[job.key].considered_ms
        if paused and job.kind is known.kind and self._state.times(job) == self._state.times(known):
            self.schedule(job, considered)
            return
        if paused and known.kind is not JobKind.DAEMON and self._state.enabled(job.key):
            times = self._state.times(known)
            first = times.next_after(considered)
            if first is not None and first <= at:
                text = "missed in a pause, and the times of the job were changed before its end"
                why = Told(text, "missed_in_pause")
                self._skip(job, first, at, why, times.count(considered, at), missed=True)
        if job.delay_ms != known.delay_ms:
            last = self._firings.last_ended(job.key)
            if not job.delay_ms:
                self._state.change_job_state(job.key, after_ms=ABSENT)
            elif last is not None:
                self._wait_until(job, last.ended_ms + job.delay_ms)
        self.go_on(job, at, ahead_ms=REVIVED_MS)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        if job.kind is not JobKind.DAEMON and (until := self.silent_until(job.key, at)):
            text = (
                f"it does not fire before {utc(until)}: the clock was ahead when its fire times were handled. "
                f"`jobcloud job enable {job.key}` lets it fire from now on"
            )
            yield Reason("clock", text, at=until, parameters={"job": job.key, "until": rfc3339(until)})

    def outdate(self, jobs: Iterable[str]) -> None:
        """The fire times of some jobs have changed with a calendar. The next ticks schedule these jobs again.

        Their fire times since the last handled one are those of the changed calendar.
        """
        self._outdated.update(dict.fromkeys(jobs))

    def _renew(self, name: str, at: int) -> None:
        """Schedule a job of `_outdated` again."""
        del self._outdated[name]
        considered = self._state.job_states[name].considered_ms
        self._state.isolated(name, at, self.schedule, self._state.jobs[name], considered)

    def on_tick(self, at: int) -> None:
        for name in list(islice(self._outdated, _AT_ONCE)):
            self._renew(name, at)
        while self._timers and self._timers[0][0] <= at:
            start, name = heapq.heappop(self._timers)
            if self._starts.get(name) == start and name in self._outdated:
                self._renew(name, at)
            elif self._starts.get(name) == start:
                self._state.isolated(name, at, self._fire, self._state.jobs[name], self.due[name], at)

    def fire_overdue(self, job: Job, at: int) -> None:
        """Queue the firings that are due up to `at`, before the job's configuration changes."""
        if (start := self._starts.get(job.key)) is not None and start <= at:
            self._state.isolated(job.key, at, self._fire, job, self.due[job.key], at)

    def _fire(self, job: Job, due: int, at: int) -> None:
        """Queue the firings of `job` that are due from `due` to `at`. The catch-up policy decides about missed ones."""
        times = self._state.times(job)
        if (later := end_of_blackout(job, times, at)) > at:
            self._set_start(job.key, later)
            return
        on_time_from = self._on_time_from(job, at)
        following: int | None = due
        if job.delay_ms:
            following = times.next_after(self._state.job_states[job.key].considered_ms)
        if following is not None and start_ms(job, times, following) <= at:
            following = self._fire_times(job, times, following, on_time_from, at)
        self._fire_after_run(job, times, on_time_from, at)
        self._set_timer(job, times, following)

    def _on_time_from(self, job: Job, at: int) -> int:
        """The first fire time that does not count as missed at an instant."""
        on_time_from = at - self._state.policy.misfire_threshold_ms - job.jitter_ms
        if self._state.restoration is not None:
            # Firings that were due before the restore count as missed: nobody knows whether they were queued.
            on_time_from = max(on_time_from, min(self._state.restoration.restored_ms, at) + 1)
        return on_time_from

    def _fire_times(self, job: Job, times: Times, due: int, on_time_from: int, at: int) -> int | None:
        """Queue or skip the firings of the fire times from `due` on that are due at `at`. Returns the next one."""
        considered: int = due
        following: int | None = due
        if due < on_time_from:
            considered = latest(times, due, on_time_from - 1)
            self._missed(job, times, due, considered, at)
            following = times.next_after(considered)
        while following is not None and start_ms(job, times, following) <= at:
            considered = following
            self.enqueue(job, Cause.CRON, considered, at)
            following = times.next_after(considered)
        self._state.change_job_state(job.key, considered_ms=considered)
        return following

    def _fire_after_run(self, job: Job, times: Times, on_time_from: int, at: int) -> None:
        """Queue or skip the firing of `@after` if it is due at `at`. After a skipped one, the delay begins again."""
        due = self._due_after_run(job, times)
        if due is None or start_ms(job, times, due) > at:
            return
        if due >= on_time_from:
            self.enqueue(job, Cause.CRON, due, at)
        elif job.catch_up is CatchUp.SKIP:
            self._skip(job, due, at, Told("missed, and catchUp is skip", "missed"), missed=True)
        else:
            self.enqueue(job, Cause.CATCH_UP, due, at)
        if not self._state.queue.unfinished(job.key):
            self._wait_until(job, at + job.delay_ms)

    def _due_after_run(self, job: Job, times: Times) -> int | None:
        """The next fire time of the trigger `@after`; None without one, and while a run of the job has not ended.

        Fire times are whole seconds, because ids of firings contain no smaller unit.
        """
        if not job.delay_ms or not isinstance(times, Timing) or self._state.queue.unfinished(job.key):
            return None
        return times.first_free(_second(self._after_ms(job) or self._state.job_states[job.key].considered_ms))

    def _after_ms(self, job: Job) -> int:
        """The instant from which on the trigger `@after` of a job is due; 0 if it waits for none."""
        return (self._state.job_states[job.key].after_ms or 0) if job.delay_ms else 0

    def _wait_until(self, job: Job, instant: int) -> None:
        if job.delay_ms and self._after_ms(job) != _second(instant):
            self._state.change_job_state(job.key, after_ms=_second(instant))

    def _shorten_delays(self, at: int) -> list[Job]:
        """Shorten each delay of `@after` that began while a clock was ahead. Returns the jobs."""
        jobs = [job for job in self._state.jobs.values() if self._after_ms(job) > _second(at + job.delay_ms)]
        for job in jobs:
            self._wait_until(job, at + job.delay_ms)
        return jobs

    def _missed(self, job: Job, times: Times, first: int, last: int, at: int) -> None:
        """Apply the catch-up policy to the firings from `first` to `last`, which were not handled in time.

        Each of them is queued or counted as skipped.
        """
        if job.catch_up is CatchUp.SKIP:
            why = Told("missed, and catchUp is skip", "missed")
            self._skip(job, first, at, why, times.count(first - 1, last), missed=True)
            return
        # With REPLACE, each firing replaces the one before it, so only the last one would run.
        once = job.catch_up is CatchUp.ONCE or job.concurrency is Concurrency.REPLACE
        instants = latest_ones(times, first, last, 1 if once else job.catch_up_limit)
        if others := times.count(first - 1, instants[0] - 1):
            why = (
                Told("one run stands for all that were missed", "missed_once")
                if once
                else Told("missed, and older than the last of them (catchUpLimit)", "missed_limit")
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
        if job.start_deadline_ms and fire_ms + job.start_deadline_ms < at and not terms.backfill:
            limit = Unit.MILLI.text(job.start_deadline_ms)
            text = f"not begun within {limit} s of the fire time (startDeadlineSeconds)"
            self._skip(job, fire_ms, at, Told(text, "start_deadline", seconds=amount(job.start_deadline_ms)))
            return
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
        replaced = unfinished if replacing else []
        if self._quotas.limits_queue(job.team):
            leaving = sum(self._state.queue.waits(older.id) for older in replaced)
            if why := self._quotas.queue_lack(job.team, shards_of_run(job, terms), leaving):
                self._skip(job, fire_ms, at, why)
                return
        for older in replaced:
            self._tasks.cancel_firing(older, at, f"replaced by {firing.id}")
        self._firings.add(firing, at)
        due = len(terms.items) or len(firing.work)
        self._state.publish(at, Topic.FIRED, f"{due} shards are due", job=job.key, firing_id=firing.id)

    def _skip_reason(self, job: Job, cause: Cause, behind: int) -> Told | None:
        """Why a firing may not wait; None if it may. `behind`: the number of firings that wait already."""
        most = self._state.policy.max_waiting
        if len(self._state.queue.unfinished(job.key)) >= most:
            return Told(f"{most} runs of the job have not ended, which is the maximum", "most_runs", runs=most)
        if cause is Cause.TRIGGER or (cause is Cause.CATCH_UP and job.catch_up is CatchUp.ALL):
            return None
        if not job.misfire:
            return Told("the firing before it has not ended, and misfire is false", "misfire")
        if behind < job.misfire_limit:
            return None
        return Told(f"{behind} firings wait already (misfireLimit)", "misfire_limit", waiting=behind)

    def _skip(self, job: Job, fire_ms: int, at: int, why: Told, number: int = 1, *, missed: bool = False) -> None:
        """Count skipped firings; `fire_ms` is the first of them. `missed`: they were not handled in time."""
        state, words = self._state.job_states[job.key], why.words
        self._state.change_job_state(
            job.key, skipped=state.skipped + number, skipped_reason=str(why), skipped_words=words
        )
        due = utc(fire_ms)
        what = f"the firing of {due} is" if number == 1 else f"{number} firings from {due} on are"
        text = Told(
            f"{what} skipped: {why}", "skipped", firings=number, first=rfc3339(fire_ms), why=words.code,
            **words.parameters,
        )  # fmt: skip
        self._state.publish(at, Topic.SKIPPED, str(text), job=job.key)
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
        times = self._state.times(job)
        self._set_timer(job, times, times.next_after(after))

    def unschedule(self, job: str) -> None:
        self.due.pop(job, None)
        self._starts.pop(job, None)

    def job_removed(self, name: str) -> None:
        self.unschedule(name)
        self._latest.pop(name, None)
        self._outdated.pop(name, None)

    def _set_timer(self, job: Job, times: Times, due: int | None) -> None:
        """`due`: the job's next fire time, apart from that of `@after`."""
        self.unschedule(job.key)
        if (after := self._due_after_run(job, times)) is not None:
            due = after if due is None else min(due, after)
        if due is not None:
            self.due[job.key] = due
            self._set_start(job.key, start_ms(job, times, due))

    def _set_start(self, job: str, start: int) -> None:
        self._starts[job] = start
        heapq.heappush(self._timers, (start, job))

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "due": self.due, "starts": self._starts, "timers": self._timers, "latest": self._latest,
            "outdated": self._outdated,
        }  # fmt: skip

    def validate(self) -> None:
        assert self.due.keys() == self._starts.keys(), "a fire time has no timer, or a timer has no fire time"
        for name in self.due:
            assert self._state.enabled(name), f"{name} is due, and disabled"
            assert not self._state.paused(name), f"{name} is due, and paused"


def start_ms(job: Job, times: Times, fire_ms: int) -> int:
    """When a fire time of a job, whose fire times are `times`, is handled: the fire time with the job's jitter.

    The jitter is derived from the job and the fire time, so that each leader computes the same. A jitter that would
    lead into a blackout is left out.
    """
    if not job.jitter_ms:
        return fire_ms
    start = fire_ms + ((job.jitter_ms + 1) * dice(f"{job.key}/{fire_ms}") >> 32)
    return start if end_of_blackout(job, times, start) == start else fire_ms


def _second(instant: int) -> int:
    """The first whole second at or after an instant (ms)."""
    return -(-instant // 1_000) * 1_000


def end_of_blackout(job: Job, times: Times, at: int) -> int:
    """The end of the job's blackout at an instant; the instant itself if it is in none."""
    return times.free_from(at) if job.pauses_by_itself and isinstance(times, Timing | Shifted) else at


def utc(instant: int) -> str:
    instant = min(instant, _LAST_MS)  # a damaged record may contain a later instant
    return f"{datetime.fromtimestamp(instant / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def rfc3339(instant: int) -> str:
    """An instant for the parameters of a reason: to the second, in UTC."""
    return utc(instant).replace(" UTC", "Z").replace(" ", "T")


def latest(times: Times, first: int, until: int) -> int:
    """The last fire time at or before `until`. `first` must be a fire time. Bisection takes about 40 steps."""
    low, high = first, until
    while low < high:
        middle = (low + high) // 2
        following = times.next_after(middle)
        if following is not None and following <= until:
            low = following
        else:
            high = middle
    return low


def latest_ones(times: Times, first: int, last: int, limit: int) -> list[int]:
    """The latest fire times from `first` to `last`, at most `limit`, oldest first. Both ends must be fire times."""
    span = 1_000
    while limit > 1:
        found = times.between(max(first - 1, last - span), last, 4 * limit + 1)
        if len(found) > 4 * limit:
            break  # many fire times in a short span: find them one by one
        if len(found) >= limit or last - span < first:
            return list(found[-limit:])
        span *= 2
    ones = [last]
    while len(ones) < limit and ones[0] > first:
        ones.insert(0, latest(times, first, ones[0] - 1))
    return ones
