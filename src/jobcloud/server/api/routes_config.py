"""Apps, packages and jobs: what is configured."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from jobcloud.errors import ConfigError, NotFound
from jobcloud.messages import PutApp, PutJob, RemoveApp, RemoveJob, SetAppEnabled, SetJobEnabled, Trigger
from jobcloud.model import App, Cause
from jobcloud.server.api import views
from jobcloud.server.api.body import read_object
from jobcloud.server.api.convert import PACKAGE_SCHEME, read_app, read_job
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import (
    AppConfig,
    AppList,
    AppView,
    ExplanationView,
    JobConfig,
    JobList,
    JobView,
    PackageList,
    PackageView,
    RolloutView,
    RunSummary,
    StoredPackageView,
)
from jobcloud.server.api.services import Services, Use, json_body
from jobcloud.server.packages import StoredPackage, Upload

router = APIRouter()
Body = Annotated[dict[str, Any], Depends(read_object)]
Switch = Literal["enable", "disable"]

_ARCHIVES = ("application/octet-stream", "application/zip", "application/gzip", "application/x-tar")
_UPLOADS_AT_ONCE = asyncio.Semaphore(4)


# ------------------------------------------------------------------------------------------------------------- apps


@router.get("/apps", tags=["apps"])
def list_apps(use: Use) -> AppList:
    snapshot = use.snapshot()
    return AppList(items=[views.app_view(snapshot, name) for name in sorted(snapshot.apps)])


@router.post("/apps", status_code=201, tags=["apps"], openapi_extra=json_body(AppConfig))
def create_app(use: Use, body: Body, response: Response) -> AppView:
    app = read_app(body, use.options.urls)
    response.headers["Location"] = f"/api/v1/apps/{app.name}"
    return _put_app(use, app, replace_it=False)


@router.get("/apps/{app}", tags=["apps"])
def show_app(use: Use, app: str) -> AppView:
    return views.app_view(use.snapshot(), app)


@router.get("/apps/{app}/rollout", tags=["apps"])
def show_rollout(use: Use, app: str) -> RolloutView:
    """How far the app's residents have come to its present version."""
    now = use.clock()
    return use.loop.ask(lambda scheduler: views.rollout_view(scheduler, app, now))


@router.put("/apps/{app}", tags=["apps"], openapi_extra=json_body(AppConfig))
def replace_app(use: Use, app: str, body: Body) -> AppView:
    given = read_app(body, use.options.urls)
    _same_name("appName", app, given.name)
    return _put_app(use, given, replace_it=True)


@router.delete("/apps/{app}", status_code=204, tags=["apps"])
def remove_app(use: Use, app: str, jobs: Annotated[bool, Query(description="remove its jobs too")] = False) -> None:
    with use.packages.guard:
        use.command(lambda at: RemoveApp(at, app, jobs))
        use.collect_packages()


@router.post("/apps/{app}/{switch}", tags=["apps"])
def switch_app(use: Use, app: str, switch: Switch) -> AppView:
    use.command(lambda at: SetAppEnabled(at, app, switch == "enable"))
    return views.app_view(use.snapshot(), app)


def _put_app(use: Services, app: App, *, replace_it: bool) -> AppView:
    if not app.package.url.startswith(PACKAGE_SCHEME):
        # What would be refused anyway, or is no leader's to do, is not worth a fetch; nor must others wait for one.
        known = use.loop.ask(lambda scheduler: app.name in scheduler.apps)
        if known == replace_it:
            use.origin.obtain(app.package)
    with use.packages.guard:
        stored = _with_stored_package(use, app)
        use.command(lambda at: PutApp(at, stored, replace_it))
        if replace_it:
            use.collect_packages()
    return views.app_view(use.snapshot(), app.name)


def _with_stored_package(use: Services, app: App) -> App:
    """The app with the name its package is served by. Raises ConfigError where it was not uploaded."""
    path = use.packages.find(app.package.sha256)
    if path is None and not app.package.url.startswith(PACKAGE_SCHEME):
        return app
    if path is None:
        problem = f"there is no package {app.package.sha256}"
        raise ConfigError(problem, field="appURL", fix="upload it first (POST /api/v1/packages)")
    return replace(app, package=replace(app.package, file=path.name))


# --------------------------------------------------------------------------------------------------------- packages


@router.get("/packages", tags=["packages"])
def list_packages(use: Use) -> PackageList:
    apps = list(use.snapshot().apps.values())
    return PackageList(items=[_stored_view(use, sha256, apps) for sha256 in use.packages.stored()])


@router.get("/packages/{sha256}", tags=["packages"])
def show_package(use: Use, sha256: str) -> StoredPackageView:
    return _stored_view(use, sha256, list(use.snapshot().apps.values()))


