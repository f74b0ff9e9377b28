"""A copy of the scheduler's state, so that answers are built outside the scheduler's thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from jobcloud.config import App, Job, team_of
from jobcloud.errors import NotFound
from jobcloud.match import PlainMatcher
from jobcloud.model import Attempt, Backfill, Executor, Firing, JobState, Pause, Task, pause_key
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.attempts import Attempts, fits

Pausable: TypeAlias = Literal["job", "app", "cluster"]


class WarmExecutors(NamedTuple):
    """The number of an app's warm executors that are up, and the reason if more are wanted."""

    up: int = 0
    lacking: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The scheduler's values at one moment, by key. Users call a firing a run."""

    apps: Mapping[str, App]
    jobs: Mapping[str, Job]
    states: Mapping[str, JobState]
    disabled_apps: frozenset[str]
    firings: Mapping[str, Firing]
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

    def paused_by(self, *, job: str = "", app: str = "") -> list[Pausable]:
        """The pauses that hold a job or an app: its own, that of its app, that of everything."""
        keys: dict[Pausable, str] = {"cluster": pause_key()}
        if app:
            keys["app"] = pause_key(app=app)
        if job:
            keys["job"] = pause_key(job=job)
        return [what for what, key in reversed(keys.items()) if key in self.pauses]

    def runs(self, job: str = "", team: str = "") -> list[Firing]:
        """The runs of a job, of a team's jobs, or of all jobs, newest first."""
        found = (firing for firing in self.firings.values() if job in ("", firing.job) and belongs(firing.job, team))
        return sorted(found, key=_newest_first)

    def earlier(self, firing: Firing, item: int) -> list[Attempt]:
        """The earlier attempts of a shard that are kept, oldest first."""
        kept = self.attempts.get(firing.id)
        return [attempt for attempt in kept.of(item) if fits(attempt, firing.shards[item])] if kept is not None else []

    def runs_by_job(self, jobs: Iterable[str]) -> Mapping[str, list[Firing]]:
        """The runs of each of these jobs, newest first."""
        found: dict[str, list[Firing]] = {job: [] for job in jobs}
        for firing in self.firings.values():
            if firing.job in found:
                found[firing.job].append(firing)
        for runs in found.values():
            runs.sort(key=_newest_first)
        return found

    def app(self, key: str) -> App:
        """Raises NotFound."""
        if key not in self.apps:
            raise no_app(key)
        return self.apps[key]

    def job(self, key: str) -> Job:
        """Raises NotFound."""
        if key not in self.jobs:
            raise NotFound(f"there is no job {key[:200]}", field="jobName", fix="`jobcloud job list` shows all jobs")
        return self.jobs[key]


def _newest_first(firing: Firing) -> tuple[int, str]:
    return -firing.fire_ms, firing.id


def belongs(key: str, team: str) -> bool:
    """Whether an app or a job belongs to a team; "" stands for all teams."""
    return not team or team_of(key) == team


def take(scheduler: Scheduler, at: int) -> Snapshot:
    """Take a snapshot, on the scheduler's thread. It copies only references."""
    due = {key: scheduler.next_firing(key) for key in scheduler.jobs}
    return Snapshot(
        dict(scheduler.apps),
        dict(scheduler.jobs),
        dict(scheduler.job_states),
        frozenset(scheduler.disabled_apps),
        dict(scheduler.firings),
        dict(scheduler.tasks),
        tuple(scheduler.executors.values()),
        {key: instant for key, instant in due.items() if instant is not None},
        "plain" if isinstance(scheduler.cluster.matcher, PlainMatcher) else "compiled",
        {app.key: _warm_executors(scheduler, app.key, at) for app in scheduler.apps.values() if app.executors},
        dict(scheduler.attempts),
        dict(scheduler.pauses),
        dict(scheduler.backfills),
    )


def _warm_executors(scheduler: Scheduler, app: str, at: int) -> WarmExecutors:
    lacking = scheduler.lacking_executors(app, at)
    return WarmExecutors(scheduler.warm_executors(app), lacking.text if lacking else "")


def no_app(key: str) -> NotFound:
    return NotFound(f"there is no app {key[:200]}", field="appName", fix="`jobcloud app list` shows all apps")
