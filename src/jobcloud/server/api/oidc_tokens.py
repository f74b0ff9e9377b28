"""Access tokens of the provider as a source of identity: for the command line, and for machines."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from jobcloud.access.directory import Directory, Principal
from jobcloud.server.api.identities import bearer_token, unauthenticated
from jobcloud.server.api.problems import Problem
from jobcloud.server.identity.oidc import tokens
from jobcloud.server.identity.oidc.metadata import ProviderError
from jobcloud.server.identity.oidc.provider import Provider


class OidcTokens:
    """Tokens with the provider's signature, for the audience of this installation. `now_ms` is the wall clock."""

    def __init__(self, provider: Provider, now_ms: Callable[[], int]) -> None:
        self._provider = provider
        self._now_ms = now_ms

    async def identify(self, scope: Scope, directory: Directory) -> Principal | None:
        text, options = bearer_token(scope), self._provider.options
        if not options.audience or not tokens.looks_like_token(text):
            return None
        try:
            header, claims = await self._provider.claims(text)
            tokens.check(claims, issuer=options.issuer, audience=options.audience, now_s=self._now_ms() // 1_000)
            tokens.check_access_token(header, claims)
            subject = tokens.subject_of(claims, options.name_claim)
        except tokens.TokenError as error:
            raise unauthenticated(f"The token is refused. {error}") from None
        except ProviderError:
            detail = "The token cannot be checked now, because the identity provider does not answer."
            raise Problem("unavailable", detail, headers={"Retry-After": "10"}) from None
        check_enabled(subject, directory)
        return Principal(subject, f"oidc {claims['sub']}"[:200], tokens.groups_of(claims, options.groups_claim))


def check_enabled(subject: str, directory: Directory) -> None:
    """Raises Problem if an administrator has disabled a person of the provider."""
    if directory.is_disabled(subject):
        raise unauthenticated("The user is disabled.")
