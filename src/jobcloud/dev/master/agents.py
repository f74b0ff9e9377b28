"""Agents: registration, loss and return, and the updates, exits and messages that they forward."""

from __future__ import annotations

from ..framework_info import dropped_state
from ..protocol import (
    AgentTimedOut,
    DrainAgent,
    DropTasks,
    ExecutorExited,
    FrameworkUpdated,
    FromAgent,
    Json,
    KillTask,
    LinkLost,
    MessageToFramework,
    RegisterAgent,
    Registered,
    ShutdownAgent,
    ShutdownFramework,
    TaskReport,
    ToAgent,
    UpdateStatus,
)
from ..resources import from_wire
from . import events
from .inverse_offers import InverseOffers
from .records import AgentRecord, ExecutorRecord, FrameworkRecord, TaskRecord, machine_of
from .state import State


class Agents:
    def __init__(self, state: State, inverse_offers: InverseOffers) -> None:
        self._state = state
        self._inverse_offers = inverse_offers

    def on_message(self, event: FromAgent) -> None:
        message = event.message
        if isinstance(message, RegisterAgent):
            self._register(event.link, message)
            return
        agent = self._state.agents.get(self._state.links.get(event.link, ""))
        if agent is None:
            return
        if isinstance(message, UpdateStatus):
            self._forward_update(agent, message)
        elif isinstance(message, ExecutorExited):
            self._executor_exited(agent, message)
        else:
            self._forward_message(agent, message)

    # ---- registration ----------------------------------------------------------------------------------------

    def expect(self, agent_id: str, due_ms: int) -> None:
        """Wait until `due_ms` for an agent that was registered with the previous master."""
        state = self._state
        state.recovering.add(agent_id)
        number = agent_id.rpartition("-S")[2]
        if number.isdigit():
            state.reserve_agent_number(int(number))
        state.call_at(due_ms, self._recovery_timed_out, agent_id)

    def _register(self, link: str, message: RegisterAgent) -> None:
        state, agent_id = self._state, message.agent_id
        if agent_id in state.gone:
            state.effects.append(ToAgent(link, ShutdownAgent("Agent has been marked gone")))
            return
        if state.machine_modes.get(machine_of(message.hostname)) == "DOWN":
            state.effects.append(ToAgent(link, ShutdownAgent("Machine is `DOWN`")))
            return
        if not agent_id:
            known = state.agents.get(state.links.get(link, ""))
            if known is not None and known.connected:
                state.effects.append(ToAgent(link, Registered(known.agent_id)))  # the first answer was lost
                return
            if known is not None:
                text = f"Agent {known.hostname} removed: a new agent registered at the same address"
                self.remove(known, text, "TASK_LOST")
            agent_id = f"{state.settings.master_id}-S{state.next_number('agent')}"
        announcement = "" if agent_id in state.recovering else "Unknown agent reregistered"
        state.recovering.discard(agent_id)
        if state.unreachable.pop(agent_id, None) is not None:
            announcement = "Unreachable agent re-reregistered"  # sic, as Mesos writes it
        agent = state.agents.get(agent_id)
        if agent is None:
            agent = state.agents[agent_id] = AgentRecord(
                agent_id, link, message.hostname, message.port, message.resources, message.attributes, state.now
            )
            state.links[link] = agent_id
            state.effects.append(ToAgent(link, Registered(agent_id)))
            self._recover(agent, message, announcement)
            state.allocator.add_agent(agent_id, agent.total, agent.total - agent.used())
        else:
            state.links.pop(agent.link, None)
            state.links[link] = agent_id
            agent.link, agent.connected, agent.times_out_at = link, True, None
            state.effects.append(ToAgent(link, Registered(agent_id)))
            self._synchronize(agent, message)
        if agent_id in state.drains:
            state.send_to_agent(agent, DrainAgent(state.drains[agent_id].config))
        state.allocator.set_active(agent_id, agent_id not in state.deactivated)
        state.allocation_wanted = True

    def _recover(self, agent: AgentRecord, message: RegisterAgent, announcement: str) -> None:
        """Adopt the tasks and executors of an agent that has no record here.

        With an `announcement`, frameworks get an update for each task. After a restart of the master there is
        no announcement, and frameworks have to reconcile.
        """
        state = self._state
        infos = {info["id"]["value"]: info for info in message.frameworks}
        removed = {framework_id for framework_id in infos if framework_id in state.removed_frameworks}
        for framework_id in removed:
            state.send_to_agent(agent, ShutdownFramework(framework_id))
        for report in message.executors:
            if report.framework_id not in removed:
                self._recover_framework(infos[report.framework_id])
                self._recover_executor(agent, report.framework_id, report.executor)
        for task in message.tasks:
            if task.framework_id not in removed:
                framework = self._recover_framework(infos[task.framework_id])
                recovered = self._recover_task(agent, framework, task)
                if announcement:
                    reason = "REASON_AGENT_REREGISTERED"
                    status = events.task_status(recovered, recovered.state, announcement, reason, state.now)
                    state.send_event(framework, events.update(status))
        for framework_id in infos:
            if framework_id in state.frameworks and state.frameworks[framework_id].connected:
                state.send_to_agent(agent, FrameworkUpdated(state.frameworks[framework_id].info))

    def _recover_framework(self, info: Json) -> FrameworkRecord:
        state, framework_id = self._state, info["id"]["value"]
        framework = state.frameworks.get(framework_id)
        if framework is None:
            framework = state.frameworks[framework_id] = FrameworkRecord(info, state.now, recovered=True)
            state.allocator.add_client(framework.id, framework.roles, (), framework.can("GPU_RESOURCES"))
            state.allocator.deactivate_client(framework.id)
        return framework

    def _recover_executor(self, agent: AgentRecord, framework_id: str, info: Json) -> None:
        resources = info.get("resources") or []
        executor = ExecutorRecord(info, _role_of(resources), from_wire(resources))
        self._state.add_executor(agent, framework_id, info["executor_id"]["value"], executor)
        self._state.allocator.charge(framework_id, executor.role, executor.resources)

    def _recover_task(self, agent: AgentRecord, framework: FrameworkRecord, report: TaskReport) -> TaskRecord:
        task_id = report.task["task_id"]["value"]
        framework.unreachable.pop(task_id, None)
        role, resources = _role_of(report.task["resources"]), from_wire(report.task["resources"])
        task = TaskRecord(
            framework.id, task_id, agent.agent_id, report.executor_id, role, resources, report.task, report.state
        )
        task.statuses = list(report.statuses)
        task.update_state, task.update_uuid = report.update_state, report.update_uuid
        self._state.add_task(framework, task)
        if not task.terminal:
            self._state.allocator.charge(framework.id, role, resources)
        return task

    def _synchronize(self, agent: AgentRecord, message: RegisterAgent) -> None:
        """Compare the record of a returned agent with the agent's report, and correct both sides."""
        state = self._state
        reported = {(task.framework_id, task.task["task_id"]["value"]) for task in message.tasks}
        dropped: dict[str, list[str]] = {}
        for framework_id, task_id in agent.tasks:
            if (framework_id, task_id) not in reported:
                dropped.setdefault(framework_id, []).append(task_id)
        for framework_id, task_ids in dropped.items():
            task_state = dropped_state(state.frameworks[framework_id].info)
            state.send_to_agent(agent, DropTasks(framework_id, tuple(task_ids), task_state))
        executors = {(one.framework_id, one.executor["executor_id"]["value"]) for one in message.executors}
        for ended in [key for key in agent.executors if key not in executors]:
            state.remove_executor(agent, ended)
        for framework_id, task_id in sorted(agent.kills & reported):
            state.send_to_agent(agent, KillTask(framework_id, task_id))
        for info in message.frameworks:
            framework = state.frameworks.get(info["id"]["value"])
            if framework is None:
                state.send_to_agent(agent, ShutdownFramework(info["id"]["value"]))
            elif framework.connected:
                state.send_to_agent(agent, FrameworkUpdated(framework.info))

    # ---- loss ------------------------------------------------------------------------------------------------

    def on_link_lost(self, event: LinkLost) -> None:
        state = self._state
        agent = state.agents.get(state.links.get(event.link, ""))
        if agent is None or not agent.connected:
            return
        state.rescind_all(agent.offers.values())
        agent.connected = False
        state.allocator.set_active(agent.agent_id, False)
        for framework_id in {key[0] for key in (*agent.tasks, *agent.executors)}:
            framework = state.frameworks[framework_id]
            if not framework.info.get("checkpoint", False):
                self._lose_framework(agent, framework)
        agent.times_out_at = state.now + state.settings.agent_reregister_timeout_ms
        state.call_at(agent.times_out_at, self._reregistration_timed_out, agent.agent_id)

    def _lose_framework(self, agent: AgentRecord, framework: FrameworkRecord) -> None:
        """End the tasks of a framework without checkpointing. Mesos expects them to end with the link."""
        text, reason = f"Agent {agent.hostname} disconnected", "REASON_AGENT_DISCONNECTED"
        for task in [task for key, task in agent.tasks.items() if key[0] == framework.id]:
            self._end_task(framework, task, events.task_status(task, "TASK_LOST", text, reason, self._state.now))
        for key in [key for key in agent.executors if key[0] == framework.id]:
            self._state.remove_executor(agent, key)

    def _reregistration_timed_out(self, agent_id: str) -> None:
        state = self._state
        agent = state.agents.get(agent_id)
        # If the agent came back in the meantime, its deadline is later or None.
        if agent is not None and agent.times_out_at is not None and agent.times_out_at <= state.now:
            seconds = state.settings.agent_reregister_timeout_ms // 1000
            self._mark_unreachable(agent, f"agent did not reregister within {seconds}secs after disconnecting")

    def on_health_timeout(self, event: AgentTimedOut) -> None:
        if event.agent_id in self._state.agents:
            self._mark_unreachable(self._state.agents[event.agent_id], "health check timed out")

    def _recovery_timed_out(self, agent_id: str) -> None:
        state = self._state
        if agent_id in state.recovering:
            state.recovering.discard(agent_id)
            state.unreachable[agent_id] = state.now
            self._announce_failure(agent_id)

    def _mark_unreachable(self, agent: AgentRecord, cause: str) -> None:
        self._state.unreachable[agent.agent_id] = self._state.now
        self.remove(agent, cause, "TASK_UNREACHABLE")

    def mark_gone(self, agent_id: str) -> None:
        """Remove an agent for good: it is shut down, and is not let in again."""
        state, text = self._state, "Agent has been marked gone"
        state.gone[agent_id] = state.now
        state.drains.pop(agent_id, None)
        state.deactivated.discard(agent_id)
        state.recovering.discard(agent_id)
        agent = state.agents.get(agent_id)
        if agent is not None:
            state.send_to_agent(agent, ShutdownAgent(text))
            self.remove(agent, text, "TASK_GONE_BY_OPERATOR")
            return
        state.unreachable.pop(agent_id, None)
        for framework in state.frameworks.values():
            for task in [task for task in framework.unreachable.values() if task.agent_id == agent_id]:
                self._end_task(framework, task, self._removal(framework, task, text, "TASK_GONE_BY_OPERATOR"))

    def remove(self, agent: AgentRecord, text: str, state_of_tasks: str) -> None:
        """Remove an agent. Its tasks get updates, then its offers are rescinded, then all frameworks get FAILURE.

        This is Mesos' order. `state_of_tasks` is for partition-aware frameworks; others get TASK_LOST.
        """
        state = self._state
        state.allocator.remove_agent(agent.agent_id)
        for task in list(agent.tasks.values()):
            framework = state.frameworks[task.framework_id]
            status = self._removal(framework, task, text, state_of_tasks)
            if status["state"] == "TASK_GONE_BY_OPERATOR" or state_of_tasks == "TASK_LOST":
                self._end_task(framework, task, status)
            else:
                self._set_unreachable(framework, task, status)
        for key in list(agent.executors):
            state.remove_executor(agent, key)
        state.rescind_all(agent.offers.values())
        self._inverse_offers.rescind_agent(agent)
        del state.agents[agent.agent_id]
        state.links.pop(agent.link, None)
        self._announce_failure(agent.agent_id)

    def _announce_failure(self, agent_id: str) -> None:
        for framework in self._state.frameworks.values():
            self._state.send_event(framework, events.agent_failure(agent_id))

    def _removal(self, framework: FrameworkRecord, task: TaskRecord, text: str, state_of_tasks: str) -> Json:
        """The status of a task whose agent is removed."""
        now, reason = self._state.now, "REASON_AGENT_REMOVED"
        if framework.partition_aware and state_of_tasks == "TASK_GONE_BY_OPERATOR":
            reason = "REASON_AGENT_REMOVED_BY_OPERATOR"
        task_state = state_of_tasks if framework.partition_aware else "TASK_LOST"
        status = events.task_status(task, task_state, text, reason, now)
        if state_of_tasks == "TASK_UNREACHABLE":
            status["unreachable_time"] = {"nanoseconds": now * 1_000_000}
        return status

    def _end_task(self, framework: FrameworkRecord, task: TaskRecord, status: Json) -> None:
        self._state.apply_status(task, status)
        self._state.remove_task(framework, task)
        self._state.send_event(framework, events.update(status))

    def _set_unreachable(self, framework: FrameworkRecord, task: TaskRecord, status: Json) -> None:
        """Keep the task as unreachable, because its agent may come back and still run it."""
        self._state.apply_status(task, status)
        self._state.remove_task(framework, task, completed=False)
        framework.unreachable[task.task_id] = task
        self._state.send_event(framework, events.update(status))

    # ---- updates, exits and messages -------------------------------------------------------------------------

    def _forward_update(self, agent: AgentRecord, update: UpdateStatus) -> None:
        state, status = self._state, update.status
        framework = state.frameworks.get(update.framework_id)
        task = agent.tasks.get((update.framework_id, status["task_id"]["value"]))
        if framework is not None and framework.connected:
            if task is not None:
                task.update_state, task.update_uuid = status["state"], status["uuid"]
            state.send_event(framework, events.update(status))
        if task is not None:
            state.apply_status(task, status, update.latest_state)

    def _executor_exited(self, agent: AgentRecord, exited: ExecutorExited) -> None:
        key = (exited.framework_id, exited.executor_id)
        if key not in agent.executors:
            return
        self._state.remove_executor(agent, key)
        framework = self._state.frameworks.get(exited.framework_id)
        if framework is not None:
            failure = events.executor_failure(agent.agent_id, exited.executor_id, exited.status)
            self._state.send_event(framework, failure)

    def _forward_message(self, agent: AgentRecord, message: MessageToFramework) -> None:
        framework = self._state.frameworks.get(message.framework_id)
        if framework is not None:
            body = {
                "agent_id": {"value": agent.agent_id},
                "executor_id": {"value": message.executor_id},
                "data": message.data,
            }
            self._state.send_event(framework, {"type": "MESSAGE", "message": body})


def _role_of(resources: list[Json]) -> str:
    """The role that `Resource` messages are allocated to."""
    return next((one["allocation_info"]["role"] for one in resources if "allocation_info" in one), "*")
