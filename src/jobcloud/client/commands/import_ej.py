"""`jobcloud import-ej`: register the apps and jobs of an Elastic-Job-Cloud here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, names, team_of
from jobcloud.client.commands.server import server_libraries
from jobcloud.errors import ConfigError


def import_elastic_job(
    ctx: typer.Context,
    zookeeper: Annotated[str, typer.Option(metavar="HOST:PORT,…", help="ZooKeeper servers of Elastic-Job-Cloud.")],
    namespace: Annotated[
        str, typer.Option(help="The setting zk_namespace of Elastic-Job-Cloud.")
    ] = "elastic-job-cloud",
    auth_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the setting zk_digest of Elastic-Job-Cloud: USER:PASSWORD."),
    ] = None,
    zone: Annotated[str, typer.Option(help="Time zone of the scheduler of Elastic-Job-Cloud.")] = "UTC",
    package: Annotated[
        list[str] | None,
        typer.Option(metavar="APP=DIR|FILE", help="Package of an app that you have adapted to jobcloud. Repeatable."),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="For apps without --package: use the package at appURL, unchanged.")
    ] = False,
    rename_app: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Name of an app here, in place of its old one. Repeatable."),
    ] = None,
    rename_job: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Name of a job here, in place of its old one. Repeatable."),
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Register every job as disabled.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import apps and jobs from Elastic-Job-Cloud 2.1.5. Exits with 1 if an app or a job is refused."""
    from jobcloud.client import import_ej

    _check_zone(zone)
    _check_team(ctx)
    apps, jobs = names("--rename-app", rename_app), names("--rename-job", rename_job)
    options = import_ej.Options(zone, _packages(package), fetch, disabled, dry_run, apps, jobs)
    with server_libraries():
        from jobcloud.adapters.zookeeper.elastic_job import read_tree
        from jobcloud.server.api.convert import check
    tree = read_tree(zookeeper, namespace, _digest(auth_file))
    with connect(ctx) as client:
        report = import_ej.import_tree(client, tree, namespace, options, check)
    render.show(report.document(), render.imported, as_json=as_json)
    if report.refused:
        raise typer.Exit(Exit.REFUSED)


def _check_team(ctx: typer.Context) -> None:
    """Raises ConfigError if --team names another team than `default`."""
    from jobcloud.config import DEFAULT_TEAM

    if team_of(ctx) not in ("", DEFAULT_TEAM):
        fix = "leave out --team, and unset JOBCLOUD_TEAM"
        raise ConfigError(f"imports go to the team {DEFAULT_TEAM!r}", field="--team", fix=fix)


def _check_zone(zone: str) -> None:
    """Raises ConfigError if the zone is unknown."""
    from jobcloud import cron as crons

    try:
        crons.find_zone(zone)
    except crons.CronError as error:
        raise ConfigError(str(error), field="--zone") from error


def _packages(given: list[str] | None) -> dict[str, Path]:
    """The path of each app. Raises ConfigError if a text is not APP=PATH, or if its path does not exist."""
    found = {}
    for text in given or ():
        app, sign, path = text.partition("=")
        if not (app and sign and Path(path).exists()):
            problem = f"{text!r} is not an app and an existing path"
            raise ConfigError(problem, field="--package", fix="give APP=DIR or APP=FILE")
        found[app] = Path(path)
    return found


def _digest(path: Path | None) -> str:
    """The content of the file, or "" without a file. Raises ConfigError if the file cannot be read."""
    try:
        return path.read_text().strip() if path else ""
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", field="--auth-file", fix="name a readable text file"
        ) from error
