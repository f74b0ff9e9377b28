"""Shared by the tests of the scheduler: values with defaults, a scheduler, and a small simulated Mesos.

The simulated Mesos accounts for every offer, task and executor by itself. It refuses the same calls as a real Mesos and
knows which tasks really run. Calls to it and events from it wait in two queues, so that a test decides which of them
are reordered or lost.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from jobcloud.config import DIMENSIONS, NEW_AD_HOC, App, Job, JobKind, JobType, Package, Resources
from jobcloud.match import AnyMatcher, Matcher
from jobcloud.messages import (
    RANK,
    Accept,
    AcceptInverseOffers,
    Acknowledge,
    AgentLost,
    Call,
    Decline,
    DeclineInverseOffers,
    Effect,
    Event,
    ExecutorLost,
    FrameworkRemoved,
    InverseOffersReceived,
    Kill,
    Kind,
    Launch,
    Notice,
    OfferRescinded,
    OffersReceived,
    PutApp,
    PutJob,
    Reconcile,
    Resubscribe,
    Revive,
    Save,
    SendFailed,
    ShutdownExecutor,
    Status,
    StatusReceived,
    Subscribed,
    Suppress,
    Tick,
    Write,
)
from jobcloud.model import Firing, InverseOffer, Offer, Restoration, Share, TaskName, Window
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.cluster import amounts
from jobcloud.scheduler.launch import Artifacts
from jobcloud.server.records import decode, encode

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ARTIFACTS = Artifacts("http://artifacts", "e" * 64, "executor.zip", "exec python3 executor.zip")
POLICY = Policy(ARTIFACTS)
NEVER = "0 0 0 1 1 ? 2099"
END_STATES = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_ERROR", "TASK_DROPPED", "TASK_GONE",
              "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN"}  # fmt: skip


def served_by(policy: Policy, epoch: int) -> Policy:
    """The policy of the leader of an epoch. Each leader serves artifacts from its own address."""
    return replace(policy, artifacts=replace(policy.artifacts, base_url=f"http://leader-{epoch}"))


def make_app(name: str = "shop", version: int = 1, **fields: Any) -> App:
    return App(name, Package("package:sha256:", f"{version:064x}"), **fields)


def make_job(name: str = "report", **fields: Any) -> Job:
    given: dict[str, Any] = {
        "app": "shop", "kind": JobKind.TRANSIENT, "type": JobType.SIMPLE, "cron": NEVER, "shard_count": 1,
        "resources": Resources(1000, 128_000), "job_class": "shop.jobs:Report",
    }  # fmt: skip
    return Job(name, **(given | fields))


def make_ad_hoc_job(name: str = "report", **fields: Any) -> Job:
    return make_job(name, **{"cron": "", "ad_hoc": NEW_AD_HOC, **fields})


def make_offer(
    offer_id: str, agent: str = "a1", cpus: int = 8, mem: int = 8_192, role: str = "*", **more: int
) -> Offer:
    """`cpus` in CPUs, `mem` in MiB, `more` in the unit of each resource."""
    values = {"cpus": cpus, "mem": mem, **more}
    origin = json.dumps({"allocation_info": {"role": role}})
    shares = tuple(Share(name, number * 1000, origin) for name, number in values.items() if number)
    return Offer(offer_id, agent, f"host-{agent}", f"10.0.0.1:{5051}", shares, role=role)


def make_status(task_id: str, state: str, uuid: str = "", **fields: str) -> Status:
    return Status(task_id, TaskName.parse(task_id).agent_id, state, uuid, **fields)


def apply(stored: Stored, writes: Iterable[Write]) -> None:
    """Apply the writes of one Save, as a store does."""
    tables: dict[Kind, dict[str, Any]] = {
        Kind.APP: stored.apps,
        Kind.JOB: stored.jobs,
        Kind.JOB_STATE: stored.job_states,
        Kind.FIRING: stored.firings,
        Kind.SHARD: stored.shards,
        Kind.TASK: stored.tasks,
        Kind.EXECUTOR: stored.executors,
        Kind.DRAIN: stored.drains,
        Kind.ATTEMPT: stored.attempts,
        Kind.PAUSE: stored.pauses,
        Kind.BACKFILL: stored.backfills,
        Kind.AD_HOC: stored.ad_hoc,
        Kind.APP_VERSION: stored.app_versions,
        Kind.ALERT: stored.alerts,
        Kind.ALERT_MESSAGE: stored.alert_messages,
        Kind.SILENCE: stored.silences,
        Kind.TEAM: stored.teams,
        Kind.ROLE: stored.roles,
        Kind.USER: stored.users,
        Kind.ACCESS_TOKEN: stored.access_tokens,
        Kind.SESSION: stored.sessions,
        Kind.POOL: stored.pools,
        Kind.CALENDAR: stored.calendars,
        Kind.WORKFLOW: stored.workflows,
        Kind.WORKFLOW_RUN: stored.workflow_runs,
        Kind.NODE: stored.nodes,
    }
    for write in writes:
        if isinstance(write.record, Firing):  # the record of a wide firing has no shards
            stored.firings[write.key] = cast(Firing, decode(write.kind, write.key, encode(write.kind, write.record)))
        elif write.kind is Kind.FRAMEWORK:
            stored.framework_id = str(write.record or "")
        elif write.kind is Kind.RESTORATION:
            stored.restoration = cast("Restoration | None", write.record)
        elif write.kind is Kind.DISABLED_APP:
            (stored.disabled_apps.add if write.record else stored.disabled_apps.discard)(write.key)
        elif write.record is None:
            tables[write.kind].pop(write.key, None)
        else:
            tables[write.kind][write.key] = write.record


def copy_of(stored: Stored) -> Stored:
    return Stored(dict(stored.apps), dict(stored.jobs), dict(stored.job_states), set(stored.disabled_apps),
                  dict(stored.firings), dict(stored.tasks), dict(stored.executors), stored.framework_id,
                  dict(stored.drains), dict(stored.shards), stored.restoration, dict(stored.attempts),
                  dict(stored.pauses), dict(stored.backfills), dict(stored.ad_hoc),
                  dict(stored.app_versions), dict(stored.alerts), dict(stored.alert_messages),
                  dict(stored.silences), dict(stored.teams), dict(stored.roles), dict(stored.users),
                  dict(stored.access_tokens), dict(stored.sessions), dict(stored.pools),
                  dict(stored.calendars), dict(stored.workflows), dict(stored.workflow_runs),
                  dict(stored.nodes))  # fmt: skip


class CountingMatcher:
    """A matcher that checks that each claim is released exactly once."""

    def __init__(self, dimensions: int) -> None:
        self._matcher = Matcher(dimensions)

    def release(self, release_ids: Any) -> Any:
        unknown = self._matcher.release(release_ids)
        assert not len(unknown), f"released twice, or never claimed: {unknown}"
        return unknown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matcher, name)


def counting_matcher(dimensions: int) -> AnyMatcher:
    return cast(AnyMatcher, CountingMatcher(dimensions))


class Desk:
    """A scheduler with its store, for tests that make events by hand.

    `at` is the current time, `last` the effects of the last event, `all` those of every event.
    """

    def __init__(self, *objects: App | Job, policy: Policy = POLICY, subscribed: bool = True) -> None:
        self.policy = policy
        self.at = START
        self.stored = Stored()
        self.epoch = 1
        self.scheduler = self._new()
        self.all: list[Effect] = []
        for thing in objects:
            self.do(PutApp(self.at, thing) if isinstance(thing, App) else PutJob(self.at, thing))
        if subscribed:
            self.do(Subscribed(self.at, "framework-1", "master"))

    def _new(self) -> Scheduler:
        policy = served_by(self.policy, self.epoch)
        return Scheduler(policy, copy_of(self.stored), self.epoch, self.at, counting_matcher)

    def do(self, event: Event) -> list[Effect]:
        effects = self.scheduler.handle(event)
        ranks = [RANK[type(effect)] for effect in effects]
        assert ranks == sorted(ranks), "effects are out of order"
        for effect in effects:
            if isinstance(effect, Save):
                apply(self.stored, effect.writes)
        self.scheduler.validate()
        self.all += effects
        self.last = effects
        return effects

    def tick(self, ms: int = 0) -> list[Effect]:
        self.at += ms
        return self.do(Tick(self.at))

    def run_until_idle(self, until_ms: int = 0) -> list[Effect]:
        """Tick whenever the scheduler asks for it, up to `until_ms` from now. It must not ask twice without need."""
        end, effects = self.at + until_ms, self.tick()
        for _ in range(10_000):
            wake = self.scheduler.next_wake(self.at)
            if wake is None or wake > end:
                self.at = end
                return effects
            assert wake >= self.at
            if wake == self.at:
                again = self.tick()
                assert self.scheduler.next_wake(self.at) != self.at, "it asks for ticks endlessly"
                effects = effects + again
            else:
                self.at = wake
                effects = effects + self.tick()
        raise AssertionError("it never comes to rest")

    def offer(self, *offers: Offer) -> list[Effect]:
        self.do(OffersReceived(self.at, offers or (make_offer(f"o{self.at}-{len(self.all)}"),)))
        return self.run_until_idle()

    def status(self, task_id: str, state: str, uuid: str = "u", **fields: str) -> list[Effect]:
        return self.do(StatusReceived(self.at, make_status(task_id, state, uuid, **fields)))

    def restart(self, same_epoch: bool = False) -> None:
        self.epoch += not same_epoch
        self.scheduler = self._new()
        self.do(Subscribed(self.at, self.stored.framework_id or "framework-1"))

    def launched(self, effects: list[Effect] | None = None) -> list[Launch]:
        return [one for accept in of(Accept, effects if effects is not None else self.last) for one in accept.launches]

    def firings(self, job: str = "report") -> list[Any]:
        return [firing for firing in self.scheduler.firings.values() if firing.job == job]

    def running(self, job: str = "report") -> list[str]:
        """Ids of the job's tasks that have a record."""
        return [task.id for task in self.scheduler.tasks.values() if task.job == job]


