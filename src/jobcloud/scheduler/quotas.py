"""Quotas: what each team uses, and whether its quota has room for more.

The attempts of a team and the executors of its apps use resources. An executor counts from its launch until it is known
to be gone, also without tasks, and so does the placeholder task of a warm executor. Otherwise, large executors of small
jobs would exceed each quota. An attempt whose agent is unreachable counts until it is given up. No running
attempt is killed because of a quota: a quota below the use only prevents new starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import chain

from jobcloud.config import NOTHING, Job, Resources, team_of
from jobcloud.errors import Conflict
from jobcloud.fields import Unit
from jobcloud.model import EVERY_TEAM, Executor, Firing, Quota, Task, Terms
from jobcloud.scheduler.cluster import amounts
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.queue import Group, cached_team_of
from jobcloud.scheduler.reason import Reason, amount
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.sentences import Parameter, Told
from jobcloud.sentences.frequent import shards_waiting

#: the resources that a quota limits
LIMITED = ("cpus", "mem", "gpus")
_FEWER_WAIT = Told("let some of them start, or ask an admin of the installation for a larger quota", "fewer_wait")
_FEWER_JOBS = Told("remove a job, or ask an admin of the installation for a larger quota", "fewer_jobs")


@dataclass(frozen=True, slots=True)
class Lack:
    """A limit of a quota that has no room. Amounts of resources are in thousandths.

    `name` is the field of the quota. `asked` is what a start needs, including `executor`, the part
    for a further executor.
    """

    team: str
    name: str
    used: int
    limit: int
    asked: int
    executor: int = 0

    @property
    def text(self) -> str:
        what = "shards at once" if self.name == "shards" else self.name
        text = f"quota of team {self.team}: {self._amount(self.used)} of {self._amount(self.limit)} {what} used"
        if self.case == "never":
            return f"{text}, and a start needs {self._amount(self.asked)}: the quota never has room for it"
        if self.case == "executor":
            executor = f"a start also needs an executor ({self._amount(self.executor)})"
            return f"{text}; {executor}, because no agent with free resources runs one of this app"
        return text

    @property
    def case(self) -> str:
        """The case of the reason `quota`."""
        if self.asked > self.limit:
            return "never"
        return "executor" if self.used + self.asked - self.executor <= self.limit else ""

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters of the reason `quota`."""
        whole = amount if self.name in LIMITED else int
        given: dict[str, Parameter] = {
            "team": self.team, "limit": self.name, "used": whole(self.used), "most": whole(self.limit)
        }  # fmt: skip
        more = {"never": {"needed": whole(self.asked)}, "executor": {"executor": whole(self.executor)}}
        return given | more.get(self.case, {})

    def _amount(self, amount: int) -> str:
        return Unit.MILLI.text(amount) if self.name in LIMITED else str(amount)


@dataclass(frozen=True, slots=True)
class TeamUsage:
    """The use of resources by a team, and its waiting work.

    `resources` are those of its attempts and executors, in thousandths. `shards`: the running attempts. `jobs`: the
    registered jobs. `queue`: the shards that wait. `held_runs`: the runs whose shards wait for room in the quota.
    `share`: the team's dominant share of the cluster, from 0 to 1, not divided by its weight.
    """

    team: str
    weight: int
    quota: Quota
    resources: Resources
    shards: int
    jobs: int
    queue: int
    held_runs: int
    share: float


@dataclass(slots=True)
class Use:
    """Resources and a number of attempts: what a team uses, or what it is about to use."""

    cpus: int = 0
    mem: int = 0
    disk: int = 0
    gpus: int = 0
    ports: int = 0
    shards: int = 0

    def add(self, resources: Resources, shards: int) -> None:
        # Called for each attempt: in place, this takes a third of the time of a new tuple.
        cpus, mem, disk, gpus, ports = resources
        self.cpus += cpus
        self.mem += mem
        self.disk += disk
        self.gpus += gpus
        self.ports += ports
        self.shards += shards

    def subtract(self, resources: Resources, shards: int) -> None:
        cpus, mem, disk, gpus, ports = resources
        self.cpus -= cpus
        self.mem -= mem
        self.disk -= disk
        self.gpus -= gpus
        self.ports -= ports
        self.shards -= shards

    @property
    def resources(self) -> Resources:
        return Resources(self.cpus, self.mem, self.disk, self.gpus, self.ports)

    @property
    def empty(self) -> bool:
        return not (self.shards or self.cpus or self.mem or self.disk or self.gpus or self.ports)


_NOTHING = Use()


