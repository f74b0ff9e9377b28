"""Jobs and workers that behave badly, in the whole product: the API, a scheduler, an agent, the executor.

On the dev cluster and on a real Mesos. Beside every bad job wait three good ones, one a kind of isolation; after it
they are looked at: who shared a process that died was started again, uncharged, and nobody else has noticed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor_kit import little_memory, living_in
from jobcloud.client.apps import add_app
from jobcloud.client.http import Client
from jobcloud.dev.cluster import DevCluster
from jobcloud.executor import bundle
from jobcloud.scheduler.retry import ALONE_AFTER
from whole_kit import Product, processes_with, until

Json = dict[str, Any]

APP = Path(__file__).parents[1] / "executor_kit" / "app"
MANIFEST = '[app]\nappName = "{}"\ncpuCount = 0.1\nmemoryMB = 32\n'
NEVER = "0 0 0 1 1 ? 2099"
GIB = 1 << 30
# A part of the sandbox that is on a disk of so many bytes, where one is full.
SMALL_DISK = 4 << 20
LOG_BYTES = 10 << 20
IN_SANDBOX = {bundle.FILE_NAME, "package.zip", "app", "tasks", "worker", "stdout", "stderr"}

SIBLINGS: dict[str, Json] = {
    "shared": {"jobClass": "shop.jobs:wait_for_kill"},
    "process": {"jobClass": "shop.jobs:wait_for_kill", "isolation": "process"},
    "script": {"jobType": "SCRIPT", "jobClass": "", "scriptCommandLine": "bin/behave.py wait_for_kill"},
}


class Mesos:
    """A real one, by the command in JOBCLOUD_TEST_MESOS; it crashes and comes back."""

    def __init__(self, folder: Path) -> None:
        command = os.environ.get("JOBCLOUD_TEST_MESOS")
        if not command:
            pytest.skip("needs a real Mesos: set JOBCLOUD_TEST_MESOS to the command that starts one")
        self._argv = [command, "up", "--with-parent", "--work-dir", str(folder)]
        self._start("--port", "0", "--agents", "1")

    def _start(self, *more: str) -> None:
        environ = {**os.environ, "MESOS_ALLOCATION_INTERVAL": "50ms"}
        self._process = subprocess.Popen([*self._argv, *more], stdout=subprocess.PIPE, text=True, env=environ)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline() if ready else ""
        assert line.startswith("ready "), line
        self.master = line.split()[1].removeprefix("master=")

    def restart_agent(self) -> None:
        """The master with it: they are one process here."""
        self._end(signal.SIGKILL)
        self._start("--keep")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Dev:
    """The dev cluster. Its executors die with its process: a restart is one of the connections."""

    def __init__(self, folder: Path) -> None:
        self._cluster = DevCluster(data=folder, allocation_interval_ms=50)
        self._cluster.start()
        self.master = self._cluster.master

    def restart_agent(self) -> None:
        self._cluster.control("drop_stream", agent=1)

    def stop(self) -> None:
        self._cluster.stop()


class House:
    """One agent, one app, three siblings."""

    def __init__(self, product: Product, client: Client, cluster: Mesos | Dev, work: Path) -> None:
        self.product, self.client, self.cluster, self.work = product, client, cluster, work
        self._jobs = 0
        self.siblings = {how: self._sibling(how) for how in SIBLINGS}
        self.attempts = dict.fromkeys(SIBLINGS, 1)

    def _sibling(self, how: str) -> str:
        """One that may lose an attempt by the cluster's doing, and any number that is not charged to it."""
        often = {"failover": True, "failoverAttempts": 1, "failoverDelaySeconds": 0.1, "failoverMaxDelaySeconds": 0.1}
        return self.start(**often, **SIBLINGS[how])

    def start(self, job_class: str = "", **job: Any) -> str:
        """Register a job and trigger it; the run's id."""
        self._jobs += 1
        name = f"job{self._jobs}"
        config = {
            "jobName": name,
            "appName": "shop",
            "jobType": "SIMPLE",
            "jobClass": job_class and f"shop.jobs:{job_class}",
            "jobExecutionType": "TRANSIENT",
            "cron": NEVER,
            "shardingTotalCount": 1,
            "cpuCount": 0.1,
            "memoryMB": 32,
            "killGraceSeconds": 0.5,
        }
        self.client.create_job({**config, **job})
        return str(self.client.trigger(name)["id"])

    def shard(self, run: str) -> Json:
        found: Json = self.client.run(run)["shards"][0]
        return found

    def running(self, run: str) -> Json:
        """The run's shard, once it has printed something."""

        def printed() -> Json | None:
            shard = self.shard(run)
            return shard if shard["startedAt"] and any(self.log_folder(shard["taskId"]).glob("std*")) else None

        return until(printed, f"{run} to run")

    def end(self, run: str, seconds: float = 60) -> Json:
        def ended() -> Json | None:
            shard = self.shard(run)
            return shard if shard["state"] not in ("WAITING", "ACTIVE") else None

        return until(ended, f"{run} to end; it is {self.shard(run)}", seconds)

    def did(self, run: str) -> tuple[str, str]:
        shard = self.end(run)
        return shard["state"], shard["cause"]

    def kill(self, run: str) -> None:
        self.client.kill(self.shard(run)["taskId"])

    def sandbox(self, app: str = "shop") -> Path:
        """Of the executor that lives."""

        def newest() -> Path | None:
            found = [path.parent for path in self.work.rglob(bundle.FILE_NAME) if f"/{app}@-@" in str(path)]
            return max(found, key=lambda path: path.stat().st_ctime_ns, default=None)

        return until(newest, f"a sandbox of {app}").resolve()

    def log_folder(self, task: str) -> Path:
        return self.sandbox() / "tasks" / task

    def processes(self) -> list[int]:
        """What runs for the app's shards: workers, scripts and whatever they have started."""
        return living_in(self.sandbox() / "app")

    def calm(self, *lost: str) -> None:
        """Each sibling waits, in its first attempt, or where its process was lost in the next one, and uncharged."""
        for how in lost:
            self.attempts[how] += 1
        for how, run in self.siblings.items():
            until(lambda run=run, how=how: self.shard(run)["attempt"] >= self.attempts[how], f"{how} to come back")  # type: ignore[misc]
            shard = self.running(run)
            seen = (shard["state"], shard["attempt"], shard["retries"])
            assert seen == ("ACTIVE", self.attempts[how], 0), f"{how}: {shard}"
        if self.attempts["shared"] > ALONE_AFTER:
            # By now it has a process of its own: another one takes its place.
            self.kill(self.siblings["shared"])
            assert self.end(self.siblings["shared"])["state"] == "KILLED"
            self.siblings["shared"], self.attempts["shared"] = self._sibling("shared"), 1
            self.running(self.siblings["shared"])

    def clean(self, processes: int = 3) -> None:
        """Nothing is left but the siblings' processes, and no file that is not an executor's."""
        until(lambda: len(self.processes()) == processes, f"nothing to be left: {self.processes()}")
        assert {path.name for path in self.sandbox().iterdir()} <= IN_SANDBOX


