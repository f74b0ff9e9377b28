"""What Mesos is asked about tasks, again and again until it answers: reconciliation, silent launches, kills."""

from __future__ import annotations

from jobcloud.messages import Kill, Reconcile
from jobcloud.model import Task
from jobcloud.scheduler.state import State


class Reconciliation:
    def __init__(self, state: State) -> None:
        self._state = state
        #: tasks that a reconciliation has asked about and Mesos has not answered
        self.pending: dict[str, None] = {}
        #: tasks of which Mesos has said nothing at all since the session began
        self.unconfirmed: dict[str, None] = {}
        self._reconcile_at = 0
        self._wait_ms = state.policy.reconcile_first_ms
        #: task id → when to send its kill again; task id → when to ask for a launch without an answer
        self.kills: dict[str, int] = {}
        self.silent: dict[str, int] = {}
        # No launch is to be asked for earlier: there may be too many to look at each of them every time.
        self._silent_until = 0
        #: task that is none of ours (any more) → its agent, and when to send its kill again
        self.orphans: dict[str, tuple[str, int]] = {}

    def begin(self, at: int) -> None:
        """A session with the master has begun: ask about every task."""
        self.pending = dict.fromkeys(self._state.tasks)
        self.unconfirmed = dict.fromkeys(self._state.tasks)
        self._wait_ms = self._state.policy.reconcile_first_ms
        self._reconcile(at)

    def await_answer(self, task_id: str, until: int) -> None:
        """A launch was sent, or is in doubt: ask for it at that instant, unless it is heard of before."""
        self._silent_until = min(self._silent_until, until) if self.silent else until
        self.silent[task_id] = until

    def heard(self, task_id: str) -> None:
        """Mesos has said something of a task."""
        if self.pending:
            self.pending.pop(task_id, None)
        if self.unconfirmed:
            self.unconfirmed.pop(task_id, None)

    def removed(self) -> None:
        """The framework was removed, and every task with it."""
        self.orphans.clear()

    def hurry(self, at: int) -> None:
        """A reconciliation was not sent: ask again soon."""
        self._reconcile_at = min(self._reconcile_at, at + self._state.policy.reconcile_first_ms)

    def forget(self, task_id: str) -> None:
        """The task is over."""
        for timed in (self.pending, self.unconfirmed, self.silent, self.kills):
            timed.pop(task_id, None)

    def end_orphan(self, task_id: str, agent_id: str, at: int) -> None:
        """End a task that no shard of ours stands for; again until Mesos says that it has ended."""
        self.orphans[task_id] = agent_id, at
        self._kill_orphan(task_id, agent_id, at)

    def _kill_orphan(self, task_id: str, agent_id: str, at: int) -> None:
        if self._state.connected:
            self.orphans[task_id] = agent_id, at + self._state.policy.kill_again_ms
            self._state.emit(Kill(task_id, agent_id))

    def lose(self, agent_id: str) -> None:
        """The agent is away; when it comes back, Mesos tells of each task there."""
        for task_id in [task_id for task_id, (agent, _) in self.orphans.items() if agent == agent_id]:
            del self.orphans[task_id]

    def timed(self) -> set[str]:
        """The tasks that anything is asked about."""
        return self.silent.keys() | self.kills.keys() | self.pending.keys() | self.unconfirmed.keys()

    def wakes(self) -> list[int]:
        orphans = (due for _, due in self.orphans.values())
        silent = [self._silent_until] if self.silent else []
        return [*self.kills.values(), *silent, *orphans, self._reconcile_at]

    def clock_was_set_back(self, at: int) -> None:
        for timed in (self.kills, self.silent):
            timed.update(dict.fromkeys(timed, at))
        self._silent_until = at
        self.orphans = {task_id: (agent_id, at) for task_id, (agent_id, _) in self.orphans.items()}
        self._reconcile_at = min(self._reconcile_at, at + self._state.policy.reconcile_max_ms)

    def ask_again(self, at: int) -> None:
        """Reconcile what is unanswered, repeat kills, and ask for launches that nothing was heard of."""
        if not self._state.connected:
            return
        if at >= self._reconcile_at:
            self._reconcile(at)
        if self.silent and at >= self._silent_until:
            self._ask_for_silent(at)
        for task_id in [task_id for task_id, due in self.kills.items() if due <= at]:
            self.send_kill(self._state.tasks[task_id], at)
        for task_id, (agent_id, due) in list(self.orphans.items()):
            if due <= at:
                self._kill_orphan(task_id, agent_id, at)

    def _ask_for_silent(self, at: int) -> None:
        silent = [task_id for task_id, until in self.silent.items() if until <= at]
        self.silent.update(dict.fromkeys(silent, at + self._state.policy.launch_answer_ms))
        self._silent_until = min(self.silent.values())
        if silent:
            self._state.emit(Reconcile(tuple((task_id, self._state.tasks[task_id].agent_id) for task_id in silent)))

    def _reconcile(self, at: int) -> None:
        """Explicitly for each task without an answer, with back-off; then implicitly, and again every interval."""
        if self.pending:
            self._state.emit(Reconcile(tuple((t, self._state.tasks[t].agent_id) for t in self.pending)))
            self._reconcile_at = at + self._wait_ms
            self._wait_ms = min(self._wait_ms * 2, self._state.policy.reconcile_max_ms)
            return
        self._state.emit(Reconcile())
        self.pending = dict.fromkeys(self._state.tasks)
        self._wait_ms = self._state.policy.reconcile_first_ms
        self._reconcile_at = at + self._state.policy.reconcile_interval_ms

    def send_kill(self, task: Task, at: int) -> None:
        """Ask for a task's end, and again until it is seen: Mesos delivers a kill at most once."""
        if not self._state.connected:
            self.kills[task.id] = at
            return
        self.kills[task.id] = at + self._state.policy.kill_again_ms
        self._state.emit(Kill(task.id, task.agent_id))
