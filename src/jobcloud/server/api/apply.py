"""Apply: register or replace several apps and jobs, with pools, calendars and workflows, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from msgspec import structs, to_builtins
from pydantic import Field

from jobcloud import fields
from jobcloud.access.verbs import Verb
from jobcloud.config import App, Job
from jobcloud.errors import Refused
from jobcloud.messages import Apply
from jobcloud.model import EVERY_TEAM, Workflow
from jobcloud.scheduler import Scheduler
from jobcloud.sentences import Told
from jobcloud.server.api.apply_limits import (
    AskedCalendar,
    AskedPool,
    AskedWorkflow,
    CalendarItem,
    PoolItem,
    WorkflowItem,
    calendar_changes,
    find_days,
    read_calendar,
    read_pool,
    read_workflow,
    same_calendar,
)
from jobcloud.server.api.apps import with_stored_package
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.body import json_type, parse, read_bytes
from jobcloud.server.api.convert import PACKAGE_SCHEME, app_config, job_config, read_app, read_job
from jobcloud.server.api.hints import warning_header
from jobcloud.server.api.jobs import check_code, check_secrets, code_notes
from jobcloud.server.api.problems import MAX_ISSUES, Issue, Problem, from_refused, invalid
from jobcloud.server.api.schema import AppConfig, Config, JobConfig, View
from jobcloud.server.api.services import Services, ServicesDep, json_body
from jobcloud.server.api.snapshot import Snapshot
from jobcloud.server.api.threads import apart
from jobcloud.server.routes import Routes

router = Routes(tags=["apps"])

MAX_ITEMS = 10_000


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


KeyedT = TypeVar("KeyedT", bound=_Keyed)
RecordT = TypeVar("RecordT", App, Job)
_GROUPS = ("pools", "calendars", "apps", "jobs", "workflows")


class ApplyBody(Config):
    """Pools, calendars, apps, jobs and workflows to register or replace together."""

    pools: list[PoolItem] = Field(default_factory=list)
    calendars: list[CalendarItem] = Field(default_factory=list)
    apps: list[AppConfig] = Field(default_factory=list)
    jobs: list[JobConfig] = Field(default_factory=list)
    workflows: list[WorkflowItem] = Field(default_factory=list)


class ChangeView(View):
    field: str
    before: Any
    after: Any


class ItemView(View):
    kind: Literal["pool", "calendar", "app", "job", "workflow"]
    key: str
    action: Literal["added", "changed", "unchanged", "removed", "left"] = Field(
        description="left: a registered job that the body does not name, of an app that it names"
    )
    changes: list[ChangeView] = Field(description="the fields that differ, if the action is changed")


class ApplyView(View):
    """All entries in the order of the body, then the registered jobs that it does not name."""

    dry_run: bool
    items: list[ItemView]


@router.post("/apply", openapi_extra=json_body(ApplyBody))
async def apply(
    services: ServicesDep,
    access: AccessDep,
    request: Request,
    response: Response,
    dry_run: Annotated[
        bool, Parameter(alias="dryRun", description="check everything and change nothing; packages may be missing")
    ] = False,
    prune: Annotated[
        bool, Parameter(description="remove registered jobs that the body does not name, of apps that it names")
    ] = False,
    create: Annotated[bool, Parameter(description="refuse apps and jobs that exist")] = False,
    enabled: Annotated[bool, Parameter(description="false: new jobs do not fire until they are enabled")] = True,
) -> ApplyView:
    """Register or replace pools, calendars, apps, jobs and workflows: all of them, or none if one is refused.

    To set a pool of all teams, you need the right in the whole installation. Pools, calendars and workflows are never
    removed.
    """
    body = await read_bytes(request)
    # A large body takes long to read, and the event loop serves all clients.
    asked = await run_in_threadpool(_read, services, body)
    apps, jobs = asked.apps, asked.jobs
    access.require_each(Verb.CONFIGURE, sorted(asked.teams() - {EVERY_TEAM}))
    if EVERY_TEAM in asked.teams():
        access.require(Verb.CONFIGURE)
    calendars = await find_days(services, asked.calendars) if asked.calendars else ()
    if not dry_run:
        known = (await run_in_threadpool(services.snapshot)).apps
        for app in apps:
            if not app.package.url.startswith(PACKAGE_SCHEME) and app != known.get(app.key):
                await apart(lambda app=app: services.origin.obtain(app.package))  # type: ignore[misc]
    if any(job.secrets for job in jobs):
        before = (await run_in_threadpool(services.snapshot)).jobs
        await apart(lambda: check_secrets(services, [job for job in jobs if job != before.get(job.key)]))
    pools = tuple((one.key, one.pool) for one in asked.pools)
    workflows = tuple(one.workflow for one in asked.workflows)
    wanted = Apply(
        0, tuple(apps), tuple(jobs), prune, create, enabled, pools=pools, calendars=calendars, workflows=workflows
    )
    view = await run_in_threadpool(_apply, services, wanted, dry_run)
    if not dry_run:
        response.headers.update(await run_in_threadpool(_hints, services, view))
    return view


def _apply(services: Services, wanted: Apply, dry_run: bool) -> ApplyView:
    with services.packages.guard:
        snapshot = services.snapshot()
        stored = _with_packages(services, wanted.apps, dry_run)
        _check_jobs(services, snapshot, {app.key: app for app in stored}, wanted.jobs)
        made = structs.replace(wanted, at=services.clock(), apps=tuple(stored))
        limits, workflows = services.loop.ask(
            lambda scheduler: (_limit_items(scheduler, made), _workflow_items(scheduler, made))
        )
        view = ApplyView(dry_run=dry_run, items=[*limits, *_items(snapshot, made, workflows)])
        if dry_run:
            services.loop.ask(lambda scheduler: scheduler.check_apply(made))
        else:
            services.command(lambda at: structs.replace(made, at=at))
            services.collect_packages()
    return view


def _hints(services: Services, view: ApplyView) -> dict[str, str]:
    """The header for jobs that are new or changed, or whose app is."""
    snapshot = services.snapshot()
    touched = {item.key for item in view.items if item.action in ("added", "changed")}
    jobs = (snapshot.jobs.get(item.key) for item in view.items if item.kind == "job")
    found: list[str] = []
    for job in jobs:
        if job is not None and touched & {job.key, job.app_key}:
            notes = code_notes(services, job, snapshot.apps.get(job.app_key))
            found += [f"job {job.key}: {note}" for note in notes]
    return warning_header(found)


class _Asked(NamedTuple):
    """The content of a body."""

    pools: list[AskedPool]
    calendars: list[AskedCalendar]
    apps: list[App]
    jobs: list[Job]
    workflows: list[AskedWorkflow]

    def teams(self) -> set[str]:
        return {one.team for group in self for one in group}


def _read(services: Services, body: bytes) -> _Asked:
    """Raises Problem with all problems that can be found without the state."""
    given = parse(body)
    if not isinstance(given, dict):
        raise Problem("malformed-json", f"The body must be a JSON object, not {json_type(given)}.")
    issues = [
        Issue(str(name)[:200], "is not a known field", f"use {', '.join(_GROUPS[:-1])} and {_GROUPS[-1]}")
        for name in given.keys() - set(_GROUPS)
    ]
    lists: dict[str, list[Any]] = {}
    for name in _GROUPS:
        lists[name] = given.get(name, [])
        if not isinstance(lists[name], list):
            raise invalid([*issues, Issue(name, f"must be an array, not {json_type(lists[name])}")])
    if (count := sum(map(len, lists.values()))) > MAX_ITEMS:
        raise invalid([Issue("", f"has {count:,} entries", f"at most {MAX_ITEMS:,}; apply the apps one by one")])
    options = services.options
    pools = _records("pools", lists["pools"], read_pool, issues)
    calendars = _records("calendars", lists["calendars"], read_calendar, issues)
    apps = _records("apps", lists["apps"], lambda one: read_app(one, options.urls), issues)
    jobs = _records("jobs", lists["jobs"], lambda one: read_job(one, options.job_urls), issues)
    workflows = _records("workflows", lists["workflows"], read_workflow, issues)
    if issues:
        raise invalid(issues)
    return _Asked(pools, calendars, apps, jobs, workflows)


def _records(
    group: str, given: Iterable[Any], read: Callable[[Mapping[str, Any]], KeyedT], issues: list[Issue]
) -> list[KeyedT]:
    """The records of one list. Adds the problems to `issues`. Each names its place in the body, and then the field."""
    found: dict[str, int] = {}
    records: list[KeyedT] = []
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
        except Refused as error:
            issues += _placed(place, from_refused(error).issues)
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
            fix = Told("register the app first, or add it to this request", "register_app_here")
            issues.append(Issue(f"jobs.{index}.appName", f"there is no app {job.app_key}", fix))
            continue
        try:
            check_code(services, job, app)
        except Refused as error:
            issues += _placed(f"jobs.{index}", from_refused(error).issues)
    if issues:
        raise invalid(issues)


def _limit_items(scheduler: Scheduler, command: Apply) -> list[ItemView]:
    """Pools and calendars with what would change."""
    found = []
    for key, pool in command.pools:
        known = scheduler.pools.get(key)
        pairs = zip(structs.asdict(known).items(), structs.asdict(pool).values(), strict=True) if known else ()
        found.append(_limit("pool", key, known is not None, ((name, old, new) for (name, old), new in pairs)))
    for calendar, _ in command.calendars:
        before = scheduler.calendars.get(calendar.key)
        differs = before is not None and not same_calendar(before, calendar)
        changes = calendar_changes(before, calendar) if before is not None and differs else ()
        found.append(_limit("calendar", calendar.key, before is not None, changes))
    return found


def _workflow_items(scheduler: Scheduler, command: Apply) -> list[ItemView]:
    """Workflows with what would change."""
    found = []
    for workflow in command.workflows:
        known = scheduler.workflows.get(workflow.key)
        names = ("nodes", "start", "description")
        pairs = [(one, _json_of(known, one), _json_of(workflow, one)) for one in names] if known is not None else []
        found.append(_limit("workflow", workflow.key, known is not None, pairs))
    return found


def _json_of(workflow: Workflow, name: str) -> Any:
    return to_builtins(getattr(workflow, name))


def _limit(
    kind: Literal["pool", "calendar", "workflow"], key: str, known: bool, pairs: Iterable[tuple[str, Any, Any]]
) -> ItemView:
    changes = [ChangeView(field=name, before=old, after=new) for name, old, new in pairs if old != new]
    action: Literal["added", "changed", "unchanged"] = "changed" if changes else "unchanged" if known else "added"
    return ItemView(kind=kind, key=key, action=action, changes=changes)


def _items(snapshot: Snapshot, command: Apply, workflows: list[ItemView]) -> list[ItemView]:
    apps = [_item("app", app, snapshot.apps.get(app.key), app_config) for app in command.apps]
    jobs = [_item("job", job, snapshot.jobs.get(job.key), job_config) for job in command.jobs]
    left = sorted(job.key for job in command.left_out(snapshot.jobs.values()))
    action: Literal["removed", "left"] = "removed" if command.prune else "left"
    return [*apps, *jobs, *workflows, *(ItemView(kind="job", key=key, action=action, changes=[]) for key in left)]


def _item(
    kind: Literal["app", "job"], record: RecordT, known: RecordT | None, config: Callable[[RecordT], Config]
) -> ItemView:
    if known is None or known == record:
        return ItemView(kind=kind, key=record.key, action="unchanged" if known else "added", changes=[])
    before, after = (config(one).model_dump(mode="json", by_alias=True) for one in (known, record))
    changes = [ChangeView(field=name, before=old, after=new) for name, old, new in fields.differences(before, after)]
    return ItemView(kind=kind, key=record.key, action="changed", changes=changes)
