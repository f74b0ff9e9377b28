"""Ports to the rest of the server, so that the API can be served and tested without it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from jobcloud.messages import Command
from jobcloud.model import Condition
from jobcloud.ports import StoredFault
from jobcloud.scheduler import Scheduler

T = TypeVar("T")


class Health(Protocol):
    @property
    def leading(self) -> bool: ...
    @property
    def connected(self) -> bool: ...
    @property
    def epoch(self) -> int: ...
    @property
    def well(self) -> bool: ...
    @property
    def problem(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def since_ms(self) -> int: ...
    @property
    def recoveries(self) -> int: ...
    @property
    def faults(self) -> Sequence[StoredFault]: ...


class AlertChannel(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def conditions(self) -> frozenset[Condition]: ...
    @property
    def teams(self) -> Sequence[str]: ...
    @property
    def owners(self) -> Sequence[str]: ...


class AlertChannels(Protocol):
    """The channels for alerts."""

    @property
    def channels(self) -> Sequence[AlertChannel]: ...

    def test(self, name: str) -> str:
        """Send a test message. Returns the problem, or "". Blocks for some seconds. Raises NotFound, Unavailable."""


class Loop(Protocol):
    """The thread that owns the scheduler."""

    def command(self, make: Callable[[int], Command], timeout: float = 10) -> object:
        """Carry out the command that `make` builds for an instant. Returns when the effect of the command is stored.

        Raises Refused, StoreError or TimeoutError. After a TimeoutError, or an Unavailable whose text says so, the
        command may still take effect.
        """

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5) -> T:
        """Call `fn` on the scheduler between two events; return its result. Raises TimeoutError."""

    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class LogRequest:
    """A request for a piece of a task's output on the agent at `address` ("" if it is no longer known).

    `executors` are the ids of the executors that may have run the task. A negative `offset` counts from the end.
    `ended`: the output is complete, and the executor may have been started again since.
    """

    task_id: str
    agent_id: str
    hostname: str
    address: str
    framework_id: str
    executors: tuple[str, ...]
    stream: str
    offset: int
    limit: int
    ended: bool = False
    run_id: str = ""
    item: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class LogChunk:
    """The `data` at `offset`. `size` is the current length of the whole stream, in bytes.

    If the bytes at the requested offset no longer exist, `offset` is that of the first existing byte.
    `archived_task` is the id of the task if the data comes from the archive, or else "". `missing`: why there is no
    output of a task that has ended, or "".
    """

    data: bytes
    offset: int
    size: int
    archived_task: str = ""
    missing: str = ""


# Raises NotFound if the output does not exist or no longer exists, Unavailable if the agent does not answer.
LogReader = Callable[[LogRequest], Awaitable[LogChunk]]
