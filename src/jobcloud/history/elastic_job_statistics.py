"""The statistics of Elastic-Job-Cloud's API, computed from the rows of attempts of the team `default`.

Elastic-Job-Cloud counts in the leader's memory, and invents the numbers of the time without a leader. Here the rows
tell everything: an attempt ended in a minute or did not, and it ran at an instant or did not. A new leader changes no
number. Nothing is said about the time before the oldest row.

Each answer is computed at most once a minute, so frequent questions cost the database little.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Select, case, func, select

from jobcloud.config import DEFAULT_TEAM
from jobcloud.errors import Unavailable
from jobcloud.history.elastic_job import Interval, Period, Sample, TaskResult
from jobcloud.history.queries import Reader
from jobcloud.history.registrations import registered
from jobcloud.history.rows import FAILURES, SUCCEEDED
from jobcloud.history.tables import attempts, prefix
from jobcloud.model import Task

_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
_DAY_MS, _WEEK_MS = 24 * _HOUR_MS, 7 * 24 * _HOUR_MS
#: the number of rows, one for each group of attempts, that the samples of a week are computed from
MAX_SPANS: Final = 100_000

T = TypeVar("T")


class ElasticJobStatistics:
    """Statistics on the history. Threads may share it. `now_ms` is the time of the scheduler."""

    def __init__(self, reader: Reader, now_ms: Callable[[], int]) -> None:
        self._reader = reader
        self._now_ms = now_ms
        self._lock = threading.Lock()
        # The last answer of each kind, with the minute in which it was computed.
        self._known: dict[str, tuple[int, Any]] = {}

    def results_of_day(self) -> Sequence[TaskResult]:
        return self._once_a_minute("day", _results_of_day)

    def result(self, period: Period) -> TaskResult:
        return self._once_a_minute(period.value, lambda connection, now: _result(connection, now, period))

    def running_tasks_of_week(self, running: Sequence[Task]) -> Sequence[Sample]:
        return self._once_a_minute("tasks", lambda connection, now: _running_tasks(connection, now, running))

    def running_jobs_of_week(self, running: Sequence[Task]) -> Sequence[Sample]:
        return self._once_a_minute("jobs", lambda connection, now: _running_jobs(connection, now, running))

    def registered_jobs(self) -> Sequence[Sample]:
        return self._once_a_minute("registered", lambda connection, _: _samples(registered(connection)))

    def _once_a_minute(self, name: str, compute: Callable[[Connection, int], T]) -> T:
        now = self._now_ms()
        minute = now // _MINUTE_MS
        with self._lock:
            at, known = self._known.get(name, (-1, None))
        if at == minute:
            return cast("T", known)
        with self._reader.connect() as connection:
            found = compute(connection, now)
        with self._lock:
            self._known[name] = (minute, found)
        return found


def floor(instant: int, step: int) -> int:
    return instant - instant % step


def _beginning(connection: Connection) -> int | None:
    """The end of the oldest attempt; None without attempts."""
    oldest = connection.execute(select(func.min(attempts.c.id)).where(attempts.c.team == DEFAULT_TEAM)).scalar()
    return int(oldest[:12], 16) if oldest else None


def _within(since: int, until: int) -> list[ColumnElement[bool]]:
    """The attempts that ended within a range of time."""
    return [attempts.c.team == DEFAULT_TEAM, attempts.c.id >= prefix(since), attempts.c.id < prefix(until)]


def _results_of_day(connection: Connection, now: int) -> Sequence[TaskResult]:
    until = floor(now, _MINUTE_MS)
    beginning = _beginning(connection)
    if beginning is None:
        return ()
    since = max(until - _DAY_MS, floor(beginning, _MINUTE_MS))
    succeeded: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    for at, outcome, count in connection.execute(by_minute(since, until)):
        if outcome == SUCCEEDED:
            succeeded[at] += count
        elif outcome in FAILURES:
            failed[at] += count
    return [
        TaskResult(id_, succeeded[at], failed[at], Interval.MINUTE, at, at + _MINUTE_MS)
        for id_, at in enumerate(range(since, until, _MINUTE_MS), 1)
    ]


def by_minute(since: int, until: int) -> Select[Any]:
    """The minutes of a range of time, and the numbers of attempts that ended then, by outcome."""
    minute = (attempts.c.ended_ms - attempts.c.ended_ms % _MINUTE_MS).label("minute")
    ended = select(minute, attempts.c.outcome, func.count()).where(*_within(since, until))
    return ended.group_by("minute", attempts.c.outcome)


def counted(since: int, until: int) -> Select[Any]:
    """The numbers of attempts by outcome. An index has all columns that are read."""
    ends = attempts.c.outcome.in_([SUCCEEDED, *FAILURES])
    return select(attempts.c.outcome, func.count()).where(*_within(since, until), ends).group_by(attempts.c.outcome)


def _result(connection: Connection, now: int, period: Period) -> TaskResult:
    interval = Interval.DAY
    until = floor(now, _MINUTE_MS)
    since = until - _WEEK_MS
    if period is Period.ONLINE:
        since = _beginning(connection) or now
    elif period is Period.LAST_HOUR:
        interval, until = Interval.HOUR, floor(now, _HOUR_MS)
        since = until - _HOUR_MS
    elif period is Period.LAST_MINUTE:
        interval, since = Interval.MINUTE, until - _MINUTE_MS
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted(since, until))}
    succeeded = counts.pop(SUCCEEDED, 0)
    return TaskResult(0, succeeded, sum(counts.values()), interval, since, now)


def _running_tasks(connection: Connection, now: int, running: Sequence[Task]) -> Sequence[Sample]:
    changes: Counter[int] = Counter()
    for row in _bounded(connection, spans_of_tasks(now)):
        changes[row.first] += row.count
        changes[row.last + _HOUR_MS] -= row.count
    for task in running:
        changes[_first_hour(task)] += 1
    return _summed(changes, _beginning(connection), now, len(running))


def _running_jobs(connection: Connection, now: int, running: Sequence[Task]) -> Sequence[Sample]:
    of_jobs: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in _bounded(connection, spans_of_jobs(now)):
        of_jobs[row.job].append((row.first, row.last))
    for task in running:
        of_jobs[task.job].append((_first_hour(task), now))
    changes: Counter[int] = Counter()
    for found in of_jobs.values():
        end = 0
        for begin, until in sorted(found):
            if until < max(begin, end):
                continue  # all its hours are counted
            changes[max(begin, end)] += 1
            end = floor(until, _HOUR_MS) + _HOUR_MS
            changes[end] -= 1
    return _summed(changes, _beginning(connection), now, len({task.job for task in running}))


def spans_of_tasks(now: int) -> Select[Any]:
    """The first and the last full hour of attempts, with the number of attempts."""
    spans: Any = select(*_hours(), func.count().label("count"))
    found: Select[Any] = spans.where(*_crossing(now)).group_by("first", "last")
    return found


def spans_of_jobs(now: int) -> Select[Any]:
    """The jobs of attempts, with the first and the last full hour of an attempt."""
    return select(attempts.c.job, *_hours()).where(*_crossing(now)).distinct()


def _launched() -> ColumnElement[int]:
    # A new leader knows the start of an attempt that it hands over, but not the launch.
    return case((attempts.c.created_ms > 0, attempts.c.created_ms), else_=attempts.c.started_ms)


def _hours() -> tuple[ColumnElement[int], ColumnElement[int]]:
    """The first and the last full hour at which an attempt ran."""
    ceiled, before_end = _launched() + (_HOUR_MS - 1), attempts.c.ended_ms - 1
    return (ceiled - ceiled % _HOUR_MS).label("first"), (before_end - before_end % _HOUR_MS).label("last")


def _first_hour(task: Task) -> int:
    return floor((task.created_ms or task.started_ms) + _HOUR_MS - 1, _HOUR_MS)


def _crossing(now: int) -> list[ColumnElement[bool]]:
    """The attempts of shards that ran at a full hour and ended in the last week."""
    first, last = _hours()
    return [*_within(now - _WEEK_MS, now), attempts.c.step == "", _launched() > 0, first.element <= last.element]


def _bounded(connection: Connection, statement: Select[Any]) -> Sequence[Any]:
    rows: Sequence[Any] = connection.execute(statement.limit(MAX_SPANS + 1)).all()
    if len(rows) > MAX_SPANS:
        raise Unavailable(
            f"more than {MAX_SPANS} attempts ran at full hours of the last week", fix="use GET /api/v1/statistics"
        )
    return rows


def _summed(changes: Counter[int], beginning: int | None, now: int, present: int) -> Sequence[Sample]:
    """A sample for each full hour of the last week since the beginning, and the present number."""
    since = now - _WEEK_MS if beginning is None else max(beginning, now - _WEEK_MS)
    number = 0
    found: list[tuple[int, int]] = []
    if beginning is not None:
        first = floor(since + _HOUR_MS - 1, _HOUR_MS)
        number = sum(change for at, change in changes.items() if at < first)
        for at in range(first, now, _HOUR_MS):
            number += changes[at]
            found.append((at, number))
    return _samples([*found, (now, present)])


def _samples(numbers: Iterable[tuple[int, int]]) -> Sequence[Sample]:
    return [Sample(id_, number, at, at) for id_, (at, number) in enumerate(numbers, 1)]
