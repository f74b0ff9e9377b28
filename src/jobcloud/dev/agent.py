"""A Mesos agent as a state machine: messages of the master, calls of executors and time in, effects out.

It starts no process: it asks for that (`StartExecutor`) and is told what became of it (`ExecutorStarted`,
`ExecutorEnded`). Status updates are kept per task and sent again, one at a time, until the scheduler has acknowledged
each. Source: src/slave/{slave,http,task_status_update_manager}.cpp of Mesos 1.11.0, judged by the contract suite.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..wire import decode_data, encode_data
from .protocol import (
    TERMINAL,
    AcknowledgeUpdate,
    Call,
    Close,
    DrainAgent,
    DropTasks,
    Effect,
    EndAgent,
    ExecutorEnded,
    ExecutorExited,
    ExecutorReport,
    ExecutorStarted,
    FrameworkUpdated,
    FromMaster,
    Json,
    KillExecutor,
    KillTask,
    LinkLost,
    LinkMade,
    MessageToExecutor,
    MessageToFramework,
    RegisterAgent,
    Registered,
    Reply,
    RunTask,
    Send,
    ShutdownAgent,
    ShutdownExecutor,
    ShutdownFramework,
    StartExecutor,
    StreamLost,
    Subscribed,
    TaskReport,
    Tick,
    ToMaster,
    ToMasterMessage,
    UpdateStatus,
)
from .registry import dropped_state
from .resources import Resources
from .schema import EXECUTOR_CALL, CallError, is_uuid, uuid_of

AgentInput = Call | FromMaster | StreamLost | LinkLost | LinkMade | ExecutorStarted | ExecutorEnded | Tick
Key = tuple[str, str]
_TAKEN = Reply(202)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Times in milliseconds; the defaults are those of a Mesos agent's flags and constants.

    `salt` (below 2**64) sets the ids this agent makes apart from those of others and of its own earlier runs.
    """

    hostname: str = "127.0.0.1"
    port: int = 5051
    resources: Resources = field(default_factory=Resources)
    attributes: tuple[Json, ...] = ()
    agent_id: str = ""
    salt: int = 0
    heartbeat_ms: int = 30 * 60_000
    registration_timeout_ms: int = 60_000
    shutdown_grace_ms: int = 5_000
    retry_ms: int = 10_000
    retry_max_ms: int = 600_000


class Phase(enum.Enum):
    REGISTERING = "registering"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


class Launched(msgspec.Struct):
    """A task that belongs to an executor here, until its terminal update is acknowledged."""

    info: Json
    state: str = "TASK_STAGING"
    statuses: list[Json] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class Executor:
    framework_id: str
    executor_id: str
    info: Json
    container_id: str
    phase: Phase = Phase.REGISTERING
    stream_id: str = ""
    pid: int = 0
    sent_a_task: bool = False
    queued: dict[str, Json] = field(default_factory=dict)  # tasks that wait for the executor to subscribe
    tasks: dict[str, Launched] = field(default_factory=dict)
    cause: tuple[str, str] = ("", "")  # reason and message, if the agent itself ends it
    stamp: Json = field(default_factory=dict)  # what its agent adds to each of its updates
    _container_status: Json = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return (self.framework_id, self.executor_id)

    @property
    def idle(self) -> bool:
        return not self.queued and not self.tasks

    def container_status(self) -> Json:
        """The same value as long as it says the same."""
        if self._container_status.get("executor_pid") != self.pid:
            address = {"protocol": "IPv4", "ip_address": "127.0.0.1"}
            self._container_status = {
                "container_id": {"value": self.container_id},
                "network_infos": [{"ip_addresses": [address]}],
                "executor_pid": self.pid,
            }
        return self._container_status


class Updates(msgspec.Struct):
    """The updates of one task on their way to the scheduler: the first is out, the others wait for its turn."""

    key: Key
    pending: list[Json] = msgspec.field(default_factory=list)
    received: set[str] = msgspec.field(default_factory=set)
    retry_at: int = 0
    interval: int = 0


