"""Rounds: offers are held for a while, matched to the shards that may start, used or given back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from jobcloud.messages import (
    Accept,
    AcceptInverseOffers,
    Decline,
    DeclineInverseOffers,
    Kind,
    Launch,
    OfferRescinded,
    OffersReceived,
    Reconcile,
    Revive,
    SendFailed,
    Suppress,
    Topic,
)
from jobcloud.model import DELIMITER, NO_OUTCOME, Cause, Firing, Shard, ShardState, Task, changed
from jobcloud.scheduler import launch, queue, retry, revisions, sharding
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import InsufficientResources, Placement, Pool, Request
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.explain import Reason, refusal_reasons
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import End
from jobcloud.scheduler.tasks import Tasks
from jobcloud.scheduler.warm_executors import Place, WarmExecutors

_MOST_AVOIDED = 100
# A member of an enumeration costs a function call each time it is named, in CPython 3.11.
_ACTIVE, _DAEMON, _TASK, _LAUNCHED = ShardState.ACTIVE, Cause.DAEMON, Kind.TASK, Topic.LAUNCHED


class Cycle:
    def __init__(
        self,
        state: State,
        firings: Firings,
        reconciliation: Reconciliation,
        executors: Executors,
        tasks: Tasks,
        placeholders: WarmExecutors,
        circuit_breakers: CircuitBreakers,
    ) -> None:
        self._state = state
        self._warm_executors = placeholders
        self._circuit_breakers = circuit_breakers
        self._firings = firings
        self._reconciliation = reconciliation
        self._executors = executors
        self._tasks = tasks
        #: job → what the last round found it short of
        self.refusals: dict[str, tuple[Reason, ...]] = {}
        self._suppressed = False
        self._filtered_until = 0

    def begin(self) -> None:
        """A session with the master has begun: it offers what it has, and knows no filter."""
        self._suppressed, self._filtered_until, self._state.new_work = False, 0, True

    def clock_was_set_back(self, at: int) -> None:
        self._filtered_until = min(self._filtered_until, at + self._state.policy.drain_refuse_ms)

    def sweep(self, at: int) -> None:
        self._state.cluster.forget_idle_agents(at - self._state.policy.agent_memory_ms)
        self._state.cluster.prune_classes(self._requests_in_use())

    def on_offers(self, event: OffersReceived) -> None:
        for offer in event.offers:
            self._state.cluster.add_offer(offer, event.at)
        self._state.cycle_due = True

    def on_rescind(self, event: OfferRescinded) -> None:
        self._state.cluster.drop_offer(event.offer_id)

    def reopen(self, at: int) -> None:
        """Agents get tasks again whose offers were declined for long."""
        self._filtered_until = at + self._state.policy.drain_refuse_ms
        self._state.request_cycle()

    def give_back(self, at: int) -> None:
        """Decline what was held long enough, is held over the limit, or is of agents that get nothing new."""
        if closed := self._state.cluster.offers_of_closed():
            for offer_id in closed:
                self._state.cluster.drop_offer(offer_id)
            self._state.emit(Decline(tuple(closed), self._state.policy.drain_refuse_ms))
        old = self._state.cluster.offers_received_before(at - self._state.policy.offer_hold_ms)
        spare = old or self._state.cluster.oldest_offers(self._state.cluster.held - self._state.policy.max_offers)
        if not spare:
            return
        for offer_id in spare:
            self._state.cluster.drop_offer(offer_id)
        idle = self._warm_executors.roaming() and not self._waiting(at)
        refuse_ms = self._state.policy.roaming_refuse_ms if idle else self._state.policy.decline_refuse_ms
        self._state.emit(Decline(tuple(spare), refuse_ms))
        self._filtered_until = at + refuse_ms

    def wants_tick(self, at: int) -> bool:
        """Whether a Tick would find something to place, or something to ask for."""
        if self._warm_executors.roaming() and (self.can_run() or self._suppressed):
            return True
        return bool(len(self._state.queue) or self._warm_executors.wanting(at)) and (
            self.can_run() or self.can_revive(at)
        )

    def _waiting(self, at: int) -> bool:
        return self._state.queue.any_eligible(
            at, lambda job: self._launchable(job, at)
        ) or self._warm_executors.wanting(at)

    def can_run(self) -> bool:
        return self._state.cycle_due and self._state.cluster.held > 0

    def can_revive(self, at: int) -> bool:
        return self._state.new_work and (self._suppressed or self._filtered_until > at)

    def rest(self, at: int) -> None:
        """With nothing to place and no offer held ask for none; ask again as soon as there is new work."""
        if not self._state.connected:
            return
        waiting, roaming = self._waiting(at), self._warm_executors.roaming()
        if (waiting and self.can_revive(at)) or (roaming and self._suppressed):
            self._suppressed, self._filtered_until = False, 0
            self._state.emit(Revive())
        elif not waiting and not roaming and not self._state.cluster.held and not self._suppressed:
            self._suppressed = True
            self._state.emit(Suppress())
        self._state.new_work = False

    def eligible(self, at: int) -> list[queue.Entry]:
        return [queue.Entry(firing_id, item) for firing_id, items in self._rows(at) for item in items]

    def _rows(self, at: int) -> list[tuple[str, list[int]]]:
        jobs = self._state.jobs
        return self._state.queue.eligible(at, lambda job: self._launchable(job, at), lambda job: jobs[job].priority)

    def _launchable(self, job: str, at: int) -> bool:
        may_start = self._state.enabled(job) and job not in self._state.faults
        return may_start and not (
            self._circuit_breakers.open and self._circuit_breakers.holds(self._state.jobs[job].app, at)
        )

    def round(self, at: int) -> None:
        """Match what may start to the offers held, and launch what found room: keepers of executors first."""
        if not self._state.connected or not self.can_run():
            return
        self._state.cycle_due = False
        kept: dict[str, list[Place]] = {}
        for place in self._warm_executors.place(at):
            kept.setdefault(place.placement.agent_id, []).append(place)
        placed = self._match({place.app.name for places in kept.values() for place in places}, at)
        changes: dict[str, dict[int, Shard]] = {}
        for agent_id in dict.fromkeys((*kept, *placed)):
            self._launch_on(agent_id, kept.get(agent_id, []), placed.get(agent_id, []), changes, at)
        if kept:
            self._warm_executors.recount()
        for firing_id, shards in changes.items():
            self._firings.put_shards(firing_id, shards, at)

    def _match(self, starting: set[str], at: int) -> dict[str, list[tuple[queue.Entry, Placement]]]:
        """By agent, the shards that may start and found room. Of the apps `starting` a keeper does already."""
        placed: dict[str, list[tuple[queue.Entry, Placement]]] = {}
        refused: dict[str, Request] = {}
        hopeless: set[Request] = set()
        wanted = self._requested(starting, refused, hopeless, at)
        left = self._state.policy.cycle_limit
        # In parts: many times as much may wait as there is room for.
        while part := list(islice(wanted, max(left, 1))):
            if not left:
                self._state.cycle_due = True
                break
            placements = self._state.cluster.place([request for _, request in part], left)
            for (entry, request), placement in zip(part, placements, strict=True):
                if placement is None:
                    hopeless.add(request)
                    anywhere = request._replace(avoid="") if request.avoid else request
                    refused[self._state.firings[entry.firing_id].job] = anywhere
                else:
                    placed.setdefault(placement.agent_id, []).append((entry, placement))
                    left -= 1
        if placed or refused:
            self._note_refusals(refused, at)
        return placed

    def _note_refusals(self, refused: dict[str, Request], at: int) -> None:
        """Remember, for people, what the jobs that found no room were short of."""
        reasons: dict[Request, tuple[Reason, ...]] = {}
        before, self.refusals = self.refusals, {}
        for job, request in refused.items():
            if request not in reasons:
                reasons[request] = tuple(refusal_reasons(self._state.cluster.refusal(request)))
            self.refusals[job] = reasons[request]
            if job not in before and reasons[request]:
                self._state.publish(at, Topic.REFUSED, reasons[request][0].text, job=job)

    def _requested(
        self, starting: set[str], refused: dict[str, Request], hopeless: set[Request], at: int
    ) -> Iterator[tuple[queue.Entry, Request]]:
        """The shards that may start, and what each asks for; a fault in describing it stops that job alone.

        Requests that are `hopeless` by the time they would come are not made again, but `refused`.
        """
        avoiding: set[Request] = set()
        for firing_id, items in self._rows(at):
            job = self._state.firings[firing_id].job
            if job in self._state.faults:
                continue
            request = self._state.isolated(job, at, self._state.request, self._state.jobs[job])
            if request is not None and request in hopeless:
                refused[job] = request
            elif request is not None:
                for item in items:
                    entry = queue.Entry(firing_id, item)
                    if not (self._circuit_breakers.open and self._is_too_many(entry, starting)):
                        yield entry, self._avoiding(entry, request, avoiding, at)

    def _is_too_many(self, entry: queue.Entry, starting: set[str]) -> bool:
        """Whether the shard's app is on trial with another one."""
        app = self._state.jobs[self._state.firings[entry.firing_id].job].app
        if not self._circuit_breakers.on_trial(app):
            return False
        known = app in starting
        starting.add(app)
        return known

    def _avoiding(self, entry: queue.Entry, request: Request, known: set[Request], at: int) -> Request:
        """The request, away from the agent that lost the shard's last attempt, as long as there is any other.

        Each agent to avoid costs the matcher a class of its own: where many are at fault at once, it is not them.
        """
        shard = self._state.firings[entry.firing_id].shards[entry.item]
        if shard.avoid_ms <= at or not self._state.cluster.avoidable(shard.agent_id):
            return request
        away = request._replace(avoid=shard.agent_id)
        if away not in known and len(known) >= _MOST_AVOIDED:
            return request
        known.add(away)
        return away

    def _launch_on(
        self,
        agent_id: str,
        kept: list[Place],
        choices: list[tuple[queue.Entry, Placement]],
        changes: dict[str, dict[int, Shard]],
        at: int,
    ) -> None:
        """One ACCEPT, or nothing, for an agent; `changes` collects the shards by firing, to be put at once."""
        entry = self._state.cluster.agents[agent_id]
        offers = self._state.cluster.take_offers(agent_id)
        pool = Pool(offers)
        placeholders = (self._launch_placeholder(place, pool, entry.hostname, at) for place in kept)
        launches = [launched for launched in placeholders if launched is not None]
        for choice, placement in choices:
            firing = self._state.firings[choice.firing_id]
            made = self._state.isolated(
                firing.job, at, self._launch, firing, choice.item, placement, pool, entry.hostname, at
            )
            if made is None or made[0] is None:
                self._state.cluster.rollback(placement)
            else:
                launches.append(made[0])
            if made is not None:
                changes.setdefault(firing.id, {})[choice.item] = made[1]
        offer_ids = tuple(offer.id for offer in offers)
        self._state.emit(Accept(agent_id, offer_ids, tuple(launches)) if launches else Decline(offer_ids, 0))

    def _launch(
        self, firing: Firing, item: int, placement: Placement, pool: Pool, hostname: str, at: int
    ) -> tuple[Launch | None, Shard]:
        """Make the task of one placed shard: cut its resources, write its intent, account for its executor.

        Returns the launch and the shard as it goes on; no launch where the offers turn out to be short.
        """
        job, shard = self._state.jobs[firing.job], firing.shards[item]
        executor_id = self._executors.id_on(placement.agent_id, self._state.plan_of(job.app))
        resident = firing.cause is _DAEMON
        revision = revisions.of_shards(job, self._state.apps[job.app])[item] if resident else ""
        task = Task(
            id=DELIMITER.join(
                (job.name, str(item), shard.execution, placement.agent_id, self._state.unique())
            ),
            firing_id=firing.id, job=job.name, item=item, attempt=shard.attempt + 1, execution=shard.execution,
            agent_id=placement.agent_id, hostname=hostname, app=job.app, executor_id=executor_id,
            resources=job.resources, created_ms=at, revision=revision,
        )  # fmt: skip
        data = sharding.payload(job, firing, task, self._state.fence())
        try:
            launched = self._start(task, placement, pool, data, at)
        except InsufficientResources as short:
            failures = shard.failures + 1
            wait = retry.backoff_ms(failures, job.failover_delay_ms, job.failover_most_ms)
            return None, changed(shard, failures=failures, not_before_ms=at + wait, message=str(short))
        return launched, changed(
            shard, state=_ACTIVE, attempt=task.attempt, task_id=task.id, agent_id=task.agent_id,
            hostname=hostname, executor_id=executor_id, not_before_ms=0, avoid_ms=0, message="", outcome=NO_OUTCOME,
        )  # fmt: skip

    def _launch_placeholder(self, place: Place, pool: Pool, hostname: str, at: int) -> Launch | None:
        """None where the offers turn out to be short."""
        task = self._warm_executors.task(place, hostname, at)
        data = sharding.placeholder_payload(task, self._state.fence())
        try:
            launched = self._start(task, place.placement, pool, data, at)
        except InsufficientResources as short:
            self._state.cluster.rollback(place.placement)
            self._warm_executors.could_not_start(place.app.name, str(short), at)
            return None
        self._warm_executors.launched(task)
        return launched

    def _start(self, task: Task, placement: Placement, pool: Pool, data: bytes, at: int) -> Launch:
        """Write the intent of a task, account for it and for its executor. Raises Short, with nothing changed."""
        key, plan = executor_key(task.agent_id, task.executor_id), self._state.plan_of(task.app)
        gone = key in self._executors.gone
        shares, executor = launch.task_shares(pool, task, self._state.executors.get(key), plan, at, gone=gone)
        if key not in self._state.executors:
            self._state.put(Kind.EXECUTOR, key, executor)
            self._state.cluster.reserve(task.agent_id, executor.id, plan.resources)
        self._state.cluster.bind(task.id, placement)
        self._executors.use(key)
        self._executors.gone.discard(key)  # Mesos starts it again with this task
        self._state.put(_TASK, task.id, task)
        self._circuit_breakers.launched(task, at)
        self._reconciliation.await_answer(task.id, at + self._state.policy.launch_answer_ms)
        self._state.publish_task(at, _LAUNCHED, task, f"placed on {task.hostname}")
        return Launch(task.id, f"{task.job}{DELIMITER}{task.item}", shares, executor, data)

    def on_send_failed(self, event: SendFailed) -> None:
        """What certainly never left is taken back at once; what may have arrived is asked about."""
        call = event.call
        if isinstance(call, Accept):
            for launched in call.launches:
                task = self._state.tasks.get(launched.task_id)
                if task is not None and event.certain:
                    self._tasks.end(task, End.NOT_STARTED, f"the launch was not sent: {event.reason}", event.at)
                elif task is not None:
                    self._reconciliation.await_answer(task.id, event.at)
            if self._state.connected:  # whatever became of the call, its offers are not needed
                self._state.emit(Decline(call.offer_ids, 0))
        elif isinstance(call, Suppress | Revive):
            self._suppressed, self._state.new_work = isinstance(call, Revive), True
        elif isinstance(call, Reconcile):
            self._reconciliation.hurry(event.at)
        elif (
            isinstance(call, AcceptInverseOffers | DeclineInverseOffers) and self._state.connected and not event.certain
        ):
            self._state.emit(call)  # a question without an answer is not asked again
        self._state.publish(event.at, Topic.FAULT, f"{type(call).__name__} failed: {event.reason}")

    def _requests_in_use(self) -> set[Request]:
        of_jobs = {self._state.request(job) for job in self._state.jobs.values() if job.app in self._state.apps}
        return of_jobs | self._warm_executors.requests()
