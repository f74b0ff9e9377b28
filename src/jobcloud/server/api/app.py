"""The API as one ASGI app: routes, errors as problem details, the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

import jobcloud
from jobcloud.archive.service import Archive
from jobcloud.errors import JobcloudError
from jobcloud.history.elastic_job import Statistics, TraceSearch
from jobcloud.history.queries import Reader
from jobcloud.server.api import ad_hoc_runs, alerts, apply, apps, attempts, cluster, jobs, logs, runs, tasks
from jobcloud.server.api import history as history_api
from jobcloud.server.api import packages as packages_api
from jobcloud.server.api.apply import ApplyBody
from jobcloud.server.api.elastic_job.answers import answer
from jobcloud.server.api.elastic_job.routes import PREFIX as ELASTIC_JOB_PREFIX
from jobcloud.server.api.elastic_job.routes import routes as elastic_job_routes
from jobcloud.server.api.events import Notices
from jobcloud.server.api.follow import Followers
from jobcloud.server.api.guard import Guard, check_bind
from jobcloud.server.api.patch import SUFFIX, patch_schema
from jobcloud.server.api.ports import AlertChannels, LogReader, Loop
from jobcloud.server.api.problems import MEDIA_TYPE, Issue, Problem, from_error, from_status, invalid
from jobcloud.server.api.schema import (
    AdHocConfig,
    AppConfig,
    BackfillConfig,
    JobConfig,
    ProblemView,
    SilenceConfig,
    TriggerConfig,
)
from jobcloud.server.api.services import ApiOptions, Services
from jobcloud.server.api.standby import Standby
from jobcloud.server.api.streams import refused_stream
from jobcloud.server.api.surplus import refuse_surplus
from jobcloud.server.clock import wall_ms
from jobcloud.server.origin import Origin
from jobcloud.server.packages import PackageStore

PREFIX = "/api/v1"


def create_api(
    loop: Loop,
    packages: PackageStore,
    options: ApiOptions,
    *,
    notices: Notices | None = None,
    followers: Followers | None = None,
    origin: Origin | None = None,
    read_log: LogReader | None = None,
    teardown: Callable[[], None] | None = None,
    clock: Callable[[], int] = wall_ms,
    warnings: Callable[[], Sequence[str]] = tuple,
    history: Reader | None = None,
    more_routes: Iterable[APIRouter] = (),
    traces: TraceSearch | None = None,
    statistics: Statistics | None = None,
    standby: Standby | None = None,
    archive: Archive | None = None,
    alert_channels: AlertChannels | None = None,
) -> FastAPI:
    """The API behind its guard. `more_routes` have their own prefix and are behind the guard too.

    `standby` answers while this scheduler does not lead, if there can be another one.

    Raises ConfigError if the API would be open to other machines without a token.
    """
    check_bind(options.host, options.access.token)
    app = FastAPI(
        title="jobcloud",
        version=jobcloud.__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Guard, access=options.access, standby=standby)],
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
    )
    notices = notices or Notices()
    followers = followers or Followers(notices)
    origin = origin or Origin(packages, options.urls)
    app.state.services = Services(
        loop,
        packages,
        origin,
        options,
        notices,
        followers,
        read_log,
        teardown,
        clock,
        warnings,
        history,
        traces,
        statistics,
        archive,
        alert_channels,
    )
    resources = (
        apps, apply, packages_api, jobs, tasks, logs, runs, ad_hoc_runs, attempts, history_api, alerts, cluster,
    )  # fmt: skip
    routers = [(resource.router, PREFIX) for resource in resources]
    routers += [(extra, "") for extra in more_routes]
    for router, prefix in routers:
        app.include_router(router, prefix=prefix, dependencies=[Depends(refuse_surplus)])
    if options.elastic_job.enabled:
        for router in elastic_job_routes():
            app.include_router(router, prefix=ELASTIC_JOB_PREFIX, include_in_schema=False)
            routers.append((router, ELASTIC_JOB_PREFIX))
    app.state.routers = routers
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
    return refused_stream(request.scope, problem) or answer(request.scope["path"], problem, by_route=by_route)


def _allowed(request: Request) -> str:
    """The methods of a resource. Each method has a route of its own."""
    path = request.scope["path"]
    methods = {
        method
        for router, prefix in request.app.state.routers
        for route in router.routes
        if isinstance(route, Route) and route.path_regex.match(path.removeprefix(prefix))
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods or {"GET", "HEAD"}))


def _parameter_issues(error: RequestValidationError) -> Iterable[Issue]:
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"][1:])[:200]
        problem = "is not a known parameter" if fault["type"] == "extra_forbidden" else str(fault["msg"])
        yield Issue(name, problem, "leave it out" if fault["type"] == "extra_forbidden" else "")


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document, with the token and the problem documents of all operations."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _add_schemas(document["components"]["schemas"])
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        problem = {
            "description": "A problem document (RFC 9457)",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemView"}}},
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
                operation["security"] = [] if path == f"{PREFIX}/health" else [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema


def _add_schemas(schemas: dict[str, Any]) -> None:
    """Add the schemas that are in no route's signature."""
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    models = (
        AppConfig, JobConfig, AdHocConfig, ApplyBody, TriggerConfig, BackfillConfig, SilenceConfig, ProblemView,
    )  # fmt: skip
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    for config in (AppConfig, JobConfig):
        schemas[config.__name__ + SUFFIX] = patch_schema(schemas[config.__name__], schemas)
