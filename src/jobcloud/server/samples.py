"""The numbers that the history samples: what is registered, runs and waits, by team."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from jobcloud.config import NOTHING, Job, Resources, team_of
from jobcloud.errors import JobcloudError
from jobcloud.history.samples import Sample, TeamNumbers
from jobcloud.model import Firing, Task
from jobcloud.scheduler import Scheduler


class _Facts(NamedTuple):
    """References of the core at one moment."""

    jobs: list[Job]
    disabled_jobs: frozenset[str]
    disabled_apps: frozenset[str]
    unfinished: list[Firing]
    tasks: list[Task]
    waiting: dict[str, int]
    uses: dict[str, tuple[int, Resources]]
    agents: int
    total: Resources


def _look(scheduler: Scheduler) -> _Facts:
    """On the scheduler's thread. It copies references only."""
    return _Facts(
        list(scheduler.jobs.values()),
        frozenset(key for key, state in scheduler.job_states.items() if state.disabled),
        frozenset(scheduler.disabled_apps),
        scheduler.queue.unfinished_firings(),
        list(scheduler.tasks.values()),
        dict(scheduler.queue.waiting),
        scheduler.uses(),
        sum(not agent.lost for agent in scheduler.cluster.agents.values()),
        scheduler.cluster.total(),
    )


def sample_of(ask: Callable[[Callable[[Scheduler], _Facts]], _Facts]) -> Sample | None:
    """The present numbers of the scheduler that `ask` reaches. None if this scheduler does not lead now."""
    try:
        facts = ask(_look)
    except (JobcloudError, TimeoutError):
        return None
    jobs, disabled = Counter[str](), Counter[str]()
    for job in facts.jobs:
        if not job.ad_hoc:
            jobs[job.team] += 1
            disabled[job.team] += job.key in facts.disabled_jobs or job.app_key in facts.disabled_apps
    running_jobs = Counter(team_of(job) for job in {task.job for task in facts.tasks if not task.placeholder})
    runs = Counter(team_of(firing.job) for firing in facts.unfinished)
    teams = {}
    for team in {*jobs, *running_jobs, *runs, *facts.waiting, *facts.uses}:
        running, used = facts.uses.get(team, (0, NOTHING))
        waiting = facts.waiting.get(team, 0)
        teams[team] = TeamNumbers(jobs[team], disabled[team], running_jobs[team], running, waiting, runs[team], used)
    return Sample(facts.agents, facts.total, teams)
