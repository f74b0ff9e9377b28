"""The scheduler's decisions: events go in, effects come out, and nothing here touches the world.

One object owns the state; `handle` is the only way to change it. Launching happens on a Tick: every other event only
notes that there may be something to launch, and `next_wake` then says "now", so that a burst of events makes one
round.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from jobcloud import launch, ready, release, repair, sharding, status
from jobcloud.cron import Schedule
from jobcloud.errors import Conflict, NotFound
from jobcloud.explain import AgentView, Explanation, Reason, refusal_reasons
from jobcloud.launch import Artifacts, ExecutorPlan
from jobcloud.match import AnyMatcher, Matcher
from jobcloud.messages import (
    RANK,
    Accept,
    Acknowledge,
    AgentLost,
    Decline,
    Disconnected,
    Effect,
    Event,
    ExecutorLost,
    FrameworkRemoved,
    Kill,
    KillTask,
    Kind,
    Launch,
    OfferRescinded,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    Reconcile,
    Record,
    RemoveApp,
    RemoveJob,
    Resubscribe,
    Revive,
    Save,
    SendFailed,
    SetAppEnabled,
    SetJobEnabled,
    ShutdownExecutor,
    Status,
    StatusReceived,
    Subscribed,
    Suppress,
    Tick,
    Topic,
    Trigger,
    Write,
)
from jobcloud.model import (
    DELIMITER,
    DIMENSIONS,
    MAX_IDLE_TIMEOUT_MS,
    App,
    CatchUp,
    Cause,
    Executor,
    Firing,
    Job,
    JobKind,
    JobState,
    Shard,
    ShardState,
    Share,
    Task,
    TaskName,
    TaskState,
)
from jobcloud.offers import Cluster, Placement, Pool, Request, Short, amounts
from jobcloud.repair import Stored as Stored
from jobcloud.repair import differences, executor_key, mend, with_starts
from jobcloud.status import End


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that steer the scheduler. Durations are milliseconds."""

    artifacts: Artifacts
    offer_hold_ms: int = 5_000
    most_offers: int = 100_000
    decline_refuse_ms: int = 5_000
    #: a firing this late is still on time; a later one is a missed one
    misfire_threshold_ms: int = 5_000
    #: firings of one job that may wait at once
    most_waiting: int = 100
    #: attempts in a row that the infrastructure may lose before the shard has failed
    most_failures: int = 10
    #: ended firings kept per job
    history: int = 50
    reconcile_interval_ms: int = 900_000
    reconcile_first_ms: int = 1_000
    reconcile_most_ms: int = 60_000
    #: a stored launch with no update for this long is asked about
    launch_answer_ms: int = 10_000
    kill_again_ms: int = 10_000
    #: shards matched in one round
    round_limit: int = 20_000
    agent_memory_ms: int = 86_400_000
    sweep_ms: int = 60_000


P = ParamSpec("P")
T = TypeVar("T")


