"""What the dev cluster's pure machines take in and give out: their inputs, the messages between them, their effects.

Master and agents talk to each other in values, not bytes: that part of Mesos is its own affair and nobody outside
sees it. Towards schedulers and executors calls and events are the v1 API's JSON as dicts. `link` names the connection
between the master and one agent; the shell (or a simulator) knows which is which.
"""

from __future__ import annotations

from typing import Any

import msgspec

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


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call of the scheduler, executor or operator API, its JSON parsed but not checked, unless it is `known` to be
    one because it was made here.
    """

    body: Any
    stream_id: str | None = None
    known: bool = False


class Operate(msgspec.Struct, frozen=True, gc=False):
    """A call of the operator API."""

    body: Any


class StreamLost(msgspec.Struct, frozen=True, gc=False):
    """The other side of an event stream has gone."""

    stream_id: str


class LinkLost(msgspec.Struct, frozen=True, gc=False):
    """The connection between master and agent broke; each side gets its own notice."""

    link: str


class LinkMade(msgspec.Struct, frozen=True, gc=False):
    """An agent can reach a master (again)."""


class AgentTimedOut(msgspec.Struct, frozen=True, gc=False):
    """The master's health checks of an agent have failed often enough."""

    agent_id: str


class RescindOffer(msgspec.Struct, frozen=True, gc=False):
    offer_id: str


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed; due at `next_at()` at the latest."""


class FromAgent(msgspec.Struct, frozen=True, gc=False):
    link: str
    message: ToMasterMessage


class FromMaster(msgspec.Struct, frozen=True, gc=False):
    message: ToAgentMessage


class ExecutorStarted(msgspec.Struct, frozen=True, gc=False):
    container_id: str
    pid: int


class ExecutorEnded(msgspec.Struct, frozen=True, gc=False):
    """An executor's process is gone: `status` as of wait(2), or the `failure` that kept it from starting."""

    container_id: str
    status: int
    failure: str = ""


# ---- master → agent --------------------------------------------------------------------------------------------


class Registered(msgspec.Struct, frozen=True, gc=False):
    agent_id: str


class RunTask(msgspec.Struct, frozen=True, gc=False):
    framework: Json
    task: Json


class KillTask(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    task_id: str
    kill_policy: Json | None = None


class ShutdownExecutor(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    executor_id: str


class ShutdownFramework(msgspec.Struct, frozen=True, gc=False):
    framework_id: str


class AcknowledgeUpdate(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    task_id: str
    uuid: str


class MessageToExecutor(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    executor_id: str
    data: str


class FrameworkUpdated(msgspec.Struct, frozen=True, gc=False):
    framework: Json


class ShutdownAgent(msgspec.Struct, frozen=True, gc=False):
    message: str


class DropTasks(msgspec.Struct, frozen=True, gc=False):
    """Tasks of a re-registered agent that the master has and the agent has not: the agent says they are in `state`."""

    framework_id: str
    task_ids: tuple[str, ...]
    state: str


class DrainAgent(msgspec.Struct, frozen=True, gc=False):
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


class TaskReport(msgspec.Struct, frozen=True, gc=False):
    """A task as its agent knows it."""

    framework_id: str
    task: Json
    executor_id: str
    state: str
    statuses: tuple[Json, ...]
    update_state: str = ""
    update_uuid: str = ""


class ExecutorReport(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    executor: Json


class RegisterAgent(msgspec.Struct, frozen=True, gc=False):
    """An agent presents itself; with the id it has, what runs there, and whose it is, if it was registered before."""

    agent_id: str
    hostname: str
    port: int
    resources: Resources
    attributes: tuple[Json, ...] = ()
    tasks: tuple[TaskReport, ...] = ()
    executors: tuple[ExecutorReport, ...] = ()
    frameworks: tuple[Json, ...] = ()


class UpdateStatus(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    status: Json
    latest_state: str


class ExecutorExited(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    executor_id: str
    status: int


class MessageToFramework(msgspec.Struct, frozen=True, gc=False):
    framework_id: str
    executor_id: str
    data: str


ToMasterMessage = RegisterAgent | UpdateStatus | ExecutorExited | MessageToFramework


# ---- effects ---------------------------------------------------------------------------------------------------


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The answer to the call just handled: `body` is a text, or JSON where it is a dict."""

    status: int
    body: str | Json = ""


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """The answer to a SUBSCRIBE: 200 and a stream of events, known by this id from now on."""

    stream_id: str


class Send(msgspec.Struct, frozen=True, gc=False):
    """One event for a stream."""

    stream_id: str
    event: Json


class Close(msgspec.Struct, frozen=True, gc=False):
    """End a stream after what was sent."""

    stream_id: str


class ToAgent(msgspec.Struct, frozen=True, gc=False):
    link: str
    message: ToAgentMessage


class ToMaster(msgspec.Struct, frozen=True, gc=False):
    message: ToMasterMessage


class StartExecutor(msgspec.Struct, frozen=True, gc=False):
    """Fetch what the executor's command wants into a new sandbox, then start it there."""

    container_id: str
    agent_id: str
    framework_id: str
    executor: Json
    checkpoint: bool


class KillExecutor(msgspec.Struct, frozen=True, gc=False):
    """SIGKILL to everything an executor started."""

    container_id: str


class EndAgent(msgspec.Struct, frozen=True, gc=False):
    """The master told the agent to end (it was marked gone)."""

    message: str


Effect = Reply | Subscribed | Send | Close | ToAgent | ToMaster | StartExecutor | KillExecutor | EndAgent
