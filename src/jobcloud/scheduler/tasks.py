"""The tasks: what their updates change, how they end, and how they are ended."""

from __future__ import annotations

import json
import re

from jobcloud.messages import Acknowledge, Kind, Status, StatusReceived, Topic
from jobcloud.model import (
    NO_OUTCOME,
    Cause,
    Firing,
    Outcome,
    PartitionPolicy,
    ShardState,
    Task,
    TaskName,
    TaskState,
    changed,
    content_of,
)
from jobcloud.scheduler import retry, status
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import Request, amounts
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End
from jobcloud.scheduler.timeouts import Timeouts
from jobcloud.scheduler.warm_executors import WarmExecutors
from jobcloud.wire import RESULT_BYTES, is_flat

# How often it is looked whether what is out of reach is to be replaced: where that waits for Mesos, and at least.
_LOOK_MS = 1_000
_IDLE_MS = 3_600_000
_LAUNCH_FAILED = "REASON_CONTAINER_LAUNCH_FAILED"
OVERDUE = "it ran longer than its time limit, and its executor did not end it"
_TAKEN_AWAY = frozenset({End.KILLED, End.LOST, End.NOT_STARTED})
_CAUSE = re.compile(r"[a-z][a-z_]{0,40}")
# What every update looks at: a member of an enumeration costs a function call each time it is named, in CPython 3.11.
_RUNNING, _UNREACHABLE, _DAEMON = TaskState.RUNNING, TaskState.UNREACHABLE, Cause.DAEMON
_INVALID, _TASK, _TOPIC_RUNNING, _TOPIC_ENDED = End.INVALID, Kind.TASK, Topic.RUNNING, Topic.ENDED


