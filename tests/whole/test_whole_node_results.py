"""A result of one node in the command and the parameter of another, in the whole product."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("structlog", reason="the extra [server] is not installed")

from tests.whole_kit import Product, until

from jobcloud.dev.cluster import DevCluster

pytestmark = pytest.mark.dev_cluster

CODE = """
from jobcloud.job import ShardingContext, SimpleJob

class Extract(SimpleJob):
    def execute(self, ctx: ShardingContext) -> str:
        return "part '%d' $(id)" % ctx.sharding_item
"""
MANIFEST = """
[app]
appName = "shop"
cpuCount = 0.1
memoryMB = 64

[[jobs]]
jobName = "extract"
jobType = "SIMPLE"
jobClass = "work:Extract"
shardingTotalCount = 2
{common}

[[jobs]]
jobName = "load"
jobType = "SCRIPT"
scriptCommandLine = "sh -c 'echo \\"$2\\" > \\"$0/$1\\"' {out} {{item}} {{result:extract}}"
shardingTotalCount = 2
placeholders = ["scriptCommandLine"]
{common}

[[jobs]]
jobName = "report"
jobType = "SCRIPT"
scriptCommandLine = "sh -c 'echo \\"$1\\" > \\"$0/all\\"' {out} {{result:extract}}"
shardingTotalCount = 1
placeholders = ["scriptCommandLine"]
{common}

[[workflows]]
workflowName = "etl"
nodes = [
    {{job = "extract"}},
    {{job = "load", after = ["extract"], join = "shards"}},
    {{job = "report", after = ["load"]}},
]
"""
COMMON = """
jobExecutionType = "TRANSIENT"
cron = "0 0 0 1 1 ? 2098"
cpuCount = 0.1
memoryMB = 16
"""


def test_commands_get_the_results_of_another_node(tmp_path: Path) -> None:
    product, out, app = Product(tmp_path), tmp_path / "out", tmp_path / "shop"
    product.environ |= {"JOBCLOUD_DATA": str(product.data), "JOBCLOUD_ARTIFACTS_PORT": "0"}
    out.mkdir()
    app.mkdir()
    (app / "work.py").write_text(CODE)
    (app / "jobcloud.toml").write_text(MANIFEST.format(out=out, common=COMMON))
    with DevCluster(agents=2) as cluster:
        try:
            product.start("scheduler", "--mesos", cluster.master, "--port", str(product.port))
            until(product.healthy, "a healthy server")
            product.run("apply", "-f", str(app))
            product.run("job", "trigger", "extract")
            until(lambda: product.runs("report"), "the end of the last node")
        finally:
            product.end()
    assert (out / "0").read_text() == "part '0' $(id)\n"
    assert (out / "1").read_text() == "part '1' $(id)\n"
    assert (out / "all").read_text() == "[\"part '0' $(id)\",\"part '1' $(id)\"]\n"
