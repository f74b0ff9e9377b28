"""The history of a whole dev cluster whose scheduler is killed."""

from __future__ import annotations

import os
import signal

import pytest
from tests.whole_kit import Product, scheduler_of, until

pytestmark = pytest.mark.dev_cluster


def past(dev: Product, kind: str) -> dict[str, str]:
    """The ended runs, or the ended attempts, with their states, from the history. Empty while it is not there."""
    status, body = dev.call(f"history/{kind}", job="sales", limit="1000")
    name, state = {"runs": ("id", "state"), "attempts": ("taskId", "outcome")}[kind]
    return {item[name]: item[state] for item in body["items"]} if status == 200 else {}


def let_it_run_and_kill_it(dev: Product) -> None:
    before, first = len(dev.runs("sales")), scheduler_of(dev.data)
    until(lambda: len(dev.runs("sales")) >= before + 3, "some runs")
    os.kill(first, signal.SIGKILL)
    until(lambda: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")


def test_history_has_every_ended_run_although_the_scheduler_was_killed(dev: Product) -> None:
    dev.start("dev", "--demo", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    until(lambda: dev.call("jobs/sales")[0] == 200, "the demo's job")
    config = {**dev.get("jobs/sales")["config"], "cron": "* * * * * ?"}
    assert dev.call("jobs/sales", "PUT", config)[0] == 200
    for _ in range(2):
        let_it_run_and_kill_it(dev)
    ended = {run["id"]: run for run in dev.runs("sales")}
    until(lambda: ended.keys() <= past(dev, "runs").keys(), "all runs in the history")
    attempts = past(dev, "attempts")
    assert {shard["taskId"] for run in ended.values() for shard in run["shards"]} <= attempts.keys()
    assert {past(dev, "runs")[run] for run in ended} == {"FINISHED"}
    assert "sales" in dev.run("statistics", "sales")
    assert len(dev.json("history", "runs", "sales", "--limit", "3")) == 3
    # Three schedulers have led, some of them perhaps in the same minute.
    steps = dev.json("statistics", "--by", "minute")["steps"]
    samples = [step["sampled"] for step in steps if step["sampled"]]
    assert {sample["samples"] for sample in samples} == {1}
    assert all(sample["cluster"] is not None for sample in samples)
    assert sum(step["attempts"]["succeeded"] for step in steps if step["attempts"]) >= len(ended)
    assert dev.get("health")["warnings"] == []
