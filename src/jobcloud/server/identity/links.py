"""One-time links with which a browser signs in. They are in memory, so a link ends with the leadership."""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass

from jobcloud.access.names import user_subject
from jobcloud.messages import Command, EndSessions, Kind, PutAccess, RemoveAccess, RevokeServerToken
from jobcloud.model import SERVER_SUBJECT, Principal, User

#: how long a link is valid
LINK_MS = 15 * 60_000
#: the maximum number of unused links; a further one replaces the oldest
MAX_LINKS = 100
# 128 bits: nobody guesses a code within its minutes, and the link fits into a line of a terminal.
_CODE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Link:
    """Whom a link signs in, who made it, and when it ends.

    `user_since_ms` is when the local user was added; 0: the subject was none. A later user with the same name is
    another person.
    """

    subject: str
    maker: Principal
    expires_ms: int
    user_since_ms: int = 0


class Links:
    """The unused links by the hash of their codes. Thread-safe."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()

    def make(self, subject: str, maker: Principal, now_ms: int, user_since_ms: int = 0) -> tuple[str, Link]:
        """A new link and its code."""
        code = secrets.token_urlsafe(_CODE_BYTES)
        link = Link(subject, maker, now_ms + LINK_MS, user_since_ms)
        with self._lock:
            self._drop_expired(now_ms)
            if len(self._links) >= MAX_LINKS:
                del self._links[next(iter(self._links))]
            self._links[_hash(code)] = link
        return code, link

    def take(self, code: str, now_ms: int) -> Link | None:
        """The link with a code, which is then used up; None if there is none."""
        with self._lock:
            self._drop_expired(now_ms)
            return self._links.pop(_hash(code), None)

    def carried_out(self, command: Command) -> None:
        """End the links for and of a person whom a command has signed out everywhere."""
        match command:
            case EndSessions(subject=subject):
                self._end(subject)
            case RemoveAccess(kind=Kind.USER, key=name) | PutAccess(record=User(name=name)):
                self._end(user_subject(name))
            case RevokeServerToken():
                self._end(SERVER_SUBJECT)

    def _end(self, subject: str) -> None:
        with self._lock:
            self._links = {
                code: link for code, link in self._links.items() if subject not in (link.subject, link.maker.subject)
            }

    def _drop_expired(self, now_ms: int) -> None:
        self._links = {code: link for code, link in self._links.items() if now_ms < link.expires_ms}


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
