"""Named, seeded clusters and job mixes for benchmarks and tests. The same name gives the same numbers everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 4  # cpus, mem (MB), disk (MB), gpus; in thousandths

# (cpus, memory MB, disk MB, gpus) of typical machines of a mixed private cluster
HOST_TYPES = (
    (16, 65_536, 400_000, 0),
    (32, 131_072, 800_000, 0),
    (64, 262_144, 1_600_000, 0),
    (32, 262_144, 800_000, 4),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """``hosts`` int64[H, D] capacities, ``requests`` int64[C, D] by class, ``tasks`` int64[T] class indices in order.

    ``keys[c]``: the shared key of class c, or -1. ``shared`` int64[D]: the amounts of each key per host.
    """

    name: str
    hosts: NDArray[np.int64]
    requests: NDArray[np.int64]
    tasks: NDArray[np.int64]
    keys: tuple[int, ...]
    shared: NDArray[np.int64]


def mixed(hosts: int, classes: int, *, apps: int = 0, seed: int = 1) -> Workload:
    """A mixed cluster and about ten tasks per host (4,000 to 300,000) of ``classes`` shapes in random order."""
    chance = random.Random(f"{hosts}/{classes}/{apps}/{seed}")
    capacities = [chance.choice(HOST_TYPES) for _ in range(hosts)]
    requests = [_request(chance) for _ in range(classes)]
    tasks = [chance.randrange(classes) for _ in range(min(max(10 * hosts, 4_000), 300_000))]
    return Workload(
        name=f"{hosts} hosts, {classes} classes" + (f", {apps} apps" if apps else ""),
        hosts=_thousandths(capacities),
        requests=_thousandths(requests),
        tasks=np.array(tasks, dtype=np.int64),
        keys=tuple(c % apps if apps else -1 for c in range(classes)),
        shared=_thousandths([(0.1, 64, 10, 0)])[0],
    )


def of_one_task_each(workload: Workload) -> Workload:
    """The same hosts and number of tasks, but each task is its own class."""
    chance = random.Random(f"one each/{workload.name}")
    count = len(workload.tasks)
    requests = _thousandths(
        [(chance.randrange(100, 5_000) / 1_000, chance.randrange(64, 9_000), 100, 0) for _ in range(count)]
    )
    return Workload(
        name=f"{workload.name}, one task each",
        hosts=workload.hosts,
        requests=requests,
        tasks=np.arange(count, dtype=np.int64),
        keys=(-1,) * count,
        shared=workload.shared,
    )


def two_apps(cpus: int, mem_units: int) -> Workload:
    """Elastic-Job-Cloud's test case: 20 tasks of 1 cpu and 128 MB of two apps in turn; executors of the same size."""
    one = (1, 128, 0, 0)
    return Workload(
        name=f"two agents of {cpus} cpus and {mem_units} x 128 MB",
        hosts=_thousandths([(cpus, 128 * mem_units, 0, 0)] * 2),
        requests=_thousandths([one, one]),
        tasks=np.array([0, 1] * 10, dtype=np.int64),
        keys=(0, 1),
        shared=_thousandths([one])[0],
    )


def load(matcher_type: Any, workload: Workload, **options: Any) -> Any:
    """A matcher of ``matcher_type`` with the hosts and classes of the workload; their numbers are their indices."""
    matcher = matcher_type(workload.hosts.shape[1], **options)
    for capacity in workload.hosts:
        matcher.add_host(capacity)
    for request, key in zip(workload.requests, workload.keys, strict=True):
        matcher.add_class(request, shared_key=key, shared=workload.shared if key >= 0 else None)
    return matcher


def _request(chance: random.Random) -> tuple[float, int, int, int]:
    gpus = 1 if chance.random() < 0.05 else 0
    cpus = chance.choice((0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8))
    return cpus, chance.choice((64, 128, 256, 512, 1_000, 2_048, 4_096, 16_000)), chance.randrange(10, 2_000), gpus


def _thousandths(rows: Sequence[tuple[float, ...]]) -> NDArray[np.int64]:
    return np.array([[round(1_000 * amount) for amount in row] for row in rows], dtype=np.int64)
