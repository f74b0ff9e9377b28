"""Tokens for the API: of users, of service accounts, and the server's own."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from fastapi import Query as Parameter
from fastapi import Response
from pydantic import Field, WithJsonSchema

from jobcloud.access import tokens
from jobcloud.access.names import check_token_name
from jobcloud.errors import NotFound
from jobcloud.messages import PutAccess, RevokeServerToken, RevokeToken
from jobcloud.model import SERVER_SUBJECT, AccessToken
from jobcloud.scheduler.account_rules import AccountRules, is_valid
from jobcloud.sentences import Told
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import read_config
from jobcloud.server.api.paging import Listing, PageQuery, PageView, Place
from jobcloud.server.api.schema import Instant, TokenConfig, View
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.routes import Routes

router = Routes(tags=["tokens"])

_TOKENS = Listing("tokens", (str, int, str))
#: in place of an id: the token of the settings
SERVER_ID = "server"


class GrantView(View):
    team: str = Field(description="`*`: the whole installation")
    role: str


class TokenView(View):
    id: str
    name: str
    subject: str
    scope: list[GrantView] = Field(description="the only roles that the token has; empty: all roles of the subject")
    state: Literal["valid", "expired", "revoked"]
    created_at: Instant
    created_by: str
    expires_at: Instant = Field(description="null: never")
    revoked_at: Instant


class NewToken(TokenView):
    token: str = Field(description="the secret; no other answer has it")


class TokenList(PageView):
    items: list[TokenView]


class TokenQuery(PageQuery):
    subject: str = Field("", max_length=300, description="only tokens of this subject")


@router.get("/tokens")
def list_tokens(services: ServicesDep, access: AccessDep, query: Annotated[TokenQuery, Parameter()]) -> TokenList:
    """The tokens of the sender, and those that the sender manages, by subject. Ended ones are listed for 30 days."""
    directory, known = services.loop.ask(
        lambda scheduler: (scheduler.directory, list(scheduler.directory.tokens.values()))
    )
    server = _server_token(services)
    if server is not None and server.id not in directory.tokens:
        known.append(server)
    rules, now = AccountRules(directory), services.clock()
    visible = (
        token for token in known if query.subject in ("", token.subject) and rules.sees_token(access.principal, token)
    )
    found = sorted(visible, key=_place)
    items, cursor = _TOKENS.page(found, _place, query)
    return TokenList(items=[TokenView(**_fields(token, now)) for token in items], next_cursor=cursor)


def _place(token: AccessToken) -> Place:
    return token.subject, token.created_ms, token.id


@router.post("/tokens", status_code=201, openapi_extra=json_body(TokenConfig))
def make_token(services: ServicesDep, access: AccessDep, body: JsonObject, response: Response) -> NewToken:
    """Make a token for the sender or a service account. The answer has its secret, which is not stored."""
    given = read_config(body, TokenConfig)
    check_token_name(given.name)
    secret = tokens.make(tokens.TOKEN_PREFIX, os.urandom(38))
    scope = tuple((grant.team, grant.role) for grant in given.scope)
    subject = given.subject or access.principal.subject

    def made(at: int) -> PutAccess:
        ends = at + given.expires_seconds * 1_000 if given.expires_seconds is not None else 0
        record = AccessToken(secret.id, given.name, secret.hash, subject, at, ends, scope)
        return PutAccess(at, record, create=True, by=access.principal)

    at = services.command(made)
    stored = services.loop.ask(lambda scheduler: scheduler.directory.tokens[secret.id])
    response.headers["Cache-Control"] = "no-store"
    return NewToken(**_fields(stored, at), token=secret.text)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(
    services: ServicesDep,
    access: AccessDep,
    token_id: Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})],
) -> None:
    """Revoke a token, and the tokens that its subject made with it for itself.

    `server`: the token of the server's settings.
    """
    server = _server_token(services)
    if token_id == SERVER_ID:
        if server is None:
            raise NotFound(Told("the server has no token", "no_server_token"), field="id")
        services.command(lambda at: RevokeServerToken(at, server.hash, access.principal))
    else:
        services.command(lambda at: RevokeToken(at, token_id, access.principal))


def _server_token(services: Services) -> AccessToken | None:
    """The token of the settings, in the form of other tokens; None if there is none."""
    text = services.options.access.token
    if not text:
        return None
    text_hash = tokens.hash_of(text)
    return AccessToken(tokens.server_token_id(text_hash), SERVER_ID, text_hash, SERVER_SUBJECT, 0)


def _fields(token: AccessToken, now: int) -> dict[str, Any]:
    """The fields of the view of a token."""
    unrevoked_server = token.subject == SERVER_SUBJECT and not token.revoked_ms
    return {
        "id": SERVER_ID if unrevoked_server else token.id,
        "name": token.name,
        "subject": token.subject,
        "scope": [GrantView(team=team, role=role) for team, role in token.scope],
        "state": "revoked" if token.revoked_ms else "valid" if is_valid(token, now) else "expired",
        "created_at": token.created_ms,
        "created_by": token.created_by,
        "expires_at": token.expires_ms,
        "revoked_at": token.revoked_ms,
    }
