"""Agents to be emptied: by an operator of ours, or for a maintenance window that Mesos has announced.

Such an agent gets nothing new. Resident shards move away, a few of each job at a time while there is time, and all that
are left when half of it is gone. Transient shards may end; what still runs at the deadline is moved where the job fails
over, and left alone where it does not. That a resident was asked to leave is in its task's record, as with any other
kill; that a transient one was is not, or it would not start again: the next leader comes to the same decision, as the
operator's mark is stored and Mesos announces its windows anew.
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
    Topic,
    UndrainAgent,
)
from jobcloud.model import Cause, Drain, Offer, Task, TaskState, Window
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.state import State
from jobcloud.scheduler.tasks import Tasks

# How often it is looked whether something is to be moved, and which part of a job may move at once.
_STEP_MS = 1_000
_PART = 10
# How long an answer to an inverse offer holds: a "no" is looked at again soon.
_YES_MS = 60_000
_NO_MS = 5_000
# An operator's mark on an agent that nobody has seen since is forgotten after this.
_FORGET_MS = 30 * 86_400_000


class Closing(NamedTuple):
    """When an agent stops getting anything new, from when its residents leave in a hurry, and when all else does."""

    from_ms: int
    hurry_ms: int
    deadline_ms: int


class Drains:
    def __init__(self, state: State, reconciliation: Reconciliation, tasks: Tasks) -> None:
        self._state = state
        self._reconciliation = reconciliation
        self._tasks = tasks
        #: agent → the window that Mesos announces for it
        self.windows: dict[str, Window] = {}
        self._step_at = 0

    def begin(self) -> None:
        """A session with the master has begun: its offers and inverse offers tell of windows anew."""
        self.windows.clear()
        self._step_at = 0

    def closing(self, agent_id: str) -> Closing | None:
        """The plan for an agent that is to be emptied: of an operator's and Mesos' whichever comes first."""
        plans: list[Closing] = []
        if (drain := self._state.drains.get(agent_id)) is not None:
            half = (drain.since_ms + drain.deadline_ms) // 2
            plans.append(Closing(0, half, drain.deadline_ms))
        if (window := self.windows.get(agent_id)) is not None:
            lead = self._state.policy.drain_lead_ms
            plans.append(Closing(window.start_ms - lead, window.start_ms - lead // 2, window.start_ms))
        if not plans:
            return None
        return Closing(*(min(instants) for instants in zip(*plans, strict=True)))

    # ------------------------------------------------------------------------------------------------- what is told

    def on_offer(self, offer: Offer) -> None:
        """An offer tells whether its agent has a window."""
        if offer.unavailable == self.windows.get(offer.agent_id):
            return
        if offer.unavailable is None:
            del self.windows[offer.agent_id]
        else:
            self.windows[offer.agent_id] = offer.unavailable
        self._step_at = 0

    def on_inverse_offers(self, event: InverseOffersReceived) -> None:
        """Yes, unless the window would end a shard that nobody would start again."""
        yes: list[str] = []
        no: list[str] = []
        for inverse in event.inverse_offers:
            self.windows[inverse.agent_id] = inverse.unavailable
            (no if self._would_lose(inverse.agent_id, inverse.unavailable) else yes).append(inverse.id)
        if yes:
            self._state.emit(AcceptInverseOffers(tuple(yes), _YES_MS))
        if no:
            self._state.emit(DeclineInverseOffers(tuple(no), _NO_MS))
        self._step_at = 0

    def lose(self, agent_id: str) -> None:
        """The agent is away: should it return, its offers tell whether it has a window."""
        self.windows.pop(agent_id, None)

    def _would_lose(self, agent_id: str, window: Window) -> bool:
        return any(self._ends_with_agent(task, window) for task in self._on({agent_id}))

    def _ends_with_agent(self, task: Task, window: Window) -> bool:
        job = self._state.jobs.get(task.job)
        if job is None or task.kill_ms or self._state.firings[task.firing_id].cause is Cause.DAEMON or job.failover:
            return False
        return not job.timeout_ms or (task.started_ms or task.created_ms) + job.timeout_ms > window.start_ms

    def _on(self, agent_ids: Container[str]) -> list[Task]:
        """The tasks of shards on agents; keepers of executors leave by themselves."""
        return [task for task in self._state.tasks.values() if task.agent_id in agent_ids and not task.placeholder]

    # -------------------------------------------------------------------------------------------------- operators

    def drain(self, event: DrainAgent) -> None:
        """Raises NotFound or Conflict."""
        agent_id = self._known(event.agent)
        deadline = event.deadline_ms or event.at + self._state.policy.drain_lead_ms
        before = self._state.drains.get(agent_id)
        since = before.since_ms if before is not None else event.at
        self._put(agent_id, Drain(agent_id, since, deadline, event.reason))
        self._state.publish(event.at, Topic.CLUSTER, f"agent {agent_id} is to be emptied: {event.reason or 'drain'}")
        self._step_at = 0

    def undrain(self, event: UndrainAgent) -> None:
        """Raises NotFound or Conflict."""
        agent_id = self._known(event.agent)
        if agent_id not in self._state.drains:
            return
        self._put(agent_id, None)
        self._state.publish(event.at, Topic.CLUSTER, f"agent {agent_id} gets tasks again")
        self._step_at = 0

    def _put(self, agent_id: str, drain: Drain | None) -> None:
        if drain is None:
            self._state.delete(Kind.DRAIN, agent_id)
        else:
            self._state.put(Kind.DRAIN, agent_id, drain)

    def _known(self, name: str) -> str:
        """The id of the agent with this id or host name. Raises NotFound, or Conflict where several go by the name."""
        agents = self._state.cluster.agents
        if name in agents or name in self._state.drains:
            return name
        found = [entry.id for entry in agents.values() if entry.hostname == name and not entry.lost]
        if not found:
            raise NotFound(f"no agent {name[:200]} is known", field="agentId", fix="`jobcloud cluster` lists them")
        if len(found) > 1:
            raise Conflict(f"{len(found)} agents are on {name}", field="agentId", fix=f"use an id: {', '.join(found)}")
        return found[0]

    # ----------------------------------------------------------------------------------------------------- time

    def next_wake(self) -> int | None:
        """When the next look is due, if any agent is to be emptied now or later."""
        return self._step_at if self.windows or self._state.drains or self._state.cluster.closed else None

    def clock_was_set_back(self) -> None:
        self._step_at = 0

    def step(self, at: int) -> bool:
        """Close and open agents for placements; ask shards that should leave to do so. Whether some agent opened."""
        if at < self._step_at or self.next_wake() is None:
            return False
        self._step_at = at + _STEP_MS
        for agent_id in [one for one, window in self.windows.items() if window.end_ms and window.end_ms <= at]:
            del self.windows[agent_id]
        plans = {agent_id: self.closing(agent_id) for agent_id in (*self._state.drains, *self.windows)}
        closed = {agent_id: plan for agent_id, plan in plans.items() if plan is not None and plan.from_ms <= at}
        opened = self._state.cluster.close_agents(closed)
        if closed and self._state.connected:
            self._move(closed, at)
        return opened

    def _move(self, closed: dict[str, Closing], at: int) -> None:
        there = self._on(closed)
        unsettled = self._unsettled({task.firing_id for task in there})
        for task in there:
            plan = closed[task.agent_id]
            if task.id in self._reconciliation.kills or task.state is TaskState.UNREACHABLE:
                continue
            firing, job = self._state.firings[task.firing_id], self._state.jobs.get(task.job)
            if job is None or not self._state.wanted(firing):
                continue
            if firing.cause is Cause.DAEMON:
                if at < plan.hurry_ms and unsettled[firing.id] >= max(1, job.shard_count // _PART):
                    continue
                unsettled[firing.id] += 1
                self._tasks.kill(task, at)
            elif at >= plan.deadline_ms and job.failover:
                self._reconciliation.send_kill(task, at)
            else:
                continue
            self._state.publish_task(at, Topic.CLUSTER, task, "leaves its agent, which is to be emptied")

    def _unsettled(self, firing_ids: Iterable[str]) -> Counter[str]:
        """How many shards of each of these firings have yet to run, or to run again, as far as Mesos has said so."""
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
        for drain in list(self._state.drains.values()):
            if at - drain.since_ms > _FORGET_MS and drain.agent_id not in self._state.cluster.agents:
                self._put(drain.agent_id, None)
