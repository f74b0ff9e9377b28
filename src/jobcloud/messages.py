"""Inputs of the scheduler (events) and its outputs (effects), as frozen values. They name apps and jobs by their keys.

Every event has `at`, the instant at which it happened (milliseconds since the Unix epoch), and all identifiers that it
needs. Effects are performed in `EFFECT_ORDER`: a decision is stored before it is sent, and a status update is
acknowledged only after the changes that it caused are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from jobcloud.config import App, Job, team_of
from jobcloud.model import (
    NO_OUTCOME,
    NO_TERMS,
    AccessToken,
    Alert,
    AlertMessage,
    Answer,
    AppVersion,
    Attempt,
    Backfill,
    Calendar,
    Condition,
    Drain,
    Executor,
    Firing,
    InverseOffer,
    JobState,
    NodeRun,
    Offer,
    Outcome,
    Pause,
    Pool,
    Principal,
    Restoration,
    Role,
    Session,
    Shard,
    Share,
    Silence,
    Task,
    Team,
    Terms,
    User,
    Workflow,
    WorkflowRun,
)
from jobcloud.triggers import Days

# ---------------------------------------------------------------------------------------------------------- events


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed."""

    at: int


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """The master has accepted the subscription. Offers of earlier sessions are void."""

    at: int
    framework_id: str
    master: str = ""


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The event stream has ended. All offers are void."""

    at: int
    reason: str = ""


class FrameworkRemoved(msgspec.Struct, frozen=True, gc=False):
    """The master will never accept our framework id again."""

    at: int
    reason: str


class OffersReceived(msgspec.Struct, frozen=True, gc=False):
    at: int
    offers: tuple[Offer, ...]


class OfferRescinded(msgspec.Struct, frozen=True, gc=False):
    at: int
    offer_id: str


class InverseOffersReceived(msgspec.Struct, frozen=True, gc=False):
    """A rescinded inverse offer needs no event: an answer to it has no effect."""

    at: int
    inverse_offers: tuple[InverseOffer, ...]


class Status(msgspec.Struct, frozen=True, gc=False):
    """A task status update from Mesos. `uuid` is "" if no acknowledgement is due.

    `state` is the name in Mesos (`TASK_RUNNING`), possibly unknown to us; `data` is the executor's JSON, or "".
    """

    task_id: str
    agent_id: str
    state: str
    uuid: str = ""
    reason: str = ""
    source: str = ""
    message: str = ""
    data: str = ""


class StatusReceived(msgspec.Struct, frozen=True, gc=False):
    at: int
    status: Status


class AgentLost(msgspec.Struct, frozen=True, gc=False):
    at: int
    agent_id: str


class ExecutorLost(msgspec.Struct, frozen=True, gc=False):
    at: int
    agent_id: str
    executor_id: str


class SendFailed(msgspec.Struct, frozen=True, gc=False):
    """A call failed. `certain`: the call has had no effect. Otherwise it may have taken effect.

    `too_large`: the master, or a proxy in front of it, refused the call for its size.
    """

    at: int
    call: Call
    reason: str
    certain: bool
    too_large: bool = False


class PutApp(msgspec.Struct, frozen=True, gc=False):
    """Register an app, or replace it (`replace`).

    Here and in other commands, `expected` are revisions (`scheduler.revisions.of_record`). The command is refused
    unless the app or the job has one of them. None: the command does not depend on the revision. `author` is the
    subject who changes the configuration, for the history; "" if it is unknown.
    """

    at: int
    app: App
    replace: bool = False
    expected: tuple[str, ...] | None = None
    author: str = ""


class RemoveApp(msgspec.Struct, frozen=True, gc=False):
    """Remove an app. With `jobs`, also remove all its jobs."""

    at: int
    app: str
    jobs: bool = False
    expected: tuple[str, ...] | None = None
    author: str = ""


class SetAppEnabled(msgspec.Struct, frozen=True, gc=False):
    at: int
    app: str
    enabled: bool


class PutJob(msgspec.Struct, frozen=True, gc=False):
    """Register a job, or replace it (`replace`). `enabled` False: a new job does not fire until it is enabled."""

    at: int
    job: Job
    replace: bool = False
    enabled: bool = True
    expected: tuple[str, ...] | None = None
    author: str = ""


class RemoveJob(msgspec.Struct, frozen=True, gc=False):
    at: int
    job: str
    expected: tuple[str, ...] | None = None
    author: str = ""


class SetJobEnabled(msgspec.Struct, frozen=True, gc=False):
    at: int
    job: str
    enabled: bool


class Apply(msgspec.Struct, frozen=True, gc=False):
    """Register or replace several apps and jobs: all of them, or none. No key occurs twice.

    `pools`, by key, and `calendars`, with their days, are set first, so the jobs may name them. `workflows` are set
    last, because they name jobs. `prune`: remove the jobs that `left_out` names. The command changes no other app or
    job. `create`: refuse apps and jobs that exist. `enabled` False: new jobs do not fire until they are enabled. `by`:
    as in `PutApp`.
    """

    at: int
    apps: tuple[App, ...]
    jobs: tuple[Job, ...]
    prune: bool = False
    create: bool = False
    enabled: bool = True
    author: str = ""
    pools: tuple[tuple[str, Pool], ...] = ()
    calendars: tuple[tuple[Calendar, Days], ...] = ()
    workflows: tuple[Workflow, ...] = ()

    def left_out(self, known: Iterable[Job]) -> list[Job]:
        """The known jobs that the command does not name, of all apps that the command or one of its jobs names."""
        jobs = {job.key for job in self.jobs}
        apps = {app.key for app in self.apps} | {job.app_key for job in self.jobs}
        return [job for job in known if job.app_key in apps and job.key not in jobs]


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """Fire a TRANSIENT job now. If `terms` has a key, and a firing with this key is known, nothing changes."""

    at: int
    job: str
    terms: Terms = NO_TERMS


class RunAdHoc(msgspec.Struct, frozen=True, gc=False):
    """Run a job once that is not registered. `job.ad_hoc` is NEW_AD_HOC, and the scheduler replaces it.

    If `terms` has a key, and an ad-hoc run of the app with this key is known, nothing changes.
    """

    at: int
    job: Job
    terms: Terms = NO_TERMS


class SetPaused(msgspec.Struct, frozen=True, gc=False):
    """Pause or resume a job, an app, or everything. Running shards continue."""

    at: int
    paused: bool
    job: str = ""
    app: str = ""


class BackfillJob(msgspec.Struct, frozen=True, gc=False):
    """Make runs of a TRANSIENT job for these past fire times, in this order.

    Fire times that have a kept run are left out. At most `at_once` of the new runs are unfinished at a time.
    """

    at: int
    job: str
    times: tuple[int, ...]
    at_once: int = 1


class CancelBackfill(msgspec.Struct, frozen=True, gc=False):
    """Forget the fire times that wait for a backfill."""

    at: int
    job: str


class KillTask(msgspec.Struct, frozen=True, gc=False):
    """Kill one task. If its shard waits for the next attempt, end the shard."""

    at: int
    task_id: str


class ForgetTask(msgspec.Struct, frozen=True, gc=False):
    """Give up a task that no longer runs, as an operator knows. `force`: even if Mesos reports the task as alive."""

    at: int
    task_id: str
    force: bool = False


class UseSecrets(msgspec.Struct, frozen=True, gc=False):
    """Use up the right of a task on an agent to fetch its secrets, before the executor's first report."""

    at: int
    task_id: str
    agent_id: str


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Retry the DEAD, FAILED and KILLED shards of a firing, or only the shard `item`."""

    at: int
    firing_id: str
    item: int | None = None


class CancelRun(msgspec.Struct, frozen=True, gc=False):
    """End a firing of a TRANSIENT job: kill its running shards, and cancel the waiting ones."""

    at: int
    firing_id: str


class DrainAgent(msgspec.Struct, frozen=True, gc=False):
    """Drain an agent, given by its id or host name. `deadline_ms` 0: the default deadline."""

    at: int
    agent: str
    deadline_ms: int = 0
    reason: str = ""


class UndrainAgent(msgspec.Struct, frozen=True, gc=False):
    at: int
    agent: str


class ReconcileTasks(msgspec.Struct, frozen=True, gc=False):
    """Ask Mesos now about each task that has a record (`explicit`), or about all tasks that Mesos knows."""

    at: int
    explicit: bool = True


class ReportProblem(msgspec.Struct, frozen=True, gc=False):
    """The server has noticed a problem outside the core, or its end (`text` is "").

    If `text` is Told, the alert keeps its words.
    """

    at: int
    condition: Condition
    text: str


class ReportDelivery(msgspec.Struct, frozen=True, gc=False):
    """A channel has taken the message of an alert (`problem` is ""), or has not.

    `retry_ms`: how long the channel wants no message; 0 if it did not tell.
    """

    at: int
    message_id: str
    problem: str = ""
    retry_ms: int = 0


class PutCalendar(msgspec.Struct, frozen=True, gc=False):
    """Set a calendar. `days` are the parsed days of the record. They count at once for the jobs that name it."""

    at: int
    calendar: Calendar
    days: Days
    before: Calendar | None = None


class RemoveCalendar(msgspec.Struct, frozen=True, gc=False):
    """Remove a calendar that no job names."""

    at: int
    calendar: str


class PutSilence(msgspec.Struct, frozen=True, gc=False):
    """Silence some alerts. `id` is a new one."""

    at: int
    id: str
    silence: Silence


class RemoveSilence(msgspec.Struct, frozen=True, gc=False):
    at: int
    id: str


class PutPool(msgspec.Struct, frozen=True, gc=False):
    """Create or replace a pool. If `before` is not None, refuse the command unless this is the present record."""

    at: int
    key: str
    pool: Pool
    before: Pool | None = None


class RemovePool(msgspec.Struct, frozen=True, gc=False):
    at: int
    key: str
    before: Pool | None = None


class PutWorkflow(msgspec.Struct, frozen=True, gc=False):
    """Create or replace a workflow. If `before` is not None, refuse the command unless this is the present record."""

    at: int
    workflow: Workflow
    before: Workflow | None = None


class RemoveWorkflow(msgspec.Struct, frozen=True, gc=False):
    """Remove a workflow. Its runs that have begun go on."""

    at: int
    workflow: str
    before: Workflow | None = None


class CancelWorkflowRun(msgspec.Struct, frozen=True, gc=False):
    """End a run of a workflow: cancel the runs of its jobs, and start no further node."""

    at: int
    run: str


class PauseWorkflowRun(msgspec.Struct, frozen=True, gc=False):
    """Start no further node of a workflow's run until it is resumed; or resume it, if `paused` is false."""

    at: int
    run: str
    paused: bool


