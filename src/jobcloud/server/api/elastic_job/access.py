"""Recognises requests of Elastic-Job-Cloud's API, and the token in them."""

from __future__ import annotations

import base64
import binascii
import re

from starlette.types import Scope

#: the header of 3.0.x for its token; only clients of 3.0.x send it
TOKEN_HEADER = "accessToken"  # noqa: S105 - the name of a header
LOGIN_PATH = "/api/login"
_PATH = re.compile(r"/api/(app|job|operate|login)(/.*)?", re.DOTALL)
# Headers that proxies add. A forwarded request does not come from a client on this machine.
_FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})


def is_elastic_job(path: str) -> bool:
    """Whether a path belongs to Elastic-Job-Cloud's API."""
    return _PATH.fullmatch(path) is not None


def speaks_version_3(scope: Scope) -> bool:
    """Whether the client is one of 3.0.x."""
    return any(name == TOKEN_HEADER.lower().encode() for name, _ in scope["headers"])


def token_of(scope: Scope) -> str:
    """The token of a request, or "": from the header of 3.0.x, as a bearer token, or as the password of HTTP Basic.

    The users of old clients can put a user name and a password into the client's URL, but cannot add a header.
    """
    given = [value for name, value in scope["headers"] if name in (TOKEN_HEADER.lower().encode(), b"authorization")]
    if len(given) != 1:
        return ""
    text: str = given[0].decode("latin-1").strip()
    if speaks_version_3(scope):
        return text
    scheme, _, rest = text.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    return _password(rest) if scheme.lower() == "basic" else ""


def is_local(scope: Scope) -> bool:
    """Whether a request comes from a loopback address, and no proxy says that it has forwarded it."""
    host: str = (scope.get("client") or ("",))[0]
    local = host == "::1" or host.startswith(("127.", "::ffff:127."))
    return local and not any(name in _FORWARDED for name, _ in scope["headers"])


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
