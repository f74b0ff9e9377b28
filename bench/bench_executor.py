"""How quick and how small an executor is: `python bench/bench_executor.py [RUNS]`.

Launch to user code, in a warm worker, beside a process of the shard's own; short shards a second through one executor;
the memory of daemon and worker as runs go by. The agent is a scripted one on this machine, which takes its share.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from executor_kit import ExecutorProcess, FakeAgent, app_payload, interpreters, zip_of

JOBS = "import os, time\n\ndef now(ctx):\n    return [time.time(), os.getpid()]\n"
LATENCIES = 200
BATCH = 500


def latencies(agent: FakeAgent, isolation: str, count: int) -> list[float]:
    """Milliseconds from LAUNCH to the first line of user code, one shard at a time."""
    found = []
    for number in range(count):
        task = f"{isolation}{number}"
        before = time.time()
        agent.launch(task, jobClass="bench_jobs:now", isolation=isolation)
        found.append((agent.end(task).data["result"][0] - before) * 1000)
        agent.calls.clear()
    return found


def batch(agent: FakeAgent, first: int, count: int) -> float:
    """Shards a second, all launched at once."""
    before = time.monotonic()
    for number in range(first, first + count):
        agent.launch(f"b{number}", jobClass="bench_jobs:now")
    ended = 0
    while ended < count:
        time.sleep(0.05)
        states = [call["update"]["status"]["state"] for call in list(agent.calls) if call["type"] == "UPDATE"]
        ended = states.count("TASK_FINISHED")
    agent.calls.clear()
    return count / (time.monotonic() - before)


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    package = zip_of({"bench_jobs.py": JOBS})
    agent = FakeAgent(app_payload(package, maxParallel=8))
    with tempfile.TemporaryDirectory() as sandbox:
        executor = ExecutorProcess(agent, Path(sandbox) / "sandbox", package, interpreters()[0])
        try:
            agent.launch("warm", jobClass="bench_jobs:now")
            worker = agent.end("warm").data["result"][1]
            for isolation, count in (("shared", LATENCIES), ("process", 20)):
                found = latencies(agent, isolation, count)
                print(
                    f"launch to user code, {isolation}: median {statistics.median(found):.1f} ms, max {max(found):.1f}"
                )
            for first in range(0, runs, BATCH):
                rate = batch(agent, first, BATCH)
                daemon_mb, worker_mb = resident_mb(executor.process.pid), resident_mb(worker)
                print(f"{first + BATCH:7} runs: {rate:5.0f}/s, daemon {daemon_mb:.1f} MB, worker {worker_mb:.1f} MB")
        finally:
            executor.stop()
            agent.down()


if __name__ == "__main__":
    main()
