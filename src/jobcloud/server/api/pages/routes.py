"""The sign-in, the sign-out, and a page that says who has signed in."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import structlog
from anyio import to_thread
from fastapi import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from jobcloud.access.directory import Directory
from jobcloud.errors import NotAllowed, Unavailable
from jobcloud.messages import EndSessions, Kind, RemoveAccess
from jobcloud.model import Session
from jobcloud.scheduler.account_rules import AccountRules
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.identities import DIRECTORY, OPEN, SESSION
from jobcloud.server.api.pages.access import SIGN_IN
from jobcloud.server.api.pages.texts import TEXTS, language_of
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.recording import record_of
from jobcloud.server.api.schema import rfc3339
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.identity.links import Link
from jobcloud.server.identity.sessions import (
    cookies,
    end_cookie,
    find_session,
    form_token,
    may_sign_in,
    start_session,
)
from jobcloud.server.identity.sign_in import password_holds
from jobcloud.server.routes import Routes

if TYPE_CHECKING:
    from jinja2 import Environment

log = structlog.get_logger(__name__)

router = Routes()

_HOME = "/"
_MAX_FORM_BYTES = 8 << 10
_MAX_FIELDS = 5
_MAX_USER, _MAX_PASSWORD = 200, 1_000
# `no-referrer` would make browsers send the header "Origin: null" with the forms.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@router.get("/login")
async def sign_in_page(request: Request, services: ServicesDep) -> Response:
    return _sign_in_page(request, services, error="ended" if "ended" in request.query_params else "")


@router.post("/login")
async def sign_in(request: Request, services: ServicesDep) -> Response:
    """Sign in by user and password."""
    if not services.options.sign_in.password:
        raise Problem("forbidden", "The setting identity.password_sign_in turns the sign-in by password off.")
    form = await _form(request, {"user", "password"})
    user, password, address = form["user"], form["password"], _address(request)
    known = _directory(request).users.get(user)
    record = record_of(request.scope)
    # People type passwords into the field of the user, so only known names may be recorded and logged.
    record.tried = f"user:{user}" if known is not None else ""
    if not services.sign_in_limits.admit(user[:_MAX_USER], address):
        record.reason = "too many tries"
        log.warning("sign-in refused: too many tries", client=address)
        return _sign_in_page(request, services, 429, error="too_many", user=user, headers={"Retry-After": "60"})
    try:
        holds = len(password) <= _MAX_PASSWORD and await services.password_checks.ask(
            lambda: password_holds(known, password)
        )
    except Unavailable as error:
        record.reason = str(error)
        return _sign_in_page(request, services, 503, error="busy", user=user, headers={"Retry-After": "5"})
    if not holds:
        record.reason = "wrong password" if known is not None else "no user has this name"
        log.warning("sign-in refused: wrong password", user=user if known is not None else "unknown", client=address)
        return _sign_in_page(request, services, 401, error="wrong", user=user)
    services.sign_in_limits.succeeded(user, address)
    directory = _directory(request)
    try:
        return await _signed_in(
            request, services, f"user:{user}", "password", lambda: directory.users.get(user) == known
        )
    except NotAllowed as error:
        record.reason = str(error)
        return _sign_in_page(request, services, 401, error="wrong", user=user)


@router.get("/login/link")
async def link_page(request: Request) -> Response:
    return _page(request, "link.html")


@router.post("/login/link")
async def use_link(request: Request, services: ServicesDep) -> Response:
    """Sign in by the code of a one-time link."""
    form = await _form(request, {"code"})
    link = services.links.take(form["code"].strip(), services.clock())
    record, directory = record_of(request.scope), _directory(request)
    record.tried = link.subject if link is not None else ""
    if link is None:
        record.reason = "the link is wrong or used, or has ended"
        return _page(request, "link.html", 401, error="wrong_link")
    by = f"link of {link.maker.subject}"
    try:
        return await _signed_in(request, services, link.subject, by, lambda: _is_usable(link, directory, services))
    except NotAllowed:
        record.reason = "its user or maker may not sign in"
        return _page(request, "link.html", 401, error="wrong_link")


def _is_usable(link: Link, directory: Directory, services: Services) -> bool:
    """Whether the subject may sign in, and is the same user if it was one, and the maker may still make the link."""
    user = directory.user_of(link.subject)
    if link.user_since_ms != (user.created_ms if user is not None else 0):
        return False
    rules = AccountRules(directory)
    try:
        rules.check_sender(link.maker, services.clock())
        if link.subject != link.maker.subject:
            rules.require(link.maker)
            rules.check_sign_in(link.maker, link.subject)
    except NotAllowed:
        return False
    return may_sign_in(link.subject, directory, services)


@router.get("/login/style.css")
async def style() -> Response:
    return _file("style.css", "text/css")


@router.get("/login/link.js")
async def script() -> Response:
    return _file("link.js", "text/javascript")


@router.get("/account")
async def account(request: Request, access: AccessDep, services: ServicesDep) -> Response:
    """Says who has signed in. The way out is here."""
    session: Session | None = request.scope.get(SESSION)
    principal = access.principal
    return _page(
        request,
        "account.html",
        subject=principal.subject,
        by=session.by if session is not None else principal.via or principal.subject,
        until=rfc3339(session.expires_ms) if session is not None else "",
        token=_form_token(request, services) if session is not None else "",
        open_server=principal.subject == OPEN,
    )


@router.post("/logout")
async def sign_out(request: Request, services: ServicesDep) -> Response:
    """End the session of this browser."""
    session = await _leaving(request, services)
    if session is not None:
        await to_thread.run_sync(_end, services, session)
    return _signed_out(services)


@router.post("/logout/everywhere")
async def sign_out_everywhere(request: Request, services: ServicesDep) -> Response:
    """End all sessions of the person."""
    session = await _leaving(request, services)
    if session is not None:
        await to_thread.run_sync(services.command, lambda at: EndSessions(at, session.subject))
    return _signed_out(services)


async def _signed_in(
    request: Request, services: Services, subject: str, by: str, proven: Callable[[], bool]
) -> Response:
    """Start a session. The session that the browser had before ends, so that nobody can plant one (fixation).

    Raises NotAllowed if what was `proven` no longer holds.
    """
    cookie = await to_thread.run_sync(lambda: start_session(services, subject, by=by, proven=proven))
    given = cookies(request.scope, services.sessions.cookie)
    before = find_session(given, _directory(request), services, services.clock())
    if before is not None:
        await to_thread.run_sync(_end, services, before)
    log.info("signed in", subject=subject, by=by, client=_address(request))
    return RedirectResponse(_HOME, 303, {"Set-Cookie": cookie, "Cache-Control": "no-store"})


def _signed_out(services: Services) -> Response:
    headers = {"Set-Cookie": end_cookie(services.sessions), "Cache-Control": "no-store"}
    return RedirectResponse(SIGN_IN, 303, headers)


def _end(services: Services, session: Session) -> None:
    services.command(lambda at: RemoveAccess(at, Kind.SESSION, session.id))


async def _leaving(request: Request, services: Services) -> Session | None:
    """The session of a form with the right token; None if the sender has none. Raises Problem."""
    form = await _form(request, {"token"})
    session: Session | None = request.scope.get(SESSION)
    if session is not None and not hmac.compare_digest(form["token"].encode(), _form_token(request, services).encode()):
        raise Problem("forbidden-origin", "The form is not from a page of this session. Load the page again.")
    return session


def _form_token(request: Request, services: Services) -> str:
    return form_token(cookies(request.scope, services.sessions.cookie)[0])


async def _form(request: Request, names: set[str]) -> Mapping[str, str]:
    """The fields of a form, which are exactly `names`. Raises Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Problem("unsupported-media-type", "Send a form as application/x-www-form-urlencoded.")
    body = await request.body()
    if len(body) > _MAX_FORM_BYTES:
        raise Problem("too-large", f"The form is longer than the limit of {_MAX_FORM_BYTES} bytes.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_MAX_FIELDS,
            errors="strict",
        )  # fmt: skip
    except ValueError:
        raise Problem("bad-request", "The form is malformed.") from None
    given = [name for name, _ in pairs]
    if wrong := {name for name in given if name not in names or given.count(name) > 1} | (names - set(given)):
        raise invalid(Issue(name[:100], "must be in the form once, and no other field") for name in sorted(wrong))
    return dict(pairs)


def _sign_in_page(
    request: Request, services: Services, status: int = 200, *, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    ways = services.options.sign_in
    return _page(
        request, "sign_in.html", status, headers=headers, password=ways.password,
        single_sign_on=ways.single_sign_on, **values,
    )  # fmt: skip


def _page(
    request: Request, name: str, status: int = 200, *, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    language = language_of(request.headers.get("accept-language", ""))
    known = {"language": language, "t": TEXTS[language], "error": "", "user": ""}
    text = _templates().get_template(name).render(known | values)
    return HTMLResponse(text, status, {**_HEADERS, **(headers or {})})


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _file(name: str, media_type: str) -> Response:
    content = _content(name)
    return Response(content, media_type=media_type, headers={"Cache-Control": "max-age=300"})


@cache
def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _directory(request: Request) -> Directory:
    found: Directory = request.scope[DIRECTORY]
    return found


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""