class AnswerNode(msgspec.Struct, frozen=True, gc=False):
    """Answer a node that waits for an approval or a callback."""

    at: int
    run: str
    node: str
    answer: Answer


class SendWorkflowEvent(msgspec.Struct, frozen=True, gc=False):
    """Answer the nodes of a team's workflows that wait for an event; with `fire_ms` only in runs of this fire time."""

    at: int
    team: str
    event: str
    answer: Answer
    fire_ms: int | None = None


class RetryWorkflowRun(msgspec.Struct, frozen=True, gc=False):
    """Retry the failed and killed nodes of a run of a workflow. The nodes after them start as if for the first time."""

    at: int
    run: str


class PutAccess(msgspec.Struct, frozen=True, gc=False):
    """Create or replace a record about identities and rights.

    `create`: refuse one that exists. If `before` is not None, refuse the command unless this is the present record.
    Here and in the next commands, `by` is the sender, whose rights are checked. None: the server itself.
    """

    at: int
    record: AccessRecord
    create: bool = False
    before: AccessRecord | None = None
    by: Principal | None = None


class RemoveAccess(msgspec.Struct, frozen=True, gc=False):
    """Remove a record about identities and rights.

    A removed user loses the roles, tokens and sessions, too, and a removed team its service accounts.
    """

    at: int
    kind: Kind
    key: str
    by: Principal | None = None


