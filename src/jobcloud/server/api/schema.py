"""The JSON of the API as pydantic models.

Configurations are read strictly: no unknown field, no wrong type, no inexact number. Their schemas are generated from
the descriptions in config.py. Amounts are thousandths in Python and plain numbers in JSON; instants are milliseconds
in Python and RFC 3339 in UTC in JSON.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from jobcloud import fields
from jobcloud.config import EVERY_AGENT, MAX_EXECUTORS, App, Job
from jobcloud.fields import REQUIRED, Unit
from jobcloud.server.api.body import json_type

# The defaults of Elastic-Job 2.1.5 and 3.0. A job cannot choose a thread pool here: each shard has its own thread.
THREAD_POOLS = ("default", "CPU", "com.dangdang.ddframe.job.executor.handler.impl.DefaultExecutorServiceHandler")


def to_thousandths(value: Any) -> int:
    """A JSON number as exact thousandths. Raises PydanticCustomError if it is not a number, or not exact."""
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
    """An instant in milliseconds as text; None for 0, which means "not yet"."""
    if not instant:
        return None
    moment = datetime.fromtimestamp(instant // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % 1000:03d}Z"


# `Quantity` is for answers only, `Amount` for requests too.
Quantity = Annotated[
    int,
    PlainSerializer(from_thousandths),
    WithJsonSchema({"type": "number", "minimum": 0, "multipleOf": 0.001}),
]
Amount = Annotated[Quantity, BeforeValidator(to_thousandths)]


def to_executors(value: Any) -> int:
    """A number of executors from JSON, where "each" means EVERY_AGENT."""
    if value == "each":
        return EVERY_AGENT
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("executors_type", 'must be a whole number or "each"')
    if value < 0:
        raise PydanticCustomError("executors_range", "must not be below 0")
    return min(value, MAX_EXECUTORS + 1)  # the model refuses numbers above the limit


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
# Enums arrive as text. Strict mode alone would require the enum itself.
Lax = Field(strict=False)


class Config(BaseModel):
    """JSON that a user writes. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def check_thread_pool(name: str) -> str:
    """Raises PydanticCustomError unless `name` is a default of Elastic-Job."""
    if name not in THREAD_POOLS:
        raise PydanticCustomError("thread_pool", 'is not a known thread pool: leave it out, or use "default"')
    return name


class _ThreadPool(Config):
    executor_service_handler: Annotated[str, AfterValidator(check_thread_pool)] = "default"


#: Nested objects by their JSON name: name of the schema, its description, its base.
_NESTED = {
    "jobProperties": ("JobProperties", "Error handling, under Elastic-Job's names.", _ThreadPool),
    "distributedListener": ("DistributedListener", "Called once before and once after a whole run.", Config),
}


def _generate(record: type, name: str, text: str, base: type[Config] = Config, parent: str = "") -> type[Config]:
    """The schema of a record, or of its nested object `parent`. The attributes are named as in Python."""
    columns: dict[str, Any] = {}
    for field in fields.fields_of(record):
        if field.group == parent:
            columns[field.name] = _column(field)
        elif not parent and field.group not in columns:
            nested = NESTED[field.group] = _generate(record, *_NESTED[field.group], parent=field.group)
            required = any(column.is_required() for column in nested.model_fields.values())
            columns[field.group] = (nested | None, None) if required else (nested, Field(default_factory=nested))
    return create_model(name, __base__=base, __doc__=text, __module__=__name__, **columns)


def _column(field: fields.Field) -> tuple[Any, Any]:
    """The type and the description of a field for pydantic."""
    type_: Any = field.type
    alias = field.spec.name.rpartition(".")[2]
    if type_ is int:
        type_ = {Unit.WHOLE: Count, Unit.MILLI: Amount, Unit.WHOLE_OR_EACH: Executors}[field.spec.unit]
    elif type_ == tuple[str, ...]:
        return list[str], Field(default_factory=list, alias=alias, description=field.spec.text)
    elif isinstance(type_, type) and issubclass(type_, Enum):
        type_ = Annotated[type_, Lax]
    elif field.json_default is None:
        type_ = type_ | None
    default = ... if field.json_default is REQUIRED else field.json_default
    return type_, Field(default, alias=alias, description=field.spec.text)


NESTED: dict[str, type[Config]] = {}
if TYPE_CHECKING:

    class AppConfig(Config): ...

    class JobConfig(Config): ...

else:
    AppConfig = _generate(App, "AppConfig", "An app: a package of code and the needs of its executor on each agent.")
    JobConfig = _generate(Job, "JobConfig", "A job of an app: when it fires, its shards, and the needs of each shard.")


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
