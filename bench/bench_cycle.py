"""Measures the core: the time from a due firing or an offer to the encoded ACCEPT, and launches per second.

`python bench/bench_cycle.py [--json] [--quick] [--metrics]`. No agents run; status updates arrive immediately. With
`--metrics`, everything is counted and measured as in production.

cycle   one Tick (a firing is due) or one OffersReceived and its Tick, with all calls and records encoded and a store in
        memory; 1,000 jobs of 4 shards on 100 agents, 4,000 tasks running.
launch  the whole way from trigger to acknowledged TASK_FINISHED with the SQLite store, synchronous as in production;
        waiting events are handled together and share one write, as in the loop.
growth  100,000 launches, a third of which fail: the state is as large at the end as at the beginning.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.adapters.mesos import wire
from jobcloud.config import App, Job, JobKind, JobType, Package, Resources
from jobcloud.messages import (
    Accept,
    Acknowledge,
    Effect,
    Launch,
    OfferRescinded,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    Save,
    Status,
    StatusReceived,
    Subscribed,
    Tick,
    Trigger,
)
from jobcloud.model import Offer, Share
from jobcloud.ports import Store, StoredWrite
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.launch import Artifacts
from jobcloud.server import records
from jobcloud.server.metrics.measured import MeasuredScheduler, MeasuredStore
from jobcloud.server.metrics.tally import Tally

START = 1_767_225_600_000
SECOND = 1000
POLICY = Policy(Artifacts("http://artifacts", "e" * 64, "executor.zip", "exec python3 executor.zip"))


class Shell:
    """The environment of the core in production, without its thread: a store for records, JSON for calls."""

    def __init__(self, store: Store, policy: Policy = POLICY, tally: Tally | None = None) -> None:
        self.store = MeasuredStore(store, tally) if tally else store
        self.tally = tally
        self.epoch = store.acquire()
        self.at = START
        self.sent_bytes = 0
        self.scheduler = (
            MeasuredScheduler(tally, policy, Stored(), self.epoch, self.at)
            if tally
            else Scheduler(policy, Stored(), self.epoch, self.at)
        )
        self._offers = 0
        self.do(Subscribed(self.at, "framework-1"))

    def do(self, *events: Any) -> list[Effect]:
        """Handle a batch, store it in one write and encode the calls."""
        effects = [effect for event in events for effect in self.scheduler.handle(event)]
        last = {(w.kind, w.key): w.record for effect in effects if isinstance(effect, Save) for w in effect.writes}
        if last:
            self.store.write(self.epoch, [
                StoredWrite(kind, key, None if record is None else records.encode(kind, record))
                for (kind, key), record in last.items()
            ])  # fmt: skip
        for effect in effects:
            if isinstance(effect, Accept | Acknowledge):
                self.sent_bytes += len(encode_call(effect))
            elif self.tally and isinstance(effect, Publish):
                self.tally.publish(effect)
        return effects

    def offers(self, agents: Iterable[str], cpus: int, mem: int) -> OffersReceived:
        made = []
        for agent in agents:
            self._offers += 1
            shares = (Share("cpus", cpus * 1000), Share("mem", mem * 1000))
            made.append(Offer(f"offer-{self._offers}", agent, f"host-{agent}", "10.0.0.1:5051", shares))
        return OffersReceived(self.at, tuple(made))


def encode_call(call: Accept | Acknowledge) -> bytes:
    """The call in the format of Mesos' v1 scheduler API, from the driver's own encoder."""
    if isinstance(call, Acknowledge):
        agent_id, task_id = {"value": call.agent_id}, {"value": call.task_id}
        acknowledge = {"agent_id": agent_id, "task_id": task_id, "uuid": call.uuid}
        return wire.dumps({"type": "ACKNOWLEDGE", "acknowledge": acknowledge})
    accept = {
        "offer_ids": wire.ids(call.offer_ids),
        "operations": [wire.launch_operation(call.launches, call.agent_id, "framework-1")],
        "filters": {"refuse_seconds": 0.0},
    }
    return wire.dumps({"type": "ACCEPT", "accept": accept})


def status_of(at: int, one: Launch | str, state: str, uuid: str = "u") -> StatusReceived:
    task_id = one if isinstance(one, str) else one.task_id
    return StatusReceived(at, Status(task_id, task_id.split("@-@")[3], state, uuid))


def launches(effects: Iterable[Effect]) -> list[Launch]:
    return [one for effect in effects if isinstance(effect, Accept) for one in effect.launches]


def job(name: str, app: str, shards: int, cron: str = "0 0 0 1 1 ? 2099") -> Job:
    return Job(name, app, JobKind.TRANSIENT, JobType.SIMPLE, cron, shards, Resources(100, 32_000), "shop.jobs:Report")


def fill(shell: Shell, jobs: int, apps: int = 10, shards: int = 4, fires: Callable[[int], str] | None = None) -> None:
    for number in range(apps):
        shell.do(PutApp(shell.at, App(f"app{number}", Package("package:sha256:", f"{number:064x}"))))
    for number in range(jobs):
        cron = fires(number) if fires else "0 0 0 1 1 ? 2099"
        shell.do(PutJob(shell.at, job(f"job{number}", f"app{number % apps}", shards, cron)))


class Taken(NamedTuple):
    """Wall-clock seconds and CPU seconds of this process; they differ if the machine is busy."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Taken:
        return cls(time.perf_counter(), time.process_time())

    @classmethod
    def since(cls, began: Taken) -> Taken:
        now = cls.now()
        return cls(now.wall - began.wall, now.cpu - began.cpu)