class RemoveService(msgspec.Struct, frozen=True, gc=False):
    """Remove the roles and tokens of a service account, `service:TEAM/NAME`."""

    at: int
    subject: str
    by: Principal | None = None


class RevokeToken(msgspec.Struct, frozen=True, gc=False):
    """Revoke a token, and all tokens that the same subject made with it."""

    at: int
    id: str
    by: Principal | None = None


class RevokeServerToken(msgspec.Struct, frozen=True, gc=False):
    """Revoke the token of the settings. `hash` is its SHA-256, so that a new token in the settings is valid."""

    at: int
    hash: str
    by: Principal | None = None


class EndSessions(msgspec.Struct, frozen=True, gc=False):
    """Sign a person out everywhere, except in the session `but`."""

    at: int
    subject: str
    but: str = ""


class NoteSessions(msgspec.Struct, frozen=True, gc=False):
    """Note that sessions are in use. Sessions that have ended stay ended."""

    at: int
    ids: tuple[str, ...]


Command: TypeAlias = (
    PutApp
    | RemoveApp
    | SetAppEnabled
    | PutJob
    | RemoveJob
    | SetJobEnabled
    | Apply
    | Trigger
    | RunAdHoc
    | SetPaused
    | BackfillJob
    | CancelBackfill
    | KillTask
    | ForgetTask
    | Retry
    | CancelRun
    | DrainAgent
    | UndrainAgent
    | ReconcileTasks
    | ReportProblem
    | ReportDelivery
    | PutCalendar
    | RemoveCalendar
    | PutSilence
    | RemoveSilence
    | PutPool
    | RemovePool
    | PutWorkflow
    | RemoveWorkflow
    | CancelWorkflowRun
    | RetryWorkflowRun
    | PauseWorkflowRun
    | AnswerNode
    | SendWorkflowEvent
    | PutAccess
    | RemoveAccess
    | RemoveService
    | RevokeToken
    | RevokeServerToken
    | EndSessions
    | NoteSessions
    | UseSecrets
)
Event: TypeAlias = (
    Tick
    | Subscribed
    | Disconnected
    | FrameworkRemoved
    | OffersReceived
    | OfferRescinded
    | InverseOffersReceived
    | StatusReceived
    | AgentLost
    | ExecutorLost
    | SendFailed
    | Command
)

