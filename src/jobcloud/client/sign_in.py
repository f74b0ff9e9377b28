"""Sign-in of the command line at an identity provider: the device flow (RFC 8628), the code flow over a loopback
redirect (RFC 8252), and new access tokens by a refresh token.

The access token is not checked here: the server does this.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from jobcloud.client.credentials import Credentials, Tokens
from jobcloud.client.http import Client, is_loopback
from jobcloud.errors import ConfigError, JobcloudError

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_TIMEOUT_S = 15.0
_MAX_BYTES = 256 << 10
# RFC 8628, section 3.2, and the step of slow_down in section 3.5.
_INTERVAL_S, _SLOWER_S, _MAX_INTERVAL_S = 5.0, 5.0, 60.0
_MAX_DEVICE_S = 1_800.0
# An access token is replaced this long before its end, or a fifth of its life if that is shorter.
_EARLY_S = 60.0
_LIFE_S = 300.0
_BROWSER_S = 300.0
_CALLBACK = "/callback"


class SignInError(JobcloudError):
    """The sign-in failed."""


@dataclass(frozen=True, slots=True)
class Site:
    """A provider as the server names it, and its addresses. `device_url` is "" without a device flow."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    audience: str
    token_url: str
    authorization_url: str
    device_url: str
    revocation_url: str

    @property
    def resource(self) -> dict[str, str]:
        """The parameter that asks for an access token for the server (RFC 8707). It has to be a URI."""
        return {"resource": self.audience} if ":" in self.audience else {}


class Http:
    """Requests to a provider: small answers, in limited time, and no redirects."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._transport = transport

    def get(self, url: str) -> tuple[int, dict[str, Any]]:
        return self._json("GET", url, None)

    def post(self, url: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object of an answer. Raises SignInError."""
        return self._json("POST", url, dict(form))

    def _json(self, method: str, url: str, form: dict[str, str] | None) -> tuple[int, dict[str, Any]]:
        _check_url(url)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        content = bytearray()
        try:
            with (
                httpx.Client(timeout=_TIMEOUT_S, trust_env=not is_loopback(url), transport=self._transport) as client,
                client.stream(method, url, data=form, headers=headers) as answer,
            ):
                for chunk in answer.iter_raw():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        raise SignInError(f"the answer of {url} is longer than {_MAX_BYTES} bytes")
            found = json.loads(content or b"{}")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SignInError(f"{url} cannot be reached: {error or type(error).__name__}") from error
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise SignInError(f"{url} did not answer with a JSON object (status {answer.status_code})")
        return answer.status_code, found


def site_of(client: Client, http: Http) -> Site:
    """The provider that a server names. Raises ConfigError if it names none, SignInError, ApiError."""
    if not (client.url.startswith("https:") or is_loopback(client.url)):
        problem = "is http to another machine: everybody on the way could read the tokens"
        raise ConfigError(problem, field="--server", fix="an https URL, or a tunnel to loopback")
    found = client.sign_in_options().get("oidc")
    if not isinstance(found, dict):
        problem = f"{client.url} has no identity provider for the command line"
        fix = "set JOBCLOUD_TOKEN (docs/security.md, Tokens), or let its administrator set identity.oidc_cli_client_id"
        raise ConfigError(problem, field="login", fix=fix)
    issuer = str(found["issuer"])
    metadata = _metadata(issuer, http)
    names = ("token_endpoint", "authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint")
    urls = [str(metadata.get(name) or "") for name in names]
    for url in filter(None, urls):
        _check_url(url)
    scopes = tuple(str(scope) for scope in found["scopes"])
    return Site(issuer, str(found["clientId"]), scopes, str(found["audience"]), *urls)


