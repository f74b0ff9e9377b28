"""The next state of a shard whose task has ended, and the time of its next attempt."""

from __future__ import annotations

import hashlib
from typing import Any

from jobcloud.config import Job
from jobcloud.model import Execution, Firing, Shard, ShardState, changed
from jobcloud.scheduler.status import WORKER_LOST, End

# An attempt that ran this long has proved that the shard can run. If it is lost, the count of losses begins again at 1.
PROVEN_MS = 60_000
# After this number of losses of a shared worker, a shard gets a process of its own. Another shard may have brought the
# shared worker down, but only the shard itself can bring its own process down.
ALONE_AFTER = 2
# For this time after its back-off, a shard avoids the agent on which its last attempt was lost.
AVOID_MS = 60_000

# An operator may put shards in these states into the queue again.
MAY_BE_PUT_BACK = frozenset({ShardState.DEAD, ShardState.FAILED, ShardState.KILLED})

_SUCCEEDED = End.SUCCEEDED

_FINAL = {
    End.SUCCEEDED: ShardState.FINISHED,
    End.FAILED: ShardState.FAILED,
    End.KILLED: ShardState.KILLED,
    End.LOST: ShardState.FAILED,
    End.NOT_STARTED: ShardState.FAILED,
    End.INVALID: ShardState.FAILED,
    End.REPLACED: ShardState.FAILED,
}


def has_its_shards(firing: Firing, job: Job) -> bool:
    """Whether the job still has the shards and the listener that it had when the firing was made."""
    return len(firing.work) == job.shard_count and firing.stepped == bool(job.firing_listener)


def backoff_ms(failures: int, first_ms: int, max_ms: int) -> int:
    """The wait after a number of failures: `first_ms` after one. Each further failure doubles it, up to `max_ms`."""
    return min(max_ms, first_ms << min(max(failures - 1, 0), 30))


