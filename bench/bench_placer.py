"""Measures calls of the matcher and of the placer beside another source tree, in turns.

`python bench/bench_placer.py --against SRC [--rounds N] [--json] [NAME …]`. SRC is another source tree with compiled
modules, such as `/path/to/old/src`. Each round measures each tree in a process of its own. The figures are the lowest
CPU time of all rounds. The last column is the figure of this tree divided by that of the other.

match HOSTS     one `match` of all tasks of 8 classes that find a host, per task
by name         `Placer.place` of the tasks of 151 shapes on 1,000 hosts, per placed task
one host H x S  one more host and one placement, next to H hosts and S shapes with constraints
S shapes        S distinct shapes, and one task of each on 1,000 hosts; "in zones": each with one of six constraints
remove_host, snapshot, restore    next to 500,000 tasks on 10,000 hosts
forget          2,000 shapes with a running task are removed
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import workloads

from jobcloud.match import CompiledMatcher
from jobcloud.placer import Placer

DIMENSIONS = ("cpus", "mem", "disk", "gpus")
ZONES = 6
SECONDS = 1.0


def measured(make: Callable[[], Any], run: Callable[[Any], Any], *, most: int = 400) -> float:
    """The fewest CPU seconds that ``run`` takes on a new result of ``make``."""
    best, began, turn = float("inf"), time.perf_counter(), 0
    while turn < 1 or (turn < most and time.perf_counter() - began < SECONDS):
        made = make()
        start = time.process_time()
        run(made)
        best = min(best, time.process_time() - start)
        turn += 1
    return best


def match(hosts: int) -> float:
    workload = workloads.mixed(hosts, 8)
    slots, _ = workloads.load(CompiledMatcher, workload).match(workload.tasks)
    tasks = workload.tasks[slots >= 0]
    return measured(lambda: workloads.load(CompiledMatcher, workload), lambda one: one.match(tasks)) / len(tasks)


def placer(hosts: int) -> Any:
    made = Placer(DIMENSIONS)
    amounts = {"cpus": 64, "mem": 262_144, "disk": 1_600_000, "gpus": 4}
    made.add_hosts([(f"host-{number}", amounts, {"zone": f"z{number % ZONES}"}, ()) for number in range(hosts)])
    return made


def by_name() -> float:
    workload = workloads.mixed(1_000, 151)
    placed = 0

    def make() -> Any:
        made = Placer(DIMENSIONS)
        rows = (workload.hosts // 1_000).tolist()
        made.add_hosts([(f"host-{at}", dict(zip(DIMENSIONS, row, strict=True)), {}, ()) for at, row in enumerate(rows)])
        rows = (workload.requests / 1_000).tolist()
        shapes = [made.shape(dict(zip(DIMENSIONS, row, strict=True))) for row in rows]
        return made, [(f"task-{at}", shapes[cls]) for at, cls in enumerate(workload.tasks.tolist())]

    def run(made: Any) -> None:
        nonlocal placed
        placed = sum(host is not None for _, host in made[0].place(made[1]))

    return measured(make, run) / placed


def one_host(hosts: int, shapes: int) -> float:
    made = placer(hosts)
    ours = [made.shape({"cpus": 1, "mem": 1 + at}, constraints=[f"zone != z{at}"]) for at in range(shapes)]
    made.place([("first", ours[0])])
    number = iter(range(1_000_000))

    def run(at: int) -> None:
        made.add_host(f"more-{at}", {"cpus": 64, "mem": 262_144}, {"zone": "z1"})
        made.place([(f"task-{at}", ours[at % shapes])])

    return measured(lambda: next(number), run, most=20)


def shapes(count: int, *, in_zones: bool) -> float:
    amounts = [{"cpus": 1 + at % 50, "mem": 1 + at // 50, "disk": 1} for at in range(count)]
    options = [{"constraints": [f"zone == z{at % ZONES}"]} if in_zones else {} for at in range(count)]

    def run(made: Any) -> None:
        ours = [made.shape(one, **more) for one, more in zip(amounts, options, strict=True)]
        made.place([(f"task-{at}", shape) for at, shape in enumerate(ours)])

    return measured(lambda: placer(1_000), run, most=3)


def full() -> Any:
    made = placer(10_000)
    ours = [made.shape({"cpus": 1, "mem": 1 + at}) for at in range(20)]
    made.place([(f"task-{at}", ours[at % 20]) for at in range(500_000)])
    return made


def remove_host() -> float:
    made, number = full(), iter(range(10_000))
    return measured(lambda: f"host-{next(number)}", made.remove_host, most=20)


def snapshot() -> float:
    made = full()
    return measured(lambda: made, lambda one: one.snapshot(), most=5)


def restore() -> float:
    data = full().snapshot()
    return measured(lambda: data, Placer.restore, most=5)


def forget() -> float:
    def make() -> Any:
        made = placer(100)
        ours = [made.shape({"cpus": 0, "mem": 1 + at}, group=f"group-{at}") for at in range(2_000)]
        made.place([(f"task-{at}", shape) for at, shape in enumerate(ours)])
        return made, ours

    return measured(make, lambda made: [made[0].remove_shape(shape) for shape in made[1]], most=3)


CASES: dict[str, Callable[[], float]] = {
    "match 10": lambda: match(10),
    "match 100": lambda: match(100),
    "match 1000": lambda: match(1_000),
    "by name": by_name,
    "one host 1000 x 1000": lambda: one_host(1_000, 1_000),
    "one host 20000 x 100": lambda: one_host(20_000, 100),
    "50000 shapes": lambda: shapes(50_000, in_zones=False),
    "5000 shapes in zones": lambda: shapes(5_000, in_zones=True),
    "remove_host": remove_host,
    "snapshot": snapshot,
    "restore": restore,
    "forget": forget,
}


def elsewhere(source: str, name: str) -> float:
    """The same measurement in a process with another source tree."""
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, str(Path(__file__)), "--one", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(CASES)}")
    parser.add_argument("--against", metavar="SRC", help="another source tree")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="machine-readable results, in seconds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(CASES[given.one]())
        return 0
    if unknown := set(given.names) - set(CASES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(CASES)}")
    ours = str(Path(__file__).resolve().parents[1] / "src")
    trees = {"this": ours, **({"other": given.against} if given.against else {})}
    results: dict[str, dict[str, float]] = {}
    for name in given.names or CASES:
        found: dict[str, list[float]] = {tree: [] for tree in trees}
        for _ in range(max(1, given.rounds)):
            for tree, source in trees.items():
                found[tree].append(elsewhere(source, name))
        results[name] = {tree: min(seconds) for tree, seconds in found.items()}
        if not given.json:
            print(_line(name, results[name]), flush=True)
    if given.json:
        print(json.dumps(results))
    return 0


def _line(name: str, seconds: dict[str, float]) -> str:
    figures = "  ".join(f"{tree} {1e6 * figure:14,.3f} us" for tree, figure in seconds.items())
    ratio = f"  {seconds['this'] / seconds['other']:8.3f} x" if "other" in seconds else ""
    return f"{name:22}  {figures}{ratio}"


if __name__ == "__main__":
    sys.exit(main())
