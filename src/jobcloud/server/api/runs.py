"""Runs: the firings of jobs, with their shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from itertools import islice
from typing import Annotated, Any, Literal, cast

import msgspec
from fastapi import Query as Parameter
from pydantic import Field

from jobcloud import triggers
from jobcloud.access.verbs import Verb
from jobcloud.config import (
    DEFAULT_TEAM,
    MAX_CALENDARS_OF_JOB,
    ExcludedDay,
    Job,
    abbreviates,
    is_ad_hoc,
    key_of,
    team_of,
)
from jobcloud.cron import MAX_LENGTH, Dialect, Fold, Gap
from jobcloud.cron_words import Language, describe_timing
from jobcloud.errors import ConfigError, NotFound
from jobcloud.messages import CancelRun, Retry
from jobcloud.model import NO_TERMS, Firing, Outcome, Shard, ShardState, Step, Terms
from jobcloud.scheduler.refusals import no_calendar
from jobcloud.scheduler.shard_joins import Place
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.server.api.authorization import Access, AccessDep
from jobcloud.server.api.convert import ad_hoc_config
from jobcloud.server.api.paging import MATCH, MAX_MATCH, Listing, PageQuery, PageView, shard_bytes
from jobcloud.server.api.schema import AdHocConfig, GivenInstant, Instant, KeyFilter, Query, RunId, TeamFilter, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.snapshot import Snapshot
from jobcloud.server.routes import Routes
from jobcloud.triggers import MAX_BLACKOUTS, MAX_TRIGGERS, Days, Times, Timing

router = Routes(tags=["runs"])

_RUNS = Listing("runs", (int, str))
_SHARDS = Listing("shards", (int,))

# Shards of each run in a list of runs. `GET /runs/{id}` has all of them, in pages.
LISTED_SHARDS = 100

RunState = Literal["WAITING", "ACTIVE", "FINISHED", "FAILED", "KILLED", "CANCELLED", "DEAD"]


class RunSummary(View):
    id: str
    job_name: str = Field(description="the key of the job")
    team: str
    cause: str
    fired_at: Instant
    ended_at: Instant
    state: RunState


class TermsView(View):
    """The values that an operator set for one run, in place of the job's own."""

    job_parameter: str | None = Field(description="null: that of the job")
    sharding_item_parameters: dict[int, str] = Field(description="other shards have those of the job")
    shards: list[int] = Field(description="the shards that run; empty: all shards")
    priority: int | None = Field(description="null: that of the job")
    key: str


class ShardView(View):
    """A shard of a run, with its last attempt."""

    item: int
    step: str = Field(description='"before" or "after" for a call of the run\'s listener; empty for a shard')
    state: str
    attempt: int
    execution: str
    failures: int = Field(description="attempts in a row that the cluster lost")
    retries: int = Field(description="repeats after a failure of the job itself")
    task_id: str
    agent_id: str
    hostname: str
    not_before: Instant = Field(description="the time of the next attempt, if the shard waits for one")
    started_at: Instant
    ended_at: Instant
    message: str
    cause: str = Field(description="the cause of a failure, such as exception or worker_lost; empty if unknown")
    result: Any = Field(description="the return value of the job, or null")


class PlaceView(View):
    """A node in a run of its workflow."""

    run: str = Field(description="the id of the run of the workflow")
    node: str


class RunView(RunSummary):
    shard_count: int
    shard_states: dict[str, int] = Field(description="the number of shards in each state")
    next_attempt: Instant = Field(description="when the first of the shards that wait for another attempt may start")
    shards: list[ShardView] = Field(
        description="the first shards, or those after the cursor; with `state`, only shards in these states"
    )
    item_range: str = Field(description="the range that the shards of the run divide among themselves, or empty")
    terms: TermsView | None = Field(description="what the trigger set in place of the job's own values, or null")
    config: AdHocConfig | None = Field(description="the job of an ad-hoc run; null for other runs, and in lists")
    workflow_nodes: list[PlaceView] = Field(description="the nodes of workflows that have this run; empty in lists")
    next_cursor: str = Field("", description='pass it as "cursor" to get more shards of the run; "" at the end')


class RunList(PageView):
    items: list[RunView] = Field(description=f"with at most {LISTED_SHARDS} shards each")


class FiringTimes(View):
    cron: str
    time_zone: str
    words: str = Field(description="when the expression fires, as one sentence")
    times: list[Instant]
    after_run: bool = Field(description="whether it also fires after the end of each run; these times are not known")


_LISTED = PageQuery(limit=LISTED_SHARDS, cursor="")


class RunQuery(PageQuery):
    job: KeyFilter = ""
    team: TeamFilter = ""
    state: list[RunState] = Field([], max_length=7, description="only runs in one of these states; it may be repeated")
    since: GivenInstant | None = Field(None, description="only runs that fired at this instant or later")
    match: str = Field("", max_length=MAX_MATCH, description=MATCH)


