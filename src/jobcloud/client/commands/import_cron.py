"""`jobcloud import-cron`: a manifest from crontabs, systemd timers and Quartz's XML files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.exit_codes import Exit
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
from jobcloud.client.import_cron.form import Form
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.client.http import Json


def import_cron(
    ctx: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR|-…", help="Files, directories of files, or - for standard input.")
    ],
    app: OfApp,
    out: Out = None,
    form: Annotated[
        Form, typer.Option("--from", help="Form of the files. auto: by their names and places.")
    ] = Form.AUTO,
    zone: Annotated[str, typer.Option(help="Time zone of schedules that name none.")] = "UTC",
    rename: Rename = None,
    cpus: Cpus = 0.1,
    memory_mb: MemoryMb = 64,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a manifest from crontabs, systemd timers and Quartz XML. Exits with 1 if anything is refused.

    Executes nothing and needs no server. Register the jobs with `jobcloud apply -f FILE`.
    """
    from jobcloud.client.import_cron.report import Options, Report
    from jobcloud.client.import_cron.sources import collect

    check_out(out, dry_run=dry_run)
    options = Options(app, team_of(ctx), zone, cpus, memory_mb, names("--rename", rename))
    report = Report.of(collect(files, form, sys.stdin.buffer), options)
    finish(report.document(dry_run=dry_run, options=options), report.refused, None if dry_run else out, as_json=as_json)


def check_out(out: Path | None, *, dry_run: bool) -> None:
    """Raises ConfigError if the manifest has no place."""
    if not dry_run and out is None:
        raise ConfigError("is missing", field="--out", fix="name a new file, or use --dry-run")


def finish(report: Json, refused: int, out: Path | None, *, as_json: bool) -> None:
    """Write the manifest of a report, if `out` is given, and show the report. Raises ConfigError or typer.Exit."""
    if out is not None:
        _write(out, report["manifest"])
    render.show(report, render.imported_cron, as_json=as_json)
    if refused:
        raise typer.Exit(Exit.REFUSED)


def _write(path: Path, manifest: Json) -> None:
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