# --------------------------------------------------------------------------------------------------------- effects


class Kind(StrEnum):
    """The kinds of stored records. The comments give key → record."""

    APP = "app"  # app key → App
    JOB = "job"  # job key → Job
    JOB_STATE = "job_state"  # job key → JobState
    AD_HOC = "ad_hoc"  # job key → Job of an ad-hoc run, as long as the run's record exists
    DISABLED_APP = "disabled_app"  # app key → True
    FIRING = "firing"  # firing id → Firing, without its shards if it is wide
    SHARD = "shard"  # firing id/item → Shard of a wide firing, once it has been tried
    TASK = "task"  # task id → Task, until it is known to have ended
    EXECUTOR = "executor"  # agent id/executor id → Executor
    FRAMEWORK = "framework"  # "id" → str
    DRAIN = "drain"  # agent id → Drain
    BACKFILL = "backfill"  # job key → Backfill
    PAUSE = "pause"  # see pause_key → Pause
    RESTORATION = "restoration"  # "last" → Restoration
    APP_VERSION = "app_version"  # app key/number → AppVersion
    ATTEMPT = "attempt"  # firing id/item/number → Attempt, if its shard was put into the queue again afterwards

    ALERT = "alert"  # see alert_key → Alert
    ALERT_MESSAGE = "alert_message"  # message id → AlertMessage
    SILENCE = "silence"  # silence id → Silence
    POOL = "pool"  # pool key → Pool
    TEAM = "team"  # name → Team
    ROLE = "role"  # name → Role
    USER = "user"  # name → User
    ACCESS_TOKEN = "access_token"  # noqa: S105 - token id → AccessToken
    SESSION = "session"  # session id → Session
    CALENDAR = "calendar"  # calendar key → Calendar
    WORKFLOW = "workflow"  # workflow key → Workflow
    WORKFLOW_RUN = "workflow_run"  # id of a workflow's run → WorkflowRun
    NODE = "node"  # see node_key → NodeRun


