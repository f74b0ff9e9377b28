"""Makes offers from the allocator's results, and rescinds offers that time out."""

from __future__ import annotations

from ..protocol import RescindOffer
from ..resources import Resources
from .records import OfferRecord
from .state import State
from .views import Views


class Offers:
    def __init__(self, state: State, views: Views) -> None:
        self._state = state
        self._views = views

    def allocate(self) -> None:
        """Offer all free resources, in one OFFERS event for each framework."""
        state = self._state
        offers: dict[str, list[OfferRecord]] = {}
        for agent_id, framework_id, role, resources in state.allocator.allocate(state.now):
            offers.setdefault(framework_id, []).append(self._offer(agent_id, framework_id, role, resources))
        for framework_id, made in offers.items():
            framework = state.frameworks[framework_id]
            event = {"type": "OFFERS", "offers": {"offers": self._views.offers(made, framework)}}
            state.send_event(framework, event)

    def _offer(self, agent_id: str, framework_id: str, role: str, resources: Resources) -> OfferRecord:
        state = self._state
        offer = OfferRecord(state.new_offer_id(), framework_id, agent_id, role, resources)
        if state.settings.offer_timeout_ms is not None:
            state.call_at(state.now + state.settings.offer_timeout_ms, self._rescind, offer.offer_id)
        state.add_offer(offer)
        return offer

    def _rescind(self, offer_id: str) -> None:
        if offer_id in self._state.offers:
            self._state.rescind(self._state.offers[offer_id])

    def on_rescind(self, event: RescindOffer) -> None:
        self._rescind(event.offer_id)