class Agent:
    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.agent_id = settings.agent_id
        self.connected = False
        self.ending = False
        self.frameworks: dict[str, Json] = {}
        self.executors: dict[Key, Executor] = {}
        self.terminating: set[str] = set()  # frameworks being shut down
        self.draining: Json | None = None
        self._containers: dict[str, Executor] = {}
        self._streams: dict[str, Executor] = {}
        self._updates: dict[Key, Updates] = {}
        self._owners: dict[Key, Executor] = {}  # by framework and task id
        self._timers: list[tuple[int, int, str, Any]] = []
        self._sequence = 0
        self._ids = 0
        self._effects: list[Effect] = []
        self._at = 0

    # ---- in and out ------------------------------------------------------------------------------------------

    def handle(self, event: AgentInput, at_ms: int) -> list[Effect]:
        """Take one input; the effects are in the order in which they are to be performed."""
        self._at = at_ms
        _HANDLERS[type(event)](self, event)
        effects, self._effects = self._effects, []
        return effects

    def next_at(self) -> int | None:
        """When the next Tick is due, if anything waits for time."""
        timers = self._timers
        # Most updates are acknowledged long before they would be sent again.
        while timers and timers[0][2] == "retry" and not self._is_out(*timers[0][3]):
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def executor_of(self, container_id: str) -> Key | None:
        """Framework and executor id of what runs in a container."""
        executor = self._containers.get(container_id)
        return None if executor is None else executor.key

    def _timer(self, after_ms: int, kind: str, key: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (self._at + after_ms, self._sequence, kind, key))

    def _on_tick(self, _: Tick) -> None:
        while self._timers and self._timers[0][0] <= self._at:
            *_due, kind, key = heapq.heappop(self._timers)
            _TIMERS[str(kind)](self, key)

    def _new_id(self) -> bytes:
        self._ids += 1
        return uuid_of(self.settings.salt, self._ids)

    def _new_uuid(self) -> str:
        text = self._new_id().hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def _up(self, message: ToMasterMessage) -> None:
        if self.connected:
            self._effects.append(ToMaster(message))

    def _event(self, executor: Executor, kind: str, body: Json | None = None) -> None:
        if executor.stream_id:
            event = {"type": kind} if body is None else {"type": kind, kind.lower(): body}
            self._effects.append(Send(executor.stream_id, event))

    # ---- the master's side -----------------------------------------------------------------------------------

    def _on_link_made(self, _: LinkMade) -> None:
        if not self.ending:
            self._effects.append(ToMaster(self.registration()))

    def registration(self) -> RegisterAgent:
        """Who this agent is and all that runs here."""
        settings = self.settings
        tasks: list[TaskReport] = []
        for executor in self.executors.values():
            if executor.framework_id not in self.terminating:
                tasks += [self._report(executor, one.info, one.state, one.statuses) for one in executor.tasks.values()]
                tasks += [self._report(executor, info, "TASK_STAGING", []) for info in executor.queued.values()]
        executors = tuple(
            ExecutorReport(one.framework_id, one.info)
            for one in self.executors.values()
            if one.phase is not Phase.TERMINATED and one.framework_id not in self.terminating
        )
        frameworks = tuple(self.frameworks.values())
        return RegisterAgent(
            self.agent_id,
            settings.hostname,
            settings.port,
            settings.resources,
            settings.attributes,
            tuple(tasks),
            executors,
            frameworks,
        )

    def _report(self, executor: Executor, info: Json, state: str, statuses: list[Json]) -> TaskReport:
        updates = self._updates.get((executor.framework_id, info["task_id"]["value"]))
        first = updates.pending[0] if updates and updates.pending else (statuses[-1] if statuses else None)
        return TaskReport(
            executor.framework_id,
            info,
            executor.executor_id,
            state,
            tuple(statuses),
            first["state"] if first else "",
            first["uuid"] if first else "",
        )

    def _on_link_lost(self, _: LinkLost) -> None:
        self.connected = False

    def _on_master(self, event: FromMaster) -> None:
        _MESSAGES[type(event.message)](self, event.message)

    def _registered(self, message: Registered) -> None:
        self.agent_id = message.agent_id
        self.connected = True
        self.draining = None  # a master that drains it says so next
        for updates in self._updates.values():
            if updates.pending:
                self._forward(updates, self.settings.retry_ms)

    def _run_task(self, message: RunTask) -> None:
        framework_id = message.framework["id"]["value"]
        task, info = message.task, message.task["executor"]
        task_id, executor_id = task["task_id"]["value"], info["executor_id"]["value"]
        if self.ending or framework_id in self.terminating:
            return
        self.frameworks[framework_id] = message.framework
        executor = self.executors.get((framework_id, executor_id))
        if executor is None:
            executor = self._launch_executor(framework_id, info)
        if executor.phase in (Phase.TERMINATING, Phase.TERMINATED):
            text, reason = f"Executor {executor.phase.value}", "REASON_EXECUTOR_TERMINATED"
            self._own_update(framework_id, task_id, self._dropped(framework_id), text, reason, executor_id)
            return
        self._owners[(framework_id, task_id)] = executor
        if executor.phase is Phase.REGISTERING:
            executor.queued[task_id] = task
        else:
            self._launch(executor, task)

    def _dropped(self, framework_id: str) -> str:
        return dropped_state(self.frameworks.get(framework_id, {}))

    def _launch_executor(self, framework_id: str, info: Json) -> Executor:
        executor_id = info["executor_id"]["value"]
        executor = Executor(framework_id, executor_id, info, self._new_uuid())
        ids = {"agent_id": {"value": self.agent_id}, "executor_id": {"value": executor_id}}
        executor.stamp = {"source": "SOURCE_EXECUTOR", **ids}
        self.executors[executor.key] = self._containers[executor.container_id] = executor
        checkpoint = bool(self.frameworks[framework_id].get("checkpoint", False))
        self._effects.append(StartExecutor(executor.container_id, self.agent_id, framework_id, info, checkpoint))
        self._timer(self.settings.registration_timeout_ms, "registration", executor.container_id)
        return executor

    def _launch(self, executor: Executor, task: Json) -> None:
        executor.tasks[task["task_id"]["value"]] = Launched(task)
        executor.sent_a_task = True
        self._event(executor, "LAUNCH", {"task": task})

    def _kill_task(self, message: KillTask) -> None:
        framework_id, task_id = message.framework_id, message.task_id
        if framework_id not in self.frameworks or framework_id in self.terminating:
            return
        executor = self._owners.get((framework_id, task_id))
        if executor is None:
            text, reason = "Cannot find executor", "REASON_EXECUTOR_TERMINATED"
            self._own_update(framework_id, task_id, self._dropped(framework_id), text, reason)
        elif task_id in executor.queued and executor.phase is Phase.REGISTERING:
            text, reason = "Killed before delivery to the executor", "REASON_TASK_KILLED_DURING_LAUNCH"
            self._own_update(framework_id, task_id, "TASK_KILLED", text, reason, executor.executor_id)
        elif executor.phase is Phase.RUNNING:
            body: Json = {"task_id": {"value": task_id}}
            if message.kill_policy is not None:
                body["kill_policy"] = message.kill_policy
            self._event(executor, "KILL", body)

    def _shutdown_asked(self, message: ShutdownExecutor) -> None:
        executor = self.executors.get((message.framework_id, message.executor_id))
        if executor is not None and message.framework_id not in self.terminating:
            self._shut_down(executor)

    def _shut_down(self, executor: Executor) -> None:
        """Ask it to end, and see to it that it does when its grace period is over."""
        if executor.phase in (Phase.REGISTERING, Phase.RUNNING):
            executor.phase = Phase.TERMINATING
            self._event(executor, "SHUTDOWN")
            grace = (executor.info.get("shutdown_grace_period") or {}).get("nanoseconds")
            grace_ms = self.settings.shutdown_grace_ms if grace is None else grace // 1_000_000
            self._timer(grace_ms, "grace", executor.container_id)

    def _shutdown_framework(self, message: ShutdownFramework) -> None:
        framework_id = message.framework_id
        if framework_id not in self.frameworks:
            return
        self.terminating.add(framework_id)
        for key in [key for key in self._updates if key[0] == framework_id]:
            del self._updates[key]
        for executor in [one for one in self.executors.values() if one.framework_id == framework_id]:
            if executor.phase is Phase.TERMINATED:
                self._remove(executor)
            else:
                self._shut_down(executor)
        self._forget_framework(framework_id)

    def _shutdown_agent(self, message: ShutdownAgent) -> None:
        self.ending = True
        for framework_id in list(self.frameworks):
            self._shutdown_framework(ShutdownFramework(framework_id))
        self._end_if_empty(message.message)

    def _end_if_empty(self, text: str = "shut down") -> None:
        if self.ending and not self.executors:
            self._effects.append(EndAgent(text))

    def _acknowledged(self, message: AcknowledgeUpdate) -> None:
        key = (message.framework_id, message.task_id)
        updates = self._updates.get(key)
        if updates is None or not updates.pending or updates.pending[0]["uuid"] != message.uuid:
            return  # late, double or of another run
        first = updates.pending.pop(0)
        if first["state"] in TERMINAL:
            del self._updates[key]
            self._complete(key)
        elif updates.pending:
            self._forward(updates, self.settings.retry_ms)

    def _complete(self, key: Key) -> None:
        """The scheduler knows how a task ended: there is nothing more to say about it."""
        executor = self._owners.pop(key, None)
        if executor is not None:
            executor.tasks.pop(key[1], None)
            if executor.phase is Phase.TERMINATED and executor.idle:
                self._remove(executor)

    def _drain(self, message: DrainAgent) -> None:
        """Every task is killed, with the grace period that the operator allows at most."""
        self.draining = message.config
        if message.config is None:
            return
        allowed = message.config.get("max_grace_period")
        for (framework_id, task_id), executor in list(self._owners.items()):
            task = executor.queued.get(task_id) or executor.tasks[task_id].info
            own = (task.get("kill_policy") or {}).get("grace_period")
            policy = None
            if allowed is not None and (own is None or own["nanoseconds"] > allowed["nanoseconds"]):
                policy = {"grace_period": allowed}
            if task_id in executor.queued or executor.tasks[task_id].state not in TERMINAL:
                self._kill_task(KillTask(framework_id, task_id, policy))

    def _as_drained(self, made: Json) -> Json:
        """A task killed while its agent is drained says why; where the agent is to be gone, so is the task."""
        if self.draining is None or made["state"] not in ("TASK_KILLING", "TASK_KILLED"):
            return made
        gone = made["state"] == "TASK_KILLED" and self.draining.get("mark_gone", False)
        return {
            **made, "reason": "REASON_AGENT_DRAINING", "state": "TASK_GONE_BY_OPERATOR" if gone else made["state"],
        }  # fmt: skip

    def _message_down(self, message: MessageToExecutor) -> None:
        executor = self.executors.get((message.framework_id, message.executor_id))
        if executor is not None and executor.phase is Phase.RUNNING and message.framework_id not in self.terminating:
            self._event(executor, "MESSAGE", {"data": message.data})

    def _framework_updated(self, message: FrameworkUpdated) -> None:
        framework_id = message.framework["id"]["value"]
        if framework_id in self.frameworks:
            self.frameworks[framework_id] = message.framework

    def _drop_tasks(self, message: DropTasks) -> None:
        """Also those of a framework that it has never heard of: its first launch here may be what got lost."""
        for task_id in message.task_ids:
            text, reason = "Reconciliation: task unknown to the agent", "REASON_RECONCILIATION"
            self._keep(self._own_status(task_id, message.state, text, reason), message.framework_id)

    # ---- the executors' side ---------------------------------------------------------------------------------

    def _on_call(self, event: Call) -> None:
        try:
            kind, call = (event.body["type"], event.body) if event.known else _checked(event.body)
        except CallError as refused:
            self._effects.append(Reply(400, str(refused)))
            return
        if kind == "HEARTBEAT":
            self._effects.append(Reply(202))
            return
        framework_id = call["framework_id"]["value"]
        executor = self.executors.get((framework_id, call["executor_id"]["value"]))
        if framework_id not in self.frameworks:
            self._effects.append(Reply(400, "Framework cannot be found"))
        elif executor is None:
            self._effects.append(Reply(400, "Executor cannot be found"))
        elif kind == "SUBSCRIBE":
            self._subscribe(executor, call["subscribe"])
        elif executor.phase is Phase.REGISTERING:
            self._effects.append(Reply(403, "Executor is not subscribed"))
        else:
            self._effects.append(_TAKEN)
            if kind == "UPDATE":
                self._executor_update(executor, call["update"]["status"])
            else:
                self._up(MessageToFramework(framework_id, executor.executor_id, call["message"]["data"]))

    def _subscribe(self, executor: Executor, subscribe: Json) -> None:
        stream_id = self._new_uuid()
        self._effects.append(Subscribed(stream_id))
        if executor.phase in (Phase.TERMINATING, Phase.TERMINATED) or executor.framework_id in self.terminating:
            self._effects += [Send(stream_id, {"type": "SHUTDOWN"}), Close(stream_id)]
            return
        if executor.stream_id:
            self._effects.append(Close(executor.stream_id))
            self._streams.pop(executor.stream_id, None)
        executor.stream_id, executor.phase = stream_id, Phase.RUNNING
        self._streams[stream_id] = executor
        for update in subscribe.get("unacknowledged_updates") or []:
            self._executor_update(executor, update["status"])
        self._drop_unknown(executor, subscribe.get("unacknowledged_tasks") or [])
        if not executor.sent_a_task and not executor.queued:
            self._shut_down(executor)
            return
        self._event(executor, "SUBSCRIBED", self._subscribed(executor))
        self._timer(self.settings.heartbeat_ms, "beat", stream_id)
        queued, executor.queued = executor.queued, {}
        for task in queued.values():
            self._launch(executor, task)

    def _drop_unknown(self, executor: Executor, known: list[Json]) -> None:
        """Tasks that were sent to the executor and never got there."""
        there = {one["task_id"]["value"] for one in known}
        for task_id, task in list(executor.tasks.items()):
            if task.state == "TASK_STAGING" and task_id not in there:
                text, reason = "Task launched during agent restart", "REASON_AGENT_RESTARTED"
                state = self._dropped(executor.framework_id)
                self._own_update(executor.framework_id, task_id, state, text, reason, executor.executor_id)

    def _subscribed(self, executor: Executor) -> Json:
        settings = self.settings
        agent: Json = {
            "hostname": settings.hostname,
            "port": settings.port,
            "resources": settings.resources.to_wire(),
            "id": {"value": self.agent_id},
        }
        if settings.attributes:
            agent["attributes"] = list(settings.attributes)
        return {
            "executor_info": executor.info,
            "framework_info": self.frameworks[executor.framework_id],
            "agent_info": agent,
            "container_id": {"value": executor.container_id},
        }

    def _on_stream_lost(self, event: StreamLost) -> None:
        executor = self._streams.pop(event.stream_id, None)
        if executor is not None:
            executor.stream_id = ""

    def _beat(self, stream_id: str) -> None:
        if stream_id in self._streams:
            self._effects.append(Send(stream_id, {"type": "HEARTBEAT"}))
            self._timer(self.settings.heartbeat_ms, "beat", stream_id)

    def _executor_update(self, executor: Executor, status: Json) -> None:
        made = {**status, **executor.stamp}
        made.setdefault("timestamp", self._at / 1000)
        made.setdefault("container_status", executor.container_status())
        self._take(made, executor.framework_id)
        acknowledged = {"task_id": made["task_id"], "uuid": made["uuid"]}
        self._event(executor, "ACKNOWLEDGED", acknowledged)

    def _own_update(
        self, framework_id: str, task_id: str, state: str, text: str, reason: str, executor_id: str = ""
    ) -> None:
        self._take(self._own_status(task_id, state, text, reason, executor_id), framework_id)

    def _own_status(self, task_id: str, state: str, text: str, reason: str, executor_id: str = "") -> Json:
        made: Json = {
            "task_id": {"value": task_id},
            "state": state,
            "message": text,
            "source": "SOURCE_AGENT",
            "reason": reason,
            "agent_id": {"value": self.agent_id},
            "timestamp": self._at / 1000,
            "uuid": encode_data(self._new_id()),
        }
        if executor_id:
            made["executor_id"] = {"value": executor_id}
        return made

    def _take(self, made: Json, framework_id: str) -> None:
        if framework_id in self.frameworks and framework_id not in self.terminating:
            self._keep(self._as_drained(made), framework_id)

    def _keep(self, made: Json, framework_id: str) -> None:
        """Keep an update until it is acknowledged; its task has the new state at once."""
        key = (framework_id, made["task_id"]["value"])
        updates = self._updates.get(key)
        if updates is None:
            updates = self._updates[key] = Updates(key)
        if made["uuid"] in updates.received:
            return
        updates.received.add(made["uuid"])
        self._move(key, made)
        updates.pending.append(made)
        if len(updates.pending) == 1:
            self._forward(updates, self.settings.retry_ms)

    def _move(self, key: Key, made: Json) -> None:
        executor = self._owners.get(key)
        if executor is None:
            return
        if key[1] in executor.queued:  # it ends without having reached the executor
            executor.tasks[key[1]] = Launched(executor.queued.pop(key[1]))
        task = executor.tasks[key[1]]
        if task.state not in TERMINAL:
            task.state = made["state"]
        task.statuses.append(made)

    def _forward(self, updates: Updates, interval: int) -> None:
        first = updates.pending[0]
        executor = self._owners.get(updates.key)
        latest = executor.tasks[updates.key[1]].state if executor is not None else updates.pending[-1]["state"]
        self._up(UpdateStatus(updates.key[0], first, latest))
        updates.retry_at, updates.interval = self._at + interval, interval
        self._timer(interval, "retry", (updates.key, first["uuid"]))

    def _is_out(self, key: Key, uuid: str) -> bool:
        """Whether an update is on its way to the scheduler."""
        updates = self._updates.get(key)
        return updates is not None and bool(updates.pending) and updates.pending[0]["uuid"] == uuid

    def _retry(self, what: tuple[Key, str]) -> None:
        if not self._is_out(*what):
            return
        updates = self._updates[what[0]]
        if self.connected and updates.retry_at <= self._at:
            self._forward(updates, min(updates.interval * 2, self.settings.retry_max_ms))

    # ---- the executors' processes ----------------------------------------------------------------------------

    def _on_started(self, event: ExecutorStarted) -> None:
        if event.container_id in self._containers:
            self._containers[event.container_id].pid = event.pid

    def _registration_timeout(self, container_id: str) -> None:
        executor = self._containers.get(container_id)
        if executor is not None and executor.phase is Phase.REGISTERING:
            executor.phase = Phase.TERMINATING
            seconds = self.settings.registration_timeout_ms / 1000
            text = f"Executor did not register within {_duration(seconds)}"
            executor.cause = ("REASON_EXECUTOR_REGISTRATION_TIMEOUT", text)
            self._effects.append(KillExecutor(container_id))

    def _grace_over(self, container_id: str) -> None:
        executor = self._containers.get(container_id)
        if executor is not None and executor.phase is Phase.TERMINATING:
            self._effects.append(KillExecutor(container_id))

    def _on_ended(self, event: ExecutorEnded) -> None:
        executor = self._containers.pop(event.container_id, None)
        if executor is None:
            return
        executor.phase = Phase.TERMINATED
        if executor.stream_id:
            self._effects.append(Close(executor.stream_id))
            self._streams.pop(executor.stream_id, None)
            executor.stream_id = ""
        terminating = executor.framework_id in self.terminating
        self._up(ExecutorExited(executor.framework_id, executor.executor_id, event.status))
        if not terminating:
            self._fail_tasks(executor, event)
        if terminating or executor.idle:
            self._remove(executor)

    def _fail_tasks(self, executor: Executor, event: ExecutorEnded) -> None:
        reason, text = executor.cause
        if event.failure:
            reason, text = "REASON_CONTAINER_LAUNCH_FAILED", event.failure
        elif not reason:
            reason, text = "REASON_EXECUTOR_TERMINATED", "Executor terminated"
        alive = [task_id for task_id, task in executor.tasks.items() if task.state not in TERMINAL]
        for task_id in [*alive, *executor.queued]:
            self._own_update(executor.framework_id, task_id, "TASK_FAILED", text, reason, executor.executor_id)

    def _remove(self, executor: Executor) -> None:
        self.executors.pop(executor.key, None)
        for task_id in (*executor.tasks, *executor.queued):
            self._owners.pop((executor.framework_id, task_id), None)
        self._forget_framework(executor.framework_id)
        self._end_if_empty()

    def _forget_framework(self, framework_id: str) -> None:
        if all(executor.framework_id != framework_id for executor in self.executors.values()):
            if framework_id in self.terminating or not any(key[0] == framework_id for key in self._updates):
                self.frameworks.pop(framework_id, None)
            self.terminating.discard(framework_id)


