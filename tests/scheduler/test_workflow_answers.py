"""Nodes of workflows that wait for an answer from outside; results, pauses and deadlines."""

from __future__ import annotations

import pytest
from tests.core_world import Desk, make_job, make_offer
from tests.scheduler.test_workflows import MINUTE, begin, end, make_desk, node, states, the_run

from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import (
    AnswerNode,
    CancelWorkflowRun,
    PauseWorkflowRun,
    PutJob,
    PutWorkflow,
    RemoveWorkflow,
    RetryWorkflowRun,
    SendWorkflowEvent,
    SetJobEnabled,
)
from jobcloud.model import After, Answer, Join, Node, NodeState, On, WaitFor, Workflow
from jobcloud.scheduler.state import AlertChannel

CHANNELS = (AlertChannel("ops"),)
YES, NO = Answer(True, "go", "looks good", "user:ann"), Answer(False)


def wait(name: str, *after: str, wait: WaitFor = WaitFor.APPROVAL, event: str = "", within: int = 0) -> Node:
    return Node(name, "", tuple(map(After, after)), Join.ALL, wait, event, within)


def with_wait(*nodes: Node) -> Desk:
    """A workflow `etl` with nodes of jobs and others."""
    desk = make_desk(*(one for one in nodes if one.wait is None and not one.after))
    for one in nodes:
        if one.job and one.after:
            desk.do(PutJob(desk.at, make_job(one.job)))
    desk.do(PutWorkflow(desk.at, Workflow("etl", nodes, nodes[0].name)))
    return desk


GATE = (node("extract"), wait("approve", "extract"), node("load", "approve"))


def answer(desk: Desk, given: Answer = YES, name: str = "approve") -> None:
    desk.do(AnswerNode(desk.at, the_run(desk).id, name, given))
    desk.run_until_idle()


@pytest.mark.parametrize("restart", [False, True])
def test_a_node_waits_for_an_approval(restart: bool) -> None:
    desk = with_wait(*GATE)
    begin(desk)
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "approve": "RUNNING", "load": "WAITING"}
    if restart:
        desk.restart()
        assert states(desk)["approve"] == "RUNNING"
    answer(desk)
    assert states(desk)["load"] == "RUNNING"
    [found] = [one.answer for one in desk.scheduler.nodes_of(the_run(desk)) if one.name == "approve"]
    assert found == YES
    end(desk, "load")
    assert the_run(desk).state is NodeState.SUCCEEDED


@pytest.mark.parametrize("how", [WaitFor.CALLBACK, WaitFor.EVENT])
def test_a_skipped_node_keeps_its_answer_for_a_retry(how: WaitFor) -> None:
    desk = with_wait(
        node("extract"), wait("approve", "extract", wait=how, event="came" if how is WaitFor.EVENT else "")
    )
    run = begin(desk)
    if how is WaitFor.EVENT:
        desk.do(SendWorkflowEvent(desk.at, "default", "came", YES))
    else:
        answer(desk)
    end(desk, "extract", "TASK_FAILED")
    assert states(desk)["approve"] == "SKIPPED"
    desk.restart()
    desk.do(RetryWorkflowRun(desk.at, run.id))
    desk.scheduler.validate()
    assert states(desk)["approve"] == "WAITING"
    end(desk, "extract")
    assert states(desk)["approve"] == "SUCCEEDED", "the sender does not answer twice"
    assert the_run(desk).state is NodeState.SUCCEEDED


def test_retries_do_not_pile_up_deadlines() -> None:
    names = [f"a{number}" for number in range(199)]
    desk = with_wait(node("extract"), *(wait(name, "extract", within=366 * 86_400_000) for name in names))
    run = begin(desk)
    for _ in range(12):
        end(desk, "extract", "TASK_FAILED")
        desk.do(RetryWorkflowRun(desk.at, run.id))
        desk.run_until_idle()
    assert len(desk.scheduler._workflows._deadlines) <= 1_000 + len(names)


def test_a_rejection_fails_the_node_and_a_retry_asks_again() -> None:
    desk = with_wait(*GATE)
    begin(desk)
    end(desk, "extract")
    answer(desk, NO)
    assert states(desk) == {"extract": "SUCCEEDED", "approve": "FAILED", "load": "SKIPPED"}
    assert the_run(desk).state is NodeState.FAILED
    desk.do(RetryWorkflowRun(desk.at, the_run(desk).id))
    assert states(desk)["approve"] == "RUNNING"
    answer(desk)
    assert states(desk)["load"] == "RUNNING"


