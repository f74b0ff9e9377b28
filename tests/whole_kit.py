"""The whole product as a user has it: processes, the command line, the files its jobs write."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"
T = TypeVar("T")


def until(test: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """What `test` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Product:
    """`jobcloud` commands against one server; every process started here is ended with it."""

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
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{arguments[0]}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobcloud", *arguments], env=self.environ, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, cwd=self.folder,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def run(self, *arguments: str, code: int = 0, seconds: float = 60.0) -> str:
        """The output of one command, which must end with `code`."""
        argv = [sys.executable, "-m", "jobcloud", *arguments]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == code, f"jobcloud {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def runs(self, job: str, state: str = "FINISHED") -> list[dict[str, Any]]:
        found = self.json("runs", job)
        return [run for run in (found["items"] if isinstance(found, dict) else found) if run["state"] == state]

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def attempts(output: Path) -> Counter[tuple[str, int, int]]:
    """How often each (run, shard, attempt) ran, by what the jobs themselves have written."""
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


def executors_of(data: Path) -> list[int]:
    """The executor daemons that run in sandboxes below `data`."""
    return [
        pid
        for pid in processes_with(f"MESOS_SANDBOX={data}")
        if b"jobcloud-executor.zip" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