@pytest.fixture(
    scope="module",
    params=[pytest.param("dev", marks=pytest.mark.dev_cluster), pytest.param("mesos", marks=pytest.mark.mesos)],
)
def whole_house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("misbehaviour").resolve()
    work = folder / "cluster"
    cluster: Mesos | Dev = Mesos(work) if request.param == "mesos" else Dev(work)
    product = Product(folder)
    try:
        yield from serve(product, cluster, work)
    finally:
        product.end()
        cluster.stop()
    until(lambda: not processes_with(str(folder)), f"the process tree to end: {processes_with(str(folder))}")
    assert "Traceback" not in (folder / "scheduler.log").read_text()


def serve(product: Product, cluster: Mesos | Dev, work: Path) -> Iterator[House]:
    product.environ["JOBCLOUD_ARTIFACTS_PORT"] = "0"
    scheduler = product.start(
        "scheduler", "--mesos", cluster.master, "--data", str(product.data), "--port", str(product.port)
    )
    until(product.healthy, "a healthy server")
    app = product.folder / "shop"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    (app / "jobcloud.toml").write_text(MANIFEST.format("shop"))
    known = json.loads((product.folder / "jobcloud" / f"{product.port}.json").read_text())
    with Client(known["url"], known["token"]) as client:
        add_app(client, app)
        house = House(product, client, cluster, work)
        house.calm()
        yield house
        client.tear_down(client.cluster()["frameworkId"])
        assert scheduler.wait(20) == 0