def retry_ms(job: Job, retries: int, seed: str) -> int:
    """The wait before the `retries`-th retry: the back-off plus a jitter.

    The jitter is at most `retry_jitter` thousandths of the back-off. It is derived from `seed`. So the same events give
    the same waits, and shards that failed together start again at different times.
    """
    wait = backoff_ms(retries, job.retry_delay_ms, job.retry_most_ms)
    return wait + (wait * job.retry_jitter * dice(f"{seed}/{retries}") // 1000 >> 32)


def dice(seed: str) -> int:
    """A number from 0 to 2**32 - 1 that looks random, and is the same for equal seeds."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4])


def max_backoff_ms(job: Job, shard: Shard) -> int:
    """The longest back-off that fits the shard's present numbers of losses and retries."""
    lost = backoff_ms(shard.failures + shard.lost_workers, job.failover_delay_ms, job.failover_most_ms)
    failed = backoff_ms(shard.retries, job.retry_delay_ms, job.retry_most_ms) * (1000 + job.retry_jitter) // 1000
    return max(lost, failed if shard.retries else 0)


def next_shard_state(
    shard: Shard,
    end: End,
    at: int,
    message: str,
    job: Job | None,
    *,
    wanted: bool,
    kill_requested: bool,
    daemon: bool,
    failover: bool,
    seed: str,
    cause: str = "",
    charged: bool = True,
    agent_at_fault: bool = True,
) -> Shard:
    """The state of the shard after its task has ended.

    `wanted`: the firing still needs the shard. `kill_requested`: the scheduler asked the task to end. `daemon`: the
    shard is resident. `failover`: an attempt that may have run before it was lost is repeated, because the job has
    failover or the shard is a call of a listener. `cause`: the cause in the executor's report. `charged`: the end
    counts as a failure. `agent_at_fault`: the agent may be the cause of a loss. `seed`: the shard's identity, for the
    jitter.

    - A shard that is not wanted does not start again.
    - A DAEMON shard starts again. If it was asked to end, and its task was not lost, it starts without a wait.
    - A TRANSIENT shard that succeeded, or that was asked to end, does not start again.
    - A TRANSIENT shard whose job itself failed starts again at most `retry_count` times.
    - A TRANSIENT shard whose attempt was lost starts again at most `failover_attempts` times in a row. If the attempt
      may have run, the shard starts again only with `failover`, or if the partition policy gave the attempt up.
    - The first ALONE_AFTER losses of a shared worker do not count as failures, but they lengthen the back-off. A DAEMON
      shard forgets them after PROVEN_MS, a TRANSIENT shard keeps them.

    A TRANSIENT shard that has reached `retry_count` or `failover_attempts` is DEAD. If nothing is repeated (a failure
    without retries, or a loss without `failover` of an attempt that may have run), the shard keeps the state of its
    end, such as FAILED.
    """
    how = None if end is _SUCCEEDED else end
    ended = changed(shard, state=_FINAL[end], ended_ms=at, message=message, end=how)
    if not wanted or job is None or (not daemon and (kill_requested or end is _SUCCEEDED)):
        return ended
    if kill_requested and end in (End.KILLED, End.SUCCEEDED, End.FAILED):
        return reset(ended)
    proven = shard.started_ms and at - shard.started_ms >= PROVEN_MS
    failures = (0 if proven else shard.failures) + charged
    lost_workers = 0 if proven and daemon else shard.lost_workers
    if cause == WORKER_LOST and end in (End.LOST, End.NOT_STARTED) and lost_workers < ALONE_AFTER:
        failures, lost_workers = failures - 1, lost_workers + 1
    ended = changed(ended, lost_workers=lost_workers)
    # If a resident shard ended by itself, the agent is not the cause.
    avoids = agent_at_fault and end not in (End.FAILED, End.SUCCEEDED)
    if daemon:
        execution = Execution.READY if end is End.NOT_STARTED else Execution.FAILOVER
        return _after_loss(ended, at, failures, job, execution, avoids=avoids)
    if end is End.FAILED:
        return _after_failure(ended, at, job, seed)
    never_ran = end in (End.NOT_STARTED, End.INVALID)
    # A kill that this scheduler did not request counts as a loss.
    if not never_ran and not failover and end is not End.REPLACED:
        return ended
    if failures > job.failover_attempts:
        return changed(ended, state=ShardState.DEAD)
    execution = shard.execution if never_ran else Execution.FAILOVER
    return _after_loss(ended, at, failures, job, execution, avoids=avoids)


def reset(shard: Shard) -> Shard:
    """The shard as a waiting one, without its failures and retries. The count of its attempts is kept."""
    return Shard(attempt=shard.attempt, task_id=shard.task_id, agent_id=shard.agent_id, hostname=shard.hostname,
                 executor_id=shard.executor_id)  # fmt: skip


def _after_failure(ended: Shard, at: int, job: Job, seed: str) -> Shard:
    """The next state of a TRANSIENT shard whose job itself failed."""
    if ended.retries < job.retry_count:
        retries = ended.retries + 1
        return _again(ended, at + retry_ms(job, retries, seed), retries=retries, failures=0, avoid_ms=0)
    return changed(ended, state=ShardState.DEAD) if job.retry_count else ended


def _after_loss(ended: Shard, at: int, failures: int, job: Job, execution: Execution, *, avoids: bool) -> Shard:
    """The next state of a shard whose attempt was lost, or of a resident shard after any end.

    `avoids`: the shard avoids the agent of this attempt for a while.
    """
    start = at + backoff_ms(failures + ended.lost_workers, job.failover_delay_ms, job.failover_most_ms)
    avoid_ms = start + AVOID_MS if avoids else 0
    return _again(ended, start, failures=failures, execution=execution, avoid_ms=avoid_ms)


def _again(ended: Shard, not_before_ms: int, **changes: int | Execution) -> Shard:
    back: dict[str, Any] = {"state": ShardState.WAITING, "started_ms": 0, "ended_ms": 0, **changes}
    return changed(ended, not_before_ms=not_before_ms, **back)
