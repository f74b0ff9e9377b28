"""Amounts of resources, by name and reservation.

Scalars are int thousandths, which is Mesos' own precision (documentation "Mesos Attributes & Resources"). Ranges are
sorted, disjoint and inclusive. A key is (name, reserved role), with "*" for unreserved resources. Only static
reservations are supported. The role that resources are *allocated* to is not part of an amount.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

UNRESERVED = "*"
Key = tuple[str, str]
Spans = tuple[tuple[int, int], ...]
Wire = list[dict[str, Any]]

_ENTRY = re.compile(r"\s*([^\s:()]+)(?:\(([^\s()]+)\))?\s*:\s*(\S.*?)\s*$")
_SPAN = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*$")
_MAX_SCALAR = 10**15
_UNRESERVED_KEYS = frozenset(("name", "type", "scalar", "ranges", "allocation_info"))


class ResourceError(ValueError):
    """Mesos would refuse these resources. The text is the reason."""


class Resources(msgspec.Struct, frozen=True, gc=False):
    scalars: Mapping[Key, int] = msgspec.field(default_factory=dict)
    ranges: Mapping[Key, Spans] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.scalars or self.ranges)

    def __add__(self, other: Resources) -> Resources:
        if not self:
            return other
        scalars = dict(self.scalars)
        for key, amount in other.scalars.items():
            scalars[key] = scalars.get(key, 0) + amount
        if not other.ranges:
            return Resources(scalars, self.ranges)
        ranges = dict(self.ranges)
        for key, spans in other.ranges.items():
            ranges[key] = _united((*ranges.get(key, ()), *spans))
        return Resources(scalars, ranges)

    def __sub__(self, other: Resources) -> Resources:
        """The resources without `other`, which they must contain. Empty entries are dropped."""
        if other is self:
            return NOTHING
        scalars = dict(self.scalars)
        for key, amount in other.scalars.items():
            left = scalars[key] - amount
            if left:
                scalars[key] = left
            else:
                del scalars[key]
        if not other.ranges:
            return Resources(scalars, self.ranges)
        ranges = dict(self.ranges)
        for key, spans in other.ranges.items():
            if rest := _without(ranges[key], spans):
                ranges[key] = rest
            else:
                del ranges[key]
        return Resources(scalars, ranges)

    def contains(self, other: Resources) -> bool:
        for key, amount in other.scalars.items():
            if self.scalars.get(key, 0) < amount:
                return False
        return all(_covers(self.ranges.get(key, ()), spans) for key, spans in other.ranges.items())

    def usable_by(self, role: str) -> Resources:
        """The part that may be offered to `role`: unreserved, or reserved to the role or to a parent role."""
        for _, reserved in (*self.scalars, *self.ranges):
            if reserved != UNRESERVED:
                break
        else:
            return self
        fits = {key for key in (*self.scalars, *self.ranges) if _may_use(role, key[1])}
        return Resources(
            {k: v for k, v in self.scalars.items() if k in fits}, {k: v for k, v in self.ranges.items() if k in fits}
        )

    def of(self, reserved: str) -> Resources:
        """The part that is reserved to a role. With UNRESERVED, the part that is not reserved."""
        return Resources(
            {key: amount for key, amount in self.scalars.items() if key[1] == reserved},
            {key: spans for key, spans in self.ranges.items() if key[1] == reserved},
        )

    def reserved_roles(self) -> list[str]:
        return sorted({role for _, role in (*self.scalars, *self.ranges)} - {UNRESERVED})

    def overlaps(self, other: Resources) -> bool:
        """Whether both contain the same port (or other range value)."""
        if not self.ranges:
            return False
        return any(
            _without(self.ranges[k], spans) != self.ranges[k] for k, spans in other.ranges.items() if k in self.ranges
        )

    def amount(self, name: str) -> int:
        """The total of a scalar resource over all reservations, in thousandths."""
        total = 0
        for (other, _), amount in self.scalars.items():
            if other == name:
                total += amount
        return total

    def to_wire(self, allocated_to: str = "", with_role: bool = False) -> Wire:
        """`Resource` messages. They are cached and shared: callers must not change them.

        `with_role` selects the older format, for frameworks without RESERVATION_REFINEMENT.
        """
        ranges = [_ranges_entry(key, spans, allocated_to, with_role) for key, spans in self.ranges.items()]
        return ranges + [_scalar_entry(key, amount, allocated_to, with_role) for key, amount in self.scalars.items()]

    def __str__(self) -> str:
        """Similar to the notation in Mesos' messages."""
        parts = [f"{n}{_shown(r)}:{amount / 1000:g}" for (n, r), amount in self.scalars.items()]
        parts += [f"{n}{_shown(r)}:[{', '.join(f'{a}-{b}' for a, b in s)}]" for (n, r), s in self.ranges.items()]
        return "; ".join(parts) or "{}"


