"""The life of firings: they are queued, changed shard by shard, ended, and kept as records for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized

from jobcloud.config import Job, JobKind
from jobcloud.messages import RunTraced, Topic
from jobcloud.model import Cause, Firing, Shard, ShardState, Task, changed, cut, replaced
from jobcloud.scheduler import retry, sharding
from jobcloud.scheduler.attempts import attempt_of
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.state import State

# The message of a shard that has ended because its job no longer has it.
FEWER = "the job has fewer shards now"
# Global names, because an access to an enum member costs a function call in CPython 3.11.
_DEAD, _FINISHED, _WAITING = ShardState.DEAD, ShardState.FINISHED, ShardState.WAITING
_WHY_BYTES = 300
_NOT_BEGUN = (ShardState.WAITING, ShardState.CANCELLED)
_ENDED = tuple(state for state in ShardState if state.ended)


# The maximum number of earlier attempts in a job's ended firings, for `kept` and `dead` separately. The newest firing
# of each keeps its attempts in any case.
MOST_ATTEMPTS = 10_000


class Ended(deque[str]):
    """Ids of ended firings of a job, oldest first. `shards` and `attempts` count the shards and earlier attempts."""

    shards = attempts = 0

    def add(self, firing: Firing, attempts: int) -> None:
        self.append(firing.id)
        self.shards += len(firing.shards)
        self.attempts += attempts

    def discard(self, firing: Firing, attempts: int) -> None:
        self.remove(firing.id)
        self.shards -= len(firing.shards)
        self.attempts -= attempts


class Firings(Part):
    def __init__(self, state: State, hooks: Hooks) -> None:
        super().__init__(state)
        self._hooks = hooks
        #: job → ids of its ended firings, oldest first, without those in `dead`
        self.kept: dict[str, Ended] = {}
        #: job → ids of its ended firings with DEAD shards, oldest first
        self.dead: dict[str, Ended] = {}
        #: the unfinished firings whose changes of shards are announced
        self.followed: set[str] = set()

    def restore(self, at: int) -> None:
        """Queue the unfinished firings in their order, and list the ended ones."""
        for firing in sorted(self._state.firings.values(), key=_age):
            if firing.ended_ms:
                self._remember(firing)
            else:
                self._state.queue.add(firing)
        for name in sorted(self.kept.keys() | self.dead.keys()):
            self._prune(name)
        self.clock_set_back(at)

    def on_tick(self, at: int) -> None:
        if self._state.queue.expire_backoffs(at):
            self._state.request_cycle()

    def next_wake(self, at: int) -> int | None:
        return self._state.queue.next_wake()

    def clock_set_back(self, at: int) -> None:
        """End every back-off that lasts longer than its maximum: the clock was ahead when the back-off began."""
        jobs = self._state.jobs

        def longest(job: str, shard: Shard) -> int:
            return retry.max_backoff_ms(jobs[job], shard) if job in jobs else 0

        for firing_id, item, shard in self._state.queue.backing_off(at, longest):
            self.put_shards(firing_id, {item: changed(shard, not_before_ms=at, avoid_ms=0)}, at)
        self._state.queue.clock_set_back(at)

    # ------------------------------------------------------------------------------------------------- changes

    def add(self, firing: Firing, at: int) -> None:
        """Add a new firing. None of its shards has been tried."""
        self._add(firing, {})
        for hook in self._hooks.run_added:
            hook(firing, at)

    def _add(self, firing: Firing, changes: Mapping[int, Shard]) -> None:
        self._state.put_firing(firing, changes)
        self._state.queue.add(firing)
        self._state.request_cycle()

    def cancel_waiting(self, firing_id: str, shards: Iterable[Shard], why: str, at: int) -> None:
        """Cancel the waiting ones of `shards`, which are the first shards of an unfinished firing, or all of them."""
        cancelled = {
            item: changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
            for item, shard in enumerate(shards)
            if shard.state is ShardState.WAITING
        }
        if cancelled:
            self.put_shards(firing_id, cancelled, at)

    def put_shards(self, firing_id: str, changes: dict[int, Shard], at: int) -> None:
        """Replace or add shards of an unfinished firing. When all its shards have ended, the firing ends."""
        old = self._state.firings[firing_id]
        if old.stepped:
            changes = {**changes, **_cancelled_by_listener(old, changes, at)}
        self._keep_attempts(old, changes)
        firing = changed(old, shards=replaced(old.shards, changes))
        if not self._state.queue.change(firing, changes):
            firing = changed(firing, ended_ms=at)
        self._state.put_firing(firing, changes)
        if firing_id in self.followed:
            for hook in self._hooks.shards_changed:
                hook(firing, changes, at)
        if firing.ended_ms:
            self.followed.discard(firing_id)
            self._ended(firing, at)

    def with_previous_success(self, firing: Firing, job: Job) -> Firing:
        """The firing. If the job has a placeholder for the previous success, the result has the time of this success.

        Call this before the first shard starts. The firing keeps the value, so that all its attempts have the same.
        """
        if firing.terms.previous_ms is not None or not sharding.wants_previous_success(job, firing.terms):
            return firing
        terms = changed(firing.terms, previous_ms=self._last_success_before(firing))
        firing = changed(firing, terms=terms)
        self._state.put_firing(firing, {})
        self._state.queue.renew(firing)
        return firing

    def _last_success_before(self, firing: Firing) -> int:
        """The last earlier fire time whose run succeeded with all shards of the job; 0 if none is known."""
        latest = self._state.job_states[firing.job].success_fire_ms
        # `latest` may be later than this firing. And it lacks the runs that ended while the job had no placeholders.
        ids = (*self.kept.get(firing.job, ()), *self.dead.get(firing.job, ()))
        succeeded = [one.fire_ms for name in ids if _succeeded_whole(one := self._state.firings[name])]
        return max((at for at in (latest, *succeeded) if at < firing.fire_ms), default=0)

    def _keep_attempts(self, old: Firing, changes: Mapping[int, Shard]) -> None:
        """Keep the last attempts of ended shards that wait again."""
        for item, shard in changes.items():
            waits_again = shard.state is _WAITING and item < len(old.shards)
            if waits_again and (attempt := attempt_of(old.shards[item])) is not None:
                self._state.keep_attempt(old.id, item, attempt)

    def reopen(self, ended: Firing, generation: int, changes: Mapping[int, Shard], at: int) -> None:
        """Continue an ended firing. `changes` are the shards that wait again.

        A firing from before the job had a range gets one now, and keeps it from now on.
        """
        divided = ended.terms.range or sharding.range_of(self._state.jobs[ended.job], ended.fire_ms)
        terms = changed(ended.terms, retried=True, range=divided)
        firing = changed(ended, generation=generation, shards=replaced(ended.shards, changes), ended_ms=0, terms=terms)
        for kept in (self.kept, self.dead):
            ids = kept.get(firing.job, Ended())
            if firing.id in ids:
                ids.discard(firing, self._attempts(firing.id))
                if not ids:
                    del kept[firing.job]
        self._keep_attempts(ended, changes)
        self._add(firing, changes)
        for hook in self._hooks.run_reopened:
            hook(firing, at)

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        """Record when a shard started. The task's record stores this instant, so the firing need not be saved."""
        if task.started_ms == before.started_ms or task.placeholder:
            return
        old = self._state.firings[task.firing_id]
        shard = changed(old.shards[task.item], started_ms=task.started_ms)
        firing = changed(old, shards=replaced(old.shards, {task.item: shard}))
        self._state.put_firing_unsaved(firing)
        self._state.queue.renew(firing)

    def _ended(self, firing: Firing, at: int) -> None:
        states = [shard.state for shard in firing.chosen]
        text = ", ".join(f"{states.count(state)} {state}" for state in _ENDED if state in states)
        self._state.publish(at, Topic.DONE, text, job=firing.job, firing_id=firing.id, state=str(firing.worst))
        self._remember(firing)
        self._prune(firing.job)
        job = self._state.jobs.get(firing.job)
        if job is not None and job.placeholders and _succeeded_whole(firing):
            latest = max(firing.fire_ms, self._state.job_states[job.key].success_fire_ms)
            self._state.change_job_state(job.key, success_fire_ms=latest)
        if self._state.policy.traced:
            self._state.emit(RunTraced(firing, job.app_key if job is not None else ""))
        if job is not None:
            self.ensure_resident(job, at)
        for hook in self._hooks.run_ended:
            hook(firing, at)
        self._state.request_cycle()

    # ------------------------------------------------------------------------------------------------- resident jobs

    def resident(self, job: str) -> Firing | None:
        """The firing of a resident job. None if the job is disabled, or if shards of an older firing have not ended."""
        unfinished = self._state.queue.unfinished(job)
        found = unfinished[0] if unfinished else None
        return found if found is not None and found.cause is Cause.DAEMON and self._state.wanted(found) else None

    def ensure_resident(self, job: Job, at: int) -> None:
        """Give an enabled resident job its firing with all shards, once its older firings have ended.

        If the job's cron has no further fire time, no shard is started. The running ones end by themselves.
        """
        if job.kind is not JobKind.DAEMON or not self._state.enabled(job.key):
            return
        over = cron_is_over(job, at)
        if (firing := self.resident(job.key)) is not None:
            self._resize(firing, job, at, over=over)
        elif not over and not self._state.queue.unfinished(job.key):
            self.add(self._state.new_firing(job, Cause.DAEMON, at), at)

    def _resize(self, firing: Firing, job: Job, at: int, *, over: bool) -> None:
        """Adapt the firing of a resident job to the job's shard count.

        Ended and missing shards start if the cron is not `over`. Waiting shards that the job no longer has are
        cancelled.
        """
        missing = [Shard()] * (job.shard_count - len(firing.shards))
        changes = {
            item: retry.reset(shard)
            for item, shard in enumerate((*firing.shards, *missing)[: job.shard_count])
            if not over and (item >= len(firing.shards) or shard.state.ended)
        }
        changes |= {
            item: changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=FEWER)
            for item, shard in enumerate(firing.shards)
            if item >= job.shard_count and shard.state is ShardState.WAITING
        }
        if changes:
            self.put_shards(firing.id, changes, at)
            self._state.request_cycle()

    # ------------------------------------------------------------------------------------------------- ended firings

    def _remember(self, firing: Firing) -> None:
        """Firings with DEAD shards have a list of their own, so that other firings do not displace them."""
        kept = self.dead if any(shard.state is _DEAD for shard in firing.shards) else self.kept
        kept.setdefault(firing.job, Ended()).add(firing, self._attempts(firing.id))

    def _attempts(self, firing_id: str) -> int:
        """The number of earlier attempts of a firing's shards."""
        attempts = self._state.attempts.get(firing_id)
        return attempts.total if attempts is not None else 0

    def _prune(self, job: str) -> None:
        """Delete the oldest ended firings of a job beyond the limits. If the job was removed, delete all of them."""
        policy = self._state.policy
        for kept, limit in ((self.kept, policy.history), (self.dead, policy.max_dead)):
            ended = kept.get(job)
            if ended is None:
                continue
            most = limit if job in self._state.jobs else 0
            while len(ended) > most or (len(ended) > 1 and ended.shards > policy.max_ended_shards):
                oldest = self._state.firings[ended[0]]
                ended.discard(oldest, self._attempts(oldest.id))
                self._state.delete_firing(oldest.id)
            while ended.attempts > MOST_ATTEMPTS:
                name = next(name for name in ended if name in self._state.attempts)
                if name == ended[-1]:
                    break
                ended.attempts -= self._attempts(name)
                self._state.delete_attempts(name)
            if not ended:
                del kept[job]

    def job_removed(self, name: str) -> None:
        self._prune(name)

    # ------------------------------------------------------------------------------------------------- reading

    def has_fired(self, job: str, fire_ms: int) -> bool:
        """Whether the job has a known firing by cron for this fire time.

        Ids are not compared, because they contain the name of the cluster, which may have changed.
        """
        return any(firing.fire_ms == fire_ms and firing.cause is Cause.CRON for firing in self.known(job))

    def with_key(self, job: str, key: str) -> Firing | None:
        """The known firing of the job that was triggered with this key."""
        return next((firing for firing in self.known(job) if firing.terms.key == key), None)

    def known(self, job: str) -> Iterator[Firing]:
        """The firings of the job that have a record."""
        yield from self._state.queue.unfinished(job)
        for kept in (self.kept, self.dead):
            yield from (self._state.firings[name] for name in kept.get(job, ()))

    def ended_last(self) -> list[dict[str, Firing]]:
        """Two mappings from jobs to the firing that ended last: of the firings with DEAD shards, and of the others."""
        firings = self._state.firings
        return [{job: firings[ids[-1]] for job, ids in kept.items()} for kept in (self.dead, self.kept)]

    def dead_by_job(self) -> dict[str, int]:
        """Job → the number of its known firings with DEAD shards, if there are any."""
        return {job: len(ids) for job, ids in self.dead.items()}

    def last_ended(self, job: str) -> Firing | None:
        """The known firing of the job that ended last."""
        newest = (self._state.firings[kept[job][-1]] for kept in (self.kept, self.dead) if job in kept)
        return max(newest, key=lambda firing: (firing.ended_ms, firing.fire_ms), default=None)

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterator[Reason]:
        if dead := self.dead.get(job.key):
            text = f"{len(dead)} of its runs have shards that have used up their attempts, the last is {dead[-1]}"
            yield Reason("dead", text, parameters={"runs": len(dead), "run": dead[-1]})

    def indexes(self) -> Mapping[str, Sized]:
        return {"kept": self.kept, "dead": self.dead, "attempts": self._state.attempts}

    def validate(self) -> None:
        for firing in self._state.firings.values():
            ended = all(shard.state.ended for shard in firing.shards)
            assert ended == bool(firing.ended_ms), f"{firing.id} ended at {firing.ended_ms} with {firing.shards}"
            assert (firing.id in self._state.queue) != ended, f"{firing.id} is queued and ended, or is neither"
            if firing.stepped:
                _validate_listener(firing)
            if self.resident(firing.job) is firing:
                count = self._state.jobs[firing.job].shard_count
                # A shard may be FINISHED if its job's cron has no further fire time.
                ended = any(shard.state.ended and shard.state is not _FINISHED for shard in firing.shards[:count])
                assert not ended, f"{firing.id} lacks a shard"
                others = {shard.state for shard in firing.shards[count:]}
                assert ShardState.WAITING not in others, f"{firing.id} has too many shards"


