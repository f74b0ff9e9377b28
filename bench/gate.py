"""Checks the matcher's speed, as ratios of one run, and its work and that of workflows, as counts. Fails on a loss.

    python bench/gate.py [--quick] [--json]

For each workload, the index places all tasks; the plain scan and the numpy scan place as many as fit a time limit.
First the gate checks that all choose the same hosts. Placements and refusals are timed separately: first only the
tasks that found a host (they get the same host without the others), then, on the filled index, the tasks that found
none. Times are the fastest of several interleaved runs. The floors are far below the ratios of an idle machine, so
that only a real loss fails. The number of scores is the same on every machine, so the counts are checked exactly;
lower them when the matcher needs fewer scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import bench_workflows, workloads
from bench.numpy_scan import NumpyScan

from jobcloud.match import CompiledMatcher, vector_path

SCAN_WORK = 60_000_000  # hosts x tasks for the plain scan
NUMPY_WORK = 4_000_000
ROUNDS, MAX_ROUNDS, SECONDS = 4, 40, 0.5
FEW_REFUSED = 1_000


@dataclass(frozen=True, slots=True)
class Case:
    """A workload. ``floor``: the minimum ratio to the plain scan. ``evaluations``: the scores for all its tasks."""

    hosts: int
    classes: int
    floor: float
    evaluations: int


CASES = (
    Case(10, 8, 0.6, 1_640),
    Case(10, 151, 0.6, 2_940),
    Case(100, 8, 1.0, 5_809),
    Case(100, 151, 0.6, 141_210),
    Case(1_000, 8, 2.0, 47_177),
    Case(1_000, 151, 1.0, 690_882),
    Case(1_000, 10_000, 0.6, 10_000_000),  # every task is its own class
    Case(10_000, 8, 15.0, 486_583),
    Case(10_000, 151, 4.0, 6_408_444),
    Case(100_000, 8, 80.0, 2_662_280),
    Case(100_000, 151, 30.0, 46_517_984),
)
QUICK = 10_000  # hosts
EXPONENT = 0.25  # of the cost per placement, from 1,000 to 100,000 hosts with 8 classes
EXPONENT_MARGIN = 0.15
RELEASE_NS = 500
CHURN_MS = 1.0
TIMES_FEW = 2.0  # a round next to 45,000 running tasks over one next to 9,000
MARGIN = 2.0  # on the absolute times, for a busy machine
CLAIM_BYTES = 64
TABLE_BYTES = 4.5


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a case: ns per placement, and per refusal with the index; None if too few tasks are refused."""

    hosts: int
    classes: int
    tasks: int
    placed: int
    index_ns: float
    refusal_ns: float | None
    scan_ns: float
    numpy_ns: float
    times_scan: float
    times_numpy: float
    evaluations: int
    table_bytes_per_host: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"no workload of more than {QUICK} hosts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    faults: list[str] = []
    rows = []
    if not arguments.json:
        print(f"vector code: {vector_path()}")
        print("  hosts classes  placed of  tasks  index ns refusal ns    scan ns    numpy ns   x scan  x numpy  scores")
    for case in CASES:
        if arguments.quick and case.hosts > QUICK:
            continue
        rows.append(row := measure(case))
        faults += check_case(case, row)
        if not arguments.json:
            print(_line(row))
    figures = life_cycle()
    faults += check_life_cycle(figures) + check_growth(rows)
    counts = bench_workflows.figures()
    figures |= counts
    faults += bench_workflows.faults(counts)
    if arguments.json:
        print(json.dumps({"path": vector_path(), "rows": [asdict(r) for r in rows], "faults": faults} | figures))
    else:
        print(*(f"{name}: {value:.3f}" for name, value in figures.items()), sep="\n")
        print(*(f"LOST: {fault}" for fault in faults), sep="\n")
    return 1 if faults else 0


