"""The security headers of every answer. A route that sets one of them itself keeps its own value.

Sources: RFC 6797 (Strict-Transport-Security), RFC 9111, section 5.2.2.5 (no-store), W3C "Content Security Policy Level
3", W3C "Referrer Policy", WHATWG Fetch, sections 3.6 (X-Content-Type-Options) and 3.7 (Cross-Origin-Resource-Policy).
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: for data. Pages have policies of their own
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # An answer may depend on who asks. A program that keeps an answer and its ETag can still send If-None-Match.
    (b"cache-control", b"no-store"),
)
_HSTS = b"strict-transport-security"


@dataclass(frozen=True, slots=True)
class Https:
    """`by_proxy`: all clients use https, because a proxy ends TLS. Then requests have the scheme https too.

    `hsts_seconds` is how long browsers that have used https use nothing else; 0 leaves the header out.
    """

    by_proxy: bool = False
    hsts_seconds: int = 0


class SecurityHeaders:
    """ASGI middleware that adds the headers that an answer lacks."""

    def __init__(self, app: ASGIApp, https: Https) -> None:
        self._app = app
        self._by_proxy = https.by_proxy
        self._hsts = ((_HSTS, b"max-age=%d" % https.hsts_seconds),) if https.hsts_seconds else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._by_proxy:
            scope["scheme"] = "https"
        wanted = SECURITY_HEADERS + (self._hsts if scope["scheme"] == "https" else ())

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = [*given, *(header for header in wanted if header[0] not in names)]
            await send(message)

        await self._app(scope, receive, add)
