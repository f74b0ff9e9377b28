"""`jobcloud history` and `statistics`: what has ended, from the SQL database of the server."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, Limit, instant, key_of, states, team_of
from jobcloud.errors import ConfigError

_TIMES = ("minute", "hour", "day")
commands = typer.Typer(no_args_is_help=True)

Job = Annotated[str, typer.Argument(metavar="JOB", help="Only this job, as [TEAM:]NAME.")]
App = Annotated[str, typer.Option(metavar="APP", help="Only jobs of this app, as [TEAM:]NAME.")]
Since = Annotated[str, typer.Option(metavar="TIME", help="The start: how long ago, such as 30d, or a time (ISO 8601).")]
Until = Annotated[str, typer.Option(metavar="TIME", help="The end of the range, in the same forms. Default: now.")]


@commands.command("runs")
def list_runs(
    ctx: typer.Context,
    job: Job = "",
    app: App = "",
    state: Annotated[
        str,
        typer.Option(metavar="STATE,…", help="Only these states: FINISHED, FAILED, KILLED, CANCELLED, DEAD."),
    ] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List ended runs, the newest fire time first."""
    filters = _filters(ctx, job, app, since, until)
    with connect(ctx) as client:
        render.show(client.past("runs", limit, **filters, state=states(state)), render.runs, as_json=as_json)


@commands.command("attempts")
def list_attempts(
    ctx: typer.Context,
    job: Job = "",
    app: App = "",
    run: Annotated[str, typer.Option(metavar="RUN", help="Only attempts of this run.")] = "",
    outcome: Annotated[
        str, typer.Option(help="Only this outcome: SUCCEEDED, FAILED, KILLED, LOST, NOT_STARTED, INVALID or REPLACED.")
    ] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List ended attempts, the newest end first."""
    filters = _filters(ctx, job, app, since, until, run=run, outcome=outcome.upper())
    with connect(ctx) as client:
        render.show(client.past("attempts", limit, **filters), render.past_attempts, as_json=as_json)


@commands.command("events")
def list_events(
    ctx: typer.Context,
    task: Annotated[str, typer.Argument(metavar="TASK", help="Task id, from `jobcloud history attempts --json`.")],
    as_json: AsJson = False,
) -> None:
    """List the states of one attempt, oldest first."""
    with connect(ctx) as client:
        render.show(client.past_events(task), render.past_events, as_json=as_json)


def show_statistics(
    ctx: typer.Context,
    job: Job = "",
    app: App = "",
    by: Annotated[
        str,
        typer.Option(help="One row for each job, app or team, or the total; or for each minute, hour or day."),
    ] = "job",
    since: Since = "",
    until: Until = "",
    zone: Annotated[str, typer.Option(metavar="ZONE", help="The time zone of days, such as Europe/Berlin.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show successes, failures, durations, waits and resources of attempts. Default: the last 24 hours.

    By minute, hour or day it also shows what ran, waited and was registered.
    """
    by = by.lower()
    if zone and by != "day":
        raise ConfigError("has no effect", field="--zone", fix="give --by day")
    filters = _filters(ctx, job, app, since, until, by=by)
    with connect(ctx) as client:
        if by in _TIMES:
            render.show(client.series(**filters, zone=zone), render.series, as_json=as_json)
        else:
            render.show(client.statistics(limit, **filters), render.statistics, as_json=as_json)


def _filters(ctx: typer.Context, job: str, app: str, since: str, until: str, **more: str) -> dict[str, str]:
    if job:
        named = {"job": key_of(ctx, job)}
    elif app:
        named = {"app": key_of(ctx, app, "app")}
    else:
        named = {"team": "" if more.get("run") else team_of(ctx)}
    return named | {"since": instant("--since", since), "until": instant("--until", until)} | more