def percentiles(name: str, times: list[Taken]) -> dict[str, float]:
    found = {}
    for which, share in (("p50", 0.5), ("p99", 0.99)):
        for clock in Taken._fields:
            ordered = sorted(getattr(taken, clock) for taken in times)
            value = ordered[min(int(len(ordered) * share), len(ordered) - 1)]
            found[f"{name}_{which}_{clock}_ms"] = round(value * 1000, 3)
    return found


def bench_cycle(rounds: int) -> dict[str, Any]:
    """1,000 jobs fire once per hour, one job per second: `due` times that Tick. Half an hour apart, another job waits
    for room: `offer` times OffersReceived and its Tick. Each launches 4 tasks next to 3,996 running ones."""
    shell = Shell(MemoryStore(MemoryServer()))
    agents = [f"agent-{number}" for number in range(100)]
    fill(shell, 1_000, fires=lambda n: f"{n % 60} {n // 60} * * * ?")
    for number in range(1_000):
        shell.do(Trigger(shell.at, f"job{number}"))
    shell.do(shell.offers(agents, 64, 262_144))
    running: dict[str, list[Launch]] = {}
    run(shell, running, launches(shell.do(Tick(shell.at))))
    assert sum(map(len, running.values())) == 4_000, "4,000 tasks were to run"
    dice = random.Random(1)
    due_times: list[Taken] = []
    offer_times: list[Taken] = []
    for number in range(1, rounds):
        shell.at = START + number * SECOND - 1
        finish(shell, running, f"job{number}")
        shell.do(shell.offers(dice.sample(agents, 20), 8, 16_384))
        shell.do(Tick(shell.at))
        shell.at += 1
        began = Taken.now()
        made = launches(shell.do(Tick(shell.at)))
        due_times.append(Taken.since(began))
        assert len(made) == 4, f"{len(made)} were launched when due"
        run(shell, running, made)
        held = [offer_id for entry in shell.scheduler.cluster.agents.values() for offer_id in entry.offers]
        shell.do(*(OfferRescinded(shell.at, offer_id) for offer_id in held))
        other = f"job{(number + 500) % 1_000}"
        finish(shell, running, other)
        shell.do(Trigger(shell.at, other))
        shell.do(Tick(shell.at))
        event = shell.offers(dice.sample(agents, 2), 8, 16_384)
        began = Taken.now()
        made = launches(shell.do(event) + shell.do(Tick(shell.at)))
        offer_times.append(Taken.since(began))
        assert len(made) == 4, f"{len(made)} were launched when offered"
        run(shell, running, made)
    shell.scheduler.validate()
    times = percentiles("due", due_times) | percentiles("offer", offer_times)
    return {**times, "launches": 8 * len(due_times), "running": sum(map(len, running.values()))}


def run(shell: Shell, running: dict[str, list[Launch]], made: list[Launch]) -> None:
    for one in made:
        running.setdefault(one.task_id.partition("@-@")[0], []).append(one)
    shell.do(*(status_of(shell.at, one, "TASK_RUNNING") for one in made))