def test_an_approval_is_given_once_and_not_before_it_is_asked_for() -> None:
    desk = with_wait(*GATE)
    begin(desk)
    with pytest.raises(Conflict, match="does not ask for an approval yet"):
        answer(desk)
    end(desk, "extract")
    answer(desk)
    with pytest.raises(Conflict, match="has been decided"):
        answer(desk, NO)
    with pytest.raises(Conflict, match="waits for no answer of its own"):
        answer(desk, name="load")
    with pytest.raises(NotFound, match="has no node other"):
        answer(desk, name="other")


@pytest.mark.parametrize("restart", [False, True])
def test_a_callback_may_come_before_the_node_waits(restart: bool) -> None:
    desk = with_wait(node("extract"), wait("told", "extract", wait=WaitFor.CALLBACK), node("load", "told"))
    begin(desk)
    answer(desk, name="told")
    assert states(desk) == {"extract": "RUNNING", "told": "WAITING", "load": "WAITING"}
    if restart:
        desk.restart()
    with pytest.raises(Conflict, match="has been decided"):
        answer(desk, NO, "told")
    end(desk, "extract")
    assert states(desk) == {"extract": "SUCCEEDED", "told": "SUCCEEDED", "load": "RUNNING"}


@pytest.mark.parametrize("restart", [False, True])
def test_an_event_answers_all_nodes_of_the_team_that_wait_for_it(restart: bool) -> None:
    sensor = wait("arrived", wait=WaitFor.EVENT, event="orders")
    desk = with_wait(node("extract"), sensor, node("load", "extract", "arrived"))
    first = begin(desk)
    end(desk, "extract")
    desk.run_until_idle(MINUTE)
    second = begin(desk)
    if restart:
        desk.restart()
    desk.do(SendWorkflowEvent(desk.at, "other", "orders", YES))
    desk.do(SendWorkflowEvent(desk.at, "default", "others", YES))
    assert states(desk)["arrived"] == "RUNNING"
    desk.do(SendWorkflowEvent(desk.at, "default", "orders", YES, first.fire_ms))
    assert states(desk)["arrived"] == "RUNNING", "it is about another fire time"
    assert [one.state for one in desk.scheduler.nodes_of(first)][1] is NodeState.SUCCEEDED
    desk.do(SendWorkflowEvent(desk.at, "default", "orders", YES))
    assert [one.state for one in desk.scheduler.nodes_of(second)][1] is NodeState.SUCCEEDED


def test_an_ended_or_cancelled_run_hears_no_event() -> None:
    desk = with_wait(node("extract"), wait("arrived", "extract", wait=WaitFor.EVENT, event="orders"))
    run = begin(desk)
    desk.do(CancelWorkflowRun(desk.at, run.id))
    desk.do(SendWorkflowEvent(desk.at, "default", "orders", YES))
    assert states(desk)["arrived"] == "CANCELLED"
    with pytest.raises(Conflict):
        answer(desk, name="arrived")


def test_a_cancelled_run_does_not_wait_for_its_answer() -> None:
    desk = with_wait(*GATE)
    begin(desk)
    end(desk, "extract")
    desk.do(CancelWorkflowRun(desk.at, the_run(desk).id))
    assert states(desk) == {"extract": "SUCCEEDED", "approve": "CANCELLED", "load": "CANCELLED"}
    assert the_run(desk).state is NodeState.CANCELLED


def test_a_branch_starts_by_the_result_of_the_node_before() -> None:
    for result, chosen, other in (("big", "many", "few"), ("small", "few", "many")):
        nodes = (
            node("extract"),
            Node("many", "many", (After("extract", On.SUCCESS, "big"),)),
            Node("few", "few", (After("extract", On.SUCCESS, "small"),)),
        )
        desk = make_desk(*nodes)
        begin(desk)
        desk.offer(make_offer("o1", cpus=8))
        [task] = desk.running("extract")
        desk.status(task, "TASK_FINISHED", data=f'{{"result":"{result}"}}')
        desk.run_until_idle()
        assert (states(desk)[chosen], states(desk)[other]) == ("RUNNING", "SKIPPED")
        [why] = [one.reason for one in desk.scheduler.nodes_of(the_run(desk)) if one.name == other]
        assert why is not None
        assert why.code == "node_other_result"


def test_a_branch_starts_by_the_result_of_an_answer() -> None:
    nodes = node("extract"), wait("ask"), Node("go", "go", (After("ask", On.SUCCESS, "go"),))
    desk = with_wait(*nodes)
    begin(desk)
    answer(desk, YES, "ask")
    assert states(desk)["go"] == "RUNNING"


