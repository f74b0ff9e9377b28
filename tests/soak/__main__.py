"""`python -m tests.soak [--minutes N] [--keep FOLDER]`: start the servers, inject faults for N minutes, check the jobs.

Needs a real ZooKeeper or etcd (Debian's packages) and JOBCLOUD_TEST_MESOS. To cut a leader off from the network, it
also needs root and `ip` (Debian's iproute2); without them it says so and goes on. Prints figures and the verdict. The
exit code is 0 if no shard was lost or doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import etcd_kit, zookeeper_kit
from tests.soak import checker, partition
from tests.soak.servers import Front, Mesos
from tests.whole_kit import Product, until

AGENTS = 10
RESOURCES = "cpus:16;mem:8192;disk:20000;ports:[31000-32000]"
SESSION_S = 3
RESIDENT, RESIDENT_SHARDS = 200, 10
WORK, WORK_SHARDS = 100, 20
# All shards fail at once, each with a long message. The run ends within some seconds.
WIDE_SHARDS, WIDE_S = 5_000, 15
# 4,000 shards of the first and 5,000 of the second kind fit on nine agents.
CPU, WIDE_CPU = 0.018, 0.01
# The scheduler in a network namespace of its own.
APART = 2
# The final calm starts two seconds before a minute. Every job fires in the first ten seconds of the minute.
CALM_S = 15
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Times:
    """Durations in seconds."""

    work: int = 50  # of a shard of a TRANSIENT job
    pause: tuple[float, float] = (5, 15)  # between faults
    measured: int = 25  # measurement of the load
    # After the last fault, due shards are awaited as long as some end: on a slow machine they are late, not lost.
    max_drain: int = 2_400
    max_pause: int = 120  # between two ends
    wide: tuple[int, ...] = (40,)  # the seconds of a minute at which the wide job fires


BRIEF = Times(20, (1, 3), 8, 120, 60, (20, 50))


class Soak:
    def __init__(self, folder: Path, seed: int, part: int, times: Times, store: str) -> None:
        """`part` divides the number of jobs. `store` is "zookeeper" or "etcd"."""
        self.store = store
        self.folder, self.times = folder, times
        self.residents, self.works, self.wide = RESIDENT // part, WORK // part, WIDE_SHARDS // part
        self.dice = random.Random(seed)
        self.faults: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}
        self.log = folder / "log"
        self.log.mkdir()
        self.token = folder / "token"
        self.token.write_text("t0ken-of-all\n")
        self.token.chmod(0o600)
        self._ending = threading.Event()

    def set_up(self, stack: contextlib.ExitStack) -> None:
        running = etcd_kit.running if self.store == "etcd" else zookeeper_kit.running
        self.servers: Sequence[etcd_kit.Member | zookeeper_kit.Server] = stack.enter_context(
            running(self.folder / "store", 3)
        )
        self.mesos = Mesos(self.folder / "mesos", AGENTS, RESOURCES)
        stack.callback(self.mesos.stop)
        self.front = Front([f"127.0.0.{number + 1}" for number in range(3)])
        stack.callback(self.front.stop)
        self.schedulers = [self._scheduler(number) for number in range(3)]
        self.apart = self._set_apart(stack)
        stack.callback(self._end_schedulers)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        # The first one leads, so the first partition needs no change of the leader.
        self._start(APART)
        until(self.leader, "a leader")
        for number in range(APART):
            self._start(number)
        stack.callback(self._ending.set)
        threading.Thread(target=self._restart_schedulers, daemon=True).start()

    def _scheduler(self, number: int) -> Product:
        home = self.folder / f"scheduler{number}"
        home.mkdir()
        product = Product(home)
        product.data = self.folder / "data"
        product.environ |= {
            "JOBCLOUD_ARTIFACTS_HOST": f"127.0.0.{number + 1}",
            "JOBCLOUD_ARTIFACTS_PORT": str(self.front.port),
            "JOBCLOUD_ARTIFACTS_ADVERTISE": self.front.address,
            "JOBCLOUD_MESOS_MASTER": self.mesos.master,
            self._setting("HOSTS"): ",".join(server.address for server in self.servers),
            self._setting("SESSION_TIMEOUT"): f"{SESSION_S}s",
            "JOBCLOUD_HTTP_TOKEN_FILE": str(self.token),
            "JOBCLOUD_TOKEN": "t0ken-of-all",
            "JOBCLOUD_SCHEDULING_HISTORY": "3",
        }
        return product

    def _setting(self, name: str) -> str:
        """The environment variable of a setting of the store."""
        return f"JOBCLOUD_{self.store.upper()}_{name}"

    def _set_apart(self, stack: contextlib.ExitStack) -> partition.Namespace | None:
        """Give one scheduler a network namespace of its own; None if this machine allows none."""
        try:
            apart = stack.enter_context(partition.namespace())
        except partition.Impossible as error:
            print(f"no leader is cut off from the network: {error}", flush=True)
            return None
        product = self.schedulers[APART]
        product.wrapper = apart.wrapper
        servers = [f"{apart.outside}:{server.port}" for server in self.servers]
        product.environ |= {
            "JOBCLOUD_ARTIFACTS_HOST": apart.inside,
            "JOBCLOUD_HTTP_HOST": apart.inside,
            "JOBCLOUD_MESOS_MASTER": f"{apart.outside}:{self.mesos.port}",
            self._setting("HOSTS"): ",".join(servers),
            # Its servers are on loopback, behind the forwarders.
            self._setting("OPEN_KEYS" if self.store == "etcd" else "OPEN_TREE"): "true",
        }
        self.front.backends[APART] = apart.inside
        outward = [(apart.outside, port, "127.0.0.1") for port in (self.mesos.port, *(s.port for s in self.servers))]
        for address, port, target in (*outward, ("127.0.0.1", product.port, apart.inside)):
            stack.callback(partition.Forwarder(address, port, target).stop)
        return apart

    def _start(self, number: int) -> None:
        product = self.schedulers[number]
        self.processes[number] = product.start("scheduler", "--data", str(product.data), "--port", str(product.port))

    def _restart_schedulers(self) -> None:
        """Restart schedulers that have ended, as a supervisor does."""
        while not self._ending.wait(0.5):
            for number, process in list(self.processes.items()):
                if process.poll() is not None and not self._ending.is_set():
                    self._start(number)

    def _end_schedulers(self) -> None:
        self._ending.set()
        for product in self.schedulers:
            product.end()

    def leader(self) -> int | None:
        """The number of the leader, counted from 1; None if there is none."""
        return next((number + 1 for number, product in enumerate(self.schedulers) if product.leads()), None)

    def leading(self) -> tuple[int, subprocess.Popen[bytes]]:
        number: int = until(self.leader, "a leader")
        return number - 1, self.processes[number - 1]

    # ---- load ------------------------------------------------------------------------------------------------

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs but two fire in the first ten seconds of a minute, so that 4,000 shards run at once."""
        made = [
            self._job(f"resident{n}", "DAEMON", f"{n % 10} * * * * ?", RESIDENT_SHARDS, 0)
            for n in range(self.residents)
        ]
        made += [
            self._job(f"work{n}", "TRANSIENT", f"{n % 10} * * * * ?", WORK_SHARDS, self.times.work)
            for n in range(self.works)
        ]
        made.append(self._job(checker.EVERY_SECOND, "TRANSIENT", "* * * * * ?", 1, 0))
        # Each firing is made up for or waits, so each of them runs.
        policy = {"misfire": True, "catchUp": "all", "retryCount": 0}
        seconds = ",".join(map(str, self.times.wide))
        wide = self._job(checker.WIDE, "TRANSIENT", f"{seconds} * * * * ?", self.wide, 0)
        return [*made, wide | {"jobClass": "soak_jobs:Fail", "cpuCount": WIDE_CPU} | policy]

    def _job(self, name: str, kind: str, cron: str, shards: int, seconds: int) -> dict[str, Any]:
        return {
            "jobName": name, "jobType": "SIMPLE", "jobClass": "soak_jobs:Work", "jobExecutionType": kind, "cron": cron,
            "shardingTotalCount": shards, "shardingItemParameters": ",".join(f"{n}={seconds}" for n in range(shards)),
            "jobParameter": str(self.log), "cpuCount": CPU, "memoryMB": 1, "failover": True,
            **({"misfire": True, "catchUp": "once"} if seconds else {}),
        }  # fmt: skip

    def register(self) -> None:
        app = self.folder / "app"
        app.mkdir()
        shutil.copy(HERE / "app" / "soak_jobs.py", app)
        lines = ["[app]", 'appName = "soak"', "cpuCount = 0.5", "memoryMB = 256", "idleTimeoutSeconds = 600"]
        for job in self.jobs():
            lines.append("[[jobs]]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in job.items()]
        (app / "jobcloud.toml").write_text("\n".join(lines) + "\n")
        number, _ = self.leading()
        # Each job is one write, which takes long with three ZooKeeper servers on one busy disk.
        self.schedulers[number].run("app", "add", str(app), seconds=300)

    def plan(self, span: tuple[float, float], calm: tuple[float, float], *accounts: dict[str, int]) -> None:
        jobs = [
            {
                "name": job["jobName"], "kind": job["jobExecutionType"], "cron": job["cron"],
                "shards": job["shardingTotalCount"], "complete": "catchUp" in job,
            }
            for job in self.jobs()
        ]  # fmt: skip
        (self.folder / "plan.json").write_text(
            json.dumps({"jobs": jobs, "span": span, "calm": calm, "accounts": accounts})
        )
        (self.folder / "faults.json").write_text(json.dumps(self.faults))

    def wait_for_due_work(self, span: tuple[float, float]) -> None:
        """Wait until the shards that were due in the span have ended, or until none of them ends any more."""
        self.plan(span, (0, 0))
        last = time.monotonic() + self.times.max_drain
        left, pause_ends = checker.unfinished(self.folder), time.monotonic() + self.times.max_pause
        while left and time.monotonic() < min(last, pause_ends):
            time.sleep(3)
            before, left = left, checker.unfinished(self.folder)
            if left < before:
                pause_ends = time.monotonic() + self.times.max_pause

    # ---- faults ----------------------------------------------------------------------------------------------

    def fault(self, event: str, **more: Any) -> float:
        """Record a fault. Returns its time."""
        at = time.time()
        self.faults.append({"event": event, "at": at, **more})
        print(f"  {time.strftime('%H:%M:%S')} {event} {more or ''}", flush=True)
        return at

    def partition_the_leader(self) -> None:
        assert self.apart is not None
        while self.leading()[0] != APART:
            self.stop_the_leader()
        _, process = self.leading()
        before = self.epoch_seen()
        self.apart.cut()
        at = self.fault(checker.PARTITIONED)
        self._taken_over(at, before, "partitioned_s")
        assert process.wait(60) == 1, "a partitioned leader ends with exit code 1"
        self.figures.setdefault("partitioned_leader_ended_s", []).append(round(time.time() - at, 2))
        self.apart.mend()
        until(lambda: self.schedulers[APART].call("health")[0], "the answer of the scheduler behind the link")
        assert not self.schedulers[APART].leads(), "a scheduler whose link is back stands by"

    def kill_the_leader(self) -> None:
        _, process = self.leading()
        before = self.epoch_seen()
        at = self.fault("leader killed")
        process.kill()
        self._taken_over(at, before, "fail_over_s")

    def stop_the_leader(self) -> None:
        _, process = self.leading()
        before = self.epoch_seen()
        at = self.fault("leader stopped in order")
        process.send_signal(signal.SIGTERM)
        self._taken_over(at, before, "orderly_s")
        assert process.wait(30) == 0, "an orderly stop ends with exit code 0"

    def freeze_the_leader(self) -> None:
        _, process = self.leading()
        before = self.epoch_seen()
        at = self.fault("leader frozen")
        process.send_signal(signal.SIGSTOP)
        self._taken_over(at, before, "thawed_s")
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 1, "a replaced leader ends with exit code 1"

    def _taken_over(self, at: float, before: int, figure: str) -> None:
        """Wait until a shard starts that a later leader has launched."""
        first = until(lambda: self._first_start(at, before), "a launch by the next leader", 60)
        self.figures.setdefault(figure, []).append(round(first - at, 2))

    def _first_start(self, at: float, before: int) -> float:
        starts = [
            line["at"] for line in self._recent(at) if line["event"] == "start" and checker.epoch(line["task"]) > before
        ]
        return min(starts, default=0.0)

    def epoch_seen(self) -> int:
        until(lambda: self._recent(time.time() - 5), "some work")
        return max(checker.epoch(line["task"]) for line in self._recent(time.time() - 30))

    def _recent(self, since: float) -> list[dict[str, Any]]:
        """The jobs' records since a time, from the ends of the files."""
        found = []
        for path in self.log.glob("*.jsonl"):
            if path.stat().st_mtime < since:
                continue
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 200_000))
                lines = file.read().splitlines()
            for text in lines:
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    if line["at"] >= since:
                        found.append(line)
        return found

    def restart_the_store(self) -> None:
        for server in self.servers:
            self.fault(f"server of {self.store} killed", port=server.port)
            server.kill()
            time.sleep(2)
            server.start()
            server.wait()
        until(self.leader, "a leader")

    def crash_mesos(self) -> None:
        self.fault("Mesos crashed")
        self.mesos.crash_and_return()
        self.fault("Mesos back")
        until(self.leader, "a leader")

    def lose_an_agent(self) -> None:
        agents = [one["id"] for one in self.mesos.state()["slaves"] if one["active"]]
        agent = self.dice.choice(agents)
        self.fault("agent gone", agent=agent)
        self.mesos.mark_gone(agent)

    # ---- accounts --------------------------------------------------------------------------------------------

    def punctual(self) -> dict[str, int]:
        """A fire time of the job of every second, and the number of its firings that were skipped until then.

        The firing starts before the next one is due, and no firing is skipped meanwhile, so the number is exact. The
        firing has ended.
        """
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            skipped, at = self._skipped(), time.time()
            time.sleep(2)
            lines = [line for line in self._recent(at) if line["job"] == checker.EVERY_SECOND]
            in_time = {line["task"] for line in lines if line["event"] == "start" and line["at"] < fire_s(line) + 1}
            fires = [fire_s(line) for line in lines if line["event"] == "end" and line["task"] in in_time]
            if fires and self._skipped() == skipped:
                return {"fire_s": fires[0], "skipped": skipped}
        raise AssertionError(f"{checker.EVERY_SECOND} never starts in time: the machine is too slow")

    def _skipped(self) -> int:
        number, _ = self.leading()
        return int(self.schedulers[number].get(f"jobs/{checker.EVERY_SECOND}")["skippedFirings"])

    def check_wide_runs(self) -> None:
        """The scheduler knows of each shard of the wide job that it failed."""
        number, _ = self.leading()
        ended = [run["shardStates"] for run in self.schedulers[number].runs(checker.WIDE, "FAILED")]
        assert ended, f"no run of {checker.WIDE} has failed"
        assert all(states == {"FAILED": self.wide} for states in ended), ended

    # ---- measuring -------------------------------------------------------------------------------------------

    def peak(self) -> None:
        """Measure the load while all shards run at once."""
        self.until_running(self.residents * RESIDENT_SHARDS + self.works * WORK_SHARDS)
        self.figures["running"] = self.mesos.counted()
        _, process = self.leading()
        began, cpu = time.monotonic(), cpu_seconds(process.pid)
        time.sleep(self.times.measured)
        share = (cpu_seconds(process.pid) - cpu) / (time.monotonic() - began)
        self.figures["cpu_share_then"] = round(share, 3)
        self.figures["resident_mb"] = resident_mb(process.pid)

    def until_running(self, wanted: int) -> None:
        deadline, peak = time.monotonic() + 240, 0
        while (running := self.mesos.running()) < wanted or self._wide_runs():
            peak = max(peak, running)
            assert time.monotonic() < deadline, f"only {peak} of {wanted} shards ran at once: the machine is too slow"
            time.sleep(0.5)

    def _wide_runs(self) -> bool:
        """Whether shards of the wide job may be among those that run."""
        return any((time.time() - second) % 60 < WIDE_S for second in self.times.wide)

    def count_writes(self) -> Callable[[], None]:
        """Count the writes of the store until the returned function is called."""
        before, lines = self._transactions(), len(checker.read(self.log))

        def stop() -> None:
            shards = sum(line["event"] == "start" for line in checker.read(self.log)[lines:])
            self.figures["writes_per_run"] = round((self._transactions() - before) / max(shards, 1), 4)

        return stop

    def _transactions(self) -> int:
        return max(server.transactions() for server in self.servers)


