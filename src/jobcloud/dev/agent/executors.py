"""Executors: their processes, their API calls, and the launch and kill of their tasks.

Source: src/slave/{slave,http}.cpp of Mesos 1.11.0.
"""

from __future__ import annotations

from ..protocol import (
    TERMINAL,
    Call,
    Close,
    EndAgent,
    ExecutorEnded,
    ExecutorExited,
    ExecutorStarted,
    Json,
    KillExecutor,
    MessageToFramework,
    Reply,
    Send,
    StartExecutor,
    StreamLost,
    Subscribed,
)
from ..schema import CallError
from .records import Key, LaunchedTask, Phase, RunningExecutor
from .state import AgentState
from .validation import checked_call

_ACCEPTED = Reply(202)


class Executors:
    def __init__(self, state: AgentState) -> None:
        self._state = state

    # ---- launch and kill -------------------------------------------------------------------------------------

    def run(self, task: Json, framework_id: str) -> None:
        """Launch a task. If its executor does not run yet, the executor is started first."""
        state, info = self._state, task["executor"]
        task_id, executor_id = task["task_id"]["value"], info["executor_id"]["value"]
        executor = state.executors.get((framework_id, executor_id))
        if executor is None:
            executor = self._start(framework_id, info)
        if executor.phase in (Phase.TERMINATING, Phase.TERMINATED):
            text, reason = f"Executor {executor.phase.value}", "REASON_EXECUTOR_TERMINATED"
            dropped = state.dropped_state(framework_id)
            state.update_task(framework_id, task_id, dropped, text, reason, executor_id)
            return
        state.owners[framework_id, task_id] = executor
        if executor.phase is Phase.REGISTERING:
            executor.queued[task_id] = task
        else:
            self._launch(executor, task)

    def _start(self, framework_id: str, info: Json) -> RunningExecutor:
        state, executor_id = self._state, info["executor_id"]["value"]
        executor = RunningExecutor(framework_id, executor_id, info, state.new_uuid())
        ids = {"agent_id": {"value": state.agent_id}, "executor_id": {"value": executor_id}}
        executor.update_fields = {"source": "SOURCE_EXECUTOR", **ids}
        state.executors[executor.key] = state.containers[executor.container_id] = executor
        checkpoint = bool(state.frameworks[framework_id].get("checkpoint", False))
        state.effects.append(StartExecutor(executor.container_id, state.agent_id, framework_id, info, checkpoint))
        state.call_after(state.settings.registration_timeout_ms, self._registration_timed_out, executor.container_id)
        return executor

    def _launch(self, executor: RunningExecutor, task: Json) -> None:
        executor.tasks[task["task_id"]["value"]] = LaunchedTask(task)
        executor.sent_a_task = True
        self._state.send_event(executor, "LAUNCH", {"task": task})

    def kill(self, framework_id: str, task_id: str, kill_policy: Json | None) -> None:
        state = self._state
        if framework_id not in state.frameworks or framework_id in state.terminating:
            return
        executor = state.owners.get((framework_id, task_id))
        if executor is None:
            text, reason = "Cannot find executor", "REASON_EXECUTOR_TERMINATED"
            state.update_task(framework_id, task_id, state.dropped_state(framework_id), text, reason)
        elif task_id in executor.queued and executor.phase is Phase.REGISTERING:
            text, reason = "Killed before delivery to the executor", "REASON_TASK_KILLED_DURING_LAUNCH"
            state.update_task(framework_id, task_id, "TASK_KILLED", text, reason, executor.executor_id)
        elif executor.phase is Phase.RUNNING:
            body: Json = {"task_id": {"value": task_id}}
            if kill_policy is not None:
                body["kill_policy"] = kill_policy
            state.send_event(executor, "KILL", body)

    def shut_down(self, executor: RunningExecutor) -> None:
        """Send SHUTDOWN. After the grace period, the process is killed."""
        state = self._state
        if executor.phase in (Phase.REGISTERING, Phase.RUNNING):
            executor.phase = Phase.TERMINATING
            state.send_event(executor, "SHUTDOWN")
            grace = (executor.info.get("shutdown_grace_period") or {}).get("nanoseconds")
            grace_ms = state.settings.shutdown_grace_ms if grace is None else grace // 1_000_000
            state.call_after(grace_ms, self._grace_period_over, executor.container_id)

    def complete(self, key: Key) -> None:
        """Forget a task whose terminal update was acknowledged."""
        executor = self._state.owners.pop(key, None)
        if executor is not None:
            executor.tasks.pop(key[1], None)
            if executor.phase is Phase.TERMINATED and executor.idle:
                self.remove(executor)

    def remove(self, executor: RunningExecutor) -> None:
        state = self._state
        state.executors.pop(executor.key, None)
        for task_id in (*executor.tasks, *executor.queued):
            state.owners.pop((executor.framework_id, task_id), None)
        state.forget_framework(executor.framework_id)
        self.end_agent_if_empty()

    def end_agent_if_empty(self, text: str = "shut down") -> None:
        if self._state.ending and not self._state.executors:
            self._state.effects.append(EndAgent(text))

    # ---- API calls -------------------------------------------------------------------------------------------

    def on_call(self, event: Call) -> None:
        state = self._state
        try:
            kind, call = (event.body["type"], event.body) if event.trusted else checked_call(event.body)
        except CallError as refused:
            state.effects.append(Reply(400, str(refused)))
            return
        if kind == "HEARTBEAT":
            state.effects.append(_ACCEPTED)
            return
        framework_id = call["framework_id"]["value"]
        executor = state.executors.get((framework_id, call["executor_id"]["value"]))
        if framework_id not in state.frameworks:
            state.effects.append(Reply(400, "Framework cannot be found"))
        elif executor is None:
            state.effects.append(Reply(400, "Executor cannot be found"))
        elif kind == "SUBSCRIBE":
            self._subscribe(executor, call["subscribe"])
        elif executor.phase is Phase.REGISTERING:
            state.effects.append(Reply(403, "Executor is not subscribed"))
        else:
            state.effects.append(_ACCEPTED)
            if kind == "UPDATE":
                self._update(executor, call["update"]["status"])
            else:
                message = MessageToFramework(framework_id, executor.executor_id, call["message"]["data"])
                state.send_to_master(message)

    def _subscribe(self, executor: RunningExecutor, subscribe: Json) -> None:
        state = self._state
        stream_id = state.new_uuid()
        state.effects.append(Subscribed(stream_id))
        if executor.phase in (Phase.TERMINATING, Phase.TERMINATED) or executor.framework_id in state.terminating:
            state.effects += [Send(stream_id, {"type": "SHUTDOWN"}), Close(stream_id)]
            return
        if executor.stream_id:
            state.effects.append(Close(executor.stream_id))
            state.streams.pop(executor.stream_id, None)
        executor.stream_id, executor.phase = stream_id, Phase.RUNNING
        state.streams[stream_id] = executor
        for update in subscribe.get("unacknowledged_updates") or []:
            self._update(executor, update["status"])
        self._drop_undelivered(executor, subscribe.get("unacknowledged_tasks") or [])
        if not executor.sent_a_task and not executor.queued:
            self.shut_down(executor)
            return
        state.send_event(executor, "SUBSCRIBED", self._subscribed(executor))
        state.call_after(state.settings.heartbeat_ms, self._send_heartbeat, stream_id)
        queued, executor.queued = executor.queued, {}
        for task in queued.values():
            self._launch(executor, task)

    def _drop_undelivered(self, executor: RunningExecutor, reported: list[Json]) -> None:
        """Drop the tasks that were sent to the executor and are missing in its report."""
        known = {one["task_id"]["value"] for one in reported}
        for task_id, task in list(executor.tasks.items()):
            if task.state == "TASK_STAGING" and task_id not in known:
                text, reason = "Task launched during agent restart", "REASON_AGENT_RESTARTED"
                dropped = self._state.dropped_state(executor.framework_id)
                self._state.update_task(executor.framework_id, task_id, dropped, text, reason, executor.executor_id)

    def _subscribed(self, executor: RunningExecutor) -> Json:
        settings = self._state.settings
        agent: Json = {
            "hostname": settings.hostname,
            "port": settings.port,
            "resources": settings.resources.to_wire(),
            "id": {"value": self._state.agent_id},
        }
        if settings.attributes:
            agent["attributes"] = list(settings.attributes)
        return {
            "executor_info": executor.info,
            "framework_info": self._state.frameworks[executor.framework_id],
            "agent_info": agent,
            "container_id": {"value": executor.container_id},
        }

    def _send_heartbeat(self, stream_id: str) -> None:
        state = self._state
        if stream_id in state.streams:
            state.effects.append(Send(stream_id, {"type": "HEARTBEAT"}))
            state.call_after(state.settings.heartbeat_ms, self._send_heartbeat, stream_id)

    def on_stream_lost(self, event: StreamLost) -> None:
        executor = self._state.streams.pop(event.stream_id, None)
        if executor is not None:
            executor.stream_id = ""

    def _update(self, executor: RunningExecutor, status: Json) -> None:
        state = self._state
        status = {**status, **executor.update_fields}
        status.setdefault("timestamp", state.now / 1000)
        status.setdefault("container_status", executor.container_status())
        state.accept_update(status, executor.framework_id)
        state.send_event(executor, "ACKNOWLEDGED", {"task_id": status["task_id"], "uuid": status["uuid"]})

    # ---- processes -------------------------------------------------------------------------------------------

    def on_started(self, event: ExecutorStarted) -> None:
        if event.container_id in self._state.containers:
            self._state.containers[event.container_id].pid = event.pid

    def _registration_timed_out(self, container_id: str) -> None:
        state = self._state
        executor = state.containers.get(container_id)
        if executor is not None and executor.phase is Phase.REGISTERING:
            executor.phase = Phase.TERMINATING
            text = f"Executor did not register within {_duration(state.settings.registration_timeout_ms / 1000)}"
            executor.cause = ("REASON_EXECUTOR_REGISTRATION_TIMEOUT", text)
            state.effects.append(KillExecutor(container_id))

    def _grace_period_over(self, container_id: str) -> None:
        executor = self._state.containers.get(container_id)
        if executor is not None and executor.phase is Phase.TERMINATING:
            self._state.effects.append(KillExecutor(container_id))

    def on_ended(self, event: ExecutorEnded) -> None:
        state = self._state
        executor = state.containers.pop(event.container_id, None)
        if executor is None:
            return
        executor.phase = Phase.TERMINATED
        if executor.stream_id:
            state.effects.append(Close(executor.stream_id))
            state.streams.pop(executor.stream_id, None)
            executor.stream_id = ""
        terminating = executor.framework_id in state.terminating
        state.send_to_master(ExecutorExited(executor.framework_id, executor.executor_id, event.status))
        if not terminating:
            self._fail_tasks(executor, event)
        if terminating or executor.idle:
            self.remove(executor)

    def _fail_tasks(self, executor: RunningExecutor, event: ExecutorEnded) -> None:
        reason, text = executor.cause
        if event.failure:
            reason, text = "REASON_CONTAINER_LAUNCH_FAILED", event.failure
        elif not reason:
            reason, text = "REASON_EXECUTOR_TERMINATED", "Executor terminated"
        alive = [task_id for task_id, task in executor.tasks.items() if task.state not in TERMINAL]
        for task_id in [*alive, *executor.queued]:
            self._state.update_task(executor.framework_id, task_id, "TASK_FAILED", text, reason, executor.executor_id)


def _duration(seconds: float) -> str:
    """A duration in Mesos' notation, in the largest of the units mins, secs and ms that gives a whole number."""
    for unit, length in (("mins", 60), ("secs", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds * 1000:g}ms"
