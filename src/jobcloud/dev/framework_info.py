"""Reads a FrameworkInfo: its roles, its capabilities, and the state that the framework gets for dropped tasks."""

from __future__ import annotations

from .protocol import Json


def has_capability(info: Json, capability: str) -> bool:
    return any(one.get("type") == capability for one in info.get("capabilities", ()))


def dropped_state(info: Json) -> str:
    """The state of a dropped task. Frameworks that are not partition-aware do not know TASK_DROPPED."""
    return "TASK_DROPPED" if has_capability(info, "PARTITION_AWARE") else "TASK_LOST"


def roles_of(info: Json) -> tuple[str, ...]:
    if has_capability(info, "MULTI_ROLE"):
        return tuple(info.get("roles", ()))
    return (info.get("role", "*"),)
