"""Misbehaving jobs and workers in the whole product: the API, a scheduler, an agent, the executor.

Runs on the dev cluster and on a real Mesos. Three well-behaved sibling jobs, one for each isolation, run next to every
misbehaving one. After it, each test checks the siblings: those that shared a process that died were restarted, without
a charge to their retries, and the others were not affected.
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
from tests.executor_kit import little_memory, living_in
from tests.process_kit import paths_below
from tests.whole_kit import Product, arguments_of, processes_with, until

from jobcloud.client.apps import add_app
from jobcloud.client.http import Client
from jobcloud.dev.cluster import DevCluster
from jobcloud.executor import bundle
from jobcloud.executor.output import TIMES_BYTES, TIMES_SUFFIX
from jobcloud.scheduler.retry import ALONE_AFTER

Json = dict[str, Any]

APP = Path(__file__).parents[1] / "executor_kit" / "app"
MANIFEST = '[app]\nappName = "{}"\ncpuCount = 0.1\nmemoryMB = 32\n'
NEVER = "0 0 0 1 1 ? 2099"
GIB = 1 << 30
# Bytes of the disk for the tasks' output in the test of a full disk.
SMALL_DISK = 4 << 20
LOG_BYTES = 10 << 20
IN_SANDBOX = {bundle.FILE_NAME, "package.zip", "app", "contexts", "tasks", "worker", "stdout", "stderr"}

SIBLINGS: dict[str, Json] = {
    "shared": {"jobClass": "shop.jobs:wait_for_kill"},
    "process": {"jobClass": "shop.jobs:wait_for_kill", "isolation": "process"},
    "script": {"jobType": "SCRIPT", "jobClass": "", "scriptCommandLine": "bin/behave.py wait_for_kill"},
}


class Mesos:
    """A real Mesos, started by the command in JOBCLOUD_TEST_MESOS."""

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
        """Restart the agent, and with it the master, which is the same process."""
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
    """The dev cluster. Its executors end with its process, so a restart of the agent only breaks the connections."""

    def __init__(self, folder: Path) -> None:
        self._cluster = DevCluster(data=folder, allocation_interval_ms=50)
        self._cluster.start()
        self.master = self._cluster.master

    def restart_agent(self) -> None:
        self._cluster.control("drop_stream", agent=1)

    def stop(self) -> None:
        self._cluster.stop()


class Site:
    """One agent, one app, three sibling jobs."""

    def __init__(self, product: Product, client: Client, cluster: Mesos | Dev, work: Path) -> None:
        self.product, self.client, self.cluster, self.work = product, client, cluster, work
        self._jobs = 0
        self.siblings = {how: self._sibling(how) for how in SIBLINGS}
        self.attempts = dict.fromkeys(SIBLINGS, 1)

    def _sibling(self, how: str) -> str:
        """Start a sibling. One attempt may fail by its own fault; lost attempts are not charged."""
        retries = {"failoverAttempts": 1, "failoverDelaySeconds": 0.1, "failoverMaxDelaySeconds": 0.1}
        return self.start(**{"failover": True, **retries, **SIBLINGS[how]})

    def start(self, job_class: str = "", **job: Any) -> str:
        """Register a job and trigger it. Returns the run's id."""
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

    def wait_until_running(self, run: str) -> Json:
        """The run's shard, after its first output."""

        def printed() -> Json | None:
            shard = self.shard(run)
            return shard if shard["startedAt"] and any(self.log_folder(shard["taskId"]).glob("std*")) else None

        return until(printed, f"{run} to run")

    def wait_for_end(self, run: str, seconds: float = 120) -> Json:
        def ended() -> Json | None:
            shard = self.shard(run)
            return shard if shard["state"] not in ("WAITING", "ACTIVE") else None

        return until(ended, f"{run} to end; it is {self.shard(run)}", seconds)

    def wait_for_start(self, run: str) -> None:
        until(lambda: self.shard(run)["startedAt"], f"{run} to start")

    def wait_for_attempt(self, run: str, number: int) -> None:
        until(lambda: self.shard(run)["attempt"] >= number, f"attempt {number} of {run}")

    def outcome(self, run: str) -> tuple[str, str]:
        shard = self.wait_for_end(run)
        return shard["state"], shard["cause"]

    def kill(self, run: str) -> None:
        self.client.kill(self.shard(run)["taskId"])

    def sandbox(self, app: str = "shop") -> Path:
        """The sandbox of the newest executor of an app."""

        def newest() -> Path | None:
            found = [
                path for path in paths_below(self.work) if path.name == bundle.FILE_NAME and f"/{app}@-@" in str(path)
            ]
            return max((path.parent for path in found), key=lambda path: path.stat().st_ctime_ns, default=None)

        return until(newest, f"a sandbox of {app}").resolve()

    def log_folder(self, task: str) -> Path:
        return self.sandbox() / "tasks" / task

    def processes(self) -> list[int]:
        """The processes of the app's shards: workers, scripts and their children."""
        return living_in(self.sandbox() / "app")

    def check_siblings(self, *lost: str) -> None:
        """Check that each sibling runs, without a charged retry; those in `lost` run one attempt more than before."""
        for how in lost:
            self.attempts[how] += 1
        for how, run in self.siblings.items():
            self.wait_for_attempt(run, self.attempts[how])
            shard = self.wait_until_running(run)
            seen = (shard["state"], shard["attempt"], shard["retries"])
            assert seen == ("ACTIVE", self.attempts[how], 0), f"{how}: {shard}"
        if self.attempts["shared"] > ALONE_AFTER:
            # After ALONE_AFTER lost workers it has a worker of its own. Replace it by a fresh sibling.
            self.kill(self.siblings["shared"])
            assert self.wait_for_end(self.siblings["shared"])["state"] == "KILLED"
            self.siblings["shared"], self.attempts["shared"] = self._sibling("shared"), 1
            self.wait_until_running(self.siblings["shared"])

    def check_no_leftovers(self, processes: int = 3) -> None:
        """Only the siblings' processes are left, and only files of the executor."""
        until(lambda: len(self.processes()) == processes, f"no process to be left: {self.processes()}")
        assert {path.name for path in self.sandbox().iterdir()} <= IN_SANDBOX


