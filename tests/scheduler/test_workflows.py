"""Workflows: runs of jobs that start after others."""

from __future__ import annotations

from typing import Any

import pytest
from bench import bench_workflows
from tests.core_world import POLICY, Desk, make_app, make_job, make_offer

from jobcloud.config import Job, JobKind
from jobcloud.errors import ConfigError, Conflict, NotFound, Outdated
from jobcloud.messages import (
    Apply,
    CancelRun,
    CancelWorkflowRun,
    PutJob,
    PutWorkflow,
    RemoveApp,
    RemoveJob,
    RemoveWorkflow,
    Retry,
    RetryWorkflowRun,
    SetJobEnabled,
    SetPaused,
    Trigger,
)
from jobcloud.model import After, Join, Node, NodeState, On, Terms, Workflow, WorkflowRun, changed
from jobcloud.ports import MAX_RECORD_BYTES
from jobcloud.scheduler.workflow_graph import MAX_AFTER, MAX_NODES
from jobcloud.sentences import Words
from jobcloud.server.records import encode

MINUTE = 60_000


def node(name: str, *after: str, join: Join = Join.ALL, job: str = "") -> Node:
    """A node; its conditions are such as `extract` or `extract/failure`."""
    found = (one.partition("/") for one in after)
    return Node(name, job or name, tuple(After(name, On(on or "success")) for name, _, on in found), join)


CHAIN = (node("extract"), node("transform", "extract"), node("load", "transform"))


def make_desk(*nodes: Node, start: str = "", **policy: Any) -> Desk:
    desk = Desk(make_app(), policy=POLICY if not policy else type(POLICY)(POLICY.artifacts, **policy))
    for job in dict.fromkeys(one.job for one in nodes):
        desk.do(PutJob(desk.at, make_job(job)))
    desk.do(PutWorkflow(desk.at, Workflow("etl", nodes, start or nodes[0].name)))
    return desk


def begin(desk: Desk, job: str = "extract") -> WorkflowRun:
    desk.do(Trigger(desk.at, job))
    desk.run_until_idle()
    return the_run(desk)


def the_run(desk: Desk) -> WorkflowRun:
    """The newest run of the workflow."""
    return desk.scheduler.workflow_runs_of("etl")[-1]


def end(desk: Desk, job: str, state: str = "TASK_FINISHED") -> None:
    """End the tasks of a job, which start first."""
    desk.offer(make_offer(f"o{desk.at}-{len(desk.all)}", cpus=64))
    running = desk.running(job)
    assert running, f"{job} does not run"
    for task_id in running:
        desk.status(task_id, state)
    desk.run_until_idle()


def states(desk: Desk) -> dict[str, str]:
    return {one.name: str(one.state) for one in desk.scheduler.nodes_of(the_run(desk))}


def test_each_node_starts_after_the_success_of_the_node_before() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    assert states(desk) == {"extract": "RUNNING", "transform": "WAITING", "load": "WAITING"}
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "transform": "RUNNING", "load": "WAITING"}
    end(desk, "transform")
    end(desk, "load")
    assert the_run(desk).state is NodeState.SUCCEEDED
    assert the_run(desk).ended_ms


def test_all_runs_of_a_workflow_have_the_same_fire_time() -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    desk.run_until_idle(MINUTE)
    end(desk, "extract")
    assert [firing.fire_ms for firing in desk.firings("transform")] == [run.fire_ms]
    assert run.fire_ms == desk.firings("extract")[0].fire_ms < desk.at


def test_a_run_by_cron_begins_a_run_of_the_workflow() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutJob(desk.at, make_job("extract", cron="0 * * * * ?"), replace=True))
    desk.run_until_idle(MINUTE)
    assert the_run(desk).fire_ms % MINUTE == 0


def test_a_run_of_some_shards_begins_no_run_of_the_workflow() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutJob(desk.at, make_job("extract", shard_count=2), replace=True))
    desk.do(Trigger(desk.at, "extract", Terms(items=(1,))))
    desk.run_until_idle()
    assert desk.firings("extract")
    assert desk.scheduler.workflow_runs_of("etl") == []


