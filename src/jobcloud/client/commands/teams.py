"""`jobcloud team`: members, weights and quotas of teams."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobcloud.client import account_tables, render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson
from jobcloud.errors import ConfigError

commands = typer.Typer(no_args_is_help=True)
member_commands = typer.Typer(no_args_is_help=True)
commands.add_typer(member_commands, name="member", help="Members of a team.")
TeamName = Annotated[str, typer.Argument(metavar="TEAM", help="The team; '*' is the whole installation.")]
Subject = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="user:NAME, group:NAME of an identity provider, or service:TEAM/NAME.")
]


@commands.command("list")
def list_teams(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the teams that have members, a weight or a quota."""
    with connect(ctx) as client:
        render.show(client.teams(), account_tables.teams, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, team: TeamName, as_json: AsJson = False) -> None:
    """Show a team with its members."""
    with connect(ctx) as client:
        render.show(client.team(team), account_tables.team, as_json=as_json)


@commands.command("set")
def set_team(
    ctx: typer.Context,
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team. '*' has no quota and no weight.")],
    weight: Annotated[
        int | None,
        typer.Option(help="Weight: of two waiting teams, one with the double weight gets the double share; 1 to 1000."),
    ] = None,
    cpus: Annotated[str, typer.Option(metavar="N|none", help="Limit of CPUs.")] = "",
    memory_mb: Annotated[str, typer.Option(metavar="N|none", help="Limit of memory, in MB.")] = "",
    gpus: Annotated[str, typer.Option(metavar="N|none", help="Limit of GPUs.")] = "",
    jobs: Annotated[str, typer.Option(metavar="N|none", help="Limit of registered jobs.")] = "",
    shards: Annotated[str, typer.Option(metavar="N|none", help="Limit of attempts at the same time.")] = "",
    queue: Annotated[str, typer.Option(metavar="N|none", help="Limit of shards that wait.")] = "",
    as_json: AsJson = False,
) -> None:
    """Create a team, or change its weight and quota. Fields without an option keep their values."""
    from jobcloud.client.http import ApiError

    given = {
        "cpuCount": ("--cpus", cpus), "memoryMB": ("--memory-mb", memory_mb), "gpuCount": ("--gpus", gpus),
        "jobs": ("--jobs", jobs), "shards": ("--shards", shards), "queue": ("--queue", queue),
    }  # fmt: skip
    changes = {name: _limit(option, text) for name, (option, text) in given.items() if text}
    with connect(ctx) as client:
        try:
            known = client.team(team)
        except ApiError as error:
            if error.status != 404:
                raise
            known = {"weight": 1, "quota": {}, "revision": ""}
        config: dict[str, Any] = {
            "weight": known["weight"] if weight is None else weight,
            "quota": known["quota"] | changes,
        }
        made = client.put_team(team, config, known["revision"])
    render.show(made, account_tables.team, as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, team: TeamName, as_json: AsJson = False) -> None:
    """Remove a team and its service accounts. Refused while the team has apps or jobs."""
    with connect(ctx) as client:
        client.remove_team(team)
    render.answer({"name": team, "removed": True}, f"team {team} is removed", as_json=as_json)


@member_commands.command("add")
def add_member(
    ctx: typer.Context,
    team: TeamName,
    subject: Subject,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="A role of `jobcloud role list`.")],
    as_json: AsJson = False,
) -> None:
    """Give a role in a team to a person, a group or a service account."""
    with connect(ctx) as client:
        found = client.add_member(team, subject, role)
    render.answer(found, f"{subject} is {role} in {_place(team)}", as_json=as_json)


@member_commands.command("rm")
def remove_member(
    ctx: typer.Context,
    team: TeamName,
    subject: Subject,
    role: Annotated[str, typer.Argument(metavar="[ROLE]", help="The role to take away. Default: all roles.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take a role, or all roles, in a team away."""
    with connect(ctx) as client:
        found = client.remove_member(team, subject, role)
    what = f"no longer {role}" if role else "no longer a member"
    render.answer(found, f"{subject} is {what} in {_place(team)}", as_json=as_json)


def _place(team: str) -> str:
    return "the whole installation" if team == "*" else f"team {team}"


def _limit(option: str, text: str) -> int | float | None:
    """Raises ConfigError."""
    if text == "none":
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ConfigError(f"{text[:80]!r} is no number", field=option, fix='a number, or "none" for no limit') from None