@pytest.fixture
def house(whole_house: House) -> Iterator[House]:
    whole_house.calm()
    yield whole_house
    whole_house.clean()


ISOLATIONS = ("shared", "process")


# ------------------------------------------------------------------------------------- what a job does to itself alone


BEAN = {"jobClass": "", "beanName": "settle"}
ALONE: dict[str, tuple[Json, str, str, str]] = {
    "import error": ({"jobClass": "broken:Job"}, "FAILED", "import", "no_such_module"),
    "missing module": ({"jobClass": "nowhere:Job"}, "FAILED", "import", "nowhere"),
    "missing class": ({"jobClass": "shop.jobs:Missing"}, "FAILED", "import", "Missing"),
    "wrong type": ({"jobClass": "shop.jobs:NotAJob"}, "FAILED", "import", "NotAJob"),
    "class that cannot be made": ({"jobClass": "shop.jobs:Unmakeable"}, "FAILED", "import", "no connection"),
    "broken context": ({**BEAN, "applicationContext": "shop.jobs:broken_context"}, "FAILED", "context", "no database"),
    "context without the bean": (
        {"jobClass": "", "beanName": "no", "applicationContext": "shop.jobs:context"}, "FAILED", "context", "settle"
    ),
    "exception": ({"jobClass": "shop.jobs:Raises"}, "FAILED", "exception", "no stock"),
    "exception in __del__": ({"jobClass": "shop.jobs:BadFarewell"}, "FINISHED", "", ""),
    "exception in a listener before": (
        {"jobClass": "shop.jobs:works_on", "listener": ["shop.jobs:Refuses"]}, "FAILED", "listener", "not today"
    ),
    "exception in a listener after": (
        {"jobClass": "shop.jobs:works_on", "listener": ["shop.jobs:Spoils"]}, "FAILED", "listener", "no room"
    ),
    "sys.exit": ({"jobClass": "shop.jobs:exits_with_3"}, "FAILED", "exit_code", "3"),
    "exits with nonsense": ({"jobClass": "shop.jobs:exits_oddly"}, "FAILED", "exit_code", "1" * 40),
    "no memory": ({"jobClass": "shop.jobs:wants_memory"}, "FAILED", "out_of_memory", "MemoryError"),
    "sys.stdout closed": ({"jobClass": "shop.jobs:closes_streams"}, "FINISHED", "", ""),
    "streams replaced and closed": ({"jobClass": "shop.jobs:replaces_streams"}, "FINISHED", "", ""),
    "a generator": ({"jobClass": "shop.jobs:yields"}, "FAILED", "exception", "it yields"),
    "descriptors closed": ({"jobClass": "shop.jobs:closes_descriptors"}, "FINISHED", "", ""),
    "1 GB result": ({"jobClass": "shop.jobs:giant_result"}, "FINISHED", "", "the result was dropped"),
    "result that changes": ({"jobClass": "shop.jobs:fickle_result"}, "FINISHED", "", ""),
    "result nested deeply": ({"jobClass": "shop.jobs:deep_result"}, "FINISHED", "", "the result was dropped"),
    "result that is no JSON": ({"jobClass": "shop.jobs:odd_result"}, "FINISHED", "", "the result was dropped"),
    "output and error not UTF-8": ({"jobClass": "shop.jobs:not_utf8"}, "FAILED", "exception", "ValueError"),
    "huge error": ({"jobClass": "shop.jobs:huge_error"}, "FAILED", "exception", "characters left out"),
    "error that cannot be told": ({"jobClass": "shop.jobs:unspeakable"}, "FAILED", "exception", "Unspeakable"),
}  # fmt: skip