def finish(shell: Shell, running: dict[str, list[Launch]], job: str) -> None:
    shell.do(*(status_of(shell.at, one, "TASK_FINISHED") for one in running.pop(job)))


def churn(shell: Shell, wanted: int, batch_jobs: int, shards: int, failing: bool = False) -> int:
    """Trigger, launch, run, end: two writes per batch; ends share a write with new launches. Returns the launches."""
    agents = [f"agent-{number}" for number in range(100)]
    done = fresh = 0
    waiting: list[Any] = []
    while done < wanted:
        shell.at += SECOND
        names = [f"job{(fresh + number) % 1_000}" for number in range(batch_jobs)]
        fresh += batch_jobs
        batch = [*waiting, *(Trigger(shell.at, name) for name in names)]
        made = launches(shell.do(*batch, shell.offers(agents, 32, 65_536), Tick(shell.at)))
        assert len(made) == batch_jobs * shards, f"placed {len(made)} of {batch_jobs * shards}"
        done += len(made)
        ends = ["TASK_FINISHED", "TASK_FINISHED", "TASK_FAILED" if failing else "TASK_FINISHED"]
        shell.do(*(status_of(shell.at, one, "TASK_RUNNING") for one in made))
        waiting = [status_of(shell.at, one, ends[number % 3]) for number, one in enumerate(made)]
    shell.do(*waiting)
    return done


def bench_launches(wanted: int, tally: Tally | None = None) -> dict[str, Any]:
    from jobcloud.adapters.sqlite import SqliteStore

    with tempfile.TemporaryDirectory() as folder:
        shell = Shell(SqliteStore(Path(folder) / "state" / "jobcloud.db"), tally=tally)
        fill(shell, 1_000)
        churn(shell, 4_000, 250, 4)
        began = Taken.now()
        done = churn(shell, wanted, 250, 4)
        taken = Taken.since(began)
        assert not shell.scheduler.tasks, "tasks are left over"
        shell.scheduler.validate()
        shell.store.close()
    rates = {"per_second": round(done / taken.wall), "per_cpu_second": round(done / taken.cpu)}
    return {"launches": done, "seconds": round(taken.wall, 2), **rates}


def sizes(scheduler: Scheduler) -> dict[str, int]:
    owners = (scheduler, scheduler.cluster, scheduler.queue)
    found = {
        f"{type(owner).__name__}.{name}": len(value)
        for owner in owners
        for name, value in vars(owner).items()
        if isinstance(value, dict | list | set)
    }
    return found | {"snapshot": len(scheduler.cluster.matcher.snapshot())}


def bench_growth(wanted: int) -> dict[str, Any]:
    shell = Shell(MemoryStore(MemoryServer()), Policy(POLICY.artifacts, history=2))
    fill(shell, 1_000)
    churn(shell, 16_000, 250, 4, failing=True)
    before = sizes(shell.scheduler)
    done = churn(shell, wanted, 250, 4, failing=True)
    after = sizes(shell.scheduler)
    grown = {name: (before[name], size) for name, size in after.items() if size > before[name]}
    assert not grown, f"grown over {done} launches: {grown}"
    return {"launches": done, "grown": grown}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="machine-readable results")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--metrics", action="store_true", help="count and measure everything")
    given = parser.parse_args()
    scale = 10 if given.quick else 1
    results = {
        "cycle": bench_cycle(1_000 // scale),
        "launch": bench_launches(40_000 // scale, Tally() if given.metrics else None),
        "growth": bench_growth(100_000 // scale),
    }
    if given.json:
        print(json.dumps(results))
        return 0
    cycle, launch = results["cycle"], results["launch"]
    for name in ("due", "offer"):
        wall, cpu = ([cycle[f"{name}_{which}_{clock}_ms"] for which in ("p50", "p99")] for clock in Taken._fields)
        print(f"{name} to ACCEPT: p50 {wall[0]} ms, p99 {wall[1]} ms (cpu {cpu[0]} and {cpu[1]}; target 2 and 10)")
    print(
        f"{launch['per_second']:,} launches per second with SQLite, {launch['per_cpu_second']:,} per CPU second"
        " (target 5,000)"
    )
    print(f"no state grew over {results['growth']['launches']:,} launches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
