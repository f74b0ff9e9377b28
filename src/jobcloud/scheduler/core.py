"""The scheduler's decisions: events go in, effects come out, and nothing here touches the world.

One object owns the state; `handle` is the only way to change it. Launching happens on a Tick: every other event only
notes that there may be something to launch, and `next_wake` then says "now", so that a burst of events makes one
round.

The parts, each on top of those before it: the book (what is known and about to be done), firings, the timetable,
inquiries (what Mesos is asked about tasks), the fleet (executors), what is overdue, tasks, roll-outs, rounds (offers
and launches), commands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from jobcloud.match import AnyMatcher, Matcher
from jobcloud.messages import (
    AgentLost,
    Disconnected,
    DrainAgent,
    Effect,
    Event,
    ExecutorLost,
    ForgetTask,
    FrameworkRemoved,
    InverseOffersReceived,
    KillTask,
    OfferRescinded,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    Resubscribe,
    Retry,
    SendFailed,
    SetAppEnabled,
    SetJobEnabled,
    StatusReceived,
    Subscribed,
    Tick,
    Topic,
    Trigger,
    UndrainAgent,
)
from jobcloud.model import MAX_WAITING, Firing, Job, PartitionPolicy, ShardState, TaskState
from jobcloud.scheduler import recovery, status
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.commands import Commands
from jobcloud.scheduler.cycle import Cycle
from jobcloud.scheduler.drains import Drains
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.explain import AgentView, Explanation, Reason
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.recovery import Stored as Stored
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.rollouts import Rollouts
from jobcloud.scheduler.state import Policy as Policy
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End
from jobcloud.scheduler.tasks import Tasks
from jobcloud.scheduler.timeouts import Timeouts
from jobcloud.scheduler.timetable import Timetable
from jobcloud.scheduler.warm_executors import WarmExecutors


class Scheduler:
    """The state of one leader and what it decides.

    `epoch` is unique to this leader; with a counter it makes every id. The same stored state, epoch and events give
    the same effects. What readers may look at, and must not change, are the tables of the book and its queue.
    """

    def __init__(self, policy: Policy, stored: Stored, epoch: int, at: int, matcher: type[AnyMatcher] = Matcher):
        self.policy = policy
        self.epoch = epoch
        self._state = state = State(policy, stored, epoch, at, matcher)
        self.apps = state.apps
        self.jobs = state.jobs
        self.job_states = state.job_states
        self.disabled_apps = state.disabled_apps
        self.firings = state.firings
        self.tasks = state.tasks
        self.executors = state.executors
        self.drains = state.drains
        self.faults = state.faults
        self.cluster = state.cluster
        self.queue = state.queue
        self._firings = Firings(state)
        self._reconciliation = Reconciliation(state)
        self._executors = Executors(state)
        self._circuit_breakers = CircuitBreakers(state)
        self._warm_executors = WarmExecutors(state, self._executors, self._circuit_breakers)
        self._timeouts = Timeouts(state, self._reconciliation)
        self._tasks = Tasks(
            state,
            self._firings,
            self._reconciliation,
            self._executors,
            self._warm_executors,
            self._circuit_breakers,
            self._timeouts,
        )
        self._drains = Drains(state, self._reconciliation, self._tasks)
        self._timetable = Timetable(state, self._firings, self._tasks)
        self._cycle = Cycle(
            state,
            self._firings,
            self._reconciliation,
            self._executors,
            self._tasks,
            self._warm_executors,
            self._circuit_breakers,
        )
        self._rollouts = Rollouts(state, self._firings, self._reconciliation, self._tasks)
        self._commands = Commands(
            state, self._firings, self._timetable, self._reconciliation, self._executors, self._tasks, self._cycle,
            self._warm_executors, self._rollouts,
        )  # fmt: skip
        self._sweep_at = 0
        self._ticked = at
        self._handlers: dict[type, Callable[[Any], None]] = {
            Tick: self._on_tick,
            Subscribed: self._on_subscribed,
            Disconnected: self._on_disconnected,
            FrameworkRemoved: self._on_framework_removed,
            OffersReceived: self._on_offers,
            InverseOffersReceived: self._drains.on_inverse_offers,
            OfferRescinded: self._cycle.on_rescind,
            StatusReceived: self._tasks.on_status,
            AgentLost: self._on_agent_lost,
            ExecutorLost: self._on_executor_lost,
            SendFailed: self._cycle.on_send_failed,
            PutApp: self._commands.put_app,
            RemoveApp: self._commands.remove_app,
            SetAppEnabled: self._commands.set_app_enabled,
            PutJob: self._commands.put_job,
            RemoveJob: self._commands.remove_job,
            SetJobEnabled: self._commands.set_job_enabled,
            Trigger: self._commands.trigger,
            KillTask: self._commands.kill_task,
            ForgetTask: self._commands.forget_task,
            Retry: self._commands.retry,
            DrainAgent: self._drains.drain,
            UndrainAgent: self._drains.undrain,
        }
        self._restore(at)

    # ---------------------------------------------------------------------------------------------- the one door

    def handle(self, event: Event) -> list[Effect]:
        """Take one event and return what is to be done, in performing order.

        Raises a Refused where a command is turned down; nothing has changed then.
        """
        self._handlers[type(event)](event)
        return self._state.flush()

    def next_wake(self, at: int) -> int | None:
        """The next instant at which a Tick has something to do; `at` itself where it has now."""
        if self._warm_executors.look or (self._state.connected and self._cycle.wants_tick(at)):
            return at
        wakes = self._reconciliation.wakes() if self._state.connected else []
        if (oldest := self.cluster.oldest_received_ms()) is not None:
            wakes.append(oldest + self.policy.offer_hold_ms + 1)
        parts = (
            self._timetable, self.queue, self._drains, self._tasks, self._warm_executors, self._circuit_breakers,
            self._rollouts, self._timeouts,
        )  # fmt: skip
        wakes += (wake for part in parts if (wake := part.next_wake()) is not None)
        return max(at, min(wakes)) if wakes else None

    # --------------------------------------------------------------------------------------------------- reading

    @property
    def connected(self) -> bool:
        return self._state.connected

    @property
    def framework_id(self) -> str:
        return self._state.framework_id

    def enabled(self, job: str) -> bool:
        """Whether neither the job nor its app is disabled."""
        return self._state.enabled(job)

    def next_firing(self, job: str) -> int | None:
        """When the job is due next; None where it is not scheduled or never fires again."""
        return self._timetable.due.get(job)

    def agents(self) -> list[AgentView]:
        """The agents known, with what they offer and what we use there."""
        executors: dict[str, list[str]] = {}
        for executor in self.executors.values():
            executors.setdefault(executor.agent_id, []).append(executor.id)
        tasks = Counter(task.agent_id for task in self.tasks.values() if not task.placeholder)
        return [
            AgentView(
                entry.id,
                entry.hostname,
                entry.address,
                entry.attributes,
                entry.offered,
                self.cluster.claimed(entry),
                self.cluster.whole(entry) if any(self.cluster.whole(entry)) else self.cluster.claimed(entry),
                len(entry.offers),
                tuple(executors.get(entry.id, ())),
                entry.lost,
                tasks[entry.id],
                self._state.drains.get(entry.id),
                self._drains.windows.get(entry.id),
                entry.id in self.cluster.closed,
            )
            for entry in self.cluster.agents.values()
        ]

    def warm_executors(self, app: str) -> int:
        """How many executors of the app's present version are kept and up."""
        return self._warm_executors.warm(app)

    def lacking_executors(self, app: str, at: int) -> Reason | None:
        """Why fewer executors of an app are up than are to be kept; None where that is not so."""
        return self._warm_executors.lack(app, at)

    def story(self, task_id: str) -> list[Publish]:
        """What is remembered of one task, oldest first."""
        return [notice for notice in self._state.notices if notice.task_id == task_id]

    def explain(self, name: str, at: int) -> Explanation:
        """Why a job's shards are, or are not, running. Raises NotFound."""
        job = self._state.job(name)
        running = self.queue.running(name)
        waiting = {firing.id: len(self.queue.startable(firing.id)) for firing in running}
        active = sum(shard.state is ShardState.ACTIVE for firing in running for shard in firing.shards)
        behind = len(self.queue.unfinished(name)) - len(running)
        head = next((firing for firing in running if waiting[firing.id]), running[0] if running else None)
        return Explanation(name, sum(waiting.values()), active, behind, tuple(self._reasons(job, head, at)))

    def plan(self, at: int) -> list[tuple[str, int, str | None]]:
        """A dry run of the next round: (firing, item, agent or None) of every shard that may start. Claims nothing."""
        entries = [e for e in self._cycle.eligible(at) if self.jobs[self.firings[e.firing_id].job].app in self.apps]
        placements = self.cluster.rehearse(
            [self._state.request(self.jobs[self.firings[e.firing_id].job]) for e in entries]
        )
        return [(e.firing_id, e.item, agent) for e, agent in zip(entries, placements, strict=True)]

    def indexes(self) -> dict[str, Any]:
        """What is kept beside the stored records, by name: at rest, with no job left, each is empty."""
        return {
            "pending": self._reconciliation.pending, "kills": self._reconciliation.kills,
            "silent": self._reconciliation.silent, "unconfirmed": self._reconciliation.unconfirmed,
            "orphans": self._reconciliation.orphans,
            "unreachable": self._tasks.unreachable, "rollouts": self._rollouts.jobs,
            "overdue": self._timeouts.due,
            "load": self._executors.load, "gone": self._executors.gone, "idle": self._executors.idle,
            "history": self._firings.history, "dead": self._firings.dead,
            "due": self._timetable.due, "timers": self._timetable.timers,
            "plans": self._state.plans, "refusals": self._cycle.refusals, "faults": self.faults,
            "warm_executors": self._warm_executors.of_app, "circuit_breakers": self._circuit_breakers.open,
        }  # fmt: skip

    def validate(self) -> None:
        """Check every invariant that holds between events. Raises AssertionError naming the one that does not."""
        active = {
            (firing.id, item): shard
            for firing in self.firings.values()
            for item, shard in enumerate(firing.shards)
            if shard.state is ShardState.ACTIVE
        }
        for firing in self.firings.values():
            if firing.stepped:
                before, after = firing.shards[-2:]
                done = all(shard.state.ended for shard in firing.work)
                begun = any(shard.attempt for shard in firing.work)
                assert before.state is ShardState.FINISHED or not begun, f"{firing.id} began before its listener"
                idle = after.state in (ShardState.WAITING, ShardState.CANCELLED)
                assert done or idle, f"{firing.id} called its listener before its end"
        placeholders = [task for task in self.tasks.values() if task.placeholder]
        tasks = {(task.firing_id, task.item): task for task in self.tasks.values() if not task.placeholder}
        assert len(tasks) == len(self.tasks) - len(placeholders), "a shard has two tasks"
        kept = {task.id: task for of_app in self._warm_executors.of_app.values() for task in of_app.values()}
        assert kept == {task.id: task for task in placeholders}, "the keepers are not those that there are"
        places = {(task.agent_id, task.executor_id) for task in placeholders}
        assert len(places) == len(placeholders), "an executor has two keepers"
        for task in placeholders:
            assert executor_key(task.agent_id, task.executor_id) in self.executors, f"{task.id} has no executor"
        assert active.keys() == tasks.keys(), f"active shards and tasks differ: {active.keys() ^ tasks.keys()}"
        for place, task in tasks.items():
            assert active[place].task_id == task.id, f"{task.id} is not the task of its shard"
            assert executor_key(task.agent_id, task.executor_id) in self.executors, f"{task.id} has no executor"
        running: dict[tuple[str, int], list[Firing]] = {}
        for task in tasks.values():
            running.setdefault((task.job, task.item), []).append(self.firings[task.firing_id])
        for (name, item), found in running.items():
            current = name in self.jobs and found[0].generation == self.job_states[name].generation
            most = self.jobs[name].runs_at_once if current else MAX_WAITING  # as many as an older one had allowed
            assert len(found) <= most, f"{name}/{item} runs {len(found)} times"
            generations = {firing.generation for firing in found} - {recovery.NO_GENERATION}  # stand-ins are ending
            assert len(generations) <= 1, f"{name}/{item} runs old and new"
        for firing in self.firings.values():
            ended = all(shard.state.ended for shard in firing.shards)
            assert ended == bool(firing.ended_ms), f"{firing.id} is ended {firing.ended_ms} with {firing.shards}"
            assert (firing.id in self.queue) != ended, f"{firing.id} is not where it belongs"
            if self._firings.resident(firing.job) is firing:
                count = self.jobs[firing.job].shard_count
                assert not any(shard.state.ended for shard in firing.shards[:count]), f"{firing.id} lacks a shard"
                others = {shard.state for shard in firing.shards[count:]}
                assert ShardState.WAITING not in others, f"{firing.id} has too many shards"
        self._rollouts.validate()
        claims, holds = self.cluster.claim_count()
        assert claims == len(self.tasks), f"{claims} claims for {len(self.tasks)} tasks"
        assert self.cluster.matcher.claims() == claims + holds, "the matcher holds claims that nobody has"
        assert self._reconciliation.timed() | self._timeouts.due.keys() <= self.tasks.keys(), "a ghost is timed"
        assert not self._reconciliation.orphans.keys() & self.tasks.keys(), "a task of ours is a stray"
        away = {task.id for task in self.tasks.values() if task.state is TaskState.UNREACHABLE}
        assert self._tasks.unreachable.keys() == away, f"out of reach are {away}"
        loads = Counter(executor_key(task.agent_id, task.executor_id) for task in self.tasks.values())
        assert loads == self._executors.load, f"tasks per executor are {loads}, not {self._executors.load}"
        assert self._executors.gone <= self.executors.keys(), "an executor is gone twice"
        assert self._executors.idle.keys() == self.executors.keys() - loads.keys(), (
            "an executor is idle with tasks, or the reverse"
        )
        assert holds == len(self.executors), f"{holds} holds for {len(self.executors)} executors"
        self.cluster.validate()

    # ------------------------------------------------------------------------------------------------- time

    def _on_tick(self, event: Tick) -> None:
        at = event.at
        if at < self._ticked:
            self._clock_was_set_back(at)
        self._ticked = at
        self._timetable.fire_due(at)
        expired = (
            self.queue.expire_backoffs(at),
            self._warm_executors.expire_backoffs(at),
            self._circuit_breakers.expire_backoffs(at),
        )
        if any(expired):
            self._state.request_cycle()
        if self._drains.step(at):
            self._cycle.reopen(at)
        self._tasks.replace_unreachable(at)
        self._rollouts.step(at)
        self._timeouts.step(at)
        for task in self._warm_executors.review():
            self._tasks.kill(task, at)
        self._reconciliation.ask_again(at)
        self._cycle.round(at)  # before anything is given back: what is due now may need it
        self._cycle.give_back(at)
        self._cycle.rest(at)
        self._sweep(at)

    def _clock_was_set_back(self, at: int) -> None:
        """Waits are counted from now; firings stay as they are: none is due twice."""
        self._reconciliation.clock_was_set_back(at)
        self._warm_executors.clock_was_set_back(at)
        self._circuit_breakers.clock_was_set_back(at)
        self._cycle.clock_was_set_back(at)
        self._drains.clock_was_set_back()
        self._rollouts.clock_was_set_back()
        self._executors.clock_was_set_back(at)
        self._tasks.look_again()
        self.cluster.age_offers_from(at)
        self._firings.shorten_back_offs(at)
        self._state.request_cycle()

    # ------------------------------------------------------------------------------------------------- the session

    def _on_subscribed(self, event: Subscribed) -> None:
        self._state.connected = True
        self.cluster.drop_all_offers()
        self._cycle.begin()
        self._drains.begin()
        if event.framework_id != self._state.framework_id:
            self._state.set_framework_id(event.framework_id)
        self._reconciliation.begin(event.at)
        self._timeouts.begin()
        self._rollouts.begin()
        self._state.publish(event.at, Topic.CLUSTER, f"subscribed to {event.master} as {event.framework_id}")

    def _on_offers(self, event: OffersReceived) -> None:
        if not self.connected:
            return  # of a session that is over: void
        self._cycle.on_offers(event)
        for offer in event.offers:
            self._drains.on_offer(offer)

    def _on_disconnected(self, event: Disconnected) -> None:
        self._state.connected = False
        self.cluster.drop_all_offers()
        self._state.publish(event.at, Topic.CLUSTER, f"disconnected: {event.reason}")

    def _on_framework_removed(self, event: FrameworkRemoved) -> None:
        """Mesos has killed all there was; the id is void. Start over as a new framework."""
        self._state.connected = False
        self.cluster.drop_all_offers()
        self._state.set_framework_id("")
        for task in list(self.tasks.values()):
            lost = status.TABLE[task.state, "TASK_LOST"]
            assert isinstance(lost, End)
            self._tasks.end(task, lost, f"Mesos removed the framework: {event.reason}", event.at)
        self._reconciliation.removed()
        for executor in list(self.executors.values()):
            self._executors.forget(executor)
        self._state.emit(Resubscribe())
        self._state.publish(event.at, Topic.CLUSTER, f"Mesos removed the framework: {event.reason}")

    def _sweep(self, at: int) -> None:
        """Once in a while drop what is no longer of use, so that memory does not grow with time."""
        if self._sweep_at - self.policy.sweep_ms <= at < self._sweep_at:
            return
        self._sweep_at = at + self.policy.sweep_ms
        self._executors.sweep(at)
        self._circuit_breakers.sweep()
        self._cycle.sweep(at)
        self._drains.sweep(at)
        self._timetable.sweep()

    def _on_agent_lost(self, event: AgentLost) -> None:
        self.cluster.lose_agent(event.agent_id)
        self._drains.lose(event.agent_id)
        self._reconciliation.lose(event.agent_id)
        for executor in self._executors.on_agent(event.agent_id):
            self._executors.drop_if_deserted(executor)
        self._state.publish(event.at, Topic.CLUSTER, f"agent {event.agent_id} is lost")

    def _on_executor_lost(self, event: ExecutorLost) -> None:
        executor = self.executors.get(executor_key(event.agent_id, event.executor_id))
        if executor is None:
            return
        # Updates of its tasks are on the way; with the last of them it is forgotten.
        self._executors.gone.add(executor_key(executor.agent_id, executor.id))
        self._executors.drop_if_deserted(executor)
        self._state.cycle_due = True

    def _reasons(self, job: Job, head: Firing | None, at: int) -> Iterable[Reason]:
        if job.app in self.disabled_apps:
            yield Reason("app_disabled", f"app {job.app} is disabled")
        if self.job_states[job.name].disabled:
            yield Reason("job_disabled", "the job is disabled")
        if job.name in self.faults:
            yield Reason("fault", self.faults[job.name])
        away = [shard for shard in (head.shards if head else ()) if shard.task_id in self._tasks.unreachable]
        if away:
            where = f"agents out of reach, such as {away[0].hostname}, and may run there"
            text = f"{len(away)} of its shards are on {where}"
            if job.partition is PartitionPolicy.WAIT:
                text += "; partitionPolicy is wait: if you know one is dead, `jobcloud task forget`"
            yield Reason("unreachable", text, waiting_helps=True)
        yield from self._rollouts.reasons(job, at)
        if dead := self._firings.dead.get(job.name):
            yield Reason("dead", f"{len(dead)} of its runs have used up their attempts, the last is {dead[-1]}")
        if (held := self._circuit_breakers.reason(job.app, at)) is not None:
            yield held
        if (lack := self._warm_executors.lack(job.app, at)) is not None:
            yield lack
        if head is None:
            due = self._timetable.due.get(job.name)
            yield Reason("not_due", "no firing is due now" if due else "no firing is due, now or later", at=due or 0)
            return
        waiting = self.queue.startable(head.id)
        if not waiting:
            yield Reason("running", _placed(head))
            return
        if not self._state.connected:
            yield Reason("disconnected", "there is no connection to a Mesos master", waiting_helps=True)
        elif not self.cluster.held:
            yield Reason("no_offers", "no offer is held; they have been asked for", waiting_helps=True)
        backoff = max(shard.not_before_ms for shard in waiting)
        if backoff > at:
            last = max(waiting, key=lambda shard: shard.not_before_ms)
            yield Reason("back_off", f"the last attempt failed: {last.message}", waiting_helps=True, at=backoff)
        avoided = [shard for shard in waiting if shard.avoid_ms > at and self.cluster.avoidable(shard.agent_id)]
        if avoided:
            until = max(shard.avoid_ms for shard in avoided)
            hosts = ", ".join(sorted({shard.hostname for shard in avoided})[:5])
            yield Reason("avoided", f"kept away from {hosts}: attempts were lost there", waiting_helps=True, at=until)
        yield from self._cycle.refusals.get(job.name, ())
        if closed := len(self.cluster.closed & self.cluster.agents.keys()):
            text = f"{closed} agents are to be emptied and get nothing new"
            yield Reason("drained", text, hosts=closed, waiting_helps=True)

    def _restore(self, at: int) -> None:
        """Take up stored state: queue and timers from it, claims for every task that may live."""
        self._firings.restore(at)
        self._executors.restore(at)
        self._tasks.restore(at)
        self._warm_executors.restore()
        self._circuit_breakers.restore()
        for firing in [firing for firing in self.firings.values() if not firing.ended_ms]:
            if firing.job not in self.jobs or firing.generation != self.job_states[firing.job].generation:
                self._tasks.cancel_firing(firing, at, recovery.MESSAGE)
        self._firings.prune_all()
        for job in list(self.jobs.values()):
            considered = self.job_states[job.name].considered_ms
            self._state.isolated(job.name, at, self._timetable.schedule, job, considered)
            self._state.isolated(job.name, at, self._firings.ensure_daemon, job, at)
            self._state.isolated(job.name, at, self._rollouts.look, job, at)


def _placed(firing: Firing) -> str:
    called = [step for item, shard in enumerate(firing.shards) if shard.state is ShardState.ACTIVE
              and (step := firing.step(item))]  # fmt: skip
    return (
        f"the listener {called[0]} {firing.id} is being called" if called else f"all shards of {firing.id} are placed"
    )