def cron_is_over(job: Job, at: int) -> bool:
    """Whether the job's cron has no further fire time."""
    return job.schedule().next_after(at) is None


def _validate_listener(firing: Firing) -> None:
    before, after = firing.shards[-2:]
    # The states show whether shards have begun. In a record that the recovery repaired, the number of attempts may be
    # wrong.
    begun = any(shard.state not in _NOT_BEGUN for shard in firing.work)
    assert before.state is ShardState.FINISHED or not begun, f"{firing.id} began before its listener's first call ended"
    done = all(shard.state.ended for shard in firing.work)
    idle = after.state in _NOT_BEGUN
    assert done or idle, f"the listener's second call of {firing.id} began before all shards had ended"


def _cancelled_by_listener(firing: Firing, changes: Mapping[int, Shard], at: int) -> dict[int, Shard]:
    """The shards to cancel if the first call of the listener has failed."""
    before = changes.get(len(firing.shards) - 2)
    if before is None or not before.state.ended or before.state is ShardState.FINISHED:
        return {}
    # The message is cut, because up to 10,000 shards get it.
    why = f"the listener's call before the run did not succeed: {cut(before.message, _WHY_BYTES)}"
    return {
        item: changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
        for item, shard in enumerate(firing.shards)
        if shard.state is ShardState.WAITING and item not in changes
    }


def _age(firing: Firing) -> tuple[int, bool, int, int, str]:
    """Sort key by age.

    A running firing precedes a waiting one even if its fire time is later: the clock of an earlier leader may have been
    ahead.
    """
    runs = any(shard.state is ShardState.ACTIVE for shard in firing.shards)
    return firing.ended_ms, not runs, firing.generation, firing.fire_ms, firing.id


def _succeeded_whole(firing: Firing) -> bool:
    """Whether all shards of a run have succeeded. A run of some shards only, or of a resident job, does not count."""
    return firing.worst is _FINISHED and not firing.terms.items and firing.cause is not Cause.DAEMON
