"""Inputs and effects of the master and agent state machines, and the messages between the two.

Master and agents exchange Python values, because Mesos' own protocol between them is not public. Calls and events of
schedulers and executors are JSON of the v1 API, as dicts. `link` names the connection between the master and one agent.
The caller of the state machines (the shell or a simulator) chooses the name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .resources import Resources

Json = dict[str, Any]
VERSION = "1.11.0"  # the version of Mesos whose API master and agents serve

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
    """A call of the scheduler or executor API, as parsed JSON. Agents do not check the form of a `trusted` call."""

    body: Any
    stream_id: str | None = None
    trusted: bool = False


class Operate(msgspec.Struct, frozen=True, gc=False):
    """A call of the operator API."""

    body: Any


class StreamLost(msgspec.Struct, frozen=True, gc=False):
    """The client of an event stream has disconnected."""

    stream_id: str


class LinkLost(msgspec.Struct, frozen=True, gc=False):
    """The connection between master and agent broke. Both sides get this input."""

    link: str


class LinkMade(msgspec.Struct, frozen=True, gc=False):
    """The agent is connected to a master and must register."""


class AgentTimedOut(msgspec.Struct, frozen=True, gc=False):
    """The master's health checks of an agent have failed too often."""

    agent_id: str


class RescindOffer(msgspec.Struct, frozen=True, gc=False):
    offer_id: str


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed. `next_at` of the state machine tells when a Tick is due."""


class FromAgent(msgspec.Struct, frozen=True, gc=False):
    link: str
    message: ToMasterMessage


class FromMaster(msgspec.Struct, frozen=True, gc=False):
    message: ToAgentMessage


class ExecutorStarted(msgspec.Struct, frozen=True, gc=False):
    container_id: str
    pid: int


class ExecutorEnded(msgspec.Struct, frozen=True, gc=False):
    """An executor's process has ended with `status` (as of wait(2)), or could not start because of `failure`."""

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
    """The agent did not report these tasks at its re-registration. It must send an update with `state` for each."""

    framework_id: str
    task_ids: tuple[str, ...]
    state: str


class DrainAgent(msgspec.Struct, frozen=True, gc=False):
    """Kill all tasks, with the drain as the reason. `config` None ends the drain."""

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
    """A task in an agent's registration."""

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
    """An agent registers. A re-registration carries the agent's id, tasks, executors and frameworks."""

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
    """The answer to the call at hand. A dict as `body` is sent as JSON."""

    status: int
    body: str | Json = ""


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """The answer to a SUBSCRIBE: 200 and an event stream with this id."""

    stream_id: str


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send one event to a stream."""

    stream_id: str
    event: Json


class Close(msgspec.Struct, frozen=True, gc=False):
    """End a stream after the events already sent."""

    stream_id: str


class ToAgent(msgspec.Struct, frozen=True, gc=False):
    link: str
    message: ToAgentMessage


class ToMaster(msgspec.Struct, frozen=True, gc=False):
    message: ToMasterMessage


class StartExecutor(msgspec.Struct, frozen=True, gc=False):
    """Fetch the URIs of the executor's command into a new sandbox, then start the executor there."""

    container_id: str
    agent_id: str
    framework_id: str
    executor: Json
    checkpoint: bool


class KillExecutor(msgspec.Struct, frozen=True, gc=False):
    """Send SIGKILL to an executor and all processes that it started."""

    container_id: str


class EndAgent(msgspec.Struct, frozen=True, gc=False):
    """The master shut the agent down, and its last executor has ended."""

    message: str


Effect = Reply | Subscribed | Send | Close | ToAgent | ToMaster | StartExecutor | KillExecutor | EndAgent
