"""What ends with a task: which state its shard goes on in, and when it is tried again."""

from __future__ import annotations

import hashlib
from typing import Any

from jobcloud.model import Execution, Job, Shard, ShardState, changed
from jobcloud.scheduler.status import WORKER_LOST, End

# An attempt that ran this long has proved that it can: the next loss starts from the first back-off again.
PROVEN_MS = 60_000
# A shard that lost the worker it shared so often is not to blame, as far as anybody knows. From then on it has a
# process of its own: there an attempt that takes its process down has done so itself, and no other can.
ALONE_AFTER = 2
# For so long after its back-off a shard keeps away from the agent that lost its last attempt.
AVOID_MS = 60_000

# A member of an enumeration costs a function call each time it is named, in CPython 3.11.
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


def backoff_ms(failures: int, first_ms: int, most_ms: int) -> int:
    """`first_ms` after the first failure, doubling, at most `most_ms`."""
    return min(most_ms, first_ms << min(max(failures - 1, 0), 30))


def retry_ms(job: Job, retries: int, seed: str) -> int:
    """The wait before the `retries`-th repeat: the back-off, and up to `retry_jitter` of it more.

    The jitter follows from `seed`, so that the same events give the same waits, and shards that failed together come
    back apart.
    """
    wait = backoff_ms(retries, job.retry_delay_ms, job.retry_most_ms)
    dice = int.from_bytes(hashlib.sha256(f"{seed}/{retries}".encode()).digest()[:4])
    return wait + (wait * job.retry_jitter * dice // 1000 >> 32)


def longest_ms(job: Job, shard: Shard) -> int:
    """No back-off of a shard with so many failures behind it is longer."""
    lost = backoff_ms(shard.failures + shard.lost_workers, job.failover_delay_ms, job.failover_most_ms)
    failed = backoff_ms(shard.retries, job.retry_delay_ms, job.retry_most_ms) * (1000 + job.retry_jitter) // 1000
    return max(lost, failed if shard.retries else 0)


def after(
    shard: Shard,
    end: End,
    at: int,
    message: str,
    job: Job | None,
    *,
    wanted: bool,
    asked: bool,
    daemon: bool,
    failover: bool,
    seed: str,
    cause: str = "",
) -> Shard:
    """The shard after its task has ended.

    `wanted`: its firing goes on with it; `asked`: its end was asked for. A DAEMON shard is a desired state and comes
    back as long as it is wanted, at once where it ended because it was asked to. A TRANSIENT one never does where it
    was asked to end; it comes back where the infrastructure lost its attempt before it ran, or with `failover`, at most
    `failover_attempts` times in a row; one that failed by the job's own doing comes back `retry_count` times. What it
    lost with the worker it shared (`cause`) is not charged to it, until it has a process of its own.
    Once such attempts are used up the shard is DEAD; where there were none to begin with, FAILED.
    `seed` names the shard, for the jitter.
    """
    ended = changed(shard, state=_FINAL[end], ended_ms=at, message=message)
    if not wanted or job is None or (not daemon and (asked or end is _SUCCEEDED)):
        return ended
    if asked and end in (End.KILLED, End.SUCCEEDED, End.FAILED):
        return reset(ended)
    proven = shard.started_ms and at - shard.started_ms >= PROVEN_MS
    failures = 1 if proven else shard.failures + 1
    lost_workers = 0 if proven and daemon else shard.lost_workers
    if cause == WORKER_LOST and end in (End.LOST, End.NOT_STARTED) and lost_workers < ALONE_AFTER:
        failures, lost_workers = failures - 1, lost_workers + 1
    ended = changed(ended, lost_workers=lost_workers)
    if daemon:
        return _lost(ended, end, at, failures, job, Execution.READY if end is End.NOT_STARTED else Execution.FAILOVER)
    if end is End.FAILED:
        return _retried(ended, at, job, seed)
    never_ran = end in (End.NOT_STARTED, End.INVALID)
    # A kill that nobody here asked for took the attempt away like any other loss.
    if not never_ran and not failover and end is not End.REPLACED:
        return ended
    if failures > job.failover_attempts:
        return changed(ended, state=ShardState.DEAD)
    return _lost(ended, end, at, failures, job, shard.execution if never_ran else Execution.FAILOVER)


def reset(shard: Shard) -> Shard:
    """The shard, waiting as if it had never failed; its attempts still count up."""
    return Shard(attempt=shard.attempt, task_id=shard.task_id, agent_id=shard.agent_id, hostname=shard.hostname,
                 executor_id=shard.executor_id)  # fmt: skip


def _retried(ended: Shard, at: int, job: Job, seed: str) -> Shard:
    if ended.retries < job.retry_count:
        retries = ended.retries + 1
        return _again(ended, at + retry_ms(job, retries, seed), retries=retries, failures=0, avoid_ms=0)
    return changed(ended, state=ShardState.DEAD) if job.retry_count else ended


def _lost(ended: Shard, end: End, at: int, failures: int, job: Job, execution: Execution) -> Shard:
    start = at + backoff_ms(failures + ended.lost_workers, job.failover_delay_ms, job.failover_most_ms)
    blamed = end not in (End.FAILED, End.SUCCEEDED)  # a resident that ends by itself may do so anywhere
    return _again(ended, start, failures=failures, execution=execution, avoid_ms=start + AVOID_MS if blamed else 0)


def _again(ended: Shard, not_before_ms: int, **changes: int | Execution) -> Shard:
    back: dict[str, Any] = {"state": ShardState.WAITING, "started_ms": 0, "ended_ms": 0, **changes}
    return changed(ended, not_before_ms=not_before_ms, **back)
