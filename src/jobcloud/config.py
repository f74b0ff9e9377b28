"""Apps and jobs as people configure them.

The declaration of a field includes its description: its name in JSON, its unit and range, the effect of a change, and a
text for users. `fields` lists the uses of these descriptions.

Amounts are integers in thousandths (1.5 cpus = 1500, 128 MB = 128000, 2 ports = 2000), the precision of Mesos.

The names of apps and of jobs are unique within a team, a *key* is unique in a cluster. The key of an app or a job of
the team `default` is its name; any other key is `TEAM:NAME`. The scheduler, the stored records, the ids of tasks and
runs and the paths of the API use keys. No name contains a colon, so a key has one team and one name.

An ad-hoc job is not registered and has one run. Its key ends with `~` and a unique part. No name contains `~`, so
it never has the key of a registered job.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

from jobcloud.cron import MAX_LENGTH as MAX_CRON
from jobcloud.cron import CronError, Dialect, Fold, Gap, Schedule
from jobcloud.errors import ConfigError
from jobcloud.fields import REQUIRED, Change, Spec, Unit, check_ranges, described, spec
from jobcloud.ranges import MAX_TEXT as MAX_RANGE
from jobcloud.ranges import parse as parse_range
from jobcloud.sentences import Told, text_of
from jobcloud.sentences.frequent import (
    DROP,
    GIVE_ONCE,
    LEAVE_OUT,
    MISSING,
    at_most,
    bad_entry,
    between,
    choose,
    not_valid,
    of_transient,
    such_as,
    too_big,
    too_many,
    twice,
)
from jobcloud.triggers import MAX_BLACKOUTS, MAX_TRIGGERS, Days, Times, parse_expected, timing
from jobcloud.triggers import delay_ms as delay_of

SHA256 = re.compile(r"[0-9a-f]{64}")
# Separates the parts of a task id, as in Elastic-Job-Cloud.
DELIMITER = "@-@"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_NAME_RULE = "1 to 100 letters, digits, '_', '-' or '.'; the first is a letter, a digit or '_'"
# Patterns for the API's schema.
_NAME_FORM = f"^{_NAME.pattern}$"
# A Java class may be nested, which a dollar sign expresses.
_CLASS = re.compile(r"[A-Za-z_][\w$]*(\.[A-Za-z_$][\w$]*)*(:[A-Za-z_]\w*)?")
# Spring's configuration in the class path, as Elastic-Job's jobs name it. It may have wildcards.
_SPRING_XML = re.compile(r"(classpath\*?:)?(?!.*\.\.)[\w./\\*?@+=~-]+\.xml")
_URI = re.compile(r"https?://[!-~]{1,2040}")
_CONTENT_TYPE = re.compile(r"[!-:<-~]{1,100}/[!-:<-~]{1,100}(; ?[!-~]{1,100})?")
# The name of an entry point, or `package.module:Class`, or a Java class.
_PLUGIN = re.compile(
    r"[A-Za-z0-9_.-]{1,100}|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*|[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*)+"
)
MAX_PLUGIN_NAME = 300
MAX_LISTENERS = 20
MAX_SECRETS = 20
MAX_PARAMETER_SCHEMA = 8_192
MAX_CONSTRAINTS = 20
#: calendars that one field of a job names
MAX_CALENDARS_OF_JOB = 10
MAX_CONSTRAINT_BYTES = 300
#: keys of a webhook: two, so that a sender can change to a new one
MAX_WEBHOOK_KEYS = 2
MAX_WEBHOOK_PARAMETERS = 20
MAX_POINTER = 200
# A parameter, and a JSON Pointer (RFC 6901) to its value.
_WEBHOOK_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,99})=((?:/(?:[^/~]|~[01])*)+)")
# The key is the name under which a run gets the secret.
_SECRET_USE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})=(secret|secret-file):([a-z][a-z0-9-]{0,31})")
_VARIABLE = re.compile(r"(?!JOBCLOUD_|MESOS_)[A-Za-z_][A-Za-z0-9_]*")
MAX_VARIABLES = 100
# Of all variables of an app or a job together, in JSON in ASCII.
MAX_ENVIRONMENT_BYTES = 16_384
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# Variables that the agent or the executor sets, or that the dynamic loader or Python obeys before any code of the app
# runs. `LD_LIBRARY_PATH` is allowed: it can do nothing that the package cannot do, and database drivers need it.
_RESERVED_VARIABLE = re.compile(
    r"(JOBCLOUD|MESOS|LIBPROCESS|GLIBC)_.*|LD_(?!LIBRARY_PATH$).*|GCONV_PATH|PYTHONHOME|TRACEPARENT"
)
_RESERVED_RULE = (
    "reserved are JOBCLOUD_*, MESOS_*, LIBPROCESS_*, GLIBC_*, LD_* except LD_LIBRARY_PATH, GCONV_PATH, PYTHONHOME and "
    "TRACEPARENT"
)
#: of the files of an app or a job
MAX_FILES = 16
MAX_FILE_PATH = 200
# All files of an app or a job together, in JSON in ASCII.
MAX_FILES_BYTES = 32_768
_FILE_NAME = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.@+=][A-Za-z0-9_.@+=-]*"
_FILE_PATH = re.compile(rf"{_FILE_NAME}(?:/{_FILE_NAME})*")
_FILE_PATH_RULE = "such as conf/app.properties: names of letters, digits and '_.@+=-', with '/' between them"
_HEADER = re.compile(
    r"(?!(?:host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|shardingcontext|traceparent"
    r"|x-jobcloud-.*)$)[a-z][a-z0-9-]*",
    re.IGNORECASE,
)
# The addresses to which an HTTP job may send secrets without TLS: the agent itself.
_LOOPBACK_URI = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])([:/?].*)?")
# Error handlers that need no code of the app.
OWN_ERROR_HANDLERS = ("log", "fail", "ignore", "webhook")
MAX_SHARDS = 10_000
MAX_PRIORITY = 1000
MAX_TEXT = 65_536
MAX_IDLE_TIMEOUT_MS = 86_400_000
MAX_RUN_MS = 30 * 86_400_000
MAX_SILENT_MS = 400 * 86_400_000
_MAX_EXPECTED = 40
MAX_KILL_GRACE_MS = 3_600_000
MAX_JITTER_MS = 86_400_000
MAX_REPEATS = 1_000
MAX_WAITING = 100
MIN_DELAY_MS = 100
MAX_DELAY_MS = 7 * 86_400_000
# The ranges of these fields are checked for HTTP jobs only.
_HTTP_TIMEOUTS = frozenset({"http_connect_timeout_ms", "http_read_timeout_ms"})
# Sections of the documentation.
_CLOCK = "cron.md#time-zones-and-clock-changes"
_PLUGINS = "executor.md#listeners-and-error-handlers"
_TRIGGERS = "cron.md#several-triggers"
_BLACKOUTS = "cron.md#blackouts"
_CALENDARS = "cron.md#calendars"
_LATE = "cron.md#jitter-and-deadline"
_LOCAL_FORM = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?)?$"
_PLACES = "placement.md"
_ENVIRONMENT = "executor.md#environment-variables"
_WEBHOOKS = "webhooks.md"
_FILES = "executor.md#files"
#: the fields of a job that may have placeholders
WITH_PLACEHOLDERS = ("jobParameter", "shardingItemParameters", "scriptCommandLine")
_SIZE = f"at most {MAX_TEXT:,} bytes in JSON"
# Upper limits of one shard or executor, in thousandths: 4,096 cpus, 64 TiB of memory in MB, 1 PiB of disk in MB.
_MAX_AMOUNTS = (4_096_000, 67_108_864_000, 1_073_741_824_000, 256_000, 1_000_000)

DEFAULT_TEAM = "default"
SEPARATOR = ":"
_AD_HOC_MARK = "~"
_AD_HOC = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
#: `Job.ad_hoc` of an ad-hoc job that the scheduler does not know yet
NEW_AD_HOC = "0-0"
LONGEST_AD_HOC = f"{'9' * 19}-{'9' * 19}"
DEFAULT_CLUSTER = "jobcloud"
#: the most characters of the name of a team or a cluster
#: stands for the middle of a long name in tables and commands; no name contains it
ELLIPSIS = "…"
MAX_LABEL = 32
LABEL_RULE = f"1 to {MAX_LABEL} lower-case letters, digits or '-', the first a letter"
MAX_LABELS = 20
_LABEL_PAIR = re.compile(r"[a-z][a-z0-9_.-]{0,62}=[A-Za-z0-9_.@+-]{0,100}")
_LABEL_PAIR_RULE = "name=value; the value has up to 100 letters, digits, '_', '.', '@', '+' or '-'"
_LABEL = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_LABEL - 1}}}")
LABEL_FORM = f"^{_LABEL.pattern}$"
#: of the key of an app or a job, which may be the job of an ad-hoc run
KEY_FORM = f"^({_LABEL.pattern}{SEPARATOR})?{_NAME.pattern}({_AD_HOC_MARK}[0-9]+-[0-9]+)?$"
#: of the key of a pool; the team `*` stands for all teams
POOL_FORM = f"^((\\*|{_LABEL.pattern}){SEPARATOR})?{_NAME.pattern}$"

# Checked when a record is decoded, so that one corrupt record cannot affect others.
Amount = Annotated[int, msgspec.Meta(ge=0, le=max(_MAX_AMOUNTS))]


def key_of(team: str, name: str) -> str:
    """The key of an app or a job."""
    return name if team == DEFAULT_TEAM else _joined(team, name)


# Each key is one object, so that the records of many tasks share it.
@lru_cache(maxsize=65_536)
def _joined(team: str, name: str) -> str:
    return f"{team}{SEPARATOR}{name}"


def split_key(key: str) -> tuple[str, str]:
    """The team and the name of a key."""
    team, separator, name = key.partition(SEPARATOR)
    return (team, name) if separator else (DEFAULT_TEAM, key)


def team_of(key: str) -> str:
    """The team of a key; "" for "", which is the key of nothing."""
    return split_key(key)[0] if key else ""


def qualified(text: str, team: str = "") -> str:
    """The key that `[TEAM:]NAME` means. `team` is that of a bare name; "" stands for the team `default`.

    The text is not checked: a text that can be no key stays as it is, and names nothing.
    """
    given, name = split_key(text) if SEPARATOR in text else (team or DEFAULT_TEAM, text)
    return key_of(given, name) if name and SEPARATOR not in name else text


def is_ad_hoc(key: str) -> bool:
    """Whether a key is that of an ad-hoc job."""
    return _AD_HOC_MARK in key


def is_key(text: str) -> bool:
    """Whether a text may be the key of an app or a job."""
    return re.fullmatch(KEY_FORM, text) is not None


def abbreviates(text: str, name: str) -> bool:
    """Whether a text stands for a name or an id: its beginning, its end, or both with `…` between them.

    The end may lack the `@CLUSTER` of an id.
    """
    begin, mark, end = text.partition(ELLIPSIS)
    if not mark:
        return name.startswith(text) or name.endswith(text)
    whole = (name, name.rpartition("@")[0])
    return any(len(one) >= len(begin + end) and one.startswith(begin) and one.endswith(end) for one in whole)


def is_label(text: str) -> bool:
    """Whether a text may be the name of a team or a cluster: a part of ids, paths and URLs."""
    return _LABEL.fullmatch(text) is not None


def check_team(field: str, team: str) -> None:
    """Raises ConfigError if a text cannot be the name of a team."""
    if not is_label(team):
        raise ConfigError(
            not_valid(team[:80], "is not a valid name of a team"),
            field=field,
            fix=Told(f"use {LABEL_RULE}", "label_rule", most=MAX_LABEL),
        )


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

    def times(self, number: int) -> Resources:
        return Resources(*(amount * number for amount in self))


DIMENSIONS = Resources._fields
NOTHING = Resources()
DEFAULT_EXECUTOR = Resources(cpus=1000, mem=128_000)
SMALLEST_SHARD = Resources(cpus=1, mem=1000)
# The resources of a placeholder task. Mesos refuses a task without resources.
PLACEHOLDER = Resources(cpus=1)
# In place of a number of executors: one on each agent.
EVERY_AGENT = -1
MAX_EXECUTORS = 100_000


class JobKind(StrEnum):
    """TRANSIENT jobs fire by cron and end. DAEMON jobs are resident and compute their times themselves."""

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
    """Whether the shards of an app on an agent share one worker process, or each has its own."""

    SHARED = "shared"
    PROCESS = "process"


# Attempts of these types are separate processes with every isolation.
_OWN_PROCESS = frozenset({JobType.SCRIPT, JobType.HTTP})


class CatchUp(StrEnum):
    """Which missed firings run afterwards: none of them, one for all, or the last few."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class ExcludedDay(StrEnum):
    """The rule for a fire time on a day that the calendars of the job exclude."""

    SKIP = "skip"
    NEXT = "next"
    PREVIOUS = "previous"


