"""Secrets of tasks: fetched once over TLS, handed over in private, and never in a sandbox, a log or an update.

Jobs report values backwards, so that a search for a value finds only leaks.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.executor_kit import EVERY_SECOND, FakeAgent, PostServer, Start, app_payload, task_payload, wait_until
from tests.http_kit import QuietServer

from jobcloud.executor.outcomes import Cause
from jobcloud.executor.payload import PayloadError, SecretAccess, SecretUse, read_task
from jobcloud.executor.secrets import SecretFiles, SecretsError, fetch
from jobcloud.wire import encode_data

pytest_plugins = ["tests.executor_kit.fixtures"]

CANARY = "c4n4ry-v4lue"
FILE_CANARY = "line one of c4n4ry-f1le\n"
VALUES = {"db-password": f"{CANARY}\n".encode(), "tls-key": FILE_CANARY.encode()}
PASSWORD = {"key": "PASSWORD", "name": "db-password", "file": False}
KEY_FILE = {"key": "tls.key", "name": "tls-key", "file": True}


class Scheduler:
    """Answers requests for secrets. `answers` has (status, body) of the next ones, `tokens` the headers of all."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tokens: list[str] = []
        self.answers: list[tuple[int, bytes]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.tokens.append(self.headers["Authorization"])
                outer.may_answer.wait(60)
                secrets = {name: base64.b64encode(value).decode() for name, value in VALUES.items()}
                status, body = (
                    outer.answers.pop(0) if outer.answers else (200, json.dumps({"secrets": secrets}).encode())
                )
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None: ...

        self._http = QuietServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/secrets"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.may_answer.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler()
    yield made
    made.close()


def payload(task: str, urls: list[str] | None, *secrets: dict[str, Any], **job: Any) -> dict[str, Any]:
    access = {"secretAccess": {"urls": urls, "token": f"token-of-{task}", "seconds": 60}} if urls else {}
    return {**task_payload(task, secrets=list(secrets), **job), "schema": 2, **access}


def leaks(folder: Path, *values: str) -> list[str]:
    """The files below a folder that contain one of the values."""
    contents = ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    return [str(path) for path, content in contents if any(value.strip().encode() in content for value in values)]


def assert_no_leak(agent: FakeAgent, sandbox: Path) -> None:
    assert leaks(sandbox, CANARY, FILE_CANARY) == []
    assert CANARY not in json.dumps(agent.calls)
    assert FILE_CANARY.strip() not in json.dumps(agent.calls)


def test_script_gets_secrets_as_variables_and_private_files_that_end_with_it(
    agent: FakeAgent, start: Start, scheduler: Scheduler, python: str
) -> None:
    executor = start(python=python)
    script = {"jobType": "SCRIPT", "scriptCommandLine": "bin/secrets.py"}
    agent.launch("s1", payload("s1", [scheduler.url], PASSWORD, KEY_FILE, **script))
    assert agent.end("s1").state == "TASK_FINISHED", executor.log()
    seen = json.loads(executor.output("s1"))
    assert seen["password"] == CANARY[::-1], "the line end of the file belongs not to the value"
    assert seen["mode"] == 0o700
    assert seen["files"] == {"tls.key": [FILE_CANARY[::-1], 0o600, os.getuid()]}
    assert not seen["folder"].startswith(str(executor.sandbox)), "the agent serves the sandbox to others"
    assert not Path(seen["folder"]).exists(), "the files must be removed"
    assert scheduler.tokens == ["Bearer token-of-s1"]
    assert_no_leak(agent, executor.sandbox)


@pytest.mark.parametrize("isolation", ["shared", "process"])
def test_job_of_a_worker_gets_secrets_by_its_context_and_not_by_the_environment(
    agent: FakeAgent, start: Start, scheduler: Scheduler, isolation: str
) -> None:
    executor = start()
    job = {"jobClass": "shop.secrets:reads_secrets", "isolation": isolation}
    agent.launch("j1", payload("j1", [scheduler.url], PASSWORD, KEY_FILE, **job))
    result = agent.end("j1").data["result"]
    path, content, mode = result["secrets"].pop("tls.key")
    assert (content.strip(), mode) == (FILE_CANARY.strip(), 0o600)
    assert result["secrets"] == {"PASSWORD": CANARY[::-1]}
    assert result["environment"] == []
    assert CANARY not in result["shown"]
    wait_until(lambda: not Path(path).exists(), "the removal of the file")
    assert leaks(executor.sandbox, CANARY) == []


@pytest.mark.parametrize(
    "job", [{"jobClass": "shop.secrets:reads_secrets"}, {"jobType": "SCRIPT", "scriptCommandLine": "bin/secrets.py"}]
)
def test_largest_secret_reaches_the_job(
    agent: FakeAgent, start: Start, scheduler: Scheduler, job: dict[str, Any]
) -> None:
    executor = start()
    value = b"\x01" * 65_536
    scheduler.answers = [(200, json.dumps({"secrets": {"db-password": base64.b64encode(value).decode()}}).encode())]
    agent.launch("j1", payload("j1", [scheduler.url], PASSWORD, **job))
    end = agent.end("j1")
    assert end.state == "TASK_FINISHED", end
    seen = executor.output("j1") if job.get("jobType") else end.message
    assert json.dumps(value.decode()) in seen or "the result was dropped: more than" in seen


def test_listener_of_a_firing_gets_the_secrets_of_its_job(agent: FakeAgent, start: Start, scheduler: Scheduler) -> None:
    executor = start()
    job = {"jobClass": "shop.jobs:plain", "distributedListener": "shop.secrets:ReadsSecretsBefore"}
    step = {"step": "before", "firing": {}, "timeoutSeconds": 0}
    agent.launch("l1", {**payload("l1", [scheduler.url], PASSWORD, **job), **step})
    assert agent.end("l1").state == "TASK_FINISHED", executor.log()
    assert f"before with {CANARY[::-1]}" in executor.output("l1")


def test_daemon_job_fetches_secrets_once_and_has_them_in_each_execution(
    agent: FakeAgent, start: Start, scheduler: Scheduler
) -> None:
    executor = start()
    job = {
        "jobExecutionType": "DAEMON",
        "timer": EVERY_SECOND,
        "jobType": "SCRIPT",
        "scriptCommandLine": "bin/secrets.py",
    }
    agent.launch("d1", payload("d1", [scheduler.url], PASSWORD, KEY_FILE, **job))
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) > 1, "two executions")
    lines = [json.loads(line) for line in executor.output("d1").splitlines()]
    assert [line["password"] for line in lines[:2]] == [CANARY[::-1]] * 2
    assert len(scheduler.tokens) == 1
    assert Path(lines[0]["folder"]).exists()
    agent.kill("d1", 5)
    assert agent.end("d1").state == "TASK_KILLED"
    assert not Path(lines[0]["folder"]).exists()


