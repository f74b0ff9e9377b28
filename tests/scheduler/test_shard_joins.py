"""Nodes of workflows that are joined per shard."""

from __future__ import annotations

import cProfile
import itertools
import random
from contextlib import suppress

import pytest
from tests.core_world import Desk, make_job, make_offer, make_status
from tests.scheduler.test_workflows import MINUTE, begin, make_desk, node, states, the_run

from jobcloud.errors import ConfigError, Conflict
from jobcloud.messages import (
    CancelRun,
    CancelWorkflowRun,
    PauseWorkflowRun,
    PutJob,
    PutWorkflow,
    RemoveJob,
    RemoveWorkflow,
    Retry,
    RetryWorkflowRun,
    StatusReceived,
)
from jobcloud.model import After, Join, Node, NodeState, On, Workflow, node_key
from jobcloud.scheduler.recovery import DAMAGED_NODE

SHARDS = Join.SHARDS
ENDS = ["TASK_FINISHED", "TASK_FINISHED", "TASK_FAILED", "TASK_LOST"]


def joined(*after: str, width: int = 3, **jobs: object) -> Desk:
    """A workflow of `extract`, and of `transform`, which is joined per shard with it and comes `after` it."""
    nodes = node("extract"), node("transform", *(after or ("extract",)), join=SHARDS)
    desk = make_desk(*nodes)
    for one in nodes:
        desk.do(PutJob(desk.at, make_job(one.name, shard_count=width, **jobs), replace=True))
    begin(desk)
    offer(desk)
    return desk


def offer(desk: Desk) -> None:
    desk.offer(make_offer(f"o{desk.at}-{len(desk.all)}", cpus=64))
    desk.run_until_idle()


def tasks(desk: Desk, job: str) -> dict[int, str]:
    """The tasks of a job by item."""
    return {task.item: task.id for task in desk.scheduler.tasks.values() if task.job == job}


def end(desk: Desk, job: str, item: int, state: str = "TASK_FINISHED", **fields: str) -> None:
    desk.status(tasks(desk, job)[item], state, **fields)
    desk.run_until_idle()
    offer(desk)


def shards(desk: Desk, job: str) -> list[str]:
    """The states of the shards of a job's newest run."""
    return [str(shard.state) for shard in desk.firings(job)[-1].work]


def test_each_shard_starts_after_the_same_shard_before() -> None:
    desk = joined()
    assert states(desk) == {"extract": "RUNNING", "transform": "RUNNING"}
    assert shards(desk, "transform") == ["WAITING"] * 3
    end(desk, "extract", 1)
    assert list(tasks(desk, "transform")) == [1]
    end(desk, "transform", 1)
    end(desk, "extract", 2)
    assert list(tasks(desk, "transform")) == [2]
    end(desk, "extract", 0)
    end(desk, "transform", 0)
    end(desk, "transform", 2)
    assert states(desk) == {"extract": "SUCCEEDED", "transform": "SUCCEEDED"}
    assert the_run(desk).state is NodeState.SUCCEEDED


@pytest.mark.parametrize("restarts", range(4))
def test_a_new_leader_holds_the_same_shards(restarts: int) -> None:
    desk = joined()
    for number, item in enumerate((2, 0, 1)):
        if number == restarts:
            desk.restart()
            for task in list(desk.scheduler.tasks.values()):
                desk.status(task.id, "TASK_RUNNING")
        end(desk, "extract", item)
        assert sorted(tasks(desk, "transform")) == sorted((2, 0, 1)[: number + 1])


def test_a_shard_that_can_never_run_ends_and_names_the_other_shard() -> None:
    desk = joined()
    end(desk, "extract", 0, "TASK_FAILED")
    [never, *_] = desk.firings("transform")[0].work
    assert (str(never.state), never.message) == ("CANCELLED", "shard 0 of node extract is FAILED")
    for item in (1, 2):
        end(desk, "extract", item)
        end(desk, "transform", item)
    assert shards(desk, "transform") == ["CANCELLED", "FINISHED", "FINISHED"]
    assert states(desk) == {"extract": "FAILED", "transform": "SKIPPED"}
    assert the_run(desk).state is NodeState.FAILED, "the failed shard counts"


