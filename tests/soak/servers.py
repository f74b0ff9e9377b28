"""The soak's servers other than schedulers and ZooKeeper: Mesos, and a load balancer for the artifact listeners."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

START_S = 60


class Mesos:
    """A real Mesos, started by the command in JOBCLOUD_TEST_MESOS."""

    def __init__(self, folder: Path, agents: int, resources: str) -> None:
        command = os.environ.get("JOBCLOUD_TEST_MESOS")
        if not command:
            raise SystemExit("set JOBCLOUD_TEST_MESOS to a command that starts a Mesos cluster")
        self._argv = [command, "up", "--with-parent", "--work-dir", str(folder)]
        self._first = ["--port", "0", "--agents", str(agents), "--resources", resources]
        self._process = self._start(*self._first)

    def _start(self, *more: str) -> subprocess.Popen[str]:
        # Mesos logs tens of lines for each task, which would cost much time at this load.
        environ = {"GLOG_minloglevel": "1", **os.environ}
        process = subprocess.Popen([*self._argv, *more], stdout=subprocess.PIPE, text=True, env=environ)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            process.kill()
            raise SystemExit(f"Mesos did not start: {line!r}")
        self.master = line.split()[1].removeprefix("master=")
        self.port = int(self.master.rpartition(":")[2])
        return process

    def crash_and_return(self) -> None:
        """Kill master and agents, and start them again. Executors survive and reconnect."""
        self._process.kill()
        self._process.wait()
        self._process = self._start("--keep")

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.master}/state", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def running(self) -> int:
        """The number of running tasks, from the metrics: making the whole state would delay the launches."""
        with urllib.request.urlopen(f"http://{self.master}/metrics/snapshot", timeout=30) as answer:
            return int(json.load(answer)["master/tasks_running"])

    def counted(self) -> int:
        """The number of running tasks, from the whole state."""
        return sum(
            task["state"] == "TASK_RUNNING" for framework in self.state()["frameworks"] for task in framework["tasks"]
        )

    def mark_gone(self, agent_id: str) -> None:
        call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}
        request = urllib.request.Request(
            f"http://{self.master}/api/v1", json.dumps(call).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).close()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Front(socketserver.ThreadingTCPServer):
    """A load balancer for the artifact listeners of all schedulers: it forwards to the first one that answers.

    It listens at the schedulers' port, on another loopback address, so that each scheduler can advertise it.
    """

    daemon_threads = True
    address = "127.0.0.9"

    def __init__(self, backends: list[str]) -> None:
        super().__init__((self.address, 0), _Forward)
        self.backends = backends
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Forward(socketserver.BaseRequestHandler):
    server: Front

    def handle(self) -> None:
        for backend in self.server.backends:
            with contextlib.suppress(OSError), socket.create_connection((backend, self.server.port), 2) as there:
                there.settimeout(30)
                request = self.request.recv(65_536)
                there.sendall(request)
                first = there.recv(65_536)
                if not first:
                    continue  # it died or is frozen
                self.request.sendall(first)
                while piece := there.recv(65_536):
                    self.request.sendall(piece)
                return
