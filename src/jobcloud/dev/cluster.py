"""`python -m jobcloud.dev.cluster` runs a master and N agents in one process. `DevCluster` starts that process.

The process prints one line `ready master=127.0.0.1:PORT agents=N`. It ends on SIGTERM, SIGINT and SIGHUP. With
`--parent-pid`, it also ends when its parent has ended. It leaves no process behind, even if it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .agent import AgentSettings
from .http_api import HttpApi
from .master import MasterSettings
from .resources import ResourceError, Resources, parse
from .sandbox import Warden
from .shell import Shell, new_salt

DEFAULT_RESOURCES = "cpus:4;mem:4096;disk:10000;ports:[31000-31999]"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class ClusterError(Exception):
    """The dev cluster did not start, or refused a request. The text gives the reason."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    agents: int
    port: int
    data: Path | None
    resources: Resources
    attributes: tuple[dict[str, Any], ...]
    parent_pid: int | None
    master: MasterSettings
    registration_timeout_ms: int
    shutdown_grace_ms: int


# ---- the process -----------------------------------------------------------------------------------------------


def _options(argv: list[str]) -> ClusterOptions:
    parser = argparse.ArgumentParser(prog="jobcloud.dev.cluster", description="A small Mesos for laptops and tests.")
    add = parser.add_argument
    add("--agents", type=int, default=1, help="number of agents (%(default)s)")
    add("--port", type=int, default=5050, help="port of the master; 0 takes a free port (%(default)s)")
    add("--data", type=Path, help="directory for the sandboxes and the agents' ids (a temporary directory)")
    add("--resources", default=DEFAULT_RESOURCES, help="resources of each agent (%(default)s)")
    add(
        "--attributes",
        action="append",
        default=[],
        help="attributes of each agent: key:value, separated by ; (may be repeated)",
    )
    add("--parent-pid", type=int, help="process id of the parent; end when the parent has ended")
    add("--heartbeat-ms", type=int, default=15_000)
    add("--allocation-interval-ms", type=int, default=1_000)
    add("--offer-timeout-ms", type=int, help="rescind offers after this time (never)")
    add("--executor-registration-timeout-ms", type=int, default=60_000)
    add("--executor-shutdown-grace-ms", type=int, default=5_000)
    given = parser.parse_args(argv)
    if given.agents < 0 or not 0 <= given.port < 65536:
        parser.error("--agents must be at least 0, --port from 0 to 65535")
    for name in ("heartbeat_ms", "allocation_interval_ms", "executor_registration_timeout_ms"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    try:
        resources, attributes = parse(given.resources), _attributes(";".join(given.attributes))
    except ResourceError as refused:
        parser.error(str(refused))
    master = MasterSettings(
        heartbeat_ms=given.heartbeat_ms,
        allocation_interval_ms=given.allocation_interval_ms,
        offer_timeout_ms=given.offer_timeout_ms,
    )
    return ClusterOptions(
        given.agents,
        given.port,
        given.data,
        resources,
        attributes,
        given.parent_pid,
        master,
        given.executor_registration_timeout_ms,
        given.executor_shutdown_grace_ms,
    )


def _attributes(text: str) -> tuple[dict[str, Any], ...]:
    """Parse `rack:a;zone:b;weight:2.5`. Numbers become scalars, as in Mesos. Raises ResourceError."""
    made: list[dict[str, Any]] = []
    for part in filter(str.strip, text.split(";")):
        name, colon, value = (one.strip() for one in part.partition(":"))
        if not (name and colon and value):
            raise ResourceError(f"attributes: {part!r} is not `key:value`")
        try:
            made.append({"name": name, "type": "SCALAR", "scalar": {"value": float(value)}})
        except ValueError:
            made.append({"name": name, "type": "TEXT", "text": {"value": value}})
    return tuple(made)


class _SavedState:
    """The file in `--data` with the cluster's name, its agents' ids and its starts. Raises ClusterError if damaged."""

    def __init__(self, data: Path) -> None:
        self._path = data / "cluster.json"
        self.name = f"{new_salt():016x}"
        self.agent_ids: list[str] = []
        self.starts = 0
        with contextlib.suppress(FileNotFoundError):
            try:
                saved = json.loads(self._path.read_text())
                self.name, self.starts = str(saved["name"]), int(saved["runs"])
                self.agent_ids = [str(one) for one in saved["agents"]]
            except (ValueError, KeyError, TypeError):
                raise ClusterError(f"{self._path} is damaged: remove it to start with new agents") from None

    def save(self, agent_ids: list[str]) -> None:
        """Replace the file in one step. After a kill, there is either the old or the new file."""
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"name": self.name, "agents": agent_ids, "runs": self.starts + 1}))
        new.replace(self._path)