def test_the_run_of_a_node_begins_no_run_of_another_workflow() -> None:
    desk = make_desk(*CHAIN)
    back = (node("transform"), node("extract", "transform"))
    desk.do(PutWorkflow(desk.at, Workflow("back", back, "transform")))
    begin(desk)
    end(desk, "extract")
    assert states(desk)["transform"] == "RUNNING"
    assert desk.scheduler.workflow_runs_of("back") == []


def test_a_node_that_waits_for_a_success_is_skipped_after_a_failure_and_says_why() -> None:
    desk = make_desk(*CHAIN, node("alarm", "extract/failure"), node("clean", "load/either"))
    begin(desk)
    end(desk, "extract", "TASK_FAILED")
    assert states(desk) == {
        "extract": "FAILED", "transform": "SKIPPED", "load": "SKIPPED", "alarm": "RUNNING", "clean": "RUNNING",
    }  # fmt: skip
    [why] = [one.reason for one in desk.scheduler.nodes_of(the_run(desk)) if one.name == "transform"]
    assert why is not None
    assert why.parameters == {"node": "extract", "state": "FAILED", "on": "success"}
    end(desk, "alarm")
    end(desk, "clean")
    assert the_run(desk).state is NodeState.FAILED, "a failed node counts, also if another node handled it"


def test_a_node_with_two_parents_waits_for_both_or_for_any() -> None:
    fork = (
        node("extract"), node("left", "extract"), node("right", "extract"),
        node("both", "left", "right"), node("first", "left", "right", join=Join.ANY),
    )  # fmt: skip
    desk = make_desk(*fork)
    begin(desk)
    end(desk, "extract")
    end(desk, "left")
    assert states(desk)["first"] == "RUNNING"
    assert states(desk)["both"] == "WAITING"
    end(desk, "right")
    assert states(desk)["both"] == "RUNNING"
    assert len(desk.firings("first")) == 1, "the second parent starts it no second time"


def test_other_nodes_without_a_condition_start_with_the_run() -> None:
    desk = make_desk(node("extract"), node("prices"), node("load", "extract", "prices"))
    begin(desk)
    assert states(desk) == {"extract": "RUNNING", "prices": "RUNNING", "load": "WAITING"}


def test_a_job_may_be_several_nodes() -> None:
    desk = make_desk(node("extract"), node("again", "extract", job="extract"))
    begin(desk)
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "again": "RUNNING"}
    assert len(desk.scheduler.workflow_runs_of("etl")) == 1
    end(desk, "extract")
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_two_workflows_may_begin_with_one_job() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutWorkflow(desk.at, Workflow("other", (node("extract"), node("load", "extract")), "extract")))
    run = begin(desk)
    [other] = desk.scheduler.workflow_runs_of("other")
    desk.do(CancelWorkflowRun(desk.at, other.id))
    assert states(desk)["extract"] == "RUNNING", "the other workflow still needs the run"
    end(desk, "extract")
    assert states(desk)["transform"] == "RUNNING"
    assert desk.scheduler.workflow_runs[other.id].state is NodeState.CANCELLED
    assert desk.firings("load") == []
    assert desk.scheduler.nodes_run_by(desk.firings("extract")[0].id) == [(run.id, "extract"), (other.id, "extract")]


def test_a_node_of_a_job_that_runs_without_a_run_has_failed() -> None:
    """Its record is damaged. Only a node that waits for an answer has no run."""
    desk = make_desk(*CHAIN)
    run = begin(desk)
    [key] = desk.stored.nodes
    desk.stored.nodes[key] = changed(desk.stored.nodes[key], run="")
    desk.restart()
    [found, *_] = desk.scheduler.nodes_of(run)
    assert (found.state, found.reason) == (NodeState.FAILED, Words("node_damaged"))


@pytest.mark.parametrize("restarts", [1, 2, 3, 4])
def test_a_new_leader_continues_a_run(restarts: int) -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    for number, job in enumerate(("extract", "transform", "load"), 1):
        if number == restarts:
            desk.restart()
            desk.run_until_idle()
        end(desk, job)
    desk.restart()
    assert the_run(desk).state is NodeState.SUCCEEDED
    assert [len(desk.firings(job)) for job in ("extract", "transform", "load")] == [1, 1, 1]


