"""Listeners and error handlers through the daemon: plug-ins of the app, and the daemon's own handlers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from tests.executor_kit import (
    EVERY_SECOND,
    PACKAGE,
    FakeAgent,
    Start,
    app_files,
    app_payload,
    task_payload,
    wait_until,
    zip_of,
)

pytest_plugins = ["tests.executor_kit.fixtures"]

ENTRY_POINTS = """\
[jobcloud.listeners]
audit = shop.jobs:Audits
stage = shop.jobs:Stage
broken = shop.jobs:NoSuch

[jobcloud.error_handlers]
deals = shop.jobs:Deals
"""
METADATA = "Metadata-Version: 2.1\nName: shop-plugins\nVersion: 1.0\n"


class Hook:
    """A webhook that records its reports and answers `status`."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.status = 204
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/alarm"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def test_plugins_are_found_by_entry_points_of_a_package_in_the_app(agent: FakeAgent, start: Start, python: str) -> None:
    info = {
        "shop_plugins-1.0.dist-info/METADATA": METADATA,
        "shop_plugins-1.0.dist-info/entry_points.txt": ENTRY_POINTS,
    }
    package = zip_of({**app_files(), **info})
    agent.executor_data = app_payload(package)
    executor = start(package, python=python)
    agent.launch("t1", jobClass="shop.jobs:Raises", listener=["audit"], errorHandler="deals", parameter="deal")
    end = agent.end("t1")
    assert end.state == "TASK_FINISHED", end
    assert end.message.startswith("the error handler handled ValueError: no stock")
    assert executor.output("t1") == "before 0 0\nafter ValueError 1\nhandling ValueError\n"
    for task, job in (
        ("t2", {"listener": ["audits"]}),
        ("t3", {"listener": ["broken"]}),
        ("t4", {"errorHandler": "x"}),
    ):
        agent.launch(task, jobClass="shop.jobs:works_on", **job)
        end = agent.end(task)
        assert (end.state, end.cause) == ("TASK_FAILED", "import"), end
    assert "known: audit, broken, stage" in agent.end("t2").message


@pytest.mark.parametrize("job_type", ["SIMPLE", "SCRIPT"])
def test_firing_listener_runs_as_a_separate_task_for_every_job_type(
    agent: FakeAgent, start: Start, job_type: str
) -> None:
    executor = start()
    job: dict[str, Any] = {"jobType": job_type, "jobClass": "shop.jobs:works_on", "scriptCommandLine": "bin/run.py"}
    payload = task_payload("b", **job, distributedListener="shop.jobs:Stage")
    agent.launch("b", {**payload, "step": "before", "firing": {"parameters": {"0": "Rome"}}})
    assert agent.end("b").state == "TASK_FINISHED", agent.end("b")
    assert agent.states("b") == ["TASK_RUNNING", "TASK_FINISHED"]
    assert executor.output("b") == "opening 4 {0: 'Rome'} run-b 7\n"
    payload["shardingContext"].update(taskId="r", jobParameter="refuse")
    agent.launch("r", {**payload, "step": "before", "firing": {}})
    assert agent.end("r").cause == "listener"
    assert agent.end("r").message.startswith("the listener Stage raised PermissionError: not today")
    agent.launch("x", {**payload, "step": "sideways", "firing": {}})
    assert agent.end("x").cause == "payload"


def test_listener_call_over_its_time_limit_is_a_timeout(agent: FakeAgent, start: Start) -> None:
    start()
    payload = task_payload("b", jobClass="shop.jobs:works_on", distributedListener="shop.jobs:Slow", timeoutSeconds=600)
    agent.launch("b", {**payload, "step": "after", "firing": {}, "timeoutSeconds": 0.2})
    end = agent.end("b")
    assert (end.state, end.cause) == ("TASK_FAILED", "timeout"), end


