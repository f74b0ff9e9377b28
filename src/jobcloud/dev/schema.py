"""Checks that JSON is a v1 call.

A check knows those fields of Mesos' protobuf messages that the dev cluster reads, and their types. As in Mesos, unknown
fields are ignored. A wrong type or a missing required field invalidates the whole call.
Source: include/mesos/v1/{mesos,scheduler/scheduler,executor/executor,master/master}.proto of Mesos 1.11.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..wire import decode_data


class CallError(ValueError):
    """The JSON is not a valid call. The text names the field."""


# The path to a value in a call: the path of its container, and the name or index of the value. Only errors format it.
FieldPath: TypeAlias = "tuple[FieldPath, str | int] | None"
Check = Callable[[Any, FieldPath], None]


def format_path(path: FieldPath) -> str:
    """`accept.offer_ids[3].value`; "" for the call itself."""
    if path is None:
        return ""
    container, name = format_path(path[0]), path[1]
    return f"{container}[{name}]" if isinstance(name, int) else f"{container}.{name}" if container else name


@dataclass(frozen=True, slots=True)
class Message:
    """Checks a message: its known fields and its required fields.

    The check removes nulls, which Mesos treats as missing fields.
    """

    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()

    def __call__(self, value: Any, path: FieldPath = None) -> None:
        if not isinstance(value, dict):
            raise CallError(f"{format_path(path) or 'the call'}: expecting a JSON object")
        fields, nulls = self.fields, False
        for name, inner in value.items():
            if inner is None:
                nulls = True
            elif (check := fields.get(name)) is not None:
                check(inner, (path, name))
        if nulls:
            for name in [name for name, inner in value.items() if inner is None]:
                del value[name]
        for name in self.required:
            if name not in value:
                raise CallError(f"Missing required fields: {format_path((path, name))}")


def text(value: Any, path: FieldPath) -> None:
    if not isinstance(value, str):
        raise CallError(f"{format_path(path)}: expecting a string")


def flag(value: Any, path: FieldPath) -> None:
    if not isinstance(value, bool):
        raise CallError(f"{format_path(path)}: expecting a boolean")


def whole(value: Any, path: FieldPath) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
        raise CallError(f"{format_path(path)}: expecting a whole number")


def natural(value: Any, path: FieldPath) -> None:
    whole(value, path)
    if value < 0:
        raise CallError(f"{format_path(path)}: expecting a number of at least 0")


def number(value: Any, path: FieldPath) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value or abs(value) > 1e300:
        raise CallError(f"{format_path(path)}: expecting a number")


def data(value: Any, path: FieldPath) -> None:
    text(value, path)
    try:
        decode_data(value)
    except ValueError:
        raise CallError(f"{format_path(path)}: expecting base64") from None


@dataclass(frozen=True, slots=True)
class OneOf:
    names: tuple[str, ...]

    def __call__(self, value: Any, path: FieldPath) -> None:
        if value not in self.names:
            raise CallError(f"{format_path(path)}: {value!r} is not one of its values")


def one_of(*names: str) -> Check:
    return OneOf(names)


@dataclass(frozen=True, slots=True)
class ListOf:
    inner: Check

    def __call__(self, value: Any, path: FieldPath) -> None:
        if not isinstance(value, list):
            raise CallError(f"{format_path(path)}: expecting a JSON array")
        for index, item in enumerate(value):
            self.inner(item, (path, index))


def listed(inner: Check) -> Check:
    return ListOf(inner)


def shape(check: Check) -> Any:
    """A msgspec type for a check. Every value of the type passes the check, which leaves it unchanged.

    The reverse does not hold: the check also accepts nulls, unknown fields, and integers above 2**63.
    """
    if isinstance(check, Message):
        required = [(name, shape(check.fields[name])) for name in check.required]
        others = [
            (name, shape(inner) | msgspec.UnsetType, msgspec.UNSET)
            for name, inner in check.fields.items()
            if name not in check.required
        ]
        return msgspec.defstruct("Message", [*required, *others], forbid_unknown_fields=True, gc=False)
    if isinstance(check, OneOf):
        return Literal[check.names]
    if isinstance(check, ListOf):
        return list[shape(check.inner)]  # type: ignore[misc]
    return _SHAPES[check]


_SHAPES: dict[Check, Any] = {
    text: str,
    flag: bool,
    whole: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    natural: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)],
    number: Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)],
    data: bytes,
}


class Quick:
    """Checks a message in compiled code first. If that check fails, `Message` decides."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._shape = shape(message)

    def passes_quickly(self, value: Any) -> bool:
        """Whether the compiled check accepts the value."""
        try:
            msgspec.convert(value, self._shape)
        except msgspec.ValidationError:
            return False
        return True

    def __call__(self, value: Any) -> None:
        try:
            msgspec.convert(value, self._shape)
        except msgspec.ValidationError:
            self.message(value)


