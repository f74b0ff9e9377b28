"""The search for jobs: filters and orders over all jobs, with little work on the scheduler's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from jobcloud.config import Job, parse_labels, split_key
from jobcloud.model import Firing, JobState, ShardState, pause_key
from jobcloud.scheduler import Scheduler
from jobcloud.server.api.paging import Listing, PageQuery, Place
from jobcloud.server.api.schema import KeyFilter, TeamFilter

MAX_TEXT = 100
MAX_LABELS = 5
Order: TypeAlias = Literal["name", "-name", "next", "-next", "last", "-last"]
Condition: TypeAlias = Literal["enabled", "disabled", "paused", "running", "waiting", "failed", "dead"]

# A name has at most 63 characters, a value at most 100.
Label = Annotated[str, Field(max_length=164)]

_FAILED = (ShardState.DEAD, ShardState.FAILED)
# Later than each instant: a job without an instant is the last one in both directions.
_NEVER = 1 << 60


class JobQuery(PageQuery):
    app: KeyFilter = Field("", description="only jobs of this app")
    team: TeamFilter = Field("", description="only jobs of this team")
    q: str = Field("", max_length=MAX_TEXT, description="a text in the key, the description or the owner, in any case")
    label: list[Label] = Field(
        default=[], max_length=MAX_LABELS, description="NAME or NAME=VALUE; a job must have each of these labels"
    )
    owner: str = Field("", max_length=MAX_TEXT, description="only jobs with this label owner")
    state: Condition | None = Field(
        None,
        description="enabled: neither the job nor its app is disabled. disabled: one of them is. paused: the job, its "
        "app or everything is. running, waiting: it has such shards. failed: the run that ended last is FAILED or "
        "DEAD. dead: it has runs with shards that have used up their attempts",
    )
    sort: Order = Field(
        "name",
        description="name, the next firing, or the fire time of the last run; a minus reverses the order. Jobs without "
        "such a time are at the end",
    )
    brief: bool = Field(False, description="leave out the configurations")


class _Facts(NamedTuple):
    """References of the core at one moment. `ended`: the firings that ended last by job, in several tables."""

    jobs: dict[str, Job]
    states: dict[str, JobState]
    disabled_apps: frozenset[str]
    pauses: frozenset[str]
    due: dict[str, int]
    unfinished: list[Firing]
    ended: list[dict[str, Firing]]
    dead: dict[str, int]


def look(scheduler: Scheduler, query: JobQuery) -> _Facts:
    """The facts that a search needs. Runs on the scheduler's thread, so it copies only references."""
    last = query.sort in ("last", "-last")
    jobs = scheduler.jobs.copy()
    for key in scheduler.ad_hoc:
        del jobs[key]
    return _Facts(
        jobs,
        scheduler.job_states.copy() if query.state in ("enabled", "disabled") else {},
        frozenset(scheduler.disabled_apps),
        frozenset(scheduler.pauses),
        dict(scheduler.due) if query.sort in ("next", "-next") else {},
        scheduler.queue.unfinished_firings() if last or query.state in ("running", "waiting") else [],
        scheduler.ended_last() if last or query.state == "failed" else [],
        scheduler.dead_by_job() if query.state == "dead" else {},
    )


class Found(NamedTuple):
    """The keys of the jobs of a page, the cursor of the next one, and the number of all jobs that match."""

    keys: list[str]
    cursor: str
    total: int


def search(facts: _Facts, query: JobQuery, teams: frozenset[str] | None, size: Callable[[Job], int]) -> Found:
    """`teams` are those that the sender may view; None: all. `size` estimates the bytes of a job. Raises Problem."""
    keys = [key for key, job in facts.jobs.items() if teams is None or job.team in teams]
    for fits in _filters(facts, query):
        keys = [key for key in keys if fits(key, facts.jobs[key])]
    falling = query.sort.startswith("-")
    what = query.sort.removeprefix("-")
    place = _place(facts, what, falling=falling)
    keys.sort(key=place, reverse=falling)
    # A cursor is valid for its own order only.
    name = "jobs" if query.sort == "name" else f"jobs by {query.sort}"
    listing = Listing(name, (str,) if what == "name" else (int, str))
    found, cursor = listing.page(keys, place, query, lambda key: size(facts.jobs[key]), falling=falling)
    return Found(found, cursor, len(keys))


def _place(facts: _Facts, what: str, *, falling: bool) -> Callable[[str], Place]:
    if what == "name":
        return lambda key: (key,)
    instants = facts.due if what == "next" else _last_fired(facts)
    never = -1 if falling else _NEVER
    return lambda key: (instants.get(key, never), key)


def _last_fired(facts: _Facts) -> dict[str, int]:
    """Job → the fire time of its last run."""
    found: dict[str, int] = {}
    for firing in (*(firing for table in facts.ended for firing in table.values()), *facts.unfinished):
        if firing.fire_ms > found.get(firing.job, -1):
            found[firing.job] = firing.fire_ms
    return found


def _filters(facts: _Facts, query: JobQuery) -> Iterable[Callable[[str, Job], bool]]:
    """The filters of a query, the fastest first. Each is asked about the jobs that the ones before let through."""
    if query.app:
        team, name = split_key(query.app)
        yield lambda key, job: job.app == name and job.team == team
    if query.state is not None:
        yield _of_state(facts, query.state)
    if query.owner:
        yield lambda key, job: query.owner in job.labels and job.owner == query.owner
    for label in query.label:
        yield _of_label(label)
    if query.q:
        text = query.q.casefold()
        yield (
            lambda key, job: (
                text in key.casefold()
                or text in job.description.casefold()
                or (text in job.labels.casefold() and text in job.owner.casefold())
            )
        )


def _of_label(label: str) -> Callable[[str, Job], bool]:
    name, valued, value = label.partition("=")

    def fits(key: str, job: Job) -> bool:
        if name not in job.labels:  # much faster than to parse them
            return False
        found = parse_labels(job.labels).get(name)
        return found == value if valued else found is not None

    return fits


def _of_state(facts: _Facts, state: Condition) -> Callable[[str, Job], bool]:
    if state in ("enabled", "disabled"):
        apps, states, wanted = facts.disabled_apps, facts.states, state == "disabled"
        return lambda key, job: (states[key].disabled or (bool(apps) and job.app_key in apps)) is wanted
    if state == "paused":
        return _paused(facts.pauses)
    if state in ("running", "waiting"):
        of = ShardState.ACTIVE if state == "running" else ShardState.WAITING
        keys = {firing.job for firing in facts.unfinished if any(shard.state is of for shard in firing.work)}
    elif state == "failed":
        keys = {job for job, firing in _ended_last(facts.ended).items() if firing.worst in _FAILED}
    else:
        keys = set(facts.dead)
    return lambda key, job: key in keys


def _paused(pauses: frozenset[str]) -> Callable[[str, Job], bool]:
    if pause_key() in pauses:
        return lambda key, job: True
    return lambda key, job: bool(pauses) and (pause_key(job=key) in pauses or pause_key(app=job.app_key) in pauses)


def _ended_last(tables: Sequence[dict[str, Firing]]) -> dict[str, Firing]:
    found: dict[str, Firing] = {}
    for table in tables:
        for job, firing in table.items():
            if job not in found or (firing.ended_ms, firing.fire_ms) > (found[job].ended_ms, found[job].fire_ms):
                found[job] = firing
    return found