class WebhookScheme(StrEnum):
    """How the sender of a webhook signs (see webhooks/signatures.py)."""

    STANDARD = "standard"
    GITHUB = "github"
    STRIPE = "stripe"


class Concurrency(StrEnum):
    """Whether a firing may run before an earlier one has ended: no, up to a limit, or in place of the earlier one."""

    FORBID = "forbid"
    ALLOW = "allow"
    REPLACE = "replace"


class PartitionPolicy(StrEnum):
    """Whether a shard that may still run on an unreachable agent waits for the agent, or starts elsewhere."""

    WAIT = "wait"
    REPLACE = "replace"


class UpdateStrategy(StrEnum):
    """How a resident job gets a new configuration: a few shards at a time, or all end before any starts."""

    ROLLING = "rolling"
    RECREATE = "recreate"


def _amounts(whose: str, least: Resources) -> dict[str, Spec]:
    """The JSON field of each dimension."""
    specs = (
        Spec("cpuCount", f"CPUs of {whose}", elastic_job=True),
        Spec("memoryMB", f"memory of {whose} in MB", elastic_job=True),
        Spec("diskMB", f"disk space of {whose} in MB", json_default=0),
        Spec("gpuCount", f"GPUs of {whose}", step=1000, json_default=0),
        Spec("portCount", f"ports of {whose}", step=1000, json_default=0),
    )
    return {
        name: replace(one, unit=Unit.MILLI, low=low, high=high)
        for name, one, low, high in zip(DIMENSIONS, specs, least, _MAX_AMOUNTS, strict=True)
    }


# The JSON name of each dimension, in the order of Resources.
RESOURCE_FIELDS = tuple(one.name for one in _amounts("", NOTHING).values())


@dataclass(frozen=True, slots=True)
class Package:
    """The package of an app: the URL that agents fetch it from, and the hash that they verify before they unpack it.

    Raises ConfigError if the hash is not a SHA-256.
    """

    url: str
    sha256: str
    file: str = "package.zip"

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.sha256):
            raise ConfigError(
                not_valid(self.sha256[:80], "is not a SHA-256"),
                field="packageSha256",
                fix=Told("give 64 lower-case hex digits", "hex_digits"),
            )


_PACKAGE = {
    "url": Spec(
        "appURL",
        "`package:sha256:<64 hex digits>` of an uploaded package, or an http(s) URL whose host is in the setting "
        "`packages.hosts`",
        see="executor.md#packages",
        change=Change.NONE,
        elastic_job=True,
    ),
    "sha256": Spec(
        "packageSha256",
        "SHA-256 of the package in lower-case hex; required if `appURL` is an http(s) URL",
        pattern=f"^({SHA256.pattern})?$",
        json_default="",
    ),
}


@dataclass(frozen=True, slots=True)
class App:
    """A package, and the needs of its executor. `executors` may be EVERY_AGENT.

    Raises ConfigError with the JSON name of the wrong field.
    """

    name: str = field(metadata=spec("appName", _NAME_RULE, pattern=_NAME_FORM, change=Change.FIXED, elastic_job=True))
    team: str = field(
        default=DEFAULT_TEAM,
        kw_only=True,
        metadata=spec("team", f"the team of the app: {LABEL_RULE}", pattern=LABEL_FORM, change=Change.FIXED),
    )
    package: Package = field(metadata=_PACKAGE)
    bootstrap_script: str = described(
        "",
        "bootstrapScript",
        "command that starts the app's own worker, run without a shell; empty: the Python worker of the executor",
        max_length=MAX_TEXT,
        see="executor.md#a-worker-of-your-own",
        elastic_job=True,
    )
    resources: Resources = field(default=DEFAULT_EXECUTOR, metadata=_amounts("the executor itself", NOTHING))
    cache: bool = described(
        True, "appCacheEnable", "true: agents keep the package in their fetcher cache", elastic_job=True
    )
    sampling: int = described(
        0,
        "eventTraceSamplingCount",
        "number n: the executor reports every n-th execution of a DAEMON shard, and every failure; 0: every execution",
        high=1_000_000,
        elastic_job=True,
    )
    idle_timeout_ms: int = described(
        60_000,
        "idleTimeoutSeconds",
        "time after which an executor without work exits",
        unit=Unit.MILLI,
        low=1_000,
        high=MAX_IDLE_TIMEOUT_MS,
    )
    max_parallel: int = described(
        0,
        "maxParallel",
        "maximum number of shards that run at once in the app's worker on an agent; further shards wait in the "
        "executor; 0: no limit",
        high=10_000,
    )
    executors: int = described(
        0,
        "executors",
        'number of warm executors, which keep running without shards; at most one on each agent; `"each"`: one on '
        "every agent with room",
        unit=Unit.WHOLE_OR_EACH,
        low=EVERY_AGENT,
        high=MAX_EXECUTORS,
        change=Change.NONE,
        see="executor.md#warm-executors",
    )
    description: str = described("", "description", "text for people", max_length=MAX_TEXT, change=Change.NONE)
    constraints: tuple[str, ...] = described(
        (),
        "constraints",
        "conditions that an agent must meet for all jobs of the app, such as `zone == a`; also for warm executors",
        max_length=MAX_CONSTRAINTS,
        change=Change.PLACE,
        see=_PLACES,
    )
    environment: tuple[str, ...] = described(
        (),
        "environment",
        "variables of the app's workers and scripts, such as `REGION=eu`; no secrets: everybody who may see the app "
        "sees them",
        max_length=MAX_VARIABLES,
        see=_ENVIRONMENT,
    )
    files: str = described(
        "",
        "files",
        "files that each shard of the app can read, as an object from paths to texts, such as "
        '`{"conf/app.properties": "region=eu"}`; no secrets: everybody who may see the app sees them',
        unit=Unit.FILES,
        see=_FILES,
    )

    def __post_init__(self) -> None:
        check_name("appName", self.name)
        check_team("team", self.team)
        check_ranges(self)
        _check_list("constraints", self.constraints)
        parse_environment(self.environment)
        if self.files:
            parse_files(self.files)
        check_text("description", self.description)
        _check_command("bootstrapScript", self.bootstrap_script)

    @property
    def key(self) -> str:
        """The app's identifier in its cluster."""
        return key_of(self.team, self.name)