def test_http_job_sends_secrets_as_headers(agent: FakeAgent, start: Start, scheduler: Scheduler) -> None:
    executor = start()
    server = PostServer()
    try:
        job = {"jobType": "HTTP", "httpUri": server.url, "httpMethod": "POST"}
        agent.launch("h1", payload("h1", [scheduler.url], {**PASSWORD, "key": "Authorization"}, **job))
        assert agent.end("h1").state == "TASK_FINISHED", executor.log()
        assert server.asked[0][0]["Authorization"] == CANARY
        assert_no_leak(agent, executor.sandbox)
    finally:
        server.close()


def test_second_scheduler_answers_after_the_first_has_gone_or_does_not_lead(scheduler: Scheduler) -> None:
    standby = Scheduler()
    try:
        standby.answers = [(503, b'{"problem": "no leader here"}')] * 3
        scheduler.answers = [(503, b"{}")] * 2
        urls = ("http://127.0.0.1:1/secrets", standby.url, scheduler.url)
        pauses: list[float] = []
        assert fetch(SecretAccess(urls, "t", 60), pause=pauses.append) == VALUES
        assert (len(standby.tokens), len(scheduler.tokens)) == (3, 3)
        assert pauses == [0.1, 0.2]
    finally:
        standby.close()


def test_fetch_ends_when_the_access_has_expired() -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(SecretsError, match=r"no scheduler gave them within 60 s: 127\.0\.0\.1:1 gave no answer"):
        fetch(SecretAccess(("http://127.0.0.1:1/secrets",), "t", 60), clock=lambda: now[0], pause=pause)
    assert 55 < now[0] <= 60