@router.post(
    "/packages",
    status_code=201,
    tags=["packages"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _ARCHIVES},
        }
    },
)
async def upload_package(
    use: Use,
    request: Request,
    response: Response,
    sha256: Annotated[str, Query(description="refuse the upload unless it hashes to this")] = "",
) -> PackageView:
    """The archive is the body as it is: zip, tar, tar.gz, tar.bz2 or tar.xz."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind not in _ARCHIVES:
        raise Problem("unsupported-media-type", f"Send the archive itself as application/octet-stream, not {kind!r}.")
    if _UPLOADS_AT_ONCE.locked():
        raise Problem("too-many", "Four uploads are under way already.", headers={"Retry-After": "5"})
    async with _UPLOADS_AT_ONCE:
        with use.packages.receive() as upload:
            async for chunk in request.stream():
                upload.write(chunk)
            stored = await run_in_threadpool(_accept, use, upload, sha256)
    response.headers["Location"] = f"/api/v1/packages/{stored.sha256}"
    url = PACKAGE_SCHEME + stored.sha256
    return PackageView(sha256=stored.sha256, size=stored.size, files=stored.files, app_url=url)


def _accept(use: Services, upload: Upload, sha256: str) -> StoredPackage:
    """The moment when the store grows is the one to look for what was uploaded earlier and never registered."""
    stored = upload.commit(sha256)
    with use.packages.guard:
        use.collect_packages()
    return stored


def _stored_view(use: Services, sha256: str, apps: list[App]) -> StoredPackageView:
    path = use.packages.find(sha256)
    if path is None:
        raise NotFound(f"there is no package {sha256[:100]}", field="sha256", fix="upload it (POST /api/v1/packages)")
    made = sorted(app.name for app in apps if app.package.sha256 == sha256)
    return StoredPackageView(sha256=sha256, size=path.stat().st_size, app_url=PACKAGE_SCHEME + sha256, apps=made)


# ------------------------------------------------------------------------------------------------------------- jobs


@router.get("/jobs", tags=["jobs"])
def list_jobs(use: Use, app: Annotated[str, Query(description="only those of this app")] = "") -> JobList:
    snapshot = use.snapshot()
    names = sorted(job.name for job in snapshot.jobs.values() if app in ("", job.app))
    runs = snapshot.runs_by_job()
    return JobList(items=[views.job_view(snapshot, name, runs.get(name, ())) for name in names])


@router.post("/jobs", status_code=201, tags=["jobs"], openapi_extra=json_body(JobConfig))
def create_job(
    use: Use,
    body: Body,
    response: Response,
    enabled: Annotated[bool, Query(description="false: it fires only once it is enabled")] = True,
) -> JobView:
    job = read_job(body, use.options.job_urls)
    use.command(lambda at: PutJob(at, job, enabled=enabled))
    response.headers["Location"] = f"/api/v1/jobs/{job.name}"
    return views.job_view(use.snapshot(), job.name)


@router.get("/jobs/{job}", tags=["jobs"])
def show_job(use: Use, job: str) -> JobView:
    return views.job_view(use.snapshot(), job)


@router.put("/jobs/{job}", tags=["jobs"], openapi_extra=json_body(JobConfig))
def replace_job(use: Use, job: str, body: Body) -> JobView:
    given = read_job(body, use.options.job_urls)
    _same_name("jobName", job, given.name)
    use.command(lambda at: PutJob(at, given, replace=True))
    return views.job_view(use.snapshot(), job)


@router.delete("/jobs/{job}", status_code=204, tags=["jobs"])
def remove_job(use: Use, job: str) -> None:
    use.command(lambda at: RemoveJob(at, job))


@router.post("/jobs/{job}/trigger", status_code=202, tags=["jobs"])
def trigger_job(use: Use, job: str) -> RunSummary:
    """Fire a TRANSIENT job now; the answer is the run that this made."""
    at = use.command(lambda at: Trigger(at, job))
    made = [run for run in use.snapshot().runs(job) if run.cause is Cause.TRIGGER and run.fire_ms == at]
    if not made:
        raise Problem("unavailable", f"Job {job} was triggered, but the run it made is gone already.")
    return views.run_summary(made[0])


@router.get("/jobs/{job}/explain", tags=["jobs"])
def explain_job(use: Use, job: str) -> ExplanationView:
    """Why the job's shards are, or are not, running."""
    return views.explanation_view(*use.explain(job))


@router.post("/jobs/{job}/{switch}", tags=["jobs"])
def switch_job(use: Use, job: str, switch: Switch) -> JobView:
    use.command(lambda at: SetJobEnabled(at, job, switch == "enable"))
    return views.job_view(use.snapshot(), job)


def _same_name(field: str, path: str, body: str) -> None:
    if path != body:
        raise invalid(
            [Issue(field, f"is {body[:100]!r}, the path says {path[:100]!r}", "names cannot change: make a new one")]
        )