def test_a_join_on_failure_runs_the_shards_that_failed() -> None:
    desk = joined("extract/failure")
    end(desk, "extract", 0, "TASK_FAILED")
    end(desk, "extract", 1)
    end(desk, "extract", 2)
    assert list(tasks(desk, "transform")) == [0]
    end(desk, "transform", 0)
    assert shards(desk, "transform") == ["FINISHED", "CANCELLED", "CANCELLED"]


def test_a_join_without_any_failure_skips_the_handler() -> None:
    desk = joined("extract/failure")
    for item in range(3):
        end(desk, "extract", item)
    assert states(desk) == {"extract": "SUCCEEDED", "transform": "SKIPPED"}
    assert the_run(desk).state is NodeState.SUCCEEDED


@pytest.mark.parametrize("restart", [False, True])
def test_a_retry_repeats_the_failed_shards_and_those_behind_them(restart: bool) -> None:
    desk = joined()
    end(desk, "extract", 0, "TASK_FAILED")
    for item in (1, 2):
        end(desk, "extract", item)
        end(desk, "transform", item)
    if restart:
        desk.restart()
    desk.do(RetryWorkflowRun(desk.at, the_run(desk).id))
    desk.run_until_idle()
    assert states(desk) == {"extract": "RUNNING", "transform": "RUNNING"}
    assert shards(desk, "transform") == ["WAITING", "FINISHED", "FINISHED"]
    offer(desk)
    assert not tasks(desk, "transform"), "it waits for its shard again"
    if restart:
        desk.restart()
        offer(desk)
        assert not tasks(desk, "transform")
    end(desk, "extract", 0)
    end(desk, "transform", 0)
    assert the_run(desk).state is NodeState.SUCCEEDED
    assert len(desk.firings("transform")) == 1


def test_a_retry_while_other_shards_run_holds_the_shard_again() -> None:
    desk = joined()
    end(desk, "extract", 0, "TASK_FAILED")
    desk.do(Retry(desk.at, desk.firings("extract")[0].id))
    offer(desk)
    assert shards(desk, "transform") == ["WAITING"] * 3
    assert not tasks(desk, "transform")
    for item in range(3):
        end(desk, "extract", item)
        end(desk, "transform", item)
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_a_held_run_does_not_stop_a_run_of_its_job_for_which_it_waits() -> None:
    """The start is put back behind the node that is joined with it, and their job has one run at a time."""
    nodes = node("extract"), node("again", "extract/failure", join=SHARDS, job="extract")
    desk = make_desk(*nodes)
    desk.do(PutJob(desk.at, make_job("extract", shard_count=2), replace=True))
    run = begin(desk)
    offer(desk)
    for task in list(tasks(desk, "extract").values()):
        desk.status(task, "TASK_FAILED")
    desk.run_until_idle()
    desk.do(RetryWorkflowRun(desk.at, run.id))
    for _ in range(4):
        offer(desk)
        for task in list(tasks(desk, "extract").values()):
            desk.status(task, "TASK_FINISHED")
        desk.run_until_idle()
    assert states(desk) == {"extract": "SUCCEEDED", "again": "SKIPPED"}
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_a_long_chain_of_joins_needs_no_deep_stack() -> None:
    names = [f"n{number}" for number in range(200)]
    nodes = [node(names[0]), *(node(b, a, join=SHARDS) for a, b in itertools.pairwise(names))]
    desk = make_desk(*nodes)
    begin(desk, "n0")
    offer(desk)
    assert set(states(desk).values()) == {"RUNNING"}
    end(desk, "n0", 0, "TASK_FAILED")
    assert list(states(desk).values()) == ["FAILED", *["SKIPPED"] * 199]
    desk.do(RetryWorkflowRun(desk.at, the_run(desk).id))
    offer(desk)
    assert set(states(desk).values()) == {"RUNNING"}
    for name in names:
        end(desk, name, 0)
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_a_cancelled_run_of_a_join_is_not_taken_for_a_skipped_one() -> None:
    desk = joined()
    end(desk, "extract", 0, "TASK_FAILED")
    desk.do(CancelRun(desk.at, desk.firings("transform")[0].id))
    desk.run_until_idle()
    assert states(desk)["transform"] == "CANCELLED"
    desk.do(Retry(desk.at, desk.firings("extract")[0].id))
    assert shards(desk, "transform") == ["CANCELLED"] * 3, "an operator has cancelled it"


def test_a_cancelled_workflow_cancels_the_held_shards() -> None:
    desk = joined()
    desk.do(CancelWorkflowRun(desk.at, the_run(desk).id))
    for item in range(3):
        end(desk, "extract", item, "TASK_KILLED")
    assert states(desk) == {"extract": "CANCELLED", "transform": "CANCELLED"}


