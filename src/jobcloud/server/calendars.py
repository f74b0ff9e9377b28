"""The days of a calendar, from a list, the holidays of a country, or an iCalendar file (RFC 5545).

Libraries run in a child process with limits of memory, CPU time and duration, because a short file may describe any
number of events. Each file gets a process of its own, because a time zone that one file defines would
count for later files too.

Only wall times are taken from an iCalendar file. An event counts for each day from its start to its end, in the time
zone of the event. Cancelled events are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.metadata import version
from typing import Any

import msgspec

from jobcloud.cron import LAST_YEAR
from jobcloud.errors import ConfigError, Unavailable
from jobcloud.model import CalendarSource
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import MISSING, at_most, between, out_of_range
from jobcloud.triggers import MAX_DAYS, Days, parse_days
from jobcloud.triggers.days import days_of

#: bytes of an iCalendar file
MAX_ICAL_BYTES = 512 << 10
MAX_EVENTS = 2_000
MAX_OCCURRENCES = 20_000
#: the number of years after the present one in a calendar: the default, and the maximum
YEARS = 5
MAX_YEARS = 10
#: how long one file may take to read
READ_DEADLINE_S = 20.0
_MEMORY_BYTES = 512 << 20
_CPU_S = 10
_MAX_OUTPUT = 1 << 20
_WEEKEND = frozenset({5, 6})
_TOO_OFTEN = frozenset({"SECONDLY", "MINUTELY", "HOURLY"})
_TIMES_OF_DAY = ("BYHOUR", "BYMINUTE", "BYSECOND")
_SMALLER = Told("send a file with fewer events, or the days as a list", "smaller_calendar")


@dataclass(frozen=True, slots=True)
class Found:
    """The days of a calendar, the last day up to which they are known, and the libraries that have found them."""

    days: Days
    known_until: str
    libraries: str


def source_of(source: CalendarSource, ical: str) -> CalendarSource:
    """The source with the hash of its iCalendar file."""
    return msgspec.structs.replace(source, ical_sha256=hashlib.sha256(ical.encode()).hexdigest() if ical else "")


def read_days(source: CalendarSource, ical: str, year: int, *, deadline_s: float = READ_DEADLINE_S) -> Found:
    """The days of a source. `year` is the present one. May take `deadline_s`.

    Raises ConfigError, which names the field, and Unavailable if the server lacks a library.
    """
    if not (source.days or source.country or source.weekends or ical):
        raise ConfigError(
            MISSING,
            field="days",
            fix=Told("give days, country, weekends, ical, or several of them", "calendar_sources"),
        )
    last = source.until_year or year + YEARS
    if not year <= last <= year + MAX_YEARS:
        raise ConfigError(out_of_range(str(last)), field="untilYear", fix=between(str(year), str(year + MAX_YEARS)))
    days, without = (_listed(name, entries) for name, entries in (("days", source.days), ("without", source.without)))
    found = set(_ordinals(days))
    years, libraries = range(year - 1, last + 1), ""
    known = LAST_YEAR
    if source.weekends and not source.country:
        found.update(day.toordinal() for day in _each_day(years) if day.weekday() in _WEEKEND)
        known = last
    if source.country or ical:
        asked = {
            "country": source.country, "subdivision": source.subdivision, "categories": source.categories,
            "weekends": source.weekends, "ical": ical, "first": years[0], "last": years[-1],
        }  # fmt: skip
        answer = _ask_child(asked, deadline_s)
        found.update(answer["days"])
        known, libraries = min(known, answer["known"]), answer["libraries"]
    found.difference_update(_ordinals(without))
    if not found:
        raise ConfigError(
            Told("the calendar has no day", "no_days"),
            field="days",
            fix=Told("name at least one day that is not in `without`", "calendar_day"),
        )
    if len(found) > MAX_DAYS:
        problem = Told(f"gives {len(found)} days", "many_days", days=len(found))
        raise ConfigError(problem, field="untilYear", fix=at_most(MAX_DAYS, ": choose fewer years"))
    return Found(days_of(found), f"{known}-12-31", libraries)


def _listed(field: str, entries: Iterable[str]) -> Days:
    try:
        return parse_days(entries)
    except ValueError as error:
        raise ConfigError(str(error), field=field) from None


def _ordinals(days: Days) -> Iterator[int]:
    for first, last in zip(days.first, days.last, strict=True):
        yield from range(first, last + 1)


def _each_day(years: range) -> Iterator[date]:
    for ordinal in range(date(years[0], 1, 1).toordinal(), date(years[-1], 12, 31).toordinal() + 1):
        yield date.fromordinal(ordinal)


def _ask_child(asked: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
    field = "ical" if asked["ical"] else "country"
    # -P: import no modules from the current directory.
    argv = [sys.executable, "-P", "-m", __name__]
    try:
        child = subprocess.run(
            argv, input=json.dumps(asked).encode(), capture_output=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            Told(f"took longer than {deadline_s:g} s to read", "calendar_large"), field=field, fix=_SMALLER
        ) from None
    if child.returncode < 0:
        text = f"took too much memory or time to read (signal {-child.returncode})"
        problem = Told(text, "calendar_large")
        raise ConfigError(problem, field=field, fix=_SMALLER)
    try:
        answer: dict[str, Any] = json.loads(child.stdout[:_MAX_OUTPUT])
    except ValueError:
        shown = child.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise ConfigError(
            Told(f"cannot be read: {shown}", "calendar_fails", problem=shown), field=field, fix=_SMALLER
        ) from None
    if "lacks" in answer:
        fix = Told("install jobcloud[server] on the scheduler's machine", "install_server")
        problem = Told(f"the scheduler has no library {answer['lacks']}", "no_library", library=answer["lacks"])
        raise Unavailable(problem, fix=fix)
    if "problem" in answer:
        raise ConfigError(answer["problem"], field=answer["field"], fix=answer["fix"])
    return answer


# ------------------------------------------------------------------------------------------------- the child


class _Wrong(Exception):
    """The field that is wrong, the problem and the fix."""


def main() -> None:
    """The child. It reads the question from its standard input, and writes the answer to its standard output."""
    asked = json.load(sys.stdin)
    with contextlib.suppress(OSError):  # a systemd unit may forbid it
        os.nice(10)  # the scheduler comes first
    limits = ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CPU, _CPU_S))
    for kind, wanted in (*limits, (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))
    answer: dict[str, Any]
    field = "ical" if asked["ical"] else "country"
    try:
        answer = _answer(asked)
    except _Wrong as error:
        answer = dict(zip(("field", "problem", "fix"), error.args, strict=True))
    except ImportError as error:
        answer = {"lacks": error.name}
    except MemoryError:
        answer = {"field": field, "problem": f"needs more than {_MEMORY_BYTES >> 20} MiB of memory", "fix": _SMALLER}
    except Exception as error:  # whatever the libraries raise for such a file
        problem = f"cannot be read: {type(error).__name__}: {error}"[:300]
        answer = {"field": field, "problem": problem, "fix": "correct it"}
    json.dump(answer, sys.stdout)


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    found: set[int] = set()
    known, libraries = asked["last"], []
    years = range(asked["first"], asked["last"] + 1)
    if asked["country"]:
        days, until, library = _holidays(asked, years)
        found |= days
        known = min(known, until)
        libraries.append(library)
    if asked["ical"]:
        days, until, library = _events(asked["ical"], years)
        found |= days
        known = min(known, until)
        libraries.append(library)
    if len(found) > 2 * MAX_DAYS:
        raise _Wrong("ical", f"has {len(found)} days", f"at most {MAX_DAYS}: {_SMALLER}")
    return {"days": sorted(found), "known": known, "libraries": ", ".join(libraries)}


def _holidays(asked: Mapping[str, Any], years: range) -> tuple[set[int], int, str]:
    """The days of a country, the last year that is known, and the library."""
    import holidays

    country, subdivision = asked["country"], asked["subdivision"]
    # Without `expand=False`, the object of a country computes each further year about which it is asked.
    more: dict[str, Any] = {"categories": tuple(asked["categories"])} if asked["categories"] else {}
    if subdivision:
        more["subdiv"] = subdivision
    try:
        supported = holidays.list_supported_countries()
        if country not in supported:
            raise _Wrong("country", f"{country} is not known", "write two letters of ISO 3166, such as DE")
        if subdivision and subdivision not in supported[country]:
            some = ", ".join(supported[country][:20]) or "none"
            raise _Wrong("subdivision", f"{subdivision!r} is not one of {country}", f"use one of {some}")
        before = range(years[0] - 1, years[-1] + 1)
        known = holidays.country_holidays(country, years=before, expand=False, **more)
    except ValueError as error:
        raise _Wrong("categories", str(error)[:300], "leave them out, or name others") from None
    found = {day.toordinal() for day in known if day.year in years}
    if asked["weekends"]:
        # In some countries, some days of weekends are working days.
        closed = (day for day in _each_day(years) if day.weekday() in known.weekend)
        found |= {day.toordinal() for day in closed if day not in known.weekend_workdays}
    with_days = [year for year in years if any(day.year == year for day in known)]
    if not with_days:
        raise _Wrong("country", f"has no holidays in {years[0]} to {years[-1]}", "choose other categories, or a list")
    return found, _announced(known, with_days[-1], before), f"holidays {version('holidays')}"


def _announced(known: Any, last: int, years: range) -> int:
    """The last year whose days are known. Some countries announce each year which days of weekends are working days."""
    working = {day.year for day in known.weekend_workdays}
    if {years[0], years[1]} <= working:
        return min(last, max(year for year in years if year in working))
    return last


def _events(text: str, years: range) -> tuple[set[int], int, str]:
    """The days of an iCalendar file, the last year that has one, and the libraries."""
    import icalendar
    import recurring_ical_events

    try:
        calendar = icalendar.Calendar.from_ical(text)
    except ValueError as error:
        raise _Wrong("ical", f"is no iCalendar file: {str(error)[:200]}", "send the text of an .ics file") from None
    events = calendar.walk("VEVENT")
    if len(events) > MAX_EVENTS:
        raise _Wrong("ical", f"has {len(events)} events", f"at most {MAX_EVENTS}")
    for event in events:
        _check_event(event)
    first, last = date(years[0], 1, 1), date(years[-1], 12, 31)
    found: set[int] = set()
    number = 0
    for year in years:
        begin = date(year, 1, 1) - timedelta(1) if year == years[0] else date(year, 1, 1)
        for event in recurring_ical_events.of(calendar).between(begin, date(year + 1, 1, 1)):
            number += 1
            if number > MAX_OCCURRENCES:
                raise _Wrong("ical", f"has more than {MAX_OCCURRENCES} events in {years[0]} to {last.year}", _SMALLER)
            if str(event.get("STATUS", "")).upper() != "CANCELLED":
                begins, ends = _span(event.start, event.end)
                found.update(range(max(begins, first).toordinal(), min(ends, last).toordinal() + 1))
    if not found:
        raise _Wrong("ical", f"has no event in {years[0]} to {years[-1]}", "send a file with present events")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("icalendar", "recurring-ical-events"))
    return found, date.fromordinal(max(found)).year, libraries


def _check_event(event: Any) -> None:
    """Raises _Wrong for a time in an unknown zone, and for a rule with more than one event a day."""
    for name in ("DTSTART", "DTEND", "RECURRENCE-ID", "RDATE", "EXDATE"):
        given = event.get(name)
        for value in given if isinstance(given, list) else [given]:
            zone = getattr(value, "params", {}).get("TZID")
            times = [value.dt] if hasattr(value, "dt") else [each.dt for each in getattr(value, "dts", ())]
            if zone and any(isinstance(time, datetime) and time.tzinfo is None for time in times):
                problem = f"the time zone {str(zone)[:60]!r} of {name} is not known"
                raise _Wrong("ical", problem, "use a name such as Europe/Berlin, or add its VTIMEZONE to the file")
    rules = event.get("RRULE")
    for rule in rules if isinstance(rules, list) else [rules] if rules else []:
        often = {str(frequency).upper() for frequency in rule.get("FREQ", ())} & _TOO_OFTEN
        if often or any(len(rule.get(name, ())) > 1 for name in _TIMES_OF_DAY):
            raise _Wrong("ical", "has a rule with more than one event a day", "use FREQ=DAILY or a longer period")


def _span(start: date, end: date) -> tuple[date, date]:
    """The first and the last day of an event.

    If it ends at midnight, or consists of whole days, the day of its end does not count.
    """
    first = start.date() if isinstance(start, datetime) else start
    if isinstance(end, datetime):
        last = end.date() - timedelta(1) if (end.hour, end.minute, end.second) == (0, 0, 0) else end.date()
    else:
        last = end - timedelta(1)
    return first, max(first, last)


if __name__ == "__main__":
    main()
