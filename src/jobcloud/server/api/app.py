"""The API as one ASGI app: routes, errors as problem details, the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

import jobcloud
from jobcloud.access.directory import EMPTY, Directory
from jobcloud.archive.service import Archive
from jobcloud.audit.service import Audit
from jobcloud.errors import JobcloudError
from jobcloud.history.elastic_job import Statistics, TraceSearch
from jobcloud.scheduler import Scheduler
from jobcloud.server.api import (
    ad_hoc_runs,
    alerts,
    apply,
    apps,
    attempts,
    calendars,
    cluster,
    console,
    hooks,
    jobs,
    logs,
    pools,
    roles,
    runs,
    series,
    service_accounts,
    sessions,
    sign_in_options,
    tasks,
    teams,
    tokens,
    users,
    whoami,
    workflows,
)
from jobcloud.server.api import audit as audit_api
from jobcloud.server.api import history as history_api
from jobcloud.server.api import notes as notes_api
from jobcloud.server.api import packages as packages_api
from jobcloud.server.api.authorization import authorize
from jobcloud.server.api.certificates import Certificates
from jobcloud.server.api.description import describe
from jobcloud.server.api.digests import Digests
from jobcloud.server.api.elastic_job.answers import answer
from jobcloud.server.api.elastic_job.routes import PREFIX as ELASTIC_JOB_PREFIX
from jobcloud.server.api.elastic_job.routes import routes as elastic_job_routes
from jobcloud.server.api.events import Notices
from jobcloud.server.api.follow import Followers
from jobcloud.server.api.guard import Guard, check_bind
from jobcloud.server.api.identities import ApiTokens, Identities, ServerToken, Sessions, Source
from jobcloud.server.api.overviews import Overviews
from jobcloud.server.api.pages.routes import router as pages_router
from jobcloud.server.api.ports import AlertChannels, LogReader, Loop
from jobcloud.server.api.problems import Issue, Problem, from_error, from_status, invalid
from jobcloud.server.api.recording import RecordedLoop, Recording, note_problem
from jobcloud.server.api.services import ApiOptions, MissingSecrets, Services, WebhookKeys
from jobcloud.server.api.standby import Standby
from jobcloud.server.api.streams import refused_stream
from jobcloud.server.api.surplus import refuse_surplus
from jobcloud.server.clock import wall_ms
from jobcloud.server.console.routes import router as console_router
from jobcloud.server.identity.sessions import UseNotes
from jobcloud.server.origin import Origin
from jobcloud.server.packages import PackageStore
from jobcloud.server.routes import ApiRoute, Routes, routes_of

if TYPE_CHECKING:
    from jobcloud.history.notes import Notes
    from jobcloud.history.queries import Reader
    from jobcloud.server.identity.oidc.provider import Provider

PREFIX = "/api/v1"
_RESOURCES = (
    apps, apply, packages_api, jobs, calendars, tasks, logs, runs, notes_api, ad_hoc_runs, attempts, history_api,
    series, alerts, pools, workflows, cluster, console, users, teams, roles, service_accounts, tokens, whoami,
    audit_api, sessions, hooks,
)  # fmt: skip


_AUTHORIZED = (Depends(authorize),)
_CHECKED = (*_AUTHORIZED, Depends(refuse_surplus))


@cache
def _resource_routes() -> tuple[ApiRoute, ...]:
    """The routes of the resources. All APIs of a process share them: FastAPI takes milliseconds to build each one."""
    return tuple(route for resource in _RESOURCES for route in resource.router.placed(PREFIX, _CHECKED))


def create_api(
    loop: Loop,
    packages: PackageStore,
    options: ApiOptions,
    *,
    notices: Notices | None = None,
    followers: Followers | None = None,
    digests: Digests | None = None,
    overviews: Overviews | None = None,
    origin: Origin | None = None,
    read_log: LogReader | None = None,
    teardown: Callable[[], None] | None = None,
    clock: Callable[[], int] = wall_ms,
    warnings: Callable[[], Sequence[str]] = tuple,
    history: Reader | None = None,
    notes: Notes | None = None,
    more_routes: Iterable[Routes] = (),
    traces: TraceSearch | None = None,
    statistics: Statistics | None = None,
    standby: Standby | None = None,
    archive: Archive | None = None,
    alert_channels: AlertChannels | None = None,
    directory: Callable[[], Directory] = lambda: EMPTY,
    missing_secrets: MissingSecrets | None = None,
    webhook_keys: WebhookKeys | None = None,
    oidc: Provider | None = None,
    audit: Audit | None = None,
    core: Callable[[], Scheduler | None] = lambda: None,
) -> FastAPI:
    """The API behind its guard. `more_routes` have their own prefix and are behind the guard too.

    `core` is the present scheduler, for the audit log. It is called on the scheduler's thread.
    `standby` answers while this scheduler does not lead, if there can be another one. `oidc` is the identity provider.

    Raises ConfigError if the API would be open to other machines without a token.
    """
    check_bind(options.host, options.access.token)
    access = options.access
    server_token = ServerToken(
        access.token,
        metrics_token=access.metrics_token,
        elastic_job_without_token=access.elastic_job_without_token,
    )
    in_browsers = Sessions(options, clock, directory, UseNotes(loop.command, clock).note)
    sources: list[Source] = [server_token, ApiTokens(clock), in_browsers]
    if oidc is not None:
        from jobcloud.server.api.oidc_tokens import OidcTokens

        sources.append(OidcTokens(oidc, clock))
    if options.client_name is not None:
        sources.append(Certificates(options.client_name, clock))
    identities = Identities(sources, directory)
    app = FastAPI(
        title="jobcloud",
        version=jobcloud.__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Recording, audit=audit),
            Middleware(Guard, access=access, identities=identities, standby=standby, sessions=options.sessions),
        ],
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    notices = notices or Notices()
    followers = followers or Followers(notices)
    overviews = overviews or Overviews(loop, clock, warnings, options.machine)
    digests = digests or Digests(notices, overviews)
    origin = origin or Origin(packages, options.urls)
    app.state.identities = identities
    app.state.services = Services(
        loop if audit is None else RecordedLoop(loop, audit, core),
        packages,
        origin,
        options,
        notices,
        followers,
        digests,
        overviews,
        read_log,
        teardown,
        clock,
        warnings,
        history,
        traces,
        statistics,
        archive,
        alert_channels,
        missing_secrets,
        notes,
        webhook_keys,
    )
    routes = [*_resource_routes()]
    routes += sign_in_options.router(oidc.options if oidc is not None else None).placed(PREFIX, _CHECKED)
    if oidc is not None and oidc.options.client_id:
        from jobcloud.server.api import oidc as oidc_api
        from jobcloud.server.identity.oidc.sign_in import SignIns

        routes += oidc_api.router(oidc, SignIns(oidc, clock)).placed("", _CHECKED)
    for more in more_routes:
        routes += more.placed("", _CHECKED)
    if options.elastic_job.enabled:
        for more in elastic_job_routes():
            routes += more.placed(ELASTIC_JOB_PREFIX, _AUTHORIZED, in_schema=False)
    for more in (pages_router, console_router):
        routes += more.placed("", _AUTHORIZED, in_schema=False)
    app.router.routes.extend(routes)
    for kind in (Problem, JobcloudError, TimeoutError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def _answer(request: Request, error: Exception) -> Response:
    """The answer for an error. The guard logs unexpected errors."""
    by_route = True
    if isinstance(error, RequestValidationError):
        problem = invalid(_parameter_issues(error))
    elif isinstance(error, HTTPException):
        headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
        problem = from_status(error.status_code, str(error.detail), headers)
        by_route = False
    else:
        problem = from_error(error) or Problem("internal", "The server failed to answer. Its log has the reason.")
    note_problem(request.scope, problem)
    return refused_stream(request.scope, problem) or answer(request.scope["path"], problem, by_route=by_route)


def _allowed(request: Request) -> str:
    """The methods of a resource. Each method has a route of its own."""
    path = request.scope["path"]
    methods = {route.method for route in routes_of(request.app.routes) if route.path_regex.match(path)}
    return ", ".join(sorted(methods or {"GET", "HEAD"}))


def _parameter_issues(error: RequestValidationError) -> Iterable[Issue]:
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"][1:])[:200]
        problem = "is not a known parameter" if fault["type"] == "extra_forbidden" else str(fault["msg"])
        yield Issue(name, problem, "leave it out" if fault["type"] == "extra_forbidden" else "")


def _describe(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = describe(app)
    return app.openapi_schema
