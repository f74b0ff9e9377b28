"""Sharding: functions that make firings with their shards, and the payloads of attempts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from typing import NamedTuple

from jobcloud.config import (
    DEFAULT_TEAM,
    Isolation,
    Job,
    JobKind,
    JobType,
    parse_environment,
    parse_files,
    parse_secrets,
    parse_shard_parameters,
)
from jobcloud.cron import find_zone
from jobcloud.model import (
    NO_TERMS,
    Cause,
    Firing,
    JobState,
    Shard,
    ShardState,
    Step,
    Task,
    Terms,
    changed,
    replaced,
    untried,
)
from jobcloud.ranges import parse as parse_range
from jobcloud.ranges import stored as stored_range
from jobcloud.scheduler.retry import ALONE_AFTER
from jobcloud.wire import nodes_of

PAYLOAD_SCHEMA = 1
# The schema of the payload of a job with secrets. An executor that knows only the first schema refuses the task, so it
# does not run the job without its secrets.
SECRETS_SCHEMA = 2
# The schema of the payload of a job with variables of its own, for the same reason.
ENVIRONMENT_SCHEMA = 3
# The schema of the payload of a job with placeholders, which may have variables and secrets too.
PLACEHOLDERS_SCHEMA = 4
# The schema of the payload of a job with files, which may have everything else too.
FILES_SCHEMA = 5
# The schema of the payload of a job with results of nodes, which may have everything else too.
RESULTS_SCHEMA = 6
# The parameters of all shards are left out of a listener's payload if they are larger than this as JSON.
MAX_PARAMETERS_BYTES = 65_536
# The item in the context of a listener's call, which belongs to no shard. It must differ from every shard's item.
_STEP_ITEMS = {Step.BEFORE: -1, Step.AFTER: -2}
_RESIDENT = JobKind.DAEMON
_NO_RESULTS: Mapping[str, str | None] = {}
_PREVIOUS = "{previous_success"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Payload(NamedTuple):
    """The description of one attempt for the executor. `shared` is equal for all attempts of a job.

    `secrets` has the names of the secrets that the attempt needs.
    """

    own: bytes
    shared: bytes = b""
    secrets: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        return self.own + self.shared


def firing_id(job: Job, cause: str, fire_ms: int, unique: str, cluster: str) -> str:
    """The id of a firing: `JOB.WHICH@CLUSTER`, with the key of the job. No other cluster makes the same id.

    WHICH of a firing by cron is derived from the fire time, so all leaders of the cluster make the same id. WHICH of
    an ad-hoc run is `run`, because the key of its job is unique. WHICH of another firing is unique. Builds that knew
    no clusters made ids without `@CLUSTER`. Do not parse an id: the firing has a field for each part.
    """
    if cause is Cause.CRON:
        instant = datetime.fromtimestamp(fire_ms / 1000, UTC)
        return f"{job.key}.{instant:%Y%m%dT%H%M%SZ}@{cluster}"
    return f"{job.key}.run@{cluster}" if job.ad_hoc else f"{job.key}.{cause}-{unique}@{cluster}"


def make_firing(
    job: Job, state: JobState, cause: Cause, fire_ms: int, unique: str, cluster: str, terms: Terms = NO_TERMS
) -> Firing:
    """A new firing, in which all shards of `job` wait, or only those that `terms` choose."""
    if job.item_range:
        terms = changed(terms, range=range_of(job, fire_ms))
    firing = Firing(
        id=firing_id(job, "backfill" if terms.backfill else cause, fire_ms, unique, cluster),
        job=job.key,
        generation=state.generation,
        cause=cause,
        fire_ms=fire_ms,
        shards=untried(job.shard_count + (2 if job.firing_listener else 0)),
        stepped=bool(job.firing_listener),
        terms=terms if terms != NO_TERMS else NO_TERMS,  # records leave this object out
    )
    if not terms.items:
        return firing
    out = left_out(fire_ms)
    rest = {item: out for item in range(len(firing.shards)) if not firing.runs(item)}
    return changed(firing, shards=replaced(firing.shards, rest))


def range_of(job: Job, fire_ms: int) -> str:
    """The range that the shards of a run divide among themselves; "" if the job has none.

    Raises OverflowError or ValueError for days after the year 9999.
    """
    return str(parse_range(job.item_range).at(fire_ms, find_zone(job.zone))) if job.item_range else ""


def _parameter(job: Job, firing: Firing, item: int) -> str:
    """The parameter of a shard. The firing keeps the range that its shards divide, so all attempts have one part."""
    own = ""
    if firing.terms.range:
        own = str(stored_range(firing.terms.range).part(item, len(firing.work)))
    elif job.shard_parameters:
        own = _parameters(job)[item]
    return firing.terms.parameter_of(item, own) if firing.terms.item_parameters else own


def left_out(at: int) -> Shard:
    """A shard that does not run in a firing, because its trigger chose others."""
    return Shard(ShardState.CANCELLED, ended_ms=at, message="the trigger chose other shards")


def payload(
    job: Job,
    firing: Firing,
    task: Task,
    fence: int,
    traceparent: str = "",
    results: Mapping[str, str | None] = _NO_RESULTS,
) -> Payload:
    """The description of one attempt for the executor, as JSON. Format: docs/executor.md, "Task data".

    `results`: node → the text of its result, or None if it is too large. See NodeResults.
    """
    step = firing.step(task.item)
    item = task.item if step is None else _STEP_ITEMS[step]
    parameter = _parameter(job, firing, item) if step is None else ""
    more = "" if step is None else f",{_encode(_describe_step(job, firing, step))[1:-1]}"
    more += f',"ports":{_encode(task.ports)}' if task.ports else ""
    more += f',"traceparent":{_text(traceparent)}' if traceparent else ""
    more += f',"previousSuccess":{firing.terms.previous_ms}' if firing.terms.previous_ms else ""
    more += f',"results":{_encode(results)}' if results else ""
    # This part is formatted by hand for speed. The other part is the same for all attempts of a job, and is cached.
    own = (
        f'{{"schema":{_schema_of(job)},"runId":{_text(firing.id)},"attempt":{task.attempt},"fence":{fence},'
        f'"fireTime":{"null" if job.kind is _RESIDENT else firing.fire_ms},'
        f'"executionType":"{task.execution}"{more},'
        f'"shardingContext":{{"taskId":{_text(task.id)},"shardingItem":{item},"shardingParameter":{_text(parameter)},'
    ).encode()
    alone = _runs_alone(job, firing.shards[task.item])
    names = tuple(dict.fromkeys(use.name for use in parse_secrets(job.secrets))) if job.secrets else ()
    return Payload(own, _of_all_shards(_alone(job) if alone else job, firing.terms.parameter), names)


def _schema_of(job: Job) -> int:
    """The oldest schema with everything that the job has."""
    if job.placeholders and nodes_named(job):
        return RESULTS_SCHEMA
    if job.files:
        return FILES_SCHEMA
    if job.placeholders:
        return PLACEHOLDERS_SCHEMA
    return ENVIRONMENT_SCHEMA if job.environment else SECRETS_SCHEMA if job.secrets else PAYLOAD_SCHEMA


@lru_cache(maxsize=4096)
def nodes_named(job: Job) -> tuple[str, ...]:
    """The nodes whose results the parameters or the command of a job name."""
    texts = {"jobParameter": job.parameter, "shardingItemParameters": job.shard_parameters}
    texts["scriptCommandLine"] = job.script
    return nodes_of(*(texts[field] for field in job.placeholders))


def wants_previous_success(job: Job, terms: Terms) -> bool:
    """Whether a parameter or the command of a run may name the last success before it."""
    if not job.placeholders or job.kind is _RESIDENT or job.ad_hoc:
        return False
    given = (terms.parameter or "", *(text for _, text in terms.item_parameters))
    return any(_PREVIOUS in text for text in (job.parameter, job.shard_parameters, job.script, *given))


def _runs_alone(job: Job, shard: Shard) -> bool:
    """Whether a shard gets a process of its own, because it has lost the shared worker too often."""
    return shard.lost_workers >= ALONE_AFTER and job.shares_worker


@lru_cache(maxsize=256)
def _alone(job: Job) -> Job:
    return replace(job, isolation=Isolation.PROCESS)


def contexts_of(job: Job) -> tuple[str, ...]:
    """The application contexts that the app's shared worker builds for a job: none or one."""
    return (job.context,) if job.context and job.bean and job.shares_worker else ()


