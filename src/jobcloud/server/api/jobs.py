"""Jobs: registration, enabling, triggers, explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from jobcloud.config import App, Job, JobKind, split_key, team_of
from jobcloud.errors import ConfigError
from jobcloud.messages import BackfillJob, CancelBackfill, PutJob, RemoveJob, SetJobEnabled, SetPaused, Trigger
from jobcloud.model import Cause, Firing, ShardState, Terms
from jobcloud.scheduler import backfills, revisions
from jobcloud.scheduler.explain import Explanation
from jobcloud.server.api.convert import check_same_name, job_config, read_backfill, read_job, read_trigger
from jobcloud.server.api.paging import Listing, PageQuery, PageView, config_bytes
from jobcloud.server.api.patch import Patch, change, fresh, patch_body, patched
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.rules import objects_of
from jobcloud.server.api.runs import RunSummary, run_state, run_summary
from jobcloud.server.api.schema import (
    BackfillConfig,
    Instant,
    JobConfig,
    Key,
    KeyFilter,
    Quantity,
    TeamFilter,
    TriggerConfig,
    View,
)
from jobcloud.server.api.services import (
    JsonObject,
    OptionalJsonObject,
    Pausing,
    Services,
    ServicesDep,
    Switch,
    TraceParent,
    json_body,
)
from jobcloud.server.api.snapshot import Pausable, Snapshot
from jobcloud.server.modules import missing_object

router = APIRouter(tags=["jobs"])

_JOBS = Listing("jobs", (str,))


class JobView(Revised):
    job_name: str = Field(description="the key of the job")
    team: str
    app_name: str = Field(description="the key of its app")
    enabled: bool = Field(description="neither the job nor its app is disabled")
    disabled: bool = Field(description="the job itself is disabled")
    paused_by: list[Pausable] = Field(description="what is paused: the job, its app, or everything")
    next_firing: Instant
    waiting_shards: int
    active_shards: int
    outdated_shards: int = Field(description="active shards of a DAEMON job with an earlier configuration; see explain")
    last_run: RunSummary | None
    backfill_waiting: int = Field(description="past fire times that wait for their runs: see backfill")
    skipped_firings: int
    skipped_reason: str
    dead_runs: int = Field(description="runs with shards that have used up their attempts: GET /runs?state=DEAD")
    config: JobConfig


class JobList(PageView):
    items: list[JobView]


class JobQuery(PageQuery):
    app: KeyFilter = Field("", description="only jobs of this app")
    team: TeamFilter = Field("", description="only jobs of this team")


class StartedRun(RunSummary):
    existed: bool = Field(description="a request with the same key had made the run before; this one started nothing")


class BackfillView(View):
    job_name: str = Field(description="the key of the job")
    team: str
    dry_run: bool
    times: list[Instant] = Field(description="the fire times that get a run, in the order of the runs")
    more: bool = Field(description="further fire times of the range have no run; the limit left them out")
    waiting: int = Field(description="fire times of the job that wait for their runs, those of earlier backfills too")


class ReasonView(View):
    code: str
    text: str
    resource: str
    asked: Quantity
    available: Quantity
    hosts: int
    waiting_helps: bool
    until: Instant = Field(description="when the reason ends, such as the time of the next attempt; null if unknown")


class ExplanationView(View):
    job_name: str = Field(description="the key of the job")
    team: str
    headline: str
    waiting: int
    active: int
    behind: int = Field(description="firings that wait for the end of the explained one")
    next_firing: Instant
    reasons: list[ReasonView]


@router.get("/jobs")
def list_jobs(services: ServicesDep, query: Annotated[JobQuery, Parameter()]) -> JobList:
    """Jobs, by key."""
    team_of_app, name_of_app = split_key(query.app)

    def wanted(job: Job) -> bool:
        in_app = not query.app or (job.app == name_of_app and job.team == team_of_app)
        return in_app and query.team in ("", job.team)

    snapshot = services.snapshot_of_jobs(wanted)
    keys = sorted(key for key, job in snapshot.jobs.items() if wanted(job))
    found, cursor = _JOBS.page(keys, lambda key: (key,), query, lambda key: config_bytes(snapshot.jobs[key]))
    runs = snapshot.runs_by_job(found)
    return JobList(items=[_job_view(snapshot, key, runs[key]) for key in found], next_cursor=cursor)


@router.post("/jobs", status_code=201, openapi_extra=json_body(JobConfig))
def create_job(
    services: ServicesDep,
    body: JsonObject,
    response: Response,
    enabled: Annotated[bool, Parameter(description="false: the job does not fire until it is enabled")] = True,
) -> JobView:
    job = read_job(body, services.options.job_urls)
    check_code(services, job, services.snapshot().apps.get(job.app_key))
    services.command(lambda at: PutJob(at, job, enabled=enabled))
    response.headers["Location"] = f"/api/v1/jobs/{job.key}"
    view = _find_job(services, job.key)
    mark(response, view)
    return view


@router.get("/jobs/{job}", response_model=JobView, dependencies=[SEEN])
def show_job(services: ServicesDep, job: Key, request: Request) -> Response:
    return shown(request, _find_job(services, job))


@router.put("/jobs/{job}", openapi_extra=json_body(JobConfig))
def replace_job(services: ServicesDep, job: Key, body: JsonObject, expected: Expected, response: Response) -> JobView:
    view = _replace(services, job, body, expected)
    mark(response, view)
    return view


@router.patch("/jobs/{job}", openapi_extra=patch_body(JobConfig))
async def change_job(services: ServicesDep, job: Key, patch: Patch, expected: Expected, response: Response) -> JobView:
    """Change single fields of a job. Null restores the default of a field."""
    view = await change(lambda: run_in_threadpool(_change, services, job, patch, expected), expected)
    mark(response, view)
    return view


@router.delete("/jobs/{job}", status_code=204)
def remove_job(services: ServicesDep, job: Key, expected: Expected) -> None:
    services.command(lambda at: RemoveJob(at, job, expected))


@router.post("/jobs/{job}/trigger", status_code=202, openapi_extra=json_body(TriggerConfig, required=False))
def trigger_job(
    services: ServicesDep, job: Key, body: OptionalJsonObject, response: Response, traceparent: TraceParent = ""
) -> StartedRun:
    """Fire a TRANSIENT job now. The answer is the new run.

    If a run was triggered with the same key before, the answer is that run, with status 200.
    """
    before = services.snapshot_of(job)
    terms = read_trigger(body, before.job(job), traceparent)
    at = services.command(lambda at: Trigger(at, job, terms))
    found = [run for run in services.snapshot_of(job).runs(job) if run.cause is Cause.TRIGGER and run.terms.same(terms)]
    return started_run(found, before, at, terms, response)


def started_run(found: list[Firing], before: Snapshot, at: int, terms: Terms, response: Response) -> StartedRun:
    """The answer to a request that has started a run. `found`: the runs with its terms, `at`: its instant.

    The status is 200 if the run has existed `before`. Raises Problem if the run no longer exists.
    """
    if not terms.key:
        found = [run for run in found if run.fire_ms == at and run.id not in before.firings]
    if not found:
        raise Problem("unavailable", "The run was started, but no longer exists.")
    existed = found[0].fire_ms != at or found[0].id in before.firings
    if existed:
        response.status_code = 200
    return StartedRun(**dict(run_summary(found[0])), existed=existed)


@router.get("/jobs/{job}/explain")
def explain_job(services: ServicesDep, job: Key) -> ExplanationView:
    """The reasons why the job's shards are running or waiting."""
    explanation, next_firing = services.explain(job)
    return _explanation_view(explanation, next_firing)