NOTHING = Resources()


def _shown(reserved: str) -> str:
    return "" if reserved == UNRESERVED else f"(reservations: [(STATIC,{reserved})])"


def _may_use(role: str, reserved: str) -> bool:
    return reserved in (UNRESERVED, role) or role.startswith(reserved + "/")


@lru_cache(maxsize=4096)
def _ranges_entry(key: Key, spans: Spans, allocated_to: str, with_role: bool) -> dict[str, Any]:
    value = {"range": [{"begin": begin, "end": end} for begin, end in spans]}
    return _entry(key, {"type": "RANGES", "ranges": value}, allocated_to, with_role)


@lru_cache(maxsize=4096)
def _scalar_entry(key: Key, amount: int, allocated_to: str, with_role: bool) -> dict[str, Any]:
    return _entry(key, {"type": "SCALAR", "scalar": {"value": amount / 1000}}, allocated_to, with_role)


def _entry(key: Key, value: dict[str, Any], allocated_to: str, with_role: bool) -> dict[str, Any]:
    name, reserved = key
    entry = {"name": name, **value}
    if with_role:
        entry["role"] = reserved
    elif reserved != UNRESERVED:
        entry["reservations"] = [{"type": "STATIC", "role": reserved}]
    if allocated_to:
        entry["allocation_info"] = {"role": allocated_to}
    return entry


def _united(spans: Iterable[tuple[int, int]]) -> Spans:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return tuple(merged)


def _without(spans: Spans, taken: Spans) -> Spans:
    left = list(spans)
    for low, high in taken:
        left = [
            piece
            for begin, end in left
            for piece in ((begin, min(end, low - 1)), (max(begin, high + 1), end))
            if piece[0] <= piece[1]
        ]
    return tuple(left)


def _covers(spans: Spans, wanted: Spans) -> bool:
    return all(any(begin <= low and high <= end for begin, end in spans) for low, high in wanted)


def from_wire(wire: Wire) -> Resources:
    """Parse `Resource` messages. Entries with the same key are summed. Raises ResourceError in Mesos' words."""
    scalars: dict[Key, int] = {}
    ranges: dict[Key, Spans] = {}
    for entry in wire:
        try:
            key = (_name(entry), _reservation(entry))
            if entry.get("type") == "SCALAR":
                scalars[key] = scalars.get(key, 0) + _scalar(entry)
            elif entry.get("type") == "RANGES":
                ranges[key] = _united((*ranges.get(key, ()), *_spans(entry)))
            else:
                raise ResourceError("Unsupported resource type")
        except ResourceError as refused:
            raise ResourceError(f"Resource '{_text(entry)}' is invalid: {refused}") from None
    if not (all(scalars.values()) and all(ranges.values())):
        return Resources({k: v for k, v in scalars.items() if v}, {k: v for k, v in ranges.items() if v})
    return Resources(scalars, ranges)


def _text(entry: Mapping[str, Any]) -> str:
    value = (entry.get("scalar") or {}).get("value", "")
    return f"{entry.get('name')}:{value:g}" if value != "" else str(entry.get("name"))


