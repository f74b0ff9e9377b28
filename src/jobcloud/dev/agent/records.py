"""The agent's records of executors and their tasks."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import msgspec

from ..protocol import Json

Key = tuple[str, str]  # framework id, and task or executor id


class Phase(enum.Enum):
    REGISTERING = "registering"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


class LaunchedTask(msgspec.Struct):
    """A task sent to its executor. It is kept until its terminal update is acknowledged."""

    info: Json
    state: str = "TASK_STAGING"
    statuses: list[Json] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class RunningExecutor:
    """An executor that the agent has requested.

    The record is kept until the process has ended and the terminal updates of all its tasks are acknowledged.
    """

    framework_id: str
    executor_id: str
    info: Json
    container_id: str
    phase: Phase = Phase.REGISTERING
    stream_id: str = ""
    pid: int = 0
    sent_a_task: bool = False
    queued: dict[str, Json] = field(default_factory=dict)  # tasks that wait for the executor to subscribe
    tasks: dict[str, LaunchedTask] = field(default_factory=dict)
    cause: tuple[str, str] = ("", "")  # reason and message, if the agent itself ends the executor
    update_fields: Json = field(default_factory=dict)  # added to each of its status updates
    _container_status: Json = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return (self.framework_id, self.executor_id)

    @property
    def idle(self) -> bool:
        return not self.queued and not self.tasks

    def container_status(self) -> Json:
        """A ContainerStatus. Status updates share it, so callers must not change it."""
        if self._container_status.get("executor_pid") != self.pid:
            address = {"protocol": "IPv4", "ip_address": "127.0.0.1"}
            self._container_status = {
                "container_id": {"value": self.container_id},
                "network_infos": [{"ip_addresses": [address]}],
                "executor_pid": self.pid,
            }
        return self._container_status
