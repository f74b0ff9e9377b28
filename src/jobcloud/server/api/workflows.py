"""Workflows: which job of a team runs after which, and their runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, cast

import msgspec
from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from jobcloud.config import check_name, key_of, split_key, team_of
from jobcloud.messages import CancelWorkflowRun, PutWorkflow, RemoveWorkflow, RetryWorkflowRun
from jobcloud.model import After, Node, NodeState, Workflow, WorkflowRun, changed
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.refusals import changed_since, no_workflow, no_workflow_run
from jobcloud.scheduler.workflow_graph import check
from jobcloud.scheduler.workflows import NodeView as NodeOfRun
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import check_printable, read_config
from jobcloud.server.api.node_reasons import NodeReasonView, node_reason
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.patch import change
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.schema import Instant, Key, RunId, View, WorkflowConfig
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.api.workflow_search import WorkflowQuery, WorkflowRunState, age, look, search
from jobcloud.server.routes import Routes

router = Routes(tags=["workflows"])

_RUNS = Listing("workflow-runs", (int, str))


class AfterView(View):
    node: str
    on: str


class WorkflowNodeView(View):
    name: str
    job: str = Field(description="the name of a job of the workflow's team")
    after: list[AfterView] = Field(description="the conditions of its start")
    join: str


class WorkflowRunSummary(View):
    id: str
    workflow: str
    team: str
    fired_at: Instant = Field(description="the fire time of the runs of all nodes")
    began_at: Instant
    ended_at: Instant
    state: WorkflowRunState
    cancelled: bool = Field(description="true: no further node starts")


class WorkflowView(Revised):
    workflow: str = Field(description="the key of the workflow")
    team: str
    description: str
    start: str = Field(description="the node whose runs begin the runs of the workflow")
    nodes: list[WorkflowNodeView]
    changed_at: Instant
    skipped: int = Field(
        description="runs of the start's job that began no run of the workflow, because too many had not ended"
    )
    last_run: WorkflowRunSummary | None = Field(description="the newest run; null if there is none")


class WorkflowList(PageView):
    items: list[WorkflowView]
    total: int = Field(description="the number of workflows that match")


class NodeOfRunView(WorkflowNodeView):
    job_name: str = Field(description="the key of the job")
    state: NodeState
    run_id: str = Field(description="the run of the job; empty if there is none")
    started_at: Instant
    ended_at: Instant
    reason: NodeReasonView | None = Field(
        description="why the node was skipped, failed without a run, or cannot start now; null for all others"
    )


class WorkflowRunView(WorkflowRunSummary):
    start: str
    node_states: dict[str, int] = Field(description="the number of nodes in each state")
    nodes: list[NodeOfRunView] = Field(description="the nodes that the workflow had when the run began")


class WorkflowRunList(PageView):
    items: list[WorkflowRunSummary]


class WorkflowRunQuery(PageQuery):
    state: list[WorkflowRunState] = Field(
        [], max_length=4, description="only runs in one of these states; it may be repeated"
    )


@router.get("/workflows")
def list_workflows(
    services: ServicesDep, access: AccessDep, query: Annotated[WorkflowQuery, Parameter()]
) -> WorkflowList:
    """The workflows, by key or in another order."""
    teams = access.shown_teams(query.team or team_of(query.job))
    found = search(services.loop.ask(lambda scheduler: look(scheduler, query)), query, teams)
    last = services.loop.ask(lambda scheduler: [_last_run(scheduler, one.key) for one in found.workflows])
    return WorkflowList(items=list(map(_view, found.workflows, last)), next_cursor=found.cursor, total=found.total)


@router.get("/workflows/{workflow}", dependencies=[SEEN], response_model=WorkflowView)
def show_workflow(services: ServicesDep, workflow: Key, request: Request) -> Response:
    """A workflow with its nodes."""
    return shown(request, _shown(services, workflow))


@router.put(
    "/workflows/{workflow}",
    responses={201: {"model": WorkflowView, "description": "It is new"}},
    openapi_extra=json_body(WorkflowConfig),
)
async def put_workflow(
    services: ServicesDep, workflow: Key, body: JsonObject, expected: Expected, response: Response
) -> WorkflowView:
    """Create or change a workflow. Runs that have begun keep their nodes and conditions."""
    made = record_of(workflow, read_config(body, WorkflowConfig))

    def attempt() -> bool:
        """Store the workflow. Returns whether it is new."""
        known = _known(services, workflow, expected)
        services.command(lambda at: PutWorkflow(at, made, known))
        return known is None

    response.status_code = 201 if await change(lambda: run_in_threadpool(attempt), expected) else 200
    view = await run_in_threadpool(_shown, services, workflow)
    mark(response, view)
    return view


@router.delete("/workflows/{workflow}", status_code=204)
async def remove_workflow(services: ServicesDep, workflow: Key, expected: Expected) -> None:
    """Remove a workflow. Its runs that have begun go on, and are forgotten at their end."""

    def attempt() -> None:
        known = _known(services, workflow, expected)
        services.command(lambda at: RemoveWorkflow(at, workflow, known))

    await change(lambda: run_in_threadpool(attempt), expected)


@router.get("/workflows/{workflow}/runs")
def list_workflow_runs(
    services: ServicesDep, workflow: Key, query: Annotated[WorkflowRunQuery, Parameter()]
) -> WorkflowRunList:
    """The runs of a workflow, newest first, without their nodes."""

    def known(scheduler: Scheduler) -> list[WorkflowRun]:
        if workflow not in scheduler.workflows:
            raise no_workflow(workflow)
        return scheduler.workflow_runs_of(workflow)

    runs = sorted(services.loop.ask(known), key=age, reverse=True)
    chosen = (run for run in runs if not query.state or run.state in query.state)
    found, cursor = _RUNS.page(chosen, age, query, falling=True)
    return WorkflowRunList(items=list(map(_summary, found)), next_cursor=cursor)


@router.get("/workflow-runs/{run}")
def show_workflow_run(services: ServicesDep, run: RunId) -> WorkflowRunView:
    """A run of a workflow with the states of its nodes."""
    return _shown_run(services, run)


@router.post("/workflow-runs/{run}/cancel", status_code=202)
def cancel_workflow_run(services: ServicesDep, run: RunId) -> WorkflowRunView:
    """End a run of a workflow: the runs of its nodes are cancelled, and no further node starts.

    A run that is a node of other workflows' runs too goes on until all of them are cancelled.
    """
    services.command(lambda at: CancelWorkflowRun(at, run))
    return _shown_run(services, run)


@router.post("/workflow-runs/{run}/retry", status_code=202)
def retry_workflow_run(services: ServicesDep, run: RunId) -> WorkflowRunView:
    """Repeat the failed and cancelled nodes of a run. The nodes behind them that were skipped wait again."""
    services.command(lambda at: RetryWorkflowRun(at, run))
    return _shown_run(services, run)


def record_of(key: str, given: WorkflowConfig) -> Workflow:
    """The record of a configuration. Raises ConfigError."""
    team, name = split_key(key)
    check_name("workflow", name)
    check_printable("description", given.description)
    for number, node in enumerate(given.nodes):
        check_name(f"nodes.{number}.job", node.job)
    nodes = tuple(
        Node(
            node.name or node.job,
            key_of(team, node.job),
            tuple(After(after.node, after.on) for after in node.after),
            node.join,
        )
        for node in given.nodes
    )
    return Workflow(key, nodes, check(nodes, given.start), given.description)


def _known(services: Services, key: str, expected: tuple[str, ...] | None) -> Workflow | None:
    """The present workflow. Raises Outdated if it has none of the expected revisions."""
    known = services.loop.ask(lambda scheduler: scheduler.workflows.get(key))
    if expected is not None and (known is None or _revision(known) not in expected):
        raise changed_since("workflow", key)
    return known


def _shown(services: Services, key: str) -> WorkflowView:
    """Raises NotFound."""

    def known(scheduler: Scheduler) -> tuple[Workflow, WorkflowRun | None]:
        if key not in scheduler.workflows:
            raise no_workflow(key)
        return scheduler.workflows[key], _last_run(scheduler, key)

    return _view(*services.loop.ask(known))


def _last_run(scheduler: Scheduler, workflow: str) -> WorkflowRun | None:
    return max(scheduler.workflow_runs_of(workflow), key=age, default=None)


def _revision(workflow: Workflow) -> str:
    return hashlib.sha256(msgspec.json.encode(changed(workflow, changed_ms=0, skipped=0))).hexdigest()[:16]


def _view(workflow: Workflow, last: WorkflowRun | None) -> WorkflowView:
    return WorkflowView(
        revision=_revision(workflow),
        workflow=workflow.key,
        team=team_of(workflow.key),
        description=workflow.description,
        start=workflow.start,
        nodes=list(map(_node, workflow.nodes)),
        changed_at=workflow.changed_ms,
        skipped=workflow.skipped,
        last_run=_summary(last) if last is not None else None,
    )


def _node(node: Node) -> WorkflowNodeView:
    return WorkflowNodeView(
        name=node.name,
        job=split_key(node.job)[1],
        after=[AfterView(node=after.node, on=after.on) for after in node.after],
        join=node.join,
    )


def _summary(run: WorkflowRun) -> WorkflowRunSummary:
    return WorkflowRunSummary(
        id=run.id,
        workflow=run.workflow,
        team=team_of(run.workflow),
        fired_at=run.fire_ms,
        began_at=run.began_ms,
        ended_at=run.ended_ms,
        state=cast("WorkflowRunState", run.state.value),
        cancelled=run.cancelled,
    )


def _shown_run(services: Services, run_id: str) -> WorkflowRunView:
    """Raises NotFound."""

    def known(scheduler: Scheduler) -> tuple[WorkflowRun, list[NodeOfRun]]:
        run = scheduler.workflow_runs.get(run_id)
        if run is None:
            raise no_workflow_run(run_id)
        return run, scheduler.nodes_of(run)

    run, nodes = services.loop.ask(known)
    return WorkflowRunView(
        **dict(_summary(run)),
        start=run.start,
        node_states=Counter(node.state for node in nodes),
        nodes=list(_nodes(run.nodes, nodes)),
    )


def _nodes(graph: Iterable[Node], found: Iterable[NodeOfRun]) -> Iterable[NodeOfRunView]:
    for node, one in zip(graph, found, strict=True):
        yield NodeOfRunView(
            **dict(_node(node)),
            job_name=one.job,
            state=one.state,
            run_id=one.run,
            started_at=one.started_ms,
            ended_at=one.ended_ms,
            reason=node_reason(one.reason),
        )
