"""Record what build d78466f stores and sends, for `tests/server/test_takeover.py`.

Run it with the interpreter of a checkout of d78466f that is built (`make`), from anywhere:

    CHECKOUT/.venv/bin/python tests/data/build_d78466f/record.py

It needs ZooKeeper (`apt-get install zookeeper`) and a writable directory /srv/jobcloud, takes about two minutes and
writes the files beside itself. The same scenario runs twice: with the state in SQLite, then in ZooKeeper. Each ends
with the scheduler killed while its tasks run, so that the state is that of a scheduler that crashed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent
# Neutral paths: they occur in the text of recorded tracebacks.
WORK = Path("/srv/jobcloud")
TOKEN = "t0ken-of-the-recording"
TRACE = "JOBCLOUD_RECORD_TRACE"
DAY_S = 86_400

JOBS = """\
import time

from jobcloud.job import DataflowJob, FiringListener, JobListener, SimpleJob


class Count(SimpleJob):
    def execute(self, ctx):
        ctx.logger.info("shard %d of %d", ctx.sharding_item, ctx.sharding_total_count)
        return {"counted": 12, "of": ctx.sharding_parameter}


class Long(SimpleJob):
    def execute(self, ctx):
        ctx.progress(3, 10)
        while not ctx.cancelled:
            time.sleep(0.05)
        ctx.raise_if_cancelled()


class Stubborn(SimpleJob):
    def execute(self, ctx):
        time.sleep(3600)


class Broken(SimpleJob):
    def execute(self, ctx):
        raise ValueError(f"no such region: {ctx.sharding_parameter}")


class Quits(SimpleJob):
    def execute(self, ctx):
        raise SystemExit(3)


class Half(SimpleJob):
    def execute(self, ctx):
        if ctx.sharding_item == 1:
            raise RuntimeError("the second half")
        return ctx.sharding_item


class Slow(SimpleJob):
    def execute(self, ctx):
        while not ctx.cancelled:
            time.sleep(0.05)
        ctx.raise_if_cancelled()


class Crash(SimpleJob):
    def execute(self, ctx):
        import os

        os._exit(7)


class Ship(DataflowJob):
    def __init__(self):
        self.left = 2

    def fetch_data(self, ctx):
        self.left -= 1
        return [1, 2] if self.left >= 0 else []

    def process_data(self, ctx, data):
        print("shipped", data)


def beans():
    return {"count": Count()}


class Audit(JobListener):
    def before_job_executed(self, ctx):
        print("before")

    def after_job_executed(self, ctx, error):
        print("after", error)


class Refuses(FiringListener):
    def before_firing(self, ctx):
        raise RuntimeError("not today")


class Ledger(FiringListener):
    def before_firing(self, ctx):
        print("before the firing", ctx.sharding_parameters)

    def after_firing(self, ctx):
        print("after the firing", ctx.outcomes)
"""

# A worker of the app's own: the executor's, with every line between it and the daemon written down.
TEE = """\
#!/usr/bin/env python3
import json, os, subprocess, sys, threading

orders, answers = int(sys.argv[-2]), int(sys.argv[-1])
sandbox = os.path.dirname(os.getcwd())
program = f"import sys; sys.path[:0] = [{sandbox + '/jobcloud-executor.zip'!r}, {os.getcwd()!r}]; "
program += "from jobcloud.executor.worker import main; main()"
their_orders, to_worker = os.pipe()
from_worker, their_answers = os.pipe()
worker = subprocess.Popen(
    [sys.executable, "-c", program, str(their_orders), str(their_answers)], pass_fds=(their_orders, their_answers)
)
os.close(their_orders)
os.close(their_answers)
lock = threading.Lock()
log = open(sandbox + "/lines.jsonl", "a")


def carry(source, target, name):
    with os.fdopen(source, "rb") as lines, os.fdopen(target, "wb", 0) as out:
        for line in lines:
            with lock:
                log.write(json.dumps({"to": name, "line": line.decode().rstrip("\\n")}) + "\\n")
                log.flush()
            out.write(line)


