"""Executors without processes. They subscribe, and end each task after a fixed time. The module is pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wire import encode_data
from .protocol import Call, Effect, ExecutorEnded, ExecutorStarted, Json, KillExecutor, Send, StartExecutor, Subscribed
from .schema import uuid_of

# Inputs for the agent, each with a delay in milliseconds.
DelayedInputs = tuple[tuple[int, Call | ExecutorStarted | ExecutorEnded], ...]
_NOTHING: DelayedInputs = ()


@dataclass(slots=True)
class _VirtualExecutor:
    container_id: str
    call: Json  # fields common to all its calls


@dataclass(slots=True)
class VirtualExecutors:
    """The executors of one agent. Each task runs for `run_ms` and finishes.

    If `failing` is not empty, a task whose id begins with `failing` fails with `message` instead.
    """

    run_ms: int
    failing: str = ""
    message: str = ""
    _executors: dict[str, _VirtualExecutor] = field(default_factory=dict)  # by stream
    _waiting: list[_VirtualExecutor] = field(default_factory=list)  # executors whose SUBSCRIBE is not answered yet
    _ids: int = 0

    def react(self, effect: Effect) -> DelayedInputs:
        """The inputs with which the executors answer an effect of the agent."""
        if isinstance(effect, Send):
            executor = self._executors.get(effect.stream_id)
            return _NOTHING if executor is None else self._event(executor, effect.event)
        if isinstance(effect, StartExecutor):
            return self._start(effect)
        if isinstance(effect, Subscribed):
            self._executors[effect.stream_id] = self._waiting.pop(0)
        elif isinstance(effect, KillExecutor):
            return ((0, ExecutorEnded(effect.container_id, 9)),)
        return _NOTHING

    def _start(self, start: StartExecutor) -> DelayedInputs:
        call: Json = {"framework_id": {"value": start.framework_id}, "executor_id": start.executor["executor_id"]}
        self._waiting.append(_VirtualExecutor(start.container_id, call))
        subscribe = Call({**call, "type": "SUBSCRIBE", "subscribe": {}}, trusted=True)
        return (0, ExecutorStarted(start.container_id, 0)), (0, subscribe)

    def _event(self, executor: _VirtualExecutor, event: Json) -> DelayedInputs:
        kind = event["type"]
        if kind == "LAUNCH":
            task_id = event["launch"]["task"]["task_id"]
            running = self._update(executor, task_id, "TASK_RUNNING")
            fails = bool(self.failing) and task_id["value"].startswith(self.failing)
            end = self._update(executor, task_id, *(("TASK_FAILED", self.message) if fails else ("TASK_FINISHED",)))
            return (0, running), (self.run_ms, end)
        if kind == "KILL":
            return ((0, self._update(executor, event["kill"]["task_id"], "TASK_KILLED")),)
        if kind == "SHUTDOWN":
            return ((0, ExecutorEnded(executor.container_id, 0)),)
        return _NOTHING

    def _update(self, executor: _VirtualExecutor, task_id: Json, state: str, message: str = "") -> Call:
        self._ids += 1
        uuid = encode_data(uuid_of(0, self._ids))
        status = {"task_id": task_id, "state": state, "source": "SOURCE_EXECUTOR", "uuid": uuid}
        if message:
            status["message"] = message
        return Call({**executor.call, "type": "UPDATE", "update": {"status": status}}, trusted=True)
