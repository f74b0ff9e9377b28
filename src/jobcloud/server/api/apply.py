"""Apply: register or replace several apps and jobs, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from msgspec import structs
from pydantic import Field

from jobcloud import fields
from jobcloud.config import App, Job
from jobcloud.errors import Refused
from jobcloud.messages import Apply
from jobcloud.server.api.apps import with_stored_package
from jobcloud.server.api.body import json_type, parse, read_bytes
from jobcloud.server.api.convert import PACKAGE_SCHEME, app_config, job_config, read_app, read_job
from jobcloud.server.api.jobs import check_code
from jobcloud.server.api.problems import MAX_ISSUES, Issue, Problem, from_refused, invalid
from jobcloud.server.api.schema import AppConfig, Config, JobConfig, View
from jobcloud.server.api.services import Services, ServicesDep, json_body
from jobcloud.server.api.snapshot import Snapshot
from jobcloud.server.api.threads import apart

router = APIRouter(tags=["apps"])

MAX_ITEMS = 10_000

RecordT = TypeVar("RecordT", App, Job)


class ApplyBody(Config):
    """Apps and jobs to register or replace together."""

    apps: list[AppConfig] = Field(default_factory=list)
    jobs: list[JobConfig] = Field(default_factory=list)


class ChangeView(View):
    field: str
    before: Any
    after: Any


class ItemView(View):
    kind: Literal["app", "job"]
    key: str
    action: Literal["added", "changed", "unchanged", "removed", "left"] = Field(
        description="left: a registered job of one of the apps that the body does not name"
    )
    changes: list[ChangeView] = Field(description="the fields that differ, if the action is changed")


class ApplyView(View):
    """Apps first, then jobs, then jobs that the body does not name. The first two are in the order of the body."""

    dry_run: bool
    items: list[ItemView]


@router.post("/apply", openapi_extra=json_body(ApplyBody))
async def apply(
    services: ServicesDep,
    request: Request,
    dry_run: Annotated[
        bool, Parameter(alias="dryRun", description="check everything and change nothing; packages may be missing")
    ] = False,
    prune: Annotated[bool, Parameter(description="remove jobs of the apps that the body does not name")] = False,
    create: Annotated[bool, Parameter(description="refuse apps and jobs that exist")] = False,
    enabled: Annotated[bool, Parameter(description="false: new jobs do not fire until they are enabled")] = True,
) -> ApplyView:
    """Register or replace apps and jobs: all of them, or none if one is refused."""
    body = await read_bytes(request)
    # A large body takes long to read, and the event loop serves all clients.
    apps, jobs = await run_in_threadpool(_read, services, body)
    if not dry_run:
        known = (await run_in_threadpool(services.snapshot)).apps
        for app in apps:
            if not app.package.url.startswith(PACKAGE_SCHEME) and app != known.get(app.key):
                await apart(lambda app=app: services.origin.obtain(app.package))  # type: ignore[misc]
    wanted = Apply(0, tuple(apps), tuple(jobs), prune, create, enabled)
    return await run_in_threadpool(_apply, services, wanted, dry_run)


def _apply(services: Services, wanted: Apply, dry_run: bool) -> ApplyView:
    with services.packages.guard:
        snapshot = services.snapshot()
        stored = _with_packages(services, wanted.apps, dry_run)
        _check_jobs(services, snapshot, {app.key: app for app in stored}, wanted.jobs)
        made = structs.replace(wanted, at=services.clock(), apps=tuple(stored))
        view = ApplyView(dry_run=dry_run, items=_items(snapshot, made))
        if dry_run:
            services.loop.ask(lambda scheduler: scheduler.check_apply(made))
        else:
            services.command(lambda at: structs.replace(made, at=at))
            services.collect_packages()
    return view


def _read(services: Services, body: bytes) -> tuple[list[App], list[Job]]:
    """Raises Problem with the problems of all apps and jobs."""
    given = parse(body)
    if not isinstance(given, dict):
        raise Problem("malformed-json", f"The body must be a JSON object, not {json_type(given)}.")
    issues = [
        Issue(str(name)[:200], "is not a known field", "use apps and jobs") for name in given.keys() - {"apps", "jobs"}
    ]
    lists: dict[str, list[Any]] = {}
    for name in ("apps", "jobs"):
        lists[name] = given.get(name, [])
        if not isinstance(lists[name], list):
            raise invalid([*issues, Issue(name, f"must be an array, not {json_type(lists[name])}")])
    if (count := len(lists["apps"]) + len(lists["jobs"])) > MAX_ITEMS:
        raise invalid([Issue("", f"has {count:,} apps and jobs", f"at most {MAX_ITEMS:,}; apply the apps one by one")])
    options = services.options
    apps = _records("apps", lists["apps"], lambda one: read_app(one, options.urls), issues)
    jobs = _records("jobs", lists["jobs"], lambda one: read_job(one, options.job_urls), issues)
    if issues:
        raise invalid(issues)
    return apps, jobs


def _records(
    group: str, given: Iterable[Any], read: Callable[[Mapping[str, Any]], RecordT], issues: list[Issue]
) -> list[RecordT]:
    """The records of one list. Adds the problems to `issues`. Each names its place in the body, and then the field."""
    found: dict[str, int] = {}
    records: list[RecordT] = []
    for index, one in enumerate(given):
        if len(issues) > MAX_ISSUES:
            break
        place = f"{group}.{index}"
        if not isinstance(one, dict):
            issues.append(Issue(place, f"must be an object, not {json_type(one)}"))
            continue
        try:
            record = read(one)
        except Problem as problem:
            issues += _placed(place, problem.issues)
            continue
        if record.key in found:
            name = f"{place}.{group[:-1]}Name"
            issues.append(
                Issue(name, f"{record.key} is given twice, also as {group}.{found[record.key]}", "remove one")
            )
        found[record.key] = index
        records.append(record)
    return records


def _placed(place: str, issues: Iterable[Issue]) -> list[Issue]:
    return [Issue(f"{place}.{issue.field}" if issue.field else place, issue.problem, issue.fix) for issue in issues]


def _with_packages(services: Services, apps: Iterable[App], dry_run: bool) -> list[App]:
    """The apps with the file names of their stored packages. In a dry run, a package need not be there yet."""
    found, issues = [], []
    for index, app in enumerate(apps):
        try:
            found.append(with_stored_package(services, app))
        except Refused as error:
            found.append(app)
            issues += _placed(f"apps.{index}", from_refused(error).issues)
    if issues and not dry_run:
        raise invalid(issues)
    return found


def _check_jobs(services: Services, snapshot: Snapshot, apps: Mapping[str, App], jobs: Iterable[Job]) -> None:
    """Raises Problem for jobs without an app, and for jobs whose code cannot be loaded."""
    issues: list[Issue] = []
    for index, job in enumerate(jobs):
        app = apps.get(job.app_key) or snapshot.apps.get(job.app_key)
        if job == snapshot.jobs.get(job.key) and app == snapshot.apps.get(job.app_key):
            continue
        if app is None:
            fix = "register the app first, or add it to this request"
            issues.append(Issue(f"jobs.{index}.appName", f"there is no app {job.app_key}", fix))
            continue
        try:
            check_code(services, job, app)
        except Refused as error:
            issues += _placed(f"jobs.{index}", from_refused(error).issues)
    if issues:
        raise invalid(issues)


def _items(snapshot: Snapshot, command: Apply) -> list[ItemView]:
    apps = [_item("app", app, snapshot.apps.get(app.key), app_config) for app in command.apps]
    jobs = [_item("job", job, snapshot.jobs.get(job.key), job_config) for job in command.jobs]
    left = sorted(job.key for job in command.left_out(snapshot.jobs.values()))
    action: Literal["removed", "left"] = "removed" if command.prune else "left"
    return [*apps, *jobs, *(ItemView(kind="job", key=key, action=action, changes=[]) for key in left)]


def _item(
    kind: Literal["app", "job"], record: RecordT, known: RecordT | None, config: Callable[[RecordT], Config]
) -> ItemView:
    if known is None or known == record:
        return ItemView(kind=kind, key=record.key, action="unchanged" if known else "added", changes=[])
    before, after = (config(one).model_dump(mode="json", by_alias=True) for one in (known, record))
    changes = [ChangeView(field=name, before=old, after=new) for name, old, new in fields.differences(before, after)]
    return ItemView(kind=kind, key=record.key, action="changed", changes=changes)
