"""`jobcloud doctor`: what is wrong, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.backup import Config, Data, Etcd, ZooKeeper
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson
from jobcloud.client.commands.server import server_libraries
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.findings import Finding


def doctor(
    ctx: typer.Context,
    config: Config = None,
    data: Data = None,
    mesos: Annotated[str | None, typer.Option(metavar="HOST:PORT|zk://…", help="The scheduler's --mesos.")] = None,
    zookeeper: ZooKeeper = None,
    etcd: Etcd = None,
    as_json: AsJson = False,
) -> None:
    """Check the server, Mesos, the agents, the clock and time zones: what is wrong, and what to do about it.

    With options of the scheduler, it also checks whether a scheduler with these options could run on this machine.

    The command changes nothing. It exits with 1 if there is a problem.
    """
    from jobcloud.client import doctor as checks

    found = list(checks.here())
    flags: dict[str, object] = {"data": data, "mesos.master": mesos, "zookeeper.hosts": zookeeper, "etcd.hosts": etcd}
    if config is not None or any(value is not None for value in flags.values()):
        found += _machine(config, flags)
    with connect(ctx) as client:
        found += checks.server(client)
    if as_json:
        render.show_json([finding._asdict() for finding in found])
    else:
        _show(found)
    if any(finding.condition == "problem" for finding in found):
        raise typer.Exit(Exit.REFUSED)


def _machine(config: os.PathLike[str] | None, flags: dict[str, object]) -> Iterable[Finding]:
    from pathlib import Path

    from jobcloud.findings import ok, problem

    with server_libraries():
        from jobcloud.server import doctor as machine
        from jobcloud.server import settings

        try:
            wanted = settings.load(Path(config) if config else None, flags)
        except ConfigError as error:
            return [problem("settings", f"{one.field}: {one.problem}", one.fix) for one in (error, *error.others)]
        return [ok("settings", "valid"), *machine.examine(wanted)]


def _show(found: Iterable[Finding]) -> None:
    styles = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    for finding in found:
        render.say(f"{finding.condition:8} {finding.subject}: {finding.text}", styles[finding.condition])
        if finding.fix:
            render.say(f"         → {finding.fix}")