def test_a_join_of_several_nodes_waits_for_the_shard_of_each() -> None:
    nodes = node("extract"), node("prices"), node("load", "extract", "prices/either", join=SHARDS)
    desk = make_desk(*nodes)
    for one in nodes:
        desk.do(PutJob(desk.at, make_job(one.name, shard_count=2), replace=True))
    begin(desk)
    offer(desk)
    end(desk, "extract", 0)
    end(desk, "prices", 1, "TASK_FAILED")
    assert not tasks(desk, "load")
    end(desk, "prices", 0, "TASK_FAILED")
    assert list(tasks(desk, "load")) == [0]
    end(desk, "extract", 1)
    assert list(tasks(desk, "load")) == [0, 1]


def test_a_paused_run_starts_the_shards_of_nodes_that_have_begun() -> None:
    desk = joined()
    desk.do(PauseWorkflowRun(desk.at, the_run(desk).id, True))
    end(desk, "extract", 0)
    assert list(tasks(desk, "transform")) == [0]


def test_jobs_with_different_shards_cannot_be_joined() -> None:
    desk = joined(width=1)
    desk.do(PutJob(desk.at, make_job("transform", shard_count=4), replace=True))
    workflow = Workflow("two", desk.scheduler.workflows["etl"].nodes, "extract")
    with pytest.raises(ConfigError, match="node extract has 1 shards, and this one has 4"):
        desk.do(PutWorkflow(desk.at, workflow))


def test_a_job_whose_shards_start_together_cannot_be_joined() -> None:
    desk = make_desk(node("extract"), node("transform", "extract"))
    desk.do(PutJob(desk.at, make_job("transform", gang_start=True), replace=True))
    nodes = node("extract"), node("transform", "extract", join=SHARDS)
    with pytest.raises(ConfigError, match="start together"):
        desk.do(PutWorkflow(desk.at, Workflow("two", nodes, "extract")))


def test_a_node_whose_job_has_other_shards_by_now_fails_and_says_so() -> None:
    desk = make_desk(node("extract"), node("transform", "extract", join=SHARDS))
    desk.do(PutJob(desk.at, make_job("transform", shard_count=4), replace=True))
    begin(desk)
    [_, transform] = desk.scheduler.nodes_of(the_run(desk))
    assert (str(transform.state), transform.reason and transform.reason.code) == ("FAILED", "node_other_shards")
    assert transform.reason is not None
    assert transform.reason.parameters == {"node": "extract", "theirs": 1, "own": 4}


def test_the_shards_of_a_lost_run_count_as_failed() -> None:
    desk = joined()
    end(desk, "extract", 1)
    del desk.stored.firings[desk.firings("extract")[0].id]
    desk.stored.tasks = {name: task for name, task in desk.stored.tasks.items() if task.job != "extract"}
    desk.restart()
    desk.run_until_idle()
    assert states(desk)["extract"] == "FAILED"
    told = [shard.message for shard in desk.firings("transform")[0].work if shard.message]
    assert told == ["node extract is FAILED"] * 2


@pytest.mark.parametrize("lost", ["node", "run", "all"])
def test_held_shards_of_a_node_whose_record_is_damaged_never_start(lost: str) -> None:
    desk = joined(width=4)
    end(desk, "extract", 0)
    end(desk, "extract", 1)
    end(desk, "transform", 0)
    if lost == "node":  # as `restored` replaces a record that cannot be read
        desk.stored.nodes[node_key(the_run(desk).id, "transform")] = DAMAGED_NODE
    elif lost == "run":
        desk.stored.workflow_runs.clear()
    else:
        desk.stored.workflow_runs.clear()
        desk.stored.nodes.clear()
    desk.restart()
    offer(desk)
    [firing] = desk.firings("transform")
    assert shards(desk, "transform") == ["FINISHED", "ACTIVE", "CANCELLED", "CANCELLED"]
    assert "its node in the workflow was lost or damaged" in firing.work[2].message
    end(desk, "transform", 1)
    for item in (2, 3):
        end(desk, "extract", item)
    assert not desk.firings("transform")[0].shards[2].attempt
    if lost == "node":
        assert states(desk) == {"extract": "SUCCEEDED", "transform": "FAILED"}
        desk.do(RetryWorkflowRun(desk.at, the_run(desk).id))
        offer(desk)
        for item in range(4):
            end(desk, "transform", item)
        assert the_run(desk).state is NodeState.SUCCEEDED, "a new run of the job, after all shards before"


