"""Apps and jobs in the JSON of Elastic-Job-Cloud, with its fields and in its order.

Elastic-Job-Cloud 2.1.5 leaves out a field whose value is None; 3.0.x writes it as null.
"""

from __future__ import annotations

from typing import Any

from jobcloud.config import App, Job, JobType
from jobcloud.elastic_job.conversion import (
    DEFAULT_HANDLERS,
    HTTP_PROPS,
    SCRIPT_MARKER,
    SCRIPT_PROP,
    STREAMING_PROP,
    Json,
)

# Names of error handlers here, and their names in 3.0.x.
_HANDLERS_OF_3 = {"log": None, "fail": "THROW", "ignore": "IGNORE"}
_OWN_DEFAULT_HANDLER = "log"


def app_form(app: App) -> Json:
    """An app. 2.1.5 and 3.0.x have the same fields."""
    return {
        "appName": app.name,
        "appURL": app.package.url,
        "bootstrapScript": app.bootstrap_script,
        "cpuCount": app.resources.cpus / 1000,
        "memoryMB": app.resources.mem / 1000,
        "appCacheEnable": app.cache,
        "eventTraceSamplingCount": app.sampling,
    }


def job_form(job: Job) -> Json:
    """A job in the form of 2.1.5."""
    handlers = dict(DEFAULT_HANDLERS)
    if job.error_handler != _OWN_DEFAULT_HANDLER:
        handlers["job_exception_handler"] = job.error_handler
    if job.thread_pool:
        handlers["executor_service_handler"] = job.thread_pool
    return {
        "jobName": job.name,
        "jobClass": SCRIPT_MARKER if job.type is JobType.SCRIPT else job.job_class,
        "jobType": job.type.value,
        "cron": job.cron,
        "shardingTotalCount": job.shard_count,
        "shardingItemParameters": job.shard_parameters,
        "jobParameter": job.parameter,
        "failover": job.failover,
        "misfire": job.misfire,
        "description": job.description,
        "jobProperties": handlers,
        "streamingProcess": job.streaming if job.type is JobType.DATAFLOW else None,
        "scriptCommandLine": job.script if job.type is JobType.SCRIPT else None,
        "appName": job.app,
        "cpuCount": job.resources.cpus / 1000,
        "memoryMB": job.resources.mem / 1000,
        "jobExecutionType": job.kind.value,
        "beanName": job.bean or None,
        "applicationContext": job.context or None,
    }


def job_form_of_3(job: Job) -> Json:
    """A job in the form of 3.0.x. Fields that Elastic-Job-Cloud does not use have their defaults."""
    return {
        "appName": job.app,
        "cpuCount": job.resources.cpus / 1000,
        "memoryMB": job.resources.mem / 1000,
        "jobExecutionType": job.kind.value,
        "jobName": job.name,
        "cron": job.cron,
        "shardingTotalCount": job.shard_count,
        "shardingItemParameters": job.shard_parameters or None,
        "jobParameter": job.parameter or None,
        "monitorExecution": False,
        "failover": job.failover,
        "misfire": job.misfire,
        "maxTimeDiffSeconds": 0,
        "reconcileIntervalMinutes": 0,
        "jobShardingStrategyType": None,
        "jobExecutorServiceHandlerType": job.thread_pool or None,
        "jobErrorHandlerType": _HANDLERS_OF_3.get(job.error_handler, job.error_handler),
        "description": job.description or None,
        "props": _props(job),
        "disabled": False,
        "overwrite": False,
    }


def _props(job: Job) -> dict[str, Any]:
    if job.type is JobType.SCRIPT:
        return {SCRIPT_PROP: job.script}
    if job.type is JobType.DATAFLOW:
        return {STREAMING_PROP: "true" if job.streaming else "false"}
    if job.type is not JobType.HTTP:
        return {}
    values = (
        job.http_uri,
        job.http_method.value,
        job.http_data,
        job.http_content_type,
        str(job.http_connect_timeout_ms),
        str(job.http_read_timeout_ms),
    )
    return dict(zip(HTTP_PROPS, values, strict=True))
