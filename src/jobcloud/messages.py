"""What goes into the scheduler (events) and what comes out of it (effects), as frozen values.

An event carries the instant `at` it happened; identifiers come with it too. Effects are performed in the order of
`EFFECT_ORDER`: a thing is stored before it is sent, and acknowledged to Mesos only after what it changed is stored.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from jobcloud.model import App, Drain, Executor, Firing, InverseOffer, Job, JobState, Offer, Share, Task

# ---------------------------------------------------------------------------------------------------------- events


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed."""

    at: int


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """The master has (again) taken us in; offers of an earlier session are void."""

    at: int
    framework_id: str
    master: str = ""


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The event stream has ended; offers held are void."""

    at: int
    reason: str = ""


class FrameworkRemoved(msgspec.Struct, frozen=True, gc=False):
    """The master refuses our framework id for good."""

    at: int
    reason: str


class OffersReceived(msgspec.Struct, frozen=True, gc=False):
    at: int
    offers: tuple[Offer, ...]


class OfferRescinded(msgspec.Struct, frozen=True, gc=False):
    at: int
    offer_id: str


class InverseOffersReceived(msgspec.Struct, frozen=True, gc=False):
    """Those rescinded need no event: an answer to one has no effect."""

    at: int
    inverse_offers: tuple[InverseOffer, ...]


class Status(msgspec.Struct, frozen=True, gc=False):
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
    """A call did not reach the master (`certain`), or nobody knows whether it did."""

    at: int
    call: Call
    reason: str
    certain: bool


class PutApp(msgspec.Struct, frozen=True, gc=False):
    """Register an app, or replace one (`replace`)."""

    at: int
    app: App
    replace: bool = False


class RemoveApp(msgspec.Struct, frozen=True, gc=False):
    """Remove an app and, with `jobs`, all its jobs."""

    at: int
    name: str
    jobs: bool = False


class SetAppEnabled(msgspec.Struct, frozen=True, gc=False):
    at: int
    name: str
    enabled: bool


class PutJob(msgspec.Struct, frozen=True, gc=False):
    """`enabled` is for a job that is new: without it the job fires only once it is enabled."""

    at: int
    job: Job
    replace: bool = False
    enabled: bool = True


class RemoveJob(msgspec.Struct, frozen=True, gc=False):
    at: int
    name: str


class SetJobEnabled(msgspec.Struct, frozen=True, gc=False):
    at: int
    name: str
    enabled: bool


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """Fire a TRANSIENT job now."""

    at: int
    job: str


class KillTask(msgspec.Struct, frozen=True, gc=False):
    """An operator ends one task."""

    at: int
    task_id: str


class ForgetTask(msgspec.Struct, frozen=True, gc=False):
    """An operator knows that a task is dead. Without `force` one that Mesos says is alive is not forgotten."""

    at: int
    task_id: str
    force: bool = False


class Retry(msgspec.Struct, frozen=True, gc=False):
    """An operator puts back what has failed of a firing: one shard of it, or all."""

    at: int
    firing_id: str
    item: int | None = None


class DrainAgent(msgspec.Struct, frozen=True, gc=False):
    """An operator wants an agent, named by its id or host name, to be emptied; `deadline_ms` 0: the usual one."""

    at: int
    agent: str
    deadline_ms: int = 0
    reason: str = ""


class UndrainAgent(msgspec.Struct, frozen=True, gc=False):
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


#: As stores name them. To ask a member for its value costs a function call, in CPython 3.11.
KINDS: Final[dict[str, Kind]] = {kind.value: kind for kind in Kind}
KIND_NAMES: Final[dict[Kind, str]] = {kind: name for name, kind in KINDS.items()}


Record: TypeAlias = App | Job | JobState | Firing | Task | Executor | Drain | str | bool


class Write(msgspec.Struct, frozen=True, gc=False):
    """Put (or with `record` None delete) one record."""

    kind: Kind
    key: str
    record: Record | None


class Save(msgspec.Struct, frozen=True, gc=False):
    """Writes that must become durable together, before anything else of the same event is performed."""

    writes: tuple[Write, ...]


class Launch(msgspec.Struct, frozen=True, gc=False):
    """One task as it goes into an ACCEPT. `data` is the payload for the executor (docs/executor.md)."""

    task_id: str
    name: str
    shares: tuple[Share, ...]
    executor: Executor
    data: bytes


class Accept(msgspec.Struct, frozen=True, gc=False):
    """Launch tasks on one agent out of all its offers held."""

    agent_id: str
    offer_ids: tuple[str, ...]
    launches: tuple[Launch, ...]


class Decline(msgspec.Struct, frozen=True, gc=False):
    """Give offers back, not to be offered the same again for `refuse_ms`."""

    offer_ids: tuple[str, ...]
    refuse_ms: int


class AcceptInverseOffers(msgspec.Struct, frozen=True, gc=False):
    """We can do without these agents; the question may come again after `refuse_ms`."""

    inverse_offer_ids: tuple[str, ...]
    refuse_ms: int


class DeclineInverseOffers(msgspec.Struct, frozen=True, gc=False):
    """Something would be lost with these agents; the question may come again after `refuse_ms`."""

    inverse_offer_ids: tuple[str, ...]
    refuse_ms: int


class Kill(msgspec.Struct, frozen=True, gc=False):
    task_id: str
    agent_id: str


class ShutdownExecutor(msgspec.Struct, frozen=True, gc=False):
    executor_id: str
    agent_id: str


class Reconcile(msgspec.Struct, frozen=True, gc=False):
    """Ask for the state of (task id, agent id) pairs; of every task the master knows where empty."""

    tasks: tuple[tuple[str, str], ...] = ()


class Revive(msgspec.Struct, frozen=True, gc=False):
    """Ask for offers again, filters forgotten."""


class Suppress(msgspec.Struct, frozen=True, gc=False):
    """Ask for no offers until revived."""


class Resubscribe(msgspec.Struct, frozen=True, gc=False):
    """The stored framework id is void: subscribe as a new framework."""


class Acknowledge(msgspec.Struct, frozen=True, gc=False):
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


class Publish(msgspec.Struct, frozen=True, gc=False):
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
