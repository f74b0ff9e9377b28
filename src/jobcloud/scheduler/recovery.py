"""Recovery: a new leader corrects the stored state if records are missing or damaged.

A task that may run is never forgotten, because otherwise its shard could be started a second time. If a record that a
task refers to is missing, a stand-in replaces it until Mesos reports the end of the task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from jobcloud.config import App, Job, JobKind, Resources
from jobcloud.messages import Kind, Record
from jobcloud.model import (
    UNTRIED,
    AccessToken,
    Alert,
    AlertMessage,
    AppVersion,
    Attempt,
    Backfill,
    Calendar,
    Cause,
    Drain,
    Executor,
    Firing,
    JobState,
    NodeRun,
    NodeState,
    Pause,
    Pool,
    Restoration,
    Role,
    Session,
    Shard,
    Shards,
    ShardState,
    Silence,
    Task,
    Team,
    User,
    Workflow,
    WorkflowRun,
    changed,
    replaced,
    tried,
    untried,
)
from jobcloud.scheduler import attempts
from jobcloud.scheduler.attempts import Attempts
from jobcloud.scheduler.places import own_where
from jobcloud.scheduler.sharding import left_out
from jobcloud.sentences import Words

MESSAGE = "its record was lost or damaged"
_NOT_BEGUN = (ShardState.WAITING, ShardState.CANCELLED)
# The generation of stand-in firings. Every generation of a job is newer. Firings of an older generation start no tasks,
# so a stand-in ends with its present tasks.
NO_GENERATION = 0
# The state of each ad-hoc job. It never changes, so it is not stored.
AD_HOC_STATE = JobState(considered_ms=0)
# Stands for a node of a workflow's run whose record cannot be read. The node may have started, so it is not started.
DAMAGED_NODE = NodeRun(NodeState.FAILED, ended_ms=1, reason=Words("node_damaged"))
# The spec of an executor that is known only from its tasks.
NO_SPEC = "{}"


@dataclass(slots=True)
class Stored:
    """The records that a leader loads before it starts."""

    apps: dict[str, App] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    job_states: dict[str, JobState] = field(default_factory=dict)
    disabled_apps: set[str] = field(default_factory=set)
    firings: dict[str, Firing] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    executors: dict[str, Executor] = field(default_factory=dict)
    framework_id: str = ""
    drains: dict[str, Drain] = field(default_factory=dict)
    #: the records of shards by key; None for a record that cannot be read
    shards: dict[str, Shard | None] = field(default_factory=dict)
    restoration: Restoration | None = None
    #: the records of earlier attempts by key
    attempts: dict[str, Attempt] = field(default_factory=dict)
    pauses: dict[str, Pause] = field(default_factory=dict)
    backfills: dict[str, Backfill] = field(default_factory=dict)
    #: the jobs of ad-hoc runs, by key
    ad_hoc: dict[str, Job] = field(default_factory=dict)
    #: the records of versions of apps by key
    app_versions: dict[str, AppVersion] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    alert_messages: dict[str, AlertMessage] = field(default_factory=dict)
    silences: dict[str, Silence] = field(default_factory=dict)
    teams: dict[str, Team] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    access_tokens: dict[str, AccessToken] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    calendars: dict[str, Calendar] = field(default_factory=dict)
    workflows: dict[str, Workflow] = field(default_factory=dict)
    workflow_runs: dict[str, WorkflowRun] = field(default_factory=dict)
    #: the nodes that have started or ended, by key
    nodes: dict[str, NodeRun] = field(default_factory=dict)


def executor_key(agent_id: str, executor_id: str) -> str:
    return f"{agent_id}/{executor_id}"


def belongs(firing_id: str, job: str) -> bool:
    """Whether a firing with this id may be one of the job: ids begin with the job's key (see sharding.firing_id)."""
    return firing_id.startswith(f"{job}.")


def shard_key(firing_id: str, item: int) -> str:
    return f"{firing_id}/{item}"


def shard_place(key: str) -> tuple[str, int]:
    """The firing and item of a shard's key. Raises ValueError."""
    firing_id, _, digits = key.rpartition("/")
    item = int(digits)
    if key != shard_key(firing_id, item) or item < 0:
        raise ValueError(f"{key!r} is no key of a shard")
    return firing_id, item