def test_a_leader_that_is_killed_before_the_next_node_starts_loses_no_node() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    desk.offer(make_offer("o", cpus=64))
    desk.status(desk.running("extract")[0], "TASK_FINISHED")
    assert desk.firings("transform") == [], "the node starts at the next tick"
    desk.restart()
    desk.run_until_idle()
    assert len(desk.firings("transform")) == 1


def test_a_lost_record_of_a_run_makes_its_node_fail() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    [firing] = desk.firings("extract")
    desk.stored.firings.clear()
    desk.restart()
    assert states(desk) == {"extract": "FAILED", "transform": "SKIPPED", "load": "SKIPPED"}
    [why] = [one.reason for one in desk.scheduler.nodes_of(the_run(desk)) if one.name == "extract"]
    assert why is not None
    assert why.parameters == {"run": firing.id}


def test_records_of_nodes_without_a_run_are_deleted_by_a_new_leader() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    desk.stored.workflow_runs.clear()
    desk.restart()
    assert desk.stored.nodes == {}
    end(desk, "extract")
    assert desk.firings("transform") == []


def test_a_change_of_the_graph_leaves_runs_that_have_begun_alone() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    desk.do(PutWorkflow(desk.at, Workflow("etl", (node("extract"), node("load", "extract")), "extract")))
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "transform": "RUNNING", "load": "WAITING"}
    end(desk, "transform")
    end(desk, "load")
    begin(desk)
    assert list(states(desk)) == ["extract", "load"]


@pytest.mark.parametrize("held", ["disabled", "paused"])
def test_a_node_whose_job_is_held_starts_when_the_job_goes_on(held: str) -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    desk.do(SetJobEnabled(desk.at, "transform", False) if held == "disabled" else SetPaused(desk.at, True, "transform"))
    end(desk, "extract")
    assert states(desk)["transform"] == "READY"
    [why] = [one.reason for one in desk.scheduler.nodes_of(the_run(desk)) if one.name == "transform"]
    assert why is not None
    assert why.code == {"disabled": "job_off", "paused": "job_paused"}[held]
    desk.run_until_idle(5 * MINUTE)
    desk.do(SetJobEnabled(desk.at, "transform", True) if held == "disabled" else SetPaused(desk.at, False, "transform"))
    desk.run_until_idle()
    assert states(desk)["transform"] == "RUNNING"


def test_a_node_waits_until_its_job_can_have_another_run() -> None:
    desk = make_desk(*CHAIN, max_waiting=1)
    desk.do(Trigger(desk.at, "transform"))
    begin(desk)
    end(desk, "extract")
    assert states(desk)["transform"] == "READY"
    end(desk, "transform")
    assert states(desk)["transform"] == "RUNNING"


def test_further_runs_are_skipped_while_too_many_have_not_ended() -> None:
    desk = make_desk(*CHAIN, max_waiting=2)
    for _ in range(3):
        begin(desk)
        end(desk, "extract")
    assert len(desk.scheduler.workflow_runs_of("etl")) == 2
    assert desk.scheduler.workflows["etl"].skipped == 1


def test_only_the_newest_ended_runs_are_kept() -> None:
    desk = make_desk(*CHAIN, history=2)
    runs = []
    for _ in range(4):
        runs.append(begin(desk).id)
        for job in ("extract", "transform", "load"):
            end(desk, job)
    assert [run.id for run in desk.scheduler.workflow_runs_of("etl")] == runs[2:]
    assert {key.rpartition("/")[0] for key in desk.stored.nodes} == set(runs[2:])
    desk.restart()
    assert [run.id for run in desk.scheduler.workflow_runs_of("etl")] == runs[2:]


# ------------------------------------------------------------------------------------------------- retry and cancel


