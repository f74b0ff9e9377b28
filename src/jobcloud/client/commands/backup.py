"""`jobcloud backup` and `jobcloud restore`: save the stored state to a file, and restore it.

Both commands work on the store itself, without a server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobcloud.client import render
from jobcloud.client.commands.options import AsJson
from jobcloud.client.commands.server import server_libraries

if TYPE_CHECKING:
    from jobcloud.server.settings import Settings

Data = Annotated[Path | None, typer.Option(metavar="DIR", help="The scheduler's --data.")]
ZooKeeper = Annotated[str | None, typer.Option(metavar="HOST:PORT,…", help="The scheduler's --zookeeper.")]
Etcd = Annotated[str | None, typer.Option(metavar="HOST:PORT,…", help="The scheduler's --etcd.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="The scheduler's --config.")]


def back_up(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write. An existing file is replaced.")],
    data: Data = None,
    zookeeper: ZooKeeper = None,
    etcd: Etcd = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Save the state, but no packages, to a file. The scheduler may be running. See docs/operations.md."""
    with server_libraries():
        from jobcloud.server import state_commands

        saved = state_commands.back_up(_settings(data, zookeeper, etcd, config), file)
    found = state_commands.facts(saved.backup)
    answer = {"file": str(file), **found, "bytes": saved.size, "unreadable": saved.unreadable}
    render.show(answer, _saved, as_json=as_json)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `jobcloud backup` wrote.")],
    data: Data = None,
    zookeeper: ZooKeeper = None,
    etcd: Etcd = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Replace the state with a backup. Refused while a scheduler leads. The previous state is saved to a file."""
    with server_libraries():
        from jobcloud.server import state_commands

        done = state_commands.restore(_settings(data, zookeeper, etcd, config), file)
    found = {**state_commands.facts(done.backup), "epoch": done.epoch}
    answer = {"file": str(file), **found, "before": [str(path) for path in done.aside]}
    render.show(answer, _restored, as_json=as_json)


def _settings(data: Path | None, zookeeper: str | None, etcd: str | None, config: Path | None) -> Settings:
    from jobcloud.server import settings

    return settings.load(config, {"data": data, "zookeeper.hosts": zookeeper, "etcd.hosts": etcd})


def _saved(answer: dict[str, Any]) -> None:
    for path in answer["unreadable"]:
        render.complain(f"not in the backup: {path}")
    typer.echo(f"saved {_content(answer)} to {answer['file']} ({answer['bytes']:,} bytes)")


def _restored(answer: dict[str, Any]) -> None:
    typer.echo(f"restored {_content(answer)}, as of {answer['takenAt']}; the epoch is {answer['epoch']}")
    for path in answer["before"]:
        typer.echo(f"the previous state is in {path}")
    typer.echo("start the scheduler: its log shows how many shards are repeated or ended, and how many tasks still run")


def _content(answer: dict[str, Any]) -> str:
    return ", ".join(f"{answer[name]} {name}" for name in ("apps", "jobs", "runs", "tasks"))
