"""Reasons why a job's shards wait, and their derivation from the matcher's refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobcloud.config import DIMENSIONS
from jobcloud.fields import Unit
from jobcloud.match import Refusal


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason.

    `asked` is the amount of `resource` that a shard needs on the agent that is closest to taking it. `available` is the
    largest amount that any agent has. Both are in thousandths. `hosts` is the number of agents concerned. `at` is the
    instant at which the reason ends, or 0.
    """

    code: str
    text: str
    resource: str = ""
    asked: int = 0
    available: int = 0
    hosts: int = 0
    waiting_helps: bool = False
    at: int = 0


def refusal_reasons(refusal: Refusal) -> Iterator[Reason]:
    """The reasons why a request has no room: one for each resource of which some agents have too little.

    The resource that most agents lack comes first. If no known agent could ever take a shard, the last reason says so.
    """
    if refusal.fitting or not refusal.considered:
        return
    nearest = refusal.nearest
    lacking = sorted(zip(refusal.lacking, range(len(DIMENSIONS)), strict=True), reverse=True)
    for hosts, dimension in lacking:
        if not hosts:
            continue
        name = DIMENSIONS[dimension]
        asked = nearest.asked[dimension] if nearest else 0
        best = refusal.best[dimension]
        yield Reason(
            "short",
            f"{hosts} of {refusal.considered} agents have too little {name}: asked {Unit.MILLI.text(asked)}, "
            f"best available {Unit.MILLI.text(best)}",
            name,
            asked,
            best,
            hosts,
            refusal.could_ever_fit,
        )
    if not refusal.could_ever_fit:
        yield Reason("never", "no agent seen so far could take a shard even if it were empty")
