"""What agents fetch: packages and the executor, by content hash, read-only, from a listener of their own.

Agents have no token, so nothing else is served here, and nothing can be listed: who knows a hash knows the content.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jobcloud.server.packages import PackageStore

_PATH = re.compile(r"/([0-9a-f]{64})/([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})")


def create_artifacts(packages: PackageStore, executor: tuple[str, Path] | None = None) -> ASGIApp:
    """The ASGI app: `GET|HEAD /<sha256>/<file>`. `executor` is the hash and path of the executor's zip."""

    def find(sha256: str, file: str) -> Path | None:
        if executor and (sha256, file) == (executor[0], executor[1].name):
            return executor[1]
        path = packages.find(sha256)
        return path if path and path.name == file else None

    return _Artifacts(find)


class _Artifacts:
    def __init__(self, find: Callable[[str, str], Path | None]) -> None:
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await self._response(scope)(scope, receive, send)

    def _response(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        wanted = _PATH.fullmatch(scope["path"])
        path = self._find(*wanted.groups()) if wanted else None
        if path is None:
            return Response(status_code=404)
        # The content of a hash never changes: agents may keep it for as long as they like.
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return FileResponse(path, media_type="application/octet-stream", headers=headers)
