"""The route that tells the command line where to sign in."""

from __future__ import annotations

from pydantic import BaseModel

from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.routes import Routes


class OidcSignIn(BaseModel):
    """The provider at which the command line signs in. `audience` is what its access tokens must be for."""

    issuer: str
    clientId: str  # noqa: N815 - a name of the API
    scopes: list[str]
    audience: str


class SignInOptions(BaseModel):
    """The ways to sign in on the command line. `oidc` is null without an identity provider for it."""

    oidc: OidcSignIn | None


def router(options: OidcOptions | None) -> Routes:
    """The route that tells the command line where to sign in."""
    made = Routes(tags=["sign-in"])
    found = None
    if options is not None and options.cli_client and options.audience:
        scopes = list(options.cli_scopes)
        found = OidcSignIn(issuer=options.issuer, clientId=options.cli_client, scopes=scopes, audience=options.audience)

    @made.get("/sign-in")
    async def show_sign_in_options() -> SignInOptions:
        """How the command line can sign in. This route needs no identity."""
        return SignInOptions(oidc=found)

    return made
