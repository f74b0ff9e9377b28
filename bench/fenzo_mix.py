"""Writes workloads like those of the measurements of Netflix Fenzo, as CSV files.

    python bench/fenzo_mix.py --out DIR [--seed N] [NAME …]

Tasks: cpus {0.1, 0.25, 0.5, 1, 2, 4} with weights {25, 25, 20, 15, 10, 5}, memory {64 … 4096} MB with weights
{10, 15, 20, 20, 20, 10, 5}, independent. Hosts: 16, 24, 32, 48 or 64 cpus, 64 to 256 GB. P: hosts have 0.5, 1 or 2 GB
per cpu, and tasks arrive until the first dimension is 97 % demanded, so that two dimensions are scarce.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterator
from pathlib import Path

CPUS, CPU_WEIGHTS = (100, 250, 500, 1_000, 2_000, 4_000), (25, 25, 20, 15, 10, 5)  # thousandths
MEMORY, MEMORY_WEIGHTS = (64, 128, 256, 512, 1_024, 2_048, 4_096), (10, 15, 20, 20, 20, 10, 5)  # MB
HOST_CPUS = (16, 24, 32, 48, 64)
HOST_MEMORY = (65_536, 98_304, 131_072, 196_608, 262_144)
MEMORY_PER_CPU = (512, 1_024, 2_048)  # MB, of the hosts of P

# name: hosts, tasks; no number of tasks if the demand decides
SIZES: dict[str, tuple[int, int | None]] = {
    "S": (10, 4_000),
    "M": (100, 10_000),
    "L10k": (1_000, 10_000),
    "L50k": (1_000, 50_000),
    "XL": (5_000, 50_000),
    "XXL": (10_000, 100_000),
    "P100": (100, None),
    "P500": (500, None),
}
DEMAND_PERCENT = 97

Amounts = tuple[int, int]  # cpus in thousandths, memory in MB


def workload(name: str, seed: int) -> tuple[list[Amounts], list[Amounts]]:
    """Hosts and tasks of one of ``SIZES``. The same seed gives the same rows everywhere."""
    count, tasks = SIZES[name]
    chance = random.Random(f"{name}/{seed}")
    cpus = [chance.choice(HOST_CPUS) for _ in range(count)]
    if tasks is None:
        hosts = [(1_000 * c, c * chance.choice(MEMORY_PER_CPU)) for c in cpus]
        return hosts, list(_until_demanded(chance, hosts))
    hosts = [(1_000 * c, chance.choice(HOST_MEMORY)) for c in cpus]
    return hosts, [_task(chance) for _ in range(tasks)]


def _task(chance: random.Random) -> Amounts:
    return chance.choices(CPUS, CPU_WEIGHTS)[0], chance.choices(MEMORY, MEMORY_WEIGHTS)[0]


def _until_demanded(chance: random.Random, hosts: list[Amounts]) -> Iterator[Amounts]:
    left = [sum(host[d] for host in hosts) * DEMAND_PERCENT // 100 for d in range(2)]
    while True:
        task = _task(chance)
        left = [have - asked for have, asked in zip(left, task, strict=True)]
        if min(left) < 0:
            return
        yield task


def write(folder: Path, name: str, seed: int) -> None:
    hosts, tasks = workload(name, seed)
    for kind, letter, rows in (("hosts", "h", hosts), ("tasks", "t", tasks)):
        with (folder / f"{name}.{kind}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("id", "cpus", "mem_mb"))
            writer.writerows((f"{letter}{i:07d}", f"{c / 1_000:.2f}", m) for i, (c, m) in enumerate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SIZES)}; default: all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SIZES):
        parser.error(f"unknown workloads {', '.join(sorted(unknown))}; known are {', '.join(SIZES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or SIZES:
        write(arguments.out, name, arguments.seed)


if __name__ == "__main__":
    main()
