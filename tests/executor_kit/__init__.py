"""A scripted agent, and the executor daemon as a process connected to it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import py_compile
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.http_kit import QuietServer

from jobcloud.cron import Schedule
from jobcloud.executor import bundle
from jobcloud.wire import decode_data, encode_data, frame_json

# Long enough for a machine that is busy with other tests.
DEADLINE_S = 60.0
EVERY_SECOND = Schedule.parse("* * * * * ?", zone="UTC").table()
TERMINAL = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"}


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true answer of `condition`. Fails the test if there is none in time."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s} s: {what}")


def interpreters() -> list[str]:
    """The interpreters to start executors with.

    The first is JOBCLOUD_TEST_PYTHON, or the one that runs the tests. The second is a Python 3.9, if one is installed:
    the oldest version that agents may have.
    """
    found = [shutil.which("python3.9"), *map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python3"))]
    own = os.environ.get("JOBCLOUD_TEST_PYTHON") or sys.executable
    return [own, *[path for path in found if path and _is_python(path)][:1]]


@cache
def _is_python(path: str) -> bool:
    """A pyenv shim may exist without its version."""
    return subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


@cache
def executor_zip() -> bytes:
    """The executor's zip with compiled modules added: an executor of this interpreter starts in less time.

    Other versions of Python ignore the compiled modules.
    """
    out = io.BytesIO(bundle.build())
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "a") as archive:
        for name in archive.namelist():
            source = archive.extract(name, folder)
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            compiled = py_compile.compile(source, source + "c", name, doraise=True, invalidation_mode=mode)
            assert compiled is not None
            archive.write(compiled, name + "c")
    return out.getvalue()


def zip_of(files: Mapping[str, str]) -> bytes:
    """An app package. Files that start with #! are executable."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if content.startswith("#!") else 0o100644) << 16
            archive.writestr(info, content)
    return out.getvalue()


def app_files() -> dict[str, str]:
    """The files of the app that the executor's tests run, by path in the package."""
    root = Path(__file__).parent / "app"
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): path.read_text() for path in files}


PACKAGE = zip_of(app_files())


def json_data(fields: Mapping[str, Any]) -> str:
    return encode_data(json.dumps(fields).encode())


def app_payload(package: bytes | None, **changes: Any) -> dict[str, Any]:
    """ExecutorInfo.data before encoding."""
    reference = {"file": "package.zip", "sha256": hashlib.sha256(package).hexdigest()} if package is not None else None
    payload = {
        "schema": 1,
        "appName": "shop",
        "appVersion": "v1",
        "package": reference,
        "idleTimeoutSeconds": 600,
        "eventTraceSamplingCount": 0,
        "limits": {"files": 1000, "bytes": 50_000_000},
    }
    return {**payload, **changes}


def task_payload(task_id: str, *, item: int = 0, parameter: str = "", **job: Any) -> dict[str, Any]:
    """TaskInfo.data before encoding. `job` overrides fields of the job."""
    defaults = {
        "jobType": "SIMPLE",
        "jobExecutionType": "TRANSIENT",
        "jobClass": "",
        "streamingProcess": False,
        "scriptCommandLine": "",
        "beanName": "",
        "applicationContext": "",
        "misfire": False,
        "timer": None,
    }
    return {
        "schema": 1,
        "runId": "run-" + task_id,
        "attempt": 2,
        "fence": 7,
        "fireTime": 1_700_000_000_000,
        "executionType": "READY",
        "shardingContext": {
            "jobName": "settle",
            "taskId": task_id,
            "shardingTotalCount": 4,
            "jobParameter": "all",
            "shardingItem": item,
            "shardingParameter": parameter,
        },
        "job": {**defaults, **job},
    }


