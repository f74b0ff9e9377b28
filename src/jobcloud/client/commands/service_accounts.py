"""`jobcloud service`: service accounts of teams."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import account_tables, render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson
from jobcloud.errors import ConfigError

commands = typer.Typer(no_args_is_help=True)
Service = Annotated[str, typer.Argument(metavar="TEAM/NAME", help="The service account; the team '*' is allowed.")]


@commands.command("add")
def add(
    ctx: typer.Context,
    service: Service,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Its role in its team.")],
    as_json: AsJson = False,
) -> None:
    """Add a service account to its team. `jobcloud token create NAME --service TEAM/NAME` makes a token for it."""
    team, _ = parts(service)
    with connect(ctx) as client:
        found = client.add_member(team, f"service:{service}", role)
    render.answer(found, f"service:{service} is {role} in team {team}", as_json=as_json)


@commands.command("list")
def list_services(
    ctx: typer.Context,
    team: Annotated[str, typer.Argument(metavar="[TEAM]", help="Only those of this team. Default: all.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the service accounts of the teams that you manage."""
    with connect(ctx) as client:
        render.show(client.services(team), account_tables.services, as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, service: Service, as_json: AsJson = False) -> None:
    """Remove a service account: its roles in all teams, and its tokens."""
    team, name = parts(service)
    with connect(ctx) as client:
        client.remove_service(team, name)
    text = f"service:{service} is removed"
    render.answer({"subject": f"service:{service}", "removed": True}, text, as_json=as_json)


def parts(service: str) -> tuple[str, str]:
    """The team and the name. Raises ConfigError."""
    team, slash, name = service.partition("/")
    if not (team and slash and name):
        raise ConfigError(f"{service[:80]!r} is not TEAM/NAME", field="TEAM/NAME", fix="such as web/ci")
    return team, name
