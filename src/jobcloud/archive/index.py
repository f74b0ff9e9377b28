"""The logs in a store, and those to delete: by age, by number in total and per job, and by size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from jobcloud.archive.names import parts_of, task_part
from jobcloud.archive.stores import Stored


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit."""

    age_ms: int = 0
    logs: int = 0
    logs_per_job: int = 0
    bytes: int = 0


NO_LIMITS = Limits()


class Index:
    """The stored logs by the place of their attempt, the oldest first. Objects with other names are not in it."""

    def __init__(self, limits: Limits, stored: Iterable[Stored] = ()) -> None:
        self._limits = limits
        self._logs: dict[str, Stored] = {}
        self._jobs: dict[str, dict[str, None]] = defaultdict(dict)
        self.bytes = 0
        for one in sorted(stored, key=lambda one: one.ms):
            self.add(one)

    def __len__(self) -> int:
        return len(self._logs)

    def add(self, stored: Stored) -> None:
        """Add the newest log, or replace it."""
        if (parts := parts_of(stored.name)) is None:
            return
        self.remove(parts.place)
        self._logs[parts.place] = stored
        self._jobs[parts.job][parts.place] = None
        self.bytes += stored.size

    def remove(self, place: str) -> None:
        """Remove a log. Does nothing if there is none."""
        if (stored := self._logs.pop(place, None)) is None:
            return
        self.bytes -= stored.size
        if (parts := parts_of(stored.name)) is not None:
            places = self._jobs[parts.job]
            del places[place]
            if not places:
                del self._jobs[parts.job]

    def name(self, place: str) -> str:
        """The name of the log of an attempt; "" if there is none."""
        stored = self._logs.get(place)
        return stored.name if stored is not None else ""

    def name_of_task(self, task_id: str) -> str:
        """The name of the newest log of a task; "" if there is none. Looks at all logs."""
        part = task_part(task_id)
        found = (one.name for one in reversed(list(self._logs.values())) if part in one.name)
        return next((name for name in found if (parts := parts_of(name)) and parts.task == part), "")

    def over(self, now_ms: int, count: int) -> list[str]:
        """The places of at most `count` logs to delete, the oldest ones first."""
        limits, found = self._limits, dict[str, None]()
        logs, size = len(self._logs), self.bytes
        for place, stored in self._logs.items():
            too_old = limits.age_ms and stored.ms < now_ms - limits.age_ms
            too_many = (limits.logs and logs > limits.logs) or (limits.bytes and size > limits.bytes)
            if len(found) == count or not (too_old or too_many):
                break
            found[place] = None
            logs, size = logs - 1, size - stored.size
        if limits.logs_per_job:
            for places in self._jobs.values():
                for place in list(places)[: max(0, len(places) - limits.logs_per_job)]:
                    found[place] = None
        return list(found)[:count]
