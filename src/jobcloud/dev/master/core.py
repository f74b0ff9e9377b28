"""The master as a state machine. Inputs are calls, messages and time; outputs are replies, events and messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..protocol import (
    AgentTimedOut,
    Call,
    Effect,
    FromAgent,
    LinkLost,
    Operate,
    RescindOffer,
    StreamLost,
    Tick,
)
from .agents import Agents
from .calls import SchedulerCalls
from .frameworks import Frameworks
from .inverse_offers import InverseOffers
from .monitoring import Monitoring
from .offers import Offers
from .operators import OperatorCalls
from .state import MasterSettings, State
from .views import Views

MasterInput = Call | Operate | StreamLost | LinkLost | FromAgent | AgentTimedOut | RescindOffer | Tick


class Master:
    """A Mesos master. Only `handle` changes the state of a running master.

    Callers may read `state`, `views` and `monitoring`.
    """

    def __init__(self, settings: MasterSettings, at_ms: int = 0) -> None:
        self.state = State(settings, at_ms)
        self.views = Views(self.state)
        self.monitoring = Monitoring(self.state, self.views)
        self._inverse_offers = InverseOffers(self.state, self.views)
        self._offers = Offers(self.state, self.views)
        frameworks = Frameworks(self.state, self.views, self._inverse_offers)
        self._agents = Agents(self.state, self._inverse_offers)
        self._operators = OperatorCalls(self.state, self.views, frameworks, self._agents, self._inverse_offers)
        calls = SchedulerCalls(self.state, frameworks, self._inverse_offers)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Call: calls.on_call,
            Operate: self._operators.on_call,
            StreamLost: frameworks.on_stream_lost,
            LinkLost: self._agents.on_link_lost,
            FromAgent: self._agents.on_message,
            AgentTimedOut: self._agents.on_health_timeout,
            RescindOffer: self._offers.on_rescind,
            Tick: self._on_tick,
        }
        self._allocation_scheduled = False

    def expect_agents(self, agent_ids: Iterable[str], at_ms: int) -> None:
        """Start as the successor of a master that had these agents.

        Until an agent has reregistered, it may run tasks that this master does not know.
        """
        for agent_id in agent_ids:
            self._agents.expect(agent_id, at_ms + self.state.settings.agent_reregister_timeout_ms)

    def handle(self, event: MasterInput, at_ms: int) -> list[Effect]:
        """Handle one input. Returns the effects in the order in which the caller must perform them."""
        state = self.state
        state.now = at_ms
        self._handlers[type(event)](event)
        if state.drains:
            self._operators.finish_drains()
        if state.allocation_wanted:
            state.allocation_wanted = False
            self._allocate()
        if not self._allocation_scheduled and state.allocator.has_work:
            self._allocation_scheduled = True
            state.call_at(at_ms + state.settings.allocation_interval_ms, self._scheduled_allocation, "")
        effects, state.effects = state.effects, []
        return effects

    def next_at(self) -> int | None:
        """The time of the next Tick, in milliseconds; None if no timer is set."""
        return self.state.next_due()

    def _on_tick(self, _: Tick) -> None:
        self.state.run_timers()

    def _scheduled_allocation(self, _: str) -> None:
        self._allocation_scheduled = False
        self._allocate()

    def _allocate(self) -> None:
        self._offers.allocate()
        self._inverse_offers.send()