def test_a_retried_shard_of_a_joined_run_without_a_node_survives_a_new_leader() -> None:
    """The operator has asked for it, and no record names its conditions."""
    desk = joined(width=1)
    end(desk, "extract", 0)
    end(desk, "transform", 0, "TASK_FAILED")
    desk.do(RemoveWorkflow(desk.at, "etl"))
    desk.do(Retry(desk.at, desk.firings("transform")[0].id))
    desk.restart()
    offer(desk)
    end(desk, "transform", 0)
    assert shards(desk, "transform") == ["FINISHED"]


def test_a_skipped_shard_stays_skipped_when_the_run_before_is_deleted() -> None:
    """Nobody knows then which of the deleted shards have failed."""
    desk = joined()
    end(desk, "extract", 0, "TASK_FAILED")
    for item in (1, 2):
        end(desk, "extract", item)
    end(desk, "transform", 1)
    desk.do(RemoveWorkflow(desk.at, "etl"))
    desk.do(RemoveJob(desk.at, "extract"))
    desk.restart()
    offer(desk)
    assert shards(desk, "transform") == ["CANCELLED", "FINISHED", "ACTIVE"]


def test_a_run_that_is_deleted_at_its_end_releases_no_skipped_shard() -> None:
    nodes = node("extract"), node("transform", "extract", join=SHARDS)
    desk = make_desk(*nodes, history=0)
    for one in nodes:
        desk.do(PutJob(desk.at, make_job(one.name, shard_count=2), replace=True))
    begin(desk)
    offer(desk)
    end(desk, "extract", 0, "TASK_FAILED")
    end(desk, "extract", 1)
    assert shards(desk, "transform") == ["CANCELLED", "ACTIVE"]


def with_listener() -> Desk:
    """The run of `transform` has had the first call of its listener, and two of its three shards have finished."""
    desk = joined(firing_listener="shop.jobs:Watch")
    for job in ("extract", "transform"):
        end(desk, job, 3)  # the call before the run
    end(desk, "extract", 0, "TASK_FAILED")
    for item in (1, 2):
        end(desk, "extract", item)
        end(desk, "transform", item)
    end(desk, "extract", 4)
    return desk


@pytest.mark.parametrize("ended", [False, True])
def test_a_retry_repeats_the_last_call_of_a_listener_after_the_shards_behind(ended: bool) -> None:
    desk = with_listener()
    if ended:
        end(desk, "transform", 4)
        assert states(desk) == {"extract": "FAILED", "transform": "SKIPPED"}
    desk.do(Retry(desk.at, desk.firings("extract")[0].id))
    desk.scheduler.validate()
    offer(desk)
    if not ended:
        end(desk, "transform", 4)
        desk.scheduler.validate()
    assert states(desk) == {"extract": "RUNNING", "transform": "RUNNING"}
    end(desk, "extract", 0)
    end(desk, "transform", 0)
    end(desk, "extract", 4)
    assert not the_run(desk).ended_ms, "the listener is called again"
    end(desk, "transform", 4)
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_no_shard_waits_again_after_its_listener_has_failed() -> None:
    desk = joined(firing_listener="shop.jobs:Watch")
    end(desk, "extract", 3)
    for item in range(3):
        end(desk, "extract", item, "TASK_FAILED")
    end(desk, "transform", 3, "TASK_FAILED")
    end(desk, "extract", 4)
    desk.do(Retry(desk.at, desk.firings("extract")[0].id))
    assert shards(desk, "transform") == ["CANCELLED"] * 3
    desk.scheduler.validate()
    desk.do(Retry(desk.at, desk.firings("transform")[0].id))
    assert shards(desk, "transform") == ["WAITING"] * 3
    desk.scheduler.validate()
    offer(desk)
    end(desk, "transform", 3)
    assert not tasks(desk, "transform")
    assert desk.stored.nodes[node_key(the_run(desk).id, "transform")].skipped == 0


