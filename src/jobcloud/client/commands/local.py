"""Commands that need no server: `jobcloud run-local`, and `next` without a job or a calendar of the server."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jobcloud import zones
from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, key_of, team_of
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.triggers import Days


class Dialect(StrEnum):
    """The values of `jobcloud.cron.Dialect`. Repeated here, because the cron library is slow to import."""

    QUARTZ = "quartz"
    UNIX = "unix"


class ExcludedDay(StrEnum):
    """The values of `jobcloud.config.ExcludedDay`."""

    SKIP = "skip"
    NEXT = "next"
    PREVIOUS = "previous"


class Language(StrEnum):
    """The values of `jobcloud.cron_words.Language`."""

    EN = "en"
    ZH = "zh"


def run_local(
    ctx: typer.Context,
    app: Annotated[
        Path,
        # Resolved at once: while a shard runs, the app's directory is the working directory.
        typer.Argument(metavar="DIR", exists=True, file_okay=False, resolve_path=True, help="Directory of the app."),
    ],
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a job in the manifest of the app.")],
    shard: Annotated[
        int | None, typer.Option(min=0, help="Run only this shard. Default: all shards, one after the other.")
    ] = None,
) -> None:
    """Run a job in this process, without a cluster. Runs all shards, and exits with 1 if one fails."""
    import logging

    from jobcloud.client import local

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    failed = False
    for run in local.run_local(app, job, shard, team_of(ctx)):
        failed |= run.failed
        if run.error is not None:
            typer.echo(local.traceback_of(run.error, app), err=True, nl=False)
            render.say(f"shard {run.item} failed: {type(run.error).__name__}: {run.error}")
            continue
        ended = "failed" if run.failed else "finished"
        render.say(f"shard {run.item} {ended}: {f'handled {run.handled}' if run.handled else repr(run.result)}")
    if failed:
        raise typer.Exit(Exit.REFUSED)


def next_firings(
    ctx: typer.Context,
    cron: Annotated[
        str, typer.Argument(metavar="[CRON]", help="A cron expression such as '0 0/5 * * * ?', or ''.")
    ] = "",
    zone: Annotated[str, typer.Option(help="Time zone, such as Europe/Berlin.")] = "UTC",
    dialect: Annotated[
        Dialect, typer.Option(help="Syntax of CRON. quartz has a field of seconds, unix does not.")
    ] = Dialect.QUARTZ,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Number of fire times.")] = 5,
    trigger: Annotated[
        list[str] | None, typer.Option(help="A further trigger, such as '@every 90m'. Repeatable.")
    ] = None,
    start: Annotated[str, typer.Option(help="No fire time before this time, such as 2026-12-01T06:00.")] = "",
    end: Annotated[str, typer.Option(help="No fire time after this time.")] = "",
    blackout: Annotated[
        list[str] | None, typer.Option(help="A period without fire times, such as 'MON-FRI 08:00-18:00'. Repeatable.")
    ] = None,
    skip_on: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="No fire time on the days of this calendar. Repeatable.")
    ] = None,
    only_on: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Fire times only on days of this calendar. Repeatable.")
    ] = None,
    on_excluded_day: Annotated[
        ExcludedDay, typer.Option(help="Rule for a fire time on a day that the calendars exclude.")
    ] = ExcludedDay.SKIP,
    calendar: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="The days of a calendar, in an iCalendar file. Default: the server's calendar. Repeatable.",
        ),
    ] = None,
    job: Annotated[str, typer.Option(metavar="JOB", help="The fire times of this registered job.")] = "",
    language: Annotated[Language, typer.Option(help="Language of the words.")] = Language.EN,
    as_json: AsJson = False,
) -> None:
    """Print a cron expression in words, and its next fire times.

    This needs no server, except for a registered job, and for calendars whose days --calendar does not give.
    """
    config: dict[str, Any] = {
        "cron": cron, "triggers": trigger or [], "startTime": start, "endTime": end, "blackouts": blackout or [],
        "skipOn": skip_on or [], "onlyOn": only_on or [],
    }  # fmt: skip
    notes: list[str] = []
    if job:
        if any(config.values()):
            fix = "leave out CRON and the options of a schedule"
            raise ConfigError("has a schedule of its own", field="--job", fix=fix)
        config, team = _registered(ctx, job, notes)
    else:
        config |= {"timeZone": zone, "cronDialect": dialect.value, "onExcludedDay": on_excluded_day.value}
        team = team_of(ctx)
        if on_excluded_day is not ExcludedDay.SKIP and not (skip_on or only_on):
            fix = "give --skip-on or --only-on, or leave it out"
            raise ConfigError("is for calendars", field="--on-excluded-day", fix=fix)
    calendars = _calendars(ctx, config, team, calendar)
    words, instants, after_run = _fire_times(config, calendars, count, language.value)
    moments = [datetime.fromtimestamp(instant / 1000, UTC) for instant in instants]
    local_zone = zones.zone(config["timeZone"])
    last = f"{moments[-1].astimezone(local_zone):%Y-%m-%d}" if moments else ""
    for name, found in calendars.items():
        if found.known_until < last:
            notes.append(f"calendar {name} is known until {found.known_until} only: later days count as not in it")
    if as_json:
        times = [f"{moment:%Y-%m-%dT%H:%M:%S.000Z}" for moment in moments]
        shown = {"cron": config["cron"], "timeZone": config["timeZone"], "words": words, "times": times, "notes": notes}
        render.show_json(shown | ({"afterRun": True} if after_run else {}))
        return
    render.say(words)
    now = datetime.now(UTC)
    rows = [
        (f"{moment.astimezone(local_zone):%a %Y-%m-%d %H:%M:%S %Z}", render.age((now - moment).total_seconds()))
        for moment in moments
    ]
    if after_run:
        render.say("a fire time of @after is known when the run before it has ended")
    if rows or not after_run:
        render.show_table(("FIRES", ""), rows, "never before the year 2100")
    for note in notes:
        render.say(note)


class _Calendar(NamedTuple):
    days: Days
    known_until: str


def _registered(ctx: typer.Context, text: str, notes: list[str]) -> tuple[dict[str, Any], str]:
    """The configuration and the team of a registered job. Adds to `notes` if it is disabled."""
    from jobcloud.config import split_key

    key = key_of(ctx, text)
    with connect(ctx) as client:
        item = client.job(key)
    if not item["enabled"]:
        notes.append(f"job {key} is disabled: it fires only after `jobcloud job enable {key}`")
    return item["config"], split_key(key)[0]


def _calendars(ctx: typer.Context, config: dict[str, Any], team: str, given: list[str] | None) -> dict[str, _Calendar]:
    """The calendars that a schedule names, by name: from the files of `--calendar`, or else from the server.

    Raises ConfigError and ApiError.
    """
    from jobcloud.config import qualified

    names = dict.fromkeys((*config.get("skipOn", ()), *config.get("onlyOn", ())))
    of_files = {}
    if given:
        from jobcloud.client.commands.calendar_files import read_calendars

        of_files = read_calendars(given, team)
    keys = {name: qualified(name, team) for name in names}
    if unused := of_files.keys() - set(keys.values()):
        fix = "give its name to --skip-on or --only-on, too"
        raise ConfigError(f"no calendar {min(unused)} is asked for", field="--calendar", fix=fix)
    found = {}
    for name, key in keys.items():
        if key in of_files:
            found[name] = _Calendar(of_files[key].days, of_files[key].known_until)
        else:
            found[name] = _of_server(ctx, key)
    return found


def _of_server(ctx: typer.Context, key: str) -> _Calendar:
    from jobcloud.client.http import NotReachable
    from jobcloud.triggers import parse_days

    try:
        with connect(ctx) as client:
            item = client.calendar(key)
    except NotReachable as error:
        error.fix = f"the days of calendar {key} are not known here; start the scheduler, or give --calendar {key}=FILE"
        raise
    return _Calendar(parse_days(item["days"]), item["knownUntil"])


def _fire_times(
    config: dict[str, Any], calendars: dict[str, _Calendar], count: int, language: str
) -> tuple[str, tuple[int, ...], bool]:
    """The words of a schedule, its next fire times (ms), and whether it has a trigger `@after`. Raises ConfigError."""
    from jobcloud import cron as crons
    from jobcloud import cron_words, triggers

    start, end = (config.get(name) or "" for name in ("startTime", "endTime"))
    excluded = config.get("blackouts", ())
    timing = triggers.timing(
        config["cron"], config.get("triggers", ()), start, end, excluded,
        zone=config["timeZone"], dialect=crons.Dialect(config["cronDialect"]),
        gap=crons.Gap(config.get("dstGap", "run_after")), fold=crons.Fold(config.get("dstFold", "auto")),
    )  # fmt: skip
    skip_on, only_on = (config.get(name, ()) for name in ("skipOn", "onlyOn"))
    how = config.get("onExcludedDay", "skip")
    skipped, only = ([calendars[name].days for name in names] for names in (skip_on, only_on))
    times = timing.by_calendars(skipped, only or None, how)
    words = cron_words.describe_timing(
        timing, start, end, excluded, cron_words.Language(language),
        skip_on=skip_on, only_on=only_on, moved="" if how == ExcludedDay.SKIP else how,
    )  # fmt: skip
    return words, times.between(time.time_ns() // 1_000_000, 1 << 45, count), timing.after_run
