"""Measures how late a job of every second starts while clients call the API, which shares a process with the scheduler.

`python bench/bench_listeners.py [--jobs N] [--clients N] [--seconds N]`. The scheduler has N further jobs. Each phase
prints the lateness of the launches of the job, from the due instant to the call of the driver:

quiet     nobody calls
calls     N clients call GET /jobs in a loop
small     N clients call GET /jobs/NAME in a loop
apart     N clients call GET /jobs of another process with the same jobs: the cost of shared processors alone
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.config import App, Job, JobKind, JobType, Package, Resources
from jobcloud.messages import (
    Accept,
    Acknowledge,
    Call,
    Decline,
    Event,
    OffersReceived,
    PutApp,
    PutJob,
    Revive,
    Status,
    StatusReceived,
    Subscribed,
)
from jobcloud.model import Offer, Share
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.scheduler.launch import Artifacts
from jobcloud.server.api import ApiOptions, create_api
from jobcloud.server.listener import Limits, Listener, listen
from jobcloud.server.loop import Loop
from jobcloud.server.packages import PackageStore

NEVER = "0 0 0 1 1 ? 2099"
POLICY = Policy(Artifacts("http://127.0.0.1:9", "e" * 64, "executor.zip", "exec python3 executor.zip"), history=2)
_FIRE_TIME = re.compile(rb'"fireTime":(\d+)')
LIMITS = Limits(connections=2_000, per_address=2_000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Cluster:
    """A driver of one agent, on which every task ends at once."""

    def __init__(self, late: list[float]) -> None:
        self._late = late
        self._numbers = iter(range(1, 1 << 40))
        self._deliver: Callable[[Event], None]

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        self._deliver = deliver
        deliver(Subscribed(now_ms(), "f"))
        self._offer()

    def _offer(self) -> None:
        shares = (Share("cpus", 8_000), Share("mem", 8_000_000), Share("disk", 8_000_000))
        offer = Offer(f"o{next(self._numbers)}", "agent", "agent.test", "agent.test:5051", shares)
        self._deliver(OffersReceived(now_ms(), (offer,)))

    def send(self, call: Call | Acknowledge) -> None:
        if isinstance(call, Decline | Revive):
            self._offer()
        if not isinstance(call, Accept):
            return
        for one in call.launches:
            due = _FIRE_TIME.search(one.data)
            assert due is not None
            self._late.append(time.time() - int(due[1]) / 1_000)
            for state in ("TASK_RUNNING", "TASK_FINISHED"):
                status = Status(one.task_id, "agent", state, uuid=f"u{next(self._numbers)}")
                self._deliver(StatusReceived(now_ms(), status))
        self._offer()

    def stop(self) -> None:
        pass

    def teardown(self) -> None:
        pass


def job(name: str, cron: str) -> Job:
    need = Resources(100, 32_000)
    return Job(name, "a", JobKind.TRANSIENT, JobType.SIMPLE, cron, 1, need, "shop.jobs:Report", misfire=True)


class Server:
    """A scheduler with an API."""

    def __init__(self, folder: Path, jobs: int, ticking: bool) -> None:
        self.late: list[float] = []
        self.loop = Loop(
            SqliteStore(folder / "jobcloud.db"), lambda: Cluster(self.late), [],
            lambda stored, epoch, at: Scheduler(POLICY, stored, epoch, at),
        )  # fmt: skip
        self.loop.start()
        package = Package("package:sha256:" + "0" * 64, "0" * 64)
        app = App("a", package, resources=Resources(100, 32_000))
        self.loop.command(lambda at: PutApp(at, app))
        with ThreadPoolExecutor(16) as clients:
            list(clients.map(self._put, (job(f"job{number}", NEVER) for number in range(jobs))))
        if ticking:
            self._put(job("ticker", "* * * * * ?"))
        listening = listen("127.0.0.1", 0, "")
        self.port = listening.getsockname()[1]
        self._api = Listener(create_api(self.loop, PackageStore(folder / "p"), ApiOptions()), listening, LIMITS)

    def _put(self, given: Job) -> None:
        self.loop.command(lambda at: PutJob(at, given), timeout=120)

    def stop(self) -> None:
        self._api.stop()
        self.loop.stop()


def serve(jobs: int) -> None:
    """The process of `apart`. Prints its port."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), jobs, ticking=False)
        print(server.port, flush=True)
        sys.stdin.read()
        server.stop()


async def call(port: int, clients: int, path: str) -> None:
    """The process of the clients: calls until stdin is closed, then prints (calls, median, p99 in ms)."""
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    took: list[float] = []
    request = f"GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        while not over.done():
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            took.append(time.perf_counter() - began)
        writer.close()

    calls = [asyncio.create_task(one()) for _ in range(clients)]
    await over
    for each in calls:
        each.cancel()
    await asyncio.wait(calls)
    took.sort()
    took = took or [0.0]
    print(
        f"{len(took)} calls, median {took[len(took) // 2] * 1e3:.0f} ms, p99 {took[len(took) * 99 // 100] * 1e3:.0f} ms"
    )


def child(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, __file__, *arguments]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def phase(name: str, server: Server, seconds: int, *clients: str) -> None:
    begun = child(*clients) if clients else None
    time.sleep(2)
    server.late.clear()
    cpu = os.times()
    time.sleep(seconds)
    late = sorted(server.late) or [float("inf")]
    spent = sum(os.times()[:2]) - sum(cpu[:2])
    shown = begun.communicate("")[0].strip() if begun else ""
    figures = ", ".join(
        f"{label} {late[int(len(late) * part)] * 1e3:.0f}" for label, part in (("median", 0.5), ("p99", 0.99))
    )
    count = f"{len(server.late)} of {seconds} launches"
    cpu_share = f"CPU {spent / seconds:.0%}"
    print(f"{name:8} {count}, late in ms: {figures}, max {late[-1] * 1e3:.0f}; {cpu_share}; {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--phases", default="quiet,calls,small,apart")
    given = parser.parse_args()
    for name in given.phases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder), given.jobs, ticking=True)
            if name == "quiet":
                phase(name, server, given.seconds)
            elif name == "apart":
                other = child("serve", str(given.jobs))
                assert other.stdout is not None
                phase(name, server, given.seconds, "call", other.stdout.readline().strip(), str(given.clients), "jobs")
                other.communicate("")
            else:
                path = "jobs" if name == "calls" else "jobs/job7"
                phase(name, server, given.seconds, "call", str(server.port), str(given.clients), path)
            server.stop()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    sys.setswitchinterval(0.0005)  # as in jobcloud.server.wiring
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    elif sys.argv[1:2] == ["call"]:
        asyncio.run(call(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
    else:
        main()
