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

from jobcloud.access.verbs import Verb
from jobcloud.config import DEFAULT_TEAM, check_name, key_of, split_key, team_of
from jobcloud.messages import (
    AnswerNode,
    CancelWorkflowRun,
    PauseWorkflowRun,
    PutWorkflow,
    RemoveWorkflow,
    RetryWorkflowRun,
    SendWorkflowEvent,
)
from jobcloud.model import After, Answer, Node, NodeState, WaitFor, Workflow, WorkflowRun, changed
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
from jobcloud.server.api.schema import (
    AnswerConfig,
    EventConfig,
    Instant,
    Key,
    NodeConfig,
    RunId,
    View,
    WorkflowConfig,
)
from jobcloud.server.api.services import JsonObject, Pausing, Services, ServicesDep, json_body
from jobcloud.server.api.workflow_search import WorkflowQuery, WorkflowRunState, age, look, search
from jobcloud.server.routes import Routes

router = Routes(tags=["workflows"])

_RUNS = Listing("workflow-runs", (int, str))


class AfterView(View):
    node: str
    on: str
    result: str = Field(description="the result that the other node must have; empty: any")


class WorkflowNodeView(View):
    name: str
    job: str = Field(description="the name of a job of the workflow's team; empty if it waits for an answer")
    after: list[AfterView] = Field(description="the conditions of its start")
    join: str
    wait_for: WaitFor | None = Field(description="the answer that it waits for; null: it has a job")
    event: str = Field(description="the name of the event that it waits for")
    deadline_seconds: int = Field(description="its end is late after this time; 0: never")


class WorkflowRunSummary(View):
    id: str
    workflow: str
    team: str
    fired_at: Instant = Field(description="the fire time of the runs of all nodes")
    began_at: Instant
    ended_at: Instant
    state: WorkflowRunState
    cancelled: bool = Field(description="true: no further node starts")
    paused: bool = Field(description="true: no further node starts until it is resumed")
    deadline_seconds: int = Field(description="its end is late after this time; 0: never")


class WorkflowView(Revised):
    workflow: str = Field(description="the key of the workflow")
    team: str
    description: str
    start: str = Field(description="the node whose runs begin the runs of the workflow")
    nodes: list[WorkflowNodeView]
    deadline_seconds: int = Field(description="the end of a run is late after this time; 0: never")
    changed_at: Instant
    skipped: int = Field(
        description="runs of the start's job that began no run of the workflow, because too many had not ended"
    )
    last_run: WorkflowRunSummary | None = Field(description="the newest run; null if there is none")


class WorkflowList(PageView):
    items: list[WorkflowView]
    total: int = Field(description="the number of workflows that match")


class AnswerView(View):
    succeeded: bool
    result: str
    note: str
    by: str = Field(description="who has given it, such as user:ann")
    at: Instant


class NodeOfRunView(WorkflowNodeView):
    job_name: str = Field(description="the key of the job; empty if it waits for an answer")
    state: NodeState
    run_id: str = Field(description="the run of the job; empty if there is none")
    started_at: Instant
    ended_at: Instant
    reason: NodeReasonView | None = Field(
        description="why the node was skipped, failed without a run, or cannot start now; null for all others"
    )
    answer: AnswerView | None = Field(description="the answer that it has waited for; it may have come early")


class WorkflowRunView(WorkflowRunSummary):
    start: str
    node_states: dict[str, int] = Field(description="the number of nodes in each state")
    nodes: list[NodeOfRunView] = Field(description="the nodes that the workflow had when the run began")


class WorkflowRunList(PageView):
    items: list[WorkflowRunSummary]


class EventView(View):
    answered: int = Field(description="the number of nodes that waited for the event, or will wait for it")


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


@router.post("/workflow-runs/{run}/{pausing:pausing}", status_code=202)
def pause_workflow_run(services: ServicesDep, run: RunId, pausing: Pausing) -> WorkflowRunView:
    """Start no further node of a run until it is resumed. Nodes that have begun go on."""
    services.command(lambda at: PauseWorkflowRun(at, run, pausing == "pause"))
    return _shown_run(services, run)


