"""Conformance tests of the line protocol, from the daemon's side, for workers in any language."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.executor_kit import needs_jdk, wait_until
from tests.executor_kit.workers import WORKER_SOURCES, WorkerProcess, compile_java

from jobcloud.executor import protocol
from jobcloud.executor.worker import Worker
from jobcloud.executor.workers import python_worker


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Java worker and the kit's jobs in Java."""
    kit = Path(__file__).parents[1] / "executor_kit" / "java"
    return compile_java(tmp_path_factory.mktemp("java"), [*WORKER_SOURCES.rglob("*.java"), *kit.rglob("*.java")])


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


@pytest.fixture
def java(request: pytest.FixtureRequest) -> bool:
    return "java" in request.node.name


def of_language(java: bool, printed: str) -> str:
    """The output of listeners in a language. Those of Elastic-Job do not learn of the job's error."""
    return re.sub(r"after \w+ ", "after ", printed) if java else printed


def test_listeners_are_called_around_each_run_and_created_once(worker: WorkerProcess, java: bool) -> None:
    for number, name in enumerate(("works_on", "Raises"), 1):
        worker.run(f"t{number}", jobClass=f"shop.jobs:{name}", listener=["shop.jobs:Audits"])
        assert worker.receive("ended")["state"] == ("finished" if number == 1 else "failed")
    assert worker.printed("t1") == of_language(java, "before 0 0\nafter NoneType 1\n")
    assert worker.printed("t2") == of_language(java, "before 0 1\nafter ValueError 2\n")


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
def test_failing_listener_fails_the_shard(worker: WorkerProcess, java: bool, names: list[str], printed: str) -> None:
    worker.run("t1", jobClass="shop.jobs:Settle", listener=names)
    end = worker.receive("ended")
    assert (end["state"], end["cause"]) == ("failed", "listener" if printed else "import")
    assert names[-1].rpartition(":")[2] in end["message"]
    assert worker.printed("t1") == of_language(java, printed)
    worker.run("t2", jobClass="shop.jobs:works_on")
    assert worker.receive("ended")["state"] == "finished"


def test_firing_listener_is_called_before_and_after(worker: WorkerProcess, java: bool) -> None:
    job = {"jobClass": "shop.jobs:works_on", "distributedListener": "shop.jobs:Stage"}
    before = worker.listen("b", "before", {"parameters": {"1": "Paris"}}, **job)
    after = worker.listen("a", "after", {"outcomes": {"FINISHED": 3, "FAILED": 1}}, **job)
    assert (before["state"], after["state"]) == ("finished", "finished"), (before, after)
    assert worker.printed("b") == ("opening 4 {1=Paris}\n" if java else "opening 4 {1: 'Paris'} run-b 7\n")
    assert worker.printed("a") == ("closing settle\n" if java else "closing {'FINISHED': 3, 'FAILED': 1} False\n")


def test_error_handler_decides_whether_an_exception_is_a_failure(worker: WorkerProcess, java: bool) -> None:
    job: dict[str, Any] = {"jobClass": "shop.jobs:Raises", "errorHandler": "shop.jobs:Deals"}
    ends = {}
    for parameter in ("deal", "leave", "raise"):
        worker.run(parameter, parameter=parameter, **job)
        ends[parameter] = worker.receive("ended")
    assert [end["state"] for end in ends.values()] == ["finished", "failed", "failed"]
    assert {ends["leave"]["cause"], ends["raise"]["cause"]} == {"exception"}
    error = "IllegalStateException" if java else "ValueError"
    assert ends["raise"]["message"].partition("\n")[0].endswith(f"{error}: no stock")
    assert worker.printed("deal") == f"handling {error}\n"


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