def measure(case: Case) -> Row:
    workload = _workload(case)
    samples = {name: max(20, work // case.hosts) for name, work in (("scan", SCAN_WORK), ("numpy", NUMPY_WORK))}
    tasks = {name: workload.tasks[:length] for name, length in samples.items()} | {"index": workload.tasks}
    makers: dict[str, Callable[[], Any]] = {
        "index": lambda: workloads.load(CompiledMatcher, workload).match,
        "scan": lambda: workloads.load(CompiledMatcher, workload, engine="scan").match,
        "numpy": lambda: NumpyScan(workload).place,
    }
    slots = {name: _slots(make()(tasks[name])) for name, make in makers.items()}
    for name, length in samples.items():
        assert np.array_equal(slots["index"][:length], slots[name]), f"{name} chooses other hosts than the index"
    refused = workload.tasks[slots["index"] < 0]
    for name, make in makers.items():
        there = slots[name] >= 0
        tasks[name] = tasks[name][there]
        assert np.array_equal(_slots(make()(tasks[name])), slots[name][there]), f"{name}: refusals change placements"

    def filled() -> Any:
        matcher = workloads.load(CompiledMatcher, workload)
        matcher.match(tasks["index"])
        return matcher.match

    if len(refused) >= FEW_REFUSED:
        assert (_slots(filled()(refused)) < 0).all()
        makers["refusals"], tasks["refusals"] = filled, refused
    best = _fastest(makers, tasks)
    ns = {name: seconds / max(1, len(tasks[name])) * 1e9 for name, seconds in best.items()}
    matcher = workloads.load(CompiledMatcher, workload)
    matcher.match(workload.tasks)
    tables = max(1, min(case.classes, len(workload.tasks)))
    return Row(
        hosts=case.hosts,
        classes=case.classes,
        tasks=len(workload.tasks),
        placed=int((slots["index"] >= 0).sum()),
        index_ns=ns["index"],
        refusal_ns=ns.get("refusals"),
        scan_ns=ns["scan"],
        numpy_ns=ns["numpy"],
        times_scan=ns["scan"] / ns["index"],
        times_numpy=ns["numpy"] / ns["index"],
        evaluations=matcher.evaluations,
        table_bytes_per_host=matcher.memory()["index"] / tables / case.hosts,
    )


def _fastest(makers: dict[str, Callable[[], Any]], tasks: dict[str, Any]) -> dict[str, float]:
    """The fastest of many short or few long runs, in rotating order, because each run affects the next one."""
    best = dict.fromkeys(makers, float("inf"))
    names, began, turn = list(makers), time.perf_counter(), 0
    while turn < ROUNDS or (turn < MAX_ROUNDS and time.perf_counter() - began < SECONDS):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if turn > 0 and best[name] > SECONDS:
                continue
            place = makers[name]()
            start = time.perf_counter()
            place(tasks[name])
            best[name] = min(best[name], time.perf_counter() - start)
        turn += 1
    return best


def _slots(answer: Any) -> Any:
    return answer[0] if isinstance(answer, tuple) else answer


def _workload(case: Case) -> workloads.Workload:
    workload = workloads.mixed(case.hosts, case.classes)
    if case.classes < len(workload.tasks):
        return workload
    return workloads.of_one_task_each(workload)


def check_case(case: Case, row: Row) -> list[str]:
    what = f"{case.hosts} hosts, {case.classes} classes"
    faults = []
    if row.times_scan < case.floor:
        faults.append(f"{what}: {row.times_scan:.2f} times the plain scan, below {case.floor}")
    if row.evaluations > case.evaluations:
        faults.append(f"{what}: {row.evaluations} scores computed, above {case.evaluations}")
    if case.hosts >= 1_000 and row.table_bytes_per_host > TABLE_BYTES:
        faults.append(f"{what}: {row.table_bytes_per_host:.2f} bytes of index per host and class, above {TABLE_BYTES}")
    return faults


def check_growth(rows: list[Row]) -> list[str]:
    ns = {row.hosts: row.index_ns for row in rows if row.classes == 8}
    if 100_000 not in ns:
        return []
    exponent = float(np.log(ns[100_000] / ns[1_000]) / np.log(100))
    if exponent > EXPONENT + EXPONENT_MARGIN:
        return [f"the cost per placement grows with exponent {exponent:.2f}, above {EXPONENT}"]
    return []


def life_cycle() -> dict[str, float]:
    """Releases and steady churn next to 45,000 running tasks; running tasks should add no cost."""
    few, many = churned(9_000), churned(45_000)
    memory = many.matcher.memory()["claims"] / len(many.live)
    begin = time.perf_counter()
    many.matcher.release(many.live)
    release = (time.perf_counter() - begin) / len(many.live)
    return {
        "churn_ms_per_round": many.seconds * 1e3,
        "churn_times_few_running": many.seconds / few.seconds,
        "release_ns": release * 1e9,
        "claim_bytes": memory,
    }


@dataclass(frozen=True, slots=True)
class Churned:
    """`seconds`: the median of a round. `live`: int64 release ids."""

    seconds: float
    matcher: Any
    live: Any


def churned(running: int) -> Churned:
    """1,000 hosts with `running` tasks; in each round 500 end and 500 start."""
    mixed = workloads.mixed(1_000, 151, apps=20)
    times = running // 9_000  # larger hosts for more tasks, so that they are equally full
    workload = replace(mixed, hosts=mixed.hosts * times, tasks=np.tile(mixed.tasks[:9_000], times))
    matcher = workloads.load(CompiledMatcher, workload)
    _, ids = matcher.match(workload.tasks)
    live = np.random.default_rng(1).permutation(ids[ids >= 0])
    rounds = []
    for start in range(0, 15_000, 500):
        ended = live[:500]
        begin = time.perf_counter()
        matcher.release(ended)
        _, started = matcher.match(workload.tasks[start % 8_500 : start % 8_500 + 500])
        rounds.append(time.perf_counter() - begin)
        live = np.random.default_rng(start).permutation(np.concatenate((live[500:], started[started >= 0])))
    matcher.check()
    return Churned(float(np.median(rounds)), matcher, live)


def check_life_cycle(figures: dict[str, float]) -> list[str]:
    limits = {
        "churn_ms_per_round": MARGIN * CHURN_MS,
        "churn_times_few_running": TIMES_FEW,
        "release_ns": MARGIN * RELEASE_NS,
        "claim_bytes": CLAIM_BYTES,
    }
    return [f"{name} is {figures[name]:.2f}, above {limit}" for name, limit in limits.items() if figures[name] > limit]


def _line(row: Row) -> str:
    refusal = "" if row.refusal_ns is None else f"{row.refusal_ns:.0f}"
    return (
        f"{row.hosts:7d} {row.classes:7d} {row.placed:7d} {row.tasks:9d} {row.index_ns:9.0f} {refusal:>10} "
        f"{row.scan_ns:10.0f} {row.numpy_ns:11.0f} {row.times_scan:8.1f} {row.times_numpy:8.0f} "
        f"{row.evaluations / row.placed:7.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
