"""The form of tokens and session cookies: `PREFIX_ID_SECRET`, and the hash that is stored in place of the secret.

A secret is a random number of 256 bits, so nobody can guess it from its SHA-256: a slow hash, as for passwords, would
protect nothing and delay each request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

TOKEN_PREFIX = "jct"  # noqa: S105 - no secret
SESSION_PREFIX = "jcs"
_FORM = re.compile(r"(jct|jcs)_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Secret:
    """A token or a cookie as its holder sends it. `text` is the whole."""

    prefix: str
    id: str
    text: str

    @property
    def hash(self) -> str:
        return hash_of(self.text)


def parse(text: str) -> Secret | None:
    """The token or cookie that a text is; None if it has another form."""
    found = _FORM.fullmatch(text)
    return Secret(found[1], found[2], text) if found is not None else None


def make(prefix: str, random: bytes) -> Secret:
    """A new token or cookie from 38 random bytes."""
    secret_id, secret = random[:6].hex(), base64.urlsafe_b64encode(random[6:38]).decode().rstrip("=")
    return Secret(prefix, secret_id, f"{prefix}_{secret_id}_{secret}")


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def server_token_id(text_hash: str) -> str:
    """The key of the record that the token of the settings with a hash is revoked."""
    return f"server-{text_hash[:32]}"
