"""CPU time of the dev cluster for one launch: `python bench/bench_dev_cluster.py [--launches N] [--against SRC …]`.

A minimal framework in this process subscribes, launches and acknowledges like the driver: it pipelines calls. It checks
that every task gets RUNNING and FINISHED exactly once, and that every call is answered with 202. With `--against`, the
sources of other commits are measured in turn with our own, since the speed of a machine varies.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from jobcloud.adapters.mesos.wire import launch_operation
from jobcloud.config import App, Package
from jobcloud.messages import Launch
from jobcloud.model import Executor, Share
from jobcloud.scheduler.launch import Artifacts, plan_executor
from jobcloud.wire import RecordReader

RUN_MS, ALLOCATION_MS = 100, 200
AGENT = "cpus:32;mem:131072;disk:100000;ports:[31000-31999]"
MAX_STAGING = 1_000  # tasks launched and not yet running
ARTIFACTS = Artifacts("http://127.0.0.1:9", "e" * 64, "executor.zip", "exec python3 executor.zip")
PLAN = plan_executor(App("app", Package("package:sha256:" + "a" * 64, "a" * 64)), ARTIFACTS)
DATA = json.dumps({"job": {"jobName": "job", "jobClass": "shop.jobs:Report"}, "padding": "x" * 500}).encode()
ALLOCATED = '{"allocation_info":{"role":"*"}}'
PATH = "/api/v1/scheduler"


class Id(msgspec.Struct):
    value: str


class Status(msgspec.Struct):
    task_id: Id
    agent_id: Id
    state: str
    uuid: str = ""
    message: str = ""


class Offer(msgspec.Struct):
    id: Id
    agent_id: Id


class Update(msgspec.Struct):
    status: Status


class Offers(msgspec.Struct):
    offers: list[Offer]


class Subscribed(msgspec.Struct):
    framework_id: Id


class Event(msgspec.Struct):
    type: str
    update: Update | None = None
    offers: Offers | None = None
    subscribed: Subscribed | None = None


class Framework:
    def __init__(self, master: str, wanted: int, tasks_a_call: int) -> None:
        self._host, self._tasks_a_call = master, tasks_a_call
        self.wanted, self.launched, self.updates = wanted, 0, 0
        self._states: dict[str, list[str]] = {}
        self._calls, self._answers = 0, 0
        self._partial_answer = b""
        self._id = self._stream_id = ""
        self._events, self._line = self._connect(), self._connect()
        self._records, self._chunks = RecordReader(), _Chunks()
        info = {"user": "nobody", "name": "bench", "roles": ["*"], "capabilities": [{"type": "MULTI_ROLE"}]}
        body = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        self._events.sendall(self._request(body))

    def _connect(self) -> socket.socket:
        host, _, port = self._host.partition(":")
        made = socket.create_connection((host, int(port)), timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _request(self, body: Any) -> bytes:
        named = f"Mesos-Stream-Id: {self._stream_id}\r\n" if self._stream_id else ""
        data = msgspec.json.encode(body)
        kinds = "Content-Type: application/json\r\nAccept: application/json\r\n"
        head = f"POST {PATH} HTTP/1.1\r\nHost: {self._host}\r\n{named}{kinds}Content-Length: {len(data)}\r\n\r\n"
        return head.encode() + data

    def run(self) -> None:
        """Run until every task has ended and every call is answered."""
        deadline = time.monotonic() + 60 + self.wanted / 100
        while self.updates < 2 * self.wanted or self._answers < self._calls:
            ready, _, _ = select.select([self._events, self._line], [], [], 20)
            if not ready or time.monotonic() > deadline:
                updates, answers = f"{self.updates} of {2 * self.wanted}", f"{self._answers} of {self._calls}"
                raise TimeoutError(f"{updates} updates, {answers} answers")
            if self._line in ready:
                self._take_answers(self._line.recv(1 << 18))
            if self._events in ready:
                calls = [self._handled(event) for event in self._read(self._events.recv(1 << 18))]
                if data := b"".join(calls):
                    self._line.sendall(data)
        assert len(self._states) == self.wanted
        assert all(states == ["TASK_RUNNING", "TASK_FINISHED"] for states in self._states.values())

    def close(self) -> None:
        self._events.close()
        self._line.close()

    def _read(self, data: bytes) -> list[Event]:
        assert data, "the stream has ended"
        plain = self._chunks.feed(data)
        if not self._stream_id and self._chunks.head:
            head = self._chunks.head.decode()
            self._stream_id = head.partition("Mesos-Stream-Id: ")[2].partition("\r\n")[0]
        return [msgspec.json.decode(one, type=Event) for one in self._records.feed(plain)]

    def _take_answers(self, data: bytes) -> None:
        *whole, self._partial_answer = (self._partial_answer + data).split(b"\r\n\r\n")
        assert all(one.startswith(b"HTTP/1.1 202 ") for one in whole), whole[-1]
        self._answers += len(whole)

    def _handled(self, event: Event) -> bytes:
        if event.update is not None:
            return self._acknowledgement(event.update.status)
        if event.offers is not None:
            return b"".join(map(self._answer_to, event.offers.offers))
        if event.subscribed is not None:
            self._id = event.subscribed.framework_id.value
        return b""

    def _call(self, kind: str, body: Any) -> bytes:
        self._calls += 1
        return self._request({"type": kind, "framework_id": {"value": self._id}, kind.lower(): body})

    def _acknowledgement(self, status: Status) -> bytes:
        assert status.uuid, status
        self._states.setdefault(status.task_id.value, []).append(status.state)
        self.updates += 1
        body = {"agent_id": status.agent_id, "task_id": status.task_id, "uuid": status.uuid}
        return self._call("ACKNOWLEDGE", body)

    def _answer_to(self, offer: Offer) -> bytes:
        room = min(self._tasks_a_call, self.wanted - self.launched, MAX_STAGING - self.launched + len(self._states))
        agent_id, shares = offer.agent_id.value, (Share("cpus", 100, ALLOCATED), Share("mem", 32_000, ALLOCATED))
        executor = Executor(PLAN.executor_id(shares), agent_id, "app", shares, PLAN.spec, 0)
        launches = []
        for _ in range(room):
            self.launched += 1
            task_id = f"job{self.launched % 200}@-@{self.launched % 50}@-@READY@-@{agent_id}@-@{self.launched:032x}"
            launches.append(Launch(task_id, "job", shares, executor, DATA))
        operations = [launch_operation(launches, agent_id, self._id)] if launches else []
        body = {"offer_ids": [offer.id], "operations": operations, "filters": {"refuse_seconds": 0.0}}
        return self._call("ACCEPT", body)


class _Chunks:
    """Decodes the chunked transfer coding."""

    def __init__(self) -> None:
        self.head = b""
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        if not self.head:
            self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        plain, at, buffer = [], 0, self._buffer
        while (end := buffer.find(b"\r\n", at)) >= 0:
            length = int(buffer[at:end], 16)
            if len(buffer) < end + length + 4:
                break
            plain.append(buffer[end + 2 : end + 2 + length])
            at = end + length + 4
        self._buffer = buffer[at:]
        return b"".join(plain)


def measure(source: Path, launches: int, agents: int = 100, tasks_a_call: int = 10) -> tuple[float, float]:
    """Microseconds of the cluster's CPU for each launch, and launches per second."""
    argv = [sys.executable, "-m", "jobcloud.dev.cluster", "--agents=0", "--port=0"]
    argv += [f"--allocation-interval-ms={ALLOCATION_MS}", f"--parent-pid={os.getpid()}"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            master = process.stdout.readline().split()[1].removeprefix("master=")
            _add_agents(master, agents)
            warm = Framework(master, launches // 10, tasks_a_call)
            warm.run()
            warm.close()  # an open one would get half of the offers
            began, spent = time.monotonic(), _cpu(process.pid)
            framework = Framework(master, launches, tasks_a_call)
            framework.run()
            taken, used = time.monotonic() - began, _cpu(process.pid) - spent
            framework.close()
        finally:
            process.terminate()
    return used / launches * 1e6, launches / taken


def _add_agents(master: str, count: int) -> None:
    body = json.dumps({"knob": "add_agents", "count": count, "resources": AGENT, "run_ms": RUN_MS}).encode()
    host, _, port = master.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(
            b"POST /dev/control HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        answer = b"".join(iter(lambda: one.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--tasks-a-call", type=int, default=10, help="maximum number of tasks in one ACCEPT")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="SRC", help="src of other source trees")
    given = parser.parse_args()
    sources = [Path(__file__).parents[1] / "src", *given.against]
    found: dict[Path, list[tuple[float, float]]] = {source: [] for source in sources}
    for _ in range(given.rounds):
        for source in sources:
            found[source].append(measure(source.resolve(), given.launches, given.agents, given.tasks_a_call))
    for source, taken in found.items():
        costs, rates = zip(*taken, strict=True)
        print(
            f"{source}: {statistics.median(costs):.0f} µs of CPU per launch ({min(costs):.0f} to {max(costs):.0f}),"
            f" {statistics.median(rates):.0f} launches per second"
        )


if __name__ == "__main__":
    main()
