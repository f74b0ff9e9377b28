"""What goes into the scheduler (events) and what comes out of it (effects), as frozen values.

An event carries the instant `at` it happened; identifiers come with it too. Effects are performed in the order of
`EFFECT_ORDER`: a thing is stored before it is sent, and acknowledged to Mesos only after what it changed is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from jobcloud.model import App, Drain, Executor, Firing, InverseOffer, Job, JobState, Offer, Share, Task

# ---------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    at: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The master has (again) taken us in; offers of an earlier session are void."""

    at: int
    framework_id: str
    master: str = ""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The event stream has ended; offers held are void."""

    at: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FrameworkRemoved:
    """The master refuses our framework id for good."""

    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class OffersReceived:
    at: int
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class OfferRescinded:
    at: int
    offer_id: str


@dataclass(frozen=True, slots=True)
class InverseOffersReceived:
    """Those rescinded need no event: an answer to one has no effect."""

    at: int
    inverse_offers: tuple[InverseOffer, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A task status update as Mesos sends it. `uuid` is "" where no acknowledgement is due.

    `state` keeps Mesos' own name (`TASK_RUNNING`), also one we do not know; `data` is the executor's JSON, or "".
    """

    task_id: str
    agent_id: str
    state: str
    uuid: str = ""
    reason: str = ""
    source: str = ""
    message: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class StatusReceived:
    at: int
    status: Status


@dataclass(frozen=True, slots=True)
class AgentLost:
    at: int
    agent_id: str


@dataclass(frozen=True, slots=True)
class ExecutorLost:
    at: int
    agent_id: str
    executor_id: str


@dataclass(frozen=True, slots=True)
class SendFailed:
    """A call did not reach the master (`certain`), or nobody knows whether it did."""

    at: int
    call: Call
    reason: str
    certain: bool


@dataclass(frozen=True, slots=True)
class PutApp:
    """Register an app, or replace one (`replace`)."""

    at: int
    app: App
    replace: bool = False


@dataclass(frozen=True, slots=True)
class RemoveApp:
    """Remove an app and, with `jobs`, all its jobs."""

    at: int
    name: str
    jobs: bool = False


@dataclass(frozen=True, slots=True)
class SetAppEnabled:
    at: int
    name: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class PutJob:
    """`enabled` is for a job that is new: without it the job fires only once it is enabled."""

    at: int
    job: Job
    replace: bool = False
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class RemoveJob:
    at: int
    name: str


@dataclass(frozen=True, slots=True)
class SetJobEnabled:
    at: int
    name: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class Trigger:
    """Fire a TRANSIENT job now."""

    at: int
    job: str


@dataclass(frozen=True, slots=True)
class KillTask:
    """An operator ends one task."""

    at: int
    task_id: str


@dataclass(frozen=True, slots=True)
class ForgetTask:
    """An operator knows that a task is dead. Without `force` one that Mesos says is alive is not forgotten."""

    at: int
    task_id: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """An operator puts back what has failed of a firing: one shard of it, or all."""

    at: int
    firing_id: str
    item: int | None = None


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """An operator wants an agent, named by its id or host name, to be emptied; `deadline_ms` 0: the usual one."""

    at: int
    agent: str
    deadline_ms: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UndrainAgent:
    at: int
    agent: str


Command: TypeAlias = (
    PutApp
    | RemoveApp
    | SetAppEnabled
    | PutJob
    | RemoveJob
    | SetJobEnabled
    | Trigger
    | KillTask
    | ForgetTask
    | Retry
    | DrainAgent
    | UndrainAgent
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
    """The kinds of stored records; the key within a kind is given with each."""

    APP = "app"  # app name → App
    JOB = "job"  # job name → Job
    JOB_STATE = "job_state"  # job name → JobState
    DISABLED_APP = "disabled_app"  # app name → True
    FIRING = "firing"  # firing id → Firing
    TASK = "task"  # task id → Task, while it is not known to have ended
    EXECUTOR = "executor"  # agent id/executor id → Executor
    FRAMEWORK = "framework"  # "id" → str
    DRAIN = "drain"  # agent id → Drain


Record: TypeAlias = App | Job | JobState | Firing | Task | Executor | Drain | str | bool


@dataclass(frozen=True, slots=True)
class Write:
    """Put (or with `record` None delete) one record."""

    kind: Kind
    key: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class Save:
    """Writes that must become durable together, before anything else of the same event is performed."""

    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """One task as it goes into an ACCEPT. `data` is the payload for the executor (docs/executor.md)."""

    task_id: str
    name: str
    shares: tuple[Share, ...]
    executor: Executor
    data: bytes


@dataclass(frozen=True, slots=True)
class Accept:
    """Launch tasks on one agent out of all its offers held."""

    agent_id: str
    offer_ids: tuple[str, ...]
    launches: tuple[Launch, ...]


@dataclass(frozen=True, slots=True)
class Decline:
    """Give offers back, not to be offered the same again for `refuse_ms`."""

    offer_ids: tuple[str, ...]
    refuse_ms: int


@dataclass(frozen=True, slots=True)
class AcceptInverseOffers:
    """We can do without these agents; the question may come again after `refuse_ms`."""

    inverse_offer_ids: tuple[str, ...]
    refuse_ms: int


@dataclass(frozen=True, slots=True)
class DeclineInverseOffers:
    """Something would be lost with these agents; the question may come again after `refuse_ms`."""

    inverse_offer_ids: tuple[str, ...]
    refuse_ms: int


@dataclass(frozen=True, slots=True)
class Kill:
    task_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class ShutdownExecutor:
    executor_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Ask for the state of (task id, agent id) pairs; of every task the master knows where empty."""

    tasks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Revive:
    """Ask for offers again, filters forgotten."""


@dataclass(frozen=True, slots=True)
class Suppress:
    """Ask for no offers until revived."""


@dataclass(frozen=True, slots=True)
class Resubscribe:
    """The stored framework id is void: subscribe as a new framework."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    task_id: str
    agent_id: str
    uuid: str


class Topic(StrEnum):
    """What a notice is about."""

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


@dataclass(frozen=True, slots=True)
class Publish:
    """A notice for people and traces. It may get lost; nothing depends on it."""

    at: int
    topic: Topic
    text: str
    job: str = ""
    firing_id: str = ""
    task_id: str = ""
    item: int = -1
    hostname: str = ""
    state: str = ""


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
Effect: TypeAlias = Save | Call | Acknowledge | Publish

# Store, then send, then acknowledge, then tell. Within a rank effects keep the order they were decided in.
# fmt: off
EFFECT_ORDER: tuple[tuple[type, ...], ...] = (
    (Save,),
    (
        Resubscribe, Revive, Accept, Decline, AcceptInverseOffers, DeclineInverseOffers, Kill, ShutdownExecutor,
        Reconcile, Suppress,
    ),
    (Acknowledge,),
    (Publish,),
)
# fmt: on
RANK = {effect: rank for rank, effects in enumerate(EFFECT_ORDER) for effect in effects}
assert set(RANK) == set(Effect.__args__), "EFFECT_ORDER must rank every effect exactly once"
