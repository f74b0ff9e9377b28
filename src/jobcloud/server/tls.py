"""The TLS of a listener: its certificate, and the check of clients' certificates. Changed files are loaded again.

A renewed certificate is used for new connections, without a restart. If new files cannot be used, for example because
only one file of a pair has been replaced so far, the listener keeps the certificate that it has, and reports the
problem.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import structlog
from pydantic_core import PydanticCustomError

from jobcloud.errors import ConfigError
from jobcloud.sentences import Told
from jobcloud.server.settings import read_private

log = structlog.get_logger(__name__)

#: the key of the client's certificate, in DER, in the scope of a request
CERTIFICATE = "jobcloud.certificate"
Demand = Literal["off", "optional", "required"]

_CHECK_S = 5.0
_WARN_MS = 14 * 86_400_000
_MAX_BYTES = 1 << 20
_DEMANDS = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The PEM files of a listener in the section `section` of the settings.

    `cert` has the certificate of the server, then those of its intermediate CAs. `clients` says whether clients
    have to send certificates. These must come from the CAs in `client_ca`, and `client_crl` lists those that
    are revoked. The certificates of the other schedulers come from the CAs in `peer_ca`, or from those of the
    system if it is None.
    """

    section: str
    cert: Path
    key: Path
    client_ca: Path | None = None
    client_crl: Path | None = None
    clients: Demand = "off"
    peer_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        given = (self.cert, self.key, self.client_ca, self.client_crl, self.peer_ca)
        return tuple(path for path in given if path is not None)


class Loaded(NamedTuple):
    """The contexts for connections from clients and to other schedulers, and when the certificate expires."""

    server: ssl.SSLContext
    peers: ssl.SSLContext
    expires_ms: int


class ServerTls:
    """The TLS of one listener. Thread-safe. `monotonic` is in seconds.

    Raises ConfigError if the files cannot be used at the start.
    """

    def __init__(
        self,
        files: ServerFiles,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen = _state_of(files)
        self._loaded = load(files)
        self._checked = monotonic()
        self._problem: Told | None = None
        self._reloads = self._failures = 0

    @property
    def section(self) -> str:
        return self._files.section

    def context(self) -> ssl.SSLContext:
        """The context for a new connection of a client. Looks for changed files, at most every 5 s."""
        return self._current().server

    def peer_context(self) -> ssl.SSLContext:
        """The context for a connection to another scheduler."""
        return self._current().peers

    def expires_ms(self) -> int:
        """The instant at which the certificate in use expires."""
        return self._current().expires_ms

    def counts(self) -> tuple[int, int]:
        """How often changed files were taken over, and how often they could not be used."""
        with self._lock:
            return self._reloads, self._failures

    def warnings(self) -> tuple[Told, ...]:
        """The present problems, for users."""
        with self._lock:
            self._refresh()
            return tuple(filter(None, (self._problem, self._expiry())))

    def _current(self) -> Loaded:
        with self._lock:
            self._refresh()
            return self._loaded

    def _refresh(self) -> None:
        if self._monotonic() - self._checked < _CHECK_S:
            return
        self._checked = self._monotonic()
        found = _state_of(self._files)
        if found == self._seen:
            return
        # Noted before the files are read: a change during the read is seen by the next look.
        self._seen = found
        try:
            self._loaded = load(self._files)
        except ConfigError as error:
            self._failures += 1
            text = f"{error}. The certificate loaded before stays in use"
            self._problem = Told(text, "certificate_unusable", problem=str(error))
            log.error("a changed certificate cannot be used", problem=str(error))
            return
        self._reloads += 1
        self._problem = None
        log.info("certificate loaded", setting=f"{self.section}.tls_cert_file", expires=self._until)

    @property
    def _until(self) -> str:
        return f"{datetime.fromtimestamp(self._loaded.expires_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"

    def _expiry(self) -> Told | None:
        left = self._loaded.expires_ms - self._now_ms()
        if left > _WARN_MS:
            return None
        start = f"the certificate of {self.section}.tls_cert_file"
        fix = f"{self._until}: replace the files of {self.section}.tls_cert_file and {self.section}.tls_key_file, no "
        fix += "restart is needed"
        at = self._until.replace(" UTC", "Z").replace(" ", "T")
        if left <= 0:
            return Told(f"{start} has expired at {fix}", "certificate_expired", section=self.section, at=at)
        return Told(f"{start} expires at {fix}", "certificate_expires", section=self.section, at=at)


def load(files: ServerFiles) -> Loaded:
    """Read the files. Raises ConfigError."""
    from cryptography import x509

    section = files.section
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    key_setting, cert_setting = f"{section}.tls_key_file", f"{section}.tls_cert_file"
    try:
        read_private(files.key, 1)
    except PydanticCustomError as error:
        fix = str((error.context or {}).get("fix", ""))
        raise ConfigError(error.message(), field=key_setting, fix=fix) from None
    try:
        certificate = x509.load_pem_x509_certificates(_content(files.cert, cert_setting))[0]
    except ValueError:
        fix = "a PEM file with the certificate of this server, then those of its intermediate CAs"
        raise ConfigError(f"{files.cert} contains no certificate", field=cert_setting, fix=fix) from None
    try:
        # An empty password: without one, OpenSSL would ask on the terminal if the key is encrypted.
        context.load_cert_chain(files.cert, files.key, password="")
    except (OSError, ValueError) as error:
        problem = f"{files.cert} and {files.key} cannot be used together: {_reason(error)}"
        fix = "a certificate and its key in PEM, the key without a password"
        raise ConfigError(problem, field=cert_setting, fix=fix) from None
    context.verify_mode = _DEMANDS[files.clients]
    if files.client_ca is not None:
        _trust(context, files.client_ca, f"{section}.client_ca_file")
    if files.client_crl is not None:
        _trust(context, files.client_crl, f"{section}.client_crl_file")
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    peers = peer_context(files.peer_ca, f"{section}.tls_ca_file")
    if files.clients == "required":  # else the leader asks for none, and would refuse one from another CA
        peers.load_cert_chain(files.cert, files.key, password="")
    return Loaded(context, peers, int(certificate.not_valid_after_utc.timestamp()) * 1_000)


def peer_context(authorities: Path | None, setting: str) -> ssl.SSLContext:
    """A context for connections to servers with certificates from some CAs, or else from those of the system.

    Raises ConfigError.
    """
    if authorities is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _trust(context, authorities, setting)
    return context


def _trust(context: ssl.SSLContext, path: Path, setting: str) -> None:
    before = sum(context.cert_store_stats()[kind] for kind in ("x509", "crl"))
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be used: {_reason(error)}", field=setting, fix="a PEM file") from None
    if sum(context.cert_store_stats()[kind] for kind in ("x509", "crl")) == before:
        raise ConfigError(f"{path} contains nothing to use", field=setting, fix="a PEM file") from None


def _content(path: Path, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}", field=setting, fix="a PEM file"
        ) from None


def _state_of(files: ServerFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """The state of the files, which changes when one of them is replaced or written."""
    return tuple(_stat(path) for path in files.paths)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_ctime_ns


def _reason(error: Exception) -> str:
    """The text of an error of OpenSSL, such as "key values mismatch"."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