#: The names that stores use. They are in tables, because `kind.value` is a Python function call in CPython 3.11
#: (`enum.property`).
KINDS: Final[dict[str, Kind]] = {kind.value: kind for kind in Kind}
KIND_NAMES: Final[dict[Kind, str]] = {kind: name for name, kind in KINDS.items()}


AccessRecord: TypeAlias = Team | Role | User | AccessToken | Session
Record: TypeAlias = (
    App
    | Job
    | JobState
    | Firing
    | Shard
    | Task
    | Executor
    | Drain
    | Restoration
    | Attempt
    | Pause
    | Backfill
    | AppVersion
    | Alert
    | AlertMessage
    | Silence
    | Pool
    | Calendar
    | Workflow
    | WorkflowRun
    | NodeRun
    | AccessRecord
    | str
    | bool
)


class Write(msgspec.Struct, frozen=True, gc=False):
    """Put one record, or delete it if `record` is None."""

    kind: Kind
    key: str
    record: Record | None


class Save(msgspec.Struct, frozen=True, gc=False):
    """Writes that become durable together, before other effects of the same event are performed."""

    writes: tuple[Write, ...]


# Maximum size of the access to secrets that the driver adds to a task's data.
MAX_ACCESS_BYTES = 24_000


class Launch(msgspec.Struct, frozen=True, gc=False):
    """One task of an ACCEPT call.

    `own` and `shared` are the two parts of the payload for the executor (docs/executor.md). All attempts of a job hold
    the same object as `shared`, so that calls that wait to be sent take little memory. `secrets` names the secrets that
    the task may fetch once, from the agent with this `address` (as in Offer). The driver adds the token for this.
    """

    task_id: str
    name: str
    shares: tuple[Share, ...]
    executor: Executor
    own: bytes
    shared: bytes = b""
    secrets: tuple[str, ...] = ()
    address: str = ""

    @property
    def data(self) -> bytes:
        """The payload for the executor."""
        return self.own + self.shared

    @property
    def size(self) -> int:
        """The approximate number of bytes that the task adds to its call.

        They are the data in base64, the executor, ids and resources.
        """
        access = MAX_ACCESS_BYTES if self.secrets else 0
        return (len(self.own) + len(self.shared) + access) * 4 // 3 + len(self.executor.spec) + 1_000


class Accept(msgspec.Struct, frozen=True, gc=False):
    """Launch tasks on one agent, with all held offers of the agent for one role.

    Mesos refuses a call with offers for several roles.
    """

    agent_id: str
    offer_ids: tuple[str, ...]
    launches: tuple[Launch, ...]


class Decline(msgspec.Struct, frozen=True, gc=False):
    """Decline offers. Mesos does not offer the same resources again for `refuse_ms`."""

    offer_ids: tuple[str, ...]
    refuse_ms: int


class AcceptInverseOffers(msgspec.Struct, frozen=True, gc=False):
    """Agree to the maintenance of these agents. Mesos may ask again after `refuse_ms`."""

    inverse_offer_ids: tuple[str, ...]
    refuse_ms: int


class DeclineInverseOffers(msgspec.Struct, frozen=True, gc=False):
    """Object to the maintenance of these agents. Mesos may ask again after `refuse_ms`."""

    inverse_offer_ids: tuple[str, ...]
    refuse_ms: int


class Kill(msgspec.Struct, frozen=True, gc=False):
    task_id: str
    agent_id: str


class ShutdownExecutor(msgspec.Struct, frozen=True, gc=False):
    executor_id: str
    agent_id: str


class Reconcile(msgspec.Struct, frozen=True, gc=False):
    """Ask for the state of `tasks` as (task id, agent id). If there are none, ask for all that the master knows."""

    tasks: tuple[tuple[str, str], ...] = ()


class Revive(msgspec.Struct, frozen=True, gc=False):
    """Ask for offers again and clear all filters, of these roles; without roles, of all roles."""

    roles: tuple[str, ...] = ()


class Suppress(msgspec.Struct, frozen=True, gc=False):
    """Ask for no offers for these roles until Revive; without roles, for no role."""

    roles: tuple[str, ...] = ()


class Resubscribe(msgspec.Struct, frozen=True, gc=False):
    """Subscribe as a new framework, because the stored framework id is void."""


