"""The firings: added to the queue, changed shard by shard, ended, and remembered for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from jobcloud.messages import Kind, Topic
from jobcloud.model import Cause, Firing, Job, JobKind, Shard, ShardState, changed
from jobcloud.scheduler import retry, sharding
from jobcloud.scheduler.state import State

# Why a shard has ended whose item its job has no more.
FEWER = "the job has fewer shards now"
# A member of an enumeration costs a function call each time it is named, in CPython 3.11.
_FIRING = Kind.FIRING


class Firings:
    def __init__(self, state: State) -> None:
        self._state = state
        #: job → ids of its ended firings, oldest first; and of those of them with shards that are DEAD
        self.history: dict[str, deque[str]] = {}
        self.dead: dict[str, deque[str]] = {}

    def restore(self, at: int) -> None:
        """Queue what has not ended, in the order it came; remember the rest."""
        for firing in sorted(self._state.firings.values(), key=_age):
            if firing.ended_ms:
                self._remember(firing)
            else:
                self._state.queue.add(firing)
        self.shorten_back_offs(at)

    def prune_all(self) -> None:
        """Forget what is remembered of jobs that are gone."""
        for name in sorted((self.history.keys() | self.dead.keys()) - self._state.jobs.keys()):
            self.prune_history(name)

    def shorten_back_offs(self, at: int) -> None:
        """No back-off is that long: the clock was ahead when it began."""
        jobs = self._state.jobs

        def longest(job: str, shard: Shard) -> int:
            return retry.longest_ms(jobs[job], shard) if job in jobs else 0

        for firing_id, item, shard in self._state.queue.backing_off(at, longest):
            self.put_shards(firing_id, {item: changed(shard, not_before_ms=at, avoid_ms=0)}, at)

    def ensure_daemon(self, job: Job, at: int) -> None:
        """A resident job has one firing, which waits for nothing but the end of an older one, and all its shards."""
        if job.kind is not JobKind.DAEMON or not self._state.enabled(job.name):
            return
        if (firing := self.resident(job.name)) is not None:
            self._fit(firing, job, at)
        elif not self._state.queue.unfinished(job.name):
            self.add(
                sharding.make_firing(job, self._state.job_states[job.name], Cause.DAEMON, at, self._state.unique())
            )

    def resident(self, job: str) -> Firing | None:
        """The firing of a resident job whose shards are to run; None where it is disabled, or an older one ends."""
        unfinished = self._state.queue.unfinished(job)
        found = unfinished[0] if unfinished else None
        return found if found is not None and found.cause is Cause.DAEMON and self._state.wanted(found) else None

    def _fit(self, firing: Firing, job: Job, at: int) -> None:
        """Whatever has ended of the job's items starts again; what waits of those it has no more does not."""
        missing = [Shard()] * (job.shard_count - len(firing.shards))
        changes = {
            item: retry.reset(shard)
            for item, shard in enumerate((*firing.shards, *missing)[: job.shard_count])
            if item >= len(firing.shards) or shard.state.ended
        }
        changes |= {
            item: changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=FEWER)
            for item, shard in enumerate(firing.shards)
            if item >= job.shard_count and shard.state is ShardState.WAITING
        }
        if changes:
            self.put_shards(firing.id, changes, at)
            self._state.request_cycle()

    def add(self, firing: Firing) -> None:
        self._state.put(_FIRING, firing.id, firing)
        self._state.queue.add(firing)
        self._state.request_cycle()

    def put_shards(self, firing_id: str, changes: dict[int, Shard], at: int) -> None:
        """Replace some shards, or add some; a firing whose shards have all ended has ended with them."""
        old = self._state.firings[firing_id]
        if old.stepped:
            changes = {**changes, **_not_to_be(old, changes, at)}
        firing = _with_shards(old, changes)
        if not self._state.queue.change(firing, changes):
            firing = changed(firing, ended_ms=at)
        self._state.put(_FIRING, firing_id, firing)
        if firing.ended_ms:
            self._done(firing, at)

    def note_start(self, firing_id: str, item: int, started_ms: int) -> None:
        """A shard runs since then; its task's record says so as well, so this is not stored for its own sake."""
        old = self._state.firings[firing_id]
        firing = _with_shards(old, {item: changed(old.shards[item], started_ms=started_ms)})
        self._state.put_unsaved(_FIRING, firing_id, firing)
        self._state.queue.renew(firing)

    def _done(self, firing: Firing, at: int) -> None:
        counts = {state: sum(s.state is state for s in firing.shards) for state in ShardState if state.ended}
        text = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        self._state.publish(at, Topic.DONE, text, job=firing.job, firing_id=firing.id)
        self._remember(firing)
        self.prune_history(firing.job)
        job = self._state.jobs.get(firing.job)
        if job is not None:
            self.ensure_daemon(job, at)
        self._state.request_cycle()

    def prune_history(self, job: str) -> None:
        policy = self._state.policy
        for kept, most in ((self.history, policy.history), (self.dead, policy.max_dead)):
            ended = kept.get(job, deque())
            while len(ended) > (most if job in self._state.jobs else 0):
                firing_id = ended.popleft()
                self._state.delete(_FIRING, firing_id)
            if not ended:
                kept.pop(job, None)

    def _remember(self, firing: Firing) -> None:
        """What waits for an operator is not crowded out by what goes well."""
        kept = self.dead if any(shard.state is ShardState.DEAD for shard in firing.shards) else self.history
        kept.setdefault(firing.job, deque()).append(firing.id)

    def reopen(self, firing: Firing) -> None:
        """An ended firing goes on, as `firing` says."""
        for kept in (self.history, self.dead):
            ids = kept.get(firing.job, deque())
            if firing.id in ids:
                ids.remove(firing.id)
                if not ids:
                    del kept[firing.job]
        self.add(firing)


def _with_shards(old: Firing, changes: Mapping[int, Shard]) -> Firing:
    """An unfinished firing with some shards replaced or added."""
    shards = list(old.shards)
    for item, shard in changes.items():
        if item >= len(shards):
            shards += [Shard()] * (item + 1 - len(shards))
        shards[item] = shard
    return Firing(old.id, old.job, old.generation, old.cause, old.fire_ms, tuple(shards), stepped=old.stepped)


def _not_to_be(firing: Firing, changes: Mapping[int, Shard], at: int) -> dict[int, Shard]:
    """What is cancelled because the listener's call before the firing has ended, and not well."""
    before = changes.get(len(firing.shards) - 2)
    if before is None or not before.state.ended or before.state is ShardState.FINISHED:
        return {}
    why = f"the listener before the firing did not succeed: {before.message}"
    return {
        item: changed(shard, state=ShardState.CANCELLED, ended_ms=at, message=why)
        for item, shard in enumerate(firing.shards)
        if shard.state is ShardState.WAITING and item not in changes
    }


def _age(firing: Firing) -> tuple[int, bool, int, int, str]:
    """Sorts firings as they came; whatever the clocks said, the one that runs was the first."""
    runs = any(shard.state is ShardState.ACTIVE for shard in firing.shards)
    return firing.ended_ms, not runs, firing.generation, firing.fire_ms, firing.id