@dataclass(slots=True)
class Allowance:
    """The room in the quota of a team for further starts, as a copy that does not follow the team.

    `quota` is None if the team has none. `used` includes what was taken from the allowance.
    """

    team: str
    quota: Quota | None
    used: Use

    def take(self, resources: Resources, shards: int) -> None:
        self.used.add(resources, shards)

    def most(self, each: Resources, shards: int, executor: Resources) -> tuple[int, Lack | None]:
        """How many of `shards` shards may start, with one executor for all of them. The limit that stops the others.

        As in `Quotas.lack_for`, a limit of something that the start does not need is ignored.
        """
        if self.quota is None:
            return shards, None
        allowed, lack = shards, None
        rows = zip(LIMITED, _limits_of(self.quota), _of(each), _of(executor), strict=True)
        for name, limit, own, further in chain(rows, (("shards", self.quota.shards, 1, 0),)):
            if limit is None or not own + further:
                continue
            used = getattr(self.used, name)
            room = limit - used - further
            number = 0 if room < own else room // own if own else allowed
            if number < allowed:
                allowed, lack = number, Lack(self.team, name, used + number * own, limit, own + further, further)
        return allowed, lack


class Quotas(Part):
    def __init__(self, state: State) -> None:
        super().__init__(state)
        #: team → what its attempts and executors use; None until something depends on it, so that an installation
        #: with one team and no quotas does not pay for it at each launch
        self._used: dict[str, Use] | None = None
        #: team → what this pass of a cycle is about to launch
        self._planned: dict[str, Use] = {}
        #: team → keys of its registered jobs
        self._jobs: dict[str, dict[str, None]] = {}
        #: team → its groups whose shards were placed where they need a further executor, without room for it. They wait
        #: until something of the team ends, an agent that runs their executor offers room, or the next sweep comes.
        self._lacking_executor: dict[str, set[Group]] = {}

    def restore(self, at: int) -> None:
        for job in self._state.jobs.values():
            self.job_changed(job)

    # ------------------------------------------------------------------------------------------------- use

    def task_launched(self, task: Task, at: int) -> None:
        if self._used is not None:
            _add_task(self._used, task)

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        if self._used is None:
            return
        team = _team_of_task(task)
        used = self._used[team]
        used.subtract(task.resources, 1 if task.firing_id else 0)
        if self._lacking_executor or not used.shards:
            self._less_used(team, self._used)

    def executor_added(self, executor: Executor) -> None:
        if self._used is not None:
            _add_executor(self._used, executor)

    def executor_gone(self, executor: Executor) -> None:
        team = cached_team_of(executor.app)
        if executor.shares and self._used is not None:
            self._used[team].subtract(amounts(executor.shares), 0)
            self._less_used(team, self._used)
        if self._limits(team) is not None:
            self._state.request_cycle()

    def _less_used(self, team: str, used: dict[str, Use]) -> None:
        """Something of a team has ended."""
        if used[team].empty:
            del used[team]
        self._lacking_executor.pop(team, None)

    def _count(self) -> dict[str, Use]:
        """The use of each team, from the tasks and executors."""
        used: dict[str, Use] = {}
        for task in self._state.tasks.values():
            _add_task(used, task)
        for executor in self._state.executors.values():
            _add_executor(used, executor)
        return used

    def _counted(self) -> dict[str, Use]:
        """The use of each team. From now on, each launch and each end is counted."""
        if self._used is None:
            self._used = self._count()
        return self._used

    def _shown(self) -> dict[str, Use]:
        """The use of each team, for readers."""
        matters = self._state.teams or len(self._jobs) > 1
        return self._counted() if matters or self._used is not None else self._count()

    def sweep(self, at: int) -> None:
        """Look again at shards that lacked room for an executor: an agent that runs one may offer room now."""
        if self._lacking_executor:
            self._lacking_executor.clear()
            self._state.request_cycle()

    # ------------------------------------------------------------------------------------------------- starts

    def limits_starts(self, team: str) -> bool:
        """Whether the quota of a team limits what it starts."""
        quota = self._limits(team)
        return quota is not None and any(limit is not None for limit in (*_limits_of(quota), quota.shards))

    @property
    def held(self) -> Callable[[Group], bool] | None:
        """Tells whether no shard of a group may start, because its team's quota has no room.

        None if no team has a record, so that the cycle of an installation without quotas asks nothing.
        """
        return self._holds if self._state.teams else None

    def _holds(self, group: Group) -> bool:
        return self.lack(group) is not None

    def lack(self, group: Group) -> Lack | None:
        """The first limit that keeps shards of a group from starting. None if a shard may start."""
        if self._limits(group.team) is None:
            return None
        further = NOTHING
        if group in self._lacking_executor.get(group.team, ()):
            further = self._state.apps[group.app].resources if group.app in self._state.apps else NOTHING
        return self.lack_for(group.team, group.resources, 1, further)

    def lack_for(self, team: str, resources: Resources, shards: int, executor: Resources = NOTHING) -> Lack | None:
        """The first limit without room for a start that needs these amounts. None if there is room.

        Planned shards of this pass count as used. A limit of something that the start does not need is ignored.
        """
        quota = self._limits(team)
        if quota is None:
            return None
        rows = zip(LIMITED, _limits_of(quota), _of(resources), _of(executor), strict=True)
        uses = [found for table in (self._counted(), self._planned) if (found := table.get(team)) is not None]
        for name, limit, own, further in chain(rows, (("shards", quota.shards, shards, 0),)):
            if limit is None or not own + further:
                continue
            used = sum(getattr(use, name) for use in uses)
            if used + own + further > limit:
                return Lack(team, name, used, limit, own + further, further)
        return None

    def ever_fits(self, team: str, resources: Resources, shards: int) -> bool:
        """Whether a start that needs these amounts has room if the team uses nothing else."""
        if (quota := self._limits(team)) is None:
            return True
        rows = zip((*_limits_of(quota), quota.shards), (*_of(resources), shards), strict=True)
        return all(limit is None or own <= limit for limit, own in rows if own)

    def allowance(self, team: str) -> Allowance:
        """The free part of the quota of a team now."""
        use = self._counted().get(team, _NOTHING)
        return Allowance(team, self._limits(team), replace(use))

    def plan(self, team: str, resources: Resources, shards: int) -> None:
        """Count something that this pass is about to launch."""
        self._planned.setdefault(team, Use()).add(resources, shards)

    def drop(self, team: str, resources: Resources, shards: int) -> None:
        """Take back something that was planned."""
        self._planned[team].subtract(resources, shards)

    def end_plan(self) -> None:
        """The plan of a pass is complete. From now on, what it launches counts as used."""
        self._planned.clear()

    def wait_for_executor(self, group: Group) -> None:
        """A shard was placed on an agent where it needs a further executor, for which the quota has no room."""
        self._lacking_executor.setdefault(group.team, set()).add(group)

    def room_offered(self, joins: Callable[[Group], bool]) -> None:
        """Agents offer room. Look again at the shards of each group that `joins` an executor on one of them."""
        for team, groups in [*self._lacking_executor.items()]:
            groups -= {group for group in groups if joins(group)}
            if not groups:
                del self._lacking_executor[team]

    def share(self, team: str) -> tuple[float, float]:
        """The part of the cluster that a team has, for comparisons. It includes what this pass has planned.

        The first value is the dominant share: the largest part of any resource. It is divided by the team's weight. The
        second value, the number of attempts divided by the weight, decides between equal shares.
        """
        weight = self._weight(team)
        used, planned = self._counted().get(team, _NOTHING), self._planned.get(team, _NOTHING)
        shards = used.shards + planned.shards
        return self._dominant(used, planned) / weight, shards / weight

    def _dominant(self, used: Use, planned: Use = _NOTHING) -> float:
        """The largest part of any resource of the cluster."""
        parts = zip(used.resources, planned.resources, self._state.cluster.total(), strict=True)
        return max(((have + more) / whole for have, more, whole in parts if whole), default=0.0)

    # ------------------------------------------------------------------------------------------------- the queue

    def limits_queue(self, team: str) -> bool:
        """Whether the quota of a team limits how many of its shards wait."""
        found = self._state.teams.get(team)
        return found is not None and found.quota.queue is not None

    def queue_lack(self, team: str, more: int, fewer: int = 0) -> Told | None:
        """Why `more` shards may not wait, if `fewer` shards leave the queue at the same time; None if they may."""
        quota = self._limits(team)
        if quota is None or quota.queue is None:
            return None
        waiting = self._state.queue.waiting.get(team, 0)
        if waiting - fewer + more <= quota.queue:
            return None
        return shards_waiting(team, waiting, quota.queue, more)

    def check_queue(self, team: str, more: int, field: str) -> None:
        """Raises Conflict if `more` shards may not wait."""
        if why := self.queue_lack(team, more):
            raise Conflict(why, field=field, fix=_FEWER_WAIT)

    # ------------------------------------------------------------------------------------------------- jobs

    def job_changed(self, job: Job) -> None:
        if not job.ad_hoc:
            self._jobs.setdefault(team_of(job.key), {})[job.key] = None

    def job_removed(self, name: str) -> None:
        jobs = self._jobs.get(team_of(name), {})
        jobs.pop(name, None)
        if not jobs:
            self._jobs.pop(team_of(name), None)

    def check_jobs(self, team: str, more: int) -> None:
        """Raises Conflict if a team may not get `more` further jobs."""
        quota, number = self._limits(team), len(self._jobs.get(team, ()))
        if quota is None or quota.jobs is None or more <= 0 or number + more <= quota.jobs:
            return
        text = f"quota of team {team}: it has {number} of {quota.jobs} jobs, and {more} would be added"
        problem = Told(text, "jobs_quota", team=team, jobs=number, most=quota.jobs, more=more)
        raise Conflict(problem, field="jobName", fix=_FEWER_JOBS)

    # ------------------------------------------------------------------------------------------------- reading

    def usage(self, team: str) -> TeamUsage:
        """The use of a team, whether or not it has a record."""
        used = self._shown().get(team, _NOTHING)
        return TeamUsage(
            team=team,
            weight=self._weight(team),
            quota=self._limits(team) or Quota(),
            resources=used.resources,
            shards=used.shards,
            jobs=len(self._jobs.get(team, ())),
            queue=self._state.queue.waiting.get(team, 0),
            held_runs=sum(runs for group, runs in self._state.queue.groups(team) if self._holds(group)),
            share=self._dominant(used),
        )

    def uses(self) -> dict[str, tuple[int, Resources]]:
        """Team → the number of its attempts, and the resources of its attempts and executors, if it has any.

        Consoles ask every second, so from the first question on, each launch and each end is counted.
        """
        return {team: (used.shards, used.resources) for team, used in self._counted().items()}

    def teams(self) -> list[str]:
        """The teams that have a record, a job, a waiting shard, or something that runs, sorted."""
        found = {*self._state.teams, *self._jobs, *self._state.queue.waiting, *self._shown()}
        return sorted(found - {EVERY_TEAM, ""})

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        group = self._state.queue.group_of(head.id) if head is not None else None
        if group is None or (lack := self.lack(group)) is None:
            return
        resource = lack.name if lack.name in LIMITED else ""
        free = max(0, lack.limit - lack.used)
        helps = lack.asked <= lack.limit
        yield Reason(
            "quota", lack.text, resource, lack.asked, free, waiting_helps=helps, case=lack.case,
            parameters=lack.parameters,
        )  # fmt: skip

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "used": self._used or {},
            "planned": self._planned,
            "jobs by team": self._jobs,
            "lacking executor": self._lacking_executor,
            "waiting by team": self._state.queue.waiting,
        }

    def validate(self) -> None:
        if self._used is not None:
            found = {team: (use.resources, use.shards) for team, use in self._used.items()}
            wanted = {team: (use.resources, use.shards) for team, use in self._count().items() if not use.empty}
            assert found == wanted, f"the teams use {wanted}, but {found} is counted"
        assert not self._planned, f"nothing is being planned, and {self._planned} counts"
        jobs = {(team_of(key), key) for key in self._state.jobs.keys() - self._state.ad_hoc.keys()}
        counted = {(team, key) for team, keys in self._jobs.items() for key in keys}
        assert counted == jobs, f"the jobs by team differ: {counted ^ jobs}"
        self._state.queue.validate()

    def _limits(self, team: str) -> Quota | None:
        found = self._state.teams.get(team)
        return found.quota if found is not None else None

    def _weight(self, team: str) -> int:
        found = self._state.teams.get(team)
        return found.weight if found is not None else 1


def _team_of_task(task: Task) -> str:
    """The team whose quota a task uses. A shard counts by its job, because a damaged record may hide its app."""
    return cached_team_of(task.job if task.firing_id else task.app)


def _add_task(used: dict[str, Use], task: Task) -> None:
    team = _team_of_task(task)
    found = used.get(team) or used.setdefault(team, Use())
    found.add(task.resources, 1 if task.firing_id else 0)


def _add_executor(used: dict[str, Use], executor: Executor) -> None:
    if executor.shares:  # an executor of which only tasks are known has none
        used.setdefault(cached_team_of(executor.app), Use()).add(amounts(executor.shares), 0)


def shards_of_run(job: Job, terms: Terms) -> int:
    """How many shards a new run adds to the queue, with the calls of its listener."""
    return (len(terms.items) or job.shard_count) + (2 if job.firing_listener else 0)


def _limits_of(quota: Quota) -> tuple[int | None, int | None, int | None]:
    return quota.cpus, quota.mem, quota.gpus


def _of(resources: Resources) -> tuple[int, int, int]:
    return resources.cpus, resources.mem, resources.gpus