def test_a_retry_of_a_failed_run_repeats_the_node_and_starts_those_behind_it() -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    end(desk, "extract")
    end(desk, "transform", "TASK_FAILED")
    assert the_run(desk).state is NodeState.FAILED
    desk.do(RetryWorkflowRun(desk.at, run.id))
    assert states(desk) == {"extract": "SUCCEEDED", "transform": "RUNNING", "load": "WAITING"}
    assert the_run(desk).ended_ms == 0
    end(desk, "transform")
    end(desk, "load")
    assert the_run(desk).state is NodeState.SUCCEEDED
    assert len(desk.firings("transform")) == 1, "only its failed shards are repeated"


def test_a_retry_of_the_run_of_a_node_continues_the_workflow() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    end(desk, "extract", "TASK_FAILED")
    desk.restart()
    desk.do(Retry(desk.at, desk.firings("extract")[0].id))
    assert states(desk) == {"extract": "RUNNING", "transform": "WAITING", "load": "WAITING"}
    end(desk, "extract")
    assert states(desk)["transform"] == "RUNNING"


def test_a_retry_takes_back_a_node_that_was_ready_because_of_the_failure() -> None:
    desk = make_desk(node("extract"), node("alarm", "extract/failure"))
    begin(desk)
    desk.do(SetPaused(desk.at, True, "alarm"))
    end(desk, "extract", "TASK_FAILED")
    assert states(desk)["alarm"] == "READY"
    desk.do(Retry(desk.at, desk.firings("extract")[0].id))
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "alarm": "SKIPPED"}
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_a_cancelled_run_starts_no_further_node() -> None:
    desk = make_desk(*CHAIN, node("clean", "extract/either"))
    run = begin(desk)
    desk.offer(make_offer("o", cpus=64))
    desk.do(CancelWorkflowRun(desk.at, run.id))
    assert the_run(desk).ended_ms == 0, "its task still runs"
    end(desk, "extract", "TASK_KILLED")
    assert states(desk) == {"extract": "CANCELLED", "transform": "CANCELLED", "load": "CANCELLED", "clean": "CANCELLED"}
    assert the_run(desk).state is NodeState.CANCELLED
    desk.restart()
    assert the_run(desk).state is NodeState.CANCELLED
    assert desk.firings("clean") == []


@pytest.mark.parametrize("started", [False, True])
def test_a_cancelled_run_can_be_retried(started: bool) -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    if started:
        desk.offer(make_offer("o", cpus=64))
    desk.do(CancelWorkflowRun(desk.at, run.id))
    if started:
        end(desk, "extract", "TASK_KILLED")
    desk.do(RetryWorkflowRun(desk.at, run.id))
    desk.run_until_idle()
    for job in ("extract", "transform", "load"):
        end(desk, job)
    assert the_run(desk).state is NodeState.SUCCEEDED
    assert len(desk.scheduler.workflow_runs_of("etl")) == 1


def test_a_cancelled_run_of_a_job_cancels_its_node_and_skips_those_behind_it() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    desk.do(CancelRun(desk.at, desk.firings("extract")[0].id))
    desk.run_until_idle()
    assert states(desk) == {"extract": "CANCELLED", "transform": "SKIPPED", "load": "SKIPPED"}
    assert the_run(desk).state is NodeState.CANCELLED


def test_a_retry_that_is_refused_changes_nothing() -> None:
    desk = make_desk(node("extract"), node("left", "extract"), node("right", "extract"))
    run = begin(desk)
    end(desk, "extract")
    end(desk, "left", "TASK_FAILED")
    end(desk, "right", "TASK_FAILED")
    desk.do(SetJobEnabled(desk.at, "right", False))
    before = dict(desk.stored.nodes), dict(desk.stored.firings)
    with pytest.raises(Conflict, match="right or its app is disabled"):
        desk.do(RetryWorkflowRun(desk.at, run.id))
    assert (desk.stored.nodes, desk.stored.firings) == before


