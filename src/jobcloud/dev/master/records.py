"""The master's records: frameworks, agents, executors, tasks, offers, drains.

Records hold data and have methods that look up data. Other modules change the records.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from ..framework_info import has_capability, roles_of
from ..protocol import TERMINAL, Json
from ..resources import NOTHING, Resources, allocated_to

_MAX_COMPLETED_TASKS = 1000  # --max_completed_tasks_per_framework of a Mesos master

# Host name in lower case and IP address. Mesos compares both, so a MachineID without one of them is another machine.
Machine = tuple[str, str]


class TaskRecord(msgspec.Struct):
    framework_id: str
    task_id: str
    agent_id: str
    executor_id: str
    role: str
    resources: Resources
    info: Json
    state: str = "TASK_STAGING"
    statuses: list[Json] = msgspec.field(default_factory=list)
    update_state: str = ""  # the state in the last update sent to the framework, and the update's uuid
    update_uuid: str = ""

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


@dataclass(slots=True)
class ExecutorRecord:
    """`requested`: the ExecutorInfo as the framework sent it. Each identical request replaces the object."""

    info: Json
    role: str
    resources: Resources
    requested: Json = field(default_factory=dict)

    def matches(self, requested: Json, role: str) -> bool:
        """Whether a request on offers of `role` names this executor with an identical ExecutorInfo."""
        if self.requested != requested:
            return False
        if self.role != role and self.role != allocated_to(requested.get("resources") or [], role):
            return False
        self.requested = requested  # a later request may share objects with this one, which makes comparisons quick
        return True


class OfferRecord(msgspec.Struct):
    offer_id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Resources


@dataclass(slots=True)
class InverseOfferRecord:
    """Asks a framework whether it can release an agent during the announced maintenance window."""

    offer_id: str
    framework_id: str
    agent_id: str


@dataclass(slots=True)
class Drain:
    """A drain that an operator has asked for; `since` is in milliseconds."""

    config: Json
    since: int
    done: bool = False

    def to_wire(self) -> Json:
        return {"state": "DRAINED" if self.done else "DRAINING", "config": self.config}


@dataclass(slots=True)
class FrameworkRecord:
    info: Json
    registered_at: int
    stream_id: str = ""  # empty while disconnected
    recovered: bool = False  # an agent reported this framework, which has not subscribed yet
    reregistered_at: int = 0
    fails_over_at: int | None = None
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    unreachable: dict[str, TaskRecord] = field(default_factory=dict)
    completed: deque[TaskRecord] = field(default_factory=lambda: deque(maxlen=_MAX_COMPLETED_TASKS))
    offers: dict[str, OfferRecord] = field(default_factory=dict)
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
        return has_capability(self.info, capability)

    @property
    def partition_aware(self) -> bool:
        return self.can("PARTITION_AWARE")


@dataclass(slots=True)
class AgentRecord:
    agent_id: str
    link: str
    hostname: str
    port: int
    total: Resources
    attributes: tuple[Json, ...]
    registered_at: int
    connected: bool = True
    times_out_at: int | None = None
    tasks: dict[tuple[str, str], TaskRecord] = field(default_factory=dict)  # by framework and task id
    executors: dict[tuple[str, str], ExecutorRecord] = field(default_factory=dict)  # by framework and executor id
    offers: dict[str, OfferRecord] = field(default_factory=dict)
    kills: set[tuple[str, str]] = field(default_factory=set)  # tasks to kill again when the agent re-registers

    @property
    def machine(self) -> Machine:
        """The machine of the agent in the maintenance schedule."""
        return machine_of(self.hostname)

    def used(self) -> Resources:
        """The resources of the agent's executors, and of its tasks that have not ended."""
        total = NOTHING
        for task in self.tasks.values():
            if not task.terminal:
                total = total + task.resources
        for executor in self.executors.values():
            total = total + executor.resources
        return total


def machine_of(hostname: str) -> Machine:
    """The machine of an agent with this host name. All agents of the dev cluster have the same address."""
    return hostname.lower(), "127.0.0.1"


def machine_key(machine_id: Json) -> Machine:
    """The parts of a MachineID that Mesos compares."""
    return machine_id.get("hostname", "").lower(), machine_id.get("ip", "")