def of(kind: type, effects: Iterable[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def payload_of(launched: Launch) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(launched.data)
    return found


# ------------------------------------------------------------------------------------------------ a small Mesos


@dataclass(slots=True)
class RealTask:
    """A task as it really is on its agent. `updates` are not acknowledged yet, oldest first."""

    id: str
    agent: str
    executor: str
    need: Resources
    state: str = "TASK_STAGING"
    updates: list[Status] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in END_STATES


@dataclass(slots=True)
class RealAgent:
    id: str
    total: Resources
    executors: dict[str, tuple[str, Resources]] = field(default_factory=dict)
    reachable: bool = True
    gone: bool = False


class Mesos:
    """Master and agents in one. `calls` are to be processed, `events` to be delivered."""

    def __init__(self, dice: random.Random, capacities: dict[str, Resources]) -> None:
        self.dice = dice
        self.agents = {name: RealAgent(name, total) for name, total in capacities.items()}
        self.tasks: dict[str, RealTask] = {}
        self.offers: dict[str, Offer] = {}
        self.framework = ""
        self.subscribed = False
        self.suppressed = False
        self.calls: list[Call | Acknowledge] = []
        self.events: list[Callable[[int], Event]] = []
        self.received: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._numbers = 0
        self.windows: dict[str, Window] = {}
        #: tasks that may live without a record: declared lost, rightly or not, or their record was lost
        self.excused: set[str] = set()
        self.answers: Counter[str] = Counter()

    # -------------------------------------------------------------------------------------------- the truth

    def live(self, agent: str | None = None) -> list[RealTask]:
        """The tasks that really run, without those of agents that are declared gone."""
        return [t for t in self.tasks.values() if not t.ended and not self.agents[t.agent].gone
                and agent in (None, t.agent)]  # fmt: skip

    def used(self, agent: str) -> Resources:
        total = Resources()
        for task in self.live(agent):
            total = total.plus(task.need)
        for _, need in self.agents[agent].executors.values():
            total = total.plus(need)
        return total

    def outstanding(self, agent: str) -> Resources:
        return amounts(share for offer in self.offers.values() if offer.agent_id == agent for share in offer.shares)

    def check(self, at_once: Callable[[str], int] = lambda job: 1) -> None:
        """Check that no agent is over-committed and no shard runs more often than `at_once` allows its job."""
        for agent in self.agents.values():
            booked = self.used(agent.id).plus(self.outstanding(agent.id))
            assert all(b <= t for b, t in zip(booked, agent.total, strict=True)), f"{agent.id} is over-committed"
        places = Counter(TaskName.parse(task.id)[:2] for task in self.live() if task.id not in self.excused)
        twice = [place for place, number in places.items() if number > at_once(place[0])]
        assert not twice, f"running twice: {twice}"

    # ----------------------------------------------------------------------------------------- master to scheduler

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _post(self, event: Callable[[int], Event]) -> None:
        if self.subscribed:
            self.events.append(event)

    def subscribe(self, framework_id: str) -> None:
        self.framework = framework_id or f"framework-{self._number()}"
        self.subscribed, self.suppressed = True, False
        self.events.clear()
        self.offers.clear()
        found = self.framework
        self._post(lambda at: Subscribed(at, found, "master"))

    def drop_connection(self) -> list[SendFailed]:
        """End the stream. A call under way fails with certainty, or may have arrived. Returns the failures."""
        failed = []
        for call in self.calls:
            certain = self.dice.random() < 0.5
            if not certain and self.dice.random() < 0.5:
                self._perform(call)
            if not isinstance(call, Acknowledge):
                failed.append(SendFailed(0, call, "connection lost", certain))
        self.subscribed = False
        self.calls.clear()
        self.events.clear()
        self.offers.clear()
        return failed

    def remove_framework(self) -> None:
        for task in self.tasks.values():
            task.state, task.updates = "TASK_KILLED", []
        for agent in self.agents.values():
            agent.executors.clear()
        self.framework = ""
        self.events.clear()
        self.offers.clear()
        self.calls.clear()
        self._post(lambda at: FrameworkRemoved(at, "removed"))
        self.subscribed = False

    def offer_all(self) -> None:
        if self.subscribed and not self.suppressed:
            for name in self.agents:
                self.offer(name)

    def offer(self, name: str) -> None:
        """Offer the free resources of an agent, sometimes as two offers, and these sometimes in two roles."""
        agent = self.agents[name]
        if not agent.reachable or agent.gone:
            return
        booked = self.used(name).plus(self.outstanding(name))
        free = [total - used for total, used in zip(agent.total, booked, strict=True)]
        parts = [free]
        if self.dice.random() < 0.3:
            first = [amount // 2000 * 1000 for amount in free]
            parts = [first, [a - b for a, b in zip(free, first, strict=True)]]
        offers = []
        roles = self.dice.choice((("*", "*"), ("batch", "web")))
        for part, role in zip(parts, roles, strict=False):
            allocated = f'"allocation_info":{{"role":"{role}"}}'
            shares = tuple(
                Share(dimension, amount, f"{{{allocated}{reserved}}}")
                for dimension, amount in zip(DIMENSIONS, part, strict=True)
                for reserved in (',"role":"r"' if self.dice.random() < 0.2 else "",)
                if amount > 0
            )
            if shares:
                number, window = self._number(), self.windows.get(name)
                offers.append(Offer(f"o{number}", name, f"host-{name}", "10.0.0.1:5051", shares, (), window, role))
        if offers:
            self.offers.update((offer.id, offer) for offer in offers)
            made = tuple(offers)
            self._post(lambda at: OffersReceived(at, made))

    def schedule(self, name: str, window: Window | None) -> None:
        """An operator announces or cancels the maintenance of an agent. Its offers are rescinded."""
        for offer in [offer.id for offer in self.offers.values() if offer.agent_id == name]:
            self.rescind(offer)
        self.windows.pop(name, None)
        if window is not None:
            self.windows[name] = window
            self.ask_for(name)

    def ask_for(self, name: str) -> None:
        window = self.windows.get(name)
        if window is not None and self.live(name):
            inverse = InverseOffer(f"i{self._number()}", name, window)
            self._post(lambda at: InverseOffersReceived(at, (inverse,)))

    def rescind(self, offer_id: str) -> None:
        if self.offers.pop(offer_id, None):
            self._post(lambda at: OfferRescinded(at, offer_id))

    def _tell(self, status: Status) -> None:
        self._post(lambda at: StatusReceived(at, status))

    def _answer(self, task_id: str, agent_id: str, state: str, reason: str = "REASON_RECONCILIATION") -> None:
        """Send an update of the master itself, which is not acknowledged."""
        self._tell(Status(task_id, agent_id, state, reason=reason))

    # ---------------------------------------------------------------------------------------------- agents

    def move(self, task: RealTask, state: str, reason: str = "", data: str = "") -> None:
        """Change a task's state on its agent. The update is kept until it is acknowledged."""
        if task.ended:
            return
        task.state = state
        task.updates.append(Status(task.id, task.agent, state, f"u{self._number()}", reason, data=data))
        self.send_update(task)

    def send_update(self, task: RealTask, any_of_them: bool = False) -> None:
        """Send the oldest unacknowledged update, again or for the first time; with `any_of_them`, a random one."""
        if task.updates and self.agents[task.agent].reachable and not self.agents[task.agent].gone:
            self._tell(self.dice.choice(task.updates) if any_of_them else task.updates[0])

    def end_executor(self, agent: str, executor: str, tell: bool = True) -> None:
        if self.agents[agent].executors.pop(executor, None) is None:
            return
        for task in self.live(agent):
            if task.executor == executor:
                self.move(task, "TASK_FAILED", "REASON_EXECUTOR_TERMINATED")
        if tell:
            self._post(lambda at: ExecutorLost(at, agent, executor))

    def lose_agent(self, name: str) -> None:
        self.agents[name].reachable = False
        for offer in [offer.id for offer in self.offers.values() if offer.agent_id == name]:
            self.rescind(offer)
        self._post(lambda at: AgentLost(at, name))
        for task in self.live(name):
            self._answer(task.id, name, "TASK_UNREACHABLE", "REASON_AGENT_REMOVED")

    def return_agent(self, name: str) -> None:
        agent = self.agents[name]
        if agent.gone:
            agent.gone = False
            for task in self.tasks.values():
                if task.agent == name and not task.ended:
                    task.state, task.updates = "TASK_KILLED", []
            agent.executors.clear()
        agent.reachable = True
        for task in self.live(name):
            self._answer(task.id, name, task.state, "REASON_AGENT_REREGISTERED")

    def declare_gone(self, name: str) -> None:
        """An operator declares the agent gone, and its tasks with it."""
        live = self.live(name)
        self.agents[name].gone, self.agents[name].reachable = True, False
        for offer in [offer.id for offer in self.offers.values() if offer.agent_id == name]:
            self.rescind(offer)
        self._post(lambda at: AgentLost(at, name))
        for task in live:
            self._answer(task.id, name, "TASK_GONE_BY_OPERATOR", "")

    # ----------------------------------------------------------------------------------------- scheduler to master

    def send(self, call: Call | Acknowledge) -> SendFailed | None:
        """Queue a call. Without a connection it fails with certainty."""
        if not self.subscribed and not isinstance(call, Resubscribe):
            return None if isinstance(call, Acknowledge) else SendFailed(0, call, "not connected", certain=True)
        if not isinstance(call, Resubscribe):
            self.calls.append(call)
        return None

    def perform_one(self) -> None:
        if self.calls:
            self._perform(self.calls.pop(0))

    def _perform(self, call: Call | Acknowledge) -> None:
        if isinstance(call, Accept):
            self._accept(call)
        elif isinstance(call, Decline):
            for offer_id in call.offer_ids:
                self.offers.pop(offer_id, None)
        elif isinstance(call, Kill):
            self._kill(call)
        elif isinstance(call, ShutdownExecutor):
            if self.agents[call.agent_id].reachable:
                self.end_executor(call.agent_id, call.executor_id)
        elif isinstance(call, Reconcile):
            self._reconcile(call)
        elif isinstance(call, Acknowledge):
            task = self.tasks.get(call.task_id)
            if task is not None and not self.agents[call.agent_id].gone:
                task.updates = [update for update in task.updates if update.uuid != call.uuid]
                self.send_update(task)
        elif isinstance(call, AcceptInverseOffers | DeclineInverseOffers):
            self.answers.update(call.inverse_offer_ids)
        else:
            self.suppressed = isinstance(call, Suppress)
            assert isinstance(call, Suppress | Revive)

    def _accept(self, call: Accept) -> None:
        offers = [self.offers.get(offer_id) for offer_id in call.offer_ids]
        valid = all(offer is not None and offer.agent_id == call.agent_id for offer in offers)
        if len({offer.role for offer in offers if offer}) > 1:
            self.unexpected.append(f"offers of several roles in one ACCEPT: {call.offer_ids}")
            valid = False
        for offer_id in call.offer_ids:
            self.offers.pop(offer_id, None)
        if not valid:
            for one in call.launches:
                self._answer(one.task_id, call.agent_id, "TASK_DROPPED", "REASON_INVALID_OFFERS")
            return
        role = next(offer.role for offer in offers if offer)
        pool = amounts(share for offer in offers if offer for share in offer.shares)
        for one in call.launches:
            pool = self._launch(call.agent_id, one, pool, role)

    def _launch(self, name: str, one: Launch, pool: Resources, role: str) -> Resources:
        agent, executor = self.agents[name], one.executor
        assert one.task_id not in self.tasks, f"{one.task_id} is launched twice"
        need, cost = amounts(one.shares), amounts(executor.shares)
        known = agent.executors.get(executor.id)
        whole = need if known else need.plus(cost)
        taken = one.shares if known else (*one.shares, *executor.shares)
        roles = {json.loads(share.origin)["allocation_info"]["role"] for share in taken}
        if roles != {role}:
            self._refuse(name, one, f"takes resources of {roles} on offers of {role}, executor alive: {bool(known)}")
            return pool
        if known and known != (executor.spec, cost):
            self._refuse(name, one, f"executor {executor.id} is incompatible")
            return pool
        if any(wanted > have for wanted, have in zip(whole, pool, strict=True)):
            self._refuse(name, one, f"uses {whole}, offered {pool}, executor alive: {bool(known)}")
            return pool
        agent.executors[executor.id] = (executor.spec, cost)
        self.tasks[one.task_id] = RealTask(one.task_id, name, executor.id, need)
        return Resources(*(have - wanted for have, wanted in zip(pool, whole, strict=True)))

    def _refuse(self, name: str, one: Launch, why: str) -> None:
        self.unexpected.append(why)
        self._answer(one.task_id, name, "TASK_ERROR", "REASON_TASK_INVALID")

    def _kill(self, call: Kill) -> None:
        task = self.tasks.get(call.task_id)
        if task is None or (task.ended and not task.updates):
            self._answer(call.task_id, call.agent_id, "TASK_LOST")
        elif self.agents[call.agent_id].reachable and not task.ended and self.dice.random() < 0.8:
            self.move(task, "TASK_KILLED")

    def _reconcile(self, call: Reconcile) -> None:
        pairs = call.tasks or tuple((task.id, task.agent) for task in self.live())
        for task_id, agent_id in pairs:
            task, agent = self.tasks.get(task_id), self.agents[agent_id]
            if agent.gone:
                self._answer(task_id, agent_id, "TASK_GONE_BY_OPERATOR")
            elif task is None or (task.ended and not task.updates):
                self._answer(task_id, agent_id, "TASK_UNKNOWN" if not agent.reachable else "TASK_GONE")
            else:
                self._answer(task_id, agent_id, task.state if agent.reachable else "TASK_UNREACHABLE")


def send_all(effects: Iterable[Effect]) -> Iterable[Call | Acknowledge]:
    return (effect for effect in effects if not isinstance(effect, Save | Notice))
