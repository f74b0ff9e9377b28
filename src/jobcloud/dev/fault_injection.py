"""Faults that tests inject between the master and schedulers: lost, repeated or late updates, and failed calls.

The module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .protocol import Json

UPDATE_FAULTS = ("drop", "double", "delay", "hold")


@dataclass(slots=True)
class UpdateFault:
    """Applies to the next `count` matching status updates to schedulers. An empty `task_id` or `state` matches any."""

    kind: str  # one of UPDATE_FAULTS
    task_id: str
    state: str
    count: int
    delay_ms: int

    def matches(self, status: Json) -> bool:
        return self.task_id in ("", status["task_id"]["value"]) and self.state in ("", status["state"])


@dataclass(slots=True)
class Faults:
    update_faults: list[UpdateFault] = field(default_factory=list)
    held_updates: list[Json] = field(default_factory=list)
    call_statuses: list[int] = field(default_factory=list)  # HTTP statuses for the next calls to the master

    def next_call_status(self) -> int:
        """The HTTP status of the refusal of the next call; 0 if the call is to be handled."""
        return self.call_statuses.pop(0) if self.call_statuses else 0

    def apply(self, event: Json) -> list[tuple[int, Json]]:
        """The events that a scheduler gets in place of `event`, as (delay in milliseconds, event) pairs."""
        if event["type"] != "UPDATE":
            return [(0, event)]
        fault = next((one for one in self.update_faults if one.matches(event["update"]["status"])), None)
        if fault is None:
            return [(0, event)]
        fault.count -= 1
        if fault.count == 0:
            self.update_faults.remove(fault)
        if fault.kind == "double":
            return [(0, event), (0, event)]
        if fault.kind == "delay":
            return [(fault.delay_ms, event)]
        if fault.kind == "hold":
            self.held_updates.append(event)
        return []

    def release_updates(self, reverse: bool) -> list[Json]:
        """End all `hold` faults. Returns the held updates in the order in which they are to be sent."""
        held, self.held_updates = self.held_updates, []
        self.update_faults = [one for one in self.update_faults if one.kind != "hold"]
        return held[::-1] if reverse else held
