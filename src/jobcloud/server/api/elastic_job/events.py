"""Searches of events in Elastic-Job-Cloud's API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request, Response

from jobcloud.errors import ConfigError
from jobcloud.history.elastic_job import Execution, StatusTrace, TraceQuery
from jobcloud.server.api.elastic_job.access import speaks_version_3
from jobcloud.server.api.elastic_job.answers import is_own, shown
from jobcloud.server.api.elastic_job.dates import date
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.routes import Routes
from jobcloud.zones import zone as zone_of

router = Routes()

_MAX_PAGE, _MAX_ROW, _MAX_FILTER = 1_000, 10_000_000, 1_000
_NOTHING = {"total": 0, "rows": []}
# Names of fields in requests and answers, and attributes of the rows.
_EXECUTION = {
    "id": "id",
    "hostname": "hostname",
    "ip": "ip",
    "taskId": "task_id",
    "jobName": "job_name",
    "source": "source",
    "executionSource": "source",
    "shardingItem": "item",
    "startTime": "start_ms",
    "completeTime": "complete_ms",
    "success": "success",
    "isSuccess": "success",
    "failureCause": "failure_cause",
}
_STATUS = {
    "id": "id",
    "jobName": "job_name",
    "originalTaskId": "original_task_id",
    "taskId": "task_id",
    "slaveId": "slave_id",
    "source": "source",
    "executionType": "execution_type",
    "shardingItems": "items",
    "state": "state",
    "message": "message",
    "creationTime": "creation_ms",
}
_EXECUTION_FILTERS = ("jobName", "taskId", "ip", "isSuccess")
_STATUS_FILTERS = ("jobName", "taskId", "slaveId", "source", "executionType", "state")
_TRUTHS = {"1": True, "true": True, "0": False, "false": False}


@router.get("/job/events/executions")
async def find_executions(request: Request, services: ServicesDep) -> Response:
    traces = services.traces
    if traces is None or not is_own(request.query_params.get("jobName", "")):
        return shown(request, _NOTHING)
    zone = zone_of(services.options.elastic_job.zone)
    query = _query(request.query_params, _EXECUTION, _EXECUTION_FILTERS, zone)
    of_3 = speaks_version_3(request.scope)

    def ask() -> Response:
        found = traces.executions(query)
        return shown(request, {"total": found.total, "rows": [_execution(row, zone, of_3=of_3) for row in found.rows]})

    return await services.questions.ask(ask)


@router.get("/job/events/statusTraces")
async def find_status_traces(request: Request, services: ServicesDep) -> Response:
    traces = services.traces
    if traces is None or not is_own(request.query_params.get("jobName", "")):
        return shown(request, _NOTHING)
    zone = zone_of(services.options.elastic_job.zone)
    query = _query(request.query_params, _STATUS, _STATUS_FILTERS, zone)

    def ask() -> Response:
        found = traces.status_traces(query)
        return shown(request, {"total": found.total, "rows": [_status(row, zone) for row in found.rows]})

    return await services.questions.ask(ask)


def _execution(row: Execution, zone: ZoneInfo, *, of_3: bool) -> dict[str, Any]:
    cause: Any = row.failure_cause or None
    return {
        "id": row.id,
        "hostname": row.hostname,
        "ip": row.ip,
        "taskId": row.task_id,
        "jobName": row.job_name,
        "source": row.source,
        "shardingItem": row.item,
        "startTime": date(row.start_ms, zone),
        "completeTime": date(row.complete_ms, zone),
        "success": row.success,
        "failureCause": cause if of_3 or cause is None else {"plainText": cause},
    }


def _status(row: StatusTrace, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "jobName": row.job_name,
        "id": row.id,
        "originalTaskId": row.original_task_id,
        "taskId": row.task_id,
        "slaveId": row.slave_id,
        "source": row.source,
        "executionType": row.execution_type,
        "shardingItems": row.items,
        "state": row.state,
        "message": row.message,
        "creationTime": date(row.creation_ms, zone),
    }


def _query(
    given: Mapping[str, str], attributes: Mapping[str, str], filters: tuple[str, ...], zone: ZoneInfo
) -> TraceQuery:
    """The search that parameters describe. Empty and unknown parameters have no effect. Raises ConfigError."""
    limit = _number(given, "per_page", 10, _MAX_PAGE)
    page = _number(given, "page", 1, _MAX_ROW // limit)
    sort, order = given.get("sort", ""), given.get("order", "").upper()
    if sort and sort not in attributes:
        raise ConfigError(f"{sort[:80]!r} is not a field", field="sort", fix=f"use {', '.join(attributes)}")
    if order not in ("", "ASC", "DESC"):
        raise ConfigError(f"{order[:80]!r} is not an order", field="order", fix="use ASC or DESC")
    equal: dict[str, str | bool] = {}
    for name in filters:
        if value := given.get(name):
            equal[attributes[name]] = _truth(name, value) if name == "isSuccess" else _text(name, value)
    return TraceQuery(
        offset=(page - 1) * limit,
        limit=limit,
        sort=attributes.get(sort, ""),
        descending=order == "DESC",
        from_ms=_instant(given, "startTime", zone),
        until_ms=_instant(given, "endTime", zone),
        equal=equal,
    )


def _number(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = given.get(name) or str(default)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= number <= most:
        raise ConfigError(f"{text[:80]!r} is not a number from 1 to {most}", field=name, fix="give such a number")
    return number


def _truth(name: str, value: str) -> bool:
    if value.lower() not in _TRUTHS:
        raise ConfigError(f"{value[:80]!r} is neither 1 nor 0", field=name, fix="use 1 or 0")
    return _TRUTHS[value.lower()]


def _text(name: str, value: str) -> str:
    """A text to search for. PostgreSQL refuses NUL."""
    if len(value) > _MAX_FILTER:
        raise ConfigError("is too long", field=name, fix=f"at most {_MAX_FILTER} characters")
    if "\0" in value:
        raise ConfigError("has a NUL character", field=name, fix="leave it out")
    return value


def _instant(given: Mapping[str, str], name: str, zone: ZoneInfo) -> int:
    """A time as an instant; 0 if it is not given."""
    text = given.get(name, "")
    if not text:
        return 0
    try:
        return max(1, int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone).timestamp() * 1000))
    except (ValueError, OverflowError):
        fix = "give a time such as 2017-07-10 12:00:00"
        raise ConfigError(f"{text[:80]!r} is not a time", field=name, fix=fix) from None