def placeholder_payload(task: Task, fence: int) -> Payload:
    """The payload of a placeholder task: the contexts that the executor's worker builds before a job needs them."""
    described = {
        "schema": PAYLOAD_SCHEMA,
        "runId": task.id,
        "attempt": task.attempt,
        "fence": fence,
        "fireTime": None,
        "executionType": task.execution,
        "shardingContext": {
            "jobName": task.job,
            "taskId": task.id,
            "shardingTotalCount": 1,
            "jobParameter": "",
            "shardingItem": 0,
            "shardingParameter": "",
        },
        "job": {"jobType": "KEEPER", "jobExecutionType": "DAEMON", "contexts": task.contexts},
    }
    return Payload(_encode(described).encode())


def _describe_step(job: Job, firing: Firing, step: Step) -> dict[str, object]:
    timeout_ms = job.before_timeout_ms if step is Step.BEFORE else job.after_timeout_ms
    ended = (shard.state for item, shard in enumerate(firing.work) if firing.runs(item))
    outcomes = {} if step is Step.BEFORE else {"outcomes": Counter(ended)}
    parameters = _parameters_of_all(job, firing)
    return {"step": step, "firing": {**parameters, **outcomes}, "timeoutSeconds": timeout_ms / 1000}


def _parameters_of_all(job: Job, firing: Firing) -> dict[str, object]:
    """The parameters of all shards, if they are not too large for a payload."""
    given = {item: _parameter(job, firing, item) for item in range(len(firing.work)) if firing.runs(item)}
    parameters = {item: text for item, text in given.items() if text}
    return (
        {"parameters": parameters} if len(_encode(parameters)) <= MAX_PARAMETERS_BYTES else {"parametersLeftOut": True}
    )


