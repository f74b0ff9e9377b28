"""Two teams on a whole dev cluster: a burst of one team stays within its quota and does not stop the other team."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.whole_kit import Product, add_work, until

pytestmark = pytest.mark.dev_cluster

SHARDS, AT_ONCE = 60, 2
LIVE = {"STORED", "STAGING", "STARTING", "RUNNING"}


def test_burst_of_a_team_stays_within_its_quota_beside_another_team(dev: Product, tmp_path: Path) -> None:
    dev.start("dev", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    dev.run("team", "set", "big", "--shards", str(AT_ONCE))
    add_work(dev, tmp_path / "big", "big", "burst", "0 0 0 1 1 ? 2099", SHARDS)
    add_work(dev, tmp_path / "small", "small", "tick", "* * * * * ?", 1)
    until(lambda: dev.runs("small:tick"), "a run of the other team")
    dev.run("job", "trigger", "big:burst")
    before = len(dev.runs("small:tick"))
    seen, told = 0, ""
    while not dev.runs("big:burst"):
        active = [task for task in dev.get("tasks", job="big:burst")["items"] if task["state"] in LIVE]
        seen = max(seen, len(active))
        assert len(active) <= AT_ONCE
        told = told or next(
            (found["text"] for found in dev.get("jobs/big:burst/explain")["reasons"] if "quota" in found["text"]), ""
        )
    assert seen > 0
    assert "quota of team big" in told
    assert len(dev.runs("small:tick")) > before, "the job of every second went on"
    (run,) = dev.runs("big:burst")
    assert run["shardStates"] == {"FINISHED": SHARDS}


# A shard of the burst needs as many cpus as one of the other team with its executor. So each room is room for both.
LARGE, CPUS = 2_000, 0.5


@contextlib.contextmanager
def notices(dev: Product) -> Iterator[list[dict[str, Any]]]:
    """The notices of the scheduler from now on, in their order. More come while the block runs."""
    url, headers = f"http://127.0.0.1:{dev.port}/api/v1/events", {"Authorization": f"Bearer {dev.token()}"}
    found: list[dict[str, Any]] = []
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as stream:

        def read() -> None:
            topic = ""
            with contextlib.suppress(OSError, ValueError, AttributeError):
                for line in stream:
                    name, _, value = line.decode().rstrip().partition(": ")
                    if name == "event":
                        topic = value
                    elif name == "data" and topic in ("fired", "launched"):
                        found.append({"topic": topic, **json.loads(value)})

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        yield found


def launches_before(found: list[dict[str, Any]], small: str, big: str) -> list[int]:
    """For each firing of `small` that was launched: how many launches of `big` came between the two."""
    launches, since, counts = 0, dict[str, int](), list[int]()
    for notice in found:
        if notice["topic"] == "launched" and notice["jobName"] == big:
            launches += 1
        elif notice["jobName"] == small and notice["topic"] == "fired":
            since[notice["runId"]] = launches
        elif notice["jobName"] == small and notice["runId"] in since:
            counts.append(launches - since.pop(notice["runId"]))
    return counts


@pytest.mark.timeout(1_200)  # a busy machine needs more than the usual limit
def test_burst_of_2000_shards_delays_another_team_by_at_most_one_filling_of_the_cluster(
    dev: Product, tmp_path: Path
) -> None:
    dev.start("dev", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    add_work(dev, tmp_path / "big", "big", "burst", "0 0 0 1 1 ? 2099", LARGE, str(CPUS))
    add_work(dev, tmp_path / "small", "small", "tick", "* * * * * ?", 1, str(CPUS - 0.1))
    until(lambda: dev.runs("small:tick"), "a run of the other team")
    with notices(dev) as found:
        dev.run("job", "trigger", "big:burst")
        until(lambda: dev.runs("big:burst"), "the burst", 600)
        (run,) = dev.runs("big:burst")
    assert run["shardStates"] == {"FINISHED": LARGE}
    burst = [index for index, notice in enumerate(found) if notice["jobName"] == "big:burst"]
    counts = launches_before(found[burst[0] : burst[-1] + 1], "small:tick", "big:burst")
    assert len(counts) >= 3, "the job of every second was fired and launched during the burst"
    rooms = int(sum(agent["whole"]["cpuCount"] for agent in dev.get("cluster")["agents"]) / CPUS)
    assert rooms < LARGE / 10
    # In one cycle, the launches on all agents are told one after the other. So those of one cycle may come before.
    assert max(counts) <= rooms, counts
