"""`jobcloud dev` as its users start it: the demo runs, survives kills, and leaves no process behind."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from tests.api_kit import package_bytes
from tests.origin_kit import Server
from tests.whole_kit import Product, attempts, executors_of, processes_with, scheduler_of, until

pytestmark = pytest.mark.dev_cluster


def start(dev: Product, *options: str) -> int:
    """Start `jobcloud dev`. Returns the pid of the root process."""
    root = dev.start("dev", *options, "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    return root.pid


def start_demo(dev: Product) -> int:
    """Start `jobcloud dev --demo`, with jobs that run every second instead of every 5 to 15 seconds."""
    root = start(dev, "--demo")
    until(lambda: dev.call("jobs/stock")[0] == 200, "the demo's last job")
    for job in ("sales", "pulse", "stock"):
        config = {**dev.get(f"jobs/{job}")["config"], "cron": "* * * * * ?"}
        assert dev.call(f"jobs/{job}", "PUT", config)[0] == 200
    return root


def wait_for_runs(dev: Product, count: int) -> None:
    until(lambda: len(dev.runs("sales")) >= count, f"{count} finished runs")


def end(dev: Product, root: int, number: int = signal.SIGTERM) -> int:
    """Send a signal to the root and wait until no process is left. Returns the exit code."""
    os.kill(root, number)
    code = dev.wait_for_last()
    until(lambda: not processes_with(str(dev.data)), "every process to end")
    return code


def test_demo_runs_its_shards_and_leaves_no_process_after_stop(dev: Product) -> None:
    root = start_demo(dev)
    wait_for_runs(dev, 1)
    assert {run["jobName"] for run in dev.json("runs", "sales")} == {"sales"}
    until((dev.data / "demo-output" / "stock.txt").exists, "the script's output")
    until((dev.data / "demo-output" / "pulse.jsonl").exists, "the resident job's output")
    # The newest task of the shard may not have written yet.
    until(lambda: "north" in dev.run("logs", "sales/0"), "the log of the shard")
    assert end(dev, root, signal.SIGINT) == 0
    assert set(attempts(dev.data / "demo-output").values()) == {1}


def test_printed_link_signs_a_browser_in_once(dev: Product) -> None:
    root, form = start(dev), re.compile(r"^(http://127.0.0.1:\d+)/login/link#(\S+)$", re.MULTILINE)
    found = until(lambda: form.search((dev.folder / "dev.log").read_text()), "a link")
    with httpx.Client(base_url=found[1], headers={"Origin": found[1]}, timeout=30) as browser:
        assert browser.post("/login/link", data={"code": found[2]}).headers["location"] == "/"
        assert "token:server" in browser.get("/account").text
        assert browser.post("/login/link", data={"code": found[2]}).status_code == 401
    assert end(dev, root) == 0


def test_killed_scheduler_is_restarted_and_executors_survive(dev: Product) -> None:
    root = start_demo(dev)
    wait_for_runs(dev, 1)
    executors = until(lambda: executors_of(dev.data), "an executor")
    first = scheduler_of(dev.data)
    os.kill(first, signal.SIGKILL)
    until(lambda: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")
    before = len(dev.runs("sales"))
    wait_for_runs(dev, before + 2)
    assert set(executors) <= set(executors_of(dev.data))
    assert end(dev, root) == 0
    assert set(attempts(dev.data / "demo-output").values()) == {1}


def test_ad_hoc_run_is_followed_and_survives_a_killed_scheduler(dev: Product) -> None:
    root = start(dev, "--demo")
    until(lambda: dev.call("jobs/stock")[0] == 200, "the demo's last job")
    app, jobs = dev.get("jobs/stock")["appName"], dev.json("job", "list")
    gate = dev.folder / "gate"
    script = f"sh -c 'echo shard $SHARD; while [ ! -e {gate} ]; do sleep 0.1; done; echo done'"
    config = {"appName": app, "jobName": "once", "jobType": "SCRIPT", "scriptCommandLine": script, "cpuCount": 0.1}
    file = dev.folder / "once.json"
    file.write_text(json.dumps({**config, "memoryMB": 32, "shardingTotalCount": 2}))
    run = dev.json("run", "start", str(file), "--key", "k")
    until(lambda: len(dev.json("tasks", "--state", "RUNNING", "--job", run["jobName"])) == 2, "both shards")
    first = scheduler_of(dev.data)
    os.kill(first, signal.SIGKILL)
    until(lambda: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")
    gate.touch()
    again = dev.run("run", "start", str(file), "--key", "k", "--follow")
    assert f"run {run['id']} is FINISHED" in again
    assert "done" in dev.run("logs", f"{run['jobName']}/0")
    shards = dev.get(f"runs/{run['id']}")["shards"]
    assert [(shard["state"], shard["attempt"]) for shard in shards] == [("FINISHED", 1)] * 2
    assert [job["jobName"] for job in dev.json("job", "list")] == [job["jobName"] for job in jobs]
    assert end(dev, root) == 0


def test_killed_root_leaves_no_process_and_next_start_resumes_jobs(dev: Product) -> None:
    root = start_demo(dev)
    wait_for_runs(dev, 1)
    os.kill(root, signal.SIGKILL)
    until(lambda: not processes_with(str(dev.data)), "the whole tree to end")
    root = start_demo(dev)
    ran = {run["id"] for run in dev.runs("sales")}
    assert ran, "the history is still there"
    until(lambda: {run["id"] for run in dev.runs("sales")} - ran, "a further run")
    pulse = dev.data / "demo-output" / "pulse.jsonl"
    size = pulse.stat().st_size if pulse.exists() else 0
    until(lambda: pulse.exists() and pulse.stat().st_size > size, "the resident job to run again")
    assert end(dev, root) == 0
    assert set(attempts(dev.data / "demo-output").values()) == {1}


def warm_executors(dev: Product) -> int:
    return int(dev.get("apps/static")["warmExecutors"])


STATIC = """
import json, os, time
from pathlib import Path