def test_address_without_tls_on_another_machine_is_never_asked() -> None:
    with pytest.raises(SecretsError, match="does not use TLS"):
        fetch(SecretAccess(("http://192.0.2.7:8898/secrets",), "t", 60))


def test_secrets_come_over_tls_only_from_a_scheduler_with_a_trusted_certificate() -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    scheduler = Scheduler(context)
    try:
        ca = authority.cert_pem.bytes().decode()
        assert fetch(SecretAccess((scheduler.url,), "t", 60, ca)) == VALUES
        for other in (stranger.cert_pem.bytes().decode(), ""):
            with pytest.raises(SecretsError, match="CERTIFICATE_VERIFY_FAILED"):
                fetch(SecretAccess((scheduler.url,), "t", 1, other), pause=lambda seconds: None)
        assert len(scheduler.tokens) == 1, "no token may reach a scheduler that is not trusted"
        with pytest.raises(SecretsError, match="authority cannot be read"):
            fetch(SecretAccess((scheduler.url,), "t", 1, "nonsense"))
    finally:
        scheduler.close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            404,
            b'{"problem": "team default has no secret db-password"}',
            "no secrets: team default has no secret db-password",
        ),
        (401, b"<html>", "no secrets: the scheduler answered with status 401"),
        (200, b'{"secrets": {"other": "eA=="}}', "no secrets: the scheduler did not send db-password"),
        (200, b'{"secrets": {"db-password": "c4n4ry"}}', "no secrets: the answer of the scheduler cannot be read"),
        (200, b'{"secrets": {"db-password": "/w=="}}', "use PASSWORD=secret-file:db-password"),
        (200, b'{"secrets": {"db-password": "%s"}}' % base64.b64encode(b"x" * 65_537), "more than 65,536 bytes"),
    ],
)
def test_attempt_without_its_secrets_fails_with_a_cause_and_never_runs(
    agent: FakeAgent, start: Start, scheduler: Scheduler, status: int, body: bytes, message: str
) -> None:
    executor = start()
    scheduler.answers = [(status, body)]
    script = {"jobType": "SCRIPT", "scriptCommandLine": "bin/secrets.py"}
    agent.launch("s1", payload("s1", [scheduler.url], PASSWORD, **script))
    end = agent.end("s1")
    assert (end.state, end.cause) == ("TASK_FAILED", "secrets"), end
    assert message in end.message
    assert "c4n4ry" not in end.message
    assert agent.states("s1") == ["TASK_FAILED"]
    assert executor.output("s1") == ""


