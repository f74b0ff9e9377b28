"""The history: ended runs and attempts from the SQL database, and statistics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from jobcloud.access.verbs import Verb
from jobcloud.config import team_of
from jobcloud.errors import Unavailable
from jobcloud.history.answers import By, Found, Quantiles, Statistics, Wanted
from jobcloud.sentences import Told
from jobcloud.server.api.authorization import Access, AccessDep
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.schema import GivenInstant, Instant, KeyFilter, Query, TeamFilter, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.routes import Routes

if TYPE_CHECKING:
    from jobcloud.history.queries import Reader

router = Routes(tags=["history"])

_RUNS = Listing("history/runs", (str,))
_ATTEMPTS = Listing("history/attempts", (str,))
_EVENTS = Listing("history/events", (str,))
_CONFIGURATIONS = Listing("history/configurations", (str,))
_DAY_MS = 86_400_000
RunEnd = Literal["FINISHED", "FAILED", "KILLED", "CANCELLED", "DEAD"]
AttemptEnd = Literal["SUCCEEDED", "FAILED", "KILLED", "LOST", "NOT_STARTED", "INVALID", "REPLACED"]


class PastRun(View):
    id: str
    job_name: str = Field(description="the key of the job")
    app_name: str = Field(description="the key of the app; empty if the job was removed before the run ended")
    team: str
    cause: str
    state: str
    fired_at: Instant
    ended_at: Instant
    shard_count: int
    shard_states: dict[str, int] = Field(description="the number of shards in each state")


class PastAttempt(View):
    task_id: str
    run_id: str
    job_name: str = Field(description="the key of the job")
    app_name: str = Field(description="the key of the app")
    team: str
    item: int
    step: str = Field(description='"before" or "after" for a call of the run\'s listener; empty for a shard')
    attempt: int
    execution: str
    run_cause: str
    agent_id: str
    hostname: str
    executor_id: str
    outcome: str = Field(description="SUCCEEDED, FAILED, KILLED, LOST, NOT_STARTED, INVALID or REPLACED")
    cause: str = Field(description="the cause of a failure, such as exception or worker_lost; empty if unknown")
    message: str
    fired_at: Instant
    created_at: Instant = Field(description="the launch; null if it is unknown")
    started_at: Instant
    ended_at: Instant
    queued_seconds: float | None = Field(description="from the time when the shard could start until the launch")
    duration_seconds: float | None = Field(description="from the start to the end; null if it never started")
    cpu_count: float
    memory_mb: float
    result_bytes: int


class PastEvent(View):
    at: str = Field(description="in UTC")
    task_id: str
    state: str
    source: str
    execution: str
    message: str


class PastConfiguration(View):
    kind: Literal["app", "job"]
    key: str = Field(description="the key of the app or the job")
    team: str
    at: Instant
    by: str = Field(description="the subject who made the change; empty if unknown")
    revision: str = Field(description="as in the ETag of the app or the job")
    removed: bool = Field(description="true: the app or the job was removed, and this was its last configuration")
    config: dict[str, Any] | None = Field(description="null if it was too large to be kept")


class PastConfigurationList(PageView):
    items: list[PastConfiguration] = Field(description="newest first")


class PastRunList(PageView):
    items: list[PastRun]


class PastAttemptList(PageView):
    items: list[PastAttempt]


class PastEventList(PageView):
    items: list[PastEvent]


class QuantilesView(View):
    """Nearest-rank percentiles in seconds. Null without values."""

    p50: float | None
    p95: float | None
    p99: float | None


class Figures(View):
    """Figures of attempts that ended in a range of time."""

    attempts: int
    succeeded: int
    failed: int = Field(description="attempts that failed or that the cluster lost")
    killed: int
    duration: QuantilesView
    queued: QuantilesView
    cpu_seconds: float = Field(description="the requested CPUs, times the duration; the use is not measured")
    memory_mb_seconds: float = Field(description="the requested megabytes, times the duration")


class StatisticsView(Figures):
    name: str = Field(description="the job, the app or the team; empty for the total")


class StatisticsList(PageView):
    by: str
    since: Instant
    until: Instant
    items: list[StatisticsView]


class FilterQuery(Query):
    team: TeamFilter = Field("", description="at most one of team, app, job and run")
    app: KeyFilter = ""
    job: KeyFilter = ""
    since: GivenInstant | None = Field(None, description="not before this instant, such as 2026-12-01T00:00:00Z")
    until: GivenInstant | None = Field(None, description="before this instant")

    @model_validator(mode="after")
    def _one_filter(self) -> Self:
        if sum(map(bool, (self.team, self.app, self.job, getattr(self, "run", "")))) > 1:
            raise PydanticCustomError("filters", "give at most one of team, app, job and run")
        return self

    def wanted(self, access: Access, *, run: str = "", states: Iterable[str] = ()) -> Wanted:
        """The rows that the sender asks for, and may see. Raises Problem (forbidden)."""
        teams = access.shown_teams(self.team or team_of(self.app or self.job or run))
        named = self.team or self.app or self.job or run
        return Wanted(
            self.team, self.app, self.job, run, tuple(states), self.since or 0, self.until or 0,
            None if named else teams,
        )  # fmt: skip


class HistoryQuery(FilterQuery, PageQuery):
    pass


class PastRunQuery(HistoryQuery):
    state: list[RunEnd] = Field([], max_length=5, description="only runs in one of these states; it may be repeated")


class PastAttemptQuery(HistoryQuery):
    run: str = Field("", max_length=500, description="only attempts of this run")
    outcome: AttemptEnd | None = None


class ConfigurationQuery(HistoryQuery):
    app: KeyFilter = Field("", description="only configurations of this app itself")
    job: KeyFilter = Field("", description="only configurations of this job")


class EventQuery(PageQuery):
    task: str = Field(max_length=500, description="the task id of the attempt")


class StatisticsQuery(HistoryQuery):
    by: By = "job"


@router.get("/history/runs", response_model=PastRunList)
async def list_past_runs(
    services: ServicesDep, access: AccessDep, query: Annotated[PastRunQuery, Parameter()]
) -> Response:
    """Ended runs, newest fire time first."""
    wanted = query.wanted(access, states=query.state)
    behind = place_of(_RUNS, query)

    def ask(reader: Reader) -> PastRunList:
        rows, last = reader.runs(wanted, query.limit, behind)
        return PastRunList(items=[_run(row) for row in rows], next_cursor=cursor_of(_RUNS, last))

    return await answer(services, ask)


@router.get("/history/attempts", response_model=PastAttemptList)
async def list_past_attempts(
    services: ServicesDep, access: AccessDep, query: Annotated[PastAttemptQuery, Parameter()]
) -> Response:
    """Ended attempts, newest end first."""
    wanted = query.wanted(access, run=query.run, states=filter(None, [query.outcome]))
    behind = place_of(_ATTEMPTS, query)

    def ask(reader: Reader) -> PastAttemptList:
        rows, last = reader.attempts(wanted, query.limit, behind)
        return PastAttemptList(items=[_attempt(row) for row in rows], next_cursor=cursor_of(_ATTEMPTS, last))

    return await answer(services, ask)


@router.get("/history/configurations", response_model=PastConfigurationList)
async def list_past_configurations(
    services: ServicesDep, access: AccessDep, query: Annotated[ConfigurationQuery, Parameter()]
) -> Response:
    """The configurations of an app, of a job or of all, newest first. A removal is one of them."""
    wanted = query.wanted(access)
    behind = place_of(_CONFIGURATIONS, query)

    def ask(reader: Reader) -> PastConfigurationList:
        rows, last = reader.configurations(wanted, query.limit, behind)
        items = [_configuration(row) for row in rows]
        return PastConfigurationList(items=items, next_cursor=cursor_of(_CONFIGURATIONS, last))

    return await answer(services, ask)


@router.get("/history/events", response_model=PastEventList)
async def list_past_events(
    services: ServicesDep, access: AccessDep, query: Annotated[EventQuery, Parameter()]
) -> Response:
    """The states of one attempt, oldest first."""
    access.require(Verb.VIEW, team_of(query.task))
    behind = place_of(_EVENTS, query)

    def ask(reader: Reader) -> PastEventList:
        rows, last = reader.events(query.task, query.limit, behind)
        return PastEventList(items=[_event(row) for row in rows], next_cursor=cursor_of(_EVENTS, last))

    return await answer(services, ask)


@router.get("/statistics", response_model=StatisticsList)
async def show_statistics(
    services: ServicesDep, access: AccessDep, query: Annotated[StatisticsQuery, Parameter()]
) -> Response:
    """Statistics of the attempts that ended in a range of time. Default: the last 24 hours."""
    until = query.until or services.clock()
    since = query.since or until - _DAY_MS
    wanted = replace(query.wanted(access), since_ms=since, until_ms=until)
    listing = Listing(f"statistics by {query.by}", (str,))
    behind = place_of(listing, query)

    def ask(reader: Reader) -> StatisticsList:
        found, last = reader.statistics(query.by, wanted, query.limit, behind)
        items = [_statistics(each) for each in found]
        return StatisticsList(by=query.by, since=since, until=until, items=items, next_cursor=cursor_of(listing, last))

    return await answer(services, ask)


async def answer(services: Services, ask: Callable[[Reader], View]) -> Response:
    """The answer to a question, made in a thread for questions. Raises Unavailable."""
    reader = services.history
    if reader is None:
        raise no_history()
    text = await services.questions.ask(lambda: ask(reader).model_dump_json(by_alias=True))
    return Response(text, media_type="application/json")


def no_history() -> Unavailable:
    problem = Told("this scheduler keeps no history", "no_history")
    return Unavailable(problem, fix=Told("set history.url, see docs/history.md", "history_url"))


def place_of(listing: Listing, query: PageQuery) -> str:
    """The place in the database behind which a page begins; "" for the first page. Raises Problem."""
    place = listing.decoded(query.cursor)
    return str(place[0]) if place else ""


def cursor_of(listing: Listing, last: str) -> str:
    return listing.encoded((last,)) if last else ""


def _run(row: Found) -> PastRun:
    states = {name.upper(): row[name] for name in ("finished", "failed", "killed", "cancelled", "dead") if row[name]}
    return PastRun(
        id=row["run_id"],
        job_name=row["job"],
        app_name=row["app"],
        team=row["team"],
        cause=row["cause"],
        state=row["state"],
        fired_at=row["fired_ms"],
        ended_at=row["ended_ms"],
        shard_count=row["shards"],
        shard_states=states,
    )


def _attempt(row: Found) -> PastAttempt:
    same = ("task_id", "run_id", "team", "item", "step", "attempt", "execution", "run_cause", "agent_id", "hostname")
    more = ("executor_id", "outcome", "cause", "message", "result_bytes")
    return PastAttempt(
        **{name: row[name] for name in (*same, *more)},
        job_name=row["job"],
        app_name=row["app"],
        fired_at=row["fired_ms"],
        created_at=row["created_ms"],
        started_at=row["started_ms"],
        ended_at=row["ended_ms"],
        queued_seconds=_seconds(row["queued_ms"]),
        duration_seconds=_seconds(row["duration_ms"]),
        cpu_count=row["cpus"] / 1000,
        memory_mb=row["mem"] / 1000,
    )


def _configuration(row: Found) -> PastConfiguration:
    return PastConfiguration(
        kind=row["kind"],
        key=row["name"],
        team=row["team"],
        at=row["at_ms"],
        by=row["author"],
        revision=row["revision"],
        removed=bool(row["removed"]),
        config=json.loads(row["config"]) if row["config"] else None,
    )


def _event(row: Found) -> PastEvent:
    return PastEvent(
        at=f"{row['creation_time']:%Y-%m-%dT%H:%M:%S.%fZ}",
        task_id=row["task_id"],
        state=row["state"],
        source=row["source"],
        execution=row["execution_type"],
        message=row["message"] or "",
    )


def _statistics(found: Statistics) -> StatisticsView:
    return StatisticsView(name=found.name, **figures(found))


def figures(found: Statistics) -> dict[str, Any]:
    """The values of `Figures`."""
    return {
        "attempts": found.attempts,
        "succeeded": found.succeeded,
        "failed": found.failed,
        "killed": found.killed,
        "duration": _quantiles(found.duration),
        "queued": _quantiles(found.queued),
        "cpu_seconds": round(found.cpu_seconds, 3),
        "memory_mb_seconds": round(found.memory_mb_seconds, 3),
    }


def _quantiles(found: Quantiles | None) -> QuantilesView:
    known: Any = found or Quantiles()
    return QuantilesView(p50=_seconds(known.p50), p95=_seconds(known.p95), p99=_seconds(known.p99))


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
