"""The scheduler: it takes events and returns effects, which the caller performs.

One object owns the state, and only `handle` changes it. This module only dispatches: it makes the parts, hands each
event to its part and calls the hooks of the parts (see part.py). Only a Tick launches tasks. Other events mark a
scheduling cycle as due, and `next_wake` then asks for a Tick at once. So a burst of events causes one cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobcloud.config import Job, Resources
from jobcloud.match import Matcher
from jobcloud.messages import (
    AgentLost,
    AnswerNode,
    Apply,
    BackfillJob,
    CancelBackfill,
    CancelRun,
    CancelWorkflowRun,
    Disconnected,
    DrainAgent,
    Effect,
    EndSessions,
    Event,
    ExecutorLost,
    ForgetTask,
    FrameworkRemoved,
    InverseOffersReceived,
    KillTask,
    NoteSessions,
    OfferRescinded,
    OffersReceived,
    PauseWorkflowRun,
    Publish,
    PutAccess,
    PutApp,
    PutCalendar,
    PutJob,
    PutPool,
    PutSilence,
    PutWorkflow,
    ReconcileTasks,
    RemoveAccess,
    RemoveApp,
    RemoveCalendar,
    RemoveJob,
    RemovePool,
    RemoveService,
    RemoveSilence,
    RemoveWorkflow,
    ReportDelivery,
    ReportProblem,
    Resubscribe,
    Retry,
    RetryWorkflowRun,
    RevokeServerToken,
    RevokeToken,
    RunAdHoc,
    SendFailed,
    SendWorkflowEvent,
    SetAppEnabled,
    SetJobEnabled,
    SetPaused,
    StatusReceived,
    Subscribed,
    Tick,
    Topic,
    Trigger,
    UndrainAgent,
    UseSecrets,
)
from jobcloud.model import Firing, ShardState, Workflow, WorkflowRun
from jobcloud.scheduler import fit, invariants
from jobcloud.scheduler.accounts import Accounts
from jobcloud.scheduler.ad_hoc_runs import AdHocRuns
from jobcloud.scheduler.alerts import Alerts
from jobcloud.scheduler.app_versions import AppVersions
from jobcloud.scheduler.backfills import Backfills
from jobcloud.scheduler.calendars import Calendars
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import Counted, Request
from jobcloud.scheduler.commands import Commands
from jobcloud.scheduler.cycle import Cycle
from jobcloud.scheduler.deadlines import Deadlines
from jobcloud.scheduler.drains import Drains
from jobcloud.scheduler.executors import Executors, ExecutorState
from jobcloud.scheduler.explain import AgentView, Explainer, Explanation, agent_views
from jobcloud.scheduler.failing_agents import FailingAgents
from jobcloud.scheduler.firings import Firings
from jobcloud.scheduler.gangs import Gangs
from jobcloud.scheduler.node_results import NodeResults
from jobcloud.scheduler.part import Hooks
from jobcloud.scheduler.pools import Pools, PoolUse
from jobcloud.scheduler.queue import Depth, Standing
from jobcloud.scheduler.quotas import Quotas, TeamUsage
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.reconciliation import Reconciliation
from jobcloud.scheduler.recovery import Stored as Stored
from jobcloud.scheduler.restorations import Restorations
from jobcloud.scheduler.rollouts import Rollouts
from jobcloud.scheduler.shard_joins import Place
from jobcloud.scheduler.state import MakeMatcher, State
from jobcloud.scheduler.state import Policy as Policy
from jobcloud.scheduler.tasks import Tasks
from jobcloud.scheduler.timeouts import Timeouts
from jobcloud.scheduler.timetable import Timetable
from jobcloud.scheduler.traces import Traces
from jobcloud.scheduler.warm_executors import WarmExecutors
from jobcloud.scheduler.workflows import NodeView, Workflows
from jobcloud.sentences import Told
from jobcloud.triggers import Days


class Scheduler:
    """The state of one leader and its decisions.

    `epoch` is unique to this leader. New ids are made from the epoch and a counter, except those of cron firings. The
    same stored state, epoch and events give the same effects. Readers may use the tables, `cluster` and `queue`, but
    must not change them. `jobs` and `job_states` include the jobs of ad-hoc runs, and `ad_hoc` has only those.
    """

    def __init__(self, policy: Policy, stored: Stored, epoch: int, at: int, matcher: MakeMatcher = Matcher):
        self.policy = policy
        self.epoch = epoch
        #: the instant at which this leader restored the state
        self.restored_ms = at
        self._state = state = State(policy, stored, epoch, at, matcher)
        self.apps = state.apps
        self.jobs = state.jobs
        self.ad_hoc = state.ad_hoc
        self.job_states = state.job_states
        self.disabled_apps = state.disabled_apps
        self.firings = state.firings
        self.newest = state.newest
        self.attempts = state.attempts
        self.tasks = state.tasks
        self.executors = state.executors
        self.drains = state.drains
        self.pauses = state.pauses
        self.backfills = state.backfills
        self.app_versions = state.app_versions
        self.alerts = state.alerts
        self.alert_messages = state.alert_messages
        self.silences = state.silences
        self.pools = state.pools
        self.calendars = state.calendars
        self.workflows = state.workflows
        self.workflow_runs = state.workflow_runs
        #: calendar → its days
        self.days: Mapping[str, Days] = state.days
        accounts = Accounts(state)
        self.directory = accounts.directory
        self.faults = state.faults
        self.cluster = state.cluster
        self.queue = state.queue
        self._hooks = hooks = Hooks()
        self._firings = firings = Firings(state, hooks)
        self._quotas = quotas = Quotas(state)
        self._pools = pools = Pools(state)
        self._executors = executors = Executors(state, quotas)
        circuit_breakers = CircuitBreakers(state)
        reconciliation = Reconciliation(state)
        self._tasks = Tasks(state, hooks, firings, reconciliation)
        self._timetable = Timetable(state, hooks, quotas, firings, self._tasks)
        self._calendars = Calendars(state, self._timetable)
        self._backfills = Backfills(state, quotas, firings)
        ad_hoc_runs = AdHocRuns(state, hooks, quotas, pools, firings)
        self._restorations = Restorations(state, firings)
        self._warm_executors = WarmExecutors(state, quotas, executors, circuit_breakers, self._tasks)
        failing_agents = FailingAgents(state)
        gangs = Gangs(state, quotas, pools)
        self._workflows = workflows = Workflows(state, hooks, quotas, firings, self._tasks)
        self._cycle = Cycle(
            state, hooks, quotas, pools, firings, executors, circuit_breakers, self._warm_executors, failing_agents,
            gangs, NodeResults(state, workflows.places_of),
        )  # fmt: skip
        self._drains = Drains(state, reconciliation, self._tasks, self._cycle)
        rollouts = Rollouts(state, hooks, firings, reconciliation, self._tasks)
        versions = AppVersions(state)
        self._alerts = Alerts(state)
        self._commands = commands = Commands(
            state,
            hooks,
            quotas,
            pools,
            firings,
            self._timetable,
            self._calendars,
            self._tasks,
            rollouts,
            versions,
            workflows,
        )
        # Each hook calls the parts in this order. `restore`: a part comes after those that it needs. Only `Traces`
        # comes after `commands`, which applies the configuration. `on_tick`: work becomes due before the cycle places
        # it, and the parts that kill tasks come before reconciliation. `run_ended`: `ad_hoc_runs` may delete the job,
        # so it comes last.
        parts = (
            quotas,
            pools,
            self._timetable,
            self._calendars,
            firings,
            self._backfills,
            workflows,
            executors,
            circuit_breakers,
            self._drains,
            self._tasks,
            Deadlines(state, self._tasks),
            self._restorations,
            rollouts,
            Timeouts(state, reconciliation),
            self._warm_executors,
            reconciliation,
            failing_agents,
            gangs,
            self._cycle,
            versions,
            accounts,
            *([self._alerts] if policy.alert_channels else []),
            ad_hoc_runs,
            commands,
            *([Traces(state)] if policy.traced else []),
        )
        hooks.install(parts)
        self._explainer = Explainer(state, hooks, firings, self._timetable, self._cycle)
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
            ExecutorLost: executors.on_executor_lost,
            SendFailed: self._on_send_failed,
            PutApp: commands.put_app,
            RemoveApp: commands.remove_app,
            SetAppEnabled: commands.set_app_enabled,
            PutJob: commands.put_job,
            RemoveJob: commands.remove_job,
            SetJobEnabled: commands.set_job_enabled,
            Apply: commands.apply,
            Trigger: commands.trigger,
            RunAdHoc: ad_hoc_runs.run,
            SetPaused: commands.set_paused,
            BackfillJob: self._backfills.backfill,
            CancelBackfill: self._backfills.cancel,
            KillTask: commands.kill_task,
            ForgetTask: commands.forget_task,
            Retry: commands.retry,
            CancelRun: commands.cancel_run,
            DrainAgent: self._drains.drain,
            UndrainAgent: self._drains.undrain,
            ReconcileTasks: reconciliation.reconcile,
            ReportProblem: self._alerts.report_problem,
            ReportDelivery: self._alerts.report_delivery,
            PutCalendar: self._calendars.put,
            RemoveCalendar: self._calendars.remove,
            PutSilence: self._alerts.put_silence,
            RemoveSilence: self._alerts.remove_silence,
            PutPool: pools.put,
            RemovePool: pools.remove,
            PutWorkflow: workflows.put,
            RemoveWorkflow: workflows.remove,
            CancelWorkflowRun: workflows.cancel,
            RetryWorkflowRun: commands.retry_workflow_run,
            PauseWorkflowRun: workflows.pause,
            AnswerNode: workflows.answer,
            SendWorkflowEvent: workflows.send_event,
            PutAccess: accounts.put,
            RemoveAccess: accounts.remove,
            RemoveService: accounts.remove_service,
            RevokeToken: accounts.revoke,
            RevokeServerToken: accounts.revoke_server_token,
            EndSessions: accounts.end_sessions,
            NoteSessions: accounts.note_sessions,
            UseSecrets: self._tasks.use_secrets,
        }
        for restore in hooks.restore:
            restore(at)

    # ------------------------------------------------------------------------------------------------- events

    def handle(self, event: Event) -> list[Effect]:
        """Handle one event. Returns the effects, in the order in which the caller must perform them.

        Raises Refused if it refuses a command. Then nothing has changed.
        """
        self._handlers[type(event)](event)
        return self._state.flush()

    def next_wake(self, at: int) -> int | None:
        """The next instant at which a Tick has work. `at` means now, None means never."""
        soonest: int | None = None
        for next_wake in self._hooks.next_wake:
            wake = next_wake(at)
            if wake is None:
                continue
            if wake <= at:
                return at
            if soonest is None or wake < soonest:
                soonest = wake
        return soonest

    def _on_tick(self, event: Tick) -> None:
        at = event.at
        if at < self._ticked:
            for clock_set_back in self._hooks.clock_set_back:
                clock_set_back(at)
            self._state.request_cycle()
        self._ticked = at
        for on_tick in self._hooks.on_tick:
            on_tick(at)
        if not self._sweep_at - self.policy.sweep_ms <= at < self._sweep_at:
            self._sweep_at = at + self.policy.sweep_ms
            for sweep in self._hooks.sweep:
                sweep(at)

    def _on_subscribed(self, event: Subscribed) -> None:
        self._state.connected = True
        self.cluster.drop_all_offers()
        if event.framework_id != self._state.framework_id:
            self._state.set_framework_id(event.framework_id)
        for begin in self._hooks.begin:
            begin(event.at)
        self._state.publish(event.at, Topic.CLUSTER, f"subscribed to {event.master} as {event.framework_id}")

    def _on_offers(self, event: OffersReceived) -> None:
        if not self.connected:
            return  # the offers belong to a session that has ended
        self._cycle.on_offers(event)
        self._drains.on_offers(event)

    def _on_disconnected(self, event: Disconnected) -> None:
        self._state.connected = False
        self.cluster.drop_all_offers()
        self._state.publish(event.at, Topic.CLUSTER, f"disconnected: {event.reason}")

    def _on_framework_removed(self, event: FrameworkRemoved) -> None:
        """Mesos has killed all tasks, and the framework id is void. Start over as a new framework."""
        self._state.connected = False
        self.cluster.drop_all_offers()
        self._state.set_framework_id("")
        text = f"Mesos removed the framework: {event.reason}"
        self._tasks.end_all(text, event.at)
        for framework_removed in self._hooks.framework_removed:
            framework_removed()
        self._state.emit(Resubscribe())
        self._state.publish(event.at, Topic.CLUSTER, text)

    def _on_agent_lost(self, event: AgentLost) -> None:
        self.cluster.lose_agent(event.agent_id)
        for agent_lost in self._hooks.agent_lost:
            agent_lost(event.agent_id, event.at)
        self._state.publish(event.at, Topic.CLUSTER, f"agent {event.agent_id} is unreachable or gone")

    def _on_send_failed(self, event: SendFailed) -> None:
        for send_failed in self._hooks.send_failed:
            send_failed(event)
        self._state.publish(event.at, Topic.FAULT, f"{type(event.call).__name__} failed: {event.reason}")

    # ------------------------------------------------------------------------------------------------- reading

    @property
    def connected(self) -> bool:
        return self._state.connected

    @property
    def warnings(self) -> tuple[Told, ...]:
        """Problems that do not stop the scheduler. Any thread may read them."""
        return (
            *self._timetable.warnings,
            *self._calendars.warnings,
            *self._restorations.warnings(self._ticked),
            *self._alerts.warnings,
        )

    @property
    def framework_id(self) -> str:
        return self._state.framework_id

    def enabled(self, job: str) -> bool:
        """Whether the job exists and neither it nor its app is disabled."""
        return self._state.enabled(job)

    def paused(self, job: str) -> bool:
        """Whether the job, its app or everything is paused."""
        return self._state.paused(job)

    def next_firing(self, job: str) -> int | None:
        """When the job is due next; None if it is not scheduled or never fires again."""
        return self._timetable.due.get(job)

    @property
    def due(self) -> Mapping[str, int]:
        """Job → the instant at which it is due next, for the jobs that are scheduled."""
        return self._timetable.due

    @property
    def cycles(self) -> int:
        """How many scheduling cycles this leader has run."""
        return self._cycle.cycles

    @property
    def refusals(self) -> Mapping[str, Sequence[Reason]]:
        """Job → the resources that the last cycle lacked for this job."""
        return self._cycle.refusals

    def days_of(self, job: Job) -> dict[str, Days]:
        """The days of the calendars that a job names, by calendar. A missing calendar is left out."""
        return {key: self._state.days[key] for key in job.calendars if key in self._state.days}

    def users(self, calendar: str) -> tuple[str, ...]:
        """The jobs that name a calendar."""
        return self._calendars.users(calendar)

    def workflows_naming(self, job: str) -> list[Workflow]:
        """The workflows with a node of a job."""
        return self._workflows.naming(job)

    def workflow_runs_of(self, workflow: str) -> list[WorkflowRun]:
        """The known runs of a workflow, oldest first."""
        return self._workflows.runs_of(workflow)

    def nodes_of(self, run: WorkflowRun) -> list[NodeView]:
        """The nodes of a run of a workflow, in the order of its graph."""
        return list(self._workflows.nodes_of(run))

    def nodes_awaiting(self, team: str, event: str, fire_ms: int | None) -> int:
        """How many nodes of unfinished runs an event would answer, in all runs or in those of one fire time."""
        return len(self._workflows.awaiting(team, event, fire_ms))

    def nodes_run_by(self, run: str) -> list[Place]:
        """The nodes of workflows that a run of a job stands for."""
        return self._workflows.places_of(run)

    def depth(self, at: int) -> Depth:
        """How many shards wait."""
        return self.queue.depth(at, self.enabled, self._cycle.held)

    def waits(self, job: str, at: int) -> tuple[int, Reason | None]:
        """How many shards of a job wait only for resources, and the first reason of `explain`. Raises NotFound."""
        starts = self.enabled(job) and not self.paused(job)
        ready = self.queue.ready(job, at, self._cycle.held) if starts else 0
        return ready, self._explainer.headline(job, at)

    def standing(self) -> list[Standing]:
        """The firings that may run and have a waiting shard, by group."""
        return self.queue.standing(self._cycle.held)

    def uses(self) -> dict[str, tuple[int, Resources]]:
        """Team → the number of its attempts, and the resources of its attempts and executors."""
        return self._quotas.uses()

    def ended_last(self) -> list[dict[str, Firing]]:
        """Job → its firing that ended last: of those with DEAD shards, and of the others."""
        return self._firings.ended_last()

    def dead_by_job(self) -> dict[str, int]:
        """Job → the number of its known firings with DEAD shards, if there are any."""
        return self._firings.dead_by_job()

    def team_usage(self, team: str) -> TeamUsage:
        """The use of its quota and of the cluster by a team, and its waiting work. The team need not have a record."""
        return self._quotas.usage(team)

    def pool_uses(self, key: str = "") -> list[PoolUse]:
        """The pool with this key, or all pools sorted by key, with their use."""
        return self._pools.uses(key)

    def teams_in_use(self) -> list[str]:
        """The teams that have a record, a job, a waiting shard, or something that runs, sorted."""
        return self._quotas.teams()

    def firings_of(self, job: str) -> list[Firing]:
        """The known firings of a job."""
        return list(self._firings.known(job))

    def agents(self) -> list[AgentView]:
        """The known agents, with the resources that they offer and that we use there."""
        return agent_views(self._state, self._drains.windows)

    def warm_executors(self, app: str) -> int:
        """How many warm executors of the app's current version run."""
        return self._warm_executors.warm(app)

    def lacking_executors(self, app: str, at: int) -> Reason | None:
        """Why fewer warm executors of an app run than the app wants; None if enough run."""
        return self._warm_executors.shortage(app, at)

    def executor_states(self) -> dict[str, ExecutorState]:
        """The state of each executor, by the key of its record."""
        return {key: self._executors.state_of(key) for key in self.executors}

    def story(self, task_id: str) -> list[Publish]:
        """The notices about one task that are still remembered, oldest first."""
        return [notice for notice in self._state.notices if notice.task_id == task_id]

    def explain(self, name: str, at: int) -> Explanation:
        """Why a job's shards are, or are not, running. Raises NotFound."""
        return self._explainer.explain(name, at)

    def fit_question(self, name: str, wanted: int, at: int) -> fit.Question:
        """The input of `fit.answer`, which tells whether `wanted` further shards of a job fit. Claims nothing.

        `wanted` = 0 means as many shards as a run of the job has. Raises NotFound.
        """
        job = self._state.job(name)
        request = self._state.request(job)
        wanted = wanted or job.shard_count
        most, short = self._pools.room(job, wanted)
        return fit.Question(
            job=job.key,
            wanted=wanted,
            most=most,
            short=short,
            request=request,
            rooms=self.cluster.rooms(request, fit.MAX_AGENTS, fit.MAX_SILENT_AGENTS, job.team),
            failing=self.cluster.failing(request.where) if request.where is not None else (0, []),
            counted=self._counted(request),
            role=self.cluster.team_roles.get(job.team, ""),
            allowance=self._quotas.allowance(job.team),
            connected=self.connected,
            held=self._explainer.held(job, at),
        )

    def _counted(self, request: Request) -> list[Counted]:
        """The running shards by each rule of a request that must hold."""
        if request.where is None or not request.where.must:
            return []
        return self.cluster.counts(request.where, self._agents_of)

    def _agents_of(self, job: str) -> list[str]:
        shards = (shard for firing in self.queue.unfinished(job) for shard in firing.shards)
        return [shard.agent_id for shard in shards if shard.state is ShardState.ACTIVE]

    def check_apply(self, command: Apply) -> None:
        """Raises Refused if `handle` would refuse the command."""
        self._commands.check_apply(command)

    def plan(self, at: int) -> list[tuple[str, int, str | None]]:
        """A dry run of the next cycle, without claims.

        Each row is (firing, item, agent or None) of a shard that may start.
        """
        return self._cycle.rehearse(at)

    def indexes(self) -> dict[str, Any]:
        """The collections derived from the stored records, by name.

        If there are no jobs, apps and tasks, each collection is empty.
        """
        found: dict[str, Any] = {"plans": self._state.plans, "faults": self._state.faults}
        for indexes in self._hooks.indexes:
            found |= indexes()
        return found

    def validate(self, matcher: bool = True) -> None:
        """Check every invariant. Raises AssertionError, which names the broken one.

        The invariants hold only between two events.
        `matcher=False` leaves out the matcher's own check, which takes more time than all others.
        """
        invariants.check(self._state)
        for validate in self._hooks.validate:
            validate()
        if matcher:
            self._state.cluster.matcher.check()
