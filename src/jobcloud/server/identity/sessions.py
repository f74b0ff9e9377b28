"""Sessions of browsers: their cookies, their limits, their beginning, and the note of their use.

Sources: RFC 6265bis for cookies and the prefix `__Host-`; OWASP Session Management Cheat Sheet for the two limits.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from starlette.types import Scope

from jobcloud.access import tokens
from jobcloud.access.directory import Directory
from jobcloud.access.names import is_local_user
from jobcloud.errors import ConfigError, JobcloudError, NotAllowed
from jobcloud.messages import Command, NoteSessions, PutAccess
from jobcloud.model import SERVER_SUBJECT, Session
from jobcloud.sentences import Told

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
#: how often the use of a session is written
NOTE_MS = 60_000
# How many sessions one command notes.
_MAX_NOTED = 500
MAX_GROUPS = 500
MAX_GROUP_LENGTH = 200


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Limits of sessions in milliseconds. `secure`: browsers reach this server over TLS only."""

    idle_ms: int = _DAY_MS // 2
    absolute_ms: int = 7 * _DAY_MS
    secure: bool = False

    @property
    def cookie(self) -> str:
        """The name of the cookie. Browsers accept the prefix over TLS only, and from this very host only."""
        return "__Host-jobcloud" if self.secure else "jobcloud"

    def alive(self, session: Session, now_ms: int) -> bool:
        """Whether a session has reached none of its limits. A lower limit of the settings holds at once."""
        ends = min(session.expires_ms, session.created_ms + self.absolute_ms, session.seen_ms + self.idle_ms)
        return now_ms < ends


DEFAULT_LIMITS = SessionOptions()


class Limits(Protocol):
    """The limits of sessions, and the server's token: when it changes, the sessions of its holder end."""

    @property
    def sessions(self) -> SessionOptions: ...
    @property
    def server_token(self) -> str: ...


class Services(Limits, Protocol):
    """The part of the API's services that a sign-in needs."""

    def command(self, make: Callable[[int], Command]) -> int: ...