class PostServer:
    """Accepts every POST. `asked` has the headers and bodies, `seen` the results of `look` during the requests."""

    def __init__(self, look: Callable[[], Any] = lambda: None) -> None:
        self.asked: list[tuple[Any, str]] = []
        self.seen: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.seen.append(look())
                outer.asked.append((self.headers, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class FakeAgent:
    """An agent that a test controls: it records all calls, and acknowledges updates if `acknowledge` is set."""

    def __init__(
        self,
        executor_data: Mapping[str, Any] | str | None,
        socket_path: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._socket_path, self._tls = socket_path, tls
        self.executor_data = executor_data
        self.calls: list[dict[str, Any]] = []
        self._statuses: dict[str, dict[str, dict[str, Any]]] = {}
        self.headers: list[Mapping[str, str]] = []
        self.acknowledge = True
        self.answer_subscribe = 200
        self.answer_update = 202
        self.first_word: bytes | None = None
        self.may_answer_subscribe = threading.Event()
        self.may_answer_subscribe.set()
        self._streams: list[Any] = []
        self._condition = threading.Condition()
        self._port = 0
        self._reserved: socket.socket | None = None
        self._server: socketserver.BaseServer | None = None
        self.up()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port or 1}"

    def up(self) -> None:
        """Listen. After down(), on the same port again."""
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/api/v1/executor"
                agent._on_call(self, body)

            def log_message(self, *args: Any) -> None:
                pass

        self._release_port()
        if self._socket_path is None:
            self._server = QuietServer(("127.0.0.1", self._port), Handler)
            self._port = self._server.server_address[1]
            if self._tls is not None:
                self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        else:
            self._server = socketserver.ThreadingUnixStreamServer(str(self._socket_path), Handler)
            self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def down(self) -> None:
        """Behave as a killed agent: nothing answers, the stream breaks."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            if self._port:
                self._reserve_port()
        self.drop_stream()

    def _reserve_port(self) -> None:
        """Keep the port from other tests, without listening."""
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", self._port))

    def _release_port(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def close(self) -> None:
        """End for good."""
        self.down()
        self._release_port()

    def drop_stream(self) -> None:
        """Break the streams. Later streams begin with a valid event."""
        with self._condition:
            streams, self._streams = self._streams, []
            self.first_word = None
        for handler in streams:
            handler.done.set()
            handler.connection.close()

    def _on_call(self, handler: Any, body: dict[str, Any]) -> None:
        subscribes = body["type"] == "SUBSCRIBE"
        status = self.answer_subscribe if subscribes else self.answer_update
        updates = body["subscribe"]["unacknowledged_updates"] if subscribes else [body["update"]]
        with self._condition:
            self.calls.append(body)
            self.headers.append(dict(handler.headers))
            for one in updates:
                of_task = self._statuses.setdefault(one["status"]["task_id"]["value"], {})
                of_task.setdefault(one["status"]["uuid"], one["status"])
        if subscribes and status == 200:
            self._stream(handler, body)
            return
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        if status == 202 and self.acknowledge:
            self.acknowledge_update(body)

    def _stream(self, handler: Any, body: dict[str, Any]) -> None:
        handler.done = threading.Event()
        self.may_answer_subscribe.wait(DEADLINE_S)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        data = self.executor_data
        info = {"executor_id": body["executor_id"]}
        if data is not None:
            info["data"] = data if isinstance(data, str) else json_data(data)
        event = {"type": "SUBSCRIBED", "subscribed": {"executor_info": info, "framework_info": {}, "agent_info": {}}}
        with self._condition:
            self._write(handler, frame_json(event) if self.first_word is None else self.first_word)
            self._streams.append(handler)
        if self.acknowledge:
            for update in body["subscribe"]["unacknowledged_updates"]:
                self.acknowledge_update({"update": update})
        handler.done.wait()
        handler.close_connection = True

    @staticmethod
    def _write(handler: Any, record: bytes) -> None:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(record), record))
        handler.wfile.flush()

    def send(self, event: Mapping[str, Any]) -> None:
        wait_until(lambda: self._streams, "the executor subscribed")
        with self._condition:
            self._write(self._streams[-1], frame_json(event))

    def acknowledge_update(self, call: Mapping[str, Any]) -> None:
        status = call["update"]["status"]
        acknowledged = {"task_id": status["task_id"], "uuid": status["uuid"]}
        self.send({"type": "ACKNOWLEDGED", "acknowledged": acknowledged})

    def launch(
        self,
        task_id: str,
        payload: Mapping[str, Any] | str | None = None,
        info: Mapping[str, Any] | None = None,
        **job: Any,
    ) -> str:
        """Launch a task with `payload`, or with these fields of the job. `info`: further fields of TaskInfo."""
        info = {**(info or {}), "task_id": {"value": task_id}, "name": task_id, "agent_id": {"value": "S0"}}
        if payload is None:
            payload = task_payload(task_id, **job)
        info["data"] = payload if isinstance(payload, str) else json_data(payload)
        self.send({"type": "LAUNCH", "launch": {"task": info}})
        return task_id

    def kill(self, task_id: str, grace_s: float | None = None) -> None:
        kill: dict[str, Any] = {"task_id": {"value": task_id}}
        if grace_s is not None:
            kill["kill_policy"] = {"grace_period": {"nanoseconds": int(grace_s * 1e9)}}
        self.send({"type": "KILL", "kill": kill})

    def subscriptions(self) -> list[dict[str, Any]]:
        return [call["subscribe"] for call in list(self.calls) if call["type"] == "SUBSCRIBE"]

    def statuses(self, task_id: str) -> list[dict[str, Any]]:
        """Every status of the task, each uuid once, in the order received (those of subscriptions included)."""
        with self._condition:
            return list(self._statuses.get(task_id, {}).values())

    def states(self, task_id: str) -> list[str]:
        return [status["state"] for status in self.statuses(task_id)]

    def state(self, task_id: str, state: str) -> dict[str, Any]:
        """Wait for the task's first status of that state."""

        def found() -> dict[str, Any] | None:
            return next((status for status in self.statuses(task_id) if status["state"] == state), None)

        status: dict[str, Any] = wait_until(found, f"{task_id} is {state}")
        return status

    def end(self, task_id: str, deadline_s: float = DEADLINE_S) -> Ended:
        """Wait for the task's terminal status."""
        end = wait_until(
            lambda: next((status for status in self.statuses(task_id) if status["state"] in TERMINAL), None),
            f"{task_id} ends",
            deadline_s,
        )
        return Ended(end)

    def reports(self, task_id: str, message: str) -> list[dict[str, Any]]:
        return [data_of(status) for status in self.statuses(task_id) if status.get("message") == message]


def data_of(status: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(decode_data(status["data"]))
    return data


class Ended:
    """A terminal status, read."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.state: str = status["state"]
        self.message: str = status.get("message", "")
        self.data = data_of(status)

    @property
    def cause(self) -> str | None:
        cause: str | None = self.data["cause"]
        return cause

    def __repr__(self) -> str:
        return f"{self.state} {self.data} {self.message}"


class ExecutorProcess:
    """The daemon, started from the zip as an agent does it."""

    def __init__(self, agent: FakeAgent, sandbox: Path, package: bytes | None, python: str, **environment: Any) -> None:
        group: int = environment.pop("process_group", 0)
        self.sandbox = sandbox
        sandbox.mkdir(exist_ok=True)
        if package is not None:
            (sandbox / "package.zip").write_bytes(package)
        (sandbox / bundle.FILE_NAME).write_bytes(executor_zip())
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(sandbox),
            "MESOS_AGENT_ENDPOINT": agent.endpoint,
            "MESOS_FRAMEWORK_ID": "F1",
            "MESOS_EXECUTOR_ID": "shop@v1",
            "MESOS_SANDBOX": str(sandbox),
            "MESOS_CHECKPOINT": "1",
            "MESOS_RECOVERY_TIMEOUT": "15mins",
            "MESOS_SUBSCRIPTION_BACKOFF_MAX": "50ms",
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "2secs",
            **environment,
        }
        with (sandbox / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [python, "-I", bundle.FILE_NAME],
                cwd=sandbox,
                env={name: value for name, value in self.environment.items() if value},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                process_group=group,
            )

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)

    def log(self) -> str:
        return (self.sandbox / "stderr").read_text()

    def output(self, task_id: str, name: str = "stdout") -> str:
        path = self.sandbox / "tasks" / task_id / name
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        """Kill the daemon, and wait until its warden has killed everything that it started."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not living_in(self.sandbox), f"no process is left in {self.sandbox}")

    def stop(self) -> None:
        """End the daemon in order, as an agent does it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


Start = Callable[..., ExecutorProcess]
needs_jdk = pytest.mark.skipif(shutil.which("javac") is None, reason="there is no JDK (javac)")
_JARS = Path("/usr/share/java")
needs_spring = pytest.mark.skipif(
    not (_JARS / "spring3-context.jar").exists() or not (_JARS / "geronimo-annotation-1.3-spec.jar").exists(),
    reason="there is no Spring (Debian's packages libspring-context-java and libgeronimo-annotation-1.3-spec-java)",
)


def living_in(directory: Path) -> list[int]:
    """The processes that work in the directory or below it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                where = Path(os.readlink(f"/proc/{name}/cwd"))
                if where == directory or directory in where.parents:
                    found.append(int(name))
    return found


@contextlib.contextmanager
def little_memory() -> Iterator[Path]:
    """A control group (version 1 or 2) with 200 MB of memory. Skips the test if it cannot be made.

    No process may be in it at the end.
    """
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"jobcloud-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(200 << 20))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip("no control group for memory can be made here")
    yield group
    group.rmdir()
