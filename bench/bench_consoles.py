"""Measures what open consoles cost: streams of `GET /changes` of a scheduler that publishes 1,500 notices a second.

`python bench/bench_consoles.py [--consoles N] [--jobs N] [--tasks N] [--notices N] [--seconds N] [--json]`. The server
is the API with its listener over a core with jobs and tasks, in a process of its own. A thread of it publishes the
notices. The process is measured without consoles, with them, and without them again. The cost is the difference of its
processor time, in percent of a core. First, the answers are checked. The cost of ten consoles must be at most 2 %.

The core has no cluster, so its numbers do not change by themselves: another job is disabled every half second, so that
each console gets new numbers each second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine

from jobcloud.config import App, Job, JobKind, JobType, Package, Resources
from jobcloud.messages import (
    Accept,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    SetJobEnabled,
    Status,
    StatusReceived,
    Subscribed,
    Tick,
    Topic,
    Trigger,
)
from jobcloud.model import Offer, Share
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.launch import Artifacts
from jobcloud.server.api import ApiOptions, Notices, create_api
from jobcloud.server.listener import Limits, Listener, listen
from jobcloud.server.loop import Health, Phase
from jobcloud.server.packages import PackageStore

NEVER = "0 0 0 1 1 ? 2099"
SHARDS = 20
MAX_SHARE = 0.02
MAX_OF_TEN = 10


class Core:
    """A scheduler without a thread of its own. Questions wait for each other, as they wait for the thread."""

    def __init__(self, jobs: int, tasks: int) -> None:
        self._lock = threading.Lock()
        self.now = time.time_ns() // 1_000_000
        policy = Policy(Artifacts("http://127.0.0.1:9", "e" * 64, "executor.zip", "true"))
        self.core = Scheduler(policy, Stored(), epoch=1, at=self.now)
        self.feed(Subscribed(self.now, "f"))
        self.feed(PutApp(self.now, App("app", Package("package:sha256:" + "0" * 64, "0" * 64))))
        for number in range(jobs):
            job = Job(
                f"job{number:05}", "app", JobKind.TRANSIENT, JobType.SIMPLE, NEVER, SHARDS, Resources(100, 1_000),
                job_class="m:C",
            )  # fmt: skip
            self.feed(PutJob(self.now, job))
        for number in range(tasks // SHARDS):
            self.feed(Trigger(self.now, f"job{number:05}"))
        while tasks and self.core.queue.waiting:
            self._launch()

    def _launch(self) -> None:
        agent = f"agent{len(self.core.cluster.agents):05}"
        shares = (Share("cpus", 200_000), Share("mem", 200_000_000), Share("disk", 8_000_000))
        offer = Offer(f"o{agent}", agent, f"{agent}.test", f"{agent}.test:5051", shares)
        self.feed(OffersReceived(self.now, (offer,)))
        for effect in self.feed(Tick(self.now)):
            for launch in effect.launches if isinstance(effect, Accept) else ():
                status = Status(launch.task_id, agent, "TASK_RUNNING", uuid=launch.task_id)
                self.feed(StatusReceived(self.now, status))

    def feed(self, event: Any) -> Any:
        with self._lock:
            return self.core.handle(event)

    def ask(self, fn: Any, timeout: float = 5) -> Any:
        with self._lock:
            return fn(self.core)

    def command(self, make: Any, timeout: float = 10) -> None:
        self.feed(make(self.now))

    def health(self) -> Health:
        return Health(Phase.LEADING, True, "", "", 0, True, 1, 0, 0, 0, 0, 0, ())


def serve(arguments: list[str]) -> int:
    """The process of the server: JOBS TASKS NOTICES. Each line of standard input is answered by its processor time."""
    jobs, tasks, rate = map(int, arguments)
    core, notices = Core(jobs, tasks), Notices()
    with tempfile.TemporaryDirectory() as folder:
        app = create_api(
            core, PackageStore(Path(folder)), ApiOptions(), notices=notices, directory=lambda: core.core.directory
        )
        socket = listen("127.0.0.1", 0, "http.port")
        listener = Listener(app, socket, Limits(connections=2_000, per_address=2_000))
        stop = threading.Event()
        publisher = threading.Thread(target=_publish, args=(core, notices, rate, jobs, stop))
        publisher.start()
        print(socket.getsockname()[1], len(core.core.tasks), flush=True)
        for _ in sys.stdin:
            print(time.process_time(), time.monotonic(), flush=True)
        stop.set()
        publisher.join()
        listener.stop()
    return 0


def _publish(core: Core, notices: Notices, rate: int, jobs: int, stop: threading.Event) -> None:
    """Publish the notices of tasks in batches of 10 ms, and change a job every half second."""
    begun, sent, changed = time.monotonic(), 0, 0
    topics = (Topic.LAUNCHED, Topic.RUNNING, Topic.ENDED)
    while not stop.wait(0.01):
        passed = time.monotonic() - begun
        while sent < passed * rate:
            job = f"job{sent // 3 * 7 % jobs:05}"
            run = f"{job}.{sent // 30}@c"
            notices.publish(
                Publish(core.now, topics[sent % 3], "text", job, run, f"{job}@-@{sent}", 0, f"agent{sent % 50}.test")
            )
            sent += 1
        if passed > changed / 2:
            name = f"job{jobs - 1 - changed % (jobs // 2):05}"
            core.feed(SetJobEnabled(core.now, name, enabled=changed // (jobs // 2) % 2 == 1))
            changed += 1


class Console:
    """A client that reads the stream and counts its events."""

    def __init__(self) -> None:
        self.changes = self.states = self.bytes = 0
        self.names: set[str] = set()
        self.fields: dict[str, Any] = {}

    async def watch(self, port: int, *, read: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        writer.write(b"GET /api/v1/changes HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        kind = ""
        while line := await reader.readline():
            self.bytes += len(line)
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
                self.changes += kind == "changes"
                self.states += kind == "state"
            elif read and line.startswith(b"data: "):
                found = json.loads(line[6:])
                if kind == "changes":
                    self.names.update(found["jobs"])
                self.fields[kind] = found


async def watch(port: int, consoles: int, seconds: float, *, read: bool) -> list[Console]:
    made = [Console() for _ in range(consoles)]
    watching = [asyncio.create_task(each.watch(port, read=read)) for each in made]
    await asyncio.sleep(seconds)
    for each in watching:
        each.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return made


def clients(arguments: list[str]) -> int:
    """The process of the consoles: PORT CONSOLES SECONDS."""
    port, consoles, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    made = asyncio.run(watch(port, consoles, seconds, read=False))
    print(json.dumps([[each.changes, each.states, each.bytes] for each in made]))
    return 0


def check(port: int, jobs: int, tasks: int) -> None:
    """Each console gets the digests, and the numbers of the core."""
    for each in asyncio.run(watch(port, 3, 10.0, read=True)):
        assert 4 <= each.changes <= 21, each.changes
        assert 2 <= each.states <= 12, each.states
        state = each.fields["state"]
        assert (state["jobs"]["registered"], state["shards"]["running"]) == (jobs, tasks), state
        assert each.names, "no job has changed"
        assert len(each.fields["changes"]["jobs"]) <= 1_000


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    argv = [sys.executable, __file__, "--serve", *map(str, (arguments.jobs, arguments.tasks, arguments.notices))]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        pipe, answers = server.stdin, server.stdout

        def used() -> tuple[float, float]:
            pipe.write("\n")
            pipe.flush()
            cpu, at = answers.readline().split()
            return float(cpu), float(at)

        port, tasks = map(int, answers.readline().split())
        check(port, arguments.jobs, tasks)
        shares: dict[str, float] = {}
        found: list[list[int]] = []
        for name, consoles in (("without", 0), ("with", arguments.consoles), ("without again", 0)):
            time.sleep(2)
            reading = subprocess.Popen(
                [sys.executable, __file__, "--clients", str(port), str(consoles), str(arguments.seconds + 2)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            time.sleep(1.5)
            before = used()
            time.sleep(arguments.seconds)
            after = used()
            found = json.loads(reading.communicate()[0]) or found
            shares[name] = (after[0] - before[0]) / (after[1] - before[1])
        pipe.close()
    cost = shares["with"] - (shares["without"] + shares["without again"]) / 2
    return {
        "consoles": arguments.consoles,
        "jobs": arguments.jobs,
        "tasks": tasks,
        "notices_per_second": arguments.notices,
        "percent_of_a_core": {name: round(100 * share, 2) for name, share in shares.items()},
        "cost_percent": round(100 * cost, 2),
        "changes_per_second": round(sum(each[0] for each in found) / len(found) / (arguments.seconds + 2), 2),
        "states_per_second": round(sum(each[1] for each in found) / len(found) / (arguments.seconds + 2), 2),
        "kilobytes_per_second": round(sum(each[2] for each in found) / len(found) / (arguments.seconds + 2) / 1_000, 1),
    }


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2:])
    if sys.argv[1:2] == ["--clients"]:
        return clients(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--consoles", type=int, default=MAX_OF_TEN)
    parser.add_argument("--jobs", type=int, default=10_000, help="registered jobs")
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks that run all the time")
    parser.add_argument("--notices", type=int, default=1_500, help="notices a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(machine.described())
        print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    return 0 if found["cost_percent"] <= 100 * MAX_SHARE * max(1.0, arguments.consoles / MAX_OF_TEN) else 1


if __name__ == "__main__":
    sys.exit(main())
