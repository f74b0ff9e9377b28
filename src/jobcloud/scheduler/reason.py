"""Reasons why a job's shards wait, and their derivation from the matcher's refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobcloud.config import DIMENSIONS
from jobcloud.fields import Unit
from jobcloud.match import Refusal
from jobcloud.sentences import Parameter

# How an attempt ended, in the parameters of a reason.
_FAILURE = ("attempt", "host", "end", "cause", "message")
#: Code → case → the names of its parameters. A case has one sentence; the case of most codes is "".
CASES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "app_disabled": {"": ("app",)},
    "job_disabled": {"": ()},
    "paused": {"job": ("since",), "app": ("app", "since"), "cluster": ("since",)},
    "fault": {"": ("message",)},
    "clock": {"": ("job", "until")},
    "calendar": {"": ("calendar", "day"), "missing": ("calendars",)},
    "quota": {
        "": ("team", "limit", "used", "most"),
        "never": ("team", "limit", "used", "most", "needed"),
        "executor": ("team", "limit", "used", "most", "executor"),
    },
    "pool": {
        "": ("pool", "used", "most"),
        "several": ("pool", "used", "most", "needed"),
        "kept": ("pool", "used", "most"),
        "never": ("pool", "used", "most", "needed"),
        "closed": ("pool",),
        "missing": ("pool",),
    },
    "gang": {
        "": ("shards", "fits"),
        "held": ("shards", "fits"),
        "never": ("shards", "most"),
        "quota": ("shards", "team", "limit", "used", "most", "needed"),
        "slots": ("shards", "pool", "used", "most", "needed"),
        "behind": ("run",),
    },
    "unreachable": {"": ("shards", "host"), "wait": ("shards", "host")},
    "rollout_stopped": {"": ("item", "message", "outdated", "shards")},
    "rolling": {"": ("outdated", "shards", "down", "most")},
    "dead": {"": ("runs", "run")},
    "start_failed": {"": ("app", "failures", "message"), "trial": ("app", "failures", "message")},
    "executors": {
        "": ("app", "up", "wanted", "message"),
        "full": ("app", "up", "wanted"),
        "lost": ("app", "up", "wanted", "message"),
    },
    "joined": {"": ("run", "shards", "nodes")},
    "not_due": {"": (), "never": (), "ended": ()},
    "running": {"": ("run",), "listener": ("run", "step")},
    "disconnected": {"": ()},
    "no_offers": {"": (), "role": ("role",)},
    "not_offered": {"": ("shards", "agents")},
    "back_off": {"": ("item", "message", "others"), "failed": ("item", "next", *_FAILURE, "others")},
    "avoided": {"": ("hosts",), "failures": ("host", "failures")},
    "short": {"": ("agents", "considered", "resource", "asked", "available")},
    "never": {"": ()},
    "constraints": {"": ("agents", "failing"), "short": ("agents", "failing", "lacking"), "full": ()},
    "drained": {"": ("agents",)},
    "last_run": {
        "": ("run", "item", "step", "state", "message", "others"),
        "failed": ("run", "item", "step", "state", *_FAILURE, "others"),
    },
    "backfill": {"": ("times",)},
    "exclusive": {"": ("agents",)},
    "after_end": {"": ("run", "seconds")},
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. `text` tells it in English. `code`, `case` and `parameters`, see `CASES`, tell it in other languages.

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
    case: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def amount(thousandths: int) -> int | float:
    """An amount in whole units."""
    return thousandths / 1000 if thousandths % 1000 else thousandths // 1000


def condition_reasons(
    agents: int, failing: Sequence[tuple[str, int]], broken: Sequence[tuple[str, int]], refusal: Refusal
) -> Iterator[Reason]:
    """How many of the known agents fail each condition of a job, and what the others lack, in one sentence.

    `failing` names the conditions. An agent counts for the first one that it fails. `broken`: the rules that count the
    job's shards, each with the number of the other agents that cannot take one more.
    """
    excluded = sum(number for _, number in failing)
    if not excluded and not any(number for _, number in broken):
        return
    parts = [f"{number} fail {condition}" for condition, number in failing if number]
    parts += [f"{number} are excluded by {rule}" for rule, number in broken if number]
    left = excluded < agents
    lacking = zip(refusal.lacking, DIMENSIONS, strict=True) if left else ()
    short = [(hosts, name) for hosts, name in lacking if hosts]
    parts += [f"{hosts} have too little {name}" for hosts, name in short]
    given: dict[str, Parameter] = {
        "agents": agents,
        "failing": "; ".join(f"{number} × {condition}" for condition, number in (*failing, *broken) if number),
    }
    if short:
        given["lacking"] = "; ".join(f"{hosts} × {name}" for hosts, name in short)
    yield Reason(
        "constraints", f"{agents} agents: {', '.join(parts)}", hosts=excluded,
        waiting_helps=left and refusal.could_ever_fit, case="short" if short else "", parameters=given,
    )  # fmt: skip


def refusal_reasons(refusal: Refusal) -> Iterator[Reason]:
    """The reasons why a request has no room: one for each resource of which some agents have too little.

    The resource that most agents lack comes first. Then follow the agents that exclusive shards of other jobs have. If
    no known agent could ever take a shard, the last reason says so.
    """
    yield from _short_reasons(refusal)
    if refusal.disabled and not refusal.fitting:
        yield exclusive_reason(refusal.disabled)
    if refusal.considered and not refusal.fitting and not refusal.could_ever_fit:
        yield Reason("never", "no agent seen so far could take a shard even if it were empty")


def exclusive_reason(agents: int) -> Reason:
    """Exclusive shards of other jobs have some agents."""
    text = f"{agents} agents run shards of jobs with `exclusive host` and take no others"
    return Reason("exclusive", text, hosts=agents, waiting_helps=True, parameters={"agents": agents})


def _short_reasons(refusal: Refusal) -> Iterator[Reason]:
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
            parameters={
                "agents": hosts, "considered": refusal.considered, "resource": name, "asked": amount(asked),
                "available": amount(best),
            },
        )  # fmt: skip
