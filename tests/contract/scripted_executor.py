"""A Mesos v1 executor that does what it is told: by the data of its tasks and by messages of its scheduler.

Commands: {"update": TASK, "state": STATE, ...} · {"exit": CODE} · {"signal": NUMBER} · {"environment": true} ·
{"resubscribe": true} (a new stream with everything unacknowledged; "forgetful": as if it had never got its tasks) ·
{"deaf": true} (ignore SHUTDOWN and SIGTERM). It tells its scheduler of every event it gets, heartbeats left out.
Standard library only.
"""

import base64
import http.client
import json
import os
import signal
import sys
import uuid

ENDPOINT = os.environ["MESOS_AGENT_ENDPOINT"]
FRAMEWORK = {"value": os.environ["MESOS_FRAMEWORK_ID"]}
EXECUTOR = {"value": os.environ["MESOS_EXECUTOR_ID"]}
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
if "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" in os.environ:
    HEADERS["Authorization"] = "Bearer " + os.environ["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"]
unacknowledged_tasks = {}
unacknowledged_updates = {}
deaf = False


def connect(call):
    host, port = ENDPOINT.split(":")
    link = http.client.HTTPConnection(host, int(port))
    link.request(
        "POST", "/api/v1/executor", json.dumps(dict(call, framework_id=FRAMEWORK, executor_id=EXECUTOR)), HEADERS
    )
    return link, link.getresponse()


def send(call):
    link, reply = connect(call)
    text = reply.read().decode()
    if reply.status != 202:
        print("refused with", reply.status, text, "was", json.dumps(call), file=sys.stderr, flush=True)
    link.close()


def say(kind, **more):
    data = base64.b64encode(json.dumps(dict(more, type=kind, pid=os.getpid())).encode()).decode()
    send({"type": "MESSAGE", "message": {"data": data}})


def update(task, state, **more):
    status = {"task_id": {"value": task}, "state": state, "source": "SOURCE_EXECUTOR", "executor_id": EXECUTOR, **more}
    status["uuid"] = base64.b64encode(uuid.uuid4().bytes).decode()
    unacknowledged_updates[status["uuid"]] = {"status": status}
    send({"type": "UPDATE", "update": {"status": status}})


def obey(command):
    global deaf
    if "update" in command:
        update(command.pop("update"), command.pop("state"), **command)
    elif "exit" in command:
        sys.stdout.flush()
        os._exit(command["exit"])
    elif "signal" in command:
        os.kill(os.getpid(), command["signal"])
    elif "environment" in command:
        say("environment", variables=dict(os.environ), directory=os.getcwd(), files=sorted(os.listdir()))
    elif "deaf" in command:
        deaf = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("deaf")
    elif "resubscribe" in command:
        if command["resubscribe"] == "forgetful":
            unacknowledged_tasks.clear()
        return True
    return False


def handle(event):
    """Whether a new stream is wanted."""
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
        say(kind, event=event)
    if kind == "SHUTDOWN" and not deaf:
        sys.stdout.flush()
        os._exit(0)
    again = False
    for command in commands:
        again = obey(command) or again
    return again


def records(reply):
    while True:
        line = reply.readline()
        if not line:
            return
        yield json.loads(reply.read(int(line)))


def follow():
    """Subscribe and obey; whether to subscribe again."""
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
