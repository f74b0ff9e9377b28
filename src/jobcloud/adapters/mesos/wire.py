"""Convert between Mesos' v1 JSON and our values. The module has no connection, no clock, and no state except caches.

Source of the formats: Mesos 1.11, `include/mesos/v1/mesos.proto` and `scheduler/scheduler.proto`, as protobuf's JSON
mapping writes them (bytes in base64, enums by name, 64-bit integers as numbers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from jobcloud.errors import ConfigError
from jobcloud.messages import Launch, Status
from jobcloud.model import Executor, InverseOffer, Offer, Share, Window
from jobcloud.wire import decode_data

Json = dict[str, Any]

# Fields of a Resource that are fields of Share. All others are part of Share.origin.
_OWN = ("name", "type", "scalar", "ranges")
# Fields of resources that plain tasks must not use: revocable or shared ones, those of a resource provider, and disks
# that are persistent or special.
_UNUSABLE = frozenset(("revocable", "shared", "provider_id"))
_UNUSABLE_DISK = frozenset(("persistence", "volume", "source"))
# Above this a double cannot represent thousandths exactly.
_MAX_SCALAR = 2**53 / 1000
_MAX_PORT = 65_535

_PATH = re.compile(r"(/[A-Za-z0-9().~_-]+)+")

_canonical = msgspec.json.Encoder(order="deterministic")


def dumps(message: object) -> bytes:
    """Encode a message to Mesos as JSON."""
    return msgspec.json.encode(message)


def loads(record: bytes) -> Any:
    """Decode a record. Raises ValueError if it is not JSON.

    Invalid UTF-8 in the record is replaced. Mesos forwards the bytes of executors unchecked, and an agent resends an
    update until the update is acknowledged. So one bad message would break the stream again and again.
    """
    try:
        try:
            return msgspec.json.decode(record)
        except ValueError:
            readable = json.dumps(json.loads(record.decode("utf-8", "replace")), ensure_ascii=False)
            return msgspec.json.decode(readable.encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


# ------------------------------------------------------------------------------------------------- from the master


def read_offer(offer: Json, roles: tuple[str, ...]) -> Offer:
    """Parse an offer. Keeps the resources that a framework with `roles` may use for plain tasks.

    Raises KeyError, TypeError, ValueError or AttributeError if it is malformed.
    """
    hostname = offer.get("hostname", "")
    shares = (read_share(resource, roles) for resource in offer.get("resources", ()))
    return Offer(
        id=offer["id"]["value"],
        agent_id=offer["agent_id"]["value"],
        hostname=hostname,
        address=_agent_address(offer.get("url", {}), hostname),
        shares=tuple(share for share in shares if share is not None),
        attributes=tuple(_attributes(offer.get("attributes", ()))),
        unavailable=_window(offer["unavailability"]) if "unavailability" in offer else None,
        role=_role(offer.get("allocation_info", {}).get("role", "*")),
    )


def _role(role: object) -> str:
    if not isinstance(role, str):
        raise TypeError(f"{role!r} is not a role")
    return role


def read_inverse_offer(offer: Json) -> InverseOffer:
    """Parse an inverse offer. Raises KeyError, TypeError, ValueError or AttributeError if it is malformed."""
    return InverseOffer(offer["id"]["value"], offer["agent_id"]["value"], _window(offer["unavailability"]))


def _window(unavailability: Json) -> Window:
    start, duration = unavailability["start"]["nanoseconds"], unavailability.get("duration", {}).get("nanoseconds", 0)
    return Window(start // 1_000_000, (start + duration) // 1_000_000 if duration else 0)


def _agent_address(url: Json, hostname: str) -> str:
    """Host, port and path of the agent's HTTP API. Several agents may share a port and differ by path."""
    address = url.get("address", {})
    return _host_port_path(
        address.get("ip"), address.get("hostname"), address.get("port"), url.get("path", ""), hostname
    )


@lru_cache(maxsize=16_384, typed=True)
def _host_port_path(ip: str | None, name: str | None, port: int | None, path: str, hostname: str) -> str:
    path = path.rstrip("/")
    # The IP address comes first, because our resolver may not know the agent's host name.
    host = ip or name or hostname
    return f"{bracketed(host)}:{port}{path if _PATH.fullmatch(path) else ''}" if host and port else ""