class ShardQuery(PageQuery):
    limit: int = Field(1000, ge=1, le=1000, description="maximum number of shards")
    state: list[RunState] = Field(
        [], max_length=7, description="only shards in one of these states; it may be repeated"
    )


class CronQuery(Query):
    cron: str = Field(
        "", max_length=MAX_LENGTH, json_schema_extra={"format": "cron"}, description="required without `trigger`"
    )
    trigger: list[str] = Field([], max_length=MAX_TRIGGERS, description="a further trigger; it may be repeated")
    start: str = Field("", max_length=MAX_LENGTH, description="the `startTime` of the job")
    end: str = Field("", max_length=MAX_LENGTH, description="the `endTime` of the job")
    blackout: list[str] = Field([], max_length=MAX_BLACKOUTS, description="a blackout; it may be repeated")
    skip_on: list[str] = Field(
        [], alias="skipOn", max_length=MAX_CALENDARS_OF_JOB, description="a calendar; it may be repeated"
    )
    only_on: list[str] = Field(
        [], alias="onlyOn", max_length=MAX_CALENDARS_OF_JOB, description="a calendar; it may be repeated"
    )
    on_excluded_day: ExcludedDay = Field(
        ExcludedDay.SKIP, alias="onExcludedDay", description="`onExcludedDay` of the job"
    )
    team: TeamFilter = Field("", description="the team of the calendars; default: default")
    zone: str = Field("UTC", max_length=100, json_schema_extra={"format": "time-zone"})
    dialect: Dialect = Dialect.QUARTZ
    gap: Gap = Gap.RUN_AFTER
    fold: Fold = Fold.AUTO
    after: int = Field(0, ge=0, lt=1 << 45, description="milliseconds since the Unix epoch; 0: now")
    count: int = Field(5, ge=1, le=100)
    language: Language = Field(Language.EN, description="the language of `words`")


@router.get("/runs")
def list_runs(services: ServicesDep, access: AccessDep, query: Annotated[RunQuery, Parameter()]) -> RunList:
    """Runs with their shards, newest first."""
    teams = access.shown_teams(query.team or team_of(query.job))
    states = frozenset(query.state)

    def chosen(snapshot: Snapshot) -> Iterator[Firing]:
        found = snapshot.newest_runs(query.job, teams, query.since or 0)
        return (run for run in found if (not states or run_state(run) in states) and abbreviates(query.match, run.id))

    found = chosen(services.snapshot()) if query.cursor else services.first(query.limit + 1, chosen)
    items, cursor = _RUNS.page(found, lambda run: (-run.fire_ms, run.id), query, _listed_bytes)
    return RunList(items=[_run_view(run, _LISTED) for run in items], next_cursor=cursor)


@router.get("/runs/{run_id}")
def show_run(services: ServicesDep, run_id: RunId, query: Annotated[ShardQuery, Parameter()]) -> RunView:
    """A run with its shards, in pages."""
    return _show_run(services, run_id, query, frozenset(query.state))


def _show_run(services: Services, run_id: str, query: PageQuery, states: Set[str] = frozenset()) -> RunView:
    snapshot = services.snapshot_of_run(run_id)
    run = find_run(snapshot, run_id)
    places = services.loop.ask(lambda scheduler: scheduler.nodes_run_by(run_id))
    return _run_view(run, query, snapshot.ad_hoc.get(run.job), states, places)


def find_run(snapshot: Snapshot, run_id: str) -> Firing:
    """Raises NotFound."""
    run = snapshot.firings.get(run_id)
    if run is None:
        problem = Told(f"there is no run {run_id[:200]}", "no_run", run=run_id[:200])
        raise NotFound(problem, field="runId", fix=shown_by("jobcloud runs", "shows all runs"))
    return run


@router.post("/runs/{run_id}/retry", status_code=202)
def retry_run(
    services: ServicesDep,
    run_id: RunId,
    item: Annotated[int | None, Parameter(ge=0, description="only this shard")] = None,
) -> RunView:
    """Start the DEAD, FAILED and KILLED shards of a run again. Their failures and retries count from zero."""
    services.command(lambda at: Retry(at, run_id, item))
    return _show_run(services, run_id, _LISTED)


@router.post("/runs/{run_id}/cancel", status_code=202)
def cancel_run(services: ServicesDep, run_id: RunId) -> RunView:
    """End a run: its running shards are killed and not repeated, and its waiting shards are CANCELLED."""
    services.command(lambda at: CancelRun(at, run_id))
    return _show_run(services, run_id, _LISTED)


