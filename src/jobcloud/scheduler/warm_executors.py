"""Warm executors: executors that run on some agents, or on every agent, even while no job needs them.

Mesos starts an executor with its first task, and an executor ends itself after some time without tasks. So a warm
executor runs a *placeholder task*, which does nothing, needs almost no resources and never ends by itself. The task's
record is the only stored state. The apps' configuration gives the wanted number of placeholders. Missing ones are
launched, and surplus ones are killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import count, islice
from typing import NamedTuple

from jobcloud.config import EVERY_AGENT, NOTHING, PLACEHOLDER, App, Job
from jobcloud.model import Execution, Firing, Task, TaskName, TaskState, content_of, placeholder_job
from jobcloud.scheduler import retry
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import AgentEntry, Placement, Request
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.launch import ExecutorPlan
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.places import is_readable, where_of_app
from jobcloud.scheduler.quotas import Quotas
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.sharding import contexts_of
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.scheduler.tasks import Tasks
from jobcloud.sentences import Parameter

# The names of the contexts that a placeholder builds take at most this number of bytes in its record.
_CONTEXTS_BYTES = 100_000
# The wait before a lost placeholder is replaced. It doubles with each further loss, up to the maximum.
_FIRST_BACKOFF_MS, _MAX_BACKOFF_MS = 1_000, 60_000
_NO_ROOM = "no further agent with an offer has room for one"


class Place(NamedTuple):
    """Room for one placeholder task, already claimed."""

    app: App
    number: int
    placement: Placement


class _Backoff(NamedTuple):
    """The wait before an app's lost placeholder is replaced. `until_ms`: its end, or 0 if it has ended.

    `failures`: the number of losses in a row. `why`: the reason of the last loss.
    """

    until_ms: int
    failures: int
    why: str


class WarmExecutors(Part):
    def __init__(
        self, state: State, quotas: Quotas, executors: Executors, circuit_breakers: CircuitBreakers, tasks: Tasks
    ) -> None:
        super().__init__(state)
        self._quotas = quotas
        self._executors = executors
        self._circuit_breakers = circuit_breakers
        self._tasks = tasks
        #: app → its placeholder tasks by id
        self.of_app: dict[str, dict[str, Task]] = {}
        self._backoffs: dict[str, _Backoff] = {}
        #: app → why it lacks warm executors, as of the last scheduling cycle
        self._shortages: dict[str, str] = {}
        #: app → number of placeholders to start, as of the last review; not for apps that want one on every agent
        self._missing: dict[str, int] = {}
        #: app → the contexts of its jobs, as of the last review
        self._contexts: dict[str, set[str]] = {}
        #: whether anything has changed since the last review
        self._review_due = True
        #: the agents that were cordoned at the last review
        self._cordoned: frozenset[str] = frozenset()
        #: the attributes of the agents at the last review, as `Cluster.attributes`
        self._attributes = 0

    def restore(self, at: int) -> None:
        for task in self._state.tasks.values():
            if task.placeholder:
                self.of_app.setdefault(task.app, {})[task.id] = task

    # ------------------------------------------------------------------------------------------------- demand

    def wanted(self, app: App) -> int:
        """How many warm executors an app wants; EVERY_AGENT for one on each agent."""
        return 0 if app.key in self._state.disabled_apps else app.executors

    def requests(self) -> set[Request]:
        """The requests of all placeholders that may be wanted."""
        return {self._request(app) for app in self._apps()}

    def warm(self, app: str) -> int:
        """How many warm executors of the app's current version run."""
        return sum(task.state is TaskState.RUNNING for task in self._current(app))

    def wants_every_agent(self) -> bool:
        """Whether some app wants a warm executor on every agent, also on agents that are not known yet."""
        return any(self.wanted(app) == EVERY_AGENT for app in self._apps())

    def needs_offers(self, at: int) -> bool:
        """Whether a missing placeholder may start now."""
        return any(self._may_start(name, at) for name in self._missing)

    def uses_offers_of(self, role_group: str, at: int) -> bool:
        """Whether a placeholder may start now, or is wanted on each agent, on offers of a group of roles."""
        return any(
            (app.key in self._missing and self._may_start(app.key, at)) or self.wanted(app) == EVERY_AGENT
            for app in self._apps()
            if self._state.cluster.group_of_team(app.team) == role_group
        )

    def _apps(self) -> list[App]:
        """The apps that may want warm executors. Those with damaged conditions get none."""
        return [app for app in self._state.apps.values() if app.executors and is_readable(app)]

    def _may_start(self, app: str, at: int) -> bool:
        return self._waits_until(app) <= at and not self._circuit_breakers.blocks(app, at)

    def _waits_until(self, app: str) -> int:
        return self._backoffs[app].until_ms if app in self._backoffs else 0

    # ------------------------------------------------------------------------------------------------- placing

    def place(self, at: int, role_group: str) -> list[Place]:
        """Claim room for missing placeholders on agents with offers, at most one per app and agent.

        `role_group`: the group of roles whose offers the matcher counts. Only the teams that use them get room.
        """
        found: list[Place] = []
        apps = self._apps()
        if self._state.cluster.team_roles:
            apps = [app for app in apps if self._state.cluster.group_of_team(app.team) == role_group]
            for app in apps:
                self._shortages.pop(app.key, None)
        else:
            self._shortages = {}
        for app in apps:
            missing = self._missing.get(app.key, 0)
            if (missing or self.wanted(app) == EVERY_AGENT) and self._may_start(app.key, at):
                limit = 1 if self._circuit_breakers.on_trial(app.key) else None
                places = list(islice(self._place(app, missing), limit))
                found += places
                if len(places) < missing:
                    self._shortages.setdefault(app.key, _NO_ROOM)
        return found

    def _place(self, app: App, missing: int) -> Iterator[Place]:
        plan, request = self._state.plan_of(app.key), self._request(app)
        current = [task for task in self.of_app.get(app.key, {}).values() if content_of(task.executor_id) == plan.id]
        used = {task.item for task in self.of_app.get(app.key, {}).values()}
        numbers = (number for number in count() if number not in used)
        taken = {task.agent_id for task in current}
        for entry in sorted(self._offering(taken), key=lambda entry: self._rank(entry, plan)):
            if missing <= 0 and self.wanted(app) != EVERY_AGENT:
                return
            need = PLACEHOLDER.plus(plan.resources if self._executors.on(entry.id, plan) is None else NOTHING)
            if (lack := self._quotas.lack_for(app.team, need, 0)) is not None:
                self._shortages[app.key] = lack.text
                continue
            placement = self._state.cluster.claim_if_free(entry, request)
            if placement is not None:
                missing -= 1
                self._quotas.plan(app.team, need, 0)
                yield Place(app, next(numbers), placement)

    def _request(self, app: App) -> Request:
        plan = self._state.plan_of(app.key)
        return Request(PLACEHOLDER, plan.id, plan.resources, where=where_of_app(app))

    def _offering(self, taken: set[str]) -> list[AgentEntry]:
        return [entry for entry in self._state.cluster.agents.values() if entry.offers and entry.id not in taken]

    def _rank(self, entry: AgentEntry, plan: ExecutorPlan) -> tuple[bool, int, str]:
        """Sort key of agents. Those that already run the executor come first, then those with more free cpus."""
        return self._executors.on(entry.id, plan) is None, -entry.offered.cpus, entry.id

    def task(self, place: Place, hostname: str, at: int) -> Task:
        app, agent_id = place.app, place.placement.agent_id
        name = placeholder_job(app.key)
        return Task(
            id=str(TaskName(name, place.number, Execution.READY, agent_id, self._state.unique())),
            firing_id="", job=name, item=place.number, attempt=1, execution=Execution.READY, agent_id=agent_id,
            hostname=hostname, app=app.key, executor_id="", resources=PLACEHOLDER,
            created_ms=at, contexts=tuple(sorted(self._contexts.get(app.key, ()))),
        )  # fmt: skip

    def could_not_start(self, app: str, why: str, at: int) -> None:
        self._shortages[app] = why
        self._back_off(app, at, why, proven=False)

    # ------------------------------------------------------------------------------------------------- life cycle

    def task_launched(self, task: Task, at: int) -> None:
        if task.placeholder:
            self.of_app.setdefault(task.app, {})[task.id] = task

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        if task.placeholder:
            self.of_app[task.app][task.id] = task
            self._review_due = True

    def task_killed(self, task: Task) -> None:
        if task.placeholder:
            self.of_app[task.app][task.id] = task
            self._review_due = True

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        """If a placeholder was not killed, begin the back-off before its replacement.

        If the placeholder has run for PROVEN_MS, the back-off is the first one again.
        """
        if not task.placeholder:
            return
        placeholders = self.of_app[task.app]
        del placeholders[task.id]
        if not placeholders:
            del self.of_app[task.app]
        self._review_due = True
        if not task.kill_ms and task.app in self._state.apps:
            proven = bool(task.started_ms) and at - task.started_ms >= retry.PROVEN_MS
            self._back_off(task.app, at, ending.message, proven=proven)

    def _back_off(self, app: str, at: int, why: str, *, proven: bool) -> None:
        before = self._backoffs[app].failures if app in self._backoffs else 0
        failures = 1 if proven else before + 1
        until = at + retry.backoff_ms(failures, _FIRST_BACKOFF_MS, _MAX_BACKOFF_MS)
        self._backoffs[app] = _Backoff(until, failures, why)

    def app_changed(self, name: str) -> None:
        self._review_due = True

    def job_changed(self, job: Job) -> None:
        if self._state.apps[job.app_key].executors:
            self._review_due = True  # the job may have a context that the placeholders have not built

    def next_wake(self, at: int) -> int | None:
        if self._review_due:
            return at
        return min((backoff.until_ms for backoff in self._backoffs.values() if backoff.until_ms), default=None)

    def clock_set_back(self, at: int) -> None:
        latest = at + _MAX_BACKOFF_MS
        self._backoffs = {
            name: backoff._replace(until_ms=min(backoff.until_ms, latest)) for name, backoff in self._backoffs.items()
        }

    def on_tick(self, at: int) -> None:
        self._expire_backoffs(at)
        for task in self._review():
            self._tasks.kill(task, at)

    def _expire_backoffs(self, at: int) -> None:
        ended = [name for name, backoff in self._backoffs.items() if 0 < backoff.until_ms <= at]
        for name in ended:
            self._backoffs[name] = self._backoffs[name]._replace(until_ms=0)
        if ended:
            self._state.request_cycle()

    def _review(self) -> list[Task]:
        """Count the missing placeholders, if anything has changed. Returns the placeholders that are no longer wanted.

        A placeholder is not wanted if its executor is of an old version, if it lacks a context that a job has, if its
        app is gone, if its agent is cordoned or fails the app's conditions, or if its app has too many placeholders.
        """
        cluster = self._state.cluster
        if not self._review_due and (self._cordoned, self._attributes) == (cluster.cordoned, cluster.attributes):
            return []
        self._review_due, self._cordoned, self._attributes = False, cluster.cordoned, cluster.attributes
        wanted = {app.key for app in self._apps() if self.wanted(app)}
        self._contexts = {name: set() for name in wanted}
        for job in self._state.jobs.values() if wanted else ():
            if job.app_key in wanted and not job.ad_hoc:
                self._contexts[job.app_key].update(contexts_of(job))
        self._contexts = {name: set(_bounded(contexts)) for name, contexts in self._contexts.items()}
        self._backoffs = {name: backoff for name, backoff in self._backoffs.items() if name in wanted}
        self.recount()
        return [task for name in list(self.of_app) for task in self._surplus(name)]

    def recount(self) -> None:
        """Count the missing placeholders."""
        missing = {app.key: self._missing_of(app) for app in self._apps()}
        self._missing = {name: number for name, number in missing.items() if number > 0}

    def _missing_of(self, app: App) -> int:
        wanted = self.wanted(app)
        if wanted == EVERY_AGENT:
            return 0
        return wanted - sum(task.state is not TaskState.UNREACHABLE for task in self._current(app.key))

    def _surplus(self, name: str) -> Iterator[Task]:
        current = self._current(name)
        ids = {task.id for task in current}
        yield from (task for task in self.of_app[name].values() if task.id not in ids and not task.kill_ms)
        wanted = self.wanted(self._state.apps[name]) if name in self._state.apps else 0
        if wanted == EVERY_AGENT:
            return
        # An unreachable placeholder is replaced. If it comes back, there is one too many.
        reachable = [task for task in current if task.state is not TaskState.UNREACHABLE]
        yield from sorted(reachable, key=self._use)[: max(0, len(reachable) - wanted)]

    def _use(self, task: Task) -> tuple[int, int, str]:
        """Sort key of placeholders: the executor with the fewest tasks first, then the youngest placeholder."""
        return self._executors.load[executor_key(task.agent_id, task.executor_id)], -task.created_ms, task.id

    def _current(self, app: str) -> list[Task]:
        """The placeholders that stay.

        They are of the app's current version, have all its contexts, are on agents that are not cordoned and meet the
        app's conditions, and were not killed.
        """
        if app not in self._state.apps:
            return []
        plan_id, cordoned = self._state.plan_of(app).id, self._state.cluster.cordoned
        contexts = self._contexts.get(app, set())
        known, cluster = self._state.apps[app], self._state.cluster
        where = where_of_app(known) if is_readable(known) else None
        return [
            task
            for task in self.of_app.get(app, {}).values()
            if content_of(task.executor_id) == plan_id
            and task.agent_id not in cordoned
            and contexts.issubset(task.contexts)
            and not task.kill_ms
            and (where is None or cluster.allows(task.agent_id, where))
        ]

    # ------------------------------------------------------------------------------------------------- reading

    def shortage(self, name: str, at: int) -> Reason | None:
        """Why fewer warm executors of an app run than the app wants; None if enough run."""
        app = self._state.apps.get(name)
        wanted = self.wanted(app) if app is not None else 0
        if wanted <= self.warm(name):
            return None
        text = f"app {name} has {self.warm(name)} of {wanted} warm executors"
        waits = self._waits_until(name)
        lost = waits > at and name in self._backoffs
        why = self._backoffs[name].why if lost else "" if waits > at else self._shortages.get(name, "")
        shown = f": the last one was lost or could not start: {why}" if lost else f": {why}" if why else ""
        case = "lost" if lost else "full" if why == _NO_ROOM else ""
        given: dict[str, Parameter] = {"app": name, "up": self.warm(name), "wanted": wanted}
        if case != "full":
            given["message"] = why
        return Reason("executors", text + shown, waiting_helps=True, at=max(0, waits), case=case, parameters=given)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterable[Reason]:
        found = self.shortage(job.app_key, at)
        return () if found is None else (found,)

    def indexes(self) -> Mapping[str, Sized]:
        return {"warm_executors": self.of_app}

    def validate(self) -> None:
        placeholders = {task.id: task for task in self._state.tasks.values() if task.placeholder}
        indexed = {task.id: task for of_app in self.of_app.values() for task in of_app.values()}
        assert indexed == placeholders, "the placeholders differ from those among the tasks"
        places = {(task.agent_id, task.executor_id) for task in placeholders.values()}
        assert len(places) == len(placeholders), "an executor has two placeholders"


def _bounded(contexts: Iterable[str]) -> Iterator[str]:
    """The contexts, sorted, as many as fit into the record of a task. The others are built when a job needs them."""
    left = _CONTEXTS_BYTES
    for context in sorted(contexts):
        left -= 6 * len(context)  # in JSON a character takes at most six bytes
        if left >= 0:
            yield context
