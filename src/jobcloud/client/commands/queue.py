"""`jobcloud queue`: the jobs with waiting shards."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, Watch, team_of


def queue(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of jobs.")] = 50,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List the jobs with waiting shards, the longest wait first, each with the reason why it waits."""
    with connect(ctx) as client:
        team = team_of(ctx)
        table = partial(render.queue, empty=render.nothing("waiting job", {"--team": team}, "no shard waits"))
        render.watched(lambda: client.queue(limit, team), table, watch=watch, as_json=as_json)
