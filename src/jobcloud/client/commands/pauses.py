"""`jobcloud pause` and `resume`: keep a job, an app or everything from starting anything."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, key_of
from jobcloud.errors import ConfigError

Job = Annotated[str, typer.Argument(metavar="JOB", help="The job, as [TEAM:]NAME.")]
App = Annotated[str, typer.Option(help="All jobs of this app.")]
All = Annotated[bool, typer.Option("--all", help="All jobs of all apps.")]


def pause(ctx: typer.Context, job: Job = "", app: App = "", everything: All = False, as_json: AsJson = False) -> None:
    """Pause a job, an app or everything: nothing fires, no shard starts, but running shards continue.

    `jobcloud resume` ends the pause. To kill what runs, disable the job or the app.
    """
    _set(ctx, job, app, everything, as_json, paused=True)


def resume(ctx: typer.Context, job: Job = "", app: App = "", everything: All = False, as_json: AsJson = False) -> None:
    """End a pause. The job's field catchUp decides about the firings that the pause prevented."""
    _set(ctx, job, app, everything, as_json, paused=False)


def _set(ctx: typer.Context, job: str, app: str, everything: bool, as_json: bool, *, paused: bool) -> None:
    if bool(job) + bool(app) + everything != 1:
        raise ConfigError("not exactly one of JOB, --app and --all is given", field="JOB", fix="such as --app reports")
    with connect(ctx) as client:
        found = client.pause(job=key_of(ctx, job), app=key_of(ctx, app, "app"), paused=paused)
    what = "everything" if everything else f"app {found['appName']}" if app else f"job {found['jobName']}"
    text = f"{what} is {'paused' if paused else 'resumed'}"
    held = [word for word in found.get("pausedBy", ()) if not paused]
    if held:
        text += f", but still held: {', '.join(_HELD[word] for word in held)}"
    render.answer(found, text, as_json=as_json)


_HELD = {"job": "the job is paused", "app": "its app is paused", "cluster": "everything is paused"}
