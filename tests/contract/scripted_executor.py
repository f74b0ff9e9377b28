"""A Mesos v1 executor that performs commands from the data of its tasks and from messages of its scheduler.

Commands: {"update": TASK, "state": STATE, ...} · {"exit": CODE} · {"signal": NUMBER} · {"environment": true} ·
{"resubscribe": true} (a new stream with all unacknowledged tasks and updates; "forgetful": without the tasks) ·
{"deaf": true} (ignore SHUTDOWN and SIGTERM) · {"on_kill": STATE} (answer KILL with this update). It reports every event
except heartbeats to its scheduler. It uses the standard library only.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from typing import Any

ENDPOINT = os.environ["MESOS_AGENT_ENDPOINT"]
FRAMEWORK = {"value": os.environ["MESOS_FRAMEWORK_ID"]}
EXECUTOR = {"value": os.environ["MESOS_EXECUTOR_ID"]}
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
if "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" in os.environ:
    HEADERS["Authorization"] = "Bearer " + os.environ["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"]
unacknowledged_tasks: dict[str, Any] = {}
unacknowledged_updates: dict[str, Any] = {}
deaf = False
on_kill = ""


def connect(call: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    host, port = ENDPOINT.split(":")
    link = http.client.HTTPConnection(host, int(port))
    link.request(
        "POST", "/api/v1/executor", json.dumps(dict(call, framework_id=FRAMEWORK, executor_id=EXECUTOR)), HEADERS
    )
    return link, link.getresponse()


def send(call: dict[str, Any]) -> None:
    link, reply = connect(call)
    text = reply.read().decode()
    if reply.status != 202:
        print("call", json.dumps(call), "was refused with", reply.status, text, file=sys.stderr, flush=True)
    link.close()


def report(kind: str, **more: Any) -> None:
    data = base64.b64encode(json.dumps(dict(more, type=kind, pid=os.getpid())).encode()).decode()
    send({"type": "MESSAGE", "message": {"data": data}})


def update(task: str, state: str, **more: Any) -> None:
    status: dict[str, Any] = {
        "task_id": {"value": task},
        "state": state,
        "source": "SOURCE_EXECUTOR",
        "executor_id": EXECUTOR,
        **more,
    }
    status["uuid"] = base64.b64encode(uuid.uuid4().bytes).decode()
    unacknowledged_updates[status["uuid"]] = {"status": status}
    send({"type": "UPDATE", "update": {"status": status}})


def perform(command: dict[str, Any]) -> bool:
    """Whether a new stream is requested."""
    global deaf, on_kill
    if "update" in command:
        update(command.pop("update"), command.pop("state"), **command)
    elif "exit" in command:
        sys.stdout.flush()
        os._exit(command["exit"])
    elif "signal" in command:
        os.kill(os.getpid(), command["signal"])
    elif "environment" in command:
        report("environment", variables=dict(os.environ), directory=os.getcwd(), files=sorted(os.listdir()))
    elif "deaf" in command:
        deaf = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        report("deaf")
    elif "on_kill" in command:
        on_kill = command["on_kill"]
    elif "resubscribe" in command:
        if command["resubscribe"] == "forgetful":
            unacknowledged_tasks.clear()
        return True
    return False


def handle(event: dict[str, Any]) -> bool:
    """Whether a new stream is requested."""
    kind = event["type"]
    if kind == "HEARTBEAT":
        return False
    commands = []
    if kind == "LAUNCH":
        task = event["launch"]["task"]
        unacknowledged_tasks[task["task_id"]["value"]] = task
        if "data" in task:
            commands = json.loads(base64.b64decode(task["data"]))
    elif kind == "ACKNOWLEDGED":
        unacknowledged_updates.pop(event["acknowledged"]["uuid"], None)
        unacknowledged_tasks.pop(event["acknowledged"]["task_id"]["value"], None)
    elif kind == "MESSAGE":
        commands = json.loads(base64.b64decode(event["message"]["data"]))
    if kind != "MESSAGE":
        report(kind, event=event)
    if kind == "KILL" and on_kill:
        update(event["kill"]["task_id"]["value"], on_kill)
    if kind == "SHUTDOWN" and not deaf:
        sys.stdout.flush()
        os._exit(0)
    again = False
    for command in commands:
        again = perform(command) or again
    return again


def records(reply: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while True:
        line = reply.readline()
        if not line:
            return
        yield json.loads(reply.read(int(line)))


def follow() -> bool:
    """Subscribe and handle events until the stream ends. Returns whether to subscribe again."""
    link, reply = connect(
        {
            "type": "SUBSCRIBE",
            "subscribe": {
                "unacknowledged_tasks": list(unacknowledged_tasks.values()),
                "unacknowledged_updates": list(unacknowledged_updates.values()),
            },
        }
    )
    if reply.status != 200:
        sys.exit(f"SUBSCRIBE was refused with {reply.status}: {reply.read().decode()}")
    again = any(handle(event) for event in records(reply))
    link.close()
    return again


print("scripted executor", os.getpid(), flush=True)
while follow():
    pass
