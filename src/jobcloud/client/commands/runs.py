"""`jobcloud runs`, `run`, `retry` and `explain`: runs. A run is one firing of a job, or an ad-hoc run without one."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.field_help import ListsJobFields
from jobcloud.client.commands.jobs import Fields, JobFile, Waiting, assignments, read_jobs, started, with_team
from jobcloud.client.commands.options import (
    AsJson,
    JobName,
    Limit,
    Watch,
    Wide,
    grouped,
    instant,
    key_of,
    run_of,
    states,
    team_of,
)
from jobcloud.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from jobcloud.client.http import Client, Json

_NO_RUNS = "no runs: no job has fired yet"

commands = typer.Typer(no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, its beginning or its end.")]


def list_runs(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Only runs of this job.")] = "",
    state: Annotated[
        str,
        typer.Option(
            metavar="STATE,…",
            help="Only these states, such as FAILED,DEAD (DEAD: a shard used up its attempts).",
        ),
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only runs that fired since then: how long ago, such as 1d, or a time.")
    ] = "",
    limit: Limit = 20,
    wide: Wide = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List the newest runs and their results. A run is one firing of a job."""
    key = key_of(ctx, job)
    with connect(ctx) as client:
        if job:
            client.check_job(key)
        filters = {"job": key} if job else {"team": team_of(ctx)}
        given = {"JOB": job, "--state": state, "--since": since, "--team": "" if job else team_of(ctx)}
        table = partial(render.runs, wide=wide, empty=render.nothing("run", given, _NO_RUNS))
        begin = instant("--since", since)
        render.watched(
            lambda: client.runs(limit, **filters, state=states(state), since=begin),
            table,
            watch=watch,
            as_json=as_json,
        )


@commands.command("start", cls=ListsJobFields)
@grouped
def start_run(
    ctx: typer.Context,
    waiting: Waiting,
    file: JobFile = "",
    fields: Fields = None,
    key: Annotated[
        str, typer.Option(help="A name for the run. If the app has an ad-hoc run with this key, no other is started.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Run a job once without registering it. FILE and --set have the fields of a job, but no fire times."""
    configs = [one.config for one in read_jobs(file)] if file else [{}]
    if len(configs) > 1:
        raise ConfigError(f"{file} holds {len(configs)} jobs", field="FILE", fix="name a file with one job")
    config = with_team(configs[0] | assignments(fields), team_of(ctx)) | ({"key": key} if key else {})
    if not config:
        raise ConfigError("there is nothing to run", field="FILE", fix="name a file, or give --set FIELD=VALUE")
    started(ctx, lambda client: client.start_run(config), waiting, as_json=as_json)


@commands.command("show")
def show_run(
    ctx: typer.Context,
    run: RunId,
    shard: Annotated[int | None, typer.Option(min=0, help="Show the attempts of this shard.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of shards.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show a run with its shards and notes, or the attempts of one shard."""
    with connect(ctx) as client:
        run = run_of(client, run)
        if shard is None:
            notes, problem = _notes(client, run)
            shown = client.run(run) | {"notes": notes}
            render.show(shown, lambda found: render.run(found, limit), as_json=as_json)
            if not as_json:
                render.notes(notes, problem)
            return
        found = client.shard(run, shard) | {"attempts": client.attempts(run, shard)}
        render.show(found, render.shard, as_json=as_json)


def _notes(client: Client, run: str) -> tuple[list[Json] | None, str]:
    """The notes of a run. If the history does not answer: None, and why. Without a history, there are none."""
    from jobcloud.client.http import ApiError

    try:
        return client.notes(run), ""
    except ApiError as error:
        if error.status != 503:
            raise
        return ([], "") if "keeps no history" in str(error) else (None, str(error))


@commands.command("note")
def add_note(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Id of the run; its beginning or end is enough for a listed run."),
    ],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note; at most 2,000 characters.")],
    as_json: AsJson = False,
) -> None:
    """Write a note on a run, for other people. `jobcloud run show` shows it."""
    with connect(ctx) as client:
        with suppress(NotFound):  # the history may know the run
            run = run_of(client, run)
        note = client.add_note(run, text)
    render.answer(note, f"note {note['number']} is written", as_json=as_json)


@commands.command("cancel")
def cancel_run(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Cancel a run. Its running shards are killed and not repeated. Its waiting shards never start."""
    with connect(ctx) as client:
        found = client.cancel(run_of(client, run))
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
        found = client.retry(run_of(client, run), shard)
    render.answer(found, f"run {found['id']} is {found['state']}", as_json=as_json)


def explain(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Explain why a job runs or waits.

    For each resource that is missing, the answer has the requested amount and the best available one.
    """
    with connect(ctx) as client:
        render.show(client.explain(key_of(ctx, job)), render.explanation, as_json=as_json)
