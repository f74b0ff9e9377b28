"""`jobcloud`, the command line: a thin client of the REST API. docs/cli.md lists the commands and exit codes.

The commands are in `jobcloud.client.commands`. This module joins them, defines the options before a command, and turns
errors into messages and exit codes.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

import jobcloud
from jobcloud import zones
from jobcloud.client import render
from jobcloud.client.commands import (
    alerts,
    apply,
    apps,
    audit,
    backfills,
    backup,
    calendars,
    cluster,
    doctor,
    events,
    history,
    import_cron,
    import_ej,
    jobs,
    local,
    login,
    pauses,
    plan,
    pools,
    queue,
    roles,
    runs,
    server,
    service_accounts,
    sessions,
    state,
    tasks,
    teams,
    tokens,
    users,
    whoami,
    workflows,
)
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import GlobalOptions
from jobcloud.errors import ConfigError, Conflict, JobcloudError, NotFound, Refused

if TYPE_CHECKING:
    from jobcloud.client.http import ApiError, Json

_START, _APPS, _RUNS, _CLUSTER, _TOOLS = "Start a server", "Apps and jobs", "Runs and tasks", "Cluster", "Tools"
_ACCESS = "Access"
PANELS = {
    _START: ("dev", "scheduler", "backup", "restore", "state"),
    _APPS: ("app", "job", "workflow", "calendar", "pause", "resume", "apply", "export", "run-local"),
    _RUNS: (
        "runs",
        "run",
        "tasks",
        "task",
        "logs",
        "queue",
        "explain",
        "retry",
        "backfill",
        "kill",
        "history",
        "statistics",
    ),
    _CLUSTER: ("cluster", "executors", "events", "alerts", "pool", "agent", "framework", "audit"),
    _ACCESS: (
        "login",
        "logout",
        "whoami",
        "login-link",
        "session",
        "user",
        "team",
        "role",
        "service",
        "token",
    ),
    _TOOLS: ("doctor", "next", "plan", "import-ej", "import-cron"),
}


class _Commands(TyperGroup):
    """The help lists commands in the order of PANELS. Typer itself would list single commands before groups."""

    def list_commands(self, ctx: object) -> list[str]:
        order = [name for names in PANELS.values() for name in names]
        return sorted(self.commands, key=order.index)


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


cli.command("dev", rich_help_panel=_START)(server.run_dev)
cli.command("scheduler", rich_help_panel=_START)(server.run_scheduler)
cli.command("backup", rich_help_panel=_START)(backup.back_up)
cli.command("restore", rich_help_panel=_START)(backup.restore)
cli.add_typer(
    state.commands,
    name="state",
    rich_help_panel=_START,
    help="Stored state: copy it to another store.",
)

cli.add_typer(apps.commands, name="app", rich_help_panel=_APPS, help="Apps: packages of code, with their jobs.")
cli.add_typer(jobs.commands, name="job", rich_help_panel=_APPS, help="Jobs: code of an app, a schedule and shards.")
cli.add_typer(
    workflows.commands,
    name="workflow",
    rich_help_panel=_APPS,
    help="Workflows: which job runs after which, and the runs of these graphs.",
)
cli.command("apply", rich_help_panel=_APPS)(apply.apply)
cli.command("export", rich_help_panel=_APPS)(apply.export)
cli.add_typer(
    calendars.commands,
    name="calendar",
    rich_help_panel=_APPS,
    help="Calendars: days on which jobs do not fire, or the only days on which they fire.",
)
cli.command("pause", rich_help_panel=_APPS)(pauses.pause)
cli.command("resume", rich_help_panel=_APPS)(pauses.resume)
cli.command("run-local", rich_help_panel=_APPS)(local.run_local)

cli.command("runs", rich_help_panel=_RUNS)(runs.list_runs)
cli.add_typer(
    runs.commands, name="run", rich_help_panel=_RUNS, help="Runs: start an ad-hoc run, show a run, cancel it."
)
cli.command("tasks", rich_help_panel=_RUNS)(tasks.list_tasks)
cli.command("logs", rich_help_panel=_RUNS)(tasks.logs)
cli.command("queue", rich_help_panel=_RUNS)(queue.queue)
cli.command("explain", rich_help_panel=_RUNS)(runs.explain)
cli.command("retry", rich_help_panel=_RUNS)(runs.retry)
cli.command("backfill", rich_help_panel=_RUNS)(backfills.backfill)
cli.command("kill", rich_help_panel=_RUNS)(tasks.kill)
cli.add_typer(
    history.commands, name="history", rich_help_panel=_RUNS, help="History: ended runs and attempts, from a database."
)
cli.command("statistics", rich_help_panel=_RUNS)(history.show_statistics)
cli.add_typer(tasks.commands, name="task", rich_help_panel=_RUNS, help="Tasks: show one, declare one lost.")

cli.command("cluster", rich_help_panel=_CLUSTER)(cluster.show_cluster)
cli.command("executors", rich_help_panel=_CLUSTER)(cluster.list_executors)
cli.command("events", rich_help_panel=_CLUSTER)(events.events)
cli.add_typer(
    alerts.commands,
    name="alerts",
    rich_help_panel=_CLUSTER,
    help="Alerts: list them, silence some, test a channel.",
)
cli.add_typer(
    pools.commands,
    name="pool",
    rich_help_panel=_CLUSTER,
    help="Pools: limits across jobs, such as 5 shards on one database.",
)
cli.add_typer(
    cluster.agent_commands, name="agent", rich_help_panel=_CLUSTER, help="Agents: drain one before maintenance."
)
cli.add_typer(
    cluster.framework_commands,
    name="framework",
    rich_help_panel=_CLUSTER,
    help="Framework: remove it from Mesos.",
)
cli.add_typer(
    audit.commands,
    name="audit",
    rich_help_panel=_CLUSTER,
    help="Audit log: who did what, and whether somebody has changed the log.",
)

cli.command("login", rich_help_panel=_ACCESS)(login.login)
cli.command("logout", rich_help_panel=_ACCESS)(login.logout)
cli.command("login-link", rich_help_panel=_ACCESS)(sessions.make_link)
cli.add_typer(
    sessions.commands,
    name="session",
    rich_help_panel=_ACCESS,
    help="Sessions: the browsers in which people have signed in.",
)

cli.command("whoami", rich_help_panel=_ACCESS)(whoami.show_who)
cli.add_typer(users.commands, name="user", rich_help_panel=_ACCESS, help="Users: people with a local account.")
cli.add_typer(
    teams.commands,
    name="team",
    rich_help_panel=_ACCESS,
    help="Teams: members and quotas. A role in the team '*' applies to all teams.",
)
cli.add_typer(roles.commands, name="role", rich_help_panel=_ACCESS, help="Roles: what members of teams may do.")
cli.add_typer(
    service_accounts.commands,
    name="service",
    rich_help_panel=_ACCESS,
    help="Service accounts: programs that belong to a team.",
)
cli.add_typer(tokens.commands, name="token", rich_help_panel=_ACCESS, help="Tokens: credentials for programs.")

cli.command("doctor", rich_help_panel=_TOOLS)(doctor.doctor)
cli.command("next", rich_help_panel=_TOOLS)(local.next_firings)
cli.command("plan", rich_help_panel=_TOOLS)(plan.plan)
cli.command("import-ej", rich_help_panel=_TOOLS)(import_ej.import_elastic_job)
cli.command("import-cron", rich_help_panel=_TOOLS)(import_cron.import_cron)


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