def test_what_harms_nobody_is_the_end_of_its_own_shard_and_the_reason_is_given(house: House) -> None:
    """All at once, beside each other: shared ones in one worker."""
    runs = {
        (what, how): house.start(**{**job, "isolation": how}) for what, (job, *_) in ALONE.items() for how in ISOLATIONS
    }
    wrong = []
    for (what, how), run in runs.items():
        _, state, cause, says = ALONE[what]
        shard = house.end(run)
        if (shard["state"], shard["cause"], shard["attempt"]) != (state, cause, 1) or says not in shard["message"]:
            wrong.append((what, how, shard))
        shard["message"].encode()
    assert not wrong
    house.calm()


def test_output_that_is_no_text_can_be_read(house: House) -> None:
    for job in ({"job_class": "not_utf8"}, {"jobType": "SCRIPT", "scriptCommandLine": "printf '\\377\\376'"}):
        run = house.start(**job)
        assert house.client.log(house.end(run)["taskId"])["text"] == "\ufffd\ufffd"


def test_a_changed_directory_or_environment_is_seen_in_its_process_alone(house: House) -> None:
    app = str(house.sandbox() / "app")
    house.end(house.start("changes_process", isolation="process"))

    def seen(how: str) -> list[Any]:
        found: list[Any] = house.end(house.start("sees_process", isolation=how))["result"]
        return found[:3]

    assert seen("shared") == seen("process") == [app, None, None]
    house.end(house.start("changes_process"))
    assert seen("shared") == ["/", "1", "changed"]
    assert seen("process") == [app, None, None]
    house.calm()
    house.end(house.start("dies"))
    house.calm("shared")
    assert seen("shared") == [app, None, None]


def test_two_apps_with_modules_of_one_name_never_meet(house: House) -> None:
    other = house.product.folder / "other"
    (other / "shop").mkdir(parents=True)
    (other / "shop" / "__init__.py").touch()
    (other / "shop" / "jobs.py").write_text("def works_on(ctx):\n    return 'the other one'\n")
    (other / "jobcloud.toml").write_text(MANIFEST.format("other"))
    add_app(house.client, other)
    runs = {app: [house.start("works_on", appName=app) for _ in range(2)] for app in ("shop", "other")}
    results = {app: {house.end(run)["result"] for run in of_app} for app, of_app in runs.items()}
    assert results == {"shop": {"done"}, "other": {"the other one"}}
    house.client.remove_app("other", jobs=True)


# ------------------------------------------------------------------------------------------- what costs its process


@pytest.mark.parametrize(
    ("job", "cause", "says"),
    [
        ("dies", "exit_code", "exit code 9"),
        ("segfaults", "signal", "SIGSEGV"),
        ("killed", "signal", "SIGKILL"),
        ("talks_nonsense", "signal", "broke the protocol"),
        ("closes_everything", "signal", "closed its pipe"),
    ],
)
def test_who_takes_the_process_down_fails_and_those_in_it_start_again_uncharged(
    house: House, job: str, cause: str, says: str
) -> None:
    alone = house.end(house.start(job, isolation="process"))
    assert (alone["state"], alone["cause"]) == ("FAILED", cause), alone
    assert says in alone["message"]
    house.calm()
    shared = house.end(house.start(job))
    assert (shared["state"], shared["cause"]) == ("FAILED", "worker_lost")
    house.calm("shared")


def test_who_takes_the_worker_down_each_time_is_found_and_fails_alone(house: House) -> None:
    guilty = house.end(house.start("dies", failover=True, failoverDelaySeconds=0.1, failoverAttempts=0))
    assert (guilty["state"], guilty["cause"], guilty["attempt"]) == ("FAILED", "exit_code", ALONE_AFTER + 1)
    sibling = house.shard(house.siblings["shared"])
    assert 1 < sibling["attempt"] <= ALONE_AFTER + 1
    house.attempts["shared"] = sibling["attempt"]
    house.calm()


def test_a_worker_that_answers_twice_ends_its_shard_once(house: House) -> None:
    assert house.did(house.start("answers_twice", isolation="process")) == ("FINISHED", "")
    house.calm()
    assert house.did(house.start("answers_twice")) == ("FINISHED", "")
    house.calm("shared")


