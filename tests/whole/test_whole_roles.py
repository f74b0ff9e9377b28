"""The demo in two roles, and the identity of a framework, on a dev cluster and on a real Mesos."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.clusters import KINDS, start_cluster
from tests.mesos_client import Cluster, request
from tests.whole_kit import DEMO, Product, add_work, until

# Each run of the demo's job needs more cpus than one role has.
RESOURCES = "cpus(a):2;mem(a):1024;cpus(b):2;mem(b):1024;cpus:2;mem:1024;disk:1000"


@pytest.fixture(params=KINDS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from start_cluster(request.param, tmp_path_factory, 1, resources=RESOURCES)


@pytest.fixture
def product(tmp_path: Path, cluster: Cluster) -> Iterator[Product]:
    made = Product(tmp_path)
    made.environ |= {"JOBCLOUD_MESOS_ROLES": "a,b", "JOBCLOUD_ARTIFACTS_PORT": "0"}
    yield made
    made.end()


def start(product: Product, cluster: Cluster) -> subprocess.Popen[bytes]:
    return product.start(
        "scheduler", "--mesos", cluster.master, "--data", str(product.data), "--port", str(product.port)
    )


def add_demo(product: Product) -> None:
    app = product.folder / "demo"
    subprocess.run(["cp", "-r", str(DEMO), str(app)], check=True)
    manifest = app / "jobcloud.toml"
    text = manifest.read_text().replace("/tmp/jobcloud-demo", str(product.folder / "output"))
    manifest.write_text(text.replace("failover = true\ncpuCount = 0.1", "failoverAttempts = 1\ncpuCount = 1.2"))
    product.run("app", "add", str(app))


def metrics(cluster: Cluster) -> Any:
    return json.loads(request(cluster.master, "GET", "/metrics/snapshot").body)


def test_no_launch_is_dropped_with_two_roles_and_a_changed_user_is_refused(product: Product, cluster: Cluster) -> None:
    process = start(product, cluster)
    until(product.healthy, "a healthy server")
    add_demo(product)
    until(lambda: len(product.runs("sales")) >= 2, "two finished runs")
    shards = [shard for run in product.runs("sales") for shard in product.get(f"runs/{run['id']}")["shards"]]
    assert {shard["attempt"] for shard in shards} == {1}
    assert product.runs("sales", "DEAD") == []
    dropped = {name: metrics(cluster)[f"master/tasks_{name}"] for name in ("dropped", "error", "lost")}
    assert dropped == {"dropped": 0, "error": 0, "lost": 0}

    framework_id = product.json("cluster")["frameworkId"]
    process.terminate()
    assert process.wait(60) == 0
    kept = next(
        one["user"]
        for one in json.loads(request(cluster.master, "GET", "/state").body)["frameworks"]
        if one["id"] == framework_id
    )
    product.environ["JOBCLOUD_MESOS_USER"] = "somebody"
    assert start(product, cluster).wait(60) == 1
    log = (product.folder / "scheduler.log").read_text()
    assert f"mesos.user: is 'somebody', but Mesos has registered framework {framework_id} with '{kept}'" in log
    assert "jobcloud framework teardown" in log

    del product.environ["JOBCLOUD_MESOS_USER"]
    start(product, cluster)
    until(product.healthy, "a healthy server with the old user")
    assert product.json("cluster")["frameworkId"] == framework_id
    product.run("framework", "teardown", "--confirm", framework_id)


def of_framework(cluster: Cluster) -> Any:
    return next(one for one in json.loads(request(cluster.master, "GET", "/state").body)["frameworks"] if one["active"])


def roles_of_tasks(cluster: Cluster) -> dict[str, set[str]]:
    """Team → the roles of its tasks, as the master tells them."""
    found: dict[str, set[str]] = {}
    framework = of_framework(cluster)
    for task in (*framework["tasks"], *framework["completed_tasks"]):
        found.setdefault(task["id"].partition(":")[0], set()).add(task["role"])
    return found


def test_teams_use_their_roles_and_a_changed_setting_takes_effect_at_the_next_start(
    product: Product, cluster: Cluster
) -> None:
    product.environ |= {"JOBCLOUD_MESOS_ROLES": "*", "JOBCLOUD_MESOS_TEAM_ROLES": "billing=a"}
    process = start(product, cluster)
    until(product.healthy, "a healthy server")
    # A shard of the first team needs the cpus that are reserved to its role. The role `b` has no team yet.
    for team, cpus in (("billing", "2.5"), ("open", "1.2")):
        add_work(product, product.folder / team, team, "work", "* * * * * ?", 1, cpus)
    until(lambda: product.runs("billing:work") and product.runs("open:work"), "a run of each team")
    assert set(of_framework(cluster)["roles"]) == {"*", "a"}
    assert roles_of_tasks(cluster) == {"billing": {"a"}, "open": {"*"}}
    assert product.get("cluster")["teamRoles"] == {"billing": "a"}
    framework_id = product.json("cluster")["frameworkId"]
    # The agent has 2 cpus of role a and 2 for all roles.
    fit = product.get("jobs/open:work/fit", shards="9")
    assert fit["fits"] <= 1
    process.terminate()
    assert process.wait(60) == 0

    product.environ["JOBCLOUD_MESOS_TEAM_ROLES"] = "billing=b"
    start(product, cluster)
    until(product.healthy, "a healthy server with the new setting")
    before = len(product.runs("billing:work"))
    until(lambda: "b" in roles_of_tasks(cluster).get("billing", ()), "a task on the new role")
    until(lambda: len(product.runs("billing:work")) > before, "a further run")
    assert roles_of_tasks(cluster) == {"billing": {"a", "b"}, "open": {"*"}}
    assert set(of_framework(cluster)["roles"]) == {"*", "b"}
    # One task may be refused: it was to join an executor that had ended while no scheduler ran.
    dropped = {name: metrics(cluster)[f"master/tasks_{name}"] for name in ("dropped", "lost")}
    assert dropped == {"dropped": 0, "lost": 0}
    assert product.json("cluster")["frameworkId"] == framework_id
    product.run("framework", "teardown", "--confirm", framework_id)