def test_a_retry_gives_a_node_a_new_run_if_the_shards_of_its_job_have_changed() -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    end(desk, "extract")
    end(desk, "transform", "TASK_FAILED")
    desk.do(PutJob(desk.at, make_job("transform", shard_count=2), replace=True))
    desk.do(RetryWorkflowRun(desk.at, run.id))
    desk.run_until_idle()
    assert [len(firing.shards) for firing in desk.firings("transform")] == [1, 2]
    end(desk, "transform")
    end(desk, "load")
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_a_retry_ends_a_node_whose_job_is_gone_and_repeats_the_others() -> None:
    fork = (node("extract"), node("left", "extract"), node("right", "extract"))
    desk = make_desk(*fork)
    run = begin(desk)
    end(desk, "extract")
    end(desk, "left", "TASK_FAILED")
    end(desk, "right", "TASK_FAILED")
    desk.do(PutWorkflow(desk.at, Workflow("etl", fork[:2], "extract")))
    desk.do(RemoveJob(desk.at, "right"))
    desk.do(RetryWorkflowRun(desk.at, run.id))
    desk.run_until_idle()
    assert states(desk) == {"extract": "SUCCEEDED", "left": "RUNNING", "right": "FAILED"}


def test_a_retry_counts_all_runs_that_it_puts_back() -> None:
    twice = (node("extract"), node("left", "extract", job="load"), node("right", "extract", job="load"))
    desk = make_desk(*twice, max_waiting=2)
    run = begin(desk)
    end(desk, "extract")
    end(desk, "load", "TASK_FAILED")
    end(desk, "load", "TASK_FAILED")
    assert states(desk) == {"extract": "SUCCEEDED", "left": "FAILED", "right": "FAILED"}
    desk.do(Trigger(desk.at, "load"))
    before = dict(desk.stored.nodes)
    with pytest.raises(Conflict, match="1 runs of job load have not ended"):
        desk.do(RetryWorkflowRun(desk.at, run.id))
    assert desk.stored.nodes == before


def test_no_start_deadline_counts_for_a_node_behind_the_start() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutJob(desk.at, make_job("transform", start_deadline_ms=1_000), replace=True))
    begin(desk)
    desk.run_until_idle(MINUTE)
    end(desk, "extract")
    assert states(desk)["transform"] == "RUNNING"
    end(desk, "transform")
    assert states(desk)["transform"] == "SUCCEEDED"


def test_a_run_of_a_job_is_cancelled_with_the_last_workflow_that_needs_it() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutWorkflow(desk.at, Workflow("other", CHAIN[:1], "extract")))
    run = begin(desk)
    desk.do(CancelWorkflowRun(desk.at, run.id))
    assert states(desk)["extract"] == "RUNNING"
    desk.do(CancelWorkflowRun(desk.at, desk.scheduler.workflow_runs_of("other")[0].id))
    assert states(desk)["extract"] == "CANCELLED"


def test_a_retry_of_one_workflow_leaves_another_one_cancelled() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutWorkflow(desk.at, Workflow("other", (node("extract"), node("load", "extract")), "extract")))
    run = begin(desk)
    [other] = desk.scheduler.workflow_runs_of("other")
    desk.do(CancelWorkflowRun(desk.at, other.id))
    end(desk, "extract", "TASK_FAILED")
    desk.do(RetryWorkflowRun(desk.at, run.id))
    end(desk, "extract")
    assert states(desk)["transform"] == "RUNNING"
    assert desk.scheduler.workflow_runs[other.id].state is NodeState.CANCELLED
    assert desk.firings("load") == []


def test_a_retried_node_starts_at_the_instant_of_the_retry() -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    end(desk, "extract", "TASK_FAILED")
    desk.run_until_idle(MINUTE)
    desk.do(RetryWorkflowRun(desk.at, run.id))
    assert next(desk.scheduler._workflows.nodes_of(the_run(desk))).started_ms == desk.at


def test_an_apply_that_changes_a_workflow_and_its_start_loses_no_run_that_is_due() -> None:
    desk = make_desk(*CHAIN)
    desk.do(PutJob(desk.at, make_job("extract", cron="0 * * * * ?"), replace=True))
    desk.run_until_idle()
    desk.at += 2 * MINUTE
    changed_job = make_job("extract", cron="0 * * * * ?", parameter="new")
    desk.do(Apply(desk.at, (), (changed_job,), workflows=(Workflow("etl", CHAIN[:2], "extract"),)))
    assert len(desk.scheduler.workflow_runs_of("etl")) == len(desk.firings("extract")) > 0


