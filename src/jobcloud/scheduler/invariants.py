"""The invariants that span several parts. Those of one part are in its `validate`."""

from __future__ import annotations

from jobcloud.config import MAX_WAITING
from jobcloud.model import Firing, ShardState, Task
from jobcloud.scheduler import recovery
from jobcloud.scheduler.attempts import MOST_OF_SHARD, fits
from jobcloud.scheduler.recovery import executor_key
from jobcloud.scheduler.state import State


def check(state: State) -> None:
    """Compare the records with each other and with the claims. Raises AssertionError with the broken invariant."""
    tasks = [task for task in state.tasks.values() if not task.placeholder]
    _check_shards(state, tasks)
    _check_attempts(state)
    newest = sorted((-firing.fire_ms, firing.id) for firing in state.firings.values())
    assert state.newest == newest, "the order of the firings differs from the firings"
    for task in state.tasks.values():
        assert executor_key(task.agent_id, task.executor_id) in state.executors, f"{task.id} has no executor"
    _check_concurrency(state, tasks)
    _check_claims(state)


def _check_shards(state: State, tasks: list[Task]) -> None:
    """Every active shard has exactly one task, and every task is that of its shard."""
    active = {
        (firing.id, item): shard.task_id
        for firing in state.firings.values()
        for item, shard in enumerate(firing.shards)
        if shard.state is ShardState.ACTIVE
    }
    found = {(task.firing_id, task.item): task.id for task in tasks}
    assert len(found) == len(tasks), "a shard has two tasks"
    assert active == found, f"active shards and tasks differ: {active.items() ^ found.items()}"


def _check_attempts(state: State) -> None:
    """Every earlier attempt belongs to a shard, and is older than the shard's present one."""
    for firing_id, kept in state.attempts.items():
        assert firing_id in state.firings, f"there are attempts of {firing_id}, and no firing"
        shards, count = state.firings[firing_id].shards, 0
        for item, found in kept.by_item():
            count += len(found)
            assert item < len(shards), f"there are attempts of {firing_id}/{item}, and no shard"
            if len(found) > 1:
                numbers = [attempt.number for attempt in found]
                assert numbers == sorted({*numbers}), f"the attempts of {firing_id}/{item} are {numbers}"
                assert len(numbers) <= MOST_OF_SHARD, f"{firing_id}/{item} keeps {len(numbers)} attempts"
            # If the last one fits, the earlier ones do, because the numbers rise.
            last, shard = found[-1], shards[item]
            assert fits(last, shard), f"{firing_id}/{item} has {last.number} before its attempt {shard.attempt}"
        assert kept.total == count > 0, f"{firing_id} has {count} attempts, counted as {kept.total}"


def _check_concurrency(state: State, tasks: list[Task]) -> None:
    """No shard has more attempts at a time than its job allows, or attempts of two generations."""
    running: dict[tuple[str, int], list[Firing]] = {}
    for task in tasks:
        running.setdefault((task.job, task.item), []).append(state.firings[task.firing_id])
    for (name, item), found in running.items():
        current = name in state.jobs and found[0].generation == state.job_states[name].generation
        limit = state.jobs[name].runs_at_once if current else MAX_WAITING  # an older generation's limit is unknown
        assert len(found) <= limit, f"{name}/{item} runs {len(found)} times"
        generations = {firing.generation for firing in found} - {recovery.NO_GENERATION}  # stand-ins are ending
        assert len(generations) <= 1, f"{name}/{item} runs in two generations"


def _check_claims(state: State) -> None:
    claims, reservations = state.cluster.claim_count()
    assert claims == len(state.tasks), f"{claims} claims for {len(state.tasks)} tasks"
    assert reservations == len(state.executors), f"{reservations} reservations for {len(state.executors)} executors"
    assert state.cluster.matcher.claims() == claims + reservations, "the matcher has claims without a task or executor"
