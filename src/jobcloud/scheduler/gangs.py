"""Gang start: the shards of a run start together or not at all, and room is held back for a gang that waits for long.

If a job has `gangStart`, the waiting shards of each of its runs are a gang, until a shard of the run has been launched.
The cycle places a gang in one decision (see cycle.py). Later attempts of these shards start one by one.

Small shards could take all room as soon as it becomes free, and a wide gang would never start. Therefore a gang that
has found too little room for `Policy.gang_age_ms` gets a *hold*: no shard behind it in the order starts on an agent
that could take a shard of the gang, and unused offers are kept. If the quota of its team or a pool has too little room,
no shard behind it in its team starts. Only one gang at a time has a hold, so two gangs cannot wait for each other's
room. A hold ends when the gang starts or no longer waits, and after `Policy.gang_hold_ms` at the latest. Then no gang
has a hold for as long as this one lasted. After this pause, the gang must wait for `gang_age_ms` again, so that other
gangs get a hold first. A gang gets no hold if it could not start even if nothing else ran. If all agents are too small
for it, its age also begins again. Ages and holds are not stored: a new leader counts from its first cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from jobcloud.config import App, Job
from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST
from jobcloud.model import Execution, Firing, ShardState
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.places import Limit, own_where
from jobcloud.scheduler.pools import Pools
from jobcloud.scheduler.queue import Gang
from jobcloud.scheduler.quotas import LIMITED, Quotas
from jobcloud.scheduler.reason import Reason, amount
from jobcloud.scheduler.state import State
from jobcloud.scheduler.timetable import utc
from jobcloud.sentences import Parameter, Told


@dataclass(slots=True)
class Waiting:
    """A gang that did not start in the last cycle that tried it. `fits`: how many of its `shards` found room then.

    If its quota or a pool had too little room, `fits` is the number of shards that were counted before the quota was
    full, or 0 if no place was tried.
    """

    since: int
    shards: int
    fits: int = 0


class Hold(NamedTuple):
    """The hold of a gang, from `since` to `until` at the latest.

    `for_team`: the gang lacks quota or slots, so the hold stops later shards of its team, and keeps no agents free.
    """

    firing_id: str
    since: int
    until: int
    for_team: bool = False


class Gangs(Part):
    def __init__(self, state: State, quotas: Quotas, pools: Pools) -> None:
        super().__init__(state)
        self._quotas = quotas
        self._pools = pools
        #: the jobs with gang start
        self._jobs: set[str] = set()
        #: firing → its gang, which has found too little room
        self._waiting: dict[str, Waiting] = {}
        self.hold: Hold | None = None
        #: no gang gets a hold before this instant
        self._rest_until = 0
        #: job → the gang behind which its shards waited in the last cycle
        self.behind: dict[str, str] = {}
        #: whether this cycle has compared a gang with all agents. One comparison with thousands of agents takes
        #: milliseconds
        self._compared = False

    def restore(self, at: int) -> None:
        for job in self._state.jobs.values():
            self.job_changed(job)

    @property
    def exist(self) -> bool:
        """Whether there is a job with gang start."""
        return bool(self._jobs)

    def together(self, firing: Firing) -> int:
        """The number of waiting shards of a firing that start together. 0: its shards start one by one."""
        if firing.job not in self._jobs:
            return 0
        if any(shard.attempt or shard.execution is not Execution.READY for shard in firing.work):
            return 0
        return sum(shard.state is ShardState.WAITING for shard in firing.work)

    # ------------------------------------------------------------------------------------------------- waiting

    def begin_cycle(self) -> None:
        self.behind.clear()
        self._compared = False

    def finds_no_room(self, gang: Gang, fits: int, at: int) -> bool:
        """Note that only `fits` shards of a gang fit now. Perhaps begin its hold. Returns whether it has the hold."""
        waiting = self._note(gang, at)
        waiting.fits = fits
        if self._compared or not self._may_hold(gang, at):
            return self._has_hold(gang)
        self._compared = True
        job = self._state.jobs[self._state.firings[gang.firing_id].job]
        if self._state.cluster.holds_at_most(self._state.request(job), len(gang.items)) == len(gang.items):
            self._begin(gang, at, for_team=False)
        else:
            waiting.since = at
        return self._has_hold(gang)

    def lacks_limits(self, gang: Gang, fits: int, at: int) -> bool:
        """Note that a quota or a pool has too little room for a gang. Perhaps begin its hold.

        `fits`: see `Waiting`. Returns whether the gang has the hold.
        """
        self._note(gang, at).fits = fits
        if self._may_hold(gang, at) and self._limits_suffice(gang):
            self._begin(gang, at, for_team=True)
        return self._has_hold(gang)

    def _limits_suffice(self, gang: Gang) -> bool:
        """Whether the quota suffices for the gang with one executor, and the pools for the gang and DAEMON shards."""
        job = self._state.jobs[self._state.firings[gang.firing_id].job]
        need, executor = self._state.group_of(job.key).times(len(gang.items)), self._state.request(job).executor
        fits = self._quotas.ever_fits(need.team, need.resources.plus(executor), len(gang.items))
        return fits and self._pools.ever_fits(need)

    def note_behind(self, jobs: AbstractSet[str]) -> None:
        """Note the jobs whose shards found no room after room was held back for a gang."""
        if self.hold is not None:
            self.behind |= dict.fromkeys(jobs, self.hold.firing_id)

    def _note(self, gang: Gang, at: int) -> Waiting:
        found = self._waiting.setdefault(gang.firing_id, Waiting(at, 0))
        found.shards = len(gang.items)
        return found

    def _may_hold(self, gang: Gang, at: int) -> bool:
        aged = at - self._waiting[gang.firing_id].since >= self._state.policy.gang_age_ms
        return aged and self.hold is None and at >= self._rest_until

    def _has_hold(self, gang: Gang) -> bool:
        return self.hold is not None and self.hold.firing_id == gang.firing_id

    def _begin(self, gang: Gang, at: int, *, for_team: bool) -> None:
        self.hold = Hold(gang.firing_id, at, at + self._state.policy.gang_hold_ms, for_team)
        self._state.new_work = True  # ask again for the offers that were declined, because all are kept from now on

    def _end_hold(self, at: int) -> None:
        if self.hold is None:
            return
        self._rest_until = at + max(0, at - self.hold.since)
        if (waiting := self._waiting.get(self.hold.firing_id)) is not None:
            waiting.since = self._rest_until  # other gangs that have waited for long get a hold first
        self.hold = None
        self._state.request_cycle()

    def _still_waits(self, firing_id: str) -> bool:
        firing = self._state.firings.get(firing_id)
        if firing is None or not self.together(firing) or firing.job in self._state.faults:
            return False
        return self._state.enabled(firing.job) and not self._state.paused(firing.job)

    def on_tick(self, at: int) -> None:
        if self.hold is not None and (at >= self.hold.until or not self._still_waits(self.hold.firing_id)):
            self._end_hold(at)

    def next_wake(self, at: int) -> int | None:
        return self.hold.until if self.hold is not None else None

    def clock_set_back(self, at: int) -> None:
        for waiting in self._waiting.values():
            waiting.since = min(waiting.since, at)
        self._rest_until = min(self._rest_until, at + self._state.policy.gang_hold_ms)
        if self.hold is not None:
            until = min(self.hold.until, at + self._state.policy.gang_hold_ms)
            self.hold = self.hold._replace(since=min(self.hold.since, at), until=until)

    def run_ended(self, firing: Firing, at: int) -> None:
        if self._waiting:
            self.forget(firing.id, at)

    def forget(self, firing_id: str, at: int) -> None:
        """Forget a gang that starts or no longer waits."""
        if self._waiting.pop(firing_id, None) and self.hold is not None and self.hold.firing_id == firing_id:
            self._end_hold(at)

    # ------------------------------------------------------------------------------------------------- jobs

    def job_changed(self, job: Job) -> None:
        if job.gang_start:
            self._jobs.add(job.key)
        elif self._jobs:
            self._jobs.discard(job.key)

    def job_removed(self, name: str) -> None:
        self._jobs.discard(name)
        self.behind.pop(name, None)

    def sweep(self, at: int) -> None:
        for firing_id in [one for one in self._waiting if not self._still_waits(one)]:
            self.forget(firing_id, at)

    # ------------------------------------------------------------------------------------------------- reading

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        if head is None or self._state.queue.group_of(head.id) is None:
            return
        waiting = self._waiting.get(head.id) if self.together(head) else None
        if waiting is not None:
            yield from self._why(job, head.id, waiting)
        if self.hold is None or self.hold.firing_id == head.id:
            return
        ahead = self._state.firings.get(self.hold.firing_id)
        same_team = ahead is not None and self._state.jobs[ahead.job].team == job.team
        if (self.hold.for_team and same_team) or self.behind.get(job.key) == self.hold.firing_id:
            text = f"room is held back for {self.hold.firing_id}, whose shards start together, "
            yield Reason(
                "gang", f"{text}until {utc(self.hold.until)} at the latest", waiting_helps=True, at=self.hold.until,
                case="behind", parameters={"run": self.hold.firing_id},
            )  # fmt: skip

    def _why(self, job: Job, firing_id: str, waiting: Waiting) -> Iterator[Reason]:
        """The reasons why a gang does not start, with numbers."""
        shards, limited = waiting.shards, False
        together = f"all {shards} shards start together"
        scaled = self._state.group_of(job.key).times(shards)
        if (lack := self._quotas.lack_for(scaled.team, scaled.resources, shards)) is not None:
            whole = amount if lack.name in LIMITED else int
            used, most, needed = whole(lack.used), whole(lack.limit), whole(lack.asked)
            text = f"{together} and need {needed} {lack.name}: the quota of team {lack.team} is {most}, used are {used}"
            given: dict[str, Parameter] = {
                "shards": shards, "team": lack.team, "limit": lack.name, "used": used, "most": most, "needed": needed
            }  # fmt: skip
            helps, limited = lack.asked <= lack.limit, True
            yield Reason("gang", text, waiting_helps=helps, case="quota", parameters=given)
        for short in self._pools.shortages(scaled):
            limited = True
            most = short.limit or 0
            text = (
                f"{together} and need {short.needed} slots of pool {short.pool}: it has {most}, used are {short.used}"
            )
            given = {"shards": shards, "pool": short.pool, "used": short.used, "most": most, "needed": short.needed}
            yield Reason("gang", text, waiting_helps=short.needed <= most, case="slots", parameters=given)
        held = self.hold is not None and self.hold.firing_id == firing_id
        most = self._state.cluster.holds_at_most(self._state.request(job), shards)
        if most < shards:
            text = f"{together}, and all agents seen so far hold at most {most}, even if they were empty"
            yield Reason("gang", text, case="never", parameters={"shards": shards, "most": most})
        elif held and self.hold is not None and not self.hold.for_team:
            text = f"{together}, and {waiting.fits} fit now; room is held back for them until {utc(self.hold.until)}"
            yield Reason(
                "gang", text, waiting_helps=True, at=self.hold.until, case="held",
                parameters={"shards": shards, "fits": waiting.fits},
            )  # fmt: skip
        elif not limited:
            text = f"{together}, and {waiting.fits} fit now"
            yield Reason("gang", text, waiting_helps=True, parameters={"shards": shards, "fits": waiting.fits})

    def indexes(self) -> Mapping[str, Sized]:
        return {"gang jobs": self._jobs, "waiting gangs": self._waiting, "behind a gang": self.behind}

    def validate(self) -> None:
        jobs = {job.key for job in self._state.jobs.values() if job.gang_start}
        assert self._jobs == jobs, f"the jobs with gang start are {jobs}, not {self._jobs}"
        assert self._waiting.keys() <= self._state.firings.keys(), "a gang waits that is gone"
        assert self.hold is None or self.hold.firing_id in self._waiting, f"{self.hold} is about no gang that waits"


def check_parallel(job: Job, app: App) -> None:
    """Raises ConfigError if one agent may get more shards of a gang than the worker of the app runs at once."""
    if not (job.gang_start and job.shares_worker and app.max_parallel):
        return
    limits = [rule.number for rule in own_where(job).must if isinstance(rule, Limit) and rule.attribute == HOST]
    most = min([job.shard_count, *limits])
    if most > app.max_parallel:
        text = f"a worker of app {app.key} runs at most {app.max_parallel} shards at once (maxParallel), not {most}"
        problem = Told(text, "small_worker", app=app.key, most=app.max_parallel, shards=most)
        text = f"raise maxParallel, or add the constraint `at most {app.max_parallel} per host`"
        fix = Told(text, "gang_parallel", most=app.max_parallel)
        raise ConfigError(problem, field="gangStart", fix=fix)
