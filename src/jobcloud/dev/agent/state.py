"""The agent's tables, timers and effects, and the status updates of its tasks."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from ...wire import encode_data
from ..framework_info import dropped_state
from ..protocol import TERMINAL, Effect, Json, Send, ToMaster, ToMasterMessage, UpdateStatus
from ..resources import Resources
from ..schema import uuid_of
from .records import Key, LaunchedTask, RunningExecutor
from .updates import StatusUpdates


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Times are in milliseconds. The defaults are those of a Mesos agent's flags and constants.

    `salt` (below 2**64) makes the ids that this agent creates differ from those of other agents and of earlier starts.
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


class AgentState:
    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.agent_id = settings.agent_id
        self.connected = False
        self.ending = False
        self.now = 0  # time of the input at hand
        self.effects: list[Effect] = []
        self.frameworks: dict[str, Json] = {}  # FrameworkInfo by id
        self.terminating: set[str] = set()  # ids of frameworks that are being shut down
        self.executors: dict[Key, RunningExecutor] = {}
        self.containers: dict[str, RunningExecutor] = {}
        self.streams: dict[str, RunningExecutor] = {}
        self.owners: dict[Key, RunningExecutor] = {}  # by framework and task id
        self.updates = StatusUpdates(settings.retry_ms, settings.retry_max_ms, self._send_update)
        self.drain: Json | None = None  # DrainConfig while the agent is drained
        self._timers: list[tuple[int, int, Callable[[str], None], str]] = []  # (due, sequence, callback, key)
        self._timer_sequence = 0
        self._last_id = 0

    # ---- ids, timers, effects --------------------------------------------------------------------------------

    def new_id(self) -> bytes:
        self._last_id += 1
        return uuid_of(self.settings.salt, self._last_id)

    def new_uuid(self) -> str:
        text = self.new_id().hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def call_after(self, delay_ms: int, callback: Callable[[str], None], key: str) -> None:
        """Call `callback(key)` at the first Tick after the delay. Timers are not cancelled."""
        self._timer_sequence += 1
        heapq.heappush(self._timers, (self.now + delay_ms, self._timer_sequence, callback, key))

    def next_due(self) -> int | None:
        retry = self.updates.next_retry()
        if not self._timers:
            return retry
        timer = self._timers[0][0]
        return timer if retry is None or timer <= retry else retry

    def run_timers(self) -> None:
        while (due := self.next_due()) is not None and due <= self.now:
            if self._timers and self._timers[0][0] == due:
                _due, _sequence, callback, key = heapq.heappop(self._timers)
                callback(key)
            else:
                self.updates.retry_first(self.now, self.connected)

    def send_to_master(self, message: ToMasterMessage) -> None:
        """Send a message to the master. Without a connection, the message is dropped."""
        if self.connected:
            self.effects.append(ToMaster(message))

    def send_event(self, executor: RunningExecutor, kind: str, body: Json | None = None) -> None:
        """Send an event to an executor. Without a stream, the event is dropped."""
        if executor.stream_id:
            event = {"type": kind} if body is None else {"type": kind, kind.lower(): body}
            self.effects.append(Send(executor.stream_id, event))

    # ---- status updates --------------------------------------------------------------------------------------

    def update_task(
        self, framework_id: str, task_id: str, state: str, text: str, reason: str, executor_id: str = ""
    ) -> None:
        """Create a status update that comes from the agent itself."""
        self.accept_update(self.agent_status(task_id, state, text, reason, executor_id), framework_id)

    def agent_status(self, task_id: str, state: str, text: str, reason: str, executor_id: str = "") -> Json:
        status: Json = {
            "task_id": {"value": task_id},
            "state": state,
            "message": text,
            "source": "SOURCE_AGENT",
            "reason": reason,
            "agent_id": {"value": self.agent_id},
            "timestamp": self.now / 1000,
            "uuid": encode_data(self.new_id()),
        }
        if executor_id:
            status["executor_id"] = {"value": executor_id}
        return status

    def accept_update(self, status: Json, framework_id: str) -> None:
        """Keep an update until it is acknowledged. Ignore it if its framework is unknown or being shut down."""
        if framework_id in self.frameworks and framework_id not in self.terminating:
            self.keep_update(self._as_drained(status), framework_id)

    def keep_update(self, status: Json, framework_id: str) -> None:
        self.updates.add((framework_id, status["task_id"]["value"]), status, self.now, self._apply_status)

    def _as_drained(self, status: Json) -> Json:
        """The status as the scheduler gets it. During a drain, the drain becomes the reason for each kill.

        If the drain is to mark the agent as gone, a killed task is reported as gone.
        """
        if self.drain is None or status["state"] not in ("TASK_KILLING", "TASK_KILLED"):
            return status
        gone = status["state"] == "TASK_KILLED" and self.drain.get("mark_gone", False)
        state = "TASK_GONE_BY_OPERATOR" if gone else status["state"]
        return {**status, "reason": "REASON_AGENT_DRAINING", "state": state}

    def _apply_status(self, key: Key, status: Json) -> None:
        """Give a task its new state at once. The acknowledgement of the update follows later."""
        executor = self.owners.get(key)
        if executor is None:
            return
        if key[1] in executor.queued:  # the task ends before it has reached the executor
            executor.tasks[key[1]] = LaunchedTask(executor.queued.pop(key[1]))
        task = executor.tasks[key[1]]
        if task.state not in TERMINAL:
            task.state = status["state"]
        task.statuses.append(status)

    def _send_update(self, key: Key, status: Json, newest_state: str) -> None:
        executor = self.owners.get(key)
        latest = executor.tasks[key[1]].state if executor is not None else newest_state
        self.send_to_master(UpdateStatus(key[0], status, latest))

    def dropped_state(self, framework_id: str) -> str:
        return dropped_state(self.frameworks.get(framework_id, {}))

    def forget_framework(self, framework_id: str) -> None:
        """Forget a framework if it has no executors here and the terminal updates of all its tasks are acknowledged.

        A framework that is being shut down is forgotten as soon as it has no executors.
        """
        if all(executor.framework_id != framework_id for executor in self.executors.values()):
            if framework_id in self.terminating or not self.updates.has_framework(framework_id):
                self.frameworks.pop(framework_id, None)
            self.terminating.discard(framework_id)
