"""Which tasks are alive here and which of their status updates the agent has not acknowledged. Pure: no time, no ids.

Source: Mesos documentation, "Executor HTTP API": SUBSCRIBE carries every task and update without an acknowledgement,
so that an agent that restarted learns what happened meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Set

Status = Mapping[str, Any]

TERMINAL = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"})
# Remembered so that a LAUNCH delivered twice, the second time late, starts nothing.
_ENDED_REMEMBERED = 10_000
# Progress reports kept for one task while no agent takes them; the newest are dropped, terminal updates never.
MAX_WAITING_REPORTS = 1_000


class Ledger:
    """The executor's side of what it owes the agent."""

    def __init__(self) -> None:
        self._live: Set[str] = set()
        # Hashes of ids: they cost a tenth, and two that are equal by chance would need 2 ** 32 tasks at once.
        self._ended: Set[int] = set()
        self._endings: Deque[int] = deque()
        self._unknown_to_agent: Dict[str, Mapping[str, Any]] = {}
        self._updates: OrderedDict[str, Status] = OrderedDict()
        self._waiting: Dict[str, int] = {}

    @property
    def live(self) -> int:
        return len(self._live)

    @property
    def settled(self) -> bool:
        """No task is alive and the agent has every update."""
        return not self._live and not self._updates

    def launch(self, task_id: str, info: Mapping[str, Any]) -> bool:
        """False, and nothing changed, where this task id was launched here before."""
        if task_id in self._live or hash(task_id) in self._ended:
            return False
        self._live.add(task_id)
        self._unknown_to_agent[task_id] = info
        return True

    def alive(self, task_id: str) -> bool:
        return task_id in self._live

    def record(self, task_id: str, uuid: str, status: Status) -> bool:
        """Keep an update until it is acknowledged.

        False, and nothing is kept, for a task that is not alive (so no task ends twice) and for one report too many.
        """
        if task_id not in self._live:
            return False
        if status["state"] in TERMINAL:
            self._live.discard(task_id)
            self._ended.add(hash(task_id))
            self._endings.append(hash(task_id))
            if len(self._endings) > _ENDED_REMEMBERED:
                self._ended.discard(self._endings.popleft())
        elif self._waiting.get(task_id, 0) >= MAX_WAITING_REPORTS:
            return False
        self._waiting[task_id] = self._waiting.get(task_id, 0) + 1
        self._updates[uuid] = status
        return True

    def acknowledge(self, task_id: str, uuid: str) -> bool:
        """False where no update of that uuid waits, as after a second acknowledgement."""
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
        """By uuid, oldest first."""
        return dict(self._updates)
