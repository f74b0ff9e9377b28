"""Which way a shard goes on after its task has ended."""

from __future__ import annotations

from itertools import product

import pytest

from jobcloud.model import Execution, Shard, ShardState
from jobcloud.release import BACKOFF_MOST_MS, PROVEN_MS, after, backoff_ms
from jobcloud.status import End

AT = 1_000_000
ACTIVE = Shard(ShardState.ACTIVE, attempt=1, task_id="t", started_ms=AT - 1000)


def ended(
    end: End,
    shard: Shard = ACTIVE,
    *,
    wanted: bool = True,
    daemon: bool = False,
    failover: bool = False,
    most: int = 10,
) -> Shard:
    return after(shard, end, AT, "why", wanted=wanted, daemon=daemon, failover=failover, most_failures=most)


FINAL = {
    End.SUCCEEDED: ShardState.FINISHED,
    End.FAILED: ShardState.FAILED,
    End.KILLED: ShardState.KILLED,
    End.LOST: ShardState.FAILED,
    End.NOT_STARTED: ShardState.FAILED,
    End.INVALID: ShardState.FAILED,
}


@pytest.mark.parametrize(("end", "wanted", "daemon", "failover"), list(product(End, *[(False, True)] * 3)))
def test_every_way_a_task_can_end(end: End, wanted: bool, daemon: bool, failover: bool) -> None:
    shard = ended(end, wanted=wanted, daemon=daemon, failover=failover)
    never_ran = end in (End.NOT_STARTED, End.INVALID)
    taken_away = end in (End.LOST, End.KILLED)
    again = wanted and (daemon or never_ran or (taken_away and failover))
    assert shard.state is (ShardState.WAITING if again else FINAL[end])
    assert shard.message == "why"
    assert shard.attempt == 1
    assert (shard.ended_ms, shard.not_before_ms) == ((0, AT + 1000) if again else (AT, 0))


@pytest.mark.parametrize(
    ("end", "daemon", "execution"),
    [
        (End.LOST, False, Execution.FAILOVER),
        (End.LOST, True, Execution.FAILOVER),
        (End.SUCCEEDED, True, Execution.FAILOVER),
        (End.NOT_STARTED, False, Execution.READY),
        (End.NOT_STARTED, True, Execution.READY),
        (End.INVALID, False, Execution.READY),
    ],
)
def test_only_an_attempt_that_may_have_run_is_replaced_as_failover(
    end: End, daemon: bool, execution: Execution
) -> None:
    assert ended(end, daemon=daemon, failover=True).execution is execution


def test_losses_in_a_row_are_limited() -> None:
    shard = ACTIVE
    for failures in range(1, 11):
        shard = ended(End.LOST, shard, failover=True)
        assert (shard.state, shard.failures) == (ShardState.WAITING, failures)
    assert ended(End.LOST, shard, failover=True).state is ShardState.FAILED
    assert ended(End.INVALID, shard).state is ShardState.FAILED
    assert ended(End.LOST, shard, daemon=True).state is ShardState.WAITING


def test_an_attempt_that_ran_long_starts_the_count_anew() -> None:
    tired = Shard(ShardState.ACTIVE, attempt=11, failures=10, started_ms=AT - PROVEN_MS)
    assert ended(End.LOST, tired, failover=True).failures == 1


def test_the_back_off_doubles_up_to_a_minute() -> None:
    assert [backoff_ms(n) for n in range(8)] == [1000, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000]
    assert backoff_ms(10_000) == BACKOFF_MOST_MS
