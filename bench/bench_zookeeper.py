"""Measures the cost of state in ZooKeeper: `python bench/bench_zookeeper.py`, on a real server (Debian's package).

Prints the writes per task and the time of a burst of 4,000 tasks, the time of a start with 10,000 jobs and 100,000
tasks, and the time of small writes next to these.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import zookeeper_kit

from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite

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


@contextmanager
def timed(what: str, store: ZooKeeperStore, of: int) -> Iterator[None]:
    began, before = time.perf_counter(), store.requests
    yield
    seconds, requests = time.perf_counter() - began, store.requests - before
    print(f"{what}: {seconds:.2f} s, {requests} writes ({requests / of:.4f} each)", flush=True)


def in_batches(store: ZooKeeperStore, epoch: int, writes: Sequence[StoredWrite], size: int) -> None:
    for start in range(0, len(writes), size):
        store.write(epoch, writes[start : start + size])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, zookeeper_kit.running(Path(folder)) as servers:
        store = ZooKeeperStore(zookeeper_kit.connect(servers[0].address, "bench"))
        epoch = store.acquire()
        burst = [task(number) for number in range(4_000)]
        with timed("4,000 tasks launched, running, finished; updates 80 at a time", store, 4_000):
            in_batches(store, epoch, burst, 2_000)
            in_batches(store, epoch, burst, 80)
            in_batches(store, epoch, [StoredWrite(write.kind, write.key, None) for write in burst], 80)
        with timed("10,000 jobs stored", store, 10_000):
            in_batches(store, epoch, [write for number in range(10_000) for write in job(number)], 2_000)
        with timed("100,000 tasks stored", store, 100_000):
            in_batches(store, epoch, [task(number) for number in range(100_000)], 2_000)
        with timed("3,000 writes of 3 tasks next to them", store, 9_000):
            in_batches(store, epoch, [task(number * 37 % 100_000) for number in range(9_000)], 3)
        heir = ZooKeeperStore(zookeeper_kit.connect(servers[0].address, "bench"))
        with timed("a new leader's start", heir, 1):
            heir.acquire()
            stored = heir.load()
        print({kind.value: len(records) for kind, records in stored.records.items() if records})
        store.close()
        heir.close()


if __name__ == "__main__":
    main()
