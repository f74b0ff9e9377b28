"""A copy of the scheduler's state, so that answers are built outside the scheduler's thread."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from jobcloud.config import App, Job, team_of
from jobcloud.errors import NotFound
from jobcloud.match import PlainMatcher
from jobcloud.model import AppVersion, Attempt, Backfill, Executor, Firing, JobState, Pause, Task, pause_key
from jobcloud.scheduler import Scheduler, refusals
from jobcloud.scheduler.attempts import Attempts, fits
from jobcloud.scheduler.executors import ExecutorState
from jobcloud.scheduler.reason import Reason
from jobcloud.sentences.frequent import shown_by

T = TypeVar("T")
Pausable: TypeAlias = Literal["job", "app", "cluster"]
#: None: all teams
Teams: TypeAlias = Collection[str] | None


class WarmExecutors(NamedTuple):
    """The number of an app's warm executors that are up, and the reason if more are wanted."""

    up: int = 0
    lacking: Reason | None = None


@dataclass(frozen=True)
class Snapshot:
    """The scheduler's values at one moment, by key. Users call a firing a run.

    A snapshot of some jobs has the jobs, job states, firings, tasks, attempts and backfills of these jobs only. That of
    one run has this firing only. Both have no executors and no versions of apps.
    """

    apps: Mapping[str, App]
    #: registered jobs
    jobs: Mapping[str, Job]
    #: the jobs of ad-hoc runs
    ad_hoc: Mapping[str, Job]
    states: Mapping[str, JobState]
    disabled_apps: frozenset[str]
    firings: Mapping[str, Firing]
    #: (minus the fire time, id) of each run, sorted: the newest comes first
    newest: Sequence[tuple[int, str]]
    tasks: Mapping[str, Task]
    executors: Sequence[Executor]
    next_firings: Mapping[str, int]
    matcher: Literal["compiled", "plain"]
    #: by app, for apps that ask for warm executors
    warm_executors: Mapping[str, WarmExecutors]
    #: by firing; the scheduler may add newer attempts after the snapshot was taken
    attempts: Mapping[str, Attempts]
    pauses: Mapping[str, Pause]
    backfills: Mapping[str, Backfill]
    #: by the key of the executor's record
    executor_states: Mapping[str, ExecutorState]
    app_versions: Mapping[str, AppVersion]
    #: the maximum number of runs and their shards that `newest_runs` looks at; 0: no limit
    max_shards: int = 0

    def paused_by(self, *, job: str = "", app: str = "") -> list[Pausable]:
        """The pauses that hold a job or an app: its own, that of its app, that of everything."""
        keys: dict[Pausable, str] = {"cluster": pause_key()}
        if app:
            keys["app"] = pause_key(app=app)
        if job:
            keys["job"] = pause_key(job=job)
        return [what for what, key in reversed(keys.items()) if key in self.pauses]

    def runs(self, job: str = "", teams: Teams = None) -> list[Firing]:
        """The runs of a job, of some teams' jobs, or of all jobs, newest first."""
        return list(self.newest_runs(job, teams))

    def newest_runs(self, job: str = "", teams: Teams = None, since_ms: int = 0) -> Iterator[Firing]:
        """As `runs`, one after another, of those that fired at `since_ms` or later.

        Raises TooMany if `max_shards` is not enough.
        """
        seen = 0
        for minus_ms, run_id in self.newest:
            if -minus_ms < since_ms:
                return
            firing = self.firings[run_id]
            seen += 1 + len(firing.shards)
            if self.max_shards and seen > self.max_shards:
                raise TooMany
            if job in ("", firing.job) and belongs(firing.job, teams):
                yield firing

    def earlier(self, firing: Firing, item: int) -> list[Attempt]:
        """The earlier attempts of a shard that are kept, oldest first."""
        kept = self.attempts.get(firing.id)
        return [attempt for attempt in kept.of(item) if fits(attempt, firing.shards[item])] if kept is not None else []

    def runs_by_job(self, jobs: Iterable[str]) -> Mapping[str, list[Firing]]:
        """The runs of each of these jobs, newest first."""
        found: dict[str, list[Firing]] = {job: [] for job in jobs}
        for firing in self.newest_runs():
            if firing.job in found:
                found[firing.job].append(firing)
        return found

    def app(self, key: str) -> App:
        """Raises NotFound."""
        if key not in self.apps:
            raise no_app(key)
        return self.apps[key]

    def versions_of(self, key: str) -> list[AppVersion]:
        """The versions of an app that are kept, the newest first. One of them is the present one. Raises NotFound."""
        app = self.app(key)
        found = [version for version in self.app_versions.values() if version.app.key == key]
        found.sort(key=lambda version: -version.number)
        if any(version.app == app for version in found):
            return found
        return [AppVersion(found[0].number + 1 if found else 1, 0, app), *found]

    def job(self, key: str) -> Job:
        """A registered job. Raises NotFound."""
        if key not in self.jobs:
            raise NotFound(
                refusals.no_job(key[:200]), field="jobName", fix=shown_by("jobcloud job list", "shows all jobs")
            )
        return self.jobs[key]


