"""Executors as their agents see them: processes that subscribe, run tasks, report, and sometimes misbehave.

They follow the rules of the real daemon: updates are resent after a lost stream until the agent has acknowledged them,
a task ends once, and an idle executor leaves. Only this module knows which tasks really run.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobcloud.dev.protocol import Call, ExecutorEnded, ExecutorStarted, Json, StartExecutor, StreamLost
from jobcloud.dev.schema import uuid_of
from jobcloud.model import TaskName
from jobcloud.wire import encode_data

from . import extremes
from .operators import WIDE

if TYPE_CHECKING:
    from .cluster import Host
    from .world import World

_SALT = 1 << 60


@dataclass(slots=True)
class Run:
    """One task in its executor. `step` names the call of a firing's listener, or is "" for a shard.

    `total`, `parameter` and `package` (a hash) identify the version of the job.
    """

    task_id: str
    job: str
    item: int
    agent_id: str
    framework_id: str
    since: int
    daemon: bool
    firing_id: str
    stepped: bool
    step: str
    total: int
    parameter: str
    package: str


@dataclass(slots=True)
class Executor:
    world: World
    host: Host
    start: StartExecutor
    alive: bool = True
    hung: bool = False
    stream_id: str = ""
    tasks: dict[str, Run] = field(default_factory=dict)
    known: dict[str, Json] = field(default_factory=dict)  # tasks received, until their end is acknowledged
    untaken: dict[str, Json] = field(default_factory=dict)  # uuid → status
    idle_since: int = 0
    idle_ms: int = 5_000

    @property
    def id(self) -> str:
        return str(self.start.executor["executor_id"]["value"])

    def _call(self, kind: str, body: Json) -> None:
        call = {"type": kind, "framework_id": {"value": self.start.framework_id},
                "executor_id": {"value": self.id}, kind.lower(): body}  # fmt: skip
        self.host.post(Call(json.loads(json.dumps(call))), self)

    # ---- life ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if not self.alive:
            return
        if self.world.take("start_fails"):
            self.alive = False
            self.host.executors.pop(self.start.container_id, None)
            self.host.post(ExecutorEnded(self.start.container_id, 9, "the package could not be fetched"))
            return
        data = json.loads(base64.b64decode(self.start.executor["data"]))
        self.idle_ms = int(data["idleTimeoutSeconds"] * 1000)
        self.host.post(ExecutorStarted(self.start.container_id, 1))
        self.subscribe()

    def subscribe(self) -> None:
        if not self.alive or self.hung:
            return
        self._call("SUBSCRIBE", {
            "unacknowledged_tasks": list(self.known.values()),
            "unacknowledged_updates": [{"status": status} for status in self.untaken.values()],
        })  # fmt: skip
        self._rest()

    def cut(self) -> None:
        """Break the stream to the agent. The executor reconnects."""
        if self.stream_id and self.alive:
            stream, self.stream_id = self.stream_id, ""
            self.host.streams.pop(stream, None)
            self.host.post(StreamLost(stream))
            self.world.later(self.world.dice.randint(50, 2_000), self.subscribe)

    def die(self, status: int, report: bool = True) -> None:
        """End all tasks without reporting anything."""
        if not self.alive:
            return
        self.alive = False
        self.host.executors.pop(self.start.container_id, None)
        self.host.streams.pop(self.stream_id, None)
        for task_id in list(self.tasks):
            self._stop(task_id, "died")
        if report:
            self.host.post(ExecutorEnded(self.start.container_id, status))

    def _rest(self) -> None:
        if not self.tasks and not self.untaken:
            self.idle_since = self.world.now
            self.world.later(self.idle_ms, self._leave_if_idle, self.world.now)

    def _leave_if_idle(self, since: int) -> None:
        if self.alive and not self.hung and not self.tasks and not self.untaken and self.idle_since == since:
            self.die(0)

    # ---- messages of the agent ------------------------------------------------------------------------------

    def receive(self, event: Json) -> None:
        if not self.alive or self.hung:
            return
        kind = event["type"]
        body: Any = event.get(kind.lower())
        if kind == "LAUNCH":
            self._launch(body["task"])
        elif kind == "KILL":
            self.world.later(self.world.dice.randint(0, 800), self._killed, body["task_id"]["value"])
        elif kind == "ACKNOWLEDGED":
            self._taken(body["uuid"])
        elif kind == "SHUTDOWN":
            self.world.later(self.world.dice.randint(0, 1_500), self.die, 0)

    def _taken(self, uuid: str) -> None:
        status = self.untaken.pop(uuid, None)
        if status is not None and status["task_id"]["value"] not in self.tasks:
            self.known.pop(status["task_id"]["value"], None)
        self._rest()

    def _launch(self, task: Json) -> None:
        task_id = task["task_id"]["value"]
        name = TaskName.parse(task_id)
        payload = json.loads(base64.b64decode(task["data"]))
        daemon = payload["job"]["jobExecutionType"] == "DAEMON"
        run = Run(
            task_id, name.job, name.item, name.agent_id, self.start.framework_id, self.world.now, daemon,
            payload["runId"], bool(payload["job"].get("distributedListener")), payload.get("step", ""),
            payload["shardingContext"].get("shardingTotalCount", 1),
            payload["shardingContext"].get("jobParameter", ""),
            json.loads(base64.b64decode(self.start.executor["data"]))["package"]["sha256"],
        )  # fmt: skip
        self.known[task_id] = task
        self.tasks[task_id] = run
        self.world.truth.started(run)
        self._update(task_id, "TASK_RUNNING")
        dice = self.world.dice
        if run.job == WIDE:
            end = "TASK_FAILED" if dice.random() < 0.8 else "TASK_FINISHED"
            self.world.later(dice.randint(800, 1_000), self._finish, task_id, end)
        elif not daemon:
            run_ms = dice.randint(4_000, 12_000) if dice.random() < 0.15 else dice.randint(50, 2_500)
            end = "TASK_FAILED" if dice.random() < 0.08 else "TASK_FINISHED"
            limit_ms = round((payload if run.step else payload["job"])["timeoutSeconds"] * 1_000)
            if 0 < limit_ms < run_ms:
                if dice.random() < 0.5:
                    return  # the executor hangs
                run_ms, end = limit_ms, "TASK_FAILED"
            self.world.later(run_ms, self._finish, task_id, end)
        elif dice.random() < 0.1:
            self.world.later(dice.randint(1_000, 20_000), self._finish, task_id, "TASK_FAILED")

    def _finish(self, task_id: str, state: str) -> None:
        if self.alive and not self.hung and task_id in self.tasks:
            words = self._last_words(self.tasks[task_id], state)
            self._stop(task_id, state)
            self._update(task_id, state, **words)
            if self.world.take("finish_twice"):
                self._update(task_id, "TASK_FAILED" if state == "TASK_FINISHED" else "TASK_FINISHED")

    def _killed(self, task_id: str) -> None:
        if self.alive and not self.hung and task_id in self.tasks:
            self._update(task_id, "TASK_KILLING")
            self.world.later(self.world.dice.randint(0, 1_500), self._finish, task_id, "TASK_KILLED")

    def _stop(self, task_id: str, how: str) -> None:
        self.world.truth.stopped(self.tasks.pop(task_id), how)

    def _last_words(self, run: Run, state: str) -> dict[str, str]:
        if run.job != WIDE:
            return {}
        return extremes.last_words(run.item) if state == "TASK_FAILED" else extremes.last_result()

    def _update(self, task_id: str, state: str, **words: str) -> None:
        uuid = encode_data(uuid_of(_SALT, self.world.number()))
        status = {"task_id": {"value": task_id}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": uuid,
                  **words}  # fmt: skip
        self.untaken[uuid] = status
        self._call("UPDATE", {"status": status})