@dataclass(frozen=True, slots=True)
class Job:
    """A unit of scheduling, with its code in an app.

    Raises ConfigError with the JSON name of the wrong field.
    """

    name: str = field(
        metadata=spec(
            "jobName",
            f"{_NAME_RULE}; unique over all apps of the team",
            pattern=_NAME_FORM,
            change=Change.FIXED,
            elastic_job=True,
        )
    )
    team: str = field(
        default=DEFAULT_TEAM,
        kw_only=True,
        metadata=spec("team", "the team of the job and of its app", pattern=LABEL_FORM, change=Change.FIXED),
    )
    app: str = field(
        metadata=spec("appName", "a registered app of the same team", pattern=_NAME_FORM, elastic_job=True)
    )
    kind: JobKind = field(
        metadata=spec(
            "jobExecutionType",
            "`TRANSIENT`: shards end with each run; `DAEMON`: shards keep running and compute their fire times "
            "themselves",
            elastic_job=True,
        )
    )
    type: JobType = field(
        metadata=spec(
            "jobType",
            "`SIMPLE`, `DATAFLOW`: a class of the app; `SCRIPT`: a command; `HTTP`: a request",
            see="executor.md#writing-jobs",
            elastic_job=True,
        )
    )
    cron: str = field(
        metadata=spec(
            "cron",
            "cron expression of the firings; required without `triggers`",
            max_length=MAX_CRON,
            change=Change.TIMES,
            see="cron.md",
            json_default="",
            elastic_job=True,
        )
    )
    shard_count: int = field(
        metadata=spec(
            "shardingTotalCount",
            "number of shards; each has a number from 0, its item",
            low=1,
            high=MAX_SHARDS,
            change=Change.SHARDS,
            elastic_job=True,
        )
    )
    resources: Resources = field(metadata=_amounts("one shard", SMALLEST_SHARD))
    job_class: str = described(
        "",
        "jobClass",
        "`package.module:Class`, or a Java class; required for SIMPLE and DATAFLOW jobs without `beanName`",
        elastic_job=True,
    )
    streaming: bool = described(
        False,
        "streamingProcess",
        "true: a DATAFLOW job fetches and processes data until none is left; false: only once",
        elastic_job=True,
    )
    script: str = described(
        "",
        "scriptCommandLine",
        f"command of a SCRIPT job; required for SCRIPT jobs; {_SIZE}",
        max_length=MAX_TEXT,
        elastic_job=True,
    )
    http_uri: str = described(
        "",
        "httpUri",
        "URI that an HTTP job calls; its host is in the setting `http_jobs.hosts`; required for HTTP jobs",
        pattern=f"^({_URI.pattern})?$",
    )
    http_method: HttpMethod = described(HttpMethod.GET, "httpMethod", "method of an HTTP job's request")
    http_data: str = described("", "httpData", f"body of an HTTP job's request; {_SIZE}", max_length=MAX_TEXT)
    http_content_type: str = described(
        "application/json",
        "httpContentType",
        "media type of an HTTP job's request",
        pattern=f"^{_CONTENT_TYPE.pattern}$",
    )
    http_connect_timeout_ms: int = described(
        3000, "httpConnectTimeoutMilliseconds", "an HTTP job's time limit for connecting", low=1, high=3_600_000
    )
    http_read_timeout_ms: int = described(
        5000,
        "httpReadTimeoutMilliseconds",
        "an HTTP job's time limit for each wait for data of the answer; `timeoutSeconds` limits the whole request",
        low=1,
        high=86_400_000,
    )
    zone: str = described("UTC", "timeZone", "time zone of `cron`: a name such as `Europe/Berlin`", change=Change.TIMES)
    dialect: Dialect = described(Dialect.QUARTZ, "cronDialect", "syntax of `cron`", change=Change.TIMES, see="cron.md")
    triggers: tuple[str, ...] = described(
        (),
        "triggers",
        "further triggers of a TRANSIENT job: cron expressions, `@every 90m`, `@at 2026-12-24T18:00`, and `@after 10m`"
        ", which counts from the end of a run; two that are due at one instant make one run",
        max_length=MAX_TRIGGERS,
        change=Change.TIMES,
        see=_TRIGGERS,
    )
    start_time: str = described(
        "",
        "startTime",
        "time in `timeZone` before which a TRANSIENT job does not fire, such as `2026-12-01T06:00`; `@every` counts "
        "from it",
        pattern=_LOCAL_FORM,
        change=Change.TIMES,
        see=_TRIGGERS,
    )
    end_time: str = described(
        "",
        "endTime",
        "time in `timeZone` after which a TRANSIENT job does not fire",
        pattern=_LOCAL_FORM,
        change=Change.TIMES,
        see=_TRIGGERS,
    )
    blackouts: tuple[str, ...] = described(
        (),
        "blackouts",
        "times in `timeZone` at which a TRANSIENT job does not fire, such as `SAT,SUN`, `MON-FRI 08:00-18:00`, or "
        "`2026-12-24/2027-01-01`",
        max_length=MAX_BLACKOUTS,
        change=Change.TIMES,
        see=_BLACKOUTS,
    )
    skip_on: tuple[str, ...] = described(
        (),
        "skipOn",
        "calendars of the team; a TRANSIENT job does not fire on their days",
        max_length=MAX_CALENDARS_OF_JOB,
        change=Change.TIMES,
        see=_CALENDARS,
    )
    only_on: tuple[str, ...] = described(
        (),
        "onlyOn",
        "calendars of the team; a TRANSIENT job fires only on days that one of them has",
        max_length=MAX_CALENDARS_OF_JOB,
        change=Change.TIMES,
        see=_CALENDARS,
    )
    on_excluded_day: ExcludedDay = described(
        ExcludedDay.SKIP,
        "onExcludedDay",
        "rule for a fire time on a day that `skipOn` or `onlyOn` excludes; `skip`: it is left out; `next`, `previous`: "
        "it moves to the next or the previous day that is not excluded, at the same wall time",
        change=Change.TIMES,
        see="cron.md#business-days",
    )
    jitter_ms: int = described(
        0,
        "jitterSeconds",
        "maximum delay of a run after its fire time; each fire time has a delay of its own; this spreads jobs that "
        "are due together; 0: none",
        unit=Unit.MILLI,
        high=MAX_JITTER_MS,
        change=Change.NONE,
        see=_LATE,
    )
    start_deadline_ms: int = described(
        0,
        "startDeadlineSeconds",
        "time after the fire time of a run; if no shard has started by then, the run is cancelled; 0: never",
        unit=Unit.MILLI,
        high=MAX_RUN_MS,
        change=Change.NONE,
        see=_LATE,
    )
    gap: Gap = described(
        Gap.RUN_AFTER,
        "dstGap",
        "rule for a fire time that the clock skips when daylight saving time begins",
        change=Change.TIMES,
        see=_CLOCK,
    )
    fold: Fold = described(
        Fold.AUTO,
        "dstFold",
        "rule for a fire time that the clock shows twice when daylight saving time ends",
        change=Change.TIMES,
        see=_CLOCK,
    )
    catch_up: CatchUp = described(
        CatchUp.SKIP,
        "catchUp",
        "rule for missed firings, such as those due while no scheduler led; `skip`: none runs; "
        "`once`: one run for all; `all`: the last `catchUpLimit` of them run",
        change=Change.NONE,
        see="#overlap-overload-and-gaps",
    )
    catch_up_limit: int = described(
        10,
        "catchUpLimit",
        "with `catchUp: all`: maximum number of missed firings that run",
        low=1,
        high=MAX_WAITING,
        change=Change.NONE,
    )
    concurrency: Concurrency = described(
        Concurrency.FORBID,
        "concurrency",
        "rule for a firing of a TRANSIENT job that is due before an earlier run has ended",
        change=Change.NONE,
        see="#overlap-overload-and-gaps",
    )
    concurrency_limit: int = described(
        10,
        "concurrencyLimit",
        "with `concurrency: allow`: maximum number of runs at once",
        low=1,
        high=MAX_WAITING,
        change=Change.NONE,
    )
    misfire: bool = described(
        False,
        "misfire",
        "true: a firing that is due before earlier runs have ended waits for their end; false: the firing is skipped. "
        "`concurrency: allow` and `replace` may let the firing run all the same",
        change=Change.NONE,
        elastic_job=True,
    )
    misfire_limit: int = described(
        MAX_WAITING,
        "misfireLimit",
        "with `misfire: true`: maximum number of firings that wait; further firings are skipped",
        low=1,
        high=MAX_WAITING,
        change=Change.NONE,
    )
    failover: bool = described(
        False,
        "failover",
        "true: a shard starts again if the cluster lost an attempt that may have run",
        change=Change.NONE,
        see="#repeats",
        elastic_job=True,
    )
    failover_attempts: int = described(
        10,
        "failoverAttempts",
        "maximum number of repeats in a row after lost attempts; then the shard is DEAD",
        high=MAX_REPEATS,
        change=Change.NONE,
    )
    failover_delay_ms: int = described(
        1_000,
        "failoverDelaySeconds",
        "wait before the first repeat after a lost attempt; doubled for each further repeat",
        unit=Unit.MILLI,
        low=MIN_DELAY_MS,
        high=MAX_DELAY_MS,
        change=Change.NONE,
    )
    failover_most_ms: int = described(
        60_000,
        "failoverMaxDelaySeconds",
        "maximum wait before a repeat after a lost attempt; at least `failoverDelaySeconds`",
        unit=Unit.MILLI,
        low=MIN_DELAY_MS,
        high=MAX_DELAY_MS,
        change=Change.NONE,
    )
    partition: PartitionPolicy = described(
        PartitionPolicy.WAIT,
        "partitionPolicy",
        "rule for a shard on an unreachable agent; `wait`: it waits for the agent; `replace`: another attempt starts; "
        "independent of `failover`",
        change=Change.NONE,
    )
    replace_after_ms: int = described(
        0,
        "replaceAfterSeconds",
        "with `partitionPolicy: replace`: time for which an agent is unreachable before another attempt starts",
        unit=Unit.MILLI,
        high=MAX_DELAY_MS,
        change=Change.NONE,
    )
    update_strategy: UpdateStrategy = described(
        UpdateStrategy.ROLLING,
        "updateStrategy",
        "`rolling`: replace a DAEMON job's shards a few at a time; `recreate`: end all of them before any starts again",
        change=Change.NONE,
        see="#updates-of-resident-jobs",
    )
    max_unavailable: int = described(
        1,
        "maxUnavailable",
        "with `updateStrategy: rolling`: maximum number of shards that are down at once",
        low=1,
        high=MAX_SHARDS,
        change=Change.NONE,
    )
    independent_shards: bool = described(
        False,
        "independentShards",
        "true: the work of a DAEMON job's shard depends on its item and parameter, but not on `shardingTotalCount`",
        change=Change.NONE,
        see="#updates-of-resident-jobs",
    )
    retry_count: int = described(
        0,
        "retryCount",
        "maximum number of repeats after attempts that fail by the job's own fault; then the shard is DEAD",
        high=MAX_REPEATS,
        change=Change.NONE,
        see="#repeats",
    )
    retry_delay_ms: int = described(
        10_000,
        "retryDelaySeconds",
        "wait before the first repeat after a failed attempt; doubled for each further repeat",
        unit=Unit.MILLI,
        low=MIN_DELAY_MS,
        high=MAX_DELAY_MS,
        change=Change.NONE,
    )
    retry_most_ms: int = described(
        3_600_000,
        "retryMaxDelaySeconds",
        "maximum wait before a repeat after a failed attempt, without the jitter; at least `retryDelaySeconds`",
        unit=Unit.MILLI,
        low=MIN_DELAY_MS,
        high=MAX_DELAY_MS,
        change=Change.NONE,
    )
    retry_jitter: int = described(
        100,
        "retryJitter",
        "maximum addition to the wait after a failed attempt, as a fraction of this wait; spreads repeats of shards "
        "that "
        "failed together",
        unit=Unit.MILLI,
        high=1_000,
        change=Change.NONE,
    )
    shard_parameters: str = described(
        "",
        "shardingItemParameters",
        "parameters of single shards by item, such as `0=Berlin,1=Paris`; or an object, such as "
        f'`{{"0": "a=b,c"}}`, if a parameter contains `,` or `=`; {_SIZE}',
        unit=Unit.TEXT_OR_ITEMS,
        change=Change.SHARDS,
        elastic_job=True,
    )
    parameter: str = described(
        "", "jobParameter", f"parameter of all shards; {_SIZE}", max_length=MAX_TEXT, elastic_job=True
    )
    parameter_schema: str = described(
        "",
        "parameterSchema",
        "JSON schema of an object, as a text: `jobParameter` is then such an object in JSON, and the parameter of a "
        "trigger is checked; empty: any text",
        max_length=MAX_PARAMETER_SCHEMA,
        change=Change.NONE,
        see="api.md#parameters-with-a-schema",
    )
    placeholders: tuple[str, ...] = described(
        (),
        "placeholders",
        "fields in which placeholders such as `{fire_time:%Y-%m-%d}` are replaced when a shard starts: `jobParameter`, "
        "`shardingItemParameters`, `scriptCommandLine`; braces in other fields stay as they are",
        max_length=len(WITH_PLACEHOLDERS),
        see="executor.md#placeholders",
    )
    priority: int = described(
        0,
        "priority",
        "within a team, shards of jobs with a higher priority are placed first, but after shards whose last attempt "
        "was lost",
        low=-MAX_PRIORITY,
        high=MAX_PRIORITY,
        change=Change.NONE,
    )
    isolation: Isolation = described(
        Isolation.SHARED,
        "isolation",
        "`shared`: the shards of an app on an agent share a worker process; `process`: each shard has a process of its "
        "own; the shards of SCRIPT and HTTP jobs always have one",
        see="executor.md#what-is-guaranteed",
    )
    timeout_ms: int = described(
        0,
        "timeoutSeconds",
        "time limit of an attempt of a TRANSIENT job, or of an execution of a DAEMON job; one that exceeds it fails "
        "with the cause `timeout`; 0: no limit",
        unit=Unit.MILLI,
        high=MAX_RUN_MS,
        see="operations.md#executors-that-hang",
    )
    kill_grace_ms: int = described(
        5_000,
        "killGraceSeconds",
        "time for which an attempt may continue after it was asked to end; then the executor ends it by force",
        unit=Unit.MILLI,
        high=MAX_KILL_GRACE_MS,
        see="executor.md#what-is-guaranteed",
    )
    memory_limit_mb: int = described(
        0,
        "memoryLimitMB",
        "limit for the address space of each process of an attempt, in MB; not for jobs that share a worker; 0: no "
        "limit",
        high=64 << 20,
        see="executor.md#limits",
    )
    cpu_limit_s: int = described(
        0,
        "cpuLimitSeconds",
        "limit for the CPU time of each process of an attempt, in seconds; not for jobs that share a worker; 0: no "
        "limit",
        high=30 * 86_400,
        see="executor.md#limits",
    )
    open_files_limit: int = described(
        0,
        "openFilesLimit",
        "limit for the open files of each process of an attempt; not for jobs that share a worker; 0: no limit",
        high=1 << 20,
        see="executor.md#limits",
    )
    bean: str = described(
        "", "beanName", "name of the job in its `applicationContext`", json_default=None, elastic_job=True
    )
    context: str = described(
        "",
        "applicationContext",
        "`package.module:Name` of a function that returns a mapping from names to jobs; each worker calls it once; "
        "for Java also Spring's configuration, such as `classpath:beans.xml`; required with `beanName`",
        json_default=None,
        elastic_job=True,
    )
    listeners: tuple[str, ...] = described(
        (),
        "listener",
        "classes that are called before and after each execution of a shard: names of entry points, "
        "`package.module:Class`, or Java classes; not for SCRIPT and HTTP jobs",
        max_length=MAX_LISTENERS,
        see=_PLUGINS,
        elastic_job=True,
    )
    firing_listener: str = described(
        "",
        "distributedListener.class",
        "class that is called before and after each run of a TRANSIENT job; without such a class, leave out "
        "`distributedListener` or set it to null",
        json_default=REQUIRED,
        see=_PLUGINS,
        elastic_job=True,
    )
    before_timeout_ms: int = described(
        0,
        "distributedListener.startedTimeoutMilliseconds",
        "time limit of the call before the run; 0: no limit",
        high=MAX_RUN_MS,
        elastic_job=True,
    )
    after_timeout_ms: int = described(
        0,
        "distributedListener.completedTimeoutMilliseconds",
        "time limit of the call after the run; 0: no limit",
        high=MAX_RUN_MS,
        elastic_job=True,
    )
    error_handler: str = described(
        "log",
        "jobProperties.job_exception_handler",
        "handler of failures: `log`, `fail`, `ignore`, `webhook`, an entry point's name, `package.module:Class`, or a "
        "Java class; `default` means `log`",
        json_default="default",
        see=_PLUGINS,
        elastic_job=True,
    )
    error_webhook: str = described(
        "",
        "jobProperties.job_exception_webhook",
        "URL that the handler `webhook` calls after each failed execution; its host is in the setting "
        "`http_jobs.hosts`",
    )
    thread_pool: str = described(
        "",
        "jobProperties.executor_service_handler",
        "class that creates the threads of a Java job's shards, or `SINGLE_THREAD`; `default`: each shard has a thread "
        "of its own",
        json_default="default",
        see="java.md#listeners-and-handlers",
        elastic_job=True,
    )
    secrets: tuple[str, ...] = described(
        (),
        "secrets",
        "secrets of the team that each attempt gets, such as `DB_PASSWORD=secret:db-password`, or "
        "`tls.key=secret-file:tls-key` for a file",
        max_length=MAX_SECRETS,
        see="security.md#secrets",
    )
    environment: tuple[str, ...] = described(
        (),
        "environment",
        "variables of the shards' processes, such as `REGION=eu`, in addition to those of the app or in place of them; "
        "not for HTTP jobs and for jobs that share a worker; no secrets: everybody who may see the job sees them",
        max_length=MAX_VARIABLES,
        see=_ENVIRONMENT,
    )
    description: str = described(
        "", "description", "text for people", max_length=MAX_TEXT, change=Change.NONE, elastic_job=True
    )
    labels: str = described(
        "",
        "labels",
        "labels for people and alerts, such as `owner=alice,tier=gold`; alerts name the owner",
        change=Change.NONE,
        see="alerts.md#owners",
    )
    late_after_ms: int = described(
        0,
        "lateAfterSeconds",
        "time after the fire time at which an unfinished run of a TRANSIENT job counts as late, and an alert opens; "
        "0: never",
        unit=Unit.MILLI,
        high=MAX_RUN_MS,
        change=Change.NONE,
        see="alerts.md#conditions",
    )
    no_success_ms: int = described(
        0,
        "noSuccessSeconds",
        "time without a successful run of a TRANSIENT job after which an alert opens; 0: never",
        unit=Unit.MILLI,
        high=MAX_SILENT_MS,
        change=Change.NONE,
        see="alerts.md#conditions",
    )
    expected_by: str = described(
        "",
        "expectedBy",
        "time of the day in `timeZone` at which an alert opens if no run of a TRANSIENT job has succeeded on this day, "
        "such as `06:00`, or `MON-FRI 06:00`",
        max_length=_MAX_EXPECTED,
        change=Change.NONE,
        see="alerts.md#success-expected-by",
    )
    constraints: tuple[str, ...] = described(
        (),
        "constraints",
        "conditions that an agent must meet, such as `zone == a`, `cores >= 16`, `at most 1 per host` or `near cache`",
        max_length=MAX_CONSTRAINTS,
        change=Change.PLACE,
        see=_PLACES,
    )
    preferences: tuple[str, ...] = described(
        (),
        "preferences",
        "conditions that an agent should meet, each with a weight from 1 to 100, such as `5: zone == a`; without a "
        "weight: 1",
        max_length=MAX_CONSTRAINTS,
        change=Change.NONE,
        see="placement.md#preferences",
    )
    pools: tuple[str, ...] = described(
        (),
        "pools",
        "pools of which each running shard takes a slot, such as `orders-db`; `2 of orders-db` takes two, and "
        "`*:orders-db` is a pool of all teams",
        max_length=MAX_CONSTRAINTS,
        change=Change.NONE,
        see="placement.md#pools",
    )
    avoid_after: int = described(
        3,
        "avoidAgentAfterFailures",
        "number of failures in a row on an agent after which the job avoids this agent for ten minutes; 0: never",
        high=100,
        change=Change.NONE,
        see="placement.md#agents-on-which-a-job-fails",
    )
    webhook_secrets: tuple[str, ...] = described(
        (),
        "webhookSecrets",
        "secrets of the team with the keys of the webhook of a TRANSIENT job: one secret, or two while the sender "
        "changes its key; empty: the job has no webhook",
        max_length=MAX_WEBHOOK_KEYS,
        change=Change.NONE,
        see=_WEBHOOKS,
    )
    webhook_scheme: WebhookScheme = described(
        WebhookScheme.STANDARD,
        "webhookScheme",
        "scheme by which the sender of the webhook signs: Standard Webhooks, that of GitHub, or that of Stripe",
        change=Change.NONE,
        see=_WEBHOOKS,
    )
    webhook_parameters: tuple[str, ...] = described(
        (),
        "webhookParameters",
        "entries NAME=POINTER, such as `branch=/ref`: `jobParameter` of the run is an object with these names, and the "
        "JSON Pointers select the values in the body of the webhook; empty: the run has the parameter of the job",
        max_length=MAX_WEBHOOK_PARAMETERS,
        change=Change.NONE,
        see=_WEBHOOKS,
    )
    item_range: str = described(
        "",
        "shardingItemRange",
        "range of numbers or dates that the shards of a TRANSIENT job's run divide among themselves, such as "
        "`1..1000000`, `2026-01-01..2026-12-31` or `{fire_time}-7d..{fire_time}-1d`; the parameter of each shard is "
        "its part; not with `shardingItemParameters`",
        max_length=MAX_RANGE,
        change=Change.SHARDS,
        see="#ranges",
    )
    gang_start: bool = described(
        False,
        "gangStart",
        "true: the shards of a run start together; while one of them finds no room, none of them starts",
        change=Change.NONE,
        see="placement.md#gang-start",
    )
    files: str = described(
        "",
        "files",
        "files that each shard can read, as an object from paths to texts, such as "
        '`{"conf/app.properties": "region=eu"}`, in addition to those of the app or in place of them; not for HTTP '
        "jobs; no secrets: everybody who may see the job sees them",
        unit=Unit.FILES,
        see=_FILES,
    )
    #: of an ad-hoc job, the part of the key that makes it unique; "" for a registered job. An ad-hoc job has no cron
    ad_hoc: str = field(default="", kw_only=True)

    def __hash__(self) -> int:
        """A hash of a few fields that differ between most jobs. It must be cheap: caches hash the job of each task."""
        return hash((self.name, self.shard_count, self.cron))

    def __post_init__(self) -> None:
        check_name("jobName", self.name)
        check_team("team", self.team)
        check_name("appName", self.app)
        check_ranges(self, leave_out=frozenset() if self.type is JobType.HTTP else _HTTP_TIMEOUTS)
        for name, text in (("jobParameter", self.parameter), ("description", self.description)):
            check_text(name, text)
        self._check_type()
        self._check_limits()
        self._check_listeners()
        self._check_secrets()
        if self.environment:
            self._check_environment()
        if self.files:
            self._check_files()
        if self.placeholders:
            self._check_placeholders()
        _check_list("constraints", self.constraints)
        _check_list("preferences", self.preferences)
        _check_list("pools", self.pools)
        self._check_repeats()
        self._check_overlap()
        self._check_updates()
        if self.webhook_secrets or self.webhook_parameters or self.webhook_scheme is not WebhookScheme.STANDARD:
            self._check_webhook()
        if self.ad_hoc:
            self._check_ad_hoc()
        else:
            self._check_times()
            self._check_expected()
        parse_shard_parameters(self.shard_parameters, self.shard_count)
        if self.item_range:
            self._check_item_range()
        parse_labels(self.labels)

    def _check_ad_hoc(self) -> None:
        if self.kind is JobKind.DAEMON:
            raise ConfigError(
                Told("an ad-hoc run must end", "ad_hoc_ends"),
                field="jobExecutionType",
                fix=Told("register the DAEMON job", "register_daemon"),
            )
        for name, given in (("cron", self.cron), *self._times_of_transient_jobs()):
            if given:
                raise ConfigError(Told("an ad-hoc run fires once", "ad_hoc_once"), field=name, fix=LEAVE_OUT)
        if self.no_success_ms:
            raise ConfigError(
                Told("an ad-hoc run has no other run", "ad_hoc_alone"), field="noSuccessSeconds", fix=LEAVE_OUT
            )
        if self.expected_by:
            raise ConfigError(Told("an ad-hoc run has no other run", "ad_hoc_alone"), field="expectedBy", fix=LEAVE_OUT)
        if not _AD_HOC.fullmatch(self.ad_hoc):
            raise ConfigError(not_valid(self.ad_hoc[:80], "is not the suffix of an ad-hoc job"), field="jobName")

    def _check_webhook(self) -> None:
        if self.kind is JobKind.DAEMON or self.ad_hoc:
            problem = Told("is for registered TRANSIENT jobs; nothing else can be triggered", "webhook_kind")
            raise ConfigError(problem, field="webhookSecrets", fix=LEAVE_OUT)
        if not self.webhook_secrets:
            field = "webhookParameters" if self.webhook_parameters else "webhookScheme"
            fix = Told("name the secret with the key in webhookSecrets", "webhook_secret")
            raise ConfigError(Told("is for jobs with a webhook", "webhook_only"), field=field, fix=fix)
        if len(self.webhook_secrets) > MAX_WEBHOOK_KEYS or len(set(self.webhook_secrets)) < len(self.webhook_secrets):
            fix = at_most(MAX_WEBHOOK_KEYS, " different ones")
            raise ConfigError(
                Told("has too many entries, or one twice", "many_or_twice"), field="webhookSecrets", fix=fix
            )
        for number, name in enumerate(self.webhook_secrets, 1):
            if not is_label(name):
                # The entry itself is not shown, because it may be a key by mistake.
                raise ConfigError(
                    bad_entry(number, "is no name of a secret"),
                    field="webhookSecrets",
                    fix=Told(LABEL_RULE, "label_rule", most=MAX_LABEL),
                )
        parse_webhook_parameters(self.webhook_parameters)

    def _times_of_transient_jobs(self) -> tuple[tuple[str, object], ...]:
        """The fields that only registered TRANSIENT jobs have, with their values."""
        return (
            ("triggers", self.triggers),
            ("startTime", self.start_time),
            ("endTime", self.end_time),
            ("blackouts", self.blackouts),
            ("skipOn", self.skip_on),
            ("onlyOn", self.only_on),
            ("onExcludedDay", self.on_excluded_day is not ExcludedDay.SKIP),
            ("jitterSeconds", self.jitter_ms),
            ("startDeadlineSeconds", self.start_deadline_ms),
        )

    def _check_expected(self) -> None:
        if not self.expected_by:
            return
        if self.kind is JobKind.DAEMON:
            problem = of_transient("the run of a DAEMON job does not end")
            raise ConfigError(problem, field="expectedBy", fix=LEAVE_OUT)
        try:
            if len(self.expected_by) > _MAX_EXPECTED:
                text = f"is longer than {_MAX_EXPECTED} characters; write MON-FRI 06:00"
                raise ValueError(Told(text, "too_long", most=_MAX_EXPECTED))
            parse_expected(self.expected_by)
        except ValueError as error:
            raise ConfigError(text_of(error), field="expectedBy") from None

    def _check_times(self) -> None:
        if self.kind is JobKind.DAEMON:
            for name, given in self._times_of_transient_jobs():
                if given:
                    problem = of_transient("the shards of a DAEMON job follow `cron` alone")
                    raise ConfigError(problem, field=name, fix=LEAVE_OUT)
        for name, given in (("skipOn", self.skip_on), ("onlyOn", self.only_on)):
            if len(given) > MAX_CALENDARS_OF_JOB:
                raise ConfigError(too_many(len(given), "entries"), field=name, fix=at_most(MAX_CALENDARS_OF_JOB))
            for calendar in given:
                check_name(name, calendar)
        if self.on_excluded_day is not ExcludedDay.SKIP and not self.calendars:
            fix = Told("name calendars in skipOn or onlyOn, or leave it out", "name_calendars")
            raise ConfigError(Told("is for jobs with calendars", "calendars_only"), field="onExcludedDay", fix=fix)
        self.times()
        if self.delay_ms and self.on_excluded_day is not ExcludedDay.SKIP:
            fix = Told("leave it out: a run of @after waits for the next open day", "after_waits")
            raise ConfigError(
                Told("does not fit @after, which has no wall time", "not_after"), field="onExcludedDay", fix=fix
            )
        if 0 < self.start_deadline_ms <= self.jitter_ms:
            fix = Told("lower jitterSeconds, or raise the deadline", "raise_deadline")
            raise ConfigError(
                Told("is not longer than jitterSeconds", "short_deadline"), field="startDeadlineSeconds", fix=fix
            )

    def _check_type(self) -> None:
        if self.type is JobType.SCRIPT:
            if not self.script.strip():
                raise ConfigError(
                    Told("a SCRIPT job needs a command", "script_needed"),
                    field="scriptCommandLine",
                    fix=such_as('"bin/report.sh"', "e.g. "),
                )
            check_text("scriptCommandLine", self.script)
        elif self.type is JobType.HTTP:
            self._check_http()
        elif not self.job_class and not self.bean:
            raise ConfigError(
                MISSING, field="jobClass", fix=Told('name the class as "package.module:Class"', "class_form")
            )
        if self.job_class and not _CLASS.fullmatch(self.job_class):
            problem = not_valid(self.job_class[:80], "names neither a Python object nor a Java class")
            raise ConfigError(
                problem, field="jobClass", fix=choose('"package.module:Name" or "com.example.Outer$Inner"')
            )
        if self.context and not (_CLASS.fullmatch(self.context) or is_spring_xml(self.context)):
            problem = not_valid(self.context[:80], "names neither an object nor an XML file in the class path")
            fix = Told('use "package.module:Name", or for Spring "classpath:beans.xml", without ".."', "context_form")
            raise ConfigError(problem, field="applicationContext", fix=fix)
        if self.bean and not self.context:
            raise ConfigError(
                Told("is required with beanName", "context_needed"),
                field="applicationContext",
                fix=Told("set it, or drop beanName", "context_or_bean"),
            )

    def _check_http(self) -> None:
        if not _URI.fullmatch(self.http_uri):
            raise ConfigError(
                Told("is not an http(s) URI", "no_uri"),
                field="httpUri",
                fix=such_as('"https://orders.example.org/settle"', "e.g. "),
            )
        if not _CONTENT_TYPE.fullmatch(self.http_content_type):
            raise ConfigError(
                Told("is not a media type", "no_media_type"),
                field="httpContentType",
                fix=such_as('"application/json"', "e.g. "),
            )
        check_text("httpData", self.http_data)

    def _check_listeners(self) -> None:
        handler = "jobProperties.job_exception_handler"
        named = [("listener", name) for name in self.listeners] + [(handler, self.error_handler)]
        if self.firing_listener:
            named.append(("distributedListener.class", self.firing_listener))
        if self.thread_pool:
            named.append(("jobProperties.executor_service_handler", self.thread_pool))
        for where, name in named:
            if not _PLUGIN.fullmatch(name) or len(name) > MAX_PLUGIN_NAME:
                fix = Told('use an entry point\'s name, "package.module:Class" or a Java class', "plugin_form")
                raise ConfigError(not_valid(name[:80], "does not name a plug-in"), field=where, fix=fix)
        if len(self.listeners) > MAX_LISTENERS:
            raise ConfigError(too_many(len(self.listeners), "names"), field="listener", fix=at_most(MAX_LISTENERS))
        if self.type in _OWN_PROCESS:
            without = Told(f"a {self.type} job has no worker that could call it", "no_worker", type=str(self.type))
            if self.listeners:
                raise ConfigError(
                    without, field="listener", fix=Told("leave it out, or use distributedListener", "use_distributed")
                )
            if self.error_handler not in OWN_ERROR_HANDLERS:
                raise ConfigError(without, field=handler, fix=choose(", ".join(OWN_ERROR_HANDLERS)))
            if self.thread_pool:
                raise ConfigError(without, field="jobProperties.executor_service_handler", fix=LEAVE_OUT)
        if self.firing_listener and self.kind is JobKind.DAEMON:
            problem = Told("the shards of a DAEMON job do not share a run", "no_common_run")
            raise ConfigError(
                problem,
                field="distributedListener",
                fix=Told("use listener, which is called before and after each shard", "use_listener"),
            )
        if (self.error_handler == "webhook") != bool(self.error_webhook):
            problem = (
                Told("is for the handler webhook only", "handler_webhook_only")
                if self.error_webhook
                else Told("is required by the handler webhook", "handler_webhook_needs")
            )
            raise ConfigError(
                problem,
                field="jobProperties.job_exception_webhook",
                fix=Told("give both or neither", "both_or_neither"),
            )

    def _check_secrets(self) -> None:
        if len(self.secrets) > MAX_SECRETS:
            raise ConfigError(too_many(len(self.secrets), "entries"), field="secrets", fix=at_most(MAX_SECRETS))
        uses = parse_secrets(self.secrets)
        if not uses or self.type is not JobType.HTTP:
            for key in (use.key for use in uses if not use.file and not _VARIABLE.fullmatch(use.key)):
                fix = Told("letters, digits and '_'; JOBCLOUD_ and MESOS_ are reserved", "variable_rule")
                raise ConfigError(
                    Told(f"{key!r} cannot be the name of a variable", "no_variable", key=key), field="secrets", fix=fix
                )
            return
        for use in uses:
            if use.file or not _HEADER.fullmatch(use.key):
                problem = Told(f"{use.key!r} cannot be a header with a secret of an HTTP job", "no_header", key=use.key)
                raise ConfigError(problem, field="secrets", fix=such_as("Authorization=secret:api-token"))
        if not self.http_uri.startswith("https://") and not _LOOPBACK_URI.fullmatch(self.http_uri):
            raise ConfigError(
                Told("would be sent without TLS", "without_tls"),
                field="secrets",
                fix=Told("use an httpUri with https", "use_https"),
            )

    def _check_environment(self) -> None:
        variables = parse_environment(self.environment)
        if self.type is JobType.HTTP:
            raise ConfigError(
                Told("an HTTP job runs no code of the app", "http_no_code"), field="environment", fix=LEAVE_OUT
            )
        if self.shares_worker:
            fix = Told(
                'use isolation "process", or set the variables for all jobs in the environment of the app',
                "isolate_or_app",
            )
            raise ConfigError(
                Told("would be that of all shards of the worker", "worker_environment"), field="environment", fix=fix
            )
        for use in parse_secrets(self.secrets):
            if use.key in variables:
                raise ConfigError(
                    Told(f"{use.key} is also the key of a secret", "key_of_secret", key=use.key),
                    field="environment",
                    fix=Told("rename one", "rename_one"),
                )

    def _check_files(self) -> None:
        parse_files(self.files)
        if self.type is JobType.HTTP:
            raise ConfigError(Told("an HTTP job runs no code of the app", "http_no_code"), field="files", fix=LEAVE_OUT)

    def _check_placeholders(self) -> None:
        for name in self.placeholders:
            if name not in WITH_PLACEHOLDERS:
                fix = choose(", ".join(WITH_PLACEHOLDERS))
                raise ConfigError(not_valid(name[:80], "is no field with placeholders"), field="placeholders", fix=fix)
        if len(set(self.placeholders)) < len(self.placeholders):
            raise ConfigError(
                Told("names a field twice", "field_twice"), field="placeholders", fix=Told("name it once", "give_once")
            )
        if self.type is not JobType.SCRIPT and "scriptCommandLine" in self.placeholders:
            raise ConfigError(
                Told(f"a {self.type} job has no scriptCommandLine", "no_script", type=str(self.type)),
                field="placeholders",
                fix=LEAVE_OUT,
            )

    def _check_item_range(self) -> None:
        name = "shardingItemRange"
        if self.kind is JobKind.DAEMON:
            problem = of_transient("the shards of a DAEMON job divide no work of a run")
            raise ConfigError(problem, field=name, fix=LEAVE_OUT)
        if self.shard_parameters.strip():
            fix = Told("leave out one of them", "leave_one_out")
            raise ConfigError(
                Told("gives the shards other parameters than shardingItemParameters", "two_parameters"),
                field=name,
                fix=fix,
            )
        try:
            least = parse_range(self.item_range).least
        except ValueError as error:
            raise ConfigError(text_of(error), field=name) from None
        if least < self.shard_count:
            fix = Told(f"lower shardingTotalCount to at most {least}, or widen the range", "widen_range", least=least)
            problem = Told(
                f"may have only {least} numbers or days, which are too few for {self.shard_count} shards",
                "few_numbers",
                least=least,
                shards=self.shard_count,
            )
            raise ConfigError(problem, field=name, fix=fix)

    def _check_limits(self) -> None:
        limits = (
            ("memoryLimitMB", self.memory_limit_mb),
            ("cpuLimitSeconds", self.cpu_limit_s),
            ("openFilesLimit", self.open_files_limit),
        )
        for name, limit in limits:
            if limit and self.shares_worker:
                raise ConfigError(
                    Told("would limit all shards of the worker together", "worker_limit"),
                    field=name,
                    fix=Told('use isolation "process"', "isolate"),
                )

    def _check_overlap(self) -> None:
        if self.kind is JobKind.DAEMON and self.concurrency is not Concurrency.FORBID:
            raise ConfigError(of_transient("runs of a DAEMON job never overlap"), field="concurrency", fix=DROP)

    def _check_updates(self) -> None:
        if self.kind is JobKind.DAEMON:
            if self.gang_start:
                problem = of_transient("the shards of a DAEMON job start and are replaced one by one")
                raise ConfigError(problem, field="gangStart", fix=LEAVE_OUT)
            return
        for name, given in (
            ("updateStrategy", self.update_strategy is not UpdateStrategy.ROLLING),
            ("maxUnavailable", self.max_unavailable != 1),
            ("independentShards", self.independent_shards),
        ):
            if given:
                raise ConfigError(
                    Told("is for DAEMON jobs; the shards of a TRANSIENT run have one version", "of_daemon"),
                    field=name,
                    fix=DROP,
                )

    def _check_repeats(self) -> None:
        for name, delay_ms, max_ms in (
            ("retry", self.retry_delay_ms, self.retry_most_ms),
            ("failover", self.failover_delay_ms, self.failover_most_ms),
        ):
            if max_ms < delay_ms:
                raise ConfigError(
                    Told(f"is less than {name}DelaySeconds", "less_than", other=f"{name}DelaySeconds"),
                    field=f"{name}MaxDelaySeconds",
                    fix=Told("raise the maximum, or lower the delay", "raise_maximum"),
                )

    @property
    def key(self) -> str:
        """The job's identifier in its cluster."""
        return key_of(self.team, f"{self.name}{_AD_HOC_MARK}{self.ad_hoc}" if self.ad_hoc else self.name)

    @property
    def owner(self) -> str:
        """The label `owner`, or ""."""
        return parse_labels(self.labels).get("owner", "") if self.labels else ""

    @property
    def app_key(self) -> str:
        """The key of the job's app, which belongs to the same team."""
        return key_of(self.team, self.app)

    @property
    def shares_worker(self) -> bool:
        """Whether the shards run in the worker process that all jobs of the app share."""
        return self.isolation is Isolation.SHARED and self.type not in _OWN_PROCESS

    @property
    def runs_at_once(self) -> int:
        """The maximum number of firings that may run at once."""
        return self.concurrency_limit if self.concurrency is Concurrency.ALLOW else 1

    @property
    def calendars(self) -> tuple[str, ...]:
        """The keys of the calendars that the job names."""
        names = dict.fromkeys((*self.skip_on, *self.only_on))
        return tuple(key_of(self.team, name) for name in names)

    @property
    def pauses_by_itself(self) -> bool:
        """Whether there may be times and days at which the job does not fire."""
        return bool(self.blackouts or self.skip_on or self.only_on)

    @property
    def delay_ms(self) -> int:
        """The time from the end of a run to the next run by the trigger `@after`; 0 without this trigger."""
        return delay_of(self.triggers) if self.triggers else 0

    @property
    def fires_after_runs_only(self) -> bool:
        """Whether `@after` is the only trigger, so that no fire time is known in advance."""
        return bool(self.delay_ms) and not self.cron and len(self.triggers) == 1

    def times(self, calendars: Mapping[str, Days] | None = None) -> Times:
        """The fire times of the job: those of its cron expression, or of all that determines them.

        `calendars` has the days of calendars by key. If one that the job names is missing, the job has no fire time.
        None: the calendars of the job do not count. Raises ConfigError.
        """
        if not (self.triggers or self.start_time or self.end_time or self.pauses_by_itself):
            return self.schedule()
        found = timing(
            self.cron, self.triggers, self.start_time, self.end_time, self.blackouts,
            zone=self.zone, dialect=self.dialect, gap=self.gap, fold=self.fold,
        )  # fmt: skip
        if calendars is None or not (self.skip_on or self.only_on):
            return found
        if any(key not in calendars for key in self.calendars):
            return found.on_days((), ())
        skipped = [calendars[key_of(self.team, name)] for name in self.skip_on]
        only = [calendars[key_of(self.team, name)] for name in self.only_on]
        return found.by_calendars(skipped, only or None, self.on_excluded_day)

    def schedule(self) -> Schedule:
        """The parsed cron expression. Raises ConfigError."""
        if not self.cron:
            raise ConfigError(MISSING, field="cron", fix=such_as("0 0 8 * * ?", "give an expression, such as "))
        try:
            return Schedule.parse(self.cron, zone=self.zone, dialect=self.dialect, gap=self.gap, fold=self.fold)
        except CronError as error:
            raise ConfigError(text_of(error), field="cron") from error


