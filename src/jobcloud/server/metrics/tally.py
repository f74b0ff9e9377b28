"""The counts of a process, as plain numbers.

A launch causes three notices, and all of them are counted on the scheduler's thread. So counting a notice costs less
than a microsecond: it adds to numbers that exist already. The objects of Prometheus' library are made when somebody
scrapes.

Each count exists, with the value 0, from the moment at which its labels are known, because `increase()` of Prometheus
never sees the first step of a counter that begins at 1.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jobcloud.config import DIMENSIONS, Job, is_ad_hoc
from jobcloud.messages import Publish, Topic
from jobcloud.model import Cause, Firing, ShardState
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.status import End

# Global names, because an access to an enum member costs a function call in CPython 3.11.
_FIRED, _LAUNCHED, _RUNNING, _ENDED, _DONE = Topic.FIRED, Topic.LAUNCHED, Topic.RUNNING, Topic.ENDED, Topic.DONE
_REFUSED, _FAULT, _CONFIG = Topic.REFUSED, Topic.FAULT, Topic.CONFIG

#: the states of an ended attempt
ATTEMPT_STATES = ("SUCCEEDED", "FAILED", "KILLED", "LOST")
#: the reasons of a lost attempt
LOST_REASONS = ("LOST", "NOT_STARTED", "INVALID", "REPLACED")
_STATE_OF_END = {str(end): str(end) if str(end) in ATTEMPT_STATES else "LOST" for end in End}
assert {*ATTEMPT_STATES, *LOST_REASONS} == _STATE_OF_END.keys(), "every end has a state"
#: the states of an ended run
RUN_STATES = tuple(str(state) for state in ShardState if state.ended)
_SUCCESS, _FAILURES = "FINISHED", ("FAILED", "DEAD")
#: what a job may lack
REFUSAL_REASONS = (*DIMENSIONS, "never", "constraints")
STORE_FAILURES = ("fenced", "full", "other")
DROP_REASONS = ("slow_listener", "sink_failed")
#: upper bounds of the histograms' buckets, in seconds
LATENESS_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0)
DURATION_BOUNDS = (0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")
#: the labels of requests that reach no route, such as those with a wrong token
NO_ROUTE = ("", "")


class Owner(NamedTuple):
    """The labels of a job."""

    team: str
    app: str
    job: str


#: the labels of all jobs beyond the limit together; no team is called ""
OTHER = Owner("", "", "other")
#: the labels of all ad-hoc runs together; no job is called "ad hoc"
AD_HOC = Owner("", "", "ad hoc")


class Histogram:
    """Counts of values by bucket. One thread observes, and any thread may read."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, int]], float]:
        """(upper bound, number of values up to it) of each bucket, and the sum of all values."""
        total, found = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            total += count
            found.append((bound, total))
        return found, self._sum


class JobCounts:
    """The counts of one job, or of all jobs beyond the limit. Instants are in milliseconds, 0 for never."""

    __slots__ = ("attempts", "failed_ms", "fired", "launched", "owner", "runs", "succeeded_ms")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.fired = self.launched = 0
        self.attempts = dict.fromkeys(ATTEMPT_STATES, 0)
        self.runs = dict.fromkeys(RUN_STATES, 0)
        self.succeeded_ms = self.failed_ms = 0

    def ended(self, state: str, at: int) -> None:
        """Remember when a run last succeeded or failed."""
        if state == _SUCCESS:
            self.succeeded_ms = max(self.succeeded_ms, at)
        elif state in _FAILURES:
            self.failed_ms = max(self.failed_ms, at)


