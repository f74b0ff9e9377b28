"""The connection from a command to the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from jobcloud.client.commands.options import GlobalOptions

if TYPE_CHECKING:
    from jobcloud.client.http import Client


@contextmanager
def connect(ctx: typer.Context) -> Iterator[Client]:
    """A client of the server that the options, the environment or a local server's file name."""
    from jobcloud.client import context
    from jobcloud.client.http import Client

    options = ctx.ensure_object(GlobalOptions)
    found = context.find(options.server, options.token)
    with Client(found.url, found.token) as client:
        yield client