def fire_s(line: dict[str, Any]) -> int:
    """The fire time in a record of a job."""
    return int(line["fire_ms"]) // 1000


def sleep_to_second(second: int) -> None:
    time.sleep((second - time.time()) % 60)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="jobcloud-soak-") as name:
        yield Path(name)


def run(folder: Path, minutes: float, seed: int, part: int, times: Times, store: str) -> bool:
    print(f"seed {seed}", flush=True)
    soak = Soak(folder, seed, part, times, store)
    with contextlib.ExitStack() as stack:
        soak.set_up(stack)
        soak.register()
        soak.until_running(soak.residents * RESIDENT_SHARDS)
        first, account = time.time(), soak.punctual()
        count = soak.count_writes()
        soak.peak()
        time.sleep(times.work)
        count()
        print(json.dumps(soak.figures), flush=True)
        faults = [
            soak.kill_the_leader, soak.freeze_the_leader, soak.restart_the_store, soak.crash_mesos,
            soak.stop_the_leader, soak.lose_an_agent,
        ]  # fmt: skip
        end = time.monotonic() + minutes * 60
        faults = [*([soak.partition_the_leader] if soak.apart else []), *faults]
        sequence = list(faults)
        while sequence or time.monotonic() < end:
            sequence = sequence or soak.dice.sample(faults[:-1], len(faults) - 1)
            sequence.pop(0)()
            time.sleep(soak.dice.uniform(*times.pause))
        span = first, time.time()
        print("calm", flush=True)
        until(soak.leader, "a leader")
        soak.wait_for_due_work(span)
        sleep_to_second(58)
        calm = time.time(), time.time() + CALM_S
        time.sleep(CALM_S + 5)
        soak.plan(span, calm, account, soak.punctual())
        soak.check_wide_runs()
        number, _ = soak.leading()
        product = soak.schedulers[number]
        product.run("framework", "teardown", "--confirm", product.json("cluster")["frameworkId"])
    print(json.dumps(soak.figures))
    verdict = checker.check(folder)
    checker.report(verdict)
    return verdict.holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="minutes of faults; each fault is injected at least once"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=int, default=1, help="divide the number of jobs (300) by this")
    parser.add_argument("--brief", action="store_true", help="shorter shards and waits: less than four minutes in all")
    parser.add_argument("--store", choices=("zookeeper", "etcd"), default="zookeeper", help="keeps the state")
    parser.add_argument("--keep", type=Path, help="keep all files in this new folder")
    given = parser.parse_args()
    if problem := (etcd_kit if given.store == "etcd" else zookeeper_kit).missing():
        parser.error(problem)
    # The servers, the processes and the network namespace go in this case too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with folder_for(given.keep) as folder:
        held = run(folder, given.minutes, given.seed, given.part, BRIEF if given.brief else Times(), given.store)
    print("passed" if held else "FAILED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
