"""`jobcloud user`: local users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobcloud.client import account_tables, render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson
from jobcloud.client.commands.secrets import PasswordFile, read_password

commands = typer.Typer(no_args_is_help=True)
UserName = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]


@commands.command("add")
def add(
    ctx: typer.Context,
    name: UserName,
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool,
        typer.Option("--no-password", help="The user has no password: sign in at the identity provider or by a link."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a local user. The user has no rights before `jobcloud team member add`."""
    password = "" if no_password else read_password(password_file, "--password-file", "Password", twice=True)
    with connect(ctx) as client:
        made = client.add_user(name, password)
    render.answer(made, f"user {name} is added; give it a role: jobcloud team member add", as_json=as_json)


@commands.command("list")
def list_users(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the users that were added. Other people of an identity provider are not listed."""
    with connect(ctx) as client:
        render.show(client.users(), account_tables.users, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, name: UserName, as_json: AsJson = False) -> None:
    """Show a user, and the roles of the user in teams."""
    with connect(ctx) as client:
        render.show(client.user(name), account_tables.user, as_json=as_json)


@commands.command("disable")
def disable(ctx: typer.Context, name: UserName, as_json: AsJson = False) -> None:
    """Disable a user: sign the user out everywhere, and refuse the user's tokens."""
    _switch(ctx, name, as_json, enabled=False)


@commands.command("enable")
def enable(ctx: typer.Context, name: UserName, as_json: AsJson = False) -> None:
    """Enable a user again."""
    _switch(ctx, name, as_json, enabled=True)


@commands.command("password")
def set_password(
    ctx: typer.Context,
    name: UserName,
    password_file: PasswordFile = None,
    current_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file with your present password, to change your own one. Default: a prompt."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set a password. This signs the user out everywhere else.

    You may set your own password if you know the present one. An admin may set the passwords of others.
    """
    with connect(ctx) as client:
        current = ""
        if current_file is not None or client.who_am_i()["subject"] == f"user:{name}":
            current = read_password(current_file, "--current-file", "Present password")
        new = read_password(password_file, "--password-file", "New password", twice=True)
        client.set_password(name, new, current)
    render.answer({"name": name, "changed": True}, f"the password of {name} is changed", as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, name: UserName, as_json: AsJson = False) -> None:
    """Remove a user with all roles, tokens and sessions."""
    with connect(ctx) as client:
        client.remove_user(name)
    render.answer({"name": name, "removed": True}, f"user {name} is removed", as_json=as_json)


def _switch(ctx: typer.Context, name: str, as_json: bool, *, enabled: bool) -> None:
    with connect(ctx) as client:
        found = client.switch_user(name, enabled=enabled)
    render.answer(found, f"user {name} is {'enabled' if enabled else 'disabled'}", as_json=as_json)
