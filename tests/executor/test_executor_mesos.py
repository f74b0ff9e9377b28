"""The executor on real Mesos: fetched and started by the agent, with its updates received by a scheduler."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_kit import (
    EVERY_SECOND,
    TERMINAL,
    Ended,
    app_payload,
    data_of,
    json_data,
    living_in,
    task_payload,
    wait_until,
    zip_of,
)

from jobcloud.executor import bundle
from jobcloud.wire import RecordReader

pytestmark = [
    pytest.mark.mesos,
    pytest.mark.skipif("JOBCLOUD_TEST_MESOS" not in os.environ, reason="JOBCLOUD_TEST_MESOS names no Mesos"),
]

PACKAGE = zip_of(
    {
        "jobs.py": """\
import os, time
def where(ctx):
    return {"pid": os.getpid(), "item": ctx.sharding_item}
def raises(ctx):
    raise ValueError("no stock")
def waits(ctx):
    while not ctx.cancelled:
        time.sleep(0.01)
""",
        "run.sh": '#!/bin/sh\necho "$JOBCLOUD_SHARDING_ITEM"\n',
    }
)


class Framework:
    """A minimal scheduler: it subscribes, keeps offers and updates, and acknowledges."""

    def __init__(self, master: str, directory: Path) -> None:
        self._master = master
        self._directory = directory
        self.updates: list[dict[str, Any]] = []
        self.offers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._server = http.client.HTTPConnection(master, timeout=30)
        framework = {"user": os.environ.get("USER", "root"), "name": "executor test", "checkpoint": True}
        body = json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}})
        self._server.request("POST", "/api/v1/scheduler", body, {"Content-Type": "application/json"})
        self._answer = self._server.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._stream = self._answer.headers["Mesos-Stream-Id"]
        self._subscribed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._subscribed.wait(30)

    def _read(self) -> None:
        reader = RecordReader()
        while data := self._answer.read1(65536):
            for record in reader.feed(data):
                self._on_event(json.loads(record))
        self._answer.close()
        self._server.close()

    def close(self) -> None:
        """Tear the framework down. The master ends the stream."""
        self.call("TEARDOWN")
        self._reader.join(30)

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["type"] == "SUBSCRIBED":
            self.framework_id = event["subscribed"]["framework_id"]
            self._subscribed.set()
        elif event["type"] == "OFFERS":
            for offer in event["offers"]["offers"]:
                self.offers.put(offer)
        elif event["type"] == "UPDATE":
            status = event["update"]["status"]
            self.updates.append(status)
            if "uuid" in status:
                ids = {name: status[name] for name in ("agent_id", "task_id", "uuid")}
                self.call("ACKNOWLEDGE", acknowledge=ids)

    def call(self, kind: str, **fields: Any) -> None:
        server = http.client.HTTPConnection(self._master, timeout=30)
        body = json.dumps({"type": kind, "framework_id": self.framework_id, **fields})
        headers = {"Content-Type": "application/json", "Mesos-Stream-Id": self._stream}
        server.request("POST", "/api/v1/scheduler", body, headers)
        answer = server.getresponse()
        assert answer.status == 202, answer.read()
        server.close()

    def launch(self, tasks: dict[str, dict[str, Any]], idle_s: float = 600) -> dict[str, Any]:
        """Launch every task on one executor of the next offer. Returns the offer."""
        offer = self.offers.get(timeout=60)
        infos = [self._info(task_id, job, offer, idle_s) for task_id, job in tasks.items()]
        operation = {"type": "LAUNCH", "launch": {"task_infos": infos}}
        filters = {"refuse_seconds": 0.1}
        self.call("ACCEPT", accept={"offer_ids": [offer["id"]], "operations": [operation], "filters": filters})
        return offer

    def _info(self, task_id: str, job: dict[str, Any], offer: dict[str, Any], idle_s: float) -> dict[str, Any]:
        executor_zip, package = self._directory / bundle.FILE_NAME, self._directory / "package.zip"
        executor_zip.write_bytes(bundle.build())
        package.write_bytes(PACKAGE)
        uris = [{"value": f"file://{path}", "extract": False} for path in (executor_zip, package)]
        line = bundle.command(hashlib.sha256(executor_zip.read_bytes()).hexdigest())
        executor = {
            "type": "CUSTOM",
            "executor_id": {"value": "shop@v1"},
            "framework_id": self.framework_id,
            "command": {"shell": True, "value": line, "uris": uris},
            "resources": _resources(0.1, 32),
            "data": json_data(app_payload(PACKAGE, idleTimeoutSeconds=idle_s)),
        }
        return {
            "name": task_id,
            "task_id": {"value": task_id},
            "agent_id": offer["agent_id"],
            "resources": _resources(0.1, 32),
            "executor": executor,
            "data": json_data(task_payload(task_id, **job)),
        }

    def end(self, task_id: str) -> Ended:
        def found() -> dict[str, Any] | None:
            mine = (status for status in list(self.updates) if status["task_id"]["value"] == task_id)
            return next((status for status in mine if status["state"] in {*TERMINAL, "TASK_LOST"}), None)

        return Ended(wait_until(found, f"{task_id} ends", 60))

    def states(self, task_id: str) -> list[str]:
        return [status["state"] for status in list(self.updates) if status["task_id"]["value"] == task_id]


def _resources(cpus: float, mem: float) -> list[dict[str, Any]]:
    values = {"cpus": cpus, "mem": mem}
    return [{"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in values.items()]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mesos")


@pytest.fixture(scope="module")
def master(work: Path) -> Iterator[str]:
    command = [*shlex.split(os.environ["JOBCLOUD_TEST_MESOS"]), "up", "--port", "0", "--work-dir", str(work)]
    cluster = subprocess.Popen([*command, "--agents", "1"], stdout=subprocess.PIPE, text=True)
    assert cluster.stdout is not None
    line = cluster.stdout.readline()
    assert line.startswith("ready "), line
    yield line.split("master=")[1].split()[0]
    cluster.terminate()
    cluster.wait(60)
    cluster.stdout.close()


@pytest.fixture
def framework(master: str, tmp_path: Path) -> Iterator[Framework]:
    framework = Framework(master, tmp_path)
    yield framework
    framework.close()


def test_two_tasks_share_one_executor_and_finish(framework: Framework) -> None:
    framework.launch({"a": {"item": 0, "jobClass": "jobs:where"}, "b": {"item": 1, "jobClass": "jobs:where"}})
    a, b = framework.end("a"), framework.end("b")
    assert (a.state, b.state) == ("TASK_FINISHED", "TASK_FINISHED"), (a, b)
    assert (a.data["result"]["item"], b.data["result"]["item"]) == (0, 1)
    assert a.data["result"]["pid"] == b.data["result"]["pid"]
    assert framework.states("a") == ["TASK_RUNNING", "TASK_FINISHED"]


def test_failures_scripts_and_kills_are_reported_with_their_states(framework: Framework) -> None:
    offer = framework.launch(
        {
            "raises": {"jobClass": "jobs:raises"},
            "script": {"jobType": "SCRIPT", "scriptCommandLine": "./run.sh"},
            "waits": {"jobClass": "jobs:waits"},
        }
    )
    raises = framework.end("raises")
    assert (raises.state, raises.cause) == ("TASK_FAILED", "exception")
    assert raises.message.startswith("ValueError: no stock")
    assert framework.end("script").state == "TASK_FINISHED"
    wait_until(lambda: "TASK_RUNNING" in framework.states("waits"), "it runs")
    framework.call("KILL", kill={"task_id": {"value": "waits"}, "agent_id": offer["agent_id"]})
    assert framework.end("waits").state == "TASK_KILLED"


def test_resident_task_reports_its_executions(framework: Framework) -> None:
    offer = framework.launch({"d": {"jobExecutionType": "DAEMON", "jobClass": "jobs:where", "timer": EVERY_SECOND}})

    def completed() -> list[dict[str, Any]]:
        return [data_of(status) for status in list(framework.updates) if status.get("message") == "COMPLETE"]

    wait_until(lambda: len(completed()) >= 2, "two executions are reported", 60)
    assert [report["run"] for report in completed()][:2] == [1, 2]
    assert all(report["success"] for report in completed())
    framework.call("KILL", kill={"task_id": {"value": "d"}, "agent_id": offer["agent_id"]})
    assert framework.end("d").state == "TASK_KILLED"


def test_idle_executor_exits_and_leaves_no_process(framework: Framework, work: Path) -> None:
    framework.launch({"a": {"jobClass": "jobs:where"}}, idle_s=0.5)
    sandboxes = [path.parent for path in work.rglob(bundle.FILE_NAME)]
    assert sandboxes
    assert framework.end("a").state == "TASK_FINISHED"
    wait_until(lambda: not any(living_in(sandbox.resolve()) for sandbox in sandboxes), "the executor left", 60)
