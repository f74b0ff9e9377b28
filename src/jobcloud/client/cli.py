"""`jobcloud`, the command line: a thin client of the REST API. docs/cli.md lists the commands and exit codes.

The commands are in `jobcloud.client.commands`. This module imports the one that runs, defines the options before a
command, and turns errors into messages and exit codes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_group

import jobcloud
from jobcloud.client import render
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import GlobalOptions
from jobcloud.errors import ConfigError, Conflict, JobcloudError, NotFound, Refused

if TYPE_CHECKING:
    from jobcloud.client.http import ApiError, Json


class _Place(NamedTuple):
    """Where a command is: its module of `commands` and its name there. `help` is the text of a group of commands."""

    module: str
    attribute: str
    help: str = ""


#: panel of the help → its commands in their order
PANELS = {
    "Start a server": {
        "dev": _Place("server", "run_dev"),
        "scheduler": _Place("server", "run_scheduler"),
        "backup": _Place("backup", "back_up"),
        "restore": _Place("backup", "restore"),
        "state": _Place("state", "commands", "Stored state: copy it to another store."),
    },
    "Apps and jobs": {
        "app": _Place("apps", "commands", "Apps: packages of code, with their jobs."),
        "job": _Place("jobs", "commands", "Jobs: code of an app, a schedule and shards."),
        "workflow": _Place(
            "workflows", "commands", "Workflows: which job runs after which, and the runs of these graphs."
        ),
        "calendar": _Place(
            "calendars", "commands", "Calendars: days on which jobs do not fire, or the only days on which they fire."
        ),
        "pause": _Place("pauses", "pause"),
        "resume": _Place("pauses", "resume"),
        "apply": _Place("apply", "apply"),
        "export": _Place("apply", "export"),
        "run-local": _Place("local", "run_local"),
    },
    "Runs and tasks": {
        "runs": _Place("runs", "list_runs"),
        "run": _Place("runs", "commands", "Runs: start an ad-hoc run, show a run, cancel it."),
        "tasks": _Place("tasks", "list_tasks"),
        "task": _Place("tasks", "commands", "Tasks: show one, declare one lost."),
        "logs": _Place("tasks", "logs"),
        "queue": _Place("queue", "queue"),
        "explain": _Place("runs", "explain"),
        "retry": _Place("runs", "retry"),
        "backfill": _Place("backfills", "backfill"),
        "kill": _Place("tasks", "kill"),
        "history": _Place("history", "commands", "History: ended runs and attempts, from a database."),
        "statistics": _Place("history", "show_statistics"),
    },
    "Cluster": {
        "cluster": _Place("cluster", "show_cluster"),
        "executors": _Place("cluster", "list_executors"),
        "events": _Place("events", "events"),
        "alerts": _Place("alerts", "commands", "Alerts: list them, silence some, test a channel."),
        "pool": _Place("pools", "commands", "Pools: limits across jobs, such as 5 shards on one database."),
        "agent": _Place("cluster", "agent_commands", "Agents: drain one before maintenance."),
        "framework": _Place("cluster", "framework_commands", "Framework: remove it from Mesos."),
        "audit": _Place("audit", "commands", "Audit log: who did what, and whether somebody has changed the log."),
    },
    "Access": {
        "login": _Place("login", "login"),
        "logout": _Place("login", "logout"),
        "whoami": _Place("whoami", "show_who"),
        "login-link": _Place("sessions", "make_link"),
        "session": _Place("sessions", "commands", "Sessions: the browsers in which people have signed in."),
        "user": _Place("users", "commands", "Users: people with a local account."),
        "team": _Place("teams", "commands", "Teams: members and quotas. A role in the team '*' applies to all teams."),
        "role": _Place("roles", "commands", "Roles: what members of teams may do."),
        "service": _Place("service_accounts", "commands", "Service accounts: programs that belong to a team."),
        "token": _Place("tokens", "commands", "Tokens: credentials for programs."),
    },
    "Tools": {
        "doctor": _Place("doctor", "doctor"),
        "next": _Place("local", "next_firings"),
        "plan": _Place("plan", "plan"),
        "import-ej": _Place("import_ej", "import_elastic_job"),
        "import-cron": _Place("import_cron", "import_cron"),
        "import-airflow": _Place("import_airflow", "import_airflow"),
    },
}
_PANEL_OF = {name: panel for panel, places in PANELS.items() for name in places}


class _Commands(TyperGroup):
    """Imports and makes only the commands that are asked for: the one that runs, or all of them for the help."""

    def list_commands(self, ctx: object) -> list[str]:
        return list(_PANEL_OF)

    def get_command(self, ctx: object, name: str) -> Any:
        if name in self.commands:
            return self.commands[name]
        if name in _PANEL_OF:
            self.commands[name] = _made(name)
            return self.commands[name]
        # Typer suggests similar names.
        for other in _PANEL_OF:
            self.get_command(ctx, other)
        return None


def _made(name: str) -> Any:
    """A command or a group of commands, as Typer makes it."""
    panel = _PANEL_OF[name]
    place = PANELS[panel][name]
    found = getattr(importlib.import_module(f"jobcloud.client.commands.{place.module}"), place.attribute)
    made = typer.Typer()
    if isinstance(found, typer.Typer):
        made.add_typer(found, name=name, rich_help_panel=panel, help=place.help)
    else:
        made.command(name, rich_help_panel=panel)(found)
    return get_group(made).commands[name]


cli = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run scheduled, sharded jobs on a shared cluster.",
    epilog="To try it: jobcloud dev --demo. To write an app: jobcloud app init DIR.",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line and exit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        cli(args=arguments, prog_name="jobcloud")
    except JobcloudError as error:
        sys.exit(_report(error, as_json="--json" in arguments))
    except BrokenPipeError:
        # The reader of our output has closed the pipe. Python would fail again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)


def _version(requested: bool) -> None:
    if requested:
        from jobcloud import zones

        typer.echo(f"jobcloud {jobcloud.__version__} (matcher: {_matcher()}), time zones {zones.version()}")
        raise typer.Exit


def _matcher() -> str:
    # This reads the setting pure_matcher with the same result as the server, but without pydantic, which a bare install
    # lacks.
    if os.environ.get("JOBCLOUD_PURE_MATCHER", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        return "plain"
    if importlib.util.find_spec("jobcloud._match") is None:
        return "not built"
    from jobcloud.match import vector_path

    return f"compiled, {vector_path()}"


@cli.callback()
def root(
    ctx: typer.Context,
    server: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="JOBCLOUD_SERVER",
            help="URL of a running `jobcloud scheduler` or `dev`. Default: the one on this machine.",
        ),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar="JOBCLOUD_TOKEN",
            show_envvar=True,
            help="API token. Prefer the environment variable: other users can see command lines.",
        ),
    ] = "",
    team: Annotated[
        str,
        typer.Option(
            envvar="JOBCLOUD_TEAM",
            help="Team of all names that are given without TEAM:. If it is set, lists show only apps and jobs of this "
            "team. Otherwise such names mean the team 'default', and lists show all teams.",
        ),
    ] = "",
    ca_file: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            envvar="JOBCLOUD_CA_FILE",
            help="PEM file with the CAs that may have issued the server's certificate. Default: those of the system.",
        ),
    ] = "",
    cert_file: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            envvar="JOBCLOUD_CERT_FILE",
            help="PEM file with a certificate that identifies you to the server.",
        ),
    ] = "",
    key_file: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            envvar="JOBCLOUD_KEY_FILE",
            help="PEM file with the key of this certificate, if it is not in the same file.",
        ),
    ] = "",
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_version,
            help="Print the version, the matcher and the time zone database in use.",
        ),
    ] = False,
) -> None:
    ctx.obj = GlobalOptions(server, token, team, ca_file, cert_file, key_file)


# ------------------------------------------------------------------------------------------------------------- errors


def _report(error: JobcloudError, *, as_json: bool) -> Exit:
    """Print an error to standard error. Returns the exit code for it."""
    from jobcloud.client.http import ApiError, NotReachable

    if as_json:
        import json

        sys.stderr.write(json.dumps(_problem(error)) + "\n")
    elif isinstance(error, NotReachable):
        render.complain(f"{error}; {error.fix}")
    elif isinstance(error, ApiError):
        render.complain(_refusal(error))
    else:
        for fault in _faults(error):
            render.complain(str(fault))
    if isinstance(error, NotReachable):
        return Exit.NOT_REACHABLE
    if isinstance(error, ApiError):
        return _exit_code(error.status)
    if isinstance(error, NotFound):
        return Exit.NOT_FOUND
    if isinstance(error, Conflict):
        return Exit.REFUSED
    return Exit.USAGE if isinstance(error, Refused) else Exit.SERVER_FAILED


def _faults(error: JobcloudError) -> list[JobcloudError]:
    return [error, *(error.others if isinstance(error, ConfigError) else ())]


def _problem(error: JobcloudError) -> Json:
    """The problem document of the API. If no server sent one, a document of the same form, but without a status."""
    from jobcloud.client.http import ApiError, NotReachable

    if isinstance(error, ApiError) and not isinstance(error, NotReachable):
        return error.problem
    issues = [
        {"field": fault.field, "problem": fault.problem, "fix": fault.fix}
        for fault in _faults(error)
        if isinstance(fault, Refused)
    ]
    return {"type": "about:blank", "title": "The command failed", "detail": str(error), "errors": issues}


def _refusal(error: ApiError) -> str:
    if error.status == 401:
        return f"{error} Run `jobcloud login`, set JOBCLOUD_TOKEN, or give --token."
    if len(error.errors) < 2:
        return str(error)
    lines = [
        f"\n  {issue.get('field')}: {issue.get('problem')}" + (f" ({issue['fix']})" if issue.get("fix") else "")
        for issue in error.errors
    ]
    return f"{len(lines)} errors:" + "".join(lines)


def _exit_code(status: int) -> Exit:
    if status in (401, 403, 421):
        return Exit.NOT_ALLOWED
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.SERVER_FAILED if status >= 500 else Exit.REFUSED
