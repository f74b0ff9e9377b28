"""The two kinds of clusters that the contract suite runs on: the dev cluster and a real Mesos."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mesos_client import Cluster

from jobcloud.dev.cluster import DevCluster

COMMAND = "JOBCLOUD_TEST_MESOS"
REGISTRATION_S = 8
GRACE_S = 1
RESOURCES = "cpus:4;mem:4096;disk:10000;ports:[31000-31999]"
KINDS = [pytest.param("dev"), pytest.param("mesos", marks=pytest.mark.mesos)]


def start_cluster(
    kind: str,
    temporary: pytest.TempPathFactory,
    agents: int,
    offer_timeout_s: int | None = None,
    resources: str = RESOURCES,
) -> Iterator[Cluster]:
    """Yield a running cluster of agents with these resources, and stop it afterwards."""
    if kind == "dev":
        with DevCluster(
            agents=agents,
            resources=resources,
            allocation_interval_ms=100,
            executor_registration_timeout_ms=REGISTRATION_S * 1000,
            executor_shutdown_grace_ms=GRACE_S * 1000,
            offer_timeout_ms=None if offer_timeout_s is None else offer_timeout_s * 1000,
        ) as dev:
            yield Cluster("dev", dev.master)
        return
    if COMMAND not in os.environ:
        pytest.skip(f"{COMMAND} does not name the command that starts a Mesos")
    flags = {
        "allocation_interval": "100ms",
        "executor_registration_timeout": f"{REGISTRATION_S}secs",
        "executor_shutdown_grace_period": f"{GRACE_S}secs",
    }
    if offer_timeout_s is not None:
        flags["offer_timeout"] = f"{offer_timeout_s}secs"
    yield from _start_mesos(temporary.mktemp("mesos"), agents, flags, resources)


def _start_mesos(work_dir: Path, agents: int, flags: dict[str, str], resources: str) -> Iterator[Cluster]:
    command = shlex.split(os.environ[COMMAND])
    argv = [*command, "up", "--port", "0", "--work-dir", str(work_dir), "--agents", str(agents)]
    argv += ["--resources", resources]
    env = {**os.environ, **{f"MESOS_{name.upper()}": value for name, value in flags.items()}}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 120)
            line = process.stdout.readline() if ready else ""
            assert line.startswith("ready "), f"no Mesos: {line!r}"
            yield Cluster("mesos", line.split()[1].removeprefix("master="))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
