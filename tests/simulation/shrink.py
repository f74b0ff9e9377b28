"""Shrink a failing plan to the faults that matter, and describe it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .plan import Plan
from .world import History, play


def shrink(history: History, max_runs: int = 150, run: Callable[[Plan], History] = play) -> History:
    """Return the history of the smallest plan found that breaks the same promise.

    Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002): leave out parts
    of the faults, smaller and smaller ones, until each remaining fault is needed.
    """
    best, parts, runs = history, 2, 0
    while len(best.plan.faults) > 1 and runs < max_runs:
        size = max(1, len(best.plan.faults) // parts)
        smaller = None
        for start in range(0, len(best.plan.faults), size):
            left = best.plan.faults[:start] + best.plan.faults[start + size :]
            tried, runs = run(replace(best.plan, faults=left)), runs + 1
            if _same(tried, history):
                smaller = tried
                break
        if smaller is not None:
            best, parts = smaller, max(2, parts - 1)
        elif size == 1:
            break
        else:
            parts = min(len(best.plan.faults), parts * 2)
    return best


def _same(tried: History, history: History) -> bool:
    return bool(tried.violations) and tried.violations[0][:2] == history.violations[0][:2]


def tell(history: History, lines: int = 40) -> str:
    """Describe a failing history: its faults, its last events, and the broken promise."""
    plan = history.plan
    head = [f"seed {plan.seed}: agents with {plan.agents} cpus, {plan.jobs} jobs, {len(plan.faults)} faults:"]
    faults = [f"  {fault}" for fault in plan.faults]
    return "\n".join(
        [
            *head,
            *faults,
            "what happened last:",
            *(f"  {line[:220]}" for line in history.trace[-lines:]),
            "broken:",
            *history.violations,
        ]
    )
