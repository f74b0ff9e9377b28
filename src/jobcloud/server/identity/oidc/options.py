"""The options of an identity provider. They need none of the libraries that speak with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """A provider, and this program's registration there.

    `secret` "": a public client. `audience` "": no bearer tokens. `cli_client` "": no sign-in by the command line.
    `url`: the address at which browsers find this server; "": that of each request. `session_s`: the length of a
    session of a browser.
    """

    issuer: str
    client_id: str = ""
    secret: str = ""
    audience: str = ""
    scopes: tuple[str, ...] = ("openid", "profile")
    groups_claim: str = "groups"
    name_claim: str = "sub"
    cli_client: str = ""
    cli_scopes: tuple[str, ...] = ("openid", "profile", "offline_access")
    ca_file: Path | None = None
    url: str = ""
    session_s: float = 12 * 3600.0
