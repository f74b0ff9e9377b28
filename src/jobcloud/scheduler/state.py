"""The state of one leader: tables of records, the cluster, the queue, the write set and the effects.

All parts of the scheduler share one State. It makes no decisions.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ParamSpec, TypeAlias, TypeVar

from jobcloud.config import DEFAULT_CLUSTER, DIMENSIONS, NOTHING, App, Job, Resources, key_of, team_of
from jobcloud.errors import ConfigError, NotFound, Refused
from jobcloud.match import AnyMatcher
from jobcloud.messages import EFFECT_ORDER, RANK, Effect, Kind, Publish, Record, Save, Topic, Write
from jobcloud.model import (
    NO_TERMS,
    Attempt,
    Calendar,
    Cause,
    Condition,
    Firing,
    Restoration,
    Shard,
    Slots,
    Task,
    Terms,
    changed,
    pause_key,
    tried,
)
from jobcloud.scheduler import attempts, launch, places, queue, recovery, sharding
from jobcloud.scheduler.attempts import Attempts
from jobcloud.scheduler.cluster import Cluster, Request
from jobcloud.scheduler.launch import Artifacts, ExecutorPlan
from jobcloud.scheduler.recovery import Stored, differences, recover, shard_key, with_starts
from jobcloud.scheduler.refusals import no_app, no_job
from jobcloud.scheduler.slots import slots_of
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.triggers import Days, Times, parse_days


@dataclass(frozen=True, slots=True)
class AlertChannel:
    """A channel for alerts, as the core knows it. An empty filter admits all alerts. `owners` are globs."""

    name: str
    conditions: frozenset[Condition] = frozenset()
    teams: frozenset[str] = frozenset()
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of the scheduler. Durations are in milliseconds."""

    artifacts: Artifacts
    #: the name of the cluster, a part of the ids of new firings
    cluster: str = DEFAULT_CLUSTER
    offer_hold_ms: int = 5_000
    max_offers: int = 100_000
    decline_refuse_ms: int = 5_000
    #: replaces decline_refuse_ms while no shard waits: offers then only serve to discover new agents
    roaming_refuse_ms: int = 60_000
    #: a firing that is handled later than this after its due instant counts as missed
    misfire_threshold_ms: int = 5_000
    #: the maximum number of unfinished firings of a job
    max_waiting: int = 100
    #: ended firings kept per job
    history: int = 50
    #: ended firings with DEAD shards kept per job, in addition to `history`
    max_dead: int = 100
    #: shards in the ended firings kept per job, for `history` and `max_dead` separately; the newest firing of each is
    #: kept in any case
    max_ended_shards: int = 10_000
    reconcile_interval_ms: int = 900_000
    reconcile_first_ms: int = 1_000
    reconcile_max_ms: int = 60_000
    #: Mesos is asked about a launched task if no update of it comes for this long
    launch_answer_ms: int = 10_000
    #: a kill is sent again after this long
    kill_again_ms: int = 10_000
    #: time that an executor has to end an attempt that exceeds its time limit, before the scheduler kills the task
    timeout_grace_ms: int = 30_000
    #: time that a task has to end after a kill, before its executor is shut down
    kill_timeout_ms: int = 120_000
    #: configurations kept per app, the present one included
    app_versions: int = 10
    #: shards placed in one scheduling cycle
    cycle_limit: int = 20_000
    #: limits of one call, which launches tasks on one agent: if a call has this number of tasks or bytes, further tasks
    #: wait for the next offer
    accept_tasks: int = 1_000
    accept_bytes: int = 4 << 20
    #: an agent without tasks, executors and offers is forgotten after this long
    agent_memory_ms: int = 86_400_000
    #: an agent is cordoned this long before its maintenance window; also the default length of an operator's drain
    drain_lead_ms: int = 600_000
    #: refuse time of offers from cordoned agents
    drain_refuse_ms: int = 30_000
    #: after a restore, repeated shards wait this long, so that Mesos reports the tasks without a record first
    restore_hold_ms: int = 30_000
    #: a job that fails on an agent again and again avoids this agent for this long after the last failure there
    avoid_ms: int = 600_000
    #: a gang that finds too little room for this long gets a hold (see gangs.py), for `gang_hold_ms` at most
    gang_age_ms: int = 60_000
    gang_hold_ms: int = 300_000
    #: interval between two sweeps
    sweep_ms: int = 60_000
    #: the channels that are informed about alerts; without any, nobody watches for alerts
    alert_channels: tuple[AlertChannel, ...] = ()
    #: the first alert of a message waits this long for others
    alert_wait_ms: int = 5_000
    #: the minimum time between two messages to one channel
    alert_interval_ms: int = 60_000
    #: the maximum lifetime of a token for the API
    max_token_ms: int = 366 * 86_400_000
    #: the Mesos roles whose offers are for all teams without a role of their own
    roles: tuple[str, ...] = ("*",)
    #: team → the Mesos role whose offers are for this team alone; a team without an entry gets those of other roles
    team_roles: Mapping[str, str] = field(default_factory=dict)
    #: whether attempts and runs are traced for the history
    traced: bool = False
    #: the fraction of runs that get spans; None if no spans are made
    trace_ratio: float | None = None


