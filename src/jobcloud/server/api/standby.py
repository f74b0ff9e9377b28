"""Requests to a scheduler that does not lead: answered from the stored state, or passed on to the leader."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from jobcloud.errors import StoreError
from jobcloud.server.api.forward import HOP_HEADER, RETRY, Forwarder
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.replica import Copy, Replica

#: the header of an answer from the stored state: the age of the state, in milliseconds
AGE_HEADER = b"jobcloud-standby-age-ms"
# How long a reader waits for a copy of the state.
_COPY_S = 30.0
# A standby answers these requests without a copy: they concern this process, the history, or no state at all.
_OWN = re.compile(r"/metrics|/api/v1/(health|openapi\.json|cron/next|statistics|history/[^/]+)")
# These reads need stored data only. All others need the memory of the leader, such as offers, or files of agents.
_STORED = re.compile(
    r"/api/v1/((apps|jobs)(/[^/]+)?|tasks|runs(/[^/]+(/shards/[^/]+(/attempts)?)?)?)"
)  # fmt: skip
_READS = frozenset({"GET", "HEAD"})


class Standby:
    """Answers requests while this scheduler is on standby. For one event loop.

    `waits` is False once this scheduler leads. `leader` is the URL of the leader's API, or "".
    """

    def __init__(self, waits: Callable[[], bool], leader: Callable[[], str], replica: Replica) -> None:
        self._waits = waits
        self._leader = leader
        self._replica = replica
        self._forward = Forwarder(leader)
        #: when the leader last answered a write that was passed on, by the clock of `replica`
        self._written_at = float("-inf")

    def concerns(self, scope: Scope) -> bool:
        """Whether a request needs the state while this scheduler is on standby."""
        return self._waits() and _OWN.fullmatch(scope["path"]) is None

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
        try:
            async with asyncio.timeout(_COPY_S):
                # Other requests wait for the same future, so this request must not cancel it.
                return await asyncio.shield(asyncio.wrap_future(self._replica.copy(since)))
        except (StoreError, TimeoutError):
            return None

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the leader answer. Raises Problem."""
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
