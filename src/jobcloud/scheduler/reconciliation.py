"""Two kinds of calls about tasks: questions for their state (reconciliation), and kills.

Mesos delivers calls at most once. So questions and kills are repeated until Mesos answers: questions with a back-off,
kills at fixed intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized

from jobcloud.errors import Unavailable
from jobcloud.messages import Kill, Reconcile, ReconcileTasks, SendFailed
from jobcloud.model import Task
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON


class Reconciliation(Part):
    def __init__(self, state: State) -> None:
        super().__init__(state)
        #: tasks of the current reconciliation about which Mesos has not answered
        self.pending: dict[str, None] = {}
        #: tasks about which Mesos has reported nothing since the session began
        self.unconfirmed: dict[str, None] = {}
        self._reconcile_at = 0
        self._wait_ms = state.policy.reconcile_first_ms
        #: task → when its kill is sent again
        self.kills: dict[str, int] = {}
        #: launched task without an update → when Mesos is asked about it
        self.silent: dict[str, int] = {}
        # A lower bound of the instants in `silent`. Checking all of them on each tick would take too long.
        self._silent_until = 0
        #: the maximum number of tasks in one question, after the master has refused one for its size; None: no maximum
        self._most: int | None = None
        #: orphan task → its agent, and when its kill is sent again
        self.orphans: dict[str, tuple[str, int]] = {}

    def restore(self, at: int) -> None:
        for task in self._state.tasks.values():
            if task.kill_ms or task.overdue_ms:
                self.kills[task.id] = at

    def begin(self, at: int) -> None:
        """Ask about every task."""
        self._most = None
        self.pending = dict.fromkeys(self._state.tasks)
        self.unconfirmed = dict.fromkeys(self._state.tasks)
        self._wait_ms = self._state.policy.reconcile_first_ms
        self._reconcile(at)

    def reconcile(self, event: ReconcileTasks) -> None:
        """Raises Unavailable if no master is connected."""
        if not self._state.connected:
            raise Unavailable(Told("no Mesos master is connected", "no_master"), fix=TRY_SOON)
        self.pending = dict.fromkeys(self._state.tasks) if event.explicit else {}
        self._wait_ms = self._state.policy.reconcile_first_ms
        self._reconcile(event.at)

    # ------------------------------------------------------------------------------------------------- tasks

    def task_launched(self, task: Task, at: int) -> None:
        self.await_answer(task.id, at + self._state.policy.launch_answer_ms)

    def await_answer(self, task_id: str, until: int) -> None:
        """Ask about a launched task at `until`, unless an update comes first."""
        self._silent_until = min(self._silent_until, until) if self.silent else until
        self.silent[task_id] = until

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if self.pending:
            self.pending.pop(task.id, None)
        if self.unconfirmed:
            self.unconfirmed.pop(task.id, None)
        self.silent.pop(task.id, None)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        for index in (self.pending, self.unconfirmed, self.silent, self.kills):
            index.pop(task.id, None)

    def send_kill(self, task: Task, at: int) -> None:
        """Ask Mesos to kill a task, and repeat this until its end is reported."""
        if not self._state.connected:
            self.kills[task.id] = at
            return
        self.kills[task.id] = at + self._state.policy.kill_again_ms
        self._state.emit(Kill(task.id, task.agent_id))

    def end_orphan(self, task_id: str, agent_id: str, at: int) -> None:
        """Kill an orphan task, and repeat this until Mesos reports its end."""
        self.orphans[task_id] = agent_id, at
        self._kill_orphan(task_id, agent_id, at)

    def _kill_orphan(self, task_id: str, agent_id: str, at: int) -> None:
        if self._state.connected:
            self.orphans[task_id] = agent_id, at + self._state.policy.kill_again_ms
            self._state.emit(Kill(task_id, agent_id))

    # ------------------------------------------------------------------------------------------------- the cluster

    def agent_lost(self, agent_id: str, at: int) -> None:
        """Forget the agent's orphans. If the agent comes back, Mesos reports each task there."""
        for task_id in [task_id for task_id, (agent, _) in self.orphans.items() if agent == agent_id]:
            del self.orphans[task_id]

    def framework_removed(self) -> None:
        self.orphans.clear()

    def send_failed(self, event: SendFailed) -> None:
        """If Mesos may not have received a question, ask again soon. If it was too large, ask about half as many."""
        if isinstance(event.call, Reconcile):
            if event.too_large:
                self._most = max(1, len(event.call.tasks) // 2)
            soon = event.at + self._state.policy.reconcile_first_ms
            self._reconcile_at = min(self._reconcile_at, soon)

    # ------------------------------------------------------------------------------------------------- time

    def next_wake(self, at: int) -> int | None:
        return min(self._wakes()) if self._state.connected else None

    def _wakes(self) -> Iterator[int]:
        yield from self.kills.values()
        if self.silent:
            yield self._silent_until
        yield from (due for _, due in self.orphans.values())
        yield self._reconcile_at

    def clock_set_back(self, at: int) -> None:
        for index in (self.kills, self.silent):
            index.update(dict.fromkeys(index, at))
        self._silent_until = at
        self.orphans = {task_id: (agent_id, at) for task_id, (agent_id, _) in self.orphans.items()}
        self._reconcile_at = min(self._reconcile_at, at + self._state.policy.reconcile_max_ms)

    def on_tick(self, at: int) -> None:
        """Ask about pending tasks and about launched tasks without an update, and repeat kills."""
        if not self._state.connected:
            return
        if at >= self._reconcile_at:
            self._reconcile(at)
        if self.silent and at >= self._silent_until:
            self._ask_about_silent(at)
        for task_id in [task_id for task_id, due in self.kills.items() if due <= at]:
            self.send_kill(self._state.tasks[task_id], at)
        for task_id, (agent_id, due) in list(self.orphans.items()):
            if due <= at:
                self._kill_orphan(task_id, agent_id, at)

    def _ask_about_silent(self, at: int) -> None:
        silent = [task_id for task_id, until in self.silent.items() if until <= at]
        self.silent.update(dict.fromkeys(silent, at + self._state.policy.launch_answer_ms))
        self._silent_until = min(self.silent.values())
        if silent:
            self._ask_about(silent)

    def _reconcile(self, at: int) -> None:
        """Ask about each pending task, with a back-off. If none is pending, ask about all tasks once per interval.

        In the words of Mesos, the first is explicit reconciliation, the second implicit reconciliation.
        """
        if self.pending:
            self._ask_about(self.pending)
            self._reconcile_at = at + self._wait_ms
            self._wait_ms = min(self._wait_ms * 2, self._state.policy.reconcile_max_ms)
            return
        self._state.emit(Reconcile())
        self.pending = dict.fromkeys(self._state.tasks)
        self._wait_ms = self._state.policy.reconcile_first_ms
        self._reconcile_at = at + self._state.policy.reconcile_interval_ms

    def _ask_about(self, task_ids: Iterable[str]) -> None:
        asked = tuple((name, self._state.tasks[name].agent_id) for name in task_ids)
        most = self._most or len(asked)
        for start in range(0, len(asked), most):
            self._state.emit(Reconcile(asked[start : start + most]))

    # ------------------------------------------------------------------------------------------------- reading

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "pending": self.pending,
            "unconfirmed": self.unconfirmed,
            "kills": self.kills,
            "silent": self.silent,
            "orphans": self.orphans,
        }

    def validate(self) -> None:
        timed = self.silent.keys() | self.kills.keys() | self.pending.keys() | self.unconfirmed.keys()
        assert timed <= self._state.tasks.keys(), "Mesos is asked about a task without a record"
        assert not self.orphans.keys() & self._state.tasks.keys(), "a task with a record is an orphan"