class Acknowledge(msgspec.Struct, frozen=True, gc=False):
    task_id: str
    agent_id: str
    uuid: str


class Topic(StrEnum):
    """The subject of a notice."""

    FIRED = "fired"
    SKIPPED = "skipped"
    LAUNCHED = "launched"
    RUNNING = "running"
    ENDED = "ended"  # a task
    DONE = "done"  # a firing
    REFUSED = "refused"
    FAULT = "fault"
    CLUSTER = "cluster"
    CONFIG = "config"


class Publish(msgspec.Struct, frozen=True, gc=False):
    """A notice for users. It may get lost; nothing depends on it.

    `app` is given for notices about an app and about its warm executors. `attempt` is the number of a task's attempt.
    `reason` is a code: how a task ended (`scheduler.status.End`), or what a job lacks (a resource, or "never"). `due`
    is the instant at which the run was due. Only the notice about the launch of a shard's first attempt has it.
    """

    at: int
    topic: Topic
    text: str
    job: str = ""
    firing_id: str = ""
    task_id: str = ""
    item: int = -1
    hostname: str = ""
    state: str = ""
    app: str = ""
    attempt: int = 0
    reason: str = ""
    due: int = 0

    @property
    def team(self) -> str:
        """The team of the job or the app; "" for a notice about neither."""
        return team_of(self.job or self.app)


class AttemptTraced(msgspec.Struct, frozen=True, gc=False):
    """A trace for the history: an attempt was launched, has changed its state, or has ended. It may get lost.

    `state` is a TaskState, STORED for the launch, or an End if the attempt has `ended`. `run_cause` and `fire_ms` are
    those of its run. `step`: the call of the run's listener if the attempt is such a call, otherwise "". `queued_ms`:
    the time from the instant at which the shard could start to the launch; -1 if this time is unknown. `previous`: the
    task id of the shard's previous attempt, or "". `trace`: that of the run's terms.
    """

    at: int
    task: Task
    state: str
    run_cause: str
    fire_ms: int
    step: str = ""
    queued_ms: int = -1
    previous: str = ""
    trace: str = ""
    ended: bool = False
    message: str = ""
    outcome: Outcome = NO_OUTCOME


class RunTraced(msgspec.Struct, frozen=True, gc=False):
    """A trace for the history: a run has ended. It may get lost. `app` is "" if the job was removed."""

    firing: Firing
    app: str


class ConfigTraced(msgspec.Struct, frozen=True, gc=False):
    """A trace for the history: an app or a job has a new configuration, or is removed. It may get lost.

    `record` is the new configuration, or the last one of what is removed. `number` counts the traces of this leader
    from 1, because several changes may have one instant. `author`: the subject who made the change; "" if unknown.
    """

    at: int
    record: App | Job
    number: int
    author: str = ""
    removed: bool = False


class AlertDue(msgspec.Struct, frozen=True, gc=False):
    """A message is to be sent now. The effect may get lost: then the core repeats it after a while."""

    id: str
    message: AlertMessage


Call: TypeAlias = (
    Resubscribe
    | Revive
    | Accept
    | Decline
    | AcceptInverseOffers
    | DeclineInverseOffers
    | Kill
    | ShutdownExecutor
    | Reconcile
    | Suppress
)
Notice: TypeAlias = Publish | AttemptTraced | RunTraced | ConfigTraced | AlertDue
"""An effect that informs. Nothing depends on it."""
Effect: TypeAlias = Save | Call | Acknowledge | Notice

# Store, then send, then acknowledge, then publish. Within a rank, effects keep the order in which they were decided.
EFFECT_ORDER: tuple[tuple[type, ...], ...] = (
    (Save,),
    (
        Resubscribe,
        Revive,
        Accept,
        Decline,
        AcceptInverseOffers,
        DeclineInverseOffers,
        Kill,
        ShutdownExecutor,
        Reconcile,
        Suppress,
    ),
    (Acknowledge,),
    (Publish, AttemptTraced, RunTraced, ConfigTraced, AlertDue),
)
RANK = {effect: rank for rank, effects in enumerate(EFFECT_ORDER) for effect in effects}
assert set(RANK) == set(Effect.__args__), "EFFECT_ORDER must rank every effect exactly once"
