"""The agent as a state machine. Inputs are messages of the master, calls of executors and time; outputs are effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..protocol import (
    TERMINAL,
    AcknowledgeUpdate,
    Call,
    DrainAgent,
    DropTasks,
    Effect,
    ExecutorEnded,
    ExecutorReport,
    ExecutorStarted,
    FrameworkUpdated,
    FromMaster,
    Json,
    KillTask,
    LinkLost,
    LinkMade,
    MessageToExecutor,
    RegisterAgent,
    Registered,
    RunTask,
    ShutdownAgent,
    ShutdownExecutor,
    ShutdownFramework,
    StreamLost,
    TaskReport,
    Tick,
    ToMaster,
)
from .executors import Executors
from .records import Key, Phase, RunningExecutor
from .state import AgentSettings, AgentState

AgentInput = Call | FromMaster | StreamLost | LinkLost | LinkMade | ExecutorStarted | ExecutorEnded | Tick


class Agent:
    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.state = state = AgentState(settings)
        self._executors = executors = Executors(state)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Call: executors.on_call,
            FromMaster: self._on_master,
            StreamLost: executors.on_stream_lost,
            LinkLost: self._on_link_lost,
            LinkMade: self._on_link_made,
            ExecutorStarted: executors.on_started,
            ExecutorEnded: executors.on_ended,
            Tick: self._on_tick,
        }
        self._messages: dict[type, Callable[[Any], None]] = {
            Registered: self._registered,
            RunTask: self._run_task,
            KillTask: self._kill_task,
            ShutdownExecutor: self._shut_down_executor,
            ShutdownFramework: self._shut_down_framework,
            AcknowledgeUpdate: self._acknowledge,
            MessageToExecutor: self._forward_message,
            FrameworkUpdated: self._update_framework,
            ShutdownAgent: self._shut_down,
            DropTasks: self._drop_tasks,
            DrainAgent: self._drain,
        }

    @property
    def agent_id(self) -> str:
        """The id from the master; empty before the first registration."""
        return self.state.agent_id

    def handle(self, event: AgentInput, at_ms: int) -> list[Effect]:
        """Handle one input. Returns the effects in the order in which the caller must perform them."""
        state = self.state
        state.now = at_ms
        self._handlers[type(event)](event)
        effects, state.effects = state.effects, []
        return effects

    def next_at(self) -> int | None:
        """The time of the next Tick, in milliseconds; None if no timer is set."""
        return self.state.next_due()

    def executor_of(self, container_id: str) -> Key | None:
        """Framework and executor id of the executor in a container."""
        executor = self.state.containers.get(container_id)
        return None if executor is None else executor.key

    def live_executors(self) -> dict[str, str]:
        """Executor ids by container id."""
        return {one.container_id: one.executor_id for one in self.state.executors.values()}

    def _on_tick(self, _: Tick) -> None:
        self.state.run_timers()

    # ---- connection to the master ----------------------------------------------------------------------------

    def _on_link_made(self, _: LinkMade) -> None:
        if not self.state.ending:
            self.state.effects.append(ToMaster(self.registration()))

    def _on_link_lost(self, _: LinkLost) -> None:
        self.state.connected = False

    def registration(self) -> RegisterAgent:
        """The agent's identity, with its tasks, executors and frameworks."""
        state, settings = self.state, self.settings
        tasks: list[TaskReport] = []
        for executor in state.executors.values():
            if executor.framework_id not in state.terminating:
                tasks += [self._report(executor, one.info, one.state, one.statuses) for one in executor.tasks.values()]
                tasks += [self._report(executor, info, "TASK_STAGING", []) for info in executor.queued.values()]
        executors = tuple(
            ExecutorReport(one.framework_id, one.info)
            for one in state.executors.values()
            if one.phase is not Phase.TERMINATED and one.framework_id not in state.terminating
        )
        return RegisterAgent(
            state.agent_id,
            settings.hostname,
            settings.port,
            settings.resources,
            settings.attributes,
            tuple(tasks),
            executors,
            tuple(state.frameworks.values()),
        )

    def _report(self, executor: RunningExecutor, info: Json, task_state: str, statuses: list[Json]) -> TaskReport:
        sent = self.state.updates.first_pending((executor.framework_id, info["task_id"]["value"]))
        if sent is None and statuses:
            sent = statuses[-1]
        return TaskReport(
            executor.framework_id,
            info,
            executor.executor_id,
            task_state,
            tuple(statuses),
            sent["state"] if sent else "",
            sent["uuid"] if sent else "",
        )

    def _on_master(self, event: FromMaster) -> None:
        self._messages[type(event.message)](event.message)

    def _registered(self, message: Registered) -> None:
        state = self.state
        state.agent_id, state.connected = message.agent_id, True
        state.drain = None  # a master that drains this agent sends DrainAgent after this message
        state.updates.send_all(state.now)

    # ---- messages of the master ------------------------------------------------------------------------------

    def _run_task(self, message: RunTask) -> None:
        framework_id = message.framework["id"]["value"]
        if self.state.ending or framework_id in self.state.terminating:
            return
        self.state.frameworks[framework_id] = message.framework
        self._executors.run(message.task, framework_id)

    def _kill_task(self, message: KillTask) -> None:
        self._executors.kill(message.framework_id, message.task_id, message.kill_policy)

    def _shut_down_executor(self, message: ShutdownExecutor) -> None:
        executor = self.state.executors.get((message.framework_id, message.executor_id))
        if executor is not None and message.framework_id not in self.state.terminating:
            self._executors.shut_down(executor)

    def _shut_down_framework(self, message: ShutdownFramework) -> None:
        state, framework_id = self.state, message.framework_id
        if framework_id not in state.frameworks:
            return
        state.terminating.add(framework_id)
        state.updates.drop_framework(framework_id)
        for executor in [one for one in state.executors.values() if one.framework_id == framework_id]:
            if executor.phase is Phase.TERMINATED:
                self._executors.remove(executor)
            else:
                self._executors.shut_down(executor)
        state.forget_framework(framework_id)

    def _shut_down(self, message: ShutdownAgent) -> None:
        self.state.ending = True
        for framework_id in list(self.state.frameworks):
            self._shut_down_framework(ShutdownFramework(framework_id))
        self._executors.end_agent_if_empty(message.message)

    def _acknowledge(self, message: AcknowledgeUpdate) -> None:
        key = (message.framework_id, message.task_id)
        if self.state.updates.acknowledge(key, message.uuid, self.state.now):
            self._executors.complete(key)

    def _drain(self, message: DrainAgent) -> None:
        """Begin a drain, or end it if the message has no config.

        A drain kills every task that has not ended. No task gets a longer grace period than the operator allows.
        """
        state = self.state
        state.drain = message.config
        if message.config is None:
            return
        max_grace = message.config.get("max_grace_period")
        for (framework_id, task_id), executor in list(state.owners.items()):
            task = executor.queued.get(task_id) or executor.tasks[task_id].info
            own_grace = (task.get("kill_policy") or {}).get("grace_period")
            policy = None
            if max_grace is not None and (own_grace is None or own_grace["nanoseconds"] > max_grace["nanoseconds"]):
                policy = {"grace_period": max_grace}
            if task_id in executor.queued or executor.tasks[task_id].state not in TERMINAL:
                self._executors.kill(framework_id, task_id, policy)

    def _forward_message(self, message: MessageToExecutor) -> None:
        state = self.state
        executor = state.executors.get((message.framework_id, message.executor_id))
        if executor is not None and executor.phase is Phase.RUNNING and message.framework_id not in state.terminating:
            state.send_event(executor, "MESSAGE", {"data": message.data})

    def _update_framework(self, message: FrameworkUpdated) -> None:
        framework_id = message.framework["id"]["value"]
        if framework_id in self.state.frameworks:
            self.state.frameworks[framework_id] = message.framework
            self.state.updates.send_all(self.state.now)  # the framework's scheduler may have come back

    def _drop_tasks(self, message: DropTasks) -> None:
        """Send an update for each of the tasks.

        The agent may not know the framework: the first task of a framework may have been lost on the way to the agent.
        """
        for task_id in message.task_ids:
            text, reason = "Reconciliation: task unknown to the agent", "REASON_RECONCILIATION"
            status = self.state.agent_status(task_id, message.state, text, reason)
            self.state.keep_update(status, message.framework_id)
