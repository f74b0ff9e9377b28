"""Statistics in Elastic-Job-Cloud's API.

Statistics over time come from the history. Without a history, the present state is the only sample, and results are
zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response

from jobcloud.config import DEFAULT_TEAM, Job, JobKind, JobType
from jobcloud.history.elastic_job import Interval, Period, Sample, TaskResult
from jobcloud.server.api.elastic_job.answers import shown
from jobcloud.server.api.elastic_job.dates import date
from jobcloud.server.api.elastic_job.tasks import running
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.zones import zone as zone_of

router = APIRouter(prefix="/job/statistics")

_DAY, _WEEK = "last24hours", "lastWeek"
# The intervals of results without a history.
_PERIODS: dict[str, Interval] = {
    Period.ONLINE: Interval.DAY,
    Period.LAST_WEEK: Interval.DAY,
    Period.LAST_HOUR: Interval.HOUR,
    Period.LAST_MINUTE: Interval.MINUTE,
}


@router.get("/tasks/results")
def list_results(request: Request, services: ServicesDep, since: str = "") -> Response:
    known = services.statistics
    results = known.results_of_day() if known is not None and since == _DAY else ()
    return shown(request, [_result(services, result) for result in results])


@router.get("/tasks/results/{period}")
def show_result(request: Request, services: ServicesDep, period: str) -> Response:
    """The sums of a period. They are zeros for an unknown period, and without a history."""
    if period in _PERIODS and services.statistics is not None:
        return shown(request, _result(services, services.statistics.result(Period(period))))
    now = services.clock()
    return shown(request, _result(services, TaskResult(0, 0, 0, _PERIODS.get(period, Interval.DAY), now, now)))


@router.get("/tasks/running")
def list_running_tasks(request: Request, services: ServicesDep, since: str = "") -> Response:
    if since != _WEEK:
        return shown(request, [])
    if services.statistics is not None:
        tasks = running(services.snapshot())
        return shown(request, _samples(services, "runningCount", services.statistics.running_tasks_of_week(tasks)))
    return shown(request, _samples(services, "runningCount", [_now(services, len(running(services.snapshot())))]))


@router.get("/jobs/type")
def count_types(request: Request, services: ServicesDep) -> Response:
    """HTTP jobs, which 2.1.5 lacks, are not counted."""
    counts = Counter(job.type for job in _jobs(services))
    types = (JobType.SCRIPT, JobType.SIMPLE, JobType.DATAFLOW)
    return shown(request, {f"{type_.lower()}JobCount": counts[type_] for type_ in types})


@router.get("/jobs/executionType")
def count_execution_types(request: Request, services: ServicesDep) -> Response:
    counts = Counter(job.kind for job in _jobs(services))
    return shown(request, {f"{kind.lower()}JobCount": counts[kind] for kind in JobKind})


@router.get("/jobs/running")
def list_running_jobs(request: Request, services: ServicesDep, since: str = "") -> Response:
    if since != _WEEK:
        return shown(request, [])
    if services.statistics is not None:
        tasks = running(services.snapshot())
        return shown(request, _samples(services, "runningCount", services.statistics.running_jobs_of_week(tasks)))
    jobs = {task.job for task in running(services.snapshot())}
    return shown(request, _samples(services, "runningCount", [_now(services, len(jobs))]))


@router.get("/jobs/register")
def list_registered_jobs(request: Request, services: ServicesDep) -> Response:
    """The numbers of past days, and the present one."""
    past = services.statistics.registered_jobs() if services.statistics is not None else ()
    now = _now(services, len(_jobs(services)), len(past) + 1 if past else 0)
    return shown(request, _samples(services, "registeredCount", [*past, now]))


def _jobs(services: Services) -> list[Job]:
    jobs = services.loop.ask(lambda scheduler: list(scheduler.jobs.values()))
    return [job for job in jobs if job.team == DEFAULT_TEAM]


def _now(services: Services, count: int, id_: int = 0) -> Sample:
    now = services.clock()
    return Sample(id_, count, now, now)


def _samples(services: Services, name: str, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    return [
        {"id": sample.id, name: sample.number} | _times(services, sample.at_ms, sample.created_ms) for sample in samples
    ]


def _result(services: Services, result: TaskResult) -> dict[str, Any]:
    counts = {
        "id": result.id,
        "successCount": result.succeeded,
        "failedCount": result.failed,
        "statisticInterval": result.interval.value,
    }
    return counts | _times(services, result.at_ms, result.created_ms)


def _times(services: Services, at_ms: int, created_ms: int) -> dict[str, Any]:
    zone = zone_of(services.options.elastic_job.zone)
    return {"statisticsTime": date(at_ms, zone), "creationTime": date(created_ms, zone)}