def is_uuid(value: bytes) -> bool:
    """Whether Mesos accepts these bytes as a UUID: sixteen bytes of version 1 to 5."""
    return len(value) == 16 and 1 <= value[6] >> 4 <= 5


def uuid_of(high: int, low: int) -> bytes:
    """A UUID of version 4 from 60 bits of `high` and 62 bits of `low`."""
    first = (high & 0xFFFF_FFFF_FFFF) << 16 | 0x4000 | (high >> 48 & 0xFFF)
    return first.to_bytes(8, "big") + (1 << 63 | low & (1 << 62) - 1).to_bytes(8, "big")


TASK_STATES = (
    "TASK_STAGING",
    "TASK_STARTING",
    "TASK_RUNNING",
    "TASK_KILLING",
    "TASK_FINISHED",
    "TASK_FAILED",
    "TASK_KILLED",
    "TASK_ERROR",
    "TASK_LOST",
    "TASK_DROPPED",
    "TASK_UNREACHABLE",
    "TASK_GONE",
    "TASK_GONE_BY_OPERATOR",
    "TASK_UNKNOWN",
)

ID = Message({"value": text}, ("value",))
DURATION = Message({"nanoseconds": whole}, ("nanoseconds",))
KILL_POLICY = Message({"grace_period": DURATION})
LABELS = Message({"labels": listed(Message({"key": text, "value": text}, ("key",)))})
RESOURCE = Message(
    {
        "name": text,
        "type": one_of("SCALAR", "RANGES", "SET", "TEXT"),
        "scalar": Message({"value": number}, ("value",)),
        "ranges": Message({"range": listed(Message({"begin": natural, "end": natural}, ("begin", "end")))}),
        "set": Message({"item": listed(text)}),
        "role": text,
        "allocation_info": Message({"role": text}),
        "reservations": listed(Message({"type": one_of("STATIC", "DYNAMIC"), "role": text, "principal": text})),
    },
    ("name", "type"),
)
COMMAND = Message(
    {
        "uris": listed(
            Message(
                {"value": text, "executable": flag, "extract": flag, "cache": flag, "output_file": text}, ("value",)
            )
        ),
        "environment": Message(
            {
                "variables": listed(
                    Message({"name": text, "value": text, "type": one_of("VALUE", "SECRET", "UNKNOWN")}, ("name",))
                )
            }
        ),
        "shell": flag,
        "value": text,
        "arguments": listed(text),
        "user": text,
    }
)
EXECUTOR = Message(
    {
        "type": one_of("UNKNOWN", "DEFAULT", "CUSTOM"),
        "executor_id": ID,
        "framework_id": ID,
        "command": COMMAND,
        "resources": listed(RESOURCE),
        "name": text,
        "source": text,
        "data": data,
        "shutdown_grace_period": DURATION,
        "labels": LABELS,
    },
    ("executor_id",),
)
TASK = Message(
    {
        "name": text,
        "task_id": ID,
        "agent_id": ID,
        "resources": listed(RESOURCE),
        "executor": EXECUTOR,
        "command": COMMAND,
        "kill_policy": KILL_POLICY,
        "data": data,
        "labels": LABELS,
        "max_completion_time": DURATION,
    },
    ("name", "task_id", "agent_id"),
)
STATUS = Message(
    {
        "task_id": ID,
        "state": one_of(*TASK_STATES),
        "message": text,
        "source": one_of("SOURCE_MASTER", "SOURCE_AGENT", "SOURCE_EXECUTOR"),
        "reason": text,
        "data": data,
        "agent_id": ID,
        "executor_id": ID,
        "timestamp": number,
        "uuid": data,
        "healthy": flag,
        "labels": LABELS,
    },
    ("task_id", "state"),
)
FRAMEWORK = Message(
    {
        "user": text,
        "name": text,
        "id": ID,
        "failover_timeout": number,
        "checkpoint": flag,
        "role": text,
        "roles": listed(text),
        "hostname": text,
        "principal": text,
        "webui_url": text,
        "capabilities": listed(Message({"type": text})),
        "labels": LABELS,
    },
    ("user", "name"),
)
FILTERS = Message({"refuse_seconds": number})
OPERATION = Message(
    {
        "type": one_of(
            "UNKNOWN",
            "LAUNCH",
            "LAUNCH_GROUP",
            "RESERVE",
            "UNRESERVE",
            "CREATE",
            "DESTROY",
            "GROW_VOLUME",
            "SHRINK_VOLUME",
            "CREATE_DISK",
            "DESTROY_DISK",
        ),
        "id": ID,
        "launch": Message({"task_infos": listed(TASK)}),
        "launch_group": Message({"task_group": Message({"tasks": listed(TASK)})}),
    }
)
OFFER_IDS = listed(ID)
INVERSE = Message({"inverse_offer_ids": OFFER_IDS, "filters": FILTERS})
SCHEDULER_CALLS: dict[str, Check] = {
    "SUBSCRIBE": Message({"framework_info": FRAMEWORK, "suppressed_roles": listed(text)}, ("framework_info",)),
    "ACCEPT": Message({"offer_ids": OFFER_IDS, "operations": listed(OPERATION), "filters": FILTERS}),
    "DECLINE": Message({"offer_ids": OFFER_IDS, "filters": FILTERS}),
    "ACCEPT_INVERSE_OFFERS": INVERSE,
    "DECLINE_INVERSE_OFFERS": INVERSE,
    "REVIVE": Message({"role": text, "roles": listed(text)}),
    "SUPPRESS": Message({"role": text, "roles": listed(text)}),
    "KILL": Message({"task_id": ID, "agent_id": ID, "kill_policy": KILL_POLICY}, ("task_id",)),
    "SHUTDOWN": Message({"executor_id": ID, "agent_id": ID}, ("executor_id", "agent_id")),
    "ACKNOWLEDGE": Message({"agent_id": ID, "task_id": ID, "uuid": data}, ("agent_id", "task_id", "uuid")),
    "RECONCILE": Message({"tasks": listed(Message({"task_id": ID, "agent_id": ID}, ("task_id",)))}),
    "MESSAGE": Message({"agent_id": ID, "executor_id": ID, "data": data}, ("agent_id", "executor_id", "data")),
    "REQUEST": Message({"requests": listed(Message({"agent_id": ID, "resources": listed(RESOURCE)}))}),
    "UPDATE_FRAMEWORK": Message({"framework_info": FRAMEWORK, "suppressed_roles": listed(text)}, ("framework_info",)),
    "TEARDOWN": Message({}),
    "RECONCILE_OPERATIONS": Message({}),
    "ACKNOWLEDGE_OPERATION_STATUS": Message({}),
}
SCHEDULER_CALL = Quick(
    Message({"type": text, "framework_id": ID, **{kind.lower(): check for kind, check in SCHEDULER_CALLS.items()}})
)
EXECUTOR_CALL = Quick(
    Message(
        {
            "type": text,
            "framework_id": ID,
            "executor_id": ID,
            "subscribe": Message(
                {
                    "unacknowledged_tasks": listed(TASK),
                    "unacknowledged_updates": listed(Message({"status": STATUS}, ("status",))),
                }
            ),
            "update": Message({"status": STATUS}, ("status",)),
            "message": Message({"data": data}, ("data",)),
        },
        ("framework_id", "executor_id"),
    )
)
AGENT = Message({"agent_id": ID}, ("agent_id",))
MACHINE = Message({"hostname": text, "ip": text})
UNAVAILABILITY = Message({"start": DURATION, "duration": DURATION}, ("start",))
WINDOW = Message({"machine_ids": listed(MACHINE), "unavailability": UNAVAILABILITY}, ("unavailability",))
GRACE = Message({"seconds": whole, "nanos": whole})  # a google.protobuf.Duration, unlike Mesos' other durations
MACHINES = Message({"machines": listed(MACHINE)})
OPERATOR_CALL = Message(
    {
        "type": text,
        "mark_agent_gone": AGENT,
        "teardown": Message({"framework_id": ID}, ("framework_id",)),
        "update_maintenance_schedule": Message({"schedule": Message({"windows": listed(WINDOW)})}, ("schedule",)),
        "start_maintenance": MACHINES,
        "stop_maintenance": MACHINES,
        "drain_agent": Message({"agent_id": ID, "max_grace_period": GRACE, "mark_gone": flag}, ("agent_id",)),
        "deactivate_agent": AGENT,
        "reactivate_agent": AGENT,
    }
)
