"""The connection from a command to the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from jobcloud.client.commands.options import GlobalOptions

if TYPE_CHECKING:
    from jobcloud.client.http import Client
    from jobcloud.ports import TlsFiles


@contextmanager
def connect(ctx: typer.Context) -> Iterator[Client]:
    """A client of one server.

    The options name the server, or else the environment, or else the file of a server on this machine. The token is
    that of the options or of the environment, or else that of `jobcloud login`, or else that of the server's file.
    """
    from jobcloud.client import context
    from jobcloud.client.credentials import Credentials
    from jobcloud.client.http import Client

    options = ctx.ensure_object(GlobalOptions)
    found = context.find(options.server, options.token)
    credentials = Credentials(found.url)
    tls = _tls(options.ca_file or found.ca_file, options.cert_file, options.key_file)
    if options.token or credentials.read() is None:
        with Client(found.url, found.token, tls=tls) as client:
            yield client
            _print_warnings(client)
        return
    from jobcloud.client.sign_in import Bearer

    with Client(found.url, Bearer(credentials), tls=tls) as client:
        yield client
        _print_warnings(client)


def _tls(*files: str) -> TlsFiles | None:
    """The files for TLS, if there are any. The module of the type imports the model."""
    if not any(files):
        return None
    from jobcloud.ports import TlsFiles

    return TlsFiles(*files)


def _print_warnings(client: Client) -> None:
    for warning in client.warnings:
        typer.echo(f"warning: {warning}", err=True)
