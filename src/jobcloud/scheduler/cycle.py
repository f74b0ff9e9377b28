"""The scheduling cycle: holds offers for a while, launches shards on them, and declines the unused offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from itertools import islice

from jobcloud.config import DELIMITER, MAX_PRIORITY
from jobcloud.messages import (
    Accept,
    Decline,
    Kind,
    Launch,
    OfferRescinded,
    OffersReceived,
    Revive,
    SendFailed,
    Suppress,
    Topic,
)
from jobcloud.model import MAX_ID_BYTES, NO_OUTCOME, Cause, Firing, Shard, ShardState, Task, changed
from jobcloud.scheduler import launch, queue, revisions, sharding, trace_context
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import InsufficientResources, Placement, Pool, Request
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.reason import Reason, refusal_reasons
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.sharding import Payload
from jobcloud.scheduler.state import State
from jobcloud.scheduler.warm_executors import Place, WarmExecutors

_MAX_AVOIDED = 100
# The matcher adds up the offers of an agent. But offers are divided by role and reservation, so their parts may not fit
# a shard that the matcher has placed. Such a shard waits for this time. This is no failure, and its next place may fit.
_NO_FIT_MS = 5_000
# A cycle places the waiting shards in parts (see `_match`). This is the number of shards in the first part.
_FIRST_PART = 100
# Global names, because an access to an enum member costs a function call in CPython 3.11.
_ACTIVE, _DAEMON, _TASK, _LAUNCHED = ShardState.ACTIVE, Cause.DAEMON, Kind.TASK, Topic.LAUNCHED


class Cycle(Part):
    def __init__(
        self,
        state: State,
        hooks: Hooks,
        firings: Firings,
        executors: Executors,
        circuit_breakers: CircuitBreakers,
        warm_executors: WarmExecutors,
    ) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._firings = firings
        self._executors = executors
        self._circuit_breakers = circuit_breakers
        self._warm_executors = warm_executors
        #: job → the resources that the last cycle lacked for it
        self.refusals: dict[str, tuple[Reason, ...]] = {}
        #: how many cycles have run
        self.cycles = 0
        self._suppressed = False
        #: the instant until which the master may withhold offers because of our filters
        self._filtered_until = 0
        #: the maximum number of tasks in one call; it is lower than the policy's after the master has refused a call
        #: for its size
        self._accept_tasks = state.policy.accept_tasks

    def begin(self, at: int) -> None:
        """The filters and the suppression of offers have ended with the last session."""
        self._suppressed, self._filtered_until, self._state.new_work = False, 0, True
        self._accept_tasks = self._state.policy.accept_tasks

    # ------------------------------------------------------------------------------------------------- offers

    def on_offers(self, event: OffersReceived) -> None:
        for offer in event.offers:
            if len(offer.agent_id) > MAX_ID_BYTES:
                self._state.emit(Decline((offer.id,), self._state.policy.drain_refuse_ms))
            else:
                self._state.cluster.add_offer(offer, event.at)
        self._state.cycle_due = True

    def on_rescind(self, event: OfferRescinded) -> None:
        self._state.cluster.drop_offer(event.offer_id)

    def agents_uncordoned(self, at: int) -> None:
        """Some agents get tasks again. Their offers were declined with filters, which may last for long."""
        self._filtered_until = at + self._state.policy.drain_refuse_ms
        self._state.request_cycle()

    def send_failed(self, event: SendFailed) -> None:
        if isinstance(event.call, Accept) and self._state.connected:
            # The launch failed or may not have arrived. If its offers are still valid, only this DECLINE returns them.
            self._state.emit(Decline(event.call.offer_ids, 0))
            if event.too_large:
                # Halve the limit until the master accepts a call. If the master refuses a call with one task, `Tasks`
                # records a fault of the task's job, and the usual limit applies again.
                half = len(event.call.launches) // 2
                self._accept_tasks = min(self._accept_tasks, half) or self._state.policy.accept_tasks
        elif isinstance(event.call, Suppress | Revive):
            self._suppressed, self._state.new_work = isinstance(event.call, Revive), True

    def _decline_offers(self, at: int) -> None:
        """Decline offers from cordoned agents, offers held for too long, and offers beyond the limit."""
        cluster, policy = self._state.cluster, self._state.policy
        if cordoned := cluster.offers_of_cordoned():
            for offer_id in cordoned:
                cluster.drop_offer(offer_id)
            self._state.emit(Decline(tuple(cordoned), policy.drain_refuse_ms))
        old = cluster.offers_received_before(at - policy.offer_hold_ms)
        unused = old or cluster.oldest_offers(cluster.held - policy.max_offers)
        if not unused:
            return
        for offer_id in unused:
            cluster.drop_offer(offer_id)
        roaming = self._warm_executors.wants_every_agent() and not self._work_waits(at)
        refuse_ms = policy.roaming_refuse_ms if roaming else policy.decline_refuse_ms
        self._state.emit(Decline(tuple(unused), refuse_ms))
        self._filtered_until = at + refuse_ms

    def _suppress_or_revive(self, at: int) -> None:
        """Suppress offers if there is no work and no offer is held. Revive them as soon as there is work."""
        if not self._state.connected:
            return
        waiting, roaming = self._work_waits(at), self._warm_executors.wants_every_agent()
        if (waiting and self._can_revive(at)) or (roaming and self._suppressed):
            self._suppressed, self._filtered_until = False, 0
            self._state.emit(Revive())
        elif not waiting and not roaming and not self._state.cluster.held and not self._suppressed:
            self._suppressed = True
            self._state.emit(Suppress())
        self._state.new_work = False

    # ------------------------------------------------------------------------------------------------- time

    def on_tick(self, at: int) -> None:
        if self._state.connected and self._can_run():
            self._run(at)  # before offers are declined, because the cycle may use them
        self._decline_offers(at)
        self._suppress_or_revive(at)

    def next_wake(self, at: int) -> int | None:
        if self._state.connected and self._has_work(at):
            return at
        oldest = self._state.cluster.oldest_received_ms()
        return oldest + self._state.policy.offer_hold_ms + 1 if oldest is not None else None

    def _has_work(self, at: int) -> bool:
        """Whether a tick may find something to place, or a reason to revive offers."""
        if self._warm_executors.wants_every_agent() and (self._can_run() or self._suppressed):
            return True
        return bool(len(self._state.queue) or self._warm_executors.needs_offers(at)) and (
            self._can_run() or self._can_revive(at)
        )

    def _work_waits(self, at: int) -> bool:
        """Whether a shard or a placeholder waits and may start now."""
        return self._state.queue.any_eligible(
            at, lambda job: self._launchable(job, at)
        ) or self._warm_executors.needs_offers(at)

    def _can_run(self) -> bool:
        return self._state.cycle_due and self._state.cluster.held > 0

    def _can_revive(self, at: int) -> bool:
        return self._state.new_work and (self._suppressed or self._filtered_until > at)

    def clock_set_back(self, at: int) -> None:
        self._filtered_until = min(self._filtered_until, at + self._state.policy.drain_refuse_ms)
        self._state.cluster.age_offers_from(at)

    def sweep(self, at: int) -> None:
        self._state.cluster.forget_idle_agents(at - self._state.policy.agent_memory_ms)
        of_jobs = {self._state.request(job) for job in self._state.jobs.values() if job.app_key in self._state.apps}
        self._state.cluster.prune_classes(of_jobs | self._warm_executors.requests())

    # ------------------------------------------------------------------------------------------------- the cycle

    def _run(self, at: int) -> None:
        """Launch the tasks that may start. If an agent has offers of several roles, there is a pass for each role."""
        self._state.cycle_due = False
        self.cycles += 1
        before = self.refusals
        for _ in range(self._state.cluster.most_roles()):
            self._run_pass(at)
            self._state.cluster.count_next_role()
        for job, reasons in self.refusals.items():
            if job not in before and reasons:
                lacking = reasons[0].resource or reasons[0].code
                self._state.publish(at, Topic.REFUSED, reasons[0].text, job=job, reason=lacking)

    def _run_pass(self, at: int) -> None:
        """Launch the missing placeholders, then the shards that may start, on the offers of one role per agent."""
        warm: dict[str, list[Place]] = {}
        for place in self._warm_executors.place(at):
            warm.setdefault(place.placement.agent_id, []).append(place)
        placed = self._match({place.app.key for places in warm.values() for place in places}, at)
        changes: dict[str, dict[int, Shard]] = {}
        for agent_id in dict.fromkeys((*warm, *placed)):
            self._launch_on(agent_id, warm.get(agent_id, []), placed.get(agent_id, []), changes, at)
        if warm:
            self._warm_executors.recount()
        for firing_id, shards in changes.items():
            self._firings.put_shards(firing_id, shards, at)

    def _eligible(self, at: int) -> list[tuple[str, Sequence[int]]]:
        """The shards that may start, in their order. Each row has the id of a firing, and items of this firing."""
        jobs = self._state.jobs

        def priority(firing: Firing) -> int:
            if firing.terms.backfill:
                return -MAX_PRIORITY - 1  # below each job
            given = firing.terms.priority
            return jobs[firing.job].priority if given is None else given

        return self._state.queue.eligible(at, lambda job: self._launchable(job, at), priority)

    def _launchable(self, job: str, at: int) -> bool:
        may_start = self._state.enabled(job) and job not in self._state.faults
        if self._state.pauses and self._state.paused(job):
            return False
        return may_start and not (
            self._circuit_breakers.open and self._circuit_breakers.blocks(self._state.jobs[job].app_key, at)
        )

    def rehearse(self, at: int) -> list[tuple[str, int, str | None]]:
        """A dry run of the next cycle, without claims.

        Each row is (firing, item, agent or None) of a shard that may start.
        """
        state = self._state
        found = [(state.firings[name], item) for name, items in self._eligible(at) for item in items]
        entries = [(firing, item) for firing, item in found if state.jobs[firing.job].app_key in state.apps]
        agents = state.cluster.rehearse([state.request(state.jobs[firing.job]) for firing, _ in entries])
        return [(firing.id, item, agent) for (firing, item), agent in zip(entries, agents, strict=True)]

    def _match(self, starting: set[str], at: int) -> dict[str, list[tuple[queue.Entry, Placement]]]:
        """Place the shards that may start. Returns placements by agent. `starting`: apps whose placeholders start."""
        placed: dict[str, list[tuple[queue.Entry, Placement]]] = {}
        refused: dict[str, Request] = {}
        hopeless: set[Request] = set()
        wanted = self._requested(starting, refused, hopeless, at)
        left, size = self._state.policy.cycle_limit, _FIRST_PART
        # Far more shards may wait than there is room for, so they are placed in parts. If a part finds no room for a
        # request, later parts skip the shards with the same request.
        while part := list(islice(wanted, max(min(left, size), 1))):
            if not left:
                self._state.cycle_due = True
                break
            size *= 10
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
            self._record_refusals(refused)
        return placed

    def _record_refusals(self, refused: dict[str, Request]) -> None:
        """Record for users which resources each job lacked."""
        reasons: dict[Request, tuple[Reason, ...]] = {}
        self.refusals = {}
        for job, request in refused.items():
            if request not in reasons:
                reasons[request] = tuple(refusal_reasons(self._state.cluster.refusal(request)))
            self.refusals[job] = reasons[request]

    def _requested(
        self, starting: set[str], refused: dict[str, Request], hopeless: set[Request], at: int
    ) -> Iterator[tuple[queue.Entry, Request]]:
        """The shards that may start, with their requests. If a request cannot be made, only its job gets a fault.

        Once the request of a job is `hopeless`, the job is added to `refused`, and its other shards are left out.
        """
        avoiding: set[Request] = set()
        for firing_id, items in self._eligible(at):
            job = self._state.firings[firing_id].job
            if job in self._state.faults:
                continue
            request = self._state.isolated(job, at, self._state.request, self._state.jobs[job])
            if request is None:
                continue
            for item in items:
                if hopeless and request in hopeless:
                    refused[job] = request
                    break
                entry = queue.Entry(firing_id, item)
                if not (self._circuit_breakers.open and self._exceeds_trial(entry, starting)):
                    yield entry, self._avoiding(entry, request, avoiding, at)

    def _exceeds_trial(self, entry: queue.Entry, starting: set[str]) -> bool:
        """Whether the app's circuit breaker allows only one task to start, and this cycle starts one already."""
        app = self._state.jobs[self._state.firings[entry.firing_id].job].app_key
        if not self._circuit_breakers.on_trial(app):
            return False
        known = app in starting
        starting.add(app)
        return known

    def _avoiding(self, entry: queue.Entry, request: Request, known: set[Request], at: int) -> Request:
        """The request of a shard. It avoids the agent on which the last attempt was lost, if there is another agent.

        Each request that avoids an agent is a class of its own in the matcher. If very many agents lose attempts, the
        agents are not the cause. So at most _MAX_AVOIDED requests avoid an agent.
        """
        shard = self._state.firings[entry.firing_id].shards[entry.item]
        if shard.avoid_ms <= at or not self._state.cluster.avoidable(shard.agent_id):
            return request
        away = request._replace(avoid=shard.agent_id)
        if away not in known and len(known) >= _MAX_AVOIDED:
            return request
        known.add(away)
        return away

    # ------------------------------------------------------------------------------------------------- launches

    def _launch_on(
        self,
        agent_id: str,
        warm: list[Place],
        choices: list[tuple[queue.Entry, Placement]],
        changes: dict[str, dict[int, Shard]],
        at: int,
    ) -> None:
        """Emit one ACCEPT for an agent, or a DECLINE. Adds the changed shards of each firing to `changes`.

        An ACCEPT uses up the agent's offers. Shards beyond the limits of one call stay in the queue for the next offer.
        """
        entry = self._state.cluster.agents[agent_id]
        offers = self._state.cluster.take_offers(agent_id)
        pool = Pool(offers)
        placeholders = (self._launch_placeholder(place, pool, entry.hostname, at) for place in warm)
        launches = [launched for launched in placeholders if launched is not None]
        size = sum(launched.size for launched in launches)
        for choice, placement in choices:
            if launches and (len(launches) >= self._accept_tasks or size >= self._state.policy.accept_bytes):
                self._state.cluster.rollback(placement)
                self._state.request_cycle()
                continue
            firing = self._state.firings[choice.firing_id]
            made = self._state.isolated(
                firing.job, at, self._launch, firing, choice.item, placement, pool, entry.hostname, at
            )
            if made is None or made[0] is None:
                self._state.cluster.rollback(placement)
            else:
                launches.append(made[0])
                size += made[0].size
            if made is not None:
                changes.setdefault(firing.id, {})[choice.item] = made[1]
        offer_ids = tuple(offer.id for offer in offers)
        self._state.emit(Accept(agent_id, offer_ids, tuple(launches)) if launches else Decline(offer_ids, 0))

    def _launch(
        self, firing: Firing, item: int, placement: Placement, pool: Pool, hostname: str, at: int
    ) -> tuple[Launch | None, Shard]:
        """Make the task of a placed shard. Returns the launch and the shard's next state.

        The launch is None if the offers hold less than the matcher had counted.
        """
        job, shard = self._state.jobs[firing.job], firing.shards[item]
        resident = firing.cause is _DAEMON
        revision = revisions.of_shards(job, self._state.apps[job.app_key])[item] if resident else ""
        task = Task(
            id=DELIMITER.join(
                (job.key, str(item), shard.execution, placement.agent_id, self._state.unique())
            ),
            firing_id=firing.id, job=job.key, item=item, attempt=shard.attempt + 1, execution=shard.execution,
            agent_id=placement.agent_id, hostname=hostname, app=job.app_key, executor_id="",
            resources=job.resources, created_ms=at, revision=revision,
        )  # fmt: skip

        def describe(task: Task) -> Payload:
            traceparent = trace_context.traceparent_of(firing, task, self._state.policy.trace_ratio)
            return sharding.payload(job, firing, task, self._state.fence(), traceparent)

        try:
            launched = self._start(task, placement, pool, describe, at)
        except InsufficientResources as error:
            return None, changed(shard, not_before_ms=at + _NO_FIT_MS, message=str(error))
        return launched, changed(
            shard, state=_ACTIVE, attempt=task.attempt, task_id=task.id, agent_id=task.agent_id,
            hostname=hostname, executor_id=launched.executor.id, not_before_ms=0, avoid_ms=0, message="",
            outcome=NO_OUTCOME, end=None,
        )  # fmt: skip

    def _launch_placeholder(self, place: Place, pool: Pool, hostname: str, at: int) -> Launch | None:
        """Make a placeholder task. None if the offers hold less than the matcher had counted."""
        task = self._warm_executors.task(place, hostname, at)

        def describe(task: Task) -> Payload:
            return sharding.placeholder_payload(task, self._state.fence())

        try:
            return self._start(task, place.placement, pool, describe, at)
        except InsufficientResources as error:
            self._state.cluster.rollback(place.placement)
            self._warm_executors.could_not_start(place.app.key, str(error), at)
            return None

    def _start(
        self, task: Task, placement: Placement, pool: Pool, describe: Callable[[Task], Payload], at: int
    ) -> Launch:
        """Choose the executor of a task, store task and executor, and bind the task's claim.

        If it raises InsufficientResources, nothing has changed.
        """
        plan = self._state.plan_of(task.app)
        known = self._executors.on(task.agent_id, plan)
        gone = known is not None and executor_key(known.agent_id, known.id) in self._executors.gone
        shares, executor = launch.task_shares(pool, task, known, plan, at, gone=gone)
        ports = launch.ports_of(shares) if task.resources.ports else ()
        task = changed(task, executor_id=executor.id, ports=ports)
        payload = describe(task)
        if executor is not known:
            self._executors.add(executor)
        self._state.cluster.bind(task.id, placement)
        self._state.put(_TASK, task.id, task)
        for hook in self._hooks.task_launched:
            hook(task, at)
        first = task.attempt == 1 and not task.placeholder
        due = self._state.firings[task.firing_id].fire_ms if first else 0
        self._state.publish_task(at, _LAUNCHED, task, f"placed on {task.hostname}", due=due)
        return Launch(task.id, f"{task.job}{DELIMITER}{task.item}", shares, executor, *payload)

    # ------------------------------------------------------------------------------------------------- reading

    def job_removed(self, name: str) -> None:
        self.refusals.pop(name, None)

    def indexes(self) -> Mapping[str, Sized]:
        return {"refusals": self.refusals}

    def validate(self) -> None:
        self._state.cluster.validate(matcher=False)
