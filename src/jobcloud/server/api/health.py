"""The health of the scheduler, as the API shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

import jobcloud
from jobcloud import zones
from jobcloud.sentences import Told
from jobcloud.server.api import ports
from jobcloud.server.api.schema import Instant, View
from jobcloud.server.api.words import WordsView, words_of

MAX_PROBLEM = 500


class Warned(WordsView):
    text: str = Field(description="the sentence in English, as in `warnings`")


class Health(View):
    status: Literal["ok", "failing"]
    leading: bool
    connected: bool = Field(description="subscribed to a Mesos master")
    version: str
    problem: str = Field(description="why the status is not ok, for those who may view the cluster")
    code: str = Field(
        description="the kind of the problem: starting, standby, recovering, suspended, fenced, failed or stopped if "
        "this scheduler does not lead; disconnected from the Mesos master; failing for others; empty if there is none"
    )
    since: Instant = Field(description="the time of the first failure since the scheduler last worked")
    recoveries: int = Field(description="how often this process has started over from the stored state")
    faults: int = Field(description="stored records that cannot be read or written; `/cluster` names them")
    warnings: list[str] = Field(
        description="problems that do not stop the scheduler, such as a clock that was wrong, for those who may view "
        "the cluster"
    )
    warning_details: list[Warned] = Field(
        description="the same warnings, for clients that tell them in other languages"
    )


def health_view(health: ports.Health, warnings: Iterable[str], *, detailed: bool) -> Health:
    """`detailed`: with the texts of problems and warnings, which may name hosts and files."""
    found = [*warnings, *_zones()] if detailed else []
    return Health(
        status="ok" if health.well else "failing",
        leading=health.leading,
        connected=health.connected,
        version=jobcloud.__version__,
        problem=health.problem[:MAX_PROBLEM] if detailed else "",
        code=health.code,
        since=health.since_ms,
        recoveries=health.recoveries,
        faults=len(health.faults),
        warnings=[str(text) for text in found],
        warning_details=[Warned(**words_of(text), text=str(text)) for text in found],
    )


def _zones() -> Iterator[Told]:
    if text := zones.warning():
        yield Told(text, "time_zones", version=zones.version(), newer=zones.newer_on_this_machine())
