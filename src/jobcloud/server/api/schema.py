"""Building blocks of the API's JSON as pydantic models.

A `…Config` is a configuration, a `…View` an answer, a `…List` a list of views, and a `…Query` the parameters of a
request. The module of a resource has its views and queries.

Configurations are read strictly: no unknown field, no wrong type, no inexact number. Their schemas are generated from
the descriptions in config.py. Amounts are thousandths in Python and plain numbers in JSON; instants are milliseconds
in Python and RFC 3339 in UTC in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from types import MappingProxyType
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
from jobcloud.access.names import MAX_TOKEN_NAME, PLACE_FORM, USER_FORM
from jobcloud.access.verbs import Verb
from jobcloud.config import (
    EVERY_AGENT,
    KEY_FORM,
    LABEL_FORM,
    LABEL_RULE,
    MAX_EXECUTORS,
    MAX_FILES,
    MAX_PRIORITY,
    MAX_SHARDS,
    MAX_WAITING,
    App,
    Job,
    Resources,
    is_key,
    is_label,
    item_parameters,
    parse_files,
    qualified,
    stored_files,
    stored_item_parameters,
)
from jobcloud.fields import REQUIRED, Change, Unit
from jobcloud.model import Condition, Join, On, WaitFor
from jobcloud.scheduler.accounts import MAX_SCOPE
from jobcloud.scheduler.backfills import MAX_TIMES
from jobcloud.scheduler.workflow_graph import MAX_NODES, MAX_RESULT
from jobcloud.server.api import parameters
from jobcloud.server.api.body import json_type


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
    value = to_whole(value)
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


def to_item_parameters(value: Any) -> str:
    """The parameters of shards, as a text or an object, in their stored form."""
    if isinstance(value, str) or (isinstance(value, dict) and all(isinstance(text, str) for text in value.values())):
        return stored_item_parameters(value)
    problem = "must be a string or an object of strings, not {given}"
    given = "an object of other values" if isinstance(value, dict) else json_type(value)
    raise PydanticCustomError("items_form", problem, {"given": given})


ItemParameters = Annotated[
    str,
    BeforeValidator(to_item_parameters),
    PlainSerializer(item_parameters),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}]}),
]


def to_files(value: Any) -> str:
    """The files of an app or a job, as an object, in their stored form."""
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return stored_files(value)
    given = "an object of other values" if isinstance(value, dict) else json_type(value)
    raise PydanticCustomError("files_form", "must be an object of strings, not {given}", {"given": given})


Files = Annotated[
    str,
    BeforeValidator(to_files),
    PlainSerializer(parse_files),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MAX_FILES}),
]


def to_parameter(value: Any) -> str:
    """The parameter of a run: a text, or an object as text in JSON."""
    if isinstance(value, dict):
        return parameters.text_of(value)
    if isinstance(value, str):
        return value
    problem = "must be a string or an object, not {given}"
    raise PydanticCustomError("parameter_form", problem, {"given": json_type(value)})


Parameter = Annotated[
    str, BeforeValidator(to_parameter), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})
]


def to_whole(value: Any) -> Any:
    """A JSON number such as 2.0 as an integer: JSON does not distinguish it from 2. Other values stay as they are."""
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


Whole = Annotated[int, BeforeValidator(to_whole)]
Count = Annotated[Whole, Field(ge=-(2**31), lt=2**31)]


def _between(low: int, high: int) -> tuple[Any, ...]:
    """A range for a Whole that may be null. pydantic's own schema has no `minimum` and `maximum` for it."""
    return Field(ge=low, le=high), WithJsonSchema({"type": "integer", "minimum": low, "maximum": high})


Instant = Annotated[
    int,
    PlainSerializer(rfc3339),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
# The key of an app or a job in a path. `default:NAME` is accepted for `NAME`. A text that can be no key names nothing.
Key = Annotated[str, AfterValidator(qualified), WithJsonSchema({"type": "string", "pattern": KEY_FORM})]


def to_filter(value: str) -> str:
    """The key that a filter names, or "". Raises PydanticCustomError."""
    key = qualified(value)
    if key and not is_key(key):
        raise PydanticCustomError("key_form", "is not [TEAM:]NAME")
    return key


def to_team(value: str) -> str:
    """The team that a filter names, or "". Raises PydanticCustomError."""
    if value and not is_label(value):
        raise PydanticCustomError("team_form", "is not the name of a team: use {rule}", {"rule": LABEL_RULE})
    return value


# Filters of lists. "" stands for no filter.
KeyFilter = Annotated[str, AfterValidator(to_filter), WithJsonSchema({"type": "string", "pattern": f"^$|{KEY_FORM}"})]
TeamFilter = Annotated[str, AfterValidator(to_team), WithJsonSchema({"type": "string", "pattern": f"^$|{LABEL_FORM}"})]
# Ids and numbers in a path. An unknown or impossible one is not found.
RunId = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})]
TaskId = RunId
Number = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
# Enums arrive as text. In strict mode, pydantic would require the enum itself.
Lax = Field(strict=False)