def bracketed(host: str) -> str:
    """The host as in URLs: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _attributes(attributes: Iterable[Json]) -> Iterable[tuple[str, str]]:
    for attribute in attributes:
        kind = attribute["type"].lower()
        if kind == "text":
            yield attribute["name"], attribute["text"]["value"]
        elif kind == "scalar":
            yield attribute["name"], f"{attribute['scalar']['value']:.15g}"
        elif kind == "ranges":
            ranges = attribute["ranges"].get("range", ())
            yield attribute["name"], "[" + ", ".join(f"{one['begin']}-{one['end']}" for one in ranges) + "]"
        elif kind == "set":
            yield attribute["name"], "{" + ", ".join(attribute["set"].get("item", ())) + "}"


def read_share(resource: Json, roles: tuple[str, ...]) -> Share | None:
    """Parse one resource of an offer. None if we must not use it.

    Amounts are rounded to thousandths, as in Mesos (documentation, "Attributes and Resources").
    """
    if not _UNUSABLE.isdisjoint(resource) or not _ours(resource, roles):
        return None
    if "disk" in resource and not _UNUSABLE_DISK.isdisjoint(resource["disk"]):
        return None
    kind = resource["type"]
    ranges: tuple[tuple[int, int], ...] = ()
    if kind == "SCALAR":
        amount = thousandths(resource["scalar"]["value"])
    elif kind == "RANGES":
        ranges = tuple(_range(one) for one in resource["ranges"].get("range", ()))
        amount = 1000 * sum(end - begin + 1 for begin, end in ranges)
    else:
        return None
    return Share(resource["name"], amount, _origin(resource), _reserved_to(resource) != "*", ranges)


def _origin(resource: Json) -> str:
    """The fields of a resource that Share lacks, as JSON.

    For most resources, the only such field is the allocation to a role.
    """
    allocation = resource.get("allocation_info")
    # Fast path: the other three fields are name, type and value.
    if allocation is not None and len(resource) == 4 and allocation.keys() == {"role"}:
        return _offered_to(allocation["role"])
    return _canonical.encode({field: value for field, value in resource.items() if field not in _OWN}).decode()


@lru_cache(maxsize=256)
def _offered_to(role: str) -> str:
    return _canonical.encode({"allocation_info": {"role": role}}).decode()


def thousandths(value: float) -> int:
    """An amount in thousandths. Raises ValueError if `value` is negative, too large or not a number."""
    if not 0 <= value <= _MAX_SCALAR:
        raise ValueError(f"{value} is not an amount")
    return round(value * 1000)


def _range(one: Json) -> tuple[int, int]:
    return _ports(one["begin"], one["end"])


def _ports(begin: object, end: object) -> tuple[int, int]:
    if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin <= end <= _MAX_PORT):
        raise ValueError(f"{begin!r}-{end!r} is not a range of ports")
    return begin, end


def _reserved_to(resource: Json) -> str:
    """The role to which a resource is reserved, or "*". In `reservations`, the newer format, the last entry counts."""
    reservations = resource.get("reservations")
    role: str = reservations[-1].get("role", "*") if reservations else resource.get("role", "*")
    return role


def _ours(resource: Json, roles: tuple[str, ...]) -> bool:
    """Whether a framework with `roles` may use a resource.

    It must be unreserved, or reserved to one of the roles or to a parent role, and not allocated to another role.
    """
    reserved = _reserved_to(resource)
    allocated = resource.get("allocation_info", {}).get("role")
    if allocated is not None and allocated not in roles:
        return False
    return reserved == "*" or any(role == reserved or role.startswith(reserved + "/") for role in roles)


def read_status(status: Json) -> Status:
    """Parse a TaskStatus. Raises KeyError or TypeError if it has no task or state.

    Data that is not base64 of UTF-8 becomes "".
    """
    return Status(
        task_id=status["task_id"]["value"],
        agent_id=status.get("agent_id", {}).get("value", ""),
        state=status["state"],
        uuid=status.get("uuid", ""),
        reason=status.get("reason", ""),
        source=status.get("source", ""),
        message=status.get("message", ""),
        data=_text(status.get("data", "")),
    )


def _text(data: str) -> str:
    try:
        return decode_data(data).decode()
    except ValueError:
        return ""


# The fast path for the most frequent events: status updates, and offers of resources that have only a role in addition
# to name, type and value. Decoding JSON into these structs is several times as fast as into dicts.


class _Value(msgspec.Struct, frozen=True, gc=False):
    value: str


class _Amount(msgspec.Struct, frozen=True, gc=False):
    value: float


class _TaskStatus(msgspec.Struct, frozen=True, gc=False):
    task_id: _Value
    state: str
    agent_id: _Value = _Value("")
    uuid: str = ""
    reason: str = ""
    source: str = ""
    message: str = ""
    data: bytes = b""


class _UpdateBody(msgspec.Struct, frozen=True, gc=False):
    status: _TaskStatus


class _Update(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="UPDATE"):
    update: _UpdateBody


class _Allocation(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    role: str


class _Span(msgspec.Struct, frozen=True, gc=False):
    begin: int
    end: int


class _Ranges(msgspec.Struct, frozen=True, gc=False):
    range: tuple[_Span, ...] = ()


class _Scalar(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="type", tag="SCALAR"):
    name: str
    scalar: _Amount
    allocation_info: _Allocation


class _Spans(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="type", tag="RANGES"):
    name: str
    ranges: _Ranges
    allocation_info: _Allocation


class _UrlAddress(msgspec.Struct, frozen=True, gc=False):
    ip: str = ""
    hostname: str = ""
    port: int = 0


class _Url(msgspec.Struct, frozen=True, gc=False):
    address: _UrlAddress = _UrlAddress()
    path: str = ""


class _OfferForm(msgspec.Struct, frozen=True, gc=False):
    id: _Value
    agent_id: _Value
    allocation_info: _Allocation = _Allocation("*")
    hostname: str = ""
    url: _Url = _Url()
    resources: tuple[_Scalar | _Spans, ...] = ()
    attributes: tuple[Any, ...] = ()
    unavailability: Json | msgspec.UnsetType = msgspec.UNSET


class _OffersBody(msgspec.Struct, frozen=True, gc=False):
    offers: tuple[_OfferForm, ...]


class _Offers(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="OFFERS"):
    offers: _OffersBody


_common = msgspec.json.Decoder(_Update | _Offers)


def read_common(record: bytes, roles: tuple[str, ...]) -> Status | tuple[Offer, ...] | None:
    """Parse an UPDATE or OFFERS event in its common form, with the results of `read_status` and `read_offer`.

    None for all other events and forms.
    """
    try:
        event = _common.decode(record)
        if isinstance(event, _Update):
            return _common_status(event.update.status)
        return tuple([_common_offer(offer, roles) for offer in event.offers.offers])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _common_status(status: _TaskStatus) -> Status:
    try:
        data = status.data.decode() if status.data else ""
    except UnicodeDecodeError:
        data = ""
    return Status(
        status.task_id.value,
        status.agent_id.value,
        status.state,
        status.uuid,
        status.reason,
        status.source,
        status.message,
        data,
    )


def _common_offer(offer: _OfferForm, roles: tuple[str, ...]) -> Offer:
    address = offer.url.address
    return Offer(
        offer.id.value,
        offer.agent_id.value,
        offer.hostname,
        _host_port_path(address.ip, address.hostname, address.port, offer.url.path, offer.hostname),
        tuple([_common_share(one) for one in offer.resources if one.allocation_info.role in roles]),
        tuple(_attributes(offer.attributes)) if offer.attributes else (),
        _window(offer.unavailability) if isinstance(offer.unavailability, dict) else None,
        offer.allocation_info.role,
    )


def _common_share(resource: _Scalar | _Spans) -> Share:
    origin = _offered_to(resource.allocation_info.role)
    if isinstance(resource, _Scalar):
        return Share(resource.name, thousandths(resource.scalar.value), origin)
    ranges = tuple([_ports(one.begin, one.end) for one in resource.ranges.range])
    return Share(resource.name, 1000 * sum(end - begin + 1 for begin, end in ranges), origin, False, ranges)


# --------------------------------------------------------------------------------------------------- to the master


Access: TypeAlias = Callable[[Launch, str], bytes]
"""Makes the access of a launch on an agent (by id) to its secrets, as a JSON object: docs/executor.md."""


def launch_operation(
    launches: Iterable[Launch], agent_id: str, framework_id: str, access: Access | None = None
) -> Json:
    """A LAUNCH operation. Raises ConfigError if an executor's spec is not a JSON object.

    Without `access`, tasks that need secrets get none, and their executors refuse them.
    """
    tasks = [_task_info(launch, agent_id, framework_id, access) for launch in launches]
    return {"type": "LAUNCH", "launch": {"task_infos": tasks}}


def _task_info(launch: Launch, agent_id: str, framework_id: str, access: Access | None) -> Json:
    data = launch.data
    if launch.secrets and access is not None:
        data = b'{"secretAccess":' + access(launch, agent_id) + b"," + data[1:]
    return {
        "name": launch.name,
        "task_id": {"value": launch.task_id},
        "agent_id": {"value": agent_id},
        "resources": [_resource(share) for share in launch.shares],
        "executor": _executor_info(launch.executor, framework_id),
        "data": data,  # `dumps` encodes bytes in base64
    }


@lru_cache(maxsize=8192)
def _resource(share: Share) -> msgspec.Raw:
    resource: Json = {**_object(share.origin, "the origin of a share"), "name": share.name}
    if share.ranges:
        resource["type"] = "RANGES"
        resource["ranges"] = {"range": [{"begin": begin, "end": end} for begin, end in share.ranges]}
    else:
        resource["type"] = "SCALAR"
        resource["scalar"] = {"value": share.amount / 1000}
    return msgspec.Raw(dumps(resource))


@lru_cache(maxsize=4096)
def _executor_info(executor: Executor, framework_id: str) -> msgspec.Raw:
    """The ExecutorInfo. It is cached, because every task that joins an executor must contain the same one."""
    info = {
        **_object(executor.spec, f"the spec of executor {executor.id}"),
        "type": "CUSTOM",
        "executor_id": {"value": executor.id},
        "framework_id": {"value": framework_id},
        "resources": [_resource(share) for share in executor.shares],
    }
    return msgspec.Raw(dumps(info))


def _object(text: str, label: str) -> Mapping[str, Any]:
    try:
        value = loads(text.encode())
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", field=label) from error
    if not isinstance(value, dict):
        raise ConfigError("is not a JSON object", field=label)
    return value


def ids(values: Iterable[str]) -> list[Json]:
    """Ids in the form of Mesos."""
    return [{"value": value} for value in values]
