"""The tasks that are alive here, and the status updates that the agent has not acknowledged.

This module is pure: it reads no clock and makes no ids. SUBSCRIBE carries all unacknowledged tasks and updates, so that
a restarted agent learns of them. Source: Mesos documentation, "Executor HTTP API".
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Any, Dict, List, Mapping, Optional, Set

Status = Mapping[str, Any]
_HASH = struct.Struct("q")

TERMINAL = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"})
# This many ended tasks are remembered. A second LAUNCH of a remembered task starts nothing.
_ENDED_REMEMBERED = 10_000
# At most this many unacknowledged reports of one task are kept. Further reports are dropped. A terminal update is never
# dropped.
MAX_WAITING_REPORTS = 1_000


class _RecentTexts:
    """The last `size` texts, as 64-bit hashes. Two texts are unlikely to have the same hash by chance.

    All hashes are in one block of memory. An object for each hash would leave a hole in the heap when it is freed.
    """

    def __init__(self, size: int) -> None:
        self._block = bytearray(_HASH.size * size)
        self._next = 0

    def add(self, text: str) -> None:
        _HASH.pack_into(self._block, self._next, hash(text) or 1)
        self._next = (self._next + _HASH.size) % len(self._block)

    def __contains__(self, text: str) -> bool:
        wanted, at = _HASH.pack(hash(text) or 1), -1
        while True:
            at = self._block.find(wanted, at + 1)
            if at % _HASH.size == 0 or at < 0:
                return at >= 0


class Ledger:
    """The executor's tasks, and the updates that the agent has not acknowledged."""

    def __init__(self) -> None:
        self._live: Set[str] = set()
        self._ended = _RecentTexts(_ENDED_REMEMBERED)
        self._unknown_to_agent: Dict[str, Mapping[str, Any]] = {}
        self._updates: OrderedDict[str, Status] = OrderedDict()
        self._waiting: Dict[str, int] = {}

    @property
    def live(self) -> int:
        return len(self._live)

    @property
    def empty(self) -> bool:
        """Whether no task is alive and the agent has acknowledged every update."""
        return not self._live and not self._updates

    def launch(self, task_id: str, info: Mapping[str, Any]) -> bool:
        """Add a task. If a task of this id is alive or is remembered as ended, change nothing and return False."""
        if task_id in self._live or task_id in self._ended:
            return False
        self._live.add(task_id)
        self._unknown_to_agent[task_id] = info
        return True

    def alive(self, task_id: str) -> bool:
        return task_id in self._live

    def record(self, task_id: str, uuid: str, status: Status) -> bool:
        """Keep an update until it is acknowledged.

        If the task is not alive, keep nothing and return False. So no task ends twice. Do the same if the update is a
        report and MAX_WAITING_REPORTS updates of the task are waiting.
        """
        if task_id not in self._live:
            return False
        if status["state"] in TERMINAL:
            self._live.discard(task_id)
            self._ended.add(task_id)
        elif self._waiting.get(task_id, 0) >= MAX_WAITING_REPORTS:
            return False
        self._waiting[task_id] = self._waiting.get(task_id, 0) + 1
        self._updates[uuid] = status
        return True

    def acknowledge(self, task_id: str, uuid: str) -> bool:
        """Drop an acknowledged update. Returns False if it is unknown, perhaps because it was acknowledged before."""
        if self._updates.pop(uuid, None) is None:
            return False
        self._unknown_to_agent.pop(task_id, None)
        self._waiting[task_id] -= 1
        if not self._waiting[task_id]:
            del self._waiting[task_id]
        return True

    def waiting(self, uuid: str) -> bool:
        return uuid in self._updates

    def unacknowledged(self, uuid: str) -> Optional[Status]:
        return self._updates.get(uuid)

    def unacknowledged_tasks(self) -> List[Mapping[str, Any]]:
        return list(self._unknown_to_agent.values())

    def unacknowledged_updates(self) -> Dict[str, Status]:
        """The updates by uuid, the oldest first."""
        return dict(self._updates)