threading.Thread(target=carry, args=(orders, to_worker, "worker"), daemon=True).start()
carry(from_worker, answers, "daemon")
sys.exit(worker.wait())
"""

NEVER = "0 0 0 1 1 ? 2099"
SIMPLE: dict[str, Any] = {
    "jobType": "SIMPLE", "jobExecutionType": "TRANSIENT", "cron": NEVER, "shardingTotalCount": 1, "cpuCount": 0.1,
    "memoryMB": 32,
}  # fmt: skip
#: every field of a job once with another value than its default
EVERY_FIELD: dict[str, dict[str, Any]] = {
    "all-fields": {
        "jobClass": "jobs:Count", "cron": "0 30 2 ? * MON#2 2099", "timeZone": "Europe/Berlin", "dstGap": "skip",
        "dstFold": "both", "catchUp": "all", "catchUpLimit": 7, "concurrency": "allow", "concurrencyLimit": 3,
        "misfire": True, "misfireLimit": 9, "failover": True, "failoverAttempts": 4, "failoverDelaySeconds": 2,
        "failoverMaxDelaySeconds": 40, "partitionPolicy": "replace", "replaceAfterSeconds": 30, "retryCount": 2,
        "retryDelaySeconds": 3, "retryMaxDelaySeconds": 300, "retryJitter": 0.5, "shardingTotalCount": 3,
        "shardingItemParameters": "0=Berlin,1=Zürich,2=東京", "jobParameter": "é \"quoted\" \\ text", "diskMB": 5,
        "portCount": 2, "priority": 5, "isolation": "process", "timeoutSeconds": 900.5, "killGraceSeconds": 2.5,
        "memoryLimitMB": 512, "cpuLimitSeconds": 60, "openFilesLimit": 256, "listener": ["jobs:Audit"],
        "distributedListener": {"class": "jobs:Ledger", "startedTimeoutMilliseconds": 5000,
                                "completedTimeoutMilliseconds": 6000},
        "jobProperties": {"job_exception_handler": "webhook",
                          "job_exception_webhook": "https://hooks.example.org/jobs"},
        "description": "every field",
    },
    "all-bean": {"beanName": "count", "applicationContext": "jobs:beans"},
    "all-unix": {"jobClass": "jobs:Count", "cron": "0 0 1 1 *", "cronDialect": "unix"},
    "all-flow": {"jobType": "DATAFLOW", "jobClass": "jobs:Ship", "streamingProcess": True},
    "all-http": {
        "jobType": "HTTP", "httpUri": "https://orders.example.org/settle", "httpMethod": "PUT", "httpData": "{}",
        "httpContentType": "text/plain", "httpConnectTimeoutMilliseconds": 2000, "httpReadTimeoutMilliseconds": 7000,
    },
    "all-resident": {
        "jobExecutionType": "DAEMON", "jobClass": "jobs:Count", "cron": "0 0 0 * * ?", "shardingTotalCount": 2,
        "updateStrategy": "recreate", "maxUnavailable": 2, "independentShards": True,
    },
}  # fmt: skip
#: of the app `shop`; its worker writes down what it is told
SHOP: dict[str, dict[str, Any]] = {
    "count": {"jobClass": "jobs:Count", "shardingTotalCount": 2, "shardingItemParameters": "0=north,1=south"},
    "long": {"jobClass": "jobs:Long", "shardingTotalCount": 3, "failover": True},
    "stubborn": {"jobClass": "jobs:Stubborn", "killGraceSeconds": 3600},
    "broken": {"jobClass": "jobs:Broken", "shardingItemParameters": "0=nowhere"},
    "quits": {"jobClass": "jobs:Quits"},
    "half": {"jobClass": "jobs:Half", "shardingTotalCount": 2},
    "dead": {"jobClass": "jobs:Broken", "retryCount": 1, "retryDelaySeconds": 0.1, "retryMaxDelaySeconds": 1},
    "waits": {"jobClass": "jobs:Broken", "retryCount": 3, "retryDelaySeconds": DAY_S, "retryMaxDelaySeconds": DAY_S},
    "slow": {"jobClass": "jobs:Slow", "timeoutSeconds": 1, "killGraceSeconds": 1},
    "ship": {"jobType": "DATAFLOW", "jobClass": "jobs:Ship", "streamingProcess": True, "listener": ["jobs:Audit"]},
    "bean": {"beanName": "count", "applicationContext": "jobs:beans"},
    "steps": {"jobClass": "jobs:Long", "shardingItemParameters": "0=east", "killGraceSeconds": 5,
              "distributedListener": {"class": "jobs:Ledger", "startedTimeoutMilliseconds": 60000}},
    "stepped": {"jobClass": "jobs:Half", "shardingTotalCount": 2, "distributedListener": {"class": "jobs:Ledger"}},
    "refused": {"jobClass": "jobs:Count", "distributedListener": {"class": "jobs:Refuses"}},
    "ghost": {"jobClass": "no_such_module:Job"},
    "loud": {"jobClass": "jobs:Broken", "jobProperties": {"job_exception_handler": "ignore"}},
    "pulse": {"jobExecutionType": "DAEMON", "jobClass": "jobs:Count", "cron": "0/2 * * * * ?",
              "shardingTotalCount": 2, "shardingItemParameters": "0=left,1=right"},
    "often": {"jobClass": "jobs:Long", "cron": "0/5 * * * * ?", "misfire": True, "misfireLimit": 2},
    "skips": {"jobClass": "jobs:Long", "cron": "0/5 * * * * ?"},
    "twice": {"jobClass": "jobs:Long", "concurrency": "allow", "concurrencyLimit": 2},
    "off": {"jobClass": "jobs:Count", "cron": "0/5 * * * * ?"},
    "script": {"jobType": "SCRIPT", "scriptCommandLine": "sh -c 'echo done'"},
    "failing": {"jobType": "SCRIPT", "scriptCommandLine": "sh -c 'exit 4'"},
    "resident-script": {"jobType": "SCRIPT", "jobExecutionType": "DAEMON", "scriptCommandLine": "sh -c 'sleep 0.1'",
                        "cron": "0/3 * * * * ?"},
}  # fmt: skip
#: of the app `narrow`: one shard at a time, so that others wait as TASK_STARTING
NARROW: dict[str, dict[str, Any]] = {
    "queue": {"jobClass": "jobs:Long", "shardingTotalCount": 2},
    "alone": {"jobClass": "jobs:Crash", "isolation": "process"},
    "crash": {"jobClass": "jobs:Crash"},
}
#: of the app `keep`, which is kept warm and has no work
KEEP: dict[str, dict[str, Any]] = {"kept": {"beanName": "count", "applicationContext": "jobs:beans"}}
#: of the app `gone`, which is disabled
GONE: dict[str, dict[str, Any]] = {"old": {"jobClass": "jobs:Count", "cron": "0/5 * * * * ?"}}
APPS: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "shop": ({"bootstrapScript": "python3 bin/tee.py", "idleTimeoutSeconds": DAY_S}, SHOP),
    "narrow": ({"maxParallel": 1, "idleTimeoutSeconds": DAY_S, "appCacheEnable": False}, NARROW),
    "keep": ({"executors": 1, "eventTraceSamplingCount": 5, "diskMB": 8, "description": "kept warm"}, KEEP),
    "gone": ({"idleTimeoutSeconds": 1}, GONE),
    "all": ({}, EVERY_FIELD),
}


def until(test: Callable[[], Any], what: str, seconds: float = 45.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := test()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Recording:
    """One scheduler of d78466f on a dev cluster of four agents."""

    def __init__(self, folder: Path, zookeeper: str = "") -> None:
        from jobcloud.dev.cluster import DevCluster

        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.trace = folder / "trace.jsonl"
        self.cluster = DevCluster(agents=4, data=str(folder / "mesos"))
        # An API token of our own and no user's settings.
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("JOBCLOUD_")},
            "XDG_RUNTIME_DIR": str(folder),
            "JOBCLOUD_SERVER": f"http://127.0.0.1:{self.port}",
            "JOBCLOUD_TOKEN": TOKEN,
            TRACE: str(self.trace),
        }
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN + "\n")
        settings = folder / "settings.toml"
        settings.write_text('[http_jobs]\nhosts = ["orders.example.org", "hooks.example.org"]\n')
        argv = [
            sys.executable,
            __file__,
            "scheduler",
            "--config",
            str(settings),
            "--data",
            str(folder / "data"),
            "--port",
            str(self.port),
        ]
        argv += ["--token-file", str(token), "--artifact-port", "0", "--mesos"]
        self.argv = argv
        self.zookeeper = ["--zookeeper", zookeeper] if zookeeper else []
        self.scheduler: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Recording:
        self.cluster.__enter__()
        with open(self.folder / "scheduler.log", "wb") as log:
            argv = [*self.argv, self.cluster.master, *self.zookeeper]
            self.scheduler = subprocess.Popen(argv, env=self.environ, stdout=log, stderr=log)
        until(lambda: self.ask("GET", "health").get("connected"), "the scheduler")
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.cluster.__exit__(None, None, None)

    def kill(self) -> None:
        if self.scheduler is not None and self.scheduler.poll() is None:
            self.scheduler.send_signal(signal.SIGKILL)
            self.scheduler.wait()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        import urllib.error
        import urllib.request

        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=20) as reply:
                return json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            if path == "health":
                return {}
            raise SystemExit(f"{method} {path}: {error.code} {text}") from None
        except OSError:
            if path == "health":
                return {}
            raise

    # ---- the scenario ----------------------------------------------------------------------------------------

    def play(self) -> None:
        for name, (app, jobs) in APPS.items():
            self._add(name, app, jobs)
        self.ask("POST", "jobs/off/disable")
        self._run("count", "FINISHED")
        for job in ("broken", "quits", "half", "slow", "ghost", "stepped", "failing", "alone", "crash", "refused"):
            self._run(job, "FAILED")
        for job in ("ship", "bean", "loud", "script"):
            self._run(job, "FINISHED")
        self._run("dead", "DEAD")
        for job in ("waits", "long", "stubborn", "steps", "queue", "twice", "twice"):
            self.ask("POST", f"jobs/{job}/trigger")
        for job, count in (("long", 3), ("stubborn", 1), ("steps", 1), ("queue", 2), ("twice", 2), ("pulse", 2)):
            until(functools.partial(self._runs_shards, job, count), job)
        until(lambda: self._live("often") and self._live("skips"), "the jobs by cron")
        # One shard killed by an operator, one that does not listen.
        self.ask("POST", f"tasks/{self._live('long')[2]['id']}/kill")
        self.ask("POST", f"tasks/{self._live('stubborn')[0]['id']}/kill")
        until(lambda: len(self._live("long")) == 2, "the killed shard")
        self.ask("POST", "apps/gone/disable")
        # Long enough for firings that wait, are skipped, and for resident runs that are reported.
        time.sleep(12)
        self._hurt_agents()

    def _hurt_agents(self) -> None:
        """One agent is drained, one is out of reach, and a launch has no answer."""
        spared = {task["agentId"] for job in ("queue", "stubborn") for task in self._live(job)}
        away = next(task["agentId"] for task in self._all_live() if task["agentId"] not in spared)
        agents = [agent["agentId"] for agent in self.ask("GET", "cluster")["agents"]]
        drained = next(agent for agent in agents if agent != away)
        self.ask("POST", f"agents/{drained}/drain?deadline={DAY_S}&reason=new+disks")
        self.cluster.control("lose_agent", agent=away)
        until(lambda: [task for task in self._all_live() if task["state"] == "UNREACHABLE"], "an agent out of reach")
        self.cluster.control("updates", kind="hold", count=1_000)
        self._add("late", {}, {"unanswered": {"jobClass": "jobs:Long"}})
        self.ask("POST", "jobs/unanswered/trigger")
        until(lambda: self._live("unanswered"), "a launch without an answer")

    def _add(self, name: str, app: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> None:
        folder = self.folder / "apps" / name
        (folder / "bin").mkdir(parents=True)
        (folder / "jobs.py").write_text(JOBS)
        (folder / "bin" / "tee.py").write_text(TEE)
        small = {"appName": name, "cpuCount": 0.1, "memoryMB": 32, **app}
        manifest = {"app": small, "jobs": [{"jobName": job, **SIMPLE, **fields} for job, fields in jobs.items()]}
        (folder / "jobcloud.toml").write_text(_toml(manifest))
        argv = [sys.executable, "-m", "jobcloud", "app", "add", str(folder)]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"app add {name}: {done.stdout}{done.stderr}")

    def _run(self, job: str, state: str) -> None:
        self.ask("POST", f"jobs/{job}/trigger")
        until(lambda: [run for run in self._runs(job) if run["state"] == state], f"{job} to be {state}")

    def _runs(self, job: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"runs?job={job}")["items"]
        return found

    def _all_live(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "tasks?limit=500")["items"]
        return [task for task in found if task["state"] in ("RUNNING", "STARTING", "STAGING", "STORED", "UNREACHABLE")]

    def _runs_shards(self, job: str, count: int) -> bool:
        return len(self._live(job)) >= count

    def _live(self, job: str) -> list[dict[str, Any]]:
        return [task for task in self._all_live() if task["jobName"] == job]

    # ---- what is kept ----------------------------------------------------------------------------------------

    def lines(self) -> list[dict[str, str]]:
        """The lines between daemons and workers, those of the first worker first."""
        files = sorted((self.folder / "mesos").rglob("lines.jsonl"), key=lambda file: file.stat().st_size)
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def traced(self) -> dict[str, Any]:
        from jobcloud.executor import bundle

        launches: list[dict[str, Any]] = []
        updates: list[dict[str, Any]] = []
        for line in self.trace.read_text().splitlines():
            entry = json.loads(line)
            if entry["to"] == "scheduler":
                updates.append(entry["message"])
            else:
                launches += _launches(entry["message"])
        executors = {_executor(info): info["executor"] for info in launches}
        launches = [{**info, "executor": _executor(info)} for info in launches]
        digest = hashlib.sha256(bundle.build()).hexdigest()
        zip_ = {"file": bundle.FILE_NAME, "sha256": digest, "command": bundle.command(digest)}
        return {"bundle": zip_, "executors": executors, "launches": launches, "updates": updates}


def _launches(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operation in call.get("accept", {}).get("operations", []):
        yield from operation.get("launch", {}).get("task_infos", [])


def _executor(info: dict[str, Any]) -> str:
    return str(info["executor"]["executor_id"]["value"])


def _toml(manifest: dict[str, Any]) -> str:
    lines = ["[app]", *_fields(manifest["app"])]
    for job in manifest["jobs"]:
        lines += ["[[jobs]]", *_fields(job)]
    text = "\n".join(lines) + "\n"
    assert tomllib.loads(text) == manifest
    return text


def _fields(table: dict[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items())
            yield f"{name} = {{ {inner} }}"
        else:
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"


def dump_sqlite(path: Path) -> str:
    """The file as SQL, records as text."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        pragmas = [f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};" for name in
                   ("application_id", "user_version")]  # fmt: skip
        tables = [sql + ";" for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
        epoch = db.execute("SELECT epoch FROM leader").fetchone()[0]
        records = [
            f"INSERT INTO record VALUES ({_sql(kind)}, {_sql(key)}, CAST({_sql(value.decode())} AS BLOB));"
            for kind, key, value in db.execute("SELECT kind, key, value FROM record ORDER BY kind, key")
        ]
    return "\n".join([*tables, *pragmas, f"INSERT INTO leader VALUES (1, {epoch});", *records]) + "\n"


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def dump_zookeeper(hosts: str, root: str) -> list[dict[str, Any]]:
    """The nodes below `root`, parents first. Binary data is in base64. Ephemeral nodes are left out."""
    from kazoo.client import KazooClient

    client = KazooClient(hosts)
    client.start()
    nodes: list[dict[str, Any]] = []

    def visit(path: str) -> None:
        data, stat = client.get(path)
        if stat.ephemeralOwner:
            return
        node: dict[str, Any] = {"path": path.removeprefix(root), "version": stat.version}
        try:
            node["text"] = data.decode()
        except UnicodeDecodeError:
            node["base64"] = base64.b64encode(data).decode()
        nodes.append(node)
        for name in sorted(client.get_children(path)):
            visit(f"{path}/{name}")

    visit(root)
    client.stop()
    client.close()
    return nodes


@contextlib.contextmanager
def zookeeper(folder: Path) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    settings = f"tickTime=200\ndataDir={folder}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
    (folder / "zoo.cfg").write_text(settings + "admin.enableServer=false\n")
    jars = [f"/usr/share/java/{jar}.jar" for jar in ("zookeeper", "slf4j-simple", "netty-codec", "netty-resolver")]
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    with open(folder / "log", "wb") as log:
        argv = ["java", "-Xmx256m", "-cp", ":".join(jars), main, str(folder / "zoo.cfg")]
        server = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def scheduler(arguments: list[str]) -> int:
    """The scheduler's command, with what it sends to Mesos and the updates it gets written to a file."""
    # Names of d78466f: in later builds they are elsewhere.
    command: Any = importlib.import_module("jobcloud.client.cli")
    mesos: Any = importlib.import_module("jobcloud.adapters.mesos")
    mesos_hardened: Any = importlib.import_module("jobcloud.adapters.mesos_hardened")
    trace = open(os.environ[TRACE], "a", buffering=1)  # noqa: SIM115 - as long as the process lives
    dumps, read_usual = mesos_hardened.dumps, mesos.read_usual

    def traced_dumps(message: object) -> bytes:
        body: bytes = dumps(message)
        if b'"ACCEPT"' in body[:200]:
            trace.write(json.dumps({"to": "master", "message": json.loads(body)}) + "\n")
        return body

    def traced_read(record: bytes, roles: tuple[str, ...]) -> Any:
        event = json.loads(record)
        if event["type"] == "UPDATE":
            trace.write(json.dumps({"to": "scheduler", "message": event["update"]["status"]}) + "\n")
        return read_usual(record, roles)

    mesos_hardened.dumps, mesos.read_usual = traced_dumps, traced_read
    sys.argv = ["jobcloud", "scheduler", *arguments]
    command.main()
    return 0


def few(entries: list[Any], kind: Callable[[Any], object], count: int = 4) -> list[Any]:
    """The first entries of each kind."""
    seen: Counter[object] = Counter()
    kept = []
    for entry in entries:
        seen[kind(entry)] += 1
        if seen[kind(entry)] <= count:
            kept.append(entry)
    return kept


def kind_of_update(status: dict[str, Any]) -> object:
    data = json.loads(base64.b64decode(status.get("data", "bnVsbA=="))) or {}
    return status["state"], status.get("reason"), status.get("message", "")[:8], data.get("cause")


def kind_of_line(line: dict[str, str]) -> object:
    message = json.loads(line["line"])
    return line["to"], message["type"], message.get("state"), message.get("cause"), message.get("step")


def write(name: str, entries: list[Any]) -> None:
    """One entry a line, so that a difference shows."""
    text = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
    (OUT / name).write_text(f"[\n{text}\n]\n")


def record() -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    try:
        with Recording(WORK / "a") as recording:
            recording.play()
            recording.kill()
            (OUT / "jobcloud.sql").write_text(dump_sqlite(WORK / "a" / "data" / "jobcloud.db"))
            found = recording.traced()
            (OUT / "bundle.json").write_text(json.dumps(found["bundle"], indent=1) + "\n")
            write("executors.json", list(found["executors"].values()))
            write("launches.json", found["launches"])
            write("updates.json", few(found["updates"], kind_of_update))
            write("worker_lines.json", few(recording.lines(), kind_of_line))
        with zookeeper(WORK / "zookeeper") as hosts, Recording(WORK / "b", hosts) as recording:
            recording.play()
            recording.kill()
            write("zookeeper.json", dump_zookeeper(hosts, "/jobcloud"))
    finally:
        if "--keep" not in sys.argv:
            shutil.rmtree(WORK, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(scheduler(sys.argv[2:]) if sys.argv[1:2] == ["scheduler"] else record())