class Config(BaseModel):
    """JSON that a user writes. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class _WithKey(Config):
    key: str = Field("", max_length=100, description="a name of the run: a second request with it starts nothing")


#: Nested objects by their JSON name: name of the schema, its description, its base.
_GROUPS = {
    "jobProperties": ("JobProperties", "Error handling and threads, under Elastic-Job's names.", Config),
    "distributedListener": (
        "DistributedListener",
        "A listener, called once before and once after a whole run.",
        Config,
    ),
}


def _generate(
    record: type,
    name: str,
    text: str,
    base: type[Config] = Config,
    parent: str = "",
    *,
    without: Set[str] = frozenset(),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> type[Config]:
    """The schema of a record, or of its nested object `parent`. The attributes are named as in Python.

    `without` names attributes to leave out. `defaults` replaces defaults in JSON.
    """
    columns: dict[str, Any] = {}
    for field in fields.fields_of(record):
        if field.name in without:
            continue
        if field.group == parent:
            columns[field.name] = _column(field._replace(json_default=defaults.get(field.name, field.json_default)))
        elif not parent and field.group not in columns:
            nested = NESTED.get(field.group) or _generate(record, *_GROUPS[field.group], parent=field.group)
            NESTED[field.group] = nested
            required = any(column.is_required() for column in nested.model_fields.values())
            columns[field.group] = (nested | None, None) if required else (nested, Field(default_factory=nested))
    return create_model(name, __base__=base, __doc__=text, __module__=__name__, **columns)


def _column(field: fields.Field) -> tuple[Any, Any]:
    """The type and the description of a field for pydantic."""
    type_: Any = field.type
    alias = field.spec.name.rpartition(".")[2]
    if type_ is int:
        type_ = {Unit.WHOLE: Count, Unit.MILLI: Amount, Unit.WHOLE_OR_EACH: Executors}[field.spec.unit]
    elif field.spec.unit is Unit.TEXT_OR_ITEMS:
        type_ = ItemParameters
    elif field.spec.unit is Unit.FILES:
        return Files, Field("", alias=alias, description=field.spec.text, json_schema_extra={"default": {}})
    elif type_ == tuple[str, ...]:
        limit = partial(_limit, field.spec)
        return list[str], Field(default_factory=list, alias=alias, description=field.spec.text, json_schema_extra=limit)
    elif isinstance(type_, type) and issubclass(type_, Enum):
        type_ = Annotated[type_, Lax]
    elif field.json_default is None:
        type_ = type_ | None
    default = ... if field.json_default is REQUIRED else field.json_default
    return type_, Field(
        default, alias=alias, description=field.spec.text, json_schema_extra=partial(_limit, field.spec)
    )


def _limit(spec: fields.Spec, schema: dict[str, Any]) -> None:
    """Add the range or the form of a field to its JSON schema. The record checks it, so that all errors are alike.

    Defaults are shown in the unit of JSON.
    """
    if spec.unit is Unit.MILLI and isinstance(schema.get("default"), int):
        schema["default"] = from_thousandths(schema["default"])
    if spec.high is not None and spec.unit is not Unit.WHOLE_OR_EACH:
        schema.pop("exclusiveMaximum", None)
        schema |= {"minimum": _number(spec, spec.low), "maximum": _number(spec, spec.high)}
        if spec.unit is Unit.MILLI and spec.step > 1:
            schema["multipleOf"] = _number(spec, spec.step)
    if spec.pattern:
        schema["pattern"] = spec.pattern
    if spec.max_length is not None:
        schema["maxItems" if schema.get("type") == "array" else "maxLength"] = spec.max_length


def _number(spec: fields.Spec, number: int) -> int | float:
    return from_thousandths(number) if spec.unit is Unit.MILLI else number


NESTED: dict[str, type[Config]] = {}
# An ad-hoc run has no fire times and no other run of its job.
NOT_AD_HOC = fields.changing(Job, Change.TIMES) | {
    "jitter_ms", "start_deadline_ms",
    "kind", "catch_up", "catch_up_limit", "concurrency", "concurrency_limit", "misfire", "misfire_limit",
    "update_strategy", "max_unavailable", "independent_shards", "no_success_ms", "expected_by", "parameter_schema",
    "webhook_secrets", "webhook_scheme", "webhook_parameters",
}  # fmt: skip
if TYPE_CHECKING:

    class AppConfig(Config): ...

    class JobConfig(Config): ...

    class AdHocConfig(Config):
        key: str

else:
    AppConfig = _generate(App, "AppConfig", "An app: a package of code and the needs of its executor on each agent.")
    JobConfig = _generate(Job, "JobConfig", "A job of an app: when it fires, its shards, and the needs of each shard.")
    AdHocConfig = _generate(
        Job,
        "AdHocConfig",
        "A job that is not registered and runs once: its app, its shards, and the needs of each shard.",
        _WithKey,
        without=NOT_AD_HOC,
        defaults={"shard_count": 1},
    )


_CAPITALS = {
    "app_url": "appURL",
    "memory_mb": "memoryMB",
    "disk_mb": "diskMB",
    "memory_mb_seconds": "memoryMBSeconds",
}


class TriggerConfig(Config):
    """The values that one run has in place of the job's own. Each field may be left out."""

    parameter: Parameter | None = Field(
        None,
        alias="jobParameter",
        description="parameter of all shards; with a parameterSchema, also an object",
    )
    item_parameters: ItemParameters | None = Field(
        None,
        alias="shardingItemParameters",
        description="parameters of single shards, as in the job; other shards keep their own",
    )
    shards: list[Count] | None = Field(
        None, min_length=1, max_length=MAX_SHARDS, description="the shards that run; default: all of them"
    )
    priority: Annotated[Whole, *_between(-MAX_PRIORITY, MAX_PRIORITY)] | None = Field(
        None, description="default: that of the job"
    )
    key: str = Field("", max_length=100, description="a name of the run: a second trigger with it starts nothing")


