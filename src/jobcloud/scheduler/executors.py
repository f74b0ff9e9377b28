"""The executors that live on agents: which have tasks, which idle, which are gone."""

from __future__ import annotations

from collections import Counter

from jobcloud.messages import Kind, ShutdownExecutor
from jobcloud.model import DIMENSIONS, MAX_IDLE_TIMEOUT_MS, Executor, Share, changed, content_of
from jobcloud.scheduler import recovery
from jobcloud.scheduler.cluster import amounts
from jobcloud.scheduler.launch import ExecutorPlan
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State


class Executors:
    def __init__(self, state: State) -> None:
        self._state = state
        #: executor key → its live tasks; keys of executors that are gone, their last tasks not yet
        self.load: Counter[str] = Counter()
        self.gone: set[str] = set()
        #: key of each executor without tasks → since when; it leaves by itself after its idle time
        self.idle: dict[str, int] = {}
        #: how the ids of executors end that were there before this leader: each leader's address has an end of its own
        self._others: tuple[str, ...] = ()

    def restore(self, at: int) -> None:
        for key, executor in self._state.executors.items():
            self._restore(key, executor, at)
        ends = {executor.id.removeprefix(content_of(executor.id)) for executor in self._state.executors.values()}
        self._others = tuple(sorted(ends))

    def id_on(self, agent_id: str, plan: ExecutorPlan) -> str:
        """The executor that a task joins on an agent: one of this content that lives there, whichever leader has
        started it; else a new one, fetched from here."""
        for other in self._others:
            key = executor_key(agent_id, plan.id + other)
            known = self._state.executors.get(key)
            if known is not None and known.spec != recovery.NO_SPEC and key not in self.gone:
                return known.id
        return plan.executor_id

    def lives_on(self, agent_id: str, plan: ExecutorPlan) -> bool:
        return executor_key(agent_id, self.id_on(agent_id, plan)) in self._state.executors

    def use(self, key: str) -> None:
        """One more task runs in an executor."""
        self.load[key] += 1
        self.idle.pop(key, None)

    def leave(self, key: str, at: int) -> None:
        """One task fewer runs in an executor."""
        self.load[key] -= 1
        if not self.load[key]:
            del self.load[key]
            self.idle[key] = at

    def clock_was_set_back(self, at: int) -> None:
        """Nothing has idled since a time that is yet to come."""
        self.idle = {key: min(since, at) for key, since in self.idle.items()}

    def sweep(self, at: int) -> None:
        for key, since in list(self.idle.items()):
            if at - since > self._longest_idle_ms(self._state.executors[key]):
                self.forget(self._state.executors[key])  # nobody tells reliably that it has left

    def _longest_idle_ms(self, executor: Executor) -> int:
        app = self._state.apps.get(executor.app)
        current = app is not None and self._state.plan_of(app.name).id == content_of(executor.id)
        return (
            app.idle_timeout_ms if app is not None and current else MAX_IDLE_TIMEOUT_MS
        ) + self._state.policy.sweep_ms

    def drop_if_deserted(self, executor: Executor) -> None:
        """Forget an executor that has no tasks and is gone, or whose agent is; end one whose app is."""
        key = executor_key(executor.agent_id, executor.id)
        if self.load.get(key):
            return
        entry = self._state.cluster.agents.get(executor.agent_id)
        if entry is None or entry.lost or key in self.gone:
            self.forget(executor)
        elif executor.app not in self._state.apps:
            self._state.emit(ShutdownExecutor(executor.id, executor.agent_id))

    def forget(self, executor: Executor) -> None:
        self._state.cluster.unreserve(executor.agent_id, executor.id)
        key = executor_key(executor.agent_id, executor.id)
        self._state.delete(Kind.EXECUTOR, key)
        self.gone.discard(key)
        self.idle.pop(key, None)

    def on_agent(self, agent_id: str) -> list[Executor]:
        return [executor for executor in self._state.executors.values() if executor.agent_id == agent_id]

    def _restore(self, key: str, executor: Executor, at: int) -> None:
        """It may live still, with or without tasks; one without a record of its own is described from its app."""
        if executor.spec == recovery.NO_SPEC:
            plan = self._state.plan_of(executor.app) if executor.app in self._state.apps else None
            if plan is not None and plan.executor_id == executor.id:
                shares = tuple(Share(name, n) for name, n in zip(DIMENSIONS, plan.resources, strict=True) if n)
                executor = changed(executor, spec=plan.spec, shares=shares)
                self._state.put(Kind.EXECUTOR, key, executor)
        self._state.cluster.reserve(executor.agent_id, executor.id, amounts(executor.shares))
        self.idle[key] = at
