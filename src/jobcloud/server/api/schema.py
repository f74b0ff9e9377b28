"""The JSON of the API as pydantic models: Elastic-Job-Cloud's field names for apps and jobs, and ours beside them.

Configurations come in strictly: no unknown field, no wrong type, no number that is not exact. Amounts are thousandths
inside and plain numbers outside; instants are milliseconds inside and RFC 3339 in UTC outside.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from jobcloud.cron import Dialect, Fold, Gap
from jobcloud.model import (
    EVERY_AGENT,
    MAX_EXECUTORS,
    CatchUp,
    Concurrency,
    HttpMethod,
    Isolation,
    JobKind,
    JobType,
    PartitionPolicy,
    UpdateStrategy,
)
from jobcloud.server.api.body import json_type

# What Elastic-Job writes when nothing was chosen, in 2.1.5 and 3.0. Shards run in threads of their own here.
THREAD_POOLS = ("default", "CPU", "com.dangdang.ddframe.job.executor.handler.impl.DefaultExecutorServiceHandler")


def to_thousandths(value: Any) -> int:
    """A JSON number as exact thousandths."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise PydanticCustomError("amount_type", "must be a number, not {given}", {"given": json_type(value)})
    scaled = Decimal(value) * 1000
    if scaled != scaled.to_integral_value():
        raise PydanticCustomError("amount_digits", "has more than three decimals")
    return int(scaled)


def from_thousandths(amount: int) -> int | float:
    whole, rest = divmod(amount, 1000)
    return amount / 1000 if rest else whole


