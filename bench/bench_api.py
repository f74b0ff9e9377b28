"""Measures the API of a busy scheduler: list, detail and trigger, each next to a bare route of the same server.

`python bench/bench_api.py [--jobs N] [--tasks N] [--launches N] [--rate N] [--seconds N] [--json]`. The scheduler is
the whole product, with state and history in SQLite, in a process of its own; it adds a route that answers at once,
behind the same checks as every route. The tasks run on virtual agents of a dev cluster. The load is open: requests are
sent at fixed instants, and each time counts from its instant, so that a slow answer delays no other request. First,
each answer is checked. The p99 of each kind must be at most three times that of the bare route in the same run.

list      pages of 20 runs, of 20 live tasks, and the jobs of an app with 20 jobs
detail    one of the jobs
trigger   a run of one of 40 jobs
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine
from bench.bench_end_to_end import NEVER, until

from jobcloud.dev.cluster import DevCluster
from jobcloud.dev.tcp_ports import free_port
from jobcloud.server import settings, wiring

TOKEN = "token-of-the-benchmark"
LONG_SHARDS, SHARDS, OF_AGENT = 20, 10, 100
FEW, TRIGGERED, PAGE = 20, 40, 20
TIMES = 3.0
MAX_IDLE_S = 1.0
KINDS = ("bare", "list", "detail", "trigger")


class Server(wiring._Process):
    """The product, with the bare route and a count of its tasks."""

    def _api(self, *parts: Any) -> ASGIApp:
        api: Any = super()._api(*parts)

        async def bare(request: Request) -> Response:
            return JSONResponse({"items": []})

        def counts(request: Request) -> Response:
            core = self._scheduler
            tasks = sum(task.state == "RUNNING" for task in list(core.tasks.values())) if core is not None else 0
            counted = [*self._tally._jobs.values(), self._tally._other]
            return JSONResponse({"running": tasks, "launched": sum(each.launched for each in counted)})

        api.app.add_route("/bare", bare)
        api.app.add_route("/counts", counts)
        return api  # type: ignore[no-any-return]


def serve(arguments: list[str]) -> int:
    """Run the scheduler: MASTER DATA PORT."""
    master, data, port = arguments
    wiring._Process = Server  # type: ignore[misc]
    flags = {
        "mesos.master": master, "data": Path(data), "http.port": int(port), "artifacts.port": 0, "log.level": "warning",
        "http.token_file": Path(data) / "token",
    }  # fmt: skip
    return wiring.run_scheduler(settings.load(None, flags))


class Api:
    """The server's process, and a client of it."""

    def __init__(self, folder: Path, master: str) -> None:
        port = free_port()
        self.port = port
        data = folder / "data"
        data.mkdir(mode=0o700)
        (data / "token").write_text(TOKEN)
        (data / "token").chmod(0o600)
        environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", master, str(data), str(port)], env=environ, stderr=self._log
        )
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1/", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=300
        )

    def healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("health").status_code == 200
        return False

    def send(self, method: str, path: str, **more: Any) -> Any:
        answer = self.http.request(method, path, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def job_names(self) -> Iterator[str]:
        cursor = ""
        while True:
            page = self.send("GET", "jobs", params={"limit": 1_000, "cursor": cursor})
            yield from (job["jobName"] for job in page["items"])
            if not (cursor := page["nextCursor"]):
                return

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.send("GET", f"http://127.0.0.1:{self.port}/counts")
        return found

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


@contextlib.contextmanager
def world(jobs: int, tasks: int, launches: int) -> Iterator[Api]:
    """A scheduler with `jobs` jobs and `tasks` running tasks that launches `launches` tasks a second."""
    with (
        tempfile.TemporaryDirectory() as name,
        DevCluster(agents=1, allocation_interval_ms=200, resources="cpus:0.01;mem:1") as cluster,
        contextlib.closing(Api(Path(name), cluster.master)) as api,
    ):
        until(api.healthy, "the scheduler")
        register(api, jobs, tasks // LONG_SHARDS, launches // SHARDS)
        # Agents that hold exactly the long tasks and their executors.
        add_agents(cluster, tasks // OF_AGENT, f"cpus:{OF_AGENT / 10 + 0.1};mem:131072;disk:100000", 1 << 30)
        until(lambda: api.counts()["running"] >= tasks, f"{tasks} running tasks", 1_200)
        add_agents(cluster, 50 + launches // 50, "cpus:32;mem:131072;disk:100000", 300)
        for number in range(launches // SHARDS):
            api.send("POST", f"jobs/busy{number}/enable")
        yield api


def add_agents(cluster: DevCluster, count: int, resources: str, run_ms: int) -> None:
    for begun in range(0, count, 500):  # a call times out after ten seconds
        cluster.control("add_agents", count=min(500, count - begun), resources=resources, run_ms=run_ms)


def register(api: Api, jobs: int, long: int, busy: int) -> None:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("shop.py", "class Report: ...\n")
    sha256 = api.send("POST", "packages", content=package.getvalue())["sha256"]
    for app in ("app", "few"):
        need = {"cpuCount": 0.1, "memoryMB": 32, "appURL": f"package:sha256:{sha256}"}
        api.send("POST", "apps", json={"appName": app, **need})
    # Enough time to register, on a busy machine.
    minute = int((time.time() + 20 + jobs / 200) // 60) + 1
    once = f"0 {minute % 60} {minute // 60 % 24} * * ?"

    def job(name: str, cron: str, shards: int, app: str = "app") -> dict[str, Any]:
        return {
            "jobName": name, "appName": app, "jobClass": "shop:Report", "jobType": "SIMPLE", "cron": cron,
            "jobExecutionType": "TRANSIENT", "shardingTotalCount": shards, "cpuCount": 0.1, "memoryMB": 32,
        }  # fmt: skip

    idle = jobs - long - busy - FEW - TRIGGERED
    made = [job(f"long{number}", once, LONG_SHARDS) for number in range(long)]
    made += [job(f"idle{number}", NEVER, 1) for number in range(idle)]
    made += [job(f"few{number}", NEVER, 1, "few") for number in range(FEW)]
    made += [job(f"trig{number}", NEVER, 1) for number in range(TRIGGERED)]
    for first in range(0, len(made), 2_000):
        api.send("POST", "apply", json={"apps": [], "jobs": made[first : first + 2_000]})
    for number in range(busy):
        api.send("POST", "jobs", params={"enabled": "false"}, json=job(f"busy{number}", "* * * * * ?", SHARDS))


class Load:
    """Requests at fixed instants, over as many connections as it takes."""

    def __init__(self, port: int, seed: int = 1) -> None:
        self._port = port
        self._dice = random.Random(seed)
        #: the connections that wait, and since when
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    async def run(self, rate: int, seconds: float, jobs: list[str]) -> None:
        start, sent = time.perf_counter() + 0.1, []
        for number in range(int(rate * seconds)):
            due = start + number / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            kind = KINDS[number % len(KINDS)]
            sent.append(asyncio.create_task(self._one(kind, due, *self._request(kind, jobs))))
        await asyncio.gather(*sent)

    def _request(self, kind: str, jobs: list[str]) -> tuple[bytes, Callable[[int, Any], bool]]:
        pick = self._dice.randrange
        if kind == "bare":
            return b"GET /bare", lambda status, found: (status, found) == (200, {"items": []})
        if kind == "list":
            path = (f"runs?limit={PAGE}", f"tasks?state=active&limit={PAGE}", "jobs?app=few")[pick(3)]
            return b"GET /api/v1/" + path.encode(), lambda status, found: status == 200 and len(found["items"]) == PAGE
        if kind == "detail":
            name = jobs[pick(len(jobs))]
            return f"GET /api/v1/jobs/{name}".encode(), lambda status, found: status == 200 and found["jobName"] == name
        name = f"trig{pick(TRIGGERED)}"
        return (
            f"POST /api/v1/jobs/{name}/trigger".encode(),
            lambda status, found: status == 202 and found["jobName"] == name and not found["existed"],
        )

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A waiting connection that the server does not close soon, or a new one."""
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.perf_counter() - since < MAX_IDLE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _one(self, kind: str, due: float, head: bytes, check: Callable[[int, Any], bool]) -> None:
        reader, writer = await self._connection()
        more = b"Content-Length: 0\r\n" if kind == "trigger" else b""
        writer.write(head + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n")
        writer.write(more + b"\r\n")
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.seconds[kind].append(time.perf_counter() - due)
        self._idle.append((time.perf_counter(), reader, writer))
        status = int(answer.split(b" ", 2)[1])
        if not check(status, json.loads(body)):
            self.failures.append(f"{head.decode()}: {status} {body[:200]!r}")


def quantile_ms(seconds: list[float], share: float) -> float:
    return round(sorted(seconds)[int(len(seconds) * share)] * 1e3, 2)


def load(arguments: list[str]) -> int:
    """The process of the load: PORT RATE SECONDS, and the names of jobs on standard input. Prints milliseconds."""
    port, rate, seconds = arguments
    made = Load(int(port))
    asyncio.run(made.run(int(rate), float(seconds), json.load(sys.stdin)))
    p50, p99 = ({kind: quantile_ms(made.seconds[kind], share) for kind in KINDS} for share in (0.5, 0.99))
    print(json.dumps({"p50_ms": p50, "p99_ms": p99, "wrong": len(made.failures), "examples": made.failures[:3]}))
    return 0


def _load(argv: list[str], seconds: float, names: str) -> dict[str, Any]:
    done = subprocess.run([*argv, str(seconds)], input=names, text=True, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with world(arguments.jobs, arguments.tasks, arguments.launches) as api:
        names = json.dumps(list(api.job_names()))
        assert len(json.loads(names)) == arguments.jobs
        argv = [sys.executable, __file__, "--load", str(api.port), str(arguments.rate)]
        checked = _load(argv, 5, names)
        assert not checked["wrong"], checked
        before, began = api.counts(), time.monotonic()
        measured = _load(argv, arguments.seconds, names)
        after, spent = api.counts(), time.monotonic() - began
    p99 = measured["p99_ms"]
    return {
        **measured,
        "times_bare": {kind: round(p99[kind] / p99["bare"], 2) for kind in KINDS[1:]},
        "running": after["running"],
        "launches_per_second": round((after["launched"] - before["launched"]) / spent),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2:])
    if sys.argv[1:2] == ["--load"]:
        return load(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="registered jobs")
    parser.add_argument("--tasks", type=int, default=99_000, help="tasks that run all the time")
    parser.add_argument("--launches", type=int, default=500, help="further tasks that are launched each second")
    parser.add_argument("--rate", type=int, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(machine.described())
        print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    return 0 if max(found["times_bare"].values()) <= TIMES and not found["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
