"""Attempts, agents and stores for tests of the archive of logs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.request import Request, urlopen

import pytest
from tests.history_kit import START, make_attempt

from jobcloud.archive.names import Ended, of_trace
from jobcloud.archive.service import Archive, ArchiveOptions
from jobcloud.archive.stores import Away, LogStore, Stored
from jobcloud.errors import NotFound, Unavailable


@contextmanager
def running_s3() -> Iterator[str]:
    """The URL of moto's server, which speaks S3 over HTTP."""
    pytest.importorskip("obstore")
    server: Any = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def new_bucket(server: str) -> str:
    """The name of an empty bucket."""
    name = f"b{uuid.uuid4().hex}"
    with urlopen(Request(f"{server}/{name}", method="PUT", headers={"Authorization": "AWS me:x"})) as answer:
        assert answer.status == 200
    return name


def ended(number: int = 0, **changes: Any) -> Ended:
    """An attempt with a task and a run of its own, that ended `number` seconds and one after START."""
    return of_trace(make_attempt(number, run=f"report.run-{number}@test", **changes))


@dataclass
class FakeAgents:
    """Output by task and stream. An agent whose id is in `silent` does not answer."""

    outputs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    before_read: Callable[[], None] = lambda: None

    def write(self, task_id: str, stdout: bytes, stderr: bytes = b"") -> None:
        self.outputs[task_id, "stdout"], self.outputs[task_id, "stderr"] = stdout, stderr

    def read(self, ended: Ended, stream: str, offset: int, limit: int, *, earlier: bool) -> tuple[bytes, int, int]:
        self.asked.append((ended.task_id, stream, earlier))
        self.before_read()
        if ended.agent_id in self.silent:
            raise Unavailable("the agent does not answer")
        if (ended.task_id, stream) not in self.outputs:
            raise NotFound("the output does not exist", field="taskId")
        data = self.outputs[ended.task_id, stream]
        start = min(offset, len(data))
        return data[start : start + limit], start, len(data)

    def close(self) -> None:
        pass


class FaultyStore:
    """A store whose calls fail while their name is in `broken`, and are recorded in `calls`."""

    def __init__(self, inner: LogStore) -> None:
        self.inner = inner
        self.broken: set[str] = set()
        self.calls: list[tuple[str, str]] = []

    def _called(self, call: str, name: str = "") -> None:
        self.calls.append((call, name))
        if call in self.broken:
            raise Away(f"{call} failed")

    def prepare(self) -> None:
        self._called("prepare")
        self.inner.prepare()

    def put(self, name: str, content: bytes) -> None:
        self._called("put", name)
        self.inner.put(name, content)

    def open(self, name: str) -> BinaryIO:
        self._called("open", name)
        return self.inner.open(name)

    def list(self) -> Iterator[Stored]:
        self._called("list")
        yield from self.inner.list()

    def delete(self, names: Sequence[str]) -> None:
        self._called("delete", ",".join(names))
        self.inner.delete(names)

    def names(self) -> set[str]:
        return {stored.name for stored in self.inner.list()}


class Bench:
    """An archive without threads. `run` does what its threads would do. Time passes only by `seconds`."""

    def __init__(self, store: FaultyStore, agents: FakeAgents, options: ArchiveOptions) -> None:
        self.store, self.agents, self.options = store, agents, options
        self.seconds = 0.0
        self.archive = self.lead()

    def now_ms(self) -> int:
        return START + int(self.seconds * 1_000)

    def lead(self) -> Archive:
        """Another process on the same store, whose state has nothing yet."""
        self.archive = Archive(
            self.options, lambda: self.agents, self.now_ms, store=self.store, monotonic=lambda: self.seconds, turn_s=0
        )
        return self.archive

    def end(self, *attempts: Ended, output: bytes = b"done\n") -> None:
        """Attempts end, with this output."""
        for one in attempts:
            self.agents.write(one.task_id, output, b"oops\n")
            self.archive._offer(one)

    def run(self, turns: int = 100) -> None:
        for _ in range(turns):
            self.archive._turn(self.agents, True)