def recover(stored: Stored, at: int) -> Stored:
    """A copy of `stored` without gaps.

    Every task has a firing, a shard and an executor. Every active shard has a task. Every firing has all its shards.
    Every earlier attempt has a shard. Every ad-hoc job has a firing. `jobs` and `job_states` of the copy include the
    ad-hoc jobs.
    """
    whole = Stored(
        dict(stored.apps), stored.jobs | stored.ad_hoc, {}, set(stored.disabled_apps), _with_shards(stored, at),
        dict(stored.tasks), dict(stored.executors), stored.framework_id, dict(stored.drains),
        restoration=stored.restoration, pauses=dict(stored.pauses),
        backfills={name: found for name, found in stored.backfills.items() if found.times},
        app_versions=dict(stored.app_versions),
        alerts=dict(stored.alerts), alert_messages=dict(stored.alert_messages), silences=dict(stored.silences),
        pools=dict(stored.pools),
        teams=dict(stored.teams), roles=dict(stored.roles), users=dict(stored.users),
        access_tokens=dict(stored.access_tokens), sessions=dict(stored.sessions), calendars=dict(stored.calendars),
        workflows=dict(stored.workflows), workflow_runs=dict(stored.workflow_runs), nodes=dict(stored.nodes),
    )  # fmt: skip
    for name in whole.jobs:
        known = AD_HOC_STATE if name in stored.ad_hoc else stored.job_states.get(name)
        whole.job_states[name] = known or _state(whole, name, at)
    astray = [task for task in whole.tasks.values() if not task.placeholder and not _fits(whole, task)]
    places = _places(whole) if astray else {}
    for task in sorted(astray, key=lambda task: task.id):
        if task.id in whole.tasks:
            _give_firing(whole, task, places)
    for firing in list(whole.firings.values()):
        _give_tasks(whole, firing, at)
    for task in whole.tasks.values():
        key = executor_key(task.agent_id, task.executor_id)
        if key not in whole.executors:
            whole.executors[key] = Executor(task.executor_id, task.agent_id, task.app, (), NO_SPEC, at)
    for firing in list(whole.firings.values()):
        ended = all(shard.state.ended for shard in firing.shards)
        if ended != bool(firing.ended_ms):
            whole.firings[firing.id] = changed(firing, ended_ms=at if ended else 0)
    fired = {firing.job for firing in whole.firings.values()} if stored.ad_hoc else ()
    whole.ad_hoc = {key: job for key, job in stored.ad_hoc.items() if key in fired}
    for key in stored.ad_hoc.keys() - whole.ad_hoc.keys():
        del whole.jobs[key], whole.job_states[key]
    whole.attempts = _newest({key: found for key, found in stored.attempts.items() if _has_shard(whole, key, found)})
    return whole


def _has_shard(whole: Stored, key: str, attempt: Attempt) -> bool:
    firing_id, item, _ = attempts.place_of(key)
    firing = whole.firings.get(firing_id)
    return firing is not None and item < len(firing.shards) and attempts.fits(attempt, firing.shards[item])


def _newest(stored: dict[str, Attempt]) -> dict[str, Attempt]:
    """The attempts, at most MOST_OF_SHARD of each shard, the newest ones. Another build may have stored more."""
    by_shard: dict[tuple[str, int], list[str]] = {}
    for key in sorted(stored, key=lambda key: stored[key].number):
        by_shard.setdefault(attempts.place_of(key)[:2], []).append(key)
    surplus = {key for keys in by_shard.values() for key in keys[: -attempts.MOST_OF_SHARD]}
    return {key: attempt for key, attempt in stored.items() if key not in surplus}


def attempts_by_firing(stored: Mapping[str, Attempt]) -> dict[str, Attempts]:
    """The records of earlier attempts, by firing."""
    found: dict[str, Attempts] = {}
    placed = ((*attempts.place_of(key)[:2], attempt) for key, attempt in stored.items())
    for firing_id, item, attempt in sorted(placed, key=lambda each: each[2].number):
        found.setdefault(firing_id, Attempts()).restore(item, attempt)
    return found


def _with_shards(stored: Stored, at: int) -> dict[str, Firing]:
    """The firings, with the shards that have records of their own.

    A shard with a damaged record is taken as FAILED. If it has a task, `recover` makes it active afterwards. A shard
    without a record waits for its first attempt if its firing has not ended. In an ended firing, each shard had a
    record. If this record was lost, the shard is taken as FAILED, too. A shard that the firing's trigger left out is
    CANCELLED in any case.
    """
    found: dict[str, dict[int, Shard | None]] = {firing.id: {} for firing in stored.firings.values() if firing.wide}
    for key, shard in stored.shards.items():
        firing_id, item = shard_place(key)
        if firing_id in found and item < len(stored.firings[firing_id].shards):
            found[firing_id][item] = shard
    with_task = {(task.firing_id, task.item) for task in stored.tasks.values()}
    whole = dict(stored.firings)
    for firing_id, given in found.items():
        firing = stored.firings[firing_id]
        if firing.terms.items:
            out = (item for item in range(len(firing.shards)) if given.get(item) is None and not firing.runs(item))
            given.update(dict.fromkeys(out, left_out(firing.fire_ms)))
        absent = (item for item, shard in enumerate(firing.shards) if firing.ended_ms and not shard.state.ended)
        known = {**dict.fromkeys(absent), **given}
        if not known:
            continue
        lost = {item for item, shard in known.items() if shard is None}
        failed = Shard(ShardState.FAILED, ended_ms=firing.ended_ms or at, message=MESSAGE)
        shards = replaced(firing.shards, {item: shard or failed for item, shard in known.items()})
        if firing.stepped and lost:
            running = {item for item in range(len(shards)) if (firing_id, item) in with_task}
            shards = replaced(shards, _with_listener(shards, lost - running, running, failed))
        whole[firing_id] = changed(firing, shards=shards)
    return whole


