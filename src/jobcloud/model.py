"""The values that everything else speaks of: resources, apps, jobs, firings, tasks, offers.

Amounts are integers in thousandths (1.5 cpus = 1500, 128 MB = 128000, 2 ports = 2000), the granularity to which
Mesos itself rounds. Instants are integers: milliseconds since the Unix epoch. Values are frozen; the scheduler
replaces them. What comes and goes with each task is a msgspec.Struct, made and copied at a tenth of the cost of a
frozen dataclass; what people configure is a dataclass, which checks itself.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

from jobcloud.cron import CronError, Dialect, Fold, Gap, Schedule
from jobcloud.errors import ConfigError

# Separates the parts of a task id, as in Elastic-Job-Cloud.
DELIMITER = "@-@"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")
_URI = re.compile(r"https?://[!-~]{1,2040}")
_CONTENT_TYPE = re.compile(r"[!-:<-~]{1,100}/[!-:<-~]{1,100}(; ?[!-~]{1,100})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The name of an entry point, or a class as above with a colon.
_PLUGIN = re.compile(r"[A-Za-z0-9_.-]{1,100}|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
MAX_PLUGIN_NAME = 300
MAX_LISTENERS = 20
# What becomes of a failure without code of the app's.
OWN_ERROR_HANDLERS = ("log", "fail", "ignore", "webhook")
MAX_SHARDS = 10_000
MAX_TEXT = 65_536
MAX_IDLE_TIMEOUT_MS = 86_400_000
MAX_HTTP_DATA = 16_384
MAX_RUN_MS = 30 * 86_400_000
MAX_KILL_GRACE_MS = 3_600_000
MAX_REPEATS = 1_000
MAX_WAITING = 100
MAX_DELAY_MS = 7 * 86_400_000
# Absurdity limits of one shard or executor, in thousandths: 4,096 cpus, 64 TiB of memory in MB, 1 PiB of disk in MB.
_MAX_AMOUNTS = (4_096_000, 67_108_864_000, 1_073_741_824_000, 256_000, 1_000_000)

# What numbers are where they are read from a store: whoever damages a record by hand damages that record alone.
Amount = Annotated[int, msgspec.Meta(ge=0, le=max(_MAX_AMOUNTS))]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Instant = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Item = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SHARDS + 2)]  # with the calls of a listener


class Resources(NamedTuple):
    """Amounts in thousandths: cpus, megabytes of memory and disk, gpus, number of ports."""

    cpus: Amount = 0
    mem: Amount = 0
    disk: Amount = 0
    gpus: Amount = 0
    ports: Amount = 0

    def plus(self, other: Resources) -> Resources:
        cpus, mem, disk, gpus, ports = other
        return Resources(self.cpus + cpus, self.mem + mem, self.disk + disk, self.gpus + gpus, self.ports + ports)


DIMENSIONS = Resources._fields
NOTHING = Resources()
DEFAULT_EXECUTOR = Resources(cpus=1000, mem=128_000)
# What the task takes that keeps an executor; Mesos refuses one that takes nothing.
KEEPER = Resources(cpus=1)
# In place of a number of executors: one on each agent.
EVERY_AGENT = -1
MAX_EXECUTORS = 100_000


class JobKind(StrEnum):
    """TRANSIENT jobs fire by cron and end; DAEMON jobs are resident and watch the clock themselves."""

    TRANSIENT = "TRANSIENT"
    DAEMON = "DAEMON"


class JobType(StrEnum):
    SIMPLE = "SIMPLE"
    DATAFLOW = "DATAFLOW"
    SCRIPT = "SCRIPT"
    HTTP = "HTTP"


class HttpMethod(StrEnum):
    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    HEAD = "HEAD"


class Isolation(StrEnum):
    """Whether the shards of an app on an agent share one worker process, or each has one of its own."""

    SHARED = "shared"
    PROCESS = "process"


# Their runs are processes of their own anyway.
_OWN_PROCESS = frozenset({JobType.SCRIPT, JobType.HTTP})


class CatchUp(StrEnum):
    """What becomes of firings that were due while no leader ran: none of them, one for all, or the last so-many."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Concurrency(StrEnum):
    """What a firing does that is due while an earlier one has not ended: it does not run beside it, it does (up to a
    number), or the earlier one is ended for it.
    """

    FORBID = "forbid"
    ALLOW = "allow"
    REPLACE = "replace"


