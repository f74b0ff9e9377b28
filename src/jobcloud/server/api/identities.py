"""Who sends a request. Each kind of credential has a source, which finds the principal that it proves.

The guard asks the sources in order. The first one that knows the kind of the credential decides.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from starlette.types import Scope

from jobcloud.access import tokens
from jobcloud.access.directory import EMPTY, Directory, Principal
from jobcloud.model import EVERY_TEAM, SERVER_SUBJECT, Session
from jobcloud.server.api.elastic_job.access import is_elastic_job, is_local, token_of
from jobcloud.server.api.problems import Problem
from jobcloud.server.identity.sessions import Limits, cookies, find_session

#: the key of the principal in the scope of a request
PRINCIPAL = "jobcloud.principal"
#: the key of the session in the scope of a request, if its cookie has proved the identity
SESSION = "jobcloud.session"
#: is in the scope of a request whose sender is checked again, while the answer lasts. This is no use of a session.
RENEWAL = "jobcloud.renewal"
METRICS_PATH = "/metrics"
#: the subject of everybody if the settings have no token
OPEN = "token:none"
_ADMIN = ((EVERY_TEAM, "admin"), (EVERY_TEAM, "teardown"))
#: the principal of a request that needs no identity, and proves none
NOBODY = Principal("nobody")
_METRICS_SUBJECT = "token:metrics"


class Source(Protocol):
    """Finds the principal that one kind of credential proves."""

    async def identify(self, scope: Scope, directory: Directory) -> Principal | None:
        """None if the request has no credential of this kind. Raises Problem (unauthenticated) for a wrong one."""


class Identities:
    """The sources, in their order. `directory` is that of the scheduler, if no copy of the state answers."""

    def __init__(self, sources: Sequence[Source], directory: Callable[[], Directory]) -> None:
        self._sources = tuple(sources)
        self._directory = directory

    async def identify(self, scope: Scope, directory: Directory | None, *, is_open: bool) -> None:
        """Put the principal and the directory into the scope.

        Raises Problem if the request proves no identity, unless it is for an open path: then the principal is NOBODY.
        """
        directory = directory if directory is not None else self._directory()
        scope[DIRECTORY] = directory
        try:
            scope[PRINCIPAL] = await self._principal(scope, directory)
        except Problem:
            if not is_open:
                raise
            scope[PRINCIPAL] = NOBODY

    async def knows(self, token: str) -> bool:
        """Whether a bearer token, as it stands, proves an identity."""
        try:
            header = (b"authorization", b"Bearer " + token.encode("latin-1"))
            await self._principal({"type": "http", "path": "", "headers": [header]}, self._directory())
        except (UnicodeEncodeError, Problem):
            return False
        return token == token.strip()

    async def check_given(self, scope: Scope, *, is_open: bool) -> None:
        """Raises Problem if the request needs a credential and has none. A standby lets the leader decide about it."""
        if not is_open and not any(name in _CREDENTIALS for name, _ in scope["headers"]):
            await self._principal(scope, EMPTY)

    async def scrapes_metrics(self, scope: Scope) -> bool:
        """Whether a request asks for metrics with the token for metrics."""
        if scope["path"] != METRICS_PATH:
            return False
        with suppress(Problem):
            return (await self._principal(scope, EMPTY)).subject == _METRICS_SUBJECT
        return False

    async def _principal(self, scope: Scope, directory: Directory) -> Principal:
        for source in self._sources:
            if (found := await source.identify(scope, directory)) is not None:
                return found
        given = any(name == b"authorization" for name, _ in scope["headers"])
        raise unauthenticated("The token is wrong." if given else "Send the header 'Authorization: Bearer <token>'.")


DIRECTORY = "jobcloud.directory"
_CREDENTIALS = frozenset({b"authorization", b"accesstoken", b"cookie"})


class ServerToken:
    """The token of the settings, with all rights until it is revoked. If it is "", every client is an admin."""

    def __init__(self, token: str, *, metrics_token: str = "", elastic_job_without_token: bool = False) -> None:
        self._token = token
        self._revoked_by = tokens.server_token_id(tokens.hash_of(token))
        self._metrics_token = metrics_token
        self._elastic_job_without_token = elastic_job_without_token

    async def identify(self, scope: Scope, directory: Directory) -> Principal | None:
        given = bearer_token(scope)
        if not self._token:
            return Principal(OPEN, grants=_ADMIN)
        if given and _equal(given, self._token):
            if self._revoked_by in directory.tokens:
                raise unauthenticated("The server's token was revoked. A new one in http.token_file is valid.")
            return Principal(SERVER_SUBJECT, grants=_ADMIN)
        if given and self._metrics_token and _equal(given, self._metrics_token):
            return Principal(_METRICS_SUBJECT, grants=((EVERY_TEAM, "metrics"),))
        if self._elastic_job_without_token and is_elastic_job(scope["path"]) and is_local(scope):
            return Principal("elastic-job:local", grants=((EVERY_TEAM, "admin"),))
        return None


class ApiTokens:
    """The tokens that users and service accounts have made."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms

    async def identify(self, scope: Scope, directory: Directory) -> Principal | None:
        given = tokens.parse(bearer_token(scope))
        if given is None or given.prefix != tokens.TOKEN_PREFIX:
            return None
        known = directory.tokens.get(given.id)
        if known is None or not hmac.compare_digest(known.hash, given.hash):
            raise unauthenticated("The token is wrong.")
        if known.revoked_ms:
            raise unauthenticated("The token was revoked.")
        if known.expires_ms and known.expires_ms <= self._now_ms():
            raise unauthenticated("The token has expired.")
        if directory.is_disabled(known.subject):
            raise unauthenticated("The user of the token is disabled.")
        return Principal(known.subject, f"token {known.id}", scope=known.scope or None)


class Sessions:
    """The cookies of browsers in which somebody has signed in.

    `note` is called with each session that is found in `live`, the directory of the scheduler. It is not called for a
    standby's copy, which nobody can change, and not while an answer lasts: an open stream is no use.
    """

    def __init__(
        self,
        limits: Limits,
        now_ms: Callable[[], int],
        live: Callable[[], Directory],
        note: Callable[[Session], None],
    ) -> None:
        self._limits = limits
        self._now_ms = now_ms
        self._live = live
        self._note = note

    async def identify(self, scope: Scope, directory: Directory) -> Principal | None:
        given = cookies(scope, self._limits.sessions.cookie)
        if not given or bearer_token(scope):
            return None
        session = find_session(given, directory, self._limits, self._now_ms())
        if session is None:
            raise unauthenticated("The session has ended: sign in again.")
        if directory is self._live() and RENEWAL not in scope:
            self._note(session)
        scope[SESSION] = session
        grants = _ADMIN if session.subject == SERVER_SUBJECT else ()
        return Principal(session.subject, f"session {session.id}", session.groups, grants)


def bearer_token(scope: Scope) -> str:
    """The token in the one Authorization header, or ""; for clients of Elastic-Job, also from their other headers."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    found = token.strip() if scheme.lower() == "bearer" else ""
    return found or (token_of(scope) if is_elastic_job(scope["path"]) else "")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def unauthenticated(detail: str) -> Problem:
    """The refusal of a request that proves no identity."""
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="jobcloud"'})
