"""The tokens of `jobcloud login`: one private file for each server, `jobcloud/sign-in/NAME.json` in the directory
XDG_CONFIG_HOME, or in ~/.config if this variable is not set.

A provider ends the whole sign-in if a refresh token is used twice. So a lock makes the commands of a user take turns,
and new tokens are on the disk before anything else happens with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jobcloud.errors import ConfigError

_FORMAT = 1
_LOCK_S = 60.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens for one server. `expires_at` is the end of the access token, in seconds since 1970.

    `refresh_token` is "" if the provider sent none. `audience` is that of the access token.
    """

    server: str
    issuer: str
    client_id: str
    audience: str
    access_token: str
    expires_at: float
    refresh_token: str = ""


class Credentials:
    """The file of one server. Methods raise ConfigError if it cannot be used."""

    def __init__(self, server: str, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        base = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".config")
        self.server = server.rstrip("/")
        self.folder = Path(base) / "jobcloud" / "sign-in"
        name = re.sub(r"[^a-z0-9.-]+", "-", self.server.lower().partition("://")[2].partition("/")[0])[:60]
        digest = hashlib.sha256(self.server.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self.path = self.folder / f"{name}-{digest}.json"

    def read(self) -> Tokens | None:
        """The tokens; None if there are none, or if another user owns the file or has access to it."""
        try:
            status = self.path.stat()
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                return None
            found = json.loads(self.path.read_text())
            if found.pop("format") != _FORMAT:
                return None
            tokens = Tokens(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        texts = [value for name, value in asdict(tokens).items() if name != "expires_at"]
        usable = all(isinstance(text, str) for text in texts) and isinstance(tokens.expires_at, int | float)
        return tokens if usable and tokens.server == self.server else None

    def write(self, tokens: Tokens) -> None:
        """Replace the file. After this returns, the tokens are on the disk."""
        with self._usable():
            descriptor, name = tempfile.mkstemp(dir=self.folder)  # made with mode 0600
            with os.fdopen(descriptor, "w") as file:
                json.dump({"format": _FORMAT, **asdict(tokens)}, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)

    def remove(self) -> None:
        with self._usable():
            self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands of this user from using the refresh token."""
        with self._usable():
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait(self, descriptor: int) -> None:
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    problem = f"another command has held {self.path.with_suffix('.lock')} for {_LOCK_S:g} s"
                    raise ConfigError(problem, field="login", fix="end that command") from None
                time.sleep(_POLL_S)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Make the folder; turn an error of the block into a ConfigError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            yield
        except OSError as error:
            problem = f"{self.folder} cannot be used: {error.strerror or error}"
            fix = "set XDG_CONFIG_HOME to a directory of this user"
            raise ConfigError(problem, field="login", fix=fix) from error
