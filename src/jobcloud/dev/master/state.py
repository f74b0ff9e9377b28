"""The master's tables, timers and effects, and the changes that several parts of the master make.

Invariant: each amount of an agent's resources is counted exactly once. It is free in the allocator, offered, or used by
a task or an executor. Methods of `State` add and remove offers, tasks and executors, and preserve the invariant.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..protocol import TERMINAL, Effect, Json, Send, ToAgent, ToAgentMessage
from . import events
from .allocator import Allocator
from .records import (
    AgentRecord,
    Drain,
    ExecutorRecord,
    FrameworkRecord,
    InverseOfferRecord,
    Machine,
    OfferRecord,
    TaskRecord,
)


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """Times are in milliseconds. The defaults are those of a Mesos master's flags."""

    master_id: str = "dev"
    hostname: str = "127.0.0.1"
    port: int = 5050
    heartbeat_ms: int = 15_000
    allocation_interval_ms: int = 1_000
    offer_timeout_ms: int | None = None
    agent_reregister_timeout_ms: int = 600_000


class State:
    def __init__(self, settings: MasterSettings, at_ms: int) -> None:
        self.settings = settings
        self.started_at = at_ms
        self.now = at_ms  # time of the input at hand
        self.effects: list[Effect] = []
        self.allocator = Allocator(settings.allocation_interval_ms)
        self.allocation_wanted = False  # allocate as soon as the input at hand has been handled

        self.frameworks: dict[str, FrameworkRecord] = {}
        self.removed_frameworks: dict[str, FrameworkRecord] = {}
        self.streams: dict[str, str] = {}  # stream id → framework id
        self.offers: dict[str, OfferRecord] = {}

        self.agents: dict[str, AgentRecord] = {}
        self.links: dict[str, str] = {}  # link → agent id
        self.unreachable: dict[str, int] = {}  # agent id → since when
        self.gone: dict[str, int] = {}  # agent id → since when
        self.recovering: set[str] = set()  # agents of the previous master that are not back yet

        self.windows: list[Json] = []  # the maintenance schedule as the operator sent it
        self.machine_modes: dict[Machine, str] = {}  # DRAINING or DOWN, for each machine in the schedule
        self.unavailability: dict[Machine, Json] = {}
        self.inverse_offers: dict[str, InverseOfferRecord] = {}
        self.inverse_answers: dict[str, dict[str, Json]] = {}  # agent id → framework id → latest answer
        self.drains: dict[str, Drain] = {}  # by agent id
        self.deactivated: set[str] = set()
        self.ended_tasks: Counter[str] = Counter()  # by final state, since the start

        self._next_number = {"framework": 0, "offer": 0, "agent": 0, "stream": 0}
        self._timers: list[tuple[int, int, Callable[[str], None], str]] = []  # (due, sequence, callback, key)
        self._timer_sequence = 0

    def take_over(self, previous: State) -> None:
        """Copy the data that Mesos keeps in its registry for the next master: maintenance, drains, deactivations."""
        self.windows, self.machine_modes = list(previous.windows), dict(previous.machine_modes)
        self.unavailability = dict(previous.unavailability)
        self.drains, self.deactivated = dict(previous.drains), set(previous.deactivated)

    # ---- ids, timers, effects --------------------------------------------------------------------------------

    def next_number(self, kind: str) -> int:
        number = self._next_number[kind]
        self._next_number[kind] += 1
        return number

    def reserve_agent_number(self, number: int) -> None:
        """Give this number to no new agent."""
        self._next_number["agent"] = max(self._next_number["agent"], number + 1)

    def new_offer_id(self) -> str:
        """The id of a new offer or inverse offer. Both share one sequence."""
        return f"{self.settings.master_id}-O{self.next_number('offer')}"

    def call_at(self, due_ms: int, callback: Callable[[str], None], key: str) -> None:
        """Call `callback(key)` at the first Tick that is not before `due_ms`. Timers are not cancelled."""
        self._timer_sequence += 1
        heapq.heappush(self._timers, (due_ms, self._timer_sequence, callback, key))

    def next_due(self) -> int | None:
        return self._timers[0][0] if self._timers else None

    def run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            _due, _sequence, callback, key = heapq.heappop(self._timers)
            callback(key)

    def send_event(self, framework: FrameworkRecord, event: Json) -> None:
        """Send an event to a framework. If the framework is disconnected, the event is dropped."""
        if framework.stream_id:
            self.effects.append(Send(framework.stream_id, event))

    def send_to_agent(self, agent: AgentRecord, message: ToAgentMessage) -> None:
        """Send a message to an agent. If the agent is disconnected, the message is dropped."""
        if agent.connected:
            self.effects.append(ToAgent(agent.link, message))

    def send_to_agents(self, message: ToAgentMessage) -> None:
        for agent in self.agents.values():
            self.send_to_agent(agent, message)

    # ---- offers ----------------------------------------------------------------------------------------------

    def add_offer(self, offer: OfferRecord) -> None:
        """Store an offer whose resources the allocator has already assigned."""
        self.offers[offer.offer_id] = offer
        self.frameworks[offer.framework_id].offers[offer.offer_id] = offer
        self.agents[offer.agent_id].offers[offer.offer_id] = offer

    def consume_offer(self, offer: OfferRecord) -> None:
        """Remove an offer; its resources stay assigned to its framework."""
        del self.offers[offer.offer_id]
        del self.frameworks[offer.framework_id].offers[offer.offer_id]
        del self.agents[offer.agent_id].offers[offer.offer_id]

    def remove_offer(self, offer: OfferRecord, refuse_ms: int = 0) -> None:
        """Remove an offer and free its resources, without telling its framework."""
        self.consume_offer(offer)
        self.allocator.recover(offer.agent_id, offer.framework_id, offer.role, offer.resources, refuse_ms, self.now)

    def rescind(self, offer: OfferRecord) -> None:
        self.remove_offer(offer)
        self.send_event(self.frameworks[offer.framework_id], events.rescind(offer.offer_id))

    def rescind_all(self, offers: Iterable[OfferRecord]) -> None:
        for offer in list(offers):
            self.rescind(offer)

    # ---- tasks and executors ---------------------------------------------------------------------------------

    def add_task(self, framework: FrameworkRecord, task: TaskRecord) -> None:
        framework.tasks[task.task_id] = task
        self.agents[task.agent_id].tasks[framework.id, task.task_id] = task

    def apply_status(self, task: TaskRecord, status: Json, latest_state: str = "") -> None:
        """Record a status of a task. The first terminal or unreachable status frees the resources."""
        state, terminal = latest_state or status["state"], task.terminal
        freed = terminal or task.state == "TASK_UNREACHABLE"
        if not terminal:
            task.state = state
            if state in TERMINAL:
                self.ended_tasks[state] += 1
        if not freed and (state in TERMINAL or state == "TASK_UNREACHABLE"):
            self.allocator.recover(task.agent_id, task.framework_id, task.role, task.resources)
        if task.statuses and task.statuses[-1]["state"] == status["state"]:
            task.statuses.pop()
        if "data" in status:
            status = {key: value for key, value in status.items() if key != "data"}
        task.statuses.append(status)

    def remove_task(self, framework: FrameworkRecord, task: TaskRecord, completed: bool = True) -> None:
        framework.tasks.pop(task.task_id, None)
        framework.unreachable.pop(task.task_id, None)
        key = (framework.id, task.task_id)
        agent = self.agents.get(task.agent_id)
        if agent is not None:
            agent.tasks.pop(key, None)
            agent.kills.discard(key)
        if completed:
            framework.completed.append(task)

    def add_executor(self, agent: AgentRecord, framework_id: str, executor_id: str, executor: ExecutorRecord) -> None:
        agent.executors[framework_id, executor_id] = executor

    def remove_executor(self, agent: AgentRecord, key: tuple[str, str]) -> None:
        executor = agent.executors.pop(key)
        self.allocator.recover(agent.agent_id, key[0], executor.role, executor.resources)
