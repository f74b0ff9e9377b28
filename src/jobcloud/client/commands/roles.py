"""`jobcloud role`: the built-in roles and those of this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import account_tables, render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson

commands = typer.Typer(no_args_is_help=True)
RoleName = Annotated[str, typer.Argument(metavar="ROLE", help="The role's name.")]


@commands.command("list")
def list_roles(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the roles with their verbs."""
    with connect(ctx) as client:
        render.show(client.roles(), account_tables.roles, as_json=as_json)


@commands.command("show")
def show_role(ctx: typer.Context, role: RoleName, as_json: AsJson = False) -> None:
    """Show the verbs of a role, and its revision."""
    with connect(ctx) as client:
        render.show(client.role(role), account_tables.role, as_json=as_json)


@commands.command("set")
def set_role(
    ctx: typer.Context,
    role: RoleName,
    verbs: Annotated[list[str], typer.Argument(metavar="VERB...", help="All verbs of the role.")],
    revision: Annotated[
        str,
        typer.Option(metavar="REVISION", help="Refuse the change unless the role has this revision, from `role show`."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Create a role, or replace the verbs of one. `jobcloud role list` names the verbs."""
    with connect(ctx) as client:
        made = client.put_role(role, verbs, revision)
    render.answer(made, f"role {role} has {', '.join(made['verbs'])}", as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, role: RoleName, as_json: AsJson = False) -> None:
    """Remove a role that no member and no valid token has."""
    with connect(ctx) as client:
        client.remove_role(role)
    render.answer({"name": role, "removed": True}, f"role {role} is removed", as_json=as_json)
