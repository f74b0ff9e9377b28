"""`jobcloud state copy`: copy the state from one store to another, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobcloud.client import render
from jobcloud.client.commands.options import AsJson
from jobcloud.client.commands.server import server_libraries

commands = typer.Typer(no_args_is_help=True)
_URLS = "sqlite://DIR, zookeeper://HOST:PORT,…/NAMESPACE or etcd://HOST:PORT,…/PREFIX."


@commands.command("copy")
def copy_state(
    source: Annotated[str, typer.Option("--from", metavar="URL", help=f"Store to copy: {_URLS}")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="Empty store to copy to, in the form of --from.")],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with credentials and certificates of the stores.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the state of a stopped scheduler to another store, and compare both stores. The source is not changed."""
    with server_libraries():
        from jobcloud.server import state_commands, state_copy

        sides = state_copy.place("--from", source, config), state_copy.place("--to", target, config)
        done = state_copy.copy(*sides)
    found = state_commands.facts(done.content)
    del found["takenAt"]
    answer = {"from": source, "to": target, **found, "epoch": done.epoch}
    render.show(answer, _copied, as_json=as_json)


def _copied(answer: dict[str, Any]) -> None:
    content = ", ".join(f"{answer[name]} {name}" for name in ("apps", "jobs", "runs", "tasks"))
    typer.echo(f"copied {content} to {answer['to']}; both stores have the same state. The epoch is {answer['epoch']}")
    typer.echo("start the scheduler with the new store, never again with the old store: both have the same tasks")