@router.post("/workflow-runs/{run}/nodes/{node}/answer", status_code=202, openapi_extra=json_body(AnswerConfig))
def answer_node(services: ServicesDep, access: AccessDep, run: RunId, node: Key, body: JsonObject) -> WorkflowRunView:
    """Answer a node that waits for an approval or a callback.

    An approval needs the right `control-runs`, and a callback the right `trigger`. The answer to a callback may come
    before the node waits for it.
    """
    kinds = services.loop.ask(lambda scheduler: _waits(scheduler, run))
    access.require(Verb.TRIGGER if kinds.get(node) is WaitFor.CALLBACK else Verb.CONTROL_RUNS, team_of(run))
    answer = _answer(access, read_config(body, AnswerConfig))
    services.command(lambda at: AnswerNode(at, run, node, changed(answer, at_ms=at)))
    return _shown_run(services, run)


@router.post("/workflow-events", status_code=202, openapi_extra=json_body(EventConfig))
def send_event(services: ServicesDep, access: AccessDep, body: JsonObject) -> EventView:
    """Answer the nodes of a team's workflows that wait for an event.

    It counts for runs that have not ended, also for nodes that do not wait for it yet. Later runs wait for another one.
    """
    given = read_config(body, EventConfig)
    team = given.team or DEFAULT_TEAM
    access.require(Verb.TRIGGER, team)
    check_name("event", given.event)
    answer, event, fire_ms = _answer(access, given), given.event, given.fire_time
    waiting = services.loop.ask(lambda scheduler: scheduler.nodes_awaiting(team, event, fire_ms))
    services.command(lambda at: SendWorkflowEvent(at, team, event, changed(answer, at_ms=at), fire_ms))
    return EventView(answered=waiting)


def _waits(scheduler: Scheduler, run_id: str) -> dict[str, WaitFor | None]:
    """What each node of a run waits for; nothing if there is no such run."""
    run = scheduler.workflow_runs.get(run_id)
    return {node.name: node.wait for node in run.nodes} if run is not None else {}


def _answer(access: AccessDep, given: AnswerConfig) -> Answer:
    """Raises ConfigError."""
    check_printable("note", given.note)
    check_printable("result", given.result)
    return Answer(given.succeeded, given.result, given.note, access.principal.subject)


def record_of(key: str, given: WorkflowConfig) -> Workflow:
    """The record of a configuration. Raises ConfigError."""
    team, name = split_key(key)
    check_name("workflow", name)
    check_printable("description", given.description)
    for number, node in enumerate(given.nodes):
        if node.job:
            check_name(f"nodes.{number}.job", node.job)
    nodes = tuple(_node_of(team, node) for node in given.nodes)
    start, deadline_ms = check(nodes, given.start), given.deadline_seconds * 1000
    return Workflow(key, nodes, start, given.description, deadline_ms=deadline_ms)


def _node_of(team: str, given: NodeConfig) -> Node:
    return Node(
        given.name or given.job or given.event or (given.wait_for or ""),
        key_of(team, given.job) if given.job else "",
        tuple(After(after.node, after.on, after.result) for after in given.after),
        given.join,
        given.wait_for,
        given.event,
        given.deadline_seconds * 1000,
    )


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
        deadline_seconds=workflow.deadline_ms // 1000,
        changed_at=workflow.changed_ms,
        skipped=workflow.skipped,
        last_run=_summary(last) if last is not None else None,
    )


def _node(node: Node) -> WorkflowNodeView:
    return WorkflowNodeView(
        name=node.name,
        job=split_key(node.job)[1] if node.job else "",
        after=[AfterView(node=after.node, on=after.on, result=after.result) for after in node.after],
        join=node.join,
        wait_for=node.wait,
        event=node.event,
        deadline_seconds=node.deadline_ms // 1000,
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
        paused=run.paused,
        deadline_seconds=run.deadline_ms // 1000,
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
            answer=_answer_view(one.answer) if one.answer is not None else None,
        )


def _answer_view(answer: Answer) -> AnswerView:
    return AnswerView(succeeded=answer.succeeded, result=answer.result, note=answer.note, by=answer.by, at=answer.at_ms)
