"""Speed and size of an executor: `python bench/bench_executor.py [RUNS] [--out FILE]`, or `make executor-soak`.

It measures: the time from LAUNCH to user code in a warm worker and in a process of the shard's own, in turns; short
shards per second through one executor; memory, descriptors and threads of daemon and worker over RUNS executions. Every
result is checked. The scripted agent runs on the same machine and takes its share of the CPU. Exits with 1 if an aim of
AIMS is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import described
from tests.executor_kit import ExecutorProcess, FakeAgent, app_payload, interpreters, zip_of

JOBS = "import os, time\n\ndef now(ctx):\n    return [time.time(), os.getpid()]\n"
PAIRS = 40
BATCH = 500
ROWS = 20
# Aims: shards per second, milliseconds to user code in a warm worker, MB of the daemon, and MB that either process may
# grow after the first quarter of the executions, when bounded tables such as that of ended tasks are full.
AIMS = {"rate": 200, "warm_ms": 30, "daemon_mb": 40, "growth_mb": 1}


class Bench:
    def __init__(self, sandbox: Path) -> None:
        package = zip_of({"bench_jobs.py": JOBS})
        self.agent = FakeAgent(app_payload(package, maxParallel=8))
        self.executor = ExecutorProcess(self.agent, sandbox, package, interpreters()[0])
        self._launch("warm", "shared")
        self.worker = int(self.agent.end("warm").data["result"][1])

    def stop(self) -> None:
        self.executor.stop()
        self.agent.close()

    def _launch(self, task: str, isolation: str) -> None:
        self.agent.launch(task, jobClass="bench_jobs:now", isolation=isolation)

    def latency_ms(self, task: str, isolation: str) -> float:
        """The time from LAUNCH to the first line of user code, for a single shard."""
        before = time.time()
        self._launch(task, isolation)
        end = self.agent.end(task)
        at, pid = end.data["result"]
        assert (end.state, pid == self.worker) == ("TASK_FINISHED", isolation == "shared")
        self.agent.calls.clear()
        return float(at - before) * 1000

    def batch(self, first: int) -> float:
        """Shards per second when BATCH are launched at once. Each must finish."""
        before = time.monotonic()
        for number in range(first, first + BATCH):
            self._launch(f"b{number}", "shared")
        states: list[str] = []
        while len(states) < BATCH:
            time.sleep(0.05)
            calls = [call for call in list(self.agent.calls) if call["type"] == "UPDATE"]
            reported = [call["update"]["status"]["state"] for call in calls]
            states = [state for state in reported if state not in ("TASK_STARTING", "TASK_RUNNING")]
        assert set(states) == {"TASK_FINISHED"}, set(states)
        self.agent.calls.clear()
        return BATCH / (time.monotonic() - before)


def state_of(pid: int) -> tuple[float, int, int]:
    """(resident MB, descriptors, threads)."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, threads = (int(status.partition(name + ":")[2].split()[0]) for name in ("VmRSS", "Threads"))
    return resident / 1024, len(os.listdir(f"/proc/{pid}/fd")), threads


def head(runs: int) -> str:
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    return f"# Speed and size of an executor\n\n{runs:,} executions. {described()}, {load}.\n"


def measured(bench: Bench, runs: int, missed: list[str]) -> Iterator[str]:
    pairs = [(bench.latency_ms(f"s{n}", "shared"), bench.latency_ms(f"p{n}", "process")) for n in range(PAIRS)]
    warm, fresh = (statistics.median(one[which] for one in pairs) for which in (0, 1))
    yield (
        f"Launch to user code, median of {PAIRS}: {warm:.1f} ms in the warm worker (aim {AIMS['warm_ms']}), "
        f"{fresh:.1f} ms in a process of its own: {fresh / warm:.0f} to 1.\n"
    )
    if warm > AIMS["warm_ms"]:
        missed.append("warm_ms")
    yield "| executions | per second | daemon MB, files, threads | worker MB, files, threads |"
    yield "| --- | --- | --- | --- |"
    rates: list[float] = []
    baseline: tuple[float, float] | None = None
    for done in range(BATCH, runs + 1, BATCH):
        rates.append(bench.batch(done))
        daemon, worker = state_of(bench.executor.process.pid), state_of(bench.worker)
        if baseline is None and done >= runs / 4:
            baseline = daemon[0], worker[0]
        if done % max(BATCH, runs // ROWS // BATCH * BATCH) == 0 or done + BATCH > runs:
            shown = (f"{mb:.1f}, {files}, {threads}" for mb, files, threads in (daemon, worker))
            yield f"| {done:,} | {statistics.median(rates[-ROWS:]):.0f} | {' | '.join(shown)} |"
    assert baseline is not None
    growth = daemon[0] - baseline[0], worker[0] - baseline[1]
    yield f"\nShards per second, median: {statistics.median(rates):.0f} (aim {AIMS['rate']})."
    yield (
        f"Growth after the first quarter: daemon {growth[0]:+.1f} MB, worker {growth[1]:+.1f} MB "
        f"(aim {AIMS['growth_mb']}). The daemon has {daemon[0]:.1f} MB (aim {AIMS['daemon_mb']})."
    )
    found = {"growth_mb": max(growth), "daemon_mb": daemon[0]}
    missed += [name for name, value in found.items() if value > AIMS[name]]
    if statistics.median(rates) < AIMS["rate"]:
        missed.append("rate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=int, default=5_000, help=f"a multiple of {BATCH} (%(default)s)")
    parser.add_argument("--out", type=Path, help="the report, in Markdown")
    asked = parser.parse_args()
    if asked.runs < BATCH or asked.runs % BATCH:
        parser.error(f"give a multiple of {BATCH}")
    lines, missed = [head(asked.runs)], list[str]()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "sandbox")
        try:
            for line in measured(bench, asked.runs, missed):
                print(line, flush=True)
                lines.append(line)
        finally:
            bench.stop()
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n")
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