def _checked(body: Any) -> tuple[str, Json]:
    """The kind of an executor call, and the call, if it is one."""
    try:
        EXECUTOR_CALL(body)
    except CallError as refused:
        raise CallError(f"Failed to convert JSON into Call protobuf: {refused}") from None
    invalid = "Failed to validate Executor::Call: "
    kind = body.get("type")
    if kind not in ("SUBSCRIBE", "UPDATE", "MESSAGE", "HEARTBEAT"):
        raise CallError(f"{invalid}Expecting 'type' to be present")
    if kind == "HEARTBEAT":
        return kind, body
    if body.get(kind.lower()) is None:
        raise CallError(f"{invalid}Expecting '{kind.lower()}' to be present")
    if kind == "UPDATE" and (error := _bad_update(body)):
        raise CallError(invalid + error)
    return kind, body


def _bad_update(call: Json) -> str:
    status, executor_id = call["update"]["status"], call["executor_id"]["value"]
    of = f"from executor {executor_id} of framework {call['framework_id']['value']}"
    if status.get("uuid") is None:
        return "Expecting 'uuid' to be present"
    if not is_uuid(decode_data(status["uuid"])):
        return "Not a valid UUID"
    named = (status.get("executor_id") or {}).get("value", executor_id)
    if named != executor_id:
        return f"ExecutorID in Call: {executor_id} does not match ExecutorID in TaskStatus: {named}"
    if status.get("source") != "SOURCE_EXECUTOR":
        return f"Received Call {of} with invalid source, expecting 'SOURCE_EXECUTOR'"
    if status["state"] == "TASK_STAGING":
        return f"Received TASK_STAGING {of} which is not allowed"
    return ""