def rfc3339(instant: int) -> str | None:
    """An instant in milliseconds as text; None for 0, which stands for "not yet"."""
    if not instant:
        return None
    moment = datetime.fromtimestamp(instant // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % 1000:03d}Z"


# A quantity going out; one coming in besides.
Quantity = Annotated[
    int,
    PlainSerializer(from_thousandths),
    WithJsonSchema({"type": "number", "minimum": 0, "multipleOf": 0.001}),
]
Amount = Annotated[Quantity, BeforeValidator(to_thousandths)]


def to_executors(value: Any) -> int:
    """How many executors are kept, or "each"."""
    if value == "each":
        return EVERY_AGENT
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("executors_type", 'must be a whole number or "each"')
    if value < 0:
        raise PydanticCustomError("executors_range", "must not be below 0")
    return min(value, MAX_EXECUTORS + 1)  # which the model refuses


def from_executors(number: int) -> int | str:
    return "each" if number == EVERY_AGENT else number


Executors = Annotated[
    int,
    BeforeValidator(to_executors),
    PlainSerializer(from_executors),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_EXECUTORS}, {"const": "each"}]}),
]
Count = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Instant = Annotated[
    int,
    PlainSerializer(rfc3339),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
# Enums come as text; strict mode alone would ask for the enum itself.
Lax = Field(strict=False)


class Config(BaseModel):
    """What a user writes. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class AppConfig(Config):
    """An app: a package of code and what its executor needs on each agent."""

    app_name: str = Field(alias="appName", description="1 to 100 letters, digits, '_', '-' or '.'")
    app_url: str = Field(
        alias="appURL",
        description='"package:sha256:<hex>" of an uploaded package, or an http(s) URL to take it from once',
    )
    package_sha256: str = Field("", alias="packageSha256", description="needed with an http(s) URL; lower-case hex")
    bootstrap_script: str = Field("", alias="bootstrapScript", description="command of a worker in the package")
    cpu_count: Amount = Field(1000, alias="cpuCount", description="cpus of the executor itself")
    memory_mb: Amount = Field(128_000, alias="memoryMB")
    disk_mb: Amount = Field(0, alias="diskMB")
    gpu_count: Amount = Field(0, alias="gpuCount")
    port_count: Amount = Field(0, alias="portCount")
    app_cache_enable: bool = Field(True, alias="appCacheEnable", description="agents keep the package")
    event_trace_sampling_count: Count = Field(0, alias="eventTraceSamplingCount")
    idle_timeout_seconds: Amount = Field(
        60_000, alias="idleTimeoutSeconds", description="an executor without work leaves after this"
    )
    max_parallel: Count = Field(0, alias="maxParallel", description="shards at once in one worker; 0: any number")
    executors: Executors = Field(
        0, description='kept warm though no job needs them: so many, or "each": one on each agent'
    )
    description: str = ""


class JobProperties(Config):
    """What becomes of a job's failures, by Elastic-Job's names; of its thread pools only the default exists here."""

    job_exception_handler: str = Field(
        default="default",
        description='log (the default), fail, ignore, webhook, an entry point\'s name or "module:Class"',
    )
    job_exception_webhook: str = Field(
        default="", description="what the handler webhook posts to, of a host the server allows"
    )
    executor_service_handler: str = "default"


class DistributedListener(Config):
    """Called once before and once after a whole firing."""

    class_name: str = Field(alias="class", description='an entry point\'s name or "module:Class"')
    started_timeout_ms: Count = Field(0, alias="startedTimeoutMilliseconds", description="of the call before; 0: none")
    completed_timeout_ms: Count = Field(
        0, alias="completedTimeoutMilliseconds", description="of the call after; 0: none"
    )


class JobConfig(Config):
    """A job of an app: when it fires, into how many shards, and what each shard needs."""

    job_name: str = Field(alias="jobName", description="1 to 100 letters, digits, '_', '-' or '.'")
    app_name: str = Field(alias="appName")
    job_class: str = Field("", alias="jobClass", description='"package.module:Class"; not for SCRIPT')
    job_type: Annotated[JobType, Lax] = Field(alias="jobType")
    job_execution_type: Annotated[JobKind, Lax] = Field(alias="jobExecutionType")
    cron: str
    sharding_total_count: Count = Field(alias="shardingTotalCount")
    sharding_item_parameters: str = Field("", alias="shardingItemParameters", description='such as "0=Berlin,1=Paris"')
    job_parameter: str = Field("", alias="jobParameter")
    cpu_count: Amount = Field(alias="cpuCount", description="cpus of one shard")
    memory_mb: Amount = Field(alias="memoryMB")
    disk_mb: Amount = Field(0, alias="diskMB")
    gpu_count: Amount = Field(0, alias="gpuCount")
    port_count: Amount = Field(0, alias="portCount")
    failover: bool = False
    failover_attempts: Count = Field(10, alias="failoverAttempts", description="lost in a row before it is DEAD")
    failover_delay_seconds: Amount = Field(1_000, alias="failoverDelaySeconds", description="doubled each time")
    failover_max_delay_seconds: Amount = Field(60_000, alias="failoverMaxDelaySeconds")
    retry_count: Count = Field(0, alias="retryCount", description="repeats of a shard whose own run failed")
    retry_delay_seconds: Amount = Field(10_000, alias="retryDelaySeconds", description="doubled each time")
    retry_max_delay_seconds: Amount = Field(3_600_000, alias="retryMaxDelaySeconds")
    retry_jitter: Amount = Field(100, alias="retryJitter", description="0 to 1: up to so much of a delay is added")
    misfire: bool = False
    streaming_process: bool = Field(False, alias="streamingProcess")
    script_command_line: str = Field("", alias="scriptCommandLine")
    bean_name: str | None = Field(None, alias="beanName")
    application_context: str | None = Field(None, alias="applicationContext")
    job_properties: JobProperties = Field(default_factory=JobProperties, alias="jobProperties")
    listener: list[str] = Field(
        default_factory=list, description='called around each shard: entry points\' names or "module:Class"'
    )
    distributed_listener: DistributedListener | None = Field(None, alias="distributedListener")
    description: str = ""
    time_zone: str = Field("UTC", alias="timeZone", description="a name of the tz database")
    cron_dialect: Annotated[Dialect, Lax] = Field(Dialect.QUARTZ, alias="cronDialect")
    dst_gap: Annotated[Gap, Lax] = Field(Gap.RUN_AFTER, alias="dstGap")
    dst_fold: Annotated[Fold, Lax] = Field(Fold.AUTO, alias="dstFold")
    catch_up: Annotated[CatchUp, Lax] = Field(CatchUp.SKIP, alias="catchUp")
    partition_policy: Annotated[PartitionPolicy, Lax] = Field(
        PartitionPolicy.WAIT, alias="partitionPolicy", description="for shards whose agent is out of reach"
    )
    replace_after_seconds: Amount = Field(0, alias="replaceAfterSeconds", description="with partitionPolicy replace")
    update_strategy: Annotated[UpdateStrategy, Lax] = Field(
        UpdateStrategy.ROLLING, alias="updateStrategy", description="of a DAEMON job: how its shards are replaced"
    )
    max_unavailable: Count = Field(1, alias="maxUnavailable", description="with rolling: shards down at once")
    independent_shards: bool = Field(
        False, alias="independentShards", description="what a shard does does not depend on shardingTotalCount"
    )
    catch_up_limit: Count = Field(10, alias="catchUpLimit", description="with catchUp all: the last so-many missed")
    misfire_limit: Count = Field(100, alias="misfireLimit", description="with misfire: firings that may wait at once")
    concurrency: Annotated[Concurrency, Lax] = Field(
        Concurrency.FORBID, description="of a firing that is due while an earlier one has not ended"
    )
    concurrency_limit: Count = Field(10, alias="concurrencyLimit", description="with allow: firings at once")
    priority: Count = Field(0, description="-1000 to 1000, higher first")
    isolation: Annotated[Isolation, Lax] = Field(Isolation.SHARED, description="process: each shard has its own")
    timeout_seconds: Amount = Field(0, alias="timeoutSeconds", description="of one run; 0: none")
    kill_grace_seconds: Amount = Field(
        5_000, alias="killGraceSeconds", description="from asking a run to end until it is ended"
    )
    memory_limit_mb: Count = Field(0, alias="memoryLimitMB", description="address space of each process; 0: none")
    cpu_limit_seconds: Count = Field(0, alias="cpuLimitSeconds", description="CPU time of each process; 0: none")
    open_files_limit: Count = Field(0, alias="openFilesLimit", description="of each process; 0: none")
    http_uri: str = Field("", alias="httpUri", description="what an HTTP job calls, of a host the server allows")
    http_method: Annotated[HttpMethod, Lax] = Field(HttpMethod.GET, alias="httpMethod")
    http_data: str = Field("", alias="httpData", description="body of the request")
    http_content_type: str = Field("application/json", alias="httpContentType")
    http_connect_timeout_ms: Count = Field(3000, alias="httpConnectTimeoutMilliseconds")
    http_read_timeout_ms: Count = Field(5000, alias="httpReadTimeoutMilliseconds")


def json_name(name: str) -> str:
    """A field's name in JSON: camel case, with Elastic-Job-Cloud's capitals."""
    capitals = {"app_url": "appURL", "memory_mb": "memoryMB", "disk_mb": "diskMB"}
    return capitals.get(name) or to_camel(name)


class View(BaseModel):
    """What the server answers."""

    model_config = ConfigDict(alias_generator=json_name, populate_by_name=True)


class Amounts(View):
    cpu_count: Quantity
    memory_mb: Quantity
    disk_mb: Quantity
    gpu_count: Quantity
    port_count: Quantity


class Health(View):
    status: Literal["ok", "failing"]
    leading: bool
    connected: bool = Field(description="subscribed to a Mesos master")
    version: str


class PackageView(View):
    sha256: str
    size: int = Field(description="bytes")
    files: int
    app_url: str = Field(description="what to write into an app's appURL")


class StoredPackageView(View):
    sha256: str
    size: int = Field(description="bytes")
    app_url: str
    apps: list[str] = Field(description="the apps made from it")


class PackageList(View):
    items: list[StoredPackageView]


class TeardownView(View):
    framework_id: str


class AppView(View):
    app_name: str
    enabled: bool
    jobs: list[str]
    warm_executors: int = Field(description="of the executors to be kept, how many are up")
    executors_lacking: str = Field(description="why fewer are up than are to be kept; empty where none lacks")
    config: AppConfig


class JobRollout(View):
    job_name: str
    shards: int
    running: int = Field(description="shards that run as configured now")
    outdated: int = Field(description="shards that run as it was before")
    stopped: str = Field(description="why it goes no further; empty while it does")
    waiting: str = Field(description="what it waits for")


class RolloutView(View):
    """How far an app's residents, and the executors that it keeps, have come to its present version."""

    app_name: str
    state: Literal["done", "rolling", "stopped"]
    jobs: list[JobRollout] = Field(description="the DAEMON jobs that are enabled")
    warm_executors: int
    executors_lacking: str


class JobView(View):
    job_name: str
    app_name: str
    enabled: bool = Field(description="neither the job nor its app is disabled")
    disabled: bool = Field(description="the job itself is disabled")
    next_firing: Instant
    waiting_shards: int
    active_shards: int
    outdated_shards: int = Field(description="of a DAEMON job: active, and not as configured now; see explain")
    last_run: RunSummary | None
    skipped_firings: int
    skipped_reason: str
    dead_runs: int = Field(description="runs with shards whose attempts are used up: GET /runs?state=DEAD")
    config: JobConfig


RunState = Literal["WAITING", "ACTIVE", "FINISHED", "FAILED", "KILLED", "CANCELLED", "DEAD"]


class RunSummary(View):
    id: str
    job_name: str
    cause: str
    fired_at: Instant
    ended_at: Instant
    state: RunState


class ShardView(View):
    item: int
    step: str = Field(description='"before" or "after": a call of the firing\'s listener; empty for a shard')
    state: str
    attempt: int
    execution: str
    failures: int = Field(description="attempts in a row that the infrastructure lost")
    retries: int = Field(description="repeats because the job itself had failed")
    task_id: str
    agent_id: str
    hostname: str
    not_before: Instant
    started_at: Instant
    ended_at: Instant
    message: str
    cause: str = Field(description="why it did not end well, such as exception or worker_lost; empty where unknown")
    result: Any = Field(description="what the job returned, or null")


class RunView(RunSummary):
    shards: list[ShardView]


class TaskView(View):
    id: str
    job_name: str
    app_name: str
    run_id: str
    item: int
    step: str = Field(description='"before" or "after": a call of the firing\'s listener; empty for a shard')
    attempt: int
    execution: str
    state: str
    active: bool
    agent_id: str
    hostname: str
    executor_id: str
    fired_at: Instant
    created_at: Instant
    started_at: Instant
    ended_at: Instant
    kill_asked_at: Instant
    message: str
    cause: str = Field(description="as of the shard, once it has ended")
    result: Any = Field(description="what the job returned, or null")


class StoryLine(View):
    at: Instant
    topic: str
    text: str


class TaskDetail(TaskView):
    resources: Amounts | None
    story: list[StoryLine]


class LogView(View):
    """`nextOffset` is where to go on; `text` is UTF-8 with a replacement character for what is not."""

    task_id: str
    stream: Literal["stdout", "stderr"]
    offset: int
    next_offset: int
    size: int
    text: str


class ReasonView(View):
    code: str
    text: str
    resource: str
    asked: Quantity
    available: Quantity
    hosts: int
    waiting_helps: bool


class ExplanationView(View):
    job_name: str
    headline: str
    waiting: int
    active: int
    behind: int = Field(description="firings that wait for the one explained")
    next_firing: Instant
    reasons: list[ReasonView]


class AgentOut(View):
    agent_id: str
    hostname: str
    address: str
    attributes: dict[str, str]
    offered: Amounts
    claimed: Amounts
    whole: Amounts = Field(description="offered and claimed together when it was last offered")
    offers: int
    executors: list[str]
    lost: bool
    tasks: int
    closed: bool = Field(description="gets nothing new, for one of the following")
    drain: DrainOut | None = Field(description="an operator wants it empty")
    maintenance: MaintenanceOut | None = Field(description="the window that Mesos announces")


class DrainOut(View):
    since: Instant
    deadline: Instant
    reason: str


class MaintenanceOut(View):
    start: Instant
    end: Instant


class ClusterView(View):
    framework_id: str
    connected: bool = Field(description="subscribed to a Mesos master")
    matcher: Literal["compiled", "plain"]
    version: str
    agents: list[AgentOut]
    apps: int
    jobs: int
    active_tasks: int
    waiting_shards: int


class ExecutorView(View):
    id: str
    agent_id: str
    app_name: str
    tasks: int
    kept: bool = Field(description="one of the app's executors that stay though no job needs them")
    launched_at: Instant


class FiringTimes(View):
    cron: str
    time_zone: str
    times: list[Instant]


class AppList(View):
    items: list[AppView]


class JobList(View):
    items: list[JobView]


class TaskList(View):
    items: list[TaskView]
    next_cursor: str = Field("", description='pass as "cursor" for more; "" at the end')


class RunList(View):
    items: list[RunView]
    next_cursor: str = Field("", description='pass as "cursor" for more; "" at the end')


class ExecutorList(View):
    items: list[ExecutorView]


class FieldIssue(View):
    field: str
    problem: str
    fix: str


class ProblemView(View):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldIssue]


JobView.model_rebuild()