def by_device(
    site: Site, http: Http, show: Callable[[Mapping[str, str]], None], sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Sign in on another device. `show` gets `user_code`, `verification_uri` and `verification_uri_complete`.

    Returns the answer of the token endpoint. Raises SignInError, also if a request fails: it may have succeeded at the
    provider, and a second use of the code would make the provider revoke the tokens.
    """
    if not site.device_url:
        raise SignInError(f"{site.issuer} has no device flow")
    form = {"client_id": site.client_id, "scope": " ".join(site.scopes), **site.resource}
    status, device = http.post(site.device_url, form)
    code = device.get("device_code")
    if status != 200 or not isinstance(code, str) or not isinstance(device.get("user_code"), str):
        raise _refused(status, device)
    show({name: str(device.get(name) or "") for name in ("user_code", "verification_uri", "verification_uri_complete")})
    interval = _number(device.get("interval"), _INTERVAL_S, _MAX_INTERVAL_S)
    left = _number(device.get("expires_in"), _MAX_DEVICE_S, _MAX_DEVICE_S)
    form = {"grant_type": _GRANT, "client_id": site.client_id, "device_code": code, **site.resource}
    while left > 0:
        sleep(interval)
        left -= interval
        status, answer = http.post(site.token_url, form)
        if status == 200:
            return answer
        error = answer.get("error")
        if error == "slow_down":
            interval = min(interval + _SLOWER_S, _MAX_INTERVAL_S)
        elif error != "authorization_pending":
            raise _refused(status, answer)
    raise SignInError("nobody has signed in in time")


def by_browser(site: Site, http: Http, show: Callable[[str], None]) -> dict[str, Any]:
    """Sign in with a browser on this machine. `show` gets the address to open.

    Returns the answer of the token endpoint. Raises SignInError.
    """
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    with _Receiver(state) as receiver:
        parameters = {
            "response_type": "code",
            "client_id": site.client_id,
            "redirect_uri": receiver.url,
            "scope": " ".join(site.scopes),
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            # Providers grant offline access only if the person consents.
            "prompt": "consent",
            **site.resource,
        }
        show(f"{site.authorization_url}{'&' if urlsplit(site.authorization_url).query else '?'}{urlencode(parameters)}")
        answer = receiver.wait()
    if answer.get("iss", site.issuer) != site.issuer:
        raise SignInError("another identity provider has answered")
    if "code" not in answer:
        raise SignInError(f"the identity provider refused: {answer.get('error', 'no code')[:60]}")
    form = {
        "grant_type": "authorization_code",
        "client_id": site.client_id,
        "code": answer["code"],
        "redirect_uri": receiver.url,
        "code_verifier": verifier,
        **site.resource,
    }
    status, found = http.post(site.token_url, form)
    if status != 200:
        raise _refused(status, found)
    return found


def tokens_of(answer: Mapping[str, Any], site: Site, server: str, now: float) -> Tokens:
    """The tokens in an answer of the token endpoint. Raises SignInError if the server could not use them."""
    access, refresh = answer.get("access_token"), answer.get("refresh_token") or ""
    if not isinstance(access, str) or not isinstance(refresh, str) or not access.isascii():
        raise SignInError(f"{site.issuer} sent no access token")
    if access.count(".") != 2:
        raise SignInError(
            f"{site.issuer} sent an opaque access token, which the server cannot check: the provider must issue JWTs "
            f"for the audience {site.audience!r} (docs/security.md)"
        )
    ends = now + _number(answer.get("expires_in"), _LIFE_S, 10 * 86_400.0)
    return Tokens(server.rstrip("/"), site.issuer, site.client_id, site.audience, access, ends, refresh)


class Bearer:
    """The access token of a server for each request. It is replaced before it ends."""

    def __init__(
        self, credentials: Credentials, http: Http | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._credentials = credentials
        self._http = http or Http()
        self._now = now
        self._tokens = credentials.read()

    def __call__(self) -> str:
        """The token, or "" if nobody has signed in. Raises ConfigError, SignInError."""
        if self._tokens is None or not self._is_due(self._tokens):
            return self._tokens.access_token if self._tokens is not None else ""
        with self._credentials.locked():
            # Another command may have replaced it, or signed out.
            self._tokens = self._credentials.read()
            if self._tokens is not None and self._is_due(self._tokens):
                self._tokens = self._renew(self._tokens)
        return self._tokens.access_token if self._tokens is not None else ""

    def _is_due(self, tokens: Tokens) -> bool:
        return tokens.expires_at - self._now() < _EARLY_S

    def _renew(self, old: Tokens) -> Tokens:
        if not old.refresh_token:
            raise _sign_in_again("the sign-in has expired")
        site = _site_by_issuer(old, self._http)
        form = {
            "grant_type": "refresh_token",
            "client_id": old.client_id,
            "refresh_token": old.refresh_token,
            **site.resource,
        }
        status, answer = self._http.post(site.token_url, form)
        if status != 200:
            if answer.get("error") == "invalid_grant":
                self._credentials.remove()
                raise _sign_in_again("the identity provider has ended the sign-in")
            raise _refused(status, answer)
        tokens = tokens_of(answer, site, old.server, self._now())
        tokens = replace(tokens, refresh_token=tokens.refresh_token or old.refresh_token)
        self._credentials.write(tokens)
        return tokens


def revoke(tokens: Tokens, http: Http) -> None:
    """End the sign-in at the provider (RFC 7009). Raises SignInError."""
    site = _site_by_issuer(tokens, http)
    if site.revocation_url and tokens.refresh_token:
        http.post(site.revocation_url, {"client_id": tokens.client_id, "token": tokens.refresh_token})


def open_browser(url: str) -> bool:
    """Whether a browser on this machine shows a page."""
    with contextlib.suppress(webbrowser.Error, OSError):
        return webbrowser.open(url)
    return False


class _Receiver:
    """A server on loopback that gets the answer of the provider once, from the browser."""

    def __init__(self, state: str) -> None:
        self._got: dict[str, str] | None = None
        self._arrived = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                given = dict(parse_qsl(parts.query))
                right = parts.path == _CALLBACK and secrets.compare_digest(
                    given.get("state", "").encode(), state.encode()
                )
                text = "You are signed in. Close this page." if right else "This is not the answer to the sign-in."
                body = f"<!doctype html><meta charset=utf-8><title>jobcloud</title><p>{text}</p>".encode()
                self.send_response(200 if right else 400)
                for name, value in (
                    ("Content-Type", "text/html"),
                    ("Content-Length", str(len(body))),
                    ("Content-Security-Policy", "default-src 'none'"),
                    ("Referrer-Policy", "no-referrer"),
                    ("Connection", "close"),
                ):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if right and receiver._got is None:
                    receiver._got = given
                    receiver._arrived.set()

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{_CALLBACK}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> _Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> dict[str, str]:
        """The parameters of the answer. Raises SignInError if there is none in time."""
        if not self._arrived.wait(_BROWSER_S) or self._got is None:
            raise SignInError("nobody has signed in in time; without a browser on this machine, give --device")
        return self._got


def _metadata(issuer: str, http: Http) -> Mapping[str, Any]:
    """The provider's document about itself (OpenID Connect Discovery 1.0, section 4). Raises SignInError."""
    _, metadata = http.get(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if metadata.get("issuer") != issuer:
        raise SignInError(f"{issuer} calls itself {str(metadata.get('issuer'))[:200]!r}")
    return metadata


def _site_by_issuer(tokens: Tokens, http: Http) -> Site:
    metadata = _metadata(tokens.issuer, http)
    revocation = str(metadata.get("revocation_endpoint") or "")
    token_url = str(metadata.get("token_endpoint") or "")
    return Site(tokens.issuer, tokens.client_id, (), tokens.audience, token_url, "", "", revocation)


def _check_url(url: str) -> None:
    """Raises SignInError for a URL that is neither https nor on loopback."""
    if not url.startswith("https://") and not (url.startswith("http://") and is_loopback(url)):
        raise SignInError(f"{url[:200]!r} of the identity provider is not an https URL")


def _sign_in_again(problem: str) -> ConfigError:
    return ConfigError(problem, field="login", fix="sign in again: jobcloud login")


def _refused(status: int, answer: Mapping[str, Any]) -> SignInError:
    reason = str(answer.get("error_description") or answer.get("error") or f"status {status}")
    return SignInError(f"the identity provider refused: {reason[:200]}")


def _number(value: object, default: float, most: float) -> float:
    """A positive number of seconds, or the default; at most `most`."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return min(float(value), most) if usable else default  # type: ignore[arg-type]
