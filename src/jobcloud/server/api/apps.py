"""Apps: registration, enabling, roll-outs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from jobcloud.access.verbs import Verb
from jobcloud.config import App, Job, JobKind
from jobcloud.errors import ConfigError, Conflict, NotFound
from jobcloud.messages import PutApp, RemoveApp, SetAppEnabled, SetPaused
from jobcloud.model import TaskState
from jobcloud.scheduler import Scheduler, revisions
from jobcloud.scheduler.launch import package_of
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import UPLOAD, shown_by
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import PACKAGE_SCHEME, app_config, check_same_name, read_app
from jobcloud.server.api.jobs import check_code
from jobcloud.server.api.paging import Listing, PageQuery, PageView, config_bytes
from jobcloud.server.api.patch import Patch, change, fresh, patch_body, patched
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.reasons import ReasonView, reason_view
from jobcloud.server.api.schema import AppConfig, Instant, Key, Query, TeamFilter, View
from jobcloud.server.api.services import JsonObject, Pausing, Services, ServicesDep, Switch, json_body
from jobcloud.server.api.snapshot import Pausable, Snapshot, WarmExecutors, belongs, no_app
from jobcloud.server.api.threads import apart
from jobcloud.server.routes import Routes

router = Routes(tags=["apps"])

_APPS = Listing("apps", (str,))
_VERSIONS = Listing("versions", (int,))
_LISTED = shown_by("jobcloud app versions", "lists them")


class AppView(Revised):
    app_name: str = Field(description="the key of the app")
    team: str
    enabled: bool
    paused_by: list[Pausable] = Field(description="what is paused: the app, or everything")
    jobs: list[str] = Field(description="the keys of its jobs")
    warm_executors: int = Field(description="warm executors that are up")
    executors_lacking: str = Field(description="the reason if fewer are up than configured; otherwise empty")
    lacking: ReasonView | None = Field(description="this reason with its parameters, or null")
    config: AppConfig


class AppList(PageView):
    items: list[AppView]


class AppQuery(PageQuery):
    team: TeamFilter = Field("", description="only apps of this team")


class JobRollout(View):
    job_name: str = Field(description="the key of the job")
    shards: int
    running: int = Field(description="shards that run with the current configuration")
    outdated: int = Field(description="shards that run with an earlier configuration")
    stopped: str = Field(description="the reason if the roll-out has stopped; otherwise empty")
    waiting: str = Field(description="the reason if the roll-out waits; otherwise empty")
    because: ReasonView | None = Field(
        description="the reason of `stopped`, otherwise that of `waiting`, with its parameters; null if both are empty"
    )


class RolloutView(View):
    """The progress of an app's DAEMON jobs and warm executors to the current version."""

    app_name: str = Field(description="the key of the app")
    team: str
    state: Literal["done", "rolling", "stopped"]
    jobs: list[JobRollout] = Field(description="the DAEMON jobs that are enabled")
    warm_executors: int
    executors_lacking: str
    lacking: ReasonView | None = Field(description="the reason of `executorsLacking` with its parameters, or null")


class VersionView(View):
    number: int
    registered_at: Instant = Field(description="null if it was registered by a build without versions")
    registered_by: str = Field(description="the subject that registered it first; empty if it is not known")
    current: bool
    package_sha256: str
    package_size: int | None = Field(description="bytes; null if this server no longer has the package")
    executors: int = Field(description="executors that run this package now")
    config: AppConfig


class VersionList(PageView):
    items: list[VersionView]


class RollbackQuery(Query):
    version: int = Field(0, ge=0, description="the number of a version; 0: the one before the present one")


@router.get("/apps")
def list_apps(services: ServicesDep, access: AccessDep, query: Annotated[AppQuery, Parameter()]) -> AppList:
    """Apps, by key."""
    teams = access.shown_teams(query.team)
    snapshot = services.snapshot()
    keys = sorted(key for key in snapshot.apps if belongs(key, teams))
    found, cursor = _APPS.page(keys, lambda key: (key,), query, lambda key: config_bytes(snapshot.apps[key]))
    return AppList(items=[app_view(snapshot, key) for key in found], next_cursor=cursor)


@router.post("/apps", status_code=201, openapi_extra=json_body(AppConfig))
async def create_app(services: ServicesDep, access: AccessDep, body: JsonObject, response: Response) -> AppView:
    app = await run_in_threadpool(read_app, body, services.options.urls)
    access.require(Verb.CONFIGURE, app.team)
    response.headers["Location"] = f"/api/v1/apps/{app.key}"
    view = await put_app(services, app, replace_it=False)
    mark(response, view)
    return view


@router.get("/apps/{app}", response_model=AppView, dependencies=[SEEN])
def show_app(services: ServicesDep, app: Key, request: Request) -> Response:
    return shown(request, app_view(services.snapshot(), app))


@router.get("/apps/{app}/rollout")
def show_rollout(services: ServicesDep, app: Key) -> RolloutView:
    """The progress of an app's DAEMON jobs and warm executors to the current version."""
    now = services.clock()
    return services.loop.ask(lambda scheduler: rollout_view(scheduler, app, now))


