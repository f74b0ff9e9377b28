"""Durations as people write them: `90s`, `1h30m`, `500ms`, `2d`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobcloud.errors import ConfigError

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|[dhms]))+")
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ms|[dhms])")
# The ends of the names of fields, and the milliseconds of their unit.
_FIELD_UNITS = {"Seconds": 1_000, "Milliseconds": 1}
_FORM = "such as 500ms, 90s, 1h30m or 2d"


def parse_ms(text: str, field: str) -> int:
    """The milliseconds of a duration. A bare number counts seconds. Raises ConfigError with `field`."""
    given = text.strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", given):
        given += "s"
    if not _DURATION.fullmatch(given):
        raise ConfigError(f"{text[:80]!r} is not a duration", field=field, fix=_FORM)
    total = 0
    for whole, rest, unit in _PART.findall(given):
        part = int(whole) * _UNITS[unit] * 1_000 + int((rest or "0").ljust(3, "0")) * _UNITS[unit]
        if part % 1_000:
            raise ConfigError(f"{text[:80]!r} is no whole number of milliseconds", field=field, fix=_FORM)
        total += part // 1_000
    return total


def parse_s(text: str, field: str) -> float:
    """As `parse_ms`, in seconds."""
    return parse_ms(text, field) / 1_000


def in_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose durations are numbers: a text in a field `…Seconds` or `…Milliseconds` is converted."""
    return {name: _in_number(name, value) for name, value in config.items()}


def _in_number(name: str, value: Any) -> Any:
    if isinstance(value, dict) and name != "shardingItemParameters":
        return in_numbers(value)
    unit = next((ms for end, ms in _FIELD_UNITS.items() if name.endswith(end)), 0)
    if not unit or not isinstance(value, str):
        return value
    if value.strip().replace(".", "").isdigit():
        raise ConfigError(f"{value[:80]!r} is a number in quotes", field=name, fix=f"remove the quotes, or {_FORM}")
    ms = parse_ms(value, name)
    return ms // unit if ms % unit == 0 else ms / unit
