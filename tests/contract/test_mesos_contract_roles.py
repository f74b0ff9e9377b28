"""Offers, tasks and executors of two roles. Recorded on a real Mesos 1.11, and holds on both clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contract.clusters import KINDS, start_cluster
from tests.contract.test_mesos_contract import executor, summary, task, update_of
from tests.mesos_client import Cluster, Framework

Frameworks = Callable[..., Framework]
Json = dict[str, Any]
RESOURCES = "cpus(a):2;mem(a):1024;cpus(b):2;mem(b):1024;cpus:4;mem:2048;disk:1000"


@pytest.fixture(scope="module", params=KINDS)
def role_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One agent with resources that are reserved to two roles."""
    yield from start_cluster(request.param, tmp_path_factory, 1, resources=RESOURCES)


def of_role(role: str, **named: float) -> list[Json]:
    """Scalar resources that are reserved and allocated to a role."""
    reserved = {"allocation_info": {"role": role}, "reservations": [{"type": "STATIC", "role": role}]}
    return [{"name": name, "type": "SCALAR", "scalar": {"value": value}, **reserved} for name, value in named.items()]


def two_roles(frameworks: Frameworks, cluster: Cluster) -> tuple[Framework, Json, Json]:
    """A framework of both roles, with an offer of each."""
    framework = frameworks(cluster.master, "PARTITION_AWARE", "RESERVATION_REFINEMENT", roles=["a", "b"])
    return framework, *offers_of_both(framework)


def offers_of_both(framework: Framework) -> tuple[Json, Json]:
    found = {offer["allocation_info"]["role"]: offer for offer in framework.offers(2)}
    return found["a"], found["b"]


def in_role(role: str, name: str, offer: Json, info: Json) -> Json:
    return task(name, offer, info, update_of(name), resources=of_role(role, cpus=0.5, mem=64))


def test_agent_is_offered_to_each_role_by_itself(role_cluster: Cluster, frameworks: Frameworks) -> None:
    _, of_a, of_b = two_roles(frameworks, role_cluster)
    assert of_a["agent_id"] == of_b["agent_id"]
    for role, offer in (("a", of_a), ("b", of_b)):
        assert {one["allocation_info"]["role"] for one in offer["resources"]} == {role}
        assert {one["reservations"][-1]["role"] for one in offer["resources"] if "reservations" in one} == {role}


def test_offers_of_two_roles_cannot_be_accepted_together(role_cluster: Cluster, frameworks: Frameworks) -> None:
    framework, of_a, of_b = two_roles(frameworks, role_cluster)
    info = executor(framework, resources=of_role("a", cpus=0.1, mem=32))
    framework.accept([of_a, of_b], in_role("a", "t", of_a, info))
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_DROPPED", "SOURCE_MASTER", "REASON_INVALID_OFFERS")
    assert status["message"].startswith(
        "Task launched with invalid offers: Aggregated offers must be allocated to the same role."
    )
    offers_of_both(framework)  # they are offered again at once


def test_task_cannot_mix_resources_of_two_roles(role_cluster: Cluster, frameworks: Frameworks) -> None:
    framework, of_a, _ = two_roles(frameworks, role_cluster)
    info = executor(framework, resources=of_role("a", cpus=0.1, mem=32))
    mixed = [*of_role("a", cpus=0.5, mem=64), *of_role("b", cpus=0.5)]
    framework.accept([of_a], task("t", of_a, info, update_of("t"), resources=mixed))
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
    assert status["message"].startswith("Invalid task resources: The resources have multiple allocation roles")


def test_new_executor_needs_resources_of_the_accepted_role(role_cluster: Cluster, frameworks: Frameworks) -> None:
    framework, of_a, _ = two_roles(frameworks, role_cluster)
    info = executor(framework, resources=of_role("b", cpus=0.1, mem=32))
    framework.accept([of_a], in_role("a", "t", of_a, info))
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
    assert status["message"].startswith("Total resources ")


def test_task_of_one_role_joins_the_executor_of_another(role_cluster: Cluster, frameworks: Frameworks) -> None:
    framework, of_a, of_b = two_roles(frameworks, role_cluster)
    info = executor(framework, resources=of_role("a", cpus=0.1, mem=32))
    framework.accept([of_a], in_role("a", "t1", of_a, info))
    framework.accept([of_b], in_role("b", "t2", of_b, info))  # before the executor has registered
    states = {framework.update()["task_id"]["value"] for _ in range(2)}
    assert states == {"t1", "t2"}


def test_executor_of_another_role_is_incompatible(role_cluster: Cluster, frameworks: Frameworks) -> None:
    framework, of_a, of_b = two_roles(frameworks, role_cluster)
    framework.accept([of_a], in_role("a", "t1", of_a, executor(framework, resources=of_role("a", cpus=0.1))))
    framework.update("t1", "TASK_RUNNING")
    framework.accept([of_b], in_role("b", "t2", of_b, executor(framework, resources=of_role("b", cpus=0.1))))
    status = framework.update("t2")
    assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
    assert status["message"].startswith("ExecutorInfo is not compatible with existing ExecutorInfo")


def test_offers_of_two_roles_can_be_declined_together(role_cluster: Cluster, frameworks: Frameworks) -> None:
    framework, of_a, of_b = two_roles(frameworks, role_cluster)
    assert framework.decline([of_a, of_b], 0).status == 202
    offers_of_both(framework)
