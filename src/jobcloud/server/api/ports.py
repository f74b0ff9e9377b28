"""What the REST API asks of the rest of the server, so that it can be served, and tested, without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from jobcloud.messages import Command
from jobcloud.scheduler import Scheduler

T = TypeVar("T")


class Health(Protocol):
    @property
    def leading(self) -> bool: ...
    @property
    def connected(self) -> bool: ...


class Loop(Protocol):
    """The one thread that owns the scheduler."""

    def command(self, make: Callable[[int], Command], timeout: float = 10) -> object:
        """Hand in the command that `make` builds for the instant it is given; return once its effect is stored.

        Raises Refused (nothing changed), StoreError, or TimeoutError (it may still take effect).
        """

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5) -> T:
        """What `fn` returns when run on the scheduler between two events. Raises TimeoutError."""

    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class LogRequest:
    """A piece of one task's output, on an agent at `address` ("" where it is not known any more).

    `executors`: ids of the executors that may have run it. An `offset` below 0 counts from the end. `ended`: nothing
    more will be written, and the executor may have been started anew since.
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


@dataclass(frozen=True, slots=True)
class LogChunk:
    """`data` as it stands at `offset`; `size` is the length of the whole stream so far, in bytes.

    Where what stood at the offset asked for is kept no more, `offset` is that of the first byte that is.
    """

    data: bytes
    offset: int
    size: int


# Raises NotFound where there is no such output (any more), Unavailable where the agent does not answer.
LogReader = Callable[[LogRequest], LogChunk]
