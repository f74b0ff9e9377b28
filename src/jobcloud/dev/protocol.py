"""What the dev cluster's pure machines take in and give out: their inputs, the messages between them, their effects.

Master and agents talk to each other in values, not bytes: that part of Mesos is its own affair and nobody outside
sees it. Towards schedulers and executors calls and events are the v1 API's JSON as dicts. `link` names the connection
between the master and one agent; the shell (or a simulator) knows which is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .resources import Resources

Json = dict[str, Any]

TERMINAL = frozenset(
    {
        "TASK_FINISHED",
        "TASK_FAILED",
        "TASK_KILLED",
        "TASK_ERROR",
        "TASK_LOST",
        "TASK_DROPPED",
        "TASK_GONE",
        "TASK_GONE_BY_OPERATOR",
    }
)


# ---- inputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the scheduler, executor or operator API, its JSON parsed but not checked."""

    body: Any
    stream_id: str | None = None


@dataclass(frozen=True, slots=True)
class Operate:
    """A call of the operator API."""

    body: Any


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The other side of an event stream has gone."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The connection between master and agent broke; each side gets its own notice."""

    link: str


@dataclass(frozen=True, slots=True)
class LinkMade:
    """An agent can reach a master (again)."""


@dataclass(frozen=True, slots=True)
class AgentTimedOut:
    """The master's health checks of an agent have failed often enough."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class RescindOffer:
    offer_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due at `next_at()` at the latest."""


@dataclass(frozen=True, slots=True)
class FromAgent:
    link: str
    message: ToMasterMessage


@dataclass(frozen=True, slots=True)
class FromMaster:
    message: ToAgentMessage


@dataclass(frozen=True, slots=True)
class ExecutorStarted:
    container_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class ExecutorEnded:
    """An executor's process is gone: `status` as of wait(2), or the `failure` that kept it from starting."""

    container_id: str
    status: int
    failure: str = ""


# ---- master → agent --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Registered:
    agent_id: str


@dataclass(frozen=True, slots=True)
class RunTask:
    framework: Json
    task: Json


@dataclass(frozen=True, slots=True)
class KillTask:
    framework_id: str
    task_id: str
    kill_policy: Json | None = None


@dataclass(frozen=True, slots=True)
class ShutdownExecutor:
    framework_id: str
    executor_id: str


@dataclass(frozen=True, slots=True)
class ShutdownFramework:
    framework_id: str


@dataclass(frozen=True, slots=True)
class AcknowledgeUpdate:
    framework_id: str
    task_id: str
    uuid: str


@dataclass(frozen=True, slots=True)
class MessageToExecutor:
    framework_id: str
    executor_id: str
    data: str


@dataclass(frozen=True, slots=True)
class FrameworkUpdated:
    framework: Json


@dataclass(frozen=True, slots=True)
class ShutdownAgent:
    message: str


@dataclass(frozen=True, slots=True)
class DropTasks:
    """Tasks of a re-registered agent that the master has and the agent has not: the agent answers for them."""

    framework_id: str
    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """End every task, and say so with each (None: that is over)."""

    config: Json | None


ToAgentMessage = (
    Registered
    | RunTask
    | KillTask
    | ShutdownExecutor
    | ShutdownFramework
    | AcknowledgeUpdate
    | MessageToExecutor
    | FrameworkUpdated
    | ShutdownAgent
    | DropTasks
    | DrainAgent
)


# ---- agent → master --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A task as its agent knows it."""

    framework_id: str
    task: Json
    executor_id: str
    state: str
    statuses: tuple[Json, ...]
    update_state: str = ""
    update_uuid: str = ""


@dataclass(frozen=True, slots=True)
class ExecutorReport:
    framework_id: str
    executor: Json


@dataclass(frozen=True, slots=True)
class RegisterAgent:
    """An agent presents itself; with the id it has, what runs there, and whose it is, if it was registered before."""

    agent_id: str
    hostname: str
    port: int
    resources: Resources
    attributes: tuple[Json, ...] = ()
    tasks: tuple[TaskReport, ...] = ()
    executors: tuple[ExecutorReport, ...] = ()
    frameworks: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    framework_id: str
    status: Json
    latest_state: str


@dataclass(frozen=True, slots=True)
class ExecutorExited:
    framework_id: str
    executor_id: str
    status: int


@dataclass(frozen=True, slots=True)
class MessageToFramework:
    framework_id: str
    executor_id: str
    data: str


ToMasterMessage = RegisterAgent | UpdateStatus | ExecutorExited | MessageToFramework


# ---- effects ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the call just handled: `body` is a text, or JSON where it is a dict."""

    status: int
    body: str | Json = ""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a SUBSCRIBE: 200 and a stream of events, known by this id from now on."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class Send:
    """One event for a stream."""

    stream_id: str
    event: Json


@dataclass(frozen=True, slots=True)
class Close:
    """End a stream after what was sent."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class ToAgent:
    link: str
    message: ToAgentMessage


@dataclass(frozen=True, slots=True)
class ToMaster:
    message: ToMasterMessage


@dataclass(frozen=True, slots=True)
class StartExecutor:
    """Fetch what the executor's command wants into a new sandbox, then start it there."""

    container_id: str
    agent_id: str
    framework_id: str
    executor: Json
    checkpoint: bool


@dataclass(frozen=True, slots=True)
class KillExecutor:
    """SIGKILL to everything an executor started."""

    container_id: str


@dataclass(frozen=True, slots=True)
class EndAgent:
    """The master told the agent to end (it was marked gone)."""

    message: str


Effect = Reply | Subscribed | Send | Close | ToAgent | ToMaster | StartExecutor | KillExecutor | EndAgent