def test_task_of_a_scheduler_without_a_source_fails_at_once(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("s1", payload("s1", None, PASSWORD, jobClass="shop.jobs:plain"))
    end = agent.end("s1")
    assert (end.state, end.cause) == ("TASK_FAILED", "secrets")
    assert "had no source of secrets" in end.message


def test_slow_scheduler_delays_no_other_task_and_a_waiting_task_can_be_killed(
    agent: FakeAgent, start: Start, scheduler: Scheduler
) -> None:
    start()
    scheduler.may_answer.clear()
    agent.launch("slow", payload("slow", [scheduler.url], PASSWORD, jobClass="shop.secrets:reads_secrets"))
    wait_until(lambda: scheduler.tokens, "the request")
    agent.launch("other", jobClass="shop.jobs:plain")
    assert agent.end("other").state == "TASK_FINISHED"
    agent.kill("slow")
    assert agent.end("slow").state == "TASK_KILLED"
    scheduler.may_answer.set()


def test_worker_of_an_app_that_does_not_know_secrets_gets_no_order(
    agent: FakeAgent, start: Start, scheduler: Scheduler
) -> None:
    agent.executor_data = app_payload(None, workerCommand=f"python3 {Path(__file__).with_name('old_worker.py')}")
    executor = start(None)
    agent.launch("w1", payload("w1", [scheduler.url], PASSWORD, jobClass="any:Job"))
    end = agent.end("w1")
    assert (end.state, end.cause) == ("TASK_FAILED", "secrets"), end
    assert "does not support them" in end.message
    agent.launch("w2", jobClass="any:Job")
    assert agent.end("w2").state == "TASK_FINISHED", executor.log()


def test_executor_that_ends_in_order_or_is_killed_leaves_no_files_for_long(
    agent: FakeAgent, start: Start, scheduler: Scheduler
) -> None:
    def folders() -> set[Path]:
        return set(Path("/dev/shm").glob(f"jobcloud-secrets.{os.getuid()}.*")) if Path("/dev/shm").is_dir() else set()

    before = folders()
    job = {
        "jobExecutionType": "DAEMON",
        "timer": EVERY_SECOND,
        "jobType": "SCRIPT",
        "scriptCommandLine": "bin/secrets.py",
    }
    executor = start()
    agent.launch("d1", payload("d1", [scheduler.url], KEY_FILE, **job))
    agent.state("d1", "TASK_RUNNING")
    executor.process.send_signal(signal.SIGTERM)
    executor.wait()
    assert folders() <= before
    killed, files = SecretFiles(), SecretFiles()
    left = killed.hand_over("t", (SecretUse("k", "n", True),), {"n": b"left"})["k"]
    os.close(killed._lock)  # the kernel does this when a process is killed
    own = files.hand_over("t", (SecretUse("k", "n", True),), {"n": b"own"})["k"]
    assert not Path(left).exists()
    assert Path(own).read_bytes() == b"own"
    files.close()
    assert not Path(own).exists()


def test_directory_of_a_living_executor_stays(tmp_path: Path) -> None:
    use = (SecretUse("k", "n", True),)
    first, second = SecretFiles(str(tmp_path)), SecretFiles(str(tmp_path))
    one = first.hand_over("t", use, {"n": b"1"})["k"]
    second.hand_over("t", use, {"n": b"2"})
    assert Path(one).read_bytes() == b"1"
    first.remove("t")
    assert not Path(one).parent.exists()
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"secretAccess": {"urls": [], "token": "x", "seconds": 1}},
        {"secretAccess": {"urls": ["http://a"], "token": 7, "seconds": 1}},
        {"secretAccess": {"urls": ["http://a"], "token": "x", "seconds": "1"}},
        {"job": {"secrets": [{"key": "../x", "name": "n", "file": True}]}},
        {"job": {"secrets": [{"key": "x", "name": "n"}]}},
        {"job": {"secrets": ["PASSWORD=secret:n"]}},
        {"schema": 9},
    ],
)
def test_malformed_secrets_of_a_payload_are_refused(change: dict[str, Any]) -> None:
    given = payload("t", ["http://127.0.0.1/"], PASSWORD, jobClass="m:C")
    given = {**given, **change, "job": {**given["job"], **change.get("job", {})}}
    with pytest.raises(PayloadError, match=r"secret|schema"):
        read_task(encode_data(json.dumps(given).encode()))


def test_token_is_not_shown_with_the_payload() -> None:
    given = payload("t", ["http://127.0.0.1/"], PASSWORD, jobClass="m:C")
    assert "token-of-t" not in repr(read_task(encode_data(json.dumps(given).encode())))
    assert Cause.SECRETS.value == "secrets"