@pytest.mark.parametrize("restart", [False, True])
def test_a_paused_run_starts_no_further_node(restart: bool) -> None:
    desk = with_wait(*GATE, node("late", "extract"))
    run = begin(desk)
    desk.do(PauseWorkflowRun(desk.at, run.id, True))
    end(desk, "extract")
    if restart:
        desk.restart()
    desk.run_until_idle(MINUTE)
    assert states(desk) == {"extract": "SUCCEEDED", "approve": "READY", "load": "WAITING", "late": "READY"}
    assert {one.reason.code for one in desk.scheduler.nodes_of(the_run(desk)) if one.reason} == {"node_paused"}
    desk.do(PauseWorkflowRun(desk.at, run.id, False))
    desk.run_until_idle()
    assert states(desk) == {"extract": "SUCCEEDED", "approve": "RUNNING", "load": "WAITING", "late": "RUNNING"}


def test_a_pause_withdraws_ready_nodes() -> None:
    desk = make_desk(node("extract"), node("load", "extract"))
    run = begin(desk)
    desk.do(SetJobEnabled(desk.at, "load", False))
    end(desk, "extract")
    desk.do(PauseWorkflowRun(desk.at, run.id, True))
    desk.do(SetJobEnabled(desk.at, "load", True))
    desk.run_until_idle(MINUTE)
    assert states(desk)["load"] == "READY"
    desk.do(CancelWorkflowRun(desk.at, run.id))
    assert the_run(desk).state is NodeState.CANCELLED


@pytest.mark.parametrize("restart", [False, True])
def test_a_node_that_gets_no_answer_in_time_fails(restart: bool) -> None:
    desk = with_wait(node("extract"), wait("approve", "extract", within=5 * MINUTE))
    begin(desk)
    end(desk, "extract")
    if restart:
        desk.restart()
    desk.run_until_idle(4 * MINUTE)
    assert states(desk)["approve"] == "RUNNING"
    desk.run_until_idle(2 * MINUTE)
    assert states(desk)["approve"] == "FAILED"
    [found] = [one.reason for one in desk.scheduler.nodes_of(the_run(desk)) if one.name == "approve"]
    assert found is not None
    assert (found.code, found.parameters) == ("node_past_deadline", {"seconds": 300})
    desk.do(RetryWorkflowRun(desk.at, the_run(desk).id))
    desk.run_until_idle(4 * MINUTE)
    assert states(desk)["approve"] == "RUNNING", "the time counts from the retry"


def test_a_node_that_begins_to_wait_after_its_deadline_fails() -> None:
    desk = with_wait(node("extract"), wait("approve", "extract", within=MINUTE))
    begin(desk)
    desk.run_until_idle(2 * MINUTE)
    end(desk, "extract")
    assert states(desk)["approve"] == "FAILED"


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_run_and_a_late_node_raise_an_alert_that_ends_with_the_run(restart: bool) -> None:
    desk = make_desk(node("extract"), alert_channels=CHANNELS)
    nodes = (Node("extract", "extract", deadline_ms=MINUTE),)
    desk.do(PutWorkflow(desk.at, Workflow("etl", nodes, "extract", deadline_ms=3 * MINUTE)))
    begin(desk)
    desk.run_until_idle(2 * MINUTE)
    texts = [alert.text for alert in desk.scheduler.alerts.values()]
    assert texts == [f"node extract of {the_run(desk).id} has not ended in time"]
    if restart:
        desk.restart()
    desk.run_until_idle(2 * MINUTE)
    [alert] = desk.scheduler.alerts.values()
    assert alert.text == f"{the_run(desk).id} has not ended in time"
    end(desk, "extract")
    assert all(alert.closed_ms for alert in desk.scheduler.alerts.values())


def test_a_failed_run_raises_an_alert_until_a_run_succeeds() -> None:
    desk = make_desk(node("extract"), alert_channels=CHANNELS)
    begin(desk)
    end(desk, "extract", "TASK_FAILED")
    assert "workflow_failed" in {alert.condition for alert in desk.scheduler.alerts.values()}
    begin(desk)
    end(desk, "extract")
    still = {str(alert.condition) for alert in desk.scheduler.alerts.values() if not alert.closed_ms}
    assert "workflow_failed" not in still


def test_a_removed_workflow_has_no_alert() -> None:
    desk = make_desk(node("extract"), alert_channels=CHANNELS)
    begin(desk)
    end(desk, "extract", "TASK_FAILED")
    desk.do(RemoveWorkflow(desk.at, "etl"))
    desk.run_until_idle()
    still = {str(alert.condition) for alert in desk.scheduler.alerts.values() if not alert.closed_ms}
    assert "workflow_failed" not in still
