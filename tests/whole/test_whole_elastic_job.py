"""An old client's calls, from the package's URL to the output of a run, on a dev cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.api_kit import package_bytes
from tests.origin_kit import Server
from tests.whole_kit import Product, processes_with, until

pytestmark = pytest.mark.dev_cluster

JSON = {"Content-type": "application/json"}


@pytest.fixture
def files() -> Iterator[Server]:
    server = Server({"/foo-job.zip": package_bytes({"bin/run.sh": "echo an old script ran\n"})})
    yield server
    server.close()


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path)
    product.environ |= {"JOBCLOUD_PACKAGES_HOSTS": "127.0.0.1", "JOBCLOUD_ELASTIC_JOB_WITHOUT_TOKEN": "true"}
    yield product
    product.end()
    until(lambda: not processes_with(str(tmp_path)), "the process tree to end")


def test_script_of_an_old_client_runs_without_a_token(product: Product, files: Server) -> None:
    product.start("dev", "--data", str(product.data), "--port", str(product.port), "--agents", "1")
    until(product.healthy, "a healthy server")
    app = {
        "appName": "foo_app",
        "appURL": f"{files.url}/foo-job.zip",
        "cpuCount": 0.1,
        "memoryMB": 64.0,
        "bootstrapScript": "bin/start.sh",
    }
    job = {
        "jobName": "foo_job",
        "appName": "foo_app",
        "jobType": "SCRIPT",
        "scriptCommandLine": "sh bin/run.sh",
        "jobExecutionType": "TRANSIENT",
        "cron": "0 0 0 1 1 ?",
        "shardingTotalCount": 1,
        "cpuCount": 0.1,
        "memoryMB": 32.0,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{product.port}/api", trust_env=False, timeout=60) as client:
        assert client.post("app", json=app).status_code == 204
        assert client.post("job/register", json=job).status_code == 204
        assert client.post("job/trigger", content="foo_job", headers=JSON).status_code == 204
        until(lambda: product.runs("foo_job"), "the triggered run to finish")
        assert product.run("logs", "foo_job/0") == "an old script ran\n"
        assert client.post("operate/reconcile/explicit").status_code == 204
        assert client.delete("app/foo_app").status_code == 204
        assert client.get("job/jobs").json() == []
