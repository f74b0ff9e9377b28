"""Measures scheduling cycles with constraints: 10,000 jobs with different ones on 1,000 agents.

`python bench/bench_places.py [--jobs N] [--agents N]`. Each job has one shard. Each row is the CPU time of one cycle,
and its ratio to the same cycle without constraints.

first   all jobs start; each gets its class and its mask
again   they have ended, and start again
joined  as again, after one agent more has joined: each mask is made anew
waits   all jobs wait, because no agent meets their constraints; without constraints: because no agent has room
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.bench_cycle import POLICY, Shell, launches, status_of

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.config import App, Job, JobKind, JobType, Package, Resources
from jobcloud.messages import OffersReceived, PutApp, PutJob, Tick, Trigger
from jobcloud.model import Offer, Share

ZONES, RACKS = 10, 100


def offers(shell: Shell, agents: int, cpus: int = 64) -> OffersReceived:
    """One offer of each agent."""
    made = []
    for number in range(agents):
        attributes = (("zone", f"z{number % ZONES}"), ("rack", f"r{number % RACKS}"), ("cores", str(number % 128)))
        shares = (Share("cpus", cpus * 1_000), Share("mem", cpus * 4_096_000))
        name = f"agent-{number}"
        made.append(Offer(f"{name}-{shell.at}", name, f"host-{number}", "10.0.0.1:5051", shares, attributes))
    return OffersReceived(shell.at, tuple(made))


def constraints_of(number: int, *, impossible: bool) -> tuple[str, ...]:
    """No two jobs have equal ones, and each job has some agents."""
    if impossible:
        return (f"zone == nowhere-{number}",)
    return (f"zone != z{number % ZONES}", f"cores >= {number % 32}", f"host != job-{number}")


def cycles(jobs: int, agents: int, *, limited: bool, impossible: bool = False) -> dict[str, float]:
    """The CPU seconds of each cycle."""
    policy = replace(POLICY, cycle_limit=jobs, accept_tasks=jobs, accept_bytes=1 << 40)
    shell = Shell(MemoryStore(MemoryServer()), policy)
    for number in range(10):
        shell.do(PutApp(shell.at, App(f"app{number}", Package("package:sha256:", f"{number:064x}"))))
    for number in range(jobs):
        found = constraints_of(number, impossible=impossible) if limited else ()
        job = Job(
            f"job{number}", f"app{number % 10}", JobKind.TRANSIENT, JobType.SIMPLE, "0 0 0 1 1 ? 2099", 1,
            Resources(100, 32_000), "shop.jobs:Report", constraints=found,
        )  # fmt: skip
        shell.do(PutJob(shell.at, job))
    taken: dict[str, float] = {}
    for name in ("waits",) if impossible else ("first", "again", "joined"):
        shell.at += 1_000
        for number in range(jobs):
            shell.do(Trigger(shell.at, f"job{number}"))
        cpus = 0 if impossible and not limited else 64
        shell.do(offers(shell, agents + (name == "joined"), cpus))
        gc.collect()
        taken[name], effects = timed(lambda: shell.do(Tick(shell.at)))
        made = launches(effects)
        assert len(made) == (0 if impossible else jobs), f"{len(made)} of {jobs} were launched"
        for state in ("TASK_RUNNING", "TASK_FINISHED"):
            shell.do(*(status_of(shell.at, one, state) for one in made))
    return taken


def timed(do: Callable[[], list]) -> tuple[float, list]:  # type: ignore[type-arg]
    began = time.process_time()
    found = do()
    return time.process_time() - began, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--agents", type=int, default=1_000)
    given = parser.parse_args()
    for impossible in (False, True):
        plain = cycles(given.jobs, given.agents, limited=False, impossible=impossible)
        limited = cycles(given.jobs, given.agents, limited=True, impossible=impossible)
        for name, seconds in limited.items():
            ratio = seconds / plain[name]
            print(f"{name:7} {seconds * 1_000:8.1f} ms, without constraints {plain[name] * 1_000:8.1f} ms: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
