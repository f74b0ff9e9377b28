"""Commands that need no server: `jobcloud run-local` and `next`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, team_of
from jobcloud.errors import ConfigError


class Dialect(StrEnum):
    """The values of `jobcloud.cron.Dialect`. Repeated here, because the cron library is slow to import."""

    QUARTZ = "quartz"
    UNIX = "unix"


def run_local(
    ctx: typer.Context,
    app: Annotated[
        Path,
        # Resolved at once: while a shard runs, the app's directory is the working directory.
        typer.Argument(metavar="DIR", exists=True, file_okay=False, resolve_path=True, help="Directory of the app."),
    ],
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a job in the manifest of the app.")],
    shard: Annotated[
        int | None, typer.Option(min=0, help="Run only this shard. Default: all shards, one after the other.")
    ] = None,
) -> None:
    """Run a job in this process, without a cluster. Runs all shards, and exits with 1 if one fails."""
    import logging

    from jobcloud.client import local

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    failed = False
    for run in local.run_local(app, job, shard, team_of(ctx)):
        failed |= run.failed
        if run.error is not None:
            typer.echo(local.traceback_of(run.error, app), err=True, nl=False)
            render.say(f"shard {run.item} failed: {type(run.error).__name__}: {run.error}")
            continue
        ended = "failed" if run.failed else "finished"
        render.say(f"shard {run.item} {ended}: {f'handled {run.handled}' if run.handled else repr(run.result)}")
    if failed:
        raise typer.Exit(Exit.REFUSED)


def next_firings(
    cron: Annotated[str, typer.Argument(metavar="CRON", help="A cron expression such as '0 0/5 * * * ?'.")],
    zone: Annotated[str, typer.Option(help="Time zone, such as Europe/Berlin.")] = "UTC",
    dialect: Annotated[
        Dialect, typer.Option(help="Syntax of CRON. quartz has a field of seconds, unix does not.")
    ] = Dialect.QUARTZ,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Number of fire times.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Print the next fire times of a cron expression. This needs no server."""
    from jobcloud import cron as crons
    from jobcloud import zones

    try:
        schedule = crons.Schedule.parse(cron, zone=zone, dialect=crons.Dialect(dialect.value))
    except crons.CronError as error:
        raise ConfigError(str(error), field="CRON") from error
    instants = schedule.between(time.time_ns() // 1_000_000, 1 << 45, count)
    moments = [datetime.fromtimestamp(instant / 1000, UTC) for instant in instants]
    if as_json:
        times = [f"{moment:%Y-%m-%dT%H:%M:%S.000Z}" for moment in moments]
        render.show_json({"cron": cron, "timeZone": zone, "times": times})
        return
    now, local_zone = datetime.now(UTC), zones.zone(zone)
    rows = [
        (f"{moment.astimezone(local_zone):%a %Y-%m-%d %H:%M:%S %Z}", render.age((now - moment).total_seconds()))
        for moment in moments
    ]
    render.show_table(("FIRES", ""), rows, "never before the year 2100")
