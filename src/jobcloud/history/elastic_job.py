"""The questions of Elastic-Job-Cloud's API to the history, and the answers: searches of events, and statistics.

They see only the team `default`: jobs whose key has no colon. Instants are milliseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from jobcloud.model import Task

RowT = TypeVar("RowT")


class Interval(StrEnum):
    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"


class Period(StrEnum):
    """The periods of results, by their names in Elastic-Job-Cloud.

    ONLINE: since the history begins. LAST_WEEK: seven times 24 hours. LAST_HOUR, LAST_MINUTE: the last full one.
    """

    ONLINE = "online"
    LAST_WEEK = "lastWeek"
    LAST_HOUR = "lastHour"
    LAST_MINUTE = "lastMinute"


class Execution(NamedTuple):
    """A row of the table JOB_EXECUTION_LOG. `complete_ms` is 0 until the execution ends."""

    id: str
    job_name: str
    task_id: str
    hostname: str
    ip: str
    item: int
    source: str
    success: bool
    failure_cause: str
    start_ms: int
    complete_ms: int


class StatusTrace(NamedTuple):
    """A row of the table JOB_STATUS_TRACE_LOG. `items` is the text of a list, such as [0]."""

    id: str
    job_name: str
    original_task_id: str
    task_id: str
    slave_id: str
    source: str
    execution_type: str
    items: str
    state: str
    message: str
    creation_ms: int


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """A search. `equal` and `sort` name attributes of the rows; `sort` may be "".

    `from_ms` and `until_ms` limit the start of an execution, or the creation of a status. 0 means no limit; both ends
    are included.
    """

    offset: int = 0
    limit: int = 10
    sort: str = ""
    descending: bool = False
    from_ms: int = 0
    until_ms: int = 0
    equal: Mapping[str, str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found(Generic[RowT]):
    """The rows of a page, and the number of all rows that match."""

    total: int
    rows: Sequence[RowT]


class TraceSearch(Protocol):
    """Searches events. Called on threads of the API. Raises Unavailable if the history cannot be read now."""

    def executions(self, query: TraceQuery) -> Found[Execution]: ...

    def status_traces(self, query: TraceQuery) -> Found[StatusTrace]: ...


class TaskResult(NamedTuple):
    """The numbers of attempts that succeeded and failed in an interval that begins at `at_ms`."""

    id: int
    succeeded: int
    failed: int
    interval: Interval
    at_ms: int
    created_ms: int


class Sample(NamedTuple):
    """A number that was measured at `at_ms`."""

    id: int
    number: int
    at_ms: int
    created_ms: int


class Statistics(Protocol):
    """Statistics over time, oldest first. Called on threads of the API. Raises Unavailable like TraceSearch."""

    def results_of_day(self) -> Sequence[TaskResult]:
        """One result for each full minute of the last 24 hours, but not from before the history begins."""

    def result(self, period: Period) -> TaskResult: ...

    def running_tasks_of_week(self, running: Sequence[Task]) -> Sequence[Sample]:
        """The number of running tasks at each full hour of the last week, and now. `running`: those that run now."""

    def running_jobs_of_week(self, running: Sequence[Task]) -> Sequence[Sample]:
        """The number of jobs with running tasks at the same instants."""

    def registered_jobs(self) -> Sequence[Sample]:
        """The number of registered jobs on each day on which the history was kept."""