@router.post("/jobs/{job}/{switch:switch}")
def switch_job(services: ServicesDep, job: Key, switch: Switch) -> JobView:
    services.command(lambda at: SetJobEnabled(at, job, switch == "enable"))
    return _find_job(services, job)


@router.post("/jobs/{job}/{pausing:pausing}")
def pause_job(services: ServicesDep, job: Key, pausing: Pausing) -> JobView:
    """Pause or resume a job. While it is paused, nothing of it starts. Its running shards continue."""
    services.command(lambda at: SetPaused(at, pausing == "pause", job=job))
    return _find_job(services, job)


@router.post("/jobs/{job}/backfill", openapi_extra=json_body(BackfillConfig))
def backfill_job(services: ServicesDep, job: Key, body: JsonObject) -> BackfillView:
    """Make runs for the past fire times of a job that have none, one after another. It may be repeated."""
    given, snapshot, now = read_backfill(body), services.snapshot_of(job), services.clock()
    known = backfills.fire_times(snapshot.runs(job), snapshot.backfills.get(job))
    config = snapshot.job(job)
    until = min(now if given.to is None else given.to, now, snapshot.states[job].considered_ms)
    if given.to is not None and given.from_ > given.to:
        raise ConfigError("is later than `to`", field="from", fix="exchange them")
    newest_first = given.order == "newest"
    times, more = backfills.missing(config, known, given.from_, until, given.limit, newest_first=newest_first)
    if not given.dry_run:
        services.command(lambda at: BackfillJob(at, job, times, given.at_once))
        snapshot = services.snapshot_of(job)
    return BackfillView(
        job_name=job,
        team=team_of(job),
        dry_run=given.dry_run,
        times=list(times),
        more=more,
        waiting=_backfill_waiting(snapshot, job),
    )