def test_a_skipped_node_whose_job_has_other_shards_by_now_gets_a_new_run() -> None:
    desk = joined()
    for item in range(3):
        end(desk, "extract", item, "TASK_FAILED")
    assert states(desk)["transform"] == "SKIPPED"
    for name in ("extract", "transform"):
        desk.do(PutJob(desk.at, make_job(name, shard_count=2), replace=True))
    desk.do(RetryWorkflowRun(desk.at, the_run(desk).id))
    offer(desk)
    for name in ("extract", "transform"):
        for item in range(2):
            end(desk, name, item)
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_an_explanation_names_the_nodes_whose_shards_a_run_waits_for() -> None:
    desk = joined()
    [reason] = desk.scheduler.explain("transform", desk.at).reasons
    assert (reason.code, reason.parameters["shards"]) == ("joined", 3), "all of them are held"
    assert desk.scheduler.explain("transform", desk.at).headline == reason.text
    end(desk, "extract", 1)
    [reason] = desk.scheduler.explain("transform", desk.at).reasons
    run = desk.firings("transform")[0].id
    assert (reason.code, reason.parameters) == ("joined", {"run": run, "shards": 2, "nodes": "extract"})
    assert reason.text == f"2 shards of {run} wait for the same shards of extract"
    for item in (0, 2):
        end(desk, "extract", item)
    assert [one.code for one in desk.scheduler.explain("transform", desk.at).reasons] == ["running"]


def test_the_end_of_a_shard_costs_the_same_for_all_widths() -> None:
    """So nodes of 10,000 shards cost O(shards)."""
    calls = []
    for width in (200, 2_000):
        desk = joined(width=width)
        waiting = tasks(desk, "extract")
        profile = cProfile.Profile()
        profile.enable()
        for item in range(20):
            desk.scheduler.handle(StatusReceived(desk.at, make_status(waiting[item], "TASK_FINISHED")))
        profile.disable()
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert calls[1] <= 1.1 * calls[0]


@pytest.mark.parametrize("seed", range(12))
def test_random_ends_retries_and_new_leaders_never_start_a_shard_early(seed: int) -> None:
    dice = random.Random(seed)
    width, names = dice.randrange(1, 4), ["extract", "b", "c", "d"]
    nodes = [node("extract")]
    for number, name in enumerate(names[1:], 1):
        before = dice.sample(names[:number], dice.randrange(1, min(number, 2) + 1))
        on = dice.choice(["success", "success", "failure", "either"])
        nodes.append(node(name, *(f"{other}/{on}" for other in before), join=dice.choice([SHARDS, SHARDS, Join.ALL])))
    desk = make_desk(*nodes)
    for name in names:
        desk.do(PutJob(desk.at, make_job(name, shard_count=width, retry_count=dice.randrange(2)), replace=True))
    run = begin(desk)
    seen: set[str] = set()
    for _ in range(60):
        offer(desk)
        for task in desk.scheduler.tasks.values():
            if task.id not in seen and task.attempt == 1:  # a repeated shard began under the same condition
                seen.add(task.id)
                _check_start(desk, next(one for one in nodes if one.name == task.job), task.item)
        now = list(desk.scheduler.tasks.values())
        chosen = dice.random()
        if chosen < 0.05:
            desk.restart()
        elif chosen < 0.1 and the_run(desk).ended_ms:
            with suppress(Conflict):  # no node has failed
                desk.do(RetryWorkflowRun(desk.at, run.id))
        elif now:
            desk.status(dice.choice(now).id, dice.choice(ENDS))
        else:
            desk.run_until_idle(MINUTE)
        desk.scheduler.validate()
    for _ in range(200):
        if the_run(desk).ended_ms:
            break
        for task in list(desk.scheduler.tasks.values()):
            desk.status(task.id, "TASK_FINISHED")
        desk.run_until_idle(MINUTE)
        offer(desk)
    assert the_run(desk).ended_ms, states(desk)


def _check_start(desk: Desk, one: Node, item: int) -> None:
    """Check the conditions of a task that has just started, from the records of the runs alone."""
    for after in one.after:
        for firing in desk.firings(after.node)[-1:]:
            chosen = [firing.work[item]] if one.join is SHARDS else list(firing.work)
            _check_ends(one, after, {str(shard.state) for shard in chosen})


def _check_ends(one: Node, after: After, ends: set[str]) -> None:
    assert not ends & {"WAITING", "ACTIVE"}, f"{one} starts before {after.node}: {ends}"
    if after.on is On.SUCCESS:
        assert ends == {"FINISHED"}
    elif after.on is On.FAILURE:
        assert ends & {"FAILED", "DEAD"}
