"""The files in which a client finds the servers of its user on this machine, and the tokens of these servers.

Each server has one file: `jobcloud/<port>.json` in the directory XDG_RUNTIME_DIR, or in ~/.cache if this variable is
not set. The file contains `{"url": …, "token": …, "pid": …, "ca_file": …}`, and only its owner can read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8899"


@dataclass(frozen=True, slots=True)
class Context:
    """A server and its token. `pid` is the id of the server's process, or 0 if it is not known.

    `ca_file` has the CAs of its certificate; "": those of the system.
    """

    url: str
    token: str = ""
    pid: int = 0
    ca_file: str = ""


def directory(environ: Mapping[str, str] | None = None) -> Path:
    env = os.environ if environ is None else environ
    base = env.get("XDG_RUNTIME_DIR") or str(Path(env.get("HOME") or "~").expanduser() / ".cache")
    return Path(base) / "jobcloud"


def write(context: Context, environ: Mapping[str, str] | None = None) -> Path:
    """Write the file of a server. Returns the path of the file, for `remove`."""
    folder = directory(environ)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=folder)  # made with mode 0600
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(context), file)
    path = folder / f"{urlsplit(context.url).port or 80}.json"
    Path(name).replace(path)
    return path


def remove(path: Path, pid: int) -> None:
    """Remove the file of the server `pid`. If another server has overwritten the file, keep it."""
    found = _read(path)
    if found is not None and found.pid == pid:
        path.unlink(missing_ok=True)


def find(server: str = "", token: str = "", environ: Mapping[str, str] | None = None) -> Context:
    """The server to use, and its token.

    The arguments name the server and the token, or else JOBCLOUD_SERVER and JOBCLOUD_TOKEN. If neither names a server,
    it is a running server on this machine. A token from a file is used only for the server of this file.
    """
    env = os.environ if environ is None else environ
    server = server or env.get("JOBCLOUD_SERVER", "")
    token = token or env.get("JOBCLOUD_TOKEN", "")
    local = _local(directory(env))
    if server:
        known = next((c for c in local if c.url.rstrip("/") == server.rstrip("/")), Context(server))
        return Context(server, token or known.token, ca_file=known.ca_file)
    chosen = next((c for c in local if c.url == DEFAULT_URL), local[0] if local else Context(DEFAULT_URL))
    return Context(chosen.url, token or chosen.token, chosen.pid, chosen.ca_file)


def of_process(pid: int, environ: Mapping[str, str] | None = None) -> Context | None:
    """The running server of this user with a process id."""
    return next((found for found in _local(directory(environ)) if found.pid == pid), None)


def _local(folder: Path) -> list[Context]:
    """The running servers of this user on this machine, the newest first."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [context for path in files if (context := _read(path)) and _runs(context.pid)]
    return []


def _read(path: Path) -> Context | None:
    """The content of a server's file. None if the file is damaged, or if another user owns it or has access to it."""
    try:
        status = path.stat()
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            return None
        found = json.loads(path.read_text())
        return Context(str(found["url"]), str(found["token"]), int(found["pid"]), str(found.get("ca_file", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