def start_session(
    services: Services,
    subject: str,
    groups: Iterable[str] = (),
    by: str = "password",
    expires_ms: int = 0,
    proven: Callable[[], bool] = lambda: True,
) -> str:
    """Sign a person in. Returns the value of the header Set-Cookie. Blocks until the session is stored.

    `groups` are those that an identity provider names, and `by` is the way of the sign-in. `expires_ms` is an instant
    at which the session ends even if its limits are later; 0: there is none. `proven` tells, on the scheduler's thread,
    whether what was checked still holds: while a password is checked, it may be changed. Raises NotAllowed if it does
    not hold, ConfigError for groups that cannot be stored, and the errors of `Loop.command`.
    """
    options, groups = services.sessions, tuple(groups)
    if len(groups) > MAX_GROUPS or any(len(group) > MAX_GROUP_LENGTH for group in groups):
        text = f"the sign-in names more than {MAX_GROUPS} groups, or one of more than {MAX_GROUP_LENGTH} characters"
        problem = Told(text, "many_groups", most=MAX_GROUPS, longest=MAX_GROUP_LENGTH)
        fix = Told("let the identity provider send only the groups of this server", "send_fewer_groups")
        raise ConfigError(problem, field="groups", fix=fix)
    secret = tokens.make(tokens.SESSION_PREFIX, secrets.token_bytes(38))

    def made(at: int) -> Session:
        ends = at + options.absolute_ms
        ends = min(ends, expires_ms) if expires_ms else ends
        return Session(secret.id, _stored_hash(secret, subject, services), subject, by, at, at, ends, groups)

    def begun(at: int) -> PutAccess:
        if not proven():
            raise NotAllowed(Told(f"{subject} was changed during the sign-in", "changed_in_sign_in", subject=subject))
        return PutAccess(at, made(at), create=True)

    at = services.command(begun)
    return _set_cookie(options, secret.text, max(0, (made(at).expires_ms - at) // 1_000))


def end_cookie(options: SessionOptions) -> str:
    """The value of the header Set-Cookie that removes the cookie."""
    return _set_cookie(options, "", 0)


def _set_cookie(options: SessionOptions, value: str, seconds: int) -> str:
    # Lax, not Strict: after single sign-on, the browser comes from the page of the provider, and must be signed in.
    flags = "HttpOnly; SameSite=Lax" + ("; Secure" if options.secure else "")
    return f"{options.cookie}={value}; Path=/; Max-Age={seconds}; {flags}"


def cookies(scope: Scope, name: str) -> list[str]:
    """The values of all cookies with a name, in the order of the request."""
    wanted, found = name.encode(), []
    for header, value in scope["headers"]:
        if header == b"cookie":
            for pair in value.split(b";"):
                given, sign, content = pair.strip(b" \t").partition(b"=")
                if sign and given == wanted:
                    found.append(content.decode("latin-1"))
    return found


def find_session(given: list[str], directory: Directory, limits: Limits, now_ms: int) -> Session | None:
    """The session that the cookies of one request prove; None if they prove none.

    Two cookies of this name prove nothing. A neighbour of this host could have set one of them.
    """
    secret = tokens.parse(given[0]) if len(given) == 1 else None
    if secret is None or secret.prefix != tokens.SESSION_PREFIX:
        return None
    session = directory.sessions.get(secret.id)
    if session is not None and not may_sign_in(session.subject, directory, limits):
        return None
    if session is None or not hmac.compare_digest(session.hash, _stored_hash(secret, session.subject, limits)):
        return None
    return session if limits.sessions.alive(session, now_ms) else None


def may_sign_in(subject: str, directory: Directory, limits: Limits) -> bool:
    """Whether a subject may have a session: nobody has disabled or removed the user, or revoked the server's token.

    A person of the identity provider needs no record here.
    """
    if subject == SERVER_SUBJECT:
        return tokens.server_token_id(tokens.hash_of(limits.server_token)) not in directory.tokens
    user = directory.user_of(subject)
    return not user.disabled if user is not None else not is_local_user(subject.partition(":")[2])


def _stored_hash(secret: tokens.Secret, subject: str, limits: Limits) -> str:
    """The hash of a cookie.

    For SERVER_SUBJECT, it depends on the server's token. So the session ends when the token changes.
    """
    if subject != SERVER_SUBJECT:
        return secret.hash
    return hmac.new(limits.server_token.encode(), secret.text.encode(), "sha256").hexdigest()


def form_token(cookie: str) -> str:
    """The token that the forms contain for the session of this cookie. Other sites cannot know it."""
    return hashlib.sha256(f"form {cookie}".encode()).hexdigest()


class UseNotes:
    """Writes in the background when sessions were used: each at most once a minute. Used by one event loop."""

    def __init__(self, command: Callable[[Callable[[int], Command]], object], now_ms: Callable[[], int]) -> None:
        self._command = command
        self._now_ms = now_ms
        self._waiting: dict[str, None] = {}
        self._writing: asyncio.Task[None] | None = None
        #: after a failure, nothing is written before this instant
        self._rest_until = 0

    def note(self, session: Session) -> None:
        """Note that a session is in use now. Never raises and never waits."""
        if self._now_ms() < max(session.seen_ms + NOTE_MS, self._rest_until):
            return
        self._waiting[session.id] = None
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                ids = tuple(self._waiting)[:_MAX_NOTED]
                await asyncio.to_thread(self._command, partial(_notes, ids))
                for session_id in ids:
                    del self._waiting[session_id]
        except (JobcloudError, TimeoutError) as error:
            log.warning("the use of sessions was not noted: %s", error)
            self._waiting.clear()
            self._rest_until = self._now_ms() + NOTE_MS
        finally:
            self._writing = None


def _notes(ids: tuple[str, ...], at: int) -> NoteSessions:
    return NoteSessions(at, ids)
