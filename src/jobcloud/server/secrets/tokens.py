"""One-time tokens for executors: a grant in plain JSON, sealed with a key that all schedulers of a cluster share.

A token is `jcx1.GRANT.SEAL`, both parts in base64 for URLs. SEAL is the HMAC-SHA256 (RFC 2104) of the part before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec

_FORM = "jcx1"
MAX_TOKEN = 8_192
KEY_BYTES = 32


class Grant(msgspec.Struct, frozen=True):
    """The right of one task to fetch the secrets `names` of its team, once, until `expires_ms`.

    `address` is that of the agent's HTTP API as the agent registered it, or "" if it is unknown.
    """

    cluster: str
    task: str
    agent: str
    address: str
    names: tuple[str, ...]
    expires_ms: int


class InvalidToken(Exception):
    """The token is malformed, or another key sealed it."""


def seal(key: bytes, grant: Grant) -> str:
    """The token for a grant."""
    body = f"{_FORM}.{_text(msgspec.json.encode(grant))}"
    return f"{body}.{_text(_mac(key, body))}"


def unseal(key: bytes, token: str) -> Grant:
    """The grant in a token. Raises InvalidToken. Does not check whether the grant has expired."""
    body, _, given = token.rpartition(".")
    if len(token) > MAX_TOKEN or not token.isascii() or not hmac.compare_digest(given, _text(_mac(key, body))):
        raise InvalidToken
    form, _, grant = body.partition(".")
    if form != _FORM:
        raise InvalidToken
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(grant + "=" * (-len(grant) % 4)), type=Grant)
    except ValueError:
        raise InvalidToken from None


def _mac(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
