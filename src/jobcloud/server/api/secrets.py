"""The secrets of tasks, for executors: `POST /secrets` of the artifact server, with the task's token.

The answer is `{"secrets": {NAME: BASE64}}`, or `{"problem": TEXT}`. With status 503, the executor asks again, and asks
the other schedulers.
"""

from __future__ import annotations

import base64
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from jobcloud.errors import JobcloudError
from jobcloud.server.api.threads import Questions
from jobcloud.server.secrets.service import Refusal, Secrets

log = structlog.get_logger(__name__)

PATH = "/secrets"
_NOT_NOW = 503


class SecretsApi:
    """An ASGI app. Sources may be slow, so requests have threads of their own: a few at once, while others wait."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._questions = Questions(at_once=16, waiting=500, patience_s=15.0, of="the source of secrets")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._response(scope)
        await response(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        if scope["method"] != "POST":
            return _answer(405, {"problem": "the method must be POST"}, Allow="POST")
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        client = scope.get("client")
        if kind.lower() != "bearer" or not client:
            return _answer(401, {"problem": "there is no token"})
        address = str(client[0])
        try:
            values = await self._questions.ask(lambda: self._secrets.hand_over(token.strip(), address))
        except Refusal as refusal:
            return _answer(refusal.status, {"problem": str(refusal)})
        except (JobcloudError, TimeoutError) as error:
            return _answer(_NOT_NOW, {"problem": f"this scheduler cannot answer now: {error}"})
        except Exception as error:
            # Without the error's text and its traceback, which may contain a value.
            log.error("secrets were not handed over", kind=type(error).__name__)
            return _answer(500, {"problem": "the scheduler failed to answer"})
        return _answer(200, {"secrets": {name: base64.b64encode(value).decode() for name, value in values.items()}})


def _answer(status: int, body: dict[str, Any], **headers: str) -> Response:
    own = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return JSONResponse(body, status, own | headers)
