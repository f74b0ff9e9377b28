"""The executors on agents: with tasks, idle, or gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sized
from typing import Literal, TypeAlias

from jobcloud.config import MAX_IDLE_TIMEOUT_MS
from jobcloud.messages import ExecutorLost, Kind, ShutdownExecutor
from jobcloud.model import Executor, Task, content_of
from jobcloud.scheduler import recovery
from jobcloud.scheduler.cluster import amounts
from jobcloud.scheduler.launch import ExecutorPlan
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.quotas import Quotas
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End, Ending

_INVALID = End.INVALID


#: current: new tasks of the app join the executor. outdated: it runs another version of the app or of jobcloud. gone:
#: it has ended, and the last updates of its tasks have not arrived
ExecutorState: TypeAlias = Literal["current", "outdated", "gone"]


class Executors(Part):
    def __init__(self, state: State, quotas: Quotas) -> None:
        super().__init__(state)
        self._quotas = quotas
        #: executor key → number of its live tasks
        self.load: Counter[str] = Counter()
        #: keys of executors that are gone, until the last updates of their tasks arrive
        self.gone: set[str] = set()
        #: key of an executor without tasks → the instant since which it has none; executors end themselves after their
        #: idle time
        self.idle: dict[str, int] = {}
        #: (agent id, content) → keys of the executors with this content, the oldest first
        self._alike: dict[tuple[str, str], list[str]] = {}

    def restore(self, at: int) -> None:
        for key, executor in self._state.executors.items():
            self._restore(key, executor, at)
        for task in self._state.tasks.values():
            self._add_task(executor_key(task.agent_id, task.executor_id))

    def _restore(self, key: str, executor: Executor, at: int) -> None:
        """Reserve an executor's resources."""
        self._state.cluster.reserve(executor.agent_id, executor.id, amounts(executor.shares))
        self._quotas.executor_added(executor)
        self._alike.setdefault((executor.agent_id, content_of(executor.id)), []).append(key)
        self.idle[key] = at

    def on(self, agent_id: str, plan: ExecutorPlan) -> Executor | None:
        """The executor that a task with this plan uses on the agent. None if the task needs a new one.

        A living executor with the same content is preferred, even if another leader started it. Otherwise an executor
        that is gone is started again, if this leader would give the same id to a new executor with the same shares.
        """
        gone = None
        for key in self._alike.get((agent_id, plan.id), ()):
            known = self._state.executors[key]
            if known.spec == recovery.NO_SPEC:
                continue
            if key not in self.gone:
                return known
            if plan.executor_id(known.shares) == known.id:
                gone = known
        return gone

    def state_of(self, key: str) -> ExecutorState:
        executor = self._state.executors[key]
        if key in self.gone:
            return "gone"
        known = executor.app in self._state.apps
        return "current" if known and content_of(executor.id) == self._state.plan_of(executor.app).id else "outdated"

    def add(self, executor: Executor) -> None:
        """Add an executor that a task starts."""
        key = executor_key(executor.agent_id, executor.id)
        if key in self._state.executors:
            # to replace a stand-in without shares
            self._state.cluster.unreserve(executor.agent_id, executor.id)
            self._quotas.executor_gone(self._state.executors[key])
        else:
            self._alike.setdefault((executor.agent_id, content_of(executor.id)), []).append(key)
        self._state.put(Kind.EXECUTOR, key, executor)
        self._quotas.executor_added(executor)
        self._state.cluster.reserve(executor.agent_id, executor.id, amounts(executor.shares))

    # ------------------------------------------------------------------------------------------------- tasks

    def task_launched(self, task: Task, at: int) -> None:
        key = executor_key(task.agent_id, task.executor_id)
        self._add_task(key)
        self.gone.discard(key)  # Mesos starts the executor again with this task

    def _add_task(self, key: str) -> None:
        self.load[key] += 1
        self.idle.pop(key, None)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        key = executor_key(task.agent_id, task.executor_id)
        executor = self._state.executors[key]
        if ending.end is _INVALID or (ending.dropped and executor.launched_ms == task.created_ms):
            # After INVALID, the executor may differ from its record. If the dropped launch was to start the executor,
            # the executor may not exist. In both cases, the executor counts as gone, and its record is deleted with its
            # last task.
            self.gone.add(key)
        if self.load[key] > 1:
            self.load[key] -= 1
            return
        del self.load[key]
        self.idle[key] = at
        self._drop_if_deserted(key, executor)

    # ------------------------------------------------------------------------------------------------- end of executors

    def on_executor_lost(self, event: ExecutorLost) -> None:
        key = executor_key(event.agent_id, event.executor_id)
        executor = self._state.executors.get(key)
        if executor is None:
            return
        # The updates of its tasks are on the way. The executor is forgotten with the last of them.
        self.gone.add(key)
        self._drop_if_deserted(key, executor)
        self._state.cycle_due = True

    def agent_lost(self, agent_id: str, at: int) -> None:
        for key, executor in list(self._state.executors.items()):
            if executor.agent_id == agent_id:
                self._drop_if_deserted(key, executor)

    def app_changed(self, name: str) -> None:
        if name not in self._state.apps:
            for key, executor in list(self._state.executors.items()):
                if executor.app == name:
                    self._drop_if_deserted(key, executor)

    def _drop_if_deserted(self, key: str, executor: Executor) -> None:
        """If an executor has no tasks, forget it or shut it down.

        If it or its agent is gone, it is forgotten. If only its app is gone, it is shut down.
        """
        if self.load.get(key):
            return
        entry = self._state.cluster.agents.get(executor.agent_id)
        if entry is None or entry.lost or key in self.gone:
            self._forget(key, executor)
        elif executor.app not in self._state.apps:
            self._state.emit(ShutdownExecutor(executor.id, executor.agent_id))

    def _forget(self, key: str, executor: Executor) -> None:
        self._state.cluster.unreserve(executor.agent_id, executor.id)
        self._state.delete(Kind.EXECUTOR, key)
        self._quotas.executor_gone(executor)
        place = executor.agent_id, content_of(executor.id)
        self._alike[place].remove(key)
        if not self._alike[place]:
            del self._alike[place]
        self.gone.discard(key)
        self.idle.pop(key, None)

    def framework_removed(self) -> None:
        for key, executor in list(self._state.executors.items()):
            self._forget(key, executor)

    def clock_set_back(self, at: int) -> None:
        self.idle = {key: min(since, at) for key, since in self.idle.items()}

    def sweep(self, at: int) -> None:
        """Forget executors that were idle for longer than their idle timeout: they have ended themselves.

        Mesos does not report the end of every executor.
        """
        for key, since in list(self.idle.items()):
            executor = self._state.executors[key]
            if at - since > self._max_idle_ms(executor):
                self._forget(key, executor)

    def _max_idle_ms(self, executor: Executor) -> int:
        app = self._state.apps.get(executor.app)
        current = app is not None and self._state.plan_of(app.key).id == content_of(executor.id)
        idle_ms = app.idle_timeout_ms if app is not None and current else MAX_IDLE_TIMEOUT_MS
        return idle_ms + self._state.policy.sweep_ms

    # ------------------------------------------------------------------------------------------------- reading

    def indexes(self) -> Mapping[str, Sized]:
        return {"load": self.load, "gone": self.gone, "idle": self.idle, "alike": self._alike}

    def validate(self) -> None:
        loads = Counter(executor_key(task.agent_id, task.executor_id) for task in self._state.tasks.values())
        known = self._state.executors.keys()
        assert loads == self.load, f"tasks per executor are {loads}, not {self.load}"
        assert self.gone <= known, "an unknown executor is gone"
        alike = sorted(key for keys in self._alike.values() for key in keys)
        assert alike == sorted(known), "the executors by content are not the known ones"
        assert self.idle.keys() == known - loads.keys(), "an idle executor has tasks, or one without tasks is not idle"
