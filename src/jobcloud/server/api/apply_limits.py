"""The pools, calendars and workflows in the body of `POST /apply`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fastapi.concurrency import run_in_threadpool
from msgspec import structs
from pydantic import Field

from jobcloud.access.names import PLACE_FORM
from jobcloud.config import DEFAULT_TEAM, check_name, check_team, key_of
from jobcloud.errors import ConfigError
from jobcloud.model import EVERY_TEAM, Calendar, CalendarSource, Pool, Workflow
from jobcloud.sentences.frequent import LEAVE_ONE_OUT
from jobcloud.server.api.calendars import record_of, source_in
from jobcloud.server.api.convert import check_printable, read_config
from jobcloud.server.api.problems import Issue, from_refused, invalid
from jobcloud.server.api.schema import CalendarConfig, PoolConfig, TeamFilter, WorkflowConfig
from jobcloud.server.api.services import Services
from jobcloud.server.api.workflows import record_of as workflow_record
from jobcloud.server.calendars import READ_DEADLINE_S, Found, read_days, source_of
from jobcloud.triggers import Days

#: calendars of one request of which a library must find the days
MAX_READ = 20
# All of them together.
_DEADLINE_S = 60.0
# Days that an answer names if nothing else has changed.
_NAMED = 20


class PoolItem(PoolConfig):
    """A pool to create or change."""

    pool_name: str = Field(alias="poolName", max_length=100)
    team: str = Field(DEFAULT_TEAM, pattern=PLACE_FORM, description="`*`: a pool of all teams")


class CalendarItem(CalendarConfig):
    """A calendar to create or replace."""

    calendar_name: str = Field(alias="calendarName", max_length=100)
    team: TeamFilter = Field("", description="default: default")
    ical_sha256: str = Field(
        "",
        alias="icalSha256",
        pattern="^([0-9a-f]{64})?$",
        description="the hash of the iCalendar file; without `ical`: that of the present calendar, which stays",
    )


class WorkflowItem(WorkflowConfig):
    """A workflow to create or change."""

    workflow_name: str = Field(alias="workflowName", max_length=100)
    team: TeamFilter = Field("", description="default: default")


class AskedPool(NamedTuple):
    key: str
    team: str
    pool: Pool


class AskedCalendar(NamedTuple):
    key: str
    team: str
    config: CalendarItem


class AskedWorkflow(NamedTuple):
    key: str
    team: str
    workflow: Workflow


def read_pool(body: Mapping[str, Any]) -> AskedPool:
    """Raises Problem and ConfigError."""
    given = read_config(body, PoolItem)
    check_name("poolName", given.pool_name)
    check_printable("description", given.description)
    if given.team != EVERY_TEAM:
        check_team("team", given.team)
    return AskedPool(key_of(given.team, given.pool_name), given.team, Pool(given.slots, given.description))


def read_calendar(body: Mapping[str, Any]) -> AskedCalendar:
    """Raises Problem and ConfigError."""
    given = read_config(body, CalendarItem)
    check_name("calendarName", given.calendar_name)
    check_printable("description", given.description)
    team = given.team or DEFAULT_TEAM
    return AskedCalendar(key_of(team, given.calendar_name), team, given)


def read_workflow(body: Mapping[str, Any]) -> AskedWorkflow:
    """Raises Problem and ConfigError."""
    given = read_config(body, WorkflowItem)
    check_name("workflowName", given.workflow_name)
    team = given.team or DEFAULT_TEAM
    key = key_of(team, given.workflow_name)
    return AskedWorkflow(key, team, workflow_record(key, given))


async def find_days(services: Services, asked: Sequence[AskedCalendar]) -> tuple[tuple[Calendar, Days], ...]:
    """The records of calendars, with their days. Raises Problem, which names each place in the body."""
    keys = [one.key for one in asked]
    known = await run_in_threadpool(_known, services, keys)
    year = datetime.fromtimestamp(services.clock() / 1_000, UTC).year
    end = time.monotonic() + _DEADLINE_S
    found: list[tuple[Calendar, Days]] = []
    issues: list[Issue] = []
    read = 0
    for index, one in enumerate(asked):
        given, place = one.config, f"calendars.{index}"
        source = source_of(source_in(given), given.ical)
        if given.ical_sha256 and not given.ical:
            source = structs.replace(source, ical_sha256=given.ical_sha256)
            before = known.get(one.key)
            if before is None or before[0].source != source:
                fix = "give `ical`, or `icalFile` in a file of `jobcloud apply`"
                issues.append(Issue(f"{place}.icalSha256", "is not the file of the present calendar", fix))
            else:
                found.append((structs.replace(before[0], description=given.description), before[1]))
            continue
        if given.ical_sha256 not in ("", source.ical_sha256):
            issues.append(Issue(f"{place}.icalSha256", "is not the hash of `ical`", LEAVE_ONE_OUT))
            continue
        read += bool(given.country or given.ical)
        if read > MAX_READ:
            fix = "apply the others in a further request"
            issues.append(Issue(place, f"is one of more than {MAX_READ} calendars with holidays or files", fix))
            break
        try:
            days = await _read(services, source, given.ical, year, end - time.monotonic())
        except ConfigError as error:
            issues += [
                Issue(f"{place}.{issue.field}", issue.problem, issue.fix) for issue in from_refused(error).issues
            ]
            continue
        found.append((record_of(one.key, given.description, source, days), days.days))
    if issues:
        raise invalid(issues)
    return tuple(found)


def _known(services: Services, keys: Iterable[str]) -> dict[str, tuple[Calendar, Days]]:
    return services.loop.ask(
        lambda scheduler: {
            key: (scheduler.calendars[key], scheduler.days[key]) for key in keys if key in scheduler.calendars
        }
    )


async def _read(services: Services, source: CalendarSource, ical: str, year: int, seconds: float) -> Found:
    limit = min(READ_DEADLINE_S, max(seconds, 0.1))
    return await services.calendar_reads.ask(lambda: read_days(source, ical, year, deadline_s=limit))


def same_calendar(before: Calendar, after: Calendar) -> bool:
    return structs.replace(before, changed_ms=after.changed_ms) == after


def calendar_changes(before: Calendar, after: Calendar) -> Iterator[tuple[str, Any, Any]]:
    """The fields that differ, as (field, before, after): those of the body, and what was found."""
    pairs = zip(_fields(before), _fields(after), strict=True)
    found = [(name, old, new) for (name, old), (_, new) in pairs if old != new]
    if before.days != after.days:
        old, new = set(before.days), set(after.days)
        found.append(("foundDays", sorted(old - new)[:_NAMED], sorted(new - old)[:_NAMED]))
    return iter(found)


def _fields(calendar: Calendar) -> Iterator[tuple[str, Any]]:
    source = calendar.source
    yield "days", list(source.days)
    yield "without", list(source.without)
    yield "country", source.country
    yield "subdivision", source.subdivision
    yield "categories", list(source.categories)
    yield "weekends", source.weekends
    yield "icalSha256", source.ical_sha256
    yield "untilYear", source.until_year or None
    yield "description", calendar.description
    yield "knownUntil", calendar.known_until
    yield "libraries", calendar.libraries
