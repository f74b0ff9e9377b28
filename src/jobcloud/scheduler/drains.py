"""Drains: moving work off agents, for an operator or for a maintenance window that Mesos has announced.

A drained agent is cordoned: it gets no new tasks. Its resident shards move away, first a few of each job at a time.
When half of the time until the deadline has passed, all remaining resident shards move. The other shards may end by
themselves until the deadline. A shard that still runs then is moved if its job has failover. Otherwise the shard stays.

The kill of a resident shard is stored in its task's record, like an operator's kill. The kill of another shard is not
stored, because such a shard does not start again after a stored kill. The next leader decides in the same way, because
the operator's request is stored, and Mesos announces its windows to each leader.

Source of windows and inverse offers: Mesos' document "Maintenance Primitives".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from typing import NamedTuple

from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import (
    AcceptInverseOffers,
    DeclineInverseOffers,
    DrainAgent,
    InverseOffersReceived,
    Kind,
    OffersReceived,
    SendFailed,
    Topic,
    UndrainAgent,
)
from jobcloud.model import Cause, Drain, Task, TaskState, Window, cut
from jobcloud.scheduler.cycle import Cycle
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import choose, shown_by

# The interval at which drains are checked.
_CHECK_MS = 1_000
# Until `hurry_ms`, a resident shard moves only if at most a tenth of its job's shards are down afterwards. If a job has
# fewer than ten shards, one may be down.
_PART = 10
# How long an acceptance and a decline of an inverse offer are valid. A decline ends soon, so that Mesos asks again.
_ACCEPT_MS = 60_000
_DECLINE_MS = 5_000
# An operator's drain of an agent that is no longer known is deleted this long after it began.
_FORGET_MS = 30 * 86_400_000


class Plan(NamedTuple):
    """The instants at which an agent is cordoned, its remaining resident shards move, and its other shards move."""

    cordon_ms: int
    hurry_ms: int
    deadline_ms: int


class Drains(Part):
    def __init__(self, state: State, reconciliation: Reconciliation, tasks: Tasks, cycle: Cycle) -> None:
        super().__init__(state)
        self._reconciliation = reconciliation
        self._tasks = tasks
        self._cycle = cycle
        #: agent → the window that Mesos announces for it
        self.windows: dict[str, Window] = {}
        self._next_check = 0

    def begin(self, at: int) -> None:
        """Forget the windows: the offers and inverse offers of the new session announce them again."""
        self.windows.clear()
        self._next_check = 0

    def _plan(self, agent_id: str) -> Plan | None:
        """The plan for an agent. If an operator and Mesos both drain it, each step happens at the earlier instant."""
        plans: list[Plan] = []
        if (drain := self._state.drains.get(agent_id)) is not None:
            half = (drain.since_ms + drain.deadline_ms) // 2
            plans.append(Plan(0, half, drain.deadline_ms))
        if (window := self.windows.get(agent_id)) is not None:
            lead = self._state.policy.drain_lead_ms
            plans.append(Plan(window.start_ms - lead, window.start_ms - lead // 2, window.start_ms))
        if not plans:
            return None
        return Plan(*(min(instants) for instants in zip(*plans, strict=True)))

    # ------------------------------------------------------------------------------------------------- windows

    def on_offers(self, event: OffersReceived) -> None:
        """Each offer shows whether its agent has a maintenance window."""
        for offer in event.offers:
            if offer.unavailable == self.windows.get(offer.agent_id):
                continue
            if offer.unavailable is None:
                del self.windows[offer.agent_id]
            else:
                self.windows[offer.agent_id] = offer.unavailable
            self._next_check = 0

    def on_inverse_offers(self, event: InverseOffersReceived) -> None:
        """Accept each inverse offer, unless its window would end a shard that does not start again."""
        accepted: list[str] = []
        declined: list[str] = []
        for inverse in event.inverse_offers:
            self.windows[inverse.agent_id] = inverse.unavailable
            refused = self._would_lose(inverse.agent_id, inverse.unavailable)
            (declined if refused else accepted).append(inverse.id)
        if accepted:
            self._state.emit(AcceptInverseOffers(tuple(accepted), _ACCEPT_MS))
        if declined:
            self._state.emit(DeclineInverseOffers(tuple(declined), _DECLINE_MS))
        self._next_check = 0

    def send_failed(self, event: SendFailed) -> None:
        """Send an answer again if it is unknown whether Mesos has received it.

        Without an answer, Mesos does not ask again.
        """
        answer = isinstance(event.call, AcceptInverseOffers | DeclineInverseOffers)
        if answer and self._state.connected and not event.certain:
            self._state.emit(event.call)

    def agent_lost(self, agent_id: str, at: int) -> None:
        self.windows.pop(agent_id, None)  # if the agent comes back, its offers announce the window again

    def _would_lose(self, agent_id: str, window: Window) -> bool:
        return any(self._ends_with_agent(task, window) for task in self._on({agent_id}))

    def _ends_with_agent(self, task: Task, window: Window) -> bool:
        job = self._state.jobs.get(task.job)
        if job is None or task.kill_ms or self._state.firings[task.firing_id].cause is Cause.DAEMON or job.failover:
            return False
        return not job.timeout_ms or (task.started_ms or task.created_ms) + job.timeout_ms > window.start_ms

    def _on(self, agent_ids: Container[str]) -> list[Task]:
        """The tasks of shards on these agents. Placeholder tasks are left out: `WarmExecutors` ends them."""
        return [task for task in self._state.tasks.values() if task.agent_id in agent_ids and not task.placeholder]

    # -------------------------------------------------------------------------------------------------- operators

    def drain(self, event: DrainAgent) -> None:
        """Raises NotFound or Conflict."""
        agent_id = self._known(event.agent)
        deadline = event.deadline_ms or event.at + self._state.policy.drain_lead_ms
        before = self._state.drains.get(agent_id)
        since = before.since_ms if before is not None else event.at
        self._put(agent_id, Drain(agent_id, since, deadline, cut(event.reason)))
        why = f": {event.reason}" if event.reason else ""
        self._state.publish(event.at, Topic.CLUSTER, f"agent {agent_id} is being drained" + why)
        self._next_check = 0

    def undrain(self, event: UndrainAgent) -> None:
        """Raises NotFound or Conflict."""
        agent_id = self._known(event.agent)
        if agent_id not in self._state.drains:
            return
        self._put(agent_id, None)
        self._state.publish(event.at, Topic.CLUSTER, f"the drain of agent {agent_id} is over")
        self._next_check = 0

    def _put(self, agent_id: str, drain: Drain | None) -> None:
        if drain is None:
            self._state.delete(Kind.DRAIN, agent_id)
        else:
            self._state.put(Kind.DRAIN, agent_id, drain)

    def _known(self, name: str) -> str:
        """The id of the agent with this id or host name. Raises NotFound, or Conflict if several have the name."""
        agents = self._state.cluster.agents
        if name in agents or name in self._state.drains:
            return name
        found = [entry.id for entry in agents.values() if entry.hostname == name and not entry.lost]
        if not found:
            problem = Told(f"no agent {name[:200]} is known", "no_agent", agent=name[:200])
            raise NotFound(problem, field="agentId", fix=shown_by("jobcloud cluster", "lists them"))
        if len(found) > 1:
            problem = Told(f"{len(found)} agents are on {name}", "several_agents", agents=len(found), host=name)
            raise Conflict(problem, field="agentId", fix=choose(", ".join(found), "use an id: "))
        return found[0]

    # ----------------------------------------------------------------------------------------------------- time

    def next_wake(self, at: int) -> int | None:
        return self._next_check if self.windows or self._state.drains or self._state.cluster.cordoned else None

    def clock_set_back(self, at: int) -> None:
        self._next_check = 0

    def on_tick(self, at: int) -> None:
        """Cordon and uncordon agents, and move shards away from cordoned ones."""
        if at < self._next_check or self.next_wake(at) is None:
            return
        self._next_check = at + _CHECK_MS
        for agent_id in [one for one, window in self.windows.items() if window.end_ms and window.end_ms <= at]:
            del self.windows[agent_id]
        plans = {agent_id: self._plan(agent_id) for agent_id in (*self._state.drains, *self.windows)}
        cordoned = {agent_id: plan for agent_id, plan in plans.items() if plan is not None and plan.cordon_ms <= at}
        uncordoned = self._state.cluster.cordon(cordoned)
        if cordoned and self._state.connected:
            self._move(cordoned, at)
        if uncordoned:
            self._cycle.agents_uncordoned(at)

    def _move(self, cordoned: dict[str, Plan], at: int) -> None:
        there = self._on(cordoned)
        down = self._down({task.firing_id for task in there})
        for task in there:
            plan = cordoned[task.agent_id]
            if task.id in self._reconciliation.kills or task.state is TaskState.UNREACHABLE:
                continue
            firing, job = self._state.firings[task.firing_id], self._state.jobs.get(task.job)
            if job is None or not self._state.wanted(firing):
                continue
            if firing.cause is Cause.DAEMON:
                if at < plan.hurry_ms and down[firing.id] >= max(1, job.shard_count // _PART):
                    continue
                down[firing.id] += 1
                self._tasks.kill(task, at)
            elif at >= plan.deadline_ms and job.failover:
                self._tasks.move(task, at)
            else:
                continue
            self._state.publish_task(at, Topic.CLUSTER, task, "leaves its agent, which is being drained")

    def _down(self, firing_ids: Iterable[str]) -> Counter[str]:
        """For each of these firings, the number of its shards that have not ended and are not known to run.

        A shard that is being killed counts as one that is not known to run.
        """
        running = Counter(
            task.firing_id
            for task in self._state.tasks.values()
            if task.state is TaskState.RUNNING
            and task.id not in self._reconciliation.kills
            and task.id not in self._reconciliation.unconfirmed
        )
        firings = (self._state.firings[firing_id] for firing_id in firing_ids)
        unended = {firing.id: sum(not shard.state.ended for shard in firing.shards) for firing in firings}
        return Counter({firing_id: number - running[firing_id] for firing_id, number in unended.items()})

    def sweep(self, at: int) -> None:
        """Delete old drains of agents that are no longer known."""
        for drain in list(self._state.drains.values()):
            if at - drain.since_ms > _FORGET_MS and drain.agent_id not in self._state.cluster.agents:
                self._put(drain.agent_id, None)
