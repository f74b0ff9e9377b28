"""Sign-in at the identity provider: the routes of browsers, and the settings that the command line asks for."""

from __future__ import annotations

import html
import logging
from functools import partial
from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from jobcloud.server.api.identities import DIRECTORY
from jobcloud.server.api.oidc_tokens import check_enabled
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.recording import record_of
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.threads import apart
from jobcloud.server.identity.oidc.provider import Provider
from jobcloud.server.identity.oidc.sign_in import (
    CALLBACK_PATH,
    SIGN_OUT_PATH,
    START_PATH,
    Callback,
    Person,
    SignInFailed,
    SignIns,
)
from jobcloud.server.identity.sessions import start_session
from jobcloud.server.routes import Routes

log = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class _CallbackQuery(BaseModel):
    """Providers add parameters of their own, which are ignored."""

    model_config = ConfigDict(extra="ignore")

    code: str = Field(default="", max_length=4_000)
    state: str = Field(default="", max_length=200)
    iss: str = Field(default="", max_length=2_000)
    error: str = Field(default="", max_length=200)


def router(provider: Provider, sign_ins: SignIns) -> Routes:
    """The routes of browsers."""
    made = Routes(in_schema=False)
    options = provider.options

    def base_url(request: Request) -> str:
        """The address of this server for the browser. The guard has checked the Host header."""
        return options.url or f"{request.url.scheme}://{request.url.netloc}"

    @made.get(START_PATH)
    async def start_sign_in(request: Request, place: Annotated[str, Query(alias="next")] = "/") -> Response:
        try:
            address, cookie = await sign_ins.start(base_url(request), place)
        except SignInFailed as error:
            return _failed(error)
        return RedirectResponse(address, 303, {**_HEADERS, "Set-Cookie": cookie})

    @made.get(CALLBACK_PATH)
    async def finish_sign_in(
        request: Request,
        services: ServicesDep,
        query: Annotated[_CallbackQuery, Query()],
        cookie: Annotated[str, Header(max_length=16_000)] = "",
    ) -> Response:
        record = record_of(request.scope)

        async def start(person: Person) -> str:
            record.tried = person.subject
            try:
                check_enabled(person.subject, request.scope[DIRECTORY])
            except Problem as problem:
                raise SignInFailed(problem.detail, again=False) from None
            ends = services.clock() + int(options.session_s * 1_000)
            return await apart(partial(start_session, services, person.subject, person.groups, "oidc", ends))

        given = Callback(query.code, query.state, query.iss, query.error)
        try:
            place, cookies = await sign_ins.finish(base_url(request), cookie, given, start)
        except SignInFailed as error:
            record.reason = str(error)
            log.warning("a sign-in failed: %s", error)
            return _failed(error)
        answer = RedirectResponse(place, 303, _HEADERS)
        for one in cookies:
            answer.headers.append("Set-Cookie", one)
        return answer

    @made.get(SIGN_OUT_PATH)
    async def sign_out_at_provider(request: Request) -> Response:
        return RedirectResponse(await sign_ins.sign_out(base_url(request)), 303, _HEADERS)

    return made


def _failed(error: SignInFailed) -> Response:
    again = f'<p><a href="{START_PATH}">Sign in again</a></p>' if error.again else ""
    text = html.escape(str(error))
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Sign-in failed</title><h1>Sign-in failed</h1><p>{text}</p>{again}"
        '<p><a href="/login">Other ways to sign in</a></p></html>'
    )
    return HTMLResponse(page, 403, _HEADERS)
