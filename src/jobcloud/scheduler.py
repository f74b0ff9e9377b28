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

from jobcloud import repair, status
from jobcloud.book import Book
from jobcloud.book import Policy as Policy
from jobcloud.breakers import Breakers
from jobcloud.commands import Commands
from jobcloud.drains import Drains
from jobcloud.explain import AgentView, Explanation, Reason
from jobcloud.firings import Firings
from jobcloud.fleet import Fleet
from jobcloud.inquiries import Inquiries
from jobcloud.keepers import Keepers
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
    Kind,
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
from jobcloud.overdue import Overdue
from jobcloud.repair import Stored as Stored
from jobcloud.repair import executor_key
from jobcloud.rollouts import Rollouts
from jobcloud.rounds import Rounds
from jobcloud.status import End
from jobcloud.tasks import Tasks
from jobcloud.timetable import Timetable


class Scheduler:
    """The state of one leader and what it decides.

    `epoch` is unique to this leader; with a counter it makes every id. The same stored state, epoch and events give
    the same effects. What readers may look at, and must not change, are the tables of the book and its queue.
    """

    def __init__(self, policy: Policy, stored: Stored, epoch: int, at: int, matcher: type[AnyMatcher] = Matcher):
        self.policy = policy
        self.epoch = epoch
        self._book = book = Book(policy, stored, epoch, at, matcher)
        self.apps = book.apps
        self.jobs = book.jobs
        self.states = book.states
        self.disabled_apps = book.disabled_apps
        self.firings = book.firings
        self.tasks = book.tasks
        self.executors = book.executors
        self.drains = book.drains
        self.faults = book.faults
        self.cluster = book.cluster
        self.queue = book.queue
        self._firings = Firings(book)
        self._inquiries = Inquiries(book)
        self._fleet = Fleet(book)
        self._breakers = Breakers(book)
        self._keepers = Keepers(book, self._fleet, self._breakers)
        self._overdue = Overdue(book, self._inquiries)
        self._tasks = Tasks(
            book, self._firings, self._inquiries, self._fleet, self._keepers, self._breakers, self._overdue
        )
        self._drains = Drains(book, self._inquiries, self._tasks)
        self._timetable = Timetable(book, self._firings, self._tasks)
        self._rounds = Rounds(
            book, self._firings, self._inquiries, self._fleet, self._tasks, self._keepers, self._breakers
        )
        self._rollouts = Rollouts(book, self._firings, self._inquiries, self._tasks)
        self._commands = Commands(
            book, self._firings, self._timetable, self._inquiries, self._fleet, self._tasks, self._rounds,
            self._keepers, self._rollouts,
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
            OfferRescinded: self._rounds.on_rescind,
            StatusReceived: self._tasks.on_status,
            AgentLost: self._on_agent_lost,
            ExecutorLost: self._on_executor_lost,
            SendFailed: self._rounds.on_send_failed,
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
        return self._book.flush()

    def next_wake(self, at: int) -> int | None:
        """The next instant at which a Tick has something to do; `at` itself where it has now."""
        if self._keepers.look or (self._book.connected and self._rounds.wants_tick(at)):
            return at
        wakes = self._inquiries.wakes() if self._book.connected else []
        if (oldest := self.cluster.oldest_received_ms()) is not None:
            wakes.append(oldest + self.policy.offer_hold_ms + 1)
        parts = (
            self._timetable, self.queue, self._drains, self._tasks, self._keepers, self._breakers, self._rollouts,
            self._overdue,
        )  # fmt: skip
        wakes += (wake for part in parts if (wake := part.next_wake()) is not None)
        return max(at, min(wakes)) if wakes else None

    # --------------------------------------------------------------------------------------------------- reading

    @property
    def connected(self) -> bool:
        return self._book.connected

    @property
    def framework_id(self) -> str:
        return self._book.framework_id

    def enabled(self, job: str) -> bool:
        """Whether neither the job nor its app is disabled."""
        return self._book.enabled(job)

    def next_firing(self, job: str) -> int | None:
        """When the job is due next; None where it is not scheduled or never fires again."""
        return self._timetable.due.get(job)

    def agents(self) -> list[AgentView]:
        """The agents known, with what they offer and what we use there."""
        executors: dict[str, list[str]] = {}
        for executor in self.executors.values():
            executors.setdefault(executor.agent_id, []).append(executor.id)
        tasks = Counter(task.agent_id for task in self.tasks.values() if not task.keeper)
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
                self._book.drains.get(entry.id),
                self._drains.windows.get(entry.id),
                entry.id in self.cluster.closed,
            )
            for entry in self.cluster.agents.values()
        ]

    def warm_executors(self, app: str) -> int:
        """How many executors of the app's present version are kept and up."""
        return self._keepers.warm(app)

    def lacking_executors(self, app: str, at: int) -> Reason | None:
        """Why fewer executors of an app are up than are to be kept; None where that is not so."""
        return self._keepers.lack(app, at)

    def story(self, task_id: str) -> list[Publish]:
        """What is remembered of one task, oldest first."""
        return [notice for notice in self._book.notices if notice.task_id == task_id]

    def explain(self, name: str, at: int) -> Explanation:
        """Why a job's shards are, or are not, running. Raises NotFound."""
        job = self._book.job(name)
        running = self.queue.running(name)
        waiting = {firing.id: len(self.queue.startable(firing.id)) for firing in running}
        active = sum(shard.state is ShardState.ACTIVE for firing in running for shard in firing.shards)
        behind = len(self.queue.unfinished(name)) - len(running)
        head = next((firing for firing in running if waiting[firing.id]), running[0] if running else None)
        return Explanation(name, sum(waiting.values()), active, behind, tuple(self._reasons(job, head, at)))

    def plan(self, at: int) -> list[tuple[str, int, str | None]]:
        """A dry run of the next round: (firing, item, agent or None) of every shard that may start. Claims nothing."""
        entries = [e for e in self._rounds.eligible(at) if self.jobs[self.firings[e.firing_id].job].app in self.apps]
        placements = self.cluster.rehearse(
            [self._book.request(self.jobs[self.firings[e.firing_id].job]) for e in entries]
        )
        return [(e.firing_id, e.item, agent) for e, agent in zip(entries, placements, strict=True)]

    def indexes(self) -> dict[str, Any]:
        """What is kept beside the stored records, by name: at rest, with no job left, each is empty."""
        return {
            "unanswered": self._inquiries.unanswered, "kills": self._inquiries.kills, "silent": self._inquiries.silent,
            "unheard": self._inquiries.unheard, "strays": self._inquiries.strays,
            "unreachable": self._tasks.unreachable, "rollouts": self._rollouts.jobs,
            "overdue": self._overdue.due,
            "load": self._fleet.load, "gone": self._fleet.gone, "idle": self._fleet.idle,
            "history": self._firings.history, "dead": self._firings.dead,
            "due": self._timetable.due, "timers": self._timetable.timers,
            "plans": self._book.plans, "refusals": self._rounds.refusals, "faults": self.faults,
            "keepers": self._keepers.of_app, "breakers": self._breakers.open,
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
        keepers = [task for task in self.tasks.values() if task.keeper]
        tasks = {(task.firing_id, task.item): task for task in self.tasks.values() if not task.keeper}
        assert len(tasks) == len(self.tasks) - len(keepers), "a shard has two tasks"
        kept = {task.id: task for of_app in self._keepers.of_app.values() for task in of_app.values()}
        assert kept == {task.id: task for task in keepers}, "the keepers are not those that there are"
        places = {(task.agent_id, task.executor_id) for task in keepers}
        assert len(places) == len(keepers), "an executor has two keepers"
        for task in keepers:
            assert executor_key(task.agent_id, task.executor_id) in self.executors, f"{task.id} has no executor"
        assert active.keys() == tasks.keys(), f"active shards and tasks differ: {active.keys() ^ tasks.keys()}"
        for place, task in tasks.items():
            assert active[place].task_id == task.id, f"{task.id} is not the task of its shard"
            assert executor_key(task.agent_id, task.executor_id) in self.executors, f"{task.id} has no executor"
        running: dict[tuple[str, int], list[Firing]] = {}
        for task in tasks.values():
            running.setdefault((task.job, task.item), []).append(self.firings[task.firing_id])
        for (name, item), found in running.items():
            current = name in self.jobs and found[0].generation == self.states[name].generation
            most = self.jobs[name].runs_at_once if current else MAX_WAITING  # as many as an older one had allowed
            assert len(found) <= most, f"{name}/{item} runs {len(found)} times"
            generations = {firing.generation for firing in found} - {repair.NO_GENERATION}  # stand-ins are ending
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
        assert self._inquiries.timed() | self._overdue.due.keys() <= self.tasks.keys(), "a ghost is timed"
        assert not self._inquiries.strays.keys() & self.tasks.keys(), "a task of ours is a stray"
        away = {task.id for task in self.tasks.values() if task.state is TaskState.UNREACHABLE}
        assert self._tasks.unreachable.keys() == away, f"out of reach are {away}"
        loads = Counter(executor_key(task.agent_id, task.executor_id) for task in self.tasks.values())
        assert loads == self._fleet.load, f"tasks per executor are {loads}, not {self._fleet.load}"
        assert self._fleet.gone <= self.executors.keys(), "an executor is gone twice"
        assert self._fleet.idle.keys() == self.executors.keys() - loads.keys(), (
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
        ripe = self.queue.ripen(at), self._keepers.ripen(at), self._breakers.ripen(at)
        if any(ripe):
            self._book.work()
        if self._drains.step(at):
            self._rounds.reopen(at)
        self._tasks.replace_unreachable(at)
        self._rollouts.step(at)
        self._overdue.step(at)
        for task in self._keepers.review():
            self._tasks.kill(task, at)
        self._inquiries.ask_again(at)
        self._rounds.round(at)  # before anything is given back: what is due now may need it
        self._rounds.give_back(at)
        self._rounds.rest(at)
        self._sweep(at)

    def _clock_was_set_back(self, at: int) -> None:
        """Waits are counted from now; firings stay as they are: none is due twice."""
        self._inquiries.clock_was_set_back(at)
        self._keepers.clock_was_set_back(at)
        self._breakers.clock_was_set_back(at)
        self._rounds.clock_was_set_back(at)
        self._drains.clock_was_set_back()
        self._rollouts.clock_was_set_back()
        self._fleet.clock_was_set_back(at)
        self._tasks.look_again()
        self.cluster.age_offers_from(at)
        self._firings.shorten_back_offs(at)
        self._book.work()

    # ------------------------------------------------------------------------------------------------- the session

    def _on_subscribed(self, event: Subscribed) -> None:
        self._book.connected = True
        self.cluster.drop_all_offers()
        self._rounds.begin()
        self._drains.begin()
        if event.framework_id != self._book.framework_id:
            self._book.framework_id = event.framework_id
            self._book.dirty[Kind.FRAMEWORK, "id"] = event.framework_id
        self._inquiries.begin(event.at)
        self._overdue.begin()
        self._rollouts.begin()
        self._book.publish(event.at, Topic.CLUSTER, f"subscribed to {event.master} as {event.framework_id}")

    def _on_offers(self, event: OffersReceived) -> None:
        if not self.connected:
            return  # of a session that is over: void
        self._rounds.on_offers(event)
        for offer in event.offers:
            self._drains.on_offer(offer)

    def _on_disconnected(self, event: Disconnected) -> None:
        self._book.connected = False
        self.cluster.drop_all_offers()
        self._book.publish(event.at, Topic.CLUSTER, f"disconnected: {event.reason}")

    def _on_framework_removed(self, event: FrameworkRemoved) -> None:
        """Mesos has killed all there was; the id is void. Start over as a new framework."""
        self._book.connected = False
        self.cluster.drop_all_offers()
        self._book.framework_id = ""
        self._book.dirty[Kind.FRAMEWORK, "id"] = None
        for task in list(self.tasks.values()):
            lost = status.TABLE[task.state, "TASK_LOST"]
            assert isinstance(lost, End)
            self._tasks.end(task, lost, f"Mesos removed the framework: {event.reason}", event.at)
        self._inquiries.removed()
        for executor in list(self.executors.values()):
            self._fleet.forget(executor)
        self._book.out.append(Resubscribe())
        self._book.publish(event.at, Topic.CLUSTER, f"Mesos removed the framework: {event.reason}")

    def _sweep(self, at: int) -> None:
        """Once in a while drop what is no longer of use, so that memory does not grow with time."""
        if self._sweep_at - self.policy.sweep_ms <= at < self._sweep_at:
            return
        self._sweep_at = at + self.policy.sweep_ms
        self._fleet.sweep(at)
        self._breakers.sweep()
        self._rounds.sweep(at)
        self._drains.sweep(at)
        self._timetable.sweep()

    def _on_agent_lost(self, event: AgentLost) -> None:
        self.cluster.lose_agent(event.agent_id)
        self._drains.lose(event.agent_id)
        self._inquiries.lose(event.agent_id)
        for executor in self._fleet.on_agent(event.agent_id):
            self._fleet.drop_if_deserted(executor)
        self._book.publish(event.at, Topic.CLUSTER, f"agent {event.agent_id} is lost")

    def _on_executor_lost(self, event: ExecutorLost) -> None:
        executor = self.executors.get(executor_key(event.agent_id, event.executor_id))
        if executor is None:
            return
        # Updates of its tasks are on the way; with the last of them it is forgotten.
        self._fleet.gone.add(executor_key(executor.agent_id, executor.id))
        self._fleet.drop_if_deserted(executor)
        self._book.round_wanted = True

    def _reasons(self, job: Job, head: Firing | None, at: int) -> Iterable[Reason]:
        if job.app in self.disabled_apps:
            yield Reason("app_disabled", f"app {job.app} is disabled")
        if self.states[job.name].disabled:
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
        if (held := self._breakers.reason(job.app, at)) is not None:
            yield held
        if (lack := self._keepers.lack(job.app, at)) is not None:
            yield lack
        if head is None:
            due = self._timetable.due.get(job.name)
            yield Reason("not_due", "no firing is due now" if due else "no firing is due, now or later", at=due or 0)
            return
        waiting = self.queue.startable(head.id)
        if not waiting:
            yield Reason("running", _placed(head))
            return
        if not self._book.connected:
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
        yield from self._rounds.refusals.get(job.name, ())
        if closed := len(self.cluster.closed & self.cluster.agents.keys()):
            text = f"{closed} agents are to be emptied and get nothing new"
            yield Reason("drained", text, hosts=closed, waiting_helps=True)

    def _restore(self, at: int) -> None:
        """Take up stored state: queue and timers from it, claims for every task that may live."""
        self._firings.restore(at)
        self._fleet.restore(at)
        self._tasks.restore(at)
        self._keepers.restore()
        self._breakers.restore()
        for firing in [firing for firing in self.firings.values() if not firing.ended_ms]:
            if firing.job not in self.jobs or firing.generation != self.states[firing.job].generation:
                self._tasks.cancel_firing(firing, at, repair.MESSAGE)
        self._firings.prune_all()
        for job in list(self.jobs.values()):
            considered = self.states[job.name].considered_ms
            self._book.contained(job.name, at, self._timetable.schedule, job, considered)
            self._book.contained(job.name, at, self._firings.ensure_daemon, job, at)
            self._book.contained(job.name, at, self._rollouts.look, job, at)


def _placed(firing: Firing) -> str:
    called = [step for item, shard in enumerate(firing.shards) if shard.state is ShardState.ACTIVE
              and (step := firing.step(item))]  # fmt: skip
    return (
        f"the listener {called[0]} {firing.id} is being called" if called else f"all shards of {firing.id} are placed"
    )
