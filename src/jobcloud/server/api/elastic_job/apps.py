"""Apps in Elastic-Job-Cloud's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from jobcloud.config import DEFAULT_TEAM, App
from jobcloud.elastic_job.conversion import translate_app, with_numbers
from jobcloud.elastic_job.forms import app_form
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import RemoveApp, SetAppEnabled
from jobcloud.server.api.apps import put_app
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import PACKAGE_SCHEME, app_config, read_app
from jobcloud.server.api.elastic_job.answers import done, is_own, missing, own, shown
from jobcloud.server.api.elastic_job.bodies import Given
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.api.threads import apart
from jobcloud.server.routes import Routes

router = Routes()

# Stands for the hash of a package that is not fetched yet, while the other fields are checked.
_UNKNOWN = "0" * 64
_SCRIPT_NOTE = "bootstrapScript: it must start a worker of jobcloud; Elastic-Job's own executor does not run here"


@router.post("/app")
async def register_app(request: Request, services: ServicesDep, given: Given) -> Response:
    notes: list[str] = []
    config = translate_app(with_numbers(given), notes)
    app = await run_in_threadpool(read_app, _with_hash(config), services.options.urls)
    if await run_in_threadpool(_app, services, app.key) is not None:
        raise Conflict(f"app {app.key} exists", field="appName", fix="update it, or choose another name")
    await _put(services, app, config, replace_it=False)
    return done(request, [*notes, _SCRIPT_NOTE] if app.bootstrap_script else notes)


@router.put("/app")
async def update_app(request: Request, services: ServicesDep, given: Given) -> Response:
    """Change the given fields of an app. If `appURL` is given, its present content becomes the app's package."""
    notes: list[str] = []
    changes = translate_app(with_numbers(given), notes)
    name = changes.get("appName")
    config: dict[str, Any] = {}
    if isinstance(name, str):
        known = await run_in_threadpool(_app, services, own(name, "app"))
        if known is None:
            raise NotFound(f"there is no app {name[:200]}", field="appName", fix="register it first")
        config = _config(known)
    if "appURL" in changes:
        config.pop("packageSha256", None)
    config |= changes
    app = await run_in_threadpool(read_app, _with_hash(config), services.options.urls)
    await _put(services, app, config, replace_it=True)
    return done(request, notes)


@router.get("/app/list")
def list_apps(request: Request, services: ServicesDep) -> Response:
    apps = services.snapshot().apps
    return shown(request, [app_form(apps[key]) for key in sorted(apps) if apps[key].team == DEFAULT_TEAM])


@router.get("/app/{name}")
def show_app(request: Request, services: ServicesDep, name: str) -> Response:
    app = _app(services, name)
    return missing(request) if app is None or app.team != DEFAULT_TEAM else shown(request, app_form(app))


@router.delete("/app/{name}")
def remove_app(request: Request, services: ServicesDep, name: str) -> Response:
    """Remove an app and its jobs. Nothing happens if there is none."""
    try:
        key = own(name, "app")
        with services.packages.guard:
            services.command(lambda at: RemoveApp(at, key, jobs=True))
            services.collect_packages()
    except NotFound as error:
        return done(request, [str(error)])
    return done(request)


@router.get("/app/{name}/disable")
def is_app_disabled(request: Request, services: ServicesDep, name: str) -> Response:
    disabled = services.loop.ask(lambda scheduler: name in scheduler.disabled_apps)
    return shown(request, disabled and is_own(name))


@router.post("/app/{name}/disable")
def disable_app(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _switch(services, name, enabled=False))


@router.delete("/app/{name}/disable")
def enable_app(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _switch(services, name, enabled=True))


@router.post("/app/{name}/enable")
def enable_app_of_3(request: Request, services: ServicesDep, name: str) -> Response:
    return done(request, _switch(services, name, enabled=True), version_3=True)


def _switch(services: Services, name: str, *, enabled: bool) -> list[str]:
    """Enable or disable an app. If there is no such app, nothing happens, and a note is returned."""
    try:
        key = own(name, "app")
        services.command(lambda at: SetAppEnabled(at, key, enabled))
    except NotFound as error:
        return [str(error)]
    return []


async def _put(services: Services, app: App, config: Mapping[str, Any], *, replace_it: bool) -> None:
    """Store an app. If the hash of its package is not known, the package is fetched."""
    url = app.package.url
    if app.package.sha256 == _UNKNOWN and not url.startswith(PACKAGE_SCHEME):
        package = await apart(lambda: services.origin.fetch(url))
        app = await run_in_threadpool(read_app, {**config, "packageSha256": package.sha256}, services.options.urls)
    await put_app(services, app, replace_it=replace_it)


def _with_hash(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that can be checked although the hash of its package is not known."""
    url = config.get("appURL")
    known = "packageSha256" in config or (isinstance(url, str) and url.startswith(PACKAGE_SCHEME))
    return {**config} if known else {**config, "packageSha256": _UNKNOWN}


def _config(app: App) -> dict[str, Any]:
    """The JSON of an app, with exact numbers."""
    found: dict[str, Any] = parse(app_config(app).model_dump_json(by_alias=True).encode())
    return found


def _app(services: Services, key: str) -> App | None:
    return services.loop.ask(lambda scheduler: scheduler.apps.get(key))
