"""Calendars: sets of days on which jobs do not fire, or the only days on which they fire."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import Query as Parameter
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from jobcloud.config import check_name, split_key, team_of
from jobcloud.messages import PutCalendar, RemoveCalendar
from jobcloud.model import Calendar, CalendarSource
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.calendars import no_calendar
from jobcloud.scheduler.refusals import changed_since
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import check_printable, read_config
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.patch import change
from jobcloud.server.api.preconditions import SEEN, Expected, Revised, mark, shown
from jobcloud.server.api.schema import CalendarConfig, Instant, Key, TeamFilter, View
from jobcloud.server.api.services import JsonObject, ServicesDep, json_body
from jobcloud.server.calendars import Found, read_days, source_of
from jobcloud.server.routes import Routes
from jobcloud.triggers import Days

router = Routes(tags=["calendars"])

_CALENDARS = Listing("calendars", (str,))
#: names of jobs in an answer
MAX_JOBS = 100


class CalendarSummary(Revised):
    calendar: str = Field(description="the key of the calendar")
    team: str
    description: str
    day_count: int
    known_until: str = Field(description="the last date whose days are known; later days count as not in the calendar")
    changed_at: Instant
    libraries: str = Field(description="the libraries that have found the days, with their versions")
    job_count: int = Field(description="how many jobs name the calendar")


class CalendarSourceView(View):
    days: list[str]
    without: list[str]
    country: str
    subdivision: str
    categories: list[str]
    weekends: bool
    ical_sha256: str = Field(description="the hash of the iCalendar file; its text is not kept")
    until_year: int | None


class CalendarView(CalendarSummary):
    days: list[str] = Field(description="days and ranges of days, sorted")
    source: CalendarSourceView = Field(description="what the days were made from")
    jobs: list[str] = Field(description=f"the jobs that name the calendar, at most {MAX_JOBS} of them")


class CalendarList(PageView):
    items: list[CalendarSummary]


class CalendarQuery(PageQuery):
    team: TeamFilter = ""


@router.get("/calendars")
def list_calendars(
    services: ServicesDep, access: AccessDep, query: Annotated[CalendarQuery, Parameter()]
) -> CalendarList:
    """The calendars by key, without their days."""
    teams = access.shown_teams(query.team)

    def known(scheduler: Scheduler) -> list[tuple[Calendar, Days, int]]:
        return [
            (found, scheduler.days[key], len(scheduler.users(key)))
            for key, found in scheduler.calendars.items()
            if teams is None or team_of(key) in teams
        ]

    found = sorted(services.loop.ask(known), key=lambda each: each[0].key)
    items, cursor = _CALENDARS.page(found, lambda each: (each[0].key,), query)
    return CalendarList(items=[_summary(*each) for each in items], next_cursor=cursor)


@router.get("/calendars/{calendar}", dependencies=[SEEN], response_model=CalendarView)
def show_calendar(services: ServicesDep, calendar: Key, request: Request) -> Response:
    """A calendar with its days."""
    return shown(request, _find(services, calendar))


@router.put(
    "/calendars/{calendar}",
    responses={201: {"model": CalendarView, "description": "It is new"}},
    openapi_extra=json_body(CalendarConfig),
)
async def put_calendar(
    services: ServicesDep, calendar: Key, body: JsonObject, expected: Expected, response: Response
) -> CalendarView:
    """Create or replace a calendar. Its days count at once for the jobs that name it.

    Holidays and iCalendar files are read once, when they are sent. Send them again to learn of further years.
    """
    check_name("calendar", split_key(calendar)[1])
    given = read_config(body, CalendarConfig)
    check_printable("description", given.description)
    now = services.clock()
    source = source_of(source_in(given), given.ical)
    year = datetime.fromtimestamp(now / 1_000, UTC).year
    found = await services.calendar_reads.ask(lambda: read_days(source, given.ical, year))
    record = record_of(calendar, given.description, source, found)

    def attempt() -> bool:
        """Store the calendar. Returns whether it is new."""
        known = services.loop.ask(lambda scheduler: scheduler.calendars.get(calendar))
        if expected is not None and (known is None or _revision(known) not in expected):
            raise changed_since("calendar", calendar)
        services.command(lambda at: PutCalendar(at, record, found.days, known))
        return known is None

    response.status_code = 201 if await change(lambda: run_in_threadpool(attempt), expected) else 200
    view = await run_in_threadpool(_find, services, calendar)
    mark(response, view)
    return view


@router.delete("/calendars/{calendar}", status_code=204)
def remove_calendar(services: ServicesDep, calendar: Key) -> None:
    """Remove a calendar that no job names."""
    services.command(lambda at: RemoveCalendar(at, calendar))


def source_in(given: CalendarConfig) -> CalendarSource:
    """The source of a configuration, without the hash of an iCalendar file."""
    return CalendarSource(
        tuple(given.days), tuple(given.without), given.country, given.subdivision, tuple(given.categories),
        given.weekends, until_year=given.until_year or 0,
    )  # fmt: skip


def record_of(key: str, description: str, source: CalendarSource, found: Found) -> Calendar:
    """The record of a calendar."""
    return Calendar(key, found.days.texts(), found.known_until, source, found.libraries, description=description)


def _find(services: ServicesDep, key: str) -> CalendarView:
    """Raises NotFound."""

    def known(scheduler: Scheduler) -> tuple[Calendar, Days, tuple[str, ...]]:
        if key not in scheduler.calendars:
            raise no_calendar(key)
        return scheduler.calendars[key], scheduler.days[key], scheduler.users(key)

    found, days, jobs = services.loop.ask(known)
    source = found.source
    return CalendarView(
        **dict(_summary(found, days, len(jobs))),
        days=list(found.days),
        source=CalendarSourceView(
            days=list(source.days), without=list(source.without), country=source.country,
            subdivision=source.subdivision, categories=list(source.categories), weekends=source.weekends,
            ical_sha256=source.ical_sha256, until_year=source.until_year or None,
        ),
        jobs=sorted(jobs)[:MAX_JOBS],
    )  # fmt: skip


def _summary(found: Calendar, days: Days, jobs: int) -> CalendarSummary:
    return CalendarSummary(
        revision=_revision(found),
        calendar=found.key,
        team=team_of(found.key),
        description=found.description,
        day_count=len(days),
        known_until=found.known_until,
        changed_at=found.changed_ms,
        libraries=found.libraries,
        job_count=jobs,
    )


def _revision(found: Calendar) -> str:
    parts = [found.days, found.known_until, found.source, found.description]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]
