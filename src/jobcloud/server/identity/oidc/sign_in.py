"""The code flow of a browser (OpenID Connect Core 1.0, section 3.1) with PKCE (RFC 7636).

A cookie binds a sign-in to the browser that started it: state, nonce and verifier are in it, so any scheduler can end
the sign-in. The callback may arrive twice, for example because somebody reloads the page. A second use of the code
would make the provider revoke the tokens of the first one. So the first callback asks the provider, and a further one
waits for it and gets the same answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from jobcloud.server.identity.oidc import tokens
from jobcloud.server.identity.oidc.metadata import ProviderError
from jobcloud.server.identity.oidc.provider import Provider
from jobcloud.server.identity.oidc.tokens import TokenError

START_PATH = "/login/oidc"
CALLBACK_PATH = "/login/oidc/callback"
SIGN_OUT_PATH = "/logout/oidc"
#: a sign-in must end within this time
PENDING_S = 600
#: the maximum number of callbacks that are remembered, and of those that ask the provider at the same time
MAX_REMEMBERED = 1_000
MAX_AT_ONCE = 20
_COOKIE = "jobcloud-oidc"
_MAX_COOKIE = 4_000
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
# A path of this server. Browsers take a backslash for a slash, and drop control characters.
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,999}")


class SignInFailed(Exception):
    """A sign-in failed. The text is for the person. `again`: another try may succeed."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that has started. `place`: the page of this server that the browser wants."""

    state: str
    nonce: str
    verifier: str
    place: str

    @staticmethod
    def new(place: str) -> Pending:
        path = place if _PATH.fullmatch(place) else "/"
        return Pending(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(32), path)

    def encode(self) -> str:
        content = json.dumps([self.state, self.nonce, self.verifier, self.place])
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    @staticmethod
    def decode(text: str) -> Pending | None:
        """The sign-in that a cookie contains; None if it is malformed."""
        try:
            found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, list) or len(found) != 4 or not all(isinstance(part, str) for part in found):
            return None
        if not all(_SECRET.fullmatch(part) for part in found[:3]) or not _PATH.fullmatch(found[3]):
            return None
        return Pending(*found)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom the provider has signed in."""

    subject: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Callback:
    """The parameters with which the provider sends a browser back (RFC 6749, section 4.1.2; RFC 9207). "": none."""

    code: str = ""
    state: str = ""
    iss: str = ""
    error: str = ""


Finish = Callable[[Person], Awaitable[str]]
"""Starts a session of a person. Returns the Set-Cookie header."""


class SignIns:
    """The sign-ins of browsers at one provider. For one event loop."""

    def __init__(self, provider: Provider, now_ms: Callable[[], int]) -> None:
        self._provider = provider
        self._now_ms = now_ms
        #: state → the sign-in that its callback has started
        self._callbacks: dict[str, asyncio.Task[str]] = {}
        self._at_once = 0

    async def start(self, base_url: str, place: str) -> tuple[str, str]:
        """The address at the provider, and the Set-Cookie header. Raises SignInFailed."""
        pending, options = Pending.new(place), self._provider.options
        challenge = base64.urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).decode().rstrip("=")
        parameters = {
            "response_type": "code",
            "client_id": options.client_id,
            "redirect_uri": base_url + CALLBACK_PATH,
            "scope": " ".join(options.scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        try:
            url = (await self._provider.metadata()).authorization_url
        except ProviderError as error:
            raise _away(error) from None
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(parameters)}", _cookie(base_url, pending.encode())

    async def finish(self, base_url: str, cookies: str, given: Callback, start: Finish) -> tuple[str, list[str]]:
        """The page to go to, and the Set-Cookie headers. Raises SignInFailed.

        `cookies` is the Cookie header. The session is started once, however often the callback arrives.
        """
        pending = _pending(base_url, cookies)
        if pending is None or not hmac.compare_digest(pending.state.encode(), given.state.encode()):
            raise SignInFailed("This sign-in was not started in this browser, it took too long, or another one began.")
        if (task := self._callbacks.get(pending.state)) is None:
            if self._at_once >= MAX_AT_ONCE:
                raise SignInFailed("Too many people sign in at this moment.")
            self._at_once += 1
            task = asyncio.create_task(self._once(base_url, pending, given, start))
            task.add_done_callback(self._done)
            self._remember(pending.state, task)
        # The browser may leave; the task still has to end, because its code works only once.
        session = await asyncio.shield(task)
        return pending.place, [session, _cookie(base_url, "")]

    async def sign_out(self, base_url: str) -> str:
        """The address that ends the session at the provider, or the login page if it has none."""
        login = f"{base_url}/login"
        try:
            url = (await self._provider.metadata()).sign_out_url
        except ProviderError:
            url = ""
        if not url:
            return login
        parameters = {"client_id": self._provider.options.client_id, "post_logout_redirect_uri": login}
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(parameters)}"

    def _remember(self, state: str, task: asyncio.Task[str]) -> None:
        while len(self._callbacks) >= MAX_REMEMBERED:
            self._callbacks.pop(next(iter(self._callbacks)))
        self._callbacks[state] = task
        loop = asyncio.get_running_loop()
        loop.call_later(PENDING_S, self._callbacks.pop, state, None)

    async def _once(self, base_url: str, pending: Pending, given: Callback, start: Finish) -> str:
        try:
            return await start(await self._person(base_url, pending, given))
        except ProviderError as error:
            raise _away(error) from None
        except TokenError as error:
            raise SignInFailed(f"The identity provider's token is refused. {error}") from None

    def _done(self, task: asyncio.Task[str]) -> None:
        self._at_once -= 1
        if not task.cancelled():
            # The browser may have left. Without this, asyncio would log an error that nobody waits for.
            task.exception()

    async def _person(self, base_url: str, pending: Pending, given: Callback) -> Person:
        options = self._provider.options
        if given.iss and given.iss != options.issuer:
            raise SignInFailed("The answer came from another identity provider.")
        if given.error or not given.code:
            reason = f": {given.error[:60]}" if given.error.replace("_", "").isalnum() else ""
            raise SignInFailed(f"The identity provider did not sign you in{reason}.")
        form = {
            "grant_type": "authorization_code",
            "code": given.code,
            "redirect_uri": base_url + CALLBACK_PATH,
            "code_verifier": pending.verifier,
        }
        answer = await self._provider.exchange(form)
        text = answer.get("id_token")
        if not isinstance(text, str):
            raise ProviderError("the token endpoint sent no ID token; identity.oidc_scopes must have openid")
        _, claims = await self._provider.claims(text)
        now_s = self._now_ms() // 1_000
        tokens.check(claims, issuer=options.issuer, audience=options.client_id, now_s=now_s)
        tokens.check_id_token(claims, client_id=options.client_id, nonce=pending.nonce)
        claims = {**await self._more(claims, answer.get("access_token")), **claims}
        name = tokens.subject_of(claims, options.name_claim)
        if not name.startswith(tokens.PERSON):
            raise TokenError("It names a machine.")
        return Person(name, tokens.groups_of(claims, options.groups_claim))

    async def _more(self, claims: tokens.Claims, access_token: object) -> Mapping[str, Any]:
        """The claims of userinfo, if the ID token lacks some. Providers put groups there in the code flow."""
        options = self._provider.options
        wanted = {options.name_claim, options.groups_claim} - {""}
        if wanted <= claims.keys() or not (await self._provider.metadata()).userinfo_url:
            return {}
        if not isinstance(access_token, str):
            raise ProviderError("the token endpoint sent no access token")
        found = await self._provider.userinfo(access_token)
        if found.get("sub") != claims["sub"]:
            raise ProviderError("the userinfo endpoint answered about somebody else")
        return {name: found[name] for name in (*wanted, "email_verified") if name in found}


def _away(error: ProviderError) -> SignInFailed:
    return SignInFailed(f"The identity provider does not answer as it should: {error}.")


def _cookie(base_url: str, value: str) -> str:
    """The Set-Cookie header of a pending sign-in; "" removes the cookie.

    Lax: the browser sends it when the provider sends the browser back, and with no request that a page makes.
    """
    secure, age = base_url.startswith("https:"), PENDING_S if value else 0
    name = _cookie_name(base_url)
    return f"{name}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"


def _cookie_name(base_url: str) -> str:
    # Another host of the domain cannot set a cookie with this prefix (RFC 6265bis, section 4.1.3.2).
    return f"__Host-{_COOKIE}" if base_url.startswith("https:") else _COOKIE


def _pending(base_url: str, cookies: str) -> Pending | None:
    """The sign-in in a Cookie header. None if it is malformed, or if the cookie is there several times."""
    name = _cookie_name(base_url)
    values = [value for key, _, value in (part.strip().partition("=") for part in cookies.split(";")) if key == name]
    return Pending.decode(values[0]) if len(values) == 1 and len(values[0]) <= _MAX_COOKIE else None
