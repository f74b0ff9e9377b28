"""Conformance tests of the line protocol, from the daemon's side, for workers in any language."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.executor_kit import app_files, needs_jdk, task_payload, wait_until

from jobcloud.executor import protocol
from jobcloud.executor.worker import Worker
from jobcloud.executor.workers import python_worker

JAVA_WORKER = Path(__file__).parents[2] / "examples" / "java-worker" / "worker"


class WorkerProcess:
    """A worker after `hello`, in its own app directory."""

    def __init__(self, command: list[str], sandbox: Path) -> None:
        self.sandbox = sandbox
        app = sandbox / "app"
        for name, content in app_files().items():
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

    def printed(self, task_id: str) -> str:
        path = self.sandbox / "tasks" / task_id / "stdout"
        return path.read_text() if path.exists() else ""

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


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Java worker and the kit's jobs in Java."""
    out = tmp_path_factory.mktemp("java")
    sources = [*JAVA_WORKER.rglob("*.java"), *(Path(__file__).parents[1] / "executor_kit" / "java").rglob("*.java")]
    subprocess.run(
        ["javac", "--release", "17", "-Xlint:all", "-Werror", "-d", str(out), *map(str, sources)], check=True
    )
    return out


@pytest.fixture(params=["python", pytest.param("java", marks=needs_jdk)])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkerProcess]:
    command = python_worker()
    if request.param == "java":
        classes = request.getfixturevalue("java_classes")
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", str(classes), "jobcloud.worker.Main"]
    worker = WorkerProcess(command, tmp_path)
    yield worker
    worker.close()


def test_worker_answers_ready_and_exits_on_stop(worker: WorkerProcess) -> None:
    assert worker.receive("ready")["protocol"] == protocol.VERSION
    worker.send({"type": "stop"})
    assert worker.process.wait(30) == 0


def test_worker_exits_when_its_daemon_is_gone(worker: WorkerProcess) -> None:
    worker.receive("ready")
    os.close(worker.orders)
    assert worker.process.wait(30) != 0
    worker.orders = os.open(os.devnull, os.O_WRONLY)


def test_run_is_started_and_ended_once_with_its_result(worker: WorkerProcess) -> None:
    worker.run("t1", jobClass="shop.jobs:works_on")
    assert worker.receive("started")["task"] == "t1"
    end = worker.receive("ended")
    assert (end["task"], end["run"], end["state"], end["result"]) == ("t1", 1, "finished", "done")


def test_runs_are_concurrent_and_a_cancel_is_for_one(worker: WorkerProcess) -> None:
    for task in ("a", "b"):
        worker.run(task, jobClass="shop.jobs:wait_for_kill")
    for task in ("a", "b"):
        worker.receive("started", task)
    worker.send({"type": "cancel", "task": "b"})
    assert worker.receive("ended")["task"] == "b"
    worker.run("c", jobClass="shop.jobs:works_on")
    assert worker.receive("ended")["task"] == "c"
    worker.send({"type": "cancel", "task": "a"})
    end = worker.receive("ended")
    assert (end["task"], end["state"], end["cause"]) == ("a", "killed", "killed")


def test_cancel_or_forget_of_an_unknown_task_is_ignored(worker: WorkerProcess) -> None:
    worker.send({"type": "cancel", "task": "nobody"})
    worker.send({"type": "forget", "task": "nobody"})
    worker.run("t1", jobClass="shop.jobs:works_on")
    assert worker.receive("ended")["state"] == "finished"


def test_job_that_returns_without_noticing_the_cancel_has_finished(worker: WorkerProcess) -> None:
    worker.run("t1", jobClass="shop.jobs:until_file", parameter="go")
    worker.receive("started")
    worker.send({"type": "cancel", "task": "t1"})
    (worker.sandbox / "app" / "go").touch()
    assert worker.receive("ended")["state"] == "finished"


