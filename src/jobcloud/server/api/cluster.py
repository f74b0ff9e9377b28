"""The cluster: agents, executors, the framework, events, health."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from fastapi import Header, Response
from fastapi import Query as Parameter
from fastapi.responses import StreamingResponse
from pydantic import Field

import jobcloud
from jobcloud import zones
from jobcloud.access.verbs import Verb
from jobcloud.config import team_of
from jobcloud.errors import NotFound
from jobcloud.messages import DrainAgent, SetPaused, UndrainAgent
from jobcloud.model import Executor, ShardState
from jobcloud.scheduler import explain
from jobcloud.scheduler.executors import ExecutorState
from jobcloud.scheduler.launch import package_of
from jobcloud.scheduler.recovery import executor_key
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_LATER
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.events import REMEMBERED
from jobcloud.server.api.health import MAX_PROBLEM, Health, health_view
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import Amounts, Instant, Query, TeamFilter, View, amounts
from jobcloud.server.api.services import JsonObject, Pausing, Services, ServicesDep
from jobcloud.server.api.snapshot import Snapshot, belongs
from jobcloud.server.api.streams import EventStream
from jobcloud.server.routes import Routes

router = Routes()

_EXECUTORS = Listing("executors", (str, str, str))
MAX_FAULTS = 100


class DrainView(View):
    since: Instant
    deadline: Instant
    reason: str


class MaintenanceView(View):
    start: Instant
    end: Instant


class AgentView(View):
    agent_id: str
    hostname: str
    address: str
    attributes: dict[str, str]
    offered: Amounts
    claimed: Amounts
    whole: Amounts = Field(description="the sum of offered and claimed at the time of the last offer")
    offers: int
    roles: list[str] = Field(description="the Mesos roles to which the offers held are allocated")
    executors: list[str]
    lost: bool = Field(description="the agent is unreachable or gone")
    tasks: int
    closed: bool = Field(description="the agent gets no new tasks, because of a drain or maintenance")
    drain: DrainView | None = Field(description="an operator's drain of the agent")
    maintenance: MaintenanceView | None = Field(description="the window of maintenance that Mesos announces")


class FaultView(View):
    path: str
    problem: str


class ClusterView(View):
    framework_id: str
    connected: bool = Field(description="subscribed to a Mesos master")
    paused: bool = Field(description="everything is paused: no shard of any job starts")
    matcher: Literal["compiled", "plain"]
    version: str
    time_zones: str = Field(description="the version of the time zone database, such as 2026f")
    team_roles: dict[str, str] = Field(
        description="the Mesos role of each team that has one: its offers are for these teams alone, and they get no "
        "others (`mesos.team_roles`)"
    )
    agents: list[AgentView]
    apps: int
    jobs: int
    active_tasks: int
    waiting_shards: int
    faults: list[FaultView] = Field(description=f"the first {MAX_FAULTS} stored records that cannot be read or written")


class ExecutorView(View):
    id: str
    agent_id: str
    hostname: str
    app_name: str = Field(description="the key of the app")
    team: str
    tasks: int
    kept: bool = Field(description="true for a warm executor, which stays without work")
    launched_at: Instant
    package_sha256: str = Field(description="the package that it runs; empty if it is not known")
    state: ExecutorState = Field(
        description="current: new tasks of the app join it. outdated: it runs another version of the app or of "
        "jobcloud. gone: it has ended, and the last updates of its tasks have not arrived"
    )


class ExecutorList(PageView):
    items: list[ExecutorView]


class ExecutorQuery(PageQuery):
    team: TeamFilter = Field("", description="only executors of this team's apps")


class TeardownView(View):
    framework_id: str


_CONFIRMATION = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"confirm": {"type": "string", "description": "the framework id"}},
                    "required": ["confirm"],
                    "additionalProperties": False,
                }
            }
        },
    }
}


class EventQuery(Query):
    recent: int = Field(0, ge=0, le=REMEMBERED, description="begin with so many of the newest notices")
    follow: bool = Field(True, description="false: end after the notices that are there")


class DrainQuery(Query):
    deadline: int = Field(0, ge=0, le=30 * 86_400, description="seconds from now; 0: 600")
    reason: str = Field("", max_length=1000)


@router.get("/executors", tags=["cluster"])
def list_executors(services: ServicesDep, query: Annotated[ExecutorQuery, Parameter()]) -> ExecutorList:
    """Executors, by app and agent."""
    hosts = {agent.id: agent.hostname for agent in services.agents()}
    snapshot = services.snapshot()
    teams = (query.team,) if query.team else None
    executors = sorted((one for one in snapshot.executors if belongs(one.app, teams)), key=_executor_place)
    found, cursor = _EXECUTORS.page(executors, _executor_place, query)
    return ExecutorList(items=_executor_views(snapshot, hosts, found), next_cursor=cursor)


@router.get("/cluster", tags=["cluster"])
def show_cluster(services: ServicesDep) -> ClusterView:
    snapshot, agents = services.snapshot(), services.agents()
    waiting = sum(
        shard.state is ShardState.WAITING for run in snapshot.firings.values() if not run.ended_ms for shard in run.work
    )
    return ClusterView(
        framework_id=services.framework_id(),
        connected=services.loop.health().connected,
        paused=bool(snapshot.paused_by()),
        matcher=snapshot.matcher,
        version=jobcloud.__version__,
        time_zones=zones.version(),
        team_roles=dict(sorted(services.team_roles().items())),
        agents=[_agent_view(agent) for agent in sorted(agents, key=lambda agent: (agent.hostname, agent.id))],
        apps=len(snapshot.apps),
        jobs=len(snapshot.jobs),
        active_tasks=sum(not task.placeholder for task in snapshot.tasks.values()),
        waiting_shards=waiting,
        faults=[
            FaultView(path=fault.path[:MAX_PROBLEM], problem=fault.problem[:MAX_PROBLEM])
            for fault in services.loop.health().faults[:MAX_FAULTS]
        ],
    )


@router.post("/cluster/{pausing:pausing}", tags=["cluster"])
def pause_everything(services: ServicesDep, pausing: Pausing) -> ClusterView:
    """Pause or resume everything. While it is paused, no shard of any job starts. Running shards continue."""
    services.command(lambda at: SetPaused(at, pausing == "pause"))
    return show_cluster(services)


@router.post("/agents/{agent}/drain", tags=["cluster"])
def drain_agent(services: ServicesDep, agent: str, query: Annotated[DrainQuery, Parameter()]) -> AgentView:
    """Drain an agent, named by its id or host name. It gets no new tasks.

    Resident shards move to other agents. Transient shards may end by themselves. At the deadline, a transient
    shard that still runs is killed and starts again elsewhere, if its job has failover.
    """
    seconds = query.deadline
    services.command(lambda at: DrainAgent(at, agent, at + seconds * 1000 if seconds else 0, query.reason))
    return _find_agent(services, agent)


@router.post("/agents/{agent}/undrain", tags=["cluster"])
def undrain_agent(services: ServicesDep, agent: str) -> AgentView:
    """End an operator's drain, so that the agent gets tasks again. A drain or maintenance by Mesos itself continues."""
    services.command(lambda at: UndrainAgent(at, agent))
    return _find_agent(services, agent)


