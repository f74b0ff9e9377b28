"""What ends with a task: which state its shard goes on in."""

from __future__ import annotations

from dataclasses import replace

from jobcloud.model import Execution, Shard, ShardState
from jobcloud.status import End

BACKOFF_FIRST_MS = 1_000
BACKOFF_MOST_MS = 60_000
# An attempt that ran this long has proved that it can: the next loss starts from the first back-off again.
PROVEN_MS = 60_000

_FINAL = {
    End.SUCCEEDED: ShardState.FINISHED,
    End.FAILED: ShardState.FAILED,
    End.KILLED: ShardState.KILLED,
    End.LOST: ShardState.FAILED,
    End.NOT_STARTED: ShardState.FAILED,
    End.INVALID: ShardState.FAILED,
}


def backoff_ms(failures: int) -> int:
    """1 s after the first failure, doubling, at most a minute."""
    return min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS << min(max(failures - 1, 0), 16))


def after(
    shard: Shard, end: End, at: int, message: str, *, wanted: bool, daemon: bool, failover: bool, most_failures: int
) -> Shard:
    """The shard after its task has ended.

    `wanted`: its firing goes on and nobody asked for the end. A DAEMON shard is a desired state and always comes
    back; a TRANSIENT one whose attempt was lost by the infrastructure comes back where it never ran, or where its job
    asks for `failover`, at most `most_failures` times in a row. What the job itself did wrong is its outcome.
    """
    ended = replace(shard, state=_FINAL[end], ended_ms=at, message=message)
    if not wanted:
        return ended
    proven = shard.started_ms and at - shard.started_ms >= PROVEN_MS
    failures = 1 if proven else shard.failures + 1
    if daemon:
        return _again(ended, at, failures, Execution.READY if end is End.NOT_STARTED else Execution.FAILOVER)
    if failures > most_failures:
        return ended
    if end in (End.NOT_STARTED, End.INVALID):
        return _again(ended, at, failures, shard.execution)
    # A kill that nobody here asked for took the attempt away like any other loss.
    if end in (End.LOST, End.KILLED) and failover:
        return _again(ended, at, failures, Execution.FAILOVER)
    return ended


def _again(ended: Shard, at: int, failures: int, execution: Execution) -> Shard:
    return replace(
        ended,
        state=ShardState.WAITING,
        failures=failures,
        execution=execution,
        not_before_ms=at + backoff_ms(failures),
        started_ms=0,
        ended_ms=0,
    )