def test_a_run_without_a_failed_node_is_not_retried_and_an_ended_one_not_cancelled() -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    with pytest.raises(Conflict, match="no node of"):
        desk.do(RetryWorkflowRun(desk.at, run.id))
    for job in ("extract", "transform", "load"):
        end(desk, job)
    with pytest.raises(Conflict, match="has ended"):
        desk.do(CancelWorkflowRun(desk.at, run.id))
    for command in (CancelWorkflowRun(desk.at, "none"), RetryWorkflowRun(desk.at, "none")):
        with pytest.raises(NotFound, match="there is no run none"):
            desk.do(command)


# ------------------------------------------------------------------------------------------------- configuration


def test_a_workflow_names_jobs_that_exist_and_end() -> None:
    desk = make_desk(*CHAIN)
    with pytest.raises(ConfigError, match="there is no job missing") as caught:
        desk.do(PutWorkflow(desk.at, Workflow("w", (node("extract"), node("missing", "extract")), "extract")))
    assert caught.value.field == "nodes.1.job"
    desk.do(PutJob(desk.at, make_job("resident", kind=JobKind.DAEMON)))
    with pytest.raises(ConfigError, match="resident"):
        desk.do(PutWorkflow(desk.at, Workflow("w", (node("resident"),), "resident")))


def test_a_job_of_a_workflow_is_neither_removed_nor_made_resident() -> None:
    desk = make_desk(*CHAIN)
    resident = make_job("load", kind=JobKind.DAEMON)
    for command in (
        RemoveJob(desk.at, "load"),
        RemoveApp(desk.at, "shop", jobs=True),
        PutJob(desk.at, resident, replace=True),
        Apply(desk.at, (), (resident,)),
        Apply(desk.at, (make_app(),), (), prune=True),
    ):
        with pytest.raises(Conflict, match="workflow etl has a node of job"):
            desk.do(command)
    desk.do(RemoveWorkflow(desk.at, "etl"))
    desk.do(RemoveApp(desk.at, "shop", jobs=True))


def test_workflows_are_applied_together_with_the_jobs_that_they_name() -> None:
    desk = make_desk(*CHAIN)
    new = Workflow("new", (node("first"), node("extract", "first")), "first")
    shorter = Workflow("etl", CHAIN[:2], "extract")
    resident = make_job("load", kind=JobKind.DAEMON)
    others = make_job("first"), make_job("extract"), make_job("transform")
    desk.do(Apply(desk.at, (), (resident, *others), workflows=(new, shorter)))
    assert [one.name for one in desk.scheduler.workflows["etl"].nodes] == ["extract", "transform"]
    desk.do(Trigger(desk.at, "first"))
    assert desk.scheduler.workflow_runs_of("new")
    desk.do(Apply(desk.at, (), (make_job("first"), make_job("extract"), make_job("transform")), prune=True))
    with pytest.raises(Conflict, match="new has a node of job first"):
        desk.do(Apply(desk.at, (), (make_job("extract"), make_job("transform")), prune=True, workflows=(shorter,)))
    assert "first" in desk.scheduler.jobs


@pytest.mark.parametrize(
    ("jobs", "prune", "workflow", "problem"),
    [
        ((), False, Workflow("w", (node("missing"),), "missing"), "there is no job missing"),
        ((make_job("extract"),), True, Workflow("etl", CHAIN, "extract"), "there is no job transform"),
        ((make_job("load", kind=JobKind.DAEMON),), False, Workflow("etl", CHAIN, "extract"), "job load is resident"),
        ((make_job("new"),), False, Workflow("w", (node("new", "new"),), "new"), "is a cycle: new → new"),
    ],
)
def test_an_apply_with_a_wrong_workflow_changes_nothing(
    jobs: tuple[Job, ...], prune: bool, workflow: Workflow, problem: str
) -> None:
    desk = make_desk(*CHAIN)
    before = dict(desk.stored.jobs), dict(desk.stored.workflows)
    command = Apply(desk.at, (), jobs, prune, workflows=(workflow,))
    for attempt in (desk.scheduler.check_apply, desk.do):
        with pytest.raises(ConfigError, match=problem):
            attempt(command)
    assert (desk.stored.jobs, desk.stored.workflows) == before