def _with_listener(shards: Shards, lost: set[int], running: set[int], failed: Shard) -> dict[int, Shard]:
    """New states for shards of a firing with a listener, after records of shards were lost.

    `lost`: the items without a record and without a task. `running`: the items that have a task. The last two shards
    are the calls of the listener. The other shards start only after the first call has finished, and the second call
    only after all of them have ended. The new states agree with this order.
    """
    before, after = len(shards) - 2, len(shards) - 1
    work = range(before)
    begun = any(item in running or (item not in lost and shards[item].state not in _NOT_BEGUN) for item in work)
    changes: dict[int, Shard] = {}
    if before in lost and begun:
        changes[before] = changed(failed, state=ShardState.FINISHED)
    if not begun and shards[before].state is not ShardState.FINISHED:
        cancelled = changed(failed, state=ShardState.CANCELLED)
        over = shards[before].state.ended and before not in running
        changes |= {item: cancelled for item in work if item in lost or (over and not shards[item].state.ended)}
        if over and not shards[after].state.ended:
            changes[after] = cancelled
    if after in lost and not all((changes.get(item) or shards[item]).state.ended for item in work):
        changes[after] = UNTRIED
    return changes


def with_starts(firings: Mapping[str, Firing], tasks: Iterable[Task]) -> dict[str, Firing]:
    """The firings, with the instant at which each running shard started. Only the records of tasks contain it."""
    started: dict[str, dict[int, Shard]] = {}
    for task in tasks:
        if task.started_ms and not task.placeholder:
            shard = changed(firings[task.firing_id].shards[task.item], started_ms=task.started_ms)
            started.setdefault(task.firing_id, {})[task.item] = shard
    of_firings = ((firings[name], shards) for name, shards in started.items())
    return {**firings, **{each.id: changed(each, shards=replaced(each.shards, shards)) for each, shards in of_firings}}


def _state(whole: Stored, job: str, at: int) -> JobState:
    """A stand-in for a job's state.

    The current generation is that of the job's newest firings. If the job has become resident since these firings were
    made, or has ceased to be resident, the current generation is the next one.
    """
    firings = [firing for firing in whole.firings.values() if firing.job == job]
    newest = max((firing.generation for firing in firings), default=1)
    resident = whole.jobs[job].kind is JobKind.DAEMON
    fit = all((firing.cause is Cause.DAEMON) == resident for firing in firings if firing.generation == newest)
    return JobState(considered_ms=at, generation=newest if fit else newest + 1)


def differences(before: Stored, after: Stored) -> Iterator[tuple[Kind, str, Record | None]]:
    """The writes that turn `before` into `after`."""
    tables: tuple[tuple[Kind, Mapping[str, Record], Mapping[str, Record]], ...] = (
        (Kind.JOB_STATE, before.job_states, {k: v for k, v in after.job_states.items() if k not in after.ad_hoc}),
        (Kind.AD_HOC, before.ad_hoc, after.ad_hoc),
        (Kind.TASK, before.tasks, after.tasks),
        (Kind.EXECUTOR, before.executors, after.executors),
        (Kind.ATTEMPT, before.attempts, after.attempts),
    )
    for kind, old, new in tables:
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                yield kind, key, new.get(key)
    for key, firing in after.firings.items():
        # The content that the firing's own record should have. The shards of a wide firing have records of their own;
        # older versions stored them in the firing's record, too.
        stored = changed(firing, shards=untried(len(firing.shards))) if firing.wide else firing
        if before.firings.get(key) != stored:
            yield Kind.FIRING, key, firing
    wide = [firing for firing in after.firings.values() if firing.wide]
    shards = {shard_key(each.id, item): shard for each in wide for item, shard in tried(each.shards).items()}
    for key in sorted(before.shards.keys() | shards.keys()):
        shard = shards.get(key) or _shard_at(after, key)
        if shard is None or before.shards.get(key) != shard:
            yield Kind.SHARD, key, shard


def _shard_at(whole: Stored, key: str) -> Shard | None:
    """The shard of a record; None if there is no such shard in a wide firing."""
    firing_id, item = shard_place(key)
    firing = whole.firings.get(firing_id)
    return firing.shards[item] if firing is not None and firing.wide and item < len(firing.shards) else None