@router.get("/cron/next")
def next_firings(services: ServicesDep, access: AccessDep, query: Annotated[CronQuery, Parameter()]) -> FiringTimes:
    """The next fire times of a cron expression and of the other fields that set the times of a job; also in words.

    To name calendars, you need the right to view their team.
    """
    timing = triggers.timing(
        query.cron, query.trigger, query.start, query.end, query.blackout,
        zone=query.zone, dialect=query.dialect, gap=query.gap, fold=query.fold,
    )  # fmt: skip
    firings: Times = timing
    if query.skip_on or query.only_on:
        firings = _on_days(services, access, query, timing)
    times = firings.between(query.after or services.clock(), 1 << 45, query.count)
    words = describe_timing(
        timing,
        query.start,
        query.end,
        query.blackout,
        query.language,
        skip_on=query.skip_on,
        only_on=query.only_on,
        moved=query.on_excluded_day.value
        if firings is not timing and query.on_excluded_day is not ExcludedDay.SKIP
        else "",
    )
    return FiringTimes(
        cron=query.cron, time_zone=query.zone, words=words, times=list(times), after_run=timing.after_run
    )


def _on_days(services: Services, access: Access, query: CronQuery, timing: Timing) -> Times:
    """The fire times on the days that the calendars of a query allow. Raises ConfigError, and Problem (forbidden)."""
    team = query.team or DEFAULT_TEAM
    access.require(Verb.VIEW, team)

    def days(field: str, names: list[str]) -> list[Days]:
        keys = [key_of(team, name) for name in names]
        known = services.loop.ask(lambda scheduler: [scheduler.days.get(key) for key in keys])
        for key, found in zip(keys, known, strict=True):
            if found is None:
                fix = shown_by("jobcloud calendar list", "shows all")
                raise ConfigError(no_calendar(key[:200]), field=field, fix=fix)
        return [found for found in known if found is not None]

    only = days("onlyOn", query.only_on) if query.only_on else None
    return timing.by_calendars(days("skipOn", query.skip_on), only, query.on_excluded_day)


def run_state(firing: Firing) -> RunState:
    """The state of a run as one word. After the end of the run, it is the worst state of the shards."""
    if firing.ended_ms:
        return cast("RunState", firing.worst.value)
    return "WAITING" if {shard.state for shard in firing.chosen} == {ShardState.WAITING} else "ACTIVE"


def run_summary(firing: Firing) -> RunSummary:
    return RunSummary(
        id=firing.id,
        job_name=firing.job,
        team=team_of(firing.job),
        cause="backfill" if firing.terms.backfill else "ad_hoc" if is_ad_hoc(firing.job) else firing.cause,
        fired_at=firing.fire_ms,
        ended_at=firing.ended_ms,
        state=run_state(firing),
    )


def _listed_bytes(firing: Firing) -> int:
    terms = len(msgspec.json.encode(firing.terms)) if firing.terms is not NO_TERMS else 0
    return terms + sum(map(shard_bytes, islice(firing.shards, LISTED_SHARDS)))


def _run_view(
    firing: Firing,
    query: PageQuery,
    ad_hoc: Job | None = None,
    states: Set[str] = frozenset(),
    places: Iterable[Place] = (),
) -> RunView:
    """`states`: only shards in one of these states are shown; empty: all shards."""
    chosen = (numbered for numbered in enumerate(firing.shards) if not states or numbered[1].state in states)
    shards, cursor = _SHARDS.page(
        chosen, lambda numbered: (numbered[0],), query, lambda numbered: shard_bytes(numbered[1])
    )
    return RunView(
        **dict(run_summary(firing)),
        shard_count=len(firing.work),
        shard_states=Counter(shard.state for shard in firing.work),
        next_attempt=0 if firing.ended_ms else _next_attempt(firing),
        shards=[shard_view(item, shard, firing.step(item)) for item, shard in shards],
        item_range=firing.terms.range,
        terms=None if firing.terms.backfill or firing.terms.same(NO_TERMS) else _terms_view(firing.terms),
        config=ad_hoc_config(ad_hoc, firing.terms.key) if ad_hoc is not None else None,
        workflow_nodes=[PlaceView(run=place.run, node=place.node) for place in places],
        next_cursor=cursor,
    )


def _terms_view(terms: Terms) -> TermsView:
    return TermsView(
        job_parameter=terms.parameter,
        sharding_item_parameters=dict(terms.item_parameters),
        shards=list(terms.items),
        priority=terms.priority,
        key=terms.key,
    )


def _next_attempt(firing: Firing) -> int:
    """When the first of the shards that wait for another attempt may start; 0 if there is none."""
    repeated = (shard for shard in firing.shards if shard.attempt and shard.state is ShardState.WAITING)
    return min((shard.not_before_ms for shard in repeated), default=0)


def shard_view(item: int, shard: Shard, step: Step | None) -> ShardView:
    return ShardView(
        item=item,
        step=step or "",
        state=shard.state,
        attempt=shard.attempt,
        execution=shard.execution,
        failures=shard.failures,
        retries=shard.retries,
        task_id=shard.task_id,
        agent_id=shard.agent_id,
        hostname=shard.hostname,
        not_before=shard.not_before_ms,
        started_at=shard.started_ms,
        ended_at=shard.ended_ms,
        message=shard.message,
        cause=shard.outcome.cause,
        result=result_of(shard.outcome),
    )


def result_of(outcome: Outcome) -> Any:
    """The return value of the job as JSON, or None."""
    return json.loads(outcome.result) if outcome.result else None