def is_spring_xml(context: str) -> bool:
    """Whether an `applicationContext` is a configuration of Spring in the class path, not an object."""
    return _SPRING_XML.fullmatch(context) is not None


def check_name(field: str, name: str) -> None:
    """Raises ConfigError if a name cannot be part of an id, a path and a URL."""
    if not _NAME.fullmatch(name) or DELIMITER in name:
        raise ConfigError(
            not_valid(name[:120], "is not a valid name"), field=field, fix=Told(f"use {_NAME_RULE}", "name_rule")
        )


def check_text(field: str, text: str) -> None:
    """Raises ConfigError if a text is too long to store, or contains a NUL."""
    if len(text) > MAX_TEXT or "\0" in text:
        raise ConfigError(
            Told(f"is longer than {MAX_TEXT} characters or contains a NUL", "long_or_nul", most=MAX_TEXT),
            field=field,
            fix=Told("shorten it", "shorten_it"),
        )


def _check_list(field: str, entries: tuple[str, ...]) -> None:
    """Raises ConfigError if a list about the placement of shards is too long. The scheduler checks what it says."""
    if len(entries) > MAX_CONSTRAINTS:
        raise ConfigError(too_many(len(entries), "entries"), field=field, fix=at_most(MAX_CONSTRAINTS))
    for number, entry in enumerate(entries, 1):
        if len(entry.encode(errors="replace")) > MAX_CONSTRAINT_BYTES or not entry.isprintable():
            fix = Told(
                f"at most {MAX_CONSTRAINT_BYTES} bytes, all of them printable",
                "printable_bytes",
                most=MAX_CONSTRAINT_BYTES,
            )
            raise ConfigError(bad_entry(number, "is too long or contains a control character"), field=field, fix=fix)


