"""Runs the whole product as a user does: processes, the command line, the REST API, the files that jobs write."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jobcloud.dev.tcp_ports import free_port

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"
_DEADLINE_S = 120.0  # long enough for a machine that is several times overloaded
T = TypeVar("T")


def until(test: Callable[[], T | None], what: str, seconds: float = _DEADLINE_S) -> T:
    """The first true result of `test`. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
    return found


class Product:
    """`jobcloud` commands and API calls for one server. `end` kills the processes started here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.data = folder / "data"
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("JOBCLOUD_")},
            "XDG_RUNTIME_DIR": str(folder),
            "JOBCLOUD_SERVER": f"http://127.0.0.1:{self.port}",
            "COLUMNS": "200",
        }
        #: precedes the commands of `start`
        self.wrapper: tuple[str, ...] = ()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, descriptors: int = 0) -> subprocess.Popen[bytes]:
        """Start `jobcloud` with its output in a log file, and with at most some open descriptors."""
        before = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(descriptors)] if descriptors else list(self.wrapper)
        with open(self.folder / f"{arguments[0]}.log", "ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "jobcloud", *arguments], env=self.environ, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, cwd=self.folder,
            )  # fmt: skip
        self._processes.append(process)
        return process

    @property
    def pid(self) -> int:
        """The process started last."""
        return self._processes[-1].pid

    def wait_for_last(self) -> int:
        """The exit code of the process started last."""
        return self._processes[-1].wait(_DEADLINE_S)

    def run(self, *arguments: str, code: int = 0, seconds: float = _DEADLINE_S) -> str:
        """The output of one command, which must end with `code`."""
        argv = [sys.executable, "-m", "jobcloud", *arguments]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == code, f"jobcloud {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        """The output of one command with `--json`."""
        return json.loads(self.run(*arguments, "--json"))

    def call(self, path: str, method: str = "GET", change: Any = None, **query: str) -> tuple[int, Any]:
        """The status and body of a call of /api/v1/PATH; (0, {}) if there is no answer. Much faster than a command."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        body = None if change is None else json.dumps(change).encode()
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException):
            return 0, {}

    def get(self, path: str, **query: str) -> Any:
        """The body of GET /api/v1/PATH, which must succeed."""
        status, body = self.call(path, **query)
        assert status == 200, f"{path}: {status} {body}"
        return body

    def token(self) -> str:
        """The token that the command line would use."""
        if "JOBCLOUD_TOKEN" in self.environ:
            return self.environ["JOBCLOUD_TOKEN"]
        try:
            return str(json.loads((self.folder / "jobcloud" / f"{self.port}.json").read_text())["token"])
        except FileNotFoundError:
            return ""

    def runs(self, job: str, state: str = "FINISHED") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("runs", job=job, state=state)["items"]
        return found

    def healthy(self) -> bool:
        """Raises AssertionError if the process started last has ended with an error."""
        process = self._processes[-1] if self._processes else None
        if process is not None and (process.poll() or 0) > 0:
            logs = sorted(self.folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
            text = logs[-1].read_text(errors="replace")[-2_000:] if logs else ""
            raise AssertionError(f"jobcloud ended with {process.returncode}: {text}")
        return self.call("health")[0] == 200

    def leads(self) -> bool:
        """Whether it leads and is subscribed. After repeated failures it leads, but is not healthy for a while."""
        _, health = self.call("health")
        return bool(health.get("leading") and health.get("connected"))

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


_WORK = """\
from jobcloud.job import SimpleJob


class Work(SimpleJob):
    def execute(self, ctx):
        pass
"""


def add_demo(product: Product, output: Path) -> None:
    """Register the app of the demo, whose jobs write to `output`."""
    app = product.folder / "demo"
    subprocess.run(["cp", "-r", str(DEMO), str(app)], check=True)
    manifest = app / "jobcloud.toml"
    manifest.write_text(manifest.read_text().replace("/tmp/jobcloud-demo", str(output)))
    product.run("app", "add", str(app))


def add_work(product: Product, folder: Path, team: str, job: str, cron: str, shards: int, cpus: str = "0.01") -> None:
    """Register the app `app` of a team, with one job whose shards do nothing. Its executor has 0.1 cpus."""
    folder.mkdir()
    (folder / "work.py").write_text(_WORK)
    (folder / "jobcloud.toml").write_text(
        f"""
[app]
appName = "app"
team = "{team}"
cpuCount = 0.1
memoryMB = 64

[[jobs]]
jobName = "{job}"
team = "{team}"
jobType = "SIMPLE"
jobClass = "work:Work"
jobExecutionType = "TRANSIENT"
cron = "{cron}"
shardingTotalCount = {shards}
cpuCount = {cpus}
memoryMB = 1
"""
    )
    product.run("app", "add", str(folder))


def attempts(output: Path) -> Counter[tuple[str, int, int]]:
    """The number of executions of each (run, shard, attempt), as recorded by the jobs."""
    lines = (line for file in output.glob("*.jsonl") for line in file.read_text().splitlines())
    return Counter((run["run"], run["item"], run["attempt"]) for run in map(json.loads, lines))


def processes_with(text: str) -> list[int]:
    """Live processes with `text` in their command line or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if text.encode() in seen and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(entry.name))
    return found


def arguments_of(pid: int) -> list[str]:
    """The command line of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    return []


def executors_of(data: Path) -> list[int]:
    """The executor daemons whose sandbox is below `data`."""
    found = processes_with(f"MESOS_SANDBOX={data}")
    return [pid for pid in found if "jobcloud-executor.zip" in " ".join(arguments_of(pid))]


def scheduler_of(data: Path) -> int:
    """The scheduler that `jobcloud dev` runs on `data`. Waits until there is exactly one."""

    def only() -> int:
        found = [pid for pid in processes_with(str(data)) if "scheduler" in arguments_of(pid)]
        return found[0] if len(found) == 1 else 0

    return until(only, "one scheduler")
