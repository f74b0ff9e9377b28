"""The next state of a shard whose task has ended."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core_world import make_job

from jobcloud.config import Job
from jobcloud.model import Execution, Shard, ShardState
from jobcloud.scheduler.retry import (
    ALONE_AFTER,
    AVOID_MS,
    PROVEN_MS,
    backoff_ms,
    max_backoff_ms,
    next_shard_state,
    retry_ms,
)
from jobcloud.scheduler.status import End

AT = 1_000_000
ACTIVE = Shard(ShardState.ACTIVE, attempt=1, task_id="t", started_ms=AT - 1000)


def ended(
    end: End,
    shard: Shard = ACTIVE,
    *,
    wanted: bool = True,
    asked: bool = False,
    daemon: bool = False,
    job: Job | None = None,
    cause: str = "",
    agent_at_fault: bool = True,
    **fields: Any,
) -> Shard:
    job = job or make_job(**fields)
    return next_shard_state(
        shard, end, AT, "why", job, wanted=wanted, kill_requested=asked, daemon=daemon,
        failover=job.failover, seed="x/0", cause=cause, agent_at_fault=agent_at_fault,
    )  # fmt: skip


FINAL = {
    End.SUCCEEDED: ShardState.FINISHED,
    End.FAILED: ShardState.FAILED,
    End.KILLED: ShardState.KILLED,
    End.LOST: ShardState.FAILED,
    End.NOT_STARTED: ShardState.FAILED,
    End.INVALID: ShardState.FAILED,
    End.REPLACED: ShardState.FAILED,
}


@pytest.mark.parametrize(("end", "wanted", "daemon", "failover"), list(product(End, *[(False, True)] * 3)))
def test_every_end_of_a_task_gives_the_listed_shard_state(end: End, wanted: bool, daemon: bool, failover: bool) -> None:
    shard = ended(end, wanted=wanted, daemon=daemon, failover=failover)
    never_ran = end in (End.NOT_STARTED, End.INVALID)
    taken_away = end in (End.LOST, End.KILLED)
    again = wanted and (daemon or never_ran or end is End.REPLACED or (taken_away and failover))
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
def test_only_an_attempt_that_may_have_run_is_repeated_as_failover(
    end: End, daemon: bool, execution: Execution
) -> None:
    assert ended(end, daemon=daemon, failover=True).execution is execution


@pytest.mark.parametrize("end", End)
def test_killed_shard_restarts_only_if_it_is_a_wanted_resident(end: End) -> None:
    failing = Shard(ShardState.ACTIVE, attempt=3, failures=2, retries=1, task_id="t", started_ms=AT - 1000)
    for wanted, daemon in ((False, False), (False, True), (True, False)):
        assert ended(end, failing, wanted=wanted, daemon=daemon, asked=True, failover=True).state is FINAL[end]
    shard = ended(end, failing, daemon=True, asked=True)
    assert (shard.state, shard.attempt) == (ShardState.WAITING, 3)
    # If the cluster took it, and not the kill, the back-off applies.
    lost = end not in (End.KILLED, End.SUCCEEDED, End.FAILED)
    assert (shard.failures, shard.not_before_ms > AT) == ((3, True) if lost else (0, False))


def test_losses_in_a_row_are_limited() -> None:
    shard = ACTIVE
    for failures in range(1, 11):
        shard = ended(End.LOST, shard, failover=True)
        assert (shard.state, shard.failures) == (ShardState.WAITING, failures)
    assert ended(End.LOST, shard, failover=True).state is ShardState.DEAD
    assert ended(End.INVALID, shard).state is ShardState.DEAD
    assert ended(End.LOST, shard).state is ShardState.FAILED  # its job allows no retries
    assert ended(End.LOST, shard, failover=True, failover_attempts=11).state is ShardState.WAITING
    assert ended(End.LOST, shard, daemon=True).state is ShardState.WAITING


@pytest.mark.parametrize("end", [End.LOST, End.NOT_STARTED])
@pytest.mark.parametrize("daemon", [False, True])
def test_loss_of_a_shared_worker_is_not_charged_until_the_shard_runs_alone(end: End, daemon: bool) -> None:
    shard, waits = ACTIVE, []
    for losses in range(1, 4):
        shard = ended(end, shard, daemon=daemon, failover=True, failover_attempts=1, cause="worker_lost")
        assert shard.state is ShardState.WAITING
        assert (shard.lost_workers, shard.failures) == (min(losses, ALONE_AFTER), max(0, losses - ALONE_AFTER)), losses
        waits.append(shard.not_before_ms - AT)
        assert max_backoff_ms(make_job(), shard) >= waits[-1]
    assert waits == [1000, 2000, 4000]
    shard = ended(end, shard, daemon=daemon, failover=True, failover_attempts=1, cause="worker_lost")
    assert shard.state is (ShardState.WAITING if daemon else ShardState.DEAD)


def test_resident_that_ran_for_long_starts_without_lost_workers() -> None:
    settled = Shard(ShardState.ACTIVE, attempt=9, failures=3, lost_workers=2, started_ms=AT - PROVEN_MS)
    assert ended(End.LOST, settled, daemon=True).lost_workers == 0
    again = ended(End.LOST, settled, daemon=True, cause="worker_lost")
    assert (again.lost_workers, again.failures, again.not_before_ms) == (1, 0, AT + 1000)
    assert ended(End.LOST, settled, failover=True).lost_workers == 2, "a failure in its own process counts as before"


def test_attempt_that_ran_for_long_resets_the_failures() -> None:
    tired = Shard(ShardState.ACTIVE, attempt=11, failures=10, started_ms=AT - PROVEN_MS)
    assert ended(End.LOST, tired, failover=True).failures == 1


def test_back_off_doubles_up_to_its_maximum() -> None:
    waits = [backoff_ms(n, 1000, 60_000) for n in range(8)]
    assert waits == [1000, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000]
    assert backoff_ms(10_000, 100, 604_800_000) == 604_800_000


def test_failure_of_the_job_is_repeated_at_most_retry_count_times() -> None:
    shard = ACTIVE
    for retries in range(1, 4):
        shard = ended(End.FAILED, shard, retry_count=3)
        assert (shard.state, shard.retries, shard.failures) == (ShardState.WAITING, retries, 0)
        assert shard.execution is Execution.READY
        assert not shard.avoid_ms  # no agent is to blame
    assert ended(End.FAILED, shard, retry_count=3).state is ShardState.DEAD
    assert ended(End.LOST, shard, retry_count=3).state is ShardState.FAILED
    assert ended(End.FAILED, ACTIVE).state is ShardState.FAILED
    assert ended(End.FAILED, shard, wanted=False, retry_count=9).state is ShardState.FAILED


def test_losses_and_failures_are_counted_apart() -> None:
    lost = ended(End.LOST, ACTIVE, failover=True, retry_count=1)
    assert (lost.failures, lost.retries) == (1, 0)
    failed = ended(End.FAILED, lost, failover=True, retry_count=1)
    assert (failed.state, failed.failures, failed.retries) == (ShardState.WAITING, 0, 1)
    again = ended(End.LOST, failed, failover=True, retry_count=1)
    assert (again.state, again.failures, again.retries) == (ShardState.WAITING, 1, 1)


@given(st.integers(1, 1000), st.integers(100, 10_000), st.integers(0, 1000), st.text(max_size=20))
def test_retry_wait_is_the_back_off_plus_at_most_the_jitter(retries: int, first: int, jitter: int, seed: str) -> None:
    job = make_job(retry_count=1000, retry_delay_ms=first, retry_most_ms=600_000, retry_jitter=jitter)
    least = backoff_ms(retries, first, 600_000)
    wait = retry_ms(job, retries, seed)
    assert least <= wait <= least + least * jitter // 1000 <= max_backoff_ms(job, Shard(retries=retries))
    assert wait == retry_ms(job, retries, seed)


def test_shards_that_failed_together_restart_at_different_times() -> None:
    job = make_job(retry_delay_ms=100_000, retry_jitter=500)
    waits = [retry_ms(job, 1, f"report.1/{item}") for item in range(200)]
    assert len(set(waits)) > 150
    assert max(waits) - min(waits) > 40_000


def test_agent_that_lost_an_attempt_is_avoided_for_a_while() -> None:
    for end in (End.LOST, End.NOT_STARTED, End.INVALID, End.KILLED):
        for daemon in (False, True):
            assert ended(end, daemon=daemon, failover=True).avoid_ms == AT + 1000 + AVOID_MS
    assert not ended(End.FAILED, daemon=True).avoid_ms
    assert not ended(End.SUCCEEDED, daemon=True).avoid_ms
    assert not ended(End.NOT_STARTED, agent_at_fault=False).avoid_ms
