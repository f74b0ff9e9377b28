"""Jobs: registration, enabling, triggers, explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from jobcloud.access.verbs import Verb
from jobcloud.config import App, Job, JobKind, JobType, parse_labels, parse_secrets, team_of
from jobcloud.errors import ConfigError
from jobcloud.messages import BackfillJob, CancelBackfill, PutJob, RemoveJob, SetJobEnabled, SetPaused, Trigger
from jobcloud.model import Cause, Firing, ShardState, Terms
from jobcloud.scheduler import backfills, revisions
from jobcloud.scheduler.explain import Explanation
from jobcloud.scheduler.fit import Fit
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import not_valid, such_as
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import check_same_name, job_config, read_config, read_job, read_trigger
from jobcloud.server.api.hints import warning_header
from jobcloud.server.api.job_search import JobQuery, look, search
from jobcloud.server.api.paging import PageView, config_bytes
from jobcloud.server.api.patch import Patch, change, fresh, patch_body, patched
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.reasons import ReasonView, reason_views
from jobcloud.server.api.rules import objects_of
from jobcloud.server.api.runs import RunSummary, run_state, run_summary
from jobcloud.server.api.schema import (
    BackfillConfig,
    Instant,
    JobConfig,
    Key,
    Query,
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
from jobcloud.server.api.words import WordsView, words_of
from jobcloud.server.java_packages import java_notes
from jobcloud.server.modules import missing_object
from jobcloud.server.routes import Routes
from jobcloud.server.worker_features import check_features, worker_of

router = Routes(tags=["jobs"])

# Jobs of which the scheduler's thread copies the runs at once, for a list.
_AT_ONCE = 100
_ROW_BYTES = 1_000


class JobState(Revised):
    """A job without its configuration."""

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
    skipped_reason: str = Field(description="why the last ones were skipped, in English")
    skipped_words: WordsView | None = Field(
        description="the same sentence, for clients that tell it in other languages; null if there is none, such as in "
        "a record of an older version"
    )
    dead_runs: int = Field(description="runs with shards that have used up their attempts: GET /runs?state=DEAD")


class JobView(JobState):
    config: JobConfig


class JobRow(JobState):
    kind: JobKind
    cron: str
    owner: str = Field(description="the label owner")
    labels: dict[str, str]
    description: str
    config: JobConfig | None = Field(description="null with brief=true")


class JobList(PageView):
    items: list[JobRow]
    total: int = Field(description="the number of jobs that match, those of other pages included")


class StartedRun(RunSummary):
    existed: bool = Field(description="a request with the same key had made the run before; this one started nothing")


class BackfillView(View):
    job_name: str = Field(description="the key of the job")
    team: str
    dry_run: bool
    times: list[Instant] = Field(description="the fire times that get a run, in the order of the runs")
    more: bool = Field(description="further fire times of the range have no run; the limit left them out")
    waiting: int = Field(description="fire times of the job that wait for their runs, those of earlier backfills too")


class ExplanationView(View):
    job_name: str = Field(description="the key of the job")
    team: str
    headline: str
    waiting: int
    active: int
    behind: int = Field(description="firings that wait for the end of the explained one")
    next_firing: Instant
    reasons: list[ReasonView]


#: Agents of an answer about what would fit. Further agents are only counted.
FIT_AGENTS = 1_000


class FitQuery(Query):
    shards: int = Field(0, ge=0, le=10_000, description="how many further shards; 0: as many as a run of the job has")


class FitAgent(View):
    agent_id: str = Field(description='"" without the right view-cluster')
    hostname: str = Field(description='"" without the right view-cluster')
    shards: int
    new_executor: bool = Field(description="the agent would start an executor of the app for these shards")


class FitView(View):
    """Whether further shards of a job fit on what is offered now. Other waiting shards may take the room before."""

    job_name: str = Field(description="the key of the job")
    team: str
    shards: int = Field(description="how many shards the question is about")
    fits: int = Field(description="how many of them fit now")
    elsewhere: int = Field(
        description="how many more would fit on agents whose resources are not offered now, by their last offers"
    )
    waiting_helps: bool = Field(
        description="all shards fit, or may fit later without a change of the job, its quota or the cluster"
    )
    new_executors: int
    agent_count: int = Field(description="how many agents would take shards")
    agents: list[FitAgent] = Field(description=f"at most {FIT_AGENTS} of them, those with most shards first")
    complete: bool = Field(description="false: the cluster has more agents than one answer looks at")
    reasons: list[ReasonView] = Field(description="why not all shards fit now")
    held: list[ReasonView] = Field(description="why the job starts nothing now, whatever is free")


@router.get("/jobs")
def list_jobs(services: ServicesDep, access: AccessDep, query: Annotated[JobQuery, Parameter()]) -> JobList:
    """Jobs, by key or in another order."""
    teams = access.shown_teams(query.team or team_of(query.app))
    facts = services.loop.ask(lambda scheduler: look(scheduler, query))
    found = search(facts, query, teams, _brief_bytes if query.brief else config_bytes)
    items = []
    for first in range(0, len(found.keys), _AT_ONCE):
        snapshot = services.snapshot_of_some(found.keys[first : first + _AT_ONCE])
        runs = snapshot.runs_by_job(snapshot.jobs)
        # A job may have been removed since the search.
        items += [_job_row(snapshot, key, runs[key], brief=query.brief) for key in snapshot.jobs]
    return JobList(items=items, next_cursor=found.cursor, total=found.total)


@router.post("/jobs", status_code=201, openapi_extra=json_body(JobConfig))
def create_job(
    services: ServicesDep,
    access: AccessDep,
    body: JsonObject,
    response: Response,
    enabled: Annotated[bool, Parameter(description="false: the job does not fire until it is enabled")] = True,
) -> JobView:
    job = read_job(body, services.options.job_urls)
    access.require(Verb.CONFIGURE, job.team)
    check_code(services, job, services.snapshot().apps.get(job.app_key))
    check_secrets(services, [job])
    services.command(lambda at: PutJob(at, job, enabled=enabled))
    response.headers["Location"] = f"/api/v1/jobs/{job.key}"
    response.headers.update(_hints(services, job.key))
    view = _find_job(services, job.key)
    mark(response, view)
    return view


@router.get("/jobs/{job}", response_model=JobView, dependencies=[SEEN])
def show_job(services: ServicesDep, job: Key, request: Request) -> Response:
    return shown(request, _find_job(services, job))


@router.put("/jobs/{job}", openapi_extra=json_body(JobConfig))
def replace_job(services: ServicesDep, job: Key, body: JsonObject, expected: Expected, response: Response) -> JobView:
    view = _replace(services, job, body, expected)
    response.headers.update(_hints(services, job))
    mark(response, view)
    return view


@router.patch("/jobs/{job}", openapi_extra=patch_body(JobConfig))
async def change_job(services: ServicesDep, job: Key, patch: Patch, expected: Expected, response: Response) -> JobView:
    """Change single fields of a job. Null restores the default of a field."""
    view = await change(lambda: run_in_threadpool(_change, services, job, patch, expected), expected)
    response.headers.update(await run_in_threadpool(_hints, services, job))
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


@router.get("/jobs/{job}/fit")
def fit_job(services: ServicesDep, access: AccessDep, job: Key, query: Annotated[FitQuery, Parameter()]) -> FitView:
    """How many further shards of the job fit on the resources that are offered now. This reserves nothing."""
    return _fit_view(services.fit(job, query.shards), names=access.allows(Verb.VIEW_CLUSTER))


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
    given, snapshot, now = read_config(body, BackfillConfig), services.snapshot_of(job), services.clock()
    known = backfills.fire_times(snapshot.runs(job), snapshot.backfills.get(job))
    config = snapshot.job(job)
    until = min(now if given.to is None else given.to, now, snapshot.states[job].considered_ms)
    if given.to is not None and given.from_ > given.to:
        raise ConfigError(
            Told("is later than `to`", "later_than_to"), field="from", fix=Told("exchange them", "exchange")
        )
    newest_first = given.order == "newest"
    backfills.check(config)
    schedule = config.times(services.loop.ask(lambda scheduler: scheduler.days_of(config)))
    times, more = backfills.missing(schedule, known, given.from_, until, given.limit, newest_first=newest_first)
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
    check_secrets(services, [given])
    services.command(lambda at: PutJob(at, given, replace=True, expected=expected))
    return _find_job(services, job)


def check_code(services: Services, job: Job, app: App | None) -> None:
    """Raises ConfigError if it is certain that a worker of its app cannot run the job.

    The objects of an app with a worker of its own are not looked for.
    """
    if app is None:
        return
    package = services.packages.find(app.package.sha256)
    worker = worker_of(app, package)
    if worker is not None:
        check_features(job, worker)
    if app.bootstrap_script:
        return
    for field, name in objects_of(job):
        if "$" in name:
            text = f"{name[:200]} is a Java class, and the app {app.key} has no worker for Java"
            problem = Told(text, "no_java_worker", name=name[:200], app=app.key)
            raise ConfigError(
                problem,
                field=field,
                fix=Told("give the app a bootstrapScript that starts one: docs/java.md", "java_worker"),
            )
        if "." not in name and ":" not in name:
            raise ConfigError(
                not_valid(name[:80], "names no module"), field=field, fix=such_as("package.module:Name", "")
            )
        if package is not None and (missing := missing_object(package, name)):
            raise ConfigError(
                Told(
                    f"{name[:200]} is not in the package of app {app.key}: {missing}",
                    "not_in_package",
                    name=name[:200],
                    app=app.key,
                ),
                field=field,
                fix=Told("correct the name, or update the app first", "correct_or_update"),
            )


def code_notes(services: Services, job: Job, app: App | None) -> list[str]:
    """The likely problems of the code of a job, which do not prevent its registration. May read a whole package."""
    package = None if app is None else services.packages.find(app.package.sha256)
    if app is None or package is None or job.type not in (JobType.SIMPLE, JobType.DATAFLOW):
        return []
    worker = worker_of(app, package)
    return [] if worker is None or worker.language != "java" else java_notes(package, job)


def _hints(services: Services, key: str) -> dict[str, str]:
    """The header for a job that was registered."""
    snapshot = services.snapshot()
    job = snapshot.jobs.get(key)
    return {} if job is None else warning_header(code_notes(services, job, snapshot.apps.get(job.app_key)))


def check_secrets(services: Services, jobs: Iterable[Job]) -> None:
    """Raises ConfigError if it is certain that a job cannot get one of its secrets. May block for a while."""
    jobs = list(jobs)
    named_in = {(job.team, name): "webhookSecrets" for job in jobs for name in job.webhook_secrets}
    named_in |= {(job.team, use.name): "secrets" for job in jobs for use in parse_secrets(job.secrets)}
    if not named_in:
        return
    if services.missing_secrets is None:
        fix = Told(
            "set secrets.directory, secrets.environment_prefix or secrets.vault_url in the settings of the scheduler",
            "secrets_setting",
        )
        field = next(iter(named_in.values()))
        raise ConfigError(Told("the scheduler has no source of secrets", "no_secrets"), field=field, fix=fix)
    if missing := services.missing_secrets(named_in):
        named = ", ".join(f"{name} (team {team})" for team, name in missing[:5])
        fix = Told("correct the name, or add the secret to the source of the scheduler", "add_secret")
        problem = Told(f"there is no secret {named}", "no_secret", secrets=named)
        raise ConfigError(problem, field=named_in[missing[0]], fix=fix)


def _find_job(services: Services, job: str) -> JobView:
    """Raises NotFound."""
    snapshot = services.snapshot_of(job)
    return _job_view(snapshot, job, snapshot.runs(job))


def _job_view(snapshot: Snapshot, key: str, runs: Sequence[Firing]) -> JobView:
    """`runs` are the job's runs, newest first. Raises NotFound."""
    return JobView(**_job_state(snapshot, key, runs), config=job_config(snapshot.job(key)))


