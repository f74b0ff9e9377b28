"""`jobcloud audit`: who did what, and whether somebody has changed the log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.history import Since, Until
from jobcloud.client.commands.options import AsJson, Limit, instant, team_of
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.client.http import Client, Json

commands = typer.Typer(no_args_is_help=True)


_POLL_S = 2.0
_OVERLAP = timedelta(minutes=1)
#: the maximum number of entries that are fetched at once to find new ones
_MAX_NEW = 5_000


@commands.command("list")
def list_entries(
    ctx: typer.Context,
    actor: Annotated[str, typer.Option(metavar="WHO", help="Only this subject, such as user:ann.")] = "",
    target: Annotated[str, typer.Option(help="Only this app, job, run, task or agent.")] = "",
    outcome: Annotated[str, typer.Option(help="Only this outcome: refused, failed, succeeded or allowed.")] = "",
    request: Annotated[str, typer.Option(metavar="ID", help="Only the request with this id.")] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new entries, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """List who did what, the newest first, from the history of all schedulers.

    A change is listed and counted once, by its outcome if it has ended. --json and --follow list its intent too.

    With --follow, the newest entry comes last.
    """
    filters = {"actor": actor, "target": target, "outcome": outcome.lower(), "request": request}
    filters |= {"team": team_of(ctx), "since": instant("--since", since), "until": instant("--until", until)}
    with connect(ctx) as client:
        if not (follow or as_json):
            # Most entries are pairs of an intent and its outcome.
            render.audit(_without_intents(client.audit_pages(2 * limit, **filters), limit))
            return
        found = client.audit(limit, **filters)
        if not follow:
            render.show_json(found)
            return
        with suppress(KeyboardInterrupt):
            for entry in _each(client, found, filters):
                render.show_line(entry) if as_json else render.audit_line(entry)
                sys.stdout.flush()


def _each(client: Client, found: list[Json], filters: dict[str, str]) -> Iterator[Json]:
    """The entries `found`, then new ones as they arrive, the oldest first."""
    seen: dict[tuple[str, int], None] = {}
    while True:
        for entry in reversed(found):
            place = entry["chain"], entry["seq"]
            if place not in seen:
                seen[place] = None
                yield entry
        while len(seen) > 2 * _MAX_NEW:
            del seen[next(iter(seen))]
        time.sleep(_POLL_S)
        if found:
            # Entries of other schedulers may arrive later than newer ones of this scheduler.
            newest = datetime.fromisoformat(found[0]["at"]) - _OVERLAP
            filters["since"] = newest.strftime("%Y-%m-%dT%H:%M:%SZ")
        found = client.audit(_MAX_NEW, **filters)


def _without_intents(pages: Iterable[list[Json]], limit: int) -> list[Json]:
    """The first `limit` entries, without intents whose outcome was read."""
    read: list[Json] = []
    ended: set[tuple[str, int]] = set()
    for page in pages:
        read += page
        ended |= {(entry["chain"], entry["of"]) for entry in page if "of" in entry}
        read = [entry for entry in read if (entry["chain"], entry["seq"]) not in ended]
        if len(read) >= limit:
            break
    return read[:limit]


@commands.command("verify")
def verify_log(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|DIR…", help="Folder of an audit log, or files in the order of their numbers."),
    ],
    heads: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="File with exported heads, or the log of a syslog server. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the hash chain of an audit log, without a server.

    The first wrong line is named. Without --heads, a cut end or a rewritten log is not noticed.
    """
    from jobcloud.audit.folder import files_in
    from jobcloud.audit.verify import read_heads, verify

    try:
        files = [path for place in places for path in (files_in(place) if place.is_dir() else [place])]
        report = verify(files, read_heads(heads or ()))
    except OSError as error:
        problem = f"{error.filename} cannot be read: {error.strerror}"
        raise ConfigError(problem, field="FILE", fix="run the command as the user of the scheduler") from None
    if not files:
        raise ConfigError("there are no files of an audit log", field="FILE", fix="name the folder audit.path")
    if as_json:
        render.show_json(
            {
                "ok": report.fault is None,
                "entries": report.lines,
                "heads": [head._asdict() for head in report.heads],
                "comparedHeads": report.compared,
                "unfinishedLine": report.torn,
                "problem": str(report.fault or ""),
            }
        )
    elif report.fault is None:
        compared = f", {report.compared} exported heads fit" if heads else ", not compared with exported heads"
        render.say(f"{report.lines} entries are whole{compared}")
        for head in report.heads:
            render.say(f"{head}", "dim")
        if report.torn:
            render.say("the last line is not complete: a crash leaves such a line, and the next start removes it")
    else:
        render.say(f"not whole: {report.fault}")
    if report.fault is not None:
        raise typer.Exit(Exit.REFUSED)
