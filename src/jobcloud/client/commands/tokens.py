"""`jobcloud token`: tokens for the API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobcloud.client import account_tables, render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson
from jobcloud.client.commands.service_accounts import parts
from jobcloud.errors import ConfigError

commands = typer.Typer(no_args_is_help=True)


@commands.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for people, such as the purpose.")],
    service: Annotated[str, typer.Option(metavar="TEAM/NAME", help="Make it for a service account, not for you.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="TEAM:ROLE", help="A role that the token has, and no others. Repeatable."),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="Lifetime, such as 12h or 30d. Default: 90d.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token for yourself, or for a service account of a team that you manage.

    The secret is printed once: nobody can read it later. The token has at most your rights.
    """
    given: dict[str, Any] = {"name": name, "scope": [_grant(text) for text in scope or ()]}
    if service:
        parts(service)
        given["subject"] = f"service:{service}"
    if expires:
        from jobcloud.durations import parse_ms

        given["expiresSeconds"], rest = divmod(parse_ms(expires, "--expires"), 1_000)
        if rest or not given["expiresSeconds"]:
            raise ConfigError(f"{expires} is out of range", field="--expires", fix="whole seconds, at least 1s")
    with connect(ctx) as client:
        made = client.make_token(given)
    render.show(made, account_tables.new_token, as_json=as_json)


@commands.command("list")
def list_tokens(
    ctx: typer.Context,
    subject: Annotated[str, typer.Option(help="Only those of this user or service, such as service:web/ci.")] = "",
    as_json: AsJson = False,
) -> None:
    """List your tokens, and those that you manage. Ended ones are listed for 30 days."""
    with connect(ctx) as client:
        render.show(client.tokens(subject), account_tables.tokens, as_json=as_json)


@commands.command("revoke")
def revoke(
    ctx: typer.Context,
    token_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="The id, as in `jobcloud token list`; `server`: that of http.token_file."),
    ],
    as_json: AsJson = False,
) -> None:
    """Revoke a token, and all tokens that were made with it for the same subject.

    Tokens for service accounts stay valid, even if they were made with it.

    The revoked token of the server stays revoked. A new one in its file is valid after a restart.
    """
    with connect(ctx) as client:
        client.revoke_token(token_id)
    render.answer({"id": token_id, "revoked": True}, f"token {token_id} is revoked", as_json=as_json)


def _grant(text: str) -> dict[str, str]:
    """Raises ConfigError."""
    team, colon, role = text.partition(":")
    if not (team and colon and role):
        raise ConfigError(f"{text[:80]!r} is not TEAM:ROLE", field="--scope", fix="such as web:viewer, or '*:viewer'")
    return {"team": team, "role": role}