@pytest.mark.parametrize(
    ("handler", "state", "logged"), [("log", "FAILED", True), ("fail", "FAILED", False), ("ignore", "FINISHED", False)]
)
def test_executors_error_handlers_decide_the_outcome_and_the_log(
    agent: FakeAgent, start: Start, handler: str, state: str, logged: bool
) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:Raises", errorHandler=handler)
    end = agent.end("t1")
    assert end.state == f"TASK_{state}"
    assert "ValueError: no stock" in end.message
    assert ("ValueError" in executor.output("t1", "stderr")) is logged
    agent.launch("s1", item=3, jobType="SCRIPT", scriptCommandLine="bin/run.py", errorHandler=handler)
    assert agent.end("s1").state == f"TASK_{state}"


def test_failure_outside_the_job_is_never_ignored(agent: FakeAgent, start: Start) -> None:
    start()
    failures: list[tuple[str, dict[str, Any], str]] = [
        ("t1", {"jobClass": "shop.jobs:Missing"}, "import"),
        ("t2", {"jobClass": "shop.jobs:dies"}, "worker_lost"),
        ("t3", {"jobClass": "shop.jobs:works_on", "listener": ["shop.jobs:Refuses"]}, "listener"),
        ("t4", {"jobClass": "shop.jobs:wait_for_kill", "timeoutSeconds": 0.2}, "timeout"),
    ]
    for task, job, cause in failures:
        agent.launch(task, errorHandler="ignore", **job)
        assert agent.end(task).cause == cause, agent.end(task)


def test_webhook_gets_every_failure_of_every_job_type(agent: FakeAgent, start: Start, hook: Hook) -> None:
    executor = start()
    handler: dict[str, Any] = {"errorHandler": "webhook", "errorWebhook": hook.url}
    jobs: dict[str | None, dict[str, Any]] = {
        "exception": {"jobClass": "shop.jobs:Raises"},
        "worker_lost": {"jobClass": "shop.jobs:dies"},
        "exit_code": {"jobType": "SCRIPT", "scriptCommandLine": "bin/run.py", "item": 3},
        None: {"jobClass": "shop.jobs:works_on"},
    }
    for cause, job in jobs.items():
        agent.launch(f"t-{cause}", **job, **handler)
        assert agent.end(f"t-{cause}").cause == cause
    reports = wait_until(lambda: len(hook.reports) == 3 and hook.reports, "three reports")
    assert [report["cause"] for report in reports] == list(jobs)[:3]
    assert reports[0] == {
        "jobName": "settle", "taskId": "t-exception", "shardingTotalCount": 4, "shardingItem": 0,
        "runId": "run-t-exception", "attempt": 2, "fence": 7, "fireTime": 1_700_000_000_000, "step": None,
        "team": "default", "cause": "exception", "exitCode": None, "message": reports[0]["message"],
    }  # fmt: skip
    assert reports[2]["exitCode"] == 3
    hook.status = 500
    agent.launch("again", jobClass="shop.jobs:Raises", **handler)
    assert agent.end("again").state == "TASK_FAILED"
    wait_until(lambda: "it answered 500" in executor.log(), "the daemon says that the webhook did not take it")


def test_last_failure_is_sent_to_the_webhook_before_the_executor_exits(
    agent: FakeAgent, start: Start, hook: Hook
) -> None:
    agent.executor_data = app_payload(PACKAGE, idleTimeoutSeconds=0)
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:Raises", errorHandler="webhook", errorWebhook=hook.url)
    assert executor.wait() == 0
    assert [report["taskId"] for report in hook.reports] == ["t1"]


def test_executions_of_a_resident_job_have_listeners_and_handlers(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch(
        "d1", jobClass="shop.jobs:Raises", jobExecutionType="DAEMON", timer=EVERY_SECOND, errorHandler="ignore",
        listener=["shop.jobs:Audits"],
    )  # fmt: skip
    wait_until(lambda: len(agent.reports("d1", "COMPLETE")) >= 2, "two executions")
    assert {report["success"] for report in agent.reports("d1", "COMPLETE")} == {True}
    assert executor.output("d1").startswith("before 0 0\nafter ValueError 1\nbefore 0 1\n")
    agent.kill("d1")
    assert agent.end("d1").state == "TASK_KILLED"
