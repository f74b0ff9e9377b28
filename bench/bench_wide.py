"""Measures whether the cost of a shard depends on the number of shards of its run.

`python bench/bench_wide.py [--json] [--against SRC]`. The core, the encoding of records and the SQLite store take part,
as in bench_cycle.py. `--against` measures another source tree in turns with this one, such as `/path/to/old/src`.

ended     CPU time per shard of a run whose shards all fail with a message of 4,000 characters, for runs of few and of
          many shards. 100 shards run at a time; updates arrive in batches of 20.
beside    a job of one shard is triggered with each batch of 50 ended shards of a run of 5,000: the time from the batch
          to its ACCEPT, if the 5,000 shards fail and if they succeed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.bench_cycle import POLICY, SECOND, Shell, launches

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.config import App, Job, JobKind, JobType, Package, Resources
from jobcloud.messages import PutApp, PutJob, Status, StatusReceived, Tick, Trigger

MESSAGE = "x" * 4_000
SLOTS, BATCH = 100, 20
WIDTHS = (10, 100, 1_000, 10_000)
SHARDS = 10_000
BESIDE = 5_000
# The old form needs minutes for more.
OLD_LIMIT_S = 20.0


def shell_in(folder: str, *jobs: Job) -> Shell:
    shell = Shell(SqliteStore(Path(folder) / "jobcloud.db"), POLICY)
    need = Resources(100, 32_000)
    shell.do(PutApp(shell.at, App("shop", Package("http://packages/shop.zip", "a" * 64), resources=need)))
    shell.do(*(PutJob(shell.at, job) for job in jobs))
    return shell


def job(name: str, shards: int, priority: int = 0) -> Job:
    return Job(
        name, "shop", JobKind.TRANSIENT, JobType.SIMPLE, "0 0 0 1 1 ? 2099", shards, Resources(1_500, 64_000),
        job_class="shop:Job", priority=priority,
    )  # fmt: skip


def update(at: int, task_id: str, state: str, message: str = "") -> StatusReceived:
    return StatusReceived(at, Status(task_id, task_id.split("@-@")[3], state, "u", message=message))


def agents(slots: int) -> list[str]:
    return [f"agent-{number}" for number in range(slots)]


def ended(width: int, limit_s: float) -> float:
    """CPU microseconds per shard. At most SHARDS shards end, in at most `limit_s` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        shell = shell_in(folder, *(job(f"job{number}", width) for number in range(-(-SHARDS // width))))
        done, running = 0, list[str]()
        began, cpu = time.perf_counter(), time.process_time()
        for number in range(-(-SHARDS // width)):
            left = width
            shell.at += SECOND
            events: list[Any] = [Trigger(shell.at, f"job{number}")]
            while left and time.perf_counter() - began < limit_s:
                shell.at += 10
                free = agents(min(SLOTS, width) - len(running))
                fresh = [one.task_id for one in launches(shell.do(*events, shell.offers(free, 2, 128), Tick(shell.at)))]
                shell.do(*(update(shell.at, one, "TASK_RUNNING") for one in fresh))
                running += fresh
                events = [update(shell.at, one, "TASK_FAILED", MESSAGE) for one in running[:BATCH]]
                done, left, running = done + len(events), left - len(events), running[BATCH:]
            shell.do(*events)
        taken = time.process_time() - cpu
        shell.store.close()
    return taken / done * 1e6


def beside(state: str, message: str, limit_s: float) -> dict[str, float]:
    """Milliseconds from a batch of updates to the ACCEPT of the small job that was triggered with it."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        shell = shell_in(folder, job("wide", BESIDE), job("small", 1, priority=5))
        running: list[str] = []
        events: list[Any] = [Trigger(shell.at, "wide")]
        began = time.perf_counter()
        for _ in range(BESIDE // 50 + 4):
            shell.at += SECOND
            free = shell.offers(agents(250 - len(running)), 2, 128)
            start = time.perf_counter()
            made = launches(shell.do(*events, Trigger(shell.at, "small"), free, Tick(shell.at)))
            taken.append((time.perf_counter() - start) * 1e3)
            fresh = [one.task_id for one in made]
            assert any(name.startswith("small@-@") for name in fresh), "the small job did not start"
            shell.do(*(update(shell.at, one, "TASK_RUNNING") for one in fresh))
            small = [name for name in fresh if name.startswith("small@-@")]
            running += [name for name in fresh if not name.startswith("small@-@")]
            events = [*(update(shell.at, one, state, message) for one in running[:50]),
                      *(update(shell.at, one, "TASK_FINISHED") for one in small)]  # fmt: skip
            running = running[50:]
            if time.perf_counter() - began > limit_s:
                break
        shell.store.close()
    taken.sort()
    return {"p50_ms": round(taken[len(taken) // 2], 2), "p99_ms": round(taken[int(len(taken) * 0.99)], 2)}


def measure(what: str, limit_s: float) -> Any:
    kind, _, value = what.partition(":")
    if kind == "ended":
        return ended(int(value), limit_s)
    return beside(value, MESSAGE if value == "TASK_FAILED" else "", limit_s)


def elsewhere(source: str, what: str) -> Any:
    """The same measurement in a process with another source tree."""
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, str(Path(__file__)), "--one", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="machine-readable results")
    parser.add_argument("--against", metavar="SRC", help="another source tree")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, OLD_LIMIT_S)))
        return 0
    ours = str(Path(__file__).resolve().parents[1] / "src")
    trees = {"this": ours, **({"other": given.against} if given.against else {})}
    wanted = [*(f"ended:{width}" for width in WIDTHS), "beside:TASK_FINISHED", "beside:TASK_FAILED"]
    results = {what: {name: elsewhere(tree, what) for name, tree in trees.items()} for what in wanted}
    if given.json:
        print(json.dumps(results))
        return 0
    for what, found in results.items():
        print(what, *(f"{name}: {value if isinstance(value, dict) else round(value)}" for name, value in found.items()))
    for name in trees:
        ratio = results[f"ended:{WIDTHS[-1]}"][name] / results["ended:100"][name]
        late = results["beside:TASK_FAILED"][name]["p99_ms"] / results["beside:TASK_FINISHED"][name]["p99_ms"]
        print(f"{name}: 10,000 shards cost {ratio:.2f} x 100 shards; p99 beside failing shards {late:.2f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
