"""Gives the tasks of jobs access to their secrets, and hands the secrets over to executors.

A task gets a token when its launch is sent. The token works once. Its use is stored in the record of the task before
the values are handed over, so that a later leader knows it, and a former leader can hand over nothing. A task that has
reported anything cannot fetch, because executors fetch secrets before they report.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec
import structlog

from jobcloud.config import team_of
from jobcloud.errors import Conflict, NotFound
from jobcloud.executor.http_job import inner_address
from jobcloud.messages import Launch
from jobcloud.model import Task
from jobcloud.scheduler.status import NOT_BEGUN
from jobcloud.server.secrets.sources import Missing, Source, SourceFailed, value_of
from jobcloud.server.secrets.tokens import Grant, InvalidToken, seal, unseal
from jobcloud.server.secrets.webhook_keys import keys_of

log = structlog.get_logger(__name__)

# Checks of names use the threads of the API, which are few.
_CHECKS_AT_ONCE, _CHECK_PATIENCE_S, _CHECK_S = 2, 1.0, 5.0


class Read(StrEnum):
    """The outcome of a request for a secret, for the audit."""

    GIVEN = "given"
    EXPIRED = "expired"
    USED = "used"
    OTHER_ADDRESS = "other_address"
    TASK_GONE = "task_gone"
    MISSING = "missing"
    SOURCE_FAILED = "source_failed"


class OnRead(Protocol):
    def __call__(self, task: str, secret: str, agent: str, client: str, outcome: Read) -> object:
        """Hear of one secret that was given to an IP address `client`, or refused. On any thread; must not block."""


class Refusal(Exception):
    """The secrets are not handed over. The text is for the message of the attempt; it contains no value."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True, slots=True)
class SecretOptions:
    """`key` seals tokens. `urls` are those at which executors reach the artifact servers of all schedulers. `ca` has
    the certificates (PEM) of the CA of these URLs; "" stands for the CAs of the agents' systems.

    A token is valid for `lifetime_ms`. With `check_address`, only the address of the task's agent may use it.
    """

    key: bytes = field(repr=False)
    cluster: str
    urls: tuple[str, ...]
    ca: str = ""
    lifetime_ms: int = 60_000
    check_address: bool = True


class Secrets:
    """`task_of` finds a task of the leader's state, and `use` carries out UseSecrets for a task and its agent.

    Both may block, and raise Unavailable while another scheduler leads.
    """

    def __init__(
        self,
        source: Source,
        options: SecretOptions,
        task_of: Callable[[str], Task | None],
        use: Callable[[str, str], object],
        now_ms: Callable[[], int],
        on_read: OnRead = lambda task, secret, agent, client, outcome: None,
    ) -> None:
        self._source, self._options, self._task_of, self._use = source, options, task_of, use
        self._now_ms, self._on_read = now_ms, on_read
        self._checks = threading.BoundedSemaphore(_CHECKS_AT_ONCE)

    def access(self, launch: Launch, agent_id: str) -> bytes:
        """The access of a launch to its secrets (docs/executor.md), as JSON. It contains a token for the task."""
        options = self._options
        expires_ms = self._now_ms() + options.lifetime_ms
        grant = Grant(options.cluster, launch.task_id, agent_id, launch.address, launch.secrets, expires_ms)
        access = {"urls": options.urls, "token": seal(options.key, grant), "seconds": options.lifetime_ms / 1000}
        return msgspec.json.encode(access | ({"ca": options.ca} if options.ca else {}))

    def missing(self, wanted: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The (team, name) that the source certainly does not have. May block for a while.

        If the source fails, is slow, or is asked too often, the rest is not checked: a job may be registered while the
        source is away.
        """
        found: list[tuple[str, str]] = []
        if not self._checks.acquire(timeout=_CHECK_PATIENCE_S):
            return found
        try:
            until = time.monotonic() + _CHECK_S
            for team, name in wanted:
                try:
                    value_of(self._source, team, name)
                except Missing:
                    found.append((team, name))
                if time.monotonic() > until:
                    break
        except SourceFailed as error:
            log.warning("the names of secrets were not checked", problem=str(error))
        finally:
            self._checks.release()
        return found

    def webhook_keys(self, team: str, names: Sequence[str]) -> tuple[list[bytes], list[str]]:
        """As `keys_of`."""
        return keys_of(self._source, team, names)

    def hand_over(self, token: str, address: str) -> dict[str, bytes]:
        """The values for the holder of a token at an IP address. May block.

        Raises Refusal, and the errors of `task_of` and `use`. The token is used up only if this returns, or if `use`
        raises an error that leaves it open whether the use was stored.
        """
        try:
            grant = unseal(self._options.key, token)
        except InvalidToken:
            raise Refusal(401, "the token is not valid") from None
        names = ", ".join(grant.names)
        if grant.cluster != self._options.cluster:
            raise Refusal(401, "the token is that of another cluster")
        if grant.expires_ms <= self._now_ms():
            raise self._refuse(grant, address, Read.EXPIRED, 401, f"the token for {names} has expired")
        if self._options.check_address and not is_at(grant.address, address):
            problem = f"the token for {names} came from {address}, which is not the address of the task's agent"
            raise self._refuse(grant, address, Read.OTHER_ADDRESS, 403, f"{problem}; see secrets.check_address")
        gone = f"the task is not about to start, so it gets no {names}"
        used = f"the token for {names} was used before"
        task = self._task_of(grant.task)
        if task is None or task.agent_id != grant.agent or task.state not in NOT_BEGUN:
            raise self._refuse(grant, address, Read.TASK_GONE, 409, gone)
        if task.secrets_used:
            raise self._refuse(grant, address, Read.USED, 409, used)
        values = self._values(grant, address, team_of(task.job))
        # The task may have changed while the source was asked.
        try:
            self._use(grant.task, grant.agent)
        except NotFound:
            raise self._refuse(grant, address, Read.TASK_GONE, 409, gone) from None
        except Conflict:
            raise self._refuse(grant, address, Read.USED, 409, used) from None
        for name in grant.names:
            self._on_read(grant.task, name, grant.agent, address, Read.GIVEN)
        return values

    def _values(self, grant: Grant, client: str, team: str) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        for name in grant.names:
            try:
                values[name] = value_of(self._source, team, name)
            except Missing:
                self._on_read(grant.task, name, grant.agent, client, Read.MISSING)
                raise Refusal(404, f"team {team} has no secret {name}") from None
            except SourceFailed as error:
                self._on_read(grant.task, name, grant.agent, client, Read.SOURCE_FAILED)
                raise Refusal(502, f"the secret {name} cannot be read: {error}") from None
        return values

    def _refuse(self, grant: Grant, client: str, outcome: Read, status: int, problem: str) -> Refusal:
        for name in grant.names:
            self._on_read(grant.task, name, grant.agent, client, outcome)
        log.warning("secrets refused", task=grant.task, secrets=grant.names, outcome=outcome.value)
        return Refusal(status, problem)


def is_at(agent: str, address: str) -> bool:
    """Whether an IP address is that of an agent, which is given as HOST:PORT, perhaps with a path. May ask DNS."""
    host = agent.partition("/")[0].rpartition(":")[0].strip("[]")
    if not host:
        return False
    try:
        found = [host] if _is_ip(host) else [str(info[4][0]) for info in socket.getaddrinfo(host, None)]
        return inner_address(address) in map(inner_address, found)
    except (OSError, ValueError):
        return False


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
