"""Statistics in Elastic-Job-Cloud's API.

Statistics over time come from the history. Without a history, the present state is the only sample, and results are
zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fastapi import Request, Response

from jobcloud.config import DEFAULT_TEAM, Job, JobKind, JobType
from jobcloud.history.elastic_job import Interval, Period, Sample, TaskResult
from jobcloud.server.api.elastic_job.answers import shown
from jobcloud.server.api.elastic_job.dates import date
from jobcloud.server.api.elastic_job.tasks import running
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.routes import Routes
from jobcloud.zones import zone as zone_of

router = Routes(prefix="/job/statistics")

_DAY, _WEEK = "last24hours", "lastWeek"
# The intervals of results without a history.
_PERIODS: dict[str, Interval] = {
    Period.ONLINE: Interval.DAY,
    Period.LAST_WEEK: Interval.DAY,
    Period.LAST_HOUR: Interval.HOUR,
    Period.LAST_MINUTE: Interval.MINUTE,
}


@router.get("/tasks/results")
async def list_results(request: Request, services: ServicesDep, since: str = "") -> Response:
    known = services.statistics
    if known is None or since != _DAY:
        return shown(request, [])
    return await services.questions.ask(
        lambda: shown(request, [_result(services, result) for result in known.results_of_day()])
    )


@router.get("/tasks/results/{period}")
async def show_result(request: Request, services: ServicesDep, period: str) -> Response:
    """The sums of a period. They are zeros for an unknown period, and without a history."""
    known = services.statistics
    if period in _PERIODS and known is not None:
        return await services.questions.ask(lambda: shown(request, _result(services, known.result(Period(period)))))
    now = services.clock()
    return shown(request, _result(services, TaskResult(0, 0, 0, _PERIODS.get(period, Interval.DAY), now, now)))


@router.get("/tasks/running")
async def list_running_tasks(request: Request, services: ServicesDep, since: str = "") -> Response:
    if since != _WEEK:
        return shown(request, [])
    known = services.statistics

    def ask() -> Response:
        tasks = running(services.snapshot())
        found = known.running_tasks_of_week(tasks) if known is not None else [_now(services, len(tasks))]
        return shown(request, _samples(services, "runningCount", found))

    return await services.questions.ask(ask)


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
async def list_running_jobs(request: Request, services: ServicesDep, since: str = "") -> Response:
    if since != _WEEK:
        return shown(request, [])
    known = services.statistics

    def ask() -> Response:
        tasks = running(services.snapshot())
        present = len({task.job for task in tasks})
        found = known.running_jobs_of_week(tasks) if known is not None else [_now(services, present)]
        return shown(request, _samples(services, "runningCount", found))

    return await services.questions.ask(ask)


@router.get("/jobs/register")
async def list_registered_jobs(request: Request, services: ServicesDep) -> Response:
    """The numbers of past days, and the present one."""
    known = services.statistics

    def ask() -> Response:
        past = known.registered_jobs() if known is not None else ()
        now = _now(services, len(_jobs(services)), len(past) + 1 if past else 0)
        return shown(request, _samples(services, "registeredCount", [*past, now]))

    return await services.questions.ask(ask)


def _jobs(services: Services) -> list[Job]:
    jobs = services.loop.ask(lambda scheduler: list(scheduler.jobs.values()))
    return [job for job in jobs if not job.ad_hoc and job.team == DEFAULT_TEAM]


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
