"""Refusals in words and numbers: why a job's shards wait, and whether waiting can help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobcloud.match import Refusal
from jobcloud.model import DIMENSIONS, Drain, Resources, Window


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. `asked` and `available` are thousandths of `resource` on the agent that comes nearest."""

    code: str
    text: str
    resource: str = ""
    asked: int = 0
    available: int = 0
    hosts: int = 0
    waiting_helps: bool = False
    at: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of a job's firings that may run now: shards that wait and run, firings behind them, and why."""

    job: str
    waiting: int
    active: int
    behind: int
    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> str:
        return self.reasons[0].text if self.reasons else "it is about to be placed"


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent as people see it: what it offers now, and what our tasks and executors use there.

    `whole`: both together when it was last offered (what we use, before it ever was). `drain` is an operator's wish to
    empty it, `window` the maintenance that Mesos announces; `closed`: it gets nothing new, for either.
    """

    id: str
    hostname: str
    address: str
    attributes: tuple[tuple[str, str], ...]
    offered: Resources
    claimed: Resources
    whole: Resources
    offers: int
    executors: tuple[str, ...]
    lost: bool
    tasks: int = 0
    drain: Drain | None = None
    window: Window | None = None
    closed: bool = False


def refusal_reasons(refusal: Refusal) -> Iterator[Reason]:
    """One reason for each resource that is short anywhere, the scarcest first."""
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
            f"{hosts} of {refusal.considered} agents have too little {name}: asked {asked / 1000:g}, "
            f"best available {best / 1000:g}",
            name,
            asked,
            best,
            hosts,
            refusal.could_ever_fit,
        )
    if not refusal.could_ever_fit:
        yield Reason("never", "no agent seen so far could take a shard even if it were empty")
