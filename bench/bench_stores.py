"""Compares state in ZooKeeper and in etcd: `python bench/bench_stores.py [--rounds N] [--servers N]`, on real servers.

The servers are Debian's packages. Both run at the same time, and every step is divided into slices that alternate
between them, because the time of a write is mostly that of the disk, which other programs use too. A figure is the
median of its slices, and the smallest of all rounds. The last column is etcd divided by ZooKeeper. A fail-over is
measured from the kill of the leader's process until the standby has loaded the state.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import machine
from tests import etcd_kit, zookeeper_kit

from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.adapters.zookeeper.election import ZooKeeperElection
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

KINDS = ("zookeeper", "etcd")
TIMEOUT_S = 6.0

# Similar to the records of a task and a job from `server.records`, with equally random ids.
_TASK = (
    '{"v":1,"r":{"id":"%s","firing_id":"job-%d.20260101T000000Z","job":"job-%d","item":%d,"attempt":1,'
    '"execution":"ready","agent_id":"%032x-S%d","hostname":"agent-%d.example.org","app":"app",'
    '"executor_id":"app@-@0123456789abcdef","resources":{"cpus":1000,"mem":128000,"disk":0},'
    '"created_ms":1767225600000,"state":"running","started_ms":1767225600000,"kill_ms":0,"message":""}}'
)


def task(number: int) -> StoredWrite:
    chance = random.Random(number)
    key, agent = f"job-{number // 10}@-@{number % 10}@-@{chance.getrandbits(128):032x}", chance.randrange(1_000)
    values = (key, number // 10, number // 10, number % 10, chance.getrandbits(128), agent, agent)
    return StoredWrite(Kind.TASK, key, (_TASK % values).encode())


def job(number: int) -> list[StoredWrite]:
    value = b'{"v":1,"r":{"name":"job-%d","cron":"0 * * * * ?","padding":"%s"}}' % (number, b"x" * 500)
    return [StoredWrite(kind, f"job-{number}", value) for kind in (Kind.JOB, Kind.JOB_STATE)]


def candidate(kind: str, hosts: str) -> tuple[Any, Any]:
    """A store and its election."""
    if kind == "zookeeper":
        session = zookeeper_kit.connect(hosts, "bench", TIMEOUT_S)
        nodes = ZooKeeperElection(session, "bench")
        return ZooKeeperStore(session, candidate=lambda: nodes.node), nodes
    client = etcd_kit.connect(hosts, "bench", TIMEOUT_S)
    keys = EtcdElection(client, "bench")
    return EtcdStore(client, candidacy=lambda: keys.candidacy), keys


@contextmanager
def servers(kind: str, count: int) -> Iterator[str]:
    """The addresses of new servers."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "zookeeper":
            with zookeeper_kit.running(Path(folder) / "servers", count) as made:
                yield zookeeper_kit.hosts(made)
        else:
            with etcd_kit.running(Path(folder) / "servers", count, durable=True) as members:
                yield etcd_kit.hosts(members)


class Side:
    """One store, and the seconds of its slices by step: elapsed time and CPU time of this process."""

    def __init__(self, kind: str, hosts: str) -> None:
        self.kind, self.hosts = kind, hosts
        self.store, _ = candidate(kind, hosts)
        self.epoch = self.store.acquire()
        self.slices: dict[str, list[tuple[float, float]]] = {}

    def timed(self, step: str, action: Callable[[], object]) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        action()
        self.slices.setdefault(step, []).append((time.perf_counter() - began, time.process_time() - cpu))

    def figures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for step, slices in self.slices.items():
            found[f"{step}, ms"] = statistics.median(elapsed for elapsed, _ in slices) * 1_000
            found[f"{step}, ms of CPU time of the scheduler"] = statistics.median(cpu for _, cpu in slices) * 1_000
        return found