@router.get("/apps/{app}/versions")
def list_versions(services: ServicesDep, app: Key, query: Annotated[PageQuery, Parameter()]) -> VersionList:
    """The configurations of an app that are kept, the newest first. Equal ones have one number."""
    snapshot = services.snapshot()
    running = Counter(package_of(executor) for executor in snapshot.executors if executor.app == app)
    found, cursor = _VERSIONS.page(
        snapshot.versions_of(app), lambda version: (-version.number,), query, lambda version: config_bytes(version.app)
    )
    return VersionList(
        items=[
            VersionView(
                number=version.number,
                registered_at=version.at_ms,
                registered_by=version.by,
                current=version.app == snapshot.apps[app],
                package_sha256=version.app.package.sha256,
                package_size=services.packages.size(version.app.package.sha256),
                executors=running[version.app.package.sha256],
                config=app_config(version.app),
            )
            for version in found
        ],
        next_cursor=cursor,
    )


@router.post("/apps/{app}/rollback")
async def roll_back(
    services: ServicesDep,
    app: Key,
    query: Annotated[RollbackQuery, Parameter()],
    expected: Expected,
    response: Response,
) -> AppView:
    """Update an app to one of its earlier versions: its package and its configuration. Its jobs do not change.

    This is an ordinary update, so resident shards move to that version by a roll-out. The request is refused if the
    server no longer has the package, or if the package lacks the code of a job.
    """

    async def attempt() -> AppView:
        snapshot = await run_in_threadpool(services.snapshot)
        earlier = await run_in_threadpool(_earlier, services, snapshot, app, query.version)
        return await put_app(services, earlier, replace_it=True, expected=fresh(snapshot.app(app), expected))

    view = await change(attempt, expected)
    mark(response, view)
    return view


def _earlier(services: Services, snapshot: Snapshot, key: str, number: int) -> App:
    """The configuration of an app to go back to. Raises NotFound and Conflict."""
    versions = snapshot.versions_of(key)
    present = next(version.number for version in versions if version.app == snapshot.apps[key])
    fits = (version for version in versions if version.number == number or (not number and version.number < present))
    if (found := next(fits, None)) is None:
        if number:
            problem = Told(f"app {key} has no version {number}", "no_version", app=key, version=number)
        else:
            problem = Told(f"app {key} has no earlier version", "no_earlier_version", app=key)
        raise NotFound(problem, field="version", fix=_LISTED)
    sha256 = found.app.package.sha256
    if found.app.package.url.startswith(PACKAGE_SCHEME) and services.packages.find(sha256) is None:
        text = f"this server no longer has the package of version {found.number}, {sha256}"
        problem = Told(text, "no_old_package", version=found.number, sha256=sha256)
        raise Conflict(problem, field="version", fix=Told("upload it again (`jobcloud app update`)", "upload_again"))
    for job in snapshot.jobs.values():
        if job.app_key == key:
            try:
                check_code(services, job, found.app)
            except ConfigError as error:
                text = f"version {found.number} does not fit job {job.key}: {error.field}: {error.problem}"
                problem = Told(text, "version_misfits", version=found.number, job=job.key, field=error.field)
                raise Conflict(
                    problem, field="version", fix=Told("change or remove the job first", "change_job")
                ) from error
    return found.app


@router.put("/apps/{app}", openapi_extra=json_body(AppConfig))
async def replace_app(
    services: ServicesDep, app: Key, body: JsonObject, expected: Expected, response: Response
) -> AppView:
    view = await _replace(services, app, body, expected)
    mark(response, view)
    return view


@router.patch("/apps/{app}", openapi_extra=patch_body(AppConfig))
async def change_app(services: ServicesDep, app: Key, patch: Patch, expected: Expected, response: Response) -> AppView:
    """Change single fields of an app. Null restores the default of a field."""

    async def attempt() -> AppView:
        known = (await run_in_threadpool(services.snapshot)).app(app)
        body = patched(app_config(known), patch)
        return await _replace(services, app, body, fresh(known, expected))

    view = await change(attempt, expected)
    mark(response, view)
    return view


@router.delete("/apps/{app}", status_code=204)
def remove_app(
    services: ServicesDep,
    app: Key,
    expected: Expected,
    jobs: Annotated[bool, Parameter(description="remove the app's jobs too")] = False,
) -> None:
    with services.packages.guard:
        services.command(lambda at: RemoveApp(at, app, jobs, expected))
        services.collect_packages()


@router.post("/apps/{app}/{switch:switch}")
def switch_app(services: ServicesDep, app: Key, switch: Switch) -> AppView:
    services.command(lambda at: SetAppEnabled(at, app, switch == "enable"))
    return app_view(services.snapshot(), app)


@router.post("/apps/{app}/{pausing:pausing}")
def pause_app(services: ServicesDep, app: Key, pausing: Pausing) -> AppView:
    """Pause or resume all jobs of an app. While it is paused, no shard of them starts. Running shards continue."""
    services.command(lambda at: SetPaused(at, pausing == "pause", app=app))
    return app_view(services.snapshot(), app)