def test_kept_job_is_loaded_once_until_it_is_forgotten(worker: WorkerProcess) -> None:
    job: dict[str, Any] = {"jobClass": "shop.jobs:Counts", "keep": True}
    worker.run("d", "load", 0, **job)
    assert worker.receive("ended")["run"] == 0
    for number in (1, 2):
        worker.run("d", number=number, **job)
        assert worker.receive("ended")["state"] == ("finished", "failed")[number - 1]
    worker.send({"type": "forget", "task": "d"})
    worker.run("d", number=3, **job)
    assert worker.receive("ended")["state"] == "finished"
    lines = (worker.sandbox / "tasks" / "d" / "stdout").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("job", "cause"),
    [
        ({"jobClass": "shop.jobs:Raises"}, "exception"),
        ({"jobClass": "shop.jobs:Missing"}, "import"),
        ({"jobClass": "shop.jobs:exits", "item": 3}, "exit_code"),
        ({"jobType": "DATAFLOW", "jobClass": "shop.jobs:Settle"}, "import"),
        ({"applicationContext": "shop.jobs:broken_context", "beanName": "settle"}, "context"),
    ],
)
def test_failed_run_has_its_cause_and_leaves_the_worker_usable(
    request: pytest.FixtureRequest, worker: WorkerProcess, job: dict[str, Any], cause: str
) -> None:
    if cause == "exit_code" and "java" in request.node.name:
        return  # System.exit() ends the whole JVM, and the daemon reports its shards
    worker.run("t1", **job)
    end = worker.receive("ended")
    assert (end["state"], end["cause"]) == ("failed", cause)
    assert end["message"]
    worker.run("t2", jobClass="shop.jobs:works_on")
    assert worker.receive("ended")["state"] == "finished"


def test_contexts_are_built_in_advance_and_a_failing_one_is_harmless(worker: WorkerProcess) -> None:
    worker.send({"type": "warm", "contexts": ["shop.jobs:broken_context", "shop.jobs:Warmed", "shop.jobs:Missing"]})
    built = worker.sandbox / "app" / "built"
    wait_until(built.exists, "the context is built")
    worker.run("t1", applicationContext="shop.jobs:Warmed", beanName="works_on")
    end = worker.receive("ended")
    assert end["state"] == "finished", end
    assert built.read_text() == "x", "once"


# A worker either calls listeners and error handlers, or refuses every job that names one.


@pytest.fixture
def refuses(request: pytest.FixtureRequest) -> bool:
    return "java" in request.node.name


def test_listeners_are_called_around_each_run_and_created_once(worker: WorkerProcess, refuses: bool) -> None:
    job: dict[str, Any] = {"listener": ["shop.jobs:Audits"]}
    for number, name in enumerate(("works_on", "Raises"), 1):
        worker.run(f"t{number}", jobClass=f"shop.jobs:{name}", **job)
        end = worker.receive("ended")
        if refuses:
            assert (end["state"], end["cause"]) == ("failed", "import")
        else:
            assert end["state"] == ("finished" if number == 1 else "failed")
    if not refuses:
        assert worker.printed("t1") == "before 0 0\nafter NoneType 1\n"
        assert worker.printed("t2") == "before 0 1\nafter ValueError 2\n"


@pytest.mark.parametrize(
    ("names", "printed"),
    [
        (["shop.jobs:Audits", "shop.jobs:Refuses"], "before 0 0\nafter ListenerError 1\n"),
        (["shop.jobs:Audits", "shop.jobs:Spoils"], "before 0 0\nsettling 0 \nafter ListenerError 1\n"),
        (["shop.jobs:NotAJob"], ""),
        (["shop.jobs:Missing"], ""),
        (["no-such-entry-point"], ""),
    ],
)
def test_failing_listener_fails_the_shard(worker: WorkerProcess, refuses: bool, names: list[str], printed: str) -> None:
    worker.run("t1", jobClass="shop.jobs:Settle", listener=names)
    end = worker.receive("ended")
    assert (end["state"], end["cause"]) == ("failed", "listener" if printed and not refuses else "import")
    assert end["message"]
    if not refuses:
        assert worker.printed("t1") == printed
    worker.run("t2", jobClass="shop.jobs:works_on")
    assert worker.receive("ended")["state"] == "finished"


def test_firing_listener_is_called_before_and_after(worker: WorkerProcess, refuses: bool) -> None:
    job = {"jobClass": "shop.jobs:works_on", "distributedListener": "shop.jobs:Stage"}
    before = worker.listen("b", "before", {"parameters": {"1": "Paris"}}, **job)
    after = worker.listen("a", "after", {"outcomes": {"FINISHED": 3, "FAILED": 1}}, **job)
    if refuses:
        assert (before["state"], after["cause"]) == ("failed", "import")
    else:
        assert (before["state"], after["state"]) == ("finished", "finished"), (before, after)
        assert worker.printed("b") == "opening 4 {1: 'Paris'} run-b 7\n"
        assert worker.printed("a") == "closing {'FINISHED': 3, 'FAILED': 1} False\n"


def test_error_handler_decides_whether_an_exception_is_a_failure(worker: WorkerProcess, refuses: bool) -> None:
    job: dict[str, Any] = {"jobClass": "shop.jobs:Raises", "errorHandler": "shop.jobs:Deals"}
    ends = {}
    for parameter in ("deal", "leave", "raise"):
        worker.run(parameter, parameter=parameter, **job)
        ends[parameter] = worker.receive("ended")
    if refuses:
        assert {end["cause"] for end in ends.values()} == {"import"}
        return
    assert [end["state"] for end in ends.values()] == ["finished", "failed", "failed"]
    assert {ends["leave"]["cause"], ends["raise"]["cause"]} == {"exception"}
    assert ends["raise"]["message"].startswith("ValueError: no stock")
    assert worker.printed("deal") == "handling ValueError\n"


