"""Measures the whole scheduler: loop, core, store and driver over HTTP to the virtual agents of a dev cluster.

`python bench/bench_end_to_end.py [SCENARIO …] [--store sqlite|zookeeper] [--quick]`. Each scenario runs in its own
process; CPU and memory are those of this process. The cluster, also a Python program, uses the other one of two cores.

latency   20 firings of 4 shards per second: from the due instant to the ACCEPT and to the TASK_RUNNING
launches  jobs that are triggered again as soon as they end: launches per second, each run, ended and acknowledged
burst     100,000 shards due in one second: the time until the last is accepted; all must end
running   1,000 launches per second next to 100,000 running shards on 10,000 agents: memory, CPU
beside    a job of every second beside 5,000 shards that succeed, and beside 5,000 that fail with long messages: from
          the due instant to the ACCEPT
lateness  4,000 and 40,000 jobs that fire once per minute: from the due instant to the ACCEPT
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from jobcloud.adapters.mesos.driver import MesosDriver, MesosSettings
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.config import DELIMITER, App, Job, JobKind, JobType, Package, Resources
from jobcloud.dev.cluster import DevCluster
from jobcloud.messages import Accept, Acknowledge, Call, Event, Publish, PutApp, PutJob, StatusReceived, Topic, Trigger
from jobcloud.ports import Store
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.scheduler.launch import Artifacts
from jobcloud.server.loop import Loop

NEVER = "0 0 0 1 1 ? 2099"
POLICY = Policy(Artifacts("http://127.0.0.1:9", "e" * 64, "executor.zip", "exec python3 executor.zip"), history=2)
_FIRE_TIME = re.compile(rb'"fireTime":(\d+)')
AGENT = "cpus:32;mem:131072;disk:100000;ports:[31000-31999]"


class Observed:
    """The calls to Mesos and the events from it, with wall-clock seconds."""

    def __init__(self) -> None:
        self.accepted: list[tuple[float, float]] = []  # (due, sent) of each task
        self.of_job: defaultdict[str, list[float]] = defaultdict(list)  # the times between them
        self.running: dict[str, float] = {}
        self.ended: dict[str, str] = {}  # task → its first terminal update: updates may be repeated, and answers late
        self.done: list[str] = []
        self.changed = threading.Condition()

    def sent(self, call: Call | Acknowledge) -> None:
        if isinstance(call, Accept):
            now = time.time()
            for one in call.launches:
                due = int(_FIRE_TIME.search(one.data)[1]) / 1000  # type: ignore[index]
                self.accepted.append((due, now))
                self.of_job[one.name.partition(DELIMITER)[0]].append(now - due)

    def event(self, event: Event) -> None:
        if isinstance(event, StatusReceived):
            if event.status.state == "TASK_RUNNING":
                self.running.setdefault(event.status.task_id, time.time())
            elif event.status.state not in ("TASK_STAGING", "TASK_STARTING"):
                self.running.pop(event.status.task_id, None)
                self.ended.setdefault(event.status.task_id, event.status.state)

    def publish(self, notice: object) -> None:
        if isinstance(notice, Publish) and notice.topic is Topic.DONE:
            with self.changed:
                self.done.append(notice.job)
                self.changed.notify()


class ObservedDriver(MesosDriver):
    def __init__(self, settings: MesosSettings, seen: Observed) -> None:
        super().__init__(settings)
        self._seen = seen

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        def both(event: Event) -> None:
            self._seen.event(event)
            deliver(event)

        super().start(both, framework_id)

    def send(self, call: Call | Acknowledge) -> None:
        super().send(call)
        self._seen.sent(call)


class World:
    """A cluster of virtual agents and a leader in this process."""

    def __init__(self, cluster: DevCluster, store: Store) -> None:
        self.cluster = cluster
        self.seen = Observed()
        settings = MesosSettings(cluster.master, user="nobody")
        self.loop: Loop[Scheduler] = Loop(
            store,
            lambda: ObservedDriver(settings, self.seen),
            [self.seen],
            lambda stored, epoch, at: Scheduler(POLICY, stored, epoch, at),
        )
        self.loop.start()
        until(self.loop.healthy, "a subscription")
        package = Package("package:sha256:" + "a" * 64, "a" * 64)
        self.loop.command(lambda at: PutApp(at, App("app", package, resources=Resources(100, 32_000))))

    def agents(self, count: int, run_ms: int, **failing: str) -> None:
        for begun in range(0, count, 500):  # a call times out after ten seconds
            self.cluster.control("add_agents", count=min(500, count - begun), resources=AGENT, run_ms=run_ms, **failing)

    def jobs(
        self, count: int, shards: int, cron: Callable[[int], str], prefix: str = "job", cpus: int = 100
    ) -> list[str]:
        """Register jobs with several clients at once."""
        names = [f"{prefix}{number}" for number in range(count)]
        need = Resources(cpus, 32_000)

        def put(number: int) -> None:
            kind, cls = JobType.SIMPLE, "shop.jobs:Report"
            job = Job(names[number], "app", JobKind.TRANSIENT, kind, cron(number), shards, need, cls)
            self.loop.command(lambda at: PutJob(at, job), timeout=120)

        with ThreadPoolExecutor(16) as clients:
            list(clients.map(put, range(count)))
        return names

    def check_ends(self) -> None:
        ends = Counter(self.seen.ended.values())
        assert set(ends) == {"TASK_FINISHED"}, ends

    def counts(self) -> dict[str, int]:
        return self.loop.ask(
            lambda core: {"tasks": len(core.tasks), "firings": len(core.firings), "jobs": len(core.jobs)}, timeout=120
        )


def until(test: Callable[[], Any], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out after {seconds:g} s waiting for {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def world(store: str) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(DevCluster(agents=1, allocation_interval_ms=200, resources="cpus:0.01;mem:1"))
        made = World(cluster, stack.enter_context(opened(store, folder)))
        stack.callback(made.loop.stop)
        yield made


@contextlib.contextmanager
def opened(store: str, folder: Path) -> Iterator[Store]:
    """The loop closes the store."""
    if store == "sqlite":
        yield SqliteStore(folder / "state" / "jobcloud.db")
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests import zookeeper_kit

    from jobcloud.adapters.zookeeper.store import ZooKeeperStore

    with zookeeper_kit.running(folder) as servers:
        yield ZooKeeperStore(zookeeper_kit.connect(zookeeper_kit.hosts(servers), "bench"))


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        name: round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 1)
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    }


def resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6)


class Cost:
    """The elapsed wall-clock time, and the CPU time of this process (the scheduler) and of the cluster."""

    def __init__(self, w: World) -> None:
        self._cluster = Path(f"/proc/{w.cluster.process.pid}/stat")
        self._began, self._own, self._other = time.monotonic(), time.process_time(), self._cluster_cpu()

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _cluster_cpu(self) -> float:
        fields = self._cluster.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def report(self, launches: int) -> dict[str, Any]:
        """Shares of one core, and CPU time per launch, which predicts the speed of a quiet machine."""
        seconds, own, other = self.seconds(), time.process_time() - self._own, self._cluster_cpu() - self._other
        return {
            "launches": launches, "launches_per_second": round(launches / seconds),
            "cpu_share": round(own / seconds, 3), "cpu_us_per_launch": round(own / max(launches, 1) * 1e6),
            "cluster_cpu_share": round(other / seconds, 3),
            "cluster_cpu_us_per_launch": round(other / max(launches, 1) * 1e6),
            "load_average": round(os.getloadavg()[0], 1),
        }  # fmt: skip


def latency(w: World, scale: int) -> dict[str, Any]:
    w.agents(50, run_ms=500)
    w.jobs(300, 4, lambda n: f"{n % 15}/15 * * * * ?")
    until(lambda: len(w.seen.accepted) > 400, "the first firings")
    first, cost = len(w.seen.accepted), Cost(w)
    time.sleep(60 / scale)
    taken = w.seen.accepted[first:]
    costs = cost.report(len(taken))
    running = list(w.seen.running.values())
    w.check_ends()
    return {
        "due_to_accept": percentiles([sent - due for due, sent in taken]),
        "running_now": len(running), **costs,
    }  # fmt: skip


def launches(w: World, scale: int) -> dict[str, Any]:
    w.agents(100, run_ms=100)
    names = w.jobs(200, 50, lambda n: NEVER)
    stop = threading.Event()

    def trigger(name: str) -> None:
        w.loop.command(lambda at: Trigger(at, name), timeout=60)

    def again() -> None:
        """Trigger ended jobs again, with several clients: a single one would wait for its own write each time."""
        taken = 0
        with ThreadPoolExecutor(16) as clients:
            list(clients.map(trigger, names))
            while not stop.is_set():
                with w.seen.changed:
                    w.seen.changed.wait_for(lambda: len(w.seen.done) > taken or stop.is_set(), 1)  # noqa: B023
                    fresh = w.seen.done[taken:]
                list(clients.map(trigger, fresh))
                taken += len(fresh)

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    until(lambda: len(w.seen.ended) > 10_000, "a steady state")
    first, cost = len(w.seen.ended), Cost(w)
    time.sleep(30 / scale)
    costs = cost.report(len(w.seen.ended) - first)
    stop.set()
    thread.join(60)
    until(lambda: not w.counts()["tasks"], "the rest")
    w.check_ends()
    return costs


def burst(w: World, scale: int) -> dict[str, Any]:
    jobs, shards = 1_000 // scale, 100
    w.agents(10_000 // scale, run_ms=1_000)
    minute = int(time.time() // 60) + 2 + 2 // scale
    w.jobs(jobs, shards, lambda n: f"0 {minute % 60} {minute // 60 % 24} * * ?")
    due, cost = minute * 60, Cost(w)
    left = due - time.time()
    assert left > 2, f"registering took too long by {-left:.0f} s"
    until(lambda: len(w.seen.accepted) >= jobs * shards, "every launch", left + 120)
    taken = max(sent for _, sent in w.seen.accepted) - due
    until(lambda: len(w.seen.ended) >= jobs * shards, "every end", 300)
    ended = time.time() - due
    w.check_ends()
    assert len(w.seen.ended) == jobs * shards, f"{len(w.seen.ended)} tasks for {jobs * shards} shards"
    return {
        "shards": jobs * shards, "all_accepted_s": round(taken, 2), "all_ended_s": round(ended, 2),
        "resident_mb": resident_mb(), **cost.report(jobs * shards),
    }  # fmt: skip


def running(w: World, scale: int) -> dict[str, Any]:
    """Every job fires every two minutes and runs for 110 s: about 110 times as many runs at once as per second."""
    jobs, shards = 1_200 // scale, 100
    w.agents(10_000 // scale, run_ms=110_000)
    w.jobs(jobs, shards, lambda n: f"{n % 120 % 60} {n % 120 // 60}/2 * * * ?")
    wanted = 105_000 // scale
    until(lambda: len(w.seen.running) >= wanted, f"{wanted} running tasks", 400)
    first, cost = len(w.seen.accepted), Cost(w)
    time.sleep(30)
    return {
        "running": len(w.seen.running), **cost.report(len(w.seen.accepted) - first),
        "resident_mb": resident_mb(), "late": lateness_of(w, first),
    }  # fmt: skip


def lateness_of(w: World, first: int) -> dict[str, float]:
    return percentiles([sent - due for due, sent in w.seen.accepted[first:]])


def lateness(w: World, scale: int, jobs: int) -> dict[str, Any]:
    w.agents(200, run_ms=1_000)
    w.jobs(jobs // scale, 1, lambda n: f"{n % 60} * * * * ?")
    first, cost = len(w.seen.accepted), Cost(w)
    time.sleep(60)
    made = len(w.seen.accepted) - first
    assert made >= jobs // scale * 0.9, f"{made} of {jobs // scale} firings"
    return {"jobs": jobs // scale, **lateness_of(w, first), **cost.report(made), "resident_mb": resident_mb()}


def beside(w: World, scale: int) -> dict[str, Any]:
    # Room for 124 wide shards, and always for the small job.
    w.agents(4, run_ms=400, failing="wide0", message="x" * 4_000)
    small = w.jobs(1, 1, lambda n: "* * * * * ?")
    wide = w.jobs(2, 5_000 // scale, lambda n: NEVER, "wide", 1_000)
    taken: dict[str, list[float]] = {"failing": [], "succeeding": []}
    for _ in range(5):
        for name, times in zip(wide, taken.values(), strict=True):
            first = {job: len(w.seen.of_job[job]) for job in small}
            done = len(w.seen.done)
            w.loop.command(lambda at: Trigger(at, name))  # noqa: B023
            until(lambda: name in w.seen.done[done:], f"the end of {name}", 300)  # noqa: B023
            times += [late for job in small for late in w.seen.of_job[job][first[job] :]]
    found = {name: percentiles(times) for name, times in taken.items()}
    ratio = found["failing"]["p99_ms"] / found["succeeding"]["p99_ms"]
    return {"firings": {name: len(times) for name, times in taken.items()}, **found, "p99_ratio": round(ratio, 2)}


SCENARIOS: dict[str, Callable[[World, int], dict[str, Any]]] = {
    "latency": latency,
    "launches": launches,
    "burst": burst,
    "running": running,
    "beside": beside,
    "lateness_4000": lambda w, scale: lateness(w, scale, 4_000),
    "lateness_40000": lambda w, scale: lateness(w, scale, 40_000),
}


def run(scenario: str, store: str, scale: int) -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with world(store) as w:
        found = SCENARIOS[scenario](w, scale)
        w.loop.ask(lambda core: core.validate(), timeout=120)
        return {"scenario": scenario, "store": store, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--store", choices=("sqlite", "zookeeper"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--here", action="store_true", help="one scenario, in this process (for a profiler)")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - SCENARIOS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    scale = 10 if given.quick else 1
    if given.here:
        print(json.dumps(run(given.scenarios[0], given.store, scale)))
        return 0
    failed = 0
    for scenario in given.scenarios or SCENARIOS:
        argv = [sys.executable, __file__, scenario, "--here", "--store", given.store, *["--quick"] * given.quick]
        failed |= subprocess.run(argv, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