async def _replace(services: Services, app: str, body: Mapping[str, Any], expected: tuple[str, ...] | None) -> AppView:
    given = await run_in_threadpool(read_app, body, services.options.urls)
    check_same_name("appName", app, given)
    return await put_app(services, given, replace_it=True, expected=expected)


async def put_app(
    services: Services, app: App, *, replace_it: bool, expected: tuple[str, ...] | None = None
) -> AppView:
    """Register or replace an app, if it has one of the expected revisions. A package from a URL is fetched first.

    Raises the errors of `Origin.obtain` and of the command.
    """
    if not app.package.url.startswith(PACKAGE_SCHEME):
        # Fetch nothing for a request that will be refused, and let no other request wait for the fetch.
        known = await run_in_threadpool(services.loop.ask, lambda scheduler: app.key in scheduler.apps)
        if known == replace_it:
            await apart(lambda: services.origin.obtain(app.package))
    return await run_in_threadpool(_store, services, app, replace_it, expected)


def _store(services: Services, app: App, replace_it: bool, expected: tuple[str, ...] | None) -> AppView:
    with services.packages.guard:
        stored = with_stored_package(services, app)
        services.command(lambda at: PutApp(at, stored, replace_it, expected))
        if replace_it:
            services.collect_packages()
    return app_view(services.snapshot(), app.key)


def with_stored_package(services: Services, app: App) -> App:
    """The app with the file name of its stored package. Raises ConfigError if the package was not uploaded."""
    path = services.packages.find(app.package.sha256)
    if path is not None:
        return replace(app, package=replace(app.package, file=path.name))
    if not app.package.url.startswith(PACKAGE_SCHEME):
        return app
    problem = Told(f"there is no package {app.package.sha256}", "no_package", sha256=app.package.sha256)
    raise ConfigError(problem, field="appURL", fix=UPLOAD)


def app_view(snapshot: Snapshot, key: str) -> AppView:
    """Raises NotFound."""
    app = snapshot.app(key)
    warm = snapshot.warm_executors.get(key, WarmExecutors())
    return AppView(
        revision=revisions.of_record(app),
        app_name=key,
        team=app.team,
        enabled=key not in snapshot.disabled_apps,
        paused_by=snapshot.paused_by(app=key),
        jobs=sorted(job.key for job in snapshot.jobs.values() if job.app_key == key),
        warm_executors=warm.up,
        executors_lacking=warm.lacking.text if warm.lacking else "",
        lacking=reason_view(warm.lacking) if warm.lacking else None,
        config=app_config(app),
    )


def rollout_view(scheduler: Scheduler, key: str, at: int) -> RolloutView:
    """Runs on the scheduler's thread. Raises NotFound."""
    if key not in scheduler.apps:
        raise no_app(key)
    jobs = [
        _job_rollout(scheduler, job, at)
        for job in sorted(scheduler.jobs.values(), key=lambda job: job.key)
        if job.app_key == key and job.kind is JobKind.DAEMON and scheduler.enabled(job.key)
    ]
    lacking = scheduler.lacking_executors(key, at)
    stopped = any(job.stopped for job in jobs) or (lacking is not None and lacking.at > at)
    done = lacking is None and all(job.running == job.shards and not job.outdated for job in jobs)
    return RolloutView(
        app_name=key,
        team=scheduler.apps[key].team,
        state="stopped" if stopped else "done" if done else "rolling",
        jobs=jobs,
        warm_executors=scheduler.warm_executors(key),
        executors_lacking=lacking.text if lacking else "",
        lacking=reason_view(lacking) if lacking else None,
    )


# After the last shard was replaced, its back-off or fault is the only sign that the new version does not run.
_STOPPED = ("rollout_stopped", "fault", "back_off")


def _job_rollout(scheduler: Scheduler, job: Job, at: int) -> JobRollout:
    generation = scheduler.job_states[job.key].generation
    firings = [firing for firing in scheduler.queue.unfinished(job.key) if firing.generation == generation]
    outdated = {
        task.id
        for firing in firings
        for task in revisions.outdated(job, scheduler.apps[job.app_key], firing, scheduler.tasks)
        if task.item < job.shard_count
    }
    tasks = (scheduler.tasks.get(shard.task_id) for firing in firings for shard in firing.shards)
    running = sum(
        task is not None and task.state is TaskState.RUNNING and not task.kill_ms and task.id not in outdated
        for task in tasks
    )
    reasons = () if running == job.shard_count else scheduler.explain(job.key, at).reasons
    stopped = next((reason for reason in reasons if reason.code in _STOPPED), None)
    waiting = next((reason for reason in reasons if reason.code != "running"), None)
    because = stopped or waiting
    return JobRollout(
        job_name=job.key,
        shards=job.shard_count,
        running=running,
        outdated=len(outdated),
        stopped=stopped.text if stopped else "",
        waiting=waiting.text if waiting else "",
        because=reason_view(because) if because else None,
    )