def to_instant(value: Any) -> int:
    """An instant of RFC 3339 in milliseconds; 0 for one before 1970. Raises PydanticCustomError."""
    problem = "must be an instant with an offset, such as 2026-01-31T08:00:00Z"
    try:
        moment = datetime.fromisoformat(value)
        found = int(moment.timestamp() * 1000) if moment.tzinfo else _END_MS
    except (TypeError, ValueError, OverflowError):
        found = _END_MS
    if found >= _END_MS:
        raise PydanticCustomError("instant_form", problem)
    return max(0, found)


_END_MS = 253_402_300_800_000  # the year 10000
GivenInstant = Annotated[int, BeforeValidator(to_instant), WithJsonSchema({"type": "string", "format": "date-time"})]


class BackfillConfig(Config):
    """The past fire times of a job that get a run, if they have none."""

    from_: GivenInstant = Field(alias="from", description="the first instant, such as 2026-01-31T08:00:00Z")
    to: GivenInstant | None = Field(None, description="the last instant; default: now")
    order: Literal["oldest", "newest"] = Field("oldest", description="which fire times come first")
    limit: Whole = Field(100, ge=1, le=MAX_TIMES, description="maximum number of runs")
    at_once: Whole = Field(
        1, alias="atOnce", ge=1, le=MAX_WAITING, description="runs at a time, if concurrency allows several"
    )
    dry_run: bool = Field(False, alias="dryRun", description="true: only list the fire times")


_Days = Annotated[list[str], Field(max_length=1_000)]


class CalendarConfig(Config):
    """The days of a calendar: a list, the holidays of a country, an iCalendar file, or several of them."""

    days: _Days = Field(default_factory=list, description="days and ranges: 2026-12-24, 2026-12-28/2027-01-01")
    without: _Days = Field(default_factory=list, description="days that the calendar does not have in any case")
    country: str = Field("", pattern="^([A-Z]{2})?$", description="its holidays: two letters of ISO 3166, such as DE")
    subdivision: str = Field("", max_length=60, description="a part of the country, such as BY")
    categories: list[Annotated[str, Field(max_length=40)]] = Field(
        default_factory=list, max_length=10, description="kinds of holidays, such as public, bank or catholic"
    )
    weekends: bool = Field(
        False,
        description="true: also the weekends of the country, without those on which it works; without a country, each "
        "Saturday and Sunday",
    )
    ical: str = Field("", max_length=512 << 10, description="the text of an iCalendar file (RFC 5545)")
    until_year: Whole | None = Field(
        None, alias="untilYear", ge=1970, le=2099, description="the last year; default: five years from now"
    )
    description: str = Field("", max_length=300, description="text for people")


