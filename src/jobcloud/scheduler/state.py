"""What one leader knows and what it is about to do: the records, the offers held, the queue, and the effects so far.

Every part of the scheduler works on the same book. Nothing here decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from jobcloud.errors import NotFound
from jobcloud.match import AnyMatcher
from jobcloud.messages import RANK, Effect, Kind, Publish, Record, Save, Topic, Write
from jobcloud.model import DIMENSIONS, App, Firing, Job, Task, changed
from jobcloud.scheduler import launch, queue, recovery
from jobcloud.scheduler.cluster import Cluster, Request
from jobcloud.scheduler.launch import Artifacts, ExecutorPlan
from jobcloud.scheduler.recovery import Stored, differences, recover, with_starts


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that steer the scheduler. Durations are milliseconds."""

    artifacts: Artifacts
    offer_hold_ms: int = 5_000
    max_offers: int = 100_000
    decline_refuse_ms: int = 5_000
    #: the same where nothing waits and offers are only taken to see agents that are new
    roaming_refuse_ms: int = 60_000
    #: a firing this late is still on time; a later one is a missed one
    misfire_threshold_ms: int = 5_000
    #: firings of one job that may wait at once
    max_waiting: int = 100
    #: ended firings kept per job; besides, those with shards that are DEAD
    history: int = 50
    max_dead: int = 100
    reconcile_interval_ms: int = 900_000
    reconcile_first_ms: int = 1_000
    reconcile_max_ms: int = 60_000
    #: a stored launch with no update for this long is asked about
    launch_answer_ms: int = 10_000
    kill_again_ms: int = 10_000
    #: how long beyond a run's time limit its executor has to end it, and a task that was asked to end to do so
    overdue_ms: int = 30_000
    hung_ms: int = 120_000
    #: shards matched in one round
    cycle_limit: int = 20_000
    agent_memory_ms: int = 86_400_000
    #: how long before its window an agent gets nothing new, and how long an operator's drain takes unless he says so
    drain_lead_ms: int = 600_000
    #: how long offers of agents to be emptied stay away
    drain_refuse_ms: int = 30_000
    sweep_ms: int = 60_000


# A member of an enumeration costs a function call each time it is named, in CPython 3.11.
_TASK = Kind.TASK

P = ParamSpec("P")
T = TypeVar("T")


class State:
    """The stored records as they are now, and beside them what only this leader knows.

    `dirty` and `out` are what the event under way has changed and asks for; `flush` hands both over.
    """

    def __init__(self, policy: Policy, stored: Stored, epoch: int, at: int, matcher: type[AnyMatcher]) -> None:
        self.policy = policy
        self.epoch = epoch
        whole = recover(stored, at)
        self.apps = whole.apps
        self.jobs = whole.jobs
        self.states = whole.job_states
        self.disabled_apps = whole.disabled_apps
        self.firings = with_starts(whole.firings, whole.tasks.values())
        self.tasks = whole.tasks
        self.executors = whole.executors
        self.framework_id = whole.framework_id
        self.drains = whole.drains
        self.connected = False
        self.cluster = Cluster(matcher(len(DIMENSIONS)))
        self.queue = queue.Queue(lambda job: self.jobs[job].runs_at_once if job in self.jobs else 1)
        #: job → why it could not be launched; cleared when it or its app changes
        self.faults: dict[str, str] = {}
        self.plans: dict[str, ExecutorPlan] = {}
        self._sequence = recovery.numbers_used(stored, epoch)
        #: something may be launched now; there may be something to launch for which offers should be asked
        self.cycle_due = self.new_work = True
        self.notices: deque[Publish] = deque(maxlen=20_000)
        # What had to be mended is written with the first event's effects.
        self.dirty: dict[tuple[Kind, str], Record | None] = {
            (kind, key): record for kind, key, record in differences(stored, whole)
        }
        self.out: list[Effect] = []

    def put_task(self, task: Task) -> None:
        self.tasks[task.id] = task
        self.dirty[_TASK, task.id] = task

    def set_state(self, job: str, **changes: Any) -> None:
        self.states[job] = changed(self.states[job], **changes)
        self.dirty[Kind.JOB_STATE, job] = self.states[job]

    def set_app_mark(self, app: str, *, disabled: bool) -> None:
        if disabled:
            self.disabled_apps.add(app)
        else:
            self.disabled_apps.discard(app)
        self.dirty[Kind.DISABLED_APP, app] = True if disabled else None

    def flush(self) -> list[Effect]:
        effects = self.out
        if self.dirty:
            effects.append(Save(tuple([Write(kind, key, record) for (kind, key), record in self.dirty.items()])))
            self.dirty = {}
        effects.sort(key=_rank)
        self.out = []
        return effects

    def app(self, name: str) -> App:
        if name not in self.apps:
            raise NotFound(f"there is no app {name}", field="appName", fix="`jobcloud app list` names them")
        return self.apps[name]

    def job(self, name: str) -> Job:
        if name not in self.jobs:
            raise NotFound(f"there is no job {name}", field="jobName", fix="`jobcloud job list` names them")
        return self.jobs[name]

    def jobs_of(self, app: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.app == app]

    def enabled(self, job: str) -> bool:
        return (
            not self.states[job].disabled and self.jobs[job].app not in self.disabled_apps
            if job in self.jobs
            else False
        )

    def wanted(self, firing: Firing) -> bool:
        return self.enabled(firing.job) and firing.generation == self.states[firing.job].generation

    def plan_of(self, app: str) -> ExecutorPlan:
        if app not in self.plans:
            self.plans[app] = launch.plan_executor(self.app(app), self.policy.artifacts)
        return self.plans[app]

    def request(self, job: Job) -> Request:
        return self.plan_of(job.app).request(job)

    def unique(self) -> str:
        self._sequence += 1
        return f"{self.epoch}-{self._sequence}"

    def fence(self) -> int:
        """Grows over all attempts of all leaders; fits a double exactly for 9 million leaders."""
        return self.epoch * 1_000_000_000 + self._sequence

    def work(self) -> None:
        self.cycle_due = self.new_work = True

    def isolated(self, job: str, at: int, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Do something for one job; a fault in it marks that job and touches no other. None where it failed."""
        try:
            return do(*args, **kwargs)
        except Exception as error:  # whatever is wrong with one job, the others go on
            self.faults[job] = f"{type(error).__name__}: {error}"
            self.publish(at, Topic.FAULT, self.faults[job], job=job)
            return None

    def publish(self, at: int, topic: Topic, text: str, **about: Any) -> None:
        self._note(Publish(at, topic, text, **about))

    def tell(self, at: int, topic: Topic, task: Task, text: str, state: str = "") -> None:
        job = task.job
        if task.placeholder:
            job, text = "", f"kept executor of {task.app}: {text}"
        self._note(Publish(at, topic, text, job, task.firing_id, task.id, task.item, task.hostname, state))

    def _note(self, notice: Publish) -> None:
        self.notices.append(notice)
        self.out.append(notice)


def _rank(effect: Effect) -> int:
    return RANK[type(effect)]
