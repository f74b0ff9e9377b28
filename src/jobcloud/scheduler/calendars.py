"""Calendars: sets of days on which jobs do not fire, or the only days on which they fire.

An index tells which jobs name a calendar. When a calendar changes, the timetable schedules these jobs again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sized
from collections.abc import Set as AbstractSet
from datetime import UTC

from jobcloud.config import Job, team_of
from jobcloud.cron import find_zone
from jobcloud.errors import ConfigError, Conflict, NotFound
from jobcloud.messages import PutCalendar, RemoveCalendar, Topic
from jobcloud.model import Calendar, Firing, changed
from jobcloud.scheduler import refusals
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.state import State
from jobcloud.scheduler.timetable import Timetable
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import shown_by
from jobcloud.triggers import wall

#: the most calendars of one team, and of all teams
MAX_OF_TEAM = 100
MAX_CALENDARS = 1_000
# People are warned this long before the known days of a calendar in use end.
_WARNED_MS = 30 * 86_400_000
# Names that one message lists.
_NAMED = 5


class Calendars(Part):
    def __init__(self, state: State, timetable: Timetable) -> None:
        super().__init__(state)
        self._timetable = timetable
        #: calendar → the jobs that name it, whether or not it exists
        self._jobs: dict[str, dict[str, None]] = {}
        #: job → the calendars that it names
        self._named: dict[str, tuple[str, ...]] = {}
        #: texts about calendars in use whose known days end
        self.warnings: tuple[Told, ...] = ()

    def restore(self, at: int) -> None:
        for job in self._state.jobs.values():
            self.job_changed(job)
        self.sweep(at)

    # ------------------------------------------------------------------------------------------------- commands

    def put(self, event: PutCalendar) -> None:
        """Set a calendar. Raises Conflict if there are too many."""
        calendar = changed(event.calendar, changed_ms=event.at)
        known = self._state.calendars.get(calendar.key)
        if event.before is not None and event.before != known:
            raise refusals.changed_meanwhile("calendar", calendar.key)
        self.check_number({calendar.key})
        if known is not None and changed(known, changed_ms=event.at) == calendar:
            return
        self._state.put_calendar(calendar, event.days)
        if known is None or known.days != calendar.days:
            self._timetable.outdate(self._jobs.get(calendar.key, ()))
        what = f"calendar {calendar.key} is {'changed' if known else 'added'}"
        self._state.publish(event.at, Topic.CONFIG, f"{what}: {len(self._state.days[calendar.key])} days")
        self._warn(event.at)

    def check_number(self, keys: AbstractSet[str]) -> None:
        """Raises Conflict if there are too many calendars with those of some keys."""
        more = Counter(team_of(key) for key in keys if key not in self._state.calendars)
        for team, number in more.items():
            of_team = sum(team_of(key) == team for key in self._state.calendars)
            if of_team + number > MAX_OF_TEAM or len(self._state.calendars) + more.total() > MAX_CALENDARS:
                every = len(self._state.calendars)
                text = f"there are {of_team} calendars of team {team}, and {every} of all teams"
                problem = Told(text, "many_calendars", team=team, calendars=of_team, all=every)
                text = f"remove one; at most {MAX_OF_TEAM} of a team, and {MAX_CALENDARS} of all"
                fix = Told(text, "calendar_room", team=MAX_OF_TEAM, all=MAX_CALENDARS)
                raise Conflict(problem, field="calendar", fix=fix)

    def remove(self, event: RemoveCalendar) -> None:
        """Remove a calendar. Raises NotFound, or Conflict if jobs name it."""
        if event.calendar not in self._state.calendars:
            raise no_calendar(event.calendar)
        if users := self._jobs.get(event.calendar):
            named = _list(users)
            text = f"calendar {event.calendar} is in use by {named}"
            problem = Told(text, "calendar_used", calendar=event.calendar, users=named)
            raise Conflict(
                problem,
                field="calendar",
                fix=Told("take it out of skipOn and onlyOn of these jobs first", "unname_calendar"),
            )
        self._state.delete_calendar(event.calendar)
        self._state.publish(event.at, Topic.CONFIG, f"calendar {event.calendar} is removed")

    def check(self, job: Job, more: AbstractSet[str] = frozenset()) -> None:
        """Raises ConfigError if a job names a calendar that neither exists nor is one of `more`."""
        for field, names in (("skipOn", job.skip_on), ("onlyOn", job.only_on)):
            for key in job.calendars:
                if key not in self._state.calendars and key not in more and key.rpartition(":")[2] in names:
                    fix = shown_by("jobcloud calendar list", "shows all; `jobcloud calendar put` makes one")
                    raise ConfigError(refusals.no_calendar(key), field=field, fix=fix)

    def users(self, calendar: str) -> tuple[str, ...]:
        """The jobs that name a calendar."""
        return tuple(self._jobs.get(calendar, ()))

    # ------------------------------------------------------------------------------------------------- hooks

    def job_changed(self, job: Job) -> None:
        self.job_removed(job.key)
        if job.calendars:
            self._named[job.key] = job.calendars
        for calendar in job.calendars:
            self._jobs.setdefault(calendar, {})[job.key] = None

    def job_removed(self, name: str) -> None:
        for calendar in self._named.pop(name, ()):
            del self._jobs[calendar][name]
            if not self._jobs[calendar]:
                del self._jobs[calendar]

    def sweep(self, at: int) -> None:
        self._warn(at)

    def _warn(self, at: int) -> None:
        """Look for calendars in use of which few days are left."""
        soon = wall.local_time((at + _WARNED_MS) // 1_000, UTC).date().isoformat()
        ending = [one for key in self._jobs if (one := self._state.calendars.get(key)) and one.known_until < soon]
        missing = [key for key in self._jobs if key not in self._state.calendars]
        found = [self._ends(one) for one in ending] + [self._misses(key) for key in missing]
        more = []
        if (left := len(found) - _NAMED) > 0:
            more.append(Told(f"{left} more calendars end soon or are missing", "calendars_more", calendars=left))
        before, self.warnings = self.warnings, (*found[:_NAMED], *more)
        for text in self.warnings:
            if text not in before:
                self._state.publish(at, Topic.FAULT, text)

    def _ends(self, calendar: Calendar) -> Told:
        key, day, jobs = calendar.key, calendar.known_until, len(self._jobs[calendar.key])
        text = f"calendar {key}, which {jobs} jobs use, {_end_of(calendar)}"
        return Told(text, "calendar_ends", calendar=key, day=day, jobs=jobs)

    def _misses(self, key: str) -> Told:
        jobs = len(self._jobs[key])
        text = f"calendar {key} is missing, so {jobs} jobs do not fire"
        return Told(text, "calendar_missing", calendar=key, jobs=jobs)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        keys = job.calendars
        if missing := [key for key in keys if key not in self._state.calendars]:
            named = ", ".join(missing)
            text = f"it does not fire: there is no calendar {named}. `jobcloud calendar put` makes one"
            yield Reason("calendar", text, case="missing", parameters={"calendars": named})
            return
        zone = find_zone(job.zone) if keys else UTC
        latest = max(self._timetable.due.get(job.key, 0), at + _WARNED_MS)
        day = wall.local_time(latest // 1_000, zone).date().isoformat() if keys else ""
        for key in keys:
            found = self._state.calendars[key]
            if found.known_until < day:
                text = f"calendar {key} {_end_of(found)}"
                given = {"calendar": key, "day": found.known_until}
                yield Reason("calendar", text, waiting_helps=True, parameters=given)

    def indexes(self) -> Mapping[str, Sized]:
        return {"jobs by calendar": self._jobs, "calendars by job": self._named}

    def validate(self) -> None:
        wanted = {(calendar, job.key) for job in self._state.jobs.values() for calendar in job.calendars}
        known = {(calendar, job) for calendar, jobs in self._jobs.items() for job in jobs}
        assert known == wanted, f"the jobs by calendar differ: {known ^ wanted}"
        assert self._state.days.keys() == self._state.calendars.keys(), "a calendar has no days, or days no calendar"


def no_calendar(key: str) -> NotFound:
    fix = shown_by("jobcloud calendar list", "shows all")
    return NotFound(refusals.no_calendar(key[:200]), field="calendar", fix=fix)


def _end_of(calendar: Calendar) -> str:
    return (
        f"is known until {calendar.known_until} only: later days count as days that it does not have. "
        "Send all its sources again with `jobcloud calendar put`"
    )


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"{'job' if len(listed) == 1 else 'jobs'} {', '.join(listed[:_NAMED])}{more}"
