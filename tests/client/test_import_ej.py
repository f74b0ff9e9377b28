"""Importing from Elastic-Job-Cloud 2.1.5: a namespace on a real ZooKeeper with the layout of its scheduler."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from kazoo.client import KazooClient
from kazoo.security import make_digest_acl
from tests.api_kit import FakeLoop, make_api, package_bytes, serving

from jobcloud.client import cli

HANDLERS = {
    "job_exception_handler": "com.dangdang.ddframe.job.executor.handler.impl.DefaultJobExceptionHandler",
    "executor_service_handler": "com.dangdang.ddframe.job.executor.handler.impl.DefaultExecutorServiceHandler",
}
MANIFEST = """
[app]
bootstrapScript = "java -jar worker.jar"
"""


def ej_app(name: str, **changes: Any) -> dict[str, Any]:
    """As CloudAppConfigurationGsonFactory writes it."""
    return {
        "appName": name,
        "appURL": f"http://files.example.org/{name}.tar.gz",
        "bootstrapScript": "bin/start.sh",
        "cpuCount": 1.0,
        "memoryMB": 128.0,
        "appCacheEnable": True,
        "eventTraceSamplingCount": 0,
    } | changes


def ej_job(name: str, app: str = "shop", **changes: Any) -> dict[str, Any]:
    """As CloudJobConfigurationGsonFactory writes it."""
    return {
        "jobName": name,
        "jobClass": "com.example.shop.SettleJob",
        "jobType": "SIMPLE",
        "cron": "0/5 * * * * ?",
        "shardingTotalCount": 2,
        "shardingItemParameters": "0=Berlin,1=Paris",
        "jobParameter": "",
        "failover": True,
        "misfire": True,
        "description": "",
        "jobProperties": HANDLERS,
        "appName": app,
        "cpuCount": 0.1,
        "memoryMB": 64.0,
        "jobExecutionType": "TRANSIENT",
    } | changes


def ej_script(name: str, app: str = "shop", **changes: Any) -> dict[str, Any]:
    marker = "com.dangdang.ddframe.job.api.script.ScriptJob"
    return ej_job(name, app, jobType="SCRIPT", jobClass=marker, scriptCommandLine="bin/run.sh fast") | changes


class Namespace:
    def __init__(self, hosts: str) -> None:
        self.hosts, self.name = hosts, f"ej-{uuid.uuid4().hex}"
        self.client = KazooClient(hosts)
        self.client.start(10)
        self.put("ha/framework_id", b"framework-of-elastic-job")

    def put(self, path: str, data: bytes | dict[str, Any]) -> None:
        stored = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.client.create(f"/{self.name}/{path}", stored, makepath=True)

    def app(self, config: dict[str, Any]) -> None:
        self.put(f"config/app/{config['appName']}", config)

    def job(self, config: dict[str, Any]) -> None:
        self.put(f"config/job/{config['jobName']}", config)

    def disable(self, kind: str, name: str) -> None:
        self.put(f"state/disable/{kind}/{name}", name.encode())

    def all(self) -> dict[str, tuple[bytes, int]]:
        """Every node with its data and version."""
        found, folders = {}, [f"/{self.name}"]
        while folders:
            path = folders.pop()
            data, stat = self.client.get(path)
            found[path] = data, stat.version
            folders += [f"{path}/{name}" for name in self.client.get_children(path)]
        return found


@pytest.fixture
def ej(zookeeper_hosts: str) -> Iterator[Namespace]:
    made = Namespace(zookeeper_hosts)
    yield made
    made.client.stop()
    made.client.close()


@dataclass
class Imported:
    code: int
    out: str
    err: str

    @property
    def items(self) -> dict[str, Any]:
        return {f"{item['kind']} {item['name']}": item for item in json.loads(self.out)["items"]}

    def actions(self) -> dict[str, str]:
        return {name: item["action"] for name, item in self.items.items()}


Import = Callable[..., Imported]


@pytest.fixture
def loop() -> FakeLoop:
    loop = FakeLoop()
    loop.subscribe()
    return loop


@pytest.fixture
def package(tmp_path: Path) -> str:
    """The option --package with an app adapted to jobcloud."""
    folder = tmp_path / "adapted"
    folder.mkdir()
    (folder / "worker.jar").write_bytes(b"a worker, the jobs")
    (folder / "jobcloud.toml").write_text(MANIFEST)
    return f"--package=shop={folder}"


@pytest.fixture
def run(
    ej: Namespace, loop: FakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Import]:
    with serving(make_api(tmp_path, loop)) as url:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        monkeypatch.delenv("JOBCLOUD_TOKEN", raising=False)
        monkeypatch.setenv("JOBCLOUD_SERVER", url)

        def run(*arguments: str, namespace: str = ej.name) -> Imported:
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main(["import-ej", "--zookeeper", ej.hosts, "--namespace", namespace, "--json", *arguments])
            printed = capsys.readouterr()
            return Imported(int(ended.value.code or 0), printed.out, printed.err)

        yield run


pytestmark = pytest.mark.zookeeper


def test_apps_jobs_and_disabled_marks_are_imported(run: Import, ej: Namespace, loop: FakeLoop, package: str) -> None:
    ej.app(ej_app("shop", cpuCount=0.5, eventTraceSamplingCount=10))
    ej.job(ej_job("settle"))
    ej.job(ej_job("resident", jobExecutionType="DAEMON", failover=False, misfire=False))
    ej.job(ej_job("flow", jobType="DATAFLOW", streamingProcess=True))
    ej.job(ej_script("report"))
    ej.disable("job", "flow")
    before = ej.all()
    done = run(package, "--zone", "Asia/Shanghai")
    assert done.code == 0, done.out
    assert set(done.actions().values()) == {"registered"}
    app = loop.scheduler.apps["shop"]
    assert (app.resources.cpus, app.sampling, app.bootstrap_script) == (500, 10, "java -jar worker.jar")
    jobs = loop.scheduler.jobs
    settle = jobs["settle"]
    assert settle.job_class == "com.example.shop.SettleJob"
    assert (settle.shard_count, settle.shard_parameters) == (2, "0=Berlin,1=Paris")
    assert (settle.zone, settle.failover, settle.misfire, settle.resources.mem) == ("Asia/Shanghai", True, True, 64_000)
    assert (jobs["resident"].kind, jobs["flow"].streaming, jobs["report"].script) == ("DAEMON", True, "bin/run.sh fast")
    assert {name for name, state in loop.scheduler.job_states.items() if state.disabled} == {"flow"}
    assert done.items["job flow"]["disabled"]
    assert ej.all() == before, "the import writes nothing to Elastic-Job-Cloud"


def test_second_import_changes_nothing_and_keeps_local_changes(
    run: Import, ej: Namespace, loop: FakeLoop, package: str
) -> None:
    ej.app(ej_app("shop"))
    for name in ("settle", "tuned"):
        ej.job(ej_job(name))
    ej.job(ej_script("report", cpuCount=0.0004, beanName="unused"))
    for name in ("settle", "report"):
        ej.disable("job", name)
    assert run(package).code == 0
    cli_client = ("job", "update", "tuned", "--set", "cron=0 0 3 * * ?")
    with pytest.raises(SystemExit):
        cli.main(cli_client)
    with pytest.raises(SystemExit):
        cli.main(("job", "enable", "settle"))
    loop.effects.clear()
    again = run(package)
    assert again.code == 0
    unchanged = dict.fromkeys(("app shop", "job settle", "job report"), "unchanged")
    assert again.actions() == unchanged | {"job tuned": "kept"}
    assert "other values of cron" in again.items["job tuned"]["reason"]
    assert loop.effects == [], "a job that was enabled here is not disabled again"
    assert not loop.scheduler.job_states["settle"].disabled


def test_dry_run_reports_the_same_and_changes_nothing(run: Import, ej: Namespace, loop: FakeLoop, package: str) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle"))
    ej.job(ej_job("bad", cron="every day"))
    ej.disable("job", "settle")
    dry = run(package, "--dry-run")
    assert not loop.scheduler.apps
    assert not loop.scheduler.jobs
    done = run(package)
    assert (dry.code, dry.items) == (1, done.items)
    assert json.loads(dry.out)["summary"] == {"registered": 2, "unchanged": 0, "kept": 0, "refused": 1}


def test_dry_run_without_a_server_notes_that_registered_apps_are_unknown(
    run: Import, ej: Namespace, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ej.app(ej_app("shop"))
    monkeypatch.setenv("JOBCLOUD_SERVER", "http://127.0.0.1:9")
    dry = run(package, "--dry-run")
    assert dry.code == 0
    assert any("does not know the apps and jobs" in note for note in json.loads(dry.out)["notes"])
    assert run(package).code == 3


def test_jobs_of_a_disabled_app_do_not_fire(run: Import, ej: Namespace, loop: FakeLoop, package: str) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle"))
    ej.job(ej_job("resident", jobExecutionType="DAEMON"))
    ej.disable("app", "shop")
    assert run(package).code == 0
    loop.offer()
    assert loop.tick(60_000) == []
    assert loop.scheduler.disabled_apps == {"shop"}
    assert not any(state.disabled for state in loop.scheduler.job_states.values())


def test_registered_app_keeps_its_package_and_stays_enabled(
    run: Import, ej: Namespace, loop: FakeLoop, package: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        cli.main(("app", "add", str(tmp_path / "adapted"), "--name", "shop"))
    mine = loop.scheduler.apps["shop"]
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle"))
    ej.disable("app", "shop")
    done = run()
    assert done.code == 0
    assert loop.scheduler.apps["shop"] == mine
    assert not loop.scheduler.disabled_apps
    assert loop.scheduler.job_states["settle"].disabled, "its app was disabled there, so it must not start to fire"
    assert "stays enabled here" in done.items["app shop"]["changes"]
    assert "its app shop is disabled there" in done.items["job settle"]["changes"][0]


def test_all_jobs_can_be_imported_disabled(run: Import, ej: Namespace, loop: FakeLoop, package: str) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle"))
    ej.job(ej_job("resident", jobExecutionType="DAEMON"))
    assert run(package, "--disabled").code == 0
    loop.offer()
    assert loop.tick(60_000) == []
    assert all(state.disabled for state in loop.scheduler.job_states.values())


def test_packages_can_be_downloaded_unchanged(run: Import, ej: Namespace, loop: FakeLoop, files: str) -> None:
    ej.app(ej_app("shop", appURL=f"{files}/package.zip"))
    ej.app(ej_app("lost", appURL=f"{files}/nothing.zip"))
    ej.app(ej_app("disk", appURL="hdfs://files/package.zip"))
    ej.app(ej_app("junk", appURL=f"{files}/junk.zip"))
    ej.job(ej_script("report"))
    ej.job(ej_job("settle"))
    done = run("--fetch")
    registered = dict.fromkeys(("app shop", "job report"), "registered")
    refused = dict.fromkeys(("app lost", "app disk", "app junk", "job settle"), "refused")
    assert done.actions() == registered | refused
    assert loop.scheduler.apps["shop"].package.url.startswith("package:sha256:")
    assert "bin/start.sh" in done.items["app shop"]["changes"][1]
    assert "answers with 404" in done.items["app lost"]["reason"]
    assert "not an http(s) URL" in done.items["app disk"]["reason"]
    assert "no worker" in done.items["job settle"]["reason"]


@pytest.fixture
def files() -> Iterator[str]:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        found = {"/package.zip": package_bytes(), "/junk.zip": b"junk"}.get(scope["path"])
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
        await send({"type": "http.response.body", "body": found or b""})

    with serving(serve) as url:
        yield url


REFUSED: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "not-json": (b"jobName: not-json", "only Elastic-Job-Cloud 2.1.5 is supported"),
    "half": (json.dumps(ej_job("half")).encode()[:-20], "is not valid JSON"),
    "list": (b"[]", "not a JSON object"),
    "empty": (b"", "is not valid JSON"),
    "latin": ('{"jobName": "latin", "description": "ä"}'.encode("latin-1"), "not UTF-8"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "huge": (json.dumps(ej_job("huge", description="x" * 300_000)).encode(), "a configuration has at most"),
    "nan": (b'{"jobName": "nan", "cpuCount": NaN}', "NaN is not a number"),
    "twice": (b'{"jobName": "twice", "cron": "a", "cron": "b"}', "'cron' is given twice"),
    "other": (ej_job("another"), "the node is named 'other'"),
    "types": (ej_job("types", shardingTotalCount="2", cpuCount="much", misfire=1), "shardingTotalCount: must be"),
    "negative": (ej_job("negative", cpuCount=-1.0), "cpuCount"),
    "vast": (ej_job("vast", cpuCount=1e15), "cpuCount: "),
    "endless": (ej_job("endless", cpuCount=1e300), "too long or out of range"),
    "no-type": ({"jobName": "no-type", "appName": "shop"}, "jobType: is missing"),
    "unknown-type": (ej_job("unknown-type", jobType="CRON"), "'CRON' is not a valid value"),
    "cron": (ej_job("cron", cron="0 0 0 ? * 6#3,2"), "cron:"),
    "shards": (ej_job("shards", shardingItemParameters="0:Berlin"), "item=value pair"),
    "no-value": (ej_job("no-value", shardingItemParameters="0=Berlin,1="), "'1=' is not an item=value pair"),
    "no-app": (ej_job("no-app", "nowhere"), "'nowhere' is not registered"),
    "app-type": (ej_job("app-type", appName={"a": 1}), "is not registered"),
    "properties": (ej_job("properties", jobProperties="x"), "jobProperties"),
    "spring": (
        ej_job("spring", beanName="job", applicationContext="file:/etc/job.xml"),
        "names neither an object nor an XML file in the class path",
    ),
    "no script": (ej_script("no script", scriptCommandLine=""), "is not a valid name"),
    "工作": (ej_job("工作"), "is not a valid name"),
}


def test_hostile_nodes_are_reported_and_do_not_affect_others(
    run: Import, ej: Namespace, loop: FakeLoop, package: str
) -> None:
    ej.app(ej_app("shop"))
    ej.put("config/app/broken", b"{")
    ej.job(ej_job("sound"))
    for name, (node, _) in REFUSED.items():
        ej.put(f"config/job/{name}", node)
    ej.client.create(f"/{ej.name}/config/job/closed", b"{}", acl=[make_digest_acl("ej", "secret", all=True)])
    ej.disable("job", "ghost")
    done = run(package)
    assert done.code == 1
    assert {name for name, action in done.actions().items() if action != "refused"} == {"app shop", "job sound"}
    for name, (_, says) in REFUSED.items():
        assert says in done.items[f"job {name}"]["reason"], name
    assert "access is denied" in done.items["job closed"]["reason"]
    assert "no job of this name" in done.items["disabled job ghost"]["reason"]
    assert set(loop.scheduler.jobs) == {"sound"}
    dry = run(package, "--dry-run").items
    assert {name: dry[name]["reason"] for name in dry} | {"app shop": ""} == {
        name: item["reason"] for name, item in done.items.items()
    }
    assert run(package).actions()["job sound"] == "unchanged"


def test_apps_and_jobs_can_be_renamed(run: Import, ej: Namespace, loop: FakeLoop, package: str) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("工作"))
    ej.job(ej_script("plain"))
    ej.disable("app", "shop")
    renames = ("--rename-app", "shop=store", "--rename-job", "工作=settle")
    done = run(package, *renames)
    assert done.code == 0, done.out
    assert set(loop.scheduler.apps) == loop.scheduler.disabled_apps == {"store"}
    assert {name: job.app for name, job in loop.scheduler.jobs.items()} == {"settle": "store", "plain": "store"}
    assert done.items["app shop"]["changes"][0] == "appName: 'shop' is 'store' here"
    assert done.items["job 工作"]["changes"][:2] == [
        "jobName: '工作' is 'settle' here",
        "appName: 'shop' is 'store' here",
    ]
    assert set(run(package, *renames).actions().values()) == {"unchanged"}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--rename-job", "nobody=x", "'nobody' is not in Elastic-Job-Cloud"),
        ("--rename-job", "settle=report", "'report' would be the name of two"),
        ("--rename-job", "settle", "is not OLD=NEW"),
        ("--rename-job", "settle=a b", "is not a valid name"),
        ("--rename-app", "settle=x", "'settle' is not in Elastic-Job-Cloud"),
    ],
)
def test_wrong_renames_are_refused_before_anything_is_imported(
    run: Import, ej: Namespace, loop: FakeLoop, package: str, option: str, value: str, said: str
) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle"))
    ej.job(ej_job("report"))
    done = run(package, option, value)
    assert done.code == 2
    assert said in done.err
    assert not loop.scheduler.apps


def test_item_parameters_that_only_elastic_job_takes_are_imported_with_the_value_used(
    run: Import, ej: Namespace, loop: FakeLoop, package: str
) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle", shardingItemParameters="0=Berlin,1=Paris,1=Rome,7=Oslo,"))
    done = run(package)
    assert done.code == 0
    assert loop.scheduler.jobs["settle"].shard_parameters == "0=Berlin,1=Rome"
    assert "ignores the items 7" in done.items["job settle"]["changes"][1]
    assert run(package).actions()["job settle"] == "unchanged"


def test_changes_to_configurations_are_reported(run: Import, ej: Namespace, loop: FakeLoop, package: str) -> None:
    ej.app(ej_app("shop", appOwner="me", cpuCount=0.12345))
    ej.job(
        ej_job("settle", monitorExecution=True, memoryMB=1.00001, description=None)
        | {"jobProperties": {"job_exception_handler": "com.example.Alarm"}}
        | {"streamingProcess": True, "scriptCommandLine": "x"}
    )
    ej.job(
        ej_script("report", scriptCommandLine="cat a | wc", jobClass="com.example.Mine")
        | {"jobParameter": "p", "beanName": "b", "applicationContext": "m:c"}
    )
    ej.put("state/ready/settle", b"3")
    done = run(package)
    assert done.code == 0
    said = {name: " ".join(item["changes"]) for name, item in done.items.items()}
    for part in ("appOwner", "cpuCount: 0.12345 is rounded up to 0.124", "adapted"):
        assert part in said["app shop"]
    for part in ("com.example.Alarm", "monitorExecution", "1.001", "streamingProcess", "scriptCommandLine"):
        assert part in said["job settle"]
    for part in ("without a shell", "jobClass", "jobParameter: the script's last argument lacks it", "beanName"):
        assert part in said["job report"]
    assert any("state/ready: 1" in note for note in json.loads(done.out)["notes"])


def test_job_with_spring_and_handlers_is_imported_for_a_worker_for_java(
    run: Import, ej: Namespace, loop: FakeLoop, package: str
) -> None:
    ej.app(ej_app("shop"))
    handlers = {"job_exception_handler": "com.example.Duty$Pager", "executor_service_handler": "com.example.Duty$Pool"}
    context = "classpath:META-INF/applicationContext.xml"
    ej.job(ej_job("settle", beanName="settleJob", applicationContext=context, jobProperties=handlers))
    done = run(package)
    assert done.code == 0
    job = loop.scheduler.jobs["settle"]
    assert (job.bean, job.context) == ("settleJob", context)
    assert (job.error_handler, job.thread_pool) == ("com.example.Duty$Pager", "com.example.Duty$Pool")
    changes = " ".join(done.items["job settle"]["changes"])
    assert changes.count("is used here; Elastic-Job-Cloud never used it") == 2


def test_app_without_a_verified_package_is_refused_with_a_fix(run: Import, ej: Namespace, loop: FakeLoop) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle"))
    done = run()
    assert done.code == 1
    assert "--package shop=DIR" in done.items["app shop"]["reason"]
    assert not loop.scheduler.apps


def test_closed_namespace_is_read_with_a_digest(run: Import, ej: Namespace, tmp_path: Path, package: str) -> None:
    closed = [make_digest_acl("ej", "secret", all=True)]
    name = f"ej-{uuid.uuid4().hex}"
    owner = KazooClient(ej.hosts, auth_data=[("digest", "ej:secret")])
    owner.start(10)
    owner.create(f"/{name}/config/app/shop", json.dumps(ej_app("shop")).encode(), acl=closed, makepath=True)
    for path in (f"/{name}/config/app", f"/{name}/config", f"/{name}"):
        owner.set_acls(path, closed)
    owner.stop()
    owner.close()
    refused = run(package, namespace=name)
    assert (refused.code, refused.out) == (2, "")
    assert "--auth-file" in refused.err
    (tmp_path / "digest").write_text("ej:secret\n")
    assert run(package, "--auth-file", str(tmp_path / "digest"), namespace=name).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--namespace", "nowhere"), "there is no /nowhere"),
        (("--namespace", "zookeeper"), "holds no state of Elastic-Job-Cloud"),
        (("--zookeeper", "user:password@host:1"), "credentials do not belong"),
        (("--zone", "Mars/Olympus"), "--zone"),
        (("--package", "shop=/no/such/place"), "--package"),
        (("--auth-file", "/no/such/file"), "--auth-file"),
    ],
)
def test_wrong_usage_is_reported(run: Import, arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_report_without_json_is_a_table(
    run: Import, ej: Namespace, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ej.app(ej_app("shop"))
    ej.job(ej_job("settle", cron="\x1b[31m"))
    with pytest.raises(SystemExit):
        cli.main(("import-ej", "--zookeeper", ej.hosts, "--namespace", ej.name, package))
    out = capsys.readouterr().out
    assert "1 registered" in out
    assert "1 refused" in out
    assert "\x1b" not in out