class PartitionPolicy(StrEnum):
    """What becomes of a shard whose agent is out of reach, and which may run on there: it waits, or is replaced."""

    WAIT = "wait"
    REPLACE = "replace"


class UpdateStrategy(StrEnum):
    """How a resident job comes to a new configuration or app: a few shards at a time, or all end before any starts."""

    ROLLING = "rolling"
    RECREATE = "recreate"


class Cause(StrEnum):
    """Why a firing exists."""

    CRON = "cron"
    CATCH_UP = "catch_up"
    TRIGGER = "trigger"
    DAEMON = "daemon"


class Execution(StrEnum):
    """READY: the first attempt of a shard; FAILOVER: one that replaces an attempt that was lost."""

    READY = "READY"
    FAILOVER = "FAILOVER"


class TaskState(StrEnum):
    """The life of a task, in the order it normally goes. STORED: the intent is written, no update has come yet."""

    STORED = "STORED"
    STAGING = "STAGING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    KILLING = "KILLING"
    UNREACHABLE = "UNREACHABLE"


class ShardState(StrEnum):
    """DEAD: failed, and the attempts that its job allows are used up; it waits for an operator to put it back."""

    WAITING = "WAITING"
    ACTIVE = "ACTIVE"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"

    ended: bool

    def __init__(self, value: str) -> None:
        self.ended = value not in ("WAITING", "ACTIVE")


@dataclass(frozen=True, slots=True)
class Package:
    """What an app is made from: where agents fetch it and the hash they verify before they unpack it."""

    url: str
    sha256: str
    file: str = "package.zip"

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(
                f"{self.sha256[:80]!r} is no SHA-256", field="packageSha256", fix="give 64 lower-case hex digits"
            )


@dataclass(frozen=True, slots=True)
class App:
    """A package and what its executor needs. Raises ConfigError naming the field (in its JSON spelling).

    `bootstrap_script` is the command of a worker that the package brings along. `max_parallel`: how many shards run in
    one worker at once, 0 for any number. `executors`: how many are kept though no job needs them, or EVERY_AGENT.
    """

    name: str
    package: Package
    bootstrap_script: str = ""
    resources: Resources = DEFAULT_EXECUTOR
    cache: bool = True
    sampling: int = 0
    idle_timeout_ms: int = 60_000
    description: str = ""
    max_parallel: int = 0
    executors: int = 0

    def __post_init__(self) -> None:
        check_name("appName", self.name)
        _check_range("executors", self.executors, EVERY_AGENT, MAX_EXECUTORS)
        check_resources(self.resources)
        _check_range("eventTraceSamplingCount", self.sampling, 0, 1_000_000)
        _check_range("idleTimeoutSeconds", self.idle_timeout_ms, 1_000, MAX_IDLE_TIMEOUT_MS)
        _check_range("maxParallel", self.max_parallel, 0, 10_000)
        check_text("description", self.description)
        _check_command("bootstrapScript", self.bootstrap_script)


