"""The two clusters that the contract suite runs against: the dev cluster, and a real Mesos if there is one."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobcloud.dev.cluster import DevCluster
from mesos_client import Cluster, Framework

COMMAND = "JOBCLOUD_TEST_MESOS"
REGISTRATION_SECONDS = 4
GRACE_SECONDS = 1
KINDS = ["dev", pytest.param("mesos", marks=pytest.mark.mesos)]


def _mesos(work_dir: Path, agents: int, **flags: str) -> Iterator[Cluster]:
    command = shlex.split(os.environ[COMMAND])
    argv = [*command, "up", "--port", "0", "--work-dir", str(work_dir), "--agents", str(agents)]
    argv += ["--resources", "cpus:4;mem:4096;disk:10000;ports:[31000-31999]"]
    env = {**os.environ, **{f"MESOS_{name.upper()}": value for name, value in flags.items()}}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
    try:
        ready, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if ready else ""
        assert line.startswith("ready "), f"no Mesos: {line!r}"
        yield Cluster("mesos", line.split()[1].removeprefix("master="))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


def _start(kind: str, tmp: pytest.TempPathFactory, agents: int, offer_timeout: int | None) -> Iterator[Cluster]:
    if kind == "dev":
        with DevCluster(
            agents=agents,
            allocation_interval_ms=100,
            executor_registration_timeout_ms=REGISTRATION_SECONDS * 1000,
            executor_shutdown_grace_ms=GRACE_SECONDS * 1000,
            offer_timeout_ms=None if offer_timeout is None else offer_timeout * 1000,
        ) as dev:
            yield Cluster("dev", dev.master)
        return
    if COMMAND not in os.environ:
        pytest.skip(f"{COMMAND} does not name the command that starts a Mesos")
    flags = {
        "allocation_interval": "100ms",
        "executor_registration_timeout": f"{REGISTRATION_SECONDS}secs",
        "executor_shutdown_grace_period": f"{GRACE_SECONDS}secs",
    }
    if offer_timeout is not None:
        flags["offer_timeout"] = f"{offer_timeout}secs"
    yield from _mesos(tmp.mktemp("mesos"), agents, **flags)


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two agents of 4 cpus each; shared by the cases of a module, each of which leaves it empty."""
    yield from _start(request.param, tmp_path_factory, 2, None)


@pytest.fixture(scope="module", params=KINDS)
def frail_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Agents to be marked gone, and offers that time out after two seconds."""
    yield from _start(request.param, tmp_path_factory, 3, 2)


@pytest.fixture
def frameworks() -> Iterator[Callable[..., Framework]]:
    """Makes subscribed frameworks, which are torn down after the case."""
    made: list[Framework] = []

    def make(master: str, *capabilities: str, **info: Any) -> Framework:
        framework = Framework(master, *(capabilities or ("PARTITION_AWARE",)), **info)
        made.append(framework)
        return framework.subscribe()

    yield make
    for framework in made:
        framework.teardown()
