"""Executors that are kept warm: a static app wants one on so many agents, or on each, whether or not a job needs it.

Mesos starts an executor with its first task, and ours leaves when it has had none for a while. So an executor is kept
by a *keeper*: a task that does nothing, takes next to nothing and never ends by itself. Its record is its only state:
what is wanted follows from the apps, what there is from the tasks, and the difference is launched or killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

from jobcloud.model import EVERY_AGENT, KEEPER, App, Execution, Task, TaskName, TaskState, content_of, placeholder_job
from jobcloud.scheduler import retry
from jobcloud.scheduler.circuit_breakers import CircuitBreakers
from jobcloud.scheduler.cluster import AgentEntry, Placement, Request
from jobcloud.scheduler.executors import Executors
from jobcloud.scheduler.explain import Reason
from jobcloud.scheduler.launch import ExecutorPlan
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.sharding import contexts_of
from jobcloud.scheduler.state import State

# What is lost is replaced after so long, twice as long each time.
_BACK_OFF_FIRST_MS, _BACK_OFF_MOST_MS = 1_000, 60_000


class Place(NamedTuple):
    """Room for one keeper; the claim is made."""

    app: App
    number: int
    placement: Placement


class WarmExecutors:
    def __init__(self, state: State, executors: Executors, circuit_breakers: CircuitBreakers) -> None:
        self._state = state
        self._executors = executors
        self._circuit_breakers = circuit_breakers
        #: app → its keepers, by task id
        self.of_app: dict[str, dict[str, Task]] = {}
        #: app → until when no keeper is started, how many in a row were lost, and why the last one was
        self._back_offs: dict[str, tuple[int, int, str]] = {}
        #: app → why it lacks keepers, as of the last round
        self.shortages: dict[str, str] = {}
        #: app → how many keepers are to be started, as of the last review; for one on each agent nobody knows
        self._short: dict[str, int] = {}
        #: app → the contexts of its jobs, as of the last review
        self._contexts: dict[str, set[str]] = {}
        #: something has changed since the last review, which saw these agents closed
        self.look = True
        self._closed: frozenset[str] = frozenset()

    def restore(self) -> None:
        for task in self._state.tasks.values():
            if task.placeholder:
                self.of_app.setdefault(task.app, {})[task.id] = task

    def wanted(self, app: App) -> int:
        """How many executors of an app are to be kept; EVERY_AGENT for one on each."""
        return 0 if app.name in self._state.disabled_apps else app.executors

    def requests(self) -> set[Request]:
        """What keepers ask for, of every app that wants some."""
        return {self._request(app) for app in self._static()}

    def warm(self, app: str) -> int:
        """How many keepers of the app's present version run."""
        return sum(task.state is TaskState.RUNNING for task in self._current(app))

    def lack(self, name: str, at: int) -> Reason | None:
        """Why fewer executors of an app are up than are to be kept; None where that is not so."""
        app = self._state.apps.get(name)
        wanted = self.wanted(app) if app is not None else 0
        if wanted <= self.warm(name):
            return None
        text = f"app {name} keeps {self.warm(name)} of {wanted} executors warm"
        waits = self._back_off(name)
        lost = f"the last one was lost: {self._back_offs[name][2]}" if name in self._back_offs else ""
        why = lost if waits > at else self.shortages.get(name, "")
        return Reason("executors", f"{text}: {why}" if why else text, waiting_helps=True, at=max(0, waits))

    def roaming(self) -> bool:
        """Whether an agent that nobody knows of yet would be of use."""
        return any(self.wanted(app) == EVERY_AGENT for app in self._static())

    def wanting(self, at: int) -> bool:
        """Whether offers are needed now."""
        return any(self._may_start(name, at) for name in self._short)

    def next_wake(self) -> int | None:
        """When the next back-off of an app that lacks keepers ends."""
        return min((until for until, *_ in self._back_offs.values() if until), default=None)

    def expire_backoffs(self, at: int) -> bool:
        """Whether a back-off has ended since this was last asked."""
        ended = [name for name, (until, *_) in self._back_offs.items() if 0 < until <= at]
        for name in ended:
            self._back_offs[name] = (0, *self._back_offs[name][1:])
        return bool(ended)

    def clock_was_set_back(self, at: int) -> None:
        self._back_offs = {
            name: (min(until, at + _BACK_OFF_MOST_MS), n, why) for name, (until, n, why) in self._back_offs.items()
        }

    # ------------------------------------------------------------------------------------------------- placing

    def place(self, at: int) -> list[Place]:
        """Room for the keepers that are missing, on agents of which offers are held, one an agent."""
        found: list[Place] = []
        self.shortages = {}
        for app in self._static():
            missing = self._short.get(app.name, 0)
            if (missing or self.wanted(app) == EVERY_AGENT) and self._may_start(app.name, at):
                places = list(
                    islice(self._place(app, missing), 1 if self._circuit_breakers.on_trial(app.name) else None)
                )
                found += places
                if len(places) < missing:
                    self.shortages[app.name] = "no further agent with an offer has room for one"
        return found

    def _place(self, app: App, missing: int) -> Iterator[Place]:
        plan, request = self._state.plan_of(app.name), self._request(app)
        kept = [task for task in self.of_app.get(app.name, {}).values() if content_of(task.executor_id) == plan.id]
        used = {task.item for task in self.of_app.get(app.name, {}).values()}
        numbers = (number for number in count() if number not in used)
        taken = {task.agent_id for task in kept}
        for entry in sorted(self._offering(taken), key=lambda entry: self._rank(entry, plan)):
            if missing <= 0 and self.wanted(app) != EVERY_AGENT:
                return
            placement = self._state.cluster.claim_if_free(entry, request)
            if placement is not None:
                missing -= 1
                yield Place(app, next(numbers), placement)

    def _request(self, app: App) -> Request:
        plan = self._state.plan_of(app.name)
        return Request(KEEPER, plan.id, plan.resources)

    def _offering(self, taken: set[str]) -> list[AgentEntry]:
        return [entry for entry in self._state.cluster.agents.values() if entry.offers and entry.id not in taken]

    def _rank(self, entry: AgentEntry, plan: ExecutorPlan) -> tuple[bool, int, str]:
        """Where the executor lives already it costs nothing; else where the most is free."""
        return not self._executors.lives_on(entry.id, plan), -entry.offered.cpus, entry.id

    # ------------------------------------------------------------------------------------------------- their life

    def task(self, place: Place, hostname: str, at: int) -> Task:
        app, agent_id = place.app, place.placement.agent_id
        name, executor_id = placeholder_job(app.name), self._executors.id_on(agent_id, self._state.plan_of(app.name))
        return Task(
            id=str(TaskName(name, place.number, Execution.READY, agent_id, self._state.unique())),
            firing_id="", job=name, item=place.number, attempt=1, execution=Execution.READY, agent_id=agent_id,
            hostname=hostname, app=app.name, executor_id=executor_id, resources=KEEPER,
            created_ms=at, contexts=tuple(sorted(self._contexts.get(app.name, ()))),
        )  # fmt: skip

    def launched(self, task: Task) -> None:
        self.of_app.setdefault(task.app, {})[task.id] = task

    def note(self, task: Task) -> None:
        """A keeper's record has changed."""
        self.of_app[task.app][task.id] = task
        self.look = True

    def could_not_start(self, app: str, why: str, at: int) -> None:
        self.shortages[app] = why
        self._wait(app, at, why, proven=False)

    def ended(self, task: Task, message: str, at: int) -> None:
        """A keeper is over. One that is still wanted is replaced, the sooner the longer it lived."""
        placeholders = self.of_app[task.app]
        del placeholders[task.id]
        if not placeholders:
            del self.of_app[task.app]
        self.look = True
        if task.kill_ms or task.app not in self._state.apps:
            return
        self._wait(task.app, at, message, proven=bool(task.started_ms) and at - task.started_ms >= retry.PROVEN_MS)

    def _wait(self, app: str, at: int, why: str, *, proven: bool) -> None:
        failures = self._back_offs[app][1] if app in self._back_offs else 0
        failures = 1 if proven else failures + 1
        self._back_offs[app] = (at + retry.backoff_ms(failures, _BACK_OFF_FIRST_MS, _BACK_OFF_MOST_MS), failures, why)

    def review(self) -> list[Task]:
        """After a change: what is missing is noted, and the keepers that nobody wants any more are the answer: of an
        old version, without a context that a job has by now, of an app that is gone, on an agent that is to be
        emptied, or too many."""
        if not self.look and self._closed == self._state.cluster.closed:
            return []
        self.look, self._closed = False, self._state.cluster.closed
        wanted = {app.name for app in self._static() if self.wanted(app)}
        self._contexts = {name: set() for name in wanted}
        for job in self._state.jobs.values() if wanted else ():
            if job.app in wanted:
                self._contexts[job.app].update(contexts_of(job))
        self._back_offs = {name: back_off for name, back_off in self._back_offs.items() if name in wanted}
        self.recount()
        return [task for name in list(self.of_app) for task in self._surplus(name)]

    def recount(self) -> None:
        """Note again how many keepers are missing."""
        missing = {app.name: self._missing(app) for app in self._static()}
        self._short = {name: number for name, number in missing.items() if number > 0}

    def _surplus(self, name: str) -> Iterator[Task]:
        current = self._current(name)
        ids = {task.id for task in current}
        yield from (task for task in self.of_app[name].values() if task.id not in ids and not task.kill_ms)
        wanted = self.wanted(self._state.apps[name]) if name in self._state.apps else 0
        if wanted == EVERY_AGENT:
            return
        # One that is out of reach is replaced; should it come back, there is one too many.
        here = [task for task in current if task.state is not TaskState.UNREACHABLE]
        yield from sorted(here, key=self._use)[: max(0, len(here) - wanted)]

    def _use(self, task: Task) -> tuple[int, int, str]:
        """The executor with the fewest tasks goes first, then the youngest keeper."""
        return self._executors.load[executor_key(task.agent_id, task.executor_id)], -task.created_ms, task.id

    def _current(self, app: str) -> list[Task]:
        """The keepers of the app's present version that are meant to stay."""
        if app not in self._state.apps:
            return []
        plan_id, closed = self._state.plan_of(app).id, self._state.cluster.closed
        contexts = self._contexts.get(app, set())
        return [
            task
            for task in self.of_app.get(app, {}).values()
            if content_of(task.executor_id) == plan_id
            and task.agent_id not in closed
            and contexts.issubset(task.contexts)
            and not task.kill_ms
        ]

    def _missing(self, app: App) -> int:
        """How many are to be started; for a keeper on each agent nobody knows."""
        wanted = self.wanted(app)
        if wanted == EVERY_AGENT:
            return 0
        return wanted - sum(task.state is not TaskState.UNREACHABLE for task in self._current(app.name))

    def _static(self) -> list[App]:
        return [app for app in self._state.apps.values() if app.executors]

    def _may_start(self, app: str, at: int) -> bool:
        return self._back_off(app) <= at and not self._circuit_breakers.holds(app, at)

    def _back_off(self, app: str) -> int:
        return self._back_offs[app][0] if app in self._back_offs else 0