def _name(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ResourceError("Empty resource name")
    return name


def _reservation(entry: Mapping[str, Any]) -> str:
    if entry.keys() <= _UNRESERVED_KEYS:
        return UNRESERVED
    for word in ("reservation", "disk", "revocable", "shared", "provider_id"):
        if entry.get(word) is not None:
            raise ResourceError(f"the dev cluster does not support '{word}'")
    stack = entry.get("reservations") or []
    if stack and stack[-1].get("type") == "STATIC":
        return str(stack[-1]["role"])
    if stack:
        raise ResourceError("the dev cluster does not support dynamic reservations")
    return str(entry.get("role", UNRESERVED))


def _scalar(entry: Mapping[str, Any]) -> int:
    if entry.get("scalar") is None or entry.get("ranges") is not None:
        raise ResourceError("Invalid scalar resource")
    value = entry["scalar"]["value"]
    if value > _MAX_SCALAR:
        raise ResourceError("Invalid scalar resource: too large")
    amount = thousandths(value)
    if value != 0 and amount <= 0:
        raise ResourceError("Invalid scalar resource: value <= 0")
    return amount


def thousandths(value: float) -> int:
    """A scalar as Mesos keeps it: rounded half up. Python's `round` would round half to even."""
    whole = int(value * 1000)
    return whole + (value * 1000 - whole >= 0.5)


def bad_gpus(resources: Resources) -> str:
    """The error if the amount of gpus is not a whole number; otherwise ""."""
    if resources.amount("gpus") % 1000:
        return "Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer"
    return ""


def allocated_to(wire: Wire, offered: str) -> str:
    """The role that entries are allocated to. Entries without a role are allocated to the role of the offer.

    Raises ResourceError if the entries have several roles.
    """
    roles = list(dict.fromkeys((entry.get("allocation_info") or {}).get("role", offered) for entry in wire))
    if len(roles) > 1:
        raise ResourceError(
            f"The resources have multiple allocation roles ('{roles[1]}' and '{roles[0]}')"
            " but only one allocation role is allowed"
        )
    return roles[0] if roles else offered


def _spans(entry: Mapping[str, Any]) -> Spans:
    if entry.get("ranges") is None or entry.get("scalar") is not None:
        raise ResourceError("Invalid ranges resource")
    spans = [(one["begin"], one["end"]) for one in entry["ranges"].get("range", [])]
    for begin, end in spans:
        if begin > end:
            raise ResourceError("Invalid ranges resource: begin > end")
    if sum(end - begin + 1 for begin, end in spans) != sum(end - begin + 1 for begin, end in _united(spans)):
        raise ResourceError("Invalid ranges resource: overlapping ranges")
    return tuple(spans)


def parse(text: str) -> Resources:
    """Parse an agent's `--resources`: `cpus:4;cpus(role):2;mem:4096;ports:[31000-31999,32000-32100]`.

    Raises ResourceError, which names the invalid part.
    """
    scalars: dict[Key, int] = {}
    ranges: dict[Key, Spans] = {}
    for part in filter(str.strip, text.split(";")):
        if not (found := _ENTRY.match(part)):
            raise ResourceError(f"resources: {part!r} is not `name:value` or `name(role):value`")
        key, value = (found[1], found[2] or UNRESERVED), found[3]
        if value.startswith("[") and value.endswith("]"):
            ranges[key] = _united((*ranges.get(key, ()), *(_parsed_span(one, part) for one in value[1:-1].split(","))))
        else:
            scalars[key] = scalars.get(key, 0) + _parsed_scalar(value, part)
    return Resources({k: v for k, v in scalars.items() if v}, ranges)


def _parsed_span(text: str, part: str) -> tuple[int, int]:
    found = _SPAN.match(text)
    if not found or int(found[1]) > int(found[2]):
        raise ResourceError(f"resources: {part!r}: a range is `[low-high]`")
    return int(found[1]), int(found[2])


def _parsed_scalar(value: str, part: str) -> int:
    try:
        amount = float(value)
    except ValueError:
        amount = -1
    if not 0 <= amount <= _MAX_SCALAR:
        raise ResourceError(f"resources: {part!r}: a value is a number of at least 0, or a range `[low-high]`")
    return thousandths(amount)