@dataclass(frozen=True, slots=True)
class Job:
    """One schedulable thing of an app. Raises ConfigError naming the field (in its JSON spelling).

    `listeners` are called around each shard, `firing_listener` around the whole firing, within `before_timeout_ms` and
    `after_timeout_ms`. `timeout_ms` is for one run, and one that is asked to end has `kill_grace_ms` to do so;
    `memory_limit_mb`, `cpu_limit_s`, `open_files_limit` are for each process of one; 0: none.
    `misfire_limit` firings may wait at once, `concurrency_limit` run at once where the policy is ALLOW, and the last
    `catch_up_limit` missed ones are made up for. `retry_*` is for failures of the job's own, `failover_*` for attempts
    that the infrastructure lost; the delays are those of the first repeat, doubled with each further one up to the
    most. `retry_jitter`: thousandths of a delay.
    With `partition` REPLACE a shard is replaced when its agent has been out of reach for `replace_after_ms`.
    Of a resident job at most `max_unavailable` shards are down for a ROLLING update. `independent_shards`: what a shard
    does follows from its item and parameter, whatever `shard_count` is.
    """

    name: str
    app: str
    kind: JobKind
    type: JobType
    cron: str
    shard_count: int
    resources: Resources
    job_class: str = ""
    zone: str = "UTC"
    dialect: Dialect = Dialect.QUARTZ
    gap: Gap = Gap.RUN_AFTER
    fold: Fold = Fold.AUTO
    shard_parameters: str = ""
    parameter: str = ""
    failover: bool = False
    misfire: bool = False
    catch_up: CatchUp = CatchUp.SKIP
    streaming: bool = False
    script: str = ""
    bean: str = ""
    context: str = ""
    priority: int = 0
    description: str = ""
    isolation: Isolation = Isolation.SHARED
    timeout_ms: int = 0
    kill_grace_ms: int = 5_000
    memory_limit_mb: int = 0
    cpu_limit_s: int = 0
    open_files_limit: int = 0
    http_uri: str = ""
    http_method: HttpMethod = HttpMethod.GET
    http_data: str = ""
    http_content_type: str = "application/json"
    http_connect_timeout_ms: int = 3000
    http_read_timeout_ms: int = 5000
    listeners: tuple[str, ...] = ()
    firing_listener: str = ""
    before_timeout_ms: int = 0
    after_timeout_ms: int = 0
    error_handler: str = "log"
    error_webhook: str = ""
    catch_up_limit: int = 10
    misfire_limit: int = MAX_WAITING
    concurrency: Concurrency = Concurrency.FORBID
    concurrency_limit: int = 10
    retry_count: int = 0
    retry_delay_ms: int = 10_000
    retry_most_ms: int = 3_600_000
    retry_jitter: int = 100
    failover_attempts: int = 10
    failover_delay_ms: int = 1_000
    failover_most_ms: int = 60_000
    partition: PartitionPolicy = PartitionPolicy.WAIT
    replace_after_ms: int = 0
    update_strategy: UpdateStrategy = UpdateStrategy.ROLLING
    max_unavailable: int = 1
    independent_shards: bool = False

    def __hash__(self) -> int:
        """Of what tells most jobs apart: caches ask for it with every task, and there are fifty fields."""
        return hash((self.name, self.shard_count, self.cron))

    def __post_init__(self) -> None:
        check_name("jobName", self.name)
        check_name("appName", self.app)
        _check_range("shardingTotalCount", self.shard_count, 1, MAX_SHARDS)
        _check_range("priority", self.priority, -1000, 1000)
        check_resources(self.resources, least=Resources(cpus=1, mem=1000))
        for field, text in (("jobParameter", self.parameter), ("description", self.description)):
            check_text(field, text)
        self._check_type()
        self._check_limits()
        self._check_listeners()
        self._check_repeats()
        self._check_overlap()
        self._check_updates()
        self.schedule()
        parse_shard_parameters(self.shard_parameters, self.shard_count)

    def _check_type(self) -> None:
        if self.type is JobType.SCRIPT:
            if not self.script.strip():
                raise ConfigError("a SCRIPT job needs a command", field="scriptCommandLine", fix='e.g. "bin/report.sh"')
            check_text("scriptCommandLine", self.script)
        elif self.type is JobType.HTTP:
            self._check_http()
        elif not self.job_class and not self.bean:
            raise ConfigError("is missing", field="jobClass", fix='name the class as "package.module:Class"')
        for field, text in (("jobClass", self.job_class), ("applicationContext", self.context)):
            if text and not _CLASS.fullmatch(text):
                raise ConfigError(f"{text[:80]!r} names no Python object", field=field, fix='use "package.module:Name"')
        if self.bean and not self.context:
            raise ConfigError("is needed to look up beanName", field="applicationContext", fix="or drop beanName")

    def _check_http(self) -> None:
        if not _URI.fullmatch(self.http_uri):
            raise ConfigError("is no http(s) URI", field="httpUri", fix='e.g. "https://orders.example.org/settle"')
        if not _CONTENT_TYPE.fullmatch(self.http_content_type):
            raise ConfigError("is no media type", field="httpContentType", fix='e.g. "application/json"')
        if len(self.http_data) > MAX_HTTP_DATA or "\0" in self.http_data:
            raise ConfigError(f"is over {MAX_HTTP_DATA} characters or holds a NUL", field="httpData", fix="shorten it")
        _check_range("httpConnectTimeoutMilliseconds", self.http_connect_timeout_ms, 1, 3_600_000)
        _check_range("httpReadTimeoutMilliseconds", self.http_read_timeout_ms, 1, 86_400_000)

    def _check_listeners(self) -> None:
        handler = "jobProperties.job_exception_handler"
        named = [("listener", name) for name in self.listeners] + [(handler, self.error_handler)]
        if self.firing_listener:
            named.append(("distributedListener.class", self.firing_listener))
        for field, name in named:
            if not _PLUGIN.fullmatch(name) or (":" in name and len(name) > MAX_PLUGIN_NAME):
                fix = 'use an entry point\'s name or "package.module:Class"'
                raise ConfigError(f"{name[:80]!r} names no plug-in", field=field, fix=fix)
        if len(self.listeners) > MAX_LISTENERS:
            raise ConfigError(f"holds {len(self.listeners)} names", field="listener", fix=f"at most {MAX_LISTENERS}")
        if self.type in _OWN_PROCESS:
            without = f"a {self.type} job runs without a worker that could call it"
            if self.listeners:
                raise ConfigError(without, field="listener", fix="leave it out; distributedListener works")
            if self.error_handler not in OWN_ERROR_HANDLERS:
                raise ConfigError(without, field=handler, fix=f"use {', '.join(OWN_ERROR_HANDLERS)}")
        if self.firing_listener and self.kind is JobKind.DAEMON:
            problem = "a DAEMON job has no firings that its shards share"
            raise ConfigError(problem, field="distributedListener", fix="use listener: it is called around each run")
        _check_range("distributedListener.startedTimeoutMilliseconds", self.before_timeout_ms, 0, MAX_RUN_MS)
        _check_range("distributedListener.completedTimeoutMilliseconds", self.after_timeout_ms, 0, MAX_RUN_MS)
        if (self.error_handler == "webhook") != bool(self.error_webhook):
            problem = (
                "is needed by the handler webhook" if not self.error_webhook else "is for the handler webhook only"
            )
            raise ConfigError(problem, field="jobProperties.job_exception_webhook", fix="give both or neither")

    def _check_limits(self) -> None:
        _check_range("timeoutSeconds", self.timeout_ms, 0, MAX_RUN_MS)
        _check_range("killGraceSeconds", self.kill_grace_ms, 0, MAX_KILL_GRACE_MS)
        limits = (
            ("memoryLimitMB", self.memory_limit_mb, 64 << 20),
            ("cpuLimitSeconds", self.cpu_limit_s, 30 * 86_400),
            ("openFilesLimit", self.open_files_limit, 1 << 20),
        )
        for field, limit, most in limits:
            _check_range(field, limit, 0, most)
            if limit and self.shares_worker:
                raise ConfigError(
                    "would limit all shards of the worker together", field=field, fix='needs isolation "process"'
                )

    def _check_overlap(self) -> None:
        _check_range("catchUpLimit", self.catch_up_limit, 1, MAX_WAITING)
        _check_range("misfireLimit", self.misfire_limit, 1, MAX_WAITING)
        _check_range("concurrencyLimit", self.concurrency_limit, 1, MAX_WAITING)
        if self.kind is JobKind.DAEMON and self.concurrency is not Concurrency.FORBID:
            raise ConfigError("is for jobs that fire; a resident one runs once", field="concurrency", fix="drop it")

    def _check_updates(self) -> None:
        _check_range("maxUnavailable", self.max_unavailable, 1, MAX_SHARDS)
        if self.kind is JobKind.DAEMON:
            return
        for field, given in (
            ("updateStrategy", self.update_strategy is not UpdateStrategy.ROLLING),
            ("maxUnavailable", self.max_unavailable != 1),
            ("independentShards", self.independent_shards),
        ):
            if given:
                raise ConfigError("is for resident jobs; each firing is of one version", field=field, fix="drop it")

    @property
    def shares_worker(self) -> bool:
        """Whether its shards run in the worker that all jobs of the app share."""
        return self.isolation is Isolation.SHARED and self.type not in _OWN_PROCESS

    @property
    def runs_at_once(self) -> int:
        """How many of its firings may run beside each other."""
        return self.concurrency_limit if self.concurrency is Concurrency.ALLOW else 1

    def _check_repeats(self) -> None:
        _check_range("retryCount", self.retry_count, 0, MAX_REPEATS)
        _check_range("failoverAttempts", self.failover_attempts, 0, MAX_REPEATS)
        _check_seconds("replaceAfterSeconds", self.replace_after_ms, 0, MAX_DELAY_MS)
        if not 0 <= self.retry_jitter <= 1000:
            raise ConfigError(f"{self.retry_jitter / 1000:g} is out of range", field="retryJitter", fix="0 to 1")
        for name, first, most in (
            ("retry", self.retry_delay_ms, self.retry_most_ms),
            ("failover", self.failover_delay_ms, self.failover_most_ms),
        ):
            _check_seconds(f"{name}DelaySeconds", first, 100, MAX_DELAY_MS)
            _check_seconds(f"{name}MaxDelaySeconds", most, first, MAX_DELAY_MS)

    def schedule(self) -> Schedule:
        """The parsed cron expression. Raises ConfigError."""
        try:
            return Schedule.parse(self.cron, zone=self.zone, dialect=self.dialect, gap=self.gap, fold=self.fold)
        except CronError as error:
            raise ConfigError(str(error), field="cron") from error