@pytest.mark.parametrize("worker", ["nonsense", "silence"])
def test_a_worker_of_the_apps_own_that_cannot_be_one_is_told_so(house: House, worker: str) -> None:
    code = 'import os, sys; os.write(int(sys.argv[-1]), b"what?\\n")' if worker == "nonsense" else "import time"
    command = f"{sys.executable} -c \"{code.replace(chr(34), chr(92) + chr(34))}; __import__('time').sleep(600)\""
    odd = house.product.folder / worker
    odd.mkdir()
    (odd / "jobs.py").touch()
    (odd / "jobcloud.toml").write_text(MANIFEST.format(worker))
    added = add_app(house.client, odd).app["config"]
    house.client.put_app({**added, "bootstrapScript": command})
    run = house.start("any", appName=worker, failoverAttempts=1, failoverDelaySeconds=0.1, retryCount=0)
    if worker == "nonsense":
        shard = house.end(run)
        # What never ran is tried again whatever the job says, in a worker that it shares and then in one of its own.
        assert (shard["state"], shard["attempt"]) == ("FAILED", ALONE_AFTER + 1)
        assert "broke the protocol" in shard["message"]
    else:
        until(
            lambda: house.shard(run)["taskId"] and living_in(house.sandbox(worker) / "app"), "the worker to be silent"
        )
        house.kill(run)
        assert house.end(run)["state"] == "KILLED"
    assert not living_in(house.sandbox(worker) / "app")
    script = house.start(appName=worker, jobType="SCRIPT", scriptCommandLine="true")
    assert house.did(script) == ("FINISHED", "")
    house.client.remove_app(worker, jobs=True)


# ----------------------------------------------------------------------------------------------- what does not end


STUBBORN = ("masks_signals", "deadlocks", "never_returns", "burns_cpu")


def test_shards_that_hear_nothing_are_ended_all_the_same(house: House) -> None:
    """By a kill, and where they have a process of their own by timeoutSeconds too."""
    alone = [house.start(job, isolation="process") for job in STUBBORN]
    late = [house.start(job, isolation="process", timeoutSeconds=0.5) for job in STUBBORN]
    shared = [house.start(job) for job in STUBBORN]
    script = house.start(jobType="SCRIPT", scriptCommandLine="bin/behave.py never_returns")
    killed = [*alone, *shared, script]
    for run in killed:
        until(lambda run=run: house.shard(run)["startedAt"], "its start")  # type: ignore[misc]
    for run in killed:
        house.kill(run)
    assert [house.end(run)["state"] for run in killed] == ["KILLED"] * len(killed)
    assert [house.did(run) for run in late] == [("FAILED", "timeout")] * len(late)
    house.calm("shared")


@pytest.mark.parametrize("how", ISOLATIONS)
def test_a_fork_bomb_ends_with_its_process(house: House, how: str) -> None:
    run = house.start("forks_wildly", isolation=how)
    siblings = 3 + (how == "process")
    until(lambda: len(house.processes()) >= siblings + 63, "it to fork")
    house.kill(run)
    assert house.end(run)["state"] == "KILLED"
    if how == "shared":
        house.calm()
        house.end(house.start("dies"))
        house.calm("shared")
    house.clean()


# ------------------------------------------------------------------------------------------------------------- floods


