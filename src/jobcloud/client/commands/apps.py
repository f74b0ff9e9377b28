"""`jobcloud app`: register, update and remove apps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AppName, AsJson, key_of, team_of

if TYPE_CHECKING:
    from jobcloud.client.http import Client

commands = typer.Typer(no_args_is_help=True)

_STATES = {
    "added": "is registered",
    "changed": "is updated",
    "unchanged": "is up to date",
    "left": "is registered, but not in the manifest (jobcloud apply --prune removes it)",
}

AppPath = Annotated[
    Path, typer.Argument(metavar="PATH", exists=True, help="Directory of the app, or its zip, tar or wheel.")
]
NewName = Annotated[
    str,
    typer.Option(
        metavar="[TEAM:]NAME", help="Name of the app. Default: the name in the manifest, otherwise the name of PATH."
    ),
]

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the roll-out until it ends.")]
Timeout = Annotated[
    str, typer.Option(metavar="DURATION", help="Maximum time to follow the roll-out, such as 10m; 0: no limit.")
]


@commands.command("add")
def add(
    ctx: typer.Context,
    path: AppPath,
    name: NewName = "",
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Also register the jobs of the manifest.")] = True,
    as_json: AsJson = False,
) -> None:
    """Pack, upload and register an app and its jobs. Run the command again after a change."""
    from jobcloud.client.apps import add_app

    with connect(ctx) as client:
        added = add_app(client, path, name=name, team=team_of(ctx), jobs=jobs, sent=render.sent)
    if as_json:
        render.show_json({"app": added.app, "jobs": list(added.jobs)})
        return
    dues = {job["jobName"]: job["nextFiring"] for job in added.jobs}
    for item in added.items:
        title, due = f"{item['kind']} {item['key']}", dues.get(item["key"]) if item["kind"] == "job" else None
        render.say(f"{title} {_STATES[item['action']]}" + (f", next run {render.moment(due)}" if due else ""))
        render.changed_fields(item["changes"])


@commands.command("update")
def update(
    ctx: typer.Context,
    path: AppPath,
    name: NewName = "",
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Also update the jobs of the manifest.")] = True,
    wait: Wait = True,
    timeout: Timeout = "0",
    as_json: AsJson = False,
) -> None:
    """Update a registered app, and follow its roll-out until all resident shards run the new version.

    Attempts of TRANSIENT jobs that start after the update use the new version.

    If the new version does not run, the command exits with 1, and the shards not yet replaced keep the old version.

    If --timeout ends before the roll-out, the command exits with 1. To follow it further, run the command again.
    """
    from jobcloud.client.apps import add_app
    from jobcloud.durations import parse_s

    limit = parse_s(timeout, "--timeout")
    with connect(ctx) as client:
        added = add_app(client, path, name=name, team=team_of(ctx), jobs=jobs, known=True, sent=render.sent)
        app = added.app["appName"]
        _follow(client, app, limit, wait=wait, as_json=as_json, command="this command")


@commands.command("versions")
def versions(ctx: typer.Context, app: AppName, as_json: AsJson = False) -> None:
    """List the kept versions of an app: when and by whom they were registered, and which executors run them."""
    with connect(ctx) as client:
        render.show(client.versions(key_of(ctx, app, "app")), render.versions, as_json=as_json)


@commands.command("rollback")
def rollback(
    ctx: typer.Context,
    app: AppName,
    version: Annotated[
        int,
        typer.Argument(
            min=0, metavar="[VERSION]", help="Number of the version. Default: the version before the present one."
        ),
    ] = 0,
    wait: Wait = True,
    timeout: Timeout = "0",
    as_json: AsJson = False,
) -> None:
    """Update an app to an earlier version: its package and its configuration. Its jobs do not change.

    This is an ordinary update, and the command follows its roll-out as `app update` does.
    """
    from jobcloud.durations import parse_s

    limit, key = parse_s(timeout, "--timeout"), key_of(ctx, app, "app")
    with connect(ctx) as client:
        client.roll_back(key, version)
        version = next(one["number"] for one in client.versions(key) if one["current"])
        if not as_json:
            render.say(f"app {key} has version {version} again")
        _follow(client, key, limit, wait=wait, as_json=as_json, command=f"jobcloud app rollback {key} {version}")


def _follow(client: Client, app: str, limit: float, *, wait: bool, as_json: bool, command: str) -> None:
    """Follow a roll-out for `limit` seconds; 0: without a limit. Exits with 1 if it is not done.

    `command` follows it again.
    """
    state = client.rollout(app)
    for state in client.follow_rollout(app, limit or math.inf) if wait else ():
        if not as_json:
            render.rollout(state)
    if as_json:
        render.show_json(state)
    elif not wait:
        render.say(f"the new version of app {app} is registered; its roll-out is {state['state']}")
    elif state["state"] == "rolling":
        render.say(f"the roll-out of app {app} continues after {limit:g} s; run {command} again to follow it")
    if wait and state["state"] != "done":
        raise typer.Exit(Exit.REFUSED)


@commands.command("init")
def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory to create. Its name becomes the name of the app.")
    ],
) -> None:
    """Create a small working app: a job, its test and a manifest."""
    from jobcloud.client.skeleton import init_app

    for path in init_app(directory):
        render.say(f"wrote {path}")
    render.say(f"try it: jobcloud run-local {directory} hello")


@commands.command("list")
def list_apps(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List apps."""
    with connect(ctx) as client:
        render.show(client.apps(team_of(ctx)), render.apps, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, app: AppName, as_json: AsJson = False) -> None:
    """Show an app and its configuration."""
    with connect(ctx) as client:
        render.show(client.app(key_of(ctx, app, "app")), render.app, as_json=as_json)


@commands.command("remove")
def remove(
    ctx: typer.Context,
    app: AppName,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also remove the jobs of the app, and kill their tasks.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove an app. Refused while the app has jobs, unless --jobs is given."""
    key = key_of(ctx, app, "app")
    with connect(ctx) as client:
        client.remove_app(key, jobs=jobs)
    render.answer({"appName": key, "removed": True}, f"app {key} is removed", as_json=as_json)


@commands.command("enable")
def enable(ctx: typer.Context, app: AppName, as_json: AsJson = False) -> None:
    """Enable an app. Its jobs fire again, unless they are disabled themselves."""
    with connect(ctx) as client:
        render.show(client.switch_app(key_of(ctx, app, "app"), enabled=True), render.app, as_json=as_json)


@commands.command("disable")
def disable(ctx: typer.Context, app: AppName, as_json: AsJson = False) -> None:
    """Disable an app. Its jobs do not fire, and their tasks are killed."""
    with connect(ctx) as client:
        render.show(client.switch_app(key_of(ctx, app, "app"), enabled=False), render.app, as_json=as_json)
