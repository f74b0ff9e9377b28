"""The parts of the soak's world that live outside the schedulers: Mesos, the front of the artifact listeners."""

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
    """A real Mesos in a process of its own, by the command in JOBCLOUD_TEST_MESOS; it crashes and comes back."""

    def __init__(self, folder: Path, agents: int, resources: str) -> None:
        command = os.environ.get("JOBCLOUD_TEST_MESOS")
        if not command:
            raise SystemExit("set JOBCLOUD_TEST_MESOS to a command that starts a Mesos cluster")
        self._argv = [command, "up", "--with-parent", "--work-dir", str(folder)]
        self._first = ["--port", "0", "--agents", str(agents), "--resources", resources]
        self._process = self._start(*self._first)

    def _start(self, *more: str) -> subprocess.Popen[str]:
        # It logs tens of lines a task, which at this load is a good part of its work.
        environ = {"GLOG_minloglevel": "1", **os.environ}
        process = subprocess.Popen([*self._argv, *more], stdout=subprocess.PIPE, text=True, env=environ)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            process.kill()
            raise SystemExit(f"Mesos did not start: {line!r}")
        self.master = line.split()[1].removeprefix("master=")
        return process

    def crash_and_return(self) -> None:
        """Master and agents die; executors live on and find the same cluster again."""
        self._process.kill()
        self._process.wait()
        self._process = self._start("--keep")

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.master}/state", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def running(self) -> int:
        """Cheap for the master, unlike its whole state, whose making holds up the very launches that are waited for."""
        with urllib.request.urlopen(f"http://{self.master}/metrics/snapshot", timeout=30) as answer:
            return int(json.load(answer)["master/tasks_running"])

    def counted(self) -> int:
        """The running tasks in its whole state."""
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
    """One address for the artifact listeners of all schedulers, as a load balancer gives it: the first that answers.

    It listens on another address of loopback than the schedulers, at the same port, so that each may advertise it.
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
                    continue  # it died, or stands still
                self.request.sendall(first)
                while piece := there.recv(65_536):
                    self.request.sendall(piece)
                return
