"""When jobs are due: timers, and what becomes of a firing that comes due, by the job's policies."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime

from jobcloud.cron import Schedule
from jobcloud.messages import Topic
from jobcloud.model import CatchUp, Cause, Concurrency, Job, JobKind
from jobcloud.scheduler import sharding
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks


class Timetable:
    def __init__(self, state: State, firings: Firings, tasks: Tasks) -> None:
        self._state = state
        self._firings = firings
        self._tasks = tasks
        #: (due instant, job) of every job that fires; stale entries are told by `due`
        self.timers: list[tuple[int, str]] = []
        self.due: dict[str, int] = {}

    def next_wake(self) -> int | None:
        return self.timers[0][0] if self.timers else None

    def sweep(self) -> None:
        """Throw out the timers that were cancelled."""
        self.timers = [(due, job) for job, due in self.due.items()]
        heapq.heapify(self.timers)

    def fire_due(self, at: int) -> None:
        while self.timers and self.timers[0][0] <= at:
            due, name = heapq.heappop(self.timers)
            if self.due.get(name) == due:
                self._state.isolated(name, at, self.fire, self._state.jobs[name], due, at)

    def fire(self, job: Job, due: int, at: int) -> None:
        """Queue the firings of `job` that are due from `due` to `at`, by its catch-up policy where they are late."""
        schedule = job.schedule()
        on_time_from = at - self._state.policy.misfire_threshold_ms
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
        self._state.change_job_state(job.name, considered_ms=considered)
        self._set_timer(job.name, following)

    def _missed(self, job: Job, schedule: Schedule, first: int, last: int, at: int) -> None:
        """The firings from `first` to `last` are late: nobody was there to queue them in time."""
        if job.catch_up is CatchUp.SKIP:
            self._skip(job, first, at, "it was missed, and catchUp is skip")
            return
        # Those that are replaced at once are none: only the last would run.
        once = job.catch_up is CatchUp.ONCE or job.concurrency is Concurrency.REPLACE
        instants = latest_ones(schedule, first, last, 1 if once else job.catch_up_limit)
        if instants[0] > first and not once:
            self._skip(job, first, at, f"it was missed, and more than {len(instants)} after it (catchUpLimit)")
        for fire_ms in instants:
            self.enqueue(job, Cause.CATCH_UP, fire_ms, at)

    def enqueue(self, job: Job, cause: Cause, fire_ms: int, at: int) -> None:
        """Queue a firing, or say why it is skipped, by what its job says of firings that meet earlier ones."""
        unfinished = self._state.queue.unfinished(job.name)
        behind = len(unfinished) - job.runs_at_once
        replacing = job.concurrency is Concurrency.REPLACE
        if not replacing and behind >= 0 and (why := self._turned_away(job, cause, behind)):
            self._skip(job, fire_ms, at, why)
            return
        firing = sharding.make_firing(job, self._state.job_states[job.name], cause, fire_ms, self._state.unique())
        if firing.id in self._state.firings:
            return  # fired under another generation or before a crash: never twice for one instant
        for older in unfinished if replacing else ():
            self._tasks.cancel_firing(older, at, f"replaced by {firing.id}")
        self._firings.add(firing)
        self._state.publish(at, Topic.FIRED, f"{len(firing.work)} shards are due", job=job.name, firing_id=firing.id)

    def _turned_away(self, job: Job, cause: Cause, behind: int) -> str:
        """Why a firing may not wait, with `behind` others waiting before it; "" where it may."""
        if len(self._state.queue.unfinished(job.name)) >= self._state.policy.max_waiting:
            return f"{self._state.policy.max_waiting} firings wait already"
        if cause is Cause.TRIGGER or (cause is Cause.CATCH_UP and job.catch_up is CatchUp.ALL):
            return ""
        if not job.misfire:
            return "the firing before it has not ended, and misfire is false"
        return f"{behind} firings wait already (misfireLimit)" if behind >= job.misfire_limit else ""

    def _skip(self, job: Job, fire_ms: int, at: int, why: str) -> None:
        state = self._state.job_states[job.name]
        self._state.change_job_state(job.name, skipped=state.skipped + 1, skipped_reason=why)
        due = datetime.fromtimestamp(fire_ms / 1000, UTC)
        self._state.publish(
            at, Topic.SKIPPED, f"the firing of {due:%Y-%m-%d %H:%M:%S} UTC is skipped: {why}", job=job.name
        )

    def schedule(self, job: Job, after: int) -> None:
        """Set the job's timer to its first firing after an instant. DAEMON jobs watch the clock themselves."""
        if job.kind is JobKind.DAEMON or not self._state.enabled(job.name):
            self.due.pop(job.name, None)
            return
        self._set_timer(job.name, job.schedule().next_after(after))

    def _set_timer(self, job: str, due: int | None) -> None:
        self.due.pop(job, None)
        if due is not None:
            self.due[job] = due
            heapq.heappush(self.timers, (due, job))


def latest(schedule: Schedule, first: int, until: int) -> int:
    """The last firing at or before `until`, given that `first` is one. By bisection: about 40 steps however long."""
    low, high = first, until
    while low < high:
        middle = (low + high) // 2
        following = schedule.next_after(middle)
        if following is not None and following <= until:
            low = following
        else:
            high = middle
    return low


def latest_ones(schedule: Schedule, first: int, last: int, most: int) -> list[int]:
    """The last firings from `first` to `last`, both of them firings: at most `most`, oldest first."""
    span = 1_000
    while most > 1:
        found = schedule.between(max(first - 1, last - span), last, 4 * most + 1)
        if len(found) > 4 * most:
            break  # a burst behind a pause: one by one
        if len(found) >= most or last - span < first:
            return list(found[-most:])
        span *= 2
    ones = [last]
    while len(ones) < most and ones[0] > first:
        ones.insert(0, latest(schedule, first, ones[0] - 1))
    return ones