def pool():
    Path(os.environ["BUILT"], f"{os.getpid()}").write_text("x")
    return {"tell": tell}

def tell(ctx):
    return os.getpid()
"""


def test_warm_executors_start_before_first_run_and_are_replaced_after_loss(dev: Product) -> None:
    app, built = dev.folder / "static", dev.folder / "built"
    app.mkdir()
    built.mkdir()
    (app / "tell.py").write_text(STATIC.replace('os.environ["BUILT"]', repr(str(built))))
    (app / "jobcloud.toml").write_text(
        """
        app = { appName = "static", executors = 2, cpuCount = 0.1, memoryMB = 64 }
        [[jobs]]
        jobName = "tell"
        jobType = "SIMPLE"
        jobExecutionType = "TRANSIENT"
        applicationContext = "tell:pool"
        beanName = "tell"
        cron = "0 0 0 1 1 ? 2099"
        shardingTotalCount = 2
        cpuCount = 0.1
        memoryMB = 32
        """
    )
    root = start(dev)
    dev.run("app", "add", str(app))
    until(lambda: warm_executors(dev) == 2, "two warm executors")
    warm = until(lambda: len(found := {file.name for file in built.iterdir()}) == 2 and found, "their contexts")
    assert dev.get("cluster")["activeTasks"] == 0
    dev.run("job", "trigger", "tell")
    until(lambda: dev.runs("tell"), "the run")
    assert {file.name for file in built.iterdir()} == warm, "the run used a warm context"
    daemon = int(Path("/proc", min(warm), "stat").read_text().rpartition(")")[2].split()[1])
    os.kill(daemon, signal.SIGKILL)
    until(lambda: len({file.name for file in built.iterdir()} - warm) == 1, "another context")
    until(lambda: warm_executors(dev) == 2, "two warm executors again")
    dev.run("app", "disable", "static")
    until(lambda: warm_executors(dev) == 0, "their end")
    assert dev.json("app", "show", "static")["warmExecutors"] == 0
    assert end(dev, root) == 0


def rolling_app(app: Path, written: Path, code: str) -> None:
    """Write an app whose resident job has three shards, each of which records its version every second."""
    app.mkdir(exist_ok=True)
    (app / "pulse.py").write_text(
        f"import json, time\n{code}\n"
        "def beat(ctx):\n"
        f"    with open({str(written)!r}, 'a') as file:\n"
        "        print(json.dumps([ctx.sharding_item, VERSION, ctx.run_id, time.time()]), file=file)\n"
    )
    (app / "jobcloud.toml").write_text(
        """
        app = { appName = "rolling", cpuCount = 0.1, memoryMB = 64 }
        [[jobs]]
        jobName = "pulse"
        jobType = "SIMPLE"
        jobExecutionType = "DAEMON"
        jobClass = "pulse:beat"
        cron = "* * * * * ?"
        shardingTotalCount = 3
        cpuCount = 0.1
        memoryMB = 32
        """
    )


def beats(written: Path) -> list[tuple[int, int, float]]:
    """(shard, version, time), as recorded by the job."""
    lines = written.read_text().splitlines() if written.exists() else []
    return [(item, version, when) for item, version, _, when in map(json.loads, lines)]


def test_rollout_replaces_shards_one_by_one_and_stops_at_broken_version(dev: Product) -> None:
    app, written = dev.folder / "rolling", dev.folder / "beats.jsonl"
    root = start(dev)
    rolling_app(app, written, "VERSION = 1")
    dev.run("app", "add", str(app))
    until(lambda: {item for item, version, _ in beats(written) if version == 1} == {0, 1, 2}, "the first version")
    rolling_app(app, written, "VERSION = 2")
    assert "app rolling is up to date" in dev.run("app", "update", str(app))
    until(lambda: {item for item, version, _ in beats(written) if version == 2} == {0, 1, 2}, "the second version")
    for item in range(3):
        old = max(when for shard, version, when in beats(written) if (shard, version) == (item, 1))
        new = min(when for shard, version, when in beats(written) if (shard, version) == (item, 2))
        assert old < new, f"shard {item} ran both versions at once"
    assert dev.json("app", "update", str(app))["state"] == "done", "a second update changes nothing"
    rolling_app(app, written, "import nowhere")
    stopped = dev.run("app", "update", str(app), code=1)
    assert "nowhere" in stopped
    assert "has stopped" in stopped
    assert len([task for task in dev.json("tasks", "--state", "RUNNING") if task["jobName"] == "pulse"]) == 2
    rolling_app(app, written, "VERSION = 2")
    assert "app rolling is up to date" in dev.run("app", "update", str(app))
    assert end(dev, root) == 0


@pytest.fixture
def files() -> Iterator[Server]:
    server = Server({})
    yield server
    server.close()


def test_damaged_packages_fail_only_their_own_tasks_and_fetches_back_off(dev: Product, files: Server) -> None:
    names = ("good", "altered", "missing")
    packages = {name: package_bytes({"tell.py": f"def tell(ctx): return {name!r}"}) for name in names}
    hashes = {name: sha256(content).hexdigest() for name, content in packages.items()}
    files.pages |= {f"/{name}/app.zip": content for name, content in packages.items()}
    dev.environ["JOBCLOUD_PACKAGES_HOSTS"] = "127.0.0.1"
    root = start(dev)
    for name in names:
        app = dev.folder / name
        app.mkdir()
        (app / "jobcloud.toml").write_text(
            f"""
            [app]
            appName = "{name}"
            appURL = "{files.url}/{name}/app.zip"
            packageSha256 = "{hashes[name]}"
            appCacheEnable = false
            cpuCount = 0.1
            memoryMB = 32
            idleTimeoutSeconds = 1
            """
        )
        dev.run("app", "add", str(app))
    for name in ("altered", "missing"):
        (stored,) = (dev.data / "packages" / hashes[name]).iterdir()
        if name == "altered":
            stored.write_bytes(stored.read_bytes() + b"!")
        else:
            stored.unlink()
            del files.pages["/missing/app.zip"]
    assert files.asked == [f"/{name}/app.zip" for name in names]
    began = time.monotonic()
    for name in names:
        job = {
            "jobName": name, "appName": name, "jobType": "SIMPLE", "jobExecutionType": "TRANSIENT",
            "jobClass": "tell:tell", "cron": "* * * * * ?", "shardingTotalCount": 2, "failover": name == "missing",
            "cpuCount": 0.1, "memoryMB": 32,
        }  # fmt: skip
        (dev.folder / f"{name}.json").write_text(json.dumps(job))
        dev.run("job", "add", str(dev.folder / f"{name}.json"))
    until(lambda: len(dev.runs("good")) >= 12, "the good app's runs")
    max_fetches = 2 + 1 + math.log2(1 + time.monotonic() - began)  # once on each agent, then after 1 s, 2 s, 4 s …
    assert 1 < files.asked.count("/missing/app.zip") <= 1 + max_fetches
    for name, why in (("altered", "sha256"), ("missing", hashes["missing"])):
        assert why in dev.run("explain", name), name
        assert not dev.runs(name)
    failed = dev.json("tasks", "--job", "altered", "--state", "FAILED")
    assert 0 < len(failed) <= 2 * max_fetches
    assert all("altered on its way" in task["message"] for task in failed)
    assert end(dev, root) == 0


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A second `jobcloud dev` that runs already."""
    product = Product(tmp_path_factory.mktemp("other"))
    root = start(product)
    yield product
    end(product, root)
    product.end()


