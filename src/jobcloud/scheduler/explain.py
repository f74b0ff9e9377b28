"""Explanations for people: why a job's shards do not run, and what each agent holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from jobcloud.config import Job, JobKind, Resources
from jobcloud.model import Drain, End, Firing, Shard, ShardState, Window, cut, pause_key
from jobcloud.scheduler.attempts import end_of
from jobcloud.scheduler.cycle import Cycle
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Hooks
from jobcloud.scheduler.reason import Reason, amount
from jobcloud.scheduler.state import State
from jobcloud.scheduler.timetable import Timetable, rfc3339, utc
from jobcloud.sentences import Parameter

# The codes of the reasons that do not depend on a due firing, the most important first.
_STANDING = (
    "clock",
    "calendar",
    "quota",
    "pool",
    "gang",
    "unreachable",
    "rollout_stopped",
    "rolling",
    "dead",
    "start_failed",
    "executors",
    "avoided",
    "joined",
)
# Those of them that keep all shards of a job from starting.
_HOLDING = ("start_failed",)
# The states of shards that did not succeed, the worst first.
_FAILURES = (ShardState.DEAD, ShardState.FAILED, ShardState.KILLED)
_HOW = {
    End.SUCCEEDED: "succeeded", End.KILLED: "was killed", End.LOST: "was lost", End.NOT_STARTED: "did not start",
    End.INVALID: "was refused by Mesos", End.REPLACED: "was given up",
}  # fmt: skip
_WHY_BYTES = 500


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of a job. `waiting` and `active` count the shards of its firings that may run now.

    `behind`: the number of firings that wait behind those. `reasons`: why shards do not run, the most important first.
    """

    job: str
    waiting: int
    active: int
    behind: int
    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> str:
        return self.reasons[0].text if self.reasons else "it is about to be placed"


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent: the resources it offers now, and those that our tasks and executors use there.

    `whole` is the sum of both when the agent was last offered; before the first offer it equals `claimed`. `drain` is
    an operator's request to drain the agent, `window` the maintenance that Mesos announces. `cordoned`: the agent gets
    no new tasks because of one of the two. `roles`: the roles of the offers held.
    """

    id: str
    hostname: str
    address: str
    attributes: tuple[tuple[str, str], ...]
    offered: Resources
    claimed: Resources
    whole: Resources
    offers: int
    executors: tuple[str, ...]
    lost: bool
    tasks: int = 0
    drain: Drain | None = None
    window: Window | None = None
    cordoned: bool = False
    roles: tuple[str, ...] = ()


def agent_views(state: State, windows: dict[str, Window]) -> list[AgentView]:
    """Every known agent. `windows` holds the announced maintenance by agent."""
    cluster = state.cluster
    executors: dict[str, list[str]] = {}
    for executor in state.executors.values():
        executors.setdefault(executor.agent_id, []).append(executor.id)
    tasks = Counter(task.agent_id for task in state.tasks.values() if not task.placeholder)
    return [
        AgentView(
            entry.id,
            entry.hostname,
            entry.address,
            entry.attributes,
            entry.offered,
            cluster.claimed(entry),
            cluster.whole(entry) if any(cluster.whole(entry)) else cluster.claimed(entry),
            len(entry.offers),
            tuple(executors.get(entry.id, ())),
            entry.lost,
            tasks[entry.id],
            state.drains.get(entry.id),
            windows.get(entry.id),
            entry.id in cluster.cordoned,
            tuple(sorted({offer.role for offer in entry.offers.values()})),
        )
        for entry in cluster.agents.values()
    ]


class Explainer:
    """Explains jobs. Reads the state and the parts, and changes nothing."""

    def __init__(self, state: State, hooks: Hooks, firings: Firings, timetable: Timetable, cycle: Cycle) -> None:
        self._state = state
        self._hooks = hooks
        self._firings = firings
        self._timetable = timetable
        self._cycle = cycle

    def headline(self, name: str, at: int) -> Reason | None:
        """The first reason of `explain`, with less work. None: the job is about to be placed. Raises NotFound."""
        job, queue = self._state.ad_hoc.get(name) or self._state.job(name), self._state.queue
        running = queue.running(name) or queue.unfinished(name)[:1]  # all shards of this one are held
        head = next((firing for firing in running if queue.startable(firing.id)), running[0] if running else None)
        return next(self._reasons(job, head, at), None)

    def explain(self, name: str, at: int) -> Explanation:
        """Why a job's shards are, or are not, running. Raises NotFound."""
        job, queue = self._state.ad_hoc.get(name) or self._state.job(name), self._state.queue
        running = queue.running(name)
        waiting = {firing.id: len(queue.startable(firing.id)) for firing in running}
        active = sum(shard.state is ShardState.ACTIVE for firing in running for shard in firing.shards)
        behind = len(queue.unfinished(name)) - len(running)
        shown = running or queue.unfinished(name)[:1]  # all shards of this one are held
        head = next((firing for firing in running if waiting[firing.id]), shown[0] if shown else None)
        return Explanation(name, sum(waiting.values()), active, behind, tuple(self._reasons(job, head, at)))

    def held(self, job: Job, at: int) -> tuple[Reason, ...]:
        """The reasons why no shard of a job may start now, even if agents have room."""
        standing = [reason for reasons in self._hooks.reasons for reason in reasons(job, None, at)]
        return (*self._held_by_configuration(job), *(reason for reason in standing if reason.code in _HOLDING))

    def _reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        yield from self._held_by_configuration(job)
        standing = [reason for reasons in self._hooks.reasons for reason in reasons(job, head, at)]
        yield from sorted(standing, key=lambda reason: _STANDING.index(reason.code))
        waiting = self._state.queue.startable(head.id) if head is not None else []
        if head is None and job.ad_hoc:
            yield Reason("not_due", "the ad-hoc run has ended", case="ended")
        elif head is None:
            due = self._timetable.due.get(job.key)
            text = "no firing is due now" if due else "no firing is due, now or later"
            yield Reason("not_due", text, at=due or 0, case="" if due else "never")
        elif not waiting:
            running = _running(head)
            if running.case or not self._state.queue.held(head.id):
                yield running
        else:
            yield from self._no_offers(job.team)
            yield from self._backing_off(head, at)
            yield from self._avoiding(waiting, at)
            yield from self._cycle.lacks(job)
            yield from self._cordoned()
        if job.delay_ms and (unfinished := self._state.queue.unfinished(job.key)):
            last, seconds = unfinished[-1].id, amount(job.delay_ms)
            text = f"the next run by @after fires {seconds} s after the end of {last}"
            yield Reason("after_end", text, waiting_helps=True, parameters={"run": last, "seconds": seconds})
        yield from self._last_run(job)
        if (backfill := self._state.backfills.get(job.key)) is not None:
            text = f"{len(backfill.times)} fire times wait for its backfill"
            yield Reason("backfill", text, waiting_helps=True, parameters={"times": len(backfill.times)})

    def _held_by_configuration(self, job: Job) -> Iterator[Reason]:
        if job.app_key in self._state.disabled_apps:
            yield Reason("app_disabled", f"app {job.app_key} is disabled", parameters={"app": job.app_key})
        if self._state.job_states[job.key].disabled:
            yield Reason("job_disabled", "the job is disabled")
        for key in self._state.pauses_of(job.key):
            since_ms = self._state.pauses[key].since_ms
            what = {pause_key(job=job.key): "the job", pause_key(): "everything"}.get(key, f"app {job.app_key}")
            case = {pause_key(job=job.key): "job", pause_key(): "cluster"}.get(key, "app")
            given: dict[str, Parameter] = {"since": rfc3339(since_ms)}
            if case == "app":
                given["app"] = job.app_key
            text = f"{what} is paused since {utc(since_ms)}: it starts nothing until it is resumed"
            yield Reason("paused", text, case=case, parameters=given)
        if job.key in self._state.faults:
            yield Reason("fault", self._state.faults[job.key], parameters={"message": self._state.faults[job.key]})

    def _no_offers(self, team: str) -> Iterator[Reason]:
        cluster = self._state.cluster
        if not self._state.connected:
            yield Reason("disconnected", "there is no connection to a Mesos master", waiting_helps=True)
        elif not cluster.held_of(cluster.group_of_team(team)):
            role = cluster.team_roles.get(team)
            of_role = f" of the Mesos role {role}" if role else ""
            text = f"no offer{of_role} is held; offers have been requested"
            given: dict[str, Parameter] = {"role": role} if role else {}
            yield Reason("no_offers", text, waiting_helps=True, case="role" if role else "", parameters=given)

    def _backing_off(self, firing: Firing, at: int) -> Iterator[Reason]:
        """The back-off of the firing's shards that ends last."""
        waiting = [
            (shard.not_before_ms, -item)
            for item, shard in enumerate(firing.shards)
            if shard.state is ShardState.WAITING and shard.not_before_ms > at
        ]
        if not waiting:
            return
        until, item = max(waiting)
        shard, others = firing.shards[-item], len(waiting) - 1
        more = f"; {others} other shards wait too" if others else ""
        given: dict[str, Parameter] = {"item": -item, "others": others}
        if shard.attempt:
            what = f"shard {-item} waits for attempt {shard.attempt + 1}: {_failure(shard)}{more}"
            given |= {"next": shard.attempt + 1, **_failed(shard)}
        else:
            what = f"shard {-item} waits: {cut(shard.message, _WHY_BYTES)}{more}"
            given |= {"message": cut(shard.message, _WHY_BYTES)}
        case = "failed" if shard.attempt else ""
        yield Reason("back_off", what, waiting_helps=True, at=until, case=case, parameters=given)

    def _last_run(self, job: Job) -> Iterator[Reason]:
        """Why the last run of the job failed, if it failed.

        A resident job has no such reason, because its failed shards start again.
        """
        last = self._firings.last_ended(job.key) if job.kind is not JobKind.DAEMON else None
        failed = [
            (_FAILURES.index(shard.state), item)
            for item, shard in enumerate(last.shards if last is not None else ())
            if shard.state in _FAILURES
        ]
        if last is None or not failed:
            return
        _, item = min(failed)
        shard = last.shards[item]
        what = f"its listener, called {step} the run," if (step := last.step(item)) else f"shard {item}"
        others = len(failed) - 1
        more = f"; {others} other shards did not succeed" if others else ""
        # If a shard was killed while it waited, its `end` is None.
        waited = shard.message if shard.state is ShardState.KILLED and shard.end is None else ""
        text = f"the last run, {last.id}: {what} is {shard.state}: {waited or _failure(shard)}{more}"
        given: dict[str, Parameter] = {
            "run": last.id, "item": item, "step": step or "", "state": str(shard.state), "others": others,
            **({"message": waited} if waited else _failed(shard)),
        }  # fmt: skip
        yield Reason("last_run", text, waiting_helps=True, case="" if waited else "failed", parameters=given)

    def _avoiding(self, waiting: list[Shard], at: int) -> Iterator[Reason]:
        cluster = self._state.cluster
        avoided = [shard for shard in waiting if shard.avoid_ms > at and cluster.avoidable(shard.agent_id)]
        if avoided:
            until = max(shard.avoid_ms for shard in avoided)
            hosts = ", ".join(sorted({shard.hostname for shard in avoided})[:5])
            text = f"kept away from {hosts}: attempts were lost there"
            yield Reason("avoided", text, waiting_helps=True, at=until, parameters={"hosts": hosts})

    def _cordoned(self) -> Iterator[Reason]:
        if number := len(self._state.cluster.cordoned & self._state.cluster.agents.keys()):
            text = f"{number} agents are being drained and get no new tasks"
            yield Reason("drained", text, hosts=number, waiting_helps=True, parameters={"agents": number})


def _failure(shard: Shard) -> str:
    """How the last attempt of a shard ended."""
    place = f" on {shard.hostname}" if shard.hostname else ""
    why = ": ".join(part for part in (shard.outcome.cause, cut(shard.message, _WHY_BYTES)) if part)
    how = _HOW.get(shard.end or end_of(shard), "failed")
    return f"attempt {shard.attempt}{place} {how}" + (f": {why}" if why else "")


def _failed(shard: Shard) -> dict[str, Parameter]:
    """The parameters that say what `_failure` says."""
    return {
        "attempt": shard.attempt, "host": shard.hostname, "end": str(shard.end or end_of(shard)),
        "cause": shard.outcome.cause, "message": cut(shard.message, _WHY_BYTES),
    }  # fmt: skip


def _running(firing: Firing) -> Reason:
    given: dict[str, Parameter] = {"run": firing.id}
    for item, shard in enumerate(firing.shards):
        if shard.state is ShardState.ACTIVE and (step := firing.step(item)):
            text = f"the listener {step} {firing.id} is being called"
            return Reason("running", text, case="listener", parameters=given | {"step": step})
    return Reason("running", f"all shards of {firing.id} are placed", parameters=given)
