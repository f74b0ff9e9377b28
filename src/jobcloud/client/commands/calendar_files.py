"""Days of calendars for commands that need no server, from iCalendar files and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jobcloud.client.commands.server import server_libraries
from jobcloud.client.ical_files import read_text
from jobcloud.errors import ConfigError, Refused, Unavailable

if TYPE_CHECKING:
    from jobcloud.client.apps import Entry
    from jobcloud.server.calendars import Found
    from jobcloud.triggers import Days

_FORM = "NAME=FILE, such as closed=closed.ics"


def read_calendars(given: Sequence[str] | None, team: str = "") -> dict[str, Found]:
    """The calendars of the values NAME=FILE of `--calendar`, by key. `team`: that of names without a team.

    The scheduler reads such a file in the same way: in a process of its own, with the same limits. Raises ConfigError.
    """
    from jobcloud.config import check_name, qualified, split_key

    found: dict[str, Found] = {}
    for entry in given or ():
        name, sign, file = entry.partition("=")
        if not (name and sign and file):
            raise ConfigError(f"{entry[:120]!r} names no calendar and file", field="--calendar", fix=_FORM)
        key = qualified(name, team)
        check_name("--calendar", split_key(key)[1])
        if key in found:
            raise ConfigError(f"{name[:120]!r} is given twice", field="--calendar", fix="give it once")
        found[key] = _read(Path(file))
    return found


def read_manifests(paths: Iterable[Path], team: str = "") -> dict[str, Days]:
    """The days of the calendars in manifests, by key. `team`: that of manifests without a team. Raises ConfigError."""
    from jobcloud.client.apps import of_app

    entries = (entry for path in paths for entry in of_app(path, team=team) if entry.kind == "calendar")
    return {entry.key: days for entry in entries if (days := _days_in(entry)) is not None}


def _days_in(entry: Entry) -> Days | None:
    """The days of a calendar; None if only the hash of its file is given."""
    with server_libraries():
        from jobcloud.server.api.apply_limits import read_calendar
        from jobcloud.server.api.calendars import source_in
        from jobcloud.server.api.problems import Problem
        from jobcloud.server.calendars import read_days
    try:
        given = read_calendar(entry.config).config
        if given.ical_sha256 and not given.ical:
            return None
        return read_days(source_in(given), given.ical, datetime.now(UTC).year).days
    except Problem as problem:
        issue = problem.issues[0]
        raise ConfigError(issue.problem, field=f"{entry.where()}: {issue.field}", fix=issue.fix) from problem
    except Refused as error:
        raise ConfigError(error.problem, field=f"{entry.where()}: {error.field}", fix=error.fix) from error


def _read(path: Path) -> Found:
    text = read_text(path, "--calendar")
    with server_libraries():
        from jobcloud.model import CalendarSource
        from jobcloud.server.calendars import read_days
    try:
        return read_days(CalendarSource(), text, datetime.now(UTC).year)
    except Unavailable as error:
        raise ConfigError(error.problem, field="--calendar", fix=error.fix) from error
    except ConfigError as error:
        raise ConfigError(error.problem, field=f"--calendar, {path}", fix=error.fix) from error
