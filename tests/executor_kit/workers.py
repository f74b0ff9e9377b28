"""Workers without a daemon: a test speaks the line protocol with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.executor_kit import app_files, task_payload

from jobcloud.executor import protocol

WORKER_SOURCES = Path(__file__).parents[2] / "examples" / "java-worker" / "worker"


class WorkerProcess:
    """A worker after `hello`, in the directory `app` of its sandbox. If there is none, it gets the kit's app."""

    def __init__(self, command: list[str], sandbox: Path) -> None:
        self.sandbox = sandbox
        app = sandbox / "app"
        for name, content in () if app.exists() else app_files().items():
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_text(content)
        orders_read, self.orders = os.pipe()
        self.answers, answers_write = os.pipe()
        with (sandbox / "worker.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, str(orders_read), str(answers_write)],
                cwd=app,
                pass_fds=(orders_read, answers_write),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(orders_read)
        os.close(answers_write)
        self._reader = protocol.LineReader(protocol.FROM_WORKER)
        self._received: list[dict[str, Any]] = []
        hello = {"type": "hello", "protocol": protocol.VERSION, "appName": "shop", "appVersion": "v1"}
        self.send({**hello, "directory": str(app), "tasks": str(sandbox / "tasks"), "unknownField": [1]})

    def send(self, message: dict[str, Any]) -> None:
        os.write(self.orders, protocol.encode(message))

    def run(self, task_id: str, kind: str = "run", number: int = 1, keep: bool = False, **job: Any) -> None:
        payload = task_payload(task_id, **job)
        facts = {name: payload[name] for name in ("runId", "attempt", "fence", "fireTime")}
        message = {"type": kind, "task": task_id, "run": number, "keep": keep, "facts": facts}
        self.send({**message, "job": payload["job"], "context": payload["shardingContext"]})

    def listen(self, task_id: str, step: str, firing: dict[str, Any], **job: Any) -> dict[str, Any]:
        """Call the firing's listener. Returns the `ended` message."""
        payload = task_payload(task_id, **job)
        facts = {name: payload[name] for name in ("runId", "attempt", "fence", "fireTime")}
        message = {"type": "listen", "task": task_id, "run": 1, "step": step, "facts": facts, "firing": firing}
        self.send({**message, "job": payload["job"], "context": payload["shardingContext"]})
        self.receive("started", task_id)
        return self.receive("ended", task_id)

    def end_of(self, task_id: str, **job: Any) -> dict[str, Any]:
        """Run a shard. Returns the `ended` message."""
        self.run(task_id, **job)
        return self.receive("ended", task_id)

    def printed(self, task_id: str, stream: str = "stdout") -> str:
        path = self.sandbox / "tasks" / task_id / stream
        return path.read_text() if path.exists() else ""

    def log(self) -> str:
        """The output that belongs to no shard."""
        return (self.sandbox / "worker.log").read_text()

    def receive(self, kind: str, task: str | None = None) -> dict[str, Any]:
        """The next message of that kind (and task). Other messages are kept."""
        while True:
            for message in self._received:
                if message["type"] == kind and task in (None, message.get("task")):
                    self._received.remove(message)
                    return message
            data = os.read(self.answers, 65536)
            assert data, (self.sandbox / "worker.log").read_text()
            self._received.extend(self._reader.feed(data))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.orders)
        os.close(self.answers)


def compile_java(out: Path, sources: list[Path], *class_path: Path) -> Path:
    """Compile Java sources into the directory `out`, as for an agent with Java 8. Warnings are errors."""
    # A newer compiler warns of the old release itself.
    argv = ["javac", "--release", "8", "-Xlint:all,-options", "-Werror", "-encoding", "UTF-8", "-d", str(out)]
    path = ["-cp", os.pathsep.join(map(str, class_path))] if class_path else []
    subprocess.run([*argv, *path, *map(str, sources)], check=True)
    return out
