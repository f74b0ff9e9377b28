"""Play many histories on all cores: `make simulate SEEDS=10000`."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .plan import ALL_POINTS, make_plan
from .shrink import shrink, tell
from .world import History, play


@dataclass(slots=True)
class Summary:
    """Totals over many histories. `happened`: how often; `met`: in how many histories."""

    histories: int = 0
    steps: int = 0
    fewest_steps: int = 1_000_000
    failed: list[int] = field(default_factory=list)
    hit: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    overlaps: list[str] = field(default_factory=list)
    slowest_ms: int = 0
    hash: str = ""

    def add(self, history: History) -> None:
        self.histories += 1
        self.steps += history.steps
        self.fewest_steps = min(self.fewest_steps, history.steps)
        self.hit += history.hit
        self.happened += history.happened
        self.met.update(history.happened.keys())
        self.overlaps += [f"seed {history.plan.seed}: {one}" for one in history.overlaps]
        self.slowest_ms = max(self.slowest_ms, history.settled_ms)
        self.hash = hashlib.sha256((self.hash + history.hash).encode()).hexdigest()[:16]
        if history.violations:
            self.failed.append(history.plan.seed)


def run(seed: int) -> History:
    history = play(make_plan(seed))
    if not history.violations:
        history.trace = []
    return history


def run_all(seeds: Iterable[int], processes: int, stop_at_first: bool = False) -> Summary:
    """Play `seeds` in order. `processes=1` plays in the calling process, so that a debugger works."""
    summary = Summary()
    if processes <= 1:
        for seed in seeds:
            summary.add(run(seed))
            if stop_at_first and summary.failed:
                break
        return summary
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for history in pool.imap(run, seeds):
            summary.add(history)
            if stop_at_first and summary.failed:
                pool.terminate()
                break
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many histories")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--step", type=int, default=1, help="play each STEP-th seed, such as 7 for all with teams")
    parser.add_argument("--replay", action="store_true", help="play one seed and print all of it")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stop", action="store_true", help="stop at the first failure, and do not shrink it")
    asked = parser.parse_args()
    if asked.replay:
        return _replay(asked.seed)
    began = time.monotonic()
    summary = run_all(range(asked.seed, asked.seed + asked.seeds * asked.step, asked.step), asked.processes, asked.stop)
    _report(summary, time.monotonic() - began)
    if asked.stop and summary.failed:
        print(f"seed {summary.failed[0]}: {run(summary.failed[0]).violations[0]}")
    for seed in () if asked.stop else summary.failed[:3]:
        print(tell(shrink(run(seed))))
    return 1 if summary.failed else 0


def _replay(seed: int) -> int:
    history = play(make_plan(seed))
    print(tell(history, len(history.trace)))
    print(f"{history.steps} steps, hash {history.hash}")
    return 1 if history.violations else 0


def _report(summary: Summary, seconds: float) -> None:
    print(
        f"{summary.histories} histories, {summary.steps} steps (the shortest {summary.fewest_steps}), {seconds:.0f} s"
    )
    print(f"{sum(summary.happened.values())} faults and calls: {dict(summary.happened.most_common())}")
    print(f"histories in which it happened: {dict(summary.met.most_common())}")
    missed = [point for point in ALL_POINTS if not summary.hit[point]]
    print(f"{len(ALL_POINTS) - len(missed)} of {len(ALL_POINTS)} points of crash or pause hit; not: {missed}")
    print(f"{len(summary.overlaps)} overlaps that a policy explains, such as {summary.overlaps[:3]}")
    print(f"longest until all was well again: {summary.slowest_ms / 1000:g} s of virtual time; hash {summary.hash}")
    print(f"{len(summary.failed)} histories broke a promise: {summary.failed[:50]}")
