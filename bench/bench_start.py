"""Start and memory of builds, in turns: `python bench/bench_start.py [BUILD ...] [--rounds N]`.

A BUILD is a folder with a checkout whose compiled modules are built. The first is the base of the ratios. Without one,
only this checkout is measured. Each round measures every build once:

- scheduler: CPU and wall time until it is subscribed and answers GET /jobs, its modules, and its memory with 1,000
  jobs. `off`: nothing is optional. `on`: with a data directory, and so with a history and an audit log.
- command: CPU and wall time of `jobcloud job list` with that scheduler, and of `jobcloud --version`.
- executor: CPU time until its first shard has ended, then the memory of daemon, worker and warden, and how often
  they wake up in idle seconds.

Memory is the proportional set size (PSS) of all processes of the part. Other processes on the machine change wall time
more than CPU time. Each answer is checked. The modules are compiled before the first round, as pip does it.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import described
from tests.executor_kit import ExecutorProcess, FakeAgent, app_payload, interpreters, zip_of

from jobcloud.dev.cluster import DevCluster

TOKEN = "t" * 24
JOBS = 1_000
PAGE = 100
IDLE_S = 4.0
NEVER = "0 0 0 1 1 ? 2099"
PACKAGE = zip_of({"bench_jobs.py": "def done(ctx):\n    return 7\n"})
_TICKS = os.sysconf("SC_CLK_TCK")

Row = dict[str, float]


def program(build: Path, *arguments: str) -> list[str]:
    """A command line of the build."""
    text = f"import sys; sys.path.insert(0, {str(build / 'src')!r}); from jobcloud.client.cli import main; main()"
    return [sys.executable, "-c", text, *arguments]


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            found += family(int(child))
    return found


def pss_mb(pid: int) -> float:
    """The proportional set size of a process. Source: Linux, Documentation/filesystems/proc.rst, smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no Pss")


def cpu_ms(pids: list[int]) -> float:
    """The CPU time of these processes and of their ended children."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one) for each in fields for one in each[11:15]) / _TICKS * 1000


def wake_ups(pids: list[int]) -> int:
    """How often the threads of these processes have waited and gone on."""
    files = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(file.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for file in files)


def until(condition: Callable[[], Any], what: str, within_s: float = 120) -> Any:
    """The first true answer of `condition`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not in time: {what}")


