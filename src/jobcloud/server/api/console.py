"""The reads of a console: the overview, the queue, and the stream of changes."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Header, Response
from fastapi import Query as Parameter
from fastapi.responses import StreamingResponse
from pydantic import Field

from jobcloud.config import Job, team_of
from jobcloud.errors import NotFound
from jobcloud.model import Firing
from jobcloud.scheduler.queue import waiting_since
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.cluster import EventQuery
from jobcloud.server.api.overviews import Overview
from jobcloud.server.api.paging import Listing, PageQuery, PageView, Place
from jobcloud.server.api.reasons import ReasonView, reason_view
from jobcloud.server.api.schema import Instant, TeamFilter, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.snapshot import belongs
from jobcloud.server.api.streams import EventStream
from jobcloud.server.routes import Routes

router = Routes()

_QUEUE = Listing("queue", (int, str))
# The reasons of each job of a page are asked for on the scheduler's thread.
_MAX_JOBS = 50
# Later than each instant: jobs that have waited for an unknown time come last.
_UNKNOWN = 1 << 60
_ABOUT_TO_START = "it is about to be placed"


class WaitingJob(View):
    job_name: str = Field(description="the key of the job")
    team: str
    priority: int = Field(description="of the run that waits longest")
    waiting: int = Field(description="waiting shards")
    ready: int = Field(description="the waiting shards that wait only for resources")
    oldest_wait: Instant = Field(
        description="since when the shard that waits longest may start; later than now if it waits for its next "
        "attempt, null if unknown"
    )
    code: str = Field(description="the code of the first reason, as in explain; empty if the job is about to start")
    reason: str = Field(description="the first reason why shards of the job wait, as in explain")
    because: ReasonView | None = Field(description="this reason with its parameters; null if the job is about to start")


class QueueList(PageView):
    items: list[WaitingJob]
    total: int = Field(description="the number of jobs with waiting shards")


class QueueQuery(PageQuery):
    limit: int = Field(_MAX_JOBS, ge=1, le=_MAX_JOBS, description="maximum number of items")
    team: TeamFilter = Field("", description="only jobs of this team")


class _Waiting(NamedTuple):
    """The waiting shards of a job. `oldest` is the run that has waited longest, since `since_ms`."""

    since_ms: int
    oldest: Firing
    number: int


@router.get("/queue", tags=["jobs"])
def show_queue(services: ServicesDep, access: AccessDep, query: Annotated[QueueQuery, Parameter()]) -> QueueList:
    """The jobs with waiting shards, the longest wait first, each with the first reason."""
    teams = access.shown_teams(query.team)
    firings, jobs = services.loop.ask(lambda scheduler: (scheduler.queue.waiting_firings(), scheduler.jobs.copy()))
    found: dict[str, _Waiting] = {}
    for firing, number, item in firings:
        if not belongs(firing.job, teams):
            continue
        since = waiting_since(firing, item)
        waiting = _Waiting(_UNKNOWN if since is None else since, firing, number)
        known = found.get(firing.job)
        if known is not None:
            waiting = min(known, waiting, key=lambda each: each.since_ms)._replace(number=known.number + number)
        found[firing.job] = waiting

    def place(key: str) -> Place:
        return found[key].since_ms, key

    keys, cursor = _QUEUE.page(sorted(found, key=place), place, query)
    items = [_waiting_job(services, key, found[key], jobs.get(key)) for key in keys]
    return QueueList(items=[item for item in items if item is not None], next_cursor=cursor, total=len(found))


def _waiting_job(services: Services, key: str, waiting: _Waiting, job: Job | None) -> WaitingJob | None:
    """None if the job was removed meanwhile. Each job is a question of its own, so that events need not wait long."""
    now = services.clock()
    try:
        ready, reason = services.loop.ask(lambda scheduler: scheduler.waits(key, now))
    except NotFound:
        return None
    given = waiting.oldest.terms.priority
    return WaitingJob(
        job_name=key,
        team=team_of(key),
        priority=given if given is not None else job.priority if job is not None else 0,
        waiting=waiting.number,
        ready=ready,
        oldest_wait=0 if waiting.since_ms == _UNKNOWN else waiting.since_ms,
        code=reason.code if reason is not None else "",
        reason=reason.text if reason is not None else _ABOUT_TO_START,
        because=reason_view(reason) if reason is not None else None,
    )


@router.get("/overview", tags=["cluster"])
def show_overview(services: ServicesDep, access: AccessDep) -> Overview:
    """The numbers of the teams that the sender may view, and the state of the cluster. They may be half a second old.

    If the numbers take more than 10 ms to compute, they may be older, but at most 5 s.
    """
    return services.overviews.overview(access.rights())


@router.get("/changes", tags=["events"], response_class=StreamingResponse)
async def stream_changes(
    services: ServicesDep,
    access: AccessDep,
    query: Annotated[EventQuery, Parameter()],
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> Response:
    """The changes, as server-sent events: at most two a second, however many notices there are.

    It has the teams that the sender may view. Agents, and notices about neither an app nor a job, are for those who may
    view the cluster. Last-Event-ID continues a stream.
    """
    access.rights()  # asks before the stream starts, and the stream asks again
    events = services.digests.stream(access.rights, last_event_id, query.recent, follow=query.follow)
    return EventStream(events, services.digests.places)
