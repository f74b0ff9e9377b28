"""Certificates for tests, and TLS with them."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from jobcloud.server.tls import ServerFiles, ServerTls


@dataclass
class Authority:
    """An authority whose certificates are below `folder`."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, file: str = "server", **more: Any) -> ServerFiles:
        """A certificate for names, with its key, in FILE.pem and FILE.key; by default for loopback."""
        if not names and "common_name" not in more:
            names = ("localhost", "127.0.0.1")
        made = self.ca.issue_cert(*names, **more)
        cert, key = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(made.private_key_pem.bytes())
        return ServerFiles("http", cert, key)

    def trust(self, client: ServerFiles | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority, with the certificate `client`."""
        context = ssl.create_default_context(cafile=self.file)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context


def server_tls(files: ServerFiles, **more: Any) -> ServerTls:
    return ServerTls(files, more.pop("now_ms", lambda: int(datetime.datetime.now().timestamp() * 1_000)), **more)