class Scheduler:
    """A scheduler of a build as a process, and a client of it."""

    def __init__(self, build: Path, folder: Path, master: str, *, on: bool) -> None:
        self._build, self._folder = build, folder
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        self.environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "JOBCLOUD_TOKEN": TOKEN}
        for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
            self.environ.pop(name, None)
        flags = ["--mesos", master, "--port", "0", "--artifact-port", "0", "--token-file", str(folder / "token")]
        if on:
            (folder / "data").mkdir(0o700)
            flags += ["--data", str(folder / "data")]
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                program(build, "scheduler", *flags), env=self.environ, stdout=log, stderr=log, cwd=folder
            )
        self.url = until(self._announced, "the address of the API")
        until(self._answers, "GET /jobs")
        self.wall_ms = (time.monotonic() - began) * 1000
        self.cpu_ms = cpu_ms(family(self.process.pid))

    def _announced(self) -> str:
        if self.process.poll() is not None:
            raise AssertionError((self._folder / "log").read_text()[-2_000:])
        for file in self._folder.rglob("*.json"):
            with contextlib.suppress(ValueError, KeyError, OSError):
                return str(json.loads(file.read_text())["url"])
        return ""

    def _answers(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return self.send("GET", "jobs")["items"] == [] and bool(self.send("GET", "cluster").get("connected", True))
        return False

    def send(self, method: str, path: str, body: Any = None, content: bytes | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else content
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/zip"
        asked = urllib.request.Request(f"{self.url}/api/v1/{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read())

    def register(self) -> None:
        sha256 = self.send("POST", "packages", content=PACKAGE)["sha256"]
        need = {"cpuCount": 0.1, "memoryMB": 32, "appURL": f"package:sha256:{sha256}"}
        self.send("POST", "apps", {"appName": "app", **need})
        for number in range(JOBS):
            job = {
                "jobName": f"job{number}", "appName": "app", "jobClass": "bench_jobs:done", "jobType": "SIMPLE",
                "cron": NEVER, "jobExecutionType": "TRANSIENT", "shardingTotalCount": 1, "cpuCount": 0.1,
                "memoryMB": 32,
            }  # fmt: skip
            self.send("POST", "jobs", job)
        assert sum(1 for _ in self._jobs()) == JOBS

    def _jobs(self) -> Iterator[Any]:
        cursor = ""
        while True:
            page = self.send("GET", f"jobs?limit={JOBS}" + (f"&cursor={cursor}" if cursor else ""))
            yield from page["items"]
            cursor = page.get("nextCursor") or ""
            if not cursor:
                return

    def command(self, *arguments: str) -> tuple[float, float, str]:
        """(CPU milliseconds, wall milliseconds, output) of a command of the build."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        argv = program(self._build, "--server", self.url, *arguments)
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False)
        wall = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return cpu * 1000, wall * 1000, done.stdout

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def measure_scheduler(build: Path, *, on: bool, commands: bool) -> Row:
    name = "scheduler on" if on else "scheduler off"
    with (
        tempfile.TemporaryDirectory() as folder,
        DevCluster(agents=1, allocation_interval_ms=200) as cluster,
        contextlib.closing(Scheduler(build, Path(folder), cluster.master, on=on)) as scheduler,
    ):
        row = {f"{name}, start CPU ms": scheduler.cpu_ms, f"{name}, start wall ms": scheduler.wall_ms}
        row[f"{name}, empty MB"] = sum(map(pss_mb, family(scheduler.process.pid)))
        scheduler.register()
        row[f"{name}, 1,000 jobs MB"] = sum(map(pss_mb, family(scheduler.process.pid)))
        if commands:
            cpu, wall, text = scheduler.command("job", "list", "--json")
            assert text.count('"jobName"') >= PAGE, text[:500]
            row |= {"command job list, CPU ms": cpu, "command job list, wall ms": wall}
            cpu, wall, text = scheduler.command("--version")
            assert text.startswith("jobcloud "), text
            row |= {"command --version, CPU ms": cpu, "command --version, wall ms": wall}
    return row


def measure_executor(build: Path) -> Row:
    write = "import sys; sys.path.insert(0, sys.argv[1]); from jobcloud.executor import bundle; "
    argv = [sys.executable, "-c", write + "sys.stdout.buffer.write(bundle.build())", str(build / "src")]
    content = subprocess.run(argv, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder, mock.patch("tests.executor_kit.executor_zip", return_value=content):
        agent = FakeAgent(app_payload(PACKAGE, maxParallel=8))
        executor = ExecutorProcess(agent, Path(folder), PACKAGE, interpreters()[0])
        try:
            began = time.monotonic()
            agent.launch("first", jobClass="bench_jobs:done")
            assert agent.end("first").data["result"] == 7
            wall = (time.monotonic() - began) * 1000
            daemon = executor.process.pid
            pids = family(daemon)
            parts = dict(_parts(daemon, pids))
            row = {"executor, first shard CPU ms": cpu_ms(pids), "executor, first shard wall ms": wall}
            time.sleep(1)
            woken, busy = wake_ups(pids), cpu_ms(pids)
            time.sleep(IDLE_S)
            row["executor, wake-ups a second"] = (wake_ups(pids) - woken) / IDLE_S
            row["executor, idle CPU ms a second"] = (cpu_ms(pids) - busy) / IDLE_S
            row |= {f"executor, {name} MB": pss_mb(pid) for name, pid in parts.items()}
            row["executor, all MB"] = sum(map(pss_mb, pids))
        finally:
            executor.stop()
            agent.close()
    return row


def _parts(daemon: int, pids: list[int]) -> Iterator[tuple[str, int]]:
    """The names of an executor's processes. The warden has the command line of the daemon, because it is a fork."""
    own = Path(f"/proc/{daemon}/cmdline").read_bytes()
    for pid in pids:
        same = Path(f"/proc/{pid}/cmdline").read_bytes() == own
        yield "daemon" if pid == daemon else "warden" if same else "worker", pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs="*", type=Path, default=[Path(__file__).resolve().parents[1]])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["scheduler", "executor"], help="measure this part alone")
    wanted = parser.parse_args()
    builds = [build.resolve() for build in wanted.builds]
    found: list[dict[str, list[float]]] = [defaultdict(list) for _ in builds]
    for build in builds:
        compileall.compile_dir(build / "src", quiet=1)
    for _ in range(wanted.rounds):
        for number, build in enumerate(builds):
            row: Row = {}
            if wanted.only != "executor":
                row |= measure_scheduler(build, on=False, commands=True)
                row |= measure_scheduler(build, on=True, commands=False)
            if wanted.only != "scheduler":
                row |= measure_executor(build)
            for name, value in row.items():
                found[number][name].append(value)
    print(described())
    for name in found[0]:
        middle = [statistics.median(each[name]) for each in found]
        ratios = "".join(f"{value / middle[0]:8.2f}" if middle[0] else "       -" for value in middle[1:])
        print(f"{name:36}" + "".join(f"{value:10.1f}" for value in middle) + ratios)


if __name__ == "__main__":
    main()