class JobState(msgspec.Struct, frozen=True, gc=False):
    """What is known of a job beside its configuration.

    `considered_ms`: every firing due up to this instant has been queued or skipped.
    `generation` grows with each change of the configuration that running work must not mix with.
    """

    considered_ms: Instant
    generation: Count = 1
    disabled: bool = False
    skipped: Count = 0
    skipped_reason: str = ""


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How an attempt ended, as far as a machine asks (docs/executor.md): `cause`, such as exception or worker_lost, is
    "" for success and where no executor said it; `result` is the JSON text of what the job returned, or "".
    """

    cause: str = ""
    result: str = ""


NO_OUTCOME = Outcome()


class Shard(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One shard of a firing.

    `attempt` counts the tasks launched for it, `task_id` is the last of them; `failures` counts the attempts in a row
    that the infrastructure lost, `retries` those repeated because the job itself had failed, `lost_workers` those that
    ended with the worker they shared with others. Until `avoid_ms` the agent
    of the last attempt is not used again. `outcome` is how the last attempt ended, in the executor's words.
    """

    state: ShardState = ShardState.WAITING
    attempt: Count = 0
    failures: Count = 0
    execution: Execution = Execution.READY
    not_before_ms: Instant = 0
    task_id: str = ""
    agent_id: str = ""
    hostname: str = ""
    executor_id: str = ""
    started_ms: Instant = 0
    ended_ms: Instant = 0
    message: str = ""
    retries: Count = 0
    avoid_ms: Instant = 0
    outcome: Outcome = NO_OUTCOME
    lost_workers: Count = 0


