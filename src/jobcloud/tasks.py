"""The tasks: what their updates change, how they end, and how they are ended."""

from __future__ import annotations

import json
from dataclasses import replace

from jobcloud import release, status
from jobcloud.book import Book
from jobcloud.firings import Firings
from jobcloud.fleet import Fleet
from jobcloud.inquiries import Inquiries
from jobcloud.messages import Acknowledge, Kill, Kind, Status, StatusReceived, Topic
from jobcloud.model import Cause, Firing, ShardState, Task, TaskState
from jobcloud.offers import Request, amounts
from jobcloud.repair import executor_key
from jobcloud.status import End


class Tasks:
    def __init__(self, book: Book, firings: Firings, inquiries: Inquiries, fleet: Fleet) -> None:
        self._book = book
        self._firings = firings
        self._inquiries = inquiries
        self._fleet = fleet

    def restore(self, at: int) -> None:
        """Claim what every task that may live uses."""
        for task in self._book.tasks.values():
            key = executor_key(task.agent_id, task.executor_id)
            executor_need = amounts(self._book.executors[key].shares)
            self._book.cluster.claim(task.id, task.agent_id, Request(task.resources, task.executor_id, executor_need))
            self._fleet.use(key)
            if task.kill_ms:
                self._inquiries.kills[task.id] = at

    def on_status(self, event: StatusReceived) -> None:
        update, at = event.status, event.at
        if update.uuid:
            self._book.out.append(Acknowledge(update.task_id, update.agent_id, update.uuid))
        self._inquiries.unanswered.pop(update.task_id, None)
        task = self._book.tasks.get(update.task_id)
        if task is None:
            self._stray(update, at)
            return
        next_step = status.step(task.state, update, cause_of(update.data))
        if isinstance(next_step, End):
            if task.kill_ms and update.state == "TASK_KILLED":
                next_step = End.KILLED  # whoever else may have wanted it, too
            if next_step is End.INVALID:
                # Its executor may be gone, or another than we believe: unless others run there, count it anew.
                self._fleet.gone.add(executor_key(task.agent_id, task.executor_id))
            self.end(task, next_step, describe(update), at)
        else:
            self._progress(task, next_step, update, at)

    def _stray(self, update: Status, at: int) -> None:
        """An update for no task of ours: what lives is ended, what has ended stays so."""
        if update.state in status.LIVE_UPDATES and update.agent_id:
            self._book.out.append(Kill(update.task_id, update.agent_id))
            self._book.publish(at, Topic.FAULT, f"ending unknown task {update.task_id}", task_id=update.task_id)

    def _progress(self, task: Task, state: TaskState, update: Status, at: int) -> None:
        self._inquiries.silent.pop(task.id, None)
        started = task.started_ms or (at if state is TaskState.RUNNING else 0)
        if state is not task.state or started != task.started_ms:
            self._book.put_task(replace(task, state=state, started_ms=started, message=update.message[:1_000]))
        if started != task.started_ms:
            shard = self._book.firings[task.firing_id].shards[task.item]
            self._firings.put_shards(task.firing_id, {task.item: replace(shard, started_ms=started)}, at, store=False)
        if state is not task.state or update.message:
            self._book.tell(at, Topic.RUNNING, task, update.message or f"is {state}", state)

    def end(self, task: Task, end: End, message: str, at: int) -> None:
        """A task is over: its claim is freed, its record goes, its shard goes on as `release.after` says."""
        self._book.cluster.release(task.id)
        self._inquiries.forget(task.id)
        del self._book.tasks[task.id]
        self._book.dirty[Kind.TASK, task.id] = None
        key = executor_key(task.agent_id, task.executor_id)
        self._fleet.leave(key, at)
        firing = self._book.firings[task.firing_id]
        job = self._book.jobs.get(task.job)
        shard = release.after(
            firing.shards[task.item], end, at, message, job,
            wanted=not task.kill_ms and self._book.wanted(firing),
            daemon=firing.cause is Cause.DAEMON,
            failover=job is not None and (job.failover or firing.step(task.item) is not None),
            seed=f"{firing.id}/{task.item}",
        )  # fmt: skip
        self._book.tell(at, Topic.ENDED, task, message, shard.state if shard.state.ended else f"{end}, again")
        self._firings.put_shards(firing.id, {task.item: shard}, at)
        self._fleet.drop_if_deserted(self._book.executors[key])
        self._book.work()

    def kill(self, task: Task, at: int) -> None:
        """End a task for good: its shard does not come back."""
        if not task.kill_ms:
            self._book.put_task(replace(task, kill_ms=at))
        self._inquiries.send_kill(task, at)

    def cancel(self, job: str, at: int, why: str) -> None:
        """End the job's unfinished firings: shards that wait at once, running ones by a kill."""
        for firing in self._book.queue.unfinished(job):
            self.cancel_firing(firing, at, why)

    def cancel_firing(self, firing: Firing, at: int, why: str) -> None:
        for shard in firing.shards:
            if shard.state is ShardState.ACTIVE:
                self.kill(self._book.tasks[shard.task_id], at)
        waiting = {item: shard for item, shard in enumerate(firing.shards) if shard.state is ShardState.WAITING}
        if waiting:
            self._firings.put_shards(firing.id, {
                item: replace(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
                for item, shard in waiting.items()
            }, at)  # fmt: skip


def cause_of(data: str) -> str:
    """The executor's own word for how a task ended, from an update's data; "" where it gives none."""
    try:
        found = json.loads(data)["cause"] if data else ""
    except (ValueError, LookupError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def describe(update: Status) -> str:
    """One text from what an update says of an end."""
    if update.message and not update.reason:
        return update.message[:4_000]
    found = ": ".join(part for part in (update.reason, update.message) if part)
    return found[:4_000] if found or update.state == "TASK_FINISHED" else update.state