def _check_command(field: str, line: str) -> None:
    check_text(field, line)
    try:
        shlex.split(line)
    except ValueError as error:
        raise ConfigError(
            Told(f"cannot be split into words: {error}", "no_words", problem=str(error)),
            field=field,
            fix=Told("close the quotes", "close_quotes"),
        ) from error


def check_resources(resources: Resources, least: Resources = NOTHING) -> None:
    """Raises ConfigError with the JSON name of the first amount that is out of range."""
    for one, amount in zip(_amounts("", least).values(), resources, strict=True):
        one.check(amount)


def item_parameters(text: str) -> str | dict[str, str]:
    """The value of `shardingItemParameters` in JSON from its stored form: a text, or an object from item to parameter.

    No valid text in Elastic-Job's format begins with a brace. Raises ConfigError if the object is malformed.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        given = json.loads(text)
        items = {str(key): value.encode().decode() for key, value in given.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            Told("is not an object from items to texts", "no_item_object"),
            field="shardingItemParameters",
            fix=such_as('{"0": "Berlin"}', "e.g. "),
        ) from error
    return items


def stored_item_parameters(given: str | Mapping[str, str]) -> str:
    """The inverse of `item_parameters`. The order and the form of an object in JSON do not matter."""
    items = item_parameters(given) if isinstance(given, str) else given
    if isinstance(items, str):
        return items
    return json.dumps(dict(sorted(items.items(), key=_by_item)), ensure_ascii=False, separators=(",", ":"))


def _by_item(pair: tuple[str, str]) -> tuple[int, str]:
    return len(pair[0]), pair[0]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for pair in text.split(",") if text.strip() else ():
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or "=" in value:
            raise ConfigError(
                not_valid(pair[:80], "is not an item=value pair"),
                field="shardingItemParameters",
                fix=such_as('"0=Berlin,1=Paris", or an object such as {"0": "a=b,c"}', "e.g. "),
            )
        yield key, value


@lru_cache(maxsize=1024)
def parse_environment(entries: tuple[str, ...]) -> Mapping[str, str]:
    """The variables in `("REGION=eu",)`. Raises ConfigError that names the invalid one."""
    field = "environment"
    if len(entries) > MAX_VARIABLES:
        raise ConfigError(too_many(len(entries), "variables"), field=field, fix=at_most(MAX_VARIABLES))
    if (size := len(json.dumps(entries))) > MAX_ENVIRONMENT_BYTES:
        fix = Told(
            f"at most {MAX_ENVIRONMENT_BYTES:,} bytes; put large values into a file of the package",
            "shorten",
            most=MAX_ENVIRONMENT_BYTES,
        )
        raise ConfigError(too_big(size), field=field, fix=fix)
    found: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        name, sign, value = entry.partition("=")
        # The value is not shown, because it may be a secret by mistake.
        if not sign or not _VARIABLE_NAME.fullmatch(name):
            fix = Told(
                "such as REGION=eu; a name has letters, digits and '_', and begins with no digit", "environment_form"
            )
            raise ConfigError(bad_entry(number, "is not NAME=value"), field=field, fix=fix)
        if _RESERVED_VARIABLE.fullmatch(name):
            raise ConfigError(
                Told(f"{name} cannot be set", "reserved", name=name),
                field=field,
                fix=Told(_RESERVED_RULE, "reserved_rule"),
            )
        if name in found:
            raise ConfigError(twice(name), field=field, fix=GIVE_ONCE)
        if not value.isprintable() or value != value.rstrip():
            problem = Told(f"the value of {name} has a control character or ends with a space", "bad_value", name=name)
            raise ConfigError(
                problem, field=field, fix=Told("a value is one line; put others into a file of the package", "one_line")
            )
        found[name] = value
    return found


@lru_cache(maxsize=256)
def parse_files(text: str) -> Mapping[str, str]:
    """The files in their stored form: path → text. Raises ConfigError that names the invalid one."""
    field = "files"
    try:
        given = json.loads(text) if text else {}
        size = len(json.dumps(given))
    except (ValueError, RecursionError):
        given, size = None, 0
    if not isinstance(given, dict) or not all(isinstance(one, str) for one in given.values()):
        fix = such_as('{"conf/app.properties": "region=eu"}', "e.g. ")
        raise ConfigError(Told("is not an object from paths to texts", "no_file_object"), field=field, fix=fix)
    if len(given) > MAX_FILES:
        raise ConfigError(too_many(len(given), "files"), field=field, fix=at_most(MAX_FILES))
    if size > MAX_FILES_BYTES:
        fix = Told(
            f"at most {MAX_FILES_BYTES:,} bytes; put larger files into the package", "shorten", most=MAX_FILES_BYTES
        )
        raise ConfigError(too_big(size), field=field, fix=fix)
    folders: set[str] = set()
    for path, content in given.items():
        if len(path) > MAX_FILE_PATH or not _FILE_PATH.fullmatch(path):
            problem = not_valid(path[:80], "is no path of a file")
            raise ConfigError(
                problem,
                field=field,
                fix=Told(f"{_FILE_PATH_RULE}; at most {MAX_FILE_PATH} characters", "path_rule", most=MAX_FILE_PATH),
            )
        # The text is not shown, because it may have a secret by mistake.
        if "\0" in content or not _is_unicode(content):
            raise ConfigError(
                Told(f"{path} has a NUL or a half of a character", "file_nul", path=path),
                field=field,
                fix=Told("files are text in UTF-8", "utf8"),
            )
        parts = path.split("/")
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
    for path in sorted(folders & given.keys()):
        raise ConfigError(
            Told(f"{path} is a file and also the folder of another", "file_and_folder", path=path),
            field=field,
            fix=Told("rename one", "rename_one"),
        )
    return given


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def stored_files(files: Mapping[str, str]) -> str:
    """The stored form of files. Their order does not matter."""
    return json.dumps(dict(sorted(files.items())), separators=(",", ":")) if files else ""


class SecretUse(NamedTuple):
    """One entry of `secrets`: the run gets the secret `name` of its team as `key`, a value or a file."""

    key: str
    name: str
    file: bool


@lru_cache(maxsize=1024)
def parse_secrets(entries: tuple[str, ...]) -> tuple[SecretUse, ...]:
    """The secrets of a job. Raises ConfigError that names the invalid entry."""
    found: dict[str, SecretUse] = {}
    for number, entry in enumerate(entries, 1):
        parts = _SECRET_USE.fullmatch(entry)
        if parts is None:
            # The entry itself is not shown, because it may be a secret by mistake.
            fix = Told(f"KEY=secret:NAME or KEY=secret-file:NAME; NAME is {LABEL_RULE}", "secret_form", most=MAX_LABEL)
            raise ConfigError(bad_entry(number, "refers to no secret"), field="secrets", fix=fix)
        key, form, name = parts.groups()
        if key.lower() in found:
            raise ConfigError(twice(key), field="secrets", fix=Told("names may not differ in case only", "case_only"))
        found[key.lower()] = SecretUse(key, name, form == "secret-file")
    return tuple(found.values())


@lru_cache(maxsize=1024)
def parse_webhook_parameters(entries: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Parameter → the steps of the JSON Pointer to its value. Raises ConfigError that names the invalid entry."""
    field = "webhookParameters"
    if len(entries) > MAX_WEBHOOK_PARAMETERS:
        raise ConfigError(too_many(len(entries), "entries"), field=field, fix=at_most(MAX_WEBHOOK_PARAMETERS))
    found: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries, 1):
        parts = _WEBHOOK_PARAMETER.fullmatch(entry) if entry.isprintable() else None
        if parts is None or len(parts[2]) > MAX_POINTER:
            fix = Told("NAME=POINTER, such as branch=/ref or first=/commits/0/id", "pointer_form")
            raise ConfigError(bad_entry(number, "is no parameter with a JSON Pointer"), field=field, fix=fix)
        if parts[1] in found:
            raise ConfigError(twice(parts[1]), field=field, fix=GIVE_ONCE)
        steps = parts[2].split("/")[1:]
        found[parts[1]] = tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)
    return found