class SilenceConfig(Config):
    """The alerts about which no messages are sent for a while. Without a filter, all alerts."""

    for_seconds: Whole = Field(alias="forSeconds", ge=1, le=30 * 86_400, description="how long, in seconds")
    condition: Annotated[Condition, Lax] | None = Field(None, description="default: all conditions")
    subject: str = Field("", max_length=300, description="the key of a job or the id of an agent, as a glob")
    team: TeamFilter = Field("", description="the team of the jobs")
    owner: str = Field("", max_length=100, description="the label owner of the jobs, as a glob")
    comment: str = Field("", max_length=300, description="text for people")


class NoteConfig(Config):
    """A note on a run."""

    text: str = Field(
        min_length=1,
        max_length=2_000,
        pattern=r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$",
        description="without control characters except line feeds",
    )


# Limits of a team may exceed those of one shard. Records check the same maximum when they are decoded.
_MAX_QUOTA = 1_000_000_000
QuotaAmount = Annotated[
    int,
    PlainSerializer(from_thousandths),
    BeforeValidator(to_thousandths),
    Field(ge=0, le=_MAX_QUOTA * 1_000),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": _MAX_QUOTA, "multipleOf": 0.001}),
]
QuotaCount = Annotated[Whole, *_between(0, _MAX_QUOTA)]


class QuotaConfig(Config):
    """The limits of a team. null: no limit."""

    cpus: QuotaAmount | None = Field(None, alias="cpuCount")
    mem: QuotaAmount | None = Field(None, alias="memoryMB")
    gpus: QuotaAmount | None = Field(None, alias="gpuCount")
    jobs: QuotaCount | None = Field(None, description="registered jobs")
    shards: QuotaCount | None = Field(None, description="attempts at the same time")
    queue: QuotaCount | None = Field(None, description="shards that wait")


class PoolConfig(Config):
    """The settings of a pool."""

    slots: Whole = Field(
        ge=0, le=1_000_000, description="how many slots running shards may take at once; 0: none starts"
    )
    description: str = Field("", max_length=300, description="text for people")


# A workflow may wait for people. A year is enough for them.
MAX_DEADLINE_S = 366 * 86_400
_DEADLINE = "seconds from the begin of a run, or from its last retry, until its end is late; 0: never"


class AfterConfig(Config):
    """A condition of a node: the end of another node of the workflow."""

    node: str = Field(max_length=100)
    on: Annotated[On, Lax] = Field(
        On.SUCCESS, description="how the other node must end; either: in any way, also skipped or cancelled"
    )
    result: str = Field(
        "", max_length=MAX_RESULT, description="the result that all its shards must have; only with on: success"
    )


def to_after(value: Any) -> Any:
    """A condition from JSON, where a text names the other node, which must succeed."""
    return {"node": value} if isinstance(value, str) else value


class NodeConfig(Config):
    """A node of a workflow: a job or an answer to wait for, and the conditions of its start."""

    name: str = Field(
        "", max_length=100, description="unique in the workflow; default: the job, the event, or the value of waitFor"
    )
    job: str = Field(
        "", max_length=100, description="the name of a TRANSIENT job of the workflow's team; not with waitFor"
    )
    wait_for: Annotated[WaitFor, Lax] | None = Field(
        None, alias="waitFor", description="the answer that the node waits for; null: it has a job"
    )
    event: str = Field("", max_length=100, description="the name of the event that the node waits for")
    after: list[Annotated[AfterConfig, BeforeValidator(to_after, json_schema_input_type=str | AfterConfig)]] = Field(
        default_factory=list,
        max_length=MAX_NODES,
        description="the conditions of the start; a text is the name of a node that must succeed",
    )
    join: Annotated[Join, Lax] = Field(
        Join.ALL, description="whether all conditions must hold, any of them, or for each shard all of them"
    )
    deadline_seconds: Whole = Field(0, alias="deadlineSeconds", ge=0, le=MAX_DEADLINE_S, description=_DEADLINE)


