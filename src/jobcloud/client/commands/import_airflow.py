"""`jobcloud import-airflow`: a manifest from Airflow's DAG files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobcloud.client.commands.import_cron import check_out, finish
from jobcloud.client.commands.options import (
    AsJson,
    Cpus,
    DryRun,
    MemoryMb,
    OfApp,
    Out,
    Rename,
    names,
    team_of,
)


def import_airflow(
    ctx: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR…", help="DAG files, or directories with *.py in them and below.")
    ],
    app: OfApp,
    out: Out = None,
    zone: Annotated[str, typer.Option(help="Time zone of DAGs whose start_date names none.")] = "UTC",
    rename: Rename = None,
    cpus: Cpus = 0.1,
    memory_mb: MemoryMb = 64,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a manifest with jobs and workflows from DAG files of Airflow. Exits with 1 if anything is refused.

    Executes nothing and needs no server. Register them with `jobcloud apply -f FILE`.
    """
    from jobcloud.client.import_airflow.report import Report
    from jobcloud.client.import_cron.report import Options

    check_out(out, dry_run=dry_run)
    options = Options(app, team_of(ctx), zone, cpus, memory_mb, names("--rename", rename))
    report = Report.of(files, options)
    finish(report.document(dry_run=dry_run, options=options), report.refused, None if dry_run else out, as_json=as_json)