@pytest.fixture(
    scope="module",
    params=[pytest.param("dev", marks=pytest.mark.dev_cluster), pytest.param("mesos", marks=pytest.mark.mesos)],
)
def shared_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
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


def serve(product: Product, cluster: Mesos | Dev, work: Path) -> Iterator[Site]:
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
        site = Site(product, client, cluster, work)
        site.check_siblings()
        yield site
        client.tear_down(client.cluster()["frameworkId"])
        assert scheduler.wait(120) == 0


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    shared_site.check_siblings()
    yield shared_site
    shared_site.check_no_leftovers()


ISOLATIONS = ("shared", "process")


# ---- errors isolated to the job --------------------------------------------------------------------------------


BEAN = {"jobClass": "", "beanName": "settle"}
ISOLATED: dict[str, tuple[Json, str, str, str]] = {
    "import error": ({"jobClass": "broken:Job"}, "FAILED", "import", "no_such_module"),
    "missing module": ({"jobClass": "nowhere:Job"}, "FAILED", "import", "nowhere"),
    "missing class": ({"jobClass": "statistics:Missing"}, "FAILED", "import", "Missing"),
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


def test_isolated_errors_end_only_their_own_shard_with_reason(site: Site) -> None:
    """All jobs run at the same time, the shared ones in one worker."""
    runs = {
        (name, how): site.start(**{**job, "isolation": how})
        for name, (job, *_) in ISOLATED.items()
        for how in ISOLATIONS
    }
    wrong = []
    for (name, how), run in runs.items():
        _, state, cause, says = ISOLATED[name]
        shard = site.wait_for_end(run)
        if (shard["state"], shard["cause"], shard["attempt"]) != (state, cause, 1) or says not in shard["message"]:
            wrong.append((name, how, shard))
        shard["message"].encode()
    assert not wrong
    site.check_siblings()


def test_binary_output_can_be_read(site: Site) -> None:
    for job in ({"job_class": "not_utf8"}, {"jobType": "SCRIPT", "scriptCommandLine": "printf '\\377\\376'"}):
        run = site.start(**job)
        assert site.client.log(site.wait_for_end(run)["taskId"])["text"] == "\ufffd\ufffd"


def test_script_learns_of_its_ports_and_its_parameters_are_private(site: Site) -> None:
    given: dict[str, Any] = {"portCount": 2, "jobParameter": "s3cret " * 500, "shardingItemParameters": {"0": "a=b,c"}}
    run = site.start(jobType="SCRIPT", scriptCommandLine="bin/context.py", **given)
    shard = site.wait_for_end(run)
    assert shard["state"] == "FINISHED", shard
    seen = json.loads(site.client.log(shard["taskId"])["text"])
    assert (seen["context"]["jobParameter"], seen["context"]["shardingParameter"]) == (given["jobParameter"], "a=b,c")
    assert len(set(seen["context"]["ports"])) == 2
    assert seen["env"]["JOBCLOUD_PORTS"] == ",".join(map(str, seen["context"]["ports"]))
    assert "s3cret" not in str(seen["arguments"])


def test_changed_directory_and_environment_are_visible_in_same_process_only(site: Site) -> None:
    app = str(site.sandbox() / "app")
    site.wait_for_end(site.start("changes_process", isolation="process"))

    def seen(how: str) -> list[Any]:
        found: list[Any] = site.wait_for_end(site.start("sees_process", isolation=how))["result"]
        return found[:3]

    assert seen("shared") == seen("process") == [app, None, None]
    site.wait_for_end(site.start("changes_process"))
    assert seen("shared") == ["/", "1", "changed"]
    assert seen("process") == [app, None, None]
    site.check_siblings()
    site.wait_for_end(site.start("dies"))
    site.check_siblings("shared")
    assert seen("shared") == [app, None, None]


def test_apps_with_modules_of_same_name_do_not_interfere(site: Site) -> None:
    other = site.product.folder / "other"
    (other / "shop").mkdir(parents=True)
    (other / "shop" / "__init__.py").touch()
    (other / "shop" / "jobs.py").write_text("def works_on(ctx):\n    return 'the other one'\n")
    (other / "jobcloud.toml").write_text(MANIFEST.format("other"))
    add_app(site.client, other)
    runs = {app: [site.start("works_on", appName=app) for _ in range(2)] for app in ("shop", "other")}
    results = {app: {site.wait_for_end(run)["result"] for run in of_app} for app, of_app in runs.items()}
    assert results == {"shop": {"done"}, "other": {"the other one"}}
    site.client.remove_app("other", jobs=True)


# ---- loss of the worker process --------------------------------------------------------------------------------


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
def test_job_that_ends_its_process_fails_and_others_restart_uncharged(
    site: Site, job: str, cause: str, says: str
) -> None:
    alone = site.wait_for_end(site.start(job, isolation="process"))
    assert (alone["state"], alone["cause"]) == ("FAILED", cause), alone
    assert says in alone["message"]
    site.check_siblings()
    shared = site.wait_for_end(site.start(job))
    assert (shared["state"], shared["cause"]) == ("FAILED", "worker_lost")
    site.check_siblings("shared")


def test_job_that_always_ends_its_worker_is_identified_and_fails(site: Site) -> None:
    guilty = site.wait_for_end(site.start("dies", failover=True, failoverDelaySeconds=0.1, failoverAttempts=0))
    assert (guilty["state"], guilty["cause"], guilty["attempt"]) == ("FAILED", "exit_code", ALONE_AFTER + 1)
    sibling = site.shard(site.siblings["shared"])
    assert 1 < sibling["attempt"] <= ALONE_AFTER + 1
    site.attempts["shared"] = sibling["attempt"]
    site.check_siblings()


def test_worker_that_answers_twice_ends_shard_once(site: Site) -> None:
    assert site.outcome(site.start("answers_twice", isolation="process")) == ("FINISHED", "")
    site.check_siblings()
    assert site.outcome(site.start("answers_twice")) == ("FINISHED", "")
    site.check_siblings("shared")


@pytest.mark.parametrize("worker", ["nonsense", "silence"])
def test_invalid_bootstrap_script_is_reported(site: Site, worker: str) -> None:
    code = 'import os, sys; os.write(int(sys.argv[-1]), b"what?\\n")' if worker == "nonsense" else "import time"
    command = f"{sys.executable} -c \"{code.replace(chr(34), chr(92) + chr(34))}; __import__('time').sleep(600)\""
    odd = site.product.folder / worker
    odd.mkdir()
    (odd / "jobs.py").touch()
    (odd / "jobcloud.toml").write_text(MANIFEST.format(worker))
    added = add_app(site.client, odd).app["config"]
    site.client.put_app({**added, "bootstrapScript": command})
    run = site.start("any", appName=worker, failoverAttempts=1, failoverDelaySeconds=0.1, retryCount=0)
    if worker == "nonsense":
        shard = site.wait_for_end(run)
        # Attempts that never ran are repeated without a charge: in a shared worker, then in a worker of its own.
        assert (shard["state"], shard["attempt"]) == ("FAILED", ALONE_AFTER + 1)
        assert "broke the protocol" in shard["message"]
    else:
        until(lambda: site.shard(run)["taskId"] and living_in(site.sandbox(worker) / "app"), "the worker to be silent")
        site.kill(run)
        assert site.wait_for_end(run)["state"] == "KILLED"
    assert not living_in(site.sandbox(worker) / "app")
    script = site.start(appName=worker, jobType="SCRIPT", scriptCommandLine="true")
    assert site.outcome(script) == ("FINISHED", "")
    site.client.remove_app(worker, jobs=True)


# ---- jobs that do not end --------------------------------------------------------------------------------------


STUBBORN = ("masks_signals", "deadlocks", "never_returns", "burns_cpu")


def test_unresponsive_shards_are_killed(site: Site) -> None:
    """A kill ends them; timeoutSeconds too if they have a process of their own."""
    alone = [site.start(job, isolation="process") for job in STUBBORN]
    late = [site.start(job, isolation="process", timeoutSeconds=0.5) for job in STUBBORN]
    shared = [site.start(job) for job in STUBBORN]
    script = site.start(jobType="SCRIPT", scriptCommandLine="bin/behave.py never_returns")
    killed = [*alone, *shared, script]
    for run in killed:
        site.wait_for_start(run)
    for run in killed:
        site.kill(run)
    assert [site.wait_for_end(run)["state"] for run in killed] == ["KILLED"] * len(killed)
    assert [site.outcome(run) for run in late] == [("FAILED", "timeout")] * len(late)
    site.check_siblings("shared")


@pytest.mark.parametrize("how", ISOLATIONS)
def test_fork_bomb_ends_with_its_process(site: Site, how: str) -> None:
    run = site.start("forks_wildly", isolation=how)
    siblings = 3 + (how == "process")
    until(lambda: len(site.processes()) >= siblings + 63, "it to fork")
    site.kill(run)
    assert site.wait_for_end(run)["state"] == "KILLED"
    if how == "shared":
        site.check_siblings()
        site.wait_for_end(site.start("dies"))
        site.check_siblings("shared")
    site.check_no_leftovers()


# ---- floods of output ------------------------------------------------------------------------------------------


def test_gigabyte_of_output_is_truncated_and_delays_no_other_job(site: Site) -> None:
    sizes = {"shared": GIB, "process": GIB // 4, "script": GIB // 4}
    floods = {how: site.start("floods", shardingItemParameters=f"0={sizes[how]}", isolation=how) for how in ISOLATIONS}
    command = f"sh -c 'head -c {sizes['script']} /dev/zero'"
    floods["script"] = site.start(jobType="SCRIPT", scriptCommandLine=command)
    for _ in range(3):
        assert site.outcome(site.start("works_on")) == ("FINISHED", "")
    for how, run in floods.items():
        shard = site.wait_for_end(run, 120)
        assert (shard["state"], shard["cause"]) == ("FINISHED", "")
        kept = {path.name: path.stat().st_size for path in site.log_folder(shard["taskId"]).iterdir()}
        assert kept.pop("stdout" + TIMES_SUFFIX) <= TIMES_BYTES
        assert len(kept) == 2
        assert max(kept.values()) <= LOG_BYTES
        assert site.client.log(shard["taskId"], tail=1)["size"] == sizes[how]
    site.check_siblings()


# ---- full disk and memory --------------------------------------------------------------------------------------


def has_capability(capability: int) -> bool:
    """Whether this process has a capability. Source: capabilities(7), proc(5)."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> capability & 1)


SYS_ADMIN = 21


@pytest.fixture
def full_disk(site: Site) -> Iterator[Path]:
    """The folder of the tasks' output, on a small disk of its own."""
    disk = site.sandbox() / "tasks"
    if not has_capability(SYS_ADMIN):
        pytest.skip("needs CAP_SYS_ADMIN to mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_fails_only_jobs_that_need_space(site: Site, full_disk: Path) -> None:
    filler = site.wait_for_end(site.start("fills_up", jobParameter=str(full_disk / "data")))
    assert (filler["state"], filler["cause"]) == ("FAILED", "exception")
    assert "No space left" in filler["message"]
    for how in ISOLATIONS:
        assert site.outcome(site.start("prints_much", isolation=how)) == ("FINISHED", "")
        assert site.outcome(site.start("works_on", isolation=how)) == ("FINISHED", "")
    assert site.outcome(site.start(jobType="SCRIPT", scriptCommandLine="sh -c 'echo much'")) == ("FINISHED", "")
    assert site.attempts == {how: site.shard(run)["attempt"] for how, run in site.siblings.items()}


@pytest.fixture
def small_group(site: Site) -> Iterator[Path]:
    """A control group with little memory, which contains the executor's daemon and all processes it starts."""
    with little_memory() as group:
        (group / "cgroup.procs").write_text(str(daemon_of(site)))
        yield group
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)


def daemon_of(site: Site) -> int:
    (found,) = (
        pid
        for pid in living_in(site.sandbox())
        if bundle.FILE_NAME in " ".join(arguments_of(pid)) and has_children(pid)
    )
    return found


def has_children(pid: int) -> bool:
    """True for the daemon, whose child is the warden; the warden has none."""
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.usefixtures("small_group")
def test_out_of_memory_kill_is_reported(site: Site) -> None:
    alone = site.wait_for_end(site.start("fills_memory", isolation="process", shardingItemParameters="0=400"))
    assert (alone["state"], alone["cause"]) == ("FAILED", "out_of_memory")
    site.check_siblings()
    site.wait_for_end(site.start("dies"))
    site.check_siblings("shared")
    shared = site.wait_for_end(site.start("fills_memory", shardingItemParameters="0=400"))
    assert (shared["state"], shared["cause"]) == ("FAILED", "worker_lost")
    assert "because memory ran out" in shared["message"]
    site.check_siblings("shared")


# ---- agent and executor ----------------------------------------------------------------------------------------


def test_restarted_agent_recovers_executor_and_its_updates(site: Site) -> None:
    daemon = daemon_of(site)
    run = site.start("until_file", shardingItemParameters="0=go")
    site.wait_for_start(run)
    (site.sandbox() / "app" / "go").touch()
    site.cluster.restart_agent()
    assert site.wait_for_end(run)["attempt"] == 1
    assert site.outcome(run) == ("FINISHED", "")
    until(lambda: site.client.cluster()["connected"], "the scheduler to be back")
    assert site.outcome(site.start("works_on")) == ("FINISHED", "")
    assert daemon_of(site) == daemon
    site.check_siblings()


def test_killed_executor_leaves_no_process_and_its_shards_restart_uncharged(site: Site) -> None:
    sandbox = site.sandbox()
    child = site.start("leaves_children", shardingItemParameters="0=600")
    site.wait_for_start(child)
    until(lambda: len(site.processes()) == 4, "its child to run")
    os.kill(daemon_of(site), signal.SIGKILL)
    shard = site.wait_for_end(child)
    assert (shard["state"], shard["cause"], shard["attempt"]) == ("FAILED", "", 1)
    assert "EXECUTOR_TERMINATED" in shard["message"]
    until(lambda: not living_in(sandbox), f"no process to be left of it: {living_in(sandbox)}")
    site.check_siblings("shared", "process", "script")
    assert site.sandbox() != sandbox