@router.delete("/jobs/{job}/backfill", status_code=204)
def cancel_backfill(services: ServicesDep, job: Key) -> None:
    """Forget the fire times that wait for a backfill. Runs that have begun continue."""
    services.command(lambda at: CancelBackfill(at, job))


def _change(services: Services, job: str, patch: Mapping[str, Any], expected: tuple[str, ...] | None) -> JobView:
    known = services.snapshot().job(job)
    return _replace(services, job, patched(job_config(known), patch), fresh(known, expected))


def _replace(services: Services, job: str, body: Mapping[str, Any], expected: tuple[str, ...] | None) -> JobView:
    given = read_job(body, services.options.job_urls)
    check_same_name("jobName", job, given)
    check_code(services, given, services.snapshot().apps.get(given.app_key))
    services.command(lambda at: PutJob(at, given, replace=True, expected=expected))
    return _find_job(services, job)


def check_code(services: Services, job: Job, app: App | None) -> None:
    """Raises ConfigError if it is certain that a worker of its app cannot load the job.

    A job of an app with a bootstrap script is not checked.
    """
    if app is None or app.bootstrap_script:
        return
    package = services.packages.find(app.package.sha256)
    for field, name in objects_of(job):
        if "." not in name and ":" not in name:
            raise ConfigError(f"{name[:80]!r} names no module", field=field, fix="package.module:Name")
        if package is not None and (problem := missing_object(package, name)):
            raise ConfigError(
                f"{name[:200]} is not in the package of app {app.key}: {problem}",
                field=field,
                fix="correct the name, or update the app first",
            )


def _find_job(services: Services, job: str) -> JobView:
    """Raises NotFound."""
    snapshot = services.snapshot_of(job)
    return _job_view(snapshot, job, snapshot.runs(job))


def _job_view(snapshot: Snapshot, key: str, runs: Sequence[Firing]) -> JobView:
    """`runs` are the job's runs, newest first. Raises NotFound."""
    job, state = snapshot.job(key), snapshot.states[key]
    shards = [shard.state for run in runs if not run.ended_ms for shard in run.work]
    return JobView(
        revision=revisions.of_record(job),
        job_name=key,
        team=job.team,
        app_name=job.app_key,
        enabled=not state.disabled and job.app_key not in snapshot.disabled_apps,
        disabled=state.disabled,
        paused_by=snapshot.paused_by(job=key, app=job.app_key),
        next_firing=snapshot.next_firings.get(key, 0),
        waiting_shards=shards.count(ShardState.WAITING),
        active_shards=shards.count(ShardState.ACTIVE),
        outdated_shards=_outdated(snapshot, job, runs),
        last_run=run_summary(runs[0]) if runs else None,
        backfill_waiting=_backfill_waiting(snapshot, key),
        skipped_firings=state.skipped,
        skipped_reason=state.skipped_reason,
        dead_runs=sum(run_state(run) == "DEAD" for run in runs),
        config=job_config(job),
    )


def _backfill_waiting(snapshot: Snapshot, job: str) -> int:
    found = snapshot.backfills.get(job)
    return len(found.times) if found else 0


def _outdated(snapshot: Snapshot, job: Job, runs: Sequence[Firing]) -> int:
    if job.kind is not JobKind.DAEMON:
        return 0
    generation, app = snapshot.states[job.key].generation, snapshot.apps.get(job.app_key)
    current = [run for run in runs if not run.ended_ms and run.generation == generation]
    return sum(
        task.item < job.shard_count for run in current for task in revisions.outdated(job, app, run, snapshot.tasks)
    )


def _explanation_view(explanation: Explanation, next_firing: int | None) -> ExplanationView:
    reasons = [
        ReasonView(
            code=reason.code,
            text=reason.text,
            resource=reason.resource,
            asked=reason.asked,
            available=reason.available,
            hosts=reason.hosts,
            waiting_helps=reason.waiting_helps,
            until=reason.at,
        )
        for reason in explanation.reasons
    ]
    return ExplanationView(
        job_name=explanation.job,
        team=team_of(explanation.job),
        headline=explanation.headline,
        waiting=explanation.waiting,
        active=explanation.active,
        behind=explanation.behind,
        next_firing=next_firing or 0,
        reasons=reasons,
    )
