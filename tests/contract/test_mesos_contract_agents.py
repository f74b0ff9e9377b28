"""Offers and tasks of agents that are marked gone. Recorded on a real Mesos 1.11, and holds on both clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.contract.test_mesos_contract import executor, launch, summary, task, update_of
from tests.mesos_client import Cluster, Framework, post

Frameworks = Callable[..., Framework]


def mark_gone(cluster: Cluster, agent_id: dict[str, str]) -> Any:
    call = {"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": agent_id}}
    answer = post(cluster.master, "/api/v1", call)
    assert answer.status == 200
    return answer


def test_unanswered_offer_is_rescinded(frail_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(frail_cluster.master)
    offer = framework.offers(1)[0]
    rescinded = framework.next("RESCIND", where=lambda e: e["rescind"]["offer_id"] == offer["id"])
    assert rescinded == {"type": "RESCIND", "rescind": {"offer_id": offer["id"]}}
    framework.accept([offer], task("t", offer, executor(framework)))
    assert summary(framework.update("t"))[:3] == ("TASK_DROPPED", "SOURCE_MASTER", "REASON_INVALID_OFFERS")


def test_agent_marked_gone_ends_its_tasks_and_offers(frail_cluster: Cluster, frameworks: Frameworks) -> None:
    aware = frameworks(frail_cluster.master)
    offer, _ = launch(aware, "t1")
    agent_id = offer["agent_id"]
    unaware = Framework(frail_cluster.master, "GPU_RESOURCES").subscribe()
    rest = unaware.offers(1, agent=agent_id["value"])[0]
    unaware.accept([rest], task("t2", rest, executor(unaware), update_of("t2")))
    unaware.update("t2", "TASK_RUNNING")
    mark_gone(frail_cluster, agent_id)
    status = aware.update("t1")
    assert summary(status) == (
        "TASK_GONE_BY_OPERATOR",
        "SOURCE_MASTER",
        "REASON_AGENT_REMOVED_BY_OPERATOR",
        "Agent has been marked gone",
    )
    assert "uuid" not in status
    assert summary(unaware.update("t2")) == (
        "TASK_LOST",
        "SOURCE_MASTER",
        "REASON_AGENT_REMOVED",
        "Agent has been marked gone",
    )
    for framework in (aware, unaware):
        failure = framework.next("FAILURE", where=lambda e: "executor_id" not in e["failure"])
        assert failure["failure"] == {"agent_id": agent_id}
    asked = {"tasks": [{"task_id": {"value": "t1"}, "agent_id": agent_id}]}
    aware.call("RECONCILE", asked)
    assert summary(aware.update("t1")) == (
        "TASK_GONE_BY_OPERATOR",
        "SOURCE_MASTER",
        "REASON_RECONCILIATION",
        "Reconciliation: Task is gone",
    )
    assert mark_gone(frail_cluster, agent_id)  # a second time is accepted
    unaware.teardown()


def test_offers_of_agent_marked_gone_are_rescinded(frail_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(frail_cluster.master)
    offer = framework.offers(1)[0]
    mark_gone(frail_cluster, offer["agent_id"])
    first = framework.next(
        "RESCIND", "FAILURE", where=lambda e: e["type"] == "FAILURE" or e["rescind"]["offer_id"] == offer["id"]
    )
    assert first["type"] == "RESCIND"
    assert framework.next("FAILURE")["failure"] == {"agent_id": offer["agent_id"]}
