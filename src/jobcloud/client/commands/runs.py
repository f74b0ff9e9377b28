"""`jobcloud runs`, `run`, `retry` and `explain`: the runs of jobs. A run is one firing of a job."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, JobName, Limit, Watch, Wide, key_of, team_of

_NO_RUNS = "no runs: no job has fired yet"

commands = typer.Typer(no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, from `jobcloud runs`.")]


def list_runs(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Only runs of this job.")] = "",
    state: Annotated[
        str,
        typer.Option(help="Only runs in this state, such as ACTIVE, FAILED or DEAD (a shard used up its attempts)."),
    ] = "",
    limit: Limit = 20,
    wide: Wide = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List the newest runs and their results. A run is one firing of a job."""
    with connect(ctx) as client:
        if job:
            client.job(key_of(ctx, job))  # raises if the job does not exist
        filters = {"job": key_of(ctx, job)} if job else {"team": team_of(ctx)}
        given = {"JOB": job, "--state": state, "--team": "" if job else team_of(ctx)}
        table = partial(render.runs, wide=wide, empty=render.nothing("run", given, _NO_RUNS))
        render.watched(
            lambda: render.show(client.runs(limit, **filters, state=state.upper()), table, as_json=as_json), watch=watch
        )


@commands.command("show")
def show_run(
    ctx: typer.Context,
    run: RunId,
    shard: Annotated[int | None, typer.Option(min=0, help="Show the attempts of this shard.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of shards.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show a run with its shards, or the attempts of one shard."""
    with connect(ctx) as client:
        if shard is None:
            render.show(client.run(run), lambda found: render.run(found, limit), as_json=as_json)
            return
        found = client.shard(run, shard) | {"attempts": client.attempts(run, shard)}
        render.show(found, render.shard, as_json=as_json)


@commands.command("cancel")
def cancel_run(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Cancel a run. Its running shards are killed and not repeated. Its waiting shards never start."""
    with connect(ctx) as client:
        found = client.cancel(run)
    ending = found["shardStates"].get("ACTIVE", 0)
    text = f"run {found['id']} is cancelled" + (f"; running shards that are being killed: {ending}" if ending else "")
    render.answer(found, text, as_json=as_json)


def retry(
    ctx: typer.Context,
    run: RunId,
    shard: Annotated[
        int | None, typer.Option(min=0, help="Start only this shard. Default: all DEAD, FAILED and KILLED shards.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the DEAD, FAILED and KILLED shards of a run again. Each gets the full number of repeats."""
    with connect(ctx) as client:
        found = client.retry(run, shard)
    render.answer(found, f"run {found['id']} is {found['state']}", as_json=as_json)


def explain(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Explain why a job runs or waits.

    For each resource that is missing, the answer has the requested amount and the best available one.
    """
    with connect(ctx) as client:
        render.show(client.explain(key_of(ctx, job)), render.explanation, as_json=as_json)
