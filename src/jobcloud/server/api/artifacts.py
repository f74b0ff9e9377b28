"""The artifact server: packages and the executor for agents, by content hash, on a listener of its own.

Agents have no token, so this listener lists nothing. Only a client that knows a hash gets the content. The listener
also hands the secrets of tasks to executors (see secrets.py), and serves nothing else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import structlog
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jobcloud.config import SHA256
from jobcloud.errors import JobcloudError
from jobcloud.server.api.secrets import PATH as SECRETS_PATH
from jobcloud.server.api.threads import apart
from jobcloud.server.packages import PackageStore

log = structlog.get_logger(__name__)

_REFILLS_AT_ONCE = 4
_PATH = re.compile(rf"/({SHA256.pattern})/([A-Za-z0-9_][A-Za-z0-9_.-]{{0,99}})")


def create_artifacts(
    packages: PackageStore,
    executor: tuple[str, Path] | None = None,
    refill: Callable[[str, str], Path | None] = lambda sha256, file: None,
    secrets: ASGIApp | None = None,
) -> ASGIApp:
    """The ASGI app: `GET|HEAD /<sha256>/<file>`. `executor` is the hash and path of the executor's zip.

    `refill` fetches a missing package by its hash and file name, for example after a change of the leader. It may
    block, and raise a JobcloudError. `secrets` answers requests for SECRETS_PATH; without it, there is no such path.
    """

    def find(sha256: str, file: str) -> Path | None:
        if executor and (sha256, file) == (executor[0], executor[1].name):
            return executor[1]
        path = packages.find(sha256)
        return path if path and path.name == file else None

    return _Artifacts(find, refill, secrets)


class _Artifacts:
    def __init__(
        self,
        find: Callable[[str, str], Path | None],
        refill: Callable[[str, str], Path | None],
        secrets: ASGIApp | None,
    ) -> None:
        self._find, self._refill, self._secrets = find, refill, secrets
        #: the future of each package that is being fetched; all requests for the package share it
        self._refilling: dict[tuple[str, str], asyncio.Future[Path | None]] = {}
        self._turns = asyncio.Semaphore(_REFILLS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._secrets is not None and scope["path"] == SECRETS_PATH:
            await self._secrets(scope, receive, send)
            return
        response = await self._response(scope)
        await response(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        wanted = _PATH.fullmatch(scope["path"])
        if wanted is None:
            return Response(status_code=404)
        sha256, file = wanted.groups()
        path = self._find(sha256, file)
        if path is None:
            try:
                path = await self._refilled(sha256, file)
            except JobcloudError as error:
                log.warning("package not fetched", sha256=sha256, problem=str(error))
                return Response(status_code=503, headers={"Retry-After": "5"})
        if path is None:
            return Response(status_code=404)
        # The content of a hash never changes, so agents may cache it without a limit.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(path, media_type="application/octet-stream", headers=headers)

    async def _refilled(self, sha256: str, file: str) -> Path | None:
        key = sha256, file
        if key not in self._refilling:
            task = asyncio.ensure_future(self._in_turn(sha256, file))
            self._refilling[key] = task
            task.add_done_callback(lambda _: self._refilling.pop(key))
        return await asyncio.shield(self._refilling[key])

    async def _in_turn(self, sha256: str, file: str) -> Path | None:
        async with self._turns:
            return await apart(lambda: self._refill(sha256, file))