class Tasks:
    def __init__(
        self,
        state: State,
        firings: Firings,
        reconciliation: Reconciliation,
        executors: Executors,
        placeholders: WarmExecutors,
        circuit_breakers: CircuitBreakers,
        overdue: Timeouts,
    ) -> None:
        self._state = state
        self._timeouts = overdue
        self._warm_executors = placeholders
        self._circuit_breakers = circuit_breakers
        self._firings = firings
        self._reconciliation = reconciliation
        self._executors = executors
        #: tasks whose agents are out of reach
        self.unreachable: dict[str, None] = {}
        #: resident jobs of which some task was heard of, or has ended, since this was last looked at
        self.moved: set[str] = set()
        self._look_at = 0

    def restore(self, at: int) -> None:
        """Claim what every task that may live uses."""
        for task in self._state.tasks.values():
            key = executor_key(task.agent_id, task.executor_id)
            executor_need = amounts(self._state.executors[key].shares)
            self._state.cluster.claim(
                task.id, task.agent_id, Request(task.resources, content_of(task.executor_id), executor_need)
            )
            self._executors.use(key)
            if task.kill_ms or task.overdue_ms:
                self._reconciliation.kills[task.id] = at
            self._timeouts.watch(task)
            self._note_reach(task.id, task.state)

    def _note_reach(self, task_id: str, state: TaskState) -> None:
        if state is _UNREACHABLE:
            self.unreachable[task_id] = None
            self._look_at = 0
        elif self.unreachable:
            self.unreachable.pop(task_id, None)

    def next_wake(self) -> int | None:
        """When it is looked next whether something out of reach is to be replaced."""
        return self._look_at if self.unreachable and self._state.connected else None

    def look_again(self) -> None:
        """The clock was set back, or a job's policy has changed."""
        self._look_at = 0

    def replace_unreachable(self, at: int) -> None:
        """By the policy of each job. What Mesos has not confirmed in this session may be in reach again: it waits."""
        if at < self._look_at or not self.unreachable or not self._state.connected:
            return
        self._look_at = at + _IDLE_MS
        for task_id in list(self.unreachable):
            task = self._state.tasks[task_id]
            job = self._state.jobs.get(task.job)
            if job is None or job.partition is PartitionPolicy.WAIT:
                continue
            due = min(task.unreachable_ms, at) + job.replace_after_ms
            if task_id in self._reconciliation.unconfirmed:
                due = max(due, at + _LOOK_MS)
            if due <= at:
                self.end(task, End.REPLACED, "its agent was out of reach: replaced by partitionPolicy", at)
            else:
                self._look_at = min(self._look_at, due)

    def on_status(self, event: StatusReceived) -> None:
        update, at = event.status, event.at
        if update.uuid:
            self._state.emit(Acknowledge(update.task_id, update.agent_id, update.uuid))
        self._reconciliation.heard(update.task_id)
        task = self._state.tasks.get(update.task_id)
        if task is None:
            self._on_orphan(update, at)
            return
        self._note_move(task)
        outcome = outcome_of(update.data) if update.data else NO_OUTCOME
        next_step = status.step(task.state, update, outcome.cause)
        if isinstance(next_step, End):
            message = describe(update) + self._what_was_fetched(task, update)
            if task.kill_ms and update.state == "TASK_KILLED":
                next_step = End.KILLED  # whoever else may have wanted it, too
            elif task.overdue_ms and next_step in _TAKEN_AWAY:
                # By us, after its executor had not ended it: it has failed as it does where the executor ends it.
                next_step, outcome, message = End.FAILED, Outcome("timeout"), f"{OVERDUE}: {message}"
            if next_step is _INVALID or self._was_to_start_its_executor(task, update):
                # Its executor may be gone, or another than we believe: unless others run there, count it anew.
                self._executors.gone.add(executor_key(task.agent_id, task.executor_id))
            self._circuit_breakers.ended(task, next_step, update.reason, outcome.cause, message, at)
            self.end(task, next_step, message, at, outcome)
        else:
            self._progress(task, next_step, update, at)

    def _was_to_start_its_executor(self, task: Task, update: Status) -> bool:
        """Whether the launch never came to its agent, and with it the start of the executor."""
        if update.state != "TASK_DROPPED":
            return False
        executor = self._state.executors.get(executor_key(task.agent_id, task.executor_id))
        return executor is not None and executor.launched_ms == task.created_ms

    def _what_was_fetched(self, task: Task, update: Status) -> str:
        """Mesos says that something could not be fetched, and not what."""
        app = self._state.apps.get(task.app) if update.reason == _LAUNCH_FAILED else None
        if app is None or "fetch" not in update.message.lower():
            return ""
        artifacts, package = self._state.policy.artifacts, app.package
        url = artifacts.url(package.sha256, package.file)
        return f"; the agent fetches {url} and the executor: are they there, and does it reach them?"

    def _on_orphan(self, update: Status, at: int) -> None:
        """An update for no task of ours: what lives is ended, and what was replaced meanwhile; the later one stays."""
        known = self._reconciliation.orphans.pop(update.task_id, None)
        if update.state in status.OVER_OR_AWAY or not update.agent_id:
            return
        if known is not None:
            self._reconciliation.orphans[update.task_id] = known  # it has been told already
            return
        self._reconciliation.end_orphan(update.task_id, update.agent_id, at)
        text = f"ending {self._twin_or_stray(update.task_id)} {update.task_id}"
        self._state.publish(at, Topic.FAULT, text, task_id=update.task_id)

    def _twin_or_stray(self, task_id: str) -> str:
        try:
            name = TaskName.parse(task_id)
        except ValueError:
            return "unknown task"
        return "the replaced twin" if name.job in self._state.jobs else "unknown task"

    def _note_move(self, task: Task) -> None:
        if task.firing_id and self._state.firings[task.firing_id].cause is _DAEMON:
            self.moved.add(task.job)

    def _progress(self, task: Task, state: TaskState, update: Status, at: int) -> None:
        self._reconciliation.silent.pop(task.id, None)
        started = task.started_ms or (at if state is _RUNNING else 0)
        begins = started != task.started_ms
        if state is not task.state or begins:
            away = at if state is _UNREACHABLE else 0
            message = update.message[:1_000]
            now = changed(task, state=state, started_ms=started, message=message, unreachable_ms=away)
            self._state.put(_TASK, now.id, now)
            self._note_reach(task.id, state)
            if begins:
                self._timeouts.watch(now)
            elif task.state is _UNREACHABLE:
                self._timeouts.in_reach(now)
        if state is _RUNNING and not task.started_ms:
            self._circuit_breakers.ran(task, at)
        elif state is _UNREACHABLE:
            self._circuit_breakers.lost_sight_of(task, at)
        if task.placeholder:
            self._warm_executors.note(self._state.tasks[task.id])
        elif begins:
            self._firings.note_start(task.firing_id, task.item, started)
        if state is not task.state or update.message:
            self._state.publish_task(at, _TOPIC_RUNNING, task, update.message or f"is {state}", state)

    def end(self, task: Task, end: End, message: str, at: int, outcome: Outcome = NO_OUTCOME) -> None:
        """A task is over: its claim is freed, its record goes, its shard goes on as `retry.after` says."""
        self._state.cluster.release(task.id)
        self._reconciliation.forget(task.id)
        self._circuit_breakers.lost_sight_of(task, at)
        self._timeouts.forget(task.id)
        self.unreachable.pop(task.id, None)
        self._state.delete(_TASK, task.id)
        key = executor_key(task.agent_id, task.executor_id)
        self._executors.leave(key, at)
        if task.placeholder:
            self._warm_executors.ended(task, message, at)
            self._state.publish_task(at, Topic.ENDED, task, message, str(end))
        else:
            self._shard_ended(task, end, message, at, outcome)
        self._executors.drop_if_deserted(self._state.executors[key])
        self._state.request_cycle()

    def _shard_ended(self, task: Task, end: End, message: str, at: int, outcome: Outcome) -> None:
        firing = self._state.firings[task.firing_id]
        job = self._state.jobs.get(task.job)
        daemon = firing.cause is _DAEMON
        if daemon:
            self.moved.add(task.job)
        shard = retry.after(
            firing.shards[task.item], end, at, message, job,
            wanted=self._state.wanted(firing) and not (daemon and job is not None and task.item >= job.shard_count),
            asked=bool(task.kill_ms),
            daemon=daemon,
            failover=job is not None and (job.failover or firing.step(task.item) is not None),
            seed=f"{firing.id}/{task.item}",
            cause=outcome.cause,
        )  # fmt: skip
        self._state.publish_task(at, _TOPIC_ENDED, task, message, shard.state if shard.state.ended else f"{end}, again")
        if shard.outcome is not outcome:
            shard = changed(shard, outcome=outcome)
        self._firings.put_shards(firing.id, {task.item: shard}, at)

    def kill(self, task: Task, at: int) -> None:
        """End a task, also over changes of the leader. Its shard comes back if it is a wanted resident's."""
        if not task.kill_ms:
            self._state.put(_TASK, task.id, changed(task, kill_ms=at))
            self._timeouts.watch(self._state.tasks[task.id])
        if task.placeholder:
            self._warm_executors.note(self._state.tasks[task.id])
        self._reconciliation.send_kill(task, at)

    def cancel(self, job: str, at: int, why: str) -> None:
        """End the job's unfinished firings: shards that wait at once, running ones by a kill."""
        for firing in self._state.queue.unfinished(job):
            self.cancel_firing(firing, at, why)

    def cancel_firing(self, firing: Firing, at: int, why: str) -> None:
        for shard in firing.shards:
            if shard.state is ShardState.ACTIVE:
                self.kill(self._state.tasks[shard.task_id], at)
        waiting = {item: shard for item, shard in enumerate(firing.shards) if shard.state is ShardState.WAITING}
        if waiting:
            self._firings.put_shards(firing.id, {
                item: changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
                for item, shard in waiting.items()
            }, at)  # fmt: skip


def outcome_of(data: str) -> Outcome:
    """What the executor says of a task's end, from an update's data; whatever is none is left out.

    The data may be anything: whoever reaches an agent can send updates in an executor's name.
    """
    try:
        found = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return NO_OUTCOME
    if not isinstance(found, dict):
        return NO_OUTCOME
    cause = found.get("cause")
    if not isinstance(cause, str) or not _CAUSE.fullmatch(cause):
        cause = ""
    result = _result(found.get("result"))
    return Outcome(cause, result) if cause or result else NO_OUTCOME


def _result(value: object) -> str:
    if value is None or not is_flat(value):
        return ""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except ValueError:  # no number; half a character
        return ""
    return text if size <= RESULT_BYTES else ""


def describe(update: Status) -> str:
    """One text from what an update says of an end."""
    if not update.reason and (update.message or update.state == "TASK_FINISHED"):
        return update.message[:4_000]
    found = ": ".join(part for part in (update.reason, update.message) if part)
    return found[:4_000] if found or update.state == "TASK_FINISHED" else update.state
