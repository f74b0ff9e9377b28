"""The listener of a firing: called once before its first shard and once after its last, whatever is lost."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, payload_of

from jobcloud.errors import Conflict
from jobcloud.executor.job_contexts import firing_context
from jobcloud.messages import AgentLost, KillTask, Launch, PutJob, Retry, Trigger
from jobcloud.model import Execution, ShardState
from jobcloud.scheduler.sharding import MAX_PARAMETERS_BYTES

STAGED: dict[str, Any] = {"shard_count": 2, "firing_listener": "shop.jobs:Stage", "before_timeout_ms": 3_000,
                          "shard_parameters": "1=b"}  # fmt: skip


def fired(**fields: Any) -> Desk:
    desk = Desk(make_app(), make_job(**{**STAGED, **fields}))
    desk.do(Trigger(desk.at, "report"))
    return desk


def started(desk: Desk) -> list[Launch]:
    """The launches after an offer with enough room for all."""
    return desk.launched(desk.offer())


def states(desk: Desk) -> list[str]:
    return [shard.state.value for shard in desk.firings()[0].shards]


def finish(desk: Desk, launches: list[Launch], state: str = "TASK_FINISHED") -> None:
    for launched in launches:
        desk.status(launched.task_id, "TASK_RUNNING")
        desk.status(launched.task_id, state)


def steps(launches: list[Launch]) -> list[Any]:
    return [payload_of(launched).get("step") for launched in launches]


def test_listener_is_called_before_and_after_the_shards() -> None:
    desk = fired()
    before = started(desk)
    assert steps(before) == ["before"]
    told = payload_of(before[0])
    assert (told["timeoutSeconds"], told["firing"]) == (3, {"parameters": {"1": "b"}})
    assert (told["shardingContext"]["shardingItem"], told["job"]["distributedListener"]) == (-1, "shop.jobs:Stage")
    assert not started(desk), "shards wait for the call to end"
    finish(desk, before)
    shards = started(desk)
    assert steps(shards) == [None, None]
    assert payload_of(shards[1])["shardingContext"]["shardingParameter"] == "b"
    finish(desk, shards[:1])
    assert not started(desk), "the last call waits for every shard"
    finish(desk, shards[1:], "TASK_FAILED")
    after = started(desk)
    assert steps(after) == ["after"]
    assert payload_of(after[0])["firing"]["outcomes"] == {"FINISHED": 1, "FAILED": 1}
    assert not desk.firings()[0].ended_ms
    finish(desk, after)
    assert states(desk) == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]
    assert desk.firings()[0].ended_ms


def test_firing_is_cancelled_if_its_listener_refuses_it() -> None:
    desk = fired()
    before = started(desk)
    desk.status(before[0].task_id, "TASK_RUNNING")
    desk.status(before[0].task_id, "TASK_FAILED", message="PermissionError: not today")
    assert states(desk) == ["CANCELLED", "CANCELLED", "FAILED", "CANCELLED"]
    assert "not today" in desk.firings()[0].shards[0].message
    assert desk.firings()[0].ended_ms


def test_lost_listener_call_is_repeated_even_without_failover() -> None:
    desk = fired(failover=False)
    before = started(desk)
    desk.status(before[0].task_id, "TASK_RUNNING")
    desk.do(AgentLost(desk.at, "a1"))
    desk.status(before[0].task_id, "TASK_GONE")
    desk.at += 2_000
    again = desk.launched(desk.offer(make_offer("o2", "a2")))
    assert steps(again) == ["before"]
    first, second = payload_of(before[0]), payload_of(again[0])
    assert second["runId"] == first["runId"]
    assert second["fence"] > first["fence"]
    assert second["executionType"] == Execution.FAILOVER


def test_listener_barrier_survives_a_fail_over_at_every_step() -> None:
    desk = fired()
    for expected in (["before"], [None, None], ["after"]):
        desk.restart()
        launches = started(desk)
        assert steps(launches) == expected
        desk.restart()
        assert not started(desk)
        finish(desk, launches)
    assert desk.firings()[0].ended_ms


def test_kill_of_the_first_listener_call_cancels_the_firing_and_that_of_a_shard_does_not() -> None:
    desk = fired()
    before = started(desk)
    desk.status(before[0].task_id, "TASK_RUNNING")
    desk.do(KillTask(desk.at, before[0].task_id))
    desk.status(before[0].task_id, "TASK_KILLED")
    assert states(desk) == ["CANCELLED", "CANCELLED", "KILLED", "CANCELLED"]
    desk = fired()
    finish(desk, started(desk))
    shards = started(desk)
    finish(desk, shards[:1])
    desk.do(KillTask(desk.at, shards[1].task_id))
    desk.status(shards[1].task_id, "TASK_KILLED")
    assert steps(started(desk)) == ["after"]


def test_call_that_waits_for_the_shards_again_cannot_be_killed_alone() -> None:
    """A later call would find the run in a state that it cannot have: ended before its shards."""
    desk = fired(retry_count=0)
    finish(desk, started(desk))
    shards = started(desk)
    finish(desk, shards[:1], "TASK_FAILED")
    finish(desk, shards[1:])
    after = started(desk)
    finish(desk, after)
    (firing,) = desk.firings()
    desk.do(Retry(desk.at, firing.id))
    with pytest.raises(Conflict, match=f"jobcloud run cancel {firing.id}"):
        desk.do(KillTask(desk.at, after[0].task_id))
    finish(desk, started(desk))
    again = started(desk)
    assert steps(again) == ["after"]
    finish(desk, again)
    assert set(states(desk)) == {"FINISHED"}


def test_change_of_the_job_ends_the_firing_without_the_last_listener_call() -> None:
    desk = fired()
    finish(desk, started(desk))
    shards = started(desk)
    desk.do(PutJob(desk.at, make_job(**{**STAGED, "parameter": "new"}), replace=True))
    for launched in shards:
        desk.status(launched.task_id, "TASK_KILLED")
    assert desk.firings()[0].shards[-1].state is ShardState.CANCELLED
    assert desk.firings()[0].ended_ms


def test_explanation_names_the_current_step_of_a_firing() -> None:
    desk = fired()
    assert desk.scheduler.explain("report", desk.at).waiting == 1
    before = started(desk)
    assert "listener before" in desk.scheduler.explain("report", desk.at).reasons[0].text
    finish(desk, before)
    assert desk.scheduler.explain("report", desk.at).waiting == 2


def test_parameters_that_are_too_large_for_a_payload_are_left_out_of_the_listeners_call() -> None:
    fits = ",".join(f"{item}={'x' * 55}" for item in range(1_000))
    desk = fired(shard_count=1_000, shard_parameters=fits)
    told = payload_of(started(desk)[0])
    assert len(told["firing"]["parameters"]) == 1_000
    # The same number of characters, but each takes 12 bytes in JSON.
    large = ",".join(f"{item}={'😀' * 55}" for item in range(1_000))
    desk = fired(shard_count=1_000, shard_parameters=large, before_timeout_ms=0)
    before = started(desk)
    assert payload_of(before[0])["firing"] == {"parametersLeftOut": True}
    assert len(before[0].data) < MAX_PARAMETERS_BYTES
    facts = {"runId": "r", "attempt": 1, "fence": 1, "fireTime": 1}
    context = {"jobName": "j", "taskId": "t", "shardingTotalCount": 1_000, "jobParameter": ""}
    assert firing_context(context, facts, {"parametersLeftOut": True}).sharding_parameters_left_out
    assert not firing_context(context, facts, {"parameters": {"0": "x"}}).sharding_parameters_left_out
