"""Between the JSON of an app or job and the core's values; all that is wrong with one is found in one pass."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from jobcloud.cron import CronError, Schedule
from jobcloud.errors import ConfigError
from jobcloud.executor.plugins import handler_name
from jobcloud.model import RESOURCE_FIELDS, App, Job, JobType, Package, Resources
from jobcloud.server.api.body import json_type, parse
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import THREAD_POOLS, AppConfig, Config, DistributedListener, JobConfig, JobProperties
from jobcloud.server.urls import ALLOW_PACKAGES, UrlPolicy

PACKAGE_SCHEME = "package:sha256:"
_SHA256 = re.compile(r"[0-9a-f]{64}")

# pydantic's names of types, as JSON's users say them.
_TYPES = {
    "int_type": "whole number",
    "bool_type": "boolean",
    "model_type": "object",
    "dict_type": "object",
    "list_type": "array",
    "enum_type": "string",
}

_NESTED: dict[str, type[Config]] = {"jobProperties": JobProperties, "distributedListener": DistributedListener}

V = TypeVar("V")
C = TypeVar("C", bound=Config)

# What a wrong field is replaced by while the rest is checked. None of it is ever stored.
_HARMLESS: dict[str, Any] = {
    "appName": "a",
    "jobName": "j",
    "appURL": PACKAGE_SCHEME + "0" * 64,
    "jobType": "SIMPLE",
    "jobExecutionType": "TRANSIENT",
    "jobClass": "m:C",
    "cron": "0 0 0 * * ?",
    "cronDialect": "quartz",
    "shardingTotalCount": 10_000,
    "scriptCommandLine": "true",
    "applicationContext": "m:c",
    "cpuCount": 1,
    "memoryMB": 1,
}


def read_app(body: Mapping[str, Any], policy: UrlPolicy) -> App:
    """Raises Problem that lists everything wrong with it."""
    return _read(body, AppConfig, lambda config: _app(config, policy))


def read_job(body: Mapping[str, Any], policy: UrlPolicy) -> Job:
    """Raises Problem that lists everything wrong with it."""
    return _read(body, JobConfig, lambda config: _job(config, policy))


def check(kind: str, body: bytes) -> None:
    """Whether an "app" or "job" would be taken, as far as that can be said without the server's settings.

    Raises ConfigError.
    """
    try:
        (read_app if kind == "app" else read_job)(parse(body), UrlPolicy(hosts=("*",)))
    except Problem as problem:
        faults = [ConfigError(one.problem, field=one.field, fix=one.fix) for one in problem.issues]
        first = faults[0] if faults else ConfigError(problem.detail, field="")
        first.others = tuple(faults[1:])
        raise first from problem


def app_config(app: App) -> AppConfig:
    """The JSON of an app; registering it again changes nothing."""
    return AppConfig.model_construct(
        app_name=app.name,
        app_url=app.package.url,
        package_sha256=app.package.sha256,
        bootstrap_script=app.bootstrap_script,
        app_cache_enable=app.cache,
        event_trace_sampling_count=app.sampling,
        idle_timeout_seconds=app.idle_timeout_ms,
        description=app.description,
        max_parallel=app.max_parallel,
        executors=app.executors,
        **_amounts(app.resources),
    )


def job_config(job: Job) -> JobConfig:
    """The JSON of a job; registering it again changes nothing."""
    return JobConfig.model_construct(
        job_name=job.name,
        app_name=job.app,
        job_class=job.job_class,
        job_type=job.type,
        job_execution_type=job.kind,
        cron=job.cron,
        sharding_total_count=job.shard_count,
        sharding_item_parameters=job.shard_parameters,
        job_parameter=job.parameter,
        failover=job.failover,
        partition_policy=job.partition,
        replace_after_seconds=job.replace_after_ms,
        update_strategy=job.update_strategy,
        max_unavailable=job.max_unavailable,
        independent_shards=job.independent_shards,
        failover_attempts=job.failover_attempts,
        failover_delay_seconds=job.failover_delay_ms,
        failover_max_delay_seconds=job.failover_most_ms,
        retry_count=job.retry_count,
        retry_delay_seconds=job.retry_delay_ms,
        retry_max_delay_seconds=job.retry_most_ms,
        retry_jitter=job.retry_jitter,
        misfire=job.misfire,
        streaming_process=job.streaming,
        script_command_line=job.script,
        bean_name=job.bean or None,
        application_context=job.context or None,
        job_properties=_job_properties(job),
        listener=list(job.listeners),
        distributed_listener=_distributed_listener(job),
        description=job.description,
        time_zone=job.zone,
        cron_dialect=job.dialect,
        dst_gap=job.gap,
        dst_fold=job.fold,
        catch_up=job.catch_up,
        catch_up_limit=job.catch_up_limit,
        misfire_limit=job.misfire_limit,
        concurrency=job.concurrency,
        concurrency_limit=job.concurrency_limit,
        priority=job.priority,
        isolation=job.isolation,
        timeout_seconds=job.timeout_ms,
        kill_grace_seconds=job.kill_grace_ms,
        memory_limit_mb=job.memory_limit_mb,
        cpu_limit_seconds=job.cpu_limit_s,
        open_files_limit=job.open_files_limit,
        http_uri=job.http_uri,
        http_method=job.http_method,
        http_data=job.http_data,
        http_content_type=job.http_content_type,
        http_connect_timeout_ms=job.http_connect_timeout_ms,
        http_read_timeout_ms=job.http_read_timeout_ms,
        **_amounts(job.resources),
    )


def _job_properties(job: Job) -> JobProperties:
    handler = "default" if job.error_handler == "log" else job.error_handler
    return JobProperties(job_exception_handler=handler, job_exception_webhook=job.error_webhook)


def _distributed_listener(job: Job) -> DistributedListener | None:
    if not job.firing_listener:
        return None
    return DistributedListener.model_construct(
        class_name=job.firing_listener,
        started_timeout_ms=job.before_timeout_ms,
        completed_timeout_ms=job.after_timeout_ms,
    )


def _amounts(resources: Resources) -> dict[str, Any]:
    names = ("cpu_count", "memory_mb", "disk_mb", "gpu_count", "port_count")
    return dict(zip(names, resources, strict=True))


def _resources(config: AppConfig | JobConfig) -> Resources:
    return Resources(config.cpu_count, config.memory_mb, config.disk_mb, config.gpu_count, config.port_count)


def _read(body: Mapping[str, Any], model: type[C], build: Callable[[C], V]) -> V:
    """Check shape, then meaning; a field found wrong is replaced by something harmless and the check goes on."""
    issues: dict[str, Issue] = {}
    value = dict(body)
    for _ in range(len(model.model_fields) + 2):
        try:
            built = build(model.model_validate(value))
        except ValidationError as error:
            found = list(_issues(error, model))
        except ConfigError as error:
            found = [Issue(fault.field, fault.problem, fault.fix) for fault in (error, *error.others)]
        else:
            if issues:
                break
            return built
        fresh = [issue for issue in found if _top(issue.field) not in map(_top, issues)]
        if not fresh:
            break
        issues.update((issue.field, issue) for issue in fresh)
        _make_harmless(value, model, {_top(issue.field) for issue in fresh})
    raise invalid(issues.values())


def _top(name: str) -> str:
    return name.partition(".")[0]


def _make_harmless(value: dict[str, Any], model: type[Config], names: Iterable[str]) -> None:
    known = {info.alias or name for name, info in model.model_fields.items()}
    for name in names:
        value.pop(name, None)
        if name in known and name in _HARMLESS:
            value[name] = _HARMLESS[name]
        if name == "httpUri":
            # No URI is harmless under every policy; another type needs none.
            value.update(jobType="SCRIPT", scriptCommandLine=_HARMLESS["scriptCommandLine"])


def _issues(error: ValidationError, model: type[BaseModel]) -> Iterable[Issue]:
    for fault in error.errors(include_url=False, include_context=True):
        path = [str(part) for part in fault["loc"]]
        name = ".".join(path)[:200]
        kind = fault["type"]
        if kind == "extra_forbidden":
            yield _unknown(name, path, _NESTED.get(path[0], model) if len(path) > 1 else model)
        elif kind == "missing":
            yield Issue(name, "is missing", _description(model, name))
        elif kind == "enum":
            yield Issue(name, f"{str(fault['input'])[:80]!r} is not known", f"use {fault['ctx']['expected']}")
        elif kind.endswith("_type") and kind not in ("amount_type", "executors_type"):
            wanted = _TYPES.get(kind, kind.removesuffix("_type"))
            article = "an" if wanted[0] in "aeiou" else "a"
            yield Issue(name, f"must be {article} {wanted}, not {json_type(fault['input'])}", _description(model, name))
        else:
            yield Issue(name, fault["msg"])


def _unknown(name: str, path: list[str], model: type[BaseModel]) -> Issue:
    known = [info.alias or key for key, info in model.model_fields.items()]
    lowered = {key.lower(): key for key in known}
    near = difflib.get_close_matches(path[-1].lower(), lowered, n=1, cutoff=0.6)
    fix = f"did you mean {lowered[near[0]]!r}?" if near else f"there are: {', '.join(known)}"
    return Issue(name, "is no field here", fix)


def _description(model: type[BaseModel], name: str) -> str:
    for key, info in model.model_fields.items():
        if (info.alias or key) == name:
            return info.description or ""
    return ""


def _app(config: AppConfig, policy: UrlPolicy) -> App:
    return App(
        name=config.app_name,
        package=_package(config, policy),
        bootstrap_script=config.bootstrap_script,
        resources=_resources(config),
        cache=config.app_cache_enable,
        sampling=config.event_trace_sampling_count,
        idle_timeout_ms=config.idle_timeout_seconds,
        description=config.description,
        max_parallel=config.max_parallel,
        executors=config.executors,
    )


def _package(config: AppConfig, policy: UrlPolicy) -> Package:
    url, given = config.app_url, config.package_sha256
    if url.startswith(PACKAGE_SCHEME):
        sha256 = url.removeprefix(PACKAGE_SCHEME)
        if not _SHA256.fullmatch(sha256):
            raise ConfigError("names no SHA-256", field="appURL", fix="64 lower-case hex digits follow package:sha256:")
        if given not in ("", sha256):
            raise ConfigError("differs from the hash in appURL", field="packageSha256", fix="leave it out")
        return Package(url, sha256)
    policy.check(url, "appURL", f"{PACKAGE_SCHEME}<hex>, or an http(s) URL", ALLOW_PACKAGES)
    if not given:
        fix = "give the SHA-256 of the package, so that what is fetched can be verified"
        raise ConfigError("is missing", field="packageSha256", fix=fix)
    return Package(url, given)


def _job(config: JobConfig, policy: UrlPolicy) -> Job:
    properties = config.job_properties
    _check_properties(properties, policy)
    distributed = config.distributed_listener
    if config.job_type is JobType.HTTP:
        fix = "list the host in the server's http_jobs.hosts setting"
        policy.check(config.http_uri, "httpUri", "https://host/path", fix)
    _check_zone(config.time_zone)
    return Job(
        name=config.job_name,
        app=config.app_name,
        kind=config.job_execution_type,
        type=config.job_type,
        cron=config.cron,
        shard_count=config.sharding_total_count,
        resources=_resources(config),
        job_class=config.job_class,
        zone=config.time_zone,
        dialect=config.cron_dialect,
        gap=config.dst_gap,
        fold=config.dst_fold,
        shard_parameters=config.sharding_item_parameters,
        parameter=config.job_parameter,
        failover=config.failover,
        partition=config.partition_policy,
        replace_after_ms=config.replace_after_seconds,
        update_strategy=config.update_strategy,
        max_unavailable=config.max_unavailable,
        independent_shards=config.independent_shards,
        failover_attempts=config.failover_attempts,
        failover_delay_ms=config.failover_delay_seconds,
        failover_most_ms=config.failover_max_delay_seconds,
        retry_count=config.retry_count,
        retry_delay_ms=config.retry_delay_seconds,
        retry_most_ms=config.retry_max_delay_seconds,
        retry_jitter=config.retry_jitter,
        misfire=config.misfire,
        catch_up=config.catch_up,
        catch_up_limit=config.catch_up_limit,
        misfire_limit=config.misfire_limit,
        concurrency=config.concurrency,
        concurrency_limit=config.concurrency_limit,
        streaming=config.streaming_process,
        script=config.script_command_line,
        bean=config.bean_name or "",
        context=config.application_context or "",
        priority=config.priority,
        description=config.description,
        isolation=config.isolation,
        timeout_ms=config.timeout_seconds,
        kill_grace_ms=config.kill_grace_seconds,
        memory_limit_mb=config.memory_limit_mb,
        cpu_limit_s=config.cpu_limit_seconds,
        open_files_limit=config.open_files_limit,
        http_uri=config.http_uri,
        http_method=config.http_method,
        http_data=config.http_data,
        http_content_type=config.http_content_type,
        http_connect_timeout_ms=config.http_connect_timeout_ms,
        http_read_timeout_ms=config.http_read_timeout_ms,
        listeners=tuple(config.listener),
        firing_listener=distributed.class_name if distributed else "",
        before_timeout_ms=distributed.started_timeout_ms if distributed else 0,
        after_timeout_ms=distributed.completed_timeout_ms if distributed else 0,
        error_handler=handler_name(properties.job_exception_handler),
        error_webhook=properties.job_exception_webhook,
    )


def _check_properties(properties: JobProperties, policy: UrlPolicy) -> None:
    if properties.executor_service_handler not in THREAD_POOLS:
        problem = f"there is no handler {properties.executor_service_handler[:100]!r}"
        field = "jobProperties.executor_service_handler"
        raise ConfigError(problem, field=field, fix='leave it out, or use "default"')
    if properties.job_exception_webhook:
        fix = "list the host in the server's http_jobs.hosts setting"
        field = "jobProperties.job_exception_webhook"
        policy.check(properties.job_exception_webhook, field, "https://host/path", fix)


def _check_zone(zone: str) -> None:
    try:
        Schedule.parse("0 0 0 * * ?", zone=zone)
    except CronError as error:
        raise ConfigError(str(error), field="timeZone") from error


assert set(RESOURCE_FIELDS) <= {info.alias for info in JobConfig.model_fields.values()}
