"""What the dev master knows: frameworks, agents, tasks, offers. Values and look-ups; master.py changes them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .protocol import TERMINAL, Json
from .resources import NOTHING, Resources

_COMPLETED_TASKS = 1000  # --max_completed_tasks_per_framework of a Mesos master


class Task(msgspec.Struct):
    framework_id: str
    task_id: str
    agent_id: str
    executor_id: str
    role: str
    resources: Resources
    info: Json
    state: str = "TASK_STAGING"
    statuses: list[Json] = msgspec.field(default_factory=list)
    update_state: str = ""  # of the update last sent to the framework, with its uuid
    update_uuid: str = ""

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


@dataclass(slots=True)
class Executor:
    """`asked` is the ExecutorInfo as the first task named it; the others mostly name the same."""

    info: Json
    role: str
    resources: Resources
    asked: Json = field(default_factory=dict)

    def is_named(self, asked: Json, role: str) -> bool:
        """Whether what is asked for is this one, to the letter."""
        if self.role != role or self.asked != asked:
            return False
        self.asked = asked  # with which the next ones may share parts
        return True


class Offer(msgspec.Struct):
    offer_id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Resources
    expires_at: int | None


@dataclass(slots=True)
class InverseOffer:
    """A question to a framework: whether it can do without an agent during the window announced for it."""

    offer_id: str
    framework_id: str
    agent_id: str


@dataclass(slots=True)
class Framework:
    info: Json
    registered_at: int
    stream_id: str = ""  # empty while disconnected
    recovered: bool = False  # known from an agent only: it has not subscribed to this master yet
    reregistered_at: int = 0
    fails_over_at: int | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    unreachable: dict[str, Task] = field(default_factory=dict)
    completed: deque[Task] = field(default_factory=lambda: deque(maxlen=_COMPLETED_TASKS))
    offers: dict[str, Offer] = field(default_factory=dict)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.id = str(self.info["id"]["value"])

    @property
    def connected(self) -> bool:
        return bool(self.stream_id)

    @property
    def roles(self) -> tuple[str, ...]:
        return roles_of(self.info)

    def can(self, capability: str) -> bool:
        return can(self.info, capability)

    @property
    def partition_aware(self) -> bool:
        return self.can("PARTITION_AWARE")


@dataclass(slots=True)
class Agent:
    agent_id: str
    link: str
    hostname: str
    port: int
    total: Resources
    attributes: tuple[Json, ...]
    registered_at: int
    connected: bool = True
    times_out_at: int | None = None
    tasks: dict[tuple[str, str], Task] = field(default_factory=dict)  # by framework and task id
    executors: dict[tuple[str, str], Executor] = field(default_factory=dict)  # by framework and executor id
    offers: dict[str, Offer] = field(default_factory=dict)
    killed: set[tuple[str, str]] = field(default_factory=set)  # kills to repeat when it comes back

    @property
    def machine(self) -> tuple[str, str]:
        """What maintenance knows it by: its host name in lower case, and its address."""
        return self.hostname.lower(), "127.0.0.1"

    def used(self) -> Resources:
        total = NOTHING
        for task in self.tasks.values():
            if not task.terminal:
                total = total + task.resources
        for executor in self.executors.values():
            total = total + executor.resources
        return total


def can(info: Json, capability: str) -> bool:
    return any(one.get("type") == capability for one in info.get("capabilities", ()))


def dropped_state(info: Json) -> str:
    """The state of a task that never began, in the words that its framework knows."""
    return "TASK_DROPPED" if can(info, "PARTITION_AWARE") else "TASK_LOST"


def roles_of(info: Json) -> tuple[str, ...]:
    if can(info, "MULTI_ROLE"):
        return tuple(info.get("roles", ()))
    return (info.get("role", "*"),)


def status(task_id: str, agent_id: str, state: str, message: str, reason: str, at_ms: int, **more: Any) -> Json:
    """A TaskStatus of the master's own making: it has no uuid and wants no acknowledgement."""
    made: Json = {
        "task_id": {"value": task_id},
        "state": state,
        "message": message,
        "source": "SOURCE_MASTER",
        "reason": reason,
        "timestamp": at_ms / 1000,
    }
    if agent_id:
        made["agent_id"] = {"value": agent_id}
    made.update(more)
    return made
