"""`jobcloud apply` and `export`: all apps and jobs of files at once, with what belongs to them, and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, key_of, team_of

if TYPE_CHECKING:
    from jobcloud.client.http import Json


class Form(StrEnum):
    YAML = "yaml"
    JSON = "json"


def apply(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            "-f",
            metavar="DIR|FILE",
            exists=True,
            help="File in YAML, TOML or JSON, directory of an app, or directory with such files and apps.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show what would change. Change nothing.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove registered jobs of these apps that the files do not name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register or update the apps, jobs, pools, calendars and workflows of files: all, or none if anything is wrong.

    Prints what is new and each field that changes. Apps and jobs that do not differ stay as they are.

    Enabled apps and jobs stay enabled, disabled ones disabled.
    """
    from jobcloud.client import apps

    entries = apps.collect(file, team_of(ctx))
    with connect(ctx) as client:
        done = apps.apply(client, entries, dry_run=dry_run, prune=prune, sent=render.sent)
    render.show(done, render.applied, as_json=as_json)


def export(
    ctx: typer.Context,
    app: Annotated[str, typer.Option(help="Only this app and its jobs.")] = "",
    team: Annotated[str, typer.Option(help="Only apps and jobs of this team.")] = "",
    form: Annotated[Form, typer.Option("--format", help="Form of the output.")] = Form.YAML,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print apps and jobs, with what belongs to them, as `jobcloud apply -f` reads them, but no default values."""
    from jobcloud.client import documents
    from jobcloud.client.export import exported, limits_of, workflows_of

    with connect(ctx) as client:
        found: Json
        if app:
            key = key_of(ctx, app, "app")
            jobs = client.jobs(key)
            found = exported([client.app(key)], jobs, *limits_of(client, jobs=jobs), workflows_of(client, jobs=jobs))
        else:
            of = team or team_of(ctx)
            limits, graphs = limits_of(client, of), workflows_of(client, of)
            found = exported(client.apps(of), client.jobs(team=of), *limits, graphs)
    if as_json or form is Form.JSON:
        render.show_json(found)
    else:
        typer.echo(documents.to_yaml(found), nl=False)
