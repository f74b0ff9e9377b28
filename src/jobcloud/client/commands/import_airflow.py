"""`jobcloud import-airflow`: a manifest from Airflow's DAG files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.import_cron import written
from jobcloud.client.commands.options import AsJson, names, team_of
from jobcloud.errors import ConfigError


def import_airflow(
    ctx: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR…", help="DAG files, or directories with *.py in them and below.")
    ],
    app: Annotated[str, typer.Option(help="App of the jobs. Register it before the jobs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="New file for the manifest: JSON if its name ends in .json, otherwise YAML.",
        ),
    ] = None,
    zone: Annotated[str, typer.Option(help="Time zone of DAGs whose start_date names none.")] = "UTC",
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a job of the report. Repeatable.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.001, max=4096, help="CPUs of each job.")] = 0.1,
    memory_mb: Annotated[float, typer.Option(min=1, max=67_108_864, help="Memory of each job in MB.")] = 64,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the report and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a manifest with jobs and workflows from DAG files of Airflow. Exits with 1 if anything is refused.

    Executes nothing and needs no server. Register them with `jobcloud apply -f FILE`.
    """
    from jobcloud.client.import_airflow.report import Report
    from jobcloud.client.import_cron.report import Options

    if not dry_run and out is None:
        raise ConfigError("is missing", field="--out", fix="name a new file, or use --dry-run")
    options = Options(app, team_of(ctx), zone, cpus, memory_mb, names("--rename", rename))
    report = Report.of(files, options)
    if not dry_run and out is not None:
        written(out, report.manifest(options))
    render.show(report.document(dry_run=dry_run, options=options), render.imported_cron, as_json=as_json)
    if report.refused:
        raise typer.Exit(Exit.REFUSED)