_PUBLISH = RANK[Publish]
# Global names, because an access to an enum member costs a function call in CPython 3.11.
_FIRING, _SHARD, _ATTEMPT = Kind.FIRING, Kind.SHARD, Kind.ATTEMPT
# flush() puts the Save before all other effects.
assert RANK[Save] == 0

#: makes a matcher for a number of dimensions
MakeMatcher: TypeAlias = Callable[[int], AnyMatcher]

P = ParamSpec("P")
T = TypeVar("T")


class State:
    """The stored records, and the data that only this leader has.

    The tables are `apps`, `jobs`, `ad_hoc`, `job_states`, `disabled_apps`, `firings`, `attempts`, `tasks`, `executors`,
    `drains`, `backfills`, `pauses`, `app_versions`, `alerts`, `alert_messages`, `silences`, `teams`, `roles`, `users`,
    `access_tokens`, `sessions`, `calendars`, `workflows`, `workflow_runs`, `nodes`, `framework_id` and `restoration`.
    `jobs` and `job_states` include ad-hoc jobs. Every part reads the tables. Only the methods of this class change
    them, together with the write set. So no change can be lost at a change of leader. The write set and the effects are
    those of the event that is being handled. `flush` returns both.
    """

    def __init__(self, policy: Policy, stored: Stored, epoch: int, at: int, matcher: MakeMatcher) -> None:
        self.policy = policy
        self.epoch = epoch
        whole = recover(stored, at)
        self.apps = whole.apps
        self.jobs = whole.jobs
        #: the jobs of ad-hoc runs
        self.ad_hoc = whole.ad_hoc
        self.job_states = whole.job_states
        self.disabled_apps = whole.disabled_apps
        self.firings = with_starts(whole.firings, whole.tasks.values())
        #: (minus the fire time, id) of each firing, sorted: the newest comes first
        self.newest = sorted((-firing.fire_ms, firing.id) for firing in self.firings.values())
        self.tasks = whole.tasks
        self.executors = whole.executors
        self.framework_id = whole.framework_id
        self.drains = whole.drains
        self.restoration = whole.restoration
        #: firing id → the earlier attempts of its shards, if there are any
        self.attempts = recovery.attempts_by_firing(whole.attempts)
        self.pauses = whole.pauses
        self.backfills = whole.backfills
        self.app_versions = whole.app_versions
        self.alerts = whole.alerts
        self.alert_messages = whole.alert_messages
        self.silences = whole.silences
        self.pools = whole.pools
        self.teams = whole.teams
        self.roles = whole.roles
        self.users = whole.users
        self.access_tokens = whole.access_tokens
        self.sessions = whole.sessions
        self.calendars = whole.calendars
        self.workflows = whole.workflows
        self.workflow_runs = whole.workflow_runs
        #: the nodes of the runs of workflows that have started or ended, by key
        self.nodes = whole.nodes
        #: calendar → its days
        self.days: dict[str, Days] = {key: parse_days(found.days) for key, found in whole.calendars.items()}
        self._tables: dict[Kind, dict[str, Any]] = {
            Kind.APP: self.apps,
            Kind.JOB: self.jobs,
            Kind.JOB_STATE: self.job_states,
            Kind.TASK: self.tasks,
            Kind.EXECUTOR: self.executors,
            Kind.DRAIN: self.drains,
            Kind.BACKFILL: self.backfills,
            Kind.PAUSE: self.pauses,
            Kind.APP_VERSION: self.app_versions,
            Kind.ALERT: self.alerts,
            Kind.ALERT_MESSAGE: self.alert_messages,
            Kind.SILENCE: self.silences,
            Kind.POOL: self.pools,
            Kind.TEAM: self.teams,
            Kind.ROLE: self.roles,
            Kind.USER: self.users,
            Kind.ACCESS_TOKEN: self.access_tokens,
            Kind.SESSION: self.sessions,
            Kind.CALENDAR: self.calendars,
            Kind.WORKFLOW: self.workflows,
            Kind.WORKFLOW_RUN: self.workflow_runs,
            Kind.NODE: self.nodes,
        }
        self.connected = False
        self.cluster = Cluster(matcher(len(DIMENSIONS)), policy.team_roles)
        self.queue = queue.Queue(lambda job: self.jobs[job].runs_at_once if job in self.jobs else 1, self.group_of)
        #: job → the error that keeps it from starting anything; removed when the job or its app changes
        self.faults: dict[str, str] = {}
        self.plans: dict[str, ExecutorPlan] = {}
        self.rules = places.Index(self.jobs.values())
        self.near = self.rules.near
        self._sequence = recovery.numbers_used(stored, epoch)
        #: cycle_due: something may be launched now; new_work: offers should be requested if none are held
        self.cycle_due = self.new_work = True
        self.notices: deque[Publish] = deque(maxlen=20_000)
        # Repairs made by the recovery are written with the effects of the first event.
        self.write_set: dict[tuple[Kind, str], Record | None] = {
            (kind, key): record for kind, key, record in differences(stored, whole)
        }
        #: by rank, see EFFECT_ORDER
        self.effects: tuple[list[Effect], ...] = tuple([] for _ in EFFECT_ORDER)

    # ------------------------------------------------------------------------------------------------- changes

    def put(self, kind: Kind, key: str, record: Record) -> None:
        """Set a record, here and in the store. Firings have methods of their own."""
        if kind is Kind.JOB and isinstance(record, Job):
            self.rules.put(record)
        self._tables[kind][key] = record
        self.write_set[kind, key] = record

    def delete(self, kind: Kind, key: str) -> None:
        """Delete a record, here and in the store. Raises KeyError if there is none."""
        del self._tables[kind][key]
        self.write_set[kind, key] = None

    def put_calendar(self, calendar: Calendar, days: Days) -> None:
        """Set a calendar, here and in the store."""
        self.days[calendar.key] = days
        self.put(Kind.CALENDAR, calendar.key, calendar)

    def delete_calendar(self, key: str) -> None:
        """Delete a calendar, here and in the store. Raises KeyError if there is none."""
        del self.days[key]
        self.delete(Kind.CALENDAR, key)

    def put_ad_hoc(self, job: Job) -> None:
        """Add the job of an ad-hoc run, here and in the store."""
        self.rules.put(job)
        self.jobs[job.key] = self.ad_hoc[job.key] = self.write_set[Kind.AD_HOC, job.key] = job
        self.job_states[job.key] = recovery.AD_HOC_STATE

    def delete_job(self, key: str) -> None:
        """Delete a job with its state, here and in the store. Raises KeyError if there is none."""
        self.rules.remove(key)
        if self.ad_hoc.pop(key, None) is None:
            self.delete(Kind.JOB, key)
            self.delete(Kind.JOB_STATE, key)
        else:
            del self.jobs[key], self.job_states[key]
            self.write_set[Kind.AD_HOC, key] = None
        self.faults.pop(key, None)

    def put_firing(self, firing: Firing, changes: Mapping[int, Shard]) -> None:
        """Set a firing, here and in the store. `changes` are its shards that differ from its last version.

        Of a wide firing, only the changed shards are written, and the firing's own record if it differs.
        """
        if not firing.wide:
            self.put_firing_unsaved(firing)
            self.write_set[_FIRING, firing.id] = firing
            return
        old = self.firings.get(firing.id)
        self.put_firing_unsaved(firing)
        if old is None or not old.wide:
            changes = tried(firing.shards)
        for item, shard in changes.items():
            self.write_set[_SHARD, shard_key(firing.id, item)] = shard
        if (
            old is None
            or old.ended_ms != firing.ended_ms
            or old.generation != firing.generation
            or old.terms != firing.terms
            or len(old.shards) != len(firing.shards)
        ):
            self.write_set[_FIRING, firing.id] = firing

    def put_firing_unsaved(self, firing: Firing) -> None:
        """Set a firing here, not in the store. This is for values that a new leader derives from other records."""
        if firing.id not in self.firings:
            insort(self.newest, (-firing.fire_ms, firing.id))
        self.firings[firing.id] = firing

    def delete_firing(self, firing_id: str) -> None:
        """Delete an ended firing with its shards and attempts, here and in the store.

        Raises KeyError if there is none.
        """
        firing = self.firings.pop(firing_id)
        del self.newest[bisect_left(self.newest, (-firing.fire_ms, firing_id))]
        self.delete_attempts(firing_id)
        self.write_set[_FIRING, firing_id] = None
        for item in range(len(firing.shards)) if firing.wide else ():
            self.write_set[_SHARD, shard_key(firing_id, item)] = None

    def keep_attempt(self, firing_id: str, item: int, attempt: Attempt) -> None:
        """Keep the newest attempt of a shard, here and in the store, unless it is kept already."""
        displaced = self.attempts.setdefault(firing_id, Attempts()).add(item, attempt)
        if displaced is None:
            return
        for old in displaced:
            self.write_set[_ATTEMPT, attempts.key_of(firing_id, item, old.number)] = None
        self.write_set[_ATTEMPT, attempts.key_of(firing_id, item, attempt.number)] = attempt

    def delete_attempts(self, firing_id: str) -> None:
        """Delete the earlier attempts of a firing's shards, here and in the store."""
        for item, attempt in self.attempts.pop(firing_id, ()):
            self.write_set[_ATTEMPT, attempts.key_of(firing_id, item, attempt.number)] = None

    def set_app_disabled(self, app: str, *, disabled: bool) -> None:
        if disabled:
            self.disabled_apps.add(app)
        else:
            self.disabled_apps.discard(app)
        self.write_set[Kind.DISABLED_APP, app] = True if disabled else None

    def set_framework_id(self, framework_id: str) -> None:
        """Set the id by which Mesos knows this framework; with "", the next subscription gets a new one."""
        self.framework_id = framework_id
        self.write_set[Kind.FRAMEWORK, "id"] = framework_id or None

    def set_restoration(self, restoration: Restoration) -> None:
        self.restoration = restoration
        self.write_set[Kind.RESTORATION, "last"] = restoration

    def change_job_state(self, job: str, **changes: Any) -> None:
        self.put(Kind.JOB_STATE, job, changed(self.job_states[job], **changes))

    def emit(self, effect: Effect) -> None:
        self.effects[RANK[type(effect)]].append(effect)

    def publish(self, at: int, topic: Topic, text: str, **about: Any) -> None:
        """Publish a notice. `about` holds further fields of Publish."""
        self._publish(Publish(at, topic, text, **about))

    def publish_task(
        self, at: int, topic: Topic, task: Task, text: str, state: str = "", *, reason: str = "", due: int = 0
    ) -> None:
        """Publish a notice about a task."""
        job, app = task.job, ""
        if task.placeholder:
            job, app, text = "", task.app, f"warm executor of {task.app}: {text}"
        self._publish(
            Publish(
                at, topic, text, job, task.firing_id, task.id, task.item, task.hostname, state, app, task.attempt,
                reason, due,
            )
        )  # fmt: skip

    def _publish(self, notice: Publish) -> None:
        self.notices.append(notice)
        self.effects[_PUBLISH].append(notice)

    def flush(self) -> list[Effect]:
        """The effects since the last call, in the order in which they are to be performed."""
        found: list[Effect] = []
        if self.write_set:
            found.append(Save(tuple([Write(kind, key, record) for (kind, key), record in self.write_set.items()])))
            self.write_set = {}
        for effects in self.effects:
            if effects:
                found += effects
                effects.clear()
        return found

    def request_cycle(self) -> None:
        """Run a scheduling cycle with the next tick. Request offers if none are held."""
        self.cycle_due = self.new_work = True

    def isolated(self, job: str, at: int, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call `do` for one job. An exception is recorded as that job's fault and affects no other job.

        Returns the result of `do`, None if it raised.
        """
        try:
            return do(*args, **kwargs)
        except Exception as error:  # an error in one job must not affect the others
            self.faults[job] = f"{type(error).__name__}: {error}"
            self.publish(at, Topic.FAULT, self.faults[job], job=job)
            return None

    # ------------------------------------------------------------------------------------------------- reading

    def app(self, key: str) -> App:
        """Raises NotFound."""
        if key not in self.apps:
            raise NotFound(no_app(key), field="appName", fix=shown_by("jobcloud app list", "names them"))
        return self.apps[key]

    def job(self, key: str) -> Job:
        """A registered job. Raises NotFound."""
        if key in self.ad_hoc:
            problem = Told(f"{key} is an ad-hoc run", "is_ad_hoc", run=key)
            raise NotFound(problem, field="jobName", fix=Told("name a registered job", "registered_job"))
        if key not in self.jobs:
            raise NotFound(no_job(key), field="jobName", fix=shown_by("jobcloud job list", "names them"))
        return self.jobs[key]

    def jobs_of(self, app: str) -> list[Job]:
        """The jobs of an app, with those of its ad-hoc runs."""
        return [job for job in self.jobs.values() if job.app_key == app]

    def times(self, job: Job) -> Times:
        """The fire times of a job, on the days that its calendars allow."""
        return job.times(self.days)

    def enabled(self, job: str) -> bool:
        """Whether the job exists and neither it nor its app is disabled."""
        return (
            job in self.jobs and not self.job_states[job].disabled and self.jobs[job].app_key not in self.disabled_apps
        )

    def pauses_of(self, job: str) -> list[str]:
        """The keys of the pauses that hold a job: the pauses of the job, of its app and of everything."""
        if not self.pauses:
            return []
        app = self.jobs[job].app_key if job in self.jobs else ""
        keys = (pause_key(job=job), *([pause_key(app=app)] if app else ()), pause_key())
        return [key for key in keys if key in self.pauses]

    def paused(self, job: str) -> bool:
        """Whether the job, its app or everything is paused."""
        return bool(self.pauses) and bool(self.pauses_of(job))

    def wanted(self, firing: Firing) -> bool:
        """Whether the shards of the firing are to run: its job is enabled and has not started a newer generation."""
        return self.enabled(firing.job) and firing.generation == self.job_states[firing.job].generation

    def plan_of(self, app: str) -> ExecutorPlan:
        """The plan of the app's executor. Raises NotFound."""
        if app not in self.plans:
            self.plans[app] = launch.plan_executor(self.app(app), self.policy.artifacts)
        return self.plans[app]

    def request(self, job: Job) -> Request:
        """The request of a shard of the job. Raises NotFound without its app, and ConfigError for a wrong condition."""
        found = self.plan_of(job.app_key).request(job)
        app = self.apps[job.app_key]
        if not (job.constraints or app.constraints or job.preferences or self.near):
            return found
        where = places.where_of_job(job, app)
        return found._replace(where=places.counting(where, job.key) if job.key in self.near else where)

    def counted(self, job: Job | None) -> places.Where | None:
        """That the shards of a job are counted; None if no rule of the job counts them."""
        if job is not None and job.key in self.near:
            return places.counting(None, job.key)
        if job is None or job.app_key not in self.apps or not (job.constraints or job.preferences):
            return None
        with suppress(Refused):
            where = places.where_of_job(job, self.apps[job.app_key])
            if where is not None and where.group:
                return where.counted
        return None

    def requests(self) -> set[Request]:
        """The requests of the shards of all jobs. A job whose app or conditions are damaged is left out."""
        found = set()
        for job in self.jobs.values():
            with suppress(Refused):
                found.add(self.request(job))
        return found

    def group_of(self, job: str) -> queue.Group:
        """The group of the firings of a job."""
        found = self.jobs.get(job)
        if found is None:
            return queue.Group(team_of(job), "", NOTHING)
        slots: Slots = ()
        with suppress(ConfigError):  # a damaged record; making its task gives the job a fault
            slots = slots_of(found)
        return _group(found.team, found.app, found.resources, slots)

    def new_firing(self, job: Job, cause: Cause, fire_ms: int, terms: Terms = NO_TERMS) -> Firing:
        """A new firing of the job's present generation (see `sharding.make_firing`). It is not a record yet."""
        job_state = self.job_states[job.key]
        return sharding.make_firing(job, job_state, cause, fire_ms, self.unique(), self.policy.cluster, terms)

    def unique(self) -> str:
        """A new id suffix, unique over all leaders."""
        self._sequence += 1
        return f"{self.epoch}-{self._sequence}"

    def fence(self) -> int:
        """A fence token, higher than those of earlier tasks. A 64-bit float holds it exactly up to epoch 9 million."""
        return self.epoch * 1_000_000_000 + self._sequence


# Each group is one object, because it is compared and hashed for each firing.
@lru_cache(maxsize=65_536)
def _group(team: str, app: str, resources: Resources, slots: Slots) -> queue.Group:
    return queue.Group(team, key_of(team, app), resources, slots)
