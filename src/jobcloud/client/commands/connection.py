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
    """A client of one server.

    The options name the server, or else the environment, or else the file of a server on this machine.
    """
    from jobcloud.client import context
    from jobcloud.client.http import Client

    options = ctx.ensure_object(GlobalOptions)
    found = context.find(options.server, options.token)
    with Client(found.url, found.token) as client:
        yield client
