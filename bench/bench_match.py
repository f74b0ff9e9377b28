"""Compares the compiled matcher with its plain twin and with a careful scan in numpy.

    pytest bench/bench_match.py --benchmark-enable --benchmark-group-by=group

Each workload is a group, so the ratios come from one run on one machine. Each contestant places the same tasks on a new
matcher in every round. All must give the same placements before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bench import workloads
from bench.numpy_scan import NumpyScan
from numpy.typing import NDArray

from jobcloud.match import CompiledMatcher, PlainMatcher

Slots = NDArray[np.int32]
Placer = Callable[[NDArray[np.int64]], Slots]

SIZES = [(10, 8), (100, 8), (100, 151), (1_000, 8), (1_000, 151), (10_000, 8)]


def placer(contestant: str, workload: workloads.Workload) -> Placer:
    if contestant == "numpy":
        return NumpyScan(workload).place
    if contestant == "plain":
        matcher: Any = workloads.load(PlainMatcher, workload)
    else:
        matcher = workloads.load(CompiledMatcher, workload, engine=contestant)
    return lambda tasks: matcher.match(tasks)[0]


def checked_tasks(workload: workloads.Workload, evaluations: int) -> NDArray[np.int64]:
    """Enough tasks for `evaluations` (task, host) pairs, after all contestants placed the first ones equally."""
    hosts = len(workload.hosts)
    few = workload.tasks[: max(20, 200_000 // hosts)]
    answers = [placer(contestant, workload)(few).tolist() for contestant in ("index", "scan", "numpy", "plain")]
    assert answers[0] == answers[1] == answers[2] == answers[3]
    return workload.tasks[: max(20, evaluations // hosts)]


def time_placements(
    benchmark: Any, group: str, contestant: str, workload: workloads.Workload, evaluations: int
) -> None:
    tasks = checked_tasks(workload, evaluations)
    benchmark.group = f"{group}: {workload.name}, {len(tasks)} tasks"
    slots = benchmark.pedantic(
        lambda place: place(tasks), setup=lambda: ((placer(contestant, workload),), {}), rounds=3, iterations=1
    )
    placed = int((slots >= 0).sum())
    if benchmark.stats is not None:
        benchmark.extra_info |= {
            "placed": placed,
            "ns_per_placement": round(benchmark.stats.stats.median / placed * 1e9),
        }


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}-hosts-{size[1]}-classes")
def workload(request: pytest.FixtureRequest) -> workloads.Workload:
    return workloads.mixed(*request.param)


@pytest.mark.parametrize("contestant", ["index", "scan", "numpy"])
def test_against_two_scans(benchmark: Any, contestant: str, workload: workloads.Workload) -> None:
    time_placements(benchmark, "scans", contestant, workload, 20_000_000)


@pytest.mark.parametrize("contestant", ["index", "plain"])
def test_against_the_twin(benchmark: Any, contestant: str, workload: workloads.Workload) -> None:
    time_placements(benchmark, "plain twin", contestant, workload, 200_000)


def test_churn(benchmark: Any) -> None:
    """1,000 hosts with 20 apps; in each round 500 tasks end and 500 start."""
    workload = workloads.mixed(1_000, 151, apps=20)
    matcher = workloads.load(CompiledMatcher, workload)
    _, ids = matcher.match(workload.tasks)
    live = ids[ids >= 0]
    benchmark.group = "churn"

    def one_round() -> None:
        nonlocal live
        matcher.release(live[:500])
        _, started = matcher.match(workload.tasks[:500])
        live = np.concatenate((live[500:], started[started >= 0]))

    benchmark.pedantic(one_round, rounds=20, iterations=1)
    matcher.check()