class WorkflowConfig(Config):
    """The nodes of a workflow."""

    nodes: list[NodeConfig] = Field(min_length=1, max_length=MAX_NODES)
    start: str = Field(
        "",
        max_length=100,
        description="the node whose runs begin the runs of the workflow; default: the only node without a condition",
    )
    description: str = Field("", max_length=300, description="text for people")
    deadline_seconds: Whole = Field(0, alias="deadlineSeconds", ge=0, le=MAX_DEADLINE_S, description=_DEADLINE)


class AnswerConfig(Config):
    """The answer to a node that waits for one."""

    succeeded: bool = Field(True, description="false: the node fails")
    result: str = Field("", max_length=MAX_RESULT, description="the result of the node, for conditions")
    note: str = Field("", max_length=300, description="text for people")


class EventConfig(AnswerConfig):
    """An event that answers the nodes of a team that wait for it."""

    event: str = Field(max_length=100)
    team: TeamFilter = Field("", description="default: default")
    fire_time: Whole | None = Field(
        None, alias="fireTime", ge=0, lt=2**53, description="only in runs with this fire time, in ms since 1970"
    )


class TeamConfig(Config):
    """The weight and the limits of a team."""

    weight: Whole = Field(1, ge=1, le=1_000, description="the share of the cluster, in relation to teams that wait too")
    quota: QuotaConfig = Field(default_factory=QuotaConfig.model_construct)


class MemberConfig(Config):
    """A role of a person, a group or a service account in a team."""

    subject: str = Field(max_length=300, description="user:NAME, group:NAME or service:TEAM/NAME")
    role: str = Field(max_length=100, description="a built-in role, or one of this installation")


class RoleConfig(Config):
    """A role of this installation."""

    verbs: list[Annotated[Verb, Lax]] = Field(
        min_length=1, max_length=len(Verb), json_schema_extra={"uniqueItems": True}
    )


class UserConfig(Config):
    """A new user."""

    name: str = Field(pattern=USER_FORM)
    password: str = Field("", max_length=1_000, description="empty: the user cannot sign in by a password")


class UserPatch(Config):
    """A change of a user."""

    disabled: bool = Field(description="true: the user is signed out, and the user's tokens do not work")


class PasswordConfig(Config):
    """A new password of a user."""

    password: str = Field(max_length=1_000)
    current_password: str = Field("", alias="currentPassword", max_length=1_000, description="for one's own password")


class GrantConfig(Config):
    """A role in a team, or in the whole installation if the team is `*`."""

    team: str = Field(pattern=PLACE_FORM)
    role: str = Field(max_length=100)


class TokenConfig(Config):
    """A new token. Without a scope, it has all roles of its subject."""

    name: str = Field(min_length=1, max_length=MAX_TOKEN_NAME, description="for people")
    subject: str = Field("", max_length=300, description="service:TEAM/NAME; empty: the sender")
    scope: list[GrantConfig] = Field(
        default_factory=list,
        max_length=MAX_SCOPE,
        description="the only roles that the token has; each one of the subject",
    )
    expires_seconds: Annotated[Whole, *_between(1, 3_660 * 86_400)] | None = Field(
        None, alias="expiresSeconds", description="the lifetime; default: 90 days"
    )


def json_name(name: str) -> str:
    """A field's name in JSON: camel case, with Elastic-Job-Cloud's capitals."""
    return _CAPITALS.get(name) or to_camel(name)


class View(BaseModel):
    """An answer of the server."""

    model_config = ConfigDict(alias_generator=json_name, populate_by_name=True, defer_build=True)


class Query(BaseModel):
    """The parameters of a request. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Amounts(View):
    cpu_count: Quantity
    memory_mb: Quantity
    disk_mb: Quantity
    gpu_count: Quantity
    port_count: Quantity


def amounts(resources: Resources) -> Amounts:
    return Amounts(
        cpu_count=resources.cpus,
        memory_mb=resources.mem,
        disk_mb=resources.disk,
        gpu_count=resources.gpus,
        port_count=resources.ports,
    )


class FieldIssue(View):
    """`code` and `parameters` tell the problem in other languages, and `fixCode` and `fixParameters` tell the fix.

    Not all problems and fixes have them.
    """

    field: str
    problem: str
    fix: str
    code: str = ""
    parameters: dict[str, str | int | float] = {}
    fix_code: str = ""
    fix_parameters: dict[str, str | int | float] = {}


class ProblemView(View):
    """RFC 9457 problem details."""

    type: str = Field(pattern="^urn:jobcloud:problem:[a-z-]+$")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str = ""
    parameters: dict[str, str | int | float] = {}
    errors: list[FieldIssue]
