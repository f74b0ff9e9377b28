"""Fetch packages that `appURL` names by http(s) into the package store of this server, each package once.

Agents need no outbound access, and an app runs the content that its URL had when the app was registered. The origin is
treated as hostile. The addresses of the first URL, and of each redirect, are checked after name resolution. Connections
are made only to checked addresses. No proxy is used. Size and time are limited. The content must have the given hash.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import structlog

import jobcloud
from jobcloud.config import App, Package
from jobcloud.errors import ConfigError, Unavailable
from jobcloud.executor import http_job
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON
from jobcloud.server.deadline import Deadline
from jobcloud.server.packages import PackageStore, Upload
from jobcloud.server.urls import ALLOW_PACKAGES, UrlPolicy

log = structlog.get_logger(__name__)

FIELD = "appURL"
_MAX_FETCHES = 4
_MAX_REDIRECTS = 5
_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_CONNECT_S, _READ_S = 10.0, 30.0
_MIN_INTERVAL_S = 1.0
_CHUNK = 1 << 16
_HEADERS = {"User-Agent": f"jobcloud/{jobcloud.__version__}", "Accept-Encoding": "identity", "Connection": "close"}
_UPLOAD = Told("upload the package instead (POST /api/v1/packages)", "upload_instead")


class Origin:
    """Fetches packages. Thread-safe. `timeout_s` limits the fetch of one package, including redirects."""

    def __init__(self, store: PackageStore, policy: UrlPolicy, *, timeout_s: float = 120.0) -> None:
        self._store, self._policy, self._timeout_s = store, policy, timeout_s
        self._turns = threading.BoundedSemaphore(_MAX_FETCHES)

    def obtain(self, package: Package) -> Path:
        """The path of the package in the store. Fetches it if it is missing.

        Raises ConfigError for appURL or packageSha256, StoreError, and Unavailable if too many packages are being
        fetched.
        """
        path = self._store.renew(package.sha256)
        return path if path is not None else self._fetch(package.url, package.sha256)[1]

    def fetch(self, url: str) -> Package:
        """Store the present content of a URL, with any hash. Returns the package. Raises the errors of `obtain`."""
        sha256, path = self._fetch(url)
        return Package(url, sha256, path.name)

    def _fetch(self, asked: str, sha256: str = "") -> tuple[str, Path]:
        """Fetch the package at a URL. Returns its hash and path. If `sha256` is given, it must be the hash."""
        if not self._turns.acquire(blocking=False):
            problem = Told(f"{_MAX_FETCHES} packages are being fetched already", "many_fetches", packages=_MAX_FETCHES)
            raise Unavailable(problem, fix=TRY_SOON)
        try:
            began = time.monotonic()
            deadline = Deadline(self._timeout_s)
            with self._store.receive() as upload, deadline:
                url = self._download(asked, upload, deadline)
                path = self._accept(url, sha256 or upload.sha256, upload)
        finally:
            self._turns.release()
        log.info("package fetched", url=asked, sha256=upload.sha256, seconds=round(time.monotonic() - began, 1))
        return upload.sha256, path

    def _download(self, url: str, upload: Upload, deadline: Deadline) -> str:
        """Write the content to `upload`. Return the URL that delivered it, after redirects."""
        for _ in range(_MAX_REDIRECTS + 1):
            further = self._get(url, upload, deadline)
            if further is None:
                return url
            if urlsplit(url).scheme == "https" and urlsplit(further).scheme != "https":
                text = f"{url} redirects from https to {further[:200]}"
                raise ConfigError(
                    Told(text, "insecure_redirect", url=url, target=further[:200]), field=FIELD, fix=_UPLOAD
                )
            try:
                self._policy.check(further, FIELD, "the final address", ALLOW_PACKAGES)
            except ConfigError as error:
                text = f"{url} redirects to {further[:200]!r}: {error.problem}"
                problem = Told(text, "bad_redirect", url=url, target=further[:200])
                raise ConfigError(problem, field=FIELD, fix=error.fix) from None
            url = further
        problem = Told(f"redirects more than {_MAX_REDIRECTS} times", "many_redirects", most=_MAX_REDIRECTS)
        raise ConfigError(problem, field=FIELD, fix=_UPLOAD)

    def _get(self, url: str, upload: Upload, deadline: Deadline) -> str | None:
        """Write the content to `upload`, or return the URL of a redirect."""
        parts = self._policy.check(url, FIELD, "http(s)://host/path", ALLOW_PACKAGES)
        with _explained(url, deadline), contextlib.ExitStack() as stack:
            connection = http_job.connect(parts, deadline.left(_CONNECT_S), self._check_address, deadline.watch)
            stack.callback(connection.close)
            connection.sock.settimeout(deadline.left(_READ_S))
            connection.request("GET", http_job.target(parts), headers=_HEADERS)
            answer = connection.getresponse()
            stack.callback(answer.close)
            if answer.status in _REDIRECTED:
                return urljoin(url, answer.getheader("Location", ""))
            if answer.status != 200:
                text = f"{answer.status} {answer.reason[:100]}".strip() + f" from {url}"
                fix = Told("correct the URL, or upload the package instead", "correct_url")
                raise ConfigError(Told(text, "bad_status", status=answer.status, url=url), field=FIELD, fix=fix)
            self._read(url, answer, upload, deadline)
        return None

    def _read(self, url: str, answer: http.client.HTTPResponse, upload: Upload, deadline: Deadline) -> None:
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
            text = f"{url} ended after {got} of {whole} bytes"
            fix = Told("try again", "try_again")
            raise ConfigError(Told(text, "ended_early", url=url, got=got, size=whole), field=FIELD, fix=fix)

    def _accept(self, url: str, sha256: str, upload: Upload) -> Path:
        if upload.sha256 != sha256:
            text = f"the content of {url} has the hash {upload.sha256}"
            problem = Told(text, "content_hash", url=url, sha256=upload.sha256)
            fix = Told(
                "set that hash if you want to run this content; otherwise ask the owner of the server", "set_hash"
            )
            raise ConfigError(problem, field="packageSha256", fix=fix)
        try:
            stored = upload.commit(wheel=urlsplit(url).path.endswith(".whl"))
        except ConfigError as error:
            problem = Told(f"the content of {url} is not a package: {error.problem}", "content_no_package", url=url)
            raise ConfigError(problem, field=FIELD, fix=error.fix) from error
        path = self._store.find(stored.sha256)
        assert path is not None, "a package just stored is too young to be collected"
        return path

    def _check_address(self, host: str, address: str) -> None:
        if not self._policy.may_connect(host, address):
            raise http_job.Refused(f"{host} resolves to {address}, which is not public")

    def _too_large(self, url: str) -> ConfigError:
        text, most = f"{url} is larger than {self._store.max_bytes} bytes", self._store.max_bytes
        fix = Told("remove files that the app does not need, or raise packages.max_bytes", "fewer_files_or_more_bytes")
        return ConfigError(Told(text, "large_download", url=url, most=most), field=FIELD, fix=fix)


class Refill:
    """Fetches packages of registered apps that the store lacks, for example after a change of the leader.

    `apps` is called at most once a second, because the artifact server has no authentication.
    """

    def __init__(
        self, origin: Origin, apps: Callable[[], Iterable[App]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._origin, self._apps, self._clock = origin, apps, clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Package] = {}
        self._refreshed = float("-inf")

    def __call__(self, sha256: str, file: str) -> Path | None:
        """The path of a package; None if no app uses it. Raises what `apps` or `Origin.obtain` raises."""
        with self._lock:
            if self._clock() - self._refreshed >= _MIN_INTERVAL_S:
                packages = (app.package for app in self._apps())
                self._known = {
                    (package.sha256, package.file): package
                    for package in packages
                    if urlsplit(package.url).scheme in ("http", "https")
                }
                self._refreshed = self._clock()
            package = self._known.get((sha256, file))
        return self._origin.obtain(package) if package is not None else None


@contextlib.contextmanager
def _explained(url: str, deadline: Deadline) -> Iterator[None]:
    """Translate errors of the network into ConfigError."""
    try:
        yield
    except http_job.Refused as error:
        fix = Told("add its network to the server's packages.networks setting, or upload the package", "allow_network")
        raise ConfigError(_not_fetched(url, str(error)), field=FIELD, fix=fix) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if deadline.over:
            text = f"{url} takes longer than {deadline.seconds:g} s"
            problem = Told(text, "slow_url", url=url, seconds=deadline.seconds)
            fix = Told("upload the package, or raise packages.fetch_timeout", "raise_fetch_timeout")
            raise ConfigError(problem, field=FIELD, fix=fix) from error
        reason = str(error) or type(error).__name__
        raise ConfigError(_not_fetched(url, reason[:300]), field=FIELD, fix=_UPLOAD) from error


def _not_fetched(url: str, reason: str) -> Told:
    return Told(f"{url} cannot be fetched: {reason}", "not_fetched", url=url, problem=reason)
