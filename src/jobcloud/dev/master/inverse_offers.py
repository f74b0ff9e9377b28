"""Inverse offers, which ask frameworks to release agents before a maintenance window."""

from __future__ import annotations

from collections.abc import Iterator

from ..protocol import Json
from .allocator import refuse_ms
from .records import AgentRecord, FrameworkRecord, InverseOfferRecord
from .state import State
from .views import Views


class InverseOffers:
    def __init__(self, state: State, views: Views) -> None:
        self._state = state
        self._views = views
        self._filtered_until: dict[tuple[str, str], int] = {}  # by agent and framework id

    def send(self) -> None:
        """Send inverse offers for each connected agent with a maintenance window to the frameworks of `_to_ask`."""
        state = self._state
        if not state.unavailability:
            return
        events: dict[str, list[Json]] = {}
        for agent in state.agents.values():
            window = state.unavailability.get(agent.machine)
            for framework in self._to_ask(agent) if window is not None and agent.connected else ():
                inverse = InverseOfferRecord(state.new_offer_id(), framework.id, agent.agent_id)
                state.inverse_offers[inverse.offer_id] = inverse
                events.setdefault(framework.id, []).append(self._views.inverse_offer(inverse, window or {}))
        for framework_id, inverse_offers in events.items():
            event = {"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": inverse_offers}}
            state.send_event(state.frameworks[framework_id], event)

    def _to_ask(self, agent: AgentRecord) -> Iterator[FrameworkRecord]:
        """The connected frameworks that use an agent or have an offer of it.

        Frameworks with a pending inverse offer or with a filter for this agent are left out.
        """
        state = self._state
        users = {key[0] for key, task in agent.tasks.items() if not task.terminal}
        users |= {key[0] for key in agent.executors}
        users |= {offer.framework_id for offer in agent.offers.values()}
        users -= {one.framework_id for one in state.inverse_offers.values() if one.agent_id == agent.agent_id}
        for framework_id in sorted(users):
            framework = state.frameworks.get(framework_id)
            filtered = self._filtered_until.get((agent.agent_id, framework_id), 0) > state.now
            if framework is not None and framework.connected and not filtered:
                yield framework

    def answer(self, framework: FrameworkRecord, call: Json, status: str) -> None:
        """Record the answer of a framework to inverse offers. Operators can read it.

        The framework is asked again when the filter in its answer expires.
        """
        state = self._state
        for one in call.get("inverse_offer_ids") or []:
            inverse = state.inverse_offers.get(one["value"])
            if inverse is None or inverse.framework_id != framework.id:
                continue
            del state.inverse_offers[inverse.offer_id]
            state.inverse_answers.setdefault(inverse.agent_id, {})[framework.id] = {
                "status": status,
                "framework_id": {"value": framework.id},
                "timestamp": {"nanoseconds": state.now * 1_000_000},
            }
            until = state.now + refuse_ms(call.get("filters"))
            self._filtered_until[inverse.agent_id, framework.id] = until
            state.call_at(until, self._filter_expired, "")

    def _filter_expired(self, _: str) -> None:
        self.send()

    def rescind_agent(self, agent: AgentRecord) -> None:
        """Rescind all inverse offers for an agent."""
        state = self._state
        for inverse in [one for one in state.inverse_offers.values() if one.agent_id == agent.agent_id]:
            del state.inverse_offers[inverse.offer_id]
            event = {"inverse_offer_id": {"value": inverse.offer_id}}
            owner = state.frameworks[inverse.framework_id]
            state.send_event(owner, {"type": "RESCIND_INVERSE_OFFER", "rescind_inverse_offer": event})

    def reset_agent(self, agent: AgentRecord) -> None:
        """Rescind the inverse offers for an agent, and drop its answers and filters, after a schedule update."""
        self.rescind_agent(agent)
        self._state.inverse_answers.pop(agent.agent_id, None)
        for key in [key for key in self._filtered_until if key[0] == agent.agent_id]:
            del self._filtered_until[key]

    def forget_framework(self, framework: FrameworkRecord) -> None:
        """Drop the inverse offers and filters of a framework without events: its scheduler is gone or replaced."""
        state = self._state
        for inverse in [one for one in state.inverse_offers.values() if one.framework_id == framework.id]:
            del state.inverse_offers[inverse.offer_id]
        for key in [key for key in self._filtered_until if key[1] == framework.id]:
            del self._filtered_until[key]