@lru_cache(maxsize=1024)
def parse_labels(text: str) -> Mapping[str, str]:
    """The labels in `owner=alice,tier=gold`. Raises ConfigError that names the invalid one."""
    found: dict[str, str] = {}
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > MAX_LABELS:
        raise ConfigError(
            Told(f"{len(parts)} labels are given", "too_many", number=len(parts)),
            field="labels",
            fix=at_most(MAX_LABELS),
        )
    for part in parts:
        if not _LABEL_PAIR.fullmatch(part):
            raise ConfigError(
                not_valid(part[:80], "is not a label"), field="labels", fix=Told(_LABEL_PAIR_RULE, "label_form")
            )
        name, _, value = part.partition("=")
        if name in found:
            raise ConfigError(Told(f"label {name} is given twice", "twice", name=name), field="labels", fix=GIVE_ONCE)
        found[name] = value
    return found


@lru_cache(maxsize=1024)
def parse_shard_parameters(text: str, count: int) -> tuple[str, ...]:
    """The parameter of each of `count` shards from `0=a,1=b` or a JSON object; "" for a shard without one.

    The text has the format of Elastic-Job's `shardingItemParameters`. Raises ConfigError that names the invalid pair.
    """
    given = parse_items(text, count)
    return tuple([given.get(item, "") for item in range(count)]) if given else ("",) * count


def parse_items(text: str, count: int) -> dict[int, str]:
    """As `parse_shard_parameters`, with only the shards that the text names."""
    field = "shardingItemParameters"
    check_text(field, text)
    found: dict[int, str] = {}
    given = item_parameters(text)
    for key, value in given.items() if isinstance(given, dict) else _pairs(given):
        if not key.isascii() or not key.isdigit():
            raise ConfigError(
                not_valid(key[:80], "is not an item"), field=field, fix=between("0", str(count - 1), "items are ")
            )
        check_text(field, value)
        item = int(key[:9])
        if item >= count or len(key) > 9:
            raise ConfigError(
                Told(f"item {key[:20]} is out of range", "out_of_range", value=key[:20]),
                field=field,
                fix=between("0", str(count - 1), "items are "),
            )
        if item in found:
            raise ConfigError(Told(f"item {item} is given twice", "twice", name=str(item)), field=field, fix=GIVE_ONCE)
        found[item] = value
    return found
