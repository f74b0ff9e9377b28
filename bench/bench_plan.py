"""Measures how near the planner comes to the bound of the configuration LP, on batches of few shapes or on CSV files.

    python bench/bench_plan.py [--seeds N] [--seconds S] [--out FILE]
    python bench/bench_plan.py --hosts HOSTS.csv --tasks TASKS.csv [--seconds S]

The batches: 20, 60 or 160 shapes of 4 or 5 dimensions, typical of clouds (cpus in powers of two, memory in fixed
ratios, a disk for some, gpus or network for few), 500 to 20,000 tasks. The independent checker verifies every answer.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jobcloud.planning.packing import fewest
from jobcloud.planning.problem import HostKind, Problem, Source, TaskKind, build, join
from jobcloud.planning.tables import read_hosts, read_tasks
from jobcloud.planning.verify import verify

HOSTS = ((64_000, 262_144, 2_000_000, 8_000, 25_000), (96_000, 393_216, 3_000_000, 4_000, 50_000))


def batch(shapes: int, dimensions: int, seed: int) -> Problem:
    chance = random.Random(f"{shapes}/{dimensions}/{seed}")
    kinds = []
    for number in range(shapes):
        cpus = 1_000 * chance.choice((1, 1, 2, 2, 4, 4, 8, 16)) // chance.choice((1, 1, 2, 4))
        shape = (
            cpus,
            cpus * chance.choice((1_024, 2_048, 4_096, 6_144, 8_192)) // 1_000,
            chance.choice((0, 0, 20_000, 50_000, 100_000)),
            chance.choice((0,) * 9 + (1_000,)),
            chance.choice((0, 0, 0, 500, 1_000)),
        )
        kinds.append(TaskKind(f"job{number}", shape[:dimensions], chance.choice((5, 20, 50, 200)) * 160 // shapes))
    names = ["cpus", "mem_mb", "disk_mb", "gpus", "net_mbps"][:dimensions]
    return build(names, [HostKind("host", chance.choice(HOSTS)[:dimensions], {}, 1)], kinds)


def rows(seeds: int, seconds: float) -> Iterator[tuple[int, int, int, int, int, int, float]]:
    """(shapes, dimensions, seed, tasks, hosts, bound, seconds taken)."""
    for shapes in (20, 60, 160):
        for dimensions in (4, 5):
            for seed in range(seeds):
                problem = batch(shapes, dimensions, seed)
                began = time.perf_counter()
                found = fewest(problem, 0, seconds=seconds)
                taken = time.perf_counter() - began
                verify(problem, found.packing)
                yield shapes, dimensions, seed, problem.tasks, found.hosts, found.bound.hosts, taken


def from_files(hosts_file: Path, tasks_file: Path, seconds: float) -> str:
    """The hosts found for the tasks of a file, the bound and the time taken, as a sentence."""
    hosts, tasks = read_hosts(hosts_file), read_tasks(tasks_file)
    kinds = [HostKind(row.id, row.amounts, row.attributes, row.copies) for row in hosts.rows]
    demand = [TaskKind(row.job, row.amounts, row.copies, row.rules) for row in tasks.rows]
    problem = join(Source(hosts.source, hosts.dimensions), kinds, Source(tasks.source, tasks.dimensions), demand)
    began = time.perf_counter()
    found = fewest(problem, 0, seconds=seconds)
    verify(problem, found.packing)
    taken = time.perf_counter() - began
    bound = found.bound
    return f"{problem.tasks} tasks: {found.hosts} hosts, at least {bound.hosts} ({bound.how}), {taken:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hosts", type=Path)
    parser.add_argument("--tasks", type=Path)
    given = parser.parse_args()
    if given.hosts and given.tasks:
        print(from_files(given.hosts, given.tasks, given.seconds))
        return 0
    lines = ["| shapes | dimensions | seed | tasks | hosts | LP bound | over | seconds |", "|" + " --- |" * 8]
    at_bound = total = broken = 0
    for shapes, dimensions, seed, tasks, hosts, bound, taken in rows(given.seeds, given.seconds):
        total += 1
        at_bound += hosts == bound
        broken += hosts - bound > max(1, bound * 0.005) or taken > 10
        lines.append(
            f"| {shapes} | {dimensions} | {seed} | {tasks} | {hosts} | {bound} | {hosts - bound} | {taken:.1f} |"
        )
        print(lines[-1], flush=True)
    verdict = f"{at_bound} of {total} at the bound; {broken} over by more than one host and 0.5 %, or longer than 10 s"
    print(verdict)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        head = f"# The planner on batches of few shapes, {given.seconds:g} s each\n\n{verdict}.\n\n"
        given.out.write_text(head + "\n".join(lines) + "\n")
    return 1 if broken or at_bound < 0.9 * total else 0


if __name__ == "__main__":
    sys.exit(main())