def _fits(whole: Stored, task: Task) -> bool:
    """Whether the task's shard is active and names this task."""
    firing = whole.firings.get(task.firing_id)
    if firing is None or task.item >= len(firing.shards) or task.job != firing.job:
        return False
    shard = firing.shards[task.item]
    return shard.state is ShardState.ACTIVE and shard.task_id == task.id


def _places(whole: Stored) -> dict[str, tuple[str, int]]:
    """Task id → the firing and the item of the shard that names this task."""
    places: dict[str, tuple[str, int]] = {}
    for firing in whole.firings.values():
        for item, shard in enumerate(firing.shards):
            if shard.state is ShardState.ACTIVE:
                places.setdefault(shard.task_id, (firing.id, item))
    return places


def _give_firing(whole: Stored, task: Task, places: Mapping[str, tuple[str, int]]) -> None:
    """Attach the task to its shard. If the shard names another task that has a record, delete the older of the two.

    Mesos still reports the deleted task, which is then killed as an orphan.
    """
    # If a shard names the task, the shard is right and the task's own record is wrong.
    firing_id, item = places.get(task.id, (task.firing_id, task.item))
    firing = whole.firings.get(firing_id) or _stand_in(whole, task)
    task = whole.tasks[task.id] = changed(task, firing_id=firing.id, item=item, job=firing.job)
    behind = range(len(firing.shards), task.item + 1)
    shards = replaced(firing.shards, dict.fromkeys(behind, Shard(ShardState.CANCELLED, message=MESSAGE)))
    shard = shards[task.item]
    if shard.state is ShardState.ACTIVE and shard.task_id == task.id:
        return
    other = whole.tasks.get(shard.task_id) if shard.state is ShardState.ACTIVE else None
    if other is not None:
        newer = (other.firing_id, other.item) == (firing.id, item) and other.attempt < task.attempt
        del whole.tasks[other.id if newer else task.id]
        if not newer:
            return
    active = changed(
        shard, state=ShardState.ACTIVE, attempt=max(shard.attempt, task.attempt), task_id=task.id,
        agent_id=task.agent_id, hostname=task.hostname, executor_id=task.executor_id, started_ms=task.started_ms,
        ended_ms=0,
    )  # fmt: skip
    whole.firings[firing.id] = changed(firing, shards=replaced(shards, {task.item: active}))


def _stand_in(whole: Stored, task: Task) -> Firing:
    """A stand-in for the lost firing of a task. Like every firing's id, its id begins with the key of the job."""
    job = whole.jobs.get(task.job)
    cause = Cause.DAEMON if job is not None and job.kind is JobKind.DAEMON else Cause.TRIGGER
    name = task.firing_id if belongs(task.firing_id, task.job) else f"{task.job}.{task.firing_id}"
    return whole.firings.get(name) or Firing(name, task.job, NO_GENERATION, cause, task.created_ms, ())


def _give_tasks(whole: Stored, firing: Firing, at: int) -> None:
    """Make a task for every active shard without one, from the shard's data.

    An active shard that names another shard's task becomes FAILED.
    """
    failed: dict[int, Shard] = {}
    for item, shard in enumerate(firing.shards):
        if shard.state is not ShardState.ACTIVE:
            continue
        task = whole.tasks.get(shard.task_id)
        if task is None:
            job = whole.jobs.get(firing.job)
            app = job.app_key if job is not None else ""
            resources = job.resources if job is not None else Resources()
            exclusive = job is not None and own_where(job).exclusive
            whole.tasks[shard.task_id] = Task(
                shard.task_id, firing.id, firing.job, item, shard.attempt, shard.execution, shard.agent_id,
                shard.hostname, app, shard.executor_id, resources, at, started_ms=shard.started_ms, message=MESSAGE,
                exclusive=exclusive,
            )  # fmt: skip
        elif task.item != item or task.firing_id != firing.id:
            failed[item] = changed(shard, state=ShardState.FAILED, ended_ms=at, message=MESSAGE)
    if failed:
        whole.firings[firing.id] = changed(firing, shards=replaced(firing.shards, failed))


def numbers_used(stored: Stored, epoch: int) -> int:
    """The highest number in the stored ids of this epoch, from which a new core with the same epoch continues.

    Ended placeholder tasks leave no record, so their numbers are unknown. A server is not affected: it raises the epoch
    before it makes a new core.
    """
    ids = [*stored.tasks, *stored.firings, *stored.alert_messages, *stored.workflow_runs]
    ids += (shard.task_id for firing in stored.firings.values() for shard in firing.shards)
    ids += (shard.task_id for shard in stored.shards.values() if shard is not None)
    number = re.compile(rf"[-@~]{epoch}-([0-9]{{1,15}})(\.run)?(@[a-z][a-z0-9-]*)?$")
    return max((int(found[1]) for text in ids if (found := number.search(text))), default=0)