def _duration(seconds: float) -> str:
    """As Mesos writes durations: the largest unit that leaves a whole number."""
    for unit, length in (("mins", 60), ("secs", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds * 1000:g}ms"


_HANDLERS: dict[type, Callable[[Agent, Any], None]] = {
    Call: Agent._on_call,
    FromMaster: Agent._on_master,
    StreamLost: Agent._on_stream_lost,
    LinkLost: Agent._on_link_lost,
    LinkMade: Agent._on_link_made,
    ExecutorStarted: Agent._on_started,
    ExecutorEnded: Agent._on_ended,
    Tick: Agent._on_tick,
}
_MESSAGES: dict[type, Callable[[Agent, Any], None]] = {
    Registered: Agent._registered,
    RunTask: Agent._run_task,
    KillTask: Agent._kill_task,
    ShutdownExecutor: Agent._shutdown_asked,
    ShutdownFramework: Agent._shutdown_framework,
    AcknowledgeUpdate: Agent._acknowledged,
    MessageToExecutor: Agent._message_down,
    FrameworkUpdated: Agent._framework_updated,
    ShutdownAgent: Agent._shutdown_agent,
    DropTasks: Agent._drop_tasks,
    DrainAgent: Agent._drain,
}
_TIMERS: dict[str, Callable[[Agent, Any], None]] = {
    "registration": Agent._registration_timeout,
    "grace": Agent._grace_over,
    "beat": Agent._beat,
    "retry": Agent._retry,
}
