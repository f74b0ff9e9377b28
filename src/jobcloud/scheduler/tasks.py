"""The tasks: their updates, their ends and their kills.

Every update takes one path. `Tasks.on_status` looks up the next state or the end of the task in the table of status.py.
After an end, retry.py gives the next state of the shard. Then the hooks inform the other parts.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sized
from contextlib import suppress

from jobcloud.config import Job, PartitionPolicy
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import Accept, Acknowledge, Kind, SendFailed, Status, StatusReceived, Topic, UseSecrets
from jobcloud.model import (
    NO_OUTCOME,
    Attempt,
    Cause,
    Firing,
    Outcome,
    ShardState,
    Task,
    TaskName,
    TaskState,
    changed,
    content_of,
    cut,
)
from jobcloud.scheduler import attempts, retry, status
from jobcloud.scheduler.cluster import Request, Tenant, amounts
from jobcloud.scheduler.firings import Firings, cron_is_over
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.places import own_where
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End, Ending
from jobcloud.sentences import Parameter
from jobcloud.wire import RESULT_BYTES, is_flat

# An unreachable task that is due for replacement, but unconfirmed, is checked again after this time.
_CHECK_MS = 1_000
# Maximum time between two checks of the unreachable tasks.
_IDLE_MS = 3_600_000
# Number of ended tasks that are remembered, to recognize late updates.
_MAX_ENDED = 10_000
# The message of a task that has not ended is cut to this number of bytes.
_PROGRESS_BYTES = 1_000
_LAUNCH_FAILED = "REASON_CONTAINER_LAUNCH_FAILED"
OVERDUE = "it exceeded its time limit, and its executor did not end it"
_TAKEN_AWAY = frozenset({End.KILLED, End.LOST, End.NOT_STARTED})
_CAUSE = re.compile(r"[a-z][a-z_]{0,40}")
# Global names, because an access to an enum member costs a function call in CPython 3.11.
_RUNNING, _UNREACHABLE, _DAEMON, _TASK = TaskState.RUNNING, TaskState.UNREACHABLE, Cause.DAEMON, Kind.TASK
_TOPIC_RUNNING, _TOPIC_ENDED, _SUCCEEDED = Topic.RUNNING, Topic.ENDED, End.SUCCEEDED


class Tasks(Part):
    def __init__(self, state: State, hooks: Hooks, firings: Firings, reconciliation: Reconciliation) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._firings = firings
        self._reconciliation = reconciliation
        #: tasks whose agents are unreachable
        self.unreachable: dict[str, None] = {}
        #: the last _MAX_ENDED tasks for which Mesos reported an end that is certain
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._next_check = 0

    def restore(self, at: int) -> None:
        """Claim the resources of every task that may live."""
        for task in self._state.tasks.values():
            if task.attributes:
                self._state.cluster.learn(task.agent_id, task.hostname, task.attributes)
            tenant = Tenant.NONE if task.placeholder else Tenant.EXCLUSIVE if task.exclusive else Tenant.SHARD
            self._state.cluster.claim(task.id, task.agent_id, self._request_of(task), tenant)
            self._track_reachability(task)

    def _request_of(self, task: Task) -> Request:
        """The resources of a running task, whatever its job needs now."""
        executor_need = amounts(self._state.executors[executor_key(task.agent_id, task.executor_id)].shares)
        where = self._state.counted(self._state.jobs.get(task.job))
        return Request(task.resources, content_of(task.executor_id), executor_need, where=where)

    def _track_reachability(self, task: Task) -> None:
        if task.state is _UNREACHABLE:
            self.unreachable[task.id] = None
            self._next_check = 0
        elif self.unreachable:
            self.unreachable.pop(task.id, None)

    def next_wake(self, at: int) -> int | None:
        return self._next_check if self.unreachable and self._state.connected else None

    def clock_set_back(self, at: int) -> None:
        self._next_check = 0

    def job_changed(self, job: Job) -> None:
        self._next_check = 0  # its partition policy may have changed
        for key in (job.key, *(target for target, _ in own_where(job).neighbours)):
            if self._state.counted(self._state.jobs.get(key)) is not None:
                self._count(key)

    def _count(self, job: str) -> None:
        """From now on, the running shards of a job count for rules."""
        shards = (shard for firing in self._state.queue.unfinished(job) for shard in firing.shards)
        for task_id in [shard.task_id for shard in shards if shard.state is ShardState.ACTIVE]:
            self._state.cluster.count(task_id, self._request_of(self._state.tasks[task_id]))

    def on_tick(self, at: int) -> None:
        """Replace unreachable tasks as each job's partition policy says.

        A task that Mesos has not confirmed in this session may be reachable again, so its replacement waits.
        """
        if at < self._next_check or not self.unreachable or not self._state.connected:
            return
        self._next_check = at + _IDLE_MS
        for task_id in list(self.unreachable):
            task = self._state.tasks[task_id]
            job = self._state.jobs.get(task.job)
            if job is None or job.partition is PartitionPolicy.WAIT:
                continue
            due = min(task.unreachable_ms, at) + job.replace_after_ms
            if task_id in self._reconciliation.unconfirmed:
                due = max(due, at + _CHECK_MS)
            if due <= at:
                self.end(task, Ending(End.REPLACED, "its agent was unreachable: replaced by partitionPolicy"), at)
            else:
                self._next_check = min(self._next_check, due)

    # ------------------------------------------------------------------------------------------------- updates

    def on_status(self, event: StatusReceived) -> None:
        update, at = event.status, event.at
        if update.uuid:
            self._state.emit(Acknowledge(update.task_id, update.agent_id, update.uuid))
        task = self._state.tasks.get(update.task_id)
        if task is None:
            self._on_orphan(update, at)
            return
        outcome = parse_outcome(update.data) if update.data else NO_OUTCOME
        step = status.step(task.state, update, outcome.cause)
        if isinstance(step, End):
            self._finish(task, step, update, outcome, at)
        else:
            self._progress(task, step, update, at)

    def _finish(self, task: Task, end: End, update: Status, outcome: Outcome, at: int) -> None:
        if update.state in status.CERTAIN_ENDS:
            if len(self._ended) == _MAX_ENDED:
                self._ended.popitem(last=False)  # an OrderedDict finds its first key at once, a dict does not
            self._ended[task.id] = None
        message = describe(update) + self._fetched_artifacts(task, update)
        if task.kill_ms and update.state == "TASK_KILLED":
            end = End.KILLED  # our kill decides, even if the agent was drained at the same time
        elif task.overdue_ms and end in _TAKEN_AWAY:
            # The executor did not end the task at its limit, so the scheduler killed it. The task counts as failed.
            end, outcome, message = End.FAILED, Outcome("timeout"), f"{OVERDUE}: {message}"
        dropped, agent_at_fault = update.state == "TASK_DROPPED", update.reason != status.INVALID_OFFERS
        ending = Ending(end, message, outcome, update.reason, dropped, agent_at_fault=agent_at_fault)
        self.end(task, ending, at)

    def _fetched_artifacts(self, task: Task, update: Status) -> str:
        """After a failed fetch, a text that names the artifacts, because Mesos does not name them. Otherwise ""."""
        app = self._state.apps.get(task.app) if update.reason == _LAUNCH_FAILED else None
        if app is None or "fetch" not in update.message.lower():
            return ""
        url = self._state.policy.artifacts.url(app.package.sha256, app.package.file)
        return f"; the agent fetches {url} and the executor: do they exist, and can the agent reach them?"

    def _on_orphan(self, update: Status, at: int) -> None:
        """Handle an update for a task without a record. If the task may live, kill it.

        The kill does not affect another attempt of the same shard.
        """
        known = self._reconciliation.orphans.pop(update.task_id, None)
        if update.state in status.OVER_OR_AWAY or not update.agent_id or update.task_id in self._ended:
            return
        if known is not None:
            self._reconciliation.orphans[update.task_id] = known  # its kill is being repeated already
            return
        self._reconciliation.end_orphan(update.task_id, update.agent_id, at)
        text = f"killing the orphan task {update.task_id}: {self._orphan_kind(update.task_id)}"
        self._state.publish(at, Topic.FAULT, text, task_id=update.task_id)

    def _orphan_kind(self, task_id: str) -> str:
        """The possible origin of a task without a record. The id names the job, but not the run."""
        with suppress(ValueError):
            if TaskName.parse(task_id).job in self._state.jobs:
                return "a replaced attempt, or one that started after the backup that was restored"
        return "its job is not registered"

    def _progress(self, task: Task, state: TaskState, update: Status, at: int) -> None:
        before = task
        started = task.started_ms or (at if state is _RUNNING else 0)
        if state is not task.state or started != task.started_ms:
            unreachable = at if state is _UNREACHABLE else 0
            message = cut(update.message, _PROGRESS_BYTES)
            task = changed(task, state=state, started_ms=started, message=message, unreachable_ms=unreachable)
            self._state.put(_TASK, task.id, task)
            self._track_reachability(task)
        for hook in self._hooks.task_changed:
            hook(before, task, at)
        if state is not before.state or update.message:
            self._state.publish_task(at, _TOPIC_RUNNING, task, update.message or f"is {state}", state)

    def use_secrets(self, event: UseSecrets) -> None:
        """Raises NotFound if the task is not about to start, and Conflict if its secrets were handed over before."""
        task = self._state.tasks.get(event.task_id)
        # The placeholder of a warm executor belongs to no job, so it has no secrets.
        if task is None or task.placeholder or task.agent_id != event.agent_id or task.state not in status.NOT_BEGUN:
            raise NotFound(f"no task {event.task_id} is about to start on this agent", field="taskId")
        if task.secrets_used:
            raise Conflict(f"the secrets of task {task.id} were handed over before", field="taskId")
        self._state.put(_TASK, task.id, changed(task, secrets_used=True))

    def end(self, task: Task, ending: Ending, at: int) -> None:
        """Release the task's claim, delete its record and move its shard to the next state."""
        if (message := cut(ending.message)) is not ending.message:
            ending = ending._replace(message=message)
        self._state.cluster.release(task.id)
        self._state.delete(_TASK, task.id)
        self.unreachable.pop(task.id, None)
        if task.placeholder:
            self._state.publish_task(at, _TOPIC_ENDED, task, ending.message, str(ending.end), reason=str(ending.end))
        else:
            self._end_shard(task, ending, at)
        for hook in self._hooks.task_ended:
            hook(task, ending, at)
        self._state.request_cycle()

    def end_all(self, why: str, at: int) -> None:
        """End every task as lost: Mesos has ended all of them, so no agent is at fault."""
        for task in list(self._state.tasks.values()):
            self.end(task, lost(task, why)._replace(agent_at_fault=False), at)

    def _end_shard(self, task: Task, ending: Ending, at: int) -> None:
        firing = self._state.firings[task.firing_id]
        job = self._state.jobs.get(task.job)
        daemon = firing.cause is _DAEMON
        wanted = self._state.wanted(firing)
        if daemon and job is not None:
            # After the last fire time, the executor ends a resident shard with success.
            over = ending.end is _SUCCEEDED and not task.kill_ms and cron_is_over(job, at)
            wanted = wanted and task.item < job.shard_count and not over
        before = firing.shards[task.item]
        shard = retry.next_shard_state(
            before, ending.end, at, ending.message, job,
            wanted=wanted,
            kill_requested=bool(task.kill_ms),
            daemon=daemon,
            failover=job is not None and (job.failover or firing.step(task.item) is not None),
            seed=f"{firing.id}/{task.item}",
            cause=ending.outcome.cause,
            charged=ending.charged,
            agent_at_fault=ending.agent_at_fault,
        )  # fmt: skip
        text = shard.state if shard.state.ended else f"{ending.end}, again"
        self._state.publish_task(at, _TOPIC_ENDED, task, ending.message, text, reason=str(ending.end))
        if shard.outcome is not ending.outcome:
            shard = changed(shard, outcome=ending.outcome)
        if not shard.state.ended:
            attempt = Attempt(
                before.attempt, task.id, task.agent_id, task.hostname, task.executor_id, task.execution, ending.end,
                task.started_ms, at, cut(ending.message, attempts.MESSAGE_BYTES), ending.outcome,
            )  # fmt: skip
            self._state.keep_attempt(firing.id, task.item, attempt)
        self._firings.put_shards(firing.id, {task.item: shard}, at)

    # ------------------------------------------------------------------------------------------------- kills

    def kill(self, task: Task, at: int) -> None:
        """Ask a task to end. The next leader repeats the request. A resident shard that is wanted starts again."""
        if not task.kill_ms:
            task = changed(task, kill_ms=at)
            self._state.put(_TASK, task.id, task)
            for hook in self._hooks.task_killed:
                hook(task)
        self._reconciliation.send_kill(task, at)

    def move(self, task: Task, at: int) -> None:
        """Ask a task to end, so that its shard starts elsewhere.

        The request is not stored: after a stored one, a TRANSIENT shard does not start again.
        """
        self._reconciliation.send_kill(task, at)
        for hook in self._hooks.task_killed:
            hook(task)

    def cancel(self, job: str, at: int, why: str) -> None:
        """End the job's unfinished firings."""
        for firing in self._state.queue.unfinished(job):
            self.cancel_firing(firing, at, why)

    def cancel_firing(self, firing: Firing, at: int, why: str) -> None:
        """Kill the firing's running shards and cancel the waiting ones.

        Nothing happens if the firing has ended meanwhile: the end of another one may end those that are joined with it.
        """
        known = self._state.firings.get(firing.id)
        if known is None or known.ended_ms:
            return
        firing = known
        for shard in firing.shards:
            if shard.state is ShardState.ACTIVE:
                self.kill(self._state.tasks[shard.task_id], at)
        self._firings.cancel_waiting(firing.id, firing.shards, why, at)

    def send_failed(self, event: SendFailed) -> None:
        """End the tasks of a launch that was certainly not sent. If it may have arrived, ask Mesos about its tasks."""
        launches = event.call.launches if isinstance(event.call, Accept) else ()
        for launch in launches:
            task = self._state.tasks.get(launch.task_id)
            if task is None:
                continue
            if event.certain and event.too_large:
                self._end_oversized(task, launch.size if len(launches) == 1 else 0, event)
            elif event.certain:
                why = f"the launch was not sent: {event.reason}"
                self.end(task, Ending(End.NOT_STARTED, why, dropped=True, agent_at_fault=False), event.at)
            else:
                self._reconciliation.await_answer(task.id, event.at)

    def _end_oversized(self, task: Task, size: int, event: SendFailed) -> None:
        """End a task whose launch was refused because the call was too large.

        `size`: the bytes of the launch if the call had no other task, otherwise 0. A launch that is too large by itself
        would be refused again. So its job gets a fault.
        """
        text = f"the Mesos master refused a call for its size: {event.reason}"
        if size and task.job in self._state.jobs:
            text = f"the Mesos master refuses the launch of {size} bytes: {event.reason}; shorten the job's parameters"
            self._state.faults[task.job] = text
            self._state.publish(event.at, Topic.FAULT, text, job=task.job)
        self.end(task, Ending(End.NOT_STARTED, text, dropped=True, charged=False, agent_at_fault=False), event.at)

    # ------------------------------------------------------------------------------------------------- reading

    def confirmed(self, task: Task) -> bool:
        """Whether the task is known to live: its agent is reachable, and no question about the task is open."""
        agent = self._state.cluster.agents.get(task.agent_id)
        if task.state is _UNREACHABLE or agent is None or agent.lost:
            return False
        return task.id not in self._reconciliation.pending

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        away = [shard for shard in (head.shards if head else ()) if shard.task_id in self.unreachable]
        if away:
            text = f"{len(away)} of its shards are on unreachable agents, such as {away[0].hostname}, and may run there"
            case = "wait" if job.partition is PartitionPolicy.WAIT else ""
            if case:
                text += "; partitionPolicy is wait: if you know that one is dead, use `jobcloud task forget`"
            given: dict[str, Parameter] = {"shards": len(away), "host": away[0].hostname}
            yield Reason("unreachable", text, waiting_helps=True, case=case, parameters=given)

    def indexes(self) -> Mapping[str, Sized]:
        return {"unreachable": self.unreachable}

    def validate(self) -> None:
        away = {task.id for task in self._state.tasks.values() if task.state is _UNREACHABLE}
        assert self.unreachable.keys() == away, f"the unreachable tasks are {away}, not {set(self.unreachable)}"


def lost(task: Task, why: str) -> Ending:
    """The end of a task that counts as lost without a report from Mesos."""
    end = status.TABLE[task.state, "TASK_LOST"]
    assert isinstance(end, End)
    return Ending(end, why)


def parse_outcome(data: str) -> Outcome:
    """Parse the executor's outcome from the data of a status update. Invalid parts are ignored.

    Any process that reaches an agent can send updates in an executor's name, so the data is not trusted.
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
    except ValueError:  # NaN, infinity, or a lone surrogate
        return ""
    return text if size <= RESULT_BYTES else ""


def describe(update: Status) -> str:
    """The text for users about an end: the reason and the message of the update.

    If both are missing, the text is the state of the update, or "" for TASK_FINISHED.
    """
    if not update.reason and (update.message or update.state == "TASK_FINISHED"):
        return update.message
    found = ": ".join(part for part in (update.reason, update.message) if part)
    return found if found or update.state == "TASK_FINISHED" else update.state
