"""Durations and instants as people write them, in settings, files and options: `90s`, `1h30m`, `2026-01-31T08:00`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from jobcloud.errors import ConfigError
from jobcloud.fields import OBJECTS
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import not_valid, such_as

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
# The largest unit comes first, and each unit occurs once.
_DURATION = re.compile(
    r"(?=[0-9])" + "".join(rf"(?:[0-9]{{1,12}}(?:\.[0-9]{{1,9}})?{unit})?" for unit in reversed(UNITS_MS))
)
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ms|[smhdw])")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_NANO = 10**9
# The ends of the names of fields, and the milliseconds of their unit.
_FIELD_UNITS = {"Seconds": 1_000, "Milliseconds": 1}
_FORM = such_as("500ms, 90s, 1h30m or 2d")


def parse_ms(text: str, field: str, *, bare: bool = True) -> int:
    """The milliseconds of a duration. With `bare`, a number without a unit counts seconds.

    Raises ConfigError with `field`.
    """
    given = text.strip() if bare else text
    if bare and _SECONDS.fullmatch(given):
        given += "s"
    if not _DURATION.fullmatch(given):
        fix = Told(f"a number with a unit, {_FORM}", "duration_form")
        raise ConfigError(not_valid(text[:80], "is not a duration"), field=field, fix=fix)
    total, rest = divmod(
        sum(int(whole + (part or "").ljust(9, "0")) * UNITS_MS[unit] for whole, part, unit in _PART.findall(given)),
        _NANO,
    )
    if rest:
        raise ConfigError(not_valid(text[:80], "is no whole number of milliseconds"), field=field, fix=_FORM)
    return total


def parse_s(text: str, field: str) -> float:
    """As `parse_ms`, in seconds."""
    return parse_ms(text, field) / 1_000


def parse_instant(text: str, field: str, now: datetime) -> str:
    """An instant as the API takes it: a time in ISO 8601, or a duration before `now`.

    A time without an offset is local. Raises ConfigError with `field`.
    """
    try:
        if _DURATION.fullmatch(text):
            instant = now - timedelta(milliseconds=parse_ms(text, field))
        else:
            instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        fix = Told("a duration before now such as 30d, 12h or 10m, or a time such as 2026-12-01T08:00", "instant_form")
        raise ConfigError(not_valid(text[:80], "is not a time"), field=field, fix=fix) from None


def in_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose durations are numbers: a text in a field `…Seconds` or `…Milliseconds` is converted."""
    return {name: _in_number(name, value) for name, value in config.items()}


def _in_number(name: str, value: Any) -> Any:
    if isinstance(value, dict) and name not in OBJECTS:
        return in_numbers(value)
    unit = next((ms for end, ms in _FIELD_UNITS.items() if name.endswith(end)), 0)
    if not unit or not isinstance(value, str):
        return value
    if value.strip().replace(".", "").isdigit():
        fix = Told(f"remove the quotes, or {_FORM}", "no_quotes")
        raise ConfigError(not_valid(value[:80], "is a number in quotes"), field=name, fix=fix)
    ms = parse_ms(value, name)
    return ms // unit if ms % unit == 0 else ms / unit