def test_output_goes_to_the_shard_that_printed_it(worker: WorkerProcess) -> None:
    tasks = [f"t{number}" for number in range(8)]
    for number, task in enumerate(tasks):
        worker.run(task, jobClass="shop.jobs:Settle", item=number, parameter="p" * number)
    for task in tasks:
        worker.receive("ended", task)
    for number, task in enumerate(tasks):
        printed = (worker.sandbox / "tasks" / task / "stdout").read_text()
        assert printed == f"settling {number} {'p' * number}\n"


def test_app_file_named_like_a_standard_module_is_harmless(worker: WorkerProcess) -> None:
    # The worker has loaded its own modules. Only imports of the app find the app's files.
    worker.receive("ready")
    (worker.sandbox / "app" / "json.py").write_text("raise RuntimeError('not yours')\n")
    worker.run("t1", jobClass="shop.jobs:works_on")
    assert worker.receive("ended")["state"] == "finished"


def test_invalid_orders_end_the_worker(worker: WorkerProcess) -> None:
    worker.receive("ready")
    os.write(worker.orders, b"nonsense\n")
    assert worker.process.wait(30) != 0


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(1, 7))
def test_messages_are_read_back_from_pieces_of_any_size(tasks: list[str], size: int) -> None:
    messages = [{"type": "cancel", "task": task} for task in tasks]
    stream = b"".join(map(protocol.encode, messages))
    reader = protocol.LineReader(protocol.TO_WORKER)
    heard = [message for at in range(0, len(stream), size) for message in reader.feed(stream[at : at + size])]
    assert heard == messages


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_a_protocol_error(line: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        list(protocol.LineReader(protocol.FROM_WORKER).feed(line + b"\n"))


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ready"}',
        b'{"type":"ready","protocol":true}',
        b'{"type":"started","task":1,"run":1}',
        b'{"type":["started"]}',
        b'{"type":"cancel","task":"x"}',
        b"[" * 100_000,
        b'{"type":"progress","task":"t","run":1,"done":NaN,"total":null}',
        b'{"type":"progress","task":"t","run":1,"done":1,"total":1e999}',
        b'{"type":"progress","task":"t","run":1,"done":1' + b"0" * 400 + b',"total":null}',
        b'{"type":"progress","task":"t","run":1,"done":true,"total":null}',
        b'{"type":"ended","task":"t","run":1,"state":"failed","cause":null,"message":"","exitCode":true,"result":1}',
    ],
)
def test_messages_of_the_wrong_shape_are_a_protocol_error(line: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(line, protocol.FROM_WORKER)


def test_line_without_end_is_a_protocol_error() -> None:
    reader = protocol.LineReader(protocol.FROM_WORKER)
    for _ in range(10):
        assert not list(reader.feed(b"x" * 100_000))
    with pytest.raises(protocol.ProtocolError, match="over the limit"):
        list(reader.feed(b"x" * 100_000))


def test_messages_before_an_invalid_line_still_count() -> None:
    heard: list[dict[str, Any]] = []
    with pytest.raises(protocol.ProtocolError):
        heard.extend(protocol.LineReader(protocol.FROM_WORKER).feed(b'{"type":"ready","protocol":2}\nnonsense\n'))
    assert heard == [{"type": "ready", "protocol": 2}]


def test_shard_without_a_thread_fails_as_worker_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    orders, to_worker = os.pipe()
    answers, from_worker = os.pipe()
    facts = {"runId": "r", "attempt": 1, "fence": 1, "fireTime": None}
    run = {"type": "run", "task": "t1", "run": 1, "job": {}, "context": {}, "facts": facts}
    os.write(to_worker, protocol.encode(run) + protocol.encode({"type": "stop"}))
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert Worker(orders, from_worker).run() == 0
    (end,) = protocol.LineReader(protocol.FROM_WORKER).feed(os.read(answers, 1 << 16))
    assert (end["state"], end["cause"]) == ("failed", "worker_lost")
    assert "can't start new thread" in end["message"]
    for descriptor in (orders, to_worker, answers, from_worker):
        os.close(descriptor)
    with pytest.raises(protocol.ProtocolError, match="over the limit"):
        protocol.encode({"type": "cancel", "task": "x" * protocol.MAX_LINE_BYTES})
