"""The answers that monitoring and the Mesos command line read. Recorded on Mesos 1.11, and valid on both clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contract.clusters import KINDS, start_cluster
from tests.contract.test_mesos_contract import executor, task, update_of
from tests.mesos_client import Cluster, Framework, amounts, post, request, total
from tests.mesos_kit import until

Frameworks = Callable[..., Framework]
Json = dict[str, Any]
Busy = tuple[Cluster, Framework, list[Json]]
RESOURCES = "cpus(a):2;cpus:4;mem:2048;disk:1000;ports:[31000-31099]"
COUNTED = ("STAGING", "STARTING", "RUNNING", "KILLING", "FINISHED", "KILLED", "FAILED", "LOST", "ERROR", "UNREACHABLE")


@pytest.fixture(scope="module", params=KINDS)
def small_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One agent, on which one cpu entry is reserved."""
    yield from start_cluster(request.param, tmp_path_factory, 1, resources=RESOURCES)


@pytest.fixture
def busy(small_cluster: Cluster, frameworks: Frameworks) -> Busy:
    """A framework of role b with a running, a finished and a dropped task, and all free resources in offers."""
    framework = frameworks(
        small_cluster.master,
        "PARTITION_AWARE",
        "RESERVATION_REFINEMENT",
        roles=["b"],
        hostname="h",
        webui_url="http://w",
    )
    offer = framework.offers(1)[0]
    info = executor(framework)
    framework.accept([], task("dropped", offer, info))
    framework.update("dropped", "TASK_DROPPED")
    ended = (update_of("ended"), update_of("ended", "TASK_FINISHED"))
    tasks = task("running", offer, info, update_of("running")), task("ended", offer, info, *ended)
    framework.accept([offer], *tasks, filters={"refuse_seconds": 600})
    framework.update("running", "TASK_RUNNING")
    framework.update("ended", "TASK_RUNNING")
    framework.update("ended", "TASK_FINISHED")
    framework.call("REVIVE")
    offers: list[Json] = []
    while sum(total(one["resources"]).get("cpus", 0) for one in offers) < 3.39:
        offers += framework.offers(1)
    return small_cluster, framework, offers