@router.post("/framework/teardown", status_code=202, tags=["cluster"], openapi_extra=_CONFIRMATION)
def tear_down(services: ServicesDep, body: JsonObject) -> TeardownView:
    """Remove the framework from Mesos, which kills all its tasks. Takes `{"confirm": "<framework id>"}`."""
    framework_id = services.framework_id()
    if services.teardown is None or not framework_id:
        raise Problem("unavailable", "There is no framework to tear down: the scheduler has not registered with Mesos.")
    if body != {"confirm": framework_id}:
        fix = f'send {{"confirm": "{framework_id}"}} to kill all its tasks'
        raise invalid([Issue("confirm", "does not name this framework", fix)])
    services.teardown()
    return TeardownView(framework_id=framework_id)


@router.get("/events", tags=["events"], response_class=StreamingResponse)
async def stream_events(
    services: ServicesDep,
    access: AccessDep,
    query: Annotated[EventQuery, Parameter()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """Notices of the scheduler as server-sent events, from now on. Last-Event-ID continues a stream.

    Notices about apps and jobs are for those who may view the team, all others for those who may view the cluster.
    """
    sees = access.filter()
    events = services.notices.stream(
        last_event_id, query.recent, lambda notice: sees(notice.job or notice.app), follow=query.follow
    )
    return EventStream(events, services.notices.places)


@router.get("/health", tags=["health"], responses={503: {"model": Health}})
async def show_health(services: ServicesDep, access: AccessDep, response: Response) -> Health:
    """Whether the scheduler leads, is connected, and has worked since its last failure. Needs no token.

    The texts of problems and warnings are for those who may view the cluster. They may name hosts and files.
    """
    health = services.loop.health()
    response.status_code = 200 if health.well else 503
    return health_view(health, services.warnings(), detailed=access.allows(Verb.VIEW_CLUSTER))


def _find_agent(services: Services, name: str) -> AgentView:
    """Raises NotFound if the agent has not been offered since this leader took over."""
    found = next((agent for agent in services.agents() if name in (agent.id, agent.hostname)), None)
    if found is None:
        problem = Told(f"agent {name[:200]} has made no offer yet", "no_offer_yet", agent=name[:200])
        raise NotFound(problem, field="agentId", fix=TRY_LATER)
    return _agent_view(found)


def _agent_view(agent: explain.AgentView) -> AgentView:
    drain, window = agent.drain, agent.window
    return AgentView(
        agent_id=agent.id,
        hostname=agent.hostname,
        address=agent.address,
        attributes=dict(agent.attributes),
        offered=amounts(agent.offered),
        claimed=amounts(agent.claimed),
        whole=amounts(agent.whole),
        offers=agent.offers,
        roles=list(agent.roles),
        executors=list(agent.executors),
        lost=agent.lost,
        tasks=agent.tasks,
        closed=agent.cordoned,
        drain=DrainView(since=drain.since_ms, deadline=drain.deadline_ms, reason=drain.reason) if drain else None,
        maintenance=MaintenanceView(start=window.start_ms, end=window.end_ms) if window else None,
    )


def _executor_place(executor: Executor) -> tuple[str, str, str]:
    return executor.app, executor.agent_id, executor.id


def _executor_views(snapshot: Snapshot, hosts: Mapping[str, str], executors: Iterable[Executor]) -> list[ExecutorView]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    warm: set[tuple[str, str]] = set()
    for task in snapshot.tasks.values():
        if task.placeholder:
            warm.add((task.agent_id, task.executor_id))
        else:
            counts[task.agent_id, task.executor_id] += 1
    return [
        ExecutorView(
            id=executor.id,
            agent_id=executor.agent_id,
            hostname=hosts.get(executor.agent_id, ""),
            app_name=executor.app,
            team=team_of(executor.app),
            tasks=counts[executor.agent_id, executor.id],
            kept=(executor.agent_id, executor.id) in warm,
            launched_at=executor.launched_ms,
            package_sha256=package_of(executor),
            state=snapshot.executor_states[executor_key(executor.agent_id, executor.id)],
        )
        for executor in executors
    ]
