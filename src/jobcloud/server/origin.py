"""Packages that `appURL` names by http(s): fetched once, by this server, into its store.

So agents need no way out, and what runs is what was there when the app was registered. A server is taken as hostile:
its addresses are checked after the look-up and are the ones connected to, at each redirect anew; no proxy is asked;
size and time are bounded; and the hash must be the one that was given.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import structlog

import jobcloud
from jobcloud.errors import ConfigError, Unavailable
from jobcloud.executor import http_job
from jobcloud.model import App, Package
from jobcloud.server.packages import PackageStore, Upload
from jobcloud.server.urls import ALLOW_PACKAGES, UrlPolicy

log = structlog.get_logger(__name__)

FIELD = "appURL"
_AT_ONCE = 4
_REDIRECTS = 5
_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_CONNECT_S, _SILENT_S = 10.0, 30.0
_ASK_EVERY_S = 1.0
_CHUNK = 1 << 16
_HEADERS = {"User-Agent": f"jobcloud/{jobcloud.__version__}", "Accept-Encoding": "identity", "Connection": "close"}
_UPLOAD = "upload the package instead (POST /api/v1/packages)"


class Origin:
    """Any thread may call; `timeout_s` is for one package, redirects included."""

    def __init__(self, store: PackageStore, policy: UrlPolicy, *, timeout_s: float = 120.0) -> None:
        self._store, self._policy, self._timeout_s = store, policy, timeout_s
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def obtain(self, package: Package) -> Path:
        """Where the package lies in the store, fetched if it is not there yet.

        Raises ConfigError naming appURL or packageSha256, StoreError, or Unavailable where several are being fetched.
        """
        path = self._store.renew(package.sha256)
        if path is not None:
            return path
        if not self._turns.acquire(blocking=False):
            raise Unavailable(f"{_AT_ONCE} packages are being fetched already", fix="try again in some seconds")
        try:
            return self._fetch(package)
        finally:
            self._turns.release()

    def _fetch(self, package: Package) -> Path:
        began = time.monotonic()
        deadline = _Deadline(self._timeout_s)
        with self._store.receive() as upload, deadline:
            url = self._download(package.url, upload, deadline)
            path = self._accept(url, package.sha256, upload)
        log.info("package fetched", url=package.url, sha256=package.sha256, seconds=round(time.monotonic() - began, 1))
        return path

    def _download(self, url: str, upload: Upload, deadline: _Deadline) -> str:
        """The address that the content came from in the end."""
        for _ in range(_REDIRECTS + 1):
            further = self._get(url, upload, deadline)
            if further is None:
                return url
            if urlsplit(url).scheme == "https" and urlsplit(further).scheme != "https":
                raise ConfigError(f"{url} leads from https to {further[:200]}", field=FIELD, fix=_UPLOAD)
            try:
                self._policy.check(further, FIELD, "the address itself", ALLOW_PACKAGES)
            except ConfigError as error:
                problem = f"{url} leads to {further[:200]!r}: {error.problem}"
                raise ConfigError(problem, field=FIELD, fix=error.fix) from None
            url = further
        raise ConfigError(f"leads from redirect to redirect, over {_REDIRECTS} of them", field=FIELD, fix=_UPLOAD)

    def _get(self, url: str, upload: Upload, deadline: _Deadline) -> str | None:
        """Write what is there to `upload`, or say where it is instead."""
        parts = self._policy.check(url, FIELD, "http(s)://host/path", ALLOW_PACKAGES)
        with _explained(url, deadline), contextlib.ExitStack() as stack:
            connection = http_job.connect(parts, deadline.left(_CONNECT_S), self._check_address, deadline.watch)
            stack.callback(connection.close)
            connection.sock.settimeout(deadline.left(_SILENT_S))
            connection.request("GET", http_job.target(parts), headers=_HEADERS)
            answer = connection.getresponse()
            stack.callback(answer.close)
            if answer.status in _REDIRECTED:
                return urljoin(url, answer.getheader("Location", ""))
            if answer.status != 200:
                problem = f"{answer.status} {answer.reason[:100]}".strip() + f" from {url}"
                raise ConfigError(problem, field=FIELD, fix="name what is there, or upload the package instead")
            self._read(url, answer, upload, deadline)
        return None

    def _read(self, url: str, answer: http.client.HTTPResponse, upload: Upload, deadline: _Deadline) -> None:
        whole, got = answer.length, 0
        if whole is not None and whole > self._store.max_bytes:
            raise self._too_large(url)
        while chunk := answer.read1(_CHUNK):
            got += len(chunk)
            if got > self._store.max_bytes:
                raise self._too_large(url)
            deadline.check()
            upload.write(chunk)
        deadline.check()
        if whole is not None and got < whole:
            raise ConfigError(f"{url} ended after {got} of {whole} bytes", field=FIELD, fix="try again")

    def _accept(self, url: str, sha256: str, upload: Upload) -> Path:
        if upload.sha256 != sha256:
            problem = f"what {url} gives hashes to {upload.sha256}"
            fix = "give that hash if it is what you mean to run; else have its owner look"
            raise ConfigError(problem, field="packageSha256", fix=fix)
        try:
            stored = upload.commit(wheel=urlsplit(url).path.endswith(".whl"))
        except ConfigError as error:
            raise ConfigError(f"what {url} gives is of no use: {error.problem}", field=FIELD, fix=error.fix) from error
        path = self._store.find(stored.sha256)
        assert path is not None, "what has just been stored is young"
        return path

    def _check_address(self, host: str, address: str) -> None:
        if not self._policy.may_connect(host, address):
            raise http_job.Refused(f"{host} is {address}, which is not public")

    def _too_large(self, url: str) -> ConfigError:
        problem = f"{url} is over {self._store.max_bytes} bytes"
        return ConfigError(
            problem, field=FIELD, fix="leave out what the app does not need, or raise packages.max_bytes"
        )


class Refill:
    """Gives the artifact listener what the store lacks of the apps that there are, as after a change of the leader.

    `apps` is asked once a second at most: the listener is open to whoever reaches it.
    """

    def __init__(
        self, origin: Origin, apps: Callable[[], Iterable[App]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._origin, self._apps, self._clock = origin, apps, clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Package] = {}
        self._asked = float("-inf")

    def __call__(self, sha256: str, file: str) -> Path | None:
        """None where no app is made from that. Raises as `Origin.obtain`, and Unavailable where nobody leads here."""
        with self._lock:
            if self._clock() - self._asked >= _ASK_EVERY_S:
                packages = (app.package for app in self._apps())
                self._known = {
                    (package.sha256, package.file): package
                    for package in packages
                    if urlsplit(package.url).scheme in ("http", "https")
                }
                self._asked = self._clock()
            package = self._known.get((sha256, file))
        return self._origin.obtain(package) if package is not None else None


class _Deadline:
    """Ends what is read once the time is over, however slowly it comes: between two bytes nothing else would."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until

    def left(self, most: float) -> float:
        """Seconds, for a timeout. Raises TimeoutError."""
        self.check()
        return min(most, max(0.001, self._until - time.monotonic()))

    def check(self) -> None:
        """Raises TimeoutError."""
        if self.over:
            raise TimeoutError

    def watch(self, sock: socket.socket) -> None:
        with self._lock:
            self._watched.append(sock)
        self.check()

    def _end(self) -> None:
        with self._lock:
            for sock in self._watched:
                with contextlib.suppress(OSError):
                    # Past TLS, which is not made for two threads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


@contextlib.contextmanager
def _explained(url: str, deadline: _Deadline) -> Iterator[None]:
    """What goes wrong on the way, in the words of the error tree."""
    try:
        yield
    except http_job.Refused as error:
        fix = "list its network in the server's packages.networks setting, or upload the package"
        raise ConfigError(f"{url} cannot be fetched: {error}", field=FIELD, fix=fix) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if deadline.over:
            problem = f"{url} takes over {deadline.seconds:g} s"
            raise ConfigError(
                problem, field=FIELD, fix="upload the package, or raise packages.fetch_timeout"
            ) from error
        what = str(error) or type(error).__name__
        raise ConfigError(f"{url} cannot be fetched: {what[:300]}", field=FIELD, fix=_UPLOAD) from error