class Tally:
    """Counts what happens in a process. A sink of notices.

    `publish` and `follow` are called on the scheduler's thread, and `answered` on the API's thread. Any thread may
    read. At most `max_jobs` jobs have counts of their own; the others share one set of counts.
    """

    def __init__(self, max_jobs: int = 1_000) -> None:
        self._max_jobs = max_jobs
        self._core: Scheduler | None = None
        #: job key → its counts
        self._jobs: dict[str, JobCounts] = {}
        self._other = JobCounts(OTHER)
        self._ad_hoc = JobCounts(AD_HOC)
        #: held while jobs are added, removed or listed
        self._lock = threading.Lock()
        self.lost = dict.fromkeys(LOST_REASONS, 0)
        self.refusals = dict.fromkeys(REFUSAL_REASONS, 0)
        self.placements = self.offers_received = self.offers_declined = 0
        self.faults = self.leader_changes = 0
        self.store_failures = dict.fromkeys(STORE_FAILURES, 0)
        self.lateness = Histogram(LATENESS_BOUNDS)
        self.cycles = Histogram(DURATION_BOUNDS)
        self.store_writes = Histogram(DURATION_BOUNDS)
        #: (method, route) → answers by class of status
        self.requests: dict[tuple[str, str], dict[str, int]] = {NO_ROUTE: dict.fromkeys(STATUS_CLASSES, 0)}

    # ------------------------------------------------------------------------------------------------- notices

    def publish(self, notice: object) -> None:
        """Count a notice. Other effects than `Publish` are ignored."""
        if type(notice) is not Publish:
            return
        topic = notice.topic
        if topic is _RUNNING:
            return
        if topic is _LAUNCHED:
            self.placements += 1
            if notice.job:
                self._counts(notice.job).launched += 1
                if notice.due:
                    self.lateness.observe(max(0, notice.at - notice.due) / 1_000)
        elif topic is _ENDED:
            state = _STATE_OF_END[notice.reason]
            if notice.job:
                self._counts(notice.job).attempts[state] += 1
                if state == "LOST":
                    self.lost[notice.reason] += 1
        elif topic is _DONE:
            counts = self._counts(notice.job)
            counts.runs[notice.state] += 1
            counts.ended(notice.state, notice.at)
        elif topic is _FIRED:
            self._counts(notice.job).fired += 1
        elif topic is _REFUSED:
            self.refusals[notice.reason] += 1
        elif topic is _FAULT:
            self.faults += 1
        elif topic is _CONFIG and notice.job:
            self._follow_job(notice.job)

    def _counts(self, key: str) -> JobCounts:
        found = self._jobs.get(key)
        if found is not None:
            return found
        return self._ad_hoc if is_ad_hoc(key) else self._other

    def follow(self, core: Scheduler) -> None:
        """Begin to count for a restored core. The counts of jobs that still exist go on."""
        self._core = core
        for key in [key for key in self._jobs if key not in core.jobs]:
            self._follow_job(key)
        for key in sorted(core.jobs):
            self._follow_job(key)
        self._remember_ends(core.firings.values())

    def _follow_job(self, key: str) -> None:
        """Give a registered job counts of its own, or remove the counts of a removed job."""
        job = self._core.jobs.get(key) if self._core is not None and not is_ad_hoc(key) else None
        with self._lock:
            if job is None:
                self._jobs.pop(key, None)
                return
            owner, known = owner_of(job), self._jobs.get(key)
            if known is not None and known.owner == owner:
                return
            if known is not None or len(self._jobs) < self._max_jobs:
                # A job that moves to another app gets other labels, so its counts begin at 0 again.
                self._jobs[key] = JobCounts(owner)

    def _remember_ends(self, firings: Iterable[Firing]) -> None:
        for firing in firings:
            if firing.ended_ms and firing.cause is not Cause.DAEMON and (counts := self._jobs.get(firing.job)):
                counts.ended(str(firing.worst), firing.ended_ms)

    # ------------------------------------------------------------------------------------------------- measures

    def answered(self, place: tuple[str, str], status: int) -> None:
        """Count an answer of the API: `place` is the method and the template of the route, or NO_ROUTE."""
        self.requests.get(place, self.requests[NO_ROUTE])[STATUS_CLASSES[min(max(status // 100, 2), 5) - 2]] += 1

    def expect_requests(self, places: Iterable[tuple[str, str]]) -> None:
        """Begin the counts of these routes at 0."""
        for place in places:
            self.requests.setdefault(place, dict.fromkeys(STATUS_CLASSES, 0))

    # ------------------------------------------------------------------------------------------------- reading

    def jobs(self) -> list[JobCounts]:
        """The counts of all jobs. The last entries are those of all ad-hoc runs, and of all jobs beyond the limit."""
        with self._lock:
            return [*self._jobs.values(), self._ad_hoc, self._other]

    def owner(self, key: str) -> Owner:
        """The labels of a job; AD_HOC for that of an ad-hoc run, OTHER if the job is beyond the limit."""
        return self._counts(key).owner


def owner_of(job: Job) -> Owner:
    return Owner(job.team, job.app, job.name)
