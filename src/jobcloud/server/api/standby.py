"""Requests to a scheduler that does not lead: answered from the stored state, or passed on to the leader."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from jobcloud.access.directory import Directory
from jobcloud.errors import StoreError
from jobcloud.server.api.certificates import has_certificate_only
from jobcloud.server.api.forward import HOP_HEADER, RETRY, Forwarder
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.replica import Copy, Replica
from jobcloud.server.console.paths import is_console

#: the header of an answer from the stored state: the age of the state, in milliseconds
AGE_HEADER = b"jobcloud-standby-age-ms"
# How long a reader waits for a copy of the state.
_COPY_S = 30.0
# A standby answers these requests without a copy: they concern this process, the history, or no state at all.
_OWN = re.compile(r"/metrics|/api/v1/(health|openapi\.json|cron/next|sign-in|statistics(/series)?|history/[^/]+)")
# Fire times on the days of calendars need the state.
_WITH_CALENDARS = re.compile(rb"(?:^|&)(skipOn|onlyOn)=")
_OWN_READS = re.compile(r"/api/v1/runs/[^/]+/notes")
# These reads need stored data only. All others need the memory of the leader, such as offers, or files of agents.
_STORED = re.compile(
    r"/api/v1/((apps|jobs|calendars)(/[^/]+)?|cron/next|tasks|runs(/[^/]+(/shards/[^/]+(/attempts)?)?)?)"
)  # fmt: skip
_CRON = "/api/v1/cron/next"
_READS = frozenset({"GET", "HEAD"})


class Standby:
    """Answers requests while this scheduler is on standby. For one event loop.

    `waits` is False once this scheduler leads. `leader` is the URL of the leader's API, or "". `tls` is the context for
    an https URL.
    """

    def __init__(
        self,
        waits: Callable[[], bool],
        leader: Callable[[], str],
        replica: Replica,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._waits = waits
        self._leader = leader
        self._replica = replica
        self._forward = Forwarder(leader, tls)
        #: when the leader last answered a write that was passed on, by the clock of `replica`
        self._written_at = float("-inf")

    def concerns(self, scope: Scope) -> bool:
        """Whether a request needs the state while this scheduler is on standby."""
        path = scope["path"]
        own = _OWN.fullmatch(path) or (_OWN_READS.fullmatch(path) if scope["method"] in _READS else None)
        stored = path == _CRON and _WITH_CALENDARS.search(scope["query_string"]) is not None
        return self._waits() and not is_console(path) and (own is None or stored)

    async def copy(self, scope: Scope) -> Copy | None:
        """The copy of the state that answers a read; None if the leader has to answer it.

        Raises Problem for a request that another standby has passed on.
        """
        if any(name == HOP_HEADER for name, _ in scope["headers"]):
            detail = "Another scheduler takes this one for the leader, but it is on standby"
            fix = "If this lasts, set http.advertise of the leader to an address at which other machines reach it."
            raise Problem("unavailable", f"{detail}. {fix}", headers=RETRY)
        if scope["method"] not in _READS or _STORED.fullmatch(scope["path"]) is None:
            return None
        since = self._written_at
        if _wants_latest(scope):
            if self._leader():
                return None
            since = self._replica.monotonic()
        return await self._copy(since)

    async def directory(self) -> Directory | None:
        """The rights of senders, for a request that does not concern the state; None while this scheduler leads.

        Raises Problem if the stored state cannot be read.
        """
        if not self._waits():
            return None
        if (copy := await self._copy(self._written_at)) is None:
            raise Problem(
                "unavailable", "The rights of the sender cannot be read from the stored state.", headers=RETRY
            )
        return copy.core.directory

    async def _copy(self, since: float) -> Copy | None:
        """A copy that is not older than `since`, by the clock of the replica; None if the store does not answer."""
        try:
            async with asyncio.timeout(_COPY_S):
                # Other requests wait for the same future, so this request must not cancel it.
                return await asyncio.shield(asyncio.wrap_future(self._replica.copy(since)))
        except (StoreError, TimeoutError):
            return None

    async def forward(self, scope: Scope, receive: Receive, send: Send, *, has_proof: bool = False) -> None:
        """Let the leader answer. Raises Problem, also for a client that only a certificate identifies.

        `has_proof`: the request has the cookie of a session, or is for a webhook, whose signature counts. It counts in
        place of a certificate. The leader sees the certificate of this scheduler, and not that of the client.
        """
        if has_certificate_only(scope) and not has_proof:
            detail = "This scheduler is on standby, and cannot prove to the leader whose certificate this is"
            fix = f"Send the request to the leader at {self._leader() or 'its address'}, or send a token."
            raise Problem("forbidden", f"{detail}. {fix}")
        if scope["method"] in _READS:
            await self._forward(scope, receive, send)
            return

        async def note(message: Message) -> None:
            # Set before the client learns of its write: its next read through this standby has to see the write.
            self._written_at = self._replica.monotonic()
            await send(message)

        try:
            await self._forward(scope, receive, note)
        finally:
            self._written_at = self._replica.monotonic()

    def age(self, copy: Copy) -> tuple[bytes, bytes]:
        """The header of an answer from a copy."""
        return AGE_HEADER, str(int(self._replica.age(copy) * 1_000)).encode()


def _wants_latest(scope: Scope) -> bool:
    """Whether the client asks for an answer that is not from a copy (RFC 9111, section 5.2.1.4)."""
    values = (value for name, value in scope["headers"] if name == b"cache-control")
    return b"no-cache" in b",".join(values).lower()
