"""`jobcloud import-cron`: a manifest from crontabs, systemd timers and Quartz's XML files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, names, team_of
from jobcloud.client.import_cron.form import Form
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.client.http import Json


def import_cron(
    ctx: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR|-…", help="Files, directories of files, or - for standard input.")
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
    form: Annotated[
        Form, typer.Option("--from", help="Form of the files. auto: by their names and places.")
    ] = Form.AUTO,
    zone: Annotated[str, typer.Option(help="Time zone of schedules that name none.")] = "UTC",
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a job of the report. Repeatable.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.001, max=4096, help="CPUs of each job.")] = 0.1,
    memory_mb: Annotated[float, typer.Option(min=1, max=67_108_864, help="Memory of each job in MB.")] = 64,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the report and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a manifest from crontabs, systemd timers and Quartz XML. Exits with 1 if anything is refused.

    Executes nothing and needs no server. Register the jobs with `jobcloud apply -f FILE`.
    """
    from jobcloud.client.import_cron.report import Options, Report
    from jobcloud.client.import_cron.sources import collect

    if not dry_run and out is None:
        raise ConfigError("is missing", field="--out", fix="name a new file, or use --dry-run")
    options = Options(app, team_of(ctx), zone, cpus, memory_mb, names("--rename", rename))
    report = Report.of(collect(files, form, sys.stdin.buffer), options)
    if not dry_run and out is not None:
        written(out, report.manifest(options))
    render.show(report.document(dry_run=dry_run, options=options), render.imported_cron, as_json=as_json)
    if report.refused:
        raise typer.Exit(Exit.REFUSED)


def written(path: Path, manifest: Json) -> None:
    """Write a manifest to a new file. Raises ConfigError."""
    from jobcloud.client import documents

    text = json.dumps(manifest, indent=2) + "\n" if path.suffix == ".json" else documents.to_yaml(manifest)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", field="--out", fix="name a new file in a writable directory"
        ) from error
