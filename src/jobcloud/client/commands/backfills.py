"""`jobcloud backfill`: runs for the past fire times of a job that have no run."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, JobName, instant, key_of
from jobcloud.errors import ConfigError


def backfill(
    ctx: typer.Context,
    job: JobName,
    since: Annotated[
        str,
        typer.Option(
            "--from", metavar="TIME", help="The first instant: 2026-01-31, 2026-01-31T08:00, or how long ago: 12h."
        ),
    ] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="The last instant. Default: now.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the fire times.")] = False,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="Begin with the newest fire time. Default: with the oldest.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of runs.")] = 100,
    at_once: Annotated[
        int, typer.Option(min=1, max=100, help="Runs of the backfill at a time, if the job has concurrency 'allow'.")
    ] = 1,
    cancel: Annotated[bool, typer.Option("--cancel", help="Forget the fire times that wait.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make runs for past fire times of a job: those that had no run, or whose run is no longer kept.

    A run begins when the job has no other unfinished run, unless --at-once allows more. The command may be repeated.
    """
    if cancel == bool(since):
        raise ConfigError("is missing", field="--from", fix="give --from TIME, or --cancel without it")
    key = key_of(ctx, job)
    if cancel:
        with connect(ctx) as client:
            client.cancel_backfill(key)
        render.answer({"jobName": key, "cancelled": True}, f"the backfill of job {key} is cancelled", as_json=as_json)
        return
    given = {
        "from": instant("--from", since),
        **({"to": instant("--to", until)} if until else {}),
        "order": "newest" if newest_first else "oldest",
        "limit": limit,
        "atOnce": at_once,
        "dryRun": dry_run,
    }
    with connect(ctx) as client:
        found = client.backfill(key, given)
    render.show(found, render.backfill, as_json=as_json)
