"""Logs in the archive of a whole dev cluster, after their sandboxes are gone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.archive_kit import new_bucket, running_s3
from tests.process_kit import paths_below
from tests.whole_kit import Product, processes_with, scheduler_of, until

pytestmark = pytest.mark.dev_cluster


@pytest.fixture(params=["directory", "s3"])
def dev(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    product = Product(tmp_path)
    with contextlib.ExitStack() as stack:
        if request.param == "s3":
            server = stack.enter_context(running_s3())
            product.environ["JOBCLOUD_ARCHIVE_URL"] = f"s3://{new_bucket(server)}/logs"
            product.environ["JOBCLOUD_ARCHIVE_ENDPOINT"] = server
            product.environ |= {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK"}
        else:
            product.environ["JOBCLOUD_ARCHIVE_URL"] = str(tmp_path / "archive")
        yield product
        product.end()
        until(lambda: not processes_with(str(tmp_path)), "the process tree to end")


def remove_sandboxes(dev: Product) -> int:
    """Remove the folders of all tasks on the agents, as a restart of an executor or Mesos' garbage collection does."""
    folders = [path for path in paths_below(dev.folder) if path.name == "tasks" and "executors" in path.parts]
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def test_log_is_read_after_its_sandbox_was_removed_and_the_scheduler_was_killed(dev: Product) -> None:
    dev.start("dev", "--demo", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    until(lambda: dev.call("jobs/sales")[0] == 200, "the demo's job")
    config = {**dev.get("jobs/sales")["config"], "cron": "0 0 0 1 1 ? 2099"}
    config |= {"jobType": "SCRIPT", "scriptCommandLine": "sh -c 'echo to stdout; echo to stderr >&2'"}
    for field in ("jobClass", "beanName", "applicationContext"):
        config.pop(field, None)
    status, answer = dev.call("jobs/sales", "PUT", config)
    assert status == 200, answer
    run = dev.call("jobs/sales/trigger", "POST")[1]["id"]
    until(lambda: dev.get(f"runs/{run}")["state"] == "FINISHED", "the end of the run")
    path = f"runs/{run}/shards/0/attempts/1/logs"
    until(lambda: dev.get(path)["source"] == "archive", "the log in the archive")
    assert remove_sandboxes(dev)
    assert "to stdout\n" in dev.get(path)["text"]
    assert "to stderr\n" in dev.get(path, stream="stderr")["text"]
    os.kill(first := scheduler_of(dev.data), signal.SIGKILL)
    until(lambda: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")
    task = dev.get(f"runs/{run}/shards/0/attempts")["items"][0]["taskId"]
    until(lambda: dev.call(path)[0] == 200, "the archive to be open")
    assert "to stdout" in dev.run("logs", task)
    assert "to stdout" in json.loads(dev.run("logs", task, "--json"))["text"]
    assert dev.get("health")["warnings"] == []
