"""Counts the work of the core for workflows, as Python calls, which do not depend on the machine.

    python bench/bench_workflows.py [--quick] [--json]

waiting  one scheduling cycle that launches a shard, without workflows and with 10,000 runs of a workflow of 100 nodes,
         of which all but one wait. The firings are the same. The counts must be equal.
ends     the end of the first node's run, with a workflow of 10 and of 200 nodes, of which one follows. They must be
         equal.
joined   the end of one shard of a node with 1,000 and with 10,000 shards, with which another node is joined per shard.
         They must be equal, so the whole costs O(shards).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.bench_cycle import START, Shell, job, launches, status_of

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.config import App, Package
from jobcloud.messages import PutApp, PutJob, PutWorkflow, Tick, Trigger
from jobcloud.model import After, Join, Node, Workflow

RUNS, NODES, RUNS_OF_JOB = 10_000, 100, 100


def chain(start: str, nodes: int) -> Workflow:
    """A workflow of two nodes in a row, and others that wait for the second."""
    first, second = Node("start", start), Node("second", "other", (After("start"),))
    rest = (Node(f"n{number}", "other", (After("second"),)) for number in range(nodes - 2))
    return Workflow(f"w-{start}", (first, second, *rest), "start")


def prepared(runs: int, nodes: int) -> Shell:
    """A core with `runs` unfinished firings of jobs that fit nowhere, each a run of a workflow if it has `nodes`."""
    shell = Shell(MemoryStore(MemoryServer()))
    shell.do(PutApp(shell.at, App("app0", Package("package:sha256:", f"{0:064x}"))))
    for name in ("other", "small"):
        shell.do(PutJob(shell.at, job(name, "app0", 1)))
    for number in range((runs + RUNS_OF_JOB - 1) // RUNS_OF_JOB):
        shell.do(PutJob(shell.at, job(f"start{number}", "app0", 1)))
        if nodes:
            shell.do(PutWorkflow(shell.at, chain(f"start{number}", nodes)))
        for _ in range(min(RUNS_OF_JOB, runs - number * RUNS_OF_JOB)):
            shell.do(Trigger(shell.at, f"start{number}"))
    shell.do(Tick(shell.at))
    return shell


def calls(do: Callable[[], Any]) -> int:
    """The number of Python and C functions that `do` calls, without those of a garbage collection."""
    number = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    gc.disable()  # libraries have callbacks there, such as hypothesis
    sys.setprofile(count)
    try:
        do()
    finally:
        sys.setprofile(None)
        gc.enable()
    return number


def calls_of_a_cycle(runs: int, nodes: int) -> int:
    """The calls of a cycle that launches one shard, while no other shard may start."""
    shell = prepared(runs, nodes)
    for number in range((runs + RUNS_OF_JOB - 1) // RUNS_OF_JOB):
        shell.scheduler._state.faults[f"start{number}"] = "held for the count"
    shell.at = START + 60_000
    shell.do(Trigger(shell.at, "small"), shell.offers(["a1"], 8, 8_192))
    tick = Tick(shell.at)
    return calls(lambda: shell.scheduler.handle(tick))


def calls_of_an_end(nodes: int) -> int:
    """The calls of the end of a shard whose run is the first node of a workflow."""
    shell = prepared(1, nodes)
    shell.do(shell.offers(["a1"], 8, 8_192))
    [one] = launches(shell.do(Tick(shell.at)))
    shell.do(status_of(shell.at, one, "TASK_RUNNING"))
    ended = status_of(shell.at, one, "TASK_FINISHED")
    return calls(lambda: shell.scheduler.handle(ended))


def calls_of_a_joined_end(width: int) -> int:
    """The calls of the end of a shard with which a shard of the next node is joined."""
    shell = Shell(MemoryStore(MemoryServer()))
    shell.do(PutApp(shell.at, App("app0", Package("package:sha256:", f"{0:064x}"))))
    for name in ("first", "second"):
        shell.do(PutJob(shell.at, job(name, "app0", width)))
    nodes = Node("first", "first"), Node("second", "second", (After("first"),), Join.SHARDS)
    shell.do(PutWorkflow(shell.at, Workflow("w", nodes, "first")))
    shell.do(Trigger(shell.at, "first"))
    shell.do(Tick(shell.at))
    shell.do(shell.offers(["a1"], 64, 65_536))
    launched = launches(shell.do(Tick(shell.at)))
    for one in launched[:3]:
        shell.do(status_of(shell.at, one, "TASK_RUNNING"))
    for one in launched[:2]:
        shell.do(status_of(shell.at, one, "TASK_FINISHED"))
    ended = status_of(shell.at, launched[2], "TASK_FINISHED")
    return calls(lambda: shell.scheduler.handle(ended))


def figures(runs: int = RUNS, nodes: int = NODES) -> dict[str, int]:
    calls_of_a_cycle(1, 0)  # fills the caches of functions
    return {
        "cycle_calls": calls_of_a_cycle(runs, 0),
        "cycle_calls_with_workflows": calls_of_a_cycle(runs, nodes),
        "end_calls": calls_of_an_end(10),
        "end_calls_of_a_large_workflow": calls_of_an_end(200),
        "joined_end_calls": calls_of_a_joined_end(1_000),
        "joined_end_calls_of_a_wide_node": calls_of_a_joined_end(10_000),
    }


def faults(found: dict[str, int]) -> list[str]:
    """What is not equal."""
    pairs = (
        ("cycle_calls", "cycle_calls_with_workflows"),
        ("end_calls", "end_calls_of_a_large_workflow"),
        ("joined_end_calls", "joined_end_calls_of_a_wide_node"),
    )
    return [f"{more} is {found[more]}, {base} is {found[base]}" for base, more in pairs if found[base] != found[more]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 runs instead of 10,000")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = figures(200 if asked.quick else RUNS)
    wrong = faults(found)
    if asked.json:
        print(json.dumps(found | {"faults": wrong}))
    else:
        print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
        print(*(f"LOST: {fault}" for fault in wrong), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
