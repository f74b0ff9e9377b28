"""Agents on which the attempts of a job fail again and again are avoided for a while.

Only this leader's memory counts, so a new leader begins with nothing. A failure is forgotten after `Policy.avoid_ms`,
and all failures of a job on an agent with its next success there. If a job fails on many agents, or if no other agent
is left on which it has not failed, the job itself is the likely cause, and none is avoided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import NamedTuple

from jobcloud.config import Job
from jobcloud.model import End, Firing, Task
from jobcloud.scheduler.cluster import Request
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.places import away_from
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.sentences import Parameter

# The failures on this number of agents are remembered of a job. A job that fails on more is at fault itself.
_MAX_AGENTS = 5
_MAX_JOBS = 10_000
_FAILURES = (End.FAILED, End.LOST, End.NOT_STARTED)


class _Failures(NamedTuple):
    """How many attempts in a row failed on an agent, and when the last one did."""

    number: int
    last_ms: int


class FailingAgents(Part):
    def __init__(self, state: State) -> None:
        super().__init__(state)
        #: job → its failures by agent, the oldest first
        self._failures: dict[str, dict[str, _Failures]] = {}
        #: the next instant at which an agent may be used again; None: never
        self._next: int | None = None

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        known = self._failures.get(task.job)
        if ending.end is End.SUCCEEDED:
            if known is not None and known.pop(task.agent_id, None) is not None:
                self._forget_if_empty(task.job)
            return
        if ending.end not in _FAILURES or not ending.agent_at_fault or task.kill_ms or task.placeholder:
            return
        job = self._state.jobs.get(task.job)
        if job is None or not job.avoid_after or (known is None and len(self._failures) >= _MAX_JOBS):
            return
        known = self._failures.setdefault(task.job, {})
        before = known.pop(task.agent_id, None)
        known[task.agent_id] = _Failures((before.number if before is not None else 0) + 1, at)
        if len(known) > _MAX_AGENTS + 1:
            del known[next(iter(known))]
        until = at + self._state.policy.avoid_ms
        self._next = until if self._next is None else min(self._next, until)

    def _forget_if_empty(self, job: str) -> None:
        if not self._failures[job]:
            del self._failures[job]

    def avoided(self, job: Job) -> dict[str, int]:
        """The agents that the job avoids, each with the instant at which its failures there are forgotten."""
        known = self._failures.get(job.key)
        if known is None or not job.avoid_after or len(known) > _MAX_AGENTS:
            return {}
        found = {agent: each for agent, each in known.items() if each.number >= job.avoid_after}
        if not found or not self._state.cluster.usable_besides(known, self._state.request(job)):
            return {}
        return {agent: each.last_ms + self._state.policy.avoid_ms for agent, each in found.items()}

    def request(self, job: Job, request: Request) -> Request:
        """The request of the job's shards, without the agents that the job avoids."""
        if job.key not in self._failures:
            return request
        agents = tuple(sorted(self.avoided(job)))
        return request._replace(where=away_from(request.where, agents)) if agents else request

    # ------------------------------------------------------------------------------------------------- time

    def next_wake(self, at: int) -> int | None:
        return self._next

    def on_tick(self, at: int) -> None:
        if self._next is None or at < self._next:
            return
        oldest = at - self._state.policy.avoid_ms
        for job, known in list(self._failures.items()):
            for agent in [agent for agent, each in known.items() if each.last_ms <= oldest]:
                del known[agent]
            self._forget_if_empty(job)
        last = [each.last_ms for known in self._failures.values() for each in known.values()]
        self._next = min(last) + self._state.policy.avoid_ms if last else None
        self._state.request_cycle()

    def clock_set_back(self, at: int) -> None:
        self._failures = {
            job: {agent: each._replace(last_ms=min(each.last_ms, at)) for agent, each in known.items()}
            for job, known in self._failures.items()
        }
        self._next = at if self._failures else None

    # ------------------------------------------------------------------------------------------------- reading

    def job_changed(self, job: Job) -> None:
        """The new configuration may not fail."""
        self._failures.pop(job.key, None)

    def job_removed(self, name: str) -> None:
        self._failures.pop(name, None)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterable[Reason]:
        if head is None or job.key not in self._failures or not self._state.queue.startable(head.id):
            return
        for agent_id, until in self.avoided(job).items():
            entry, number = self._state.cluster.agents.get(agent_id), self._failures[job.key][agent_id].number
            name = entry.hostname if entry is not None else agent_id
            text = f"agent {name} is avoided after {number} failures there"
            given: dict[str, Parameter] = {"host": name, "failures": number}
            yield Reason("avoided", text, hosts=1, waiting_helps=True, at=until, case="failures", parameters=given)

    def indexes(self) -> Mapping[str, Sized]:
        return {"failing agents": self._failures}

    def validate(self) -> None:
        assert all(self._failures.values()), "a job without failures is remembered"
        assert not self._failures or self._next is not None, "failures are never forgotten"
        assert self._failures.keys() <= self._state.jobs.keys(), "failures of a removed job are remembered"
