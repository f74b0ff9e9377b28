"""Record what build a65dd0d stores in etcd, and its executors, for `tests/server/test_takeover.py`.

Run it with the interpreter of a checkout of a65dd0d that is built (`make`), from anywhere:

    CHECKOUT/.venv/bin/python tests/data/build_a65dd0d/record.py

It needs etcd (`apt-get install etcd-server`) and a writable directory /srv/jobcloud, takes about a minute and writes
the files beside itself. The scenario is that of `build_d78466f/record.py`, and two wide runs. It ends with the
scheduler killed while its tasks run, so that the state is that of a scheduler that crashed.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PREFIX = "/jobcloud/"
#: of the app `wide`: runs whose shards have records of their own
WIDE: dict[str, dict[str, Any]] = {
    "wide-half": {"jobClass": "jobs:Half", "shardingTotalCount": 14},
    "wide-long": {"jobClass": "jobs:Long", "shardingTotalCount": 13, "cpuCount": 0.05, "memoryMB": 16},
}


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("scenario", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenario = _load(HERE.parent / "build_d78466f" / "record.py")


class Recording(scenario.Recording):  # type: ignore[misc]
    """One scheduler of a65dd0d, with its state in etcd, on a dev cluster of four agents."""

    def __init__(self, folder: Path, hosts: str) -> None:
        super().__init__(folder)
        self.argv[1] = __file__
        self.argv += ["--etcd", hosts]
        # `--mesos` takes the address that the scenario appends.
        self.argv.append(self.argv.pop(self.argv.index("--mesos")))

    def play(self) -> None:
        self._add("wide", {"idleTimeoutSeconds": scenario.DAY_S}, WIDE)
        self._run("wide-half", "FAILED")
        self.ask("POST", "jobs/wide-long/trigger")
        scenario.until(lambda: self._runs_shards("wide-long", 13), "the wide run")
        super().play()


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[int]:
    """One member. Yields its port."""
    port, peer = scenario.free_port(), f"http://127.0.0.1:{scenario.free_port()}"
    url = f"http://127.0.0.1:{port}"
    argv = ["etcd", "--data-dir", str(folder), "--listen-client-urls", url, "--advertise-client-urls", url]
    argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as member:
        try:
            scenario.until(lambda: serves(port), "etcd")
            yield port
        finally:
            member.kill()


def serves(port: int) -> bool:
    with contextlib.suppress(OSError):
        return "header" in ask(port, {"key": "AA=="})
    return False


def ask(port: int, request: dict[str, str]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v3/kv/range", json.dumps(request))
        return json.loads(connection.getresponse().read())


def dump(port: int) -> Iterator[dict[str, str]]:
    """The keys below the prefix, without it. Binary values are in base64. Keys with a lease are left out."""
    first, end = (base64.b64encode(key.encode()).decode() for key in (PREFIX, PREFIX[:-1] + "0"))
    for found in ask(port, {"key": first, "range_end": end})["kvs"]:
        if "lease" in found:
            continue
        value = base64.b64decode(found["value"])
        entry = {"key": base64.b64decode(found["key"]).decode().removeprefix(PREFIX)}
        try:
            entry["text"] = value.decode()
        except UnicodeDecodeError:
            entry["base64"] = found["value"]
        yield entry


def scheduler(arguments: list[str]) -> int:
    """The scheduler's command, with what it launches written to a file."""
    from jobcloud.adapters.mesos import hardened
    from jobcloud.client import cli

    trace = open(os.environ[scenario.TRACE], "a", buffering=1)  # noqa: SIM115 - as long as the process lives
    dumps = hardened.dumps

    def traced(message: object) -> bytes:
        body: bytes = dumps(message)
        if b'"ACCEPT"' in body[:200]:
            trace.write(json.dumps({"to": "master", "message": json.loads(body)}) + "\n")
        return body

    hardened.dumps = traced
    sys.argv = ["jobcloud", "scheduler", *arguments]
    cli.main()
    return 0


def record() -> int:
    scenario.OUT = HERE
    shutil.rmtree(scenario.WORK, ignore_errors=True)
    scenario.WORK.mkdir(parents=True)
    try:
        with etcd(scenario.WORK / "etcd") as port, Recording(scenario.WORK / "a", f"127.0.0.1:{port}") as recording:
            recording.play()
            recording.kill()
            scenario.write("etcd.json", list(dump(port)))
            found = recording.traced()
            (HERE / "bundle.json").write_text(json.dumps(found["bundle"], indent=1) + "\n")
            scenario.write("executors.json", list(found["executors"].values()))
    finally:
        if "--keep" not in sys.argv:
            shutil.rmtree(scenario.WORK, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(scheduler(sys.argv[2:]) if sys.argv[1:2] == ["scheduler"] else record())