def read(cluster: Cluster, path: str) -> Any:
    answer = request(cluster.master, "GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    below = request(cluster.master, "GET", f"/master{path}").status
    assert below == (404 if path == "/metrics/snapshot" else 200)
    return answer.json()


def test_tasks_of_all_frameworks_are_listed_newest_first(busy: Busy) -> None:
    cluster, framework, _ = busy
    own = f"framework_id={framework.id}"
    tasks = {one["id"]: one for one in read(cluster, f"/tasks?{own}")["tasks"]}
    assert {name: one["state"] for name, one in tasks.items()} == {"running": "TASK_RUNNING", "ended": "TASK_FINISHED"}
    shown = tasks["running"]
    assert {"id", "name", "framework_id", "executor_id", "slave_id", "state", "resources", "role", "statuses"} <= set(
        shown
    )
    assert (shown["framework_id"], shown["executor_id"], shown["role"]) == (framework.id, "e", "b")
    assert shown["resources"] == {"cpus": 0.5, "mem": 64.0, "disk": 0.0, "gpus": 0.0}
    assert read(cluster, f"/tasks?{own}&limit=0") == {"tasks": []}
    assert len(read(cluster, f"/tasks?{own}&limit=1&offset=1")["tasks"]) == 1
    assert [one["id"] for one in read(cluster, f"/tasks?{own}&task_id=ended")["tasks"]] == ["ended"]


def test_frameworks_are_listed_and_selected(busy: Busy) -> None:
    cluster, framework, _ = busy
    found = read(cluster, f"/frameworks?framework_id={framework.id}")
    assert set(found) == {"frameworks", "completed_frameworks", "unregistered_frameworks"}
    (shown,) = found["frameworks"]
    assert {
        "id", "name", "user", "failover_timeout", "checkpoint", "hostname", "webui_url", "roles", "capabilities",
        "active", "connected", "recovered", "registered_time", "unregistered_time", "used_resources",
        "offered_resources", "resources", "tasks", "unreachable_tasks", "completed_tasks", "executors", "offers",
        "offer_constraints",
    } <= set(shown)  # fmt: skip
    assert shown["used_resources"] == {"cpus": 0.6, "mem": 96.0, "disk": 0.0, "gpus": 0.0}
    assert read(cluster, "/frameworks?framework_id=nobody")["frameworks"] == []


def test_state_summary_counts_tasks_of_agents_and_frameworks(busy: Busy) -> None:
    cluster, framework, _ = busy
    found = read(cluster, "/state-summary")
    assert set(found) >= {"hostname", "slaves", "frameworks"}
    (slave,) = found["slaves"]
    shown = next(one for one in found["frameworks"] if one["id"] == framework.id)
    expected = {f"TASK_{name}": int(name in ("RUNNING", "FINISHED")) for name in COUNTED}
    for one in (slave, shown):
        assert {name: one[name] for name in expected} == expected
    assert (slave["framework_ids"], shown["slave_ids"]) == ([framework.id], [slave["id"]])
    assert slave["reserved_resources"]["a"]["cpus"] == 2.0
    assert slave["unreserved_resources"]["cpus"] == 4.0
    assert {"hostname", "port", "attributes", "pid", "registered_time", "active", "version", "capabilities"} <= set(
        slave
    )


def test_roles_have_allocated_offered_and_reserved_amounts(busy: Busy) -> None:
    cluster, framework, _ = busy
    roles = {one["name"]: one for one in read(cluster, "/roles")["roles"]}
    assert set(roles) == {"a", "b"}
    assert roles["a"] == {
        "name": "a", "weight": 1.0, "resources": {}, "allocated": {}, "offered": {}, "reserved": {"cpus": 2.0},
        "frameworks": [], "quota": {"role": "a", "guarantee": {}, "limit": {}, "consumed": {"cpus": 2.0}},
    }  # fmt: skip
    shown = roles["b"]
    assert (shown["frameworks"], shown["reserved"]) == ([framework.id], {})
    assert shown["allocated"] == shown["quota"]["consumed"] == {"cpus": 0.6, "mem": 96.0}
    assert shown["offered"] == {"cpus": 3.4, "mem": 1952.0, "disk": 1000.0, "ports": 100.0}
    assert shown["resources"] == {"cpus": 4.0, "mem": 2048.0, "disk": 1000.0, "ports": 100.0}


def test_metrics_count_tasks_agents_frameworks_and_resources(busy: Busy) -> None:
    cluster, framework, offers = busy
    before = read(cluster, "/metrics/snapshot")
    assert all(isinstance(value, float) for value in before.values())
    assert before["master/elected"] == 1.0
    assert before["master/uptime_secs"] > 0
    assert before["master/tasks_running"] == 1.0
    for name in ("active", "connected"):
        assert before[f"master/slaves_{name}"] == before[f"master/frameworks_{name}"] == 1.0
    for name in ("disconnected", "inactive", "unreachable"):
        assert before[f"master/slaves_{name}"] == 0.0
    assert (before["master/cpus_total"], before["master/cpus_used"]) == (6.0, 0.6)
    assert before["master/cpus_percent"] == pytest.approx(0.1)
    assert (before["master/mem_total"], before["master/mem_used"], before["master/gpus_percent"]) == (2048.0, 96.0, 0.0)
    assert before["master/outstanding_offers"] == len(offers)
    offer = offers[0]
    info = executor(framework)
    failing = (update_of("failing"), update_of("failing", "TASK_FAILED"))
    framework.accept(
        [offer], task("failing", offer, info, *failing), task("wrong", offer, info, resources=amounts(cpus=9))
    )
    framework.update("failing", "TASK_RUNNING")
    framework.update("failing", "TASK_FAILED")

    def changed() -> set[str]:
        after = read(cluster, "/metrics/snapshot")
        return {name for name in before if name.startswith("master/tasks_") and after[name] != before[name]}

    # The master sends an update to the framework before it counts it.
    until(lambda: "master/tasks_failed" in changed(), "the failed task is counted")
    assert changed() == {"master/tasks_failed", "master/tasks_error"}


def test_flags_are_texts(small_cluster: Cluster) -> None:
    flags = read(small_cluster, "/flags")["flags"]
    assert all(isinstance(value, str) for value in flags.values())
    assert flags["allocation_interval"] == "100ms"
    assert {"agent_reregister_timeout", "min_allocatable_resources", "hostname", "port", "allocator"} <= set(flags)


def test_redirect_names_the_leading_master(small_cluster: Cluster) -> None:
    answer = request(small_cluster.master, "GET", "/redirect")
    assert (answer.status, answer.headers["location"]) == (307, f"//{small_cluster.master}")


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/api/v1/operator", "/api/v1/operator/", "/master/api/v1/"])
def test_calls_of_operators_have_several_paths(small_cluster: Cluster, path: str) -> None:
    answer = post(small_cluster.master, path, {"type": "GET_HEALTH"})
    assert (answer.status, answer.json()) == (200, {"type": "GET_HEALTH", "get_health": {"healthy": True}})


@pytest.mark.parametrize("path", ["/api/v1/scheduler", "/api/v1/scheduler/", "/master/api/v1/scheduler/"])
def test_calls_of_schedulers_have_several_paths(small_cluster: Cluster, path: str) -> None:
    answer = post(small_cluster.master, path, {"type": "GET_HEALTH"})
    assert (answer.status, answer.body) == (400, "Failed to validate scheduler::Call: Expecting 'type' to be present")


@pytest.mark.parametrize("path", ["/", "/nope", "/metrics", "/state.json", "/tasks.json", "/statex"])
def test_other_paths_are_not_found(small_cluster: Cluster, path: str) -> None:
    assert request(small_cluster.master, "GET", path).status == 404