class Scheduler:
    """The state of one leader and what it decides.

    `epoch` is unique to this leader; with a counter it makes every id. The same stored state, epoch and events give
    the same effects.
    """

    def __init__(self, policy: Policy, stored: Stored, epoch: int, at: int, matcher: type[AnyMatcher] = Matcher):
        self.policy = policy
        self.epoch = epoch
        whole = mend(stored, at)
        self.apps = whole.apps
        self.jobs = whole.jobs
        self.states = whole.job_states
        self.disabled_apps = whole.disabled_apps
        self.firings = with_starts(whole.firings, whole.tasks.values())
        self.tasks = whole.tasks
        self.executors = whole.executors
        self.framework_id = whole.framework_id
        self.connected = False
        self.cluster = Cluster(matcher(len(DIMENSIONS)))
        self.queue = ready.Queue()
        #: job → why it could not be launched; cleared when it or its app changes
        self.faults: dict[str, str] = {}
        #: job → what the last round found it short of
        self._refusals: dict[str, tuple[Reason, ...]] = {}
        self._sequence = repair.numbers_used(stored, epoch)
        self._plans: dict[str, ExecutorPlan] = {}
        #: job → ids of its ended firings, oldest first
        self._history: dict[str, deque[str]] = {}
        #: (due instant, job) of every job that fires; stale entries are told by `_due`
        self._timers: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}
        #: tasks that a reconciliation has asked about and Mesos has not answered
        self._unanswered: dict[str, None] = {}
        self._reconcile_at = 0
        self._reconcile_wait_ms = policy.reconcile_first_ms
        #: task id → when to send its kill again; task id → when to ask for a launch without an answer
        self._kills: dict[str, int] = {}
        self._silent: dict[str, int] = {}
        #: executor key → its live tasks; keys of executors that are gone, their last tasks not yet
        self._load: Counter[str] = Counter()
        self._gone: set[str] = set()
        #: key of each executor without tasks → since when; it leaves by itself after its idle time
        self._idle: dict[str, int] = {}
        self._sweep_at = 0
        self._suppressed = False
        self._filtered_until = 0
        self._ticked = at
        self._round_wanted = True
        self._new_work = True
        self._story: deque[Publish] = deque(maxlen=20_000)
        # What had to be mended is written with the first event's effects.
        self._dirty: dict[tuple[Kind, str], Record | None] = {
            (kind, key): record for kind, key, record in differences(stored, whole)
        }
        self._out: list[Effect] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Tick: self._on_tick,
            Subscribed: self._on_subscribed,
            Disconnected: self._on_disconnected,
            FrameworkRemoved: self._on_framework_removed,
            OffersReceived: self._on_offers,
            OfferRescinded: self._on_rescind,
            StatusReceived: self._on_status,
            AgentLost: self._on_agent_lost,
            ExecutorLost: self._on_executor_lost,
            SendFailed: self._on_send_failed,
            PutApp: self._on_put_app,
            RemoveApp: self._on_remove_app,
            SetAppEnabled: self._on_set_app_enabled,
            PutJob: self._on_put_job,
            RemoveJob: self._on_remove_job,
            SetJobEnabled: self._on_set_job_enabled,
            Trigger: self._on_trigger,
            KillTask: self._on_kill_task,
        }
        self._restore(at)

    # ---------------------------------------------------------------------------------------------- the one door

    def handle(self, event: Event) -> list[Effect]:
        """Take one event and return what is to be done, in performing order.

        Raises a Refused where a command is turned down; nothing has changed then.
        """
        self._handlers[type(event)](event)
        return self._flush()

    def next_wake(self, at: int) -> int | None:
        """The next instant at which a Tick has something to do; `at` itself where it has now."""
        if self.connected and len(self.queue) and (self._can_round() or self._can_revive(at)):
            return at
        wakes = [self._timers[0][0]] if self._timers else []
        if self.connected:
            wakes += self._kills.values()
            wakes += self._silent.values()
            wakes.append(self._reconcile_at)
        if (oldest := self.cluster.oldest_received_ms()) is not None:
            wakes.append(oldest + self.policy.offer_hold_ms + 1)
        if (backoff := self.queue.next_wake()) is not None:
            wakes.append(backoff)
        return max(at, min(wakes)) if wakes else None

    # --------------------------------------------------------------------------------------------------- reading

    def next_firing(self, job: str) -> int | None:
        """When the job is due next; None where it is not scheduled or never fires again."""
        return self._due.get(job)

    def agents(self) -> list[AgentView]:
        """The agents known, with what they offer and what we use there."""
        executors: dict[str, list[str]] = {}
        for executor in self.executors.values():
            executors.setdefault(executor.agent_id, []).append(executor.id)
        return [
            AgentView(
                entry.id,
                entry.hostname,
                entry.address,
                entry.attributes,
                entry.offered,
                self.cluster.claimed(entry),
                len(entry.offers),
                tuple(executors.get(entry.id, ())),
                entry.lost,
            )
            for entry in self.cluster.agents.values()
        ]

    def story(self, task_id: str) -> list[Publish]:
        """What is remembered of one task, oldest first."""
        return [notice for notice in self._story if notice.task_id == task_id]

    def explain(self, name: str, at: int) -> Explanation:
        """Why a job's shards are, or are not, running. Raises NotFound."""
        job = self._job(name)
        unfinished = self.queue.unfinished(name)
        head = unfinished[0] if unfinished else None
        shards = head.shards if head else ()
        waiting = sum(shard.state is ShardState.WAITING for shard in shards)
        active = sum(shard.state is ShardState.ACTIVE for shard in shards)
        return Explanation(
            name, waiting, active, len(unfinished) - 1 if head else 0, tuple(self._reasons(job, head, at))
        )

    def plan(self, at: int) -> list[tuple[str, int, str | None]]:
        """A dry run of the next round: (firing, item, agent or None) of every shard that may start. Claims nothing."""
        entries = [e for e in self._eligible(at) if self.jobs[self.firings[e.firing_id].job].app in self.apps]
        placements = self.cluster.rehearse([self._request(self.jobs[self.firings[e.firing_id].job]) for e in entries])
        return [(e.firing_id, e.item, agent) for e, agent in zip(entries, placements, strict=True)]

    def validate(self) -> None:
        """Check every invariant that holds between events. Raises AssertionError naming the one that does not."""
        active = {
            (firing.id, item): shard
            for firing in self.firings.values()
            for item, shard in enumerate(firing.shards)
            if shard.state is ShardState.ACTIVE
        }
        tasks = {(task.firing_id, task.item): task for task in self.tasks.values()}
        assert len(tasks) == len(self.tasks), "a shard has two tasks"
        assert active.keys() == tasks.keys(), f"active shards and tasks differ: {active.keys() ^ tasks.keys()}"
        for place, task in tasks.items():
            assert active[place].task_id == task.id, f"{task.id} is not the task of its shard"
            assert executor_key(task.agent_id, task.executor_id) in self.executors, f"{task.id} has no executor"
        running: dict[tuple[str, int], str] = {}
        for task in self.tasks.values():
            assert running.setdefault((task.job, task.item), task.id) == task.id, f"{task.job}/{task.item} runs twice"
        for firing in self.firings.values():
            ended = all(shard.state.ended for shard in firing.shards)
            assert ended == bool(firing.ended_ms), f"{firing.id} is ended {firing.ended_ms} with {firing.shards}"
            assert (firing.id in self.queue) != ended, f"{firing.id} is not where it belongs"
        claims, holds = self.cluster.claim_count()
        assert claims == len(self.tasks), f"{claims} claims for {len(self.tasks)} tasks"
        assert self.cluster.matcher.claims() == claims + holds, "the matcher holds claims that nobody has"
        assert self._silent.keys() | self._kills.keys() | self._unanswered.keys() <= self.tasks.keys(), (
            "a ghost is timed"
        )
        loads = Counter(executor_key(task.agent_id, task.executor_id) for task in self.tasks.values())
        assert loads == self._load, f"tasks per executor are {loads}, not {self._load}"
        assert self._gone <= self.executors.keys(), "an executor is gone twice"
        assert self._idle.keys() == self.executors.keys() - loads.keys(), (
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
        self._fire_due(at)
        if self.queue.ripen(at):
            self._work()
        self._ask_again(at)
        self._round(at)  # before anything is given back: what is due now may need it
        self._give_back(at)
        self._rest(at)
        self._sweep(at)

    def _clock_was_set_back(self, at: int) -> None:
        """Waits are counted from now; firings stay as they are: none is due twice."""
        for timed in (self._kills, self._silent):
            timed.update(dict.fromkeys(timed, at))
        self._reconcile_at = min(self._reconcile_at, at + self.policy.reconcile_most_ms)
        self._filtered_until = min(self._filtered_until, at + self.policy.decline_refuse_ms)
        self.cluster.age_offers_from(at)
        self._shorten_back_offs(at)
        self._work()

    def _shorten_back_offs(self, at: int) -> None:
        """No back-off is that long: the clock was ahead when it began."""
        for firing_id, item, shard in self.queue.backing_off(at + release.BACKOFF_MOST_MS):
            self._put_shards(firing_id, {item: replace(shard, not_before_ms=at)}, at)

    def _fire_due(self, at: int) -> None:
        while self._timers and self._timers[0][0] <= at:
            due, name = heapq.heappop(self._timers)
            if self._due.get(name) == due:
                self._contained(name, at, self._fire, self.jobs[name], due, at)

    def _fire(self, job: Job, due: int, at: int) -> None:
        """Queue the firings of `job` that are due from `due` to `at`, by its catch-up policy where they are late."""
        schedule = job.schedule()
        on_time_from = at - self.policy.misfire_threshold_ms
        considered = due
        if due < on_time_from:
            considered = latest(schedule, due, on_time_from - 1)
            self._missed(job, due, considered, at)
        for fire_ms in ([due] if due >= on_time_from else []) + list(schedule.between(considered, at, 1_000)):
            considered = fire_ms
            self._enqueue(job, Cause.CRON, fire_ms, at)
        self._set_state(job.name, considered_ms=considered)
        self._schedule(job, considered)

    def _missed(self, job: Job, first: int, last: int, at: int) -> None:
        if job.catch_up is CatchUp.ONCE:
            self._enqueue(job, Cause.CATCH_UP, last, at)
        else:
            self._skip(job, first, at, "it was missed, and catchUp is skip")

    def _enqueue(self, job: Job, cause: Cause, fire_ms: int, at: int) -> None:
        unfinished = len(self.queue.unfinished(job.name))
        if unfinished and not job.misfire and cause is not Cause.TRIGGER:
            self._skip(job, fire_ms, at, "the firing before it has not ended, and misfire is false")
            return
        if unfinished >= self.policy.most_waiting:
            self._skip(job, fire_ms, at, f"{unfinished} firings wait already")
            return
        firing = sharding.make_firing(job, self.states[job.name], cause, fire_ms, self._unique())
        if firing.id in self.firings:
            return  # fired under another generation or before a crash: never twice for one instant
        self._add_firing(firing)
        self._publish(at, Topic.FIRED, f"{len(firing.shards)} shards are due", job=job.name, firing_id=firing.id)

    def _skip(self, job: Job, fire_ms: int, at: int, why: str) -> None:
        state = self.states[job.name]
        self._set_state(job.name, skipped=state.skipped + 1, skipped_reason=why)
        due = datetime.fromtimestamp(fire_ms / 1000, UTC)
        self._publish(at, Topic.SKIPPED, f"the firing of {due:%Y-%m-%d %H:%M:%S} UTC is skipped: {why}", job=job.name)

    def _schedule(self, job: Job, after: int) -> None:
        """Set the job's timer to its first firing after an instant. DAEMON jobs watch the clock themselves."""
        self._due.pop(job.name, None)
        if job.kind is JobKind.DAEMON or not self._enabled(job.name):
            return
        due = job.schedule().next_after(after)
        if due is not None:
            self._due[job.name] = due
            heapq.heappush(self._timers, (due, job.name))

    def _ask_again(self, at: int) -> None:
        """Reconcile what is unanswered, repeat kills, and ask for launches that nothing was heard of."""
        if not self.connected:
            return
        if at >= self._reconcile_at:
            self._reconcile(at)
        silent = [task_id for task_id, since in self._silent.items() if since <= at]
        if silent:
            self._silent.update(dict.fromkeys(silent, at + self.policy.launch_answer_ms))
            self._out.append(Reconcile(tuple((task_id, self.tasks[task_id].agent_id) for task_id in silent)))
        for task_id in [task_id for task_id, due in self._kills.items() if due <= at]:
            self._send_kill(self.tasks[task_id], at)

    def _reconcile(self, at: int) -> None:
        """Explicitly for each task without an answer, with back-off; then implicitly, and again every interval."""
        if self._unanswered:
            self._out.append(Reconcile(tuple((t, self.tasks[t].agent_id) for t in self._unanswered)))
            self._reconcile_at = at + self._reconcile_wait_ms
            self._reconcile_wait_ms = min(self._reconcile_wait_ms * 2, self.policy.reconcile_most_ms)
            return
        self._out.append(Reconcile())
        self._unanswered = dict.fromkeys(self.tasks)
        self._reconcile_wait_ms = self.policy.reconcile_first_ms
        self._reconcile_at = at + self.policy.reconcile_interval_ms

    # ------------------------------------------------------------------------------------------------- offers

    def _on_subscribed(self, event: Subscribed) -> None:
        self.connected = True
        self.cluster.drop_all_offers()
        self._suppressed, self._filtered_until, self._new_work = False, 0, True
        if event.framework_id != self.framework_id:
            self.framework_id = event.framework_id
            self._dirty[Kind.FRAMEWORK, "id"] = event.framework_id
        self._unanswered = dict.fromkeys(self.tasks)
        self._reconcile_wait_ms = self.policy.reconcile_first_ms
        self._reconcile(event.at)
        self._publish(event.at, Topic.CLUSTER, f"subscribed to {event.master} as {event.framework_id}")

    def _on_disconnected(self, event: Disconnected) -> None:
        self.connected = False
        self.cluster.drop_all_offers()
        self._publish(event.at, Topic.CLUSTER, f"disconnected: {event.reason}")

    def _on_framework_removed(self, event: FrameworkRemoved) -> None:
        """Mesos has killed all there was; the id is void. Start over as a new framework."""
        self.connected = False
        self.cluster.drop_all_offers()
        self.framework_id = ""
        self._dirty[Kind.FRAMEWORK, "id"] = None
        for task in list(self.tasks.values()):
            lost = status.TABLE[task.state, "TASK_LOST"]
            assert isinstance(lost, End)
            self._end(task, lost, f"Mesos removed the framework: {event.reason}", event.at)
        for executor in list(self.executors.values()):
            self._forget_executor(executor)
        self._out.append(Resubscribe())
        self._publish(event.at, Topic.CLUSTER, f"Mesos removed the framework: {event.reason}")

    def _on_offers(self, event: OffersReceived) -> None:
        if not self.connected:
            return  # of a session that is over: void
        for offer in event.offers:
            self.cluster.add_offer(offer, event.at)
        self._round_wanted = True

    def _on_rescind(self, event: OfferRescinded) -> None:
        self.cluster.drop_offer(event.offer_id)

    def _give_back(self, at: int) -> None:
        """Decline what was held long enough, or is held over the limit."""
        old = self.cluster.offers_received_before(at - self.policy.offer_hold_ms)
        spare = old or self.cluster.oldest_offers(self.cluster.held - self.policy.most_offers)
        if not spare:
            return
        for offer_id in spare:
            self.cluster.drop_offer(offer_id)
        self._out.append(Decline(tuple(spare), self.policy.decline_refuse_ms))
        self._filtered_until = at + self.policy.decline_refuse_ms

    def _can_round(self) -> bool:
        return self._round_wanted and self.cluster.held > 0

    def _can_revive(self, at: int) -> bool:
        return self._new_work and (self._suppressed or self._filtered_until > at)

    def _rest(self, at: int) -> None:
        """With nothing to place and no offer held ask for none; ask again as soon as there is new work."""
        if not self.connected:
            return
        waiting = self.queue.any_eligible(at, self._launchable)
        if waiting and self._can_revive(at):
            self._suppressed, self._filtered_until = False, 0
            self._out.append(Revive())
        elif not waiting and not self.cluster.held and not self._suppressed:
            self._suppressed = True
            self._out.append(Suppress())
        self._new_work = False

    def _sweep(self, at: int) -> None:
        """Once in a while drop what is no longer of use, so that memory does not grow with time."""
        if self._sweep_at - self.policy.sweep_ms <= at < self._sweep_at:
            return
        self._sweep_at = at + self.policy.sweep_ms
        for key, since in list(self._idle.items()):
            if at - since > self._longest_idle_ms(self.executors[key]):
                self._forget_executor(self.executors[key])  # nobody tells reliably that it has left
        self.cluster.forget_idle_agents(at - self.policy.agent_memory_ms)
        self.cluster.prune_classes(self._requests_in_use())
        self._timers = [(due, job) for job, due in self._due.items()]
        heapq.heapify(self._timers)

    def _longest_idle_ms(self, executor: Executor) -> int:
        app = self.apps.get(executor.app)
        current = app is not None and self._plan_of(app.name).id == executor.id
        return (app.idle_timeout_ms if app is not None and current else MAX_IDLE_TIMEOUT_MS) + self.policy.sweep_ms

    def _on_agent_lost(self, event: AgentLost) -> None:
        self.cluster.lose_agent(event.agent_id)
        for executor in self._executors_of(event.agent_id):
            self._drop_if_deserted(executor)
        self._publish(event.at, Topic.CLUSTER, f"agent {event.agent_id} is lost")

    def _on_executor_lost(self, event: ExecutorLost) -> None:
        executor = self.executors.get(executor_key(event.agent_id, event.executor_id))
        if executor is None:
            return
        # Updates of its tasks are on the way; with the last of them it is forgotten.
        self._gone.add(executor_key(executor.agent_id, executor.id))
        self._drop_if_deserted(executor)
        self._round_wanted = True

    # ---------------------------------------------------------------------------------------------- launching

    def _eligible(self, at: int) -> list[ready.Entry]:
        return self.queue.eligible(at, self._launchable, lambda job: self.jobs[job].priority)

    def _launchable(self, job: str) -> bool:
        return self._enabled(job) and job not in self.faults

    def _round(self, at: int) -> None:
        """Match the shards that may start to the offers held, and launch those that found room."""
        if not self.connected or not self._can_round():
            return
        self._round_wanted = False
        entries, requests = self._requested(at)
        if not entries:
            return
        placed: dict[str, list[tuple[ready.Entry, Placement]]] = {}
        refused: dict[str, Request] = {}
        placements = self.cluster.place(requests, self.policy.round_limit)
        for entry, request, placement in zip(entries, requests, placements, strict=False):
            if placement is None:
                refused[self.firings[entry.firing_id].job] = request
            else:
                placed.setdefault(placement.agent_id, []).append((entry, placement))
        self._round_wanted = len(placements) < len(entries)
        self._note_refusals(refused, at)
        changes: dict[str, dict[int, Shard]] = {}
        for agent_id, choices in placed.items():
            self._launch_on(agent_id, choices, changes, at)
        for firing_id, shards in changes.items():
            self._put_shards(firing_id, shards, at)

    def _note_refusals(self, refused: dict[str, Request], at: int) -> None:
        """Remember, for people, what the jobs that found no room were short of."""
        reasons: dict[Request, tuple[Reason, ...]] = {}
        before, self._refusals = self._refusals, {}
        for job, request in refused.items():
            if request not in reasons:
                reasons[request] = tuple(refusal_reasons(self.cluster.refusal(request)))
            self._refusals[job] = reasons[request]
            if job not in before and reasons[request]:
                self._publish(at, Topic.REFUSED, reasons[request][0].text, job=job)

    def _requested(self, at: int) -> tuple[list[ready.Entry], list[Request]]:
        """The shards that may start, and what each asks for; a fault in describing it stops that job alone."""
        of_firing: dict[str, Request | None] = {}
        entries, requests = [], []
        for entry in self._eligible(at):
            if entry.firing_id not in of_firing:
                job = self.firings[entry.firing_id].job
                of_firing[entry.firing_id] = self._contained(job, at, self._request, self.jobs[job])
            request = of_firing[entry.firing_id]
            if request is not None:
                entries.append(entry)
                requests.append(request)
        return entries, requests

    def _launch_on(
        self,
        agent_id: str,
        choices: list[tuple[ready.Entry, Placement]],
        changes: dict[str, dict[int, Shard]],
        at: int,
    ) -> None:
        """One ACCEPT, or nothing, for an agent; `changes` collects the shards by firing, to be put at once."""
        entry = self.cluster.agents[agent_id]
        offers = self.cluster.take_offers(agent_id)
        pool = Pool(offers)
        launches: list[Launch] = []
        for choice, placement in choices:
            firing = self.firings[choice.firing_id]
            made = self._contained(
                firing.job, at, self._launch, firing, choice.item, placement, pool, entry.hostname, at
            )
            if made is None or made[0] is None:
                self.cluster.undo(placement)
            else:
                launches.append(made[0])
            if made is not None:
                changes.setdefault(firing.id, {})[choice.item] = made[1]
        offer_ids = tuple(offer.id for offer in offers)
        self._out.append(Accept(agent_id, offer_ids, tuple(launches)) if launches else Decline(offer_ids, 0))

    def _launch(
        self, firing: Firing, item: int, placement: Placement, pool: Pool, hostname: str, at: int
    ) -> tuple[Launch | None, Shard]:
        """Make the task of one placed shard: cut its resources, write its intent, account for its executor.

        Returns the launch and the shard as it goes on; no launch where the offers turn out to be short.
        """
        job, shard = self.jobs[firing.job], firing.shards[item]
        plan = self._plan_of(job.app)
        task = Task(
            id=str(TaskName(job.name, item, shard.execution, placement.agent_id, self._unique())),
            firing_id=firing.id, job=job.name, item=item, attempt=shard.attempt + 1, execution=shard.execution,
            agent_id=placement.agent_id, hostname=hostname, app=job.app, executor_id=plan.id,
            resources=job.resources, created_ms=at,
        )  # fmt: skip
        data = sharding.payload(job, firing, task, self._fence())
        key = executor_key(task.agent_id, plan.id)
        try:
            shares, executor = launch.task_shares(pool, task, self.executors.get(key), plan, at)
        except Short as short:
            failures = shard.failures + 1
            wait = release.backoff_ms(failures)
            return None, replace(shard, failures=failures, not_before_ms=at + wait, message=str(short))
        if key not in self.executors:
            self.executors[key] = executor
            self._dirty[Kind.EXECUTOR, key] = executor
            self.cluster.hold(task.agent_id, plan.id, plan.resources)
        self.cluster.settle(task.id, placement)
        self._load[key] += 1
        self._idle.pop(key, None)
        self._gone.discard(key)  # Mesos starts it again with this task
        self._put_task(task)
        self._silent[task.id] = at + self.policy.launch_answer_ms
        self._tell(at, Topic.LAUNCHED, task, f"placed on {hostname}")
        return Launch(task.id, f"{job.name}{DELIMITER}{item}", shares, executor, data), replace(
            shard, state=ShardState.ACTIVE, attempt=task.attempt, task_id=task.id, agent_id=task.agent_id,
            hostname=hostname, executor_id=plan.id, not_before_ms=0, message="",
        )  # fmt: skip

    def _on_send_failed(self, event: SendFailed) -> None:
        """What certainly never left is taken back at once; what may have arrived is asked about."""
        call = event.call
        if isinstance(call, Accept):
            for launched in call.launches:
                task = self.tasks.get(launched.task_id)
                if task is not None and event.certain:
                    self._end(task, End.NOT_STARTED, f"the launch was not sent: {event.reason}", event.at)
                elif task is not None:
                    self._silent[task.id] = event.at
            if self.connected:  # whatever became of the call, its offers are not needed
                self._out.append(Decline(call.offer_ids, 0))
        elif isinstance(call, Suppress | Revive):
            self._suppressed, self._new_work = isinstance(call, Revive), True
        elif isinstance(call, Reconcile):
            self._reconcile_at = min(self._reconcile_at, event.at + self.policy.reconcile_first_ms)
        self._publish(event.at, Topic.FAULT, f"{type(call).__name__} failed: {event.reason}")

    # ------------------------------------------------------------------------------------------------- status

    def _on_status(self, event: StatusReceived) -> None:
        update, at = event.status, event.at
        if update.uuid:
            self._out.append(Acknowledge(update.task_id, update.agent_id, update.uuid))
        self._unanswered.pop(update.task_id, None)
        task = self.tasks.get(update.task_id)
        if task is None:
            self._stray(update, at)
            return
        next_step = status.step(task.state, update, cause_of(update.data))
        if isinstance(next_step, End):
            if next_step is End.INVALID:
                # Its executor may be gone, or another than we believe: unless others run there, count it anew.
                self._gone.add(executor_key(task.agent_id, task.executor_id))
            self._end(task, next_step, describe(update), at)
        else:
            self._progress(task, next_step, update, at)

    def _stray(self, update: Status, at: int) -> None:
        """An update for no task of ours: what lives is ended, what has ended stays so."""
        if update.state in status.LIVE_UPDATES and update.agent_id:
            self._out.append(Kill(update.task_id, update.agent_id))
            self._publish(at, Topic.FAULT, f"ending unknown task {update.task_id}", task_id=update.task_id)

    def _progress(self, task: Task, state: TaskState, update: Status, at: int) -> None:
        self._silent.pop(task.id, None)
        started = task.started_ms or (at if state is TaskState.RUNNING else 0)
        if state is not task.state or started != task.started_ms:
            self._put_task(replace(task, state=state, started_ms=started, message=update.message[:1_000]))
        if started != task.started_ms:
            shard = self.firings[task.firing_id].shards[task.item]
            self._put_shards(task.firing_id, {task.item: replace(shard, started_ms=started)}, at, store=False)
        if state is not task.state or update.message:
            self._tell(at, Topic.RUNNING, task, update.message or f"is {state}", state)

    def _end(self, task: Task, end: End, message: str, at: int) -> None:
        """A task is over: its claim is freed, its record goes, its shard goes on as `release.after` says."""
        self.cluster.release(task.id)
        for timed in (self._unanswered, self._silent, self._kills):
            timed.pop(task.id, None)
        del self.tasks[task.id]
        self._dirty[Kind.TASK, task.id] = None
        key = executor_key(task.agent_id, task.executor_id)
        self._load[key] -= 1
        if not self._load[key]:
            del self._load[key]
            self._idle[key] = at
        firing = self.firings[task.firing_id]
        job = self.jobs.get(task.job)
        shard = release.after(
            firing.shards[task.item], end, at, message,
            wanted=not task.kill_ms and job is not None and self._wanted(firing),
            daemon=firing.cause is Cause.DAEMON,
            failover=job is not None and job.failover,
            most_failures=self.policy.most_failures,
        )  # fmt: skip
        self._tell(at, Topic.ENDED, task, message, shard.state if shard.state.ended else f"{end}, again")
        self._put_shards(firing.id, {task.item: shard}, at)
        self._drop_if_deserted(self.executors[key])
        self._work()

    def _kill(self, task: Task, at: int) -> None:
        """End a task for good: its shard does not come back."""
        if not task.kill_ms:
            self._put_task(replace(task, kill_ms=at))
        self._send_kill(task, at)

    def _send_kill(self, task: Task, at: int) -> None:
        """Ask for a task's end, and again until it is seen: Mesos delivers a kill at most once."""
        if not self.connected:
            self._kills[task.id] = at
            return
        self._kills[task.id] = at + self.policy.kill_again_ms
        self._out.append(Kill(task.id, task.agent_id))

    def _drop_if_deserted(self, executor: Executor) -> None:
        """Forget an executor that has no tasks and is gone, or whose agent is; end one whose app is."""
        if self._load.get(executor_key(executor.agent_id, executor.id)):
            return
        entry = self.cluster.agents.get(executor.agent_id)
        if entry is None or entry.lost or executor_key(executor.agent_id, executor.id) in self._gone:
            self._forget_executor(executor)
        elif executor.app not in self.apps:
            self._out.append(ShutdownExecutor(executor.id, executor.agent_id))

    def _forget_executor(self, executor: Executor) -> None:
        self.cluster.unhold(executor.agent_id, executor.id)
        key = executor_key(executor.agent_id, executor.id)
        del self.executors[key]
        self._gone.discard(key)
        self._idle.pop(key, None)
        self._dirty[Kind.EXECUTOR, key] = None

    # ----------------------------------------------------------------------------------------------- commands

    def _on_put_app(self, event: PutApp) -> None:
        app, known = event.app, self.apps.get(event.app.name)
        if known is not None and not event.replace:
            raise Conflict(f"app {app.name} exists", field="appName", fix="update it, or choose another name")
        if known is None and event.replace:
            raise NotFound(f"there is no app {app.name}", field="appName", fix="register it first")
        if app == known:
            return
        plan = launch.plan_executor(app, self.policy.artifacts)
        renewed = known is not None and plan.id != self._plan_of(app.name).id
        self.apps[app.name] = app
        self._dirty[Kind.APP, app.name] = app
        self._plans[app.name] = plan
        for job in self._jobs_of(app.name):
            self.faults.pop(job.name, None)
            if renewed and job.kind is JobKind.DAEMON:
                self._renew(job, event.at)
        self._publish(event.at, Topic.CONFIG, f"app {app.name} is {'updated' if known else 'registered'}")
        self._work()

    def _on_remove_app(self, event: RemoveApp) -> None:
        self._app(event.name)
        jobs = self._jobs_of(event.name)
        if jobs and not event.jobs:
            raise Conflict(
                f"app {event.name} has {len(jobs)} jobs", field="appName", fix="remove them first, or ask for both"
            )
        del self.apps[event.name]
        self._plans.pop(event.name, None)
        self._dirty[Kind.APP, event.name] = None
        self._set_app_mark(event.name, disabled=False)
        for job in jobs:
            self._remove_job(job, event.at)
        for executor in [e for e in self.executors.values() if e.app == event.name]:
            self._drop_if_deserted(executor)
        self._publish(event.at, Topic.CONFIG, f"app {event.name} is removed")

    def _on_set_app_enabled(self, event: SetAppEnabled) -> None:
        self._app(event.name)
        if event.enabled == (event.name not in self.disabled_apps):
            return
        self._set_app_mark(event.name, disabled=not event.enabled)
        for job in self._jobs_of(event.name):
            self._apply_enabled(job, event.at)
        self._publish(event.at, Topic.CONFIG, f"app {event.name} is {'enabled' if event.enabled else 'disabled'}")

    def _on_put_job(self, event: PutJob) -> None:
        job, known = event.job, self.jobs.get(event.job.name)
        if known is not None and not event.replace:
            raise Conflict(f"job {job.name} exists", field="jobName", fix="update it, or choose another name")
        if known is None and event.replace:
            raise NotFound(f"there is no job {job.name}", field="jobName", fix="register it first")
        if job.app not in self.apps:
            raise NotFound(f"there is no app {job.app}", field="appName", fix="register the app first")
        if job == known:
            return
        if known is not None and self._due.get(job.name, event.at + 1) <= event.at:
            self._contained(job.name, event.at, self._fire, known, self._due[job.name], event.at)
        self.jobs[job.name] = job
        self._dirty[Kind.JOB, job.name] = job
        self.faults.pop(job.name, None)
        if known is None:
            # Runs of a removed job of this name may still be ending: they are of an older generation.
            ending = max((firing.generation for firing in self.queue.unfinished(job.name)), default=0)
            self.states[job.name] = JobState(considered_ms=event.at, generation=ending + 1)
            self._dirty[Kind.JOB_STATE, job.name] = self.states[job.name]
            self._ensure_daemon(job, event.at)
        elif not same_work(known, job):
            self._renew(job, event.at)
        # Under the new times nothing was due before now, nor is it for a leader that comes later.
        self._set_state(job.name, considered_ms=max(event.at, self.states[job.name].considered_ms))
        self._schedule(job, self.states[job.name].considered_ms)
        self._publish(event.at, Topic.CONFIG, f"job {job.name} is {'updated' if known else 'registered'}", job=job.name)

    def _on_remove_job(self, event: RemoveJob) -> None:
        self._remove_job(self._job(event.name), event.at)

    def _on_set_job_enabled(self, event: SetJobEnabled) -> None:
        job = self._job(event.name)
        if event.enabled == (not self.states[job.name].disabled):
            return
        self._set_state(job.name, disabled=not event.enabled)
        self._apply_enabled(job, event.at)
        self._publish(
            event.at, Topic.CONFIG, f"job {job.name} is {'enabled' if event.enabled else 'disabled'}", job=job.name
        )

    def _on_trigger(self, event: Trigger) -> None:
        job = self._job(event.job)
        if job.kind is JobKind.DAEMON:
            raise Conflict(f"job {job.name} is resident: it cannot be triggered", field="jobName")
        if not self._enabled(job.name):
            raise Conflict(f"job {job.name} or its app is disabled", field="jobName", fix="enable it first")
        waiting = len(self.queue.unfinished(job.name))
        if waiting >= self.policy.most_waiting:
            raise Conflict(
                f"{waiting} firings of job {job.name} wait already", field="jobName", fix="let them run first"
            )
        self._enqueue(job, Cause.TRIGGER, event.at, event.at)

    def _on_kill_task(self, event: KillTask) -> None:
        task = self.tasks.get(event.task_id)
        if task is None:
            raise NotFound(f"no task {event.task_id} is running", field="taskId", fix="`jobcloud tasks` lists them")
        daemon = self.firings[task.firing_id].cause is Cause.DAEMON
        if daemon:  # the job still wants the shard: it comes back
            self._send_kill(task, event.at)
        else:
            self._kill(task, event.at)

    def _remove_job(self, job: Job, at: int) -> None:
        # First of all: what a resident job loses it would otherwise start again.
        del self.jobs[job.name], self.states[job.name]
        self._cancel(job.name, at, "the job was removed")
        self._dirty[Kind.JOB, job.name] = None
        self._dirty[Kind.JOB_STATE, job.name] = None
        for noted in (self._due, self.faults, self._refusals):
            noted.pop(job.name, None)
        self._prune_history(job.name)
        self._publish(at, Topic.CONFIG, f"job {job.name} is removed", job=job.name)

    def _apply_enabled(self, job: Job, at: int) -> None:
        """After a change of a disabled mark. What fell due meanwhile is not made up for."""
        if self._enabled(job.name):
            # Never backwards, should the clock have been set back: what has fired is not due again.
            considered = max(at, self.states[job.name].considered_ms)
            self._set_state(job.name, considered_ms=considered)
            self._schedule(job, considered)
            self._ensure_daemon(job, at)
        else:
            self._due.pop(job.name, None)
            self._cancel(job.name, at, "the job or its app was disabled")

    def _renew(self, job: Job, at: int) -> None:
        """The job's work has changed: what was made from the old configuration ends before anything new starts."""
        self._set_state(job.name, generation=self.states[job.name].generation + 1)
        self._cancel(job.name, at, "the job or its app was updated")
        self._ensure_daemon(job, at)

    def _cancel(self, job: str, at: int, why: str) -> None:
        """End the job's unfinished firings: shards that wait at once, running ones by a kill."""
        for firing in self.queue.unfinished(job):
            self._cancel_firing(firing, at, why)

    def _cancel_firing(self, firing: Firing, at: int, why: str) -> None:
        for shard in firing.shards:
            if shard.state is ShardState.ACTIVE:
                self._kill(self.tasks[shard.task_id], at)
        waiting = {item: shard for item, shard in enumerate(firing.shards) if shard.state is ShardState.WAITING}
        if waiting:
            self._put_shards(firing.id, {
                item: replace(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
                for item, shard in waiting.items()
            }, at)  # fmt: skip

    def _ensure_daemon(self, job: Job, at: int) -> None:
        """A resident job has one firing, which waits for nothing but the end of an older one."""
        if job.kind is not JobKind.DAEMON or not self._enabled(job.name) or self.queue.unfinished(job.name):
            return
        self._add_firing(sharding.make_firing(job, self.states[job.name], Cause.DAEMON, at, self._unique()))

    # ------------------------------------------------------------------------------------------------ records

    def _add_firing(self, firing: Firing) -> None:
        self.firings[firing.id] = self._dirty[Kind.FIRING, firing.id] = firing
        self.queue.add(firing)
        self._work()

    def _put_task(self, task: Task) -> None:
        self.tasks[task.id] = task
        self._dirty[Kind.TASK, task.id] = task

    def _put_shards(self, firing_id: str, changes: dict[int, Shard], at: int, *, store: bool = True) -> None:
        """Replace some shards; a firing whose shards have all ended has ended with them.

        Without `store` the change is one that the tasks' records hold as well.
        """
        old = self.firings[firing_id]
        shards = list(old.shards)
        for item, shard in changes.items():
            shards[item] = shard
        firing = Firing(old.id, old.job, old.generation, old.cause, old.fire_ms, tuple(shards))
        if not self.queue.change(firing, changes):
            firing = replace(firing, ended_ms=at)
        self.firings[firing_id] = firing
        if store:
            self._dirty[Kind.FIRING, firing_id] = firing
        if firing.ended_ms:
            self._done(firing, at)

    def _done(self, firing: Firing, at: int) -> None:
        counts = {state: sum(s.state is state for s in firing.shards) for state in ShardState if state.ended}
        text = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        self._publish(at, Topic.DONE, text, job=firing.job, firing_id=firing.id)
        self._history.setdefault(firing.job, deque()).append(firing.id)
        self._prune_history(firing.job)
        job = self.jobs.get(firing.job)
        if job is not None:
            self._ensure_daemon(job, at)
        self._work()

    def _prune_history(self, job: str) -> None:
        ended = self._history.get(job, deque())
        keep = self.policy.history if job in self.jobs else 0
        while len(ended) > keep:
            firing_id = ended.popleft()
            del self.firings[firing_id]
            self._dirty[Kind.FIRING, firing_id] = None
        if not ended:
            self._history.pop(job, None)

    def _set_state(self, job: str, **changes: Any) -> None:
        self.states[job] = replace(self.states[job], **changes)
        self._dirty[Kind.JOB_STATE, job] = self.states[job]

    def _set_app_mark(self, app: str, *, disabled: bool) -> None:
        if disabled:
            self.disabled_apps.add(app)
        else:
            self.disabled_apps.discard(app)
        self._dirty[Kind.DISABLED_APP, app] = True if disabled else None

    def _flush(self) -> list[Effect]:
        if self._dirty:
            self._out.append(Save(tuple(Write(kind, key, record) for (kind, key), record in self._dirty.items())))
        effects = sorted(self._out, key=lambda effect: RANK[type(effect)])
        self._dirty, self._out = {}, []
        return effects

    # ------------------------------------------------------------------------------------------------ helpers

    def _app(self, name: str) -> App:
        if name not in self.apps:
            raise NotFound(f"there is no app {name}", field="appName", fix="`jobcloud app list` names them")
        return self.apps[name]

    def _job(self, name: str) -> Job:
        if name not in self.jobs:
            raise NotFound(f"there is no job {name}", field="jobName", fix="`jobcloud job list` names them")
        return self.jobs[name]

    def _jobs_of(self, app: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.app == app]

    def _executors_of(self, agent_id: str) -> list[Executor]:
        return [executor for executor in self.executors.values() if executor.agent_id == agent_id]

    def _enabled(self, job: str) -> bool:
        return (
            not self.states[job].disabled and self.jobs[job].app not in self.disabled_apps
            if job in self.jobs
            else False
        )

    def _wanted(self, firing: Firing) -> bool:
        return self._enabled(firing.job) and firing.generation == self.states[firing.job].generation

    def _plan_of(self, app: str) -> ExecutorPlan:
        if app not in self._plans:
            self._plans[app] = launch.plan_executor(self._app(app), self.policy.artifacts)
        return self._plans[app]

    def _request(self, job: Job) -> Request:
        return self._plan_of(job.app).request(job)

    def _requests_in_use(self) -> set[Request]:
        return {self._request(job) for job in self.jobs.values() if job.app in self.apps}

    def _unique(self) -> str:
        self._sequence += 1
        return f"{self.epoch}-{self._sequence}"

    def _fence(self) -> int:
        """Grows over all attempts of all leaders; fits a double exactly for 9 million leaders."""
        return self.epoch * 1_000_000_000 + self._sequence

    def _work(self) -> None:
        self._round_wanted = self._new_work = True

    def _contained(self, job: str, at: int, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Do something for one job; a fault in it marks that job and touches no other. None where it failed."""
        try:
            return do(*args, **kwargs)
        except Exception as error:  # whatever is wrong with one job, the others go on
            self.faults[job] = f"{type(error).__name__}: {error}"
            self._publish(at, Topic.FAULT, self.faults[job], job=job)
            return None

    def _publish(self, at: int, topic: Topic, text: str, **about: Any) -> None:
        notice = Publish(at, topic, text, **about)
        self._story.append(notice)
        self._out.append(notice)

    def _tell(self, at: int, topic: Topic, task: Task, text: str, state: str = "") -> None:
        self._publish(at, topic, text, job=task.job, firing_id=task.firing_id, task_id=task.id, item=task.item,
                      hostname=task.hostname, state=state)  # fmt: skip

    def _reasons(self, job: Job, head: Firing | None, at: int) -> Iterable[Reason]:
        if job.app in self.disabled_apps:
            yield Reason("app_disabled", f"app {job.app} is disabled")
        if self.states[job.name].disabled:
            yield Reason("job_disabled", "the job is disabled")
        if job.name in self.faults:
            yield Reason("fault", self.faults[job.name])
        if head is None:
            due = self._due.get(job.name)
            yield Reason("not_due", "no firing is due now" if due else "no firing is due, now or later", at=due or 0)
            return
        waiting = [shard for shard in head.shards if shard.state is ShardState.WAITING]
        if not waiting:
            yield Reason("running", f"all shards of {head.id} are placed")
            return
        if not self.connected:
            yield Reason("disconnected", "there is no connection to a Mesos master", waiting_helps=True)
        elif not self.cluster.held:
            yield Reason("no_offers", "no offer is held; they have been asked for", waiting_helps=True)
        backoff = max(shard.not_before_ms for shard in waiting)
        if backoff > at:
            last = max(waiting, key=lambda shard: shard.not_before_ms)
            yield Reason("back_off", f"the last attempt failed: {last.message}", waiting_helps=True, at=backoff)
        yield from self._refusals.get(job.name, ())

    # ------------------------------------------------------------------------------------------------ restore

    def _restore(self, at: int) -> None:
        """Take up stored state: queue and timers from it, claims for every task that may live."""
        for firing in sorted(self.firings.values(), key=_age):
            if firing.ended_ms:
                self._history.setdefault(firing.job, deque()).append(firing.id)
            else:
                self.queue.add(firing)
        self._shorten_back_offs(at)
        for key, executor in self.executors.items():
            self._restore_executor(key, executor, at)
        for task in self.tasks.values():
            key = executor_key(task.agent_id, task.executor_id)
            executor_need = amounts(self.executors[key].shares)
            self.cluster.claim(task.id, task.agent_id, Request(task.resources, task.executor_id, executor_need))
            self._load[key] += 1
            self._idle.pop(key, None)
            if task.kill_ms:
                self._kills[task.id] = at
        for firing in [firing for firing in self.firings.values() if not firing.ended_ms]:
            if firing.job not in self.jobs or firing.generation != self.states[firing.job].generation:
                self._cancel_firing(firing, at, repair.MESSAGE)
        for name in sorted(self._history.keys() - self.jobs.keys()):
            self._prune_history(name)
        for job in list(self.jobs.values()):
            self._contained(job.name, at, self._schedule, job, self.states[job.name].considered_ms)
            self._contained(job.name, at, self._ensure_daemon, job, at)

    def _restore_executor(self, key: str, executor: Executor, at: int) -> None:
        """It may live still, with or without tasks; one without a record of its own is described from its app."""
        if executor.spec == repair.NO_SPEC:
            plan = self._plan_of(executor.app) if executor.app in self.apps else None
            if plan is not None and plan.id == executor.id:
                shares = tuple(Share(name, n) for name, n in zip(DIMENSIONS, plan.resources, strict=True) if n)
                executor = replace(executor, spec=plan.spec, shares=shares)
                self.executors[key] = self._dirty[Kind.EXECUTOR, key] = executor
        self.cluster.hold(executor.agent_id, executor.id, amounts(executor.shares))
        self._idle[key] = at


def _age(firing: Firing) -> tuple[int, bool, int, int, str]:
    """Sorts firings as they came; whatever the clocks said, the one that runs was the first."""
    runs = any(shard.state is ShardState.ACTIVE for shard in firing.shards)
    return firing.ended_ms, not runs, firing.generation, firing.fire_ms, firing.id


def latest(schedule: Schedule, first: int, until: int) -> int:
    """The last firing at or before `until`, given that `first` is one. By bisection: about 40 steps however long."""
    low, high = first, until
    while low < high:
        middle = (low + high) // 2
        following = schedule.next_after(middle)
        if following is not None and following <= until:
            low = following
        else:
            high = middle
    return low


_RUNNING_GOES_ON = {"description", "failover", "misfire", "catch_up", "priority"}
_ONLY_THE_TIMER = {"cron", "zone", "dialect", "gap", "fold"}


def same_work(old: Job, new: Job) -> bool:
    """Whether running work of `old` may go on under `new`: only how it is scheduled or described has changed."""
    neutral = _RUNNING_GOES_ON | (_ONLY_THE_TIMER if old.kind is JobKind.TRANSIENT else set())
    return all(getattr(old, f.name) == getattr(new, f.name) for f in fields(Job) if f.name not in neutral)


def cause_of(data: str) -> str:
    """The executor's own word for how a task ended, from an update's data; "" where it gives none."""
    try:
        found = json.loads(data)["cause"] if data else ""
    except (ValueError, LookupError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def describe(update: Status) -> str:
    """One text from what an update says of an end."""
    if update.message and not update.reason:
        return update.message[:4_000]
    found = ": ".join(part for part in (update.reason, update.message) if part)
    return found[:4_000] if found or update.state == "TASK_FINISHED" else update.state
