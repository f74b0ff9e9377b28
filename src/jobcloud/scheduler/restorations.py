"""The first leader after `jobcloud restore`. Its stored state does not contain the work since the backup.

A shard that had not ended in the backup may have ended since. Nobody knows whether it has, because Mesos forgets a task
when its end is acknowledged. So such a shard is treated as if an attempt that may have run was lost: the job's
`failover` decides whether it is repeated. The fire times between backup and restore count as missed: `catchUp` decides
about them. Tasks that were started after the backup have no record. They are orphan tasks, and are killed when Mesos
reports them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized

from jobcloud.messages import Kind, Topic
from jobcloud.model import Cause, Execution, Firing, Shard, ShardState, Task, TaskState, changed
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.scheduler.timetable import rfc3339, utc
from jobcloud.sentences import Told

_WARNED_MS = 86_400_000
_NOT_SEEN_TO_RUN = (TaskState.STORED, TaskState.STAGING)


class Restorations(Part):
    def __init__(self, state: State, firings: Firings) -> None:
        super().__init__(state)
        self._firings = firings
        #: restored tasks that Mesos has not reported yet
        self._unreported: dict[str, None] = {}
        self._running = self._ended = 0

    def restore(self, at: int) -> None:
        restoration = self._state.restoration
        if restoration is None or restoration.settled:
            return
        why = f"the state was restored from a backup of {utc(restoration.taken_ms)}, and it may have run since"
        unfinished = [firing.id for firing in self._state.firings.values() if not firing.ended_ms]
        repeated = given_up = 0
        for name in unfinished:
            firing = self._state.firings.get(name)
            if firing is None or firing.ended_ms:
                continue  # it was joined per shard with another one, whose shards are given up
            changes = self._changes(firing, why, at)
            if changes:
                self._firings.put_shards(firing.id, changes, at)
            ended = sum(shard.state.ended for shard in changes.values())
            repeated, given_up = repeated + len(changes) - ended, given_up + ended
        for task in list(self._state.tasks.values()):
            if task.state in _NOT_SEEN_TO_RUN:
                # The task may have run since. In the state STARTING, it counts as LOST if Mesos does not know it.
                self._state.put(Kind.TASK, task.id, changed(task, state=TaskState.STARTING))
        self._unreported = dict.fromkeys(self._state.tasks)
        self._state.set_restoration(changed(restoration, settled=True))
        self._publish(
            at,
            f"the state was restored at {utc(restoration.restored_ms)} from a backup of "
            f"{utc(restoration.taken_ms)}. It has {len(unfinished)} unfinished runs. {repeated} shards may have run "
            f"since and are repeated, because their jobs have failover; {given_up} have ended, because their jobs lack "
            f"it (`jobcloud retry` repeats the FAILED ones). Mesos is asked about {len(self._unreported)} tasks",
        )

    def _changes(self, firing: Firing, why: str, at: int) -> dict[int, Shard]:
        """The next states of the firing's waiting shards."""
        if not self._state.wanted(firing):
            return {}
        failover = firing.cause is Cause.DAEMON or self._state.jobs[firing.job].failover
        # Before the shards start again, Mesos reports the tasks that were started after the backup, and they are
        # killed.
        later = at + self._state.policy.restore_hold_ms
        before = len(firing.shards) - 2
        begun = not firing.stepped or firing.shards[before].state is ShardState.FINISHED
        if not failover and not begun and firing.shards[before].state is ShardState.WAITING:
            # The end of the listener's first call cancels the other shards.
            return {before: changed(firing.shards[before], state=ShardState.FAILED, ended_ms=at, message=why)}
        ended = ShardState.FAILED if begun else ShardState.CANCELLED
        changes: dict[int, Shard] = {}
        for item, shard in enumerate(firing.shards):
            if shard.state is not ShardState.WAITING:
                continue
            if failover or firing.step(item) is not None:
                changes[item] = changed(shard, execution=Execution.FAILOVER, not_before_ms=later, message=why)
            else:
                changes[item] = changed(shard, state=ended, ended_ms=at, message=why)
        return changes

    # ------------------------------------------------------------------------------------------------- tasks

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if self._unreported:
            self._reported(task, at, running=True)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        if self._unreported:
            self._reported(task, at, running=False)

    def _reported(self, task: Task, at: int, *, running: bool) -> None:
        if task.id not in self._unreported:
            return
        del self._unreported[task.id]
        self._running, self._ended = self._running + running, self._ended + (not running)
        if not self._unreported:
            text = f"of the restored tasks, {self._running} still run, and {self._ended} have ended since the backup"
            self._publish(at, text)

    def _publish(self, at: int, text: str) -> None:
        self._state.publish(at, Topic.FAULT, text)

    # ------------------------------------------------------------------------------------------------- reading

    def warnings(self, at: int) -> tuple[Told, ...]:
        """A text about the restore, for one day after it."""
        restoration = self._state.restoration
        if restoration is None or not 0 <= at - restoration.restored_ms < _WARNED_MS:
            return ()
        restored, taken = restoration.restored_ms, restoration.taken_ms
        times = f"at {utc(restored)} from a backup of {utc(taken)}"
        text = f"the state was restored {times}: the log shows how many shards were repeated or ended"
        return (Told(text, "restored", restored=rfc3339(restored), taken=rfc3339(taken)),)

    def indexes(self) -> Mapping[str, Sized]:
        return {"unreported": self._unreported}
