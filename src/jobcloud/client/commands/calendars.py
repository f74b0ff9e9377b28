"""`jobcloud calendar`: sets of days on which jobs do not fire, or the only days on which they fire."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, team_of
from jobcloud.client.ical_files import read_text

commands = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="CALENDAR", help="The calendar, as [TEAM:]NAME.")]
# The server refuses larger files, too.


@commands.command("list")
def list_calendars(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the calendars."""
    with connect(ctx) as client:
        render.show(client.calendars(team_of(ctx)), _table, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, calendar: Name, as_json: AsJson = False) -> None:
    """Show a calendar with its days, and the jobs that name it."""
    with connect(ctx) as client:
        render.show(client.calendar(_key(ctx, calendar)), _fields, as_json=as_json)


@commands.command("put")
def put(
    ctx: typer.Context,
    calendar: Name,
    day: Annotated[
        list[str] | None, typer.Option(help="A day or a range of days, such as 2026-12-28/2027-01-01. Repeatable.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A day to leave out, such as a holiday on which you work. Repeatable.")
    ] = None,
    country: Annotated[str, typer.Option(help="The holidays of this country, such as DE.")] = "",
    subdivision: Annotated[str, typer.Option(help="A part of the country, such as BY.")] = "",
    category: Annotated[
        list[str] | None, typer.Option(help="A kind of holidays, such as public or bank. Repeatable.")
    ] = None,
    weekends: Annotated[bool, typer.Option("--weekends", help="Also the weekends of the country.")] = False,
    ical: Annotated[Path | None, typer.Option(help="An iCalendar file (.ics).")] = None,
    until: Annotated[int | None, typer.Option(help="The last year. Default: five years from now.")] = None,
    description: Annotated[str, typer.Option(help="Text for people.")] = "",
    revision: Annotated[
        str,
        typer.Option(
            metavar="REVISION", help="Refuse the change unless the calendar has this revision, from `calendar show`."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Create or replace a calendar. Its days count at once for the jobs that name it."""
    config: dict[str, Any] = {
        "days": day or [], "without": without or [], "country": country, "subdivision": subdivision,
        "categories": category or [], "weekends": weekends, "ical": read_text(ical, "--ical") if ical else "",
        "untilYear": until, "description": description,
    }  # fmt: skip
    with connect(ctx) as client:
        made = client.put_calendar(_key(ctx, calendar), config, revision)
    text = f"calendar {made['calendar']} has {made['dayCount']} days, known until {made['knownUntil']}"
    render.answer(made, text, as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, calendar: Name, as_json: AsJson = False) -> None:
    """Remove a calendar that no job names."""
    key = _key(ctx, calendar)
    with connect(ctx) as client:
        client.remove_calendar(key)
    render.answer({"calendar": key, "removed": True}, f"calendar {key} is removed", as_json=as_json)


def _key(ctx: typer.Context, text: str) -> str:
    from jobcloud.config import qualified

    return qualified(text, team_of(ctx))


def _table(items: Iterable[dict[str, Any]]) -> None:
    rows = ((one["calendar"], one["dayCount"], one["knownUntil"], one["jobCount"], one["description"]) for one in items)
    render.show_table(("CALENDAR", "DAYS#", "KNOWN UNTIL", "JOBS#", "DESCRIPTION"), rows, "there are no calendars")


def _fields(item: dict[str, Any]) -> None:
    made = ", ".join(f"{name} {_shown(value)}" for name, value in item["source"].items() if value)
    render.show_fields(
        [
            ("calendar", item["calendar"]),
            ("description", item["description"]),
            ("days", f"{item['dayCount']}: {_shown(item['days'])}"),
            ("known until", item["knownUntil"]),
            ("made from", made),
            ("libraries", item["libraries"]),
            ("jobs", f"{item['jobCount']}: {_shown(item['jobs'])}" if item["jobs"] else "none"),
            ("revision", item["revision"]),
        ]
    )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