def test_occupied_port_is_refused(dev: Product, other: Product) -> None:
    assert "--port" in dev.run("dev", "--demo", "--port", str(other.port), code=1)


def test_second_root_on_same_data_is_refused(dev: Product, other: Product) -> None:
    assert "in use" in dev.run("dev", "--data", str(other.data), "--port", "0", code=1)


def test_unusable_data_directory_is_named(dev: Product) -> None:
    (dev.folder / "file").touch()
    refusal = dev.run("dev", "--data", str(dev.folder / "file"), "--port", "0", code=1)
    assert "cannot be used as --data" in refusal.replace("\n", " ")
    assert "Traceback" not in refusal


def test_unreadable_state_ends_start_with_reason(dev: Product) -> None:
    dev.data.mkdir()
    (dev.data / "jobcloud.db").write_bytes(b"no database" * 1000)
    (dev.data / "scheduler.log").write_text("log of an earlier start\n")
    refusal = dev.run("dev", "--data", str(dev.data), "--port", "0", code=1)
    assert "[info" in refusal, "the log is not taken for markup"
    assert "it was left unchanged" in refusal.replace("\n", " ")
    assert "earlier start" not in refusal


@pytest.mark.parametrize("wait_s", [0.5, 1.5, 2.5])
def test_signal_during_start_ends_all_processes(dev: Product, wait_s: float) -> None:
    root = dev.start("dev", "--demo", "--data", str(dev.data), "--port", str(dev.port))
    until((dev.data / "dev.lock").exists, "the root to begin")
    time.sleep(wait_s - 0.5)  # the start is then at any point
    assert end(dev, root.pid) == 0