def test_a_gigabyte_of_output_fills_no_disk_and_slows_no_other(house: House) -> None:
    sizes = {"shared": GIB, "process": GIB // 4, "script": GIB // 4}
    floods = {how: house.start("floods", shardingItemParameters=f"0={sizes[how]}", isolation=how) for how in ISOLATIONS}
    command = f"sh -c 'head -c {sizes['script']} /dev/zero'"
    floods["script"] = house.start(jobType="SCRIPT", scriptCommandLine=command)
    for _ in range(3):
        assert house.did(house.start("works_on")) == ("FINISHED", "")
    for how, run in floods.items():
        shard = house.end(run, 120)
        assert (shard["state"], shard["cause"]) == ("FINISHED", "")
        kept = [path.stat().st_size for path in house.log_folder(shard["taskId"]).iterdir()]
        assert len(kept) == 2
        assert max(kept) <= LOG_BYTES
        assert house.client.log(shard["taskId"], tail=1)["size"] == sizes[how]
    house.calm()


# ------------------------------------------------------------------------------------------- what the machine refuses


def may(capability: int) -> bool:
    """Whether this process has that capability. Source: capabilities(7), proc(5)."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> capability & 1)


SYS_ADMIN = 21


@pytest.fixture
def full_disk(house: House) -> Iterator[Path]:
    """The folder of the tasks' output, on a disk of its own that is full."""
    disk = house.sandbox() / "tasks"
    if not may(SYS_ADMIN):
        pytest.skip("only who may mount can have a disk that is small enough to be full")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_costs_output_and_the_job_that_needs_room_and_no_other(house: House, full_disk: Path) -> None:
    filler = house.end(house.start("fills_up", jobParameter=str(full_disk / "data")))
    assert (filler["state"], filler["cause"]) == ("FAILED", "exception")
    assert "No space left" in filler["message"]
    for how in ISOLATIONS:
        assert house.did(house.start("prints_much", isolation=how)) == ("FINISHED", "")
        assert house.did(house.start("works_on", isolation=how)) == ("FINISHED", "")
    assert house.did(house.start(jobType="SCRIPT", scriptCommandLine="sh -c 'echo much'")) == ("FINISHED", "")
    assert house.attempts == {how: house.shard(run)["attempt"] for how, run in house.siblings.items()}


@pytest.fixture
def small_group(house: House) -> Iterator[Path]:
    """A control group with little memory, and in it from now on whatever the executor starts."""
    with little_memory() as group:
        (group / "cgroup.procs").write_text(str(daemon_of(house)))
        yield group
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)


def daemon_of(house: House) -> int:
    (found,) = (
        pid
        for pid in living_in(house.sandbox())
        if bundle.FILE_NAME.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and not leads_nobody(pid)
    )
    return found


def leads_nobody(pid: int) -> bool:
    """A warden has no child, the daemon its warden."""
    return not Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.usefixtures("small_group")
def test_what_the_kernel_kills_for_want_of_memory_is_told_so(house: House) -> None:
    alone = house.end(house.start("fills_memory", isolation="process", shardingItemParameters="0=400"))
    assert (alone["state"], alone["cause"]) == ("FAILED", "out_of_memory")
    house.calm()
    house.end(house.start("dies"))
    house.calm("shared")
    shared = house.end(house.start("fills_memory", shardingItemParameters="0=400"))
    assert (shared["state"], shared["cause"]) == ("FAILED", "worker_lost")
    assert "because memory ran out" in shared["message"]
    house.calm("shared")


# --------------------------------------------------------------------------------------------- agent and executor


def test_an_agent_that_is_restarted_finds_its_executor_and_hears_what_happened_meanwhile(house: House) -> None:
    daemon = daemon_of(house)
    run = house.start("until_file", shardingItemParameters="0=go")
    until(lambda: house.shard(run)["startedAt"], "its start")
    (house.sandbox() / "app" / "go").touch()
    house.cluster.restart_agent()
    assert house.end(run)["attempt"] == 1
    assert house.did(run) == ("FINISHED", "")
    until(lambda: house.client.cluster()["connected"], "the scheduler to be back")
    assert house.did(house.start("works_on")) == ("FINISHED", "")
    assert daemon_of(house) == daemon
    house.calm()


def test_a_daemon_that_is_killed_takes_all_with_it_and_all_start_again_uncharged(house: House) -> None:
    sandbox = house.sandbox()
    child = house.start("leaves_children", shardingItemParameters="0=600")
    until(lambda: len(house.processes()) == 4, "its child to run")
    os.kill(daemon_of(house), signal.SIGKILL)
    shard = house.end(child)
    assert (shard["state"], shard["cause"], shard["attempt"]) == ("FAILED", "", 1)
    assert "EXECUTOR_TERMINATED" in shard["message"]
    until(lambda: not living_in(sandbox), f"nothing to be left of it: {living_in(sandbox)}")
    house.calm("shared", "process", "script")
    assert house.sandbox() != sandbox
