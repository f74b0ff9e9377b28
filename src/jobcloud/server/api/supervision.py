"""Watches the answer of each request: rights were asked for before it starts, and still exist while a stream lasts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from starlette.types import Message, Scope, Send

from jobcloud.server.api.authorization import ACCESS, Access
from jobcloud.server.api.identities import DIRECTORY, PRINCIPAL, RENEWAL, Identities
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.streams import MEDIA_TYPE

# A stream sends a sign of life every 15 s, so it ends at most 30 s after its sender has lost the right to it.
_RENEW_S = 15.0


class Ended(Exception):
    """The answer has ended early, because its sender has lost the right to the rest."""


class Supervised:
    """Sends an answer.

    Raises AssertionError in place of a successful answer if the route has forgotten to ask for the rights of the
    sender. Raises Ended if the sender of a stream is no longer the one who may read it: the credential is revoked or
    has expired, or the right was taken away. Then the last event of the stream, `error`, has the problem.
    """

    def __init__(
        self, scope: Scope, send: Send, identities: Identities, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._scope, self._send, self._identities, self._monotonic = scope, send, identities, monotonic
        self._renewed_at: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            access: Access = self._scope[ACCESS]
            if message["status"] < 400 and access.forgotten:
                where = f"{self._scope['method']} {self._scope['path']}"
                raise AssertionError(f"the route of {where} has not asked for the rights of the sender")
            if dict(message.get("headers", ())).get(b"content-type", b"").startswith(MEDIA_TYPE.encode()):
                self._renewed_at = self._monotonic()
        elif self._renewed_at is not None and self._monotonic() >= self._renewed_at + _RENEW_S:
            self._renewed_at = self._monotonic()
            await self._renew()
        await self._send(message)

    async def _renew(self) -> None:
        again: Scope = {**self._scope, RENEWAL: True}
        access: Access = self._scope[ACCESS]
        try:
            await self._identities.identify(again, None, is_open=False)
            access.renew(again[PRINCIPAL], again[DIRECTORY])
        except Problem as problem:
            event = f"event: error\ndata: {json.dumps(problem.document())}\n\n"
            await self._send({"type": "http.response.body", "body": event.encode(), "more_body": False})
            raise Ended from problem