async def _run(options: ClusterOptions, data: Path) -> None:
    saved = _SavedState(data)
    shell = Shell(replace(options.master, master_id=f"{saved.name}-{saved.starts}"), data)
    api = HttpApi(shell)
    stop = asyncio.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stop.set)
    try:
        port = await api.start_master(options.port)
        known = saved.agent_ids[: options.agents]
        shell.master.expect_agents(known, shell.now())
        for number in range(options.agents):
            settings = AgentSettings(
                hostname=f"agent{number + 1}.localhost",
                resources=options.resources,
                attributes=options.attributes,
                agent_id=known[number] if number < len(known) else "",
                salt=new_salt(),
                registration_timeout_ms=options.registration_timeout_ms,
                shutdown_grace_ms=options.shutdown_grace_ms,
            )
            await api.start_agent(settings, f"agent{number + 1}")
        saved.save([host.agent.agent_id for host in shell.hosts.values()])
        print(f"ready master=127.0.0.1:{port} agents={options.agents}", flush=True)
        await _until(stop, options.parent_pid)
    finally:
        shell.stop()


async def _until(stop: asyncio.Event, parent_pid: int | None) -> None:
    while not stop.is_set() and parent_pid in (None, os.getppid()):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5 if parent_pid else None)


def main(argv: list[str] | None = None) -> int:
    options = _options(sys.argv[1:] if argv is None else argv)
    # Few objects form reference cycles. Frequent garbage collections would take more time than the launches.
    gc.set_threshold(100_000, 20, 20)
    try:
        data, temporary = options.data, None
        if data is None:
            data = temporary = Path(tempfile.mkdtemp(prefix="jobcloud-dev-"))
        data.mkdir(parents=True, exist_ok=True)
        data = data.resolve()
        warden = Warden(data / "agents", temporary)
        try:
            asyncio.run(_run(options, data))
        finally:
            warden.finish()
    except (OSError, ClusterError) as failure:
        print(f"jobcloud.dev.cluster: {failure}", file=sys.stderr)
        return 1
    return 0


# ---- client ----------------------------------------------------------------------------------------------------


class DevCluster:
    """Runs a dev cluster in a child process: `with DevCluster(agents=2) as cluster:`. `cluster.master` is "host:port".

    `options` become flags: `allocation_interval_ms=50` is `--allocation-interval-ms=50`. Raises ClusterError if the
    cluster does not start.
    """

    def __init__(self, agents: int = 1, port: int = 0, **options: Any) -> None:
        self.agents = agents
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
        self._argv = [sys.executable, "-m", __spec__.name, f"--agents={agents}", f"--port={port}", *flags]
        self.master = ""
        self.process: subprocess.Popen[str]

    def __enter__(self) -> DevCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        argv = [*self._argv, f"--parent-pid={os.getpid()}"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _START_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            self.stop()
            raise ClusterError(f"the dev cluster did not start: {line.strip() or 'no output'}")
        self.master = line.split()[1].removeprefix("master=")

    def stop(self) -> int:
        """Send SIGTERM and wait. Returns the exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def control(self, knob: str, **fields: Any) -> dict[str, Any]:
        """Inject a fault (docs/dev-cluster.md). Raises ClusterError if the cluster refuses the request."""
        host, _, port = self.master.partition(":")
        link = http.client.HTTPConnection(host, int(port), timeout=_STOP_SECONDS)
        try:
            link.request(
                "POST", "/dev/control", json.dumps({"knob": knob, **fields}), {"Content-Type": "application/json"}
            )
            answer = link.getresponse()
            body: dict[str, Any] = json.loads(answer.read())
        finally:
            link.close()
        if answer.status != 200:
            raise ClusterError(str(body.get("error", body)))
        return body


if __name__ == "__main__":
    sys.exit(main())
