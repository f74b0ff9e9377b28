"""The search for workflows: filters and orders over all workflows, with little work on the scheduler's thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from pydantic import Field

from jobcloud.config import team_of
from jobcloud.model import Workflow, WorkflowRun
from jobcloud.scheduler import Scheduler
from jobcloud.server.api.paging import Listing, PageQuery, Place
from jobcloud.server.api.schema import KeyFilter, TeamFilter

MAX_TEXT = 100
WorkflowRunState: TypeAlias = Literal["RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]
# Bytes of the JSON of a workflow, and of one of its nodes or conditions, apart from names.
_FRAME_BYTES = 900
_PART_BYTES = 150
# Later than each instant: a workflow without a run is the last one in both directions.
_NEVER = 1 << 60


class WorkflowQuery(PageQuery):
    team: TeamFilter = ""
    job: KeyFilter = Field("", description="only workflows with a node of this job")
    q: str = Field("", max_length=MAX_TEXT, description="a text in the key or the description, in any case")
    state: list[WorkflowRunState] = Field(
        [], max_length=4, description="only workflows whose newest run is in one of these states; it may be repeated"
    )
    sort: Literal["name", "-name", "last", "-last"] = Field(
        "name",
        description="name, or the begin of the newest run; a minus reverses the order. Workflows without a run are at "
        "the end",
    )


class Facts(NamedTuple):
    """References of the core at one moment. `runs` is empty if no run matters."""

    workflows: list[Workflow]
    runs: list[WorkflowRun]


class Found(NamedTuple):
    """The workflows of a page, the cursor of the next one, and the number of all that match."""

    workflows: list[Workflow]
    cursor: str
    total: int


def look(scheduler: Scheduler, query: WorkflowQuery) -> Facts:
    """The facts that a search needs. Runs on the scheduler's thread, so it copies only references."""
    known = scheduler.workflows_naming(query.job) if query.job else list(scheduler.workflows.values())
    matter = query.state or query.sort in ("last", "-last")
    return Facts(known, list(scheduler.workflow_runs.values()) if matter else [])


def search(facts: Facts, query: WorkflowQuery, teams: frozenset[str] | None) -> Found:
    """`teams` are those that the sender may view; None: all. Raises Problem."""
    newest = _newest(facts.runs)
    text = query.q.casefold()
    chosen = [
        one for one in facts.workflows
        if (teams is None or team_of(one.key) in teams)
        and (not text or text in one.key.casefold() or text in one.description.casefold())
        and (not query.state or (one.key in newest and newest[one.key].state in query.state))
    ]  # fmt: skip
    falling = query.sort.startswith("-")
    never = -1 if falling else _NEVER

    def place(one: Workflow) -> Place:
        if query.sort in ("name", "-name"):
            return (one.key,)
        return newest[one.key].began_ms if one.key in newest else never, one.key

    # A cursor is valid for its own order only.
    name = "workflows" if query.sort == "name" else f"workflows by {query.sort}"
    listing = Listing(name, (str,) if query.sort in ("name", "-name") else (int, str))
    chosen.sort(key=place, reverse=falling)
    found, cursor = listing.page(chosen, place, query, _bytes, falling=falling)
    return Found(found, cursor, len(chosen))


def age(run: WorkflowRun) -> tuple[int, str]:
    """The place of a run among those of its workflow: the newest one has the greatest."""
    return run.began_ms, run.id


def _newest(runs: Iterable[WorkflowRun]) -> dict[str, WorkflowRun]:
    """Workflow → its newest run."""
    found: dict[str, WorkflowRun] = {}
    for run in runs:
        known = found.get(run.workflow)
        if known is None or age(run) > age(known):
            found[run.workflow] = run
    return found


def _bytes(workflow: Workflow) -> int:
    """The approximate size of a workflow's JSON in bytes."""
    return _FRAME_BYTES + sum(
        _PART_BYTES + len(node.name) + len(node.job) + sum(_PART_BYTES + len(after.node) for after in node.after)
        for node in workflow.nodes
    )
