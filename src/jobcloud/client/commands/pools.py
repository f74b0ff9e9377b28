"""`jobcloud pool`: named limits across jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, team_of

commands = typer.Typer(no_args_is_help=True)
PoolName = Annotated[
    str, typer.Argument(metavar="POOL", help="The pool, as [TEAM:]NAME; '*:NAME' is a pool of all teams.")
]


@commands.command("list")
def list_pools(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the pools, with the slots that running shards have taken."""
    with connect(ctx) as client:
        render.show(client.pools(), render.pools, as_json=as_json)


@commands.command("set")
def set_pool(
    ctx: typer.Context,
    pool: PoolName,
    slots: Annotated[
        int, typer.Argument(metavar="SLOTS", min=0, max=1_000_000, help="Number of slots; 0: no shard starts.")
    ],
    description: Annotated[str | None, typer.Option(help="Text for people. Default: it stays as it is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a pool, or change its slots. Running shards continue."""
    from jobcloud.client.http import ApiError

    name = _key(ctx, pool)
    with connect(ctx) as client:
        known: dict[str, Any] = {"description": "", "revision": ""}
        if description is None:
            try:
                known = client.pool(name)
            except ApiError as error:
                if error.status != 404:
                    raise
        text = known["description"] if description is None else description
        made = client.put_pool(name, {"slots": slots, "description": text}, known["revision"])
    render.answer(made, f"pool {name} has {slots} slots, {made['used']} of them are used", as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, pool: PoolName, as_json: AsJson = False) -> None:
    """Remove a pool that no job names."""
    name = _key(ctx, pool)
    with connect(ctx) as client:
        client.remove_pool(name)
    render.answer({"name": name, "removed": True}, f"pool {name} is removed", as_json=as_json)


def _key(ctx: typer.Context, pool: str) -> str:
    from jobcloud.config import qualified

    return qualified(pool, team_of(ctx))