def belongs(key: str, teams: Teams) -> bool:
    """Whether an app or a job belongs to one of some teams."""
    return teams is None or team_of(key) in teams


class TooMany(Exception):
    """A view of the scheduler's own tables has reached its limit."""


def view(scheduler: Scheduler, max_shards: int) -> Snapshot:
    """The scheduler's own tables, for a quick look on the scheduler's thread.

    It has no executors and no versions of apps, and its `jobs` include those of ad-hoc runs.
    """
    return Snapshot(
        scheduler.apps,
        scheduler.jobs,
        scheduler.ad_hoc,
        scheduler.job_states,
        frozenset(scheduler.disabled_apps),
        scheduler.firings,
        scheduler.newest,
        scheduler.tasks,
        (),
        scheduler.due,
        _matcher(scheduler),
        {},
        scheduler.attempts,
        scheduler.pauses,
        scheduler.backfills,
        {},
        {},
        max_shards,
    )


def take(scheduler: Scheduler, at: int) -> Snapshot:
    """Take a snapshot, on the scheduler's thread. It copies only references."""
    jobs = dict(scheduler.jobs)
    ad_hoc = {key: jobs.pop(key) for key in scheduler.ad_hoc}
    return Snapshot(
        dict(scheduler.apps),
        jobs,
        ad_hoc,
        dict(scheduler.job_states),
        frozenset(scheduler.disabled_apps),
        dict(scheduler.firings),
        tuple(scheduler.newest),
        dict(scheduler.tasks),
        tuple(scheduler.executors.values()),
        dict(scheduler.due),
        _matcher(scheduler),
        {app.key: _warm_executors(scheduler, app.key, at) for app in scheduler.apps.values() if app.executors},
        dict(scheduler.attempts),
        dict(scheduler.pauses),
        dict(scheduler.backfills),
        scheduler.executor_states(),
        dict(scheduler.app_versions),
    )


def take_of_jobs(scheduler: Scheduler, jobs: Sequence[str]) -> Snapshot:
    """Take a snapshot of some jobs, on the scheduler's thread. Its cost does not depend on other jobs."""
    firings = {firing.id: firing for job in jobs for firing in scheduler.firings_of(job)}
    return _take_part(scheduler, jobs, firings)


def take_of_run(scheduler: Scheduler, run_id: str) -> Snapshot:
    """Take a snapshot of one run and its job, on the scheduler's thread. It is empty if there is no such run."""
    firings = _only(scheduler.firings, [run_id])
    return _take_part(scheduler, [firing.job for firing in firings.values()], firings)


def _take_part(scheduler: Scheduler, jobs: Sequence[str], firings: Mapping[str, Firing]) -> Snapshot:
    shards = (shard for firing in firings.values() for shard in firing.shards)
    return Snapshot(
        scheduler.apps.copy(),
        _only(scheduler.jobs, [job for job in jobs if job not in scheduler.ad_hoc]),
        _only(scheduler.ad_hoc, jobs),
        _only(scheduler.job_states, jobs),
        frozenset(scheduler.disabled_apps),
        firings,
        sorted((-firing.fire_ms, firing.id) for firing in firings.values()),
        _only(scheduler.tasks, (shard.task_id for shard in shards)),
        (),
        _only(scheduler.due, jobs),
        _matcher(scheduler),
        {},
        _only(scheduler.attempts, firings),
        scheduler.pauses.copy(),
        _only(scheduler.backfills, jobs),
        {},
        {},
    )


def _only(table: Mapping[str, T], keys: Iterable[str]) -> dict[str, T]:
    return {key: table[key] for key in keys if key in table}


def _matcher(scheduler: Scheduler) -> Literal["compiled", "plain"]:
    return "plain" if isinstance(scheduler.cluster.matcher, PlainMatcher) else "compiled"


def _warm_executors(scheduler: Scheduler, app: str, at: int) -> WarmExecutors:
    return WarmExecutors(scheduler.warm_executors(app), scheduler.lacking_executors(app, at))


def no_app(key: str) -> NotFound:
    fix = shown_by("jobcloud app list", "shows all apps")
    return NotFound(refusals.no_app(key[:200]), field="appName", fix=fix)
