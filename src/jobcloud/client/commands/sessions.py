"""`jobcloud session` and `jobcloud login-link`: the browsers in which people have signed in."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson
from jobcloud.errors import ConfigError

commands = typer.Typer()

_User = Annotated[str, typer.Option("--user", metavar="NAME", help="A user of this server. Needs the role admin.")]


@commands.command("list")
def list_sessions(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the browsers in which you have signed in, or those of everybody if you are an admin."""
    with connect(ctx) as client:
        render.show(client.sessions(), render.sessions, as_json=as_json)


@commands.command("end")
def end_session(
    ctx: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="[ID]", help="The id, as in `jobcloud session list`.")] = "",
    everywhere: Annotated[bool, typer.Option("--all", help="End all sessions of one person.")] = False,
    user: _User = "",
    as_json: AsJson = False,
) -> None:
    """Sign a browser out. With `--all`: sign out all browsers, yours or those of `--user`."""
    if bool(session_id) == everywhere or (user and not everywhere):
        raise ConfigError("give the id of one session, or --all", field="ID", fix="`jobcloud session list` lists them")
    with connect(ctx) as client:
        if everywhere:
            client.end_sessions(f"user:{user}" if user else "")
        else:
            client.end_session(session_id)
    given = {"id": session_id} if session_id else {"user": user}
    text = f"session {session_id} has ended" if session_id else f"{user or 'you'}: signed out everywhere"
    render.answer({**given, "ended": True}, text, as_json=as_json)


def make_link(ctx: typer.Context, user: _User = "", as_json: AsJson = False) -> None:
    """Print a link that signs a browser in. It works once, within 15 minutes.

    It signs in the owner of the token of this command, or the user of `--user`. Only admins can make links.
    """
    with connect(ctx) as client:
        made = client.make_link(user)
    render.answer(made, made["url"], as_json=as_json)
