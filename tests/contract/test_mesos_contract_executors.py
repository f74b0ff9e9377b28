"""Which ExecutorInfos mean the same executor, amounts of resources, and updates that wait for the scheduler.

Recorded on a real Mesos 1.11, and holds on both clusters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contract.clusters import KINDS, start_cluster
from tests.contract.test_mesos_contract import executor, launch, summary, task, update_of
from tests.mesos_client import Cluster, Framework, amounts, post, total

Frameworks = Callable[..., Framework]
Json = dict[str, Any]


@pytest.fixture(scope="module", params=KINDS)
def gpu_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One agent with gpus, which a test drains."""
    yield from start_cluster(request.param, tmp_path_factory, 1, resources="cpus:4;mem:4096;gpus:3")


def full_executor(framework: Framework) -> Json:
    info = executor(framework, source="s", data="YQ==")
    info["name"] = "n"
    info["command"]["uris"] = [{"value": "/etc/hostname"}, {"value": "/etc/passwd", "cache": False}]
    info["command"]["environment"] = {"variables": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    info["labels"] = {"labels": [{"key": "a", "value": "b"}]}
    info["shutdown_grace_period"] = {"nanoseconds": 1_000_000_000}
    return info


SAME: dict[str, Callable[[Json], Any]] = {
    "environment_in_another_order": lambda info: info["command"]["environment"]["variables"].reverse(),
    "uris_in_another_order": lambda info: info["command"]["uris"].reverse(),
    "uri_with_written_defaults": lambda info: info["command"]["uris"][0].update(extract=True, executable=False),
    "resources_in_another_order": lambda info: info["resources"].reverse(),
    "shell_written_out": lambda info: info["command"].update(shell=True),
    "other_labels": lambda info: info.update(labels={"labels": [{"key": "c"}]}),
    "no_labels": lambda info: info.pop("labels"),
    "other_grace_period": lambda info: info.update(shutdown_grace_period={"nanoseconds": 2_000_000_000}),
    "discovery_of_the_framework": lambda info: info.update(discovery={"visibility": "FRAMEWORK"}),
    "completion_time": lambda info: info.update(max_completion_time={"nanoseconds": 10**12}),
    "cache_of_a_uri": lambda info: info["command"]["uris"][1].update(cache=True),
}
OTHER: dict[str, Callable[[Json], Any]] = {
    "no_type": lambda info: info.pop("type"),
    "data": lambda info: info.update(data="Yg=="),
    "discovery_by_name": lambda info: info.update(discovery={"visibility": "FRAMEWORK", "name": "d"}),
    "container": lambda info: info.update(container={"type": "MESOS"}),
    "name": lambda info: info.update(name="m"),
    "no_name": lambda info: info.pop("name"),
    "source": lambda info: info.update(source="t"),
    "value_of_a_variable": lambda info: info["command"]["environment"]["variables"][0].update(value="3"),
    "further_variable": lambda info: info["command"]["environment"]["variables"].append({"name": "C", "value": "3"}),
    "no_uris": lambda info: info["command"].pop("uris"),
    "output_file_of_a_uri": lambda info: info["command"]["uris"][0].update(output_file="f"),
    "user": lambda info: info["command"].update(user="root"),
    "no_shell": lambda info: info["command"].update(shell=False),
    "resources": lambda info: info.update(resources=amounts(cpus=0.2, mem=32)),
}


def test_executors_are_compared_by_their_meaning(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    first = full_executor(framework)
    offer, _ = launch(framework, "first", first)
    for number, (case, change) in enumerate({**SAME, **OTHER}.items()):
        info = copy.deepcopy(first)
        change(info)
        framework.call("REVIVE")
        again = framework.offers(1, agent=offer["agent_id"]["value"])[0]
        small = amounts(cpus=0.01, mem=1)
        framework.accept([again], task(case, again, info, update_of(case), resources=small))
        status = framework.update(case)
        if number < len(SAME):
            assert status["state"] == "TASK_RUNNING", case
        else:
            assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID"), case
            assert status["message"].startswith("ExecutorInfo is not compatible with existing ExecutorInfo"), case


@pytest.mark.parametrize(("uris", "accepted"), [([], True), ([{"value": "/etc/hostname"}], False)])
def test_empty_uris_are_no_uris(cluster: Cluster, frameworks: Frameworks, uris: list[Json], accepted: bool) -> None:
    framework = frameworks(cluster.master)
    offer, _ = launch(framework, "first", executor(framework))
    info = executor(framework)
    info["command"]["uris"] = uris
    framework.call("REVIVE")
    again = framework.offers(1, agent=offer["agent_id"]["value"])[0]
    framework.accept([again], task("t", again, info, update_of("t")))
    assert (framework.update("t")["state"] == "TASK_RUNNING") is accepted


def test_executor_without_type_is_joined_without_type(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    untyped = executor(framework)
    del untyped["type"]
    offer, _ = launch(framework, "first", untyped)
    for name, info in (("same", untyped), ("typed", executor(framework))):
        framework.call("REVIVE")
        again = framework.offers(1, agent=offer["agent_id"]["value"])[0]
        framework.accept([again], task(name, again, info, update_of(name)))
        expected = "TASK_RUNNING" if name == "same" else "TASK_ERROR"
        assert framework.update(name)["state"] == expected, name


@pytest.mark.parametrize(
    ("cpus", "taken"), [(0.0005, 1), (0.0015, 2), (0.0025, 3), (1.0004999, 1000), (1.0009999, 1001), (3.8995, 3900)]
)
def test_half_a_thousandth_is_rounded_up(cluster: Cluster, frameworks: Frameworks, cpus: float, taken: int) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    resources = amounts(cpus=cpus, mem=64)
    framework.accept([offer], task("t", offer, executor(framework), update_of("t"), resources=resources))
    assert framework.update("t")["state"] == "TASK_RUNNING"
    framework.call("REVIVE")
    rest = framework.offers(1, agent=offer["agent_id"]["value"])[0]
    assert round(1000 * total(rest["resources"]).get("cpus", 0)) == 3900 - taken


def test_gpus_are_whole_numbers(gpu_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(gpu_cluster.master, "PARTITION_AWARE", "GPU_RESOURCES")
    refused = "Task uses invalid resources: Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer"
    for name, parts, message in (
        ("half", [0.5], refused),
        ("one", [1], ""),
        ("one-and-a-half", [1.5], refused),
        ("two-halves", [0.5, 0.5], ""),
        ("none", [0], ""),
    ):
        framework.call("REVIVE")
        offer = framework.offers(1)[0]
        gpus = [entry for part in parts for entry in amounts(gpus=part)]
        resources = [*amounts(cpus=0.1, mem=32), *gpus]
        framework.accept(
            [offer], task(name, offer, executor(framework), update_of(name), resources=resources))  # fmt: skip
        status = framework.update(name)
        if message:
            assert summary(status) == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID", message), name
        else:
            assert status["state"] == "TASK_RUNNING", name
    framework.call("REVIVE")
    assert total(framework.offers(1)[0]["resources"])["gpus"] == 1


def test_executor_cannot_have_a_part_of_a_gpu(gpu_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(gpu_cluster.master, "PARTITION_AWARE", "GPU_RESOURCES")
    offer = framework.offers(1)[0]
    info = executor(framework, resources=amounts(cpus=0.1, mem=32, gpus=0.5))
    framework.accept([offer], task("t", offer, info, update_of("t")))
    status = framework.update("t")
    assert summary(status)[:3] == ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID")
    assert "The 'gpus' resource must be an unsigned integer" in status["message"]


def test_pending_update_is_sent_at_once_when_the_scheduler_comes_back(cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(cluster.master)
    offer = framework.offers(1)[0]
    framework.accept([offer], task("t", offer, executor(framework), update_of("t")))
    running = framework.update("t", acknowledge=False)
    framework.stream.close()
    framework.subscribe()
    again = framework.update("t", seconds=5, acknowledge=False)  # the agent's first retry is due after 10 s
    assert (again["state"], again["uuid"]) == ("TASK_RUNNING", running["uuid"])


def test_reconciliation_does_not_tell_that_a_drain_killed_the_task(
    gpu_cluster: Cluster, frameworks: Frameworks
) -> None:
    # Must be the last test on this cluster: after a reactivation, Mesos' agent drops tasks for a while.
    framework = frameworks(gpu_cluster.master, "PARTITION_AWARE", "GPU_RESOURCES")
    offer = framework.offers(1)[0]
    agent_id = offer["agent_id"]
    commands = ({"on_kill": "TASK_KILLED"}, update_of("t"))
    framework.accept([offer], task("t", offer, executor(framework), *commands))
    framework.update("t", "TASK_RUNNING")
    drain = post(gpu_cluster.master, "/api/v1", {"type": "DRAIN_AGENT", "drain_agent": {"agent_id": agent_id}})
    assert drain.status == 200
    framework.update("t", "TASK_KILLED", acknowledge=False)
    framework.stream.close()
    framework.subscribe()
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "t"}, "agent_id": agent_id}]})
    found = {summary(framework.update("t", acknowledge=False))[:3] for _ in range(2)}
    assert found == {
        ("TASK_KILLED", "SOURCE_MASTER", "REASON_RECONCILIATION"),
        ("TASK_KILLED", "SOURCE_EXECUTOR", "REASON_AGENT_DRAINING"),
    }