def _job_row(snapshot: Snapshot, key: str, runs: Sequence[Firing], *, brief: bool) -> JobRow:
    job = snapshot.job(key)
    return JobRow(
        **_job_state(snapshot, key, runs),
        kind=job.kind,
        cron=job.cron,
        owner=job.owner,
        labels=dict(parse_labels(job.labels)),
        description=job.description,
        config=None if brief else job_config(job),
    )


def _job_state(snapshot: Snapshot, key: str, runs: Sequence[Firing]) -> dict[str, Any]:
    """The attributes of a JobState. Raises NotFound."""
    job, state = snapshot.job(key), snapshot.states[key]
    shards = [shard.state for run in runs if not run.ended_ms for shard in run.work]
    return {
        "revision": revisions.of_record(job),
        "job_name": key,
        "team": job.team,
        "app_name": job.app_key,
        "enabled": not state.disabled and job.app_key not in snapshot.disabled_apps,
        "disabled": state.disabled,
        "paused_by": snapshot.paused_by(job=key, app=job.app_key),
        "next_firing": snapshot.next_firings.get(key, 0),
        "waiting_shards": shards.count(ShardState.WAITING),
        "active_shards": shards.count(ShardState.ACTIVE),
        "outdated_shards": _outdated(snapshot, job, runs),
        "last_run": run_summary(runs[0]) if runs else None,
        "backfill_waiting": _backfill_waiting(snapshot, key),
        "skipped_firings": state.skipped,
        "skipped_reason": state.skipped_reason,
        "skipped_words": WordsView(**words_of(words)) if (words := state.skipped_words) else None,
        "dead_runs": sum(run_state(run) == "DEAD" for run in runs),
    }


def _brief_bytes(job: Job) -> int:
    """The approximate size of the JSON of a job without its configuration in bytes."""
    return _ROW_BYTES + len(job.description) + len(job.labels)


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
    return ExplanationView(
        job_name=explanation.job,
        team=team_of(explanation.job),
        headline=explanation.headline,
        waiting=explanation.waiting,
        active=explanation.active,
        behind=explanation.behind,
        next_firing=next_firing or 0,
        reasons=reason_views(explanation.reasons),
    )


def _fit_view(found: Fit, *, names: bool) -> FitView:
    agents = [
        FitAgent(
            agent_id=share.agent_id if names else "",
            hostname=share.hostname if names else "",
            shards=share.shards,
            new_executor=share.executor,
        )
        for share in found.shares[:FIT_AGENTS]
    ]
    return FitView(
        job_name=found.job,
        team=team_of(found.job),
        shards=found.wanted,
        fits=found.fits,
        elsewhere=found.elsewhere,
        waiting_helps=found.waiting_helps,
        new_executors=sum(share.executor for share in found.shares),
        agent_count=len(found.shares),
        agents=agents,
        complete=found.complete,
        reasons=reason_views(found.reasons),
        held=reason_views(found.held),
    )