def test_a_node_fails_if_its_job_was_removed_meanwhile() -> None:
    desk = make_desk(*CHAIN)
    begin(desk)
    desk.do(PutWorkflow(desk.at, Workflow("etl", (node("extract"),), "extract")))
    desk.do(RemoveJob(desk.at, "transform"))
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "transform": "FAILED", "load": "SKIPPED"}


def test_the_last_run_of_a_removed_workflow_can_be_cancelled() -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    desk.do(RemoveWorkflow(desk.at, "etl"))
    desk.do(CancelWorkflowRun(desk.at, run.id))
    assert desk.stored.workflow_runs == {}


@pytest.mark.parametrize("restarted", [False, True])
def test_the_runs_of_a_removed_workflow_go_on_and_are_forgotten_at_their_end(restarted: bool) -> None:
    desk = make_desk(*CHAIN)
    run = begin(desk)
    desk.do(RemoveWorkflow(desk.at, "etl"))
    if restarted:
        desk.restart()
    end(desk, "extract")
    desk.do(Trigger(desk.at, "extract"))
    end(desk, "transform")
    assert list(desk.stored.workflow_runs) == [run.id], "a further run of the job begins none"
    end(desk, "load")
    assert (desk.stored.workflows, desk.stored.workflow_runs, desk.stored.nodes) == ({}, {}, {})


def test_a_change_that_was_made_for_another_version_is_refused() -> None:
    desk = make_desk(*CHAIN)
    old = desk.scheduler.workflows["etl"]
    new = Workflow("etl", CHAIN[:2], "extract")
    desk.do(PutWorkflow(desk.at, new, old))
    with pytest.raises(Outdated):
        desk.do(PutWorkflow(desk.at, new, old))
    with pytest.raises(Outdated):
        desk.do(RemoveWorkflow(desk.at, "etl", old))


# ------------------------------------------------------------------------------------------------- cost


def test_a_waiting_node_has_no_record_and_is_not_visited() -> None:
    wide = (node("extract"), *(node(f"n{number}", "extract", job="load") for number in range(50)))
    desk = make_desk(*wide, node("gate"), node("last", *(one.name for one in wide), "gate", job="load"))
    begin(desk)
    assert len(desk.stored.nodes) == 2
    assert desk.scheduler.next_wake(desk.at) != desk.at
    assert desk.scheduler.indexes()["ready nodes"] == {}


def test_waiting_nodes_add_nothing_to_a_cycle_and_others_nothing_to_an_end() -> None:
    found = bench_workflows.figures(runs=50)
    assert bench_workflows.faults(found) == []
    assert found["cycle_calls"] > 100


def test_the_largest_records_fit_into_every_store() -> None:
    longest = "n" * 100
    nodes = [Node(f"{number:03}{longest}"[:100], f"{'t' * 32}:{longest}") for number in range(MAX_NODES)]
    after = tuple(After(one.name, On.FAILURE) for one in nodes[:10])
    nodes = [*nodes[: MAX_NODES - 100], *(Node(one.name, one.job, after, Join.ANY) for one in nodes[-100:])]
    assert sum(len(one.after) for one in nodes) == MAX_AFTER
    key = f"{'t' * 32}:{longest}"
    workflow = Workflow(key, tuple(nodes), nodes[0].name, "\N{PILE OF POO}" * 1_000, 2**53, 2**62)
    run = WorkflowRun(f"{key}.run", key, tuple(nodes), nodes[0].name, 2**53, 2**53, 2**53, True)
    assert max(len(encode("workflow", workflow)), len(encode("workflow_run", run))) < MAX_RECORD_BYTES  # type: ignore[arg-type]