def _parameters(job: Job) -> tuple[str, ...]:
    return parse_shard_parameters(job.shard_parameters, job.shard_count)


@lru_cache(maxsize=4096)
def _of_all_shards(job: Job, parameter: str | None) -> bytes:
    """The part of the payload that is equal for all attempts of a job.

    It contains the rest of the context, and the job's description.

    `parameter` is the parameter of a trigger; None stands for the job's own parameter.
    """
    parameter = job.parameter if parameter is None else parameter
    context = {"jobName": job.name, "shardingTotalCount": job.shard_count, "jobParameter": parameter}
    return f'{_encode(context)[1:]},"job":{_describe(job)}}}'.encode()


def _describe(job: Job) -> str:
    return _encode(
        {
            "jobType": job.type,
            "jobExecutionType": job.kind,
            "jobClass": job.job_class,
            "streamingProcess": job.streaming,
            "scriptCommandLine": job.script,
            "beanName": job.bean,
            "applicationContext": job.context,
            "misfire": job.misfire,
            "isolation": job.isolation,
            "timeoutSeconds": job.timeout_ms / 1000,
            "killGraceSeconds": job.kill_grace_ms / 1000,
            "memoryLimitMB": job.memory_limit_mb,
            "cpuLimitSeconds": job.cpu_limit_s,
            "openFilesLimit": job.open_files_limit,
            "listener": job.listeners,
            "distributedListener": job.firing_listener,
            "errorHandler": job.error_handler,
            "errorWebhook": job.error_webhook,
            **(_describe_http(job) if job.type is JobType.HTTP else {}),
            **({"secrets": [use._asdict() for use in parse_secrets(job.secrets)]} if job.secrets else {}),
            **({"environment": parse_environment(job.environment)} if job.environment else {}),
            **({"files": parse_files(job.files)} if job.files else {}),
            **({"placeholders": {"fields": job.placeholders, "timeZone": job.zone}} if job.placeholders else {}),
            **({"team": job.team} if job.team != DEFAULT_TEAM else {}),
            **({"executorService": job.thread_pool} if job.thread_pool else {}),
            "timer": job.schedule().table() if job.kind is JobKind.DAEMON else None,
        }
    )


def _describe_http(job: Job) -> dict[str, object]:
    return {
        "httpUri": job.http_uri,
        "httpMethod": job.http_method,
        "httpData": job.http_data,
        "httpContentType": job.http_content_type,
        "httpConnectTimeoutMilliseconds": job.http_connect_timeout_ms,
        "httpReadTimeoutMilliseconds": job.http_read_timeout_ms,
    }