def play(sides: Sequence[Side]) -> dict[str, dict[str, float]]:
    """The figures of both stores, by their names."""
    before = {side.kind: side.store.requests for side in sides}
    burst = [task(number) for number in range(4_000)]
    ended = [StoredWrite(write.kind, write.key, None) for write in burst]
    for step, writes, size in (
        ("a launch of 2,000 shards", burst, 2_000),
        ("80 updates", burst, 80),
        ("80 ends", ended, 80),
    ):
        in_slices(sides, step, writes, size)
    requests = {side.kind: side.store.requests - before[side.kind] for side in sides}
    jobs = [write for number in range(10_000) for write in job(number)]
    in_slices(sides, "1,000 jobs stored", jobs, 2_000)
    in_slices(sides, "2,000 of 100,000 tasks stored", [task(number) for number in range(100_000)], 2_000)
    few = [task(number * 37 % 100_000) for number in range(3_000)]
    in_slices(sides, "a launch of 3 tasks next to 100,000", few, 3)
    for side in sides:
        side.store.close()
    for _ in range(3):
        for side in sides:
            heir, _ = candidate(side.kind, side.hosts)
            heir.acquire()
            side.timed("load of 10,000 jobs and 100,000 tasks", functools.partial(check_load, heir))
            heir.close()
    found = {side.kind: side.figures() for side in sides}
    for side in sides:
        found[side.kind]["writes a shard"] = requests[side.kind] / 4_000
        found[side.kind]["fail-over, ms"] = fail_over(side.kind, side.hosts) * 1_000
    return found


def in_slices(sides: Sequence[Side], step: str, writes: Sequence[StoredWrite], size: int) -> None:
    for start in range(0, len(writes), size):
        batch = writes[start : start + size]
        for side in sides:
            side.timed(step, functools.partial(side.store.write, side.epoch, batch))


def check_load(store: Any) -> None:
    stored = store.load()
    assert (len(stored.records[Kind.JOB]), len(stored.records[Kind.TASK])) == (10_000, 100_000)


def fail_over(kind: str, hosts: str) -> float:
    argv = [sys.executable, __file__, "--lead", kind, hosts]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "leads\n"
        store, election = candidate(kind, hosts)
        waiting = threading.Event()
        killed: list[float] = []

        def kill_when_it_waits() -> None:
            waiting.wait(60)
            killed.append(time.perf_counter())
            leader.kill()

        thread = threading.Thread(target=kill_when_it_waits)
        thread.start()
        stop = threading.Event()
        report: Callable[[str], None] = lambda text: waiting.set() if text.endswith(" leads") else None  # noqa: E731
        assert election.wait(stop, report)
        store.acquire()
        store.load()
        seconds = time.perf_counter() - killed[0]
        thread.join()
        election.resign()
        store.close()
        return seconds


def lead(kind: str, hosts: str) -> None:
    """Lead until the process is killed."""
    store, election = candidate(kind, hosts)
    assert election.wait(threading.Event(), lambda text: None)
    store.acquire()
    print("leads", flush=True)
    threading.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--lead", nargs=2, metavar=("STORE", "HOSTS"), help="for the benchmark itself")
    wanted = parser.parse_args()
    if wanted.lead:
        lead(*wanted.lead)
        return
    best: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for number in range(wanted.rounds):
        with servers("zookeeper", wanted.servers) as first, servers("etcd", wanted.servers) as second:
            sides = [Side("zookeeper", first), Side("etcd", second)]
            for kind, figures in play(sides if number % 2 == 0 else sides[::-1]).items():
                for name, value in figures.items():
                    best[kind][name] = min(value, best[kind].get(name, value))
    print(f"{machine.described()}; {wanted.servers} servers, {wanted.rounds} rounds, timeout {TIMEOUT_S:g} s\n")
    print("| | ZooKeeper | etcd | etcd / ZooKeeper |\n| --- | --- | --- | --- |")
    for name, value in best["zookeeper"].items():
        other = best["etcd"][name]
        print(f"| {name} | {value:.3f} | {other:.3f} | {other / value:.2f} |")


if __name__ == "__main__":
    main()
