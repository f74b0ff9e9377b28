"""Compares state in ZooKeeper and in etcd: `python bench/bench_stores.py [--rounds N] [--servers N]`, on real servers.

Each round measures both stores in turn, on new servers (Debian's packages). The smallest value of all rounds counts.
The last column is etcd divided by ZooKeeper. A fail-over is measured from the kill of the leader's process until the
standby has loaded the state.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass
class Round:
    """The figures of one store in one round, by name."""

    figures: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.figures[f"{name}, s"] = time.perf_counter() - began
        self.figures[f"{name}, CPU s of the scheduler"] = time.process_time() - cpu


def in_batches(store: Any, epoch: int, writes: Sequence[StoredWrite], size: int) -> None:
    for start in range(0, len(writes), size):
        store.write(epoch, writes[start : start + size])


def play(kind: str, hosts: str) -> dict[str, float]:
    one = Round()
    store, _ = candidate(kind, hosts)
    epoch = store.acquire()
    burst = [task(number) for number in range(4_000)]
    before = store.requests
    with one.timed("4,000 shards launched, running, ended"):
        in_batches(store, epoch, burst, 2_000)
        in_batches(store, epoch, burst, 80)
        in_batches(store, epoch, [StoredWrite(write.kind, write.key, None) for write in burst], 80)
    one.figures["writes a shard"] = (store.requests - before) / 4_000
    with one.timed("10,000 jobs and 100,000 tasks stored"):
        in_batches(store, epoch, [write for number in range(10_000) for write in job(number)], 2_000)
        in_batches(store, epoch, [task(number) for number in range(100_000)], 2_000)
    with one.timed("1,000 launches of 3 tasks next to them"):
        in_batches(store, epoch, [task(number * 37 % 100_000) for number in range(3_000)], 3)
    store.close()
    heir, _ = candidate(kind, hosts)
    with one.timed("load of 10,000 jobs and 100,000 tasks"):
        heir.acquire()
        stored = heir.load()
    assert (len(stored.records[Kind.JOB]), len(stored.records[Kind.TASK])) == (10_000, 100_000)
    heir.close()
    one.figures["fail-over, s"] = fail_over(kind, hosts)
    return one.figures


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
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            with servers(kind, wanted.servers) as hosts:
                for name, value in play(kind, hosts).items():
                    best[kind][name] = min(value, best[kind].get(name, value))
    print(f"{machine.described()}; {wanted.servers} servers, {wanted.rounds} rounds, timeout {TIMEOUT_S:g} s\n")
    print("| | ZooKeeper | etcd | etcd / ZooKeeper |\n| --- | --- | --- | --- |")
    for name, value in best["zookeeper"].items():
        other = best["etcd"][name]
        print(f"| {name} | {value:.3f} | {other:.3f} | {other / value:.2f} |")


if __name__ == "__main__":
    main()
