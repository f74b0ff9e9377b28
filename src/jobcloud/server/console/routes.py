"""Serves the console: one HTML document for all its pages, and the files that it loads.

The files are the same for everybody and contain no data, so nobody has to sign in to load them. They are in a folder
whose name changes with their content, so browsers keep them for ever, and no tab mixes two versions.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.responses import Response

from jobcloud.server.api.problems import Problem
from jobcloud.server.console.paths import FILE, FOLDER, SHELLS
from jobcloud.server.routes import Routes

router = Routes()

_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "txt": "text/plain", "html": "text/html"}
# Trusted Types: no script can put a text into the page as HTML. A worker has the policy of its own file.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; "
    "trusted-types worker"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "same-origin"}
# The modules that each page needs.
_PRELOADED = re.compile(r"core/(?!chart|worker).*\.js|vendor/(preact|hooks|htm)\.js")


@cache
def _files() -> dict[str, bytes]:
    """Path → content."""

    def below(folder: Traversable, prefix: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for entry in folder.iterdir():
            if entry.is_dir():
                found |= below(entry, f"{prefix}{entry.name}/")
            elif entry.name.rpartition(".")[2] in _TYPES:
                found[prefix + entry.name] = entry.read_bytes()
        return found

    return below(resources.files(__package__).joinpath("files"), "")


@cache
def version() -> str:
    """Changes with the content of the files."""
    digest = hashlib.sha256()
    for path, content in sorted(_files().items()):
        digest.update(f"{path} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


@cache
def _document() -> bytes:
    folder = f"{FOLDER}/{version()}"
    modules = (path for path in sorted(_files()) if _PRELOADED.fullmatch(path))
    preloads = (f'<link rel="modulepreload" href="{folder}/{path}">' for path in modules)
    text = _files()["index.html"].decode()
    return text.replace("PRELOADS", "\n".join(preloads)).replace("FOLDER", folder).encode()


@router.get(SHELLS[0])
@router.get(SHELLS[1])
@router.get(SHELLS[2])
async def show_console() -> Response:
    return Response(_document(), media_type="text/html", headers=_HEADERS | {"Cache-Control": "no-cache"})


@router.get(FILE)
async def show_file(folder: str, path: str) -> Response:
    """A file of the console. A tab of another version gets none, and asks the person to load the page again."""
    content = _files().get(path)
    if content is None or folder != version():
        raise Problem("not-found", "The console has no such file. Load the page again.")
    headers = _HEADERS | {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=_TYPES[path.rpartition(".")[2]], headers=headers)
