"""Reasons of the scheduler, as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from jobcloud.scheduler.reason import Reason
from jobcloud.server.api.schema import Instant, Quantity, View


class ReasonView(View):
    code: str
    case: str = Field(description="which sentence of the code applies; empty for codes with one sentence")
    parameters: dict[str, str | int | float] = Field(
        description="the values of the sentence, by name, so that clients can tell it in other languages"
    )
    text: str = Field(description="the sentence in English")
    resource: str
    asked: Quantity
    available: Quantity
    hosts: int
    waiting_helps: bool
    until: Instant = Field(description="when the reason ends, such as the time of the next attempt; null if unknown")


def reason_view(reason: Reason) -> ReasonView:
    return ReasonView(
        code=reason.code,
        case=reason.case,
        parameters=dict(reason.parameters),
        text=reason.text,
        resource=reason.resource,
        asked=reason.asked,
        available=reason.available,
        hosts=reason.hosts,
        waiting_helps=reason.waiting_helps,
        until=reason.at,
    )


def reason_views(reasons: Iterable[Reason]) -> list[ReasonView]:
    return [reason_view(reason) for reason in reasons]
