"""`jobcloud whoami`."""

from __future__ import annotations

import typer

from jobcloud.client import account_tables, render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson


def show_who(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show your name at the server, and your permissions in each team."""
    with connect(ctx) as client:
        render.show(client.who_am_i(), account_tables.who, as_json=as_json)
