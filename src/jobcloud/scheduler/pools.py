"""Pools: named limits across jobs, such as "at most 5 shards use this database at once".

A pool has slots. Each shard of a job that names the pool takes its number of slots when it starts, and gives them back
when its attempt is known to be over. An attempt whose agent is unreachable keeps them until it is given up. The slots
are stored with the task, so they do not change while it runs. No running shard is killed because of a pool: a
limit below the use only prevents new starts.

Within a team, the slots are given in the order of the queue. If a shard needs more slots than are free, the free ones
are kept for it, also in the next cycle, until it starts or can no longer start. Otherwise, it could wait for ever while
others take each slot that becomes free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final, NamedTuple

from jobcloud.config import Job
from jobcloud.errors import ConfigError, Conflict
from jobcloud.messages import Kind, PutPool, RemovePool, Topic
from jobcloud.model import Firing, Pool, Slots, Task
from jobcloud.scheduler.part import Part
from jobcloud.scheduler.queue import Group
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.refusals import changed_meanwhile, no_pool
from jobcloud.scheduler.slots import slots_of
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.sentences import Parameter, Told
from jobcloud.sentences.frequent import done_by

MAX_POOLS: Final = 10_000
_NEVER: Final = ("missing", "closed", "never")
_NONE: Final[Mapping[str, int]] = {}
_NO_POOLS: Final[Mapping[str, Pool]] = {}


class PoolUse(NamedTuple):
    """A pool and its use. `used`: slots. `jobs`: the number of jobs that name the pool.

    `waiting`: the number of shards that wait, without those that wait for a back-off or a listener.
    """

    key: str
    pool: Pool
    used: int
    waiting: int
    jobs: int


class Shortage(NamedTuple):
    """A pool that has too few slots. `limit`: None if there is no such pool."""

    pool: str
    used: int
    limit: int | None
    needed: int

    @property
    def case(self) -> str:
        """The case of the reason `pool`."""
        if self.limit is None:
            return "missing"
        if not self.limit:
            return "closed"
        if self.needed > self.limit:
            return "never"
        if self.used + self.needed <= self.limit:
            return "kept"
        return "several" if self.needed > 1 else ""

    @property
    def text(self) -> str:
        if self.limit is None:
            return f"there is no pool {self.pool}"
        if not self.limit:
            return f"pool {self.pool} has no slots: no shard that names it starts"
        text = f"pool {self.pool}: {self.used} of {self.limit} slots are used"
        if self.case == "never":
            return f"{text}, and a shard needs {self.needed}: the pool never has room for it"
        if self.case == "kept":
            return f"{text}; the others are kept for a shard that is ahead and needs more of them"
        return f"{text}, and a shard needs {self.needed}" if self.case == "several" else text

    @property
    def parameters(self) -> dict[str, Parameter]:
        if not self.limit:
            return {"pool": self.pool}
        found: dict[str, Parameter] = {"pool": self.pool, "used": self.used, "most": self.limit}
        return found | ({"needed": self.needed} if self.case in ("never", "several") else {})


class Pools(Part):
    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._used: Counter[str] = Counter()
        #: pool → slots that this pass of a cycle is about to give
        self._planned: Counter[str] = Counter()
        #: slots of resident tasks; nobody knows when these tasks end
        self._resident: Counter[str] = Counter()
        #: pool → the group of the shard that needs more slots than are free, and for which the last cycle kept them
        self._kept: dict[str, Group] = {}
        #: the same for this cycle
        self._claims: dict[str, Group] = {}
        #: pool → the jobs that name it
        self._jobs: dict[str, set[str]] = {}
        #: job → its slots, if it names pools
        self._slots: dict[str, Slots] = {}

    def restore(self, at: int) -> None:
        for task in self._state.tasks.values():
            self.task_launched(task, at)
        for job in self._state.jobs.values():
            self.job_changed(job)

    # ------------------------------------------------------------------------------------------------- commands

    def put(self, event: PutPool) -> None:
        """Create or change a pool. Raises Conflict or Outdated."""
        key, known = event.key, self._state.pools.get(event.key)
        if event.before is not None and event.before != known:
            raise changed_meanwhile("pool", key)
        self.check_number({key})
        if event.pool == known:
            return
        self._state.put(Kind.POOL, key, event.pool)
        self._state.publish(event.at, Topic.CONFIG, f"pool {key} has {event.pool.slots} slots")
        self._state.request_cycle()

    def remove(self, event: RemovePool) -> None:
        """Remove a pool. Raises NotFound, Outdated, or Conflict if jobs name it."""
        known = self.pool(event.key)
        if event.before is not None and event.before != known:
            raise changed_meanwhile("pool", event.key)
        named = self._jobs.get(event.key, ())
        # An ad-hoc run that has ended does not prevent the removal of a pool.
        if jobs := sorted(job for job in named if job not in self._state.ad_hoc or self._state.queue.unfinished(job)):
            text = f"pool {event.key} is named by {len(jobs)} jobs, for example {jobs[0]}"
            problem = Told(text, "pool_used", pool=event.key, jobs=len(jobs), job=jobs[0])
            raise Conflict(problem, field="pool", fix=Told("take the pool out of these jobs first", "unname_pool"))
        self._state.delete(Kind.POOL, event.key)
        self._state.publish(event.at, Topic.CONFIG, f"pool {event.key} is removed")

    def check_number(self, keys: AbstractSet[str]) -> None:
        """Raises Conflict if the pools and new ones with some `keys` would be too many."""
        more = sum(key not in self._state.pools for key in keys)
        if more and len(self._state.pools) + more > MAX_POOLS:
            text = f"there are {len(self._state.pools)} pools already, of at most {MAX_POOLS}"
            problem = Told(text, "many_pools", pools=len(self._state.pools), most=MAX_POOLS)
            raise Conflict(problem, field="pool", fix=Told("remove one that no job names", "remove_unused_pool"))

    def check(self, job: Job, more: Mapping[str, Pool] = _NO_POOLS) -> None:
        """Raises ConfigError if the job names a pool that does not exist, or that is too small for its gang.

        `more`: pools that are about to be set.
        """
        for key, number in slots_of(job):
            pool = more.get(key) or self._state.pools.get(key)
            if pool is None:
                problem = Told(f"there is no pool {key} for job {job.key}", "no_pool", pool=key)
                raise ConfigError(problem, field="pools", fix=done_by(f"jobcloud pool set {key} SLOTS", "makes it"))
            needed = number * job.shard_count
            if job.gang_start and 0 < pool.slots < needed:
                text = f"all {job.shard_count} shards start together and need {needed} slots of pool {key}"
                problem = Told(f"{text}, which has {pool.slots}", "few_slots", shards=job.shard_count, needed=needed,
                               pool=key, slots=pool.slots)  # fmt: skip
                fix = Told("give the pool more slots, or leave gangStart out", "more_slots")
                raise ConfigError(problem, field="gangStart", fix=fix)

    # ------------------------------------------------------------------------------------------------- slots

    def task_launched(self, task: Task, at: int) -> None:
        for key, number in task.slots:
            self._used[key] += number
            if task.revision:
                self._resident[key] += number

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        for key, number in task.slots:
            _subtract(self._used, key, number)
            if task.revision:
                _subtract(self._resident, key, number)

    def full(self, group: Group) -> bool:
        """Whether a cycle may pass over a group: a pool has no free slot, and need not keep any for the group."""
        return any(self._free(key) <= 0 and (number == 1 or self._is_kept(key, group)) for key, number in group.slots)

    def lack(self, group: Group) -> bool:
        """Whether the pools have too few slots for a shard of a group, or keep them for another one."""
        return any(True for _ in self.shortages(group))

    def short(self, group: Group) -> bool:
        """Like `lack`, but kept slots count as free, because their group may have been paused since."""
        return any(number > self._free(key) for key, number in group.slots)

    def shortages(self, group: Group, taken: Mapping[str, int] = _NONE) -> Iterator[Shortage]:
        """The pools with too few slots. `taken`: slots that count as used, too."""
        for key, number in group.slots:
            more = taken.get(key, 0)
            if number > self._free(key) - more or self._is_kept(key, group):
                pool = self._state.pools.get(key)
                used = self._used[key] + self._planned[key] + more
                yield Shortage(key, used, pool.slots if pool is not None else None, number)

    def _is_kept(self, key: str, group: Group) -> bool:
        """Whether the free slots of a pool are kept for another group.

        Slots that the last cycle kept are kept from other teams only, because another shard of the same team may be
        first now.
        """
        if (owner := self._claims.get(key)) is not None:
            return owner != group
        before = self._kept.get(key)
        return before is not None and before.team != group.team

    def _free(self, key: str) -> int:
        return self._slots_of(key) - self._used[key] - self._planned[key]

    def _slots_of(self, key: str) -> int:
        pool = self._state.pools.get(key)
        return pool.slots if pool is not None else 0

    @property
    def exist(self) -> bool:
        """Whether there is a pool, or a job that names one."""
        return bool(self._state.pools or self._slots)

    def plan(self, group: Group) -> None:
        """Count a shard that this pass is about to launch."""
        for key, number in group.slots:
            self._planned[key] += number
            for kept in (self._kept, self._claims):
                if kept.get(key) == group:
                    del kept[key]

    def drop(self, group: Group) -> None:
        """No longer count a planned shard."""
        for key, number in group.slots:
            self._planned[key] -= number

    def to_keep(self, group: Group) -> list[str]:
        """The pools whose free slots may be kept for a shard of a group that needs several slots and waits for them.

        Empty if resident shards have so many slots that the shard cannot start while they run.
        """
        if not self.ever_fits(group):
            return []
        return [
            key for key, number in group.slots
            if number > 1 and number > self._free(key) and not self._is_kept(key, group)
        ]  # fmt: skip

    def ever_fits(self, group: Group) -> bool:
        """Whether the pools have enough slots for a shard of a group when only resident shards use them."""
        return all(number <= self._slots_of(key) - self._resident[key] for key, number in group.slots)

    def keep(self, group: Group) -> None:
        """Keep the free slots for a shard of a group, until the end of the next cycle."""
        for key in self.to_keep(group):
            self._claims[key] = group

    def ask_again(self, group: Group) -> None:
        """A shard of a group gets another turn. Until then, the slots kept for it are kept from other teams only.

        Shards of its own team that are ahead of it may need fewer slots.
        """
        for key, _ in group.slots:
            if self._claims.get(key) == group:
                self._kept[key] = self._claims.pop(key)

    def end_plan(self) -> None:
        """The plan of a pass is complete. From now on, the slots of launched tasks count as used."""
        self._planned.clear()

    def begin_cycle(self) -> None:
        """Keep the slots that the last cycle has kept. This cycle keeps them again for shards that still wait."""
        self._kept, self._claims = dict(self._claims), {}

    def end_cycle(self) -> bool:
        """Returns whether this cycle has not kept some slots again that the last cycle kept, so that they are free."""
        return not self._kept.keys() <= self._claims.keys()

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """A `with` block whose changes of the kept slots are undone at its end."""
        before = dict(self._kept), dict(self._claims)
        yield
        self._kept, self._claims = before

    # ------------------------------------------------------------------------------------------------- jobs

    def job_changed(self, job: Job) -> None:
        if not job.pools and job.key not in self._slots:
            return
        self.job_removed(job.key)
        try:
            slots = slots_of(job)
        except ConfigError:
            return  # a damaged record; the job gets a fault when its task is made
        if slots:
            self._slots[job.key] = slots
        for key, _ in slots:
            self._jobs.setdefault(key, set()).add(job.key)

    def job_removed(self, name: str) -> None:
        for key, _ in self._slots.pop(name, ()):
            self._jobs[key].discard(name)
            if not self._jobs[key]:
                del self._jobs[key]
                for kept in (self._kept, self._claims):  # perhaps no cycle follows
                    kept.pop(key, None)

    # ------------------------------------------------------------------------------------------------- reading

    def pool(self, key: str) -> Pool:
        """Raises NotFound."""
        if key not in self._state.pools:
            raise no_pool(key)
        return self._state.pools[key]

    def uses(self, only: str = "") -> list[PoolUse]:
        """All pools sorted by key, or only the one with this key, if it exists."""
        waiting: Counter[str] = Counter()
        for slots, shards in self._state.queue.waiting_for_slots():
            for key, _ in slots:
                waiting[key] += shards
        return [
            PoolUse(key, pool, self._used[key], waiting[key], len(self._jobs.get(key, ())))
            for key, pool in sorted(self._state.pools.items())
            if only in ("", key)
        ]

    def room(self, job: Job, wanted: int) -> tuple[int, tuple[Reason, ...]]:
        """How many of `wanted` further shards of a job have slots, and the reasons why the others have none."""
        slots = self._slots.get(job.key, ())
        most = min((max(0, self._free(key)) // number for key, number in slots), default=wanted)
        if most >= wanted:
            return wanted, ()
        taken = {key: most * number for key, number in slots}
        return most, tuple(map(_reason, self.shortages(self._state.group_of(job.key), taken)))

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        group = self._state.queue.group_of(head.id) if job.key in self._slots and head is not None else None
        if group is not None:
            yield from map(_reason, self.shortages(group))

    def indexes(self) -> Mapping[str, Sized]:
        return {
            "slots used": self._used, "slots of residents": self._resident, "slots planned": self._planned,
            "pools kept": self._claims, "jobs by pool": self._jobs, "slots of jobs": self._slots,
        }  # fmt: skip

    def validate(self) -> None:
        for counted, tasks in (
            (self._used, self._state.tasks.values()),
            (self._resident, [task for task in self._state.tasks.values() if task.revision]),
        ):
            used: Counter[str] = Counter()
            for task in tasks:
                used.update(dict(task.slots))
            assert counted == used, f"the tasks use {used}, but {counted} is counted"
        assert not +self._planned, f"no pass is running, but {self._planned} is planned"
        named = {(key, job) for job, slots in self._slots.items() for key, _ in slots}
        filed = {(key, job) for key, jobs in self._jobs.items() for job in jobs}
        assert named == filed, f"the jobs by pool differ: {named ^ filed}"


def _subtract(counts: Counter[str], key: str, number: int) -> None:
    counts[key] -= number
    if not counts[key]:
        del counts[key]


def _reason(short: Shortage) -> Reason:
    helps = short.case not in _NEVER
    return Reason("pool", short.text, waiting_helps=helps, case=short.case, parameters=short.parameters)