class Step(StrEnum):
    """The calls of the listener of a whole firing."""

    BEFORE = "before"
    AFTER = "after"


class Firing(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One due instant of a job: its queue entry while shards wait, its record afterwards.

    A DAEMON job has one firing a generation, which never ends by itself. Items that the job has no more stay in it,
    ended. Where it is `stepped`, its last two shards are
    none of the job's but the calls of its listener: the one before must have finished for any other shard to start, and
    the one after waits until all of them have ended.
    """

    id: str
    job: str
    generation: Count
    cause: Cause
    fire_ms: Instant
    shards: Annotated[tuple[Shard, ...], msgspec.Meta(min_length=1, max_length=MAX_SHARDS + 2)]
    ended_ms: Instant = 0
    stepped: bool = False

    @property
    def work(self) -> tuple[Shard, ...]:
        """The job's own shards."""
        return self.shards[:-2] if self.stepped else self.shards

    def step(self, item: int) -> Step | None:
        """Which call of the listener an item is; None for the job's own shards."""
        behind = item - len(self.shards)
        return {-2: Step.BEFORE, -1: Step.AFTER}.get(behind) if self.stepped else None


class Task(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One attempt of one shard, or one keeper of an executor, from its launch intent until its end is stored.

    A keeper is of no firing, and its `job` is none: `keeper_job` of its app. `contexts` are those that it has built.
    `kill_ms`: since when it is to end; whether its shard then starts anew is its job's to say. `overdue_ms`: since when
    it is to end because it has run beyond its time limit. `revision`: what it was made from, of a resident (see
    revisions.py); "" where that is not known.
    """

    id: str
    firing_id: str
    job: str
    item: Item
    attempt: Count
    execution: Execution
    agent_id: str
    hostname: str
    app: str
    executor_id: str
    resources: Resources
    created_ms: Instant
    state: TaskState = TaskState.STORED
    started_ms: Instant = 0
    kill_ms: Instant = 0
    message: str = ""
    unreachable_ms: Instant = 0
    revision: str = ""
    overdue_ms: Instant = 0
    contexts: tuple[str, ...] = ()

    @property
    def placeholder(self) -> bool:
        return not self.firing_id


def placeholder_job(app: str) -> str:
    """What stands for a job in the ids and notices of an app's keepers; no job can have that name."""
    return f"keeper={app}"


# A copy of a struct with some fields changed. Raises TypeError for a field that there is not.
changed = msgspec.structs.replace


class Share(msgspec.Struct, frozen=True, gc=False):
    """One entry of an offer's or task's resources.

    `origin` is the rest of Mesos' Resource message (role, reservations, allocation) as canonical JSON, to be sent
    back as it came; `ranges` holds concrete ports, inclusive.
    """

    name: str
    amount: Amount
    origin: str = "{}"
    reserved: bool = False
    ranges: tuple[tuple[int, int], ...] = ()


class Executor(msgspec.Struct, frozen=True, gc=False):
    """An executor as launched on an agent: every task that joins it must name exactly this.

    `spec` is the rest of Mesos' ExecutorInfo (name, command with URIs, data) as canonical JSON.
    """

    id: str
    agent_id: str
    app: str
    shares: tuple[Share, ...]
    spec: str
    launched_ms: Instant = 0


@lru_cache(maxsize=4096)
def content_of(executor_id: str) -> str:
    """What an executor is made from, as its id says it: the same wherever it was fetched from (see launch.py)."""
    return DELIMITER.join(executor_id.split(DELIMITER)[:2])


class Window(msgspec.Struct, frozen=True, gc=False):
    """When an agent will be away for maintenance; `end_ms` 0: until further notice."""

    start_ms: int
    end_ms: int = 0


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What an agent has free. `address` is where its HTTP API is: `host:port`, and a path where it has one."""

    id: str
    agent_id: str
    hostname: str
    address: str
    shares: tuple[Share, ...]
    attributes: tuple[tuple[str, str], ...] = ()
    unavailable: Window | None = None


class InverseOffer(msgspec.Struct, frozen=True, gc=False):
    """Mesos asks whether we can do without an agent during a window."""

    id: str
    agent_id: str
    unavailable: Window


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator wants an agent to be empty, at the latest at the deadline."""

    agent_id: str
    since_ms: Instant
    deadline_ms: Instant
    reason: str = ""


def check_name(field: str, name: str) -> None:
    """Names become parts of ids, paths and URLs. Raises ConfigError."""
    if not _NAME.fullmatch(name) or DELIMITER in name:
        raise ConfigError(
            f"{name[:120]!r} is no valid name",
            field=field,
            fix="use 1 to 100 letters, digits, '_', '-' or '.', starting with a letter, digit or '_'",
        )


def check_text(field: str, text: str) -> None:
    if len(text) > MAX_TEXT or "\0" in text:
        raise ConfigError(f"is over {MAX_TEXT} characters or holds a NUL", field=field, fix="shorten it")


def _check_command(field: str, line: str) -> None:
    check_text(field, line)
    try:
        shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"cannot be split into words: {error}", field=field, fix="close the quotes") from error


# The JSON spelling of each dimension, in the order of Resources.
RESOURCE_FIELDS = ("cpuCount", "memoryMB", "diskMB", "gpuCount", "portCount")


def check_resources(resources: Resources, least: Resources = NOTHING) -> None:
    for field, amount, low, high in zip(RESOURCE_FIELDS, resources, least, _MAX_AMOUNTS, strict=True):
        if not low <= amount <= high:
            raise ConfigError(
                f"{amount / 1000:g} is out of range", field=field, fix=f"{low / 1000:g} to {high / 1000:g}"
            )
    for field, amount in (("gpuCount", resources.gpus), ("portCount", resources.ports)):
        if amount % 1000:
            raise ConfigError(f"{amount / 1000:g} is no whole number", field=field)


def _check_seconds(field: str, ms: int, low: int, high: int) -> None:
    if not low <= ms <= high:
        raise ConfigError(f"{ms / 1000:g} is out of range", field=field, fix=f"{low / 1000:g} to {high / 1000:g}")


def _check_range(field: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise ConfigError(f"{number} is out of range", field=field, fix=f"{low} to {high}")


@lru_cache(maxsize=1024)
def parse_shard_parameters(text: str, count: int) -> tuple[str, ...]:
    """`0=a,1=b` → the parameter of each of `count` shards, "" where none is given.

    Format: Elastic-Job's `shardingItemParameters`. Raises ConfigError naming the offending pair.
    """
    field = "shardingItemParameters"
    check_text(field, text)
    parameters = [""] * count
    seen: set[int] = set()
    for pair in text.split(",") if text.strip() else ():
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not key.isascii() or not key.isdigit() or "=" in value:
            raise ConfigError(f"{pair[:80]!r} is no item=value pair", field=field, fix='e.g. "0=Berlin,1=Paris"')
        item = int(key[:9])
        if item >= count or len(key) > 9:
            raise ConfigError(f"item {key[:20]} is out of range", field=field, fix=f"items go from 0 to {count - 1}")
        if item in seen:
            raise ConfigError(f"item {item} is given twice", field=field)
        seen.add(item)
        parameters[item] = value
    return tuple(parameters)


class TaskName(NamedTuple):
    """The parts of a task id, as in Elastic-Job-Cloud: job, item, execution type, agent, and what makes it unique."""

    job: str
    item: int
    execution: Execution
    agent_id: str
    unique: str

    def __str__(self) -> str:
        return DELIMITER.join((self.job, str(self.item), self.execution, self.agent_id, self.unique))

    @classmethod
    def parse(cls, task_id: str) -> TaskName:
        """Raises ValueError where `task_id` is not one of ours."""
        job, item, execution, agent_id, unique = task_id.split(DELIMITER)
        return cls(job, int(item), Execution(execution), agent_id, unique)
