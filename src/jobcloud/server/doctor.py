"""The part of `jobcloud doctor` that examines a machine for a scheduler with given settings. It changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from jobcloud.adapters.mesos.detector import parse_zk_uri
from jobcloud.archive.stores import Away
from jobcloud.errors import ConfigError, JobcloudError
from jobcloud.findings import Finding, ok, problem, warning
from jobcloud.server import state_commands
from jobcloud.server.clock import wall_ms
from jobcloud.server.identity.oidc.metadata import ProviderError
from jobcloud.server.identity.oidc.provider import Provider
from jobcloud.server.settings import Settings
from jobcloud.server.tls import ServerTls
from jobcloud.server.wiring import (
    CLEAR_TEXT,
    NEEDED_BYTES,
    STATE_FILE,
    archive_options,
    artifacts_files,
    http_files,
    oidc_options,
)
from jobcloud.tracing import service

_CONNECT_S = 3.0
_MAX_SERVERS = 10


def examine(wanted: Settings) -> Iterator[Finding]:
    yield from _data(wanted.data)
    for name, host, port in (
        ("http.port", wanted.http.host, wanted.http.port),
        ("artifacts.port", wanted.artifacts.host, wanted.artifacts.port),
    ):
        yield _port(name, host, port)
    yield from _tls(wanted)
    yield from _mesos(wanted.mesos.master)
    yield from _store(wanted)
    yield from _archive(wanted)
    yield from _tracing(wanted)
    yield from _oidc(wanted)


def _data(data: Path | None) -> Iterator[Finding]:
    if data is None:
        yield warning("data", "the state is kept in memory only", "set data, or give --data DIR")
        return
    folder = _existing(data)
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        yield problem("data", f"{folder} cannot be written", "give the directory to the user of the scheduler")
        return
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        yield problem("data", f"{free:,} bytes are free on the disk of {data}", f"a start needs {NEEDED_BYTES:,}")
    elif data.exists() and stat.S_IMODE(data.stat().st_mode) & 0o007:
        yield warning("data", f"{data} is open to all users", f"chmod o-rwx {data}; a scheduler does it too")
    else:
        yield ok("data", f"{data} can be used")
    state = data / STATE_FILE
    if state.exists() and not os.access(state, os.R_OK | os.W_OK):
        yield problem("data", f"{state} cannot be read and written", "give it to the user of the scheduler")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return folder if folder.exists() else next(parent for parent in folder.absolute().parents if parent.exists())


def _port(name: str, host: str, port: int) -> Finding:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(found[4])
    except OSError as error:
        text = f"{host}:{port} cannot be listened on: {error.strerror or error}"
        return warning("ports", f"{name}: {text}", f"ignore this if a scheduler runs here; otherwise change {name}")
    return ok("ports", f"{name}: {host}:{port} is free")


def _mesos(master: str) -> Iterator[Finding]:
    if not master:
        yield problem("mesos", "mesos.master is not set", "--mesos HOST:PORT or zk://HOST:PORT/PATH")
        return
    try:
        hosts = parse_zk_uri(master).hosts if master.startswith("zk://") else master
    except JobcloudError as error:
        yield problem("mesos", str(error), "correct mesos.master")
        return
    port = 2181 if master.startswith("zk://") else 5050
    yield from _reachable("mesos", hosts, port, "check the address, the network and its firewall")


def _reachable(subject: str, hosts: str, default_port: int, fix: str) -> Iterator[Finding]:
    """One finding for each server: whether a connection succeeds."""
    for address in hosts.split(",")[:_MAX_SERVERS]:
        host, colon, port = address.rpartition(":")
        place = (host.strip("[]"), int(port)) if colon and port.isdigit() else (address, default_port)
        try:
            socket.create_connection(place, _CONNECT_S).close()
        except OSError as error:
            yield problem(subject, f"{address} cannot be reached: {error.strerror or error}", fix)
        else:
            yield ok(subject, f"{address} can be reached")


def _store(wanted: Settings) -> Iterator[Finding]:
    hosts = wanted.zookeeper.hosts or wanted.etcd.hosts
    if not hosts:
        return
    name, port = ("zookeeper", 2181) if wanted.zookeeper.hosts else ("etcd", 2379)
    found = list(_reachable(name, hosts, port, f"start the server, or correct {name}.hosts"))
    yield from found
    if not any(finding.condition == "ok" for finding in found):
        return
    try:
        with state_commands.opened(wanted) as store:
            epoch = store.epoch()
    except JobcloudError as error:
        yield problem("state", str(error), f"check {name}.auth_file, the certificates and the rights of the user")
    else:
        yield ok("state", f"can be read; epoch {epoch}" if epoch else "can be read; no scheduler has led yet")


def _archive(wanted: Settings) -> Iterator[Finding]:
    options = archive_options(wanted)
    if options is None:
        return
    if isinstance(options.place, Path):
        folder = _existing(options.place)
        if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
            yield problem("archive", f"{folder} cannot be written", "give the directory to the user of the scheduler")
        else:
            yield ok("archive", f"{options.place} can be used")
        return
    store = options.store()
    try:
        store.prepare()
        next(iter(store.list()), None)
    except (Away, FileNotFoundError) as error:
        yield problem("archive", str(error), "check archive.url, archive.endpoint, the key, and the rights of its user")
    else:
        yield ok("archive", f"{store} can be read; whether it can be written is not checked")


def _tracing(wanted: Settings) -> Iterator[Finding]:
    endpoint = wanted.tracing.endpoint
    if not endpoint:
        return
    if not service.installed():
        yield problem("tracing", "tracing.endpoint is set, and the extra tracing is not installed", service.EXTRA)
        return
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    yield from _reachable("tracing", f"{host}:{port}", port, "check tracing.endpoint and the network")


def _tls(wanted: Settings) -> Iterator[Finding]:
    for files in filter(None, (http_files(wanted), artifacts_files(wanted))):
        key = f"{files.section}.tls_cert_file"
        try:
            tls = ServerTls(files, wall_ms)
        except ConfigError as error:
            yield problem(error.field, error.problem, error.fix)
            continue
        warnings = tls.warnings()
        yield from (warning(key, text, "renew the certificate; no restart is needed") for text in warnings)
        if not warnings:
            yield ok(key, f"{files.cert} can be used")
    if wanted.http.clear_text:
        yield warning("http.tls", CLEAR_TEXT, "docs/security.md, section TLS")


def _oidc(wanted: Settings) -> Iterator[Finding]:
    options = oidc_options(wanted)
    if options is None:
        return
    try:
        found = asyncio.run(Provider(options).describe())
    except ProviderError as error:
        fix = "check identity.oidc_issuer, identity.oidc_ca_file and the network; the client's secret is not checked"
        yield problem("identity", str(error), fix)
    else:
        yield ok("identity", f"{options.issuer}: {found}")
